"""An answer that streams for long is looked at now and then: whether its agent and its connection still stand (I08)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from types import TracebackType

from authproxy.core.errors import Refusal


class Vigil:
    """A context around the streaming. Every `period` seconds `allowed` is asked, beside the stream, and when it raises
    a refusal the stream ends in it. What is over sooner costs one timer."""

    __slots__ = ("_allowed", "_asking", "_cancelling", "_period", "_refusal", "_task", "_timer")

    def __init__(self, period: float, allowed: Callable[[], Awaitable[None]]) -> None:
        self._period = period
        self._allowed = allowed
        self._refusal: Refusal | None = None
        self._asking: asyncio.Task[None] | None = None
        self._task: asyncio.Task[object] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._cancelling = 0

    async def __aenter__(self) -> None:
        self._task = asyncio.current_task()
        assert self._task is not None
        self._cancelling = self._task.cancelling()
        self._wait()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        assert self._timer is not None
        assert self._task is not None
        self._timer.cancel()
        if self._asking is not None:
            self._asking.cancel()
        # As in asyncio.timeout: ours to turn into the refusal only where nobody else has cancelled too.
        if self._refusal is None or self._task.uncancel() > self._cancelling:
            return
        if kind is not None and issubclass(kind, asyncio.CancelledError):
            raise self._refusal from None

    def _wait(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(self._period, self._begin)

    def _begin(self) -> None:
        self._asking = asyncio.get_running_loop().create_task(self._ask())

    async def _ask(self) -> None:
        assert self._task is not None
        try:
            await self._allowed()
        except Refusal as refusal:
            self._refusal = refusal
            self._task.cancel()
        else:
            self._wait()
