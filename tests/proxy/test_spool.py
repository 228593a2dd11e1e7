"""A request's body is streamed once and kept within bounds."""

import asyncio
import contextlib
import resource
import signal
from collections.abc import Callable, Iterator
from typing import cast

import pytest

from authproxy.core.errors import BodyTooLarge
from authproxy.proxy.spool import Body, ReadBody, SpoolBudget

PIECES = [b"a" * 700, b"b" * 700, b"c" * 700]


def reading(pieces: list[bytes]) -> ReadBody:
    left = list(pieces)

    async def read() -> bytes:
        return left.pop(0) if left else b""

    return read


@pytest.fixture(name="make")
def _make() -> Iterator[Callable[..., Body]]:
    made: list[Body] = []

    def make(*, keep: int = 10_000, memory: int = 10_000, limit: int = 0, total: int = 10_000) -> Body:
        made.append(
            Body(reading(PIECES), SpoolBudget(total), keep=keep, memory=memory, limit=limit, length=None)
        )
        return made[-1]

    yield make
    for body in made:
        body.drop()


async def everything(body: Body) -> bytes:
    return b"".join([piece async for piece in body])


@pytest.mark.scenario("D01", "D02")
@pytest.mark.parametrize("memory", [0, 1, 700, 701, 1400, 2100, 10_000])
async def test_the_replay_is_the_same_bytes(make: Callable[..., Body], memory: int) -> None:
    body = make(memory=memory)
    first = await everything(body)
    assert first == b"".join(PIECES)
    assert body.replayable
    assert await everything(body) == first


@pytest.mark.scenario("D01")
@pytest.mark.parametrize(("keep", "replayable"), [(2100, True), (2099, False), (0, False)])
async def test_past_the_bound_nothing_is_kept(make: Callable[..., Body], keep: int, replayable: bool) -> None:
    body = make(keep=keep, memory=800)
    assert await everything(body) == b"".join(PIECES)
    assert body.replayable is replayable


@pytest.mark.scenario("D01")
async def test_a_first_sending_that_broke_off_is_taken_up_by_the_second(make: Callable[..., Body]) -> None:
    body = make(memory=800)
    async for _piece in body:
        break
    assert await everything(body) == b"".join(PIECES)


@pytest.mark.scenario("G19")
async def test_the_budget_of_all_requests_is_shared_and_given_back() -> None:
    budget = SpoolBudget(3000)
    bodies = [Body(reading(PIECES), budget, keep=10_000, memory=100, limit=0, length=None) for _ in range(2)]
    for body in bodies:
        await everything(body)
    assert [body.replayable for body in bodies] == [True, False]
    assert budget.used == 2100
    for body in bodies:
        body.drop()
    assert budget.used == 0


async def test_a_body_over_the_limit_is_refused(make: Callable[..., Body]) -> None:
    with pytest.raises(BodyTooLarge):
        await everything(make(limit=2099))
    assert await everything(make(limit=2100))


async def test_a_length_over_the_bound_is_never_kept() -> None:
    budget = SpoolBudget(10_000)
    body = Body(reading(PIECES), budget, keep=1000, memory=1000, limit=0, length=2100)
    assert not body.replayable
    await everything(body)
    assert budget.used == 0


@pytest.mark.scenario("D01", "D02")
@pytest.mark.parametrize("memory", [0, 2**20])
async def test_a_sending_cut_off_while_the_disk_is_written_loses_nothing(memory: int) -> None:
    pieces = [bytes([number]) * 2**20 for number in range(4)]
    for steps in range(1, 5):
        budget = SpoolBudget(2**30)
        body = Body(reading(pieces), budget, keep=2**30, memory=memory, limit=0, length=None)
        first = aiter(body)
        for _ in range(memory // 2**20):
            await anext(first)
        sending = asyncio.ensure_future(cast("asyncio.Future[bytes]", anext(first)))
        for _ in range(steps):
            await asyncio.sleep(0)
        sending.cancel()
        await asyncio.wait((sending,))
        assert body.replayable
        assert await everything(body) == b"".join(pieces)
        body.drop()
        assert budget.used == 0


async def test_what_is_dropped_while_the_disk_is_written_is_closed(recwarn: pytest.WarningsRecorder) -> None:
    budget = SpoolBudget(2**30)
    body = Body(reading([b"x" * 2**22]), budget, keep=2**30, memory=0, limit=0, length=None)
    sending = asyncio.ensure_future(everything(body))
    for _ in range(3):
        await asyncio.sleep(0)
    sending.cancel()
    body.drop()
    await asyncio.wait((sending,))
    assert budget.used == 0
    del body, sending
    assert not [one for one in recwarn if issubclass(one.category, ResourceWarning)]


@contextlib.contextmanager
def full_disk() -> Iterator[None]:
    """No file of this process may grow over 1000 bytes: that of its output neither, so keep it short."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)


@pytest.mark.scenario("D01")
async def test_a_full_disk_costs_the_replay_and_not_the_request() -> None:
    budget = SpoolBudget(10_000)
    body = Body(reading(PIECES), budget, keep=10_000, memory=0, limit=0, length=None)
    with full_disk():
        sent = await everything(body)
    assert sent == b"".join(PIECES)
    assert not body.replayable
    assert budget.used == 0


@pytest.mark.parametrize(
    ("keep", "total", "replayable"), [(700, 700, True), (699, 700, False), (700, 699, False)]
)
def test_a_body_that_came_whole_is_kept_within_the_same_bounds(
    keep: int, total: int, replayable: bool
) -> None:
    budget = SpoolBudget(total)
    body = Body(reading([]), budget, keep=keep, memory=0, limit=0, length=700, whole=PIECES[0])
    assert body.whole == PIECES[0]
    assert (body.size, body.replayable) == (700, replayable)
    assert budget.used == (700 if replayable else 0)
    body.drop()
    assert (budget.used, body.whole) == (0, None)
