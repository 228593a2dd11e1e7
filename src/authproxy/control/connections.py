"""Connections as operators see them: list, show, refresh, disconnect, import, explain. No call returns a token."""

from __future__ import annotations

import builtins
from collections.abc import Callable, Sequence

from authproxy.broker.grants import Disconnected, Grants
from authproxy.broker.outcome import Ended, Fresh, Later, Outcome, Wrong
from authproxy.control.consent import speak_for
from authproxy.control.explain import Explanation, explain
from authproxy.control.operators import demand_operator
from authproxy.core.errors import (
    BadRequest,
    ConnectionExpired,
    NotFound,
    ProviderMisconfigured,
    ProviderUnavailable,
)
from authproxy.core.model import Caller, Connection, ConnectionKey, Event, State
from authproxy.core.secret import Secret
from authproxy.store.vault import Vault


class Connections:
    """Each method takes the caller first. An operator's part is the whole tenant, and nothing beyond it is there;
    for whom its key may act counts only where it acts for somebody."""

    def __init__(self, vault: Vault, grants: Grants, *, clock: Callable[[], float]) -> None:
        self._vault = vault
        self._grants = grants
        self._clock = clock

    async def list(
        self,
        caller: Caller,
        *,
        user: str | None = None,
        provider: str | None = None,
        state: State | None = None,
        limit: int = 100,
        after: str | None = None,
        skip: int = 0,
    ) -> builtins.list[Connection]:
        """The tenant's connections by id, from behind `after`, without the first `skip`."""
        demand_operator(caller)
        return await self._vault.list(
            tenant=caller.tenant,
            user=user,
            provider=provider,
            state=state,
            limit=limit,
            after=after,
            skip=skip,
        )

    async def show(self, caller: Caller, connection_id: str) -> Connection:
        """One connection, ended ones included."""
        demand_operator(caller)
        return await self._own(caller, connection_id)

    async def refresh(self, caller: Caller, connection_id: str, *, probe: bool = False) -> Connection:
        """Refresh now, whatever is left of the token's life; raises what a request would be told. `probe`: ask the
        provider once more although it has ended the grant."""
        connection = await self.show(caller, connection_id)
        if connection.state is not State.DISCONNECTED and not connection.refreshable:
            raise BadRequest("It has no refresh token", reason="not_refreshable")
        await self._vault.demand_user(caller.tenant, connection.key.user)
        outcome = await self._grants.refresh(connection.id, tenant=caller.tenant, probe=probe)
        _demand_fresh(connection.key, outcome)
        return await self._own(caller, connection.id)

    async def disconnect(self, caller: Caller, connection_id: str) -> Disconnected:
        """End it here at once, then give the grant back to the provider; says honestly what came of that (I09)."""
        connection = await self.show(caller, connection_id)
        return await self._grants.disconnect(connection.id, tenant=caller.tenant, agent=caller.agent)

    async def revoked_upstream(self, caller: Caller, connection_id: str) -> str | None:
        """How it stands with the grant at its provider after a disconnect: `yes`, `pending`, `failed` or
        `unsupported`; None where nothing was to be given back."""
        await self.show(caller, connection_id)
        return await self._vault.revocation(connection_id)

    async def import_(
        self,
        caller: Caller,
        key: ConnectionKey,
        refresh_token: Secret,
        *,
        scopes: tuple[str, ...] = (),
        replace: bool = False,
    ) -> Connection:
        """Take over a refresh token that was obtained elsewhere, and prove it by refreshing once.

        From then on it must be used nowhere else: two holders of one rotating token end each other (A29).
        """
        demand_operator(caller)
        if key.tenant != caller.tenant:
            raise NotFound(f"There is no tenant {key.tenant} here")
        speak_for(caller, key.user)
        outcome = await self._grants.take_over(key, refresh_token, scopes=scopes, replace=replace)
        if isinstance(outcome, Ended):
            reason = None if outcome.connection is None else outcome.connection.reason
            raise BadRequest(
                f"{key.provider} refuses this refresh token ({reason or 'no reason given'}): "
                "it was issued to another client, is spent, or has been revoked",
                reason=reason,
                provider=key.provider,
                user=key.user,
            )
        _demand_fresh(key, outcome)
        assert isinstance(outcome, Fresh)
        return await self._own(caller, outcome.connection.id)

    async def explain(self, caller: Caller, connection_id: str) -> Explanation:
        """What happened to this connection, why, and what to do now."""
        connection = await self.show(caller, connection_id)
        return await self._explained(connection.key, connection, await self._vault.timeline(connection.key))

    async def explain_key(self, caller: Caller, key: ConnectionKey) -> Explanation:
        """The same by user and provider, also where there never was a connection."""
        demand_operator(caller)
        events = await self._vault.timeline(key)
        connection = await self._vault.find(key, inspect=True)
        if connection is None:  # perhaps a tombstone
            ids = [event.connection_id for event in events if event.connection_id is not None]
            connection = await self._vault.get(ids[-1], tenant=caller.tenant) if ids else None
        return await self._explained(key, connection, events)

    async def _explained(
        self, key: ConnectionKey, connection: Connection | None, events: Sequence[Event]
    ) -> Explanation:
        user = await self._vault.user(key.tenant, key.user)
        theirs = await self._vault.user_events(key.tenant, key.user)
        return explain(key, connection, events, user=user, theirs=theirs, now=int(self._clock()))

    async def _own(self, caller: Caller, connection_id: str) -> Connection:
        connection = await self._vault.get(connection_id, tenant=caller.tenant, inspect=True)
        if connection is None:
            raise NotFound(f"There is no connection {connection_id} in tenant {caller.tenant}")
        return connection


def _demand_fresh(key: ConnectionKey, outcome: Outcome) -> None:
    """What came of a refresh, in the words that a request would be told."""
    match outcome:
        case Fresh():
            return
        case Later(reason, retry_after):
            raise ProviderUnavailable(
                f"{key.provider} gives no new token now",
                reason=reason,
                provider=key.provider,
                user=key.user,
                retry_after=retry_after,
            )
        case Wrong(reason, advice):
            raise ProviderMisconfigured(advice, reason=reason, provider=key.provider, user=key.user)
        case Ended(connection):
            raise ConnectionExpired(
                f"{key.provider} has ended {key.user}'s grant: connect again",
                reason=None if connection is None else connection.reason,
                provider=key.provider,
                user=key.user,
            )
