"""Which clients at which providers are left alone for a while: refused, rate limited, or not answered."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum

from authproxy.core.client_auth import Client


class Cause(StrEnum):
    """Why a circuit is open."""

    REFUSED = "refused"  # the client itself: the operator must act
    LIMITED = "limited"  # 429: the server said when to come back
    SILENT = "silent"  # several connections in a row got no answer


@dataclass(frozen=True, slots=True)
class Hold:
    """An open circuit, as its asker sees it."""

    cause: Cause
    reason: str
    seconds: float


@dataclass(slots=True)
class _Circuit:
    client: Client
    cause: Cause | None = None
    reason: str = ""
    until: float = 0.0
    opened: int = 0
    misses: set[str] = field(default_factory=set)


class Breaker:
    """One circuit per provider and client, for refreshes alone: exchanging a code stays allowed (B10).

    An open circuit lets one asker through when its time is over and stays shut for the others until that one has
    reported, or has had the time to; after a pause that the server asked for, everybody may go. A changed client (a
    reload with another secret) starts afresh, so a repair heals at once (C05).
    """

    THRESHOLD = 3  # connections in a row: one connection's trouble is not its neighbours'
    PROBE = 30.0  # seconds for the one that is let through: it may find a token of another process, and report nothing

    def __init__(
        self,
        *,
        first: float,
        longest: float,
        tick: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._first = first
        self._longest = longest
        self._tick = tick
        self._jitter = jitter
        self._circuits: dict[str, _Circuit] = {}

    def hold(self, provider: str, client: Client) -> Hold | None:
        """None: go ahead."""
        circuit = self._circuits.get(provider)
        if circuit is None or circuit.cause is None or circuit.client != client:
            return None
        now = self._tick()
        if now >= circuit.until:
            if circuit.cause is Cause.LIMITED:
                del self._circuits[provider]
            circuit.until = now + min(self._longest, self.PROBE)
            return None
        return Hold(circuit.cause, circuit.reason, circuit.until - now)

    def answered(self, provider: str) -> None:
        """The server took the client and said something about a grant."""
        self._circuits.pop(provider, None)

    def refused(self, provider: str, client: Client, connection_id: str, reason: str, *, sure: bool) -> bool:
        """The client was refused; `sure`: by a code that can mean nothing else. True when this opened it."""
        circuit = self._circuit(provider, client)
        circuit.misses.add(connection_id)
        if not sure and len(circuit.misses) < self.THRESHOLD:
            return False
        return self._open(circuit, Cause.REFUSED, reason, self._longest)

    def limited(self, provider: str, client: Client, seconds: float) -> None:
        """The server asked for a pause."""
        circuit = self._circuit(provider, client)
        circuit.cause, circuit.reason, circuit.until = Cause.LIMITED, "rate_limited", self._tick() + seconds

    def missed(self, provider: str, client: Client, connection_id: str, reason: str) -> None:
        """No answer. What a hanging server costs is bounded here: a rotating grant's one retry is not spent on it
        while it answers nobody."""
        circuit = self._circuit(provider, client)
        circuit.misses.add(connection_id)
        if len(circuit.misses) >= self.THRESHOLD or circuit.cause is Cause.SILENT:
            self._open(circuit, Cause.SILENT, reason, self._first)

    def _circuit(self, provider: str, client: Client) -> _Circuit:
        circuit = self._circuits.get(provider)
        if circuit is None or circuit.client != client:
            circuit = self._circuits[provider] = _Circuit(client)
        return circuit

    def _open(self, circuit: _Circuit, cause: Cause, reason: str, first: float) -> bool:
        fresh = circuit.cause is not cause
        circuit.opened = 0 if fresh else circuit.opened + 1
        pause = min(self._longest, first * 2**circuit.opened)
        circuit.cause, circuit.reason = cause, reason
        circuit.until = self._tick() + pause * (0.5 + self._jitter() / 2)
        circuit.misses.clear()
        return fresh
