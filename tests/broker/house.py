"""A broker with real parts: a store file, a sandbox provider on a socket, and a clock that can be pushed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import aiohttp

from authproxy.broker.disabled import DisabledUsers
from authproxy.broker.endpoint import Endpoint
from authproxy.broker.flows import Arrival, Flows
from authproxy.broker.grants import Grants
from authproxy.broker.keeper import Keeper
from authproxy.broker.offboarding import Offboarding
from authproxy.broker.outcome import Failpoint, no_failpoint
from authproxy.broker.refresh import Refresher
from authproxy.broker.registrations import Registrations
from authproxy.broker.revocation import Revocations
from authproxy.broker.tokens import Tokens
from authproxy.broker.webhooks import Webhooks
from authproxy.core import config
from authproxy.core.model import Caller, Connection, ConnectionKey, Environment, Flow, Usable
from authproxy.core.secret import Secret
from authproxy.metrics import Metrics
from authproxy.sandbox import Registration, Sandbox, Settings, approve
from authproxy.store.sealing import Keyring, generate_key
from authproxy.store.vault import Vault

PUBLIC = "https://auth.example"
CLIENT_ID = "broker-tests"
CLIENT_SECRET = "CANARY-client-secret-3b1f"
CALLER = Caller("default", "worker", "loopback", ("*",))
SCOPES = ("read", "write")


class Clock:
    """Wall and steady time, both as they are, both to be pushed."""

    def __init__(self) -> None:
        self.ahead = 0.0
        self.steady_ahead = 0.0

    def wall(self) -> float:
        return time.time() + self.ahead

    def steady(self) -> float:
        return time.monotonic() + self.steady_ahead

    def push(self, seconds: float) -> None:
        self.ahead += seconds
        self.steady_ahead += seconds

    async def pass_by(self, seconds: float) -> None:
        """A pause, over at once for whoever waits, and as long as it should be for everything that looks here."""
        self.push(seconds)
        await asyncio.sleep(0)


def registration() -> Registration:
    return Registration(
        CLIENT_ID,
        "broker tests",
        CLIENT_SECRET,
        redirect_uris=(f"{PUBLIC}/callback/acme", f"{PUBLIC}/callback/other"),
    )


def choice(base: str, **fields: Any) -> config.ProviderChoice:
    values: dict[str, Any] = {
        "client_id": CLIENT_ID,
        "client_secret": Secret(CLIENT_SECRET),
        "endpoints": config.Endpoints(
            authorization=f"{base}/authorize",
            token=f"{base}/token",
            revocation=f"{base}/revoke",
            userinfo=f"{base}/userinfo",
        ),
        "api_hosts": ("api.acme.example",),
    }
    return config.ProviderChoice(**(values | fields))


def configuration(base: str, **sections: Any) -> config.Config:
    values: dict[str, Any] = {
        "version": 1,
        "public_url": PUBLIC,
        "providers": {"acme": choice(base), "other": choice(base)},
        "refresh": config.Refresh(backoff=1.0, forced_interval=30),
        "timeouts": config.Timeouts(token_wait=20.0),
    }
    return config.Config(**(values | sections))


@dataclass
class Broker:
    """One process's broker on the shared store."""

    vault: Vault
    clock: Clock
    settings: config.Config
    failpoint: Failpoint = no_failpoint
    metrics: Metrics = field(default_factory=Metrics)

    def __post_init__(self) -> None:
        self.endpoint = Endpoint(deadline=self.settings.refresh.deadline)
        self.registrations = Registrations(self.settings.providers, self.endpoint, tick=self.clock.steady)
        self.refresher = Refresher(
            self.vault,
            self.registrations,
            self.endpoint,
            self.settings.refresh,
            metrics=self.metrics,
            clock=self.clock.wall,
            tick=self.clock.steady,
            jitter=lambda: 0.5,
            failpoint=self.failpoint,
        )
        self.flows = Flows(
            self.vault,
            self.registrations,
            self.endpoint,
            lambda: self.settings,
            changed=lambda key: self.tokens.forget_key(key),
            clock=self.clock.wall,
            failpoint=self.failpoint,
        )
        self.disabled = DisabledUsers(self.vault, lambda: self.settings.refresh.leash, tick=self.clock.steady)
        self.tokens = Tokens(
            self.vault,
            self.registrations,
            self.refresher,
            lambda: self.settings,
            link_for=self.flows.link_for,
            disabled=self.disabled,
            clock=self.clock.wall,
            tick=self.clock.steady,
        )
        self.keeper = Keeper(
            self.vault,
            self.registrations,
            self.refresher,
            lambda: self.settings,
            changed=lambda key: self.tokens.forget_key(key),
            clock=self.clock.wall,
            tick=self.clock.steady,
            pause=self.clock.pass_by,
        )
        self.webhooks = Webhooks(
            self.vault,
            self.endpoint,
            self.settings.webhooks,
            environment=self.settings.environment,
            metrics=self.metrics,
            clock=self.clock.wall,
            jitter=lambda: 0.5,
        )
        self.revocations = Revocations(
            self.vault, self.registrations, self.endpoint, clock=self.clock.wall, jitter=lambda: 0.5
        )
        self.grants = Grants(
            self.vault,
            self.registrations,
            self.endpoint,
            self.refresher,
            changed=lambda key: self.tokens.forget_key(key),
            clock=self.clock.wall,
        )

        self.offboarding = Offboarding(
            self.vault,
            self.registrations,
            self.endpoint,
            self.disabled,
            changed=lambda key: self.tokens.forget_key(key),
            clock=self.clock.wall,
        )

    def configure(self, **sections: Any) -> None:
        """A reload."""
        self.settings = replace(self.settings, **sections)
        self.registrations.replace(self.settings.providers)

    async def token(self, user: str = "alice", scopes: tuple[str, ...] = ("read",)) -> Usable:
        return await self.tokens.token(key_of(user), scopes=scopes, agent="worker")

    async def close(self) -> None:
        await self.tokens.drain(5.0)
        await self.flows.drain(5.0)
        await self.refresher.drain(5.0)
        await self.endpoint.close()


def key_of(user: str = "alice", provider: str = "acme") -> ConnectionKey:
    return ConnectionKey("default", user, provider)


class House:
    """The store's file, the sandbox, and any number of brokers."""

    def __init__(self, path: Path, sandbox: Sandbox, keys: str, clock: Clock) -> None:
        self.path = path
        self.sandbox = sandbox
        self.keys = keys
        self.clock = clock
        self.session = aiohttp.ClientSession()
        self.brokers: list[Broker] = []
        self.settings = configuration(sandbox.base_url)

    async def broker(
        self,
        *,
        failpoint: Failpoint = no_failpoint,
        vault: Vault | None = None,
        clock: Clock | None = None,
        **sections: Any,
    ) -> Broker:
        clock = clock or self.clock
        vault = vault or await self.open(clock)
        broker = Broker(vault, clock, replace(self.settings, **sections), failpoint)
        self.brokers.append(broker)
        return broker

    async def open(self, clock: Clock | None = None) -> Vault:
        return await Vault.open(
            f"sqlite:///{self.path}",
            keyring=Keyring.parse(self.keys),
            environment=Environment.DEVELOPMENT,
            clock=(clock or self.clock).wall,
        )

    async def leave(
        self, broker: Broker, flow: Flow, *, as_user: str, decision: Any = "allow"
    ) -> tuple[str, str]:
        """Presses the button and plays the person at the provider: the callback's URL, and the browser's cookie."""
        departure = await broker.flows.go(flow.id, None)
        return await approve(self.session, departure.url, as_user, decision), departure.cookie

    async def arrive(self, broker: Broker, callback: str, cookie: str | None) -> Arrival:
        parts = urlsplit(callback)
        return await broker.flows.finish(
            parts.path.rsplit("/", 1)[1], dict(parse_qsl(parts.query, keep_blank_values=True)), cookie
        )

    async def connect(
        self,
        broker: Broker,
        user: str = "alice",
        *,
        as_user: str | None = None,
        scopes: tuple[str, ...] = SCOPES,
        provider: str = "acme",
    ) -> Connection:
        """A whole consent."""
        flow = await broker.flows.start(
            caller=CALLER, user=user, provider=provider, scopes=scopes, again=True
        )
        callback, cookie = await self.leave(broker, flow, as_user=as_user or user)
        arrival = await self.arrive(broker, callback, cookie)
        assert arrival.flow.status == "completed", arrival.flow
        found = await broker.vault.find(key_of(user, provider))
        assert found is not None
        return found

    async def row(self, broker: Broker, user: str = "alice") -> Connection:
        found = await broker.vault.find(key_of(user))
        assert found is not None
        return found

    async def kinds(self, broker: Broker, user: str = "alice") -> list[str]:
        return [event.kind for event in await broker.vault.timeline(key_of(user))]

    async def close(self) -> None:
        for broker in self.brokers:
            await broker.close()
        for vault in {id(broker.vault): broker.vault for broker in self.brokers}.values():
            await vault.close()
        await self.session.close()
        await self.sandbox.close()


@asynccontextmanager
async def house_at(path: Path, **switches: Any) -> AsyncIterator[House]:
    clock = Clock()
    users = ("alice", "bob", "carol", "dave", *(f"user{n}" for n in range(200)))
    sandbox = Sandbox(
        Settings(
            clients=(registration(),),
            users=users,
            switches={"rotate": True, "revoke_family_on_reuse": True} | switches,
        ),
        clock=clock.wall,
    )
    await sandbox.start(port=0)
    house = House(path / "store.db", sandbox, generate_key(), clock)
    try:
        yield house
    finally:
        await house.close()
