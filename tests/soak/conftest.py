"""Stores that several processes can share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.kit.postgres import Postgres
from tests.soak.soak import a_store

KINDS = ("sqlite", "postgres")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """What runs for minutes runs only when it is asked for."""
    if "soak" not in config.option.markexpr:
        skip = pytest.mark.skip(reason="runs for minutes: ask for it with -m soak")
        for item in items:
            if item.get_closest_marker("soak") is not None:
                item.add_marker(skip)


@pytest.fixture(params=KINDS)
def shared(request: pytest.FixtureRequest) -> Iterator[tuple[str, Postgres | None]]:
    """The URL of an empty store of each kind, and its server where it has one."""
    with a_store(request.param) as store:
        yield store
