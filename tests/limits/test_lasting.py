"""What lasts ends with what it stands on, and an agent that takes nothing is not waited for."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from tests.kit.lanes import BASE, CONNECT, Lane, assert_problem
from tests.kit.raw import Gone, Upstream, Wire, reply, until
from tests.limits.conftest import EVENTS, LEASH, WRITE, open_stream, streaming
from tests.tunnel.conftest import Yard
from tests.tunnel.test_websocket import HANDSHAKE, accepting, frame

GIGABYTE = 2**30
SLACK = 1.0  # seconds for a busy machine
BLOCK = b"10000\r\n" + b"a" * 65536 + b"\r\n"


async def drained(wire: Wire) -> bytes:
    """All until the end, which is no whole answer's; its last bytes."""
    last = b""
    with contextlib.suppress(ConnectionError):
        while piece := await wire.some():
            last = (last + piece)[-32:]
    assert not last.endswith(b"0\r\n\r\n"), "a stream that was cut must not look whole"
    return last


async def flood(upstream: Upstream, wire: Wire) -> None:
    """A download of a gigabyte."""
    upstream.note(await wire.request())
    await wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % GIGABYTE)
    with contextlib.suppress(ConnectionError, TimeoutError):
        for _ in range(GIGABYTE // 65536):
            wire.writer.write(b"a" * 65536)
            await wire.writer.drain()
            await asyncio.sleep(0.001)  # a gigabyte at once would be over before anybody can revoke anything


async def silent(upstream: Upstream, wire: Wire) -> None:
    """Reads what it can of an upload."""
    with contextlib.suppress(Gone, ConnectionError):
        await wire.head()
        await wire.rest()


@pytest.mark.scenario("I08", "G11")
async def test_all_that_a_key_has_under_way_ends_with_it(yard: Yard) -> None:
    """Events on two ways in, a download that is read and one that is not, an upload, bytes that are passed on."""
    key, key_id = await asyncio.to_thread(yard.key, "lasting", "alice")
    shown = b"X-Authproxy-Key: " + key.encode()
    lanes = [yard.lane(BASE), yard.lane(CONNECT), *(yard.lane() for _ in range(3))]
    events, inside, read, unread, sender = lanes
    async with contextlib.AsyncExitStack() as stack:
        scripts = (streaming, streaming, flood, flood, silent)
        upstreams = [
            await stack.enter_async_context(lane.upstream(script))
            for lane, script in zip(lanes, scripts, strict=True)
        ]
        plain = await stack.enter_async_context(open_stream(events, shown))
        tunnelled = await stack.enter_async_context(open_stream(inside, shown))
        loads = []
        for lane, buffer in ((read, None), (unread, 4096)):
            loads.append(await stack.enter_async_context(await lane.dial(buffer=buffer)))
            await loads[-1].send(lane.ask(b"GET", b"/big", shown))
            assert (await loads[-1].head()).status == 200
        sending = await stack.enter_async_context(await sender.dial())
        await sending.send(sender.ask(b"POST", b"/x", shown, b"Content-Length: 1000000") + b"a" * 1000)
        passed = await stack.enter_async_context(passed_on(yard, shown))
        reading = asyncio.create_task(drained(loads[0]))
        await asyncio.to_thread(yard.run, "agents", "revoke", key_id)
        began = time.monotonic()
        answer = await sending.response()
        assert answer.status == 407, "nothing of an answer had gone out: it is told"
        assert_problem(answer, "caller_unknown")
        await asyncio.gather(*map(drained, (plain, tunnelled, passed)), reading)
        wires = [wire for upstream in upstreams for wire in upstream.wires]
        assert len(wires) == 5
        await until(lambda: all(one.reader.at_eof() or one.writer.is_closing() for one in wires), 1.0)
        assert time.monotonic() - began < LEASH + SLACK
    ended: dict[str, Any] = {}
    async with asyncio.timeout(5):
        while len(ended) < 6:  # the trail is written in batches
            records = await yard.records(1, agent="lasting")
            cut = [one for one in records if one["code"] not in (None, "no_route")]
            ended = {one["route"] or one["method"]: one for one in cut}
    assert set(ended) == {lane.name for lane in lanes} | {"CONNECT"}
    # Whoever does not read is cut for that, should it be noticed first.
    codes = {name: one["code"] for name, one in ended.items() if name != unread.name}
    assert set(codes.values()) == {"caller_unknown"}, codes
    assert {one["reason"] for name, one in ended.items() if name in codes} == {"revoked_key"}
    assert ended[unread.name]["code"] in ("caller_unknown", "client_stalled")
    assert (ended[events.name]["status"], ended[sender.name]["status"]) == (200, 407)


@contextlib.asynccontextmanager
async def passed_on(yard: Yard, *fields: bytes) -> AsyncIterator[Wire]:
    """A tunnel to a host that no route names, and something said through it."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(4096):
                writer.write(data)
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", yard.ports["blind"])
    async with server, await Wire.dial(yard.proxy.listen) as wire:
        at = b"127.0.0.1:%d" % yard.ports["blind"]
        await wire.send(b"\r\n".join([b"CONNECT %s HTTP/1.1" % at, b"Host: " + at, *fields]) + b"\r\n\r\n")
        assert (await wire.head()).status == 200
        await wire.send(b"ping")
        assert await wire.exactly(4) == b"ping"
        yield wire


@pytest.mark.scenario("I08")
async def test_all_streams_of_a_connection_end_with_it(yard: Yard) -> None:
    lane = yard.lane()
    name, _ = await asyncio.to_thread(yard.seeded.user)
    (found,) = yard.proxy.ask("GET", f"/v1/connections?user_id={name}")[1]["items"]
    async with lane.upstream(streaming) as upstream, contextlib.AsyncExitStack() as stack:
        streams = [await stack.enter_async_context(open_stream(lane, user=name.encode())) for _ in range(8)]
        bystander = await stack.enter_async_context(open_stream(lane))
        gone = await asyncio.to_thread(yard.proxy.ask, "DELETE", f"/v1/connections/{found['id']}")
        assert gone[0] in (200, 204), gone
        began = time.monotonic()
        await asyncio.gather(*map(drained, streams))
        assert time.monotonic() - began < LEASH + SLACK
        await until(lambda: sum(one.reader.at_eof() for one in upstream.wires) == 8, 1.0)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(LEASH):
                await bystander.some()
    ended = await yard.records(8, route=lane.name, user=name)
    assert {(one["code"], one["status"]) for one in ended} == {("connection_required", 200)}
    assert len(ended) == 8


# --- who does not read ---------------------------------------------------------------------------------------


async def _answer(lane: Lane, wire: Wire) -> None:
    await wire.send(lane.ask(b"GET", b"/big"))
    assert (await wire.head()).status == 200


async def _socket(lane: Lane, wire: Wire) -> None:
    await wire.send(lane.ask(b"GET", b"/socket", *HANDSHAKE))
    assert (await wire.head()).status == 101


async def chatty(wire: Wire) -> None:
    """Says more than anybody takes."""
    with contextlib.suppress(ConnectionError, TimeoutError):
        while True:
            await wire.send(frame(b"a" * 65536, 2, masked=False))


@pytest.mark.scenario("G19", "G11")
@pytest.mark.parametrize(
    ("mode", "begin", "status"),
    [(BASE, _answer, 200), (CONNECT, _answer, 200), (BASE, _socket, 101), (CONNECT, _socket, 101)],
    ids=["answer", "answer-tls", "websocket", "websocket-tls"],
)
async def test_an_agent_that_takes_nothing_is_cut(
    yard: Yard, mode: str, begin: Callable[[Lane, Wire], Awaitable[None]], status: int
) -> None:
    lane = yard.lane(mode)
    script = accepting(chatty) if status == 101 else flood
    async with lane.upstream(script) as upstream, await lane.dial(buffer=4096) as wire:
        await begin(lane, wire)
        began = time.monotonic()
        await until(lambda: all(one.writer.is_closing() for one in upstream.wires), WRITE * 2 + 2 + SLACK)
        assert time.monotonic() - began > WRITE * 0.9
    last = (await yard.records(1, route=lane.name, status=status))[-1]
    assert (last["code"], last["act"]) == ("client_stalled", None)


@pytest.mark.scenario("G19")
async def test_an_agent_that_is_only_slow_gets_everything(yard: Yard) -> None:
    lane = yard.lane()
    body = b"a" * 8_000_000

    async with lane.upstream([reply(body=body)]), await lane.dial(buffer=16384) as wire:
        await wire.send(lane.ask())
        head = await wire.head()
        assert head.status == 200
        began, taken = time.monotonic(), 0
        while taken < len(body):
            slow = time.monotonic() - began < WRITE * 4
            piece = await wire.reader.read(4096 if slow else 2**20)
            assert piece, f"cut after {taken} bytes"
            taken += len(piece)
            if slow:
                await asyncio.sleep(0.05)  # slow on purpose, for longer than an agent may do nothing
        assert time.monotonic() - began >= WRITE * 4
    assert (await yard.records(1, route=lane.name))[-1]["code"] is None


async def test_an_answer_that_nobody_takes_does_not_stay(yard: Yard) -> None:
    """It is whole, and all of it has been written; the agent is connected and reads nothing."""
    lane = yard.lane()
    body = b"a" * 200_000
    async with lane.upstream([reply(body=body, keep=True)]), await lane.dial(buffer=2048) as wire:
        for _ in range(30):  # more than the kernel takes
            await wire.send(lane.ask())
        before = time.monotonic()
        seen = 0
        await asyncio.sleep(WRITE * 2 + 1)  # nothing tells of it: the agent must not look
        with contextlib.suppress(ConnectionError):
            while piece := await wire.reader.read(65536):
                seen += len(piece)
        assert seen < 30 * len(body)
        assert time.monotonic() - before < 10


async def test_a_quiet_stream_is_not_mistaken_for_an_unread_one(yard: Yard) -> None:
    lane = yard.lane()

    async def script(upstream: Upstream, wire: Wire) -> None:
        upstream.note(await wire.request())
        await wire.send(EVENTS + b"5\r\nhello\r\n")
        await asyncio.sleep(WRITE * 3)  # a pause between two events
        await wire.send(b"3\r\nend\r\n0\r\n\r\n")

    async with lane.upstream(script), open_stream(lane) as wire:
        assert await wire.exactly(len(b"3\r\nend\r\n0\r\n\r\n")) == b"3\r\nend\r\n0\r\n\r\n"
