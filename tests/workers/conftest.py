"""A fleet: `serve --workers 4` over one upstream, and agents that use it."""

from __future__ import annotations

import json
import signal
import socket
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.kit.postgres import Postgres
from tests.kit.process import Proxy, listener
from tests.kit.provider import Grant, Provider
from tests.kit.raw import Message, Upstream, Wire

WORKERS = 4


class Fleet:
    """A proxy of several workers, a provider, and a raw upstream behind the route `api`."""

    def __init__(
        self,
        directory: Path,
        *,
        workers: int = WORKERS,
        store: str | None = None,
        env: Mapping[str, str] | None = None,
        **config: Any,
    ) -> None:
        self.provider = Provider()
        self.sock: socket.socket = listener()
        config = {
            "providers": {"kit": self.provider.choice()},
            "routes": {"api": self.route()},
            "egress": {"allow": ["127.0.0.0/8"]},
            "refresh": {"background": False, "leash": 0.5},
            **config,
        }
        self.proxy = Proxy(directory, config, env={"AUTHPROXY_WORKERS": str(workers), **(env or {})})
        if store is not None:
            self.proxy.store_url = store
        self.count = workers

    def route(self, **more: Any) -> dict[str, Any]:
        port = self.sock.getsockname()[1]
        return {
            "prefix": "/api",
            "upstream": f"http://127.0.0.1:{port}",
            "provider": "kit",
            "scopes": ["read"],
            **more,
        }

    def start(self) -> None:
        self.proxy.start()
        self.until(lambda: len(self.pids()) == self.count)

    def close(self) -> None:
        if self.proxy.process is not None and self.proxy.process.poll() is None:
            self.proxy.stop()
        self.provider.close()
        self.sock.close()

    def said(self, event: str) -> list[dict[str, Any]]:
        """The log's lines of this event."""
        lines = (self.proxy.directory / "stderr").read_text().splitlines()
        return [
            one
            for one in map(json.loads, filter(lambda line: line[:1] == "{", lines))
            if one["event"] == event
        ]

    def pids(self) -> dict[int, int]:
        """The process in each place that serves now."""
        last = {one["worker"]: one["pid"] for one in self.said("worker_serving")}
        return {place: pid for place, pid in last.items() if psutil.pid_exists(pid)}

    def until(self, true: Any, seconds: float = 15.0) -> None:
        deadline = time.monotonic() + seconds
        while not true():
            assert time.monotonic() < deadline, self.proxy.words()[-3000:]
            time.sleep(0.02)  # other processes bring it about, and tell a file

    def upstream(self, script: Any = ()) -> Upstream:
        return Upstream(self.sock, script)

    async def dial(self) -> Wire:
        return await Wire.dial(self.proxy.listen)

    def ask(self, path: str = "/x", user: str = "alice") -> bytes:
        return f"GET /api{path} HTTP/1.1\r\nHost: 127.0.0.1\r\nX-User-ID: {user}\r\n\r\n".encode()

    async def call(self, path: str = "/x", user: str = "alice") -> Message:
        """One request on a connection of its own."""
        async with await self.dial() as wire:
            await wire.send(self.ask(path, user))
            return await wire.response()

    def grant(self, user: str) -> Grant:
        before = len(self.provider.grants)
        self.proxy.connect(user)
        return self.provider.grants[before]

    def command(self, *words: str) -> str:
        done = self.proxy.run(*words, "--config", str(self.proxy.file), "--store", self.proxy.store_url)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def kill(self, place: int) -> int:
        pid = self.pids()[place]
        psutil.Process(pid).send_signal(signal.SIGKILL)
        return pid

    def page(self) -> dict[str, float]:
        """/metrics, by its lines."""
        status, text = self.proxy.ask("GET", "/metrics")
        assert status == 200
        pairs = (line.rpartition(" ") for line in text.splitlines() if not line.startswith("#"))
        return {name: float(value) for name, _, value in pairs}


@pytest.fixture(scope="module")
def lasting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    made = Fleet(tmp_path_factory.mktemp("fleet"))
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def fleet(lasting: Fleet) -> Fleet:
    """The same for all tests of a module, running; one of them ends it."""
    if lasting.proxy.process is None or lasting.proxy.process.poll() is not None:
        lasting.start()
    return lasting


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    with Postgres.running() as server:
        yield server


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Any]:
    """Fleets that end with the test."""
    made: list[Fleet] = []

    def new(**how: Any) -> Fleet:
        made.append(Fleet(tmp_path / f"fleet{len(made)}", **how))
        return made[-1]

    yield new
    for one in made:
        one.close()
