"""How long a client is left alone, and that being left alone ends."""

from __future__ import annotations

import pytest

from authproxy.broker.breaker import Breaker, Cause
from authproxy.core.client_auth import Client
from authproxy.core.secret import Secret

CLIENT = Client("id", Secret("CANARY-secret-of-the-client"), "post")


class Time:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(name="tick")
def _tick() -> Time:
    return Time()


@pytest.fixture(name="breaker")
def _breaker(tick: Time) -> Breaker:
    return Breaker(first=1.0, longest=300.0, tick=tick, jitter=lambda: 1.0)


@pytest.mark.scenario("B10")
def test_after_the_pause_that_the_server_asked_for_everybody_may_go(breaker: Breaker, tick: Time) -> None:
    breaker.limited("acme", CLIENT, 30)
    hold = breaker.hold("acme", CLIENT)
    assert hold is not None
    assert (hold.cause, hold.seconds) == (Cause.LIMITED, 30)
    tick.now += 30
    assert [breaker.hold("acme", CLIENT) for _ in range(3)] == [None, None, None]


def test_one_asks_whether_a_silence_is_over_and_the_others_wait_for_it(breaker: Breaker, tick: Time) -> None:
    for connection in "abc":
        breaker.missed("acme", CLIENT, connection, "timeout")
    assert breaker.hold("acme", CLIENT) is not None
    tick.now += 1
    assert breaker.hold("acme", CLIENT) is None
    assert breaker.hold("acme", CLIENT) is not None
    breaker.answered("acme")
    assert breaker.hold("acme", CLIENT) is None


def test_one_that_asks_and_never_tells_does_not_keep_the_others_out(breaker: Breaker, tick: Time) -> None:
    for connection in "abc":
        breaker.missed("acme", CLIENT, connection, "timeout")
    tick.now += 1
    assert breaker.hold("acme", CLIENT) is None
    tick.now += Breaker.PROBE
    assert breaker.hold("acme", CLIENT) is None


@pytest.mark.scenario("C05")
def test_another_secret_is_another_client(breaker: Breaker) -> None:
    assert breaker.refused("acme", CLIENT, "a", "invalid_client", sure=True)
    assert breaker.hold("acme", CLIENT) is not None
    assert breaker.hold("acme", Client("id", Secret("CANARY-the-next-secret"), "post")) is None
