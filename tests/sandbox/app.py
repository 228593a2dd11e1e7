"""A client of the sandbox as small as can be, sharing no code with what it is a client of."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import aiohttp

from authproxy.sandbox import Sandbox, approve

CALLBACK = "http://127.0.0.1:43210/callback/sandbox"
VERIFIER = "a-verifier-that-is-long-enough-for-rfc-7636-0123456789"
CHALLENGE = base64.urlsafe_b64encode(hashlib.sha256(VERIFIER.encode()).digest()).rstrip(b"=").decode()
DEMO_SECRET = "authproxy-demo-secret"


class Clock:
    """A wall clock that stands until it is moved."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Reply:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class App:
    """Acts as a registered client; `prefix` is the dialect's path."""

    sandbox: Sandbox
    base: str
    session: aiohttp.ClientSession
    client_id: str = "authproxy-dev"
    secret: str | None = None
    prefix: str = ""
    accept: str = "application/json"
    extra: dict[str, str] = field(default_factory=dict)

    @property
    def root(self) -> str:
        return self.base + self.prefix

    def authorization_url(self, scope: str = "read write", **other: str | None) -> str:
        query: dict[str, str | None] = {
            "response_type": "code",
            "client_id": self.client_id,
            "redirect_uri": CALLBACK,
            "scope": scope,
            "state": "the-state",
            "code_challenge": CHALLENGE,
            "code_challenge_method": "S256",
            **self.extra,
            **other,
        }
        kept = {name: value for name, value in query.items() if value is not None}
        return f"{self.root}/authorize?{urlencode(kept)}"

    async def consent(
        self, user: str = "alice", scope: str = "read write", *, allow: bool = True, **other: str | None
    ) -> dict[str, str]:
        """The callback's parameters."""
        url = self.authorization_url(scope, **other)
        callback = await approve(self.session, url, user, "allow" if allow else "deny")
        assert callback.startswith(CALLBACK + "?")
        return {name: values[0] for name, values in parse_qs(urlsplit(callback).query).items()}

    async def token(self, *, auth: str = "auto", **form: str) -> Reply:
        headers = {"Accept": self.accept}
        form.setdefault("client_id", self.client_id)
        if auth == "auto" and self.secret is not None:
            form["client_secret"] = self.secret
        elif auth.startswith("Basic"):
            headers["Authorization"] = auth
            del form["client_id"]
        return await self.call("POST", "/token", data=form, headers=headers)

    async def exchange(self, code: str, **other: str) -> Reply:
        form = {"grant_type": "authorization_code", "code": code, "redirect_uri": CALLBACK, **other}
        if "code_challenge" not in self.extra:
            form.setdefault("code_verifier", VERIFIER)
        return await self.token(**{name: value for name, value in form.items() if value})

    async def connect(self, user: str = "alice", scope: str = "read write", **other: str | None) -> Any:
        """A whole consent, to the token answer."""
        back = await self.consent(user, scope, **other)
        reply = await self.exchange(back["code"])
        assert reply.status == 200, reply.body
        return reply.json

    async def refresh(self, refresh_token: str, **other: str) -> Reply:
        return await self.token(grant_type="refresh_token", refresh_token=refresh_token, **other)

    async def get(self, path: str, token: str | None, **headers: str) -> Reply:
        return await self.call("GET", path, headers=bearer(token) | headers)

    async def call(self, method: str, path: str, **kwargs: Any) -> Reply:
        async with self.session.request(method, self.root + path, allow_redirects=False, **kwargs) as answer:
            return Reply(answer.status, answer.headers.copy(), await answer.read())

    async def works(self, token: str) -> bool:
        return (await self.get("/api/me", token)).status == 200


def bearer(token: str | None) -> dict[str, str]:
    return {} if token is None else {"Authorization": f"Bearer {token}"}
