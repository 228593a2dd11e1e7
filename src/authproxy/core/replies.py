"""Reads the token endpoint's answer: a token set that may be kept, or a failure that says who must act."""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from email.utils import mktime_tz, parsedate_tz
from types import MappingProxyType
from typing import Any

from authproxy.core.evidence import Evidence, gather, read_document
from authproxy.core.facts import Row
from authproxy.core.model import EMPTY, TokenSet
from authproxy.core.providers import Provider
from authproxy.core.secret import Secret
from authproxy.core.verdicts import TokenFailure, Verdict, failure

YEAR = 365 * 86400
DECADE = 10 * YEAR
MAX_TOKEN = 16 * 1024
MAX_WAIT = 3600

_BEARABLE = re.compile(
    r"[!-~]+"
)  # what may stand in a header without ending it, and more than any provider uses
_SCOPE = re.compile(r"[!#-\[\]-~]{1,512}")  # RFC 6749 section 3.3
_PLAIN = re.compile(r"[ -~]{1,512}")
_NUMBER = re.compile(r"[+-]?[0-9]{1,18}(?:\.[0-9]{1,18})?")
# A code that nobody documented is shown only if it cannot be a token: words, no digits, not long.
_WORDS = re.compile(r"[A-Za-z]{1,32}(?:[_.-][A-Za-z]{1,32}){0,6}")
_STANDARD = frozenset(
    {"invalid_request", "invalid_client", "invalid_grant", "unauthorized_client", "unsupported_grant_type"}
    | {"invalid_scope", "invalid_target", "invalid_token", "access_denied", "unsupported_response_type"}
    | {"interaction_required", "login_required", "consent_required", "account_selection_required"}
    | {"server_error", "temporarily_unavailable", "slow_down", "authorization_pending"}
    | {"invalid_rapt", "rapt_required"}
)
_AADSTS = re.compile(r"AADSTS[0-9]{4,8}")

_RETRY_STATUSES = frozenset({408, 425, 429})
_RETRY_CODES = frozenset(
    {"temporarily_unavailable", "server_error", "slow_down", "authorization_pending", "rate_limited"}
)
# The server itself says that it did nothing; and that it broke off, which may be after it did (A23).
_DECLINING = (_RETRY_CODES - {"server_error"}) | {"service_unavailable"}
_BROKEN_OFF = frozenset(
    {"server_error", "internal_failure", "internal_error", "fatal_error", "request_timeout"}
)
_USER_CODES = frozenset(
    {
        "access_denied",
        "login_required",
        "consent_required",
        "interaction_required",
        "account_selection_required",
    }
)
_CLIENT_CODES = frozenset({"invalid_client", "unauthorized_client"})


def read_token_reply(
    provider: Provider,
    *,
    status: int,
    content_type: str,
    body: bytes,
    retry_after: str | None,
    now: int,
    previous: TokenSet | None,
    requested: Sequence[str] = (),
) -> TokenSet | TokenFailure:
    """What the answer to a token request means; never raises, whatever the bytes.

    `previous` is what the refresh was made with: what the answer leaves out stays as it was. `requested` are the
    scopes asked for at consent, which an answer without `scope` confirms (RFC 6749 section 5.1).
    """
    document = read_document(content_type, body)
    fields = _token_fields(provider, status, document)
    if fields is not None:
        return _accepted(provider, document, fields, now, previous, requested)
    return _refused(provider, status, document, _wait(retry_after, now))


def _token_fields(provider: Provider, status: int, document: Any) -> Mapping[str, Any] | None:
    """The part of the answer that holds an access token, or None where it is no success."""
    if not isinstance(document, dict) or document.get("error") or _not_ok(provider, document):
        return None
    for place in provider.facts.answer.token_at:
        fields = _at(document, place) if place else document
        if not isinstance(fields, dict) or _blank(fields.get("access_token")):
            continue
        # A rate-limited answer may still carry the new pair (B10): lose neither it nor our suspicion.
        if 200 <= status < 300 or fields.get("refresh_token") or fields.get("expires_in"):
            return fields
    return None


def _blank(value: Any) -> bool:
    return value is None or (isinstance(value, str) and not value.strip())


def _not_ok(provider: Provider, document: Mapping[str, Any]) -> bool:
    flag = provider.facts.answer.ok_field
    return flag is not None and document.get(flag) is False


def _accepted(
    provider: Provider,
    document: Mapping[str, Any],
    fields: Mapping[str, Any],
    now: int,
    previous: TokenSet | None,
    requested: Sequence[str],
) -> TokenSet | TokenFailure:
    renewed = fields.get("refresh_token")
    fresh = isinstance(renewed, str) and not _blank(renewed)
    refresh = _token(renewed) if fresh else None
    kind = fields.get("token_type")
    if kind is not None and str(kind).strip().lower() not in ("", *provider.facts.answer.token_types):
        return failure(Verdict.MISCONFIGURED, "token_type_unsupported", "token_type", rescued=refresh)
    access = _token(fields["access_token"])
    if access is None or (fresh and refresh is None):
        return failure(
            Verdict.TRANSIENT, "malformed_token", "malformed_token", doubtful=True, rescued=refresh
        )
    if refresh is None and previous is not None:
        refresh = previous.refresh_token
    lifetime = _lifetime(fields.get("expires_in"), previous)
    life = _assumed(provider) if lifetime is None else lifetime
    return TokenSet(
        access_token=access,
        refresh_token=refresh,
        expires_at=now + life if life else None,
        lifetime=lifetime or None,
        refresh_expires_at=_refresh_expiry(fields, now, previous, fresh=fresh),
        scopes=_granted(provider, fields, previous, requested),
        extra=_extra(provider, document, previous),
    )


def _token(value: Any) -> Secret | None:
    """A token that can stand in a header field: one that cannot would be quoted by whatever chokes on it (F04)."""
    if not isinstance(value, str) or len(value) > MAX_TOKEN or not _BEARABLE.fullmatch(value):
        return None
    return Secret(value)


def _seconds(value: Any) -> int | None:
    """A number, or a string that is one; anything else is missing (B13)."""
    if isinstance(value, str) and _NUMBER.fullmatch(value.strip()):
        value = float(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value:
        return None
    return int(max(-1, min(value, DECADE)))


def _lifetime(value: Any, previous: TokenSet | None) -> int | None:
    """The access token's life as told, now or last time (B12). 0: usable now, and only a 401 will tell, whether
    the provider meant "never expires" or "expired already" (B13). None: nothing was ever told."""
    told = _seconds(value)
    if told is None:
        return previous.lifetime if previous is not None else None
    return max(0, min(told, YEAR))


def _assumed(provider: Provider) -> int | None:
    """The life to assume where nothing was told: as configured, else as usual where the provider always has one."""
    usual = provider.facts.access_token.lifetime if provider.facts.answer.expires_in == "always" else None
    return provider.token_lifetime or (usual if isinstance(usual, int) else None)


def _refresh_expiry(
    fields: Mapping[str, Any], now: int, previous: TokenSet | None, *, fresh: bool
) -> int | None:
    """When the refresh token ends; zero means unknown, not never (B15)."""
    for name in ("refresh_token_expires_in", "refresh_expires_in", "x_refresh_token_expires_in"):
        told = _seconds(fields.get(name))
        if told is not None and told > 0:
            return now + told
    return previous.refresh_expires_at if previous is not None and not fresh else None


def _granted(
    provider: Provider, fields: Mapping[str, Any], previous: TokenSet | None, requested: Sequence[str]
) -> tuple[str, ...]:
    """The granted scopes in whatever form they come: text with spaces or commas, or a list."""
    known = previous.scopes if previous is not None else tuple(requested)
    if not provider.facts.answer.scopes_reported:
        return known
    for name in provider.facts.answer.scope_fields:
        told = fields.get(name)
        words = told if isinstance(told, list) else re.split(r"[\s,]+", told) if isinstance(told, str) else ()
        scopes = [word for word in words if isinstance(word, str) and _SCOPE.fullmatch(word)]
        if scopes:
            return tuple(dict.fromkeys(scopes))
    return known


def _extra(provider: Provider, document: Mapping[str, Any], previous: TokenSet | None) -> Mapping[str, str]:
    """The fields that are kept with the grant, flat: `{"team.id": …}`; what is not repeated stays (B23)."""
    kept = dict(previous.extra) if previous is not None else {}
    for path in provider.facts.answer.extra:
        text = _short(_at(document, path))
        if text is not None:
            kept[path] = text
    subject = _short(_claims(document.get("id_token")).get("sub"))
    if subject is not None:
        kept["sub"] = subject
    return MappingProxyType(kept) if kept else EMPTY


def _short(value: Any) -> str | None:
    if isinstance(value, bool):
        return str(value).lower()
    text = str(value) if isinstance(value, str | int) else ""
    return text if _PLAIN.fullmatch(text) else None


def _claims(id_token: Any) -> Mapping[str, Any]:
    """The claims of an ID token that came straight from the token endpoint, where TLS stands for its signature
    (OpenID Connect Core 3.1.3.7, 6)."""
    parts = id_token.split(".") if isinstance(id_token, str) and len(id_token) <= 2 * MAX_TOKEN else []
    if len(parts) != 3:
        return EMPTY
    try:
        claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except (ValueError, binascii.Error, RecursionError):
        return EMPTY
    return claims if isinstance(claims, dict) else EMPTY


def _at(document: Any, path: str) -> Any:
    for key in path.split("."):
        document = document.get(key) if isinstance(document, dict) else None
    return document


def _refused(provider: Provider, status: int, document: Any, wait: int | None) -> TokenFailure:
    """Sorts a refusal in the order that spares grants: what may pass, what the operator must mend, what is dead."""
    evidence = gather(status, document)
    code, detail = _shown(provider, evidence), _detail(provider, evidence)
    errors = provider.facts.token_errors
    passing = _row(errors.transient, evidence)
    if (
        passing
        or status in _RETRY_STATUSES
        or status >= 500
        or not _RETRY_CODES.isdisjoint(evidence.codes[:1])
    ):
        limited = "rate_limited" if status == 429 else None
        reason = (passing.reason if passing else None) or limited
        # A 5xx may come from a gateway, when the server behind it has done its work (A09).
        done = status >= 500 and _DECLINING.isdisjoint(evidence.codes)
        return failure(
            Verdict.TRANSIENT,
            code or f"http_{status}",
            reason,
            retry_after=wait,
            detail=detail,
            doubtful=done or not _BROKEN_OFF.isdisjoint(evidence.codes),
        )
    if document is None or not 200 <= status < 500 or 300 <= status < 400:
        said = 200 <= status < 300  # that it was done
        return failure(Verdict.TRANSIENT, "not_json", "unreadable", retry_after=wait, doubtful=said)
    if (row := _row(errors.misconfigured, evidence)) is not None:
        return failure(Verdict.MISCONFIGURED, code or f"http_{status}", row.reason, detail=detail)
    if (row := _row(errors.dead, evidence)) is not None or evidence.codes[:1] == ("invalid_grant",):
        reason = (row.reason if row else None) or "unknown"
        reason = provider.reasons.get(reason, reason)
        return failure(Verdict.DEAD, code or "invalid_grant", reason, detail=detail)
    if status < 300 and not (isinstance(document, dict) and document.get("error")):
        return failure(Verdict.TRANSIENT, "empty_answer", "empty", retry_after=wait, doubtful=True)
    reason = "client_credentials" if _CLIENT_CODES & set(evidence.codes[:1]) else None
    return failure(Verdict.MISCONFIGURED, code or f"http_{status}", reason, detail=detail)


def read_denial(provider: Provider, error: str, description: str = "") -> TokenFailure:
    """What an error at the authorization endpoint means: the callback's `error` and `error_description`."""
    evidence = gather(0, {"error": error[:256], "error_description": description[:4096]})
    code = _shown(provider, evidence) or "error"
    # the page's status is the browser's; a redirect has none
    rows = [replace(row, status=()) for row in provider.facts.authorize_errors]
    if (row := _row(rows, evidence)) is not None:
        return failure(Verdict.DEAD if row.reason == "refused" else Verdict.MISCONFIGURED, code, row.reason)
    if code in _RETRY_CODES:
        return failure(Verdict.TRANSIENT, code)
    if code in _USER_CODES:
        return failure(Verdict.DEAD, code, "refused" if code == "access_denied" else "interaction_required")
    return failure(Verdict.MISCONFIGURED, code)


def _row(rows: Sequence[Row], evidence: Evidence) -> Row | None:
    return next((row for row in rows if evidence.shows(row)), None)


def _documented(provider: Provider) -> set[str]:
    errors = provider.facts.token_errors
    rows = (*errors.transient, *errors.misconfigured, *errors.dead, *provider.facts.authorize_errors)
    return {code for row in rows for code in (*row.code, *row.subcode)}


def _shown(provider: Provider, evidence: Evidence) -> str | None:
    """The provider's own code, if it may be shown: a server can put anything into `error`, a token too (F03)."""
    documented = _documented(provider) | _STANDARD
    for code in evidence.codes:
        if code in documented:
            return code
    return next((c for c in evidence.codes if len(c) <= 64 and _WORDS.fullmatch(c) and not c.isdigit()), None)


def _detail(provider: Provider, evidence: Evidence) -> str | None:
    documented = _documented(provider) | _STANDARD
    return next((c for c in evidence.subcodes if c in documented or _AADSTS.fullmatch(c)), None)


def _wait(retry_after: str | None, now: int) -> int | None:
    """Retry-After as seconds from now, within 1 s and an hour; None where it is absent or makes no sense."""
    text = (retry_after or "").strip()
    if re.fullmatch(r"[+-]?[0-9]{1,18}", text):
        return max(1, min(int(text), MAX_WAIT))
    try:
        moment = parsedate_tz(text)
        seconds = mktime_tz(moment) - now if moment is not None else None
    except (ValueError, IndexError, TypeError, OverflowError):
        return None
    return None if seconds is None else max(1, min(seconds, MAX_WAIT))
