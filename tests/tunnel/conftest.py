"""One proxy with tunnels, WebSockets, listeners of routes' own and answers that are rewritten."""

from __future__ import annotations

import asyncio
import itertools
import json
import socket
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from tests.kit.canaries import hits
from tests.kit.lanes import BASE, LIMITS, TIMEOUTS, Lane, lanes
from tests.kit.ports import free_port
from tests.kit.process import LOOPBACK

KEYED = {"kind": "api_key", "may_act_for": ["*"]}


class Yard:
    """The lanes, and what the special ones are reached by."""

    def __init__(self, ordinary: list[Lane], special: dict[str, Lane], ports: dict[str, int]) -> None:
        self._free = itertools.cycle(ordinary)
        self.special, self.ports = special, ports
        self.proxy = ordinary[0].proxy
        self.seeded = ordinary[0].seeded
        self.trust = self.proxy.trust
        self._since: dict[str, int] = {}

    def lane(self, mode: str = BASE) -> Lane:
        """A lane that nobody has used for a while."""
        return self._handed(next(self._free), mode)

    def named(self, name: str, mode: str = BASE) -> Lane:
        return self._handed(self.special[name], mode)

    def _handed(self, lane: Lane, mode: str) -> Lane:
        """Free of what an earlier case left there."""
        with closing(self._store()) as store:
            (self._since[lane.name],) = store.execute("SELECT ifnull(max(position), 0) FROM audit").fetchone()
        return emptied(lane, mode)

    def _store(self) -> sqlite3.Connection:
        return sqlite3.connect(f"file:{self.proxy.store}?mode=ro", uri=True)

    def key(self, agent: str, *users: str) -> tuple[str, str]:
        """A new agent key, known to the listener, and its id."""
        named = [word for user in users for word in ("--user", user)]
        made = json.loads(self.run("agents", "create", agent, *named, "--json").stdout)
        deadline = time.monotonic() + 5
        while (
            self.proxy.fetch(self.proxy.listen, "GET", "/", headers={"X-Authproxy-Key": made["key"]})[0]
            == 407
        ):
            assert time.monotonic() < deadline, "the key is not known"
            time.sleep(0.02)  # read by another process within its leash
        return made["key"], made["id"]

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """A command on this proxy's configuration and store."""
        where = ("--config", str(self.proxy.file), "--store", f"sqlite:///{self.proxy.store}")
        done = self.proxy.run(*command, *where)
        assert done.returncode == 0, done.stderr
        return done

    async def records(self, count: int, **wanted: object) -> list[dict[str, Any]]:
        """The records that are like this, oldest first, once there are `count` or time is up. Those of a route are of
        the case that has its lane now."""
        sql = "SELECT record FROM audit WHERE kind = 'request' AND position > ? ORDER BY position"
        since = self._since.get(str(wanted.get("route")), 0)
        deadline = time.monotonic() + 10
        while True:
            with closing(self._store()) as store:
                found = [json.loads(text) for (text,) in store.execute(sql, (since,))]
            found = [one for one in found if all(one[name] == value for name, value in wanted.items())]
            if len(found) >= count or time.monotonic() > deadline:
                return found
            await asyncio.sleep(0.02)  # written in batches by another process


def emptied(lane: Lane, mode: str) -> Lane:
    """What an earlier case left in the listen queue is not this one's."""
    lane.mode = mode
    while True:
        try:
            lane.sock.accept()[0].close()
        except BlockingIOError:
            return lane


@pytest.fixture(scope="session")
def blind_port() -> Iterator[socket.socket]:
    """Where a host that no route names listens."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen(32)
        sock.setblocking(False)
        yield sock


@pytest.fixture(scope="session")
def yard(tmp_path_factory: pytest.TempPathFactory, blind_port: socket.socket) -> Iterator[Yard]:
    ports = {"single": free_port(), "secure": free_port(), "blind": blind_port.getsockname()[1]}
    special: dict[str, dict[str, Any]] = {
        "ruled": {
            "allow": [
                {"methods": ["GET"], "paths": ["/repos/me/*", "/files/**"]},
                {"methods": ["POST"], "paths": ["/repos/me/*/issues"]},
            ]
        },
        "moving": {"rewrite_urls": True},
        "single": {"listen": f"127.0.0.1:{ports['single']}", "rewrite_urls": True},
        "secure": {"listen": f"127.0.0.1:{ports['secure']}", "tls": True, "rewrite_urls": True},
        "brief": {"timeouts": {"idle": 0.5}},
        "curt": {"timeouts": {"idle": 0.5}},
        "patient": {"timeouts": {"idle": 30}},
    }
    with lanes(
        tmp_path_factory.mktemp("tunnel"),
        240,
        special,
        identity={"callers": [KEYED, LOOPBACK]},
        limits=LIMITS,
        timeouts={**TIMEOUTS, "idle": 10, "first_byte": 5, "keepalive": 5},
        tunnel={"unrouted": "pass", "ports": [ports["blind"]], "idle": 1.0},
        refresh={"forced_interval": 0, "leash": 0.3},
    ) as (ordinary, made):
        yard = Yard(ordinary, made, ports)
        yield yard
        # Whatever the cases did: no token, code or verifier is in a log, in the trail, or beside them.
        with sqlite3.connect(f"file:{yard.proxy.store}?mode=ro", uri=True) as store:
            trail = "\n".join(text for (text,) in store.execute("SELECT record FROM audit"))
        store.close()
        places = {"words": yard.proxy.words().encode(), "trail": trail.encode()}
        places |= {str(path): path.read_bytes() for path in yard.proxy.directory.rglob("*") if path.is_file()}
        assert len(trail) > 1000
        assert not hits(yard.seeded.provider.secrets, places)
