"""What a token endpoint's answer means, over every row of the provider data and over what servers really send."""

import base64
import json
import math
from collections.abc import Sequence
from dataclasses import replace
from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authproxy.core.config import Endpoints, ProviderChoice
from authproxy.core.facts import Row
from authproxy.core.model import TokenSet
from authproxy.core.oauth import TokenFailure, Verdict, read_denial, read_token_reply
from authproxy.core.providers import Provider, catalogue, provider_of
from authproxy.core.secret import Secret
from authproxy.core.verdicts import ADVICE

NOW = 1_800_000_000
YEAR = 365 * 86400
CANARY = "CANARY-5f0c6f3e-7a52-4a3e-9d0e-0d5b8c1f2a77"


def made(name: str, **chosen: object) -> Provider:
    choice = ProviderChoice(subdomain="acme", issuer="https://x.example" if name == "oidc" else None)
    if name in ("acme", "oauth2"):
        choice = ProviderChoice(endpoints=Endpoints(token="https://acme.example/token"))
    return provider_of(name, replace(choice, **chosen))  # type: ignore[arg-type]


ACME = made("acme")
OLD = TokenSet(
    access_token=Secret("at-0"),
    refresh_token=Secret("rt-0"),
    expires_at=NOW - 10,
    lifetime=1200,
    refresh_expires_at=NOW + 999,
    scopes=("a", "b"),
    extra={"instance_url": "https://old.my.salesforce.com"},
)


def read(
    body: object,
    provider: Provider = ACME,
    *,
    status: int = 200,
    kind: str = "application/json",
    retry_after: str | None = None,
    previous: TokenSet | None = None,
    requested: Sequence[str] = (),
) -> TokenSet | TokenFailure:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return read_token_reply(
        provider,
        status=status,
        content_type=kind,
        body=raw,
        retry_after=retry_after,
        now=NOW,
        previous=previous,
        requested=requested,
    )


def kept(body: object, provider: Provider = ACME, **more: object) -> TokenSet:
    result = read(body, provider, **more)  # type: ignore[arg-type]
    assert isinstance(result, TokenSet), result
    return result


def refused(body: object, provider: Provider = ACME, **more: object) -> TokenFailure:
    result = read(body, provider, **more)  # type: ignore[arg-type]
    assert isinstance(result, TokenFailure), result
    return result


# --- every row of the data yields its class


def _cases() -> list[tuple[str, Verdict, Row, int, str | None]]:
    cases = []
    for name, entry in catalogue().items():
        errors = entry.token_errors
        for verdict, rows in (
            (Verdict.TRANSIENT, errors.transient),
            (Verdict.MISCONFIGURED, errors.misconfigured),
            (Verdict.DEAD, errors.dead),
        ):
            for row in rows:
                for status in row.status or (400,):
                    number = 503 if status == "5xx" else int(status)
                    cases += [(name, verdict, row, number, code) for code in row.code or (None,)]
    return cases


def _body(row: Row, code: str | None) -> dict[str, object]:
    body: dict[str, object] = {}
    if code is not None:
        body["error"] = code
    if row.text:
        body["error_description"] = f"Sorry: {row.text[0].upper()}."
    if row.subcode:
        body["error_subtype"] = row.subcode[0]
    return body


@pytest.mark.parametrize(
    ("name", "verdict", "row", "status", "code"),
    _cases(),
    ids=lambda v: v.reason or "-" if isinstance(v, Row) else None,
)
@pytest.mark.scenario("B05")
def test_a_row_of_the_data_yields_its_class(
    name: str, verdict: Verdict, row: Row, status: int, code: str | None
) -> None:
    result = refused(_body(row, code), made(name), status=status)
    assert result.verdict is verdict
    assert result.reason in ADVICE
    assert result.advice == ADVICE[result.reason]
    if row.reason is not None:
        assert result.reason == row.reason
    if code is not None:
        assert result.code == code


@pytest.mark.parametrize("name", list(catalogue()))
@pytest.mark.scenario("B08", "C05")
def test_what_every_provider_has_in_common(name: str) -> None:
    provider = made(name)
    for status in (408, 425, 429, 500, 502, 503, 504, 529):
        assert refused({"error": "invalid_grant"}, provider, status=status).verdict is Verdict.TRANSIENT
    for code in ("invalid_client",):
        assert refused({"error": code}, provider, status=401).verdict is Verdict.MISCONFIGURED
    assert refused({"error": "invalid_grant"}, provider, status=400).verdict is Verdict.DEAD
    assert refused({"error": "never_heard_of"}, provider, status=400).verdict is Verdict.MISCONFIGURED
    assert refused({"error": "never_heard_of"}, provider, status=403).verdict is Verdict.MISCONFIGURED


# --- B04, B05: bodies as they are seen in the field

BODIES = [
    ("google", 400, {"error": "invalid_grant", "error_description": "Token has been expired or revoked."},
     Verdict.DEAD, "revoked_or_expired", None),
    ("google", 400, {"error": "invalid_grant", "error_description": "Bad Request"},
     Verdict.DEAD, "not_recognised", None),
    ("google", 400, {"error": "invalid_grant", "error_description": "reauth related error (invalid_rapt)",
                     "error_uri": "https://support.google.com/a/answer/9368756", "error_subtype": "invalid_rapt"},
     Verdict.DEAD, "session_policy", "invalid_rapt"),
    ("google", 400, {"error": "invalid_grant", "error_description": "reauth related error (rapt_required)",
                     "error_subtype": "rapt_required"},
     Verdict.DEAD, "session_policy", "rapt_required"),
    ("google", 400, {"error": "invalid_grant", "error_description": "Account has been deleted"},
     Verdict.DEAD, "account_gone", None),
    ("google", 400, {"error": "invalid_grant", "error_description": "A new sentence."},
     Verdict.DEAD, "unknown", None),
    ("google", 401, {"error": "deleted_client", "error_description": "The OAuth client was deleted."},
     Verdict.MISCONFIGURED, "client_deleted", None),
    ("google", 401, {"error": "unauthorized_client", "error_description": "Unauthorized"},
     Verdict.MISCONFIGURED, "client_not_allowed", None),
    ("google", 400, {"error": "internal_failure"}, Verdict.TRANSIENT, "unavailable", None),
    ("microsoft", 400, {"error": "invalid_grant", "error_codes": [700082], "trace_id": "t",
                        "error_description": "AADSTS700082: The refresh token has expired due to inactivity."},
     Verdict.DEAD, "idle", "AADSTS700082"),
    ("microsoft", 400, {"error": "invalid_grant", "error_codes": [50173],
                        "error_description": "AADSTS50173: The provided grant has expired due to it being revoked."},
     Verdict.DEAD, "revoked", "AADSTS50173"),
    ("microsoft", 400, {"error": "invalid_grant", "error_codes": [70043], "suberror": "bad_token",
                        "error_description": "AADSTS70043: The refresh token has expired or is invalid due to "
                                             "sign-in frequency checks by conditional access."},
     Verdict.DEAD, "session_policy", "AADSTS70043"),
    ("microsoft", 400, {"error": "interaction_required", "error_codes": [50076], "suberror": "basic_action"},
     Verdict.DEAD, "interaction_required", "AADSTS50076"),
    ("microsoft", 400, {"error": "invalid_grant", "error_description": "AADSTS65001: The user has not consented."},
     Verdict.DEAD, "consent_withdrawn", "AADSTS65001"),
    ("microsoft", 400, {"error": "invalid_grant", "error_codes": [70000]}, Verdict.DEAD, "unknown", "AADSTS70000"),
    ("microsoft", 401, {"error": "invalid_client", "error_codes": [7000222]},
     Verdict.MISCONFIGURED, "client_secret_expired", "AADSTS7000222"),
    ("microsoft", 401, {"error": "invalid_client", "error_codes": [7000215]},
     Verdict.MISCONFIGURED, "client_credentials", "AADSTS7000215"),
    ("slack", 200, {"ok": False, "error": "invalid_refresh_token"}, Verdict.DEAD, "rotated_away", None),
    ("slack", 200, {"ok": False, "error": "token_revoked"}, Verdict.DEAD, "revoked", None),
    ("slack", 200, {"ok": False, "error": "bad_client_secret"}, Verdict.MISCONFIGURED, "client_credentials", None),
    ("slack", 200, {"ok": False, "error": "team_added_to_org"}, Verdict.TRANSIENT, "migration", None),
    ("slack", 429, {"ok": False, "error": "ratelimited"}, Verdict.TRANSIENT, "rate_limited", None),
    ("github", 200, {"error": "bad_refresh_token", "error_uri": "https://docs.github.com",
                     "error_description": "The refresh token passed is incorrect or expired."},
     Verdict.DEAD, "rotated_away", None),
    ("github", 200, {"error": "incorrect_client_credentials"}, Verdict.MISCONFIGURED, "client_credentials", None),
    ("github", 404, {"error": "Not Found"}, Verdict.MISCONFIGURED, "client_credentials", None),
    ("salesforce", 400, {"error": "invalid_grant", "error_description": "expired access/refresh token"},
     Verdict.DEAD, "revoked_or_expired", None),
    ("salesforce", 400, {"error": "invalid_grant", "error_description": "token request is already being processed"},
     Verdict.TRANSIENT, "busy", None),
    ("salesforce", 400, {"error": "invalid_grant", "error_description": "ip restricted"},
     Verdict.MISCONFIGURED, "ip_policy", None),
    ("salesforce", 403, {"error": "invalid_grant", "error_description": "login rate exceeded"},
     Verdict.TRANSIENT, "rate_limited", None),
    ("salesforce", 400, {"error": "inactive_user", "error_description": "user is inactive"},
     Verdict.DEAD, "account_gone", None),
    ("salesforce", 400, {"error": "invalid_client_id", "error_description": "client identifier invalid"},
     Verdict.MISCONFIGURED, "client_credentials", None),
    ("hubspot", 400, {"status": "BAD_REFRESH_TOKEN", "message": "missing or invalid refresh token",
                      "correlationId": "c"}, Verdict.DEAD, "revoked_or_expired", None),
    ("hubspot", 400, {"error": "invalid_grant", "error_description": "refresh token is invalid, expired or revoked",
                      "status": "BAD_REFRESH_TOKEN"}, Verdict.DEAD, "revoked_or_expired", None),
    ("hubspot", 400, {"status": "BAD_CLIENT_SECRET", "message": "missing or invalid client secret"},
     Verdict.MISCONFIGURED, "client_credentials", None),
    ("hubspot", 429, {"status": "error", "category": "RATE_LIMITS"}, Verdict.TRANSIENT, "rate_limited", None),
    ("atlassian", 403, {"error": "unauthorized_client", "error_description": "refresh_token is invalid"},
     Verdict.DEAD, "revoked_or_expired", None),
    ("atlassian", 403, {"error": "unauthorized_client", "error_description": "another reason"},
     Verdict.MISCONFIGURED, "client_credentials", None),
    ("zoom", 401, {"reason": "Invalid Token!", "error": "invalid_request"}, Verdict.DEAD, "revoked", None),
    ("x", 400, {"error": "invalid_request", "error_description": "Value passed for the token was invalid."},
     Verdict.DEAD, "rotated_away", None),
    ("reddit", 400, {"message": "Bad Request", "error": 400}, Verdict.DEAD, "revoked", None),
    ("twitch", 400, {"status": 400, "message": "Invalid refresh token"}, Verdict.DEAD, "revoked_or_expired", None),
    ("acme", 400, {"code": 400, "error_code": "refresh_token_not_found", "msg": "Invalid Refresh Token"},
     Verdict.DEAD, "rotated_away", None),
    ("acme", 401, {"error": {"code": "invalid_client", "message": "no"}},
     Verdict.MISCONFIGURED, "client_credentials", None),
    ("acme", 401, {"error": "unauthorized_client", "error_description": "Old refresh token used"},
     Verdict.MISCONFIGURED, "client_credentials", None),
    ("acme", 404, {"type": "error", "error": {"type": "not_found_error", "message": "Not found"}},
     Verdict.MISCONFIGURED, "request_refused", None),
]  # fmt: skip


@pytest.mark.parametrize(("name", "status", "body", "verdict", "reason", "detail"), BODIES)
@pytest.mark.scenario("B04", "B05", "B09")
def test_real_bodies(
    name: str, status: int, body: dict[str, object], verdict: Verdict, reason: str, detail: str | None
) -> None:
    result = refused(body, made(name), status=status)
    assert (result.verdict, result.reason, result.detail) == (verdict, reason, detail)


@pytest.mark.scenario("B03", "C06")
def test_advice_names_the_likely_cause() -> None:
    body = {"error": "invalid_grant", "error_description": "Token has been expired or revoked."}
    assert "another sign-in with this client" in refused(body, made("google"), status=400).advice
    testing = refused(body, made("google", environment="testing"), status=400)
    assert testing.reason == "test_mode_expiry"
    assert "seven days" in testing.advice


@pytest.mark.scenario("B05")
def test_descriptions_decide_nothing_by_default() -> None:
    body = {
        "error": "invalid_request",
        "error_description": "invalid_grant: refresh token revoked or expired",
    }
    assert refused(body, status=400).verdict is Verdict.MISCONFIGURED


# --- B06, B07: no token, no JSON


@pytest.mark.parametrize(
    "body", [b"{}", b"", b" ", b"[]", b'"ok"', b"null", b"7", b'{"access_token":null}', b'{"access_token":""}',
             b'{"access_token":"  "}', b'{"status":"success"}', b'[{"access_token":"at-1"}]', b'{"ok":true}']
)  # fmt: skip
@pytest.mark.scenario("B06")
def test_a_200_with_neither_token_nor_error_is_transient(body: bytes) -> None:
    for provider in (ACME, made("google"), made("slack"), made("github")):
        assert refused(body, provider).verdict is Verdict.TRANSIENT


@pytest.mark.scenario("B06", "E10")
def test_an_error_in_a_200_is_an_error() -> None:
    assert refused({"error": "invalid_grant", "access_token": "at-1"}).verdict is Verdict.DEAD
    assert (
        refused({"ok": False, "error": "brand_new", "access_token": "x"}, made("slack")).code == "brand_new"
    )
    assert refused({"error": "Something with spaces"}).verdict is Verdict.MISCONFIGURED


@pytest.mark.parametrize("status", [100, 200, 301, 302, 400, 401, 403, 404, 502, 503, 999])
@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("text/html", b"<!doctype html><title>invalid_grant</title>"),
        ("text/html; charset=utf-8", b"error=invalid_grant&x=1"),
        ("text/plain", b"invalid_grant"),
        ("application/json", b""),
        ("application/json", b'{"error":"invalid_grant"'),
        ("application/json", b"\x1f\x8b\x08\x00\xff\xfe"),
        ("application/json", b"[" * 100_000),
        ("application/json", b'{"error":' * 100_000),
        ("application/json", b"1" * 100_000),
        ("application/x-www-form-urlencoded", b"<html>"),
        ("", b"\x00"),
    ],
    ids=lambda v: str(v)[:20],
)
@pytest.mark.scenario("B07")
def test_what_cannot_be_read_is_transient_whatever_the_status(status: int, kind: str, body: bytes) -> None:
    assert refused(body, status=status, kind=kind).verdict is Verdict.TRANSIENT


@pytest.mark.scenario("A09", "A23")
@pytest.mark.parametrize(
    ("provider", "status", "body", "doubtful"),
    [
        ("acme", 502, b"<html>", True),
        ("acme", 504, b"", True),
        ("acme", 500, {"error": "server_error"}, True),
        ("acme", 503, {"error": "temporarily_unavailable"}, False),
        ("acme", 429, {"error": "slow_down"}, False),
        ("acme", 429, b"<html>", False),
        ("acme", 408, b"", False),
        ("acme", 400, b"<html>", False),
        ("acme", 302, b"", False),
        ("acme", 200, b"<html>", True),
        ("acme", 200, b"", True),
        ("acme", 200, {}, True),
        ("acme", 200, {"access_token": "a\nb"}, True),
        ("google", 500, {"error": "internal_failure"}, True),
        ("slack", 200, {"ok": False, "error": "fatal_error"}, True),
        ("slack", 200, {"ok": False, "error": "service_unavailable"}, False),
        ("slack", 429, {"ok": False, "error": "ratelimited"}, False),
    ],
)
def test_whether_an_answer_says_that_nothing_was_done(
    provider: str, status: int, body: object, doubtful: bool
) -> None:
    """What does not say so is as good as no answer: the refresh token may have been spent."""
    kind = "text/html" if isinstance(body, bytes) else "application/json"
    found = refused(body, ACME if provider == "acme" else made(provider), status=status, kind=kind)
    assert (found.verdict, found.doubtful) == (Verdict.TRANSIENT, doubtful)


@pytest.mark.scenario("B05", "B06")
def test_form_encoding_counts_where_it_is_declared() -> None:
    raw = urlencode({"access_token": "gho_1", "scope": "repo,user", "token_type": "bearer"}).encode()
    form = "application/x-www-form-urlencoded; charset=utf-8"
    tokens = kept(raw, made("github"), kind=form)
    assert tokens.access_token == Secret("gho_1")
    assert tokens.scopes == ("repo", "user")
    bad = b"error=bad_refresh_token&error_description=The+refresh+token+passed+is+incorrect+or+expired."
    assert refused(bad, made("github"), kind=form).verdict is Verdict.DEAD
    assert isinstance(read(raw, kind="text/plain"), TokenSet)
    assert refused(raw, kind="text/html").verdict is Verdict.TRANSIENT


# --- B10: rates


@pytest.mark.parametrize(
    ("header", "wait"),
    [
        (None, None),
        ("", None),
        ("30", 30),
        (" 30 ", 30),
        ("0", 1),
        ("-5", 1),
        ("1000000000", 3600),
        ("1e9", None),
        ("soon", None),
        ("Fri, 15 Jan 2027 08:02:00 GMT", 120),
        ("Friday, 15-Jan-27 08:02:00 GMT", 120),
        ("Fri, 15 Jan 2027 10:02:00 +0200", 120),
        ("Fri, 15 Jan 2027 07:00:00 GMT", 1),
        ("Fri, 15 Jan 2117 08:00:00 GMT", 3600),
        ("Fri, 99 Jan 2027 99:99:99 GMT", None),
        ("9" * 400, None),
    ],
)
@pytest.mark.scenario("B10")
def test_retry_after(header: str | None, wait: int | None) -> None:
    result = refused(b"", status=429, retry_after=header)
    if header == "Fri, 99 Jan 2027 99:99:99 GMT":  # nonsense either way: bounded is enough
        assert result.retry_after in (None, 1, 3600)
    else:
        assert result.retry_after == wait
    assert result.verdict is Verdict.TRANSIENT
    assert result.reason == "rate_limited"


@given(st.text(max_size=60))
def test_retry_after_never_raises(header: str) -> None:
    wait = refused(b"", status=503, retry_after=header).retry_after
    assert wait is None or 1 <= wait <= 3600


@pytest.mark.parametrize("status", [429, 400, 503])
@pytest.mark.scenario("B10")
def test_a_token_in_an_error_status_is_not_lost(status: int) -> None:
    tokens = kept({"access_token": "at-1", "refresh_token": "rt-1"}, status=status, previous=OLD)
    assert tokens.refresh_token == Secret("rt-1")
    assert refused({"access_token": "at-1"}, status=status).verdict is not Verdict.DEAD


# --- B01: the refresh token


@pytest.mark.parametrize(
    "told", [{}, *({"refresh_token": v} for v in (None, "", "  ", "\n", 0, False, [], {}))]
)
@pytest.mark.scenario("B01")
def test_an_absent_refresh_token_leaves_the_old_one(told: dict[str, object]) -> None:
    tokens = kept({"access_token": "at-1", **told}, previous=OLD)
    assert tokens.refresh_token == Secret("rt-0")
    assert tokens.refresh_expires_at == OLD.refresh_expires_at
    assert kept({"access_token": "at-2", **told}, previous=tokens).refresh_token == Secret("rt-0")
    assert kept({"access_token": "at-1", **told}).refresh_token is None


@pytest.mark.parametrize("name", list(catalogue()))
@pytest.mark.scenario("B01", "B24")
def test_a_new_refresh_token_is_kept_whatever_the_provider_is_known_for(name: str) -> None:
    tokens = kept({"ok": True, "access_token": "at-1", "refresh_token": "rt-1"}, made(name), previous=OLD)
    assert tokens.refresh_token == Secret("rt-1")
    assert tokens.refresh_expires_at is None


@pytest.mark.parametrize(
    ("told", "expires"),
    [
        ({"refresh_token_expires_in": 604800}, 604800),
        ({"refresh_expires_in": "600"}, 600),
        ({"x_refresh_token_expires_in": 8640000}, 8640000),
        ({"refresh_token_expires_in": 0}, None),
        ({"refresh_token_expires_in": "never"}, None),
        ({"refresh_token_expires_in": 1e18}, 10 * YEAR),
    ],
)
@pytest.mark.scenario("B15")
def test_the_refresh_tokens_own_clock(told: dict[str, object], expires: int | None) -> None:
    tokens = kept({"access_token": "at-1", "refresh_token": "rt-1", **told}, previous=OLD)
    assert tokens.refresh_expires_at == (None if expires is None else NOW + expires)


# --- B12, B13: expires_in


@pytest.mark.parametrize(
    ("value", "lifetime"),
    [
        (3600, 3600),
        ("3600", 3600),
        (" 3600 ", 3600),
        ("3600.5", 3600),
        (3600.5, 3600),
        (1e12, YEAR),
        ("1000000000000", YEAR),
        (math.inf, YEAR),
        (0, None),
        ("0", None),
        (-1, None),
        (-1e300, None),
        ("-1", None),
    ],
)
@pytest.mark.scenario("B13")
def test_expires_in_told(value: object, lifetime: int | None) -> None:
    """Zero and less: the token is used now, and only a 401 will tell; never an expiry in the past."""
    tokens = kept({"access_token": "at-1", "expires_in": value}, previous=OLD)
    assert tokens.lifetime == lifetime
    assert tokens.expires_at == (None if lifetime is None else NOW + lifetime)


@pytest.mark.parametrize("value", ["", None, True, False, "never", [], {}, math.nan, "1e3", "0x10", "3,600"])
@pytest.mark.scenario("B12", "B13")
def test_expires_in_not_told(value: object) -> None:
    body = {"access_token": "at-1", "refresh_token": "rt-1", "expires_in": value}
    assert kept(body, previous=OLD).expires_at == NOW + 1200
    assert kept(body).expires_at is None


@pytest.mark.scenario("B12")
def test_the_order_in_which_a_life_is_found() -> None:
    body = {"access_token": "at-1"}
    assert kept(body, made("google")).expires_at == NOW + 3600  # it always says so: its usual life
    assert kept(body, made("google"), previous=OLD).expires_at == NOW + 1200  # the last one told
    assert kept(body, made("salesforce")).expires_at is None  # it never does: a 401 must tell
    assert kept(body, made("salesforce", token_lifetime=900)).expires_at == NOW + 900
    assert kept(body, made("salesforce", token_lifetime=900)).lifetime is None  # assumed, not told
    assert kept({**body, "ok": True}, made("slack")).expires_at is None  # rotation is off
    assert kept(body, made("github")).expires_at is None


# --- B17: scopes


@pytest.mark.parametrize(
    ("told", "scopes"),
    [
        ({}, ("a", "b")),
        ({"scope": None}, ("a", "b")),
        ({"scope": ""}, ("a", "b")),
        ({"scope": "b a"}, ("b", "a")),
        ({"scope": "a,b, c"}, ("a", "b", "c")),
        ({"scope": ["a", "c", 7, None]}, ("a", "c")),
        ({"scopes": "a c"}, ("a", "c")),
        ({"scopes": ["x"]}, ("x",)),
        ({"scope": "a"}, ("a",)),
        ({"scope": "a a"}, ("a",)),
        ({"scope": {"a": 1}}, ("a", "b")),
        ({"scope": 'a "b" \u00e9 c\\d'}, ("a",)),
    ],
)
@pytest.mark.scenario("B17")
def test_granted_scopes_in_any_form(told: dict[str, object], scopes: tuple[str, ...]) -> None:
    assert kept({"access_token": "at-1", **told}, previous=OLD).scopes == scopes
    assert kept({"access_token": "at-1", **told}, requested=("a", "b")).scopes == scopes


@pytest.mark.scenario("B17")
def test_a_github_app_says_nothing_of_scopes() -> None:
    body = {"access_token": "ghu_1", "scope": "", "expires_in": 28800}
    assert kept(body, made("github_app_user"), requested=("x",)).scopes == ("x",)


# --- B19, F04: tokens and their type


@pytest.mark.parametrize("kind", ["bearer", "Bearer", "BEARER", " bearer ", "", None])
@pytest.mark.scenario("B19")
def test_bearer_in_any_spelling(kind: object) -> None:
    assert kept({"access_token": "at-1", "token_type": kind})


@pytest.mark.parametrize("kind", ["DPoP", "mac", "bot", 7, [], {"a": 1}])
@pytest.mark.scenario("B19")
def test_other_kinds_are_the_operators_trouble(kind: object) -> None:
    result = refused({"access_token": "at-1", "token_type": kind})
    assert (result.verdict, result.code) == (Verdict.MISCONFIGURED, "token_type_unsupported")


@pytest.mark.parametrize(
    "token",
    [f"{CANARY}\n", f"{CANARY}\r\nX: y", f"{CANARY}\x00", f"a {CANARY}", f"{CANARY}\u00e9", f"{CANARY}\x7f",
     f"{CANARY}\ud800", CANARY + "x" * 16384, 7, ["x"], {"a": CANARY}, True]
)  # fmt: skip
@pytest.mark.scenario("F03", "F04", "E10")
def test_a_token_that_cannot_be_a_header_is_not_kept(token: object) -> None:
    result = refused({"access_token": token, "refresh_token": "rt-1"}, previous=OLD)
    assert (result.verdict, result.code) == (Verdict.TRANSIENT, "malformed_token")
    assert "CANARY" not in repr(result)
    if isinstance(token, str):
        result = refused({"access_token": "at-1", "refresh_token": token}, previous=OLD)
        assert result.code == "malformed_token"


def test_what_tokens_look_like() -> None:
    for token in (
        "ya29.a0Af-_x",
        "1//0gx",
        "00D5g000!AQEAQ.x",
        "xoxe.xoxb-1-Mi",
        "x" * 16384,
        "{}[]|^`~",
        '"\\',
    ):
        assert kept({"access_token": token, "refresh_token": token}).access_token == Secret(token)


# --- the shapes of the six


def test_slack_bot_user_and_refresh() -> None:
    install = {
        "ok": True, "access_token": "xoxb-1", "token_type": "bot", "scope": "chat:write,commands", "expires_in": 43200,
        "refresh_token": "xoxe-1-b", "team": {"id": "T1", "name": "Acme"}, "enterprise": None,
        "is_enterprise_install": False,
        "authed_user": {"id": "U1", "scope": "search:read", "access_token": "xoxp-1", "token_type": "user",
                        "refresh_token": "xoxe-1-u", "expires_in": 43200},
    }  # fmt: skip
    bot = kept(install, made("slack"))
    assert (bot.access_token, bot.refresh_token) == (Secret("xoxb-1"), Secret("xoxe-1-b"))
    assert bot.scopes == ("chat:write", "commands")
    assert bot.extra == {
        "team.id": "T1", "team.name": "Acme", "is_enterprise_install": "false", "authed_user.id": "U1"
    }  # fmt: skip
    user = kept(install, made("slack_user"))
    assert (user.access_token, user.refresh_token) == (Secret("xoxp-1"), Secret("xoxe-1-u"))
    assert user.scopes == ("search:read",)

    only_user = {
        k: v for k, v in install.items() if k not in ("access_token", "refresh_token", "scope", "token_type")
    }
    assert kept(only_user, made("slack")).access_token == Secret("xoxp-1")

    renewed = {"ok": True, "access_token": "xoxp-2", "refresh_token": "xoxe-1-u2", "token_type": "user",
               "expires_in": 43200, "scope": "search:read"}  # fmt: skip
    again = kept(renewed, made("slack_user"), previous=user)
    assert again.access_token == Secret("xoxp-2")
    assert again.extra == user.extra


@pytest.mark.scenario("B23")
def test_salesforce_moves_its_instance() -> None:
    body = {"access_token": "00D!x", "instance_url": "https://new.my.salesforce.com", "issued_at": "1800000000000",
            "id": "https://login.salesforce.com/id/00Dx/005x", "signature": "sig", "token_type": "Bearer"}  # fmt: skip
    tokens = kept(body, made("salesforce"), previous=OLD)
    assert tokens.extra == {
        "instance_url": "https://new.my.salesforce.com",
        "id": "https://login.salesforce.com/id/00Dx/005x",
    }
    body.pop("instance_url")
    assert kept(body, made("salesforce"), previous=tokens).extra == tokens.extra


def test_only_listed_fields_are_kept_and_only_short_plain_ones() -> None:
    body = {
        "access_token": "x",
        "instance_url": "https://a\n",
        "id": "x" * 600,
        "api_instance_url": ["x"],
        "evil": "1",
    }
    assert kept(body, made("salesforce")).extra == {}


def jwt(claims: object) -> str:
    parts = (json.dumps({"alg": "RS256"}).encode(), json.dumps(claims).encode(), b"sig")
    return ".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in parts)


@pytest.mark.parametrize(
    ("token", "extra"),
    [
        (jwt({"sub": "117", "email": "al@x.example"}), {"sub": "117"}),
        (jwt({"sub": 117}), {"sub": "117"}),
        (jwt({"sub": "a\nb"}), {}),
        (jwt([1]), {}),
        ("a.b", {}),
        ("a.%.c", {}),
        ("a.é.c", {}),
        (7, {}),
        ("a." + "W" * 40000 + ".c", {}),
    ],
)
@pytest.mark.scenario("H10")
def test_the_subject_of_an_id_token_is_kept(token: object, extra: dict[str, str]) -> None:
    assert kept({"access_token": "x", "id_token": token}, made("google")).extra == extra


# --- nothing leaks, nothing raises

NAMES = st.sampled_from(
    ["access_token", "refresh_token", "expires_in", "error", "error_description", "error_subtype", "error_codes",
     "token_type", "id_token", "authed_user", "ok", "status", "message", "code", "category", "errors", "type"]
)  # fmt: skip
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.just(CANARY),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10) | NAMES, inner, max_size=5)
    ),
    max_leaves=20,
)
PROVIDERS = st.sampled_from(
    [made(name) for name in ("google", "slack", "slack_user", "github", "salesforce", "acme")]
)


@given(
    PROVIDERS,
    st.dictionaries(NAMES, JSON, max_size=8),
    st.integers(100, 599),
    st.sampled_from(["application/json", "text/plain", "", "application/x-www-form-urlencoded", CANARY]),
    st.sampled_from([None, CANARY, "5"]),
)
@pytest.mark.scenario("F03", "B07")
def test_no_answer_raises_or_leaks(
    provider: Provider, body: dict[str, object], status: int, kind: str, retry_after: str | None
) -> None:
    raw = json.dumps(body).encode()
    for bytes_ in (raw, urlencode({k: str(v) for k, v in body.items()}, errors="replace").encode()):
        result = read(bytes_, provider, status=status, kind=kind, retry_after=retry_after, previous=OLD)
        assert "CANARY" not in repr(result)
        assert "CANARY" not in str(result)


@given(PROVIDERS, st.binary(max_size=200), st.integers(100, 599), st.text(max_size=20), st.text(max_size=20))
@pytest.mark.scenario("B07")
def test_no_bytes_raise(provider: Provider, body: bytes, status: int, kind: str, retry_after: str) -> None:
    read(body, provider, status=status, kind=kind, retry_after=retry_after)


@pytest.mark.parametrize("field", ["error", "error_subtype", "suberror", "status", "code", "type", "reason"])
@pytest.mark.parametrize("name", ["google", "slack", "hubspot", "acme"])
@pytest.mark.scenario("F03")
def test_a_token_echoed_as_a_code_is_not_repeated(name: str, field: str) -> None:
    for token in (CANARY, "ya29.a0AfH6SMCANARY1x", "x" * 40 + "CANARY", "CANARY 1"):
        for status in (200, 400, 401, 503):
            result = refused(
                {"error": "x_y", field: token, "error_description": token}, made(name), status=status
            )
            assert "CANARY" not in repr(result)
            assert len(result.code) <= 64


# --- the authorization endpoint


@pytest.mark.parametrize(
    ("name", "error", "verdict", "reason"),
    [
        ("google", "access_denied", Verdict.DEAD, "refused"),
        ("google", "admin_policy_enforced", Verdict.MISCONFIGURED, "admin_policy"),
        ("google", "org_internal", Verdict.MISCONFIGURED, "audience"),
        ("acme", "access_denied", Verdict.DEAD, "refused"),
        ("acme", "login_required", Verdict.DEAD, "interaction_required"),
        ("acme", "temporarily_unavailable", Verdict.TRANSIENT, "unavailable"),
        ("acme", "invalid_scope", Verdict.MISCONFIGURED, "request_refused"),
        ("acme", CANARY, Verdict.MISCONFIGURED, "request_refused"),
        ("acme", "", Verdict.MISCONFIGURED, "request_refused"),
    ],
)
@pytest.mark.scenario("H04")
def test_a_denial_at_the_authorization_endpoint(name: str, error: str, verdict: Verdict, reason: str) -> None:
    result = read_denial(made(name), error, CANARY)
    assert (result.verdict, result.reason) == (verdict, reason)
    assert "CANARY" not in repr(result)


@pytest.mark.scenario("H04")
def test_salesforce_wants_an_admin_to_install_the_app() -> None:
    result = read_denial(made("salesforce"), "invalid_client", "app must be installed into org")
    assert result.reason == "admin_policy"
