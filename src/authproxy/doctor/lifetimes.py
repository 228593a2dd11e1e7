"""Clocks that run from the consent on: testing status, idle and absolute ends, secrets, margins."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from authproxy.core.model import Connection, State
from authproxy.doctor.case import DAY, Case, Registration, day, days, on, plural, some
from authproxy.doctor.check import check
from authproxy.doctor.finding import Certainty, Finding, error, info, warning

NEAR = 0.8  # of an idle limit
AHEAD = 30 * DAY
SOON = 14 * DAY
_IDENTITY = {"openid", "email", "profile"}
_SECRETS_END = ("microsoft_entra",)  # where every client secret has an end (at most 24 months)


def testing_life(one: Registration) -> int | None:
    """How long a refresh token lives while the app is in testing, where the provider has such a status."""
    environment = one.facts.environments.get("testing")
    return environment.refresh_token_lifetime if environment else None


def in_testing(one: Registration) -> bool:
    """Whether the operator says so."""
    return one.choice.publishing_status == "testing" or one.choice.environment == "testing"


def identity_only(scopes: Sequence[str]) -> bool:
    """Scopes that are exempt from the end in testing."""
    plain = {scope.removeprefix("https://www.googleapis.com/auth/userinfo.") for scope in scopes}
    return plain <= _IDENTITY


@check("D02", "The app is in testing: grants end after seven days")
def publishing(case: Case) -> Iterator[Finding]:
    """The declared `publishing_status` (or `environment: testing`) of providers whose grants are short-lived while
    the app is in testing (Google). It cannot be read from outside."""
    for one in case.each():
        life = testing_life(one)
        if life is None or identity_only(one.asked):
            continue
        if in_testing(one):
            tell = error if case.in_production else info
            yield tell(
                "D02",
                one.name,
                "The app is in testing",
                wrong="The consent screen is declared as in testing.",
                why=f"Every refresh token dies {days(life)} after its consent, whatever happens: users connected on "
                "launch day are all asked again a week later. Others than the listed test users cannot connect.",
                do="Publish the app, wait for its verification, and only then let users connect: a grant made in "
                "testing keeps its seven days. Then say publishing_status: production and published_on.",
                seen=[
                    "publishing_status: testing"
                    if one.choice.publishing_status == "testing"
                    else "environment: testing"
                ],
            )
        elif one.choice.publishing_status is None and case.in_production:
            yield info(
                "D02",
                one.name,
                "Publishing status not declared",
                wrong="Whether the app is published cannot be read with the client's credentials, and is not "
                "said here.",
                why=f"In testing every grant would end after {days(life)}.",
                do=f"Look into the provider's console, and say providers.{one.name}.publishing_status "
                "and published_on.",
                sure=Certainty.POSSIBLE,
            )


@check("D02", "Grants that end, or ended, seven days after their consent", "store")
def seven_days(case: Case) -> Iterator[Finding]:
    """Refresh tokens that were issued for seven days or less, and grants that were found dead between 6.5 and 7.5
    days after their consent: the mark of an app in testing, declared or not."""
    for one in case.each():
        life = testing_life(one)
        if life is None:
            continue
        marked = [
            c
            for c in case.at(one.name, State.ACTIVE)
            if c.refresh_expires_at is not None and 0 < c.refresh_expires_at - c.consented_at <= life + 3600
        ]
        if marked and not in_testing(one):
            tell = warning if case.in_development else error
            yield tell(
                "D02",
                one.name,
                "Refresh tokens issued for seven days",
                wrong=f"{plural(len(marked), 'grant')} carry a refresh token that the provider issued for {days(life)} "
                "or less.",
                why=f"They end by {on(max(c.refresh_expires_at or 0 for c in marked))}: the app is in testing, or the "
                "users gave access for a limited time.",
                do="Look at the publishing status; publish, then let these users connect again.",
                sure=Certainty.LIKELY,
                seen=some(marked),
            )
        fell = [
            c
            for c in case.at(one.name, State.NEEDS_REAUTH)
            if 0.93 * life <= case.ended.get(c.id, 0) - c.consented_at <= 1.07 * life
        ]
        if fell:
            tell = error if len(fell) > 1 and not case.in_development else warning
            yield tell(
                "D02",
                one.name,
                "Grants died seven days after consent",
                wrong=f"{plural(len(fell), 'grant')} died between 6.5 and 7.5 days after the consent.",
                why="That is the life of a grant made while the app is in testing; the next ones will die the "
                "same way.",
                do="Publish the app, then let these users connect again: what was consented to before keeps its limit.",
                sure=Certainty.LIKELY if len(fell) > 1 else Certainty.POSSIBLE,
                seen=some(fell),
            )


@check("D03", "Grants older than the publication of the app", "store")
def before_publishing(case: Case) -> Iterator[Finding]:
    """Live grants whose consent is older than the declared `published_on`: they keep the seven days of testing."""
    for one in case.each():
        life, published = testing_life(one), one.choice.published_on
        if life is None or published is None:
            continue
        old = [
            c
            for c in case.at(one.name, State.ACTIVE)
            if c.consented_at < day(published) and c.consented_at + life > case.now - DAY
        ]
        if old:
            yield warning(
                "D03",
                one.name,
                "Consented to before the app was published",
                wrong=f"{plural(len(old), 'grant')} were made before {published}, while the app was in testing.",
                why=f"Publishing does not lengthen them: they end {days(life)} after their consent, the first on "
                f"{on(min(c.consented_at for c in old) + life)}.",
                do="Let these users connect again now.",
                sure=Certainty.LIKELY,
                seen=some(old),
            )


@check("D10", "Unused grants near their end", "store")
def idle(case: Case) -> Iterator[Finding]:
    """Grants that were last refreshed so long ago that 80 % of the provider's idle limit is over (B15)."""
    for one in case.each():
        limit = one.facts.refresh_token.idle_expiry
        if not isinstance(limit, int):
            continue
        live = [c for c in case.at(one.name, State.ACTIVE) if c.refreshable and not case.kept(c)]
        stale = [c for c in live if NEAR * limit <= case.now - c.obtained_at]
        over = [c for c in stale if case.now - c.obtained_at >= limit]
        sure = one.sure("refresh_token.idle_expiry", at_best=Certainty.LIKELY)
        if over:
            yield error(
                "D10",
                one.name,
                "Unused for longer than the provider allows",
                wrong=f"{plural(len(over), 'grant')} were last refreshed over {days(limit)} ago.",
                why="The provider ends a refresh token that rests so long; the next request will find it dead.",
                do="Let these users connect again, and keep grants in use.",
                sure=sure,
                seen=some(over),
            )
        if near := [c for c in stale if c not in over]:
            soon = min(c.obtained_at for c in near) + limit
            yield warning(
                "D10",
                one.name,
                "Unused grants near their end",
                wrong=f"{plural(len(near), 'grant')} have not been refreshed for {NEAR:.0%} of the {days(limit)} that "
                "the provider allows.",
                why=f"The first one ends on {on(soon)} if nobody uses it before.",
                do="Refresh them now: authproxy connections refresh ID.",
                sure=sure,
                seen=some(near),
            )


@check("D11", "Grants near an end that no refresh can move", "store")
def absolute(case: Case) -> Iterator[Finding]:
    """Grants near the provider's absolute limit since consent, or near the end that was told with the refresh
    token (B15)."""
    for one in case.each():
        live = [c for c in case.at(one.name, State.ACTIVE) if not case.kept(c)]
        ending = {
            c.id: end.at
            for c in live
            if (end := _end(one, c)) is not None and end.at - case.now <= min(SOON, end.life // 5)
        }
        if not ending:
            continue
        told = any(c.refresh_expires_at is not None for c in live if c.id in ending)
        rolls = one.facts.refresh_token.rotation == "always"
        yield warning(
            "D11",
            one.name,
            "Grants about to end",
            wrong=f"{plural(len(ending), 'grant')} near their end, the first on {on(min(ending.values()))}.",
            why="Each refresh brings a new refresh token with a new life; these were not refreshed for long."
            if rolls
            else "This end does not move with use: the grant stops although it refreshes fine until then.",
            do="Refresh them now: authproxy connections refresh ID."
            if rolls
            else "Ask these users to connect again beforehand, while nothing is broken.",
            sure=Certainty.CERTAIN
            if told
            else one.sure("refresh_token.absolute_expiry", at_best=Certainty.LIKELY),
            seen=some(c for c in live if c.id in ending),
        )


class _End(NamedTuple):
    """When a grant ends for good, and how long it lived until then."""

    at: int
    life: int


def _end(one: Registration, connection: Connection) -> _End | None:
    """As the provider told it with the refresh token, else as it documents it. Where each refresh brings a new token,
    the life begins anew."""
    facts, told = one.facts.refresh_token, connection.refresh_expires_at
    rolls = facts.rotation == "always"
    since = connection.obtained_at if rolls else connection.consented_at
    if told is not None:
        return _End(told, max(1, told - since))
    limit = facts.absolute_expiry
    if not isinstance(limit, int):
        return None
    if rolls and limit != facts.lifetime:  # an end over all tokens of the grant
        since = connection.consented_at
    return _End(since + limit, limit)


@check("D12", "The client secret ends")
def secret(case: Case) -> Iterator[Finding]:
    """The declared `client_secret_expires_on`: over, within 30 days, or not declared where every secret has an end
    (Entra)."""
    for one in case.each():
        if one.choice.client_auth == "none":
            continue
        declared = one.choice.client_secret_expires_on
        if declared is None:
            if one.entry in _SECRETS_END:
                yield (warning if case.in_production else info)(
                    "D12",
                    one.name,
                    "The end of the client secret is not declared",
                    wrong="Client secrets of this provider end after at most 24 months, and no day is said here.",
                    why="On that day every refresh fails at once, for all users.",
                    do=f"Say providers.{one.name}.client_secret_expires_on, and renew the secret before it.",
                )
            continue
        left = day(declared) - case.now
        if left <= 0:
            yield error(
                "D12",
                one.name,
                "The client secret has ended",
                wrong=f"The client secret ended on {declared}.",
                why="Every refresh and every new consent fails with invalid_client; grants stay, and work again with a "
                "new secret.",
                do="Make a new secret at the provider, put it where the reference points, restart, and say its end.",
            )
        elif left <= AHEAD:
            yield warning(
                "D12",
                one.name,
                "The client secret ends soon",
                wrong=f"The client secret ends on {declared}, in {days(left)}.",
                why="From then on every refresh fails at once, for all users.",
                do="Make the new secret now; where the provider lets two be valid, change over before the day.",
            )


@check("D27", "Refresh margins and assumed lives")
def margin(case: Case) -> Iterator[Finding]:
    """Margins against the access token's life: none at all, longer than the life (authproxy holds them to a fifth of
    it), or a `token_lifetime` that promises more than the provider gives."""
    for one in case.each():
        life = one.facts.access_token.lifetime
        chosen = one.choice.refresh_margin
        value = case.config.refresh.margin if chosen is None else chosen
        key = "refresh.margin" if chosen is None else f"providers.{one.name}.refresh_margin"
        if value == 0:
            yield warning(
                "D27",
                one.name,
                "No refresh margin",
                wrong=f"{key} is 0: tokens are used to their last second.",
                why="Requests that are under way when a token ends come back with 401 and are sent twice.",
                do="Leave it out, or give a minute or more.",
            )
        elif isinstance(life, int) and value >= life:
            yield info(
                "D27",
                one.name,
                "The margin is longer than the token's life",
                wrong=f"{key} is {value} s; the access token lives {life} s.",
                why="It would mean a refresh with each request. authproxy holds it to a fifth of the life "
                f"({life // 5} s).",
                do="Say less, so that the file says what happens.",
                sure=one.sure("access_token.lifetime"),
            )
        assumed = one.choice.token_lifetime
        if assumed is not None and isinstance(life, int) and assumed > life:
            yield warning(
                "D27",
                one.name,
                "token_lifetime is longer than the token lives",
                wrong=f"token_lifetime says {assumed} s; the provider's tokens live {life} s.",
                why="Where the provider does not tell the life, dead tokens are taken for good ones, and every request "
                "in between costs a 401.",
                do=f"Say {life} or less, or leave it out.",
                sure=one.sure("access_token.lifetime", at_best=Certainty.LIKELY),
            )


CHECKS = (publishing, seven_days, before_publishing, idle, absolute, secret, margin)
