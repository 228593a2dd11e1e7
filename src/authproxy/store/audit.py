"""The trail's writer: one hash chain for each process, written in batches, never dropping what it accepted.

What can be detected later (`verify.py`), and what cannot:

- A record that was changed, removed from the middle, put in or moved: always; its chain no longer adds up.
- The end of a chain cut off: always, since the head is kept under a seal that only the store's key can make.
- A chain removed as a whole, its head too: if any other chain has anchored it, which happens when a process starts
  (`audit.start` names the heads of the youngest twenty chains, and of all not yet anchored) and every `checkpoint`
  seconds while several run.
- Not detected: the removal, as a whole, of a chain that no other has anchored yet (the last process's, until the next
  start); putting back a complete older copy of the database. Against these, export the trail elsewhere.
- Records still in the queue when a process is killed are lost in `batch` durability (at most `flush` seconds of them,
  plus one transaction), and were never acknowledged in `strict`. What was committed is a valid chain as it is.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import secrets
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final, Literal

import structlog

from authproxy.core.errors import Overloaded, StoreUnavailable
from authproxy.store.base import Row, Transaction, Value
from authproxy.store.chain import CHECKPOINT, INSERT, START, Head, Record, link, record_of
from authproxy.store.events import data_of
from authproxy.store.vault import Vault

_log = structlog.get_logger()

_BATCH: Final = 500  # records that are not made to wait for more
_MOST: Final = 5000  # records of one transaction, where that many wait already
_LINKED: Final = 64  # records that are linked in one go at least, while the event loop waits
_TURNS: Final = 4  # of the event loop that linking a batch takes at most: a busy loop's are long
_EVENTS: Final = 100
_POLL: Final = 1.0  # seconds between looks at the outbox: events of dead processes, and of vaults in this one
_BACKOFF_MAX: Final = 5.0
_TIPS: Final = "SELECT chain, seq, hash FROM chains WHERE worth > anchored AND chain <> ? ORDER BY chain"
_ANCHORED: Final = "UPDATE chains SET anchored = ? WHERE chain = ? AND anchored < ?"
# A start names the youngest chains again, though others have: to drop one unseen takes dropping all since.
_YOUNGEST: Final = "SELECT chain, seq, hash FROM chains WHERE chain <> ? ORDER BY begun DESC, chain LIMIT 20"
_NEW_HEAD: Final = "INSERT INTO chains (chain, begun, seq, hash, seal, worth) VALUES (?, ?, ?, ?, ?, ?)"
_MOVE_HEAD: Final = """UPDATE chains SET seq = ?, hash = ?, seal = ?, worth = ?
    WHERE chain = ? AND seq = ? AND hash = ? RETURNING seq"""
# One statement: of two processes that look at the same events, the second finds them taken.
_CLAIM: Final = """UPDATE events SET audited = 1 WHERE audited = 0
    AND id IN (SELECT id FROM events WHERE audited = 0 ORDER BY id LIMIT ?) RETURNING *"""
_WAITING_EVENTS: Final = "SELECT 1 AS one FROM events WHERE audited = 0 LIMIT 1"

TURN: Final = "audit"
"""Who writes records does it alone, so that positions become visible in their order and a tail can skip none."""


class _Forked(Exception):
    """The stored head of our own chain is not the one we wrote."""


class Trail:
    """Accepts records without I/O and writes them down, in order, whatever the store does meanwhile."""

    def __init__(
        self,
        vault: Vault,
        name: str = "authproxy",
        *,
        queue: int = 10_000,
        flush: float = 0.2,
        durability: Literal["batch", "strict"] = "batch",
        checkpoint: float = 300.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.durability = durability
        self.failed_writes = 0
        self._vault = vault
        self._name = name
        self._capacity = queue
        self._flush = flush
        self._checkpoint = checkpoint
        self._clock = clock
        self._queue: deque[Record] = deque()
        self._reserved = 0
        self._accepted = 0
        self._written = 0
        self._head: Head | None = None
        self._attempt: tuple[int, Head] | None = None
        self._next_checkpoint = 0.0
        self._wake = asyncio.Event()
        self._urgent = asyncio.Event()
        self._freed = asyncio.Event()  # that a batch was written, or could not be
        self._writing = asyncio.Lock()
        self._waiters: list[tuple[int, asyncio.Future[None]]] = []
        self._failing = False
        self._closing = False
        self._task: asyncio.Task[None] | None = None

    @property
    def chain(self) -> str | None:
        """The name of this process's chain, once it has begun."""
        return None if self._head is None else self._head.chain

    @property
    def waiting(self) -> int:
        """Records accepted and not yet on disk."""
        return len(self._queue)

    @property
    def full(self) -> bool:
        """Whether nothing more can be accepted now."""
        return len(self._queue) + self._reserved >= self._capacity

    def ensure_room(self) -> None:
        """Raises Overloaded, before anything is done, where a record could not be kept."""
        if self.full:
            raise Overloaded("the audit trail cannot keep up", reason="audit_queue")

    async def room(self, seconds: float) -> None:
        """Waits while nothing more can be accepted and the writer gets on: at most for so many seconds."""
        self._urgent.set()
        try:
            async with asyncio.timeout(seconds):
                while self.full and not self._failing:
                    self._freed.clear()
                    await self._freed.wait()
        except TimeoutError:
            return  # whoever asked for room is refused it

    def reserve(self) -> None:
        """Keeps a place for one record, so that work begun now can be recorded whatever happens until it ends.
        Each reservation is given back by `redeem`, `accept` or `waive`."""
        if len(self._queue) + self._reserved >= self._capacity:
            self.ensure_room()
        self._reserved += 1

    def redeem(self, kind: str, /, **fields: Any) -> int:
        """Records into a reserved place; never refuses."""
        return self.accept(self._made(kind, fields), reserved=True)

    def waive(self) -> None:
        """Gives a reserved place back unused."""
        self._reserved -= 1

    def record(self, kind: str, /, **fields: Any) -> int:
        """Accepts a record; no I/O. The number is what `settled` waits for. Raises Overloaded when the queue is full.

        `at` is taken from the clock unless given.
        """
        return self.accept(self._made(kind, fields))

    def accept(self, record: Record, *, reserved: bool = False) -> int:
        """The same of a record that its maker has rendered, dated by `now`; `reserved`: into a place kept for it."""
        if reserved:
            self._reserved -= 1
        else:
            self.ensure_room()
        queue = self._queue
        queue.append(record)
        self._accepted += 1
        if len(queue) == 1:
            self._wake.set()
        elif len(queue) == _BATCH:
            self._urgent.set()
        return self._accepted

    def now(self) -> int:
        """The time of a record that is made now."""
        return int(self._clock())

    async def settled(self, number: int) -> None:
        """Returns when the record of this number is on disk. Raises StoreUnavailable where it cannot be written
        now; it stays in the queue and is written when the store is back."""
        if number <= self._written:
            return
        if self._failing:
            raise StoreUnavailable("the audit trail cannot be written now", reason="audit")
        future = asyncio.get_running_loop().create_future()
        self._waiters.append((number, future))
        self._urgent.set()
        self._wake.set()
        await future

    async def strict(self, kind: str, /, **fields: Any) -> int:
        """Records, and returns when it is on disk."""
        number = self.record(kind, **fields)
        await self.settled(number)
        return number

    async def start(self) -> None:
        """Begins this process's chain, anchors the others in it, and takes over what dead processes left."""
        await self._begin()
        self._task = asyncio.create_task(self._write_on(), name="audit-writer")
        self._task.add_done_callback(_ended)

    async def flush(self) -> None:
        """Writes everything that waits, events included, now."""
        while await self._write_batch() or self._queue:
            pass

    async def close(self, timeout: float = 10.0) -> None:
        """Writes what waits and ends. Raises StoreUnavailable, with the number in the log, where the store would
        not take it within `timeout` seconds."""
        self._closing = True
        self._wake.set()
        self._urgent.set()
        task, self._task = self._task, None
        if task is None:
            return
        try:
            async with asyncio.timeout(timeout):
                await task
                await self.flush()
        except (TimeoutError, StoreUnavailable) as error:
            if self._queue:
                _log.error("audit_records_lost", records=len(self._queue))
                raise StoreUnavailable("the audit trail could not be written", reason="audit") from error

    def _made(self, kind: str, fields: dict[str, Any]) -> Record:
        at = fields.get("at")
        fields["at"] = int(at) if isinstance(at, int | float) else self.now()
        return record_of(kind, fields)

    async def _write_on(self) -> None:
        pause = 0.1
        while not (self._closing and not self._queue):
            if not self._queue:
                self._wake.clear()
                await _within(self._wake, max(self._flush, _POLL))
            if self._queue and len(self._queue) < _BATCH:
                await _within(self._urgent, self._flush)
            self._urgent.clear()
            try:
                await self._write_batch()
                pause = 0.1
            except StoreUnavailable as error:
                self._fail(error)
                await asyncio.sleep(pause * random.uniform(0.5, 1))  # noqa: S311 - spreads replicas, guards nothing
                pause = min(pause * 2, _BACKOFF_MAX)

    async def _write_batch(self) -> int:
        """One transaction: waiting records, events of the outbox, a checkpoint if it is time. How many it wrote."""
        async with self._writing:
            await self._resolve_attempt()
            if (
                not self._queue
                and not self._checkpoint_due()
                and not await self._vault.backend.read(_WAITING_EVENTS)
            ):
                return 0
            batch = list(itertools.islice(self._queue, _MOST))
            try:
                written, head = await self._store(batch)
            except _Forked:
                _log.error("audit_chain_changed_by_others", chain=self.chain)
                await self._begin()
                return 1
            self._done(len(batch), head)
            return written

    async def _store(self, batch: Sequence[Record]) -> tuple[int, Head]:
        before = self._head
        assert before is not None, "started"
        rows, middle = await _linked(before, batch)
        checkpoint = self._checkpoint_due()

        async def work(tx: Transaction) -> tuple[int, Head]:
            await tx.alone(TURN)
            records = [
                _of_event(event) for event in sorted(await tx.run(_CLAIM, _EVENTS), key=lambda row: row["id"])
            ]
            if checkpoint:
                anchors = await self._anchor(tx, before.chain, _TIPS)
                records += [record_of(CHECKPOINT, {"at": self.now(), "anchors": anchors})] if anchors else []
            more, head = link(middle, records)
            if head.seq == before.seq:
                return 0, before
            # Told before the commit: if its outcome stays unknown, the head on disk says which it was.
            self._attempt = (len(batch), head)
            seal = self._vault.mark("audit head", head.text)
            moved = (head.seq, head.hash, seal, head.worth, before.chain, before.seq, before.hash)
            if not await tx.run(_MOVE_HEAD, *moved):
                raise _Forked
            await tx.run_many(INSERT, [*rows, *more])
            return head.seq - before.seq, head

        outcome = await self._vault.backend.write(work)
        if checkpoint:
            self._next_checkpoint = self._clock() + self._checkpoint
        return outcome

    async def _resolve_attempt(self) -> None:
        """After a write that failed or was cut short: if it did reach the disk, it must not be written again."""
        if self._attempt is None:
            return
        count, head = self._attempt

        async def work(tx: Transaction) -> Sequence[Row]:
            await tx.alone(TURN)
            return await tx.run("SELECT seq, hash FROM chains WHERE chain = ?", head.chain)

        # In its turn, because it then stands behind a commit that may still be under way.
        rows = await self._vault.backend.write(work)
        self._attempt = None
        if rows and (rows[0]["seq"], rows[0]["hash"]) == (head.seq, head.hash):
            self._done(count, head)

    async def _begin(self) -> None:
        empty = Head(f"{self._name}-{secrets.token_hex(8)}", 0, "")

        async def work(tx: Transaction) -> Head:
            await tx.alone(TURN)
            anchors = await self._anchor(tx, empty.chain, _TIPS, _YOUNGEST)
            if (
                self._head is not None
            ):  # what we know of our own earlier chain, whatever the store says of it now
                anchors = [a for a in anchors if a[0] != self._head.chain] + [list(self._head[:3])]
            now = self.now()
            rows, head = link(empty, [record_of(START, {"at": now, "anchors": anchors})])
            seal = self._vault.mark("audit head", head.text)
            await tx.run(_NEW_HEAD, head.chain, now, head.seq, head.hash, seal, head.worth)
            await tx.run_many(INSERT, rows)
            return head

        self._head = await self._vault.backend.write(work)
        self._attempt = None
        self._next_checkpoint = self._clock() + self._checkpoint

    async def _anchor(self, tx: Transaction, own: str, *which: str) -> list[list[str | int]]:
        heads: dict[str, list[str | int]] = {}
        for sql in which:
            heads |= {row["chain"]: [row["chain"], row["seq"], row["hash"]] for row in await tx.run(sql, own)}
        for chain, seq, _ in heads.values():
            await tx.run(_ANCHORED, seq, chain, seq)
        return sorted(heads.values())

    def _checkpoint_due(self) -> bool:
        return self._clock() >= self._next_checkpoint

    def _done(self, count: int, head: Head) -> None:
        self._head, self._attempt, self._failing = head, None, False
        self._written += count
        for _ in range(count):
            self._queue.popleft()
        self._freed.set()
        ready = [future for number, future in self._waiters if number <= self._written]
        self._waiters = [waiter for waiter in self._waiters if waiter[0] > self._written]
        for future in ready:
            if not future.done():
                future.set_result(None)

    def _fail(self, error: StoreUnavailable) -> None:
        self._failing = True
        self._freed.set()
        self.failed_writes += 1
        _log.error(
            "audit_write_failed", reason=error.reason, waiting=len(self._queue), failed=self.failed_writes
        )
        waiters, self._waiters = self._waiters, []
        for _, future in waiters:
            if not future.done():
                future.set_exception(
                    StoreUnavailable("the audit trail cannot be written now", reason="audit")
                )


def _of_event(row: Row) -> Record:
    data = data_of(row)
    fields = {
        "at": row["at"],
        "event": row["id"],
        "tenant": row["tenant"],
        "user": row["user_id"],
        "provider": row["provider"],
        "account": row["account"],
        "connection_id": row["connection_id"],
        "agent": row["agent"],
        "data": data,
    }
    if "request_id" in data:
        fields["request_id"] = data["request_id"]
    return record_of(row["kind"], fields)


async def _linked(head: Head, records: Sequence[Record]) -> tuple[list[Sequence[Value]], Head]:
    """In pieces, on the loop's own thread: another one would fight with it for the interpreter, at a price that is
    higher than the work's."""
    rows: list[Sequence[Value]] = []
    piece = max(_LINKED, -(-len(records) // _TURNS))
    for at in range(0, len(records), piece):
        more, head = link(head, records[at : at + piece])
        rows += more
        await asyncio.sleep(0)
    return rows, head


async def _within(event: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return


def _ended(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and task.exception() is not None:
        _log.critical("audit_writer_ended", error=type(task.exception()).__name__)
