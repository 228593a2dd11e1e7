"""Notices a store that was put back from a backup, and has its grants tried one by one.

Beside a SQLite file a small mark says how far its trail had come. A store whose trail is shorter than its own mark is
an older copy. Then every refresh token in it may have been spent since, and nothing in the store can tell which. So
no grant of before is refreshed in the background any more; a request that needs one tries it, once, and a refusal
ends it as any refusal does.

What this cannot see: a copy that was put back together with its mark, a backup younger than the mark's last writing,
and PostgreSQL, which has no place beside it that all replicas share. There `serve --restored` says it. Nor can a
spent token be told from one that is good before it is sent; a provider that takes reuse for theft ends that grant.
"""

from __future__ import annotations

import asyncio
import json
import os
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final, NamedTuple

import structlog

from authproxy.core.errors import StoreUnavailable
from authproxy.store.base import Backend, Transaction
from authproxy.store.reading import last_position

log = structlog.get_logger()

EVERY: Final = 5.0
_SAID: Final = (
    "this store is an older copy: refresh tokens in it may have been spent since. Grants of before are refreshed when "
    "a request needs them, and not in the background; each is tried once (`authproxy connections refresh` tries one "
    "now). What was disconnected or revoked since the backup stands again: agent keys, and disabled users, too. "
    "Sessions are ended, all of them: mint others"
)
_KEEP: Final = """INSERT INTO meta (name, value) VALUES ('restored', ?)
    ON CONFLICT (name) DO UPDATE SET value = excluded.value"""
# One that was revoked since would stand again; they are short-lived, and easily had anew.
_SESSIONS: Final = "UPDATE sessions SET revoked_at = ? WHERE revoked_at IS NULL"
_BEFORE: Final = """SELECT count(*) AS n FROM connections
    WHERE state IN ('active', 'misconfigured') AND refresh_token IS NOT NULL AND obtained_at < ?"""


class Mark(NamedTuple):
    """Which store it is of, and the last position of its trail."""

    store: str
    position: int


class Restored(NamedTuple):
    """A store that was put back: when that was noticed, how many grants are in doubt, and what told it."""

    at: int
    grants: int
    seen: str


Told = Callable[[str, dict[str, Any]], Awaitable[None]]


class Epoch:
    """`mark` is the file; None where a store has none."""

    def __init__(self, backend: Backend, mark: Path | None) -> None:
        self._backend = backend
        self._mark = mark
        self._written: Mark | None = None

    async def begin(self, now: int, *, said: bool, told: Told) -> Restored | None:
        """Before anything is written to the trail: whether this is an older copy, by the mark or because it is
        `said`. It is noted in the store, for every process."""
        seen = "said" if said else None
        # The mark first: another process may write a newer one as soon as the store has gone on.
        marked, stands = self._read(), await self._now()
        if seen is None and marked is not None and marked.store == stands.store:
            seen = "mark" if stands.position < marked.position else None
        if seen is None:
            return None

        async def work(tx: Transaction) -> int:
            await tx.run(_KEEP, str(now))
            await tx.run(_SESSIONS, now)
            return int((await tx.run(_BEFORE, now))[0]["n"])

        found = Restored(now, await self._backend.write(work), seen)
        log.warning("store_restored", **found._asdict(), message=_SAID)
        await told("config.restored", found._asdict())
        return found

    async def run(self) -> None:
        """Keep the mark, until cancelled."""
        while self._mark is not None:
            try:
                await self.note()
            except StoreUnavailable as error:
                log.debug("mark_not_read", reason=error.reason)
            except OSError as error:
                log.warning("mark_not_written", file=str(self._mark), error=error.strerror)
                return  # a store whose folder cannot be written has no mark; --restored is there for it
            await asyncio.sleep(EVERY)

    async def note(self) -> None:
        """Write how far the trail has come, if it has come further."""
        stands = await self._now()
        if self._mark is not None and stands != self._written:
            await asyncio.to_thread(_write, self._mark, stands)
            self._written = stands

    async def _now(self) -> Mark:
        rows = await self._backend.read("SELECT value FROM meta WHERE name = 'store'")
        return Mark(rows[0]["value"], await last_position(self._backend))

    def _read(self) -> Mark | None:
        try:
            found = json.loads((self._mark or Path()).read_text(encoding="ascii"))
            return Mark(str(found["store"]), int(found["position"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None  # none yet, or not ours


def _write(path: Path, mark: Mark) -> None:
    fd, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(fd, "w", encoding="ascii") as file:
            json.dump(mark._asdict(), file)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
