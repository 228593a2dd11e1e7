"""Sending requests: bodies byte for byte, early answers, 100-continue, uploads that break off, tunnels."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator

import pytest

from authproxy.core.errors import BadRequest, BodyTooLarge, UpstreamTimeout, UpstreamUnreachable
from tests.proxy.raw import Peer, answering
from tests.proxy.way_out import read_all, way_out

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
TOO_LARGE = b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 4\r\n\r\nmuch"


class Pieces:
    """A body in pieces that notes how it was used; each iteration gives the same bytes."""

    def __init__(self, *pieces: bytes, error: BaseException | None = None) -> None:
        self.pieces = pieces
        self.error = error
        self.iterations = 0
        self.given = 0
        self.open = 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        self.iterations += 1
        self.open += 1
        try:
            for piece in self.pieces:
                self.given += 1
                yield piece
            if self.error is not None:
                raise self.error
        finally:
            self.open -= 1


def keeping(seen: list[bytes], answer: bytes = OK):  # type: ignore[no-untyped-def]
    async def script(peer: Peer) -> None:
        while True:
            seen.append(await peer.read_request())
            await peer.send(answer)

    return script


async def test_a_head_and_a_small_body_go_out_as_given() -> None:
    seen: list[bytes] = []
    async with way_out(keeping(seen)) as out:
        exchange = out.exchange("POST", body=b'{"a": 1}\0\xff')
        answer = await out.upstream.send(exchange)
        assert await read_all(answer) == b"ok"
        assert seen == [exchange.head + b'{"a": 1}\0\xff']
        assert answer.bytes_out == 10
        assert (exchange.attempts, exchange.sent_any) == (1, True)
        await out.get("POST", body=b"")
        assert seen[1].endswith(b"Content-Length: 0\r\n\r\n")
        await out.get("POST", body=b"abc", chunked=True)
        assert seen[2].endswith(b"chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n")
        await out.get("POST", body=b"", chunked=True)
        assert seen[3].endswith(b"chunked\r\n\r\n0\r\n\r\n")
        await out.get("POST", body=Pieces(b"ab", b"", b"c"), chunked=True)
        assert seen[4].endswith(b"chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n")
        await out.get("PUT", body=Pieces(b"ab", b"", b"c"), length=3)
        assert seen[5].endswith(b"Content-Length: 3\r\n\r\nabc")
        assert out.raw.connections == 1


@pytest.mark.parametrize("kind", ["bytes", "length", "chunked"])
async def test_large_bodies_arrive_whole_at_an_upstream_that_reads_slowly(kind: str) -> None:
    piece = bytes(range(256)) * 1024
    body = piece * 64
    total = len(body)
    digest: list[str] = []

    async def script(peer: Peer) -> None:
        head = await peer.read_head()
        if b"chunked" in head:
            data = await peer.read_chunked()
        else:
            data = await peer.read(total)
        digest.append(hashlib.sha256(data).hexdigest())
        await peer.send(OK)
        await peer.closed()

    async with way_out(script, buffer=2**14) as out:
        more = {
            "bytes": {"body": body},
            "length": {"body": Pieces(*[piece] * 64), "length": total},
            "chunked": {"body": Pieces(*[piece] * 64), "chunked": True},
        }[kind]
        answer, got = await out.get("POST", **more)
        assert got == b"ok"
        assert answer.bytes_out == total
        assert digest == [hashlib.sha256(body).hexdigest()]
        assert out.upstream.idle == 1


@pytest.mark.scenario("G19")
async def test_an_upstream_that_does_not_read_stops_the_upload_and_then_ends_it() -> None:
    pieces = Pieces(*[b"x" * 2**16] * 1024)

    async def script(peer: Peer) -> None:
        await peer.read_head()
        peer.writer.transport.pause_reading()
        await peer.writer.wait_closed()

    async with way_out(script, idle=0.3, buffer=2**14) as out:
        with pytest.raises(UpstreamTimeout) as refusal:
            await out.send("POST", body=pieces, chunked=True)
        assert refusal.value.reason == "idle"
        assert pieces.given < 300
        assert pieces.open == 0


@pytest.mark.scenario("G07")
@pytest.mark.parametrize("end", ["rst", "fin", "stays"])
async def test_an_early_refusal_of_the_body_is_handed_on_and_the_upload_stops(end: str) -> None:
    pieces = Pieces(*[b"x" * 2**16] * 1600)
    left = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.read_head()
        await peer.read(2**20)
        await peer.send(TOO_LARGE)
        if end == "stays":
            peer.writer.transport.resume_reading()
            await peer.read_rest()
            left.set()
        elif end == "rst":
            peer.abort()

    async with way_out(script) as out:
        exchange = out.exchange("POST", body=pieces, length=1600 * 2**16)
        answer = await out.upstream.send(exchange)
        assert (answer.status, await read_all(answer)) == (413, b"much")
        assert pieces.given < 1600
        assert pieces.open == 0  # nobody reads the agent's body any more once the answer is there
        assert out.upstream.open == 0
        if end == "stays":
            await asyncio.wait_for(left.wait(), 5)


@pytest.mark.scenario("G07")
async def test_an_early_answer_that_does_not_refuse_lets_the_upload_go_on() -> None:
    turn = asyncio.Event()

    async def body() -> AsyncIterator[bytes]:
        yield b"one"
        await turn.wait()
        yield b"two"

    async def script(peer: Peer) -> None:
        await peer.read_head()
        assert await peer.read(8) == b"3\r\none\r\n"
        await peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n")
        assert await peer.read(13) == b"3\r\ntwo\r\n0\r\n\r\n"
        await peer.send(b"3\r\ntwo\r\n0\r\n\r\n")
        await peer.read_head()
        await peer.send(OK)
        await peer.closed()

    async with way_out(script) as out:
        answer = await out.send("POST", body=body(), chunked=True)
        assert await answer.read() == b"one"
        turn.set()
        assert await read_all(answer) == b"two"
        assert (await out.get())[1] == b"ok"
        assert out.raw.connections == 1


async def test_an_answer_that_is_whole_before_the_upload_ends_the_upload() -> None:
    never = asyncio.Event()
    ended = asyncio.Event()

    async def body() -> AsyncIterator[bytes]:
        try:
            yield b"one"
            await never.wait()
        finally:
            ended.set()

    async def script(peer: Peer) -> None:
        await peer.read_head()
        await peer.send(OK)
        assert b"0\r\n\r\n" not in await peer.read_rest()

    async with way_out(script) as out:
        _answer, got = await out.get("POST", body=body(), chunked=True)
        assert got == b"ok"
        await asyncio.wait_for(ended.wait(), 5)
        assert out.upstream.open == 0


@pytest.mark.scenario("G10")
@pytest.mark.parametrize("framing", [{"chunked": True}, {"length": 100}])
@pytest.mark.parametrize(
    "error", [ConnectionResetError("agent"), BodyTooLarge("too large")], ids=["agent", "limit"]
)
async def test_an_upload_that_breaks_off_never_looks_whole(
    framing: dict[str, object], error: Exception
) -> None:
    seen: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def script(peer: Peer) -> None:
        await peer.read_head()
        seen.set_result(await peer.read_rest())

    async with way_out(script) as out:
        with pytest.raises(type(error)) as caught:
            await out.send("POST", body=Pieces(b"half", error=error), **framing)
        assert caught.value is error
        assert await seen in (b"half", b"4\r\nhalf\r\n", b"")
        assert out.upstream.open == 0


@pytest.mark.parametrize("pieces", [[b"ab"], [b"ab", b"cd"]])
async def test_a_body_of_another_length_than_announced_is_cut(pieces: list[bytes]) -> None:
    seen: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def script(peer: Peer) -> None:
        await peer.read_head()
        seen.set_result(await peer.read_rest())

    async with way_out(script) as out:
        with pytest.raises(BadRequest):
            await out.send("POST", body=Pieces(*pieces), length=3)
        assert len(await seen) < 3


@pytest.mark.scenario("G11")
async def test_an_agent_that_leaves_in_the_middle_of_its_upload_ends_it_upstream() -> None:
    first = asyncio.Event()
    never = asyncio.Event()
    gone: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
    ended = asyncio.Event()

    async def body() -> AsyncIterator[bytes]:
        try:
            yield b"one"
            first.set()
            await never.wait()
        finally:
            ended.set()

    async def script(peer: Peer) -> None:
        await peer.read_head()
        gone.set_result(await peer.read_rest())

    async with way_out(script) as out:
        task = asyncio.create_task(out.send("POST", body=body(), chunked=True))
        await first.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await asyncio.wait_for(gone, 1) == b"3\r\none\r\n"
        await asyncio.wait_for(ended.wait(), 1)
        assert out.upstream.open == 0


@pytest.mark.scenario("G06")
@pytest.mark.parametrize("upstream", ["100", "silence", "102 and 100"])
async def test_the_body_waits_for_a_100_but_not_for_ever(upstream: str) -> None:
    pieces = Pieces(b"body")

    async def script(peer: Peer) -> None:
        head = await peer.read_head()
        assert b"Expect: 100-continue" in head
        assert pieces.given == 0
        if upstream != "silence":
            if upstream != "100":
                await peer.send(b"HTTP/1.1 102 Processing\r\n\r\n")
            await peer.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        assert await peer.read(4) == b"body"
        await peer.send(OK)
        await peer.closed()

    async with way_out(script) as out:
        _answer, got = await out.get("POST", body=pieces, length=4, expect_continue=True)
        assert got == b"ok"
        assert out.upstream.idle == 1


@pytest.mark.scenario("G06")
@pytest.mark.parametrize("status", [b"401 Unauthorized", b"417 Expectation Failed", b"200 OK"])
async def test_a_final_answer_instead_of_a_100_leaves_the_body_unread(status: bytes) -> None:
    pieces = Pieces(b"body")

    async def script(peer: Peer) -> None:
        await peer.read_head()
        await peer.send(b"HTTP/1.1 " + status + b"\r\nContent-Length: 2\r\n\r\nno")
        assert await peer.read_rest() == b""

    async with way_out(script) as out:
        answer, got = await out.get("POST", body=pieces, length=4, expect_continue=True)
        assert got == b"no"
        assert answer.status == int(status[:3])
        assert (pieces.given, pieces.open) == (0, 0)
        assert out.upstream.open == 0  # the announced body never came: the connection is out of step


@pytest.mark.scenario("G21")
async def test_an_upgrade_that_was_asked_for_becomes_a_tunnel_both_ways() -> None:
    async def script(peer: Peer) -> None:
        await peer.read_head()
        await peer.send(
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nearly"
        )
        assert await peer.read(4) == b"ping"
        await peer.send(b"pong")

    async with way_out(script) as out:
        answer = await out.send(upgrade=True)
        assert answer.status == 101
        assert await answer.read() == b"early"
        await answer.write(b"ping")
        assert await answer.read() == b"pong"
        assert await answer.read() == b""
        with pytest.raises(ConnectionError):
            await answer.write(b"more")
        assert out.upstream.open == 0


async def test_an_upgrade_that_is_declined_is_an_ordinary_answer() -> None:
    async with way_out(answering(OK)) as out:
        answer = await out.send(upgrade=True)
        assert (answer.status, await read_all(answer)) == (200, b"ok")
        with pytest.raises(ConnectionError):
            await answer.write(b"frame")
        assert out.upstream.idle == 1


async def test_a_tunnel_that_is_reset_says_so() -> None:
    async def script(peer: Peer) -> None:
        await peer.read_head()
        await peer.send(
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"
        )
        await peer.read(4)
        peer.reset()

    async with way_out(script) as out:
        answer = await out.send(upgrade=True)
        await answer.write(b"ping")
        with pytest.raises(UpstreamUnreachable):
            await answer.read()
