"""Redirect URIs: what will be sent, letter for letter, against the provider's rules and what is registered there."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from difflib import get_close_matches
from urllib.parse import urlsplit

from authproxy.doctor.case import LOOPBACK, Case, Registration, host_of
from authproxy.doctor.check import check
from authproxy.doctor.finding import Certainty, Finding, error, info, warning

_INNER_ENDS = (".local", ".internal", ".lan", ".test", ".localhost", ".svc", ".cluster.local")


@check("C01", "Browsers cannot come back: public_url")
def reachable(case: Case) -> Iterator[Finding]:
    """Whether `public_url`, below which every redirect URI hangs, is an address that users' browsers can reach and
    providers accept: not this machine, no private name, no bare IP address."""
    host = host_of(case.config.public_url)
    if case.in_development:
        return
    seen = [f"public_url: {case.config.public_url}"]
    if host in LOOPBACK:
        yield error(
            "C01",
            None,
            "public_url is this machine's own",
            wrong=f"In {case.environment}, browsers are sent back to {host}.",
            why="That is each user's own computer: no consent can be finished.",
            do="Say the address of the control listener as browsers reach it, https included.",
            seen=seen,
        )
    elif _address(host):
        yield warning(
            "C01",
            None,
            "public_url is a bare address",
            wrong=f"Redirect URIs hang below the IP address {host}.",
            why="Google and others refuse bare public addresses as redirect URIs, and no public CA vouches for most.",
            do="Give the control listener a name.",
            sure=Certainty.LIKELY,
            seen=seen,
        )
    elif "." not in host or host.endswith(_INNER_ENDS):
        yield warning(
            "C01",
            None,
            "public_url is an inner name",
            wrong=f"{host} is a name of an inner network.",
            why="Users outside it cannot finish a consent, and some providers refuse such names when registering.",
            do="Say a public name, or make sure that every user is inside.",
            sure=Certainty.LIKELY,
            seen=seen,
        )


def _address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


@check("D15", "The redirect URI breaks a rule of the provider")
def rules(case: Case) -> Iterator[Finding]:
    """The redirect URI of each provider against what it documents: https, `localhost`, values that were withdrawn;
    and the declared `registered_redirect_uris` against its rules on wildcards and numbers."""
    for one in case.each():
        uri = case.redirect_uri(one.name)
        yield from _scheme(case, one, uri)
        for each in dict.fromkeys((uri, *one.choice.registered_redirect_uris)):
            yield from _withdrawn(case, one, each)
        told, given = one.facts.redirect_uri, one.choice.registered_redirect_uris
        if told.wildcard == "no" and any("*" in each for each in given):
            yield error(
                "D15",
                one.name,
                "A wildcard is registered",
                wrong="A registered redirect URI has a `*`, and this provider knows no wildcards.",
                why="It is taken letter for letter, and matches nothing that is sent.",
                do=f"Register {uri}.",
                sure=one.sure("redirect_uri.wildcard"),
                seen=[each for each in given if "*" in each],
            )
        if told.max_count is not None and len(given) > told.max_count:
            yield error(
                "D15",
                one.name,
                "More redirect URIs than the provider takes",
                wrong=f"{len(given)} redirect URIs are declared, and the provider takes {told.max_count}.",
                why="Those beyond are not registered in truth.",
                do="Use one app registration per environment.",
                sure=one.sure("redirect_uri.max_count"),
            )


def _scheme(case: Case, one: Registration, uri: str) -> Iterator[Finding]:
    rule = (one.facts.redirect_uri.https_required or "").lower()
    loopback = (one.facts.redirect_uri.loopback or "").lower()
    host = host_of(uri)
    if host == "localhost" and ("localhost is refused" in loopback or "use 127.0.0.1" in loopback):
        yield error(
            "D15",
            one.name,
            "localhost is refused",
            wrong=f"The redirect URI is {uri}.",
            why="This provider refuses the name localhost, and takes loopback addresses.",
            do="Say http://127.0.0.1:PORT as public_url, and register that.",
            sure=one.sure("redirect_uri.loopback"),
        )
    if not uri.startswith("http://") or not rule.startswith("yes"):
        return
    if host not in LOOPBACK:
        yield error(
            "D15",
            one.name,
            "The provider wants https",
            wrong=f"The redirect URI is {uri}.",
            why="This provider takes plain http at most for the developer's own machine: the consent ends on its "
            "error page.",
            do="Serve the control listener behind TLS, and say its https address as public_url.",
            sure=one.sure("redirect_uri.https_required"),
        )
    elif "except" not in rule and "non-native" not in rule:
        yield warning(
            "D15",
            one.name,
            "The provider may want https even here",
            wrong=f"The redirect URI is {uri}; of https the provider says: {one.facts.redirect_uri.https_required}.",
            why="The consent may end on the provider's error page.",
            do="Rehearse with `authproxy sandbox`, or put a TLS address in front and say it as public_url.",
            sure=one.sure("redirect_uri.https_required", at_best=Certainty.LIKELY),
        )


def _withdrawn(case: Case, one: Registration, uri: str) -> Iterator[Finding]:
    for old in one.facts.deprecations:
        if old.pattern and uri.startswith(old.pattern):
            yield error(
                "D15",
                one.name,
                "The provider has withdrawn this kind of redirect URI",
                wrong=f"{uri}: {old.what}.",
                why=f"So it is since {old.since}; consents end on the provider's error page.",
                do=f"Register {case.redirect_uri(one.name)} alone.",
                sure=one.sure("deprecations"),
            )


@check("C03", "The redirect URI is not registered as it is sent")
def registered(case: Case) -> Iterator[Finding]:
    """The redirect URI that is sent against the declared `registered_redirect_uris`, letter for letter: scheme, host,
    port, case, trailing slash."""
    for one in case.each():
        given = one.choice.registered_redirect_uris
        uri = case.redirect_uri(one.name)
        below = "below" in (one.facts.redirect_uri.match or "")
        if (
            not given
            or uri in given
            or (below and any(uri.startswith(each.rstrip("/") + "/") for each in given))
        ):
            continue
        theirs = case.other.redirect_uri(one.name) if case.other else None
        nearest = theirs if theirs in given else None
        whose = f" (that of {case.other.file})" if case.other and nearest else ""
        nearest = nearest or (get_close_matches(uri, given, 1, 0.5) or list(given))[0]
        yield error(
            "C03",
            one.name,
            "The redirect URI differs from what is registered",
            wrong=f"{uri} is sent; {nearest}{whose} is registered: {difference(uri, nearest)}.",
            why="Providers compare letter for letter: every consent ends with redirect_uri_mismatch, and only in this "
            "environment.",
            do=f"Register {uri} at the provider, or correct public_url.",
            sure=Certainty.CERTAIN
            if "exact" in (one.facts.redirect_uri.match or "exact")
            else Certainty.LIKELY,
            seen=[f"sent: {uri}", *(f"registered: {each}" for each in given)],
        )


def difference(ours: str, theirs: str) -> str:
    """In what two URIs differ, in words."""
    try:
        mine, other = urlsplit(ours), urlsplit(theirs)
        ports = mine.port, other.port
    except ValueError:
        return "the registered one is no URL"
    if ours.rstrip("/") == theirs.rstrip("/"):
        return "a slash at the end"
    if ours.lower() == theirs.lower():
        return "upper and lower case"
    parts = [
        name
        for name, same in (
            ("the scheme", mine.scheme == other.scheme),
            ("the host", mine.hostname == other.hostname),
            ("the port", ports[0] == ports[1]),
            ("the path", mine.path == other.path),
            ("the query", mine.query == other.query),
        )
        if not same
    ]
    at = next((i for i, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), None)
    where = min(len(ours), len(theirs)) if at is None else at
    return f"{' and '.join(parts) or 'its spelling'} (from character {where + 1} on)"


@check("D15", "The provider's door", "online")
def door(case: Case) -> Iterator[Finding]:
    """The authorization URL, opened once without following it: whether the provider shows a login or an error
    (redirect URI, client or scope unknown)."""
    for one in case.each():
        seen = case.seen.get(one.name)
        if seen is None or seen.door is None:
            continue
        found = seen.door
        uri = case.redirect_uri(one.name)
        told = found.error or found.page
        if told:
            # a page's scripts may hold such words without showing them
            tell, sure = (
                (error, Certainty.CERTAIN)
                if found.error
                else (error, Certainty.LIKELY)
                if found.status >= 300
                else (warning, Certainty.POSSIBLE)
            )
            yield tell(
                "C07" if "scope" in told else "D15",
                one.name,
                f"The provider refuses the authorization request: {told}",
                wrong=f"The authorization URL, opened without a login, is answered with {told}.",
                why="So will it be for every user who wants to connect.",
                do=found.advice or f"Compare the registration at the provider with what is sent: {uri}.",
                sure=sure,
                seen=[f"HTTP {found.status}", f"redirect URI: {uri}"],
            )
        elif found.status >= 500:
            yield info(
                "D15",
                one.name,
                "The authorization endpoint has trouble",
                wrong=f"It answers HTTP {found.status}.",
                why="Nobody can connect while this lasts.",
                do="Ask again later, and look at the provider's status page.",
                sure=Certainty.POSSIBLE,
            )
        elif found.status >= 400 and found.status not in (401, 403, 429):
            yield warning(
                "D15",
                one.name,
                "The authorization URL leads to an error page",
                wrong=f"The authorization URL, opened without a login, is answered with HTTP {found.status}.",
                why="A login page answers 200 or redirects. Most often the redirect URI or the client id is unknown.",
                do=f"Open the link of `authproxy connect {one.name} --user YOU` in a browser, and read what the "
                "provider says.",
                sure=Certainty.LIKELY,
                seen=[f"HTTP {found.status}", f"redirect URI: {uri}"],
            )


CHECKS = (reachable, rules, registered, door)
