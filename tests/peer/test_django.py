"""authproxy against an OAuth server that we did not write: consent, expiry, rotation, revocation, reconnection."""

from __future__ import annotations

import json
import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.kit.browser import Browser, forms
from tests.peer.conftest import KINDS, LIFE, House


def _expire() -> None:
    time.sleep(LIFE + 0.2)  # real time is what this server's tokens end by


@pytest.mark.scenario("B20", "D11", "H08")
@pytest.mark.parametrize("kind", KINDS)
def test_a_user_connects_and_calls(house: House, kind: str) -> None:
    before = house.proxy.fetch(
        house.proxy.listen, "GET", f"/{kind}/api/whoami", headers={"X-User-ID": f"u-{kind}"}
    )
    assert before[0] == 403
    assert json.loads(before[2])["code"] == "connection_required"
    ended = house.connect(f"u-{kind}", kind)
    assert ended["user_id"] == f"u-{kind}"
    assert "token" not in json.dumps(ended.get("context") or {}) or not (ended.get("context") or {}).get(
        "token"
    )
    status, headers, body = house.call(f"u-{kind}", kind)
    assert (status, body["user"]) == (200, "alice")
    assert "x-authproxy-error" not in headers
    (call,) = [
        e for e in house.peer.seen("authorization_code") if (e["client_id"] == kind or kind == "basic")
    ][-1:]
    assert call["basic"] is (kind == "basic")
    assert call["secret_in_body"] is (kind == "post")


@pytest.mark.scenario("B01", "A01", "D11", "B20")
def test_an_expired_token_is_renewed_and_the_rotated_one_kept(house: House) -> None:
    """For each kind of client; their tokens expire together, for this server's end in real time."""
    for kind in KINDS:
        house.connect(f"rotating-{kind}", kind)
    before = len(house.peer.seen())
    calls: dict[str, list[dict[str, Any]]] = {kind: [] for kind in KINDS}
    for _ in range(2):
        _expire()
        for kind in KINDS:
            status, _, body = house.call(f"rotating-{kind}", kind)
            assert (status, body["user"]) == (200, "alice"), kind
            (call,) = house.peer.seen()[before:]
            calls[kind].append(call)
            before += 1
    for kind, (first, second) in calls.items():
        assert (first["status"], second["status"]) == (200, 200), kind
        assert first["presented"] != second["presented"], "the rotated refresh token was the one sent next"


@pytest.mark.scenario("A01", "D4")
def test_fifty_at_once_on_an_expired_token_cost_one_token_call(house: House) -> None:
    house.connect("crowd")
    _expire()
    before = len(house.peer.seen())
    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(lambda _: house.call("crowd"), range(50)))
    assert [a[0] for a in answers] == [200] * 50
    assert [c["status"] for c in house.peer.seen()[before:]] == [200]


@pytest.mark.scenario("D1", "D07", "D2")
@pytest.mark.parametrize("body", [None, b"", b"x" * 1024])
def test_a_token_ended_before_its_time_is_renewed_by_the_401(house: House, body: bytes | None) -> None:
    user = f"spoilt-{'none' if body is None else len(body)}"
    house.connect(user, login="bob")
    before = len(house.peer.seen())
    house.peer.spoil("bob")
    status, headers, answer = house.call(user, method="GET" if body is None else "POST", body=body)
    assert (status, answer) == (200, {"user": "bob", "length": len(body or b"")})
    assert "x-authproxy-retry" not in headers
    assert len(house.peer.seen()) == before + 1


@pytest.mark.scenario("A18", "I09")
def test_disconnecting_revokes_at_the_server(house: House) -> None:
    ended = house.connect("leaver", login="bob")
    before = house.peer.alive("bob")
    (connection,) = house.connections("leaver")
    assert ended["id"]
    status, _ = house.proxy.ask("DELETE", f"/v1/connections/{connection['id']}")
    assert status in (200, 204)
    deadline = time.monotonic() + 5
    while house.peer.alive("bob")["refresh"] != before["refresh"] - 1:
        assert time.monotonic() < deadline, "the refresh token is still good at the server"
        time.sleep(0.05)  # the server is told behind the answer's back
    status, _, problem = house.call("leaver")
    assert (status, problem["code"]) == (403, "connection_required")


@pytest.mark.scenario("B04", "J01", "H10", "E14")
def test_a_grant_ended_at_the_server_asks_for_the_user_and_mends_in_place(house: House) -> None:
    house.connect("returning", login="bob")
    (first,) = house.connections("returning")
    house.peer.end("bob")
    status, headers, problem = house.call("returning")
    assert (status, problem["code"], problem["act"]) == (403, "connection_expired", "ask_user")
    assert headers["x-authproxy-error"] == "connection_expired"
    token_calls = len(house.peer.seen())
    for _ in range(5):
        assert house.call("returning")[2]["code"] == "connection_expired"
    assert len(house.peer.seen()) == token_calls, "a dead grant is not hammered (B11)"
    (ill,) = house.connections("returning")
    assert (ill["id"], ill["state"]) == (first["id"], "needs_reauth")

    page = house.consent(problem["connect_url"], "bob")
    assert page.status == 200, page.text[:500]
    assert house.call("returning")[2]["user"] == "bob"
    (well,) = house.connections("returning")
    assert (well["id"], well["state"]) == (first["id"], "active")
    assert well["generation"] > ill["generation"]


@pytest.mark.scenario("H04")
def test_a_user_who_declines_is_told_apart_from_one_who_waits(house: House) -> None:
    flow = house.proxy.begin("decliner", "public", "read")
    browser = Browser()
    page = browser.consent(flow["url"])
    page = browser.submit(forms(page)[0], username="alice", password="alice-password")
    form = forms(page)[0]
    form.fields.pop("allow", None)
    browser.submit(form)
    status, ended = house.proxy.ask("GET", f"/v1/auth/status?id={flow['id']}")
    assert (status, ended["status"], ended["state"]) == (200, "failed", "denied")
    begun = time.monotonic()
    status, problem = house.proxy.ask("GET", f"/v1/auth/status?id={flow['id']}&wait=30")
    assert (status, problem["act"]) == (403, "ask_user"), "a wait that cannot end well is refused, so it ends"
    assert time.monotonic() - begun < 5
    assert house.call("decliner")[2]["code"] == "connection_required"


@pytest.mark.scenario("H03")
def test_a_callback_is_good_once(house: House) -> None:
    flow = house.proxy.begin("twice", "public", "read")
    browser = Browser()
    house.consent(flow["url"], browser=browser)
    (callback,) = {p.url for p in browser.seen if "/callback/" in p.url}
    before = len(house.peer.seen("authorization_code"))
    for other in (browser, Browser()):
        assert other.open(callback).status in (200, 400, 403, 404, 409, 410)
    assert len(house.peer.seen("authorization_code")) == before
    assert house.call("twice")[0] == 200


@pytest.mark.scenario("J04", "F02")
def test_its_words_never_hold_a_token(house: House) -> None:
    """The server's own database knows every token it gave; none stands in what authproxy said."""
    for kind in KINDS:
        house.connect(f"told-{kind}", kind)
        assert house.call(f"told-{kind}", kind)[0] == 200
    database = sqlite3.connect(house.proxy.directory / "peer.db")
    try:
        tokens = [row[0] for row in database.execute("select token from oauth2_provider_accesstoken")]
        tokens += [row[0] for row in database.execute("select token from oauth2_provider_refreshtoken")]
    finally:
        database.close()
    assert len(tokens) > 5
    words = house.proxy.words()
    assert not [token for token in tokens if token[:12] in words]
    assert "CANARY" not in words
