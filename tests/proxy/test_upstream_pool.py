"""Connections: when one is used again, when it is not, and how long anything may take."""

from __future__ import annotations

import asyncio
import os
import random
import resource
import socket
import ssl
import time
from pathlib import Path

import pytest

from authproxy.core.config import Limits
from authproxy.core.errors import EgressBlocked, Overloaded, UpstreamTimeout, UpstreamUnreachable
from authproxy.egress import EgressGuard
from authproxy.proxy.dial import client_context, dial
from authproxy.proxy.pool import Pool
from authproxy.proxy.upstream import Origin
from tests.proxy.raw import Authority, Peer, RawUpstream, answering
from tests.proxy.way_out import WayOut, read_all, way_out

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
PLANTED = b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nplanted"


async def settled(condition) -> None:  # type: ignore[no-untyped-def]
    """Wait until the loop has brought a state about."""
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0)


async def test_a_connection_is_used_again_by_the_same_partition_only() -> None:
    seen: list[tuple[int, bytes]] = []
    number = 0

    async def script(peer: Peer) -> None:
        nonlocal number
        number += 1
        own = number
        while True:
            seen.append((own, await peer.read_request()))
            await peer.send(OK)

    async with way_out(script) as out:
        for user in ("alice", "bob", "alice", "bob", "alice"):
            await out.get(partition=("t", user))
        assert [own for own, _ in seen] == [1, 2, 1, 2, 1]
        assert (out.upstream.open, out.upstream.idle, out.upstream.checked_out) == (2, 2, 0)


@pytest.mark.scenario("G12", "G14")
@pytest.mark.parametrize("late", [False, True], ids=["already seen by the loop", "still in the kernel"])
@pytest.mark.parametrize("planted", [PLANTED, b"\r\n", b"x", b""], ids=["answer", "newline", "byte", "end"])
async def test_bytes_on_an_idle_connection_poison_it(planted: bytes, late: bool) -> None:
    """aio-libs/aiohttp#13656: what came while nobody asked must not be read as the next user's answer."""
    plant: asyncio.Future[socket.socket] = asyncio.get_running_loop().create_future()
    number = 0

    async def script(peer: Peer) -> None:
        nonlocal number
        number += 1
        first = number == 1
        await peer.read_request()
        await peer.send(OK)
        if first:
            plant.set_result(peer.writer.get_extra_info("socket"))
        await peer.read_rest()

    async with way_out(script) as out:
        await out.get()
        sock = await plant
        # Past the loop, so that the way out's side holds the bytes before any task can run.
        if planted:
            os.write(sock.fileno(), planted)
        else:
            with socket.socket(fileno=os.dup(sock.fileno())) as same:
                same.shutdown(socket.SHUT_WR)
        if not late:
            await settled(lambda: out.upstream.idle == 0)
        answer = await out.send("POST", body=b"x")
        assert await read_all(answer) == b"ok"
        assert answer.exchange.attempts == 1  # not a retry: the poisoned connection was never written to
        assert out.raw.connections == 2


STALE = ["fin", "rst"]


@pytest.mark.scenario("G12", "D03")
@pytest.mark.parametrize("end", STALE)
async def test_a_stale_connection_is_replaced_once_for_what_may_be_repeated(end: str) -> None:
    requests: list[bytes] = []

    async def script(peer: Peer) -> None:
        requests.append(await peer.read_request())
        await peer.send(OK)
        if len(requests) == 1:
            requests.append(await peer.read_request())  # the keep-alive race: read, and gone
            if end == "rst":
                peer.reset()
        else:
            await peer.read_rest()

    async with way_out(script) as out:
        await out.get()
        exchange = out.exchange("PUT", body=b"whole", idempotent=True)
        answer = await out.upstream.send(exchange)
        assert await read_all(answer) == b"ok"
        assert exchange.attempts == 2
        assert requests[1] == requests[2]
        assert out.raw.connections == 2


@pytest.mark.scenario("G12", "D03")
@pytest.mark.parametrize("end", STALE)
@pytest.mark.parametrize("method", ["POST", "PATCH"])
async def test_what_may_not_be_repeated_is_sent_once(method: str, end: str) -> None:
    requests: list[bytes] = []

    async def script(peer: Peer) -> None:
        requests.append(await peer.read_request())
        await peer.send(OK)
        requests.append(await peer.read_request())
        if end == "rst":
            peer.reset()

    async with way_out(script) as out:
        await out.get()
        exchange = out.exchange(method, body=b"x")
        with pytest.raises(UpstreamUnreachable) as refusal:
            await out.upstream.send(exchange)
        assert refusal.value.reason in ("closed", "reset")
        assert len(requests) == 2
        assert (exchange.attempts, out.raw.connections) == (1, 1)


@pytest.mark.scenario("D03")
@pytest.mark.parametrize("replayable", [True, False])
async def test_a_streamed_body_is_repeated_only_where_it_gives_the_same_again(replayable: bool) -> None:
    class Body:
        async def __aiter__(self):  # type: ignore[no-untyped-def]
            yield b"he"
            yield b"llo"

    requests: list[bytes] = []

    async def script(peer: Peer) -> None:
        requests.append(await peer.read_request())
        if len(requests) == 2:
            return
        await peer.send(OK)
        if len(requests) == 1:
            requests.append(await peer.read_request())
        else:
            await peer.read_rest()

    async with way_out(script) as out:
        await out.get()
        sending = out.send("PUT", body=Body(), length=5, idempotent=True, replayable=replayable)
        if replayable:
            answer = await sending
            assert await read_all(answer) == b"ok"
            assert answer.bytes_out == 5
            assert requests[1] == requests[2]
        else:
            with pytest.raises(UpstreamUnreachable):
                await sending
            assert len(requests) == 2


@pytest.mark.scenario("D03")
@pytest.mark.parametrize(
    "said", [b"H", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab", b"HTTP/1.1 100 Continue\r\n\r\n"]
)
async def test_after_a_byte_of_the_answer_nothing_is_repeated(said: bytes) -> None:
    async def script(peer: Peer) -> None:
        await peer.read_request()
        await peer.send(OK)
        await peer.read_request()
        await peer.send(said)

    async with way_out(script) as out:
        await out.get()
        with pytest.raises(UpstreamUnreachable) as refusal:
            await out.get()
        assert refusal.value.reason == "truncated"
        assert out.raw.connections == 1


async def test_a_fresh_connection_that_breaks_is_not_replaced() -> None:
    async def script(peer: Peer) -> None:
        await peer.read_request()

    async with way_out(script) as out:
        with pytest.raises(UpstreamUnreachable) as refusal:
            await out.get()
        assert refusal.value.reason == "closed"
        assert out.raw.connections == 1


async def test_a_connection_is_not_kept_longer_than_the_upstream_says_or_we_want() -> None:
    async def script(peer: Peer) -> None:
        await peer.read_request()
        await peer.send(b"HTTP/1.1 200 OK\r\nKeep-Alive: max=5, timeout=%d\r\n" % limit + OK[17:])
        await peer.read_rest()

    limit = 1
    async with way_out(script) as out:
        await out.get()
        assert out.upstream.idle == 1
        await settled(lambda: out.upstream.open == 0)
    limit = 100
    async with way_out(script, upstream_idle=0.1) as out:
        await out.get()
        assert out.upstream.idle == 1
        await settled(lambda: out.upstream.open == 0)
    async with way_out(script, upstream_idle=0) as out:
        await out.get()
        assert out.upstream.open == 0


@pytest.mark.scenario("G20")
async def test_connections_to_one_origin_are_bounded_and_waiting_is_too() -> None:
    go = asyncio.Event()

    async def script(peer: Peer) -> None:
        while True:
            await peer.read_request()
            await go.wait()
            await peer.send(OK)

    async with way_out(script, limits=Limits(max_upstream_connections=2), connect=0.3) as out:
        busy = [asyncio.create_task(out.get(partition=user)) for user in ("a", "b")]
        await settled(lambda: out.upstream.checked_out == 2 and out.raw.connections == 2)
        with pytest.raises(Overloaded) as refusal:
            await out.get(partition="c")
        assert refusal.value.reason == "connections"
        waiting = [asyncio.create_task(out.get(partition=user)) for user in ("a", "c", "d", "a", "b")]
        await settled(lambda: out.upstream.waiting == 5)
        waiting[1].cancel()
        go.set()
        outcomes = await asyncio.gather(*busy, *waiting, return_exceptions=True)
        assert sum(isinstance(each, asyncio.CancelledError) for each in outcomes) == 1
        assert [each[1] for each in outcomes if isinstance(each, tuple)] == [b"ok"] * 6
        assert (out.upstream.waiting, out.upstream.checked_out) == (0, 0)
        assert 0 < out.upstream.open <= 2
        # An idle connection of somebody else makes room.
        for user in range(10):
            await out.get(partition=user)
        assert out.upstream.open <= 2


async def test_many_at_once_through_few_connections_all_end() -> None:
    async with way_out(answering(OK), limits=Limits(max_upstream_connections=3)) as out:
        bodies = await asyncio.gather(*(out.get(partition=number % 7) for number in range(200)))
        assert all(body == b"ok" for _, body in bodies)
        assert out.upstream.open <= 3
        assert out.upstream.checked_out == 0


@pytest.mark.scenario("G11")
async def test_a_turn_given_up_in_the_very_moment_it_comes_is_nobodys() -> None:
    async with RawUpstream(answering(OK)) as raw:
        guard, origin = EgressGuard(["127.0.0.1"]), Origin("http", "127.0.0.1", raw.port)
        pool = Pool(
            Limits(max_upstream_connections=1),
            keep_idle=5,
            dial=lambda to, build: dial(to, guard, client_context(), build),
            clock=time.monotonic,
        )
        connection = await pool.obtain(origin, "a", 5)
        waiting = asyncio.create_task(pool.obtain(origin, "a", 5))
        await settled(lambda: pool.waiting == 1)
        waiting.cancel()  # and before its task has heard of that:
        pool.release(connection, None)
        await asyncio.wait((waiting,))
        assert (pool.waiting, pool.idle, pool.open) == (0, 1, 1)
        assert pool.take(origin, "a") is connection
        await pool.close()


@pytest.mark.scenario("G11")
@pytest.mark.parametrize("seed", range(4))
async def test_whatever_is_given_up_whenever_every_place_comes_back(seed: int) -> None:
    dice = random.Random(seed)

    async def script(peer: Peer) -> None:
        while True:
            await peer.read_request()
            fate = dice.random()
            if fate < 0.1:
                peer.reset()
                return
            if fate < 0.2:
                await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\nhalf")
                return
            await peer.send(OK)
            if fate < 0.3:
                return

    async def one(out: WayOut) -> None:
        for _ in range(5):
            body = dice.choice([{}, {"body": b"x"}, {"body": Endless(), "chunked": True}])
            answer = await out.send(dice.choice(["GET", "POST"]), partition=dice.randrange(3), **body)
            for _ in range(dice.randrange(3)):
                await answer.read()
            answer.close()

    async with way_out(script, limits=Limits(max_upstream_connections=3), idle=1) as out:
        tasks = [asyncio.create_task(one(out)) for _ in range(60)]
        while not all(task.done() for task in tasks):
            dice.choice(tasks).cancel()
            for _ in range(dice.randrange(30)):
                await asyncio.sleep(0)
        for outcome in await asyncio.gather(*tasks, return_exceptions=True):
            assert isinstance(outcome, asyncio.CancelledError | UpstreamUnreachable | None), outcome
        assert (out.upstream.checked_out, out.upstream.waiting) == (0, 0)
        assert 0 <= out.upstream.open <= 3
        await asyncio.gather(*(settle_one(out, user) for user in range(6)))


class Endless:
    """An upload that always has more."""

    async def __aiter__(self):  # type: ignore[no-untyped-def]
        for _ in range(10**9):
            yield b"x" * 100
            await asyncio.sleep(0)


async def settle_one(out: WayOut, user: int) -> None:
    """Some exchange for the user still succeeds, however often the origin throws its dice."""
    while True:
        try:
            await out.get(partition=user)
        except UpstreamUnreachable:
            continue
        return


@pytest.mark.parametrize("reason", ["first_byte", "idle", "total", "total before the head"])
@pytest.mark.scenario("G09")
async def test_an_upstream_that_is_too_slow_is_given_up(reason: str) -> None:
    async def script(peer: Peer) -> None:
        await peer.read_request()
        if reason in ("idle", "total"):
            await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nab")
        while reason == "total":
            await peer.send(b"x")
            await asyncio.sleep(0.02)
        assert await peer.closed()

    seconds = {"first_byte": {"first_byte": 0.1}, "idle": {"idle": 0.1}}.get(
        reason, {"total": 0.3, "idle": 0.2}
    )
    async with way_out(script, **seconds) as out:
        with pytest.raises(UpstreamTimeout) as refusal:
            await out.get()
        assert refusal.value.reason == reason.split()[0]
        assert out.upstream.open == 0


@pytest.mark.scenario("G09")
async def test_a_quiet_stream_lives_as_long_as_something_comes_in_time() -> None:
    async def script(peer: Peer) -> None:
        await peer.read_request()
        await peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(8):
            await asyncio.sleep(0.1)
            await peer.send(b"1\r\nx\r\n")
        await peer.send(b"0\r\n\r\n")

    async with way_out(script, first_byte=0.3, idle=0.4) as out:
        assert (await out.get())[1] == b"x" * 8


async def test_a_routes_own_timeouts_replace_the_configured_ones() -> None:
    class Own:
        connect = None
        first_byte = 0.1
        idle = None
        total = None

    async def script(peer: Peer) -> None:
        await peer.read_request()
        await peer.closed()

    async with way_out(script) as out:
        with pytest.raises(UpstreamTimeout):
            await out.get(timeouts=Own())


async def test_an_upstream_that_does_not_accept_is_given_up() -> None:
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        fillers = []
        for _ in range(4):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(full.getsockname())
            fillers.append(filler)
        async with way_out(answering(OK), connect=0.3) as out:
            out.origin = Origin("http", "127.0.0.1", full.getsockname()[1])
            with pytest.raises(UpstreamTimeout) as refusal:
                await out.get()
            assert refusal.value.reason == "connect"
            assert out.upstream.open == 0
        for filler in fillers:
            filler.close()


async def test_a_refused_connection_says_so() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        async with way_out(answering(OK)) as out:
            out.origin = Origin("http", "127.0.0.1", closed.getsockname()[1])
            with pytest.raises(UpstreamUnreachable) as refusal:
                await out.get()
            assert refusal.value.reason == "refused"
            assert out.upstream.open == 0


async def resolver(host: str, port: int):  # type: ignore[no-untyped-def]
    """Two addresses of which only the second listens (127.0.0.2 is refused), and one that may not be dialled."""
    return [
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))
        for address in ("169.254.169.254", "127.0.0.2", "127.0.0.1")
    ]


@pytest.mark.scenario("G22")
async def test_the_next_address_is_tried_and_a_forbidden_one_never_is() -> None:
    guard = EgressGuard(["api.example.com"], resolver=resolver)
    async with way_out(answering(OK), guard=guard, host="api.example.com") as out:
        assert (await out.get())[1] == b"ok"


@pytest.mark.scenario("G22")
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "2130706433", "metadata.google.internal"])
async def test_what_may_not_be_dialled_is_not(host: str) -> None:
    async with way_out(answering(OK), guard=EgressGuard(), host=host) as out:
        with pytest.raises(EgressBlocked):
            await out.get()
        assert (out.raw.connections, out.upstream.open) == (0, 0)


async def test_an_upstream_that_speaks_first_is_refused() -> None:
    async def script(peer: Peer) -> None:
        await peer.send(PLANTED)
        await peer.read_rest()

    async def ask_until_refused(out: WayOut) -> None:
        while True:  # whether the bytes come before the request is the kernel's to say
            await (await out.send(body=b"x")).discard(10)

    async with way_out(script) as out:
        with pytest.raises(UpstreamUnreachable):
            await ask_until_refused(out)


# TLS


async def test_tls_is_verified_for_the_origins_host_and_spoken_both_ways() -> None:
    authority = Authority()
    seen: list[bytes] = []
    big = b"x" * 3_000_000

    async def script(peer: Peer) -> None:
        session = peer.writer.get_extra_info("ssl_object")
        while True:
            seen.append(await peer.read_request())
            assert session.version() in ("TLSv1.2", "TLSv1.3")
            await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 3000000\r\n\r\n" + big)

    async with way_out(
        script, tls=authority.server_context("localhost"), trust=authority.client_context(), host="localhost"
    ) as out:
        for _ in range(3):
            _answer, body = await out.get("POST", body=big)
            assert body == big
        assert all(request.endswith(b"\r\n\r\n" + big) for request in seen)
        assert out.raw.connections == 1


@pytest.mark.parametrize("fault", ["unknown authority", "other host", "expired", "plain"])
async def test_a_certificate_that_does_not_verify_ends_it_before_a_byte_is_sent(fault: str) -> None:
    authority = Authority()
    seen: list[bytes] = []

    async def script(peer: Peer) -> None:
        if fault == "plain":
            await peer.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        seen.append(await peer.read_rest())

    tls = authority.server_context(
        "other.example" if fault == "other host" else "localhost", expired=fault == "expired"
    )
    trust = Authority().client_context() if fault == "unknown authority" else authority.client_context()
    async with way_out(script, tls=None if fault == "plain" else tls, trust=trust, host="localhost") as out:
        out.origin = Origin("https", "localhost", out.raw.port)
        with pytest.raises(UpstreamUnreachable) as refusal:
            await out.send()
        assert refusal.value.reason == "tls"
        assert "certificate" not in str(refusal.value.problem())
        assert all(b"GET /" not in each for each in seen)
        assert out.upstream.open == 0


async def test_the_default_context_trusts_no_throw_away_authority() -> None:
    authority = Authority()
    async with way_out(answering(OK), tls=authority.server_context("localhost"), host="localhost") as out:
        with pytest.raises(UpstreamUnreachable) as refusal:
            await out.get()
        assert refusal.value.reason == "tls"


@pytest.mark.parametrize("newest", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.scenario("G10")
async def test_over_tls_only_a_close_notify_ends_an_unframed_body(newest: ssl.TLSVersion) -> None:
    authority = Authority()
    context = authority.server_context("localhost")
    context.maximum_version = newest
    clean = True

    async def script(peer: Peer) -> None:
        await peer.read_head()
        await peer.send(b"HTTP/1.1 200 OK\r\n\r\nsome")
        if not clean:
            peer.abort()

    async with way_out(script, tls=context, trust=authority.client_context(), host="localhost") as out:
        answer, body = await out.get()
        assert (answer.framing, body) == ("close", b"some")
        clean = False
        with pytest.raises(UpstreamUnreachable) as refusal:
            await out.get()
        assert refusal.value.reason == "truncated"


@pytest.mark.scenario("G12")
async def test_over_tls_too_planted_bytes_and_ends_poison_an_idle_connection() -> None:
    authority = Authority()
    plant = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.read_request()
        await peer.send(OK)
        await plant.wait()
        await peer.send(PLANTED)
        await peer.read_rest()

    async with way_out(
        script, tls=authority.server_context("localhost"), trust=authority.client_context(), host="localhost"
    ) as out:
        await out.get()
        assert out.upstream.idle == 1
        plant.set()
        await settled(lambda: out.upstream.open == 0)
        assert (await out.get())[1] == b"ok"


@pytest.mark.scenario("G11")
async def test_ten_thousand_exchanges_leave_no_descriptor_behind() -> None:
    async def script(peer: Peer) -> None:
        while True:
            await peer.reader.readuntil(b"\r\n\r\n")
            peer.writer.write(OK)

    def descriptors() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] > 200
    async with way_out(script) as out:
        await out.get()
        before = descriptors()

        async def worker(number: int) -> None:
            for turn in range(500):
                answer = await out.send(partition=number)
                if turn % 50 == 49:
                    answer.close()
                else:
                    assert await read_all(answer) == b"ok"

        await asyncio.gather(*(worker(number) for number in range(20)))
        assert out.upstream.checked_out == 0
        assert descriptors() <= before + 2 * 21


async def test_closing_ends_what_is_under_way_and_what_waits() -> None:
    async def script(peer: Peer) -> None:
        await peer.read_request()
        await peer.read_rest()

    async with way_out(script, limits=Limits(max_upstream_connections=1)) as out:
        busy = asyncio.create_task(out.get())
        await settled(lambda: out.raw.connections == 1)
        queued = asyncio.create_task(out.get())
        await settled(lambda: out.upstream.waiting == 1)
        await out.upstream.close()
        with pytest.raises(UpstreamUnreachable) as refusal:
            await busy
        assert refusal.value.reason == "shutdown"
        with pytest.raises((Overloaded, UpstreamUnreachable)):
            await queued
        with pytest.raises(UpstreamUnreachable):
            await out.get()
