"""Tells webhooks what happened: from the outbox, in order, signed, at least once, by one process at a time."""

from __future__ import annotations

import hashlib
import json
import math
import random
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import structlog

from authproxy.broker.endpoint import Endpoint, MaybeSent, NeverSent
from authproxy.core.causes import advice, party, severity
from authproxy.core.config import Webhook
from authproxy.core.model import Environment, Event
from authproxy.core.oauth import TokenRequest
from authproxy.core.signature import signed
from authproxy.metrics import Metrics
from authproxy.store.deliveries import Delivery
from authproxy.store.vault import Vault

log = structlog.get_logger()

EVERY = 1.0  # seconds between two looks at the outbox
DEADLINE = 10.0  # seconds for one delivery
CLAIM = 60.0  # seconds for which a receiver is one process's to tell
LONGEST_ROUND = 300.0  # seconds; BATCH receivers that answer just in time are 200
BATCH = 20
FIRST, LONGEST = 5.0, 3600.0  # seconds before a receiver that failed is tried again
KEPT = 3 * 86400  # seconds after which an event that nobody took is given up
FAILING = 3  # the failure in a row that is told, so that a flicker is not (J02)
# What of an event's own words goes out. A list of what may, so that nothing new gets out by itself.
SHOWN = tuple(
    "reason code detail status generation attempt failures from by why revoked_upstream ends_at verdict "  # noqa: SIM905
    "decision scopes scopes_lost expires_at reuse_suspected approval tool approver grants_kept disconnected".split()
)


class Webhooks:
    """`fan_out` puts each event in the lane of every webhook that wants it; `deliver` empties one lane."""

    def __init__(
        self,
        vault: Vault,
        endpoint: Endpoint,
        webhooks: Sequence[Webhook],
        *,
        environment: Environment,
        metrics: Metrics,
        clock: Callable[[], float] = time.time,
        jitter: Callable[[], float] = random.random,
        holder: str | None = None,
    ) -> None:
        self._vault = vault
        self._endpoint = endpoint
        self._webhooks = {identity(webhook): webhook for webhook in webhooks}
        self._environment = environment
        self._metrics = metrics
        self._clock = clock
        self._jitter = jitter
        self._holder = holder or secrets.token_hex(8)
        self._store: str | None = None
        self._next_sweep = 0.0
        for outcome in ("delivered", "failed", "given_up"):
            metrics.deliveries.labels(outcome)

    @property
    def lanes(self) -> Sequence[str]:
        """The webhooks by their identities. Each is told by itself, so that one that hangs delays no other."""
        return tuple(self._webhooks)

    async def fan_out(self) -> None:
        """Also where nobody is to be told: what happened before a webhook was configured is history, not news."""
        now = int(self._clock())
        while await self._vault.fan_out(self._wanting, now=now):
            pass
        if now >= self._next_sweep:
            self._next_sweep = now + 60
            if given_up := await self._vault.give_up(now - KEPT):
                log.error("webhook.given_up", events=given_up)
                self._metrics.deliveries.labels("given_up").inc(given_up)

    async def deliver(self, lane: str) -> int:
        """Tell one webhook what waits for it, in order, until it fails; how much it took."""
        if not await self._vault.deliveries(lane, now=int(self._clock()), limit=1):
            return 0
        work = f"webhook:{lane}"
        if not await self._vault.claim(work, holder=self._holder, seconds=CLAIM):
            return 0
        done = 0
        try:
            # Read again: whoever had the claim before may have told some of it.
            for delivery in await self._vault.deliveries(lane, now=int(self._clock()), limit=BATCH):
                if not await self._vault.claim(work, holder=self._holder, seconds=CLAIM):
                    break
                if not await self._tell(lane, delivery):
                    break
                done += 1
        finally:
            await self._vault.let_go(work, holder=self._holder)
        return done

    async def _tell(self, lane: str, delivery: Delivery) -> bool:
        webhook = self._webhooks[lane]
        message = await self._message(delivery.number)
        body = json.dumps(self.payload(message, delivery.event), sort_keys=True).encode()
        headers = dict(signed(webhook.secret, message=message, at=int(self._clock()), body=body))
        headers["Content-Type"] = "application/json"
        error, wait = await self._post(TokenRequest(webhook.url, headers, body))
        if error is None:
            await self._vault.delivered(lane, delivery.number)
            self._metrics.deliveries.labels("delivered").inc()
            return True
        pause = min(LONGEST, FIRST * 2 ** min(delivery.attempts, 20)) * (0.5 + self._jitter() / 2)
        until = math.ceil(self._clock() + max(pause, wait))
        await self._vault.put_off(lane, delivery.number, until=until, error=error)
        self._metrics.deliveries.labels("failed").inc()
        log.warning("webhook.not_delivered", webhook=lane, error=error, attempt=delivery.attempts + 1)
        return False

    async def _post(self, request: TokenRequest) -> tuple[str | None, float]:
        """None, or why it did not take it; and how long it asks to be left alone."""
        try:
            reply = await self._endpoint.send(request, deadline=DEADLINE)
        except (NeverSent, MaybeSent) as error:
            return error.reason, 0.0
        if 200 <= reply.status < 300:
            return None, 0.0
        asked = (reply.retry_after or "").strip()
        return f"http_{reply.status}", min(LONGEST, float(asked)) if asked.isdecimal() else 0.0

    def payload(self, message: str, event: Event) -> Mapping[str, Any]:
        """What a receiver reads. No token is in an event; and of an event only what is known goes out."""
        data = event.data
        return {
            "id": message,
            "type": event.kind,
            "timestamp": datetime.fromtimestamp(event.at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "data": {
                "environment": str(self._environment),
                "tenant": event.tenant,
                "user_id": event.user,
                "provider_id": event.provider,
                "account": event.account,
                "connection_id": event.connection_id,
                "severity": str(severity(event.kind, data)),
                "who_must_act": str(party(event.kind, data)),
                "advice": advice(data.get("reason")),
                **{name: data[name] for name in SHOWN if name in data},
            },
        }

    def _wanting(self, event: Event) -> Sequence[str]:
        if event.kind == "refresh.failed" and event.data.get("failures") != FAILING:
            return ()  # once in a row of failures; what ended the grant says its own kind
        return [lane for lane, webhook in self._webhooks.items() if _wanted(webhook.kinds, event.kind)]

    async def _message(self, number: int) -> str:
        if self._store is None:
            self._store = (await self._vault.store_name())[:12]
        return f"evt_{self._store}_{number}"


def identity(webhook: Webhook) -> str:
    """What stays the same when its secret or its kinds are changed. The URL may hold a key, and is not shown."""
    return hashlib.sha256(webhook.url.encode()).hexdigest()[:16]


def _wanted(kinds: Sequence[str], kind: str) -> bool:
    return any(kind == one or (one.endswith(".*") and kind.startswith(one[:-1])) for one in kinds)
