"""Messages of MCP's stdio transport, handed on to its Streamable HTTP transport and back; nothing is decided here."""

from __future__ import annotations

import asyncio
import base64
import json
import re
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, Self

import aiohttp

from authproxy.cli.console import complain

Message = dict[str, Any]

GRACE = 3.0
"""Seconds that calls under way are given once the client has closed its end."""
SILENCE = 120.0
"""Seconds without a byte of an answer: authproxy says something every fifteen."""
_VERSION_KEY = "io.modelcontextprotocol/protocolVersion"
_NAMED = {"tools/call": "name", "prompts/get": "name", "resources/read": "uri"}
_PLAIN = re.compile(r"[!-~](?:[ -~]*[!-~])?")
_PARSE_ERROR, _INVALID, _FAILED = -32700, -32600, -32000


class Bridge:
    """One client. `write` is given each message for it as one line, without its end; `unread` is called when it raises
    OSError: the client is gone."""

    def __init__(
        self,
        url: str,
        headers: Mapping[str, str],
        *,
        path: str | None,
        write: Callable[[bytes], None],
        unread: Callable[[], None],
    ) -> None:
        self._url = url
        self._path = path
        self._headers = {
            "Content-Type": "application/json",
            "Accept": "application/json, text/event-stream",
            **headers,
        }
        self._write = write
        self._unread = unread
        self._writing = asyncio.Lock()
        self._session: dict[str, str] = {}  # of the older generations: what `initialize` gave
        self._asked: dict[str | int, asyncio.Task[None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        connector = aiohttp.TCPConnector() if self._path is None else aiohttp.UnixConnector(self._path)
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=SILENCE)
        self._client = aiohttp.ClientSession(connector=connector, timeout=timeout)
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        await self._client.close()

    async def take(self, line: bytes) -> None:
        """One message of the client. Requests go on beside one another; `initialize` is waited for, since what comes
        after it needs what it gave."""
        if not line.strip():
            return
        try:
            message = json.loads(line)
        except (ValueError, RecursionError):
            await self._fail(None, _PARSE_ERROR, "This line is not JSON")
            return
        if not isinstance(message, dict):
            await self._fail(None, _INVALID, "Send one message a line, as a JSON object")
            return
        method, id_ = message.get("method"), message.get("id")
        if not isinstance(method, str):
            return  # an answer, and nothing was asked
        if id_ is None:
            self._notified(method, message)
            return
        if not isinstance(id_, str | int):
            await self._fail(None, _INVALID, "A request's id is a string or a number")
            return
        task = self._go(self._ask(message, method, id_))
        self._asked[id_] = task
        task.add_done_callback(lambda done: self._forget(id_, done))
        if method == "initialize":
            await asyncio.wait([task])

    async def drain(self) -> None:
        """Let what is under way end, for a moment."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=GRACE)

    def _notified(self, method: str, message: Message) -> None:
        params = message.get("params")
        if method == "notifications/cancelled" and isinstance(params, dict):
            id_ = params.get("requestId")
            if isinstance(id_, str | int) and (task := self._asked.get(id_)) is not None:
                task.cancel()  # closes its connection, and that ends the call
        elif self._session:
            _ = self._go(self._tell(message))

    def _go(self, work: Any) -> asyncio.Task[None]:
        task: asyncio.Task[None] = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _forget(self, id_: str | int, task: asyncio.Task[None]) -> None:
        if self._asked.get(id_) is task:
            del self._asked[id_]

    async def _tell(self, message: Message) -> None:
        try:
            async with self._post(message, self._session):
                pass
        except (aiohttp.ClientError, TimeoutError, OSError):
            return  # the next request says what is wrong

    async def _ask(self, message: Message, method: str, id_: str | int) -> None:
        try:
            async with self._post(message, self._fields(message, method)) as answer:
                await self._hand_back(answer, method, id_)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            words = "did not answer" if isinstance(error, TimeoutError) else "cannot be reached"
            text = f"authproxy {words} at {self._url.partition('?')[0]}: is `authproxy serve` running there?"
            complain(text)
            await self._fail(id_, _FAILED, text)

    def _post(self, message: Message, fields: Mapping[str, str]) -> Any:
        body = json.dumps(message, ensure_ascii=True, separators=(",", ":")).encode()
        return self._client.post(
            self._url, data=body, headers={**self._headers, **fields}, allow_redirects=False
        )

    def _fields(self, message: Message, method: str) -> dict[str, str]:
        """What HTTP wants to see in its head of a message: the newer generation's names, or the older one's session."""
        params = message.get("params")
        meta = params.get("_meta") if isinstance(params, dict) else None
        version = meta.get(_VERSION_KEY) if isinstance(meta, dict) else None
        if method == "initialize" or not isinstance(version, str):
            return {} if method == "initialize" else self._session
        fields = {"MCP-Protocol-Version": _field(version), "Mcp-Method": _field(method)}
        name = params.get(_NAMED.get(method, "")) if isinstance(params, dict) else None
        if isinstance(name, str):
            fields["Mcp-Name"] = _field(name)
        return fields

    async def _hand_back(self, answer: aiohttp.ClientResponse, method: str, id_: str | int) -> None:
        if answer.content_type == "text/event-stream" and answer.status == 200:
            async for message in _events(answer.content):
                self._note(answer, method, message)
                await self._say(message)
                if message.get("id") == id_ and "method" not in message:
                    return
            await self._fail(id_, _FAILED, "authproxy went away before the answer was whole")
            return
        try:
            said = json.loads(await answer.read())
        except (ValueError, RecursionError):
            said = None
        if isinstance(said, dict) and said.get("jsonrpc") == "2.0":
            self._note(answer, method, said)
            await self._say({**said, "id": id_})
            return
        title = said.get("title") if isinstance(said, dict) else None
        await self._fail(id_, _FAILED, str(title or f"authproxy answered {answer.status}"), data=said)

    def _note(self, answer: aiohttp.ClientResponse, method: str, message: Message) -> None:
        result = message.get("result")
        if method == "initialize" and isinstance(result, dict):
            version, session = result.get("protocolVersion"), answer.headers.get("Mcp-Session-Id")
            self._session = {"MCP-Protocol-Version": str(version)} if version else {}
            if session:
                self._session["Mcp-Session-Id"] = session

    async def _fail(self, id_: str | int | None, code: int, text: str, *, data: Any = None) -> None:
        error: Message = {"code": code, "message": text}
        if isinstance(data, dict):
            error["data"] = data
        await self._say({"jsonrpc": "2.0", "id": id_, "error": error})

    async def _say(self, message: Message) -> None:
        line = json.dumps(message, ensure_ascii=True, separators=(",", ":")).encode()
        async with self._writing:
            try:
                await asyncio.shield(asyncio.to_thread(self._write, line))
            except OSError:
                self._unread()


async def _events(content: aiohttp.StreamReader) -> AsyncIterator[Message]:
    """The messages of an event stream. Comments keep it open, and nothing else is sent in it."""
    data: list[str] = []
    async for line in _lines(content):
        if line.startswith("data:"):
            data.append(line[5:].removeprefix(" "))
        elif not line and data:
            message = json.loads("\n".join(data))
            data.clear()
            if isinstance(message, dict):
                yield message


async def _lines(content: aiohttp.StreamReader) -> AsyncIterator[str]:
    held = b""
    async for chunk in content.iter_any():
        *lines, held = (held + chunk).split(b"\n")
        for line in lines:
            yield line.rstrip(b"\r").decode()


def _field(value: str) -> str:
    """As the transport has it: what a header field cannot hold goes in base64."""
    if _PLAIN.fullmatch(value) and not value.startswith("=?base64?"):
        return value
    return f"=?base64?{base64.b64encode(value.encode('utf-8', 'replace')).decode()}?="
