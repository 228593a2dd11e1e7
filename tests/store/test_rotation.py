"""Another sealing key in every kind of store: all sealed columns, while others write, and with others' keys."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from authproxy.core.errors import KeyMissing
from authproxy.core.model import Environment
from authproxy.core.secret import Secret
from authproxy.store.kept import Kept
from authproxy.store.keywatch import KeyWatch
from authproxy.store.revocations import Owing
from authproxy.store.rotation import inventory
from authproxy.store.schema import SEALED
from authproxy.store.sealing import Keyring, generate_key
from authproxy.store.vault import Vault
from tests.store.parts import KEY, NOW, approval, flow, grant, tokens


async def opened(url: str, *keys: str) -> Vault:
    return await Vault.open(
        url, keyring=Keyring.parse(" ".join(keys)), environment=Environment.PRODUCTION, clock=lambda: NOW
    )


async def fill(vault: Vault) -> None:
    """Something in every sealed column."""
    for number in range(5):
        await vault.keep_grant(grant(KEY._replace(user=f"user-{number}"), word=str(number)), [])
    gone = await vault.keep_grant(grant(KEY._replace(user="gone")), [])
    await vault.disconnect(gone.id, [], owed=Owing("rev-1", NOW, NOW))
    made = flow()
    await vault.create_flow(made, Secret("CANARY-verifier"))
    await vault.backend.write(lambda tx: tx.run("UPDATE flows SET held = verifier"))
    await vault.keep("kept", Kept("text", Secret("CANARY-kept")), instead_of=None)
    await vault.ask_approval(approval(id="apr_1"), {"body": "CANARY-input"}, lambda _: [])


@pytest.mark.scenario("E02")
async def test_no_sealed_column_is_forgotten(shared_url: str) -> None:
    old, new = generate_key(), generate_key()
    first = await opened(shared_url, old)
    await fill(first)
    before = await inventory(first.backend)
    assert {(one.table, one.column) for one in before} == set(SEALED)
    assert {one.key_id for one in before} == {first.keyring.newest}
    both = await opened(shared_url, new, old)
    # A verifier in another column does not open there: it is left as it is, and stays in the count.
    assert await both.reseal(10_000) == 1
    await both.backend.write(lambda tx: tx.run("UPDATE flows SET held = NULL"))
    assert await both.stale_cells() == 0
    assert await both.missing_keys(Keyring.parse(new)) == {}
    assert {one.key_id for one in await inventory(both.backend)} == {both.keyring.newest}
    await first.close()
    await both.close()
    alone = await opened(shared_url, new)
    listed = await alone.list(tenant=None)
    assert [one.last_error for one in listed] == [None] * 5
    (owed,) = await alone.owed(now=NOW)
    assert owed.tokens is not None
    kept = await alone.kept("kept")
    assert kept is not None
    assert kept.secret == Secret("CANARY-kept")
    assert await alone.approval_input("acme", "apr_1") == {"body": "CANARY-input"}
    await alone.close()


@pytest.mark.scenario("E02", "E01")
async def test_two_processes_with_different_newest_keys_lose_nothing(shared_url: str) -> None:
    """Each seals under its own; both open both; and each reseals while the other commits."""
    old, new = generate_key(), generate_key()
    one, two = await opened(shared_url, old, new), await opened(shared_url, new, old)
    users = [KEY._replace(user=f"user-{number}") for number in range(8)]
    made = [await one.keep_grant(grant(key, word="0"), []) for key in users]

    async def refresh(vault: Vault, name: str, which: list[int]) -> None:
        for number in which * 6:
            lease = await vault.lease(made[number].id, holder=name, seconds=60)
            assert lease is not None
            await lease.tokens()  # opens what either has sealed
            await lease.commit(tokens(f"{name}-{number}"), [], spent=None)
            await lease.release()

    async def reseal(vault: Vault) -> None:
        for _ in range(10):
            await vault.reseal(5)

    await asyncio.gather(
        refresh(one, "one", [0, 1, 2, 3]), refresh(two, "two", [4, 5, 6, 7]), reseal(one), reseal(two)
    )
    for number, key in enumerate(users):
        for vault in (one, two):
            found = await vault.access(key)
            assert found is not None
            assert found[0].generation == 7
            assert found[1] == Secret(f"CANARY-at-{'one' if number < 4 else 'two'}-{number}")
    await two.reseal(10_000)
    await one.close()
    await two.close()
    alone = await opened(shared_url, new)
    assert await alone.stale_cells() == 0
    await alone.close()


class Told:
    """What the watch said, and when somebody may look."""

    def __init__(self) -> None:
        self.kinds: list[str] = []
        self._more = asyncio.Event()

    async def __call__(self, kind: str, _data: object) -> None:
        self.kinds.append(kind)
        self._more.set()

    async def until(self, kind: str) -> None:
        async with asyncio.timeout(20):
            while kind not in self.kinds:
                self._more.clear()
                await self._more.wait()
        self.kinds.clear()


@pytest.mark.scenario("E02")
async def test_a_changed_file_is_taken_over_and_a_poorer_one_is_not(shared_url: str, tmp_path: Path) -> None:
    old, new = generate_key(), generate_key()
    file, told = tmp_path / "keys", Told()
    file.write_text(old)
    vault = await opened(shared_url, old)
    await vault.keep_grant(grant(), [])
    watch = KeyWatch(vault, vault.keyring, file, told=told, period=0.01, settle=0.05)
    task = asyncio.create_task(watch.run())
    first = vault.keyring.newest
    file.write_text(new)  # the old one is still needed
    await told.until("config.keys_refused")
    file.write_text("broken")
    await told.until("config.keys_refused")
    assert vault.keyring.ids == (first,)
    file.write_text(f"{new}\n{old}")
    await told.until("config.resealed")
    assert vault.keyring.ids[0] == Keyring.parse(new).newest
    assert await vault.stale_cells() == 0
    file.write_text(new)
    await told.until("config.keys_changed")
    assert vault.keyring.newest == Keyring.parse(new).newest
    assert await vault.access(KEY) is not None
    task.cancel()
    await asyncio.wait([task])
    await vault.close()


async def test_keys_that_do_not_open_the_store_are_not_taken(shared_url: str) -> None:
    vault = await opened(shared_url, generate_key())
    ids = vault.keyring.ids
    with pytest.raises(KeyMissing):
        await vault.take_keys(Keyring.parse(generate_key()))
    assert vault.keyring.ids == ids
    await vault.close()
