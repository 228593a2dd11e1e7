"""Grants, codes and tokens in memory: issued, rotated, spent, revoked, expired."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from authproxy.sandbox.dialect import Dialect
from authproxy.sandbox.switches import Switches


def digest_of(token: str) -> str:
    """How tokens are named wherever they are recorded: never themselves."""
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()[:16]


class GrantRefused(Exception):
    """`code` is ours, and becomes the dialect's own; `why` is for the ledger."""

    def __init__(self, code: str, why: str) -> None:
        super().__init__(why)
        self.code = code
        self.why = why


@dataclass(slots=True)
class Access:
    """An access token. `ends` None: it has no end of its own."""

    token: str = field(repr=False)
    grant: Grant = field(repr=False)
    scopes: tuple[str, ...]
    ends: float | None
    dead: bool = False


@dataclass(slots=True)
class Refresh:
    """A refresh token; `successor` is what it was spent for."""

    token: str = field(repr=False)
    grant: Grant = field(repr=False)
    issued_at: float
    used_at: float
    spent_at: float | None = None
    successor: Refresh | None = field(default=None, repr=False)


@dataclass(slots=True)
class Grant:
    """One consent, and the family of all tokens that descend from it."""

    id: int
    dialect: str
    client_id: str
    user: str
    kind: str
    scopes: tuple[str, ...]
    made_at: float
    ends: float | None
    expiring: bool
    refreshable: bool
    refreshed_at: float | None = None
    revoked: str | None = None
    access: list[Access] = field(default_factory=list, repr=False)
    refresh: list[Refresh] = field(default_factory=list, repr=False)


@dataclass(slots=True)
class Code:
    """An authorization code with all that the token call has to repeat."""

    dialect: str
    client_id: str
    user: str
    redirect_uri: str
    scopes: tuple[str, ...]
    user_scopes: tuple[str, ...]
    challenge: str | None
    nonce: str | None
    offline: bool
    ends: float
    used: bool = False
    grants: list[Grant] = field(default_factory=list, repr=False)


@dataclass(frozen=True, slots=True)
class Issued:
    """What one token call gave. `refresh` None: the answer carries no refresh token."""

    grant: Grant
    access: Access
    refresh: Refresh | None
    at_consent: bool
    nonce: str | None = None


class Grants:
    """All grants of one sandbox. Nothing here touches a socket."""

    def __init__(
        self,
        switches: Switches,
        *,
        access_token_life: float | None,
        code_life: float,
        clock: Callable[[], float],
        randomness: Callable[[int], str],
    ) -> None:
        self._switches = switches
        self._life = access_token_life
        self._code_life = code_life
        self._clock = clock
        self._randomness = randomness
        self._count = 0
        self._codes: dict[str, Code] = {}
        self._access: dict[str, Access] = {}
        self._refresh: dict[str, Refresh] = {}
        self._owned: defaultdict[tuple[str, str, str], list[Grant]] = defaultdict(list)
        self.all: list[Grant] = []

    # Consent

    def keep_code(self, **fields: object) -> str:
        """A new single-use code."""
        code = self._randomness(24)
        self._codes[code] = Code(ends=self._clock() + self._code_life, **fields)  # type: ignore[arg-type]
        return code

    def find_code(self, code: str) -> Code | None:
        """The code, used or not; the caller checks the rest of the request before `redeem`."""
        return self._codes.get(code)

    def redeem(self, code: Code, dialect: Dialect) -> list[Issued]:
        """Tokens for a code, once. Its second use revokes what the first one gave (RFC 6749 section 4.1.2)."""
        if code.used:
            for grant in code.grants:
                self.revoke(grant, "code_reused")
            raise GrantRefused("invalid_code", "code_reused")
        code.used = True
        if self._clock() >= code.ends:
            raise GrantRefused("invalid_code", "code_expired")
        asked = [(dialect.kind, code.scopes)] if code.scopes or not code.user_scopes else []
        if code.user_scopes:
            asked.append(("user", code.user_scopes))
        issued = []
        for kind, scopes in asked:
            grant = self._open(code, dialect, kind, scopes)
            code.grants.append(grant)
            refresh = self._new_refresh(grant, dialect) if grant.refreshable else None
            hidden = self._switches.omit_refresh_token or self._switches.omit_refresh_token_at_consent
            access = self._new_access(grant, dialect)
            issued.append(Issued(grant, access, None if hidden else refresh, True, code.nonce))
        return issued

    def _open(self, code: Code, dialect: Dialect, kind: str, scopes: tuple[str, ...]) -> Grant:
        self._count += 1
        now = self._clock()
        switches = self._switches
        expiring = switches.tokens_expire if switches.tokens_expire is not None else dialect.expiring(scopes)
        grant = Grant(
            id=self._count,
            dialect=dialect.name,
            client_id=code.client_id,
            user=code.user,
            kind=kind,
            scopes=scopes,
            made_at=now,
            # Kept from the day of consent: a grant made in test mode dies with it, also after publishing.
            ends=now + switches.test_mode_s if switches.test_mode_s else None,
            expiring=expiring,
            refreshable=expiring and code.offline,
        )
        self.all.append(grant)
        owner = (grant.dialect, grant.client_id, grant.user)
        mine = [one for one in self.live_of(*owner) if one.kind == kind]
        mine.append(grant)
        self._owned[owner].append(grant)
        limit = dialect.max_grants if switches.max_grants is None else switches.max_grants
        for one in mine[: max(len(mine) - limit, 0)] if limit else []:
            self.revoke(one, "over_the_cap")
        return grant

    def live_of(self, dialect: str, client_id: str, user: str) -> list[Grant]:
        """The live grants of one user to one client, oldest first."""
        return [one for one in self._owned[dialect, client_id, user] if one.revoked is None]

    # Refresh

    def find_refresh(self, token: str) -> Refresh | None:
        """The refresh token, dead or alive."""
        return self._refresh.get(token)

    def renew(self, old: Refresh, dialect: Dialect) -> Issued:
        """New tokens for a refresh token; spends it where the provider rotates. Raises GrantRefused."""
        grant, now, switches = old.grant, self._clock(), self._switches
        self._refuse_dead(grant, old)
        if old.spent_at is not None:
            return self._again(old, dialect)
        interval = switches.min_interval_s
        if interval and grant.refreshed_at is not None and now < grant.refreshed_at + interval:
            raise GrantRefused("rate_limited", "min_interval")
        grant.refreshed_at = old.used_at = now
        if switches.narrow_scopes_at_refresh is not None:
            grant.scopes = tuple(one for one in grant.scopes if one in switches.narrow_scopes_at_refresh)
        self._kill_older(grant, dialect)
        access = self._new_access(grant, dialect)
        odd = {"null": None, "empty": None, "blank": None, "same": old}
        if switches.omit_refresh_token:
            return Issued(grant, access, None, at_consent=False)
        if switches.refresh_token_value in odd:
            return Issued(grant, access, odd[switches.refresh_token_value], at_consent=False)
        if not (dialect.rotate if switches.rotate is None else switches.rotate):
            return Issued(grant, access, old if dialect.repeats_refresh else None, at_consent=False)
        return Issued(grant, access, self._succeed(old, dialect), at_consent=False)

    def spend(self, old: Refresh, dialect: Dialect) -> None:
        """Spends a refresh token whose caller gets nothing for it."""
        if old.spent_at is None and old.grant.revoked is None:
            self._succeed(old, dialect)

    def _succeed(self, old: Refresh, dialect: Dialect) -> Refresh:
        new = self._new_refresh(old.grant, dialect)
        old.spent_at, old.successor = self._clock(), new
        return new

    def _refuse_dead(self, grant: Grant, old: Refresh) -> None:
        now, switches = self._clock(), self._switches
        if grant.revoked is None and grant.ends is not None and now >= grant.ends:
            self.revoke(grant, "test_mode_expired")
        if switches.refresh_absolute_s and now >= grant.made_at + switches.refresh_absolute_s:
            self.revoke(grant, "refresh_absolute_expired")
        if switches.refresh_idle_s and old.spent_at is None and now >= old.used_at + switches.refresh_idle_s:
            self.revoke(grant, "refresh_idle_expired")
        if grant.revoked is not None:
            raise GrantRefused("invalid_grant", grant.revoked)

    def _again(self, old: Refresh, dialect: Dialect) -> Issued:
        """A spent refresh token came back."""
        assert old.spent_at is not None
        grant, now, switches = old.grant, self._clock(), self._switches
        if now < old.spent_at + switches.grace_s:
            access = self._new_access(grant, dialect)
            if switches.grace_mode == "same_successor":
                return Issued(grant, access, old.successor, at_consent=False)
            return Issued(grant, access, self._new_refresh(grant, dialect), at_consent=False)
        revokes = switches.revoke_family_on_reuse
        if dialect.revoke_family_on_reuse if revokes is None else revokes:
            self.revoke(grant, "reuse_detected")
        raise GrantRefused("invalid_grant", "reuse_detected")

    def _kill_older(self, grant: Grant, dialect: Dialect) -> None:
        kills = self._switches.revoke_old_access
        if dialect.revoke_old_access if kills is None else kills:
            for access in grant.access:
                access.dead = True

    # Tokens

    def _new_access(self, grant: Grant, dialect: Dialect) -> Access:
        life = next(
            one
            for one in (self._switches.access_token_life, self._life, dialect.access_life)
            if one is not None
        )
        ends = self._clock() + life if grant.expiring else None
        token = dialect.access_prefixes.get(grant.kind, "") + self._randomness(32)
        access = Access(token, grant, grant.scopes, ends)
        grant.access.append(access)
        self._access[token] = access
        return access

    def _new_refresh(self, grant: Grant, dialect: Dialect) -> Refresh:
        token, now = dialect.refresh_prefix + self._randomness(32), self._clock()
        refresh = Refresh(token, grant, now, now)
        grant.refresh.append(refresh)
        self._refresh[token] = refresh
        return refresh

    def issued_tokens(self) -> set[str]:
        """Every access and refresh token that was made."""
        return {*self._access, *self._refresh}

    def find_access(self, token: str) -> Access | None:
        """The access token, dead or alive."""
        return self._access.get(token)

    def fault_of(self, access: Access) -> str | None:
        """Why an access token is not good: `revoked`, `expired`, or None where it is."""
        now = self._clock()
        if access.dead or access.grant.revoked is not None:
            return "revoked"
        if access.ends is not None and now >= access.ends:
            return "expired"
        if access.grant.ends is not None and now >= access.grant.ends:
            return "revoked"
        return None

    def remaining(self, access: Access) -> int | None:
        """Whole seconds that an access token has left."""
        return None if access.ends is None else max(round(access.ends - self._clock()), 0)

    def refresh_remaining(self, grant: Grant) -> int | None:
        """Whole seconds that the grant has left, where it has an end."""
        return None if grant.ends is None else max(round(grant.ends - self._clock()), 0)

    def refresh_live(self, one: Refresh) -> bool:
        """Whether this refresh token would be taken now."""
        try:
            self._refuse_dead(one.grant, one)
        except GrantRefused:
            return False
        return one.spent_at is None

    # Ends

    def revoke(self, grant: Grant, why: str) -> None:
        """Ends a grant with all its tokens; the first reason stays."""
        grant.revoked = grant.revoked or why

    def revoke_all(self, why: str, *, user: str | None = None) -> int:
        """Ends all grants (of one user); says how many."""
        doomed = [grant for grant in self.live() if user in (None, grant.user)]
        for grant in doomed:
            self.revoke(grant, why)
        return len(doomed)

    def expire_access(self, user: str | None = None) -> int:
        """Ends all access tokens (of one user) now; refresh tokens live on. Says how many."""
        now, count = self._clock(), 0
        for access in self._access.values():
            if user in (None, access.grant.user) and self.fault_of(access) is None:
                access.ends = now
                count += 1
        return count

    def live(self) -> Iterator[Grant]:
        """Grants that were not ended, oldest first."""
        return (grant for grant in self.all if grant.revoked is None)

    def live_access(self) -> Iterable[Access]:
        """Access tokens that are good now."""
        return (access for access in self._access.values() if self.fault_of(access) is None)
