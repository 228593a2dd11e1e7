"""How much may be asked at once and per second: of all, of a tenant, of a user, of an agent; and how many may connect.

Rates are leaky buckets kept as one instant each (GCRA: the time by which all that was taken has leaked away), so there
is no timer, and a bucket that is full again is told from a new one by nothing and is thrown away. All gates in a
request's way are asked before any of them is entered: who is refused by one takes nothing from the others. Numbers
are of this process.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Mapping
from math import ceil

from authproxy.core.bounds import Allowance, Limits, Shares
from authproxy.core.config import ProviderChoice, RouteChoice
from authproxy.core.errors import Overloaded
from authproxy.proxy.record import Entry

MOST = 100_000
"""Buckets that one gate remembers. Past that the longest unused is forgotten, which is to say, full again."""

_WHO = {"total": "all agents together", "tenant": "this tenant", "user": "this user", "caller": "this agent"}
_OF = {"": "", "provider": " at this provider", "route": " on this route"}


class Gate:
    """One allowance, for each key apart."""

    __slots__ = ("_at_once", "_burst", "_due", "_interval", "_most", "_of", "_reason", "_under_way", "_who")

    def __init__(self, place: str, whose: str, allowance: Allowance, *, most: int = MOST) -> None:
        """`place` is what the allowance is of (`provider`, `route`), or empty; `whose` is of `_WHO`; `most` is how
        many buckets are remembered."""
        self._most = most
        self._reason = "_".join(word for word in (place, "" if place and whose == "total" else whose) if word)
        self._who, self._of = _WHO[whose], _OF[place]
        self._under_way: dict[Hashable, int] = {}
        self._due: OrderedDict[Hashable, float] = OrderedDict()  # those unused for longest in front
        self.allow(allowance)

    def allow(self, allowance: Allowance) -> None:
        """From now on; what is under way goes on being counted."""
        self._at_once = allowance.requests
        self._interval = 1 / allowance.rate if allowance.rate else 0.0
        burst = allowance.burst or max(1, int(allowance.rate))
        # The time that may be taken ahead; what is lost in rounding is nobody's.
        self._burst = (burst - 1) * self._interval + self._interval * 1e-6

    @property
    def held(self) -> int:
        """Keys that something is known of."""
        return len(self._due) + len(self._under_way)

    def refusal(self, key: Hashable, now: float) -> Overloaded | None:
        """Why one more may not come in now; None where it may."""
        if self._at_once and self._under_way.get(key, 0) >= self._at_once:
            return Overloaded(
                f"{self._who} may have {self._at_once} requests under way{self._of}, and has them",
                reason=f"{self._reason}_requests",
            )
        if self._interval:
            wait = self._due.get(key, now) - now - self._burst
            if wait > 0:
                return Overloaded(
                    f"{self._who} may send {1 / self._interval:g} requests per second{self._of}",
                    reason=f"{self._reason}_rate",
                    retry_after=ceil(wait),
                )
        return None

    def enter(self, key: Hashable, now: float) -> None:
        """One more; `leave` when it is over."""
        if self._interval:
            due = self._due
            due[key] = max(due.get(key, now), now) + self._interval
            due.move_to_end(key)
            self._forget(now)
        self._under_way[key] = self._under_way.get(key, 0) + 1

    def leave(self, key: Hashable) -> None:
        """One less."""
        left = self._under_way[key] - 1
        if left:
            self._under_way[key] = left
        else:
            del self._under_way[key]

    def _forget(self, now: float) -> None:
        """For each one that comes, at most two that are full again go: there are never many more than in use."""
        due = self._due
        for _ in range(2):
            oldest = next(iter(due))
            if due[oldest] > now and len(due) <= self._most:
                return
            del due[oldest]
            if not due:
                return


_Held = tuple[Gate, Hashable]


class Turnstile:
    """The gates in the way of each route's requests. It outlives configurations, and so do its counts."""

    def __init__(
        self,
        limits: Limits,
        *,
        tick: Callable[[], float] = time.monotonic,
    ) -> None:
        self._tick = tick
        self._gates: dict[tuple[str, str, str], Gate] = {}
        self._ways: Mapping[str, tuple[tuple[Gate, str], ...]] = {}
        self._everywhere = self._put(
            [("", "", whose, getattr(limits, whose)) for whose in ("tenant", "user", "caller")]
        )

    def take(
        self,
        providers: Mapping[str, ProviderChoice],
        routes: Mapping[str, RouteChoice],
        provider_of: Mapping[str, str],
    ) -> None:
        """Put up the gates of a configuration. `provider_of` has each route's provider."""
        ways: dict[str, tuple[tuple[Gate, str], ...]] = {}
        nothing = ProviderChoice()
        for name, choice in routes.items():
            provider = provider_of[name]
            way = (
                *self._everywhere,
                *self._put(_shares("provider", provider, providers.get(provider, nothing).limits)),
                *self._put(_shares("route", name, choice.limits)),
            )
            if way:
                ways[name] = way
        self._ways = ways
        standing = {id(gate) for way in ways.values() for gate, _ in (*way, *self._everywhere)}
        self._gates = {key: gate for key, gate in self._gates.items() if id(gate) in standing}

    def enter(self, route: str, entry: Entry) -> None:
        """Let a request in, whose route, tenant, user and agent are known. Raises Overloaded, and then nothing was
        taken. `leave` is called at its end, once, also where it was never let in."""
        if self._ways and (way := self._ways.get(route)) is not None:
            self._pass(way, entry)

    def enter_tunnel(self, entry: Entry) -> None:
        """The same for a CONNECT, of which only the agent is known; the requests inside are let in each for itself."""
        way = [one for one in self._everywhere if one[1] != "user"]
        if way:
            self._pass(way, entry)

    def leave(self, entry: Entry) -> None:
        """What `enter` let in is over."""
        held, entry.held = entry.held, ()
        for gate, key in held:
            gate.leave(key)

    def _pass(self, way: Iterable[tuple[Gate, str]], entry: Entry) -> None:
        now = self._tick()
        keys: dict[str, Hashable] = {
            "total": None,
            "tenant": entry.tenant,
            "user": (entry.tenant, entry.user),
            # All below one agent (`mailer/run-7`) are that agent: its sessions are its own to mint.
            "caller": (entry.tenant, (entry.agent or "").partition("/")[0]),
        }
        held: list[_Held] = [(gate, keys[whose]) for gate, whose in way]
        for gate, key in held:
            if (refusal := gate.refusal(key, now)) is not None:
                raise refusal
        entry.held = held
        for gate, key in held:
            gate.enter(key, now)

    def _put(self, wanted: Iterable[tuple[str, str, str, Allowance]]) -> tuple[tuple[Gate, str], ...]:
        """A gate for each allowance that limits anything; one that stands already is adjusted, and keeps its counts."""
        found = []
        for place, name, whose, allowance in wanted:
            if not allowance.requests and not allowance.rate:
                continue
            gate = self._gates.get((place, name, whose))
            if gate is None:
                gate = self._gates[place, name, whose] = Gate(place, whose, allowance)
            else:
                gate.allow(allowance)
            found.append((gate, whose))
        return tuple(found)


def _shares(place: str, name: str, shares: Shares) -> list[tuple[str, str, str, Allowance]]:
    return [(place, name, whose, getattr(shares, whose)) for whose in ("total", "user", "caller")]


class Crowd:
    """Agents' connections to all listeners of a process: how many there are, and from where."""

    __slots__ = ("_each", "_most", "_of", "open")

    SPARE = 64
    """So many more are let in to be told why they are refused; past that they are closed unheard."""

    def __init__(self, limits: Limits) -> None:
        self._most = limits.max_connections
        self._each = limits.peer_connections
        self._of: dict[str, int] = {}
        self.open = 0

    def enter(self, peer: str | None) -> str | None:
        """One more, which `leave` takes away; the reason for which it is one too many, `closed` where it must not even
        be told."""
        self.open += 1
        if self._each and peer is not None:
            self._of[peer] = self._of.get(peer, 0) + 1
        if self._most and self.open > self._most:
            return "connections" if self.open <= self._most + self.SPARE else "closed"
        if self._each and peer is not None and self._of[peer] > self._each:
            return "peer_connections" if self._of[peer] <= self._each + self.SPARE else "closed"
        return None

    def leave(self, peer: str | None) -> None:
        """One less."""
        self.open -= 1
        if self._each and peer is not None:
            left = self._of[peer] - 1
            if left:
                self._of[peer] = left
            else:
                del self._of[peer]
