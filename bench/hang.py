"""`python -m bench.hang`: what users with a valid token feel of a token endpoint that takes calls and answers none.

One proxy, phases in turn: quiet, and with the agents of other users asking for what only a refresh could give them.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from authproxy.cli.load import Run, get, keep_pace
from bench.contenders import Authproxy
from bench.machine import yardstick
from bench.process import Process
from bench.seed import configuration, seed
from bench.world import World
from tests.kit.ports import free_port

ASKERS = 40
RATE = 200.0  # requests per second of the user whose token is valid


class Stuck(Authproxy):
    """authproxy with a provider that hangs, and one user of whom it needs nothing."""

    name = "authproxy"

    def __init__(self, world: World, endpoint: int) -> None:
        self.endpoint = endpoint
        super().__init__(world, "hang")

    def launch(self) -> Process:
        seed(self.folder / "store.db", self.folder / "key", ASKERS + 1, expired=ASKERS)
        return super().launch()

    def configuration(self) -> Mapping[str, Any]:
        return configuration(self.world, self.routes, provider=f"http://127.0.0.1:{self.endpoint}")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.hang", description=__doc__)
    parser.add_argument(
        "--seconds", type=float, default=60.0, help="how long the endpoint hangs, in all (60)"
    )
    parser.add_argument("--rounds", type=int, default=3, help="phases of each kind (3)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        with World(folder, folder) as world:
            phases = asyncio.run(_measure(world, args.seconds / args.rounds, args.rounds))
    for kind, runs in phases.items():
        p50, p99 = ([run.quantile(share) * 1000 for run in runs] for share in (0.5, 0.99))
        sys.stdout.write(
            f"{kind:<8} p50 {statistics.median(p50):.2f} ms   p99 {statistics.median(p99):.2f} ms   "
            f"(p99 of each: {', '.join(f'{one:.2f}' for one in p99)}; {sum(r.requests for r in runs)} answers)\n"
        )
    sys.stdout.write(f"load average {os.getloadavg()[0]:.2f}, yardstick {yardstick():.3f} s\n")
    return 0


async def _measure(world: World, seconds: float, rounds: int) -> Mapping[str, list[Run]]:
    taken: list[asyncio.StreamWriter] = []

    async def never(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        taken.append(writer)
        while await reader.read(4096):
            pass

    endpoint = free_port()
    phases: dict[str, list[Run]] = {"quiet": [], "hanging": []}
    async with await asyncio.start_server(never, "127.0.0.1", endpoint):
        proxy = Stuck(world, endpoint)
        process = await asyncio.to_thread(proxy.launch)
        with process:
            request = get("/plain/small", "X-User-ID: user0")
            await asyncio.to_thread(process.await_port, proxy.port, request)
            await keep_pace(proxy.port, request, rate=RATE, seconds=3)  # what is cold is nobody's measure
            for _ in range(rounds):
                phases["quiet"].append(await keep_pace(proxy.port, request, rate=RATE, seconds=seconds))
                askers = [asyncio.create_task(_ask(proxy.port, number)) for number in range(ASKERS)]
                phases["hanging"].append(await keep_pace(proxy.port, request, rate=RATE, seconds=seconds))
                for asker in askers:
                    asker.cancel()
                await asyncio.gather(*askers, return_exceptions=True)
            if not taken:
                raise RuntimeError("nobody called the token endpoint: this measured nothing")
        for one in taken:
            one.close()
    return phases


async def _ask(port: int, number: int) -> None:
    """One agent whose user's token has expired: asks, is refused, and asks again a second later."""
    while True:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(get("/plain/small", f"X-User-ID: user{number + 1}", "Connection: close"))
        answer = await reader.read()
        writer.close()
        if json.loads(answer.partition(b"\r\n\r\n")[2])["code"] != "provider_unavailable":
            raise RuntimeError(answer[:300])
        await asyncio.sleep(1)


if __name__ == "__main__":
    sys.exit(main())
