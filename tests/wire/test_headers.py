"""Fields: what must not travel does not, what must is kept as it is, and the credential goes in last and once."""

from __future__ import annotations

import pytest

from tests.kit.lanes import MODES, Lane, assert_problem
from tests.kit.raw import Head, reply

OURS = {b"host", b"authorization", b"content-length", b"transfer-encoding", b"connection"}


def carried(head: Head) -> list[tuple[bytes, bytes]]:
    """What arrived, without what the proxy itself must write."""
    return [(name, value) for name, value in head.fields if name.lower() not in OURS]


def well_formed(head: Head, lane: Lane) -> None:
    """Every request upstream: one Host of the route, one credential of the user's, nobody named."""
    assert head.all(b"authorization") == [lane.bearer]
    assert head.all(b"host") == [b"127.0.0.1:%d" % lane.port]
    for name in (b"x-user-id", b"proxy-authorization", b"proxy-connection", b"keep-alive", b"te", b"upgrade"):
        assert name not in head.names, head.raw
    assert not [name for name in head.names if name.startswith(b"x-authproxy")]
    assert b"CANARY-agent" not in head.raw


NEVER = {
    "authorization": (b"Authorization: Bearer CANARY-agent",),
    "authorization-lower": (b"authorization: bearer CANARY-agent",),
    "authorization-upper": (b"AUTHORIZATION: Basic CANARY-agent",),
    "authorization-mixed": (b"aUtHoRiZaTiOn: token CANARY-agent",),
    "authorization-twice": (b"Authorization: Bearer CANARY-agent", b"authorization: Bearer CANARY-agent2"),
    "authorization-empty": (b"Authorization:",),
    "authorization-list": (b"Authorization: Bearer CANARY-agent, Bearer CANARY-agent2",),
    "proxy-authorization": (b"Proxy-Authorization: Bearer CANARY-agent",),
    "proxy-authorization-twice": (
        b"Proxy-Authorization: a CANARY-agent",
        b"proxy-authorization: b CANARY-agent",
    ),
    "proxy-connection": (b"Proxy-Connection: keep-alive",),
    "cookie": (b"Cookie: session=CANARY-agent",),
    "cookie-twice": (b"Cookie: a=CANARY-agent", b"cookie: b=CANARY-agent"),
    "cookie2": (b"Cookie2: $Version=1",),
    "private-account": (b"X-Authproxy-Account: default",),
    "private-key": (b"X-Authproxy-Key: CANARY-agent",),
    "private-error": (b"X-Authproxy-Error: forged",),
    "private-unknown": (b"X-AUTHPROXY-Anything: CANARY-agent",),
    "keep-alive": (b"Keep-Alive: timeout=5",),
    "te-gzip": (b"TE: gzip",),
    "te-trailers": (b"TE: trailers",),
    "trailer": (b"Trailer: X-Sum",),
    "http2-settings": (b"Connection: HTTP2-Settings", b"HTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA"),
    "upgrade-h2c": (b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABk"),
    "upgrade-other": (b"Connection: upgrade", b"Upgrade: TLS/1.0"),
    "upgrade-unannounced": (b"Upgrade: websocket",),
    "connection-names": (b"Connection: X-Foo", b"X-Foo: CANARY-agent"),
    "connection-names-many": (
        b"Connection: close, x-foo ,\tX-BAR",
        b"X-Foo: CANARY-agent",
        b"X-Bar: CANARY-agent",
    ),
    "connection-names-two-lines": (
        b"Connection: X-Foo",
        b"connection: X-Bar",
        b"X-Foo: CANARY-agent",
        b"X-Bar: CANARY-agent",
    ),
    "connection-names-itself-late": (b"X-Foo: CANARY-agent", b"Connection: ,,X-Foo,"),
    "connection-empty": (b"Connection:",),
}


@pytest.mark.scenario("G03", "F09", "F10")
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", [pytest.param(n, id=f"9110-7.6.1-{n}") for n in NEVER])
async def test_what_must_not_travel_does_not(lane: Lane, name: str, mode: str) -> None:
    lane.mode = mode
    async with lane.upstream() as upstream:
        answer = await lane.call(lane.ask(b"GET", b"/x", *NEVER[name], b"X-Kept: yes"))
        # An Upgrade that is not offered may also be refused, and so may an agent's key that nobody knows.
        if name.startswith(("upgrade-", "proxy-authorization", "private-key")) and answer.status != 200:
            assert_problem(answer, "bad_request", "policy_denied", "caller_unknown")
            await lane.prove_untouched(upstream)
            return
        assert answer.status == 200, answer
    head = upstream.requests[0].head
    well_formed(head, lane)
    assert carried(head) == [(b"X-Kept", b"yes")]


# What is ours, or what frames the message, is not the agent's to remove (golang/go#50580).
NOMINATED = (
    b"Authorization",
    b"authorization",
    b"Host",
    b"Content-Length",
    b"X-User-ID",
    b"Transfer-Encoding",
)


@pytest.mark.scenario("G03")
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "name", [pytest.param(n, id=f"9110-7.6.1-nominates-{n.decode()}") for n in NOMINATED]
)
async def test_connection_cannot_remove_what_is_ours(lane: Lane, name: bytes, mode: str) -> None:
    lane.mode = mode
    async with lane.upstream() as upstream:
        answer = await lane.call(lane.ask(b"POST", b"/x", b"Connection: " + name, body=b"hello"), b"POST")
        if answer.status == 400:
            assert_problem(answer, "bad_request")
            await lane.prove_untouched(upstream)
            return
    (message,) = upstream.requests
    well_formed(message.head, lane)
    assert message.body == b"hello"


@pytest.mark.scenario("G03")
async def test_connection_naming_the_user_header_does_not_hide_or_forward_it(lane: Lane) -> None:
    async with lane.upstream() as upstream:
        answer = await lane.call(
            lane.ask(b"GET", b"/x", b"Connection: close, X-User-ID, Authorization, Host")
        )
    assert answer.status == 200, answer
    well_formed(upstream.requests[0].head, lane)


USERS = {
    "missing": (),
    "empty": (b"X-User-ID:",),
    "blank": (b"X-User-ID: \t ",),
    "twice-equal": (b"X-User-ID: alice", b"X-User-ID: alice"),
    "twice-different": (b"X-User-ID: alice", b"x-user-id: bob"),
    "twice-one-empty": (b"X-User-ID: alice", b"X-User-ID:"),
}


@pytest.mark.scenario("I01", "I05", "D16")
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", [pytest.param(n, id=f"user-{n}") for n in USERS])
async def test_the_user_is_said_exactly_once(lane: Lane, name: str, mode: str) -> None:
    lane.mode = mode
    async with lane.upstream() as upstream:
        answer = await lane.call(lane.ask(b"GET", b"/x", *USERS[name], user=None))
        assert answer.status == 400, answer
        assert_problem(answer, "user_missing")
        await lane.prove_untouched(upstream)


STRANGERS = (
    b"bob",
    b"alice, bob",
    b"alice,alice",
    b"Alice",
    b"ALICE",
    b"alice2",
    b"alic",
    b"alice\xa0",
    b"\xc3\xa1lice",
    b"alice\xff",
    b"*",
    b"alice%00",
    b"%61lice",
    b"alice'--",
    b'"alice"',
    b"a" * 3000,
)


@pytest.mark.scenario("I01", "I05", "D16")
@pytest.mark.parametrize("user", [pytest.param(u, id=f"user-is-not-{u[:12]!r}") for u in STRANGERS])
async def test_nobody_else_is_taken_for_alice(lane: Lane, user: bytes) -> None:
    """Compared as bytes; no default, no list, no folding of case. And without a connection nothing leaves."""
    async with lane.upstream() as upstream:
        answer = await lane.call(lane.ask(user=user))
        assert answer.status in (400, 403), answer
        assert_problem(answer, "connection_required", "user_missing", "bad_request", "user_not_allowed")
        await lane.prove_untouched(upstream)


@pytest.mark.scenario("G25", "I05")
@pytest.mark.parametrize(
    "trailer",
    [
        b"X-User-ID: alice",
        b"Authorization: Bearer CANARY-agent",
        b"Host: evil.example",
        b"X-Other: CANARY-agent",
    ],
)
async def test_request_trailers_are_dropped(lane: Lane, trailer: bytes) -> None:
    """9110 6.5.1: never merged into the head, and not passed on either."""
    request = lane.ask(b"POST", b"/x", b"Transfer-Encoding: chunked", b"Trailer: X-Other")
    async with lane.upstream() as upstream:
        answer = await lane.call(request + b"5\r\nhello\r\n0\r\n" + trailer + b"\r\n\r\n", b"POST")
        if answer.status == 400:
            assert_problem(answer, "bad_request")
            return
    (message,) = upstream.requests
    well_formed(message.head, lane)
    assert (message.body, message.trailers) == (b"hello", b"")


@pytest.mark.scenario("G25")
@pytest.mark.parametrize("behind", ["apart", "in-one-piece"])
@pytest.mark.parametrize("trailer", [b"X-Other: CANARY-agent", b"X-User-ID: bob", b"X-Other:"])
async def test_a_trailer_is_no_field_of_the_next_request(lane: Lane, trailer: bytes, behind: str) -> None:
    first = (
        lane.ask(b"POST", b"/x", b"Transfer-Encoding: chunked")
        + b"5\r\nhello\r\n0\r\n"
        + trailer
        + b"\r\n\r\n"
    )
    async with lane.upstream([reply()]) as upstream, await lane.dial() as wire:
        for request in [first + lane.ask()] if behind == "in-one-piece" else [first, lane.ask()]:
            await wire.send(request)
        answer = await wire.response(b"POST")
        assert (answer.status, answer.head.one(b"connection")) == (200, b"close")
        assert await wire.rest() == b""
    assert [message.head.method for message in upstream.requests] == [b"POST"]


@pytest.mark.parametrize("size", [0, 5, 300_000])
@pytest.mark.parametrize("pieces", ["one", "two", "many"])
async def test_a_connection_lives_on_behind_a_body_in_chunks(lane: Lane, size: int, pieces: str) -> None:
    """Where it has no trailers: whether what follows comes with it or later."""
    chunk = b"%x\r\n%b\r\n" % (size, b"a" * size) if size else b""
    first = lane.ask(b"POST", b"/x", b"Transfer-Encoding: chunked") + chunk + b"0\r\n\r\n"
    async with lane.upstream([reply(), reply(), reply()]) as upstream, await lane.dial() as wire:
        if pieces == "one":
            await wire.send(first + first + lane.ask())
            statuses = [(await wire.response()).status for _ in range(3)]
        else:
            statuses = []
            for request in (first, first, lane.ask()):
                step = len(request) if pieces != "many" else max(1, len(request) // 100)
                for at in range(0, len(request), step):
                    await wire.send(request[at : at + step])
                statuses.append((await wire.response()).status)
    assert statuses == [200, 200, 200]
    assert [len(message.body) for message in upstream.requests] == [size, size, 0]


async def test_a_user_named_only_in_a_trailer_is_not_named(lane: Lane) -> None:
    request = lane.ask(b"POST", b"/x", b"Transfer-Encoding: chunked", user=None)
    async with lane.upstream() as upstream:
        answer = await lane.call(request + b"5\r\nhello\r\n0\r\nX-User-ID: alice\r\n\r\n", b"POST")
        assert_problem(answer, "user_missing")
        await lane.prove_untouched(upstream)


KEPT = {
    "one": [(b"X-A", b"1")],
    "case-of-name": [(b"x-a", b"1"), (b"X-B", b"2"), (b"X-cAsE", b"3")],
    "order": [(b"X-C", b"1"), (b"X-A", b"2"), (b"X-B", b"3")],
    "repeated": [(b"X-A", b"1"), (b"X-B", b"2"), (b"X-A", b"3"), (b"x-a", b"4")],
    "repeated-equal": [(b"X-A", b"1"), (b"X-A", b"1")],
    "empty-value": [(b"X-A", b""), (b"X-B", b"")],
    "commas": [(b"X-A", b"1, 2,,3"), (b"X-A", b"4")],
    "inner-spaces": [(b"X-A", b"a  b\tc")],
    "obs-text": [(b"X-A", b"caf\xe9"), (b"X-B", b"\x80\xff\xfe")],
    "utf8": [(b"X-A", "žluťoučký 😀".encode())],
    "quotes": [(b"X-A", b'"a\\"b"; c="d"')],
    "colon-in-value": [(b"X-A", b":a:b:")],
    "odd-token-name": [(b"!#$%&'*+-.^_`|~9z", b"1")],
    "underscore-name": [(b"X_A", b"1")],
    "digit-name": [(b"1", b"1")],
    "accept-encoding": [(b"Accept-Encoding", b"gzip;q=0.5, br")],
    "accept-encoding-empty": [(b"Accept-Encoding", b"")],
    "user-agent": [(b"User-Agent", b"curl/8 (odd; thing)")],
    "content-type": [(b"Content-Type", b"text/plain; charset=\xe9")],
    "content-encoding": [(b"Content-Encoding", b"gzip")],
    "range": [(b"Range", b"bytes=0-10"), (b"If-Range", b'"x"')],
    "conditional": [(b"If-None-Match", b'W/"a", "b"'), (b"If-Modified-Since", b"x")],
    "via": [(b"Via", b"1.1 other")],
    "forwarded": [(b"X-Forwarded-For", b"1.2.3.4"), (b"Forwarded", b"for=1.2.3.4")],
    "traceparent": [(b"traceparent", b"00-1-2-01"), (b"tracestate", b"a=b")],
    "idempotency-key": [(b"Idempotency-Key", b"k")],
    "cache-control": [(b"Cache-Control", b"no-cache"), (b"Pragma", b"no-cache")],
    "api-key": [(b"X-Api-Key", b"k"), (b"X-Goog-Api-Key", b"k")],
    "origin": [(b"Origin", b"https://a.example"), (b"Referer", b"https://a.example/x")],
    "priority": [(b"Priority", b"u=1")],
    "max-forwards": [(b"Max-Forwards", b"0")],
    "date": [(b"Date", b"Thu, 01 Jan 1970 00:00:00 GMT")],
    "from-expect-like": [(b"X-Expect", b"100-continue")],
}


@pytest.mark.scenario("G15")
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", [pytest.param(n, id=f"9110-5.3-{n}") for n in KEPT])
async def test_fields_travel_in_order_and_untouched(lane: Lane, name: str, mode: str) -> None:
    """And nothing is invented: no Accept-Encoding, User-Agent, Content-Type, Via, X-Forwarded-*."""
    lane.mode = mode
    lines = [b": ".join(pair) for pair in KEPT[name]]
    async with lane.upstream() as upstream:
        answer = await lane.call(lane.ask(b"GET", b"/x", *lines))
    assert answer.status == 200, answer
    head = upstream.requests[0].head
    well_formed(head, lane)
    got = carried(head)
    assert [(n.lower(), v) for n, v in got] == [(n.lower(), v) for n, v in KEPT[name]]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "method", [b"GET", b"HEAD", b"DELETE", b"OPTIONS", b"POST", b"PATCH", b"PUT", b"QUERY"]
)
async def test_a_bare_request_stays_bare(lane: Lane, method: bytes, mode: str) -> None:
    lane.mode = mode
    async with lane.upstream() as upstream:
        answer = await lane.call(lane.ask(method), method)
    assert answer.status == 200, answer
    head = upstream.requests[0].head
    assert head.method == method
    well_formed(head, lane)
    assert carried(head) == []
    assert head.one(b"transfer-encoding") is None
    assert head.one(b"content-length") in (None, b"0")
    assert method != b"GET" or head.one(b"content-length") is None


RETURNED = {
    "order-and-repeats": [("X-B", "1"), ("X-A", "2"), ("X-B", "3")],
    "link-twice": [("Link", "<a>; rel=next"), ("Link", "<b>; rel=prev")],
    "vary-twice": [("Vary", "Accept"), ("Vary", "Origin")],
    "www-authenticate-repeated": [
        ("WWW-Authenticate", 'Bearer realm="a, b", error="insufficient_scope"'),
        ("WWW-Authenticate", "Basic realm=x"),
    ],
    "empty-value": [("X-A", "")],
    "obs-text": [("X-A", "caf\xe9 \xff")],
    "server-and-date": [("Server", "origin/1"), ("Date", "Thu, 01 Jan 1970 00:00:00 GMT")],
    "rate-limits": [("X-RateLimit-Remaining", "0"), ("Retry-After", "17")],
    "cors": [("Access-Control-Allow-Origin", "*")],
    "alt-svc": [("Alt-Svc", 'h3=":443"')],
    "content-type": [("Content-Type", "application/json; charset=\xe9")],
    "content-encoding": [("Content-Encoding", "gzip")],
    "accel-buffering": [("X-Accel-Buffering", "no")],
    "etag": [("ETag", 'W/"x"'), ("Last-Modified", "never")],
    "set-cookie-five": [("Set-Cookie", f"c{n}=v{n}; Path=/; Expires=Thu, 01 Jan 2026") for n in range(5)],
    "odd-name": [("x!#$%&'*+-.^_`|~", "1")],
}


@pytest.mark.scenario("G15", "D10")
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", [pytest.param(n, id=f"answer-{n}") for n in RETURNED])
async def test_answer_fields_come_back_in_order_and_untouched(lane: Lane, name: str, mode: str) -> None:
    lane.mode = mode
    fields = [f"{key}: {value}" for key, value in RETURNED[name]]
    async with lane.upstream([reply("200 Fine", b"ok", *fields)]) as upstream:
        answer = await lane.call(lane.ask())
    assert len(upstream.requests) == 1
    assert answer.head.start == b"HTTP/1.1 200 Fine"
    ours = OURS | {b"x-request-id"}
    got = [(n.lower(), v) for n, v in answer.head.fields if n.lower() not in ours]
    assert got == [(n.lower().encode(), v.encode("latin-1")) for n, v in RETURNED[name]]
    assert answer.head.one(b"x-request-id")


SWALLOWED = {
    "connection-names": ("Connection: close, X-Foo", "X-Foo: no"),
    "keep-alive": ("Keep-Alive: timeout=5",),
    "proxy-connection": ("Proxy-Connection: keep-alive",),
    "proxy-authenticate": ("Proxy-Authenticate: Basic realm=x",),
    "proxy-authentication-info": ("Proxy-Authentication-Info: x",),
    "upgrade": ("Upgrade: h2c",),
    "trailer": ("Trailer: X-Sum",),
    "te": ("TE: trailers",),
    "forged-error": ("X-Authproxy-Error: connection_required",),
    "forged-retry": ("X-Authproxy-Retry: resend",),
    "forged-private": ("X-AUTHPROXY-Other: x",),
}


@pytest.mark.scenario("G03")
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", [pytest.param(n, id=f"answer-drops-{n}") for n in SWALLOWED])
async def test_answer_fields_that_end_at_the_proxy(lane: Lane, name: str, mode: str) -> None:
    """Only our own answers may carry X-Authproxy-Error, and each hop has its own connection."""
    lane.mode = mode
    async with lane.upstream([reply("200 OK", b"ok", *SWALLOWED[name], "X-Kept: yes")]):
        answer = await lane.call(lane.ask())
    assert answer.status == 200, answer
    dropped = {line.split(":")[0].lower().encode() for line in SWALLOWED[name]} - {b"connection"}
    assert not dropped & set(answer.head.names), answer.head.raw
    assert b"x-foo" not in answer.head.names
    assert answer.head.one(b"x-kept") == b"yes"


@pytest.mark.scenario("G14", "D33")
async def test_no_cookie_jar(lane: Lane) -> None:
    async with lane.upstream([reply("200 OK", b"ok", "Set-Cookie: jar=CANARY-jar; Path=/")]) as upstream:
        for _ in range(3):
            await lane.call(lane.ask())
    assert all(b"cookie" not in m.head.names for m in upstream.requests)


@pytest.mark.scenario("J04")
async def test_every_answer_has_one_request_id(lane: Lane) -> None:
    """Ours where the upstream gives none; where it does, its own, which support will ask for."""
    async with lane.upstream([reply(), reply("200 OK", b"ok", "X-Request-Id: theirs")]) as upstream:
        ids = [(await lane.call(lane.ask())).head.one(b"x-request-id") for _ in range(3)]
    assert len(upstream.requests) == 3
    assert len(ids[0] or b"") == 32
    assert ids[1:] == [b"theirs", b"theirs"]
