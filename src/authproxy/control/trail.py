"""The trail as operators read it: search, follow, export, verify."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from authproxy.control.operators import demand_operator
from authproxy.core.model import Caller
from authproxy.store import reading
from authproxy.store.audit import Trail
from authproxy.store.vault import Vault
from authproxy.store.verify import Report, verify


class Audit:
    """Reading is of the caller's tenant; verifying is of the whole store, since the chains are."""

    def __init__(self, vault: Vault, trail: Trail) -> None:
        self._vault = vault
        self._trail = trail

    async def query(self, caller: Caller, **filters: Any) -> list[reading.Entry]:
        """Records that match, newest first unless `newest_first=False`; filters as `store.reading.query` takes them."""
        demand_operator(caller)
        return await reading.query(self._vault.backend, tenant=caller.tenant, **filters)

    async def follow(
        self, caller: Caller, *, last: int, pause: Callable[[], Awaitable[None]], **filters: Any
    ) -> AsyncIterator[reading.Entry]:
        """The `last` records and then whatever comes, oldest first; `pause` between two looks."""
        demand_operator(caller)
        known = await self.query(caller, limit=last, **filters) if last else []
        for entry in reversed(known):
            yield entry
        after = known[0].position if known else await reading.last_position(self._vault.backend)
        while True:
            await pause()
            fresh = await self.query(caller, after=after, newest_first=False, limit=500, **filters)
            for entry in fresh:
                yield entry
            after = fresh[-1].position if fresh else after

    def export(self, caller: Caller, **filters: Any) -> AsyncIterator[str]:
        """Every matching record, oldest first, as lines of JSON."""
        demand_operator(caller)
        return reading.export(self._vault.backend, tenant=caller.tenant, **filters)

    async def verify(self, caller: Caller) -> Report:
        """Whether nothing was changed or removed; what waits in this process is written first."""
        demand_operator(caller)
        if self._trail.chain is not None:
            await self._trail.flush()
        return await verify(self._vault)
