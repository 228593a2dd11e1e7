"""The way into the walk for requests that we make ourselves: no socket, and otherwise every rule of the data plane."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import httptools

from authproxy.core.routes import Route
from authproxy.proxy.behalf import Behalf, OwnEntry
from authproxy.proxy.current import Current
from authproxy.proxy.place import Place
from authproxy.proxy.server import Incoming

_TOLD_BY_HEAD = 47  # zlib's word for gzip or zlib
_MEMBERS = 64  # of gzip, in one body
_HOST = (b"Host", b"authproxy")  # the walk writes the upstream's own


class Heard(NamedTuple):
    """What came of a request: the upstream's answer, or a refusal of the walk (then `entry.code` is set).

    `fields` have their names in lower case; of a repeated one the values are joined. `body` is decoded. `cut` says
    that the answer broke off, `long` that it was over the limit and was given up.
    """

    status: int
    fields: dict[str, str]
    body: bytes
    entry: OwnEntry
    cut: bool = False
    long: bool = False


class TooLong(ConnectionAbortedError):
    """The answer is over the limit: who asked hangs up, as an agent would."""


class Inner:
    """Sends requests on the walk that serves now. `current` is asked when the first is sent."""

    def __init__(self, current: Callable[[], Current]) -> None:
        self._current = current

    def route(self, name: str) -> Route | None:
        """The route of this name, as it is configured now."""
        return self._current().route(name)

    async def send(
        self,
        behalf: Behalf,
        route: Route,
        method: str,
        target: bytes,
        fields: Sequence[tuple[bytes, bytes]],
        body: bytes | None,
    ) -> Heard:
        """One request, to `target` (path and query) from the root of the route's upstream.

        `fields` hold no line break: there is no parser in between that would refuse them. `behalf` is for this one
        request; its limit is of the decoded answer too. Refusals are answers here; nothing is raised.
        """
        ear = _Ear(Place(route=route, behalf=behalf), behalf.limit)
        lines = [_HOST, *fields]
        if body is not None:
            lines.append((b"Content-Length", b"%d" % len(body)))
        said = _Said(method, target.decode("ascii"), tuple(lines))
        await self._current()(Incoming(said, _Whole(body or b""), ear, None))  # type: ignore[arg-type] # in a Client's place
        return ear.heard(behalf.entries[-1])


@dataclass(frozen=True, slots=True)
class _Said:
    """A request's head, as the listener's parser would give it."""

    method: str
    path: str
    raw_headers: tuple[tuple[bytes, bytes], ...]
    version: tuple[int, int] = (1, 1)
    chunked: bool = False


class _Whole:
    """A body that is all here."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def is_eof(self) -> bool:
        return True

    def exception(self) -> None:
        return None

    def read_nowait(self) -> bytes:
        data, self._data = self._data, b""
        return data

    async def readany(self) -> bytes:
        return self.read_nowait()

    def feed_eof(self) -> None:
        """It has ended already."""


@dataclass(slots=True)
class _Ear:
    """Stands where an agent's connection stands, and reads what the walk writes to it."""

    place: Place
    limit: int
    peer_is_local: bool = True
    open_ended: bool = False
    ending: str = "client_closed"
    cut: bool = False
    long: bool = False
    whole: bool = False
    size: int = 0
    fields: dict[str, str] = field(default_factory=dict)
    pieces: list[bytes] = field(default_factory=list)
    parser: Any = None
    said: Any = None

    def __post_init__(self) -> None:
        self.parser = httptools.HttpResponseParser(self)

    # what the walk asks of a connection

    @property
    def transport(self) -> _Ear:
        return self

    def write(self, data: bytes) -> None:
        """Raises TooLong where it gets too much."""
        self.parser.feed_data(data)
        if self.long:
            raise TooLong("the answer is over the limit")

    async def drain(self) -> None:
        """Nothing is ever waiting here."""

    def abort(self) -> None:
        self.cut = True

    # what the parser tells

    def on_header(self, name: bytes, value: bytes) -> None:
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        self.fields[key] = f"{self.fields[key]}, {text}" if key in self.fields else text

    def on_body(self, data: bytes) -> None:
        self.size += len(data)
        if self.size > self.limit:
            self.long = True
            self.pieces.clear()
        else:
            self.pieces.append(data)

    def on_message_complete(self) -> None:
        self.whole = True

    def heard(self, entry: OwnEntry) -> Heard:
        body = b"".join(self.pieces)
        coding = self.fields.get("content-encoding", "").strip().lower()
        cut, long = self.cut or not (self.whole or self.long), self.long
        if body and coding in ("gzip", "x-gzip"):
            try:
                body, long = _inflated(body, self.limit)
            except zlib.error:
                body, cut = b"", True
        elif body and coding not in ("", "identity"):
            body, cut = b"", True  # nobody asked for that
        return Heard(self.parser.get_status_code(), self.fields, body, entry, cut, long)


def _inflated(data: bytes, limit: int) -> tuple[bytes, bool]:
    """A gzip body's text (all of its members, RFC 1952 §2.2), and whether there is more of it than the limit."""
    found = b""
    for _ in range(_MEMBERS):
        inflate = zlib.decompressobj(_TOLD_BY_HEAD)
        found += inflate.decompress(data, limit + 1 - len(found))
        if len(found) > limit:
            return b"", True
        if not inflate.eof:
            raise zlib.error("the body broke off")
        data = inflate.unused_data
        if not data:
            return found, False
    raise zlib.error("more members than anybody would send")
