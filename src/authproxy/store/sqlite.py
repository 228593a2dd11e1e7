"""The default store: one SQLite file in WAL mode, one writer and one reader connection, each on its own thread.

- Every write transaction is `BEGIN IMMEDIATE`: it never has to upgrade a read, so the busy timeout holds (E07).
- `synchronous=FULL`: WAL with NORMAL may lose the last commits with the machine's power, and the last commit may be
  the only copy of a rotated refresh token. A commit costs one fsync off the event loop; audit is batched, so the
  price is paid some five times a second at most.
- `secure_delete=ON`: what is replaced is overwritten in its page; the WAL is emptied at close (E12).
- The database's clock is the host's, which every process that can open the file shares (A06).
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import sqlite3
import stat
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Final, Self

import aiosqlite
import structlog

from authproxy.core.errors import StoreUnavailable
from authproxy.store.base import ATTEMPTS, BUSY, Check, Row, T, Value, checked, pause, run_again
from authproxy.store.schema import MIGRATIONS, refuse_newer

_log = structlog.get_logger()
# aiosqlite writes the values of every statement to its debug log; rows are nobody's reading.
logging.getLogger("aiosqlite").setLevel(logging.WARNING)

NOW_MS: Final = "CAST((julianday('now') - 2440587.5) * 86400000.0 AS INTEGER)"
_WORDS: Final = {
    "text": "TEXT",
    "bytes": "BLOB",
    "int": "INTEGER",
    "serial": "INTEGER PRIMARY KEY AUTOINCREMENT",
    "strict": " STRICT",
}
_ONE_ROW: Final = re.compile(r"\bVALUES\s*(\([?,\s]+\))")
_TOGETHER: Final = (2000, 500, 100, 20)  # rows that are inserted with one statement, as many as there are
_FAR_FILESYSTEMS: Final = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "9p", "fuse.sshfs", "afs", "ceph", "lustre"}
)
_LOST_FILESYSTEMS: Final = frozenset({"tmpfs", "ramfs", "overlay"})


class SqliteBackend:
    """One open SQLite store. `path` None: a store in memory that ends with this object."""

    def __init__(self, path: Path | None, writer: aiosqlite.Connection, reader: aiosqlite.Connection) -> None:
        self._path = path
        self._writer = writer
        self._reader = reader
        self._lock = asyncio.Lock()
        self._closed = False
        self._dialect: dict[str, str] = {}

    @classmethod
    async def open(
        cls, path: Path | None, *, busy_timeout: float = 5.0, may_change: Check | None = None
    ) -> Self:
        """Opens, or makes, the file and brings it to this version's schema; an older store only after `may_change`."""
        if sqlite3.sqlite_version_info < (3, 37, 0):
            raise StoreUnavailable(
                f"SQLite {sqlite3.sqlite_version} is too old: 3.37 is needed", reason="sqlite_old"
            )
        if path is not None:
            with _rim(path):
                await asyncio.to_thread(_prepare_file, path)
        with _rim(path):
            writer = await aiosqlite.connect(
                path or ":memory:", timeout=busy_timeout, isolation_level=None, cached_statements=256
            )
        backend = cls(path, writer, writer)
        try:
            await backend._set_up(busy_timeout, may_change)
        except BaseException:
            await backend.close()
            raise
        return backend

    async def _set_up(self, busy_timeout: float, may_change: Check | None) -> None:
        with _rim(self._path):
            self._writer.row_factory = sqlite3.Row
            for pragma in ("secure_delete=ON", "foreign_keys=ON", "trusted_schema=OFF", "synchronous=FULL"):
                await self._writer.execute_fetchall(f"PRAGMA {pragma}")
            # Looked at before anything is changed, even the journal's mode (E13).
            version = await self._version()
            refuse_newer(version, str(self._path))
        if may_change is not None and 0 < version < len(MIGRATIONS):
            await may_change(self)
        if self._path is not None:
            with _rim(self._path):
                await self._use_wal()
        await self._migrate()
        if self._path is not None:
            with _rim(self._path):
                self._reader = await aiosqlite.connect(
                    self._path, timeout=busy_timeout, isolation_level=None, cached_statements=256
                )
                self._reader.row_factory = sqlite3.Row
                await self._reader.execute_fetchall("PRAGMA query_only=ON")
                await self._reader.execute_fetchall("PRAGMA trusted_schema=OFF")

    async def _use_wal(self) -> None:
        # Changing the mode takes an exclusive lock without the busy handler, and two processes may start at once.
        for attempt in range(ATTEMPTS):
            try:
                await self._writer.execute_fetchall("PRAGMA journal_mode=WAL")
                return
            except sqlite3.OperationalError as error:
                if not _busy(error) or attempt == ATTEMPTS - 1:
                    raise
            await pause(attempt)

    async def _version(self) -> int:
        rows = list(await self._writer.execute_fetchall("PRAGMA user_version"))
        return int(rows[0][0])

    async def _migrate(self) -> None:
        with _rim(self._path):
            if await self._version() == len(MIGRATIONS):
                return

        async def work(tx: Self) -> None:
            # Read again: another process may have migrated while this one waited for its turn.
            done = await self._version()
            refuse_newer(done, str(self._path))
            for statements in MIGRATIONS[done:]:
                for statement in statements:
                    await tx.run(statement.format_map(_WORDS))
            await tx.run(f"PRAGMA user_version={len(MIGRATIONS)}")

        await self.write(work)

    async def read(self, sql: str, *values: Value) -> Sequence[Row]:
        self._ensure_open()
        if self._reader is not self._writer:
            with _rim(self._path):
                return list(await self._reader.execute_fetchall(self._in_dialect(sql), checked(values)))
        async with self._lock:  # in memory there is one connection; never look into an open transaction
            return await self.run(sql, *values)

    async def write(self, work: Callable[[Self], Awaitable[T]]) -> T:
        return await run_again(lambda: self._transaction(work))

    async def _transaction(self, work: Callable[[Self], Awaitable[T]]) -> T:
        async with self._lock:
            self._ensure_open()
            try:
                if self._writer.in_transaction:  # an earlier rollback failed with the disk
                    await self._roll_back()
                await self.run("BEGIN IMMEDIATE")
                result = await work(self)
                await self.run("COMMIT")
            except BaseException:
                # Queued behind whatever statement a cancelled caller left in the thread, so it is the last word.
                await self._roll_back()
                raise
            return result

    async def _roll_back(self) -> None:
        try:
            with _rim(self._path):
                await self._writer.rollback()
        except StoreUnavailable as error:
            _log.warning("store_rollback_failed", reason=error.reason)

    async def run(self, sql: str, *values: Value) -> Sequence[Row]:
        """One statement of the transaction that is open (see `base.Transaction`)."""
        with _rim(self._path):
            return list(await self._writer.execute_fetchall(self._in_dialect(sql), checked(values)))

    async def run_many(self, sql: str, rows: Sequence[Sequence[Value]]) -> None:
        """One statement for each row, in the transaction that is open; where rows are inserted, one for many.

        For each statement SQLite's thread lets go of the interpreter, and has to get it back from an event loop that
        may be busy: that is what bounds how many records per second the trail can take.
        """
        text = self._in_dialect(sql)
        at = 0
        with _rim(self._path):
            for count in _TOGETHER:
                together = _for_many(text, count)
                while together is not None and len(rows) - at >= count:
                    values = [value for row in rows[at : at + count] for value in row]
                    await self._writer.execute_fetchall(together, checked(values))
                    at += count
            cursor = await self._writer.executemany(text, [checked(row) for row in rows[at:]])
            await cursor.close()

    async def alone(self, *name: str) -> None:
        """Every write transaction is (see `base.Transaction`)."""

    async def describe(self) -> Mapping[str, str | int]:
        if self._path is None:
            return {"store": "memory", "path": "", "bytes": 0, "filesystem": ""}
        with _rim(self._path):
            size = await asyncio.to_thread(lambda path: path.stat().st_size, self._path)
            kind = await asyncio.to_thread(_filesystem, self._path)
        return {"store": "sqlite", "path": str(self._path), "bytes": size, "filesystem": kind}

    async def close(self) -> None:
        if self._closed:
            return
        async with self._lock:
            self._closed = True
            try:
                with _rim(self._path):
                    if self._reader is not self._writer:
                        await self._reader.close()
                    if self._path is not None:
                        # With the last process gone this empties the WAL, which still has replaced cells.
                        await self._writer.execute_fetchall("PRAGMA wal_checkpoint(TRUNCATE)")
            except StoreUnavailable as error:
                _log.warning("store_checkpoint_failed", reason=error.reason)
            with _rim(self._path):
                await self._writer.close()

    def _ensure_open(self) -> None:
        if self._closed:
            raise StoreUnavailable("the store is closed", reason="closed")

    def _in_dialect(self, sql: str) -> str:
        text = self._dialect.get(sql)
        if text is None:
            text = self._dialect[sql] = sql.replace("now_ms()", NOW_MS)
        return text


def sqlite_path(url: str) -> Path | None:
    """The file of `sqlite:///relative` or `sqlite:////absolute`; None for `sqlite:///:memory:` and `sqlite://`."""
    rest = url.removeprefix("sqlite://").removeprefix("/")
    if rest in ("", ":memory:"):
        return None
    path = Path(rest)
    if path.name in ("", "..") or path.is_dir():
        raise StoreUnavailable(
            f"{rest} is a directory: name a file in it, as in sqlite:///authproxy.db", reason="not_a_file"
        )
    return path


@cache
def _for_many(sql: str, count: int) -> str | None:
    """The statement for so many rows; None where it inserts none."""
    found = _ONE_ROW.search(sql)
    if found is None:
        return None
    return f"{sql[: found.start(1)]}{','.join([found[1]] * count)}{sql[found.end(1) :]}"


def _prepare_file(path: Path) -> None:
    """Makes the file with mode 0600; SQLite gives its -wal and -shm files the mode of the database itself."""
    directory = path.parent
    if not directory.is_dir():
        raise StoreUnavailable(
            f"the store's directory {directory} does not exist", reason="directory_missing"
        )
    kind = _filesystem(directory)
    if kind in _FAR_FILESYSTEMS:
        raise StoreUnavailable(
            f"{directory} is on {kind}: SQLite's locks do not hold on network filesystems",
            reason="filesystem",
        )
    if kind in _LOST_FILESYSTEMS:
        _log.warning("store_on_ephemeral_filesystem", path=str(path), filesystem=kind)
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):
            raise StoreUnavailable(f"{path} is not a file", reason="not_a_file") from None
        if mode & 0o077:
            _log.warning("store_open_to_others", path=str(path), mode=f"{stat.S_IMODE(mode):04o}")
        return
    try:
        os.fchmod(fd, 0o600)
    finally:
        os.close(fd)


def _filesystem(path: Path) -> str:
    """The type of the filesystem that `path` is on, where the kernel tells (Linux); else an empty string."""
    mounts = Path("/proc/self/mountinfo")
    if not mounts.exists():
        return ""
    place, best, kind = str(path.resolve()), "", ""
    for line in mounts.read_text(encoding="utf-8", errors="replace").splitlines():
        head, _, tail = line.partition(" - ")
        mount = head.split()[4].replace("\\040", " ")
        if len(mount) >= len(best) and (place == mount or place.startswith(mount.rstrip("/") + "/")):
            best, kind = mount, tail.split()[0]
    return kind


def _busy(error: sqlite3.Error) -> bool:
    return _reason(error) in BUSY


def _reason(error: BaseException) -> str:
    name = getattr(error, "sqlite_errorname", None)
    if isinstance(name, str):
        return name.removeprefix("SQLITE_").split("_")[0].lower()
    return "io" if isinstance(error, OSError) else "fault"


@contextmanager
def _rim(path: Path | None) -> Iterator[None]:
    """Foreign exceptions end here. aiosqlite says ValueError for a connection that was closed."""
    try:
        yield
    except (sqlite3.Error, OSError, ValueError) as error:
        reason = _reason(error)
        if reason == "notadb":
            raise StoreUnavailable(f"{path} is not a SQLite database", reason=reason) from error
        raise StoreUnavailable(f"the store cannot be used now ({reason})", reason=reason) from error
