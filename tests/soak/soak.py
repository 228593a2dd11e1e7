"""The soak: real processes on one store, a provider that rotates and forgives nothing, and everything that can be
killed or cut being killed or cut."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import random
import signal
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg

from authproxy.core.errors import StoreUnavailable
from authproxy.core.model import Environment, Event, NewGrant, State, TokenSet
from authproxy.core.secret import Secret
from authproxy.store.sealing import Keyring, generate_key
from authproxy.store.vault import Vault
from tests.broker.house import CLIENT_ID, SCOPES, key_of
from tests.kit.postgres import Postgres
from tests.soak.processes import Provider, Worker
from tests.soak.provider import users
from tests.soak.report import Report, judged

LIFE = 2.0  # seconds that an access token lives
REFRESH = {"margin": 1, "deadline": 3.0, "lease": 9.0, "backoff": 0.2, "backoff_max": 1.0, "leash": 0.5}
UNSETTLED = """SELECT id FROM connections WHERE state = 'active'
    AND (intent_digest IS NOT NULL OR expires_at < now_ms() / 1000 - 5)"""
POINTS = ("before_send", "after_send", "after_response", "before_commit", "after_commit", "before_release")


@dataclass
class Plan:
    """How long, on what, and how rough. Times are means, in seconds; 0: never."""

    seconds: float
    processes: int = 8
    store: str = "sqlite"
    server: str = "sandbox"
    connections: int = 24
    callers: int = 6
    kill_every: float = 2.0
    cut_every: float = 1.5
    database_every: float = 3.0
    restart_every: float = 45.0
    die: float = 0.002  # chance to drop dead, at each place where it hurts
    seed: int = 0


@dataclass
class Soak:
    """One run."""

    plan: Plan
    provider: Provider
    vault: Vault
    store: str
    keys: str
    server: Postgres | None
    chance: random.Random
    kills: Counter[str] = field(default_factory=Counter)
    served: Counter[str] = field(default_factory=Counter)
    regranted: int = 0
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    _workers: dict[int, Worker] = field(default_factory=dict)

    async def run(self) -> Report:
        names = users(self.plan.connections)
        for user in names:
            await self.grant(user)
        ending = asyncio.Event()
        keepers = [asyncio.create_task(self.keep(slot, names, ending)) for slot in range(self.plan.processes)]
        harm = [
            asyncio.create_task(one)
            for one in (
                self.every(self.plan.kill_every, self.kill),
                self.every(self.plan.cut_every, self.cut),
                self.every(self.plan.database_every if self.server else 0, self.cut_database),
                self.every(self.plan.restart_every if self.server else 0, self.restart_database),
                self.every(1.0, self.connect_again),
            )
        ]
        done, _ = await asyncio.wait(
            [*keepers, *harm], timeout=self.plan.seconds, return_when="FIRST_COMPLETED"
        )
        for task in harm:
            task.cancel()
        await asyncio.gather(*harm, return_exceptions=True)
        for task in done:
            await task  # nothing ends before its time but by a fault
        ending.set()
        for worker in self._workers.values():
            with contextlib.suppress(ProcessLookupError):
                worker.process.terminate()
        await asyncio.gather(*keepers)
        await self.provider.ask("switch", switches={"drop": "no", "next_calls": 0, "delay_after_s": 0.0})
        await self.settle(names)
        return await judged(self.vault, await self.provider.ask("tell"), names, self)

    # --- processes

    async def keep(self, slot: int, names: tuple[str, ...], ending: asyncio.Event) -> None:
        """Starts the process of this slot again whenever it has died."""
        while not ending.is_set():
            worker = self._workers[slot] = await Worker.start(self.order(names))
            try:
                if await worker.ready():
                    worker.go()
                self.served += await worker.told()
            finally:
                await worker.kill()
            code = worker.process.returncode
            if code == -signal.SIGKILL:
                self.kills["processes"] += 1
            elif code != 0 and not ending.is_set():
                self.kills["processes not started, as the database was away"] += 1

    def order(self, names: tuple[str, ...], **more: Any) -> dict[str, Any]:
        return {
            "mode": "soak",
            "store": self.store,
            "keys": self.keys,
            "base": self.provider.base,
            "name": f"w{next(self._numbers)}",
            "users": names,
            "callers": self.plan.callers,
            "refresh": REFRESH,
            "dying": dict.fromkeys(POINTS, self.plan.die),
        } | more

    # --- harm

    @staticmethod
    async def every(mean: float, act: Any) -> None:
        while mean:
            await asyncio.sleep(random.uniform(0.5, 1.5) * mean)
            await act()
        await asyncio.Event().wait()

    async def kill(self) -> None:
        worker = self._workers.get(self.chance.randrange(self.plan.processes))
        if worker is not None and worker.process.returncode is None:
            worker.process.send_signal(signal.SIGKILL)

    async def cut(self) -> None:
        """One answer of the provider is lost, slow, or cut in the middle; or its question is."""
        how = self.chance.choice(("before", "after", "midway", "slow"))
        switches: dict[str, Any] = {"next_calls": 1, "faults_for": "refresh"}
        switches |= {"delay_after_s": 1.0} if how == "slow" else {"drop": how}
        await self.provider.ask("switch", switches=switches)
        self.kills[f"token calls cut ({how})"] += 1

    async def cut_database(self) -> None:
        assert self.server is not None
        try:
            connection = await asyncpg.connect(self.server.url("postgres"))
            cut = await connection.fetchval(
                "SELECT count(pg_terminate_backend(pid)) FROM (SELECT pid FROM pg_stat_activity "
                "WHERE application_name = 'authproxy' ORDER BY random() LIMIT 2) AS unlucky"
            )
            await connection.close()
        except (OSError, asyncpg.PostgresConnectionError, asyncpg.OperatorInterventionError):
            return  # it is being restarted
        self.kills["database connections cut"] += cut

    async def restart_database(self) -> None:
        assert self.server is not None
        how = self.chance.choice((signal.SIGINT, signal.SIGQUIT))
        await asyncio.to_thread(self.server.restart, how)
        self.kills["database restarts" if how is signal.SIGINT else "database crashes"] += 1

    # --- users

    async def grant(self, user: str) -> None:
        given = await self.provider.ask("give", user=user)
        now = int(time.time())
        await self.vault.keep_grant(
            NewGrant(
                key=key_of(user),
                client_id=CLIENT_ID,
                grant_id=f"grant-{next(self._numbers)}",
                tokens=TokenSet(
                    access_token=Secret(given["access_token"]),
                    refresh_token=Secret(given["refresh_token"]),
                    expires_at=now + int(given["expires_in"]),
                    lifetime=int(given["expires_in"]),
                    scopes=SCOPES,
                ),
                requested_scopes=SCOPES,
                provider_account=user,
                at=now,
            ),
            [Event("connection.made", now, "default", user=user, provider="acme", account="default")],
        )

    async def connect_again(self) -> None:
        """Users whose grant is over give another."""
        with contextlib.suppress(StoreUnavailable):  # it is being restarted: next time, then
            for state in (State.ROTATION_LOST, State.NEEDS_REAUTH):
                for connection in await self.vault.list(tenant=None, state=state):
                    await self.grant(connection.key.user)
                    self.regranted += 1

    # --- the end

    async def settle(self, names: tuple[str, ...]) -> None:
        """Undisturbed, one process asks for every connection until nothing is left open."""
        worker = await Worker.start(self.order(names, dying={}, callers=len(names)))
        try:
            assert await worker.ready()
            worker.go()
            async with asyncio.timeout(60):
                while await self.vault.backend.read(UNSETTLED):  # noqa: ASYNC110 - no event crosses processes
                    await asyncio.sleep(0.2)
            worker.process.terminate()
            self.served += await worker.told()
        finally:
            await worker.kill()


@contextmanager
def a_store(kind: str) -> Iterator[tuple[str, Postgres | None]]:
    """An empty store, and its server where it has one."""
    if kind == "postgres":
        with Postgres.running() as server:
            yield server.database(), server
    else:
        with tempfile.TemporaryDirectory(prefix="soak") as folder:
            yield f"sqlite:///{Path(folder) / 'store.db'}", None


@asynccontextmanager
async def prepared(
    plan: Plan, store: str, server: Postgres | None, *, life: float = LIFE
) -> AsyncIterator[Soak]:
    """Provider and store, open."""
    keys = generate_key()
    provider = await Provider.start(life, plan.connections, foreign=plan.server == "django")
    try:
        vault = await Vault.open(store, keyring=Keyring.parse(keys), environment=Environment.DEVELOPMENT)
        try:
            yield Soak(plan, provider, vault, store, keys, server, random.Random(plan.seed or os.getpid()))
        finally:
            await vault.close()
    finally:
        await provider.kill()


def run(plan: Plan) -> Report:
    """All of it."""

    async def inside(store: str, server: Postgres | None) -> Report:
        async with prepared(plan, store, server) as soak:
            return await soak.run()

    with a_store(plan.store) as (store, server):
        return asyncio.run(inside(store, server))
