"""Brings rotated tokens to disk: from the moment an answer is read until it is saved, whoever has gone meanwhile."""

from __future__ import annotations

import asyncio
import dataclasses
import random
import secrets
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

import structlog

from authproxy.broker.outcome import Ended, Failpoint, Fresh, Later, Outcome
from authproxy.core.errors import StoreUnavailable
from authproxy.core.model import Connection, ConnectionKey, Event, State, TokenSet
from authproxy.metrics import Metrics
from authproxy.store.base import GrantChanged, LeaseLost
from authproxy.store.lease import WELL, Leased, Standing
from authproxy.store.revocations import Owing
from authproxy.store.vault import Vault

log = structlog.get_logger()

FIRST, LONGEST = 0.1, 5.0  # seconds between two tries to save
PATIENCE = 15.0  # seconds after which one try counts as failed


@dataclass(slots=True)
class Rotation:
    """Tokens that exist nowhere else."""

    leased: Leased
    tokens: TokenSet = field(repr=False)
    events: Sequence[Event]
    spent: str | None
    seen: Connection
    at: int
    told: asyncio.Future[Outcome]
    standing: Standing = WELL
    instead: Outcome | None = None  # what askers get where only the refresh token is of use
    gone: bool = False  # the grant that they belong to is no longer the stored one: nobody may use them
    owing: Owing | None = None

    @property
    def meanwhile(self) -> Outcome:
        """What askers get while it is not saved."""
        return Later("store_unavailable", 1) if self.gone else self.instead or self.fresh

    @property
    def fresh(self) -> Fresh:
        """The tokens as they will be stored, to be used meanwhile."""
        connection = dataclasses.replace(
            self.seen,
            state=State.ACTIVE,
            reason=None,
            generation=self.seen.generation + 1,
            scopes=self.tokens.scopes,
            expires_at=self.tokens.expires_at,
            lifetime=self.tokens.lifetime,
            extra=self.tokens.extra,
            obtained_at=self.at,
            failures=0,
            retry_at=None,
            last_error=None,
        )
        return Fresh(connection, self.tokens.access_token)


class Landings:
    """One task per rotation. It owns the lease, tries until the pair is on disk or proven to be of no use, and
    hands the new access token out meanwhile (A20). No caller, deadline or closed connection can end it."""

    def __init__(
        self,
        vault: Vault,
        *,
        lease: float,
        holder: str,
        metrics: Metrics,
        failpoint: Failpoint,
        clock: Callable[[], float],
        jitter: Callable[[], float] = random.random,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._vault = vault
        self._lease = lease
        self._holder = holder
        self._metrics = metrics
        self._failpoint = failpoint
        self._clock = clock
        self._jitter = jitter
        self._pause = pause
        self._held: dict[ConnectionKey, Rotation] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def held(self, key: ConnectionKey) -> Fresh | None:
        """A token of this connection that is good but not saved yet."""
        rotation = self._held.get(key)
        return None if rotation is None or rotation.instead is not None else rotation.fresh

    def __bool__(self) -> bool:
        return bool(self._held)

    def begin(self, rotation: Rotation) -> None:
        """Take `rotation` over, lease and all. Its `told` is set after the first try."""
        task = asyncio.create_task(self._land(rotation))
        self._tasks.add(task)
        task.add_done_callback(lambda done: self._done(rotation, done))

    async def drain(self, seconds: float) -> int:
        """Wait until everything is on disk; how many rotations are lost with this process if it ends now."""
        if self._tasks:
            await asyncio.wait(list(self._tasks), timeout=seconds)
        for rotation in self._held.values():
            log.error("rotation.unsaved", connection=rotation.seen.id, provider=rotation.seen.key.provider)
        return len(self._tasks)

    async def _land(self, rotation: Rotation) -> None:
        await self._failpoint("after_response")
        outcome = await self._save(rotation)
        tries = 0
        while outcome is None:
            if rotation.gone:
                self._unhold(rotation)
            else:
                self._hold(rotation)
            if not rotation.told.done():
                rotation.told.set_result(rotation.meanwhile)
            await self._pause(min(LONGEST, FIRST * 2 ** min(tries, 10)) * (0.5 + self._jitter() / 2))
            tries += 1
            await self._renew(rotation)
            outcome = await self._save(rotation)
        self._unhold(rotation)
        if not rotation.told.done():
            rotation.told.set_result(outcome)
        if tries:
            log.warning("rotation.saved_late", connection=rotation.seen.id, tries=tries)
        await self._failpoint("before_release")
        await self._release(rotation)

    async def _save(self, rotation: Rotation) -> Outcome | None:
        """None: try again."""
        try:
            async with asyncio.timeout(PATIENCE):
                await self._failpoint("before_commit")
                connection = await rotation.leased.commit(
                    rotation.tokens, rotation.events, spent=rotation.spent, standing=rotation.standing
                )
                await self._failpoint("after_commit")
                return rotation.instead or Fresh(connection, rotation.tokens.access_token)
        except GrantChanged:
            return await self._lost(rotation)
        except LeaseLost:
            return await self._retake(rotation)
        except (StoreUnavailable, TimeoutError) as error:
            log.error(
                "rotation.save_failed",
                connection=rotation.seen.id,
                provider=rotation.seen.key.provider,
                error=type(error).__name__,
            )
            return None

    async def _retake(self, rotation: Rotation) -> Outcome | None:
        """The lease went to somebody else while we could not save. What we hold is real as long as they saved
        nothing; once they did, theirs is the truth (A16)."""
        seen = rotation.seen
        try:
            leased = await self._vault.lease(seen.id, holder=self._holder, seconds=self._lease)
            if leased is None:
                now = await self._vault.get(seen.id, tenant=None)
                return None if _unchanged(now, seen) else await self._lost(rotation)
            rotation.leased = leased
            return None if _unchanged(leased.connection, seen) else await self._lost(rotation)
        except StoreUnavailable:
            return None

    async def _lost(self, rotation: Rotation) -> Outcome | None:
        """The stored grant is another one by now, or none (A18)."""
        rotation.gone = True
        seen = rotation.seen
        try:
            stored = await self._vault.access(seen.key)
            if stored is None:
                # After a disconnect nothing may live on. Beside a new grant they are left to end by themselves: many
                # providers revoke by user and client, which would take the new grant with them.
                await self._owe(rotation)
        except StoreUnavailable:
            return None
        log.warning("rotation.discarded", connection=seen.id, provider=seen.key.provider, gone=stored is None)
        if stored is None:
            return Ended(None)
        connection, access = stored
        if connection.state is not State.ACTIVE:
            return Ended(connection)
        return Fresh(connection, access)

    async def _owe(self, rotation: Rotation) -> None:
        """Kept until the provider has taken them back, by whichever process: one try here could fail (I09)."""
        if rotation.owing is None:
            now = int(self._clock())
            rotation.owing = Owing(f"rev_{secrets.token_hex(12)}", now, now)
        await self._vault.owe(rotation.seen, rotation.tokens, rotation.owing)

    async def _renew(self, rotation: Rotation) -> None:
        try:
            async with asyncio.timeout(PATIENCE):
                await rotation.leased.renew(self._lease)
        except (StoreUnavailable, LeaseLost, TimeoutError) as error:
            log.warning("rotation.lease_not_renewed", connection=rotation.seen.id, error=type(error).__name__)

    async def _release(self, rotation: Rotation) -> None:
        try:
            async with asyncio.timeout(PATIENCE):
                await rotation.leased.release()
        except (StoreUnavailable, TimeoutError) as error:  # it ends by itself
            log.warning("lease.not_released", connection=rotation.seen.id, error=type(error).__name__)

    def _hold(self, rotation: Rotation) -> None:
        self._held[rotation.seen.key] = rotation
        self._metrics.unpersisted.set(len(self._held))

    def _unhold(self, rotation: Rotation) -> None:
        if self._held.get(rotation.seen.key) is rotation:
            del self._held[rotation.seen.key]
        self._metrics.unpersisted.set(len(self._held))

    def _done(self, rotation: Rotation, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._unhold(rotation)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            log.error(
                "rotation.failed", connection=rotation.seen.id, error=type(error).__name__, exc_info=error
            )
        if not rotation.told.done():
            rotation.told.set_result(Later("internal", 1))


def _unchanged(now: Connection | None, seen: Connection) -> bool:
    """Whether nobody has saved anything since."""
    if now is None or now.state is State.DISCONNECTED:
        return False
    return (now.grant_id, now.generation) == (seen.grant_id, seen.generation)
