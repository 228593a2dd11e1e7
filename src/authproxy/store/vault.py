"""Connections, flows and agents as sealed rows: the only place where secrets become bytes."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Self

from authproxy.core.errors import KeyMissing, StoreUnavailable
from authproxy.core.model import ConnectionKey, Environment, Event
from authproxy.store.agents import Agents
from authproxy.store.approvals import Approvals
from authproxy.store.base import Backend, Check, Transaction
from authproxy.store.claims import Claims
from authproxy.store.deliveries import Deliveries
from authproxy.store.events import timeline, write_events
from authproxy.store.flows import Flows
from authproxy.store.kept import Keepsakes
from authproxy.store.lease import Intent, Leased, take_lease
from authproxy.store.revocations import Revocations
from authproxy.store.rotation import Rotation
from authproxy.store.sealing import Keyring, Safe
from authproxy.store.sessions import Sessions
from authproxy.store.sqlite import SqliteBackend, sqlite_path
from authproxy.store.stamp import check_stamp, open_safe
from authproxy.store.upkeep import Upkeep
from authproxy.store.users import Users

__all__ = ["Intent", "Leased", "Vault", "open_backend"]


async def open_backend(url: str, *, may_change: Check | None = None) -> Backend:
    """The backend of a store URL, at this version's schema. `may_change` is asked before an older store is changed."""
    if url.startswith("sqlite:"):
        return await SqliteBackend.open(sqlite_path(url), may_change=may_change)
    if _is_postgres(url):
        # Only here, because its driver is an extra.
        from authproxy.store.postgres import PostgresBackend

        return await PostgresBackend.open(url, may_change=may_change)
    raise StoreUnavailable(
        f"no store is known for {url.partition(':')[0]}: URLs; write sqlite:///path or postgresql://host/database",
        reason="backend_unknown",
    )


def _is_postgres(url: str) -> bool:
    return url.startswith(("postgresql:", "postgres:"))


class Vault(
    Users,
    Flows,
    Agents,
    Sessions,
    Approvals,
    Keepsakes,
    Claims,
    Upkeep,
    Deliveries,
    Revocations,
    Rotation,
):
    """One open store.

    Reads tell three answers apart: a value, None for what definitely is not there, and StoreUnavailable or
    KeyMissing for what cannot be known now (E06). Nothing is ever deleted because it cannot be opened.
    """

    def __init__(
        self, backend: Backend, safe: Safe, environment: Environment, clock: Callable[[], float] = time.time
    ) -> None:
        super().__init__(backend, safe, environment, clock)

    @classmethod
    async def open(
        cls,
        store: str | Backend,
        *,
        keyring: Keyring,
        environment: Environment,
        clock: Callable[[], float] = time.time,
    ) -> Self:
        """Opens a store by URL (or takes an open backend over), and makes sure that it is ours to open."""

        if isinstance(store, str) and _is_postgres(store) and not keyring.kept:
            raise KeyMissing(
                "a postgresql:// store outlives this process, and so must its sealing key: set AUTHPROXY_KEYS or "
                "AUTHPROXY_KEYS_FILE (make one with `authproxy keys generate`)",
                reason="keys_absent",
            )

        async def ours(backend: Backend) -> None:
            await check_stamp(backend, keyring, environment)

        backend = await open_backend(store, may_change=ours) if isinstance(store, str) else store
        try:
            safe = await open_safe(backend, keyring, environment)
        except BaseException:
            await backend.close()
            raise
        return cls(backend, safe, environment, clock)

    async def close(self) -> None:
        """Ends what is queued and closes the store."""
        await self.backend.close()

    def mark(self, purpose: str, text: str) -> str:
        """A keyed mark over public text that only a holder of the store's key can make (the trail's seals)."""
        return self._safe.mark(purpose, text)

    async def lease(self, connection_id: str, *, holder: str, seconds: float) -> Leased | None:
        """The right to refresh this connection; None: somebody else has it, or the connection is not live.

        `holder` names one process's one attempt: two that call at once must not share it.
        """
        return await take_lease(self, connection_id, holder=holder, seconds=seconds)

    async def probe(self) -> None:
        """Whether the store answers; costs the same however full it is. Raises StoreUnavailable."""
        await self.backend.read("SELECT name FROM meta WHERE name = ?", "store")

    async def timeline(self, of: str | ConnectionKey) -> list[Event]:
        """All events of one connection, oldest first."""
        return await timeline(self.backend, of)

    async def note(self, events: Sequence[Event]) -> None:
        """Writes events that go with no other change."""

        async def work(tx: Transaction) -> None:
            await write_events(tx, events)

        await self.backend.write(work)
