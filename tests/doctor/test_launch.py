"""Two configurations side by side."""

from __future__ import annotations

from typing import Any

import pytest

from authproxy.doctor.case import Case
from authproxy.doctor.finding import Severity
from tests.doctor.cases import (
    COLUMNS,
    ERROR,
    INFO,
    MAIL,
    PUBLISHED,
    SALESFORCE,
    TESTING,
    WARNING,
    Make,
    case,
    judge,
    live_and_trial,
    row,
)


def registered(*uris: str) -> dict[str, Any]:
    return {"box": {"registered_redirect_uris": list(uris)}}


def swapped(uri: str) -> Case:
    """The live configuration as the one to compare with."""
    live = case(registered(uri), file="production.yaml")
    own = registered("https://auth.staging.acme.com/callback/box")
    return case(own, "staging", public_url="https://auth.staging.acme.com", against=live)


def one_secret(other: str) -> Case:
    environ = {"SECRET": "CANARY-same", "OTHER_SECRET": other}
    trial = case(
        {"box": {"client_secret": "env:OTHER_SECRET"}},
        "staging",
        environ=environ,
        public_url="https://auth.staging.acme.com",
    )
    return case({"box": {}}, environ=environ, against=trial)


def own_server(host: str) -> dict[str, Any]:
    ends = {"authorization": f"https://{host}/authorize", "token": f"https://{host}/token"}
    return {"acme": {"endpoints": ends, "api_hosts": ["api.acme.com"]}}


def routes_with(live: Any, trial: Any) -> Case:
    return live_and_trial(
        {"box": {}}, {"box": {}}, live_top={"routes": {"box": live}}, trial_top={"routes": {"box": trial}}
    )


ROWS = [
    # --- two configurations
    row(
        "D07-one-client",
        WARNING,
        "One client in two",
        lambda: live_and_trial({"salesforce": {}}, {"salesforce": {}}),
        lambda: live_and_trial({"salesforce": {}}, {"salesforce": {"client_id": "its own"}}),
    ),
    row(
        "D07-one-variable",
        INFO,
        "same variables",
        lambda: live_and_trial({"box": {"client_id": "env:ID"}}, {"box": {"client_id": "env:ID"}}),
        lambda: live_and_trial({"box": {"client_id": "env:ID"}}, {"box": {"client_id": "env:OTHER_ID"}}),
    ),
    row(
        "D07-one-client-by-two-variables",
        WARNING,
        "One client in two",
        lambda: live_and_trial({"box": {"client_id": "env:ID"}}, {"box": {"client_id": "shared"}}),
        lambda: live_and_trial({"box": {"client_id": "env:ID"}}, {"box": {"client_id": "env:OTHER_ID"}}),
    ),
    row(
        "C05-one-secret",
        WARNING,
        "One client secret",
        lambda: one_secret("CANARY-same"),
        lambda: one_secret("CANARY-its-own"),
    ),
    row(
        "C01-one-address",
        ERROR,
        "at one address",
        lambda: live_and_trial({}, {}, trial_top={"public_url": "https://auth.acme.com"}),
        lambda: live_and_trial({}, {}),
    ),
    row(
        "C01-trial-s-uri-registered",
        ERROR,
        "trial's redirect URI",
        lambda: swapped("https://auth.staging.acme.com/callback/box"),
        lambda: swapped("https://auth.acme.com/callback/box"),
    ),
    row(
        "C03-trial-s-uri-registered",
        ERROR,
        "differs from what is registered",
        lambda: live_and_trial(registered("https://auth.staging.acme.com/callback/box"), {"box": {}}),
        lambda: live_and_trial(registered("https://auth.acme.com/callback/box"), {"box": {}}),
    ),
    row(
        "C01-uris-to-register",
        INFO,
        "to register before the launch",
        lambda: live_and_trial({"box": {}}, {"box": {}}),
        lambda: live_and_trial(registered("https://auth.acme.com/callback/box"), {"box": {}}),
    ),
    row(
        "C07-never-rehearsed",
        WARNING,
        "never rehearsed",
        lambda: live_and_trial({"box": {"scopes": ["root_readwrite"]}}, {"box": {}}),
        lambda: live_and_trial({"box": {}}, {"box": {}}),
    ),
    row(
        "C07-missing-after-launch",
        WARNING,
        "missing after the launch",
        lambda: live_and_trial({"box": {}}, {"box": {"scopes": ["root_readwrite"]}}),
        lambda: live_and_trial({"box": {}}, {"box": {}}),
    ),
    row(
        "D02-one-client-two-statuses",
        ERROR,
        "both as testing and as published",
        lambda: live_and_trial({"google": {"scopes": [MAIL], **PUBLISHED}}, {"google": TESTING}),
        lambda: live_and_trial(
            {"google": {"scopes": [MAIL], **PUBLISHED}}, {"google": {"client_id": "its own", **TESTING}}
        ),
    ),
    row(
        "D02-trial-in-testing",
        WARNING,
        "trial ran in testing",
        lambda: live_and_trial(
            {"google": {"scopes": [MAIL]}}, {"google": {"client_id": "its own", **TESTING}}
        ),
        lambda: live_and_trial(
            {"google": {"scopes": [MAIL], **PUBLISHED}}, {"google": {"client_id": "its own", **TESTING}}
        ),
    ),
    row(
        "D04-trial-in-the-sandbox",
        INFO,
        "test environment",
        lambda: live_and_trial(SALESFORCE, {"salesforce": {"environment": "sandbox"}}),
        lambda: live_and_trial(SALESFORCE, SALESFORCE),
    ),
    row(
        "D05-another-entry",
        WARNING,
        "Another catalogue entry",
        lambda: live_and_trial({"gh": {"catalogue": "github"}}, {"gh": {"catalogue": "github-app"}}),
        lambda: live_and_trial({"gh": {"catalogue": "github"}}, {"gh": {"catalogue": "github"}}),
    ),
    row(
        "D05-one-server-for-both",
        WARNING,
        "One authorization server",
        lambda: live_and_trial(own_server("login.acme.com"), own_server("login.acme.com")),
        lambda: live_and_trial(own_server("login.acme.com"), own_server("login.staging.acme.com")),
    ),
    row(
        "D20-other-hosts",
        INFO,
        "Other hosts",
        lambda: live_and_trial(own_server("login.acme.com"), own_server("login.staging.acme.com")),
        lambda: live_and_trial(own_server("login.acme.com"), own_server("login.acme.com")),
    ),
    row(
        "C11-missing-providers",
        WARNING,
        "Providers are missing",
        lambda: live_and_trial({}, {"box": {}}),
        lambda: live_and_trial({"box": {}}, {}),
    ),
    row(
        "C11-missing-routes",
        WARNING,
        "Routes are missing",
        lambda: live_and_trial({"box": {}}, {"box": {}}, trial_top={"routes": {"box": {}}}),
        lambda: live_and_trial({"box": {}}, {"box": {}}, live_top={"routes": {"box": {}}}),
    ),
    row(
        "C11-routes-never-rehearsed",
        INFO,
        "never rehearsed",
        lambda: live_and_trial({"box": {}}, {"box": {}}, live_top={"routes": {"box": {}}}),
        lambda: live_and_trial({"box": {}}, {"box": {}}),
    ),
    row(
        "C11-wider-route",
        WARNING,
        "other permissions",
        lambda: routes_with({}, {"allow": [{"methods": ["GET"]}]}),
        lambda: routes_with({"allow": [{"methods": ["GET"]}]}, {"allow": [{"methods": ["GET"]}]}),
    ),
    row(
        "D24-one-way",
        INFO,
        "cannot be turned back",
        lambda: live_and_trial({"slack": {}}, {"slack": {"pkce": True}}),
        lambda: live_and_trial({"slack": {}}, {"slack": {"client_id": "1.2", "pkce": True}}),
    ),
]


@pytest.mark.scenario("B03", "C01", "C03", "C05", "C06", "C07", "C11")
@pytest.mark.parametrize(COLUMNS, ROWS)
def test_a_check_finds_its_case_and_leaves_the_other(
    code: str, severity: Severity, title: str, bad: Make, good: Make
) -> None:
    judge(code, severity, title, bad, good)
