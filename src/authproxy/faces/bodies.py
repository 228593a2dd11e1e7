"""Bodies larger than the control plane's own: read once it is known who sends them, and only so many at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from aiohttp import web

from authproxy.core.errors import BadRequest, BodyTooLarge, Overloaded

HELD = 8
"""Times the largest body: what all bodies that are being read may hold together."""
PATIENCE = 30.0
"""Seconds that one may take to come."""


class Bodies:
    """`most` says the bytes of the largest, as it is configured now."""

    def __init__(self, most: Callable[[], int], *, patience: float = PATIENCE) -> None:
        self._most = most
        self._patience = patience
        self._held = 0

    async def read(self, request: web.Request) -> bytes:
        """The whole body. Raises BodyTooLarge, Overloaded where others fill the room, BadRequest where it drips."""
        most = self._most()
        if (request.content_length or 0) > most:
            raise BodyTooLarge(f"The request body is over {most} bytes")
        read = bytearray()
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
        finally:
            self._held -= len(read)
        return bytes(read)
