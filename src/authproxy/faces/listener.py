"""The control plane's listener: what the parser refuses is answered in the one shape, and quoted nowhere."""

from __future__ import annotations

import asyncio
import secrets
from typing import Any

import structlog
from aiohttp import web
from aiohttp.http_exceptions import LineTooLong
from aiohttp.web_protocol import RequestHandler

from authproxy.core.errors import BadRequest, HeaderTooLarge, Internal, Refusal

log = structlog.get_logger()


MAX_CONNECTIONS = 1024
"""More are closed as they come: the data plane needs file descriptors too."""


class _Connection(RequestHandler):
    """aiohttp would log and answer with the very bytes that it could not read: a callback's code among them (F02).
    And it would wait an hour for a head that was begun; whoever can reach public_url could take all connections."""

    __slots__ = ("_head_time", "_late", "_left", "_most")

    def __init__(
        self,
        manager: web.Server,
        *,
        loop: asyncio.AbstractEventLoop,
        head_time: float,
        most: int,
        **more: Any,
    ) -> None:
        super().__init__(manager, loop=loop, **more)
        self._head_time = head_time
        self._most = most
        self._late: asyncio.TimerHandle | None = None
        self._left: asyncio.Future[None] = loop.create_future()

    async def left(self) -> None:
        """Returns when this connection is no more."""
        await asyncio.shield(self._left)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        if self._manager is not None and len(self._manager.connections) > self._most:
            log.warning("control_connections_full", most=self._most)
            self.force_close()

    def data_received(self, data: bytes) -> None:
        before = self._request_count
        super().data_received(data)
        if self._request_count != before:
            self._in_time()
        elif self._late is None and not self._request_in_progress:
            self._late = self._loop.call_later(self._head_time, self._give_up)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._in_time()
        if not self._left.done():
            self._left.set_result(None)
        super().connection_lost(exc)

    def _give_up(self) -> None:
        self._late = None
        if not self._request_in_progress:
            self.force_close()

    def _in_time(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        refusal: Refusal
        if isinstance(exc, LineTooLong):
            refusal = HeaderTooLarge("The request line or a header line is too long")
        elif status < 500:
            refusal = BadRequest("The request is not well-formed HTTP/1.1", reason="syntax")
        else:
            refusal = Internal("authproxy failed; its log says how")
        request_id = secrets.token_hex(16)
        log.warning(
            "control_refused",
            request_id=request_id,
            code=refusal.code,
            fault=type(exc).__name__ if exc else None,
        )
        if request.writer.output_size > 0:
            raise ConnectionError("an answer is half sent")
        response = web.json_response(
            refusal.problem(request_id),
            status=refusal.status,
            content_type="application/problem+json",
            headers={
                "X-Authproxy-Error": refusal.code,
                "X-Request-ID": request_id,
                "Cache-Control": "no-store",
                "Server": "authproxy",
            },
        )
        response.force_close()
        return response


async def left(request: web.BaseRequest) -> None:
    """Returns when who sent this request has gone: aiohttp does not tell handlers."""
    protocol = request.protocol
    assert isinstance(protocol, _Connection)
    await protocol.left()


class _Server(web.Server):
    def __call__(self) -> RequestHandler:
        return _Connection(self, loop=asyncio.get_running_loop(), **self._kwargs)


class Runner(web.AppRunner):
    """web.AppRunner with our own connections. `head_time` is what a request's head may take from its first byte."""

    __slots__ = ("_bounds",)

    def __init__(
        self, app: web.Application, *, head_time: float = 10.0, most: int = MAX_CONNECTIONS, **more: Any
    ) -> None:
        super().__init__(app, **more)
        self._bounds = {"head_time": head_time, "most": most}

    async def _make_server(self) -> Any:
        made = await super()._make_server()
        bounds = {**self._kwargs, **self._bounds}
        return _Server(made.request_handler, request_factory=made.request_factory, **bounds)
