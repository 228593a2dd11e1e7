"""Salesforce's accounts and opportunities with what hangs on them, converted leads, the user, and its refusals."""

from __future__ import annotations

import base64
import re
from typing import Any

import pytest
from hypothesis import given as drawn
from hypothesis import strategies as st

from authproxy.tools.kits import salesforce_soql
from authproxy.tools.tool import Json, Kind, ToolError
from tests.tools.kit import House, Reply, Seen
from tests.tools.salesforce_org import (
    ACCOUNT,
    API,
    CONTACT,
    DEAL,
    LEAD,
    ME,
    OTHER,
    TASK,
    fault,
    furnish,
    rows,
    soql,
    source_of,
    tables,
)

APEX = f"{API}/tooling/executeAnonymous"
NOTE = "069000000000001AAA"


@pytest.fixture
def org(house: House) -> House:
    return furnish(house)


# Accounts


def account(identifier: str, name: str, **more: Any) -> dict[str, Any]:
    return {"Id": identifier, "Name": name, "Owner": {"Name": "Alice Ng"}, "Description": None, **more}


async def test_an_account_and_what_hangs_on_it_in_few_queries(org: House) -> None:
    whole = account(
        ACCOUNT,
        "Acme",
        Contacts=rows(*({"Id": CONTACT, "Name": f"C{number}"} for number in range(12))),
        Opportunities=None,
        Tasks=rows({"Id": TASK, "Subject": "Ring"}),
        Notes=rows({"Title": "Old", "Body": "x" * 5000}),
        ContentDocumentLinks=rows({"ContentDocumentId": NOTE}),
    )
    calls = {"Id": ACCOUNT, "Tasks": rows({"Id": TASK, "CallDisposition": "Interested"})}
    leads = rows({"Id": LEAD, "Name": "Ana", "Company": "ACME"}, {"Id": LEAD, "ConvertedAccountId": OTHER})

    def accounts(seen: Seen) -> Json:
        return rows(calls) if seen.query["q"].startswith("SELECT Id, (SELECT") else rows(whole)

    notes = rows({"Id": NOTE, "Title": "New", "TextPreview": "short"})
    org.answer("GET", f"{API}/query", tables(Account=accounts, Lead=leads, ContentNote=notes))
    told = await org.value("Salesforce.GetAccountDataById", account_id=ACCOUNT[:15])
    assert (told["id"], told["name"], told["owner_name"]) == (ACCOUNT, "Acme", "Alice Ng")
    assert [one["name"] for one in told["contacts"]] == [f"C{number}" for number in range(10)]
    assert (told["opportunities"], told["events"], told["emails"]) == ([], [], [])
    assert told["tasks"] == [{"id": TASK, "subject": "Ring"}]
    assert told["calls"] == [{"id": TASK, "result": "Interested"}]
    assert told["leads"] == [{"id": LEAD, "name": "Ana", "company": "ACME"}]
    assert [one["title"] for one in told["notes"]] == ["Old", "New"]
    assert len(told["notes"][0]["text"]) < 2100
    assert not {"description", "unavailable", "content_notes"} & told.keys()
    first, second, third, fourth = soql(org)
    assert (
        "(SELECT Id, Title, Body, LastModifiedDate FROM Notes ORDER BY LastModifiedDate DESC LIMIT 10)"
        in first
    )
    assert first.endswith(f" FROM Account WHERE Id IN ('{ACCOUNT[:15]}') LIMIT 1")
    assert "FROM Tasks WHERE TaskSubtype = 'Call'" in second
    assert third.endswith(f" FROM ContentNote WHERE Id IN ('{NOTE}') LIMIT 1")
    assert fourth.partition(" FROM ")[2] == (
        f"Lead WHERE (ConvertedAccountId IN ('{ACCOUNT}') OR Company IN ('Acme'))"
        " ORDER BY LastModifiedDate DESC LIMIT 10"
    )
    assert len(org.seen) == 4  # nextRecordsUrl is followed nowhere


async def test_an_org_without_some_of_it_gives_the_rest(org: House) -> None:
    def accounts(seen: Seen) -> Any:
        if re.search("FROM (Emails|ContentDocumentLinks|Events)", seen.query["q"]):
            return fault("INVALID_FIELD", "Didn't understand relationship 'Emails'")
        if "(SELECT" not in seen.query["q"]:
            return rows(account(ACCOUNT, "Acme"))
        return rows({"Id": ACCOUNT, "Contacts": rows({"Id": CONTACT})})

    org.answer("GET", f"{API}/query", tables(Account=accounts, Lead=fault("INVALID_TYPE", status=400)))
    told = await org.value("Salesforce.GetAccountDataById", account_id=ACCOUNT)
    assert (told["name"], told["contacts"], told["notes"]) == ("Acme", [{"id": CONTACT}], [])
    assert told["unavailable"] == ["events", "emails", "leads"]


async def test_an_account_that_is_not_there(org: House) -> None:
    error = await org.error("Salesforce.GetAccountDataById", account_id=ACCOUNT)
    assert error.kind is Kind.NOT_FOUND
    assert len(org.seen) == 1


async def test_accounts_by_words_keep_the_order_of_their_weight(org: House) -> None:
    found = [{"Id": one} for one in (OTHER, ACCOUNT, "001000000000003AAA")]
    org.answer("GET", f"{API}/search", {"searchRecords": found})
    org.answer(
        "GET", f"{API}/query", tables(Account=rows(account(ACCOUNT, "Acme"), account(OTHER, "Acme 2")))
    )
    told = await org.value(
        "Salesforce.GetAccountDataByKeywords", query='Acme} OR {"x" & (y)*', limit=2, page=2
    )
    assert [one["id"] for one in told["accounts"]] == [OTHER, ACCOUNT]
    assert (told["page"], told["has_more"], told["next_page"]) == (2, True, 3)
    assert org.seen[0].query["q"] == (
        r"FIND {Acme\} OR \{\"x\" \& \(y\)\*} IN ALL FIELDS RETURNING Account(Id LIMIT 3 OFFSET 2)"
    )
    assert f"WHERE Id IN ('{OTHER}', '{ACCOUNT}') LIMIT 2" in soql(org)[0]


async def test_words_that_are_nowhere(org: House) -> None:
    org.answer("GET", f"{API}/search", {"searchRecords": []})
    told = await org.value("Salesforce.GetAccountDataByKeywords", query="zz")
    assert told == {"accounts": [], "page": 1, "has_more": False}
    assert len(org.seen) == 1


async def test_an_opportunity_and_what_hangs_on_it(org: House) -> None:
    deal = {
        "Id": DEAL,
        "Name": "Renewal",
        "Account": {"Name": "Acme"},
        "OpportunityContactRoles": rows({"ContactId": CONTACT, "Contact": {"Name": "Bo"}, "IsPrimary": True}),
        "OpportunityLineItems": rows({"Name": "Licence", "Quantity": 3.0, "TotalPrice": 30.0}),
        "Tasks": rows({"Id": TASK, "Subject": "Ring"}),
        "Notes": None,
    }
    org.answer("GET", f"{API}/query", tables(Opportunity=rows(deal)))
    told = await org.value("Salesforce.GetOpportunityById", opportunity_id=DEAL)
    assert told == {
        "id": DEAL,
        "name": "Renewal",
        "account_name": "Acme",
        "contact_roles": [{"contact_id": CONTACT, "name": "Bo", "is_primary": True}],
        "line_items": [{"name": "Licence", "quantity": 3.0, "total_price": 30.0}],
        "open_tasks": [{"id": TASK, "subject": "Ring"}],
        "notes": [],
    }
    [text] = soql(org)
    assert "FROM Tasks WHERE IsClosed = false ORDER BY ActivityDate ASC NULLS LAST LIMIT 10)" in text
    org.answer("GET", f"{API}/query", rows())
    assert (await org.error("Salesforce.GetOpportunityById", opportunity_id=DEAL)).kind is Kind.NOT_FOUND


# Converting


class Conversion:
    """An org in which Apex converts one lead."""

    def __init__(self, org: House, said: Json = None, *, converts: bool = True, **lead: Any) -> None:
        self.code = ""
        self.lead: dict[str, Any] = {"Id": LEAD, "OwnerId": ME, "IsConverted": False} | lead
        self._said = said or {"compiled": True, "success": True}
        self._converts = converts
        statuses = rows(
            {"MasterLabel": "Qualified", "ApiName": "Closed - Converted"}, {"MasterLabel": "Sold"}
        )
        org.answer("GET", f"{API}/query", tables(Lead=lambda _: rows(self.lead), LeadStatus=statuses))
        org.answer("GET", APEX, self._run)

    def _run(self, seen: Seen) -> Json:
        self.code = seen.query["anonymousBody"]
        if self._converts:
            self.lead |= {
                "IsConverted": True,
                "ConvertedContactId": CONTACT,
                "ConvertedAccountId": ACCOUNT,
                "ConvertedOpportunityId": None if "Opportunity(true)" in self.code else DEAL,
            }
        return self._said


def texts(code: str) -> list[str]:
    """The texts that stand coded in Apex."""
    return [base64.b64decode(coded).decode() for coded in re.findall(r"base64Decode\('([^']*)'\)", code)]


async def test_a_lead_is_converted(org: House) -> None:
    conversion = Conversion(org)
    told = await org.value("Salesforce.ConvertLead", lead_id=LEAD)
    assert told == {
        "converted": True,
        "lead_id": LEAD,
        "contact_id": CONTACT,
        "account_id": ACCOUNT,
        "opportunity_id": DEAL,
    }
    assert conversion.code == (
        "Database.LeadConvert wanted = new Database.LeadConvert();\n"
        f"wanted.setLeadId('{LEAD}');\n"
        "wanted.setConvertedStatus(EncodingUtil.base64Decode('Q2xvc2VkIC0gQ29udmVydGVk').toString());\n"
        "wanted.setDoNotCreateOpportunity(false);\n"
        "Database.convertLead(wanted);"
    )
    assert soql(org, "LeadStatus") == [
        "SELECT MasterLabel, ApiName FROM LeadStatus WHERE IsConverted = true ORDER BY SortOrder LIMIT 100"
    ]


async def test_a_queues_lead_joins_an_account_without_an_opportunity(org: House) -> None:
    conversion = Conversion(org, OwnerId="00G000000000001AAA")
    told = await org.value(
        "Salesforce.ConvertLead",
        lead_id=LEAD,
        account_id=OTHER,
        converted_status="sold",
        skip_opportunity=True,
    )
    assert "opportunity_id" not in told
    assert f"wanted.setAccountId('{OTHER}');" in conversion.code
    assert "wanted.setOwnerId(UserInfo.getUserId());" in conversion.code  # a queue owns no account
    assert texts(conversion.code) == ["Sold"]


async def test_a_name_is_a_text_in_apex_whatever_it_holds(org: House) -> None:
    conversion = Conversion(org)
    name = "Söhne'); delete [SELECT Id FROM Account]; //\\u0027 \u2028"
    await org.value("Salesforce.ConvertLead", lead_id=LEAD, opportunity_name=name)
    assert texts(conversion.code)[1] == name.strip("\u2028 ")
    bare = re.sub(r"'[A-Za-z0-9+/=]*'", "''", conversion.code)
    assert "'" not in bare.replace("''", "")
    assert "delete" not in bare


async def test_a_lead_that_is_converted_already(org: House) -> None:
    conversion = Conversion(org, IsConverted=True, ConvertedContactId=CONTACT)
    error = await org.error("Salesforce.ConvertLead", lead_id=LEAD)
    assert (error.kind, error.hint) == (Kind.BAD_REQUEST, f"It became contact_id {CONTACT}.")
    assert conversion.code == ""


async def test_a_conversion_whose_answer_was_lost_is_seen_in_the_lead(org: House) -> None:
    lost = {
        "compiled": True,
        "success": False,
        "exceptionMessage": "first error: CANNOT_UPDATE_CONVERTED_LEAD, x",
    }
    Conversion(org, lost)
    assert (await org.value("Salesforce.ConvertLead", lead_id=LEAD))["converted"] is True


@pytest.mark.parametrize(
    ("said", "kind", "words"),
    [
        (
            {
                "compiled": True,
                "success": False,
                "exceptionMessage": "System.DmlException: ConvertLead failed. First exception on row 0; "
                "first error: DUPLICATES_DETECTED, Use one\nof these records?: []",
            },
            Kind.VALIDATION_ERROR,
            "DUPLICATES_DETECTED: Use one of these records?: []",
        ),
        ({"compiled": False, "success": False, "compileProblem": "x"}, Kind.AUTH_ERROR, "Convert Leads"),
        ({"compiled": True, "success": False, "exceptionMessage": None}, Kind.UNMAPPED, "did not say why"),
        ([], Kind.UNMAPPED, "did not say why"),
    ],
    ids=["fault", "compile", "silent", "shape"],
)
async def test_a_lead_that_salesforce_does_not_convert(
    org: House, said: Json, kind: Kind, words: str
) -> None:
    Conversion(org, said, converts=False)
    error = await org.error("Salesforce.ConvertLead", lead_id=LEAD)
    assert error.kind is kind
    assert words in error.message


async def test_what_cannot_be_converted_so(org: House) -> None:
    Conversion(org)
    for given in ({"converted_status": "Lost"}, {"opportunity_name": "x", "skip_opportunity": True}):
        error = await org.error("Salesforce.ConvertLead", lead_id=LEAD, **given)
        assert error.can_retry
    org.answer("GET", f"{API}/query", rows())
    assert (await org.error("Salesforce.ConvertLead", lead_id=LEAD)).kind is Kind.NOT_FOUND
    assert all(seen.path != APEX for seen in org.seen)


# The user


async def test_who_the_user_is(org: House) -> None:
    person = {"Id": ME, "Name": "Alice Ng", "Username": "alice@acme.com", "Profile": {"Name": "Sales"}}
    company = {"Id": "00D000000000001AAA", "Name": "Acme", "IsSandbox": False}
    org.answer("GET", f"{API}/query", tables(User=rows(person), Organization=rows(company)))
    assert await org.value("Salesforce.WhoAmI") == {
        "id": ME,
        "name": "Alice Ng",
        "username": "alice@acme.com",
        "profile": "Sales",
        "organization": {"id": "00D000000000001AAA", "name": "Acme", "is_sandbox": False},
    }
    assert org.seen[0].path == API
    assert soql(org, "User")[0].endswith(f" FROM User WHERE Id = '{ME}' LIMIT 1")
    org.answer("GET", f"{API}/query", tables(User=rows(person), Organization=fault("INVALID_TYPE")))
    assert "organization" not in await org.value("Salesforce.WhoAmI")


@pytest.mark.parametrize("identity", [None, "https://login.salesforce.com/id/00D000000000001AAA/' OR 1"])
async def test_the_user_is_told_by_userinfo_where_the_resources_do_not(
    org: House, identity: str | None
) -> None:
    org.answer("GET", API, {"identity": identity})
    org.answer("GET", "/services/oauth2/userinfo", {"user_id": ME})
    assert await org.value("Salesforce.WhoAmI") == {"id": ME}
    org.answer("GET", "/services/oauth2/userinfo", {"user_id": "' OR Name != '"})
    assert (await org.error("Salesforce.WhoAmI")).kind is Kind.BAD_OUTPUT


# Refusals


@pytest.mark.parametrize(
    ("given", "kind", "words"),
    [
        (fault("NOT_FOUND", "Provided external ID does not exist", status=404), Kind.NOT_FOUND, "NOT_FOUND"),
        (fault("REQUEST_LIMIT_EXCEEDED", "Total", status=403), Kind.RATE_LIMIT, "REQUEST_LIMIT_EXCEEDED"),
        (
            fault("INSUFFICIENT_ACCESS_OR_READONLY", "insufficient access rights on object id", status=403),
            Kind.AUTH_ERROR,
            "insufficient access rights",
        ),
        (
            fault("FIELD_CUSTOM_VALIDATION_EXCEPTION", "Say why.", ["Description"]),
            Kind.BAD_REQUEST,
            "FIELD_CUSTOM_VALIDATION_EXCEPTION: Say why. (Description)",
        ),
        (fault("MALFORMED_QUERY", "unexpected token: secret words"), Kind.BAD_REQUEST, "MALFORMED_QUERY"),
        (
            Reply(500, [{"errorCode": "UNKNOWN_EXCEPTION", "message": "x"}]),
            Kind.SERVER_ERROR,
            "UNKNOWN_EXCEPTION",
        ),
        (
            Reply(400, [{"errorCode": "<b>", "message": "secret words"}, 7]),
            Kind.BAD_REQUEST,
            "request is wrong",
        ),
        (Reply(400, {"error": "secret words"}), Kind.BAD_REQUEST, "request is wrong"),
    ],
    ids=lambda given: given if isinstance(given, str) else "",
)
async def test_salesforces_errors_in_words(org: House, given: Reply, kind: Kind, words: str) -> None:
    org.answer("PATCH", f"{API}/sobjects/Task/{TASK}", given)
    error = await org.error("Salesforce.UpdateTask", task_id=TASK, subject="x")
    assert error.kind is kind
    assert words in error.message
    assert "secret" not in error.message


# Literals


def literals(text: str) -> tuple[str, list[str]]:
    """A query read as Salesforce reads it: what stands outside its literals, and the literals' contents."""
    outside, found, place = "", [], 0
    while place < len(text):
        if text[place] != "'":
            outside += text[place]
            place += 1
            continue
        content, place = "", place + 1
        while text[place] != "'":
            step = 2 if text[place] == "\\" else 1
            content += text[place + step - 1]
            place += step
        found.append(content)
        outside += "''"
        place += 1
    return outside, found


@drawn(st.text(max_size=60))
def test_no_text_leaves_its_literal(text: str) -> None:
    outside, found = literals(f"WHERE Name = {salesforce_soql.quoted(text)} AND X = 1")
    assert outside == "WHERE Name = '' AND X = 1"
    assert found == [salesforce_soql.plain(text)]
    outside, _ = literals(f"WHERE Name LIKE {salesforce_soql.contains(text)} AND X = 1")
    assert outside == "WHERE Name LIKE '' AND X = 1"


@drawn(st.text(min_size=2, max_size=60))
def test_no_text_leaves_its_braces(text: str) -> None:
    try:
        term = salesforce_soql.search_term(text)
    except ToolError:
        return
    bare = re.sub(r"\\.", "", term)
    assert not set(bare) & set("{}?&|!()[]^~*:\\\"'+-")


def test_a_query_is_read_as_it_was_meant() -> None:
    assert (
        source_of("SELECT Id, (SELECT Id FROM Tasks WHERE X IN ('a') LIMIT 1) FROM Account LIMIT 1")
        == "Account"
    )
