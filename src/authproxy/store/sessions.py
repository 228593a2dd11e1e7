"""Sessions as rows: digests of their credentials, and what each may be used for."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Collection, Sequence
from typing import Any, Final

import structlog

from authproxy.core.errors import CallerUnknown, Overloaded
from authproxy.core.model import Event, Session
from authproxy.store.admission import demand_enabled
from authproxy.store.base import Backend, Row, Transaction, Value
from authproxy.store.events import encode, write_events

_log = structlog.get_logger()

MAX_LIVE: Final = 10_000
"""Sessions of one minter that may be good at once."""
KEPT: Final = 30 * 86400
"""Seconds for which a session is remembered after its end."""

Telling = Callable[[Session], Sequence[Event]]
"""What is written into the outbox of a session as it was stored."""

_INSERT: Final = """INSERT INTO sessions (id, tenant, agent, user_id, digest, minted_by, routes, tools, ttl,
    created_at, expires_at, renewable_until, label) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"""
_MINTER: Final = "SELECT expires_at, revoked_at FROM agents WHERE tenant = ? AND id = ?"
_LIVE: Final = """SELECT count(*) AS live FROM sessions
    WHERE tenant = ? AND minted_by = ? AND revoked_at IS NULL AND expires_at > ?"""
_OWN: Final = "SELECT * FROM sessions WHERE tenant = ? AND id = ?"
_RENEW: Final = """UPDATE sessions SET expires_at = ? WHERE tenant = ? AND id = ? AND revoked_at IS NULL
    AND expires_at > ? AND expires_at < ? RETURNING *"""
_REVOKE: Final = """UPDATE sessions SET revoked_at = ? WHERE tenant = ? AND id = ? AND revoked_at IS NULL
    RETURNING *"""
_COUNT: Final = """SELECT count(*) AS live FROM sessions WHERE revoked_at IS NULL AND expires_at > ?
    AND (minted_by NOT LIKE 'agt~_%' ESCAPE '~' OR EXISTS
        (SELECT 1 FROM agents WHERE agents.id = sessions.minted_by AND agents.revoked_at IS NULL))"""


class Sessions:
    """The sessions of a store."""

    backend: Backend

    async def add_session(self, session: Session, tell: Telling) -> Session:
        """Keeps a new session, as long as its minter's key may live at most, and returns it as it was kept.

        Raises CallerUnknown where that key has ended meanwhile, Overloaded where it has too many of them, UserDisabled.
        """

        async def work(tx: Transaction) -> Session:
            await demand_enabled(tx, session.tenant, session.user)
            kept = await _within(tx, session, session.created_at)
            await tx.alone("sessions", kept.tenant, kept.minted_by)
            (found,) = await tx.run(_LIVE, kept.tenant, kept.minted_by, kept.created_at)
            if found["live"] >= MAX_LIVE:
                raise Overloaded(f"{MAX_LIVE} sessions of this minter are good now", reason="sessions")
            await tx.run(
                _INSERT,
                kept.id,
                kept.tenant,
                kept.agent,
                kept.user,
                kept.digest,
                kept.minted_by,
                _names(kept.routes),
                _names(kept.tools),
                kept.ttl,
                kept.created_at,
                kept.expires_at,
                kept.renewable_until,
                kept.label,
            )
            await write_events(tx, tell(kept))
            return kept

        return await self.backend.write(work)

    async def session(self, tenant: str, session_id: str) -> Session | None:
        """One session, ended or not."""
        rows = await self.backend.read(_OWN, tenant, session_id)
        return _session_of(rows[0]) if rows else None

    async def sessions(
        self,
        tenant: str,
        *,
        minted_by: str | None = None,
        user: str | None = None,
        limit: int = 100,
        after: str | None = None,
    ) -> list[Session]:
        """Sessions in the order of their making, ended ones included, from behind `after`."""
        where, values = ["tenant = ?"], [tenant]
        for column, value in (("minted_by = ?", minted_by), ("user_id = ?", user)):
            if value is not None:
                where.append(column)
                values.append(value)
        where.append("id > ?")
        sql = f"SELECT * FROM sessions WHERE {' AND '.join(where)} ORDER BY id LIMIT ?"  # noqa: S608 - constants
        found: list[Session] = []
        last, more = after or "", True
        while more and len(found) < limit:  # once, unless a row is damaged
            rows = await self.backend.read(sql, *values, last, limit - len(found))
            more = len(rows) == limit - len(found)
            last = rows[-1]["id"] if rows else last
            found += [session for session in map(_session_of, rows) if session is not None]
        return found

    async def sessions_by_digest(self, digests: Collection[str]) -> list[Session]:
        """Those that have one of these digests, ended or not."""
        if not digests:
            return []
        marks = ", ".join("?" * len(digests))
        rows = await self.backend.read(f"SELECT * FROM sessions WHERE digest IN ({marks})", *digests)  # noqa: S608
        return [session for session in map(_session_of, rows) if session is not None]

    async def renew_session(self, session: Session, until: int, now: int, tell: Telling) -> Session | None:
        """Lets a session live until then, or as long as its minter's key. None: it has ended, or lives as long already.
        Raises CallerUnknown where the key has ended, UserDisabled."""

        async def work(tx: Transaction) -> Session | None:
            await demand_enabled(tx, session.tenant, session.user)
            kept = await _within(tx, dataclasses.replace(session, expires_at=until), now)
            ends = kept.expires_at
            rows = await tx.run(_RENEW, ends, kept.tenant, kept.id, now, ends)
            renewed = _session_of(rows[0]) if rows else None
            if renewed is not None:
                await write_events(tx, tell(renewed))
            return renewed

        return await self.backend.write(work)

    async def revoke_session(self, tenant: str, session_id: str, at: int, tell: Telling) -> Session | None:
        """Ends a session; None where there is none that was not revoked yet."""

        async def work(tx: Transaction) -> Session | None:
            rows = await tx.run(_REVOKE, at, tenant, session_id)
            revoked = _session_of(rows[0]) if rows else None
            if revoked is not None:
                await write_events(tx, tell(revoked))
            return revoked

        return await self.backend.write(work)

    async def live_sessions(self, now: int) -> int:
        """How many are good at this time."""
        return int((await self.backend.read(_COUNT, now))[0]["live"])

    async def sweep_sessions(self, now: int) -> None:
        """Forgets those that ended long ago; the trail still has them."""

        async def work(tx: Transaction) -> None:
            await tx.run("DELETE FROM sessions WHERE expires_at < ?", now - KEPT)

        await self.backend.write(work)


async def _within(tx: Transaction, session: Session, now: int) -> Session:
    """The session, made to end with its minter's key."""
    if not session.minted_by.startswith("agt_"):
        return session
    rows = await tx.run(_MINTER, session.tenant, session.minted_by)
    key = rows[0] if rows else None
    if key is None or key["revoked_at"] is not None:
        raise CallerUnknown("The key that mints this session has been revoked", reason="revoked_key")
    ends = key["expires_at"]
    if ends is None:
        return session
    if ends <= now:
        raise CallerUnknown("The key that mints this session has expired", reason="expired_key")
    until = session.renewable_until
    return dataclasses.replace(
        session,
        expires_at=min(session.expires_at, ends),
        renewable_until=None if until is None else min(until, ends),
    )


def _names(names: Sequence[str] | None) -> Value:
    return None if names is None else encode(list(names))


def _session_of(row: Row) -> Session | None:
    """None for a row that makes no sense: that session is not known, and the others go on working (E03)."""
    try:
        routes, tools = _read(row["routes"]), _read(row["tools"])
    except ValueError:
        _log.error("session_row_damaged", session=row["id"])
        return None
    return Session(
        id=row["id"],
        tenant=row["tenant"],
        agent=row["agent"],
        user=row["user_id"],
        digest=row["digest"],
        minted_by=row["minted_by"],
        routes=routes,
        tools=tools,
        ttl=row["ttl"],
        created_at=row["created_at"],
        expires_at=row["expires_at"],
        renewable_until=row["renewable_until"],
        revoked_at=row["revoked_at"],
        label=row["label"],
    )


def _read(text: str | None) -> tuple[str, ...] | None:
    """A list of names. Raises ValueError for anything else: never is one that cannot be read taken for none."""
    if text is None:
        return None
    names: Any = json.loads(text)
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError(text)
    return tuple(names)
