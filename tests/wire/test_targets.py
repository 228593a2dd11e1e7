"""Targets: path and query arrive byte for byte; what looks like another host or leaves the prefix does not."""

from __future__ import annotations

import json

import pytest

from tests.kit.lanes import MODES, Lane, assert_problem
from tests.kit.raw import reply

pytestmark = pytest.mark.scenario("G16")

CORPUS = (
    b"/",
    b"/x",
    b"/x/",
    b"/x/y",
    b"/x;v=1",
    b"/x;a;b/y;c",
    b"/x,y",
    b"/x=y",
    b"/x:y",
    b"/x@y",
    b"/@scope/pkg",
    b"/@scope%2Fpkg",
    b"/@scope%2fpkg",
    b"/repos/o%2Fr/contents",
    b"/a%20b",
    b"/a+b",
    b"/a%2Bb",
    b"/a%26b",
    b"/a%3Db",
    b"/a%3Fb",
    b"/a%23b",
    b"/a%25b",
    b"/a%2541",
    b"/a%41b",
    b"/%61",
    b"/a%7Eb",
    b"/a~b",
    b"/a%C3%A9",
    b"/a%c3%a9",
    b"/a%E9",
    b"/a%FF%FE",
    b"/a!b",
    b"/a$b",
    b"/a&b",
    b"/a'b",
    b"/a(b)",
    b"/a*b",
    b"/*",
    b"/a-b_c.d",
    b"/.well-known/x",
    b"/...",
    b"/a...b",
    b"/a/.b",
    b"/v1/users/me/messages/17c2?format=full",
    b"/x?",
    b"/x?a",
    b"/x?a=",
    b"/x?=a",
    b"/x?a=b&a=c",
    b"/x?&&",
    b"/x?a=b&&c=d&",
    b"/x?a=%2F%2f",
    b"/x?a=/b/c",
    b"/x?a=b?c=d",
    b"/x?q=a+b%20c%2Bd",
    b"/x?q=%00",
    b"/x?q=%0d%0a",
    b"/x?q=%C3%A9&r=%ff",
    b"/x?u=http://h.example/p?q=1",
    b"/x?q=SELECT+Id+FROM+Account+WHERE+Name+=+'A'",
    b"/x?a[]=1&a[]=2",
    b'/x?j={"a":1}',
    b"/x?a=b;c=d",
    b"/x?..=..&a=../b",
    b"/x?a=\\b",
    b"/x?a=|b|",
    b"/x?a=^b`c",
    b"/x?" + b"k=v&" * 500,
)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("rest", [pytest.param(t, id=f"9112-3.2.1-{t[:40].decode()}") for t in CORPUS])
async def test_a_target_arrives_byte_for_byte(lane: Lane, rest: bytes, mode: str) -> None:
    lane.mode = mode
    async with lane.upstream() as upstream:
        answer = await lane.call(lane.ask(rest=rest))
    assert answer.status == 200, answer
    assert upstream.requests[0].head.start == b"GET %s HTTP/1.1" % rest


@pytest.mark.parametrize("rest", [b"", b"?", b"?a=b"])
async def test_a_bare_prefix_reaches_the_root(lane: Lane, rest: bytes) -> None:
    async with lane.upstream() as upstream:
        answer = await lane.call(lane.ask(rest=rest))
    assert answer.status == 200, answer
    assert upstream.requests[0].head.target == b"/" + rest


@pytest.mark.parametrize("rest", [b"", b"?a=b"])
async def test_an_absolute_target_without_path_reaches_the_root(lane: Lane, rest: bytes) -> None:
    lane.mode = "absolute"
    async with lane.upstream() as upstream:
        answer = await lane.call(lane.ask(rest=rest))
    assert answer.status == 200, answer
    assert upstream.requests[0].head.target == b"/" + rest


# Ambiguous where it matters: each would be another resource, or another host, to some upstream.
CLIMBING = (
    b"/..",
    b"/../x",
    b"/x/../y",
    b"/x/..",
    b"/%2e%2e/x",
    b"/%2E%2E/x",
    b"/.%2e/x",
    b"/%2e./x",
    b"/x/%2e%2e/y",
    b"/x/%252e%252e/y",
    b"/x/..%2fy",
    b"/x/%2e%2e%2fy",
    b"/x/..\\y",
    b"/x/..%5cy",
    b"/x%5c..%5cy",
    b"/x/..;/y",
    b"/x/..;a=b/y",
    b"/x/%2e%2e;/y",
)


@pytest.mark.scenario("G17", "D18")
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("rest", [pytest.param(t, id=f"climb-{t.decode()}") for t in CLIMBING])
async def test_a_target_that_climbs_is_refused(lane: Lane, rest: bytes, mode: str) -> None:
    lane.mode = mode
    async with lane.upstream() as upstream:
        answer = await lane.call(lane.ask(rest=rest))
        assert answer.status in (400, 403, 404), answer
        assert_problem(answer, "bad_request", "policy_denied", "no_route")
        await lane.prove_untouched(upstream)


TRAPS = {
    "at-host": b"{P}@evil.example/x",
    "at-host-userinfo": b"{P}:pw@evil.example/x",
    "longer-word": b"{P}x/x",
    "digit-more": b"{P}999999/x",
    "port": b"{P}:81/x",
    "dotted": b"{P}.evil.example/x",
    "dash": b"{P}-evil/x",
    "percent-encoded-letter": b"/%6c{N}/x",
    "upper-case": b"/L{N}/x",
    "semicolon": b"{P};a/x",
    "comma": b"{P},x",
    "encoded-slash": b"{P}%2fx",
    "encoded-nul": b"{P}%00/x",
    "backslash": b"{P}\\x",
    "double-slash-before": b"/{P}/x",
    "triple-slash-before": b"//{P}/x",
    "host-in-path": b"//evil.example{P}/x",
    "host-in-path-with-at": b"//u@evil.example{P}/x",
    "dot-before": b"/.{P}/x",
    "dotdot-before": b"/..{P}/x",
    "other-then-climb": b"/none/..{P}/x",
    "encoded-dotdot-before": b"/none/%2e%2e{P}/x",
    "no-leading-slash": b"{W}/x",
    "backslash-leading": b"\\{W}/x",
    "query-only": b"?{P}/x",
    "root": b"/",
    "nowhere": b"/nowhere/x",
    "asterisk": b"*",
    "empty-segment": b"/",
    "cut-in-half": b"/l",
}


@pytest.mark.scenario("G22", "D17")
@pytest.mark.parametrize("name", [pytest.param(n, id=f"prefix-{n}") for n in TRAPS])
async def test_what_only_looks_like_the_prefix_goes_nowhere(lane: Lane, name: str) -> None:
    target = TRAPS[name].replace(b"{P}", lane.prefix)
    target = target.replace(b"{W}", lane.prefix[1:]).replace(b"{N}", lane.prefix[2:])
    request = b"GET %s HTTP/1.1\r\nHost: %s\r\nX-User-ID: alice\r\n\r\n" % (target, lane.authority)
    async with lane.upstream() as upstream:
        answer = await lane.call(request)
        assert answer.status in (400, 403, 404, 405), answer
        assert_problem(answer)
        await lane.prove_untouched(upstream)


@pytest.mark.scenario("G17", "D18")
@pytest.mark.parametrize(
    "rest", [b"//x", b"//evil.example/x", b"/x//y", b"/x//", b"///x", b"/%2f/x", b"/./x", b"/x/."]
)
async def test_empty_and_dot_segments_pass_untouched_or_not_at_all(lane: Lane, rest: bytes) -> None:
    """G16 wants the bytes kept, G17 allows refusing; rewriting them, or taking them for a host, is neither."""
    async with lane.upstream() as upstream:
        answer = await lane.call(lane.ask(rest=rest))
        if answer.status == 200:
            head = upstream.requests[0].head
            assert head.target == rest
            assert head.one(b"host") == b"127.0.0.1:%d" % lane.port
        else:
            assert_problem(answer, "bad_request", "policy_denied")
            await lane.prove_untouched(upstream)


FOREIGN = {
    "other-host": b"http://evil.example/x",
    "other-port": b"http://127.0.0.1:1/x",
    "no-port": b"http://127.0.0.1/x",
    "localhost-name": b"http://localhost:{O}/x",
    "trailing-dot": b"http://127.0.0.1.:{O}/x",
    "decimal-address": b"http://2130706433:{O}/x",
    "hex-address": b"http://0x7f000001:{O}/x",
    "octal-address": b"http://0177.0.0.1:{O}/x",
    "short-address": b"http://127.1:{O}/x",
    "fullwidth-digits": "http://\uff11\uff12\uff17.0.0.1:{O}/x".encode(),
    "encoded-host": b"http://%31%32%37.0.0.1:{O}/x",
    "mapped-v6": b"http://[::ffff:127.0.0.1]:{O}/x",
    "userinfo": b"http://u@127.0.0.1:{O}/x",
    "userinfo-password": b"http://u:p@127.0.0.1:{O}/x",
    "userinfo-host-trick": b"http://127.0.0.1:{O}@evil.example/x",
    "fragment-host-trick": b"http://evil.example#@127.0.0.1:{O}/x",
    "backslash-host-trick": b"http://evil.example\\@127.0.0.1:{O}/x",
    "https": b"https://127.0.0.1:{O}/x",
    "other-scheme": b"ftp://127.0.0.1:{O}/x",
    "file-scheme": b"file:///etc/passwd",
    "no-host": b"http:///x",
    "scheme-only": b"http://",
    "one-slash": b"http:/127.0.0.1:{O}/x",
    "no-slash": b"http:127.0.0.1:{O}/x",
    "port-words": b"http://127.0.0.1:http/x",
    "port-huge": b"http://127.0.0.1:99999/x",
    "port-negative": b"http://127.0.0.1:-1/x",
    "two-ports": b"http://127.0.0.1:{O}:{O}/x",
    "space-tab": b"http://127.0.0.1\t:{O}/x",
    "metadata": b"http://169.254.169.254/latest/meta-data/",
    "metadata-name": b"http://metadata.google.internal/computeMetadata/v1/",
    "own-control": b"http://127.0.0.1:{C}/v1/connections",
    "own-control-metrics": b"http://127.0.0.1:{C}/metrics",
    "unspecified": b"http://0.0.0.0:{O}/x",
    "suffix": b"http://127.0.0.1.evil.example:{O}/x",
}


@pytest.mark.scenario("G22", "D17", "G23")
@pytest.mark.parametrize("name", [pytest.param(n, id=f"9112-3.2.2-{n}") for n in FOREIGN])
async def test_an_absolute_target_that_is_no_routes_goes_nowhere(lane: Lane, name: str) -> None:
    """The user header and a truthful-looking Host change nothing: unmatched means refused, not forwarded."""
    target = FOREIGN[name].replace(b"{O}", b"%d" % lane.port).replace(b"{C}", b"%d" % lane.proxy.control)
    request = b"GET %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nX-User-ID: alice\r\n\r\n" % (target, lane.port)
    async with lane.upstream() as upstream:
        answer = await lane.call(request)
        assert answer.status in (400, 403, 404, 421), answer
        assert_problem(answer)
        await lane.prove_untouched(upstream)


@pytest.mark.scenario("G22", "D19")
@pytest.mark.parametrize("host", [b"evil.example", b"127.0.0.1:1", b"localhost", b"127.0.0.1:{L}"])
async def test_the_absolute_targets_authority_decides_over_host(lane: Lane, host: bytes) -> None:
    """9112 3.2.2: the Host field of an absolute target is replaced; or, being a lie, refused. It never routes."""
    lane.mode = "absolute"
    host = host.replace(b"{L}", b"%d" % lane.proxy.listen)
    request = b"GET %s HTTP/1.1\r\nHost: %s\r\nX-User-ID: alice\r\n\r\n" % (lane.target(), host)
    async with lane.upstream() as upstream:
        answer = await lane.call(request)
        if answer.status == 200:
            assert upstream.requests[0].head.one(b"host") == b"127.0.0.1:%d" % lane.port
        else:
            assert_problem(answer, "bad_request", "no_route")
            await lane.prove_untouched(upstream)


@pytest.mark.scenario("G22")
@pytest.mark.parametrize("scheme", [b"HTTP", b"Http"])
async def test_a_scheme_in_any_case_is_the_same_scheme(lane: Lane, scheme: bytes) -> None:
    request = b"GET %s://127.0.0.1:%d/x HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nX-User-ID: alice\r\n\r\n"
    async with lane.upstream() as upstream:
        answer = await lane.call(request % (scheme, lane.port, lane.port))
    assert answer.status == 200, answer
    assert upstream.requests[0].head.start == b"GET /x HTTP/1.1"


@pytest.mark.scenario("G22")
@pytest.mark.parametrize(
    "field",
    [
        b"X-Forwarded-Host: evil.example",
        b"X-Host: evil.example",
        b"Forwarded: host=evil.example",
        b"X-Original-URL: /admin",
        b"X-Rewrite-URL: /admin",
        b"X-HTTP-Method-Override: DELETE",
        b"X-Forwarded-Prefix: /l0",
        b"X-Forwarded-User: bob",
    ],
)
async def test_no_field_influences_where_a_request_goes(lane: Lane, field: bytes) -> None:
    async with lane.upstream() as upstream:
        answer = await lane.call(lane.ask(b"GET", b"/x", field))
    assert answer.status == 200
    head = upstream.requests[0].head
    assert head.start == b"GET /x HTTP/1.1"
    assert head.one(b"host") == b"127.0.0.1:%d" % lane.port
    assert head.one(b"authorization") == lane.bearer


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("method", [b"TRACE", b"trace", b"Trace"])
async def test_trace_is_answered_here(lane: Lane, method: bytes, mode: str) -> None:
    """9110 9.3.8: it would hand the injected token back."""
    lane.mode = mode
    async with lane.upstream() as upstream:
        answer = await lane.call(lane.ask(method))
        if method == b"TRACE" or answer.status != 200:
            assert answer.status in (400, 403, 405, 501), answer
            assert_problem(answer)
            await lane.prove_untouched(upstream)


@pytest.mark.scenario("D19", "D21", "D22")
@pytest.mark.parametrize(
    "target",
    [
        b"evil.example:443",
        b"evil.example",
        b"127.0.0.1:{O}",
        b"127.0.0.1:{C}",
        b"169.254.169.254:80",
        b"/x",
        b"http://127.0.0.1:{O}/",
        b":443",
        b"evil.example:",
        b"u@127.0.0.1:{O}",
    ],
)
async def test_connect_is_no_blind_tunnel(lane: Lane, target: bytes) -> None:
    """Nothing but a named host is tunnelled, a plain-http upstream has no TLS to end, and nothing leaves unseen."""
    target = target.replace(b"{O}", b"%d" % lane.port).replace(b"{C}", b"%d" % lane.proxy.control)
    request = b"CONNECT %s HTTP/1.1\r\nHost: %s\r\nX-User-ID: alice\r\n\r\n" % (target, target)
    async with lane.upstream() as upstream:
        async with await lane.dial() as wire:
            await wire.send(request)
            answer = await wire.response()
            assert answer.status in (400, 403, 404, 405, 501), answer
            assert_problem(answer)
            await wire.send(b"GET /inside HTTP/1.1\r\nHost: x\r\n\r\n") if not wire.reader.at_eof() else None
        await lane.prove_untouched(upstream)


async def test_options_asterisk_is_answered_here(lane: Lane) -> None:
    async with lane.upstream() as upstream:
        answer = await lane.call(
            b"OPTIONS * HTTP/1.1\r\nHost: %s\r\nX-User-ID: alice\r\n\r\n" % lane.authority
        )
        assert answer.head.all(b"access-control-allow-origin") == []
        assert answer.status in (200, 204, 400, 404), answer
        await lane.prove_untouched(upstream)


@pytest.mark.scenario("F01", "D31")
@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "303 See Other", "307 T", "308 P"])
@pytest.mark.parametrize(
    "where",
    [
        "http://evil.example/x",
        "//evil.example/x",
        "https://127.0.0.1:1/x",
        "http://169.254.169.254/",
        "http://u:p@evil.example/",
        "?only=query",
    ],
)
async def test_a_redirect_is_handed_on_and_never_followed(lane: Lane, status: str, where: str) -> None:
    async with lane.upstream([reply(status, b"", f"Location: {where}")]) as upstream:
        answer = await lane.call(lane.ask())
    assert answer.head.start == b"HTTP/1.1 " + status.encode()
    assert answer.head.one(b"location") == where.encode()
    assert len(upstream.requests) == 1


async def test_a_problem_says_nothing_of_the_query(lane: Lane) -> None:
    answer = await lane.call(
        b"GET /nowhere?access_token=CANARY-query HTTP/1.1\r\nHost: %s\r\n\r\n" % lane.authority
    )
    assert_problem(answer)
    assert b"CANARY" not in answer.body + answer.head.raw
    assert b"nowhere?" not in json.dumps(json.loads(answer.body)).encode()
