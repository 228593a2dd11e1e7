"""Tunnels to hosts that no route names: refused, or passed on byte for byte, counted, and without any credential."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from tests.kit.lanes import assert_problem
from tests.kit.process import LOOPBACK, Proxy
from tests.kit.raw import Upstream, Wire
from tests.tunnel.conftest import Yard
from tests.tunnel.test_connect import basic


class Passed:
    """What the agent has of a tunnel."""

    def __init__(self, wire: Wire, request_id: bytes) -> None:
        self.wire, self.request_id = wire, request_id.decode()


@contextlib.asynccontextmanager
async def passed(
    yard: Yard, sock: socket.socket, then: Callable[[Wire], Awaitable[None]], early: bytes = b""
) -> AsyncIterator[Passed]:
    """A tunnel to a host of nobody's, which does as told."""

    async def script(_upstream: Upstream, wire: Wire) -> None:
        await then(wire)

    async with Upstream(sock, script), await Wire.dial(yard.proxy.listen) as wire:
        target = b"127.0.0.1:%d" % yard.ports["blind"]
        await wire.send(
            b"CONNECT %s HTTP/1.1\r\nHost: %s\r\nX-User-ID: alice\r\n\r\n" % (target, target) + early
        )
        answer = await wire.head()
        assert answer.status == 200, answer.raw
        assert not {b"content-length", b"transfer-encoding"} & set(answer.names)
        yield Passed(wire, answer.one(b"x-request-id") or b"")


async def told(yard: Yard, tunnel: Passed) -> dict[str, Any]:
    """The one record of it."""
    (record,) = await yard.records(1, request_id=tunnel.request_id)
    assert (record["kind"], record["method"], record["host"]) == ("request", "CONNECT", "127.0.0.1")
    return record


async def test_bytes_pass_both_ways_and_are_counted(yard: Yard, blind_port: socket.socket) -> None:
    up, down = os.urandom(2_000_000), os.urandom(3_000_000)
    heard: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def then(wire: Wire) -> None:
        heard.set_result(await wire.exactly(len(up)))
        await wire.send(down)

    async with passed(yard, blind_port, then, early=up[:1000]) as tunnel:
        wire = tunnel.wire
        sending = asyncio.create_task(wire.send(up[1000:]))
        assert await asyncio.wait_for(heard, 10) == up
        await sending
        assert await wire.rest() == down
    record = await told(yard, tunnel)
    assert (record["bytes_in"], record["bytes_out"]) == (len(up), len(down))
    assert (record["status"], record["code"], record["via"], record["user"]) == (
        200,
        None,
        "connect",
        "alice",
    )
    assert (record["route"], record["provider"], record["attempts"]) == (None, None, 0)


async def test_a_half_close_is_kept(yard: Yard, blind_port: socket.socket) -> None:
    async def then(wire: Wire) -> None:
        said = await wire.rest()
        await wire.send(b"you said " + said)

    async with passed(yard, blind_port, then) as tunnel:
        wire = tunnel.wire
        await wire.send(b"all")
        wire.half_close()
        assert await wire.rest() == b"you said all"


async def test_a_half_close_of_the_other_side_is_kept(yard: Yard, blind_port: socket.socket) -> None:
    heard: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def then(wire: Wire) -> None:
        await wire.send(b"that is all")
        wire.half_close()
        heard.set_result(await wire.rest())

    async with passed(yard, blind_port, then) as tunnel:
        wire = tunnel.wire
        assert await wire.rest() == b"that is all"
        await wire.send(b"but I go on")
        wire.half_close()
        assert await asyncio.wait_for(heard, 5) == b"but I go on"


@pytest.mark.parametrize("who", ["agent", "host"])
async def test_a_reset_is_a_reset(yard: Yard, blind_port: socket.socket, who: str) -> None:
    heard: asyncio.Future[BaseException | None] = asyncio.get_running_loop().create_future()

    async def then(wire: Wire) -> None:
        await wire.exactly(4)
        if who == "host":
            wire.reset()
            return
        try:
            await asyncio.wait_for(wire.reader.readexactly(1), 5)
        except (ConnectionError, asyncio.IncompleteReadError) as error:
            heard.set_result(error)

    async with passed(yard, blind_port, then) as tunnel:
        wire = tunnel.wire
        await wire.send(b"ping")
        await asyncio.sleep(0.05)  # so that the reset does not overtake it
        if who == "agent":
            wire.reset()
            assert isinstance(await asyncio.wait_for(heard, 5), ConnectionResetError)
        else:
            with pytest.raises(ConnectionResetError):
                await asyncio.wait_for(wire.reader.readexactly(1), 5)
    code = (await told(yard, tunnel))["code"]
    assert code == ("client_closed" if who == "agent" else "upstream_unreachable")


async def test_silence_ends_it(yard: Yard, blind_port: socket.socket) -> None:

    async def then(wire: Wire) -> None:
        await wire.rest()

    async with passed(yard, blind_port, then) as tunnel:
        wire = tunnel.wire
        for _ in range(3):
            await asyncio.sleep(0.6)  # tunnel.idle is 1 s; together this is more
            await wire.send(b"x")
        started = time.monotonic()
        assert await wire.rest() == b""
        assert 0.5 < time.monotonic() - started < 4
    assert (await told(yard, tunnel))["code"] == "upstream_timeout"


async def test_the_guard_and_the_ports_hold(yard: Yard) -> None:
    port = yard.ports["blind"]
    for target, code in (
        (f"127.0.0.1:{port + 1 if port < 65535 else port - 1}", "policy_denied"),
        (f"169.254.169.254:{port}", "egress_blocked"),
        (f"10.0.0.1:{port}", "egress_blocked"),
        (f"metadata.google.internal:{port}", "egress_blocked"),
        (f"127.1:{port}", "no_route"),
    ):
        async with await Wire.dial(yard.proxy.listen) as wire:
            await wire.send(
                f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\nX-User-ID: alice\r\n\r\n".encode()
            )
            answer = await wire.response()
            assert_problem(answer, code)


async def test_a_host_that_does_not_answer_is_said_so(yard: Yard) -> None:
    """Where nobody listens the refusal comes before any 200."""
    target = f"127.0.0.9:{yard.ports['blind']}"
    async with await Wire.dial(yard.proxy.listen) as wire:
        await wire.send(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode())
        answer = await wire.response()
        assert answer.status == 502
        assert_problem(answer, "upstream_unreachable")


async def test_who_may_not_may_not_here_either(yard: Yard) -> None:
    target = f"127.0.0.1:{yard.ports['blind']}".encode()
    async with await Wire.dial(yard.proxy.listen) as wire:
        await wire.send(
            b"CONNECT %s HTTP/1.1\r\nHost: %s\r\n%s\r\n\r\n" % (target, target, basic("alice", "apx_no"))
        )
        assert_problem(await wire.response(), "caller_unknown")


async def test_a_routed_host_is_never_passed_on_unseen(yard: Yard, blind_port: socket.socket) -> None:
    """Even where hosts without a route are: the answer to its CONNECT speaks TLS itself."""
    lane = yard.lane()
    async with lane.upstream() as upstream, await Wire.dial(yard.proxy.listen) as wire:
        await wire.send(f"CONNECT {lane.host}:443 HTTP/1.1\r\nHost: {lane.host}:443\r\n\r\n".encode())
        assert (await wire.head()).status == 200
        await wire.send(b"GET /x HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"HTTP" not in await wire.rest()
    assert not upstream.requests


async def test_by_default_hosts_without_a_route_are_refused(
    tmp_path_factory: pytest.TempPathFactory, blind_port: socket.socket
) -> None:
    port = blind_port.getsockname()[1]
    config = {"identity": {"callers": [LOOPBACK]}, "egress": {"allow": ["127.0.0.0/8"]}}
    proxy = Proxy(tmp_path_factory.mktemp("closed"), config)
    await asyncio.to_thread(proxy.start)
    try:
        for target in (f"127.0.0.1:{port}", "example.com:443"):
            async with await Wire.dial(proxy.listen) as wire:
                await wire.send(
                    f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\nX-User-ID: a\r\n\r\n".encode()
                )
                answer = await wire.response()
                assert answer.status == 403
                assert_problem(answer, "no_route")
    finally:
        assert await asyncio.to_thread(proxy.stop) == 0


async def test_a_stop_ends_tunnels_when_all_else_has_drained(
    tmp_path_factory: pytest.TempPathFactory, blind_port: socket.socket
) -> None:
    port = blind_port.getsockname()[1]
    config = {
        "identity": {"callers": [LOOPBACK]},
        "egress": {"allow": ["127.0.0.0/8"]},
        "tunnel": {"unrouted": "pass", "ports": [port], "idle": 0},
        "timeouts": {"shutdown": 20},
    }
    proxy = Proxy(tmp_path_factory.mktemp("stopped"), config)

    async def script(_upstream: Upstream, wire: Wire) -> None:
        await wire.send(b"hello")
        await wire.rest()

    async with Upstream(blind_port, script):
        await asyncio.to_thread(proxy.start)
        async with await Wire.dial(proxy.listen) as wire:
            await wire.send(b"CONNECT 127.0.0.1:%d HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n\r\n" % (port, port))
            assert (await wire.head()).status == 200
            assert await wire.exactly(5) == b"hello"
            started = time.monotonic()
            assert await asyncio.to_thread(proxy.stop) == 0
            assert time.monotonic() - started < 5, "nobody waits for a tunnel that nobody uses"
            assert await wire.rest() == b""
    assert "Traceback" not in proxy.words()
