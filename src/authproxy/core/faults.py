"""What is wrong with a configuration: where, what, and how bad."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, NamedTuple

Severity = Literal["error", "warning"]


class Fault(NamedTuple):
    """One finding. `path` is the key's path (`routes.gmail.allow[0].methods`); no message holds a value."""

    file: str
    line: int
    path: str
    message: str
    severity: Severity = "error"

    def __str__(self) -> str:
        """As a compiler would say it."""
        where = f"{self.file}:{self.line}: {self.severity}: "
        return f"{where}{self.path}: {self.message}" if self.path else where + self.message


class Finding(NamedTuple):
    """What is wrong at a key's path, before its line is known."""

    path: str
    message: str
    severity: Severity = "error"


class ConfigFaults(Exception):
    """The configuration cannot be used. `faults` has all of them, warnings included, in the file's order."""

    def __init__(self, faults: Iterable[Fault]) -> None:
        self.faults = tuple(sorted(faults, key=lambda fault: (fault.line, fault.path)))
        super().__init__("\n".join(map(str, self.faults)))


def near(word: str, words: Iterable[str]) -> str:
    """` (did you mean …?)`, or nothing. The word itself is not repeated."""
    from difflib import get_close_matches  # loaded where something is misspelt

    known = list(words)
    begun = [each for each in known if len(word) > 2 and each.startswith(word)]
    close = begun or get_close_matches(word[:64], known, 1, 0.6)
    return f" (did you mean `{close[0]}`?)" if close else ""
