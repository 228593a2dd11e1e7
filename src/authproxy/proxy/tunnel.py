"""CONNECT: ends TLS with a local CA and feeds the same walk; or passes bytes on unseen, where that is configured.

Whoever opens a tunnel has been identified before the first byte of TLS. The host of the CONNECT decides which
requests may be inside: SNI and Host must name it too. For a host that a route names TLS is always ended, so no
request reaches it around the route's rules.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TYPE_CHECKING, cast

import structlog

from authproxy.core.config import Config
from authproxy.core.errors import BadRequest, NoRoute, PolicyDenied
from authproxy.core.message import RequestFields, authority_of
from authproxy.core.origin import canonical_host
from authproxy.core.routes import RouteTable
from authproxy.egress import EgressGuard
from authproxy.proxy.dial import connected
from authproxy.proxy.exchange import Origin, late
from authproxy.proxy.place import Inside
from authproxy.proxy.record import Entry
from authproxy.proxy.relay import Reply
from authproxy.proxy.server import Incoming
from authproxy.proxy.splice import Line, far_line, splice

if TYPE_CHECKING:  # what certificates are made with is large, and opened when the first is needed
    from authproxy.proxy.authority import Authority

log = structlog.get_logger()

VIA = "connect"
_ESTABLISHED = b"HTTP/1.1 200 Connection established\r\nX-Request-ID: %b\r\n\r\n"
_CLOSING = 5.0  # seconds that an agent has to answer the end of TLS


class Tunnels:
    """Opens tunnels for callers who have been identified."""

    def __init__(
        self,
        config: Config,
        *,
        routes: RouteTable,
        authority: Callable[[], Awaitable[Authority]],
        guard: EgressGuard,
        demand: Callable[[str, str], Awaitable[None]],
        own_authorities: Callable[[], frozenset[tuple[str, int]]],
    ) -> None:
        """`demand` raises where a tenant's user is disabled."""
        self._settings = config.tunnel
        self._timeouts = config.timeouts
        self._routes = routes
        self._authority = authority
        self._guard = guard
        self._demand = demand
        self._own_authorities = own_authorities

    async def open(
        self, incoming: Incoming, fields: RequestFields, entry: Entry, reply: Reply, inside: Inside
    ) -> None:
        """Answer a CONNECT. Returns when the tunnel is somebody else's, or at its end where bytes are passed on."""
        self._demand_sane(incoming, fields, inside)
        if inside.user is not None:
            await self._demand(entry.tenant, inside.user)
        host = canonical_host(inside.host)
        entry.host = host or inside.host
        if host is not None and self._routes.names_host(host, inside.port):
            await self._intercept(incoming, entry, reply, inside._replace(host=host))
        elif host is None or self._settings.unrouted == "refuse":
            raise NoRoute("no route has this host", reason="host", status=403)
        elif inside.port not in self._settings.ports:
            raise PolicyDenied("bytes are not passed on to this port (tunnel.ports)", reason="tunnel_port")
        elif inside.limited:
            raise PolicyDenied("this session may use its routes only", reason="session")
        else:
            await self._pass(incoming, entry, reply, Origin("http", host, inside.port))

    def _demand_sane(self, incoming: Incoming, fields: RequestFields, inside: Inside) -> None:
        place = incoming.client.place
        if place.route is not None or place.tunnel is not None:
            raise PolicyDenied("CONNECT is not served here", reason="connect", status=405)
        if fields.chunked or fields.content_length:
            raise BadRequest("CONNECT has no body", reason="framing")
        own = self._own_authorities()
        if (inside.host, inside.port) in own:
            raise PolicyDenied("this is authproxy itself: put its host into NO_PROXY", reason="loop")
        for value in fields.hosts:
            host, port = authority_of(value)
            # Some clients name the proxy here; what they ask for is in the target (RFC 9112 §3.2.2).
            if (host, port or 443) != (inside.host, inside.port) and (host, port) not in own:
                raise BadRequest("Host and the CONNECT target differ", reason="host")

    async def _intercept(self, incoming: Incoming, entry: Entry, reply: Reply, inside: Inside) -> None:
        authority = await self._authority()
        context = await authority.context(inside.host)
        client = incoming.client
        transport, early = client.tunnel()
        _establish(reply)
        gate = _Gate()
        try:
            secured = await self._secured(transport, early, gate, context)
        except OSError as error:
            # Told here, since the agent often only says "certificate verify failed", or nothing at all.
            entry.code = "handshake_failed"
            reason = (error.reason or "tls").lower() if isinstance(error, ssl.SSLError) else "closed_or_late"
            log.warning("tunnel.handshake_failed", host=inside.host, agent=entry.agent, reason=reason)
            return
        finally:
            client.leave()
        inside = inside._replace(asked=authority.asked(secured.get_extra_info("ssl_object")))
        gate.open(secured, client.inner(replace(client.place, secure=True, tunnel=inside)))

    async def _secured(
        self, transport: asyncio.Transport, early: bytes, gate: _Gate, context: ssl.SSLContext
    ) -> asyncio.Transport:
        loop = asyncio.get_running_loop()
        starting = loop.create_task(
            loop.start_tls(
                transport,
                gate,
                context,
                server_side=True,
                ssl_handshake_timeout=self._timeouts.header,
                ssl_shutdown_timeout=_CLOSING,
            )
        )
        if early:
            await asyncio.sleep(0)  # start_tls has its protocol in place after its first step
            _feed(transport.get_protocol(), early)
        secured = await starting
        if secured is None:
            raise ConnectionResetError("the agent is gone")
        return secured

    async def _pass(self, incoming: Incoming, entry: Entry, reply: Reply, origin: Origin) -> None:
        far = far_line(origin)
        try:
            async with asyncio.timeout(self._timeouts.connect):
                sock = await connected(origin, self._guard)
                transport, _ = await asyncio.get_running_loop().create_connection(
                    lambda: far.protocol, sock=sock
                )
                far.connected(transport)
        except TimeoutError:
            raise late(origin, "connect") from None
        try:
            _establish(reply)
            agent = await Line.taken_over(incoming.client)

            def up(size: int) -> None:
                entry.bytes_in += size

            def down(size: int) -> None:
                entry.bytes_out += size

            try:
                await splice(agent, far, origin, idle=self._settings.idle, up=up, down=down)
            finally:
                agent.close()
                incoming.client.leave()
        finally:
            far.close()


def _establish(reply: Reply) -> None:
    entry = reply.entry
    reply.write(_ESTABLISHED % entry.request_id.encode("ascii"))
    entry.status = 200


def _feed(protocol: asyncio.BaseProtocol, data: bytes) -> None:
    """Hand bytes to a protocol as if they had just been read."""
    reader = cast(asyncio.BufferedProtocol, protocol)  # what asyncio and uvloop put there for TLS
    view = memoryview(data)
    while view:
        buffer = memoryview(reader.get_buffer(len(view)))
        size = min(len(buffer), len(view))
        buffer[:size] = view[:size]
        reader.buffer_updated(size)
        view = view[size:]


class _Gate(asyncio.Protocol):
    """Stands behind TLS until the protocol that is meant to is there, and keeps what comes meanwhile."""

    def __init__(self) -> None:
        self._early: list[bytes] = []
        self._lost = False

    def data_received(self, data: bytes) -> None:
        self._early.append(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost = True

    def open(self, transport: asyncio.Transport, protocol: asyncio.Protocol) -> None:
        """From here on all comes to the protocol."""
        if self._lost:
            return
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
        for piece in self._early:
            protocol.data_received(piece)
