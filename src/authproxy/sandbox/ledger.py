"""What reached the provider: every token call and API call, and the rules that a good client never breaks."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

# Our own word for a dead grant, and those that the switch `error` may have been given.
_DEAD = frozenset({"invalid_grant", "bad_refresh_token", "invalid_refresh_token"})


@dataclass(slots=True)
class TokenCall:
    """One POST to a token endpoint. Digests stand for tokens. `outcome` is `success`, the error code of the
    provider's verdict, or `none` while or where there was no verdict; `delivered` says that the true answer left
    whole on a connection that still stood."""

    id: int
    at: float
    dialect: str
    grant_type: str = ""
    client_id: str = ""
    auth: str = ""
    digest: str | None = None
    user: str | None = None
    grant: int | None = None
    outcome: str = "none"
    why: str | None = None
    status: int | None = None
    delivered: bool = False
    ended_at: float | None = None
    spent: bool = False
    access_digest: str | None = None
    refresh_digest: str | None = None
    overlaps: int | None = None


@dataclass(slots=True)
class ApiCall:
    """One request to the API, with the user whose token it carried."""

    id: int
    at: float
    dialect: str
    method: str
    path: str
    access_digest: str | None = None
    user: str | None = None
    grant: int | None = None
    status: int | None = None
    request_id: str | None = None


@dataclass(frozen=True, slots=True)
class Violation:
    """A rule broken by the client. `double_spend`: a refresh token came again after its successor was delivered.
    `concurrent_spend`: it came while a call with it was under way. `dead_again`: it came again after its refusal
    with a dead-grant verdict was delivered."""

    kind: str
    digest: str
    first: int
    again: int
    at: float


@dataclass(slots=True)
class Ledger:
    """Bounded records, and violations found as calls arrive."""

    size: int = 100_000
    requests: deque[TokenCall] = field(init=False)
    calls: deque[ApiCall] = field(init=False)
    found: list[Violation] = field(default_factory=list)
    totals: Counter[str] = field(default_factory=Counter)
    presented: int = 0
    _awaited: list[tuple[int, asyncio.Future[None]]] = field(default_factory=list)
    _count: int = 0
    _by_digest: dict[str, TokenCall] = field(default_factory=dict)
    _under_way: dict[int, tuple[TokenCall, Callable[[], bool]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.requests = deque(maxlen=self.size)
        self.calls = deque(maxlen=self.size)

    def open_token_call(self, at: float, dialect: str, connected: Callable[[], bool]) -> TokenCall:
        """Records the arrival of a token call; `connected` says whether its client still waits."""
        self._count += 1
        call = TokenCall(self._count, at, dialect)
        self.requests.append(call)
        self._under_way[call.id] = (call, connected)
        self.totals["token_calls"] += 1
        return call

    def announce(self) -> None:
        """A token call was read: wakes those who wait for it."""
        self.presented += 1
        for count, future in self._awaited:
            if self.presented >= count and not future.done():
                future.set_result(None)
        self._awaited = [one for one in self._awaited if not one[1].done()]

    async def arrived(self, count: int) -> None:
        """Returns when so many token calls were read."""
        if self.presented < count:
            future = asyncio.get_running_loop().create_future()
            self._awaited.append((count, future))
            await future

    def present(self, call: TokenCall, digest: str) -> None:
        """A refresh token was presented: compares with the earlier calls that carried it."""
        call.digest = digest
        for other, connected in self._under_way.values():
            if other is not call and other.digest == digest:
                call.overlaps = other.id
                if connected():  # a client that gave up may try again while its first call is still worked on
                    self._break("concurrent_spend", other, call)
                    break
        earlier = self._by_digest.get(digest)
        if earlier is not None and earlier.delivered and earlier.spent:
            self._break("double_spend", earlier, call)
        elif earlier is not None and earlier.delivered and earlier.outcome in _DEAD:
            self._break("dead_again", earlier, call)

    def _break(self, kind: str, first: TokenCall, again: TokenCall) -> None:
        assert again.digest is not None
        self.found.append(Violation(kind, again.digest, first.id, again.id, again.at))

    def close_token_call(self, call: TokenCall, at: float) -> None:
        """The call is over, answered or not."""
        call.ended_at = at
        self._under_way.pop(call.id, None)
        known = call.grant_type in ("authorization_code", "refresh_token")
        self.totals[f"token_{call.grant_type if known else 'other'}_{call.outcome}"] += 1
        # A verdict that reached the client outweighs one that did not, and a success outweighs a refusal.
        earlier = self._by_digest.get(call.digest) if call.digest else None
        if call.digest and (earlier is None or self._weight(call) >= self._weight(earlier)):
            self._by_digest[call.digest] = call

    @staticmethod
    def _weight(call: TokenCall) -> tuple[bool, bool]:
        return (call.delivered and call.spent, call.delivered)

    def open_api_call(self, call_fields: dict[str, Any]) -> ApiCall:
        """Records the arrival of an API call."""
        self._count += 1
        call = ApiCall(self._count, **call_fields)
        self.calls.append(call)
        self.totals["api_calls"] += 1
        return call

    def refreshes(self) -> Iterator[TokenCall]:
        """The refresh calls, in order of arrival."""
        return (call for call in self.requests if call.grant_type == "refresh_token")

    def as_json(self) -> dict[str, Any]:
        """Everything, for the admin endpoint."""
        return {
            "requests": [asdict(call) for call in self.requests],
            "calls": [asdict(call) for call in self.calls],
            "violations": [asdict(one) for one in self.found],
        }
