"""What is SQLite's own: files and their modes, full and read-only disks, schemas, busy neighbours."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from authproxy.core.errors import BadRequest, StoreUnavailable
from authproxy.core.secret import Secret
from authproxy.store.base import Transaction
from authproxy.store.connections import Connections
from authproxy.store.schema import MIGRATIONS
from authproxy.store.sqlite import SqliteBackend, sqlite_path
from tests.store.conftest import Opener
from tests.store.parts import KEY, contents, event, grant, tokens


def modes(directory: Path) -> dict[str, int]:
    return {file.name: stat.S_IMODE(file.stat().st_mode) for file in directory.iterdir()}


@pytest.mark.parametrize("umask", [0, 0o22, 0o277])
async def test_files_are_for_their_owner_only(opener: Opener, path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        vault = await opener()
        await vault.keep_grant(grant(), [])
    finally:
        os.umask(before)
    assert modes(path.parent) == {"store.db": 0o600, "store.db-wal": 0o600, "store.db-shm": 0o600}


def test_urls_name_files() -> None:
    assert sqlite_path("sqlite:///a.db") == Path("a.db")
    assert sqlite_path("sqlite:////var/a.db") == Path("/var/a.db")
    assert sqlite_path("sqlite://") is None
    assert sqlite_path("sqlite:///:memory:") is None


@pytest.mark.parametrize("name", [".", "..", "/", "/tmp", "a/.."])
def test_a_directory_is_no_store(name: str) -> None:
    with pytest.raises(StoreUnavailable) as caught:
        sqlite_path(f"sqlite:///{name}")
    assert caught.value.reason == "not_a_file"


async def test_a_missing_directory_is_said_clearly(tmp_path: Path) -> None:
    for path, word in ((tmp_path / "none" / "a.db", "does not exist"), (tmp_path, "not a file")):
        with pytest.raises(StoreUnavailable, match=word):
            await SqliteBackend.open(path)
    assert modes(tmp_path) == {}


@pytest.mark.scenario("E05")
def test_what_is_no_database_is_left_alone(path: Path) -> None:
    path.write_bytes(b"something else entirely " * 100)
    with pytest.raises(StoreUnavailable, match="not a SQLite database"):
        asyncio.run(SqliteBackend.open(path))
    assert contents(path) == b"something else entirely " * 100


@pytest.mark.scenario("E13")
async def test_a_newer_schema_is_refused_untouched(opener: Opener, path: Path) -> None:
    vault = await opener()
    await vault.keep_grant(grant(), [])
    await vault.close()
    with sqlite3.connect(path) as db:
        db.execute(f"PRAGMA user_version={len(MIGRATIONS) + 1}")
    db.close()
    before = contents(path)
    with pytest.raises(StoreUnavailable) as caught:
        await opener()
    assert caught.value.reason == "schema_newer"
    assert contents(path) == before


async def test_settings_are_as_promised(opener: Opener) -> None:
    backend = (await opener()).backend
    assert isinstance(backend, SqliteBackend)
    for pragma, value in (
        ("journal_mode", "wal"),
        ("synchronous", 2),
        ("secure_delete", 1),
        ("foreign_keys", 1),
    ):
        (row,) = await backend.run(f"PRAGMA {pragma}")
        assert row[0] == value  # type: ignore[index]
    with pytest.raises(StoreUnavailable):
        await backend.read("DELETE FROM meta RETURNING name")
    assert (await backend.describe())["store"] == "sqlite"


@pytest.mark.scenario("E05", "A20")
async def test_a_full_disk_loses_nothing(opener: Opener) -> None:
    vault = await opener()
    kept = await vault.keep_grant(grant(word="1"), [])
    lease = await vault.lease(kept.id, holder="x", seconds=60)
    assert lease is not None
    backend = vault.backend
    assert isinstance(backend, SqliteBackend)
    (pages,) = await backend.run("PRAGMA page_count")
    await backend.run(f"PRAGMA max_page_count={pages[0]}")  # type: ignore[index]
    big = tokens("2", access_token=Secret("x" * 100_000))
    for _ in range(2):
        with pytest.raises(StoreUnavailable) as caught:
            await lease.commit(big, [event()], spent=None)
        assert caught.value.reason == "full"
        assert await vault.find(KEY) == kept
    await backend.run("PRAGMA max_page_count=1000000")
    assert (await lease.commit(big, [event()], spent=None)).generation == 2
    assert len(await vault.timeline(kept.id)) == 1


FULL_FILESYSTEM = """
import asyncio, os, sys
from pathlib import Path
from authproxy.core.errors import StoreUnavailable
from authproxy.core.model import Environment
from authproxy.store.audit import Trail
from authproxy.store.sealing import Keyring, generate_key
from authproxy.store.vault import Vault
from authproxy.store.verify import verify
from tests.store.parts import *

async def main():
    path = Path(sys.argv[1])
    key = Keyring.parse(generate_key())
    vault = await Vault.open(f"sqlite:///{path}", keyring=key, environment=Environment.PRODUCTION)
    trail = Trail(vault, flush=0.01)
    await trail.start()
    kept = await vault.keep_grant(grant(word="1"), [])
    lease = await vault.lease(kept.id, holder="x", seconds=60)
    ballast = path.with_name("ballast")
    with ballast.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"x" * 4096)
        except OSError:
            pass
    refused = 0
    for number in range(200):
        try:
            await lease.commit(tokens("2", access_token=Secret("y" * 50_000)), [event()], spent=None)
            break
        except StoreUnavailable as error:
            refused += 1
            if number > 5:
                break
    assert refused, "the disk was full"
    written = 0
    while trail.failed_writes < 2:
        trail.record("request", user="alice", path="/" + "p" * 5000)
        written += 1
        await asyncio.sleep(0.01)
    assert (await vault.find(KEY)).generation == 1
    ballast.unlink()
    assert (await lease.commit(tokens("2"), [event()], spent=None)).generation == 2
    await trail.close()
    report = await verify(vault)
    assert report.sound, report
    assert report.records == 1 + written + 1, (report, written)
    await vault.close()
    print("survived")

asyncio.run(main())
"""


@pytest.mark.scenario("E05", "A20")
def test_a_full_filesystem_loses_nothing(tmp_path: Path) -> None:
    """A real one, of 2 MB: needs the right to mount in a namespace of one's own."""
    place = tmp_path / "small"
    place.mkdir()
    mount = f"mount -t tmpfs -o size=2m tmpfs {place}"
    if subprocess.run(["unshare", "-m", "sh", "-c", mount], capture_output=True).returncode:
        pytest.skip("no right to mount here")
    run = f'{mount} && exec {sys.executable} -c "$SCRIPT" {place}/store.db'
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", run],
        env={**os.environ, "SCRIPT": FULL_FILESYSTEM},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert done.stdout.splitlines()[-1:] == ["survived"], done.stdout + done.stderr


@pytest.mark.scenario("E05", "E06")
async def test_a_read_only_store_is_unavailable_for_writing_only(opener: Opener) -> None:
    vault = await opener()
    kept = await vault.keep_grant(grant(), [])
    backend = vault.backend
    assert isinstance(backend, SqliteBackend)
    await backend.run("PRAGMA query_only=ON")
    with pytest.raises(StoreUnavailable) as caught:
        await vault.disconnect(kept.id, [event()])
    assert caught.value.reason == "readonly"
    assert await vault.find(KEY) == kept
    await backend.run("PRAGMA query_only=OFF")
    assert await vault.disconnect(kept.id, [event()]) is not None


@pytest.mark.scenario("E07")
async def test_a_busy_neighbour_is_waited_for(opener: Opener, path: Path) -> None:
    vault = await opener()
    neighbour = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    neighbour.execute("BEGIN IMMEDIATE")
    done = asyncio.create_task(vault.keep_grant(grant(), []))
    assert await vault.find(KEY) is None, "readers are not held up"
    ended = threading.Timer(0.3, neighbour.execute, ("COMMIT",))
    ended.start()
    assert (await done).generation == 1
    ended.join()
    neighbour.close()


@pytest.mark.scenario("E07", "E06")
async def test_a_neighbour_that_never_ends_is_said_to_be_busy(opener: Opener, path: Path) -> None:
    vault = await opener()
    kept = await vault.keep_grant(grant(), [])
    backend = await SqliteBackend.open(path, busy_timeout=0.01)
    impatient = Connections(backend, vault._safe, vault.environment, vault.clock)
    neighbour = sqlite3.connect(path, isolation_level=None)
    neighbour.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreUnavailable) as caught:
        await impatient.disconnect(kept.id, [])
    assert caught.value.reason == "busy"
    neighbour.execute("ROLLBACK")
    neighbour.close()
    assert await impatient.disconnect(kept.id, []) is not None
    await backend.close()


async def test_a_name_that_is_no_unicode_is_the_requests_fault(opener: Opener) -> None:
    vault = await opener()
    with pytest.raises(BadRequest):
        await vault.find(KEY._replace(user="\udcff"))


@pytest.mark.scenario("E11")
async def test_where_the_store_is_can_be_told(opener: Opener, path: Path) -> None:
    told = await (await opener()).backend.describe()
    assert told["path"] == str(path)
    assert int(told["bytes"]) > 0


@pytest.mark.scenario("E07")
async def test_a_read_then_write_never_has_to_be_run_again(opener: Opener) -> None:
    """A deferred transaction that read first would fail at once when the other one has written meanwhile."""
    vaults = [await opener() for _ in range(3)]
    runs = 0

    async def work(tx: Transaction) -> None:
        nonlocal runs
        runs += 1
        (row,) = await tx.run("SELECT count(*) AS n FROM events")
        await tx.run("INSERT INTO meta (name, value) VALUES (?, ?)", f"n{runs}", str(row["n"]))

    await asyncio.gather(*(vault.backend.write(work) for vault in vaults for _ in range(20)))
    assert runs == 60


@pytest.mark.parametrize("many", [0, 1, 99, 100, 101, 250])
async def test_many_rows_arrive_each_once_and_in_their_order(many: int) -> None:
    backend = await SqliteBackend.open(None)
    rows = [("hook", number, number, number * 2) for number in range(many)]

    async def work(tx: Transaction) -> None:
        await tx.run("CREATE TABLE kept (place INTEGER PRIMARY KEY, a TEXT, b INTEGER, c INTEGER, d INTEGER)")
        await tx.run("CREATE UNIQUE INDEX one ON kept (a, b)")
        for _ in range(2):
            sql = "INSERT INTO kept (a, b, c, d) VALUES (?, ?, ?, ?)\n    ON CONFLICT (a, b) DO NOTHING"
            await tx.run_many(sql, rows)

    await backend.write(work)
    found = await backend.read("SELECT a, b, c, d FROM kept ORDER BY place")
    assert [tuple(row) for row in found] == rows  # type: ignore[arg-type]
    await backend.close()
