"""The arithmetic of allowances: exact, bounded, and nobody pays for another."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from authproxy.core.bounds import Allowance, Limits, Shares
from authproxy.core.config import ProviderChoice, RouteChoice
from authproxy.core.errors import Overloaded
from authproxy.proxy.limits import Crowd, Gate, Turnstile
from authproxy.proxy.record import Entry

PER_SECOND = Allowance(rate=2, burst=3)


def entry(user: str = "alice", agent: str = "agent", tenant: str = "default") -> Entry:
    made = Entry("id", "GET")
    made.tenant, made.agent, made.user = tenant, agent, user
    return made


class House:
    """A turnstile with one provider and one route, at a time of our own."""

    def __init__(
        self, everywhere: Limits, provider: Shares | None = None, route: Shares | None = None
    ) -> None:
        self.now = 1000.0
        self.turnstile = Turnstile(everywhere, tick=lambda: self.now)
        self.take(provider, route)

    def take(self, provider: Shares | None = None, route: Shares | None = None) -> None:
        providers = {"acme": ProviderChoice(limits=provider or Shares())}
        routes = {"api": RouteChoice(limits=route or Shares()), "other": RouteChoice()}
        self.turnstile.take(providers, routes, {"api": "acme", "other": "acme"})

    def enter(self, one: Entry, route: str = "api") -> str | None:
        """None where it was let in, else the reason."""
        try:
            self.turnstile.enter(route, one)
        except Overloaded as refusal:
            assert one.held == ()
            return refusal.reason
        return None


def refused(gate: Gate, times: Iterable[float]) -> list[float]:
    """The times at which one more was refused."""
    found = []
    for now in times:
        if gate.refusal("k", now) is not None:
            found.append(now)
        else:
            gate.enter("k", now)
    return found


def test_a_burst_and_then_the_rate() -> None:
    gate = Gate("", "user", PER_SECOND)
    assert refused(gate, [0.0] * 5) == [0.0, 0.0]
    assert refused(gate, [0.49, 0.51, 0.52, 1.01, 1.02]) == [0.49, 0.52, 1.02]
    assert refused(gate, [10.0] * 4) == [10.0]
    long = Gate("", "user", Allowance(rate=7, burst=3))
    times = [number / 100 for number in range(10_000)]
    assert len(times) - len(refused(long, times)) == 7 * 100 + 3 - 1


@pytest.mark.parametrize(
    ("allowance", "taken", "wait"),
    [
        (PER_SECOND, 3, 1),
        (Allowance(rate=0.1), 1, 10),
        (Allowance(rate=0.5, burst=4), 4, 2),
        (Allowance(rate=9), 9, 1),
    ],
)
def test_retry_after_is_when_it_works(allowance: Allowance, taken: int, wait: int) -> None:
    gate = Gate("", "caller", allowance)
    assert refused(gate, [5.0] * taken) == []
    refusal = gate.refusal("k", 5.0)
    assert refusal is not None
    assert (refusal.code, refusal.retry_after, refusal.reason) == ("overloaded", wait, "caller_rate")
    assert gate.refusal("k", 5.0 + wait) is None


def test_full_buckets_are_forgotten() -> None:
    gate = Gate("", "user", Allowance(rate=10, burst=5))
    for number in range(50_000):
        now = number / 1000
        assert gate.refusal(number, now) is None
        gate.enter(number, now)
        gate.leave(number)
        assert gate.held <= 100 + 3, "those of the last tenth of a second, and no more"


def test_buckets_are_bounded_whatever_is_named() -> None:
    gate = Gate("", "user", Allowance(rate=0.001, burst=5), most=100)
    for number in range(1000):
        gate.enter(number, 1.0)
        gate.leave(number)
    assert gate.held <= 101


def test_who_is_refused_takes_nothing_from_others() -> None:
    """One user at its own limit does not use up what all share."""
    house = House(
        Limits(user=Allowance(rate=1, burst=1)), provider=Shares(total=Allowance(rate=1, burst=3, requests=3))
    )
    assert house.enter(entry()) is None
    assert [house.enter(entry()) for _ in range(50)] == ["user_rate"] * 50
    assert house.enter(entry("bob")) is None
    assert house.enter(entry("carol")) is None
    assert house.enter(entry("dave")) == "provider_requests"


@pytest.mark.parametrize(
    ("everywhere", "provider", "route", "reason"),
    [
        (Limits(tenant=Allowance(requests=1)), None, None, "tenant_requests"),
        (Limits(user=Allowance(requests=1)), None, None, "user_requests"),
        (Limits(caller=Allowance(requests=1)), None, None, "caller_requests"),
        (Limits(caller=Allowance(rate=1)), None, None, "caller_rate"),
        (Limits(), Shares(total=Allowance(requests=1)), None, "provider_requests"),
        (Limits(), Shares(user=Allowance(rate=1)), None, "provider_user_rate"),
        (Limits(), Shares(caller=Allowance(requests=1)), None, "provider_caller_requests"),
        (Limits(), None, Shares(total=Allowance(rate=1)), "route_rate"),
        (Limits(), None, Shares(user=Allowance(requests=1)), "route_user_requests"),
        (Limits(), None, Shares(caller=Allowance(rate=1)), "route_caller_rate"),
    ],
)
def test_every_allowance_has_its_reason(
    everywhere: Limits, provider: Shares | None, route: Shares | None, reason: str
) -> None:
    house = House(everywhere, provider, route)
    first = entry()
    assert house.enter(first) is None
    assert house.enter(entry()) == reason
    if reason.startswith("route"):
        assert house.enter(entry(), "other") is None
    if "user" in reason:
        assert house.enter(entry("bob")) is None
        assert house.enter(entry(tenant="elsewhere")) is None, "another tenant's user of the same name"
    if "caller" in reason:
        assert house.enter(entry(agent="second")) is None
        assert house.enter(entry(agent="agent/run-7")) == reason, "who is below an agent is that agent"
    house.turnstile.leave(first)
    house.turnstile.leave(first)  # once is enough, and twice is no more
    house.now += 1
    again = [house.enter(entry()), house.enter(entry())]
    assert again == [None, reason]


def test_nothing_set_is_nothing_held() -> None:
    house = House(Limits())
    one = entry()
    assert house.enter(one) is None
    assert one.held == ()
    house.turnstile.enter_tunnel(one)
    assert one.held == ()


def test_a_tunnel_counts_for_its_agent_only() -> None:
    house = House(Limits(user=Allowance(requests=1), caller=Allowance(requests=1)))
    tunnel, inside = entry(), entry()
    tunnel.user = None
    house.turnstile.enter_tunnel(tunnel)
    assert house.enter(inside) == "caller_requests"
    house.turnstile.leave(tunnel)
    assert house.enter(inside) is None


def test_a_reload_keeps_the_counts() -> None:
    house = House(Limits(), route=Shares(user=Allowance(requests=2), total=Allowance(rate=1, burst=4)))
    under_way = [entry(), entry()]
    assert [house.enter(one) for one in under_way] == [None, None]
    house.take(route=Shares(user=Allowance(requests=3), total=Allowance(rate=1, burst=4)))
    third = entry()
    assert [house.enter(third), house.enter(entry())] == [None, "route_user_requests"]
    house.take()
    assert house.enter(entry()) is None
    for one in (*under_way, third):
        house.turnstile.leave(one)
    house.take(route=Shares(user=Allowance(requests=1)))
    assert [house.enter(entry()), house.enter(entry())] == [None, "route_user_requests"]


def test_connections_are_counted_and_some_are_told() -> None:
    crowd = Crowd(Limits(max_connections=2, peer_connections=0))
    assert [crowd.enter("a") for _ in range(3)] == [None, None, "connections"]
    for _ in range(crowd.SPARE - 1):
        assert crowd.enter("b") == "connections"
    assert crowd.enter("b") == "closed"
    crowd.leave("b")
    assert crowd.open == 2 + crowd.SPARE
    each = Crowd(Limits(max_connections=0, peer_connections=1))
    assert [each.enter(peer) for peer in ("a", "b", "a", None, None)] == [
        None,
        None,
        "peer_connections",
        None,
        None,
    ]
    each.leave("a")
    each.leave("a")
    assert each.enter("a") is None
    for peer in ("a", "b", None, None):
        each.leave(peer)
    assert each.open == 0
    assert not each._of
