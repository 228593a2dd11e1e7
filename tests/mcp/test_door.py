"""The door of /mcp: who may come in, how much may be sent, and what is told otherwise."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
import textwrap
from typing import Any

import pytest

from authproxy.core.model import Caller
from authproxy.faces import mcp as door
from tests.mcp.conftest import GIVEN, TOOL, Place, Start

CALL = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": TOOL, "arguments": GIVEN}}
LIST = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
OLDER = {"MCP_Protocol_Version": "2025-11-25"}


def problem(answer: tuple[int, dict[str, str], Any]) -> tuple[int, str, str | None]:
    """Status, code and reason, of an answer that is one of ours and nothing else."""
    status, fields, said = answer
    assert fields["content-type"].startswith("application/problem+json"), answer
    assert fields["x-authproxy-error"] == said["code"]
    assert fields["x-request-id"] == said["request_id"]
    return status, said["code"], said["reason"]


async def test_who_shows_no_key_or_a_bad_one_is_refused_as_everywhere(start: Start) -> None:
    place = await start(identity={"callers": [{"kind": "api_key"}]})
    key = await place.agent("alice")
    for fields in ({}, {"Authorization": "Bearer apx_wrong"}, {"X_Authproxy_Key": "nothing"}):
        answer = await place.post(LIST, **OLDER, **fields)
        assert problem(answer)[:2] == (401, "caller_unknown"), fields
        assert answer[1]["www-authenticate"] == 'Bearer realm="authproxy"'
    for fields in (
        {"Authorization": f"Bearer {key}"},
        {"X_Authproxy_Key": key},
        {"Authorization": key},
    ):
        status, answered, said = await place.post(LIST, **OLDER, **fields)
        assert (status, bool(said["result"]["tools"])) == (200, True)
        assert answered["x-request-id"]
        assert answered["server"] == "authproxy"
        assert answered["x-content-type-options"] == "nosniff"
    place.assert_clean()
    assert not any(key.encode() in said for said in place.said)


@pytest.mark.scenario("I05")
async def test_the_user_is_one_whom_the_caller_may_act_for(start: Start) -> None:
    place = await start()
    key = await place.agent("alice")
    mine = {**OLDER, "Authorization": f"Bearer {key}"}
    assert problem(await place.post(LIST, **mine, X_User_ID="bob"))[:2] == (403, "user_not_allowed")
    assert problem(await place.post(LIST, **mine, X_User_ID="a,b"))[:2] == (400, "user_missing")
    assert (await place.post(LIST, **mine, X_User_ID="alice"))[0] == 200


async def test_the_users_header_has_the_configured_name(start: Start) -> None:
    place = await start(identity={"user_header": "X-Person", "callers": [{"kind": "loopback"}]})
    await place.connect("alice")
    _, _, said = await place.post(CALL, **OLDER, X_Person="alice")
    assert said["result"]["isError"] is False
    _, _, said = await place.post(CALL, **OLDER, X_User_ID="alice")
    assert said["result"]["isError"] is True


async def test_the_account_is_the_one_that_is_named(place: Place) -> None:
    _, _, said = await place.post(CALL, **OLDER, X_User_ID="alice", X_Authproxy_Account="work")
    told = said["result"]
    assert told["isError"] is True
    await place.consent(told["structuredContent"]["authorization_url"])
    _, _, said = await place.post(CALL, **OLDER, X_User_ID="alice", X_Authproxy_Account="work")
    assert said["result"]["isError"] is False
    used = place.github.requests[-1].headers["Authorization"].encode()
    assert used == place.provider.grants[1].bearer
    bad = await place.post(CALL, **OLDER, X_User_ID="alice", X_Authproxy_Account="a,b")
    assert problem(bad) == (400, "bad_request", "account")


async def test_a_session_is_bound_to_its_user_and_its_tools(start: Start) -> None:
    place = await start()
    await place.connect("alice")
    minter = Caller("default", "app", "loopback", ("*",), operator=True)
    made = await place.app.control.sessions.create(
        minter, agent="worker", user="alice", tools=("Github.List*",), ttl=600
    )
    async with place.client(user=None, key=made.key) as client:
        names = {tool.name for tool in (await client.list_tools()).tools}
        assert TOOL in names
        assert all(name.startswith("Github_List") for name in names)
        assert not (await client.call_tool(TOOL, GIVEN)).is_error
    mine = {**OLDER, "Authorization": f"Bearer {made.key}"}
    assert problem(await place.post(LIST, **mine, X_User_ID="bob"))[:2] == (403, "user_not_allowed")
    merge = {**CALL, "params": {"name": "Github_MergePullRequest", "arguments": {}}}
    assert (await place.post(merge, **mine))[2]["error"]["code"] == -32602


async def test_no_web_page_comes_in(start: Start) -> None:
    place = await start()
    own = place.url.removesuffix("/mcp")
    for fields in (
        {"Origin": "https://evil.example"},
        {"Origin": own},
        {"Origin": "null"},
        {"Sec_Fetch_Site": "cross-site"},
    ):
        assert problem(await place.post(LIST, **OLDER, **fields)) == (400, "bad_request", "browser_origin")
    form = {"Content_Type": "text/plain"}
    assert problem(await place.post(LIST, **OLDER, **form))[2] == "content_type"


async def test_names_that_can_be_rebound_are_refused_and_service_names_are_not(start: Start) -> None:
    place = await start(public_url="https://auth.example.com")
    key = await place.agent("alice")
    mine = {**OLDER, "Authorization": f"Bearer {key}"}
    assert problem(await place.post(LIST, **mine, Host="evil.example:8701"))[2] == "unknown_host"
    for host in (
        "authproxy",
        "authproxy:8701",
        "authproxy.agents.svc:8701",
        "auth.example.com",
        "10.0.0.7:1",
    ):
        assert (await place.post(LIST, **mine, Host=host))[0] == 200, host
    # Without a key only this machine's own names will do.
    assert problem(await place.post(LIST, **OLDER, Host="auth.example.com"))[:2] == (401, "caller_unknown")


async def test_there_is_nothing_to_get_and_nothing_to_delete(start: Start) -> None:
    place = await start()
    for method in ("GET", "DELETE", "PUT", "OPTIONS"):
        status, fields, _ = await place.post(b"", method=method, Mcp_Session_Id="aps1.u.x")
        assert (status, fields["allow"]) == (405, "POST"), method


async def test_what_is_no_message_is_told_in_the_protocols_words(start: Start) -> None:
    place = await start()
    deep = b'{"jsonrpc":"2.0","id":1,"method":"tools/list","params":' + b"[" * 20000
    newer = {"MCP_Protocol_Version": "2026-07-28"}
    for fields in (OLDER, newer, {}):
        for body in (
            b"",
            b"{",
            b"[]",
            b"null",
            b'{"jsonrpc":"2.0"}',
            deep,
            b"\xff\xfe",
            json.dumps([LIST] * 3),
        ):
            raw = body if isinstance(body, bytes) else body.encode()
            status, answered, said = await place.post(raw, **fields)
            assert 400 <= status < 500, (fields, raw[:80])
            assert answered["content-type"].startswith("application/json")
            assert said["error"]["code"] in (-32700, -32600, -32602), said
    status, _, said = await place.post({"jsonrpc": "2.0", "id": 1, "method": "no/such"}, **OLDER)
    assert (status, said["error"]["code"]) == (200, -32601)


async def test_messages_are_bounded_in_size(start: Start) -> None:
    place = await start(tools={"max_input": 2048})
    most = 2048 + 65536
    padded = json.dumps({**LIST, "params": {"_meta": {"x": ""}}}).encode()
    full = padded.replace(b'"x": ""', b'"x": "%s"' % (b"a" * (most - len(padded))))
    assert len(full) == most
    assert (await place.post(full, **OLDER))[0] == 200
    assert problem(await place.post(full + b" ", **OLDER))[:2] == (413, "body_too_large")

    def chunked() -> bytes:
        with socket.create_connection(("127.0.0.1", place.port), timeout=10) as sock:
            head = f"POST /mcp HTTP/1.1\r\nHost: 127.0.0.1:{place.port}\r\nContent-Type: application/json\r\n"
            sock.sendall(head.encode() + b"Transfer-Encoding: chunked\r\n\r\n")
            chunk = b"%x\r\n%s\r\n" % (4096, b"a" * 4096)
            for _ in range(most // 4096 + 2):
                sock.sendall(chunk)
            return sock.recv(4096)

    assert b" 413 " in await asyncio.to_thread(chunked)


async def test_messages_are_bounded_in_what_they_hold(place: Place) -> None:
    """Very many values cost fifty times their bytes; a long text that looks like them does not."""
    mine = {**OLDER, "X_User_ID": "alice"}
    many = {**CALL, "params": {"name": TOOL, "arguments": {"owner": [[]] * 200_000, "repo": "x"}}}
    assert problem(await place.post(many, **mine)) == (400, "bad_request", "values")
    text = {**CALL, "params": {"name": TOOL, "arguments": {"owner": '[{,"' * 200_000, "repo": "x"}}}
    status, _, said = await place.post(text, **mine)
    assert (status, said["result"]["isError"]) == (200, True)


async def test_a_message_that_drips_is_given_up(start: Start) -> None:
    place = await start(patience=0.2)

    def drip() -> bytes:
        with socket.create_connection(("127.0.0.1", place.port), timeout=10) as sock:
            head = f"POST /mcp HTTP/1.1\r\nHost: 127.0.0.1:{place.port}\r\nContent-Type: application/json\r\n"
            sock.sendall(head.encode() + b"Content-Length: 100\r\n\r\n{")
            return sock.recv(4096)

    answer = await asyncio.to_thread(drip)
    assert b" 408 " in answer
    assert b'"reason": "slow"' in answer


async def test_one_agent_cannot_hold_all_connections(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "MAX_REQUESTS", 2)
    place.github.hold = asyncio.Event()
    key = await place.agent()
    calls = [asyncio.create_task(place.post(CALL, **OLDER, X_User_ID="alice")) for _ in range(2)]
    while len(place.github.requests) < 2:
        await place.github.came.wait()
        place.github.came.clear()
    refused = await place.post(CALL, **OLDER, X_User_ID="alice")
    assert problem(refused) == (503, "overloaded", "calls")
    assert refused[1]["retry-after"]
    assert (await place.post(LIST, **OLDER, Authorization=f"Bearer {key}"))[0] == 200  # another agent
    place.github.hold.set()
    assert [answer[0] for answer in await asyncio.gather(*calls)] == [200, 200]
    assert (await place.post(LIST, **OLDER))[0] == 200


async def test_a_fault_of_ours_is_not_told(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(*_: object, **__: object) -> None:
        raise RuntimeError("a secret word")

    monkeypatch.setattr(place.app.control.tools, "execute", broken)
    for fields in (
        OLDER,
        {"MCP_Protocol_Version": "2026-07-28", "Mcp_Method": "tools/call", "Mcp_Name": TOOL},
    ):
        meta = {
            "io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientCapabilities": {},
        }
        call = {**CALL, "params": {**CALL["params"], "_meta": meta}}
        _, _, said = await place.post(call, **fields, X_User_ID="alice")
        assert said["error"] == {"code": -32603, "message": "authproxy failed; its log says how"}


def test_the_sdk_is_neither_needed_nor_loaded_until_it_is(tmp_path: Any) -> None:
    """A process of its own, in which the SDK is not there."""
    script = textwrap.dedent(
        """
        import asyncio, json, sys
        from http.client import HTTPConnection

        class Absent:
            def find_spec(self, name, path=None, target=None):
                if name.partition(".")[0] == "mcp":
                    raise ModuleNotFoundError(f"No module named {name!r}", name=name)

        async def main():
            from authproxy.app import Address, App
            from authproxy.core.strict import read

            text = json.dumps({"version": 1, "identity": {"callers": [{"kind": "loopback"}]}})
            config = read(text, file="routes.yaml", environ={}, read_file=str).config
            app = await App.open(
                config, store="sqlite:///:memory:", environ={"AUTHPROXY_KEYS": "A" * 43}, announce=print
            )
            async with app:
                await app.run()
                await app.listen_data(Address("127.0.0.1", 0))
                port = await app.listen_control(Address("127.0.0.1", 0))

                def ask(path, method):
                    connection = HTTPConnection("127.0.0.1", port, timeout=10)
                    connection.request(method, path, b"{}", {"Content-Type": "application/json"})
                    answer = connection.getresponse()
                    return answer.status, json.loads(answer.read())

                assert (await asyncio.to_thread(ask, "/readyz", "GET"))[0] == 200
                loaded = [name for name in sys.modules if name.partition(".")[0] in ("mcp", "starlette", "pydantic")]
                assert not loaded, loaded
                sys.meta_path.insert(0, Absent())
                print(json.dumps(await asyncio.to_thread(ask, "/mcp", "POST")))

        asyncio.run(main())
        """
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=50, check=False, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    status, said = json.loads(done.stdout.splitlines()[-1])
    assert (status, said["code"], said["reason"]) == (501, "not_found", "mcp_not_installed")
    assert "pip install 'authproxy[mcp]'" in said["title"]
