"""/v1: flows, connections and the trail, as JSON; the public arcadepy client works against it."""

from __future__ import annotations

from collections.abc import Iterable

from aiohttp import web

from authproxy.control import views
from authproxy.control.consent import MAX_WAIT
from authproxy.control.panel import Control
from authproxy.core.errors import BadRequest, UserMissing
from authproxy.core.model import DEFAULT_ACCOUNT, Caller, State
from authproxy.faces.inquiry import (
    Answer,
    Inquiries,
    body_of,
    number_of,
    object_in,
    optional_number,
    query_of,
    text_in,
    texts_in,
)


class Api:
    """Reads a request, asks Control, writes its answer. No decision is taken here."""

    def __init__(self, control: Control, inquiries: Inquiries) -> None:
        self._control = control
        self._inquiries = inquiries

    def routes(self) -> Iterable[web.AbstractRouteDef]:
        """Every path below /v1."""
        one, asked = "/v1/connections/{id}", self._inquiries.asked
        return [
            web.get("/v1/health", self.health),
            web.post("/v1/auth/authorize", asked(self.authorize)),
            web.get("/v1/auth/status", asked(self.status)),
            web.post("/v1/auth/confirm_user", asked(self.confirm_user)),
            web.get("/v1/admin/user_connections", asked(self.user_connections)),
            web.delete("/v1/admin/user_connections/{id}", asked(self.delete_user_connection)),
            web.get("/v1/connections", asked(self.connections)),
            web.get(one, asked(self.connection)),
            web.delete(one, asked(self.disconnect)),
            web.post(f"{one}/refresh", asked(self.refresh)),
            web.get(f"{one}/timeline", asked(self.timeline)),
            web.get(f"{one}/wait", asked(self.wait)),
            web.get("/v1/audit", asked(self.audit)),
        ]

    async def health(self, _request: web.Request) -> web.Response:
        return web.json_response({"healthy": await self._control.healthy()})

    async def authorize(self, request: web.Request, caller: Caller) -> Answer:
        body = await body_of(request)
        need = object_in(body, "auth_requirement")
        kind = text_in(need, "provider_type") or "oauth2"
        if kind != "oauth2":
            raise BadRequest("auth_requirement.provider_type must be oauth2", reason="provider_type")
        provider = text_in(need, "provider_id") or text_in(need, "id")
        if not provider:
            raise BadRequest("auth_requirement.provider_id is missing", reason="provider_id")
        user = text_in(body, "user_id")
        if not user:
            raise UserMissing("user_id is missing")
        one = await self._control.consent.authorize(
            caller,
            user=user,
            provider=provider,
            scopes=texts_in(object_in(need, "oauth2", missing={}), "scopes"),
            account=text_in(body, "account") or DEFAULT_ACCOUNT,
            next_uri=text_in(body, "next_uri"),
        )
        return views.authorization(one)

    async def status(self, request: web.Request, caller: Caller) -> Answer:
        flow_id = query_of(request, "id")
        if flow_id is None:
            raise BadRequest("The query names no id", reason="id")
        seconds = number_of(request, "wait", default=0, least=0, most=int(MAX_WAIT))
        consent = self._control.consent
        if not seconds:
            return views.authorization(await consent.status(caller, flow_id))
        one = await self._inquiries.waited(
            request,
            caller,
            lambda: consent.wait(caller, flow_id, seconds),
            lambda: consent.status(caller, flow_id),
        )
        return views.authorization(one)

    async def confirm_user(self, request: web.Request, caller: Caller) -> Answer:
        body = await body_of(request)
        flow_id, user = text_in(body, "flow_id"), text_in(body, "user_id")
        if not flow_id:
            raise BadRequest("flow_id is missing", reason="flow_id")
        if not user:
            raise UserMissing("user_id is missing")
        flow = await self._control.consent.confirm_user(caller, flow_id, user)
        return {"auth_id": flow.id, "next_uri": flow.next_uri}

    async def user_connections(self, request: web.Request, caller: Caller) -> Answer:
        limit = number_of(request, "limit", default=100, least=1, most=1000)
        offset = number_of(request, "offset", default=0, least=0, most=10**9)
        found = await self._control.connections.list(
            caller,
            user=query_of(request, "user[id]") or query_of(request, "user.id"),
            provider=query_of(request, "provider[id]") or query_of(request, "provider.id"),
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
        limit = number_of(request, "limit", default=100, least=1, most=1000)
        found = await self._control.connections.list(
            caller,
            user=query_of(request, "user_id"),
            provider=query_of(request, "provider_id"),
            state=_state(query_of(request, "state")),
            limit=limit,
            after=query_of(request, "after"),
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

    async def wait(self, request: web.Request, caller: Caller) -> Answer:
        name, watch = request.match_info["id"], self._control.watch
        seconds = number_of(request, "seconds", default=0, least=0, most=int(MAX_WAIT))
        state = _state(query_of(request, "state")) or State.ACTIVE
        if not seconds:
            return views.seen(await watch.look(caller, name, state))
        seen = await self._inquiries.waited(
            request,
            caller,
            lambda: watch.wait(caller, name, state, seconds),
            lambda: watch.look(caller, name, state),
        )
        return views.seen(seen)

    async def audit(self, request: web.Request, caller: Caller) -> Answer:
        found = await self._control.audit.query(
            caller,
            user=query_of(request, "user_id"),
            provider=query_of(request, "provider_id"),
            kind=query_of(request, "kind"),
            request_id=query_of(request, "request_id"),
            since=optional_number(request, "since"),
            until=optional_number(request, "until"),
            limit=number_of(request, "limit", default=100, least=1, most=1000),
        )
        return {"items": [entry.record for entry in found]}


def _state(text: str | None) -> State | None:
    if text is None:
        return None
    try:
        return State(text)
    except ValueError:
        raise BadRequest(f"state must be one of {', '.join(State)}", reason="state") from None
