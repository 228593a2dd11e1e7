"""Callers with an agent key or a session (`apx_…`): digests in memory, believed no longer than the leash."""

from __future__ import annotations

import asyncio
import base64
import secrets
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import structlog

from authproxy.callers.presented import PREFIX, Presented
from authproxy.core.config import CallerChoice
from authproxy.core.errors import CallerUnknown, StoreUnavailable
from authproxy.core.model import AgentKey, Caller, Session

BLIND = 30.0
"""Seconds for which the table is believed while the store cannot be read: an outage of the store must not become
one of every agent at once, yet a revocation that cannot be seen must not be ignored for ever."""

log = structlog.get_logger()


def new_key(random: Callable[[int], bytes] = secrets.token_bytes) -> str:
    """256 random bits with our prefix, so that scanners of leaked secrets and our own listeners know it."""
    return PREFIX + base64.urlsafe_b64encode(random(32)).rstrip(b"=").decode("ascii")


PAUSE = 0.2
"""Seconds between two readings of the table for keys that are not in it."""
PACE = 0.02
"""Seconds between two readings of sessions that are not known here."""
IDLE = 20
"""Readings of the table after which a session that was not used meanwhile is forgotten here, not ended."""
MOST = 500
"""Sessions that are asked for in one reading."""

Keys = Callable[[], Awaitable[Iterable[AgentKey]]]
SessionsOf = Callable[[Collection[str]], Awaitable[Iterable[Session]]]


class ApiKeys:
    """Recognises agent keys and sessions, each in its own tenant and within the configured bound of users.

    `load` reads all keys; of sessions, which are many, only those that are used here are known, and `load_sessions`
    reads them by their digests. `refresh` and `run` keep both young. Readings stand in a line, so that what was read
    before a change never replaces what was read after it.
    """

    def __init__(
        self,
        choice: CallerChoice,
        load: Keys,
        load_sessions: SessionsOf | None = None,
        *,
        leash: float = 5.0,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._bound = choice.may_act_for
        self._load = load
        self._load_sessions = load_sessions
        self._period = leash / 2
        self._blind = max(BLIND, leash)
        self._clock = clock
        self._monotonic = monotonic
        self._keys: Mapping[str, tuple[AgentKey, Caller]] = {}
        self._minters: Mapping[str, AgentKey] = {}
        self._sessions: dict[str, _Known] = {}
        self._digests: dict[str, str] = {}  # by the ids of sessions
        self._wanted: dict[str, None] = {}
        self._missing: dict[str, float] = {}
        self._reading = asyncio.Lock()
        self._read_at: float | None = None
        self._sought_at: float | None = None
        self._away_until = 0.0

    async def refresh(self) -> None:
        """Read the table anew; raises StoreUnavailable and keeps the old one where it cannot be read."""
        async with self._reading:
            await self._refresh()

    async def _refresh(self) -> None:
        started = self._monotonic()
        keys = list(await self._load())
        used = [digest for digest, known in self._sessions.items() if known.idle < IDLE]
        found: dict[str, _Known] = {}
        for start in range(0, len(used), MOST):
            found |= await self._found(used[start : start + MOST])
        for digest, known in found.items():
            known.idle = self._sessions[digest].idle + 1
        self._keys = {key.digest: (key, self._caller(key)) for key in keys}
        self._minters = {key.id: key for key in keys}
        self._sessions = found
        self._digests = {known.session.id: digest for digest, known in found.items()}
        self._read_at = started

    async def look_again(self) -> bool:
        """Whether what is known was read anew for a key that is not, such as one made a moment ago.

        All keys at most five times a second, and sessions at most fifty times, those that are asked for together: so
        made-up keys cost the store next to nothing. Raises StoreUnavailable where it cannot be said whether there is
        such a session.
        """
        async with self._reading:
            if await self._seek():
                return True
            if self._read_at is not None and self._monotonic() - self._read_at < PAUSE:
                return (
                    self._load_sessions is not None
                )  # what was wanted may have been read by another in the line
            try:
                await self._refresh()
            except StoreUnavailable:
                return False
        return True

    async def reread(self, digest: str) -> None:
        """Know of a change to this session from here on, whatever was being read meanwhile."""
        async with self._reading:
            known = self._sessions.pop(digest, None)
            if known is None:
                return  # it is read when it is used
            try:
                self._sessions |= await self._found([digest])
            except StoreUnavailable:
                log.warning("session_not_read", session=known.session.id)  # and so when it is used

    async def _seek(self) -> bool:
        """Read the sessions that are wanted; whether all of them are there, with the keys that minted them."""
        if not self._wanted:
            return False
        if (
            self._monotonic() < self._away_until
        ):  # those in the line must not all wait for a store that is away
            raise StoreUnavailable("The sessions cannot be read now")
        if self._sought_at is not None and (rest := self._sought_at + PACE - self._monotonic()) > 0:
            await asyncio.sleep(min(rest, PACE))
        wanted = list(self._wanted)[:MOST]
        for digest in wanted:
            del self._wanted[digest]
        self._sought_at = self._monotonic()
        try:
            found = await self._found(wanted)
        except StoreUnavailable:
            self._wanted |= dict.fromkeys(wanted)
            self._away_until = self._monotonic() + 1.0
            raise
        self._sessions |= found
        if len(self._missing) > 20 * MOST:
            self._missing.clear()
        missing = [digest for digest in wanted if digest not in found]
        self._missing.update((digest, self._sought_at) for digest in missing)
        minters = {known.session.minted_by for known in found.values()}
        return not missing and all(name in self._minters for name in minters if name.startswith("agt_"))

    def _want(self, digest: str) -> None:
        if self._load_sessions is None or len(self._wanted) >= MOST:
            return
        missed = self._missing.get(digest)
        if missed is None or self._monotonic() - missed >= PAUSE:  # nobody was there a moment ago
            self._wanted[digest] = None

    async def _found(self, digests: Collection[str]) -> dict[str, _Known]:
        sessions = () if self._load_sessions is None else tuple(await self._load_sessions(digests))
        self._digests.update((session.id, session.digest) for session in sessions)
        return {session.digest: self._known(session) for session in sessions}

    async def run(self) -> None:
        """Keep the table within the leash until cancelled. Half the leash is left for the reading itself."""
        told = False
        while True:
            await asyncio.sleep(self._period)
            try:
                await self.refresh()
            except StoreUnavailable:
                if not told:
                    log.warning("agent_keys_stale", believed_for_seconds=self._blind)
                told = True
            else:
                told = False

    def recognise(self, shown: Presented, *, peer_is_loopback: bool) -> Caller | None:
        if shown.digest is None:
            return None
        if self._read_at is None or self._monotonic() - self._read_at > self._blind:
            raise StoreUnavailable("The table of agent keys cannot be read now")
        entry = self._keys.get(shown.digest)
        if entry is not None:
            key, caller = entry
            self._demand_good(key, "The agent key")
            return caller
        known = self._sessions.get(shown.digest)
        if known is None:
            self._want(shown.digest)
            raise CallerUnknown("The agent key is not known", reason="unknown_key")
        known.idle = 0
        if self._renewed_perhaps(known):
            self._want(shown.digest)
            raise CallerUnknown("The session has expired, as far as is known here", reason="unknown_key")
        self._demand_alive(known.session)
        return known.caller

    def demand_standing(self, caller: Caller) -> None:
        """Raises CallerUnknown; what is not known here now has been forgotten, and not ended."""
        if caller.session is not None:
            known = self._sessions.get(self._digests.get(caller.session, ""))
            if known is not None:
                self._demand_alive(known.session)
        elif caller.key is not None and (key := self._minters.get(caller.key)) is not None:
            self._demand_good(key, "The agent key")

    def _demand_alive(self, session: Session) -> None:
        self._demand_good(session, "The session")
        if session.minted_by.startswith("agt_"):
            minter = self._minters.get(session.minted_by)
            if minter is None or minter.tenant != session.tenant:
                raise CallerUnknown("The key that minted this session is not known", reason="unknown_key")
            self._demand_good(minter, "The key that minted this session")

    def _renewed_perhaps(self, known: _Known) -> bool:
        """Whether another process may have lengthened what has ended by what was read here."""
        session, now = known.session, self._clock()
        if session.revoked_at is not None or not session.expires_at <= now < (session.renewable_until or 0):
            return False
        return self._monotonic() - known.read_at >= PAUSE

    def _demand_good(self, one: AgentKey | Session, what: str) -> None:
        if one.revoked_at is not None:
            raise CallerUnknown(f"{what} has been revoked", reason="revoked_key")
        if one.expires_at is not None and self._clock() >= one.expires_at:
            raise CallerUnknown(f"{what} has expired", reason="expired_key")

    def _caller(self, key: AgentKey) -> Caller:
        return Caller(
            tenant=key.tenant,
            agent=key.name,
            kind="api_key",
            may_act_for=both(key.may_act_for, self._bound),
            operator=key.operator,
            bound_user=one_user(key.may_act_for),
            key=key.id,
        )

    def _known(self, session: Session) -> _Known:
        caller = Caller(
            tenant=session.tenant,
            agent=session.agent,
            kind="session",
            may_act_for=both((session.user,), self._bound),
            bound_user=session.user,
            session=session.id,
            routes=session.routes,
            tools=session.tools,
        )
        return _Known(session, caller, self._monotonic())


@dataclass(slots=True)
class _Known:
    """A session, when it was read, and how many readings ago it was last used."""

    session: Session
    caller: Caller
    read_at: float
    idle: int = 0


def one_user(patterns: Sequence[str]) -> str | None:
    """The user where the patterns name exactly one, and no pattern."""
    return patterns[0] if len(patterns) == 1 and not patterns[0].endswith("*") else None


def both(ours: Sequence[str], bound: Sequence[str]) -> tuple[str, ...]:
    """The users whom both lists allow, as a list of the same kind: of two patterns, the narrower where one covers
    the other, and nothing where neither does."""
    narrower = [_narrower(a, b) for a in ours for b in bound]
    return tuple(dict.fromkeys(p for p in narrower if p is not None))


def _narrower(a: str, b: str) -> str | None:
    if _covers(a, b):
        return b
    return a if _covers(b, a) else None


def _covers(wide: str, narrow: str) -> bool:
    return wide == narrow or (wide.endswith("*") and narrow.startswith(wide[:-1]))
