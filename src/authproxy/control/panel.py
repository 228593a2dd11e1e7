"""Control: what a user or operator may ask, said once for every face and for the command line."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from authproxy.control.agents import Agents
from authproxy.control.approvals import Approvals
from authproxy.control.connections import Connections
from authproxy.control.consent import Consent
from authproxy.control.sessions import Sessions
from authproxy.control.tools import Tools
from authproxy.control.trail import Audit
from authproxy.control.users import Users
from authproxy.control.watch import Watch
from authproxy.core.errors import Overloaded, Refusal
from authproxy.core.model import State
from authproxy.metrics import Metrics
from authproxy.store.vault import Vault


@dataclass(slots=True)
class Control:
    """The rooms of the control plane, and how this process is."""

    consent: Consent
    connections: Connections
    watch: Watch
    agents: Agents
    sessions: Sessions
    users: Users
    tools: Tools
    approvals: Approvals
    audit: Audit
    metrics: Metrics
    vault: Vault
    early: Callable[[str], bool]
    clock: Callable[[], float]
    draining: bool = False

    async def ready(self) -> None:
        """Raises while requests should not be sent here. No provider's health has a say in it (J07)."""
        if self.draining:
            raise Overloaded("authproxy is shutting down", reason="draining")
        await self.vault.probe()

    async def healthy(self) -> bool:
        """The same as a word."""
        try:
            await self.ready()
        except Refusal:
            return False
        return True

    async def counts(self) -> Mapping[tuple[str, State], int]:
        """Connections by provider and state, counted in the store just now."""
        return await self.vault.counts()

    async def measure(self) -> None:
        """Set what is read from the store and not from traffic: an alert must fire in the still of the night (J03)."""
        now = self.clock()
        ages = await self.vault.ages()
        ends = [one.ends for name, one in ages.items() if one.ends is not None and self.early(name)]
        self.metrics.refresh_due.set(max(0.0, now - min(ends, default=now)))
        self.metrics.oldest_unrefreshed.set(
            max(0.0, now - min((one.obtained for one in ages.values()), default=now))
        )
        backlog = await self.vault.backlog()
        self.metrics.backlog.set(backlog.waiting)
        self.metrics.backlog_age.set(0.0 if backlog.oldest is None else max(0.0, now - backlog.oldest))
        self.metrics.revocations_pending.set(await self.vault.revocations_pending())
        self.metrics.sessions.set(await self.vault.live_sessions(int(now)))
        self.metrics.approvals.set(await self.vault.waiting_approvals(int(now)))
