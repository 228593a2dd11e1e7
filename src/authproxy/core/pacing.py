"""What a resource API's answer says about when to come back: read from its fields, by the provider's data.

A status alone asks for nothing: without a time that is told, nothing is kept back (D11).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from email.utils import mktime_tz, parsedate_tz
from typing import NamedTuple

from authproxy.core.facts import Pacing
from authproxy.core.message import values_of

_number = re.compile(rb"[0-9]{1,15}(?:\.[0-9]{1,9})?").fullmatch
_stamp = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]{5,18}(?:Z|[+-][0-9:]{4,5})").fullmatch
# A reset is told in seconds, or as an instant in seconds or milliseconds; no other reading of the number makes sense.
_INSTANT, _MILLISECONDS = 1e8, 1e11

Fields = Sequence[tuple[bytes, bytes]]


class Asked(NamedTuple):
    """To be left alone for so many seconds, by the user's requests or by those of the whole app."""

    seconds: float
    app: bool


def pause_asked(pacing: Pacing, status: int, fields: Fields, now: float) -> Asked | None:
    """What this answer asks for, `now` being the time since the epoch; None where it asks for no pause."""
    if status not in pacing.statuses:
        return None
    # Instants are compared with the server's own clock where it tells it: ours may differ (RFC 9110 §6.6.1).
    theirs = _date(_first(fields, b"date"))
    now = now if theirs is None else theirs
    seconds = _retry_after(_first(fields, b"retry-after"), now)
    if seconds is None and pacing.reset is not None:
        left = _first(fields, (pacing.remaining or "").encode("ascii"))
        # A 429 speaks for itself where nothing is said of what is left; any other status does not.
        if _is_zero(left) or (status == 429 and not left):
            seconds = _reset(_first(fields, pacing.reset.encode("ascii")), now)
    if seconds is None or seconds <= 0:
        return None
    app = pacing.scope == "app" or any(
        _first(fields, name.encode("ascii")).lower() == value.encode("ascii")
        for name, value in pacing.app_when.items()
    )
    return Asked(seconds, app)


def _retry_after(value: bytes, now: float) -> float | None:
    """RFC 9110 §10.2.3: seconds, or a date; some say an instant of ISO 8601."""
    if _number(value):
        return float(value)
    until = _date(value)
    return None if until is None else until - now


def _reset(value: bytes, now: float) -> float | None:
    if not _number(value):
        return None
    number = float(value)
    if number >= _MILLISECONDS:
        return number / 1000 - now
    return number - now if number >= _INSTANT else number


def _date(value: bytes) -> float | None:
    """An HTTP date in any of its three forms (RFC 9110 §5.6.7), or ISO 8601 with its zone; seconds since the epoch."""
    text = value.decode("latin-1")
    try:
        if _stamp(text):
            return datetime.fromisoformat(text).astimezone(UTC).timestamp()
        parts = parsedate_tz(text) if 8 < len(text) < 48 else None
        return None if parts is None else float(mktime_tz(parts))
    except (ValueError, OverflowError):
        return None


def _is_zero(value: bytes) -> bool:
    return _number(value) is not None and float(value) == 0


def _first(fields: Fields, name: bytes) -> bytes:
    """Empty where there is none."""
    values = values_of(fields, name) if name else []
    return values[0].strip(b" \t") if values else b""
