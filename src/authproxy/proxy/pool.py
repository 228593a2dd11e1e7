"""Connections to all upstreams: kept apart by origin and partition, bounded, and swept by one timer."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Hashable
from math import inf

import structlog

from authproxy.core.config import Limits
from authproxy.core.errors import Overloaded
from authproxy.proxy.connection import Connection
from authproxy.proxy.exchange import Origin, late, unreachable

log = structlog.get_logger()

_WAITING = 1024  # exchanges that wait for a connection to one origin
_SCRATCH = 256 * 1024  # one read's size; the loop reads one socket at a time, so one buffer serves all
_LOSING = 2.0  # seconds that closing sockets are given at the end
_SLACK = 0.01  # deadlines this near to one another are swept together


class _Lane:
    """All connections to one origin. `open` counts those being dialled too."""

    __slots__ = ("aging", "idle", "open", "waiters")

    def __init__(self) -> None:
        self.open = 0
        self.idle: dict[Hashable, list[Connection]] = {}
        self.aging: dict[Connection, None] = {}  # the idle ones, oldest first
        self.waiters: deque[tuple[Hashable, asyncio.Future[Connection | None]]] = deque()

    def take(self, partition: Hashable) -> Connection | None:
        """The most recently used idle connection of the partition that is fit to serve."""
        stack = self.idle.get(partition)
        while stack:
            connection = stack.pop()
            del self.aging[connection]
            if not stack:
                del self.idle[partition]
            if connection.fit():
                return connection
            connection.discard()
        return None

    def keep(self, connection: Connection) -> None:
        self.idle.setdefault(connection.partition, []).append(connection)
        self.aging[connection] = None

    def drop(self, connection: Connection) -> None:
        """Take an idle connection off the shelf."""
        if connection in self.aging:
            del self.aging[connection]
            stack = self.idle[connection.partition]
            stack.remove(connection)
            if not stack:
                del self.idle[connection.partition]


class Pool:
    """Hands out connections, takes them back, and closes what is overdue."""

    def __init__(
        self,
        limits: Limits,
        *,
        keep_idle: float,
        dial: Callable[[Origin, Callable[[], Connection]], Awaitable[Connection]],
        clock: Callable[[], float],
    ) -> None:
        self.limits = limits
        self.clock = clock
        self.scratch = memoryview(bytearray(_SCRATCH))
        self._keep_idle = keep_idle
        self._dial = dial
        self._lanes: dict[Origin, _Lane] = {}
        self._open: set[Connection] = set()
        self._closing: set[Connection] = set()
        self._all_lost: asyncio.Event | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._due = inf
        self._closed = False

    @property
    def open(self) -> int:
        return sum(lane.open for lane in self._lanes.values())

    @property
    def idle(self) -> int:
        return sum(len(lane.aging) for lane in self._lanes.values())

    @property
    def waiting(self) -> int:
        return sum(len(lane.waiters) for lane in self._lanes.values())

    def take(self, origin: Origin, partition: Hashable) -> Connection | None:
        """An idle connection that may serve now."""
        lane = self._lanes.get(origin)
        return None if lane is None else lane.take(partition)

    async def obtain(
        self, origin: Origin, partition: Hashable, seconds: float, *, fresh: bool = False
    ) -> Connection:
        """A connection: an idle one, or a new one, or after a wait whichever comes first.

        Raises Overloaded when none comes free within `seconds` or too many wait already, UpstreamTimeout when
        it is not connected within `seconds`, UpstreamUnreachable, EgressBlocked.
        """
        if self._closed:
            raise unreachable(origin, "shutdown")
        if not fresh and (connection := self.take(origin, partition)) is not None:
            return connection
        most = self.limits.max_upstream_connections
        lane = self._lanes.get(origin)
        if lane is not None and lane.open >= most and lane.aging:
            next(iter(lane.aging)).discard()
        lane = self._lanes.setdefault(origin, _Lane())
        if lane.open < most and not lane.waiters:
            lane.open += 1
        else:
            try:
                async with asyncio.timeout(seconds):
                    waited = await self._wait(lane, origin, partition)
            except TimeoutError:
                raise _full(origin) from None
            if waited is not None:
                return waited
        try:
            async with asyncio.timeout(seconds):
                return await self._open_one(lane, origin, partition)
        except TimeoutError:
            raise late(origin, "connect") from None

    async def _wait(self, lane: _Lane, origin: Origin, partition: Hashable) -> Connection | None:
        """Queue for a place; None: a place to dial for."""
        if len(lane.waiters) >= _WAITING:
            raise _full(origin)
        turn: asyncio.Future[Connection | None] = asyncio.get_running_loop().create_future()
        entry = (partition, turn)
        lane.waiters.append(entry)
        try:
            return await turn
        except BaseException:
            if not turn.cancelled() and turn.done() and turn.exception() is None:
                # The turn came in the very moment of giving up: it goes to the next.
                given = turn.result()
                if given is None:
                    self._give_place(origin, lane)
                else:
                    given.discard()
            elif entry in lane.waiters:
                lane.waiters.remove(entry)
            raise

    async def _open_one(self, lane: _Lane, origin: Origin, partition: Hashable) -> Connection:
        """Dial, for a place that is already counted."""
        made: list[Connection] = []

        def build() -> Connection:
            made.append(Connection(self, origin, partition))
            return made[0]

        try:
            connection = await self._dial(origin, build)
        except BaseException:
            if made:
                # A handshake that failed or was given up: its transport is asyncio's, its place is ours.
                made[0].discard()
                # uvloop closes what it was still making without a word to its protocol: nobody will call `lost`.
                self.lost(made[0])
            else:
                self._give_place(origin, lane)
            raise
        if self._closed or not connection.fit():
            connection.discard()
            raise unreachable(origin, "shutdown" if self._closed else "closed")
        self._open.add(connection)
        return connection

    # What connections report.

    def release(self, connection: Connection, patience: float | None) -> None:
        """The exchange is over and the connection may serve again; for `patience` seconds, the upstream says."""
        keep = self._keep_idle if patience is None else min(self._keep_idle, patience)
        lane = self._lanes[connection.origin]
        if keep <= 0 or self._closed:
            connection.discard()
            return
        while lane.waiters and lane.waiters[0][1].done():
            lane.waiters.popleft()  # given up just now, and not yet gone from the queue
        if lane.waiters:
            self._serve_waiter(lane, connection)
            return
        connection.deadline = self.clock() + keep
        lane.keep(connection)
        self.arm(connection.deadline)

    def _serve_waiter(self, lane: _Lane, connection: Connection) -> None:
        partition, turn = lane.waiters[0]
        if partition != connection.partition or not connection.fit():
            connection.discard()  # its place goes to the waiter
            return
        lane.waiters.popleft()
        connection.deadline = inf
        turn.set_result(connection)

    def forget(self, connection: Connection) -> None:
        """The connection is closing: its place is free now, its socket in a moment."""
        lane = self._lanes[connection.origin]
        lane.drop(connection)
        self._open.discard(connection)
        if connection.connected:
            self._closing.add(connection)
        self._give_place(connection.origin, lane)

    def lost(self, connection: Connection) -> None:
        """The connection's socket is closed."""
        self._closing.discard(connection)
        if self._all_lost is not None and not self._closing:
            self._all_lost.set()

    def _give_place(self, origin: Origin, lane: _Lane) -> None:
        while lane.waiters:
            _, turn = lane.waiters.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        lane.open -= 1
        if not lane.open:
            self._lanes.pop(origin, None)

    # The one timer.

    def arm(self, deadline: float) -> None:
        """Make sure that a sweep comes no later than the deadline."""
        if deadline < self._due:
            if self._timer is not None:
                self._timer.cancel()
            self._due = deadline
            wait = max(deadline - self.clock(), 0) + _SLACK
            self._timer = asyncio.get_running_loop().call_later(wait, self._sweep)

    def _sweep(self) -> None:
        now = self.clock()
        self._due = inf
        self._timer = None
        for connection in [each for each in self._open if each.deadline <= now]:
            connection.overdue()
        self.arm(min((each.deadline for each in self._open), default=inf))

    async def close(self) -> None:
        """Close every connection; exchanges under way end in a refusal. Returns when all sockets are closed."""
        self._closed = True
        for lane in list(self._lanes.values()):
            while lane.waiters:
                _, turn = lane.waiters.popleft()
                if not turn.done():
                    turn.set_exception(Overloaded("authproxy is shutting down", reason="shutdown"))
        for connection in list(self._open):
            connection.fail(unreachable(connection.origin, "shutdown"))
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._closing:
            self._all_lost = asyncio.Event()
            try:
                await asyncio.wait_for(self._all_lost.wait(), _LOSING)
            except TimeoutError:
                # The trail and the store are closed after this: they must not wait for a socket.
                log.warning("pool.sockets_left", count=len(self._closing))


def _full(origin: Origin) -> Overloaded:
    return Overloaded(f"all connections to {origin.host} are in use", reason="connections")
