"""Tokens that are owed back to their provider: sealed, in the transaction that wiped them, until they are revoked."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from authproxy.core.errors import KeyMissing
from authproxy.core.model import Connection, ConnectionKey, Environment, Event, Flow, TokenSet
from authproxy.core.secret import Secret
from authproxy.store.base import Backend, Row, Transaction
from authproxy.store.events import write_events
from authproxy.store.sealing import Safe

PENDING: Final = "pending"
_INSERT: Final = """INSERT INTO revocations
    (id, connection_id, tenant, user_id, provider, account, client_id, tokens, status, created_at, next_at)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, 'pending', ?, ?)"""
_DUE: Final = (
    "SELECT * FROM revocations WHERE status = 'pending' AND next_at <= ? ORDER BY next_at, id LIMIT ?"
)
# Wiped with its end: a token that is not owed any more is not kept.
_END: Final = """UPDATE revocations SET status = ?, tokens = NULL, ended_at = ?, attempts = attempts + 1,
    last_error = ? WHERE id = ? AND status = 'pending' RETURNING *"""
_WAIT: Final = """UPDATE revocations SET attempts = attempts + 1, next_at = ?, last_error = ?
    WHERE id = ? AND status = 'pending'"""


class Owing(NamedTuple):
    """A new debt: its id, when it arose, and from when on anybody may pay it (before that, who made it does)."""

    id: str
    at: int
    next_at: int


class Owed(NamedTuple):
    """One grant to be given back. `tokens` None: they can no longer be opened."""

    id: str
    connection_id: str
    key: ConnectionKey
    client_id: str
    attempts: int
    created_at: int
    tokens: TokenSet | None


class Revocations:
    """The revocations of a store."""

    backend: Backend
    environment: Environment
    _safe: Safe

    async def owed(self, *, now: int, limit: int = 20) -> list[Owed]:
        """What is to be revoked now."""
        return [self._owed(row) for row in await self.backend.read(_DUE, now, limit)]

    async def revoked(
        self, revocation_id: str, status: str, *, at: int, error: str | None, events: Sequence[Event]
    ) -> bool:
        """Its end, with the tokens wiped and the events written; False if it had ended already."""

        async def work(tx: Transaction) -> bool:
            rows = await tx.run(_END, status, at, error, revocation_id)
            if rows:
                await write_events(tx, events, connection_id=rows[0]["connection_id"])
            return bool(rows)

        return await self.backend.write(work)

    async def owe(self, connection: Connection, tokens: TokenSet, owing: Owing) -> None:
        """A debt that no row of the store ever held: tokens that arrived when their connection had been given up.
        May be called again after StoreUnavailable: one debt is kept once."""
        row = {"connection_id": connection.id, "client_id": connection.client_id, **_whose(connection.key)}
        await self.backend.write(lambda tx: owe_once(tx, self._safe, row, tokens, owing))

    async def owe_given(self, flow: Flow, tokens: TokenSet, at: int) -> None:
        """The same for what a consent gave that may not be kept."""
        row = {"connection_id": flow.id[:13], "client_id": flow.client_id, **_whose(flow.key)}
        await self.backend.write(lambda tx: owe_once(tx, self._safe, row, tokens, owing_of(flow.id, at)))

    async def revoke_later(self, revocation_id: str, *, until: int, error: str) -> None:
        """It did not work; it is tried again from then on."""

        async def work(tx: Transaction) -> None:
            await tx.run(_WAIT, until, error, revocation_id)

        await self.backend.write(work)

    async def revocation(self, connection_id: str) -> str | None:
        """How the newest revocation of this connection stands; None: there is none."""
        rows = await self.backend.read(
            "SELECT status FROM revocations WHERE connection_id = ? ORDER BY created_at DESC, id LIMIT 1",
            connection_id,
        )
        return rows[0]["status"] if rows else None

    async def revocations_pending(self) -> int:
        """How many grants are still owed back."""
        rows = await self.backend.read("SELECT count(*) AS n FROM revocations WHERE status = 'pending'")
        return int(rows[0]["n"])

    def _owed(self, row: Row) -> Owed:
        try:
            fields = self._safe.open_fields(row["tokens"], cell_name(row))
        except KeyMissing:
            tokens = None
        else:
            refresh = fields["refresh_token"]
            tokens = TokenSet(
                access_token=Secret(fields["access_token"]),
                refresh_token=None if refresh is None else Secret(refresh),
                expires_at=None,
            )
        return Owed(
            id=row["id"],
            connection_id=row["connection_id"],
            key=ConnectionKey(row["tenant"], row["user_id"], row["provider"], row["account"]),
            client_id=row["client_id"],
            attempts=row["attempts"],
            created_at=row["created_at"],
            tokens=tokens,
        )


def owing_of(flow_id: str, at: int) -> Owing:
    """The one debt that a consent can leave, whoever finds it first."""
    return Owing(f"rev_{hashlib.sha256(flow_id.encode()).hexdigest()[:24]}", at, at)


async def owe_once(
    tx: Transaction, safe: Safe, row: Mapping[str, Any], tokens: TokenSet, owing: Owing
) -> None:
    """Keeps a debt unless it is kept already. `row` says whose it is, and through which client."""
    if not await tx.run("SELECT 1 AS one FROM revocations WHERE id = ?", owing.id):
        await _keep(tx, safe, row, tokens, owing)


async def owe(tx: Transaction, safe: Safe, old: Row, opened: Callable[[Row], TokenSet], owing: Owing) -> None:
    """Keeps the tokens of the connection's row `old`, in the transaction that takes them from it. What cannot be
    opened cannot be given back either."""
    try:
        tokens = opened(old)
    except KeyMissing:
        return
    row = {name: old[name] for name in ("tenant", "user_id", "provider", "account", "client_id")}
    await _keep(tx, safe, row | {"connection_id": old["id"]}, tokens, owing)


async def _keep(tx: Transaction, safe: Safe, row: Mapping[str, Any], tokens: TokenSet, owing: Owing) -> None:
    row = {**row, "id": owing.id}
    held = {"access_token": tokens.access_token, "refresh_token": tokens.refresh_token}
    cell = safe.seal_fields(held, cell_name(row))
    await tx.run(_INSERT, *cell_name(row)[2:], cell, owing.at, owing.next_at)


def _whose(key: ConnectionKey) -> Mapping[str, str]:
    return {"tenant": key.tenant, "user_id": key.user, "provider": key.provider, "account": key.account}


def cell_name(row: Row | Mapping[str, Any]) -> tuple[str, ...]:
    """All that the owed tokens are bound to."""
    names = ("id", "connection_id", "tenant", "user_id", "provider", "account", "client_id")
    return ("revocations", "tokens", *(row[name] for name in names))
