"""The lease on one connection: the only way to write refreshed tokens, and to say how a refresh failed.

It is columns of the connection's own row, taken by one conditional statement on the database's clock, so it cannot
be up while the store is down (A07) and cannot be admitted twice (A30). Every later write carries the fencing number;
who was overtaken writes nothing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Final, NamedTuple

from authproxy.core.errors import KeyMissing
from authproxy.core.model import Connection, Event, State, TokenSet
from authproxy.store.base import GrantChanged, LeaseLost, Row, Transaction, Value
from authproxy.store.connections import Connections, bounded, connection_of, spend
from authproxy.store.events import encode, write_events

LONGEST: Final = 600.0
"""Seconds. An end further off than this can only come from a clock that was set back, and does not hold."""

_TAKE: Final = f"""UPDATE connections SET lease_holder = ?, lease_fence = lease_fence + 1, lease_until = now_ms() + ?
    WHERE id = ? AND state <> 'disconnected'
    AND (lease_until IS NULL OR lease_until <= now_ms() OR lease_until > now_ms() + {int(LONGEST * 1000)})
    RETURNING *"""  # noqa: S608 - a constant
_MINE: Final = "id = ? AND lease_fence = ? AND lease_holder = ?"
_SEEN: Final = f"{_MINE} AND grant_id = ? AND generation = ? AND state <> 'disconnected'"
# Only here must the lease still run: what is not sent yet need not be sent by us (A05).
_INTEND: Final = f"""UPDATE connections SET intent_digest = ?, intent_at = ?, intent_by = ?
    WHERE {_SEEN} AND lease_until > now_ms() RETURNING id"""  # noqa: S608
# An end that has passed does not stop a commit: nobody took over (the fence says so), and the tokens are real.
_COMMIT: Final = f"""UPDATE connections SET generation = ?, scopes = ?, expires_at = ?, lifetime = ?,
    refresh_expires_at = ?, extra = ?, obtained_at = ?, access_token = ?, refresh_token = ?, refresh_digest = ?,
    state = ?, reason = ?, failures = ?, retry_at = ?, last_error = ?,
    intent_digest = NULL, intent_at = NULL, intent_by = NULL
    WHERE {_SEEN} RETURNING *"""  # noqa: S608
_RENEW: Final = f"UPDATE connections SET lease_until = now_ms() + ? WHERE {_MINE} RETURNING id"  # noqa: S608
_RELEASE: Final = f"UPDATE connections SET lease_holder = NULL, lease_until = NULL WHERE {_MINE}"  # noqa: S608


class Intent(NamedTuple):
    """Written before a refresh token is sent, cleared with its outcome; found later, the outcome is unknown (A08)."""

    digest: str
    at: int
    by: str


class Standing(NamedTuple):
    """How a connection stands with the tokens that are written: well, unless only the refresh token is of use."""

    state: State = State.ACTIVE
    reason: str | None = None
    failures: int = 0
    retry_at: int | None = None
    last_error: str | None = None


WELL: Final = Standing()


class Leased:
    """A connection that nobody else may refresh, until the lease ends or is released."""

    def __init__(self, store: Connections, row: Row, holder: str) -> None:
        self._store = store
        self._row = row
        self._holder = holder
        self._fence: int = row["lease_fence"]
        self.connection: Connection = connection_of(row, store.environment)
        digest = row["intent_digest"]
        self.intent = None if digest is None else Intent(digest, row["intent_at"], row["intent_by"])

    @property
    def fence(self) -> int:
        """The fencing number of this lease."""
        return self._fence

    async def tokens(self) -> TokenSet:
        """The tokens as read under the lease, refresh token included."""
        return self._store.opened(self._row)

    async def write_intent(self, digest: str, at: int) -> None:
        """Says on disk that the refresh token with this digest is about to be sent; raises LeaseLost, GrantChanged."""

        async def work(tx: Transaction) -> None:
            if not await tx.run(_INTEND, digest, at, self._holder, *self._seen):
                raise await self._overtaken(tx)

        await self._store.backend.write(work)

    async def is_spent(self, digest: str) -> bool:
        """Whether a refresh token with this digest has been redeemed or replaced before (A22)."""
        rows = await self._store.backend.read(
            "SELECT 1 AS one FROM spent WHERE connection_id = ? AND digest = ?", self.connection.id, digest
        )
        return bool(rows)

    async def commit(
        self, tokens: TokenSet, events: Sequence[Event], *, spent: str | None, standing: Standing = WELL
    ) -> Connection:
        """Writes refreshed tokens: tokens, generation, cleared intent, spent digest and events, all or nothing.

        Raises LeaseLost or GrantChanged, and then nothing was written. May be called again after StoreUnavailable:
        if the first call did reach the disk, the second one says so (A20). A refresh token that the answer left out
        is kept (RFC 6749 section 6).
        """
        kept = self._complete(tokens)
        generation = self.connection.generation + 1
        name = {key: self._row[key] for key in _NAMED} | {"generation": generation}
        access, refresh, digest = self._store.sealed(kept, name)
        obtained = int(self._store.clock())

        async def work(tx: Transaction) -> Row:
            rows = await tx.run(
                _COMMIT,
                generation,
                encode(kept.scopes),
                bounded(kept.expires_at),
                bounded(kept.lifetime),
                bounded(kept.refresh_expires_at),
                encode(kept.extra),
                obtained,
                access,
                refresh,
                digest,
                str(standing.state),
                standing.reason,
                standing.failures,
                bounded(standing.retry_at),
                standing.last_error,
                *self._seen,
            )
            if not rows:
                landed = await self._landed(tx, generation, digest, standing.state)
                if landed is not None:
                    return landed
                raise await self._overtaken(tx)
            await spend(tx, rows[0], spent)
            await write_events(tx, events, connection_id=self.connection.id)
            return rows[0]

        self._row = await self._store.backend.write(work)
        self.connection = connection_of(self._row, self._store.environment)
        self.intent = None
        return self.connection

    async def settle(
        self,
        *,
        state: State | None = None,
        reason: str | None = None,
        last_error: str | None = None,
        retry_at: int | None = None,
        failures: int = 0,
        presented: str | None,
        clear_intent: bool,
        events: Sequence[Event] = (),
    ) -> bool:
        """Writes down how a refresh failed; False, with nothing written, if it no longer concerns what is stored.

        `presented` is the digest of the refresh token that the provider judged: only the row that still holds
        that very token is touched (A15). The generation stays, since no token changed.
        """
        changes: dict[str, Value] = {
            "last_error": last_error,
            "retry_at": bounded(retry_at),
            "failures": failures,
        }
        if state is not None:
            changes |= {"state": str(state), "reason": reason}
        if clear_intent:
            changes |= {"intent_digest": None, "intent_at": None, "intent_by": None}
        still = "" if presented is None else " AND refresh_digest = ?"
        words = ", ".join(f"{column} = ?" for column in changes)
        sql = f"UPDATE connections SET {words} WHERE {_SEEN}{still} RETURNING *"  # noqa: S608 - fixed words

        async def work(tx: Transaction) -> Row | None:
            judged = () if presented is None else (presented,)
            rows = await tx.run(sql, *changes.values(), *self._seen, *judged)
            if not rows:
                return None
            await write_events(tx, events, connection_id=self.connection.id)
            return rows[0]

        row = await self._store.backend.write(work)
        if row is None:
            return False
        self._row, self.connection = row, connection_of(row, self._store.environment)
        self.intent = None if clear_intent else self.intent
        return True

    async def renew(self, seconds: float) -> None:
        """Moves the end of the lease to `seconds` from now. Raises LeaseLost if somebody took over."""

        async def work(tx: Transaction) -> None:
            if not await tx.run(_RENEW, _milliseconds(seconds), *self._mine):
                raise LeaseLost

        await self._store.backend.write(work)

    async def release(self) -> None:
        """Lets go; nothing happens if the lease is somebody else's by now."""

        async def work(tx: Transaction) -> None:
            await tx.run(_RELEASE, *self._mine)

        await self._store.backend.write(work)

    @property
    def _mine(self) -> tuple[str, int, str]:
        return (self.connection.id, self._fence, self._holder)

    @property
    def _seen(self) -> tuple[str, int, str, str, int]:
        return (*self._mine, self.connection.grant_id, self.connection.generation)

    def _complete(self, tokens: TokenSet) -> TokenSet:
        if tokens.refresh_token or self._row["refresh_token"] is None:
            return tokens
        try:
            before = self._store.opened(self._row)
        except (
            KeyMissing
        ):  # it was opened to be sent; nothing may now stand between the answer and the disk (A19)
            return tokens
        return dataclasses.replace(tokens, refresh_token=before.refresh_token)

    async def _landed(self, tx: Transaction, generation: int, digest: str | None, state: State) -> Row | None:
        """The row, if it already is what an earlier call of this very commit made of it."""
        rows = await tx.run(f"SELECT * FROM connections WHERE {_MINE}", *self._mine)  # noqa: S608
        for row in rows:
            same = row["grant_id"] == self.connection.grant_id and row["generation"] == generation
            if same and row["refresh_digest"] == digest and row["state"] == state:
                return row
        return None

    async def _overtaken(self, tx: Transaction) -> Exception:
        rows = await tx.run("SELECT grant_id, state FROM connections WHERE id = ?", self.connection.id)
        if not rows or rows[0]["state"] == State.DISCONNECTED:
            return GrantChanged("the connection was disconnected")
        if rows[0]["grant_id"] != self.connection.grant_id:
            return GrantChanged("the user has connected again")
        return LeaseLost("the lease went to somebody else")


async def take_lease(store: Connections, connection_id: str, *, holder: str, seconds: float) -> Leased | None:
    """The lease, or None: somebody else holds it, or there is no live connection of this id."""

    async def work(tx: Transaction) -> Row | None:
        rows = await tx.run(_TAKE, holder, _milliseconds(seconds), connection_id)
        return rows[0] if rows else None

    row = await store.backend.write(work)
    return None if row is None else Leased(store, row, holder)


_NAMED: Final = ("id", "tenant", "user_id", "provider", "account", "client_id", "grant_id")


def _milliseconds(seconds: float) -> int:
    return round(min(max(seconds, 0.0), LONGEST) * 1000)
