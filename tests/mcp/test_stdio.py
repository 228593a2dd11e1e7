"""`authproxy mcp` as a desktop client starts it: a program that speaks MCP on its standard input and output."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest
from mcp import Client, MCPError, StdioServerParameters, types

from authproxy.cli import main
from tests.kit.ports import free_port
from tests.kit.process import BOOT
from tests.mcp.conftest import GIVEN, TOOL, Place, Start

BOTH = pytest.mark.parametrize("mode", ["auto", "legacy"])


def front(port: int, *words: str, **environ: str) -> StdioServerParameters:
    return StdioServerParameters(
        command=sys.executable,
        args=["-c", BOOT, "mcp", "--control", f"127.0.0.1:{port}", *words],
        env={"PATH": os.environ["PATH"], **environ},
    )


@BOTH
async def test_a_program_is_as_good_as_the_url(start: Start, mode: str) -> None:
    place = await start()
    key = await place.agent("alice")

    async def open_it(_context: Any, params: Any) -> types.ElicitResult:
        await place.consent(params.url)
        return types.ElicitResult(action="accept")

    params = front(place.port, "--user", "alice", AUTHPROXY_AGENT_KEY=key)
    async with Client(params, mode=mode, elicitation_callback=open_it) as client:
        assert TOOL in [tool.name for tool in (await client.list_tools()).tools]
        if mode == "legacy":
            with pytest.raises(MCPError) as told:
                await client.call_tool(TOOL, GIVEN)
            await place.consent(told.value.data["elicitations"][0]["url"])
        results = await asyncio.gather(*(client.call_tool(TOOL, GIVEN) for _ in range(5)))
        assert not any(result.is_error for result in results)
    (call, *_) = await place.records("tool.call")
    assert (call["agent"], call["user"]) == ("agent", "alice")


@BOTH
async def test_progress_and_cancellation_go_through(start: Start, mode: str) -> None:
    place = await start(timing={"beat": 0.02})
    await place.connect("alice")
    place.github.hold = asyncio.Event()
    beats = asyncio.Event()

    async def progress(*_: object) -> None:
        beats.set()

    async with Client(front(place.port, "--user", "alice"), mode=mode) as client:
        call = asyncio.create_task(client.call_tool(TOOL, GIVEN, progress_callback=progress))
        await beats.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await asyncio.wait_for(place.github.gone.wait(), 10)


@contextlib.asynccontextmanager
async def program(port: int, *words: str, **environ: str) -> AsyncIterator[asyncio.subprocess.Process]:
    params = front(port, *words, **environ)
    process = await asyncio.create_subprocess_exec(
        params.command, *params.args, env=params.env, stdin=-1, stdout=-1, stderr=-1
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def said(process: asyncio.subprocess.Process, *lines: str) -> tuple[list[Any], str]:
    """What it answers to these lines before it ends by itself."""
    out, err = await process.communicate("".join(f"{line}\n" for line in lines).encode())
    assert process.returncode == 0, err
    return [json.loads(line) for line in out.splitlines()], err.decode()


async def test_where_nothing_runs_it_says_so() -> None:
    port = free_port()
    async with program(port) as process:
        answers, err = await said(process, '{"jsonrpc":"2.0","id":"a","method":"ping"}')
    assert answers[0]["id"] == "a"
    assert "is `authproxy serve` running there?" in answers[0]["error"]["message"]
    assert f"127.0.0.1:{port}" in err


async def test_a_refusal_is_an_error_with_its_words(start: Start) -> None:
    place = await start(identity={"callers": [{"kind": "api_key"}]})
    async with program(place.port, AUTHPROXY_AGENT_KEY="apx_wrong") as process:
        answers, err = await said(process, '{"jsonrpc":"2.0","id":1,"method":"tools/list"}')
    assert answers[0]["error"]["data"]["code"] == "caller_unknown"
    assert "apx_wrong" not in json.dumps(answers) + err


async def test_what_is_no_message_is_answered_and_survived(start: Start) -> None:
    place = await start()
    async with program(place.port, "--toolkit", "Slack") as process:
        answers, _ = await said(
            process,
            "nonsense",
            "[1, 2]",
            "",
            '{"jsonrpc":"2.0","id":{},"method":"ping"}',
            '{"jsonrpc":"2.0","id":4,"result":{}}',
            '{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":[]}}',
            '{"jsonrpc":"2.0","id":5,"method":"tools/list"}',
        )
    codes = {answer["id"]: answer.get("error", {}).get("code") for answer in answers if answer["id"]}
    assert codes == {5: None}
    assert sorted(a["error"]["code"] for a in answers if a["id"] is None) == [-32700, -32600, -32600]
    (listed,) = (answer for answer in answers if answer["id"] == 5)
    assert listed["result"]["tools"] == []


async def test_it_ends_when_told_to(place: Place) -> None:
    place.github.hold = asyncio.Event()
    async with program(place.port, "--user", "alice") as process:
        assert process.stdin is not None
        call = {
            "jsonrpc": "2.0",
            "id": 1,
            "method": "tools/call",
            "params": {"name": TOOL, "arguments": GIVEN},
        }
        process.stdin.write(json.dumps(call).encode() + b"\n")
        await place.github.came.wait()
        process.terminate()
        assert await asyncio.wait_for(process.wait(), 10) == 0
        await asyncio.wait_for(place.github.gone.wait(), 10)


async def test_it_ends_when_nobody_reads_its_answers(start: Start) -> None:
    place = await start()
    reading, writing = os.pipe()
    os.close(reading)
    params = front(place.port)
    process = await asyncio.create_subprocess_exec(
        params.command, *params.args, env=params.env, stdin=-1, stdout=writing, stderr=-1
    )
    os.close(writing)
    assert process.stdin is not None
    process.stdin.write(b'{"jsonrpc":"2.0","id":1,"method":"tools/list"}\n')
    assert await asyncio.wait_for(process.wait(), 10) == 0
    _, err = await process.communicate()
    assert err == b""


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--control", "nowhere at all"], "write HOST:PORT"),
        (["--control", "http://user:word@host:1"], "write HOST:PORT"),
        (["--user", "a\nb"], "printable"),
        (["--user", "a", "--user-header", "X: Y"], "not the name of a header"),
    ],
)
def test_what_cannot_be_is_told(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["mcp", *words]) == 2
    assert said in capsys.readouterr().err


@BOTH
async def test_names_of_all_the_world_arrive_whole(start: Start, mode: str) -> None:
    place = await start()
    await place.connect("Zo\N{LATIN SMALL LETTER E WITH DIAERESIS} \N{SNOWMAN}")
    params = front(place.port, "--user", "Zo\N{LATIN SMALL LETTER E WITH DIAERESIS} \N{SNOWMAN}")
    async with Client(params, mode=mode) as client:
        assert not (await client.call_tool(TOOL, GIVEN)).is_error
