"""The way out: pooled connections, streamed both ways, nothing sent twice that must not be."""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable

from authproxy.core.config import Limits, Timeouts
from authproxy.core.errors import UpstreamUnreachable
from authproxy.egress import EgressGuard
from authproxy.proxy.answer import Answer
from authproxy.proxy.connection import Connection
from authproxy.proxy.dial import client_context, dial
from authproxy.proxy.exchange import Exchange, Origin, Patience, Timing
from authproxy.proxy.pool import Pool

__all__ = ["Answer", "Exchange", "Origin", "Upstream"]

_TIMINGS = 1024


class Upstream:
    """Sends exchanges and gives back answers.

    `guard` judges every address, `tls` is for private certificate authorities (by default the system's store),
    `clock` is monotonic. Made inside or outside a running loop; used in one.
    """

    def __init__(
        self,
        guard: EgressGuard,
        *,
        limits: Limits,
        timeouts: Timeouts,
        tls: ssl.SSLContext | None = None,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self._guard = guard
        self._timeouts = timeouts
        self._tls = client_context() if tls is None else tls
        self._timings: dict[int, tuple[Patience, Timing]] = {}
        self._pool = Pool(
            limits,
            keep_idle=timeouts.upstream_idle,
            dial=self._dial,
            clock=time.monotonic if clock is None else clock,
        )

    @property
    def open(self) -> int:
        """Connections, those being dialled included."""
        return self._pool.open

    @property
    def idle(self) -> int:
        """Connections that wait for an exchange."""
        return self._pool.idle

    @property
    def checked_out(self) -> int:
        """Connections that serve an exchange or are being dialled for one."""
        return self._pool.open - self._pool.idle

    @property
    def waiting(self) -> int:
        """Exchanges that wait for a connection."""
        return self._pool.waiting

    async def send(self, exchange: Exchange) -> Answer:
        """Send the request and return the answer from its head on.

        A connection that had served before and broke before the answer's first byte is replaced once, where the
        request may be repeated or nothing of it was written (RFC 9110 §9.2.2, RFC 9112 §9.3.1).

        Raises UpstreamUnreachable, UpstreamTimeout, EgressBlocked, Overloaded; and what the body's iterator
        raises, after the upstream's connection was cut.
        """
        timing = self._timing(exchange.timeouts)
        connection = self._pool.take(exchange.origin, exchange.partition)
        if connection is None:
            connection = await self._pool.obtain(exchange.origin, exchange.partition, timing.connect)
        try:
            return await self._ask(connection, exchange, timing)
        except UpstreamUnreachable:
            if not connection.stale or not (exchange.repeatable or not connection.wrote):
                raise
        exchange.bytes_out = 0
        connection = await self._pool.obtain(exchange.origin, exchange.partition, timing.connect, fresh=True)
        return await self._ask(connection, exchange, timing)

    async def close(self) -> None:
        """Close all connections; exchanges under way are refused."""
        await self._pool.close()

    async def _ask(self, connection: Connection, exchange: Exchange, timing: Timing) -> Answer:
        exchange.attempts += 1
        try:
            answer = await connection.begin(exchange, timing)
        except BaseException:
            # Refused, or nobody waits any more: the upstream sees the end at once.
            connection.discard()
            await connection.upload_stopped()
            raise
        if connection.uploading:
            await connection.upload_stopped()
        return answer

    async def _dial(self, origin: Origin, build: Callable[[], Connection]) -> Connection:
        return await dial(origin, self._guard, self._tls, build)

    def _timing(self, patience: Patience | None) -> Timing:
        """The seconds of an exchange; kept by the identity of what the route says, which is one object for long."""
        patience = self._timeouts if patience is None else patience
        known = self._timings.get(id(patience))
        if known is not None and known[0] is patience:
            return known[1]
        own, timing = self._timeouts, patience
        made = Timing(
            own.connect if timing.connect is None else timing.connect,
            own.first_byte if timing.first_byte is None else timing.first_byte,
            own.idle if timing.idle is None else timing.idle,
            own.total if timing.total is None else timing.total,
        )
        if len(self._timings) >= _TIMINGS:
            self._timings.clear()
        self._timings[id(patience)] = (patience, made)
        return made
