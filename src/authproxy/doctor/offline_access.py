"""Whether grants can outlive their first access token: offline access, and credentials that never end."""

from __future__ import annotations

from collections.abc import Iterator

from authproxy.core.model import State
from authproxy.doctor.case import Case, Registration, on, plural, some
from authproxy.doctor.check import check
from authproxy.doctor.finding import Certainty, Finding, error, warning


@check("D01", "No offline access is asked for")
def asked(case: Case) -> Iterator[Finding]:
    """Whether `authorize_params` undo the parameters by which the provider issues a refresh token at all.
    Scopes that bring one are asked for by themselves."""
    for one in case.each():
        yield from _undone(one)
        if one.facts.refresh_token.issued == "never" and one.facts.access_token.lifetime != "never":
            yield warning(
                "D01",
                one.name,
                "The provider issues no refresh tokens",
                wrong="This provider has no refresh tokens.",
                why="Every grant ends with its first access token, and the user has to come back.",
                do="Plan for consent at that interval, or ask the provider for a longer-lived kind of app.",
                sure=one.sure("refresh_token"),
            )


def _undone(one: Registration) -> Iterator[Finding]:
    if one.provider is None:
        return
    rules, chosen = one.facts.authorization, one.choice.authorize_params
    for name, value in rules.offline_params.items():
        if name == "prompt" or chosen.get(name, value) == value:
            continue
        yield error(
            "D01",
            one.name,
            "Offline access is switched off",
            wrong=f"authorize_params says {name}: {chosen[name]}, which takes the place of {name}: {value}.",
            why="The provider will issue no refresh token: each grant ends with its first access token, usually "
            "within an hour of the consent, long after the test that looked well.",
            do=f"Take {name} out of providers.{one.name}.authorize_params and let the users connect again.",
            sure=one.sure("authorization", "refresh_token.issued"),
            seen=[f"providers.{one.name}.authorize_params.{name}"],
        )


@check("D01", "A grant came without a refresh token", "store")
def held(case: Case) -> Iterator[Finding]:
    """Stored grants whose access token ends and that hold no refresh token."""
    for one in case.each():
        doomed = [
            c for c in case.at(one.name, State.ACTIVE) if not c.refreshable and c.expires_at is not None
        ]
        if not doomed:
            continue
        first = min(c.expires_at or 0 for c in doomed)
        setting = {
            "slack": "token rotation in the app's settings",
            "github_oauth_app": "token expiration in the app's settings",
            "github_app_user": "user-to-server token expiration in the app's settings",
        }.get(one.entry, "the refresh grant in the app's settings, and the parameters of its offline access")
        yield error(
            "D01",
            one.name,
            "Grants that cannot be refreshed",
            wrong=f"{plural(len(doomed), 'grant')} hold an access token that ends, and no refresh token.",
            why=f"They end with it, the first on {on(first)}; every user has to connect again.",
            do=f"Look at {setting}; then let the users connect again.",
            seen=some(doomed),
        )


@check(
    "D23",
    "Credentials that never end, in production",
    "store",
    leaves="tokens are never opened here, so their prefixes (xoxb-, gho_) cannot be looked at",
)
def endless(case: Case) -> Iterator[Finding]:
    """In staging and production, stored grants without a refresh token whose access token has no known end."""
    if case.in_development:
        return
    for one in case.each():
        endless = [c for c in case.at(one.name, State.ACTIVE) if not c.refreshable and c.expires_at is None]
        if endless:
            rotation = one.facts.refresh_token.rotation
            yield warning(
                "D23",
                one.name,
                "Access tokens without end",
                wrong=f"{plural(len(endless), 'grant')} hold an access token that never ends, and no refresh token.",
                why="A token that leaks once is good until somebody revokes it; nothing rotates it away.",
                do="Switch expiring tokens on for the app where the provider has them "
                "(Slack: token rotation, which cannot be undone; GitHub: token expiration), and reconnect.",
                sure=one.sure("refresh_token.rotation") if rotation != "none" else Certainty.POSSIBLE,
                seen=some(endless),
            )


CHECKS = (asked, held, endless)
