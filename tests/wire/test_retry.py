"""A 401: one refresh, one exact replay, and an honest word where a replay cannot be exact."""

from __future__ import annotations

import asyncio
import random

import pytest

from tests.kit.lanes import LIMITS, MODES, Lane, assert_problem
from tests.kit.provider import Grant
from tests.kit.raw import Gone, Script, Upstream, Wire, reply

CHALLENGE = 'WWW-Authenticate: Bearer realm="api", error="invalid_token"'
DENIAL = reply("401 Unauthorized", b'{"error":"expired"}', CHALLENGE, "Content-Type: application/json")
LIMIT, MEMORY = LIMITS["max_replay"], LIMITS["replay_memory"]
DATA = random.Random(11).randbytes(2**20)
pytestmark = pytest.mark.scenario("D01", "D02")


def guards(*rejected: bytes, denial: bytes = DENIAL) -> Script:
    """An API that reads each request whole, and knows these field values no longer."""

    async def script(upstream: Upstream, wire: Wire) -> None:
        while True:
            try:
                message = await wire.request()
            except Gone:
                return
            upstream.note(message)
            refused = message.head.one(b"authorization") in rejected
            await wire.send(denial if refused else reply())
            return

    return script


async def user_of(lane: Lane) -> tuple[bytes, Grant]:
    name, grant = await asyncio.to_thread(lane.seeded.user)
    return name.encode(), grant


def upload(lane: Lane, method: bytes, body: bytes | None, framing: str, user: bytes) -> bytes:
    if framing == "length" or body is None:
        return lane.ask(method, user=user, body=body)
    chunks = b"".join(
        b"%x\r\n%s\r\n" % (len(body[n : n + 5000]), body[n : n + 5000]) for n in range(0, len(body), 5000)
    )
    return lane.ask(method, b"/x", b"Transfer-Encoding: chunked", user=user) + chunks + b"0\r\n\r\n"


SIZES = (0, 1, 1024, MEMORY - 1, MEMORY, MEMORY + 1, LIMIT - 1, LIMIT)


@pytest.mark.scenario("D2", "D07", "D1", "N2", "N6")
@pytest.mark.parametrize("framing", ["length", "chunked"])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("method", [b"POST", b"PUT", b"PATCH"])
async def test_a_401_costs_one_refresh_and_one_exact_replay(
    lane: Lane, method: bytes, size: int, framing: str
) -> None:
    user, grant = await user_of(lane)
    old = grant.bearer
    async with lane.upstream(guards(old)) as upstream:
        answer = await lane.call(upload(lane, method, DATA[:size], framing, user), method)
    assert (answer.status, answer.body) == (200, b"ok"), answer
    assert b"x-authproxy-error" not in answer.head.names
    first, second = upstream.requests
    assert grant.asked == 1
    assert (first.head.one(b"authorization"), second.head.one(b"authorization")) == (old, grant.bearer)
    assert first.body == second.body == DATA[:size]
    assert [f for f in first.head.fields if f[0].lower() != b"authorization"] == [
        f for f in second.head.fields if f[0].lower() != b"authorization"
    ]


@pytest.mark.scenario("D07", "D1")
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("method", [b"GET", b"HEAD", b"DELETE", b"OPTIONS", b"PROPFIND"])
async def test_a_401_on_a_bare_request_too(lane: Lane, method: bytes, mode: str) -> None:
    lane.mode = mode
    user, grant = await user_of(lane)
    denial = DENIAL if method != b"HEAD" else reply("401 Unauthorized", b"", CHALLENGE)
    async with lane.upstream(guards(grant.bearer, denial=denial)) as upstream:
        answer = await lane.call(lane.ask(method, b"/a%2Fb?c=d", user=user), method)
    assert answer.status == 200, answer
    assert [m.head.start for m in upstream.requests] == [method + b" /a%2Fb?c=d HTTP/1.1"] * 2
    assert grant.asked == 1


@pytest.mark.scenario("N6")
@pytest.mark.parametrize("framing", ["length", "chunked"])
@pytest.mark.parametrize("size", [LIMIT + 1, 2**20])
@pytest.mark.parametrize("method", [b"POST", b"PUT"])
async def test_a_body_beyond_the_limit_is_not_replayed_and_that_is_said(
    lane: Lane, method: bytes, size: int, framing: str
) -> None:
    user, grant = await user_of(lane)
    async with lane.upstream(guards(grant.bearer)) as upstream:
        answer = await lane.call(upload(lane, method, DATA[:size], framing, user), method)
        assert answer.status == 401, answer
        assert answer.head.one(b"x-authproxy-retry") == b"resend"
        assert answer.head.one(b"www-authenticate") == CHALLENGE.partition(": ")[2].encode()
        assert answer.body == b'{"error":"expired"}'
        assert b"x-authproxy-error" not in answer.head.names
        assert len(upstream.requests) == 1
        assert upstream.requests[0].body == DATA[:size]
        again = await lane.call(upload(lane, method, DATA[:size], framing, user), method)
        assert again.status == 200, "the agent did as it was told and resent"
    assert grant.asked == 1


@pytest.mark.scenario("D04", "D13")
@pytest.mark.parametrize("body", [None, b"hello"])
async def test_a_second_401_is_passed_on_unchanged(lane: Lane, body: bytes | None) -> None:
    """The user's grant is not at fault: only the authorization server may say so (D04)."""
    user, grant = await user_of(lane)
    method = b"GET" if body is None else b"POST"
    denial = reply(
        "401 Keep Out",
        b"ask the owner",
        "WWW-Authenticate: Bearer error=x",
        "WWW-Authenticate: Basic",
        "X-A: 1",
    )

    async def never(upstream: Upstream, wire: Wire) -> None:
        upstream.note(await wire.request())
        await wire.send(denial)

    async with lane.upstream(never) as upstream:
        answer = await lane.call(lane.ask(method, user=user, body=body), method)
    assert answer.head.start == b"HTTP/1.1 401 Keep Out"
    assert answer.body == b"ask the owner"
    assert answer.head.all(b"www-authenticate") == [b"Bearer error=x", b"Basic"]
    assert answer.head.one(b"x-a") == b"1"
    assert answer.head.one(b"x-authproxy-retry") is None
    assert len(upstream.requests) == 2
    assert grant.asked == 1
    async with lane.upstream():
        assert (await lane.call(lane.ask(user=user))).status == 200


PASSED = {
    "403-scope": reply(
        "403 Forbidden", b"no", 'WWW-Authenticate: Bearer error="insufficient_scope", scope="w"'
    ),
    "403": reply("403 Forbidden", b"no"),
    "403-rate": reply("403 Forbidden", b"slow", "X-RateLimit-Remaining: 0"),
    "429": reply("429 Too Many", b"slow", "Retry-After: 7"),
    "400-invalid-request": reply("400 Bad", b"no", 'WWW-Authenticate: Bearer error="invalid_request"'),
    "402": reply("402 Pay", b"no"),
    "404": reply("404 Not Found", b"no"),
    "407": reply("407 Proxy", b"no"),
    "410": reply("410 Gone", b"no"),
    "498": reply("498 Token", b"no"),
    "500": reply("500 Oops", b"no"),
    "502": reply("502 Bad Gateway", b"no"),
    "503": reply("503 Busy", b"no", "Retry-After: 3"),
    "504": reply("504 Late", b"no"),
    "302-login": reply("302 Found", b"", "Location: https://login.example/"),
}


@pytest.mark.scenario("D09", "D11", "D14", "F01")
@pytest.mark.parametrize("method", [b"GET", b"POST"])
@pytest.mark.parametrize("name", [pytest.param(n, id=f"no-retry-{n}") for n in PASSED])
async def test_anything_but_a_401_is_the_agents_business(lane: Lane, name: str, method: bytes) -> None:
    before = lane.grant.asked
    async with lane.upstream([PASSED[name]]) as upstream:
        answer = await lane.call(lane.ask(method, body=b"x" if method == b"POST" else None), method)
    raw = PASSED[name]
    assert answer.head.start == raw.split(b"\r\n")[0]
    assert b"x-authproxy-error" not in answer.head.names
    assert answer.head.one(b"retry-after") in (None, b"7", b"3")
    assert len(upstream.requests) == 1
    assert lane.grant.asked == before


@pytest.mark.scenario("D10")
@pytest.mark.parametrize(
    "fields",
    [
        (),
        ('WWW-Authenticate: Basic realm="a, Bearer b", Bearer error="invalid_token"',),
        ("WWW-Authenticate: Basic realm=x", "WWW-Authenticate: Bearer error=invalid_token"),
        ("WWW-Authenticate: bearer",),
        ('WWW-Authenticate: Bearer realm="unterminated',),
        ("WWW-Authenticate: ,,,;;===",),
    ],
    ids=["none", "second-in-list", "second-line", "lower-case", "unterminated", "garbage"],
)
async def test_a_401_is_a_401_whatever_its_challenge_looks_like(lane: Lane, fields: tuple[str, ...]) -> None:
    user, grant = await user_of(lane)
    denial = reply("401 Unauthorized", b"x", *fields)
    async with lane.upstream(guards(grant.bearer, denial=denial)) as upstream:
        answer = await lane.call(lane.ask(user=user))
    assert answer.status == 200, answer
    assert len(upstream.requests) == 2


@pytest.mark.scenario("D4", "A01")
async def test_fifty_at_once_cost_one_refresh(lane: Lane) -> None:
    user, grant = await user_of(lane)
    async with lane.upstream(guards(grant.bearer)):
        answers = await asyncio.gather(*(lane.call(lane.ask(rest=b"/%d" % n, user=user)) for n in range(50)))
    assert [a.status for a in answers] == [200] * 50
    assert grant.asked == 1


@pytest.mark.scenario("D06", "D5", "D3", "N3")
async def test_a_late_401_for_an_old_token_uses_the_newer_one(lane: Lane) -> None:
    """Twenty requests hang upstream with the old token; one other has it renewed; then their 401s come."""
    user, grant = await user_of(lane)
    old, release, waiting = grant.bearer, asyncio.Event(), asyncio.Semaphore(0)

    async def script(upstream: Upstream, wire: Wire) -> None:
        message = await wire.request()
        upstream.note(message)
        if message.head.one(b"authorization") == old:
            if message.head.target != b"/first":
                waiting.release()
                await release.wait()
            await wire.send(DENIAL)
        else:
            await wire.send(reply())

    async with lane.upstream(script) as upstream:
        late = [asyncio.create_task(lane.call(lane.ask(rest=b"/late", user=user))) for _ in range(20)]
        for _ in late:
            await asyncio.wait_for(waiting.acquire(), 10)
        assert (await lane.call(lane.ask(rest=b"/first", user=user))).status == 200
        assert grant.asked == 1
        release.set()
        assert [a.status for a in await asyncio.gather(*late)] == [200] * 20
    assert grant.asked == 1
    assert len(upstream.requests) == 42


@pytest.mark.scenario("D10", "B22", "F03", "D24")
@pytest.mark.parametrize("method", [b"GET", b"POST"])
async def test_a_refused_refresh_is_a_link_and_not_the_old_token(lane: Lane, method: bytes) -> None:
    user, grant = await user_of(lane)
    old, spent = grant.bearer, grant.refresh[-1]
    grant.refresh[-1] = "superseded"  # the provider ended it: what we hold is no longer good

    def echo(asked: Grant, form: dict[str, str]) -> tuple[int, str, bytes] | None:
        return None

    lane.seeded.provider.twist = echo
    async with lane.upstream(guards(old)) as upstream:
        answer = await lane.call(
            lane.ask(method, user=user, body=b"x" if method == b"POST" else None), method
        )
        assert answer.status == 403, answer
        assert_problem(answer, "connection_expired")
        assert lane.proxy.control_url.encode() in answer.body
        assert spent.encode() not in answer.body
        again = await lane.call(lane.ask(user=user))
        assert_problem(again, "connection_expired")
        assert again.head.one(b"retry-after") is None
    assert len(upstream.requests) == 1, "the second request never left"


@pytest.mark.scenario("D02")
@pytest.mark.parametrize("size", [10, 5 * 2**20])
async def test_the_first_answer_is_dropped_whatever_its_length(lane: Lane, size: int) -> None:
    user, grant = await user_of(lane)
    old = grant.bearer

    async def script(upstream: Upstream, wire: Wire) -> None:
        message = await wire.request()
        upstream.note(message)
        if message.head.one(b"authorization") == old:
            await wire.send(
                b"HTTP/1.1 401 U\r\nX-First: 1\r\nContent-Length: %d\r\n\r\n" % size + b"f" * size
            )
        else:
            await wire.send(reply("200 OK", b"second"))

    async with lane.upstream(script):
        answer = await lane.call(lane.ask(user=user))
    assert (answer.status, answer.body) == (200, b"second")
    assert b"x-first" not in answer.head.names


@pytest.mark.scenario("D01", "G06", "G07")
async def test_a_401_before_the_body_is_in_ends_in_an_exact_replay_or_none(lane: Lane) -> None:
    user, grant = await user_of(lane)
    old, body = grant.bearer, DATA[:10000]

    async def hasty(upstream: Upstream, wire: Wire) -> None:
        head = await wire.head()
        if head.one(b"authorization") == old:
            await wire.send(DENIAL)
            return
        assert await wire.exactly(len(body)) == body
        await wire.send(reply())

    request = lane.ask(b"POST", user=user, body=body)
    async with lane.upstream(hasty), await lane.dial() as wire:
        await wire.send(request[:-5000])
        await asyncio.sleep(0.05)  # the 401 is there before the rest of the body is
        await wire.send(request[-5000:])
        answer = await wire.response(b"POST")
        if answer.status == 401:
            assert answer.head.one(b"x-authproxy-retry") == b"resend"
        else:
            assert answer.status == 200, answer
    assert grant.asked == 1
