"""WebSocket on all ways in: the token in the handshake, then bytes both ways, as they are and to the end."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import aiohttp
import pytest
from aiohttp import WSMsgType, web

from tests.kit.lanes import BASE, CONNECT, MODES, Lane, assert_problem
from tests.kit.raw import Gone, Script, Upstream, Wire, reply
from tests.tunnel.conftest import Yard

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
KEY = b"dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT = b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
HANDSHAKE = (
    b"Connection: Upgrade",
    b"Upgrade: websocket",
    b"Sec-WebSocket-Key: " + KEY,
    b"Sec-WebSocket-Version: 13",
)
DENIED = reply("401 Unauthorized", b"{}", 'WWW-Authenticate: Bearer error="invalid_token"')


def switching(*fields: bytes) -> bytes:
    lines = [
        b"HTTP/1.1 101 Switching Protocols",
        b"Upgrade: websocket",
        b"Connection: Upgrade",
        b"Sec-WebSocket-Accept: " + ACCEPT,
        *fields,
    ]
    return b"\r\n".join(lines) + b"\r\n\r\n"


def accepting(then: Callable[[Wire], Awaitable[None]], *fields: bytes, early: bytes = b"") -> Script:
    """Switches, then does as told with the bytes."""

    async def script(upstream: Upstream, wire: Wire) -> None:
        upstream.note(await wire.request())
        await wire.send(switching(*fields) + early)
        await then(wire)

    return script


async def echo(wire: Wire) -> None:
    while data := await wire.some():
        await wire.send(data)


def frame(payload: bytes, opcode: int = 1, *, masked: bool = True, final: bool = True) -> bytes:
    mask = b"\1\2\3\4"
    size = len(payload)
    head = bytes([(0x80 if final else 0) | opcode])
    flag = 0x80 if masked else 0
    if size < 126:
        head += bytes([flag | size])
    elif size < 65536:
        head += bytes([flag | 126]) + size.to_bytes(2, "big")
    else:
        head += bytes([flag | 127]) + size.to_bytes(8, "big")
    if not masked:
        return head + payload
    return head + mask + bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))


@contextlib.asynccontextmanager
async def opened(lane: Lane, *fields: bytes) -> AsyncIterator[Wire]:
    """A switched connection, as the agent has it."""
    async with await lane.dial() as wire:
        await wire.send(lane.ask(b"GET", b"/socket", *HANDSHAKE, *fields))
        answer = await wire.response()
        assert answer.status == 101, answer
        yield wire


@contextlib.asynccontextmanager
async def serving(lane: Lane, handler: Callable[[web.Request], Awaitable[Any]]) -> AsyncIterator[None]:
    """A WebSocket server that is not ours behind the lane."""
    app = web.Application()
    app.router.add_get("/{tail:.*}", handler)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.SockSite(runner, lane.sock.dup()).start()
    try:
        yield
    finally:
        await runner.cleanup()


def url(lane: Lane) -> tuple[str, dict[str, Any]]:
    """Where a real client connects, and how, in the lane's mode."""
    if lane.mode == CONNECT:
        proxy = f"http://alice:-@127.0.0.1:{lane.proxy.listen}"
        return f"wss://{lane.host}/socket", {"proxy": proxy, "ssl": lane.proxy.trust}
    if lane.mode == BASE:
        base = f"ws://127.0.0.1:{lane.proxy.listen}{lane.prefix.decode()}/socket"
        return base, {"headers": {"X-User-ID": "alice"}}
    proxy = f"http://alice:-@127.0.0.1:{lane.proxy.listen}"
    return f"ws://127.0.0.1:{lane.port}/socket", {"proxy": proxy}


# --- the handshake -------------------------------------------------------------------------------------------


@pytest.mark.scenario("G21", "D14")
@pytest.mark.parametrize("mode", MODES)
async def test_the_handshake_travels_with_the_token(yard: Yard, mode: str) -> None:
    lane = yard.lane(mode)
    fields = (
        b"Sec-WebSocket-Protocol: chat, superchat",
        b"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits",
        b"Origin: https://app.example",
        b"Authorization: Bearer dummy",
    )
    script = accepting(echo, b"Sec-WebSocket-Protocol: chat", b"Set-Cookie: a=b", b"X-Authproxy-Error: no")
    async with lane.upstream(script) as upstream, await lane.dial() as wire:
        await wire.send(lane.ask(b"GET", b"/socket?x=%2F", *HANDSHAKE, *fields))
        answer = (await wire.response()).head
        await wire.send(frame(b"hello"))
        assert await wire.exactly(len(frame(b"hello"))) == frame(b"hello")
    sent = upstream.requests[0].head
    assert sent.start == b"GET /socket?x=%2F HTTP/1.1"
    assert sent.one(b"authorization") == lane.bearer
    assert sent.one(b"connection") == b"Upgrade"
    assert sent.one(b"upgrade") == b"websocket"
    assert sent.one(b"sec-websocket-key") == KEY
    assert sent.one(b"sec-websocket-version") == b"13"
    assert sent.one(b"sec-websocket-protocol") == b"chat, superchat"
    assert sent.one(b"origin") == b"https://app.example"
    assert not {b"x-user-id", b"proxy-authorization"} & set(sent.names)
    assert (answer.status, answer.one(b"upgrade"), answer.one(b"connection")) == (
        101,
        b"websocket",
        b"Upgrade",
    )
    assert answer.one(b"sec-websocket-accept") == ACCEPT
    assert answer.one(b"sec-websocket-protocol") == b"chat"
    assert answer.one(b"x-authproxy-error") is None
    assert answer.one(b"x-request-id")
    assert not {b"content-length", b"transfer-encoding"} & set(answer.names)


@pytest.mark.scenario("D14", "G21")
@pytest.mark.parametrize("mode", MODES)
async def test_a_401_at_the_handshake_is_renewed_once(yard: Yard, mode: str) -> None:
    lane = yard.lane(mode)
    name, grant = await asyncio.to_thread(yard.seeded.user)
    old = grant.bearer
    async with contextlib.AsyncExitStack() as stack:

        async def script(upstream: Upstream, wire: Wire) -> None:
            message = await wire.request()
            upstream.note(message)
            if message.head.one(b"authorization") == old:
                await wire.send(DENIED)
                return
            await wire.send(switching())
            await echo(wire)

        upstream = await stack.enter_async_context(lane.upstream(script))
        wire = await stack.enter_async_context(await lane.dial())
        await wire.send(lane.ask(b"GET", b"/socket", *HANDSHAKE, user=name.encode()))
        assert (await wire.response()).status == 101
        await wire.send(b"ping")
        assert await wire.exactly(4) == b"ping"
    assert [one.head.one(b"authorization") for one in upstream.requests] == [old, grant.bearer]
    assert grant.asked == 1
    assert all(one.head.one(b"sec-websocket-key") == KEY for one in upstream.requests)
    last = (await yard.records(1, route=lane.name, user=name))[-1]
    assert (last["status"], last["refreshed"], last["attempts"], last["bytes_in"]) == (101, True, 2, 4)


@pytest.mark.parametrize("mode", MODES)
async def test_an_upstream_that_does_not_switch_is_an_answer_like_others(yard: Yard, mode: str) -> None:
    lane = yard.lane(mode)
    no = reply("426 Upgrade Required", b"no", "Upgrade: websocket", keep=True)
    async with lane.upstream([no]), await lane.dial() as wire:
        for _ in range(2):  # and the connection goes on as HTTP
            await wire.send(lane.ask(b"GET", b"/socket", *HANDSHAKE))
            answer = await wire.response()
            assert (answer.status, answer.body) == (426, b"no")
            assert answer.head.one(b"upgrade") is None
        await wire.send(lane.ask(b"GET", b"/socket"))
        assert (await wire.response()).status == 426


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ((b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABk"), "h2c"),
        ((b"Connection: Upgrade", b"Upgrade: h2c, websocket"), "list"),
        ((b"Connection: Upgrade", b"Upgrade: websocket", b"Upgrade: h2c"), "two"),
        ((b"Upgrade: websocket",), "unannounced"),
        ((b"Connection: Upgrade", b"Upgrade: TLS/1.0"), "tls"),
        ((b"Connection: Upgrade", b"Upgrade: websocket/13"), "version"),
        ((b"Connection: Upgrade",), "nothing"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_other_upgrades_are_dropped_and_go_on_as_http(
    yard: Yard, fields: tuple[bytes, ...], why: str
) -> None:
    lane = yard.lane()
    async with lane.upstream([reply(keep=True)]) as upstream, await lane.dial() as wire:
        for path in (b"/x", b"/y"):
            await wire.send(lane.ask(b"GET", path, *fields))
            assert (await wire.response()).status == 200
    assert [one.head.target for one in upstream.requests] == [b"/x", b"/y"]
    for request in upstream.requests:
        assert not {b"upgrade", b"connection", b"http2-settings"} & set(request.head.names)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket, h2c\r\nConnection: Upgrade\r\n\r\n",
    ],
)
async def test_a_101_to_something_else_is_no_switch(yard: Yard, answer: bytes) -> None:
    lane = yard.lane()

    async def script(upstream: Upstream, wire: Wire) -> None:
        upstream.note(await wire.request())
        await wire.send(answer)
        await wire.rest()

    async with lane.upstream(script), await lane.dial() as wire:
        await wire.send(lane.ask(b"GET", b"/socket", *HANDSHAKE))
        refused = await wire.response()
        assert refused.status == 502
        assert_problem(refused, "upstream_unreachable")


async def test_the_token_is_masked_in_a_101_too(yard: Yard) -> None:
    lane = yard.lane()

    async def script(upstream: Upstream, wire: Wire) -> None:
        message = await wire.request()
        upstream.note(message)
        token = message.head.one(b"authorization") or b""
        await wire.send(switching(b"X-Echo: " + token, b"X-Coded: " + base64.b64encode(token)))
        await wire.rest()

    async with lane.upstream(script) as upstream, await lane.dial() as wire:
        await wire.send(lane.ask(b"GET", b"/socket", *HANDSHAKE))
        head = (await wire.response()).head
        token = (upstream.requests[0].head.one(b"authorization") or b"").split()[-1]
        assert token not in head.raw
        assert base64.b64encode(token)[8:-8] not in head.raw
        assert head.one(b"sec-websocket-accept") == ACCEPT


async def test_policy_holds_for_handshakes(yard: Yard) -> None:
    lane = yard.named("ruled")
    async with lane.upstream() as upstream, await lane.dial() as wire:
        await wire.send(lane.ask(b"GET", b"/elsewhere", *HANDSHAKE))
        assert_problem(await wire.response(), "policy_denied")
    assert not upstream.requests


# --- bytes ---------------------------------------------------------------------------------------------------


@pytest.mark.scenario("G21")
@pytest.mark.parametrize("mode", MODES)
async def test_bytes_of_both_sides_arrive_as_they_are(yard: Yard, mode: str) -> None:
    lane = yard.lane(mode)
    down = os.urandom(300_000)

    async def then(wire: Wire) -> None:
        assert await wire.exactly(10) == b"early-late"
        await wire.send(down)
        await wire.rest()

    async with lane.upstream(accepting(then, early=b"first")) as upstream, await lane.dial() as wire:
        # What comes with the handshake waits for the switch, and is not lost to it.
        await wire.send(lane.ask(b"GET", b"/socket", *HANDSHAKE) + b"early-")
        assert (await wire.response()).status == 101
        assert await wire.exactly(5) == b"first"
        await wire.send(b"late")
        assert await wire.exactly(len(down)) == down
    record = (await yard.records(1, route=lane.name, status=101))[-1]
    assert (record["bytes_in"], record["bytes_out"]) == (10, 5 + len(down))
    assert len(upstream.requests) == 1


@pytest.mark.scenario("G21")
@pytest.mark.parametrize("mode", MODES)
async def test_a_large_message_passes_through_a_real_client_and_server(yard: Yard, mode: str) -> None:
    lane = yard.lane(mode)
    payload = os.urandom(20 * 2**20)

    async def handler(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(max_msg_size=0, protocols=("chat",), autoping=False)
        await socket.prepare(request)
        async for message in socket:
            if message.type is WSMsgType.BINARY:
                await socket.send_bytes(message.data)
            elif message.type is WSMsgType.TEXT:
                await socket.send_str(hashlib.sha256(message.data.encode()).hexdigest())
            elif message.type is WSMsgType.PING:
                await socket.pong(b"back " + message.data)
        return socket

    address, how = url(lane)
    async with (
        serving(lane, handler),
        aiohttp.ClientSession() as session,
        session.ws_connect(
            address, max_msg_size=0, compress=15, protocols=("chat",), autoping=False, **how
        ) as socket,
    ):
        assert socket.protocol == "chat"
        await socket.send_bytes(payload)
        message = await asyncio.wait_for(socket.receive(), 40)
        assert message.data == payload
        await socket.send_str("x" * 1_000_000)
        answer = await asyncio.wait_for(socket.receive(), 10)
        assert answer.data == hashlib.sha256(b"x" * 1_000_000).hexdigest()
        await socket.ping(b"payload")
        pong = await asyncio.wait_for(socket.receive(), 10)
        assert (pong.type, pong.data) == (WSMsgType.PONG, b"back payload")


@pytest.mark.scenario("G21")
@pytest.mark.parametrize("code", [1000, 1001, 1003, 1008, 1009, 1011, 1012, 3000, 4000, 4999])
@pytest.mark.parametrize("closer", ["agent", "upstream"])
async def test_close_codes_propagate(yard: Yard, code: int, closer: str) -> None:
    lane = yard.lane(CONNECT if code % 2 else BASE)
    seen: asyncio.Queue[tuple[Any, Any]] = asyncio.Queue()

    async def handler(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        if closer == "upstream":
            await socket.close(code=code, message=b"because")
        else:
            message = await socket.receive()
            seen.put_nowait((message.data, message.extra))
        return socket

    address, how = url(lane)
    async with (
        serving(lane, handler),
        aiohttp.ClientSession() as session,
        session.ws_connect(address, **how) as socket,
    ):
        if closer == "agent":
            await socket.close(code=code, message=b"because")
            assert await asyncio.wait_for(seen.get(), 5) == (code, "because")
        else:
            message = await asyncio.wait_for(socket.receive(), 5)
            assert (message.data, message.extra) == (code, "because")
    record = (await yard.records(1, route=lane.name, status=101))[-1]
    assert record["code"] in (None, "client_closed")


async def test_a_slow_reader_holds_the_writer_back(yard: Yard) -> None:
    lane = yard.lane()
    written = 0

    async def then(wire: Wire) -> None:
        nonlocal written
        while written < 64 * 2**20:
            await wire.send(b"x" * 2**16)
            written += 2**16
        wire.half_close()
        await wire.rest()

    async with lane.upstream(accepting(then)), await lane.dial(buffer=4096) as wire:
        await wire.send(lane.ask(b"GET", b"/socket", *HANDSHAKE))
        assert (await wire.response()).status == 101
        before, seen = lane.proxy.rss(), -1
        while seen != written:  # until nothing more is taken
            seen = written
            await asyncio.sleep(0.3)
        assert written < 32 * 2**20
        assert lane.proxy.rss() - before < 16 * 2**20
        size = 0
        while data := await wire.some():
            size += len(data)
        assert size == 64 * 2**20


# --- ends ----------------------------------------------------------------------------------------------------


@pytest.mark.scenario("G21")
async def test_a_half_close_leaves_the_other_half_open(yard: Yard) -> None:
    lane = yard.lane()

    async def then(wire: Wire) -> None:
        said = await wire.rest()
        await wire.send(b"you said " + said)

    async with lane.upstream(accepting(then)), opened(lane) as wire:
        await wire.send(b"all of it")
        wire.half_close()
        assert await wire.rest() == b"you said all of it"
    record = (await yard.records(1, route=lane.name, status=101))[-1]
    assert (record["code"], record["bytes_in"], record["bytes_out"]) == (None, 9, 18)


@pytest.mark.parametrize("mode", MODES)
async def test_a_reset_of_the_agent_ends_the_upstreams_side(yard: Yard, mode: str) -> None:
    lane = yard.lane(mode)
    ended: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def then(wire: Wire) -> None:
        ended.set_result(await wire.rest())

    async with lane.upstream(accepting(then)), opened(lane) as wire:
        await wire.send(b"half")
        await asyncio.sleep(0.05)  # so that the bytes are on their way before the reset overtakes them
        wire.reset()
        assert await asyncio.wait_for(ended, 5) == b"half"
    last = (await yard.records(1, route=lane.name, status=101))[-1]
    assert last["code"] in ("client_closed", None), yard.proxy.words()[-2500:]


@pytest.mark.parametrize("mode", MODES)
async def test_a_reset_of_the_upstream_is_a_reset_for_the_agent(yard: Yard, mode: str) -> None:
    lane = yard.lane(mode)

    async def then(wire: Wire) -> None:
        await wire.exactly(4)
        wire.reset()

    async with lane.upstream(accepting(then)), opened(lane) as wire:
        await wire.send(b"ping")
        with pytest.raises(ConnectionError):
            await asyncio.wait_for(wire.reader.readexactly(1), 5)
    last = (await yard.records(1, route=lane.name, status=101))[-1]
    assert last["code"] == "upstream_unreachable"


async def test_silence_ends_it_in_the_routes_time_and_any_byte_begins_it_anew(yard: Yard) -> None:
    lane = yard.named("brief")
    async with lane.upstream(accepting(echo)), opened(lane) as wire:
        for _ in range(4):
            await asyncio.sleep(0.3)  # less than the route's time, together more
            await wire.send(b"x")
            assert await wire.exactly(1) == b"x"
        started = time.monotonic()
        assert await wire.rest() == b""
        assert 0.3 < time.monotonic() - started < 3
    assert (await yard.records(1, route=lane.name, status=101))[-1]["code"] == "upstream_timeout"


async def test_one_direction_may_be_silent_for_as_long_as_it_likes(yard: Yard) -> None:
    lane = yard.named("curt")

    async def then(wire: Wire) -> None:
        for _ in range(6):
            await asyncio.sleep(0.2)
            await wire.send(b"tick")
        await wire.rest()

    async with lane.upstream(accepting(then)), opened(lane) as wire:
        assert await wire.exactly(24) == b"tick" * 6


@pytest.mark.scenario("I08")
@pytest.mark.parametrize("mode", MODES)
async def test_a_disconnected_user_is_cut_off_within_the_leash(yard: Yard, mode: str) -> None:
    lane = yard.lane(mode)
    name, _ = await asyncio.to_thread(yard.seeded.user)
    async with lane.upstream(accepting(echo)), await lane.dial() as wire:
        await wire.send(lane.ask(b"GET", b"/socket", *HANDSHAKE, user=name.encode()))
        assert (await wire.response()).status == 101
        _, found = await asyncio.to_thread(yard.proxy.ask, "GET", f"/v1/connections?user_id={name}")
        status, _ = await asyncio.to_thread(
            yard.proxy.ask, "DELETE", f"/v1/connections/{found['items'][0]['id']}"
        )
        assert status in (200, 204)
        started = time.monotonic()
        assert await wire.rest() == b""
        assert time.monotonic() - started < 2
    last = (await yard.records(1, route=lane.name, user=name, status=101))[-1]
    assert last["code"] == "connection_required"


@pytest.mark.scenario("I08")
async def test_a_revoked_key_is_cut_off_within_the_leash(yard: Yard) -> None:
    lane = yard.lane()
    key, key_id = await asyncio.to_thread(yard.key, "socketeer", "alice")
    async with lane.upstream(accepting(echo)), opened(lane, b"X-Authproxy-Key: " + key.encode()) as wire:
        await asyncio.to_thread(yard.run, "agents", "revoke", key_id)
        assert await wire.rest() == b""
    last = (await yard.records(1, route=lane.name, status=101, agent="socketeer"))[-1]
    assert last["code"] == "caller_unknown"


async def test_a_handshake_that_the_agent_leaves_is_left_upstream(yard: Yard) -> None:
    lane = yard.lane()
    ended: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def script(upstream: Upstream, wire: Wire) -> None:
        upstream.note(await wire.request())
        ended.set_result(await wire.rest())

    async with lane.upstream(script) as upstream:
        wire = await lane.dial()
        await wire.send(lane.ask(b"GET", b"/socket", *HANDSHAKE))
        await upstream.next()
        wire.reset()
        await asyncio.wait_for(ended, 5)
    await wire.close()
    assert (await yard.records(1, route=lane.name, path="/socket"))[-1]["code"] == "client_closed"


async def test_a_hundred_sockets_leave_nothing_behind(yard: Yard) -> None:
    lane = yard.lane()
    async with lane.upstream(accepting(echo)):
        before = yard.proxy.descriptors()
        for n in range(100):
            async with opened(lane) as wire:
                await wire.send(b"x" * n)
                with contextlib.suppress(Gone):
                    await wire.exactly(n)
                if n % 2:
                    wire.reset()
        for _ in range(200):
            if yard.proxy.descriptors() <= before:
                break
            await asyncio.sleep(0.02)  # sockets are closed by another process
        assert yard.proxy.descriptors() <= before
    words = yard.proxy.words()
    assert "Traceback" not in words, words[words.index("Traceback") - 800 :][:3000]
