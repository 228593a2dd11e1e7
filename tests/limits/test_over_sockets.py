"""Limits and pauses as agents meet them: refused before anything is sent, told when to come back, and on record."""

from __future__ import annotations

import asyncio
import contextlib
import time
from pathlib import Path

import pytest

from tests.kit.lanes import Lane, assert_problem
from tests.kit.process import Proxy
from tests.kit.raw import Gone, Message, Upstream, Wire, reply, until
from tests.limits.conftest import asked, open_stream, streaming
from tests.tunnel.conftest import Yard
from tests.tunnel.test_websocket import HANDSHAKE, accepting, echo

LIMITED = reply("429 Too Many Requests", b'{"slow": "down"}', "Retry-After: 1")


def assert_over(answer: Message, reason: str) -> None:
    assert answer.status == 503, answer
    assert_problem(answer, "overloaded")
    assert f'"reason": "{reason}"'.encode() in answer.body, answer.body
    assert 1 <= int(answer.head.one(b"retry-after") or b"0") <= 60


@pytest.mark.scenario("I11", "G20")
async def test_requests_at_once_of_one_agent(yard: Yard) -> None:
    lane = yard.named("two")
    other, _ = await asyncio.to_thread(yard.key, "other", "alice")
    async with lane.upstream(streaming) as upstream:
        async with open_stream(lane), open_stream(lane):
            assert_over(await asked(lane), "route_caller_requests")
            assert len(upstream.requests) == 2, "nothing of it was sent"
            async with open_stream(lane, b"X-Authproxy-Key: " + other.encode()):
                pass  # who is another agent has places of its own
        await until(lambda: all(wire.reader.at_eof() for wire in upstream.wires))
        async with open_stream(lane), open_stream(lane):
            pass
    last = (await yard.records(1, route="two", code="overloaded"))[-1]
    assert (last["reason"], last["status"], last["attempts"]) == ("route_caller_requests", 503, 0)
    assert (last["agent"], last["user"], last["act"]) == ("kit", "alice", "retry_later")


@pytest.mark.parametrize("ending", ["answered", "reset", "refused", "broken", "websocket", "twice"])
async def test_every_ending_gives_the_place_back(yard: Yard, ending: str) -> None:
    lane = yard.named("lone")

    async def script(upstream: Upstream, wire: Wire) -> None:
        upstream.note(await wire.request())
        if ending == "broken":
            wire.reset()
        elif ending == "reset":
            await wire.rest()
        else:
            await wire.send(reply())

    await until_free(lane)
    for _ in range(3):  # a place that leaked would be missed by the second
        if ending == "refused":
            assert_problem(await asked(lane, user=b"never-connected"), "connection_required")
            continue
        async with lane.upstream(accepting(echo) if ending == "websocket" else script) as upstream:
            if ending == "reset":
                wire = await lane.dial()
                await wire.send(lane.ask())
                await upstream.next()
                wire.reset()
                await wire.close()
                await until_free(lane)
            elif ending == "websocket":
                async with await lane.dial() as wire:
                    await wire.send(lane.ask(b"GET", b"/socket", *HANDSHAKE))
                    assert (await wire.response()).status == 101
                    assert_over(await asked(lane), "route_user_requests")
                await until_free(lane)
            elif ending == "twice":
                async with await lane.dial() as wire:
                    await wire.send(lane.ask() * 2)  # one after the other, however they are sent
                    with contextlib.suppress(Gone):
                        assert [(await wire.response()).status for _ in range(2)] == [200, 200]
            else:
                assert (await asked(lane)).status == (200 if ending == "answered" else 502)


async def until_free(lane: Lane) -> None:
    """Until the proxy has seen the end of what was there before: it is no other process's business to tell."""
    deadline = time.monotonic() + 5
    async with lane.upstream([reply()]):
        while (await asked(lane)).status == 503:
            assert time.monotonic() < deadline, "the place is not given back"


@pytest.mark.scenario("I11")
async def test_a_user_s_rate(yard: Yard) -> None:
    lane = yard.named("paced")
    name, _ = await asyncio.to_thread(yard.seeded.user)
    async with lane.upstream([reply()]) as upstream:
        first = [await asked(lane, user=name.encode()) for _ in range(5)]
        assert [one.status for one in first[:2]] == [200, 200]
        over = [one for one in first if one.status != 200]
        assert over, "five at once are more than a burst of two"
        assert_over(over[0], "route_user_rate")
        assert len(upstream.requests) == 5 - len(over)
        assert (await asked(lane)).status == 200, "another user"
        await asyncio.sleep(0.3)  # what is waited for is time itself: a quarter of a second for each request
        assert (await asked(lane, user=name.encode())).status == 200
    page = str(yard.proxy.ask("GET", "/metrics")[1])
    assert 'authproxy_overloaded_total{reason="route_user_rate"}' in page


async def test_of_all_together(yard: Yard) -> None:
    lane = yard.named("crowded")
    name, _ = await asyncio.to_thread(yard.seeded.user)
    async with lane.upstream(streaming), open_stream(lane):
        assert_over(await asked(lane, user=name.encode()), "route_requests")


@pytest.mark.scenario("D11", "B10")
async def test_a_429_is_shared_with_the_user_s_other_agents(yard: Yard) -> None:
    lane = yard.lane()
    other, _ = await asyncio.to_thread(yard.key, "sharer", "alice")
    name, _ = await asyncio.to_thread(yard.seeded.user)
    async with lane.upstream([LIMITED, LIMITED, reply(body=b"later")]) as upstream:
        for _ in range(2):  # of this API nothing is known: it is believed the second time
            began = time.monotonic()
            first = await asked(lane)
            assert (first.status, first.body) == (429, b'{"slow": "down"}')
            assert first.head.one(b"retry-after") == b"1"
            assert first.head.one(b"x-authproxy-error") is None, "it is the provider's own"
        second = await asked(lane, b"X-Authproxy-Key: " + other.encode())
        assert_over(second, "provider_limit")
        assert len(upstream.requests) == 2
        assert (await asked(lane, user=name.encode())).body == b"later", "no other user waits for it"
        assert (await asked(lane, rest=b"/elsewhere")).body == b"later"
        answers = []
        while not answers or answers[-1].status == 503:
            answers.append(await asked(lane))
            assert time.monotonic() - began < 5
        assert answers[-1].body == b"later"
        assert time.monotonic() - began >= 0.95, "not before its time"
        assert (await asked(lane)).body == b"later"
    last = (await yard.records(1, route=lane.name, agent="sharer"))[-1]
    assert (last["code"], last["reason"], last["attempts"]) == ("overloaded", "provider_limit", 0)
    state = yard.proxy.ask("GET", "/v1/connections?user_id=alice")[1]
    assert {one["state"] for one in state["items"]} == {"active"}


@pytest.mark.parametrize(
    ("answer", "name"),
    [
        (reply("503 Service Unavailable", b"{}"), ""),
        (reply("503 Service Unavailable", b"{}", "Retry-After: 30"), ""),
        (reply("429 Too Many Requests", b"{}"), ""),
        (reply("429 Too Many Requests", b"{}", "Retry-After: -1"), ""),
        (reply("403 Forbidden", b"{}", "Retry-After: 30", "X-RateLimit-Remaining: 0"), ""),
        (LIMITED, "unshared"),
    ],
    ids=["503", "503-later", "429-bare", "negative", "403", "off"],
)
async def test_what_is_no_pause(yard: Yard, answer: bytes, name: str) -> None:
    lane = yard.named(name) if name else yard.lane()
    async with lane.upstream([answer, answer, reply()]):
        for _ in range(2):
            assert (await asked(lane)).status == int(answer.split(b" ")[1])
        assert (await asked(lane)).status == 200


async def test_one_probe_at_the_end(yard: Yard) -> None:
    lane = yard.lane()
    let_go = asyncio.Event()

    async def script(upstream: Upstream, wire: Wire) -> None:
        upstream.note(await wire.request())
        if len(upstream.requests) <= 2:
            await wire.send(LIMITED)
            return
        await let_go.wait()
        await wire.send(reply())

    async with lane.upstream(script) as upstream:
        assert [(await asked(lane)).status for _ in range(2)] == [429, 429]
        async with await lane.dial() as probe:
            await until_sent(lane, upstream, probe)
            assert_over(await asked(lane), "provider_limit")
            probe.reset()
        # It is gone without an answer: the next one looks, and only that one.
        async with await lane.dial() as second:
            await until_sent(lane, upstream, second)
            assert_over(await asked(lane), "provider_limit")
            let_go.set()
            assert (await second.response()).status == 200
        assert (await asked(lane)).status == 200


async def until_sent(lane: Lane, upstream: Upstream, wire: Wire) -> None:
    """Ask on this connection until a request goes through."""
    before = len(upstream.requests)
    deadline = time.monotonic() + 5
    while len(upstream.requests) == before:
        assert time.monotonic() < deadline
        await wire.send(lane.ask())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.2):
                assert_over(await wire.response(), "provider_limit")


# --- connections ---------------------------------------------------------------------------------------------


async def test_connections_at_once_and_those_that_say_nothing(tmp_path: Path) -> None:
    config = {"limits": {"max_connections": 3}, "timeouts": {"keepalive": 1}}
    with Proxy(tmp_path, config) as proxy:
        ask = b"GET /nowhere HTTP/1.1\r\nHost: 127.0.0.1\r\nX-User-ID: alice\r\n\r\n"
        async with contextlib.AsyncExitStack() as stack:
            silent = [await stack.enter_async_context(await Wire.dial(proxy.listen)) for _ in range(3)]
            over = await stack.enter_async_context(await Wire.dial(proxy.listen))
            await over.send(ask)
            answer = await over.response()
            assert_over(answer, "connections")
            assert answer.head.one(b"connection") == b"close"
            assert await over.rest() == b""
            began = time.monotonic()
            assert [await one.rest() for one in silent] == [b""] * 3
            assert time.monotonic() - began < 4, "who never says anything does not keep a place"
            async with await Wire.dial(proxy.listen) as wire:
                await wire.send(ask)
                assert (await wire.response()).status == 404
        page = str(proxy.ask("GET", "/metrics")[1])
        assert 'authproxy_overloaded_total{reason="connections"} 1.0' in page
