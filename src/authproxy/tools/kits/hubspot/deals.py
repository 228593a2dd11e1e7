"""The tools that make and change deals, and those that show their pipelines."""

from __future__ import annotations

from typing import Final

from authproxy.tools.kits.hubspot.asking import refused, send
from authproxy.tools.kits.hubspot.finding import meant, read
from authproxy.tools.kits.hubspot.objects import CONTACTS, DEALS, association
from authproxy.tools.kits.hubspot.owners import owner_id
from authproxy.tools.kits.hubspot.pipelines import (
    MOST_PIPELINES,
    Pipeline,
    Stage,
    choose_anywhere,
    choose_pipeline,
    choose_stage,
    named,
    put_labels,
    read_pipelines,
    shown_pipeline,
    shown_stage,
    stages_named,
)
from authproxy.tools.kits.hubspot.reading import one_deal
from authproxy.tools.kits.hubspot.records import patch
from authproxy.tools.kits.hubspot.shaping import cut, full, written
from authproxy.tools.kits.hubspot.times import closing
from authproxy.tools.tool import Call, Json, Kind, ToolError, bad_input

PLACED: Final = frozenset({"pipeline", "dealstage"})
USUAL: Final = {
    "dealtype": frozenset({"newbusiness", "existingbusiness"}),
    "hs_priority": frozenset({"low", "medium", "high"}),
}
"""The options that every account has, in whatever spelling; an account's own ones are sent as they are given."""


async def create_deal(call: Call) -> Json:
    """Make a deal, in the first stage of the pipeline unless told otherwise."""
    properties = await _properties(call)
    properties |= await _place(call)
    made = await send(call, "POST", "/crm/v3/objects/deals", {"properties": properties})
    deal = full(made, DEALS)
    return {"deal": deal, "created": True}


async def update_deal(call: Call) -> Json:
    """Change a deal that is named by id, or found by keywords; its stage within its pipeline."""
    properties = await _properties(call)
    stage = call.get("deal_stage")
    if not properties and stage is None:
        raise bad_input("Nothing to change: give a new value besides deal_id or keywords.")
    one = await meant(call, DEALS)
    if stage is not None:
        properties["dealstage"] = (await _stage(call, int(one), stage)).id
    return await patch(call, DEALS, one, properties)


async def update_deal_close_date(call: Call) -> Json:
    """Set the day a deal is expected to close."""
    closes = closing(call.input["expected_close_date"], "expected_close_date")
    return await _changed(call, {"closedate": closes})


async def update_deal_stage(call: Call) -> Json:
    """Move a deal to a stage, and to another pipeline only where that is allowed."""
    one = int(call.input["deal_id"])
    wanted = call.input["deal_stage"]
    pipelines = await read_pipelines(call)
    current = choose_pipeline(pipelines, call.get("current_pipeline_id") or await _pipeline_of(call, one))
    if stages_named(current, wanted) or not any(stages_named(other, wanted) for other in pipelines):
        return await _changed(call, {"dealstage": choose_stage(current, wanted).id})
    pipeline, stage = choose_anywhere(pipelines, wanted)
    if not call.get("allow_pipeline_change"):
        raise ToolError(
            Kind.RETRY,
            f"Stage {named(stage)} is of pipeline {named(pipeline)}, and the deal is in {named(current)}.",
            hint=f"Set allow_pipeline_change to move the deal to that pipeline, or choose a stage of its own: "
            f"{'; '.join(named(own) for own in current.stages[:20])}",
            can_retry=True,
        )
    return await _changed(call, {"pipeline": pipeline.id, "dealstage": stage.id})


async def get_deal_pipelines(call: Call) -> Json:
    """Pipelines with their stages, at most 30."""
    sought = (call.get("search") or "").strip().casefold()
    found = [
        one
        for one in await read_pipelines(call)
        if sought in one.id.casefold() or sought in one.label.casefold()
    ]
    answer: dict[str, Json] = {
        "pipelines": [shown_pipeline(one) for one in found[:MOST_PIPELINES]],
        "count": len(found),
    }
    if len(found) > MOST_PIPELINES:
        answer["note"] = f"Only the first {MOST_PIPELINES} are shown: narrow it down with search."
    return answer


async def get_deal_pipeline_stages(call: Call) -> Json:
    """The stages of a pipeline that is named by id or label."""
    pipeline = choose_pipeline(await read_pipelines(call), call.input["pipeline_id"])
    return {
        "pipeline_id": pipeline.id,
        "pipeline_label": pipeline.label,
        "stages": [shown_stage(stage) for stage in pipeline.stages],
    }


async def associate_contact_to_deal(call: Call) -> Json:
    """Put a contact to a deal."""
    deal, contact = int(call.input["deal_id"]), int(call.input["contact_id"])
    path = f"/crm/v4/objects/deals/{deal}/associations/contacts/{contact}"
    await send(call, "PUT", path, association(DEALS, CONTACTS))
    return {"associated": True, "deal_id": deal, "contact_id": contact}


async def _properties(call: Call) -> dict[str, str]:
    """The arguments that CreateDeal and UpdateDeal have in common, without the place in a pipeline."""
    properties = {name: value for name, value in written(DEALS, call.input).items() if name not in PLACED}
    for name, usual in USUAL.items():
        alike = "".join(properties.get(name, "").lower().split())
        if alike in usual:
            properties[name] = alike
    if call.get("expected_close_date") is not None:
        properties["closedate"] = closing(call.input["expected_close_date"], "expected_close_date")
    if call.get("deal_owner") is not None:
        properties["hubspot_owner_id"] = await owner_id(call, call.input["deal_owner"], "deal_owner")
    return properties


async def _place(call: Call) -> dict[str, str]:
    """Where a new deal goes: pipeline and stage as HubSpot's ids."""
    wanted, stage = call.get("pipeline_id"), call.get("deal_stage")
    try:
        pipelines = await read_pipelines(call)
    except ToolError as error:
        if not refused(error):
            raise
        # Pipelines may not be read here: what was given may well be ids, and HubSpot says so if it is not.
        return {name: one for name, one in (("pipeline", wanted), ("dealstage", stage)) if one is not None}
    pipeline = choose_pipeline(pipelines, wanted)
    if stage is None:
        if not pipeline.stages:
            raise ToolError(Kind.FATAL, f"The pipeline {named(pipeline)} has no stage.")
        return _placed(pipeline, pipeline.stages[0])
    if wanted is not None:
        return _placed(pipeline, choose_stage(pipeline, stage))
    return _placed(*choose_anywhere(pipelines, stage, pipeline))


def _placed(pipeline: Pipeline, stage: Stage) -> dict[str, str]:
    return {"pipeline": pipeline.id, "dealstage": stage.id}


async def _stage(call: Call, one: int, wanted: str) -> Stage:
    """The stage that is meant, of the pipeline that the deal is in."""
    pipelines = await read_pipelines(call)
    current = choose_pipeline(pipelines, await _pipeline_of(call, one))
    elsewhere = any(stages_named(other, wanted) for other in pipelines if other is not current)
    if elsewhere and not stages_named(current, wanted):
        raise ToolError(
            Kind.RETRY,
            f"Pipeline {named(current)}, which the deal is in, has no stage {cut(wanted, 60)}; another one has.",
            hint="Hubspot.UpdateDealStage with allow_pipeline_change moves a deal to another pipeline.",
            can_retry=True,
        )
    return choose_stage(current, wanted)


async def _pipeline_of(call: Call, one: int) -> str | None:
    properties = (await read(call, DEALS, one, ["pipeline"])).get("properties")
    pipeline = properties.get("pipeline") if isinstance(properties, dict) else None
    return str(pipeline) if pipeline else None


async def _changed(call: Call, properties: dict[str, str]) -> Json:
    """Change the deal and show it whole. What fails after the change does not hide that it was made."""
    one = int(call.input["deal_id"])
    path = f"/crm/v3/objects/deals/{one}"
    changed = full(await send(call, "PATCH", path, {"properties": properties}), DEALS)
    try:
        changed = full(await read(call, DEALS, one), DEALS)
    except ToolError:
        await put_labels(call, [changed], tolerant=True)
        return {"deal": changed, "updated": True, "not_available": ["the rest of the deal"]}
    return await one_deal(call, changed, tolerant=True) | {"updated": True}
