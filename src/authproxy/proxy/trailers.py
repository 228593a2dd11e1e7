"""Tells whether a chunked request ended without trailers, for aiohttp's parser would take the last for the next head's.

A trailer must never be read as a field (RFC 9110 §6.5.1): who sent some, or may have, gets no second request on that
connection.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

_BARE_END = b"\r\n0\r\n\r\n"
_SIZE = re.compile(rb"([0-9A-Fa-f]{1,16})(?:;[^\r\n]*)?\r\n")


class Ends:
    """How the chunked bodies of one connection ended."""

    __slots__ = ("_at_start", "_bare", "_open", "_tail")

    def __init__(self) -> None:
        self._at_start = True  # whether the next byte is a head's first
        self._bare: list[Any] = []
        self._open: Any = None
        self._tail = b""

    def bare(self, content: Any) -> bool:
        """Whether this chunked body has ended, and with no trailers for certain."""
        return any(one is content for one in self._bare)

    def forget(self, content: Any) -> None:
        """The body is nobody's business any more."""
        self._bare = [one for one in self._bare if one is not content]

    def passed(self, data: bytes, taken: Sequence[tuple[Any, Any]], *, full: bool) -> None:
        """The parser has had these bytes, and found the heads of `taken` in them: messages and their bodies. `full`
        says that it may have kept some of the bytes for later."""
        self._tail = data[-7:] if len(data) >= 7 else (self._tail + data)[-7:]
        if full:
            self._open, self._at_start = None, False
        elif taken:
            self._heads(data, taken)
        elif self._open is None:
            self._at_start = self._at_start and not data
        elif self._open.is_eof():
            self._ended(self._open)

    def _heads(self, data: bytes, taken: Sequence[tuple[Any, Any]]) -> None:
        self._open = None  # where one was, what follows it came with its end: that is not looked into
        last, body = taken[-1]
        if len(taken) > 1:
            self._walk(data, taken)
        self._at_start = body.is_eof() and self._tail.endswith(b"\r\n\r\n")
        if getattr(last, "chunked", False):
            if not body.is_eof():
                self._open = body
            elif not self.bare(body):
                self._ended(body)

    def _ended(self, body: Any) -> None:
        """With these bytes, behind which there is no other head: at most the first part of one, which has no end."""
        self._open = None
        self._at_start = self._tail.endswith(b"\r\n\r\n")
        if self._tail == _BARE_END:
            self._bare.append(body)

    def _walk(self, data: bytes, taken: Sequence[tuple[Any, Any]]) -> None:
        """Follow requests that came in one piece, one behind the other."""
        at = 0 if self._at_start else -1
        for message, body in taken:
            if at < 0:
                return
            if data[at : at + 2] == b"\r\n":
                at += 2
            at = data.find(b"\r\n\r\n", at) + 4
            if at < 4:
                return
            if getattr(message, "chunked", False):
                at = _end(data, at)
                if at >= 0:
                    self._bare.append(body)
            else:
                at += _length(message)


def _end(data: bytes, at: int) -> int:
    """Where the chunked body at `at` ends; -1 where it has trailers or ends elsewhere."""
    while (size := _SIZE.match(data, at)) is not None:
        if int(size[1], 16) == 0:
            return size.end() + 2 if data[size.end() : size.end() + 2] == b"\r\n" else -1
        at = size.end() + int(size[1], 16) + 2
    return -1


def _length(message: Any) -> int:
    for name, value in getattr(message, "raw_headers", ()):
        if name.lower() == b"content-length" and value.isdigit():
            return int(value)
    return 0
