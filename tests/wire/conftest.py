"""One proxy for the whole suite; every case takes the next lane, which nobody has used for a while."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from tests.kit.lanes import BASE, Lane, lanes

COUNT = 160
SPECIAL = {
    "ruled": {
        "allow": [
            {"methods": ["GET"], "paths": ["/repos/me/*", "/files/**"]},
            {"methods": ["POST"], "paths": ["/repos/me/*/issues"]},
        ]
    },
    "small": {"max_body": 1000},
    "wider": {"scopes": ["read", "write"]},
    "based": {},
    "cookies": {"keep_set_cookie": True, "send_cookies": True},
    "moving": {"rewrite_urls": True},
    "cookieless": {"keep_set_cookie": False},
    "shared": {"share_connections": True},
    "deep": {"prefix": "/l0/deeper/still"},
}


@pytest.fixture(scope="session")
def _lanes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Iterator[Lane], dict[str, Lane]]]:
    with lanes(tmp_path_factory.mktemp("wire"), COUNT, SPECIAL) as (ordinary, special):
        special["deep"].prefix = b"/l0/deeper/still"
        yield itertools.cycle(ordinary), special


@pytest.fixture
def lane(_lanes: tuple[Iterator[Lane], dict[str, Lane]]) -> Lane:
    return _emptied(next(_lanes[0]))


@pytest.fixture
def special(_lanes: tuple[Iterator[Lane], dict[str, Lane]]) -> dict[str, Lane]:
    return {name: _emptied(lane) for name, lane in _lanes[1].items()}


def _emptied(lane: Lane) -> Lane:
    """What an earlier case left in the listen queue is not this one's."""
    lane.mode = BASE
    while True:
        try:
            lane.sock.accept()[0].close()
        except BlockingIOError:
            return lane
