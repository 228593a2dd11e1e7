"""Stores that several processes can share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.kit.postgres import Postgres
from tests.soak.soak import a_store

KINDS = ("sqlite", "postgres")


@pytest.fixture(params=KINDS)
def shared(request: pytest.FixtureRequest) -> Iterator[tuple[str, Postgres | None]]:
    """The URL of an empty store of each kind, and its server where it has one."""
    with a_store(request.param) as store:
        yield store
