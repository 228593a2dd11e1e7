"""Gmail's search language, written from arguments: what a caller gives is a word to find, never an operator."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from authproxy.tools.tool import Call

# what ends a word, groups words or is an operator where it stands
_SPECIAL = re.compile(r"[\s\"(){}<>]+")


def query_of(call: Call) -> str:
    """The search for `sender`, `recipient`, `subject`, `body` and `date_range`: all must match, of each any value."""
    clauses = [
        *(_any_of(operator, call.get(name) or ()) for operator, name in _OPERATORS.items()),
        _any_phrase(call.get("body") or ()),
    ]
    if call.get("date_range"):
        clauses.append(dates(call.input["date_range"], call.now))
    return " ".join(clause for clause in clauses if clause)


_OPERATORS = {"from": "sender", "to": "recipient", "subject": "subject"}


def _any_of(operator: str, values: Iterable[str]) -> str:
    """`operator:word` for each word of a value; several values are alternatives."""
    alternatives = []
    for value in values:
        words = [word for word in _SPECIAL.split(value) if word]
        if words:
            every = " ".join(f"{operator}:{word}" for word in words)
            alternatives.append(every if len(words) == 1 else f"({every})")
    if len(alternatives) == 1:
        return alternatives[0].strip("()")
    return f"({' OR '.join(alternatives)})" if alternatives else ""


def _any_phrase(values: Iterable[str]) -> str:
    phrases = [f'"{" ".join(value.replace(chr(34), " ").split())}"' for value in values if value.strip(' "')]
    return f"({' OR '.join(phrases)})" if len(phrases) > 1 else "".join(phrases)


def dates(name: str, now: int) -> str:
    """A named range as `after:` and `before:` with seconds, which mean the same in every time zone; days are UTC."""
    today = datetime.fromtimestamp(now, UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    month = today.replace(day=1)
    start, end = {
        "today": (today, None),
        "yesterday": (today - timedelta(days=1), today),
        "last_7_days": (today - timedelta(days=7), None),
        "last_30_days": (today - timedelta(days=30), None),
        "this_month": (month, None),
        "last_month": ((month - timedelta(days=1)).replace(day=1), month),
        "this_year": (month.replace(month=1), None),
    }[name]
    # `after:` leaves out the very second that it names
    after = f"after:{int(start.timestamp()) - 1}"
    return after if end is None else f"{after} before:{int(end.timestamp())}"


def both(query: str, clause: str) -> str:
    """Messages of a caller's query to which `clause` applies too."""
    plain = query.strip()
    alternatives = re.search(r"\bOR\b|[{|]", plain)
    return f"({plain}) {clause}".strip() if alternatives else f"{plain} {clause}".strip()
