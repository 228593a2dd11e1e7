"""Whatever is done to the trail behind the writer's back is found, as far as `audit.py` promises."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from authproxy.store.audit import Trail
from authproxy.store.chain import hashed
from authproxy.store.vault import Vault
from authproxy.store.verify import verify
from tests.store.conftest import Opener
from tests.store.parts import NOW

pytestmark = pytest.mark.scenario("J06")


async def two_chains(vault: Vault) -> tuple[str, str]:
    """Chains of ten records each; the second has seen the end of the first."""
    names = []
    for name in ("first", "second"):
        trail = Trail(vault, name, clock=lambda: NOW)
        await trail.start()
        for number in range(9):
            trail.record("request", user="alice", tenant="acme", number=number)
        await trail.close()
        assert trail.chain is not None
        names.append(trail.chain)
    assert (await verify(vault)).sound
    return names[0], names[1]


def change(path: Path, *statements: tuple[str, tuple[object, ...]]) -> None:
    with closing(sqlite3.connect(path)) as db, db:
        for sql, values in statements:
            db.execute(sql, values)


async def faults(vault: Vault) -> dict[str, tuple[int | None, str]]:
    return {fault.chain: (fault.seq, fault.what) for fault in (await verify(vault)).faults}


@pytest.mark.parametrize("seq", [1, 2, 5, 9, 10])
async def test_a_changed_record_is_found(opener: Opener, path: Path, seq: int) -> None:
    vault = await opener()
    first, _ = await two_chains(vault)
    change(
        path,
        (
            "UPDATE audit SET record = replace(record, '\"at\"', '\"ta\"') WHERE chain = ? AND seq = ?",
            (first, seq),
        ),
    )
    found = await faults(vault)
    assert found.keys() == {first}
    assert found[first][0] == seq


@pytest.mark.parametrize(
    "column", ["at", "kind", "tenant", "user_id", "provider", "agent", "request_id", "hash", "seq", "chain"]
)
async def test_a_changed_column_is_found(opener: Opener, path: Path, column: str) -> None:
    vault = await opener()
    first, _ = await two_chains(vault)
    value = 99 if column in ("at", "seq") else "other"
    change(path, (f"UPDATE audit SET {column} = ? WHERE chain = ? AND seq = 5", (value, first)))
    assert (await faults(vault))[first][0] == 5


@pytest.mark.parametrize("seq", [1, 2, 5, 9, 10])
async def test_a_removed_record_is_found(opener: Opener, path: Path, seq: int) -> None:
    vault = await opener()
    first, second = await two_chains(vault)
    for chain in (first, second):
        change(path, ("DELETE FROM audit WHERE chain = ? AND seq = ?", (chain, seq)))
    found = await faults(vault)
    assert {chain: at for chain, (at, _) in found.items()} == {first: seq, second: seq}


async def test_exchanged_records_are_found(opener: Opener, path: Path) -> None:
    vault = await opener()
    first, _ = await two_chains(vault)
    change(
        path,
        ("UPDATE audit SET seq = 100 WHERE chain = ? AND seq = 4", (first,)),
        ("UPDATE audit SET seq = 4 WHERE chain = ? AND seq = 5", (first,)),
        ("UPDATE audit SET seq = 5 WHERE chain = ? AND seq = 100", (first,)),
    )
    assert (await faults(vault))[first][0] == 4


async def test_an_end_cut_off_with_its_head_is_found(opener: Opener, path: Path) -> None:
    vault = await opener()
    _, second = await two_chains(vault)
    with closing(sqlite3.connect(path)) as db:
        [(digest,)] = db.execute("SELECT hash FROM audit WHERE chain = ? AND seq = 7", (second,))
    change(
        path,
        ("DELETE FROM audit WHERE chain = ? AND seq > 7", (second,)),
        ("UPDATE chains SET seq = 7, hash = ? WHERE chain = ?", (digest, second)),
    )
    assert "not sealed" in (await faults(vault))[second][1]


async def test_a_chain_written_anew_from_some_point_is_found(opener: Opener, path: Path) -> None:
    """All hashes right again: only who holds the store's key could seal such a head."""
    vault = await opener()
    _, second = await two_chains(vault)
    with closing(sqlite3.connect(path)) as db:
        rows = db.execute(
            "SELECT seq, record, hash FROM audit WHERE chain = ? ORDER BY seq", (second,)
        ).fetchall()
    prev, forged = "", []
    for seq, text, _ in rows:
        record = {**json.loads(text), "prev": prev}
        if seq == 5:
            record["number"] = "forged"
        text = json.dumps(record, sort_keys=True, separators=(",", ":"))
        prev = hashed(prev, text)
        forged.append(
            ("UPDATE audit SET record = ?, hash = ? WHERE chain = ? AND seq = ?", (text, prev, second, seq))
        )
    change(path, *forged)
    assert "do not end" in (await faults(vault))[second][1]
    change(path, ("UPDATE chains SET hash = ? WHERE chain = ?", (prev, second)))
    assert "not sealed" in (await faults(vault))[second][1]


async def test_a_chain_that_others_have_seen_cannot_be_dropped(opener: Opener, path: Path) -> None:
    vault = await opener()
    first, second = await two_chains(vault)
    for table in ("audit", "chains"):
        change(path, (f"DELETE FROM {table} WHERE chain = ?", (first,)))
    found = await faults(vault)
    assert found.keys() == {first}
    assert second in found[first][1]


async def test_a_chain_that_nobody_has_seen_yet_can(opener: Opener, path: Path) -> None:
    """The limit that the docstring states, and what ends it: the next start."""
    vault = await opener()
    _, second = await two_chains(vault)
    third = Trail(vault, "third", clock=lambda: NOW)
    await third.start()
    await third.close()
    for table in ("audit", "chains"):
        change(path, (f"DELETE FROM {table} WHERE chain = ?", (third.chain,)))
    assert (await verify(vault)).sound
    # The witness of the second chain is gone with the third, but a later start is a witness again.
    fourth = Trail(vault, "fourth", clock=lambda: NOW)
    await fourth.start()
    await fourth.close()
    for table in ("audit", "chains"):
        change(path, (f"DELETE FROM {table} WHERE chain = ?", (second,)))
    assert (await faults(vault)).keys() == {second}


@pytest.mark.parametrize("table", ["audit", "chains"])
async def test_half_a_chain_dropped_is_found(opener: Opener, path: Path, table: str) -> None:
    vault = await opener()
    _, second = await two_chains(vault)
    change(path, (f"DELETE FROM {table} WHERE chain = ?", (second,)))
    assert second in await faults(vault)


async def test_running_processes_anchor_one_another(opener: Opener, path: Path) -> None:
    vault = await opener()
    now = NOW
    trails = [Trail(vault, name, checkpoint=60, flush=3600, clock=lambda: now) for name in ("a", "b")]
    for trail in trails:
        await trail.start()
    for trail in trails:
        trail.record("request", user="alice")
        await trail.flush()
    now += 61
    for trail in trails:
        await trail.flush()
    # Idle: nothing but checkpoints since the last checkpoint, so no more of them.
    before = await verify(vault)
    for _ in range(3):
        now += 61
        for trail in trails:
            await trail.flush()
    after = await verify(vault)
    assert before.records == after.records == 6
    for trail in trails:
        await trail.close()
    for table in ("audit", "chains"):
        change(path, (f"DELETE FROM {table} WHERE chain = ?", (trails[1].chain,)))
    assert (await faults(vault)).keys() == {trails[1].chain}


@pytest.mark.parametrize("how", ["removed", "changed"])
async def test_a_writer_whose_chain_was_touched_begins_a_new_one(
    opener: Opener, path: Path, how: str
) -> None:
    vault = await opener()
    trail = Trail(vault, flush=3600, clock=lambda: NOW)
    await trail.start()
    first = trail.chain
    assert first is not None
    trail.record("request", number=0)
    await trail.flush()
    if how == "removed":
        for table in ("audit", "chains"):
            change(path, (f"DELETE FROM {table} WHERE chain = ?", (first,)))
    else:
        change(path, ("UPDATE chains SET seq = 1, hash = 'x' WHERE chain = ?", (first,)))
    trail.record("request", number=1)
    await trail.flush()
    assert trail.chain != first
    await trail.close()
    found = await faults(vault)
    assert found.keys() == {first}
    assert ("has seen it" if how == "removed" else "not sealed") in found[first][1]
    rows = await vault.backend.read("SELECT record FROM audit WHERE kind = 'request' ORDER BY position")
    assert json.loads(rows[-1]["record"])["number"] == 1


async def test_not_even_the_keys_holder_can_rewrite_what_others_have_seen(opener: Opener, path: Path) -> None:
    vault = await opener()
    first, second = await two_chains(vault)
    with closing(sqlite3.connect(path)) as db:
        rows = db.execute("SELECT seq, record FROM audit WHERE chain = ? ORDER BY seq", (first,)).fetchall()
    prev = ""
    for seq, text in rows:
        record = {**json.loads(text), "prev": prev} | ({"number": "forged"} if seq == 5 else {})
        text = json.dumps(record, sort_keys=True, separators=(",", ":"))
        prev = hashed(prev, text)
        change(
            path,
            ("UPDATE audit SET record = ?, hash = ? WHERE chain = ? AND seq = ?", (text, prev, first, seq)),
        )
    seal = vault.mark("audit head", f"{first}:{len(rows)}:{prev}")
    change(path, ("UPDATE chains SET hash = ?, seal = ? WHERE chain = ?", (prev, seal, first)))
    found = await faults(vault)
    assert found.keys() == {first}
    assert found[first] == (10, f"not the record that chain {second} has seen")


@pytest.mark.parametrize(
    "text", ["[]", "null", "{}", "no json", '{"at":"x"}', '{"kind":"audit.start","anchors":[[1]]}']
)
async def test_nonsense_is_a_fault_and_not_an_error(opener: Opener, path: Path, text: str) -> None:
    vault = await opener()
    first, _ = await two_chains(vault)
    with closing(sqlite3.connect(path)) as db:
        [(prev,)] = db.execute("SELECT hash FROM audit WHERE chain = ? AND seq = 4", (first,))
    change(
        path,
        (
            "UPDATE audit SET record = ?, hash = ? WHERE chain = ? AND seq = 5",
            (text, hashed(prev, text), first),
        ),
    )
    assert (await faults(vault))[first][0] == 5
    change(path, ("UPDATE audit SET record = 'ä' WHERE chain = ? AND seq = 5", (first,)))
    assert (await faults(vault))[first][0] == 5
    change(path, ("UPDATE chains SET seal = 'ä'", ()))
    assert first in await faults(vault)


async def test_verifying_while_records_are_written(opener: Opener) -> None:
    vault = await opener()
    trail = Trail(vault, flush=0.001, clock=lambda: NOW)
    await trail.start()
    for _ in range(20):
        for number in range(100):
            trail.record("request", number=number)
        assert (await verify(vault)).sound
    await trail.close()
    assert (await verify(vault)).records == 2001
