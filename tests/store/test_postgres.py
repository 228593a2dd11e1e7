"""PostgreSQL only: standbys, restarts, poolers, other people's settings, and what its URL may and may not show."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack

import asyncpg
import pytest

from authproxy.core.errors import BadRequest, KeyMissing, StoreUnavailable
from authproxy.core.model import Environment, State
from authproxy.core.secret import Secret
from authproxy.store.audit import Trail
from authproxy.store.base import Transaction
from authproxy.store.postgres import PostgresBackend, redacted
from authproxy.store.reading import last_position, tail
from authproxy.store.sealing import Keyring
from authproxy.store.vault import Vault
from tests.kit.pooler import Pooler
from tests.kit.ports import free_port
from tests.kit.postgres import Postgres
from tests.store.parts import KEY, NOW, event, grant, tokens

Open = Callable[..., Awaitable[Vault]]


@pytest.fixture
def database(postgres: Postgres) -> str:
    """One that may be altered: it is nobody's after this test."""
    return postgres.database()


@pytest.fixture
async def open_(database: str, keyring: Keyring) -> AsyncIterator[Open]:
    async with AsyncExitStack() as stack:

        async def one(url: str = database, **changes: object) -> Vault:
            values = {"keyring": keyring, "environment": Environment.PRODUCTION} | changes
            vault = await Vault.open(url, **values)  # type: ignore[arg-type]
            stack.push_async_callback(vault.close)
            return vault

        yield one


async def execute(url: str, *sql: str) -> None:
    connection = await asyncpg.connect(url)
    for one in sql:
        await connection.execute(one)
    await connection.close()


# -- who may be asked


@pytest.fixture(scope="module")
def pair() -> Iterator[tuple[Postgres, Postgres]]:
    """A primary and a standby that follows it."""
    # With SERIALIZABLE as the default nothing at all can be asked of a standby.
    settings = {"default_transaction_isolation": "repeatable read"}
    with Postgres.running(**settings) as primary, primary.standby() as standby:
        yield primary, standby


async def followed(primary: Postgres, standby: Postgres) -> None:
    """Returns when the standby has all that the primary has."""
    ahead, behind = [await asyncpg.connect(one.url("postgres")) for one in (primary, standby)]
    end = await ahead.fetchval("SELECT pg_current_wal_lsn()")
    async with asyncio.timeout(30):
        while not await behind.fetchval("SELECT pg_last_wal_replay_lsn() >= $1", end):
            continue
    for one in (ahead, behind):
        await one.close()


@pytest.mark.scenario("A32")
async def test_a_standby_is_refused(pair: tuple[Postgres, Postgres], open_: Open) -> None:
    primary, standby = pair
    url = await asyncio.to_thread(primary.database)
    name = url.rpartition("/")[2]
    await (await open_(url)).keep_grant(grant(), [])
    await followed(primary, standby)
    for parameter in ("", "?target_session_attrs=any"):
        with pytest.raises(StoreUnavailable, match="standby") as caught:
            await open_(standby.url(name) + parameter)
        assert caught.value.reason == "standby"
    both = f"postgresql://postgres@127.0.0.1:{standby.port},127.0.0.1:{primary.port}/{name}"
    assert await (await open_(both)).find(KEY) is not None, "of several hosts the primary is taken"


@pytest.mark.scenario("A32", "A33")
async def test_a_pooler_that_turns_to_a_standby_is_found_out(
    pair: tuple[Postgres, Postgres], open_: Open
) -> None:
    """The connection stays, and the server behind it changes: no read may be answered by the standby."""
    primary, standby = pair
    url = await asyncio.to_thread(primary.database)
    kept = await (await open_(url)).keep_grant(grant(), [])
    await followed(primary, standby)
    async with Pooler(primary.port) as pooler:
        vault = await open_(primary.url(url.rpartition("/")[2], port=pooler.port))
        assert await vault.find(KEY) is not None
        pooler.target = standby.port
        for call in (
            vault.find(KEY),
            vault.generation(kept.id),
            vault.lease(kept.id, holder="x", seconds=5),
        ):
            with pytest.raises(StoreUnavailable) as caught:
                await call
            assert caught.value.reason in ("standby", "read_only")
        pooler.target = primary.port
        assert await vault.find(KEY) is not None


@pytest.mark.scenario("A32", "E05")
async def test_a_database_that_is_read_only_is_refused(database: str, open_: Open) -> None:
    vault = await open_()
    kept = await vault.keep_grant(grant(), [])
    name = database.rpartition("/")[2]
    await execute(database, f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    with pytest.raises(StoreUnavailable) as caught:
        await open_()
    assert caught.value.reason == "read_only"
    assert await vault.disconnect(kept.id, []) is not None, "connections that stood go on as they were"


async def test_who_is_not_let_in_is_told_why_and_no_password_is(
    postgres: Postgres, open_: Open, capsys: pytest.CaptureFixture[str]
) -> None:
    secret = "CANARY-pass"
    port = postgres.port
    for url, reason in (
        (f"postgresql://postgres:{secret}@127.0.0.1:{port}/nowhere", "no_database"),
        (f"postgresql://nobody:{secret}@127.0.0.1:{port}/postgres", "refused"),
        (f"postgresql://postgres:{secret}@127.0.0.1:{free_port()}/postgres", "connection"),
        (f"postgresql://postgres:{secret}@127.0.0.1:{port}port/postgres", "url"),
        (f"postgresql://postgres:{secret}@127.0.0.1:{port}/postgres?sslmode=sometimes", "url"),
    ):
        with pytest.raises(StoreUnavailable) as caught:
            await open_(url)
        assert caught.value.reason == reason
        shown, error = "", caught.value
        while error is not None:
            shown += f"{error} {error!r} {vars(error)}"
            error = error.__cause__  # type: ignore[assignment]
        assert secret not in shown
    out = capsys.readouterr()
    assert secret not in out.out + out.err


@pytest.mark.scenario("F03")
@pytest.mark.parametrize("rest", ["[::1/x", "127.0.0.1:x/y", "h/x?sslmode=CANARY", "127.0.0.1:1/x"])
async def test_a_url_that_leads_nowhere_is_said_without_its_password(keyring: Keyring, rest: str) -> None:
    url = f"postgresql://u:CANARY@{rest}"
    with pytest.raises(StoreUnavailable) as caught:
        await Vault.open(url, keyring=keyring, environment=Environment.STAGING)
    assert caught.value.reason in ("url", "connection")
    assert "CANARY" not in "".join(traceback.format_exception(caught.value))


async def test_where_the_store_is_can_be_told_without_its_password(database: str, open_: Open) -> None:
    vault = await open_(database.replace("postgres@", "postgres:CANARY@") + "?application_name=mine")
    told = await vault.backend.describe()
    assert told["store"] == "postgresql"
    assert "CANARY" not in str(told)
    assert "postgres@" not in str(told["path"])
    assert int(told["bytes"]) > 0
    assert redacted("postgres://u:p@h1:1,h2/db?password=p&host=x") == "postgresql://h1:1,h2/db"


@pytest.mark.scenario("E01")
async def test_a_key_that_nobody_keeps_does_not_seal_it(open_: Open) -> None:
    with pytest.raises(KeyMissing, match="AUTHPROXY_KEYS"):
        await open_(keyring=Keyring.passing())


def test_without_its_driver_it_says_which_extra_is_missing() -> None:
    code = """
import asyncio, sys
sys.modules["asyncpg"] = None
from authproxy.core.errors import StoreUnavailable
from authproxy.store.vault import open_backend
try:
    asyncio.run(open_backend("postgresql://h/db"))
except StoreUnavailable as error:
    print(error.reason, error)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True
    )
    assert done.stdout.startswith("driver_missing")
    assert "authproxy[postgres]" in done.stdout


# -- the schema


@pytest.mark.scenario("E13")
async def test_a_newer_schema_is_refused_untouched(database: str, open_: Open) -> None:
    await (await open_()).keep_grant(grant(), [])
    await execute(database, "UPDATE authproxy_schema SET version = version + 1")
    with pytest.raises(StoreUnavailable) as caught:
        await open_()
    assert caught.value.reason == "schema_newer"


async def test_somebody_elses_database_is_left_alone(database: str, open_: Open) -> None:
    await execute(database, "CREATE TABLE events (theirs TEXT)")
    with pytest.raises(StoreUnavailable) as caught:
        await open_()
    assert caught.value.reason == "not_empty"
    connection = await asyncpg.connect(database)
    rows = await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    await connection.close()
    assert [row[0] for row in rows] == ["events"], "all or nothing"


@pytest.mark.scenario("E13", "E01")
async def test_replicas_that_start_at_once_make_one_store(open_: Open) -> None:
    vaults = await asyncio.gather(*(open_() for _ in range(6)))
    assert len({vault.digest(Secret("x")) for vault in vaults}) == 1


# -- other people's settings


@pytest.mark.scenario("B29", "A06")
@pytest.mark.parametrize("zone", ["Pacific/Kiritimati", "America/Los_Angeles", "UTC"])
async def test_no_time_zone_moves_a_lease(database: str, open_: Open, zone: str) -> None:
    name = database.rpartition("/")[2]
    await execute(database, f"ALTER DATABASE {name} SET timezone = '{zone}'")
    vault = await open_()
    (row,) = await vault.backend.read("SELECT now_ms() AS now, current_setting('timezone') AS zone")
    assert row["zone"] == zone
    assert abs(row["now"] / 1000 - time.time()) < 60
    kept = await vault.keep_grant(grant(), [])
    assert await vault.lease(kept.id, holder="one", seconds=60) is not None
    assert await vault.lease(kept.id, holder="two", seconds=60) is None


@pytest.mark.scenario("E05", "E08")
async def test_what_is_told_as_written_is_on_disk(database: str, open_: Open) -> None:
    name = database.rpartition("/")[2]
    await execute(database, f"ALTER DATABASE {name} SET synchronous_commit = off")

    async def work(tx: Transaction) -> str:
        (row,) = await tx.run("SELECT current_setting('synchronous_commit') AS how")
        return str(row["how"])

    assert await (await open_()).backend.write(work) == "on"


async def test_names_are_compared_byte_by_byte(database: str, open_: Open) -> None:
    backend = (await open_()).backend
    rows = await backend.read(
        "SELECT table_name, column_name FROM information_schema.columns WHERE data_type = ? "
        "AND table_schema = ? AND collation_name IS DISTINCT FROM ?",
        "text",
        "public",
        "C",
    )
    assert [tuple(row) for row in rows] == []  # type: ignore[call-overload]


async def test_a_name_that_is_no_text_is_the_requests_fault(open_: Open) -> None:
    vault = await open_()
    for name in ("\udcff", "a\0b"):
        with pytest.raises(BadRequest):
            await vault.find(KEY._replace(user=name))
    await vault.keep_grant(grant(provider_account="a\0b"), [event(user="a\0b")])


# -- poolers


@pytest.mark.scenario("A33", "A03", "A05")
async def test_everything_runs_behind_a_transaction_pooler(
    postgres: Postgres, database: str, open_: Open
) -> None:
    """Replicas refresh one connection through a pooler that never gives them the same server connection twice."""
    async with Pooler(postgres.port) as pooler:
        url = postgres.url(database.rpartition("/")[2], port=pooler.port)
        vaults = [await open_(url) for _ in range(3)]
        kept = await vaults[0].keep_grant(grant(word="start"), [event()])
        won: list[int] = []

        async def refresh(vault: Vault, number: int) -> None:
            lease = await vault.lease(kept.id, holder=f"h{number}", seconds=60)
            if lease is None:
                return
            held = (await lease.tokens()).refresh_token
            assert held is not None
            digest = vault.digest(held)
            assert not await lease.is_spent(digest)
            await lease.write_intent(digest, NOW)
            assert await vaults[number % 3].lease(kept.id, holder="other", seconds=60) is None
            after = await lease.commit(tokens(f"{number}"), [event("refresh.done")], spent=digest)
            won.append(after.generation)
            await lease.release()

        for turn in range(10):
            await asyncio.gather(*(refresh(vault, turn * 3 + n) for n, vault in enumerate(vaults)))
        assert sorted(won) == [*range(2, len(won) + 2)]
        assert len(won) >= 10
        trail = Trail(vaults[0], flush=0.01)
        await trail.start()
        await trail.strict("request")
        await trail.close()
        found = await vaults[1].find(KEY)
        assert found is not None
        assert found.generation == won[-1]
        assert len(set(pooler.used)) >= 3, "the same server connection all the time shows nothing"


@pytest.mark.scenario("A33")
async def test_nothing_is_left_in_a_session(postgres: Postgres, database: str, open_: Open) -> None:
    vault = await open_()
    kept = await vault.keep_grant(grant(), [event()])
    assert await vault.lease(kept.id, holder="one", seconds=60) is not None
    for sql in (
        "SELECT count(*) AS n FROM pg_prepared_statements",
        "SELECT count(*) AS n FROM pg_locks WHERE locktype = 'advisory'",
        """SELECT count(*) AS n FROM pg_settings WHERE source = 'session'
        AND name NOT IN ('transaction_isolation', 'transaction_read_only', 'transaction_deferrable')""",
    ):
        (row,) = await vault.backend.read(sql)
        assert row["n"] == 0, sql


# -- a server that goes away


@pytest.mark.scenario("A07", "E06")
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGQUIT], ids=["restarted", "crashed"])
async def test_a_restart_of_the_database_in_mid_refresh(keyring: Keyring, how: signal.Signals) -> None:
    with Postgres.running() as server:
        url = await asyncio.to_thread(server.database)
        vaults = [
            await Vault.open(url, keyring=keyring, environment=Environment.PRODUCTION) for _ in range(2)
        ]
        kept = await vaults[0].keep_grant(grant(word="1"), [event()])
        lease = await vaults[0].lease(kept.id, holder="one", seconds=60)
        assert lease is not None
        digest = vaults[0].digest(Secret("CANARY-rt-1"))
        await lease.write_intent(digest, NOW)
        await asyncio.to_thread(server.stop, how)
        for call in (
            lease.commit(tokens("2"), [event("refresh.done")], spent=digest),
            vaults[1].find(KEY),
            vaults[1].lease(kept.id, holder="two", seconds=60),
        ):
            with pytest.raises(StoreUnavailable):
                await call
        await asyncio.to_thread(server.start)
        assert await vaults[1].lease(kept.id, holder="two", seconds=60) is None, "the lease outlived it"
        after = await lease.commit(tokens("2"), [event("refresh.done")], spent=digest)
        assert (after.generation, after.state) == (2, State.ACTIVE)
        assert [e.kind for e in await vaults[1].timeline(kept.id)] == ["connection.made", "refresh.done"]
        for vault in vaults:
            await vault.close()


@pytest.mark.scenario("A20", "E08")
async def test_a_connection_that_is_cut_leaves_all_or_nothing(database: str, open_: Open) -> None:
    """Cut at every statement of a commit; it is repeated until it is told as written, and is there once."""
    vault = await open_()
    kept = await vault.keep_grant(grant(word="0"), [])
    backend = vault.backend
    assert isinstance(backend, PostgresBackend)
    for cut in range(6):
        lease = await vault.lease(kept.id, holder=f"h{cut}", seconds=60)
        assert lease is not None
        backend._pool = pool = Cutting(backend._pool, after=cut)
        with pytest.raises(StoreUnavailable):
            await lease.commit(tokens(f"{cut}"), [event("refresh.done")], spent=f"spent-{cut}")
        backend._pool = pool.pool
        after = await lease.commit(tokens(f"{cut}"), [event("refresh.done")], spent=f"spent-{cut}")
        assert after.generation == cut + 2
        await lease.release()
    assert len(await vault.timeline(kept.id)) == 6


class Cutting:
    """The pool, but a connection ends once so many statements have run on it since it was taken."""

    def __init__(self, pool: object, after: int) -> None:
        self.pool = pool
        self._left = after

    async def acquire(self, **how: object) -> object:
        self._connection = await self.pool.acquire(**how)  # type: ignore[attr-defined]
        return self

    async def release(self, _connection: object) -> None:
        await self.pool.release(self._connection)  # type: ignore[attr-defined]

    async def expire_connections(self) -> None:
        await self.pool.expire_connections()  # type: ignore[attr-defined]

    def is_closed(self) -> bool:
        return bool(self._connection.is_closed())

    def terminate(self) -> None:
        self._connection.terminate()

    async def execute(self, sql: str, *values: object) -> object:
        return await self._count(self._connection.execute, sql, *values)

    async def fetch(self, sql: str, *values: object) -> object:
        return await self._count(self._connection.fetch, sql, *values)

    async def executemany(self, sql: str, rows: object) -> object:
        return await self._count(self._connection.executemany, sql, rows)

    async def _count(self, call: Callable[..., Awaitable[object]], *values: object) -> object:
        done = await call(*values)
        self._left -= 1
        if self._left < 0:
            self._connection.terminate()
            raise ConnectionResetError
        return done


# -- the trail


@pytest.mark.scenario("J06")
async def test_a_tail_skips_nothing(open_: Open) -> None:
    """Positions become visible in their order, though several replicas write."""
    vaults = [await open_() for _ in range(3)]
    trails = [Trail(vault, f"r{n}", flush=0.001) for n, vault in enumerate(vaults)]
    for trail in trails:
        await trail.start()
    reader, seen, after = vaults[0].backend, [], await last_position(vaults[0].backend)

    async def write(trail: Trail) -> None:
        for number in range(60):
            await trail.strict("request", number=number)

    writing = asyncio.gather(*(write(trail) for trail in trails))
    while not writing.done() or await last_position(reader) > after:
        for entry in await tail(reader, after, limit=7):
            seen.append(entry.position)
            after = entry.position
    await writing
    rows = await reader.read("SELECT position FROM audit WHERE kind = 'request' ORDER BY position")
    assert [row["position"] for row in rows] == [p for p in seen if p in {row["position"] for row in rows}]
    assert len(rows) == 180
    for trail in trails:
        await trail.close()
