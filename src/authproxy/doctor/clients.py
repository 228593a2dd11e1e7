"""The operator's own registration: which kind of client it is, how it says who it is, and whether it is the one that
the grants were made for."""

from __future__ import annotations

import re
from collections.abc import Iterator

from authproxy.core.model import State
from authproxy.doctor.case import Case, Registration, plural, some
from authproxy.doctor.check import check
from authproxy.doctor.finding import Certainty, Finding, error, info, warning

_OURS = frozenset({"client_secret_basic", "client_secret_post", "none"})
_BAD_CLIENT = frozenset({"client_credentials", "client_deleted", "client_not_allowed", "environment"})


@check("C11", "The environment is not complete here")
def complete(case: Case) -> Iterator[Finding]:
    """Client ids and secrets whose reference (`env:NAME`, `file:PATH`) has no value here, and providers that cannot
    be made out."""
    for one in case.each():
        if one.fault is not None:
            yield error(
                "C11",
                one.name,
                "The provider cannot be made out",
                wrong=one.fault + ".",
                why="Nothing of it can be used, and none of its checks could be made.",
                do=f"Correct providers.{one.name}.",
            )
        if one.absent:
            yield (info if case.in_development else warning)(
                "C11",
                one.name,
                "Not set here",
                wrong=f"{' and '.join(one.references[key] for key in one.absent)} "
                f"{'has' if len(one.absent) == 1 else 'have'} no value where the doctor runs.",
                why="`serve` leaves the provider out."
                if case.in_development
                else f"In {case.environment}, `serve` does not start without; checks that need the value were left "
                "out.",
                do="Run the doctor with the surroundings of the process, or leave the entry out of the file.",
            )


@check("C10", "Whitespace in secrets")
def whitespace(case: Case) -> Iterator[Finding]:
    """What the reader of the configuration left out around a secret: a newline from a file or a secret store."""
    for fault in case.faults:
        if "whitespace around the value" in fault.message:
            provider = fault.path.split(".")[1] if fault.path.startswith("providers.") else None
            yield warning(
                "C10",
                provider,
                "Whitespace around a secret",
                wrong=f"{fault.path}: {fault.message}.",
                why="authproxy trims it; another program that reads the same secret sends it with the newline, "
                "and gets "
                "invalid_client.",
                do="Write the secret again without it (printf instead of echo).",
                seen=[f"{fault.file}:{fault.line}"],
            )


@check("D13", "A client authentication that the provider does not take")
def authentication(case: Case) -> Iterator[Finding]:
    """The configured `client_auth` against the methods of the catalogue, and, online, against the discovery
    document's token_endpoint_auth_methods_supported."""
    for one in case.each():
        chosen, known = one.choice.client_auth, one.facts.client_auth.methods
        if chosen is not None and known and chosen not in known and not one.choice.issuer:
            # "none" is for public clients, which a list of methods of confidential ones often leaves out
            public = chosen == "none"
            yield (warning if public else error)(
                "D13",
                one.name,
                "A client authentication that the provider does not take",
                wrong=f"client_auth is {chosen}; documented are {', '.join(known)}.",
                why="The token endpoint answers invalid_client: no consent can be finished and nothing be refreshed.",
                do="Leave client_auth out, and the provider's preferred one is used.",
                sure=one.sure("client_auth", at_best=Certainty.LIKELY if public else Certainty.CERTAIN),
            )
        seen = case.seen.get(one.name)
        told = (seen.discovery or {}).get("token_endpoint_auth_methods_supported") if seen else None
        if isinstance(told, list) and told:
            listed = ", ".join(str(word)[:40] for word in told[:6])
            # where nothing is chosen, authproxy takes one of those that the issuer lists
            fits = chosen in told if chosen else not _OURS.isdisjoint(map(str, told))
            if not fits:
                yield (warning if chosen == "none" else error)(
                    "D13",
                    one.name,
                    "The issuer does not list this client authentication",
                    wrong=f"client_auth is {chosen or 'not chosen'}; the discovery document lists {listed}.",
                    why="The token endpoint will probably answer invalid_client.",
                    do="Choose one of those with client_auth."
                    if not _OURS.isdisjoint(map(str, told))
                    else "authproxy has none of these; ask the provider for a client with a secret.",
                    sure=Certainty.LIKELY,
                    seen=[seen.discovery_url or ""] if seen else [],
                )


@check("D14", "PKCE as the provider does not want it")
def pkce(case: Case) -> Iterator[Finding]:
    """`pkce: false` where it is required, `pkce: true` where the provider has none or fails on it, and, online, a
    discovery document without S256."""
    for one in case.each():
        chosen, facts = one.choice.pkce, one.facts.pkce
        if chosen is False:
            if facts.support == "required":
                yield error(
                    "D14",
                    one.name,
                    "PKCE is required",
                    wrong="pkce is false, and the provider requires it.",
                    why="Every consent ends with invalid_request.",
                    do="Leave pkce out.",
                    sure=one.sure("pkce.support"),
                )
            elif "required" in (facts.notes or ""):
                yield warning(
                    "D14",
                    one.name,
                    "PKCE is required of some apps",
                    wrong=f"pkce is false. {facts.notes}",
                    why="Consents of such an app end with invalid_request.",
                    do="Leave pkce out: it is sent, and does no harm where it is not required.",
                    sure=one.sure("pkce", at_best=Certainty.LIKELY),
                )
        elif chosen is True and facts.off_because is not None:
            hard = facts.support == "none"
            yield (error if hard else info)(
                "D14",
                one.name,
                "PKCE is not known there" if hard else "PKCE has to be switched on for the app",
                wrong="pkce is true. " + facts.off_because[:1].upper() + facts.off_because[1:] + ".",
                why="Consents may end on the provider's error page."
                if hard
                else "If the app's setting is off, every consent fails.",
                do="Leave pkce out." if hard else "Make sure that this app has PKCE switched on.",
                sure=one.sure("pkce", at_best=Certainty.LIKELY if hard else Certainty.POSSIBLE),
            )
        seen = case.seen.get(one.name)
        methods = (seen.discovery or {}).get("code_challenge_methods_supported") if seen else None
        if chosen is True and isinstance(methods, list) and methods and "S256" not in methods:
            yield error(
                "D14",
                one.name,
                "The issuer does not list S256",
                wrong="pkce is true; the discovery document lists other methods only.",
                why="It will refuse the challenge.",
                do="Leave pkce out.",
                sure=Certainty.LIKELY,
            )


_SHAPES: tuple[tuple[str, re.Pattern[str], str, bool], ...] = (
    ("github_oauth_app", re.compile(r"[0-9]+"), "the number of a GitHub App, not a client id", True),
    ("github_app_user", re.compile(r"[0-9]+"), "the number of a GitHub App, not its client id", True),
    (
        "github_oauth_app",
        re.compile(r"Iv(1\.|23)[A-Za-z0-9]+"),
        "the client id of a GitHub App: say `catalogue: github_app_user`",
        True,
    ),
    (
        "github_app_user",
        re.compile(r"Ov23[A-Za-z0-9]+|[0-9a-f]{20}"),
        "the client id of an OAuth App: say `catalogue: github_oauth_app`",
        True,
    ),
    (
        "google",
        re.compile(r"(?!.*\.apps\.googleusercontent\.com\Z).*", re.DOTALL),
        "no client id of Google, which end in .apps.googleusercontent.com",
        False,
    ),
    (
        "slack",
        re.compile(r"(?![0-9]+\.[0-9]+\Z).*", re.DOTALL),
        "no client id of Slack, which are two numbers with a dot between them",
        False,
    ),
    (
        "slack_user",
        re.compile(r"(?![0-9]+\.[0-9]+\Z).*", re.DOTALL),
        "no client id of Slack, which are two numbers with a dot between them",
        False,
    ),
)


@check(
    "D25",
    "Another kind of app than the catalogue entry",
    leaves="tokens are never opened here, so the kind of a token (gho_, ghu_, xoxb-, xoxp-) cannot be looked at",
)
def kind(case: Case) -> Iterator[Finding]:
    """The form of the client id against the kind of app: GitHub's App number, GitHub App ids and OAuth App ids,
    Google's and Slack's forms."""
    for one in case.each():
        if one.client_id is None or not _own_hosts(one):
            continue
        for entry, shape, what, certain in _SHAPES:
            if one.entry == entry and shape.fullmatch(one.client_id):
                yield (error if certain else warning)(
                    "D25",
                    one.name,
                    "Another kind of app",
                    wrong=f"client_id is {what}.",
                    why="Scopes, token lives and refreshes of the two kinds differ; with a wrong id no consent begins.",
                    do=f"Copy the client id from the app's page once more, or choose the other entry for {one.name}.",
                    sure=Certainty.LIKELY,
                    seen=[f"client_id: {_shown(one.client_id)}"],
                )
                break


def _own_hosts(one: Registration) -> bool:
    """Whether the provider itself is meant, and not an emulator with ids of its own."""
    return one.choice.endpoints.token is None and one.choice.issuer is None


def _shown(client_id: str) -> str:
    """Client ids are public, but a secret may have been put in their place: only the beginning is shown."""
    return client_id if len(client_id) <= 8 else client_id[:6] + "…"


@check("C04", "Grants of another client", "store")
def foreign(case: Case) -> Iterator[Finding]:
    """The client id that each stored grant was issued to against the one that is configured."""
    for one in case.each():
        if one.client_id is None:
            continue
        odd = [c for c in case.at(one.name) if c.client_id != one.client_id]
        if odd:
            yield error(
                "C04",
                one.name,
                "Grants of another client",
                wrong=f"{plural(len(odd), 'grant')} were issued to another client id than the configured one.",
                why="The provider would answer invalid_grant, as if they were revoked; authproxy does not send "
                "them, and "
                "these users cannot be served.",
                do="Put the former client id and secret back; or, if the change is meant, let these users "
                "connect again.",
                seen=some(odd),
            )


@check("C05", "The provider refuses the client", "store")
def blamed(case: Case) -> Iterator[Finding]:
    """Connections that stand as misconfigured: at their last refresh the provider refused the app, not the grant."""
    for one in case.each():
        stuck = [c for c in case.at(one.name, State.MISCONFIGURED) if c.reason != "unreadable"]
        if not stuck:
            continue
        reasons = sorted({c.reason for c in stuck if c.reason})
        yield error(
            "C05",
            one.name,
            "The provider refuses the app registration",
            wrong=f"{plural(len(stuck), 'grant')} wait for the operator: "
            f"{', '.join(r.replace('_', ' ') for r in reasons) or 'no reason known'}.",
            why="No grant was touched, and none can be refreshed until the registration is mended.",
            do="Compare client_id, client_secret and client_auth with the provider's console; a reload heals the rest.",
            seen=some(stuck),
        )


@check("D12", "The client, asked with a made-up refresh token", "online")
def probed(case: Case) -> Iterator[Finding]:
    """One refresh with a made-up token per client: a refusal of the token says that the client is good, a refusal of
    the client that it is not. Nothing is spent, and no stored token is sent."""
    for one in case.each():
        seen = case.seen.get(one.name)
        probe = seen.probe if seen else None
        if probe is None:
            continue
        said = [f"HTTP {probe.status}", f"code: {probe.code}"]
        if probe.verdict == "misconfigured" and probe.reason in _BAD_CLIENT:
            yield error(
                "D12",
                one.name,
                "The provider refuses the client",
                wrong=f"Asked with a made-up refresh token, the token endpoint refuses the client: {probe.code}.",
                why="Every refresh will be refused in the same way, for all users.",
                do=probe.advice or "Compare client id, secret and client_auth with the provider's console.",
                sure=one.sure("token_errors.misconfigured"),
                seen=said,
            )
        elif probe.verdict in ("misconfigured", "transient"):
            yield info(
                "D12",
                one.name,
                "The token endpoint's answer is not clear",
                wrong=f"Asked with a made-up refresh token, it answers {probe.code}.",
                why="It may have trouble of its own, or have refused the form of the token or of the request.",
                do="Nothing, if refreshes work; else ask again later.",
                sure=Certainty.POSSIBLE,
                seen=said,
            )


@check(
    "D18",
    "Answers are misread",
    "online",
    leaves="that every documented refusal is read rightly is held by the package's own tests",
)
def misread(case: Case) -> Iterator[Finding]:
    """Whether the refusal of a made-up refresh token is read as a success: an error inside a 200, form encoding where
    JSON was asked for."""
    for one in case.each():
        seen = case.seen.get(one.name)
        if seen and seen.probe and seen.probe.verdict == "success":
            yield error(
                "D18",
                one.name,
                "A refusal reads as a success",
                wrong="The token endpoint's answer to a made-up refresh token is read as a set of tokens.",
                why="Dead grants would look alive, and stored tokens be overwritten by what is none.",
                do="Use the provider's own catalogue entry; if it is, report this with the provider's name.",
                seen=[f"HTTP {seen.probe.status}"],
            )


CHECKS = (complete, whitespace, authentication, pkce, kind, foreign, blamed, probed, misread)
