"""What a resource API's answer says about the token, and the challenge grammar beneath it."""

import json
import time
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authproxy.core.challenge import Challenge, read_challenges
from authproxy.core.config import Endpoints, ProviderChoice
from authproxy.core.facts import Row
from authproxy.core.oauth import ApiSign, peeks, read_api_answer
from authproxy.core.providers import Provider, catalogue, provider_of


def made(name: str) -> Provider:
    if name in ("acme", "oauth2", "oidc"):
        return provider_of(name, ProviderChoice(endpoints=Endpoints(token="https://acme.example/token")))
    return provider_of(name, ProviderChoice(subdomain="acme"))


def sign(
    provider: Provider | str,
    status: int,
    body: object = None,
    *,
    kind: str = "application/json",
    challenge: Sequence[str] = (),
) -> ApiSign:
    raw = body if isinstance(body, bytes | None) else json.dumps(body).encode()
    return read_api_answer(
        made(provider) if isinstance(provider, str) else provider,
        status=status,
        content_type=kind,
        www_authenticate=challenge,
        body=raw,
    )


def _cases() -> list[tuple[str, ApiSign, Row, int, str | None]]:
    cases = []
    for name, entry in catalogue().items():
        errors = entry.api_errors
        for verdict, rows in (
            (ApiSign.NOT_CURABLE, errors.not_curable),
            (ApiSign.SCOPE, errors.scope),
            (ApiSign.EXPIRED, errors.expired),
        ):
            for row in rows:
                for status in row.status:
                    cases += [(name, verdict, row, int(status), code) for code in row.code or (None,)]
    return cases


@pytest.mark.parametrize(("name", "verdict", "row", "status", "code"), _cases())
@pytest.mark.scenario("D04", "D08", "D09")
def test_a_row_of_the_data_yields_its_sign(
    name: str, verdict: ApiSign, row: Row, status: int, code: str | None
) -> None:
    body: dict[str, object] = {"ok": False} if status == 200 else {}
    if code is not None:
        body["error"] = code
    if row.text:
        body["message"] = f"Sorry: {row.text[0]}."
    challenge = [f'Bearer {row.challenge[0]}="x"'] if row.challenge else []
    assert sign(name, status, body, challenge=challenge) is verdict
    if not row.challenge and (status != 401 or verdict is not ApiSign.EXPIRED):
        assert peeks(made(name), status, "application/json; charset=utf-8")


@pytest.mark.parametrize("name", list(catalogue()))
@pytest.mark.scenario("D04", "D11")
def test_what_every_provider_has_in_common(name: str) -> None:
    assert sign(name, 401) is ApiSign.EXPIRED
    assert sign(name, 401, b"<html>", kind="text/html") is ApiSign.EXPIRED
    for status in (200, 204, 301, 304, 400, 402, 403, 404, 409, 429, 500, 502, 503):
        assert sign(name, status) is ApiSign.NONE
        assert sign(name, status, {"unheard": "of"}) is ApiSign.NONE
        assert sign(name, status, b"\xff\x00[[[") is ApiSign.NONE
    narrow = ['Bearer error="insufficient_scope", scope="a b"']
    assert sign(name, 403, challenge=narrow) is ApiSign.SCOPE
    assert sign(name, 401, challenge=narrow) is ApiSign.SCOPE
    assert sign(name, 404, challenge=narrow) is ApiSign.NONE
    assert not peeks(made(name), 204, "application/json")
    assert not peeks(made(name), 200, "application/octet-stream")
    assert not peeks(made(name), 401, "image/png")
    assert peeks(made(name), 200, "application/json") == (name in ("slack", "slack_user"))


BODIES = [
    ("slack", 200, {"ok": False, "error": "token_expired"}, ApiSign.EXPIRED),
    ("slack", 200, {"ok": False, "error": "invalid_auth"}, ApiSign.EXPIRED),
    ("slack", 200, {"error": "invalid_auth", "ok": False}, ApiSign.EXPIRED),
    ("slack", 200, {"ok": False, "error": "missing_scope", "needed": "a", "provided": "b"}, ApiSign.SCOPE),
    ("slack", 200, {"ok": False, "error": "not_allowed_token_type"}, ApiSign.NOT_CURABLE),
    ("slack", 200, {"ok": False, "error": "channel_not_found"}, ApiSign.NONE),
    ("slack", 200, {"ok": True, "error": "token_expired"}, ApiSign.NONE),
    ("slack", 200, {"ok": True, "messages": [{"ok": False, "error": "token_expired"}]}, ApiSign.NONE),
    ("slack", 200, {"ok": False, "error": {"code": "token_expired"}}, ApiSign.NONE),
    ("slack", 200, {"ok": False}, ApiSign.NONE),
    ("slack", 200, {"ok": "false", "error": "token_expired"}, ApiSign.NONE),
    ("slack", 200, [{"ok": False, "error": "token_expired"}], ApiSign.NONE),
    ("slack", 200, b'{"ok":false,"error":"token_exp', ApiSign.NONE),
    ("google", 200, {"ok": False, "error": "token_expired"}, ApiSign.NONE),
    ("salesforce", 401, [{"message": "Session expired or invalid", "errorCode": "INVALID_SESSION_ID"}],
     ApiSign.EXPIRED),
    ("salesforce", 401, [{"message": "This session is not valid for use with the REST API",
                          "errorCode": "INVALID_SESSION_ID"}], ApiSign.NOT_CURABLE),
    ("salesforce", 401, [{"message": "Connected app is not attached to Agent"}], ApiSign.NOT_CURABLE),
    ("salesforce", 403, [{"message": "TotalRequests Limit exceeded.", "errorCode": "REQUEST_LIMIT_EXCEEDED"}],
     ApiSign.NOT_CURABLE),
    ("github", 401, {"message": "Bad credentials", "documentation_url": "https://docs.github.com"}, ApiSign.EXPIRED),
    ("github", 403, {"message": "API rate limit exceeded for user ID 1."}, ApiSign.NOT_CURABLE),
    ("github", 403, {"message": "Resource protected by organization SAML enforcement."}, ApiSign.NOT_CURABLE),
    ("github", 403, {"message": "Must have admin rights to Repository."}, ApiSign.NONE),
    ("github", 404, {"message": "Not Found"}, ApiSign.NONE),
    ("hubspot", 401, {"status": "error", "category": "EXPIRED_AUTHENTICATION",
                      "message": "The OAuth token used to make this call expired 3 minute(s) ago."}, ApiSign.EXPIRED),
    ("hubspot", 403, {"status": "error", "category": "MISSING_SCOPES", "errors": [{"context": {}}]}, ApiSign.SCOPE),
    ("hubspot", 429, {"status": "error", "errorType": "RATE_LIMIT"}, ApiSign.NONE),
    ("google", 401, {"error": {"code": 401, "status": "UNAUTHENTICATED", "message": "Invalid Credentials",
                               "errors": [{"reason": "authError"}]}}, ApiSign.EXPIRED),
    ("google", 403, {"error": {"code": 403, "errors": [{"domain": "global", "reason": "insufficientPermissions"}]}},
     ApiSign.SCOPE),
    ("google", 403, {"error": {"code": 403, "status": "PERMISSION_DENIED", "details": [
        {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "ACCESS_TOKEN_SCOPE_INSUFFICIENT"}]}},
     ApiSign.SCOPE),
    ("google", 403, {"error": {"code": 403, "errors": [{"reason": "userRateLimitExceeded"}]}}, ApiSign.NOT_CURABLE),
    ("google", 403, {"error": {"code": 403, "errors": [{"reason": "forbidden"}]}}, ApiSign.NONE),
    ("google", 429, {"error": {"code": 429, "status": "RESOURCE_EXHAUSTED"}}, ApiSign.NONE),
    ("dropbox", 401, {"error_summary": "expired_access_token/..", "error": {".tag": "expired_access_token"}},
     ApiSign.EXPIRED),
    ("dropbox", 401, {"error_summary": "missing_scope/..", "error": {".tag": "missing_scope", "required_scope": "x"}},
     ApiSign.SCOPE),
    ("zoom", 401, {"code": 124, "message": "Access token is expired."}, ApiSign.EXPIRED),
    ("figma", 403, {"status": 403, "err": "x", "message": "Token expired"}, ApiSign.EXPIRED),
    ("linear", 400, {"errors": [{"message": "limit", "extensions": {"code": "RATELIMITED"}}]}, ApiSign.NOT_CURABLE),
    ("gitlab", 403, {"error": "insufficient_scope", "scope": "api"}, ApiSign.SCOPE),
    ("acme", 403, {"error": "insufficient_scope"}, ApiSign.SCOPE),
]  # fmt: skip


@pytest.mark.parametrize(("name", "status", "body", "expected"), BODIES)
@pytest.mark.scenario("D04", "D08", "D09", "D11")
def test_real_answers(name: str, status: int, body: object, expected: ApiSign) -> None:
    assert sign(name, status, body) is expected


@pytest.mark.scenario("D08")
def test_plain_words() -> None:
    assert sign("salesforce", 403, b"<p>Bad_OAuth_Token", kind="text/html;charset=UTF-8") is ApiSign.NONE
    assert sign("salesforce", 403, b"Bad_OAuth_Token", kind="text/html;charset=UTF-8") is ApiSign.EXPIRED
    assert sign("salesforce", 403, b"Bad_OAuth_Token", kind="text/plain") is ApiSign.EXPIRED
    assert sign("salesforce", 403, b"Missing_OAuth_Token", kind="") is ApiSign.NOT_CURABLE
    assert peeks(made("salesforce"), 403, "text/plain")


@pytest.mark.scenario("D08")
def test_a_good_answer_of_slack_costs_little() -> None:
    """64 KiB of a good answer is looked at, not parsed."""
    body = json.dumps({"ok": True, "messages": [{"text": "x" * 50}] * 900}).encode()[:65536]
    slack = made("slack")
    started = time.perf_counter()
    for _ in range(100):
        assert sign(slack, 200, body) is ApiSign.NONE
    assert time.perf_counter() - started < 1.0


@pytest.mark.scenario("D10")
def test_claims_wanted_by_continuous_access_evaluation() -> None:
    challenge = (
        'Bearer realm="", authorization_uri="https://login.microsoftonline.com/common/oauth2/authorize", '
        'error="insufficient_claims", claims="eyJhY2Nlc3NfdG9rZW4iOnt9fQ=="'
    )
    assert sign("microsoft", 401, challenge=[challenge]) is ApiSign.NOT_CURABLE
    assert sign("microsoft", 401, challenge=['Bearer error="invalid_token"']) is ApiSign.EXPIRED


B = "bearer"


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([], []),
        ([""], []),
        (["Bearer"], [(B, {})]),
        (["  ,, Bearer ,"], [(B, {})]),
        (["BEARER Realm=a"], [(B, {"realm": "a"})]),
        (['Bearer error="insufficient_scope"'], [(B, {"error": "insufficient_scope"})]),
        (['Bearer error = "x" , scope = "a b"'], [(B, {"error": "x", "scope": "a b"})]),
        (['Basic realm="x", Bearer error="y"'], [("basic", {"realm": "x"}), (B, {"error": "y"})]),
        (["Negotiate", 'Bearer error="y"'], [("negotiate", {}), (B, {"error": "y"})]),
        (["Negotiate, NTLM, Bearer"], [("negotiate", {}), ("ntlm", {}), (B, {})]),
        (["Negotiate YWJj==, Bearer error=y"], [("negotiate", {}), (B, {"error": "y"})]),
        (['Digest realm="a, Bearer b=\\"z\\"", nonce=1'], [("digest", {"realm": 'a, Bearer b="z"', "nonce": "1"})]),
        (['Bearer realm="a,b=c", error="y"'], [(B, {"realm": "a,b=c", "error": "y"})]),
        (['Bearer error="a", error="b"'], [(B, {"error": "a"})]),
        (['Bearer realm="x" error="y"'], [(B, {"realm": "x", "error": "y"})]),
        (["Bearer scope=a:b/c,error=y"], [(B, {"scope": "a:b/c", "error": "y"})]),
        (['Bearer realm=""'], [(B, {"realm": ""})]),
        (['Bearer error="y'], []),
        (['Basic realm="x", Bearer error="y'], [("basic", {"realm": "x"})]),
        (["error=insufficient_scope"], []),
        (["=", '"', "\\", "Bearer; error=x"], []),
        (["\u00e9 Bearer"], []),
        (["Bearer error=\u00e9"], [(B, {"error": "\u00e9"})]),
    ],
)  # fmt: skip
@pytest.mark.scenario("D10")
def test_challenges(lines: list[str], expected: list[tuple[str, dict[str, str]]]) -> None:
    assert read_challenges(lines) == [Challenge(*item) for item in expected]


WORDS = st.from_regex(r"[A-Za-z][A-Za-z0-9-]{0,8}", fullmatch=True)
VALUES = st.text(st.characters(codec="ascii", exclude_categories=("Cc",)), max_size=20)


@given(
    st.lists(
        st.tuples(WORDS, st.dictionaries(WORDS.map(str.lower), VALUES, min_size=1, max_size=4)), max_size=4
    )
)
@pytest.mark.scenario("D10")
def test_what_the_grammar_writes_is_read_back(challenges: list[tuple[str, dict[str, str]]]) -> None:
    def quoted(value: str) -> str:
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'

    items = [
        f"{scheme} " + ", ".join(f"{name}={quoted(value)}" for name, value in params.items())
        for scheme, params in challenges
    ]
    expected = [Challenge(scheme.lower(), params) for scheme, params in challenges]
    assert read_challenges([", ".join(items)]) == expected
    assert read_challenges(items) == expected


@given(st.lists(st.text(max_size=60) | st.text('Bearo="\\,= \t', max_size=60), max_size=5))
@pytest.mark.scenario("D10")
def test_no_challenge_raises(lines: list[str]) -> None:
    read_challenges(lines)


@pytest.mark.parametrize(
    "text", ['Bearer a="' + "\\" * 100_000, "a=" * 50_000, "Bearer " + "a" * 100_000, '"' * 100_000]
)
@pytest.mark.scenario("D10")
def test_a_hostile_challenge_costs_no_time(text: str) -> None:
    started = time.perf_counter()
    read_challenges([text] * 100)
    assert time.perf_counter() - started < 2.0


@given(
    st.sampled_from(
        [made(name) for name in ("slack", "salesforce", "google", "github", "hubspot", "microsoft", "acme")]
    ),
    st.integers(100, 599),
    st.sampled_from(["application/json", "text/plain", "text/html", "", "x"]),
    st.lists(st.text(max_size=30), max_size=3),
    st.none()
    | st.binary(max_size=80)
    | st.sampled_from([b"[" * 9999, b'{"ok":false,"error":' + b"[" * 9999]),
)
@pytest.mark.scenario("D10", "D12")
def test_no_answer_raises(
    provider: Provider, status: int, kind: str, challenge: list[str], body: bytes | None
) -> None:
    found = sign(provider, status, body, kind=kind, challenge=challenge)
    assert found is ApiSign.NONE or status in (200, 400, 401, 403, 404, 429)
    peeks(provider, status, kind)
