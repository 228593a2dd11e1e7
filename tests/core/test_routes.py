"""Routes: whole segments of raw bytes, hosts in one spelling, upstream targets joined and never rewritten."""

from __future__ import annotations

from types import MappingProxyType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authproxy.core.config import Config, ProviderChoice, RouteChoice, RouteTimeouts, Rule, Timeouts
from authproxy.core.known import Known, KnownProvider
from authproxy.core.origin import Origin, canonical_host, read_base_url, read_host_port, read_origin
from authproxy.core.policy import decide
from authproxy.core.routes import Route, RouteTable, completed


def known(**providers: KnownProvider) -> Known:
    routes = {
        "calendar": RouteChoice(
            upstream="https://www.googleapis.com", provider="google", allow=(Rule(paths=("/calendar/**",)),)
        ),
        "drive": RouteChoice(
            upstream="https://www.googleapis.com",
            provider="google",
            scopes=("drive.readonly",),
            allow=(Rule(paths=("/drive/**",)),),
        ),
        "salesforce": RouteChoice(prefix="/sf", provider="salesforce"),
    }
    entries = {
        "google": KnownProvider(("www.googleapis.com", "gmail.googleapis.com")),
        "salesforce": KnownProvider((), ("*.my.salesforce.com",), "instance_url", ("/services/oauth2/**",)),
        **providers,
    }
    return Known(routes, tuple(entries), lambda name, choice: entries.get(name))


def table(**routes: RouteChoice) -> RouteTable:
    config = Config(version=1, routes=MappingProxyType({k.replace("_", "-"): v for k, v in routes.items()}))
    return RouteTable.build(config, known())


def at(prefix: str | None = None, upstream: str = "https://api.example/v2", **more: object) -> RouteChoice:
    return RouteChoice(prefix=prefix, upstream=upstream, provider="p", **more)  # type: ignore[arg-type]


# --- prefixes ------------------------------------------------------------------------------------------------------

GMAIL = table(gmail=at(), deep=at("/gmail/v1/users"), other=at("/x.y"))

PREFIXES = [
    (b"/gmail", "gmail", b""),
    (b"/gmail/", "gmail", b"/"),
    (b"/gmail/x", "gmail", b"/x"),
    (b"/gmail?x=/y", "gmail", b"?x=/y"),
    (b"/gmail?", "gmail", b"?"),
    (b"/gmail//x", "gmail", b"//x"),
    (b"/gmail/v1", "gmail", b"/v1"),
    (b"/gmail/v1/users", "deep", b""),
    (b"/gmail/v1/users/me", "deep", b"/me"),
    (b"/gmail/v1/usersx", "gmail", b"/v1/usersx"),
    (b"/gmail/v1?/users", "gmail", b"/v1?/users"),
    (b"/gmail/v1//users", "gmail", b"/v1//users"),
    (b"/gmail/%761/users", "gmail", b"/%761/users"),
    (b"/x.y/a", "other", b"/a"),
    (b"/xzy/a", None, b""),
    (b"/gmailx", None, b""),
    (b"/gmail@host/x", None, b""),
    (b"/gmail:81/x", None, b""),
    (b"/gmail.evil/x", None, b""),
    (b"/gmail%2Fx", None, b""),
    (b"/gmail%3Fx", None, b""),
    (b"/gmail#x", None, b""),
    (b"/gmail;x/y", None, b""),
    (b"/gmail\\x", None, b""),
    (b"/%67mail/x", None, b""),
    (b"/Gmail/x", None, b""),
    (b"//gmail/x", None, b""),
    (b"//gmail", None, b""),
    (b"gmail/x", None, b""),
    (b"/", None, b""),
    (b"", None, b""),
    (b"*", None, b""),
    (b"?", None, b""),
    (b"/?/gmail", None, b""),
    (b"http://h/gmail", None, b""),
]


@pytest.mark.scenario("G17", "G22")
@pytest.mark.parametrize(("path", "name", "rest"), PREFIXES)
def test_prefixes(path: bytes, name: str | None, rest: bytes) -> None:
    found = GMAIL.match_prefix(path)
    assert (found and found[0].name) == name
    assert found is None or found[1] == rest


@given(
    st.lists(
        st.sampled_from([b"/gmail", b"/v1", b"/users", b"x", b"/", b"?", b"%2f", b"@", b":", b".", b"#"]),
        max_size=7,
    )
)
def test_a_prefix_never_matches_across_a_segment(pieces: list[bytes]) -> None:
    path = b"".join(pieces)
    found = GMAIL.match_prefix(path)
    if found is None:
        assert path.partition(b"?")[0].split(b"/")[:2] != [b"", b"gmail"]
    else:
        route, rest = found
        assert route.prefix + rest == path
        assert rest == b"" or rest[:1] in b"/?"


def test_the_root_prefix_takes_the_rest() -> None:
    routes = table(root=at("/", "https://api.example"), gmail=at())
    assert routes.match_prefix(b"/gmail/x")[0].name == "gmail"  # type: ignore[index]
    for path in (b"/", b"/x?y", b"//host/x", b"/gmailx"):
        route, rest = routes.match_prefix(path)  # type: ignore[misc]
        assert (route.name, rest) == ("root", path)
        assert route.target(rest) == path
    assert routes.match_prefix(b"*") is None


def test_ties_are_refused() -> None:
    with pytest.raises(ValueError, match="same prefix"):
        table(a=at("/x"), b=at("/x"))
    with pytest.raises(ValueError, match="same prefix"):
        table(a=at("/b"), b=at())


def test_a_thousand_routes_and_the_most_specific() -> None:
    routes = table(**{f"r{i}": at(f"/r{i % 10}/s{i % 100}/t{i}") for i in range(1000)})
    assert len(routes) == len(list(routes)) == 1000
    for i in (0, 7, 999):
        assert routes.match_prefix(b"/r%d/s%d/t%d/x" % (i % 10, i % 100, i))[0].name == f"r{i}"  # type: ignore[index]
    assert routes.match_prefix(b"/r1/s1/x") is None
    assert routes.get("r5") is not None
    assert routes.get("nobody") is None


# --- upstream targets ----------------------------------------------------------------------------------------------


@pytest.mark.scenario("G16")
@pytest.mark.parametrize(
    "base",
    ["https://api.example", "https://api.example/", "https://api.example/v2", "https://api.example/v2/x/"],
)
@pytest.mark.parametrize(
    "rest",
    [
        b"",
        b"/",
        b"?q",
        b"/a%2Fb//c/../d?x=%20+%2B&&y",
        b"//host/x",
        b"/a;b=c",
        b"/\xff\xc3\xb6",
        b"/%zz",
        b"/a:81@h",
    ],
)
def test_targets_are_joined_byte_for_byte(base: str, rest: bytes) -> None:
    route = table(a=at(upstream=base)).get("a")
    assert route is not None
    path = {"https://api.example/v2": b"/v2", "https://api.example/v2/x/": b"/v2/x"}.get(base, b"") + rest
    assert route.target(rest) == (path if path.startswith(b"/") else b"/" + path)


# --- hosts ---------------------------------------------------------------------------------------------------------

HOSTS = table(
    acme=at(upstream="https://api.acme.example/v2"),
    acme_admin=at(upstream="https://api.acme.example/v2/admin"),
    odd=at(upstream="https://api.odd.example:8443"),
    plain=at(upstream="http://127.0.0.1:8790/api"),
    six=at(upstream="https://[2001:DB8::1]"),
    also=at(upstream="https://idn.example", hosts=("xn--bcher-kva.example", "other.example:8443")),
    emulated=at(upstream="http://127.0.0.1:8791", hosts=("real.example",)),
    calendar=RouteChoice(),
    drive=RouteChoice(),
    salesforce=RouteChoice(),
)

ABSOLUTE = [
    ("https", "api.acme.example", 443, b"/v2/x", "acme"),
    ("http", "api.acme.example", 80, b"/v2/x", "acme"),
    ("HTTP", "API.Acme.Example", 80, b"/v2?x", "acme"),
    ("https", "api.acme.example", 443, b"/v2/admin/x", "acme-admin"),
    ("https", "api.acme.example", 443, b"/v2/administrator", "acme"),
    ("https", "api.acme.example", 443, b"/v2", "acme"),
    ("https", "api.acme.example", 443, b"/v1/x", None),
    ("https", "api.acme.example", 443, b"/v2x", None),
    ("https", "api.acme.example", 443, b"/v2%2Fx", None),
    ("https", "api.acme.example", 443, b"/", None),
    ("http", "api.acme.example", 443, b"/v2/x", None),
    ("https", "api.acme.example", 80, b"/v2/x", None),
    ("https", "api.acme.example", 8443, b"/v2/x", None),
    ("ftp", "api.acme.example", 443, b"/v2/x", None),
    ("https", "api.acme.example.", 443, b"/v2/x", None),
    ("https", "xapi.acme.example", 443, b"/v2/x", None),
    ("https", "api.acme.example.evil", 443, b"/v2/x", None),
    ("https", "acme.example", 443, b"/v2/x", None),
    ("https", "", 443, b"/v2/x", None),
    ("https", "api..acme.example", 443, b"/v2/x", None),
    ("https", "api.odd.example", 8443, b"/x", "odd"),
    ("http", "api.odd.example", 8443, b"/x", None),
    ("http", "api.odd.example", 80, b"/x", None),
    ("http", "127.0.0.1", 8790, b"/api/x", "plain"),
    ("https", "127.0.0.1", 8790, b"/api/x", None),
    ("http", "2130706433", 8790, b"/api/x", None),
    ("http", "127.1", 8790, b"/api/x", None),
    ("http", "0177.0.0.1", 8790, b"/api/x", None),
    ("http", "::ffff:127.0.0.1", 8790, b"/api/x", None),
    ("http", "localhost", 8790, b"/api/x", None),
    ("https", "2001:db8::1", 443, b"/", "six"),
    ("https", "[2001:db8:0:0::1]", 443, b"/", "six"),
    ("https", "2001:db8::1%25eth0", 443, b"/", None),
    ("https", "xn--bcher-kva.example", 443, b"/", "also"),
    ("https", "XN--BCHER-KVA.example", 443, b"/", "also"),
    ("https", "bücher.example", 443, b"/", None),
    ("https", "\uff49dn.example", 443, b"/", None),
    ("https", "other.example", 8443, b"/", "also"),
    ("https", "other.example", 443, b"/", None),
    ("https", "www.googleapis.com", 443, b"/calendar/v3/x", "calendar"),
    ("https", "www.googleapis.com", 443, b"/drive/v3/x", "drive"),
    ("https", "www.googleapis.com", 443, b"/youtube/v3/x", None),
    ("https", "acme.my.salesforce.com", 443, b"/services/data", "salesforce"),
    ("http", "acme.my.salesforce.com", 80, b"/services/data", "salesforce"),
    ("https", "acme.my.salesforce.com", 8443, b"/services/data", None),
    ("https", "my.salesforce.com.evil", 443, b"/services/data", None),
    ("https", "xsalesforce.com", 443, b"/services/data", None),
    ("http", "real.example", 80, b"/x", "emulated"),
    ("https", "real.example", 443, b"/x", "emulated"),
    ("https", "127.0.0.1", 8791, b"/x", None),
]


@pytest.mark.scenario("G22")
@pytest.mark.parametrize(("scheme", "host", "port", "path", "name"), ABSOLUTE)
def test_absolute_targets(scheme: str, host: str, port: int, path: bytes, name: str | None) -> None:
    found = HOSTS.match_host(scheme, host, port, path, "GET")
    assert (found and found.name) == name


def test_routes_that_cannot_be_told_apart_are_neither() -> None:
    routes = table(a=at("/a"), b=at("/b"))
    assert routes.match_host("https", "api.example", 443, b"/v2/x", "GET") is None
    reading = at("/r", allow=(Rule(methods=("GET",)),))
    writing = at("/w", allow=(Rule(methods=("POST",)),))
    routes = table(reading=reading, writing=writing)
    assert routes.match_host("https", "api.example", 443, b"/v2/x", "GET").name == "reading"  # type: ignore[union-attr]
    assert routes.match_host("https", "api.example", 443, b"/v2/x", "POST").name == "writing"  # type: ignore[union-attr]
    assert routes.match_host("https", "api.example", 443, b"/v2/x", "PUT") is None


def test_connect_is_for_https_upstreams() -> None:
    assert HOSTS.names_host("api.acme.example", 443)
    assert HOSTS.names_host("API.odd.example", 8443)
    assert not HOSTS.names_host("api.acme.example", 80)
    assert not HOSTS.names_host("127.0.0.1", 8790)
    assert not HOSTS.names_host("api.acme.example.", 443)
    assert HOSTS.names_host("real.example", 443)
    assert not HOSTS.names_host("127.0.0.1", 8791)
    assert HOSTS.names_host("acme.my.salesforce.com", 443)
    assert {"api.acme.example", "real.example", ".my.salesforce.com"} <= HOSTS.https_names()
    assert "127.0.0.1" not in HOSTS.https_names()


# --- origins -------------------------------------------------------------------------------------------------------


@pytest.mark.scenario("G22")
@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("https://API.Example", Origin("https", "api.example", 443)),
        ("https://api.example:8443/v2/", Origin("https", "api.example", 8443, b"/v2")),
        ("http://[::1]:80/a", Origin("http", "::1", 80, b"/a")),
        ("https://svc_a/x", Origin("https", "svc_a", 443, b"/x")),
        ("https://a@b", None),
        ("https://a:b@c/", None),
        ("https://h?x", None),
        ("https://h#x", None),
        ("https://h/a b", None),
        ("https://h/%2e%2e", None),
        ("https://h/../x", None),
        ("https://h/./x", None),
        ("https://h//x", None),
        ("https://h.", None),
        ("https://.h", None),
        ("https://h..i", None),
        ("https://-h", None),
        ("https://h:", None),
        ("https://h:0", None),
        ("https://h:65536", None),
        ("https://h:080", None),
        ("https://127.1", None),
        ("https://0x7f000001", None),
        ("https://1.2.3.4.5", None),
        ("https://[::1", None),
        ("https://[::1%25eth0]", None),
        ("https://[127.0.0.1]", None),
        ("https://bücher.example", None),
        ("ftp://h", None),
        ("//h", None),
        ("HTTPS://h", None),
        ("https:///x", None),
        ("https://h\\x", None),
        ("https://h\n", None),
        ("", None),
    ],
)
def test_base_urls(url: str, origin: Origin | None) -> None:
    assert read_base_url(url) == origin


def test_the_authority_has_a_port_only_where_it_says_something() -> None:
    assert Origin("https", "h", 443).authority == b"h"
    assert Origin("https", "h", 80).authority == b"h:80"
    assert Origin("http", "h", 80).authority == b"h"
    assert Origin("https", "::1", 8443).authority == b"[::1]:8443"


def test_origins_of_urls_with_paths_of_any_kind() -> None:
    assert read_origin("https://h:8443/a%20b?c#d") == Origin("https", "h", 8443)
    assert read_origin("https://h?c") == Origin("https", "h", 443)
    assert read_origin("https://a@h/") is None
    assert read_origin("https:///h") is None


@given(st.text(max_size=30))
def test_hosts_are_read_or_refused(text: str) -> None:
    for host in (canonical_host(text), (read_host_port(text) or (None,))[0]):
        assert host is None or canonical_host(host) == host
    read_base_url(text)
    read_origin(text)


# --- what a route holds --------------------------------------------------------------------------------------------


def test_a_route_has_what_the_walk_needs() -> None:
    config = Config(
        version=1,
        providers=MappingProxyType({"acme": ProviderChoice(api_hosts=("api.acme.example",))}),
        routes=MappingProxyType(
            {
                "a": RouteChoice(
                    upstream="https://API.acme.example/v2",
                    provider="acme",
                    scopes=("read", "write"),
                    allow=(Rule(("GET",), ("/v2/x",)),),
                    max_body=5,
                    max_replay=0,
                    timeouts=RouteTimeouts(connect=1.5, idle=0.0),
                    keep_set_cookie=True,
                    send_cookies=True,
                ),
                "elsewhere": RouteChoice(upstream="https://evil.example", provider="acme"),
            }
        ),
        timeouts=Timeouts(first_byte=7.0),
    )
    routes = RouteTable.build(config, known())
    route = routes.get("a")
    assert isinstance(route, Route)
    assert (route.scheme, route.host, route.port, route.authority) == (
        "https",
        "api.acme.example",
        443,
        b"api.acme.example",
    )
    assert (route.prefix, route.base_path, route.provider) == (b"/a", b"/v2", "acme")
    assert (route.scopes, route.scope_set) == (("read", "write"), frozenset({"read", "write"}))
    assert (route.max_body, route.max_replay) == (5, 0)
    assert (route.timeouts.connect, route.timeouts.first_byte, route.timeouts.idle) == (1.5, 7.0, 0.0)
    assert (route.keep_set_cookie, route.send_cookies, route.api_host) == (True, True, True)
    assert decide(route, "GET", b"/v2/x").allowed
    assert not decide(route, "GET", b"/v2/y").allowed
    assert routes.get("elsewhere").api_host is False  # type: ignore[union-attr]


def test_a_grant_may_name_the_upstream() -> None:
    route = table(salesforce=RouteChoice()).get("salesforce")
    assert route is not None
    assert (route.prefix, route.host, route.authority, route.api_host) == (b"/sf", "", b"", True)
    assert decide(route, "GET", b"/services/data").reason == "no_rules"
    assert decide(route, "POST", b"/services/oauth2/token").reason == "credential_path"


def test_what_the_operator_says_beats_the_catalogue() -> None:
    own = RouteChoice(prefix="/mine", scopes=("drive",), allow=())
    config = Config(version=1, routes=MappingProxyType({"drive": own, "calendar": RouteChoice()}))
    whole = completed("drive", config, known())
    assert (whole.prefix, whole.scopes, whole.allow, whole.provider) == ("/mine", ("drive",), (), "google")
    assert whole.upstream == "https://www.googleapis.com"
    assert completed("calendar", config, known()).allow == (Rule(paths=("/calendar/**",)),)


def test_a_provider_s_environment_moves_its_main_api() -> None:
    moved = KnownProvider(("slack-gov.com",), moved=("www.googleapis.com", "https://slack-gov.com"))
    choices = {"drive": RouteChoice(), "own": RouteChoice(upstream="https://x.example", provider="google")}
    config = Config(version=1, routes=MappingProxyType(choices))
    routes = RouteTable.build(config, known(google=moved))
    assert routes.get("drive").host == "slack-gov.com"  # type: ignore[union-attr]
    assert routes.get("own").host == "x.example"  # type: ignore[union-attr]
    assert routes.get("own").api_host is False  # type: ignore[union-attr]


def test_a_route_that_is_not_whole_is_not_built() -> None:
    for choice in (RouteChoice(provider="p", upstream="nonsense"), RouteChoice(upstream="https://x.example")):
        with pytest.raises(ValueError, match="no valid upstream or no provider"):
            table(a=choice)
    with pytest.raises(ValueError, match="host that is none"):
        table(a=at(hosts=("a b",)))


@pytest.mark.parametrize(
    ("hosts", "patterns", "url", "may"),
    [
        (("a.example",), (), "https://a.example", True),
        (("a.example",), (), "https://a.example:8443", True),
        (("a.example:8443",), (), "https://a.example:8443", True),
        (("a.example:8443",), (), "https://a.example", False),
        (("A.Example",), (), "https://a.example", True),
        (("a.example",), (), "https://xa.example", False),
        (("a.example",), (), "https://b.a.example", False),
        ((), ("*.a.example",), "https://b.a.example", True),
        ((), ("*.a.example",), "https://a.example", False),
        ((), ("*.a.example",), "https://ba.example", False),
        ((), (), "https://anything.example", True),
    ],
)
def test_where_tokens_may_go(hosts: tuple[str, ...], patterns: tuple[str, ...], url: str, may: bool) -> None:
    origin = read_base_url(url)
    assert origin is not None
    assert KnownProvider(hosts, patterns).may_receive(origin) is may
