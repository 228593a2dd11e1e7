"""One refresh under one lease: what is known of it, and what is written down about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from authproxy.broker.outcome import Want
from authproxy.core.model import Connection, Event, State, TokenSet
from authproxy.core.providers import Client, Provider
from authproxy.core.verdicts import TokenFailure
from authproxy.store.lease import Leased

LONGEST_WAIT = 3600  # seconds; a Retry-After beyond this is not believed (B10)
FAILING = 3  # failures in a row that are worth telling somebody; fewer are a flicker (J02)
WARNING = 7 * 86400  # seconds; so long before a grant's certain end its user is asked for another, at most
SOON = 600  # seconds; a refusal so soon after a success looks like a second owner of the token (A29)
# Reasons that leave open who ended the grant.
VAGUE = frozenset({"unknown", "rotated_away", "revoked_or_expired", "not_recognised"})
ENDINGS = VAGUE | {"revoked", "idle", "lifetime_over"}
AROUND = 8640  # seconds: 6.9 to 7.1 days is seven
# Codes that speak of the client and can mean nothing else; other refusals must come from several connections.
CLIENT_CODES = frozenset(
    {
        "invalid_client",
        "deleted_client",
        "invalid_client_id",
        "bad_client_id",
        "bad_client_secret",
        "incorrect_client_credentials",
    }
)


def marked(digest: str, sends: int) -> str:
    """What an intent holds: the digest of the refresh token, and which send of it this is."""
    return f"{digest}#{sends}"


def ambiguity(mark: str) -> tuple[int, str]:
    """Reads `marked` back: how often the token was sent without an answer, and its digest."""
    digest, _, sends = mark.rpartition("#")
    return (int(sends), digest) if digest and sends.isdigit() else (1, mark)


@dataclass(slots=True)
class Attempt:
    """From the lease to its end."""

    leased: Leased
    provider: Provider
    client: Client
    want: Want
    taken: float
    digest: str = ""
    number: int = 1  # which send of this refresh token
    first_at: int = 0  # when it was first sent
    status: int | None = None
    failure: TokenFailure | None = None
    handed: bool = False  # the lease belongs to a landing by now
    notes: dict[str, Any] = field(default_factory=dict)

    @property
    def connection(self) -> Connection:
        """As read under the lease."""
        return self.leased.connection

    @property
    def rotates(self) -> bool:
        """Whether sending a refresh token may spend it. Only a provider known never to rotate is believed."""
        return self.provider.facts.refresh_token.rotation != "none"

    def about_client(self, failure: TokenFailure) -> bool:
        """Whether the refusal is certainly the client's, whichever grant was presented."""
        return failure.code in CLIENT_CODES

    def aged_out(self, now: float, reason: str) -> bool:
        """Refused without a clear reason at just the age at which the provider's own test environment ends grants
        (Google's Testing: seven days), although nobody said that the app is in it (C06)."""
        age = now - self.connection.consented_at
        known = self.provider.facts.environments.values()
        return reason in ENDINGS and any(
            one.refresh_token_lifetime is not None and abs(age - one.refresh_token_lifetime) <= AROUND
            for one in known
        )

    def reuse_suspected(self, now: float) -> bool:
        """Refused although the last refresh, which only we should know of, is minutes old."""
        connection = self.connection
        refreshed = connection.obtained_at > connection.consented_at
        return self.rotates and refreshed and now - connection.obtained_at < SOON

    def facts(self) -> dict[str, Any]:
        """For the log: everything a post-mortem asks for, and no token (J04)."""
        connection = self.connection
        return {
            "connection": connection.id,
            "provider": connection.key.provider,
            "generation": connection.generation,
            "grant_age": max(0, self.first_at - connection.consented_at) if self.first_at else None,
            "status": self.status,
            "attempt": self.number,
            "digest": self.digest[:8],
            "failures": connection.failures,
        }

    def success(self, at: int, *, rotated: bool, before: TokenSet, after: TokenSet) -> Sequence[Event]:
        """What is written with the new tokens."""
        connection = self.connection
        data = self._data("saved", None) | {
            "generation": connection.generation + 1,
            "rotated": rotated,
            "expires_at": after.expires_at,
        }
        lost = sorted(set(before.scopes) - set(after.scopes)) if after.scopes else []
        if lost:
            data["scopes_lost"] = lost
        events = [self._event("refresh.succeeded", at, data)]
        if connection.state is not State.ACTIVE or connection.failures >= FAILING:
            back = {"from": str(connection.state), "attempt": self.number, "failures": connection.failures}
            events.append(self._event("connection.recovered", at, back))
        if (ends := self._reauth_due(at, before, after)) is not None:
            events.append(self._event("connection.reauth_due", at, {"ends_at": ends}))
        return events

    def _reauth_due(self, at: int, before: TokenSet, after: TokenSet) -> int | None:
        """When the grant ends although it is refreshed, if this refresh is the first within the time of warning:
        so it is said once, by whoever refreshes, without anything to remember (B15)."""
        connection, ends = self.connection, []
        if self.provider.absolute_expiry is not None:
            ends.append(connection.consented_at + self.provider.absolute_expiry)
        told, earlier = after.refresh_expires_at, before.refresh_expires_at
        if told is not None and earlier is not None and told <= earlier + 1:  # the refresh did not move it
            ends.append(told)
        for end in ends:
            warn = end - min(WARNING, (end - connection.consented_at) // 5)
            if connection.obtained_at < warn <= at < end:
                return end
        return None

    def failed(self, now: float, decision: str, *kinds: str, reason: str) -> Sequence[Event]:
        """What is written with a failure; `kinds` are the events that follow from it."""
        data = self._data(decision, reason)
        at = int(now)
        return [self._event("refresh.failed", at, data)] + [
            self._event(kind, at, {"reason": reason, "generation": self.connection.generation})
            for kind in kinds
        ]

    def _data(self, decision: str, reason: str | None) -> dict[str, Any]:
        failure = self.failure
        return {
            "generation": self.connection.generation,
            "verdict": None if failure is None else str(failure.verdict),
            "code": None if failure is None else failure.code,
            "detail": None if failure is None else failure.detail,
            "reason": reason,
            "status": self.status,
            "attempt": self.number,
            "decision": decision,
            "digest": self.digest[:8],
            **({} if self.want.why is None else {"why": self.want.why}),
            **self.notes,
        }

    def _event(self, kind: str, at: int, data: dict[str, Any]) -> Event:
        key = self.connection.key
        return Event(
            kind=kind,
            at=at,
            tenant=key.tenant,
            user=key.user,
            provider=key.provider,
            account=key.account,
            connection_id=self.connection.id,
            data=data,
        )
