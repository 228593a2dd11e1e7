"""One table of requests, three ways in: the decision is the same, whichever way the request came (D18, D21)."""

from __future__ import annotations

import asyncio

import pytest

from tests.kit.lanes import CONNECT, MODES
from tests.kit.raw import Gone, reply
from tests.tunnel.conftest import Yard

# What the route allows: GET /repos/me/* and /files/**, POST /repos/me/*/issues.
TABLE = (
    ("GET", "/repos/me/one"),
    ("HEAD", "/repos/me/one"),
    ("GET", "/repos/me/one?x=/../../admin"),
    ("GET", "/repos/me/one?"),
    ("GET", "/repos/me"),
    ("GET", "/repos/me/"),
    ("GET", "/repos/me/one/"),
    ("GET", "/repos/me/one/two"),
    ("GET", "/repos/you/one"),
    ("GET", "/Repos/me/one"),
    ("GET", "/repos/me/%6fne"),
    ("GET", "/repos/%6de/one"),
    ("GET", "/repos/me%2Fone"),
    ("GET", "/repos/me/one%2Ftwo"),
    ("GET", "/repos/me/one%2ftwo"),
    ("GET", "/repos%2Fme/one"),
    ("GET", "/repos/me/one%252Ftwo"),
    ("GET", "/repos/me/one%5Ctwo"),
    ("GET", "/repos/me/one\\two"),
    ("GET", "/repos/me/one;x"),
    ("GET", "/repos/me;x/one"),
    ("GET", "/repos/me/..;/one"),
    ("GET", "/repos/me/.."),
    ("GET", "/repos/me/../you/one"),
    ("GET", "/repos/you/../me/one"),
    ("GET", "/repos/me/%2e%2e/you"),
    ("GET", "/repos/me/%2E%2e%2fyou"),
    ("GET", "/repos/me/%252e%252e"),
    ("GET", "/repos/me/."),
    ("GET", "/repos/./me/one"),
    ("GET", "//repos/me/one"),
    ("GET", "/repos//me/one"),
    ("GET", "/repos/me//one"),
    ("GET", "/repos/me/one//"),
    ("GET", "/repos/me/%00one"),
    ("GET", "/repos/me/one%0d%0aX:y"),
    ("GET", "/repos/me/%zz"),
    ("GET", "/repos/me/one%"),
    ("GET", "/repos/me/%c0%ae%c0%ae"),
    ("GET", "/repos/me/caf%C3%A9"),
    ("GET", "/repos/me/one#two"),
    ("GET", "/files"),
    ("GET", "/files/"),
    ("GET", "/files/a/b/c"),
    ("GET", "/files/a%2Fb"),
    ("GET", "/files/../repos/me/one"),
    ("GET", "/filesystem/a"),
    ("GET", "/"),
    ("POST", "/repos/me/one/issues"),
    ("POST", "/repos/me/one/issues/"),
    ("POST", "/repos/me/one"),
    ("POST", "/repos/me/one/two/issues"),
    ("PUT", "/repos/me/one"),
    ("DELETE", "/files/a"),
    ("PATCH", "/files/a"),
    ("OPTIONS", "/files/a"),
    ("get", "/files/a"),
    ("TRACE", "/files/a"),
)
TABLE_WITH_FIELDS = (
    ("GET", "/files/a", b"X-HTTP-Method-Override: DELETE"),
    ("POST", "/repos/me/one/issues", b"X-HTTP-Method-Override: GET"),
    ("GET", "/files/a", b"X-Original-URL: /admin"),
    ("GET", "/files/a", b"X-Forwarded-Host: evil.example"),
    ("GET", "/files/a", b"X-User-ID: bob"),
)


async def verdict(yard: Yard, mode: str, method: str, path: str, *fields: bytes) -> tuple[object, ...]:
    """What came of it: the answer's status and code, and what the upstream was sent."""
    lane = yard.named("ruled", mode)
    async with lane.upstream([reply()]) as upstream, await lane.dial() as wire:
        await wire.send(lane.ask(method.encode(), path.encode("latin-1"), *fields))
        try:
            answer = await wire.response(method.encode())
            said: tuple[object, ...] = (answer.status, answer.head.one(b"x-authproxy-error"))
        except Gone:
            said = ("closed",)
        return (*said, *(one.head.start for one in upstream.requests))


@pytest.mark.scenario("G16", "G22")
@pytest.mark.parametrize(
    ("method", "path", "fields"),
    [*((method, path, ()) for method, path in TABLE), *((m, p, (f,)) for m, p, f in TABLE_WITH_FIELDS)],
)
async def test_every_way_in_decides_alike(
    yard: Yard, method: str, path: str, fields: tuple[bytes, ...]
) -> None:
    found = {mode: await verdict(yard, mode, method, path, *fields) for mode in MODES}
    assert len(set(found.values())) == 1, found


async def test_the_table_is_of_both_kinds(yard: Yard) -> None:
    """So that agreeing is not agreeing on nothing."""
    found = [await verdict(yard, CONNECT, method, path) for method, path in TABLE]
    statuses = {one[0] for one in found}
    assert {200, 403, 400, 405} <= statuses
    assert all(len(one) == 3 for one in found if one[0] == 200)
    assert all(len(one) == 2 for one in found if one[0] != 200), "a refusal sends nothing"


@pytest.mark.parametrize("mode", MODES)
async def test_limits_hold_on_every_way_in(yard: Yard, mode: str) -> None:
    lane = yard.lane(mode)
    async with lane.upstream() as upstream:
        for request, status in (
            (lane.ask(b"GET", b"/x", b"X-Long: " + b"a" * 40000), 431),
            (lane.ask(b"GET", b"/x", *(b"X-%d: y" % n for n in range(200))), 431),
            (lane.ask(b"GET", b"/" + b"a" * 40000), 431),
            (lane.ask(b"POST", b"/x", b"Transfer-Encoding: chunked", body=b"x"), 400),
        ):
            assert (await lane.call(request)).status == status
        await lane.prove_untouched(upstream)


async def test_a_key_shown_to_the_base_url_and_to_connect_is_one_caller(yard: Yard) -> None:
    key, _ = await asyncio.to_thread(yard.key, "everywhere", "alice")
    for mode in MODES:
        lane = yard.lane(mode)
        async with lane.upstream():
            answer = await lane.call(lane.ask(b"GET", b"/x", b"X-Authproxy-Key: " + key.encode(), user=None))
            assert answer.status == 200, mode
            other = lane.ask(b"GET", b"/x", b"X-Authproxy-Key: " + key.encode(), user=b"bob")
            assert (await lane.call(other)).status == 403
