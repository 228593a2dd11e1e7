"""The tools that search and list: one page of records with what is associated with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from authproxy.tools.kits.hubspot.asking import results
from authproxy.tools.kits.hubspot.associations import associate
from authproxy.tools.kits.hubspot.finding import (
    MOST_ASSOCIATED,
    associated_with,
    limited,
    page,
    read,
    search,
    search_for,
)
from authproxy.tools.kits.hubspot.objects import (
    CALLS,
    COMMUNICATIONS,
    COMPANIES,
    CONTACTS,
    DEALS,
    EMAILS,
    MEETINGS,
    NOTES,
    RECORDS,
    TASKS,
    TIMELINE,
    ObjectType,
)
from authproxy.tools.kits.hubspot.pipelines import put_labels
from authproxy.tools.kits.hubspot.shaping import LONG, SHORT, full
from authproxy.tools.tool import Call, Json

LIMIT: Final = 10


def others_of(kind: ObjectType) -> tuple[ObjectType, ...]:
    """The types that are shown with this one."""
    records = tuple(one for one in RECORDS if one is not kind)
    return records if kind.activity else records + TIMELINE


async def get_call_data_by_keywords(call: Call) -> Json:
    """Calls whose title or summary has the words."""
    return await _activities(call, CALLS)


async def get_communication_data_by_keywords(call: Call) -> Json:
    """Messages of other channels whose text has the words."""
    return await _activities(call, COMMUNICATIONS)


async def get_email_data_by_keywords(call: Call) -> Json:
    """Logged e-mails whose subject or text has the words."""
    return await _activities(call, EMAILS)


async def get_meeting_data_by_keywords(call: Call) -> Json:
    """Meetings whose title or description has the words."""
    return await _activities(call, MEETINGS)


async def get_note_data_by_keywords(call: Call) -> Json:
    """Notes that have the words."""
    return await _activities(call, NOTES)


async def get_task_data_by_keywords(call: Call) -> Json:
    """Tasks whose title or text has the words."""
    return await _activities(call, TASKS)


async def get_company_data_by_keywords(call: Call) -> Json:
    """Companies whose name, domain, phone or website has the words."""
    return await _found(call, COMPANIES, search_for(COMPANIES, call.input["keywords"], "keywords"), 10)


async def get_contact_data_by_keywords(call: Call) -> Json:
    """Contacts whose name, address, phone or company has the words."""
    return await _found(call, CONTACTS, search_for(CONTACTS, call.input["keywords"], "keywords"), 100)


async def get_deal_data_by_keywords(call: Call) -> Json:
    """Deals whose name or description has the words."""
    return await _found(call, DEALS, search_for(DEALS, call.input["keywords"], "keywords"), 10)


async def list_companies(call: Call) -> Json:
    """Companies in the order that is asked for."""
    return await _listed(call, COMPANIES, {})


async def list_contacts(call: Call) -> Json:
    """Contacts, of a company or a deal where one is given."""
    return await _listed(call, CONTACTS, {COMPANIES: call.get("company_id"), DEALS: call.get("deal_id")})


async def list_deals(call: Call) -> Json:
    """Deals, of a contact or a company where one is given."""
    return await _listed(call, DEALS, {CONTACTS: call.get("contact_id"), COMPANIES: call.get("company_id")})


async def get_deal_by_id(call: Call) -> Json:
    """A deal with what is associated with it."""
    record = await read(call, DEALS, int(call.input["deal_id"]))
    return await one_deal(call, full(record, DEALS))


async def one_deal(call: Call, deal: dict[str, Json], *, tolerant: bool = False) -> dict[str, Json]:
    """The answer of one deal. With `tolerant` nothing that cannot be read besides makes it a failure."""
    limit = limited(call, "associations_limit", MOST_ASSOCIATED, LIMIT, 0)
    unread = await associate(call, DEALS, [deal], others_of(DEALS), limit, tolerant=tolerant)
    await put_labels(call, [deal], tolerant=tolerant)
    answer: dict[str, Json] = {"deal": deal}
    return answer | _unread(unread)


async def _activities(call: Call, kind: ObjectType) -> Json:
    longest = SHORT if call.get("truncate_big_strings") else LONG
    wanted = search_for(kind, call.input["search_terms"], "search_terms")
    return await _found(call, kind, wanted, 50, longest)


async def _listed(call: Call, kind: ObjectType, filters: Mapping[ObjectType, int | None]) -> Json:
    order = call.get("sort_order") or "LATEST_MODIFIED"
    sort = {
        "propertyName": kind.alphabetical if order == "ALPHABETICAL" else kind.modified,
        "direction": "DESCENDING" if order == "LATEST_MODIFIED" else "ASCENDING",
    }
    return await _found(call, kind, {**associated_with(filters), "sorts": [sort]}, 50)


async def _found(
    call: Call, kind: ObjectType, wanted: Mapping[str, Json], most: int, longest: int = LONG
) -> dict[str, Json]:
    limit = limited(call, "limit", most, LIMIT)
    associations = limited(call, "associations_limit", MOST_ASSOCIATED, LIMIT, 0)
    found = await search(call, kind, wanted, limit, call.get("next_page_token"))
    shaped = [full(record, kind, longest) for record in results(found)]
    unread = await associate(call, kind, shaped, others_of(kind), associations)
    if kind is DEALS:
        await put_labels(call, shaped)
    return page(found, kind, shaped) | _unread(unread)


def _unread(kinds: Sequence[str]) -> dict[str, Json]:
    return {"not_available": list(kinds)} if kinds else {}
