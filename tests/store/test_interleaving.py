"""Two replicas' transactions on one connection, statement by statement in many orders: what comes of them is always
what comes of one after the other. SQLite runs writers one after the other anyway; PostgreSQL has to be shown to."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

import pytest

from authproxy.core.errors import UserDisabled
from authproxy.core.model import Environment, State
from authproxy.core.secret import Secret
from authproxy.store.base import GrantChanged, LeaseLost, Row, Transaction, Value
from authproxy.store.connections import Connections
from authproxy.store.revocations import Owing
from authproxy.store.sealing import Keyring
from authproxy.store.vault import Leased, Vault
from tests.store.parts import KEY, NOW, event, flow, grant, tokens

STUCK = 0.03  # seconds after which a statement that has not ended waits for the other one's row


class Gate:
    """Lets one transaction's statements through, one at a time."""

    def __init__(self) -> None:
        self.waiting = asyncio.Event()
        self._open = asyncio.Semaphore(0)
        self.shut = True

    async def __call__(self) -> None:
        if self.shut:
            self.waiting.set()
            await self._open.acquire()

    def let(self) -> None:
        self.waiting.clear()
        self._open.release()

    def leave_open(self) -> None:
        self.shut = False
        self._open.release()


class Gated:
    """A backend whose transactions stop before each statement, and before their commit."""

    def __init__(self, backend: Any) -> None:
        self._backend = backend
        self.gate = Gate()

    async def read(self, sql: str, *values: Value) -> Sequence[Row]:
        rows: Sequence[Row] = await self._backend.read(sql, *values)
        return rows

    async def write(self, work: Callable[[Transaction], Awaitable[Any]]) -> Any:
        gate = self.gate

        class Stopping:
            def __init__(self, tx: Transaction) -> None:
                self._tx = tx

            async def run(self, sql: str, *values: Value) -> Sequence[Row]:
                await gate()
                return await self._tx.run(sql, *values)

            async def run_many(self, sql: str, rows: Sequence[Sequence[Value]]) -> None:
                await gate()
                await self._tx.run_many(sql, rows)

            async def alone(self, *name: str) -> None:
                await gate()
                await self._tx.alone(*name)

        async def slowly(tx: Transaction) -> Any:
            done = await work(Stopping(tx))
            await gate()
            return done

        return await self._backend.write(slowly)

    async def describe(self) -> Any:
        return await self._backend.describe()

    async def close(self) -> None:
        await self._backend.close()


# What a replica may do, given its vault, the connection and the lease that was taken before it all began.
Act = Callable[[Vault, str, Leased], Awaitable[Any]]


def held(vault: Vault, lease: Leased) -> Leased:
    """The same lease, over this vault's own backend."""
    return Leased(vault, lease._row, "holder")


async def take(vault: Vault, connection_id: str, _lease: Leased) -> Any:
    return await vault.lease(connection_id, holder="other", seconds=60) is not None


async def intend(vault: Vault, _id: str, lease: Leased) -> Any:
    await held(vault, lease).write_intent("digest", NOW)


async def commit(vault: Vault, _id: str, lease: Leased) -> Any:
    done = await held(vault, lease).commit(
        tokens("new"), [event("refresh.done")], spent=vault.digest(Secret("CANARY-rt-old"))
    )
    return done.generation


async def settle(vault: Vault, _id: str, lease: Leased) -> Any:
    presented = vault.digest(Secret("CANARY-rt-old"))
    return await held(vault, lease).settle(
        state=State.NEEDS_REAUTH, presented=presented, clear_intent=True, events=[event("ended")]
    )


async def release(vault: Vault, _id: str, lease: Leased) -> Any:
    await held(vault, lease).release()


async def connect(vault: Vault, _id: str, lease: Leased) -> Any:
    done = await vault.keep_grant(
        grant(lease.connection.key, word="second", grant_id="second"), [event("connection.made")]
    )
    return done.id == lease.connection.id


async def disconnect(vault: Vault, connection_id: str, _lease: Leased) -> Any:
    gone = await vault.disconnect(connection_id, [event("gone")])
    return gone and gone.refresh_token


async def disable(vault: Vault, _id: str, lease: Leased) -> Any:
    key = lease.connection.key
    numbers = itertools.count()
    done = await vault.disable_user(
        key.tenant,
        key.user,
        at=NOW,
        by="ops",
        reason=None,
        keep_grants=False,
        owing=lambda: Owing(f"rev_{key.user}_{next(numbers)}", NOW, NOW),
    )
    return done.changed, [
        one.owed and one.owed.tokens and one.owed.tokens.refresh_token for one in done.ended
    ]


async def told(act: Act, vault: Vault, connection_id: str, lease: Leased) -> Any:
    try:
        return await act(vault, connection_id, lease)
    except (LeaseLost, GrantChanged, UserDisabled) as error:
        return type(error).__name__


async def begun(vault: Vault, number: int, *, lapsed: bool) -> tuple[str, Leased]:
    kept = await vault.keep_grant(grant(KEY._replace(user=f"u{number}"), word="old", grant_id="first"), [])
    lease = await vault.lease(kept.id, holder="holder", seconds=0 if lapsed else 60)
    assert lease is not None
    return kept.id, lease


async def state_of(vault: Vault, connection_id: str) -> Any:
    (row,) = await vault.backend.read(
        """SELECT state, generation, grant_id, refresh_digest, lease_holder, lease_fence, intent_digest, failures,
        (SELECT count(*) FROM spent WHERE connection_id = c.id) AS spent,
        (SELECT count(*) FROM revocations WHERE connection_id = c.id) AS owed FROM connections c WHERE id = ?""",
        connection_id,
    )
    kinds = sorted(one.kind for one in await vault.timeline(connection_id))
    return (*tuple(row), *kinds)  # type: ignore[arg-type]


async def interleaved(
    gates: Sequence[Gate], tasks: Sequence[asyncio.Task[Any]], order: Sequence[int]
) -> None:
    """Lets statements through in this order, as far as there are any and none waits for the other's row."""
    for turn in order:
        gate, task = gates[turn], tasks[turn]
        if task.done() or not gate.waiting.is_set():
            continue
        gate.let()
        stopped = asyncio.create_task(gate.waiting.wait())
        await asyncio.wait({stopped, task}, timeout=STUCK, return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
    for gate in gates:
        gate.leave_open()


@pytest.fixture
async def replicas(database: str, keyring: Keyring) -> AsyncIterator[tuple[Vault, Vault, Vault]]:
    vaults = [
        await Vault.open(database, keyring=keyring, environment=Environment.PRODUCTION, clock=lambda: NOW)
        for _ in range(3)
    ]
    yield (vaults[0], vaults[1], vaults[2])
    for vault in vaults:
        await vault.close()


def gated(vault: Vault) -> tuple[Vault, Gate]:
    backend = Gated(vault.backend)
    assert isinstance(vault, Connections)
    return Vault(backend, vault._safe, vault.environment, vault.clock), backend.gate


ACTS: tuple[Act, ...] = (take, intend, commit, settle, release, connect, disconnect)


@pytest.mark.scenario("A30", "A04", "A16", "A18", "A15", "E08", "I10")
@pytest.mark.parametrize("lapsed", [False, True], ids=["the lease holds", "the lease has ended"])
@pytest.mark.parametrize(
    "pair",
    [
        *itertools.combinations_with_replacement(ACTS, 2),
        *((act, disable) for act in (commit, settle, connect, disconnect, disable)),
    ],
    ids=lambda pair: "+".join(a.__name__ for a in pair),
)
async def test_overlapping_transactions_are_as_if_one_after_the_other(
    replicas: tuple[Vault, Vault, Vault], pair: tuple[Act, Act], lapsed: bool
) -> None:
    plain, *two = replicas
    numbers = itertools.count()
    expected = []
    for first, second in ((0, 1), (1, 0)):
        connection_id, lease = await begun(plain, next(numbers), lapsed=lapsed)
        came: dict[int, Any] = {}
        for which in (first, second):
            came[which] = await told(pair[which], plain, connection_id, lease)
        expected.append((came[0], came[1], await state_of(plain, connection_id)))
    chance = random.Random(f"{pair[0].__name__} {pair[1].__name__} {lapsed}")
    orders = [[0, 1] * 8, [0] + [1] * 8 + [0] * 8, [0, 0] + [1] * 8 + [0] * 8]
    orders += [[chance.randrange(2) for _ in range(16)] for _ in range(2)]
    for order in orders:
        connection_id, lease = await begun(plain, next(numbers), lapsed=lapsed)
        doors = [gated(vault) for vault in two]
        tasks = [
            asyncio.create_task(told(act, vault, connection_id, lease))
            for act, (vault, _) in zip(pair, doors, strict=True)
        ]
        gates = [gate for _, gate in doors]
        for gate in gates:
            await gate.waiting.wait()
        await interleaved(gates, tasks, order)
        came_of = await asyncio.gather(*tasks)
        assert (*came_of, await state_of(plain, connection_id)) in expected, order


@pytest.mark.scenario("H06")
async def test_flows_are_counted_and_made_as_one(replicas: tuple[Vault, Vault, Vault]) -> None:
    _, *two = replicas
    for turn in range(6):
        key = KEY._replace(user=f"f{turn}")
        doors = [gated(vault) for vault in two]
        tasks = [asyncio.create_task(vault.create_flow(flow(key), Secret("v"), most=1)) for vault, _ in doors]
        gates = [gate for _, gate in doors]
        for gate in gates:
            await gate.waiting.wait()
        await interleaved(gates, tasks, [0] * turn + [1] * 4 + [0] * 4)
        assert sorted(await asyncio.gather(*tasks)) == [False, True]
