"""The admin endpoint: switches, ledger and the events that a provider's people and users cause."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from aiohttp import web

from authproxy.sandbox.settings import Registration
from authproxy.sandbox.stage import is_loopback, json_answer
from authproxy.sandbox.switches import SwitchError

if TYPE_CHECKING:
    from authproxy.sandbox.app import Sandbox


class Admin:
    """Handlers below /admin, for callers on this machine that are not a page in somebody's browser."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox

    def routes(self) -> list[web.RouteDef]:
        """All routes."""
        table: list[tuple[str, str, Callable[[dict[str, Any]], Awaitable[web.Response]]]] = [
            ("GET", "/admin/switches", self._show),
            ("POST", "/admin/switches", self._turn),
            ("PUT", "/admin/switches", self._reset),
            ("GET", "/admin/ledger", self._ledger),
            ("GET", "/admin/stats", self._stats),
            ("POST", "/admin/expire", self._expire),
            ("POST", "/admin/revoke-user", self._revoke_user),
            ("POST", "/admin/password-change", self._password_change),
            ("POST", "/admin/use-elsewhere", self._use_elsewhere),
            ("POST", "/admin/clients", self._register),
        ]
        return [web.route(method, path, self._guarded(handler)) for method, path, handler in table]

    def _guarded(
        self, handler: Callable[[dict[str, Any]], Awaitable[web.Response]]
    ) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def guarded(request: web.Request) -> web.Response:
            refusal = self._refusal(request)
            if refusal is not None:
                return json_answer({"error": refusal}, 403)
            body: Any = {}
            if request.method != "GET":
                if request.content_type != "application/json":
                    return json_answer({"error": "send Content-Type: application/json"}, 415)
                try:
                    text = await request.text()
                    body = json.loads(text) if text.strip() else {}
                except ValueError:
                    return json_answer({"error": "the body is not JSON"}, 400)
                if not isinstance(body, dict):
                    return json_answer({"error": "send a JSON object"}, 400)
            try:
                return await handler(body)
            except SwitchError as wrong:
                return json_answer({"error": str(wrong)}, 400)

        return guarded

    @staticmethod
    def _refusal(request: web.Request) -> str | None:
        """Loopback only, by a loopback name (a rebound DNS name is not one), and never for another site's page."""
        if not is_loopback(request.remote or ""):
            return "the admin endpoint answers on this machine only"
        if not is_loopback(urlsplit(f"//{request.host}").hostname or ""):
            return "the Host is not a loopback name"
        site = request.headers.get("Sec-Fetch-Site", "none")
        origin = request.headers.get("Origin")
        if site not in ("none", "same-origin") or (origin is not None and origin != f"http://{request.host}"):
            return "the admin endpoint is not for other sites' pages"
        return None

    async def _show(self, _body: dict[str, Any]) -> web.Response:
        return json_answer(self._sandbox.switches.describe(self._sandbox.initial))

    async def _turn(self, body: dict[str, Any]) -> web.Response:
        self._sandbox.switches.update(body)
        return await self._changed()

    async def _reset(self, body: dict[str, Any]) -> web.Response:
        self._sandbox.reset(body)
        return await self._changed()

    async def _changed(self) -> web.Response:
        """The switches that are not where they began."""
        told = self._sandbox.switches.describe(self._sandbox.initial)
        return json_answer(
            {name: one["value"] for name, one in told.items() if one["value"] != one["default"]}
        )

    async def _ledger(self, _body: dict[str, Any]) -> web.Response:
        return json_answer(self._sandbox.ledger.as_json())

    async def _stats(self, _body: dict[str, Any]) -> web.Response:
        return json_answer(self._sandbox.stats())

    async def _expire(self, body: dict[str, Any]) -> web.Response:
        return json_answer({"expired": self._sandbox.expire_access_tokens(_user(body, needed=False))})

    async def _revoke_user(self, body: dict[str, Any]) -> web.Response:
        return json_answer({"revoked": self._sandbox.revoke_user(_user(body) or "")})

    async def _password_change(self, body: dict[str, Any]) -> web.Response:
        return json_answer({"revoked": self._sandbox.change_password(_user(body) or "")})

    async def _use_elsewhere(self, body: dict[str, Any]) -> web.Response:
        return json_answer({"redeemed": self._sandbox.use_elsewhere(_user(body) or "")})

    async def _register(self, body: dict[str, Any]) -> web.Response:
        _only(body, {"client_id", "name", "client_secret", "auth", "redirect_uris", "loopback"})
        client_id = body.get("client_id")
        secret = body.get("client_secret")
        if not isinstance(client_id, str) or not client_id or not isinstance(secret, str | None):
            raise SwitchError("client_id and client_secret must be text")
        usual = ["none"] if secret is None else ["client_secret_basic", "client_secret_post"]
        auth, uris = body.get("auth", usual), body.get("redirect_uris", [])
        loopback = body.get("loopback", not uris)
        methods = ("client_secret_basic", "client_secret_post", "none")
        if not _texts(auth) or not auth or not set(auth) <= set(methods) or not _texts(uris):
            raise SwitchError(f"auth is a list of {', '.join(methods)}; redirect_uris a list of text")
        if not isinstance(loopback, bool):
            raise SwitchError("loopback is true or false")
        if secret is None and "none" not in auth:
            raise SwitchError("a client without client_secret can only authenticate with none")
        name = str(body.get("name", client_id))
        self._sandbox.register(Registration(client_id, name, secret, tuple(auth), tuple(uris), loopback))
        return json_answer({"registered": client_id}, 201)


def _texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)


def _only(body: dict[str, Any], known: set[str]) -> None:
    unknown = sorted(set(body) - known)
    if unknown:
        raise SwitchError(f"unknown member {unknown[0]!r}; known: {', '.join(sorted(known))}")


def _user(body: dict[str, Any], *, needed: bool = True) -> str | None:
    _only(body, {"user"})
    user = body.get("user")
    if isinstance(user, str) and user:
        return user
    if user is not None or needed:
        raise SwitchError('say which user: {"user": "alice"}')
    return None
