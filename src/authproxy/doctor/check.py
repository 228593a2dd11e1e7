"""A check: a pure function from a case to findings, with its code, its title and what it needs to know."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from inspect import getdoc
from typing import Literal

from authproxy.doctor.case import Case
from authproxy.doctor.finding import Finding

Need = Literal["store", "online", "against"]


@dataclass(frozen=True, slots=True)
class Check:
    """One function and what is said of it. `needs` are the sources beyond configuration and catalogue; `leaves` is
    what of this code it cannot decide."""

    code: str
    title: str
    looks: Callable[[Case], Iterable[Finding]]
    needs: tuple[Need, ...] = ()
    leaves: str | None = None

    def __call__(self, case: Case) -> Iterator[Finding]:
        """The findings in this case."""
        return iter(self.looks(case))

    @property
    def looks_at(self) -> str:
        """The function's own sentences."""
        return " ".join((getdoc(self.looks) or "").split())

    def missing(self, case: Case) -> tuple[Need, ...]:
        """Which of its sources this case does not have."""
        has = {
            "store": case.connections is not None,
            "online": bool(case.seen),
            "against": case.other is not None,
        }
        return tuple(need for need in self.needs if not has[need])


def check(
    code: str, title: str, *needs: Need, leaves: str | None = None
) -> Callable[[Callable[[Case], Iterable[Finding]]], Check]:
    """Make a check of a function; its docstring is what `doctor --explain` prints."""
    return lambda looks: Check(code, title, looks, needs, leaves)
