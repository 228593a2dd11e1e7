"""URLs of an upstream in its answers, rewritten so that they lead back through the proxy.

For base-URL mode only: an agent that was given `http://127.0.0.1:8700/github` for `https://api.github.com` must
not be sent around the proxy by a `Link` to the next page, nor past its prefix by a redirect.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from authproxy.core.origin import DEFAULT_PORTS

_reference = re.compile(rb"(?:(https?):)?//([^/?#]*)(.*)", re.DOTALL | re.IGNORECASE).fullmatch
_link = re.compile(rb"<([^<>]*)>").sub
MOVED_FIELDS = frozenset({b"link", b"location"})
# Of a body that is not the upstream's any more, byte for byte.
DIGESTS = frozenset({b"content-md5", b"digest", b"content-digest", b"repr-digest"})


class Base(NamedTuple):
    """Where an agent finds a route: `http://127.0.0.1:8700` as it wrote it, and the prefix."""

    origin: bytes
    prefix: bytes


class Move:
    """From one upstream's base URL to the agent's."""

    __slots__ = ("_authorities", "_base", "_base_path", "_scheme")

    def __init__(self, scheme: str, host: str, port: int, base_path: bytes, base: Base) -> None:
        name = (f"[{host}]" if ":" in host else host).encode("ascii")
        ported = b"%b:%d" % (name, port)
        self._scheme = scheme.encode("ascii")
        self._authorities = (ported, name) if port == DEFAULT_PORTS[scheme] else (ported,)
        self._base_path = base_path
        self._base = base

    def field(self, name: bytes, value: bytes) -> bytes:
        """The value of a `Link` or `Location` field."""
        if name == b"location":
            return self.reference(value)
        return _link(lambda found: b"<%b>" % self.reference(found[1]), value)

    def reference(self, value: bytes) -> bytes:
        """A URL or a path from the upstream's root, where it is below its base; all else is left as it is."""
        if value.startswith(b"/") and not value.startswith(b"//"):
            rest = self._below(value)
            if rest is None:
                return value
            path = self._base.prefix + rest
            return path if path.startswith(b"/") else b"/" + path
        whole = _reference(value)
        if whole is None or (whole[1] or self._scheme).lower() != self._scheme:
            return value
        if whole[2].lower() not in self._authorities:
            return value
        rest = self._below(whole[3])
        return value if rest is None else self._base.origin + self._base.prefix + rest

    def _below(self, path: bytes) -> bytes | None:
        """What follows the base path, on a segment's border."""
        rest = path[len(self._base_path) :]
        if not path.startswith(self._base_path) or (rest and rest[:1] not in (b"/", b"?", b"#")):
            return None
        return rest

    def spellings(self) -> tuple[tuple[bytes, bytes], ...]:
        """The upstream's base URL as a JSON string begins with it, each with what takes its place."""
        made = []
        for authority in self._authorities:
            old = self._scheme + b"://" + authority + self._base_path
            new = self._base.origin + self._base.prefix
            made += [(old, new), (old.replace(b"/", b"\\/"), new.replace(b"/", b"\\/"))]
        return tuple(made)


class Rewriter:
    """JSON as it streams by, its strings that begin with the upstream's base URL moved.

    Only what may be the beginning of such a string is held back. A URL in the middle of a text is somebody's
    words, and stays.
    """

    __slots__ = ("_before", "_held", "_new", "_olds", "_pattern", "_reach")

    def __init__(self, move: Move) -> None:
        self._new = dict(move.spellings())
        self._olds = tuple(b'"' + old for old in self._new)
        olds = b"|".join(re.escape(old) for old in self._new)
        # An escaped quote is within a string; what follows must end the base URL, or it is another one's beginning.
        self._pattern = re.compile(rb'(?<!\\)"(' + olds + rb')(?=/|\\/|[?#"{])')
        self._reach = max(map(len, self._olds)) + 1
        self._before = b""
        self._held = b""

    def feed(self, data: bytes, *, last: bool = False) -> bytes:
        """What may go on now."""
        before = len(self._before)
        data = self._before + self._held + data
        held = 0 if last else self._unsure(data)
        sure = len(data) - held
        # The pattern looks at what follows, so it is shown all of it; a match never reaches into what is held.
        out = self._pattern.sub(self._moved, data)
        self._held = data[sure:]
        out = out[before : len(out) - held] if held else out[before:]
        self._before = data[sure - 1 : sure] if sure else b""
        return out

    def _moved(self, found: re.Match[bytes]) -> bytes:
        return b'"' + self._new[found[1]]

    def _unsure(self, data: bytes) -> int:
        """The length of the longest end that may be the beginning of what is looked for."""
        at = data.find(b'"', max(0, len(data) - self._reach))
        while at >= 0:
            end = data[at:]
            if any(old.startswith(end) or end in (old, old + b"\\") for old in self._olds):
                return len(end)
            at = data.find(b'"', at + 1)
        return 0
