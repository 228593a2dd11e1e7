"""What a backend must do: run portable statements in transactions, and say when it cannot.

A backend is small on purpose. The guarantees (lease, fencing, compare-and-set, outbox, chain) are said once, in
SQL that every backend runs, so that one contract suite holds them all to the same behaviour. The dialect:

- placeholders are `?`; integers have 64 bits; sealed cells and digests of keys are bytes; JSON is kept as text;
- `now_ms()` is the database's own clock in milliseconds (A06: never the caller's), read where it stands: after a
  wait for a row it says when the wait ended;
- two transactions may overlap, and a statement sees what was committed before it began. So a change is one
  statement whose WHERE says what it relies on, or stands behind `Transaction.alone`;
- `RETURNING`, `ON CONFLICT`, partial indexes and `substr` on bytes may be used;
- the schema's own words are in `schema.py`.

Every exception of a driver, and every OSError, leaves a backend as `StoreUnavailable` (E06): "cannot be read
now" is never mistaken for "is not there".
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, Protocol, TypeAlias, TypeVar

from authproxy.core.errors import BadRequest, KeyMissing, StoreUnavailable

Value: TypeAlias = str | int | bytes | None
T = TypeVar("T")


class LeaseLost(Exception):
    """The lease went to somebody else; nothing was written."""


class GrantChanged(Exception):
    """The grant that this work started from is no longer the connection's grant; nothing was written."""


class Contended(Exception):
    """Raised inside `work`: two writers met, nothing was written, and the work should be run again."""


ATTEMPTS: Final = 6
BUSY: Final = frozenset({"busy", "locked", "stale"})
"""The reasons of a StoreUnavailable after which nothing was written and the work may be run again."""


async def run_again(transaction: Callable[[], Awaitable[T]]) -> T:
    """Runs a whole transaction until no other writer is in its way, within bounds."""
    for attempt in range(ATTEMPTS):
        try:
            return await transaction()
        except Contended as error:
            if attempt == ATTEMPTS - 1:
                raise StoreUnavailable("the store is busy", reason="busy") from error
        except StoreUnavailable as error:
            if error.reason not in BUSY or attempt == ATTEMPTS - 1:
                raise
        await pause(attempt)
    raise AssertionError("the last attempt returns or raises")


async def pause(attempt: int) -> None:
    """A moment, longer each time, before the next attempt."""
    await asyncio.sleep(random.uniform(0, 0.02 * 2**attempt))  # noqa: S311 - spreads two writers, guards nothing


def checked(values: Sequence[Value]) -> Sequence[Value]:
    """The values, if a database can hold their texts; names come from requests as they are."""
    text = "".join([value for value in values if isinstance(value, str)])  # one look at all of them
    if "\0" in text or not (text.isascii() or _is_unicode(text)):
        raise BadRequest("a name in the request is not valid text", reason="text")
    return values


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def damaged(what: str) -> KeyMissing:
    """What to raise for a row whose columns make no sense here: it is there, and nothing can be done with it (E03)."""
    return KeyMissing(
        f"{what} is damaged in the store, or was written by a newer version", reason="row_damaged"
    )


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

    async def alone(self, *name: str) -> None:
        """From here to its end, no other transaction that says the same name runs beside this one. The next one
        finds all that this one committed. Where several are needed, all take them in one order."""
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


Check: TypeAlias = Callable[[Backend], Awaitable[object]]
"""Looks at a store that is about to be changed, and raises where it must not be."""
