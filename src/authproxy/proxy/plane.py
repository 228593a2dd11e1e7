"""The data plane of one process: put together here, and nowhere else; again, from another configuration, as it runs."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from authproxy.broker.disabled import DisabledUsers
from authproxy.broker.registrations import Registrations
from authproxy.broker.tokens import Tokens
from authproxy.callers.desk import Desk
from authproxy.core.config import Config
from authproxy.core.model import Usable
from authproxy.core.routes import RouteTable
from authproxy.egress import EgressGuard
from authproxy.metrics import Metrics
from authproxy.proxy.current import Current
from authproxy.proxy.lasting import Lasting
from authproxy.proxy.limits import Crowd, Turnstile
from authproxy.proxy.pauses import Pauses
from authproxy.proxy.record import request_ids
from authproxy.proxy.tunnel import Tunnels
from authproxy.proxy.upstream import Upstream
from authproxy.proxy.walk import Walk
from authproxy.store.audit import Trail

if TYPE_CHECKING:
    from authproxy.proxy.authority import Authority


class Plane:
    """`current` is what listeners serve with."""

    def __init__(
        self,
        config: Config,
        desk: Desk,
        routes: RouteTable,
        *,
        providers: Registrations,
        tokens: Tokens,
        trail: Trail,
        metrics: Metrics,
        guard: EgressGuard,
        authority: Callable[[], Awaitable[Authority]],
        standing: Callable[[Usable], Awaitable[None]],
        disabled: DisabledUsers,
        own_authorities: Callable[[], frozenset[tuple[str, int]]],
        clock: Callable[[], float],
    ) -> None:
        self._providers = providers
        self._tokens = tokens
        self._trail = trail
        self._metrics = metrics
        self._guard = guard
        self._authority = authority
        self._lasting = Lasting(config.refresh.leash, standing, disabled.barred)
        self._disabled = disabled
        self._own_authorities = own_authorities
        self._clock = clock
        self._new_id = request_ids(secrets.token_hex(10))
        self._pseudonym = b"authproxy-" + secrets.token_hex(6).encode()
        self.crowd = Crowd(config.limits)
        self._turnstile = Turnstile(config.limits)
        self._pauses = Pauses(config.limits.longest_pause, providers.resting, metrics, clock=clock)
        self._upstreams = [Upstream(guard, limits=config.limits, timeouts=config.timeouts)]
        self.current = Current(self._walk(config, desk, routes), routes)

    def take(self, config: Config, desk: Desk, routes: RouteTable, *, redial: bool) -> None:
        """Serve new requests by this configuration. `redial`: on new connections, since those that stand were dialled
        under other rules; they serve what is under way, and then nobody."""
        if redial:
            self._upstreams.append(Upstream(self._guard, limits=config.limits, timeouts=config.timeouts))
        self.current.turn(self._walk(config, desk, routes), routes)

    async def close(self) -> None:
        """Close all connections to upstreams."""
        await self._lasting.close()
        for upstream in self._upstreams:
            await upstream.close()

    def _walk(self, config: Config, desk: Desk, routes: RouteTable) -> Walk:
        self._turnstile.take(config.providers, config.routes, {one.name: one.provider for one in routes})
        return Walk(
            config,
            desk=desk,
            routes=routes,
            providers=self._providers,
            tokens=self._tokens,
            trail=self._trail,
            upstream=self._upstreams[-1],
            metrics=self._metrics,
            tunnels=Tunnels(
                config,
                routes=routes,
                authority=self._authority,
                guard=self._guard,
                demand=self._disabled.demand,
                own_authorities=self._own_authorities,
            ),
            lasting=self._lasting,
            turnstile=self._turnstile,
            pauses=self._pauses,
            own_authorities=self._own_authorities,
            new_id=self._new_id,
            pseudonym=self._pseudonym if config.egress.via else None,
            clock=self._clock,
        )
