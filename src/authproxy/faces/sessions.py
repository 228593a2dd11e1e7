"""/v1/sessions: credentials for one agent and one user, minted by an application."""

from __future__ import annotations

from collections.abc import Iterable

from aiohttp import web

from authproxy.control import views
from authproxy.control.panel import Control
from authproxy.core.errors import BadRequest, UserMissing
from authproxy.core.model import Caller
from authproxy.faces.inquiry import (
    Answer,
    Inquiries,
    body_of,
    number_of,
    query_of,
    seconds_in,
    text_in,
    texts_in,
)

_FIELDS = frozenset({"user_id", "agent", "label", "routes", "tools", "ttl", "renewable_for"})


class Sessions:
    """Reads a request, asks Control, writes its answer. No decision is taken here."""

    def __init__(self, control: Control, inquiries: Inquiries) -> None:
        self._control = control
        self._inquiries = inquiries

    def routes(self) -> Iterable[web.AbstractRouteDef]:
        asked = self._inquiries.asked
        return [
            web.post("/v1/sessions", asked(self.create)),
            web.get("/v1/sessions", asked(self.list)),
            web.get("/v1/sessions/{id}", asked(self.show)),
            web.post("/v1/sessions/{id}/renew", asked(self.renew)),
            web.delete("/v1/sessions/{id}", asked(self.revoke)),
        ]

    async def create(self, request: web.Request, caller: Caller) -> Answer:
        body = await body_of(request)
        if strange := body.keys() - _FIELDS:
            # A misspelt limit must not be taken for none.
            raise BadRequest(f"A session has no {min(strange)[:64]!r}", reason="unknown_field")
        user = text_in(body, "user_id")
        if not user:
            raise UserMissing("user_id is missing")
        made = await self._control.sessions.create(
            caller,
            user=user,
            agent=text_in(body, "agent"),
            label=text_in(body, "label"),
            routes=None if body.get("routes") is None else texts_in(body, "routes"),
            tools=None if body.get("tools") is None else texts_in(body, "tools"),
            ttl=seconds_in(body, "ttl"),
            renewable_for=seconds_in(body, "renewable_for"),
        )
        return views.session(made.session, self._control.clock()) | {"key": made.key}

    async def list(self, request: web.Request, caller: Caller) -> Answer:
        limit = number_of(request, "limit", default=100, least=1, most=1000)
        found = await self._control.sessions.list(
            caller, user=query_of(request, "user_id"), limit=limit, after=query_of(request, "after")
        )
        now = self._control.clock()
        return {
            "items": [views.session(one, now) for one in found],
            "after": found[-1].id if len(found) == limit else None,
        }

    async def show(self, request: web.Request, caller: Caller) -> Answer:
        one = await self._control.sessions.show(caller, request.match_info["id"])
        return views.session(one, self._control.clock())

    async def renew(self, request: web.Request, caller: Caller) -> Answer:
        ttl = seconds_in(await body_of(request), "ttl") if await request.read() else None
        one = await self._control.sessions.renew(caller, request.match_info["id"], ttl)
        return views.session(one, self._control.clock())

    async def revoke(self, request: web.Request, caller: Caller) -> Answer:
        one = await self._control.sessions.revoke(caller, request.match_info["id"])
        return views.session(one, self._control.clock())
