"""Where a rehearsal is played: the proxy's listeners, its control plane and the sandbox, all spoken to over HTTP."""

from __future__ import annotations

import json
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from authproxy.core.config import Refresh
from authproxy.demo import Failed, open_as
from authproxy.rehearsal.answers import Answer, Trouble
from authproxy.sandbox import ConsentNotShown

PATIENCE = 60.0
"""Seconds after which a call that nobody answers is given up."""


@dataclass(frozen=True, slots=True)
class Timing:
    """The settings of the driven proxy that say how long its parts of a scene may take, in seconds."""

    deadline: float
    backoff_max: float
    leash: float

    @classmethod
    def of(cls, refresh: Refresh) -> Timing:
        """As the configuration has them."""
        return cls(refresh.deadline, refresh.backoff_max, refresh.leash)


@dataclass(slots=True)
class Ground:
    """`listens` are the data planes of replicas on one store; `path` is that of the sandbox's API on them.
    `reinforce` starts another replica, where this is ours to do; `fell` kills the first one."""

    http: aiohttp.ClientSession
    listens: list[str]
    control: str
    sandbox: str
    path: str
    provider: str
    scopes: tuple[str, ...]
    timing: Timing
    environment: Mapping[str, str]
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    user_header: str = "X-User-ID"
    sends: bool = False
    reinforce: Callable[[], Awaitable[None]] | None = None
    fell: Callable[[], Awaitable[None]] | None = None

    async def call(self, user: str, *, text: str | None = None, at: int = 0) -> Answer:
        """An agent's call: reads its user's profile, or sends a message."""
        method, path, body = ("GET", "/me", None) if text is None else ("POST", "/messages", {"text": text})
        began = time.monotonic()
        try:
            async with self.http.request(
                method,
                self.listens[at] + self.path + path,
                json=body,
                headers={**self.headers, self.user_header: user},
                timeout=aiohttp.ClientTimeout(total=PATIENCE),
            ) as response:
                raw = await response.read()
                answer = _answer(user, response, raw)
        except (aiohttp.ClientError, TimeoutError):
            answer = Answer(user, 0)
        answer.seconds = time.monotonic() - began
        return answer

    async def inbox(self, user: str) -> list[str]:
        """The texts of a user's messages at the API, read through the proxy."""
        async with self.http.get(
            f"{self.listens[0]}{self.path}/messages", headers={**self.headers, self.user_header: user}
        ) as response:
            if response.status != 200:
                raise Trouble(f"the messages of {user} cannot be read: status {response.status}")
            return [str(one["text"]) for one in (await response.json())["messages"]]

    # The control plane

    async def ask(self, method: str, path: str, body: Any = None) -> Any:
        """A call of an operator."""
        return await self._json(method, self.control + path, body, self.headers)

    async def connection(self, user: str) -> dict[str, Any] | None:
        """What the proxy knows of a user's connection, without its tokens."""
        found = await self.ask("GET", f"/v1/connections?user_id={user}&provider_id={self.provider}")
        return found["items"][0] if found["items"] else None

    async def connect(self, user: str) -> None:
        """A user's first consent, from the link to the callback."""
        need = {"provider_id": self.provider}
        started = await self.ask("POST", "/v1/auth/authorize", {"user_id": user, "auth_requirement": need})
        if started["url"] is None:
            return
        await self.consent(user, started["url"])
        ended = await self.ask("GET", f"/v1/auth/status?id={started['id']}&wait=15")
        if ended["status"] != "completed":
            raise Trouble(f"the consent of {user} ended as {ended['state']} ({ended['reason']})")

    async def consent(self, user: str, link: str) -> None:
        """What a user does with a link."""
        try:
            await open_as(self.http, link, user)
        except (Failed, ConsentNotShown) as broken:
            raise Trouble(f"{user} could not consent: {broken}") from None

    # The sandbox

    async def turn(self, **switches: Any) -> None:
        """Breaks the provider, or mends it."""
        await self.admin("POST", "switches", switches)

    async def mend(self) -> None:
        """All switches to where the sandbox was started with."""
        await self.admin("PUT", "switches", {})

    async def positions(self) -> dict[str, Any]:
        """Where the switches are that are not where they began."""
        told = await self.admin("GET", "switches")
        return {name: one["value"] for name, one in told.items() if one["value"] != one["default"]}

    async def position(self, switch: str) -> Any:
        """Where one switch is."""
        return (await self.admin("GET", "switches"))[switch]["value"]

    async def admin(self, method: str, what: str, body: Any = None) -> Any:
        """What the provider's people and users do."""
        return await self._json(method, f"{self.sandbox}/admin/{what}", body, {})

    async def _json(self, method: str, url: str, body: Any, headers: Mapping[str, str]) -> Any:
        sent = None if method == "GET" else (body if body is not None else {})
        try:
            async with self.http.request(
                method, url, json=sent, headers=headers, timeout=aiohttp.ClientTimeout(total=PATIENCE)
            ) as response:
                raw = await response.read()
                status = response.status
        except (aiohttp.ClientError, TimeoutError) as error:
            raise Trouble(f"{_shown(url)} does not answer ({type(error).__name__})") from None
        try:
            told = json.loads(raw) if raw else None
        except ValueError:
            raise Trouble(f"{_shown(url)} answered {status}, and not in JSON") from None
        if status >= 400:
            said = (told.get("title") or told.get("error")) if isinstance(told, dict) else None
            raise Trouble(f"{method} {_shown(url)} answered {status}: {said or 'without a reason'}")
        return told


def _answer(user: str, response: aiohttp.ClientResponse, raw: bytes) -> Answer:
    code = response.headers.get("X-Authproxy-Error")
    problem: Any = None
    if code is not None:
        try:
            problem = json.loads(raw)
        except ValueError:
            problem = None
    said = problem if isinstance(problem, dict) else {}
    wait = response.headers.get("Retry-After", "")
    return Answer(
        user,
        response.status,
        code,
        said.get("act"),
        said.get("reason"),
        float(wait) if wait.isdigit() else None,
        said.get("connect_url"),
        response.headers.get("X-Request-ID"),
    )


def _shown(url: str) -> str:
    return url.partition("?")[0]
