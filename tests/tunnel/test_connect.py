"""CONNECT: who may open a tunnel, what may be inside, and that nothing goes around the route's rules."""

from __future__ import annotations

import asyncio
import base64
import ssl
import subprocess
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest

from tests.kit.lanes import CONNECT, Lane, assert_closes, assert_problem
from tests.kit.raw import Gone, Message, Wire, reply
from tests.tunnel.conftest import Yard


def basic(user: str, password: str = "", scheme: str = "Basic") -> bytes:
    coded = base64.b64encode(f"{user}:{password}".encode()).decode()
    return f"Proxy-Authorization: {scheme} {coded}".encode()


def ask(host: str | bytes, *fields: bytes, path: bytes = b"/x", method: bytes = b"GET") -> bytes:
    """A request inside a tunnel."""
    name = host.encode() if isinstance(host, str) else host
    return b"\r\n".join([b"%s %s HTTP/1.1" % (method, path), b"Host: " + name, *fields]) + b"\r\n\r\n"


_open: list[Wire] = []


@pytest.fixture(autouse=True)
async def _closed() -> AsyncIterator[None]:
    """Whatever a case opened by `knock` and left is closed with it."""
    yield
    for wire in _open:
        await wire.close()
    _open.clear()


async def knock(yard: Yard, target: str, *fields: bytes, version: bytes = b"1.1") -> tuple[Wire, Message]:
    """A CONNECT and its answer."""
    wire = await Wire.dial(yard.proxy.listen)
    _open.append(wire)
    lines = [b"CONNECT %s HTTP/%s" % (target.encode(), version), b"Host: " + target.encode(), *fields]
    await wire.send(b"\r\n".join(lines) + b"\r\n\r\n")
    head = await wire.head()
    message = Message(head)
    if head.status != 200:
        message.body = await wire.exactly(int(head.one(b"content-length") or b"0"))
    return wire, message


@asynccontextmanager
async def tunnel(yard: Yard, lane: Lane, *fields: bytes, sni: str | None = None) -> AsyncIterator[Wire]:
    """A tunnel to the lane's host, with TLS in it."""
    wire, answer = await knock(yard, f"{lane.host}:443", *fields)
    assert answer.status == 200, answer
    await wire.secure(yard.trust, sni or lane.host)
    try:
        yield wire
    finally:
        await wire.close()


# --- who may ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fields",
    [
        (b"X-User-ID: alice",),
        (basic("alice"),),
        (basic("alice", "-"),),
        (basic("alice", scheme="basic"),),
        (basic("alice"), b"X-User-ID: alice"),
    ],
    ids=["header", "no-password", "placeholder", "lower-case", "twice"],
)
async def test_the_user_of_the_connect_holds_inside(yard: Yard, fields: tuple[bytes, ...]) -> None:
    lane = yard.lane(CONNECT)
    async with lane.upstream([reply(keep=True)]) as upstream, tunnel(yard, lane, *fields) as wire:
        for _ in range(3):
            await wire.send(ask(lane.host))
            assert (await wire.response()).status == 200
        await wire.send(ask(lane.host, b"X-User-ID: alice"))
        assert (await wire.response()).status == 200
        await wire.send(ask(lane.host, b"X-User-ID: bob"))
        assert_problem(await wire.response(), "user_not_allowed")
    assert len(upstream.requests) == 4
    for request in upstream.requests:
        assert request.head.one(b"authorization") == lane.bearer
        assert not {b"x-user-id", b"proxy-authorization", b"via", b"forwarded"} & set(request.head.names)


async def test_without_a_user_each_request_inside_names_its_own(yard: Yard) -> None:
    lane = yard.lane(CONNECT)
    async with lane.upstream([reply(keep=True)]) as upstream, tunnel(yard, lane) as wire:
        await wire.send(ask(lane.host))
        assert_problem(await wire.response(), "user_missing")
        await wire.send(ask(lane.host, b"X-User-ID: alice"))
        assert (await wire.response()).status == 200
    assert len(upstream.requests) == 1


async def again(wire: Wire, lane: Lane) -> Message:
    """One more request on this connection."""
    await wire.send(ask(lane.host))
    return await wire.response()


async def test_a_key_is_judged_before_tls_and_again_with_each_request(yard: Yard) -> None:
    lane = yard.lane(CONNECT)
    key, key_id = await asyncio.to_thread(yard.key, "tunneller", "alice", "bob")
    async with lane.upstream([reply(keep=True)]) as upstream:
        async with tunnel(yard, lane, basic("alice", key)) as wire:
            await wire.send(ask(lane.host))
            assert (await wire.response()).status == 200
            revoking = asyncio.create_task(asyncio.to_thread(yard.run, "agents", "revoke", key_id))
            deadline = time.monotonic() + 20
            while (
                answer := await again(wire, lane)
            ).status == 200:  # and never idle, however long that takes
                assert time.monotonic() < deadline
                await asyncio.sleep(0.02)  # the listener's table is read again within its leash
            assert_problem(answer, "caller_unknown")
            await revoking
        before = len(upstream.requests)
        wire, refused = await knock(yard, f"{lane.host}:443", basic("alice", key))
        assert refused.status == 407
        assert_problem(refused, "caller_unknown")
        assert refused.head.one(b"proxy-authenticate")
        await assert_closes(wire)
        assert len(upstream.requests) == before
    last = (await yard.records(1, method="CONNECT", code="caller_unknown"))[-1]
    assert (last["status"], last["via"], last["user"]) == (407, "connect", None)


@pytest.mark.parametrize(
    ("fields", "status", "code"),
    [
        ((basic("alice", "wrong"),), 407, "caller_unknown"),
        ((basic("alice", "apx_unknown"),), 407, "caller_unknown"),
        ((b"Proxy-Authorization: Digest x",), 407, "caller_unknown"),
        ((b"Proxy-Authorization: Basic ???",), 407, "caller_unknown"),
        ((basic("alice"), b"X-User-ID: bob"), 403, "user_not_allowed"),
        ((b"X-User-ID: alice", b"X-User-ID: alice"), 400, "user_missing"),
        ((b"X-User-ID: ",), 400, "user_missing"),
        ((b"Content-Length: 3",), 400, "bad_request"),
        ((b"Transfer-Encoding: chunked",), 400, "bad_request"),
    ],
)
async def test_who_may_not_hears_so_before_any_tls(
    yard: Yard, fields: tuple[bytes, ...], status: int, code: str
) -> None:
    lane = yard.lane(CONNECT)
    wire, answer = await knock(yard, f"{lane.host}:443", *fields)
    assert answer.status == status
    assert_problem(answer, code)
    assert answer.head.one(b"connection") == b"close"
    await assert_closes(wire)


async def test_a_key_inside_must_be_that_of_the_tunnel(yard: Yard) -> None:
    lane = yard.lane(CONNECT)
    mine, _ = await asyncio.to_thread(yard.key, "mine", "alice")
    other, _ = await asyncio.to_thread(yard.key, "other", "alice")
    async with lane.upstream([reply(keep=True)]) as upstream:
        async with tunnel(yard, lane, basic("alice", mine)) as wire:
            await wire.send(ask(lane.host, b"Authorization: Bearer " + mine.encode()))
            assert (await wire.response()).status == 200
            await wire.send(ask(lane.host, b"Authorization: Bearer sdk-dummy"))
            assert (await wire.response()).status == 200
            await wire.send(ask(lane.host, b"Authorization: Bearer " + other.encode()))
            assert_problem(await wire.response(), "caller_unknown")
        async with tunnel(yard, lane) as wire:  # a local peer without a key may show one inside
            await wire.send(ask(lane.host, b"Authorization: Bearer " + other.encode()))
            assert (await wire.response()).status == 200
    assert [one.head.one(b"authorization") for one in upstream.requests] == [lane.bearer] * 3
    agents = [one["agent"] for one in await yard.records(3, route=lane.name, status=200)]
    assert agents[-3:] == ["mine", "mine", "other"]


# --- where to -----------------------------------------------------------------------------------------------


@pytest.mark.scenario("G22")
@pytest.mark.parametrize(
    "target",
    [
        "nowhere.example:443",
        "api.wire.example.:443",
        "{host}.:443",
        "{host}.evil.example:443",
        "x{host}:443",
        "{host}:8443",
        "{host}:80",
        "127.0.0.1:{upstream}",
        "127.1:443",
        "2130706433:443",
        "0x7f000001:443",
        "[::1]:443",
        "[::ffff:127.0.0.1]:443",
        "169.254.169.254:80",
        "metadata.google.internal:443",
    ],
)
async def test_no_tunnel_leads_elsewhere(yard: Yard, target: str) -> None:
    lane = yard.lane(CONNECT)
    async with lane.upstream() as upstream:
        wire, answer = await knock(
            yard, target.format(host=lane.host, upstream=lane.port), b"X-User-ID: alice"
        )
        assert answer.status in (403, 502), answer
        assert_problem(answer, "no_route", "policy_denied", "egress_blocked")
        await assert_closes(wire)
        await lane.prove_untouched(upstream)


@pytest.mark.parametrize(
    "line",
    [
        b"CONNECT / HTTP/1.1",
        b"CONNECT {h} HTTP/1.1",
        b"CONNECT {h}:0 HTTP/1.1",
        b"CONNECT {h}:65536 HTTP/1.1",
        b"CONNECT {h}:443/x HTTP/1.1",
        b"CONNECT alice@{h}:443 HTTP/1.1",
        b"CONNECT https://{h}:443 HTTP/1.1",
        b"CONNECT {h}:443 HTTP/2.0",
        b"connect {h}:443 HTTP/1.1",
        b"CONNECT {h}:443, {h}:443 HTTP/1.1",
        b"CONNECT {h}:443#x HTTP/1.1",
    ],
)
async def test_what_is_no_authority_is_refused(yard: Yard, line: bytes) -> None:
    lane = yard.lane(CONNECT)
    async with lane.upstream() as upstream:
        wire = await Wire.dial(yard.proxy.listen)
        await wire.send(line.replace(b"{h}", lane.host.encode()) + b"\r\nHost: x\r\nX-User-ID: alice\r\n\r\n")
        answer = await wire.response()
        assert answer.status in (400, 404, 405, 505), answer
        assert_problem(answer)
        await wire.close()
        await lane.prove_untouched(upstream)


@pytest.mark.scenario("G23")
async def test_no_tunnel_leads_back_into_authproxy(yard: Yard) -> None:
    for port in (yard.proxy.listen, yard.proxy.control, yard.ports["single"], yard.ports["secure"]):
        for host in ("127.0.0.1", "localhost", "[::1]"):
            wire, answer = await knock(yard, f"{host}:{port}", b"X-User-ID: alice")
            assert answer.status in (403, 502)
            assert_problem(answer, "policy_denied", "egress_blocked")
            await wire.close()


async def test_the_host_of_the_connect_is_its_target_or_the_proxy(yard: Yard) -> None:
    lane = yard.lane(CONNECT)
    target = b"CONNECT %s:443 HTTP/1.1\r\nX-User-ID: alice\r\nHost: " % lane.host.encode()
    for host, status in (
        (lane.host.encode(), 200),
        (lane.host.upper().encode() + b":443", 200),
        (b"127.0.0.1:%d" % yard.proxy.listen, 200),  # what Node's http.request says
        (b"other.wire.example:443", 400),
        (lane.host.encode() + b":444", 400),
        (b"", 400),
    ):
        wire = await Wire.dial(yard.proxy.listen)
        await wire.send(target + host + b"\r\n\r\n")
        assert (await wire.head()).status == status, host
        await wire.close()


async def test_http_1_0_may_connect_without_a_host(yard: Yard) -> None:
    lane = yard.lane(CONNECT)
    async with lane.upstream(), await Wire.dial(yard.proxy.listen) as wire:
        await wire.send(b"CONNECT %s:443 HTTP/1.0\r\n%s\r\n\r\n" % (lane.host.encode(), basic("alice", "-")))
        assert (await wire.head()).status == 200
        await wire.secure(yard.trust, lane.host)
        await wire.send(ask(lane.host))
        assert (await wire.response()).status == 200


# --- what may be inside -------------------------------------------------------------------------------------


@pytest.mark.scenario("G22")
async def test_the_name_asked_for_in_tls_must_be_the_tunnels(yard: Yard) -> None:
    lane, other = yard.lane(CONNECT), yard.lane(CONNECT)
    trusting = ssl.create_default_context(cadata=(await asyncio.to_thread(yard.run, "ca", "show")).stdout)
    trusting.check_hostname = False
    async with lane.upstream() as upstream, other.upstream() as others:
        for name in (other.host, "nowhere.example", "wire.example", f"x.{lane.host}", f"{lane.host}."):
            wire, answer = await knock(yard, f"{lane.host}:443", b"X-User-ID: alice")
            assert answer.status == 200
            if not name.endswith("."):
                with pytest.raises(ssl.SSLCertVerificationError):
                    await wire.secure(yard.trust, name)  # the leaf is the tunnel's host's
                wire, answer = await knock(yard, f"{lane.host}:443", b"X-User-ID: alice")
            await wire.secure(trusting, name)
            for host in (lane.host, name):
                await wire.send(ask(host))
                answer = await wire.response()
                assert answer.status in (400, 421)
                assert_problem(answer, "bad_request")
                break
        await lane.prove_untouched(upstream)
        await other.prove_untouched(others)


async def test_no_name_in_tls_is_no_name_that_differs(yard: Yard) -> None:
    """Clients that were given an address send none; Host then says what they mean."""
    lane = yard.lane(CONNECT)
    context = ssl.create_default_context(cadata=None)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    async with lane.upstream() as upstream:
        wire, _ = await knock(yard, f"{lane.host}:443", b"X-User-ID: alice")
        await wire.secure(context, None)
        await wire.send(ask(lane.host))
        assert (await wire.response()).status == 200
        await wire.close()
    assert len(upstream.requests) == 1


@pytest.mark.scenario("G22")
@pytest.mark.parametrize(
    "head",
    [
        b"GET /x HTTP/1.1\r\nHost: {other}\r\n",
        b"GET /x HTTP/1.1\r\nHost: {other}:443\r\n",
        b"GET /x HTTP/1.1\r\nHost: {mine}:8443\r\n",
        b"GET /x HTTP/1.1\r\nHost: {mine}.\r\n",
        b"GET /x HTTP/1.1\r\nHost: 127.0.0.1\r\n",
        b"GET /x HTTP/1.1\r\nHost: x@{mine}\r\n",
        b"GET /x HTTP/1.1\r\nHost: {mine}, {other}\r\n",
        b"GET /x HTTP/1.1\r\nHost: {mine}\r\nHost: {other}\r\n",
        b"GET /x HTTP/1.1\r\nHost: {mine}\r\nHost: {mine}\r\n",
        b"GET /x HTTP/1.1\r\nHost: \r\n",
        b"GET /x HTTP/1.1\r\n",
        b"GET https://{other}/x HTTP/1.1\r\nHost: {other}\r\n",
        b"GET https://{other}/x HTTP/1.1\r\nHost: {mine}\r\n",
        b"GET https://{mine}/x HTTP/1.1\r\nHost: {other}\r\n",
        b"GET http://{mine}/x HTTP/1.1\r\nHost: {mine}\r\n",
        b"GET https://{mine}:444/x HTTP/1.1\r\nHost: {mine}\r\n",
        b"GET http://127.0.0.1:{port}/x HTTP/1.1\r\nHost: {mine}\r\n",
        b"CONNECT {mine}:443 HTTP/1.1\r\nHost: {mine}\r\n",
        b"CONNECT {other}:443 HTTP/1.1\r\nHost: {other}:443\r\n",
        b"OPTIONS * HTTP/1.1\r\nHost: {mine}\r\n",
        b"TRACE /x HTTP/1.1\r\nHost: {mine}\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n",
    ],
)
async def test_a_request_that_names_another_host_goes_nowhere(yard: Yard, head: bytes) -> None:
    lane, other = yard.lane(CONNECT), yard.lane(CONNECT)
    filled = (
        head.replace(b"{mine}", lane.host.encode())
        .replace(b"{other}", other.host.encode())
        .replace(b"{port}", b"%d" % yard.proxy.listen)
    )
    async with lane.upstream() as upstream, other.upstream() as others:
        async with tunnel(yard, lane, b"X-User-ID: alice") as wire:
            await wire.send(filled + b"\r\n")
            answer = await wire.response()
            assert answer.status in (400, 404, 405, 421, 505), answer
            assert_problem(answer)
        await lane.prove_untouched(upstream)
        await other.prove_untouched(others)


async def test_the_tunnels_own_host_may_be_spelt_in_its_ways(yard: Yard) -> None:
    lane = yard.lane(CONNECT)
    async with lane.upstream([reply(keep=True)]) as upstream, tunnel(yard, lane, b"X-User-ID: alice") as wire:
        for head in (
            b"GET /x HTTP/1.1\r\nHost: {mine}\r\n",
            b"GET /x HTTP/1.1\r\nHost: {mine}:443\r\n",
            b"GET /x HTTP/1.1\r\nHost: {MINE}\r\n",
            b"GET https://{mine}/x HTTP/1.1\r\nHost: {mine}\r\n",
            b"GET https://{mine}:443/x HTTP/1.1\r\nHost: {mine}\r\n",
        ):
            await wire.send(
                head.replace(b"{mine}", lane.host.encode()).replace(b"{MINE}", lane.host.upper().encode())
                + b"\r\n"
            )
            assert (await wire.response()).status == 200, head
    assert {one.head.target for one in upstream.requests} == {b"/x"}
    assert {one.head.one(b"host") for one in upstream.requests} == {b"127.0.0.1:%d" % lane.port}


# --- TLS itself ---------------------------------------------------------------------------------------------


async def test_bytes_that_come_with_the_connect_are_kept(yard: Yard) -> None:
    """Some clients do not wait for the 200; and a request may come with the last bytes of the handshake."""
    lane = yard.lane(CONNECT)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = yard.trust.wrap_bio(incoming, outgoing, server_hostname=lane.host)
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    async with lane.upstream() as upstream, await Wire.dial(yard.proxy.listen) as wire:
        head = b"CONNECT %s:443 HTTP/1.1\r\nHost: %s:443\r\nX-User-ID: alice\r\n\r\n"
        await wire.send(head % ((lane.host.encode(),) * 2) + outgoing.read())
        assert (await wire.head()).status == 200
        while True:
            incoming.write(await wire.some())
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                continue
        tls.write(ask(lane.host))
        await wire.send(outgoing.read())  # Finished and the request, in one segment
        seen = b""
        while b"\r\n\r\nok" not in seen:
            incoming.write(await wire.some())
            try:
                seen += tls.read(65536)
            except ssl.SSLWantReadError:
                continue
        assert seen.startswith(b"HTTP/1.1 200 OK")
    assert len(upstream.requests) == 1


async def test_the_handshake_has_its_time(yard: Yard) -> None:
    lane = yard.lane(CONNECT)
    for sent in (b"", b"\x16\x03\x01", b"\x16\x03\x01\x02\x00\x01"):
        wire, answer = await knock(yard, f"{lane.host}:443", b"X-User-ID: alice")
        assert answer.status == 200
        await wire.send(sent)
        assert await wire.rest() == b""  # within the time for a head
        await wire.close()


@pytest.mark.parametrize(
    "sent",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x00" * 64,
        b"SSH-2.0-x\r\n",
        b"\x16\x03\x01\xff\xff" + b"a" * 70000,
    ],
    ids=["http", "zeros", "ssh", "long"],
)
async def test_what_is_no_tls_ends_the_tunnel(yard: Yard, sent: bytes) -> None:
    lane = yard.lane(CONNECT)
    async with lane.upstream() as upstream:
        wire, _ = await knock(yard, f"{lane.host}:443", b"X-User-ID: alice")
        with suppress(ConnectionError):
            await wire.send(sent)
        assert b"HTTP" not in await wire.rest()
        await wire.close()
        await lane.prove_untouched(upstream)


async def test_only_http_1_1_is_agreed_upon(yard: Yard) -> None:
    lane = yard.lane(CONNECT)
    context = ssl.create_default_context(cadata=(await asyncio.to_thread(yard.run, "ca", "show")).stdout)
    context.set_alpn_protocols(["h2", "http/1.1"])
    wire, _ = await knock(yard, f"{lane.host}:443", b"X-User-ID: alice")
    await wire.secure(context, lane.host)
    session = wire.writer.get_extra_info("ssl_object")
    assert session.selected_alpn_protocol() == "http/1.1"
    assert session.version() == "TLSv1.3"
    await wire.close()


@pytest.mark.parametrize("version", ["TLSv1", "TLSv1_1"])
async def test_old_tls_is_refused(yard: Yard, version: str) -> None:
    lane = yard.lane(CONNECT)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_ciphers("ALL:@SECLEVEL=0")
    # deprecated on purpose: this is what must not work
    with pytest.warns(DeprecationWarning, match="TLS"):
        context.minimum_version = context.maximum_version = getattr(ssl.TLSVersion, version)
    wire, _ = await knock(yard, f"{lane.host}:443", b"X-User-ID: alice")
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await wire.secure(context, lane.host)


async def test_a_client_that_does_not_trust_us_is_told_to_the_operator(yard: Yard) -> None:
    lane = yard.lane(CONNECT)
    proxy = f"http://alice@127.0.0.1:{yard.proxy.listen}"
    curl = ["curl", "-sS", "--proxy", proxy, f"https://{lane.host}/x"]
    done = await asyncio.to_thread(
        subprocess.run, curl, capture_output=True, text=True, timeout=20, check=False
    )
    assert done.returncode == 60, done  # the peer's certificate cannot be verified
    assert await yard.records(1, host=lane.host, code="handshake_failed")
    failed = [line for line in yard.proxy.words().splitlines() if "tunnel.handshake_failed" in line]
    assert any(lane.host in line and "unknown_ca" in line for line in failed), failed


# --- what is told of it -------------------------------------------------------------------------------------


async def test_the_connect_and_each_request_inside_leave_one_record(yard: Yard) -> None:
    lane = yard.lane(CONNECT)
    before = len(await yard.records(0, host=lane.host))
    async with lane.upstream([reply(body=b"12345", keep=True)]):
        async with tunnel(yard, lane, b"X-User-ID: alice") as wire:
            for _ in range(3):
                await wire.send(ask(lane.host, path=b"/x?q=CANARY-query"))
                await wire.response()
        inner = await yard.records(3, route=lane.name, via="connect", path="/x")
    assert [(one["status"], one["user"], one["path"], one["bytes_out"]) for one in inner[-3:]] == [
        (200, "alice", "/x", 5)
    ] * 3
    outer = (await yard.records(before + 1, host=lane.host, method="CONNECT"))[-1]
    assert (outer["status"], outer["code"], outer["user"], outer["route"]) == (200, None, "alice", None)
    assert len({one["request_id"] for one in [*inner[-3:], outer]}) == 4


async def test_tunnels_leave_nothing_behind(yard: Yard) -> None:
    lane = yard.lane(CONNECT)
    async with lane.upstream([reply(keep=True)]):
        async with tunnel(yard, lane, b"X-User-ID: alice") as wire:
            await wire.send(ask(lane.host))
            await wire.response()
        before = yard.proxy.descriptors()
        for n in range(60):
            wire, _ = await knock(yard, f"{lane.host}:443", b"X-User-ID: alice")
            if n % 3:
                await wire.secure(yard.trust, lane.host)
            if n % 3 == 2:
                await wire.send(ask(lane.host))
                await wire.response()
            if n % 2:
                wire.reset()
            else:
                await wire.close()
        for _ in range(200):
            if yard.proxy.descriptors() <= before:
                break
            await asyncio.sleep(0.02)  # sockets are closed by another process
        assert yard.proxy.descriptors() <= before
    words = yard.proxy.words()
    assert "Traceback" not in words, words[words.index("Traceback") - 800 :][:3000]
    assert "internal" not in {one["code"] for one in await yard.records(0)}


async def test_a_tunnel_half_spoken_ends_with_its_client(yard: Yard) -> None:
    lane = yard.lane(CONNECT)
    wire, _ = await knock(yard, f"{lane.host}:443", b"X-User-ID: alice")
    await wire.secure(yard.trust, lane.host)
    await wire.send(b"GET /x HTTP/1.1\r\nHo")
    with pytest.raises(Gone):
        await wire.head()  # a head that trickles in has its time here as well
