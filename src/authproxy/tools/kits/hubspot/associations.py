"""The objects that are associated with records: which they are, and the few properties of each that are shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

from authproxy.tools.kits.hubspot.asking import refused, results, send, together
from authproxy.tools.kits.hubspot.objects import ObjectType
from authproxy.tools.kits.hubspot.shaping import BRIEF, number, shape
from authproxy.tools.tool import Call, Json, ToolError

BATCH: Final = 100
"""Objects that HubSpot reads in one request."""

MOST: Final = 300
"""Objects of one type that are read for one answer; further ones are shown with their id only."""


@dataclass(slots=True)
class Linked:
    """The objects of one type that are associated with each record, by the record's id."""

    kind: ObjectType
    shown: dict[str, list[Json]] = field(default_factory=dict)
    more: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Link:
    id: str
    labels: tuple[str, ...]


async def associate(
    call: Call,
    kind: ObjectType,
    shaped: Sequence[dict[str, Json]],
    others: Sequence[ObjectType],
    limit: int,
    *,
    tolerant: bool = False,
) -> list[str]:
    """Put what is associated into each of the `shaped` records of type `kind`, at most `limit` of each type.

    Returns the types that could not be read: those that this grant or route may not read, and with `tolerant`
    (after a write that has happened) those that failed in any way. Raises ToolError for other failures.
    """
    ids = [str(one["id"]) for one in shaped]
    if not ids or limit == 0:
        return []
    read = await together([partial(_linked, call, kind, other, ids, limit, tolerant) for other in others])
    for one in shaped:
        _put(one, [linked for linked in read if isinstance(linked, Linked)])
    return [linked for linked in read if isinstance(linked, str)]


def _put(one: dict[str, Json], read: Sequence[Linked]) -> None:
    own = str(one["id"])
    shown = {linked.kind.name: linked.shown[own] for linked in read if own in linked.shown}
    more = {linked.kind.name: linked.more[own] for linked in read if own in linked.more}
    if shown:
        one["associated"] = shown
    if more:
        one["more_associated"] = more


async def _linked(
    call: Call, kind: ObjectType, other: ObjectType, ids: Sequence[str], limit: int, tolerant: bool
) -> Linked | str:
    try:
        return await _read(call, kind, other, ids, limit)
    except ToolError as error:
        if tolerant or refused(error):
            return other.name
        raise


async def _read(call: Call, kind: ObjectType, other: ObjectType, ids: Sequence[str], limit: int) -> Linked:
    path = f"/crm/v4/associations/{kind.name}/{other.name}/batch/read"
    found = await send(call, "POST", path, {"inputs": [{"id": one} for one in ids]})
    links = {str(_of(row.get("from"), "id")): _links(row, other) for row in results(found)}
    kept = {one: link[:limit] for one, link in links.items() if link}
    briefs = await _briefs(call, other, list(dict.fromkeys(link.id for row in kept.values() for link in row)))
    linked = Linked(other)
    for one, row in kept.items():
        linked.shown[one] = [_shown(link, briefs) for link in row]
        if len(links[one]) > limit:
            linked.more[one] = len(links[one]) - limit
    return linked


def _links(row: Mapping[str, Any], other: ObjectType) -> list[_Link]:
    """The associated ids of one record, each once; of activities the newest (the highest ids) first."""
    labels: dict[str, list[str]] = {}
    for target in row.get("to") or ():
        known = labels.setdefault(str(_of(target, "toObjectId")), [])
        types = _of(target, "associationTypes")
        for named in types if isinstance(types, list) else ():
            label = _of(named, "label")
            if isinstance(label, str) and label and label not in known:
                known.append(label)
    links = [_Link(one, tuple(said)) for one, said in labels.items() if one != "None"]
    if other.activity:
        links.sort(key=lambda link: (len(link.id), link.id), reverse=True)
    return links


async def _briefs(call: Call, other: ObjectType, ids: Sequence[str]) -> dict[str, dict[str, Json]]:
    wanted = ids[:MOST]
    briefs: dict[str, dict[str, Json]] = {}
    for start in range(0, len(wanted), BATCH):
        inputs = [{"id": one} for one in wanted[start : start + BATCH]]
        body = {"properties": other.brief_properties, "inputs": inputs}
        # A 207 leaves out what has been deleted meanwhile: it is shown with its id.
        found = await send(call, "POST", f"/crm/v3/objects/{other.name}/batch/read", body)
        briefs |= {str(record.get("id")): shape(record, other.brief, BRIEF) for record in results(found)}
    return briefs


def _shown(link: _Link, briefs: Mapping[str, dict[str, Json]]) -> dict[str, Json]:
    shown = dict(briefs.get(link.id) or {"id": number(link.id)})
    if link.labels:
        shown["labels"] = list(link.labels)
    return shown


def _of(value: object, name: str) -> Any:
    return value.get(name) if isinstance(value, dict) else None
