"""What the doctor says: what is wrong, why it will hurt and when, what to do, and how sure it is."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class Severity(StrEnum):
    """An error will stop users or lose grants; a warning will, in some course of events; an info is worth knowing."""

    ERROR = "error"
    WARNING = "warning"
    INFO = "info"


class Certainty(StrEnum):
    """How sure a finding is: seen as it is, concluded from documented rules, or only one of several explanations."""

    CERTAIN = "certain"
    LIKELY = "likely"
    POSSIBLE = "possible"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing found. `provider` None: it is about the whole. No field ever holds a secret."""

    code: str
    severity: Severity
    provider: str | None
    title: str
    wrong: str
    why: str
    do: str
    sure: Certainty = Certainty.CERTAIN
    evidence: tuple[str, ...] = ()


def error(
    code: str,
    provider: str | None,
    title: str,
    *,
    wrong: str,
    why: str,
    do: str,
    sure: Certainty = Certainty.CERTAIN,
    seen: Iterable[str] = (),
) -> Finding:
    """What will stop users or lose grants."""
    return Finding(code, Severity.ERROR, provider, title, wrong, why, do, sure, tuple(seen))


def warning(
    code: str,
    provider: str | None,
    title: str,
    *,
    wrong: str,
    why: str,
    do: str,
    sure: Certainty = Certainty.CERTAIN,
    seen: Iterable[str] = (),
) -> Finding:
    """What will hurt in some course of events."""
    return Finding(code, Severity.WARNING, provider, title, wrong, why, do, sure, tuple(seen))


def info(
    code: str,
    provider: str | None,
    title: str,
    *,
    wrong: str,
    why: str,
    do: str,
    sure: Certainty = Certainty.CERTAIN,
    seen: Iterable[str] = (),
) -> Finding:
    """What is worth knowing."""
    return Finding(code, Severity.INFO, provider, title, wrong, why, do, sure, tuple(seen))
