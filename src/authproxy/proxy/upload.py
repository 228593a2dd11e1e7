"""Sends one request's body while its answer may already be coming."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable
from typing import Protocol

from authproxy.core.errors import BadRequest
from authproxy.proxy.exchange import Exchange

AT_ONCE = 64 * 1024  # a body up to this goes out in one write with its head
_SLICE = 256 * 1024
_SILENCE = 1.0  # seconds to wait for a 100 before the body is sent without (RFC 9110 §10.1.1)


class Sink(Protocol):
    """The connection, as an upload needs it."""

    async def put(self, *pieces: bytes) -> None: ...
    def upload_waits(self) -> None: ...
    def upload_whole(self) -> None: ...
    def fail(self, error: BaseException) -> None: ...


class Upload:
    """The body of one exchange on its way.

    What the body's iterator raises ends the exchange with that very error, and the connection is cut: a body
    that broke off must never look whole upstream (RFC 9112 §8).
    """

    __slots__ = ("_exchange", "_go_on", "_sink", "_task", "stopping", "whole")

    def __init__(self, exchange: Exchange, body: bytes | AsyncIterable[bytes], sink: Sink) -> None:
        self._exchange = exchange
        self._sink = sink
        self._go_on: asyncio.Future[None] | None = None
        self.whole = False
        self.stopping = False
        if exchange.expect_continue:
            self._go_on = asyncio.get_running_loop().create_future()
        self._task = asyncio.get_running_loop().create_task(self._run(exchange, body))
        self._task.add_done_callback(self._ended)

    @property
    def held(self) -> bool:
        """Whether the body waits for a 100."""
        return self._go_on is not None

    def go_on(self) -> None:
        """The upstream said 100: it wants the body."""
        if self._go_on is not None and not self._go_on.done():
            self._go_on.set_result(None)

    def stop(self) -> None:
        """Send no more."""
        self.stopping = True
        self._task.cancel()

    async def stopped(self) -> None:
        """Wait until nothing reads the agent's body any more."""
        if not self._task.done():
            await asyncio.wait((self._task,))

    async def _run(self, exchange: Exchange, body: bytes | AsyncIterable[bytes]) -> None:
        if self._go_on is not None:
            await asyncio.wait((self._go_on,), timeout=_SILENCE)
            self._go_on = None
        pieces = _slices(body) if isinstance(body, bytes) else aiter(body)
        try:
            await self._send(exchange, pieces)
        finally:
            if isinstance(pieces, AsyncGenerator):
                await pieces.aclose()
        self.whole = True
        self._sink.upload_whole()

    async def _send(self, exchange: Exchange, pieces: AsyncIterable[bytes]) -> None:
        sink, length = self._sink, exchange.length
        sink.upload_waits()
        async for piece in pieces:
            if not piece:
                continue
            exchange.bytes_out += len(piece)
            if exchange.chunked:
                await sink.put(b"%x\r\n" % len(piece), piece, b"\r\n")
            elif length is not None and exchange.bytes_out > length:
                raise BadRequest("the request body is longer than announced", reason="framing")
            else:
                await sink.put(piece)
                if exchange.bytes_out == length:
                    # The upstream may answer now: it is whole before the iterator has said that it ends.
                    return
            sink.upload_waits()
        if exchange.chunked:
            await sink.put(b"0\r\n\r\n")
        elif length is not None and exchange.bytes_out != length:
            raise BadRequest("the request body ended before its announced length", reason="framing")

    def _ended(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self._sink.fail(error)


async def _slices(body: bytes) -> AsyncGenerator[bytes, None]:
    """A large body in pieces, so that no more than a piece waits in the transport."""
    view = memoryview(body)
    for at in range(0, len(view), _SLICE):
        yield bytes(view[at : at + _SLICE])
