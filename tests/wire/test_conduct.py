"""The process as a whole: one record per request, leashes kept, nobody waits for another's provider, a clean end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.kit.lanes import Lane, assert_problem, lanes
from tests.kit.provider import Grant
from tests.kit.raw import Gone, Upstream, Wire, reply, until

DENIAL = reply("401 Unauthorized", b"no", 'WWW-Authenticate: Bearer error="invalid_token"')
STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.fixture
def own(tmp_path: Path) -> Iterator[list[Lane]]:
    """A proxy of the case's own, with the default pause between forced refreshes and short leashes."""
    with lanes(tmp_path, 4, refresh={"leash": 0.2}, audit={"flush": 0.02}) as (made, _):
        yield made


async def records(lane: Lane, count: int) -> list[dict[str, Any]]:
    """The request records, oldest first, once there are `count`, or whatever there is when time is up."""
    deadline = time.monotonic() + 5
    while True:
        _, found = await asyncio.to_thread(lane.proxy.ask, "GET", "/v1/audit?kind=request&limit=1000")
        if len(found["items"]) >= count or time.monotonic() > deadline:
            return sorted(found["items"], key=lambda item: int(item["seq"]))
        await asyncio.sleep(0.02)  # written in batches by another process


@pytest.mark.scenario("D05", "D12", "D13")
async def test_an_api_that_refuses_every_token_costs_one_refresh_in_a_while(own: list[Lane]) -> None:
    lane = own[0]
    other, others = await asyncio.to_thread(lane.seeded.user)
    async with lane.upstream([DENIAL]):
        answers = []
        for _ in range(10):
            answers += await asyncio.gather(*(lane.call(lane.ask()) for _ in range(20)))
    assert {a.head.start for a in answers} == {b"HTTP/1.1 401 Unauthorized"}
    assert all(a.body == b"no" and b"x-authproxy-error" not in a.head.names for a in answers)
    assert lane.grant.asked == 1
    async with lane.upstream() as upstream:
        assert (await lane.call(lane.ask())).status == 200, "the connection is not marked by it"
        assert (await lane.call(lane.ask(user=other.encode()))).status == 200
    assert upstream.requests[1].head.one(b"authorization") == others.bearer
    assert others.asked == 0


@pytest.mark.scenario("J06", "G11")
async def test_every_request_leaves_exactly_one_record_whatever_its_end(own: list[Lane]) -> None:
    lane = own[0]

    async def script(upstream: Upstream, wire: Wire) -> None:
        message = await wire.request()
        what = message.head.target
        if what == b"/ok?q=CANARY-query":
            await wire.send(reply(body=b"12345"))
        elif what == b"/cut":
            await wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
        elif what == b"/hang":
            await wire.rest()
        elif what == b"/denied":
            await wire.send(DENIAL)

    async with lane.upstream(script):
        await lane.call(lane.ask(b"POST", b"/ok?q=CANARY-query", body=b"abc"), b"POST")
        await lane.call(lane.ask(rest=b"/cut"))
        await lane.call(lane.ask(rest=b"/hang"))  # upstream_timeout
        await lane.call(lane.ask(rest=b"/denied"))
        await lane.call(lane.ask(rest=b"/broken-off"))
        await lane.call(lane.ask(user=b"stranger"))
        await lane.call(lane.ask(user=None))
        await lane.call(b"GET / HTTP/1.1\r\nHost : x\r\n\r\n")
        await lane.call(b"GET /nowhere HTTP/1.1\r\nHost: %s\r\nX-User-ID: alice\r\n\r\n" % lane.authority)
        wire = await lane.dial()
        await wire.send(lane.ask(rest=b"/hang"))
        await asyncio.sleep(0.2)  # it is under way upstream by now
        await wire.close()
        found = await records(lane, 10)
        await asyncio.sleep(0.1)  # were there a second record of any, it would be here now
        found = await records(lane, 10)
    assert len(found) == 10
    assert len({r["request_id"] for r in found}) == 10
    told = [(r["route"], r["user"], r["status"], r["code"]) for r in found]
    assert told == [
        ("l0", "alice", 200, None),
        ("l0", "alice", 200, told[1][3]),
        ("l0", "alice", 504, "upstream_timeout"),
        ("l0", "alice", 401, None),
        ("l0", "alice", 502, "upstream_unreachable"),
        ("l0", "stranger", 403, "connection_required"),
        (None, None, 400, "user_missing"),
        (None, None, 400, "bad_request"),
        (None, "alice", 404, "no_route"),
        ("l0", "alice", told[9][2], "client_closed"),
    ]
    assert told[1][3] not in (None, "client_closed"), "an answer that broke off upstream is told as such"
    first = found[0]
    assert (first["method"], first["path"], first["attempts"]) == ("POST", "/ok", 1)
    assert (first["bytes_in"], first["bytes_out"], first["agent"], first["via"]) == (
        3,
        5,
        "kit",
        first["via"],
    )
    assert (found[3]["attempts"], found[3]["refreshed"]) == (2, True)
    assert "CANARY" not in repr(found)
    assert await asyncio.to_thread(_verified, lane)


def _verified(lane: Lane) -> bool:
    proxy = lane.proxy
    done = proxy.run("audit", "verify", "--config", str(proxy.file), "--store", f"sqlite:///{proxy.store}")
    assert done.returncode == 0, done.stdout + done.stderr
    return True


@pytest.mark.scenario("I08", "A18")
async def test_a_disconnect_is_felt_within_the_leash(own: list[Lane]) -> None:
    lane = own[0]
    async with lane.upstream() as upstream:
        assert (await lane.call(lane.ask())).status == 200
        (one,) = (await asyncio.to_thread(lane.proxy.ask, "GET", "/v1/connections"))[1]["items"]
        status, _ = await asyncio.to_thread(lane.proxy.ask, "DELETE", f"/v1/connections/{one['id']}")
        assert status in (200, 204)
        answer = await lane.call(lane.ask())
        assert_problem(answer, "connection_required")
    assert len(upstream.requests) == 1
    await until(lambda: len(lane.grant.revoked) > 0)


@pytest.mark.scenario("B21", "A25", "A26")
async def test_a_hanging_provider_holds_up_nobody_else(own: list[Lane]) -> None:
    lane, provider = own[0], own[0].seeded.provider
    slow, theirs = await asyncio.to_thread(lane.seeded.user)
    release = asyncio.Event()
    loop = asyncio.get_running_loop()

    def hang(grant: Grant, form: dict[str, str]) -> None:
        if grant is theirs:
            asyncio.run_coroutine_threadsafe(release.wait(), loop).result(20)

    provider.twist = hang
    old = theirs.bearer

    async def script(upstream: Upstream, wire: Wire) -> None:
        message = await wire.request()
        await wire.send(DENIAL if message.head.one(b"authorization") == old else reply())

    async with lane.upstream(script):
        waiting = asyncio.create_task(lane.call(lane.ask(user=slow.encode())))
        await until(lambda: theirs.asked > 0)
        for _ in range(5):
            begun = time.monotonic()
            assert (await lane.call(lane.ask())).status == 200
            assert time.monotonic() - begun < 0.5
        assert not waiting.done()
        release.set()
        assert (await waiting).status == 200
    assert theirs.asked == 1


@pytest.mark.scenario("B22")
async def test_with_an_ended_token_and_no_provider_nothing_goes_upstream(own: list[Lane]) -> None:
    """The agent is told whose trouble it is, and when to come again; the API never sees the ended token."""
    lane, provider = own[0], own[0].seeded.provider
    provider.life = 1
    user, grant = await asyncio.to_thread(lane.seeded.user)
    provider.twist = lambda *_: (502, "text/html", b"<h1>Bad gateway</h1>")
    async with lane.upstream() as upstream:

        async def refused() -> bool:
            answer = await lane.call(lane.ask(user=user.encode()))
            if answer.status == 200:
                return False
            assert_problem(answer, "provider_unavailable")
            assert answer.status == 503
            return True

        deadline = time.monotonic() + 10
        while not await refused():  # until its second is over
            assert time.monotonic() < deadline
        seen = len(upstream.requests)
        for _ in range(5):
            assert await refused()
        assert len(upstream.requests) == seen
        provider.life, provider.twist = 3600, None
        while await refused():
            assert time.monotonic() < deadline + 10
            await asyncio.sleep(0.1)  # as Retry-After asks, until the pause is over
        assert upstream.requests[-1].head.one(b"authorization") == grant.bearer


@pytest.mark.scenario("A12", "G11")
async def test_an_agent_that_leaves_does_not_take_the_refresh_with_it(own: list[Lane]) -> None:
    lane, provider = own[0], own[0].seeded.provider
    release = asyncio.Event()
    loop = asyncio.get_running_loop()
    provider.twist = lambda *_: asyncio.run_coroutine_threadsafe(release.wait(), loop).result(20) and None
    old = lane.bearer

    async def script(upstream: Upstream, wire: Wire) -> None:
        message = await wire.request()
        await wire.send(DENIAL if message.head.one(b"authorization") == old else reply())

    async with lane.upstream(script):
        wire = await lane.dial()
        await wire.send(lane.ask())
        await until(lambda: lane.grant.asked > 0)
        wire.reset()
        await wire.close()
        release.set()
        answers = await asyncio.gather(*(lane.call(lane.ask()) for _ in range(10)))
        assert {a.status for a in answers} == {200}
    assert lane.grant.asked == 1


@pytest.mark.scenario("A21", "G11", "J09")
async def test_a_stop_lets_what_is_under_way_end(own: list[Lane]) -> None:
    lane, begun, release = own[0], asyncio.Event(), asyncio.Event()

    async def slow(upstream: Upstream, wire: Wire) -> None:
        await wire.request()
        begun.set()
        await release.wait()
        await wire.send(reply(body=b"late but whole"))

    async with lane.upstream(slow):
        under_way = asyncio.create_task(lane.call(lane.ask()))
        await asyncio.wait_for(begun.wait(), 5)
        stopping = asyncio.create_task(asyncio.to_thread(lane.proxy.stop))
        async with asyncio.timeout(5):
            while True:
                try:
                    await (await lane.dial()).close()
                except ConnectionError:
                    break
                await asyncio.sleep(0.01)  # it stops accepting first
        release.set()
        answer = await under_way
        assert (answer.status, answer.body) == (200, b"late but whole")
        assert await stopping == 0


@pytest.mark.scenario("A21", "G10")
async def test_a_stop_does_not_wait_for_ever_and_cuts_rather_than_ends(own: list[Lane]) -> None:
    lane = own[0]

    async def endless(upstream: Upstream, wire: Wire) -> None:
        await wire.request()
        await wire.send(STREAM + b"1\r\n.\r\n")
        await wire.rest()

    async with lane.upstream(endless), await lane.dial() as wire:
        await wire.send(lane.ask())
        stream = asyncio.create_task(wire.response())
        await asyncio.sleep(0.1)  # the stream has begun
        begun = time.monotonic()
        assert await asyncio.to_thread(lane.proxy.stop) == 0
        assert time.monotonic() - begun < 8
        try:
            answer = await stream
        except Gone:
            return
        assert not answer.complete


@pytest.mark.scenario("G20")
async def test_too_many_at_once_are_told_to_come_back(tmp_path: Path) -> None:
    release = asyncio.Event()

    async def hold(upstream: Upstream, wire: Wire) -> None:
        upstream.note(await wire.request())
        await release.wait()
        await wire.send(reply())

    with lanes(tmp_path, 1, limits={"max_requests": 10}) as (made, _):
        lane = made[0]
        async with lane.upstream(hold) as upstream:
            held = [asyncio.create_task(lane.call(lane.ask())) for _ in range(10)]
            for _ in held:
                await upstream.next()
            answer = await lane.call(lane.ask())
            assert answer.status == 503
            assert_problem(answer, "overloaded")
            release.set()
            assert {a.status for a in await asyncio.gather(*held)} == {200}
            assert (await lane.call(lane.ask())).status == 200


@pytest.mark.scenario("G21")
@pytest.mark.parametrize("answer", ["101", "200", "426"])
async def test_an_upgrade_is_tunnelled_or_refused_but_never_half_done(own: list[Lane], answer: str) -> None:
    """Bytes that came with the request are not passed on before a 101; without one there is no tunnel."""
    lane = own[0]
    fields = (
        b"Connection: Upgrade",
        b"Upgrade: websocket",
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        b"Sec-WebSocket-Version: 13",
    )
    early = b"\x81\x85\x00\x00\x00\x00early"

    async def script(upstream: Upstream, wire: Wire) -> None:
        upstream.note(await wire.request())
        if answer == "101":
            await wire.send(
                b"HTTP/1.1 101 S\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSet-Cookie: a=b\r\n\r\n"
            )
            assert await wire.exactly(len(early)) == early
            await wire.send(b"\x81\x05hello")
            await wire.rest()
        else:
            await wire.send(reply(f"{answer} No", b"no"))

    async with lane.upstream(script) as upstream, await lane.dial() as wire:
        await wire.send(lane.ask(b"GET", b"/socket", *fields) + early)
        head = await wire.head()
        if head.one(b"x-authproxy-error") is not None:
            assert upstream.requests == []
            return
        (message,) = upstream.requests
        assert message.head.one(b"authorization") == lane.bearer
        if answer == "101":
            assert head.status == 101
            assert await wire.exactly(7) == b"\x81\x05hello"
        else:
            assert head.status == int(answer)
            assert await wire.exactly(2) == b"no"
