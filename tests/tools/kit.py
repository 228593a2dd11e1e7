"""Tools over their real path: a running App, made connections, and one recording upstream for every route.

`async with House.running() as house:` and then

    house.answer("GET", "/gmail/v1/users/me/labels", {"labels": []})      # JSON, or bytes, or a function of the Seen
    value = await house.value("Gmail.ListLabels")                          # the result; fails where the tool did
    error = await house.error("Gmail.GetEmail", email_id="nope")           # the ToolError; fails where it succeeded
    assert house.seen[0].path == "/gmail/v1/users/me/labels"

What has no answer gets a 404 of the upstream. Answers given in a list are given one after the other.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self
from urllib.parse import parse_qs, parse_qsl, urlencode

from aiohttp import web

from authproxy.app import Address, App
from authproxy.control.tools import Outcome
from authproxy.core.model import DEFAULT_ACCOUNT, Caller, ConnectionKey, NewGrant, TokenSet
from authproxy.core.policy import Rules
from authproxy.core.secret import Secret
from authproxy.core.strict import read
from authproxy.tools.loading import toolbox
from authproxy.tools.tool import Json, Tool, ToolError
from tests.kit.browser import Browser, Page
from tests.kit.canaries import hits
from tests.kit.ports import free_port
from tests.kit.provider import canary

KEY = "A" * 43
CALLER = Caller("default", "kit", "loopback", ("*",), operator=True)
ROUTES = {
    "gmail": "google",
    "google-calendar": "google",
    "google-people": "google",
    "slack": "slack",
    "github": "github",
    "hubspot": "hubspot",
    "salesforce": "salesforce",
}
TOKEN, AUTHORIZE = "/kit/token", "/kit/authorize"


@dataclass(frozen=True)
class Seen:
    """One request as the upstream got it. `path` is raw; of a repeated query field the last value counts in `query`."""

    method: str
    path: str
    query: Mapping[str, str]
    queries: Mapping[str, list[str]]
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Json:
        return json.loads(self.body) if self.body else None

    @property
    def bearer(self) -> str:
        """The token that came with it."""
        return self.headers.get("authorization", "").rpartition(" ")[2]


@dataclass(frozen=True)
class Reply:
    """An answer that says more than 200 and JSON."""

    status: int = 200
    json: Json = None
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None


Raw = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
Given = Json | bytes | Reply | web.StreamResponse
Answer = Given | Callable[[Seen], Given] | list[Any]


class Upstream:
    """Every provider's API at one address, and their token endpoint."""

    def __init__(self) -> None:
        self.seen: list[Seen] = []
        self.given: dict[tuple[str, str], list[Answer]] = {}
        self.otherwise: Answer = Reply(404, {"message": "Not Found"})
        self.raw: dict[str, Raw] = {}  # by path: what answers as it likes
        self.good: set[str] = set()  # access tokens; empty it, and all have expired
        self.secrets: list[str] = []
        self.codes: dict[str, str] = {}  # code: the scopes that were consented to
        self.refreshes = 0
        self.port = 0

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Self]:
        runner = web.ServerRunner(web.Server(self._handle), shutdown_timeout=0.1)
        await runner.setup()
        try:
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            self.port = runner.addresses[0][1]
            yield self
        finally:
            await runner.cleanup()

    def answer(self, method: str, path: str, *answers: Answer) -> None:
        """What requests of this method and raw path get: one after the other, the last for ever."""
        self.given[(method, path)] = list(answers)

    def issue(self) -> tuple[str, str]:
        """A new pair."""
        pair = canary("at"), canary("rt")
        self.good.add(pair[0])
        self.secrets += pair
        return pair

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        body = await request.content.read()  # not request.read(), which has a bound of its own
        path, _, query = request.raw_path.partition("?")
        if path == AUTHORIZE:
            return self._consented(dict(parse_qsl(query)))
        if path == TOKEN:
            return self._token(dict(parse_qsl(body.decode())))
        one = Seen(
            request.method,
            path,
            dict(parse_qsl(query, keep_blank_values=True)),
            parse_qs(query, keep_blank_values=True),
            {name.lower(): value for name, value in request.headers.items()},
            body,
        )
        self.seen.append(one)
        if one.bearer not in self.good:
            headers = {"WWW-Authenticate": 'Bearer error="invalid_token"'}
            return web.json_response({"error": "invalid_token"}, status=401, headers=headers)
        if path in self.raw:
            return await self.raw[path](request)
        answers = self.given.get((one.method, path), [self.otherwise])
        given = answers.pop(0) if len(answers) > 1 else answers[0]
        return _response(given(one) if callable(given) else given)

    def _consented(self, asked: Mapping[str, str]) -> web.Response:
        """The user says yes at once."""
        code = canary("code")
        self.codes[code] = asked.get("scope", "")
        back = urlencode({"code": code, "state": asked["state"]})
        return web.Response(status=302, headers={"Location": f"{asked['redirect_uri']}?{back}"})

    def _token(self, form: Mapping[str, str]) -> web.Response:
        granted = self.codes.pop(form.get("code", ""), None)
        if granted is None:
            self.refreshes += 1
        access, refresh = self.issue()
        answer = {
            "access_token": access,
            "refresh_token": refresh,
            "token_type": "Bearer",
            "expires_in": 3600,
            "instance_url": f"http://127.0.0.1:{self.port}",
        }
        return web.json_response(answer if granted is None else {**answer, "scope": granted})


def _response(given: Any) -> web.StreamResponse:
    if isinstance(given, web.StreamResponse):
        return given
    if isinstance(given, bytes):
        return web.Response(body=given, content_type="application/octet-stream")
    if isinstance(given, Reply):
        body = given.body if given.body is not None else json.dumps(given.json).encode()
        headers = {"Content-Type": "application/json", **given.headers}
        return web.Response(status=given.status, body=b"" if given.status == 204 else body, headers=headers)
    return web.json_response(given)


class House:
    """The running App, and tools called by name."""

    def __init__(self, app: App, upstream: Upstream, port: int) -> None:
        self.app = app
        self.upstream = upstream
        self.port = port
        self.url = f"http://127.0.0.1:{port}"

    @classmethod
    @contextlib.asynccontextmanager
    async def running(
        cls,
        *users: str,
        scopes: Mapping[str, tuple[str, ...]] | None = None,
        clock: Callable[[], float] = time.time,
        **config: Any,
    ) -> AsyncIterator[Self]:
        """`users` (alice, where none is named) are connected everywhere, with all that any tool needs or, by provider,
        with `scopes`. `config` has further keys of routes.yaml."""
        async with Upstream().running() as upstream:
            port = free_port()
            app = await App.open(
                read(
                    _config(upstream.port, port, config), file="routes.yaml", environ={}, read_file=str
                ).config,
                store="sqlite:///:memory:",
                environ={"AUTHPROXY_KEYS": KEY},
                announce=lambda _: None,
                clock=clock,
            )
            async with app:
                await app.run()
                house = cls(app, upstream, port)
                for user in users or ("alice",):
                    for provider in sorted(set(ROUTES.values())):
                        await house.connect(user, provider, None if scopes is None else scopes.get(provider))
                yield house

    @property
    def seen(self) -> list[Seen]:
        """The requests that came to the upstream."""
        return self.upstream.seen

    def answer(self, method: str, path: str, *answers: Answer) -> None:
        """As `Upstream.answer`."""
        self.upstream.answer(method, path, *answers)

    async def listen(self) -> str:
        """The URL of the control plane, which from now on listens."""
        await self.app.listen_control(Address("127.0.0.1", self.port))
        return self.url

    async def consent(self, url: str | None) -> Page:
        """The user opens the link and agrees."""
        assert url is not None
        return await asyncio.to_thread(Browser().consent, url)

    async def connect(self, user: str, provider: str, scopes: tuple[str, ...] | None = None) -> None:
        """A connection as a consent leaves it."""
        access, refresh = self.upstream.issue()
        now = int(self.app.clock())
        tokens = TokenSet(
            Secret(access),
            Secret(refresh),
            now + 3600,
            3600,
            scopes=every_scope(provider) if scopes is None else scopes,
            extra={"instance_url": f"http://127.0.0.1:{self.upstream.port}"},
        )
        key = ConnectionKey("default", user, provider)
        grant = NewGrant(key, "kit", f"g-{user}-{provider}", tokens, tokens.scopes, None, now)
        await self.app.vault.keep_grant(grant, [])
        self.app.tokens.forget_key(key)

    async def call(
        self,
        name: str,
        /,
        _user: str | None = "alice",
        _caller: Caller = CALLER,
        _account: str = DEFAULT_ACCOUNT,
        **given: Any,
    ) -> Outcome:
        """Call a tool as every face does. No secret may be in what comes back."""
        tools = self.app.control.tools
        tool, before = tools.get(_caller, name), len(self.seen)
        outcome = await tools.execute(_caller, tool, _user, given, account=_account)
        for one in self.seen[before:]:
            assert one.path.startswith("/v1/people/") or is_needed(tool, one.method, one.path), one
        said = json.dumps(outcome.value) + repr(outcome.error and vars(outcome.error))
        assert not hits(self.upstream.secrets, {"the outcome": said.encode()})
        return outcome

    async def value(self, name: str, /, _user: str | None = "alice", **given: Any) -> Any:
        """The result of a call that succeeds."""
        outcome = await self.call(name, _user, **given)
        error = outcome.error
        assert error is None, (str(error.kind), error.message, error.developer_message, error.hint)
        return outcome.value

    async def error(self, name: str, /, _user: str | None = "alice", **given: Any) -> ToolError:
        """The failure of a call that fails."""
        outcome = await self.call(name, _user, **given)
        assert outcome.error is not None, outcome.value
        return outcome.error

    async def records(self, kind: str | None = None) -> list[dict[str, Any]]:
        """The trail so far, oldest first."""
        await self.app.trail.flush()
        found = await self.app.control.audit.query(CALLER, kind=kind, limit=1000)
        return sorted((dict(one.record) for one in found), key=lambda record: record["seq"])


def is_needed(tool: Tool, method: str, path: str) -> bool:
    """Whether a tool's kit says of this request that its tools send it; those that only read, where it is one."""
    kit = toolbox().kits.get(tool.toolkit)
    if kit is None:
        return True  # made for a test
    return (
        Rules((*kit.reads, *(() if tool.marks.read_only else kit.writes)))
        .judge(method, [path.encode()])
        .allowed
    )


def every_scope(provider: str) -> tuple[str, ...]:
    """All that any tool of this provider needs."""
    found = [scope for tool in toolbox() if tool.provider == provider for scope in tool.grant_scopes]
    return tuple(dict.fromkeys(found))


def _config(port: int, control: int, more: Mapping[str, Any]) -> str:
    here = f"http://127.0.0.1:{port}"
    providers = {
        name: {
            "client_id": "kit",
            "client_auth": "none",
            "endpoints": {
                "authorization": f"{here}{AUTHORIZE}",
                "token": f"{here}{TOKEN}",
                "userinfo": f"{here}/kit/userinfo",
            },
            "api_hosts": ["127.0.0.1"],
        }
        for name in sorted(set(ROUTES.values()))
    }
    document = {
        "version": 1,
        "public_url": f"http://127.0.0.1:{control}",
        "identity": {
            "callers": [{"kind": "loopback", "agent": "kit", "operator": True}, {"kind": "api_key"}]
        },
        "providers": providers,
        "routes": {name: {"upstream": here} for name in ROUTES},
        "egress": {"allow": [f"127.0.0.1:{port}"]},
        "timeouts": {"shutdown": 0.5},
        **more,
    }
    return json.dumps(document)
