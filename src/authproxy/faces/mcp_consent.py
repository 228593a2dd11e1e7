"""A call that needs its user's consent: whether they are at it, and how long it is waited for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from authproxy.control.consent import Authorization, Consent
from authproxy.core.errors import ConnectionRequired
from authproxy.core.model import FlowStatus
from authproxy.faces.mcp_visit import Visit

WAIT: Final = 50.0
"""Seconds in which the user may finish what they have begun before the call is answered: many clients give up after
a minute."""
REMEMBERED: Final = 4096
_BEGUN = frozenset({FlowStatus.PENDING, FlowStatus.EXCHANGING, FlowStatus.CONFIRMING})


class Consents:
    """`consent` is asked for each time, since another configuration brings another one. Once `closing` is set nobody
    is waited for."""

    def __init__(self, consent: Callable[[], Consent], closing: asyncio.Event, *, wait: float = WAIT) -> None:
        self._consent = consent
        self._wait = wait
        self._closing = closing
        self._shown: dict[tuple[str, str], None] = {}

    def show(self, visit: Visit, flow_id: str) -> None:
        """Remember that this session's client was given this link to open by itself: when it asks again, the user is
        at it. Another replica does not know; it then shows the link once more."""
        if visit.session is None:
            return
        while len(self._shown) >= REMEMBERED:
            del self._shown[next(iter(self._shown))]
        self._shown[visit.session, flow_id] = None

    async def under_way(self, visit: Visit, flow_id: str) -> bool:
        """Whether the user has begun with it, as far as is known."""
        if visit.session is not None and (visit.session, flow_id) in self._shown:
            return True
        return (await self._consent().status(visit.caller, flow_id)).status in _BEGUN

    async def end(self, visit: Visit, flow_id: str) -> Authorization:
        """How it stands once it has ended, or the wait has. Raises NotFound for what is not this caller's."""
        consent = self._consent()
        waiting = asyncio.create_task(consent.wait(visit.caller, flow_id, self._wait))
        closing = asyncio.create_task(self._closing.wait())
        try:
            await asyncio.wait((waiting, closing), return_when=asyncio.FIRST_COMPLETED)
            if waiting.done():
                return waiting.result()
        except ConnectionRequired:
            pass  # it had failed before; how is in its status
        finally:
            waiting.cancel()
            closing.cancel()
        return await consent.status(visit.caller, flow_id)
