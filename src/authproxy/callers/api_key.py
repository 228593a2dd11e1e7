"""Callers with an agent key (`apx_…`): a table of digests in memory, kept no older than the leash."""

from __future__ import annotations

import asyncio
import base64
import secrets
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

import structlog

from authproxy.callers.presented import PREFIX, Presented
from authproxy.core.config import CallerChoice
from authproxy.core.errors import CallerUnknown, StoreUnavailable
from authproxy.core.model import AgentKey, Caller

BLIND = 30.0
"""Seconds for which the table is believed while the store cannot be read: an outage of the store must not become
one of every agent at once, yet a revocation that cannot be seen must not be ignored for ever."""

log = structlog.get_logger()


def new_key(random: Callable[[int], bytes] = secrets.token_bytes) -> str:
    """256 random bits with our prefix, so that scanners of leaked secrets and our own listeners know it."""
    return PREFIX + base64.urlsafe_b64encode(random(32)).rstrip(b"=").decode("ascii")


PAUSE = 0.2
"""Seconds between two readings of the table for keys that are not in it."""


class ApiKeys:
    """Recognises agent keys, each in its own tenant and within the configured bound of users.

    `load` reads all of them; `refresh` and `run` keep the table young.
    """

    def __init__(
        self,
        choice: CallerChoice,
        load: Callable[[], Awaitable[Iterable[AgentKey]]],
        *,
        leash: float = 5.0,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._bound = choice.may_act_for
        self._load = load
        self._period = leash / 2
        self._blind = max(BLIND, leash)
        self._clock = clock
        self._monotonic = monotonic
        self._keys: Mapping[str, tuple[AgentKey, Caller]] = {}
        self._read_at: float | None = None

    async def refresh(self) -> None:
        """Read the table anew; raises StoreUnavailable and keeps the old one where it cannot be read."""
        started = self._monotonic()
        keys = await self._load()
        self._keys = {key.digest: (key, self._caller(key)) for key in keys}
        self._read_at = started

    async def look_again(self) -> bool:
        """Whether the table was read anew for a key that it does not know, such as one made a moment ago.

        At most five times a second, so that made-up keys cost the store next to nothing.
        """
        if self._read_at is not None and self._monotonic() - self._read_at < PAUSE:
            return False
        try:
            await self.refresh()
        except StoreUnavailable:
            return False
        return True

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
        if entry is None:
            raise CallerUnknown("The agent key is not known", reason="unknown_key")
        key, caller = entry
        if key.revoked_at is not None:
            raise CallerUnknown("The agent key has been revoked", reason="revoked_key")
        if key.expires_at is not None and self._clock() >= key.expires_at:
            raise CallerUnknown("The agent key has expired", reason="expired_key")
        return caller

    def _caller(self, key: AgentKey) -> Caller:
        return Caller(
            tenant=key.tenant,
            agent=key.name,
            kind="api_key",
            may_act_for=both(key.may_act_for, self._bound),
            operator=key.operator,
            bound_user=one_user(key.may_act_for),
        )


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
