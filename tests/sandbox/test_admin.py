"""The admin endpoint, and who it answers."""

from __future__ import annotations

from typing import Any

import pytest

from authproxy.sandbox import Switches
from tests.sandbox.app import App, Reply


async def admin(app: App, method: str, path: str, body: Any = None, **headers: str) -> Reply:
    json = {} if method == "GET" else {"json": {} if body is None else body}
    return await app.call(method, f"/admin/{path}", headers=headers, **json)


async def test_switches_are_shown_with_their_meaning(app: App) -> None:
    told = (await admin(app, "GET", "switches")).json
    assert set(told) == set(Switches.known())
    assert told["grace_mode"]["value"] == "same_successor"
    assert told["grace_mode"]["takes"] == ['"same_successor"', '"sibling"']
    assert told["rotate"]["takes"] == ["boolean", "null"]


async def test_switches_are_turned_and_reset(app: App) -> None:
    turned = await admin(app, "POST", "switches", {"status": 503, "narrow_scopes": ["read"]})
    assert (turned.status, turned.json) == (200, {"status": 503, "narrow_scopes": ["read"]})
    assert app.sandbox.switches.status == 503
    assert (await app.refresh("x")).status == 503
    reset = await admin(app, "PUT", "switches", {"delay_s": 0.01})
    assert reset.json == {"delay_s": 0.01}
    assert (await admin(app, "PUT", "switches")).json == {}
    assert app.sandbox.switches == Switches()


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("switches", {"nonsense": 1}),
        ("switches", {"status": "503"}),
        ("switches", [1]),
        ("expire", {"user": 1}),
        ("expire", {"users": "alice"}),
        ("revoke-user", {}),
        ("password-change", {"user": ""}),
        ("clients", {}),
        ("clients", {"client_id": "x", "auth": ["magic"]}),
        ("clients", {"client_id": "x", "auth": ["client_secret_basic"]}),
        ("clients", {"client_id": "x", "redirect_uris": "https://x.example/"}),
        ("clients", {"client_id": "x", "color": "red"}),
    ],
)
async def test_wrong_bodies_are_refused(app: App, path: str, body: Any) -> None:
    refused = await admin(app, "POST", path, body)
    assert refused.status == 400
    assert refused.json["error"]


async def test_unknown_switch_lists_the_known(app: App) -> None:
    refused = (await admin(app, "POST", "switches", {"rotat": True})).json["error"]
    for name in Switches.known():
        assert name in refused


async def test_events(app: App) -> None:
    alice, bob = await app.connect("alice"), await app.connect("bob")
    assert (await admin(app, "POST", "expire", {"user": "alice"})).json == {"expired": 1}
    assert not await app.works(alice["access_token"])
    assert (await admin(app, "POST", "expire")).json == {"expired": 1}
    assert (await admin(app, "POST", "revoke-user", {"user": "alice"})).json == {"revoked": 1}
    assert (await admin(app, "POST", "password-change", {"user": "bob"})).json == {"revoked": 1}
    assert (await app.refresh(bob["refresh_token"])).status == 400


async def test_a_copy_used_elsewhere_spends_the_refresh_token(app: App) -> None:
    """Seen in no ledger: it was not the client under test. The client's own next refresh is reuse."""
    alice, bob = await app.connect("alice"), await app.connect("bob")
    before = (await admin(app, "GET", "ledger")).json["requests"]
    assert (await admin(app, "POST", "use-elsewhere", {"user": "alice"})).json == {"redeemed": 1}
    assert (await admin(app, "GET", "ledger")).json["requests"] == before
    assert await app.works(alice["access_token"])
    assert (await app.refresh(alice["refresh_token"])).status == 400
    assert not await app.works(alice["access_token"]), "the provider has ended the whole grant"
    assert (await app.refresh(bob["refresh_token"])).status == 200
    assert (await admin(app, "GET", "ledger")).json["violations"] == []


async def test_ledger_and_stats(app: App) -> None:
    got = await app.connect()
    await app.refresh(got["refresh_token"])
    await app.refresh(got["refresh_token"])
    ledger = await admin(app, "GET", "ledger")
    assert [call["grant_type"] for call in ledger.json["requests"]] == [
        "authorization_code",
        "refresh_token",
        "refresh_token",
    ]
    assert [one["kind"] for one in ledger.json["violations"]] == ["double_spend"]
    assert got["refresh_token"] not in ledger.body.decode()
    assert got["access_token"] not in ledger.body.decode()
    assert (await admin(app, "GET", "stats")).json["calls"]["token_calls"] == 3


async def test_clients_are_added_while_it_runs(app: App) -> None:
    body = {"client_id": "new", "client_secret": "s", "redirect_uris": ["https://new.example/callback"]}
    assert (await admin(app, "POST", "clients", body)).status == 201
    url = app.authorization_url(client_id="new", redirect_uri="https://new.example/callback")
    assert (await app.call("GET", url.removeprefix(app.root))).status == 200
    url = app.authorization_url(client_id="new")
    assert (await app.call("GET", url.removeprefix(app.root))).status == 400, (
        "no loopback where URIs are said"
    )


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"Host": "127.0.0.1.evil.example:8790"},
        {"Host": ""},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
@pytest.mark.parametrize(("method", "path"), [("GET", "ledger"), ("POST", "expire"), ("PUT", "switches")])
async def test_other_sites_pages_are_refused(
    app: App, method: str, path: str, headers: dict[str, str]
) -> None:
    assert (await admin(app, method, path, **headers)).status in (400, 403)


async def test_only_json_is_taken(app: App) -> None:
    for content_type in ("text/plain", "application/x-www-form-urlencoded"):
        sent = await app.call("POST", "/admin/expire", data=b"{}", headers={"Content-Type": content_type})
        assert sent.status == 415
    broken = await app.call("POST", "/admin/expire", data=b"{", headers={"Content-Type": "application/json"})
    assert broken.status == 400


async def test_the_same_page_may(app: App) -> None:
    assert (
        await admin(app, "GET", "stats", Origin=app.base, **{"Sec-Fetch-Site": "same-origin"})
    ).status == 200
