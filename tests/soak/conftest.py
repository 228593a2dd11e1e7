"""Stores that several processes can share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.kit.postgres import Postgres
from tests.soak.soak import a_store


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """What runs for minutes runs only when it is asked for."""
    if "soak" not in config.option.markexpr:
        skip = pytest.mark.skip(reason="runs for minutes: ask for it with -m soak")
        for item in items:
            if item.get_closest_marker("soak") is not None:
                item.add_marker(skip)


@pytest.fixture(scope="session")
def server() -> Iterator[Postgres]:
    with Postgres.running() as running:
        yield running


@pytest.fixture
def replicated(server: Postgres) -> tuple[str, Postgres]:
    """The URL of an empty database, and its server."""
    return server.database(), server


@pytest.fixture(params=["sqlite", "postgres"])
def shared(request: pytest.FixtureRequest) -> Iterator[tuple[str, Postgres | None]]:
    """The URL of an empty store of each kind, and its server where it has one."""
    if request.param == "postgres":
        yield request.getfixturevalue("replicated")
        return
    with a_store(request.param) as store:
        yield store
