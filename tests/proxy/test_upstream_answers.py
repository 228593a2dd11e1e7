"""Reading answers: what is taken, what is refused, and that bytes in are bytes out."""

from __future__ import annotations

import asyncio
import gzip

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from authproxy.core.config import Limits
from authproxy.core.errors import UpstreamUnreachable
from authproxy.proxy.head import Chunks, Faulty, read_head
from tests.proxy.raw import Peer, answering
from tests.proxy.way_out import read_all, way_out

OK = b"HTTP/1.1 200 OK\r\n"
PLAIN = OK + b"Content-Length: 2\r\n\r\nok"
CANARY = b"CANARY-9f1c"

REFUSED = {
    "two lengths": OK + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\nokk",
    "two equal lengths": OK + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\nok",
    "a list of lengths": OK + b"Content-Length: 2, 2\r\n\r\nok",
    "signed length": OK + b"Content-Length: +2\r\n\r\nok",
    "hex length": OK + b"Content-Length: 0x2\r\n\r\nok",
    "length with underscore": OK + b"Content-Length: 1_0\r\n\r\nok",
    "empty length": OK + b"Content-Length:\r\n\r\n",
    "arabic length": OK + b"Content-Length: \xd9\xa2\r\n\r\nok",
    "huge length": OK + b"Content-Length: 99999999999999999999\r\n\r\nok",
    "huge length that fits": OK + b"Content-Length: 9999999999999999999\r\n\r\nok",
    "length and chunked": OK + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    "chunked and length": OK + b"Transfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    "chunked not last": OK + b"Transfer-Encoding: chunked, gzip\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    "coding before chunked": OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    "unknown coding": OK + b"Transfer-Encoding: xchunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    "identity": OK + b"Transfer-Encoding: identity\r\n\r\nok",
    "chunked twice": OK + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunked and a comma": OK + b"Transfer-Encoding: chunked,\r\n\r\n0\r\n\r\n",
    "chunked with a vertical tab": OK + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    "chunked in 1.0": b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    "space before colon": OK + b"Content-Length : 2\r\n\r\nok",
    "folded line": OK + b"X-A: b\r\n c\r\nContent-Length: 2\r\n\r\nok",
    "line that begins with space": OK + b" X-A: b\r\nContent-Length: 2\r\n\r\nok",
    "bare LF": b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok",
    "one bare LF": OK + b"X-A: b\nContent-Length: 2\r\n\r\nok",
    "bare CR in a value": OK + b"X-A: b\rc\r\nContent-Length: 2\r\n\r\nok",
    "NUL in a value": OK + b"X-A: b\0c\r\nContent-Length: 2\r\n\r\nok",
    "escape in a value": OK + b"X-A: b\x1bc\r\nContent-Length: 2\r\n\r\nok",
    "delete in a value": OK + b"X-A: b\x7fc\r\nContent-Length: 2\r\n\r\nok",
    "NUL in a name": OK + b"X\0A: b\r\nContent-Length: 2\r\n\r\nok",
    "non-ASCII in a name": OK + b"X\xe9A: b\r\nContent-Length: 2\r\n\r\nok",
    "no name": OK + b": b\r\nContent-Length: 2\r\n\r\nok",
    "no colon": OK + b"nonsense\r\nContent-Length: 2\r\n\r\nok",
    "control in the reason": b"HTTP/1.1 200 O\x01K\r\nContent-Length: 2\r\n\r\nok",
    "CR in the reason": b"HTTP/1.1 200 O\rK\r\nContent-Length: 2\r\n\r\nok",
    "HTTP/2.0": b"HTTP/2.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
    "HTTP/0.9": b"HTTP/0.9 200 OK\r\nContent-Length: 2\r\n\r\nok",
    "HTTP/1.2": b"HTTP/1.2 200 OK\r\nContent-Length: 2\r\n\r\nok",
    "HTTP/11.1": b"HTTP/11.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    "no version": b"200 OK\r\nContent-Length: 2\r\n\r\nok",
    "lower case": b"http/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    "RTSP": b"RTSP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
    "ICY": b"ICY 200 OK\r\nContent-Length: 2\r\n\r\nok",
    "status of two digits": b"HTTP/1.1 20 OK\r\nContent-Length: 2\r\n\r\nok",
    "status of four digits": b"HTTP/1.1 2000 OK\r\nContent-Length: 2\r\n\r\nok",
    "status 000": b"HTTP/1.1 000 OK\r\nContent-Length: 2\r\n\r\nok",
    "empty line first": b"\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    "only empty lines": b"\r\n\r\n\r\n\r\n",
    "TLS alert": b"\x15\x03\x01\x00\x02\x02\x28\r\n\r\n",
    "HTTP/2 settings": b"\x00\x00\x12\x04\x00\x00\x00\x00\x00\r\n\r\n",
    "HTML": b"<html>\r\n\r\n",
    "101 that nobody asked for": b"HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\nxx",
    "interim with a body": b"HTTP/1.1 103 Hints\r\nContent-Length: 2\r\n\r\nok" + PLAIN,
    "interim with chunks": b"HTTP/1.1 103 Hints\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + PLAIN,
    "endless interims": b"HTTP/1.1 100 Continue\r\n\r\n" * 17 + PLAIN,
}


def _name(case: object) -> str:
    return str(case).replace(" ", "_")


@pytest.mark.scenario("G04", "G26", "F04")
@pytest.mark.parametrize("case", REFUSED, ids=_name)
@pytest.mark.parametrize("split", [False, True], ids=["whole", "bytewise"])
async def test_what_is_not_a_clean_answer_is_refused(case: str, split: bool) -> None:
    raw = REFUSED[case].replace(b"X-A: b", b"X-A: " + CANARY)
    pieces = [raw[i : i + 1] for i in range(len(raw))] if split else [raw]

    async def script(peer: Peer) -> None:
        await peer.read_head()
        await peer.send(*pieces)
        assert await peer.closed()

    async with way_out(script) as out:
        with pytest.raises(UpstreamUnreachable) as refusal:
            await out.send()
        assert refusal.value.reason == "protocol"
        assert CANARY.decode() not in str(refusal.value.problem())
        assert out.upstream.open == 0


BAD_CHUNKS = {
    "size with sign": b"+2\r\nok\r\n0\r\n\r\n",
    "size in 0x": b"0x2\r\nok\r\n0\r\n\r\n",
    "size with underscore": b"0_2\r\nok\r\n0\r\n\r\n",
    "size with space before": b" 2\r\nok\r\n0\r\n\r\n",
    "no size": b"\r\nok\r\n0\r\n\r\n",
    "too large": b"fffffffffffffffff\r\nok\r\n0\r\n\r\n",
    "LF after the size": b"2\nok\r\n0\r\n\r\n",
    "LF after the data": b"2\r\nok\n0\r\n\r\n",
    "data too long": b"2\r\nokk\r\n0\r\n\r\n",
    "data too short": b"3\r\nok\r\n0\r\n\r\n",
    "extension with a bare LF": b"2;a=b\nc\r\nok\r\n0\r\n\r\n",
    "endless extension": b"2;" + b"a" * 20000 + b"\r\nok\r\n0\r\n\r\n",
    "endless trailer": b"2\r\nok\r\n0\r\n" + b"A: b\r\n" * 4000 + b"\r\n",
    "one long trailer": b"2\r\nok\r\n0\r\nA: " + b"b" * 20000,
    "folded trailer": b"2\r\nok\r\n0\r\nA: b\r\n c\r\n\r\n",
    "NUL in a trailer": b"2\r\nok\r\n0\r\nA: \0\r\n\r\n",
}


def _feed(chunks: Chunks, raw: bytes, step: int) -> bytes:
    return b"".join(chunks.feed(raw[at : at + step]) for at in range(0, len(raw), step))


@pytest.mark.scenario("G04", "G10")
@pytest.mark.parametrize("case", BAD_CHUNKS, ids=_name)
@pytest.mark.parametrize("step", [1, 7, 65536])
async def test_a_faulty_chunk_breaks_the_answer_off(case: str, step: int) -> None:
    raw = BAD_CHUNKS[case]
    chunks = Chunks()
    with pytest.raises(Faulty):
        _feed(chunks, raw, step)

    async def script(peer: Peer) -> None:
        await peer.read_head()
        await peer.send(OK + b"Transfer-Encoding: chunked\r\n\r\n", raw)
        assert await peer.closed()

    async with way_out(script) as out:
        with pytest.raises(UpstreamUnreachable) as refusal:
            await out.get()
        assert refusal.value.reason in ("protocol", "truncated")


@pytest.mark.scenario("G18")
@pytest.mark.parametrize(
    ("head", "taken"),
    [
        (OK + b"Set-Cookie: " + b"c" * 31000 + b"\r\nContent-Length: 0\r\n\r\n", True),
        (OK + b"Set-Cookie: " + b"c" * 33000 + b"\r\nContent-Length: 0\r\n\r\n", False),
        (OK + b"X: " + b"c" * 100000, False),
        (OK + b"Content-Length: 0\r\n" + b"X-A: b\r\n" * 127 + b"\r\n", True),
        (OK + b"Content-Length: 0\r\n" + b"X-A: b\r\n" * 128 + b"\r\n", False),
        (OK + (b"X: " + b"c" * 8000 + b"\r\n") * 9 + b"\r\n", False),
        (b"HTTP/1.1 103 Hints\r\nX: " + b"c" * 40000 + b"\r\n\r\n" + PLAIN, False),
    ],
)
async def test_the_head_is_bounded(head: bytes, taken: bool) -> None:
    async def script(peer: Peer) -> None:
        await peer.read_head()
        for at in range(0, len(head), 5000):
            await peer.send(head[at : at + 5000])
        await peer.closed()

    async with way_out(script) as out:
        if taken:
            answer, body = await out.get()
            assert (answer.status, body) == (200, b"")
        else:
            with pytest.raises(UpstreamUnreachable) as refusal:
                await out.send()
            assert refusal.value.reason == "header_too_large"


@pytest.mark.scenario("G15")
@pytest.mark.parametrize("split", [False, True])
async def test_fields_come_as_received_in_order_case_and_number(split: bool) -> None:
    head = (
        b"HTTP/1.1 299 Quite \xe9 fine\r\nset-cookie: a=1\r\nSet-Cookie: a=1\r\nSET-COOKIE:  b=2 \t\r\n"
        b"WWW-Authenticate: Bearer\r\nX-Empty:\r\nX-Empty2: \r\nWWW-Authenticate: Basic\r\nvAry: A\r\n"
        b"X-Bytes: \x80\xff\r\nVary: B\r\nLink: <a>; rel=b,<c>\r\nContent-Length: 0\r\n\r\n"
    )

    async def script(peer: Peer) -> None:
        await peer.read_head()
        await peer.send(*([bytes([byte]) for byte in head] if split else [head]))
        await peer.closed()

    async with way_out(script) as out:
        answer = await out.send()
        assert (answer.status, answer.reason, answer.version) == (299, b"Quite \xe9 fine", (1, 1))
        assert answer.fields == [
            (b"set-cookie", b"a=1"),
            (b"Set-Cookie", b"a=1"),
            (b"SET-COOKIE", b"b=2"),
            (b"WWW-Authenticate", b"Bearer"),
            (b"X-Empty", b""),
            (b"X-Empty2", b""),
            (b"WWW-Authenticate", b"Basic"),
            (b"vAry", b"A"),
            (b"X-Bytes", b"\x80\xff"),
            (b"Vary", b"B"),
            (b"Link", b"<a>; rel=b,<c>"),
            (b"Content-Length", b"0"),
        ]


@pytest.mark.parametrize(
    ("start", "reason"),
    [(b"HTTP/1.1 200\r\n", b""), (b"HTTP/1.1 200 \r\n", b""), (b"HTTP/1.1 999 Denied\r\n", b"Denied")],
)
def test_odd_but_harmless_status_lines_are_taken(start: bytes, reason: bytes) -> None:
    head = read_head(start + b"Content-Length: 0\r\n\r\n", b"GET", Limits())
    assert head.reason == reason


GZIP = gzip.compress(b"hello " * 1000)
BODIES = {
    "length": (OK + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n%b" % (len(GZIP), GZIP), GZIP),
    "chunked": (
        OK + b"Content-Encoding: gzip\r\nTransfer-Encoding: Chunked\r\n\r\n"
        b"A;name=value\r\n%b\r\n%x\r\n%b\r\n000\r\nX-Trailer: t\r\nAuthorization: x\r\n\r\n"
        % (GZIP[:10], len(GZIP) - 10, GZIP[10:]),
        GZIP,
    ),
    "wrong label": (OK + b"Content-Encoding: br\r\nContent-Length: 4\r\n\r\n\0\xff\r\n", b"\0\xff\r\n"),
    "looks like a chunk": (OK + b"Content-Length: 5\r\n\r\n0\r\n\r\n", b"0\r\n\r\n"),
    "looks like an answer": (OK + b"Content-Length: %d\r\n\r\n%b" % (len(PLAIN), PLAIN), PLAIN),
    "empty length": (OK + b"Content-Length: 0\r\n\r\n", b""),
    "empty chunked": (OK + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", b""),
    "1.0 kept alive": (b"HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\nContent-Length: 2\r\n\r\nok", b"ok"),
    # Apache offers an upgrade on ordinary answers; the C parser alone would lose the body.
    "upgrade offered": (
        OK + b"Upgrade: h2,h2c\r\nConnection: Upgrade, Keep-Alive\r\nContent-Length: 2\r\n\r\nok",
        b"ok",
    ),
    "upgrade offered, chunked": (
        OK + b"Upgrade: h2\r\nConnection: Upgrade\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        b"ok",
    ),
}


@pytest.mark.scenario("G01", "G02", "G25")
@pytest.mark.parametrize("case", BODIES, ids=_name)
@pytest.mark.parametrize("step", [1, 3, 1000, 10**6])
async def test_bodies_come_byte_for_byte_and_the_connection_serves_again(case: str, step: int) -> None:
    raw, body = BODIES[case]

    async def script(peer: Peer) -> None:
        await peer.read_head()
        for at in range(0, len(raw), step):
            await peer.send(raw[at : at + step])
        await peer.read_head()
        await peer.send(PLAIN)
        await peer.closed()

    async with way_out(script) as out:
        answer, got = await out.get()
        assert got == body
        assert answer.bytes_in == len(body)
        assert answer.ended
        assert all(name.lower() not in (b"x-trailer", b"authorization") for name, _ in answer.fields)
        assert out.upstream.idle == 1
        assert (await out.get())[1] == b"ok"
        assert out.raw.connections == 1


@pytest.mark.scenario("G05")
@pytest.mark.parametrize(
    ("method", "raw"),
    [
        ("HEAD", OK + b"Content-Length: 1000\r\n\r\n"),
        ("HEAD", OK + b"Transfer-Encoding: chunked\r\n\r\n"),
        ("HEAD", OK + b"Content-Encoding: gzip\r\n\r\n"),
        ("GET", b"HTTP/1.1 204 No Content\r\n\r\n"),
        ("GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 1000\r\nContent-Encoding: gzip\r\n\r\n"),
        ("GET", b"HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n"),
        (
            "GET",
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nLink: <a>\r\n\r\nHTTP/1.1 204 No\r\n\r\n",
        ),
    ],
)
async def test_an_answer_without_a_body_has_none_and_the_connection_serves_again(
    method: str, raw: bytes
) -> None:
    async with way_out(answering(raw, PLAIN)) as out:
        answer, body = await out.get(method)
        assert body == b""
        assert answer.framing == "none"
        assert answer.length == (1000 if b"1000" in raw else None)
        assert (await out.get())[1] == b"ok"
        assert out.raw.connections == 1


@pytest.mark.scenario("G05")
@pytest.mark.parametrize(
    ("method", "raw"),
    [
        ("HEAD", OK + b"Content-Length: 2\r\n\r\nok"),
        ("GET", b"HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\nok"),
        ("GET", b"HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\n"),
        ("GET", b"HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n"),
        ("GET", b"HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        ("GET", PLAIN + b"x"),
        ("GET", PLAIN + b"\r\n"),
        ("GET", PLAIN + PLAIN),
        ("GET", OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\nx"),
        ("GET", OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n\r\n"),
        ("GET", OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n\n"),
        ("GET", OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n" + PLAIN),
        ("GET", b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok"),
        ("GET", OK + b"Connection: x, Close\r\nContent-Length: 2\r\n\r\nok"),
        ("GET", OK + b"Connection: keep-alive\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok"),
        ("GET", OK + b"Keep-Alive: timeout=0\r\nContent-Length: 2\r\n\r\nok"),
    ],
)
async def test_bytes_too_many_and_a_wish_to_close_end_the_connection(method: str, raw: bytes) -> None:
    async def script(peer: Peer) -> None:
        await peer.read_head()
        await peer.send(raw)
        assert await peer.closed()

    async with way_out(script) as out:
        _answer, body = await out.get(method)
        assert body in (b"", b"ok")
        assert out.upstream.open == 0


@pytest.mark.scenario("G10")
async def test_a_body_to_the_end_of_the_connection_ends_with_it() -> None:
    async def script(peer: Peer) -> None:
        await peer.read_head()
        await peer.send(b"HTTP/1.0 200 OK\r\n\r\n", b"until ", b"the end")

    async with way_out(script) as out:
        answer, body = await out.get()
        assert (answer.version, answer.framing, body) == ((1, 0), "close", b"until the end")
        assert out.upstream.open == 0


CUT = {
    "before the head": (b"", "closed"),
    "in the head": (b"HTTP/1.1 200 OK\r\nContent-Le", "truncated"),
    "after an interim": (b"HTTP/1.1 100 Continue\r\n\r\n", "truncated"),
    "in a body of known length": (OK + b"Content-Length: 10\r\n\r\n01234", "truncated"),
    "before a body of known length": (OK + b"Content-Length: 10\r\n\r\n", "truncated"),
    "between chunks": (OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n", "truncated"),
    "inside a chunk": (OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nok", "truncated"),
    "inside a chunk size": (OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0", "truncated"),
    "in the last line": (OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n", "truncated"),
    "in a trailer": (OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nA: b", "truncated"),
}


@pytest.mark.scenario("G10")
@pytest.mark.parametrize("end", ["fin", "rst"])
@pytest.mark.parametrize("case", CUT, ids=_name)
async def test_a_cut_answer_is_an_error_and_never_a_clean_end(case: str, end: str) -> None:
    raw, reason = CUT[case]

    async def script(peer: Peer) -> None:
        await peer.read_head()
        await peer.send(raw)
        if end == "rst":
            peer.reset()

    async with way_out(script) as out:
        with pytest.raises(UpstreamUnreachable) as refusal:
            await out.get("POST", body=b"")
        assert refusal.value.reason in (reason, "reset") if end == "rst" else refusal.value.reason == reason
        assert out.upstream.open == 0


@pytest.mark.scenario("G10")
async def test_a_body_to_the_end_of_a_connection_that_is_reset_is_not_whole() -> None:
    started = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.read_head()
        await peer.send(OK + b"\r\nsome")
        await started.wait()
        peer.reset()

    async with way_out(script) as out:
        answer = await out.send()
        assert await answer.read() == b"some"
        started.set()
        with pytest.raises(UpstreamUnreachable) as refusal:
            await read_all(answer)
        assert refusal.value.reason == "truncated"
        assert not answer.ended


@pytest.mark.scenario("G08")
async def test_head_and_events_are_handed_on_as_they_come() -> None:
    turns: asyncio.Queue[bytes] = asyncio.Queue()

    async def script(peer: Peer) -> None:
        await peer.read_head()
        await peer.send(OK + b"Transfer-Encoding: chunked\r\n\r\n")
        while data := await turns.get():
            await peer.send(data)
        await peer.send(b"0\r\n\r\n")

    async with way_out(script) as out:
        answer = await out.send()
        assert answer.take() == b""
        for number in range(20):
            event = b"data: %d\n\n" % number
            turns.put_nowait(b"%x\r\n%b\r\n" % (len(event), event))
            assert await answer.read() == event
        turns.put_nowait(b"")
        assert await answer.read() == b""
        assert answer.ended


@pytest.mark.scenario("G19")
async def test_a_slow_reader_stops_the_upstream() -> None:
    sent = 0
    total = 64 * 2**20

    async def script(peer: Peer) -> None:
        nonlocal sent
        await peer.read_head()
        await peer.send(OK + b"Content-Length: %d\r\n\r\n" % total)
        while sent < total:
            peer.writer.write(b"x" * 2**16)
            await peer.writer.drain()
            sent += 2**16

    async with way_out(script, idle=0.2) as out:
        answer = await out.send()
        seen = -1
        while seen != sent:  # until the origin cannot send any more: nobody reads
            seen = sent
            await asyncio.sleep(0.3)  # longer than the idle limit: it is not the upstream who is slow
        assert sent < 16 * 2**20
        size = 0
        while piece := await answer.read():
            assert len(piece) <= 2**20
            size += len(piece)
        assert size == total


@pytest.mark.scenario("G11")
@pytest.mark.parametrize(
    "framing", [b"Content-Length: 100\r\n\r\nab", b"Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n", b"\r\n"]
)
async def test_closing_the_answer_closes_the_upstream_at_once(framing: bytes) -> None:
    gone: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    async def script(peer: Peer) -> None:
        await peer.read_head()
        await peer.send(OK + framing)
        gone.set_result(await peer.closed(1.0))

    async with way_out(script) as out:
        answer = await out.send()
        answer.close()
        answer.close()
        assert await gone
        assert out.upstream.open == 0
        with pytest.raises(ConnectionError):
            await read_all(answer)


@pytest.mark.scenario("G11")
async def test_a_cancelled_exchange_closes_the_upstream_at_once() -> None:
    asked = asyncio.Event()
    gone: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    async def script(peer: Peer) -> None:
        await peer.read_head()
        asked.set()
        gone.set_result(await peer.closed(1.0))

    async with way_out(script) as out:
        task = asyncio.create_task(out.send())
        await asked.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await gone
        assert out.upstream.open == 0


@pytest.mark.parametrize("framing", ["length", "chunked"])
async def test_a_dropped_answer_is_read_to_a_bound_so_that_its_connection_serves_again(framing: str) -> None:
    body = b"x" * 50_000
    raw = (
        OK + b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
        if framing == "length"
        else OK + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    )
    async with way_out(answering(raw)) as out:
        for _ in range(3):
            await (await out.send()).discard(60_000)
        assert (out.raw.connections, out.upstream.idle) == (1, 1)
    stalled = raw[: len(raw) // 2]
    async with way_out(answering(stalled)) as out:
        await (await out.send()).discard(10_000)
        assert out.upstream.open == 0
    async with way_out(answering(OK + b"\r\nendless")) as out:
        await (await out.send()).discard(10_000)
        assert out.upstream.open == 0


HEADS = st.lists(
    st.sampled_from(
        [
            b"HTTP/1.1 200 OK",
            b"HTTP/1.0 200",
            b"HTTP/1.1 204 No",
            b"HTTP/1.1 100 C",
            b"HTTP/1.1 101 S",
            b"\r\n",
            b"\n",
            b"\r",
            b" ",
            b"Content-Length: 3",
            b"Content-Length:",
            b"Transfer-Encoding: chunked",
            b"transfer-encoding: gzip",
            b"Connection: close",
            b"Connection: upgrade",
            b"Upgrade: x",
            b"Keep-Alive: timeout=5",
            b"X: y",
            b":",
            b"3\r\nabc\r\n",
            b"0\r\n\r\n",
            b"abc",
            b"\0",
            b"\xff",
        ]
    )
    | st.binary(max_size=8),
    max_size=14,
).map(b"".join)


@settings(max_examples=300, deadline=None)
@given(raw=HEADS, lead=st.booleans())
def test_no_bytes_make_the_reader_fail_otherwise_than_by_refusing(raw: bytes, lead: bool) -> None:
    raw = (OK if lead else b"") + raw + b"\r\n\r\n"
    raw = raw[: raw.index(b"\r\n\r\n") + 4]
    try:
        head = read_head(raw, b"GET", Limits())
    except Faulty:
        pass
    else:
        assert all(
            b"\r" not in value and b"\n" not in value and b"\0" not in value for _, value in head.fields
        )


@settings(max_examples=300, deadline=None)
@given(
    pieces=st.lists(
        st.sampled_from([b"3\r\nabc\r\n", b"0\r\n\r\n", b"\r\n", b"1;x\r\na\r\n", b"A: b\r\n"])
        | st.binary(max_size=5)
    )
)
def test_no_bytes_make_the_chunks_fail_otherwise_than_by_refusing(pieces: list[bytes]) -> None:
    chunks = Chunks()
    try:
        for piece in pieces:
            chunks.feed(piece)
            if chunks.ended:
                break
    except Faulty:
        pass


@settings(max_examples=60, deadline=None)
@given(
    bodies=st.lists(st.binary(min_size=1, max_size=300), max_size=6),
    step=st.integers(1, 400),
    more=st.binary(max_size=6),
)
def test_chunks_give_back_what_was_put_in_however_it_is_cut(
    bodies: list[bytes], step: int, more: bytes
) -> None:
    raw = b"".join(b"%X\r\n%b\r\n" % (len(body), body) for body in bodies) + b"0\r\n\r\n"
    chunks = Chunks()
    out = _feed(chunks, raw, step)
    assert chunks.ended
    assert not chunks.surplus
    assert out == b"".join(bodies)
    if more:
        last = Chunks()
        last.feed(raw + more)
        assert last.surplus


async def test_any_bytes_over_the_wire_end_in_an_answer_or_a_refusal() -> None:
    """The same property through sockets; one loop and one way out for all examples."""
    current = b""

    async def script(peer: Peer) -> None:
        await peer.read_head()
        await peer.send(current)

    examples: list[bytes] = []

    @settings(max_examples=150, deadline=None, database=None)
    @given(raw=HEADS, lead=st.booleans())
    def collect(raw: bytes, lead: bool) -> None:
        examples.append((OK if lead else b"") + raw)

    collect()
    async with way_out(script) as out:
        for example in examples:
            current = example
            try:
                answer = await out.send(body=b"")
                await read_all(answer)
            except UpstreamUnreachable:
                pass
        assert out.upstream.checked_out == 0
