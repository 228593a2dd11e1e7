"""A tunnel of bytes: what one side says the other hears, with back-pressure, half-closes and resets as they come."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Protocol

from authproxy.proxy.exchange import Origin, late, unreachable
from authproxy.proxy.server import Client
from authproxy.proxy.sockets import cut

_LINGER = 30.0  # seconds for which a peer may take the last bytes of a tunnel that has ended
_BUFFER = 256 * 1024  # bytes that wait for the other side before this one is paused


class End(Protocol):
    """One side of a tunnel."""

    async def read(self) -> bytes:
        """The next bytes; b"" when this side has said all."""
        ...

    async def write(self, data: bytes) -> None:
        """Say it to this side, as fast as it listens."""
        ...

    def finish(self) -> None:
        """Nothing more will be said to this side."""
        ...

    def abort(self) -> None:
        """The other side broke off, and so does this."""
        ...


class Line:
    """A socket as one side of a tunnel. `gone` is what it means that it broke."""

    def __init__(self, gone: Callable[[], Exception]) -> None:
        loop = asyncio.get_running_loop()
        self._gone = gone
        self._reader = asyncio.StreamReader(limit=_BUFFER, loop=loop)
        self.protocol = asyncio.StreamReaderProtocol(self._reader, loop=loop)
        self._transport: asyncio.Transport | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._client: Client | None = None  # whose socket it is, where it is an agent's

    @classmethod
    async def taken_over(cls, client: Client) -> Line:
        """An agent's connection, with what it has sent ahead."""
        await client.drain()
        transport, early = client.tunnel()
        line = cls(_agent_gone)
        line._client = client
        transport.set_protocol(line.protocol)
        line.protocol.connection_made(transport)
        line.connected(transport)
        if early:
            line._reader.feed_data(early)
        transport.resume_reading()
        return line

    def connected(self, transport: asyncio.Transport) -> None:
        """The socket is there."""
        self._transport = transport
        self._writer = asyncio.StreamWriter(
            transport, self.protocol, self._reader, asyncio.get_running_loop()
        )

    async def read(self) -> bytes:
        try:
            data = await self._reader.read(_BUFFER)
        except OSError:
            raise self._gone() from None
        if not data and self._client is not None and self._client.cut_off:
            raise self._gone()  # it said nothing of an end
        return data

    async def write(self, data: bytes) -> None:
        assert self._writer is not None
        if self._client is not None:
            if self._client.cut_off:
                raise self._gone()
            self._client.wrote += len(data)
        try:
            self._writer.write(data)
            await self._writer.drain()
        except OSError:
            raise self._gone() from None

    def finish(self) -> None:
        """Over TLS there is no half-close: the whole connection ends, with what was written before."""
        assert self._transport is not None
        with contextlib.suppress(OSError):
            if self._transport.is_closing():
                return
            if self._transport.can_write_eof():
                self._transport.write_eof()
            else:
                self._transport.close()

    def abort(self) -> None:
        """Close so that the peer sees a reset: nobody must take what broke off for what was meant."""
        if self._transport is not None:
            cut(self._transport)

    def close(self) -> None:
        """Let go, after what was written has gone out, if that is soon."""
        if self._transport is not None:
            if self._transport.get_write_buffer_size():
                asyncio.get_running_loop().call_later(_LINGER, self._transport.abort)
            self._transport.close()


def far_line(origin: Origin) -> Line:
    """The side of a tunnel that we dialled."""
    return Line(lambda: unreachable(origin, "reset"))


def _agent_gone() -> Exception:
    return ConnectionResetError("the agent is gone")


async def splice(
    agent: End,
    upstream: End,
    origin: Origin,
    *,
    idle: float,
    up: Callable[[int], None],
    down: Callable[[int], None],
) -> None:
    """Carry bytes both ways until both sides have said all. `up` and `down` are told how many went.

    `idle` seconds without a byte either way end it (0: never) in UpstreamTimeout. Raises ConnectionError where the
    agent broke off, a refusal where the upstream did; in all these cases both sides have been cut.
    """
    loop = asyncio.get_running_loop()
    heard = loop.time()

    async def carry(source: End, sink: End, count: Callable[[int], None]) -> None:
        nonlocal heard
        while data := await source.read():
            heard = loop.time()
            count(len(data))
            await sink.write(data)
            heard = loop.time()
        sink.finish()

    pumps = {
        loop.create_task(carry(agent, upstream, up)),
        loop.create_task(carry(upstream, agent, down)),
    }
    pending = pumps
    try:
        while pending:
            left = heard + idle - loop.time() if idle else None
            if left is not None and left <= 0:
                raise late(origin, "idle")
            done, pending = await asyncio.wait(pending, timeout=left, return_when=asyncio.FIRST_EXCEPTION)
            for pump in done:
                pump.result()
    except BaseException:
        agent.abort()
        upstream.abort()
        raise
    finally:
        for pump in pumps:
            pump.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)
