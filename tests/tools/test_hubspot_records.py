"""HubSpot: companies and contacts, over the real path to an account that keeps its records."""

from __future__ import annotations

from typing import Any

import pytest

from authproxy.tools.tool import Kind
from tests.tools.hubspot_portal import Portal
from tests.tools.kit import House, Reply


@pytest.fixture
def portal(house: House) -> Portal:
    return Portal.of(house)


def requests(house: House) -> list[tuple[str, str]]:
    return [(one.method, one.path) for one in house.seen]


async def test_a_company_is_made_found_changed_and_read(house: House, portal: Portal) -> None:
    made = await house.value(
        "Hubspot.CreateCompany",
        company_name="Žluťoučký Soft & Co",
        web_domain="soft.example",
        industry_type="computer software",
        company_city="Brno",
        phone_number="+420 1",
    )
    company = made["company"]
    assert made["created"] is True
    assert company["company_name"] == "Žluťoučký Soft & Co"
    assert company["industry_type"] == "COMPUTER_SOFTWARE"
    assert requests(house) == [
        ("GET", "/crm/v3/properties/companies/industry"),
        ("POST", "/crm/v3/objects/companies"),
    ]
    assert house.seen[-1].json == {
        "properties": {
            "name": "Žluťoučký Soft & Co",
            "domain": "soft.example",
            "industry": "COMPUTER_SOFTWARE",
            "city": "Brno",
            "phone": "+420 1",
        }
    }
    found = await house.value("Hubspot.GetCompanyDataByKeywords", keywords="Žluťoučký", associations_limit=0)
    assert [one["id"] for one in found["companies"]] == [company["id"]]
    assert found["total"] == found["count"] == 1
    assert "next_page_token" not in found
    changed = await house.value(
        "Hubspot.UpdateCompany",
        company_id=company["id"],
        website_url="https://soft.example",
        company_state="",
    )
    assert changed["updated"] is True
    assert house.seen[-1].path == f"/crm/v3/objects/companies/{company['id']}"
    assert house.seen[-1].json == {"properties": {"state": "", "website": "https://soft.example"}}
    assert portal.held("companies", company["id"])["website"] == "https://soft.example"
    again = await house.value("Hubspot.UpdateCompany", keywords="soft.example", company_city="Praha")
    assert again["company"]["id"] == company["id"]
    assert portal.held("companies", company["id"])["city"] == "Praha"


async def test_an_industry_goes_by_its_label_and_an_unknown_one_names_near_ones(
    house: House, portal: Portal
) -> None:
    made = await house.value(
        "Hubspot.CreateCompany", company_name="A", industry_type="Information technology and services"
    )
    assert made["company"]["industry_type"] == "INFORMATION_TECHNOLOGY_AND_SERVICES"
    error = await house.error("Hubspot.CreateCompany", company_name="B", industry_type="Software")
    assert error.kind is Kind.RETRY
    assert error.can_retry
    assert "COMPUTER_SOFTWARE" in (error.hint or "")
    assert len(portal.objects["companies"]) == 1


async def test_industries_are_the_accounts_or_the_standard_ones(house: House, portal: Portal) -> None:
    own = await house.value("Hubspot.GetAvailableIndustryTypes")
    assert own == ["ACCOUNTING", "BEEKEEPING", "COMPUTER_SOFTWARE", "INFORMATION_TECHNOLOGY_AND_SERVICES"]
    portal.forbidden = ("/crm/v3/properties",)
    standard = await house.value("Hubspot.GetAvailableIndustryTypes")
    assert standard == sorted(standard)
    assert {"ACCOUNTING", "BANKING", "WRITING_AND_EDITING"} <= set(standard)
    assert len(standard) == 147
    # an unknown one may be the account's own, which could not be read: HubSpot judges
    made = await house.value("Hubspot.CreateCompany", company_name="C", industry_type="Beekeeping")
    assert made["company"]["industry_type"] == "BEEKEEPING"


async def test_a_contact_is_made_for_a_company(house: House, portal: Portal) -> None:
    company = portal.add("companies", name="Acme")
    made = await house.value(
        "Hubspot.CreateContact",
        company_id=company,
        first_name="Ana",
        last_name="Ruiz",
        email="ana@acme.example",
        mobile_phone="1",
        job_title="CTO",
    )
    assert made["associated_with"] == {"company_id": company}
    assert made["contact"]["first_name"] == "Ana"
    assert requests(house) == [("POST", "/crm/v3/objects/contacts")]
    assert house.seen[0].json == {
        "properties": {
            "firstname": "Ana",
            "lastname": "Ruiz",
            "email": "ana@acme.example",
            "mobilephone": "1",
            "jobtitle": "CTO",
        },
        "associations": [
            {
                "to": {"id": str(company)},
                "types": [{"associationCategory": "HUBSPOT_DEFINED", "associationTypeId": 279}],
            }
        ],
    }
    found = await house.value("Hubspot.GetContactDataByKeywords", keywords="ana ruiz", limit=1)
    assert found["contacts"][0]["associated"] == {"companies": [{"id": company, "company_name": "Acme"}]}


async def test_a_second_contact_with_the_address_names_the_first(house: House, portal: Portal) -> None:
    company = portal.add("companies", name="Acme")
    first = portal.add("contacts", firstname="Ana", email="ana@acme.example")
    error = await house.error(
        "Hubspot.CreateContact", company_id=company, first_name="Ana", email="ana@acme.example"
    )
    assert error.kind is Kind.RETRY
    assert f"contact_id {first}" in error.message
    assert "UpdateContact" in (error.hint or "")
    assert error.status == 409


async def test_a_contact_of_a_company_that_is_not_there(house: House, portal: Portal) -> None:
    error = await house.error("Hubspot.CreateContact", company_id=77, first_name="Ana")
    assert error.kind is Kind.BAD_REQUEST
    assert "Object ids do not exist: [77]" in error.message


async def test_a_contact_is_changed_by_id_or_as_the_only_match(house: House, portal: Portal) -> None:
    ana = portal.add("contacts", firstname="Ana", lastname="Ruiz", email="ana@acme.example")
    portal.add("contacts", firstname="Anatol", lastname="Kern", email="tol@acme.example")
    await house.value("Hubspot.UpdateContact", contact_id=ana, phone="7")
    assert requests(house) == [("PATCH", f"/crm/v3/objects/contacts/{ana}")]
    done = await house.value("Hubspot.UpdateContact", keywords="ruiz", job_title="CEO")
    assert done["contact"]["id"] == ana
    assert house.seen[1].json["query"] == "ruiz"
    assert portal.held("contacts", ana) | {"phone": "7", "jobtitle": "CEO"} == portal.held("contacts", ana)


async def test_several_matches_change_nothing_and_are_named(house: House, portal: Portal) -> None:
    ids = [portal.add("contacts", firstname=f"Ana {n}", email=f"ana{n}@acme.example") for n in range(4)]
    error = await house.error("Hubspot.UpdateContact", keywords="ana", phone="7", matches_limit=2)
    assert error.kind is Kind.RETRY
    assert error.can_retry
    assert error.message.startswith("4 contacts match")
    hint = error.hint or ""
    assert hint == (
        f"Candidates: contact_id {ids[0]}: Ana 0, ana0@acme.example; "
        f"contact_id {ids[1]}: Ana 1, ana1@acme.example"
    )
    assert all(one.method != "PATCH" for one in house.seen)
    assert house.seen[0].json["limit"] == 2
    one = await house.error("Hubspot.UpdateContact", keywords="ana", phone="7", matches_limit=1)
    assert (one.hint or "").count("contact_id") == 1


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"phone": "7"}, "Say which contact"),
        ({"contact_id": 5}, "Nothing to change"),
        ({"keywords": "ana"}, "Nothing to change"),
        ({"keywords": "  ", "phone": "7"}, "keywords is empty"),
        ({"keywords": "* ?", "phone": "7"}, "keywords is empty"),
        ({"keywords": "x" * 3001, "phone": "7"}, "too long"),
        ({"keywords": "ana", "phone": "7", "matches_limit": 0}, "matches_limit must be 1"),
    ],
)
async def test_an_update_says_what_it_lacks(
    house: House, portal: Portal, given: dict[str, Any], words: str
) -> None:
    error = await house.error("Hubspot.UpdateContact", **given)
    assert error.kind is Kind.BAD_INPUT
    assert words in error.message
    assert house.seen == []


async def test_a_lone_match_that_is_merely_alike_is_not_changed(house: House, portal: Portal) -> None:
    row = {"id": "7", "properties": {"firstname": "Ana", "lastname": "Lopez", "email": None}}
    house.answer("POST", "/crm/v3/objects/contacts/search", {"total": 1, "results": [row]})
    error = await house.error("Hubspot.UpdateContact", keywords="Ana Ruiz", phone="7")
    assert error.kind is Kind.RETRY
    assert (error.hint or "").endswith("contact_id 7: Ana, Lopez")
    assert [one.method for one in house.seen] == ["POST"]


async def test_no_match_is_told(house: House, portal: Portal) -> None:
    error = await house.error("Hubspot.UpdateContact", keywords="nobody", phone="7")
    assert error.kind is Kind.RETRY
    assert "nothing was changed" in error.message


async def test_an_update_of_what_is_not_there(house: House, portal: Portal) -> None:
    error = await house.error("Hubspot.UpdateCompany", company_id=404, company_city="X")
    assert error.kind is Kind.NOT_FOUND
    assert "Object not found" in error.message


async def test_a_list_has_its_order_its_filters_and_its_pages(house: House, portal: Portal) -> None:
    company = portal.add("companies", name="Acme")
    ids = [portal.add("contacts", firstname=name) for name in ("Cyd", "ana", "Bo")]
    for one in ids[:2]:
        portal.link("contacts", one, "companies", company, 279)
    latest = await house.value("Hubspot.ListContacts", limit=2, associations_limit=0)
    assert [one["first_name"] for one in latest["contacts"]] == ["Bo", "ana"]
    assert latest["total"] == 3
    rest = await house.value(
        "Hubspot.ListContacts", limit=2, associations_limit=0, next_page_token=latest["next_page_token"]
    )
    assert [one["first_name"] for one in rest["contacts"]] == ["Cyd"]
    assert house.seen[0].json["sorts"] == [{"propertyName": "lastmodifieddate", "direction": "DESCENDING"}]
    assert house.seen[1].json["after"] == "2"
    oldest = await house.value("Hubspot.ListContacts", sort_order="OLDEST_MODIFIED", associations_limit=0)
    assert oldest["contacts"][0]["first_name"] == "Cyd"
    named = await house.value("Hubspot.ListContacts", sort_order="ALPHABETICAL", company_id=company)
    assert [one["first_name"] for one in named["contacts"]] == ["ana", "Cyd"]
    assert named["contacts"][0]["associated"]["companies"][0]["id"] == company
    searched = next(one for one in house.seen if "filterGroups" in (one.json or {}))
    assert searched.json["filterGroups"] == [
        {"filters": [{"propertyName": "associations.company", "operator": "EQ", "value": str(company)}]}
    ]
    none = await house.value("Hubspot.ListContacts", company_id=company, deal_id=1)
    assert none["contacts"] == []


async def test_companies_are_listed_by_name(house: House, portal: Portal) -> None:
    for name in ("Beta", "Alpha"):
        portal.add("companies", name=name, numberofemployees="12")
    found = await house.value("Hubspot.ListCompanies", sort_order="ALPHABETICAL", limit=500)
    assert [one["company_name"] for one in found["companies"]] == ["Alpha", "Beta"]
    assert found["companies"][0]["employees"] == 12
    assert house.seen[0].json["limit"] == 50
    assert house.seen[0].json["sorts"] == [{"propertyName": "name", "direction": "ASCENDING"}]
    # none of the two is associated with anything: one look for each type, nothing to read after it
    assert {one.path for one in house.seen[1:]} == {
        f"/crm/v4/associations/companies/{other}/batch/read"
        for other in ("contacts", "deals", "calls", "emails", "meetings", "notes", "tasks")
    }


async def test_an_empty_account_costs_one_request(house: House, portal: Portal) -> None:
    assert await house.value("Hubspot.ListCompanies") == {"companies": [], "count": 0, "total": 0}
    assert len(house.seen) == 1


async def test_associated_objects_are_bounded_and_the_newest_activities_first(
    house: House, portal: Portal
) -> None:
    company = portal.add("companies", name="Acme")
    contacts = [portal.add("contacts", firstname=f"C{n}") for n in range(3)]
    notes = [
        portal.add("notes", hs_note_body=f"<p>note {n} " + "x" * 400, hs_timestamp="2026-01-01T00:00:00Z")
        for n in range(3)
    ]
    for one in contacts:
        portal.link("contacts", one, "companies", company, 279)
    portal.link("contacts", contacts[0], "companies", company, 1)
    for one in notes:
        portal.link("notes", one, "companies", company, 190)
    found = await house.value("Hubspot.GetCompanyDataByKeywords", keywords="acme", associations_limit=2)
    shown = found["companies"][0]
    assert [one["id"] for one in shown["associated"]["contacts"]] == contacts[:2]
    assert shown["associated"]["contacts"][0] == {
        "id": contacts[0],
        "first_name": "C0",
        "labels": ["Primary"],
    }
    assert [one["id"] for one in shown["associated"]["notes"]] == notes[:0:-1]
    assert len(shown["associated"]["notes"][0]["preview"]) < 240
    assert shown["more_associated"] == {"contacts": 1, "notes": 1}
    read = next(one for one in house.seen if one.path == "/crm/v3/objects/contacts/batch/read")
    assert read.json == {
        "properties": ["firstname", "lastname", "email", "phone", "jobtitle"],
        "inputs": [{"id": str(one)} for one in contacts[:2]],
    }


async def test_an_associated_object_that_is_gone_is_shown_by_its_id(house: House, portal: Portal) -> None:
    company = portal.add("companies", name="Acme")
    portal.link("contacts", 9999, "companies", company, 279)
    found = await house.value("Hubspot.ListCompanies")
    assert found["companies"][0]["associated"] == {"contacts": [{"id": 9999}]}


async def test_a_type_that_may_not_be_read_is_named_and_the_rest_is_there(
    house: House, portal: Portal
) -> None:
    company = portal.add("companies", name="Acme")
    portal.forbidden = ("/crm/v4/associations/companies/emails",)
    found = await house.value("Hubspot.ListCompanies")
    assert found["companies"][0]["id"] == company
    assert found["not_available"] == ["emails"]


async def test_a_limit_of_hubspots_is_not_taken_for_nothing(house: House, portal: Portal) -> None:
    portal.add("companies", name="Acme")
    limit = {
        "status": "error",
        "message": "You have reached your ten_secondly_rolling limit.",
        "category": "RATE_LIMITS",
    }
    portal.failing["/crm/v4/associations/companies/notes/batch/read"] = Reply(
        429, {**limit, "errorType": "RATE_LIMIT", "policyName": "TEN_SECONDLY_ROLLING"}
    )
    error = await house.error("Hubspot.ListCompanies")
    assert error.kind is Kind.RATE_LIMIT
    assert error.can_retry
    assert error.retry_after_ms == 10_000


@pytest.mark.parametrize("token", ["abc", "-5", "10000", "²"])
async def test_a_page_token_that_is_none(house: House, portal: Portal, token: str) -> None:
    error = await house.error("Hubspot.ListCompanies", next_page_token=token)
    assert error.kind is Kind.BAD_INPUT
    assert house.seen == []


async def test_the_end_of_what_a_search_gives_is_told(house: House, portal: Portal) -> None:
    answer = {"total": 20_000, "results": [], "paging": {"next": {"after": "10000"}}}
    house.answer("POST", "/crm/v3/objects/companies/search", answer)
    found = await house.value("Hubspot.ListCompanies", next_page_token="9990")
    assert "next_page_token" not in found
    assert "10000" in found["note"]
    await house.value("Hubspot.ListCompanies", next_page_token="9997")
    assert house.seen[-1].json["limit"] == 3  # a page that reaches beyond the end is refused whole


async def test_a_limit_below_one(house: House, portal: Portal) -> None:
    assert (await house.error("Hubspot.ListCompanies", limit=0)).kind is Kind.BAD_INPUT
    assert (await house.error("Hubspot.ListCompanies", associations_limit=-1)).kind is Kind.BAD_INPUT
