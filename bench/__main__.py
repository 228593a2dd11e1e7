"""`python -m bench`: runs all contenders side by side, and writes RESULTS.md and results.json."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from authproxy.cli.load import LoadFault
from bench.contenders import ALL, Contender
from bench.growth import Grown, sizes
from bench.load import BadLoad
from bench.machine import facts, program, yardstick
from bench.measures import FULL, MEASURES, QUICK, Length, Measure
from bench.process import NotReady
from bench.report import goals, page
from bench.results import Results
from bench.world import World

_GROWTH = "growth"
_FAULTS = (BadLoad, LoadFault, NotReady, OSError, TimeoutError)


def main() -> int:
    """Parse, run, write."""
    args = _arguments().parse_args()
    unknown = set(args.only) - set(_names())
    if unknown:
        sys.stderr.write(f"bench: no measure or contender {', '.join(sorted(unknown))}\n")
        return 2
    if not Path("/proc/self/stat").exists():
        sys.stderr.write("bench: CPU and memory are read from /proc, so this needs Linux\n")
        return 2
    if program("wrk") is None:
        _tell("wrk is absent (apt-get install wrk): a slower load of our own takes its place")
    length = QUICK if args.quick else FULL
    if args.rounds:
        length = length._replace(rounds=args.rounds)
    results = Results(facts(), length.rounds, length.seconds)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        shared = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # noqa: S108 - memory, not a place to hide
        memory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-", dir=shared)))
        world = stack.enter_context(World(folder, memory))
        results.facts["upstream"] = f"{world.upstream} on loopback, TLS 1.3 where TLS is said"
        _compare(world, results, length, args.only, stack)
        if _wanted(_GROWTH, args.only, _groups()):
            _grow(world, results, length, stack)
    results.facts["at the end"] = f"load average {os.getloadavg()[0]:.2f}, yardstick {yardstick():.3f} s"
    text = page(results)
    sys.stdout.write(text)
    if args.only and args.output is None:
        _tell("a part is not written; name a folder with --output")
    else:
        target = args.output or Path(__file__).parent
        (target / "RESULTS.md").write_text(text)
        results.write(target / "results.json")
        _tell(f"written to {target}")
    missed = sum(goal.met is False for goal in goals(results))
    _tell(f"{missed} goals missed")
    return 0


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="one short round of each: shows that it works, not what is true"
    )
    parser.add_argument("--rounds", type=int, help=f"rounds (default: {FULL.rounds})")
    parser.add_argument(
        "--only", nargs="+", default=[], metavar="NAME", help=f"some of: {', '.join(_names())}"
    )
    parser.add_argument("--output", type=Path, help="folder for RESULTS.md and results.json (default: bench)")
    return parser


def _groups() -> tuple[frozenset[str], frozenset[str]]:
    return frozenset(kind.name for kind in ALL), frozenset([_GROWTH, *(m.name for m in MEASURES)])


def _names() -> list[str]:
    contenders, measures = _groups()
    return [*sorted(contenders), *sorted(measures)]


def _wanted(name: str, only: Collection[str], groups: Sequence[frozenset[str]]) -> bool:
    """Whether `name` is to run: of each group those that were named, or all where none was."""
    group = next(group for group in groups if name in group)
    chosen = group.intersection(only)
    return not chosen or name in chosen


def _compare(world: World, results: Results, length: Length, only: Collection[str], stack: ExitStack) -> None:
    groups = _groups()
    contenders: list[Contender] = []
    for kind in ALL:
        contender = kind(world)
        missing = contender.absent()
        if missing is not None:
            results.absent[kind.name] = missing
        elif _wanted(kind.name, only, groups):
            stack.callback(contender.stop)
            if _attempt(results, f"start of {kind.name}", contender.start):
                contenders.append(contender)
    for measure in MEASURES:
        if not _wanted(measure.name, only, groups):
            continue
        for number in range(1, length.rounds + 1):
            for contender in contenders:
                if measure.fresh and contender.process is None:
                    continue
                _tell(f"{measure.says}, round {number} of {length.rounds}: {contender.name}")
                _attempt(
                    results,
                    f"{measure.name} of {contender.name}",
                    partial(_once, results, contender, measure, length),
                )


def _once(results: Results, contender: Contender, measure: Measure, length: Length) -> None:
    if measure.fresh:
        contender.stop()
        results.add(measure.name, contender.name, {"start": contender.start()})
    results.add(measure.name, contender.name, measure.run(contender, length))


def _grow(world: World, results: Results, length: Length, stack: ExitStack) -> None:
    grown = [Grown(world, size) for size in sizes(length)]
    for one in grown:
        _tell(f"growth: preparing {one.size.name}")
        stack.callback(one.stop)
        _attempt(results, f"growth, {one.size.name}", one.start)
    for number in range(length.rounds):
        for one in grown:
            if one.process is not None:
                _tell(f"growth, round {number + 1} of {length.rounds}: {one.size.name}")
                values = results.grown.setdefault(one.size.name, [])
                _attempt(
                    results,
                    f"growth, {one.size.name}",
                    partial(_append, values, one, length),
                )


def _append(values: list[float], grown: Grown, length: Length) -> None:
    values.append(grown.measure(length))


def _attempt(results: Results, what: str, work: Callable[[], object]) -> bool:
    """What one contender cannot do must not end the others' run: it is told, and stands in the results."""
    try:
        work()
    except _FAULTS as fault:
        text = f"{what}: {type(fault).__name__} {fault}".strip()
        _tell(text)
        results.faults.append(" ".join(text.split())[:400])
        return False
    return True


def _tell(text: str) -> None:
    sys.stderr.write(f"{time.strftime('%H:%M:%S')} {text}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
