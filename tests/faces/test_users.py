"""/v1/users: for operators of the tenant alone, strict in what it reads, the same however often it is asked."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pytest

from tests.faces.conftest import Desk


async def said(desk: Desk, method: str, path: str, body: object = None, **more: Any) -> tuple[int, Any]:
    status, _, answer = await desk.ask(method, path, body, **more)
    return status, answer


@pytest.mark.scenario("I10", "I04")
async def test_only_operators_of_the_tenant_have_users(desk: Desk) -> None:
    """The same answer whoever is named; and a name that another tenant has as well is another user."""
    await desk.connect("alice")
    plain = await desk.agent("plain")
    bound = await desk.agent("bound", users=("alice",))
    other = await desk.agent("boss", tenant="other", operator=True)
    for key in (plain, bound):
        for method, path in (
            ("GET", "/v1/users"),
            ("GET", "/v1/users/alice"),
            ("POST", "/v1/users/alice/disable"),
            ("POST", "/v1/users/nobody/disable"),
            ("POST", "/v1/users/alice/enable"),
        ):
            status, answer = await said(desk, method, path, key=key)
            assert (status, answer["code"]) == (404, "not_found"), (method, path)
    status, answer = await said(desk, "POST", "/v1/users/alice/disable", key=other)
    assert (status, answer["tenant"], answer["disconnected"], answer["known"]) == (200, "other", 0, False)
    status, answer = await said(desk, "POST", "/v1/users/Alice/disable", key=other)
    assert answer["similar"] == [], "what another tenant has is not told"
    status, answer = await said(desk, "GET", "/v1/users?disabled=true")
    assert (status, answer["items"]) == (200, [])
    status, answer = await said(desk, "GET", "/v1/users")
    found = [(one["user_id"], one["disabled"], one["connections"]) for one in answer["items"]]
    assert found == [("alice", False, 1)]
    status, answer = await said(desk, "GET", "/v1/tools?user_id=alice", key=plain)
    assert status == 200


@pytest.mark.scenario("I10")
async def test_a_credential_of_one_user_is_worth_nothing_while_they_are_disabled(desk: Desk) -> None:
    """Unless it is an operator's: their part is not that user's."""
    bound = await desk.agent("bound", users=("alice",))
    boss = await desk.agent("boss", users=("alice",), operator=True)
    await said(desk, "POST", "/v1/users/alice/disable")
    for path in ("/v1/tools", "/v1/sessions", "/v1/connections/con_1/wait"):
        status, answer = await said(desk, "GET", path, key=bound)
        assert (status, answer["code"], answer["act"]) == (403, "user_disabled", "ask_user")
    assert (await said(desk, "GET", "/v1/users", key=boss))[0] == 200
    assert (await said(desk, "POST", "/v1/users/alice/enable", key=boss))[0] == 200
    assert (await said(desk, "GET", "/v1/sessions", key=bound))[0] == 200


@pytest.mark.scenario("I10")
async def test_it_says_what_it_did_and_no_more_the_second_time(desk: Desk) -> None:
    ended = await desk.connect("alice")
    _, first = await said(desk, "POST", "/v1/users/alice/disable", {"reason": "left"})
    assert (first["disabled"], first["changed"], first["known"]) == (True, True, True)
    assert (first["reason"], first["changed_by"]) == ("left", "kit")
    assert first["revoked_upstream"] == {"yes": 1, "pending": 0, "failed": 0, "unsupported": 0}
    (one,) = first["ended"]
    assert (one["provider_id"], one["account"], one["revoked_upstream"]) == ("kit", "default", "yes")
    assert one["id"] == ended["connection_id"]
    _, second = await said(desk, "POST", "/v1/users/alice/disable", {"reason": "said again"})
    assert (second["changed"], second["ended"], second["reason"]) == (False, [], "left")
    assert second["disabled_at"] == first["disabled_at"]
    status, answer = await said(desk, "GET", f"/v1/connections/{one['id']}/timeline")
    assert (status, answer["well"], answer["who_must_act"]) == (200, False, "operator")
    assert "user.disabled" in [line["kind"] for line in answer["timeline"]]
    assert answer["standing"].startswith("alice is disabled since")
    for changed in (True, False):
        _, answer = await said(desk, "POST", "/v1/users/alice/enable")
        assert (answer["disabled"], answer["changed"], answer["connections"]) == (False, changed, 0)
    await desk.connect("alice")


@pytest.mark.scenario("I10")
async def test_kept_grants_are_not_refreshed_on_demand_either(desk: Desk) -> None:
    made = await desk.connect("alice")
    await said(desk, "POST", "/v1/users/alice/disable", {"keep_grants": True})
    status, answer = await said(desk, "POST", f"/v1/connections/{made['connection_id']}/refresh")
    assert (status, answer["code"]) == (403, "user_disabled")
    agent = await desk.agent("worker")
    status, answer = await said(desk, "GET", f"/v1/connections/{made['connection_id']}/wait", key=agent)
    assert (status, answer["code"]) == (403, "user_disabled")


@pytest.mark.parametrize(
    ("name", "body", "reason"),
    [
        ("alice", {"keep_grant": True}, "unknown_field"),
        ("alice", {"keep_grants": "yes"}, "keep_grants"),
        ("alice", {"keep_grants": 1}, "keep_grants"),
        ("alice", {"reason": "x" * 201}, "reason"),
        ("alice", {"reason": "a\nb"}, "reason"),
        ("alice", [], "not_json"),
        (" alice", {}, "value"),
        ("alice ", {}, "value"),
        ("ali\u200bce", {}, "value"),
        ("ali\u202ece", {}, "value"),
        ("a,b", {}, "value"),
        ("a" * 257, {}, "value"),
    ],
)
async def test_what_is_not_meant_so_disables_nobody(desk: Desk, name: str, body: object, reason: str) -> None:
    path = f"/v1/users/{quote(name, safe='')}/disable"
    status, answer = await said(desk, "POST", path, body)
    assert status == 400
    assert answer["reason"] == reason
    assert (await said(desk, "GET", "/v1/users?disabled=true"))[1]["items"] == []


async def test_names_of_every_kind_are_taken_by_every_letter(desk: Desk) -> None:
    for name in ("a/b", "Zoë", "zoe\u0308", "a b", "100%", "~", "auth0|1?x#y", "\U0001f600"):
        _, answer = await said(desk, "POST", f"/v1/users/{quote(name, safe='')}/disable")
        assert answer["user_id"] == name
        _, shown = await said(desk, "GET", f"/v1/users/{quote(name, safe='')}")
        assert (shown["user_id"], shown["disabled"]) == (name, True)
    _, listed = await said(desk, "GET", "/v1/users?disabled=true&limit=3")
    assert len(listed["items"]) == 3
    _, rest = await said(desk, "GET", f"/v1/users?disabled=true&after={quote(listed['after'], safe='')}")
    assert len(rest["items"]) == 5
    await desk.connect("Alice")
    _, answer = await said(desk, "POST", "/v1/users/ALICE/disable")
    assert (answer["known"], answer["similar"]) == (False, ["Alice"])
    assert (await said(desk, "GET", "/v1/users?disabled=perhaps"))[0] == 400
