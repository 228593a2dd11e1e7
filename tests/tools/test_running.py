"""One call of a tool: its requests on the walk, what comes of their answers, its bounds, and its record."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from authproxy.app import Address
from authproxy.control.tools import Asked
from authproxy.core.config import Rule, Tools
from authproxy.core.errors import BadRequest, NotFound, Overloaded, UserMissing, UserNotAllowed
from authproxy.core.model import Caller
from authproxy.tools.loading import toolbox
from authproxy.tools.tool import Answer, Call, Json, Kind, Marks, Tool, ToolError
from tests.kit.ports import free_port
from tests.tools.kit import CALLER, House, Reply
from tests.tools.making import GMAIL, READ, made, one_call, parameter, put

PATH = "/gmail/v1/users/me/profile"
GET = one_call("GET", PATH)
POST = one_call("POST", PATH, json={"x": "ü"})
WRITES = Marks(read_only=False)


async def run_with(house: House, tool: Tool, **kit: Any) -> ToolError | Any:
    """The failure or the value of one call."""
    put(house, tool, **kit)
    outcome = await house.call("Made.Tool")
    return outcome.value if outcome.error is None else outcome.error


# --- what is sent


async def test_a_request_is_sent_as_the_user(house: House) -> None:
    async def run(call: Call) -> Json:
        query = {"a": "ü &=", "none": None, "flag": True, "many": ["x", None, 2], "empty": ""}
        answer = await call.api.call("PUT", "/a/b%2Fc/d:e@f", query=query, json={"x": "ü", "n": None})
        assert answer.fields["x-more"] == "1, 2"
        return [answer.status, answer.json]

    put(house, made(run))
    house.answer("PUT", "/a/b%2Fc/d:e@f", lambda _seen: more_fields())
    assert await house.value("Made.Tool") == [201, {"made": True}]
    (seen,) = house.seen
    assert dict(seen.queries) == {"a": ["ü &="], "flag": ["true"], "many": ["x", "2"], "empty": [""]}
    assert seen.json == {"x": "ü", "n": None}
    assert seen.headers["content-type"] == "application/json; charset=utf-8"
    assert seen.bearer in house.upstream.good
    for name in ("x-user-id", "cookie", "x-authproxy-account", "proxy-authorization"):
        assert name not in seen.headers
    assert seen.headers["user-agent"].startswith("authproxy/")


def more_fields() -> web.Response:
    answer = web.json_response({"made": True}, status=201)
    answer.headers.add("X-More", "1")
    answer.headers.add("X-More", "2")
    return answer


@pytest.mark.parametrize("size", [0, 10, 70_000, 3_000_000])
async def test_a_body_of_bytes_arrives_whole(house: House, size: int) -> None:
    body = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    house.answer("POST", PATH, lambda seen: {"size": len(seen.body), "same": seen.body == body})
    put(house, made(one_call("POST", PATH, body=body, content_type="message/rfc822"), marks=WRITES))
    assert await house.value("Made.Tool") == {"size": size, "same": True}


async def test_an_expired_token_is_renewed_in_the_middle(house: House) -> None:
    async def run(call: Call) -> Json:
        await call.api.call("POST", PATH, json={"n": 1})
        house.upstream.good.clear()
        return (await call.api.call("POST", PATH, json={"n": 2})).json

    put(house, made(run, marks=WRITES))
    house.answer("POST", PATH, lambda seen: seen.json)
    assert await house.value("Made.Tool") == {"n": 2}
    assert house.upstream.refreshes == 1
    assert [seen.json["n"] for seen in house.seen] == [1, 2, 2]
    first, second = [one for one in await house.records("request") if one["tool"]]
    assert (first["refreshed"], first["attempts"]) == (False, 1)
    assert (second["refreshed"], second["attempts"]) == (True, 2)


async def test_what_was_renamed_is_followed_to_the_same_upstream_only(house: House) -> None:
    put(house, made(GET))
    here = f"http://127.0.0.1:{house.upstream.port}"
    house.answer("GET", PATH, Reply(301, headers={"Location": f"{here}/moved?x=1"}))
    house.answer("GET", "/moved", lambda seen: {"moved": seen.query})
    assert await house.value("Made.Tool") == {"moved": {"x": "1"}}
    for away in (
        "https://elsewhere.example/moved",
        f"http://localhost:{house.upstream.port}/moved",
        "//e.example/x",
    ):
        before = len(house.seen)
        house.answer("GET", PATH, Reply(302, headers={"Location": away}))
        assert (await house.error("Made.Tool")).kind is Kind.UNMAPPED
        assert len(house.seen) == before + 1
    house.answer("GET", "/moved", Reply(307, headers={"Location": "/moved?x=2"}))
    house.answer("GET", PATH, Reply(301, headers={"Location": "/moved"}))
    before = len(house.seen)
    assert (await house.error("Made.Tool")).kind is Kind.UNMAPPED
    assert len(house.seen) < before + 6


async def test_a_body_is_read_as_it_was_coded(house: House) -> None:
    plain = json.dumps({"text": "x" * 5000}).encode()
    zipped = {"Content-Encoding": "gzip"}
    put(house, made(GET))
    house.answer(
        "GET", PATH, Reply(body=gzip.compress(plain[:50]) + gzip.compress(plain[50:]), headers=zipped)
    )
    assert await house.value("Made.Tool") == json.loads(plain)
    for broken in (gzip.compress(plain)[:-9], b"no gzip at all"):
        house.answer("GET", PATH, Reply(body=broken, headers=zipped))
        assert (await house.error("Made.Tool")).kind is Kind.UNREACHABLE
    house.answer("GET", PATH, Reply(body=plain, headers={"Content-Encoding": "br"}))
    assert (await house.error("Made.Tool")).kind is Kind.UNREACHABLE


async def test_an_answer_that_holds_the_token_is_masked(house: House) -> None:
    async def run(call: Call) -> Json:
        answer = await call.api.call("GET", PATH)
        return [answer.json, answer.body.decode(), dict(answer.fields)]

    put(house, made(run))
    for kind in ("application/json", "text/plain", "multipart/mixed; boundary=x"):
        pad = "x" * 2**20  # further than an agent's own answers are searched
        house.answer(
            "GET",
            PATH,
            lambda seen, kind=kind, pad=pad: Reply(
                body=json.dumps([pad, seen.bearer]).encode(),
                headers={"Content-Type": kind, "X-Echo": seen.headers["authorization"]},
            ),
        )
        outcome = await house.call("Made.Tool")  # which looks for tokens in all of it
        assert outcome.error is None
    house.answer(
        "GET", PATH, lambda seen: Reply(body=b'["x"]', headers={"Content-Type": "application/x-odd"})
    )
    assert (await house.value("Made.Tool"))[0] is None


# --- what may not be sent


@pytest.mark.parametrize(
    "path",
    [
        *(
            "",
            "x",
            "/a//b",
            "/a/",
            "/../x",
            "/a/../b",
            "/a/./b",
            "/a/%2e%2e/b",
            "/a/..%2fb",
            "/a%252f..%252fb",
        ),
        *(
            "/a?b",
            "/a#b",
            "/a b",
            "/a\r\nX: y",
            "/ä",
            "http://e.example/",
            "/a\\b",
            "/%",
            "/a/..;/b",
            "/a%00",
        ),
    ],
)
async def test_no_argument_bends_a_path(house: House, path: str) -> None:
    put(house, made(one_call("GET", path)))
    error = await house.error("Made.Tool")
    assert error.kind is Kind.BAD_INPUT
    assert house.seen == []


@pytest.mark.parametrize(
    "more",
    [{"accept": "a\r\nX-Evil: 1"}, {"body": b"x", "content_type": "a\nb"}, {"accept": "ä"}, {"accept": ""}],
)
async def test_no_argument_makes_a_header_field(house: House, more: dict[str, Any]) -> None:
    put(house, made(one_call("POST", PATH, **more)))
    assert (await house.error("Made.Tool")).kind is Kind.FATAL
    assert house.seen == []


@pytest.mark.parametrize("method", ["TRACE", "CONNECT", "get", "GET /x", "OPTIONS"])
async def test_only_plain_methods_are_sent(house: House, method: str) -> None:
    put(house, made(one_call(method, PATH)))
    assert (await house.error("Made.Tool")).kind is Kind.FATAL
    assert house.seen == []


async def reconfigured(house: House, **gmail: Any) -> None:
    """The route gmail with other settings, taken over as a reload does it."""
    config = house.app.config
    route = replace(config.routes["gmail"], **gmail)
    await house.app.take(replace(config, routes={**config.routes, "gmail": route}))


async def test_the_rules_of_the_route_hold_for_tools(house: House) -> None:
    await reconfigured(house, allow=(Rule(("GET",), ("/gmail/v1/users/me/messages/**",)),))
    put(house, made(GET))
    error = await house.error("Made.Tool")
    assert (error.kind, error.code, error.can_retry) == (Kind.REQUIREMENTS_NOT_MET, "policy_denied", False)
    assert house.seen == []
    (record,) = await house.records("request")
    assert (record["code"], record["tool"], record["via"]) == ("policy_denied", "Made.Tool", "tool")


@pytest.mark.parametrize(
    ("path", "lacks"),
    [
        ("/gmail/v1/users/me/messages/7/trash", "/gmail/v1/users/me/messages/*/trash"),
        ("/gmail/v1/users/me/new", "/gmail/v1/users/me/new"),
    ],
)
async def test_a_tool_that_its_route_refuses_says_which_rule_it_lacks(
    house: House, path: str, lacks: str
) -> None:
    upstream = f"http://127.0.0.1:{house.upstream.port}/base"
    await reconfigured(house, upstream=upstream, allow=(Rule(("GET",), ("/**",)),))
    own = toolbox().kits["Gmail"]
    put(house, made(one_call("POST", path)), reads=own.reads, writes=own.writes)
    error = await house.error("Made.Tool")
    assert (error.kind, error.code) == (Kind.REQUIREMENTS_NOT_MET, "policy_denied")
    assert f'add {{methods: [POST], paths: ["/base{lacks}"]}} to routes.gmail.allow' in str(
        error.developer_message
    )
    assert house.seen == []


async def test_a_body_over_the_route_s_limit_is_refused(house: House) -> None:
    await reconfigured(house, max_body=10)
    put(house, made(one_call("POST", PATH, body=b"x" * 11)))
    error = await house.error("Made.Tool")
    assert (error.kind, error.code) == (Kind.BAD_INPUT, "body_too_large")
    assert house.seen == []


@pytest.mark.parametrize("route", ["slack", "nowhere"])
async def test_a_tool_keeps_to_its_provider(house: House, route: str) -> None:
    put(house, made(one_call("GET", PATH, route=route)))
    error = await house.error("Made.Tool")
    assert (error.kind, error.code) == (Kind.REQUIREMENTS_NOT_MET, "no_route")
    assert house.seen == []


async def test_another_route_of_the_provider_may_be_used(house: House) -> None:
    put(house, made(one_call("GET", "/v1/people/me", route="google-people")))
    house.answer("GET", "/v1/people/me", {"name": "Alice"})
    assert await house.value("Made.Tool") == {"name": "Alice"}
    (record,) = await house.records("request")
    assert (record["route"], record["scopes"]) == ("google-people", [READ])


# --- what comes of failures


@pytest.mark.parametrize(
    ("reply", "kind", "can_retry", "pause"),
    [
        (Reply(400, {"m": "no"}), Kind.BAD_REQUEST, False, None),
        (Reply(403, {"m": "no"}), Kind.AUTH_ERROR, False, None),
        (Reply(404, {"m": "no"}), Kind.NOT_FOUND, False, None),
        (Reply(409, {"m": "no"}), Kind.VALIDATION_ERROR, False, None),
        (Reply(410, {"m": "no"}), Kind.NOT_FOUND, False, None),
        (Reply(412, {"m": "no"}), Kind.VALIDATION_ERROR, False, None),
        (Reply(422, {"m": "no"}), Kind.VALIDATION_ERROR, False, None),
        (Reply(418, {"m": "no"}), Kind.UNMAPPED, False, None),
        (Reply(304), Kind.UNMAPPED, False, None),
        (Reply(429, headers={"Retry-After": "7"}), Kind.RATE_LIMIT, True, 7000),
        (Reply(429), Kind.RATE_LIMIT, True, None),
        (Reply(429, headers={"Retry-After": "99999999"}), Kind.RATE_LIMIT, True, 86_400_000),
        (Reply(429, headers={"Retry-After": "soon"}), Kind.RATE_LIMIT, True, None),
        (Reply(429, headers={"Retry-After": "Mon, 01 Jan 2001 00:00:00 GMT"}), Kind.RATE_LIMIT, True, 0),
        (
            Reply(403, headers={"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "1"}),
            Kind.RATE_LIMIT,
            True,
            0,
        ),
        (
            Reply(403, {"error": {"errors": [{"reason": "userRateLimitExceeded"}]}}),
            Kind.RATE_LIMIT,
            True,
            None,
        ),
        (Reply(403, {"error": {"status": "RESOURCE_EXHAUSTED"}}), Kind.RATE_LIMIT, True, None),
        (Reply(403, [{"errorCode": "REQUEST_LIMIT_EXCEEDED"}]), Kind.RATE_LIMIT, True, None),
        (
            Reply(403, {"error": {"errors": ["odd", {"reason": 5}], "details": "odd"}}),
            Kind.AUTH_ERROR,
            False,
            None,
        ),
        (Reply(500), Kind.SERVER_ERROR, True, None),
        (Reply(503, headers={"Retry-After": "2"}), Kind.RATE_LIMIT, True, 2000),
        (Reply(502, body=b"<html>CANARY-body</html>"), Kind.SERVER_ERROR, True, None),
    ],
)
async def test_a_provider_s_failure(
    house: House, reply: Reply, kind: Kind, can_retry: bool, pause: int | None
) -> None:
    house.answer("GET", PATH, reply)
    error = await run_with(house, made(GET))
    assert (error.kind, error.can_retry, error.retry_after_ms) == (kind, can_retry, pause)
    assert error.status == reply.status
    assert "CANARY" not in repr(vars(error))
    assert '"m"' not in repr(vars(error))


@pytest.mark.parametrize("status", [500, 502, 504])
async def test_what_may_have_been_done_is_not_to_be_done_again(house: House, status: int) -> None:
    house.answer("POST", PATH, Reply(status))
    error = await run_with(house, made(POST, marks=WRITES))
    assert (error.kind, error.can_retry) == (Kind.SERVER_ERROR, False)
    assert "may have been done" in error.message
    error = await run_with(house, made(POST, marks=Marks(read_only=False, idempotent=True)))
    assert error.can_retry


async def test_a_grant_that_the_provider_does_not_accept(house: House) -> None:
    house.answer("GET", PATH, Reply(401, {"error": "CANARY-said"}))
    error = await run_with(house, made(GET))
    assert (error.kind, error.status) == (Kind.AUTH_ERROR, 401)


async def test_a_kit_reads_its_provider_s_words(house: House) -> None:
    def words(status: int, said: Json) -> str | None:
        return f"{status} {said['why']}" if isinstance(said, dict) else None

    def failure(answer: Answer) -> ToolError | None:
        return None if answer.json.get("ok") else ToolError(Kind.NOT_FOUND, "no such channel")

    kit = {"error_words": words, "read_failure": failure}
    house.answer(
        "GET", PATH, Reply(400, {"why": "bad\r\n\x00 " + "long " * 100}), {"ok": False}, {"ok": True}
    )
    error = await run_with(house, made(GET), **kit)
    assert error.message.startswith("Made says that the request is wrong: 400 bad long long")
    assert len(error.message) < 300
    assert error.message.isprintable()
    assert (await run_with(house, made(GET), **kit)).message == "no such channel"
    assert await run_with(house, made(GET), **kit) == {"ok": True}


async def test_a_page_for_people_is_no_answer(house: House) -> None:
    house.answer("GET", PATH, Reply(body=b"<html>Sign in</html>", headers={"Content-Type": "text/html"}))
    error = await run_with(house, made(GET))
    assert (error.kind, error.status) == (Kind.BAD_OUTPUT, 200)


async def test_an_upstream_that_breaks_off(house: House) -> None:
    async def break_off(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/json", "Content-Length": "100"})
        await response.prepare(request)
        await response.write(b'{"half":')
        assert request.transport is not None
        request.transport.close()
        return response

    house.upstream.raw[PATH] = break_off
    error = await run_with(house, made(GET))
    assert (error.kind, error.can_retry) == (Kind.UNREACHABLE, True)
    error = await run_with(house, made(POST, marks=WRITES))
    assert (error.kind, error.can_retry) == (Kind.UNREACHABLE, False)
    assert [one["code"] for one in await house.records("request")] == ["upstream_unreachable"] * 2


async def test_an_upstream_that_cannot_be_reached(house: House) -> None:
    port = free_port()
    config = house.app.config
    await house.app.take(replace(config, egress=replace(config.egress, allow=("127.0.0.1/32",))))
    await reconfigured(house, upstream=f"http://127.0.0.1:{port}")
    error = await run_with(house, made(POST, marks=WRITES))
    assert (error.kind, error.code) == (Kind.UNREACHABLE, "upstream_unreachable")


async def test_an_answer_over_the_limit_is_given_up(house: House) -> None:
    limits = replace(house.app.config.tools, max_answer=20_000)
    house.app.config = replace(house.app.config, tools=limits)
    big = json.dumps("x" * 30_000).encode()
    for reply in (
        Reply(body=big),
        Reply(body=gzip.compress(big), headers={"Content-Encoding": "gzip"}),
        web.json_response({"x": "y" * 30_000}),
    ):
        house.answer("GET", PATH, reply)
        error = await run_with(house, made(GET))
        assert error.kind is Kind.BAD_OUTPUT
    assert len(await house.records("request")) == 3


# --- consent


async def test_a_user_without_a_connection_gets_a_link(house: House) -> None:
    put(house, made(GET))
    outcome = await house.call("Made.Tool", "bob")
    error, authorization = outcome.error, outcome.authorization
    assert error is not None
    assert authorization is not None
    assert (error.kind, error.code) == (Kind.REQUIREMENTS_NOT_MET, "connection_required")
    assert error.connect_url == authorization.url
    assert error.hint is not None
    assert str(error.connect_url) in error.hint
    assert authorization.scopes == (READ,)


async def test_a_missing_scope_asks_for_the_union() -> None:
    async with House.running(scopes={"google": (f"{GMAIL}labels",)}) as house:
        put(house, made(GET, grant_scopes=(READ, f"{GMAIL}labels")))
        await reconfigured(house, scopes=(f"{GMAIL}send",))
        outcome = await house.call("Made.Tool")
        assert outcome.error is not None
        assert outcome.error.code == "scope_missing"
        assert outcome.authorization is not None
        assert set(outcome.authorization.scopes) == {READ, f"{GMAIL}labels", f"{GMAIL}send"}
        assert house.seen == []


async def test_what_a_tool_needs_is_enough_for_it() -> None:
    """Its route may say more, for requests of which nobody knows what they need."""
    async with House.running(scopes={"google": (READ,)}) as house:
        tool = made(GET)
        put(house, tool)
        house.answer("GET", PATH, {})
        await reconfigured(house, scopes=(READ, f"{GMAIL}send"))
        assert await house.value("Made.Tool") == {}
        control = house.app.control.tools
        assert (await control.authorize(CALLER, tool, "alice")).url is None
        (standing,) = await control.requirements(CALLER, [tool], "alice")
        assert (standing.met, standing.scopes) == (True, (READ,))
        put(house, made(GET, grant_scopes=()))
        outcome = await house.call("Made.Tool")
        assert outcome.error is not None, "a tool that says nothing needs what its route says"
        assert outcome.error.code == "scope_missing"


async def test_calls_that_lack_different_scopes_lead_to_one_link() -> None:
    seen = []
    async with House.running(scopes={"google": (READ,)}) as house:
        for scope in ("labels", "send", "labels"):
            put(house, made(GET, grant_scopes=(f"{GMAIL}{scope}",)))
            outcome = await house.call("Made.Tool")
            assert outcome.error is not None
            assert outcome.authorization is not None
            assert outcome.error.connect_url == outcome.authorization.url
            seen.append(outcome.authorization)
    assert {one.id for one in seen} == {seen[0].id}
    assert set(seen[-1].scopes) == {READ, f"{GMAIL}labels", f"{GMAIL}send"}


async def test_a_grant_that_has_ended_asks_for_another(house: House) -> None:
    put(house, made(GET))
    (connection,) = await house.app.vault.list(tenant="default", user="alice", provider="google")
    await house.app.control.connections.disconnect(CALLER, connection.id)
    outcome = await house.call("Made.Tool")
    assert outcome.error is not None
    assert outcome.error.code == "connection_required"
    assert outcome.authorization is not None
    assert outcome.authorization.url


async def test_what_a_tool_needs_and_how_it_stands(house: House) -> None:
    tool = made(GET)
    put(house, tool)
    tools = house.app.control.tools
    (unknown,) = await tools.requirements(CALLER, [tool])
    assert (unknown.provider, unknown.scopes, unknown.ready, unknown.met) == ("google", (READ,), True, None)
    (standing,) = await tools.requirements(CALLER, [tool], "alice")
    assert (standing.met, standing.token_status, standing.reason) == (True, "completed", None)
    (missing,) = await tools.requirements(CALLER, [tool], "bob")
    assert (missing.met, missing.token_status) == (False, "not_started")
    (short,) = await tools.requirements(CALLER, [replace(tool, grant_scopes=("more",))], "alice")
    assert (short.met, short.reason) == (False, "scope_missing")
    with pytest.raises(UserNotAllowed):
        await tools.requirements(replace(CALLER, may_act_for=("bob",)), [tool], "alice")


# --- who may


BOUND = replace(CALLER, may_act_for=("bob",), bound_user="bob")


async def test_a_caller_speaks_for_its_own_user_only(house: House) -> None:
    put(house, made(GET))
    house.answer("GET", PATH, {})
    for user, refusal in (("alice", UserNotAllowed), ("bob ", UserMissing), ("", None)):
        if refusal is not None:
            with pytest.raises(refusal):
                await house.call("Made.Tool", user, BOUND)
        else:
            outcome = await house.call("Made.Tool", user, BOUND)
            assert outcome.user == "bob"
    with pytest.raises(UserMissing):
        await house.call("Made.Tool", None)
    with pytest.raises(BadRequest):
        await house.call("Made.Tool", "alice", _account="a\nb")
    assert house.seen == []
    refused = [one for one in await house.records("tool.call") if one["outcome"] == "refused"]
    assert [one["code"] for one in refused] == [
        "user_not_allowed",
        "user_missing",
        "user_missing",
        "bad_request",
    ]


@pytest.mark.parametrize(
    ("patterns", "may"),
    [
        (None, True),
        ((), False),
        (("*",), True),
        (("Made.*",), True),
        (("made.tool",), False),
        (("Gmail.*",), False),
        (("read_only",), True),
        (("Made.*:write",), False),
        (("Ma*",), False),
    ],
)
async def test_a_caller_has_the_tools_that_its_credential_names(
    house: House, patterns: tuple[str, ...] | None, may: bool
) -> None:
    put(house, made(GET))
    caller = replace(CALLER, tools=patterns, routes=() if patterns is not None else None)
    tools = house.app.control.tools
    assert ("Made.Tool" in [one.qualified_name for one in tools.list(caller)]) is may
    house.answer("GET", PATH, {"ok": True})
    if may:
        assert (await house.call("Made.Tool", _caller=caller)).value == {"ok": True}
    else:
        with pytest.raises(NotFound):
            tools.get(caller, "Made.Tool")


async def test_a_caller_of_other_routes_has_no_tools_of_this_one(house: House) -> None:
    found = house.app.control.tools.list(replace(CALLER, routes=("slack",)))
    assert {tool.toolkit for tool in found} == {"Slack"}


async def test_tools_of_routes_that_are_not_configured_are_not_offered(house: House) -> None:
    config = house.app.config
    await house.app.take(replace(config, routes={"slack": config.routes["slack"]}))
    tools = house.app.control.tools
    assert {tool.toolkit for tool in tools.list(CALLER)} == {"Slack"}
    with pytest.raises(NotFound, match="route is not configured"):
        tools.get(CALLER, "Gmail.ListEmails")
    house.app.config = replace(house.app.config, tools=Tools(enabled=False))
    assert list(tools.list(CALLER)) == []


@pytest.mark.parametrize(
    ("name", "version", "found"),
    [
        ("Gmail.ListEmails", None, True),
        ("Gmail.ListEmails@8.9.1", None, True),
        ("Gmail.ListEmails", "8.0.0", True),
        ("Gmail.ListEmails@2.0.0", None, False),
        ("Gmail.ListEmails", "9", False),
        ("Google.SendEmail", None, True),
        ("x" * 10_000, None, False),
        ("Gmail.ListEmails\x00", None, False),
        ("Gmail.ListEmails/../Slack.SendMessage", None, False),
    ],
)
async def test_names_and_versions(house: House, name: str, version: str | None, found: bool) -> None:
    tools = house.app.control.tools
    if found:
        assert tools.get(CALLER, name, version).toolkit == "Gmail"
    else:
        with pytest.raises(NotFound) as refused:
            tools.get(CALLER, name, version)
        assert len(refused.value.title) < 200


# --- bounds


async def test_a_call_has_a_deadline(house: House) -> None:
    house.app.config = replace(house.app.config, tools=Tools(timeout=0.2))
    arrived = asyncio.Event()

    async def never(_request: web.BaseRequest) -> web.StreamResponse:
        arrived.set()
        await asyncio.Event().wait()
        raise AssertionError("never")

    house.upstream.raw[PATH] = never
    error = await run_with(house, made(GET))
    assert (error.kind, error.can_retry) == (Kind.TIMEOUT, True)
    error = await run_with(house, made(POST, marks=WRITES))
    assert (error.kind, error.can_retry) == (Kind.TIMEOUT, False)
    assert arrived.is_set()
    assert [one["code"] for one in await house.records("request")] == ["client_closed"] * 2


async def test_a_tool_that_never_stops_asking_is_stopped(house: House) -> None:
    async def run(call: Call) -> Json:
        while True:
            await call.api.call("GET", PATH)

    house.answer("GET", PATH, {})
    error = await run_with(house, made(run))
    assert error.kind is Kind.FATAL
    assert len(house.seen) == 200


async def test_calls_at_once_are_bounded(house: House) -> None:
    house.app.config = replace(house.app.config, tools=Tools(max_calls=1))
    going, done = asyncio.Event(), asyncio.Event()

    async def run(_call: Call) -> Json:
        going.set()
        await done.wait()
        return "done"

    put(house, made(run))
    first = asyncio.create_task(house.call("Made.Tool"))
    await going.wait()
    with pytest.raises(Overloaded):
        await house.call("Made.Tool")
    done.set()
    assert (await first).value == "done"
    assert (await house.call("Made.Tool")).value == "done"


@pytest.mark.parametrize(
    "value",
    [
        {str(n): {} for n in range(60_000)},
        {"rows": [{"text": "ü" * 500, "id": n} for n in range(1000)]},
        ["x" * 90_000] * 30,
        "y" * 10**6,
    ],
)
async def test_a_long_result_is_cut_and_says_so(house: House, value: Json) -> None:
    async def run(_call: Call) -> Json:
        return value

    put(house, made(run))
    found = await house.value("Made.Tool")
    assert len(json.dumps(found, ensure_ascii=False).encode()) <= house.app.config.tools.max_output
    assert "cut" in found["truncated"]


def deep(levels: int) -> Json:
    found: Json = "x"
    for _ in range(levels):
        found = [found]
    return found


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (deep(100_000), Kind.BAD_OUTPUT),
        ({"x": object()}, Kind.BAD_OUTPUT),
        ({"x": float("nan")}, Kind.BAD_OUTPUT),
        (b"bytes", Kind.BAD_OUTPUT),
    ],
)
async def test_a_result_that_is_none(house: House, value: Json, kind: Kind) -> None:
    async def run(_call: Call) -> Json:
        return value

    assert (await run_with(house, made(run))).kind is kind


async def test_a_tool_s_own_fault_is_told_as_one(house: House, capfd: pytest.CaptureFixture[str]) -> None:
    async def run(call: Call) -> Json:
        await call.api.call("POST", PATH)
        raise KeyError("CANARY-mail of the user")

    house.answer("POST", PATH, {})
    put(house, made(run, marks=WRITES))
    outcome = await house.call("Made.Tool")
    assert outcome.error is not None
    assert outcome.error.kind is Kind.FATAL
    assert "may have been done" in outcome.error.message
    assert outcome.id in str(outcome.error.developer_message)
    said = "".join(capfd.readouterr())
    assert "tool_fault" in said
    assert outcome.id in said
    assert "CANARY" not in said + repr(vars(outcome.error))
    (record,) = await house.records("tool.call")
    assert record["outcome"] == Kind.FATAL


# --- in the middle of it


async def test_a_call_that_is_cancelled_is_recorded(house: House) -> None:
    arrived = asyncio.Event()

    async def never(_request: web.BaseRequest) -> web.StreamResponse:
        arrived.set()
        await asyncio.Event().wait()
        raise AssertionError("never")

    house.upstream.raw[PATH] = never
    put(house, made(GET))
    task = asyncio.create_task(house.call("Made.Tool"))
    await arrived.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    (request,) = await house.records("request")
    (call,) = await house.records("tool.call")
    assert call["outcome"] == "cancelled"
    assert call["requests"] == [request["request_id"]]
    assert request["call"] == call["request_id"]
    assert house.app.trail._reserved == 0


async def test_a_reload_in_the_middle_is_heeded(house: House) -> None:
    async def run(call: Call) -> Json:
        await call.api.call("GET", PATH)
        config = house.app.config
        await house.app.take(replace(config, routes={"slack": config.routes["slack"]}))
        return (await call.api.call("GET", PATH)).json

    house.answer("GET", PATH, {})
    error = await run_with(house, made(run))
    assert (error.kind, error.code) == (Kind.REQUIREMENTS_NOT_MET, "no_route")
    assert len(house.seen) == 1
    (record,) = await house.records("tool.call")
    assert len(record["requests"]) == 1


# --- the record


async def test_a_call_and_its_requests_are_recorded(house: House) -> None:
    async def run(call: Call) -> Json:
        await call.api.call("GET", PATH, query={"q": "CANARY-query"})
        await call.api.call("GET", "/nothing/here")

    tool = made(run, parameters=(parameter("text"), parameter("other"), parameter("third")))
    put(house, tool)
    house.answer("GET", PATH, {})
    caller = replace(CALLER, agent="worker", session="ses_1")
    outcome = await house.call("Made.Tool", _caller=caller, text="CANARY-text", third="x")
    first, second = await house.records("request")
    (call,) = await house.records("tool.call")
    assert call["request_id"] == outcome.id
    assert call["requests"] == [first["request_id"], second["request_id"]] == list(outcome.requests)
    assert call["arguments"] == ["text", "third"]
    assert (call["outcome"], call["tool"], call["agent"], call["user"]) == (
        "UPSTREAM_RUNTIME_NOT_FOUND",
        "Made.Tool",
        "worker",
        "alice",
    )
    assert (call["provider"], call["route"], call["scopes"], call["session"]) == (
        "google",
        "gmail",
        [READ],
        "ses_1",
    )
    assert [one["status"] for one in (first, second)] == [200, 404]
    for one in (first, second):
        assert (one["via"], one["tool"], one["call"], one["scopes"]) == (
            "tool",
            "Made.Tool",
            outcome.id,
            [READ],
        )
        assert (one["agent"], one["user"], one["tenant"]) == ("worker", "alice", "default")
    assert "CANARY" not in json.dumps(await house.records())
    exposed = house.app.metrics.exposition({}).decode()
    assert 'authproxy_tool_calls_total{outcome="UPSTREAM_RUNTIME_NOT_FOUND",tool="Made.Tool"} 1.0' in exposed
    assert 'authproxy_requests_total{code="-",method="GET",route="gmail",status="404"} 1.0' in exposed


async def test_an_agent_s_own_requests_have_no_fields_of_tools(house: House) -> None:
    port = await house.app.listen_data(Address("127.0.0.1", 0))
    house.answer("GET", PATH, {})
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"http://127.0.0.1:{port}/gmail{PATH}", headers={"X-User-ID": "alice"}) as answer,
    ):
        assert answer.status == 200
    (record,) = await house.records("request")
    assert not {"tool", "call", "scopes"} & record.keys()


# --- gates


class Gate:
    """Decides as the test says."""

    def __init__(self, before: Callable[[Asked], Any], after: Callable[[Json], Json]) -> None:
        self._before = before
        self._after = after

    def offers(self, caller: Caller, tool: Tool) -> bool:
        return tool.name != "Hidden"

    async def before(self, asked: Asked) -> Any:
        return self._before(asked)

    async def after(self, asked: Asked, value: Json) -> Json:
        return self._after(value)


async def test_gates_decide_before_and_after(house: House) -> None:
    async def run(call: Call) -> Json:
        return {"got": dict(call.input), "secret": "x"}

    tool = made(run, parameters=(parameter("text"),))
    put(house, tool, replace(tool, name="Hidden"))
    seen: list[Asked] = []

    def allow(asked: Asked) -> Any:
        seen.append(asked)
        return {**asked.input, "text": asked.input["text"].upper()}

    tools = house.app.control.tools
    tools.gates = (
        Gate(allow, lambda value: {"got": value["got"]}),
        Gate(lambda asked: {**asked.input, "text": asked.input["text"] + "!"}, lambda value: value),
    )
    assert await house.value("Made.Tool", text="abc") == {"got": {"text": "ABC!"}}
    assert (seen[0].user, seen[0].tool.name, seen[0].caller.agent) == ("alice", "Tool", "kit")
    with pytest.raises(NotFound):
        await house.call("Made.Hidden", text="x")

    def refuse(_asked: Asked) -> Any:
        raise ToolError(Kind.REQUIREMENTS_NOT_MET, "not today", code="policy_denied")

    tools.gates = (Gate(refuse, lambda value: value),)
    assert (await house.error("Made.Tool", text="abc")).message == "not today"
    (*_, record) = await house.records("tool.call")
    assert (record["outcome"], record["code"]) == ("TOOL_REQUIREMENTS_NOT_MET", "policy_denied")
