"""Connections as operators see them: list, show, refresh, disconnect, import, explain. No call returns a token."""

from __future__ import annotations

import asyncio
import builtins
import uuid
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from authproxy.broker.endpoint import Endpoint
from authproxy.broker.registrations import Registrations
from authproxy.broker.revocation import Revoked, revoke
from authproxy.broker.tokens import Tokens
from authproxy.control.consent import speak_for
from authproxy.control.explain import Explanation, explain
from authproxy.control.operators import demand_operator
from authproxy.core.errors import BadRequest, ConnectionExpired, NotFound, Refusal
from authproxy.core.model import Caller, Connection, ConnectionKey, Event, NewGrant, State, TokenSet
from authproxy.core.secret import Secret
from authproxy.store.vault import Vault

REVOKE_PAUSES: Final = (0.5, 2.0, 5.0)
"""Seconds before each further try to give a token back; after that the answer says that it failed."""


class Outcome(StrEnum):
    """What became of the grant at the provider when a connection was ended here."""

    YES = "yes"
    FAILED = "failed"
    UNSUPPORTED = "unsupported"
    NOTHING_HELD = "nothing_held"


@dataclass(frozen=True, slots=True)
class Disconnected:
    """The tombstone, and what became of the grant at the provider."""

    connection: Connection
    revoked: Outcome


class Connections:
    """Each method takes the caller first; what is not the caller's is not there."""

    def __init__(
        self,
        vault: Vault,
        tokens: Tokens,
        registrations: Registrations,
        endpoint: Endpoint,
        *,
        clock: Callable[[], float],
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._vault = vault
        self._tokens = tokens
        self._registrations = registrations
        self._endpoint = endpoint
        self._clock = clock
        self._pause = pause

    async def list(
        self,
        caller: Caller,
        *,
        user: str | None = None,
        provider: str | None = None,
        state: State | None = None,
        limit: int = 100,
        after: str | None = None,
    ) -> builtins.list[Connection]:
        """The tenant's connections by id, from behind `after`."""
        demand_operator(caller)
        return await self._vault.list(
            tenant=caller.tenant, user=user, provider=provider, state=state, limit=limit, after=after
        )

    async def show(self, caller: Caller, connection_id: str) -> Connection:
        """One connection, ended ones included."""
        demand_operator(caller)
        return await self._own(caller, connection_id)

    async def of(self, caller: Caller, key: ConnectionKey) -> Connection:
        """The live connection of a key."""
        demand_operator(caller)
        found = await self._vault.find(key)
        if found is None or key.tenant != caller.tenant:
            raise NotFound(f"{key.user} has no connection at {key.provider}")
        return found

    async def refresh(self, caller: Caller, connection_id: str) -> Connection:
        """Refresh now, whatever is left of the token's life; raises what a request would be told."""
        connection = await self.show(caller, connection_id)
        return await self._refreshed(caller, connection)

    async def disconnect(self, caller: Caller, connection_id: str) -> Disconnected:
        """End it here at once, then give the grant back to the provider; says honestly what came of that (I09).

        Here first: a provider that is slow or away must not keep the connection usable.
        """
        connection = await self.show(caller, connection_id)
        event = self._event("connection.disconnected", caller, connection, {"by": caller.agent})
        held = await self._vault.disconnect(connection.id, [event], reason="operator")
        self._tokens.forget(connection.id)
        outcome = Outcome.NOTHING_HELD
        if held is not None:
            outcome = await self._revoked(connection.key.provider, held)
            told = self._event("connection.revoked", caller, connection, {"revoked_upstream": str(outcome)})
            await self._vault.note([told])
        return Disconnected(await self._own(caller, connection_id), outcome)

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
        speak_for(caller, key.user)
        if not refresh_token:
            raise BadRequest("No refresh token was given", reason="refresh_token")
        self._registrations.asked(key.provider)
        client = self._registrations.client(key.provider)
        known = await self._vault.find(key)
        if known is not None and known.state is State.ACTIVE and not replace:
            raise BadRequest(
                f"{key.user} is connected to {key.provider} already ({known.id}); say so if it is to be replaced",
                reason="already_connected",
            )
        now = int(self._clock())
        grant = NewGrant(
            key=key,
            client_id=client.client_id,
            grant_id=f"gra_{uuid.uuid4().hex}",
            tokens=TokenSet(
                access_token=Secret(""), refresh_token=refresh_token, expires_at=now - 1, scopes=scopes
            ),
            requested_scopes=scopes,
            provider_account=None,
            at=now,
        )
        event = Event(
            kind="connection.imported",
            at=now,
            tenant=key.tenant,
            user=key.user,
            provider=key.provider,
            account=key.account,
            agent=caller.agent,
            data={"scopes": list(scopes), "replaced": known is not None},
        )
        connection = await self._vault.keep_grant(grant, [event])
        self._tokens.forget(connection.id)
        try:
            await self._tokens.token(key, scopes=(), agent=caller.agent)
        except ConnectionExpired as dead:
            raise BadRequest(
                f"{key.provider} refuses this refresh token ({dead.reason or 'no reason given'}); "
                "it was issued to another client, is spent, or has been revoked",
                reason=dead.reason,
                provider=key.provider,
                user=key.user,
            ) from None
        return await self._own(caller, connection.id)

    async def explain(self, caller: Caller, connection_id: str) -> Explanation:
        """What happened to this connection, why, and what to do now."""
        connection = await self.show(caller, connection_id)
        return explain(
            connection.key, connection, await self._vault.timeline(connection.key), now=int(self._clock())
        )

    async def explain_key(self, caller: Caller, key: ConnectionKey) -> Explanation:
        """The same by user and provider, also where there never was a connection."""
        demand_operator(caller)
        events = await self._vault.timeline(key)
        connection = await self._vault.find(key)
        if connection is None:  # perhaps a tombstone
            ids = [event.connection_id for event in events if event.connection_id is not None]
            connection = await self._vault.get(ids[-1], tenant=caller.tenant) if ids else None
        return explain(key, connection, events, now=int(self._clock()))

    async def _refreshed(self, caller: Caller, connection: Connection) -> Connection:
        usable = await self._tokens.token(connection.key, scopes=(), agent=caller.agent)
        if usable.generation == connection.generation:
            renewed = await self._tokens.renew(connection.key, usable, agent=caller.agent)
            if renewed is None:
                raise BadRequest(
                    "It was not refreshed: it has no refresh token, or was refreshed a moment ago "
                    "(refresh.forced_interval)",
                    reason="not_refreshed",
                )
        return await self._own(caller, connection.id)

    async def _own(self, caller: Caller, connection_id: str) -> Connection:
        connection = await self._vault.get(connection_id, tenant=caller.tenant)
        if connection is None or not caller.allowed(connection.key.user):
            raise NotFound(f"There is no connection {connection_id} in tenant {caller.tenant}")
        return connection

    async def _revoked(self, name: str, held: TokenSet) -> Outcome:
        for number in range(len(REVOKE_PAUSES) + 1):
            if number:
                await self._pause(REVOKE_PAUSES[number - 1])
            try:
                provider = await self._registrations.provider(name)
                outcome = await revoke(self._endpoint, provider, self._registrations.client(name), held)
            except Refusal:  # the registration is gone or out of reach: nobody can be asked
                outcome = Revoked.FAILED
            if outcome is not Revoked.FAILED:
                return Outcome(outcome)
        return Outcome.FAILED

    def _event(self, kind: str, caller: Caller, connection: Connection, data: Mapping[str, Any]) -> Event:
        key = connection.key
        return Event(
            kind=kind,
            at=int(self._clock()),
            tenant=key.tenant,
            user=key.user,
            provider=key.provider,
            account=key.account,
            connection_id=connection.id,
            agent=caller.agent,
            data=data,
        )
