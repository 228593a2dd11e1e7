"""The audit record of one request, filled in as the walk goes and written once at its end."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Hashable, Sequence
from typing import Any

from authproxy.core.errors import Overloaded, Refusal
from authproxy.core.model import DEFAULT_TENANT, Caller, ConnectionKey
from authproxy.metrics import Metrics
from authproxy.store.audit import Trail
from authproxy.store.chain import Record
from authproxy.store.events import clean, quoted

_MAX_PATH = 2048


def _shape(names: str) -> str:
    """JSON fields with places for their values."""
    return ",".join(f'"{name}":%s' for name in names.split())


# A record's text is put together from these: as a dict that is encoded, it would cost as much as the walk's decisions.
_FACTS = _shape(
    "kind at request_id tenant agent session user provider account generation route method host path via"
)
_ENDING = _shape("status code act reason attempts refreshed bytes_in bytes_out ms upstream_request_id")


def request_ids(prefix: str) -> Callable[[], str]:
    """Ids that no two requests share: a prefix that is random per process, and a count.

    They are names, not secrets, so that a system call per request for randomness would buy nothing.
    """
    count = itertools.count(1)
    return lambda: f"{prefix}{next(count):012x}"


class Entry:
    """What is known of a request so far. The walk writes into it and decides nothing by it."""

    __slots__ = (
        "_left",
        "_outside",
        "_reserved",
        "_started",
        "account",
        "act",
        "agent",
        "attempts",
        "bytes_in",
        "bytes_out",
        "cause",
        "code",
        "generation",
        "held",
        "host",
        "method",
        "named_host",
        "path",
        "probing",
        "provider",
        "reason",
        "refreshed",
        "request_id",
        "route",
        "session",
        "status",
        "tenant",
        "upstream_request_id",
        "user",
        "via",
    )

    def __init__(self, request_id: str, method: str) -> None:
        self.request_id = request_id
        self.method = method
        # Whom nobody knows is the default tenant's business: its operators see those who were refused unnamed.
        self.tenant = DEFAULT_TENANT
        self.agent: str | None = None
        self.session: str | None = None
        self.user: str | None = None
        self.provider: str | None = None
        self.account: str | None = None
        self.generation: int | None = None
        self.route: str | None = None
        self.host: str | None = None
        self.named_host: str | None = None  # the one that was asked for, where a grant says which it is
        self.path: bytes = b""
        self.status: int | None = None
        self.code: str | None = None
        self.act: str | None = None
        self.reason: str | None = None
        self.cause: Refusal | None = None  # for which it was ended from outside
        self.held: Sequence[tuple[Any, Hashable]] = ()  # the gates that it is in, until it leaves them
        self.probing: tuple[Hashable, ...] = ()  # the pauses that it is to see the end of
        self.attempts = 0
        self.refreshed = False
        self.bytes_in = 0
        self.bytes_out = 0
        self.via: str | None = None
        self.upstream_request_id: str | None = None
        self._started = time.perf_counter()
        self._left = 0.0
        self._outside = 0.0
        self._reserved = False

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
        at = trail.now()
        return trail.accept(self._record("request.begun", at, self._facts("request.begun", at)))

    def write(self, trail: Trail, metrics: Metrics) -> None:
        """The one record of this request, and its metrics."""
        if self._left:
            self.returns()
        took = time.perf_counter() - self._started
        if self._reserved:
            at = trail.now()
            text = f"{self._facts('request', at)},{self._ending(took)}"
            trail.accept(self._record("request", at, text), reserved=True)
        if self.code == Overloaded.code:
            metrics.overloaded.labels(self.reason or "-").inc()
        metrics.request_ended(
            (self.route or "-", self.method, str(self.status or "-"), self.code or "-"),
            took,
            max(0.0, took - self._outside),
        )

    def _record(self, kind: str, at: int, text: str) -> Record:
        agent, user = clean(self.agent), clean(self.user)
        return Record((at, kind, self.tenant, user, self.provider, agent, self.request_id), text)

    def _facts(self, kind: str, at: int) -> str:
        generation = self.generation
        return _FACTS % (
            quoted(kind),
            at,
            quoted(self.request_id),
            quoted(self.tenant),
            quoted(self.agent),
            quoted(self.session),
            quoted(self.user),
            quoted(self.provider),
            quoted(self.account),
            "null" if generation is None else generation,
            quoted(self.route),
            quoted(self.method),
            quoted(self.host),
            quoted(self.path[:_MAX_PATH].decode("utf-8", "backslashreplace")),
            quoted(self.via),
        )

    def _ending(self, took: float) -> str:
        return _ENDING % (
            "null" if self.status is None else self.status,
            quoted(self.code),
            quoted(self.act),
            quoted(self.reason),
            self.attempts,
            "true" if self.refreshed else "false",
            self.bytes_in,
            self.bytes_out,
            round(took * 1000, 1),
            quoted(self.upstream_request_id),
        )
