"""Takes over a changed key file while the process runs, and brings every cell under the newest key.

A new key opens at once and seals a moment later, when whoever else reads the same file knows it as well. A key that
has left the file still opens for some minutes: rows that were read before may be opened after. A file that lacks a
key under which cells are still sealed is refused, and looked at again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import structlog

from authproxy.core.errors import KeyMissing, StoreUnavailable
from authproxy.store.keys import read_keys
from authproxy.store.rotation import Rotation
from authproxy.store.sealing import Keyring

log = structlog.get_logger()

SETTLE: Final = 5.0
"""Seconds from a file's change until its new key seals; several looks at the file long."""
_LINGER: Final = 600.0
_AGAIN: Final = (
    300.0  # between two counts of what is left: another process may have written under an older key
)
_PAUSE: Final = 0.02  # between two pages: requests come first

Told = Callable[[str, dict[str, Any]], Awaitable[None]]


class KeyWatch:
    """Runs beside whatever uses the store. `file` None: the keys cannot change, and only what is left is resealed."""

    def __init__(
        self,
        store: Rotation,
        keyring: Keyring,
        file: Path | None,
        *,
        told: Told,
        period: float = 1.0,
        settle: float = SETTLE,
        tick: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._file = file
        self._told = told
        self._period = period
        self._settle = settle
        self._tick = tick
        self._wake = asyncio.Event()
        self._wanted = keyring  # as the file has it; what seals and opens now is the store's own ring
        self._seen: tuple[int, ...] | None = None
        self._refused: str | None = None
        self._look_at = 0.0
        self._seal_at: float | None = None
        self._forget_at: float | None = None
        self._reseal_at = 0.0

    def wake(self) -> None:
        """Look now."""
        self._seen = None
        self._wake.set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            self._wake.clear()
            try:
                await self._look()
                await self._turn()
                if self._tick() >= self._reseal_at:
                    await self._reseal()
            except (StoreUnavailable, KeyMissing) as error:
                log.warning("keys_not_turned", reason=error.reason)
                self._reseal_at = self._tick() + self._period
            try:
                async with asyncio.timeout(self._period):
                    await self._wake.wait()
            except TimeoutError:
                continue

    async def _look(self) -> None:
        if self._file is None:
            return
        seen = _signature(self._file)
        if seen == self._seen and (self._refused is None or self._tick() < self._look_at):
            return
        self._look_at = self._tick() + 5 * self._period
        try:
            found = read_keys(self._file)
            missing = await self._store.missing_keys(found)
        except KeyMissing as error:
            await self._refuse(error.title)
        else:
            for key_id, cells in missing.items():
                await self._refuse(
                    f"{cells} cells are still sealed under key {key_id}, which {self._file} no longer has: put it back "
                    "until `authproxy keys status` shows that nothing is left under it"
                )
                break
            else:
                await self._take(found)
        self._seen = seen  # not before: if the store was away, the file is looked at again

    async def _take(self, found: Keyring) -> None:
        self._refused = None
        if found.ids == self._wanted.ids:
            return
        now, ring = self._tick(), self._store.keyring
        gone = set(self._wanted.ids) - set(found.ids)
        together = found.opening(ring)
        await self._store.take_keys(together.sealing_under(ring.newest))
        self._wanted = found
        self._seal_at = now + self._settle
        self._forget_at = now + _LINGER if gone else self._forget_at
        log.warning("keys_changed", first=found.newest, keys=list(found.ids), removed=sorted(gone))
        await self._told(
            "config.keys_changed", {"first": found.newest, "keys": list(found.ids), "removed": sorted(gone)}
        )

    async def _refuse(self, why: str) -> None:
        if why != self._refused:
            self._refused = why
            log.error("keys_refused", message=why)
            await self._told("config.keys_refused", {"reason": why})

    async def _turn(self) -> None:
        now = self._tick()
        if self._seal_at is not None and now >= self._seal_at:
            await self._store.take_keys(self._wanted.opening(self._store.keyring))
            self._seal_at, self._reseal_at = None, now
            log.info("sealing_key_changed", sealing_key=self._wanted.newest)
        if self._forget_at is not None and now >= self._forget_at:
            await self._store.take_keys(self._wanted.sealing_under(self._store.keyring.newest))
            self._forget_at = None

    async def _reseal(self) -> None:
        done = 0
        async for cells in self._store.resealing():
            done += cells
            if self._file is not None and _signature(self._file) != self._seen:
                return  # first the file; what is left is found again
            await asyncio.sleep(_PAUSE)
        self._reseal_at = self._tick() + _AGAIN
        if done:
            left = await self._store.stale_cells()
            log.info("resealed", cells=done, left=left, sealing_key=self._store.keyring.newest)
            await self._told(
                "config.resealed", {"cells": done, "left": left, "key": self._store.keyring.newest}
            )


def _signature(file: Path) -> tuple[int, ...]:
    """Changes whenever the file does; follows links, as mounted secrets are swapped by them."""
    try:
        status = file.stat()
    except OSError:
        return ()
    return (status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size)
