"""What is known of each provider: the catalogue's entry, completed and overruled by what the operator chose."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any
from urllib.parse import urlsplit

from authproxy.core.client_auth import Client, literal
from authproxy.core.config import Endpoints, ProviderChoice, RouteChoice
from authproxy.core.errors import ProviderMisconfigured
from authproxy.core.facts import Entry, EntryEndpoints, EntryEnvironment, Pacing, Revocation
from authproxy.core.model import EMPTY
from authproxy.core.packaged import Catalogue, entry_name, packaged_routes

__all__ = [
    "Client",
    "Provider",
    "ProviderEndpoints",
    "catalogue",
    "catalogue_routes",
    "client_of",
    "provider_of",
    "with_discovery",
]

LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
# authorization parameters that belong to the flow; a configuration that set them would break it silently
_RESERVED = frozenset(
    {
        "client_id",
        "response_type",
        "redirect_uri",
        "state",
        "nonce",
        "code_challenge",
        "code_challenge_method",
    }
)
_LABELS = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?)*"
_PLACEHOLDER = re.compile(r"\{(?!client_id\})\w+\}")
_OURS = ("client_secret_basic", "client_secret_post", "none")


@dataclass(frozen=True, slots=True)
class ProviderEndpoints:
    """Where the authorization server listens, ready to be used."""

    authorization: str | None = None
    token: str | None = None
    refresh: str | None = None
    revocation: str | None = None
    userinfo: str | None = None
    introspection: str | None = None
    device_authorization: str | None = None


@dataclass(frozen=True, slots=True)
class Provider:
    """One authorization server as it is used here. `facts` is the catalogue's entry, for quirks and the doctor.

    Where the operator names an issuer, `endpoints` are empty, but for the operator's own, until `with_discovery`.
    """

    id: str  # the key in routes.yaml
    entry: str  # the catalogue's entry that it builds on
    name: str
    facts: Entry = field(repr=False)
    environment: str | None = None
    issuer: str | None = None
    iss_required: bool = False  # RFC 9207: it promises to name itself in the callback
    endpoints: ProviderEndpoints = field(default_factory=ProviderEndpoints)
    api_hosts: tuple[str, ...] = ()
    host_patterns: tuple[str, ...] = ()
    upstream_from: str | None = None
    scopes: tuple[str, ...] = ()  # always asked for
    offline_scopes: tuple[str, ...] = ()
    offline_params: Mapping[str, str] = field(default_factory=lambda: EMPTY)
    authorize_params: Mapping[str, str] = field(default_factory=lambda: EMPTY)
    pkce: bool = True
    client_auth: str = "client_secret_basic"
    code_challenge_methods: tuple[str, ...] = ()  # as the discovery document says
    client_auth_methods: tuple[str, ...] = ()  # as the discovery document says
    token_lifetime: int | None = None
    refresh_margin: int | None = None
    early: bool = True  # it may be asked for a new token before the old one has ended
    idle_expiry: int | None = None  # seconds; a grant that is not used for so long ends
    absolute_expiry: int | None = None  # seconds from consent, whatever is done
    reasons: Mapping[str, str] = field(default_factory=lambda: EMPTY)
    pacing: Pacing = field(default_factory=Pacing)

    @property
    def token_header(self) -> str:
        """The field that carries the token to the API."""
        return self.facts.api.header

    @property
    def token_scheme(self) -> str:
        """What stands before the token in that field; empty where nothing does."""
        return self.facts.api.scheme

    @property
    def credential_paths(self) -> tuple[str, ...]:
        """Paths of its API hosts, as globs, that hand out or destroy tokens: no agent may reach them (F07)."""
        return self.facts.api.credential_paths

    @property
    def replay_window(self) -> int:
        """Seconds for which a spent refresh token may be presented again; 0: never."""
        return self.facts.refresh_token.grace_seconds or 0

    def lacking(self, granted: Iterable[str], needed: Iterable[str]) -> tuple[str, ...]:
        """The needed scopes that a grant does not have. Compared as sets; wider scopes count for the narrower
        ones that the provider folds into them, and a scope that only asked for a refresh token is not missed."""
        if not self.facts.answer.scopes_reported:
            return ()
        have = set(granted)
        wanted = [scope for scope in dict.fromkeys(needed) if scope not in have]
        if not wanted:
            return ()
        have = self._spread(have) | set(self.facts.authorization.offline_scopes) | set(self.offline_scopes)
        return tuple(scope for scope in wanted if self._plain(scope) not in have)

    def _plain(self, scope: str) -> str:
        return scope.removeprefix(self.facts.answer.scope_prefix or "")

    def _spread(self, granted: set[str]) -> set[str]:
        spread: set[str] = set()
        edge = {self._plain(scope) for scope in granted}
        while edge:
            spread |= edge
            edge = {one for scope in edge for one in self.facts.implied_scopes.get(scope, ())} - spread
        return spread


def catalogue() -> Mapping[str, Entry]:
    """Every entry by name, each read when it is first asked for."""
    return _CATALOGUE


_CATALOGUE = Catalogue()
_GENERIC = ("oauth2", "oidc")  # entries of what nothing particular is known


def catalogue_routes() -> Mapping[str, RouteChoice]:
    """The routes whose prefix, upstream and provider are known."""
    return packaged_routes()


def provider_of(name: str, choice: ProviderChoice) -> Provider:
    """All that is known of the provider under this key. Raises ProviderMisconfigured."""
    entry = _entry_of(name, choice)
    facts = _CATALOGUE[entry]
    environment = _environment_of(name, choice, facts)
    if not _RESERVED.isdisjoint(choice.authorize_params):
        raise _wrong(name, "authorize_params sets a parameter that belongs to the flow", "authorize_params")
    fill = _Filling(name, choice, facts)
    elsewhere = _elsewhere(choice, fill.one(environment.endpoints.token or facts.endpoints.token))
    return Provider(
        id=name,
        entry=entry,
        name=name if entry in _GENERIC else facts.name,  # users are shown it
        facts=facts,
        environment=choice.environment,
        issuer=_issuer_of(name, choice, None if elsewhere else environment.issuer or facts.issuer, fill),
        endpoints=_endpoints_of(name, choice, facts, environment, fill, elsewhere=elsewhere),
        api_hosts=tuple(
            dict.fromkeys((*fill.all(_first(environment.api_hosts, facts.api.hosts)), *choice.api_hosts))
        ),
        host_patterns=facts.api.host_patterns,
        upstream_from=facts.api.upstream_from,
        scopes=choice.scopes,
        offline_scopes=facts.authorization.offline_scopes,
        offline_params=facts.authorization.offline_params,
        authorize_params=choice.authorize_params,
        pkce=facts.pkce.off_because is None if choice.pkce is None else choice.pkce,
        client_auth=choice.client_auth or facts.client_auth.preferred,
        token_lifetime=choice.token_lifetime,
        refresh_margin=choice.refresh_margin,
        early=facts.refresh_token.early if choice.refresh is None else choice.refresh == "ahead",
        idle_expiry=choice.idle_expiry or _known_span(facts.refresh_token.idle_expiry),
        absolute_expiry=choice.absolute_expiry
        or environment.refresh_token_lifetime
        or _known_span(facts.refresh_token.absolute_expiry),
        reasons=environment.reasons,
        pacing=facts.pacing
        if choice.pauses is None
        else replace(facts.pacing, scope=choice.pauses, app_when=EMPTY, each_path=False, at_once=True),
    )


def client_of(name: str, choice: ProviderChoice) -> Client:
    """The operator's registration under this key. Raises ProviderMisconfigured where it is incomplete."""
    client_id = literal(choice.client_id) if choice.client_id is not None else ""
    if not client_id:
        raise _wrong(name, "client_id is missing", "client_id_missing")
    if not choice.client_secret and choice.client_auth != "none":
        raise _wrong(
            name,
            "client_secret is missing; a public client says `client_auth: none`",
            "client_secret_missing",
        )
    secret = None if choice.client_auth == "none" else choice.client_secret
    return Client(client_id, secret, choice.client_auth)


def with_discovery(provider: Provider, document: Mapping[str, Any]) -> Provider:
    """The provider with what its issuer says of itself (OIDC Discovery, RFC 8414). What the operator or the
    catalogue gave stays. Raises ProviderMisconfigured, above all where the document names another issuer."""
    if provider.issuer is None or document.get("issuer") != provider.issuer:
        raise _wrong(provider.id, "the discovery document names another issuer", "issuer_mismatch")
    found = {
        item.name: _discovered(provider, document, item.name)
        for item in fields(ProviderEndpoints)
        if getattr(provider.endpoints, item.name) is None and item.name != "refresh"
    }
    endpoints = replace(provider.endpoints, **found)
    if endpoints.token is None or endpoints.authorization is None:
        raise _wrong(
            provider.id, "the discovery document has no token or authorization endpoint", "discovery"
        )
    challenges = _words(document, "code_challenge_methods_supported")
    auth_methods = _words(document, "token_endpoint_auth_methods_supported")
    offline = tuple(s for s in provider.offline_scopes if s in _words(document, "scopes_supported"))
    return replace(
        provider,
        endpoints=endpoints,
        iss_required=document.get("authorization_response_iss_parameter_supported") is True,
        code_challenge_methods=challenges,
        client_auth_methods=auth_methods,
        # a server that lists its methods without S256 refuses S256
        pkce=provider.pkce and (not challenges or "S256" in challenges),
        client_auth=_agreed(provider.client_auth, auth_methods),
        # it is asked for only where it is known: a strict server refuses a scope that it does not know
        offline_scopes=offline,
        offline_params=provider.offline_params if offline or not provider.offline_scopes else EMPTY,
    )


def _known_span(lifetime: int | str) -> int | None:
    """Seconds; None for the words that stand where nobody can know."""
    return lifetime if isinstance(lifetime, int) else None


def _entry_of(name: str, choice: ProviderChoice) -> str:
    entry = entry_name(choice.catalogue or name)
    if entry is None and choice.catalogue:
        raise _wrong(name, f"the catalogue has no entry {choice.catalogue}", "catalogue")
    if entry is None:
        entry = "oidc" if choice.issuer else "oauth2"
    facts = _CATALOGUE[entry]
    reachable = choice.issuer or facts.endpoints.token or choice.endpoints.token
    if not reachable:
        raise _wrong(name, "not in the catalogue: say its issuer, or its endpoints", "unknown_provider")
    return entry


def _environment_of(name: str, choice: ProviderChoice, facts: Entry) -> EntryEnvironment:
    if choice.environment is None:
        return EntryEnvironment()
    if choice.environment not in facts.environments:
        known = ", ".join(facts.environments) or "none"
        raise _wrong(name, f"it has no environment {choice.environment}; known are: {known}", "environment")
    return facts.environments[choice.environment]


def _issuer_of(name: str, choice: ProviderChoice, known: str | None, fill: _Filling) -> str | None:
    if choice.issuer is None:
        return fill.one(known)
    if not _safe(choice.issuer) or urlsplit(choice.issuer).query:
        raise _wrong(name, "issuer must be an https URL (http only on loopback)", "issuer")
    return choice.issuer


def _endpoints_of(
    name: str,
    choice: ProviderChoice,
    facts: Entry,
    environment: EntryEnvironment,
    fill: _Filling,
    *,
    elsewhere: bool,
) -> ProviderEndpoints:
    known: dict[str, str | None] = {}
    if choice.issuer is None:
        for item in fields(EntryEndpoints):
            if item.name != "discovery":
                url = getattr(environment.endpoints, item.name) or getattr(facts.endpoints, item.name)
                known[item.name] = fill.one(url)
        if facts.revocation is not None:
            known["revocation"] = fill.one(environment.revocation_url or facts.revocation.url)
    for item in fields(Endpoints):
        own: str | None = getattr(choice.endpoints, item.name)
        if own is None:
            continue
        if not _safe(own):
            raise _wrong(
                name, f"endpoints.{item.name} must be an https URL (http only on loopback)", "endpoint"
            )
        known[item.name] = own
    if choice.endpoints.token is not None:
        known["refresh"] = None  # the operator's token endpoint is for both
    if elsewhere:  # its tokens are no business of the server that the catalogue knows
        known |= {one: getattr(choice.endpoints, one) for one in ("revocation", "userinfo", "introspection")}
    return ProviderEndpoints(**known)


def _elsewhere(choice: ProviderChoice, known: str | None) -> bool:
    """Whether the operator's tokens come from another server than the catalogue's: an emulator, one's own GitHub."""
    own = choice.endpoints.token
    return own is not None and known is not None and _site(own) != _site(known)


def _site(url: str) -> str:
    """The end of its host's name, which all servers of a provider have: `oauth2.googleapis.com` and `www.…`."""
    host = urlsplit(url).hostname or ""
    return host if host.replace(".", "").isdigit() else ".".join(host.split(".")[-2:])


class _Filling:
    """Fills the braces in the catalogue's URLs and hosts from `subdomain`, which can never name another host."""

    def __init__(self, name: str, choice: ProviderChoice, facts: Entry) -> None:
        self._name = name
        self._placeholder = facts.placeholder
        self._optional = choice.issuer is not None
        self._value = choice.subdomain or (facts.placeholder.default if facts.placeholder else None)
        whole = facts.placeholder is not None and facts.placeholder.host
        allowed = _LABELS + (r"(?::[0-9]{1,5})?" if whole else "")
        if self._value is not None and not re.fullmatch(allowed, self._value):
            raise _wrong(
                name, "subdomain must be a host name, or the part of one that stands in the URL", "subdomain"
            )

    def one(self, text: str | None) -> str | None:
        if text is None or not _PLACEHOLDER.search(text):
            return text
        if self._value is not None:
            return _PLACEHOLDER.sub(self._value, text)
        if self._optional:
            return None
        meaning = self._placeholder.meaning if self._placeholder else "what fills its URLs"
        raise _wrong(self._name, f"say `subdomain`: {meaning}", "subdomain_missing")

    def all(self, texts: Iterable[str]) -> list[str]:
        return [filled for text in texts if (filled := self.one(text)) is not None]


def _discovered(provider: Provider, document: Mapping[str, Any], name: str) -> str | None:
    url = document.get(f"{name}_endpoint")
    if url is None:
        return None
    insecure = not isinstance(url, str) or not _safe(url)
    if insecure or (urlsplit(url).scheme == "http" and urlsplit(provider.issuer or "").scheme != "http"):
        raise _wrong(
            provider.id, f"the discovery document's {name} endpoint is not https", "endpoint_insecure"
        )
    return str(url)


def _agreed(preferred: str, supported: tuple[str, ...]) -> str:
    if not supported or preferred in supported:
        return preferred
    return next((method for method in _OURS if method in supported), preferred)


def _words(document: Mapping[str, Any], key: str) -> tuple[str, ...]:
    value = document.get(key)
    return tuple(word for word in value if isinstance(word, str)) if isinstance(value, list) else ()


def _first(chosen: tuple[str, ...] | None, known: tuple[str, ...]) -> tuple[str, ...]:
    return known if chosen is None else chosen


def _safe(url: str) -> bool:
    """https, or http to this very machine; no user, no fragment, no white space."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return False
    if (
        not parts.hostname
        or parts.username
        or parts.fragment
        or port == 0
        or not re.fullmatch(r"[!-~]+", url)
    ):
        return False
    return parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in LOOPBACK)


def _wrong(name: str, sentence: str, reason: str) -> ProviderMisconfigured:
    return ProviderMisconfigured(f"{name}: {sentence}", provider=name, reason=reason)


def revocation_of(provider: Provider) -> Revocation | None:
    """How this provider takes tokens back, and where; None where it does not."""
    url = provider.endpoints.revocation
    if url is None:
        return None
    return replace(provider.facts.revocation, url=url) if provider.facts.revocation else Revocation(url)
