"""Time and memory: who is gone is let go of, who is slow is waited for in bounded memory, who is dead is cut off."""

from __future__ import annotations

import asyncio
import time

import pytest

from tests.kit.lanes import TIMEOUTS, Lane, assert_problem
from tests.kit.raw import Gone, Upstream, Wire, reply, until

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
MIB = 2**20


async def _until_closed(wire: Wire) -> float:
    start = time.monotonic()
    try:
        while await wire.reader.read(MIB):
            start = time.monotonic()
    except ConnectionError:
        pass
    return time.monotonic() - start


@pytest.mark.scenario("G11")
@pytest.mark.parametrize("how", ["fin", "rst"])
@pytest.mark.parametrize("phase", ["before-head", "idle-stream", "in-body", "in-upload"])
async def test_when_the_agent_is_gone_the_upstream_is_closed(lane: Lane, phase: str, how: str) -> None:
    begun, closed = asyncio.Event(), asyncio.Event()

    async def hang(upstream: Upstream, wire: Wire) -> None:
        await wire.head()
        if phase in ("idle-stream", "in-body"):
            await wire.send(HEAD)
        begun.set()
        if phase == "in-body":
            try:
                while True:
                    await wire.send(b"10000\r\n" + b"a" * 65536 + b"\r\n")
            except (ConnectionError, TimeoutError):
                closed.set()
            return
        await _until_closed(wire)
        closed.set()

    async with lane.upstream(hang):
        wire = await lane.dial()
        if phase == "in-upload":
            await wire.send(lane.ask(b"POST", b"/x", b"Content-Length: 1000000") + b"a" * 1000)
        else:
            await wire.send(lane.ask())
        await asyncio.wait_for(begun.wait(), 5)
        if phase in ("idle-stream", "in-body"):
            await wire.head()
        wire.reset() if how == "rst" else None
        await wire.close()
        await asyncio.wait_for(closed.wait(), 1.0)


@pytest.mark.scenario("G11")
async def test_agents_that_leave_leave_no_descriptors_behind(lane: Lane) -> None:
    async def hang(upstream: Upstream, wire: Wire) -> None:
        await wire.head()
        await wire.send(HEAD)
        await _until_closed(wire)

    async def leave() -> None:
        wire = await lane.dial()
        await wire.send(lane.ask())
        await wire.head()
        wire.reset()
        await wire.close()

    async with lane.upstream(hang):
        await leave()
        before = lane.proxy.descriptors()
        for _ in range(5):
            await asyncio.gather(*(leave() for _ in range(40)))
        await until(lambda: lane.proxy.descriptors() <= before + 10)


@pytest.mark.scenario("G19")
async def test_agents_that_do_not_read_cost_bounded_memory(lane: Lane) -> None:
    count, block = 20, b"10000\r\n" + b"a" * 65536 + b"\r\n"
    stalled = asyncio.Semaphore(0)

    async def flood(upstream: Upstream, wire: Wire) -> None:
        await wire.head()
        await wire.send(HEAD)
        for _ in range(1600):  # 100 MiB, had anybody taken them
            wire.writer.write(block)
            try:
                await asyncio.wait_for(wire.writer.drain(), 0.3)
            except TimeoutError:
                stalled.release()
                await _until_closed(wire)
                return
        raise AssertionError("all of it was taken, so it is held somewhere")

    before = lane.proxy.rss()
    async with lane.upstream(flood):
        wires = [await lane.dial(buffer=4096) for _ in range(count)]
        for wire in wires:
            await wire.send(lane.ask())
            await wire.head()
        for _ in wires:
            await asyncio.wait_for(stalled.acquire(), 20)
        grown = lane.proxy.rss() - before
        for wire in wires:
            wire.reset()
            await wire.close()
    assert grown < 40 * MIB, f"{grown / MIB:.0f} MiB for {count} stalled agents"


@pytest.mark.scenario("G19", "D01")
async def test_an_upstream_that_does_not_read_costs_bounded_memory(lane: Lane) -> None:
    count, block = 10, b"a" * 65536

    async def deaf(upstream: Upstream, wire: Wire) -> None:
        await wire.head()
        wire.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await asyncio.Event().wait()

    async def shove(wire: Wire) -> bool:
        await wire.send(lane.ask(b"POST", b"/x", b"Content-Length: %d" % (100 * MIB)))
        for _ in range(1600):
            wire.writer.write(block)
            try:
                await asyncio.wait_for(wire.writer.drain(), 0.5)
            except TimeoutError:
                return True
        return False

    before = lane.proxy.rss()
    async with lane.upstream(deaf):
        wires = [await lane.dial() for _ in range(count)]
        try:
            stalled = await asyncio.gather(*(shove(wire) for wire in wires), return_exceptions=True)
            grown = lane.proxy.rss() - before
        finally:
            for wire in wires:
                wire.reset()
                await wire.close()
    assert all(s is True or isinstance(s, ConnectionError) for s in stalled), stalled
    assert grown < 40 * MIB, f"{grown / MIB:.0f} MiB for {count} stalled uploads"


@pytest.mark.scenario("G19", "G09")
async def test_a_slow_reader_gets_everything(lane: Lane) -> None:
    body = bytes(range(256)) * (16 * 1024)  # 4 MiB

    async with lane.upstream([reply(body=body)]), await lane.dial(buffer=8192) as wire:
        await wire.send(lane.ask())
        head = await wire.head()
        got = bytearray()
        while len(got) < int(head.one(b"content-length") or b"0"):
            got += await wire.reader.read(100_000)
            await asyncio.sleep(0.001)
    assert bytes(got) == body


@pytest.mark.scenario("J11")
async def test_heads_that_trickle_in_are_cut_off(lane: Lane) -> None:
    """Counted from the first byte and not re-armed by later ones."""
    limit = TIMEOUTS["header"]
    starts = (b"GET /", lane.ask()[:-2])

    async def trickle(start: bytes) -> float:
        async with await lane.dial() as wire:
            begun = time.monotonic()
            await wire.send(start)

            async def feed() -> None:
                while True:
                    await asyncio.sleep(0.1)
                    await wire.send(b"a" if start == b"GET /" else b"X-%d: 1\r\n" % time.monotonic_ns())

            feeding = asyncio.create_task(feed())
            said = await wire.rest()
            feeding.cancel()
            await asyncio.gather(feeding, return_exceptions=True)
            assert said == b"" or b" 408 " in said.split(b"\r\n")[0] or b" 400 " in said.split(b"\r\n")[0], (
                said
            )
            return time.monotonic() - begun

    for took in await asyncio.gather(*(trickle(start) for start in starts)):
        assert limit * 0.5 < took < limit * 2.5


async def test_idle_connections_are_closed_in_the_end(lane: Lane) -> None:
    """One that never said a word, and one that was served and kept."""
    async with lane.upstream(), await lane.dial() as silent, await lane.dial() as kept:
        await kept.send(lane.ask())
        assert (await kept.response()).status == 200
        begun = time.monotonic()
        assert await asyncio.gather(silent.rest(), kept.rest()) == [b"", b""]
        assert 0.5 * TIMEOUTS["keepalive"] < time.monotonic() - begun < 2 * TIMEOUTS["keepalive"]


@pytest.mark.scenario("G09")
@pytest.mark.parametrize("method", [b"GET", b"POST"])
async def test_an_upstream_that_does_not_answer_is_a_504(lane: Lane, method: bytes) -> None:
    closed = asyncio.Event()

    async def silent(upstream: Upstream, wire: Wire) -> None:
        upstream.note(await wire.request())
        await _until_closed(wire)
        closed.set()

    async with lane.upstream(silent) as upstream:
        answer = await lane.call(lane.ask(method, body=b"x" if method == b"POST" else None), method)
        assert answer.status == 504, answer
        assert_problem(answer, "upstream_timeout")
        await asyncio.wait_for(closed.wait(), 1)
    assert len(upstream.requests) == 1


@pytest.mark.scenario("G09")
@pytest.mark.parametrize("framing", [b"Content-Length: 100", b"Transfer-Encoding: chunked"])
async def test_an_upload_that_stalls_is_given_up_and_never_looks_whole(lane: Lane, framing: bytes) -> None:
    closed = asyncio.Event()

    async def listens(upstream: Upstream, wire: Wire) -> None:
        await wire.head()
        await _until_closed(wire)
        closed.set()

    begun = time.monotonic()
    async with lane.upstream(listens):
        request = lane.ask(b"POST", b"/x", framing)
        answer = await lane.call(request + (b"4\r\nhalf\r\n" if b"chunked" in framing else b"half"), b"POST")
        assert answer.status in (408, 504), (
            answer
        )  # whose patience ends first is the configuration's business
        assert_problem(answer)
        await asyncio.wait_for(closed.wait(), 1)
    assert time.monotonic() - begun < 3 * TIMEOUTS["idle"]


@pytest.mark.scenario("G09", "G10")
@pytest.mark.parametrize("framing", ["chunked", "length", "close"])
async def test_a_stream_that_dies_silently_is_cut_and_not_ended(lane: Lane, framing: str) -> None:
    async def dies(upstream: Upstream, wire: Wire) -> None:
        await wire.request()
        await wire.send(
            {
                "chunked": HEAD + b"4\r\nhalf\r\n",
                "length": b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf",
                "close": b"HTTP/1.1 200 OK\r\n\r\nhalf",
            }[framing]
        )
        await _until_closed(wire)

    async with lane.upstream(dies):
        answer = await lane.call(lane.ask())
    assert answer.status == 200
    assert answer.framing != "close"
    assert (answer.body, answer.complete) == (b"half", False)


@pytest.mark.scenario("G09")
async def test_a_slow_stream_outlives_every_timeout(lane: Lane) -> None:
    pause = min(TIMEOUTS["idle"], TIMEOUTS["first_byte"]) * 0.6

    async def slow(upstream: Upstream, wire: Wire) -> None:
        await wire.request()
        await wire.send(HEAD)
        for _ in range(5):
            await asyncio.sleep(pause)
            await wire.send(b"1\r\n.\r\n")
        await wire.send(b"0\r\n\r\n")

    async with lane.upstream(slow):
        answer = await lane.call(lane.ask())
    assert (answer.body, answer.complete) == (b".....", True)


@pytest.mark.scenario("G20")
async def test_many_idle_streams_do_not_starve_a_request(lane: Lane) -> None:
    async def stream(upstream: Upstream, wire: Wire) -> None:
        head = await wire.head()
        if head.target == b"/quick":
            await wire.send(reply())
            return
        await wire.send(HEAD)
        await _until_closed(wire)

    async with lane.upstream(stream):
        wires = [await lane.dial() for _ in range(200)]
        try:
            for wire in wires:
                await wire.send(lane.ask(rest=b"/events"))
            for wire in wires:
                assert (await wire.head()).status == 200
            begun = time.monotonic()
            assert (await lane.call(lane.ask(rest=b"/quick"))).status == 200
            assert time.monotonic() - begun < 0.5
        finally:
            for wire in wires:
                wire.reset()
                await wire.close()


@pytest.mark.scenario("G13")
@pytest.mark.parametrize("size", [10, 60000, 50 * MIB])
async def test_a_refused_upload_is_read_to_a_bound_and_then_cut(lane: Lane, size: int) -> None:
    """The refusal arrives though the agent is still sending; a huge rest is not read for its sake."""
    async with lane.upstream() as upstream, await lane.dial() as wire:

        async def send() -> None:
            await wire.send(lane.ask(b"POST", b"/x", b"Content-Length: %d" % size, user=None))
            for at in range(0, size, 65536):
                await wire.send(b"a" * min(65536, size - at))

        sending = asyncio.create_task(send())
        try:
            answer = await wire.response(b"POST")
        except Gone as gone:
            raise AssertionError(f"the refusal was lost: {gone}") from None
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
        assert_problem(answer, "user_missing")
        await lane.prove_untouched(upstream)
