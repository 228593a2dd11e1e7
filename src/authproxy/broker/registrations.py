"""The operator's clients and what is known of their providers, completed by discovery where an issuer says so."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping

import structlog

from authproxy.broker.endpoint import Endpoint, MaybeSent, NeverSent
from authproxy.broker.flight import FlightLost, Flights
from authproxy.core.config import ProviderChoice
from authproxy.core.errors import BadRequest, ProviderMisconfigured, ProviderUnavailable
from authproxy.core.providers import Client, Provider, client_of, provider_of, with_discovery

log = structlog.get_logger()

HOUR = 3600.0
PAUSE = 10.0  # after a discovery that failed


class Registrations:
    """Everything is read when first asked for: a provider whose registration is incomplete, or whose discovery
    document is out of reach, is that provider's trouble and never the process's (C11, J07)."""

    def __init__(
        self,
        choices: Mapping[str, ProviderChoice],
        endpoint: Endpoint,
        *,
        deadline: float = 10.0,
        tick: Callable[[], float] = time.monotonic,
    ) -> None:
        self._choices = choices
        self._endpoint = endpoint
        self._tick = tick
        self._deadline = deadline
        self._flights: Flights[str, Provider] = Flights(deadline=deadline + 1)
        self._known: dict[str, Provider] = {}
        self._clients: dict[str, Client] = {}
        self._discovered: dict[str, tuple[Provider, float]] = {}
        self._failed: dict[str, float] = {}

    def __contains__(self, name: object) -> bool:
        return name in self._choices

    def replace(self, choices: Mapping[str, ProviderChoice]) -> None:
        """Take over a reloaded configuration."""
        self._choices = choices
        for memory in (self._known, self._clients, self._discovered, self._failed):
            memory.clear()

    def choice(self, name: str) -> ProviderChoice:
        """What the operator said. Raises ProviderMisconfigured: a connection may outlive its configuration."""
        choice = self._choices.get(name)
        if choice is None:
            raise ProviderMisconfigured(
                f"{name} is not among the configured providers", provider=name, reason="not_configured"
            )
        return choice

    def asked(self, name: str) -> ProviderChoice:
        """The same for a name that a caller typed. Raises BadRequest."""
        if name not in self._choices:
            known = ", ".join(self._choices) or "none"
            raise BadRequest(f"there is no such provider; configured: {known}", reason="unknown_provider")
        return self._choices[name]

    def client(self, name: str) -> Client:
        """The operator's client. Raises ProviderMisconfigured when it is incomplete."""
        client = self._clients.get(name)
        if client is None:
            client = self._clients[name] = client_of(name, self.choice(name))
        return client

    def resting(self, name: str) -> Provider:
        """What is known without asking anybody."""
        if (found := self._discovered.get(name)) is not None:
            return found[0]
        known = self._known.get(name)
        if known is None:
            known = self._known[name] = provider_of(name, self.choice(name))
        return known

    async def provider(self, name: str) -> Provider:
        """All that is known, with what its issuer says of itself: at first use, then again every hour, while the
        old word still counts. Raises ProviderUnavailable or ProviderMisconfigured."""
        provider = self.resting(name)
        if self.choice(name).issuer is None:
            return provider
        found = self._discovered.get(name)
        now = self._tick()
        resting = now - self._failed.get(name, -HOUR) < PAUSE
        if found is not None:
            if now - found[1] >= HOUR and not resting:
                self._flights.begin(name, lambda: self._discover(name))
            return found[0]
        if resting:
            raise _unreachable(name)
        try:
            return await self._flights.share(name, lambda: self._discover(name))
        except FlightLost:
            raise _unreachable(name) from None

    async def _discover(self, name: str) -> Provider:
        choice = self.choice(name)
        base = provider_of(name, choice)
        assert base.issuer is not None
        url = base.issuer.rstrip("/") + "/.well-known/openid-configuration"
        try:
            reply = await self._endpoint.get(url, {"Accept": "application/json"}, deadline=self._deadline)
            document = json.loads(reply.body) if reply.status == 200 else None
        except (NeverSent, MaybeSent, ValueError) as error:
            document = None
            log.warning("discovery.failed", provider=name, error=type(error).__name__)
        if not isinstance(document, dict):
            self._failed[name] = self._tick()
            raise _unreachable(name)
        provider = with_discovery(base, document)
        if self._choices.get(name) is choice:  # not reloaded meanwhile
            self._discovered[name] = (provider, self._tick())
            self._failed.pop(name, None)
        return provider


def _unreachable(name: str) -> ProviderUnavailable:
    return ProviderUnavailable(
        f"{name} does not say where its endpoints are", provider=name, reason="discovery_failed"
    )
