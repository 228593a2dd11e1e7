"""Every check: one case that it finds, and the nearest one that it leaves alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from authproxy.core.model import Environment, State
from authproxy.doctor.case import DAY, Case, Door, Probe, Seen
from authproxy.doctor.finding import Certainty, Severity
from authproxy.doctor.registry import CHECKS, ELSEWHERE, examine
from tests.doctor.cases import CANARY, MAIL, NOW, case, connection, told

Make = Callable[[], Case]
ERROR, WARNING, INFO = Severity.ERROR, Severity.WARNING, Severity.INFO
GMAIL: dict[str, Any] = {"gmail": {"scopes": [MAIL]}}
SALESFORCE = {"salesforce": {}}


def scenario(*names: str) -> Any:
    return pytest.mark.scenario(*names)


def row(name: str, severity: Severity, title: str, bad: Make, good: Make, *marks: Any) -> Any:
    """`name` begins with the code. `title` is part of the finding's."""
    return pytest.param(name.split("-")[0], severity, title, bad, good, id=name, marks=list(marks))


def google(environment: str = "production", *, routes: Any = GMAIL, **choice: Any) -> Case:
    return case({"google": choice}, environment, routes=routes)


def grants(*connections: Any, provider: str = "google", choice: Any = None, **more: Any) -> Case:
    return case({provider: choice or {}}, stored=list(connections), **more)


def dead(user: str, at: int, provider: str = "google", **fields: Any) -> Any:
    return connection(provider, user, state=State.NEEDS_REAUTH, reason="revoked_or_expired", **fields), at


def fallen(*pairs: Any, provider: str = "google", living: int = 0, **more: Any) -> Case:
    alive = [connection(provider, f"living-{n}") for n in range(living)]
    return grants(
        *(one for one, _ in pairs), *alive, provider=provider, ended={one.id: at for one, at in pairs}, **more
    )


def asked(provider: str = "google", environment: str = "production", choice: Any = None, **seen: Any) -> Case:
    return case({provider: choice or {}}, environment, seen={provider: Seen(**seen)})


def live_and_trial(live: Any, trial: Any, **more: Any) -> Case:
    """production.yaml against staging.yaml."""
    ours = {"public_url": "https://auth.acme.com", **more.pop("live_top", {})}
    theirs = {"public_url": "https://auth.staging.acme.com", **more.pop("trial_top", {})}
    other = case(trial, "staging", file="staging.yaml", stored=more.pop("trial_stored", None), **theirs)
    return case(live, file="production.yaml", against=other, **ours, **more)


def weeks(**fields: Any) -> Any:
    return connection(consented_at=NOW - 60 * DAY, **fields)


TESTING = {"publishing_status": "testing"}
PUBLISHED = {"publishing_status": "production", "published_on": "2026-01-31"}

ROWS = [
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
        scenario("C06"),
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
        scenario("C06"),
    ),
    row(
        "D02-died-at-seven-days",
        ERROR,
        "died seven days",
        lambda: fallen(dead("a", NOW - 3 * DAY), dead("b", NOW - 3 * DAY - 9000)),
        lambda: fallen(dead("a", NOW - 2 * DAY), dead("b", NOW - 5 * DAY)),
        scenario("C06"),
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
        scenario("C06"),
    ),
    row(
        "D10-idle-near",
        WARNING,
        "near their end",
        lambda: grants(connection("box", obtained_at=NOW - 50 * DAY), provider="box"),
        lambda: grants(connection("box", obtained_at=NOW - 40 * DAY), provider="box"),
        scenario("B15"),
    ),
    row(
        "D10-idle-over",
        ERROR,
        "longer than the provider allows",
        lambda: grants(connection("box", obtained_at=NOW - 61 * DAY), provider="box"),
        lambda: grants(connection("box", obtained_at=NOW - 50 * DAY), provider="box"),
        scenario("B15"),
    ),
    row(
        "D11-absolute-near",
        WARNING,
        "about to end",
        lambda: grants(connection("atlassian", consented_at=NOW - 360 * DAY), provider="atlassian"),
        lambda: grants(connection("atlassian", consented_at=NOW - 300 * DAY), provider="atlassian"),
        scenario("B15"),
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
        scenario("B15"),
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
        scenario("C05"),
    ),
    row(
        "D12-secret-ends-soon",
        WARNING,
        "ends soon",
        lambda: case({"microsoft": {"client_secret_expires_on": "2027-02-10"}}),
        lambda: case({"microsoft": {"client_secret_expires_on": "2027-03-10"}}),
        scenario("C05"),
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
    # --- redirect URIs
    row(
        "C01-own-machine",
        ERROR,
        "this machine's own",
        lambda: case({}, public_url="https://localhost:8701"),
        lambda: case({}, "development", public_url="http://localhost:8701"),
        scenario("C01"),
    ),
    row(
        "C01-bare-address",
        WARNING,
        "bare address",
        lambda: case({}, public_url="https://203.0.113.7"),
        lambda: case({}, public_url="https://auth.acme.com"),
        scenario("C01"),
    ),
    row(
        "C01-inner-name",
        WARNING,
        "inner name",
        lambda: case({}, public_url="https://authproxy.internal"),
        lambda: case({}, public_url="https://authproxy.acme.com"),
        scenario("C01"),
    ),
    row(
        "C03-trailing-slash",
        ERROR,
        "differs from what is registered",
        lambda: case({"hubspot": {"registered_redirect_uris": ["https://auth.acme.com/callback/hubspot/"]}}),
        lambda: case({"hubspot": {"registered_redirect_uris": ["https://auth.acme.com/callback/hubspot"]}}),
        scenario("C03"),
    ),
    row(
        "C03-below-is-enough-for-slack",
        ERROR,
        "differs from what is registered",
        lambda: case({"slack": {"registered_redirect_uris": ["https://auth.acme.com/call"]}}),
        lambda: case({"slack": {"registered_redirect_uris": ["https://auth.acme.com/callback"]}}),
        scenario("C03"),
    ),
    row(
        "D15-localhost",
        ERROR,
        "localhost is refused",
        lambda: case({"spotify": {}}, "development", public_url="http://localhost:8701"),
        lambda: case({"spotify": {}}, "development", public_url="http://127.0.0.1:8701"),
    ),
    row(
        "D15-plain-http",
        ERROR,
        "wants https",
        lambda: case({"google": {}}, "development", public_url="http://dev.acme.com"),
        lambda: case({"google": {}}, "development"),
    ),
    row(
        "D15-https-even-on-loopback",
        WARNING,
        "https even here",
        lambda: case({"shopify": {"subdomain": "acme"}}, "development"),
        lambda: case({"shopify": {"subdomain": "acme"}}),
    ),
    row(
        "D15-wildcard",
        ERROR,
        "wildcard",
        lambda: case({"google": {"registered_redirect_uris": ["https://*.acme.com/callback/google"]}}),
        lambda: case({"google": {"registered_redirect_uris": ["https://auth.acme.com/callback/google"]}}),
    ),
    row(
        "D15-too-many",
        ERROR,
        "More redirect URIs",
        lambda: case(
            {
                "reddit": {
                    "registered_redirect_uris": ["https://auth.acme.com/callback/reddit", "https://a.b/c"]
                }
            }
        ),
        lambda: case({"reddit": {"registered_redirect_uris": ["https://auth.acme.com/callback/reddit"]}}),
    ),
    row(
        "D15-out-of-band",
        ERROR,
        "withdrawn",
        lambda: case({"google": {"registered_redirect_uris": ["urn:ietf:wg:oauth:2.0:oob"]}}),
        lambda: case({"google": {"registered_redirect_uris": ["https://auth.acme.com/callback/google"]}}),
    ),
    row(
        "D15-door-shows-an-error",
        ERROR,
        "redirect_uri_mismatch",
        lambda: asked(door=Door(400, page="redirect_uri_mismatch")),
        lambda: asked(door=Door(302, host="accounts.google.com")),
        scenario("C03"),
    ),
    row(
        "D15-door-is-a-bare-error-page",
        WARNING,
        "error page",
        lambda: asked("github", door=Door(404)),
        lambda: asked("github", door=Door(200)),
    ),
    row(
        "D15-door-has-trouble",
        INFO,
        "has trouble",
        lambda: asked("github", door=Door(503)),
        lambda: asked("github", door=Door(403)),  # shown to what is no browser
    ),
    row(
        "D15-words-in-a-login-page",
        WARNING,
        "invalid_client_id",
        lambda: asked(door=Door(200, page="invalid_client_id")),
        lambda: asked(door=Door(200)),
    ),
    # --- environments
    row(
        "D04-salesforce-sandbox-in-production",
        ERROR,
        "test environment in production",
        lambda: case({"salesforce": {"environment": "sandbox"}}),
        lambda: case(SALESFORCE),
    ),
    row(
        "D04-instances-of-the-other",
        ERROR,
        "Instances of the other",
        lambda: grants(
            connection("salesforce", extra={"instance_url": "https://acme--uat.sandbox.my.salesforce.com"}),
            provider="salesforce",
        ),
        lambda: grants(
            connection("salesforce", extra={"instance_url": "https://acme.my.salesforce.com"}),
            provider="salesforce",
        ),
    ),
    row(
        "D04-test-login-host",
        ERROR,
        "host of another environment",
        lambda: case(
            {"salesforce": {"endpoints": {"token": "https://test.salesforce.com/services/oauth2/token"}}}
        ),
        lambda: case(
            {"salesforce": {"endpoints": {"token": "https://login.salesforce.com/services/oauth2/token"}}}
        ),
    ),
    row(
        "D05-docusign-demo",
        ERROR,
        "test environment in production",
        lambda: case({"docusign": {"environment": "demo"}}),
        lambda: case({"docusign": {"environment": "production"}}),
    ),
    row(
        "D05-demo-host-beside-production",
        ERROR,
        "host of another environment",
        lambda: case(
            {"docusign": {}},
            routes={"sign": {"upstream": "https://demo.docusign.net", "provider": "docusign"}},
        ),
        lambda: case(
            {"docusign": {}},
            routes={"sign": {"upstream": "https://www.docusign.net", "provider": "docusign"}},
        ),
    ),
    row(
        "D05-production-host-beside-sandbox",
        ERROR,
        "host of the usual environment",
        lambda: case(
            {"quickbooks": {"environment": "sandbox", "api_hosts": ["quickbooks.api.intuit.com"]}},
            "staging",
            routes={"books": {"upstream": "https://quickbooks.api.intuit.com", "provider": "quickbooks"}},
        ),
        lambda: case({"quickbooks": {"environment": "sandbox"}}, "staging", routes={"quickbooks": {}}),
    ),
    row(
        "D05-staging-on-production",
        INFO,
        "Staging against the provider's production",
        lambda: case({"docusign": {}}, "staging"),
        lambda: case({"docusign": {"environment": "demo"}}, "staging"),
    ),
    row(
        "D06-test-key-in-production",
        ERROR,
        "test key in production",
        lambda: case({"stripe": {}}, environ={"SECRET": "sk_test_CANARY"}),
        lambda: case({"stripe": {}}, environ={"SECRET": "sk_live_CANARY"}),
    ),
    row(
        "D06-live-key-in-staging",
        WARNING,
        "live key outside",
        lambda: case({"stripe": {}}, "staging", environ={"SECRET": "sk_live_CANARY"}),
        lambda: case({"stripe": {}}, "staging", environ={"SECRET": "sk_test_CANARY"}),
    ),
    row(
        "D06-grants-of-the-other-mode",
        ERROR,
        "other mode",
        lambda: grants(
            connection("stripe", extra={"livemode": "false"}),
            provider="stripe",
            environ={"SECRET": "sk_live_CANARY"},
        ),
        lambda: grants(
            connection("stripe", extra={"livemode": "true"}),
            provider="stripe",
            environ={"SECRET": "sk_live_CANARY"},
        ),
    ),
    row(
        "C12-store-of-another",
        ERROR,
        "belongs to another environment",
        lambda: case({}, store_trouble="environment_mismatch"),
        lambda: case({}, stored=[]),
        scenario("C12"),
    ),
    row(
        "C12-rows-of-another",
        ERROR,
        "Rows of another",
        lambda: grants(connection(environment=Environment.STAGING)),
        lambda: grants(connection()),
        scenario("C12"),
    ),
    row(
        "C09-other-keys",
        WARNING,
        "was not read",
        lambda: case({}, store_trouble="key_unknown"),
        lambda: case({}, store_trouble="environment_mismatch"),
        scenario("C09"),
    ),
    row(
        "C09-store-out-of-reach",
        WARNING,
        "was not read",
        lambda: case({}, store_trouble="unreachable"),
        lambda: case({}, stored=[]),
    ),
    row(
        "C09-rows-not-opened",
        ERROR,
        "cannot be opened",
        lambda: grants(connection(state=State.MISCONFIGURED, reason="unreadable")),
        lambda: grants(connection()),
        scenario("C09"),
    ),
    # --- scopes
    row(
        "D16-joined",
        ERROR,
        "Several scopes in one word",
        lambda: case({"github": {"scopes": ["repo,read:user"]}}),
        lambda: case({"github": {"scopes": ["repo", "read:user"]}}),
    ),
    row(
        "D16-entra-default",
        ERROR,
        ".default beside",
        lambda: case(
            {"microsoft": {"scopes": ["https://graph.microsoft.com/.default", "Mail.Read", "offline_access"]}}
        ),
        lambda: case({"microsoft": {"scopes": ["https://graph.microsoft.com/.default", "offline_access"]}}),
    ),
    row(
        "D16-github-app",
        WARNING,
        "Scopes for a GitHub App",
        lambda: case({"github-app": {"scopes": ["repo"]}}),
        lambda: case({"github-app": {}}),
    ),
    row(
        "D16-slack-user-scopes",
        ERROR,
        "User scopes",
        lambda: case({"slack": {"scopes": ["chat:write", "search:read"]}}),
        lambda: case({"slack_user": {"scopes": ["search:read"]}}),
    ),
    row(
        "D17-declined",
        WARNING,
        "granted less",
        lambda: grants(connection(scopes=("openid",), requested_scopes=("openid", MAIL))),
        lambda: grants(connection(scopes=(MAIL, "openid"), requested_scopes=("openid", MAIL))),
    ),
    row(
        "D17-older-than-routes",
        WARNING,
        "older than the scopes",
        lambda: grants(connection(scopes=("openid",), requested_scopes=("openid",)), routes=GMAIL),
        lambda: grants(connection(scopes=("openid", MAIL), requested_scopes=("openid",)), routes=GMAIL),
    ),
    row(
        "C07-restricted",
        WARNING,
        "Restricted scopes",
        lambda: google(),
        lambda: google(**PUBLISHED),
        scenario("C07"),
    ),
    row(
        "C07-sensitive",
        INFO,
        "Sensitive scopes",
        lambda: google(routes={}, scopes=["https://www.googleapis.com/auth/calendar.events"]),
        lambda: google(routes={}, scopes=["openid", "email"]),
        scenario("C07"),
    ),
    row(
        "C07-refused-at-the-door",
        ERROR,
        "invalid_scope",
        lambda: asked(door=Door(302, error="invalid_scope")),
        lambda: asked(door=Door(302)),
        scenario("C07"),
    ),
    # --- clients
    row(
        "C11-not-set",
        WARNING,
        "Not set here",
        lambda: case({"hubspot": {}}, environ={}),
        lambda: case({"hubspot": {}}),
        scenario("C11"),
    ),
    row(
        "C10-whitespace",
        WARNING,
        "Whitespace",
        lambda: case({"hubspot": {}}, environ={"SECRET": f"{CANARY}\n"}),
        lambda: case({"hubspot": {}}, environ={"SECRET": CANARY}),
        scenario("C10"),
    ),
    row(
        "D13-method-unknown",
        ERROR,
        "does not take",
        lambda: case({"hubspot": {"client_auth": "client_secret_basic", "client_secret": "env:SECRET"}}),
        lambda: case({"hubspot": {"client_auth": "client_secret_post", "client_secret": "env:SECRET"}}),
    ),
    row(
        "D13-method-not-listed",
        ERROR,
        "does not list",
        lambda: asked(
            choice={"client_auth": "client_secret_basic", "client_secret": "env:SECRET"},
            discovery={"token_endpoint_auth_methods_supported": ["client_secret_post"]},
        ),
        lambda: asked(discovery={"token_endpoint_auth_methods_supported": ["client_secret_post"]}),
    ),
    row(
        "D13-no-method-of-ours",
        ERROR,
        "does not list",
        lambda: asked(discovery={"token_endpoint_auth_methods_supported": ["private_key_jwt"]}),
        lambda: asked(discovery={"token_endpoint_auth_methods_supported": ["private_key_jwt", "none"]}),
    ),
    row(
        "D14-required",
        ERROR,
        "PKCE is required",
        lambda: case({"airtable": {"pkce": False}}),
        lambda: case({"airtable": {}}),
    ),
    row(
        "D14-required-of-some",
        WARNING,
        "required of some",
        lambda: case({"salesforce": {"pkce": False}}),
        lambda: case({"salesforce": {"pkce": True}}),
    ),
    row(
        "D14-unknown-there",
        ERROR,
        "not known there",
        lambda: case({"linkedin": {"pkce": True}}),
        lambda: case({"linkedin": {}}),
    ),
    row(
        "D14-switch-of-the-app",
        INFO,
        "switched on for the app",
        lambda: case({"slack": {"pkce": True}}),
        lambda: case({"slack": {}}),
    ),
    row(
        "D14-not-listed",
        ERROR,
        "does not list S256",
        lambda: asked(choice={"pkce": True}, discovery={"code_challenge_methods_supported": ["plain"]}),
        lambda: asked(choice={"pkce": True}, discovery={"code_challenge_methods_supported": ["S256"]}),
    ),
    row(
        "D25-app-number",
        ERROR,
        "Another kind of app",
        lambda: case({"github-app": {"client_id": "123456"}}),
        lambda: case({"github-app": {"client_id": "Iv23liABCDEF"}}),
    ),
    row(
        "D25-github-app-as-oauth-app",
        ERROR,
        "Another kind of app",
        lambda: case({"github": {"client_id": "Iv1.0123456789abcdef"}}),
        lambda: case({"github": {"client_id": "Ov23liABCDEF"}}),
    ),
    row(
        "D25-google-form",
        WARNING,
        "Another kind of app",
        lambda: case({"google": {"client_id": "client-1"}}),
        lambda: case({"google": {"client_id": "1234-abc.apps.googleusercontent.com"}}),
    ),
    row(
        "C04-another-client",
        ERROR,
        "Grants of another client",
        lambda: grants(connection(client_id="former")),
        lambda: grants(connection()),
        scenario("C04"),
    ),
    row(
        "C05-client-refused",
        ERROR,
        "refuses the app registration",
        lambda: grants(connection(state=State.MISCONFIGURED, reason="client_credentials")),
        lambda: grants(connection(state=State.NEEDS_REAUTH, reason="revoked")),
        scenario("C05"),
    ),
    row(
        "D12-probe-refuses-the-client",
        ERROR,
        "refuses the client",
        lambda: asked(probe=Probe("misconfigured", "invalid_client", "client_credentials", "", 401)),
        lambda: asked(probe=Probe("dead", "invalid_grant", "unknown", "", 400)),
        scenario("C05"),
    ),
    row(
        "D12-probe-not-clear",
        INFO,
        "not clear",
        lambda: asked(probe=Probe("transient", "http_503", "unavailable", "", 503)),
        lambda: asked(probe=Probe("dead", "invalid_grant", "unknown", "", 400)),
    ),
    row(
        "D18-misread",
        ERROR,
        "reads as a success",
        lambda: asked(probe=Probe("success", status=200)),
        lambda: asked(probe=Probe("dead", "invalid_grant", "unknown", "", 400)),
    ),
    row(
        "D18-misnamed",
        ERROR,
        "under another entry",
        lambda: case(
            {"acme": {"issuer": "https://accounts.google.com", "api_hosts": ["gmail.googleapis.com"]}}
        ),
        lambda: case({"acme": {"issuer": "https://login.acme.com", "api_hosts": ["api.acme.com"]}}),
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
        scenario("C12"),
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
        scenario("B03"),
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
        scenario("B03"),
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
        scenario("B03"),
    ),
    # --- hosts
    row(
        "D19-no-instance",
        ERROR,
        "without their own API host",
        lambda: grants(connection("salesforce"), provider="salesforce"),
        lambda: grants(
            connection("salesforce", extra={"instance_url": "https://acme.my.salesforce.com"}),
            provider="salesforce",
        ),
    ),
    row(
        "D19-fixed-instance",
        WARNING,
        "One instance is fixed",
        lambda: case(
            SALESFORCE,
            routes={"crm": {"upstream": "https://acme.my.salesforce.com", "provider": "salesforce"}},
        ),
        lambda: case(SALESFORCE, routes={"salesforce": {}}),
    ),
    row(
        "D20-foreign-host",
        WARNING,
        "not the provider's",
        lambda: case({"hubspot": {"api_hosts": ["api.elsewhere.com"]}}),
        lambda: case({"hubspot": {"api_hosts": ["files.hubapi.com"]}}),
    ),
    row(
        "D20-one-host-for-two",
        WARNING,
        "for two providers",
        lambda: case(
            {"hubspot": {"api_hosts": ["gateway.acme.com"]}, "box": {"api_hosts": ["gateway.acme.com"]}}
        ),
        lambda: case({"hubspot": {"api_hosts": ["one.acme.com"]}, "box": {"api_hosts": ["two.acme.com"]}}),
    ),
    row(
        "D22-headers",
        INFO,
        "Agents must send headers",
        lambda: case({"notion": {}}, routes={"notion": {}}),
        lambda: case({"hubspot": {}}, routes={"hubspot": {}}),
    ),
    # --- endpoints
    row(
        "D21-ends-soon",
        WARNING,
        "ends soon",
        lambda: case({"hubspot": {"endpoints": {"token": "https://api.hubapi.com/oauth/v1/token"}}}),
        lambda: case({"hubspot": {}}),
    ),
    row(
        "D21-has-ended",
        ERROR,
        "has ended",
        lambda: case(
            {"hubspot": {"endpoints": {"token": "https://api.hubapi.com/oauth/v1/token"}}}, now=NOW + 60 * DAY
        ),
        lambda: case({"hubspot": {"endpoints": {"token": "https://api.hubapi.com/oauth/v1/token"}}}),
    ),
    row(
        "D29-another-issuer",
        ERROR,
        "another issuer",
        lambda: asked(
            "acme",
            choice={"issuer": "https://login.acme.com", "api_hosts": ["api.acme.com"]},
            discovery={"issuer": "https://login.acme.com/"},
        ),
        lambda: asked(
            "acme",
            choice={"issuer": "https://login.acme.com", "api_hosts": ["api.acme.com"]},
            discovery={"issuer": "https://login.acme.com"},
        ),
    ),
    row(
        "D29-another-endpoint",
        WARNING,
        "Another token endpoint",
        lambda: asked(
            discovery={
                "issuer": "https://accounts.google.com",
                "token_endpoint": "https://new.googleapis.com/t",
            }
        ),
        lambda: asked(
            discovery={
                "issuer": "https://accounts.google.com",
                "token_endpoint": "https://oauth2.googleapis.com/token",
            }
        ),
    ),
    row(
        "D29-no-document",
        WARNING,
        "No discovery document",
        lambda: asked(
            "acme",
            choice={"issuer": "https://login.acme.com", "api_hosts": ["api.acme.com"]},
            trouble=(("discovery", "http_404"),),
        ),
        lambda: asked(
            "acme",
            choice={"issuer": "https://login.acme.com", "api_hosts": ["api.acme.com"]},
            discovery={"issuer": "https://login.acme.com"},
        ),
    ),
    row(
        "D29-not-reached",
        WARNING,
        "could not be asked",
        lambda: asked(trouble=(("token endpoint", "dns"),)),
        lambda: asked(probe=Probe("dead", "invalid_grant", "unknown", "", 400)),
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
        scenario("J13"),
    ),
    # --- two configurations
    row(
        "D07-one-client",
        WARNING,
        "One client in two",
        lambda: live_and_trial({"salesforce": {}}, {"salesforce": {}}),
        lambda: live_and_trial({"salesforce": {}}, {"salesforce": {"client_id": "its own"}}),
        scenario("B03"),
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
        scenario("C05"),
    ),
    row(
        "C01-one-address",
        ERROR,
        "at one address",
        lambda: live_and_trial({}, {}, trial_top={"public_url": "https://auth.acme.com"}),
        lambda: live_and_trial({}, {}),
        scenario("C01"),
    ),
    row(
        "C01-trial-s-uri-registered",
        ERROR,
        "trial's redirect URI",
        lambda: live_and_trial(
            {"box": {"registered_redirect_uris": ["https://auth.staging.acme.com/callback/box"]}}, {"box": {}}
        ),
        lambda: live_and_trial(
            {"box": {"registered_redirect_uris": ["https://auth.acme.com/callback/box"]}}, {"box": {}}
        ),
        scenario("C01"),
    ),
    row(
        "C01-uri-to-register",
        INFO,
        "to register before the launch",
        lambda: live_and_trial({"box": {}}, {"box": {}}),
        lambda: live_and_trial(
            {"box": {"registered_redirect_uris": ["https://auth.acme.com/callback/box"]}}, {"box": {}}
        ),
        scenario("C01"),
    ),
    row(
        "C07-never-rehearsed",
        WARNING,
        "never rehearsed",
        lambda: live_and_trial({"box": {"scopes": ["root_readwrite"]}}, {"box": {}}),
        lambda: live_and_trial({"box": {}}, {"box": {}}),
        scenario("C07"),
    ),
    row(
        "C07-missing-after-launch",
        WARNING,
        "missing after the launch",
        lambda: live_and_trial({"box": {}}, {"box": {"scopes": ["root_readwrite"]}}),
        lambda: live_and_trial({"box": {}}, {"box": {}}),
        scenario("C07"),
    ),
    row(
        "D02-one-client-two-statuses",
        ERROR,
        "both as testing and as published",
        lambda: live_and_trial({"google": {"scopes": [MAIL], **PUBLISHED}}, {"google": TESTING}),
        lambda: live_and_trial(
            {"google": {"scopes": [MAIL], **PUBLISHED}}, {"google": {"client_id": "its own", **TESTING}}
        ),
        scenario("C06"),
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
        scenario("C06"),
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
        scenario("C11"),
    ),
    row(
        "C11-missing-routes",
        WARNING,
        "Routes are missing",
        lambda: live_and_trial({"box": {}}, {"box": {}}, trial_top={"routes": {"box": {}}}),
        lambda: live_and_trial({"box": {}}, {"box": {}}, live_top={"routes": {"box": {}}}),
        scenario("C11"),
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


@pytest.mark.parametrize(("code", "severity", "title", "bad", "good"), ROWS)
def test_a_check_finds_its_case_and_leaves_the_other(
    code: str, severity: Severity, title: str, bad: Make, good: Make
) -> None:
    found = told(bad(), code, title)
    assert [one.severity for one in found] == [severity], found
    quiet = told(good(), code, title)
    assert [one for one in quiet if one.severity == severity] == []


@pytest.mark.parametrize(("code", "severity", "title", "bad", "good"), ROWS)
def test_findings_are_whole_sentences_without_secrets(
    code: str, severity: Severity, title: str, bad: Make, good: Make
) -> None:
    for one in (*examine(bad()), *examine(good())):
        assert one.code[0] in "BCDJ"
        assert one.code[1:].isdigit()
        for text in (one.wrong, one.why, one.do):
            assert text.endswith((".", ".)")), text
            assert "  " not in text
        assert "CANARY" not in repr(one)
        assert "{" not in one.wrong + one.why + one.do


def test_every_code_is_checked_or_said_to_be_elsewhere() -> None:
    known = {one.code for one in CHECKS} | set(ELSEWHERE)
    assert {f"D{n:02}" for n in range(1, 31)} <= known
    assert {f"C{n:02}" for n in range(1, 13)} <= known
    assert {"B03", "B15", "J13"} <= known


def test_every_check_says_what_it_looks_at() -> None:
    for one in CHECKS:
        assert len(one.looks_at) > 40, one.title
        assert one.looks_at.endswith("."), one.title


def test_every_check_is_made_to_speak() -> None:
    cases = [value.values[3]() for value in ROWS]
    silent = [
        one.title for one in CHECKS if not any(list(one(each)) for each in cases if not one.missing(each))
    ]
    assert silent == []


def test_an_unverified_fact_is_never_certain() -> None:
    found = told(case({"spotify": {}}, "development", public_url="http://localhost:8701"), "D15")
    assert {one.sure for one in found} <= set(Certainty)
    registration = case({"google": {}}).registrations["google"]
    assert "redirect_uri.loopback" in registration.facts.unverified
    assert registration.sure("redirect_uri.loopback") is Certainty.LIKELY
    assert registration.sure("redirect_uri") is Certainty.LIKELY
    assert registration.sure("refresh_token.idle_expiry") is Certainty.CERTAIN
    assert registration.sure("notes", at_best=Certainty.LIKELY) is Certainty.POSSIBLE


@pytest.mark.scenario("C03")
@pytest.mark.parametrize(
    ("theirs", "words"),
    [
        ("https://auth.acme.com/callback/x/", "a slash at the end"),
        ("https://auth.acme.com/Callback/x", "upper and lower case"),
        ("http://auth.acme.com/callback/x", "the scheme (from character 5 on)"),
        ("https://auth.acme.com:8443/callback/x", "the port"),
        ("https://staging.acme.com/callback/x", "the host"),
        ("https://auth.acme.com/oauth/x", "the path"),
        ("https://auth.acme.com/callback/x?a=1", "the query"),
        ("https://auth.acme.com:port/", "no URL"),
    ],
)
def test_differences_between_redirect_uris_are_named(theirs: str, words: str) -> None:
    from authproxy.doctor.redirects import difference

    assert words in difference("https://auth.acme.com/callback/x", theirs)


def test_the_one_nearer_to_users_is_the_one_that_goes_live() -> None:
    live = case({"box": {}}, file="production.yaml")
    swapped = case(
        {"box": {"scopes": ["root_readwrite"]}},
        "staging",
        file="staging.yaml",
        public_url="https://auth.staging.acme.com",
        against=live,
    )
    assert "Only staging.yaml" in told(swapped, "C07", "missing after the launch")[0].wrong


def test_a_sealed_away_secret_does_not_stop_the_doctor() -> None:
    """In production a missing secret is an error to `serve`; the doctor looks at the rest from a laptop."""
    own = {"client_id": "env:ID", "scopes": [MAIL]}
    found = examine(case({"google": TESTING | own}, environ={}))
    assert [one.code for one in found if one.severity is ERROR] == ["D02"]
    assert [one.code for one in found if one.severity is WARNING] == ["C11"]
    assert "env:ID and env:SECRET" in told(case({"google": own}, environ={}), "C11")[0].wrong
