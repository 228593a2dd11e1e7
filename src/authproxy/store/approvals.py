"""Calls that wait for a yes, as rows: what is asked for is sealed, and wiped when nobody needs to read it any more."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from authproxy.core.errors import KeyMissing, Overloaded
from authproxy.core.model import Approval, ApprovalStatus, Event
from authproxy.store.base import Backend, Row, Transaction
from authproxy.store.events import write_events
from authproxy.store.sealing import Safe

MAX_PENDING: Final = 1000
"""Approvals of one agent that may wait at once."""
KEPT: Final = 30 * 86400
"""Seconds for which an approval is remembered after its time."""

Telling = Callable[[Approval], Sequence[Event]]
"""What is written into the outbox of an approval as it is stored."""

_OPEN: Final = "tenant = ? AND fingerprint = ? AND status IN ('pending', 'approved', 'denied')"
_EXPIRE: Final = f"""UPDATE approvals SET status = 'expired', input = NULL
    WHERE {_OPEN} AND expires_at <= ?"""  # noqa: S608 - a constant
_FIND: Final = f"SELECT * FROM approvals WHERE {_OPEN}"  # noqa: S608 - a constant
_INSERT: Final = """INSERT INTO approvals (id, tenant, agent, session, user_id, account, tool, fingerprint, approver,
    status, input, created_at, expires_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, 'pending', ?, ?, ?)"""
_PENDING: Final = """SELECT count(*) AS waiting FROM approvals
    WHERE tenant = ? AND agent = ? AND status = 'pending' AND expires_at > ?"""
_OWN: Final = "SELECT * FROM approvals WHERE tenant = ? AND id = ?"
_DECIDE: Final = """UPDATE approvals SET status = ?, decided_at = ?, decided_by = ?, expires_at = ?, input = NULL
    WHERE tenant = ? AND id = ? AND status = 'pending' AND expires_at > ? RETURNING *"""
_USE: Final = """UPDATE approvals SET status = 'used' WHERE tenant = ? AND id = ? AND status = 'approved'
    AND expires_at > ? RETURNING *"""


class Approvals:
    """The approvals of a store."""

    backend: Backend
    _safe: Safe

    async def ask_approval(self, new: Approval, given: Mapping[str, Any], tell: Telling) -> Approval:
        """The open approval of the same request, or this new one, kept with what was given for its approver to read.
        Raises Overloaded where too many of its agent's wait."""

        async def work(tx: Transaction) -> Approval:
            await tx.alone("approvals", new.tenant, new.agent)
            await tx.run(_EXPIRE, new.tenant, new.fingerprint, new.created_at)
            if rows := await tx.run(_FIND, new.tenant, new.fingerprint):
                return _approval_of(rows[0])
            (found,) = await tx.run(_PENDING, new.tenant, new.agent, new.created_at)
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
        """What the call would be made with; None where that was wiped, or cannot be opened any more."""
        rows = await self.backend.read(_OWN, tenant, approval_id)
        if not rows or rows[0]["input"] is None:
            return None
        try:
            return self._safe.open_fields(rows[0]["input"], cell_name(rows[0]))
        except KeyMissing:
            return None

    async def approvals(
        self,
        tenant: str,
        *,
        now: int,
        user: str | None = None,
        status: ApprovalStatus | None = None,
        limit: int = 100,
        after: str | None = None,
    ) -> list[Approval]:
        """Approvals in the order of their making, from behind `after`; those whose time is over are told as expired."""
        where, values = ["tenant = ?"], [tenant]
        for column, value in (("user_id = ?", user), ("id > ?", after)):
            if value is not None:
                where.append(column)
                values.append(value)
        if status is ApprovalStatus.EXPIRED:
            where.append("(status = 'expired' OR (status IN ('pending', 'approved') AND expires_at <= ?))")
        elif status is not None:
            where.append("status = ? AND (status NOT IN ('pending', 'approved') OR expires_at > ?)")
            values.append(str(status))
        bound = () if status is None else (now,)
        sql = f"SELECT * FROM approvals WHERE {' AND '.join(where)} ORDER BY id LIMIT ?"  # noqa: S608 - constants
        return [_approval_of(row) for row in await self.backend.read(sql, *values, *bound, limit)]

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

    async def use_approval(self, approval: Approval, *, at: int, tell: Telling) -> bool:
        """Takes an approval for the one call that it is good for; False where it is not good any more."""

        async def work(tx: Transaction) -> bool:
            rows = await tx.run(_USE, approval.tenant, approval.id, at)
            if rows:
                await write_events(tx, tell(_approval_of(rows[0])))
            return bool(rows)

        return await self.backend.write(work)

    async def sweep_approvals(self, now: int) -> None:
        """Wipes what nobody can approve any more, and forgets what is long over; the trail still has it."""

        async def work(tx: Transaction) -> None:
            await tx.run(
                "UPDATE approvals SET status = 'expired', input = NULL "
                "WHERE status IN ('pending', 'approved', 'denied') AND expires_at <= ?",
                now,
            )
            await tx.run("DELETE FROM approvals WHERE created_at < ?", now - KEPT)

        await self.backend.write(work)


def cell_name(row: Row) -> tuple[str, ...]:
    """All that a sealed input is bound to: one cannot be shown in place of another."""
    return _cell_name(_approval_of(row))


def _cell_name(one: Approval) -> tuple[str, ...]:
    names = (one.id, one.tenant, one.agent, one.user, one.account, one.tool, one.fingerprint)
    return ("approvals", "input", *names)


def _approval_of(row: Row) -> Approval:
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
        status=ApprovalStatus(row["status"]),
        created_at=row["created_at"],
        expires_at=row["expires_at"],
        decided_at=row["decided_at"],
        decided_by=row["decided_by"],
    )
