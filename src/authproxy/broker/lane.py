"""How fast the background may ask one provider for tokens: at once, per second, and when it should stop asking."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from authproxy.broker.outcome import Ended, Fresh, Later, Outcome, Wrong

SUSPECT = 5
"""So many users in a row with one and the same verdict: suspicion falls on us, and not on them (J12)."""

FIRST_REST, LONGEST_REST = 300.0, 3600.0
OWN = frozenset({"no_refresh_token", "spent_token", "rotation_lost"})  # verdicts of ours, not of the provider


class Turn(NamedTuple):
    """What is worth telling: the kind of event, and the verdict that users shared."""

    kind: str
    cause: str


class Lane:
    """A token bucket, a number of places, and a memory for verdicts that repeat themselves across users."""

    def __init__(
        self,
        *,
        rate: float,
        places: int,
        tick: Callable[[], float],
        pause: Callable[[float], Awaitable[None]],
    ) -> None:
        self._rate = rate
        self._burst = float(places)
        self._tick = tick
        self._pause = pause
        self._places = asyncio.Semaphore(places)
        self._left = self._burst
        self._filled = tick()
        self._rest_until = -math.inf
        self._rests = 0
        self._cause: str | None = None
        self._users: set[tuple[str, str]] = set()

    @property
    def resting(self) -> bool:
        """Whether the provider is left alone now."""
        return self._tick() < self._rest_until

    @property
    def per_second(self) -> float:
        """How many calls may begin in a second, in the long run."""
        return self._rate

    async def __aenter__(self) -> None:
        """A place, and a token of the bucket."""
        await self._places.acquire()
        try:
            while (wait := self._wait()) > 0:
                await self._pause(wait)
        except BaseException:
            self._places.release()
            raise

    async def __aexit__(self, *_: object) -> None:
        self._places.release()

    def _wait(self) -> float:
        now = self._tick()
        if now < self._rest_until:
            return 0.0  # nothing will be asked, so nothing is waited for
        self._left = min(self._burst, self._left + (now - self._filled) * self._rate)
        self._filled = now
        if self._left >= 1 - 1e-9:  # what is left of a rounding is no reason to wait
            self._left -= 1
            return 0.0
        return (1 - self._left) / self._rate

    def note(self, user: tuple[str, str], outcome: Outcome) -> Turn | None:
        """Learn from an outcome. A turn, once, where users share a verdict by now, or do so no longer."""
        match outcome:
            case Fresh():
                turn = Turn("provider.recovered", self._cause) if self._cause and self._rests else None
                self._cause, self._rests = None, 0
                self._users.clear()
                return turn
            case Later(reason, retry_after) if reason == "rate_limited":
                self._rest_until = max(self._rest_until, self._tick() + retry_after)
            case Ended(connection) if connection is not None and connection.reason not in OWN:
                return self._again(user, connection.reason or "unknown")
            case Wrong(reason, _) if reason != "client_changed":  # that one is the connection's own
                return self._again(user, reason)
        return None

    def _again(self, user: tuple[str, str], cause: str) -> Turn | None:
        if cause != self._cause:
            self._cause, self._rests = cause, 0
            self._users.clear()
        self._users.add(user)
        if len(self._users) < SUSPECT or self.resting:
            return None
        self._rest_until = self._tick() + min(LONGEST_REST, FIRST_REST * 2**self._rests)
        self._rests += 1
        first = self._rests == 1
        # After the rest one more is enough: the next asker is a probe.
        self._users = set(sorted(self._users)[: SUSPECT - 1])
        return Turn("provider.suspected", cause) if first else None
