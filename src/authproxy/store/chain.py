"""The links of the trail: records as text, each hashed together with the hash before it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from authproxy.store.base import Row, Value
from authproxy.store.events import clean, encode, quoted

START: Final = "audit.start"
CHECKPOINT: Final = "audit.checkpoint"
ANCHORING: Final = frozenset({START, CHECKPOINT})
_PLACE: Final = frozenset({"chain", "seq", "prev"})  # what a record is only told when it is linked
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


class Record(NamedTuple):
    """A record from its acceptance on: the values of the columns that it can be found by, and its fields as JSON
    without the braces around them. Its place in a chain is told when it is linked."""

    found_by: Sequence[Value]
    fields: str


def record_of(kind: str, fields: Mapping[str, Any]) -> Record:
    """A record of this kind; `fields` have its time, `at`, in seconds."""
    own = {name: value for name, value in fields.items() if name not in _PLACE}
    own["kind"] = kind
    return Record(indexed(own), encode(own)[1:-1])


def link(head: Head, records: Iterable[Record]) -> tuple[list[Sequence[Value]], Head]:
    """Rows for `records` as they follow `head`, and the new head."""
    chain, seq, digest, worth = head
    name = quoted(chain)
    rows: list[Sequence[Value]] = []
    for found_by, fields in records:
        seq += 1
        text = f'{{{fields},"chain":{name},"seq":{seq},"prev":"{digest}"}}'
        digest = hashed(digest, text)
        if seq == 1 or found_by[1] not in ANCHORING:
            worth = seq
        rows.append((chain, seq, *found_by, text, digest))
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
