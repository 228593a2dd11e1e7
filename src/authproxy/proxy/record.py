"""The audit record of one request, filled in as the walk goes and written once at its end."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Hashable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from authproxy.core.errors import Overloaded, Refusal
from authproxy.core.model import DEFAULT_TENANT, Caller, ConnectionKey
from authproxy.metrics import Metrics
from authproxy.store.audit import Trail
from authproxy.store.chain import Record
from authproxy.store.events import clean, quoted

_MAX_PATH = 2048


# A record's text is put together from parts that many requests share, each rendered once: as a dict that is encoded, it
# would cost as much as the walk's decisions.
_PARTS = 4096
_WELL = '"code":null,"act":null,"reason":null'
_LONG = 256  # bytes of a path and a method that are remembered


class _Who(NamedTuple):
    """Whose a request is: as JSON, and as the columns that it is found by."""

    text: str
    user: str | None
    agent: str | None


@lru_cache(_PARTS)
def _who(
    tenant: str,
    agent: str | None,
    session: str | None,
    user: str | None,
    provider: str | None,
    account: str | None,
) -> _Who:
    text = (
        f'"tenant":{quoted(tenant)},"agent":{quoted(agent)},"session":{quoted(session)},"user":{quoted(user)},'
        f'"provider":{quoted(provider)},"account":{quoted(account)}'
    )
    return _Who(text, clean(user), clean(agent))


def _what(route: str | None, method: str, host: str | None, path: bytes, via: str | None) -> str:
    text = quoted(path[:_MAX_PATH].decode("utf-8", "backslashreplace"))
    return f'"route":{quoted(route)},"method":{quoted(method)},"host":{quoted(host)},"path":{text},"via":{quoted(via)}'


_what_again = lru_cache(_PARTS)(_what)


def request_ids(prefix: str) -> Callable[[], str]:
    """Ids that no two requests share: a prefix that is random per process, and a count.

    They are names, not secrets, so that a system call per request for randomness would buy nothing.
    """
    count = itertools.count(1)
    return lambda: f"{prefix}{next(count):012x}"


class Entry:
    """What is known of a request so far. The walk writes into it and decides nothing by it."""

    # Whom nobody knows is the default tenant's business: its operators see those who were refused unnamed.
    tenant = DEFAULT_TENANT
    agent: str | None = None
    session: str | None = None
    user: str | None = None
    provider: str | None = None
    account: str | None = None
    generation: int | None = None
    route: str | None = None
    host: str | None = None
    named_host: str | None = None  # the one that was asked for, where a grant says which it is
    path: bytes = b""
    status: int | None = None
    code: str | None = None
    act: str | None = None
    reason: str | None = None
    cause: Refusal | None = None  # for which it was ended from outside
    held: Sequence[tuple[Any, Hashable]] = ()  # the gates that it is in, until it leaves them
    probing: tuple[Hashable, ...] = ()  # the pauses that it is to see the end of
    lasts = False  # whether it is looked at again and again until it ends
    attempts = 0
    refreshed = False
    bytes_in = 0
    bytes_out = 0
    via: str | None = None
    upstream_request_id: str | None = None
    _left = 0.0
    _outside = 0.0
    _reserved = False

    def __init__(self, request_id: str, method: str) -> None:
        self.request_id = request_id
        self.method = method
        self._started = time.perf_counter()

    def reserve(self, trail: Trail) -> None:
        """Keep a place in the trail. Raises Overloaded where it is full: then there is no record, but the count."""
        trail.reserve()
        self._reserved = True

    def known(self, caller: Caller) -> None:
        """Who asks."""
        self.tenant, self.agent, self.session = caller.tenant, caller.agent, caller.session

    def refused(self, refusal: Refusal) -> None:
        """It ends in our own name."""
        self.code, self.act, self.reason = refusal.code, str(refusal.act), refusal.reason

    def gone(self, code: str) -> None:
        """The agent's connection has ended before its answer: by itself, which is `code`, or by us."""
        if self.cause is not None:
            self.refused(self.cause)
        else:
            self.code = code

    def concern(self, key: ConnectionKey) -> None:
        """The connection that the request is about."""
        self.provider, self.account = key.provider, key.account

    def leaves(self) -> None:
        """The request goes upstream: from here on time is not ours."""
        self._left = time.perf_counter()

    def returns(self) -> None:
        """The answer's head is here."""
        self._outside += time.perf_counter() - self._left
        self._left = 0.0

    def begin(self, trail: Trail) -> Any:
        """The record's first half, for a trail that must be on disk before anything goes upstream."""
        return trail.accept(self._record("request.begun", trail.now()))

    def write(self, trail: Trail, metrics: Metrics) -> None:
        """The one record of this request, and its metrics."""
        if self._left:
            self.returns()
        took = time.perf_counter() - self._started
        if self._reserved:
            trail.accept(self._record("request", trail.now(), self._ending(took)), reserved=True)
        if self.code == Overloaded.code:
            metrics.overloaded.labels(self.reason or "-").inc()
        metrics.request_ended(
            (self.route or "-", self.method, str(self.status or "-"), self.code or "-"),
            took,
            max(0.0, took - self._outside),
        )

    def _record(self, kind: str, at: int, ending: str = "") -> Record:
        tenant, provider, request_id, generation = (
            self.tenant,
            self.provider,
            self.request_id,
            self.generation,
        )
        who, user, agent = _who(tenant, self.agent, self.session, self.user, provider, self.account)
        usual = self.route is not None and len(self.path) + len(self.method) <= _LONG
        render = _what_again if usual else _what
        text = (
            f'"kind":"{kind}","at":{at},"request_id":{quoted(request_id)},{who},'
            f'"generation":{"null" if generation is None else generation},'
            f"{render(self.route, self.method, self.host, self.path, self.via)}{self._more()}{ending}"
        )
        return Record((at, kind, tenant, user, provider, agent, request_id), text)

    def _more(self) -> str:
        """Facts of a particular kind of request, each behind a comma."""
        return ""

    def _ending(self, took: float) -> str:
        why = _WELL
        if self.code is not None:
            why = f'"code":{quoted(self.code)},"act":{quoted(self.act)},"reason":{quoted(self.reason)}'
        return (
            f',"status":{"null" if self.status is None else self.status},{why},"attempts":{self.attempts},'
            f'"refreshed":{"true" if self.refreshed else "false"},"bytes_in":{self.bytes_in},'
            f'"bytes_out":{self.bytes_out},"ms":{round(took * 1000, 1)},'
            f'"upstream_request_id":{quoted(self.upstream_request_id)}'
        )
