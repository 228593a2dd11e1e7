"""One proxy whose lanes have limits of every kind."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from tests.kit.lanes import LIMITS, TIMEOUTS, Lane, lanes
from tests.kit.ports import free_port
from tests.kit.process import LOOPBACK
from tests.kit.raw import Message, Upstream, Wire
from tests.tunnel.conftest import KEYED, Yard

LEASH = 0.4
WRITE = 0.4
SPECIAL: dict[str, dict[str, Any]] = {
    "two": {"limits": {"caller": {"requests": 2}}},
    "paced": {"limits": {"user": {"rate": 4, "burst": 2}}},
    "lone": {"limits": {"user": {"requests": 1}}},
    "crowded": {"limits": {"total": {"requests": 1}}},
    "unshared": {"share_pauses": False},
}


@pytest.fixture(scope="session")
def yard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Yard]:
    blind = free_port()
    with lanes(
        tmp_path_factory.mktemp("limits"),
        40,
        SPECIAL,
        identity={"callers": [KEYED, LOOPBACK]},
        limits={**LIMITS, "longest_pause": 1.0},
        timeouts={**TIMEOUTS, "idle": 20, "first_byte": 10, "keepalive": 20, "write": WRITE},
        tunnel={"unrouted": "pass", "ports": [blind], "idle": 20},
        refresh={"forced_interval": 0, "leash": LEASH},
    ) as (ordinary, made):
        yield Yard(ordinary, made, {"blind": blind})


EVENTS = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


async def streaming(upstream: Upstream, wire: Wire) -> None:
    """An answer that begins, and is not heard of again until whoever reads it is gone."""
    upstream.note(await wire.request())
    await wire.send(EVENTS + b"5\r\nhello\r\n")
    await wire.rest()


@contextlib.asynccontextmanager
async def open_stream(lane: Lane, *fields: bytes, user: bytes = b"alice") -> AsyncIterator[Wire]:
    """An agent that has its first event."""
    async with await lane.dial() as wire:
        await wire.send(lane.ask(b"GET", b"/events", *fields, user=user))
        head = await wire.head()
        assert head.status == 200, head.raw
        assert await wire.exactly(10) == b"5\r\nhello\r\n"
        yield wire


async def asked(lane: Lane, *fields: bytes, rest: bytes = b"/x", user: bytes = b"alice") -> Message:
    """One request on a connection of its own."""
    return await lane.call(lane.ask(b"GET", rest, *fields, user=user))
