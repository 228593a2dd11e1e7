"""/v1: flows, connections and the trail, as JSON; the public arcadepy client works against it."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

from aiohttp import web

from authproxy.callers.desk import Desk
from authproxy.control import views
from authproxy.control.consent import MAX_WAIT
from authproxy.control.panel import Control
from authproxy.core.errors import BadRequest, CallerUnknown, Overloaded, UserMissing
from authproxy.core.model import DEFAULT_ACCOUNT, Caller, State
from authproxy.faces.edge import Names, is_local

Answer = Mapping[str, Any] | None
Method = Callable[[web.Request, Caller], Awaitable[Answer]]


MAX_WAITS = 256
"""For each agent: every one holds a connection, and looks at the store twice a second."""
LISTENS = 1.0
"""Seconds between two looks whether who waits is still there."""


class Api:
    """Reads a request, asks Control, writes its answer. No decision is taken here."""

    def __init__(self, control: Control, desk: Desk, names: Names) -> None:
        self._control = control
        self._desk = desk
        self._names = names
        self._closing = asyncio.Event()
        self._waits: Counter[tuple[str, str]] = Counter()

    def recognise_by(self, desk: Desk) -> None:
        """Another desk says who callers are, from the next request on."""
        self._desk = desk

    def routes(self) -> Iterable[web.AbstractRouteDef]:
        """Every path below /v1."""
        one = "/v1/connections/{id}"
        return [
            web.get("/v1/health", self.health),
            web.post("/v1/auth/authorize", self._asked(self.authorize)),
            web.get("/v1/auth/status", self._asked(self.status)),
            web.post("/v1/auth/confirm_user", self._asked(self.confirm_user)),
            web.get("/v1/admin/user_connections", self._asked(self.user_connections)),
            web.delete("/v1/admin/user_connections/{id}", self._asked(self.delete_user_connection)),
            web.get("/v1/connections", self._asked(self.connections)),
            web.get(one, self._asked(self.connection)),
            web.delete(one, self._asked(self.disconnect)),
            web.post(f"{one}/refresh", self._asked(self.refresh)),
            web.get(f"{one}/timeline", self._asked(self.timeline)),
            web.get("/v1/audit", self._asked(self.audit)),
        ]

    def close(self) -> None:
        """Answer those who are waiting now, so that the listener can drain."""
        self._closing.set()

    def _asked(self, method: Method) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        """Who is asking, before anything else is read; then the answer as JSON."""

        async def handler(request: web.Request) -> web.StreamResponse:
            origin = request.headers.get("Origin")
            if origin is not None or request.headers.get("Sec-Fetch-Site") in ("cross-site", "same-site"):
                # No page has business here: browsers reach loopback listeners too (wire: browser reach).
                raise BadRequest("The API is not for web pages", reason="browser_origin")
            try:
                caller = self._who(request)
            except CallerUnknown as unknown:
                if not await self._desk.look_again(unknown):
                    raise
                caller = self._who(request)
            answer = await method(request, caller)
            if answer is None:
                return web.Response(status=204)
            return web.json_response(answer)

        return handler

    def _who(self, request: web.Request) -> Caller:
        return self._desk.identify(
            request.raw_headers, peer_is_loopback=is_local(request, self._names), listener="control"
        ).caller

    async def health(self, _request: web.Request) -> web.Response:
        return web.json_response({"healthy": await self._control.healthy()})

    async def authorize(self, request: web.Request, caller: Caller) -> Answer:
        body = await _body(request)
        need = _object(body, "auth_requirement")
        kind = _text(need, "provider_type") or "oauth2"
        if kind != "oauth2":
            raise BadRequest("auth_requirement.provider_type must be oauth2", reason="provider_type")
        provider = _text(need, "provider_id") or _text(need, "id")
        if not provider:
            raise BadRequest("auth_requirement.provider_id is missing", reason="provider_id")
        user = _text(body, "user_id")
        if not user:
            raise UserMissing("user_id is missing")
        one = await self._control.consent.authorize(
            caller,
            user=user,
            provider=provider,
            scopes=_texts(_object(need, "oauth2", missing={}), "scopes"),
            account=_text(body, "account") or DEFAULT_ACCOUNT,
            next_uri=_text(body, "next_uri"),
        )
        return views.authorization(one)

    async def status(self, request: web.Request, caller: Caller) -> Answer:
        flow_id = _query(request, "id")
        if flow_id is None:
            raise BadRequest("The query names no id", reason="id")
        seconds = _number(request, "wait", default=0, least=0, most=int(MAX_WAIT))
        who = (caller.tenant, caller.agent)
        if seconds and self._waits[who] >= MAX_WAITS:
            raise Overloaded(f"{caller.agent} waits for {MAX_WAITS} authorizations already", reason="waits")
        self._waits[who] += 1
        waiting = asyncio.ensure_future(self._control.consent.wait(caller, flow_id, seconds))
        closing = asyncio.ensure_future(self._closing.wait())
        try:
            done: set[asyncio.Future[Any]] = set()
            while not done and request.transport is not None:  # None: who asked has gone
                done, _ = await asyncio.wait(
                    (waiting, closing), timeout=LISTENS, return_when=asyncio.FIRST_COMPLETED
                )
            if waiting.done():
                return views.authorization(waiting.result())
            return views.authorization(await self._control.consent.status(caller, flow_id))
        finally:
            closing.cancel()
            waiting.cancel()
            self._waits[who] -= 1
            if not self._waits[who]:
                del self._waits[who]

    async def confirm_user(self, request: web.Request, caller: Caller) -> Answer:
        body = await _body(request)
        flow_id, user = _text(body, "flow_id"), _text(body, "user_id")
        if not flow_id:
            raise BadRequest("flow_id is missing", reason="flow_id")
        if not user:
            raise UserMissing("user_id is missing")
        flow = await self._control.consent.confirm_user(caller, flow_id, user)
        return {"auth_id": flow.id, "next_uri": flow.next_uri}

    async def user_connections(self, request: web.Request, caller: Caller) -> Answer:
        limit = _number(request, "limit", default=100, least=1, most=1000)
        offset = _number(request, "offset", default=0, least=0, most=10**9)
        found = await self._control.connections.list(
            caller,
            user=_query(request, "user[id]") or _query(request, "user.id"),
            provider=_query(request, "provider[id]") or _query(request, "provider.id"),
            limit=limit + 1,
            skip=offset,
        )
        items = found[:limit]
        more = len(found) > limit
        return {
            "items": [views.user_connection(one) for one in items],
            "offset": offset,
            "limit": limit,
            "page_count": len(items),
            # One more than was shown where there is more: the client asks on while it has seen fewer.
            "total_count": offset + len(items) + (1 if more else 0),
        }

    async def delete_user_connection(self, request: web.Request, caller: Caller) -> Answer:
        await self._control.connections.disconnect(caller, request.match_info["id"])
        return None

    async def connections(self, request: web.Request, caller: Caller) -> Answer:
        limit = _number(request, "limit", default=100, least=1, most=1000)
        found = await self._control.connections.list(
            caller,
            user=_query(request, "user_id"),
            provider=_query(request, "provider_id"),
            state=_state(_query(request, "state")),
            limit=limit,
            after=_query(request, "after"),
        )
        return {
            "items": [views.connection(one) for one in found],
            "after": found[-1].id if len(found) == limit else None,
        }

    async def connection(self, request: web.Request, caller: Caller) -> Answer:
        connections, name = self._control.connections, request.match_info["id"]
        shown = views.connection(await connections.show(caller, name))
        return shown | {"revoked_upstream": await connections.revoked_upstream(caller, name)}

    async def disconnect(self, request: web.Request, caller: Caller) -> Answer:
        done = await self._control.connections.disconnect(caller, request.match_info["id"])
        return {
            "id": done.connection.id,
            "state": str(State.DISCONNECTED),
            "revoked_upstream": str(done.revoked_upstream),
        }

    async def refresh(self, request: web.Request, caller: Caller) -> Answer:
        return views.connection(await self._control.connections.refresh(caller, request.match_info["id"]))

    async def timeline(self, request: web.Request, caller: Caller) -> Answer:
        told = await self._control.connections.explain(caller, request.match_info["id"])
        return views.explanation(told)

    async def audit(self, request: web.Request, caller: Caller) -> Answer:
        found = await self._control.audit.query(
            caller,
            user=_query(request, "user_id"),
            provider=_query(request, "provider_id"),
            kind=_query(request, "kind"),
            request_id=_query(request, "request_id"),
            since=_optional_number(request, "since"),
            until=_optional_number(request, "until"),
            limit=_number(request, "limit", default=100, least=1, most=1000),
        )
        return {"items": [entry.record for entry in found]}


async def _body(request: web.Request) -> Mapping[str, Any]:
    """A JSON object. The content type is demanded: a web page cannot send it without a preflight."""
    if request.content_type != "application/json":
        raise BadRequest("Send Content-Type: application/json", reason="content_type")
    raw = await request.read()
    try:
        value = json.loads(raw)
    except ValueError:
        raise BadRequest("The request body is not JSON", reason="not_json") from None
    except RecursionError:
        raise BadRequest("The request body is nested too deeply", reason="not_json") from None
    if not isinstance(value, dict):
        raise BadRequest("The request body is not a JSON object", reason="not_json")
    return value


def _object(
    body: Mapping[str, Any], name: str, *, missing: Mapping[str, Any] | None = None
) -> Mapping[str, Any]:
    value = body.get(name)
    if value is None and missing is not None:
        return missing
    if not isinstance(value, dict):
        raise BadRequest(f"{name} must be an object", reason=name)
    return value


def _text(body: Mapping[str, Any], name: str) -> str | None:
    value = body.get(name)
    if value is None:
        return None
    if not isinstance(value, str) or len(value) > 2048 or not value.isprintable():
        raise BadRequest(f"{name} must be a string of printable characters", reason=name)
    return value.strip() or None


def _texts(body: Mapping[str, Any], name: str) -> tuple[str, ...]:
    value = body.get(name)
    if value is None:
        return ()
    if not isinstance(value, list) or len(value) > 200 or not all(isinstance(item, str) for item in value):
        raise BadRequest(f"{name} must be a list of strings", reason=name)
    return tuple(dict.fromkeys(item for item in value if item))


def _query(request: web.Request, name: str) -> str | None:
    values = request.query.getall(name, [])
    if len(values) > 1:
        raise BadRequest(f"The query has {name} more than once", reason=name)
    return values[0] if values and values[0] else None


def _optional_number(request: web.Request, name: str) -> int | None:
    if _query(request, name) is None:
        return None
    return _number(request, name, default=0, least=0, most=2**53)


def _number(request: web.Request, name: str, *, default: int, least: int, most: int) -> int:
    """A whole number; over the most is the most (`wait=60` waits 59 s), anything else odd is refused."""
    text = _query(request, name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) < 20) or int(text) < least:
        raise BadRequest(f"{name} must be a whole number of at least {least}", reason=name)
    return min(int(text), most)


def _state(text: str | None) -> State | None:
    if text is None:
        return None
    try:
        return State(text)
    except ValueError:
        raise BadRequest(f"state must be one of {', '.join(State)}", reason="state") from None
