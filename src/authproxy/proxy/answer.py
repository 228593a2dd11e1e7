"""The upstream's answer: its head read strictly, its body handed on as it arrives."""

from __future__ import annotations

import asyncio
import re
from typing import Literal, Protocol

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from authproxy.core.config import Limits
from authproxy.core.errors import UpstreamTimeout, UpstreamUnreachable
from authproxy.proxy.exchange import Exchange

Framing = Literal["none", "length", "chunked", "close"]

HIGH_WATER = 256 * 1024  # bytes of a body that wait for their reader before the upstream is paused
_OVERHEAD = 8192  # bytes of chunk extensions and trailers, all together
_PER_CHUNK = 24  # bytes of framing that any chunk may have for nothing

_START = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9]{2})(?: ([\t\x20-\x7e\x80-\xff]*))?\r\n")
_CONTROLS = bytes(byte for byte in range(256) if byte not in b"\t\r\n" and (byte < 0x20 or byte == 0x7F))
_KEEP_ALIVE_TIMEOUT = re.compile(rb"(?:^|[,;\s])timeout\s*=\s*([0-9]{1,5})\b", re.IGNORECASE)
_CHUNKED_HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
_LINE_BREAKS = b"\r\n"


class Faulty(Exception):
    """The upstream's bytes are not an acceptable HTTP/1.x answer; the argument is the refusal's reason."""


class _Lines:
    """Collects the field lines of one head."""

    __slots__ = ("fields",)

    def __init__(self) -> None:
        self.fields: list[tuple[bytes, bytes]] = []

    def on_header(self, name: bytes, value: bytes) -> None:
        self.fields.append((name, value))


class Head:
    """A final or interim head. `keep_alive` says whether the connection may live on, `patience` for how long."""

    __slots__ = ("fields", "framing", "keep_alive", "length", "minor", "patience", "reason", "status")

    def __init__(self, minor: int, status: int, reason: bytes, fields: list[tuple[bytes, bytes]]) -> None:
        self.minor = minor
        self.status = status
        self.reason = reason
        self.fields = fields
        self.framing: Framing = "none"
        self.length: int | None = None
        self.keep_alive = minor == 1
        self.patience: int | None = None


def read_head(raw: bytes, method: bytes, limits: Limits) -> Head:
    """Read `raw`, one whole head up to and with its empty line, as the answer to `method`.

    The C parser judges the grammar; what it lets pass is judged here (control bytes in the reason, other
    versions, transfer codings beside chunked), and the framing is decided here, once.
    """
    start = _START.match(raw)
    if start is None or raw.translate(None, _CONTROLS) != raw:
        raise Faulty("protocol")
    count = raw.count(b"\r\n") - 2
    if count > limits.max_fields or len(raw) > limits.max_header:
        raise Faulty("header_too_large")
    lines = _Lines()
    try:
        HttpResponseParser(lines).feed_data(raw)
    except HttpParserUpgrade:
        pass  # 101: what follows is not HTTP
    except HttpParserError:
        raise Faulty("protocol") from None
    fields = lines.fields
    if len(fields) != count:
        raise Faulty("protocol")
    if b" \r\n" in raw or b"\t\r\n" in raw:
        fields = [(name, value.rstrip(b" \t")) for name, value in fields]
    if len(raw) > limits.max_line and max(map(len, raw.split(b"\r\n"))) > limits.max_line:
        raise Faulty("header_too_large")
    head = Head(int(start[1]), int(start[2]), start[3] or b"", fields)
    _frame(head, method)
    return head


def _frame(head: Head, method: bytes) -> None:
    """Decide where the body ends (RFC 9112 §6.3) and whether the connection may be used again (§9.3)."""
    codings = _read_framing_fields(head)
    if head.status < 200:
        if codings or head.length:
            raise Faulty("protocol")
    elif head.status == 204:
        # RFC 9110 §8.6: neither may be here; if one is, a body may follow that must not be read as an answer.
        head.keep_alive = head.keep_alive and not codings and not head.length
        head.length = None
    elif method != b"HEAD" and head.status != 304:
        head.framing = "chunked" if codings else "close" if head.length is None else "length"
        head.keep_alive = head.keep_alive and head.framing != "close"


def _read_framing_fields(head: Head) -> list[bytes]:
    """Set `length`, `keep_alive` and `patience`; the transfer codings, which can only be `chunked`."""
    lengths: list[bytes] = []
    codings: list[bytes] = []
    for name, value in head.fields:
        size = len(name)
        if size == 14 and name.lower() == b"content-length":
            lengths.append(value)
        elif size == 17 and name.lower() == b"transfer-encoding":
            codings.append(value)
        elif size == 10:
            _read_connection(head, name.lower(), value)
    if len(lengths) + len(codings) > 1:
        raise Faulty("protocol")
    if codings and (head.minor == 0 or codings[0].lower() != b"chunked"):
        raise Faulty("protocol")
    if lengths:
        if not lengths[0].isdigit() or len(lengths[0]) > 18:
            raise Faulty("protocol")
        head.length = int(lengths[0])
    return codings


def _read_connection(head: Head, name: bytes, value: bytes) -> None:
    if name == b"connection":
        options = [option.strip(b" \t") for option in value.lower().split(b",")]
        if b"close" in options:
            head.keep_alive = False
        elif head.minor == 0 and b"keep-alive" in options:
            head.keep_alive = True
    elif name == b"keep-alive" and (timeout := _KEEP_ALIVE_TIMEOUT.search(value)) is not None:
        head.patience = int(timeout[1])


class Chunks:
    """Undoes the chunked coding (RFC 9112 §7.1) in C; extensions are skipped and trailers dropped, both bounded.

    The parser is primed with a head of our own, so that nothing in the real one can change how it reads.
    """

    __slots__ = ("_mine", "_overhead", "_parser", "_pieces", "_tail", "ended", "on_body", "surplus")

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self.on_body = self._pieces.append
        self.ended = False
        self.surplus = False
        self._mine = 0
        self._overhead = 0
        self._tail = b""
        self._parser = HttpResponseParser(self)
        self._parser.feed_data(_CHUNKED_HEAD)

    def on_message_begin(self) -> None:
        self.surplus = self.ended

    def on_message_complete(self) -> None:
        if not self.ended:
            self.ended = True
            self._mine = len(self._pieces)

    def feed(self, data: bytes) -> bytes:
        """The body's bytes in `data`. Afterwards `ended` and `surplus` say whether it is whole, and overfull."""
        try:
            self._parser.feed_data(data)
        except HttpParserError:
            if not self.ended:
                raise Faulty("protocol") from None
            self.surplus = True
        pieces = self._pieces
        if self.ended:
            del pieces[self._mine :]  # the parser would go on into a second message
        body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        overhead = self._overhead + len(data) - len(body) - _PER_CHUNK * len(pieces)
        self._overhead = max(overhead, 0)
        pieces.clear()
        if overhead > _OVERHEAD:
            raise Faulty("protocol")
        self._tail = data[-5:] if len(data) >= 5 else (self._tail + data)[-5:]
        if self.ended and (self._tail[1:] != b"\r\n\r\n" or self._tail[0] in _LINE_BREAKS):
            # The parser skips empty lines before an answer; after the last chunk they are bytes too many.
            self.surplus = True
        return body


class Source(Protocol):
    """The connection behind an answer, as the answer needs it."""

    def pause(self) -> None: ...
    def resume(self) -> None: ...
    def discard(self) -> None: ...
    def write(self, data: bytes) -> None: ...
    async def drained(self) -> None: ...


class Answer:
    """A final answer, its body still arriving.

    Fields are as received: order, case and repetition kept. `ended` is true once the body is whole and all of
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
        "length",
        "reason",
        "status",
        "version",
    )

    def __init__(self, head: Head, exchange: Exchange, source: Source) -> None:
        self.status = head.status
        self.reason = head.reason
        self.fields = head.fields
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

    @property
    def ended(self) -> bool:
        return self._whole and not self._pieces

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

    async def write(self, data: bytes) -> None:
        """After a 101 that was asked for: send bytes into the tunnel, as fast as the upstream takes them."""
        if self._source is None or self.status != 101:
            raise ConnectionResetError("the tunnel is closed")
        self._source.write(data)
        await self._source.drained()

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
