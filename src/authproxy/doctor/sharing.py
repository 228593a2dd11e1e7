"""One grant or one client in several places: replicas, stores, and caps on live tokens."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from authproxy.core.model import Connection, State
from authproxy.doctor.case import Case, Registration, plural, some
from authproxy.doctor.check import check
from authproxy.doctor.finding import Certainty, Finding, error, warning

NEAR = 0.8  # of a cap


@check(
    "D08",
    "Several processes on stores of their own",
    leaves="whether a second, unnamed deployment holds the same grants; name its store with --against-store",
)
def replicas(case: Case) -> Iterator[Finding]:
    """`replicas` against the kind of store: leases live in the store, so replicas with a SQLite file each refresh the
    same grant twice, or each know only their own users."""
    if case.config.replicas < 2 or case.store != "sqlite":
        return
    rotating = [
        one.name
        for one in case.each()
        if one.facts.refresh_token.rotation in ("always", "optional", "sometimes")
    ]
    yield error(
        "D08",
        None,
        "Replicas on a SQLite file",
        wrong=f"replicas is {case.config.replicas}, and the store is a SQLite file, which is one machine's.",
        why="Replicas on other machines have stores of their own: a user who connected at one is unknown at the "
        "others. "
        "If the file is copied, two of them spend the same refresh token, and the provider ends the grant"
        + (f" (rotating here: {', '.join(rotating)})." if rotating else "."),
        do="Name one postgresql:// store for all of them. (Processes on one machine may share a file: they are "
        "one replica.)",
        sure=Certainty.LIKELY,
    )


@check("D08", "The same grants in two stores", "store", "against")
def twice(case: Case) -> Iterator[Finding]:
    """Grants that stand in this store and in the one to compare with (`--against-store`): a copied store (C12)."""
    other = case.other.connections if case.other else None
    if other is None:
        return
    theirs = {c.grant_id for c in other if c.state is not State.DISCONNECTED}
    both = [c for c in case.connections or () if c.grant_id in theirs and c.state is not State.DISCONNECTED]
    if both:
        yield error(
            "C12",
            None,
            "One store is a copy of the other",
            wrong=f"{plural(len(both), 'grant')} stand in both stores.",
            why="Whichever refreshes first rotates the grant away from the other; where reuse is watched, the provider "
            "then ends both.",
            do="Disconnect them in the copy without revoking them, or make an empty store for it; its users connect "
            "there.",
            seen=some(both),
        )


@check("B03", "One account connected in both environments with one client", "store", "against")
def replaced(case: Case) -> Iterator[Finding]:
    """Accounts that are connected in both stores through the same client id: a consent in one may end the grant of
    the other."""
    other = case.other.connections if case.other else None
    if other is None:
        return
    theirs = {
        (c.client_id, c.provider_account)
        for c in other
        if c.provider_account and c.state is not State.DISCONNECTED
    }
    for one in case.each():
        both = [c for c in case.at(one.name) if (c.client_id, c.provider_account) in theirs]
        if both:
            cap = one.facts.refresh_token.max_live
            yield warning(
                "B03",
                one.name,
                "One account in both environments, with one client",
                wrong=f"{plural(len(both), 'account')} are connected in both stores with the same client.",
                why="A new consent in one may replace the grant of the other"
                + (f"; the provider keeps {cap} at most" if cap else "")
                + ": another sign-in with this client ends a grant, and it looks revoked.",
                do="Use a client of its own for each environment.",
                sure=Certainty.LIKELY if cap else Certainty.POSSIBLE,
                seen=some(both),
            )


@check("D09", "Near the provider's cap on live grants", "store")
def caps(case: Case) -> Iterator[Finding]:
    """How many live grants one account has with one client, against the most that the provider keeps before it drops
    the oldest without a word (B03). Accounts are told apart by the provider's own id of them."""
    for one in case.each():
        cap = one.facts.refresh_token.max_live
        if cap is None or "access token" in (one.facts.refresh_token.max_live_scope or ""):
            continue
        accounts: dict[tuple[str, str], list[Connection]] = defaultdict(list)
        for c in case.at(one.name, State.ACTIVE):
            if c.provider_account:
                accounts[c.client_id, c.provider_account].append(c)
        crowded = [group for group in accounts.values() if len(group) > 1 and len(group) >= NEAR * cap]
        for group in crowded:
            yield _crowd(one, group, cap)


def _crowd(one: Registration, group: list[Connection], cap: int) -> Finding:
    over = len(group) > cap
    return (error if over else warning)(
        "D09",
        one.name,
        "More grants than the provider keeps" if over else "Near the cap on live grants",
        wrong=f"One account has {len(group)} live grants with this client; the provider keeps {cap}.",
        why="It drops the oldest without a word: another sign-in with this client ends a grant that looks revoked, and "
        "its user signs in again, which ends the next.",
        do="Connect each account once, and let agents share the connection; disconnect what is not used.",
        sure=one.sure("refresh_token.max_live", at_best=Certainty.LIKELY),
        seen=some(group),
    )


CHECKS = (replicas, twice, replaced, caps)
