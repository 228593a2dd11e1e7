"""tools/list and tools/call with the official client, in both generations of the protocol."""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any

import jsonschema
import pytest
from mcp import Client, MCPError, types

from authproxy.core.model import ApprovalStatus, Caller
from tests.mcp.conftest import GIVEN, LABELS, TOOL, Place, Start

BOTH = pytest.mark.parametrize("mode", ["auto", "legacy"])


async def every_tool(client: Client) -> list[types.Tool]:
    """All pages."""
    page = await client.list_tools()
    found = list(page.tools)
    while page.next_cursor is not None:
        page = await client.list_tools(cursor=page.next_cursor)
        found += page.tools
    return found


@pytest.mark.scenario("F11")
@BOTH
async def test_a_tool_is_called_on_the_walk(place: Place, mode: str) -> None:
    async with place.client(mode) as client:
        result = await client.call_tool(TOOL, GIVEN)
    assert not result.is_error, result
    assert result.structured_content["labels"][0]["name"] == "bug"
    assert json.loads(result.content[0].text) == result.structured_content
    assert [request.path for request in place.github.requests] == [LABELS]
    (call,) = await place.records("tool.call")
    assert (call["tool"], call["user"], call["agent"]) == ("Github.ListRepositoryLabels", "alice", "kit")
    (request,) = await place.records("request")
    assert request["call"] == call["request_id"]
    place.assert_clean(result, call, request)


@BOTH
async def test_tools_are_listed_with_their_marks_and_parameters(start: Start, mode: str) -> None:
    place = await start()
    async with place.client(mode) as client:
        tools = {tool.name: tool for tool in await every_tool(client)}
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{1,64}", name) for name in tools)
    assert list(tools) == sorted(tools)
    assert {name.partition("_")[0] for name in tools} == {
        "Github"
    }  # the only route; alice has not connected yet
    listed = tools[TOOL]
    assert listed.annotations is not None
    assert listed.annotations.model_dump(exclude_none=True) == {
        "title": "Github.ListRepositoryLabels",
        "read_only_hint": True,
        "destructive_hint": False,
        "idempotent_hint": True,
        "open_world_hint": True,
    }
    assert listed.input_schema["required"] == ["owner", "repo"]
    jsonschema.validate(GIVEN, listed.input_schema)
    for tool in tools.values():
        jsonschema.Draft202012Validator.check_schema(tool.input_schema)
        assert tool.description
        assert "?" not in (tool.description, *_words(tool.input_schema))


def _words(schema: dict[str, Any]) -> list[Any]:
    return [one.get("description") for one in schema["properties"].values()]


@BOTH
async def test_the_list_has_pages(start: Start, mode: str) -> None:
    place = await start()
    paged = await start(timing={"page": 7})
    async with place.client(mode) as client, paged.client(mode) as reader:
        first = await reader.list_tools()
        assert len(first.tools) == 7
        assert [tool.name for tool in await every_tool(reader)] == [
            tool.name for tool in await every_tool(client)
        ]
        with pytest.raises(MCPError, match="cursor"):
            await reader.list_tools(cursor="no cursor at all")


async def test_a_tool_is_known_by_every_spelling_of_its_name(place: Place) -> None:
    async with place.client() as client:
        for name in ("Github.ListRepositoryLabels", "github_listrepositorylabels", TOOL):
            assert not (await client.call_tool(name, GIVEN)).is_error, name


@BOTH
async def test_what_is_not_offered_does_not_exist(place: Place, mode: str) -> None:
    async with place.client(mode) as client:
        for name in ("Nothing_AtAll", "Slack_WhoAmI", "x" * 300):
            with pytest.raises(MCPError) as refused:
                await client.call_tool(name, {})
            assert refused.value.code == types.INVALID_PARAMS, name
    async with place.client(mode, query="?toolkit=Slack&toolkit=Gmail") as client:
        assert (await client.list_tools()).tools == []
        with pytest.raises(MCPError, match="toolkits"):
            await client.call_tool(TOOL, GIVEN)
    async with place.client(mode, query="?toolkit=github") as client:
        assert (await client.list_tools()).tools


@BOTH
async def test_what_the_rules_deny_is_not_listed(start: Start, mode: str) -> None:
    place = await start(tools={"rules": [{"tools": ["destructive", "write"], "effect": "deny"}, {}]})
    async with place.client(mode) as client:
        tools = (await client.list_tools()).tools
        assert tools
        assert all(tool.annotations and tool.annotations.read_only_hint for tool in tools)
        with pytest.raises(MCPError):
            await client.call_tool("Github_SetStarred", {"owner": "octo", "name": "cat"})


@BOTH
async def test_failures_are_told_to_the_model(place: Place, mode: str) -> None:
    place.github.status = 404
    async with place.client(mode) as client:
        missing = await client.call_tool(TOOL, GIVEN)
        wrong = await client.call_tool(TOOL, {"owner": "octo"})
    assert missing.is_error
    assert missing.structured_content["error"]["kind"] == "UPSTREAM_RUNTIME_NOT_FOUND"
    assert missing.structured_content["error"]["status_code"] == 404
    assert wrong.is_error
    assert "repo" in wrong.content[0].text
    assert "It takes owner" in wrong.content[0].text


@BOTH
async def test_a_call_that_somebody_must_approve_waits_for_them(start: Start, mode: str) -> None:
    rules = [{"tools": ["*"], "approve": "operator"}]
    place = await start(tools={"rules": rules}, timing={"beat": 0.02})
    hasty = await start(tools={"rules": rules}, timing={"wait": 0.01})
    operator = Caller("default", "operator", "cli", ("*",), operator=True)
    for one in (place, hasty):
        await one.connect("alice")

    async def decide(*_: object) -> None:
        for one in await place.app.control.approvals.list(operator, status=ApprovalStatus.PENDING):
            await place.app.control.approvals.decide(operator, one.id, approve=True, user=None)

    async with place.client(mode) as client:
        assert not (await client.call_tool(TOOL, GIVEN, progress_callback=decide)).is_error
    async with hasty.client(mode) as client:
        told = await client.call_tool(TOOL, GIVEN)
    assert told.is_error
    assert told.structured_content["error"]["extra"]["code"] == "approval_required"
    assert "Call it again with the very same arguments" in told.content[0].text
    assert hasty.github.requests == []


@BOTH
async def test_without_a_user_tools_can_be_read_and_not_called(place: Place, mode: str) -> None:
    async with place.client(mode, user=None) as client:
        assert (await client.list_tools()).tools
        result = await client.call_tool(TOOL, GIVEN)
    assert result.is_error
    assert "user" in result.content[0].text
    assert place.github.requests == []


@BOTH
async def test_half_a_character_does_not_break_the_answer(place: Place, mode: str) -> None:
    place.github.answer = [{"name": "bad \ud800 label", "color": "ff0000", "description": None}]
    async with place.client(mode) as client:
        result = await client.call_tool(TOOL, GIVEN)
    assert not result.is_error, result
    assert result.structured_content["labels"][0]["name"] == "bad \N{REPLACEMENT CHARACTER} label"


@BOTH
async def test_a_long_call_tells_that_it_goes_on(start: Start, mode: str) -> None:
    place = await start(timing={"beat": 0.02})
    await place.connect("alice")
    place.github.hold = asyncio.Event()
    beats: list[float] = []

    async def progress(value: float, _total: float | None, message: str | None) -> None:
        assert message is not None
        assert TOOL in message
        beats.append(value)
        if len(beats) == 3:
            assert place.github.hold is not None
            place.github.hold.set()

    async with place.client(mode) as client:
        result = await client.call_tool(TOOL, GIVEN, progress_callback=progress)
    assert not result.is_error
    assert beats[:3] == [1, 2, 3]


@BOTH
async def test_a_cancelled_call_ends_its_request_upstream(place: Place, mode: str) -> None:
    place.github.hold = asyncio.Event()
    async with place.client(mode) as client:
        call = asyncio.create_task(client.call_tool(TOOL, GIVEN))
        await place.github.came.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await asyncio.wait_for(place.github.gone.wait(), 10)
        place.github.hold.set()
        assert not (await client.call_tool(TOOL, GIVEN)).is_error
    outcomes = sorted(call["outcome"] for call in await place.records("tool.call"))
    assert outcomes == ["cancelled", "success"]


async def test_a_notification_of_its_own_session_cancels_a_call(place: Place) -> None:
    """The older generation: the connection of the call stays open, and is answered."""
    place.github.hold = asyncio.Event()
    _, opened, _ = await place.post(
        {
            "jsonrpc": "2.0",
            "id": 0,
            "method": "initialize",
            "params": {
                "protocolVersion": "2025-11-25",
                "capabilities": {},
                "clientInfo": {"name": "t", "version": "1"},
            },
        }
    )
    mine = {
        "X_User_ID": "alice",
        "Mcp_Session_Id": opened["mcp-session-id"],
        "MCP_Protocol_Version": "2025-11-25",
    }
    message = {
        "jsonrpc": "2.0",
        "id": 7,
        "method": "tools/call",
        "params": {"name": TOOL, "arguments": GIVEN},
    }
    call = asyncio.create_task(place.post(message, **mine))
    await place.github.came.wait()
    cancel = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 7}}
    # Neither another session's, nor another user's, nor another call's.
    for strange in ({**mine, "Mcp_Session_Id": "aps1.p.x"}, {**mine, "X_User_ID": "bob"}):
        assert (await place.post(cancel, **strange))[0] == 202
    assert (await place.post({**cancel, "params": {"requestId": 8}}, **mine))[0] == 202
    assert (await place.post({**cancel, "params": {"requestId": ["x"]}}, **mine))[0] == 202
    assert not call.done()
    assert (await place.post(cancel, **mine))[0] == 202
    status, _, told = await call
    assert (status, told["error"]["code"]) == (200, -32800)
    await asyncio.wait_for(place.github.gone.wait(), 10)


@BOTH
async def test_many_clients_at_once_are_each_their_own(start: Start, mode: str) -> None:
    place = await start()
    for user in ("alice", "bob"):
        await place.connect(user)

    async def one(number: int) -> None:
        async with place.client(mode, user=("alice", "bob")[number % 2]) as client:
            for _ in range(3):
                assert not (await client.call_tool(TOOL, GIVEN)).is_error

    await asyncio.gather(*(one(number) for number in range(6)))
    used = [request.headers["Authorization"].split()[1] for request in place.github.requests]
    alice, bob = (grant.access[-1] for grant in place.provider.grants)
    assert (used.count(alice), used.count(bob)) == (9, 9)
    calls = await place.records("tool.call")
    assert sorted({call["user"] for call in calls}) == ["alice", "bob"]


@pytest.mark.parametrize("version", ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"])
async def test_every_older_revision_is_spoken(place: Place, version: str) -> None:
    hello = {"protocolVersion": version, "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}
    _, fields, said = await place.post(
        {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": hello}, X_User_ID="alice"
    )
    assert said["result"]["protocolVersion"] == version
    assert said["result"]["serverInfo"]["name"] == "authproxy"
    assert "authorization_url" in said["result"]["instructions"]
    mine = {"X_User_ID": "alice", "Mcp_Session_Id": fields["mcp-session-id"], "MCP_Protocol_Version": version}
    call = {"name": TOOL, "arguments": GIVEN}
    _, _, said = await place.post({"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": call}, **mine)
    assert "bug" in said["result"]["content"][0]["text"]
    _, _, said = await place.post({"jsonrpc": "2.0", "id": 3, "method": "tools/list"}, **mine)
    assert said["result"]["tools"]


async def test_a_server_of_the_sdks_that_has_died_is_made_anew(place: Place) -> None:
    async with place.client() as client:
        assert not (await client.call_tool(TOOL, GIVEN)).is_error
        assert place.mcp is not None
        assert place.mcp._running is not None
        place.mcp._running.cancel()
        assert not (await client.call_tool(TOOL, GIVEN)).is_error
