"""No lock outlives whom it was for: waiters may be cancelled at any moment, and event loops come and go."""

from __future__ import annotations

import asyncio

import pytest

from authproxy.core.model import Environment
from authproxy.store.sealing import Keyring
from authproxy.store.vault import Vault
from tests.broker.house import Broker, House

HOUR = 3600


@pytest.mark.scenario("A24")
async def test_two_loops_of_one_process_share_one_refresh(house: House) -> None:
    first = await house.broker()
    await house.connect(first)
    house.clock.push(HOUR + 60)

    async def in_a_loop_of_its_own() -> list[int]:
        vault = await Vault.open(
            f"sqlite:///{house.path}",
            keyring=Keyring.parse(house.keys),
            environment=Environment.DEVELOPMENT,
            clock=house.clock.wall,
        )
        broker = Broker(vault, house.clock, house.settings)
        found = await asyncio.gather(*(broker.token() for _ in range(20)))
        await broker.close()
        await vault.close()
        return [one.generation for one in found]

    for _ in range(2):  # the second time in loops that did not exist at the first
        found = await asyncio.gather(*(asyncio.to_thread(asyncio.run, in_a_loop_of_its_own()) for _ in "ab"))
        assert {generation for each in found for generation in each} == {2}
    assert len(house.sandbox.refreshes()) == 1


@pytest.mark.scenario("A24")
@pytest.mark.parametrize("steps", range(12))
async def test_a_waiter_that_is_cancelled_leaves_no_lock_behind(house: House, steps: int) -> None:
    holder, other = await house.broker(), await house.broker()
    await house.connect(holder)
    house.clock.push(HOUR + 60)
    house.sandbox.hold()
    holding = asyncio.create_task(holder.token())
    await house.sandbox.arrived(1)
    waiters = [asyncio.create_task(broker.token()) for broker in (other, other, holder)]
    for _ in range(
        steps
    ):  # wherever it is by then: at the flight, at the lease, or in the thread of the store
        await asyncio.sleep(0)
    for waiter in waiters:
        waiter.cancel()
    await asyncio.gather(*waiters, return_exceptions=True)
    house.sandbox.release()
    assert (await holding).generation == 2
    assert [(await broker.token()).generation for broker in (holder, other)] == [2, 2]
    house.clock.push(HOUR + 60)
    assert (await other.token()).generation == 3, "and the next lease is to be had"
