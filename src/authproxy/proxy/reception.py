"""Who asks, and for whom: read from the request, and from the CONNECT that its tunnel was opened with."""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypeVar

from authproxy.callers.desk import Desk, Identified
from authproxy.callers.presented import NOTHING, presented
from authproxy.core import message
from authproxy.core.errors import BadRequest, CallerUnknown, UserMissing, UserNotAllowed
from authproxy.core.message import RequestFields, Target
from authproxy.core.model import DEFAULT_ACCOUNT, Caller
from authproxy.proxy.place import Inside
from authproxy.proxy.record import Entry
from authproxy.proxy.said import Said
from authproxy.proxy.server import Incoming

P = ParamSpec("P")
T = TypeVar("T")


class Reception:
    """Identifies callers, and believes what they say of users only as far as they may act for them."""

    def __init__(self, desk: Desk, user_header: str) -> None:
        self._desk = desk
        self._user_header = user_header

    async def known(self, ask: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What `ask` (one of the questions below) says; asked once more where the agent key may be a new one."""
        try:
            return ask(*args, **kwargs)
        except CallerUnknown as unknown:
            if not await self._desk.look_again(unknown):
                raise
            return ask(*args, **kwargs)

    def welcome(
        self, incoming: Incoming, fields: RequestFields, target: Target, entry: Entry
    ) -> tuple[Caller, str]:
        """The caller, and the user it may act for. A credential bound to a user needs no user header."""
        settled = incoming.client.place.behalf
        if settled is not None:
            entry.known(settled.caller)
            self._desk.demand_standing(settled.caller)  # a call of many requests may outlive who began it
            self._allow(settled.caller, settled.user)
            entry.user = settled.user
            return settled.caller, settled.user
        caller, user = self._read(incoming, fields, target, entry)
        if user is None:
            user = self._named(incoming.said)
            self._allow(caller, user)
            entry.user = user
        return caller, user

    def connect(self, incoming: Incoming, fields: RequestFields, target: Target, entry: Entry) -> Inside:
        """The same for a CONNECT, which may leave it to the requests inside to name their user."""
        entry.host = target.host
        caller, user = self._read(incoming, fields, target, entry)
        shown = presented(fields.credentials, listener="data")  # of this request alone: none is around it
        return Inside(target.host, target.port, shown, user, limited=caller.routes is not None)

    def identify(self, incoming: Incoming) -> Identified:
        """Who sent this request, by what is known of keys now. Raises CallerUnknown."""
        said, client = incoming.said, incoming.client
        if said.shown is None:
            tunnel = client.place.tunnel
            said.shown = presented(
                said.fields.credentials, listener="data", outer=NOTHING if tunnel is None else tunnel.shown
            )
        return self._desk.recognise(said.shown, peer_is_loopback=client.peer_is_local)

    def _named(self, said: Said) -> str:
        """The one user that the header names."""
        if said.user is None:
            said.user = message.user_of(said.fields.users, self._user_header)
        return said.user

    def _read(
        self, incoming: Incoming, fields: RequestFields, target: Target, entry: Entry
    ) -> tuple[Caller, str | None]:
        tunnel = incoming.client.place.tunnel
        found = self.identify(incoming)
        caller = found.caller
        entry.known(caller)
        if fields.hosts:
            host, _port = message.authority_of(fields.hosts[0])
            if (
                caller.kind == "loopback"
                and target.form == "origin"
                and tunnel is None
                and message.foreign(host)
            ):
                raise BadRequest("Host is not a name of this listener", reason="host", status=421)
        named = {name for name in (found.user, caller.bound_user, tunnel and tunnel.user) if name is not None}
        if fields.users:
            named.add(self._named(incoming.said))
        if len(named) > 1:
            raise UserNotAllowed("the credential names another user than the header", reason="mismatch")
        if not named:
            return caller, None
        user = named.pop()
        self._allow(caller, user)
        entry.user = user
        return caller, user

    def _allow(self, caller: Caller, user: str) -> None:
        if not caller.allowed(user):
            raise UserNotAllowed("this caller may not act for that user", user=user)


def account_of(said: Said) -> str:
    """Which of the user's accounts at the provider is meant."""
    if said.account is None:
        accounts = said.fields.accounts
        try:
            said.account = message.user_of(accounts, "X-Authproxy-Account") if accounts else DEFAULT_ACCOUNT
        except UserMissing as exc:
            raise BadRequest(exc.title, reason="account") from None
    return said.account
