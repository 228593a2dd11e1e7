"""Findings about users who are disabled, and what of theirs still lives at the providers."""

from __future__ import annotations

from collections.abc import Iterator

from authproxy.core.model import State
from authproxy.doctor.case import Case, plural, some
from authproxy.doctor.check import check
from authproxy.doctor.finding import Finding, info


@check("I10", "Grants of disabled users that still live", "store")
def kept(case: Case) -> Iterator[Finding]:
    """Connections that were kept when their users were disabled: refused here, and good at the provider (I10)."""
    for one in case.each():
        found = [c for c in case.at(one.name, State.ACTIVE, State.MISCONFIGURED) if case.kept(c)]
        if found:
            yield info(
                "I10",
                one.name,
                "Grants of disabled users still live",
                wrong=f"{plural(len(found), 'grant')} of disabled users were kept (--keep-grants).",
                why="Nobody is served with them, and the provider goes on taking their tokens; nothing refreshes them, "
                "so that some providers end them in time.",
                do="If these users do not come back, end them too: authproxy users disable USER.",
                seen=some(found),
            )


CHECKS = (kept,)
