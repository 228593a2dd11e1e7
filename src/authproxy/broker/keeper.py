"""Refreshes ahead of time, spread out, and keeps idle grants alive; whoever waits for a token goes first."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from dataclasses import dataclass, field

import structlog

from authproxy.broker.lane import Lane
from authproxy.broker.outcome import Fresh, Outcome, Want, Why
from authproxy.broker.refresh import Refresher
from authproxy.broker.registrations import Registrations
from authproxy.core.config import Config
from authproxy.core.errors import ProviderMisconfigured, Refusal, StoreUnavailable
from authproxy.core.model import ConnectionKey, Event, State
from authproxy.core.providers import Provider
from authproxy.store.upkeep import PARTS, Dates
from authproxy.store.vault import Vault

log = structlog.get_logger()

WORK = "keeper"
EVERY = 5.0  # seconds between two rounds
CLAIM = 120.0  # seconds for which a replica's parts are its own
LONGEST_ROUND = 300.0  # seconds; beyond its last refresh a round that lasts longer hangs
BUDGET = 15.0  # seconds of a round in which it begins calls; what is left is found again by the next one
POLITENESS = 20.0  # seconds for which one call lets requests go first, at most
BREAK = 600.0  # seconds for which a connection is left alone that went wrong in a way no retry_at tells of
EARLIEST, SPREAD = (
    0.3,
    0.15,
)  # keep-alive falls between these parts of a grant's idle time: before its half (B15)


@dataclass(frozen=True, slots=True, order=True)
class Due:
    """One refresh that is to be made, and since when."""

    at: float
    id: str
    key: ConnectionKey = field(compare=False)
    generation: int = field(compare=False)
    why: Why = field(compare=False)


def chance(connection_id: str, generation: int) -> float:
    """Where in its window a connection stands, within 0 and 1: another place for every token, and the same in every
    process and after every start, so that what ends together is not renewed together, ever (A28)."""
    digest = hashlib.sha256(f"{connection_id}#{generation}".encode()).digest()
    return int.from_bytes(digest[:7], "big") / float(1 << 56)


class Keeper:
    """One in each process; between them connections are shared out in parts. Every refresh goes through the
    Refresher, whose lease is what really keeps two from refreshing one connection."""

    def __init__(
        self,
        vault: Vault,
        registrations: Registrations,
        refresher: Refresher,
        config: Callable[[], Config],
        *,
        changed: Callable[[ConnectionKey], None],
        clock: Callable[[], float] = time.time,
        tick: Callable[[], float] = time.monotonic,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
        holder: str | None = None,
    ) -> None:
        self._vault = vault
        self._registrations = registrations
        self._refresher = refresher
        self._config = config
        self._changed = changed
        self._clock = clock
        self._tick = tick
        self._pause = pause
        self._holder = holder or secrets.token_hex(8)
        self._lanes: dict[str, Lane] = {}
        self._breaks: dict[str, float] = {}
        self._began = clock()
        self._stopping = False

    async def round(self) -> int:
        """Look what is due in this process's parts, and do it; how many refreshes were asked for."""
        parts = await self._vault.share(WORK, PARTS, holder=self._holder, seconds=CLAIM)
        due = await self.due(parts)
        queues: dict[str, list[Due]] = {}
        for one in due:
            queues.setdefault(one.key.provider, []).append(one)
        return sum(await asyncio.gather(*(self._serve(name, queue) for name, queue in queues.items())))

    def stop(self) -> None:
        """Ask for nothing more; what was asked for goes on."""
        self._stopping = True

    async def leave(self) -> None:
        """Let the other replicas have this one's parts at once."""
        self.stop()
        try:
            await self._vault.leave(WORK, holder=self._holder)
        except StoreUnavailable:  # they end by themselves
            log.warning("keeper.parts_not_left")

    async def due(self, parts: Collection[int] = range(PARTS)) -> list[Due]:
        """What is to be refreshed now, soonest first, each connection once."""
        now = self._clock()
        found: dict[str, Due] = {}
        async for dates in self._candidates(int(now), parts):
            one = self.when(dates)
            if one is not None and one.at <= now and not self._left_alone(dates.id):
                found[one.id] = min(one, found.get(one.id, one))
        return sorted(found.values())

    def when(self, dates: Dates) -> Due | None:
        """When this connection is to be refreshed, and why; None: not by us."""
        try:
            provider = self._registrations.resting(dates.key.provider)
        except ProviderMisconfigured:
            return None  # it may outlive its configuration; the doctor tells of it
        if dates.state is State.MISCONFIGURED and dates.reason == "client_changed":
            return None
        times: list[tuple[float, Why]] = []
        if dates.expires_at is not None:
            if not dates.refreshable:
                times.append(
                    (dates.expires_at, "over")
                )  # nothing can renew it: say so, and do not wait for a request
            elif provider.early:
                times.append((self._ahead(dates, dates.expires_at, provider), "ahead"))
        if dates.refreshable and (kept := self._keep_alive(dates, provider)) is not None:
            times.append((kept, "keep_alive"))
        if not times:
            return None
        at, why = min(times)
        if dates.retry_at is not None:
            at = max(at, dates.retry_at)
        return Due(at, dates.id, dates.key, dates.generation, why)

    def _ahead(self, dates: Dates, expires_at: int, provider: Provider) -> float:
        """Before the time from which a request would renew it, by a part of the window. What was due when this
        process began is spread over the window from then on: a cold start is no storm."""
        settings = self._config().refresh
        life = dates.lifetime or max(0, expires_at - dates.obtained_at)
        margin = settings.margin if provider.refresh_margin is None else provider.refresh_margin
        window = min(settings.window, life * 0.2)
        place = chance(dates.id, dates.generation)
        at = expires_at - min(margin, life * 0.2) - place * window
        if at >= self._began:
            return at
        left = expires_at - self._began
        return self._began + place * (min(settings.window, left) if left > 0 else settings.window)

    def _keep_alive(self, dates: Dates, provider: Provider) -> float | None:
        """In the first half of the time that the grant may go unused (B15)."""
        place = EARLIEST + SPREAD * chance(dates.id, dates.generation)
        ends = []
        if provider.idle_expiry is not None:
            ends.append(dates.obtained_at + provider.idle_expiry * place)
        if dates.refresh_expires_at is not None and dates.refresh_expires_at > dates.obtained_at:
            told = (dates.refresh_expires_at - dates.obtained_at) * place
            # An end that no refresh moves would be halved for ever.
            ends.append(dates.obtained_at + max(told, self._config().refresh.forced_interval))
        if not ends:
            return None
        at = min(ends)
        if not provider.early and dates.expires_at is not None:
            return max(at, float(dates.expires_at))  # even this refresh is not made early (B26)
        return at

    async def _candidates(self, now: int, parts: Collection[int]) -> AsyncIterator[Dates]:
        settings = self._config().refresh
        choices = self._config().providers
        margins = [settings.margin, *(one.refresh_margin or 0 for one in choices.values())]
        async for dates in self._vault.ending(now + int(max(margins) + settings.window) + 1, parts):
            yield dates
        for name in choices:
            try:
                idle = self._registrations.resting(name).idle_expiry
            except ProviderMisconfigured:
                continue
            if idle is not None:
                async for dates in self._vault.unused(name, now + 1 - int(idle * EARLIEST), parts):
                    yield dates
        async for dates in self._vault.limited(now, parts):
            yield dates

    # --- doing it

    async def _serve(self, name: str, queue: list[Due]) -> int:
        """One provider's turn: a slow or refusing one costs no other anything but the length of a round."""
        lane = self._lane(name)
        if lane.resting:
            return 0
        until = self._tick() + BUDGET
        most = max(1, int(lane.per_second * BUDGET))
        places = asyncio.gather(*(self._one(lane, one, until) for one in queue[:most]))
        return sum(await places)

    async def _one(self, lane: Lane, due: Due, until: float) -> int:
        async with lane:
            polite = self._tick() + POLITENESS
            while self._refresher.waited_for(due.key.provider) and self._tick() < polite:
                await self._pause(0.05)
            if self._stopping or lane.resting or self._tick() > until:
                return 0
            await self._refresh(lane, due)
            return 1

    async def _refresh(self, lane: Lane, due: Due) -> None:
        want = Want(why="over") if due.why == "over" else Want(rejected=due.generation, why=due.why)
        try:
            outcome = await self._refresher.refresh(due.key, due.id, want)
        except Refusal as refusal:
            self._breaks[due.id] = self._tick() + BREAK
            log.warning("keeper.left_alone", connection=due.id, code=refusal.code, reason=refusal.reason)
            return
        if isinstance(outcome, Fresh):
            self._changed(due.key)
        await self._learn(lane, due, outcome)

    async def _learn(self, lane: Lane, due: Due, outcome: Outcome) -> None:
        turn = lane.note((due.key.tenant, due.key.user), outcome)
        if turn is None:
            return
        provider, kind = due.key.provider, turn.kind
        suspected = kind == "provider.suspected"
        (log.error if suspected else log.info)(kind, provider=provider, reason=turn.cause)
        decision = "no refreshes ahead of time for now" if suspected else "refreshes ahead of time again"
        data = {"reason": turn.cause, "decision": decision}
        await self._vault.note(
            [Event(kind, int(self._clock()), due.key.tenant, provider=provider, data=data)]
        )

    def _lane(self, name: str) -> Lane:
        lane = self._lanes.get(name)
        if lane is None:
            settings = self._config().refresh
            lane = self._lanes[name] = Lane(
                rate=settings.rate, places=settings.concurrency, tick=self._tick, pause=self._pause
            )
        return lane

    def _left_alone(self, connection_id: str) -> bool:
        until = self._breaks.get(connection_id)
        if until is None:
            return False
        if self._tick() < until:
            return True
        del self._breaks[connection_id]
        return False
