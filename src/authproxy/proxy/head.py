"""Reads an answer's head and undoes chunks: strictly, in C where grammar is judged, and without a socket."""

from __future__ import annotations

import re
from typing import Literal

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from authproxy.core.config import Limits

Framing = Literal["none", "length", "chunked", "close"]

_OVERHEAD = 8192  # bytes of chunk extensions and trailers, all together
_PER_CHUNK = 24  # bytes of framing that any chunk may have for nothing

_START = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9]{2})(?: ([\t\x20-\x7e\x80-\xff]*))?\r\n")
_CONTROLS = bytes(byte for byte in range(256) if byte not in b"\t\r\n" and (byte < 0x20 or byte == 0x7F))
_KEEP_ALIVE_TIMEOUT = re.compile(rb"(?:^|[,;\s])timeout\s*=\s*([0-9]{1,5})\b", re.IGNORECASE)
_CHUNKED_HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
_LINE_BREAKS = b"\r\n"
_PREFIX = b"HTTP/1."


class Faulty(Exception):
    """The upstream's bytes are not an acceptable HTTP/1.x answer; the argument is the refusal's reason."""


class _Lines:
    """Collects the field lines of one head."""

    __slots__ = ("fields",)

    def __init__(self) -> None:
        self.fields: list[tuple[bytes, bytes]] = []

    def on_header(self, name: bytes, value: bytes) -> None:
        self.fields.append((name, value))


class _Names:
    """The same where no name comes twice: collected without a call into Python for each line."""

    __slots__ = ("on_header", "values")

    def __init__(self) -> None:
        self.values: dict[bytes, bytes] = {}
        self.on_header = self.values.__setitem__


class Head:
    """A final or interim head. `fields` are as they came, `named` has their values by name in lower case; `raw` is all
    of it. `keep_alive` says whether the connection may live on, `patience` for how long."""

    __slots__ = (
        "fields",
        "framing",
        "keep_alive",
        "length",
        "minor",
        "named",
        "patience",
        "raw",
        "reason",
        "status",
    )

    def __init__(
        self, minor: int, status: int, reason: bytes, fields: list[tuple[bytes, bytes]], raw: bytes
    ) -> None:
        self.minor = minor
        self.status = status
        self.reason = reason
        self.fields = fields
        self.raw = raw
        self.named: dict[bytes, list[bytes]] = {name.lower(): [value] for name, value in fields}
        if len(self.named) != len(fields):
            self.named.clear()
            for name, value in fields:
                self.named.setdefault(name.lower(), []).append(value)
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
    names = _Names()
    _parse(names, raw)
    fields = [*names.values.items()]
    if len(fields) != count:
        lines = _Lines()
        _parse(lines, raw)
        fields = lines.fields
        if len(fields) != count:
            raise Faulty("protocol")
    if b" \r\n" in raw or b"\t\r\n" in raw:
        fields = [(name, value.rstrip(b" \t")) for name, value in fields]
    if len(raw) > limits.max_line and max(map(len, raw.split(b"\r\n"))) > limits.max_line:
        raise Faulty("header_too_large")
    head = Head(int(start[1]), int(start[2]), start[3] or b"", fields, raw)
    _frame(head, method)
    return head


def _parse(lines: _Lines | _Names, raw: bytes) -> None:
    try:
        HttpResponseParser(lines).feed_data(raw)
    except HttpParserUpgrade:
        pass  # 101: what follows is not HTTP
    except HttpParserError:
        raise Faulty("protocol") from None


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
    named = head.named
    lengths = named.get(b"content-length", [])
    codings = named.get(b"transfer-encoding", [])
    if len(lengths) + len(codings) > 1:
        raise Faulty("protocol")
    if codings and (head.minor == 0 or codings[0].lower() != b"chunked"):
        raise Faulty("protocol")
    if lengths:
        if not lengths[0].isdigit() or len(lengths[0]) > 18:
            raise Faulty("protocol")
        head.length = int(lengths[0])
    for value in named.get(b"connection", ()):
        _read_connection(head, value)
    for value in named.get(b"keep-alive", ()):
        if (timeout := _KEEP_ALIVE_TIMEOUT.search(value)) is not None:
            head.patience = int(timeout[1])
    return codings


def _read_connection(head: Head, value: bytes) -> None:
    if value == b"keep-alive" and head.minor == 1:
        return
    options = [option.strip(b" \t") for option in value.lower().split(b",")]
    if b"close" in options:
        head.keep_alive = False
    elif head.minor == 0 and b"keep-alive" in options:
        head.keep_alive = True


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


class HeadReader:
    """Gathers a head that comes in several reads."""

    __slots__ = ("_limits", "_partial")

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._partial: bytearray | None = None

    def feed(self, data: bytes, method: bytes) -> tuple[Head, bytes] | None:
        """The head and what follows it, once it is whole."""
        start = 0
        partial = self._partial
        if partial is not None:
            start = max(len(partial) - 3, 0)
            partial += data
            end = partial.find(b"\r\n\r\n", start)
            if end >= 0:
                data = bytes(partial)
        else:
            end = data.find(b"\r\n\r\n")
        if end >= 0:
            self._partial = None
            return read_head(data[: end + 4], method, self._limits), data[end + 4 :]
        if partial is None:
            partial = self._partial = bytearray(data)
        if len(partial) > self._limits.max_header:
            raise Faulty("header_too_large")
        if not _PREFIX.startswith(partial[:7]) or partial.find(b"\n\n", start) >= 0:
            raise Faulty("protocol")  # it will never become a head: no need to wait for more
        return None
