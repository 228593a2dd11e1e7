"""Bodies larger than the control plane's own: read once it is known who sends them, and only so many at a time."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from aiohttp import web

from authproxy.core.errors import BadRequest, BodyTooLarge, Overloaded

HELD = 8
"""Times the largest body: what all bodies that are being read may hold together."""
PATIENCE = 30.0
"""Seconds that one may take to come."""
MAX_VALUES = 100_000
_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)


class Bodies:
    """`most` says the bytes of the largest, as it is configured now."""

    def __init__(self, most: Callable[[], int], *, patience: float = PATIENCE) -> None:
        self._most = most
        self._patience = patience
        self._held = 0

    async def read(self, request: web.Request) -> bytes:
        """The whole body. Raises BodyTooLarge, Overloaded where others fill the room, BadRequest where it drips or is
        of too many values."""
        async with self.held(request) as body:
            return body

    @asynccontextmanager
    async def held(self, request: web.Request) -> AsyncIterator[bytes]:
        """The same, counted until it is let go."""
        most = self._most()
        if (request.content_length or 0) > most:
            raise BodyTooLarge(f"The request body is over {most} bytes")
        read = bytearray()
        try:
            try:
                async with asyncio.timeout(self._patience):
                    async for chunk in request.content.iter_any():
                        read += chunk
                        self._held += len(chunk)
                        if len(read) > most:
                            raise BodyTooLarge(f"The request body is over {most} bytes")
                        if self._held > HELD * most:
                            raise Overloaded("Too much is being sent at once", reason="bodies")
            except TimeoutError:
                raise BadRequest("The request body did not come in time", reason="slow", status=408) from None
            demand_few(read)
            yield bytes(read)
        finally:
            self._held -= len(read)


def demand_few(body: bytes | bytearray) -> None:
    """Raises BadRequest for JSON of very many values: reading those takes some fifty times their bytes, and a second of
    everybody's time. What is rightly long is so for its texts."""
    if _values(body) <= MAX_VALUES:
        return
    strings = body.count(b'"') - body.count(b'\\"')  # so that what is in them is not looked for for long
    if strings > 4 * MAX_VALUES or _values(_STRING.sub(b"", body)) > MAX_VALUES:
        raise BadRequest(f"The request body holds more than {MAX_VALUES} values", reason="values")


def _values(body: bytes | bytearray) -> int:
    return body.count(b",") + body.count(b"[") + body.count(b"{")
