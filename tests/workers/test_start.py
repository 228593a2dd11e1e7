"""One process begins while others write, and what several have counted is one page."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from authproxy.cli.worker import Line
from authproxy.core.model import Environment
from authproxy.metrics import Metrics, counted, merged
from authproxy.store.base import Backend, Row, Value
from authproxy.store.epoch import Epoch
from authproxy.store.sealing import Keyring, generate_key
from authproxy.store.vault import Vault
from tests.cli.test_restored import NOW, Told, beyond


class Meanwhile:
    """A store in which somebody else writes on after each look into it."""

    def __init__(self, vault: Vault, mark: Path) -> None:
        self._vault, self._mark = vault, mark

    async def read(self, sql: str, *values: Value) -> Sequence[Row]:
        rows = await self._vault.backend.read(sql, *values)
        await beyond(self._vault, 1)
        await Epoch(self._vault.backend, self._mark).note()
        return rows

    def __getattr__(self, name: str) -> Any:
        return getattr(self._vault.backend, name)


@pytest.mark.scenario("E09")
async def test_a_store_that_others_write_to_is_no_older_copy(tmp_path: Path) -> None:
    vault = await Vault.open(
        f"sqlite:///{tmp_path}/store.db",
        keyring=Keyring.parse(generate_key()),
        environment=Environment.PRODUCTION,
        clock=lambda: NOW,
    )
    told, mark = Told(), tmp_path / "mark"
    await beyond(vault, 3)
    await Epoch(vault.backend, mark).note()
    backend: Backend = Meanwhile(vault, mark)  # type: ignore[assignment]
    assert await Epoch(backend, mark).begin(NOW, said=False, told=told) is None
    assert told == []
    await vault.close()


def counting(status: str, times: int) -> Metrics:
    metrics = Metrics()
    for _ in range(times):
        metrics.request_ended(("api", "GET", status, "-"), 0.2, 0.001)
    return metrics


def lines(page: bytes) -> dict[str, str]:
    pairs = (line.rpartition(" ") for line in page.decode().splitlines() if line[:1] != "#")
    return {name: value for name, _, value in pairs}


def test_counts_are_added_and_states_are_not() -> None:
    one, other, gone = counting("200", 3), counting("200", 4), counting("500", 5)
    other.reload_success.set(0)
    one.reload_success.set(1)
    one.refresh_due.set(7)
    other.refresh_due.set(1000)
    one.unpersisted.set(1)
    other.unpersisted.set(2)
    one.background_beat.labels("keeper").set(100)
    other.background_beat.labels("keeper").set(200)
    other.exposition({("acme", "active"): 9})  # what it read some time ago
    past = merged([counted(gone.snapshot()), counted(counting("500", 1).snapshot())])
    page = lines(one.exposition({("acme", "active"): 2}, [other.snapshot(), past]))
    series = 'authproxy_requests_total{code="-",method="GET",route="api",status="%s"}'
    assert (page[series % 200], page[series % 500]) == ("7.0", "6.0")
    assert page['authproxy_request_seconds_count{route="api"}'] == "13.0"
    assert page['authproxy_request_seconds_bucket{le="0.25",route="api"}'] == "13.0"
    assert page["authproxy_unpersisted_rotations"] == "3.0"
    assert page["authproxy_config_last_reload_success"] == "0.0"
    assert page['authproxy_background_beat_timestamp_seconds{duty="keeper"}'] == "200.0"
    assert page["authproxy_refresh_due_seconds_max"] == "7.0", "read from the store just now"
    assert page['authproxy_connections{provider="acme",state="active"}'] == "2.0"
    assert page["authproxy_workers"] == "2.0", "who is gone is not there"


def test_one_page_of_one_is_the_page_itself() -> None:
    alone = counting("200", 3)
    text = alone.exposition({("acme", "active"): 2})
    again = lines(alone.exposition({("acme", "active"): 2}, [[]]))
    assert {name: float(value) for name, value in again.items()} == {
        name: float(value) for name, value in lines(text).items()
    }


async def test_a_word_that_breaks_off_is_no_word() -> None:
    reader = asyncio.StreamReader()
    reader.feed_data(Line.words({"told": 1}) + b'{"told": 2, "numb')
    reader.feed_eof()
    assert [said async for said in Line.heard(reader)] == [{"told": 1}]
