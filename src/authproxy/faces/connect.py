"""The browser's door: shows who asks for what, starts the consent at a button, and takes the provider's answer."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Callable, Iterable
from urllib.parse import urlsplit

from aiohttp import web

from authproxy.broker.flows import Flows, Page
from authproxy.core.errors import BadRequest
from authproxy.core.model import Flow, FlowStatus
from authproxy.faces import pages
from authproxy.faces.edge import host_of, is_local_name
from authproxy.store.admission import USER_DISABLED

_COOKIE = re.compile(r"[A-Za-z0-9_-]{43}")
_WAITING = frozenset({FlowStatus.NOT_STARTED, FlowStatus.PENDING})
_AGAIN = frozenset({FlowStatus.EXPIRED, FlowStatus.DENIED, FlowStatus.FAILED})
RESTART_WITHIN = 86400
"""Seconds after its making for which an ended link still offers a new one: an old link found in a chat log must not
be a door for ever."""


class Connect:
    """GET shows and changes nothing (link scanners fetch links); POST starts; the callback finishes once."""

    def __init__(
        self,
        flows: Flows,
        *,
        public_url: str,
        cookie_life: int,
        clock: Callable[[], float],
        random: Callable[[int], str] = secrets.token_urlsafe,
    ) -> None:
        self._flows = flows
        self._clock = clock
        self._random = random
        self._life = cookie_life
        parts = urlsplit(public_url)
        self._secure = parts.scheme == "https"
        self._origin = f"{parts.scheme}://{parts.netloc}"
        self._host = (parts.hostname or "").lower()
        self._base = parts.path.rstrip("/")
        self._path = self._base or "/"
        # __Host- keeps neighbours on sub-domains from planting one, and demands Path=/ and Secure (RFC 6265bis
        # 4.1.3); where authproxy shares its origin with others below a path, the path is worth more.
        prefix = ("__Host-" if self._path == "/" else "__Secure-") if self._secure else ""
        self._cookie = f"{prefix}authproxy_browser"

    def routes(self) -> Iterable[web.AbstractRouteDef]:
        return [
            web.get("/connect/{flow}", self.show),
            web.post("/connect/{flow}", self.press),
            web.get("/callback/{provider}", self.callback),
        ]

    async def show(self, request: web.Request) -> web.StreamResponse:
        """What is asked for, and a button. Nothing is spent, moved or sent by looking."""
        host = host_of(request)
        flow_id = request.match_info["flow"]
        page = await self._flows.open(flow_id)
        if host != self._host and is_local_name(host) and is_local_name(self._host):
            # localhost against 127.0.0.1: the cookie must be set where the provider will send the browser back.
            return _to(f"{self._origin}{self._base}/connect/{flow_id}")
        browser = self._browser(request) or self._random(32)
        response = self._page(self._view(page, browser))
        # The form's POST must carry an Origin, which `no-referrer` would turn into `null`.
        response.headers["Referrer-Policy"] = "same-origin"
        if page.flow.status in _WAITING or self._may_restart(page.flow):
            self._set_cookie(response, browser, self._life)
        return response

    async def press(self, request: web.Request) -> web.StreamResponse:
        """The button: binds the flow to this browser and sends it to the provider."""
        flow_id = request.match_info["flow"]
        page = await self._flows.open(flow_id)
        browser = await self._pressed(request, page.flow)
        if self._may_restart(page.flow):
            return _to(await self._flows.link_for(page.flow.key, page.flow.scopes, page.flow.agent))
        if page.flow.status not in _WAITING:
            return self._page(self._view(page, browser))
        departure = await self._flows.go(flow_id, browser)
        response = _to(departure.url)
        # For a whole flow's life, not for what is left of this one's: another in the same browser may be younger.
        self._set_cookie(response, departure.cookie, self._life)
        return response

    async def callback(self, request: web.Request) -> web.StreamResponse:
        """The provider's answer. What only looks (HEAD, prefetch) is given nothing, and nothing is consumed."""
        if request.method == "HEAD" or _prefetched(request):
            return web.Response(status=204)
        query = {name: request.query.getall(name) for name in request.query}
        if any(len(values) > 1 for values in query.values()):
            raise BadRequest("The provider's answer is ambiguous", reason="repeated_parameter")
        arrival = await self._flows.finish(
            request.match_info["provider"],
            {name: values[0] for name, values in query.items()},
            self._browser(request),
        )
        onward = arrival.location or self._flows.destination(arrival.flow)
        if onward is not None:
            return _to(onward)
        return self._page(self._view(await self._flows.open(arrival.flow.id), None))

    def _view(self, page: Page, browser: str | None) -> str:
        flow, provider = page.flow, page.provider_name
        action = f"{self._base}/connect/{flow.id}"
        if flow.status in _WAITING and browser is not None:
            form = pages.Form(action, _token(browser, flow), f"Go on to {provider}")
            return pages.consent(flow, provider, form)
        again = link = None
        if self._may_restart(flow):
            if browser is not None:
                again = pages.Form(action, _token(browser, flow), "Get a new link")
            else:
                link = pages.Link(action, "Try again")
        elif flow.status is FlowStatus.COMPLETED and flow.next_uri is not None:
            link = pages.Link(flow.next_uri, "Go back")
        return pages.ended(flow, provider, form=again, link=link)

    def _may_restart(self, flow: Flow) -> bool:
        if flow.reason == USER_DISABLED:
            return False
        return flow.status in _AGAIN and self._clock() < flow.created_at + RESTART_WITHIN

    async def _pressed(self, request: web.Request, flow: Flow) -> str:
        """The browser's cookie, once it is certain that our own page was pressed, in this browser."""
        if request.headers.get("Origin", self._origin) != self._origin or request.headers.get(
            "Sec-Fetch-Site", "same-origin"
        ) not in ("same-origin", "none"):
            raise BadRequest("The button was not pressed on this page", reason="cross_origin")
        browser = self._browser(request)
        if browser is None:
            raise BadRequest(
                "The browser sent no cookie: allow cookies and open the link again", reason="no_cookie"
            )
        if request.content_type != "application/x-www-form-urlencoded":
            raise BadRequest("The form cannot be read", reason="content_type")
        try:
            token = (await request.post()).get("token")
        except (LookupError, UnicodeDecodeError):  # a charset that is none, or bytes that are not in it
            raise BadRequest("The form cannot be read", reason="charset") from None
        if not isinstance(token, str) or not hmac.compare_digest(
            token.encode(), _token(browser, flow).encode()
        ):
            raise BadRequest(
                "The page was not shown to this browser, or asks for more since: open the link again",
                reason="bad_form",
            )
        return browser

    def _browser(self, request: web.Request) -> str | None:
        value = request.cookies.get(self._cookie)
        return value if value is not None and _COOKIE.fullmatch(value) else None

    def _set_cookie(self, response: web.StreamResponse, browser: str, seconds: int) -> None:
        """Lax, because the provider's redirect back is a cross-site navigation (C08)."""
        response.set_cookie(
            self._cookie,
            browser,
            max_age=seconds,
            path=self._path,
            secure=self._secure,
            httponly=True,
            samesite="Lax",
        )

    def _page(self, text: str) -> web.Response:
        response = web.Response(text=text, content_type="text/html", charset="utf-8")
        response.headers["Content-Security-Policy"] = pages.policy(plain_http=not self._secure)
        return response


def _token(browser: str, flow: Flow) -> str:
    """Ties a form to the cookie, and to what the page said: who cannot read the cookie cannot make one."""
    return hashlib.sha256("\0".join(["form", browser, flow.id, *flow.scopes]).encode()).hexdigest()


def _prefetched(request: web.Request) -> bool:
    said = " ".join(request.headers.get(name, "") for name in ("Sec-Purpose", "Purpose", "X-Moz")).lower()
    return "prefetch" in said or "preview" in said


def _to(url: str) -> web.Response:
    """303: whatever the method was, the browser goes on with GET."""
    return web.Response(status=303, headers={"Location": url})
