"""`python -m bench.scrubbing`: what it costs to search answers for the token, beside the same proxy that does not."""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.contenders import Authproxy
from bench.load import Load, closed
from bench.machine import program, yardstick
from bench.world import MEGA, World

LOADS = {
    "small JSON, 32 connections": Load(),
    "1 MB of text, 8 connections": Load(f"/text/{MEGA}", connections=8),
    "1 MB of other types, 8 connections": Load(f"/bytes/{MEGA}", connections=8),
}


class Searching(Authproxy):
    """authproxy that treats a reflected token so; `pass` searches nothing."""

    def __init__(self, world: World, reflected: str) -> None:
        self.reflected = reflected
        super().__init__(world, f"authproxy-{reflected}")

    def configuration(self) -> Mapping[str, Any]:
        found = super().configuration()
        routes = {name: {**route, "reflected": self.reflected} for name, route in found["routes"].items()}
        return {**found, "routes": routes}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.scrubbing", description=__doc__)
    parser.add_argument("--seconds", type=int, default=3, help="of each round (3)")
    parser.add_argument("--rounds", type=int, default=4, help="of each kind (4)")
    args = parser.parse_args()
    if program("nginx") is None:
        parser.error("the upstream is nginx here: apt-get install nginx-light")
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        with World(folder, folder) as world:
            _measure(world, args.seconds, args.rounds)
    sys.stdout.write(f"load average {os.getloadavg()[0]:.2f}, yardstick {yardstick():.3f} s\n")
    return 0


def _measure(world: World, seconds: int, rounds: int) -> None:
    proxies = [Searching(world, "pass"), Searching(world, "redact")]
    try:
        for proxy in proxies:
            proxy.start()
        for says, load in LOADS.items():
            spent: dict[str, list[float]] = {proxy.reflected: [] for proxy in proxies}
            for _ in range(rounds):
                for proxy in proxies:
                    spent[proxy.reflected].append(_cpu(proxy, load, seconds, world.authority))
            off, on = (statistics.median(spent[proxy.reflected]) for proxy in proxies)
            sys.stdout.write(
                f"{says:<36} CPU-s per 1,000: {off:.3f} unsearched, {on:.3f} searched "
                f"({on / off:.2f}x, {1000 * (on - off):+.0f} us each)\n"
            )
    finally:
        for proxy in proxies:
            proxy.stop()


def _cpu(proxy: Searching, load: Load, seconds: int, authority: Path) -> float:
    assert proxy.process is not None
    before = proxy.process.cpu()
    done = closed(proxy.door("plain"), load, seconds, authority)
    return (proxy.process.cpu() - before) * 1000 / done.requests


if __name__ == "__main__":
    sys.exit(main())
