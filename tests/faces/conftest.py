"""A control plane on real sockets, in this process, with a provider in a thread beside it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from http.client import HTTPConnection
from typing import Any

import pytest

from authproxy.app import Address, App
from authproxy.core.model import Caller
from authproxy.core.strict import read
from tests.kit.browser import Browser, Page
from tests.kit.ports import free_port
from tests.kit.provider import Provider

KEY = "A" * 43
OPERATOR = Caller("default", "operator", "cli", ("*",), operator=True)


@dataclass
class Desk:
    """The running App, and the ways in which it is asked."""

    app: App
    port: int
    provider: Provider

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def ask(
        self, method: str, path: str, body: object = None, *, key: str | None = None, **fields: str
    ) -> tuple[int, Mapping[str, str], Any]:
        """One call on a connection of its own; `fields` are headers, `_` standing for `-`."""
        headers = {name.replace("_", "-"): value for name, value in fields.items()}
        if key is not None:
            headers["Authorization"] = key
        data = None
        if isinstance(body, bytes):
            data = body
        elif body is not None:
            headers.setdefault("Content-Type", "application/json")
            data = json.dumps(body).encode()

        def exchange() -> tuple[int, Mapping[str, str], bytes]:
            connection = HTTPConnection("127.0.0.1", self.port, timeout=30)
            try:
                connection.request(method, path, data, headers)
                answer = connection.getresponse()
                return answer.status, {n.lower(): v for n, v in answer.getheaders()}, answer.read()
            finally:
                connection.close()

        status, got, raw = await asyncio.to_thread(exchange)
        try:
            return status, got, json.loads(raw)
        except ValueError:
            return status, got, raw.decode()

    async def begin(self, user: str, *, key: str | None = None, **more: object) -> dict[str, Any]:
        want = {"provider_id": "kit", "provider_type": "oauth2", "oauth2": {"scopes": ["read"]}}
        body = {"user_id": user, "auth_requirement": want, **more}
        status, _, flow = await self.ask("POST", "/v1/auth/authorize", body, key=key)
        assert status == 200, flow
        assert isinstance(flow, dict)
        return flow

    async def consent(self, url: str, browser: Browser | None = None) -> Page:
        return await asyncio.to_thread((browser or Browser()).consent, url)

    async def connect(self, user: str, *, key: str | None = None) -> dict[str, Any]:
        flow = await self.begin(user, key=key)
        await self.consent(flow["url"])
        _, _, ended = await self.ask("GET", f"/v1/auth/status?id={flow['id']}", key=key)
        assert ended["status"] == "completed", ended
        assert isinstance(ended, dict)
        return ended

    async def agent(
        self,
        name: str = "agent",
        *,
        tenant: str = "default",
        users: tuple[str, ...] = ("*",),
        operator: bool = False,
    ) -> str:
        """A new key."""
        maker = Caller(tenant, "operator", "cli", ("*",), operator=True)
        made = await self.app.control.agents.create(maker, name=name, may_act_for=users, operator=operator)
        return made.key


Start = Callable[..., Awaitable[Desk]]


@pytest.fixture
def provider() -> Iterator[Provider]:
    provider = Provider()
    yield provider
    provider.close()


@pytest.fixture
async def start(provider: Provider) -> AsyncIterator[Start]:
    """Starts a control plane; keyword arguments are keys of routes.yaml."""
    apps: list[App] = []

    async def starter(**config: Any) -> Desk:
        port = free_port()
        text = json.dumps(
            {
                "version": 1,
                "public_url": f"http://127.0.0.1:{port}",
                "identity": {
                    "callers": [
                        {"kind": "loopback", "agent": "kit", "operator": True},
                        {"kind": "api_key"},
                    ]
                },
                "providers": {"kit": provider.choice()},
                "routes": {"kit": {"upstream": provider.url, "provider": "kit", "scopes": ["read"]}},
                "egress": {"allow": [f"127.0.0.1:{provider.port}"]},
                **config,
            }
        )
        read_config = read(text, file="routes.yaml", environ={}, read_file=lambda _: "").config
        app = await App.open(
            read_config, store="sqlite:///:memory:", environ={"AUTHPROXY_KEYS": KEY}, announce=lambda _: None
        )
        apps.append(app)
        await app.run()
        bound = await app.listen_control(Address("127.0.0.1", port))
        return Desk(app, bound, provider)

    yield starter
    for app in apps:
        await app.close()


@pytest.fixture
async def desk(start: Start) -> Desk:
    return await start()
