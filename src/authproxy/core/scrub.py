"""Keeps an injected token from coming back: finds it in an upstream's answer, whole or cut at any place.

An echo endpoint, a debug page or an error text may return the Authorization field to the agent. Known values
are looked for in the forms in which they are commonly rendered. This is a second line, not a guarantee: an
upstream that encrypts or re-encodes what it reflects is not seen through.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Sequence
from urllib.parse import quote_from_bytes

from authproxy.core.errors import PolicyDenied

MIN_TOKEN = 8  # a shorter value would be found everywhere

_TOLD_BY_HEAD = 47  # zlib's word for gzip or zlib
_HEAD = 64  # bytes by which any head is over
_MEMBERS = 1024  # of gzip, in one body that is looked at

_TEXT = (
    "text/",
    "multipart/",
    "application/json",
    "application/xml",
    "application/javascript",
    "application/x-javascript",
    "application/x-www-form-urlencoded",
    "application/x-ndjson",
    "application/x-jsonlines",
    "application/ndjson",
    "application/graphql",
    "application/yaml",
    "application/x-yaml",
)
_TEXT_SUFFIXES = ("+json", "+xml", "+yaml", "+json-seq")


def needles_of(token: bytes) -> tuple[bytes, ...]:
    """The renderings that are looked for: raw, percent-encoded, hexadecimal, and Base64 at each alignment."""
    if len(token) < MIN_TOKEN:
        return ()
    found = {
        token,
        quote_from_bytes(token, safe="").encode(),
        token.hex().encode(),
        token.hex().upper().encode(),
    }
    for lead in range(3):
        # Base64 of any text that holds the token at offset `lead` (mod 3): the characters that only depend on it.
        size = (len(token) - (3 - lead) % 3) // 3 * 3
        part = token[(3 - lead) % 3 :][:size]
        if len(part) >= MIN_TOKEN:
            found |= {base64.b64encode(part), base64.urlsafe_b64encode(part)}
    return tuple(sorted(found, key=len))


def is_text(content_type: str) -> bool:
    """Whether bodies of this media type are looked at: also those of none, for readers guess, and guess text."""
    kind = content_type.partition(";")[0].strip().lower()
    return not kind or kind.startswith(_TEXT) or kind.endswith(_TEXT_SUFFIXES)


class Scrubber:
    """Masks the needles in a stream of bytes, keeping its length. Holds back only what may be a needle's start.

    With `block` a needle raises PolicyDenied instead, before the bytes that complete it are released.
    """

    __slots__ = ("_block", "_held", "_left", "_needles", "_reach")

    def __init__(self, needles: Sequence[bytes], limit: int, *, block: bool = False) -> None:
        self._needles = needles
        self._block = block
        self._reach = max(map(len, needles), default=1) - 1
        self._left = limit
        self._held = b""

    def feed(self, data: bytes, *, last: bool = False) -> bytes:
        """What may go on now. Past the limit everything passes."""
        if self._left <= 0 and not self._held:
            return data
        data = self._held + data
        self._left -= len(data) - len(self._held)
        data = self._masked(data)
        held = 0 if last or self._left <= 0 else _start_of(self._needles, data[-self._reach :])
        self._held = data[len(data) - held :]
        return data[: len(data) - held]

    def _masked(self, data: bytes) -> bytes:
        for needle in self._needles:
            if needle in data:
                if self._block:
                    raise reflected()
                data = data.replace(needle, b"*" * len(needle))
        return data


class Watcher:
    """The same for a body in gzip or deflate: its bytes are passed on untouched, or not at all.

    `feed` gives what may go on; a needle raises PolicyDenied before the bytes that complete it are released.
    """

    __slots__ = ("_begun", "_held", "_inflate", "_left", "_members", "_needles", "_reach", "_tail")

    def __init__(self, needles: Sequence[bytes], limit: int) -> None:
        self._needles = needles
        self._reach = max(map(len, needles), default=1) - 1
        self._left = limit
        self._held = b""
        self._tail = b""
        self._inflate = zlib.decompressobj(_TOLD_BY_HEAD)
        self._members = 0
        self._begun: bytes | None = b""  # what has come, while nothing of it could be decoded

    def feed(self, data: bytes, *, last: bool = False) -> bytes:
        """What may go on now. Past the limit, and past the end of what can be decoded, everything passes."""
        if self._left <= 0:
            return data
        try:
            plain = self._plain(data)
        except zlib.error:
            self._left = 0
            return self._release(data)
        self._left -= len(plain)
        text = self._tail + plain
        if any(needle in text for needle in self._needles):
            raise reflected()
        self._tail = text[-self._reach :]
        if not last and self._left > 0 and _start_of(self._needles, self._tail):
            self._held += data
            return b""
        return self._release(data)

    def _plain(self, data: bytes) -> bytes:
        """What `data` decodes to: of every gzip member, as clients read them all (RFC 1952 §2.2), and of a `deflate`
        that is not wrapped in zlib, as many servers send it and clients take it."""
        try:
            plain = self._inflate.decompress(data, self._left)
        except zlib.error:
            if self._begun is None:
                raise
            self._inflate = zlib.decompressobj(-zlib.MAX_WBITS)
            plain = self._inflate.decompress(self._begun + data, self._left)
            self._begun = None
        if self._begun is not None:
            self._begun = None if plain or len(self._begun) > _HEAD else self._begun + data
        while self._inflate.eof and (rest := self._inflate.unused_data) and len(plain) < self._left:
            self._members += 1
            if self._members > _MEMBERS:
                raise zlib.error("more members than anybody would send")
            self._inflate = zlib.decompressobj(_TOLD_BY_HEAD)
            self._begun = None
            plain += self._inflate.decompress(rest, self._left - len(plain))
        return plain

    def _release(self, data: bytes) -> bytes:
        data, self._held = self._held + data, b""
        return data


def _start_of(needles: Sequence[bytes], tail: bytes) -> int:
    """The length of the longest end of `tail` that a needle begins with."""
    longest = 0
    for needle in needles:
        at = tail.find(needle[0], max(0, len(tail) - len(needle) + 1))
        while at >= 0:
            if needle.startswith(tail[at:]):
                longest = max(longest, len(tail) - at)
                break
            at = tail.find(needle[0], at + 1)
    return longest


def scrubbed_value(value: bytes, needles: Sequence[bytes]) -> bytes:
    """A field value with the needles masked."""
    for needle in needles:
        if needle in value:
            value = value.replace(needle, b"*" * len(needle))
    return value


def reflected() -> PolicyDenied:
    """The refusal where an answer that holds the credential may not be passed on."""
    return PolicyDenied(
        "the upstream's answer held the injected credential", reason="credential_reflected", status=502
    )
