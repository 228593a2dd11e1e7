"""Accounts and opportunities with what hangs on them: a few of each kind, in as few queries as the org allows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from authproxy.tools.kits import salesforce_shapes as shapes
from authproxy.tools.kits import salesforce_soql as soql
from authproxy.tools.kits.salesforce_org import below, query
from authproxy.tools.tool import Call, Json, ToolError

MOST_OF_EACH = 10
_REFUSED = (400, 403)  # an object or field that the org does not have, or the user may not see

_MOST_NAME = 200  # bytes of a company's name that leads are looked for by: ten of them stand in one URL
_CONTENT_NOTES = "content_notes"


@dataclass(frozen=True, slots=True)
class Part:
    """One kind of what hangs on a record: a sub-query of its own."""

    key: str
    relationship: str
    fields: shapes.Fields
    condition: str | None = None
    order: str = "LastModifiedDate DESC"

    @property
    def query(self) -> str:
        columns = shapes.columns(self.fields)
        end = f"LIMIT {MOST_OF_EACH}"
        return f"({soql.select(columns, self.relationship, self.condition, order=self.order, end=end)})"


_NOTES = Part("notes", "Notes", shapes.NOTE)
_LINKED_NOTES = Part(
    _CONTENT_NOTES,
    "ContentDocumentLinks",
    {"id": "ContentDocumentId"},
    "ContentDocument.FileType = 'SNOTE'",
    "SystemModstamp DESC",
)
ACCOUNT_PARTS = (
    Part("contacts", "Contacts", shapes.CONTACT),
    Part("opportunities", "Opportunities", shapes.OPPORTUNITY),
    Part("tasks", "Tasks", shapes.TASK, "TaskSubtype != 'Call' AND TaskSubtype != 'Email'"),
    Part("calls", "Tasks", shapes.CALL, "TaskSubtype = 'Call'"),
    Part("events", "Events", shapes.EVENT, order="StartDateTime DESC"),
    Part("emails", "Emails", shapes.EMAIL, order="MessageDate DESC"),
    _NOTES,
    _LINKED_NOTES,
)
OPPORTUNITY_PARTS = (
    Part("contact_roles", "OpportunityContactRoles", shapes.CONTACT_ROLE, order="IsPrimary DESC"),
    Part("line_items", "OpportunityLineItems", shapes.LINE_ITEM, order="SortOrder"),
    Part("open_tasks", "Tasks", shapes.TASK, "IsClosed = false", "ActivityDate ASC NULLS LAST"),
    _NOTES,
    _LINKED_NOTES,
)


@dataclass(slots=True)
class Gathered:
    """The records by their ids, shaped, and the kinds that the org did not give."""

    told: dict[str, dict[str, Json]]
    unavailable: list[str]


async def gather(
    call: Call, parent: str, fields: shapes.Fields, ids: Sequence[str], parts: Sequence[Part]
) -> Gathered:
    """The records of `parent` with these ids and their parts.

    One query asks for all parts whose relationships differ. An org that does not know one of them, or does not show
    it to this user, refuses the whole query: then the record is asked for alone, and each part by itself.
    """
    gathered = Gathered({}, [])
    first = _distinct(parts)
    try:
        _take(gathered, await _ask(call, parent, fields, ids, first), fields, first)
        rest = [[part] for part in parts if part not in first]
    except ToolError as failure:
        if failure.status not in _REFUSED:
            raise
        _take(gathered, await _ask(call, parent, fields, ids, []), fields, [])
        rest = [[part] for part in parts]
    for group in rest if gathered.told else ():
        try:
            _take(gathered, await _ask(call, parent, {"id": "Id"}, ids, group), {}, group)
        except ToolError as failure:
            if failure.status not in _REFUSED:
                raise
            gathered.unavailable += [part.key for part in group]
    await _content_notes(call, gathered)
    return gathered


def _distinct(parts: Iterable[Part]) -> list[Part]:
    """Parts that one query can hold: a relationship may stand in it once."""
    return list({part.relationship: part for part in reversed(tuple(parts))}.values())[::-1]


async def _ask(
    call: Call, parent: str, fields: shapes.Fields, ids: Sequence[str], parts: Sequence[Part]
) -> list[dict[str, Any]]:
    wanted = ", ".join([shapes.columns(fields), *(part.query for part in parts)])
    return await query(
        call, soql.select(wanted, parent, f"Id IN {soql.any_of(ids)}", end=f"LIMIT {len(ids)}")
    )


def _take(
    gathered: Gathered, found: list[dict[str, Any]], fields: shapes.Fields, parts: Iterable[Part]
) -> None:
    for one in found:
        told = gathered.told.setdefault(str(one.get("Id")), {})
        told |= shapes.shape(one, fields)
        for part in parts:
            children = below(one.get(part.relationship))[:MOST_OF_EACH]
            told[part.key] = [shapes.shape(child, part.fields) for child in children]


async def _content_notes(call: Call, gathered: Gathered) -> None:
    """Puts the texts of the newer kind of notes beside the older ones; they are linked as documents."""
    links = {
        identifier: [str(one.get("id")) for one in told.pop(_CONTENT_NOTES, [])]
        for identifier, told in gathered.told.items()
    }
    if _CONTENT_NOTES in gathered.unavailable:
        gathered.unavailable.remove(_CONTENT_NOTES)  # most orgs have one kind of notes only
    wanted = [one for ids in links.values() for one in ids if soql.is_id(one)]
    if not wanted:
        return
    try:
        columns, among = shapes.columns(shapes.CONTENT_NOTE), f"Id IN {soql.any_of(wanted)}"
        found = await query(call, soql.select(columns, "ContentNote", among, end=f"LIMIT {len(wanted)}"))
    except ToolError as failure:
        if failure.status not in _REFUSED:
            raise
        return
    notes = {str(one.get("Id")): shapes.shape(one, shapes.CONTENT_NOTE) for one in found}
    for identifier, told in gathered.told.items():
        mine = [notes[one] for one in links[identifier] if one in notes]
        told["notes"] = [*told.get("notes", []), *mine][:MOST_OF_EACH]


async def leads(call: Call, gathered: Gathered) -> None:
    """Adds to each account its leads: those that became it, and open ones of a company of its name."""
    if not gathered.told:
        return
    names = {
        str(told["name"]).casefold(): told
        for told in gathered.told.values()
        if told.get("name") and len(str(told["name"]).encode()) <= _MOST_NAME
    }
    condition = f"ConvertedAccountId IN {soql.any_of(gathered.told)}"
    if names:
        condition = f"({condition} OR Company IN {soql.any_of(str(told['name']) for told in names.values())})"
    try:
        found = await query(
            call,
            soql.select(
                f"{shapes.columns(shapes.LEAD)}, IsConverted, ConvertedAccountId",
                "Lead",
                condition,
                order="LastModifiedDate DESC",
                end=f"LIMIT {MOST_OF_EACH * len(gathered.told)}",
            ),
        )
    except ToolError as failure:
        if failure.status not in _REFUSED:
            raise
        gathered.unavailable.append("leads")
        return
    for told in gathered.told.values():
        told["leads"] = []
    for one in found:
        account = gathered.told.get(str(one.get("ConvertedAccountId"))) or names.get(
            str(one.get("Company", "")).casefold()
        )
        if account is not None and len(account["leads"]) < MOST_OF_EACH:
            account["leads"].append(
                shapes.shape(one, shapes.LEAD) | ({"is_converted": True} if one.get("IsConverted") else {})
            )
