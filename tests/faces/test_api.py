"""/v1: who may ask for what, in which shape, and that no answer ever has a token in it."""

from __future__ import annotations

import asyncio
import itertools
import json
from typing import Any

import pytest
from aiohttp.test_utils import make_mocked_request

from authproxy.core.errors import ConnectionRequired
from authproxy.core.model import ConnectionKey
from authproxy.faces.health import Health
from authproxy.faces.inquiry import MAX_WAITS
from tests.faces.conftest import Desk, Start
from tests.kit.provider import CANARY

WANT = {"provider_id": "kit", "provider_type": "oauth2", "oauth2": {"scopes": ["read"]}}
OBJECTS = [
    ("GET", "/v1/connections/{con}"),
    ("DELETE", "/v1/connections/{con}"),
    ("POST", "/v1/connections/{con}/refresh"),
    ("GET", "/v1/connections/{con}/timeline"),
    ("DELETE", "/v1/admin/user_connections/{con}"),
    ("GET", "/v1/auth/status?id={con}"),
    ("GET", "/v1/auth/status?id={flow}&wait=1"),
    ("POST", "/v1/auth/confirm_user"),
]
COLLECTIONS = [("GET", "/v1/connections"), ("GET", "/v1/admin/user_connections"), ("GET", "/v1/audit")]


def body_of(method: str, path: str, flow: str) -> object:
    if path.endswith("confirm_user"):
        return {"flow_id": flow, "user_id": "alice"}
    return {} if method == "POST" else None


@pytest.mark.scenario("I04")
async def test_what_belongs_to_others_is_not_there(desk: Desk) -> None:
    ended = await desk.connect("alice")
    names = {"con": ended["connection_id"], "flow": (await desk.begin("carol"))["id"]}
    callers = {
        "another tenant's operator": await desk.agent(tenant="acme", operator=True),
        "another tenant's agent": await desk.agent(tenant="acme"),
        "another user's agent": await desk.agent(users=("bob",)),
    }
    for who, key in callers.items():
        for method, path in OBJECTS:
            where = path.format(**names)
            code, headers, said = await desk.ask(method, where, body_of(method, path, names["flow"]), key=key)
            assert (code, headers["x-authproxy-error"]) == (404, "not_found"), (who, method, path, said)
        for method, path in COLLECTIONS:
            code, _, said = await desk.ask(method, path, key=key)
            assert code == 404 or said["items"] == [], (who, path, said)
    # and all of it is still there
    assert (await desk.ask("GET", f"/v1/connections/{names['con']}"))[2]["state"] == "active"


@pytest.mark.scenario("I04", "I12")
async def test_the_operators_part_does_not_exist_for_agents(desk: Desk) -> None:
    ended = await desk.connect("alice")
    key = await desk.agent()
    for method, path in [*OBJECTS[:5], *COLLECTIONS]:
        here = path.format(con=ended["connection_id"], flow="")
        there = path.format(con="con_none", flow="")
        code, _, said = await desk.ask(method, here, body_of(method, path, ""), key=key)
        assert (code, said["code"], said["reason"]) == (404, "not_found", "operator_needed")
        again, _, other = await desk.ask(method, there, body_of(method, path, ""), key=key)
        assert (again, other["title"]) == (code, said["title"])


async def test_an_operator_sees_the_tenant_and_acts_for_its_users_only(desk: Desk) -> None:
    ended = await desk.connect("alice")
    key = await desk.agent(users=("bob",), operator=True)
    assert (await desk.ask("GET", f"/v1/connections/{ended['connection_id']}", key=key))[0] == 200
    body = {"user_id": "alice", "auth_requirement": WANT}
    assert (await desk.ask("POST", "/v1/auth/authorize", body, key=key))[0] == 403


@pytest.mark.scenario("B11")
async def test_a_connection_made_here_is_known_here_at_once(desk: Desk) -> None:
    key = ConnectionKey("default", "alice", "kit")
    with pytest.raises(ConnectionRequired):
        await desk.app.tokens.token(key, scopes=["read"], agent="kit")
    await desk.connect("alice")
    usable = await desk.app.tokens.token(key, scopes=["read"], agent="kit")
    assert usable.header == desk.provider.grants[0].bearer


@pytest.mark.scenario("I05")
async def test_an_agent_starts_flows_only_for_its_users(desk: Desk) -> None:
    key = await desk.agent(users=("alice", "team-*"))
    for user, expected in (("alice", 200), ("team-7", 200), ("bob", 403), ("", 400), ("ALICE", 403)):
        body = {"user_id": user, "auth_requirement": WANT}
        assert (await desk.ask("POST", "/v1/auth/authorize", body, key=key))[0] == expected, user


@pytest.mark.scenario("I12", "F02")
async def test_no_answer_has_a_credential_in_it(desk: Desk) -> None:
    ended = await desk.connect("alice")
    key = await desk.agent(operator=True)
    con = ended["connection_id"]
    seen = [json.dumps(ended)]
    for method, path in [
        ("GET", "/v1/connections"),
        ("GET", f"/v1/connections/{con}"),
        ("POST", f"/v1/connections/{con}/refresh"),
        ("GET", f"/v1/connections/{con}/timeline"),
        ("GET", "/v1/admin/user_connections"),
        ("GET", f"/v1/auth/status?id={con}"),
        ("GET", f"/v1/auth/status?id={ended['id']}"),
        ("GET", "/v1/audit?limit=1000"),
        ("GET", "/metrics"),
        ("DELETE", f"/v1/connections/{con}"),
    ]:
        code, headers, said = await desk.ask(method, path, {} if method == "POST" else None, key=key)
        assert code == 200, (method, path, said)
        seen.append(json.dumps([dict(headers), said]))
    text = "\n".join(seen)
    assert desk.provider.grants[0].refresh[1:], "it was refreshed"
    assert CANARY not in text
    assert key not in text
    for secret in desk.provider.secrets:
        assert secret not in text


async def test_a_connections_life_through_the_api(desk: Desk) -> None:
    ended = await desk.connect("alice")
    con = ended["connection_id"]
    _, _, before = await desk.ask("GET", f"/v1/connections/{con}")
    code, _, after = await desk.ask("POST", f"/v1/connections/{con}/refresh", {})
    assert (code, after["generation"]) == (200, before["generation"] + 1)
    _, _, story = await desk.ask("GET", f"/v1/connections/{con}/timeline")
    kinds = [line["kind"] for line in story["timeline"]]
    assert kinds[-1] == "refresh.succeeded"
    assert {"flow.started", "connection.connected"} <= set(kinds)
    assert story["well"] is True
    code, _, gone = await desk.ask("DELETE", f"/v1/connections/{con}")
    assert (code, gone["state"], gone["revoked_upstream"]) == (200, "disconnected", "yes")
    assert len(desk.provider.grants[0].revoked) == 2
    _, _, story = await desk.ask("GET", f"/v1/connections/{con}/timeline")
    assert (story["well"], "connect kit --user alice" in story["advice"]) == (False, True)
    code, _, told = await desk.ask("POST", f"/v1/connections/{con}/refresh", {})
    assert (code, told["code"]) == (404, "not_found")
    assert (await desk.ask("DELETE", f"/v1/connections/{con}"))[0] == 404


@pytest.mark.scenario("I09")
async def test_disconnect_tells_the_truth_when_the_provider_is_away(desk: Desk) -> None:
    ended = await desk.connect("alice")
    desk.provider.close()
    code, _, gone = await desk.ask("DELETE", f"/v1/connections/{ended['connection_id']}")
    assert (code, gone["state"], gone["revoked_upstream"]) == (200, "disconnected", "pending")
    _, _, shown = await desk.ask("GET", f"/v1/connections/{ended['connection_id']}")
    assert (shown["state"], shown["revoked_upstream"]) == ("disconnected", "pending")
    _, _, story = await desk.ask("GET", f"/v1/connections/{ended['connection_id']}/timeline")
    assert "the provider has not confirmed it yet" in story["timeline"][-1]["text"]


@pytest.mark.scenario("H04", "H05")
async def test_a_wait_is_woken_by_the_end_and_bounded_by_its_length(desk: Desk) -> None:
    flow = await desk.begin("alice")
    path = f"/v1/auth/status?id={flow['id']}"
    assert (await desk.ask("GET", path))[2]["status"] == "not_started"
    waiting = asyncio.create_task(desk.ask("GET", f"{path}&wait=59"))
    await desk.consent(flow["url"])
    code, _, ended = await asyncio.wait_for(waiting, 10)
    assert (code, ended["status"], ended["state"]) == (200, "completed", "completed")
    assert (await desk.ask("GET", f"{path}&wait=59"))[2]["status"] == "completed"


@pytest.mark.scenario("H06", "I11")
async def test_waits_are_bounded_and_end_with_who_waits(desk: Desk) -> None:
    flow = await desk.begin("alice")
    path = f"/v1/auth/status?id={flow['id']}&wait=59"
    waiting = []
    for _ in range(MAX_WAITS):
        _, writer = await asyncio.open_connection("127.0.0.1", desk.port)
        writer.write(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
        waiting.append(writer)
    flows = desk.app.flows
    while sum(len(told) for told in flows._waiting.values()) < MAX_WAITS:
        assert (await desk.ask("GET", "/livez"))[0] == 200
    code, headers, told = await desk.ask("GET", path)
    assert (code, told["code"], headers["retry-after"]) == (503, "overloaded", "1")
    assert (await desk.ask("GET", path.partition("&")[0]))[0] == 200
    other = await desk.agent("other")
    assert (await desk.ask("GET", f"/v1/auth/status?id={flow['id']}&wait=1", key=f"Bearer {other}"))[0] == 200
    for writer in waiting:
        writer.close()
    async with asyncio.timeout(20):
        while flows._waiting:
            assert (await desk.ask("GET", "/livez"))[0] == 200


async def test_waits_end_when_the_process_does(start: Start) -> None:
    desk = await start()
    flow = await desk.begin("alice")
    waiting = asyncio.create_task(desk.ask("GET", f"/v1/auth/status?id={flow['id']}&wait=59"))
    while not desk.app.flows._waiting:
        assert (await desk.ask("GET", "/livez"))[0] == 200
    await desk.app.close()
    code, _, told = await asyncio.wait_for(waiting, 5)
    assert (code, told["status"]) == (200, "not_started")


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "not_json"),
        (b"[]", "not_json"),
        (b"{", "not_json"),
        (b"[" * 60000, "not_json"),
        (b"\xff", "not_json"),
        ({"user_id": "alice"}, "auth_requirement"),
        ({"user_id": "alice", "auth_requirement": []}, "auth_requirement"),
        ({"user_id": "alice", "auth_requirement": {}}, "provider_id"),
        ({"user_id": "alice", "auth_requirement": {"provider_id": 7}}, "provider_id"),
        ({"user_id": "alice", "auth_requirement": {"provider_id": "no"}}, "unknown_provider"),
        ({"user_id": "alice", "auth_requirement": {**WANT, "provider_type": "saml"}}, "provider_type"),
        ({"user_id": "alice", "auth_requirement": {**WANT, "oauth2": {"scopes": "read"}}}, "scopes"),
        ({"user_id": "alice", "auth_requirement": {**WANT, "oauth2": {"scopes": ["a b"]}}}, "scope_invalid"),
        ({"user_id": ["alice"], "auth_requirement": WANT}, "user_id"),
        ({"user_id": "a\nb", "auth_requirement": WANT}, "user_id"),
        ({"user_id": "ali\u202ece", "auth_requirement": WANT}, "user_id"),
        ({"user_id": "alice,bob", "auth_requirement": WANT}, "value"),
        ({"user_id": "a" * 257, "auth_requirement": WANT}, "value"),
        ({"user_id": "alice", "account": "a" * 257, "auth_requirement": WANT}, "account"),
        ({"auth_requirement": WANT}, None),
    ],
)
async def test_bad_requests_name_what_is_wrong(desk: Desk, body: object, reason: str | None) -> None:
    code, headers, said = await desk.ask("POST", "/v1/auth/authorize", body, Content_Type="application/json")
    assert (code, said["act"], said["reason"]) == (400, "fix_request", reason)
    assert headers["content-type"].startswith("application/problem+json")


@pytest.mark.scenario("H09")
@pytest.mark.parametrize(
    "uri",
    [
        "//evil.example",
        "/\\evil.example",
        "https:evil.example",
        "https://evil.example",
        "javascript:alert(1)",
    ],
)
async def test_next_uri_is_checked_at_the_start(desk: Desk, uri: str) -> None:
    body = {"user_id": "alice", "auth_requirement": WANT, "next_uri": uri}
    assert (await desk.ask("POST", "/v1/auth/authorize", body))[0] == 400


@pytest.mark.parametrize(
    ("method", "path", "fields"),
    [
        ("POST", "/v1/auth/authorize", {"Content_Type": "text/plain"}),
        ("POST", "/v1/auth/authorize", {"Content_Type": "application/x-www-form-urlencoded"}),
        ("POST", "/v1/auth/authorize", {"Origin": "https://evil.example"}),
        ("GET", "/v1/connections", {"Origin": "null"}),
        ("GET", "/v1/connections", {"Sec_Fetch_Site": "cross-site"}),
        ("GET", "/v1/connections", {"Sec_Fetch_Site": "same-site"}),
        ("GET", "/v1/connections", {"Host": "rebound.evil.example"}),
    ],
)
async def test_web_pages_have_no_reach(desk: Desk, method: str, path: str, fields: dict[str, str]) -> None:
    body = json.dumps({"user_id": "alice", "auth_requirement": WANT}).encode() if method == "POST" else None
    code, headers, _ = await desk.ask(method, path, body, **fields)
    assert code == 400
    assert not any(name.startswith("access-control-") for name in headers)


@pytest.mark.scenario("I05")
async def test_strangers_behind_a_local_reverse_proxy_are_not_local(desk: Desk) -> None:
    code, headers, said = await desk.ask("GET", "/v1/connections", X_Forwarded_For="203.0.113.9")
    assert (code, said["code"], headers["www-authenticate"]) == (
        401,
        "caller_unknown",
        'Bearer realm="authproxy"',
    )
    assert (await desk.ask("GET", "/v1/connections", key="apx_wrong"))[0] == 401


@pytest.mark.scenario("J07")
async def test_health_is_about_us_and_never_about_a_provider(desk: Desk) -> None:
    await desk.connect("alice")
    desk.provider.close()
    for path in ("/livez", "/readyz", "/v1/health"):
        assert (await desk.ask("GET", path))[0] == 200
    _, headers, page = await desk.ask("GET", "/metrics")
    assert headers["content-type"].startswith("text/plain")
    assert 'authproxy_connections{provider="kit",state="active"} 1.0' in page
    await desk.app.vault.close()
    assert (await desk.ask("GET", "/livez"))[0] == 200
    code, headers, said = await desk.ask("GET", "/readyz")
    assert (code, said["code"], "retry-after" in headers) == (503, "store_unavailable", True)
    assert (await desk.ask("GET", "/v1/health"))[2] == {"healthy": False}
    assert (await desk.ask("GET", "/metrics"))[0] == 200


@pytest.mark.scenario("J03", "I11")
async def test_scrapes_take_a_fifth_of_the_stores_time_at_most(desk: Desk) -> None:
    ticks = itertools.count(step=10.0)  # a full store: each page takes long
    health = Health(desk.app.control, tick=lambda: next(ticks))

    async def scrape() -> str:
        page = await health.metrics(make_mocked_request("GET", "/metrics"))
        assert isinstance(page.body, bytes)
        return page.body.decode()

    active = 'authproxy_connections{provider="kit",state="active"} '
    await desk.connect("alice")
    pages = await asyncio.gather(*(scrape() for _ in range(4)))
    assert {active + "1.0" in page for page in pages} == {True}
    await desk.connect("bob")
    assert active + "1.0" in await scrape(), "shown again"
    for _ in range(3):
        last = await scrape()
    assert active + "2.0" in last


async def test_the_trail_can_be_searched(desk: Desk) -> None:
    await desk.connect("alice")
    await desk.connect("bob")
    await desk.app.trail.flush()
    _, _, found = await desk.ask("GET", "/v1/audit?user_id=alice&kind=connection.*")
    assert [(one["kind"], one["user"]) for one in found["items"]] == [("connection.connected", "alice")]
    assert {"seq", "prev", "hash", "chain"} <= found["items"][0].keys()
    for query in ("limit=0", "limit=x", "since=-1", "limit=1&limit=2"):
        assert (await desk.ask("GET", f"/v1/audit?{query}"))[0] == 400


async def test_pages_of_connections(desk: Desk) -> None:
    for number in range(3):
        await desk.connect(f"user-{number}")
    seen: list[Any] = []
    after = ""
    while True:
        _, _, page = await desk.ask("GET", f"/v1/connections?limit=2&after={after}")
        seen += page["items"]
        if page["after"] is None:
            break
        after = page["after"]
    paged = "/v1/admin/user_connections?limit=1&offset="
    pages = [(await desk.ask("GET", f"{paged}{offset}"))[2] for offset in range(4)]
    assert [one["id"] for page in pages for one in page["items"]] == [one["id"] for one in seen]
    assert [page["total_count"] for page in pages] == [2, 3, 3, 3]
    assert sorted(one["user_id"] for one in seen) == ["user-0", "user-1", "user-2"]
    assert (await desk.ask("GET", "/v1/connections?state=needs_reauth"))[2]["items"] == []
    assert (await desk.ask("GET", "/v1/connections?state=odd"))[0] == 400
