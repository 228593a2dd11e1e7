"""The authorization server's front desk: checks the request, asks the person, sends the browser back."""

from __future__ import annotations

import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NoReturn
from urllib.parse import urlencode, urlsplit

from aiohttp import web

from authproxy.sandbox import page
from authproxy.sandbox.settings import Registration
from authproxy.sandbox.stage import Place, Stage, is_loopback

_COOKIE = "sandbox_browser"
_LIFE = 900.0
_MAX_WAITING = 10_000
_SCOPE = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+")
_VISIBLE = re.compile(r"[\x21-\x7e]+")
_CHALLENGE = re.compile(r"[A-Za-z0-9_-]{43}")


@dataclass(frozen=True, slots=True)
class Asked:
    """An authorization request that was found good, waiting for a decision."""

    place: Place
    client: Registration
    redirect_uri: str
    state: str | None
    scopes: tuple[str, ...]
    user_scopes: tuple[str, ...]
    query: Mapping[str, str]
    csrf: str
    browser: str
    ends: float


class Consent:
    """GET /authorize and POST /authorize/decision."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._waiting: dict[str, Asked] = {}

    async def authorize(self, place: Place, request: web.Request) -> web.StreamResponse:
        """Shows who asks for what. Decides nothing: link scanners open links too."""
        stage = self._stage
        query = dict(request.query)
        client, redirect_uri = self._addressee(query, repeated=len(query) != len(request.query))
        scopes, user_scopes = self._checked(place, query, redirect_uri)
        browser = request.cookies.get(_COOKIE) or stage.randomness(24)
        asked = Asked(
            place=place,
            client=client,
            redirect_uri=redirect_uri,
            state=query.get("state"),
            scopes=scopes,
            user_scopes=user_scopes,
            query=query,
            csrf=stage.randomness(24),
            browser=browser,
            ends=stage.clock() + _LIFE,
        )
        handle = stage.randomness(24)
        self._sweep()
        self._waiting[handle] = asked
        users = list(stage.settings.users)
        hint = query.get("login_hint", "")
        if hint not in users and hint.partition("@")[0] in users:
            hint = hint.partition("@")[0]
        if hint not in users and _user_is_good(hint):
            users.insert(0, hint)
        meanings = stage.settings.scopes if not place.dialect.any_scope else {}
        response = web.Response(
            text=page.consent(
                action=f"{place.prefix}/authorize/decision",
                client=client.name,
                scopes=[(one, meanings.get(one, "")) for one in (*scopes, *user_scopes)],
                users=users,
                chosen=hint if hint in users else users[0],
                host=urlsplit(redirect_uri).netloc,
                hidden={"request": handle, "csrf": asked.csrf},
            ),
            content_type="text/html",
            headers=page.PAGE_HEADERS,
        )
        response.set_cookie(_COOKIE, browser, httponly=True, samesite="Strict", path="/")
        return response

    async def decide(self, place: Place, request: web.Request) -> web.StreamResponse:
        """Takes the decision of the person who saw the page, once."""
        form = await request.post()
        texts = {name: value for name, value in form.items() if isinstance(value, str)}
        asked = self._waiting.get(texts.get("request", ""))
        if asked is None or self._stage.clock() >= asked.ends:
            _refuse("This request was answered already, or is too old. Start again where you came from.")
        same_browser = hmac.compare_digest(request.cookies.get(_COOKIE, "").encode(), asked.browser.encode())
        same_page = hmac.compare_digest(texts.get("csrf", "").encode(), asked.csrf.encode())
        if not (same_browser and same_page and asked.place == place):
            _refuse("This form does not belong to the page that you were shown.", 403)
        user, decision = texts.get("user", ""), texts.get("decision")
        if decision not in ("allow", "deny") or not _user_is_good(user):
            _refuse("Choose who you are, and whether you allow it.")
        del self._waiting[texts["request"]]
        if decision == "deny":
            self._back(asked, error="access_denied", error_description="The person said no")
        self._back(asked, code=self._code(asked, user))

    def _code(self, asked: Asked, user: str) -> str:
        stage, dialect = self._stage, asked.place.dialect
        allowed = stage.switches.narrow_scopes
        owner = (dialect.name, asked.client.client_id, user)
        first = not stage.grants.live_of(*owner)

        def kept(scopes: tuple[str, ...]) -> tuple[str, ...]:
            return tuple(one for one in scopes if allowed is None or one in allowed)

        return stage.grants.keep_code(
            dialect=dialect.name,
            client_id=asked.client.client_id,
            user=user,
            redirect_uri=asked.redirect_uri,
            scopes=kept(asked.scopes),
            user_scopes=kept(asked.user_scopes),
            challenge=asked.query.get("code_challenge"),
            nonce=asked.query.get("nonce"),
            offline=dialect.offline(asked.query, asked.scopes, first),
        )

    def _addressee(self, query: Mapping[str, str], *, repeated: bool) -> tuple[Registration, str]:
        """Client and redirect URI. Until both are known good the browser is sent nowhere (RFC 6749 section 4.1.2.1)."""
        client = self._stage.clients.get(query.get("client_id", ""))
        if client is None:
            _refuse("The client is not registered here: client_id is missing or unknown.")
        redirect_uri = query.get("redirect_uri", "")
        if redirect_uri not in client.redirect_uris and not (client.loopback and _on_loopback(redirect_uri)):
            _refuse(
                "redirect_uri is not registered for this client (it is compared character for character)."
            )
        if repeated:
            _refuse("A parameter is repeated.")
        return client, redirect_uri

    def _checked(
        self, place: Place, query: Mapping[str, str], redirect_uri: str
    ) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The scopes asked for; whatever else is wrong is told to the client by way of the browser."""

        def no(error: str, text: str) -> NoReturn:
            self._send(place, redirect_uri, query.get("state"), error=error, error_description=text)

        if query.get("response_type") != "code":
            no("unsupported_response_type", "only code")
        if "none" in query.get("prompt", "").split():
            no("consent_required", "somebody has to be asked")
        challenge = query.get("code_challenge")
        pkce = self._stage.switches.pkce or place.dialect.pkce
        if challenge is None and pkce == "required":
            no("invalid_request", "code_challenge is required (PKCE)")
        if challenge is not None and query.get("code_challenge_method", "plain") != "S256":
            no("invalid_request", "code_challenge_method must be S256")
        if challenge is not None and not _CHALLENGE.fullmatch(challenge):
            no("invalid_request", "code_challenge is malformed")
        separator = place.dialect.asked_separator
        scopes, user_scopes = (
            tuple(dict.fromkeys(query.get(name, "").replace(separator, " ").split()))
            for name in ("scope", "user_scope")
        )
        if user_scopes and place.dialect.name != "slack":
            user_scopes = ()
        for one in (*scopes, *user_scopes):
            known = place.dialect.any_scope or one in self._stage.settings.scopes
            if not known or not _SCOPE.fullmatch(one):
                no("invalid_scope", "a scope is unknown or malformed")
        return scopes, user_scopes

    def _back(self, asked: Asked, **members: str) -> NoReturn:
        self._send(asked.place, asked.redirect_uri, asked.state, **members)

    def _send(self, place: Place, redirect_uri: str, state: str | None, **members: str) -> NoReturn:
        if state is not None:
            members["state"] = state
        match self._stage.switches.iss:
            case "normal":
                members["iss"] = self._stage.issuer(place)
            case "wrong":
                members["iss"] = "https://another-issuer.example"
            case "missing":
                pass
        joint = "&" if "?" in redirect_uri else "?"
        location = redirect_uri + joint + urlencode(members)
        back = web.HTTPSeeOther(location, headers={"Cache-Control": "no-store"})
        back.headers["Location"] = location  # as the client wrote it, not as a URL parser would
        raise back

    def _sweep(self) -> None:
        now = self._stage.clock()
        for handle in [handle for handle, asked in self._waiting.items() if now >= asked.ends]:
            del self._waiting[handle]
        if len(self._waiting) >= _MAX_WAITING:
            _refuse("Too many requests wait for a decision. Try again later.", 503)


def _user_is_good(user: str) -> bool:
    return 1 <= len(user) <= 128 and user.isprintable()


def _on_loopback(redirect_uri: str) -> bool:
    if not _VISIBLE.fullmatch(redirect_uri):
        return False
    try:
        parts = urlsplit(redirect_uri)
        port_is_good = parts.port is None or parts.port > 0
    except ValueError:
        return False
    if parts.scheme != "http" or "@" in parts.netloc or parts.fragment or not port_is_good:
        return False
    return is_loopback(parts.hostname or "")


def _refuse(sentence: str, status: int = 400) -> NoReturn:
    kind = {400: web.HTTPBadRequest, 403: web.HTTPForbidden, 503: web.HTTPServiceUnavailable}[status]
    raise kind(text=page.refusal(sentence), content_type="text/html", headers=page.PAGE_HEADERS)
