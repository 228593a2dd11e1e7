"""What is to be told to webhooks: chosen from the outbox once, kept until it is delivered or too old."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from authproxy.core.model import Event
from authproxy.store.base import Backend, Row, Transaction, Value
from authproxy.store.events import event_of

_UNTOLD: Final = "SELECT 1 AS one FROM events WHERE notified = 0 LIMIT 1"
# One statement: of two processes that look at the same events, the second finds them taken.
_TAKE: Final = """UPDATE events SET notified = 1 WHERE notified = 0
    AND id IN (SELECT id FROM events WHERE notified = 0 ORDER BY id LIMIT ?) RETURNING *"""
_BEFORE: Final = """SELECT kind, data FROM events WHERE provider = ? AND id < ?
    AND kind IN ('connection.misconfigured', 'connection.recovered') ORDER BY id DESC LIMIT 1"""
_INSERT: Final = """INSERT INTO deliveries (webhook, event, created_at, next_at) VALUES (?, ?, ?, ?)
    ON CONFLICT (webhook, event) DO NOTHING"""
_DUE: Final = """SELECT events.*, deliveries.attempts, deliveries.created_at FROM deliveries
    JOIN events ON events.id = deliveries.event
    WHERE deliveries.webhook = ? AND deliveries.next_at <= ? ORDER BY deliveries.event LIMIT ?"""
_DONE: Final = "DELETE FROM deliveries WHERE webhook = ? AND event = ?"
_FAILED: Final = (
    "UPDATE deliveries SET attempts = attempts + 1, last_error = ? WHERE webhook = ? AND event = ?"
)
# All that wait for one receiver wait together: they are told in order, and one probe says whether it is back.
_WAIT: Final = "UPDATE deliveries SET next_at = ? WHERE webhook = ? AND next_at < ?"
_OLD: Final = "DELETE FROM deliveries WHERE created_at < ? RETURNING webhook"
_BACKLOG: Final = "SELECT count(*) AS n, min(created_at) AS oldest FROM deliveries"


class Delivery(NamedTuple):
    """One event that one webhook has still to be told."""

    number: int
    event: Event
    attempts: int
    created_at: int


class Backlog(NamedTuple):
    """How much waits, and since when the oldest."""

    waiting: int
    oldest: int | None


class Deliveries:
    """The deliveries of a store."""

    backend: Backend

    async def fan_out(self, choose: Callable[[Event], Sequence[str]], *, now: int, limit: int = 200) -> int:
        """Takes events out of the outbox, each once, and puts a delivery for each webhook that `choose` names. How
        many events it took."""
        if not await self.backend.read(_UNTOLD):
            return 0

        async def work(tx: Transaction) -> int:
            rows = sorted(await tx.run(_TAKE, limit), key=lambda row: row["id"])
            wanted: list[Sequence[Value]] = []
            for row in rows:
                event = event_of(row)
                if (webhooks := choose(event)) and await _an_edge(tx, row, event):
                    wanted += [(webhook, row["id"], now, now) for webhook in webhooks]
            if wanted:
                await tx.run_many(_INSERT, wanted)
            return len(rows)

        return await self.backend.write(work)

    async def deliveries(self, webhook: str, *, now: int, limit: int = 20) -> list[Delivery]:
        """What this webhook is to be told now, oldest first."""
        rows = await self.backend.read(_DUE, webhook, now, limit)
        return [Delivery(row["id"], event_of(row), row["attempts"], row["created_at"]) for row in rows]

    async def delivered(self, webhook: str, number: int) -> None:
        """The receiver has said that it has it."""

        async def work(tx: Transaction) -> None:
            await tx.run(_DONE, webhook, number)

        await self.backend.write(work)

    async def put_off(self, webhook: str, number: int, *, until: int, error: str) -> None:
        """The receiver did not take it: nothing is tried there until then."""

        async def work(tx: Transaction) -> None:
            await tx.run(_FAILED, error, webhook, number)
            await tx.run(_WAIT, until, webhook, until)

        await self.backend.write(work)

    async def give_up(self, before: int) -> int:
        """Drops what could not be delivered since then; how many."""

        async def work(tx: Transaction) -> int:
            return len(await tx.run(_OLD, before))

        return await self.backend.write(work)

    async def backlog(self) -> Backlog:
        """What waits now."""
        (row,) = await self.backend.read(_BACKLOG)
        return Backlog(row["n"], row["oldest"])

    async def store_name(self) -> str:
        """The store's own id, which makes its event numbers unique."""
        rows = await self.backend.read("SELECT value FROM meta WHERE name = 'store'")
        return str(rows[0]["value"])


async def _an_edge(tx: Transaction, row: Row, event: Event) -> bool:
    """A refused client concerns a provider as a whole: a thousand connections say it once, and its repair once
    (J05, J12). Everything else is an edge by itself."""
    repaired = event.kind == "connection.recovered" and event.data.get("from") == "misconfigured"
    if not repaired and event.kind != "connection.misconfigured":
        return True
    rows = await tx.run(_BEFORE, event.provider, row["id"])
    if not rows:
        return True
    before, data = rows[0]["kind"], json.loads(rows[0]["data"])
    if repaired:
        return bool(before == "connection.misconfigured")
    return bool(before != event.kind or data.get("reason") != event.data.get("reason"))
