"""Users as rows: who is disabled, and everything of theirs that ends in the transaction that says so."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

import structlog

from authproxy.core.errors import KeyMissing
from authproxy.core.model import ConnectionKey, Event, FlowStatus, UserStanding
from authproxy.store.admission import USER_DISABLED, demand_enabled, disabled, one_at_a_time
from authproxy.store.base import Backend, Row, Transaction, Value
from authproxy.store.connections import Connections, wipe
from authproxy.store.events import event_of, write_events
from authproxy.store.flows import held_of
from authproxy.store.revocations import Owed, Owing, owe, owe_once, owing_of

_log = structlog.get_logger()

_PAGE: Final = 5000
_ROW: Final = "SELECT * FROM users WHERE tenant = ? AND user_id = ?"
_SET: Final = """INSERT INTO users
    (tenant, user_id, disabled_at, grants_kept, reason, changed_by, changed_at, revision)
    SELECT ?, ?, ?, ?, ?, ?, ?, COALESCE(MAX(revision), 0) + 1 FROM users WHERE true
    ON CONFLICT (tenant, user_id) DO UPDATE SET disabled_at = excluded.disabled_at,
    grants_kept = excluded.grants_kept, reason = excluded.reason, changed_by = excluded.changed_by,
    changed_at = excluded.changed_at, revision = excluded.revision RETURNING *"""
_CHANGES: Final = "SELECT * FROM users WHERE revision > ? ORDER BY revision LIMIT ?"
_LIVE: Final = """SELECT * FROM connections
    WHERE tenant = ? AND user_id = ? AND state <> 'disconnected' ORDER BY id"""
_FLOWS: Final = "SELECT * FROM flows WHERE tenant = ? AND user_id = ? AND ended_at IS NULL ORDER BY id"
_END_FLOW: Final = """UPDATE flows SET status = ?, reason = ?, ended_at = ?, verifier = NULL, held = NULL
    WHERE id = ? AND ended_at IS NULL RETURNING id"""
_SESSIONS: Final = """UPDATE sessions SET revoked_at = ?
    WHERE tenant = ? AND user_id = ? AND revoked_at IS NULL AND expires_at > ? RETURNING id, agent"""
_KNOWN: Final = """SELECT 1 AS one FROM connections WHERE tenant = ? AND user_id = ?
    UNION SELECT 1 FROM flows WHERE tenant = ? AND user_id = ?
    UNION SELECT 1 FROM sessions WHERE tenant = ? AND user_id = ?"""
_NAMES: Final = (
    """SELECT user_id FROM users WHERE tenant = ? UNION SELECT user_id FROM connections WHERE tenant = ?"""
)
_STANDING: Final = """SELECT n.user_id AS name, u.disabled_at, u.grants_kept, u.reason, u.changed_by, u.changed_at,
    (SELECT count(*) FROM connections c
        WHERE c.tenant = ? AND c.user_id = n.user_id AND c.state <> 'disconnected') AS connections,
    (SELECT count(*) FROM revocations r
        WHERE r.tenant = ? AND r.user_id = n.user_id AND r.status = 'pending') AS revocations"""
_OF_USER: Final = """SELECT * FROM events WHERE tenant = ? AND user_id = ? AND kind IN ('user.disabled', 'user.enabled')
    ORDER BY id"""

Owings = Callable[[], Owing]


class Change(NamedTuple):
    """One row as it was changed last. A greater `revision` was committed later."""

    revision: int
    tenant: str
    user: str
    disabled: bool


class Ended(NamedTuple):
    """A connection that ended with its user. `owed` None: its tokens cannot be opened, so nobody can give them back."""

    connection_id: str
    key: ConnectionKey
    owed: Owed | None


class Disabling(NamedTuple):
    """What one transaction did. `changed` is false where the user was disabled already."""

    changed: bool
    ended: Sequence[Ended]
    flows: int


class Users(Connections):
    """Who of a store's users is disabled."""

    backend: Backend

    async def disable_user(
        self,
        tenant: str,
        user: str,
        *,
        at: int,
        by: str,
        reason: str | None,
        keep_grants: bool,
        owing: Owings,
    ) -> Disabling:
        """Nothing new for this user from here on, whether or not they are known here; every consent in progress ends,
        and every connection too, unless `keep_grants`, all in one transaction: nothing can be left half done. Grants
        that were kept are ended by another call without it."""

        async def work(tx: Transaction) -> Disabling:
            await one_at_a_time(tx, tenant, user)
            before = next(iter(await tx.run(_ROW, tenant, user)), None)
            stands = before is not None and before["disabled_at"] is not None
            kept = keep_grants and not (before is not None and stands and not before["grants_kept"])
            changed = before is None or not stands or bool(before["grants_kept"]) != kept
            if changed:
                since = before["disabled_at"] if before is not None and stands else at
                said = before["reason"] if before is not None and stands and reason is None else reason
                await _set(tx, tenant, user, since, kept, said, by, at)
            ended = (
                []
                if keep_grants
                else [await self._end(tx, row, at, by, owing()) for row in await tx.run(_LIVE, tenant, user)]
            )
            flows = await tx.run(_FLOWS, tenant, user)
            for flow in flows:
                await self._end_flow(tx, flow, at, kept=keep_grants)
            if changed:
                data = {"reason": reason, "by": by, "grants_kept": kept, "disconnected": len(ended)}
                await write_events(tx, [Event("user.disabled", at, tenant, user, agent=by, data=data)])
            return Disabling(changed, ended, len(flows))

        return await self.backend.write(work)

    async def enable_user(self, tenant: str, user: str, *, at: int, by: str, reason: str | None) -> bool:
        """The user may be acted for again; False where they could be all along. What has ended stays so, and unless
        their grants were kept, so do the sessions that were minted for them before."""

        async def work(tx: Transaction) -> bool:
            await one_at_a_time(tx, tenant, user)
            rows = await tx.run(_ROW, tenant, user)
            if not rows or rows[0]["disabled_at"] is None:
                return False
            await _set(tx, tenant, user, None, False, reason, by, at)
            events = [Event("user.enabled", at, tenant, user, agent=by, data={"reason": reason, "by": by})]
            if not rows[0]["grants_kept"]:
                for row in await tx.run(_SESSIONS, at, tenant, user, at):
                    data = {"session_id": row["id"], "name": row["agent"], "reason": USER_DISABLED}
                    events.append(Event("session.revoked", at, tenant, user, agent=by, data=data))
            await write_events(tx, events)
            return True

        return await self.backend.write(work)

    async def user(self, tenant: str, user: str) -> UserStanding:
        """How it stands with one user, known here or not."""
        sql = f"{_STANDING} FROM (SELECT ? AS user_id) n LEFT JOIN users u ON u.tenant = ? AND u.user_id = n.user_id"
        rows = await self.backend.read(sql, tenant, tenant, user, tenant)
        return _standing(tenant, rows[0])

    async def users(
        self, tenant: str, *, is_disabled: bool | None = None, limit: int = 100, after: str | None = None
    ) -> Sequence[UserStanding]:
        """Everybody who ever had a connection or was disabled, by name, from behind `after`."""
        where, values = ["n.user_id > ?"], [after or ""]
        if is_disabled is not None:
            where.append(f"u.disabled_at IS {'NOT ' if is_disabled else ''}NULL")
        sql = (
            f"{_STANDING} FROM ({_NAMES}) n LEFT JOIN users u ON u.tenant = ? AND u.user_id = n.user_id "
            f"WHERE {' AND '.join(where)} ORDER BY n.user_id LIMIT ?"
        )
        given: list[Value] = [tenant, tenant, tenant, tenant, tenant, *values, limit]
        return [_standing(tenant, row) for row in await self.backend.read(sql, *given)]

    async def user_known(self, tenant: str, user: str) -> bool:
        """Whether anything but a disabling was ever about this very name."""
        return bool(await self.backend.read(_KNOWN, tenant, user, tenant, user, tenant, user))

    async def user_names(self, tenant: str, *, limit: int) -> Sequence[str]:
        """Names of those who have or had connections."""
        sql = "SELECT DISTINCT user_id FROM connections WHERE tenant = ? LIMIT ?"
        return [row["user_id"] for row in await self.backend.read(sql, tenant, limit)]

    async def user_changes(self, after: int) -> Sequence[Change]:
        """What has changed since revision `after`, in order; all tenants. Not everything at once: ask until it is
        nothing."""
        rows = await self.backend.read(_CHANGES, after, _PAGE)
        return [
            Change(row["revision"], row["tenant"], row["user_id"], row["disabled_at"] is not None)
            for row in rows
        ]

    async def user_events(self, tenant: str, user: str) -> list[Event]:
        """When this user was disabled and enabled, oldest first."""
        return [event_of(row) for row in await self.backend.read(_OF_USER, tenant, user)]

    async def demand_user(self, tenant: str, user: str) -> None:
        """Raises UserDisabled, by what the store says now."""
        rows = await self.backend.read(_ROW, tenant, user)
        if rows and rows[0]["disabled_at"] is not None:
            raise disabled(user)

    async def _end(self, tx: Transaction, row: Row, at: int, by: str, owing: Owing) -> Ended:
        key = ConnectionKey(row["tenant"], row["user_id"], row["provider"], row["account"])
        await wipe(tx, row, USER_DISABLED)
        data = {"agent": by, "reason": USER_DISABLED}
        where = (key.tenant, key.user, key.provider, key.account)
        told = [Event("connection.disconnected", at, *where, data=data)]
        await write_events(tx, told, connection_id=row["id"])
        await owe(tx, self._safe, row, self.opened, owing)
        try:
            tokens = self.opened(row)
        except KeyMissing as error:
            _log.warning("disconnected_unreadable", connection=row["id"], reason=error.reason)
            return Ended(row["id"], key, None)
        owed = Owed(owing.id, row["id"], key, row["client_id"], 0, owing.at, tokens)
        return Ended(row["id"], key, owed)

    async def _end_flow(self, tx: Transaction, row: Row, at: int, *, kept: bool) -> None:
        """What a consent holds back is owed to its provider, but not beside a grant of the same user that is kept:
        many providers revoke by user and client."""
        if row["held"] is not None and not (kept and await self._connected(tx, row)):
            try:
                held = held_of(row, self._safe)
            except KeyMissing as error:
                _log.warning("held_unreadable", flow=row["id"][:13], reason=error.reason)
            else:
                named: dict[str, Any] = {name: row[name] for name in _WHOSE} | {
                    "connection_id": row["id"][:13]
                }
                await owe_once(tx, self._safe, named, held.tokens, owing_of(row["id"], at))
        await tx.run(_END_FLOW, str(FlowStatus.FAILED), USER_DISABLED, at, row["id"])
        data = {"flow": row["id"][:13], "reason": USER_DISABLED}
        where = (row["tenant"], row["user_id"], row["provider"], row["account"])
        await write_events(tx, [Event("flow.failed", at, *where, agent=row["agent"], data=data)])

    async def _connected(self, tx: Transaction, row: Row) -> bool:
        found = await tx.run(_LIVE, row["tenant"], row["user_id"])
        return any(one["provider"] == row["provider"] for one in found)


_WHOSE: Final = ("tenant", "user_id", "provider", "account", "client_id")


async def _set(
    tx: Transaction,
    tenant: str,
    user: str,
    disabled_at: int | None,
    kept: bool,
    reason: str | None,
    by: str,
    at: int,
) -> None:
    await tx.alone("user revisions")  # committed in the order of their numbers, so that no reader misses one
    await tx.run(_SET, tenant, user, disabled_at, int(kept), reason, by, at)


def _standing(tenant: str, row: Row) -> UserStanding:
    return UserStanding(
        tenant=tenant,
        user=row["name"],
        disabled_at=row["disabled_at"],
        grants_kept=bool(row["grants_kept"]),
        reason=row["reason"],
        changed_by=row["changed_by"],
        changed_at=row["changed_at"],
        connections=row["connections"],
        revocations=row["revocations"],
    )


__all__ = ["Change", "Disabling", "Ended", "Users", "demand_enabled"]
