"""A provider's 429 is every agent's: until the time that it told, the same user's requests are not sent to it.

The 429 itself goes on to its agent as it came. What comes for the same connection, upstream and kind of path before
the time is over is answered `overloaded`, reason `provider_limit`. When it is over one request is let through; the
others follow when it has been answered with anything but another pause. Only the provider's data, or the operator,
can make one user's pause that of all users of an app. An API that nobody has described is believed when it says the
same twice: its first 429 may have been about that one request.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from functools import cache
from math import ceil, inf
from re import Pattern

import structlog

from authproxy.core.errors import Overloaded
from authproxy.core.facts import Pacing
from authproxy.core.model import ConnectionKey
from authproxy.core.pacing import Asked, pause_asked
from authproxy.core.policy import compile_glob
from authproxy.core.providers import Provider
from authproxy.core.routes import Route
from authproxy.metrics import Metrics
from authproxy.proxy.record import Entry
from authproxy.proxy.upstream import Answer

log = structlog.get_logger()

MOST = 10_000  # pauses that are remembered; of more the first to come is forgotten
_PROBE = 5.0  # seconds that one request is waited for before another may try
_AFTER = 10.0  # seconds after its end for which a pause lets only one through; nobody came back before


class Pause:
    """One, and who is out to see whether it is over."""

    __slots__ = ("probe", "tried", "until")

    def __init__(self, until: float) -> None:
        self.until = until
        self.probe: Entry | None = None
        self.tried = -inf


class Pauses:
    """Those of one process. It outlives configurations."""

    def __init__(
        self,
        longest: float,
        provider_of: Callable[[str], Provider],
        metrics: Metrics,
        *,
        most: int = MOST,
        clock: Callable[[], float] = time.time,
        tick: Callable[[], float] = time.monotonic,
    ) -> None:
        """`longest` is in seconds; 0: there are none. `most` is how many are remembered."""
        self._most = most
        self._longest = longest
        self._provider_of = provider_of
        self._metrics = metrics
        self._clock = clock
        self._tick = tick
        self._pauses: OrderedDict[Hashable, Pause] = OrderedDict()
        self._heralds: OrderedDict[Hashable, float] = OrderedDict()  # one such answer, where two are needed

    def __len__(self) -> int:
        return len(self._pauses)

    def enter(self, route: Route, key: ConnectionKey, path: bytes, entry: Entry) -> None:
        """Let a request pass that is in nobody's pause. Raises Overloaded; `leave` is called at its end."""
        if self._pauses and route.share_pauses:
            provider = self._provider_of(route.provider)
            for whose in (key, key.provider):
                self._enter(_bucket(route, provider, whose, entry.method, path), provider, key, entry)

    def heard(self, route: Route, key: ConnectionKey, path: bytes, entry: Entry, answer: Answer) -> None:
        """Learn from an answer's head."""
        if (answer.status < 400 and not entry.probing and not self._heralds) or not self._longest:
            return
        provider = self._provider_of(route.provider)
        asked = None
        if route.share_pauses:
            asked = pause_asked(provider.pacing, answer.status, answer.fields, self._clock())
        seen, entry.probing = entry.probing, ()
        whose = key.provider if asked is not None and asked.app else key
        bucket = _bucket(route, provider, whose, entry.method, path)
        if asked is None:
            for over in seen:
                self._pauses.pop(over, None)
            self._heralds.pop(bucket, None)
            self._fade(self._tick())
        elif provider.pacing.at_once or bucket in self._pauses or self._heralded(bucket, asked):
            self._begin(bucket, asked, route)

    def leave(self, entry: Entry) -> None:
        """A request is over. Where it was to see whether a pause is, and was not answered, the next one does."""
        seen, entry.probing = entry.probing, ()
        for bucket in seen:
            pause = self._pauses.get(bucket)
            if pause is not None and pause.probe is entry:
                pause.probe = None

    def _enter(self, bucket: Hashable, provider: Provider, key: ConnectionKey, entry: Entry) -> None:
        pause = self._pauses.get(bucket)
        if pause is None:
            return
        now = self._tick()
        if now >= pause.until:
            if now >= pause.until + _AFTER and pause.probe is None:
                del self._pauses[bucket]
                return
            if pause.probe is None or now >= pause.tried + _PROBE:
                pause.probe, pause.tried = entry, now
                entry.probing = (*entry.probing, bucket)
                return
        raise Overloaded(
            f"{provider.name} has asked for a pause, which is not over yet",
            reason="provider_limit",
            provider=provider.id,
            user=key.user,
            retry_after=max(1, ceil(pause.until - now)),
        )

    def _heralded(self, bucket: Hashable, asked: Asked) -> bool:
        """Whether the same was said before, and the time told then is not over."""
        now = self._tick()
        if self._heralds.pop(bucket, -inf) > now:
            return True
        self._fade(now)
        self._heralds[bucket] = now + min(asked.seconds, self._longest)
        return False

    def _fade(self, now: float) -> None:
        for _ in range(2):
            oldest = next(iter(self._heralds), None)
            if oldest is not None and (self._heralds[oldest] <= now or len(self._heralds) >= self._most):
                del self._heralds[oldest]

    def _begin(self, bucket: Hashable, asked: Asked, route: Route) -> None:
        now = self._tick()
        until = now + min(asked.seconds, self._longest)
        pause = self._pauses.get(bucket)
        if pause is None:
            self._forget(now)
            pause = self._pauses[bucket] = Pause(until)
            self._metrics.pauses.labels(route.provider).inc()
            log.info(
                "provider_pause",
                provider=route.provider,
                route=route.name,
                of="app" if asked.app else "user",
                seconds=round(until - now, 1),
            )
        pause.until = max(pause.until, until)
        pause.probe = None

    def _forget(self, now: float) -> None:
        """For each that begins at most two that nobody came back to go, and one where there are too many."""
        for _ in range(2):
            oldest = next(iter(self._pauses), None)
            if oldest is None:
                return
            if now < self._pauses[oldest].until + _AFTER and len(self._pauses) < self._most:
                return
            del self._pauses[oldest]


def _bucket(
    route: Route, provider: Provider, whose: ConnectionKey | str, method: str, path: bytes
) -> Hashable:
    """Whose requests to what are counted together: the user's connection (or a whole provider's), at one upstream, to
    one kind of path."""
    return whose, route.host, route.port, route.base_path, _kind(provider.pacing, method, path)


def _kind(pacing: Pacing, method: str, path: bytes) -> Hashable:
    if pacing.each_path:
        return method, path
    return next((glob for glob in pacing.own_paths if _compiled(glob).fullmatch(path)), None)


@cache
def _compiled(glob: str) -> Pattern[bytes]:
    return compile_glob(glob)
