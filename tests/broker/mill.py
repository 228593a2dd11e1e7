"""A token endpoint that says yes to everything, and knows how many asked at once and when."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable

from aiohttp import web


class Mill:
    """Each answer waits until the loop has had its turn, so that calls which may overlap do."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._numbers = itertools.count()
        self._runner: web.AppRunner | None = None
        self.at: list[float] = []
        self.now = 0
        self.most = 0
        self.url = ""

    async def start(self) -> None:
        app = web.Application()
        app.router.add_post("/token", self._token)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def close(self) -> None:
        assert self._runner is not None
        await self._runner.cleanup()

    async def _token(self, request: web.Request) -> web.Response:
        self.at.append(self._clock())
        self.now += 1
        self.most = max(self.most, self.now)
        await request.read()
        for _ in range(10):
            await asyncio.sleep(0)
        self.now -= 1
        number = next(self._numbers)
        return web.json_response(
            {
                "access_token": f"at-{number}",
                "refresh_token": f"rt-{number}",
                "token_type": "Bearer",
                "expires_in": 3600,
            }
        )
