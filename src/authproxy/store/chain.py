"""The links of the trail: canonical records, each hashed together with the hash before it."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from authproxy.store.base import Row, Value
from authproxy.store.events import clean, encode

START: Final = "audit.start"
CHECKPOINT: Final = "audit.checkpoint"
ANCHORING: Final = frozenset({START, CHECKPOINT})
_YIELD_EVERY: Final = 32
INSERT: Final = """INSERT INTO audit
    (chain, seq, at, kind, tenant, user_id, provider, agent, request_id, record, hash)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"""


class Head(NamedTuple):
    """How far a chain has come: its last record's number and hash. `worth` is the number of the last record that
    is not a checkpoint, so that idle processes do not go on anchoring one another's anchors."""

    chain: str
    seq: int
    hash: str
    worth: int = 0

    @property
    def text(self) -> str:
        """What is sealed of it."""
        return f"{self.chain}:{self.seq}:{self.hash}"


def link(head: Head, records: Iterable[tuple[str, Mapping[str, Any]]]) -> tuple[list[Sequence[Value]], Head]:
    """Rows for `records` as they follow `head`, and the new head. `records` are kinds with their fields."""
    chain, seq, digest, worth = head
    rows: list[Sequence[Value]] = []
    for kind, fields in records:
        seq += 1
        record = {**fields, "chain": chain, "seq": seq, "prev": digest, "kind": kind}
        text = encode(record)
        digest = hashed(digest, text)
        if kind not in ANCHORING or seq == 1:
            worth = seq
        rows.append((chain, seq, *indexed(record), text, digest))
        if seq % _YIELD_EVERY == 0:
            time.sleep(
                0
            )  # lets go of the interpreter, so that the event loop waits for 32 records and not for 500
    return rows, Head(chain, seq, digest, worth)


def hashed(prev: str, text: str) -> str:
    """The hash of a record without its hash, after the one before it."""
    return hashlib.sha256((prev + text).encode("ascii")).hexdigest()


def indexed(record: Mapping[str, Any]) -> tuple[Value, ...]:
    """The values of the columns that a record can be found by."""
    get = record.get
    return (
        int(record["at"]),
        str(record["kind"]),
        _text(get("tenant")),
        _text(get("user")),
        _text(get("provider")),
        _text(get("agent")),
        _text(get("request_id")),
    )


def stored(row: Row) -> tuple[Value, ...]:
    """The same values as `indexed`, as they are in the table."""
    names = ("at", "kind", "tenant", "user_id", "provider", "agent", "request_id")
    return tuple(row[name] for name in names)


def _text(value: Any) -> str | None:
    if value is None:
        return None
    return clean(value if type(value) is str else str(value))
