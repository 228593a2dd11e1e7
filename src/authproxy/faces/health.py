"""livez: the loop turns. readyz: store and key are there. metrics: Prometheus. No provider's health is in any."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST

from authproxy.control.panel import Control
from authproxy.core.errors import Refusal


class Health:
    """Asked by supervisors and scrapers, without a credential."""

    def __init__(self, control: Control, *, tick: Callable[[], float] = time.monotonic) -> None:
        self._control = control
        self._tick = tick
        self._making = asyncio.Lock()
        self._page = b""
        self._fresh_until = float("-inf")

    def routes(self) -> Iterable[web.AbstractRouteDef]:
        return [
            web.get("/livez", self.live),
            web.get("/readyz", self.ready),
            web.get("/metrics", self.metrics),
        ]

    async def live(self, _request: web.Request) -> web.Response:
        return web.json_response({"live": True})

    async def ready(self, _request: web.Request) -> web.Response:
        """503 as long as the store cannot be read, its key is missing, or this process is on its way out."""
        await self._control.ready()
        return web.json_response({"ready": True})

    async def metrics(self, _request: web.Request) -> web.Response:
        """A page is made by one scrape at a time, and shown for four times as long as it took to make: whoever asks,
        and however often, counting a full store takes a fifth of its time at most."""
        async with self._making:
            began = self._tick()
            if began >= self._fresh_until:
                self._page = await self._exposition()
                self._fresh_until = self._tick() + 4 * (self._tick() - began)
        return web.Response(body=self._page, headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def _exposition(self) -> bytes:
        """A store that is away costs the connection counts, not the page."""
        try:
            counts = await self._control.counts()
            await self._control.measure()
        except Refusal:
            counts = {}
        metrics = self._control.metrics
        return metrics.exposition(
            {(provider, str(state)): n for (provider, state), n in counts.items()},
            () if metrics.others is None else await metrics.others(),
        )
