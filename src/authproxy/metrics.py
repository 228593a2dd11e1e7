"""The numbers that can be scraped: every metric's name, help and labels in one place. No per-user labels."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, cast

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

_FAST = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)
_SLOW = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


Snapshot = list[list[Any]]
"""All numbers of one process, as JSON can carry them: name, type, help and samples of each family."""

# How the numbers of several processes on one store become one page. Counts and times are added up, and so are these:
_ADDED = frozenset({"authproxy_unpersisted_rotations", "authproxy_audit_queue", "authproxy_workers"})
_NEWEST = frozenset(
    {"authproxy_background_beat_timestamp_seconds", "authproxy_background_success_timestamp_seconds"}
)
_WORST = frozenset({"authproxy_config_last_reload_success"})
# Every other gauge is read from the store, or is one process's own affair: that of the one who is asked stands.


class _Connections(Collector):
    """Connections by provider and state, read from the store when scraped: right with zero traffic."""

    def __init__(self) -> None:
        self.counts: Mapping[tuple[str, str], int] = {}

    def collect(self) -> Iterable[Metric]:
        family = GaugeMetricFamily(
            "authproxy_connections", "Connections in the store.", labels=("provider", "state")
        )
        for labels, count in sorted(self.counts.items()):
            family.add_metric(labels, count)
        yield family


class _Times:
    """One histogram's numbers."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, seconds: float) -> None:
        self.counts[bisect_left(self.bounds, seconds)] += 1
        self.total += seconds

    def buckets(self) -> list[tuple[str, float]]:
        """Each bound with how many were at most that long."""
        found, sofar = [], 0
        for bound, count in zip((*map(str, self.bounds), "+Inf"), self.counts, strict=True):
            sofar += count
            found.append((bound, float(sofar)))
        return found


class _Requests(Collector):
    """Requests by ending, and their times by route.

    Plain numbers, for they are counted with every request and in one thread: the library's series take a lock for
    each, and cost more than the rest of a request's record.
    """

    def __init__(self) -> None:
        self._endings: dict[tuple[str, str, str, str], int] = {}
        self._times: dict[str, tuple[_Times, _Times]] = {}

    def count(self, ending: tuple[str, str, str, str], seconds: float, overhead: float) -> None:
        self._endings[ending] = self._endings.get(ending, 0) + 1
        times = self._times.get(ending[0])
        if times is None:
            times = self._times[ending[0]] = (_Times(_SLOW), _Times(_FAST))
        times[0].observe(seconds)
        times[1].observe(overhead)

    def collect(self) -> Iterable[Metric]:
        requests = CounterMetricFamily(
            "authproxy_requests",
            "Requests on the data plane, by ending.",
            labels=("route", "method", "status", "code"),
        )
        for ending, count in self._endings.items():
            requests.add_metric(ending, count)
        yield requests
        for index, (name, says) in enumerate(
            (
                ("authproxy_request_seconds", "From the request's head to the last byte."),
                (
                    "authproxy_overhead_seconds",
                    "authproxy's own time in a request, the upstream's excluded.",
                ),
            )
        ):
            family = HistogramMetricFamily(name, says, labels=("route",))
            for route, both in self._times.items():
                family.add_metric((route,), both[index].buckets(), both[index].total)
            yield family


class Metrics:
    """One registry per process part, so that two proxies in one process do not share numbers."""

    def __init__(self) -> None:
        self.others: Callable[[], Awaitable[Sequence[Snapshot]]] | None = (
            None  # who shares listener and store
        )
        self.registry = CollectorRegistry()
        r = self.registry
        self._connections = _Connections()
        r.register(self._connections)
        self._requests = _Requests()
        r.register(self._requests)
        self.refreshes = Counter(
            "authproxy_refresh",
            "Token refreshes, by outcome and reason.",
            ("provider", "outcome", "reason"),
            registry=r,
        )
        self.refresh_seconds = Histogram(
            "authproxy_refresh_seconds",
            "Time of one token call.",
            ("provider",),
            buckets=_SLOW,
            registry=r,
        )
        self.unpersisted = Gauge(
            "authproxy_unpersisted_rotations",
            "Rotated tokens that could not be saved yet.",
            registry=r,
        )
        self.reuse_suspected = Counter(
            "authproxy_reuse_suspected",
            "Refusals that look like somebody else spent our refresh token.",
            ("provider",),
            registry=r,
        )
        self.background_beat = Gauge(
            "authproxy_background_beat_timestamp_seconds",
            "When the newest round of background work began: grows old where it hangs.",
            ("duty",),
            registry=r,
        )
        self.background_success = Gauge(
            "authproxy_background_success_timestamp_seconds",
            "When background work last ended a round well.",
            ("duty",),
            registry=r,
        )
        self.background_failures = Counter(
            "authproxy_background_failures", "Rounds of background work that failed.", ("duty",), registry=r
        )
        self.refresh_due = Gauge(
            "authproxy_refresh_due_seconds_max",
            "By how much the most overdue refresh is late: seconds since an access token ended that should have "
            "been renewed before.",
            registry=r,
        )
        self.oldest_unrefreshed = Gauge(
            "authproxy_oldest_unrefreshed_seconds",
            "Age of the oldest refresh (or consent) among live connections.",
            registry=r,
        )
        self.deliveries = Counter(
            "authproxy_webhook_deliveries",
            "Attempts to tell a webhook, by outcome: delivered, failed, or given up after three days.",
            ("outcome",),
            registry=r,
        )
        self.backlog = Gauge(
            "authproxy_webhook_backlog", "Events that webhooks have still to be told.", registry=r
        )
        self.backlog_age = Gauge(
            "authproxy_webhook_oldest_seconds",
            "Age of the oldest of them; 0 where there is none.",
            registry=r,
        )
        self.revocations_pending = Gauge(
            "authproxy_revocations_pending",
            "Disconnected grants that the provider has not revoked yet.",
            registry=r,
        )
        self.approvals = Gauge(
            "authproxy_approvals_waiting", "Calls of tools that wait for somebody's yes.", registry=r
        )
        self.sessions = Gauge("authproxy_sessions", "Sessions that are good now.", registry=r)
        self.sessions_created = Counter(
            "authproxy_sessions_created", "Sessions that this process has minted.", registry=r
        )
        self.tool_calls = Counter(
            "authproxy_tool_calls",
            "Calls of tools, by ending: success, refused, cancelled, or the kind of the failure.",
            ("tool", "outcome"),
            registry=r,
        )
        self.overloaded = Counter(
            "authproxy_overloaded",
            "Requests that were answered `overloaded`, by the limit that they met.",
            ("reason",),
            registry=r,
        )
        self.pauses = Counter(
            "authproxy_provider_pauses",
            "Pauses that a provider asked for with a 429, and for which a user's requests were kept back.",
            ("provider",),
            registry=r,
        )
        self.audit_queue = Gauge("authproxy_audit_queue", "Audit records waiting for the disk.", registry=r)
        Gauge("authproxy_workers", "Processes that this page is of.", registry=r).set(1)
        self.reload_success = Gauge(
            "authproxy_config_last_reload_success",
            "1 where the last configuration read was taken over.",
            registry=r,
        )

    def request_ended(self, ending: tuple[str, str, str, str], seconds: float, overhead: float) -> None:
        """Count one request: (route, method, status, code), its time and our own part of it."""
        self._requests.count(ending, seconds, overhead)

    def watch_audit(self, waiting: Callable[[], int]) -> None:
        """Read the audit queue's length from `waiting` at each scrape."""
        self.audit_queue.set_function(waiting)

    def snapshot(self) -> Snapshot:
        """What another process needs to make one page of both."""
        return [
            [family.name, family.type, family.documentation, [[*one[:3]] for one in family.samples]]
            for family in self.registry.collect()
        ]

    def exposition(
        self, connections: Mapping[tuple[str, str], int], others: Sequence[Snapshot] = ()
    ) -> bytes:
        """The page in Prometheus' text format, of this process and others; `connections` is counted in the store just
        now."""
        self._connections.counts = connections
        if not others:
            return generate_latest(self.registry)
        return generate_latest(cast(CollectorRegistry, _Page(merged([self.snapshot(), *others]))))


def merged(snapshots: Sequence[Snapshot]) -> Snapshot:
    """One of several; the first is that of whoever is asked."""
    families: dict[str, list[Any]] = {}
    found: dict[tuple[str, str, str], list[Any]] = {}
    for number, snapshot in enumerate(snapshots):
        for name, kind, says, samples in snapshot:
            family = families.setdefault(name, [name, kind, says, []])
            for sample, labels, value in samples:
                key = (name, sample, repr(sorted(labels.items())))
                there = found.get(key)
                if there is None and (number == 0 or _shared(name, kind)):
                    found[key] = kept = [sample, labels, value]
                    family[3].append(kept)
                elif there is not None:
                    there[2] = _together(name, kind, sample, there[2], value)
    return list(families.values())


def counted(snapshot: Snapshot) -> Snapshot:
    """What of a process's numbers outlives it: what has happened, and not how things stand."""
    return [family for family in snapshot if family[1] != "gauge"]


def _shared(name: str, kind: str) -> bool:
    return kind != "gauge" or name in _ADDED | _NEWEST | _WORST


def _together(name: str, kind: str, sample: str, one: float, other: float) -> float:
    if sample.endswith("_created") or name in _WORST:
        return min(one, other)
    if name in _NEWEST:
        return max(one, other)
    return one + other if _shared(name, kind) else one


class _Page(Collector):
    """Families that have been counted elsewhere."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot

    def collect(self) -> Iterable[Metric]:
        for name, kind, says, samples in self._snapshot:
            family = Metric(name, says, kind)
            for sample, labels, value in samples:
                family.add_sample(sample, labels, value)
            yield family
