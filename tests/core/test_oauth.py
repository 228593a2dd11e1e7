"""What is sent to an authorization server, byte for byte."""

import base64
import json
import traceback
from collections.abc import Mapping
from dataclasses import replace
from urllib.parse import parse_qs, parse_qsl, quote_plus, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authproxy.core.client_auth import Client
from authproxy.core.config import Endpoints, ProviderChoice
from authproxy.core.errors import ProviderMisconfigured
from authproxy.core.oauth import (
    TokenRequest,
    asked_scopes,
    authorization_url,
    check_issuer,
    code_request,
    instance_upstream,
    provider_account,
    refresh_request,
    revocation_request,
)
from authproxy.core.providers import Provider, catalogue, provider_of, with_discovery
from authproxy.core.secret import Secret

CLIENT = Client("id", Secret("shh"), None)
# RFC 7636 appendix B
VERIFIER = Secret("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk")
CHALLENGE = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"
CALLBACK = "https://auth.example.com/callback/acme"


def made(name: str, **chosen: object) -> Provider:
    return provider_of(name, replace(ProviderChoice(), **chosen))  # type: ignore[arg-type]


ACME = made(
    "acme",
    endpoints=Endpoints(authorization="https://acme.example/authorize", token="https://acme.example/token"),
)


def query(provider: Provider, scopes: tuple[str, ...] = ("a", "b"), **more: object) -> dict[str, str]:
    url = authorization_url(
        provider,
        CLIENT,
        redirect_uri=CALLBACK,
        scopes=scopes,
        state=Secret("st"),
        verifier=VERIFIER,
        **more,  # type: ignore[arg-type]
    )
    pairs = parse_qsl(urlsplit(url).query, keep_blank_values=True)
    assert len(pairs) == len(dict(pairs)), "no parameter twice (RFC 6749 3.1)"
    return dict(pairs)


def form(request: TokenRequest) -> dict[str, str]:
    pairs = parse_qsl(request.body.decode(), keep_blank_values=True, strict_parsing=True)
    assert len(pairs) == len(dict(pairs))
    return dict(pairs)


@pytest.mark.scenario("H08")
def test_a_consent_is_asked_for_with_pkce_and_state() -> None:
    assert query(ACME) == {
        "response_type": "code",
        "client_id": "id",
        "redirect_uri": CALLBACK,
        "scope": "a b",
        "state": "st",
        "code_challenge": CHALLENGE,
        "code_challenge_method": "S256",
    }


@given(st.text(st.characters(codec="ascii", categories=("L", "N", "P", "S")), min_size=1, max_size=60))
@pytest.mark.scenario("C02", "C03")
def test_a_redirect_uri_is_an_opaque_string_on_both_legs(tail: str) -> None:
    uri = f"https://auth.example.com:443/callback/{tail}"
    url = authorization_url(ACME, CLIENT, redirect_uri=uri, scopes=(), state=Secret("s"), verifier=None)
    assert parse_qs(urlsplit(url).query)["redirect_uri"] == [uri]
    request = code_request(ACME, CLIENT, code=Secret("c"), redirect_uri=uri, verifier=None)
    assert form(request)["redirect_uri"] == uri


def test_an_endpoints_own_query_stays() -> None:
    tenant = made(
        "acme", endpoints=Endpoints(authorization="https://a.example/?p=B2C_1", token="https://a.example/t")
    )
    assert query(tenant)["p"] == "B2C_1"


@pytest.mark.parametrize(
    ("name", "scopes", "expected", "absent"),
    [
        ("google", ("a", "b"), {"scope": "a b", "access_type": "offline"}, {"prompt"}),
        (
            "slack",
            ("chat:write", "users:read"),
            {"scope": "chat:write,users:read"},
            {"user_scope", "code_challenge"},
        ),
        ("slack_user", ("search:read", "chat:write"), {"user_scope": "search:read,chat:write"}, {"scope"}),
        ("salesforce", ("api",), {"scope": "api refresh_token"}, {"prompt"}),
        ("salesforce", ("api", "offline_access"), {"scope": "api offline_access"}, set()),
        ("github", ("repo",), {"scope": "repo offline_access"}, {"prompt"}),
        ("github_app_user", (), {}, {"scope"}),
        ("hubspot", ("oauth",), {"scope": "oauth"}, {"prompt"}),
        ("atlassian", ("read:me",), {"audience": "api.atlassian.com", "prompt": "consent"}, set()),
        ("dropbox", (), {"token_access_type": "offline"}, set()),
        ("notion", (), {"owner": "user"}, {"scope", "code_challenge"}),
        ("linkedin", ("openid",), {"scope": "openid"}, {"code_challenge", "code_challenge_method"}),
    ],
)
def test_each_provider_is_asked_in_its_own_way(
    name: str, scopes: tuple[str, ...], expected: dict[str, str], absent: set[str]
) -> None:
    asked = query(made(name), scopes)
    assert expected.items() <= asked.items()
    assert not absent & set(asked)


@pytest.mark.scenario("B02", "B03")
def test_consent_is_forced_only_on_demand() -> None:
    assert "prompt" not in query(made("google"))
    assert query(made("google"), force_consent=True)["prompt"] == "consent"


@pytest.mark.scenario("H10")
def test_a_reconnect_names_the_account() -> None:
    assert query(made("google"), login_hint="117")["login_hint"] == "117"
    # where the field wants a user name, the account's number would only mislead
    assert not {"login", "login_hint"} & set(query(made("github"), login_hint="583231"))


def test_a_nonce_goes_with_openid_only() -> None:
    assert query(made("google"), ("openid",), nonce="n")["nonce"] == "n"
    assert "nonce" not in query(made("google"), ("a",), nonce="n")
    assert "nonce" not in query(ACME, ("openid",), nonce="n")


@pytest.mark.scenario("H08")
def test_the_operator_decides_on_pkce() -> None:
    assert query(made("slack", pkce=True))["code_challenge"] == CHALLENGE
    off = made("google", pkce=False)
    assert "code_challenge" not in query(off)
    request = code_request(off, CLIENT, code=Secret("c"), redirect_uri=CALLBACK, verifier=VERIFIER)
    assert "code_verifier" not in form(request)


def test_the_operators_scopes_and_parameters_are_added() -> None:
    provider = made(
        "google", scopes=("openid", "a"), authorize_params={"hd": "x.example", "access_type": "online"}
    )
    asked = query(provider, ("a", "b", "a"))
    assert asked["scope"] == "openid a b"
    assert asked["hd"] == "x.example"
    assert asked["access_type"] == "online"
    assert asked_scopes(provider, ("b",)) == ("openid", "a", "b")


def test_offline_access_is_asked_for_where_discovery_lists_it() -> None:
    issuer = "https://id.acme.example"
    document = {
        "issuer": issuer,
        "authorization_endpoint": f"{issuer}/a",
        "token_endpoint": f"{issuer}/t",
        "scopes_supported": ["offline_access"],
    }
    asked = query(with_discovery(made("acme", issuer=issuer), document))
    assert asked["scope"] == "a b offline_access"
    assert asked["prompt"] == "consent"
    asked = query(with_discovery(made("acme", issuer=issuer), {**document, "scopes_supported": []}))
    assert asked["scope"] == "a b"
    assert "prompt" not in asked


def test_a_code_is_exchanged() -> None:
    request = code_request(
        made("google"), CLIENT, code=Secret("c/1"), redirect_uri=CALLBACK, verifier=VERIFIER
    )
    assert request.url == "https://oauth2.googleapis.com/token"
    assert request.method == "POST"
    assert request.headers == {
        "Accept": "application/json",
        "Content-Type": "application/x-www-form-urlencoded",
    }
    assert form(request) == {
        "grant_type": "authorization_code",
        "code": "c/1",
        "redirect_uri": CALLBACK,
        "code_verifier": VERIFIER.reveal(),
        "client_id": "id",
        "client_secret": "shh",
    }


@pytest.mark.parametrize("name", [n for n in catalogue() if n not in ("oidc", "oauth2")])
@pytest.mark.scenario("B18")
def test_a_refresh_sends_no_scope_and_no_resource(name: str) -> None:
    provider = made(name, subdomain="acme", authorize_params={"resource": "https://api.acme.example"})
    request = refresh_request(
        provider, CLIENT, refresh_token=Secret("rt+1"), scopes=("a",), redirect_uri=CALLBACK
    )
    fields = json.loads(request.body) if b"{" in request.body[:1] else form(request)
    assert fields["grant_type"] == "refresh_token"
    assert fields["refresh_token"] == "rt+1"
    assert not {"scope", "resource"} & set(fields)
    assert ("redirect_uri" in fields) == (name == "gitlab")
    assert request.headers["Accept"] == "application/json"


@pytest.mark.scenario("B18")
def test_a_provider_may_want_them_repeated() -> None:
    rules = replace(ACME.facts.authorization, refresh_repeats=("scope", "resource"))
    provider = replace(
        ACME,
        facts=replace(ACME.facts, authorization=rules),
        authorize_params={"resource": "https://api.acme.example"},
    )
    fields = form(refresh_request(provider, CLIENT, refresh_token=Secret("rt"), scopes=("a", "b")))
    assert fields["scope"] == "a b"
    assert fields["resource"] == "https://api.acme.example"
    assert "scope" not in form(refresh_request(provider, CLIENT, refresh_token=Secret("rt")))


def test_some_want_json_and_a_place_of_its_own() -> None:
    notion = refresh_request(made("notion"), CLIENT, refresh_token=Secret("r&1"))
    assert notion.headers["Content-Type"] == "application/json"
    assert json.loads(notion.body) == {"grant_type": "refresh_token", "refresh_token": "r&1"}
    assert notion.headers["Authorization"].startswith("Basic ")
    figma = made("figma")
    assert (
        refresh_request(figma, CLIENT, refresh_token=Secret("r")).url
        == "https://api.figma.com/v1/oauth/refresh"
    )
    shop = made("shopify", subdomain="acme")
    assert (
        form(code_request(shop, CLIENT, code=Secret("c"), redirect_uri=CALLBACK, verifier=None))["expiring"]
        == "1"
    )


HARD_ID, HARD_SECRET = "http://host/x", "a+b/c:d%e$f g\u00e9"


@pytest.mark.scenario("B20")
def test_basic_is_form_encoded_unless_the_server_does_not_decode() -> None:
    client = Client(HARD_ID, Secret(HARD_SECRET), "client_secret_basic")
    sent = refresh_request(ACME, client, refresh_token=Secret("rt"))
    scheme, _, credential = sent.headers["Authorization"].partition(" ")
    assert scheme == "Basic"
    assert base64.b64decode(credential).decode() == f"{quote_plus(HARD_ID)}:{quote_plus(HARD_SECRET)}"
    assert "client_secret" not in form(sent)

    lenient = replace(ACME.facts.client_auth, basic_auth_encoding="raw")
    raw = replace(ACME, facts=replace(ACME.facts, client_auth=lenient))
    sent = refresh_request(raw, client, refresh_token=Secret("rt"))
    assert base64.b64decode(sent.headers["Authorization"][6:]).decode() == f"{HARD_ID}:{HARD_SECRET}"


@pytest.mark.scenario("B20")
def test_post_and_public_clients() -> None:
    posted = form(
        refresh_request(
            ACME, Client(HARD_ID, Secret(HARD_SECRET), "client_secret_post"), refresh_token=Secret("rt")
        )
    )
    assert (posted["client_id"], posted["client_secret"]) == (HARD_ID, HARD_SECRET)
    request = refresh_request(ACME, Client("pub", None, "none"), refresh_token=Secret("rt"))
    assert form(request)["client_id"] == "pub"
    assert "client_secret" not in form(request)
    assert "Authorization" not in request.headers


@pytest.mark.scenario("F03")
def test_a_request_shows_nothing_but_its_destination() -> None:
    request = refresh_request(ACME, Client("id", Secret("CANARY-s"), None), refresh_token=Secret("CANARY-r"))
    assert repr(request) == str(request) == "TokenRequest(POST acme.example)"
    assert f"{request}" == repr(request)
    try:
        raise RuntimeError
    except RuntimeError as exc:
        shown = traceback.TracebackException.from_exception(exc, capture_locals=True)
    assert "CANARY" not in "".join(shown.format())


@pytest.mark.scenario("I09")
@pytest.mark.parametrize(
    ("name", "hint", "url", "method", "body", "authorization"),
    [
        ("google", "refresh_token", "https://oauth2.googleapis.com/revoke", "POST", b"token=t%2F1", None),
        ("slack", "access_token", "https://slack.com/api/auth.revoke", "POST", b"", "Bearer t/1"),
        (
            "github",
            "access_token",
            "https://api.github.com/applications/id/token",
            "DELETE",
            b'{"access_token": "t/1"}',
            "Basic aWQ6c2ho",
        ),
        (
            "salesforce",
            "refresh_token",
            "https://login.salesforce.com/services/oauth2/revoke",
            "POST",
            b"token=t%2F1",
            None,
        ),
        (
            "hubspot",
            "refresh_token",
            "https://api.hubapi.com/oauth/2026-03/token/revoke",
            "POST",
            b"token=t%2F1&token_type_hint=refresh_token&client_id=id&client_secret=shh",
            None,
        ),
        (
            "twitch",
            "access_token",
            "https://id.twitch.tv/oauth2/revoke",
            "POST",
            b"token=t%2F1&client_id=id",
            None,
        ),
    ],
)
def test_tokens_are_given_back(
    name: str, hint: str, url: str, method: str, body: bytes, authorization: str | None
) -> None:
    request = revocation_request(made(name), CLIENT, token=Secret("t/1"), hint=hint)
    assert request is not None
    assert (request.url, request.method, request.body) == (url, method, body)
    assert request.headers.get("Authorization") == authorization


@pytest.mark.scenario("I09")
def test_not_every_provider_takes_every_token_back() -> None:
    for name, hint in (
        ("slack", "refresh_token"),
        ("github", "refresh_token"),
        ("microsoft", "refresh_token"),
    ):
        assert revocation_request(made(name), CLIENT, token=Secret("t"), hint=hint) is None
    own = made("acme", endpoints=Endpoints(token="https://a.example/t", revocation="https://a.example/r"))
    request = revocation_request(own, CLIENT, token=Secret("t"), hint="refresh_token")
    assert request is not None
    assert form(request) == {"token": "t", "token_type_hint": "refresh_token"}
    assert request.headers["Authorization"].startswith("Basic ")


def test_a_missing_endpoint_is_the_operators_trouble() -> None:
    half = made("acme", endpoints=Endpoints(token="https://acme.example/token"))
    with pytest.raises(ProviderMisconfigured) as caught:
        query(half)
    assert caught.value.reason == "authorization_endpoint_missing"


@pytest.mark.scenario("H07")
def test_a_callback_names_its_issuer() -> None:
    google = made("google")
    assert check_issuer(google, None)
    assert check_issuer(google, "https://accounts.google.com")
    assert not check_issuer(google, "https://accounts.google.com/")
    assert not check_issuer(google, "https://evil.example")
    assert not check_issuer(google, "")
    strict = replace(google, iss_required=True)
    assert not check_issuer(strict, None)
    assert check_issuer(strict, "https://accounts.google.com")
    assert check_issuer(ACME, "https://whoever.example")  # nothing is known to compare with


@pytest.mark.parametrize(
    ("name", "fields", "userinfo", "account"),
    [
        ("google", {"sub": "117"}, None, "117"),
        ("google", {}, {"sub": "117", "email": "a@x.example"}, "117"),
        ("google", {}, None, None),
        ("google", {}, {"sub": True}, None),
        ("google", {}, {"sub": "a\nb"}, None),
        ("slack", {"team.id": "T1", "authed_user.id": "U1"}, None, "T1/U1"),
        ("slack", {"team.id": "T1"}, None, None),
        ("slack", {}, {"team_id": "T1", "user_id": "U1"}, "T1/U1"),
        ("salesforce", {"id": "https://login.salesforce.com/id/00Dx/005x"}, None, "00Dx/005x"),
        ("salesforce", {}, {"sub": "https://acme.my.salesforce.com/id/00Dx/005x"}, "00Dx/005x"),
        ("github", {}, {"id": 583231, "login": "octocat"}, "583231"),
        ("hubspot", {"hub_id": "1", "user_id": "2"}, None, "1/2"),
        ("asana", {"data.gid": "9"}, None, "9"),
        ("zendesk", {}, {"user": {"id": 5}}, "5"),
        ("intercom", {}, {"id": ["x"]}, None),
    ],
)
@pytest.mark.scenario("H10")
def test_a_grant_belongs_to_an_account(
    name: str, fields: Mapping[str, str], userinfo: Mapping[str, object] | None, account: str | None
) -> None:
    assert provider_account(made(name, subdomain="acme"), fields, userinfo) == account


@pytest.mark.parametrize(
    ("named", "upstream"),
    [
        ("https://acme.my.salesforce.com", "https://acme.my.salesforce.com"),
        ("https://acme.my.salesforce.com/", "https://acme.my.salesforce.com"),
        ("https://ACME.my.salesforce.com:443", "https://acme.my.salesforce.com"),
        ("https://acme--uat.sandbox.my.salesforce.com", "https://acme--uat.sandbox.my.salesforce.com"),
        ("https://na1.salesforce.com", "https://na1.salesforce.com"),
        ("https://api.salesforce.com", "https://api.salesforce.com"),
        ("http://acme.my.salesforce.com", None),
        ("https://acme.my.salesforce.com:8443", None),
        ("https://acme.my.salesforce.com/path", None),
        ("https://acme.my.salesforce.com?x", None),
        ("https://acme.my.salesforce.com#x", None),
        ("https://u:p@acme.my.salesforce.com", None),
        ("https://evil.example", None),
        ("https://evil.example/.my.salesforce.com", None),
        ("https://my.salesforce.com.evil.example", None),
        ("https://xmy.salesforce.com.evil.example", None),
        ("https://evilsalesforce.com", None),
        ("https://salesforce.com", None),
        ("https://a\\.my.salesforce.com", None),
        ("https://a b.my.salesforce.com", None),
        ("https://\u0430.my.salesforce.com", None),
        ("https://.my.salesforce.com", None),
        ("https://[::1", None),
        ("https://x:99999", None),
        ("https://127.0.0.1", None),
        ("http://127.0.0.1:9000", None),
        ("acme.my.salesforce.com", None),
        ("", None),
    ],
)
@pytest.mark.scenario("B23", "G22")
def test_a_grants_own_host_is_one_of_the_providers(named: str, upstream: str | None) -> None:
    assert instance_upstream(made("salesforce"), {"instance_url": named}) == upstream


def test_only_a_rehearsal_may_name_this_machine() -> None:
    here = made("salesforce", endpoints=Endpoints(token="http://127.0.0.1:8702/token"))
    assert instance_upstream(here, {"instance_url": "http://127.0.0.1:8703"}) == "http://127.0.0.1:8703"
    assert instance_upstream(here, {"instance_url": "http://10.0.0.1:8703"}) is None
    assert instance_upstream(here, {"instance_url": "http://127.0.0.1:8703/x"}) is None
    assert instance_upstream(here, {}) is None
    assert instance_upstream(made("google"), {"instance_url": "https://evil.example"}) is None


@given(st.text(max_size=80))
@pytest.mark.scenario("B23", "G22")
def test_no_text_makes_another_host(named: str) -> None:
    for text in (
        named,
        f"https://{named}",
        f"https://{named}.my.salesforce.com",
        f"https://x.my.salesforce.com{named}",
    ):
        upstream = instance_upstream(made("salesforce"), {"instance_url": text})
        if upstream is not None:
            host = urlsplit(upstream).hostname or ""
            assert host.endswith(".salesforce.com")
            assert upstream == f"https://{host}"
