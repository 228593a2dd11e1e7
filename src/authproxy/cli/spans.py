"""Durations and instants as people type them: `90d`, `1h30m`, `2026-03-01`, `2026-03-01T12:00Z`."""

from __future__ import annotations

import argparse
import re
from datetime import UTC, datetime

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_SPAN = re.compile(r"(?:\d{1,6}[smhdw])+")


def seconds(text: str) -> int:
    """A duration."""
    if not _SPAN.fullmatch(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no duration: write 90d, 12h, 30m or 1h30m")
    return sum(int(number) * _UNITS[unit] for number, unit in re.findall(r"(\d+)([smhdw])", text))


def instant(text: str, now: int) -> int:
    """An instant: a duration ago, or an ISO date, in UTC where it does not say."""
    if _SPAN.fullmatch(text):
        return now - seconds(text)
    try:
        read = datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is neither a duration (1h, 7d) nor an ISO date") from None
    return int((read if read.tzinfo is not None else read.replace(tzinfo=UTC)).timestamp())
