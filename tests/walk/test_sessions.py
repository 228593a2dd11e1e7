"""Sessions on the data plane: held to their user and routes on every way in, ended at once, and a job that outlives
tokens, its session's first life and its user's grant."""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import socket
import sqlite3
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.kit.browser import Browser
from tests.kit.lanes import ABSOLUTE, BASE, CONNECT, MODES, TIMEOUTS, Lane, assert_problem, lanes
from tests.kit.process import LOOPBACK
from tests.kit.provider import Grant
from tests.kit.raw import Message, Upstream, Wire

KEYED = {"kind": "api_key", "may_act_for": ["*"]}
LEASH = 0.2
HANDSHAKE = (
    b"Connection: Upgrade",
    b"Upgrade: websocket",
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    b"Sec-WebSocket-Version: 13",
)
SWITCHED = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
)


class Ground:
    """The proxy, a lane for each case, and sessions minted by its operator or by an application's key."""

    def __init__(self, made: list[Lane], blind: socket.socket) -> None:
        self._free = itertools.cycle(made)
        self.proxy, self.seeded = made[0].proxy, made[0].seeded
        self.blind = blind
        self.app = self.agent("app")

    def agent(self, name: str) -> dict[str, Any]:
        """A new agent key, known to the listeners."""
        made = json.loads(self.run("agents", "create", name, "--json"))
        deadline = time.monotonic() + 5
        while self.proxy.ask("GET", "/v1/sessions", headers={"Authorization": made["key"]})[0] == 401:
            assert time.monotonic() < deadline, "the key is not known"
            time.sleep(0.02)  # read by another process within its leash
        return dict(made)

    def lane(self, mode: str = BASE) -> Lane:
        lane = next(self._free)
        lane.mode = mode
        return lane

    def run(self, *command: str) -> str:
        where = ("--config", str(self.proxy.file), "--store", f"sqlite:///{self.proxy.store}")
        done = self.proxy.run(*command, *where)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def ask(self, method: str, path: str, body: object = None, *, key: str | None = None) -> Any:
        headers = {} if key is None else {"Authorization": key}
        status, said = self.proxy.ask(method, path, body, headers=headers)
        assert status == 200, said
        return said

    async def mint(self, *, key: str | None = None, **body: Any) -> dict[str, Any]:
        made = await asyncio.to_thread(
            self.ask, "POST", "/v1/sessions", {"user_id": "alice", **body}, key=key
        )
        assert isinstance(made, dict)
        return made

    async def last_record(self, **wanted: object) -> dict[str, Any]:
        """The newest record that is like this, once there is one."""
        deadline = time.monotonic() + 5
        while True:
            with sqlite3.connect(f"file:{self.proxy.store}?mode=ro", uri=True) as store:
                rows = store.execute(
                    "SELECT record FROM audit WHERE kind = 'request' ORDER BY position"
                ).fetchall()
            store.close()
            found = [json.loads(text) for (text,) in rows]
            found = [one for one in found if all(one[name] == value for name, value in wanted.items())]
            if found:
                return dict(found[-1])
            assert time.monotonic() < deadline, wanted
            await asyncio.sleep(0.02)  # written in batches by another process


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    with socket.socket() as blind:
        blind.bind(("127.0.0.1", 0))
        blind.listen(8)
        blind.setblocking(False)
        with lanes(
            tmp_path_factory.mktemp("sessions"),
            60,
            identity={"callers": [KEYED, LOOPBACK]},
            timeouts={**TIMEOUTS, "idle": 20, "first_byte": 5},
            tunnel={"unrouted": "pass", "ports": [blind.getsockname()[1]]},
            refresh={"forced_interval": 0, "leash": LEASH, "background": False},
        ) as (made, _):
            yield Ground(made, blind)


def basic(user: str, key: str) -> bytes:
    return b"Basic " + base64.b64encode(f"{user}:{key}".encode())


async def dialled(lane: Lane, *fields: bytes) -> Wire:
    """A connection in the lane's mode; `fields` are the CONNECT's."""
    if lane.mode != CONNECT:
        return await lane.dial()
    wire = await Wire.dial(lane.proxy.listen)
    tls = lane.proxy.trust
    await wire.send(
        b"\r\n".join([b"CONNECT %s:443 HTTP/1.1" % lane.authority, b"Host: %s:443" % lane.authority, *fields])
        + b"\r\n\r\n"
    )
    answer = await wire.head()
    assert answer.status == 200, answer.raw
    await wire.secure(tls, lane.host)
    return wire


async def call(
    lane: Lane, *fields: bytes, outer: tuple[bytes, ...] = (), user: bytes | None = None
) -> Message:
    async with await dialled(lane, *outer) as wire:
        await wire.send(lane.ask(b"GET", b"/x", *fields, user=user))
        return await wire.response()


def said(answer: Message) -> tuple[int, str, str | None]:
    problem = json.loads(answer.body)
    return answer.status, problem["code"], problem["reason"]


# --- where it may stand, for whom, and where it leads


SLOTS = {
    "x-authproxy-key": lambda key: b"X-Authproxy-Key: " + key.encode(),
    "bearer": lambda key: b"Authorization: Bearer " + key.encode(),
    "token": lambda key: b"Authorization: token " + key.encode(),
    "basic password": lambda key: b"Authorization: " + basic("x-access-token", key),
    "proxy bearer": lambda key: b"Proxy-Authorization: Bearer " + key.encode(),
    "proxy basic": lambda key: b"Proxy-Authorization: " + basic("alice", key),
    "proxy basic without a user": lambda key: b"Proxy-Authorization: " + basic("", key),
}


@pytest.mark.scenario("I12", "I05")
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("slot", list(SLOTS))
async def test_it_works_in_every_slot_and_needs_no_user_beside_it(
    ground: Ground, mode: str, slot: str
) -> None:
    lane = ground.lane(mode)
    made = await ground.mint(routes=[lane.name], agent="mailer")
    field = SLOTS[slot](made["key"])
    async with lane.upstream() as upstream:
        assert (await call(lane, field)).status == 200
        assert (await call(lane, field, user=b"alice")).status == 200
        refused = await call(lane, field, user=b"bob")
        assert_problem(refused, "user_not_allowed")
        assert refused.status == 403
        if mode == CONNECT and slot.startswith("proxy"):
            assert (await call(lane, outer=(field,))).status == 200, "shown for the tunnel alone"
    for message in upstream.requests:
        assert message.head.one(b"authorization") == lane.bearer
        assert made["key"].encode() not in message.head.raw
    record = await ground.last_record(session=made["id"], status=200)
    assert (record["agent"], record["user"], record["route"]) == ("mailer", "alice", lane.name)


@pytest.mark.scenario("I12")
@pytest.mark.parametrize("mode", MODES)
async def test_it_is_held_to_its_routes(ground: Ground, mode: str) -> None:
    mine, other = ground.lane(mode), ground.lane(mode)
    made = await ground.mint(routes=[mine.name])
    field = b"X-Authproxy-Key: " + made["key"].encode()
    async with mine.upstream() as reached, other.upstream() as kept:
        assert (await call(mine, field)).status == 200
        answer = await call(other, field)
        assert_problem(answer, "policy_denied")
        assert said(answer) == (403, "policy_denied", "session")
        assert len(reached.requests) == 1
        await other.prove_untouched(kept)
    record = await ground.last_record(session=made["id"], code="policy_denied")
    assert (record["route"], record["attempts"]) == (other.name, 0)


@pytest.mark.parametrize("mode", MODES)
async def test_one_that_is_for_tools_alone_reaches_no_route(ground: Ground, mode: str) -> None:
    lane = ground.lane(mode)
    made = await ground.mint(tools=["Gmail.*"])
    async with lane.upstream() as upstream:
        answer = await call(lane, b"X-Authproxy-Key: " + made["key"].encode())
        assert said(answer) == (403, "policy_denied", "session")
        await lane.prove_untouched(upstream)


async def test_one_with_routes_opens_no_blind_tunnel(ground: Ground) -> None:
    port = ground.blind.getsockname()[1]
    for body, status in (({"routes": [ground.lane().name]}, 403), ({"tools": ["*"]}, 403), ({}, 200)):
        made = await ground.mint(**body)
        async with await Wire.dial(ground.proxy.listen) as wire:
            await wire.send(
                b"CONNECT 127.0.0.1:%d HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nX-Authproxy-Key: %b\r\n\r\n"
                % (port, port, made["key"].encode())
            )
            answer = await wire.head()
            assert answer.status == status, answer.raw
            if status == 403:
                assert answer.one(b"x-authproxy-error") == b"policy_denied"


@pytest.mark.scenario("I02")
async def test_credentials_that_disagree_are_refused(ground: Ground) -> None:
    lane = ground.lane(ABSOLUTE)
    one, two = await ground.mint(), await ground.mint()
    async with lane.upstream() as upstream:
        for fields in (
            (SLOTS["x-authproxy-key"](one["key"]), SLOTS["bearer"](two["key"])),
            (SLOTS["x-authproxy-key"](one["key"]), SLOTS["bearer"](ground.app["key"])),
            (SLOTS["proxy basic"](one["key"]), SLOTS["proxy basic without a user"](two["key"])),
            (b"Proxy-Authorization: " + basic("bob", one["key"]),),
        ):
            answer = await call(lane, *fields)
            assert said(answer)[:2] == (407, "caller_unknown"), fields
        await lane.prove_untouched(upstream)


@pytest.mark.parametrize(
    "text", ["apx_" + "A" * 43, "apx_", "ses_{id}", "apx_{id}", "apx_{digest}", "{key}x", "{key} ", "{cut}"]
)
async def test_what_only_looks_like_one_is_nobody(ground: Ground, text: str) -> None:
    """Neither its id, nor what is stored of it, nor a part of it."""
    lane = ground.lane()
    made = await ground.mint()
    with sqlite3.connect(f"file:{ground.proxy.store}?mode=ro", uri=True) as store:
        ((digest,),) = store.execute("SELECT digest FROM sessions WHERE id = ?", (made["id"],)).fetchall()
    store.close()
    shown = text.format(
        id=made["id"].removeprefix("ses_"), digest=digest, key=made["key"], cut=made["key"][:-1]
    )
    async with lane.upstream() as upstream:
        answer = await call(lane, b"X-Authproxy-Key: " + shown.encode())
        if shown.strip() == made["key"]:
            assert answer.status == 200, "only the space around it was added"
        else:
            assert said(answer)[:2] == (407, "caller_unknown")
            await lane.prove_untouched(upstream)


# --- its end


@pytest.mark.scenario("I08")
async def test_it_is_refused_at_once_here_when_it_is_revoked_and_when_it_expires(ground: Ground) -> None:
    lane = ground.lane()
    made, short = await ground.mint(key=ground.app["key"]), await ground.mint(ttl=1)
    field = b"X-Authproxy-Key: " + made["key"].encode()
    async with lane.upstream() as upstream:
        assert (await call(lane, field)).status == 200
        await asyncio.to_thread(ground.ask, "DELETE", f"/v1/sessions/{made['id']}", key=ground.app["key"])
        assert said(await call(lane, field)) == (407, "caller_unknown", "revoked_key")
        await asyncio.sleep(max(0.0, short["expires_at"] - time.time()))  # the clock is the point
        answer = await call(lane, b"X-Authproxy-Key: " + short["key"].encode())
        assert said(answer) == (407, "caller_unknown", "expired_key")
        assert len(upstream.requests) == 1


@pytest.mark.scenario("I08")
@pytest.mark.parametrize("what", ["session", "minter"])
async def test_an_end_that_comes_from_elsewhere_is_felt_within_the_leash(ground: Ground, what: str) -> None:
    lane = ground.lane()
    minter = await asyncio.to_thread(ground.agent, "passing")
    made = await ground.mint(key=minter["key"])
    field = b"X-Authproxy-Key: " + made["key"].encode()
    command = ("sessions", "revoke", made["id"]) if what == "session" else ("agents", "revoke", minter["id"])
    async with lane.upstream():
        assert (await call(lane, field)).status == 200
        await asyncio.to_thread(ground.run, *command)
        ended = time.monotonic() + LEASH + 0.5
        while (answer := await call(lane, field)).status == 200:
            assert time.monotonic() < ended
    assert said(answer) == (407, "caller_unknown", "revoked_key")


@pytest.mark.scenario("I08")
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", ["websocket", "events"])
async def test_what_streams_ends_with_it(ground: Ground, mode: str, kind: str) -> None:
    lane = ground.lane(mode)
    made = await ground.mint(routes=[lane.name])
    field = b"X-Authproxy-Key: " + made["key"].encode()
    begun = asyncio.Event()

    async def script(upstream: Upstream, wire: Wire) -> None:
        upstream.note(await wire.request())
        if kind == "websocket":
            await wire.send(SWITCHED, b"first")
        else:
            head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
            await wire.send(head, b"5\r\nfirst\r\n")
        begun.set()
        await wire.rest()  # and then silence, until the other side goes

    async with lane.upstream(script), await dialled(lane) as wire:
        more = HANDSHAKE if kind == "websocket" else ()
        await wire.send(lane.ask(b"GET", b"/stream", field, *more, user=None))
        head = await wire.head()
        assert head.status == (101 if kind == "websocket" else 200)
        await begun.wait()
        # A renewal is no end, and neither is a reading of all sessions meanwhile.
        await asyncio.sleep(2.5 * LEASH)
        await asyncio.to_thread(ground.ask, "DELETE", f"/v1/sessions/{made['id']}")
        began = time.monotonic()
        await wire.rest()
        assert time.monotonic() - began < LEASH + 1
    record = await ground.last_record(session=made["id"], path="/stream")
    assert (record["code"], record["status"]) == ("caller_unknown", head.status)


async def test_a_stream_goes_on_over_a_renewal(ground: Ground) -> None:
    lane = ground.lane()
    made = await ground.mint(key=ground.app["key"], ttl=2, renewable_for=60)
    field = b"X-Authproxy-Key: " + made["key"].encode()
    go = asyncio.Event()

    async def script(upstream: Upstream, wire: Wire) -> None:
        upstream.note(await wire.request())
        await wire.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n")
        await go.wait()
        await wire.send(b"4\r\nlast\r\n0\r\n\r\n")

    async with lane.upstream(script), await dialled(lane) as wire:
        await wire.send(lane.ask(b"GET", b"/stream", field, user=None))
        renewed = await asyncio.to_thread(
            ground.ask, "POST", f"/v1/sessions/{made['id']}/renew", {"ttl": 30}, key=ground.app["key"]
        )
        assert renewed["expires_at"] > made["expires_at"]
        await asyncio.sleep(max(0.0, made["expires_at"] - time.time()) + 2 * LEASH)  # beyond its first life
        go.set()
        answer = await wire.response()
    assert (answer.status, answer.body) == (200, b"firstlast")


# --- a long job


@pytest.mark.scenario("I06")
async def test_a_long_job_over_short_tokens_is_paused_by_a_dead_grant_and_goes_on(ground: Ground) -> None:
    """Its agent has a session and nothing else; its tokens live for seconds; in the middle the provider ends the
    grant, the user is shown the link, consents, and the job goes on with the same connection."""
    lane, provider = ground.lane(), ground.seeded.provider
    provider.life = 1
    try:
        browser = await asyncio.to_thread(ground.proxy.connect, "worker")
        assert browser.seen
        before = provider.grants[-1]
        made = await ground.mint(key=ground.app["key"], user_id="worker", label="job", routes=[lane.name])
        field = b"X-Authproxy-Key: " + made["key"].encode()
        sent: list[bytes | None] = []

        async def script(upstream: Upstream, wire: Wire) -> None:
            message = await wire.request()
            sent.append(message.head.one(b"authorization"))
            await wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")

        async with lane.upstream(script):
            while len(before.access) < 3:  # steps of the job, over three tokens
                assert (await call(lane, field)).status == 200
            assert set(sent) >= {b"Bearer " + token.encode() for token in before.access[:-1]}

            def dead(grant: Grant, form: dict[str, str]) -> tuple[int, str, bytes] | None:
                if grant is before and form["grant_type"] == "refresh_token":
                    return 400, "application/json", b'{"error": "invalid_grant"}'
                return None

            provider.twist = dead
            while (answer := await call(lane, field)).status == 200:
                assert len(sent) < 100_000
            problem = json.loads(answer.body)
            assert (problem["code"], problem["act"]) == ("connection_expired", "ask_user")
            link, con = problem["connect_url"], problem["connection_id"]
            assert con.startswith("con_")

            # The agent itself waits, with its session; somebody shows the link to the user.
            path = f"/v1/connections/{con}/wait?seconds=30&state=active"
            waiting = asyncio.create_task(asyncio.to_thread(ground.ask, "GET", path, key=made["key"]))
            steps = len(sent)
            await asyncio.to_thread(Browser().consent, link)
            back = await waiting
            assert (back["reached"], back["state"], back["id"]) == (True, "active", con)
            assert len(sent) == steps, "nothing was sent meanwhile"

            provider.life = 3600
            assert (await call(lane, field)).status == 200
            assert provider.grants[-1] is not before
            assert sent[-1] in {b"Bearer " + token.encode() for token in provider.grants[-1].access}
    finally:
        provider.life, provider.twist = 3600, None
    listed = await asyncio.to_thread(ground.ask, "GET", "/v1/connections?user_id=worker")
    assert [(one["id"], one["state"]) for one in listed["items"]] == [(con, "active")]
