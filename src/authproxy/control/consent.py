"""Connecting an account: start a flow, wait for its end, confirm who opened it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from authproxy.broker.flows import Flows
from authproxy.broker.registrations import Registrations
from authproxy.core.errors import (
    BadRequest,
    ConnectionRequired,
    NotFound,
    PolicyDenied,
    UserMissing,
    UserNotAllowed,
)
from authproxy.core.message import NAME_RULE, is_name
from authproxy.core.model import Caller, Connection, ConnectionKey, Flow, FlowStatus, State
from authproxy.store.vault import Vault

MAX_WAIT = 59.0


@dataclass(frozen=True, slots=True)
class Authorization:
    """How it stands between one user and one provider: a flow in progress or ended, or a standing connection."""

    id: str
    key: ConnectionKey
    status: FlowStatus
    scopes: tuple[str, ...]
    url: str | None = None
    reason: str | None = None
    expires_at: int | None = None
    connection_id: str | None = None

    @property
    def failed(self) -> bool:
        return self.status.ended and self.status is not FlowStatus.COMPLETED


class Consent:
    """What agents may ask about connecting; each method takes the caller first."""

    def __init__(
        self,
        flows: Flows,
        vault: Vault,
        registrations: Registrations,
        *,
        demand: Callable[[str, str], Awaitable[None]],
        route_scopes: Mapping[str, tuple[str, ...]],
    ) -> None:
        """`demand` raises where a tenant's user is disabled."""
        self._flows = flows
        self._vault = vault
        self._registrations = registrations
        self._demand = demand
        self._route_scopes = route_scopes

    async def authorize(
        self,
        caller: Caller,
        *,
        user: str,
        provider: str,
        scopes: tuple[str, ...],
        account: str,
        next_uri: str | None = None,
        enough: tuple[str, ...] | None = None,
        refused: bool = False,
    ) -> Authorization:
        """The standing connection where it has the scopes, else a flow. Without scopes: those of the routes.

        `enough` are those that a connection must have; all are asked for where it has not. `refused`: a request was,
        and the flow is the one that its link leads to, whoever else asked for more with it.
        """
        await self.speak_for(caller, user)
        if not is_name(account):
            raise BadRequest(f"account must be {NAME_RULE}", reason="account")
        self._registrations.asked(provider)
        key = ConnectionKey(caller.tenant, user, provider, account)
        wanted = scopes or self._route_scopes.get(provider, ())
        connection = await self._vault.find(key)
        if connection is not None and self.serves(connection, wanted if enough is None else enough):
            return _standing(connection)
        flow = await self._flows.start(
            caller=caller,
            user=user,
            provider=provider,
            scopes=wanted,
            account=account,
            next_uri=next_uri,
            refusal=refused,
        )
        return self._of(flow)

    async def status(self, caller: Caller, authorization_id: str) -> Authorization:
        """By the id that `authorize` gave: a flow's, or a connection's where nothing had to be asked."""
        if not authorization_id.startswith("con_"):
            flow = await self._flows.flow(authorization_id, tenant=caller.tenant)
            await self._own(caller, flow.key)
            return self._of(flow)
        connection = await self._vault.get(authorization_id, tenant=caller.tenant)
        if connection is None:
            raise NotFound("There is no such authorization")
        await self._own(caller, connection.key)
        return _standing(connection)

    async def wait(self, caller: Caller, authorization_id: str, seconds: float) -> Authorization:
        """Its end, or how it stands after `seconds`.

        Waiting for a flow that has failed already is refused: it would be for ever, and the public client does
        wait for ever on an answer that says `failed` (it looks for `completed` alone).
        """
        now = await self.status(caller, authorization_id)
        if seconds <= 0 or now.status is FlowStatus.COMPLETED:
            return now
        if now.failed:
            raise ConnectionRequired(
                f"{now.key.user} has not connected {now.key.provider}: the authorization {ending(now.status)}; "
                "authorize again for a new link",
                reason=now.reason or str(now.status),
                provider=now.key.provider,
                user=now.key.user,
            )
        return self._of(await self._flows.wait(authorization_id, min(seconds, MAX_WAIT)))

    async def confirm_user(self, caller: Caller, ticket: str, user: str) -> Flow:
        """Say who opened a flow: `ticket` is what the browser brought to the verifier, `user` is from the application's
        own session. Another user than the flow's: UserMismatch. A flow that has ended otherwise: BadRequest. That word
        is the application's own, and not an agent's that it gave a session to: PolicyDenied."""
        if caller.session is not None:
            raise PolicyDenied(
                "A session cannot say who opened a link: the application can", reason="session"
            )
        await self._own(caller, (await self._flows.flow(ticket.partition(".")[0], tenant=caller.tenant)).key)
        flow = await self._flows.confirm(caller=caller, ticket=ticket, user=user)
        if flow.status is not FlowStatus.COMPLETED:
            raise BadRequest(
                f"{user} has not connected {flow.key.provider}: the authorization {ending(flow.status)}",
                reason=flow.reason or str(flow.status),
                provider=flow.key.provider,
                user=user,
            )
        return flow

    def serves(self, connection: Connection, scopes: tuple[str, ...]) -> bool:
        """Whether this connection works, for today's client, and was granted all of `scopes`."""
        name = connection.key.provider
        return (
            connection.state is State.ACTIVE
            and connection.client_id == self._registrations.client(name).client_id
            and not self._registrations.resting(name).lacking(connection.scopes, scopes)
        )

    async def speak_for(self, caller: Caller, user: str) -> None:
        """Refuses a user whom this caller may not act for, and one who is disabled."""
        speak_for(caller, user)
        await self._demand(caller.tenant, user)

    async def _own(self, caller: Caller, key: ConnectionKey) -> None:
        """What belongs to others does not exist for this caller (I04)."""
        if key.tenant != caller.tenant or not caller.allowed(key.user):
            raise NotFound("There is no such authorization")
        await self._demand(key.tenant, key.user)

    def _of(self, flow: Flow) -> Authorization:
        return Authorization(
            id=flow.id,
            key=flow.key,
            status=flow.status,
            scopes=flow.scopes,
            url=None if flow.status.ended else self._flows.link(flow),
            reason=flow.reason,
            expires_at=flow.expires_at,
            connection_id=flow.connection_id,
        )


def speak_for(caller: Caller, user: str) -> None:
    """Refuses a user whom this caller may not act for."""
    if not user:
        raise UserMissing("No user is named")
    if not is_name(user):
        raise UserMissing(f"A user's name must be {NAME_RULE}", reason="value")
    if not caller.allowed(user):
        raise UserNotAllowed(f"{caller.agent} may not act for this user", user=user)


def ending(status: FlowStatus) -> str:
    """How a flow ended, as the end of a sentence."""
    return {
        FlowStatus.DENIED: "was declined",
        FlowStatus.EXPIRED: "was not finished in time",
        FlowStatus.SUPERSEDED: "was replaced by a newer one",
        FlowStatus.FAILED: "failed",
    }.get(status, str(status))


def _standing(connection: Connection) -> Authorization:
    good = connection.state is State.ACTIVE
    return Authorization(
        id=connection.id,
        key=connection.key,
        status=FlowStatus.COMPLETED if good else FlowStatus.FAILED,
        scopes=connection.scopes,
        reason=None if good else connection.reason or str(connection.state),
        connection_id=connection.id,
    )
