"""Agents' keys as rows: digests, never their texts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Final

import structlog

from authproxy.core.model import AgentKey, Event
from authproxy.store.base import Backend, Row, Transaction
from authproxy.store.events import encode, write_events

_log = structlog.get_logger()

_INSERT: Final = """INSERT INTO agents
    (id, tenant, name, digest, may_act_for, operator, created_at, expires_at, revoked_at)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"""


class Agents:
    """The agents of a store."""

    backend: Backend

    async def add_agent(self, agent: AgentKey, events: Sequence[Event] = ()) -> None:
        """Keeps a new agent's key."""

        async def work(tx: Transaction) -> None:
            await tx.run(
                _INSERT,
                agent.id,
                agent.tenant,
                agent.name,
                agent.digest,
                encode(agent.may_act_for),
                int(agent.operator),
                agent.created_at,
                agent.expires_at,
                agent.revoked_at,
            )
            await write_events(tx, events)

        await self.backend.write(work)

    async def agents(self, tenant: str | None) -> list[AgentKey]:
        """All agents of a tenant, revoked ones included; None: of every tenant."""
        if tenant is None:
            rows = await self.backend.read("SELECT * FROM agents ORDER BY created_at, id")
        else:
            rows = await self.backend.read(
                "SELECT * FROM agents WHERE tenant = ? ORDER BY created_at, id", tenant
            )
        return [agent for agent in map(_agent_of, rows) if agent is not None]

    async def agent_by_digest(self, digest: str) -> AgentKey | None:
        """The agent whose key has this digest, revoked or not."""
        rows = await self.backend.read("SELECT * FROM agents WHERE digest = ?", digest)
        return _agent_of(rows[0]) if rows else None

    async def revoke_agent(self, agent_id: str, at: int, events: Sequence[Event] = ()) -> bool:
        """Ends an agent's key; False if there is none that is still good."""

        async def work(tx: Transaction) -> bool:
            sql = "UPDATE agents SET revoked_at = ? WHERE id = ? AND revoked_at IS NULL RETURNING id"
            if not await tx.run(sql, at, agent_id):
                return False
            await write_events(tx, events)
            return True

        return await self.backend.write(work)


def _agent_of(row: Row) -> AgentKey | None:
    """None for a row that makes no sense: that key is not known, and the others go on working (E03)."""
    try:
        users = json.loads(row["may_act_for"])
    except ValueError:
        users = None
    if not isinstance(users, list) or not all(isinstance(user, str) for user in users):
        _log.error("agent_row_damaged", agent=row["id"])
        return None
    return AgentKey(
        id=row["id"],
        tenant=row["tenant"],
        name=row["name"],
        digest=row["digest"],
        may_act_for=tuple(users),
        operator=bool(row["operator"]),
        created_at=row["created_at"],
        expires_at=row["expires_at"],
        revoked_at=row["revoked_at"],
    )
