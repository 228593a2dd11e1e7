"""Bodies: every byte in both directions, under every framing, and 100-continue without anybody waiting for ever."""

from __future__ import annotations

import asyncio
import hashlib
import random

import pytest

from tests.kit.lanes import MODES, Lane, assert_problem
from tests.kit.raw import Gone, Upstream, Wire, reply

MIB = random.Random(7).randbytes(2**20)
KEPT = reply(keep=True)
SIZES = {"0": b"", "1": b"x", "1KiB": MIB[:1024], "64KiB": MIB[:65536], "64KiB+1": MIB[:65537], "1MiB": MIB}


def chunked(body: bytes, size: int = 7919) -> bytes:
    pieces = [body[at : at + size] for at in range(0, len(body), size)]
    return b"".join(b"%x\r\n%s\r\n" % (len(p), p) for p in pieces) + b"0\r\n\r\n"


def digest(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("framing", ["length", "chunked"])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("method", [b"POST", b"PUT", b"DELETE"])
async def test_an_upload_arrives_byte_for_byte(
    lane: Lane, method: bytes, size: str, framing: str, mode: str
) -> None:
    lane.mode = mode
    body = SIZES[size]
    if framing == "length":
        request = lane.ask(method, body=body)
    else:
        request = lane.ask(method, b"/x", b"Transfer-Encoding: chunked") + chunked(body)
    async with lane.upstream() as upstream:
        answer = await lane.call(request, method)
    assert answer.status == 200, answer
    (message,) = upstream.requests
    assert digest(message.body) == digest(body)
    if framing == "length":
        assert message.head.one(b"content-length") == b"%d" % len(body)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
@pytest.mark.parametrize("size", SIZES)
async def test_a_download_arrives_byte_for_byte(lane: Lane, size: str, framing: str, mode: str) -> None:
    lane.mode = mode
    body = SIZES[size]
    head = b"HTTP/1.1 200 OK\r\nConnection: close\r\n"
    raw = {
        "length": head + b"Content-Length: %d\r\n\r\n" % len(body) + body,
        "chunked": head + b"Transfer-Encoding: chunked\r\n\r\n" + chunked(body),
        "close": head + b"\r\n" + body,
    }[framing]
    async with lane.upstream([raw]):
        answer = await lane.call(lane.ask())
    assert answer.complete
    assert digest(answer.body) == digest(body)
    assert answer.framing == ("length" if framing == "length" else "chunked")


@pytest.mark.parametrize("framing", ["length", "chunked"])
async def test_a_request_in_single_bytes_is_one_request(lane: Lane, framing: str) -> None:
    """Every split of head and body that TCP may make."""
    request = lane.ask(b"POST", b"/drip?a=b", b"X-A: 1", body=b"hello")
    if framing == "chunked":
        request = lane.ask(b"POST", b"/drip?a=b", b"Transfer-Encoding: chunked") + chunked(b"hello", 2)
    async with lane.upstream() as upstream, await lane.dial() as wire:
        for at in range(len(request)):
            await wire.send(request[at : at + 1])
            if at % 7 == 0:
                await asyncio.sleep(0)
        answer = await wire.response(b"POST")
    assert answer.status == 200
    assert upstream.requests[0].body == b"hello"
    assert upstream.requests[0].head.target == b"/drip?a=b"


async def test_an_answer_in_single_bytes_is_one_answer(lane: Lane) -> None:
    raw = b"HTTP/1.1 200 OK\r\nX-A: 1\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n" + chunked(
        b"hello", 2
    )

    async def drip(upstream: Upstream, wire: Wire) -> None:
        await wire.request()
        for at in range(len(raw)):
            await wire.send(raw[at : at + 1])
            await asyncio.sleep(0)

    async with lane.upstream(drip):
        answer = await lane.call(lane.ask())
    assert (answer.body, answer.complete, answer.head.one(b"x-a")) == (b"hello", True, b"1")


@pytest.mark.scenario("G08")
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("framing", ["chunked", "close", "length"])
async def test_a_stream_is_passed_on_event_by_event(lane: Lane, framing: str, mode: str) -> None:
    """The head before any event, each event before the next is made: nothing waits for more."""
    lane.mode = mode
    events = [b"data: %d\n\n" % n for n in range(5)]
    seen: asyncio.Queue[None] = asyncio.Queue()

    async def stream(upstream: Upstream, wire: Wire) -> None:
        await wire.request()
        extra = {
            "chunked": b"Transfer-Encoding: chunked\r\n",
            "close": b"",
            "length": b"Content-Length: %d\r\n" % sum(map(len, events)),
        }[framing]
        await wire.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n" + extra + b"\r\n")
        for event in events:
            await seen.get()
            await wire.send(chunked(event)[:-5] if framing == "chunked" else event)
        await seen.get()
        if framing == "chunked":
            await wire.send(b"0\r\n\r\n")

    async with lane.upstream(stream), await lane.dial() as wire:
        await wire.send(lane.ask(b"GET", b"/events", b"Accept: text/event-stream"))
        head = await wire.head()
        assert head.status == 200
        assert head.one(b"content-type") == b"text/event-stream"
        framed = head.one(b"transfer-encoding") is not None
        for event in events:
            seen.put_nowait(None)
            assert await wire.exactly(len(event) + (5 if framed else 0)) in (
                event,
                b"%x\r\n%s\r\n" % (len(event), event),
            )
        seen.put_nowait(None)
        if framed:
            assert await wire.exactly(5) == b"0\r\n\r\n"


@pytest.mark.scenario("G08")
async def test_a_request_stream_is_passed_on_piece_by_piece(lane: Lane) -> None:
    """The upstream sees the first piece while the second is still unsaid."""
    arrived: asyncio.Queue[bytes] = asyncio.Queue()

    async def take(upstream: Upstream, wire: Wire) -> None:
        await wire.head()
        for _ in range(3):
            size = int(await wire.line(), 16)
            arrived.put_nowait(await wire.exactly(size))
            await wire.exactly(2)
        assert await wire.exactly(5) == b"0\r\n\r\n"
        await wire.send(reply())

    async with lane.upstream(take), await lane.dial() as wire:
        await wire.send(lane.ask(b"POST", b"/x", b"Transfer-Encoding: chunked"))
        for piece in (b"one", b"two", b"three"):
            await wire.send(b"%x\r\n%s\r\n" % (len(piece), piece))
            assert await asyncio.wait_for(arrived.get(), 5) == piece
        await wire.send(b"0\r\n\r\n")
        assert (await wire.response(b"POST")).status == 200


async def _continues(upstream: Upstream, wire: Wire) -> None:
    head = await wire.head()
    await wire.send(b"HTTP/1.1 100 Continue\r\n\r\n")
    body = await wire.exactly(int(head.one(b"content-length") or b"0"))
    await wire.send(reply(body=body))


async def _silent(upstream: Upstream, wire: Wire) -> None:
    message = await wire.request()
    await wire.send(reply(body=message.body))


@pytest.mark.scenario("G06")
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("upstream_script", [_continues, _silent], ids=["continues", "silent"])
async def test_expect_is_answered_once(lane: Lane, upstream_script: object, mode: str) -> None:
    """9110 10.1.1: forwarded or answered, never left waiting, never doubled."""
    lane.mode = mode
    request = lane.ask(b"POST", b"/x", b"Expect: 100-continue", b"Content-Length: 5")
    async with lane.upstream(upstream_script), await lane.dial() as wire:  # type: ignore[arg-type]
        await wire.send(request)
        interim = await wire.head()
        assert interim.status == 100
        assert interim.raw == b"HTTP/1.1 100 Continue\r\n\r\n"
        await wire.send(b"hello")
        final = await wire.head()
        assert final.status == 200, "a second 100 came"
        assert await wire.exactly(5) == b"hello"


@pytest.mark.scenario("G06")
@pytest.mark.parametrize(
    "status", ["401 Unauthorized", "403 Forbidden", "413 Too Large", "417 Expectation Failed"]
)
async def test_expect_met_with_a_final_answer_ends_there(lane: Lane, status: str) -> None:
    """The upstream refuses on the head; whether or not the body was asked for, the refusal comes through."""

    async def refuses(upstream: Upstream, wire: Wire) -> None:
        upstream.note_head = await wire.head()  # type: ignore[attr-defined]
        await wire.send(reply(status, b"no"))

    request = lane.ask(b"POST", b"/x", b"Expect: 100-continue", b"Content-Length: 5")
    async with lane.upstream(refuses), await lane.dial() as wire:
        await wire.send(request)
        head = await wire.head()
        if head.status == 100:
            await wire.send(b"hello")
            head = await wire.head()
        assert head.start == b"HTTP/1.1 " + status.encode()


@pytest.mark.scenario("G06")
@pytest.mark.parametrize(
    ("target", "user", "code"),
    [
        (b"/nowhere", b"alice", "no_route"),
        (None, None, "user_missing"),
        (None, b"stranger", "connection_required"),
    ],
)
async def test_a_refusal_comes_before_the_body_is_asked_for(
    lane: Lane, target: bytes | None, user: bytes | None, code: str
) -> None:
    """Who is refused anyway is not told to upload first."""
    request = lane.ask(b"POST", b"/x", b"Expect: 100-continue", b"Content-Length: 1000000000", user=user)
    if target is not None:
        request = request.replace(lane.target(), target, 1)
    async with lane.upstream() as upstream, await lane.dial() as wire:
        await wire.send(request)
        head = await wire.head()
        assert head.status != 100
        assert head.one(b"x-authproxy-error") == code.encode()
        assert head.one(b"connection") == b"close"
        await lane.prove_untouched(upstream)


@pytest.mark.scenario("G06")
@pytest.mark.parametrize("value", [b"200-ok", b"100-continue, other", b"nonsense"])
async def test_an_unknown_expectation_fails_or_is_dropped(lane: Lane, value: bytes) -> None:
    async with lane.upstream():
        answer = await lane.call(lane.ask(b"POST", b"/x", b"Expect: " + value, body=b"hello"), b"POST")
    if answer.status != 200:
        assert answer.status in (400, 417)
        assert_problem(answer)


@pytest.mark.scenario("G06")
async def test_expect_from_an_old_client_is_ignored(lane: Lane) -> None:
    """9110 10.1.1: a 1.0 client is never sent a 100."""
    request = lane.fill(b"POST {T} HTTP/1.0\r\n{H}Expect: 100-continue\r\nContent-Length: 5\r\n\r\nhello")
    async with lane.upstream(), await lane.dial() as wire:
        await wire.send(request)
        assert (await wire.head()).status == 200


@pytest.mark.scenario("G07")
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("framing", ["length", "chunked"])
@pytest.mark.parametrize("end", ["close", "reset-later", "keeps-reading"])
async def test_an_early_final_answer_reaches_an_agent_that_is_still_sending(
    lane: Lane, framing: str, end: str, mode: str
) -> None:
    lane.mode = mode
    announced = 64 * 2**20
    read = asyncio.Event()
    taken: list[int] = []

    async def early(upstream: Upstream, wire: Wire) -> None:
        await wire.head()
        await wire.exactly(65536)
        await wire.send(reply("413 Too Large", b"too much"))
        if end == "keeps-reading":
            taken.append(len(await wire.rest()))
        elif end == "reset-later":
            await read.wait()
            wire.reset()

    head = lane.ask(b"POST", b"/x", b"Transfer-Encoding: chunked")
    if framing == "length":
        head = lane.ask(b"POST", b"/x", b"Content-Length: %d" % announced)
    async with lane.upstream(early), await lane.dial() as wire:

        async def upload() -> None:
            await wire.send(head)
            piece = b"a" * 65536
            for _ in range(announced // len(piece)):
                await wire.send(piece if framing == "length" else b"10000\r\n" + piece + b"\r\n")

        sending = asyncio.create_task(upload())
        try:
            answer = await wire.response(b"POST")
            if end == "keeps-reading":  # an agent that has not noticed yet, or does not care
                await asyncio.wait((sending,), timeout=10)
        finally:
            read.set()
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
        assert answer.status == 413, answer
        assert answer.body == b"too much"
    assert not taken or taken[0] < announced / 2, "who has refused a body is not sent the rest of it"


@pytest.mark.scenario("G07")
@pytest.mark.parametrize("last", [b"0\r\n\r\n", b"2\r\nof\r\n0\r\n\r\n"])
async def test_an_answer_that_ends_before_the_body_does_ends_in_order(lane: Lane, last: bytes) -> None:
    """The agent may send the rest, which is dropped, and sees the end of the connection, no reset."""
    begun = asyncio.Event()

    async def early(_: Upstream, wire: Wire) -> None:
        await wire.head()
        await wire.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n")
        await begun.wait()
        await wire.send(last)
        await wire.rest()

    async with lane.upstream(early), await lane.dial() as wire:
        await wire.send(lane.ask(b"POST", b"/x", b"Transfer-Encoding: chunked") + b"5\r\nhello\r\n")
        head = await wire.head()
        assert (head.status, head.one(b"connection")) == (200, b"close")
        begun.set()
        while await wire.line() != b"0\r\n":
            pass
        assert await wire.line() == b"\r\n"
        for _ in range(20):
            await wire.send(b"5\r\nhello\r\n")
        await wire.send(b"0\r\n\r\n")
        assert await wire.rest() == b""
    assert "listener.internal" not in lane.proxy.words()


@pytest.mark.scenario("G10")
@pytest.mark.parametrize("framing", ["length", "chunked"])
@pytest.mark.parametrize("end", ["fin", "rst"])
async def test_a_cut_off_upload_never_looks_whole_upstream(lane: Lane, framing: str, end: str) -> None:
    done: asyncio.Queue[bool] = asyncio.Queue()

    async def take(upstream: Upstream, wire: Wire) -> None:
        try:
            message = await wire.request()
        except Gone:
            done.put_nowait(False)
            return
        if message.head.target == b"/sentinel":
            await wire.send(reply())
        else:
            done.put_nowait(message.complete)

    async with lane.upstream(take):
        wire = await lane.dial()
        if framing == "length":
            await wire.send(lane.ask(b"POST", b"/x", b"Content-Length: 100") + b"half")
        else:
            await wire.send(lane.ask(b"POST", b"/x", b"Transfer-Encoding: chunked") + b"4\r\nhalf\r\n")
        if end == "rst":
            await asyncio.sleep(0.05)  # lets the half body through first, or the reset would swallow it
            wire.reset()
        await wire.close()
        # Either the upstream was never bothered, or it sees the upload break off.
        assert (await lane.call(lane.ask(rest=b"/sentinel"))).status == 200
        if not done.empty():
            assert done.get_nowait() is False


@pytest.mark.scenario("G25")
async def test_answer_trailers_are_dropped(lane: Lane) -> None:
    raw = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n2\r\nok\r\n0\r\nX-Sum: 1\r\n\r\n"
    async with lane.upstream([raw]):
        answer = await lane.call(lane.ask())
    assert (answer.body, answer.complete, answer.trailers) == (b"ok", True, b"")
    assert b"x-sum" not in answer.head.names


async def test_a_body_is_not_read_as_a_request_line(lane: Lane) -> None:
    """However it is cut, and whatever it says: the next request on the connection is served."""
    body = b"GET  / HTTP/1.1\r\n" * 3
    async with lane.upstream([KEPT]), await lane.dial() as wire:
        for _ in range(20):
            await wire.send(lane.ask(b"POST", b"/x", b"Content-Length: %d" % len(body)))
            await wire.send(body)
            assert (await wire.response()).status == 200
