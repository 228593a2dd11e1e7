"""What makes a provider's dialect, and the standard one: RFC 6749 answers and RFC 6750 challenges."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Members = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Said:
    """An error as one provider words it."""

    status: int
    body: Mapping[str, Any] | list[Any] | str
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Context:
    """What a token answer may mention besides tokens."""

    user: str
    client_id: str
    kind: str
    at_consent: bool
    issuer: str
    now: float


def _plain(members: Members, _context: Context) -> Members:
    return members


def _always(_scopes: tuple[str, ...]) -> bool:
    return True


def _ask_always(_query: Mapping[str, str], _scopes: tuple[str, ...], _first: bool) -> bool:
    return True


def _errors(wording: Mapping[str, str], status: int, build: Callable[[str, str], Any]) -> Mapping[str, Said]:
    return {code: Said(status, build(*text.split("|"))) for code, text in wording.items()}


def number_of(user: str) -> int:
    """The number that stands for a user where a provider numbers its users."""
    return int.from_bytes(hashlib.sha256(user.encode()).digest()[:4], "big")


def rfc6749(code: str, text: str) -> Members:
    """The body of an OAuth error."""
    return {"error": code, "error_description": text}


# Our own codes and how RFC 6749 section 5.2 says them. A dialect overrides what it says otherwise.
STANDARD_ERRORS: Mapping[str, Said] = {
    **_errors(
        {
            "invalid_request": "invalid_request|The request is missing a parameter or repeats one",
            "invalid_grant": "invalid_grant|The refresh token is expired, revoked or was used before",
            "invalid_code": "invalid_grant|The code is expired, was used before or does not belong to this request",
            "redirect_mismatch": "invalid_grant|redirect_uri differs from the authorization request",
            "unauthorized_client": "unauthorized_client|This client may not do that",
            "unsupported_grant_type": "unsupported_grant_type|Only authorization_code and refresh_token",
            "invalid_scope": "invalid_scope|The scope is unknown, malformed or wider than granted",
            "in_progress": "invalid_grant|token request is already being processed",
        },
        400,
        rfc6749,
    ),
    "invalid_client": Said(401, rfc6749("invalid_client", "Client authentication failed")),
    "rate_limited": Said(429, rfc6749("rate_limited", "Too many requests")),
    "server_error": Said(500, rfc6749("server_error", "Something broke")),
    "temporarily_unavailable": Said(503, rfc6749("temporarily_unavailable", "Try again later")),
}

_BEARER = 'Bearer realm="sandbox"'
STANDARD_API: Mapping[str, Said] = {
    "missing": Said(401, rfc6749("missing_token", "No bearer token"), {"WWW-Authenticate": _BEARER}),
    **{
        fault: Said(
            401,
            rfc6749("invalid_token", f"The access token {text}"),
            {
                "WWW-Authenticate": f'{_BEARER}, error="invalid_token", error_description="The access token {text}"'
            },
        )
        for fault, text in (("invalid", "is unknown"), ("expired", "expired"), ("revoked", "was revoked"))
    },
    "scope": Said(
        403,
        {"error": "insufficient_scope", "scope": "{scope}"},
        {"WWW-Authenticate": _BEARER + ', error="insufficient_scope", scope="{scope}"'},
    ),
    "rate": Said(429, {"error": "rate_limited"}),
    "down": Said(500, {"error": "server_error"}),
}


_IDENTITY = frozenset(
    {"openid", "email", "profile", "offline_access", "refresh_token", "oauth", "id", "address", "phone"}
)


@dataclass(frozen=True, slots=True)
class Dialect:
    """One provider's ways. `repeats_refresh`: a refresh answer repeats an unspent refresh token; `offline` says
    whether a request earns a refresh token, from its query, its scopes and whether it is the first consent.
    `revocation`: an authenticated client, whoever has the token, the token itself as a bearer, or GitHub's DELETE.
    `tells_refresh_expiry`: seconds told as refresh_token_expires_in; 0: only where the grant has an end."""

    name: str
    kind: str = "user"
    access_prefixes: Mapping[str, str] = field(default_factory=lambda: {"user": "sbx_at_"})
    refresh_prefix: str = "sbx_rt_"
    access_life: float = 3600
    rotate: bool = True
    repeats_refresh: bool = False
    revoke_family_on_reuse: bool = False
    revoke_old_access: bool = False
    refuse_parallel: bool = False
    max_grants: int = 0
    tells_expiry: bool = True
    tells_refresh_expiry: int | None = None
    form_unless_json: bool = False
    any_scope: bool = True
    pkce: Literal["required", "optional", "refused"] = "optional"
    revocation: Literal["client", "anyone", "bearer", "basic_json"] = "client"
    asked_separator: str = " "
    granted_separator: str = " "
    errors: Mapping[str, Said] = field(default_factory=dict)
    api_errors: Mapping[str, Said] = field(default_factory=dict)
    api_answer: Callable[[Members], Members] = dict
    shape: Callable[[Members, Context], Members] = _plain
    expiring: Callable[[tuple[str, ...]], bool] = _always
    offline: Callable[[Mapping[str, str], tuple[str, ...], bool], bool] = _ask_always

    def error(self, code: str) -> Said:
        """The provider's words for one of our codes; an unknown code is said as RFC 6749 would."""
        said = self.errors.get(code) or STANDARD_ERRORS.get(code)
        return said or Said(400, rfc6749(code, "As the sandbox was told to say"))

    def api_error(self, fault: str) -> Said:
        """The provider's words for a fault of the API."""
        return self.api_errors.get(fault) or STANDARD_API[fault]

    def may(self, scopes: tuple[str, ...], power: str) -> bool:
        """Whether a token with `scopes` may `read` or `write`. Foreign scopes are read by their names."""
        if not self.any_scope:
            return power in scopes
        if self.name == "github-app":
            return True
        told = [one.lower() for one in scopes if one.lower() not in _IDENTITY]
        return (
            bool(told) if power == "read" else any("read" not in one and "history" not in one for one in told)
        )


STANDARD = Dialect("standard", revoke_family_on_reuse=True, any_scope=False, pkce="required")
