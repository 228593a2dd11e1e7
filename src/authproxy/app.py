"""The one place that names concrete classes; opens what must be opened, and closes it in the right order."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable, Coroutine, Mapping
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, Self

import structlog

from authproxy.broker.background import Background
from authproxy.broker.disabled import DisabledUsers
from authproxy.broker.endpoint import Endpoint
from authproxy.broker.flows import Flows
from authproxy.broker.grants import Grants
from authproxy.broker.offboarding import Offboarding
from authproxy.broker.refresh import Refresher
from authproxy.broker.registrations import Registrations
from authproxy.broker.sweeping import sweep
from authproxy.broker.tokens import Tokens
from authproxy.callers.api_key import ApiKeys
from authproxy.callers.desk import Desk, Kind
from authproxy.callers.loopback import Loopback
from authproxy.control.agents import Agents
from authproxy.control.approvals import Approvals
from authproxy.control.connections import Connections
from authproxy.control.consent import Consent
from authproxy.control.panel import Control
from authproxy.control.sessions import Sessions
from authproxy.control.tool_grants import ToolGrants
from authproxy.control.tool_policy import ToolPolicy
from authproxy.control.tools import Tools
from authproxy.control.trail import Audit
from authproxy.control.users import Users
from authproxy.control.watch import Watch
from authproxy.core.address import Address
from authproxy.core.config import CallerChoice, Config
from authproxy.core.errors import ProviderMisconfigured, StoreUnavailable
from authproxy.core.model import DEFAULT_TENANT, Event
from authproxy.core.routes import RouteTable
from authproxy.doors import doors
from authproxy.egress import EgressGuard, GuardedResolver
from authproxy.faces.edge import Names
from authproxy.faces.inquiry import Inquiries
from authproxy.listening import Handed, listen_control, listen_data
from authproxy.metrics import Metrics
from authproxy.proxy.inner import Inner
from authproxy.store.audit import Trail
from authproxy.store.epoch import Epoch
from authproxy.store.keys import keys_file, load_keyring
from authproxy.store.keywatch import KeyWatch
from authproxy.store.sqlite import sqlite_path
from authproxy.store.vault import Vault
from authproxy.tools.loading import toolbox
from authproxy.tools.running import Runner

if TYPE_CHECKING:
    from authproxy.proxy.authority import Authority
    from authproxy.proxy.place import Place
    from authproxy.proxy.plane import Plane

__all__ = ["Address", "App"]

log = structlog.get_logger()


class App:
    """Everything that runs, by name. `open` makes the parts; `run` and the `listen_…` methods set them going."""

    def __init__(self, config: Config, vault: Vault, *, clock: Callable[[], float]) -> None:
        self.config = config
        self.vault = vault
        self.clock = clock
        self.metrics = Metrics()
        self.guard = EgressGuard(config.egress.allow)
        self.endpoint = Endpoint(
            resolver=GuardedResolver(self.guard), check=self.guard.check, deadline=config.refresh.deadline
        )
        self.registrations = Registrations(config.providers, self.endpoint)
        self.refresher = Refresher(
            vault, self.registrations, self.endpoint, config.refresh, metrics=self.metrics, clock=clock
        )
        self.disabled = DisabledUsers(vault, lambda: self.config.refresh.leash)
        self.flows = Flows(
            vault,
            self.registrations,
            self.endpoint,
            lambda: self.config,
            changed=lambda key: self.tokens.forget_key(key),
            clock=clock,
        )
        self.tokens = Tokens(
            vault,
            self.registrations,
            self.refresher,
            lambda: self.config,
            link_for=self.flows.link_for,
            disabled=self.disabled,
            clock=clock,
        )
        self.grants = Grants(
            vault,
            self.registrations,
            self.endpoint,
            self.refresher,
            changed=self.tokens.forget_key,
            clock=clock,
        )
        at = (vault, self.registrations, self.endpoint, self.disabled)
        self.offboarding = Offboarding(*at, changed=self.tokens.forget_key, clock=clock)
        self.background = Background(
            vault,
            self.registrations,
            self.endpoint,
            self.refresher,
            lambda: self.config,
            changed=self.tokens.forget_key,
            metrics=self.metrics,
            clock=clock,
        )
        self.trail = Trail(
            vault,
            queue=config.audit.queue,
            flush=config.audit.flush,
            durability=config.audit.durability,
            clock=clock,
        )
        self.metrics.watch_audit(lambda: self.trail.waiting)
        self.routes = RouteTable.build(config)
        self.names = Names(config.public_url)
        self.agent_keys: ApiKeys | None = None
        self.desk = Desk([self._kind(choice) for choice in config.identity.callers])
        self.control = self._control()
        self._stack = AsyncExitStack()
        self.handed: Handed = {}  # listening sockets that are shared with other processes
        self._inquiries: Inquiries | None = None
        self.own: set[tuple[str, int]] = set()
        self.keywatch: KeyWatch | None = None
        self.epoch = Epoch(vault.backend, None)
        self._plane: Plane | None = None
        self._knowing: asyncio.Task[None] | None = None
        self._authority: Authority | None = None
        self._authority_lock = asyncio.Lock()

    @classmethod
    async def open(
        cls,
        config: Config,
        *,
        store: str,
        environ: Mapping[str, str],
        announce: Callable[[str], None],
        clock: Callable[[], float] = time.time,
    ) -> Self:
        """Open the store with its keys and make all parts. Nothing listens or runs yet."""
        path = sqlite_path(store) if store.startswith("sqlite:") else None
        keyring = load_keyring(
            environ,
            store_path=path,
            environment=config.environment,
            announce=announce,
        )
        vault = await Vault.open(store, keyring=keyring, environment=config.environment, clock=clock)
        try:
            app = cls(config, vault, clock=clock)
        except BaseException:
            await vault.close()
            raise
        app.epoch = Epoch(vault.backend, None if path is None else path.with_name(path.name + ".mark"))
        if keyring.kept:
            app.keywatch = KeyWatch(vault, keyring, keys_file(environ, path), told=app.note)
        # Last in, first out: what stands at the top here is closed last.
        app._stack.push_async_callback(vault.close)
        app._stack.push_async_callback(app.endpoint.close)
        app._stack.push_async_callback(app._close_trail)
        app._stack.push_async_callback(app._drain_refreshes)
        return app

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    # --- life

    async def run(self, *, restored: bool = False) -> None:
        """Begin the trail, know the agents, and keep both current. `restored`: the store is an older copy."""
        await self.epoch.begin(int(self.clock()), said=restored, told=self.note)
        await self.trail.start()
        await self.disabled.refresh()
        self._keep(self.disabled.run())
        if self.agent_keys is not None:
            await self.agent_keys.refresh()
            self._knowing = self._task(self.agent_keys.run())
        self._keep(sweep(self.flows, self.vault, self.clock))
        if self.keywatch is not None:
            self._keep(self.keywatch.run())
        self._keep(self.epoch.run())
        self._stack.push_async_callback(self.background.close)
        self.background.start()
        self.metrics.reload_success.set(1)

    async def listen_control(self, address: Address) -> int:
        """Serve the control plane; returns the port that was bound."""
        self._keep(self.control.tools.prepare())
        self._data()  # what tools send goes through it, and it closes after this listener
        inquiries = Inquiries(self.desk, self.names, self.disabled.demand)
        routes = doors(self.control, self.flows, inquiries, lambda: self.config, self._stack)
        bound = await listen_control(routes, self.names, address, self.config, self._stack, self.handed)
        self._inquiries = inquiries
        return self._bound(bound)

    async def listen_data(self, address: Address) -> int:
        """Serve the data plane, there and where routes have listeners of their own; returns the port bound there."""
        from authproxy.proxy.place import Place

        for name, choice in self.config.routes.items():
            if choice.listen is not None:
                place = Place(route=self.routes.get(name), secure=choice.tls)
                await self._listen_data(Address.parse(choice.listen), place)
        return await self._listen_data(address, Place(secure=self.config.listener.tls))

    async def _listen_data(self, address: Address, place: Place) -> int:
        tls = (await self.authority()).listener(*self.config.listener.names) if place.secure else None
        data = self._data()
        at = (data.current, place, address, self.config, self._stack, tls, self.handed, data.crowd)
        return self._bound(await listen_data(*at))

    def _data(self) -> Plane:
        """The data plane; made when it is first needed, and closed after all that serves with it."""
        from authproxy.proxy.plane import Plane

        if self._plane is None:
            self._plane = Plane(
                self.config,
                self.desk,
                self.routes,
                providers=self.registrations,
                tokens=self.tokens,
                trail=self.trail,
                metrics=self.metrics,
                guard=self.guard,
                authority=self.authority,
                standing=self.tokens.standing,
                disabled=self.disabled,
                own_authorities=lambda: frozenset(self.own),
                clock=self.clock,
            )
            self._stack.push_async_callback(self._plane.close)
        return self._plane

    async def authority(self) -> Authority:
        """The local certificate authority; opened when it is first needed."""
        from authproxy.proxy.authority import Authority

        async with self._authority_lock:
            if self._authority is None:
                self._authority = await Authority.open(self.vault, self.certified_names(), clock=self.clock)
            return self._authority

    def certified_names(self) -> frozenset[str]:
        """The hosts that the local authority may speak for: those of routes, and those of listeners."""
        return self.routes.https_names().union(self.config.listener.names)

    def may_certify(self, config: Config) -> bool:
        """Whether the local authority stays as it is, or no listener's certificate is of it."""
        names = RouteTable.build(config).https_names().union(config.listener.names)
        secure = config.listener.tls or any(one.listen and one.tls for one in config.routes.values())
        return not secure or names == self.certified_names()

    async def take(self, config: Config) -> None:
        """Replace the configuration as a whole: what can fail comes first, and then nothing waits until all is
        swapped. Requests under way stay with what they began with. Raises StoreUnavailable, and nothing changed."""
        before, known, desk = self.config, self.agent_keys, self.desk
        routes = RouteTable.build(config)
        if config.identity.callers != before.identity.callers:
            self.agent_keys = None
            desk = Desk([self._kind(choice) for choice in config.identity.callers])
            fresh, self.agent_keys = self.agent_keys, known
            if fresh is not None:
                await fresh.refresh()
            known = fresh
        if known is not self.agent_keys:
            if self._knowing is not None:
                self._knowing.cancel()
            self._knowing = None if known is None else self._task(known.run())
        certified = self.certified_names()
        self.config, self.routes, self.desk, self.agent_keys = config, routes, desk, known
        if certified != self.certified_names():
            self._authority = None  # another root, as after a restart: agents must be given it
        if config.providers != before.providers:
            self.registrations.replace(config.providers)
            self.tokens.forget_all()
        if config.egress != before.egress:
            self.guard.allow_only(config.egress.allow)
        self.control.consent = self._consent()
        if self._inquiries is not None:
            self._inquiries.recognise_by(desk)
        if self._plane is not None:
            self._plane.take(config, desk, routes, redial=config.egress != before.egress)
        await self.control.tools.prepare()

    async def close(self) -> None:
        """Stop accepting, drain requests, drain refreshes, flush the trail, close the store."""
        self.control.draining = True
        self.background.stop()
        if self._inquiries is not None:
            self._inquiries.close()
        await self._stack.aclose()

    async def note(self, kind: str, data: Mapping[str, Any]) -> None:
        """Put something about this installation as a whole into the trail."""
        await self.vault.note([Event(kind, int(self.clock()), DEFAULT_TENANT, data=data)])

    # --- parts

    def _kind(self, choice: CallerChoice) -> Kind:
        """One line for each kind of caller."""
        match choice.kind:
            case "loopback":
                return Loopback(choice)
            case "api_key":
                leash = self.config.refresh.leash
                self.agent_keys = ApiKeys(
                    choice,
                    lambda: self.vault.agents(None),
                    self.vault.sessions_by_digest,
                    leash=leash,
                    clock=self.clock,
                )
                return self.agent_keys

    async def _agents_changed(self) -> None:
        if self.agent_keys is not None:
            await self.agent_keys.refresh()

    async def _session_changed(self, digest: str) -> None:
        if self.agent_keys is not None:
            await self.agent_keys.reread(digest)

    def _consent(self) -> Consent:
        scopes: dict[str, tuple[str, ...]] = {}
        for route in self.routes:
            known = scopes.get(route.provider, ())
            scopes[route.provider] = tuple(dict.fromkeys([*known, *route.scopes]))
        demand = self.disabled.demand
        return Consent(self.flows, self.vault, self.registrations, demand=demand, route_scopes=scopes)

    def _control(self) -> Control:
        approvals = Approvals(
            self.vault,
            life=lambda: self.config.tools.approval_ttl,
            clock=self.clock,
            closing=lambda: self.control.draining,
        )
        return Control(
            consent=self._consent(),
            connections=Connections(self.vault, self.grants, clock=self.clock),
            watch=Watch(self.vault),
            agents=Agents(self.vault, changed=self._agents_changed, clock=self.clock),
            sessions=Sessions(
                self.vault,
                routes=lambda: {route.name for route in self.routes},
                accepted=lambda: self.agent_keys is not None,
                changed=self._session_changed,
                metrics=self.metrics,
                clock=self.clock,
            ),
            tools=self._tools(approvals),
            approvals=approvals,
            users=Users(self.vault, self.offboarding),
            audit=Audit(self.vault, self.trail),
            metrics=self.metrics,
            vault=self.vault,
            early=self._early,
            clock=self.clock,
        )

    def _tools(self, approvals: Approvals) -> Tools:
        limits = lambda: self.config.tools  # noqa: E731 - asked with every call
        grants = ToolGrants(self.vault, self.registrations, lambda: self.routes)
        return Tools(
            toolbox,
            Runner(Inner(lambda: self._data().current), limits, clock=self.clock),
            limits=limits,
            consent=lambda: self.control.consent,
            routes=lambda: self.routes,
            registrations=self.registrations,
            vault=self.vault,
            trail=self.trail,
            metrics=self.metrics,
            gates=[ToolPolicy(limits, approvals, grants.of)],
            clock=self.clock,
        )

    def _early(self, provider: str) -> bool:
        """Whether its tokens should have been renewed before they end."""
        try:
            return self.registrations.resting(provider).early
        except ProviderMisconfigured:
            return False

    def _keep(self, work: Coroutine[Any, Any, None]) -> None:
        _ = self._task(work)

    def _task(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        task.add_done_callback(_ended)

        async def end() -> None:
            task.cancel()
            await asyncio.wait([task])

        self._stack.push_async_callback(end)
        return task

    async def _drain_refreshes(self) -> None:
        refresh = self.config.refresh
        await self.flows.drain(refresh.deadline)
        await self.tokens.drain(self.config.timeouts.token_wait)
        lost = await self.refresher.drain(refresh.lease + refresh.deadline)
        if lost:
            log.error("rotations_lost", count=lost)

    async def _close_trail(self) -> None:
        try:
            await self.trail.close()
        except StoreUnavailable:
            log.error("audit_not_flushed", waiting=self.trail.waiting)

    def _bound(self, addresses: list[Any]) -> int:
        """Remember our own ports, so that no route leads back into us."""
        ports = {name[1] for name in addresses if isinstance(name, tuple)}
        for port in ports:
            self.own |= {
                (host, port) for host in ("127.0.0.1", "localhost", "::1", socket.gethostname().lower())
            }
        self.guard.own(sorted({port for _, port in self.own}))
        return min(ports, default=0)


def _ended(task: asyncio.Task[None]) -> None:
    """What works in the background ends with the process and never before; if it does, the log shouts (A27)."""
    if not task.cancelled() and (error := task.exception()) is not None:
        log.critical("background_work_ended", error=type(error).__name__, exc_info=error)
