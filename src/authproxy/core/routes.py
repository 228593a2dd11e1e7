"""Which upstream and provider a target belongs to."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, replace

from authproxy.core.config import Config, ProviderChoice, RouteChoice, RouteTimeouts, Timeouts
from authproxy.core.known import Known, KnownProvider, catalogue
from authproxy.core.origin import DEFAULT_PORTS, Origin, canonical_host, read_base_url, read_host_port
from authproxy.core.policy import Rules, decide


def completed(name: str, config: Config, known: Known) -> RouteChoice:
    """A route as chosen, with what the catalogue knows of it where the operator says nothing."""
    choice, base, plain = config.routes[name], known.routes.get(name), RouteChoice()
    if base is None:
        return choice
    said = {f.name: getattr(choice, f.name) for f in fields(choice)}
    whole = replace(base, **{key: value for key, value in said.items() if value != getattr(plain, key)})
    if choice.upstream is None and whole.upstream is not None and whole.provider is not None:
        whole = replace(whole, upstream=provider_for(whole.provider, config, known).upstream(whole.upstream))
    return whole


def provider_for(name: str, config: Config, known: Known) -> KnownProvider:
    """What is known of a provider of this configuration; for one outside the catalogue, what the operator says."""
    choice = config.providers.get(name, ProviderChoice())
    found = known.provider(name, choice)
    return found if isinstance(found, KnownProvider) else KnownProvider(choice.api_hosts)


def prefix_of(name: str, choice: RouteChoice) -> str:
    """The route's prefix on the data plane; `/` is everything, kept as the empty prefix."""
    prefix = f"/{name}" if choice.prefix is None else choice.prefix
    return "" if prefix == "/" else prefix


@dataclass(frozen=True, slots=True)
class Route:
    """A route with everything the walk needs, worked out at load.

    `host` and `authority` are empty where each grant names its own upstream (`Provider.upstream_from`).
    `api_host` says whether the provider's tokens may go to the upstream's host at all; the reader of routes.yaml
    refuses a route where they may not, so False is only seen with a Config built by other means.
    `max_body` 0: no limit; `timeouts` are the general ones with the route's own in their places. `grant_hosts` are
    the patterns of hosts that a grant may name, where it names its own upstream.
    """

    name: str
    prefix: bytes
    provider: str
    scheme: str
    host: str
    port: int
    authority: bytes
    base_path: bytes
    scopes: tuple[str, ...]
    scope_set: frozenset[str]
    rules: Rules
    max_body: int
    max_replay: int
    timeouts: Timeouts
    api_host: bool
    keep_set_cookie: bool
    reflected: str
    send_cookies: bool
    rewrite_urls: bool = False
    grant_hosts: tuple[str, ...] = ()
    share_pauses: bool = True
    share_connections: bool = False

    def target(self, rest: bytes) -> bytes:
        """The upstream's request-target for what followed the prefix: bytes are joined, nothing is normalised."""
        path = self.base_path + rest
        return path if path.startswith(b"/") else b"/" + path


def compile_route(name: str, choice: RouteChoice, config: Config, known: Known) -> Route:
    """One route from a completed choice; raises ValueError where it is not whole."""
    origin = read_base_url(choice.upstream) if choice.upstream is not None else Origin("https", "", 443)
    if origin is None or choice.provider is None:
        raise ValueError(f"route {name} has no valid upstream or no provider")
    provider = provider_for(choice.provider, config, known)
    return Route(
        name=name,
        prefix=prefix_of(name, choice).encode(),
        provider=choice.provider,
        scheme=origin.scheme,
        host=origin.host,
        port=origin.port,
        authority=origin.authority if origin.host else b"",
        base_path=origin.path,
        scopes=choice.scopes,
        scope_set=frozenset(choice.scopes),
        rules=Rules(choice.allow, never=provider.credential_paths),
        max_body=config.limits.max_body if choice.max_body is None else choice.max_body,
        max_replay=config.limits.max_replay if choice.max_replay is None else choice.max_replay,
        timeouts=_timeouts(choice.timeouts, config.timeouts),
        api_host=not origin.host or provider.may_receive(origin),
        keep_set_cookie=name not in known.routes
        if choice.keep_set_cookie is None
        else choice.keep_set_cookie,
        reflected=choice.reflected,
        send_cookies=choice.send_cookies,
        share_pauses=choice.share_pauses,
        share_connections=choice.share_connections,
        rewrite_urls=bool(choice.rewrite_urls),
        grant_hosts=provider.patterns if provider.upstream_from else (),
    )


def _timeouts(own: RouteTimeouts, general: Timeouts) -> Timeouts:
    """The general seconds, with the route's own where it has some."""
    said = {f.name: value for f in fields(own) if (value := getattr(own, f.name)) is not None}
    return replace(general, **said)


class _Host:
    """The routes to one host by their base paths."""

    __slots__ = ("deepest", "paths")

    def __init__(self) -> None:
        self.paths: dict[bytes, tuple[Route, ...]] = {}
        self.deepest = 0

    def add(self, route: Route) -> None:
        self.paths[route.base_path] = (*self.paths.get(route.base_path, ()), route)
        self.deepest = max(self.deepest, route.base_path.count(b"/"))


class RouteTable:
    """Every route, found in time that does not grow with their number."""

    __slots__ = ("_deepest", "_grants", "_hosts", "_prefixes", "_routes")

    def __init__(self, routes: Iterable[Route], hosts: Mapping[str, Iterable[str]]) -> None:
        """`hosts` has each route's further hosts. Raises ValueError for a tie of prefixes."""
        self._routes = {route.name: route for route in routes}
        self._prefixes: dict[bytes, Route] = {}
        self._hosts: dict[tuple[str, str, int], _Host] = {}
        for route in self._routes.values():
            other = self._prefixes.setdefault(route.prefix, route)
            if other is not route:
                raise ValueError(f"routes {other.name} and {route.name} have the same prefix")
            for origin in _origins(route, hosts.get(route.name, ())):
                self._hosts.setdefault(origin, _Host()).add(route)
        self._deepest = max((prefix.count(b"/") for prefix in self._prefixes), default=0)
        self._grants = tuple(route for route in self._routes.values() if route.grant_hosts)

    @classmethod
    def build(cls, config: Config, known: Known | None = None) -> RouteTable:
        """The table of a configuration that has been read; `known` is what the catalogue knows of routes."""
        known = known or catalogue()
        choices = {name: completed(name, config, known) for name in config.routes}
        routes = [compile_route(name, choice, config, known) for name, choice in choices.items()]
        return cls(routes, {name: choice.hosts for name, choice in choices.items()})

    def __iter__(self) -> Iterator[Route]:
        return iter(self._routes.values())

    def __len__(self) -> int:
        return len(self._routes)

    def get(self, name: str) -> Route | None:
        """The route of this name."""
        return self._routes.get(name)

    def match_prefix(self, raw_path: bytes) -> tuple[Route, bytes] | None:
        """The most specific route whose prefix is the first whole segments of the raw path, and what follows.

        Bytes are compared as they came: `/gmail` is in `/gmail`, `/gmail/x` and `/gmail?x`, and not in `/gmailx`,
        `/gmail%2Fx` or `/%67mail`.
        """
        for end in _segment_ends(raw_path, self._deepest):
            route = self._prefixes.get(raw_path[:end])
            if route is not None:
                return route, raw_path[end:]
        return None

    def match_host(self, scheme: str, host: str, port: int, raw_path: bytes, method: str) -> Route | None:
        """The route whose upstream an absolute URL is of: its scheme, host and port, and its path's first segments.

        An `http` URL on port 80 stands for `https` on 443 too, as clients write it that have only HTTP_PROXY set.
        Where several routes have this very upstream (Calendar's and Drive's APIs), it is the one whose rules allow
        the request; None where that is none or not only one. Raises BadRequest as `decide` does.
        """
        name = canonical_host(host)
        if name is None:
            return None
        at = self._hosts.get((scheme.lower(), name, port))
        if at is None:
            return self._of_grants(scheme.lower(), name, port)
        for end in _segment_ends(raw_path, at.deepest):
            routes = at.paths.get(raw_path[:end], ())
            if len(routes) == 1:
                return routes[0]
            if routes:
                allowing = [route for route in routes if decide(route, method, raw_path).allowed]
                return allowing[0] if len(allowing) == 1 else None
        return None

    def names_host(self, host: str, port: int) -> bool:
        """Whether some route is for this https host: what CONNECT is ended for."""
        name = canonical_host(host)
        if name is None:
            return False
        return ("https", name, port) in self._hosts or self._of_grants("https", name, port) is not None

    def lists(self, scheme: str, host: str, port: int) -> bool:
        """Whether a route says this very host, and not only that its grants may name such a one."""
        return (scheme.lower(), canonical_host(host), port) in self._hosts

    def https_names(self) -> frozenset[str]:
        """Every host that `names_host` is true of; a name beginning with a dot stands for all names below it."""
        exact = {host for scheme, host, _ in self._hosts if scheme == "https"}
        return frozenset(exact | {pattern[1:] for route in self._grants for pattern in route.grant_hosts})

    def _of_grants(self, scheme: str, name: str, port: int) -> Route | None:
        """The one route whose grants may name this host; whether this user's grant does is seen when it is known."""
        if port != DEFAULT_PORTS.get(scheme):
            return None
        found = [
            route
            for route in self._grants
            if any(name.endswith(pattern[1:].lower()) for pattern in route.grant_hosts)
        ]
        return found[0] if len(found) == 1 else None


def _segment_ends(raw_path: bytes, deepest: int) -> Iterator[int]:
    """Where the first whole segments end, from `deepest` of them down to none."""
    if not raw_path.startswith(b"/"):
        return
    query = raw_path.find(b"?")
    stop = len(raw_path) if query < 0 else query
    ends = [0]
    while len(ends) <= deepest and ends[-1] < stop:
        end = raw_path.find(b"/", ends[-1] + 1, stop)
        ends.append(stop if end < 0 else end)
    yield from reversed(ends)


def _origins(route: Route, further: Iterable[str]) -> Iterator[tuple[str, str, int]]:
    """Every (scheme, host, port) under which absolute URLs mean this route."""
    default = DEFAULT_PORTS[route.scheme]
    named = [(route.host, route.port)] if route.host else []
    for text in further:
        if (pair := read_host_port(text)) is None:
            raise ValueError(f"route {route.name} has a host that is none")
        named.append((pair[0], pair[1] or default))
        if route.scheme == "http":
            # A stand-in without TLS for an API that clients know as https: they are let believe it.
            yield "https", pair[0], pair[1] or DEFAULT_PORTS["https"]
    for host, port in dict.fromkeys(named):
        yield route.scheme, host, port
        if route.scheme == "https" and port == default:
            yield "http", host, DEFAULT_PORTS["http"]
