"""One process of a soak: a broker with real parts and its trail, many callers, and places where it may drop dead.

Its order is one line of JSON on standard input. It says `ready`, begins at the next line, tells what it has done every
half second, and ends in order at SIGTERM.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import random
import signal
import sys
import traceback
from collections import Counter
from dataclasses import replace
from typing import Any

import structlog

from authproxy.core import config
from authproxy.core.errors import Refusal, StoreUnavailable
from authproxy.core.model import Environment
from authproxy.store.audit import Trail
from authproxy.store.sealing import Keyring
from authproxy.store.vault import Vault
from tests.broker.house import Broker, Clock, configuration, key_of

STEP = 0.05  # seconds between two calls of one caller


async def open_broker(order: dict[str, Any]) -> Broker:
    """The broker of this order, on its store."""
    dying: dict[str, float] = order.get("dying", {})
    chance = random.Random(os.getpid())

    async def failpoint(point: str) -> None:
        if chance.random() < dying.get(point, 0.0):
            os.kill(os.getpid(), signal.SIGKILL)

    vault = await Vault.open(
        order["store"], keyring=Keyring.parse(order["keys"]), environment=Environment.DEVELOPMENT
    )
    settings = replace(configuration(order["base"]), refresh=config.Refresh(**order["refresh"]))
    clock = Clock()
    clock.push(order.get("ahead", 0.0))
    return Broker(vault, clock, settings, failpoint)


async def soak(order: dict[str, Any]) -> None:
    """Callers that never rest, until told to end."""
    broker = await open_broker(order)
    trail = Trail(broker.vault, order["name"], flush=0.2)
    await trail.start()
    done: Counter[str] = Counter()
    ending = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ending.set)

    async def caller(number: int) -> None:
        mine = random.Random(number * 7919 + os.getpid())
        while not ending.is_set():
            user = mine.choice(order["users"])
            try:
                usable = await broker.token(user)
            except Refusal as refusal:
                done[f"{refusal.code}:{refusal.reason or ''}"] += 1
                if refusal.reason == "fault":  # of all reasons the only one that explains nothing
                    traceback.print_exception(refusal)
                await asyncio.sleep(STEP * 4)
                continue
            assert usable.key == key_of(user), "another user's token"
            done["served"] += 1
            trail.record("request", tenant="default", user=user, provider="acme")
            await asyncio.sleep(STEP)

    async def tell() -> None:
        while True:
            print(json.dumps(done), flush=True)
            await asyncio.sleep(0.5)

    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    telling = asyncio.create_task(tell())
    # Whoever ordered this holds the other end, and writes no more: what can be read now is its end.
    asyncio.get_running_loop().add_reader(sys.stdin.fileno(), ending.set)
    await asyncio.gather(*(caller(number) for number in range(order["callers"])))
    telling.cancel()
    await broker.close()
    await trail.close()
    await broker.vault.close()
    print(json.dumps(done), flush=True)


async def burst(order: dict[str, Any]) -> None:
    """All callers at once, for one user, once."""
    broker = await open_broker(order)
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    (user,) = order["users"]
    found = await asyncio.gather(
        *(broker.token(user) for _ in range(order["callers"])), return_exceptions=True
    )
    await broker.close()
    await broker.vault.close()
    told = [
        f"generation {one.generation}" if not isinstance(one, BaseException) else repr(one) for one in found
    ]
    print(json.dumps(Counter(told)), flush=True)


async def main() -> None:
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    order = json.loads(await asyncio.to_thread(sys.stdin.readline))
    try:
        await (soak if order["mode"] == "soak" else burst)(order)
    except StoreUnavailable as error:  # the database is away; whoever watches over us starts us again
        sys.exit(f"not started: {error}")


if __name__ == "__main__":
    asyncio.run(main())
