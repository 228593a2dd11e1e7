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
SOON = 600  # seconds; a refusal so soon after a success looks like a second owner of the token (A29)
# Reasons that leave open who ended the grant.
VAGUE = frozenset({"unknown", "rotated_away", "revoked_or_expired", "not_recognised"})
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
        if connection.state is not State.ACTIVE or self.number > 1:
            why = {"from": str(connection.state), "attempt": self.number}
            events.append(self._event("connection.recovered", at, why))
        return events

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
