"""What the catalogue says of a provider: the classes that catalogue/*.yaml is read into.

A key that no class here knows is an error, so that a quirk is never written down and then not read.
Lifetimes are seconds, or one of the words `never`, `policy` (the customer decides), `varies`, `unknown`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from authproxy.core.model import EMPTY

Lifetime = int | str
ClientAuthMethod = Literal["client_secret_basic", "client_secret_post", "none"]


@dataclass(frozen=True, slots=True)
class EntryEndpoints:
    """Where the authorization server listens. Placeholders in braces are filled from `subdomain`."""

    authorization: str | None = None
    token: str | None = None
    refresh: str | None = None  # where it differs from `token`
    userinfo: str | None = None
    introspection: str | None = None
    device_authorization: str | None = None
    discovery: str | None = None


@dataclass(frozen=True, slots=True)
class Revocation:
    """How a token is given back. RFC 7009 unless said otherwise."""

    url: str
    method: Literal["POST", "DELETE"] = "POST"
    auth: Literal["client", "basic", "bearer", "client_id", "none"] = "client"
    format: Literal["form", "json", "none"] = "form"
    param: str = "token"
    hint: bool = True
    takes: tuple[str, ...] = ("refresh_token", "access_token")


@dataclass(frozen=True, slots=True)
class EntryEnvironment:
    """What differs in one of the provider's own environments. `reasons` renames a verdict's reason there."""

    note: str | None = None
    issuer: str | None = None
    endpoints: EntryEndpoints = field(default_factory=EntryEndpoints)
    revocation_url: str | None = None
    api_hosts: tuple[str, ...] | None = None
    upstream: str | None = None
    refresh_token_lifetime: int | None = None
    reasons: Mapping[str, str] = field(default_factory=lambda: EMPTY)


@dataclass(frozen=True, slots=True)
class Placeholder:
    """What fills the braces: a label or dotted name below a fixed domain, or (`host`) a whole host name."""

    meaning: str
    host: bool = False
    default: str | None = None


@dataclass(frozen=True, slots=True)
class Api:
    """Where tokens may be sent, and how. `credential_paths` hand out or destroy tokens: never for agents."""

    hosts: tuple[str, ...] = ()
    host_patterns: tuple[str, ...] = ()
    upstream_from: str | None = None  # the field of the token answer that names this grant's own host
    header: str = "Authorization"
    scheme: str = "Bearer"
    required_headers: Mapping[str, str] = field(default_factory=lambda: EMPTY)  # as they can be sent
    expected_headers: Mapping[str, str] = field(
        default_factory=lambda: EMPTY
    )  # what agents must send, in words
    credential_paths: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ClientAuth:
    """How the client says who it is at the token endpoint."""

    methods: tuple[str, ...] = ("client_secret_basic", "client_secret_post", "none")
    preferred: ClientAuthMethod = "client_secret_basic"
    request_format: Literal["form", "json"] = "form"
    # RFC 6749 2.3.1 form-encodes id and secret before base64; some servers do not decode
    basic_auth_encoding: Literal["rfc6749", "raw"] = "rfc6749"
    headers: Mapping[str, str] = field(default_factory=lambda: EMPTY)
    notes: str | None = None


@dataclass(frozen=True, slots=True)
class Pkce:
    """RFC 7636, S256. It is always sent, unless `off_because` gives the reason not to."""

    support: Literal["none", "optional", "required", "unknown"] = "optional"
    off_because: str | None = None
    notes: str | None = None


@dataclass(frozen=True, slots=True)
class Authorization:
    """The authorization request."""

    params: Mapping[str, str] = field(default_factory=lambda: EMPTY)
    offline_params: Mapping[str, str] = field(default_factory=lambda: EMPTY)  # to get a refresh token at all
    offline_scopes: tuple[str, ...] = ()  # any one of them does; the first is added when none is asked for
    consent_params: Mapping[str, str] = field(default_factory=lambda: EMPTY)  # to have the user asked again
    scope_param: str = "scope"
    scope_separator: str = " "
    login_hint_param: str | None = None  # only where it takes the account id that is kept with a grant
    code_params: Mapping[str, str] = field(default_factory=lambda: EMPTY)  # added to the code exchange
    refresh_params: Mapping[str, str] = field(default_factory=lambda: EMPTY)  # added to the refresh
    # repeated at the refresh although RFC 6749 section 6 lets it be left out: scope, redirect_uri, resource
    refresh_repeats: tuple[str, ...] = ()
    notes: str | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """The token endpoint's answer."""

    token_at: tuple[str, ...] = ("",)  # where the token fields sit, best first; "" is the top level
    token_types: tuple[str, ...] = ("bearer",)  # what means Bearer here
    scope_fields: tuple[str, ...] = ("scope", "scopes")
    ok_field: str | None = None  # a boolean that must not be false, also in resource answers
    scopes_reported: bool = True  # False: what it says of scopes means nothing
    scope_prefix: str | None = None  # at times before a scope, at times not
    expires_in: str = "always"
    refresh_token: str = "sometimes"  # noqa: S105 -- says when the answer carries one
    extra: tuple[str, ...] = ()  # further fields that are kept with the grant; dotted paths, never secret
    notes: str | None = None


@dataclass(frozen=True, slots=True)
class AccessTokenFacts:
    """The access token's life."""

    lifetime: Lifetime = "unknown"
    prefixes: tuple[str, ...] = ()
    dies_at_refresh: bool = False  # the old one is dead as soon as a new one is issued
    notes: str | None = None


@dataclass(frozen=True, slots=True)
class RefreshTokenFacts:
    """The refresh token's life; `grace_seconds` is for how long a spent one is still answered."""

    issued: str | None = None
    lifetime: Lifetime = "unknown"
    idle_expiry: Lifetime = "unknown"
    absolute_expiry: Lifetime = "unknown"
    rotation: Literal["always", "none", "optional", "sometimes", "unknown"] = "unknown"
    reuse_detection: str | None = None
    grace_seconds: int | None = None
    early: bool = True  # False: the provider dislikes a refresh before expiry
    max_live: int | None = None
    max_live_scope: str | None = None
    prefixes: tuple[str, ...] = ()
    concurrency: str | None = None
    notes: str | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """One answer to recognise: all that is given must hold, and within a list any one.

    `code` is compared exactly with the machine codes of the body, `subcode` with error_subtype, suberror and
    AADSTS numbers, `text` is sought without case in its messages, `challenge` names parameters of a Bearer
    challenge.
    """

    status: tuple[int | str, ...] = ()
    code: tuple[str, ...] = ()
    subcode: tuple[str, ...] = ()
    text: tuple[str, ...] = ()
    challenge: tuple[str, ...] = ()
    reason: str | None = None
    meaning: str | None = None


@dataclass(frozen=True, slots=True)
class TokenErrors:
    """The token endpoint's refusals, tried in this order."""

    transient: tuple[Row, ...] = ()
    misconfigured: tuple[Row, ...] = ()
    dead: tuple[Row, ...] = ()


@dataclass(frozen=True, slots=True)
class ApiErrors:
    """The resource API's refusals that are about the token, tried in this order."""

    not_curable: tuple[Row, ...] = ()
    scope: tuple[Row, ...] = ()
    expired: tuple[Row, ...] = ()


@dataclass(frozen=True, slots=True)
class Pacing:
    """How the resource API asks to be left alone for a while.

    An answer does so with one of `statuses` and a time: Retry-After, or the field `reset` (for other statuses than 429
    only while the field `remaining` is 0). It speaks of the user's requests or, by `scope` or where a field has the
    value in `app_when`, of the whole app's. Names of fields and values are in lower case. `own_paths` are globs of
    paths that are counted apart from all others; with `each_path` every path is. `at_once`: one such answer is
    believed; else the second within the time that the first told.
    """

    statuses: tuple[int, ...] = (429,)
    remaining: str | None = None
    reset: str | None = None
    scope: Literal["user", "app"] = "user"
    app_when: Mapping[str, str] = field(default_factory=lambda: EMPTY)
    own_paths: tuple[str, ...] = ()
    each_path: bool = False
    at_once: bool = True


@dataclass(frozen=True, slots=True)
class Account:
    """Which account a grant is for: paths into the token answer, then into userinfo; joined with `/`."""

    answer: tuple[str, ...] = ()
    userinfo: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RedirectRules:
    """What the provider says about redirect URIs; for the doctor."""

    match: str | None = None
    https_required: str | None = None
    loopback: str | None = None
    wildcard: str | None = None
    max_count: int | None = None
    notes: str | None = None


@dataclass(frozen=True, slots=True)
class Deprecation:
    """A date from which something of the provider no longer works."""

    what: str
    since: str
    pattern: str | None = None  # occurs in a URL that is affected


@dataclass(frozen=True, slots=True)
class Entry:
    """All that the catalogue knows of one provider."""

    name: str
    protocol: Literal["oauth2", "oidc"] = "oauth2"
    extends: str | None = None
    issuer: str | None = None
    placeholder: Placeholder | None = None
    endpoints: EntryEndpoints = field(default_factory=EntryEndpoints)
    revocation: Revocation | None = None
    environments: Mapping[str, EntryEnvironment] = field(default_factory=lambda: EMPTY)
    api: Api = field(default_factory=Api)
    client_auth: ClientAuth = field(default_factory=ClientAuth)
    pkce: Pkce = field(default_factory=Pkce)
    authorization: Authorization = field(default_factory=Authorization)
    answer: Answer = field(default_factory=Answer)
    implied_scopes: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: EMPTY)
    access_token: AccessTokenFacts = field(default_factory=AccessTokenFacts)
    refresh_token: RefreshTokenFacts = field(default_factory=RefreshTokenFacts)
    account: Account = field(default_factory=Account)
    token_errors: TokenErrors = field(default_factory=TokenErrors)
    authorize_errors: tuple[Row, ...] = ()  # seen on the redirect back, or on the provider's page
    api_errors: ApiErrors = field(default_factory=ApiErrors)
    pacing: Pacing = field(default_factory=Pacing)
    redirect_uri: RedirectRules = field(default_factory=RedirectRules)
    deprecations: tuple[Deprecation, ...] = ()
    notes: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    unverified: tuple[str, ...] = ()  # keys of this entry that were not seen confirmed
