"""All grants of one client together: what fell at once, what fell in one tenant, and what is left."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from statistics import median

from authproxy.core.model import Connection, State
from authproxy.doctor.case import Case, days, on, plural, some
from authproxy.doctor.check import check
from authproxy.doctor.finding import Certainty, Finding, error, warning

HOUR = 3600
_DEAD = (State.NEEDS_REAUTH, State.ROTATION_LOST)
# What tells one customer's organisation from another's in the kept fields of an answer.
_TENANTS = ("instance_url", "team.id", "enterprise.id", "hub_id", "realm_id", "cloud_id", "sub_domain")


@check("D30", "Many grants fell at once: the client is to blame", "store")
def mass(case: Case) -> Iterator[Finding]:
    """Whether more than half of one client's grants, of several users, were found dead within one hour."""
    for one in case.each():
        by_client: dict[str, list[Connection]] = defaultdict(list)
        for c in case.at(one.name):
            by_client[c.client_id].append(c)
        for group in by_client.values():
            fallen = _worst_hour(case, [c for c in group if c.state in _DEAD and c.id in case.ended])
            if len({c.key.user for c in fallen}) < 2 or 2 * len(fallen) <= len(group):
                continue
            yield error(
                "D30",
                one.name,
                "Many grants fell within an hour",
                wrong=f"{len(fallen)} of {plural(len(group), 'grant')} of one client were found dead within an hour, "
                f"on {on(case.ended[fallen[0].id])}.",
                why="Users do not revoke at the same time. The client was changed, its secret replaced, the "
                "environment "
                "mixed up, or an administrator's policy ended them: those who connect again may fall again.",
                do="Look at the client before the users: `authproxy doctor --online` asks the provider about it, and "
                "`authproxy explain USER PROVIDER` says what it answered.",
                sure=Certainty.LIKELY,
                seen=some(fallen),
            )


def _worst_hour(case: Case, dead: list[Connection]) -> list[Connection]:
    dead = sorted(dead, key=lambda c: case.ended[c.id])
    first, best = 0, (0, 0)
    for last, c in enumerate(dead):
        while case.ended[c.id] - case.ended[dead[first].id] > HOUR:
            first += 1
        best = max(best, (last + 1 - first, first))
    return dead[best[1] : best[1] + best[0]]


@check(
    "D26",
    "One customer's grants live shorter than the others'",
    "store",
    leaves="policies that have not ended a grant yet cannot be seen",
)
def tenants(case: Case) -> Iterator[Finding]:
    """The lives of dead grants by customer organisation (Salesforce instance, Slack team, …): one whose grants all
    live less than a quarter of the others' has a stricter policy."""
    for one in case.each():
        lives: dict[str, list[int]] = defaultdict(list)
        shown: dict[str, list[Connection]] = defaultdict(list)
        for c in case.at(one.name):
            tenant = next((c.extra[name] for name in _TENANTS if name in c.extra), None)
            if tenant is None:
                continue
            dead = c.state in _DEAD and c.id in case.ended
            lives[tenant].append((case.ended[c.id] if dead else case.now) - c.consented_at)
            if dead:
                shown[tenant].append(c)
        for tenant, dead_here in shown.items():
            others = [life for name, those in lives.items() if name != tenant for life in those]
            mine = lives[tenant]
            if (
                len(dead_here) < 2
                or len(dead_here) < len(mine)
                or len(others) < 2
                or max(mine) * 4 >= median(others)
            ):
                continue
            yield warning(
                "D26",
                one.name,
                "One customer's policy is stricter",
                wrong=f"All {len(mine)} grants of {tenant} died within {days(max(mine))}; those of the others live for "
                f"{days(median(others))} and more.",
                why="An administrator there has set a shorter life for refresh tokens, or blocks the app: connecting "
                "again helps for as long as that.",
                do="Ask that customer's administrator about the app's policy.",
                sure=Certainty.LIKELY,
                seen=some(dead_here),
            )


@check("J13", "Nothing works although all looks well", "store")
def standing(case: Case) -> Iterator[Finding]:
    """Providers whose stored grants are all dead or waiting for the operator: liveness says nothing of it."""
    for one in case.each():
        known = case.at(one.name)
        if not known or any(c.state is State.ACTIVE for c in known):
            continue
        states = sorted({str(c.state).replace("_", " ") for c in known})
        yield warning(
            "J13",
            one.name,
            "No grant works",
            wrong=f"None of {plural(len(known), 'grant')} is active ({', '.join(states)}).",
            why="Every request of its routes is refused, while the process is healthy and ready.",
            do="`authproxy explain USER PROVIDER` says why for each; then let the users connect again.",
            seen=some(known),
        )


CHECKS = (mass, tenants, standing)
