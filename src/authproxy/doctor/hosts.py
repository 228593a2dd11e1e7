"""Where tokens may go: instances per grant, allow-lists, headers that an API demands."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields

from authproxy.core.oauth import instance_upstream
from authproxy.core.origin import read_host_port
from authproxy.doctor.case import LOOPBACK, Case, Registration, host_of, plural, some
from authproxy.doctor.check import check
from authproxy.doctor.finding import Certainty, Finding, error, info, warning


@check(
    "D19",
    "Grants that do not name their own API host",
    "store",
    leaves="whether the named host is still the right one: stored tokens are never sent",
)
def instances(case: Case) -> Iterator[Finding]:
    """Where the API's host is told with each grant (Salesforce's instance_url): stored grants that lack it, or whose
    value cannot be used."""
    for one in case.each():
        field = one.facts.api.upstream_from
        if field is None or one.provider is None:
            continue
        provider = one.provider
        blind = [c for c in case.at(one.name) if instance_upstream(provider, c.extra) is None]
        if blind:
            yield error(
                "D19",
                one.name,
                "Grants without their own API host",
                wrong=f"{plural(len(blind), 'grant')} hold no usable {field}.",
                why="Their calls go to the route's fixed upstream, which is not the instance of these users: 401 "
                "or 404 "
                "although the token is good.",
                do="Refresh them (authproxy connections refresh ID), which brings the field; else reconnect.",
                sure=one.sure("api.upstream_from", at_best=Certainty.LIKELY),
                seen=some(blind),
            )


@check("D19", "A fixed API host where each grant has its own")
def fixed(case: Case) -> Iterator[Finding]:
    """Routes that fix one instance of a provider whose grants each name their own."""
    for one in case.each():
        if one.facts.api.upstream_from is None:
            continue
        usual = set(one.facts.api.hosts)
        named = [url for url in one.upstreams if host_of(url) not in usual | set(LOOPBACK)]
        if named:
            yield warning(
                "D19",
                one.name,
                "One instance is fixed as upstream",
                wrong=f"A route's upstream is {named[0]}; each grant names its own ({one.facts.api.upstream_from}).",
                why="The grant's own is used; the fixed one only for grants that name none, and there it is "
                "right for one "
                "customer at most.",
                do="Leave `upstream` out.",
                sure=Certainty.LIKELY,
            )


@check("D20", "Tokens may go further than they need")
def width(case: Case) -> Iterator[Finding]:
    """`api_hosts` beyond the provider's own domains, the same host for two providers, and a route's further hosts
    that its tokens may not go to."""
    owners: dict[str, str] = {}
    for one in case.each():
        ends = [getattr(one.facts.endpoints, item.name) for item in fields(one.facts.endpoints)]
        own = {_domain(host) for host in (*one.facts.api.hosts, *map(host_of, filter(None, ends)))}
        for each in one.choice.api_hosts:
            pair = read_host_port(each)
            host = pair[0] if pair else each
            strange = one.facts.api.hosts and _domain(host) not in own and not _matches(one, host)
            if strange and host not in LOOPBACK and one.choice.endpoints.token is None:
                yield warning(
                    "D20",
                    one.name,
                    "A host that is not the provider's",
                    wrong=f"api_hosts lets tokens go to {each}, outside the provider's own domains.",
                    why="Whoever runs that host can use every user's token that is sent there.",
                    do="Take it out, unless it is a gateway of your own.",
                    sure=one.sure("api.hosts", at_best=Certainty.LIKELY),
                )
            other = owners.setdefault(each, one.name)
            if other != one.name and case.registrations[other].entry != one.entry and host not in LOOPBACK:
                yield warning(
                    "D20",
                    one.name,
                    "One host for two providers",
                    wrong=f"{each} may receive tokens of {other} and of {one.name}.",
                    why="A route that names the wrong provider sends one's tokens to the other, and nothing stops it.",
                    do="Give each provider hosts of its own.",
                    sure=Certainty.LIKELY,
                )


def _domain(host: str) -> str:
    return ".".join(host.rsplit(".", 2)[-2:])


def _matches(one: Registration, host: str) -> bool:
    return any(host.endswith(pattern[1:]) for pattern in one.facts.api.host_patterns)


@check("D22", "Headers that the API demands")
def headers(case: Case) -> Iterator[Finding]:
    """For providers with routes: headers that the API demands of every call and that only the agent can know."""
    for one in case.each():
        told = {
            name: said
            for name, said in {**one.facts.api.required_headers, **one.facts.api.expected_headers}.items()
            if name not in ("Accept", "User-Agent") and "recommended" not in said
        }
        if told and one.routes:
            yield info(
                "D22",
                one.name,
                "Agents must send headers",
                wrong=f"The API wants {', '.join(f'{name} ({said})' for name, said in told.items())}.",
                why="authproxy adds the credential and nothing else: without these the API answers 400 or 403, which "
                "looks like a fault of the token.",
                do="Let the agents send them; a client library of the provider does.",
                sure=one.sure("api.required_headers", "api.expected_headers", at_best=Certainty.LIKELY),
            )


CHECKS = (instances, fixed, width, headers)
