"""Takes an existing grant over (import), refreshes one on demand, and gives one up (disconnect)."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import structlog

from authproxy.broker.endpoint import Endpoint
from authproxy.broker.outcome import Ended, Fresh, Outcome, Want
from authproxy.broker.refresh import Refresher
from authproxy.broker.registrations import Registrations
from authproxy.broker.revocation import Revocations, Revoked, revocation_event
from authproxy.core.errors import BadRequest, KeyMissing, NotFound, UserDisabled
from authproxy.core.model import Connection, ConnectionKey, Event, NewGrant, State, TokenSet
from authproxy.core.secret import Secret
from authproxy.store.lease import Leased
from authproxy.store.revocations import Owed
from authproxy.store.vault import Vault

log = structlog.get_logger()

SOLE_OWNER = (
    "authproxy now owns this refresh token. Whatever held it before must stop using it: two owners of a rotating "
    "token sign each other out."
)


_ALIVE = (State.ACTIVE, State.MISCONFIGURED)


class _Before(NamedTuple):
    """A grant that an import replaces, as read under its lease."""

    leased: Leased
    tokens: TokenSet


@dataclass(frozen=True, slots=True)
class Disconnected:
    """What a disconnect did. The local copy is gone in every case; `revoked_upstream` claims nothing more."""

    connection: Connection
    revoked_upstream: Revoked


class Grants:
    """What operators and users do to a whole grant."""

    def __init__(
        self,
        vault: Vault,
        registrations: Registrations,
        endpoint: Endpoint,
        refresher: Refresher,
        *,
        changed: Callable[[ConnectionKey], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._vault = vault
        self._registrations = registrations
        self._refresher = refresher
        self._changed = changed
        self._clock = clock
        self._revocations = Revocations(vault, registrations, endpoint, clock=clock)

    async def disconnect(
        self, connection_id: str, *, tenant: str | None, agent: str | None = None
    ) -> Disconnected:
        """Deletes our copy, then gives the tokens back at the provider, the refresh token first (I09); what cannot be
        given back now is kept for that alone, and tried again. A refresh in flight can no longer save, and revokes
        what it fetched. Raises NotFound."""
        connection = await self._vault.get(connection_id, tenant=tenant)
        if connection is None or connection.state is State.DISCONNECTED:
            raise NotFound("there is no such connection", reason="connection_unknown")
        now = int(self._clock())
        event = self._event(connection.key, "connection.disconnected", now, {"agent": agent})
        owing = self._revocations.new()
        held = await self._vault.disconnect(connection_id, [event], owed=owing)
        self._changed(connection.key)
        revoked = Revoked.FAILED
        if held is not None:
            revoked = await self._revocations.pay(
                Owed(owing.id, connection_id, connection.key, connection.client_id, 0, now, held)
            )
        if held is None or revoked is Revoked.PENDING:
            at = int(self._clock())
            await self._vault.note([revocation_event(connection.key, connection_id, at, revoked)])
        return Disconnected(connection, revoked)

    async def take_over(
        self,
        key: ConnectionKey,
        refresh_token: Secret,
        *,
        scopes: Sequence[str] = (),
        replace: bool = False,
    ) -> Outcome:
        """Makes a connection of a refresh token that somebody else held (A29, and see SOLE_OWNER). It is refreshed at
        once, on the one path there is; a token that the provider refuses leaves no connection behind, and one that
        it was to `replace` as it was. Raises UserDisabled, and BadRequest where a live connection would be overwritten
        without `replace`, or is being refreshed just now."""
        self._registrations.asked(key.provider)
        client = self._registrations.client(key.provider)
        if not refresh_token:
            raise BadRequest("the refresh token is empty", reason="refresh_token_missing")
        existing = await self._vault.find(key)
        if existing is not None and existing.state is State.ACTIVE and not replace:
            raise BadRequest("this user is connected already", reason="already_connected")
        before = await self._held(existing)
        now = int(self._clock())
        asked = tuple(dict.fromkeys((*self._registrations.resting(key.provider).scopes, *scopes)))
        tokens = TokenSet(
            access_token=Secret(""), refresh_token=refresh_token, expires_at=now - 1, scopes=asked
        )
        imported = NewGrant(
            key=key,
            client_id=client.client_id,
            grant_id=f"import_{secrets.token_hex(12)}",
            tokens=tokens,
            requested_scopes=asked,
            provider_account=None,
            at=now,
        )
        try:
            connection = await self._vault.keep_grant(
                imported, [self._event(key, "connection.imported", now, {})]
            )
        finally:
            if before is not None:
                await before.leased.release()
        self._changed(key)
        outcome = await self._refresher.refresh(key, connection.id, Want(why="import"))
        if isinstance(outcome, Ended):
            await self._undo(connection, before)
        self._changed(key)
        return outcome

    async def _held(self, existing: Connection | None) -> _Before | None:
        """What an import is about to replace, and could be put back: under its lease, so that nobody spends it in
        between. None: nothing that is worth it."""
        if existing is None or not existing.refreshable or existing.state not in _ALIVE:
            return None
        leased = await self._vault.lease(existing.id, holder=f"import:{secrets.token_hex(6)}", seconds=30.0)
        if leased is None:
            raise BadRequest("this connection is being refreshed now: try again", reason="busy")
        try:
            return _Before(leased, await leased.tokens())
        except KeyMissing:  # it is of no use to anybody
            await leased.release()
            return None

    async def _undo(self, imported: Connection, before: _Before | None) -> None:
        """A refused import leaves what was there."""
        now = int(self._clock())
        why: dict[str, object] = {"reason": "import_refused"}
        stored = await self._vault.find(imported.key)
        if stored is None or stored.grant_id != imported.grant_id:
            return  # the user has connected in between
        if before is None:
            gone = self._event(imported.key, "connection.disconnected", now, why)
            await self._vault.disconnect(imported.id, [gone], reason="import_refused")
            return
        old = before.leased.connection
        grant = NewGrant(
            key=old.key,
            client_id=old.client_id,
            grant_id=old.grant_id,
            tokens=before.tokens,
            requested_scopes=old.requested_scopes,
            provider_account=old.provider_account,
            at=now,
        )
        try:
            await self._vault.keep_grant(grant, [self._event(old.key, "connection.put_back", now, why)])
        except UserDisabled:  # just now: it ends with what was to replace it
            owing = self._revocations.new()
            await self._vault.owe(old, before.tokens, owing._replace(next_at=owing.at))
            gone = self._event(old.key, "connection.disconnected", now, why)
            await self._vault.disconnect(imported.id, [gone], reason="import_refused")

    async def refresh(self, connection_id: str, *, tenant: str | None, probe: bool = False) -> Outcome:
        """A refresh that an operator asks for; the connection's state changes only with its outcome (B27). `probe`:
        also of a grant that the provider has ended, whose refresh token is still here (B11)."""
        connection = await self._vault.get(connection_id, tenant=tenant)
        if connection is None or connection.state is State.DISCONNECTED:
            raise NotFound("there is no such connection", reason="connection_unknown")
        outcome = await self._refresher.refresh(
            connection.key,
            connection.id,
            Want(rejected=connection.generation, why="operator", probe=probe),
        )
        if isinstance(outcome, Fresh):
            self._changed(connection.key)
        return outcome

    def _event(
        self,
        key: ConnectionKey,
        kind: str,
        at: int,
        data: dict[str, object],
    ) -> Event:
        return Event(
            kind=kind,
            at=at,
            tenant=key.tenant,
            user=key.user,
            provider=key.provider,
            account=key.account,
            data=data,
        )
