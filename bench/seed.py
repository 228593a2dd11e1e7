"""authproxy's store and configuration for a measurement, made before it starts."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from authproxy.core.model import DEFAULT_TENANT, ConnectionKey, Environment, NewGrant, TokenSet
from authproxy.core.secret import Secret
from authproxy.store.base import Row, Transaction, Value
from authproxy.store.sealing import Keyring, generate_key
from authproxy.store.vault import Vault
from bench.world import World

KEY_VARIABLE = "AUTHPROXY_KEYS"
_PROVIDER = "bench"
_T = TypeVar("_T")


def seed(store: Path, key: Path, connections: int, *, expired: int = 0) -> None:
    """A store with connections of user0, user1, …, and the file with its key. The tokens of the last ones have
    expired."""
    text = generate_key()
    key.write_text(text)
    asyncio.run(_fill(store, Keyring.parse(text), connections, expired))


def configuration(world: World, routes: int, *, provider: str = "http://127.0.0.1:1") -> Mapping[str, Any]:
    """routes.yaml with that many routes, the last three of them to the upstreams. Unless tokens have expired, nobody
    calls the provider: they last for longer than a measurement."""
    ports = {"plain": world.plain, "tls": world.tls, "events": world.events}
    hosts = [f"127.0.0.1:{port}" for port in ports.values()]
    rules = [
        {"methods": ["GET"], "paths": ["/small", "/bytes/*", "/text/*", "/events"]},
        {"methods": ["POST"], "paths": ["/take"]},
    ]
    table: dict[str, Any] = {}
    for number in range(routes - len(ports)):
        upstream = f"http://127.0.0.1:{world.plain}"
        table[f"route{number}"] = {"upstream": upstream, "provider": _PROVIDER, "allow": rules}
    for name, port in ports.items():
        scheme = "https" if name == "tls" else "http"
        table[name] = {"upstream": f"{scheme}://127.0.0.1:{port}", "provider": _PROVIDER, "allow": rules}
    return {
        "version": 1,
        "environment": "development",
        "identity": {"callers": [{"kind": "loopback", "agent": "bench"}]},
        "providers": {
            _PROVIDER: {
                "client_id": "bench",
                "client_auth": "none",
                "endpoints": {"authorization": provider + "/a", "token": provider + "/t"},
                "api_hosts": hosts,
            }
        },
        "routes": table,
        "egress": {"allow": [*hosts, provider.removeprefix("http://")]},
    }


class _AtOnce:
    """The store's file in one transaction: a commit for each of 100,000 grants would take minutes."""

    def __init__(self, path: Path) -> None:
        self._file = sqlite3.connect(path, isolation_level=None)
        self._file.row_factory = sqlite3.Row
        self._file.execute("BEGIN IMMEDIATE")

    async def read(self, sql: str, *values: Value) -> Sequence[Row]:
        return self._file.execute(sql, values).fetchall()

    async def run(self, sql: str, *values: Value) -> Sequence[Row]:
        return self._file.execute(sql, values).fetchall()

    async def run_many(self, sql: str, rows: Sequence[Sequence[Value]]) -> None:
        self._file.executemany(sql, rows)

    async def alone(self, *name: str) -> None:
        """It is."""

    async def write(self, work: Callable[[Transaction], Awaitable[_T]]) -> _T:
        return await work(self)

    async def describe(self) -> Mapping[str, str | int]:
        return {}

    async def close(self) -> None:
        self._file.execute("COMMIT")
        self._file.close()


async def _fill(store: Path, keyring: Keyring, connections: int, expired: int) -> None:
    environment = Environment.DEVELOPMENT
    made = await Vault.open(f"sqlite:///{store}", keyring=keyring, environment=environment)
    await made.close()
    vault = await Vault.open(_AtOnce(store), keyring=keyring, environment=environment)
    now = int(time.time())
    for number in range(connections):
        tokens = TokenSet(
            access_token=Secret(f"bench-{number:06}-" + "a" * 40),
            refresh_token=Secret(f"refresh-{number:06}-" + "r" * 40),
            expires_at=now + (7 * 86400 if number < connections - expired else -60),
            lifetime=7 * 86400,
        )
        key = ConnectionKey(DEFAULT_TENANT, f"user{number}", _PROVIDER)
        await vault.keep_grant(NewGrant(key, "bench", f"grant{number}", tokens, (), None, now), [])
    await vault.close()
