"""/mcp of a real `serve`: replicas, ends, and what it says of it all."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from mcp import types

from tests.kit.canaries import hits
from tests.kit.process import Proxy
from tests.kit.provider import Provider
from tests.mcp.conftest import GIVEN, TOOL, GitHub, Place, Start, configured

URLS = {"elicitation": {"url": {}}}


@contextlib.asynccontextmanager
async def served(directory: Path, provider: Provider, github: GitHub, **more: Any) -> AsyncIterator[Place]:
    """A process; of a Place only what is outside of it."""
    proxy = Proxy(directory, configured(provider, github, more))
    await asyncio.to_thread(proxy.start)
    try:
        yield Place(app=None, mcp=None, port=proxy.control, provider=provider, github=github, proxy=proxy)
    finally:
        await asyncio.to_thread(proxy.stop)
        assert not hits(provider.secrets, {"its words": proxy.words().encode()})
        assert "Traceback" not in proxy.words()


@pytest.fixture
async def github(provider: Provider) -> AsyncIterator[GitHub]:
    github = GitHub(provider)
    async with github.running():
        yield github


async def test_one_replica_goes_on_where_another_began(
    tmp_path: Path, provider: Provider, github: GitHub
) -> None:
    async with served(tmp_path, provider, github) as one, served(tmp_path, provider, github) as other:
        _, fields, said = await one.post(
            {
                "jsonrpc": "2.0",
                "id": 0,
                "method": "initialize",
                "params": {
                    "protocolVersion": "2025-11-25",
                    "capabilities": URLS,
                    "clientInfo": {"name": "t", "version": "1"},
                },
            },
            X_User_ID="alice",
        )
        assert said["result"]["protocolVersion"] == "2025-11-25"
        mine = {
            "X_User_ID": "alice",
            "Mcp_Session_Id": fields["mcp-session-id"],
            "MCP_Protocol_Version": "2025-11-25",
        }
        assert (await other.post({"jsonrpc": "2.0", "method": "notifications/initialized"}, **mine))[0] == 202
        call = {"jsonrpc": "2.0", "id": 1, "method": "tools/call"}
        call["params"] = {"name": TOOL, "arguments": GIVEN}
        _, _, told = await other.post(call, **mine)
        assert told["error"]["code"] == types.URL_ELICITATION_REQUIRED  # it knows what the client can show
        await one.consent(told["error"]["data"]["elicitations"][0]["url"])
        _, _, done = await one.post(call, **mine)
        assert done["result"]["isError"] is False


async def test_calls_have_the_time_of_the_listener_and_are_then_told_the_end(
    tmp_path: Path, provider: Provider, github: GitHub
) -> None:
    async with served(tmp_path, provider, github, timeouts={"shutdown": 1.0}) as place:
        assert place.proxy is not None
        await asyncio.to_thread(place.proxy.connect, "alice", "github")
        github.hold = asyncio.Event()
        async with place.client("auto") as newer, place.client("legacy") as older:
            calls = [asyncio.create_task(client.call_tool(TOOL, GIVEN)) for client in (newer, older)]
            while len(github.requests) < 2:
                await github.came.wait()
                github.came.clear()
            place.proxy.process.send_signal(signal.SIGTERM)
            for told in await asyncio.gather(*calls):
                assert told.is_error
                assert "was stopped before the call had ended" in told.content[0].text
        assert await asyncio.to_thread(place.proxy.process.wait, 10) == 0
    records = await asyncio.to_thread(place.proxy.run, "audit", "query", "--kind", "tool.call", "--json")
    assert {json.loads(line)["outcome"] for line in records.stdout.splitlines()} == {"cancelled"}


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_a_call_that_ends_in_time_is_answered(start: Start, mode: str) -> None:
    place = await start()
    await place.connect("alice")
    place.github.hold = asyncio.Event()
    async with place.client(mode) as client:
        await client.list_tools()  # else it would look for the tool's output schema afterwards
        call = asyncio.create_task(client.call_tool(TOOL, GIVEN))
        await place.github.came.wait()
        ending = asyncio.create_task(place.app.close())
        place.github.hold.set()
        assert not (await call).is_error
    await ending


async def test_nobody_is_waited_for_at_the_end(start: Start) -> None:
    place = await start(timing={"beat": 0.02})
    waiting = asyncio.Event()

    async def opens_nothing(_context: Any, _params: Any) -> types.ElicitResult:
        return types.ElicitResult(action="accept")

    async def progress(*_: object) -> None:
        waiting.set()

    async with place.client("auto", elicitation_callback=opens_nothing) as client:
        call = asyncio.create_task(client.call_tool(TOOL, GIVEN, progress_callback=progress))
        await waiting.wait()
        ending = asyncio.create_task(place.app.close())
        told = await call
        assert told.is_error
        assert "not finished" in told.content[0].text
    await ending


async def test_what_the_sdk_says_is_told_by_its_place_alone(
    tmp_path: Path, provider: Provider, github: GitHub
) -> None:
    async with served(tmp_path, provider, github) as place:
        assert place.proxy is not None
        odd = {"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progress": "CANARY-said"}}
        for version in ("2025-11-25", "2026-07-28"):
            await place.post(odd, MCP_Protocol_Version=version)
            await place.post(b'{"CANARY-said"', MCP_Protocol_Version=version)
        await place.post(
            {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}, MCP_Protocol_Version="2025-11-25"
        )
        assert "CANARY-said" not in place.proxy.words()
        assert '"event": "mcp_sdk"' in place.proxy.words()
