"""Where a request goes and whether it may: found by its target and judged once for all that have the same one."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from authproxy.core import message, policy
from authproxy.core.errors import BadRequest, EgressBlocked, NoRoute, PolicyDenied
from authproxy.core.message import RequestFields, Target
from authproxy.core.model import Caller
from authproxy.core.origin import canonical_host
from authproxy.core.routes import Route, RouteTable
from authproxy.core.session import demand_route
from authproxy.proxy.place import Inside, Place
from authproxy.proxy.record import Entry

_MOST = 2048  # ways that are remembered
_LONG = 256  # bytes of a method and a path that are

Where = tuple[str, str, int] | None  # scheme, host and port; None: here


class Way(NamedTuple):
    """The route, and the path at its upstream. `named_host` is the one that was asked for where only the user's grant
    says whether it is theirs."""

    route: Route
    path: bytes
    named_host: str | None


class Ways:
    """Those of one configuration. What is allowed is remembered; what is refused is looked at each time."""

    def __init__(self, routes: RouteTable, own_authorities: Callable[[], frozenset[tuple[str, int]]]) -> None:
        self._routes = routes
        self._own_authorities = own_authorities
        self._known: dict[tuple[str, bytes, Where, str | None], Way] = {}

    def find(
        self, place: Place, caller: Caller, method: str, fields: RequestFields, target: Target, entry: Entry
    ) -> Way:
        """The way of a request that may go it. Raises NoRoute, PolicyDenied, EgressBlocked, BadRequest."""
        where = self._where(place, fields, target)
        key = (method, target.path, where, None if place.route is None else place.route.name)
        way = None if fields.overrides else self._known.get(key)
        known = way is not None
        if way is None:
            way = self._found(place, where, method, target, entry)
        if caller.routes is not None:
            demand_route(caller, way.route.name, tool=place.behalf is not None)
        if not known:
            _judge(way.route, method, way.path, fields)
            if not fields.overrides and len(target.path) + len(method) <= _LONG:
                if len(self._known) >= _MOST:
                    self._known.clear()
                self._known[key] = way
        route = way.route
        entry.route, entry.path, entry.named_host, entry.host = (
            route.name,
            way.path,
            way.named_host,
            route.host,
        )
        return way

    def _where(self, place: Place, fields: RequestFields, target: Target) -> Where:
        if place.tunnel is not None:
            return _inside(place.tunnel, fields, target)
        if target.form == "absolute" and (target.host, target.port) not in self._own_authorities():
            return target.scheme, target.host, target.port
        return None

    def _found(self, place: Place, where: Where, method: str, target: Target, entry: Entry) -> Way:
        if target.form == "asterisk":
            raise NoRoute("`OPTIONS *` belongs to no route")
        if where is None:
            return self._here(place, target.path, entry)
        scheme, host, port = where
        entry.host = host  # the one that was asked for, also where it is refused
        route = self._routes.match_host(scheme, host, port, target.path, method)
        if route is None or place.route not in (None, route):
            raise NoRoute("no route has this host", reason="host")
        entry.route, entry.path = route.name, target.path
        named = route.grant_hosts and not self._routes.lists(scheme, host, port)
        return Way(route, target.path, host if named else None)

    def _here(self, place: Place, path: bytes, entry: Entry) -> Way:
        """By path, on a listener of all routes or of one."""
        if place.route is not None:
            route, rest = place.route, path
        else:
            found = self._routes.match_prefix(path)
            if found is None:
                raise NoRoute("no route has this prefix", reason="prefix")
            route, rest = found
        entry.route, entry.path = route.name, route.target(rest)
        return Way(route, entry.path, None)


def _judge(route: Route, method: str, path: bytes, fields: RequestFields) -> None:
    if method == "TRACE":
        raise PolicyDenied("TRACE would reflect the credential", reason="trace", status=405)
    decision = policy.decide(route, method, path, fields.overrides)
    if not decision.allowed:
        raise PolicyDenied(f"route {route.name} does not allow {method} on this path", reason=decision.reason)
    if not route.api_host:
        raise EgressBlocked(f"route {route.name} leads to no host of its provider")


def _inside(tunnel: Inside, fields: RequestFields, target: Target) -> tuple[str, str, int]:
    """Where a request in a tunnel goes: where the tunnel goes, or nowhere (D19)."""
    named = [message.authority_of(value) for value in fields.hosts]
    if tunnel.asked is not None:
        named.append((tunnel.asked, tunnel.port))
    if target.form == "absolute":
        named.append((target.host, target.port if target.scheme == "https" else -1))
    for host, port in named:
        if (canonical_host(host), port or 443) != (tunnel.host, tunnel.port):
            raise BadRequest("the request names another host than its tunnel", reason="host", status=421)
    if not named:
        raise BadRequest("send exactly one Host header", reason="host")
    return "https", tunnel.host, tunnel.port
