"""Calls that wait for a yes, as rows: what is asked for is sealed, and wiped when nobody needs to read it any more."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import structlog

from authproxy.core.errors import KeyMissing, Overloaded
from authproxy.core.model import Approval, ApprovalStatus, Caller, Event
from authproxy.store.base import Backend, Row, Transaction, Value, damaged
from authproxy.store.events import write_events
from authproxy.store.sealing import Safe

_log = structlog.get_logger()

MAX_PENDING: Final = 1000
"""Approvals of one agent, and of all that are named below it, that may wait at once."""
KEPT: Final = 30 * 86400
"""Seconds for which an approval is remembered after its time."""

Telling = Callable[[Approval], Sequence[Event]]
"""What is written into the outbox of an approval as it is stored."""

# A no stays one for whoever looks; only the request may be asked again, so the row lets go of its fingerprint.
_END: Final = """UPDATE approvals SET status = CASE status WHEN 'denied' THEN 'denied' ELSE 'expired' END,
    fingerprint = CASE status WHEN 'denied' THEN id ELSE fingerprint END, input = NULL
    WHERE status IN ('pending', 'approved', 'denied') AND fingerprint <> id AND expires_at <= ?"""
_EXPIRE: Final = f"{_END} AND tenant = ? AND fingerprint = ?"
_FIND: Final = """SELECT * FROM approvals
    WHERE tenant = ? AND fingerprint = ? AND status IN ('pending', 'approved', 'denied')"""
_INSERT: Final = """INSERT INTO approvals (id, tenant, agent, session, user_id, account, tool, fingerprint, approver,
    status, input, created_at, expires_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, 'pending', ?, ?, ?)"""
_PENDING: Final = """SELECT count(*) AS waiting FROM approvals WHERE tenant = ? AND status = 'pending'
    AND expires_at > ? AND (agent = ? OR substr(agent, 1, ?) = ?)"""
_WAITING: Final = "SELECT count(*) AS waiting FROM approvals WHERE status = 'pending' AND expires_at > ?"
_OWN: Final = "SELECT * FROM approvals WHERE tenant = ? AND id = ?"
_DECIDE: Final = """UPDATE approvals SET status = ?, decided_at = ?, decided_by = ?, expires_at = ?, input = NULL
    WHERE tenant = ? AND id = ? AND status = 'pending' AND expires_at > ? RETURNING *"""
# Not for who has ended since it was asked for: a call may have waited a while for its yes.
_USE: Final = """UPDATE approvals SET status = 'used' WHERE tenant = ? AND id = ? AND status = 'approved'
    AND expires_at > ?
    AND NOT EXISTS (SELECT 1 FROM agents WHERE agents.id = ?
        AND (agents.revoked_at IS NOT NULL OR agents.expires_at <= ?))
    AND NOT EXISTS (SELECT 1 FROM sessions WHERE sessions.id = approvals.session
        AND (sessions.revoked_at IS NOT NULL OR sessions.expires_at <= ?))
    RETURNING *"""


class Approvals:
    """The approvals of a store."""

    backend: Backend
    _safe: Safe

    async def ask_approval(self, new: Approval, given: Mapping[str, Any], tell: Telling) -> Approval:
        """The open approval of the same request, or this new one, kept with what was given for its approver to read.
        Raises Overloaded where too many of its agent's wait."""

        async def work(tx: Transaction) -> Approval:
            # whoever may name agents below its own has no more room for it
            root = new.agent.partition("/")[0]
            await tx.alone("approvals", new.tenant, root)
            await tx.run(_EXPIRE, new.created_at, new.tenant, new.fingerprint)
            if rows := await tx.run(_FIND, new.tenant, new.fingerprint):
                return _approval_of(rows[0])
            below = f"{root}/"
            (found,) = await tx.run(_PENDING, new.tenant, new.created_at, root, len(below), below)
            if found["waiting"] >= MAX_PENDING:
                raise Overloaded(f"{MAX_PENDING} calls of this agent wait for a yes", reason="approvals")
            cell = self._safe.seal_fields(given, _cell_name(new))
            await tx.run(
                _INSERT,
                new.id,
                new.tenant,
                new.agent,
                new.session,
                new.user,
                new.account,
                new.tool,
                new.fingerprint,
                new.approver,
                cell,
                new.created_at,
                new.expires_at,
            )
            await write_events(tx, tell(new))
            return new

        return await self.backend.write(work)

    async def approval(self, tenant: str, approval_id: str) -> Approval | None:
        """One approval, whatever became of it."""
        rows = await self.backend.read(_OWN, tenant, approval_id)
        return _approval_of(rows[0]) if rows else None

    async def approval_input(self, tenant: str, approval_id: str) -> Mapping[str, Any] | None:
        """What the call would be made with; None where that was wiped. Raises KeyMissing where it cannot be opened."""
        rows = await self.backend.read(_OWN, tenant, approval_id)
        if not rows or rows[0]["input"] is None:
            return None
        return self._safe.open_fields(rows[0]["input"], cell_name(rows[0]))

    async def approvals(
        self,
        tenant: str,
        *,
        now: int,
        asked_by: Caller | None = None,
        users: Sequence[str] = ("*",),
        user: str | None = None,
        status: ApprovalStatus | None = None,
        limit: int = 100,
        after: str | None = None,
    ) -> list[Approval]:
        """Approvals in the order of their making, from behind `after`; those whose time is over are told as expired.

        Of all there are those for `users` (ids, `*`, prefixes that end in `*`) and those that `asked_by` asked for.
        """
        seen, values = _seen(asked_by, users)
        where: list[str] = ["tenant = ?", f"({seen})"]
        values.insert(0, tenant)
        if user is not None:
            where.append("user_id = ?")
            values.append(user)
        if status is ApprovalStatus.EXPIRED:
            where.append("(status = 'expired' OR (status IN ('pending', 'approved') AND expires_at <= ?))")
            values.append(now)
        elif status is not None:
            where.append("status = ? AND (status NOT IN ('pending', 'approved') OR expires_at > ?)")
            values += [str(status), now]
        where.append("id > ?")
        sql = f"SELECT * FROM approvals WHERE {' AND '.join(where)} ORDER BY id LIMIT ?"  # noqa: S608 - constants
        found: list[Approval] = []
        last, more = after or "", True
        while more and len(found) < limit:  # once, unless a row is damaged
            rows = await self.backend.read(sql, *values, last, limit - len(found))
            more = len(rows) == limit - len(found)
            last = rows[-1]["id"] if rows else last
            found += _whole(rows)
        return found

    async def waiting_approvals(self, now: int) -> int:
        """How many calls wait for a yes, in all tenants."""
        (found,) = await self.backend.read(_WAITING, now)
        return int(found["waiting"])

    async def decide_approval(
        self,
        approval: Approval,
        to: ApprovalStatus,
        *,
        by: str,
        at: int,
        until: int,
        tell: Telling,
    ) -> Approval | None:
        """Approves or denies one that waits; None where it does not any more. Until `until` the word stands."""

        async def work(tx: Transaction) -> Approval | None:
            rows = await tx.run(_DECIDE, str(to), at, by, until, approval.tenant, approval.id, at)
            if not rows:
                return None
            decided = _approval_of(rows[0])
            await write_events(tx, tell(decided))
            return decided

        return await self.backend.write(work)

    async def use_approval(
        self, approval: Approval, *, at: int, tell: Telling, key: str | None = None
    ) -> bool:
        """Takes an approval for the one call that it is good for; False where it is not good any more, or the agent key
        `key` or the session that asks has ended meanwhile."""

        async def work(tx: Transaction) -> bool:
            rows = await tx.run(_USE, approval.tenant, approval.id, at, key or "", at, at)
            if rows:
                await write_events(tx, tell(_approval_of(rows[0])))
            return bool(rows)

        return await self.backend.write(work)

    async def sweep_approvals(self, now: int) -> None:
        """Wipes what nobody can approve any more, and forgets what is long over; the trail still has it."""

        async def work(tx: Transaction) -> None:
            await tx.run(_END, now)
            await tx.run("DELETE FROM approvals WHERE created_at < ?", now - KEPT)

        await self.backend.write(work)


def cell_name(row: Row) -> tuple[str, ...]:
    """All that a sealed input is bound to: one cannot be shown in place of another."""
    return _cell_name(_approval_of(row))


def _cell_name(one: Approval) -> tuple[str, ...]:
    names = (one.id, one.tenant, one.agent, one.user, one.account, one.tool, one.fingerprint)
    return ("approvals", "input", *names)


def _seen(asked_by: Caller | None, users: Sequence[str]) -> tuple[str, list[Value]]:
    """The condition for what somebody may see."""
    ways: list[str] = []
    values: list[Value] = []
    if asked_by is not None:
        ways.append("agent = ? AND session = ?" if asked_by.session else "agent = ? AND session IS NULL")
        values += [asked_by.agent, *([asked_by.session] if asked_by.session else [])]
    if "*" in users:
        return "1 = 1", []
    if exact := [one for one in users if not one.endswith("*")]:
        ways.append(f"user_id IN ({_marks(exact)})")
        values += exact
    prefixes = [one[:-1] for one in users if one.endswith("*")]
    for length in sorted({len(one) for one in prefixes}):
        some = [one for one in prefixes if len(one) == length]
        ways.append(f"substr(user_id, 1, {length}) IN ({_marks(some)})")
        values += some
    return " OR ".join(f"({way})" for way in ways) or "1 = 0", values


def _marks(values: Sequence[str]) -> str:
    return ", ".join("?" * len(values))


def _whole(rows: Sequence[Row]) -> list[Approval]:
    """Those that can be read: one that a newer version has written does not hide the others."""
    found = []
    for row in rows:
        try:
            found.append(_approval_of(row))
        except KeyMissing:
            _log.error("approval_unreadable", approval=row["id"])
    return found


def _approval_of(row: Row) -> Approval:
    try:
        status = ApprovalStatus(row["status"])
    except ValueError:
        raise damaged(f"approval {row['id']}") from None
    return Approval(
        id=row["id"],
        tenant=row["tenant"],
        agent=row["agent"],
        session=row["session"],
        user=row["user_id"],
        account=row["account"],
        tool=row["tool"],
        fingerprint=row["fingerprint"],
        approver=row["approver"],
        status=status,
        created_at=row["created_at"],
        expires_at=row["expires_at"],
        decided_at=row["decided_at"],
        decided_by=row["decided_by"],
    )
