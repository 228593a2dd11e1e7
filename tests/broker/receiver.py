"""A receiver of webhooks, which can be away, and checks signatures as its own author would: from the documentation."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from dataclasses import dataclass
from typing import Any

from aiohttp import web

SECRET = "whsec_" + base64.b64encode(b"CANARY-webhook-secret-4f2a").decode()


@dataclass
class Told:
    """One delivery that came through."""

    id: str
    at: int
    body: dict[str, Any]
    raw: bytes

    @property
    def kind(self) -> str:
        return str(self.body["type"])

    @property
    def data(self) -> dict[str, Any]:
        return dict(self.body["data"])


class Receiver:
    """Answers with `status`; what it took is in `told`, what it was asked at all in `asked`."""

    def __init__(self) -> None:
        self.status = 204
        self.headers: dict[str, str] = {}
        self.told: list[Told] = []
        self.asked: list[str] = []
        self.port = 0
        self._runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook"

    async def start(self) -> None:
        app = web.Application()
        app.router.add_post("/hook", self._hook)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port).start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
        self._runner = None

    def kinds(self) -> list[str]:
        return [one.kind for one in self.told]

    async def _hook(self, request: web.Request) -> web.Response:
        raw = await request.read()
        message, at = request.headers["webhook-id"], request.headers["webhook-timestamp"]
        key = base64.b64decode(SECRET.removeprefix("whsec_"))
        mac = hmac.new(key, f"{message}.{at}.".encode() + raw, hashlib.sha256).digest()
        version, _, signature = request.headers["webhook-signature"].partition(",")
        assert version == "v1"
        assert hmac.compare_digest(signature, base64.b64encode(mac).decode())
        self.asked.append(message)
        if self.status < 300:
            self.told.append(Told(message, int(at), json.loads(raw), raw))
        return web.Response(status=self.status, headers=self.headers)
