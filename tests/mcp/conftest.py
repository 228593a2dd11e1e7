"""An App with /mcp on real sockets, one upstream that is GitHub as far as these tests go, and the official client."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from http.client import HTTPConnection
from typing import Any

import pytest
from aiohttp import web
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared._httpx_utils import create_mcp_http_client

from authproxy.app import Address, App
from authproxy.core.model import Caller
from authproxy.core.strict import read
from authproxy.faces.connect import Connect
from authproxy.faces.inquiry import Inquiries
from authproxy.faces.mcp import Mcp
from authproxy.listening import listen_control
from tests.kit.browser import Browser, Page
from tests.kit.canaries import hits
from tests.kit.ports import free_port
from tests.kit.process import Proxy
from tests.kit.provider import Provider

KEY = "A" * 43
LABELS = "/repos/octo/cat/labels"
TOOL = "Github_ListRepositoryLabels"
GIVEN = {"owner": "octo", "repo": "cat"}


class GitHub:
    """One repository's labels. With `hold` set, each request waits for it; `left` counts those who did not."""

    def __init__(self, provider: Provider) -> None:
        self.provider = provider
        self.hold: asyncio.Event | None = None
        self.came = asyncio.Event()
        self.gone = asyncio.Event()
        self.requests: list[web.BaseRequest] = []
        self.answer: Any = [{"name": "bug", "color": "ff0000", "description": "Something is wrong"}]
        self.status = 200
        self.port = 0

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        server = web.Server(self._handle, handler_cancellation=True)
        runner = web.ServerRunner(server, shutdown_timeout=1)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            self.port = runner.addresses[0][1]
            yield
        finally:
            await runner.cleanup()

    async def _handle(self, request: web.BaseRequest) -> web.Response:
        token = request.headers.get("Authorization", "").rpartition(" ")[2]
        if token not in [grant.access[-1] for grant in self.provider.grants if grant.access]:
            return web.json_response({"message": "Bad credentials"}, status=401)
        self.requests.append(request)
        self.came.set()
        if self.hold is not None:
            try:
                await self.hold.wait()
            except asyncio.CancelledError:
                self.gone.set()
                raise
        return web.json_response(self.answer, status=self.status)


@dataclass
class Place:
    """Everything that runs, and the ways in. Where it is a process of its own, `proxy` is set, and `app` is not."""

    app: Any
    mcp: Mcp | None
    port: int
    provider: Provider
    github: GitHub
    said: list[bytes] = field(default_factory=list)
    proxy: Proxy | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/mcp"

    @contextlib.asynccontextmanager
    async def client(
        self,
        mode: str = "auto",
        *,
        user: str | None = "alice",
        key: str | None = None,
        query: str = "",
        headers: dict[str, str] | None = None,
        **more: Any,
    ) -> AsyncIterator[Client]:
        """The official client, of either generation."""
        fields = {**({"X-User-ID": user} if user else {}), **(headers or {})}
        if key is not None:
            fields["Authorization"] = f"Bearer {key}"
        async with (
            create_mcp_http_client(headers=fields) as http,
            Client(streamable_http_client(self.url + query, http_client=http), mode=mode, **more) as client,
        ):
            yield client

    async def post(
        self, message: object, *, path: str = "/mcp", method: str = "POST", **fields: str
    ) -> tuple[int, dict[str, str], Any]:
        """One raw message; `_` in the name of a field stands for `-`."""
        headers = {
            "Content-Type": "application/json",
            "Accept": "application/json, text/event-stream",
            **{name.replace("_", "-"): value for name, value in fields.items()},
        }
        body = message if isinstance(message, bytes) else json.dumps(message).encode()

        def exchange() -> tuple[int, dict[str, str], bytes]:
            connection = HTTPConnection("127.0.0.1", self.port, timeout=20)
            try:
                connection.request(method, path, body, headers)
                answer = connection.getresponse()
                return answer.status, {n.lower(): v for n, v in answer.getheaders()}, answer.read()
            finally:
                connection.close()

        status, got, raw = await asyncio.to_thread(exchange)
        self.said.append(raw + repr(got).encode())
        if got.get("content-type", "").startswith("text/event-stream"):
            (raw,) = (line[6:] for line in raw.splitlines() if line.startswith(b"data: "))
        try:
            return status, got, json.loads(raw)
        except ValueError:
            return status, got, raw

    async def connect(self, user: str) -> None:
        """`user` goes through the whole consent."""
        caller = Caller("default", "kit", "loopback", ("*",))
        one = await self.app.control.consent.authorize(
            caller, user=user, provider="github", scopes=(), account="default"
        )
        assert one.url is not None
        await self.consent(one.url)

    async def consent(self, url: str, browser: Browser | None = None) -> Page:
        return await asyncio.to_thread((browser or Browser()).consent, url)

    async def agent(self, *users: str, name: str = "agent", tenant: str = "default") -> str:
        """A new key."""
        maker = Caller(tenant, "operator", "cli", ("*",), operator=True)
        made = await self.app.control.agents.create(maker, name=name, may_act_for=users or ("*",))
        return made.key

    async def records(self, kind: str) -> list[dict[str, Any]]:
        await self.app.trail.flush()
        caller = Caller("default", "operator", "cli", ("*",), operator=True)
        found = await self.app.control.audit.query(caller, kind=kind, limit=1000)
        return [dict(one.record) for one in found]

    def assert_clean(self, *said: object) -> None:
        """No secret stands in any of it."""
        places = {str(number): repr(text).encode() for number, text in enumerate(said)}
        places.update({f"answer {number}": text for number, text in enumerate(self.said)})
        assert not hits(self.provider.secrets, places)


Start = Callable[..., Awaitable[Place]]


def configured(provider: Provider, github: GitHub, more: dict[str, Any]) -> dict[str, Any]:
    """routes.yaml with GitHub as the one route that is there, and whatever else is said."""
    return {
        "identity": {
            "callers": [{"kind": "loopback", "agent": "kit", "operator": True}, {"kind": "api_key"}]
        },
        "providers": {"github": {**provider.choice(), "api_hosts": ["127.0.0.1"]}},
        "routes": {"github": {"upstream": f"http://127.0.0.1:{github.port}"}},
        "egress": {"allow": ["127.0.0.0/8"]},
        "timeouts": {"shutdown": 5},
        **more,
    }


@pytest.fixture
def provider() -> Iterator[Provider]:
    provider = Provider()
    yield provider
    provider.close()


@pytest.fixture
async def start(provider: Provider) -> AsyncIterator[Start]:
    """Starts a Place; `timing` is the MCP service's, other keyword arguments are keys of routes.yaml."""
    async with contextlib.AsyncExitStack() as stack:

        async def starter(
            timing: dict[str, Any] | None = None, patience: float = 30.0, **config: Any
        ) -> Place:
            github = GitHub(provider)
            await stack.enter_async_context(github.running())
            port = free_port()
            here = {"version": 1, "public_url": f"http://127.0.0.1:{port}"}
            text = json.dumps({**here, **configured(provider, github, config)})
            app = await App.open(
                read(text, file="routes.yaml", environ={}, read_file=lambda _: "").config,
                store="sqlite:///:memory:",
                environ={"AUTHPROXY_KEYS": KEY},
                announce=lambda _: None,
            )
            await stack.enter_async_context(app)
            await app.run()
            await app.listen_data(Address("127.0.0.1", 0))
            return Place(app, await _listen(app, port, timing or {}, patience), port, provider, github)

        yield starter


async def _listen(app: App, port: int, timing: dict[str, Any], patience: float) -> Mcp:
    """As App.listen_control, with times of the test."""
    inquiries = Inquiries(app.desk, app.names, app.disabled.demand)
    mcp = Mcp(inquiries, app.control, lambda: app.config, patience=patience, timing=timing)
    connect = Connect(app.flows, public_url=app.config.public_url, cookie_life=900, clock=app.clock)
    app._stack.push_async_callback(mcp.end)
    routes = [*mcp.routes(), *connect.routes()]
    await listen_control(routes, app.names, Address("127.0.0.1", port), app.config, app._stack)
    app._inquiries = inquiries
    return mcp


@pytest.fixture
async def place(start: Start) -> Place:
    """alice is connected."""
    place = await start()
    await place.connect("alice")
    return place
