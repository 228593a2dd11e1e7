"""Checks of stored grants and their clocks: offline access, lives, caps, copies, what fell together."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from authproxy.core.model import State
from authproxy.doctor.case import DAY, Case
from authproxy.doctor.finding import Severity
from tests.doctor.cases import (
    COLUMNS,
    ERROR,
    INFO,
    NOW,
    PUBLISHED,
    TESTING,
    WARNING,
    Make,
    asked,
    case,
    connection,
    dead,
    fallen,
    google,
    grants,
    judge,
    live_and_trial,
    row,
    weeks,
)


def tenants(strict: int) -> Case:
    """Two orgs' grants live for months; those of the third died after a day, all or all but some."""
    old = [
        connection(
            "salesforce",
            f"{org}-{n}",
            consented_at=NOW - 90 * DAY,
            extra={"instance_url": f"https://{org}.my.salesforce.com"},
        )
        for org in ("one", "two")
        for n in range(2)
    ]
    third = {"instance_url": "https://three.my.salesforce.com"}
    young = [
        connection(
            "salesforce",
            f"three-{n}",
            state=State.NEEDS_REAUTH if n < strict else State.ACTIVE,
            consented_at=NOW - 50 * DAY,
            extra=third,
        )
        for n in range(2)
    ]
    ended = {c.id: c.consented_at + DAY for c in young[:strict]}
    return grants(*old, *young, provider="salesforce", ended=ended)


def kept(*disabled: str, **fields: Any) -> Case:
    """A grant of alice's, and who is disabled."""
    barred = frozenset({("acme", name) for name in disabled})
    return replace(grants(connection(**fields)), disabled=barred)


ROWS = [
    row("I10-kept", INFO, "disabled users", lambda: kept("alice"), lambda: kept("bob")),
    row(
        "D10-not-of-the-disabled",
        ERROR,
        "Unused for longer",
        lambda: kept("bob", obtained_at=NOW - 200 * DAY),
        lambda: kept("alice", obtained_at=NOW - 200 * DAY),
    ),
    # --- offline access
    row(
        "D01-switched-off",
        ERROR,
        "Offline access is switched off",
        lambda: google(authorize_params={"access_type": "online"}),
        lambda: google(authorize_params={"access_type": "offline", "prompt": "consent"}),
    ),
    row(
        "D01-no-refresh-tokens-held",
        ERROR,
        "cannot be refreshed",
        lambda: grants(connection("slack", refreshable=False), provider="slack"),
        lambda: grants(connection("slack"), provider="slack"),
    ),
    row(
        "D23-endless-tokens",
        WARNING,
        "without end",
        lambda: grants(connection("github", refreshable=False, expires_at=None), provider="github"),
        lambda: grants(connection("github"), provider="github"),
    ),
    # --- lifetimes
    row(
        "D02-testing-in-production",
        ERROR,
        "in testing",
        lambda: google(**TESTING),
        lambda: google(**PUBLISHED),
    ),
    row(
        "D02-testing-but-only-identity",
        ERROR,
        "in testing",
        lambda: google(**TESTING),
        lambda: google(routes={}, scopes=["openid", "email"], **TESTING),
    ),
    row(
        "D02-testing-in-development",
        INFO,
        "in testing",
        lambda: google("development", **TESTING),
        lambda: google("development"),
    ),
    row(
        "D02-undeclared",
        INFO,
        "not declared",
        lambda: google(),
        lambda: google(**PUBLISHED),
    ),
    row(
        "D02-issued-for-seven-days",
        ERROR,
        "issued for seven days",
        lambda: grants(connection(consented_at=NOW - DAY, refresh_expires_at=NOW + 6 * DAY)),
        lambda: grants(connection(consented_at=NOW - DAY, refresh_expires_at=NOW + 60 * DAY)),
    ),
    row(
        "D02-died-at-seven-days",
        ERROR,
        "died seven days",
        lambda: fallen(dead("a", NOW - 3 * DAY), dead("b", NOW - 3 * DAY - 9000)),
        lambda: fallen(dead("a", NOW - 2 * DAY), dead("b", NOW - 5 * DAY)),
    ),
    row(
        "D03-older-than-publication",
        WARNING,
        "before the app was published",
        lambda: grants(
            connection(consented_at=NOW - 3 * DAY),
            choice={"publishing_status": "production", "published_on": "2027-01-14"},
        ),
        lambda: grants(connection(consented_at=NOW - 3 * DAY), choice=PUBLISHED),
    ),
    row(
        "D10-idle-near",
        WARNING,
        "near their end",
        lambda: grants(connection("box", obtained_at=NOW - 50 * DAY), provider="box"),
        lambda: grants(connection("box", obtained_at=NOW - 40 * DAY), provider="box"),
    ),
    row(
        "D10-idle-over",
        ERROR,
        "longer than the provider allows",
        lambda: grants(connection("box", obtained_at=NOW - 61 * DAY), provider="box"),
        lambda: grants(connection("box", obtained_at=NOW - 50 * DAY), provider="box"),
    ),
    row(
        "D11-absolute-near",
        WARNING,
        "about to end",
        lambda: grants(connection("atlassian", consented_at=NOW - 360 * DAY), provider="atlassian"),
        lambda: grants(connection("atlassian", consented_at=NOW - 300 * DAY), provider="atlassian"),
    ),
    row(
        "D11-told-end-near",
        WARNING,
        "about to end",
        lambda: grants(
            connection("quickbooks", consented_at=NOW - 90 * DAY, refresh_expires_at=NOW + 9 * DAY),
            provider="quickbooks",
        ),
        lambda: grants(connection("quickbooks", refresh_expires_at=NOW + 90 * DAY), provider="quickbooks"),
    ),
    row(
        "D11-rolling-lives-begin-anew",
        WARNING,
        "about to end",
        lambda: grants(connection("github", obtained_at=NOW - 180 * DAY), provider="github"),
        lambda: grants(connection("github", consented_at=NOW - 180 * DAY), provider="github"),
    ),
    row(
        "D12-secret-ended",
        ERROR,
        "has ended",
        lambda: case({"microsoft": {"client_secret_expires_on": "2027-01-14"}}),
        lambda: case({"microsoft": {"client_secret_expires_on": "2027-01-20"}}),
    ),
    row(
        "D12-secret-ends-soon",
        WARNING,
        "ends soon",
        lambda: case({"microsoft": {"client_secret_expires_on": "2027-02-10"}}),
        lambda: case({"microsoft": {"client_secret_expires_on": "2027-03-10"}}),
    ),
    row(
        "D12-secret-s-end-unknown",
        WARNING,
        "not declared",
        lambda: case({"microsoft": {}}),
        lambda: case({"microsoft": {"client_secret_expires_on": "2028-01-01"}}),
    ),
    row(
        "D27-no-margin",
        WARNING,
        "No refresh margin",
        lambda: case({"hubspot": {"refresh_margin": 0}}),
        lambda: case({"hubspot": {"refresh_margin": 60}}),
    ),
    row(
        "D27-margin-beyond-life",
        INFO,
        "longer than the token's life",
        lambda: case({"hubspot": {}}, refresh={"margin": 3600}),
        lambda: case({"hubspot": {}}, refresh={"margin": 900}),
    ),
    row(
        "D27-life-assumed-too-long",
        WARNING,
        "token_lifetime",
        lambda: case({"hubspot": {"token_lifetime": 7200}}),
        lambda: case({"hubspot": {"token_lifetime": 1800}}),
    ),
    # --- sharing
    row(
        "D08-replicas-on-sqlite",
        ERROR,
        "Replicas on a SQLite file",
        lambda: case({"slack": {}}, store="sqlite", replicas=3),
        lambda: case({"slack": {}}, store="postgresql", replicas=3),
    ),
    row(
        "C12-copied-store",
        ERROR,
        "copy of the other",
        lambda: live_and_trial({"google": {}}, {"google": {}}, stored=[weeks()], trial_stored=[weeks()]),
        lambda: live_and_trial(
            {"google": {}}, {"google": {}}, stored=[weeks()], trial_stored=[weeks(grant_id="its own")]
        ),
    ),
    row(
        "B03-one-account-in-both",
        WARNING,
        "One account in both",
        lambda: live_and_trial(
            {"google": {}}, {"google": {}}, stored=[weeks()], trial_stored=[weeks(grant_id="its own")]
        ),
        lambda: live_and_trial(
            {"google": {}},
            {"google": {}},
            stored=[weeks()],
            trial_stored=[weeks(grant_id="its own", client_id="its own")],
        ),
    ),
    row(
        "D09-near-the-cap",
        WARNING,
        "Near the cap",
        lambda: grants(
            *(connection("salesforce", f"user-{n}", provider_account="one") for n in range(4)),
            provider="salesforce",
        ),
        lambda: grants(
            *(connection("salesforce", f"user-{n}", provider_account="one") for n in range(3)),
            provider="salesforce",
        ),
    ),
    row(
        "D09-over-the-cap",
        ERROR,
        "More grants than",
        lambda: grants(
            *(connection("salesforce", f"user-{n}", provider_account="one") for n in range(6)),
            provider="salesforce",
        ),
        lambda: grants(*(connection("salesforce", f"user-{n}") for n in range(6)), provider="salesforce"),
    ),
    # --- the clock
    row(
        "D28-far-off",
        ERROR,
        "differs from the provider's",
        lambda: asked(skew=-400),
        lambda: asked(skew=-40),
    ),
    row(
        "D28-off",
        WARNING,
        "differs from the provider's",
        lambda: asked(skew=90),
        lambda: asked(skew=3),
    ),
    row(
        "D28-future",
        WARNING,
        "from the future",
        lambda: grants(connection(obtained_at=NOW + 600, expires_at=NOW + 4200)),
        lambda: grants(connection(obtained_at=NOW + 5)),
    ),
    row(
        "D28-backwards",
        WARNING,
        "end before they began",
        lambda: grants(connection(expires_at=NOW - 7200)),
        lambda: grants(connection(expires_at=NOW - 10)),
    ),
    # --- all grants together
    row(
        "D30-mass",
        ERROR,
        "fell within an hour",
        lambda: fallen(*(dead(f"u{n}", NOW - DAY + 60 * n) for n in range(3)), living=2),
        lambda: fallen(*(dead(f"u{n}", NOW - DAY + 60 * n) for n in range(3)), living=4),
    ),
    row(
        "D30-not-one-user-s-own",
        ERROR,
        "fell within an hour",
        lambda: fallen(dead("u1", NOW - DAY), dead("u2", NOW - DAY)),
        lambda: fallen(dead("u1", NOW - DAY), dead("u2", NOW - 2 * DAY)),
    ),
    row(
        "D26-one-tenant",
        WARNING,
        "policy is stricter",
        lambda: tenants(strict=2),
        lambda: tenants(strict=1),
    ),
    row(
        "J13-nothing-works",
        WARNING,
        "No grant works",
        lambda: fallen(dead("u1", NOW - DAY)),
        lambda: fallen(dead("u1", NOW - DAY), living=1),
    ),
]


@pytest.mark.scenario("B03", "B15", "C05", "C06", "C12", "J13")
@pytest.mark.parametrize(COLUMNS, ROWS)
def test_a_check_finds_its_case_and_leaves_the_other(
    code: str, severity: Severity, title: str, bad: Make, good: Make
) -> None:
    judge(code, severity, title, bad, good)
