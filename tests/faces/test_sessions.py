"""/v1/sessions: what a session may be made of, who may touch it, and that it never becomes more than its minter."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
from collections.abc import Awaitable
from typing import Any

import pytest

from authproxy.callers.presented import digest_of
from authproxy.control.sessions import MAX_RENEWABLE, MAX_TTL, MOST_NAMES, Sessions
from authproxy.core.errors import BadRequest, CallerUnknown, Refusal
from authproxy.core.model import Caller, ConnectionKey, State
from tests.faces.conftest import OPERATOR, Desk, Start

APP = Caller("default", "app", "api_key", ("*",), key="agt_0")


async def mint(desk: Desk, key: str | None, **body: Any) -> dict[str, Any]:
    status, _, made = await desk.ask("POST", "/v1/sessions", {"user_id": "alice", **body}, key=key)
    assert status == 200, made
    assert isinstance(made, dict)
    return made


async def refused(desk: Desk, key: str | None, **body: Any) -> tuple[int, str, str]:
    status, _, said = await desk.ask("POST", "/v1/sessions", {"user_id": "alice", **body}, key=key)
    return status, said["code"], said["reason"]


async def test_a_session_is_made_shown_once_listed_renewed_and_revoked(desk: Desk) -> None:
    key = await desk.agent("app")
    made = await mint(desk, key, routes=["kit"], tools=["Gmail.*", "read_only"], ttl=600, renewable_for=7200)
    text = made.pop("key")
    assert text.startswith("apx_")
    assert (made["user_id"], made["agent"], made["state"]) == ("alice", "app", "active")
    assert (made["routes"], made["tools"]) == (["kit"], ["Gmail.*", "read_only"])
    assert made["expires_at"] == made["created_at"] + 600
    assert made["renewable_until"] == made["created_at"] + 7200
    one = f"/v1/sessions/{made['id']}"
    status, _, listed = await desk.ask("GET", "/v1/sessions", key=key)
    assert (status, listed) == (200, {"items": [made], "after": None})
    assert (await desk.ask("GET", one, key=key))[2] == made
    status, _, renewed = await desk.ask("POST", f"{one}/renew", {"ttl": 3000}, key=key)
    assert (status, renewed["expires_at"] >= made["created_at"] + 3000) == (200, True)
    status, _, same = await desk.ask("POST", f"{one}/renew", key=key)
    assert (status, same["expires_at"]) == (200, renewed["expires_at"]), "never shorter"
    status, _, gone = await desk.ask("DELETE", one, key=key)
    assert (status, gone["state"]) == (200, "revoked")
    assert (await desk.ask("DELETE", one, key=key))[2] == gone, "again changes nothing"
    status, _, said = await desk.ask("POST", f"{one}/renew", {}, key=key)
    assert (status, said["reason"]) == (400, "revoked")
    assert (await desk.ask("GET", "/v1/sessions", key=text))[0] == 401

    kinds = ["session.created", "session.renewed", "session.revoked"]
    events = await desk.app.vault.backend.read("SELECT * FROM events WHERE kind LIKE 'session.%' ORDER BY id")
    assert [row["kind"] for row in events] == kinds
    assert all((row["user_id"], row["agent"], row["tenant"]) == ("alice", "app", "default") for row in events)
    page = (await desk.ask("GET", "/metrics"))[2]
    assert "authproxy_sessions 0.0" in page
    assert "authproxy_sessions_created_total 1.0" in page


@pytest.mark.scenario("I12", "F02")
async def test_its_credential_is_nowhere_but_in_the_one_answer(desk: Desk) -> None:
    key = await desk.agent("app")
    made = await mint(desk, key, renewable_for=7200)
    text, one = made["key"], f"/v1/sessions/{made['id']}"
    seen = [
        await desk.ask("GET", "/v1/sessions", key=key),
        await desk.ask("GET", one, key=text),
        await desk.ask("POST", f"{one}/renew", key=key),
        await desk.ask("DELETE", one, key=text),
        await desk.ask("GET", "/v1/audit?limit=1000"),
    ]
    await desk.app.trail.flush()
    rows = []
    for table in ("sessions", "events", "audit"):
        rows += [tuple(row) for row in await desk.app.vault.backend.read(f"SELECT * FROM {table}")]
    words = json.dumps(seen, default=dict) + repr(rows)
    assert text not in words
    assert digest_of(text) in repr(rows), "that alone is kept"
    assert digest_of(text) not in json.dumps(seen, default=dict)


@pytest.mark.scenario("I05")
async def test_a_session_speaks_for_its_user_and_for_nobody_else(desk: Desk) -> None:
    text = (await mint(desk, await desk.agent("app")))["key"]
    want = {"provider_id": "kit", "provider_type": "oauth2", "oauth2": {"scopes": ["read"]}}
    flow = await desk.begin("alice", key=text)
    assert flow["user_id"] == "alice"
    for user in ("bob", "*", "ALICE", "alice "):
        status, _, said = await desk.ask(
            "POST", "/v1/auth/authorize", {"user_id": user, "auth_requirement": want}, key=text
        )
        expected = 200 if user.strip() == "alice" else 403
        assert status == expected, (user, said)
    other = await desk.begin("bob")
    assert (await desk.ask("GET", f"/v1/auth/status?id={other['id']}", key=text))[0] == 404


@pytest.mark.scenario("I12")
async def test_a_session_cannot_become_more(desk: Desk) -> None:
    """No operator, no minter, no renewal of itself, and no word on who sat at a browser."""
    ended = await desk.connect("alice")
    for key in (await desk.agent("app"), await desk.agent("boss", operator=True), None):
        made = await mint(desk, key, renewable_for=7200)
        text = made["key"]
        assert await refused(desk, text) == (403, "policy_denied", "session")
        status, _, said = await desk.ask("POST", f"/v1/sessions/{made['id']}/renew", {}, key=text)
        assert (status, said["code"], said["reason"]) == (403, "policy_denied", "session")
        flow = await desk.begin("alice", key=text, auth_requirement=_want("read", "write"))
        body = {"flow_id": f"{flow['id']}.x", "user_id": "alice"}
        status, _, said = await desk.ask("POST", "/v1/auth/confirm_user", body, key=text)
        assert (status, said["reason"]) == (403, "session")
        for method, path in (
            ("GET", "/v1/connections"),
            ("GET", f"/v1/connections/{ended['connection_id']}"),
            ("DELETE", f"/v1/connections/{ended['connection_id']}"),
            ("POST", f"/v1/connections/{ended['connection_id']}/refresh"),
            ("GET", "/v1/admin/user_connections"),
            ("GET", "/v1/audit"),
        ):
            status, _, said = await desk.ask(method, path, {} if method == "POST" else None, key=text)
            assert (status, said["reason"]) == (404, "operator_needed"), (method, path)


def _want(*scopes: str) -> dict[str, Any]:
    return {"provider_id": "kit", "provider_type": "oauth2", "oauth2": {"scopes": list(scopes)}}


async def test_a_session_sees_and_may_end_itself(desk: Desk) -> None:
    key = await desk.agent("app")
    made, other = await mint(desk, key), await mint(desk, key)
    text, one = made.pop("key"), f"/v1/sessions/{made['id']}"
    assert (await desk.ask("GET", one, key=text))[2] == made
    assert (await desk.ask("GET", "/v1/sessions", key=text))[2]["items"] == [made]
    for method, path in (("GET", ""), ("DELETE", ""), ("POST", "/renew")):
        status, _, _ = await desk.ask(
            method, f"/v1/sessions/{other['id']}{path}", {} if method == "POST" else None, key=text
        )
        assert status == (403 if path else 404)
    assert (await desk.ask("DELETE", one, key=text))[0] == 200
    status, _, said = await desk.ask("GET", one, key=text)
    assert (status, said["code"], said["reason"]) == (401, "caller_unknown", "revoked_key")
    assert (await desk.ask("GET", "/v1/sessions", key=other["key"]))[0] == 200


@pytest.mark.scenario("I04")
async def test_what_others_have_minted_is_not_there(desk: Desk) -> None:
    made = await mint(desk, await desk.agent("app"), renewable_for=7200)
    strangers = {
        "another tenant's operator": await desk.agent(tenant="acme", operator=True),
        "another tenant's agent of that name": await desk.agent("app", tenant="acme"),
        "another key": await desk.agent("other"),
        "another key of that name": await desk.agent("app"),
        "a session of another tenant": (await mint(desk, await desk.agent(tenant="acme")))["key"],
    }
    for who, key in strangers.items():
        for name in (made["id"], "ses_none", "%00", made["id"].upper()):
            one = f"/v1/sessions/{name}"
            answers = [await desk.ask("GET", one, key=key), await desk.ask("DELETE", one, key=key)]
            if "session" not in who:
                answers.append(await desk.ask("POST", f"{one}/renew", {}, key=key))
            for status, _, said in answers:
                assert status in (404, 400), (who, name, said)
                assert status == 404 or name == "%00"
        listed = (await desk.ask("GET", "/v1/sessions", key=key))[2]["items"]
        assert made["id"] not in {one["id"] for one in listed}
    boss = await desk.agent("boss", operator=True)
    assert (await desk.ask("GET", f"/v1/sessions/{made['id']}", key=boss))[2]["state"] == "active"
    assert (await desk.ask("POST", f"/v1/sessions/{made['id']}/renew", {}, key=boss))[0] == 200
    assert (await desk.ask("DELETE", f"/v1/sessions/{made['id']}", key=boss))[2]["state"] == "revoked"


@pytest.mark.scenario("I08")
async def test_it_ends_with_the_key_that_minted_it(desk: Desk) -> None:
    key = await desk.agent("app")
    made = await mint(desk, key, renewable_for=7200)
    assert (await desk.ask("GET", "/v1/sessions", key=made["key"]))[0] == 200
    (agent,) = await desk.app.control.agents.list(OPERATOR)
    await desk.app.control.agents.revoke(OPERATOR, agent.id)
    status, _, said = await desk.ask("GET", "/v1/sessions", key=made["key"])
    assert (status, said["reason"]) == (401, "revoked_key")
    status, _, said = await desk.ask("POST", f"/v1/sessions/{made['id']}/renew", {})  # even by an operator
    assert (status, said["reason"]) == (401, "revoked_key")


async def test_it_is_never_more_than_its_minter(desk: Desk) -> None:
    key = await desk.agent("app", users=("alice", "team-*"))
    assert (await mint(desk, key, user_id="team-7"))["user_id"] == "team-7"
    assert (await refused(desk, key, user_id="bob"))[:2] == (403, "user_not_allowed")
    assert (await refused(desk, key, user_id="*"))[:2] == (403, "user_not_allowed")
    one = await desk.agent("one", users=("alice",))
    assert (await refused(desk, one, user_id="team-7"))[:2] == (403, "user_not_allowed")
    boss = await desk.agent("boss", users=("bob",), operator=True)
    assert (await refused(desk, boss))[:2] == (403, "user_not_allowed")
    short = await desk.app.control.agents.create(OPERATOR, name="short", may_act_for=("*",), lifetime=300)
    made = await mint(desk, short.key, ttl=86400, renewable_for=86400)
    assert made["expires_at"] == made["renewable_until"] == short.agent.expires_at
    status, _, said = await desk.ask("POST", f"/v1/sessions/{made['id']}/renew", {}, key=short.key)
    assert (status, said["reason"]) == (400, "not_renewable")


@pytest.mark.parametrize(
    "name", ["mailer", "app2", "app/", "app/mailer", "APP", "a", "boss", "*", "app.", "\u0430pp"]
)
async def test_it_is_taken_for_its_minter_and_for_nobody_else(desk: Desk, name: str) -> None:
    """By rules, limits and records: whoever could choose the name could be allowed what its key is not."""
    key = await desk.agent("app")
    assert await refused(desk, key, agent=name) == (400, "bad_request", "agent")


async def test_what_it_is_called_is_its_label(desk: Desk) -> None:
    key = await desk.agent("app")
    for name in ("app", None, " "):
        made = await mint(desk, key, agent=name, label="run 7")
        assert (made["agent"], made["label"]) == ("app", "run 7")
    assert (await refused(desk, key, label="x" * 101))[2] == "label"


async def test_an_operator_names_any_agent(desk: Desk) -> None:
    key = await desk.agent("boss", operator=True)
    assert (await mint(desk, key, agent="mailer"))["agent"] == "mailer"
    assert (await refused(desk, key, agent="x" * 201))[2] == "agent"


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({"ttl": 0}, "ttl"),
        ({"ttl": MAX_TTL + 1}, "ttl"),
        ({"ttl": -5}, "ttl"),
        ({"ttl": "600"}, "ttl"),
        ({"ttl": True}, "ttl"),
        ({"ttl": 1.5}, "ttl"),
        ({"ttl": 600, "renewable_for": 599}, "renewable_for"),
        ({"renewable_for": MAX_RENEWABLE + 1}, "renewable_for"),
        ({"routes": ["nowhere"]}, "routes"),
        ({"routes": "kit"}, "routes"),
        ({"routes": [1]}, "routes"),
        ({"routes": []}, "limits"),
        ({"routes": [""]}, "limits"),
        ({"tools": []}, "limits"),
        ({"routes": ["kit"] * 201}, "routes"),
        ({"tools": [f"Gmail.T{n}" for n in range(MOST_NAMES + 1)]}, "limits"),
        ({"tools": ["Gmail"]}, "tools"),
        ({"tools": ["readonly"]}, "tools"),
        ({"route": ["kit"]}, "unknown_field"),
        ({"operator": True}, "unknown_field"),
        ({"agent": 7}, "agent"),
        ({"agent": "a\nb"}, "agent"),
    ],
)
async def test_what_cannot_be_meant_is_refused(desk: Desk, body: dict[str, Any], reason: str) -> None:
    assert await refused(desk, None, **body) == (400, "bad_request", reason)


async def test_users_who_cannot_be(desk: Desk) -> None:
    for user in ("", " ", None):
        assert (await refused(desk, None, user_id=user))[:2] == (400, "user_missing")
    assert (await refused(desk, None, user_id="a,b"))[:2] == (400, "user_missing")


async def test_tools_alone_close_the_routes_and_routes_alone_leave_tools_on_them(desk: Desk) -> None:
    made = await mint(desk, None, tools=["read_only"])
    assert (made["routes"], made["tools"]) == ([], ["read_only"])
    made = await mint(desk, None, routes=["kit"])
    assert (made["routes"], made["tools"]) == (["kit"], None)
    made = await mint(desk, None, routes=["kit"], tools=[])
    assert (made["routes"], made["tools"]) == (["kit"], [])
    made = await mint(desk, None)
    assert (made["routes"], made["tools"]) == (None, None)


async def test_where_nobody_would_take_it_none_is_made(start: Start) -> None:
    desk = await start(identity={"callers": [{"kind": "loopback", "operator": True}]})
    assert await refused(desk, None) == (400, "bad_request", "kind_not_configured")


async def test_pages(desk: Desk) -> None:
    key = await desk.agent("app")
    made = [(await mint(desk, key, user_id=f"user-{n % 2}"))["id"] for n in range(5)]
    first = (await desk.ask("GET", "/v1/sessions?limit=3", key=key))[2]
    second = (await desk.ask("GET", f"/v1/sessions?limit=3&after={first['after']}", key=key))[2]
    assert {one["id"] for one in first["items"] + second["items"]} == set(made)
    assert second["after"] is None
    one = (await desk.ask("GET", "/v1/sessions?user_id=user-1", key=key))[2]["items"]
    assert {item["id"] for item in one} == {made[1], made[3]}


class Time:
    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


Made = tuple[Sessions, Time]


@pytest.fixture
def timed(desk: Desk) -> Made:
    """The room itself, at a time that is ours."""
    clock = Time()
    app = desk.app

    async def changed(_digest: str) -> None: ...

    return (
        Sessions(
            app.vault,
            routes=lambda: ("kit",),
            accepted=lambda: True,
            changed=changed,
            metrics=app.metrics,
            clock=clock,
            random=os.urandom,
        ),
        clock,
    )


async def reason(work: Awaitable[object], kind: type[Refusal] = BadRequest) -> str | None:
    with pytest.raises(kind) as caught:
        await work
    return caught.value.reason


async def test_renewals_stop_at_the_bound_and_at_the_end(timed: Made) -> None:
    sessions, clock = timed
    caller = dataclasses.replace(APP, key=None)
    began = int(clock.now)
    one = (await sessions.create(caller, user="alice", ttl=100, renewable_for=250)).session
    clock.now = began + 99.9
    one = await sessions.renew(caller, one.id)
    assert one.expires_at == began + 199
    clock.now = began + 198.9
    one = await sessions.renew(caller, one.id, 10_000)
    assert one.expires_at == one.renewable_until == began + 250
    assert await reason(sessions.renew(caller, one.id)) == "not_renewable"
    clock.now = began + 250
    assert await reason(sessions.renew(caller, one.id)) == "expired"
    late = (await sessions.create(caller, user="alice", ttl=100, renewable_for=250)).session
    clock.now += 100
    assert await reason(sessions.renew(caller, late.id)) == "expired", "on the second, as at the desk"
    fixed = (await sessions.create(caller, user="alice", ttl=100)).session
    assert await reason(sessions.renew(caller, fixed.id)) == "not_renewable"
    assert await reason(sessions.renew(caller, one.id, 0)) == "ttl"


async def test_a_key_that_ends_while_it_mints(timed: Made) -> None:
    sessions, _ = timed
    assert await reason(sessions.create(APP, user="alice"), CallerUnknown) == "revoked_key", (
        "there is no such key"
    )


async def test_renewing_and_revoking_at_once(desk: Desk) -> None:
    """Whatever comes first: in the end it is revoked, and known to be."""
    key = await desk.agent("app")
    for _ in range(5):
        made = await mint(desk, key, ttl=60, renewable_for=7200)
        one = f"/v1/sessions/{made['id']}"
        works = [desk.ask("POST", f"{one}/renew", {"ttl": 600}, key=key) for _ in range(4)]
        works += [desk.ask("GET", one, key=made["key"]) for _ in range(4)]
        answers = await asyncio.gather(*works[:2], desk.ask("DELETE", one, key=key), *works[2:])
        assert {status for status, _, _ in answers} <= {200, 400, 401}
        status, _, said = await desk.ask("GET", one, key=made["key"])
        assert (status, said["reason"]) == (401, "revoked_key")
        assert (await desk.ask("GET", one, key=key))[2]["state"] == "revoked"


# --- waiting for a connection


async def test_a_wait_ends_when_the_user_has_reconnected(desk: Desk) -> None:
    ended = await desk.connect("alice")
    con = ended["connection_id"]
    text = (await mint(desk, await desk.agent("app")))["key"]
    path = f"/v1/connections/{con}/wait"
    status, _, said = await desk.ask("GET", f"{path}?seconds=30", key=text)
    assert (status, said["state"], said["reached"]) == (200, "active", True)
    await desk.ask("DELETE", f"/v1/connections/{con}")
    status, _, said = await desk.ask("GET", path, key=text)
    assert (status, said["state"], said["reached"]) == (200, "disconnected", False)
    status, _, said = await desk.ask("GET", f"{path}?seconds=1", key=text)
    assert (status, said["reached"]) == (200, False)
    waiting = asyncio.create_task(desk.ask("GET", f"{path}?seconds=30", key=text))
    await desk.connect("alice", key=text)
    status, _, said = await waiting
    assert (status, said["id"], said["state"], said["reached"]) == (200, con, "active", True)
    assert set(said) == {
        *("id", "user_id", "provider_id", "account", "state", "reached", "reason", "generation", "scopes"),
    }


async def test_a_wait_for_another_state(desk: Desk) -> None:
    con = (await desk.connect("alice"))["connection_id"]
    waiting = asyncio.create_task(
        desk.ask("GET", f"/v1/connections/{con}/wait?seconds=30&state=disconnected")
    )
    assert (await desk.ask("DELETE", f"/v1/connections/{con}"))[0] == 200
    assert (await waiting)[2]["reached"] is True
    status, _, said = await desk.ask("GET", f"/v1/connections/{con}/wait?state=well")
    assert (status, said["reason"]) == (400, "state")
    found = await desk.app.vault.find(ConnectionKey("default", "alice", "kit"))
    assert found is None or found.state is State.DISCONNECTED


@pytest.mark.scenario("I04")
async def test_a_wait_tells_strangers_nothing(desk: Desk) -> None:
    con = (await desk.connect("alice"))["connection_id"]
    bob = (await mint(desk, None, user_id="bob"))["key"]
    for key in (
        bob,
        await desk.agent(users=("bob",)),
        await desk.agent(tenant="acme", operator=True),
        await desk.agent(tenant="acme"),
    ):
        for name in (con, "con_none"):
            status, _, said = await desk.ask("GET", f"/v1/connections/{name}/wait?seconds=5", key=key)
            assert (status, said["code"]) == (404, "not_found")
    assert (await desk.ask("GET", f"/v1/connections/{con}/wait", key=await desk.agent(users=("alice",))))[
        0
    ] == 200


async def test_a_wait_is_over_when_authproxy_stops(desk: Desk) -> None:
    con = (await desk.connect("alice"))["connection_id"]
    path = f"/v1/connections/{con}/wait?seconds=59&state=misconfigured"
    waiting = asyncio.create_task(desk.ask("GET", path))
    inquiries = desk.app._inquiries
    assert inquiries is not None
    for _ in range(500):
        if inquiries._waits:
            break
        await asyncio.sleep(0.01)  # the other end of a socket has no other way to tell
    inquiries.close()
    assert (await waiting)[2]["reached"] is False
