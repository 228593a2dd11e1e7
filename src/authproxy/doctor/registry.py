"""Every check, and the codes of the catalogue of failures that no check decides."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType

from authproxy.doctor import (
    clients,
    clock,
    endpoints,
    environments,
    fleet,
    hosts,
    launch,
    lifetimes,
    offboarded,
    offline_access,
    redirects,
    scopes,
    sharing,
)
from authproxy.doctor.case import Case
from authproxy.doctor.check import Check, Need
from authproxy.doctor.finding import Finding, Severity

CHECKS: tuple[Check, ...] = (
    *offline_access.CHECKS,
    *lifetimes.CHECKS,
    *redirects.CHECKS,
    *environments.CHECKS,
    *scopes.CHECKS,
    *clients.CHECKS,
    *sharing.CHECKS,
    *hosts.CHECKS,
    *endpoints.CHECKS,
    *clock.CHECKS,
    *fleet.CHECKS,
    *offboarded.CHECKS,
    *launch.CHECKS,
)

ELSEWHERE: Mapping[str, str] = MappingProxyType(
    {
        "C02": "cannot go wrong: the redirect URI is stored with each flow and sent again as it is",
        "C06": "see D02 and D03",
        "C08": "cannot be seen from outside a browser: the flow's cookie is SameSite=Lax, held by the tests",
        "B15": "see D10 and D11",
    }
)
"""Codes without a check of their own, and why."""

NEEDS: Mapping[Need, str] = MappingProxyType(
    {"store": "stored connections", "online": "--online", "against": "--against"}
)
"""The sources that a check may need, as they are named to people."""

_ORDER = (Severity.ERROR, Severity.WARNING, Severity.INFO)


def examine(case: Case) -> list[Finding]:
    """All findings, the worst first; each once, although two checks may come to it."""
    found: dict[tuple[str, str | None, str, str], Finding] = {}
    for finding in _all(case):
        found.setdefault((finding.code, finding.provider, finding.title, finding.wrong), finding)
    providers = list(case.registrations)
    return sorted(
        found.values(),
        key=lambda one: (
            _ORDER.index(one.severity),
            providers.index(one.provider) if one.provider in providers else -1,
            one.code,
        ),
    )


def _all(case: Case) -> Iterator[Finding]:
    for one in CHECKS:
        if not one.missing(case):
            yield from one(case)
