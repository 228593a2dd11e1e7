"""GitHub's failures in words: of REST bodies, and of GraphQL, which tells them in a 200."""

from __future__ import annotations

import re
from email.utils import parsedate_to_datetime
from typing import Any

from authproxy.tools.tool import Answer, Json, Kind, ToolError

WORDS = 200  # characters
_DOCUMENTATION = "https://docs.github.com/"
_KINDS = {
    "NOT_FOUND": Kind.NOT_FOUND,
    "FORBIDDEN": Kind.AUTH_ERROR,
    "INSUFFICIENT_SCOPES": Kind.AUTH_ERROR,
    "RATE_LIMITED": Kind.RATE_LIMIT,
    "RATE_LIMIT": Kind.RATE_LIMIT,
    "UNPROCESSABLE": Kind.VALIDATION_ERROR,
    "SERVICE_UNAVAILABLE": Kind.SERVER_ERROR,
    "INTERNAL": Kind.SERVER_ERROR,
}


def error_words(_status: int, json: Json) -> str | None:
    """GitHub's `message`, what its `errors` say of each field, and its page about it, in at most 200 characters."""
    if not isinstance(json, dict):
        return None
    message = json.get("message")
    parts = [message] if isinstance(message, str) else []
    errors = json.get("errors")
    if isinstance(errors, str):
        errors = [errors]
    if isinstance(errors, list):
        parts += [words for words in map(_of_field, errors[:5]) if words]
    text = _safe("; ".join(dict.fromkeys(parts)))
    page = json.get("documentation_url")
    if text and isinstance(page, str) and page.startswith(_DOCUMENTATION):
        whole = f"{text} ({_safe(page)})"
        text = whole if len(whole) <= WORDS else text
    return text[:WORDS] or None


def _of_field(error: Any) -> str | None:
    """`title: missing_field`, or its own message; never the value that was refused."""
    if isinstance(error, str):
        return error
    if not isinstance(error, dict):
        return None
    if isinstance(error.get("message"), str):
        return str(error["message"])
    where = ".".join(str(error[key]) for key in ("resource", "field") if isinstance(error.get(key), str))
    code = error.get("code")
    return f"{where}: {code}" if where and isinstance(code, str) else None


def _safe(text: str) -> str:
    return re.sub(r"[\x00-\x1f\x7f\s]+", " ", text).strip()


def read_failure(answer: Answer) -> ToolError | None:
    """The failure that a GraphQL answer is, where none of what was asked for came with its `errors`."""
    json = answer.json
    if not answer.fields.get("content-type", "application/json").startswith("application/json"):
        return None  # a file that was asked for as it is may say anything
    if not isinstance(json, dict) or not isinstance(json.get("errors"), list) or not json["errors"]:
        return None
    data = json.get("data")
    if isinstance(data, dict) and any(value is not None for value in data.values()):
        return None  # a part came: whoever asked for it knows whether it is the part that matters
    return graphql_failure(answer)


def graphql_failure(answer: Answer) -> ToolError:
    """The first of a GraphQL answer's `errors`."""
    errors = answer.json.get("errors") or [{}]
    first = errors[0] if isinstance(errors[0], dict) else {}
    words = first.get("message")
    kind = _KINDS.get(str(first.get("type")), Kind.BAD_REQUEST)
    limited = kind is Kind.RATE_LIMIT
    return ToolError(
        kind,
        _safe(words)[:WORDS] if isinstance(words, str) and words else "GitHub refused the request.",
        developer_message=f"GraphQL error of type {_safe(str(first.get('type')))[:40]}",
        can_retry=limited or kind is Kind.SERVER_ERROR,
        retry_after_ms=_pause(answer) if limited else None,
        status=answer.status,
    )


def _pause(answer: Answer) -> int | None:
    """Milliseconds until the limit is lifted, by GitHub's own clock."""
    after = answer.fields.get("retry-after", "")
    if after.isascii() and after.isdecimal():
        return int(after) * 1000
    reset, date = answer.fields.get("x-ratelimit-reset", ""), answer.fields.get("date", "")
    if not (reset.isascii() and reset.isdecimal() and date):
        return None
    try:
        return max(int(int(reset) - parsedate_to_datetime(date).timestamp()), 1) * 1000
    except ValueError:
        return None
