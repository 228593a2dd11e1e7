"""Single flight: shared, not cancellable by who asks, never poisoned, never growing."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from authproxy.broker.flight import FlightLost, Flights


def counted(release: asyncio.Event, runs: list[int]) -> Callable[[], Awaitable[str]]:
    async def work() -> str:
        runs.append(1)
        await release.wait()
        return "done"

    return work


@pytest.mark.scenario("A01", "A02")
async def test_all_askers_share_one_run() -> None:
    flights: Flights[str, str] = Flights(deadline=5)
    release, runs = asyncio.Event(), []
    askers = [asyncio.create_task(flights.share("k", counted(release, runs))) for _ in range(100)]
    await asyncio.sleep(0)
    release.set()
    assert await asyncio.gather(*askers) == ["done"] * 100
    assert len(runs) == 1


@pytest.mark.scenario("A12")
async def test_the_first_asker_may_leave() -> None:
    flights: Flights[str, str] = Flights(deadline=5)
    release, runs = asyncio.Event(), []
    work = counted(release, runs)
    askers = [asyncio.create_task(flights.share("k", work)) for _ in range(11)]
    await asyncio.sleep(0)
    askers[0].cancel()
    with pytest.raises(asyncio.CancelledError):
        await askers[0]
    release.set()
    assert await asyncio.gather(*askers[1:]) == ["done"] * 10
    assert len(runs) == 1


@pytest.mark.scenario("A12")
async def test_the_work_goes_on_when_everybody_has_left() -> None:
    flights: Flights[str, str] = Flights(deadline=5)
    release, ended = asyncio.Event(), asyncio.Event()

    async def work() -> str:
        await release.wait()
        ended.set()
        return "done"

    asker = asyncio.create_task(flights.share("k", work))
    await asyncio.sleep(0)
    asker.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asker
    release.set()
    await asyncio.wait_for(ended.wait(), 5)


@pytest.mark.scenario("A13")
@pytest.mark.parametrize("error", [asyncio.CancelledError, TimeoutError, ValueError, MemoryError])
async def test_a_failure_leaves_no_slot_behind(error: type[BaseException]) -> None:
    flights: Flights[str, str] = Flights(deadline=5)

    async def bad() -> str:
        raise error

    async def good() -> str:
        return "done"

    with pytest.raises((error, FlightLost)) as caught:
        await flights.share("k", bad)
    if error is asyncio.CancelledError:
        assert isinstance(caught.value, FlightLost), "the asker was not cancelled, the work was"
    assert await flights.share("k", good) == "done"
    assert len(flights) == 0


@pytest.mark.scenario("A13", "B21")
async def test_work_has_a_deadline_of_its_own() -> None:
    flights: Flights[str, str] = Flights(deadline=0.02)
    with pytest.raises(FlightLost, match="deadline"):
        await flights.share("k", counted(asyncio.Event(), []))
    assert not flights.running("k")


@pytest.mark.scenario("A21")
async def test_draining_waits_and_begins_nothing_new() -> None:
    flights: Flights[str, str] = Flights(deadline=5)
    release, runs = asyncio.Event(), []
    asker = asyncio.create_task(flights.share("k", counted(release, runs)))
    await asyncio.sleep(0)
    assert await flights.drain(0.01) == 1
    with pytest.raises(FlightLost, match="closing"):
        await flights.share("other", counted(release, runs))
    release.set()
    assert await flights.drain(5) == 0
    assert await asker == "done"


@pytest.mark.scenario("J10")
async def test_nothing_is_left_of_many_keys() -> None:
    flights: Flights[int, int] = Flights(deadline=5)

    async def work() -> int:
        return 1

    for key in range(5000):
        await flights.share(key, work)
    assert len(flights) == 0


async def test_there_is_a_bound_on_what_runs_at_once() -> None:
    flights: Flights[int, str] = Flights(deadline=5, limit=3)
    release = asyncio.Event()
    askers = [asyncio.create_task(flights.share(key, counted(release, []))) for key in range(3)]
    await asyncio.sleep(0)
    with pytest.raises(FlightLost, match="too_many"):
        await flights.share(99, counted(release, []))
    release.set()
    await asyncio.gather(*askers)
