"""Ways back: an upstream's own URLs lead through the proxy again in base-URL mode; WebSockets are tunnels of bytes."""

from __future__ import annotations

import asyncio
import json
import random

import pytest

from tests.kit.lanes import ABSOLUTE, BASE, MODES, Lane
from tests.kit.raw import Gone, Upstream, Wire, reply

# {U} the upstream's base URL, {P} where the agent finds it, {O} the upstream's authority, {X} the route's prefix
MOVED = {
    "whole": ("{U}/y", "{P}/y"),
    "query": ("{U}/y?page=2&z=%2F", "{P}/y?page=2&z=%2F"),
    "root": ("{U}/", "{P}/"),
    "bare": ("{U}", "{P}"),
    "bare-query": ("{U}?a=b", "{P}?a=b"),
    "fragment": ("{U}/y#part", "{P}/y#part"),
    "scheme-upper-case": ("HTTP://{O}/y", "{P}/y"),
    "no-scheme": ("//{O}/y", "{P}/y"),
    "path-only": ("/y?a=b", "{X}/y?a=b"),
    "encoded": ("{U}/a%2Fb/%C3%A9", "{P}/a%2Fb/%C3%A9"),
}
KEPT = {
    "other-host": "http://other.example/y",
    "other-port": "http://127.0.0.1:1/y",
    "other-scheme": "https://{O}/y",
    "no-port": "http://127.0.0.1/y",
    "longer-host": "http://{O}.evil.example/y",
    "longer-port": "http://{O}9/y",
    "userinfo": "http://u@{O}/y",
    "userinfo-trick": "http://{O}@evil.example/y",
    "in-the-query": "http://other.example/?u={U}/y",
    "relative": "y/z?a=b",
    "relative-up": "../y",
    "query-only": "?a=b",
    "backslash": "http:\\\\{O}\\y",
    "no-host": "http:///y",
    "other-kind": "mailto:a@example",
    "empty": "",
}


def _filled(lane: Lane, text: str) -> str:
    base = f"{lane.proxy.url}{lane.prefix.decode()}"
    own = f"127.0.0.1:{lane.port}"
    return (
        text.replace("{U}", f"http://{own}")
        .replace("{P}", base)
        .replace("{O}", own)
        .replace("{X}", lane.prefix.decode())
    )


@pytest.mark.scenario("F01")
@pytest.mark.parametrize("name", [pytest.param(n, id=f"moved-{n}") for n in MOVED])
async def test_a_redirect_to_the_upstream_itself_leads_back_through_the_proxy(lane: Lane, name: str) -> None:
    there, here = (_filled(lane, text) for text in MOVED[name])
    answer_with = reply(
        "302 F", b"", f"Location: {there}", f"Link: <{there}>; rel=next, <http://o.example/>; rel=up"
    )
    async with lane.upstream([answer_with, reply()]) as upstream:
        answer = await lane.call(lane.ask())
        assert answer.head.one(b"location") == here.encode()
        assert answer.head.one(b"link") == f"<{here}>; rel=next, <http://o.example/>; rel=up".encode()
        target = here.removeprefix(lane.proxy.url).partition("#")[0]
        assert target.encode().startswith(lane.prefix), "and so it can be followed"
        rest = target.encode().removeprefix(lane.prefix)
        assert (await lane.call(lane.ask(rest=rest))).status == 200
    assert upstream.requests[1].head.target == (rest if rest.startswith(b"/") else b"/" + rest)


@pytest.mark.scenario("F01", "G22")
@pytest.mark.parametrize("name", [pytest.param(n, id=f"kept-{n}") for n in KEPT])
async def test_a_redirect_elsewhere_is_left_as_it_is(lane: Lane, name: str) -> None:
    there = _filled(lane, KEPT[name])
    async with lane.upstream([reply("302 F", b"", f"Location: {there}")]):
        answer = await lane.call(lane.ask())
    assert answer.head.one(b"location") == there.encode()


@pytest.mark.parametrize("mode", [mode for mode in MODES if mode != BASE])
async def test_an_agent_that_knows_the_upstreams_name_gets_its_urls(lane: Lane, mode: str) -> None:
    lane.mode = mode
    there = _filled(lane, "{U}/y")
    async with lane.upstream([reply("302 F", b"", f"Location: {there}", f"Link: <{there}>; rel=next")]):
        answer = await lane.call(lane.ask())
    assert answer.head.one(b"location") == there.encode()
    assert answer.head.one(b"link") == f"<{there}>; rel=next".encode()


@pytest.mark.parametrize("framing", ["length", "chunked"])
async def test_urls_in_json_lead_back_where_the_route_says_so(special: dict[str, Lane], framing: str) -> None:
    lane = special["moving"]
    there, here = (_filled(lane, text) for text in ("{U}/repos", "{P}/repos"))
    told = {"url": there, "text": f"see {there}", "other": "http://o.example/", "list": [there] * 50, "n": 1}
    want = {**told, "url": here, "list": [here] * 50}
    body = json.dumps(told).replace("/", random.Random(3).choice(["/", "\\/"])).encode()
    if framing == "length":
        raw = reply("200 OK", body, "Content-Type: application/json", "Content-MD5: x")
    else:  # in pieces of every size, so that no border is where one would like it
        rng, at, pieces = random.Random(5), 0, b""
        while at < len(body):
            piece = body[at : at + rng.randint(1, 40)]
            pieces += b"%x\r\n%b\r\n" % (len(piece), piece)
            at += len(piece)
        raw = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n"
        raw += b"Connection: close\r\n\r\n" + pieces + b"0\r\n\r\n"
    async with lane.upstream([raw]) as upstream:
        answer = await lane.call(lane.ask(b"GET", b"/x", b"Accept-Encoding: gzip"))
        assert answer.complete
        assert json.loads(answer.body) == want
        assert b"content-md5" not in answer.head.names, "it would no longer be true"
        assert upstream.requests[0].head.one(b"accept-encoding") in (None, b"identity")
        lane.mode = ABSOLUTE
        untouched = await lane.call(lane.ask())
        assert json.loads(untouched.body) == told


HANDSHAKE = (
    b"Connection: keep-alive, Upgrade",
    b"Upgrade: WebSocket",
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    b"Sec-WebSocket-Version: 13",
    b"Sec-WebSocket-Protocol: chat, superchat",
    b"Sec-WebSocket-Extensions: permessage-deflate",
)
SWITCHED = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSec-WebSocket-Protocol: chat\r\n"
    b"Set-Cookie: a=b\r\nX-Authproxy-Error: forged\r\n\r\n"
)


@pytest.mark.scenario("G21", "N7", "D28", "D14", "F06")
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("expired", [False, True], ids=["fresh", "expired"])
async def test_a_websocket_is_a_tunnel_both_ways(lane: Lane, expired: bool, mode: str) -> None:
    """Also when the handshake meets a 401; and what came early waits for the 101."""
    lane.mode = mode
    name, grant = await asyncio.to_thread(lane.seeded.user)
    old = grant.bearer
    blob = random.Random(9).randbytes(3 * 2**20)

    async def script(upstream: Upstream, wire: Wire) -> None:
        message = await wire.request()
        upstream.note(message)
        if expired and message.head.one(b"authorization") == old:
            await wire.send(reply("401 U", b"no", "WWW-Authenticate: Bearer"))
            return
        await wire.send(SWITCHED)
        assert await wire.exactly(5) == b"early"
        sending = asyncio.create_task(wire.send(blob))
        assert await wire.exactly(len(blob)) == blob
        await sending
        assert await wire.rest() == b"last"
        await wire.send(b"bye")

    async with lane.upstream(script) as upstream, await lane.dial() as wire:
        await wire.send(lane.ask(b"GET", b"/socket?a=b", *HANDSHAKE, user=name.encode()) + b"early")
        head = await wire.head()
        assert head.status == 101, head.raw
        assert [v.lower() for v in head.all(b"upgrade")] == [b"websocket"]
        assert head.one(b"sec-websocket-accept") == b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
        assert head.one(b"sec-websocket-protocol") == b"chat"
        assert b"x-authproxy-error" not in head.names
        sending = asyncio.create_task(wire.send(blob))
        assert await wire.exactly(len(blob)) == blob
        await sending
        await wire.send(b"last")
        if mode != "connect":  # asyncio's TLS has no half-closed connections
            wire.half_close()
            assert await wire.rest() == b"bye"
        else:
            await wire.close()
    asked = upstream.requests[-1].head
    assert len(upstream.requests) == (2 if expired else 1)
    assert grant.asked == (1 if expired else 0)
    assert asked.one(b"authorization") == grant.bearer
    assert [v.lower() for v in asked.all(b"upgrade")] == [b"websocket"]
    assert asked.all(b"connection") == [b"Upgrade"]
    assert asked.one(b"sec-websocket-protocol") == b"chat, superchat"
    assert asked.one(b"sec-websocket-extensions") == b"permessage-deflate"
    assert b"keep-alive" not in asked.names


@pytest.mark.scenario("G21", "G10")
@pytest.mark.parametrize("end", ["fin", "rst"])
async def test_a_websockets_end_is_told_to_the_other_side(lane: Lane, end: str) -> None:
    closed = asyncio.Event()

    async def script(upstream: Upstream, wire: Wire) -> None:
        try:
            await wire.request()
        except Gone:
            return
        await wire.send(SWITCHED + b"hello")
        await wire.rest()
        closed.set()

    async with lane.upstream(script):
        wire = await lane.dial()
        await wire.send(lane.ask(b"GET", b"/socket", *HANDSHAKE))
        assert (await wire.head()).status == 101
        assert await wire.exactly(5) == b"hello"
        wire.reset() if end == "rst" else None
        await wire.close()
        await asyncio.wait_for(closed.wait(), 2)


@pytest.mark.scenario("G21")
@pytest.mark.parametrize(
    "answer",
    [
        reply("200 OK", b"plain"),
        reply("403 Forbidden", b"no"),
        reply("426 Upgrade Required", b"v", "Sec-WebSocket-Version: 13", "Upgrade: websocket"),
        reply("302 Found", b"", "Location: http://o.example/"),
    ],
    ids=["200", "403", "426", "302"],
)
async def test_without_a_101_there_is_no_tunnel(lane: Lane, answer: bytes) -> None:
    async with lane.upstream([answer]) as upstream, await lane.dial() as wire:
        await wire.send(lane.ask(b"GET", b"/socket", *HANDSHAKE) + b"\x81\x85early frame")
        got = await wire.response()
        assert got.head.start == answer.split(b"\r\n")[0]
        assert got.complete
        after = await wire.rest()  # nothing, or the refusal of what is no request now
        assert after == b"" or after.startswith(b"HTTP/1.1 400 "), after
    assert len(upstream.requests) == 1


@pytest.mark.scenario("G21")
@pytest.mark.parametrize(
    "fields",
    [
        (b"Upgrade: websocket", b"Connection: Upgrade", b"Content-Length: 5"),
        (b"Upgrade: websocket", b"Connection: Upgrade", b"Transfer-Encoding: chunked"),
        (b"Upgrade: websocket, h2c", b"Connection: Upgrade"),
        (b"Upgrade: websocket", b"Upgrade: h2c", b"Connection: Upgrade"),
        (b"Upgrade: h2c", b"Connection: Upgrade, HTTP2-Settings", b"HTTP2-Settings: AAMAAABk"),
        (b"Upgrade: TLS/1.3", b"Connection: Upgrade"),
    ],
    ids=["with-length", "with-chunks", "two-in-one", "two-lines", "h2c", "tls"],
)
async def test_an_odd_upgrade_is_refused_or_not_passed_on(lane: Lane, fields: tuple[bytes, ...]) -> None:
    async def script(upstream: Upstream, wire: Wire) -> None:
        message = await wire.request()
        upstream.note(message)
        await wire.send(reply())

    async with lane.upstream(script) as upstream, await lane.dial() as wire:
        tails = {b"Transfer-Encoding: chunked": b"5\r\nhello\r\n0\r\n\r\n", b"Content-Length: 5": b"hello"}
        await wire.send(lane.ask(b"GET", b"/socket", *fields) + tails.get(fields[-1], b""))
        answer = await wire.response()
        if answer.status != 200:
            assert answer.head.one(b"x-authproxy-error") in (b"bad_request", b"policy_denied"), answer
            assert upstream.requests == []
            return
    head = upstream.requests[0].head
    assert b"http2-settings" not in head.names
    assert [v.lower() for v in head.all(b"upgrade")] in ([], [b"websocket"])
