"""How something is asked below /v1: by whom, in which words, and for how long the answer may be waited for."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any, TypeVar

from aiohttp import web

from authproxy.callers.desk import Desk
from authproxy.core.errors import BadRequest, CallerUnknown, Overloaded
from authproxy.core.model import Caller
from authproxy.faces.edge import Names, is_local

Answer = Mapping[str, Any] | web.StreamResponse | None
Method = Callable[[web.Request, Caller], Awaitable[Answer]]
T = TypeVar("T")

MAX_WAITS = 256
"""For each agent: every one holds a connection, and looks at the store twice a second."""
LISTENS = 1.0
"""Seconds between two looks whether who waits is still there."""


class Inquiries:
    """Shared by the faces below /v1: who is asking, and who is waiting."""

    def __init__(self, desk: Desk, names: Names, demand: Callable[[str, str], Awaitable[None]]) -> None:
        """`demand` raises where a tenant's user is disabled."""
        self._desk = desk
        self._names = names
        self._demand = demand
        self.closing = asyncio.Event()
        self._waits: Counter[tuple[str, str]] = Counter()

    def recognise_by(self, desk: Desk) -> None:
        """Another desk says who callers are, from the next request on."""
        self._desk = desk

    def close(self) -> None:
        """Answer those who are waiting now, so that the listener can drain."""
        self.closing.set()

    def asked(self, method: Method) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        """Who is asking, before anything else is read; then the answer as JSON."""

        async def handler(request: web.Request) -> web.StreamResponse:
            answer = await method(request, await self.caller(request))
            if answer is None:
                return web.Response(status=204)
            if isinstance(answer, web.StreamResponse):
                return answer
            return web.json_response(answer)

        return handler

    async def caller(self, request: web.Request) -> Caller:
        """Who sent this request. Raises CallerUnknown, UserDisabled where that is one user's alone, and BadRequest for
        a web page."""
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
        if caller.bound_user is not None and not caller.operator:
            await self._demand(caller.tenant, caller.bound_user)
        return caller

    def _who(self, request: web.Request) -> Caller:
        return self._desk.identify(
            request.raw_headers, peer_is_loopback=is_local(request, self._names), listener="control"
        ).caller

    async def waited(
        self,
        request: web.Request,
        caller: Caller,
        wait: Callable[[], Coroutine[Any, Any, T]],
        now: Callable[[], Awaitable[T]],
    ) -> T:
        """What `wait` ends with; what `now` says where this process closes, or who asked has gone, before that.
        Raises Overloaded where this agent waits for too much already."""
        who = (caller.tenant, caller.agent)
        if self._waits[who] >= MAX_WAITS:
            raise Overloaded(f"{caller.agent} waits for {MAX_WAITS} answers already", reason="waits")
        self._waits[who] += 1
        waiting = asyncio.ensure_future(wait())
        closing = asyncio.ensure_future(self.closing.wait())
        try:
            done: set[asyncio.Future[Any]] = set()
            while not done and request.transport is not None:  # None: who asked has gone
                done, _ = await asyncio.wait(
                    (waiting, closing), timeout=LISTENS, return_when=asyncio.FIRST_COMPLETED
                )
            found = waiting.result() if waiting.done() else await now()
            await self.caller(request)  # who has been revoked while waiting is told that, and nothing else
            return found
        finally:
            closing.cancel()
            waiting.cancel()
            self._waits[who] -= 1
            if not self._waits[who]:
                del self._waits[who]


async def body_of(request: web.Request) -> Mapping[str, Any]:
    """A JSON object. The content type is demanded: a web page cannot send it without a preflight."""
    demand_json(request)
    return object_of(await request.read())


def demand_json(request: web.Request) -> None:
    """Raises BadRequest for a body that is not announced as JSON."""
    if request.content_type != "application/json":
        raise BadRequest("Send Content-Type: application/json", reason="content_type")


def object_of(raw: bytes) -> Mapping[str, Any]:
    """The JSON object that these bytes are. Raises BadRequest."""
    try:
        value = json.loads(raw)
    except ValueError:
        raise BadRequest("The request body is not JSON", reason="not_json") from None
    except RecursionError:
        raise BadRequest("The request body is nested too deeply", reason="not_json") from None
    if not isinstance(value, dict):
        raise BadRequest("The request body is not a JSON object", reason="not_json")
    return value


def object_in(
    body: Mapping[str, Any], name: str, *, missing: Mapping[str, Any] | None = None
) -> Mapping[str, Any]:
    value = body.get(name)
    if value is None and missing is not None:
        return missing
    if not isinstance(value, dict):
        raise BadRequest(f"{name} must be an object", reason=name)
    return value


def text_in(body: Mapping[str, Any], name: str) -> str | None:
    value = body.get(name)
    if value is None:
        return None
    if not isinstance(value, str) or len(value) > 2048 or not value.isprintable():
        raise BadRequest(f"{name} must be a string of printable characters", reason=name)
    return value.strip() or None


def texts_in(body: Mapping[str, Any], name: str) -> tuple[str, ...]:
    value = body.get(name)
    if value is None:
        return ()
    if not isinstance(value, list) or len(value) > 200 or not all(isinstance(item, str) for item in value):
        raise BadRequest(f"{name} must be a list of strings", reason=name)
    return tuple(dict.fromkeys(item for item in value if item))


def query_of(request: web.Request, name: str) -> str | None:
    values = request.query.getall(name, [])
    if len(values) > 1:
        raise BadRequest(f"The query has {name} more than once", reason=name)
    return values[0] if values and values[0] else None


def optional_number(request: web.Request, name: str) -> int | None:
    if query_of(request, name) is None:
        return None
    return number_of(request, name, default=0, least=0, most=2**53)


def number_of(request: web.Request, name: str, *, default: int, least: int, most: int) -> int:
    """A whole number; over the most is the most (`wait=60` waits 59 s), anything else odd is refused."""
    text = query_of(request, name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) < 20) or int(text) < least:
        raise BadRequest(f"{name} must be a whole number of at least {least}", reason=name)
    return min(int(text), most)


def seconds_in(body: Mapping[str, Any], name: str) -> int | None:
    """A whole number of seconds, None where it is not said."""
    value = body.get(name)
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**53:
        raise BadRequest(f"{name} must be a whole number of seconds", reason=name)
    return value
