"""How each provider says what the sandbox has to say: data, and one function where its token answer has a shape
of its own. Shapes follow the providers' documentation; none of them claims to be the provider."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from authproxy.sandbox.dialect import STANDARD, Context, Dialect, Members, Said, number_of, rfc6749


def _google_offline(query: Mapping[str, str], _scopes: tuple[str, ...], first: bool) -> bool:
    return query.get("access_type") == "offline" and (first or "consent" in query.get("prompt", "").split())


def _google_api(code: int, status: str, reason: str, message: str, www: str = "") -> Said:
    detail = {
        "@type": "type.googleapis.com/google.rpc.ErrorInfo",
        "reason": reason,
        "domain": "googleapis.com",
    }
    body = {"error": {"code": code, "message": message, "status": status, "details": [detail]}}
    return Said(code, body, {"WWW-Authenticate": www} if www else {})


_GOOGLE_401 = 'Bearer realm="https://accounts.google.com/", error="invalid_token"'

GOOGLE = Dialect(
    "google",
    access_prefixes={"user": "ya29."},
    refresh_prefix="1//",
    rotate=False,
    max_grants=100,
    revocation="anyone",
    tells_refresh_expiry=0,
    offline=_google_offline,
    errors={
        "invalid_grant": Said(400, rfc6749("invalid_grant", "Token has been expired or revoked.")),
        "invalid_client": Said(401, rfc6749("invalid_client", "Unauthorized")),
        "invalid_code": Said(400, rfc6749("invalid_grant", "Bad Request")),
        "redirect_mismatch": Said(400, rfc6749("redirect_uri_mismatch", "Bad Request")),
        "invalid_scope": Said(400, rfc6749("invalid_scope", "Bad Request")),
    },
    api_errors={
        **{
            fault: _google_api(
                401, "UNAUTHENTICATED", reason, "Request had invalid authentication credentials.", _GOOGLE_401
            )
            for fault, reason in (
                ("missing", "CREDENTIALS_MISSING"),
                ("invalid", "ACCESS_TOKEN_TYPE_UNSUPPORTED"),
                ("expired", "ACCESS_TOKEN_EXPIRED"),
                ("revoked", "ACCESS_TOKEN_EXPIRED"),
            )
        },
        "scope": _google_api(
            403,
            "PERMISSION_DENIED",
            "ACCESS_TOKEN_SCOPE_INSUFFICIENT",
            "Request had insufficient authentication scopes.",
            'Bearer realm="https://accounts.google.com/", error="insufficient_scope", scope="{scope}"',
        ),
        "rate": _google_api(429, "RESOURCE_EXHAUSTED", "RATE_LIMIT_EXCEEDED", "Quota exceeded."),
        "down": _google_api(500, "INTERNAL", "INTERNAL", "Internal error encountered."),
    },
)


def _slack(members: Members, context: Context) -> Members:
    """The user's token is nested under authed_user in the code exchange, and at the top level on refresh."""
    told = {key: value for key, value in members.items() if key != "id_token"}
    told["token_type"] = context.kind if members.get("token_type") == "Bearer" else members.get("token_type")
    person = {"id": f"U-{context.user}"}
    around = {
        "ok": True,
        "app_id": context.client_id,
        "team": {"id": "T-SANDBOX", "name": "Sandbox"},
        "enterprise": None,
    }
    if context.at_consent and context.kind == "user":
        return {**around, "authed_user": {**person, **told}}
    return {**around, **told, "bot_user_id": "B-SANDBOX", "authed_user": person}


def _slack_error(code: str, **more: Any) -> Said:
    return Said(200, {"ok": False, "error": code, **more})


SLACK = Dialect(
    "slack",
    kind="bot",
    pkce="refused",
    revocation="bearer",
    access_prefixes={"bot": "xoxe.xoxb-1-", "user": "xoxe.xoxp-1-"},
    refresh_prefix="xoxe-1-",
    access_life=43200,
    asked_separator=",",
    granted_separator=",",
    shape=_slack,
    api_answer=lambda members: {"ok": True, **members},
    errors={
        "invalid_request": _slack_error("invalid_arguments"),
        "invalid_grant": _slack_error("invalid_refresh_token"),
        "invalid_client": _slack_error("bad_client_secret"),
        "invalid_code": _slack_error("invalid_code"),
        "redirect_mismatch": _slack_error("bad_redirect_uri"),
        "unsupported_grant_type": _slack_error("invalid_grant_type"),
        "invalid_scope": _slack_error("invalid_scope"),
        "pkce_not_allowed": _slack_error("pkce_not_allowed"),
        "rate_limited": Said(429, {"ok": False, "error": "ratelimited"}, {"Retry-After": "30"}),
        "server_error": _slack_error("internal_error"),
        "temporarily_unavailable": _slack_error("service_unavailable"),
    },
    api_errors={
        "missing": _slack_error("not_authed"),
        "invalid": _slack_error("invalid_auth"),
        "expired": _slack_error("token_expired"),
        "revoked": _slack_error("token_revoked"),
        "scope": _slack_error("missing_scope", needed="{scope}", provided="{granted}"),
        "rate": Said(429, {"ok": False, "error": "ratelimited"}, {"Retry-After": "30"}),
        "down": _slack_error("internal_error"),
    },
)


def _github(members: Members, _context: Context) -> Members:
    return {key: value for key, value in members.items() if key != "id_token"} | {"token_type": "bearer"}


def _github_app(members: Members, context: Context) -> Members:
    return {**_github(members, context), "scope": ""}


def _github_error(code: str, text: str) -> Said:
    uri = "/apps/managing-oauth-apps/troubleshooting-oauth-app-access-token-request-errors/"
    return Said(200, {"error": code, "error_description": text, "error_uri": uri})


def _github_api(status: int, message: str, **headers: str) -> Said:
    body = {"message": message, "documentation_url": "https://docs.github.com/rest", "status": str(status)}
    return Said(status, body, {name.replace("_", "-"): value for name, value in headers.items()})


_GITHUB_WAYS: dict[str, Any] = {
    "refresh_prefix": "ghr_",
    "access_life": 28800,
    "revoke_old_access": True,
    "tells_refresh_expiry": 15897600,
    "form_unless_json": True,
    "revocation": "basic_json",
    "errors": {
        "invalid_grant": _github_error(
            "bad_refresh_token", "The refresh token passed is incorrect or expired."
        ),
        "invalid_client": _github_error(
            "incorrect_client_credentials", "The client_id and/or client_secret passed are incorrect."
        ),
        "invalid_code": _github_error("bad_verification_code", "The code passed is incorrect or expired."),
        "redirect_mismatch": _github_error(
            "redirect_uri_mismatch",
            "The redirect_uri MUST match the registered callback URL for this application.",
        ),
        "unsupported_grant_type": _github_error("unsupported_grant_type", "The grant type is not supported."),
    },
    "api_errors": {
        "missing": _github_api(401, "Requires authentication"),
        **{fault: _github_api(401, "Bad credentials") for fault in ("invalid", "expired", "revoked")},
        "scope": _github_api(
            403,
            "Resource not accessible by integration",
            X_OAuth_Scopes="{granted}",
            X_Accepted_OAuth_Scopes="{scope}",
        ),
        "rate": _github_api(
            403, "You have exceeded a secondary rate limit.", Retry_After="60", X_RateLimit_Remaining="0"
        ),
        "down": _github_api(500, "Server Error"),
    },
}

GITHUB = Dialect(
    "github",
    access_prefixes={"user": "gho_"},
    granted_separator=",",
    max_grants=10,
    shape=_github,
    expiring=lambda scopes: "offline_access" in scopes,
    **_GITHUB_WAYS,
)
GITHUB_APP = Dialect("github-app", access_prefixes={"user": "ghu_"}, shape=_github_app, **_GITHUB_WAYS)


def _salesforce(members: Members, context: Context) -> Members:
    """No expires_in, a host of its own for each grant, and a time in milliseconds as text."""
    identity = f"{context.issuer}/id/00DSANDBOX/{context.user}"
    stamp = str(int(context.now * 1000))
    return {
        "instance_url": context.issuer,
        "id": identity,
        "issued_at": stamp,
        "signature": "sandbox",
        **members,
    }


def _salesforce_offline(_query: Mapping[str, str], scopes: tuple[str, ...], _first: bool) -> bool:
    return not {"refresh_token", "offline_access"}.isdisjoint(scopes)


def _salesforce_api(status: int, code: str, message: str) -> Said:
    return Said(status, [{"message": message, "errorCode": code}])


SALESFORCE = Dialect(
    "salesforce",
    access_prefixes={"user": "00DSANDBOX!"},
    refresh_prefix="5Aep",
    access_life=7200,
    rotate=False,
    revoke_family_on_reuse=True,
    refuse_parallel=True,
    max_grants=5,
    revocation="anyone",
    tells_expiry=False,
    shape=_salesforce,
    offline=_salesforce_offline,
    errors={
        "invalid_grant": Said(400, rfc6749("invalid_grant", "expired access/refresh token")),
        "invalid_client": Said(400, rfc6749("invalid_client", "invalid client credentials")),
        "invalid_code": Said(400, rfc6749("invalid_grant", "invalid authorization code")),
        "redirect_mismatch": Said(
            400, rfc6749("redirect_uri_mismatch", "redirect_uri must match configuration")
        ),
        # The text is known from reports, its error code is not: the nastiest one is taken.
        "in_progress": Said(400, rfc6749("invalid_grant", "token request is already being processed")),
    },
    api_errors={
        **{
            fault: _salesforce_api(401, "INVALID_SESSION_ID", "Session expired or invalid")
            for fault in ("missing", "invalid", "expired", "revoked")
        },
        # A 401 that no refresh cures: the token lacks the api scope.
        "scope": _salesforce_api(
            401, "INVALID_SESSION_ID", "This session is not valid for use with the REST API"
        ),
        "rate": _salesforce_api(403, "REQUEST_LIMIT_EXCEEDED", "TotalRequests Limit exceeded."),
        "down": _salesforce_api(500, "UNKNOWN_EXCEPTION", "An unexpected error occurred."),
    },
)


def _hubspot(members: Members, context: Context) -> Members:
    scopes = str(members.get("scope") or "").split()
    return {
        **members,
        "hub_id": 4242,
        "user_id": number_of(context.user),
        "scopes": scopes,
        "token_type": "bearer",
    }


def _hubspot_error(code: str, status: str, text: str) -> Said:
    return Said(400, {"error": code, "error_description": text, "status": status, "message": text})


def _hubspot_api(status: int, category: str, message: str, **more: Any) -> Said:
    return Said(status, {"status": "error", "message": message, "category": category, **more})


HUBSPOT = Dialect(
    "hubspot",
    access_prefixes={"user": "CSANDBOX"},
    refresh_prefix="sandbox-",
    access_life=1800,
    rotate=False,
    repeats_refresh=True,
    shape=_hubspot,
    errors={
        "invalid_grant": _hubspot_error(
            "invalid_grant", "BAD_REFRESH_TOKEN", "refresh token is invalid, expired or revoked"
        ),
        "invalid_code": _hubspot_error("invalid_grant", "BAD_AUTH_CODE", "missing or unknown auth code"),
        "invalid_client": _hubspot_error(
            "invalid_client", "BAD_CLIENT_SECRET", "missing or invalid client secret"
        ),
        "redirect_mismatch": _hubspot_error(
            "invalid_grant", "MISMATCH_REDIRECT_URI_AUTH_CODE", "redirect URI does not match the auth code's"
        ),
        "unsupported_grant_type": _hubspot_error(
            "unsupported_grant_type", "BAD_GRANT_TYPE", "missing or unknown grant type"
        ),
        "rate_limited": _hubspot_api(
            429, "RATE_LIMITS", "You have reached your limit.", policyName="SECONDLY"
        ),
    },
    api_errors={
        "missing": _hubspot_api(401, "INVALID_AUTHENTICATION", "Authentication credentials not found."),
        "invalid": _hubspot_api(401, "INVALID_AUTHENTICATION", "The access token is not known."),
        "expired": _hubspot_api(
            401, "EXPIRED_AUTHENTICATION", "The OAuth token used to make this call expired."
        ),
        "revoked": _hubspot_api(
            401, "EXPIRED_AUTHENTICATION", "The OAuth token used to make this call expired."
        ),
        "scope": _hubspot_api(
            403,
            "MISSING_SCOPES",
            "This app hasn't been granted all required scopes.",
            context={"requiredScopes": ["{scope}"]},
        ),
        "rate": _hubspot_api(
            429,
            "RATE_LIMITS",
            "You have reached your ten_secondly_rolling limit.",
            policyName="TEN_SECONDLY_ROLLING",
        ),
        "down": _hubspot_api(500, "INTERNAL_ERROR", "internal error"),
    },
)

DIALECTS: Mapping[str, Dialect] = MappingProxyType(
    {one.name: one for one in (STANDARD, GOOGLE, SLACK, GITHUB, GITHUB_APP, SALESFORCE, HUBSPOT)}
)
