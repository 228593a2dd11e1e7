"""What clients do that they should not: broken messages, leaving in the middle, reading nothing."""

from __future__ import annotations

import asyncio
import json
import random
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web

from authproxy.faces import mcp_asgi
from authproxy.faces.edge import Names, application
from authproxy.faces.listener import Runner
from tests.mcp.conftest import GIVEN, TOOL, Place

META = {
    "progressToken": 1,
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientCapabilities": {},
}
CALL = {"jsonrpc": "2.0", "id": 1, "method": "tools/call"} | {
    "params": {"name": TOOL, "arguments": GIVEN, "_meta": META}
}
MESSAGES: list[Any] = [
    CALL,
    {"jsonrpc": "2.0", "id": 1, "method": "initialize"}
    | {
        "params": {
            "protocolVersion": "2025-11-25",
            "capabilities": {"elicitation": {"url": {}}},
            "clientInfo": {"name": "t", "version": "1"},
        }
    },
    {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {"cursor": "x", "_meta": META}},
    {"jsonrpc": "2.0", "id": 1, "method": "server/discover", "params": {"_meta": META}},
    {"jsonrpc": "2.0", "id": 1, "method": "subscriptions/listen", "params": {"_meta": META}},
    {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 1}},
    {"jsonrpc": "2.0", "id": 1, "result": {}},
]
ODD: list[Any] = [None, -1, 1e308, 2**70, True, "", "x" * 300, [], {}, [[]], "\ud800", float("nan"), "\x00"]
VERSIONS = ["2025-11-25", "2026-07-28", "2024-11-05", "zzz", "2026-07-28, 2025-11-25"]


async def test_no_message_breaks_it_for_others(place: Place) -> None:
    dice = random.Random(20261)
    for _ in range(150):
        message = twisted(dice, dice.choice(MESSAGES))
        fields = {"X_User_ID": "alice", "MCP_Protocol_Version": dice.choice(VERSIONS), "Mcp_Name": TOOL}
        method = message.get("method") if isinstance(message, dict) else None
        if isinstance(method, str) and method.isprintable() and method.isascii():
            fields["Mcp_Method"] = method
        status, answered, _ = await place.post(message, **fields)
        assert status < 500, (message, fields)
        assert answered["x-request-id"]
    assert place.mcp is not None
    assert place.mcp._service is not None
    assert place.mcp._service._calls == {}
    async with place.client() as client:
        assert not (await client.call_tool(TOOL, GIVEN)).is_error


def twisted(dice: random.Random, value: Any) -> Any:
    if dice.random() < 0.12:
        return dice.choice(ODD)
    if isinstance(value, dict):
        return {name: twisted(dice, one) for name, one in value.items() if dice.random() > 0.05}
    return value


@pytest.mark.parametrize("version", VERSIONS[:2])
async def test_who_leaves_takes_everything_along(place: Place, version: str) -> None:
    place.github.hold = asyncio.Event()
    body = json.dumps(CALL).encode()
    head = (
        f"POST /mcp HTTP/1.1\r\nHost: 127.0.0.1:{place.port}\r\nContent-Type: application/json\r\n"
        f"Accept: application/json, text/event-stream\r\nX-User-ID: alice\r\nMcp-Method: tools/call\r\n"
        f"MCP-Protocol-Version: {version}\r\nMcp-Name: {TOOL}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    await place.post({"jsonrpc": "2.0", "id": 1, "method": "ping"})  # what stays once it is used is there now
    before = len(asyncio.all_tasks())
    writers = []
    for _ in range(40):
        _, writer = await asyncio.open_connection("127.0.0.1", place.port)
        writer.write(head.encode() + body)
        writers.append(writer)
    while len(place.github.requests) < 40:
        place.github.came.clear()
        await place.github.came.wait()
    for writer in writers:
        writer.transport.abort()
    while len(calls := await place.records("tool.call")) < 40:
        await place.github.gone.wait()
    assert {call["outcome"] for call in calls} == {"cancelled"}
    assert place.mcp is not None
    while len(asyncio.all_tasks()) > before:  # noqa: ASYNC110 - nothing tells of it
        await asyncio.sleep(0)  # tasks that are ending have their turns
    assert not place.mcp._requests


# --- the adapter by itself, with an application of the test


Serve = Callable[[mcp_asgi.Application, float], Awaitable[int]]


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """Serves an ASGI application below the edge; the port."""
    runners = []

    async def starter(app: mcp_asgi.Application, patience: float = 30.0) -> int:
        async def handler(request: web.Request) -> web.StreamResponse:
            return await mcp_asgi.answer(
                app, request, await request.read(), state={}, decorate=lambda _: None, patience=patience
            )

        names = Names("http://127.0.0.1:8701")
        runner = Runner(application([web.post("/mcp", handler)], names=names), shutdown_timeout=1)
        runners.append(runner)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        return int(runner.addresses[0][1])

    yield starter
    for runner in runners:
        await runner.cleanup()


START = {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]}


def asked(port: int, **socket_options: int) -> socket.socket:
    sock = socket.socket()
    for name, value in socket_options.items():
        sock.setsockopt(socket.SOL_SOCKET, getattr(socket, name), value)
    sock.connect(("127.0.0.1", port))
    sock.settimeout(10)
    sock.sendall(
        f"POST /mcp HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Length: 2\r\n"
        "Authorization: Bearer apx_key\r\nX-Authproxy-Key: apx_key\r\nCookie: a=b\r\n\r\n{}".encode()
    )
    return sock


async def test_who_reads_nothing_is_let_go(serve: Serve) -> None:
    ended = asyncio.Event()

    async def app(_scope: Any, receive: Any, send: Any) -> None:
        assert (await receive())["body"] == b"{}"
        await send(START)
        for _ in range(200):
            await send({"type": "http.response.body", "body": b"x" * 65536, "more_body": True})
        assert (await receive())["type"] == "http.disconnect"
        ended.set()

    with asked(await serve(app, 0.1), SO_RCVBUF=4096):
        await asyncio.wait_for(ended.wait(), 10)


async def test_half_an_answer_looks_like_none(serve: Serve) -> None:
    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await send(START)
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        raise RuntimeError("broken")

    with asked(await serve(app, 30.0)) as sock:
        said = await asyncio.to_thread(read_all, sock)
    assert b"0\r\n\r\n" not in said
    assert b"internal" not in said


async def test_the_application_sees_no_credential_and_its_end_is_the_end(serve: Serve) -> None:
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope)
        await receive()
        await send(START)
        await send({"type": "http.response.body", "body": b"done"})
        assert (await receive())["type"] == "http.disconnect"
        await send({"type": "http.response.body", "body": b"too late"})

    with asked(await serve(app, 30.0)) as sock:
        said = await asyncio.to_thread(sock.recv, 65536)
        while b"0\r\n\r\n" not in said:
            said += await asyncio.to_thread(sock.recv, 65536)
        sock.shutdown(socket.SHUT_WR)
        said += await asyncio.to_thread(read_all, sock)
    assert b"done" in said
    assert b"too late" not in said
    assert b"X-Request-ID: " in said
    assert not any(b"apx_key" in value or name == b"cookie" for name, value in seen[0]["headers"])


def read_all(sock: socket.socket) -> bytes:
    said = b""
    try:
        while more := sock.recv(65536):
            said += more
    except ConnectionResetError:
        pass
    return said
