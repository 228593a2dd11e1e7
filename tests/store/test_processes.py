"""Many processes on one store: one wins each generation, and nothing is lost or written twice."""

from __future__ import annotations

import asyncio
import itertools
import json
import subprocess
import sys
from pathlib import Path

import pytest

from authproxy.core.model import Environment, State
from authproxy.core.secret import Secret
from authproxy.store.base import GrantChanged, LeaseLost
from authproxy.store.sealing import Keyring, generate_key
from authproxy.store.vault import Leased, Vault
from authproxy.store.verify import verify
from tests.store.parts import KEY, NOW, event, grant, tokens

ROOT = Path(__file__).parents[2]

REFRESHER = """
import asyncio, json, sys
from authproxy.core.model import Environment
from authproxy.core.secret import Secret
from authproxy.store.audit import Trail
from authproxy.store.base import LeaseLost, GrantChanged
from authproxy.store.sealing import Keyring
from authproxy.store.vault import Vault
from tests.store.parts import *

URL, KEYS, NAME, ROUNDS, SECONDS = sys.argv[1:6]

async def main():
    vault = await Vault.open(URL, keyring=Keyring.parse(KEYS), environment=Environment.PRODUCTION)
    trail = Trail(vault, NAME, flush=0.01)
    await trail.start()
    print("ready", flush=True)
    sys.stdin.readline()
    won, lost = [], 0
    for number in range(int(ROUNDS)):
        connection = await vault.find(KEY)
        lease = await vault.lease(connection.id, holder=f"{NAME}-{number}", seconds=float(SECONDS))
        if lease is None:
            continue
        try:
            held = (await lease.tokens()).refresh_token
            digest = vault.digest(held)
            if await lease.is_spent(digest):  # sent and replaced by whoever took over since
                assert float(SECONDS) < 1, "a spent token was about to be sent under a lease that holds"
                raise LeaseLost
            await lease.write_intent(digest, NOW)
            after = await lease.commit(
                tokens(f"{NAME}-{number}"), [event("refresh.done", data={"by": NAME})], spent=digest
            )
            won.append(after.generation)
            trail.record("request", user="alice", generation=after.generation)
        except (LeaseLost, GrantChanged):
            lost += 1
        await lease.release()
    await trail.close()
    await vault.close()
    print(json.dumps({"won": won, "lost": lost}), flush=True)

asyncio.run(main())
"""


async def race(url: str, key: str, *, processes: int, rounds: int, seconds: float) -> list[dict[str, object]]:
    started = []
    for number in range(processes):
        command = [sys.executable, "-c", REFRESHER, url, key, f"p{number}", str(rounds), str(seconds)]
        started.append(
            await asyncio.create_subprocess_exec(
                *command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
            )
        )
    for process in started:
        assert process.stdout is not None
        while line := await process.stdout.readline():
            if line.strip() == b"ready":
                break
    told = await asyncio.gather(*(process.communicate(b"go\n") for process in started))
    assert [process.returncode for process in started] == [0] * processes
    return [json.loads(out.splitlines()[-1]) for out, _ in told]


@pytest.mark.scenario("A16", "A30", "E07", "E08", "A22")
@pytest.mark.parametrize("seconds", [60, 0.004], ids=["leases hold", "leases end under way"])
async def test_processes_race_for_one_connection(shared_url: str, seconds: float) -> None:
    key = generate_key()
    vault = await Vault.open(
        shared_url, keyring=Keyring.parse(key), environment=Environment.PRODUCTION, clock=lambda: NOW
    )
    kept = await vault.keep_grant(grant(word="start"), [])
    told = await race(shared_url, key, processes=3, rounds=100, seconds=seconds)
    won = sorted(itertools.chain.from_iterable(process["won"] for process in told))  # type: ignore[misc]
    assert won == [*range(2, len(won) + 2)], "each generation was won once"
    found = await vault.find(KEY)
    assert found is not None
    assert (found.id, found.generation, found.state) == (kept.id, won[-1], State.ACTIVE)
    assert await vault.access(KEY) is not None
    assert len(await vault.timeline(kept.id)) == len(won)
    rows = await vault.backend.read("SELECT count(*) AS n FROM spent")
    assert rows[0]["n"] == min(len(won), 201)
    rows = await vault.backend.read("SELECT count(*) AS n FROM audit WHERE kind = 'refresh.done'")
    assert rows[0]["n"] == len(won)
    report = await verify(vault)
    assert report.sound, report.faults
    if shared_url.startswith("sqlite:"):
        (row,) = await vault.backend.read("PRAGMA integrity_check")
        assert row[0] == "ok"  # type: ignore[index]
    await vault.close()


@pytest.mark.scenario("E01", "C09")
async def test_processes_that_start_at_once_make_one_store(shared_url: str) -> None:
    key = generate_key()
    code = """
import asyncio, sys
from authproxy.core.model import Environment
from authproxy.core.secret import Secret
from authproxy.store.sealing import Keyring
from authproxy.store.vault import Vault
async def main():
    vault = await Vault.open(sys.argv[1], keyring=Keyring.parse(sys.argv[2]), environment=Environment.PRODUCTION)
    print(vault.digest(Secret("x")))
    await vault.close()
sys.stdin.readline()
asyncio.run(main())
"""
    started = [
        await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            code,
            shared_url,
            key,
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        for _ in range(4)
    ]
    told = await asyncio.gather(*(process.communicate(b"go\n") for process in started))
    assert [process.returncode for process in started] == [0] * 4
    assert len({out.splitlines()[-1] for out, _ in told}) == 1


# -- every order of two and three sessions' steps


class Session:
    """One process's refresh, a step at a time. The provider rotates, and ends the grant at the second use."""

    def __init__(self, vault: Vault, connection_id: str, name: str, provider: Provider) -> None:
        self.name = name
        self._vault, self._id, self._provider = vault, connection_id, provider
        self._lease: Leased | None = None
        self._sent: str | None = None
        self._got: str | None = None

    async def take(self) -> None:
        self._lease = await self._vault.lease(self._id, holder=self.name, seconds=60)

    async def intend(self) -> None:
        if self._lease is None:
            return
        held = (await self._lease.tokens()).refresh_token
        assert held is not None
        digest = self._vault.digest(held)
        if self._lease.intent is not None or await self._lease.is_spent(digest):
            return  # sent by somebody whose outcome is unknown
        try:
            await self._lease.write_intent(digest, NOW)
        except (LeaseLost, GrantChanged):
            self._lease = None
        else:
            self._sent = held.reveal()

    async def send(self) -> None:
        if self._sent is not None:
            self._got = self._provider.redeem(self._sent)

    async def commit(self) -> None:
        if self._lease is None or self._got is None or self._sent is None:
            return
        given = tokens(refresh_token=Secret(self._got))
        try:
            await self._lease.commit(
                given, [event("refresh.done")], spent=self._vault.digest(Secret(self._sent))
            )
        except (LeaseLost, GrantChanged):
            self._lease = None

    async def release(self) -> None:
        if self._lease is not None:
            await self._lease.release()

    async def lapse(self) -> None:
        """Time passes: whatever lease there is has ended."""

        async def work(tx: object) -> None:
            await tx.run("UPDATE connections SET lease_until = 0 WHERE lease_until IS NOT NULL")  # type: ignore[attr-defined]

        await self._vault.backend.write(work)


class Provider:
    """Rotates refresh tokens and remembers each arrival."""

    def __init__(self) -> None:
        self.arrived: list[str] = []

    def redeem(self, token: str) -> str:
        self.arrived.append(token)
        return f"{token}+"


def orders(*lengths: int) -> list[tuple[int, ...]]:
    """All ways to interleave sessions of so many steps each."""
    if not any(lengths):
        return [()]
    found = []
    for index, left in enumerate(lengths):
        if left:
            fewer = [*lengths[:index], left - 1, *lengths[index + 1 :]]
            found += [(index, *rest) for rest in orders(*fewer)]
    return found


STEPS = ("take", "intend", "send", "commit", "release")
SHORT = ("take", "intend+send", "commit")


@pytest.mark.scenario("A30", "A05", "A14")
@pytest.mark.parametrize(
    ("sessions", "steps", "lapses", "stride"),
    [(2, STEPS, False, 1), (2, STEPS, True, 4), (3, SHORT, False, 3), (3, SHORT, True, 40)],
    ids=["2", "2 with a lease that ends", "3", "3 with a lease that ends"],
)
async def test_every_order_of_steps(
    keyring: Keyring, sessions: int, steps: tuple[str, ...], lapses: bool, stride: int
) -> None:
    """No refresh token is sent twice, and generations are the number of commits, whoever overtakes whom.
    Where there are very many orders, every `stride`-th is tried."""
    vault = await Vault.open("sqlite://", keyring=keyring, environment=Environment.PRODUCTION)
    tried = orders(*[len(steps)] * sessions, *([1] if lapses else []))[::stride]
    for order in tried:
        kept = await vault.keep_grant(grant(word=f"o{len(tried)}"), [])
        provider = Provider()
        acting = [Session(vault, kept.id, f"s{number}", provider) for number in range(sessions)]
        turns = [iter(steps) for _ in acting]
        for index in order:
            if index == sessions:
                await acting[0].lapse()
            else:
                for step in next(turns[index]).split("+"):
                    await getattr(acting[index], step)()
        assert len(provider.arrived) == len(set(provider.arrived)), order
        found = await vault.find(KEY)
        assert found is not None
        assert kept.generation <= found.generation <= kept.generation + len(provider.arrived), order
        if not lapses:
            assert found.generation == kept.generation + len(provider.arrived), order
        await vault.disconnect(kept.id, [])
    await vault.close()
