"""Sessions: a credential for one agent and one user, minted by an application that could itself do all it may."""

from __future__ import annotations

import builtins
import secrets
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, field

from authproxy.callers.api_key import new_key
from authproxy.callers.presented import digest_of
from authproxy.control.consent import speak_for
from authproxy.core.errors import BadRequest, NotFound, PolicyDenied
from authproxy.core.model import Caller, Event, Session
from authproxy.core.session import pattern_fault
from authproxy.metrics import Metrics
from authproxy.store.sessions import Telling
from authproxy.store.vault import Vault

DEFAULT_TTL = 3600
MAX_TTL = 30 * 86400
MAX_RENEWABLE = 365 * 86400
MOST_NAMES = 100


@dataclass(frozen=True, slots=True)
class NewSession:
    """A session with its credential as it is shown, once."""

    session: Session
    key: str = field(repr=False)


class Sessions:
    """Each method takes the caller first. `routes` names those that are configured, `accepted` says whether anybody
    who shows an `apx_…` credential is recognised, and `changed` is told the digest of a session that was changed,
    so that this process knows of it before it answers."""

    def __init__(
        self,
        vault: Vault,
        *,
        routes: Callable[[], Collection[str]],
        accepted: Callable[[], bool],
        changed: Callable[[str], Awaitable[None]],
        metrics: Metrics,
        clock: Callable[[], float],
        random: Callable[[int], bytes] = secrets.token_bytes,
    ) -> None:
        self._vault = vault
        self._routes = routes
        self._accepted = accepted
        self._changed = changed
        self._metrics = metrics
        self._clock = clock
        self._random = random

    async def create(
        self,
        caller: Caller,
        *,
        user: str,
        agent: str | None = None,
        label: str | None = None,
        routes: tuple[str, ...] | None = None,
        tools: tuple[str, ...] | None = None,
        ttl: int | None = None,
        renewable_for: int | None = None,
    ) -> NewSession:
        """A session of the caller's tenant, with no more than the caller has.

        `agent` is the caller's own name, which is the default; an operator may name another. `label` is for people.
        `routes` and `tools` (patterns, see `core.session`) are the only ones that it may use; where only tools are
        said, it may use no route by itself. `ttl` and `renewable_for` are seconds from now. Raises PolicyDenied for
        a session, UserNotAllowed, BadRequest, Overloaded.
        """
        if caller.session is not None or caller.routes is not None or caller.tools is not None:
            raise PolicyDenied("A session cannot mint sessions: its minter can", reason="session")
        speak_for(caller, user)
        name = _agent(caller, agent)
        if label is not None and (len(label) > 100 or not label.isprintable()):
            raise BadRequest("label must be up to 100 printable characters", reason="label")
        routes, tools = self._limits(routes, tools)
        ttl = DEFAULT_TTL if ttl is None else ttl
        if not 1 <= ttl <= MAX_TTL:
            raise BadRequest(f"ttl must be from 1 to {MAX_TTL} seconds", reason="ttl")
        if renewable_for is not None and not ttl <= renewable_for <= MAX_RENEWABLE:
            raise BadRequest(
                f"renewable_for must be from ttl to {MAX_RENEWABLE} seconds", reason="renewable_for"
            )
        if not self._accepted():
            raise BadRequest(
                "Nobody who shows a session would be recognised: identity.callers has no `kind: api_key`",
                reason="kind_not_configured",
            )
        now = int(self._clock())
        key = new_key(self._random)
        session = Session(
            id=f"ses_{now:010x}{self._random(8).hex()}",  # in the order of their making
            tenant=caller.tenant,
            agent=name,
            user=user,
            digest=digest_of(key),
            minted_by=_minter(caller),
            routes=routes,
            tools=tools,
            ttl=ttl,
            created_at=now,
            expires_at=now + ttl,
            renewable_until=None if renewable_for is None else now + renewable_for,
            label=label,
        )
        kept = await self._vault.add_session(session, _telling("session.created", caller, now))
        self._metrics.sessions_created.inc()
        return NewSession(kept, key)

    async def renew(self, caller: Caller, session_id: str, ttl: int | None = None) -> Session:
        """Let it live for another `ttl` seconds (default: the ones that it was made with), never beyond its bound;
        an end that is later already stays. Its minter does this, not the session itself: whoever found its key
        would have it for as long as the bound, and that is what a longer `ttl` is for."""
        if caller.session is not None:
            raise PolicyDenied("A session cannot renew itself: its minter can", reason="session")
        session = await self._own(caller, session_id)
        now = int(self._clock())
        if ttl is not None and not 1 <= ttl <= MAX_TTL:
            raise BadRequest(f"ttl must be from 1 to {MAX_TTL} seconds", reason="ttl")
        _demand_alive(session, now)
        if session.renewable_until is None or session.renewable_until <= session.expires_at:
            raise BadRequest(
                "This session cannot be renewed further: mint another one", reason="not_renewable"
            )
        until = min(now + (ttl or session.ttl), session.renewable_until)
        told = _telling("session.renewed", caller, now)
        renewed = await self._vault.renew_session(session, until, now, told)
        if renewed is None:  # it has ended meanwhile, or lives for longer already
            session = await self._own(caller, session_id)
            _demand_alive(session, now)
            return session
        await self._changed(session.digest)
        return renewed

    async def revoke(self, caller: Caller, session_id: str) -> Session:
        """End it now; every process refuses it within the leash. Its minter, an operator, or the session itself.
        Revoking it again changes nothing."""
        session = await self._own(caller, session_id)
        now = int(self._clock())
        told = _telling("session.revoked", caller, now)
        revoked = await self._vault.revoke_session(caller.tenant, session_id, now, told)
        await self._changed(session.digest)
        return revoked or await self._own(caller, session_id)

    async def show(self, caller: Caller, session_id: str) -> Session:
        """One session, ended or not."""
        return await self._own(caller, session_id)

    async def list(
        self, caller: Caller, *, user: str | None = None, limit: int = 100, after: str | None = None
    ) -> builtins.list[Session]:
        """Those that the caller has minted, an operator's whole tenant, or itself; oldest first, ended ones too."""
        if caller.session is not None:
            return [await self._own(caller, caller.session)] if after is None else []
        minter = None if caller.operator else _minter(caller)
        return await self._vault.sessions(
            caller.tenant, minted_by=minter, user=user, limit=limit, after=after
        )

    def _limits(
        self, routes: tuple[str, ...] | None, tools: tuple[str, ...] | None
    ) -> tuple[tuple[str, ...] | None, tuple[str, ...] | None]:
        if len(routes or ()) > MOST_NAMES or len(tools or ()) > MOST_NAMES:
            raise BadRequest(
                f"A session names at most {MOST_NAMES} routes and as many tools", reason="limits"
            )
        known = self._routes()
        for route in routes or ():
            if route not in known:
                raise BadRequest(f"There is no route {route[:64]!r}", reason="routes")
        for pattern in tools or ():
            if fault := pattern_fault(pattern):
                raise BadRequest(f"A pattern of tools {fault}", reason="tools")
        if tools is not None and routes is None:
            routes = ()
        if routes is not None and not routes and not tools:
            raise BadRequest(
                "This session could use nothing: name routes, tools, or neither", reason="limits"
            )
        return routes, tools

    async def _own(self, caller: Caller, session_id: str) -> Session:
        """What others have minted does not exist for this caller (I04)."""
        session = await self._vault.session(caller.tenant, session_id)
        if session is None or not _may_see(caller, session):
            raise NotFound("There is no such session", reason="session_unknown")
        return session


def _may_see(caller: Caller, session: Session) -> bool:
    if caller.session is not None:
        return caller.session == session.id
    return caller.operator or _minter(caller) == session.minted_by


def _minter(caller: Caller) -> str:
    """An agent key by its id, so that its end is the end of what it minted; else what the caller is known as."""
    return caller.key or f"{caller.kind}:{caller.agent}"


def _agent(caller: Caller, name: str | None) -> str:
    """Whom rules, limits and records take the session for: nobody who might be allowed what the caller is not."""
    if name is None or name == caller.agent:
        return caller.agent
    if caller.operator:
        if len(name) <= 200 and name.isprintable():
            return name
        raise BadRequest("An agent needs a printable name", reason="agent")
    raise BadRequest(
        f"This key mints sessions for {caller.agent} alone; what you call them is the label", reason="agent"
    )


def _demand_alive(session: Session, now: int) -> None:
    if session.revoked_at is not None:
        raise BadRequest("This session has been revoked", reason="revoked")
    if session.expires_at <= now:
        raise BadRequest("This session has expired: mint another one", reason="expired")


def _telling(kind: str, caller: Caller, at: int) -> Telling:
    def events(session: Session) -> tuple[Event, ...]:
        data = {
            "session_id": session.id,
            "name": session.agent,
            "label": session.label,
            "minted_by": session.minted_by,
            "routes": None if session.routes is None else [*session.routes],
            "tools": None if session.tools is None else [*session.tools],
            "expires_at": session.expires_at,
            "renewable_until": session.renewable_until,
        }
        return (
            Event(kind=kind, at=at, tenant=caller.tenant, user=session.user, agent=caller.agent, data=data),
        )

    return events
