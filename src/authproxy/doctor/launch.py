"""Two configurations side by side: what differs, what is shared, and what will come of it after the launch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from authproxy.core.model import Environment
from authproxy.doctor.case import Case, Registration, host_of
from authproxy.doctor.check import check
from authproxy.doctor.environments import REHEARSAL
from authproxy.doctor.finding import Certainty, Finding, error, info, warning
from authproxy.doctor.lifetimes import identity_only, in_testing, testing_life

_RANK = (Environment.DEVELOPMENT, Environment.STAGING, Environment.PRODUCTION)


class Pair(NamedTuple):
    """The configuration that goes live, and the one in which it was rehearsed."""

    live: Case
    trial: Case

    def both(self) -> Iterator[tuple[Registration, Registration]]:
        """Providers that stand in both."""
        for name, one in self.live.registrations.items():
            if name in self.trial.registrations:
                yield one, self.trial.registrations[name]


def pair(case: Case) -> Pair | None:
    """Which of the two is nearer to users is the one that goes live; of equals, the one that was not `--against`."""
    if case.other is None:
        return None
    swapped = _RANK.index(case.other.environment) > _RANK.index(case.environment)
    return Pair(case.other, case) if swapped else Pair(case, case.other)


def _same(one: Registration, other: Registration, key: str) -> Certainty | None:
    """Whether two settings are the same, as far as can be told from here: an `env:` of one name has one value here,
    and may have two where the processes run."""
    mine, theirs = one.references.get(key), other.references.get(key)
    known = key not in one.absent and key not in other.absent
    if mine is not None and mine == theirs and mine.startswith("env:"):
        return Certainty.POSSIBLE
    a = one.client_id if key == "client_id" else one.choice.client_secret
    b = other.client_id if key == "client_id" else other.choice.client_secret
    if not known or a is None or b is None:
        return None
    return Certainty.CERTAIN if a == b else None


@check("D07", "One client in two environments", "against")
def clients(case: Case) -> Iterator[Finding]:
    """Client ids that both configurations use: caps on live grants, rotation and rate limits are then shared (B03)."""
    two = pair(case)
    if two is None:
        return
    alike = [one for one, other in two.both() if _same(one, other, "client_id") is Certainty.POSSIBLE]
    if alike:
        yield info(
            "D07",
            None,
            "Client ids come from the same variables",
            wrong="Both files take client_id from the same variable "
            f"({', '.join(one.references['client_id'] for one in alike)}).",
            why="If both environments give it the same value, they share caps, rotation and rate limits, and a "
            "consent in one may end a grant of the other. That cannot be seen from here.",
            do="Make sure that each environment has clients of its own.",
            sure=Certainty.POSSIBLE,
        )
    for one, other in two.both():
        same = _same(one, other, "client_id")
        if same is not Certainty.CERTAIN:
            continue
        facts = one.facts.refresh_token
        capped = facts.max_live is not None and "access token" not in (facts.max_live_scope or "")
        shared = [
            *([f"the cap of {facts.max_live} live grants per account"] if capped else []),
            *(["rotation"] if facts.rotation not in ("none", "unknown") else []),
            "rate limits",
            "settings",
        ]
        yield warning(
            "D07",
            one.name,
            "One client in two environments",
            wrong=f"{_names(two)} use the same client id.",
            why=f"They share {', '.join(shared[:-1])} and {shared[-1]}. "
            + (
                "After the launch, testers who connect in one may push out or replace users' grants of the "
                "other, which "
                "then look revoked."
                if len(shared) > 2
                else "After the launch, a trial under load takes calls from users, and what is changed for it is "
                "changed for them."
            ),
            do="Register a client of its own for each environment, before users connect: their grants belong to the "
            "client, and changing it later means that all connect again.",
            sure=same,
        )


@check("C05", "One secret in two environments", "against")
def secrets(case: Case) -> Iterator[Finding]:
    """Client secrets that both configurations use: whoever rotates it in one breaks the other."""
    two = pair(case)
    for one, other in two.both() if two else ():
        if (
            _same(one, other, "client_secret") is Certainty.CERTAIN
            and _same(one, other, "client_id") is not None
        ):
            yield warning(
                "C05",
                one.name,
                "One client secret in two environments",
                wrong=f"{_names(two)} use the same client secret.",
                why="Whoever can read the trial's surroundings can act as the live app; and when the secret is "
                "replaced "
                "in one, every refresh of the other fails with invalid_client.",
                do="Give each environment a client and a secret of its own.",
            )


@check("C01", "Redirect URIs after the launch", "against")
def redirects(case: Case) -> Iterator[Finding]:
    """`public_url` of both: the same in both, or another one, which has to be registered for the live client before
    the launch; and registered URIs that were copied over."""
    two = pair(case)
    if two is None:
        return
    ours, theirs = two.live.config.public_url, two.trial.config.public_url
    if host_of(ours) == host_of(theirs) and two.live.environment is not two.trial.environment:
        yield error(
            "C01",
            None,
            "Both environments are at one address",
            wrong=f"public_url is on {host_of(ours)} in both.",
            why="Browsers that consent in one come back to the other, which knows nothing of the flow; if the live one "
            "was copied from the trial, no user can connect.",
            do="Say the address of each.",
            sure=Certainty.LIKELY,
            seen=[f"{two.live.file}: {ours}", f"{two.trial.file}: {theirs}"],
        )
        return
    open_ends: list[str] = []
    for one, _ in two.both():
        uri, given = two.live.redirect_uri(one.name), one.choice.registered_redirect_uris
        if not given:
            open_ends.append(uri)
        elif two.live is not case and uri not in given and two.trial.redirect_uri(one.name) in given:
            # of the configuration that is looked at, C03 says it
            yield error(
                "C01",
                one.name,
                "The trial's redirect URI is registered for the live client",
                wrong=f"{uri} will be sent; declared is {two.trial.redirect_uri(one.name)}, which is the trial's.",
                why="Every consent ends with redirect_uri_mismatch from the launch on.",
                do=f"Register {uri} at the provider.",
            )
    if open_ends and not two.live.in_development:
        yield info(
            "C01",
            None,
            "Redirect URIs to register before the launch",
            wrong="What the live clients have registered is not declared.",
            why="These will be sent. Providers compare letter for letter: what is not registered ends with "
            "redirect_uri_mismatch, and the trial, which sends others, does not show it.",
            do="Register them, and declare them as registered_redirect_uris of each provider.",
            sure=Certainty.POSSIBLE,
            seen=open_ends,
        )


@check("C07", "Scopes that were never rehearsed", "against")
def scopes(case: Case) -> Iterator[Finding]:
    """Scopes that only one of the two asks for."""
    two = pair(case)
    for one, other in two.both() if two else ():
        more = [scope for scope in one.asked if scope not in other.asked]
        fewer = [scope for scope in other.asked if scope not in one.asked]
        if more:
            yield warning(
                "C07",
                one.name,
                "Scopes that were never rehearsed",
                wrong=f"Only {two.live.file if two else ''} asks for {', '.join(more[:6])}.",
                why="Nobody has seen the consent with these: the app may not be approved for them, and users meet "
                "invalid_scope or a warning page.",
                do="Ask for the same in the trial, or leave them out.",
                sure=Certainty.LIKELY,
            )
        if fewer:
            yield warning(
                "C07",
                one.name,
                "Scopes that are missing after the launch",
                wrong=f"Only {two.trial.file if two else ''} asks for {', '.join(fewer[:6])}.",
                why="What the agents did with these in the trial fails with scope_missing or a 403.",
                do="Ask for them here too, or do without them in the trial.",
                sure=Certainty.LIKELY,
            )


@check("D02", "The app's publishing status after the launch", "against")
def publishing(case: Case) -> Iterator[Finding]:
    """The declared status of both, where grants made in testing end after seven days."""
    two = pair(case)
    for one, other in two.both() if two else ():
        life = testing_life(one)
        if life is None or identity_only(one.asked) or two is None or not two.live.in_production:
            continue
        if in_testing(other) and not in_testing(one) and _same(one, other, "client_id") is Certainty.CERTAIN:
            yield error(
                "D02",
                one.name,
                "One client, declared both as testing and as published",
                wrong=f"{two.trial.file} says testing, {two.live.file} does not, and both use one client.",
                why="An app has one status: if it is testing, every user is asked again seven days after the launch.",
                do="Look into the provider's console, and use a client of its own for the trial.",
                sure=Certainty.LIKELY,
            )
        elif in_testing(other) and one.choice.publishing_status is None:
            yield warning(
                "D02",
                one.name,
                "The trial ran in testing; the live app's status is not declared",
                wrong=f"{two.trial.file} says testing, {two.live.file} says nothing.",
                why="If the live app is in testing too, all grants end seven days after their consent; a trial shorter "
                "than that does not show it.",
                do="Publish the live app before the first user connects, and say publishing_status and published_on.",
                sure=Certainty.POSSIBLE,
            )


@check("D05", "The provider's own environments in the two", "against")
def environments(case: Case) -> Iterator[Finding]:
    """Which of the provider's environments each uses, and hosts that were copied from the trial."""
    two = pair(case)
    for one, other in two.both() if two else ():
        code = "D04" if one.entry == "salesforce" else "D05"
        mine, theirs = one.choice.environment, other.choice.environment
        if one.entry != other.entry:
            yield warning(
                code,
                one.name,
                "Another catalogue entry",
                wrong=f"{two.live.file if two else ''} builds on {one.entry or 'nothing'}, "
                f"{two.trial.file if two else ''} on {other.entry or 'nothing'}.",
                why="Token lives, rotation and errors differ: the trial has shown how another provider behaves.",
                do="Use one entry in both.",
            )
        elif theirs in REHEARSAL and mine == theirs and two and two.live.in_production:
            continue  # said by the check of the live configuration alone
        elif theirs in REHEARSAL and mine not in REHEARSAL:
            yield info(
                code,
                one.name,
                "The trial used the provider's test environment",
                wrong=f"The trial uses {theirs}, the live one {mine or 'the usual one'}.",
                why="Apps, keys, users and policies are others there: approvals, limits and rotation rules may differ "
                "on the first day.",
                do="Connect one account of your own in production, and let it live through a refresh, before the "
                "launch.",
            )
        hosts = {host_of(url) for url in one.urls}
        if two and one.choice.endpoints == other.choice.endpoints and one.choice.endpoints.token:
            yield warning(
                code,
                one.name,
                "One authorization server for both",
                wrong=f"Both override the token endpoint with {host_of(one.choice.endpoints.token)}.",
                why="If that is the trial's server, users have no account there.",
                do="Say the live server's endpoints.",
                sure=Certainty.POSSIBLE,
            )
        elif two and (apart := sorted(hosts ^ {host_of(url) for url in other.urls})) and mine == theirs:
            yield info(
                "D20",
                one.name,
                "Other hosts than in the trial",
                wrong=f"Only one of the two calls {', '.join(apart[:6])}.",
                why="Firewalls, egress.allow and the provider's app settings must know the new ones.",
                do="See that the live machines may reach them.",
            )


@check("C11", "Providers and routes that stand in one only", "against")
def missing(case: Case) -> Iterator[Finding]:
    """Providers and routes of the trial that the live configuration lacks, and the reverse."""
    two = pair(case)
    if two is None:
        return
    lacking = [name for name in two.trial.registrations if name not in two.live.registrations]
    if lacking:
        yield warning(
            "C11",
            None,
            "Providers are missing after the launch",
            wrong=f"{two.live.file} lacks {', '.join(lacking)}.",
            why="Agents that rehearsed with them are told that there is no such route or provider.",
            do="Add them, or take them out of the trial.",
            seen=[f"{two.trial.file}: providers.{name}" for name in lacking],
        )
    gone = [name for name in two.trial.config.routes if name not in two.live.config.routes]
    if gone:
        yield warning(
            "C11",
            None,
            "Routes are missing after the launch",
            wrong=f"{two.live.file} lacks the routes {', '.join(gone)}.",
            why="Their calls are answered with route_not_found.",
            do="Add them, or take them out of the trial.",
        )
    fresh = [name for name in two.live.config.routes if name not in two.trial.config.routes]
    if fresh:
        yield info(
            "C11",
            None,
            "Routes that were never rehearsed",
            wrong=f"Only {two.live.file} has {', '.join(fresh)}.",
            why="Nobody has seen a consent or a call through them.",
            do="Rehearse them.",
        )
    for name in two.live.config.routes:
        if name in two.trial.config.routes:
            ours, theirs = two.live.config.routes[name].allow, two.trial.config.routes[name].allow
            if ours != theirs:
                yield (warning if ours is None else info)(
                    "C11",
                    None,
                    "A route with other permissions",
                    wrong=f"`allow` of route {name} differs"
                    + (": it stands only in the trial." if ours is None else "."),
                    why="Agents may do more after the launch than they could in the trial."
                    if ours is None
                    else "What worked in the trial may be refused with policy_denied after the launch, or the reverse.",
                    do="Use the same rules in both.",
                )


@check("D24", "A switch that cannot be turned back", "against")
def one_way(case: Case) -> Iterator[Finding]:
    """PKCE for Slack in one configuration only, while both use one client: the app's setting cannot be undone, and
    puts 30 days on every refresh token."""
    two = pair(case)
    for one, other in two.both() if two else ():
        differs = (one.choice.pkce is True) is not (other.choice.pkce is True)
        if one.entry.startswith("slack") and differs and _same(one, other, "client_id") is not None:
            yield info(
                "D24",
                one.name,
                "A switch that cannot be turned back",
                wrong="Only one of the two says pkce: true, and they may be one app.",
                why="Switching PKCE on for a Slack app cannot be undone, puts an end of 30 days on all its refresh "
                "tokens, and holds for every environment that uses the app.",
                do="Try it with an app of its own.",
                sure=Certainty.LIKELY,
            )


def _names(two: Pair | None) -> str:
    return f"{two.live.file} and {two.trial.file}" if two else ""


CHECKS = (clients, secrets, redirects, scopes, publishing, environments, missing, one_way)
