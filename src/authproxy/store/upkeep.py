"""Connections seen by their dates alone: which will need a refresh soon, and how old the oldest are."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping
from typing import Final, NamedTuple

from authproxy.core.model import ConnectionKey, State
from authproxy.store.base import Backend, Row, Value

PARTS: Final = 16
"""Into so many parts connections fall, by the first digit of their ids."""

_PAGE: Final = 500
_COLUMNS: Final = """id, tenant, user_id, provider, account, state, reason, generation, lifetime, expires_at,
    obtained_at, consented_at, refresh_expires_at, retry_at, refresh_token IS NOT NULL AS refreshable"""
# Of a store that was put back from a backup: what it holds may have been spent since, and is tried on demand (E09).
_SETTLED: Final = """(refresh_token IS NULL OR obtained_at >=
    coalesce((SELECT CAST(value AS BIGINT) FROM meta WHERE name = 'restored'), 0))"""
# Grants of a disabled user that were kept are left alone, and owe nobody a refresh (I10).
_SERVED: Final = "(tenant, user_id) NOT IN (SELECT tenant, user_id FROM users WHERE disabled_at IS NOT NULL)"
_ENDING: Final = "state IN ('active', 'misconfigured') AND expires_at < ?"
_UNUSED: Final = "state = 'active' AND refresh_token IS NOT NULL AND provider = ? AND obtained_at < ?"
_LIMITED: Final = """state = 'active' AND refresh_token IS NOT NULL AND refresh_expires_at IS NOT NULL
    AND refresh_expires_at + obtained_at < ?"""
_AGES: Final = f"""SELECT provider, min(expires_at) AS ends, min(obtained_at) AS obtained FROM connections
    WHERE state = 'active' AND refresh_token IS NOT NULL AND {_SETTLED} AND {_SERVED} GROUP BY provider"""  # noqa: S608 - a constant


class Dates(NamedTuple):
    """When things happen to one connection. Nothing of it is opened for this."""

    id: str
    key: ConnectionKey
    state: State
    reason: str | None
    generation: int
    refreshable: bool
    lifetime: int | None
    expires_at: int | None
    obtained_at: int
    consented_at: int
    refresh_expires_at: int | None
    retry_at: int | None


class Ages(NamedTuple):
    """Of one provider's live connections: the earliest end of an access token, and the oldest refresh."""

    ends: int | None
    obtained: int


class Upkeep:
    """What the keeper reads, of the enabled. Pages are short, and between them others have their turn."""

    backend: Backend

    def ending(self, before: int, parts: Collection[int]) -> AsyncIterator[Dates]:
        """Connections whose access token ends before then, refreshable or not."""
        return self._pages(_ENDING, (before,), parts)

    def unused(self, provider: str, since: int, parts: Collection[int]) -> AsyncIterator[Dates]:
        """Connections at a provider that were not refreshed since then."""
        return self._pages(_UNUSED, (provider, since), parts)

    def limited(self, at: int, parts: Collection[int]) -> AsyncIterator[Dates]:
        """Connections whose refresh token has a told end, of whose life half is over by then."""
        return self._pages(_LIMITED, (2 * at,), parts)

    async def ages(self) -> Mapping[str, Ages]:
        """How old things are at each provider; right with zero traffic (J03)."""
        rows = await self.backend.read(_AGES)
        return {row["provider"]: Ages(row["ends"], row["obtained"]) for row in rows}

    async def _pages(
        self, where: str, values: tuple[Value, ...], parts: Collection[int]
    ) -> AsyncIterator[Dates]:
        digits = [f"{part:x}" for part in sorted(parts)]
        mine = "" if len(digits) == PARTS else f" AND substr(id, 5, 1) IN ({', '.join('?' * len(digits))})"
        asked = () if len(digits) == PARTS else tuple(digits)
        where = f"{where} AND {_SETTLED} AND {_SERVED}{mine} AND id > ?"
        sql = f"SELECT {_COLUMNS} FROM connections WHERE {where} ORDER BY id LIMIT {_PAGE}"  # noqa: S608
        after = ""
        while digits and (rows := await self.backend.read(sql, *values, *asked, after)):
            for row in rows:
                yield _dates(row)
            after = rows[-1]["id"]
            if len(rows) < _PAGE:
                return


def _dates(row: Row) -> Dates:
    return Dates(
        id=row["id"],
        key=ConnectionKey(row["tenant"], row["user_id"], row["provider"], row["account"]),
        state=State(row["state"]),
        reason=row["reason"],
        generation=row["generation"],
        refreshable=bool(row["refreshable"]),
        lifetime=row["lifetime"],
        expires_at=row["expires_at"],
        obtained_at=row["obtained_at"],
        consented_at=row["consented_at"],
        refresh_expires_at=row["refresh_expires_at"],
        retry_at=row["retry_at"],
    )
