"""Rows that somebody with the database, but without the key, has laid hands on; and rows under older keys."""

from __future__ import annotations

import contextlib
import logging
import sqlite3
from pathlib import Path

import pytest

from authproxy.core.errors import KeyMissing, StoreUnavailable
from authproxy.core.model import Environment
from authproxy.core.secret import Secret
from authproxy.store.schema import SEALED
from authproxy.store.sealing import Keyring, generate_key
from authproxy.store.vault import Vault
from tests.store.conftest import Opener
from tests.store.parts import KEY, contents, event, flow, grant, tokens

BOB = KEY._replace(user="bob")


def change(path: Path, sql: str, *values: object) -> None:
    with contextlib.closing(sqlite3.connect(path)) as db, db:  # closed also where the statement is refused
        db.execute(sql, values)


def read(path: Path, sql: str, *values: object) -> list[tuple[object, ...]]:
    db = sqlite3.connect(path)
    try:
        return db.execute(sql, values).fetchall()
    finally:
        db.close()


def everything(path: Path) -> bytes:
    return b"".join(file.read_bytes() for file in sorted(path.parent.iterdir()))


async def refused(vault: Vault, reason: str) -> None:
    with pytest.raises(KeyMissing) as caught:
        await vault.access(KEY)
    assert caught.value.reason == reason
    assert await vault.find(KEY) is not None, "unreadable is not unconnected"


@pytest.mark.scenario("E04")
async def test_a_cell_of_another_user_does_not_open(opener: Opener, path: Path) -> None:
    vault = await opener()
    alice, bob = await vault.keep_grant(grant(), []), await vault.keep_grant(grant(BOB), [])
    change(
        path,
        "UPDATE connections SET access_token = (SELECT access_token FROM connections WHERE id = ?) WHERE id = ?",
        bob.id,
        alice.id,
    )
    await refused(vault, "tampered")


@pytest.mark.scenario("E04")
async def test_a_cell_of_another_column_does_not_open(opener: Opener, path: Path) -> None:
    vault = await opener()
    await vault.keep_grant(grant(), [])
    change(path, "UPDATE connections SET access_token = refresh_token")
    await refused(vault, "tampered")


@pytest.mark.scenario("E04")
@pytest.mark.parametrize(
    "column", ["tenant", "user_id", "provider", "account", "client_id", "grant_id", "generation", "id"]
)
async def test_a_row_given_to_somebody_else_does_not_open(opener: Opener, path: Path, column: str) -> None:
    vault = await opener()
    await vault.keep_grant(grant(), [])
    change(path, f"UPDATE connections SET {column} = ?", 9 if column == "generation" else "other")
    names = {"user_id": "user"}
    key = KEY
    if column in ("tenant", "user_id", "provider", "account"):
        key = KEY._replace(**{names.get(column, column): "other"})
    with pytest.raises(KeyMissing) as caught:
        await vault.access(key)
    assert caught.value.reason == "tampered"


@pytest.mark.scenario("E04")
async def test_a_cell_of_an_earlier_generation_does_not_open(opener: Opener, path: Path) -> None:
    vault = await opener()
    kept = await vault.keep_grant(grant(), [])
    [[old]] = read(path, "SELECT refresh_token FROM connections")
    lease = await vault.lease(kept.id, holder="x", seconds=60)
    assert lease is not None
    await lease.commit(tokens("2"), [], spent=None)
    await lease.release()
    change(path, "UPDATE connections SET refresh_token = ?", old)
    again = await vault.lease(kept.id, holder="x", seconds=60)
    assert again is not None
    with pytest.raises(KeyMissing):
        await again.tokens()


@pytest.mark.scenario("E04")
async def test_plaintext_and_older_formats_are_not_believed(opener: Opener, path: Path) -> None:
    vault = await opener()
    await vault.keep_grant(grant(), [])
    [[cell]] = read(path, "SELECT access_token FROM connections")
    assert isinstance(cell, bytes)
    for forged in (b"CANARY-at", cell[:1] + b"\x00" + cell[2:], None):
        change(path, "UPDATE connections SET access_token = ?", forged)
        await refused(vault, "format_unknown")
    with pytest.raises(sqlite3.IntegrityError):
        change(path, "UPDATE connections SET access_token = 'text'")


@pytest.mark.scenario("E04", "C12")
async def test_a_store_of_another_environment_is_refused(opener: Opener, path: Path) -> None:
    vault = await opener()
    await vault.keep_grant(grant(), [])
    await vault.close()
    before = contents(path)
    with pytest.raises(StoreUnavailable, match="belongs to production") as caught:
        await opener(environment=Environment.STAGING)
    assert caught.value.reason == "environment_mismatch"
    assert contents(path) == before
    # Nor does it help to write another name over the stamp.
    change(path, "UPDATE meta SET value = 'staging' WHERE name = 'environment'")
    with pytest.raises(KeyMissing):
        await opener(environment=Environment.STAGING)


@pytest.mark.scenario("E01", "C09")
async def test_the_wrong_key_is_refused_by_name_and_nothing_is_written(opener: Opener, path: Path) -> None:
    vault = await opener()
    await vault.keep_grant(grant(), [])
    await vault.close()
    before, wrong = contents(path), Keyring.parse(generate_key())
    with pytest.raises(KeyMissing) as caught:
        await opener(keyring=wrong)
    assert vault.keyring.newest in caught.value.title
    assert wrong.newest in caught.value.title
    assert "AUTHPROXY_KEYS_FILE" in caught.value.title, "and the way out"
    assert contents(path) == before
    assert await (await opener()).access(KEY) is not None


async def test_a_damaged_stamp_is_not_made_anew(opener: Opener, path: Path) -> None:
    await (await opener()).close()
    change(path, "DELETE FROM meta WHERE name = 'canary'")
    with pytest.raises(StoreUnavailable, match="stamp"):
        await opener()


@pytest.mark.scenario("E02")
async def test_keys_are_rotated_while_tokens_are_written(opener: Opener, path: Path) -> None:
    old, new = generate_key(), generate_key()
    vault = await opener(keyring=Keyring.parse(old))
    kept = await vault.keep_grant(grant(word="a"), [])
    await vault.keep_grant(grant(BOB, word="b"), [])
    made = flow()
    await vault.create_flow(made, Secret("CANARY-verifier"))
    digest = vault.digest(Secret("x"))

    both = await opener(keyring=Keyring.parse(f"{new} {old}"))
    assert await both.stale_cells() == 7
    assert await both.reseal(limit=2) == 5
    lease = await both.lease(kept.id, holder="x", seconds=60)
    assert lease is not None
    await lease.commit(tokens("a2"), [], spent=None)
    change(path, "UPDATE connections SET access_token = x'00' WHERE user_id = 'bob'")
    assert await both.reseal() == 1, "what cannot be opened stays, and stays in the count"
    assert await both.reseal() == 1
    await both.keep_grant(grant(BOB, word="b2"), [])
    assert await both.reseal() == 0

    alone = await opener(keyring=Keyring.parse(new))
    assert alone.digest(Secret("x")) == digest
    for key, word in ((KEY, "a2"), (BOB, "b2")):
        found = await alone.access(key)
        assert found is not None
        assert found[1] == Secret(f"CANARY-at-{word}")
    assert await alone.flow_verifier(made.id) == Secret("CANARY-verifier")


@pytest.mark.scenario("E02")
async def test_every_sealed_column_is_known(opener: Opener, path: Path) -> None:
    await opener()
    found = {
        (table, column)
        for (table,) in read(path, "SELECT name FROM sqlite_master WHERE type = 'table'")
        for (_, column, kind, *_) in read(path, f"PRAGMA table_info({table})")
        if kind == "BLOB"
    }
    assert found == set(SEALED)


@pytest.mark.scenario("E12", "F02", "F03")
async def test_no_secret_is_seen_outside_its_cell(
    opener: Opener, path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    vault = await opener()
    kept = await vault.keep_grant(grant(word="a"), [event(data={"secret": Secret("CANARY-slip")})])
    made = flow()
    await vault.create_flow(made, Secret("CANARY-verifier"))
    await vault.move_flow(made.id, expect=made.status, to=made.status.EXCHANGING)
    await vault.hold_tokens(made.id, tokens("held"))
    lease = await vault.lease(kept.id, holder="x", seconds=60)
    assert lease is not None
    await lease.write_intent(vault.digest(Secret("CANARY-rt-a")), 1)
    await lease.commit(tokens("b"), [event()], spent=vault.digest(Secret("CANARY-rt-a")))
    await vault.keep_grant(grant(BOB, word="c"), [])
    change(path, "UPDATE connections SET access_token = refresh_token WHERE user_id = 'bob'")
    with pytest.raises(KeyMissing) as caught:
        await vault.access(BOB)
    live = everything(path)
    await vault.disconnect(kept.id, [])
    await vault.close()
    seen = live + contents(path) + "".join(capfd.readouterr()).encode()
    seen += caplog.text.encode() + repr([caught.value, vault, lease, whole(caught.value)]).encode()
    assert b"CANARY" not in seen


def whole(error: BaseException) -> str:
    return f"{error!r} {error.__cause__!r} {error.__context__!r} {error.args!r}"


@pytest.mark.scenario("E12")
async def test_a_replaced_cell_is_nowhere_in_the_file(opener: Opener, path: Path) -> None:
    vault = await opener()
    kept = await vault.keep_grant(grant(), [])
    [[access, refresh]] = read(path, "SELECT access_token, refresh_token FROM connections")
    assert isinstance(access, bytes)
    assert isinstance(refresh, bytes)
    lease = await vault.lease(kept.id, holder="x", seconds=60)
    assert lease is not None
    await lease.commit(tokens("2"), [], spent=None)
    await vault.close()
    left = everything(path)
    assert access not in left
    assert refresh not in left
