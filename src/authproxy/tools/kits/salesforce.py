"""The toolkit Salesforce: leads, contacts, opportunities and tasks as the user sees them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from authproxy.tools.kits import salesforce_records as records
from authproxy.tools.kits import salesforce_related as related
from authproxy.tools.kits import salesforce_shapes as shapes
from authproxy.tools.kits import salesforce_soql as soql
from authproxy.tools.kits.salesforce_lead import convert as convert_lead
from authproxy.tools.kits.salesforce_lead import converted_already, look
from authproxy.tools.kits.salesforce_org import (
    API,
    below,
    choice,
    error_words,
    me,
    owned,
    paged,
    query,
)
from authproxy.tools.tool import Call, Json, Kind, ToolError, bad_input

__all__ = [
    "convert_lead",
    "create_contact",
    "create_lead",
    "create_opportunity",
    "create_task",
    "error_words",
    "get_account_data_by_id",
    "get_account_data_by_keywords",
    "get_opportunity_by_id",
    "list_my_tasks",
    "log_a_call",
    "search_contacts",
    "search_leads",
    "search_opportunities",
    "update_lead",
    "update_opportunity",
    "update_record",
    "update_task",
    "who_am_i",
]

_MOST_RESULTS = 50
_MOST_ACCOUNTS = 10
_MOST_FIELDS = 100
_LONGEST_CALL = 24 * 60  # minutes
_MISSING = "There is no such {what}, or this user may not see it."

_STAGES = ("OpportunityStage", "IsActive = true")
_LEAD_STATUS = ("LeadStatus", "")
_TASK_STATUS = ("TaskStatus", "")


# Accounts


async def get_account_data_by_id(call: Call) -> Json:
    """An account and what hangs on it."""
    found = await _accounts(call, [soql.needed_id(call, "account_id", "account")])
    if not found:
        raise ToolError(Kind.NOT_FOUND, _MISSING.format(what="account"), status=404)
    return found[0]


async def get_account_data_by_keywords(call: Call) -> Json:
    """The accounts in which the words occur, and what hangs on them."""
    page = soql.page_of(call, _MOST_ACCOUNTS)
    find = (
        f"FIND {{{soql.search_term(call.input['query'])}}} IN ALL FIELDS RETURNING Account(Id {page.clause})"
    )
    answer = await call.api.call("GET", f"{API}/search", query={"q": find})
    found, told = paged(below(answer.json, "searchRecords"), page)
    return {"accounts": await _accounts(call, [str(one.get("Id")) for one in found]), **told}


async def _accounts(call: Call, ids: list[str]) -> list[dict[str, Json]]:
    wanted = [one for one in ids if soql.is_id(one)]
    if not wanted:
        return []
    gathered = await related.gather(call, "Account", shapes.ACCOUNT, wanted, related.ACCOUNT_PARTS)
    await related.leads(call, gathered)
    known = {identifier[:15]: told for identifier, told in gathered.told.items()}
    found = [known[one[:15]] for one in wanted if one[:15] in known]
    return [_with_unavailable(one, gathered) for one in found]


def _with_unavailable(told: dict[str, Json], gathered: related.Gathered) -> dict[str, Json]:
    return told | ({"unavailable": gathered.unavailable} if gathered.unavailable else {})


# Contacts


async def search_contacts(call: Call) -> Json:
    """Contacts by words, account or title."""
    page = soql.page_of(call, _MOST_RESULTS)
    account, title = soql.record_id(call, "account_id", "account"), call.get("title")
    words = soql.matches(call.get("query"), "Name", "Email", "Title", "Account.Name")
    if not (words or account or (title and title.strip())):
        raise bad_input("Give at least one of query, account_id and title.")
    return await records.search(
        call,
        page,
        "contacts",
        shapes.CONTACT,
        "Contact",
        *words,
        account and f"AccountId = {soql.quoted(account)}",
        title and f"Title LIKE {soql.contains(title)}",
        order="LastModifiedDate DESC",
    )


async def create_contact(call: Call) -> Json:
    """A new contact of an account."""
    return await records.create(
        call,
        "Contact",
        records.given(
            call,
            "last_name",
            "first_name",
            "email",
            "phone",
            "mobile_phone",
            "title",
            "department",
            "description",
        )
        | {"AccountId": soql.needed_id(call, "account_id", "account")},
    )


# Leads


async def search_leads(call: Call) -> Json:
    """Leads that are not converted."""
    page = soql.page_of(call, _MOST_RESULTS)
    after, status, source = soql.day(call, "created_after"), call.get("status"), call.get("lead_source")
    words = soql.matches(call.get("query"), "Name", "Company", "Title", "Email")
    told = await records.search(
        call,
        page,
        "leads",
        shapes.LEAD,
        "Lead",
        "IsConverted = false",
        *words,
        status and f"Status = {soql.quoted(status)}",
        source and f"LeadSource = {soql.quoted(source)}",
        after and f"CreatedDate >= {after}T00:00:00Z",
        await owned(call),
        order="CreatedDate DESC",
    )
    return await records.unless_unknown(call, told, "leads", "status", *_LEAD_STATUS)


async def create_lead(call: Call) -> Json:
    """A new lead."""
    fields = records.given(
        call,
        "last_name",
        "company",
        "first_name",
        "email",
        "phone",
        "title",
        "lead_source",
        "industry",
        "description",
        "website",
    )
    status = await choice(call, "status", *_LEAD_STATUS)
    return await records.create(call, "Lead", fields | ({"Status": status} if status else {}))


async def update_lead(call: Call) -> Json:
    """Change a lead that is not converted."""
    lead = soql.needed_id(call, "lead_id", "lead")
    fields = records.given(
        call,
        "first_name",
        "last_name",
        "email",
        "phone",
        "title",
        "company",
        "description",
        "lead_source",
        "rating",
    )
    status = await choice(call, "status", *_LEAD_STATUS)
    try:
        return await records.update(call, "Lead", lead, fields | ({"Status": status} if status else {}))
    except ToolError as failure:
        if failure.status != 400:
            raise
        found = await look(call, lead)
        if found is None or not found.get("IsConverted"):
            raise failure from None
        raise converted_already(found) from None


# Opportunities


async def search_opportunities(call: Call) -> Json:
    """Opportunities by words, stage, time, owner or amount."""
    page = soql.page_of(call, _MOST_RESULTS)
    since, until = soql.day(call, "close_date_from"), soql.day(call, "close_date_to")
    stage, least = call.get("stage"), call.get("min_amount")
    words = soql.matches(call.get("query"), "Name", "Account.Name")
    told = await records.search(
        call,
        page,
        "opportunities",
        shapes.OPPORTUNITY,
        "Opportunity",
        *words,
        stage and f"StageName = {soql.quoted(stage)}",
        since and f"CloseDate >= {since}",
        until and f"CloseDate <= {until}",
        None if least is None else f"Amount >= {soql.number(least)}",
        await owned(call),
        order="CloseDate DESC",
    )
    return await records.unless_unknown(call, told, "opportunities", "stage", *_STAGES)


async def get_opportunity_by_id(call: Call) -> Json:
    """An opportunity and what hangs on it."""
    opportunity = soql.needed_id(call, "opportunity_id", "opportunity")
    gathered = await related.gather(
        call, "Opportunity", shapes.OPPORTUNITY_IN_FULL, [opportunity], related.OPPORTUNITY_PARTS
    )
    for told in gathered.told.values():
        return _with_unavailable(told, gathered)
    raise ToolError(Kind.NOT_FOUND, _MISSING.format(what="opportunity"), status=404)


async def create_opportunity(call: Call) -> Json:
    """A new opportunity of an account."""
    account, close = soql.needed_id(call, "account_id", "account"), soql.day(call, "close_date")
    fields = records.given(call, "name", "amount", "description", "next_step", "lead_source")
    fields |= records.given(call, "opportunity_type", names={"opportunity_type": "Type"})
    stage = await choice(call, "stage", *_STAGES)
    return await records.create(
        call, "Opportunity", fields | {"AccountId": account, "StageName": stage, "CloseDate": close}
    )


async def update_opportunity(call: Call) -> Json:
    """Change an opportunity, and tell how it stands afterwards."""
    opportunity = soql.needed_id(call, "opportunity_id", "opportunity")
    fields = records.given(call, "amount", "next_step", "description", "name")
    close, probability = soql.day(call, "close_date"), call.get("probability")
    if probability is not None and not 0 <= probability <= 100:
        raise bad_input("probability must be between 0 and 100.")
    stage = await choice(call, "stage", *_STAGES)
    more = {
        "StageName": stage,
        "CloseDate": close,
        "Probability": probability,
        "ForecastCategoryName": call.get("forecast_category"),
    }
    fields |= {name: value for name, value in more.items() if value is not None}
    told = await records.update(call, "Opportunity", opportunity, fields)
    found = await query(
        call,
        soql.select(
            shapes.columns(shapes.OPPORTUNITY_IN_FULL),
            "Opportunity",
            f"Id = {soql.quoted(opportunity)}",
            end="LIMIT 1",
        ),
    )
    return told | _how_it_stands(found[0], fields) if found else told


def _how_it_stands(record: dict[str, Any], asked: dict[str, Json]) -> dict[str, Json]:
    warnings = []
    if "Amount" in asked and record.get("HasOpportunityLineItem") and record.get("Amount") != asked["Amount"]:
        warnings.append("The amount is the sum of the opportunity's line items: the one given was not taken.")
    told: dict[str, Json] = {"opportunity": shapes.shape(record, shapes.OPPORTUNITY)}
    return told | ({"warnings": warnings} if warnings else {})


# Tasks


async def list_my_tasks(call: Call) -> Json:
    """The user's tasks, without logged calls and e-mails: open ones first, by their day."""
    page = soql.page_of(call, _MOST_RESULTS)
    since, until = soql.day(call, "due_date_from"), soql.day(call, "due_date_to")
    status, about = call.get("status"), soql.record_id(call, "account_or_opportunity_id")
    told = await records.search(
        call,
        page,
        "tasks",
        shapes.TASK,
        "Task",
        *(f"TaskSubtype != '{kind}'" for kind in ("Call", "Email", "ListEmail")),
        status and f"Status = {soql.quoted(status)}",
        since and f"ActivityDate >= {since}",
        until and f"ActivityDate <= {until}",
        "IsClosed = false AND ActivityDate < TODAY" if call.get("overdue_only") else None,
        about and f"(WhatId = {soql.quoted(about)} OR AccountId = {soql.quoted(about)})",
        f"OwnerId = {soql.quoted(await me(call))}",
        order="IsClosed ASC, ActivityDate ASC NULLS LAST",
    )
    return await records.unless_unknown(call, told, "tasks", "status", *_TASK_STATUS)


async def create_task(call: Call) -> Json:
    """A new task."""
    fields = records.given(call, "subject", "priority", "description") | _about(call)
    due, owner = soql.day(call, "due_date"), soql.record_id(call, "owner_user_id", "user")
    status = await choice(call, "status", *_TASK_STATUS)
    more = {"ActivityDate": due, "OwnerId": owner, "Status": status}
    return await records.create(call, "Task", fields | {name: value for name, value in more.items() if value})


async def update_task(call: Call) -> Json:
    """Change a task."""
    task = soql.needed_id(call, "task_id", "task")
    fields = records.given(call, "priority", "subject", "description")
    due = soql.day(call, "due_date")
    status = await choice(call, "status", *_TASK_STATUS)
    more = {"ActivityDate": due, "Status": status}
    return await records.update(
        call, "Task", task, fields | {name: value for name, value in more.items() if value}
    )


async def log_a_call(call: Call) -> Json:
    """A task that is a call which has been made."""
    fields = records.given(call, "subject", "description") | _about(call)
    minutes, result = call.get("duration_minutes"), call.get("call_result")
    if minutes is not None and not 0 <= minutes <= _LONGEST_CALL:
        raise bad_input(f"duration_minutes must be between 0 and {_LONGEST_CALL}.")
    fields |= {
        "Status": "Completed",
        "TaskSubtype": "Call",
        "ActivityDate": datetime.fromtimestamp(call.now, UTC).date().isoformat(),
    }
    fields |= {} if minutes is None else {"CallDurationInSeconds": minutes * 60}
    return await records.create(call, "Task", fields | ({"CallDisposition": result} if result else {}))


def _about(call: Call) -> dict[str, Json]:
    what = soql.record_id(call, "account_or_opportunity_id", "account", "opportunity")
    who = soql.record_id(call, "contact_or_lead_id", "contact", "lead")
    return {name: value for name, value in (("WhatId", what), ("WhoId", who)) if value}


# Any record, as older documents have it


async def update_record(call: Call) -> Json:
    """Change fields of a record of any type, by the API names of the type and the fields."""
    kind, fields = call.input["record_type"].strip(), call.input["fields"]
    if not soql.is_identifier(kind):
        raise bad_input("record_type must be the API name of an object, like Lead or Invoice__c.")
    if not isinstance(fields, dict) or not 1 <= len(fields) <= _MOST_FIELDS:
        raise bad_input(f"fields must be an object of 1 to {_MOST_FIELDS} fields with their new values.")
    for name, value in fields.items():
        if not soql.is_identifier(name):
            raise bad_input("fields must be named by their API names, like LastName or Score__c.")
        if isinstance(value, dict | list):
            raise bad_input(f"{name} must be a text, a number, true, false or null.")
    return await records.update(call, kind, soql.needed_id(call, "record_id"), fields)


# The user


async def who_am_i(call: Call) -> Json:
    """As whom the tools act in Salesforce."""
    user = await me(call)
    found = await query(
        call,
        soql.select(shapes.columns(shapes.USER), "User", f"Id = {soql.quoted(user)}", end="LIMIT 1"),
    )
    told = shapes.shape(found[0], shapes.USER) if found else {"id": user}
    try:
        orgs = await query(
            call, soql.select(shapes.columns(shapes.ORGANIZATION), "Organization", end="LIMIT 1")
        )
    except ToolError as failure:
        if failure.status not in (400, 403):
            raise
        return told
    return told | ({"organization": shapes.shape(orgs[0], shapes.ORGANIZATION)} if orgs else {})
