"""Each provider's dialect, from the documentation's side."""

from __future__ import annotations

import asyncio
import base64
from typing import Any
from urllib.parse import parse_qs

import aiohttp
import pytest

from authproxy.sandbox import Sandbox, Settings
from authproxy.sandbox.dialects import DIALECTS
from tests.sandbox.app import DEMO_SECRET, App, Clock, bearer


def at(demo: App, dialect: str, **extra: str) -> App:
    return App(
        demo.sandbox, demo.base, demo.session, demo.client_id, demo.secret, prefix=f"/{dialect}", extra=extra
    )


async def test_google_gives_a_refresh_token_only_when_asked_and_once(demo: App) -> None:
    google = at(demo, "google")
    scope = "https://www.googleapis.com/auth/gmail.readonly"
    assert "refresh_token" not in await google.connect(scope=scope)
    demo.sandbox.revoke_user("alice")
    first = await google.connect(scope=scope, access_type="offline")
    assert first["access_token"].startswith("ya29.")
    assert first["refresh_token"].startswith("1//")
    assert "refresh_token" not in await google.connect(scope=scope, access_type="offline")
    assert "refresh_token" in await google.connect(scope=scope, access_type="offline", prompt="consent")
    for _ in range(2):
        again = (await google.refresh(first["refresh_token"])).json
        assert "refresh_token" not in again
        assert again["expires_in"] == 3600
    assert demo.sandbox.violations() == []


async def test_google_in_testing(demo: App, clock: Clock) -> None:
    demo.sandbox.switches.test_mode_s = 604800
    google = at(demo, "google", access_type="offline")
    got = await google.connect(scope="https://www.googleapis.com/auth/gmail.readonly")
    assert got["refresh_token_expires_in"] == 604800
    clock.now += 604800
    dead = await google.refresh(got["refresh_token"])
    assert (dead.status, dead.json["error"]) == (400, "invalid_grant")
    assert dead.json["error_description"] == "Token has been expired or revoked."


async def test_google_api_errors(demo: App) -> None:
    google = at(demo, "google", access_type="offline")
    reader = (await google.connect(scope="https://www.googleapis.com/auth/gmail.readonly"))["access_token"]
    refused = await google.call("POST", "/api/messages", json={"text": "x"}, headers=bearer(reader))
    assert refused.status == 403
    assert refused.json["error"]["details"][0]["reason"] == "ACCESS_TOKEN_SCOPE_INSUFFICIENT"
    demo.sandbox.expire_access_tokens()
    expired = await google.get("/api/me", reader)
    assert (expired.status, expired.json["error"]["status"]) == (401, "UNAUTHENTICATED")


async def test_slack_says_everything_in_a_200(demo: App) -> None:
    slack = at(demo, "slack")
    got = await slack_connect(slack, "chat:write,channels:history")
    assert got["ok"] is True
    assert got["token_type"] == "bot"
    assert got["scope"] == "chat:write,channels:history"
    assert got["access_token"].startswith("xoxe.xoxb-")
    assert got["refresh_token"].startswith("xoxe-1-")
    assert got["expires_in"] == 43200
    assert got["authed_user"]["id"] == "U-alice"
    again = (await slack.refresh(got["refresh_token"])).json
    assert again["ok"] is True
    spent = await slack.refresh(got["refresh_token"])
    assert (spent.status, spent.json) == (200, {"ok": False, "error": "invalid_refresh_token"})
    assert (await slack.refresh(again["refresh_token"])).json["ok"], "Slack revokes no family"
    me = await slack.get("/api/me", again["access_token"])
    assert (me.json["ok"], me.json["user"]) == (True, "alice")
    demo.sandbox.expire_access_tokens()
    expired = await slack.get("/api/me", again["access_token"])
    assert (expired.status, expired.json) == (200, {"ok": False, "error": "token_expired"})
    demo.sandbox.revoke_user("alice")
    assert (await slack.get("/api/me", again["access_token"])).json["error"] == "token_revoked"
    demo.sandbox.switches.api_status = 429
    assert (await slack.get("/api/me", "x")).status == 429


async def slack_connect(slack: App, scope: str, **other: str | None) -> Any:
    back = await slack.consent("alice", scope, code_challenge=None, code_challenge_method=None, **other)
    return (await slack.exchange(back["code"], code_verifier="")).json


async def test_slack_user_tokens_are_nested_once(demo: App) -> None:
    slack = at(demo, "slack")
    both = await slack_connect(slack, "chat:write", user_scope="search:read")
    assert both["access_token"].startswith("xoxe.xoxb-")
    assert both["authed_user"]["access_token"].startswith("xoxe.xoxp-")
    alone = await slack_connect(slack, "", user_scope="search:read,chat:write")
    assert "access_token" not in alone
    nested = alone["authed_user"]
    assert (nested["token_type"], nested["scope"]) == ("user", "search:read,chat:write")
    again = (await slack.refresh(nested["refresh_token"])).json
    assert (again["token_type"], again["access_token"][:10]) == ("user", "xoxe.xoxp-")


async def test_slack_refuses_pkce_and_missing_scopes(demo: App) -> None:
    slack = at(demo, "slack")
    back = await slack.consent()
    refused = await slack.exchange(back["code"])
    assert (refused.status, refused.json) == (200, {"ok": False, "error": "pkce_not_allowed"})
    reader = await slack_connect(slack, "channels:read")
    missing = await slack.call(
        "POST", "/api/messages", json={"text": "x"}, headers=bearer(reader["access_token"])
    )
    assert (missing.status, missing.json["error"]) == (200, "missing_scope")
    assert (missing.json["needed"], missing.json["provided"]) == ("write", "channels:read")
    assert (await slack.get("/api/me", None)).json["error"] == "not_authed"


@pytest.mark.parametrize(("dialect", "prefix"), [("github", "gho_"), ("github-app", "ghu_")])
async def test_github(demo: App, dialect: str, prefix: str) -> None:
    github = at(demo, dialect)
    got = await github.connect(scope="repo user offline_access")
    assert got["access_token"].startswith(prefix)
    assert got["refresh_token"].startswith("ghr_")
    assert (got["token_type"], got["expires_in"], got["refresh_token_expires_in"]) == (
        "bearer",
        28800,
        15897600,
    )
    assert got["scope"] == ("repo,user,offline_access" if dialect == "github" else "")
    again = (await github.refresh(got["refresh_token"])).json
    assert not await github.works(got["access_token"]), "a refresh kills the older access token"
    assert await github.works(again["access_token"])
    spent = await github.refresh(got["refresh_token"])
    assert (spent.status, spent.json["error"]) == (200, "bad_refresh_token")
    refused = await github.get("/api/me", got["access_token"])
    assert (refused.status, refused.json["message"]) == (401, "Bad credentials")
    github.secret = "wrong"
    assert (await github.refresh("x")).json["error"] == "incorrect_client_credentials"


async def test_github_speaks_forms_unless_asked(demo: App) -> None:
    github = at(demo, "github-app")
    github.accept = "*/*"
    reply = await github.exchange((await github.consent())["code"])
    assert reply.headers["Content-Type"].startswith("application/x-www-form-urlencoded")
    got = {name: values[0] for name, values in parse_qs(reply.body.decode()).items()}
    assert got["access_token"].startswith("ghu_")
    assert got["expires_in"] == "28800"
    assert parse_qs((await github.refresh("x")).body.decode())["error"] == ["bad_refresh_token"]


async def test_github_classic_tokens_never_expire(demo: App) -> None:
    got = await at(demo, "github").connect(scope="repo")
    assert not {"expires_in", "refresh_token", "refresh_token_expires_in"} & set(got)


async def test_github_deletes_tokens(demo: App) -> None:
    github = at(demo, "github-app")
    got = await github.connect()
    login = "Basic " + base64.b64encode(f"authproxy-demo:{DEMO_SECRET}".encode()).decode()
    send = {"json": {"access_token": got["access_token"]}, "headers": {"Authorization": login}}
    assert (await github.call("DELETE", "/revoke", **send)).status == 204
    assert not await github.works(got["access_token"])


async def test_salesforce(demo: App) -> None:
    salesforce = at(demo, "salesforce")
    assert "refresh_token" not in await salesforce.connect(scope="api")
    got = await salesforce.connect(scope="api refresh_token")
    assert "expires_in" not in got
    assert got["instance_url"] == f"{demo.base}/salesforce"
    assert got["issued_at"] == "1800000000000"
    assert "!" in got["access_token"]
    again = (await salesforce.refresh(got["refresh_token"])).json
    assert "refresh_token" not in again
    demo.sandbox.expire_access_tokens()
    expired = await salesforce.get("/api/me", again["access_token"])
    assert expired.status == 401
    assert expired.json == [{"message": "Session expired or invalid", "errorCode": "INVALID_SESSION_ID"}]
    demo.sandbox.revoke_user("alice")
    dead = (await salesforce.refresh(got["refresh_token"])).json
    assert dead == {"error": "invalid_grant", "error_description": "expired access/refresh token"}


async def test_salesforce_401_that_no_refresh_cures(demo: App) -> None:
    got = await at(demo, "salesforce").connect(scope="openid refresh_token")
    refused = await at(demo, "salesforce").get("/api/me", got["access_token"])
    assert (refused.status, refused.json[0]["message"]) == (
        401,
        "This session is not valid for use with the REST API",
    )


async def test_salesforce_rotation_and_parallel_refresh(demo: App) -> None:
    demo.sandbox.switches.rotate = True
    salesforce = at(demo, "salesforce")
    got = await salesforce.connect(scope="api refresh_token")
    demo.sandbox.hold(after=True)
    first = asyncio.create_task(salesforce.refresh(got["refresh_token"]))
    await demo.sandbox.arrived(2)
    second = asyncio.create_task(salesforce.refresh(got["refresh_token"]))
    await demo.sandbox.arrived(3)
    demo.sandbox.release()
    won, lost = await first, await second
    assert lost.json["error_description"] == "token request is already being processed"
    assert (await salesforce.refresh(got["refresh_token"])).status == 400
    assert (await salesforce.refresh(won.json["refresh_token"])).status == 400, "reuse killed the family"


async def test_hubspot(demo: App) -> None:
    hubspot = at(demo, "hubspot")
    got = await hubspot.connect(scope="crm.objects.contacts.read oauth")
    assert (got["expires_in"], got["token_type"]) == (1800, "bearer")
    assert got["scopes"] == ["crm.objects.contacts.read", "oauth"]
    for _ in range(2):
        assert (await hubspot.refresh(got["refresh_token"])).json["refresh_token"] == got["refresh_token"]
    dead = (await hubspot.refresh("unknown")).json
    assert (dead["error"], dead["status"]) == ("invalid_grant", "BAD_REFRESH_TOKEN")
    assert (await hubspot.get("/api/me", "unknown")).json["category"] == "INVALID_AUTHENTICATION"
    demo.sandbox.expire_access_tokens()
    expired = await hubspot.get("/api/me", got["access_token"])
    assert (expired.status, expired.json["category"]) == (401, "EXPIRED_AUTHENTICATION")
    assert demo.sandbox.violations() == []


@pytest.mark.parametrize("dialect", ["google", "salesforce"])
async def test_whoever_has_the_token_may_revoke_it(demo: App, dialect: str) -> None:
    one = at(demo, dialect, access_type="offline")
    got = await one.connect(scope="api refresh_token")
    assert (await one.call("POST", "/revoke", data={"token": got["access_token"]})).status == 200
    assert (await one.refresh(got["refresh_token"])).json["error"] == "invalid_grant"


async def test_slack_revokes_by_bearer(demo: App) -> None:
    slack = at(demo, "slack")
    got = await slack_connect(slack, "chat:write")
    told = await slack.call("POST", "/revoke", headers=bearer(got["access_token"]))
    assert told.json == {"ok": True, "revoked": True}
    assert (await slack.refresh(got["refresh_token"])).json["ok"] is False


async def test_tokens_stay_with_their_provider(demo: App) -> None:
    got = await at(demo, "hubspot").connect(scope="oauth crm")
    assert (await at(demo, "google").get("/api/me", got["access_token"])).status == 401
    assert (await at(demo, "github").refresh(got["refresh_token"])).json["error"] == "bad_refresh_token"
    code = (await at(demo, "hubspot").consent())["code"]
    assert (await at(demo, "google").exchange(code)).json["error"] == "invalid_grant"


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_a_dialect_can_be_the_whole_sandbox(dialect: str, session: aiohttp.ClientSession) -> None:
    sandbox = Sandbox(Settings(dialect=dialect, switches={"pkce": "optional"}))
    base = await sandbox.start(port=0)
    app = App(sandbox, base, session, "authproxy-demo", DEMO_SECRET)
    scope = "read write" if dialect == "standard" else "refresh_token offline_access write"
    got = await app.connect(scope=scope, access_type="offline")
    assert (await app.get("/api/me", got["access_token"])).json["user"] == "alice"
    assert (await app.refresh(got["refresh_token"])).json["access_token"]
    told = (await app.call("GET", "/.well-known/openid-configuration")).json
    assert told["issuer"] == base
    await sandbox.close()


def test_every_dialect_words_every_fault() -> None:
    for dialect in DIALECTS.values():
        for fault in ("missing", "invalid", "expired", "revoked", "scope", "rate", "down"):
            assert dialect.api_error(fault).status >= 200
        for code in ("invalid_grant", "invalid_client", "invalid_code", "redirect_mismatch", "rate_limited"):
            assert dialect.error(code).body
