"""A user is disabled on one replica, and within the leash the other one, a process of its own, has nothing left for
them: requests, streams, sockets, tunnels, sessions, tools and consents."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from authproxy.store.sealing import generate_key
from tests.kit.browser import Browser, forms
from tests.kit.lanes import BASE, CONNECT, MODES, TIMEOUTS, Lane, assert_problem, host_of
from tests.kit.postgres import Postgres
from tests.kit.process import LOOPBACK, Proxy, Seeded, listener
from tests.kit.provider import Provider
from tests.kit.raw import Upstream, Wire
from tests.limits.conftest import streaming
from tests.tunnel.test_websocket import HANDSHAKE, accepting, echo

LEASH = 0.6
SLACK = 1.0  # seconds for a busy machine
LANES = 60
KEYED = {"kind": "api_key", "may_act_for": ["*"]}


class Pair:
    """Two replicas on one store: `here` is told, and `there` is asked."""

    def __init__(self, directory: Path, store: str | None, blind: socket.socket) -> None:
        self.provider = Provider()
        self.blind = blind
        self.socks = {f"l{number}": listener() for number in range(LANES)}
        port = blind.getsockname()[1]
        routes = {name: self._route(name, sock) for name, sock in self.socks.items()}
        routes["github"] = {**routes["l0"], "prefix": "/github", "hosts": []}
        config = {
            "providers": {"kit": self.provider.choice()},
            "routes": routes,
            "identity": {"callers": [KEYED, LOOPBACK]},
            "timeouts": {**TIMEOUTS, "idle": 20, "first_byte": 10, "keepalive": 20},
            "tunnel": {"unrouted": "pass", "ports": [port], "idle": 20},
            "refresh": {"forced_interval": 0, "leash": LEASH, "background": False},
            "egress": {"allow": ["127.0.0.0/8"]},
        }
        env = {"AUTHPROXY_KEYS": generate_key()}
        self.here, self.there = (Proxy(directory / name, config, env) for name in ("here", "there"))
        self.here.store_url = store or self.here.store_url
        self.there.store_url = self.here.store_url
        self._free = iter(self.socks.items())

    def _route(self, name: str, sock: socket.socket) -> dict[str, Any]:
        return {
            "prefix": f"/{name}",
            "upstream": f"http://127.0.0.1:{sock.getsockname()[1]}",
            "provider": "kit",
            "scopes": ["read"],
            "hosts": [host_of(name)],
        }

    def connect(self, *users: str) -> list[Any]:
        """Their grants at the provider."""
        seeded = Seeded(self.here, self.provider)
        return [seeded.user(user)[1] for user in users]

    def lane(self, user_grant: Any = None, mode: str = BASE) -> Lane:
        """A route of its own, on the other replica."""
        name, sock = next(self._free)
        lane = Lane(Seeded(self.there, self.provider), name, sock, user_grant)
        lane.mode = mode
        return lane

    def command(self, *words: str, code: int = 0) -> Any:
        """A command on their store, and what it says for machines."""
        where = ("--config", str(self.here.file), "--store", self.here.store_url)
        done = self.here.run(*words, *where)
        assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
        return done

    def session(self, user: str) -> str:
        status, made = self.there.ask("POST", "/v1/sessions", {"user_id": user})
        assert status == 200, made
        return str(made["key"])

    def close(self) -> None:
        for one in (self.here, self.there):
            if one.process is not None and one.process.poll() is None:
                one.stop()
        self.provider.close()
        for sock in self.socks.values():
            sock.close()


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    with Postgres.running() as server:
        yield server


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    store = request.getfixturevalue("postgres").database() if request.param == "postgresql" else None
    with listener() as blind:
        made = Pair(tmp_path_factory.mktemp(request.param), store, blind)
        try:
            made.here.start()
            made.there.start()
            yield made
        finally:
            made.close()


def disable(pair: Pair, user: str, **body: object) -> Any:
    status, said = pair.here.ask("POST", f"/v1/users/{user}/disable", body)
    assert status == 200, said
    return said


async def ended(wire: Wire) -> None:
    """Reads until the end, which is no whole answer's."""
    last = b""
    with contextlib.suppress(ConnectionError):
        while piece := await wire.some():
            last = (last + piece)[-32:]
    assert not last.endswith(b"0\r\n\r\n"), "a stream that was cut must not look whole"


@contextlib.asynccontextmanager
async def passed_on(pair: Pair, *fields: bytes) -> AsyncIterator[Wire]:
    """A tunnel to a host that no route names, and something said through it."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(4096):
                writer.write(data)
        writer.close()

    server = await asyncio.start_server(answer, sock=pair.blind.dup())
    async with server, await Wire.dial(pair.there.listen) as wire:
        await wire.send(connect_to(pair, *fields))
        assert (await wire.head()).status == 200
        await wire.send(b"ping")
        assert await wire.exactly(4) == b"ping"
        yield wire


def connect_to(pair: Pair, *fields: bytes) -> bytes:
    at = b"127.0.0.1:%d" % pair.blind.getsockname()[1]
    return b"\r\n".join([b"CONNECT %s HTTP/1.1" % at, b"Host: " + at, *fields]) + b"\r\n\r\n"


async def silent(upstream: Upstream, wire: Wire) -> None:
    """Reads what it can of an upload."""
    with contextlib.suppress(Exception):
        await wire.head()
        await wire.rest()


async def records(pair: Pair, count: int, **wanted: str) -> list[dict[str, Any]]:
    """Of the user's requests those that ended so, once there are `count` or time is up."""
    deadline = time.monotonic() + 5
    query = "&".join(f"{name}={value}" for name, value in wanted.items())
    while True:
        _, said = await asyncio.to_thread(pair.here.ask, "GET", f"/v1/audit?kind=request&limit=1000&{query}")
        found = [one for one in said["items"] if one["code"] == "user_disabled"]
        if len(found) >= count or time.monotonic() > deadline:
            return found
        await asyncio.sleep(0.02)  # written in batches by another process


@pytest.mark.scenario("I10", "I08")
@pytest.mark.parametrize(("user", "keep"), [("alice", False), ("alan", True)], ids=["ended", "kept"])
async def test_all_that_is_under_way_for_a_user_ends_on_the_other_replica(
    pair: Pair, user: str, keep: bool
) -> None:
    theirs, bob = await asyncio.to_thread(pair.connect, user, f"not {user}")
    key = b"X-Authproxy-Key: " + (await asyncio.to_thread(pair.session, user)).encode()
    name = user.encode()
    async with contextlib.AsyncExitStack() as stack:

        async def begun(
            mode: str, script: Any, request: tuple[Any, ...], status: int, whose: bytes | None
        ) -> Wire:
            lane = pair.lane(bob, mode)
            await stack.enter_async_context(lane.upstream(script))
            wire = await stack.enter_async_context(await lane.dial())
            await wire.send(lane.ask(*request, user=whose))
            if status:
                assert (await wire.head()).status == status
            return wire

        events = (b"GET", b"/events")
        socket_ = (b"GET", b"/socket", *HANDSHAKE)
        cut = [
            *[await begun(mode, streaming, events, 200, name) for mode in MODES],
            await begun(BASE, streaming, (*events, key), 200, None),
            *[await begun(mode, accepting(echo), socket_, 101, name) for mode in (BASE, CONNECT)],
            await stack.enter_async_context(passed_on(pair, key)),
        ]
        beside = [
            await begun(BASE, streaming, events, 200, b"not " + name),
            await begun(BASE, accepting(echo), socket_, 101, b"not " + name),
        ]
        upload = await begun(BASE, silent, (b"POST", b"/x", b"Content-Length: 100000"), 0, name)
        await upload.send(b"a" * 1000)
        said = await asyncio.to_thread(disable, pair, user, reason="left the company", keep_grants=keep)
        began = time.monotonic()
        assert said["revoked_upstream"]["yes"] == said["disconnected"] == (not keep)
        assert bool(theirs.revoked) is not keep
        answer = await upload.response()
        assert_problem(answer, "user_disabled")
        assert b"left the company" not in answer.body
        await asyncio.gather(*map(ended, cut))
        assert time.monotonic() - began < LEASH + SLACK
        await beside[1].send(b"still here")
        assert await beside[1].exactly(10) == b"still here"
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(LEASH):
                await ended(beside[0])
        for fields in ((key,), (b"X-User-ID: " + name,)):
            async with await Wire.dial(pair.there.listen) as wire:
                await wire.send(connect_to(pair, *fields))
                head = await wire.head()
                assert (head.status, head.one(b"x-authproxy-error")) == (403, b"user_disabled")
    found = await records(pair, len(cut) + 3, user_id=user)
    assert len(found) == len(cut) + 3
    assert {one["act"] for one in found} == {"ask_user"}


@pytest.mark.scenario("I10", "I08")
async def test_every_door_of_the_other_replica_is_shut(pair: Pair) -> None:
    (grant,) = await asyncio.to_thread(pair.connect, "carol")
    key = await asyncio.to_thread(pair.session, "carol")
    lanes = [pair.lane(grant, mode) for mode in MODES]
    field = b"X-Authproxy-Key: " + key.encode()
    begun = await asyncio.to_thread(pair.there.begin, "carol", "kit", "read", "write")
    browser = Browser()
    page = await asyncio.to_thread(browser.open, begun["url"])
    async with contextlib.AsyncExitStack() as stack:
        upstreams = [await stack.enter_async_context(lane.upstream()) for lane in lanes]
        for lane in lanes:
            assert (await lane.call(lane.ask(user=b"carol"))).status == 200
        said = await asyncio.to_thread(disable, pair, "carol", reason="left")
        began = time.monotonic()
        assert said["flows_ended"] == 1
        while (await lanes[0].call(lanes[0].ask(user=b"carol"))).status == 200:
            assert time.monotonic() - began < LEASH + SLACK
        seen = [len(upstream.requests) for upstream in upstreams]
        for lane in lanes:
            for request in (lane.ask(user=b"carol"), lane.ask(b"GET", b"/x", field, user=None)):
                answer = await lane.call(request)
                assert_problem(answer, "user_disabled")
                assert (answer.status, json.loads(answer.body)["connect_url"]) == (403, None)
        assert [len(upstream.requests) for upstream in upstreams] == seen
        assert lanes[0].grant.revoked

    hello = {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "initialize",
        "params": {
            "protocolVersion": "2025-11-25",
            "capabilities": {},
            "clientInfo": {"name": "t", "version": "1"},
        },
    }
    want = {"provider_id": "kit", "provider_type": "oauth2", "oauth2": {"scopes": ["read"]}}
    tool = (await asyncio.to_thread(pair.there.ask, "GET", "/v1/tools?toolkit=github&limit=1"))[1]["items"][0]
    call = {"tool_name": tool["fully_qualified_name"], "input": {}}
    mcp = {"Accept": "application/json, text/event-stream"}
    asked: list[tuple[str, str, object, dict[str, str]]] = [
        ("POST", "/v1/auth/authorize", {"user_id": "carol", "auth_requirement": want}, {}),
        ("GET", f"/v1/auth/status?id={begun['id']}", None, {}),
        ("GET", f"/v1/auth/status?id={begun['id']}&wait=5", None, {}),
        ("POST", "/v1/tools/execute", {**call, "user_id": "carol"}, {}),
        ("POST", "/v1/tools/authorize", {"tool_name": call["tool_name"], "user_id": "carol"}, {}),
        ("GET", "/v1/tools?user_id=carol", None, {}),
        ("POST", "/v1/sessions", {"user_id": "carol"}, {}),
        ("GET", "/v1/tools", None, {"Authorization": key}),
        ("GET", "/v1/sessions", None, {"Authorization": key}),
        ("POST", "/mcp", hello, {**mcp, "X-User-ID": "carol"}),
        ("POST", "/mcp", hello, {**mcp, "Authorization": key}),
    ]
    for method, path, body, headers in asked:
        status, answer = await asyncio.to_thread(pair.there.ask, method, path, body, headers=headers)
        assert (status, answer.get("code")) == (403, "user_disabled"), (path, status, answer)
        assert "left" not in json.dumps(answer)
    for shown in (
        await asyncio.to_thread(browser.submit, forms(page)[0]),
        await asyncio.to_thread(browser.open, begun["url"]),
    ):
        assert "carol has been disabled by an operator" in shown.text
        assert not forms(shown), "no new link is offered"


@pytest.mark.scenario("I10", "H03")
async def test_a_callback_that_comes_too_late_is_refused(pair: Pair) -> None:
    """The user has pressed the button, and is at the provider when they are disabled."""
    browser = Browser()
    begun = await asyncio.to_thread(pair.there.begin, "dave", "kit", "read")
    page = await asyncio.to_thread(browser.open, begun["url"])
    form = forms(page)[0]
    sent = await asyncio.to_thread(browser.open, form.action, method=form.method, form=form.fields)
    at_provider = await asyncio.to_thread(browser.open, str(sent.header("Location")))
    await asyncio.to_thread(disable, pair, "dave")
    back = await asyncio.to_thread(browser.open, str(at_provider.header("Location")))
    assert (back.status, back.header("X-Authproxy-Error")) == (403, "user_disabled")
    assert pair.provider.grants[-1].access == [], "the code was not exchanged"


@pytest.mark.scenario("I10")
@pytest.mark.parametrize("pair", ["sqlite"], indirect=True)
async def test_the_commands(pair: Pair) -> None:
    """Disabled by one process, refused by two others; kept grants work again, ended ones do not."""
    (grant,) = await asyncio.to_thread(pair.connect, "erin")
    lane = pair.lane(grant)

    async def until(status: int) -> Any:
        deadline = time.monotonic() + LEASH + SLACK
        while (answer := await lane.call(lane.ask(user=b"erin"))).status != status:
            assert time.monotonic() < deadline, answer
        return answer

    async with lane.upstream():
        await until(200)
        words = ("users", "disable", "erin", "--keep-grants", "--reason", "on leave", "--json")
        said = json.loads((await asyncio.to_thread(pair.command, *words)).stdout)
        assert (said["disabled"], said["grants_kept"], said["disconnected"], said["connections"]) == (
            True,
            True,
            0,
            1,
        )
        assert_problem(await until(403), "user_disabled")
        told = await asyncio.to_thread(pair.command, "explain", "erin", "kit", code=1)
        assert "erin is disabled since" in told.stdout
        assert "on leave" in told.stdout
        assert "authproxy users enable erin" in told.stdout
        said = json.loads((await asyncio.to_thread(pair.command, "users", "enable", "erin", "--json")).stdout)
        assert (said["disabled"], said["changed"], said["connections"]) == (False, True, 1)
        await until(200)
        assert not grant.revoked
        shown = await asyncio.to_thread(pair.command, "users", "disable", "erin")
        assert "Connections that were ended: 1 (revoked by the provider: yes 1)" in shown.stdout
        assert_problem(await until(403), "user_disabled")
        again = await asyncio.to_thread(disable, pair, "erin")
        assert (again["changed"], again["disconnected"], again["known"]) == (False, 0, True)
        status, _ = await asyncio.to_thread(pair.here.ask, "POST", "/v1/users/erin/enable")
        assert status == 200
        answer = await until(403)
        while json.loads(answer.body)["code"] == "user_disabled":  # not known there yet
            answer = await lane.call(lane.ask(user=b"erin"))
        assert_problem(answer, "connection_required")
    unknown = await asyncio.to_thread(pair.command, "users", "disable", "Erin")
    assert "was erin meant?" in unknown.stderr
    listed = json.loads(
        (await asyncio.to_thread(pair.command, "users", "list", "--disabled", "--json")).stdout
    )
    states = {one["user_id"]: one["disabled"] for one in listed}
    assert states.get("Erin") is True
    assert "erin" not in states
    trail = await asyncio.to_thread(pair.here.ask, "GET", "/v1/audit?kind=user.*&user_id=erin")
    told = [(one["kind"], one["agent"]) for one in reversed(trail[1]["items"])]
    by = "command-line"
    assert told == [
        ("user.disabled", by),
        ("user.enabled", by),
        ("user.disabled", by),
        ("user.enabled", "kit"),
    ]
