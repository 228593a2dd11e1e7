"""The body of an agent's request, as it comes."""

from __future__ import annotations

import asyncio

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from authproxy.core.errors import BadRequest
from authproxy.proxy.server import Incoming
from authproxy.proxy.spool import ReadBody


def reader(incoming: Incoming, expects_continue: bool, idle: float | None) -> ReadBody:
    """Reads the agent's body; the first read asks for it where the agent waits to be asked (RFC 9110 §10.1.1).

    An agent that sends nothing for `idle` seconds is given up.
    """
    waiting = expects_continue
    content = incoming.content

    async def read() -> bytes:
        nonlocal waiting
        if waiting:
            waiting = False
            incoming.client.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        try:
            data: bytes = content.read_nowait()  # what is here needs no timer
            if data or content.is_eof():
                return data
            async with asyncio.timeout(idle):
                return bytes(await content.readany())
        except TimeoutError:
            raise BadRequest("the request body stopped coming", reason="body_timeout", status=408) from None
        except (web.RequestPayloadError, HttpProcessingError):
            raise BadRequest("the request body is not framed as announced", reason="framing") from None

    return read
