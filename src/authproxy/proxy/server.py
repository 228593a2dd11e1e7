"""The listener: aiohttp's low-level server and its C parser, speaking to the walk in bytes.

No application, router or middleware: each request becomes an `Incoming`, and the walk writes the answer to
the transport itself. What the parser refuses is answered here in the one shape of errors.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable
from math import inf
from typing import Any, Protocol, cast

import structlog
from aiohttp import http_parser, web
from aiohttp.http_exceptions import HttpProcessingError, LineTooLong
from aiohttp.web_protocol import ERROR as _UNREAD
from aiohttp.web_protocol import MAX_MSG_QUEUE_SIZE

from authproxy.core.config import Limits, Timeouts
from authproxy.core.errors import BadRequest, HeaderTooLarge, Overloaded, Refusal
from authproxy.proxy.limits import Crowd
from authproxy.proxy.place import MAIN, Place
from authproxy.proxy.sockets import cut, is_loopback, queued
from authproxy.proxy.trailers import Ends
from authproxy.proxy.turns import Turns

log = structlog.get_logger()


_READ_AHEAD = (
    256 * 1024
)  # of a body; as much as the loop reads at once, so that not every read pauses the agent

_UNHEARD = 2.0  # seconds in which a connection that is one too many may say what it is to be refused

_LAST = 5.0  # seconds for the last bytes of answers when the listener ends

_APART = 8  # requests of one read that are given to the parser one by one
_BODILESS = (
    b"GET ",
    b"HEAD ",
    b"OPTIONS ",
    b"DELETE ",
)  # as a rule: a part more costs time, and nothing else

HALF_CLOSED = 0.8
"""Seconds that a request under way is given after its agent has closed the sending half of the connection."""


class PureParser(RuntimeError):
    """aiohttp's C parser is missing: its Python parser is laxer, and nearly every smuggling bug was there."""


def demand_c_parser() -> None:
    """Refuse to listen on the pure-Python parser. Raises PureParser."""
    if (
        os.environ.get("AIOHTTP_NO_EXTENSIONS")
        or http_parser.HttpRequestParser is http_parser.HttpRequestParserPy
    ):
        raise PureParser(
            "aiohttp runs without its C extension; unset AIOHTTP_NO_EXTENSIONS and install aiohttp from a wheel"
        )


class Incoming:
    """One request as the listener hands it to the walk."""

    __slots__ = (
        "_task",
        "chunked",
        "client",
        "content",
        "fault",
        "fields",
        "method",
        "said",
        "target",
        "version",
    )

    def __init__(self, message: Any, content: Any, client: Client, fault: Refusal | None) -> None:
        self.client = client
        self.content = content
        self.fault = fault
        self.method: str = message.method
        self.target: bytes = message.path.encode("utf-8", "surrogateescape")
        self.fields: tuple[tuple[bytes, bytes], ...] = message.raw_headers
        self.version: tuple[int, int] = message.version
        self.chunked: bool = message.chunked
        self.said: Any = None  # what the walk has read in the fields
        self._task: asyncio.Task[None] | None = None

    @property
    def over(self) -> bool:
        """Whether all of it has come, and nothing of it can be taken for a part of the next."""
        over: bool = self.content.is_eof() and not (self.chunked and not self.client.ends.bare(self.content))
        return over

    def _finish(self) -> None:
        """Called by aiohttp where an upgrade was not made; there is nothing to clear."""

    def _cancel(self, exc: BaseException) -> None:
        """Called by aiohttp when the agent is gone: whoever reads the body must wake up."""
        if not self.content.is_eof():
            self.content.set_exception(exc)


class Sent:
    """Tells aiohttp that the answer has been written already, and whether the connection lives on."""

    __slots__ = ("keep_alive",)

    def __init__(self, keep_alive: bool) -> None:
        self.keep_alive = keep_alive

    async def prepare(self, _request: Any) -> None:
        """Nothing to prepare."""

    async def write_eof(self) -> None:
        """Nothing left to write."""


class Serves(Protocol):
    """What a listener needs of the walk."""

    def __call__(self, incoming: Incoming) -> Awaitable[Sent]: ...


class Client(Turns):
    """One agent's connection."""

    __slots__ = (
        "_flushed",
        "_head_since",
        "_head_size",
        "_line",
        "_listener",
        "_peer",
        "_progress_at",
        "_silent_since",
        "_tunnelling",
        "chunked",
        "content",
        "cut_off",
        "ending",
        "ends",
        "open_ended",
        "peer_is_local",
        "place",
        "said",
        "surplus",
        "wrote",
    )

    def __init__(self, manager: Listener, place: Place, **kwargs: Any) -> None:
        super().__init__(manager, **kwargs)
        self.place = place
        self._listener = manager
        self._head_since: float | None = None
        self._head_size = 0
        self._tunnelling: asyncio.Task[Any] | None = None
        self.content: Any = None  # the body of the request that was taken last
        self.chunked = False  # how it came
        self.ends = Ends()
        self.open_ended = False  # whether the answer under way has no end but the connection's
        self.peer_is_local = False
        self.surplus: str | None = None  # the limit by which this connection is one too many
        self.ending = "client_closed"  # what it means that the connection ends before an answer does
        self.cut_off = False  # whether it was us who ended it
        self.said: Any = None  # what the walk has read in the last request's fields
        self.wrote = 0
        self._line: asyncio.Transport | None = None  # the transport, also where it is being closed
        self._peer: str | None = None
        self._silent_since: float | None = None
        self._flushed = 0
        self._progress_at: float | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        peer = transport.get_extra_info("peername")
        # A Unix socket has no address; its file's mode says who may connect.
        self.peer_is_local = not isinstance(peer, tuple) or is_loopback(peer[0])
        self._peer = peer[0] if isinstance(peer, tuple) else None
        self._line = cast(asyncio.Transport, transport)
        self._silent_since = self._loop.time()
        surplus = self._listener.crowd.enter(self._peer)
        if self.place.tunnel is not None:
            return  # it was counted when it came, and is no other one inside
        if surplus == "closed":
            self._line.abort()
        else:
            self.surplus = surplus

    def connection_lost(self, exc: BaseException | None) -> None:
        self._uncount()
        super().connection_lost(exc)

    def _uncount(self) -> None:
        if self._line is not None:
            self._line = None
            self._listener.crowd.leave(self._peer)

    def data_received(self, data: bytes) -> None:
        # A head that cannot be read would take those before it along, if they came in one piece.
        for _ in range(_APART):
            begins = self._head_size or data.startswith(_BODILESS)
            end = data.find(b"\r\n\r\n") + 4 if begins else 0
            if end < 4 or end == len(data):
                break
            self._received(data[:end])
            data = data[end:]
        self._received(data)

    def _received(self, data: bytes) -> None:
        self._silent_since = None
        # Not by the current request, which there is none of for a turn of the loop after the message was taken: what
        # comes then is its body.
        head = not self._messages and (self.content is None or self.content.is_eof())
        waiting = len(self._messages)
        super().data_received(data)
        self.ends.passed(data, list(self._messages)[waiting:], full=len(self._messages) >= MAX_MSG_QUEUE_SIZE)
        if self._messages or not head:
            self._head_since, self._head_size = None, 0
            return
        # What did not complete a head is a head that trickles in.
        self._head_size += len(data)
        if self._head_size > self._listener.most_head:
            self.unread(HeaderTooLarge("the header section is over the limit, and goes on"))
        elif self._current_request is not None:
            self._head_since = None
        elif self._head_since is None and data:
            self._head_since = self._loop.time()

    def eof_received(self) -> bool | None:  # type: ignore[override] # asyncio takes an answer, aiohttp gives none
        """The agent says no more. It may be gone, or may have closed its half and wait for the answer (RFC 9112
        §9.6): the two look the same until something is written, so it gets a moment, and no further request."""
        over_tls = self.transport is None or self.transport.get_extra_info("sslcontext") is not None
        # Not by the current request, which aiohttp sets a turn of the loop after it has taken the message.
        idle = self._waiter is not None and not self._messages
        if over_tls or idle:
            return None
        self.close()
        self._loop.call_later(HALF_CLOSED, self._let_go)
        return True

    def _let_go(self) -> None:
        if self.transport is None or self.tunnelling:
            return
        if self.open_ended and self._current_request is not None:
            self.abort()  # an answer that is not whole must not end as one that is
        else:
            self.transport.close()

    def sweep(self, now: float, timeouts: Timeouts) -> None:
        """End what takes too long: a head that trickles in, a connection that never says anything, an agent that takes
        nothing of what is written to it."""
        line = self._line
        if line is None:
            return
        if self._silent_since is not None:
            patience = timeouts.keepalive if self.surplus is None else _UNHEARD
            if now - self._silent_since >= patience:
                line.abort()
            return
        if self._head_since is not None and self._current_request is None:
            if now - self._head_since > timeouts.header:
                self.abort()
        elif (waiting := line.get_write_buffer_size()) == 0:
            self._progress_at = None
        elif self._progress_at is None or self.wrote - waiting - queued(line) > self._flushed:
            # What went out, not what waits: that may be as much as before because as much was written.
            self._flushed, self._progress_at = self.wrote - waiting - queued(line), now
        elif timeouts.write and now - self._progress_at >= timeouts.write:
            self.ending, self.cut_off = "client_stalled", True
            cut(line)

    def end_soon(self, seconds: float) -> None:
        """Whoever has not taken the last bytes by then does not get them: from Python 3.12 on a server's end waits."""
        if self._line is not None:
            self._loop.call_later(seconds, self._line.abort)

    def write(self, data: bytes) -> None:
        """Hand bytes to the transport. Raises ConnectionResetError where the agent is gone."""
        if self.transport is None or self.cut_off:
            raise ConnectionResetError("the agent is gone")
        self.wrote += len(data)
        self.transport.write(data)

    async def drain(self) -> None:
        """Wait until the transport takes more bytes."""
        if self._paused:
            await self._drain_helper()

    def abort(self) -> None:
        """End the connection so that what was written cannot look complete."""
        if self.transport is None:
            return
        self.cut_off = True
        if self.open_ended or self.tunnelling:
            cut(self.transport)
        else:
            self.transport.abort()

    # Taking the connection over, for what is not HTTP any more.

    def tunnel(self) -> tuple[asyncio.Transport, bytes]:
        """The socket, for another protocol, and the bytes that came behind the request that asked for it. It does not
        read meanwhile, so that nothing comes to the wrong one.

        The request under way goes on until whoever took it is done, and then calls `leave`; a listener that shuts
        down ends it when all else has drained. Raises ConnectionResetError where the agent is gone.
        """
        if self.transport is None:
            raise ConnectionResetError("the agent is gone")
        self._tunnelling = asyncio.current_task()
        self.transport.pause_reading()
        early, self._message_tail = self._message_tail, b""
        return self.transport, early

    def leave(self) -> None:
        """The socket is nothing to this protocol any more: aiohttp's loop for it ends, and leaves it open."""
        self._uncount()
        self.transport = None
        self._force_close = True
        if self._keepalive_handle is not None:
            self._keepalive_handle.cancel()
        if self._manager is not None:
            self._manager.connection_lost(self)

    def inner(self, place: Place) -> Client:
        """A connection of the same listener, for the requests inside a tunnel."""
        return self._listener.client(place)

    @property
    def tunnelling(self) -> bool:
        """Whether somebody has taken the socket."""
        return self._tunnelling is not None

    def end_tunnel(self) -> None:
        """End what was made of the socket."""
        if self._tunnelling is not None:
            self._tunnelling.cancel()

    def incoming(self, message: Any, content: Any) -> Incoming:
        """A request; the walk answers and records also what aiohttp's parser has refused."""
        fault: Refusal | None = None
        if self.chunked:
            if not self.ends.bare(self.content):
                fault = BadRequest("a request with trailers is the last on its connection", reason="trailers")
            self.ends.forget(self.content)
        unread: BaseException | None = getattr(message, "exc", None)
        if unread is not None:
            message = _UNREAD
        self.content, self.chunked = content, message.chunked
        if self.ends.misspelt(message):
            fault = BadRequest("the request line is not `METHOD target HTTP/1.1`", reason="syntax")
        if self.surplus is not None:
            fault = Overloaded("there are too many connections", reason=self.surplus)
        return Incoming(message, content, self, fault if unread is None else refusal_of(unread))


def refusal_of(exc: BaseException) -> Refusal:
    """The parser's fault in our words; the exception's own text quotes the request and is dropped."""
    if isinstance(exc, Refusal):
        return exc
    if isinstance(exc, LineTooLong) or (
        isinstance(exc, HttpProcessingError) and "too many" in exc.message.lower()
    ):
        return HeaderTooLarge("the request line or a header line is over the limit")
    return BadRequest("the request is not well-formed HTTP/1.1", reason="syntax")


class Listener(web.Server):
    """Makes a `Client` of each connection, and closes those whose head takes too long."""

    def __init__(
        self,
        serve: Serves,
        limits: Limits,
        timeouts: Timeouts,
        place: Place = MAIN,
        crowd: Crowd | None = None,
    ) -> None:
        """`crowd` counts the connections of all listeners together."""
        demand_c_parser()
        super().__init__(
            serve,  # type: ignore[arg-type] # an Incoming stands where aiohttp says BaseRequest
            handler_cancellation=True,
            access_log=None,
            auto_decompress=False,
            keepalive_timeout=timeouts.keepalive,
            max_line_size=limits.max_line,
            max_field_size=limits.max_line,
            max_headers=limits.max_fields,
            lingering_time=2.0,
            read_bufsize=_READ_AHEAD,
        )
        self.crowd = Crowd(limits) if crowd is None else crowd
        self.most_head = limits.max_header + limits.max_line
        self._timeouts = timeouts
        self._place = place
        self._sweeper: asyncio.TimerHandle | None = None

    def __call__(self) -> Client:
        if self._sweeper is None:
            self._sweep()
        return self.client(self._place)

    def client(self, place: Place) -> Client:
        """A connection that speaks from there."""
        return Client(self, place, loop=self._loop, **self._kwargs)

    def _sweep(self) -> None:
        """One timer for all connections: deadlines that are not re-armed by each byte."""
        now, timeouts = self._loop.time(), self._timeouts
        for client in self.connections:
            if isinstance(client, Client):
                client.sweep(now, timeouts)
        patience = min(1.0, timeouts.header / 2, timeouts.write / 2 or inf)
        self._sweeper = self._loop.call_later(patience, self._sweep)

    async def shutdown(self, timeout: float | None = None) -> None:
        """Stop reading new requests, let those under way end within `timeout` seconds, then close."""
        if self._sweeper is not None:
            self._sweeper.cancel()
        # A tunnel ends only when its parties wish: it lives as long as there is anything else to wait for.
        plain = [one for one in self.connections if not (isinstance(one, Client) and one.tunnelling)]
        for one in plain:
            one.close()  # an idle connection has nothing to wait for, and would be waited for all the same
        await asyncio.gather(*(one.shutdown(timeout) for one in plain))
        left = [one for one in self.connections if isinstance(one, Client)]
        for one in left:
            one.end_tunnel()
        await super().shutdown(timeout)
        for one in left:
            one.end_soon(_LAST)
