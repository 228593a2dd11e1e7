"""What must hold between the keys of a configuration: a small function each, from values to findings."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import date
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import NamedTuple

from authproxy.core.config import Config, ProviderChoice, RouteChoice
from authproxy.core.faults import Finding, Severity, near
from authproxy.core.known import Known, KnownProvider
from authproxy.core.model import Environment
from authproxy.core.origin import Origin, canonical_host, read_base_url, read_host_port, read_origin
from authproxy.core.policy import NEVER, glob_fault, may_match_below
from authproxy.core.routes import completed, prefix_of, provider_for
from authproxy.core.tool_faults import tool_faults

LEASE_MARGIN = 10.0  # seconds that a lease outlives its token call

_LOOPBACK = ("127.0.0.1", "::1", "localhost")
# Headers that mean something to servers, proxies or authproxy itself: one of them as the user's name would be
# stripped, sent twice or believed by somebody else.
_TAKEN_HEADERS = (
    "accept accept-charset accept-encoding accept-language age allow authorization cache-control connection "
    "content-encoding content-language content-length content-location content-range content-type cookie date etag "
    "expect expires forwarded from host http2-settings if-match if-modified-since if-none-match if-range "
    "if-unmodified-since keep-alive last-modified link location max-forwards origin pragma proxy-authenticate "
    "proxy-authorization proxy-connection range referer retry-after server set-cookie te trailer transfer-encoding "
    "upgrade user-agent vary via www-authenticate x-authproxy-account x-authproxy-error x-authproxy-key "
    "x-authproxy-retry x-forwarded-for x-forwarded-host x-forwarded-proto x-http-method-override x-request-id"
)
_OURS_TO_SEND = (
    "client_id client_secret code_challenge code_challenge_method nonce redirect_uri "
    "response_type scope state"
)


Findings = Iterator[Finding]


def findings(config: Config, known: Known) -> Findings:
    """All that is wrong or doubtful between keys."""
    for check in CHECKS:
        yield from check(config, known)


def _unfinished(config: Config) -> Severity:
    """How bad it is that a provider is not complete: in development it is left out, with a warning (C11)."""
    return "warning" if config.environment is Environment.DEVELOPMENT else "error"


# --- what browsers and callers see ---------------------------------------------------------------------------------


def public_url(config: Config, known: Known) -> Findings:
    """Browsers carry codes there: in the clear only on a developer's machine."""
    origin = read_origin(config.public_url)
    if origin is None:
        yield Finding("public_url", "must have a plain host name (international names as `xn--…`) and port")
    elif origin.scheme == "http" and config.environment is not Environment.DEVELOPMENT:
        yield Finding("public_url", "must be https outside development")
    elif origin.scheme == "http" and origin.host not in _LOOPBACK:
        yield Finding("public_url", "is plain http on a name that is not this machine's", "warning")


def application_urls(config: Config, known: Known) -> Findings:
    """The application's own addresses."""
    urls = {f"flows.next_uri_allow[{i}]": url for i, url in enumerate(config.flows.next_uri_allow)}
    urls["identity.verifier_url"] = config.identity.verifier_url or "https://localhost/"
    for path, url in urls.items():
        origin = read_origin(url)
        if origin is None:
            yield Finding(path, "must have a plain host name (international names as `xn--…`) and port")
        elif (
            origin.scheme == "http"
            and origin.host not in _LOOPBACK
            and config.environment is Environment.PRODUCTION
        ):
            yield Finding(path, "must be https in production")


def user_header(config: Config, known: Known) -> Findings:
    """The user's header is stripped from what travels, so it must be nobody else's."""
    if config.identity.user_header.lower() in _TAKEN_HEADERS.split():
        yield Finding("identity.user_header", "is a header with a meaning of its own; choose another name")


def callers(config: Config, known: Known) -> Findings:
    """Who may ask."""
    if not config.identity.callers:
        yield Finding("identity.callers", "is empty: every request will be refused", "warning")
    seen: set[str] = set()
    for index, caller in enumerate(config.identity.callers):
        path = f"identity.callers[{index}]"
        if caller.kind in seen:
            yield Finding(path, f"a second entry of kind {caller.kind} is never reached")
        seen.add(caller.kind)
        if caller.kind != "loopback":
            if caller.agent is not None:
                yield Finding(f"{path}.agent", "keys carry their agent's own name; leave this out")
            if caller.operator:
                yield Finding(
                    f"{path}.operator", "is for loopback callers; keys say themselves whether they operate"
                )
        elif config.environment is Environment.PRODUCTION and "*" in caller.may_act_for:
            yield Finding(
                f"{path}.may_act_for",
                "every process on this machine may act for every user; name users, or use `api_key`",
                "warning",
            )
        if caller.operator and (read_origin(config.public_url) or Origin("", "", 0)).host not in _LOOPBACK:
            yield Finding(
                f"{path}.operator",
                "whatever leads browsers from public_url to the control plane may bring strangers in as operators: "
                "let it forward /connect/ and /callback/ only, or use keys (`agents create --operator`)",
                "warning",
            )


# --- numbers -------------------------------------------------------------------------------------------------------


def refresh(config: Config, known: Known) -> Findings:
    """A lease that ends during the token call would let two refresh at once."""
    if config.refresh.lease < config.refresh.deadline + LEASE_MARGIN:
        yield Finding("refresh.lease", f"must be at least refresh.deadline and {LEASE_MARGIN:g} seconds more")
    if config.refresh.backoff_max < config.refresh.backoff:
        yield Finding("refresh.backoff_max", "must not be below refresh.backoff")


def sizes(config: Config, known: Known) -> Findings:
    """Parts must fit into their wholes."""
    limits = config.limits
    if limits.max_line > limits.max_header:
        yield Finding("limits.max_line", "must not be over limits.max_header")
    if limits.max_replay > limits.replay_total:
        yield Finding("limits.max_replay", "must not be over limits.replay_total")


# --- egress --------------------------------------------------------------------------------------------------------


class Opening(NamedTuple):
    """One entry of egress.allow: a name or a network, and a port or every port."""

    name: str | None
    network: IPv4Network | IPv6Network | None
    port: int | None


def read_opening(text: str) -> Opening | None:
    """`host[:port]`, `CIDR[:port]`, `[v6]…:port`; None for anything else."""
    if pair := read_host_port(text):
        host, port = pair
        try:
            return Opening(None, ip_network(host), port)
        except ValueError:
            return Opening(host, None, port)
    rest, port = text, None
    if text.startswith("["):  # [fd00::]/8:443 and [fd00::/8]:443
        inner, _, tail = text[1:].partition("]")
        size, _, digits = tail.rpartition(":") if ":" in tail else (tail, "", "")
        rest, port = inner + size, _port(digits)
    elif text.count(":") == 1:
        rest, _, digits = text.partition(":")
        port = _port(digits)
    try:
        return None if port == 0 else Opening(None, ip_network(rest), port)
    except ValueError:
        return None


def _port(digits: str) -> int | None:
    """0 for what is no port."""
    if not digits:
        return None
    good = digits.isascii() and digits.isdigit() and len(digits) <= 5 and int(digits) <= 65535
    return int(digits) if good else 0


def egress(config: Config, known: Known) -> Findings:
    """Every entry must be read alike here and where connections are made."""
    for index, text in enumerate(config.egress.allow):
        if read_opening(text) is None:
            yield Finding(
                f"egress.allow[{index}]", "must be `host:port`, `CIDR` or `CIDR:port`, canonically written"
            )


def opened(config: Config, origin: Origin) -> bool:
    """Whether the operator has named this host among the internal ones."""
    for entry in map(read_opening, config.egress.allow):
        if entry is None or entry.port not in (None, origin.port):
            continue
        if entry.name == origin.host:
            return True
        try:
            if entry.network is not None and ip_address(origin.host) in entry.network:
                return True
        except ValueError:
            continue
    return False


def _insecure(config: Config, origin: Origin | None) -> str | None:
    """What speaks against sending credentials there."""
    if origin is None:
        return "must be `https://host[:port][/path]` with a plain host name (international names as `xn--…`)"
    if origin.scheme == "http" and not opened(config, origin):
        return "must be https; plain http is only for hosts that `egress.allow` names"
    return None


def webhooks(config: Config, known: Known) -> Findings:
    """Receivers learn whose grants stand how: not in the clear, and not twice."""
    urls = [hook.url for hook in config.webhooks]
    for index, url in enumerate(urls):
        if wrong := _insecure(config, read_origin(url.partition("?")[0])):
            yield Finding(f"webhooks[{index}].url", wrong)
        elif url in urls[:index]:
            yield Finding(f"webhooks[{index}].url", "is told by an entry above already")


# --- providers -----------------------------------------------------------------------------------------------------


def providers(config: Config, known: Known) -> Findings:
    """Each registration is whole, and its endpoints are safe to send secrets to."""
    for name, choice in config.providers.items():
        path = f"providers.{name}"
        yield from _entry(config, known, name, choice)
        yield from _client(config, name, choice)
        urls = {"issuer": choice.issuer}
        for endpoint in ("authorization", "token", "revocation", "userinfo", "introspection"):
            urls[f"endpoints.{endpoint}"] = getattr(choice.endpoints, endpoint)
        for key, url in urls.items():
            if url is not None and (fault := _insecure(config, read_origin(url))):
                yield Finding(f"{path}.{key}", fault)
        for index, host in enumerate(choice.api_hosts):
            if read_host_port(host) is None:
                yield Finding(f"{path}.api_hosts[{index}]", "must be `host` or `host:port`")
        for key in ("published_on", "client_secret_expires_on"):
            if (said := getattr(choice, key)) is not None and not _day(said):
                yield Finding(f"{path}.{key}", "is no day of the calendar")
        for parameter in sorted(set(choice.authorize_params) & set(_OURS_TO_SEND.split())):
            yield Finding(f"{path}.authorize_params.{parameter}", "is authproxy's own to send")


def _day(text: str) -> bool:
    try:
        date.fromisoformat(text)
    except ValueError:
        return False
    return True


def _entry(config: Config, known: Known, name: str, choice: ProviderChoice) -> Findings:
    """A provider is in the catalogue, or said in full."""
    path = f"providers.{name}"
    found = known.provider(name, choice)
    if isinstance(found, str):
        yield Finding(path, found)
        return
    if found is None and choice.catalogue is not None:
        yield Finding(
            f"{path}.catalogue", f"is no entry of the catalogue{near(choice.catalogue, known.names)}"
        )
        return
    if (
        found is None
        and choice.issuer is None
        and not (choice.endpoints.authorization and choice.endpoints.token)
    ):
        yield Finding(
            path,
            f"is not in the catalogue{near(name, known.names)}: say its `issuer`, or `endpoints.authorization` and "
            "`endpoints.token`",
        )
    hosts = found or KnownProvider(choice.api_hosts)
    if not (hosts.hosts or hosts.patterns or hosts.upstream_from):
        yield Finding(f"{path}.api_hosts", "say to which hosts its tokens may be sent", _unfinished(config))


def _client(config: Config, name: str, choice: ProviderChoice) -> Findings:
    """The operator's registration is complete."""
    path = f"providers.{name}"
    if choice.client_id is None:
        yield Finding(f"{path}.client_id", "is missing: this provider cannot be used", _unfinished(config))
    if choice.client_secret is None and choice.client_auth != "none":
        yield Finding(
            f"{path}.client_secret",
            "is missing: this provider cannot be used (a public client says `client_auth: none`)",
            _unfinished(config),
        )
    if choice.client_secret is not None and choice.client_auth == "none":
        yield Finding(f"{path}.client_secret", "is never sent with `client_auth: none`", "warning")


# --- routes --------------------------------------------------------------------------------------------------------


def routes(config: Config, known: Known) -> Findings:
    """Each route leads to one upstream that its provider's tokens may go to."""
    for name, choice in config.routes.items():
        whole = completed(name, config, known)
        yield from _destination(config, known, name, whole)
        yield from _rules(name, choice, whole)
        for index, host in enumerate(choice.hosts):
            if read_host_port(host) is None:
                yield Finding(f"routes.{name}.hosts[{index}]", "must be `host` or `host:port`")


def _destination(config: Config, known: Known, name: str, whole: RouteChoice) -> Findings:
    """Provider and upstream of one route."""
    path = f"routes.{name}"
    if whole.provider is None:
        yield Finding(
            path,
            f"is not a route of the catalogue{near(name, known.routes)}: say its `provider` and `upstream`",
        )
        return
    if whole.provider not in config.providers:
        meant = near(whole.provider, config.providers)
        yield Finding(
            f"{path}.provider", f"`{whole.provider}` is not among the providers of this file{meant}"
        )
        return
    provider = provider_for(whole.provider, config, known)
    if whole.upstream is None:
        if not provider.upstream_from:
            yield Finding(f"{path}.upstream", "is missing, and the catalogue does not know it")
        return
    origin = read_base_url(whole.upstream)
    if fault := _insecure(config, origin):
        yield Finding(f"{path}.upstream", fault)
    elif origin is not None and not provider.may_receive(origin):
        yield Finding(
            f"{path}.upstream",
            f"is on a host that tokens of `{whole.provider}` may not be sent to (providers.{whole.provider}.api_hosts)",
        )


def _rules(name: str, choice: RouteChoice, whole: RouteChoice) -> Findings:
    """Every rule says something, and can be met."""
    origin = read_base_url(whole.upstream or "")
    for index, rule in enumerate(choice.allow or ()):
        path = f"routes.{name}.allow[{index}]"
        for key, values in (("methods", rule.methods), ("paths", rule.paths)):
            if not values:
                yield Finding(f"{path}.{key}", "is empty: the rule would allow nothing")
        for at, method in enumerate(rule.methods):
            if method in NEVER:
                yield Finding(f"{path}.methods[{at}]", f"{method} is never allowed")
        for at, glob in enumerate(rule.paths):
            if fault := glob_fault(glob):
                yield Finding(f"{path}.paths[{at}]", fault)
            elif origin is not None and not may_match_below(glob, origin.path.decode()):
                yield Finding(
                    f"{path}.paths[{at}]",
                    "can never match: paths begin with the upstream's own, "
                    f"`{origin.path.decode()}` (what is judged is the path at the upstream)",
                    "warning",
                )


def prefixes(config: Config, known: Known) -> Findings:
    """No two routes have the same prefix."""
    owners: dict[str, str] = {}
    for name in config.routes:
        prefix = prefix_of(name, completed(name, config, known))
        owner = owners.setdefault(prefix, name)
        if owner != name:
            yield Finding(f"routes.{name}", f"has the same prefix as route `{owner}`: `{prefix or '/'}`")


def shared_upstreams(config: Config, known: Known) -> Findings:
    """Routes to one upstream are told apart by their rules in absolute form; one without rules takes everything."""
    owners: dict[Origin, tuple[str, bool]] = {}
    for name in config.routes:
        whole = completed(name, config, known)
        origin = read_base_url(whole.upstream or "")
        if origin is None:
            continue
        owner, ruled = owners.setdefault(origin, (name, whole.allow is not None))
        if owner != name and not (ruled and whole.allow is not None):
            yield Finding(
                f"routes.{name}",
                f"has the same upstream as route `{owner}`, and not both have `allow`: requests by host "
                "(HTTP_PROXY) will find neither where both would do",
                "warning",
            )


def listeners(config: Config, known: Known) -> Findings:
    """A listener of a route's own: one route each, and no loopback caller beyond this machine."""
    for index, text in enumerate(config.listener.names):
        if canonical_host(text) != text:
            yield Finding(f"listener.names[{index}]", "must be a host name in lower case, or an address")
    owners: dict[str, str] = {}
    for name, choice in config.routes.items():
        path = f"routes.{name}.listen"
        if choice.listen is None:
            if choice.tls:
                yield Finding(f"routes.{name}.tls", "is of the route's own listener: say `listen` too")
            continue
        owner = owners.setdefault(choice.listen.lower(), name)
        if owner != name:
            yield Finding(path, f"is the listener of route `{owner}` already")
        if choice.listen.startswith("unix:"):
            continue
        place = read_host_port(choice.listen)
        if place is None or not place[1]:
            yield Finding(path, "must be `host:port` or `unix:/path`")
        elif not _loopback(place[0]) and all(one.kind == "loopback" for one in config.identity.callers):
            yield Finding(path, "is open to other machines, and identity.callers knows loopback callers only")


def tools(config: Config, known: Known) -> Findings:
    """Patterns are what they say, and what they name is there."""
    rules, hooks = config.tools.rules, config.tools.hooks
    if not (rules or hooks):
        return
    for path, message in tool_faults(rules, hooks, None if known.tools is None else known.tools()):
        yield Finding(path, message)


def _loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


CHECKS: tuple[Callable[[Config, Known], Findings], ...] = (
    public_url,
    application_urls,
    user_header,
    callers,
    refresh,
    sizes,
    egress,
    webhooks,
    providers,
    routes,
    prefixes,
    shared_upstreams,
    listeners,
    tools,
)
