"""Answers: framed anew, otherwise untouched; what broke off never looks whole, and what is not HTTP is a 502."""

from __future__ import annotations

import asyncio
import gzip
import zlib

import pytest

from tests.kit.lanes import MODES, Lane, assert_problem
from tests.kit.raw import Gone, Upstream, Wire, reply

HEAD = b"HTTP/1.1 200 OK\r\n"


def sends(*pieces: bytes, reset: bool = False, hold: asyncio.Event | None = None):  # type: ignore[no-untyped-def]
    """Reads one request, sends these very bytes, then closes (or resets)."""

    async def script(upstream: Upstream, wire: Wire) -> None:
        try:
            upstream.note(await wire.request())
        except Gone:
            return
        for piece in pieces:
            await wire.send(piece)
        if hold is not None:
            await hold.wait()
        if reset:
            wire.reset()

    return script


BODILESS = {
    "head-with-length": (b"HEAD", HEAD + b"Content-Length: 12345\r\n\r\n", b"12345"),
    "head-chunked": (b"HEAD", HEAD + b"Transfer-Encoding: chunked\r\n\r\n", None),
    "head-bare": (b"HEAD", HEAD + b"\r\n", None),
    "204": (b"GET", b"HTTP/1.1 204 No Content\r\n\r\n", None),
    "204-with-length": (b"GET", b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n", None),
    "204-chunked": (b"GET", b"HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n", None),
    "304": (b"GET", b'HTTP/1.1 304 Not Modified\r\nETag: "x"\r\n\r\n', None),
    "304-with-length": (b"GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 77\r\n\r\n", b"77"),
    "304-chunked": (b"GET", b"HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n", None),
    "head-404": (b"HEAD", b"HTTP/1.1 404 Not Found\r\nContent-Length: 9\r\n\r\n", b"9"),
    "post-204": (b"POST", b"HTTP/1.1 204 No Content\r\n\r\n", None),
    "length-zero": (b"GET", HEAD + b"Content-Length: 0\r\n\r\n", b"0"),
}


@pytest.mark.scenario("G05")
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", [pytest.param(n, id=f"9112-6.3-{n}") for n in BODILESS])
async def test_a_bodiless_answer_has_no_body_and_its_connection_lives(
    lane: Lane, name: str, mode: str
) -> None:
    lane.mode = mode
    method, raw, length = BODILESS[name]
    async with lane.upstream([raw, reply()]) as upstream, await lane.dial() as wire:
        await wire.send(lane.ask(method))
        answer = await wire.response(method)
        assert answer.status == int(raw.split(b" ")[1])
        if length is not None and b"204" not in raw:
            assert answer.head.one(b"content-length") in (length, None)
        if b" 204 " in raw:
            assert answer.head.one(b"transfer-encoding") is None
        await wire.send(lane.ask(rest=b"/next"))
        following = await wire.response()
        assert (following.status, following.body) == (200, b"ok")
    assert [m.head.target for m in upstream.requests] == [b"/x", b"/next"]


@pytest.mark.scenario("G05")
@pytest.mark.parametrize("head", [b"HTTP/1.1 204 No Content", b"HTTP/1.1 304 Not Modified"])
async def test_a_body_that_should_not_be_there_reaches_nobody(lane: Lane, head: bytes) -> None:
    stray = head + b"\r\nContent-Length: 47\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nPOISON"
    async with lane.upstream([stray, reply()]), await lane.dial() as wire:
        for _ in range(3):
            await wire.send(lane.ask())
            answer = await wire.response()
            assert b"POISON" not in answer.head.raw + answer.body


INTERIM = {
    "100": b"HTTP/1.1 100 Continue\r\n\r\n",
    "102": b"HTTP/1.1 102 Processing\r\n\r\n",
    "103": b"HTTP/1.1 103 Early Hints\r\nLink: </a>; rel=preload\r\n\r\n",
    "three": b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 P\r\n\r\nHTTP/1.1 103 E\r\n\r\n",
}


@pytest.mark.scenario("G06")
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", [pytest.param(n, id=f"9110-15.2-{n}") for n in INTERIM])
async def test_interim_answers_are_read_past(lane: Lane, name: str, mode: str) -> None:
    lane.mode = mode
    async with lane.upstream([INTERIM[name] + reply()]) as upstream:
        answer = await lane.call(lane.ask())
    assert (answer.status, answer.body) == (200, b"ok")
    assert len(upstream.requests) == 1


NOT_HTTP = {
    "101-unasked": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
    "cl-invalid": HEAD + b"Content-Length: x\r\n\r\nok",
    "cl-plus": HEAD + b"Content-Length: +2\r\n\r\nok",
    "cl-minus": HEAD + b"Content-Length: -2\r\n\r\nok",
    "cl-hex": HEAD + b"Content-Length: 0x2\r\n\r\nok",
    "cl-empty": HEAD + b"Content-Length:\r\n\r\nok",
    "cl-two-different": HEAD + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\nok!",
    "cl-list-different": HEAD + b"Content-Length: 2, 3\r\n\r\nok!",
    "cl-overflow": HEAD + b"Content-Length: " + b"9" * 40 + b"\r\n\r\nok",
    "te-unknown": HEAD + b"Transfer-Encoding: xchunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    "status-two-digits": b"HTTP/1.1 20 OK\r\nContent-Length: 2\r\n\r\nok",
    "status-four-digits": b"HTTP/1.1 2000 OK\r\nContent-Length: 2\r\n\r\nok",
    "status-letters": b"HTTP/1.1 OK OK\r\nContent-Length: 2\r\n\r\nok",
    "version-2.0": b"HTTP/2.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
    "version-0.9-style": b"<html>ok</html>",
    "other-protocol": b"SSH-2.0-OpenSSH_9.2\r\n",
    "nothing": b"",
    "half-start-line": b"HTTP/1.1 2",
    "half-head": HEAD + b"Content-Len",
    "head-without-end": HEAD + b"Content-Length: 2\r\n",
    "name-with-space": HEAD + b"X A: 1\r\nContent-Length: 2\r\n\r\nok",
    "name-empty": HEAD + b": 1\r\nContent-Length: 2\r\n\r\nok",
    "line-without-colon": HEAD + b"nonsense\r\nContent-Length: 2\r\n\r\nok",
    "value-nul": HEAD + b"X-A: a\x00b\r\nContent-Length: 2\r\n\r\nok",
    "value-bare-cr": HEAD + b"X-A: a\rSet-Cookie: b\r\nContent-Length: 2\r\n\r\nok",
    "reason-bare-cr": b"HTTP/1.1 200 O\rK\r\nContent-Length: 2\r\n\r\nok",
    "reason-nul": b"HTTP/1.1 200 O\x00K\r\nContent-Length: 2\r\n\r\nok",
    "field-too-long": HEAD + b"X-A: " + b"a" * 80000 + b"\r\nContent-Length: 2\r\n\r\nok",
    "head-too-long": HEAD + b"".join(b"X-%d: %s\r\n" % (n, b"a" * 1000) for n in range(100)) + b"\r\n",
    "head-never-ending": HEAD + b"X-A: " + b"a" * 300000,
    "reason-too-long": b"HTTP/1.1 200 " + b"a" * 80000 + b"\r\nContent-Length: 2\r\n\r\nok",
}


@pytest.mark.scenario("G04", "G18", "F04")
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", [pytest.param(n, id=f"502-{n}") for n in NOT_HTTP])
async def test_what_is_not_sound_http_is_a_502(lane: Lane, name: str, mode: str) -> None:
    lane.mode = mode
    async with lane.upstream(sends(NOT_HTTP[name])) as upstream:
        answer = await lane.call(lane.ask(b"POST", body=b""), b"POST")
    assert answer.status == 502, answer
    assert_problem(answer, "upstream_unreachable")
    assert b"aaaa" not in answer.body
    assert len(upstream.requests) == 1


@pytest.mark.scenario("G26")
@pytest.mark.parametrize(
    "raw",
    [
        HEAD + b"X-A: a\nX-Injected: b\r\nContent-Length: 2\r\n\r\nok",
        HEAD + b"X-A: a\r\n folded\r\nContent-Length: 2\r\n\r\nok",
        HEAD + b"X-A: a\x01b\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok",
        b"HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nok",
        HEAD + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        HEAD + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\nok",
        HEAD + b"Content-Length : 2\r\n\r\nok",
        b"HTTP/1.1 100 Continue\r\nContent-Length: 5\r\n\r\n" + HEAD + b"Content-Length: 2\r\n\r\nok",
    ],
    ids=[
        "bare-lf",
        "fold",
        "ctl",
        "lf-only",
        "no-reason",
        "cl-and-te",
        "cl-equal",
        "space-colon",
        "100-with-length",
    ],
)
async def test_what_is_doubtful_is_cleaned_or_a_502(lane: Lane, raw: bytes) -> None:
    async with lane.upstream(sends(raw)):
        answer = await lane.call(lane.ask())
    if answer.status == 502:
        assert_problem(answer, "upstream_unreachable")
        return
    assert (answer.status, answer.body, answer.complete) == (200, b"ok", True)
    head = answer.head
    assert b"x-injected" not in head.names or b"\nX-Injected" in raw
    assert len(head.all(b"content-length")) + len(head.all(b"transfer-encoding")) <= 1
    for line in head.raw.split(b"\r\n"):
        assert b"\n" not in line
        assert b"\r" not in line
        assert b"\x01" not in line


BODIES = {
    "length": (HEAD + b"Content-Length: 5\r\n\r\nhello", b"hello"),
    "chunked": (HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", b"hello"),
    "chunked-extensions": (
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n0;c\r\n\r\n",
        b"hello",
    ),
    "chunked-upper-case": (
        HEAD + b"Transfer-Encoding: Chunked\r\n\r\nA\r\n0123456789\r\n0\r\n\r\n",
        b"0123456789",
    ),
    "chunked-trailers": (
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-Sum: 1\r\nSet-Cookie: a=b\r\n\r\n",
        b"hello",
    ),
    "close-delimited": (HEAD + b"\r\nhello", b"hello"),
    "close-delimited-empty": (HEAD + b"\r\n", b""),
    "http-1.0": (b"HTTP/1.0 200 OK\r\n\r\nhello", b"hello"),
    "http-1.0-length": (b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello", b"hello"),
    "status-299": (b"HTTP/1.1 299 Odd\r\nContent-Length: 2\r\n\r\nok", b"ok"),
    "status-599": (b"HTTP/1.1 599 Odd\r\nContent-Length: 2\r\n\r\nok", b"ok"),
    "status-418": (b"HTTP/1.1 418 T\xe9apot\r\nContent-Length: 2\r\n\r\nok", b"ok"),
    "status-500": (b"HTTP/1.1 500 Oops\r\nContent-Length: 5\r\n\r\nsorry", b"sorry"),
    "status-407": (b"HTTP/1.1 407 Theirs\r\nContent-Length: 2\r\n\r\nok", b"ok"),
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", [pytest.param(n, id=f"9112-6-{n}") for n in BODIES])
async def test_a_sound_answer_brings_its_body(lane: Lane, name: str, mode: str) -> None:
    lane.mode = mode
    raw, body = BODIES[name]
    async with lane.upstream(sends(raw)):
        answer = await lane.call(lane.ask())
    assert answer.status == int(raw.split(b" ")[1])
    assert (answer.body, answer.complete) == (body, True)
    assert answer.trailers == b""
    assert b"x-authproxy-error" not in answer.head.names
    if not (name.startswith("close-") or name == "http-1.0"):
        assert answer.framing != "close"


@pytest.mark.scenario("G10")
@pytest.mark.parametrize("name", ["chunked", "close-delimited"])
async def test_an_old_client_gets_no_chunks(lane: Lane, name: str) -> None:
    """9112 6.1, 7.1.3: a 1.0 client is never sent Transfer-Encoding."""
    request = lane.fill(b"GET {T} HTTP/1.0\r\n{H}\r\n")
    async with lane.upstream(sends(BODIES[name][0])):
        answer = await lane.call(request)
    assert answer.head.one(b"transfer-encoding") is None
    assert (answer.body, answer.framing) == (b"hello", "close")


CODED = {
    "gzip": ("gzip", gzip.compress(b"hello " * 1000)),
    "deflate": ("deflate", zlib.compress(b"hello " * 1000)),
    "twice": ("gzip, gzip", gzip.compress(gzip.compress(b"hello"))),
    "br-opaque": ("br", bytes(range(256)) * 20),
    "zstd-opaque": ("zstd", b"\x28\xb5\x2f\xfd" + bytes(range(256))),
    "wrong-label": ("gzip", b"this is no gzip"),
    "unknown": ("x-secret", b"\x00\x01\x02"),
    "identity": ("identity", b"plain"),
}


@pytest.mark.scenario("G01", "G02")
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", [pytest.param(n, id=f"9110-8.4-{n}") for n in CODED])
async def test_a_coded_body_is_passed_on_as_it_is(lane: Lane, name: str, mode: str) -> None:
    lane.mode = mode
    coding, body = CODED[name]
    async with lane.upstream([reply("200 OK", body, f"Content-Encoding: {coding}", "Vary: Accept-Encoding")]):
        answer = await lane.call(lane.ask(b"GET", b"/x", b"Accept-Encoding: gzip"))
    assert answer.body == body
    assert answer.head.one(b"content-encoding") == coding.encode()
    assert answer.head.one(b"content-length") == b"%d" % len(body)


CUT = {
    "in-length": (HEAD + b"Content-Length: 100\r\n\r\nhalf",),
    "in-length-nothing": (HEAD + b"Content-Length: 100\r\n\r\n",),
    "between-chunks": (HEAD + b"Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",),
    "in-chunk": (HEAD + b"Transfer-Encoding: chunked\r\n\r\n64\r\nhalf",),
    "in-chunk-size": (HEAD + b"Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n5",),
    "before-first-chunk": (HEAD + b"Transfer-Encoding: chunked\r\n\r\n",),
    "before-last-crlf": (HEAD + b"Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n0\r\n",),
    "in-trailer": (HEAD + b"Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n0\r\nX-Su",),
    "bad-chunk-size": (HEAD + b"Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\nzz\r\nmore\r\n0\r\n\r\n",),
    "chunk-overrun": (HEAD + b"Transfer-Encoding: chunked\r\n\r\n4\r\nhalfMORE\r\n0\r\n\r\n",),
}


@pytest.mark.scenario("G10")
@pytest.mark.parametrize("reset", [False, True], ids=["fin", "rst"])
@pytest.mark.parametrize("name", [pytest.param(n, id=f"9112-8-{n}") for n in CUT])
async def test_a_cut_off_answer_never_looks_whole(lane: Lane, name: str, reset: bool) -> None:
    async with lane.upstream(sends(*CUT[name], reset=reset)), await lane.dial() as wire:
        await wire.send(lane.ask())
        try:
            answer = await wire.response()
        except Gone:
            return  # broken off before our head went out: nothing looks like anything
        if answer.status == 502:
            assert_problem(answer, "upstream_unreachable")
            return
        assert answer.status == 200
        assert answer.framing != "close", "its end could not be told from a whole body's"
        assert not answer.complete, answer
        assert await wire.rest() == b""


@pytest.mark.scenario("G10")
@pytest.mark.parametrize("cut", [b"", b"HTTP/1.1 200 OK\r\nX"], ids=["before-head", "in-head"])
@pytest.mark.parametrize("reset", [False, True], ids=["fin", "rst"])
async def test_broken_off_before_the_head_is_a_502(lane: Lane, cut: bytes, reset: bool) -> None:
    async with lane.upstream(sends(cut, reset=reset)) as upstream:
        answer = await lane.call(lane.ask(b"POST", body=b"hello"), b"POST")
    assert_problem(answer, "upstream_unreachable")
    assert len(upstream.requests) == 1


@pytest.mark.scenario("G10")
async def test_nobody_listening_is_a_502(lane: Lane) -> None:
    """The lane's own socket accepts in the kernel; a route to a closed port does not."""
    async with lane.upstream(sends(b"", reset=True)):
        answer = await lane.call(lane.ask(b"PATCH", body=b"x"), b"PATCH")
    assert_problem(answer, "upstream_unreachable")
    assert answer.head.one(b"retry-after")


@pytest.mark.scenario("F05")
@pytest.mark.parametrize("mode", MODES)
async def test_a_fields_name_is_no_way_back_for_the_token(lane: Lane, mode: str) -> None:
    lane.mode = mode
    token = lane.bearer.split()[-1]
    raw = HEAD + b"X-Saw-%b: yes\r\n%b: too\r\nContent-Length: 2\r\n\r\nok" % (token, token)
    async with lane.upstream(sends(raw)), await lane.dial() as wire:
        await wire.send(lane.ask())
        answer = await wire.response()
    assert answer.status == 200
    assert token not in answer.head.raw
    assert answer.head.one(b"X-Saw-" + b"*" * len(token)) == b"yes"
    assert answer.body == b"ok"


async def _to_the_end(wire: Wire) -> None:
    while await wire.some():
        pass


@pytest.mark.scenario("G05")
@pytest.mark.parametrize("mode", MODES[:2])
@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", id="chunked"),
        pytest.param(b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nG\r\n", id="not-chunked"),
    ],
)
async def test_an_agent_of_http_1_0_sees_that_an_answer_broke_off(lane: Lane, raw: bytes, mode: str) -> None:
    """It has no framing but the connection's end, so that this end must not be an orderly one."""
    lane.mode = mode
    async with lane.upstream(sends(HEAD + raw)), await lane.dial() as wire:
        await wire.send(lane.ask().replace(b"HTTP/1.1", b"HTTP/1.0", 1))
        with pytest.raises(ConnectionResetError):
            await _to_the_end(wire)


@pytest.mark.scenario("G05")
async def test_an_agent_of_http_1_0_that_has_closed_its_half_sees_it_too(lane: Lane) -> None:
    go = asyncio.Event()
    raw = HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"
    async with lane.upstream(sends(raw, hold=go)), await lane.dial() as wire:
        await wire.send(lane.ask().replace(b"HTTP/1.1", b"HTTP/1.0", 1))
        wire.half_close()
        with pytest.raises(ConnectionResetError):
            await _to_the_end(wire)
        go.set()


@pytest.mark.parametrize("coding", ["plain", "chunked", "gzip"])
async def test_a_body_of_no_type_is_no_way_back_for_the_token(lane: Lane, coding: str) -> None:
    token = lane.bearer.removeprefix(b"Bearer ")
    body = gzip.compress(token) if coding == "gzip" else token
    if coding == "chunked":
        pieces = b"".join(b"1\r\n%c\r\n" % byte for byte in token)
        raw = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + pieces + b"0\r\n\r\n"
    else:
        kind = b"" if coding == "plain" else b"Content-Encoding: gzip\r\n"
        raw = b"HTTP/1.1 200 OK\r\n%bContent-Length: %d\r\n\r\n" % (kind, len(body)) + body
    async with lane.upstream([raw]), await lane.dial() as wire:
        await wire.send(lane.ask(b"GET", b"/x", b"Connection: close"))
        came = await wire.rest()
    assert token not in came
    assert body not in came
    assert coding == "gzip" or b"*" * len(token) in came
