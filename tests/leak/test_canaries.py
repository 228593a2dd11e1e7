"""Every token, code, verifier and state is a canary; after every path was walked, none is found where it may not be.

The only places allowed are the request to the upstream, the calls to the token endpoint, and the agent's own body
where it sent the canary itself.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.kit.browser import Browser
from tests.kit.canaries import hits
from tests.kit.lanes import LIMITS, Lane, lanes
from tests.kit.provider import Grant
from tests.kit.raw import Gone, Message, Script, Upstream, Wire, reply

AGENTS_OWN = "CANARY-agent-0f8e7d6c5b4a39281706"
QUERY = "CANARY-query-5a4b3c2d1e0f99887766"


class Crawl:
    """All that a client got to see, under a name for the report."""

    def __init__(self, made: list[Lane]) -> None:
        self.lanes = iter(made)
        self.seeded = made[0].seeded
        self.seen: dict[str, bytes] = {}
        self.browsers: list[Browser] = []

    def note(self, name: str, data: bytes) -> None:
        self.seen[f"{name} #{len(self.seen)}"] = data

    async def user(self) -> tuple[bytes, Grant]:
        def connect() -> tuple[bytes, Grant]:
            name = f"crawler-{len(self.browsers)}"
            before = len(self.seeded.provider.grants)
            self.browsers.append(self.seeded.proxy.connect(name))
            return name.encode(), self.seeded.provider.grants[before]

        return await asyncio.to_thread(connect)

    async def call(
        self, name: str, lane: Lane, script: Script | list[bytes], statuses: str, *requests: bytes
    ) -> None:
        """Each request on a connection of its own; everything that comes back is kept, with a status as expected."""
        async with lane.upstream(script):
            for request in requests:
                answer = await lane.call(request)
                self.note(name, answer.head.raw + answer.body + answer.trailers)
                assert str(answer.status) in statuses.split(), (name, answer)


def _echo(spell: Any) -> Script:
    async def script(upstream: Upstream, wire: Wire) -> None:
        while True:
            try:
                message = await wire.request()
            except Gone:
                return
            upstream.note(message)
            await wire.send(spell(message))
            return

    return script


def _guard(old: bytes, denial: bytes) -> Script:
    return _echo(lambda m: denial if m.head.all(b"authorization") == [old] else reply())


def _token(message: Message) -> bytes:
    return message.head.all(b"authorization")[0].removeprefix(b"Bearer ")


async def _successes(crawl: Crawl) -> None:
    lane, (user, _) = next(crawl.lanes), await crawl.user()
    own = AGENTS_OWN.encode()
    fields = (b"Authorization: Bearer " + own, b"Cookie: s=" + own)
    rest = b"/x?access_token=" + QUERY.encode()
    await crawl.call(
        "success",
        lane,
        [reply()],
        "200",
        lane.ask(b"GET", rest, user=user),
        lane.ask(b"POST", rest, user=user, body=b"hello"),
    )
    await crawl.call("own credentials", lane, [reply()], "200", lane.ask(b"GET", rest, *fields, user=user))
    keys = (
        b"X-Authproxy-Key: " + own,
        b"Proxy-Authorization: Bearer " + own,
        b"Authorization: Bearer apx_" + own,
    )
    await crawl.call(
        "bad keys", lane, [reply()], "407", *(lane.ask(b"GET", rest, key, user=user) for key in keys)
    )


async def _denials(crawl: Crawl) -> None:
    """401s: renewed, not replayable, refused again; with the provider echoing what it was sent."""
    provider = crawl.seeded.provider
    lane, (user, grant) = next(crawl.lanes), await crawl.user()
    denial = reply("401 Unauthorized", b"no", "WWW-Authenticate: Bearer error=invalid_token")
    await crawl.call("renewed", lane, _guard(grant.bearer, denial), "200", lane.ask(user=user))
    large = lane.ask(b"POST", user=user, body=b"a" * (LIMITS["max_replay"] + 1))
    await crawl.call("not replayable", lane, _guard(grant.bearer, denial), "401", large)
    await crawl.call("refused again", lane, [denial], "401", lane.ask(user=user))

    def echoes(status: int, kind: str) -> Any:
        def twist(_: Grant, form: dict[str, str]) -> tuple[int, str, bytes] | None:
            if form["grant_type"] != "refresh_token":
                return None
            said = {
                "error": "invalid_grant",
                "error_description": f"token {form['refresh_token']} is no good",
            }
            text = json.dumps(said) if "json" in kind else f"<h1>{form['refresh_token']}</h1>"
            return status, kind, text.encode()

        return twist

    for status, kind in (
        (500, "text/html"),
        (200, "text/html"),
        (503, "application/json"),
        (400, "application/json"),
    ):
        lane, (user, grant) = next(crawl.lanes), await crawl.user()
        provider.twist = echoes(status, kind)
        await crawl.call(
            f"provider echoes {status} {kind}",
            lane,
            _guard(grant.bearer, denial),
            "403 503 401",
            lane.ask(user=user),
        )
        await crawl.call("and again", lane, _guard(grant.bearer, denial), "403 503 401", lane.ask(user=user))
        provider.twist = None


async def _malformed_tokens(crawl: Crawl) -> None:
    """A provider that answers with what may not go into a header: kept out of headers, words and pages alike."""
    provider = crawl.seeded.provider
    denial = reply("401 Unauthorized", b"no", "WWW-Authenticate: Bearer")
    for number, tail in enumerate(("\r\nX-Injected: 1", "\n", "\x00", " with space", "\u0159", "," * 9000)):
        lane, (user, grant) = next(crawl.lanes), await crawl.user()
        bad = f"CANARY-malformed-{number:016d}" + tail
        provider.secrets.add(f"CANARY-malformed-{number:016d}")

        def twist(_: Grant, form: dict[str, str], bad: str = bad) -> tuple[int, str, bytes] | None:
            if form["grant_type"] != "refresh_token":
                return None
            answer = {"access_token": bad, "token_type": "Bearer", "expires_in": 3600}
            return 200, "application/json", json.dumps(answer).encode()

        provider.twist = twist
        await crawl.call(
            f"malformed {tail[:9]!r}",
            lane,
            _guard(grant.bearer, denial),
            "401 403 503" if "," not in tail else "200",  # long and odd, but it may stand in a header
            lane.ask(user=user),
            lane.ask(user=user),
        )
        provider.twist = None


async def _reflections(crawl: Crawl) -> None:
    """F05: an upstream that hands the injected token back, in the shapes that echo services have."""
    lane, (user, _) = next(crawl.lanes), await crawl.user()
    spells: dict[str, Any] = {
        "in a header": lambda m: reply("200 OK", b"ok", "X-Echo: Bearer " + _token(m).decode()),
        "in two headers": lambda m: reply(
            "200 OK", b"ok", "X-A: " + _token(m).decode(), "X-B: " + _token(m).decode()
        ),
        "in www-authenticate": lambda m: reply(
            "403 No", b"ok", f'WWW-Authenticate: Bearer t="{_token(m).decode()}"'
        ),
        "in json": lambda m: reply(
            "200 OK", json.dumps({"token": _token(m).decode()}).encode(), "Content-Type: application/json"
        ),
        "in html": lambda m: reply("500 Oops", b"<pre>" + _token(m) + b"</pre>", "Content-Type: text/html"),
        "in text twice": lambda m: reply("200 OK", _token(m) * 2, "Content-Type: text/plain"),
        "in base64": lambda m: reply("200 OK", base64.b64encode(_token(m)), "Content-Type: text/plain"),
        "split in chunks": lambda m: (
            b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
            + b"".join(b"1\r\n%c\r\n" % c for c in _token(m))
            + b"0\r\n\r\n"
        ),
        "in a trailer": lambda m: (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n2\r\nok\r\n0\r\nX-T: "
            + _token(m)
            + b"\r\n\r\n"
        ),
        "in a reason": lambda m: (
            b"HTTP/1.1 200 " + _token(m) + b"\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"
        ),
        "in a broken head": lambda m: b"HTTP/1.1 200 OK\r\nX " + _token(m) + b": 1\r\n\r\n",
        "in no http": lambda m: b"ERR unknown " + _token(m) + b"\r\n",
        "in a location": lambda m: reply("302 F", b"", "Location: /login?token=" + _token(m).decode()),
        "in a long field": lambda m: reply("200 OK", b"ok", "X-A: " + _token(m).decode() * 2000),
    }
    for name, spell in spells.items():
        await crawl.call(f"reflected {name}", lane, _echo(spell), "200 302 403 500 502", lane.ask(user=user))


async def _refusals(crawl: Crawl) -> None:
    lane, (user, _) = next(crawl.lanes), await crawl.user()
    own, rest = b"Authorization: Bearer " + AGENTS_OWN.encode(), b"/x?token=" + QUERY.encode()
    host = b"Host: " + lane.authority
    await crawl.call(
        "refusal",
        lane,
        _echo(lambda _: b""),
        "400 403 404 405 407 421 431 502 505",
        lane.ask(b"GET", rest, own, user=user),
        lane.ask(b"GET", rest, own, user=None),
        lane.ask(b"GET", rest, own, user=b"stranger"),
        lane.ask(b"TRACE", rest, own, user=user),
        lane.ask(b"GET", b"/../" + rest, own, user=user),
        b"GET /nowhere" + rest + b" HTTP/1.1\r\n" + host + b"\r\n" + own + b"\r\n\r\n",
        b"GET http://evil.example" + rest + b" HTTP/1.1\r\nHost: evil.example\r\n" + own + b"\r\n\r\n",
        lane.ask(b"GET", rest, own + b"\x00", user=user),
        lane.ask(b"GET", rest, own + b"\r\n folded", user=user),
        lane.ask(b"GET", rest, own * 2000, user=user),
        lane.ask(b"GET", rest, b"X-User-ID: " + AGENTS_OWN.encode() + b"\x01", user=None),
        b"GET " + rest + b" HTTP/9.9\r\n" + own + b"\r\n\r\n",
        # the host that a tunnel was asked to is told in the trail: no place for a canary
        b"CONNECT nowhere.example:443 HTTP/1.1\r\nHost: nowhere.example:443\r\n" + own + b"\r\n\r\n",
    )


def _control(crawl: Crawl) -> None:
    """Everything that the control plane says to an operator, and every other thing a curious agent may try."""
    proxy = crawl.seeded.proxy
    ids = [c["id"] for c in proxy.ask("GET", "/v1/connections?limit=1000")[1]["items"]]
    assert ids
    paths = [
        "/metrics",
        "/livez",
        "/readyz",
        "/v1/connections",
        "/v1/admin/user_connections",
        "/v1/audit?limit=1000",
    ]
    paths += [
        f"/v1/connections/{one}{tail}"
        for one in ids
        for tail in ("", "/timeline", "/token", "?include=token")
    ]
    paths += [
        "/v1/tools",
        "/v1/formatted_tools",
        "/v1/auth/token",
        "/debug",
        "/connect/none",
        "/callback/kit?code=x",
    ]
    paths += [f"/callback/kit?code={QUERY}&state={QUERY}", f"/v1/auth/status?id={QUERY}"]
    for path in paths:
        _, headers, body = proxy.fetch(proxy.control, "GET", path)
        crawl.note(path.replace(QUERY, "…"), repr(headers).encode() + body)
    for one in ids[:3]:
        _, headers, body = proxy.fetch(proxy.control, "POST", f"/v1/connections/{one}/refresh")
        crawl.note("forced refresh", repr(headers).encode() + body)
    _, headers, body = proxy.fetch(proxy.control, "DELETE", f"/v1/connections/{ids[-1]}")
    crawl.note("disconnect", repr(headers).encode() + body)


def _commands(crawl: Crawl) -> None:
    proxy = crawl.seeded.proxy
    where = ["--config", str(proxy.file), "--store", f"sqlite:///{proxy.store}"]
    for command in (
        ["connections", "list", *where],
        ["connections", "list", "--json", *where],
        ["explain", "alice", "kit", *where],
        ["audit", "export", *where],
        ["audit", "query", "--json", *where],
        ["audit", "verify", *where],
        ["doctor", *where],
        ["check", "--config", str(proxy.file)],
    ):
        done = proxy.run(*command)
        assert "Traceback" not in done.stderr, done.stderr
        crawl.note(" ".join(command[:2]), (done.stdout + done.stderr).encode())


def _places(crawl: Crawl, directory: Path) -> Iterator[tuple[str, bytes]]:
    yield from crawl.seen.items()
    for browser in crawl.browsers:
        for page in browser.seen:
            if page.url.startswith(crawl.seeded.proxy.control_url):
                yield f"page {page.url.partition('?')[0]}", page.body
    for file in sorted(directory.rglob("*")):
        if file.is_file() and file.name not in (".netrc", "routes.yaml"):
            yield f"file {file.name}", file.read_bytes()


@pytest.mark.scenario(
    "F02", "F03", "F04", "F05", "F08", "F11", "F12", "D24", "D30", "J06", "E04", "D32", "N22"
)
@pytest.mark.timeout(120)
async def test_no_canary_leaves_its_cage(tmp_path: Path) -> None:
    with lanes(tmp_path, 40) as (made, _):
        crawl = Crawl(made)
        proxy, provider = crawl.seeded.proxy, crawl.seeded.provider
        for walk in (_successes, _denials, _malformed_tokens, _reflections, _refusals):
            await walk(crawl)
        await asyncio.to_thread(_control, crawl)
        await asyncio.to_thread(_commands, crawl)
        while_it_runs = dict(_places(crawl, tmp_path))  # the write-ahead log is still there now
        assert any(name.endswith("-wal") for name in while_it_runs), sorted(while_it_runs)
        assert proxy.stop() == 0
        secrets = {s for s in provider.secrets if s} | {AGENTS_OWN, QUERY, "CANARY-netrc"}
        places = {
            **{f"{name} (running)": data for name, data in while_it_runs.items()},
            **dict(_places(crawl, tmp_path)),
        }
        assert len(secrets) > 40
        assert hits(secrets, places) == []
        assert b"Traceback" not in places["file stderr"], places["file stderr"][-3000:]


def test_the_search_finds_what_is_there() -> None:
    """A search that finds nothing must be one that can."""
    secret = "CANARY-at-00112233445566778899aabbccddeeff"
    for text in (
        secret,
        secret[10:30],
        secret.encode().hex(),
        base64.b64encode(f"x{secret}yz".encode()).decode(),
    ):
        assert hits([secret], {"place": f"before {text} after".encode()}) == [f"place: {secret}"]
    assert hits([secret], {"place": b"CANARY-at-"}) == []
