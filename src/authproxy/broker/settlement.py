"""Writes down how a refresh ended, so that whoever comes next knows as much, and says what its askers get."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import structlog

from authproxy.broker.attempt import LONGEST_WAIT, VAGUE, Attempt, marked
from authproxy.broker.breaker import Breaker
from authproxy.broker.outcome import Ended, Fresh, Later, Outcome, Wrong
from authproxy.core.config import Refresh
from authproxy.core.model import Event, State
from authproxy.core.verdicts import TokenFailure, Verdict
from authproxy.metrics import Metrics
from authproxy.store.lease import Standing
from authproxy.store.vault import Vault

log = structlog.get_logger()

STILL = 10.0  # seconds for which a server that did not answer in time is let be, at most


class Settlement:
    """One method for each kind of ending. Only `dead` and `end` end a grant, and only if the stored refresh token is
    still the one that was judged; everything else leaves it as it was."""

    def __init__(
        self,
        vault: Vault,
        breaker: Breaker,
        settings: Refresh,
        metrics: Metrics,
        *,
        clock: Callable[[], float],
        jitter: Callable[[], float],
    ) -> None:
        self._vault = vault
        self._breaker = breaker
        self._settings = settings
        self._metrics = metrics
        self._clock = clock
        self._jitter = jitter

    async def dead(self, attempt: Attempt, failure: TokenFailure) -> Outcome:
        """The server's verdict on the token that was presented, and on no other (A15)."""
        if attempt.number > 1 and attempt.rotates:
            # The earlier send went through and its answer was lost: the grant's access token is still good.
            return await self.end(
                attempt, State.ROTATION_LOST, "rotation_lost", "the answer to an earlier send was lost"
            )
        reason = failure.reason
        if attempt.aged_out(self._clock(), reason):
            return await self.end(attempt, State.NEEDS_REAUTH, "test_mode_suspected", "ask the user")
        if attempt.reuse_suspected(self._clock()):
            self._metrics.reuse_suspected.labels(attempt.provider.id).inc()
            attempt.notes["reuse_suspected"] = True
            if reason in VAGUE:
                reason = "reused_elsewhere_suspected"
        return await self.end(attempt, State.NEEDS_REAUTH, reason, "ask the user")

    async def misconfigured(self, attempt: Attempt, failure: TokenFailure) -> Outcome:
        """The client was refused, or the request as such: the operator's matter, said once (C05)."""
        self._blame(attempt, failure)
        await self._withdraw(attempt)
        connection, now = attempt.connection, self._clock()
        first = connection.state is not State.MISCONFIGURED
        await attempt.leased.settle(
            state=State.MISCONFIGURED,
            reason=failure.reason,
            last_error=failure.code or failure.reason,
            # The circuit keeps calls away where the client is at fault, and a repair must heal at once.
            retry_at=None
            if attempt.about_client(failure)
            else math.ceil(now + self.pause(connection.failures)),
            failures=connection.failures + 1,
            presented=attempt.digest,
            clear_intent=attempt.number == 1,
            events=attempt.failed(
                now,
                "tell the operator",
                *(["connection.misconfigured"] if first else []),
                reason=failure.reason,
            ),
        )
        self.count(attempt, "misconfigured", failure.reason)
        return Wrong(failure.reason, failure.advice)

    def _blame(self, attempt: Attempt, failure: TokenFailure) -> None:
        opened = self._breaker.refused(
            attempt.provider.id,
            attempt.client,
            attempt.connection.id,
            failure.reason,
            sure=attempt.about_client(failure),
        )
        if opened:
            log.error(
                "provider.refuses_client",
                provider=attempt.provider.id,
                code=failure.code,
                reason=failure.reason,
            )

    def rescued(self, attempt: Attempt, failure: TokenFailure) -> tuple[Standing, Sequence[Event], Outcome]:
        """How a connection stands whose new refresh token is kept although nothing else of the answer is of use: what
        is written with the token, and what askers get (A19)."""
        connection, now = attempt.connection, self._clock()
        wrong = failure.verdict is Verdict.MISCONFIGURED
        if wrong:
            self._blame(attempt, failure)
        kinds = ["connection.misconfigured"] if wrong and connection.state is not State.MISCONFIGURED else []
        attempt.notes |= {"failures": connection.failures + 1, "rotated": True}
        retry_at = math.ceil(now + self.pause(connection.failures))
        standing = Standing(
            state=State.MISCONFIGURED if wrong else connection.state,
            reason=failure.reason if wrong else connection.reason,
            failures=connection.failures + 1,
            retry_at=retry_at,
            last_error=failure.reason,
        )
        decision = "tell the operator" if wrong else "retry: the token was of no use"
        events = attempt.failed(now, decision, *kinds, reason=failure.reason)
        self.count(attempt, "misconfigured" if wrong else "transient", failure.reason)
        if wrong:
            return standing, events, Wrong(failure.reason, failure.advice)
        return standing, events, Later(failure.reason, max(1, math.ceil(retry_at - now)))

    async def foreign(self, attempt: Attempt) -> Outcome:
        """The grant belongs to another client: sent to this one, it would look revoked (C04)."""
        reason = "client_changed"
        connection = attempt.connection
        if (connection.state, connection.reason) != (State.MISCONFIGURED, reason):
            await attempt.leased.settle(
                state=State.MISCONFIGURED,
                reason=reason,
                last_error=reason,
                failures=connection.failures,
                presented=None,
                clear_intent=False,
                events=attempt.failed(
                    self._clock(), "nothing sent", "connection.misconfigured", reason=reason
                ),
            )
            self.count(attempt, "misconfigured", reason)
        return Wrong(
            reason,
            "The grant was made with another client id. Put the old client id back, or let the user connect again.",
        )

    async def unanswered(self, attempt: Attempt, reason: str) -> Outcome:
        """Sent, perhaps; answered, never. The intent stays and says so to whoever comes next."""
        sends = attempt.number - 1
        self._breaker.missed(attempt.provider.id, attempt.client, attempt.connection.id, reason)
        attempt.number = sends
        # Whoever lets us wait for so long may still be at it: a second call now would be beside the first one.
        still = math.ceil(min(STILL, self._settings.deadline)) if reason == "timeout" else None
        return await self.postpone(
            attempt,
            f"maybe_sent:{reason}",
            "retry: the outcome is unknown" if attempt.rotates else "retry: the provider does not rotate",
            retry_after=still,
            keep_intent=attempt.rotates,
            outcome="maybe_sent",
        )

    async def postpone(
        self,
        attempt: Attempt,
        error: str,
        decision: str,
        *,
        retry_after: int | None = None,
        keep_intent: bool = False,
        outcome: str = "transient",
    ) -> Outcome:
        """Nothing was decided: try again later, at a time that every process reads in the row (B10)."""
        connection, now = attempt.connection, self._clock()
        attempt.notes["failures"] = connection.failures + 1
        wait = self.pause(connection.failures)
        if retry_after is not None:
            wait = max(wait, min(retry_after, LONGEST_WAIT))
        retry_at = math.ceil(now + wait)
        if not keep_intent:
            await self._withdraw(attempt)
        settled = await attempt.leased.settle(
            last_error=error,
            retry_at=retry_at,
            failures=connection.failures + 1,
            presented=attempt.digest,
            clear_intent=not keep_intent and attempt.number == 1,
            events=attempt.failed(now, decision, reason=error),
        )
        self.count(attempt, outcome, error)
        if not settled:
            return await self.stored(attempt, error)
        return Later(error, max(1, math.ceil(retry_at - now)))

    async def _withdraw(self, attempt: Attempt) -> None:
        """A second send that certainly did nothing leaves the first one's outcome as unknown as it was."""
        if attempt.number > 1:
            await attempt.leased.write_intent(marked(attempt.digest, attempt.number - 1), attempt.first_at)

    async def end(self, attempt: Attempt, state: State, reason: str, decision: str) -> Outcome:
        """Only the user can mend it; only if the stored token is still the one that was judged."""
        kind = "connection.rotation_lost" if state is State.ROTATION_LOST else "connection.needs_reauth"
        failure = attempt.failure
        settled = await attempt.leased.settle(
            state=state,
            reason=reason,
            last_error=(failure.code if failure is not None else "") or reason,
            failures=attempt.connection.failures + 1,
            presented=attempt.digest or None,
            clear_intent=True,
            # An end is told once, also where an operator had it asked for again.
            events=attempt.failed(
                self._clock(),
                decision,
                *([] if attempt.connection.state is state else [kind]),
                reason=reason,
            ),
        )
        self.count(attempt, "lost" if state is State.ROTATION_LOST else "dead", reason)
        if not settled:
            return await self.stored(attempt, reason)
        return Ended(attempt.connection)

    async def stored(self, attempt: Attempt, reason: str) -> Outcome:
        """What we learned no longer concerns what is stored: adopt what is."""
        log.info("refresh.overtaken", connection=attempt.connection.id, reason=reason)
        found = await self._vault.access(attempt.connection.key)
        if found is None:
            return Ended(None)
        connection, access = found
        if connection.state in (State.NEEDS_REAUTH, State.ROTATION_LOST):
            return Ended(connection)
        return (
            Fresh(connection, access) if attempt.want.met_by(connection, self._clock()) else Later(reason, 1)
        )

    def pause(self, failures: int) -> float:
        """Seconds before the next try: doubling, bounded, with jitter."""
        pause = min(self._settings.backoff_max, self._settings.backoff * 2 ** min(failures, 20))
        return float(pause * (0.5 + self._jitter() / 2))

    def count(self, attempt: Attempt, outcome: str, reason: str) -> None:
        """One line in the log and one in the metrics for every ending."""
        self._metrics.refreshes.labels(attempt.provider.id, outcome, reason).inc()
        log.info("refresh.ended", outcome=outcome, reason=reason, **attempt.facts())
