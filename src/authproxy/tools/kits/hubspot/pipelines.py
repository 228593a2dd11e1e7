"""Deal pipelines and their stages: read, and found by id or by label."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from authproxy.tools.kits.hubspot.asking import get, refused, results
from authproxy.tools.kits.hubspot.shaping import cut
from authproxy.tools.tool import Call, Json, Kind, ToolError

Named = TypeVar("Named", "Pipeline", "Stage")

MOST_PIPELINES: Final = 30
CHOICES: Final = 20


@dataclass(frozen=True, slots=True)
class Stage:
    """A stage of a pipeline; `probability` of winning, from 0 to 1."""

    id: str
    label: str
    probability: float | None
    closed: bool


@dataclass(frozen=True, slots=True)
class Pipeline:
    """A pipeline with its stages in their order."""

    id: str
    label: str
    stages: tuple[Stage, ...]


async def read_pipelines(call: Call) -> list[Pipeline]:
    """The account's deal pipelines in their order. Raises ToolError."""
    found = await get(call, "/crm/v3/pipelines/deals")
    rows = [row for row in results(found) if not row.get("archived")]
    return [_pipeline(row) for row in sorted(rows, key=_order)]


def _pipeline(row: dict[str, Any]) -> Pipeline:
    stages = [stage for stage in row.get("stages") or () if not stage.get("archived")]
    return Pipeline(
        str(row.get("id")),
        str(row.get("label", "")),
        tuple(_stage(stage) for stage in sorted(stages, key=_order)),
    )


def _stage(row: dict[str, Any]) -> Stage:
    metadata = row.get("metadata") or {}
    try:
        probability = float(metadata["probability"])
    except (KeyError, TypeError, ValueError):
        probability = None
    return Stage(
        str(row.get("id")),
        str(row.get("label", "")),
        probability,
        str(metadata.get("isClosed", "")).lower() == "true",
    )


def _order(row: dict[str, Any]) -> tuple[int, str]:
    order = row.get("displayOrder")
    return (order if isinstance(order, int) else 0, str(row.get("label", "")))


def shown_pipeline(pipeline: Pipeline) -> dict[str, Json]:
    """A pipeline as an answer has it."""
    return {
        "id": pipeline.id,
        "label": pipeline.label,
        "stages": [shown_stage(one) for one in pipeline.stages],
    }


def shown_stage(stage: Stage) -> dict[str, Json]:
    """A stage as an answer has it."""
    shown: dict[str, Json] = {"id": stage.id, "label": stage.label}
    if stage.probability is not None:
        shown["probability"] = stage.probability
    if stage.closed:
        shown["closed"] = True
    return shown


async def put_labels(call: Call, deals: Sequence[dict[str, Json]], *, tolerant: bool = False) -> None:
    """Put the labels of pipeline and stage to deals, whose ids alone say little.

    Without them where pipelines may not be read, and with `tolerant` where reading them fails in any way.
    """
    if not any("deal_stage" in deal for deal in deals):
        return
    try:
        pipelines = {pipeline.id: pipeline for pipeline in await read_pipelines(call)}
    except ToolError as error:
        if not tolerant and not refused(error):
            raise
        return
    for deal in deals:
        pipeline = pipelines.get(str(deal.get("pipeline_id")))
        stages = {stage.id: stage for stage in pipeline.stages} if pipeline else {}
        stage = stages.get(str(deal.get("deal_stage")))
        if pipeline:
            deal["pipeline_label"] = pipeline.label
        if stage:
            deal["deal_stage_label"] = stage.label


def choose_pipeline(pipelines: Sequence[Pipeline], wanted: str | None) -> Pipeline:
    """The pipeline of this id or label; without one, or for `default`, the account's default pipeline.

    Raises RETRY with the choices.
    """
    if not pipelines:
        raise ToolError(Kind.FATAL, "This HubSpot account has no deal pipeline.")
    if wanted is None or wanted.strip().lower() == "default":
        return next((one for one in pipelines if one.id == "default"), pipelines[0])
    matches = _matching(pipelines, wanted)
    if len(matches) == 1:
        return matches[0]
    raise _unclear("deal pipeline", wanted, matches or pipelines)


def stages_named(pipeline: Pipeline, wanted: str) -> list[Stage]:
    """The stages of this id or label: none, one, or several of the same label."""
    return _matching(pipeline.stages, wanted)


def choose_stage(pipeline: Pipeline, wanted: str) -> Stage:
    """The stage of this id or label in the pipeline. Raises RETRY with the choices."""
    matches = stages_named(pipeline, wanted)
    if len(matches) == 1:
        return matches[0]
    raise _unclear(f"stage of pipeline {named(pipeline)}", wanted, matches or pipeline.stages)


def choose_anywhere(
    pipelines: Iterable[Pipeline], wanted: str, first: Pipeline | None = None
) -> tuple[Pipeline, Stage]:
    """The stage of this id or label: in the pipeline `first` if it is there, else in the only other that has it.

    Raises RETRY with the choices.
    """
    within = stages_named(first, wanted) if first else []
    if first and len(within) == 1:
        return first, within[0]
    others = [(pipeline, stage) for pipeline in pipelines for stage in stages_named(pipeline, wanted)]
    exact = [pair for pair in others if pair[1].id == wanted.strip()]
    found = exact or others
    if len(found) == 1:
        return found[0]
    if found:
        choices = "; ".join(
            f"{named(stage)} in pipeline {named(pipeline)}" for pipeline, stage in found[:CHOICES]
        )
        raise ToolError(
            Kind.RETRY,
            f"Several pipelines have a stage {cut(wanted, 60)}: say which by its id.",
            hint=f"Stages: {choices}",
            can_retry=True,
        )
    stages = first.stages if first else [stage for pipeline in pipelines for stage in pipeline.stages]
    raise _unclear("deal stage", wanted, stages)


def named(one: Pipeline | Stage) -> str:
    """Id and label in one."""
    return f"{one.id} ({one.label})" if one.label and one.label != one.id else one.id


def _matching(choices: Sequence[Named], wanted: str) -> list[Named]:
    """By id; else by label; else by either without regard to case, spaces and punctuation."""
    wanted = wanted.strip()
    by_id = [one for one in choices if one.id == wanted]
    by_label = [one for one in choices if one.label == wanted]
    loosely = [one for one in choices if _loose(wanted) in (_loose(one.id), _loose(one.label))]
    return by_id or by_label or (loosely if _loose(wanted) else [])


def _loose(text: str) -> str:
    return "".join(letter for letter in text.casefold() if letter.isalnum())


def _unclear(what: str, wanted: str, choices: Sequence[Pipeline | Stage]) -> ToolError:
    near = set(difflib.get_close_matches(_loose(wanted), [_loose(one.label) for one in choices], cutoff=0.5))
    ordered = sorted(choices, key=lambda one: _loose(one.label) not in near)
    return ToolError(
        Kind.RETRY,
        f"There is no one {what} called {cut(wanted, 60)}.",
        hint="Choose by id: " + "; ".join(named(one) for one in ordered[:CHOICES]),
        can_retry=True,
    )
