"""A running proxy before the sandbox, and both clients under one way of asking."""

from __future__ import annotations

import asyncio
import itertools
import json
import subprocess
import sys
import time
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest

from authproxy.client import AsyncClient, Client
from tests.kit.browser import Browser, Page, forms
from tests.kit.ports import free_port
from tests.kit.process import BOOT, LOOPBACK, Proxy

KEYED = {"kind": "api_key", "may_act_for": ["*"]}


class Sandbox:
    """The provider as a process, turned as a person would."""

    def __init__(self) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._process = subprocess.Popen(
            [sys.executable, "-c", BOOT, "sandbox", "--port", str(self.port)], stdout=subprocess.PIPE
        )
        assert self._process.stdout is not None
        assert self.url.encode() in self._process.stdout.readline()

    def admin(self, path: str, body: dict[str, Any]) -> Any:
        request = urllib.request.Request(
            f"{self.url}/admin/{path}",
            json.dumps(body).encode(),
            {"Content-Type": "application/json"},
            method="POST",
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.load(answer)

    def end_grants(self, user: str) -> None:
        """The user takes the app's access away at the provider."""
        self.admin("revoke-user", {"user": user})
        self.admin("expire", {"user": user})

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(10)
        assert self._process.stdout is not None
        self._process.stdout.close()


class Town:
    """All that runs. Every test has users of its own there; at the provider they are all alice."""

    def __init__(self, proxy: Proxy, sandbox: Sandbox) -> None:
        self.proxy, self.sandbox = proxy, sandbox
        self._count = itertools.count(1)
        self.key = self.agent("app")
        self.operator = self.agent("boss", "--operator")

    def user(self, name: str) -> str:
        """Somebody whom no other test knows."""
        return f"{name}-{next(self._count)}"

    def agent(self, *words: str) -> str:
        """A new agent key, known to the listeners."""
        key = str(self.made("agents", "create", *words)["key"])
        deadline = time.monotonic() + 5
        while self.proxy.ask("GET", "/v1/sessions", headers={"Authorization": key})[0] == 401:
            assert time.monotonic() < deadline, "the key is not known"
            time.sleep(0.02)  # read by another process within its leash
        return key

    def made(self, *command: str) -> dict[str, Any]:
        where = ("--config", str(self.proxy.file), "--store", f"sqlite:///{self.proxy.store}", "--json")
        done = self.proxy.run(*command, *where)
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout)
        assert isinstance(found, dict)
        return found

    def press(self, link: str, decision: str = "allow") -> Page:
        """The user opens the link, presses the button, and decides at the provider."""
        browser = Browser()
        page = browser.consent(link)
        (form, *_) = [form for form in forms(page) if form.method == "POST"]
        return browser.submit(form, user="alice", decision=decision)

    async def consent(self, link: str | None, decision: str = "allow") -> Page:
        assert link is not None
        return await asyncio.to_thread(self.press, link, decision)

    def client(self, **more: Any) -> Client:
        return Client(self.proxy.control_url, proxy=self.proxy.url, **({"key": self.key} | more))

    def async_client(self, **more: Any) -> AsyncClient:
        return AsyncClient(self.proxy.control_url, proxy=self.proxy.url, **({"key": self.key} | more))


@pytest.fixture(scope="session")
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    sandbox = Sandbox()
    config = {
        "identity": {"callers": [KEYED, LOOPBACK]},
        "providers": {
            "sandbox": {
                "issuer": sandbox.url,
                "client_id": "authproxy-dev",
                "client_auth": "none",
                "api_hosts": ["127.0.0.1"],
            }
        },
        "routes": {
            "sandbox": {"upstream": f"{sandbox.url}/api", "provider": "sandbox", "scopes": ["read"]},
            "writing": {"upstream": f"{sandbox.url}/api", "provider": "sandbox", "scopes": ["read", "write"]},
        },
        "refresh": {"forced_interval": 0, "leash": 0.2, "background": False},
        "egress": {"allow": [f"127.0.0.1:{sandbox.port}"]},
    }
    try:
        with Proxy(tmp_path_factory.mktemp("client"), config) as proxy:
            yield Town(proxy, sandbox)
    finally:
        sandbox.close()


class Threaded:
    """The blocking client, each call in a thread, so that both are asked alike."""

    def __init__(self, one: Any) -> None:
        self._one = one

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._one, name)
        if not callable(found):
            return Threaded(found)

        async def call(*args: Any, **kwargs: Any) -> Any:
            return await asyncio.to_thread(found, *args, **kwargs)

        return call


Make = Callable[..., Any]


@pytest.fixture(params=["blocking", "asynchronous"])
async def make(request: pytest.FixtureRequest, town: Town) -> AsyncIterator[Make]:
    """Makes a client of either kind for the running proxy."""
    close: list[Callable[[], Awaitable[None]]] = []

    def made(**more: Any) -> Any:
        if request.param == "blocking":
            return Threaded(town.client(**more))
        one = town.async_client(**more)
        close.append(one.close)
        return one

    yield made
    for end in close:
        await end()


@pytest.fixture
def ask(make: Make) -> Any:
    """A client with the application's key."""
    return make()
