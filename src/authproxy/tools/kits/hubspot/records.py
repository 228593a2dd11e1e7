"""The tools that make and change companies and contacts."""

from __future__ import annotations

import re

from authproxy.tools.kits.hubspot.asking import send
from authproxy.tools.kits.hubspot.finding import meant, parameter_of
from authproxy.tools.kits.hubspot.industries import industry
from authproxy.tools.kits.hubspot.objects import COMPANIES, CONTACTS, ObjectType, association
from authproxy.tools.kits.hubspot.shaping import full, written
from authproxy.tools.tool import Call, Json, Kind, ToolError, bad_input


async def create_company(call: Call) -> Json:
    """Make a company."""
    properties = await _company(call)
    if not properties["name"].strip():
        raise bad_input("company_name is empty.")
    made = await send(call, "POST", "/crm/v3/objects/companies", {"properties": properties})
    return {"company": full(made, COMPANIES), "created": True}


async def update_company(call: Call) -> Json:
    """Change a company that is named by id, or found by keywords."""
    return await change(call, COMPANIES, await _company(call))


async def create_contact(call: Call) -> Json:
    """Make a contact of a company."""
    properties = written(CONTACTS, call.input)
    company = int(call.input["company_id"])
    body = {
        "properties": properties,
        "associations": [{"to": {"id": str(company)}, "types": association(CONTACTS, COMPANIES)}],
    }
    try:
        made = await send(call, "POST", "/crm/v3/objects/contacts", body)
    except ToolError as error:
        raise _exists(error) from None
    return {"contact": full(made, CONTACTS), "associated_with": {"company_id": company}, "created": True}


async def update_contact(call: Call) -> Json:
    """Change a contact that is named by id, or found by keywords."""
    return await change(call, CONTACTS, written(CONTACTS, call.input))


async def change(call: Call, kind: ObjectType, properties: dict[str, str]) -> dict[str, Json]:
    """Send the changed properties of the record that is meant; the answer of the tool."""
    if not properties:
        raise bad_input(f"Nothing to change: give a new value besides {parameter_of(kind)} or keywords.")
    one = await meant(call, kind)
    return await patch(call, kind, one, properties)


async def patch(call: Call, kind: ObjectType, one: int | str, properties: dict[str, str]) -> dict[str, Json]:
    """Send the changed properties of a record; the answer of the tool."""
    changed = await send(call, "PATCH", f"/crm/v3/objects/{kind.name}/{one}", {"properties": properties})
    return {kind.one: full(changed, kind), "updated": True}


async def _company(call: Call) -> dict[str, str]:
    properties = written(COMPANIES, call.input)
    if "industry" in properties:
        properties["industry"] = await industry(call, properties["industry"])
    return properties


def _exists(error: ToolError) -> ToolError:
    """A conflict names the contact that has the address already; anything else stays what it is."""
    if error.status != 409:
        return error
    existing = re.search(r"Existing ID: (\d+)", f"{error.message} {error.developer_message or ''}")
    which = f" It is contact_id {existing[1]}." if existing else ""
    return ToolError(
        Kind.RETRY,
        f"A contact with this e-mail address exists already.{which}",
        hint="Change it with Hubspot.UpdateContact, or give another e-mail address.",
        developer_message=error.developer_message,
        can_retry=True,
        status=409,
    )
