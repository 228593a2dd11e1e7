"""Everything that is done whether or not anybody asks: started together, stopped first, drained in order."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from functools import partial

from authproxy.broker import keeper, revocation, webhooks
from authproxy.broker.duty import Duty
from authproxy.broker.endpoint import Endpoint
from authproxy.broker.keeper import Keeper
from authproxy.broker.refresh import Refresher
from authproxy.broker.registrations import Registrations
from authproxy.broker.revocation import Revocations
from authproxy.broker.webhooks import Webhooks
from authproxy.core.config import Config
from authproxy.core.model import ConnectionKey
from authproxy.metrics import Metrics
from authproxy.store.vault import Vault

GRACE = webhooks.DEADLINE


class Background:
    """The duties of one process. None of them needs traffic, an agent or a user (I07)."""

    def __init__(
        self,
        vault: Vault,
        registrations: Registrations,
        endpoint: Endpoint,
        refresher: Refresher,
        config: Callable[[], Config],
        *,
        changed: Callable[[ConnectionKey], None],
        metrics: Metrics,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._metrics = metrics
        self._clock = clock
        settings = config()
        self.keeper = Keeper(vault, registrations, refresher, config, changed=changed, clock=clock)
        self.revocations = Revocations(vault, registrations, endpoint, clock=clock)
        self.webhooks = Webhooks(
            vault,
            endpoint,
            settings.webhooks,
            environment=settings.environment,
            metrics=metrics,
            clock=clock,
        )
        self.duties: list[Duty] = []
        if settings.refresh.background:
            longest = keeper.LONGEST_ROUND + settings.refresh.lease + settings.refresh.deadline
            self._add("keeper", self.keeper.round, keeper.EVERY, longest)
        self._add("revocations", self.revocations.round, revocation.EVERY, revocation.LONGEST_ROUND)
        self._add("events", self.webhooks.fan_out, webhooks.EVERY, webhooks.LONGEST_ROUND)
        for number, lane in enumerate(self.webhooks.lanes, 1):
            tell = partial(self.webhooks.deliver, lane)
            self._add(f"webhook_{number}", tell, webhooks.EVERY, webhooks.LONGEST_ROUND)

    def _add(self, name: str, work: Callable[[], Awaitable[object]], every: float, deadline: float) -> None:
        duty = Duty(name, work, every=every, deadline=deadline, metrics=self._metrics, clock=self._clock)
        self.duties.append(duty)

    def start(self) -> None:
        """Begin all of it."""
        for duty in self.duties:
            duty.start()

    def stop(self) -> None:
        """Begin nothing more, so that a provider has time for the requests that are still to be answered."""
        self.keeper.stop()
        for duty in self.duties:
            duty.stop()

    async def close(self) -> None:
        """After the last request, and before refreshes are drained: those that the keeper asked for are among them."""
        self.stop()
        await asyncio.gather(*(duty.close(GRACE) for duty in self.duties))
        await self.keeper.leave()
