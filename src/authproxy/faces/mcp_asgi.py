"""Lets an ASGI application answer one request of the control listener."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from aiohttp import web

from authproxy.faces.edge import REQUEST_ID, finish
from authproxy.faces.listener import left

Message = MutableMapping[str, Any]
Application = Callable[
    [MutableMapping[str, Any], Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]],
    Awaitable[None],
]

SEND_PATIENCE = 30.0
"""Seconds in which who asked must take what is sent; who reads nothing does not keep a call alive."""
GONE = 499
"""The status in the log of a request whose sender has gone; nobody is told."""
_OURS = frozenset({b"connection", b"transfer-encoding", b"server", b"date"})
_WITHHELD = frozenset({b"authorization", b"x-authproxy-key", b"proxy-authorization", b"cookie"})


class _Exchange:
    """One request and its answer, as ASGI's `receive` and `send`."""

    def __init__(
        self,
        request: web.Request,
        body: bytes,
        decorate: Callable[[web.StreamResponse], None],
        patience: float,
    ) -> None:
        self.response: web.StreamResponse | None = None
        self._request = request
        self._body: bytes | None = body
        self._decorate = decorate
        self._patience = patience
        self._over = asyncio.Event()  # the answer is whole, or who asked has gone

    async def receive(self) -> Message:
        """The body, once; then nothing until there is nobody left to listen to. An empty `http.request` instead of
        the wait would be asked for again and again by whoever watches for a disconnect."""
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body, "more_body": False}
        await self._over.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        """A part of the answer. Where nobody is left to read it, it goes nowhere, as ASGI has it."""
        if message["type"] == "http.response.start":
            self.response = self._begun(message)
            return
        assert self.response is not None
        if self._over.is_set():
            return
        try:
            async with asyncio.timeout(self._patience):
                await self._write(self.response, message.get("body", b""), message.get("more_body", False))
        except (ConnectionError, TimeoutError):
            self.abort()

    async def watch(self) -> None:
        """Knows at once when who asked has gone."""
        await left(self._request)
        self._over.set()

    def abort(self) -> None:
        """Half an answer must not look like a whole one."""
        self._over.set()
        if self._request.transport is not None:
            self._request.transport.abort()

    def _begun(self, message: Message) -> web.StreamResponse:
        response = web.StreamResponse(status=message["status"])
        for name, value in message.get("headers", ()):
            if name.lower() not in _OURS:
                response.headers.add(name.decode("latin-1"), value.decode("latin-1"))
        self._decorate(response)
        finish(response, self._request[REQUEST_ID])
        return response

    async def _write(self, response: web.StreamResponse, body: bytes, more: bool) -> None:
        if not response.prepared:
            await response.prepare(self._request)
        if body:
            await response.write(body)
        if not more:
            await response.write_eof()
            self._over.set()


async def answer(
    application: Application,
    request: web.Request,
    body: bytes,
    *,
    state: MutableMapping[str, Any],
    decorate: Callable[[web.StreamResponse], None],
    patience: float = SEND_PATIENCE,
) -> web.StreamResponse:
    """What `application` answers to this request, whose `body` has been read.

    `state` goes into the scope beside ASGI's own keys; `decorate` sees the answer before its first byte. When who
    asked goes away, `application` is told with `http.disconnect` and may still tidy up.
    """
    exchange = _Exchange(request, body, decorate, patience)
    watching = asyncio.create_task(exchange.watch())
    try:
        await application({**_scope(request), **state}, exchange.receive, exchange.send)
    except BaseException:
        if exchange.response is not None and exchange.response.prepared:
            exchange.abort()
        raise
    finally:
        watching.cancel()
    if exchange.response is None:
        return web.Response(status=GONE)
    return exchange.response


def _scope(request: web.Request) -> dict[str, Any]:
    """ASGI's view of the request, without what it showed of its caller: that has been read."""
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": request.method,
        "scheme": "http",
        "path": request.path,
        "raw_path": request.path.encode(),
        "root_path": "",
        "query_string": request.query_string.encode(),
        "headers": [
            (name, value)
            for name, value in ((name.lower(), value) for name, value in request.raw_headers)
            if name not in _WITHHELD
        ],
        "client": None,
        "server": None,
    }
