"""The upstream's answer, its body handed on as it arrives."""

from __future__ import annotations

import asyncio
from typing import Protocol

from authproxy.core.errors import UpstreamTimeout, UpstreamUnreachable
from authproxy.proxy.exchange import Exchange
from authproxy.proxy.head import Head

HIGH_WATER = 256 * 1024  # bytes of a body that wait for their reader before the upstream is paused


class Source(Protocol):
    """The connection behind an answer, as the answer needs it."""

    def pause(self) -> None: ...
    def resume(self) -> None: ...
    def discard(self) -> None: ...
    def write(self, data: bytes) -> None: ...
    def finish(self) -> None: ...
    async def drained(self) -> None: ...


class Answer:
    """A final answer, its body still arriving.

    Fields are as received: order, case and repetition kept; `named` has their values by name in lower case, and
    `head` is all of the head in its own bytes. `ended` is true once the body is whole and all of
    it was taken. Whoever has an Answer must read it to its end or close it.
    """

    __slots__ = (
        "_error",
        "_held",
        "_pieces",
        "_source",
        "_waiter",
        "_whole",
        "bytes_in",
        "exchange",
        "fields",
        "framing",
        "head",
        "length",
        "named",
        "reason",
        "status",
        "version",
    )

    def __init__(self, head: Head, exchange: Exchange, source: Source) -> None:
        self.status = head.status
        self.reason = head.reason
        self.fields = head.fields
        self.named = head.named
        self.head = head.raw
        self.version = (1, head.minor)
        self.framing = head.framing
        self.length = head.length
        self.exchange = exchange
        self.bytes_in = 0
        self._source: Source | None = source
        self._pieces: list[bytes] = []
        self._held = 0
        self._whole = False
        self._error: BaseException | None = None
        self._waiter: asyncio.Future[None] | None = None

    @property
    def bytes_out(self) -> int:
        """Bytes of the request's body that were sent."""
        return self.exchange.bytes_out

    @property
    def sent_any(self) -> bool:
        return self.exchange.sent_any

    def value(self, name: bytes) -> bytes:
        """The first value of the field `name` (lower-case); empty where there is none."""
        values = self.named.get(name)
        return values[0] if values else b""

    @property
    def ended(self) -> bool:
        return self._whole and not self._pieces

    @property
    def whole(self) -> bool:
        """Whether all of the body is here, taken or not."""
        return self._whole

    def take(self) -> bytes:
        """What has arrived and was not taken yet."""
        pieces = self._pieces
        if not pieces:
            return b""
        data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        self._held = 0
        if self._source is not None:
            self._source.resume()
        return data

    async def read(self) -> bytes:
        """The next bytes; b"" only at the complete end.

        Raises UpstreamUnreachable where the body breaks off, UpstreamTimeout where it stops.
        """
        if not self._pieces and not self._whole and self._error is None:
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        if self._pieces:
            return self.take()
        if self._error is not None:
            raise self._error
        return b""

    async def discard(self, limit: int) -> None:
        """Read the rest and drop it, so that the connection can serve again; close if it is over `limit` bytes."""
        size = len(self.take())
        if self.framing == "close" or (self.length or 0) - self.bytes_in > limit:
            self.close()
        while not self._whole and self._error is None:
            if size > limit:
                self.close()
                return
            try:
                size += len(await self.read())
            except (UpstreamUnreachable, UpstreamTimeout):
                return  # it is not wanted any more, and its connection is gone
        self._pieces.clear()

    def close(self) -> None:
        """Let go. If the body was not whole the upstream sees its connection close at once."""
        self._pieces.clear()
        if self._source is not None:
            source, self._source = self._source, None
            source.discard()
        if not self._whole and self._error is None:
            self._error = ConnectionAbortedError("the answer was closed")
        self._wake()

    def end(self, error: BaseException) -> None:
        """Let go as `close` does; whoever reads it ends in this error."""
        if self._error is None and not self._whole:
            self._error = error
        self.close()

    async def write(self, data: bytes) -> None:
        """After a 101 that was asked for: send bytes into the tunnel, as fast as the upstream takes them."""
        if self._source is None or self.status != 101:
            raise ConnectionResetError("the tunnel is closed")
        self._source.write(data)
        await self._source.drained()

    def finish(self) -> None:
        """Close the tunnel's direction to the upstream."""
        if self._source is not None:
            self._source.finish()

    # The connection's side.

    def arrived(self, data: bytes) -> None:
        """More of the body is here."""
        self._pieces.append(data)
        self.bytes_in += len(data)
        self._held += len(data)
        if self._held > HIGH_WATER and self._source is not None:
            self._source.pause()
        if self._waiter is not None:
            self._wake()

    def complete(self) -> None:
        """The body is whole; the connection has no part in it any more."""
        self._whole = True
        self._source = None
        if self._waiter is not None:
            self._wake()

    def broke(self, error: BaseException) -> None:
        """The body ends here and is not whole."""
        self._source = None
        if self._error is None:
            self._error = error
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
