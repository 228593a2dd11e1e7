"""Connections: kept alive on both sides, never mixed up, and a stale one costs a retry only where that is safe."""

from __future__ import annotations

import asyncio

import pytest

from tests.kit.lanes import Lane, assert_closes, assert_problem
from tests.kit.raw import PATIENCE, Gone, Upstream, Wire, reply

KEPT = reply(keep=True)


async def _wire_of(lane: Lane, *requests: bytes) -> None:
    async with await lane.dial() as wire:
        for request in requests:
            await wire.send(request)
            assert (await wire.response()).status == 200


async def test_many_requests_on_one_connection_each_side(lane: Lane) -> None:
    async with lane.upstream([KEPT]) as upstream:
        await _wire_of(lane, *(lane.ask(rest=b"/%d" % n) for n in range(20)))
        assert len(upstream.wires) == 1
    assert [m.head.target for m in upstream.requests] == [b"/%d" % n for n in range(20)]


async def test_an_agents_new_connection_reuses_the_upstreams(lane: Lane) -> None:
    async with lane.upstream([KEPT]) as upstream:
        for n in range(5):
            await _wire_of(lane, lane.ask(rest=b"/%d" % n))
        assert len(upstream.wires) == 1


@pytest.mark.scenario("I03", "D15")
async def test_users_do_not_share_an_upstream_connection(lane: Lane) -> None:
    """What one user's answer may have left on a connection can only ever reach that user."""
    bob, _ = await asyncio.to_thread(lane.seeded.user)
    async with lane.upstream([KEPT]) as upstream:
        for _ in range(3):
            await _wire_of(lane, lane.ask(), lane.ask(user=bob.encode()))
        assert len(upstream.wires) == 2


async def test_users_share_connections_where_a_route_says_so(special: dict[str, Lane]) -> None:
    """The token is the request's, not the connection's."""
    lane = special["shared"]
    bob, grant = await asyncio.to_thread(lane.seeded.user)
    async with lane.upstream([KEPT]) as upstream:
        for _ in range(3):
            await _wire_of(lane, lane.ask(), lane.ask(user=bob.encode()))
        assert len(upstream.wires) == 1
    sent = [message.head.one(b"authorization") for message in upstream.requests]
    assert sent == [lane.bearer, grant.bearer] * 3


@pytest.mark.parametrize("depth", [2, 8, 40])
async def test_pipelined_requests_are_answered_in_order(lane: Lane, depth: int) -> None:
    async def echo(upstream: Upstream, wire: Wire) -> None:
        while True:
            try:
                message = await wire.request()
            except Gone:
                return
            await wire.send(reply(body=message.head.target, keep=True))

    async with lane.upstream(echo), await lane.dial() as wire:
        await wire.send(b"".join(lane.ask(rest=b"/%d" % n) for n in range(depth)))
        assert [(await wire.response()).body for _ in range(depth)] == [b"/%d" % n for n in range(depth)]


async def test_pipelined_uploads_keep_their_bodies(lane: Lane) -> None:
    async with lane.upstream([KEPT]) as upstream, await lane.dial() as wire:
        await wire.send(
            lane.ask(b"POST", b"/1", body=b"one")
            + lane.ask(b"POST", b"/2", b"Transfer-Encoding: chunked")
            + b"3\r\ntwo\r\n0\r\n\r\n"
            + lane.ask(b"GET", b"/3")
            + lane.ask(b"POST", b"/4", body=b"")
        )
        for _ in range(4):
            assert (await wire.response()).status == 200
    got = [(m.head.target, m.body) for m in upstream.requests]
    assert got == [(b"/1", b"one"), (b"/2", b"two"), (b"/3", b""), (b"/4", b"")]


@pytest.mark.scenario("G13")
async def test_what_was_pipelined_behind_a_malformed_request_is_not_served(lane: Lane) -> None:
    async with lane.upstream() as upstream, await lane.dial() as wire:
        await wire.send(b"GET / HTTP/1.1\r\nHost : x\r\n\r\n" + lane.ask(rest=b"/behind"))
        assert_problem(await wire.response(), "bad_request")
        await assert_closes(wire)
        await lane.prove_untouched(upstream)


@pytest.mark.scenario("G13")
@pytest.mark.parametrize("before", [1, 3])
@pytest.mark.parametrize("apart", [0, 11])
async def test_a_malformed_request_does_not_take_those_before_it_along(
    lane: Lane, before: int, apart: int
) -> None:
    async with lane.upstream([KEPT]) as upstream, await lane.dial() as wire:
        good = b"".join(lane.ask(rest=b"/%d" % n) for n in range(before))
        await wire.send(good[:apart])
        await asyncio.sleep(0)
        await wire.send(good[apart:] + b"GET / HTTP/1.1\r\nHost : x\r\n\r\n")
        for _ in range(before):
            assert (await wire.response()).status == 200
        assert_problem(await wire.response(), "bad_request")
        await assert_closes(wire)
    assert [m.head.target for m in upstream.requests] == [b"/%d" % n for n in range(before)]


@pytest.mark.scenario("G13")
async def test_a_head_without_an_end_is_refused_long_before_the_parser_would(lane: Lane) -> None:
    """128 fields of 32 KB each are within the limits of lines: what counts is all of it."""
    async with lane.upstream() as upstream, await lane.dial() as wire:
        await wire.send(b"GET / HTTP/1.1\r\nHost: x\r\n")
        for number in range(7):
            await wire.send(b"X-%d: %b\r\n" % (number, b"v" * 16_000))
        assert_problem(await wire.response(), "header_too_large")
        await assert_closes(wire)
        await lane.prove_untouched(upstream)


@pytest.mark.scenario("G13")
async def test_a_refusal_does_not_cost_the_connection_when_nothing_is_unread(lane: Lane) -> None:
    async with lane.upstream([KEPT]) as upstream, await lane.dial() as wire:
        await wire.send(lane.ask(user=None))
        refusal = await wire.response()
        assert_problem(refusal, "user_missing")
        assert refusal.head.one(b"connection") != b"close"
        await wire.send(lane.ask(rest=b"/next"))
        assert (await wire.response()).status == 200
    assert [m.head.target for m in upstream.requests] == [b"/next"]


@pytest.mark.parametrize(
    ("version", "field", "stays"),
    [
        (b"HTTP/1.1", b"", True),
        (b"HTTP/1.1", b"Connection: close\r\n", False),
        (b"HTTP/1.1", b"Connection: CLOSE\r\n", False),
        (b"HTTP/1.1", b"Connection: x-foo, close\r\n", False),
        (b"HTTP/1.0", b"", False),
        (b"HTTP/1.0", b"Connection: keep-alive\r\n", None),
    ],
)
async def test_who_wants_the_connection_closed_gets_it_closed(
    lane: Lane, version: bytes, field: bytes, stays: bool | None
) -> None:
    request = lane.fill(b"GET {T} " + version + b"\r\n{H}" + field + b"\r\n")
    async with lane.upstream([KEPT]), await lane.dial() as wire:
        await wire.send(request)
        answer = await wire.response()
        assert (answer.status, answer.body) == (200, b"ok")
        if stays:
            assert answer.head.one(b"connection") in (None, b"keep-alive")
            await wire.send(request)
            assert (await wire.response()).status == 200
        elif stays is False:
            assert (
                answer.framing == "close"
                or answer.head.one(b"connection") == b"close"
                or version == b"HTTP/1.0"
            )
            assert await wire.rest() == b""


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nConnection: Close, x\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
    ],
    ids=["close", "close-in-list", "1.0"],
)
async def test_an_upstream_that_says_close_is_not_asked_again_there(lane: Lane, head: bytes) -> None:
    """It does not even close: the word alone must do."""
    ends: list[Wire] = []

    async def script(upstream: Upstream, wire: Wire) -> None:
        ends.append(wire)
        await wire.request()
        await wire.send(head)
        assert await wire.rest() == b""

    async with lane.upstream(script):
        await _wire_of(lane, lane.ask(), lane.ask(b"POST", body=b""), lane.ask())
    assert len(ends) == 3


@pytest.mark.scenario("G12", "G22")
@pytest.mark.parametrize("when", ["with-answer", "after-answer"])
@pytest.mark.parametrize(
    "planted",
    [b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nPOISON", b"\r\n", b"x", b"HTTP/1.1 408 Timeout\r\n\r\n"],
    ids=["whole-answer", "newline", "one-byte", "408"],
)
async def test_bytes_on_an_idle_connection_never_answer_another_request(
    lane: Lane, planted: bytes, when: str
) -> None:
    """aio-libs/aiohttp#13656: the next request, of another user, must not get the planted answer."""

    async def script(upstream: Upstream, wire: Wire) -> None:
        try:
            upstream.note(await wire.request())
            first = len(upstream.requests) == 1
            await wire.send(KEPT + (planted if first and when == "with-answer" else b""))
            if first and when == "after-answer":
                await wire.send(planted)
            while True:
                upstream.note(await wire.request())
                await wire.send(KEPT)
        except Gone:
            return

    async with lane.upstream(script) as upstream:
        first = await lane.call(lane.ask(rest=b"/first"))
        assert first.body == b"ok"
        for n in range(3):
            answer = await lane.call(lane.ask(rest=b"/%d" % n))
            assert (answer.status, answer.body) == (200, b"ok"), answer
        assert len(upstream.wires) > 1, "the connection that said too much is used no more"
    assert [m.head.target for m in upstream.requests] == [b"/first", b"/0", b"/1", b"/2"]


@pytest.mark.scenario("G12", "G22")
async def test_bytes_that_wait_unread_when_a_request_comes_do_not_answer_it(lane: Lane) -> None:
    """They are in the kernel, and the loop has not looked yet: the request's own bytes are read in the same turn."""
    idle: asyncio.Queue[Wire] = asyncio.Queue()

    async def script(upstream: Upstream, wire: Wire) -> None:
        while True:
            try:
                message = await wire.request()
            except Gone:
                return
            upstream.note(message)
            await wire.send(reply(body=message.head.target, keep=True))
            idle.put_nowait(wire)

    async with lane.upstream(script) as upstream, await lane.dial() as agent:
        for n in range(20):
            await agent.send(lane.ask(rest=b"/prime-%d" % n))
            assert (await agent.response()).status == 200
            wire = await idle.get()
            request = lane.ask(b"POST", b"/%d" % n, body=b"hello")
            wire.writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nPOISON")
            agent.writer.write(request)
            answer = await agent.response(b"POST")
            assert (answer.status, answer.body) == (200, b"/%d" % n), answer
            assert await idle.get() is not wire
    assert len(upstream.requests) == 40


async def _stale(
    lane: Lane, request: bytes, method: bytes, *, reset: bool, read: bool
) -> tuple[int, int, int]:
    """Primes a kept connection, which then dies under the next request.

    Returns the answer's status, how often the request was read whole, and how many connections there were.
    """
    executed = 0

    async def script(upstream: Upstream, wire: Wire) -> None:
        nonlocal executed
        first = len(upstream.wires) == 1
        try:
            while True:
                message = await wire.request() if not first or read or not upstream.requests else None
                if message is None:  # dies on the first byte, unread
                    await wire.exactly(1)
                    wire.reset() if reset else None
                    return
                upstream.note(message)
                if message.head.target == b"/victim":
                    executed += 1
                    if first:
                        wire.reset() if reset else None
                        return
                await wire.send(KEPT)
        except Gone:
            return

    async with lane.upstream(script) as upstream:
        assert (await lane.call(lane.ask(rest=b"/prime"))).status == 200
        answer = await lane.call(request, method)
        if answer.status != 200:
            assert_problem(answer, "upstream_unreachable")
        return answer.status, executed, len(upstream.wires)


@pytest.mark.scenario("G12", "D03")
@pytest.mark.parametrize("reset", [False, True], ids=["fin", "rst"])
@pytest.mark.parametrize("method", [b"GET", b"HEAD", b"OPTIONS"])
async def test_a_stale_connection_costs_a_safe_request_one_retry(
    lane: Lane, method: bytes, reset: bool
) -> None:
    status, executed, wires = await _stale(lane, lane.ask(method, b"/victim"), method, reset=reset, read=True)
    assert (status, executed, wires) == (200, 2, 2)


@pytest.mark.scenario("G12", "D03")
@pytest.mark.parametrize("body", [b"", b"hello"], ids=["empty", "body"])
@pytest.mark.parametrize("read", [False, True], ids=["unread", "executed"])
@pytest.mark.parametrize("reset", [False, True], ids=["fin", "rst"])
@pytest.mark.parametrize("method", [b"POST", b"PATCH"])
async def test_a_stale_connection_never_sends_a_write_twice(
    lane: Lane, method: bytes, reset: bool, read: bool, body: bytes
) -> None:
    """9110 9.2.2: once a byte went out nobody knows; 502, and the agent decides."""
    request = lane.ask(method, b"/victim", body=body)
    status, executed, wires = await _stale(lane, request, method, reset=reset, read=read)
    assert (status, wires) == (502, 1)
    assert executed == (1 if read else 0)


@pytest.mark.scenario("D03")
@pytest.mark.parametrize("method", [b"POST", b"PATCH", b"DELETE", b"PUT"])
@pytest.mark.parametrize("reset", [False, True], ids=["fin", "rst"])
async def test_a_write_on_a_fresh_connection_is_sent_exactly_once(
    lane: Lane, method: bytes, reset: bool
) -> None:
    async def dies(upstream: Upstream, wire: Wire) -> None:
        upstream.note(await wire.request())
        wire.reset() if reset else None

    async with lane.upstream(dies) as upstream:
        answer = await lane.call(lane.ask(method, body=b"hello"), method)
    assert_problem(answer, "upstream_unreachable")
    assert answer.status == 502
    assert len(upstream.requests) == 1


@pytest.mark.scenario("G12")
async def test_a_safe_request_is_not_repeated_where_the_connection_was_fresh(lane: Lane) -> None:
    async def dies(upstream: Upstream, wire: Wire) -> None:
        upstream.note(await wire.request())

    async with lane.upstream(dies) as upstream:
        assert_problem(await lane.call(lane.ask()), "upstream_unreachable")
    assert len(upstream.requests) == 1


@pytest.mark.scenario("G12")
@pytest.mark.parametrize("method", [b"GET", b"POST"])
async def test_a_connection_closed_while_idle_is_not_used(lane: Lane, method: bytes) -> None:
    """The FIN was there long before the request: even a POST goes out on a fresh connection."""
    closed = asyncio.Event()

    async def script(upstream: Upstream, wire: Wire) -> None:
        upstream.note(await wire.request())
        await wire.send(KEPT)
        if len(upstream.wires) == 1:
            wire.half_close()
            assert await wire.rest() == b""  # and it is closed in turn
            closed.set()

    async with lane.upstream(script) as upstream:
        assert (await lane.call(lane.ask())).status == 200
        await asyncio.wait_for(closed.wait(), PATIENCE)
        answer = await lane.call(lane.ask(method, body=b"hello" if method == b"POST" else None), method)
        assert answer.status == 200, answer
    assert len(upstream.requests) == 2


@pytest.mark.parametrize("method", [b"GET", b"POST"])
async def test_an_agent_that_closed_its_half_still_gets_its_answer(lane: Lane, method: bytes) -> None:
    """As `printf … | nc` does. The answer comes, whole, and then the end of the connection."""

    async def slowly(upstream: Upstream, wire: Wire) -> None:
        await wire.request()
        await asyncio.sleep(0.1)
        await wire.send(reply(body=b"whole"))

    async with lane.upstream(slowly), await lane.dial() as wire:
        await wire.send(lane.ask(method, body=b"x" if method == b"POST" else None))
        wire.half_close()
        answer = await wire.response(method)
        assert (answer.status, answer.body, answer.complete) == (200, b"whole", True)
        await assert_closes(wire)


@pytest.mark.scenario("G14", "I02", "I03")
async def test_two_users_at_once_never_share_an_answer_or_a_token(lane: Lane) -> None:
    bob, grant = await asyncio.to_thread(lane.seeded.user)

    async def echo(upstream: Upstream, wire: Wire) -> None:
        while True:
            try:
                message = await wire.request()
            except Gone:
                return
            upstream.note(message)
            await asyncio.sleep(0)
            await wire.send(
                reply(body=message.head.target + b" " + message.head.all(b"authorization")[0], keep=True)
            )

    async def ask(n: int) -> None:
        mine = n % 2 == 0
        user, bearer = (b"alice", lane.bearer) if mine else (bob.encode(), grant.bearer)
        answer = await lane.call(lane.ask(rest=b"/%d" % n, user=user))
        # The echo is what F05 is about: the token may come back scrubbed, but never another's.
        assert answer.body.startswith(b"/%d " % n)
        target = b"/%d" % n
        sent = [m.head.all(b"authorization") for m in upstream.requests if m.head.target == target]
        assert sent == [[bearer]]

    async with lane.upstream(echo) as upstream:
        await asyncio.gather(*(ask(n) for n in range(60)))
