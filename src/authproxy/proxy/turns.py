"""One connection's requests, one after the other: aiohttp's loop for them, without what the walk does for itself.

aiohttp makes a task, a writer and a response's ending for each request. The walk writes its answers itself and never
raises, so a request is served in the connection's own task, and the rest is left away: a sixth of what a small
request costs.
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from typing import Any

import structlog
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.streams import EMPTY_PAYLOAD
from aiohttp.web_protocol import RequestHandler, RequestPayloadError, _ErrInfo

from authproxy.core.errors import Refusal

log = structlog.get_logger()


class Turns(RequestHandler):
    """Serves what the parser has found. `incoming` is for who descends from it."""

    __slots__ = ()

    @abstractmethod
    def incoming(self, message: Any, content: Any) -> Any:
        """The request that the walk gets, of a head and a body; `message` is what the parser made of them, or the
        fault that it found."""

    async def start(self) -> None:
        """Serve until the connection or the listener ends."""
        try:
            while not self._force_close:
                if not self._messages:
                    await self._next()
                message, content = self._messages.popleft()
                if self._parser is not None:
                    self._parser.message_consumed()
                if self._buffer_paused and len(self._messages) <= self._msg_queue_resume_size:
                    self._resume_reading_if_drained()
                alive = await self._serve(message, content)
                if not alive or self._close or self._force_close:
                    break
                self._rest()
        except asyncio.CancelledError:
            self.force_close()
            raise
        except Exception:  # the walk lets none out, so this is a fault between it and the parser
            log.exception("listener.internal")
            self.force_close()
        if not self._force_close:
            self._task_handler = None
            if self.transport is not None:
                self.transport.close()

    def unread(self, why: Exception) -> None:
        """What has come so far is no request, and what comes from now on is not looked at."""
        self._messages.append((_ErrInfo(status=400, exc=why, message=""), EMPTY_PAYLOAD))
        self._upgraded = True  # aiohttp's word for bytes that its parser must not see
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def _next(self) -> None:
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    async def _serve(self, message: Any, content: Any) -> bool:
        """Whether the connection lives on."""
        serve: Any = self._request_handler
        if serve is None:
            return False
        request = self.incoming(message, content)
        self._request_in_progress = True
        self._current_request = request
        try:
            sent = await serve(request)
        finally:
            self._current_request = None
            self._request_in_progress = False
            if self._handler_waiter is not None and not self._handler_waiter.done():
                self._handler_waiter.set_result(None)
        if self._upgraded:
            await self.finish_response(
                request, sent, None
            )  # an upgrade that was not made: what follows is HTTP
        self._keepalive = sent.keep_alive
        if not content.is_eof():
            await self._linger(content)
        return bool(sent.keep_alive)

    async def _linger(self, content: Any) -> None:
        """Read what is left of a body that nobody wants, for a moment: an agent that still sends it would be reset
        before it has read the answer (RFC 9112 §9.6)."""
        if not self._force_close and self._lingering_time:
            try:
                async with asyncio.timeout(self._lingering_time):
                    if (other := content._waiter) is not None:  # noqa: SLF001 - aiohttp has no other word for a reader
                        # An answer that was whole before the body was has ended the upload, which stops to read with
                        # the loop's next turn; aiohttp allows one reader at a time.
                        await asyncio.wait((other,))
                    while not content.is_eof():
                        await content.readany()
            except (TimeoutError, ConnectionError, HttpProcessingError, RequestPayloadError, Refusal):
                pass  # it will not come, or it was ended: whatever it was, it has no end
        if not content.is_eof() and not self._force_close:
            self.close()

    def _rest(self) -> None:
        """From here on the connection may be closed for being idle."""
        due = self._loop.time() + self._keepalive_timeout
        self._next_keepalive_close_time = due
        if self._keepalive_handle is None:
            self._keepalive_handle = self._loop.call_at(due, self._process_keepalive)
