"""The API behind the provider and its switches."""

from __future__ import annotations

import hashlib
import io
import json
import time

import aiohttp
import pytest

from tests.sandbox.app import App, bearer


async def token_of(app: App, user: str = "alice", scope: str = "read write") -> str:
    return str((await app.connect(user, scope))["access_token"])


async def test_messages_go_from_user_to_user(app: App) -> None:
    alice, bob = await token_of(app, "alice"), await token_of(app, "bob")
    sent = await app.call("POST", "/api/messages", json={"to": "bob", "text": "hello"}, headers=bearer(alice))
    assert (sent.status, sent.json["user"], sent.json["message"]["from"]) == (201, "alice", "alice")
    seen = (await app.get("/api/messages", bob)).json
    assert (seen["user"], [one["text"] for one in seen["messages"]]) == ("bob", ["hello"])
    assert (await app.call("POST", "/api/messages", data=b"no", headers=bearer(alice))).status == 400


async def test_scopes_guard_the_routes(app: App) -> None:
    reader, nobody = await token_of(app, scope="read"), await token_of(app, scope="openid")
    refused = await app.call("POST", "/api/messages", json={"text": "x"}, headers=bearer(reader))
    assert refused.status == 403
    assert 'error="insufficient_scope", scope="write"' in refused.headers["WWW-Authenticate"]
    assert (await app.get("/api/messages", reader)).status == 200
    assert (await app.get("/api/messages", nobody)).status == 403
    assert (await app.get("/api/echo", nobody)).status == 200


async def test_challenges(app: App) -> None:
    missing = await app.get("/api/me", None)
    assert missing.headers["WWW-Authenticate"] == 'Bearer realm="sandbox"'
    unknown = await app.get("/api/me", "unknown")
    assert 'error="invalid_token"' in unknown.headers["WWW-Authenticate"]
    basic = await app.call("GET", "/api/me", headers={"Authorization": "Basic YTpi"})
    assert (missing.status, unknown.status, basic.status) == (401, 401, 401)


async def test_two_credentials_are_none(app: App) -> None:
    token = await token_of(app)
    twice = [("Authorization", f"Bearer {token}"), ("Authorization", f"Bearer {token}")]
    assert (await app.call("GET", "/api/me", headers=twice)).status == 401


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
async def test_echo(app: App, method: str) -> None:
    token = await token_of(app)
    body = b"\x00body"
    reply = await app.call(
        method, "/api/echo/a%2Fb/c?x=1&y=%20", data=body, headers=bearer(token) | {"X-Thing": "value"}
    )
    told = reply.json
    assert (told["method"], told["target"], told["user"]) == (method, "/api/echo/a%2Fb/c?x=1&y=%20", "alice")
    assert ["X-Thing", "value"] in told["headers"]
    assert token not in reply.body.decode()
    assert told["authorization_lines"] == 1
    assert told["body"] == {"length": 5, "sha256": hashlib.sha256(body).hexdigest()}


async def test_upload_counts_what_arrives(app: App) -> None:
    token, body = await token_of(app), b"0123456789" * 300_000
    told = (await app.call("POST", "/api/upload", data=io.BytesIO(body), headers=bearer(token))).json
    assert (told["received"], told["sha256"]) == (len(body), hashlib.sha256(body).hexdigest())


@pytest.mark.parametrize("size", [0, 1, 65536, 1_000_003])
async def test_bytes(app: App, size: int) -> None:
    reply = await app.get(f"/api/bytes/{size}", await token_of(app))
    assert (len(reply.body), reply.headers["X-Sandbox-User"]) == (size, "alice")


async def test_stream(app: App) -> None:
    reply = await app.get("/api/stream?n=3&interval=0.01", await token_of(app))
    assert reply.headers["Content-Type"] == "text/event-stream"
    events = [json.loads(line[6:]) for line in reply.body.decode().splitlines() if line.startswith("data: ")]
    assert events == [{"user": "alice", "n": n, "of": 3} for n in range(3)]


async def test_slow_waits(app: App) -> None:
    token, start = await token_of(app), time.monotonic()
    assert (await app.get("/api/slow?seconds=0.2", token)).json["user"] == "alice"
    assert time.monotonic() - start >= 0.2


@pytest.mark.parametrize(
    "path",
    [
        "/api/slow?seconds=301",
        "/api/slow?seconds=nan",
        "/api/stream?n=-1",
        "/api/stream?n=x",
        "/api/bytes/9999999999",
    ],
)
async def test_bounds(app: App, path: str) -> None:
    assert (await app.get(path, await token_of(app))).status == 400


# Switches


async def test_unauthorized_for_a_while_and_always(app: App) -> None:
    token = await token_of(app)
    app.sandbox.switches.update({"api_unauthorized": True, "api_next_calls": 2})
    assert [await app.works(token) for _ in range(3)] == [False, False, True]
    app.sandbox.switches.update({"api_unauthorized": True})
    assert [await app.works(token) for _ in range(3)] == [False, False, False]


@pytest.mark.parametrize("challenge", ["", 'Basic realm="x, y", Bearer error="invalid_token"'])
async def test_challenge_is_switchable(app: App, challenge: str) -> None:
    app.sandbox.switches.update({"api_challenge": challenge})
    assert (await app.get("/api/me", "unknown")).headers.get("WWW-Authenticate", "") == challenge


async def test_insufficient_scope(app: App) -> None:
    token = await token_of(app)
    app.sandbox.switches.api_insufficient_scope = True
    refused = await app.get("/api/me", token)
    assert refused.status == 403
    assert "insufficient_scope" in refused.headers["WWW-Authenticate"]


@pytest.mark.parametrize("status", [401, 403, 429, 500, 503])
async def test_status(app: App, status: int) -> None:
    token = await token_of(app)
    app.sandbox.switches.update({"api_status": status, "api_retry_after": "a while"})
    reply = await app.get("/api/me", token)
    assert (reply.status, reply.headers["Retry-After"]) == (status, "a while")


async def test_reflection_redirect_and_cookie(app: App) -> None:
    token = await token_of(app)
    app.sandbox.switches.update({"api_reflect": True, "api_set_cookie": True})
    reply = await app.get("/api/me", token)
    assert (
        reply.headers["X-Reflected-Authorization"]
        == reply.json["reflected_authorization"]
        == f"Bearer {token}"
    )
    assert reply.headers["Set-Cookie"].startswith("sandbox_session=")
    app.sandbox.reset({"api_redirect": "https://evil.example/x?y=%2F"})
    reply = await app.get("/api/me", token)
    assert (reply.status, reply.headers["Location"]) == (307, "https://evil.example/x?y=%2F")


async def test_delay_and_drop(app: App) -> None:
    token, start = await token_of(app), time.monotonic()
    app.sandbox.switches.update({"api_delay_s": 0.2, "api_next_calls": 1})
    assert await app.works(token)
    assert time.monotonic() - start >= 0.2
    app.sandbox.switches.update({"api_drop": True, "api_next_calls": 1})
    with pytest.raises(aiohttp.ClientConnectionError):
        await app.call("POST", "/api/messages", json={"text": "once"}, headers=bearer(token))
    seen = (await app.get("/api/messages", token)).json["messages"]
    assert [one["text"] for one in seen] == ["once"], "the work was done, its answer was lost"
