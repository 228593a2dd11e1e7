"""What HubSpot says of a failure, in short words that hold nothing but what may be told."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, Final

from authproxy.tools.tool import Answer, Json, Kind, ToolError

LONGEST: Final = 200
_ABSENT: Final = frozenset({"OBJECT_NOT_FOUND", "crm.associations.NO_ASSOCIATIONS_FOUND"})
_SCOPE: Final = re.compile(r"[a-z0-9][a-z0-9._-]{1,60}")
_SCOPE_LISTS: Final = ("requiredGranularScopes", "requiredScopes", "missingScopes")

# Older parts of HubSpot quote the very access token in a message: "This oauth-token (CJ...) does not have ..."
_TOKENISH: Final = re.compile(r"\([A-Za-z0-9_\-+/=.~]{20,}\)|[A-Za-z0-9_\-+/=.~]{48,}")

DAILY: Final = "the day's requests of this account are used up; they start anew at midnight in its time zone"
_BURST: Final = "too many requests in ten seconds"
_SEARCHES: Final = "too many searches in one second"
_LIMITS: Final = {"DAILY": DAILY, "TEN_SECONDLY_ROLLING": _BURST, "SECONDLY": _SEARCHES}

PAUSES: Final = {_BURST: 10_000, _SEARCHES: 1_000}
"""Milliseconds to wait, by what is said of a limit: HubSpot itself seldom sends Retry-After."""


def error_words(status: int, body: Json) -> str | None:
    """What a failed request's body says, for a model: at most 200 characters, without tokens or ids of requests."""
    if not isinstance(body, dict):
        return None
    if status == 429:
        return _LIMITS.get(str(body.get("policyName")), _BURST)
    if status in (401, 403):
        return _permission(body)
    words = "; ".join(dict.fromkeys(_said(body)))
    return trimmed(words) or None


def read_failure(answer: Answer) -> ToolError | None:
    """The failure within a 2xx answer: `status: error`, or a batch of which nothing succeeded.

    A 207 that only says of some objects that they are not there, or have no associations, is no failure.
    """
    body = answer.json
    if not isinstance(body, dict):
        return None
    errors = [row for row in body.get("errors") or () if isinstance(row, dict)]
    whole = body.get("status") == "error"
    batch = answer.status == 207 and not body.get("results") and any(not _absent(row) for row in errors)
    if not whole and not batch:
        return None
    words = error_words(400, body if whole else {"errors": [row for row in errors if not _absent(row)]})
    return ToolError(
        Kind.BAD_REQUEST,
        f"HubSpot did not do it: {words}" if words else "HubSpot did not do it.",
        developer_message=f"HTTP {answer.status} with an error in its body.",
        status=answer.status,
    )


def trimmed(words: str) -> str:
    """`words` in one line without what looks like a token, at most 200 characters."""
    words = _TOKENISH.sub("…", " ".join(words.split()))
    return words if len(words) <= LONGEST else words[: LONGEST - 1].rstrip() + "…"


def _absent(error: dict[str, Any]) -> bool:
    return error.get("category") in _ABSENT or error.get("subCategory") in _ABSENT


def _permission(body: dict[str, Any]) -> str | None:
    """Composed, never quoted: these messages may hold the token."""
    scopes = list(dict.fromkeys(_scopes(body)))
    if scopes:
        return trimmed(
            f"the connection lacks one of {', '.join(scopes[:6])}, or the account has no such feature"
        )
    if body.get("category") == "MISSING_SCOPES":
        return "the connection lacks a scope for this, or the account has no such feature"
    return None


def _scopes(body: dict[str, Any]) -> Iterator[str]:
    rows = [body, *(row for row in body.get("errors") or () if isinstance(row, dict))]
    for row in rows:
        held = row.get("context")
        context: dict[str, Any] = held if isinstance(held, dict) else {}
        for name in _SCOPE_LISTS:
            listed = context.get(name)
            for scope in listed if isinstance(listed, list) else ():
                if isinstance(scope, str) and _SCOPE.fullmatch(scope):
                    yield scope


def _said(body: dict[str, Any]) -> Iterator[str]:
    message = body.get("message")
    details = [row["message"] for row in body.get("errors") or () if _has_message(row)]
    if isinstance(message, str):
        yield from _unfolded(message)
    for detail in details:
        yield from _unfolded(detail)


def _has_message(row: object) -> bool:
    return isinstance(row, dict) and isinstance(row.get("message"), str)


def _unfolded(message: str) -> Iterator[str]:
    """A message, or the messages that HubSpot packs into one as JSON: 'Property values were not valid: [{...}]'."""
    _, bracket, tail = message.partition("[{")
    try:
        rows = json.loads(bracket + tail) if bracket else []
    except ValueError:
        rows = []
    inner = [row for row in rows if _has_message(row)] if isinstance(rows, list) else []
    for row in inner:
        name = row.get("name")
        yield f"{name}: {row['message']}" if isinstance(name, str) else row["message"]
    if not inner:
        yield message
