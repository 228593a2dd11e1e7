"""Many processes on one store: one token call; and processes that are killed wherever it hurts most."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from authproxy.core.errors import ConnectionExpired, ProviderUnavailable
from authproxy.core.model import State
from tests.broker.house import House, house_at
from tests.broker.test_refresh import sends, stored_refresh_digest

ROOT = Path(__file__).parents[2]
LEASE = 60.0


class Process:
    """A running tests/broker/process.py."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    @classmethod
    async def begin(cls, house: House, *, ahead: float, die_at: str | None = None) -> Process:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "tests.broker.process",
            cwd=ROOT,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        order = {
            "store": str(house.path),
            "keys": house.keys,
            "base": house.sandbox.base_url,
            "ahead": ahead,
            "die_at": die_at,
        }
        assert process.stdin is not None
        process.stdin.write(json.dumps(order).encode() + b"\n")
        it = cls(process)
        while await it.line() != "ready":
            pass
        return it

    async def line(self) -> str:
        assert self.process.stdout is not None
        line = await asyncio.wait_for(self.process.stdout.readline(), 30)
        assert line, "the process ended without a word"
        return line.decode().strip()

    def go(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(b"go\n")

    async def result(self) -> dict[str, Any]:
        while not (line := await self.line()).startswith("{"):
            pass
        await self.process.wait()
        return dict(json.loads(line))

    async def killed(self) -> None:
        assert await asyncio.wait_for(self.process.wait(), 30) == -signal.SIGKILL


@pytest.fixture
async def running() -> AsyncIterator[list[Process]]:
    begun: list[Process] = []
    yield begun
    for one in begun:
        if one.process.returncode is None:
            one.process.kill()
            await one.process.wait()


@pytest.mark.scenario("A03", "A04", "A01")
async def test_processes_share_one_refresh(house: House, running: list[Process]) -> None:
    broker = await house.broker()
    await house.connect(broker)
    running += await asyncio.gather(*(Process.begin(house, ahead=3700) for _ in range(4)))
    for one in running:
        one.go()
    results = await asyncio.gather(*(one.result() for one in running))
    assert results == [{"generation": 2}] * 4
    assert len(house.sandbox.refreshes()) == 1
    assert await stored_refresh_digest(broker) in house.sandbox.live_refresh_digests()


@pytest.mark.scenario("A04", "A05", "D34")
async def test_a_process_that_hangs_on_a_slow_provider_keeps_the_others_waiting(
    house: House, running: list[Process]
) -> None:
    broker = await house.broker()
    await house.connect(broker)
    house.sandbox.hold(after=True)
    running.append(await Process.begin(house, ahead=3700))
    running[0].go()
    await house.sandbox.arrived(2)
    running.append(await Process.begin(house, ahead=3700))
    running[1].go()
    second = asyncio.create_task(running[1].result())
    done, _ = await asyncio.wait([second], timeout=0.5)
    assert not done
    house.sandbox.release()
    assert await running[0].result() == await second == {"generation": 2}
    assert len(house.sandbox.refreshes()) == 1


async def over_the_lease(house: House) -> None:
    """The dead process's lease, ended in the store as time would end it."""
    vault = await house.open()

    async def work(tx: Any) -> None:
        await tx.run("UPDATE connections SET lease_until = 1 WHERE lease_until IS NOT NULL")

    await vault.backend.write(work)
    await vault.close()


# What the provider has seen of a refresh token when its sender died, and what may become of it.
UNSENT = ("before_send",)
SENT = ("after_send", "after_response", "before_commit")
SAVED = ("after_commit", "before_release")


@pytest.mark.scenario("A08", "A09", "D8", "N4")
@pytest.mark.parametrize("point", [*UNSENT, *SENT, *SAVED])
async def test_killed_anywhere_then_started_again(tmp_path: Path, running: list[Process], point: str) -> None:
    async with house_at(tmp_path) as house:
        broker = await house.broker()
        await house.connect(broker)
        running.append(await Process.begin(house, ahead=3700, die_at=point))
        running[0].go()
        await running[0].killed()
        if point == "after_send":
            await house.sandbox.arrived(2)
        await over_the_lease(house)
        house.clock.push(3700)
        for _ in range(3):  # started again and again: no loop
            again = await house.broker()
            try:
                generation = (await again.token()).generation
            except (ConnectionExpired, ProviderUnavailable) as refusal:
                generation = 0
                reason = refusal.reason
            house.clock.push(120)
        row = await house.row(broker)
        by_digest: dict[str, int] = {}
        for call in house.sandbox.refreshes():
            by_digest[call.digest or ""] = by_digest.get(call.digest or "", 0) + 1
        assert max(by_digest.values()) <= 2, "at most one retry of the old token"
        if point in SENT:
            assert (row.state, row.reason) == (State.ROTATION_LOST, "rotation_lost")
            assert reason == "rotation_lost"
            kinds = await house.kinds(broker)
            assert kinds.count("connection.rotation_lost") == 1
            assert "refresh.failed" in kinds
        else:
            assert row.state is State.ACTIVE
            assert generation == 2
            assert max(by_digest.values()) == 1
            assert await stored_refresh_digest(broker) in house.sandbox.live_refresh_digests()


@pytest.mark.scenario("A08")
async def test_killed_twice_loses_nothing_that_is_still_good(tmp_path: Path, running: list[Process]) -> None:
    async with house_at(tmp_path, rotate=False) as house:
        broker = await house.broker()
        await house.connect(broker)
        for _ in range(2):
            running.append(await Process.begin(house, ahead=3700, die_at="after_response"))
            running[-1].go()
            await running[-1].killed()
            await over_the_lease(house)
        house.clock.push(3700)
        assert (await broker.token()).generation == 2
        assert len(house.sandbox.refreshes()) == 3
        assert await sends(broker) == 3


@pytest.mark.scenario("A08", "A09", "A23")
@pytest.mark.parametrize("mode", ["same_successor", "sibling"])
async def test_a_provider_with_a_replay_window_forgives_a_kill(
    tmp_path: Path, running: list[Process], mode: str
) -> None:
    async with house_at(tmp_path, grace_s=600, grace_mode=mode) as house:
        broker = await house.broker()
        await house.connect(broker)
        house.clock.push(3700)  # the provider's time, too
        running.append(await Process.begin(house, ahead=3700, die_at="before_commit"))
        running[0].go()
        await running[0].killed()
        await over_the_lease(house)
        assert (await broker.token()).generation == 2
        assert await sends(broker) == 2
        assert await stored_refresh_digest(broker) in house.sandbox.live_refresh_digests()
