"""An MCP server somewhere else, behind a route: an agent speaks to it through the data plane, with the user's token."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import uvicorn
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.server.auth.provider import AccessToken
from mcp.server.auth.settings import AuthSettings
from mcp.server.mcpserver import Context, MCPServer
from mcp.shared._httpx_utils import create_mcp_http_client

from authproxy.app import Address
from tests.kit.process import listener
from tests.kit.provider import Provider
from tests.mcp.conftest import Place, Start

BOTH = pytest.mark.parametrize("mode", ["auto", "legacy"])


@dataclass
class Remote:
    """The official SDK's server, behind bearer tokens of the kit's provider. `heads` are those of each request."""

    provider: Provider
    port: int = 0
    heads: list[dict[str, str]] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    stale: bool = False
    heard: asyncio.Event = field(default_factory=asyncio.Event)

    async def verify_token(self, token: str) -> AccessToken | None:
        """Only the newest token of a grant is good; `stale` refuses them all."""
        for grant in self.provider.grants:
            if not self.stale and grant.access and grant.access[-1] == token:
                return AccessToken(token=token, client_id="kit", scopes=["read"], subject="alice")
        self.refused.append(token)
        return None

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        sock = listener()
        self.port = sock.getsockname()[1]
        here = f"http://127.0.0.1:{self.port}"
        auth = AuthSettings(
            issuer_url=self.provider.url, resource_server_url=f"{here}/mcp", validate_token_resource=False
        )
        server = MCPServer("remote", token_verifier=self, auth=auth)

        @server.tool()
        async def count(to: int, ctx: Context) -> str:
            """Counts, and says so at each step; goes on after the first once that has been heard."""
            for step in range(to):
                await ctx.report_progress(step + 1, to)
                if to > 2:
                    await self.heard.wait()
            return f"counted to {to}"

        app = server.streamable_http_app(streamable_http_path="/mcp")

        async def noted(scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] == "http":
                head = {name.decode(): value.decode() for name, value in scope["headers"]}
                self.heads.append({":method": scope["method"], **head})
            await app(scope, receive, send)

        config = uvicorn.Config(noted, lifespan="on", log_config=None, log_level=logging.CRITICAL)
        uv = uvicorn.Server(config)
        uv.capture_signals = contextlib.nullcontext
        serving = asyncio.create_task(uv.serve(sockets=[sock]))
        try:
            yield
        finally:
            uv.should_exit = uv.force_exit = True
            await serving


@pytest.fixture
async def remote(provider: Provider) -> AsyncIterator[Remote]:
    remote = Remote(provider)
    async with remote.running():
        yield remote


async def behind(start: Start, remote: Remote) -> tuple[Place, str]:
    """A proxy with the remote server as route `docs`, and the URL that an agent uses."""
    place = await start(
        routes={
            "docs": {
                "upstream": f"http://127.0.0.1:{remote.port}",
                "provider": "github",
                "allow": [{"methods": ["GET", "POST", "DELETE"], "paths": ["/mcp"]}],
            }
        },
    )
    port = await place.app.listen_data(Address("127.0.0.1", 0))
    return place, f"http://127.0.0.1:{port}/docs/mcp"


@contextlib.asynccontextmanager
async def agent(url: str, mode: str, **more: Any) -> AsyncIterator[Client]:
    headers = {"X-User-ID": "alice", "Authorization": "Bearer whatever"}
    async with (
        create_mcp_http_client(headers=headers) as http,
        Client(streamable_http_client(url, http_client=http), mode=mode, **more) as client,
    ):
        yield client


@BOTH
async def test_an_agent_speaks_to_it_with_the_users_token(start: Start, remote: Remote, mode: str) -> None:
    place, url = await behind(start, remote)
    await place.connect("alice")
    steps: list[float] = []

    async def progress(step: float, *_: object) -> None:
        steps.append(step)
        remote.heard.set()  # had the stream been held back, this would be waited for in vain

    async with agent(url, mode) as client:
        assert [tool.name for tool in (await client.list_tools()).tools] == ["count"]
        result = await client.call_tool("count", {"to": 3}, progress_callback=progress)
        assert result.content[0].text == "counted to 3"
    assert steps == [1, 2, 3]
    (grant,) = place.provider.grants
    assert {head["authorization"].encode() for head in remote.heads} == {grant.bearer}
    assert not any("x-user-id" in head for head in remote.heads)
    if mode == "legacy":
        sessions = {head["mcp-session-id"] for head in remote.heads[1:]}
        assert len(sessions) == 1  # given by its answer, and brought back by every later request
        assert {head.get("mcp-protocol-version") for head in remote.heads[1:]} == {"2025-11-25"}
        assert {head[":method"] for head in remote.heads} == {"GET", "POST", "DELETE"}
    else:
        assert {head["mcp-protocol-version"] for head in remote.heads} == {"2026-07-28"}
        assert {head["mcp-method"] for head in remote.heads} >= {"tools/list", "tools/call"}
    requests = await place.records("request")
    assert {(one["route"], one["user"]) for one in requests} == {("docs", "alice")}
    place.assert_clean(result, requests)


@BOTH
async def test_a_token_that_ends_in_the_middle_is_renewed(start: Start, remote: Remote, mode: str) -> None:
    place, url = await behind(start, remote)
    await place.connect("alice")
    (grant,) = place.provider.grants
    async with agent(url, mode) as client:
        await client.list_tools()
        place.provider.issue(grant)  # the server knows a newer one, and no longer the one that is stored
        grant.refresh.pop()
        result = await client.call_tool("count", {"to": 2})
        assert not result.is_error
    assert remote.refused
    assert grant.asked == 1


async def test_a_401_that_no_refresh_cures_is_handed_on(start: Start, remote: Remote) -> None:
    place, url = await behind(start, remote)
    await place.connect("alice")
    remote.stale = True
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "ping"}).encode()
    headers = {
        "X-User-ID": "alice",
        "Accept": "application/json, text/event-stream",
        "Content-Type": "application/json",
        "Last-Event-ID": "7-of-9",
    }
    async with create_mcp_http_client(headers=headers) as http:
        answer = await http.post(url, content=body)
    assert answer.status_code == 401
    assert len(remote.refused) == 2  # refreshed and sent again, once
    # What the server says of itself reaches the agent as it is; authproxy is named nowhere in it.
    assert "resource_metadata=" in answer.headers["www-authenticate"]
    assert "x-authproxy-error" not in answer.headers
    assert [head["last-event-id"] for head in remote.heads] == ["7-of-9"] * 2


async def test_without_a_connection_the_agent_gets_a_link_and_no_oauth_of_the_servers(
    start: Start, remote: Remote
) -> None:
    _, url = await behind(start, remote)
    async with create_mcp_http_client(headers={"X-User-ID": "alice"}) as http:
        answer = await http.post(url, json={"jsonrpc": "2.0", "id": 1, "method": "ping"})
        elsewhere = await http.get(url.replace("/docs/mcp", "/docs/.well-known/oauth-protected-resource/mcp"))
    assert (answer.status_code, answer.json()["code"]) == (403, "connection_required")
    assert "www-authenticate" not in answer.headers
    assert elsewhere.json()["code"] == "policy_denied"
    assert remote.heads == []


async def test_a_session_of_the_older_generation_is_opened_listened_to_and_ended(
    start: Start, remote: Remote
) -> None:
    place, url = await behind(start, remote)
    await place.connect("alice")
    headers = {
        "X-User-ID": "alice",
        "Accept": "application/json, text/event-stream",
        "MCP-Protocol-Version": "2025-11-25",
    }
    hello = {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "initialize",
        "params": {
            "protocolVersion": "2025-11-25",
            "capabilities": {},
            "clientInfo": {"name": "t", "version": "1"},
        },
    }
    async with create_mcp_http_client(headers=headers) as http:
        opened = await http.post(url, json=hello)
        session = {"Mcp-Session-Id": opened.headers["mcp-session-id"]}
        async with http.stream(
            "GET", url, headers=session
        ) as stream:  # its head comes; nothing is ever said in it
            assert stream.status_code == 200
            assert stream.headers["content-type"].startswith("text/event-stream")
        ended = await http.delete(url, headers=session)
        assert ended.status_code == 200
        assert (await http.post(url, json={**hello, "method": "ping"}, headers=session)).status_code == 404
