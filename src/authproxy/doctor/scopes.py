"""Scopes: how they are written, what was granted, what production users may be asked for."""

from __future__ import annotations

from collections.abc import Iterator

from authproxy.core.model import State
from authproxy.doctor.case import Case, Registration, plural, some
from authproxy.doctor.check import check
from authproxy.doctor.finding import Certainty, Finding, error, info, warning
from authproxy.doctor.lifetimes import in_testing

_GOOGLE = "https://www.googleapis.com/auth/"
# Google's restricted scopes: verification and a yearly security assessment before strangers may grant them.
_RESTRICTED = (
    "https://mail.google.com/",
    *(
        f"{_GOOGLE}gmail.{word}"
        for word in ("readonly", "modify", "compose", "insert", "metadata", "settings")
    ),
    *(f"{_GOOGLE}drive{word}" for word in ("", ".readonly", ".metadata", ".activity", ".scripts")),
)
_HARMLESS = ("openid", "email", "profile", f"{_GOOGLE}userinfo.")
# Slack's scopes that only a user token can have.
_SLACK_USER = ("search:read", "identity.", "stars:", "users.profile:write", "admin")


@check("D16", "Scopes written as the provider does not read them")
def syntax(case: Case) -> Iterator[Finding]:
    """Several scopes in one word, `.default` beside named scopes (Entra), scopes for a GitHub App, Slack's user
    scopes in a bot's list."""
    for one in case.each():
        written = tuple(dict.fromkeys((*one.choice.scopes, *one.route_scopes)))
        joined = [scope for scope in written if "," in scope and not scope.startswith("http")]
        if joined:
            yield error(
                "D16",
                one.name,
                "Several scopes in one word",
                wrong=f"{', '.join(joined)} is one scope to authproxy.",
                why="It is sent as one, and the provider knows none of that name: the consent ends with invalid_scope; "
                "where it does not, the scope is missed in every grant.",
                do="Write a list: each scope by itself. The separator is put in as the provider wants it.",
                sure=Certainty.LIKELY,
            )
        yield from _entra(one, written)
        yield from _github_app(one, written)
        yield from _slack(one, written)


def _entra(one: Registration, written: tuple[str, ...]) -> Iterator[Finding]:
    if one.entry != "microsoft_entra":
        return
    default = [scope for scope in written if scope.endswith("/.default") or scope == ".default"]
    named = [
        s for s in written if s not in default and s not in ("openid", "profile", "email", "offline_access")
    ]
    if default and named:
        yield error(
            "D16",
            one.name,
            ".default beside named scopes",
            wrong=f"{default[0]} stands beside {', '.join(named[:3])}.",
            why="Entra refuses the mixture (AADSTS70011).",
            do="Ask for .default alone, or name every scope.",
            sure=one.sure("authorization.notes"),
        )


def _github_app(one: Registration, written: tuple[str, ...]) -> Iterator[Finding]:
    if one.entry == "github_app_user" and written:
        yield warning(
            "D16",
            one.name,
            "Scopes for a GitHub App",
            wrong=f"Scopes are asked for: {', '.join(written[:5])}.",
            why="A GitHub App has permissions, not scopes: these are ignored, and the token can do what the app "
            "may and "
            "the user may. An agent that relies on a narrow scope has a wide token.",
            do="Set the permissions in the app's settings, and leave the scopes out; narrow agents with `allow`.",
        )


def _slack(one: Registration, written: tuple[str, ...]) -> Iterator[Finding]:
    user = [scope for scope in written if scope.startswith(_SLACK_USER)]
    if one.entry == "slack" and user:
        yield error(
            "D16",
            one.name,
            "User scopes in a bot's list",
            wrong=f"{', '.join(user)} can only be had by user tokens.",
            why="Slack refuses the whole consent with invalid_scope.",
            do=f"Make a second provider with `catalogue: slack_user` for them, beside {one.name}.",
            sure=Certainty.LIKELY,
        )


@check(
    "D17",
    "Less was granted than is needed",
    "store",
    leaves="what the provider says of a token today: stored tokens are never sent",
)
def granted(case: Case) -> Iterator[Finding]:
    """The scopes of each live grant against those that were asked for, and against those that the routes need now."""
    for one in case.each():
        if one.provider is None:
            continue
        live = case.at(one.name, State.ACTIVE)
        declined = [c for c in live if one.provider.lacking(c.scopes, c.requested_scopes)]
        if declined:
            lacking = sorted(
                {s for c in declined for s in one.provider.lacking(c.scopes, c.requested_scopes)}
            )
            yield warning(
                "D17",
                one.name,
                "Users granted less than was asked for",
                wrong=f"{plural(len(declined), 'grant')} lack scopes that were asked for: {', '.join(lacking[:5])}.",
                why="The user unticked them, or the provider does not give them to this app. Requests that need them "
                "fail with scope_missing or a 403.",
                do="See whether the app may have these scopes; then let the users connect again and tick them.",
                sure=one.sure("answer", at_best=Certainty.CERTAIN),
                seen=some(declined),
            )
        older = [c for c in live if c not in declined and one.provider.lacking(c.scopes, one.route_scopes)]
        if older:
            lacking = sorted({s for c in older for s in one.provider.lacking(c.scopes, one.route_scopes)})
            yield warning(
                "D17",
                one.name,
                "Grants older than the scopes of the routes",
                wrong=f"{plural(len(older), 'grant')} lack scopes that the routes need now: {', '.join(lacking[:5])}.",
                why="They were consented to before the route asked for these; its requests answer scope_missing with a "
                "link until the user has consented again.",
                do="Let these users connect again before the agents find out.",
                seen=some(older),
            )


@check("C07", "Scopes that production users may not be asked for")
def approved(case: Case) -> Iterator[Finding]:
    """In staging and production, Google's restricted and sensitive scopes: they need the app's verification, which
    test users never notice."""
    if case.in_development:
        return
    for one in case.each():
        if one.entry != "google" or in_testing(one):
            continue  # what testing does is said by D02
        restricted = [scope for scope in one.asked if scope in _RESTRICTED or _settings(scope)]
        sensitive = [s for s in one.asked if s not in restricted and not s.startswith(_HARMLESS)]
        published = one.choice.publishing_status == "production" and one.choice.published_on is not None
        if restricted and not published:
            yield (warning if case.in_production else info)(
                "C07",
                one.name,
                "Restricted scopes need verification",
                wrong=f"Consents ask for {', '.join(_short(s) for s in restricted[:4])}.",
                why="Until the app has passed Google's verification and its yearly security assessment, users see a "
                "warning page, and after a hundred of them nobody can connect. Test users never see this.",
                do="Verify the app, or ask for narrower scopes (gmail.send, drive.file); once it is published say "
                "publishing_status: production and published_on.",
                sure=one.sure("notes", at_best=Certainty.LIKELY),
            )
        elif sensitive and not published and case.in_production:
            yield info(
                "C07",
                one.name,
                "Sensitive scopes may need verification",
                wrong=f"Consents ask for {', '.join(_short(s) for s in sensitive[:4])}.",
                why="An unverified app shows a warning page and is held to a hundred users.",
                do="See in the console whether these are verified; then say publishing_status and published_on.",
                sure=Certainty.POSSIBLE,
            )


def _settings(scope: str) -> bool:
    return scope.startswith(f"{_GOOGLE}gmail.settings")


def _short(scope: str) -> str:
    return scope.removeprefix(_GOOGLE)


CHECKS = (syntax, granted, approved)
