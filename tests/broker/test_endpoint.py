"""What is certain after a token call went wrong: tested with raw sockets on the other side."""

from __future__ import annotations

import asyncio
import gzip
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from authproxy.broker.endpoint import BODY_LIMIT, Endpoint, MaybeSent, NeverSent, Reply
from authproxy.core.oauth import TokenRequest
from authproxy.egress import EgressGuard, GuardedResolver

Play = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
JSON = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


class Peer:
    """A scripted origin; counts whole requests."""

    def __init__(self, play: Play) -> None:
        self.play = play
        self.requests: list[bytes] = []
        self.connections = 0
        self.url = ""
        self.arrived = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            length = next(
                (
                    int(line.split(b":")[1])
                    for line in head.split(b"\r\n")
                    if line.lower().startswith(b"content-length")
                ),
                0,
            )
            self.requests.append(head + await reader.readexactly(length))
            self.arrived.set()
            await self.play(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def peer(play: Play) -> AsyncIterator[Peer]:
    it = Peer(play)
    server = await asyncio.start_server(it.serve, "127.0.0.1", 0)
    it.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/token"
    try:
        yield it
    finally:
        server.close()
        await server.wait_closed()


def says(*parts: bytes) -> Play:
    async def play(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"".join(parts))
        await writer.drain()

    return play


async def resets(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def closes(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.close()


async def stalls(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    await reader.read()


def drips(head: bytes) -> Play:
    async def play(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(head)
        while not writer.is_closing():
            writer.write(b" ")
            await writer.drain()
            await asyncio.sleep(0.02)  # it is the dripping that is played

    return play


def request(url: str) -> TokenRequest:
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    return TokenRequest(url, form, b"grant_type=refresh_token&refresh_token=CANARY-rt")


async def send(url: str, endpoint: Endpoint | None = None) -> Reply:
    endpoint = endpoint or Endpoint(deadline=0.4)
    try:
        return await endpoint.send(request(url))
    finally:
        await endpoint.close()


@pytest.mark.scenario("A10", "A11", "B21")
@pytest.mark.parametrize(
    ("play", "reason"),
    [
        (resets, "disconnected"),
        (closes, "disconnected"),
        (stalls, "timeout"),
        (drips(b"HTTP/1.1 200 OK\r\nX: "), "timeout"),
        (drips(JSON + b"Content-Length: 9999\r\n\r\n{"), "timeout"),
        (says(JSON, b"Content-Length: 50\r\n\r\n{"), "cut_short"),
        (says(JSON, b"Transfer-Encoding: chunked\r\n\r\n5\r\n{"), "cut_short"),
        (says(b"SSH-2.0-OpenSSH_9.2\r\n\r\n"), "not_http"),
    ],
    ids=["reset", "closed", "stall", "drip-head", "drip-body", "short-body", "short-chunk", "not-http"],
)
async def test_once_the_connection_stood_it_may_have_been_sent(play: Play, reason: str) -> None:
    async with peer(play) as it:
        with pytest.raises(MaybeSent) as caught:
            await asyncio.wait_for(send(it.url), 5)
        assert caught.value.reason == reason
        assert (len(it.requests), it.connections) == (1, 1), "a token call is never repeated"
        assert "CANARY" not in repr(caught.value)
        assert caught.value.__cause__ is None


@pytest.mark.scenario("A10")
async def test_what_never_connected_was_never_sent() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, but nobody listens
        with pytest.raises(NeverSent, match="connect"):
            await send(f"http://127.0.0.1:{taken.getsockname()[1]}/token")


@pytest.mark.scenario("A10")
async def test_a_name_that_does_not_resolve_was_never_sent() -> None:
    with pytest.raises(NeverSent, match="dns"):
        await asyncio.wait_for(send("http://nowhere.invalid/token", Endpoint(deadline=10)), 15)


@pytest.mark.scenario("A10")
async def test_a_failed_handshake_was_never_sent() -> None:
    async with peer(says(b"")) as it:
        with pytest.raises(NeverSent, match=r"tls|connect|timeout"):
            await send(it.url.replace("http:", "https:"))
        assert it.requests == []


@pytest.mark.scenario("A10")
async def test_a_connect_that_takes_too_long_was_never_sent() -> None:
    # A listener whose backlog is full and who never accepts.
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        address = listener.getsockname()
        fillers = [socket.socket() for _ in range(8)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(address)
        try:
            with pytest.raises((NeverSent, MaybeSent)) as caught:
                await send(f"https://127.0.0.1:{address[1]}/token")
            assert isinstance(caught.value, NeverSent)
        finally:
            for filler in fillers:
                filler.close()


@pytest.mark.scenario("A10")
async def test_a_refused_address_was_never_sent() -> None:
    guard = EgressGuard(())
    async with peer(says(JSON, b"\r\n{}")) as it:
        endpoint = Endpoint(resolver=GuardedResolver(guard), check=guard.check, deadline=2)
        with pytest.raises(NeverSent, match="egress_blocked"):
            await send(it.url, endpoint)
        endpoint = Endpoint(resolver=GuardedResolver(guard), check=guard.check, deadline=2)
        with pytest.raises(NeverSent, match="egress_blocked"):
            await send(it.url.replace("127.0.0.1", "localhost"), endpoint)
        assert it.connections == 0


@pytest.mark.scenario("A10")
async def test_an_unverified_certificate_was_never_sent() -> None:
    endpoint = Endpoint(tls=ssl.create_default_context(), deadline=2)
    async with peer(says(b"\x15\x03\x03\x00\x02\x02\x28")) as it:
        with pytest.raises(NeverSent):
            await send(it.url.replace("http:", "https:"), endpoint)


async def test_cancelled_is_left_to_the_caller() -> None:
    async with peer(stalls) as it:
        task = asyncio.create_task(send(it.url, Endpoint(deadline=30)))
        await it.arrived.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


@pytest.mark.scenario("A11", "B07")
async def test_redirects_are_not_followed_and_cookies_not_kept() -> None:
    redirect = b"HTTP/1.1 307 Temporary Redirect\r\nSet-Cookie: a=b\r\nContent-Length: 0\r\nLocation: "
    async with (
        peer(says(JSON, b"Content-Length: 2\r\n\r\n{}")) as other,
        peer(says(redirect, other.url.encode(), b"\r\n\r\n")) as it,
    ):
        endpoint = Endpoint(deadline=2)
        url = it.url.replace("127.0.0.1", "localhost")  # cookies of bare addresses are not kept anyway
        assert (await endpoint.send(request(url))).status == 307
        assert (await endpoint.send(request(url))).status == 307
        await endpoint.close()
        assert other.connections == 0
        assert it.connections == 2, "a connection serves one call"
        assert b"cookie" not in it.requests[1].lower()


@pytest.mark.scenario("B07", "B10", "B21")
@pytest.mark.parametrize(
    ("play", "body"),
    [
        (says(b"HTTP/1.1 503 No\r\nRetry-After: 7\r\nContent-Length: 99\r\n\r\nshort"), b""),
        (drips(b"HTTP/1.1 503 No\r\nRetry-After: 7\r\nContent-Length: 9999\r\n\r\n"), b""),
        (says(b"HTTP/1.1 503 No\r\nRetry-After: 7\r\nContent-Length: 300000\r\n\r\n", b"x" * 300000), b""),
        (says(b"HTTP/1.1 503 No\r\nRetry-After: 7\r\nContent-Length: 2\r\n\r\nno"), b"no"),
    ],
    ids=["cut", "drip", "huge", "whole"],
)
async def test_a_refusals_status_stands_whatever_becomes_of_its_body(play: Play, body: bytes) -> None:
    async with peer(play) as it:
        reply = await asyncio.wait_for(send(it.url), 5)
    assert (reply.status, reply.retry_after, reply.body) == (503, "7", body)


@pytest.mark.scenario("B07", "B21")
async def test_answers_are_capped_also_when_compressed() -> None:
    bomb = gzip.compress(b" " * (BODY_LIMIT * 40))
    head = JSON + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n"
    small = gzip.compress(b"{}")
    async with peer(says(head % len(bomb), bomb)) as it:
        assert (await send(it.url)).body == b""
    async with peer(says(head % len(small), small)) as it:
        assert (await send(it.url)).body == b"{}"
    async with peer(says(head % 9, b"not gzip!")) as it:
        assert (await send(it.url)).body == b""


async def test_the_environments_proxy_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    async with peer(says(JSON, b"Content-Length: 2\r\n\r\n{}")) as it:
        assert (await send(it.url)).status == 200


async def test_a_reply_does_not_show_its_body() -> None:
    async with peer(
        says(JSON, b"Date: Sun, 06 Nov 1994 08:49:37 GMT\r\nContent-Length: 10\r\n\r\nCANARY-abc")
    ) as it:
        reply = await send(it.url)
    assert reply.date == 784111777
    assert "CANARY" not in repr(reply)


@pytest.mark.scenario("A11")
async def test_what_is_written_is_told() -> None:
    told = asyncio.Event()

    async def sent() -> None:
        told.set()

    async with peer(says(JSON, b"Content-Length: 2\r\n\r\n{}")) as it:
        endpoint = Endpoint(deadline=2)
        await endpoint.send(request(it.url), sent=sent)
        await endpoint.close()
        assert told.is_set()
        assert it.requests[0].endswith(b"refresh_token=CANARY-rt")
