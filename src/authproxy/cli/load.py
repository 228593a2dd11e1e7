"""A tiny upstream and a load generator on raw connections: measures a proxy with nothing but what is installed."""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from collections.abc import Callable
from typing import NamedTuple, cast

ANSWER = b'{"ok":true,"items":[1,2,3,4,5,6,7,8,9,10],"pad":"' + b"x" * 60 + b'"}'
_SMALL = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(ANSWER) + ANSWER
)
_EVENTS = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
_EVENT = b"data: tick\n\n"
_BEAT = 1.0
_PIECE = bytes(256 * 1024)
_END = b"\r\n\r\n"


class LoadFault(Exception):
    """An answer was not what a measurement may count."""


class Upstream(asyncio.Protocol):
    """One connection of an upstream that trusts its peer: `/events` streams, `/bytes/N` is large, all else is small.

    A request's body is read to its end before it is answered, as an API does.
    """

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._head = b""
        self._left = 0
        self._target = b"/"
        self._sending = 0
        self._paused = False
        self._beat: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if self._beat is not None:
            self._beat.cancel()

    def data_received(self, data: bytes) -> None:
        while data:
            if self._left:
                taken = min(self._left, len(data))
                self._left -= taken
                data = data[taken:]
            else:
                head, end, data = (self._head + data).partition(_END)
                if not end:
                    self._head = head
                    return
                self._head = b""
                self._target = head.split(b" ", 2)[1]
                self._left = _length_of(head)
            if not self._left:
                self._answer()

    def _answer(self) -> None:
        assert self._transport is not None
        if self._target.endswith(b"/events"):
            self._transport.write(_EVENTS)
            self._tick()
        elif b"/bytes/" in self._target:
            self._sending = int(self._target.rpartition(b"/")[2])
            head = b"HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: %d\r\n\r\n"
            self._transport.write(head % self._sending)
            self._send()
        else:
            self._transport.write(_SMALL)

    def _send(self) -> None:
        while self._sending and not self._paused and self._transport is not None:
            piece = _PIECE[: self._sending]
            self._sending -= len(piece)
            self._transport.write(piece)

    def _tick(self) -> None:
        if self._transport is not None:
            self._transport.write(b"%x\r\n%b\r\n" % (len(_EVENT), _EVENT))
            self._beat = asyncio.get_running_loop().call_later(_BEAT, self._tick)

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        self._send()


async def listen(tls: ssl.SSLContext | None = None, port: int = 0) -> tuple[asyncio.AbstractServer, int]:
    """An upstream on loopback, and its port."""
    server = await asyncio.get_running_loop().create_server(
        Upstream, "127.0.0.1", port, ssl=tls, backlog=1024
    )
    return server, server.sockets[0].getsockname()[1]


class Run(NamedTuple):
    """What a load saw: answers, over how many seconds, and each answer's time in seconds."""

    requests: int
    seconds: float
    times: list[float]

    def quantile(self, share: float) -> float:
        """The time within which that share of the answers came."""
        ordered = sorted(self.times)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


class _Lane(asyncio.Protocol):
    """One connection of the load: sends the request when told, and says when its answer is whole."""

    def __init__(self, request: bytes, done: Callable[[_Lane, float], None]) -> None:
        self._request = request
        self._done = done
        self._transport: asyncio.Transport | None = None
        self._began = 0.0
        self._data = b""
        self._left = -1
        self.fault: str | None = None
        self.waits = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if self.waits:
            self._fail("the connection was closed before the answer was whole")

    def ask(self) -> None:
        """Send the request."""
        if self._transport is None:
            self._fail("the connection was closed")
            return
        self.waits = True
        self._left = -1
        self._data = b""
        self._began = time.perf_counter()
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        if self._left < 0:
            head, end, data = (self._data + data).partition(_END)
            if not end:
                self._data = head
                return
            if not head.startswith(b"HTTP/1.1 200"):
                self._fail(f"the answer was {head[:15].decode('latin-1')}")
                return
            self._left = _length_of(head)
        self._left -= len(data)
        if self._left <= 0:
            self.waits = False
            self._done(self, time.perf_counter() - self._began)

    def close(self) -> None:
        self.waits = False
        if self._transport is not None:
            self._transport.abort()

    def _fail(self, fault: str) -> None:
        self.fault = fault
        self.waits = False
        self._done(self, 0.0)


async def keep_busy(
    port: int, request: bytes, *, connections: int, seconds: float, tls: ssl.SSLContext | None = None
) -> Run:
    """A closed loop: each connection asks again as soon as it is answered. Raises LoadFault."""
    times: list[float] = []
    ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    until = time.perf_counter() + seconds

    def done(lane: _Lane, took: float) -> None:
        if lane.fault is not None:
            _end(ended, lane.fault)
        elif time.perf_counter() < until:
            times.append(took)
            lane.ask()
        else:
            _end(ended, None)

    lanes = [await _connect(port, tls, request, done) for _ in range(connections)]
    began = time.perf_counter()
    until = began + seconds
    try:
        for lane in lanes:
            lane.ask()
        async with asyncio.timeout(seconds + 10):
            await ended
    finally:
        for lane in lanes:
            lane.close()
    return Run(len(times), time.perf_counter() - began, times)


async def keep_pace(
    port: int, request: bytes, *, rate: float, seconds: float, tls: ssl.SSLContext | None = None
) -> Run:
    """An open loop: a request every 1/rate seconds, however slow the answers are. Raises LoadFault.

    Each is timed from its own write, and never waits for another's answer: where all connections are busy, one
    more is opened.
    """
    times: list[float] = []
    free: list[_Lane] = []
    total = int(rate * seconds)
    ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def done(lane: _Lane, took: float) -> None:
        if lane.fault is not None:
            _end(ended, lane.fault)
            return
        times.append(took)
        free.append(lane)
        if len(times) == total:
            _end(ended, None)

    lanes = [await _connect(port, tls, request, done) for _ in range(8)]
    free += lanes
    loop = asyncio.get_running_loop()
    began = loop.time()
    try:
        for number in range(total):
            await asyncio.sleep(began + number / rate - loop.time())
            if ended.done():
                break
            if not free:
                lanes.append(await _connect(port, tls, request, done))
                free.append(lanes[-1])
            free.pop().ask()
        async with asyncio.timeout(10):
            await ended
    finally:
        for lane in lanes:
            lane.close()
    return Run(len(times), loop.time() - began, times)


def get(path: str, *fields: str) -> bytes:
    """A GET as bytes."""
    lines = [f"GET {path} HTTP/1.1", "Host: 127.0.0.1", *fields]
    return "\r\n".join(lines).encode() + _END


async def _connect(
    port: int, tls: ssl.SSLContext | None, request: bytes, done: Callable[[_Lane, float], None]
) -> _Lane:
    transport, lane = await asyncio.get_running_loop().create_connection(
        lambda: _Lane(request, done),
        "127.0.0.1",
        port,
        ssl=tls,
        server_hostname=None if tls is None else "localhost",
    )
    transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return lane


def _end(ended: asyncio.Future[None], fault: str | None) -> None:
    if not ended.done():
        if fault is None:
            ended.set_result(None)
        else:
            ended.set_exception(LoadFault(fault))


def _length_of(head: bytes) -> int:
    """Content-Length; 0 where there is none. Chunks are for `/events` alone, which no load waits for."""
    found = head.lower().partition(b"\r\ncontent-length:")[2]
    return int(found.partition(b"\r\n")[0] or 0)
