"""The figures of a run: kept by measure, contender and round, compared round by round, written as JSON."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path


@dataclass
class Results:
    """`figures` is by measure, contender and figure's name, a value for each round; `grown` by size.

    `absent` says what would bring a contender here, `faults` what went wrong instead of a figure.
    """

    facts: dict[str, str]
    rounds: int
    seconds: int
    figures: dict[str, dict[str, dict[str, list[float]]]] = field(default_factory=dict)
    grown: dict[str, list[float]] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)

    def add(self, measure: str, contender: str, figures: Mapping[str, float]) -> None:
        """One round's figures."""
        kept = self.figures.setdefault(measure, {}).setdefault(contender, {})
        for name, value in figures.items():
            kept.setdefault(name, []).append(value)

    def values(self, measure: str, contender: str, name: str) -> list[float]:
        """All rounds of one figure; empty where it was not measured."""
        return self.figures.get(measure, {}).get(contender, {}).get(name, [])

    def added(self, measure: str, contender: str, name: str) -> list[float]:
        """The figure less the direct call's of the same round."""
        direct = self.values(measure, "direct", name)
        return [
            ours - base for ours, base in zip(self.values(measure, contender, name), direct, strict=False)
        ]

    def ratio(self, measure: str, name: str, other: str) -> float | None:
        """authproxy's figure over another's: the median of the rounds' ratios, since a round shares its weather."""
        return over(self.values(measure, "authproxy", name), self.values(measure, other, name))

    def write(self, file: Path) -> None:
        """As JSON."""
        file.write_text(json.dumps(asdict(self), indent=1) + "\n")


def over(ours: list[float], theirs: list[float]) -> float | None:
    """The median of the rounds' ratios; None where there is none."""
    pairs = [a / b for a, b in zip(ours, theirs, strict=False) if b > 0]
    return statistics.median(pairs) if pairs else None


def median(values: list[float]) -> float | None:
    """The median; None of nothing."""
    return statistics.median(values) if values else None
