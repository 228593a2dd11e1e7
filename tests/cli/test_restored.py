"""A store that was put back from yesterday's copy: its refresh tokens may have been spent since."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from authproxy.core.model import Event
from authproxy.store.audit import Trail
from authproxy.store.epoch import Epoch, Restored
from authproxy.store.vault import Vault
from tests.cli.test_key_rotation import until
from tests.cli.test_reload import House
from tests.store.conftest import database, keyring, postgres, url, vault  # noqa: F401 - fixtures
from tests.store.parts import KEY, NOW, grant


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    house = House(tmp_path)
    house.provider.life = 2
    # Before the restore only what is asked for is spent; after it the keeper must leave all of it alone by itself.
    house.proxy.config.setdefault("refresh", {})["background"] = False
    house.proxy.start()
    yield house
    house.close()


@pytest.mark.scenario("E09")
@pytest.mark.timeout(120)
def test_each_grant_is_tried_once_and_only_when_it_is_needed(house: House) -> None:
    for user in ("alice", "bob", "carol"):
        house.proxy.connect(user)
    house.proxy.stop()
    backup = house.proxy.directory / "backup.db"
    shutil.copy(house.proxy.store, backup)
    house.proxy.start()
    alice, bob, _ = house.provider.grants
    for grant_, user in ((alice, "alice"), (bob, "bob")):
        until(lambda g=grant_, u=user: house.get(u)[0] == 200 and g.asked >= 2, "refreshed twice")  # type: ignore[misc]
    mark = house.proxy.store.with_name("authproxy.db.mark")
    position = mark.read_text()
    until(lambda: mark.read_text() != position, "the mark follows the trail")
    house.proxy.stop()
    for left in house.proxy.directory.glob("authproxy.db-*"):
        left.unlink()
    shutil.copy(backup, house.proxy.store)
    house.proxy.config["refresh"]["background"] = True
    house.proxy.start()
    assert '"store_restored"' in house.proxy.words()
    assert house.events("config.restored")[0]["data"]["grants"] == 3
    asked = [one.asked for one in house.provider.grants]
    assert house.get("alice")[1]["code"] == "connection_expired"
    assert house.get("alice")[1]["code"] == "connection_expired"
    assert house.get("carol")[0] == 200, "nothing of hers was spent"
    now = [one.asked for one in house.provider.grants]
    assert now == [asked[0] + 1, asked[1], asked[2] + 1], "one try each, and none unasked"
    # The next start is like any other.
    house.proxy.stop()
    house.proxy.start()
    assert house.proxy.words().count('"store_restored"') == 1


async def beyond(vault: Vault, number: int) -> None:  # noqa: F811 - the fixture's name
    """Some records of the trail."""
    trail = Trail(vault, flush=0.01, clock=lambda: NOW)
    await trail.start()
    await vault.note([Event("connection.noted", NOW, "acme") for _ in range(number)])
    await trail.flush()
    await trail.close()


class Told(list[tuple[str, dict[str, Any]]]):
    """What was said."""

    async def __call__(self, kind: str, data: dict[str, Any]) -> None:
        self.append((kind, data))


@pytest.mark.scenario("E09")
async def test_nothing_of_before_is_refreshed_in_the_background(vault: Vault, tmp_path: Path) -> None:  # noqa: F811
    kept = await vault.keep_grant(grant(), [])
    assert kept.expires_at is not None
    told, epoch = Told(), Epoch(vault.backend, None)
    every, late = range(16), kept.expires_at + 10
    assert await epoch.begin(NOW + 5, said=False, told=told) is None
    assert [one.id async for one in vault.ending(late, every)] == [kept.id]
    assert await epoch.begin(NOW + 5, said=True, told=told) == Restored(NOW + 5, 1, "said")
    assert [kind for kind, _ in told] == ["config.restored"]
    assert [one async for one in vault.ending(late, every)] == []
    assert [one async for one in vault.unused(KEY.provider, late, every)] == []
    assert await vault.ages() == {}, "left alone on purpose, so no alarm"
    await vault.keep_grant(grant(at=NOW + 6), [])  # the user has connected again
    assert [one.id async for one in vault.ending(late, every)] == [kept.id]


@pytest.mark.scenario("E09")
async def test_the_mark_tells_an_older_copy_from_the_store_itself(vault: Vault, tmp_path: Path) -> None:  # noqa: F811
    told, mark = Told(), tmp_path / "mark"
    await beyond(vault, 3)
    await Epoch(vault.backend, mark).note()
    assert await Epoch(vault.backend, mark).begin(NOW, said=False, told=told) is None
    kept = mark.read_text()
    await beyond(vault, 3)
    await Epoch(vault.backend, mark).note()
    further = mark.read_text()
    mark.write_text(kept)
    assert await Epoch(vault.backend, mark).begin(NOW, said=False, told=told) is None, "a mark may lag"
    mark.write_text(further.replace('"position": ', '"position": 9'))
    found = await Epoch(vault.backend, mark).begin(NOW, said=False, told=told)
    assert found == Restored(NOW, 0, "mark")
    for other in ("", "{}", '{"store": "another", "position": 10000}'):
        mark.write_text(other)
        assert await Epoch(vault.backend, mark).begin(NOW, said=False, told=told) is None
