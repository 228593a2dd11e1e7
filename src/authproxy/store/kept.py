"""Material of the store's own that all its processes share: a public text and a sealed secret under one name."""

from __future__ import annotations

from typing import Final, NamedTuple

from authproxy.core.model import Environment
from authproxy.core.secret import Secret
from authproxy.store.base import Backend, Transaction
from authproxy.store.sealing import Safe
from authproxy.store.stamp import cell_name

_READ: Final = "SELECT value, sealed FROM meta WHERE name = ?"
_INSERT: Final = "INSERT INTO meta (name, value, sealed) VALUES (?, ?, ?) ON CONFLICT (name) DO NOTHING"
_REPLACE: Final = "UPDATE meta SET value = ?, sealed = ? WHERE name = ? AND value = ?"


class Kept(NamedTuple):
    """The public text, and the secret that goes with it."""

    text: str
    secret: Secret


class Keepsakes:
    """What is kept in a store beside connections, flows and agents."""

    backend: Backend
    environment: Environment
    _safe: Safe

    async def kept(self, name: str) -> Kept | None:
        """What is kept under this name; None: nothing. Raises KeyMissing where it cannot be opened."""
        rows = await self.backend.read(_READ, name)
        if not rows:
            return None
        return Kept(rows[0]["value"], self._safe.open(rows[0]["sealed"], self._name(name)))

    async def keep(self, name: str, value: Kept, *, instead_of: Kept | None) -> Kept:
        """Keep a value where `instead_of` still stands (None: where nothing stands), and return what stands now:
        of several processes that try at once, all get the winner's."""
        sealed = self._safe.seal(value.secret, self._name(name))

        async def work(tx: Transaction) -> None:
            if instead_of is None:
                await tx.run(_INSERT, name, value.text, sealed)
            else:
                await tx.run(_REPLACE, value.text, sealed, name, instead_of.text)

        await self.backend.write(work)
        standing = await self.kept(name)
        return value if standing is None else standing

    def _name(self, name: str) -> tuple[str, ...]:
        return cell_name(self.environment, name)[1:]
