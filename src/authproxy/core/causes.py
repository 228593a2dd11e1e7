"""Who must act on what happened to a connection, and how loudly it should be told."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Any

from authproxy.core.verdicts import ADVICE


class Party(StrEnum):
    """Whose doing it is, and who can mend it."""

    USER = "user"  # deny, revoke, connect again: ordinary life
    ADMIN = "admin"  # a policy of the user's organisation
    OPERATOR = "operator"  # our client, our keys, our configuration
    PROVIDER = "provider"  # it will pass
    NOBODY = "nobody"


class Severity(StrEnum):
    """What an alert should make of it (J05)."""

    INFO = "info"
    WARNING = "warning"
    CRITICAL = "critical"  # wakes somebody, once


_ADMIN = frozenset({"session_policy", "admin_policy", "ip_policy", "account_gone"})
_OPERATOR = frozenset(
    {
        "test_mode_expiry",
        "test_mode_suspected",
        "rotated_away",
        "reused_elsewhere_suspected",
        "spent_token",
        "no_refresh_token",
        "unreadable",
    }
)
_PAGED = frozenset({"reused_elsewhere_suspected", "rotated_away", "spent_token", "unreadable"})
_OWN_ADVICE: Mapping[str, str] = MappingProxyType(
    {
        "reused_elsewhere_suspected": "Something else holds this refresh token and uses it; find it and end it, then "
        "the user connects again.",
        "rotation_lost": "An answer of the provider was lost on its way, and the new refresh token with it; the user "
        "connects again.",
        "spent_token": "The stored refresh token was used before (an older copy of the store?); the user connects "
        "again.",
        "no_refresh_token": "The provider gave no refresh token: ask it for offline access, then the user connects "
        "again.",
        "client_changed": "The grant was made with another client id: put that one back, or the user connects again.",
    }
)


def party(kind: str, data: Mapping[str, Any]) -> Party:
    """Who must act on an event of this kind."""
    reason = str(data.get("reason") or "")
    match kind:
        case "connection.misconfigured" | "provider.suspected":
            return Party.OPERATOR
        case "connection.needs_reauth" | "connection.rotation_lost" | "connection.reauth_due":
            return Party.ADMIN if reason in _ADMIN else Party.OPERATOR if reason in _OPERATOR else Party.USER
        case "refresh.failed":
            verdict = data.get("verdict")
            if verdict == "misconfigured":
                return Party.OPERATOR
            return Party.USER if verdict == "dead" else Party.PROVIDER
        case "approval.requested":
            return Party.OPERATOR if data.get("approver") == "operator" else Party.USER
        case "connection.revocation":
            return Party.USER if data.get("revoked_upstream") in ("failed", "unsupported") else Party.NOBODY
        case _:
            return Party.NOBODY


def severity(kind: str, data: Mapping[str, Any]) -> Severity:
    """How loudly to tell it: what users do is no alarm, what only the operator can mend is one, once."""
    if kind in ("connection.misconfigured", "provider.suspected"):
        return Severity.CRITICAL
    if kind in ("connection.needs_reauth", "connection.rotation_lost"):
        if data.get("reason") in _PAGED or data.get("reuse_suspected"):
            return Severity.CRITICAL
        return Severity.INFO if party(kind, data) is Party.USER else Severity.WARNING
    if kind in ("refresh.failed", "connection.reauth_due"):
        return Severity.WARNING
    return Severity.INFO


def advice(reason: str | None) -> str | None:
    """What to do about a reason, in a sentence."""
    return None if reason is None else _OWN_ADVICE.get(reason) or ADVICE.get(reason)
