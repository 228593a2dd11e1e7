"""What a command says: tables and sentences for people, JSON for machines, complaints on standard error."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

DONE: Final = 0
NOT_WELL: Final = 1
USAGE: Final = 2


class Stop(Exception):
    """Ends the command with lines on standard error and an exit code."""

    def __init__(self, *lines: str, code: int = USAGE) -> None:
        super().__init__(*lines)
        self.lines = lines
        self.code = code


def say(text: str = "") -> None:
    """A line on standard output."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def complain(text: str) -> None:
    """A line on standard error."""
    sys.stderr.write(f"authproxy: {text}\n")


def say_json(value: Any) -> None:
    """One JSON value on standard output: indented for a terminal, one line for a pipe."""
    say(json_text(value, indent=2 if sys.stdout.isatty() else None))


def json_text(value: Any, *, indent: int | None = None) -> str:
    """JSON in which all that would steer a terminal, or show as something else than it is, is escaped."""
    text = json.dumps(value, indent=indent, ensure_ascii=False)
    if text.replace("\n", "").isprintable():
        return text
    return "".join(one if one.isprintable() or one == "\n" else json.dumps(one)[1:-1] for one in text)


def table(names: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Columns as wide as they need to be; the last one is cut where the terminal ends."""
    body = [[plain(cell) for cell in row] for row in rows]
    widths = [
        max(len(name), *(len(row[i]) for row in body)) if body else len(name) for i, name in enumerate(names)
    ]
    limit = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    for row in [[name.upper() for name in names], *body]:
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        say(line if limit is None or len(line) <= limit else line[: limit - 1] + "…")


def facts(pairs: Mapping[str, str | None]) -> None:
    """Names and values below one another; what is None is left out."""
    known = {name: value for name, value in pairs.items() if value is not None}
    width = max((len(name) for name in known), default=0)
    for name, value in known.items():
        say(f"{name.ljust(width)}  {plain(value)}")


def status(text: str, passing: str = "") -> None:
    """A live line on a terminal: the next one replaces it, and "" takes it away. `passing` changes all the time."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\x1b[2K{text}{passing}")
        sys.stderr.flush()


def instant(at: int | None, *, unknown: str = "-") -> str:
    """An instant in UTC, to the second. What a provider or a typing error put beyond all calendars is said as such."""
    if at is None:
        return unknown
    try:
        return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
    except (ValueError, OverflowError, OSError):
        return "beyond all calendars"


def span(seconds: float) -> str:
    """A duration in its two largest units."""
    whole = int(abs(seconds))
    units = (("d", 86400), ("h", 3600), ("m", 60), ("s", 1))
    parts: list[str] = []
    for name, size in units:
        count, whole = divmod(whole, size)
        if count or (name == "s" and not parts):
            parts.append(f"{count}{name}")
    return " ".join(parts[:2])


def plain(cell: str) -> str:
    """Stored names come from outside: no control character of theirs reaches the terminal."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in cell)
