"""One connection to an upstream: writes a request, reads its answer, and knows whether it may serve again."""

from __future__ import annotations

import asyncio
import select
import ssl
from collections.abc import Callable, Hashable
from enum import IntEnum
from math import inf
from typing import Protocol, cast

from authproxy.core.config import Limits
from authproxy.proxy.answer import Answer
from authproxy.proxy.exchange import Exchange, Origin, Timing, late, unreachable
from authproxy.proxy.head import Chunks, Faulty, Head, HeadReader
from authproxy.proxy.upload import AT_ONCE, Upload

_INTERIM = 16  # 1xx answers to one request; RFC 9110 §15.2 sets no bound


class Phase(IntEnum):
    """What the next bytes from the upstream are."""

    IDLE = 0  # bytes nobody asked for
    HEAD = 1
    LENGTH = 2
    CHUNKED = 3
    CLOSE = 4
    TUNNEL = 5
    GONE = 6


class Home(Protocol):
    """The pool, as its connections need it."""

    limits: Limits
    clock: Callable[[], float]
    scratch: memoryview

    def release(self, connection: Connection, patience: float | None) -> None: ...
    def forget(self, connection: Connection) -> None: ...
    def lost(self, connection: Connection) -> None: ...
    def arm(self, deadline: float) -> None: ...


class Connection(asyncio.BufferedProtocol):
    """A socket of the pool. It belongs to one origin and one partition for life, and serves one exchange at a time."""

    def __init__(self, home: Home, origin: Origin, partition: Hashable) -> None:
        self._home = home
        self.origin = origin
        self.partition = partition
        self.deadline = inf
        self.late_for = "idle"
        self.served = 0
        self.heard = False
        self.wrote = False
        self._loop = asyncio.get_running_loop()  # kept, since asking for it is a system call in Python 3.11
        self._transport: asyncio.Transport | None = None
        self._poll: select.poll | None = None
        self._phase = Phase.IDLE
        self._exchange: Exchange | None = None
        self._timing: Timing | None = None
        self._until = inf
        self._answered: asyncio.Future[Answer] | None = None
        self._answer: Answer | None = None
        self._head: Head | None = None
        self._chunks: Chunks | None = None
        self._reader = HeadReader(home.limits)
        self._left = 0
        self._interim = 0
        self._keep = False
        self._paused = False
        self._upload: Upload | None = None
        self._writable: asyncio.Future[None] | None = None

    # What the pool and the way out ask.

    @property
    def gone(self) -> bool:
        return self._phase is Phase.GONE

    @property
    def connected(self) -> bool:
        """Whether there is a socket that is not closed yet."""
        return self._transport is not None

    @property
    def stale(self) -> bool:
        """Whether it had served before and said nothing to the last request: a keep-alive race, probably."""
        return self.served > 0 and not self.heard

    def fit(self) -> bool:
        """Whether the connection may serve an exchange: idle, open, and not a byte or an end waits unread.

        The loop may not have seen yet what the kernel already has; bytes from before the request must never be
        read as its answer.
        """
        transport = self._transport
        if self._phase is not Phase.IDLE or transport is None or transport.is_closing():
            return False
        if not self.served and self.origin.scheme == "https":
            return True  # what waits may be a session ticket; what it decrypts to is judged in buffer_updated
        return not self._readable(transport)

    def _readable(self, transport: asyncio.Transport) -> bool:
        if self._poll is None:
            self._poll = select.poll()
            self._poll.register(transport.get_extra_info("socket").fileno(), select.POLLIN)
        return bool(self._poll.poll(0))

    def begin(self, exchange: Exchange, timing: Timing) -> asyncio.Future[Answer]:
        """Write the request; the future is the answer, from its head on."""
        transport = self._transport
        assert transport is not None
        answered: asyncio.Future[Answer] = self._loop.create_future()
        self._phase = Phase.HEAD
        self._exchange = exchange
        self._timing = timing
        self._answered = answered
        self._interim = 0
        self.heard = False
        now = self._home.clock()
        self._until = now + timing.total
        self._expect("first_byte", timing.first_byte, now)
        body = exchange.body
        self._upload = None
        if body is None:
            transport.write(exchange.head)
        elif isinstance(body, bytes) and len(body) <= AT_ONCE and not exchange.expect_continue:
            exchange.bytes_out = len(body)
            if exchange.chunked:
                body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body) if body else b"0\r\n\r\n"
            transport.write(exchange.head + body)
        else:
            transport.write(exchange.head)
            self._upload = Upload(exchange, body, self)
        # A write that fails at once has sent nothing: the transport closes itself instead.
        self.wrote = not transport.is_closing()
        exchange.sent_any = exchange.sent_any or self.wrote
        return answered

    @property
    def uploading(self) -> bool:
        """Whether there is a body that is not sent in one piece."""
        return self._upload is not None

    async def upload_stopped(self) -> None:
        """Where an early answer or an error has ended the upload: wait until nothing reads the agent's body."""
        if self._upload is not None and self._upload.stopping:
            await self._upload.stopped()

    def discard(self) -> None:
        """Close at once, whatever state it is in; an unfinished upload stays visibly unfinished."""
        if self._phase is Phase.GONE:
            return
        self._phase = Phase.GONE
        self.deadline = inf
        self._answer = None
        if self._upload is not None:
            self._upload.stop()
        if self._transport is not None:
            self._transport.abort()
        self._home.forget(self)

    def fail(self, error: BaseException) -> None:
        """End the exchange with an error, and the connection with it."""
        answered, answer = self._answered, self._answer
        self.discard()
        if answer is not None:
            answer.broke(error)
        elif answered is not None and not answered.done():
            answered.set_exception(error)

    def overdue(self) -> None:
        """The deadline has passed."""
        if self._phase is Phase.IDLE:
            self.discard()
        else:
            self.fail(late(self.origin, self.late_for))

    def _expect(self, what: str, seconds: float, now: float) -> None:
        deadline = now + seconds
        if deadline < self._until:
            self.late_for = what
        else:
            deadline = self._until
            self.late_for = "total"
        self.deadline = deadline
        self._home.arm(deadline)

    # What an Answer asks.

    def pause(self) -> None:
        if not self._paused and self._transport is not None and self._phase is not Phase.GONE:
            self._paused = True
            self.deadline, self.late_for = (
                self._until,
                "total",
            )  # it is the agent who is slow, not the upstream
            self._transport.pause_reading()

    def resume(self) -> None:
        if self._paused and self._transport is not None and self._phase is not Phase.GONE:
            self._paused = False
            self._touch()
            self._transport.resume_reading()

    def write(self, data: bytes) -> None:
        if self._transport is not None and self._phase is not Phase.GONE:
            self._transport.write(data)

    def finish(self) -> None:
        """In a tunnel: nothing more will be written. Over TLS, which has no half-close, that is the end."""
        if self._transport is not None and self._phase is Phase.TUNNEL:
            if self._transport.can_write_eof():
                self._transport.write_eof()
            else:
                self._transport.close()

    async def drained(self) -> None:
        """Wait until the upstream has taken enough of what was written."""
        if self._writable is not None:
            await self._writable

    # What an Upload asks.

    async def put(self, *pieces: bytes) -> None:
        """Write, and wait until the upstream has taken enough."""
        transport = self._transport
        if transport is None or self._phase is Phase.GONE:
            return
        if self._readable(transport):
            # Read what is there before writing on: after an early answer and a reset, a failing write would
            # take the transport down with the answer unread. What is read comes a turn of the loop after this.
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        # Not `writelines`: asyncio's from Python 3.12 on does not say when the upstream takes no more.
        transport.write(pieces[0] if len(pieces) == 1 else b"".join(pieces))
        if self._writable is not None:
            if self._phase is Phase.HEAD:
                assert self._timing is not None
                self._expect("idle", self._timing.idle, self._home.clock())
            await self._writable

    def upload_waits(self) -> None:
        """The agent is to send more: that is not for the upstream's time."""
        if self._phase is Phase.HEAD:
            self.deadline, self.late_for = self._until, "total"

    def upload_whole(self) -> None:
        """From here on the upstream has its time to answer."""
        if self._phase is Phase.HEAD:
            assert self._timing is not None
            self._expect("first_byte", self._timing.first_byte, self._home.clock())

    # asyncio's side.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports do all that asyncio.Transport does without descending from it.
        self._transport = cast(asyncio.Transport, transport)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._home.scratch

    def buffer_updated(self, nbytes: int) -> None:
        data = bytes(self._home.scratch[:nbytes])
        phase = self._phase
        try:
            if phase is Phase.HEAD:
                self._read_head(data)
            elif phase is Phase.LENGTH:
                self._read_length(data)
            elif phase is Phase.CHUNKED:
                self._read_chunks(data)
            elif phase in (Phase.CLOSE, Phase.TUNNEL):
                self._hand_on(data)
            else:
                self.discard()
        except Faulty as fault:
            self.fail(unreachable(self.origin, str(fault)))

    def eof_received(self) -> None:
        if self._phase in (Phase.CLOSE, Phase.TUNNEL) and self._ended_cleanly():
            self._complete(surplus=True)
        else:
            self._cut(None)

    def _ended_cleanly(self) -> bool:
        """Over TLS a bare end of the TCP stream may be an attacker's: only close_notify counts (RFC 9112 §9.8)."""
        assert self._transport is not None
        session = self._transport.get_extra_info("ssl_object")
        if session is None:
            return True
        try:
            return bool(session.read(1) == b"")
        except ssl.SSLError:
            return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._cut(exc)
        self._transport = None
        self._poll = None
        self.resume_writing()
        self._home.lost(self)

    def _cut(self, exc: Exception | None) -> None:
        """The upstream has closed; where an answer was awaited or under way, that is an error."""
        phase = self._phase
        if phase is Phase.IDLE:
            self.discard()
        elif phase is Phase.HEAD:
            reason = "truncated" if self.heard else "closed" if exc is None else "reset"
            self.fail(unreachable(self.origin, reason))
        elif phase is not Phase.GONE:
            self.fail(unreachable(self.origin, "truncated"))

    def pause_writing(self) -> None:
        self._writable = self._loop.create_future()

    def resume_writing(self) -> None:
        writable, self._writable = self._writable, None
        if writable is not None and not writable.done():
            writable.set_result(None)

    # Reading.

    def _read_head(self, data: bytes) -> None:
        self.heard = True
        exchange, answered = self._exchange, self._answered
        assert exchange is not None
        assert answered is not None
        found = self._reader.feed(data, exchange.method)
        if found is None:
            return
        head, rest = found
        if head.status < 200 and not (head.status == 101 and exchange.upgrade):
            self._interim += 1
            if head.status == 101 or self._interim > _INTERIM:
                raise Faulty("protocol")
            if head.status == 100 and self._upload is not None:
                self._upload.go_on()
            if rest:
                self._read_head(rest)
            return
        if answered.done():  # whoever asked has gone
            self.discard()
            return
        self._answer_begins(head, rest, exchange, answered)

    def _answer_begins(
        self, head: Head, rest: bytes, exchange: Exchange, answered: asyncio.Future[Answer]
    ) -> None:
        self._answer = answer = Answer(head, exchange, self)
        self._head = head
        self._keep = head.keep_alive
        upload = self._upload
        if upload is not None and not upload.whole and (head.status >= 400 or upload.held):
            # An answer that refuses the body, or did not wait for it: stop sending (RFC 9112 §9.3, 9.6).
            self._keep = False
            upload.stop()
        answered.set_result(answer)
        framing = head.framing
        if head.status == 101:
            assert self._timing is not None
            self._phase = Phase.TUNNEL
            # Silence in one direction means nothing in a tunnel: whoever sees both keeps the time.
            self._timing = Timing(self._timing.connect, self._timing.first_byte, inf, self._timing.total)
        elif framing == "length" and head.length:
            self._left = head.length
            self._phase = Phase.LENGTH
        elif framing == "chunked":
            self._chunks = Chunks()
            self._phase = Phase.CHUNKED
        elif framing == "close":
            self._phase = Phase.CLOSE
        else:
            self._complete(surplus=bool(rest))
            return
        if not rest:
            self._touch()
        elif self._phase is Phase.LENGTH:
            self._read_length(rest)
        elif self._phase is Phase.CHUNKED:
            self._read_chunks(rest)
        else:
            self._hand_on(rest)

    def _read_length(self, data: bytes) -> None:
        assert self._answer is not None
        left = self._left - len(data)
        self._left = left
        if left > 0:
            self._hand_on(data)
            return
        self._answer.arrived(data if left == 0 else data[:left])
        self._complete(surplus=left < 0)

    def _read_chunks(self, data: bytes) -> None:
        chunks = self._chunks
        assert chunks is not None
        body = chunks.feed(data)
        if chunks.ended:
            if body and self._answer is not None:
                self._answer.arrived(body)
            self._complete(surplus=chunks.surplus)
        else:
            self._hand_on(body)

    def _hand_on(self, data: bytes) -> None:
        self._touch()
        if data and self._answer is not None:
            self._answer.arrived(data)

    def _touch(self) -> None:
        assert self._timing is not None
        self._expect("idle", self._timing.idle, self._home.clock())

    def _complete(self, *, surplus: bool) -> None:
        """The answer is whole: back to the pool, or closed where anything at all is left over."""
        answer, head = self._answer, self._head
        assert answer is not None
        assert head is not None
        self._answer = self._answered = self._exchange = self._head = self._chunks = None
        answer.complete()
        transport = self._transport
        if (
            surplus
            or not self._keep
            or transport is None
            or transport.is_closing()
            or transport.get_write_buffer_size()
            or (self._upload is not None and not self._upload.whole)
        ):
            self.discard()
            return
        if self._paused:
            self._paused = False
            transport.resume_reading()
        self.served += 1
        self._upload = None
        self._phase = Phase.IDLE
        self._home.release(self, None if head.patience is None else head.patience * 0.8)
