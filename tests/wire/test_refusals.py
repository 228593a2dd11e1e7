"""Refusals: one shape, the right code, nothing of a secret, and no upstream bothered."""

from __future__ import annotations

import asyncio
import json

import pytest

from tests.kit.browser import Browser
from tests.kit.lanes import ABSOLUTE, MODES, Lane, assert_problem
from tests.kit.raw import Upstream, Wire, reply

pytestmark = pytest.mark.scenario("D29", "N11")


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("method", [b"GET", b"POST", b"DELETE"])
async def test_a_stranger_gets_a_link(lane: Lane, method: bytes, mode: str) -> None:
    lane.mode = mode
    async with lane.upstream() as upstream:
        answer = await lane.call(lane.ask(method, user=b"nobody-yet"), method)
        assert answer.status == 403
        assert_problem(answer, "connection_required")
        problem = json.loads(answer.body)
        assert problem["act"] == "ask_user"
        assert problem["connect_url"].startswith(lane.proxy.control_url + "/connect/")
        assert (problem["provider"], problem["user"]) == ("kit", "nobody-yet")
        assert answer.head.one(b"www-authenticate") is None
        await lane.prove_untouched(upstream)


async def test_the_link_in_a_refusal_works(lane: Lane) -> None:
    """What the agent shows its user leads, through the provider, to a call that succeeds."""
    user = f"linked-{lane.name}".encode()
    refusal = await lane.call(lane.ask(user=user))
    link = json.loads(refusal.body)["connect_url"]
    page = await asyncio.to_thread(Browser().consent, link)
    assert page.status == 200, page.text
    async with lane.upstream() as upstream:
        assert (await lane.call(lane.ask(user=user))).status == 200
    assert upstream.requests[0].head.one(b"authorization") == lane.seeded.provider.grants[-1].bearer


async def test_many_refusals_share_one_link(lane: Lane) -> None:
    """An agent that hammers makes neither a flood of flows nor a new link each time (H06)."""
    answers = await asyncio.gather(*(lane.call(lane.ask(user=b"hammering")) for _ in range(30)))
    links = {json.loads(a.body)["connect_url"] for a in answers}
    assert len(links) <= 2


async def test_a_head_request_is_refused_without_a_body(lane: Lane) -> None:
    async with await lane.dial() as wire:
        await wire.send(lane.ask(b"HEAD", user=b"nobody-yet") + lane.ask(b"GET", user=None))
        first = await wire.head()
        assert first.one(b"x-authproxy-error") == b"connection_required"
        second = await wire.response()
        assert_problem(second, "user_missing")


@pytest.mark.scenario("G17", "D17", "D18")
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("method", "rest", "allowed"),
    [
        (b"GET", b"/repos/me/one", True),
        (b"GET", b"/repos/me/one?x=/../..", True),
        (b"GET", b"/files/a/b/c", True),
        (b"GET", b"/files/a%2Fb", True),
        (b"POST", b"/repos/me/one/issues", True),
        (b"GET", b"/repos/me", False),
        (b"GET", b"/repos/me/one/two", False),
        (b"GET", b"/repos/you/one", False),
        (b"GET", b"/repos/meow/one", False),
        (b"POST", b"/repos/me/one", False),
        (b"DELETE", b"/repos/me/one", False),
        (b"HEAD", b"/repos/you/one", False),
        (b"get", b"/repos/me/one", False),
        (b"GET", b"/", False),
        (b"GET", b"/repos/me/one%2Ftwo", False),
        (b"GET", b"/repos/me/..%2fyou", False),
        (b"GET", b"/repos/me/%2e%2e/you/one", False),
        (b"GET", b"/repos/me/%252e%252e/you", False),
        (b"GET", b"/repos/me/../you/one", False),
        (b"GET", b"/repos/me/..;/you", False),
        (b"GET", b"/repos/me\\..\\you", False),
        (b"GET", b"//repos/me/one", False),
        (b"GET", b"/repos//me/one", False),
        (b"GET", b"/REPOS/me/one", False),
        (b"GET", b"/%72epos/you/one", False),
        (b"GET", b"/files", None),
        (b"GET", b"/files/", None),
        (b"GET", b"/%66iles/a", None),
    ],
)
async def test_rules_hold_in_every_mode(
    special: dict[str, Lane], method: bytes, rest: bytes, allowed: bool | None, mode: str
) -> None:
    lane = special["ruled"]
    lane.mode = mode
    async with lane.upstream() as upstream:
        answer = await lane.call(lane.ask(method, rest), method)
        if allowed is None:
            allowed = answer.status == 200
        if allowed:
            assert answer.status == 200, answer
            assert upstream.requests[0].head.target == rest
        else:
            assert answer.status in (400, 403), answer
            if method != b"HEAD":
                assert_problem(answer, "policy_denied", "bad_request")
            assert upstream.requests == []


@pytest.mark.scenario("G17")
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "name",
    [
        b"X-HTTP-Method-Override",
        b"x-http-method",
        b"X_HTTP_Method_Override",
        b"X-HTTP_Method",
        b"x_method-override",
    ],
)
async def test_the_rules_hold_for_what_an_override_names(
    special: dict[str, Lane], name: bytes, mode: str
) -> None:
    lane = special["ruled"]
    lane.mode = mode
    async with lane.upstream() as upstream:
        answer = await lane.call(lane.ask(b"POST", b"/repos/me/one/issues", name + b": DELETE", body=b""))
        assert answer.status == 403, answer
        assert_problem(answer, "policy_denied")
        assert upstream.requests == []
        answer = await lane.call(lane.ask(b"POST", b"/repos/me/one/issues", name + b": post", body=b""))
        assert answer.status == 200, answer


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("framing", ["length", "chunked"])
async def test_a_body_over_the_routes_limit_is_a_413(
    special: dict[str, Lane], framing: str, mode: str
) -> None:
    lane = special["small"]
    lane.mode = mode
    body = b"a" * 1001
    request = lane.ask(b"POST", body=body)
    if framing == "chunked":
        request = (
            lane.ask(b"POST", b"/x", b"Transfer-Encoding: chunked") + b"3e9\r\n" + body + b"\r\n0\r\n\r\n"
        )

    async def take(upstream: Upstream, wire: Wire) -> None:
        message = await wire.request()
        upstream.note(message)
        if message.complete:
            await wire.send(reply())

    async with lane.upstream(take) as upstream:
        answer = await lane.call(request, b"POST")
        assert answer.status == 413, answer
        assert_problem(answer, "body_too_large")
        fits = await lane.call(lane.ask(b"POST", body=body[:1000]), b"POST")
        assert fits.status == 200
    assert [len(m.body) for m in upstream.requests if m.complete] == [1000]


@pytest.mark.scenario("N9", "D09")
@pytest.mark.parametrize("mode", MODES)
async def test_a_scope_that_was_not_granted_is_named_with_a_link(special: dict[str, Lane], mode: str) -> None:
    lane = special["wider"]
    lane.mode = mode
    async with lane.upstream() as upstream:
        answer = await lane.call(lane.ask())
        assert answer.status == 403, answer
        assert_problem(answer, "scope_missing")
        problem = json.loads(answer.body)
        assert problem["missing_scopes"] == ["write"]
        assert problem["connect_url"].startswith(lane.proxy.control_url)
        assert upstream.requests == []


@pytest.mark.scenario("G16")
async def test_the_longest_prefix_wins_on_whole_segments(special: dict[str, Lane]) -> None:
    lane = special["deep"]
    async with lane.upstream() as upstream:
        answer = await lane.call(lane.ask(rest=b"/x"))
        assert answer.status == 200, answer
        lane.prefix += b"er"  # /l0/deeper/stiller is the shorter route's
        await asyncio.wait_for(lane.call(lane.ask(rest=b"/x", user=None)), 5)
        lane.prefix = lane.prefix.removesuffix(b"er")
    assert [m.head.target for m in upstream.requests] == [b"/x"]


@pytest.mark.scenario("F06", "G14")
async def test_cookies_travel_only_where_the_route_says_so(special: dict[str, Lane]) -> None:
    lane = special["cookies"]
    cookies = [f"Set-Cookie: c{n}=v{n}; Path=/" for n in range(5)]
    async with lane.upstream([reply("200 OK", b"ok", *cookies)]) as upstream:
        answer = await lane.call(lane.ask(b"GET", b"/x", b"Cookie: a=b"))
    assert [f"Set-Cookie: {v.decode()}" for v in answer.head.all(b"set-cookie")] == cookies
    assert upstream.requests[0].head.one(b"cookie") == b"a=b"
    lane = special["cookieless"]
    async with lane.upstream([reply("200 OK", b"ok", *cookies, "X-Kept: yes")]) as upstream:
        answer = await lane.call(lane.ask(b"GET", b"/x", b"Cookie: a=b"))
    assert answer.head.all(b"set-cookie") == []
    assert answer.head.one(b"x-kept") == b"yes"
    assert b"cookie" not in upstream.requests[0].head.names


@pytest.mark.scenario("D30", "F07")
@pytest.mark.parametrize("path", ["/token", "/revoke", "/authorize"])
async def test_the_providers_own_endpoints_are_not_reached_through_the_proxy(lane: Lane, path: str) -> None:
    target = (lane.seeded.provider.url + path).encode()
    body = b"grant_type=refresh_token&refresh_token=x"
    request = b"POST %s HTTP/1.1\r\nHost: x\r\nX-User-ID: alice\r\nContent-Length: %d\r\n\r\n%s"
    before = lane.grant.asked
    answer = await lane.call(request % (target, len(body), body), b"POST")
    assert answer.status in (400, 403, 404), answer
    assert_problem(answer)
    assert lane.grant.asked == before


@pytest.mark.scenario("I05")
@pytest.mark.parametrize(
    "scheme", ["Proxy-Authorization: Basic", "proxy-authorization: basic", "Proxy-Authorization: BASIC"]
)
async def test_the_user_may_stand_in_the_proxys_own_credential(lane: Lane, scheme: str) -> None:
    """`http://alice:anything@proxy`: where no agent key is asked for, the name is believed as the header would be."""
    field = scheme.encode() + b" YWxpY2U6YXB4XzEyMw=="  # alice:apx_123
    lane.mode = ABSOLUTE
    async with lane.upstream() as upstream:
        answer = await lane.call(lane.ask(b"GET", b"/x", field, user=None))
        if answer.status == 200:
            assert upstream.requests[0].head.one(b"authorization") == lane.bearer
            assert b"proxy-authorization" not in upstream.requests[0].head.names
        else:
            assert_problem(answer, "caller_unknown", "user_missing")
            assert upstream.requests == []


@pytest.mark.parametrize("origin", [b"https://evil.example", b"null"])
async def test_no_answer_of_ours_opens_the_door_to_browsers(lane: Lane, origin: bytes) -> None:
    preflight = lane.ask(
        b"OPTIONS", b"/x", b"Origin: " + origin, b"Access-Control-Request-Method: GET", user=None
    )
    answer = await lane.call(preflight, b"OPTIONS")
    assert_problem(answer)
    assert not [name for name in answer.head.names if name.startswith(b"access-control-")]
