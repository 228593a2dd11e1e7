"""Answers whose URLs lead back through the proxy: in base-URL mode, by prefix and on listeners of a route's own."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest
import requests
from github import Auth, Github

from authproxy.core.packaged import packaged_routes
from tests.kit.lanes import ABSOLUTE, CONNECT, Lane
from tests.kit.ports import free_port
from tests.kit.process import LOOPBACK, Proxy, Seeded
from tests.kit.provider import Provider
from tests.kit.raw import Message, Upstream, Wire, reply
from tests.sdk.conftest import Api
from tests.tunnel.conftest import Yard


def at(lane: Lane) -> str:
    """The upstream's origin as it calls itself."""
    return f"http://127.0.0.1:{lane.port}"


def base(lane: Lane) -> str:
    return f"http://127.0.0.1:{lane.proxy.listen}{lane.prefix.decode()}"


def answer_of(lane: Lane, **more: Any) -> bytes:
    """JSON with URLs, and a Link."""
    body = json.dumps({"url": f"{at(lane)}/x", "text": f"see {at(lane)}/x", **more}).encode()
    link = f'Link: <{at(lane)}/x?page=2>; rel="next", <https://other.example/y>; rel="last"'
    return reply(
        "200 OK",
        body,
        "Content-Type: application/json; charset=utf-8",
        link,
        "Content-MD5: x",
        "ETag: x",
        keep=True,
    )


async def test_links_and_locations_lead_back_by_default(yard: Yard) -> None:
    lane = yard.lane()
    for location, moved in (
        (f"{at(lane)}/new?x=%2F", f"{base(lane)}/new?x=%2F"),
        ("/new", f"{lane.prefix.decode()}/new"),
        ("new", "new"),
        ("https://other.example/new", "https://other.example/new"),
        (f"//127.0.0.1:{lane.port}/new", f"{base(lane)}/new"),
        (f"//127.0.0.1:{lane.port}1/new", f"//127.0.0.1:{lane.port}1/new"),
    ):
        async with lane.upstream([reply("302 Found", b"", f"Location: {location}")]):
            head = (await lane.call(lane.ask())).head
        assert head.one(b"location") == moved.encode()
    async with lane.upstream([answer_of(lane)]):
        answer = await lane.call(lane.ask())
    assert answer.head.one(b"link") == (
        f'<{base(lane)}/x?page=2>; rel="next", <https://other.example/y>; rel="last"'.encode()
    )
    # The body of a route that does not say so is the upstream's, byte for byte.
    assert json.loads(answer.body)["url"] == f"{at(lane)}/x"
    assert answer.framing == "length"


@pytest.mark.parametrize("mode", [ABSOLUTE, CONNECT])
async def test_nothing_is_moved_where_the_agent_knows_the_upstream_itself(yard: Yard, mode: str) -> None:
    lane = yard.named("moving", mode)
    async with lane.upstream([answer_of(lane)]) as upstream:
        answer = await lane.call(lane.ask(b"GET", b"/x", b"Accept-Encoding: gzip"))
    assert json.loads(answer.body)["url"] == f"{at(lane)}/x"
    assert f"<{at(lane)}/x?page=2>".encode() in (answer.head.one(b"link") or b"")
    assert answer.head.one(b"content-md5") == b"x"
    assert upstream.requests[0].head.one(b"accept-encoding") == b"gzip"


async def test_json_is_moved_where_the_route_says_so(yard: Yard) -> None:
    lane = yard.named("moving")
    async with lane.upstream([answer_of(lane)]) as upstream:
        answer = await lane.call(
            lane.ask(b"GET", b"/x", b"Accept-Encoding: gzip, br", b"Accept-Encoding: zstd")
        )
    assert json.loads(answer.body) == {"url": f"{base(lane)}/x", "text": f"see {at(lane)}/x"}
    assert answer.complete
    assert answer.head.one(b"content-md5") is None, "it is not of this body any more"
    assert answer.head.one(b"etag") == b"x"
    assert upstream.requests[0].head.all(b"accept-encoding") == [b"identity"]


async def test_a_stream_is_moved_wherever_it_is_cut(yard: Yard) -> None:
    lane = yard.named("moving")
    text = json.dumps([f"{at(lane)}/{n}" for n in range(3)]).encode()

    async def script(upstream: Upstream, wire: Wire) -> None:
        upstream.note(await wire.request())
        await wire.send(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        for byte in text:
            await wire.send(b"1\r\n%c\r\n" % byte)
            await asyncio.sleep(0)
        await wire.send(b"0\r\n\r\n")

    async with lane.upstream(script):
        answer = await lane.call(lane.ask())
    assert json.loads(answer.body) == [f"{base(lane)}/{n}" for n in range(3)]
    assert answer.complete


@pytest.mark.parametrize(
    ("status", "fields", "body"),
    [
        ("206 Partial Content", ("Content-Range: bytes 0-9/99", "Content-Type: application/json"), None),
        ("200 OK", ("Content-Type: application/json", "Content-Encoding: gzip"), b"\x1f\x8bnot really"),
        ("200 OK", ("Content-Type: text/html",), None),
        ("200 OK", ("Content-Type: application/octet-stream",), None),
        ("200 OK", (), None),
    ],
    ids=["part", "coded", "html", "bytes", "untold"],
)
async def test_what_is_no_plain_json_stays(
    yard: Yard, status: str, fields: tuple[str, ...], body: bytes | None
) -> None:
    lane = yard.named("moving")
    sent = body or json.dumps({"url": f"{at(lane)}/x"}).encode()
    async with lane.upstream([reply(status, sent, *fields, "Content-MD5: x")]):
        answer = await lane.call(lane.ask())
    assert answer.body == sent
    assert answer.framing == "length"
    assert answer.head.one(b"content-md5") == b"x"


async def test_framings_stay_sound(yard: Yard) -> None:
    lane = yard.named("moving")
    async with lane.upstream([answer_of(lane)]), await lane.dial() as wire:
        for _ in range(3):  # the connection goes on
            await wire.send(lane.ask())
            answer = await wire.response()
            assert answer.complete
            assert json.loads(answer.body)["url"] == f"{base(lane)}/x"
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 50\r\n\r\n"

    async def bodiless(upstream: Upstream, wire: Wire) -> None:
        upstream.note(await wire.request())
        await wire.send(head)

    async with lane.upstream(bodiless), await lane.dial() as wire:
        await wire.send(lane.ask(b"HEAD"))
        answer = await wire.response(b"HEAD")
        assert answer.head.one(b"content-length") is None, "it is another length for GET"
    async with lane.upstream([answer_of(lane)]):
        request = lane.ask().replace(b"HTTP/1.1", b"HTTP/1.0", 1)
        answer = await lane.call(request)
        assert json.loads(answer.body)["url"] == f"{base(lane)}/x"


# --- listeners of a route's own ------------------------------------------------------------------------------


async def single(yard: Yard, name: str, request: bytes) -> Message:
    """One request on the listener of that route alone."""
    wire = await Wire.dial(yard.ports[name])
    try:
        if name == "secure":
            await wire.secure(yard.trust, "localhost")
        await wire.send(request)
        return await wire.response()
    finally:
        await wire.close()


@pytest.mark.parametrize("name", ["single", "secure"])
async def test_a_listener_of_its_own_is_the_route_without_a_prefix(yard: Yard, name: str) -> None:
    lane = yard.named(name)
    own = f"127.0.0.1:{yard.ports[name]}"
    scheme = "https" if name == "secure" else "http"
    async with lane.upstream([answer_of(lane)]) as upstream:
        request = f"GET /x%2Fy?z HTTP/1.1\r\nHost: {own}\r\nX-User-ID: alice\r\n\r\n".encode()
        answer = await single(yard, name, request)
        assert answer.status == 200
        assert json.loads(answer.body)["url"] == f"{scheme}://{own}/x"
        assert f"<{scheme}://{own}/x?page=2>".encode() in (answer.head.one(b"link") or b"")
        # An absolute URL of the listener itself is the same; of the route's upstream as well; of another none.
        for target, status in (
            (f"{scheme}://{own}/x", 200),
            (f"http://127.0.0.1:{lane.port}/x", 200),
            (f"http://127.0.0.1:{yard.lane().port}/x", 404),
        ):
            request = f"GET {target} HTTP/1.1\r\nHost: {own}\r\nX-User-ID: alice\r\n\r\n".encode()
            assert (await single(yard, name, request)).status == status
    assert [one.head.target for one in upstream.requests] == [b"/x%2Fy?z", b"/x", b"/x"]
    assert {one.head.one(b"authorization") for one in upstream.requests} == {lane.bearer}


@pytest.mark.parametrize("name", ["single", "secure"])
@pytest.mark.parametrize(
    ("line", "status"),
    [
        ("CONNECT single.wire.example:443 HTTP/1.1\r\nHost: single.wire.example:443", 405),
        ("GET /x HTTP/1.1\r\nHost: stranger.com", 421),
        ("OPTIONS * HTTP/1.1\r\nHost: 127.0.0.1", 404),
        ("TRACE /x HTTP/1.1\r\nHost: 127.0.0.1", 405),
        ("GET /../x HTTP/1.1\r\nHost: 127.0.0.1", 400),
    ],
)
async def test_the_rules_hold_there_too(yard: Yard, name: str, line: str, status: int) -> None:
    lane = yard.named(name)
    async with lane.upstream() as upstream:
        answer = await single(yard, name, f"{line}\r\nX-User-ID: alice\r\n\r\n".encode())
        assert answer.status == status
        assert answer.head.one(b"x-authproxy-error")
    assert not upstream.requests


async def test_a_tls_listener_does_not_speak_in_the_clear(yard: Yard) -> None:
    wire = await Wire.dial(yard.ports["secure"])
    await wire.send(b"GET /x HTTP/1.1\r\nHost: 127.0.0.1\r\nX-User-ID: alice\r\n\r\n")
    assert b"HTTP" not in await wire.rest()
    await wire.close()


# --- a real SDK that insists ---------------------------------------------------------------------------------


class Hub:
    """An API in GitHub's shape, behind the catalogue's own GitHub route."""

    def __init__(self, proxy: Proxy, api: Api, seeded: Seeded, own: int) -> None:
        self.proxy, self.api, self.seeded, self.own = proxy, api, seeded, own


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    provider, api, own = Provider(), Api(), free_port()
    route = {
        "upstream": f"http://127.0.0.1:{api.port}",
        "provider": "kit",
        "scopes": ["read"],
        "listen": f"127.0.0.1:{own}",
    }
    config = {
        "identity": {"callers": [{"kind": "api_key", "may_act_for": ["*"]}, LOOPBACK]},
        "providers": {"kit": provider.choice()},
        "routes": {"github": route},
        "egress": {"allow": ["127.0.0.0/8"]},
    }
    try:
        with Proxy(tmp_path_factory.mktemp("hub"), config) as proxy:
            seeded = Seeded(proxy, provider)
            seeded.user("alice")
            yield Hub(proxy, api, seeded, own)
    finally:
        provider.close()
        api.close()


class Alice(Auth.Auth):
    """PyGithub has no default headers; its own slot for the token is the hook."""

    token_type, token = "token", "dummy"

    def authentication(self, headers: dict[str, Any]) -> None:
        headers.update({"Authorization": "token dummy", "X-User-Id": "alice"})


@pytest.mark.parametrize("where", ["prefix", "listener"])
def test_pygithub_pages_through_the_proxy(hub: Hub, where: str) -> None:
    """It asserts that every URL in an answer is of its base URL's host, port and prefix."""
    url = f"{hub.proxy.url}/github" if where == "prefix" else f"http://127.0.0.1:{hub.own}"
    hub.api.arrived.clear()
    client = Github(base_url=url, auth=Alice(), retry=None)
    repos = list(client.get_user().get_repos())
    assert [repo.full_name for repo in repos] == ["o/1", "o/2"]
    assert all(repo.url.startswith(url + "/") for repo in repos)
    assert client.get_user().login == "alice"
    repos[0].update()
    client.close()
    seen = [one.target for one in hub.api.arrived]
    assert any("page=2" in target for target in seen)
    assert all(not target.startswith("/github") for target in seen)


def test_paging_by_link_alone_stays_behind_the_proxy(hub: Hub) -> None:
    """As octokit does: it follows `Link` wherever it leads, with whatever token it was given."""
    pages, url = [], f"{hub.proxy.url}/github/user/repos"
    while url:
        answer = requests.get(url, headers={"X-User-ID": "alice", "Authorization": "token dummy"}, timeout=10)
        pages.append(answer.json()[0]["full_name"])
        url = answer.links.get("next", {}).get("url", "")
        assert not url or url.startswith(hub.proxy.url + "/github/")
    assert pages == ["o/1", "o/2"]


def test_the_catalogue_says_it_for_github() -> None:
    routes = packaged_routes()
    assert routes["github"].rewrite_urls is True
    assert routes["gmail"].rewrite_urls is None
