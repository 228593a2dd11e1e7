"""The report of a rehearsal as Markdown, to be attached to a launch review."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from authproxy.rehearsal.playing import Result

_HOW = (
    "A real proxy was driven through real HTTP against a provider that misbehaves on purpose. Token calls and refresh "
    "tokens spent twice are counted by the provider, not by the proxy."
)
_SURVIVED = (
    "*Grants that survived* counts users who were never asked to consent again; *by consent* those who were, and came "
    "back."
)


def markdown(results: Sequence[Result], environment: Mapping[str, str], *, at: datetime, calls: int) -> str:
    """The whole page."""
    played = [one for one in results if not one.skipped]
    broken = [one for one in played if one.broken]
    kept = sum(one.kept for result in played for one in result.promises)
    total = sum(len(result.promises) for result in played)
    verdict = (
        f"**{len(broken)} of {len(played)} scenes did not go as promised**: "
        + ", ".join(one.scene.name for one in broken)
        if broken
        else f"**All {len(played)} scenes went as promised**"
    )
    facts = {"date": at.strftime("%Y-%m-%d %H:%M:%SZ"), **environment, "calls at once": str(calls)}
    lines = [
        "# Rehearsal of the production failures",
        "",
        f"{verdict} ({kept} of {total} promises kept).",
        "",
        _HOW,
        "",
        *_rows(("", ""), facts.items()),
        "",
        "## What broke, what the agents saw, what survived",
        "",
        *_rows(
            (
                "scene",
                "what broke",
                "agents saw",
                "token calls",
                "spent twice",
                "grants that survived",
                "verdict",
            ),
            [row(one) for one in results],
        ),
        "",
        _SURVIVED,
    ]
    for result in results:
        lines += ["", f"## {result.scene.name}", "", *_scene(result)]
    return "\n".join(lines) + "\n"


def row(result: Result) -> tuple[str, ...]:
    """One scene in the table, here and on the terminal."""
    if result.skipped:
        return (
            result.scene.name,
            result.scene.broke,
            f"not played: {result.skipped}",
            "-",
            "-",
            "-",
            "skipped",
        )
    saw = ", ".join(f"{count} {words}" for words, count in result.saw.items())
    return (
        result.scene.name,
        result.scene.broke,
        saw or "no calls",
        str(result.token_calls),
        str(result.double_spends),
        result.survived,
        result.verdict,
    )


def _scene(result: Result) -> list[str]:
    scene = result.scene
    lines = [f"What was broken: {scene.broke}.", ""]
    if result.skipped:
        return [*lines, f"Not played: {result.skipped}."]
    waits = "none" if result.retry_after is None else f"{result.retry_after:g} s"
    facts = {
        "calls": str(result.calls),
        **{f"… {words}": str(count) for words, count in result.saw.items()},
        "refusal codes": _counts(result.codes),
        "reasons given": ", ".join(result.reasons) or "none",
        "longest Retry-After": waits,
        "token calls": str(result.token_calls),
        "double spends": str(result.double_spends),
        "connections afterwards": _counts(result.states),
        "grants that survived": result.survived,
        "took": f"{result.seconds:.1f} s",
    }
    lines += _rows(("", ""), facts.items())
    marks = [("kept" if one.kept else "**broken**", one.text, one.found) for one in result.promises]
    lines += ["", *_rows(("", "promise", "found"), marks), ""]
    return [*lines, f"What it means for your users: {scene.means}", "", f"What to do: {scene.do}"]


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items()) or "none"


def _rows(names: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    body = [[_cell(cell) for cell in one] for one in rows]
    return [_line(names), _line(["---"] * len(names)), *(_line(one) for one in body)]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(text: str) -> str:
    """A cell cannot end its table, nor say anything in Markdown of its own."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")
