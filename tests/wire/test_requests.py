"""Parsing: what is ambiguous is refused before a byte of it leaves, in both ways of naming a target."""

from __future__ import annotations

import asyncio

import pytest

from tests.kit.lanes import MODES, Lane, assert_closes, assert_problem, refused
from tests.kit.raw import Gone, Upstream, Wire, reply

pytestmark = pytest.mark.scenario("G04", "G26")

SMUGGLED = b"GET {T}/smuggled HTTP/1.1\r\n{H}\r\n"


def _post(fields: bytes, body: bytes) -> bytes:
    return b"POST {T} HTTP/1.1\r\n{H}" + fields + b"\r\n" + body


def _field(line: bytes) -> bytes:
    return b"GET {T} HTTP/1.1\r\n{H}" + line + b"\r\n\r\n"


CHUNKED = b"5\r\nhello\r\n0\r\n\r\n"
BAD = (400, 501)

FRAMING = {
    "cl-and-te": _post(b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", CHUNKED),
    "te-and-cl": _post(b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", CHUNKED),
    "cl-zero-and-te": _post(b"Content-Length: 0\r\nTransfer-Encoding: chunked\r\n", CHUNKED),
    "te-chunked-identity": _post(b"Transfer-Encoding: chunked, identity\r\n", CHUNKED),
    "te-identity": _post(b"Transfer-Encoding: identity\r\n", CHUNKED),
    "te-gzip-chunked": _post(b"Transfer-Encoding: gzip, chunked\r\n", CHUNKED),
    "te-deflate-chunked": _post(b"Transfer-Encoding: deflate, chunked\r\n", CHUNKED),
    "te-gzip": _post(b"Transfer-Encoding: gzip\r\n", CHUNKED),
    "te-xchunked": _post(b"Transfer-Encoding: xchunked\r\n", CHUNKED),
    "te-chunked-twice": _post(b"Transfer-Encoding: chunked, chunked\r\n", CHUNKED),
    "te-two-lines": _post(b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", CHUNKED),
    "te-two-lines-identity": _post(b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n", CHUNKED),
    "te-parameter": _post(b"Transfer-Encoding: chunked;q=1\r\n", CHUNKED),
    "te-quoted": _post(b'Transfer-Encoding: "chunked"\r\n', CHUNKED),
    "te-empty": _post(b"Transfer-Encoding:\r\n", CHUNKED),
    "te-vertical-tab": _post(b"Transfer-Encoding: \x0bchunked\r\n", CHUNKED),
    "te-nbsp": _post(b"Transfer-Encoding: \xa0chunked\r\n", CHUNKED),
    "te-space-before-colon": _post(b"Transfer-Encoding : chunked\r\n", CHUNKED),
    "te-folded": _post(b"Transfer-Encoding:\r\n chunked\r\n", CHUNKED),
    "te-cr-before": _post(b"Transfer-Encoding: \rchunked\r\n", CHUNKED),
    "te-in-1.0": b"POST {T} HTTP/1.0\r\n{H}Transfer-Encoding: chunked\r\n\r\n" + CHUNKED,
    "te-in-1.0-keep-alive": b"POST {T} HTTP/1.0\r\n{H}Connection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n"
    + CHUNKED,
    "cl-two-different": _post(b"Content-Length: 5\r\nContent-Length: 6\r\n", b"hello!"),
    "cl-two-different-longer-first": _post(b"Content-Length: 6\r\nContent-Length: 5\r\n", b"hello!"),
    "cl-list-different": _post(b"Content-Length: 5, 6\r\n", b"hello!"),
    "cl-list-equal": _post(b"Content-Length: 5, 5\r\n", b"hello"),
    "cl-plus": _post(b"Content-Length: +5\r\n", b"hello"),
    "cl-minus": _post(b"Content-Length: -5\r\n", b"hello"),
    "cl-hex": _post(b"Content-Length: 0x5\r\n", b"hello"),
    "cl-underscore": _post(b"Content-Length: 1_0\r\n", b"helloworld"),
    "cl-exponent": _post(b"Content-Length: 5e0\r\n", b"hello"),
    "cl-decimal": _post(b"Content-Length: 5.0\r\n", b"hello"),
    "cl-empty": _post(b"Content-Length:\r\n", b"hello"),
    "cl-inner-space": _post(b"Content-Length: 5 5\r\n", b"hello"),
    "cl-nbsp": _post(b"Content-Length: 5\xa0\r\n", b"hello"),
    "cl-vertical-tab": _post(b"Content-Length: 5\x0b\r\n", b"hello"),
    "cl-file-separator": _post(b"Content-Length: 5\x1c\r\n", b"hello"),
    "cl-fullwidth-digit": _post(b"Content-Length: \xef\xbc\x95\r\n", b"hello"),
    "cl-arabic-digit": _post("Content-Length: \u0665\r\n".encode(), b"hello"),
    "cl-superscript": _post(b"Content-Length: \xb2\r\n", b"he"),
    "cl-overflow-64": _post(b"Content-Length: 18446744073709551621\r\n", b"hello"),
    "cl-overflow-huge": _post(b"Content-Length: " + b"9" * 300 + b"\r\n", b"hello"),
    "cl-space-before-colon": _post(b"Content-Length : 5\r\n", b"hello"),
}

START = {
    "version-2.0": b"GET {T} HTTP/2.0\r\n{H}\r\n",
    "version-3.0": b"GET {T} HTTP/3.0\r\n{H}\r\n",
    "version-0.9": b"GET {T} HTTP/0.9\r\n{H}\r\n",
    "version-11.1": b"GET {T} HTTP/11.1\r\n{H}\r\n",
    "version-1.10": b"GET {T} HTTP/1.10\r\n{H}\r\n",
    "version-comma": b"GET {T} HTTP/1,1\r\n{H}\r\n",
    "version-lower-case": b"GET {T} http/1.1\r\n{H}\r\n",
    "version-fullwidth": b"GET {T} HTTP/1.\xef\xbc\x91\r\n{H}\r\n",
    "version-arabic": "GET {T} HTTP/1.\u0661\r\n{H}\r\n".encode(),
    "version-tail": b"GET {T} HTTP/1.1x\r\n{H}\r\n",
    "version-trailing-space": b"GET {T} HTTP/1.1 \r\n{H}\r\n",
    "version-missing": b"GET {T}\r\n{H}\r\n",
    "h2-preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "tls-hello": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    "method-missing": b" {T} HTTP/1.1\r\n{H}\r\n",
    "method-paren": b"GE(T {T} HTTP/1.1\r\n{H}\r\n",
    "method-nul": b"GE\x00T {T} HTTP/1.1\r\n{H}\r\n",
    "method-colon": b"GET: {T} HTTP/1.1\r\n{H}\r\n",
    "method-obs-text": b"G\xc9T {T} HTTP/1.1\r\n{H}\r\n",
    "start-leading-space": b" GET {T} HTTP/1.1\r\n{H}\r\n",
    "start-tab": b"GET\t{T}\tHTTP/1.1\r\n{H}\r\n",
    "target-space": b"GET {T}/a b HTTP/1.1\r\n{H}\r\n",
    "target-tab": b"GET {T}/a\tb HTTP/1.1\r\n{H}\r\n",
    "target-nul": b"GET {T}/a\x00b HTTP/1.1\r\n{H}\r\n",
    "target-bell": b"GET {T}/a\x07b HTTP/1.1\r\n{H}\r\n",
    "target-delete": b"GET {T}/a\x7fb HTTP/1.1\r\n{H}\r\n",
    "target-bare-cr": b"GET {T}/a\rb HTTP/1.1\r\n{H}\r\n",
    "target-fragment": b"GET {T}/a#b HTTP/1.1\r\n{H}\r\n",
    "start-bare-lf": b"GET {T} HTTP/1.1\n{H}\r\n",
    "start-line-split": b"GET {T} HTTP/1.1\rX: y\r\n{H}\r\n",
}

FIELDS = {
    "name-space-before-colon": _field(b"X-A : 1"),
    "name-tab-before-colon": _field(b"X-A\t: 1"),
    "name-space-inside": _field(b"X A: 1"),
    "name-empty": _field(b": 1"),
    "name-paren": _field(b"X(A): 1"),
    "name-at": _field(b"X@A: 1"),
    "name-slash": _field(b"X/A: 1"),
    "name-quote": _field(b'X"A: 1'),
    "name-nul": _field(b"X\x00A: 1"),
    "name-bell": _field(b"X\x07A: 1"),
    "name-delete": _field(b"X\x7fA: 1"),
    "name-obs-text": _field(b"X-\xe9: 1"),
    "name-utf8-kelvin": _field("X-\u212a: 1".encode()),
    "name-cr": _field(b"X-A\r: 1"),
    "line-without-colon": _field(b"X-A"),
    "value-nul": _field(b"X-A: a\x00b"),
    "value-bare-cr": _field(b"X-A: a\rb"),
    "value-bare-lf": _field(b"X-A: a\nb"),
    "value-cr-cr-lf": _field(b"X-A: a\r"),
    "value-leading-cr": _field(b"X-A: \ra"),
    "value-bell": _field(b"X-A: a\x07b"),
    "value-escape": _field(b"X-A: a\x1bb"),
    "value-vertical-tab": _field(b"X-A: a\x0bb"),
    "value-form-feed": _field(b"X-A: a\x0cb"),
    "value-delete": _field(b"X-A: a\x7fb"),
    "value-start-of-heading": _field(b"X-A: \x01"),
    "fold-space": _field(b"X-A: 1\r\n 2"),
    "fold-tab": _field(b"X-A: 1\r\n\t2"),
    "fold-authorization": _field(b"Authorization: Bearer\r\n mine"),
    "fold-user": b"GET {T} HTTP/1.1\r\nHost: {A}\r\nX-User-ID: alice\r\n bob\r\n\r\n",
    "fold-first-line": b"GET {T} HTTP/1.1\r\n X-A: 1\r\n{H}\r\n",
    "space-line-first": b"GET {T} HTTP/1.1\r\n \r\n{H}\r\n",
    "tab-line-first": b"GET {T} HTTP/1.1\r\n\tX: 1\r\n{H}\r\n",
    "lf-only-everywhere": b"GET {T} HTTP/1.1\nHost: {A}\nX-User-ID: alice\n\n",
    "lf-only-one-line": _field(b"X-A: 1\nX-B: 2"),
    "lf-cr-end": b"GET {T} HTTP/1.1\r\nHost: {A}\r\nX-User-ID: alice\r\n\n\r\n",
}

HOSTS = {
    "host-missing": b"GET {T} HTTP/1.1\r\nX-User-ID: alice\r\n\r\n",
    "host-twice-equal": b"GET {T} HTTP/1.1\r\nHost: {A}\r\nHost: {A}\r\nX-User-ID: alice\r\n\r\n",
    "host-twice-different": b"GET {T} HTTP/1.1\r\nHost: {A}\r\nHost: evil.example\r\nX-User-ID: alice\r\n\r\n",
    "host-space-inside": b"GET {T} HTTP/1.1\r\nHost: a b\r\nX-User-ID: alice\r\n\r\n",
    "host-slash": b"GET {T} HTTP/1.1\r\nHost: a/b\r\nX-User-ID: alice\r\n\r\n",
    "host-userinfo": b"GET {T} HTTP/1.1\r\nHost: me@{A}\r\nX-User-ID: alice\r\n\r\n",
    "host-list": b"GET {T} HTTP/1.1\r\nHost: {A}, {A}\r\nX-User-ID: alice\r\n\r\n",
    "host-two-colons": b"GET {T} HTTP/1.1\r\nHost: a:1:2\r\nX-User-ID: alice\r\n\r\n",
    "host-port-words": b"GET {T} HTTP/1.1\r\nHost: a:http\r\nX-User-ID: alice\r\n\r\n",
    "host-open-bracket": b"GET {T} HTTP/1.1\r\nHost: [::1\r\nX-User-ID: alice\r\n\r\n",
    "host-nul": b"GET {T} HTTP/1.1\r\nHost: a\x00b\r\nX-User-ID: alice\r\n\r\n",
    "host-query": b"GET {T} HTTP/1.1\r\nHost: a?b\r\nX-User-ID: alice\r\n\r\n",
    "host-backslash": b"GET {T} HTTP/1.1\r\nHost: a\\b\r\nX-User-ID: alice\r\n\r\n",
    "host-fragment": b"GET {T} HTTP/1.1\r\nHost: a#b\r\nX-User-ID: alice\r\n\r\n",
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", [pytest.param(n, id=f"9112-6.3-{n}") for n in FRAMING])
async def test_ambiguous_framing_is_refused(lane: Lane, name: str, mode: str) -> None:
    lane.mode = mode
    await refused(lane, lane.fill(FRAMING[name] + SMUGGLED), *BAD, 413)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", [pytest.param(n, id=f"9112-3-{n}") for n in START])
async def test_a_malformed_start_line_is_refused(lane: Lane, name: str, mode: str) -> None:
    lane.mode = mode
    await refused(lane, lane.fill(START[name]), 400, 501, 505, closes="fragment" not in name)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", [pytest.param(n, id=f"9112-5-{n}") for n in FIELDS])
async def test_a_malformed_field_is_refused(lane: Lane, name: str, mode: str) -> None:
    lane.mode = mode
    await refused(lane, lane.fill(FIELDS[name]), 400)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", [pytest.param(n, id=f"9112-3.2-{n}") for n in HOSTS])
async def test_a_missing_repeated_or_invalid_host_is_refused(lane: Lane, name: str, mode: str) -> None:
    lane.mode = mode
    await refused(lane, lane.fill(HOSTS[name]), 400, closes=False)


@pytest.mark.scenario("G22")
@pytest.mark.parametrize(
    "host", [b"evil.com", b"evil.com:80", b"127.0.0.1.nip.io", b"localhost.evil.com", b"evil.com.", b""]
)
async def test_a_name_that_is_not_ours_does_not_reach_the_prefixes(lane: Lane, host: bytes) -> None:
    """DNS rebinding: a browser on evil.com that was led to our address still says evil.com."""
    request = b"GET %s HTTP/1.1\r\nHost: %s\r\nX-User-ID: alice\r\n\r\n" % (lane.target(), host)
    async with lane.upstream() as upstream:
        answer = await lane.call(request)
        assert answer.status in (400, 403, 404, 421), answer
        assert_problem(answer)
        await lane.prove_untouched(upstream)


BROKEN = {
    "size-g": b"g\r\nhello\r\n0\r\n\r\n",
    "size-empty": b"\r\nhello\r\n0\r\n\r\n",
    "size-plus": b"+5\r\nhello\r\n0\r\n\r\n",
    "size-minus": b"-5\r\nhello\r\n0\r\n\r\n",
    "size-0x": b"0x5\r\nhello\r\n0\r\n\r\n",
    "size-leading-space": b" 5\r\nhello\r\n0\r\n\r\n",
    "size-underscore": b"0_5\r\nhello\r\n0\r\n\r\n",
    "size-fullwidth": b"\xef\xbc\x95\r\nhello\r\n0\r\n\r\n",
    "size-overflow": b"10000000000000005\r\nhello\r\n0\r\n\r\n",
    "size-overflow-long": b"f" * 100 + b"\r\nhello\r\n0\r\n\r\n",
    "size-line-lf-only": b"5\nhello\r\n0\r\n\r\n",
    "data-too-long": b"5\r\nhellos\r\n0\r\n\r\n",
    "data-lf-only": b"5\r\nhello\n0\r\n\r\n",
    "data-no-crlf": b"5\r\nhello0\r\n\r\n",
    "last-chunk-lf": b"5\r\nhello\r\n0\n\r\n",
    # wire.md 8: extensions and trailers are small, all together; a size has as many digits as it needs
    "extension-long": b"5;" + b"a" * 5000 + b"\r\nhello\r\n0\r\n\r\n",
    "extensions-many": b"1;aaaaaaaaaaaaaaaaaaaaaaaa\r\nx\r\n" * 220 + b"0\r\n\r\n",
    "extension-of-the-last": b"5\r\nhello\r\n0;" + b"a" * 5000 + b"\r\n\r\n",
    "trailer-long": b"5\r\nhello\r\n0\r\nX-T: " + b"a" * 5000 + b"\r\n\r\n",
    "trailers-many": b"5\r\nhello\r\n0\r\n" + (b"X-T: " + b"a" * 90 + b"\r\n") * 60 + b"\r\n",
    "size-of-17-digits": b"00000000000000005\r\nhello\r\n0\r\n\r\n",
    "end-lf": b"5\r\nhello\r\n0\r\n\n",
    "extension-lf": b"5;a\nb\r\nhello\r\n0\r\n\r\n",
    "extension-nul": b"5;a\x00b\r\nhello\r\n0\r\n\r\n",
    "extension-bare-cr": b"5;a\rb\r\nhello\r\n0\r\n\r\n",
    "trailer-space-before-colon": b"5\r\nhello\r\n0\r\nX-A : 1\r\n\r\n",
    "trailer-nul": b"5\r\nhello\r\n0\r\nX-A: a\x00b\r\n\r\n",
    "trailer-no-colon": b"5\r\nhello\r\n0\r\nnonsense\r\n\r\n",
}


async def _read_what_comes(upstream: Upstream, wire: Wire) -> None:
    """An upstream that takes what it gets and answers only whole requests."""
    try:
        message = await wire.request()
    except Gone:
        return
    upstream.note(message)
    if message.complete:
        await wire.send(reply())


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", [pytest.param(n, id=f"9112-7.1-{n}") for n in BROKEN])
async def test_a_broken_chunk_never_completes_a_request(lane: Lane, name: str, mode: str) -> None:
    lane.mode = mode
    request = _post(b"Transfer-Encoding: chunked\r\n", BROKEN[name]) + SMUGGLED
    async with lane.upstream(_read_what_comes) as upstream:
        async with await lane.dial() as wire:
            await wire.send(lane.fill(request))
            try:
                answer = await wire.response()
            except (Gone, ConnectionError):
                pass  # closing without a word is right too once the body had begun
            else:
                assert_problem(answer, "bad_request")
                await assert_closes(wire)
        await lane.call(lane.ask(rest=b"/sentinel"))
    whole = [m.head.start for m in upstream.requests if m.complete]
    assert whole == [b"GET /sentinel HTTP/1.1"]
    assert not any(b"smuggled" in m.head.raw for m in upstream.requests)


@pytest.mark.parametrize("cut", range(14))
async def test_a_fault_behind_a_body_that_is_read_already_is_told(lane: Lane, cut: int) -> None:
    """Wherever the pieces end: whoever waits for more of the body must learn that there is none."""
    body = b"5\r\nhello\r\n0\r\nnonsense\r\n\r\n"
    reached = asyncio.Event()

    async def read(_: Upstream, wire: Wire) -> None:
        await wire.head()
        if cut > len(b"5\r\n"):
            await wire.some()
        reached.set()
        await wire.rest()

    async with lane.upstream(read), await lane.dial() as wire:
        await wire.send(lane.ask(b"POST", b"/x", b"Transfer-Encoding: chunked") + body[:cut])
        await asyncio.wait_for(reached.wait(), 5)
        await wire.send(body[cut:])
        assert_problem(await wire.response(), "bad_request")
        await assert_closes(wire)


GOOD = {
    "chunked": (b"Transfer-Encoding: chunked\r\n", CHUNKED),
    "chunked-upper-case": (b"Transfer-Encoding: CHUNKED\r\n", CHUNKED),
    "chunked-no-space": (b"Transfer-Encoding:chunked\r\n", CHUNKED),
    "te-name-upper-case": (b"TRANSFER-ENCODING: chunked\r\n", CHUNKED),
    "chunk-extension": (b"Transfer-Encoding: chunked\r\n", b'5;a=b;c="d"\r\nhello\r\n0;e\r\n\r\n'),
    "chunk-leading-zeros": (b"Transfer-Encoding: chunked\r\n", b"0005\r\nhello\r\n000\r\n\r\n"),
    "chunk-per-byte": (
        b"Transfer-Encoding: chunked\r\n",
        b"1\r\nh\r\n1\r\ne\r\n1\r\nl\r\n1\r\nl\r\n1\r\no\r\n0\r\n\r\n",
    ),
    "length": (b"Content-Length: 5\r\n", b"hello"),
    "length-name-lower-case": (b"content-length: 5\r\n", b"hello"),
    "length-ows": (b"Content-Length: \t5\t \r\n", b"hello"),
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", [pytest.param(n, id=f"9112-6-{n}") for n in GOOD])
async def test_a_sound_framing_brings_its_body(lane: Lane, name: str, mode: str) -> None:
    lane.mode = mode
    fields, body = GOOD[name]
    async with lane.upstream() as upstream:
        answer = await lane.call(lane.fill(_post(fields, body)), b"POST")
    assert answer.body == b"ok"
    (message,) = upstream.requests
    assert (message.body, message.complete, message.trailers) == (b"hello", True, b"")
    assert b"a=b" not in message.head.raw


EITHER = {
    "other-protocol": b"GET {T} RTSP/1.1\r\n{H}\r\n",
    "two-spaces": b"GET  {T} HTTP/1.1\r\n{H}\r\n",
    "two-spaces-after": b"GET {T}  HTTP/1.1\r\n{H}\r\n",
    "te-ows": _post(b"Transfer-Encoding: \t chunked \t\r\n", CHUNKED),
}


@pytest.mark.parametrize("name", [pytest.param(n, id=f"9112-3-{n}") for n in EITHER])
async def test_what_may_be_repaired_is_repaired_or_refused(lane: Lane, name: str) -> None:
    """9112 3: white space may be read leniently, and what leaves is sound then."""
    async with lane.upstream() as upstream:
        answer = await lane.call(lane.fill(EITHER[name]))
        if answer.status != 200:
            assert_problem(answer, "bad_request")
            await lane.prove_untouched(upstream)
            return
    (message,) = upstream.requests
    assert message.head.start.endswith(b" /x HTTP/1.1")
    assert message.body == (b"hello" if name.startswith("te-") else b"")


MISSPELT = {
    "other-protocol": b"GET {T} RTSP/1.0\r\n{H}\r\n",
    "two-spaces": b"GET  {T} HTTP/1.1\r\n{H}\r\n",
    "two-spaces-after": b"GET {T}  HTTP/1.1\r\n{H}\r\n",
    "no-version": b"GET {T}\r\n{H}\r\n",
}


@pytest.mark.parametrize("place", ["alone", "behind", "in-pieces", "in-pieces-behind"])
@pytest.mark.parametrize("name", [pytest.param(n, id=f"9112-3-{n}") for n in MISSPELT])
async def test_no_other_request_line_is_taken_for_one(lane: Lane, name: str, place: str) -> None:
    """Wherever it stands, and however it comes; what came before it is answered."""
    before = lane.ask(rest=b"/before") if place.endswith("behind") else b""
    data = before + lane.fill(MISSPELT[name])
    async with lane.upstream() as upstream, await lane.dial() as wire:
        step = 1 if place.startswith("in-pieces") else len(data)
        for at in range(0, len(data), step):
            await wire.send(data[at : at + step])
        if before:
            assert (await wire.response()).status == 200
        answer = await wire.response()
        assert answer.status == 400
        assert_problem(answer, "bad_request")
        await assert_closes(wire)
    assert [message.head.start for message in upstream.requests] == [b"GET /before HTTP/1.1"][: len(before)]


TOLERABLE = {
    "leading-empty-line": b"\r\nGET {T} HTTP/1.1\r\n{H}\r\n",
    "no-space-after-colon": b"GET {T} HTTP/1.1\r\n{H}X-A:1\r\n\r\n",
    "host-upper-case-name": b"GET {T} HTTP/1.1\r\nHOST: {A}\r\nX-User-ID: alice\r\n\r\n",
    "user-any-case": b"GET {T} HTTP/1.1\r\nHost: {A}\r\nx-uSER-iD:\talice \r\n\r\n",
    "extension-method": b"PROPFIND {T} HTTP/1.1\r\n{H}\r\n",
    "http-1.0": b"GET {T} HTTP/1.0\r\n{H}\r\n",
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", [pytest.param(n, id=f"9112-2.2-{n}") for n in TOLERABLE])
async def test_what_is_only_unusual_is_served(lane: Lane, name: str, mode: str) -> None:
    lane.mode = mode
    async with lane.upstream() as upstream:
        answer = await lane.call(lane.fill(TOLERABLE[name]))
    assert answer.status == 200, answer
    assert upstream.requests[0].head.start.endswith(b" /x HTTP/1.1")
    assert upstream.requests[0].head.one(b"host") == b"127.0.0.1:%d" % lane.port


@pytest.mark.parametrize(("lengths", "body"), [((b"5", b"5"), b"hello"), ((b"0", b"0"), b"")])
async def test_two_equal_lengths_are_one_or_none(lane: Lane, lengths: tuple[bytes, ...], body: bytes) -> None:
    """9112 6.3: merged or refused; never both sent on."""
    request = _post(b"".join(b"Content-Length: %s\r\n" % n for n in lengths), body)
    async with lane.upstream() as upstream:
        answer = await lane.call(lane.fill(request), b"POST")
        if answer.status == 400:
            assert_problem(answer, "bad_request")
            await lane.prove_untouched(upstream)
        else:
            assert upstream.requests[0].head.one(b"content-length") == lengths[0]
            assert upstream.requests[0].body == body


@pytest.mark.scenario("G13")
async def test_what_follows_a_refusal_on_its_connection_is_not_read_as_a_request(lane: Lane) -> None:
    """A refused upload's body that looks like a request must not become one."""
    hidden = lane.ask(rest=b"/hidden")
    request = lane.ask(b"POST", b"/x", user=None, body=hidden)
    async with lane.upstream() as upstream:
        async with await lane.dial() as wire:
            await wire.send(request)
            answer = await wire.response(b"POST")
            assert_problem(answer, "user_missing")
            if (
                answer.head.one(b"connection") != b"close"
            ):  # it has read the body away: then the next one is served
                await wire.send(lane.ask(rest=b"/next"))
                assert (await wire.response()).status == 200
        seen = [m.head.target for m in upstream.requests]
        assert b"/hidden" not in seen
        await lane.prove_untouched(upstream, seen=len(seen))


SIZES = {
    "line-over": b"GET {T}/" + b"a" * 33000 + b" HTTP/1.1\r\n{H}\r\n",
    "query-over": b"GET {T}?q=" + b"a" * 33000 + b" HTTP/1.1\r\n{H}\r\n",
    "line-never-ending": b"GET {T}/" + b"a" * 70000,
    "method-never-ending": b"G" * 70000,
    "field-over": _field(b"X-A: " + b"a" * 33000),
    "field-name-over": _field(b"X-" + b"a" * 33000 + b": 1"),
    "field-never-ending": b"GET {T} HTTP/1.1\r\n{H}X-A: " + b"a" * 70000,
    "total-over": _field(b"\r\n".join(b"X-%d: " % n + b"a" * 7000 for n in range(10))),
    "count-over": _field(b"\r\n".join(b"X-%d: 1" % n for n in range(129))),
    "count-far-over": _field(b"\r\n".join(b"X-%d: 1" % n for n in range(3000))),
    "authorization-over": _field(b"Authorization: Bearer CANARY-agent-" + b"a" * 33000),
}


@pytest.mark.scenario("G18", "F04")
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", [pytest.param(n, id=f"6585-5-{n}") for n in SIZES])
async def test_an_oversized_head_is_answered_and_nothing_of_it_leaves(
    lane: Lane, name: str, mode: str
) -> None:
    lane.mode = mode
    answer = await refused(lane, lane.fill(SIZES[name]), 400, 414, 431)
    assert b"aaaa" not in answer.head.raw + answer.body


@pytest.mark.scenario("G18")
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("size", [4000, 8000, 8190, 8191, 8192, 16000, 32000])
@pytest.mark.parametrize("place", ["target", "field"])
async def test_a_head_within_the_limits_passes(lane: Lane, size: int, place: str, mode: str) -> None:
    lane.mode = mode
    pad = b"a" * size
    request = lane.ask(rest=b"/" + pad) if place == "target" else lane.ask(b"GET", b"/x", b"X-A: " + pad)
    async with lane.upstream() as upstream:
        answer = await lane.call(request)
    assert answer.status == 200, answer
    head = upstream.requests[0].head
    assert (head.target == b"/" + pad) if place == "target" else (head.one(b"x-a") == pad)


async def test_a_hundred_fields_pass(lane: Lane) -> None:
    fields = [b"X-%d: %d" % (n, n) for n in range(100)]
    async with lane.upstream() as upstream:
        answer = await lane.call(lane.ask(b"GET", b"/x", *fields))
    assert answer.status == 200
    got = [b": ".join(pair) for pair in upstream.requests[0].head.fields]
    assert [line for line in got if line in fields] == fields


@pytest.mark.parametrize("end", [b"", b" "])
async def test_a_request_line_without_a_version_is_a_400(lane: Lane, end: bytes) -> None:
    await refused(lane, lane.fill(b"GET {T}" + end + b"\r\n{H}\r\n"), 400)
