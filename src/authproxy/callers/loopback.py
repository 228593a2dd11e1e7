"""Callers without a credential: whoever reaches a loopback or unix-socket listener from this machine."""

from __future__ import annotations

from authproxy.callers.presented import Presented
from authproxy.core.config import CallerChoice
from authproxy.core.model import Caller


class Loopback:
    """Recognises a local peer that shows no key."""

    def __init__(self, choice: CallerChoice) -> None:
        self._caller = Caller(
            tenant=choice.tenant,
            agent=choice.agent or "local",
            kind="loopback",
            may_act_for=choice.may_act_for,
            operator=choice.operator,
        )

    def recognise(self, shown: Presented, *, peer_is_loopback: bool) -> Caller | None:
        return self._caller if peer_is_loopback and shown.digest is None else None

    def demand_standing(self, caller: Caller) -> None:
        """A peer is judged by its connection, which has not moved."""

    async def look_again(self) -> bool:
        return False
