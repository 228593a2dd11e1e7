"""What a backend must do: run portable statements in transactions, and say when it cannot.

A backend is small on purpose. The guarantees (lease, fencing, compare-and-set, outbox, chain) are said once, in
SQL that every backend runs, so that one contract suite holds them all to the same behaviour. The dialect:

- placeholders are `?`; integers have 64 bits; sealed cells and digests of keys are bytes; JSON is kept as text;
- `now_ms()` is the database's own clock in milliseconds (A06: never the caller's), steady within a statement;
- `RETURNING`, `ON CONFLICT`, partial indexes and `substr` on bytes may be used;
- the schema's own words are in `schema.py`.

Every exception of a driver, and every OSError, leaves a backend as `StoreUnavailable` (E06): "cannot be read
now" is never mistaken for "is not there".
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol, TypeAlias, TypeVar

Value: TypeAlias = str | int | bytes | None
T = TypeVar("T")


class LeaseLost(Exception):
    """The lease went to somebody else; nothing was written."""


class GrantChanged(Exception):
    """The grant that this work started from is no longer the connection's grant; nothing was written."""


class Contended(Exception):
    """Raised inside `work`: two writers met, nothing was written, and the work should be run again."""


class Row(Protocol):
    """One row; columns by name."""

    def __getitem__(self, name: str, /) -> Any: ...


class Transaction(Protocol):
    """The inside of one write transaction."""

    async def run(self, sql: str, *values: Value) -> Sequence[Row]:
        """One statement; the rows of a SELECT, or of its RETURNING clause."""
        ...

    async def run_many(self, sql: str, rows: Sequence[Sequence[Value]]) -> None:
        """One statement for each of `rows`."""
        ...


class Backend(Protocol):
    """One open store."""

    async def read(self, sql: str, *values: Value) -> Sequence[Row]:
        """One SELECT on what is committed, on the primary (A32)."""
        ...

    async def write(self, work: Callable[[Transaction], Awaitable[T]]) -> T:
        """Runs `work` in one durable transaction: all of it or nothing, on disk before this returns.

        `work` must do nothing but run statements: it is run again (a bounded number of times) when the database
        is busy or `Contended` is raised. A cancelled caller leaves no transaction open.
        """
        ...

    async def describe(self) -> Mapping[str, str | int]:
        """Where the store is and how large, for the log at start (E11)."""
        ...

    async def close(self) -> None:
        """Ends what is queued, then lets go. May be called twice."""
        ...
