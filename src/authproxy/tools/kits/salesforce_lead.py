"""Leads that become contacts, accounts and opportunities.

Salesforce's REST API has no resource for it: of the standard actions none converts leads, and the one call that does,
convertLead of the SOAP API, wants the session's token in its body, where nothing puts it for a tool. What the same
token may do is to run Apex (tooling/executeAnonymous), also for users who may not write any: of them Salesforce takes
what is built into the language, and Database.convertLead is. It runs as the user, with their permissions on leads.
"""

from __future__ import annotations

import base64
import re
from typing import Any

from authproxy.tools.kits import salesforce_shapes as shapes
from authproxy.tools.kits import salesforce_soql as soql
from authproxy.tools.kits.salesforce_org import API, chosen, query, values
from authproxy.tools.tool import Call, Json, Kind, ToolError, bad_input

_QUEUE = "00G"  # accounts and contacts cannot be owned by one
_FAULT = re.compile(r"first error: ([A-Z][A-Z0-9_]{1,59}), (.{0,160})", re.DOTALL)


async def convert(call: Call) -> Json:
    """Convert a lead, and tell what it became."""
    lead = soql.needed_id(call, "lead_id", "lead")
    account = soql.record_id(call, "account_id", "account")
    name, skip = call.get("opportunity_name"), bool(call.get("skip_opportunity"))
    if name and skip:
        raise bad_input("Give an opportunity_name, or skip_opportunity, not both.")
    found = await look(call, lead)
    if found is None:
        raise ToolError(Kind.NOT_FOUND, "There is no such lead, or this user may not see it.", status=404)
    if found.get("IsConverted"):
        raise converted_already(found)
    code = _apex(
        lead,
        status=await _status(call),
        account=account,
        opportunity=name,
        skip=skip,
        own=str(found.get("OwnerId", "")).startswith(_QUEUE),
    )
    answer = await call.api.call("GET", f"{API}/tooling/executeAnonymous", query={"anonymousBody": code})
    # What it became is told by the lead alone; so a conversion is also seen where its answer was lost and sent again.
    after = await look(call, lead)
    if after is None or not after.get("IsConverted"):
        raise _failed(answer.json)
    return {"converted": True, "lead_id": after.get("Id", lead), **shapes.shape(after, shapes.CONVERTED)}


async def look(call: Call, lead: str) -> dict[str, Any] | None:
    """Whether the lead is converted, and into what; None where there is none."""
    columns = f"Id, OwnerId, IsConverted, {shapes.columns(shapes.CONVERTED)}"
    found = await query(call, soql.select(columns, "Lead", f"Id = {soql.quoted(lead)}", end="LIMIT 1"))
    return found[0] if found else None


def converted_already(lead: dict[str, Any]) -> ToolError:
    """The failure of what cannot be done to a converted lead, with the records to turn to."""
    into = shapes.shape(lead, shapes.CONVERTED)
    told = ", ".join(f"{key} {value}" for key, value in into.items() if soql.is_id(str(value)))
    return ToolError(
        Kind.BAD_REQUEST,
        "The lead has been converted already: it can no longer be changed.",
        hint=f"It became {told}." if told else None,
        status=400,
    )


async def _status(call: Call) -> str:
    known = await values(call, "LeadStatus", "IsConverted = true")
    given = call.get("converted_status")
    if given is not None:
        return chosen(given, "converted_status", known)
    if not known:
        raise bad_input("This org does not tell which status converted leads have: give converted_status.")
    return next(iter(known.values()))


def _apex(
    lead: str, *, status: str, account: str | None, opportunity: str | None, skip: bool, own: bool
) -> str:
    lines = [
        "Database.LeadConvert wanted = new Database.LeadConvert();",
        f"wanted.setLeadId('{lead}');",
        f"wanted.setConvertedStatus({_text(status)});",
        f"wanted.setDoNotCreateOpportunity({'true' if skip else 'false'});",
    ]
    lines += [f"wanted.setAccountId('{account}');"] if account else []
    lines += [f"wanted.setOpportunityName({_text(opportunity)});"] if opportunity else []
    lines += ["wanted.setOwnerId(UserInfo.getUserId());"] if own else []
    return "\n".join([*lines, "Database.convertLead(wanted);"])


def _text(value: str) -> str:
    """A text in Apex, as an expression that holds letters, digits and +/= only, whatever the text is."""
    coded = base64.b64encode(soql.plain(value).encode()).decode()
    return f"EncodingUtil.base64Decode('{coded}').toString()"


def _failed(said: Any) -> ToolError:
    told = said if isinstance(said, dict) else {}
    fault = _FAULT.search(str(told.get("exceptionMessage") or ""))
    if fault:
        words = " ".join(fault[2].split())
        return ToolError(
            Kind.VALIDATION_ERROR, f"Salesforce did not convert the lead: {fault[1]}: {words}", status=400
        )
    if told.get("compiled") is False:
        return ToolError(
            Kind.AUTH_ERROR,
            "Salesforce does not let this user convert leads: it takes the permission Convert Leads, and edit"
            " rights on leads, accounts and contacts.",
            developer_message="executeAnonymous did not compile Database.convertLead for this user",
        )
    return ToolError(Kind.UNMAPPED, "Salesforce did not convert the lead, and did not say why.")
