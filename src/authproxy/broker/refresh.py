"""The only function that may send grant_type=refresh_token, and what must be true before and after it does.

Lease, read again, intent, send once, save, sort the failure. Whoever wants a fresh token asks `Refresher.refresh`;
there is no other way to a token endpoint with a refresh token.
"""

from __future__ import annotations

import asyncio
import math
import random
import secrets
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace

import structlog

from authproxy.broker.attempt import LONGEST_WAIT, Attempt, ambiguity, marked
from authproxy.broker.breaker import Breaker, Cause, Hold
from authproxy.broker.endpoint import Endpoint, MaybeSent, NeverSent, Reply
from authproxy.broker.flight import FlightLost, Flights
from authproxy.broker.landing import Landings, Rotation
from authproxy.broker.outcome import Ended, Failpoint, Fresh, Later, Outcome, Want, Wrong, no_failpoint
from authproxy.broker.registrations import Registrations
from authproxy.broker.settlement import Settlement
from authproxy.core.config import Refresh
from authproxy.core.errors import StoreUnavailable
from authproxy.core.model import ConnectionKey, Event, State, TokenSet
from authproxy.core.oauth import read_token_reply, refresh_request
from authproxy.core.secret import Secret
from authproxy.core.verdicts import TokenFailure, Verdict
from authproxy.metrics import Metrics
from authproxy.store.base import GrantChanged, LeaseLost
from authproxy.store.lease import WELL, Leased, Standing
from authproxy.store.vault import Vault

log = structlog.get_logger()

REPLAYS = 3  # sends of one refresh token inside a provider's documented replay window
POLL_FIRST, POLL_LONGEST = 0.02, 0.5  # seconds between two looks at a lease that somebody else holds
MARGIN = 5.0  # seconds of the lease that must be left when the token call's deadline ends


class Refresher:
    """Refreshes connections, each once at a time in this process and among all that share the store."""

    def __init__(
        self,
        vault: Vault,
        registrations: Registrations,
        endpoint: Endpoint,
        settings: Refresh,
        *,
        metrics: Metrics,
        clock: Callable[[], float] = time.time,
        tick: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random.random,
        failpoint: Failpoint = no_failpoint,
    ) -> None:
        self._vault = vault
        self._registrations = registrations
        self._endpoint = endpoint
        self._settings = settings
        self._metrics = metrics
        self._clock = clock
        self._tick = tick
        self._jitter = jitter
        self._failpoint = failpoint
        self._name = secrets.token_hex(6)
        self._waiting: Counter[str] = Counter()
        self._breaker = Breaker(
            first=settings.backoff, longest=settings.backoff_max, tick=tick, jitter=jitter
        )
        self._settlement = Settlement(vault, self._breaker, settings, metrics, clock=clock, jitter=jitter)
        # A waiter's patience follows the lease that the holder may renew, not the lease's first length (A05).
        self._patience = 2 * settings.lease + settings.deadline
        self._flights: Flights[str, Outcome] = Flights(deadline=self._patience + settings.deadline + 30.0)
        self.landings = Landings(
            vault,
            lease=settings.lease,
            holder=self._name,
            metrics=metrics,
            failpoint=failpoint,
            clock=clock,
            jitter=jitter,
        )

    def busy(self, connection_id: str) -> bool:
        """Whether this process is refreshing the connection now."""
        return self._flights.running(connection_id)

    async def refresh(self, key: ConnectionKey, connection_id: str, want: Want) -> Outcome:
        """A token that meets `want`, or why there is none. Raises StoreUnavailable, KeyMissing,
        ProviderMisconfigured or ProviderUnavailable. The asker may leave; the work goes on."""
        self._waiting[key.provider] += want.urgent
        try:
            return await self._flights.share(connection_id, lambda: self._run(key, connection_id, want))
        except FlightLost as lost:
            return Later(lost.reason, 1)
        finally:
            self._waiting[key.provider] -= want.urgent

    def waited_for(self, provider: str) -> bool:
        """Whether a request waits for a token of this provider: then what can wait lets it go first (A28)."""
        return self._waiting[provider] > 0

    @property
    def _longest_wait(self) -> float:
        """A next try further off than this can only come from a clock that was set back, and does not hold (B16)."""
        return max(LONGEST_WAIT, self._settings.backoff_max) + 1.0

    async def drain(self, seconds: float) -> int:
        """Begin nothing new, end what runs, save what is held. How many rotations could not be saved."""
        began = self._tick()
        if await self._flights.drain(seconds):
            self._flights.cancel()
        return await self.landings.drain(max(0.0, seconds - (self._tick() - began)))

    # --- under the lease

    async def _run(self, key: ConnectionKey, connection_id: str, want: Want) -> Outcome:
        if (held := self.landings.held(key)) is not None:
            return held
        # Before the lease is taken: discovery may have to ask a network that is slow.
        provider = await self._registrations.provider(key.provider)
        client = self._registrations.client(key.provider)
        leased = await self._take(key, connection_id, want)
        if not isinstance(leased, Leased):
            return leased
        attempt = Attempt(leased, provider, client, want, taken=self._tick())
        try:
            return await self._decide(attempt)
        except LeaseLost:
            return Later("lease_lost", 1)
        except GrantChanged:
            return await self._settlement.stored(attempt, "grant_changed")
        finally:
            if not attempt.handed:
                await self._failpoint("before_release")
                await self._release(leased)

    async def _take(self, key: ConnectionKey, connection_id: str, want: Want) -> Leased | Outcome:
        """The lease; or what came of it meanwhile, if somebody else had it. Never on without one (A05, A07)."""
        until, pause = self._tick() + self._patience, POLL_FIRST
        holder = f"{self._name}:{secrets.token_hex(4)}"
        while True:
            leased = await self._vault.lease(connection_id, holder=holder, seconds=self._settings.lease)
            if leased is not None:
                return leased
            # Also when patience is over: the winner's token may be there by now (A02).
            found = await self._vault.access(key)
            if found is None:
                return Ended(None)
            connection, access = found
            if connection.state in (State.NEEDS_REAUTH, State.ROTATION_LOST):
                return Ended(connection)
            if want.met_by(connection, self._clock()):
                return Fresh(connection, access)
            if self._tick() >= until:
                return Later("lease_busy", 2)
            await asyncio.sleep(pause * (0.5 + self._jitter()))
            pause = min(pause * 1.6, POLL_LONGEST)

    async def _decide(self, attempt: Attempt) -> Outcome:
        """Everything that can be known before a byte is sent."""
        connection, now = attempt.connection, self._clock()
        again = attempt.want.probe and connection.state is State.NEEDS_REAUTH
        if connection.state in (State.NEEDS_REAUTH, State.ROTATION_LOST) and not again:
            return Ended(connection)
        if attempt.want.met_by(connection, now):
            tokens = await attempt.leased.tokens()
            return Fresh(connection, tokens.access_token)
        if attempt.client.client_id != connection.client_id:
            return await self._settlement.foreign(attempt)
        if connection.retry_at is not None and 0 < connection.retry_at - now <= self._longest_wait:
            return Later(connection.last_error or "backing_off", math.ceil(connection.retry_at - now))
        if (hold := self._breaker.hold(attempt.provider.id, attempt.client)) is not None:
            return _held_back(hold)
        tokens = await attempt.leased.tokens()
        if not tokens.refresh_token:
            return await self._settlement.end(
                attempt, State.NEEDS_REAUTH, "no_refresh_token", "nothing to refresh with"
            )
        attempt.digest = self._vault.digest(tokens.refresh_token)
        if await attempt.leased.is_spent(attempt.digest):
            return await self._settlement.end(
                attempt, State.ROTATION_LOST, "spent_token", "a spent token is never sent"
            )
        self._count(attempt)
        return await self._exchange(attempt, tokens)

    def _count(self, attempt: Attempt) -> None:
        """Which send of this refresh token the next one is. One whose outcome nobody learned is sent again: if it
        was spent, we hold no successor that its reuse could cost, and if it was not, it is still good. Only an
        answer tells, so only an answer ends the grant (A08, A09)."""
        attempt.first_at = int(self._clock())
        intent = attempt.leased.intent
        if intent is None:
            return
        sends, digest = ambiguity(intent.digest)
        if digest == attempt.digest:  # else about a token that is no longer the stored one
            attempt.number, attempt.first_at = sends + 1, intent.at

    def _replayable(self, attempt: Attempt) -> bool:
        return attempt.number <= REPLAYS and self._clock() - attempt.first_at < attempt.provider.replay_window

    async def _exchange(self, attempt: Attempt, tokens: TokenSet) -> Outcome:
        """The token call: intent on disk, one send, and the answer sorted."""
        assert tokens.refresh_token is not None
        request = refresh_request(
            attempt.provider,
            attempt.client,
            refresh_token=tokens.refresh_token,
            scopes=attempt.connection.requested_scopes,
        )
        while True:
            if self._tick() - attempt.taken > self._settings.lease - self._settings.deadline - MARGIN:
                await attempt.leased.renew(self._settings.lease)
                attempt.taken = self._tick()
            await attempt.leased.write_intent(marked(attempt.digest, attempt.number), attempt.first_at)
            await self._failpoint("before_send")
            began = self._tick()
            try:
                reply = await self._endpoint.send(
                    request,
                    deadline=self._settings.deadline,
                    sent=lambda: self._failpoint("after_send"),
                )
            except NeverSent as error:
                self._breaker.missed(attempt.provider.id, attempt.client, attempt.connection.id, error.reason)
                return await self._settlement.postpone(
                    attempt, f"never_sent:{error.reason}", "retry: nothing was sent"
                )
            except MaybeSent as error:
                attempt.number += 1
                if self._replayable(attempt):
                    log.warning(
                        "refresh.replayed",
                        connection=attempt.connection.id,
                        reason=error.reason,
                        sends=attempt.number,
                    )
                    continue
                return await self._settlement.unanswered(attempt, error.reason)
            self._metrics.refresh_seconds.labels(attempt.provider.id).observe(self._tick() - began)
            return await self._sort(attempt, tokens, reply)

    # --- the answer

    async def _sort(self, attempt: Attempt, tokens: TokenSet, reply: Reply) -> Outcome:
        attempt.status = reply.status
        answer = read_token_reply(
            attempt.provider,
            status=reply.status,
            content_type=reply.content_type,
            body=reply.body,
            retry_after=reply.retry_after,
            now=int(self._clock()),
            previous=tokens,
        )
        if not isinstance(answer, TokenFailure):
            return await self._land(attempt, tokens, answer)
        attempt.failure = answer
        if answer.rescued is not None and answer.rescued != tokens.refresh_token:
            return await self._rescue(attempt, tokens, answer.rescued, answer)
        if answer.verdict is Verdict.MISCONFIGURED:
            return await self._settlement.misconfigured(attempt, answer)
        if answer.verdict is Verdict.DEAD:
            self._breaker.answered(attempt.provider.id)
            return await self._settlement.dead(attempt, answer)
        if reply.status == 429:
            wait = min(answer.retry_after or math.ceil(self._settlement.pause(0)), LONGEST_WAIT)
            self._breaker.limited(attempt.provider.id, attempt.client, wait)
        elif reply.status < 500:
            self._breaker.answered(attempt.provider.id)
        doubt = answer.doubtful and attempt.rotates  # as good as no answer
        return await self._settlement.postpone(
            attempt,
            answer.reason,
            "retry: the outcome is unknown" if doubt else "retry: the provider cannot now",
            retry_after=answer.retry_after,
            keep_intent=doubt,
        )

    async def _land(self, attempt: Attempt, before: TokenSet, tokens: TokenSet) -> Outcome:
        """Nothing that can fail stands between the answer and the task that saves it (A19)."""
        assert before.refresh_token is not None
        rotated = tokens.refresh_token is not None and tokens.refresh_token != before.refresh_token
        events = attempt.success(int(self._clock()), rotated=rotated, before=before, after=tokens)
        told = self._hand_over(attempt, tokens, events, spent=attempt.digest if rotated else None)
        self._breaker.answered(attempt.provider.id)
        self._settlement.count(attempt, "succeeded", "rotated" if rotated else "same")
        return await asyncio.shield(told)

    async def _rescue(
        self, attempt: Attempt, before: TokenSet, token: Secret, failure: TokenFailure
    ) -> Outcome:
        """The new refresh token beside the old access token, which is used to its end."""
        standing, events, instead = self._settlement.rescued(attempt, failure)
        kept = replace(before, refresh_token=token)
        told = self._hand_over(
            attempt, kept, events, spent=attempt.digest, standing=standing, instead=instead
        )
        return await asyncio.shield(told)

    def _hand_over(
        self,
        attempt: Attempt,
        tokens: TokenSet,
        events: Sequence[Event],
        *,
        spent: str | None,
        standing: Standing = WELL,
        instead: Outcome | None = None,
    ) -> asyncio.Future[Outcome]:
        """The lease and what is to be saved under it, to a task that nobody can end."""
        told: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        attempt.handed = True
        self.landings.begin(
            Rotation(
                leased=attempt.leased,
                tokens=tokens,
                events=events,
                spent=spent,
                seen=attempt.connection,
                at=int(self._clock()),
                told=told,
                standing=standing,
                instead=instead,
            )
        )
        return told

    async def _release(self, leased: Leased) -> None:
        try:
            await leased.release()
        except StoreUnavailable:  # it ends by itself
            log.warning("lease.not_released", connection=leased.connection.id)


def _held_back(hold: Hold) -> Outcome:
    if hold.cause is Cause.REFUSED:
        return Wrong(hold.reason, "The provider refuses this client: check client id and secret.")
    return Later(hold.reason, max(1, math.ceil(hold.seconds)))
