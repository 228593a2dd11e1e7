"""The outbox: what happened, written in the very transaction that makes it true."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from json.encoder import encode_basestring_ascii
from typing import Any, Final, overload

from authproxy.core.model import ConnectionKey, Event, NewGrant, State
from authproxy.store.base import Backend, Row, Transaction, Value

_INSERT: Final = """INSERT INTO events
    (kind, at, tenant, user_id, provider, account, connection_id, agent, data)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"""
_OF_CONNECTION: Final = "SELECT * FROM events WHERE connection_id = ? ORDER BY id"
_OF_KEY: Final = """SELECT * FROM events
    WHERE tenant = ? AND user_id = ? AND provider = ? AND account = ? ORDER BY id"""


async def write_events(tx: Transaction, events: Sequence[Event], *, connection_id: str | None = None) -> None:
    """Puts events in the outbox; `connection_id` for those that could not know it yet."""
    rows: list[Sequence[Value]] = [
        (
            event.kind,
            event.at,
            clean(event.tenant),
            clean(event.user),
            clean(event.provider),
            clean(event.account),
            event.connection_id or connection_id,
            clean(event.agent),
            encode(event.data),
        )
        for event in events
    ]
    if rows:
        await tx.run_many(_INSERT, rows)


def mended(grant: NewGrant, row: Row, before: str) -> Sequence[Event]:
    """What a consent has mended, if it has: whoever was told of the one is told of the other (J02)."""
    if before not in (State.NEEDS_REAUTH, State.ROTATION_LOST, State.MISCONFIGURED):
        return ()
    key, data = grant.key, {"from": before, "by": "consent", "generation": row["generation"]}
    where = (key.tenant, key.user, key.provider, key.account, row["id"])
    return (Event("connection.recovered", grant.at, *where, data=data),)


async def timeline(backend: Backend, of: str | ConnectionKey) -> list[Event]:
    """All events of one connection, oldest first."""
    if isinstance(of, str):
        rows = await backend.read(_OF_CONNECTION, of)
    else:
        rows = await backend.read(_OF_KEY, of.tenant, of.user, of.provider, of.account)
    return [event_of(row) for row in rows]


def event_of(row: Row) -> Event:
    """An event as stored."""
    return Event(
        kind=row["kind"],
        at=row["at"],
        tenant=row["tenant"],
        user=row["user_id"],
        provider=row["provider"],
        account=row["account"],
        connection_id=row["connection_id"],
        agent=row["agent"],
        data=data_of(row),
    )


def data_of(row: Row) -> dict[str, Any]:
    """What was written down with an event; one damaged cell must not stop the trail, nor a timeline (E03)."""
    try:
        data = json.loads(row["data"])
    except ValueError:
        data = None
    return data if isinstance(data, dict) else {"damaged": True}


@overload
def clean(text: str) -> str: ...
@overload
def clean(text: None) -> None: ...
def clean(text: str | None) -> str | None:
    """Text as a database takes it: what is no Unicode (half a surrogate pair out of a header or a provider's JSON)
    is written as an escape, so that it can neither stop the writing nor be lost; so is a NUL, which PostgreSQL
    does not take."""
    if text is None:
        return text
    if "\0" in text:
        text = text.replace("\0", "\\x00")
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def quoted(text: str | None) -> str:
    """The same as `encode`, of a text or nothing, for those who write many."""
    return "null" if text is None else encode_basestring_ascii(text)


def encode(value: Any) -> str:
    """Canonical JSON: one text for one value. What is not JSON is written down as the name of its class, so that
    neither a slip in a caller nor a secret in a field can stop the writing or be read afterwards."""
    try:
        return _encoder.encode(value)
    except (TypeError, ValueError):  # keys that are no strings, or cannot be sorted
        return _encoder.encode(_plain(value))


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if value is None or isinstance(value, str | int | bool):
        return value
    if isinstance(value, float):
        return value if value == value and abs(value) != float("inf") else None
    return _strange(value)


def _strange(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, set | frozenset):
        return sorted(str(inner) for inner in value)
    if isinstance(value, bytes):
        return value.decode("latin-1")
    if dataclasses.is_dataclass(value) or not isinstance(value, int | float | str):
        return f"<{type(value).__name__}>"
    return str(value)


_encoder: Final = json.JSONEncoder(
    sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False, default=_strange
)
