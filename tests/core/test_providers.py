"""The packaged provider data, and what becomes of it with the operator's choices."""

import re
import time
from dataclasses import asdict, replace
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from authproxy.core import packaged
from authproxy.core.client_auth import Client
from authproxy.core.config import Endpoints, ProviderChoice, RouteChoice
from authproxy.core.errors import ProviderMisconfigured
from authproxy.core.facts import Entry, Row
from authproxy.core.packaged import CatalogueFault, built, entry_name
from authproxy.core.providers import (
    Provider,
    catalogue,
    catalogue_routes,
    client_of,
    provider_of,
    revocation_of,
    with_discovery,
)
from authproxy.core.secret import Secret
from authproxy.core.verdicts import ADVICE

CATALOGUE = Path(packaged.__file__).parent / "catalogue"
GENERIC = {"oidc", "oauth2"}
ENTRIES = [(name, entry) for name, entry in catalogue().items()]
every_entry = pytest.mark.parametrize(("name", "entry"), ENTRIES, ids=[name for name, _ in ENTRIES])
ISSUER = "https://id.acme.example"


def choice_for(name: str) -> ProviderChoice:
    return ProviderChoice(subdomain="acme", issuer=ISSUER if name in GENERIC else None)


def made(name: str, **chosen: object) -> Provider:
    return provider_of(name, replace(ProviderChoice(), **chosen))  # type: ignore[arg-type]


def rows_of(entry: Entry) -> list[Row]:
    token, api = entry.token_errors, entry.api_errors
    return [
        *token.transient,
        *token.misconfigured,
        *token.dead,
        *entry.authorize_errors,
        *api.not_curable,
        *api.scope,
        *api.expired,
    ]


def test_the_catalogue_has_every_provider() -> None:
    assert len(catalogue()) >= 37
    assert {"google", "slack", "salesforce", "github_oauth_app", "github_app_user", "hubspot"} <= set(
        catalogue()
    )
    assert set(catalogue()) >= GENERIC


@every_entry
def test_an_entry_is_whole(name: str, entry: Entry) -> None:
    assert entry.name
    assert entry.sources, "say where it is known from"
    provider = provider_of(name, choice_for(name))
    if name not in GENERIC:
        assert provider.endpoints.authorization
        assert provider.endpoints.token
        assert provider.api_hosts
    for url in asdict(provider.endpoints).values():
        assert url is None or urlsplit(url).scheme == "https"
        assert url is None or "{" not in url.replace("{client_id}", "")
    for header, value in (*entry.api.required_headers.items(), *entry.client_auth.headers.items()):
        assert re.fullmatch(r"[A-Za-z-]+", header)
        assert re.fullmatch(r"[!-~]+", value), "these are sent as they stand"
    for host in provider.api_hosts:
        assert host == host.lower()
        assert "*" not in host
        assert "/" not in host


@every_entry
def test_an_entrys_rows_can_match_something(name: str, entry: Entry) -> None:
    for row in rows_of(entry):
        assert row.reason is None or row.reason in ADVICE
        assert row.status or row.code or row.subcode or row.text or row.challenge
        assert all(isinstance(s, int) or s in ("4xx", "5xx") for s in row.status)
    for environment in entry.environments.values():
        assert set(environment.reasons) | set(environment.reasons.values()) <= set(ADVICE)


@every_entry
def test_what_is_unverified_names_a_key_of_the_entry(name: str, entry: Entry) -> None:
    for path in entry.unverified:
        value: object = entry
        for key in path.split("."):
            value = value[key] if isinstance(value, dict) else _member(value, key)  # type: ignore[index]


def _member(value: object, key: str) -> object:
    return value[key] if hasattr(value, "keys") else getattr(value, key)  # type: ignore[index]


@every_entry
def test_tokens_go_to_no_token_endpoint_unhindered(name: str, entry: Entry) -> None:
    """F07: where the API and the authorization server share a host, the token paths are off limits for agents."""
    provider = provider_of(name, choice_for(name))
    for url in (provider.endpoints.token, provider.endpoints.refresh):
        parts = urlsplit(url or "")
        if parts.hostname in provider.api_hosts:
            assert any(_globbed(parts.path, glob) for glob in provider.credential_paths), parts.path


def _globbed(path: str, glob: str) -> bool:
    pattern = re.escape(glob).replace(r"\*\*", ".*").replace(r"\*", "[^/]*")
    return re.fullmatch(pattern, path) is not None


@every_entry
@pytest.mark.scenario("H08")
def test_pkce_is_off_only_for_a_reason(name: str, entry: Entry) -> None:
    provider = provider_of(name, choice_for(name))
    assert provider.pkce or entry.pkce.off_because
    assert provider.pkce or entry.pkce.support != "required"
    assert provider_of(name, replace(choice_for(name), pkce=True)).pkce


def test_aliases_lead_to_entries_and_hide_none() -> None:
    document = yaml.safe_load((CATALOGUE / "aliases.yaml").read_text())
    assert set(document) <= set(catalogue())
    aliases = [alias.replace("-", "_") for names in document.values() for alias in names]
    assert len(aliases) == len(set(aliases))
    assert not set(aliases) & set(catalogue())
    assert entry_name("github") == "github_oauth_app"
    assert entry_name("github-app") == "github_app_user"
    assert entry_name("slack-user") == "slack_user"
    assert entry_name("acme") is None


@every_entry
def test_files_say_nothing_that_is_not_read(name: str, entry: Entry) -> None:
    raw = yaml.safe_load((CATALOGUE / f"{name}.yaml").read_text())
    raw["colour"] = "red"
    raw.pop("extends", None)
    raw.setdefault("name", "x")
    with pytest.raises(CatalogueFault, match="unknown key colour"):
        built(Entry, raw, name)


@pytest.mark.parametrize(
    "raw",
    [
        {"name": "x", "endpoints": {"tokens": "https://x"}},
        {"name": "x", "pkce": {"support": "maybe"}},
        {"name": "x", "token_errors": {"dead": [{"codes": ["a"]}]}},
        {"name": "x", "token_errors": {"dead": [{"code": "a"}]}},
        {"name": "x", "refresh_token": {"max_live": "ten"}},
        {"name": "x", "refresh_token": {"max_live": True}},
        {"name": 7},
        {"name": None},
        {},
        {"name": "x", "notes": "a sentence"},
        {"name": "x", "environments": {"a": None}},
    ],
)
def test_the_data_is_read_strictly(raw: dict[str, object]) -> None:
    with pytest.raises(CatalogueFault):
        built(Entry, raw, "x")


def test_one_provider_costs_one_file() -> None:
    """Start-up pays for the providers in use: well under 50 ms for all six that most installations have."""
    packaged._entry.cache_clear()
    started = time.process_time()
    for name in ("google", "slack", "salesforce", "github", "hubspot", "microsoft"):
        made(name)
    assert time.process_time() - started < 0.5  # some 10 ms of our own, whatever else the machine does
    assert packaged._entry.cache_info().currsize <= 6


def test_routes_of_the_catalogue() -> None:
    routes = catalogue_routes()
    assert {"gmail", "google-calendar", "google-drive", "slack", "salesforce", "github", "hubspot"} <= set(
        routes
    )
    for name, route in routes.items():
        assert isinstance(route, RouteChoice)
        assert route.prefix == f"/{name}"
        assert route.provider is not None
        assert route.upstream is not None
        parts = urlsplit(route.upstream)
        assert parts.scheme == "https"
        assert parts.path == ""
        assert parts.hostname in made(route.provider, subdomain="acme").api_hosts
    assert routes["slack"].upstream == "https://slack.com"
    calendar = routes["google-calendar"].allow
    assert calendar is not None
    assert calendar[0].paths[0] == "/calendar/**"


def test_an_environment_of_the_provider_changes_its_hosts() -> None:
    sandbox = made("salesforce", environment="sandbox")
    assert sandbox.endpoints.token == "https://test.salesforce.com/services/oauth2/token"
    assert sandbox.endpoints.revocation == "https://test.salesforce.com/services/oauth2/revoke"
    assert sandbox.issuer == "https://test.salesforce.com"
    gov = made("slack", environment="govslack")
    assert gov.api_hosts == ("slack-gov.com",)
    assert made("google", environment="testing").reasons == {"revoked_or_expired": "test_mode_expiry"}
    with pytest.raises(ProviderMisconfigured) as caught:
        made("slack", environment="moon")
    assert caught.value.reason == "environment"


def test_braces_are_filled() -> None:
    assert made("zendesk", subdomain="acme").api_hosts == ("acme.zendesk.com",)
    assert made("microsoft").endpoints.token == "https://login.microsoftonline.com/common/oauth2/v2.0/token"
    org = made("salesforce", environment="my_domain", subdomain="acme--uat.sandbox")
    assert org.endpoints.token == "https://acme--uat.sandbox.my.salesforce.com/services/oauth2/token"
    server = made("github", environment="ghes", subdomain="git.acme.example:8443")
    assert server.endpoints.token == "https://git.acme.example:8443/login/oauth/access_token"
    with pytest.raises(ProviderMisconfigured) as caught:
        made("zendesk")
    assert caught.value.reason == "subdomain_missing"


@given(st.text(st.characters(codec="utf-8"), min_size=1, max_size=30))
def test_a_subdomain_never_names_another_host(value: str) -> None:
    try:
        provider = made("zendesk", subdomain=value)
    except ProviderMisconfigured:
        return
    assert provider.endpoints.token is not None
    parts = urlsplit(provider.endpoints.token)
    assert parts.hostname == f"{value.lower()}.zendesk.com"
    assert parts.path == "/oauth/tokens"


@pytest.mark.parametrize(
    "value",
    [
        "evil.example/",
        "evil.example#",
        "evil.example?",
        "a@b",
        "a:1",
        "",
        " ",
        "a b",
        "a..b",
        ".",
        "-a",
        "a\n",
        "{x}",
    ],
)
def test_a_subdomain_that_would_break_out_is_refused(value: str) -> None:
    with pytest.raises(ProviderMisconfigured):
        made("zendesk", subdomain=value)


def test_an_unknown_provider_needs_an_issuer_or_endpoints() -> None:
    with pytest.raises(ProviderMisconfigured) as caught:
        made("acme")
    assert caught.value.reason == "unknown_provider"
    assert made("acme", issuer=ISSUER).entry == "oidc"
    plain = made(
        "acme", endpoints=Endpoints(token="https://acme.example/token"), api_hosts=("api.acme.example",)
    )
    assert plain.entry == "oauth2"
    assert plain.id == "acme"
    assert plain.offline_scopes == ()
    assert plain.api_hosts == ("api.acme.example",)
    with pytest.raises(ProviderMisconfigured) as caught:
        made("acme", catalogue="nope")
    assert caught.value.reason == "catalogue"
    assert made("work", catalogue="google").entry == "google"


@pytest.mark.parametrize(
    "url",
    [
        "http://acme.example/token",
        "ftp://acme.example",
        "https://",
        "https://u@acme.example/",
        "https://acme.example/ x",
        "https://acme.example/#f",
        "//acme.example",
        "https://[::1",
        "https://acme.example:99999/",
    ],
)
def test_endpoints_are_https_or_on_this_machine(url: str) -> None:
    with pytest.raises(ProviderMisconfigured):
        made("acme", endpoints=Endpoints(token=url))
    with pytest.raises(ProviderMisconfigured):
        made("acme", issuer=url)


@pytest.mark.parametrize("url", ["http://127.0.0.1:9000/t", "http://localhost/t", "http://[::1]:9000/t"])
def test_an_emulator_on_this_machine_may_speak_http(url: str) -> None:
    provider = made("slack", endpoints=Endpoints(token=url, revocation=url))
    assert provider.endpoints.token == url
    rules = revocation_of(provider)
    assert rules is not None
    assert (rules.url, rules.auth) == (url, "bearer")  # the provider's ways, at the emulator's address
    assert provider.endpoints.authorization == "https://slack.com/oauth/v2/authorize"


def test_tokens_of_another_server_are_not_sent_to_the_catalogue_s() -> None:
    """Nor is its id_token held to the name of a server that did not make it."""
    emulator = made("google", endpoints=Endpoints(token="http://127.0.0.1:9000/token"))
    assert emulator.issuer is None
    assert emulator.endpoints.userinfo is emulator.endpoints.introspection is None
    assert revocation_of(emulator) is None
    github = made("github", endpoints=Endpoints(token="https://git.acme.example/login/oauth/access_token"))
    assert (github.endpoints.userinfo, revocation_of(github)) == (None, None)
    same = made("google", endpoints=Endpoints(token="https://www.googleapis.com/oauth2/v4/token"))
    assert (same.issuer, same.endpoints.userinfo) == (
        made("google").issuer,
        made("google").endpoints.userinfo,
    )
    assert revocation_of(same) is not None


def test_an_emulated_token_endpoint_serves_refreshes_too() -> None:
    provider = made("figma", endpoints=Endpoints(token="http://127.0.0.1:9000/t"))
    assert made("figma").endpoints.refresh == "https://api.figma.com/v1/oauth/refresh"
    assert provider.endpoints.refresh is None


def test_parameters_of_the_flow_cannot_be_configured_away() -> None:
    with pytest.raises(ProviderMisconfigured) as caught:
        made("google", authorize_params={"state": "fixed"})
    assert caught.value.reason == "authorize_params"


DOCUMENT = {
    "issuer": ISSUER,
    "authorization_endpoint": f"{ISSUER}/authorize",
    "token_endpoint": f"{ISSUER}/token",
    "revocation_endpoint": f"{ISSUER}/revoke",
    "userinfo_endpoint": "https://other.acme.example/me",
    "scopes_supported": ["openid", "offline_access"],
    "code_challenge_methods_supported": ["S256"],
    "token_endpoint_auth_methods_supported": ["client_secret_post", "private_key_jwt"],
    "authorization_response_iss_parameter_supported": True,
}


@pytest.mark.scenario("H07")
def test_discovery_completes_a_provider() -> None:
    bare = made("acme", issuer=ISSUER)
    assert bare.endpoints.token is None
    full = with_discovery(bare, DOCUMENT)
    assert full.endpoints.token == f"{ISSUER}/token"
    assert full.endpoints.userinfo == "https://other.acme.example/me"
    assert full.iss_required
    assert full.code_challenge_methods == ("S256",)
    assert full.client_auth == "client_secret_post"
    assert full.offline_scopes == ("offline_access",)
    assert full.offline_params == {"prompt": "consent"}
    rules = revocation_of(full)
    assert rules is not None
    assert rules.takes == ("refresh_token", "access_token")


@pytest.mark.parametrize("issuer", [None, 7, "", ISSUER + "/", ISSUER.upper(), "https://evil.example"])
@pytest.mark.scenario("H07")
def test_a_document_of_another_issuer_is_refused(issuer: object) -> None:
    with pytest.raises(ProviderMisconfigured) as caught:
        with_discovery(made("acme", issuer=ISSUER), {**DOCUMENT, "issuer": issuer})
    assert caught.value.reason == "issuer_mismatch"
    assert "evil" not in caught.value.title


@pytest.mark.parametrize(
    "url", ["http://id.acme.example/token", "http://127.0.0.1/token", 7, "", "javascript:1"]
)
def test_a_discovered_endpoint_is_https(url: object) -> None:
    with pytest.raises(ProviderMisconfigured) as caught:
        with_discovery(made("acme", issuer=ISSUER), {**DOCUMENT, "token_endpoint": url})
    assert caught.value.reason == "endpoint_insecure"


def test_an_issuer_on_this_machine_may_speak_http_throughout() -> None:
    issuer = "http://127.0.0.1:8702"
    document = {
        "issuer": issuer,
        "token_endpoint": f"{issuer}/token",
        "authorization_endpoint": f"{issuer}/authorize",
    }
    assert with_discovery(made("acme", issuer=issuer), document).endpoints.token == f"{issuer}/token"


def test_discovery_leaves_the_operators_endpoints_alone() -> None:
    own = made("acme", issuer=ISSUER, endpoints=Endpoints(token="https://proxy.acme.example/token"))
    assert with_discovery(own, DOCUMENT).endpoints.token == "https://proxy.acme.example/token"


def test_discovery_is_believed_about_what_a_server_cannot() -> None:
    bare = made("acme", issuer=ISSUER)
    silent = with_discovery(bare, {k: v for k, v in DOCUMENT.items() if "supported" not in k})
    assert silent.pkce
    assert silent.client_auth == "client_secret_basic"
    assert silent.offline_scopes == ()
    assert silent.offline_params == {}
    assert not silent.iss_required
    plain = with_discovery(bare, {**DOCUMENT, "code_challenge_methods_supported": ["plain"]})
    assert not plain.pkce
    odd = with_discovery(
        bare, {**DOCUMENT, "token_endpoint_auth_methods_supported": "basic", "scopes_supported": 7}
    )
    assert odd.client_auth == "client_secret_basic"
    with pytest.raises(ProviderMisconfigured):
        with_discovery(bare, {"issuer": ISSUER})


@pytest.mark.scenario("C11")
def test_a_client_is_whole_or_refused() -> None:
    secret = Secret("s")
    assert client_of("acme", ProviderChoice(client_id=Secret("id"), client_secret=secret)) == Client(
        "id", secret, None
    )
    public = client_of("acme", ProviderChoice(client_id="id", client_auth="none"))
    assert (public.client_secret, public.auth) == (None, "none")
    for choice, reason in (
        (ProviderChoice(client_secret=secret), "client_id_missing"),
        (ProviderChoice(client_id=Secret(""), client_secret=secret), "client_id_missing"),
        (ProviderChoice(client_id="id"), "client_secret_missing"),
        (ProviderChoice(client_id="id", client_secret=Secret("")), "client_secret_missing"),
    ):
        with pytest.raises(ProviderMisconfigured) as caught:
            client_of("acme", choice)
        assert caught.value.reason == reason


GOOGLE = "https://www.googleapis.com/auth/"


@pytest.mark.parametrize(
    ("name", "granted", "needed", "lacking"),
    [
        ("google", ["b", "a"], ["a", "b"], ()),
        ("google", ["a"], ["a", "b", "b"], ("b",)),
        ("google", [], [], ()),
        ("google", [f"{GOOGLE}userinfo.email", "openid"], ["openid", "email"], ()),
        ("google", ["https://mail.google.com/"], [f"{GOOGLE}gmail.readonly", f"{GOOGLE}gmail.metadata"], ()),
        ("google", [f"{GOOGLE}gmail.readonly"], ["https://mail.google.com/"], ("https://mail.google.com/",)),
        ("github", ["repo", "user"], ["public_repo", "user:email", "offline_access"], ()),
        ("github", ["public_repo"], ["repo"], ("repo",)),
        ("github_app_user", [], ["contents"], ()),
        ("salesforce", ["full"], ["api", "refresh_token"], ()),
        ("microsoft", ["https://graph.microsoft.com/Mail.Read"], ["Mail.Read", "offline_access"], ()),
        ("microsoft", ["Mail.Read"], ["https://graph.microsoft.com/Mail.Read"], ()),
    ],
)
@pytest.mark.scenario("B17")
def test_scopes_are_compared_as_sets(
    name: str, granted: list[str], needed: list[str], lacking: tuple[str, ...]
) -> None:
    assert made(name).lacking(granted, needed) == lacking
