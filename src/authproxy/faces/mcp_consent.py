"""A call that needs its user's consent: whether they are at it, and how long it is waited for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, TypeVar

from authproxy.control.consent import Authorization, Consent
from authproxy.core.errors import ConnectionRequired, NotFound
from authproxy.core.model import ConnectionKey, FlowStatus
from authproxy.faces.mcp_visit import Visit

K = TypeVar("K")
V = TypeVar("V")

WAIT: Final = 50.0
"""Seconds in which the user may finish what they have begun before the call is answered: many clients give up after
a minute."""
HASTE: Final = 3.0
"""The same for a flow that was waited for already: who has left it is not waited for with each call."""
REMEMBERED: Final = 4096
_BEGUN = frozenset(
    # completed: since the call was refused
    {FlowStatus.PENDING, FlowStatus.EXCHANGING, FlowStatus.CONFIRMING, FlowStatus.COMPLETED}
)


class Consents:
    """`consent` is asked for each time, since another configuration brings another one. Once `closing` is set nobody
    is waited for. `patience` is in seconds, for each thing that a person is waited for."""

    def __init__(self, consent: Callable[[], Consent], closing: asyncio.Event, *, wait: float = WAIT) -> None:
        self._consent = consent
        self.patience = wait
        self._closing = closing
        self._asked: dict[ConnectionKey, tuple[str, str | None]] = {}
        self._in_vain: dict[str, None] = {}  # flows that were waited for once

    def ask(self, visit: Visit, missing: Authorization, *, opens: bool) -> None:
        """Remember what this user was asked for last, and the session whose client opens the link by itself (`opens`):
        when that one calls again, the user is at it. Another replica does not know, and shows the link once more."""
        _keep(self._asked, missing.key, (missing.id, visit.session if opens else None))

    async def under_way(self, visit: Visit, missing: Authorization) -> str | None:
        """The flow that this user has begun with, as far as is known. It may be another than the one that is offered
        now: none that is about to end is offered again."""
        before, session = self._asked.get(missing.key, (missing.id, None))
        for flow_id in dict.fromkeys((before, missing.id)):
            try:
                status = (await self._consent().status(visit.caller, flow_id)).status
            except NotFound:  # ended long ago, and forgotten
                continue
            opened = flow_id == before and session is not None and session == visit.session
            if status in _BEGUN or (opened and status is FlowStatus.NOT_STARTED):
                return flow_id
        return None

    async def end(self, visit: Visit, flow_id: str) -> Authorization:
        """How it stands once it has ended, or the wait has. Raises NotFound for what is not this caller's."""
        consent = self._consent()
        seconds = min(self.patience, HASTE) if flow_id in self._in_vain else self.patience
        waiting = asyncio.create_task(consent.wait(visit.caller, flow_id, seconds))
        closing = asyncio.create_task(self._closing.wait())
        try:
            await asyncio.wait((waiting, closing), return_when=asyncio.FIRST_COMPLETED)
            if waiting.done():
                one = waiting.result()
                if not one.status.ended:
                    _keep(self._in_vain, flow_id, None)
                return one
        except ConnectionRequired:
            pass  # it had failed before; how is in its status
        finally:
            waiting.cancel()
            closing.cancel()
        return await consent.status(visit.caller, flow_id)


def _keep(kept: dict[K, V], key: K, value: V) -> None:
    """Put something in last place, and let the first go where there is no room."""
    kept.pop(key, None)
    while len(kept) >= REMEMBERED:
        del kept[next(iter(kept))]
    kept[key] = value
