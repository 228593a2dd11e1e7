"""/v1/approvals: calls of tools that wait for somebody's yes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from aiohttp import web

from authproxy.control import views
from authproxy.control.consent import MAX_WAIT
from authproxy.control.panel import Control
from authproxy.core.errors import BadRequest
from authproxy.core.model import ApprovalStatus, Caller
from authproxy.faces.inquiry import Answer, Inquiries, body_of, number_of, query_of, text_in


class Approvals:
    """Reads a request, asks Control, writes its answer. No decision is taken here."""

    def __init__(self, control: Control, inquiries: Inquiries) -> None:
        self._control = control
        self._inquiries = inquiries

    def routes(self) -> Iterable[web.AbstractRouteDef]:
        """Every path of approvals."""
        asked, one = self._inquiries.asked, "/v1/approvals/{id}"
        return [
            web.get("/v1/approvals", asked(self.list)),
            web.get(one, asked(self.show)),
            web.post(f"{one}/approve", asked(self.approve)),
            web.post(f"{one}/deny", asked(self.deny)),
        ]

    async def list(self, request: web.Request, caller: Caller) -> Answer:
        limit = number_of(request, "limit", default=100, least=1, most=1000)
        found = await self._control.approvals.list(
            caller,
            user=query_of(request, "user_id"),
            status=_status(query_of(request, "status")),
            limit=limit,
            after=query_of(request, "after"),
        )
        return {"items": [views.approval(one) for one in found]}

    async def show(self, request: web.Request, caller: Caller) -> Answer:
        approvals, name = self._control.approvals, request.match_info["id"]
        seconds = number_of(request, "wait", default=0, least=0, most=int(MAX_WAIT))
        await approvals.look(caller, name)
        if seconds:
            await self._inquiries.waited(
                request,
                caller,
                lambda: approvals.wait(caller, name, seconds),
                lambda: approvals.look(caller, name),
            )
        shown = await approvals.show(caller, name)
        return views.approval(shown.approval) | {"input": shown.input}

    async def approve(self, request: web.Request, caller: Caller) -> Answer:
        return await self._decide(request, caller, approve=True)

    async def deny(self, request: web.Request, caller: Caller) -> Answer:
        return await self._decide(request, caller, approve=False)

    async def _decide(self, request: web.Request, caller: Caller, *, approve: bool) -> dict[str, Any]:
        body = await body_of(request) if request.can_read_body else {}
        decided = await self._control.approvals.decide(
            caller, request.match_info["id"], approve=approve, user=text_in(body, "user_id")
        )
        return views.approval(decided)


def _status(text: str | None) -> ApprovalStatus | None:
    if text is None:
        return None
    try:
        return ApprovalStatus(text)
    except ValueError:
        raise BadRequest(f"status must be one of {', '.join(ApprovalStatus)}", reason="status") from None
