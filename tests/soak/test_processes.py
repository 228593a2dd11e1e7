"""Many processes and many callers on one connection, on each kind of store that processes can share."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from authproxy.core.model import Connection, State
from authproxy.store.base import Transaction
from authproxy.store.vault import Vault
from tests.broker.house import key_of
from tests.kit.postgres import Postgres
from tests.soak.processes import Worker
from tests.soak.soak import POINTS, Plan, Soak, prepared

Shared = tuple[str, Postgres | None]
LONG: dict[str, float] = {}  # the refresh settings as they come
HOUR = 3700.0


@asynccontextmanager
async def connected(shared: Shared) -> AsyncIterator[Soak]:
    """A provider whose tokens live an hour, a store with one connection, and what starts processes on it."""
    async with prepared(Plan(0, connections=1), *shared, life=3600.0) as soak:
        await soak.grant("user0")
        yield soak


def order(soak: Soak, **more: Any) -> dict[str, Any]:
    """Processes that live after the access token has expired, and are otherwise in no hurry."""
    values = {"mode": "burst", "callers": 1, "refresh": LONG, "dying": {}, "ahead": HOUR} | more
    return soak.order(("user0",), **values)


async def row(vault: Vault) -> Connection:
    found = await vault.find(key_of("user0"))
    assert found is not None
    return found


async def over_the_lease(vault: Vault) -> None:
    """A dead process's lease, ended in the store as time would end it."""

    async def work(tx: Transaction) -> None:
        await tx.run("UPDATE connections SET lease_until = 1 WHERE lease_until IS NOT NULL")

    await vault.backend.write(work)


@pytest.mark.scenario("A01", "A03", "A04", "A06")
async def test_eight_processes_with_two_hundred_callers_each_cost_one_token_call(shared: Shared) -> None:
    """All at once, on one expired connection; the clocks of the processes are minutes apart."""
    async with connected(shared) as soak:
        workers = await asyncio.gather(
            *(Worker.start(order(soak, callers=200, ahead=HOUR + 60 * number)) for number in range(8))
        )
        try:
            assert all(await asyncio.gather(*(worker.ready() for worker in workers)))
            for worker in workers:
                worker.go()
            told = await asyncio.gather(*(worker.told() for worker in workers))
        finally:
            for worker in workers:
                await worker.kill()
        assert told == [Counter({"generation 2": 200})] * 8
        assert await soak.provider.ask("count") == {"refreshes": 1, "presented": 1}


@pytest.mark.scenario("A04", "A05")
async def test_a_replica_that_waits_for_a_slow_provider_is_waited_for(replicated: Shared) -> None:
    async with connected(replicated) as soak:
        await soak.provider.ask("hold")
        workers = [await Worker.start(order(soak)) for _ in range(2)]
        try:
            for worker in workers:
                assert await worker.ready()
            workers[0].go()
            await soak.provider.ask("arrived", count=1)
            workers[1].go()
            second = asyncio.create_task(workers[1].told())
            done, _ = await asyncio.wait([second], timeout=1)
            assert not done
            await soak.provider.ask("release")
            assert await workers[0].told() == await second == Counter({"generation 2": 1})
        finally:
            for worker in workers:
                await worker.kill()
        assert await soak.provider.ask("count") == {"refreshes": 1, "presented": 1}


UNSENT, SENT = {"before_send"}, {"after_send", "after_response", "before_commit"}


@pytest.mark.scenario("A08", "A09", "A33")
@pytest.mark.parametrize("point", POINTS)
async def test_a_holder_is_killed(replicated: Shared, point: str) -> None:
    """The same on SQLite is in tests/broker/test_processes.py."""
    async with connected(replicated) as soak:
        for dying in ({point: 1.0}, {}):
            worker = await Worker.start(order(soak, dying=dying))
            try:
                assert await worker.ready()
                worker.go()
                told = await worker.told()
            finally:
                await worker.kill()
            if dying:
                assert worker.process.returncode == -signal.SIGKILL
                if point == "after_send":
                    await soak.provider.ask("arrived", count=1)
                await over_the_lease(soak.vault)
        found = await row(soak.vault)
        kinds = Counter(event.kind for event in await soak.vault.timeline(found.id))
        if point in SENT:
            assert (found.state, found.reason, found.generation) == (State.ROTATION_LOST, "rotation_lost", 1)
            assert kinds["connection.rotation_lost"] == 1
        else:
            assert told == Counter({"generation 2": 1})
            assert (found.state, found.generation) == (State.ACTIVE, 2)
            assert kinds["refresh.succeeded"] == 1


@pytest.mark.scenario("A07", "A20")
async def test_the_database_is_restarted_in_mid_refresh() -> None:
    """The provider has rotated, and the database is gone: the tokens are held until it is back."""
    with Postgres.running() as server:
        store = await asyncio.to_thread(server.database)
        async with connected((store, server)) as soak:
            await soak.provider.ask("hold", after=True)
            worker = await Worker.start(order(soak))
            try:
                assert await worker.ready()
                worker.go()
                await soak.provider.ask("arrived", count=1)
                await asyncio.to_thread(server.stop, signal.SIGQUIT)
                await soak.provider.ask("release")
                told = asyncio.create_task(worker.told())
                done, _ = await asyncio.wait([told], timeout=1)
                assert not done, "it does not end before the tokens are on disk"
                await asyncio.to_thread(server.start)
                assert await told == Counter({"generation 2": 1})
            finally:
                await worker.kill()
            found = await row(soak.vault)
            assert (found.state, found.generation) == (State.ACTIVE, 2)
            assert (await soak.provider.ask("count"))["refreshes"] == 1
