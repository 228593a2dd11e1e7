"""Ends everything of one user at once, and says honestly what became of each grant at its provider."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import structlog

from authproxy.broker.disabled import DisabledUsers
from authproxy.broker.endpoint import Endpoint
from authproxy.broker.registrations import Registrations
from authproxy.broker.revocation import OURS, Revocations, Revoked, revocation_event
from authproxy.core.errors import StoreUnavailable
from authproxy.core.model import ConnectionKey
from authproxy.store.users import Ended
from authproxy.store.vault import Vault

log = structlog.get_logger()

AT_ONCE = 8  # revocations
PATIENCE = 15.0  # seconds for all of them; what is not done then is done in the background
assert PATIENCE < OURS  # nobody else begins with them before


@dataclass(frozen=True, slots=True)
class Returned:
    """A connection that ended with its user. Our copy is gone in every case; `revoked_upstream` claims no more."""

    connection_id: str
    key: ConnectionKey
    revoked_upstream: Revoked


@dataclass(frozen=True, slots=True)
class Report:
    """What one call did. `changed` is false where the user was disabled already; `flows` counts consents that ended."""

    changed: bool
    returned: Sequence[Returned]
    flows: int

    @property
    def counts(self) -> Mapping[Revoked, int]:
        """How many of the grants ended in which way."""
        found = Counter(one.revoked_upstream for one in self.returned)
        return {word: found[word] for word in Revoked}


class Offboarding:
    """Disables users and enables them again. `changed` is told each connection that ended."""

    def __init__(
        self,
        vault: Vault,
        registrations: Registrations,
        endpoint: Endpoint,
        disabled: DisabledUsers,
        *,
        changed: Callable[[ConnectionKey], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._vault = vault
        self._disabled = disabled
        self._changed = changed
        self._clock = clock
        self._revocations = Revocations(vault, registrations, endpoint, clock=clock)

    async def disable(
        self, tenant: str, user: str, *, by: str, reason: str | None, keep_grants: bool
    ) -> Report:
        """From the return on this process refuses the user, and every other one within the leash. The grants are given
        back at their providers, or are owed until they are."""
        done = await self._vault.disable_user(
            tenant,
            user,
            at=int(self._clock()),
            by=by,
            reason=reason,
            keep_grants=keep_grants,
            owing=self._revocations.new,
        )
        for one in done.ended:
            self._changed(one.key)
        await self._known()
        return Report(done.changed, await self._give_back(done.ended), done.flows)

    async def enable(self, tenant: str, user: str, *, by: str, reason: str | None) -> bool:
        """Whether anything has changed. What ended stays ended: the user connects again."""
        changed = await self._vault.enable_user(tenant, user, at=int(self._clock()), by=by, reason=reason)
        await self._known()
        return changed

    async def _known(self) -> None:
        try:
            await self._disabled.refresh()
        except StoreUnavailable as error:  # it is committed, and known within the leash
            log.warning("disabled_users_not_read", reason=error.reason)

    async def _give_back(self, ended: Sequence[Ended]) -> Sequence[Returned]:
        places = asyncio.Semaphore(AT_ONCE)
        until = asyncio.get_running_loop().time() + PATIENCE
        words = await asyncio.gather(*(self._pay(one, places, until) for one in ended))
        found = [Returned(one.connection_id, one.key, word) for one, word in zip(ended, words, strict=True)]
        open_ = [one for one in found if one.revoked_upstream is Revoked.PENDING]
        lost = [one for one, was in zip(found, ended, strict=True) if was.owed is None]
        now = int(self._clock())
        events = [
            revocation_event(one.key, one.connection_id, now, one.revoked_upstream) for one in (*open_, *lost)
        ]
        try:
            await self._vault.note(events)
        except StoreUnavailable as error:  # said below all the same: what counts has been committed
            log.warning("revocations_not_noted", reason=error.reason)
        return found

    async def _pay(self, one: Ended, places: asyncio.Semaphore, until: float) -> Revoked:
        if one.owed is None:
            return Revoked.FAILED
        try:
            async with asyncio.timeout_at(until), places:
                return await self._revocations.pay(one.owed)
        except TimeoutError:
            return Revoked.PENDING
        except StoreUnavailable as error:  # it stays owed
            log.warning("revocation.not_noted", connection=one.connection_id, reason=error.reason)
            return Revoked.PENDING
