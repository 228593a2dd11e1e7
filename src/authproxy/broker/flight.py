"""Single flight: concurrent askers share one piece of work, and none can cancel it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

import structlog

from authproxy.core.errors import Refusal

log = structlog.get_logger()

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")


class FlightLost(Exception):
    """The work ended without a result: it ran out of its own time, was cancelled, or the doors are closed."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Flights(Generic[K, T]):
    """At most one task per key. It belongs to nobody who asks, so that an agent that hangs up cannot take a
    rotated refresh token with it; its slot is cleared by its own done-callback, so that nothing that went wrong
    stays registered."""

    def __init__(self, *, deadline: float, limit: int = 4096) -> None:
        self._deadline = deadline
        self._limit = limit
        self._running: dict[K, asyncio.Task[T]] = {}
        self._closed = False

    def __len__(self) -> int:
        return len(self._running)

    def running(self, key: K) -> bool:
        """Whether work for this key is on its way."""
        return key in self._running

    def join(
        self, key: K, work: Callable[[], Awaitable[T]], *, deadline: float | None = None
    ) -> asyncio.Task[T]:
        """The task that works for this key, begun by this call if there is none. Raises FlightLost when no new
        one may begin. Await it through `share`, never directly: awaiting a task hands one's own end on to it."""
        task = self._running.get(key)
        if task is None:
            if self._closed:
                raise FlightLost("closing")
            if len(self._running) >= self._limit:
                raise FlightLost("too_many")
            task = asyncio.create_task(self._fly(work, self._deadline if deadline is None else deadline))
            self._running[key] = task
            task.add_done_callback(lambda done: self._landed(key, done))
        return task

    def begin(self, key: K, work: Callable[[], Awaitable[T]]) -> None:
        """The same for work that nobody waits for."""
        _task = self.join(key, work)

    async def share(self, key: K, work: Callable[[], Awaitable[T]], *, deadline: float | None = None) -> T:
        """The result of the work for this key, whoever began it. The asker's own end leaves the work alone."""
        task = self.join(key, work, deadline=deadline)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if not task.cancelled():
                raise
            asker = asyncio.current_task()
            if asker is not None and asker.cancelling():
                raise
            raise FlightLost("cancelled") from None

    async def drain(self, seconds: float) -> int:
        """Begin nothing new and wait for what runs; how many still run when the time is over."""
        self._closed = True
        running = list(self._running.values())
        if running:
            await asyncio.wait(running, timeout=seconds)
        return len(self._running)

    def cancel(self) -> None:
        """End what still runs: the last step of a shutdown whose time is over."""
        self._closed = True
        for task in list(self._running.values()):
            task.cancel()

    @staticmethod
    async def _fly(work: Callable[[], Awaitable[T]], deadline: float) -> T:
        bound = asyncio.timeout(deadline)
        try:
            async with bound:
                return await work()
        except TimeoutError:
            if bound.expired():
                raise FlightLost("deadline") from None
            raise

    def _landed(self, key: K, task: asyncio.Task[T]) -> None:
        if self._running.get(key) is task:
            del self._running[key]
        error = None if task.cancelled() else task.exception()  # marked as seen: every asker may be gone
        if error is not None and not isinstance(error, FlightLost | Refusal):
            log.error("flight.failed", error=type(error).__name__, exc_info=error)
