"""The trail read: by filter, as it grows, and as lines for another place."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from typing import Any, Final, NamedTuple

from authproxy.store.base import Backend, Row, Value

_PAGE: Final = 500


class Entry(NamedTuple):
    """One record. `position` grows with the order of commits in the store, over all chains."""

    position: int
    text: str
    hash: str

    @property
    def record(self) -> dict[str, Any]:
        """The record with its hash."""
        return {**json.loads(self.text), "hash": self.hash}

    @property
    def line(self) -> str:
        """The record with its hash as one line of JSON."""
        return f'{self.text[:-1]},"hash":"{self.hash}"}}'


async def query(
    backend: Backend,
    *,
    since: int | None = None,
    until: int | None = None,
    kind: str | None = None,
    tenant: str | None = None,
    user: str | None = None,
    provider: str | None = None,
    agent: str | None = None,
    request_id: str | None = None,
    limit: int = 100,
    newest_first: bool = True,
    after: int = 0,
) -> list[Entry]:
    """Records that match everything given; `since` is included, `until` is not; `kind` may end in `.*`.
    `after` is a position, for going on from an earlier answer with `newest_first=False`."""
    where: list[tuple[str, Sequence[Value]]] = [("position > ?", (after,))]
    for column, wanted in (
        ("tenant", tenant),
        ("user_id", user),
        ("provider", provider),
        ("agent", agent),
        ("request_id", request_id),
    ):
        if wanted is not None:
            where.append((f"{column} = ?", (wanted,)))
    if since is not None:
        where.append(("at >= ?", (since,)))
    if until is not None:
        where.append(("at < ?", (until,)))
    if kind is not None and kind.endswith(".*"):
        where.append(("kind >= ? AND kind < ?", (kind[:-1], kind[:-2] + "/")))  # `/` is what follows `.`
    elif kind is not None:
        where.append(("kind = ?", (kind,)))
    words = " AND ".join(word for word, _ in where)
    order = "DESC" if newest_first else "ASC"
    sql = f"SELECT position, record, hash FROM audit WHERE {words} ORDER BY position {order} LIMIT ?"  # noqa: S608
    rows = await backend.read(sql, *(value for _, values in where for value in values), limit)
    return [_entry(row) for row in rows]


async def tail(backend: Backend, after: int, *, limit: int = _PAGE) -> list[Entry]:
    """Records behind a position, oldest first."""
    return await query(backend, after=after, limit=limit, newest_first=False)


async def last_position(backend: Backend) -> int:
    """Where the trail ends now; 0: there is none."""
    rows = await backend.read("SELECT max(position) AS last FROM audit")
    return rows[0]["last"] or 0


async def export(backend: Backend, *, after: int = 0, **filters: Any) -> AsyncIterator[str]:
    """Every matching record, oldest first, as lines of JSON without line ends; `filters` as for `query`."""
    while entries := await query(backend, after=after, limit=_PAGE, newest_first=False, **filters):
        for entry in entries:
            yield entry.line
        after = entries[-1].position


def _entry(row: Row) -> Entry:
    return Entry(row["position"], row["record"], row["hash"])
