"""The small API behind the provider: every answer names the user whose token it ran on."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections import defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from authproxy.sandbox.answers import identity
from authproxy.sandbox.grants import Access, digest_of
from authproxy.sandbox.ledger import ApiCall
from authproxy.sandbox.stage import Place, Stage, json_answer, reset
from authproxy.sandbox.switches import Switches

MAX_BYTES = 2**30
MAX_EVENTS = 100_000
MAX_SECONDS = 300.0
MAX_MESSAGES = 1000
_CHUNK = 64 * 1024

Work = Callable[[Place, web.Request, Access], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class Operation:
    """One route: what it needs and what it does."""

    method: str
    path: str
    power: str
    work: Work


class Api:
    """The routes and the guard before them."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._messages: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
        self._ids = itertools.count(1)

    def operations(self) -> list[Operation]:
        """All routes, below any place."""
        return [
            Operation("GET", "/api/me", "read", self._me),
            Operation("GET", "/api/messages", "read", self._list),
            Operation("POST", "/api/messages", "write", self._send),
            Operation("*", "/api/echo{tail:(/.*)?}", "any", self._echo),
            Operation("GET", "/api/stream", "read", self._events),
            Operation("GET", "/api/bytes/{n:\\d{1,10}}", "read", self._bytes),
            Operation("POST", "/api/upload", "write", self._upload),
            Operation("PUT", "/api/upload", "write", self._upload),
            Operation("GET", "/api/slow", "read", self._slow),
        ]

    async def answer(self, place: Place, operation: Operation, request: web.Request) -> web.StreamResponse:
        """Checks the bearer token, applies the switches, does the work."""
        stage = self._stage
        token, access = stage.bearer(request)
        if access is not None and access.grant.dialect != place.dialect.name:
            access = None
        call = stage.ledger.open_api_call(
            {
                "at": stage.clock(),
                "dialect": place.dialect.name,
                "method": request.method,
                "path": request.path,
                "access_digest": digest_of(token) if token is not None else None,
                "user": access.grant.user if access is not None else None,
                "grant": access.grant.id if access is not None else None,
                "request_id": request.headers.get("X-Request-ID", "")[:128] or None,
            }
        )
        faults = stage.faults("api", "api_next_calls", user=call.user)
        await stage.pause(faults.api_delay_s)
        response: web.StreamResponse | None = self._forced(place, operation, faults, access)
        if response is None:
            response = self._guard(place, operation, access, token)
        if response is None:
            assert access is not None
            response = await operation.work(place, request, access)
        if faults.api_drop:
            return reset(request)
        self._dress(request, response, faults)
        self._note(call, response)
        return response

    def _note(self, call: ApiCall, response: web.StreamResponse) -> None:
        call.status = response.status
        self._stage.ledger.totals[f"api_{response.status}"] += 1

    def _guard(
        self, place: Place, operation: Operation, access: Access | None, token: str | None
    ) -> web.Response | None:
        if access is None:
            return self._say(place, "missing" if token is None else "invalid", operation, None)
        fault = self._stage.grants.fault_of(access)
        if fault is not None:
            return self._say(place, fault, operation, access)
        if operation.power != "any" and not place.dialect.may(access.scopes, operation.power):
            return self._say(place, "scope", operation, access)
        return None

    def _forced(
        self, place: Place, operation: Operation, faults: Switches, access: Access | None
    ) -> web.Response | None:
        if faults.api_unauthorized:
            return self._say(place, "invalid", operation, access, challenge=faults.api_challenge)
        if faults.api_insufficient_scope:
            return self._say(place, "scope", operation, access)
        retry = {} if faults.api_retry_after is None else {"Retry-After": faults.api_retry_after}
        if faults.api_redirect is not None:
            return web.Response(
                status=faults.api_status or 307, headers={"Location": faults.api_redirect, **retry}
            )
        if faults.api_status is None:
            return None
        kind = {401: "invalid", 403: "scope", 429: "rate"}.get(faults.api_status, "down")
        said = place.dialect.api_error(kind)
        headers = {name: value for name, value in said.headers.items() if name != "Retry-After"}
        return json_answer(said.body, faults.api_status, {**headers, **retry})

    def _say(
        self,
        place: Place,
        fault: str,
        operation: Operation,
        access: Access | None,
        challenge: str | None = None,
    ) -> web.Response:
        said = place.dialect.api_error(fault)
        needed = operation.power if operation.power != "any" else "read"
        granted = ",".join(access.scopes) if access is not None else ""
        filled = json.loads(json.dumps(said.body).replace("{scope}", needed).replace("{granted}", granted))
        headers = {
            name: value.replace("{scope}", needed).replace("{granted}", granted)
            for name, value in said.headers.items()
        }
        if challenge is None:
            challenge = self._stage.switches.api_challenge
        if challenge is not None and said.status == 401:
            headers.pop("WWW-Authenticate", None)
            headers |= {"WWW-Authenticate": challenge} if challenge else {}
        return json_answer(filled, said.status, headers)

    def _dress(self, request: web.Request, response: web.StreamResponse, faults: Switches) -> None:
        if response.prepared:
            return
        if faults.api_set_cookie:
            response.set_cookie("sandbox_session", "made-up", httponly=True)
        if faults.api_reflect and isinstance(response, web.Response):
            authorization = request.headers.get("Authorization", "")
            response.headers["X-Reflected-Authorization"] = authorization
            if response.content_type == "application/json" and response.text is not None:
                body = json.loads(response.text)
                if isinstance(body, dict):
                    response.text = json.dumps({**body, "reflected_authorization": authorization})

    def _ok(self, place: Place, access: Access, members: dict[str, Any], status: int = 200) -> web.Response:
        return json_answer(place.dialect.api_answer({"user": access.grant.user, **members}), status)

    # The work

    async def _me(self, place: Place, _request: web.Request, access: Access) -> web.StreamResponse:
        members = {
            **identity(access.grant.user),
            "scopes": list(access.scopes),
            "client_id": access.grant.client_id,
        }
        return self._ok(place, access, members)

    async def _list(self, place: Place, _request: web.Request, access: Access) -> web.StreamResponse:
        return self._ok(place, access, {"messages": self._messages[access.grant.user]})

    async def _send(self, place: Place, request: web.Request, access: Access) -> web.StreamResponse:
        try:
            body = await request.json()
        except ValueError:
            body = None
        if not isinstance(body, dict) or not isinstance(body.get("text"), str):
            return json_answer({"error": "bad_request", "message": 'send {"to": "bob", "text": "…"}'}, 400)
        sender = access.grant.user
        message = {
            "id": next(self._ids),
            "from": sender,
            "to": str(body.get("to", sender)),
            "text": body["text"],
        }
        for owner in {sender, message["to"]}:
            self._messages[owner].append(message)
            del self._messages[owner][:-MAX_MESSAGES]
        return self._ok(place, access, {"message": message}, 201 if place.dialect.name != "slack" else 200)

    async def _echo(self, place: Place, request: web.Request, access: Access) -> web.StreamResponse:
        length, digest = await _swallow(request)
        headers = [
            [name, value] for name, value in request.headers.items() if name.lower() != "authorization"
        ]
        members = {
            "method": request.method,
            "target": request.raw_path,
            "headers": headers,
            "body": {"length": length, "sha256": digest},
            "authorization_lines": len(request.headers.getall("Authorization", [])),
            "access_digest": digest_of(access.token),
        }
        return self._ok(place, access, members)

    async def _upload(self, place: Place, request: web.Request, access: Access) -> web.StreamResponse:
        length, digest = await _swallow(request)
        return self._ok(place, access, {"received": length, "sha256": digest}, 201)

    async def _events(self, _place: Place, request: web.Request, access: Access) -> web.StreamResponse:
        count = int(_number(request, "n", 5, MAX_EVENTS))
        interval = _number(request, "interval", 0.1, MAX_SECONDS)
        response = web.StreamResponse(
            headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"}
        )
        await response.prepare(request)
        for number in range(count):
            if number:
                await self._stage.pause(interval)
            if self._stage.closing.is_set():
                return reset(request)
            data = json.dumps({"user": access.grant.user, "n": number, "of": count})
            await response.write(f"id: {number}\nevent: tick\ndata: {data}\n\n".encode())
        await response.write_eof()
        return response

    async def _bytes(self, _place: Place, request: web.Request, access: Access) -> web.StreamResponse:
        left = int(request.match_info["n"])
        if left > MAX_BYTES:
            return json_answer({"error": "bad_request", "message": f"at most {MAX_BYTES}"}, 400)
        headers = {"Content-Type": "application/octet-stream", "X-Sandbox-User": access.grant.user}
        response = web.StreamResponse(headers=headers)
        response.content_length = left
        await response.prepare(request)
        pattern = bytes(range(256)) * (_CHUNK // 256)
        while left > 0:
            await response.write(pattern[: min(left, _CHUNK)])
            left -= _CHUNK
        await response.write_eof()
        return response

    async def _slow(self, place: Place, request: web.Request, access: Access) -> web.StreamResponse:
        seconds = _number(request, "seconds", 1.0, MAX_SECONDS)
        await self._stage.pause(seconds)
        return self._ok(place, access, {"waited": seconds})


async def _swallow(request: web.Request) -> tuple[int, str]:
    """Length and SHA-256 of the body, without keeping it."""
    length, digest = 0, hashlib.sha256()
    async for chunk in request.content.iter_chunked(_CHUNK):
        length += len(chunk)
        digest.update(chunk)
    return length, digest.hexdigest()


def _number(request: web.Request, name: str, default: float, most: float) -> float:
    try:
        value = float(request.query.get(name, default))
    except ValueError:
        value = -1.0
    if not 0 <= value <= most:
        message = f"{name} must be between 0 and {most:g}"
        raise web.HTTPBadRequest(
            text=json.dumps({"error": "bad_request", "message": message}), content_type="application/json"
        )
    return value
