"""The results as a page of Markdown: tables of medians with their spread, ratios, and the goals."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from bench.contenders import ALL
from bench.measures import MEASURES
from bench.results import Results, median, over

_NAMES = [kind.name for kind in ALL]
_PROXIES = [name for name in _NAMES if name != "direct"]
_PEERS = [name for name in _PROXIES if name != "authproxy"]
_SAYS = {measure.name: measure.says for measure in MEASURES}
_SMALL = ("get1", "get32", "get256", "tls32", "post32")
_MEGA = ("down", "up", "tlsdown", "tlsup")
_BULK = ("bulkdown", "bulkup", "tlsbulkdown", "tlsbulkup")
_CPU_GOALS = {"envoy": 1.0, "nginx": 3.0, "naive": 0.4, "mitmproxy": 0.06}
_GROWTH = 1.10
_HOW = (
    "{rounds} rounds of {seconds} s each, the contenders in turn within each round (A B C A B C). Cells are medians, "
    "with the smallest and largest round in brackets. Load, upstream and proxies share the machine, so the CPU of a "
    "proxy's own processes (user and system, from the kernel's accounting) is the robust figure; requests/s depends "
    "on what else ran. Ratios are medians of the ratios within each round."
)


class Goal(NamedTuple):
    """What was aimed at: the figure must be at most (or at least) the bound."""

    says: str
    figure: float | None
    bound: float
    unit: str = "x"
    least: bool = False

    @property
    def met(self) -> bool | None:
        if self.figure is None:
            return None
        return self.figure >= self.bound if self.least else self.figure <= self.bound


def goals(results: Results) -> list[Goal]:
    """All goals with what was measured."""
    found = []
    for measure in _SMALL:
        for peer, bound in _CPU_GOALS.items():
            found.append(Goal(f"CPU, {_SAYS[measure]}: {peer}", results.ratio(measure, "cpu", peer), bound))
    for measure in ("pace", "tlspace"):
        for name, bound in (("p50", 1.0), ("p99", 1.5)):
            ours, theirs = (median(results.added(measure, who, name)) for who in ("authproxy", "envoy"))
            figure = None if ours is None or not theirs else ours / theirs
            found.append(Goal(f"{name} added, {_SAYS[measure]}: envoy", figure, bound))
    for measure in (*_MEGA, *_BULK):
        name = "bytes" if measure in _BULK else "rate"
        figure = results.ratio(measure, name, "envoy")
        found.append(Goal(f"bytes/s, {_SAYS[measure]}: envoy", figure, 1.0, least=True))
    for name, says, bound in (
        ("idle", "idle", 60),
        ("loaded", "after 32 connections", 80),
        ("streams", "with 256 open streams", 80),
    ):
        figure = median(results.values("start", "authproxy", name))
        found.append(Goal(f"memory {says}", figure, bound, " MB"))
    base, *others = results.grown.items() or [("", [])]
    found += [Goal(f"growth, CPU: {name}", over(values, base[1]), _GROWTH) for name, values in others[:3]]
    return found


def page(results: Results) -> str:
    """The whole page."""
    parts = [
        "# Results",
        "Made by `python -m bench`; the figures of every round are in `results.json`.",
        _bullets(f"{name}: {value}" for name, value in results.facts.items()),
        _HOW.format(rounds=results.rounds, seconds=results.seconds),
        "## Contenders",
        _bullets(
            f"**{kind.name}**: {kind.says}"
            + (f" (absent: {results.absent[kind.name]})" if kind.name in results.absent else "")
            for kind in ALL
        ),
        "## Goals",
        _goals(goals(results)),
        "## CPU seconds per 1,000 requests",
        _table(_SMALL + _MEGA, _PROXIES, lambda m, who: _cell(results.values(m, who, "cpu"), 3)),
        "## authproxy's CPU over others'",
        _table(_SMALL + _MEGA, _PEERS, lambda m, who: _times(results.ratio(m, "cpu", who))),
        "## Requests/s",
        _table(_SMALL + _MEGA, _NAMES, lambda m, who: _cell(results.values(m, who, "rate"), 0)),
        "## Requests/s that one core would carry",
        _table(
            _SMALL,
            _PROXIES,
            lambda m, who: _cell([1000 / cpu for cpu in results.values(m, who, "cpu") if cpu], 0),
        ),
        "## Time added to a direct call, ms",
        _rows(
            ["at a fixed rate, open loop", *_PROXIES],
            [
                [f"{_SAYS[measure]}: {name}"]
                + [_cell(results.added(measure, who, name), 2) for who in _PROXIES]
                for measure in ("pace", "tlspace")
                for name in ("p50", "p99")
            ],
        ),
        "## Large bodies, MB/s",
        _table(_BULK, _NAMES, lambda m, who: _cell(results.values(m, who, "bytes"), 0)),
        "## Large bodies, CPU seconds per GB",
        _table(_BULK, _PROXIES, lambda m, who: _cell(results.values(m, who, "cpu"), 2)),
        "## Start and memory",
        _rows(
            ["", *_PROXIES],
            [
                [says, *(_cell(results.values("start", who, name), digits) for who in _PROXIES)]
                for name, says, digits in (
                    ("start", "seconds to the first answer", 2),
                    ("idle", "MB resident, idle", 0),
                    ("loaded", "MB resident, after 32 connections", 0),
                    ("streams", "MB resident, 256 open event streams", 0),
                )
            ],
        ),
        "## What grows (CPU seconds per 1,000 requests, 32 connections)",
        _grown(results),
    ]
    if results.faults:
        parts += ["## What could not be measured", _bullets(results.faults)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _goals(found: Sequence[Goal]) -> str:
    words = {True: "met", False: "**missed**", None: "not measured"}
    return _rows(
        ["goal", "measured", "bound", ""],
        [
            [
                goal.says,
                "-" if goal.figure is None else f"{goal.figure:.2f}{goal.unit}",
                f"{'≥' if goal.least else '≤'} {goal.bound:g}{goal.unit}",
                words[goal.met],
            ]
            for goal in found
        ],
    )


def _grown(results: Results) -> str:
    if not results.grown:
        return "Not measured."
    base = next(iter(results.grown.values()))
    rows = [[name, _cell(values, 3), _times(over(values, base))] for name, values in results.grown.items()]
    return _rows(["", "CPU", "over the first"], rows)


def _table(measures: Iterable[str], names: Sequence[str], cell: Callable[[str, str], str]) -> str:
    return _rows(
        ["", *names], [[_SAYS[measure], *(cell(measure, name) for name in names)] for measure in measures]
    )


def _rows(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _bullets(lines: Iterable[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _cell(values: list[float], digits: int) -> str:
    middle = median(values)
    if middle is None:
        return "-"
    if len(values) == 1:
        return f"{middle:.{digits}f}"
    return f"{middle:.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def _times(ratio: float | None) -> str:
    return "-" if ratio is None else f"{ratio:.2f}x"
