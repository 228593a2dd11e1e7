"""The nouns that cross floors: frozen values, no behaviour beyond reading themselves.

Instants are integer seconds since the epoch; `None` means never or unknown, and an instant is never tested
for truth.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Any, NamedTuple

from authproxy.core.secret import Secret

DEFAULT_TENANT = "default"
DEFAULT_ACCOUNT = "default"
EMPTY: Mapping[str, Any] = MappingProxyType({})


class Environment(StrEnum):
    """Bound into every sealed row: a store of one environment refuses to serve another."""

    DEVELOPMENT = "development"
    STAGING = "staging"
    PRODUCTION = "production"


class State(StrEnum):
    """Of a connection: the authorization server's last verdict, not the age of an access token."""

    ACTIVE = "active"
    NEEDS_REAUTH = "needs_reauth"
    MISCONFIGURED = "misconfigured"
    DISCONNECTED = "disconnected"
    ROTATION_LOST = "rotation_lost"


class ConnectionKey(NamedTuple):
    """Names one user's grant at one provider. There is no default user and no fallback."""

    tenant: str
    user: str
    provider: str
    account: str = DEFAULT_ACCOUNT


@dataclass(frozen=True, slots=True)
class TokenSet:
    """What a token endpoint gave, ready to be sealed.

    `expires_at` None: unknown, so refreshed only on a 401. `lifetime` is the access token's life in seconds
    as told, kept so that a later answer without `expires_in` can fall back to it. `extra` holds the
    whitelisted further fields (`instance_url`, …), which are not secret.
    """

    access_token: Secret
    refresh_token: Secret | None
    expires_at: int | None
    lifetime: int | None = None
    refresh_expires_at: int | None = None
    scopes: tuple[str, ...] = ()
    extra: Mapping[str, str] = field(default_factory=lambda: EMPTY)


@dataclass(frozen=True, slots=True)
class Connection:
    """One connection as stored, without its secrets."""

    id: str
    key: ConnectionKey
    environment: Environment
    state: State
    reason: str | None
    client_id: str
    grant_id: str
    generation: int
    scopes: tuple[str, ...]
    requested_scopes: tuple[str, ...]
    expires_at: int | None
    lifetime: int | None
    refresh_expires_at: int | None
    refreshable: bool
    extra: Mapping[str, str]
    provider_account: str | None
    consented_at: int
    obtained_at: int
    failures: int = 0
    retry_at: int | None = None
    last_error: str | None = None


@dataclass(frozen=True, slots=True)
class NewGrant:
    """A finished consent or an import, about to become generation n+1 of its connection."""

    key: ConnectionKey
    client_id: str
    grant_id: str
    tokens: TokenSet
    requested_scopes: tuple[str, ...]
    provider_account: str | None
    at: int


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to a flow, a connection or the configuration; becomes an audit record."""

    kind: str
    at: int
    tenant: str
    user: str | None = None
    provider: str | None = None
    account: str | None = None
    connection_id: str | None = None
    agent: str | None = None
    data: Mapping[str, Any] = field(default_factory=lambda: EMPTY)


@dataclass(frozen=True, slots=True)
class UserStanding:
    """Whether a user may be acted for. `disabled_at` None: they may. `changed_by`, `changed_at` and `reason` are of the
    last change, None where there never was one; `connections` counts those that live, `revocations` the grants that
    are still owed back to their providers. `grants_kept`: being disabled has ended no grant."""

    tenant: str
    user: str
    disabled_at: int | None = None
    grants_kept: bool = False
    reason: str | None = None
    changed_by: str | None = None
    changed_at: int | None = None
    connections: int = 0
    revocations: int = 0


class FlowStatus(StrEnum):
    """Of one consent. All but the first four are ends, and an end never changes."""

    NOT_STARTED = "not_started"  # made, nobody opened it
    PENDING = "pending"  # the browser was sent to the provider
    EXCHANGING = "exchanging"  # the callback is being worked on; claimed by exactly one
    CONFIRMING = "confirming"  # tokens are held back until confirm_user says who opened it
    COMPLETED = "completed"
    FAILED = "failed"
    DENIED = "denied"
    EXPIRED = "expired"
    SUPERSEDED = "superseded"

    @property
    def ended(self) -> bool:
        return self in _ENDS


_ENDS = frozenset(
    {FlowStatus.COMPLETED, FlowStatus.FAILED, FlowStatus.DENIED, FlowStatus.EXPIRED, FlowStatus.SUPERSEDED}
)


@dataclass(frozen=True, slots=True)
class Flow:
    """One consent in progress: started, opened, finished exactly once.

    The verifier (RFC 7636) is sealed in the store; of `state` and of the browser's cookie only digests are
    kept. `redirect_uri` is stored because both legs must carry the very same string.
    """

    id: str
    key: ConnectionKey
    agent: str
    scopes: tuple[str, ...]
    status: FlowStatus
    reason: str | None
    client_id: str
    redirect_uri: str
    next_uri: str | None
    created_at: int
    expires_at: int
    state_digest: str | None = None
    browser_digest: str | None = None
    forced: bool = False
    connection_id: str | None = None


@dataclass(frozen=True, slots=True)
class AgentKey:
    """An agent's credential as kept: its digest, never its text."""

    id: str
    tenant: str
    name: str
    digest: str
    may_act_for: tuple[str, ...]
    operator: bool
    created_at: int
    expires_at: int | None = None
    revoked_at: int | None = None


@dataclass(frozen=True, slots=True)
class Session:
    """A credential for one agent and one user that another caller has minted, as kept: its digest, never its text.

    `agent` is who it is for every rule; `label` is what its minter calls it, and means nothing. `minted_by` is the id
    of the minter's key (`agt_…`), else its kind and name. `routes` and `tools` are the only
    ones that it may use, None: all. `ttl` is in seconds, and what a renewal adds; after `renewable_until` (None:
    from the beginning) nothing is added any more.
    """

    id: str
    tenant: str
    agent: str
    user: str
    digest: str
    minted_by: str
    routes: tuple[str, ...] | None
    tools: tuple[str, ...] | None
    ttl: int
    created_at: int
    expires_at: int
    renewable_until: int | None = None
    revoked_at: int | None = None
    label: str | None = None


class ApprovalStatus(StrEnum):
    """Of one call that may be made only with somebody's yes."""

    PENDING = "pending"
    APPROVED = "approved"
    DENIED = "denied"
    USED = "used"  # the call was made
    EXPIRED = "expired"  # not given, or not used, in time


@dataclass(frozen=True, slots=True)
class Approval:
    """A yes that is asked for. It is good once, for the very call that its `fingerprint` is of.

    `approver` is who may give it: `operator` or `user`. Until `expires_at` it may be given, and then used.
    `decided_by` is the agent whose key gave or refused it.
    """

    id: str
    tenant: str
    agent: str
    session: str | None
    user: str
    account: str
    tool: str
    fingerprint: str
    approver: str
    status: ApprovalStatus
    created_at: int
    expires_at: int
    decided_at: int | None = None
    decided_by: str | None = None


@dataclass(frozen=True, slots=True)
class Caller:
    """The authenticated identity behind a request.

    `may_act_for` holds user ids, `*`, or prefixes that end in `*`. `bound_user` is set where the credential
    itself names the one user; then no user header is needed. `key` is the id of the agent key, where it is one.
    """

    tenant: str
    agent: str
    kind: str
    may_act_for: tuple[str, ...]
    operator: bool = False
    bound_user: str | None = None
    key: str | None = None
    session: str | None = None  # the id of the session that this credential is, where it is one
    routes: tuple[str, ...] | None = None  # the only routes that it may use; None: all
    tools: tuple[str, ...] | None = None  # the only tools (patterns) that it may call; None: all

    def allowed(self, user: str) -> bool:
        """Whether this caller may act for `user`."""
        if self.bound_user is not None and user != self.bound_user:
            return False
        if "*" in self.may_act_for:
            return True
        return any(p == user or (p.endswith("*") and user.startswith(p[:-1])) for p in self.may_act_for)


@dataclass(frozen=True, slots=True)
class Usable:
    """A token that may be sent now, with what says where it may go.

    `header` is the finished field value (`Bearer …`), rendered once per token; `needles` are the forms in which
    an upstream might reflect it. repr shows neither.
    """

    connection_id: str
    key: ConnectionKey
    generation: int
    expires_at: int | None
    scopes: frozenset[str]
    extra: Mapping[str, str]
    header: bytes = field(repr=False)
    secret: Secret = field(repr=False)
    needles: tuple[bytes, ...] = field(default=(), repr=False)
