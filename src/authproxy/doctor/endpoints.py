"""Endpoints: withdrawn ones, another entry's, and what the issuer says of itself."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields

from authproxy.core.providers import catalogue
from authproxy.doctor.case import Case, day, host_of, on
from authproxy.doctor.check import check
from authproxy.doctor.finding import Certainty, Finding, error, info, warning


@check(
    "D21",
    "Endpoints that end, or have ended",
    leaves="no API is called, so Sunset and Deprecation headers are not seen",
)
def withdrawn(case: Case) -> Iterator[Finding]:
    """Every URL and host that is called, against the catalogue's dated withdrawals."""
    for one in case.each():
        places = (*one.urls, *(f"//{host}" for host in one.choice.api_hosts))
        for old in one.facts.deprecations:
            hit = [place for place in places if old.pattern and old.pattern in place]
            if not hit:
                continue
            over = day(old.since) <= case.now
            yield (error if over else warning)(
                "D21",
                one.name,
                "An endpoint has ended" if over else "An endpoint ends soon",
                wrong=f"{hit[0]}: {old.what} ({old.since}).",
                why="Calls there fail, or are about to."
                if over
                else f"From {old.since} on, calls there fail.",
                do="Take the override out, so that the catalogue's own endpoint is used.",
                sure=one.sure("deprecations"),
            )


@check("D18", "The endpoint of a known provider, read as another")
def misnamed(case: Case) -> Iterator[Finding]:
    """Token endpoints on the host of a provider that the catalogue knows, used with another entry: its errors inside
    a 200, its scopes and its lives would be misread."""
    if not any(one.choice.endpoints.token or one.choice.issuer for one in case.each()):
        return
    owners: dict[str, set[str]] = {}
    for name, entry in catalogue().items():
        for item in fields(entry.endpoints):
            url = getattr(entry.endpoints, item.name)
            if url and item.name in ("token", "authorization") and "{" not in host_of(url):
                owners.setdefault(host_of(url), set()).add(name)
    for one in case.each():
        host = host_of(one.choice.endpoints.token or one.choice.issuer or "")
        known = owners.get(host, set())
        if host and known and one.entry not in known:
            yield error(
                "D18",
                one.name,
                "A known provider under another entry",
                wrong=f"{host} is known as {' or '.join(sorted(known))}, and is read as {one.entry or 'nothing'}.",
                why="Each has answers of its own (errors in a 200, comma-separated scopes, 403 for a dead "
                "grant): read as "
                "another's, dead grants look alive and live ones dead.",
                do=f"Say providers.{one.name}.catalogue: {sorted(known)[0]}, and leave the endpoints out.",
            )


@check("D29", "The issuer says otherwise", "online")
def discovered(case: Case) -> Iterator[Finding]:
    """The discovery document's issuer, authorization and token endpoints against those that are used."""
    for one in case.each():
        seen = case.seen.get(one.name)
        if seen is None or one.provider is None:
            continue
        for what, reason in seen.trouble:
            if what != "discovery":
                continue
            tell = warning if one.choice.issuer else info
            yield tell(
                "D29",
                one.name,
                "No discovery document",
                wrong=f"{seen.discovery_url} gives no usable document ({reason.replace('_', ' ')}).",
                why="Endpoints come from it: without it nobody can connect, and nothing is refreshed."
                if one.choice.issuer
                else "Endpoints come from the catalogue, so nothing depends on it; the comparison was left out.",
                do="Nothing."
                if not one.choice.issuer
                else "See whether the issuer is written as in its own document, without a slash more or less."
                if reason.startswith(("http_", "not_json"))
                else "See whether the issuer runs, and whether this machine may call it (egress.allow, firewalls).",
                sure=Certainty.LIKELY,
            )
        if seen.discovery is None:
            continue
        issuer = seen.discovery.get("issuer")
        if one.provider.issuer and issuer != one.provider.issuer and "{" not in str(issuer):
            yield (error if one.choice.issuer else info)(
                "D29",
                one.name,
                "The document names another issuer",
                wrong=f"{one.provider.issuer} is configured; the document says {_url(issuer)}.",
                why="It is refused: another server may be speaking.",
                do="Write the issuer letter for letter as it names itself.",
            )
        for name in ("authorization", "token"):
            used, told = getattr(one.provider.endpoints, name), seen.discovery.get(f"{name}_endpoint")
            if used and told and used != told:
                yield warning(
                    "D29",
                    one.name,
                    f"Another {name} endpoint",
                    wrong=f"{used} is used; the issuer says {_url(told)}.",
                    why="The one that is used may be of another environment, or about to end.",
                    do=f"Take providers.{one.name}.endpoints.{name} out, if it is not meant."
                    if getattr(one.choice.endpoints, name)
                    else "Nothing yet, if refreshes work; report it as a fault of the catalogue.",
                    sure=Certainty.POSSIBLE,
                )


def _url(value: object) -> str:
    text = str(value)[:200]
    return text if text.isascii() and text.isprintable() else "something unreadable"


@check("D29", "Calls that had no answer", "online")
def unanswered(case: Case) -> Iterator[Finding]:
    """Which of the online calls could not be made, and why: names that are not found, TLS, refused addresses."""
    for one in case.each():
        seen = case.seen.get(one.name)
        missed = [(what, why) for what, why in seen.trouble if what != "discovery"] if seen else []
        if missed:
            yield warning(
                "D29",
                one.name,
                "The provider could not be asked",
                wrong="; ".join(f"{what}: {why.replace('_', ' ')}" for what, why in missed) + ".",
                why="If the process that serves cannot reach it either, nobody connects and nothing is refreshed. "
                f"(Seen on {on(case.now)} from where the doctor runs.)",
                do="See whether this machine may call out, and whether egress.allow names inner hosts.",
                sure=Certainty.LIKELY,
            )


CHECKS = (withdrawn, misnamed, discovered, unanswered)
