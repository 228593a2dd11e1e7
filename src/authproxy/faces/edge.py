"""The control listener's edge: who may reach it, one shape of refusals, and the headers every answer carries."""

from __future__ import annotations

import asyncio
import ipaddress
import re
import secrets
import time
from collections.abc import Awaitable, Callable, Iterable
from urllib.parse import urlsplit

import structlog
from aiohttp import HttpVersion11, web

from authproxy.core.errors import BadRequest, BodyTooLarge, CallerUnknown, Internal, NotFound, Refusal
from authproxy.faces import pages

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

REQUEST_ID = web.RequestKey("request_id", str)
MAX_BODY = 65536
"""Nothing that is said on the control plane is longer."""

log = structlog.get_logger()
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_LABEL = re.compile(r"[a-z0-9_-]{1,63}")
_BROWSER = ("/connect/", "/callback/")
_QUIET = frozenset({"/livez", "/readyz", "/metrics"})
_READS_ITSELF = frozenset(
    {"/mcp", "/v1/tools/execute"}
)  # larger bodies, and only once it is known who sends them
# What reverse proxies, meshes and content networks add, each in its own way; no local client sends any of it.
_FORWARDED = re.compile(
    r"forwarded|via|(?:true-|x-|x-cluster-)?client-ip|x-real-ip|(?:x-forwarded|x-original|x-envoy|cf|fastly)-.+",
    re.I,
)
# Names that no public resolver answers for: a web page cannot be served under them, so they cannot be rebound.
_PRIVATE_SUFFIXES = (".localhost", ".local", ".internal", ".svc")


class Names:
    """The host names under which a local peer may address this listener.

    A web page that rebinds its own name to 127.0.0.1 would be taken for a local caller (CVE-2018-14505 in
    mitmweb). Peers from elsewhere have no standing without a key, whatever name they use.
    """

    def __init__(self, public_url: str) -> None:
        self.public = (urlsplit(public_url).hostname or "").lower()

    def own(self, host: str) -> bool:
        """An IP address cannot be rebound, and neither can a name without a dot or below a private suffix."""
        return (
            host == self.public
            or is_literal(host)
            or _LABEL.fullmatch(host) is not None
            or host.endswith(_PRIVATE_SUFFIXES)
        )


def host_of(request: web.BaseRequest) -> str:
    """The host name asked for, without its port; empty where it cannot be read."""
    try:
        return (urlsplit(f"//{request.headers.get('Host', '')}").hostname or "").lower().rstrip(".")
    except ValueError:
        return ""


def is_literal(host: str) -> bool:
    """Whether this is an IP address rather than a name."""
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True


def is_local_name(host: str) -> bool:
    """Whether this name can only mean the machine itself."""
    if is_literal(host):
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    return host == "localhost" or host.endswith(".localhost")


def peer_is_loopback(transport_info: Callable[[str], object]) -> bool:
    """Whether the other end of this connection is on this machine; unix sockets have no peer address."""
    peer = transport_info("peername")
    if isinstance(peer, tuple) and peer and isinstance(peer[0], str):
        if not is_literal(peer[0]):
            return False
        address = ipaddress.ip_address(peer[0].partition("%")[0])
        mapped = getattr(address, "ipv4_mapped", None)
        return (mapped or address).is_loopback
    return isinstance(transport_info("sockname"), str)


def is_local(request: web.Request, names: Names) -> bool:
    """Whether a request without credential may pass as a local one.

    A reverse proxy on this machine brings strangers in from a loopback address: what it forwarded, or what was
    addressed to a public name, is not local (RFC 9700 4.13). Nor is HTTP/1.0, which no agent speaks any more and
    nginx does, without a word of whom it brings. Names with a dot can be claimed by others on the network (mDNS).
    """
    host = host_of(request)
    return (
        peer_is_loopback(request.get_extra_info)
        and request.version >= HttpVersion11
        and not any(_FORWARDED.fullmatch(name) for name in request.headers)
        and (is_local_name(host) or is_literal(host) or (host != names.public and "." not in host))
    )


def application(
    routes: Iterable[web.AbstractRouteDef],
    *,
    names: Names,
    clock: Callable[[], float] = time.monotonic,
    patience: float = 10.0,
) -> web.Application:
    """The faces' routes behind one edge. `patience` is what a request's body may take, in seconds."""

    @web.middleware
    async def edge(request: web.Request, handler: Handler) -> web.StreamResponse:
        started = clock()
        asked = request.headers.get("X-Request-ID", "")
        request_id = asked if _REQUEST_ID.fullmatch(asked) else secrets.token_hex(16)
        request[REQUEST_ID] = request_id
        code: str | None = None
        response: web.StreamResponse
        try:
            if peer_is_loopback(request.get_extra_info) and not names.own(host_of(request)):
                raise BadRequest("The Host header is not one of this listener's names", reason="unknown_host")
            if request.path not in _READS_ITSELF:
                await _read(request, patience)
            response = await handler(request)
        except Refusal as refusal:
            code, response = refusal.code, refuse(request, refusal)
        except web.HTTPException as told:
            plain = _translated(told)
            code, response = plain.code, refuse(request, plain, status=told.status)
            if isinstance(told, web.HTTPMethodNotAllowed):
                response.headers["Allow"] = ", ".join(sorted(told.allowed_methods))
        except (web.RequestPayloadError, ConnectionError):
            broken = BadRequest("The request body broke off or is not well-formed", reason="body")
            code, response = broken.code, refuse(request, broken)
        except Exception:
            # This listener's one edge: a fault of ours is logged whole and told as `internal`.
            log.exception("control_fault", request_id=request_id, route=_route(request))
            code, response = Internal.code, refuse(request, Internal("authproxy failed; its log says how"))
        if not response.prepared:
            finish(response, request_id)
        if request.path not in _QUIET:
            log.info(
                "control_request",
                request_id=request_id,
                method=request.method,
                route=_route(request),
                status=response.status,
                code=code,
                ms=round((clock() - started) * 1000, 1),
            )
        return response

    app = web.Application(middlewares=[edge], client_max_size=MAX_BODY)
    app.add_routes(routes)
    return app


async def _read(request: web.Request, patience: float) -> None:
    """The whole body, before anything is done with it: none is large, and none may drip for ever."""
    try:
        async with asyncio.timeout(patience):
            await request.read()
    except TimeoutError:
        raise BadRequest("The request body did not come in time", reason="slow", status=408) from None


def finish(response: web.StreamResponse, request_id: str) -> None:
    """Put on the fields that every answer carries; what is streamed needs them before its first byte."""
    headers = response.headers
    headers["X-Request-ID"] = request_id
    headers.setdefault("Cache-Control", "no-store")
    headers.setdefault("Referrer-Policy", "no-referrer")
    headers.setdefault("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
    headers["X-Content-Type-Options"] = "nosniff"
    headers["Server"] = "authproxy"


def _route(request: web.Request) -> str:
    """The route's pattern, never the path itself: flow ids and queries stay out of the log (F08)."""
    resource = request.match_info.route.resource
    return resource.canonical if resource is not None else "none"


def _translated(told: web.HTTPException) -> Refusal:
    match told:
        case web.HTTPNotFound():
            return NotFound("There is nothing at this path; see the README for the control plane's paths")
        case web.HTTPMethodNotAllowed():
            return BadRequest(f"This path does not take {told.method}", reason="method_not_allowed")
        case web.HTTPRequestEntityTooLarge():
            return BodyTooLarge(f"The request body is over {MAX_BODY} bytes")
        case _:
            return BadRequest("The request cannot be read")


def refuse(request: web.Request, refusal: Refusal, *, status: int | None = None) -> web.Response:
    """One refusal as an answer: a page for browsers on their paths, problem+json everywhere else."""
    unknown = isinstance(refusal, CallerUnknown)
    status = status or (401 if unknown else refusal.status)
    if request.path.startswith(_BROWSER):
        text = pages.refused(refusal, request[REQUEST_ID])
        response = web.Response(text=text, content_type="text/html", charset="utf-8", status=status)
        response.headers["Content-Security-Policy"] = pages.policy()
    else:
        problem = refusal.problem(request[REQUEST_ID], status=status)
        response = web.json_response(problem, status=status, content_type="application/problem+json")
    response.headers["X-Authproxy-Error"] = refusal.code
    if unknown:
        response.headers["WWW-Authenticate"] = 'Bearer realm="authproxy"'
    if refusal.retry_after is not None:
        response.headers["Retry-After"] = str(refusal.retry_after)
    return response
