"""What the walk hands to the way out: where to, which bytes, and how patiently."""

from __future__ import annotations

from collections.abc import AsyncIterable, Hashable
from dataclasses import dataclass, field
from math import inf
from typing import NamedTuple, Protocol

from authproxy.core.errors import UpstreamTimeout, UpstreamUnreachable


class Origin(NamedTuple):
    """Scheme, host and port: one value for the pool, for DNS, for SNI and for the certificate."""

    scheme: str
    host: str
    port: int


class Patience(Protocol):
    """Seconds; None: the configuration's; 0 for `idle` and `total`: no limit."""

    @property
    def connect(self) -> float | None: ...
    @property
    def first_byte(self) -> float | None: ...
    @property
    def idle(self) -> float | None: ...
    @property
    def total(self) -> float | None: ...


class Timing:
    """The seconds of one exchange, the configuration's filled in; `inf` where there is no limit."""

    __slots__ = ("connect", "first_byte", "idle", "total")

    def __init__(self, connect: float, first_byte: float, idle: float, total: float) -> None:
        self.connect = connect
        self.first_byte = first_byte
        self.idle = idle or inf
        self.total = total or inf


@dataclass(slots=True)
class Exchange:
    """One request as it goes out, and what became of it.

    `head` is complete, framing lines and the empty line included. With `chunked` the way out adds the chunk
    framing; otherwise the body's bytes go out as they are and must number `length`. A body that is an
    iterable is sent again only where `replayable` says that each iteration gives the same bytes.
    `partition` keeps users apart: a connection never serves two partitions. With `expect_continue` the body is
    first asked for when the upstream wants it, so asking for its first piece is the sign to say 100 to the agent.
    """

    origin: Origin
    head: bytes = field(repr=False)
    method: bytes = b"GET"
    body: bytes | AsyncIterable[bytes] | None = field(default=None, repr=False)
    chunked: bool = False
    length: int | None = None
    idempotent: bool = False
    replayable: bool = False
    partition: Hashable = None
    timeouts: Patience | None = None
    expect_continue: bool = False
    upgrade: bool = False

    # What became of it, also where it ended in a refusal.
    attempts: int = 0
    bytes_out: int = 0
    sent_any: bool = False

    @property
    def repeatable(self) -> bool:
        """Whether a second sending would be the same request with the same effect (RFC 9110 §9.2.2)."""
        return self.idempotent and (self.body is None or isinstance(self.body, bytes) or self.replayable)


_UNREACHABLE = {
    "refused": "{host} refused the connection",
    "reset": "{host} broke the connection off",
    "closed": "{host} closed the connection without an answer",
    "truncated": "the answer of {host} broke off before its end",
    "protocol": "{host} answered what is not HTTP/1.1",
    "header_too_large": "the answer of {host} has a larger header section than is taken",
    "tls": "the TLS connection to {host} could not be verified",
    "network": "{host} cannot be reached from here",
    "shutdown": "authproxy is shutting down",
}
_LATE = {
    "connect": "{host} was not connected in time",
    "first_byte": "{host} did not answer in time",
    "idle": "{host} stopped in the middle of the exchange",
    "total": "the exchange with {host} took too long",
}


def unreachable(origin: Origin, reason: str) -> UpstreamUnreachable:
    """The refusal for a broken upstream; its words are ours alone, never an exception's or the upstream's."""
    return UpstreamUnreachable(_UNREACHABLE[reason].format(host=origin.host), reason=reason)


def late(origin: Origin, reason: str) -> UpstreamTimeout:
    """The refusal for an upstream that is too slow."""
    return UpstreamTimeout(_LATE[reason].format(host=origin.host), reason=reason)
