"""Control: what a user or operator may ask, said once for every face and for the command line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from authproxy.control.agents import Agents
from authproxy.control.connections import Connections
from authproxy.control.consent import Consent
from authproxy.control.trail import Audit
from authproxy.core.errors import Overloaded, Refusal
from authproxy.core.model import State
from authproxy.metrics import Metrics
from authproxy.store.vault import Vault


@dataclass(slots=True)
class Control:
    """The rooms of the control plane, and how this process is."""

    consent: Consent
    connections: Connections
    agents: Agents
    audit: Audit
    metrics: Metrics
    vault: Vault
    draining: bool = False

    async def ready(self) -> None:
        """Raises while requests should not be sent here. No provider's health has a say in it (J07)."""
        if self.draining:
            raise Overloaded("authproxy is shutting down", reason="draining")
        await self.vault.counts()

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
