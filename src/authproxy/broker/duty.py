"""Background work, round after round: what goes wrong ends a round and never the work, and a hung round is seen."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable

import structlog

from authproxy.core.errors import Refusal
from authproxy.metrics import Metrics

log = structlog.get_logger()


class Duty:
    """One loop under supervision (A27). Each beginning of a round is a heartbeat, each good end a success, both
    with their time in the metrics: a round that hangs lets the first grow old, one that always fails the second."""

    def __init__(
        self,
        name: str,
        work: Callable[[], Awaitable[object]],
        *,
        every: float,
        deadline: float,
        metrics: Metrics,
        clock: Callable[[], float] = time.time,
        tick: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self.name = name
        self._work = work
        self._every = every
        self._deadline = deadline
        self._metrics = metrics
        self._clock = clock
        self._tick = tick
        self._jitter = jitter
        self._stopping = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        metrics.background_failures.labels(name)  # there before the first one

    def start(self) -> None:
        """Begin, in a task of its own."""
        self._task = asyncio.create_task(self._run(), name=self.name)

    def stop(self) -> None:
        """Begin no further round."""
        self._stopping.set()

    async def close(self, seconds: float) -> None:
        """No further round; the one under way may end within `seconds`, then it is cancelled."""
        self.stop()
        task, self._task = self._task, None
        if task is not None:
            await asyncio.wait([task], timeout=seconds)
            task.cancel()
            await asyncio.wait([task])

    async def round(self) -> bool:
        """One round, and whether it ended well. Only our own cancellation gets out of here."""
        self._metrics.background_beat.labels(self.name).set(self._clock())
        task = asyncio.ensure_future(_called(self._work))
        try:
            await asyncio.wait([task], timeout=self._deadline)
        finally:
            hung = not task.done()
            if hung:
                task.cancel()
        if hung:
            await asyncio.wait([task])
        error = None if task.cancelled() else task.exception()
        if error is None and not hung and not task.cancelled():
            self._metrics.background_success.labels(self.name).set(self._clock())
            return True
        self._metrics.background_failures.labels(self.name).inc()
        if isinstance(error, Refusal):  # the store is away, say: known, and said by its code
            log.warning("background.round_failed", duty=self.name, code=error.code, reason=error.reason)
        else:
            word = "hung" if hung else type(error).__name__
            log.error("background.round_failed", duty=self.name, error=word, exc_info=error)
        return False

    async def _run(self) -> None:
        failures = 0
        while not self._stopping.is_set():
            began = self._tick()
            failures = 0 if await self.round() else failures + 1
            # Replicas that began together do not stay together.
            pause = min(60.0, self._every * 2 ** min(failures, 10)) * (0.75 + self._jitter() / 2)
            if not failures:  # from begin to begin: a long round, with more to do, loses no time
                pause = max(0.0, pause - (self._tick() - began))
            try:
                async with asyncio.timeout(pause):
                    await self._stopping.wait()
            except TimeoutError:
                continue


async def _called(work: Callable[[], Awaitable[object]]) -> None:
    await work()
