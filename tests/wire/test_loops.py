"""A route whose upstream leads back: noticed by what the request carries, since no address gives it away."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kit.lanes import Lane, lanes
from tests.kit.raw import Upstream, Wire, reply


@pytest.fixture(scope="module")
def marked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lane]:
    directory: Path = tmp_path_factory.mktemp("loops")
    with lanes(directory, 1, egress={"allow": ["127.0.0.0/8"], "via": True}) as (made, _):
        yield made[0]


@pytest.mark.scenario("G23")
async def test_a_request_that_comes_back_is_refused(marked: Lane) -> None:
    """Behind the upstream's address is another proxy, and behind that one we are again."""

    async def leads_back(upstream: Upstream, wire: Wire) -> None:
        message = await wire.request()
        upstream.note(message)
        carried = [line for line in message.head.fields if line[0].lower() in (b"host", b"via", b"accept")]
        async with await marked.dial() as again:
            await again.send(
                b"GET %b HTTP/1.1\r\nX-User-ID: alice\r\n" % marked.target(b"/x")
                + b"".join(b"%b: %b\r\n" % line for line in carried)
                + b"\r\n"
            )
            answer = await again.response()
        await wire.send(reply("508 Loop Detected", answer.body))

    async with marked.upstream(leads_back) as upstream:
        async with asyncio.timeout(10):
            answer = await marked.call(marked.ask(rest=b"/x"))
        assert len(upstream.requests) == 1
    assert answer.status == 508, "what the second time here was answered"
    assert json.loads(answer.body)["reason"] == "loop"
    (via,) = upstream.requests[0].head.all(b"via")
    assert via.startswith(b"1.1 authproxy-")


@pytest.mark.scenario("G23")
async def test_other_proxies_names_are_kept_and_harmless(marked: Lane) -> None:
    async with marked.upstream() as upstream:
        answer = await marked.call(
            marked.ask(b"GET", b"/x", b"Via: 1.1 other", b"Via: 1.1 authproxy-0123456789ab")
        )
        assert answer.status == 200
        vias = upstream.requests[0].head.all(b"via")
    assert vias[:2] == [b"1.1 other", b"1.1 authproxy-0123456789ab"]
    assert len(vias) == 3


async def test_nothing_is_told_of_us_unless_asked_for(lane: Lane) -> None:
    async with lane.upstream() as upstream:
        assert (await lane.call(lane.ask())).status == 200
        assert not upstream.requests[0].head.all(b"via")
