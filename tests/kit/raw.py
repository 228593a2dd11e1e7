"""Raw sockets for both sides of the proxy: bytes in, bytes out, nothing made tidy on the way."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Self

PATIENCE = 10.0  # seconds that a case waits for bytes before it calls the peer stuck


class Gone(Exception):
    """The peer closed before it had said what was awaited; `.seen` holds what it did say."""

    def __init__(self, seen: bytes) -> None:
        super().__init__(f"closed after {seen[:200]!r}")
        self.seen = seen


@dataclass(frozen=True)
class Head:
    """A start line and its field lines, as they stood on the wire."""

    raw: bytes
    start: bytes
    fields: tuple[tuple[bytes, bytes], ...]

    @classmethod
    def of(cls, raw: bytes) -> Head:
        start, *lines = raw.removesuffix(b"\r\n\r\n").split(b"\r\n")
        pairs = (line.partition(b":") for line in lines)
        return cls(raw, start, tuple((name, value.strip(b" \t")) for name, _, value in pairs))

    def all(self, name: bytes) -> list[bytes]:
        return [value for key, value in self.fields if key.lower() == name.lower()]

    def one(self, name: bytes) -> bytes | None:
        values = self.all(name)
        assert len(values) < 2, f"{name!r} stands {len(values)} times: {values!r}"
        return values[0] if values else None

    @property
    def names(self) -> list[bytes]:
        return [name.lower() for name, _ in self.fields]

    @property
    def status(self) -> int:
        return int(self.start.split(b" ")[1])

    @property
    def method(self) -> bytes:
        return self.start.split(b" ")[0]

    @property
    def target(self) -> bytes:
        return self.start.split(b" ")[1]


@dataclass
class Message:
    """A head with what followed it. `complete` says whether the framing was brought to its end."""

    head: Head
    body: bytes = b""
    complete: bool = True
    framing: str = "none"
    chunks: list[int] = field(default_factory=list)
    trailers: bytes = b""

    @property
    def status(self) -> int:
        return self.head.status


class Wire:
    """One TCP connection, seen as bytes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def dial(cls, port: int, *, buffer: int | None = None) -> Self:
        sock = socket.socket(proto=socket.IPPROTO_TCP)  # by which asyncio knows to switch Nagle off
        sock.setblocking(False)
        if buffer is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        try:
            await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
        except BaseException:
            sock.close()
            raise
        limit = 2**22 if buffer is None else buffer
        return cls(*await asyncio.open_connection(sock=sock, limit=limit))

    async def secure(self, tls: ssl.SSLContext, name: str | None) -> None:
        """TLS from here on, as its client."""
        await asyncio.wait_for(self.writer.start_tls(tls, server_hostname=name or ""), PATIENCE)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def send(self, *data: bytes) -> None:
        for piece in data:
            self.writer.write(piece)
        await asyncio.wait_for(self.writer.drain(), PATIENCE)

    async def exactly(self, size: int) -> bytes:
        try:
            return await asyncio.wait_for(self.reader.readexactly(size), PATIENCE)
        except asyncio.IncompleteReadError as error:
            raise Gone(error.partial) from None

    async def some(self) -> bytes:
        return await asyncio.wait_for(self.reader.read(65536), PATIENCE)

    async def line(self) -> bytes:
        return await self._until(b"\r\n")

    async def head(self) -> Head:
        return Head.of(await self._until(b"\r\n\r\n"))

    async def _until(self, mark: bytes) -> bytes:
        try:
            return await asyncio.wait_for(self.reader.readuntil(mark), PATIENCE)
        except asyncio.IncompleteReadError as error:
            raise Gone(error.partial) from None
        except ConnectionResetError:
            raise Gone(b"") from None

    async def rest(self) -> bytes:
        """All until the peer closes; a reset counts as a close."""
        seen = bytearray()
        try:
            while piece := await self.some():
                seen += piece
        except ConnectionError:
            pass
        return bytes(seen)

    async def request(self) -> Message:
        """The next request, its body read by its framing."""
        message = Message(await self.head())
        if message.head.one(b"transfer-encoding") is not None:
            await self._chunked(message)
        elif (length := message.head.one(b"content-length")) is not None:
            await self._counted(message, int(length))
        return message

    async def response(self, method: bytes = b"GET") -> Message:
        """The next final response, its body read by its framing (RFC 9112 6.3)."""
        head = await self.head()
        while 100 <= head.status < 200 and head.status != 101:
            head = await self.head()
        message = Message(head)
        if method == b"HEAD" or head.status in (101, 204, 304):
            return message
        if head.one(b"transfer-encoding") is not None:
            await self._chunked(message)
        elif (length := head.one(b"content-length")) is not None:
            await self._counted(message, int(length))
        else:
            message.framing, message.body = "close", await self.rest()
        return message

    async def _counted(self, message: Message, length: int) -> None:
        message.framing = "length"
        try:
            message.body = await self.exactly(length)
        except (Gone, ConnectionError) as error:
            message.body, message.complete = getattr(error, "seen", b""), False

    async def _chunked(self, message: Message) -> None:
        message.framing, message.complete = "chunked", False
        try:
            while True:
                size = int((await self.line()).removesuffix(b"\r\n").split(b";")[0], 16)
                if size == 0:
                    break
                message.chunks.append(size)
                message.body += await self.exactly(size)
                assert await self.exactly(2) == b"\r\n"
            while (line := await self.line()) != b"\r\n":
                message.trailers += line
            message.complete = True
        except Gone as error:
            message.body += error.seen
        except ConnectionError:
            pass

    def half_close(self) -> None:
        self.writer.write_eof()

    def reset(self) -> None:
        """RST instead of FIN."""
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    async def close(self) -> None:
        self.writer.close()
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            await self.writer.wait_closed()


async def until(true: Callable[[], bool], seconds: float = 5.0) -> None:
    """Waits for what another process or thread brings about and does not announce."""
    async with asyncio.timeout(seconds):
        while not true():  # noqa: ASYNC110 - there is nothing to be told by
            await asyncio.sleep(0.01)


Script = Callable[["Upstream", Wire], Awaitable[None]]


def reply(status: str = "200 OK", body: bytes = b"ok", *fields: str, keep: bool = False) -> bytes:
    """An ordinary answer. It closes unless told to keep, so that no case inherits another's connection."""
    lines = [
        f"HTTP/1.1 {status}",
        f"Content-Length: {len(body)}",
        *fields,
        *([] if keep else ["Connection: close"]),
    ]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


def answers(*replies: bytes) -> Script:
    """Reads a request, sends the next reply, over all connections in order; the last one repeats."""

    async def script(upstream: Upstream, wire: Wire) -> None:
        while True:
            try:
                message = await wire.request()
            except Gone:
                return
            answer = replies[min(len(upstream.requests), len(replies) - 1)]
            upstream.note(message)
            await wire.send(answer)
            if b"\r\nconnection: close\r\n" in answer.lower():
                return

    return script


class Upstream:
    """A scripted origin on a listening socket that was bound beforehand."""

    def __init__(self, sock: socket.socket, script: Script | Iterable[bytes] = ()) -> None:
        self._sock = sock
        self.script: Script = script if callable(script) else answers(*(tuple(script) or (reply(),)))
        self.requests: list[Message] = []
        self.wires: list[Wire] = []
        self._arrived: asyncio.Queue[Message] = asyncio.Queue()
        self._tasks: list[asyncio.Task[None]] = []

    def note(self, message: Message) -> None:
        self.requests.append(message)
        self._arrived.put_nowait(message)

    async def next(self) -> Message:
        """The next request that was noted and not yet asked for."""
        return await asyncio.wait_for(self._arrived.get(), PATIENCE)

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, sock=self._sock.dup(), limit=2**22)
        return self

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        wire = Wire(reader, writer)
        self.wires.append(wire)
        task = asyncio.current_task()
        assert task is not None
        self._tasks.append(task)
        try:
            await self.script(self, wire)
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            await wire.close()

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        for outcome in await asyncio.gather(*self._tasks, return_exceptions=True):
            if isinstance(outcome, Exception):
                raise outcome
