"""Agent keys: made, listed and revoked by operators; the key's text is seen once, by whoever made it."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from authproxy.callers.api_key import new_key
from authproxy.callers.presented import digest_of
from authproxy.control.operators import demand_operator
from authproxy.core.errors import BadRequest, NotFound
from authproxy.core.model import AgentKey, Caller, Event
from authproxy.store.vault import Vault


@dataclass(frozen=True, slots=True)
class NewAgent:
    """A key as it is shown, once."""

    agent: AgentKey
    key: str = field(repr=False)


class Agents:
    """`changed` is called after every change, so that this process knows of it before it answers."""

    def __init__(
        self,
        vault: Vault,
        *,
        changed: Callable[[], Awaitable[None]],
        clock: Callable[[], float],
        random: Callable[[int], bytes] = secrets.token_bytes,
    ) -> None:
        self._vault = vault
        self._changed = changed
        self._clock = clock
        self._random = random

    async def create(
        self,
        caller: Caller,
        *,
        name: str,
        may_act_for: tuple[str, ...],
        operator: bool = False,
        lifetime: int | None = None,
    ) -> NewAgent:
        """A new key for an agent of the caller's tenant."""
        demand_operator(caller)
        if not name or len(name) > 200 or not name.isprintable():
            raise BadRequest("An agent needs a printable name", reason="name")
        if not may_act_for or not all(user and user.isprintable() for user in may_act_for):
            raise BadRequest("Say for which users the agent may act (`*` for all)", reason="may_act_for")
        if any("*" in user[:-1] for user in may_act_for):
            raise BadRequest("A `*` may only end a user's name, as in `team-*`", reason="may_act_for")
        if lifetime is not None and lifetime < 1:
            raise BadRequest("A key must live for at least a second", reason="lifetime")
        now = int(self._clock())
        key = new_key(self._random)
        agent = AgentKey(
            id=f"agt_{self._random(12).hex()}",
            tenant=caller.tenant,
            name=name,
            digest=digest_of(key),
            may_act_for=tuple(dict.fromkeys(may_act_for)),
            operator=operator,
            created_at=now,
            expires_at=None if lifetime is None else now + lifetime,
        )
        await self._vault.add_agent(agent, [_event("admin.agent_created", caller, agent, now)])
        await self._changed()
        return NewAgent(agent, key)

    async def list(self, caller: Caller) -> list[AgentKey]:
        """All keys of the tenant, revoked ones included, oldest first."""
        demand_operator(caller)
        return sorted(await self._vault.agents(caller.tenant), key=lambda agent: (agent.created_at, agent.id))

    async def revoke(self, caller: Caller, agent_id: str) -> AgentKey:
        """Ends a key; every process refuses it within the leash. Revoking it again changes nothing."""
        demand_operator(caller)
        agent = next((one for one in await self._vault.agents(caller.tenant) if one.id == agent_id), None)
        if agent is None:
            raise NotFound(f"There is no agent {agent_id} in tenant {caller.tenant}")
        now = int(self._clock())
        await self._vault.revoke_agent(agent_id, now, [_event("admin.agent_revoked", caller, agent, now)])
        await self._changed()
        return next(one for one in await self._vault.agents(caller.tenant) if one.id == agent_id)


def _event(kind: str, caller: Caller, agent: AgentKey, at: int) -> Event:
    return Event(
        kind=kind,
        at=at,
        tenant=caller.tenant,
        agent=caller.agent,
        data={
            "agent_id": agent.id,
            "name": agent.name,
            "may_act_for": list(agent.may_act_for),
            "operator": agent.operator,
            "expires_at": agent.expires_at,
        },
    )
