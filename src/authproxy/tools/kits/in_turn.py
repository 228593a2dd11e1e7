"""Several requests of one tool at a time, but not too many: their answers in the order of what was asked."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

Asked = TypeVar("Asked")
Got = TypeVar("Got")

AT_ONCE = 6


async def in_turn(asked: Iterable[Asked], ask: Callable[[Asked], Awaitable[Got]]) -> list[Got]:
    """`ask` for each of `asked`, at most `AT_ONCE` under way. The first failure ends the others and is raised."""
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(thing: Asked) -> Got:
        async with gate:
            return await ask(thing)

    tasks = [asyncio.ensure_future(one(thing)) for thing in asked]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
