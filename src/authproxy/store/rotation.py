"""Another sealing key: which cells are sealed under which, and bringing them all under the newest.

What is resealed is every column of `SEALED`. The store's digest key is one of those cells and keeps its value:
digests of tokens must stay comparable (E12). It can make marks and compare guesses, and opens nothing.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Final, NamedTuple

from authproxy.core.errors import KeyMissing
from authproxy.core.model import Environment
from authproxy.store.approvals import cell_name as approval_cell
from authproxy.store.base import Backend, Row, Transaction
from authproxy.store.connections import cell_name as connection_cell
from authproxy.store.flows import cell_name as flow_cell
from authproxy.store.revocations import cell_name as revocation_cell
from authproxy.store.schema import SEALED
from authproxy.store.sealing import NAMED, CellName, Keyring, Safe, key_id_of
from authproxy.store.stamp import cell_name as meta_cell
from authproxy.store.stamp import check_stamp

_PAGE: Final = 100
_STALE: Final = "{0} IS NOT NULL AND substr({0}, 1, ?) <> ?"


class Cells(NamedTuple):
    """`number` cells of one column are sealed under one key. `key_id` None: what stands there is no sealed cell."""

    table: str
    column: str
    key_id: str | None
    number: int


async def inventory(backend: Backend) -> list[Cells]:
    """All sealed cells by column and key; no key is needed to count them."""
    found = []
    for table, column in SEALED:
        sql = f"SELECT substr({column}, 1, ?) AS head, count(*) AS n FROM {table} WHERE {column} IS NOT NULL GROUP BY 1"  # noqa: S608
        counts: dict[str | None, int] = {}
        for row in await backend.read(sql, NAMED):
            key_id = key_id_of(bytes(row["head"]))
            counts[key_id] = counts.get(key_id, 0) + row["n"]
        found += [Cells(table, column, key_id, count) for key_id, count in counts.items()]
    return found


class Rotation:
    """The keys of a store, changed while it is open."""

    backend: Backend
    environment: Environment
    _safe: Safe

    @property
    def keyring(self) -> Keyring:
        """The keys that this store is opened with now."""
        return self._safe.keyring

    async def take_keys(self, keyring: Keyring) -> None:
        """Use these keys from now on. Raises KeyMissing, with nothing changed, where they do not open this store."""
        await check_stamp(self.backend, keyring, self.environment)
        self._safe.keyring = keyring

    async def missing_keys(self, keyring: Keyring) -> dict[str, int]:
        """The ids of keys that are not in `keyring`, and how many cells are sealed under each."""
        missing: dict[str, int] = {}
        for cells in await inventory(self.backend):
            if cells.key_id is not None and cells.key_id not in keyring.ids:
                missing[cells.key_id] = missing.get(cells.key_id, 0) + cells.number
        return missing

    async def reseal(self, limit: int = _PAGE) -> int:
        """Seals up to `limit` cells under the newest key; returns how many others are left under older ones."""
        done = 0
        async for count in self.resealing(min(limit, _PAGE)):
            done += count
            if done >= limit:
                break
        return await self.stale_cells()

    async def resealing(self, page: int = _PAGE) -> AsyncIterator[int]:
        """Seals everything under the newest key, in one transaction for each page; how many cells each time.

        A cell is only replaced if it is still the one that was read, so refreshes may commit meanwhile, and to stop
        anywhere, or to run twice at once, loses nothing. Cells that cannot be opened are left as they are (E03).
        """
        for table, column in SEALED:
            key, after = ("name" if table == "meta" else "id"), ""
            sql = f"SELECT * FROM {table} WHERE {_STALE.format(column)} AND {key} > ? ORDER BY {key} LIMIT ?"  # noqa: S608
            while rows := await self.backend.read(sql, *self._stale, after, page):
                after = rows[-1][key]
                yield await self._reseal(table, column, key, rows)

    async def stale_cells(self) -> int:
        """How many cells are sealed under another key than the newest."""
        left = 0
        for table, column in SEALED:
            sql = f"SELECT count(*) AS n FROM {table} WHERE {_STALE.format(column)}"  # noqa: S608
            left += (await self.backend.read(sql, *self._stale))[0]["n"]
        return left

    @property
    def _stale(self) -> tuple[int, bytes]:
        prefix = self._safe.keyring.newest_prefix
        return len(prefix), prefix

    async def _reseal(self, table: str, column: str, key: str, rows: Sequence[Row]) -> int:
        changes = []
        for row in rows:
            try:
                cell = self._safe.reseal(row[column], self._name_of(table, column, row))
            except KeyMissing:
                continue
            changes.append((cell, row[key], row[column]))
        sql = f"UPDATE {table} SET {column} = ? WHERE {key} = ? AND {column} = ? RETURNING {key}"  # noqa: S608

        async def work(tx: Transaction) -> int:
            return sum([len(await tx.run(sql, *change)) for change in changes])

        return await self.backend.write(work) if changes else 0

    def _name_of(self, table: str, column: str, row: Row) -> CellName:
        match table:
            case "meta":
                return meta_cell(self.environment, row["name"])[1:]
            case "connections":
                return connection_cell(row, column)
            case "flows":
                return flow_cell(row, column)
            case "approvals":
                return approval_cell(row)
            case _:
                return revocation_cell(row)
