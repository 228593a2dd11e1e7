"""A transaction pooler in front of a PostgreSQL, as PgBouncer is with `pool_mode=transaction`, only harsher: each
transaction of a client runs on the server connection that has rested longest, so hardly two run on the same one."""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections import deque
from typing import Self

SSL_REQUEST, CANCEL_REQUEST = 80877103, 80877102


class Mouth:
    """One end's messages as they come; None: it has gone."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self.said: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._task = asyncio.create_task(self._listen(reader))

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        try:
            while True:
                self.said.put_nowait((await _message(reader))[1])
        except (ConnectionError, asyncio.IncompleteReadError):
            self.said.put_nowait(None)

    def close(self) -> None:
        self._task.cancel()


class Server:
    """One connection to the database, and for whom it was made."""

    def __init__(self, writer: asyncio.StreamWriter, mouth: Mouth, startup: bytes, target: int) -> None:
        self.writer = writer
        self.mouth = mouth
        self.startup = startup
        self.target = target
        self.told: list[bytes] = []

    @classmethod
    async def connect(cls, target: int, startup: bytes) -> Self:
        reader, writer = await asyncio.open_connection("127.0.0.1", target)
        writer.write(startup)
        told = []
        while True:
            kind, message = await _message(reader)
            if kind == b"E":
                raise ConnectionError(message)
            if kind == b"S":
                told.append(message)
            if kind == b"Z":
                server = cls(writer, Mouth(reader), startup, target)
                server.told = told
                return server

    def close(self) -> None:
        self.mouth.close()
        self.writer.close()


class Pooler:
    """Listens while it is entered. `target` may be changed at any time, as a failover would."""

    def __init__(self, target: int, *, servers: int = 3) -> None:
        self.target = target
        self.port = 0
        self.used: deque[Server] = deque(maxlen=10_000)
        self._idle: deque[Server] = deque()
        self._most = asyncio.Semaphore(servers)
        self._fewest = servers
        self._clients: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._listener = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._listener.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._listener.close()
        for client in self._clients:
            client.cancel()
        await asyncio.gather(*self._clients, return_exceptions=True)
        for server in self._idle:
            server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._clients.add(task)
        task.add_done_callback(self._clients.discard)
        try:
            # A client that goes away, or is sent away with the pooler, is no fault.
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
                await self._client(reader, writer)
        finally:
            writer.close()

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        startup = await _startup(reader, writer)
        if startup is None:
            return
        async with self._most:
            first = await self._server(startup)
            self._idle.append(first)
        writer.write(_packed(b"R", struct.pack("!I", 0)) + b"".join(first.told))
        writer.write(_packed(b"K", struct.pack("!II", 0, 0)) + _packed(b"Z", b"I"))
        client = Mouth(reader)
        try:
            while (message := await client.said.get()) is not None and message[:1] != b"X":
                async with self._most:
                    await self._transaction(client, writer, await self._server(startup), message)
        finally:
            client.close()

    async def _transaction(
        self, client: Mouth, writer: asyncio.StreamWriter, server: Server, message: bytes
    ) -> None:
        self.used.append(server)
        clean, pending = False, _asks(message)
        asked = asyncio.create_task(client.said.get())
        answered = asyncio.create_task(server.mouth.said.get())
        try:
            server.writer.write(message)
            while True:
                done, _ = await asyncio.wait({asked, answered}, return_when=asyncio.FIRST_COMPLETED)
                if answered in done:
                    answer = answered.result()
                    if answer is None:
                        raise ConnectionError
                    writer.write(answer)
                    pending -= answer[:1] == b"Z"
                    if not pending and answer[:1] == b"Z" and answer[-1:] == b"I":
                        clean = True
                        return
                    answered = asyncio.create_task(server.mouth.said.get())
                if asked in done:
                    said = asked.result()
                    if said is None or said[:1] == b"X":
                        raise ConnectionError
                    server.writer.write(said)
                    pending += _asks(said)
                    asked = asyncio.create_task(client.said.get())
        finally:
            asked.cancel()
            answered.cancel()
            if clean:
                self._idle.append(server)
            else:
                server.close()  # as PgBouncer does: the database then rolls back

    async def _server(self, startup: bytes) -> Server:
        for server in list(self._idle):
            if server.target != self.target:
                self._idle.remove(server)
                server.close()
            elif server.startup == startup and len(self._idle) >= self._fewest:
                self._idle.remove(server)
                return server
        return await Server.connect(self.target, startup)


async def _startup(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes | None:
    while True:
        head = await reader.readexactly(8)
        length, code = struct.unpack("!II", head)
        body = await reader.readexactly(length - 8)
        if code == SSL_REQUEST:
            writer.write(b"N")
            continue
        if code == CANCEL_REQUEST:
            return None
        return head + body


async def _message(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    head = await reader.readexactly(5)
    (length,) = struct.unpack("!I", head[1:])
    return head[:1], head + await reader.readexactly(length - 4)


def _packed(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("!I", len(body) + 4) + body


def _asks(message: bytes) -> int:
    """Whether the database will say `ready` after this."""
    return 1 if message[:1] in (b"Q", b"S") else 0
