"""Checks of what is configured: redirect URIs, environments, scopes, clients, hosts, endpoints."""

from __future__ import annotations

import pytest

from authproxy.core.model import Environment, State
from authproxy.doctor.case import DAY, Door, Probe
from authproxy.doctor.finding import Severity
from tests.doctor.cases import (
    CANARY,
    COLUMNS,
    ERROR,
    GMAIL,
    INFO,
    MAIL,
    NOW,
    PUBLISHED,
    SALESFORCE,
    WARNING,
    Make,
    asked,
    case,
    connection,
    google,
    grants,
    judge,
    row,
)

ROWS = [
    # --- redirect URIs
    row(
        "C01-own-machine",
        ERROR,
        "this machine's own",
        lambda: case({}, public_url="https://localhost:8701"),
        lambda: case({}, "development", public_url="http://localhost:8701"),
    ),
    row(
        "C01-bare-address",
        WARNING,
        "bare address",
        lambda: case({}, public_url="https://203.0.113.7"),
        lambda: case({}, public_url="https://auth.acme.com"),
    ),
    row(
        "C01-inner-name",
        WARNING,
        "inner name",
        lambda: case({}, public_url="https://authproxy.internal"),
        lambda: case({}, public_url="https://authproxy.acme.com"),
    ),
    row(
        "C03-trailing-slash",
        ERROR,
        "differs from what is registered",
        lambda: case({"hubspot": {"registered_redirect_uris": ["https://auth.acme.com/callback/hubspot/"]}}),
        lambda: case({"hubspot": {"registered_redirect_uris": ["https://auth.acme.com/callback/hubspot"]}}),
    ),
    row(
        "C03-below-is-enough-for-slack",
        ERROR,
        "differs from what is registered",
        lambda: case({"slack": {"registered_redirect_uris": ["https://auth.acme.com/call"]}}),
        lambda: case({"slack": {"registered_redirect_uris": ["https://auth.acme.com/callback"]}}),
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
    ),
    row(
        "C12-rows-of-another",
        ERROR,
        "Rows of another",
        lambda: grants(connection(environment=Environment.STAGING)),
        lambda: grants(connection()),
    ),
    row(
        "C09-other-keys",
        WARNING,
        "was not read",
        lambda: case({}, store_trouble="key_unknown"),
        lambda: case({}, store_trouble="environment_mismatch"),
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
    ),
    row(
        "C07-sensitive",
        INFO,
        "Sensitive scopes",
        lambda: google(routes={}, scopes=["https://www.googleapis.com/auth/calendar.events"]),
        lambda: google(routes={}, scopes=["openid", "email"]),
    ),
    row(
        "C07-refused-at-the-door",
        ERROR,
        "invalid_scope",
        lambda: asked(door=Door(302, error="invalid_scope")),
        lambda: asked(door=Door(302)),
    ),
    # --- clients
    row(
        "C11-not-set",
        WARNING,
        "Not set here",
        lambda: case({"hubspot": {}}, environ={}),
        lambda: case({"hubspot": {}}),
    ),
    row(
        "C10-whitespace",
        WARNING,
        "Whitespace",
        lambda: case({"hubspot": {}}, environ={"SECRET": f"{CANARY}\n"}),
        lambda: case({"hubspot": {}}, environ={"SECRET": CANARY}),
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
    ),
    row(
        "C05-client-refused",
        ERROR,
        "refuses the app registration",
        lambda: grants(connection(state=State.MISCONFIGURED, reason="client_credentials")),
        lambda: grants(connection(state=State.NEEDS_REAUTH, reason="revoked")),
    ),
    row(
        "D12-probe-refuses-the-client",
        ERROR,
        "refuses the client",
        lambda: asked(probe=Probe("misconfigured", "invalid_client", "client_credentials", "", 401)),
        lambda: asked(probe=Probe("dead", "invalid_grant", "unknown", "", 400)),
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
]


@pytest.mark.scenario("C01", "C03", "C04", "C05", "C07", "C09", "C10", "C11", "C12")
@pytest.mark.parametrize(COLUMNS, ROWS)
def test_a_check_finds_its_case_and_leaves_the_other(
    code: str, severity: Severity, title: str, bad: Make, good: Make
) -> None:
    judge(code, severity, title, bad, good)
