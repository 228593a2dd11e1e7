"""What the operator chose: frozen values, each with its sentence; the reader of routes.yaml and its JSON Schema
are made from these classes.

A `Secret` field is written in the file as a reference, `env:NAME` or `file:PATH`, never as its value.
Durations are seconds, sizes are bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from authproxy.core.bounds import Allowance, Limits, RouteTimeouts, Shares, Timeouts
from authproxy.core.model import DEFAULT_TENANT, EMPTY, Environment
from authproxy.core.secret import Secret
from authproxy.core.setting import setting
from authproxy.core.tending import Refresh, Webhook
from authproxy.core.toolbox import Tools

__all__ = [
    "Allowance",
    "Limits",
    "Refresh",
    "RouteTimeouts",
    "Shares",
    "Timeouts",
    "Tools",
    "Webhook",
    "setting",
]  # beside the classes below


_NAME = r"[a-z0-9][a-z0-9_-]{0,62}"
_NAME_SAID = "must be lower-case letters, digits, - and _, beginning with a letter or digit"
_URL = r"https?://[^\s?#@]+"
_URL_SAID = "must be a URL, `https://host[:port][/path]`, without user, query or fragment"
_HOST = r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?)(:[1-9][0-9]{0,4})?"
_HOST_SAID = "must be `host` or `host:port` (international names as `xn--…`)"
_DATE = r"[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])"
_DATE_SAID = "must be a date, `YYYY-MM-DD`"
_SCOPE = r"[!#-\[\]-~]+"  # RFC 6749 section 3.3: visible ASCII without quote and backslash
_SCOPE_SAID = "must be one scope, without spaces"


@dataclass(frozen=True, slots=True)
class CallerChoice:
    """One way in which agents say who they are."""

    kind: Literal["loopback", "api_key"] = setting(
        "`loopback`: no credential, believed only on a loopback listener; `api_key`: keys made with `agents create`"
    )
    agent: str | None = setting(
        "the agent's name where the kind itself has none (`loopback`); default: `local`",
        None,
        pattern=r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}",
        must="must be letters, digits, `.`, - and _",
    )
    tenant: str = setting(
        "the tenant of callers of this kind",
        DEFAULT_TENANT,
        pattern=r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}",
        must="must be letters, digits, `.`, - and _",
    )
    may_act_for: tuple[str, ...] = setting(
        "user ids, `*` for all, or prefixes ending in `*`; for `api_key` an upper bound on what the keys say",
        ("*",),
        pattern=r"[^*]*\*?",
        must="must be a user id, `*`, or a prefix that ends in `*`",
    )
    operator: bool = setting(
        "whether `loopback` callers may use the operators' part of the control plane", False
    )


@dataclass(frozen=True, slots=True)
class Identity:
    """Who may ask, and for whom."""

    user_header: str = setting(
        "the header that names the user",
        "X-User-ID",
        pattern=r"[A-Za-z0-9-]+",
        must="must be a header name of letters, digits and -",
    )
    callers: tuple[CallerChoice, ...] = setting(
        "in order; the first that recognises the credential decides", ()
    )
    verifier_url: str | None = setting(
        "where the browser goes after consent so that your application can confirm who opened the link "
        "(`POST /v1/auth/confirm_user`); without it the browser that pressed the button is believed",
        None,
        pattern=r"https?://[^\s#]+",
        must="must be a URL without fragment",
    )


@dataclass(frozen=True, slots=True)
class Endpoints:
    """Overrides of the catalogue's endpoints, for emulators, national clouds and private servers."""

    authorization: str | None = setting("authorization endpoint", None, pattern=_URL, must=_URL_SAID)
    token: str | None = setting(
        "token endpoint; on another server than the catalogue's, that one's other endpoints and issuer are left out",
        None,
        pattern=_URL,
        must=_URL_SAID,
    )
    revocation: str | None = setting("revocation endpoint (RFC 7009)", None, pattern=_URL, must=_URL_SAID)
    userinfo: str | None = setting("userinfo endpoint", None, pattern=_URL, must=_URL_SAID)
    introspection: str | None = setting(
        "introspection endpoint (RFC 7662)", None, pattern=_URL, must=_URL_SAID
    )


@dataclass(frozen=True, slots=True)
class ProviderChoice:
    """Your app registration at one provider. For a provider of the catalogue only what is yours is said."""

    catalogue: str | None = setting(
        "the catalogue entry to build on; default: the entry of this key's own name",
        None,
        pattern=_NAME,
        must=_NAME_SAID,
    )
    issuer: str | None = setting(
        "an OIDC issuer: endpoints come from its discovery document", None, pattern=_URL, must=_URL_SAID
    )
    client_id: Secret | str | None = setting("client id, literal or `env:`/`file:`", None)
    client_secret: Secret | None = setting("client secret, as `env:NAME` or `file:PATH`", None)
    client_auth: Literal["client_secret_basic", "client_secret_post", "none"] | None = setting(
        "how the client authenticates at the token endpoint; default: what the catalogue prefers", None
    )
    pkce: bool | None = setting(
        "send PKCE S256; default: yes, unless the catalogue says that the provider fails on it", None
    )
    endpoints: Endpoints = setting("overrides of single endpoints", factory=Endpoints)
    api_hosts: tuple[str, ...] = setting(
        "the only hosts that its tokens may be sent to (added to the catalogue's)",
        (),
        pattern=_HOST,
        must=_HOST_SAID,
    )
    scopes: tuple[str, ...] = setting(
        "scopes always asked for, beside those of the routes", (), pattern=_SCOPE, must=_SCOPE_SAID
    )
    authorize_params: Mapping[str, str] = setting(
        "further parameters of the authorization request",
        factory=lambda: EMPTY,
        keys=r"[A-Za-z0-9._-]+",
    )
    environment: str | None = setting(
        "the provider's own environment, where it has several (`sandbox`, `govslack`, …)", None
    )
    subdomain: str | None = setting(
        "fills `{subdomain}`, `{tenant}`, `{shop}` … in the catalogue's URLs", None
    )
    refresh_margin: int | None = setting(
        "seconds before expiry from which a token is refreshed; never more than a fifth of its life",
        None,
        minimum=0,
    )
    token_lifetime: int | None = setting(
        "access token life to assume where the provider does not tell", None, minimum=1
    )
    refresh: Literal["ahead", "reactive"] | None = setting(
        "`ahead`: tokens are renewed before they end; `reactive`: not before they have ended or were refused; default: "
        "`ahead`, unless the catalogue says that the provider dislikes it",
        None,
    )
    idle_expiry: int | None = setting(
        "seconds after which a grant that nobody uses ends, where your provider's policy is not the catalogue's; it is "
        "kept alive by a refresh in the first half",
        None,
        minimum=1,
    )
    absolute_expiry: int | None = setting(
        "seconds after consent at which a grant ends whatever is done, likewise; `connection.reauth_due` tells ahead",
        None,
        minimum=1,
    )
    publishing_status: Literal["testing", "production"] | None = setting(
        "for `doctor`: what the provider's console says of the app (Google: `testing` ends every grant after seven "
        "days)",
        None,
    )
    published_on: str | None = setting(
        "for `doctor`: the day on which the app was published; older grants keep the life they had in testing",
        None,
        pattern=_DATE,
        must=_DATE_SAID,
    )
    client_secret_expires_on: str | None = setting(
        "for `doctor`: the day on which the client secret ends (Entra: at most 24 months)",
        None,
        pattern=_DATE,
        must=_DATE_SAID,
    )
    registered_redirect_uris: tuple[str, ...] = setting(
        "for `doctor`: the redirect URIs as the provider's console shows them, to be compared letter for letter",
        (),
        pattern=r"\S+",
        must="must be one URI, without spaces",
    )
    limits: Shares = setting("how much of its APIs may be asked for", factory=Shares)
    pauses: Literal["user", "app"] | None = setting(
        "what is kept back when its API answers 429 with a time to wait: all requests of its `user` to that API, or of "
        "all users of your `app`; default: what the catalogue says, else, from its second such answer on, the user's "
        "with the same method and path",
        None,
    )


@dataclass(frozen=True, slots=True)
class Rule:
    """One permission of a route."""

    methods: tuple[str, ...] = setting(
        "methods, upper case; `*` for all; `GET` includes `HEAD`; TRACE and CONNECT are never allowed",
        ("*",),
        pattern=r"[A-Z][A-Z0-9_-]*|\*",
        must="must be a method in upper case, or `*`",
    )
    paths: tuple[str, ...] = setting(
        "globs on the whole upstream path, its base path included: `*` within a segment, `**` across segments (at the "
        "end at least one), `/**` everything, `%2F` an encoded slash",
        ("/**",),
        pattern=r"/[^?#]*",
        must="must begin with `/` and have no query",
    )


@dataclass(frozen=True, slots=True)
class RouteChoice:
    """A named upstream with its provider, needed scopes and rules. Catalogue routes know the first three."""

    prefix: str | None = setting(
        "path prefix on the data plane, whole segments; default: `/` and the route's name; `/`: everything",
        None,
        pattern=r"(/(?!\.{1,2}(/|$))[A-Za-z0-9._~-]+)+|/",
        must="must begin with `/` and not end with it; letters, digits, `.`, _, ~ and - within, no segment `.` or `..`",
    )
    upstream: str | None = setting(
        "base URL of the API, `https://host[:port][/path]`", None, pattern=_URL, must=_URL_SAID
    )
    provider: str | None = setting("key of the provider", None, pattern=_NAME, must=_NAME_SAID)
    scopes: tuple[str, ...] = setting(
        "scopes that a user's grant must have; a tool says its own instead",
        (),
        pattern=_SCOPE,
        must=_SCOPE_SAID,
    )
    allow: tuple[Rule, ...] | None = setting(
        "what may be called; with it, all else is refused; without it, the grant's scopes are the limit", None
    )
    hosts: tuple[str, ...] = setting(
        "further hosts matched in absolute form and by CONNECT (the upstream's own always is)",
        (),
        pattern=_HOST,
        must=_HOST_SAID,
    )
    max_body: int | None = setting("largest request body; default: limits.max_body", None, minimum=0)
    max_replay: int | None = setting(
        "largest body kept for a replay; default: limits.max_replay", None, minimum=0
    )
    timeouts: RouteTimeouts = setting("overrides for this route", factory=RouteTimeouts)
    limits: Shares = setting("how much of this route may be asked for", factory=Shares)
    share_pauses: bool = setting(
        "when the provider says 429 with a time to wait, keep back what it would refuse as well "
        "(`providers.*.pauses`, `limits.longest_pause`)",
        True,
    )
    keep_set_cookie: bool | None = setting(
        "pass the upstream's Set-Cookie on to agents; default: no for the catalogue's routes (a session would "
        "outlive a revocation), yes for your own",
        None,
    )
    reflected: Literal["redact", "block", "pass"] = setting(
        "when an answer holds the injected token: `redact` masks it in fields and text bodies (a compressed body is "
        "cut off instead), `block` refuses the answer, `pass` does not look",
        "redact",
    )
    send_cookies: bool = setting("pass the agent's Cookie on to the upstream", False)
    share_connections: bool = setting(
        "let a tenant's users share connections to the upstream, for many users who each ask seldom: not where it "
        "knows a client by its connection, nor where it is not trusted to keep answers apart",
        False,
    )
    rewrite_urls: bool | None = setting(
        "in base-URL mode, let URLs of the upstream in JSON answers (strings that begin with one) lead back through "
        "the proxy, as those in `Link` and `Location` always do; default: what the catalogue says, else no",
        None,
    )
    listen: str | None = setting(
        "a listener of its own, `host:port` or `unix:/path`: all of it is this route, without a prefix",
        None,
        pattern=r"unix:/.+|(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9][A-Za-z0-9._-]*):[1-9][0-9]{0,4}",
        must="must be `host:port` or `unix:/path`",
    )
    tls: bool = setting("its own listener speaks TLS, with a certificate of the local CA", False)


@dataclass(frozen=True, slots=True)
class Flows:
    """Consent."""

    lifetime: int = setting("seconds a link stays good", 900, minimum=10)
    max_pending: int = setting("open flows per tenant and user", 20, minimum=1)
    next_uri_allow: tuple[str, ...] = setting(
        "URL prefixes that `next_uri` may have, beside paths below public_url; the host must be whole (`https://app/`)",
        (),
        pattern=r"https?://[^\s/?#@]+/[^\s?#]*",
        must="must be a URL prefix with a whole host, `https://host/…`",
    )


@dataclass(frozen=True, slots=True)
class Audit:
    """The trail."""

    durability: Literal["batch", "strict"] = setting(
        "`batch`: written within a fraction of a second; `strict`: a request goes upstream only after its record's "
        "first half is on disk",
        "batch",
    )
    queue: int = setting("records waiting to be written; a full queue answers `overloaded`", 10000, minimum=1)
    flush: float = setting("seconds that a record may wait for its batch", 0.2, minimum=0.001)


@dataclass(frozen=True, slots=True)
class Egress:
    """Which addresses may be dialled, beyond public ones."""

    allow: tuple[str, ...] = setting(
        "`host:port`, `CIDR` or `CIDR:port` of internal upstreams that are meant; metadata addresses stay refused",
        (),
    )
    via: bool = setting(
        "write a `Via` field, under a name made up at each start, and refuse requests that come back with it: for "
        "upstreams behind further proxies that could lead back here (its own listeners are never dialled anyway)",
        False,
    )


@dataclass(frozen=True, slots=True)
class Tunnel:
    """CONNECT, as clients send it whose HTTPS_PROXY this is. For hosts that a route names TLS is ended here."""

    unrouted: Literal["refuse", "pass"] = setting(
        "CONNECT to a host that no route names: `refuse` it, or `pass` its bytes on unseen and without credentials",
        "refuse",
    )
    ports: tuple[int, ...] = setting(
        "ports to which bytes may be passed on", (443,), minimum=1, maximum=65535
    )
    idle: float = setting(
        "seconds without a byte either way after which a tunnel of passed bytes is ended; 0: no limit",
        600.0,
        minimum=0,
    )


@dataclass(frozen=True, slots=True)
class Listener:
    """Where agents reach the data plane (`--listen`)."""

    tls: bool = setting("agents speak TLS to it, with a certificate of the local CA (`authproxy ca`)", False)
    names: tuple[str, ...] = setting(
        "names and addresses in the certificates of all listeners, beside this machine's own",
        (),
        pattern=r"[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|[0-9A-Fa-f:]+",
        must="must be a host name or an address",
    )


@dataclass(frozen=True, slots=True)
class Config:
    """The whole of routes.yaml."""

    version: Literal[1] = setting("of this format")
    environment: Environment = setting("bound into every stored row", Environment.DEVELOPMENT)
    public_url: str = setting(
        "where browsers reach the control listener; redirect URIs hang below it, letter for letter",
        "http://127.0.0.1:8701",
        pattern=r"https?://[^\s/?#@]+(/[^\s/?#]+)*",
        must="must be `https://host[:port][/path]`, without a slash at the end, user, query or fragment",
    )
    replicas: int = setting(
        "for `doctor`: how many machines or pods serve the same users at once", 1, minimum=1
    )
    identity: Identity = setting("who may ask, and for whom", factory=Identity)
    providers: Mapping[str, ProviderChoice] = setting(
        "app registrations by name", factory=lambda: EMPTY, keys=_NAME
    )
    routes: Mapping[str, RouteChoice] = setting("routes by name", factory=lambda: EMPTY, keys=_NAME)
    limits: Limits = setting("sizes and counts", factory=Limits)
    timeouts: Timeouts = setting("seconds", factory=Timeouts)
    refresh: Refresh = setting("how tokens are renewed", factory=Refresh)
    flows: Flows = setting("consent", factory=Flows)
    webhooks: tuple[Webhook, ...] = setting("who is told what happens to connections", ())
    audit: Audit = setting("the trail", factory=Audit)
    egress: Egress = setting("which addresses may be dialled", factory=Egress)
    listener: Listener = setting("where agents reach the data plane", factory=Listener)
    tunnel: Tunnel = setting("CONNECT", factory=Tunnel)
    tools: Tools = setting("what agents may call by name", factory=Tools)
