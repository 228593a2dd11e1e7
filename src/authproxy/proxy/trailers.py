"""Follows where requests and their bodies begin and end, for what aiohttp's parser neither refuses nor tells.

It takes trailers for fields of the next head, bounds no chunk extensions, and takes request lines that are none. A
trailer must never be read as a field (RFC 9110 §6.5.1): who sent some, or may have, gets no second request on that
connection.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator, Sequence
from typing import Any

from aiohttp.http_exceptions import TransferEncodingError

MOST = 4096
"""Bytes of chunk extensions in one body, and of trailers."""

_END = b"\r\n\r\n"
# What the parser takes beside it: more than one space, no version, and llhttp's other protocols (RFC 9112 §3).
_REQUEST_LINE = re.compile(rb"[\r\n]*[^ \r\n]+ [^ \r\n]+ HTTP/[^ \r\n]+\r").match
_SIZE = re.compile(rb"([0-9A-Fa-f]{1,16})((?:;[^\r\n]*)?)\r\n")


class Chunks:
    """The place in one chunked body (RFC 9112 §7.1). The parser judges its grammar; this one counts."""

    __slots__ = ("_extra", "_last", "_left", "_line", "bare", "content", "ended", "excess")

    def __init__(self, content: Any) -> None:
        self.content = content
        self.bare = True  # no trailers so far
        self.ended = False
        self.excess = False  # of a size's digits, of extensions or of trailers
        self._left = 0  # of a chunk's bytes and the line break behind them
        self._line = b""  # the beginning of a line that is not whole
        self._last = False  # whether the chunk of size 0 was there
        self._extra = 0

    def feed(self, data: bytes, at: int) -> int:
        """Take the bytes from `at` on; says up to where they belong to this body."""
        size = len(data)
        while at < size and not self.ended and not self.excess:
            if self._left:
                step = min(self._left, size - at)
                self._left -= step
                at += step
                continue
            end = data.find(b"\n", at) + 1
            if not end:
                self._line += data[at:]
                self.excess = self._extra + len(self._line) > MOST
                return size
            line, self._line = self._line + data[at:end], b""
            at = end
            self._read(line)
        return at

    def _read(self, line: bytes) -> None:
        if not self._last:
            match = _SIZE.fullmatch(line)
            if match is None:
                self.excess = True
                return
            self._left = int(match[1], 16)
            self._extra += len(match[2])
            if self._left:
                self._left += 2
            else:
                self.excess, self._last, self._extra = self._extra > MOST, True, 0
                return
        elif line == b"\r\n":
            self.ended = True
        else:
            self.bare = False
            self._extra += len(line)
        self.excess = self._extra > MOST


class Ends:
    """Where the requests of one connection end, as their bytes pass."""

    __slots__ = ("_bare", "_begun", "_chunks", "_left", "_line", "_lined", "_lost", "_misspelt", "_open")

    def __init__(self) -> None:
        self._misspelt: list[Any] = []
        self._bare: list[Any] = []
        self._open: Any = None  # the body that may be under way
        self._begun = b""  # the last bytes of a head that is not whole
        self._line = bytearray()  # its request line
        self._lined = False  # whether that is whole
        self._chunks: Chunks | None = None  # the body under way, where it comes in chunks
        self._left = 0  # what is to come of a body of known length
        self._lost = False  # whether it is not known where in a request the next byte is

    def bare(self, content: Any) -> bool:
        """Whether this chunked body has ended, and with no trailers for certain."""
        return any(one is content for one in self._bare)

    def misspelt(self, message: Any) -> bool:
        """Whether this message began with what is no request line, `METHOD target HTTP/version`."""
        return bool(self._misspelt) and any(one is message for one in self._misspelt)

    def forget(self, content: Any) -> None:
        """The body is nobody's business any more."""
        self._bare = [one for one in self._bare if one is not content]

    def passed(self, data: bytes, taken: Sequence[tuple[Any, Any]], *, full: bool) -> None:
        """The parser has had these bytes, and found the heads of `taken` in them: messages and their bodies. `full`
        says that it may have kept some of the bytes for later.

        A body with more framing than it may have is marked as one that is not framed as announced.
        """
        between = not (full or self._begun or self._left or self._chunks)
        if between and len(taken) == 1 and _whole(data, *taken[0]):
            if not (self._lost or _REQUEST_LINE(data)):
                self._misspelt.append(taken[0][0])
            self._lost = False
            return
        self._notice(taken)
        if full:
            self._lose()
            return
        messages = iter(taken)
        at, size = 0, len(data)
        while at < size and not self._lost:
            if self._left:
                step = min(self._left, size - at)
                self._left -= step
                at += step
            elif self._chunks is not None:
                at = self._body(self._chunks, data, at)
            else:
                at = self._head(data, at, messages)
        if next(messages, None) is not None:
            self._lose()

    def _notice(self, taken: Sequence[tuple[Any, Any]]) -> None:
        """A body in which the parser met a fault does not go on: it only tells of the fault, as of a request."""
        for message, body in taken:
            if getattr(message, "exc", None) is None:
                self._open = body
            elif self._open is not None and not self._open.is_eof():
                _spoil(self._open)

    def _lose(self) -> None:
        self._begun, self._chunks, self._left, self._lost = b"", None, 0, True

    def _body(self, chunks: Chunks, data: bytes, at: int) -> int:
        at = chunks.feed(data, at)
        if chunks.excess:
            _spoil(chunks.content)
            self._lose()
        elif chunks.ended:
            self._chunks = None
            if chunks.bare:
                self._bare.append(chunks.content)
        return at

    def _head(self, data: bytes, at: int, messages: Iterator[tuple[Any, Any]]) -> int:
        """Past the end of the head at `at`, or of all bytes where it goes on."""
        if not self._begun:
            while data[at : at + 1] in (
                b"\r",
                b"\n",
            ):  # before a request line they mean nothing (RFC 9112 §2.2)
                at += 1
            self._line, self._lined = bytearray(), False
        early = (self._begun + data[at : at + 3]).find(_END)
        end = data.find(_END, at) if early < 0 else at + early - len(self._begun)
        if not self._lined:
            stop = data.find(b"\r", at) + 1
            self._line += data[at : stop or len(data)]
            self._lined = stop > 0
        if end < 0 and early < 0:
            self._begun = (self._begun + data[at:])[-3:]
            return len(data)
        self._begun = b""
        message, body = next(messages, (None, None))
        if not _REQUEST_LINE(self._line):
            self._misspelt.append(message)
        if message is None or getattr(message, "upgrade", True) or message.method == "CONNECT":
            self._lose()  # the parser is not there yet, or what follows are no requests
        elif message.chunked:
            self._chunks = Chunks(body)
        else:
            self._left = _length(message)
        return end + len(_END)


def _spoil(content: Any) -> None:
    """Whoever reads this body learns that it is not framed as announced."""
    fault = TransferEncodingError("the body's framing is at fault")
    content.set_exception(fault)
    # aiohttp's reader, where the end of a chunk has just woken it, waits again without a look at what was set.
    asyncio.get_running_loop().call_soon(content.set_exception, fault)


def _whole(data: bytes, message: Any, body: Any) -> bool:
    """Whether these bytes end with this request, which is the only one that began or ended in them."""
    return data.endswith(_END) and body.is_eof() and not getattr(message, "chunked", True)


def _length(message: Any) -> int:
    for name, value in message.raw_headers:
        if name.lower() == b"content-length" and value.isdigit():
            return int(value)
    return 0
