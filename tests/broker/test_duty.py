"""Background work that goes wrong, hangs or is told to stop."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from authproxy.broker.background import Background
from authproxy.broker.duty import Duty
from authproxy.core import config
from authproxy.core.errors import StoreUnavailable
from authproxy.metrics import Metrics
from tests.broker.house import House


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, labels)


def duty(metrics: Metrics, work: Callable[[], Awaitable[object]], **changes: float) -> Duty:
    values = {"every": 0.01, "deadline": 5.0} | changes
    return Duty("work", work, metrics=metrics, clock=lambda: 1000.0, jitter=lambda: 0.5, **values)


@pytest.mark.scenario("A27")
@pytest.mark.parametrize("error", [RuntimeError("bug"), StoreUnavailable("away"), KeyError("x")])
async def test_an_exception_ends_a_round_and_never_the_work(error: Exception) -> None:
    metrics, rounds, enough = Metrics(), [0], asyncio.Event()

    async def work() -> None:
        rounds[0] += 1
        if rounds[0] == 2:
            raise error
        if rounds[0] == 4:
            enough.set()

    one = duty(metrics, work)
    one.start()
    await asyncio.wait_for(enough.wait(), 10)
    await one.close(5)
    assert value(metrics, "authproxy_background_failures_total", duty="work") == 1
    assert value(metrics, "authproxy_background_beat_timestamp_seconds", duty="work") == 1000
    assert value(metrics, "authproxy_background_success_timestamp_seconds", duty="work") == 1000


@pytest.mark.scenario("A27")
async def test_a_hung_round_lets_the_heartbeat_grow_old_and_is_ended() -> None:
    metrics, now, hanging = Metrics(), [1000.0], asyncio.Event()

    async def work() -> None:
        hanging.set()
        await asyncio.Event().wait()

    one = Duty("work", work, every=1, deadline=0.2, metrics=metrics, clock=lambda: now[0])
    running = asyncio.create_task(one.round())
    await hanging.wait()
    now[0] += 900
    assert value(metrics, "authproxy_background_beat_timestamp_seconds", duty="work") == 1000, "900 s old"
    assert not await running
    assert value(metrics, "authproxy_background_success_timestamp_seconds", duty="work") is None
    assert not await one.round(), "and it was tried again"
    assert value(metrics, "authproxy_background_beat_timestamp_seconds", duty="work") == 1900


@pytest.mark.scenario("A27")
async def test_closing_lets_the_round_end_and_begins_no_other() -> None:
    begun, end, rounds = asyncio.Event(), asyncio.Event(), [0]

    async def work() -> None:
        rounds[0] += 1
        begun.set()
        await end.wait()

    one = duty(Metrics(), work)
    one.start()
    await begun.wait()
    closing = asyncio.create_task(one.close(10))
    end.set()
    await closing
    assert rounds == [1]


@pytest.mark.scenario("A28")
async def test_a_long_round_is_followed_by_the_next_at_once() -> None:
    """Else a keeper with more to do than fits into one round would stand still for a quarter of its time."""
    now, rounds, enough = [0.0], [0], asyncio.Event()

    async def work() -> None:
        rounds[0] += 1
        now[0] += 3600
        if rounds[0] == 3:
            enough.set()

    one = Duty("work", work, every=60, deadline=5, metrics=Metrics(), tick=lambda: now[0])
    one.start()
    await asyncio.wait_for(enough.wait(), 10)
    await one.close(5)


async def test_the_keeper_can_be_switched_off(house: House) -> None:
    def duties(**refresh: bool) -> list[str]:
        settings = config.Config(
            version=1,
            refresh=config.Refresh(**refresh),  # type: ignore[arg-type]
            webhooks=(config.Webhook("https://hooks.example/", config.Secret("s")),),
        )
        background = Background(
            broker.vault,
            broker.registrations,
            broker.endpoint,
            broker.refresher,
            lambda: settings,
            changed=lambda _key: None,
            metrics=Metrics(),
        )
        return [one.name for one in background.duties]

    broker = await house.broker()
    assert duties() == ["keeper", "revocations", "events", "webhook_1"]
    assert duties(background=False) == ["revocations", "events", "webhook_1"]
