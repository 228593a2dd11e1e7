"""Who is disabled, as far as this process knows: read anew within the leash, and asked for with every request."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import structlog

from authproxy.core.errors import StoreUnavailable
from authproxy.store.admission import disabled
from authproxy.store.vault import Vault

log = structlog.get_logger()

DEADLINE = 10.0  # seconds for one reading


class DisabledUsers:
    """A set in memory. `run` reads what has changed twice within the leash; whoever finds it older than the leash
    reads it first, or is refused: it is never taken for granted that nobody was disabled meanwhile (I10)."""

    def __init__(
        self, vault: Vault, leash: Callable[[], float], *, tick: Callable[[], float] = time.monotonic
    ) -> None:
        """`leash` is in seconds."""
        self._vault = vault
        self._leash = leash
        self._tick = tick
        self._revision = 0
        self._reading = asyncio.Lock()
        self.users: set[tuple[str, str]] = set()
        self.read_at = float("-inf")

    def barred(self, tenant: str, user: str) -> bool:
        """Whether this user is disabled, as far as is known now."""
        return (tenant, user) in self.users

    async def demand(self, tenant: str, user: str) -> None:
        """Raises UserDisabled; StoreUnavailable where it cannot be known."""
        if not 0 <= self._tick() - self.read_at < self._leash():
            await self.refresh()
        if (tenant, user) in self.users:
            raise disabled(user)

    async def refresh(self) -> None:
        """Know of everything that was committed before this call. Raises StoreUnavailable, and all stays known that
        was."""
        asked = self._tick()
        try:
            async with asyncio.timeout(DEADLINE), self._reading:
                if self.read_at < asked:  # else somebody has read since, while this one waited in the line
                    await self._read()
        except TimeoutError:
            raise StoreUnavailable("the store does not answer", reason="slow") from None

    async def _read(self) -> None:
        began = self._tick()
        while changes := await self._vault.user_changes(self._revision):
            for change in changes:
                (self.users.add if change.disabled else self.users.discard)((change.tenant, change.user))
            self._revision = changes[-1].revision
        self.read_at = began

    async def run(self) -> None:
        """Keep it young until cancelled. Half the leash is left for the reading itself."""
        told = False
        while True:
            await asyncio.sleep(self._leash() / 2)
            try:
                await self.refresh()
            except StoreUnavailable as error:
                if not told:
                    log.warning("disabled_users_not_read", reason=error.reason)
                told = True
            else:
                told = False
