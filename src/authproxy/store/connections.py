"""Connections as rows: one for each (tenant, user, provider, account), for ever, with its secrets sealed."""

from __future__ import annotations

import dataclasses
import json
import uuid
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeAlias

import structlog

from authproxy.core.errors import KeyMissing
from authproxy.core.model import (
    EMPTY,
    Connection,
    ConnectionKey,
    Environment,
    Event,
    FlowStatus,
    NewGrant,
    State,
    TokenSet,
)
from authproxy.core.secret import Secret
from authproxy.store.admission import demand_enabled
from authproxy.store.base import Backend, Contended, GrantChanged, Row, Transaction, Value, damaged
from authproxy.store.events import clean, encode, mended, write_events
from authproxy.store.revocations import Owing, owe
from authproxy.store.sealing import Safe

_log = structlog.get_logger()

_BY_KEY: Final = "SELECT * FROM connections WHERE tenant = ? AND user_id = ? AND provider = ? AND account = ?"
_SPEND: Final = """INSERT INTO spent (connection_id, digest, generation) VALUES (?, ?, ?)
    ON CONFLICT (connection_id, digest) DO UPDATE SET generation = excluded.generation"""
_GRANT_FIELDS: Final = (
    "client_id",
    "grant_id",
    "generation",
    "scopes",
    "requested_scopes",
    "expires_at",
    "lifetime",
    "refresh_expires_at",
    "extra",
    "provider_account",
    "consented_at",
    "obtained_at",
    "access_token",
    "refresh_token",
    "refresh_digest",
)
_INSERT: Final = (
    "INSERT INTO connections (id, tenant, user_id, provider, account, state, "  # noqa: S608 - fixed words
    + ", ".join(_GRANT_FIELDS)
    + ") VALUES (?, ?, ?, ?, ?, 'active', "
    + ", ".join("?" for _ in _GRANT_FIELDS)
    + ") ON CONFLICT (tenant, user_id, provider, account) DO NOTHING RETURNING *"
)
_REPLACE: Final = (
    "UPDATE connections SET state = 'active', reason = NULL, failures = 0, retry_at = NULL, last_error = NULL, "  # noqa: S608
    "intent_digest = NULL, intent_at = NULL, intent_by = NULL, "
    + ", ".join(f"{name} = ?" for name in _GRANT_FIELDS)
    + " WHERE id = ? AND generation = ? AND state = ? RETURNING *"
)
_COMPLETE_FLOW: Final = """UPDATE flows SET status = ?, connection_id = ?, ended_at = ?, verifier = NULL, held = NULL
    WHERE id = ? AND status IN ('exchanging', 'confirming') RETURNING id"""
_WIPE: Final = """UPDATE connections SET state = 'disconnected', reason = ?, generation = generation + 1,
    access_token = NULL, refresh_token = NULL, refresh_digest = NULL, expires_at = NULL, refresh_expires_at = NULL,
    failures = 0, retry_at = NULL, last_error = NULL, intent_digest = NULL, intent_at = NULL, intent_by = NULL
    WHERE id = ? AND generation = ? RETURNING id"""
_THROUGH: Final = """SELECT 1 AS one FROM connections
    WHERE provider = ? AND client_id = ? AND state IN ('active', 'misconfigured')"""
_THEIRS: Final = "tenant = ? AND user_id IN (?, ?)"
SPENT_KEPT: Final = 200  # generations; digests older than that guard against nothing that still lives


Listing: TypeAlias = list[Connection]


class Connections:
    """The connections of a store."""

    def __init__(
        self, backend: Backend, safe: Safe, environment: Environment, clock: Callable[[], float]
    ) -> None:
        self.backend = backend
        self.environment = environment
        self.clock = clock
        self._safe = safe

    def digest(self, token: Secret) -> str:
        """A keyed digest of a token, the same for the life of the store (E12)."""
        return self._safe.digest(token)

    async def find(self, key: ConnectionKey, *, inspect: bool = False) -> Connection | None:
        """The live connection of this key; None: there definitely is none. A tombstone is none (E06, I01). With
        `inspect` one that cannot be opened says so, as in `list`."""
        row = await self._row_of(key)
        return None if row is None else self._inspect(row) if inspect else self._read(row)

    async def get(
        self, connection_id: str, *, tenant: str | None, inspect: bool = False
    ) -> Connection | None:
        """One connection by id, tombstones included; `tenant` None is for operators."""
        row = await self._row_by_id(connection_id)
        if row is None or (tenant is not None and row["tenant"] != tenant):
            return None
        return self._inspect(row) if inspect else self._read(row)

    async def access(self, key: ConnectionKey) -> tuple[Connection, Secret] | None:
        """The live connection with its access token opened, and nothing else opened."""
        row = await self._row_of(key)
        if row is None:
            return None
        return self._read(row), self._safe.open(row["access_token"], cell_name(row, "access_token"))

    async def is_connected(
        self, key: ConnectionKey, client_id: str, account: str | None, other: str | None = None
    ) -> bool:
        """Whether a live connection through this client may be `account`'s at the key's provider: one that is known
        to be, of whatever tenant, or, where that is not known, one of the key's user or of the `other` user."""
        users = (key.tenant, key.user, key.user if other is None else other)
        if account is None:
            rows = await self.backend.read(f"{_THROUGH} AND {_THEIRS}", key.provider, client_id, *users)
        else:
            known = f"{_THROUGH} AND (provider_account = ? OR (provider_account IS NULL AND {_THEIRS}))"
            rows = await self.backend.read(known, key.provider, client_id, account, *users)
        return bool(rows)

    async def generation(self, connection_id: str) -> tuple[int, State] | None:
        """The cheap look at what a held token may have missed."""
        rows = await self.backend.read(
            "SELECT generation, state FROM connections WHERE id = ?", connection_id
        )
        return (rows[0]["generation"], _state(rows[0]["state"])) if rows else None

    async def list(
        self,
        *,
        tenant: str | None,
        user: str | None = None,
        provider: str | None = None,
        state: State | None = None,
        limit: int = 100,
        after: str | None = None,
        skip: int = 0,
    ) -> Listing:
        """Connections by id, from behind `after`, without the first `skip`; tombstones only where `state` asks.

        A row whose cells cannot be opened is in the list with `reason` "unreadable" and the cause in
        `last_error`; the others are not disturbed by it (E03).
        """
        where, values = ["id > ?"], [after or ""]
        for column, wanted in (
            ("tenant", tenant),
            ("user_id", user),
            ("provider", provider),
            ("state", state),
        ):
            if wanted is not None:
                where.append(f"{column} = ?")
                values.append(str(wanted))
        if state is None:
            where.append("state <> 'disconnected'")
        sql = f"SELECT * FROM connections WHERE {' AND '.join(where)} ORDER BY id LIMIT ? OFFSET ?"  # noqa: S608
        rows = await self.backend.read(sql, *values, limit, skip)
        return [self._inspect(row) for row in rows]

    async def due(self, before: int, *, limit: int = 500) -> Listing:
        """Active connections that can be refreshed and whose access token ends before `before`, soonest first."""
        rows = await self.backend.read(
            "SELECT * FROM connections WHERE state = 'active' AND refresh_token IS NOT NULL AND expires_at < ? "
            "ORDER BY expires_at, id LIMIT ?",
            before,
            limit,
        )
        return [self._inspect(row) for row in rows]

    async def counts(self) -> Mapping[tuple[str, State], int]:
        """How many connections each provider has in each state; what makes no sense here counts as misconfigured, as
        it is listed, and takes no process out of service (E03, E13)."""
        rows = await self.backend.read(
            "SELECT provider, state, count(*) AS n FROM connections GROUP BY provider, state"
        )
        counts: Counter[tuple[str, State]] = Counter()
        for row in rows:
            known = row["state"] in State.__members__.values()
            counts[row["provider"], State(row["state"]) if known else State.MISCONFIGURED] += row["n"]
        return counts

    async def keep_grant(
        self, grant: NewGrant, events: Sequence[Event], *, completes: str | None = None
    ) -> Connection:
        """Makes a finished consent or an import the connection's grant, in one transaction with its events.

        The id of an earlier connection of this key stays; generation rises; the old refresh token counts as spent
        unless the provider gave the same again. A refresh in flight on the old grant will not be able to commit.
        `completes` names the flow that ends with this. Raises GrantChanged where that is no longer being exchanged or
        confirmed, and UserDisabled; then nothing is written.
        """
        new_id = f"con_{uuid.uuid4().hex}"

        async def work(tx: Transaction) -> Row:
            await demand_enabled(tx, grant.key.tenant, grant.key.user)
            old = next(iter(await tx.run(_BY_KEY, *_key_values(grant.key))), None)
            if old is None:
                values = self._grant_values(grant, new_id, 1)
                rows = await tx.run(_INSERT, new_id, *_key_values(grant.key), *values)
            else:
                values = self._grant_values(grant, old["id"], old["generation"] + 1)
                rows = await tx.run(_REPLACE, *values, old["id"], old["generation"], old["state"])
            if not rows:
                raise Contended  # another consent for the same key came in between; theirs is first
            row = rows[0]
            await spend(tx, row, None if old is None else old["refresh_digest"])
            if completes is not None:
                status = str(FlowStatus.COMPLETED)
                if not await tx.run(_COMPLETE_FLOW, status, row["id"], grant.at, completes):
                    raise GrantChanged("the flow has ended meanwhile")
            await write_events(tx, events, connection_id=row["id"])
            if old is not None:
                await write_events(tx, mended(grant, row, old["state"]))
            return row

        return self._read(await self.backend.write(work))

    async def disconnect(
        self,
        connection_id: str,
        events: Sequence[Event],
        *,
        reason: str | None = None,
        owed: Owing | None = None,
    ) -> TokenSet | None:
        """Makes the connection a tombstone and wipes its secrets, in one transaction.

        Returns what was held, to be revoked at the provider; None if there was nothing to disconnect, or nothing that
        could be opened. With `owed` it stays, sealed, among the revocations until it is given back (I09).
        """

        async def work(tx: Transaction) -> Row | None:
            rows = await tx.run("SELECT * FROM connections WHERE id = ?", connection_id)
            if not rows or rows[0]["state"] == State.DISCONNECTED:
                return None
            old = rows[0]
            await wipe(tx, old, reason)
            await write_events(tx, events, connection_id=connection_id)
            if owed is not None:
                await owe(tx, self._safe, old, self.opened, owed)
            return old

        held = await self.backend.write(work)
        if held is None:
            return None
        try:
            return self.opened(held)
        except KeyMissing as error:
            _log.warning("disconnected_unreadable", connection=connection_id, reason=error.reason)
            return None

    def opened(self, row: Row) -> TokenSet:
        """All tokens of a row, opened."""
        refresh = row["refresh_token"]
        return TokenSet(
            access_token=self._safe.open(row["access_token"], cell_name(row, "access_token")),
            refresh_token=None
            if refresh is None
            else self._safe.open(refresh, cell_name(row, "refresh_token")),
            expires_at=row["expires_at"],
            lifetime=row["lifetime"],
            refresh_expires_at=row["refresh_expires_at"],
            scopes=tuple(json.loads(row["scopes"])),
            extra=json.loads(row["extra"]),
        )

    def sealed(self, tokens: TokenSet, name: Mapping[str, Any]) -> tuple[bytes, bytes | None, str | None]:
        """Both tokens as cells of the row `name`, and the refresh token's digest."""
        refresh = tokens.refresh_token or None  # an empty one is none
        return (
            self._safe.seal(tokens.access_token, cell_name(name, "access_token")),
            None if refresh is None else self._safe.seal(refresh, cell_name(name, "refresh_token")),
            None if refresh is None else self.digest(refresh),
        )

    def _grant_values(self, grant: NewGrant, connection_id: str, generation: int) -> Sequence[Value]:
        key, tokens = grant.key, grant.tokens
        name = {
            "id": connection_id,
            "tenant": key.tenant,
            "user_id": key.user,
            "provider": key.provider,
            "account": key.account,
            "client_id": grant.client_id,
            "grant_id": grant.grant_id,
            "generation": generation,
        }
        access, refresh, digest = self.sealed(tokens, name)
        return [
            grant.client_id,
            grant.grant_id,
            generation,
            encode(tokens.scopes),
            encode(grant.requested_scopes),
            bounded(tokens.expires_at),
            bounded(tokens.lifetime),
            bounded(tokens.refresh_expires_at),
            encode(tokens.extra),
            clean(grant.provider_account),
            grant.at,
            grant.at,
            access,
            refresh,
            digest,
        ]

    async def _row_of(self, key: ConnectionKey) -> Row | None:
        rows = await self.backend.read(_BY_KEY + " AND state <> 'disconnected'", *_key_values(key))
        return rows[0] if rows else None

    async def _row_by_id(self, connection_id: str) -> Row | None:
        rows = await self.backend.read("SELECT * FROM connections WHERE id = ?", connection_id)
        return rows[0] if rows else None

    def _inspect(self, row: Row) -> Connection:
        """A row as a connection, whatever is wrong with it."""
        try:
            connection = self._read(row)
        except KeyMissing:
            return _unreadable(row, self.environment)
        if connection.state is State.DISCONNECTED:
            return connection
        try:
            self.opened(row)
        except KeyMissing as error:
            return dataclasses.replace(connection, reason="unreadable", last_error=error.reason)
        return connection

    def _read(self, row: Row) -> Connection:
        return connection_of(row, self.environment)


async def wipe(tx: Transaction, old: Row, reason: str | None) -> None:
    """Makes a tombstone of a row as it was read. Raises Contended where those are no longer the tokens to give back."""
    if not await tx.run(_WIPE, reason, old["id"], old["generation"]):
        raise Contended
    if old["refresh_digest"] is not None:
        await tx.run(_SPEND, old["id"], old["refresh_digest"], old["generation"])


async def spend(tx: Transaction, row: Row, digest: str | None) -> None:
    """Remembers a refresh token that `row` no longer holds as spent, and forgets what is too old to matter (A22)."""
    if digest is not None and digest != row["refresh_digest"]:
        await tx.run(_SPEND, row["id"], digest, row["generation"])
    # Given out anew by the provider, so it is not spent, whatever was thought before.
    await tx.run("DELETE FROM spent WHERE connection_id = ? AND digest = ?", row["id"], row["refresh_digest"])
    oldest = row["generation"] - SPENT_KEPT
    await tx.run("DELETE FROM spent WHERE connection_id = ? AND generation < ?", row["id"], oldest)


def cell_name(row: Row | Mapping[str, Any], column: str) -> tuple[str | int | None, ...]:
    """All that a token's cell is bound to: moved to another row, owner, client, grant or generation, it stays shut."""
    return (
        "connections",
        column,
        row["id"],
        row["tenant"],
        row["user_id"],
        row["provider"],
        row["account"],
        row["client_id"],
        row["grant_id"],
        row["generation"],
    )


def bounded(number: int | None) -> int | None:
    """A number that a provider gave, where a database can hold it; an absurd one must not cost the token (A19)."""
    return number if number is not None and abs(number) < 2**62 else None


def _state(text: str) -> State:
    try:
        return State(text)
    except ValueError:
        raise damaged("this connection") from None


def connection_of(row: Row, environment: Environment) -> Connection:
    """A row without its secrets. Raises KeyMissing where it makes no sense."""
    try:
        return _connection_of(row, environment)
    except (ValueError, TypeError):
        raise damaged(f"connection {row['id']}") from None


def _connection_of(row: Row, environment: Environment) -> Connection:
    return Connection(
        id=row["id"],
        key=ConnectionKey(row["tenant"], row["user_id"], row["provider"], row["account"]),
        environment=environment,
        state=State(row["state"]),
        reason=row["reason"],
        client_id=row["client_id"],
        grant_id=row["grant_id"],
        generation=row["generation"],
        scopes=tuple(json.loads(row["scopes"])),
        requested_scopes=tuple(json.loads(row["requested_scopes"])),
        expires_at=row["expires_at"],
        lifetime=row["lifetime"],
        refresh_expires_at=row["refresh_expires_at"],
        refreshable=row["refresh_token"] is not None,
        extra=json.loads(row["extra"]),
        provider_account=row["provider_account"],
        consented_at=row["consented_at"],
        obtained_at=row["obtained_at"],
        failures=row["failures"],
        retry_at=row["retry_at"],
        last_error=row["last_error"],
    )


def _unreadable(row: Row, environment: Environment) -> Connection:
    return Connection(
        id=row["id"],
        key=ConnectionKey(row["tenant"], row["user_id"], row["provider"], row["account"]),
        environment=environment,
        state=State.MISCONFIGURED,
        reason="unreadable",
        client_id=row["client_id"],
        grant_id=row["grant_id"],
        generation=row["generation"],
        scopes=(),
        requested_scopes=(),
        expires_at=None,
        lifetime=None,
        refresh_expires_at=None,
        refreshable=False,
        extra=EMPTY,
        provider_account=None,
        consented_at=row["consented_at"],
        obtained_at=row["obtained_at"],
        last_error="row_damaged",
    )


def _key_values(key: ConnectionKey) -> tuple[str, str, str, str]:
    return (key.tenant, key.user, key.provider, key.account)
