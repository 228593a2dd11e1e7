"""Waiting for a connection to come to a state: how a job that was paused by a re-authentication goes on."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

from authproxy.core.errors import NotFound
from authproxy.core.model import Caller, Connection, State
from authproxy.store.vault import Vault

POLL = 0.5
"""Seconds between two looks: the consent may end in another process."""


@dataclass(frozen=True, slots=True)
class Seen:
    """The connection as it was last seen, and whether it is in the state that was waited for."""

    connection: Connection
    reached: bool


class Watch:
    """For whoever may act for the connection's user, and for operators."""

    def __init__(self, vault: Vault, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._vault = vault
        self._monotonic = monotonic

    async def wait(self, caller: Caller, connection_id: str, state: State, seconds: float) -> Seen:
        """As soon as the connection is in this state, or as it is after `seconds`. A consent keeps its id, so what
        was disconnected can be waited for too."""
        until = self._monotonic() + seconds
        while True:
            seen = await self.look(caller, connection_id, state)
            left = until - self._monotonic()
            if seen.reached or left <= 0:
                return seen
            await asyncio.sleep(min(POLL, left))

    async def look(self, caller: Caller, connection_id: str, state: State) -> Seen:
        """The same at once. Raises UserDisabled: a job must not go on because of a grant that is kept (I10)."""
        connection = await self._vault.get(connection_id, tenant=caller.tenant)
        if connection is None or not (caller.operator or caller.allowed(connection.key.user)):
            raise NotFound("There is no such connection", reason="connection_unknown")  # (I04)
        if not caller.operator:
            await self._vault.demand_user(connection.key.tenant, connection.key.user)
        return Seen(connection, connection.state is state)
