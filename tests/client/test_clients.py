"""Both clients against a running proxy and the sandbox: consent, waits and their ends, connections, sessions."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from authproxy.client import (
    AsyncClient,
    BadRequest,
    CallerUnknown,
    Client,
    ConnectionExpired,
    ConnectionRequired,
    DeadlinePassed,
    Denied,
    NotFound,
    PolicyDenied,
    ScopeMissing,
    Unexpected,
    Unreachable,
    UserNotAllowed,
)
from tests.client.conftest import Make, Threaded, Town
from tests.kit.ports import free_port

# --- consent


async def test_start_show_the_link_and_wait(town: Town, ask: Any) -> None:
    anna = town.user("anna")
    flow = await ask.start(anna, "sandbox")
    assert (flow.state, flow.user, flow.provider) == ("not_started", anna, "sandbox")
    assert {"read", "write"} <= set(flow.scopes), "what the provider's routes need"
    assert flow.url is not None
    assert flow.url.startswith(town.proxy.control_url)
    waiting = asyncio.create_task(ask.wait(flow, deadline=20))
    await town.consent(flow.url)
    done = await waiting
    assert (done.id, done.state, done.completed) == (flow.id, "completed", True)
    again = await ask.start(anna, "sandbox", ["read"])
    assert (again.completed, again.url, again.connection_id) == (True, None, done.connection_id)
    assert await ask.wait(again) == again
    assert (await ask.status(flow.id)).connection_id == done.connection_id


@pytest.mark.scenario("H04")
async def test_a_user_who_declines_ends_the_wait(town: Town, ask: Any) -> None:
    flow = await ask.start("dora", "sandbox", ["read"])
    waiting = asyncio.create_task(ask.wait(flow, deadline=20))
    await town.consent(flow.url, "deny")
    with pytest.raises(Denied) as ended:
        await waiting
    assert ended.value.authorization is not None
    assert ended.value.authorization.id == flow.id
    with pytest.raises(Denied):
        await ask.wait(flow.id, deadline=20)


async def test_a_deadline_is_kept(ask: Any) -> None:
    flow = await ask.start("emil", "sandbox", ["read"])
    for deadline in (0, 0.3, 1.2):
        began = time.monotonic()
        with pytest.raises(DeadlinePassed) as ended:
            await ask.wait(flow, deadline=deadline)
        assert deadline <= time.monotonic() - began < deadline + 1
        assert ended.value.authorization is not None
        assert ended.value.authorization.url == flow.url, "the link still works"


async def test_what_is_refused_is_told_as_what_it_is(town: Town, ask: Any, make: Make) -> None:
    with pytest.raises(BadRequest) as refused:
        await ask.start("anna", "nowhere")
    assert (refused.value.status, refused.value.code, refused.value.act) == (
        400,
        "bad_request",
        "fix_request",
    )
    assert refused.value.request_id
    with pytest.raises(NotFound):
        await ask.status("flow_none")
    with pytest.raises(NotFound) as operators:
        await ask.connections()
    assert operators.value.reason == "operator_needed"
    with pytest.raises(CallerUnknown) as unknown:
        await make(key="apx_nobody").start("anna", "sandbox")
    assert unknown.value.status == 401
    assert "apx_nobody" not in repr(unknown.value) + str(unknown.value)
    bound = (await ask.sessions.mint("anna")).key
    with pytest.raises(UserNotAllowed):
        await make(key=bound).start("bert", "sandbox")
    with pytest.raises(ValueError, match="missing"):
        await ask.tools.get("..")


# --- connections


async def test_connections_are_listed_ended_and_waited_for(town: Town, ask: Any, make: Make) -> None:
    boss = make(key=town.operator)
    users = [town.user(f"list{n}") for n in range(3)]
    for user in users:
        await town.consent((await ask.start(user, "sandbox")).url)
    found = {one.user: one for one in await boss.connections(provider="sandbox") if one.user in users}
    assert sorted(found) == users
    assert all(one.active and {"read", "write"} <= set(one.scopes) for one in found.values())
    one = found[users[0]]
    assert [it.id for it in await boss.connections(user=users[0])] == [one.id]
    assert await boss.disconnect(one) in ("yes", "pending")
    assert (await boss.connections(user=users[0], state="active")) == []
    with pytest.raises(DeadlinePassed) as ended:
        await ask.wait_for_connection(one, deadline=0.2)
    assert ended.value.connection is not None
    assert ended.value.connection.state == "disconnected"
    waiting = asyncio.create_task(ask.wait_for_connection(one.id, deadline=20))
    await town.consent((await ask.start(users[0], "sandbox")).url)
    back = await waiting
    assert (back.id, back.active) == (one.id, True)


# --- sessions


async def test_sessions(town: Town, ask: Any, make: Make) -> None:
    made = await ask.sessions.mint(
        "sara", label="reader", routes=["sandbox"], tools=["read_only"], ttl=300, renewable_for=900
    )
    assert made.key.startswith("apx_")
    assert made.key not in repr(made)
    one = made.session
    assert (one.agent, one.label, one.user, one.state, one.routes, one.tools) == (
        "app",
        "reader",
        "sara",
        "active",
        ("sandbox",),
        ("read_only",),
    )
    assert one.expires_at == one.created_at + 300
    renewed = await ask.sessions.renew(made, ttl=600)
    assert renewed.expires_at > one.expires_at
    assert await ask.sessions.get(one.id) == renewed
    assert renewed in await ask.sessions.list(user="sara")
    agent = make(key=made.key)
    assert (await agent.start("sara", "sandbox")).user == "sara"
    for forbidden in (agent.sessions.mint("sara"), agent.sessions.renew(made)):
        with pytest.raises(PolicyDenied):
            await forbidden
    assert (await ask.sessions.revoke(made)).state == "revoked"
    with pytest.raises(CallerUnknown) as ended:
        await agent.start("sara", "sandbox")
    assert ended.value.reason == "revoked_key"
    with pytest.raises(NotFound):
        await ask.sessions.get("ses_none")


# --- refusals of the data plane, and what mends them


@pytest.mark.scenario("I06")
async def test_work_is_done_again_when_the_user_has_consented(town: Town) -> None:
    """Missing at first, then without a scope, then ended at the provider: the work never notices more than a wait."""
    requests = pytest.importorskip("requests")
    boss, client, wilma = town.client(key=town.operator), town.client(), town.user("wilma")
    seen: list[type[BaseException]] = []
    links: list[str | None] = []

    def show(flow: Any) -> None:
        links.append(flow.url)
        Thread(target=town.press, args=(flow.url,)).start()

    def step(path: str, route: str = "sandbox") -> Any:
        try:
            with client.door(route, wilma).requests() as session:
                answer = session.get(client.door(route, wilma).url(path), timeout=10)
                answer.raise_for_status()
                return answer.json()
        except (ConnectionRequired, requests.HTTPError) as error:
            seen.append(type(error))
            raise

    job = client.connected(wilma, "sandbox", show=show, scopes=["read"], deadline=20)(step)
    assert (await asyncio.to_thread(job, "/me"))["user"] == "alice"
    assert seen == [ConnectionRequired]
    assert (await asyncio.to_thread(job, "/me"))["user"] == "alice"
    (before,) = await asyncio.to_thread(boss.connections, user=wilma)
    assert "write" not in before.scopes

    assert "user" in await asyncio.to_thread(job, "/me", "writing")
    assert seen == [ConnectionRequired, ScopeMissing]

    await asyncio.to_thread(town.sandbox.end_grants, "alice")
    assert (await asyncio.to_thread(job, "/me"))["user"] == "alice"
    assert seen == [ConnectionRequired, ScopeMissing, ConnectionExpired]
    (after,) = await asyncio.to_thread(boss.connections, user=wilma)
    assert after.id == before.id, "one connection, whatever happened to it"
    assert len(set(links)) == 3


async def test_a_missing_connection_is_waited_for_before_the_work(town: Town) -> None:
    shown: list[Any] = []
    xena = town.user("xena")

    def press(flow: Any) -> None:
        shown.append(flow)
        Thread(target=town.press, args=(flow.url,)).start()

    def work() -> str:
        with town.client().connected(xena, "sandbox", show=press, deadline=20) as one:
            assert one.completed
            return one.user

    assert await asyncio.to_thread(work) == xena
    assert await asyncio.to_thread(work) == xena
    assert len(shown) == 1, "nothing is shown to who is connected"


async def test_the_same_on_an_event_loop(town: Town) -> None:
    aiohttp = pytest.importorskip("aiohttp")
    pressing: list[asyncio.Task[Any]] = []
    yves = town.user("yves")

    async def show(flow: Any) -> None:
        pressing.append(asyncio.create_task(town.consent(flow.url)))

    async with town.async_client() as client:
        rounds = 0

        @client.connected(yves, "sandbox", show=show, deadline=20)
        async def job() -> Any:
            nonlocal rounds
            rounds += 1
            async with (
                aiohttp.ClientSession(**client.door("sandbox", yves).aiohttp()) as session,
                session.get("me") as answer,
            ):
                return await answer.json()

        assert (await job())["user"] == "alice"
        assert rounds == 2
        async with client.connected(yves, "sandbox", show=show) as one:
            assert one.completed
        assert (await client.connected(yves, "sandbox", show=show)).completed
        assert len(pressing) == 1
        await asyncio.gather(*pressing)


async def test_what_consent_does_not_mend_is_handed_on(town: Town) -> None:
    client = town.client()

    def never(_flow: Any) -> None:
        raise AssertionError("nobody is to be asked")

    for error in (
        KeyError("x"),
        ConnectionRequired({"code": "connection_required", "user": "somebody else", "provider": "sandbox"}),
        ConnectionRequired({"code": "connection_required", "user": "zoe", "provider": "another"}),
        PolicyDenied({"code": "policy_denied"}),
    ):

        @client.connected("zoe", "sandbox", show=never)
        def job(error: Exception = error) -> None:
            raise error

        with pytest.raises(type(error)) as same:
            job()
        assert same.value is error


async def test_a_user_who_declines_ends_the_work(town: Town) -> None:
    client = town.client()

    @client.connected(
        "dirk",
        "sandbox",
        deadline=20,
        show=lambda flow: Thread(target=town.press, args=(flow.url, "deny")).start(),
    )
    def job() -> None:
        with client.door("sandbox", "dirk").requests() as session:
            session.get(client.door("sandbox", "dirk").url("/me"), timeout=10)

    pytest.importorskip("requests")
    with pytest.raises(Denied):
        await asyncio.to_thread(job)


# --- where it speaks, and to whom it does not


class Strange:
    """A server that is not authproxy."""

    def __init__(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.asked: list[tuple[str, str | None]] = []
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_: Any) -> None: ...

            def do_GET(self) -> None:
                owner.asked.append((self.path, self.headers.get("Authorization")))
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        self._server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def strange() -> Iterator[Any]:
    made: list[Strange] = []

    def make(status: int = 200, body: bytes = b"{}", **headers: str) -> Strange:
        made.append(Strange(status, body, headers))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture(params=["blocking", "asynchronous"])
async def at(request: pytest.FixtureRequest) -> Any:
    """Makes a client for any address."""
    close = []

    def made(url: str, **more: Any) -> Any:
        if request.param == "blocking":
            return Threaded(Client(url, key="apx_secret", **more))
        one = AsyncClient(url, key="apx_secret", **more)
        close.append(one.close)
        return one

    yield made
    for end in close:
        await end()


@pytest.mark.scenario("F10")
async def test_no_redirect_takes_the_key_elsewhere(at: Any, strange: Any) -> None:
    elsewhere = strange()
    for status in (301, 302, 303, 307, 308):
        here = strange(status, b"", Location=f"{elsewhere.url}/v1/auth/status")
        with pytest.raises(Unexpected) as ended:
            await at(here.url).status("flow_1")
        assert "apx_secret" not in str(ended.value)
        assert here.asked == [("/v1/auth/status?id=flow_1", "Bearer apx_secret")]
    assert elsewhere.asked == []


async def test_no_proxy_of_the_environment_hears_it(
    at: Any, strange: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = strange()
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, proxy.url)
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    here = strange(200, b'{"healthy": true}')
    assert await at(here.url).healthy() is True
    assert proxy.asked == []


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, b"<html>"),
        (200, b"[]"),
        (200, b"{}"),
        (404, b'{"error": "no"}'),
        (500, b""),
        (200, b"[" * 100_000),
    ],
)
async def test_what_is_not_authproxy_is_told_as_that(at: Any, strange: Any, status: int, body: bytes) -> None:
    with pytest.raises(Unexpected):
        await at(strange(status, body).url).status("flow_1")


async def test_nobody_there(at: Any) -> None:
    began = time.monotonic()
    with pytest.raises(Unreachable) as ended:
        await at(f"http://127.0.0.1:{free_port()}").status("flow_1")
    assert "apx_secret" not in repr(ended.value)
    assert time.monotonic() - began < 5


async def test_a_listener_that_says_nothing(at: Any) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(Unreachable):
            await at(url, timeout=0.2).start("anna", "sandbox")


async def test_over_a_unix_socket(at: Any, town: Town, tmp_path_factory: pytest.TempPathFactory) -> None:
    where = tmp_path_factory.mktemp("u") / "c"  # short: a socket's path may have some hundred bytes
    server = _Forwarding(where, town.proxy.control)
    try:
        with pytest.raises(CallerUnknown):
            await at(f"unix:{where}").status("flow_1")
    finally:
        server.close()


class _Forwarding:
    """A unix socket before a port, one connection after the other."""

    def __init__(self, path: Path, port: int) -> None:
        self._sock = socket.socket(socket.AF_UNIX)
        self._sock.bind(str(path))
        self._sock.listen()
        self._port = port
        self._thread = Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                near, _ = self._sock.accept()
            except OSError:
                return
            with near, socket.create_connection(("127.0.0.1", self._port)) as far:
                far.sendall(near.recv(65536))
                near.sendall(far.recv(65536))

    def close(self) -> None:
        self._sock.shutdown(socket.SHUT_RDWR)
        self._sock.close()
        self._thread.join()


@pytest.mark.parametrize(
    "url", ["127.0.0.1:8701", "ftp://x", "http://", "http://u:p@127.0.0.1:1", "unix:relative"]
)
def test_an_address_that_is_none(url: str) -> None:
    for kind in (Client, AsyncClient):
        with pytest.raises(ValueError, match="address"):
            kind(url)
    with pytest.raises(ValueError, match="data plane"):
        Client(proxy=url)


def test_what_is_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTHPROXY_CONTROL_URL", "http://127.0.0.1:1111")
    monkeypatch.setenv("AUTHPROXY_PROXY_URL", "http://127.0.0.1:2222/")
    monkeypatch.setenv("AUTHPROXY_AGENT_KEY", "apx_from_there")
    one = Client()
    assert one.door("gmail", "alice").base_url == "http://127.0.0.1:2222/gmail"
    assert one.door("gmail").headers == {"Authorization": "Bearer apx_from_there"}
    assert one._address.port == 1111
    assert "apx_from_there" not in repr(vars(one))
    with pytest.raises(ValueError, match="key"):
        Client(key="apx_a\r\nX-Evil: 1")
