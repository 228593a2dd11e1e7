"""What is measured: each measure is one run of one contender, and gives figures by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from bench.contenders import Contender, Way
from bench.load import Load, closed, paced, streams, transfer
from bench.world import HUGE, MEGA

Figures = Mapping[str, float]
RATE = 500.0


class Length(NamedTuple):
    """How long a single run is, and how often it is repeated. wrk counts in whole seconds."""

    seconds: int
    rounds: int
    connections: int


FULL = Length(4, 5, 100_000)
QUICK = Length(1, 1, 10_000)


@dataclass(frozen=True)
class Measure:
    """One measure. `fresh` ones start their contender anew for each run."""

    name: str
    says: str
    run: Callable[[Contender, Length], Figures]
    fresh: bool = False


def _closed(load: Load, way: Way = "plain") -> Callable[[Contender, Length], Figures]:
    def run(contender: Contender, length: Length) -> Figures:
        return under(contender, load, way, length)

    return run


def under(contender: Contender, load: Load, way: Way, length: Length) -> Figures:
    """Requests/s and, where there is a process to ask, its CPU seconds per 1,000 requests."""
    before = _cpu(contender)
    done = closed(contender.door(way), load, length.seconds, contender.world.authority)
    spent = _cpu(contender) - before
    figures = {"rate": done.requests / done.seconds}
    if contender.process is not None:
        figures["cpu"] = spent * 1000 / done.requests
    return figures


def _paced(way: Way) -> Callable[[Contender, Length], Figures]:
    def run(contender: Contender, length: Length) -> Figures:
        done = paced(contender.door(way), RATE, length.seconds, contender.world.authority)
        return {"p50": done.quantile(0.5) * 1e3, "p99": done.quantile(0.99) * 1e3}

    return run


def _transfer(way: Way, *, up: bool) -> Callable[[Contender, Length], Figures]:
    def run(contender: Contender, length: Length) -> Figures:
        before = _cpu(contender)
        seconds = length.seconds / 2
        done = transfer(
            contender.door(way), HUGE, up=up, seconds=seconds, authority=contender.world.authority
        )
        spent = _cpu(contender) - before
        figures = {"bytes": done.requests * HUGE / done.seconds / 1e6}
        if contender.process is not None:
            figures["cpu"] = spent / (done.requests * HUGE / 1e9)
        return figures

    return run


def _started(contender: Contender, _length: Length) -> Figures:
    """Its start is timed by whoever starts it anew; its memory is what it has then, and under each load."""
    process = contender.process
    assert process is not None
    figures = {"idle": process.memory()}
    authority: Path = contender.world.authority
    closed(contender.door("plain"), Load(), 1, authority)
    figures["loaded"] = process.memory()
    with streams(contender.door("events"), 256, authority):
        figures["streams"] = process.memory()
    return figures


def _cpu(contender: Contender) -> float:
    return 0.0 if contender.process is None else contender.process.cpu()


_POST = Load("/take", "POST", 1024)
_DOWN = Load(f"/bytes/{MEGA}", connections=8)
_UP = Load("/take", "POST", MEGA, connections=8)

MEASURES: Sequence[Measure] = (
    Measure("start", "start and memory", _started, fresh=True),
    Measure("get1", "small GET, 1 connection", _closed(Load(connections=1))),
    Measure("get32", "small GET, 32 connections", _closed(Load())),
    Measure("get256", "small GET, 256 connections", _closed(Load(connections=256))),
    Measure("tls32", "small GET, TLS upstream, 32 connections", _closed(Load(), "tls")),
    Measure("post32", "POST of 1 KB, 32 connections", _closed(_POST)),
    Measure("pace", "500 small GETs/s", _paced("plain")),
    Measure("tlspace", "500 small GETs/s, TLS upstream", _paced("tls")),
    Measure("down", "1 MB down, 8 connections", _closed(_DOWN)),
    Measure("up", "1 MB up, 8 connections", _closed(_UP)),
    Measure("tlsdown", "1 MB down, TLS upstream, 8 connections", _closed(_DOWN, "tls")),
    Measure("tlsup", "1 MB up, TLS upstream, 8 connections", _closed(_UP, "tls")),
    Measure("bulkdown", "100 MB down, 1 connection", _transfer("plain", up=False)),
    Measure("bulkup", "100 MB up, 1 connection", _transfer("plain", up=True)),
    Measure("tlsbulkdown", "100 MB down, TLS upstream, 1 connection", _transfer("tls", up=False)),
    Measure("tlsbulkup", "100 MB up, TLS upstream, 1 connection", _transfer("tls", up=True)),
)
