"""/v1/users: who is disabled, for operators."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from aiohttp import web

from authproxy.control import views
from authproxy.control.panel import Control
from authproxy.core.errors import BadRequest
from authproxy.core.model import Caller
from authproxy.faces.inquiry import Answer, Inquiries, body_of, number_of, query_of, text_in

_WORDS = {"true": True, "false": False}


class Users:
    """Reads a request, asks Control, writes its answer. No decision is taken here."""

    def __init__(self, control: Control, inquiries: Inquiries) -> None:
        self._control = control
        self._inquiries = inquiries

    def routes(self) -> Iterable[web.AbstractRouteDef]:
        """Every path of users."""
        asked, one = self._inquiries.asked, "/v1/users/{user}"
        return [
            web.get("/v1/users", asked(self.list)),
            web.get(one, asked(self.show)),
            web.post(f"{one}/disable", asked(self.disable)),
            web.post(f"{one}/enable", asked(self.enable)),
        ]

    async def list(self, request: web.Request, caller: Caller) -> Answer:
        limit = number_of(request, "limit", default=100, least=1, most=1000)
        said = query_of(request, "disabled")
        if said is not None and said not in _WORDS:
            raise BadRequest("disabled must be true or false", reason="disabled")
        found = await self._control.users.list(
            caller,
            disabled=None if said is None else _WORDS[said],
            limit=limit,
            after=query_of(request, "after"),
        )
        return {
            "items": [views.user(one) for one in found],
            "after": found[-1].user if len(found) == limit else None,
        }

    async def show(self, request: web.Request, caller: Caller) -> Answer:
        return views.user(await self._control.users.show(caller, request.match_info["user"]))

    async def disable(self, request: web.Request, caller: Caller) -> Answer:
        body = await _body(request, "reason", "keep_grants")
        keep = body.get("keep_grants", False)
        if not isinstance(keep, bool):
            raise BadRequest("keep_grants must be true or false", reason="keep_grants")
        done = await self._control.users.disable(
            caller, request.match_info["user"], reason=text_in(body, "reason"), keep_grants=keep
        )
        return views.disabled(done)

    async def enable(self, request: web.Request, caller: Caller) -> Answer:
        body = await _body(request, "reason")
        done = await self._control.users.enable(
            caller, request.match_info["user"], reason=text_in(body, "reason")
        )
        return views.user(done.standing) | {"changed": done.changed}


async def _body(request: web.Request, *names: str) -> Mapping[str, Any]:
    """What is said beside the name, if anything is: a misspelt word must not be taken for none."""
    body = await body_of(request) if await request.read() else {}
    if strange := body.keys() - set(names):
        raise BadRequest(f"There is no {min(strange)[:64]!r} here", reason="unknown_field")
    return body
