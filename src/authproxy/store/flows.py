"""Consents in progress as rows: claimed by compare-and-set, so that exactly one finishes each."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import fields as fields_of
from typing import Final, NamedTuple

import structlog

from authproxy.core.errors import KeyMissing
from authproxy.core.model import ConnectionKey, Environment, Event, Flow, FlowStatus, TokenSet
from authproxy.core.secret import Secret
from authproxy.store.admission import demand_enabled
from authproxy.store.base import Backend, Row, Transaction, Value, damaged
from authproxy.store.events import encode, write_events
from authproxy.store.sealing import Safe

_log = structlog.get_logger()

OPEN: Final = (FlowStatus.NOT_STARTED, FlowStatus.PENDING)
_MOVABLE: Final = frozenset(
    {"reason", "connection_id", "browser_digest", "state_digest", "redirect_uri", "forced", "expires_at"}
)
_TOKEN_FIELDS: Final = tuple(field.name for field in fields_of(TokenSet))
_INSERT: Final = """INSERT INTO flows (id, tenant, user_id, provider, account, agent, scopes, status, reason,
    client_id, redirect_uri, next_uri, created_at, expires_at, state_digest, browser_digest, forced, connection_id,
    verifier)
    SELECT ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?
    WHERE (SELECT count(*) FROM flows WHERE tenant = ? AND user_id = ? AND ended_at IS NULL AND expires_at > ?) < ?
    RETURNING id"""
_OPEN_FOR: Final = """SELECT * FROM flows WHERE tenant = ? AND user_id = ? AND provider = ? AND account = ?
    AND ended_at IS NULL AND status IN ('not_started', 'pending') AND expires_at > ? ORDER BY created_at DESC"""
_PENDING: Final = """SELECT count(*) AS n FROM flows
    WHERE tenant = ? AND user_id = ? AND ended_at IS NULL AND expires_at > ?"""
_EXPIRE: Final = """UPDATE flows SET status = 'expired', reason = COALESCE(reason, 'deadline'), ended_at = ?,
    verifier = NULL, held = NULL
    WHERE ended_at IS NULL AND expires_at + CASE WHEN status = 'exchanging' THEN ? ELSE 0 END <= ? RETURNING *"""
EXCHANGE_GRACE: Final = (
    120  # seconds: an exchange begun in time may end; one that died is not stuck for ever (H05)
)
ENDED_KEPT: Final = 7 * 86400  # seconds that an ended flow can still be asked about


class Held(NamedTuple):
    """Tokens of a consent that waits for `confirm_user`."""

    tokens: TokenSet
    provider_account: str | None


class Flows:
    """The flows of a store."""

    def __init__(
        self, backend: Backend, safe: Safe, environment: Environment, clock: Callable[[], float]
    ) -> None:
        self.backend = backend
        self.environment = environment
        self.clock = clock
        self._safe = safe

    async def create_flow(
        self, flow: Flow, verifier: Secret, *, events: Sequence[Event] = (), most: int = 2**31
    ) -> bool:
        """Keeps a new flow; False, with nothing kept, if tenant and user have `most` unended ones already (H06).
        Raises UserDisabled."""
        values: tuple[Value, ...] = (
            flow.id,
            flow.key.tenant,
            flow.key.user,
            flow.key.provider,
            flow.key.account,
            flow.agent,
            encode(flow.scopes),
            str(flow.status),
            flow.reason,
            flow.client_id,
            flow.redirect_uri,
            flow.next_uri,
            flow.created_at,
            flow.expires_at,
            flow.state_digest,
            flow.browser_digest,
            int(flow.forced),
            flow.connection_id,
            self._safe.seal(verifier, _name(flow.id, flow.key, flow.client_id, "verifier")),
        )

        async def work(tx: Transaction) -> bool:
            # One at a time also so that two cannot both count one below the most.
            await demand_enabled(tx, flow.key.tenant, flow.key.user)
            if not await tx.run(_INSERT, *values, flow.key.tenant, flow.key.user, flow.created_at, most):
                return False
            await write_events(tx, events)
            return True

        return await self.backend.write(work)

    async def flow(self, flow_id: str) -> Flow | None:
        """One flow, ended ones included for a week."""
        rows = await self.backend.read("SELECT * FROM flows WHERE id = ?", flow_id)
        return flow_of(rows[0]) if rows else None

    async def flow_by_state(self, state_digest: str) -> Flow | None:
        """The flow whose `state` has this digest."""
        rows = await self.backend.read("SELECT * FROM flows WHERE state_digest = ?", state_digest)
        return flow_of(rows[0]) if rows else None

    async def open_flow_for(self, key: ConnectionKey, scopes: Iterable[str], now: int) -> Flow | None:
        """The newest flow for this key that asks for just these scopes and can still be used."""
        wanted = frozenset(scopes)
        rows = await self.backend.read(_OPEN_FOR, key.tenant, key.user, key.provider, key.account, now)
        return next((flow for flow in _sound(rows) if frozenset(flow.scopes) == wanted), None)

    async def open_flows(self, key: ConnectionKey, now: int) -> list[Flow]:
        """All flows for this key that can still be used, newest first."""
        rows = await self.backend.read(_OPEN_FOR, key.tenant, key.user, key.provider, key.account, now)
        return _sound(rows)

    async def move_flow(
        self,
        flow_id: str,
        *,
        expect: FlowStatus | Collection[FlowStatus],
        to: FlowStatus,
        events: Sequence[Event] = (),
        if_state: str | None = None,
        verifier: Secret | None = None,
        **fields: str | int | None,
    ) -> Flow | None:
        """Moves a flow on; None, with nothing changed, if it was in none of the `expect`ed statuses, or if its state
        has another digest than `if_state`, where that is given.

        `fields` are columns that change with it. A flow that ends loses its verifier and held tokens; an end is
        never left again.
        """
        expected = [expect] if isinstance(expect, FlowStatus) else [*expect]
        if not fields.keys() <= _MOVABLE:
            raise TypeError(f"not to be moved: {', '.join(sorted(fields.keys() - _MOVABLE))}")
        changes: dict[str, Value] = {"status": str(to), **fields}
        if to.ended:
            changes |= {"ended_at": int(self.clock()), "verifier": None, "held": None}
        elif verifier is not None:
            rows = await self.backend.read("SELECT * FROM flows WHERE id = ?", flow_id)
            if not rows:
                return None
            changes["verifier"] = self._safe.seal(verifier, cell_name(rows[0], "verifier"))
        words = ", ".join(f"{column} = ?" for column in changes)
        marks = ", ".join("?" for _ in expected)
        seen = "" if if_state is None else " AND state_digest = ?"
        sql = f"UPDATE flows SET {words} WHERE id = ? AND ended_at IS NULL AND status IN ({marks}){seen} RETURNING *"  # noqa: S608
        which = [flow_id, *(str(status) for status in expected), *([] if if_state is None else [if_state])]

        async def work(tx: Transaction) -> Row | None:
            rows = await tx.run(sql, *changes.values(), *which)
            if not rows:
                return None
            await write_events(tx, events)
            return rows[0]

        row = await self.backend.write(work)
        return None if row is None else flow_of(row)

    async def widen_flow(
        self, flow: Flow, scopes: Sequence[str], *, events: Sequence[Event] = ()
    ) -> Flow | None:
        """Lets a flow that nobody has opened ask for `scopes` instead; None, with nothing changed, if somebody has, or
        if it asks for others than `flow` meanwhile."""
        sql = "UPDATE flows SET scopes = ? WHERE id = ? AND status = ? AND scopes = ? AND ended_at IS NULL RETURNING *"
        values = (encode(scopes), flow.id, str(FlowStatus.NOT_STARTED), encode(flow.scopes))

        async def work(tx: Transaction) -> Row | None:
            rows = await tx.run(sql, *values)
            if not rows:
                return None
            await write_events(tx, events)
            return rows[0]

        row = await self.backend.write(work)
        return None if row is None else flow_of(row)

    async def flow_verifier(self, flow_id: str) -> Secret | None:
        """The PKCE verifier, as long as the flow has not ended."""
        row = await self._cell(flow_id, "verifier")
        return None if row is None else self._safe.open(row["verifier"], cell_name(row, "verifier"))

    async def hold_tokens(
        self,
        flow_id: str,
        tokens: TokenSet,
        *,
        provider_account: str | None = None,
        events: Sequence[Event] = (),
    ) -> bool:
        """Keeps what the exchange gave and moves the flow from EXCHANGING to CONFIRMING, in one transaction; False,
        with nothing kept, if it has ended meanwhile. Raises UserDisabled."""
        row = await self._row(flow_id)
        if row is None:
            return False
        fields = {name: getattr(tokens, name) for name in _TOKEN_FIELDS} | {"extra": dict(tokens.extra)}
        cell = self._safe.seal_fields(fields | {"provider_account": provider_account}, cell_name(row, "held"))

        async def work(tx: Transaction) -> bool:
            await demand_enabled(tx, row["tenant"], row["user_id"])
            sql = "UPDATE flows SET status = ?, held = ? WHERE id = ? AND status = ? RETURNING id"
            moved = (str(FlowStatus.CONFIRMING), cell, flow_id, str(FlowStatus.EXCHANGING))
            if not await tx.run(sql, *moved):
                return False
            await write_events(tx, events)
            return True

        return await self.backend.write(work)

    async def held_tokens(self, flow_id: str) -> Held | None:
        """What `hold_tokens` kept, until the flow ends."""
        row = await self._cell(flow_id, "held")
        return None if row is None else held_of(row, self._safe)

    async def pending_flows(self, tenant: str, user: str) -> int:
        """How many flows of this user have not ended and are not over time."""
        rows = await self.backend.read(_PENDING, tenant, user, int(self.clock()))
        return int(rows[0]["n"])

    async def sweep_flows(self, now: int) -> int:
        """Ends flows that are over time, and forgets those that ended long ago. Returns how many ended."""

        async def work(tx: Transaction) -> int:
            rows = await tx.run(_EXPIRE, now, EXCHANGE_GRACE, now)
            await write_events(tx, [_expired(row, now) for row in rows])
            await tx.run("DELETE FROM flows WHERE ended_at < ?", now - ENDED_KEPT)
            return len(rows)

        return await self.backend.write(work)

    async def _row(self, flow_id: str) -> Row | None:
        rows = await self.backend.read("SELECT * FROM flows WHERE id = ?", flow_id)
        return rows[0] if rows else None

    async def _cell(self, flow_id: str, column: str) -> Row | None:
        row = await self._row(flow_id)
        return None if row is None or row[column] is None else row


def held_of(row: Row, safe: Safe) -> Held:
    """What a flow's row holds back. Raises KeyMissing where it cannot be opened."""
    fields = safe.open_fields(row["held"], cell_name(row, "held"))
    account = fields.pop("provider_account")
    refresh = fields.pop("refresh_token")
    return Held(
        TokenSet(
            access_token=Secret(fields.pop("access_token")),
            refresh_token=None if refresh is None else Secret(refresh),
            scopes=tuple(fields.pop("scopes")),
            **fields,
        ),
        account,
    )


def cell_name(row: Row, column: str) -> tuple[str, ...]:
    """All that a flow's cell is bound to."""
    key = ConnectionKey(row["tenant"], row["user_id"], row["provider"], row["account"])
    return _name(row["id"], key, row["client_id"], column)


def _name(flow_id: str, key: ConnectionKey, client_id: str, column: str) -> tuple[str, ...]:
    return ("flows", column, flow_id, key.tenant, key.user, key.provider, key.account, client_id)


def _expired(row: Row, now: int) -> Event:
    return Event(
        kind="flow.expired",
        at=now,
        tenant=row["tenant"],
        user=row["user_id"],
        provider=row["provider"],
        account=row["account"],
        connection_id=row["connection_id"],
        agent=row["agent"],
        data={"flow": row["id"][:13]},  # whoever has the whole of it has the link, and may ask for a new one
    )


def _sound(rows: Sequence[Row]) -> list[Flow]:
    """The flows that can be read; a damaged one ends with its time, and is in nobody's way until then (E03)."""
    flows = []
    for row in rows:
        try:
            flows.append(flow_of(row))
        except KeyMissing:
            _log.error("flow_row_damaged", flow=row["id"][:13])
    return flows


def flow_of(row: Row) -> Flow:
    """A row without its secrets. Raises KeyMissing where it makes no sense."""
    try:
        return _flow_of(row)
    except (ValueError, TypeError):
        raise damaged("this flow") from None


def _flow_of(row: Row) -> Flow:
    return Flow(
        id=row["id"],
        key=ConnectionKey(row["tenant"], row["user_id"], row["provider"], row["account"]),
        agent=row["agent"],
        scopes=tuple(json.loads(row["scopes"])),
        status=FlowStatus(row["status"]),
        reason=row["reason"],
        client_id=row["client_id"],
        redirect_uri=row["redirect_uri"],
        next_uri=row["next_uri"],
        created_at=row["created_at"],
        expires_at=row["expires_at"],
        state_digest=row["state_digest"],
        browser_digest=row["browser_digest"],
        forced=bool(row["forced"]),
        connection_id=row["connection_id"],
    )
