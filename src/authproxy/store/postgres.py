"""The store for many replicas: PostgreSQL through asyncpg, directly or behind a pooler that lends connections out
for a transaction.

- Everything, reads too, is one explicit transaction, and nothing outlives one: no prepared statement with a name, no
  lock or setting of a session, no LISTEN. So each may run on another server connection (A33).
- READ COMMITTED, set by us whatever the default: a conditional UPDATE waits for whoever has the row and then judges
  the row as that one left it, and `alone` is an advisory lock of the transaction. Deadlocks are run again.
- The primary only (A32). A connection to a standby is refused when it is made; and since a pooler may move us to
  another server at any time, every read begins READ WRITE, which a standby refuses and a primary does for nothing.
- Time is `clock_timestamp()` in epoch milliseconds: after a wait it is the time after the wait, and no time zone is in
  it (B29).
- A commit is on the server's disk before it is told: `synchronous_commit=off` does not hold for us.
- A replica that stalls inside a transaction is cut off after `_IDLE` seconds, so that its row locks end.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final, Self
from urllib.parse import parse_qsl, urlsplit

import structlog

from authproxy.core.errors import StoreUnavailable
from authproxy.store.base import Check, Row, T, Value, checked, run_again
from authproxy.store.schema import MIGRATIONS, refuse_newer

try:
    import asyncpg
except ImportError as error:
    raise StoreUnavailable(
        "a postgresql:// store needs the extra of that name: pip install 'authproxy[postgres]'",
        reason="driver_missing",
    ) from error

_log = structlog.get_logger()

NOW_MS: Final = "CAST(extract(epoch FROM clock_timestamp()) * 1000 AS BIGINT)"
_WORDS: Final = {
    # Compared byte by byte, as SQLite does: pages and ranges must not depend on a locale or its version.
    "text": 'TEXT COLLATE "C"',
    "bytes": "BYTEA",
    "int": "BIGINT",
    "serial": "BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY",
    "strict": "",
}
_PART: Final = re.compile(r"'[^']*'|\?|now_ms\(\)")
_CONNECT: Final = 5.0  # seconds to make a connection, and to wait for one of the pool's to be free
_COMMAND: Final = 8.0  # seconds for one statement
_ROLLBACK: Final = 2.0  # seconds before a connection that does not roll back is thrown away
_CLOSE: Final = 10.0  # seconds for what is under way at the end
_LOCK: Final = 4  # seconds for a row or a turn
_IDLE: Final = 10  # seconds between two statements of a transaction
_LEAST: Final = 130000  # PostgreSQL 13
_READ: Final = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE"
_WRITE: Final = f"""BEGIN ISOLATION LEVEL READ COMMITTED;
    SET LOCAL lock_timeout = '{_LOCK}s';
    SET LOCAL idle_in_transaction_session_timeout = '{_IDLE}s';
    SELECT set_config('synchronous_commit', CASE current_setting('synchronous_commit') WHEN 'off' THEN 'on'
        ELSE current_setting('synchronous_commit') END, true)"""
_FIT: Final = """SELECT pg_is_in_recovery() AS standby, current_setting('default_transaction_read_only') AS read_only,
    current_setting('server_version_num') AS version, current_setting('server_encoding') AS encoding,
    current_setting('fsync') AS fsync"""
_VERSION_TABLE: Final = "CREATE TABLE IF NOT EXISTS authproxy_schema (version BIGINT NOT NULL)"
# By SQLSTATE, or by its first two characters. "busy": the server has rolled it back, and it may be run again.
_REASONS: Final = {
    "40001": "busy",
    "40P01": "busy",
    "55P03": "busy",
    "0A000": "standby",  # of what we say, only a standby has no notion: READ WRITE, and SERIALIZABLE as a default
    "25006": "read_only",
    "53100": "full",
    "53300": "too_many_connections",
    "42501": "privilege",
    "42P07": "not_empty",
    "3D000": "no_database",
    "08": "connection",
    "57": "connection",
    "25": "connection",
    "28": "refused",
    "23": "constraint",
}
_ADVICE: Final = {
    "privilege": "the database user may not do this: it needs to own its tables (or CREATE in its schema)",
    "not_empty": "a table of that name is there already: give authproxy a database or schema of its own",
    "no_database": "there is no database of that name",
    "refused": "the server does not let this user in: look at the user, the password and pg_hba.conf",
    "read_only": "the database takes no writes now",
    "too_many_connections": "the server has no connection left",
    "standby": "this server is a standby: only the primary will do",
    "connection": "the database server cannot be reached: look at the host and port of the store's URL",
    "url": "the store's URL is not one that PostgreSQL knows",
}
_FAULTS: Final = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError)


class PostgresBackend:
    """One open PostgreSQL store with a small pool."""

    def __init__(self, pool: Any, place: str) -> None:
        self._pool = pool
        self._place = place
        self._closed = False
        self._dialect: dict[str, str] = {}

    @classmethod
    async def open(cls, url: str, *, connections: int = 8, may_change: Check | None = None) -> Self:
        """Connects and brings the database to this version's schema; an older one only after `may_change`."""
        with _rim():  # urlsplit, too, refuses some
            place, given = redacted(url), _parameters(url)
        more: dict[str, Any] = {}
        if "target_session_attrs" not in given:
            more["target_session_attrs"] = "primary"  # of several hosts, the one that is
        if "application_name" not in given:
            more["server_settings"] = {"application_name": "authproxy"}
        pool = await asyncpg.create_pool(
            url,
            min_size=0,
            max_size=connections,
            max_inactive_connection_lifetime=300.0,
            statement_cache_size=0,
            timeout=_CONNECT,
            command_timeout=_COMMAND,
            init=_ensure_fit,
            reset=_nothing,
            **more,
        )
        backend = cls(pool, place)
        try:
            await backend._set_up(may_change)
        except BaseException:
            await backend.close()
            raise
        return backend

    async def _set_up(self, may_change: Check | None) -> None:
        version = await self._version()
        refuse_newer(version, self._place)
        (fit,) = await self.read(_FIT)
        if fit["fsync"] == "off":
            _log.warning("store_without_fsync", store=self._place)
        if version == len(MIGRATIONS):
            return
        if may_change is not None and version > 0:
            await may_change(self)

        async def work(tx: _Transaction) -> None:
            await tx.alone("schema")
            await tx.run(_VERSION_TABLE)
            rows = await tx.run("SELECT version FROM authproxy_schema")
            # Read again: another process may have migrated while this one waited for its turn.
            done = rows[0]["version"] if rows else 0
            refuse_newer(done, self._place)
            for statements in MIGRATIONS[done:]:
                for statement in statements:
                    await tx.run(statement.format_map(_WORDS))
            await tx.run("DELETE FROM authproxy_schema")
            await tx.run("INSERT INTO authproxy_schema (version) VALUES (?)", len(MIGRATIONS))

        await self.write(work)

    async def _version(self) -> int:
        if (await self.read("SELECT to_regclass('authproxy_schema') IS NULL AS gone"))[0]["gone"]:
            return 0
        rows = await self.read("SELECT version FROM authproxy_schema")
        return int(rows[0]["version"]) if rows else 0

    async def read(self, sql: str, *values: Value) -> Sequence[Row]:
        async def once() -> Sequence[Row]:
            async with self._transaction(_READ) as tx:
                return await tx.run(sql, *values)

        return await run_again(once)

    async def write(self, work: Callable[[_Transaction], Awaitable[T]]) -> T:
        async def once() -> T:
            async with self._transaction(_WRITE) as tx:
                return await work(tx)

        return await run_again(once)

    @asynccontextmanager
    async def _transaction(self, begin: str) -> AsyncIterator[_Transaction]:
        if self._closed:
            raise StoreUnavailable("the store is closed", reason="closed")
        with _rim():
            connection = await self._pool.acquire(timeout=_CONNECT)
        committing = False
        try:
            with _rim():
                await connection.execute(begin)
            yield _Transaction(connection, self._in_dialect)
            committing = True
            with _rim():
                ended = await connection.execute("COMMIT")
            if ended != "COMMIT":
                raise StoreUnavailable("the transaction had failed before its end", reason="fault")
        except StoreUnavailable as error:
            await _roll_back(connection)
            if committing or error.reason != "connection":
                raise
            # Whatever had been run is rolled back. The pool's other connections will have ended as well.
            await self._pool.expire_connections()
            raise StoreUnavailable("the connection to the store has ended", reason="stale") from error
        except BaseException:
            await _roll_back(connection)
            raise
        finally:
            await self._pool.release(connection)

    async def describe(self) -> Mapping[str, str | int]:
        (row,) = await self.read("SELECT pg_database_size(current_database()) AS bytes")
        return {"store": "postgresql", "path": self._place, "bytes": row["bytes"], "filesystem": ""}

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        try:
            async with asyncio.timeout(_CLOSE):
                await self._pool.close()
        except (TimeoutError, *_FAULTS) as error:
            _log.warning("store_closed_by_force", reason=_reason(error))
            self._pool.terminate()

    def _in_dialect(self, sql: str) -> str:
        text = self._dialect.get(sql)
        if text is None:
            text = self._dialect[sql] = _translate(sql)
        return text


class _Transaction:
    """One open transaction (see `base.Transaction`)."""

    def __init__(self, connection: Any, in_dialect: Callable[[str], str]) -> None:
        self._connection = connection
        self._in_dialect = in_dialect

    async def run(self, sql: str, *values: Value) -> Sequence[Row]:
        values = tuple(checked(values))
        with _rim():
            rows: Sequence[Row] = await self._connection.fetch(self._in_dialect(sql), *values)
        return rows

    async def run_many(self, sql: str, rows: Sequence[Sequence[Value]]) -> None:
        rows = [checked(row) for row in rows]
        with _rim():
            await self._connection.executemany(self._in_dialect(sql), rows)

    async def alone(self, *name: str) -> None:
        digest = hashlib.sha256("\0".join(("authproxy", *name)).encode("utf-8", "surrogatepass")).digest()
        await self.run("SELECT pg_advisory_xact_lock(?)", int.from_bytes(digest[:8], "big", signed=True))


def redacted(url: str) -> str:
    """The URL without user, password and parameters: what may be in a log."""
    parts = urlsplit(url)
    return f"postgresql://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _parameters(url: str) -> Mapping[str, str]:
    return dict(parse_qsl(urlsplit(url).query))


async def _ensure_fit(connection: Any) -> None:
    """Looks at each new connection before it is used."""
    row = await connection.fetchrow(_FIT)
    if row["standby"]:
        raise _translated("standby")
    if row["read_only"] != "off":
        raise StoreUnavailable(
            "this database is read-only by default (default_transaction_read_only)", reason="read_only"
        )
    if int(row["version"]) < _LEAST:
        raise StoreUnavailable(
            f"this is PostgreSQL {int(row['version']) // 10000}, and 13 is needed", reason="postgres_old"
        )
    if row["encoding"] != "UTF8":
        raise StoreUnavailable(
            f"the database's encoding is {row['encoding']}, and UTF8 is needed", reason="encoding"
        )


async def _nothing(_connection: Any) -> None:
    """Nothing is left on a connection that would have to be put back."""


async def _roll_back(connection: Any) -> None:
    """Also after a caller was cancelled in the middle of a statement: then it is waited for, for a while."""
    if _gone(connection):
        return
    try:
        async with asyncio.timeout(_ROLLBACK):
            await connection.execute("ROLLBACK")
    except BaseException as error:
        if not _gone(connection):
            connection.terminate()  # the server then rolls back by itself
        if not isinstance(error, _FAULTS):
            raise


def _gone(connection: Any) -> bool:
    """Whether the connection has ended; then the pool has taken it back already."""
    try:
        return bool(connection.is_closed())
    except asyncpg.InterfaceError:
        return True


def _translate(sql: str) -> str:
    """`?` as `$1`, `$2`, …, and the clock."""
    number = 0

    def one(match: re.Match[str]) -> str:
        nonlocal number
        if match[0] == "?":
            number += 1
            return f"${number}"
        return NOW_MS if match[0] == "now_ms()" else match[0]

    return _PART.sub(one, sql)


@contextmanager
def _rim() -> Iterator[None]:
    """Foreign exceptions end here."""
    try:
        yield
    except ValueError as error:
        # What the driver cannot read or encode; without its words, which quote a URL or a value.
        url = not isinstance(error, asyncpg.InterfaceError) or isinstance(
            error, asyncpg.ClientConfigurationError
        )
        raise _translated("url" if url else "fault") from None
    except _FAULTS as error:
        raise _translated(_reason(error)) from error


def _translated(reason: str) -> StoreUnavailable:
    return StoreUnavailable(_ADVICE.get(reason, f"the store cannot be used now ({reason})"), reason=reason)


def _reason(error: BaseException) -> str:
    if isinstance(error, asyncpg.TargetServerAttributeNotMatched):
        return "standby"
    state = getattr(error, "sqlstate", None)
    if isinstance(state, str):
        return _REASONS.get(state) or _REASONS.get(state[:2], "fault")
    if isinstance(error, TimeoutError):
        return "slow"
    # InternalClientError is what the driver says when a connection ends between a question's two halves.
    return "connection"
