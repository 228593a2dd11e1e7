"""The toolkit Salesforce: the queries and changes that each tool sends, and what it makes of the answers."""

from __future__ import annotations

from typing import Any

import pytest

from authproxy.core.model import ConnectionKey, NewGrant, TokenSet
from authproxy.core.secret import Secret
from authproxy.tools.tool import Kind
from tests.tools.kit import CALLER, House, Reply, Upstream
from tests.tools.salesforce_org import (
    ACCOUNT,
    API,
    CONTACT,
    DEAL,
    LEAD,
    ME,
    STAGES,
    TASK,
    changes,
    fault,
    furnish,
    rows,
    soql,
    tables,
)

NOW = 1_700_000_000  # 2023-11-14T22:13:20Z


@pytest.fixture
def org(house: House) -> House:
    return furnish(house)


# Searching


async def test_leads_of_the_user_by_words_and_filters(org: House) -> None:
    lead = {
        "Id": LEAD,
        "Name": "Ana Oña",
        "Company": "O'Hara & Söhne",
        "Status": "Open",
        "Email": None,
        "Owner": {"attributes": {}, "Name": "Alice Ng"},
    }
    org.answer("GET", f"{API}/query", tables(Lead=rows(lead, *({"Id": LEAD} for _ in range(2)))))
    told = await org.value(
        "Salesforce.SearchLeads",
        query="ana o'hara 100%_",
        status="Open",
        lead_source="Web",
        created_after="2023-02-01",
        limit=2,
        page=3,
    )
    assert told == {
        "leads": [
            {
                "id": LEAD,
                "name": "Ana Oña",
                "company": "O'Hara & Söhne",
                "status": "Open",
                "owner_name": "Alice Ng",
            },
            {"id": LEAD},
        ],
        "page": 3,
        "has_more": True,
        "next_page": 4,
    }
    [text] = soql(org)
    assert text == (
        "SELECT Id, Name, Company, Title, Email, Phone, Status, LeadSource, Rating, Industry, Owner.Name, CreatedDate"
        " FROM Lead WHERE IsConverted = false"
        " AND (Name LIKE '%ana%' OR Company LIKE '%ana%' OR Title LIKE '%ana%' OR Email LIKE '%ana%')"
        r" AND (Name LIKE '%o\'hara%' OR Company LIKE '%o\'hara%' OR Title LIKE '%o\'hara%' OR Email LIKE '%o\'hara%')"
        r" AND (Name LIKE '%100\%\_%' OR Company LIKE '%100\%\_%' OR Title LIKE '%100\%\_%' OR Email LIKE '%100\%\_%')"
        " AND Status = 'Open' AND LeadSource = 'Web' AND CreatedDate >= 2023-02-01T00:00:00Z"
        f" AND OwnerId = '{ME}' ORDER BY CreatedDate DESC, Id LIMIT 3 OFFSET 4"
    )


async def test_contacts_by_words_account_and_title(org: House) -> None:
    found = {"Id": CONTACT, "Name": "Bo", "Account": {"Name": "Acme"}, "AccountId": ACCOUNT}
    org.answer("GET", f"{API}/query", tables(Contact=rows(found)))
    told = await org.value("Salesforce.SearchContacts", query="bo", account_id=ACCOUNT, title="Sales")
    assert told == {
        "contacts": [{"id": CONTACT, "name": "Bo", "account_id": ACCOUNT, "account_name": "Acme"}],
        "page": 1,
        "has_more": False,
    }
    [text] = soql(org)
    assert text.endswith(
        " FROM Contact WHERE (Name LIKE '%bo%' OR Email LIKE '%bo%' OR Title LIKE '%bo%' OR Account.Name LIKE '%bo%')"
        f" AND AccountId = '{ACCOUNT}' AND Title LIKE '%Sales%' ORDER BY LastModifiedDate DESC, Id LIMIT 21"
    )
    for given in ({}, {"query": "  "}, {"title": " "}):
        assert (await org.error("Salesforce.SearchContacts", **given)).kind is Kind.BAD_INPUT


async def test_opportunities_of_everybody_in_a_span_from_an_amount(org: House) -> None:
    deal = {"Id": DEAL, "Name": "Renewal", "Amount": 1500000.0, "IsClosed": False, "Probability": 0}
    org.answer("GET", f"{API}/query", tables(Opportunity=rows(deal)))
    told = await org.value(
        "Salesforce.SearchOpportunities",
        owner="all",
        stage="Prospecting",
        close_date_from="2026-01-01",
        close_date_to="2026-03-31",
        min_amount=1e6,
    )
    assert told["opportunities"] == [
        {"id": DEAL, "name": "Renewal", "amount": 1500000.0, "probability": 0, "is_closed": False}
    ]
    [text] = soql(org)
    assert text.endswith(
        " FROM Opportunity WHERE StageName = 'Prospecting' AND CloseDate >= 2026-01-01 AND CloseDate <= 2026-03-31"
        " AND Amount >= 1000000.0 ORDER BY CloseDate DESC, Id LIMIT 21"
    )


async def test_an_owner_by_name(org: House) -> None:
    users = rows({"Id": "005000000000007AAA", "Name": "Bob Ray"}, {"Id": ME, "Name": "Bob Rayburn"})
    org.answer("GET", f"{API}/query", tables(User=users, Opportunity=rows({"Id": DEAL})))
    await org.value("Salesforce.SearchOpportunities", owner="bob ray")
    assert "OwnerId = '005000000000007AAA'" in soql(org, "Opportunity")[0]
    assert soql(org, "User")[0] == (
        "SELECT Id, Name, Username FROM User WHERE IsActive = true AND"
        " (Name LIKE '%bob ray%' OR Username = 'bob ray' OR Email = 'bob ray') ORDER BY Name LIMIT 11"
    )
    error = await org.error("Salesforce.SearchOpportunities", owner="bob")
    assert (error.kind, error.hint) == (
        Kind.RETRY,
        f"Users: Bob Ray (005000000000007AAA), Bob Rayburn ({ME}).",
    )
    org.answer("GET", f"{API}/query", rows())
    assert (await org.error("Salesforce.SearchOpportunities", owner="nobody")).kind is Kind.RETRY
    await org.value("Salesforce.SearchOpportunities", owner="005000000000009AAA")
    assert "OwnerId = '005000000000009AAA'" in soql(org, "Opportunity")[-1]


async def test_a_filter_that_the_org_does_not_have_is_told_with_those_it_has(org: House) -> None:
    error = await org.error("Salesforce.SearchOpportunities", owner="all", stage="Won't")
    assert (error.kind, error.hint) == (Kind.RETRY, "It has: Prospecting, Won.")
    told = await org.value("Salesforce.SearchOpportunities", owner="all", stage="Closed Won")
    assert told["opportunities"] == []


@pytest.mark.parametrize(
    ("tool", "given"),
    [
        ("SearchLeads", {"created_after": "2023-02-30"}),
        ("SearchLeads", {"created_after": "2023-02-01 OR 1"}),
        ("SearchLeads", {"created_after": "20230201"}),
        ("SearchLeads", {"limit": 0}),
        ("SearchLeads", {"page": 0}),
        ("SearchLeads", {"page": 102}),
        ("SearchLeads", {"query": "one two three four five six seven eight nine"}),
        ("SearchContacts", {"account_id": "001000000000001' OR Name != '"}),
        ("SearchContacts", {"account_id": CONTACT}),
        ("GetAccountDataById", {"account_id": "../../../services/oauth2"}),
        ("GetAccountDataById", {"account_id": "001000000000001AA"}),
        ("GetAccountDataByKeywords", {"query": " a "}),
        ("UpdateLead", {"lead_id": f"{LEAD}/x", "title": "T"}),
        ("UpdateTask", {"task_id": DEAL, "subject": "x"}),
        ("ConvertLead", {"lead_id": LEAD, "account_id": "001'); delete [SELECT Id FROM Lead]; //"}),
        ("CreateTask", {"subject": "x", "due_date": "tomorrow"}),
        ("CreateTask", {"subject": "x", "contact_or_lead_id": ACCOUNT}),
        ("LogACall", {"subject": "x", "duration_minutes": -1}),
    ],
    ids=lambda given: given if isinstance(given, str) else next(iter(given.values())),
)
async def test_arguments_that_make_no_sense_reach_nobody(
    org: House, tool: str, given: dict[str, Any]
) -> None:
    error = await org.error(f"Salesforce.{tool}", **given)
    assert (error.kind, org.seen) == (Kind.BAD_INPUT, [])


async def test_pages_end_where_salesforces_offset_does(org: House) -> None:
    found = rows(*({"Id": LEAD} for _ in range(51)))
    org.answer("GET", f"{API}/query", tables(Lead=found))
    told = await org.value("Salesforce.SearchLeads", owner="all", limit=100, page=41)
    assert soql(org)[0].endswith("LIMIT 51 OFFSET 2000")
    assert (len(told["leads"]), told["has_more"], "next_page" in told) == (50, True, False)


async def test_ids_of_other_records_are_told_apart(org: House) -> None:
    error = await org.error("Salesforce.GetAccountDataById", account_id=LEAD)
    assert error.message == "account_id must be the id of an account (001…); this is an id of a lead."


# Tasks


async def test_the_users_tasks(org: House) -> None:
    task = {"Id": TASK, "Subject": "Ring Bo", "What": {"Name": "Acme"}, "WhatId": ACCOUNT, "IsClosed": False}
    org.answer("GET", f"{API}/query", tables(Task=rows(task)))
    told = await org.value(
        "Salesforce.ListMyTasks",
        status="Open",
        due_date_from="2026-01-01",
        due_date_to="2026-01-31",
        overdue_only=True,
        account_or_opportunity_id=ACCOUNT,
    )
    assert told["tasks"] == [
        {"id": TASK, "subject": "Ring Bo", "is_closed": False, "related_to_id": ACCOUNT, "related_to": "Acme"}
    ]
    [text] = soql(org)
    assert text.partition(" FROM ")[2] == (
        "Task WHERE TaskSubtype != 'Call' AND TaskSubtype != 'Email' AND TaskSubtype != 'ListEmail'"
        " AND Status = 'Open' AND ActivityDate >= 2026-01-01 AND ActivityDate <= 2026-01-31"
        " AND IsClosed = false AND ActivityDate < TODAY"
        f" AND (WhatId = '{ACCOUNT}' OR AccountId = '{ACCOUNT}') AND OwnerId = '{ME}'"
        " ORDER BY IsClosed ASC, ActivityDate ASC NULLS LAST, Id LIMIT 21"
    )


async def test_a_task_is_created_and_changed(org: House) -> None:
    org.answer("POST", f"{API}/sobjects/Task", Reply(201, {"id": TASK, "success": True, "errors": []}))
    org.answer("PATCH", f"{API}/sobjects/Task/{TASK}", Reply(204))
    told = await org.value(
        "Salesforce.CreateTask",
        subject="Ring Bo",
        due_date="2026-01-31",
        priority="High",
        status="Not Started",
        description="About the offer",
        account_or_opportunity_id=DEAL,
        contact_or_lead_id=LEAD,
        owner_user_id=ME,
    )
    assert told == {"created": True, "type": "Task", "id": TASK}
    told = await org.value("Salesforce.UpdateTask", task_id=TASK, status="Completed", due_date="2026-02-01")
    assert told == {"updated": True, "type": "Task", "id": TASK, "fields": ["ActivityDate", "Status"]}
    assert changes(org) == [
        (
            "POST",
            "Task",
            {
                "Subject": "Ring Bo",
                "Priority": "High",
                "Description": "About the offer",
                "WhatId": DEAL,
                "WhoId": LEAD,
                "ActivityDate": "2026-01-31",
                "OwnerId": ME,
                "Status": "Not Started",
            },
        ),
        ("PATCH", f"Task/{TASK}", {"ActivityDate": "2026-02-01", "Status": "Completed"}),
    ]
    assert (await org.error("Salesforce.UpdateTask", task_id=TASK)).kind is Kind.BAD_INPUT


async def test_a_call_is_logged_as_done_today() -> None:
    async with House.running(clock=lambda: NOW) as org:
        org.answer("POST", f"{API}/sobjects/Task", Reply(201, {"id": TASK, "success": True, "errors": []}))
        told = await org.value(
            "Salesforce.LogACall",
            subject="Pricing",
            description="Wants an offer",
            duration_minutes=37,
            account_or_opportunity_id=ACCOUNT,
            contact_or_lead_id=CONTACT,
            call_result="Interested",
        )
        assert told["id"] == TASK
        assert changes(org) == [
            (
                "POST",
                "Task",
                {
                    "Subject": "Pricing",
                    "Description": "Wants an offer",
                    "WhatId": ACCOUNT,
                    "WhoId": CONTACT,
                    "Status": "Completed",
                    "TaskSubtype": "Call",
                    "ActivityDate": "2023-11-14",
                    "CallDurationInSeconds": 2220,
                    "CallDisposition": "Interested",
                },
            )
        ]


# Creating and changing


async def test_a_contact_and_a_lead_are_created(org: House) -> None:
    org.answer("POST", f"{API}/sobjects/Contact", Reply(201, {"id": CONTACT, "success": True, "errors": []}))
    org.answer("POST", f"{API}/sobjects/Lead", Reply(201, {"id": LEAD, "success": True, "errors": []}))
    await org.value(
        "Salesforce.CreateContact", account_id=ACCOUNT, last_name="Oña", first_name="Ana", mobile_phone="+1 2"
    )
    told = await org.value(
        "Salesforce.CreateLead",
        last_name="Li",
        company="Söhne",
        status="working",
        lead_source="Web",
        website="s.at",
    )
    assert told == {"created": True, "type": "Lead", "id": LEAD}
    assert changes(org) == [
        (
            "POST",
            "Contact",
            {"LastName": "Oña", "FirstName": "Ana", "MobilePhone": "+1 2", "AccountId": ACCOUNT},
        ),
        (
            "POST",
            "Lead",
            {
                "LastName": "Li",
                "Company": "Söhne",
                "LeadSource": "Web",
                "Website": "s.at",
                "Status": "Working",
            },
        ),
    ]


async def test_an_opportunity_is_created_in_a_stage_of_the_org(org: House) -> None:
    org.answer("POST", f"{API}/sobjects/Opportunity", Reply(201, {"id": DEAL, "success": True, "errors": []}))
    given = {"account_id": ACCOUNT, "name": "Big", "close_date": "2026-05-15", "amount": 12.5}
    await org.value(
        "Salesforce.CreateOpportunity",
        stage="closed won",
        opportunity_type="New Business",
        next_step="Call",
        **given,
    )
    assert changes(org) == [
        (
            "POST",
            "Opportunity",
            {
                "Name": "Big",
                "Amount": 12.5,
                "NextStep": "Call",
                "Type": "New Business",
                "AccountId": ACCOUNT,
                "StageName": "Won",
                "CloseDate": "2026-05-15",
            },
        )
    ]
    error = await org.error("Salesforce.CreateOpportunity", stage="Dreaming", **given)
    assert (error.kind, error.hint) == (Kind.RETRY, "It has: Prospecting, Won.")
    assert len(changes(org)) == 1


async def test_an_org_that_does_not_tell_its_values_judges_them_itself(org: House) -> None:
    org.answer("GET", f"{API}/query", fault("INVALID_TYPE"))
    org.answer(
        "POST",
        f"{API}/sobjects/Lead",
        fault("INVALID_OR_NULL_FOR_RESTRICTED_PICKLIST", "bad value: Nope", ["Status"]),
    )
    error = await org.error("Salesforce.CreateLead", last_name="Li", company="S", status="Nope")
    assert error.kind is Kind.BAD_REQUEST
    assert error.message.endswith("INVALID_OR_NULL_FOR_RESTRICTED_PICKLIST: bad value: Nope (Status)")


async def test_an_opportunity_is_changed_and_told_as_it_stands(org: House) -> None:
    org.answer("PATCH", f"{API}/sobjects/Opportunity/{DEAL}", Reply(204))
    after = {"Id": DEAL, "Name": "Big", "Amount": 900.0, "HasOpportunityLineItem": True, "StageName": "Won"}
    org.answer("GET", f"{API}/query", tables(OpportunityStage=rows(*STAGES), Opportunity=rows(after)))
    told = await org.value(
        "Salesforce.UpdateOpportunity",
        opportunity_id=DEAL,
        stage="Closed Won",
        amount=1000,
        probability=0,
        forecast_category="Best Case",
        description="",
    )
    assert told == {
        "updated": True,
        "type": "Opportunity",
        "id": DEAL,
        "fields": ["Amount", "Description", "ForecastCategoryName", "Probability", "StageName"],
        "opportunity": {"id": DEAL, "name": "Big", "stage": "Won", "amount": 900.0},
        "warnings": ["The amount is the sum of the opportunity's line items: the one given was not taken."],
    }
    [(_, _, sent)] = changes(org)
    assert sent == {
        "Amount": 1000,
        "Description": "",
        "StageName": "Won",
        "Probability": 0,
        "ForecastCategoryName": "Best Case",
    }
    error = await org.error("Salesforce.UpdateOpportunity", opportunity_id=DEAL, probability=101)
    assert error.kind is Kind.BAD_INPUT


async def test_a_lead_is_changed(org: House) -> None:
    org.answer("PATCH", f"{API}/sobjects/Lead/{LEAD}", Reply(204))
    told = await org.value("Salesforce.UpdateLead", lead_id=LEAD, status="Open", rating="Hot", email="")
    assert told["fields"] == ["Email", "Rating", "Status"]
    assert changes(org) == [("PATCH", f"Lead/{LEAD}", {"Email": "", "Rating": "Hot", "Status": "Open"})]


async def test_a_converted_lead_cannot_be_changed_and_tells_what_it_became(org: House) -> None:
    org.answer("PATCH", f"{API}/sobjects/Lead/{LEAD}", fault("CANNOT_UPDATE_CONVERTED_LEAD"))
    org.answer(
        "GET",
        f"{API}/query",
        tables(
            Lead=rows(
                {
                    "Id": LEAD,
                    "IsConverted": True,
                    "ConvertedContactId": CONTACT,
                    "ConvertedAccountId": ACCOUNT,
                }
            )
        ),
    )
    error = await org.error("Salesforce.UpdateLead", lead_id=LEAD, rating="Hot")
    assert (error.kind, error.hint) == (
        Kind.BAD_REQUEST,
        f"It became contact_id {CONTACT}, account_id {ACCOUNT}.",
    )
    org.answer("PATCH", f"{API}/sobjects/Lead/{LEAD}", fault("STRING_TOO_LONG", "Title: too long", ["Title"]))
    org.answer("GET", f"{API}/query", tables(Lead=rows({"Id": LEAD, "IsConverted": False})))
    error = await org.error("Salesforce.UpdateLead", lead_id=LEAD, title="T")
    assert error.message.endswith("STRING_TOO_LONG: Title: too long (Title)")


async def test_a_record_of_any_type_as_older_documents_have_it(org: House) -> None:
    org.answer("PATCH", f"{API}/sobjects/Invoice__c/a01000000000001", Reply(204))
    told = await org.value(
        "Salesforce.UpdateRecord",
        record_type="Invoice__c",
        record_id="a01000000000001",
        fields={"Score__c": 7, "Note__c": None},
    )
    assert told == {
        "updated": True,
        "type": "Invoice__c",
        "id": "a01000000000001",
        "fields": ["Note__c", "Score__c"],
    }
    assert changes(org)[0][2] == {"Score__c": 7, "Note__c": None}
    shown = {tool.qualified_name for tool in org.app.control.tools.list(CALLER)}
    assert "Salesforce.UpdateLead" in shown
    assert "Salesforce.UpdateRecord" not in shown


@pytest.mark.parametrize(
    "given",
    [
        {"record_type": "../../tooling"},
        {"record_type": "Lead/describe"},
        {"record_id": "x"},
        {"fields": {}},
        {"fields": {"Name'": "x"}},
        {"fields": {"Owner": {"Id": ME}}},
        {"fields": ["Name"]},
    ],
    ids=str,
)
async def test_a_record_of_no_type(org: House, given: dict[str, Any]) -> None:
    whole = {"record_type": "Lead", "record_id": LEAD, "fields": {"Title": "x"}} | given
    error = await org.error("Salesforce.UpdateRecord", **whole)
    assert (error.kind, org.seen) == (Kind.BAD_INPUT, [])


# Where it is sent


async def test_everybodys_calls_go_to_the_instance_of_their_own_org() -> None:
    async with (
        Upstream().running() as other,
        House.running("alice", "bob", egress={"allow": ["127.0.0.0/8"]}) as house,
    ):
        access, refresh = other.issue()
        now = int(house.app.clock())
        tokens = TokenSet(
            Secret(access),
            Secret(refresh),
            now + 3600,
            3600,
            scopes=("api",),
            extra={"instance_url": f"http://127.0.0.1:{other.port}"},
        )
        key = ConnectionKey("default", "bob", "salesforce")
        await house.app.vault.keep_grant(
            NewGrant(key, "kit", "g-other", tokens, tokens.scopes, None, now), []
        )
        house.app.tokens.forget_key(key)
        for upstream, name in ((house.upstream, "Acme"), (other, "Globex")):
            upstream.answer("GET", f"{API}/query", rows({"Id": CONTACT, "Name": name}))
        for who, name in (("alice", "Acme"), ("bob", "Globex")):
            told = await house.value("Salesforce.SearchContacts", who, query="x")
            assert [one["name"] for one in told["contacts"]] == [name]
