"""The trail accepts, writes, survives and can be asked."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from authproxy.core.errors import Overloaded, StoreUnavailable
from authproxy.core.secret import Secret
from authproxy.store.audit import Trail
from authproxy.store.reading import export, last_position, query, tail
from authproxy.store.sealing import Keyring, generate_key
from authproxy.store.sqlite import SqliteBackend
from authproxy.store.vault import Vault
from authproxy.store.verify import verify
from tests.store.conftest import Opener
from tests.store.parts import KEY, NOW, event, grant

ROOT = Path(__file__).parents[2]
REQUEST = {
    "request_id": "r-1",
    "tenant": "acme",
    "agent": "worker",
    "user": "alice",
    "provider": "google",
    "path": "/gmail/v1/users/me/messages",
    "status": 200,
    "ms": 12.5,
}


@pytest.fixture
async def trail(vault: Vault) -> AsyncIterator[Trail]:
    opened = Trail(vault, flush=0.001, clock=lambda: NOW)
    await opened.start()
    yield opened
    await opened.close()


async def records(vault: Vault, **filters: object) -> list[dict[str, object]]:
    return [entry.record for entry in await query(vault.backend, newest_first=False, **filters)]  # type: ignore[arg-type]


@pytest.mark.scenario("J06")
async def test_what_is_recorded_is_written_in_order(vault: Vault, trail: Trail) -> None:
    for number in range(1200):
        trail.record("request", **REQUEST, number=number)
    assert trail.waiting == 1200
    await trail.flush()
    assert trail.waiting == 0
    written = await records(vault, kind="request", limit=5000)
    assert [record["number"] for record in written] == [*range(1200)]
    assert {record["chain"] for record in written} == {trail.chain}
    assert [record["seq"] for record in written] == [*range(2, 1202)]
    assert written[0]["at"] == NOW
    assert {**written[3], **REQUEST} == written[3]
    report = await verify(vault)
    assert (report.sound, report.chains, report.records) == (True, 1, 1201)


async def test_the_writer_writes_by_itself(vault: Vault, trail: Trail) -> None:
    number = trail.record("request", **REQUEST)
    await trail.settled(number)
    await trail.settled(number)
    assert len(await records(vault, kind="request")) == 1


@pytest.mark.scenario("N13")
async def test_strict_returns_when_it_is_on_disk(vault: Vault) -> None:
    trail = Trail(vault, flush=3600, durability="strict")
    await trail.start()
    await asyncio.gather(*(trail.strict("request", number=number) for number in range(50)))
    assert len(await records(vault, kind="request")) == 50
    await trail.close()


async def test_a_full_queue_says_so_before_anything_is_done(vault: Vault) -> None:
    trail = Trail(vault, queue=3, flush=3600)
    trail.reserve()
    trail.record("request")
    trail.reserve()
    assert trail.full
    for refused in (trail.ensure_room, trail.reserve, lambda: trail.record("request")):
        with pytest.raises(Overloaded):
            refused()
    trail.redeem("request")
    with pytest.raises(Overloaded):
        trail.ensure_room()
    trail.waive()
    trail.ensure_room()
    await trail.start()
    await trail.close()
    assert len(await records(vault, kind="request")) == 2


async def test_who_comes_to_a_full_queue_waits_for_the_writer(vault: Vault) -> None:
    trail = Trail(vault, queue=3, flush=3600)
    await trail.start()
    for _ in range(3):
        trail.record("request")
    assert trail.full
    await asyncio.gather(*(trail.room(20) for _ in range(50)))  # which has it write before its hour is over
    trail.reserve()
    trail.waive()
    await trail.close()
    assert len(await records(vault, kind="request")) == 3


async def test_a_queue_that_stays_full_refuses_after_a_while(vault: Vault) -> None:
    trail = Trail(vault, queue=1)
    trail.reserve()  # by a stream that is still open: no writer makes room for it
    began = time.monotonic()
    await trail.room(0.05)
    assert time.monotonic() - began >= 0.05
    with pytest.raises(Overloaded):
        trail.reserve()


async def test_a_store_that_is_away_lets_nobody_wait(vault: Vault) -> None:
    trail = Trail(vault, queue=2, flush=0.01)
    await trail.start()
    await vault.close()
    trail.record("request")
    last = trail.record("request")
    with pytest.raises(StoreUnavailable):
        await trail.settled(last)
    async with asyncio.timeout(20):
        await trail.room(3600)
    with pytest.raises(StoreUnavailable):
        await trail.close(0.1)


async def test_odd_fields_neither_stop_the_writer_nor_show_secrets(vault: Vault, trail: Trail) -> None:
    odd = {
        "secret": Secret("CANARY"),
        "bytes": b"\xff/x",
        "set": {"b", "a"},
        "half": "\ud800",
        "nan": float("nan"),
        "keys": {1: "a", "b": 2},
        "kind": "forged",
        "object": object(),
        "none": None,
    }
    trail.record("request", user="\udcff", **odd)
    trail.record("request", at=12.9)
    await trail.flush()
    first, second = await records(vault, kind="request")
    assert first["secret"] == "<Secret>"
    assert first["nan"] is None
    assert first["keys"] == {"1": "a", "b": 2}
    assert second["at"] == 12
    assert "CANARY" not in json.dumps(first)
    assert (await verify(vault)).sound


# -- events become records, exactly once


@pytest.mark.scenario("J01", "J06")
async def test_events_become_records_exactly_once(vault: Vault) -> None:
    await vault.keep_grant(grant(), [event("connection.made", data={"request_id": "r-7"})])
    trails = [Trail(vault, f"p{number}", clock=lambda: NOW) for number in range(3)]
    for trail in trails:
        await trail.start()
    for _ in range(100):
        await vault.note([event("refresh.done")])
    await asyncio.gather(*(trail.flush() for trail in trails))
    for trail in trails:
        await trail.close()
    written = await records(vault, kind="refresh.*", limit=500)
    assert len(written) == len({record["event"] for record in written}) == 100
    (made,) = await records(vault, request_id="r-7")
    assert (made["kind"], made["user"], made["account"]) == ("connection.made", "alice", "default")
    assert (await verify(vault)).sound


async def test_the_outbox_is_looked_at_without_being_told(vault: Vault, trail: Trail) -> None:
    await vault.note([event("refresh.done")])
    async with asyncio.timeout(10):
        while not await records(vault, kind="refresh.done"):
            continue


# -- a store that fails


@pytest.mark.scenario("E05", "J06")
async def test_a_failing_store_loses_no_record(opener: Opener) -> None:
    vault = await opener()
    backend = vault.backend
    assert isinstance(backend, SqliteBackend)
    trail = Trail(vault, flush=0.001)
    await trail.start()
    await backend.run("PRAGMA query_only=ON")
    with pytest.raises(StoreUnavailable):
        await trail.strict("request", number=0)
    assert trail.waiting == 1
    assert trail.failed_writes >= 1
    with pytest.raises(StoreUnavailable):
        await trail.strict("request", number=1)
    await backend.run("PRAGMA query_only=OFF")
    await trail.flush()
    await trail.strict("request", number=2)
    assert [record["number"] for record in await records(vault, kind="request")] == [0, 1, 2]
    await trail.close()


async def test_closing_on_a_failing_store_is_not_silent(opener: Opener) -> None:
    vault = await opener()
    backend = vault.backend
    assert isinstance(backend, SqliteBackend)
    trail = Trail(vault, flush=3600)
    await trail.start()
    trail.record("request")
    await backend.run("PRAGMA query_only=ON")
    with pytest.raises(StoreUnavailable):
        await trail.close(timeout=0.2)
    await backend.run("PRAGMA query_only=OFF")


async def test_a_write_that_was_cut_short_is_not_written_twice(opener: Opener) -> None:
    """The caller of a flush goes away at every possible moment; each record is there once."""
    vault = await opener()
    trail = Trail(vault, flush=3600)
    await trail.start()
    count = 0
    for turns in range(1, 40):
        trail.record("request", number=count)
        count += 1
        task = asyncio.create_task(trail.flush())
        await asyncio.wait([task], timeout=turns * 0.0001)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    await trail.flush()
    written = await records(vault, kind="request", limit=1000)
    assert [record["number"] for record in written] == [*range(count)]
    report = await verify(vault)
    assert (report.sound, report.chains) == (True, 1)
    await trail.close()


# -- asking


async def test_the_trail_can_be_asked(vault: Vault, trail: Trail) -> None:
    for number in range(10):
        trail.record(
            f"kind.{number % 2}",
            at=NOW + number,
            tenant="acme" if number < 8 else "other",
            user=f"user-{number % 3}",
            provider="google",
            agent="worker",
            request_id=f"r-{number}",
            number=number,
        )
    await trail.flush()

    async def found(**filters: object) -> list[object]:
        return [record["number"] for record in await records(vault, **filters) if "number" in record]

    assert await found(tenant="other") == [8, 9]
    assert await found(kind="kind.1", user="user-0") == [3, 9]
    assert await found(kind="kind.*", limit=3) == [0, 1, 2]
    assert await found(since=NOW + 2, until=NOW + 4) == [2, 3]
    assert await found(request_id="r-5", agent="worker", provider="google") == [5]
    assert await found(kind="kin.*") == []
    newest = await query(vault.backend, limit=2)
    assert [entry.record["number"] for entry in newest] == [9, 8]

    position = await last_position(vault.backend)
    assert await tail(vault.backend, position) == []
    trail.record("late")
    await trail.flush()
    assert [entry.record["kind"] for entry in await tail(vault.backend, position)] == ["late"]
    lines = [json.loads(line) async for line in export(vault.backend, kind="kind.*")]
    assert [line["number"] for line in lines] == [*range(10)]
    assert all(len(line["hash"]) == 64 for line in lines)


# -- processes that die


WRITER = """
import asyncio, sys
from authproxy.core.model import Environment
from authproxy.store.audit import Trail
from authproxy.store.sealing import Keyring
from authproxy.store.vault import Vault
from tests.store.parts import *

async def main():
    vault = await Vault.open(f"sqlite:///{sys.argv[1]}", keyring=Keyring.parse(sys.argv[2]),
                             environment=Environment.PRODUCTION)
    trail = Trail(vault, sys.argv[3], flush=0.005, checkpoint=0.02)
    await trail.start()
    number = 0
    while True:
        for _ in range(50):
            trail.record("request", user="alice", number=number)
            number += 1
        await vault.note([event("refresh.done", data={"number": number})])
        if number % 500 == 0:
            await trail.settled(number)
            print(number, flush=True)

asyncio.run(main())
"""


@pytest.mark.scenario("J06", "E08")
async def test_a_process_killed_at_full_speed_leaves_a_valid_chain(opener: Opener, path: Path) -> None:
    key = generate_key()
    vault = await opener(keyring=Keyring.parse(key))
    acknowledged = 0
    for number in range(10):
        command = [sys.executable, "-c", WRITER, str(path), key, f"p{number}"]
        process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=subprocess.PIPE)
        assert process.stdout is not None
        for _ in range(1 + number % 3):
            line = await process.stdout.readline()
        # A different point of the next batch each time.
        await asyncio.wait([asyncio.create_task(process.wait())], timeout=0.007 * number)
        process.send_signal(signal.SIGKILL)
        rest = await process.stdout.read()
        await process.wait()
        told = int((rest.split() or [line])[-1])
        acknowledged += told
        written = await query(vault.backend, kind="request", limit=1)
        assert written[0].record["number"] >= told - 1
    report = await verify(vault)
    assert report.sound, report.faults
    assert report.chains == 10
    assert report.records > acknowledged
    heir = Trail(vault, "heir")
    await heir.start()
    await heir.flush()
    assert await vault.backend.read("SELECT id FROM events WHERE audited = 0") == []
    numbers = [
        row["n"]
        for row in await vault.backend.read("SELECT count(*) AS n FROM audit WHERE kind = 'refresh.done'")
    ]
    assert numbers == [row["n"] for row in await vault.backend.read("SELECT count(*) AS n FROM events")]
    await heir.close()
    assert (await verify(vault)).sound


async def test_find_is_not_blocked_by_the_trail(vault: Vault, trail: Trail) -> None:
    for number in range(5000):
        trail.record("request", number=number)
    flushing = asyncio.create_task(trail.flush())
    await vault.find(KEY)
    await flushing
