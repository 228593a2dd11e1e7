"""Work that one process at a time does: claimed for a while, by the database's clock, and shared out in parts."""

from __future__ import annotations

from typing import Final

from authproxy.store.base import Backend, Transaction

_CLAIM: Final = """INSERT INTO claims (name, work, part, holder, until) VALUES (?, ?, ?, ?, now_ms() + ?)
    ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, until = excluded.until
    WHERE claims.holder = excluded.holder OR claims.until <= now_ms() RETURNING name"""
_LET_GO: Final = "DELETE FROM claims WHERE name = ? AND holder = ?"
_OVER: Final = "DELETE FROM claims WHERE work = ? AND until <= now_ms()"
_STANDING: Final = "SELECT part, holder FROM claims WHERE work = ?"


class Claims:
    """The claims in a store. They spread work and spare the doubling of it; what must not happen twice has its own
    guard (the lease of a connection, the id of an event)."""

    backend: Backend

    async def claim(self, work: str, *, holder: str, seconds: float) -> bool:
        """Whether this work is the holder's for the next `seconds`; one's own claim is prolonged."""
        milliseconds = round(seconds * 1000)

        async def take(tx: Transaction) -> bool:
            return bool(await tx.run(_CLAIM, work, work, None, holder, milliseconds))

        return await self.backend.write(take)

    async def let_go(self, work: str, *, holder: str) -> None:
        """Somebody else may do it now."""

        async def drop(tx: Transaction) -> None:
            await tx.run(_LET_GO, work, holder)

        await self.backend.write(drop)

    async def share(self, work: str, parts: int, *, holder: str, seconds: float) -> tuple[int, ...]:
        """The parts of this work that are the holder's for the next `seconds`: as many as there are for each of
        those who asked lately. Called again and again; parts of one who no longer asks fall to the others."""
        milliseconds = round(seconds * 1000)

        async def divide(tx: Transaction) -> tuple[int, ...]:
            await tx.alone("claims", work)
            await tx.run(_OVER, work)
            await tx.run(_CLAIM, f"{work}/of/{holder}", work, None, holder, milliseconds)
            rows = await tx.run(_STANDING, work)
            there = {row["holder"] for row in rows if row["part"] is None}
            taken = {row["part"]: row["holder"] for row in rows if row["part"] is not None}
            fair = -(-parts // len(there))
            mine = sorted(part for part, whose in taken.items() if whose == holder)
            for part in mine[fair:]:
                await tx.run(_LET_GO, f"{work}/{part}", holder)
            free = [part for part in range(parts) if part not in taken]
            mine = sorted([*mine[:fair], *free[: max(0, fair - len(mine))]])
            for part in mine:
                await tx.run(_CLAIM, f"{work}/{part}", work, part, holder, milliseconds)
            return tuple(mine)

        return await self.backend.write(divide)

    async def leave(self, work: str, *, holder: str) -> None:
        """Gives up all parts, so that the others need not wait for their end."""

        async def drop(tx: Transaction) -> None:
            await tx.run("DELETE FROM claims WHERE work = ? AND holder = ?", work, holder)

        await self.backend.write(drop)
