"""Salesforce's query languages without a way to break out of them: ids, texts, dates and numbers as literals."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from decimal import Decimal

from authproxy.tools.tool import Call, bad_input

MOST_OFFSET = 2000  # Salesforce's own bound for OFFSET
MOST_WORDS = 8
_LONGEST_WORD = 40
_LONGEST_TEXT = 255  # queries stand in URLs, of which Salesforce takes 16 KB

_ID = re.compile(r"[A-Za-z0-9]{15}(?:[A-Za-z0-9]{3})?")
_IDENTIFIER = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,79}")
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")
_BLANKS = re.compile(r"[\s\x00-\x1f\x7f\u2028\u2029]+")
_RESERVED = re.compile(r"([?&|!{}\[\]()^~*:\\\"'+-])")

_PREFIXES = {
    "account": "001",
    "contact": "003",
    "user": "005",
    "opportunity": "006",
    "lead": "00Q",
    "task": "00T",
}


def record_id(call: Call, parameter: str, *kinds: str) -> str | None:
    """The argument as an id of one of `kinds`, or None where it is not given. Raises ToolError for anything else."""
    given = call.get(parameter)
    if given is None:
        return None
    identifier = given.strip()
    if not is_id(identifier):
        raise bad_input(
            f"{parameter} must be a Salesforce id: 15 or 18 letters and digits.",
            hint="Look the record up by its name first; the results of searches tell ids.",
        )
    if kinds and identifier[:3] not in {_PREFIXES[kind] for kind in kinds}:
        wanted = " or ".join(f"{kind} ({_PREFIXES[kind]}…)" for kind in kinds)
        others = [kind for kind, prefix in _PREFIXES.items() if identifier.startswith(prefix)]
        told = f"an id of {_article(others[0])}" if others else "an id of something else"
        raise bad_input(f"{parameter} must be the id of {_article(wanted)}; this is {told}.")
    return str(identifier)


def needed_id(call: Call, parameter: str, *kinds: str) -> str:
    """The same for an argument that is required."""
    identifier = record_id(call, parameter, *kinds)
    if identifier is None:
        raise bad_input(f"{parameter} is required.")
    return identifier


def is_id(text: str) -> bool:
    """Whether this is written as Salesforce's ids are."""
    return _ID.fullmatch(text) is not None


def is_identifier(text: str) -> bool:
    """Whether this can be the API name of an object or a field."""
    return _IDENTIFIER.fullmatch(text) is not None


def quoted(text: str) -> str:
    """A text as a literal of SOQL."""
    return f"'{_escaped(plain(text))}'"


def contains(text: str) -> str:
    """A pattern for LIKE that finds the text anywhere, its % and _ being just characters."""
    found = _escaped(plain(text)).replace("%", r"\%").replace("_", r"\_")
    return f"'%{found}%'"


def any_of(values: Iterable[str]) -> str:
    """What stands behind IN."""
    return f"({', '.join(quoted(value) for value in values)})"


def search_term(text: str) -> str:
    """What stands between the braces of SOSL's FIND, its operators being just characters."""
    term = plain(text)
    if len(term) < 2:
        raise bad_input("query must have at least two characters.")
    if len(term) > 200:
        raise bad_input("query must have at most 200 characters.")
    return _RESERVED.sub(r"\\\1", term)


def matches(query: str | None, *fields: str) -> list[str]:
    """Conditions that each word of the query stands in one of the fields."""
    words = plain(query or "").split()
    if len(words) > MOST_WORDS or any(len(word) > _LONGEST_WORD for word in words):
        raise bad_input(f"query must have at most {MOST_WORDS} words: fewer find more.")
    return [f"({' OR '.join(f'{field} LIKE {contains(word)}' for field in fields)})" for word in words]


def select(columns: str, source: str, *conditions: str | None, order: str = "", end: str = "") -> str:
    """A query: names are ours, and every value in a condition is one of the literals above."""
    given = [condition for condition in conditions if condition]
    words = ["SELECT", columns, "FROM", source]
    words += ["WHERE", " AND ".join(given)] if given else []
    words += ["ORDER BY", order] if order else []
    return " ".join([*words, end] if end else words)


def day(call: Call, parameter: str) -> str | None:
    """The argument as a day (YYYY-MM-DD), which SOQL takes without quotes, or None where it is not given."""
    given = call.get(parameter)
    if given is None:
        return None
    told = given.strip()
    try:
        if _DATE.fullmatch(told) and told.isascii():
            return date.fromisoformat(told).isoformat()
    except ValueError:
        pass  # a day that no month has: told below, like everything else that is no day
    raise bad_input(f"{parameter} must be a day written YYYY-MM-DD.")


def number(value: float) -> str:
    """A number as a literal: never with an exponent, which SOQL does not take everywhere."""
    return format(Decimal(str(value)), "f")


def plain(text: str) -> str:
    """A text on one line, without control characters, and not without end."""
    return _BLANKS.sub(" ", text).strip()[:_LONGEST_TEXT]


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("'", "\\'")


def _article(word: str) -> str:
    return f"an {word}" if word[0] in "aeiou" else f"a {word}"


@dataclass(frozen=True, slots=True)
class Page:
    """Which part of the results is asked for. One more than `limit` is fetched, to know whether there is more."""

    limit: int
    number: int

    @property
    def offset(self) -> int:
        return (self.number - 1) * self.limit

    @property
    def clause(self) -> str:
        start = f" OFFSET {self.offset}" if self.offset else ""
        return f"LIMIT {self.limit + 1}{start}"


def page_of(call: Call, most: int) -> Page:
    """The arguments `limit` and `page`."""
    limit, number = int(call.get("limit", most)), int(call.get("page", 1))
    if limit < 1 or number < 1:
        raise bad_input(f"limit must be between 1 and {most}, and page at least 1.")
    page = Page(min(limit, most), number)
    if page.offset > MOST_OFFSET:
        raise bad_input(f"Salesforce pages over {MOST_OFFSET} results only: narrow the search instead.")
    return page
