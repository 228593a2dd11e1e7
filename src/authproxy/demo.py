"""The main job on embedded parts: a provider, the proxy, an agent and a user, with real HTTP between them."""

from __future__ import annotations

import asyncio
import json
import signal
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import aiohttp

from authproxy import log
from authproxy.app import Address, App
from authproxy.core.model import DEFAULT_TENANT, Caller
from authproxy.core.strict import read_config
from authproxy.listening import port_set_aside
from authproxy.sandbox import Sandbox, Settings, approve
from authproxy.store.sealing import generate_key

CONCURRENT = 50
OPERATOR = Caller(DEFAULT_TENANT, "demo", "loopback", ("*",), operator=True)

ROUTES = """
version: 1
environment: development
public_url: {control}
identity:
  callers:
    - {{kind: loopback, agent: demo-agent, may_act_for: ["*"], operator: true}}
providers:
  acme:
    issuer: {sandbox}
    client_id: authproxy-demo
    client_secret: env:DEMO_CLIENT_SECRET
    client_auth: client_secret_basic
    scopes: [openid, offline_access]
    api_hosts: ["{host}"]
routes:
  acme:
    prefix: /acme
    upstream: {sandbox}/api
    provider: acme
    scopes: [read, write]
    allow:
      - {{methods: [GET], paths: ["/api/**"]}}
      - {{methods: [POST], paths: ["/api/messages", "/api/echo"]}}
refresh: {{forced_interval: 0}}
egress: {{allow: ["{host}"]}}
"""


class Failed(Exception):
    """The story did not go as it is told: something in authproxy is broken."""


@dataclass
class Stage:
    """What runs during the demonstration."""

    app: App
    sandbox: Sandbox
    http: aiohttp.ClientSession
    data: str
    control: str
    folder: Path
    connection: str = ""

    async def call(self, method: str, path: str, user: str = "alice", body: Any = None) -> Reply:
        """An agent's call: no credential, only the user's name."""
        async with self.http.request(
            method, self.data + path, json=body, headers={"X-User-ID": user}
        ) as answer:
            return Reply(answer.status, answer.headers, await answer.json(content_type=None))


@dataclass
class Reply:
    """What the agent got."""

    status: int
    headers: Mapping[str, str]
    body: Any


async def demo(*, serve: bool = False) -> int:
    """Tell the story, or with `serve` stay up for the reader to play it. Returns the exit code."""
    log.configure("error")
    began = time.monotonic()
    async with _stage() as stage:
        if serve:
            await _stay(stage)
            return 0
        try:
            await _tell(stage)
        except Failed as broken:
            print(f"\n  This is not how it should go: {broken}")
            return 1
    print(
        f"\n  Done in {time.monotonic() - began:.1f} s. Now yours: `authproxy demo --serve`, or the README.\n"
    )
    return 0


@asynccontextmanager
async def _stage() -> AsyncIterator[Stage]:
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="authproxy-demo-")))
        sandbox = Sandbox(Settings())
        stack.push_async_callback(sandbox.close)
        base = await sandbox.start(port=0)
        host = base.removeprefix("http://")
        control = port_set_aside()
        environ = {
            "DEMO_CLIENT_SECRET": "authproxy-demo-secret",
            "AUTHPROXY_KEYS": generate_key(),
        }
        text = ROUTES.format(control=f"http://127.0.0.1:{control}", sandbox=base, host=host)
        config = read_config(text, file="routes.yaml", environ=environ, read_file=_no_file)
        app = await stack.enter_async_context(
            await App.open(
                config,
                store=f"sqlite:///{folder / 'authproxy.db'}",
                environ=environ,
                announce=lambda _line: None,
            )
        )
        await app.run()
        await app.listen_control(Address("127.0.0.1", control))
        data = await app.listen_data(Address("127.0.0.1", 0))
        http = await stack.enter_async_context(aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()))
        yield Stage(app, sandbox, http, f"http://127.0.0.1:{data}", f"http://127.0.0.1:{control}", folder)


async def _tell(stage: Stage) -> None:
    print("\n  authproxy demo: everything below is real HTTP on loopback; nothing leaves this machine.")
    for number, (title, act) in enumerate(CHAPTERS, 1):
        print(f"\n  {number}. {title}", flush=True)
        await act(stage)


async def _without_connection(stage: Stage) -> None:
    _say("→ GET /acme/me   X-User-ID: alice   (no credential)")
    reply = await stage.call("GET", "/acme/me")
    _expect(reply.status == 403 and reply.body["code"] == "connection_required", "a link to connect", reply)
    _say(f"← 403 {reply.body['code']}, act: {reply.body['act']}")
    _say(f"  {reply.body['title']}: {reply.body['connect_url']}")


async def _consent(stage: Stage) -> None:
    started = await _control(stage, "POST", "/v1/auth/authorize", {
        "user_id": "alice",
        "auth_requirement": {"provider_id": "acme", "oauth2": {"scopes": ["read", "write"]}},
    })  # fmt: skip
    waiting = asyncio.create_task(_control(stage, "GET", f"/v1/auth/status?id={started['id']}&wait=15", None))
    await open_as(stage.http, started["url"], "alice")
    ended = await waiting
    _expect(ended["status"] == "completed", "the flow to be completed", ended)
    _say("the page names tenant, user, agent, provider and scopes; she presses the button, then Allow")
    _say(f"the application, which waited, is told: {ended['status']}. It never sees a token.")
    listed = await _control(stage, "GET", "/v1/connections?user=alice", None)
    stage.connection = str(listed["items"][0]["id"])


async def _first_call(stage: Stage) -> None:
    reply = await stage.call("GET", "/acme/me")
    _expect(reply.status == 200 and reply.body["user"] == "alice", "alice's own answer", reply)
    _say(f"← 200: the API ran it as {reply.body['user']}")
    other = await stage.call("GET", "/acme/me", user="bob")
    _expect(other.status == 403, "nothing of alice's for bob", other)
    _say(f"→ the same for bob ← {other.status} {other.body['code']}: nobody borrows alice's grant")


async def _expiry(stage: Stage) -> None:
    before = stage.sandbox.live_refresh_digests("alice")
    calls = len(stage.sandbox.refreshes())
    stage.sandbox.expire_access_tokens("alice")
    reply = await stage.call("POST", "/acme/messages", body={"to": "bob", "text": "hello"})
    _expect(reply.status in (200, 201), "the message to be sent", reply)
    spent = len(stage.sandbox.refreshes()) - calls
    _expect(spent == 1, "one token call", spent)
    after = stage.sandbox.live_refresh_digests("alice")
    _expect(before != after, "a rotated refresh token", after)
    _say(f"→ POST /acme/messages   upstream says 401 → {spent} refresh → the body is sent again")
    _say(f"← {reply.status}: the agent noticed nothing")
    _say(f"rotation: refresh token {_short(before)} is spent, {_short(after)} is on disk, sealed, before use")


async def _crowd(stage: Stage) -> None:
    calls = len(stage.sandbox.refreshes())
    stage.sandbox.expire_access_tokens("alice")
    replies = await asyncio.gather(*(stage.call("GET", "/acme/me") for _ in range(CONCURRENT)))
    served = sum(reply.status == 200 for reply in replies)
    spent = len(stage.sandbox.refreshes()) - calls
    _expect(served == CONCURRENT and spent == 1, "one token call and every caller served", (served, spent))
    _say(f"← {served} of {CONCURRENT} served, token calls: {spent}")
    _expect(not stage.sandbox.violations(), "no token spent twice", stage.sandbox.violations())
    _say("the provider revokes a whole grant when a refresh token comes twice; it had no reason to")


async def _policy(stage: Stage) -> None:
    reply = await stage.call("DELETE", "/acme/messages")
    _expect(reply.status == 403 and reply.body["code"] == "policy_denied", "a refusal", reply)
    _say(f"→ DELETE /acme/messages ← {reply.status} {reply.body['code']}: {reply.body['title']}")


async def _revocation(stage: Stage) -> None:
    stage.sandbox.revoke_user("alice")
    reply = await stage.call("GET", "/acme/me")
    _expect(reply.status == 403 and reply.body["code"] == "connection_expired", "a new link", reply)
    _say(f"← 403 {reply.body['code']} ({reply.body['reason']}), act: {reply.body['act']}")
    calls = len(stage.sandbox.refreshes())
    again = await asyncio.gather(*(stage.call("GET", "/acme/me") for _ in range(20)))
    _expect(len(stage.sandbox.refreshes()) == calls, "no more token calls", len(stage.sandbox.refreshes()))
    _say(f"20 more calls ← {again[0].body['code']}, token calls: 0. A dead grant is not hammered.")
    await open_as(stage.http, reply.body["connect_url"], "alice")
    listed = await _control(stage, "GET", "/v1/connections?user=alice", None)
    _expect(listed["items"][0]["id"] == stage.connection, "the same connection", listed)
    reply = await stage.call("GET", "/acme/me")
    _expect(reply.status == 200, "alice to be served again", reply)
    _say(f"she opens the link: connection {stage.connection} lives on, same id ← 200")


async def _trail(stage: Stage) -> None:
    await stage.app.trail.flush()
    records = await _control(stage, "GET", "/v1/audit?limit=200", None)
    shown: dict[tuple[str, Any], dict[str, Any]] = {}
    for record in records["items"]:
        shown.setdefault((record["kind"], record.get("code")), record)
    keep = ("kind", "request_id", "agent", "user", "provider", "generation", "method", "path", "status", "code",
            "attempts", "refreshed", "chain", "seq", "hash")  # fmt: skip
    for record in sorted(shown.values(), key=lambda one: (one["at"], one["seq"])):
        line = {key: record[key] for key in keep if record.get(key) is not None}
        line["hash"] = str(line["hash"])[:12] + "…"
        _say(json.dumps(line, ensure_ascii=False))
    report = await stage.app.control.audit.verify(OPERATOR)
    _expect(report.sound, "an unbroken chain", report)
    _say(f"`authproxy audit verify`: {report.records} records, unbroken")


async def _no_leak(stage: Stage) -> None:
    seen = [path.read_bytes() for path in stage.folder.iterdir()]
    tokens = stage.sandbox.issued_tokens()
    _expect(bool(tokens), "tokens to search for", tokens)
    found = sum(token.encode() in data for token in tokens for data in seen)
    _expect(found == 0, "no token in the clear", found)
    _say(f"{len(tokens)} tokens were issued; on disk: {found} in the clear")


CHAPTERS: tuple[tuple[str, Callable[[Stage], Awaitable[None]]], ...] = (
    ("An agent calls an API for alice, who has not connected it", _without_connection),
    ("alice opens the link and consents", _consent),
    ("The same call again", _first_call),
    ("The access token dies early, unnoticed; the refresh token is for one use only", _expiry),
    (f"{CONCURRENT} calls at once, and the token has just expired", _crowd),
    ("The agent tries what its route does not allow", _policy),
    ("alice revokes the grant at the provider, and comes back", _revocation),
    ("The audit trail", _trail),
    ("Where the tokens are not", _no_leak),
)


async def open_as(http: aiohttp.ClientSession, url: str, user: str) -> None:
    """What the user does: open the link, press the button, allow, and be sent back."""
    jar: dict[str, str] = {}
    async with http.get(url) as page:
        form = _Button(await page.text())
        jar.update({name: morsel.value for name, morsel in page.cookies.items()})
    headers = {"Origin": url.split("/connect/")[0], "Sec-Fetch-Site": "same-origin"}
    async with http.post(
        urljoin(url, form.action), data=form.fields, headers=headers, cookies=jar, allow_redirects=False
    ) as pressed:
        if pressed.status not in (302, 303):
            raise Failed(f"the button answered {pressed.status}")
        jar.update({name: morsel.value for name, morsel in pressed.cookies.items()})
        there = pressed.headers["Location"]
    back = await approve(http, there, user)
    async with http.get(back, cookies=jar, allow_redirects=False) as landed:
        if landed.status >= 400:
            raise Failed(f"the callback answered {landed.status}")


class _Button(HTMLParser):
    """The form on our own page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.action = ""
        self.fields: dict[str, str] = {}
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "form":
            self.action = given.get("action") or ""
        elif tag in ("input", "button") and given.get("name"):
            self.fields[given["name"] or ""] = given.get("value") or ""


async def _stay(stage: Stage) -> None:
    started = await _control(stage, "POST", "/v1/auth/authorize", {
        "user_id": "alice",
        "auth_requirement": {"provider_id": "acme", "oauth2": {"scopes": ["read", "write"]}},
    })  # fmt: skip
    ended = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    sandbox = stage.sandbox.base_url
    typed = "-H 'Content-Type: application/json'"  # curl's own --json is missing before 7.82
    print(
        f"""
  authproxy is up, with a provider of its own. Ctrl-C ends it and removes everything.

  Open this, press the button, allow:
    {started["url"]}

  Then call as an agent:
    curl -H 'X-User-ID: alice' {stage.data}/acme/me
    curl -H 'X-User-ID: alice' {typed} -d '{{"to": "bob", "text": "hi"}}' {stage.data}/acme/messages
    curl -N -H 'X-User-ID: alice' '{stage.data}/acme/stream'

  Break the provider, then call again:
    curl {sandbox}/admin/switches                               # every switch and its meaning
    curl {typed} -d '{{}}' {sandbox}/admin/expire   # access tokens die
    curl {typed} -d '{{"api_status": 500, "api_next_calls": 1}}' {sandbox}/admin/switches
    curl {typed} -d '{{"user": "alice"}}' {sandbox}/admin/revoke-user

  Look at what happened:
    curl {stage.control}/v1/connections
    curl {stage.control}/v1/audit
    curl {stage.control}/metrics
""",
        flush=True,
    )
    await ended.wait()


async def _control(stage: Stage, method: str, path: str, body: Any) -> Any:
    async with stage.http.request(method, stage.control + path, json=body) as answer:
        got = await answer.json(content_type=None)
        _expect(answer.status < 400, f"{method} {path.partition('?')[0]} to be answered", got)
        return got


def _expect(fact: bool, what: str, got: object) -> None:
    if not fact:
        raise Failed(f"expected {what}, got {got!r}")


def _say(line: str) -> None:
    print(f"     {line}", flush=True)


def _short(digests: set[str]) -> str:
    return next(iter(digests), "none")[:8]


def _no_file(path: str) -> str:
    raise FileNotFoundError(path)
