"""The clock: token lives are counted with it."""

from __future__ import annotations

from collections.abc import Iterator

from authproxy.doctor.case import Case, plural, some
from authproxy.doctor.check import check
from authproxy.doctor.finding import Certainty, Finding, error, warning

SLIGHT = 60  # seconds
GRAVE = 300


@check("D28", "The clock is not the provider's", "online")
def skew(case: Case) -> Iterator[Finding]:
    """The Date header of the provider's answers against this machine's clock."""
    for one in case.each():
        seen = case.seen.get(one.name)
        if seen is None or seen.skew is None or abs(seen.skew) < SLIGHT:
            continue
        grave = abs(seen.skew) >= GRAVE
        yield (error if grave else warning)(
            "D28",
            one.name,
            "The clock differs from the provider's",
            wrong=f"This machine's clock is {abs(seen.skew)} s {'ahead of' if seen.skew > 0 else 'behind'} the "
            "provider's.",
            why="Ends that are counted here are wrong by as much: tokens are refreshed late, and 401s come where none "
            "should; ID tokens and signed requests may be refused.",
            do="Let the machine keep its time (NTP).",
            sure=Certainty.LIKELY,
        )


@check("D28", "Instants that cannot be", "store")
def impossible(case: Case) -> Iterator[Finding]:
    """Stored instants that lie in the future, or tokens that end before they were obtained: the clock was moved, or
    the store was written by a machine with another time."""
    live = case.connections or ()
    future = [c for c in live if c.obtained_at > case.now + SLIGHT or c.consented_at > case.now + SLIGHT]
    if future:
        ahead = max(max(c.obtained_at, c.consented_at) for c in future) - case.now
        yield warning(
            "D28",
            None,
            "Tokens from the future",
            wrong=f"{plural(len(future), 'connection')} were obtained up to {ahead} s after now.",
            why="Another machine that writes to this store, or this one before, had a clock that is ahead: tokens are "
            "used beyond their end.",
            do="Let every machine on this store keep its time (NTP).",
            seen=some(future),
        )
    backward = [c for c in live if c.expires_at is not None and c.expires_at < c.obtained_at]
    if backward:
        yield warning(
            "D28",
            None,
            "Tokens that end before they began",
            wrong=f"{plural(len(backward), 'connection')} hold a token that ended before it was obtained.",
            why="The clock was set back in between, or the provider told an odd life: they are refreshed each time.",
            do="Let the machine keep its time (NTP).",
            sure=Certainty.LIKELY,
            seen=some(backward),
        )


CHECKS = (skew, impossible)
