"""Salesforce's records of any type: searched, created, changed."""

from __future__ import annotations

from authproxy.tools.kits import salesforce_shapes as shapes
from authproxy.tools.kits import salesforce_soql as soql
from authproxy.tools.kits.salesforce_org import API, chosen, paged, query, values
from authproxy.tools.tool import Call, Json, Kind, ToolError, bad_input


def given(call: Call, *parameters: str, names: dict[str, str] | None = None) -> dict[str, Json]:
    """The arguments that are given, by their fields: `first_name` is FirstName. An empty text empties a field."""
    known = names or {}
    return {
        known.get(one) or "".join(part.capitalize() for part in one.split("_")): call.input[one]
        for one in parameters
        if call.get(one) is not None
    }


async def create(call: Call, kind: str, fields: dict[str, Json]) -> Json:
    """A new record of the type `kind`; Salesforce refuses with a failure of its own what it does not take."""
    answer = (await call.api.call("POST", f"{API}/sobjects/{kind}", json=fields)).json
    identifier = shapes.at(answer, "id")
    if shapes.at(answer, "success") is False or not isinstance(identifier, str):
        raise ToolError(
            Kind.BAD_OUTPUT, f"Salesforce did not tell the id of the {kind}: look whether it was created."
        )
    return {"created": True, "type": kind, "id": identifier}


async def update(call: Call, kind: str, identifier: str, fields: dict[str, Json]) -> dict[str, Json]:
    """Change the fields of a record. `kind` and `identifier` stand in the path: both must have been checked."""
    if not fields:
        raise bad_input("Nothing to change: give at least one field.")
    await call.api.call("PATCH", f"{API}/sobjects/{kind}/{identifier}", json=fields)
    return {"updated": True, "type": kind, "id": identifier, "fields": sorted(fields)}


async def search(
    call: Call,
    page: soql.Page,
    key: str,
    fields: shapes.Fields,
    source: str,
    *conditions: str | None,
    order: str,
) -> dict[str, Json]:
    """A page of records under `key`; the id ends the order, so that no record stands on two pages."""
    text = soql.select(shapes.columns(fields), source, *conditions, order=f"{order}, Id", end=page.clause)
    found, told = paged(await query(call, text), page)
    return {key: [shapes.shape(one, fields) for one in found], **told}


async def unless_unknown(
    call: Call, told: dict[str, Json], key: str, parameter: str, listing: str, condition: str
) -> dict[str, Json]:
    """The result; but where a filter has found nothing because the org has no such value, that is said instead."""
    given = call.get(parameter)
    if given and not told[key]:
        chosen(given, parameter, await values(call, listing, condition))
    return told
