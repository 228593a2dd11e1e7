"""One proxy for the whole suite; every case takes the next lane, which nobody has used for a while."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from tests.kit.lanes import Lane, lanes

COUNT = 160


@pytest.fixture(scope="session")
def _lanes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Iterator[Lane]]:
    with lanes(tmp_path_factory.mktemp("wire"), COUNT) as made:
        yield itertools.cycle(made)


@pytest.fixture
def lane(_lanes: Iterator[Lane], request: pytest.FixtureRequest) -> Lane:
    lane = next(_lanes)
    lane.mode = "base"
    while True:  # what an earlier case left in the listen queue is not this one's
        try:
            lane.sock.accept()[0].close()
        except BlockingIOError:
            return lane
