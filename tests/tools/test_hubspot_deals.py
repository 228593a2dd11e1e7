"""HubSpot: deals, their pipelines, and the people of an account, over the real path."""

from __future__ import annotations

from typing import Any

import pytest

from authproxy.tools.tool import Kind
from tests.tools.hubspot_portal import PIPELINES, Portal, stage
from tests.tools.kit import House, Reply


@pytest.fixture
def portal(house: House) -> Portal:
    return Portal.of(house)


def deal_of(portal: Portal, **more: str) -> int:
    return portal.add(
        "deals", **{"dealname": "Big", "pipeline": "default", "dealstage": "appointmentscheduled"} | more
    )


async def test_a_deal_is_made_moved_and_read(house: House, portal: Portal) -> None:
    made = await house.value(
        "Hubspot.CreateDeal",
        deal_name="Big",
        deal_amount=1500000.5,
        deal_stage="Qualified to buy",
        deal_type="newbusiness",
        expected_close_date="2026-03-31",
        pipeline_id="default",
        deal_owner="bob@acme.example",
        priority_level="high",
        deal_description="A < B",
    )
    assert [one.path for one in house.seen] == [
        "/crm/v3/owners",
        "/crm/v3/pipelines/deals",
        "/crm/v3/objects/deals",
    ]
    assert house.seen[-1].json == {
        "properties": {
            "dealname": "Big",
            "amount": "1500000.5",
            "dealtype": "newbusiness",
            "hs_priority": "high",
            "description": "A < B",
            "closedate": "2026-03-31T12:00:00Z",
            "hubspot_owner_id": "6166861",
            "pipeline": "default",
            "dealstage": "qualifiedtobuy",
        }
    }
    deal = made["deal"]["id"]
    assert made["deal"]["deal_amount"] == 1500000.5
    shown = await house.value(
        "Hubspot.UpdateDealStage", deal_id=deal, deal_stage="closedwon", associations_limit=0
    )
    assert shown["updated"] is True
    assert shown["deal"]["deal_stage_label"] == "Closed won"
    assert shown["deal"]["pipeline_label"] == "Sales Pipeline"
    dated = await house.value("Hubspot.UpdateDealCloseDate", deal_id=deal, expected_close_date="2026-04-01")
    assert dated["deal"]["expected_close_date"] == "2026-04-01T12:00:00Z"
    assert portal.held("deals", deal)["closedate"] == "2026-04-01T12:00:00Z"
    contact = portal.add("contacts", firstname="Ana")
    done = await house.value("Hubspot.AssociateContactToDeal", deal_id=deal, contact_id=contact)
    assert done == {"associated": True, "deal_id": deal, "contact_id": contact}
    assert house.seen[-1].path == f"/crm/v4/objects/deals/{deal}/associations/contacts/{contact}"
    assert house.seen[-1].json == [{"associationCategory": "HUBSPOT_DEFINED", "associationTypeId": 3}]
    read = await house.value("Hubspot.GetDealById", deal_id=deal)
    assert read["deal"]["associated"] == {"contacts": [{"id": contact, "first_name": "Ana"}]}
    assert read["deal"]["owner_id"] == 6166861
    listed = await house.value("Hubspot.ListDeals", contact_id=contact, associations_limit=0)
    assert [one["id"] for one in listed["deals"]] == [deal]
    assert listed["deals"][0]["deal_stage_label"] == "Closed won"
    found = await house.value("Hubspot.GetDealDataByKeywords", keywords="big", limit=50)
    assert found["deals"][0]["id"] == deal
    searches = [one.json for one in house.seen if one.path.endswith("/deals/search")]
    assert [(one.get("query"), one["limit"]) for one in searches] == [(None, 10), ("big", 10)]


async def test_a_deal_goes_where_nothing_is_said_and_where_only_the_stage_is(
    house: House, portal: Portal
) -> None:
    await house.value("Hubspot.CreateDeal", deal_name="A")
    assert house.seen[-1].json["properties"] == {
        "dealname": "A",
        "pipeline": "default",
        "dealstage": "appointmentscheduled",
    }
    await house.value("Hubspot.CreateDeal", deal_name="B", deal_stage="talks")
    assert house.seen[-1].json["properties"]["pipeline"] == "7751203"
    assert house.seen[-1].json["properties"]["dealstage"] == "9001"
    # both pipelines have one of this name: the default one is meant
    await house.value("Hubspot.CreateDeal", deal_name="C", deal_stage="Closed Won")
    assert house.seen[-1].json["properties"]["dealstage"] == "closedwon"
    await house.value("Hubspot.CreateDeal", deal_name="D", deal_stage="Closed Won", pipeline_id="renewals")
    assert house.seen[-1].json["properties"]["dealstage"] == "9002"


async def test_a_stage_or_pipeline_that_is_not_there_names_those_that_are(
    house: House, portal: Portal
) -> None:
    error = await house.error(
        "Hubspot.CreateDeal", deal_name="A", deal_stage="qualified", pipeline_id="default"
    )
    assert error.kind is Kind.RETRY
    assert "qualifiedtobuy (Qualified To Buy)" in (error.hint or "")
    error = await house.error("Hubspot.CreateDeal", deal_name="A", deal_stage="Gone")
    assert error.kind is Kind.RETRY
    error = await house.error("Hubspot.CreateDeal", deal_name="A", pipeline_id="Sails")
    assert (error.hint or "").startswith("Choose by id: ")
    assert "7751203 (Renewals)" in (error.hint or "")
    assert portal.objects["deals"] == {}


async def test_without_a_look_at_pipelines_what_is_given_is_sent(house: House, portal: Portal) -> None:
    portal.forbidden = ("/crm/v3/pipelines",)
    await house.value("Hubspot.CreateDeal", deal_name="A", deal_stage="9001", pipeline_id="7751203")
    assert house.seen[-1].json["properties"] == {
        "dealname": "A",
        "pipeline": "7751203",
        "dealstage": "9001",
    }
    deal = deal_of(portal)
    read = await house.value("Hubspot.GetDealById", deal_id=deal)
    assert "deal_stage_label" not in read["deal"]


async def test_another_pipeline_only_where_it_is_allowed(house: House, portal: Portal) -> None:
    deal = deal_of(portal)
    error = await house.error("Hubspot.UpdateDealStage", deal_id=deal, deal_stage="Talks")
    assert error.kind is Kind.RETRY
    assert "9001 (Talks) is of pipeline 7751203 (Renewals)" in error.message
    assert "allow_pipeline_change" in (error.hint or "")
    moved = await house.value(
        "Hubspot.UpdateDealStage", deal_id=deal, deal_stage="Talks", allow_pipeline_change=True
    )
    assert (moved["deal"]["pipeline_id"], moved["deal"]["deal_stage"]) == ("7751203", "9001")
    patch = next(one for one in house.seen if one.method == "PATCH")
    assert patch.json == {"properties": {"pipeline": "7751203", "dealstage": "9001"}}


async def test_the_current_pipeline_saves_a_look(house: House, portal: Portal) -> None:
    deal = deal_of(portal)
    await house.value(
        "Hubspot.UpdateDealStage", deal_id=deal, deal_stage="Closed won", current_pipeline_id="default"
    )
    assert [(one.method, one.path) for one in house.seen[:2]] == [
        ("GET", "/crm/v3/pipelines/deals"),
        ("PATCH", f"/crm/v3/objects/deals/{deal}"),
    ]
    assert house.seen[1].json == {"properties": {"dealstage": "closedwon"}}


async def test_a_stage_of_several_pipelines_must_be_said_by_id(
    house: House, portal: Portal, monkeypatch: pytest.MonkeyPatch
) -> None:
    third = {"id": "88", "label": "Third", "displayOrder": 2, "stages": [stage("881", "Talks", 0, "0.1")]}
    monkeypatch.setitem(third, "archived", False)
    house.answer("GET", "/crm/v3/pipelines/deals", {"results": [*PIPELINES, third]})
    deal = deal_of(portal)
    error = await house.error(
        "Hubspot.UpdateDealStage", deal_id=deal, deal_stage="Talks", allow_pipeline_change=True
    )
    assert error.kind is Kind.RETRY
    assert "9001 (Talks) in pipeline 7751203 (Renewals); 881 (Talks) in pipeline 88 (Third)" in (
        error.hint or ""
    )


async def test_what_fails_after_the_change_does_not_hide_it(house: House, portal: Portal) -> None:
    deal = deal_of(portal)
    portal.failing["/crm/v4/associations/deals/notes/batch/read"] = Reply(503, {"message": "busy"})
    moved = await house.value("Hubspot.UpdateDealStage", deal_id=deal, deal_stage="closedwon")
    assert moved["updated"] is True
    assert moved["not_available"] == ["notes"]
    portal.failing[f"/crm/v3/objects/deals/{deal}"] = Reply(500, {})
    error = await house.error("Hubspot.UpdateDealCloseDate", deal_id=deal, expected_close_date="2026-04-01")
    assert error.kind is Kind.SERVER_ERROR  # the change itself


async def test_a_change_is_told_where_the_deal_cannot_be_read_after_it(house: House, portal: Portal) -> None:
    deal = deal_of(portal)
    house.answer("GET", f"/crm/v3/objects/deals/{deal}", Reply(503, {}))
    done = await house.value("Hubspot.UpdateDealCloseDate", deal_id=deal, expected_close_date="2026-04-01")
    assert done["updated"] is True
    assert done["deal"]["expected_close_date"] == "2026-04-01T12:00:00Z"
    assert done["not_available"]


async def test_a_deal_is_changed(house: House, portal: Portal) -> None:
    deal = deal_of(portal)
    deal_of(portal, dealname="Small")
    done = await house.value(
        "Hubspot.UpdateDeal",
        keywords="big",
        deal_amount=12,
        deal_stage="Closed won",
        deal_type="Existing Business",
        priority_level="Low",
        deal_owner="Alice Ångström",
    )
    assert done["updated"] is True
    patch = next(one for one in house.seen if one.method == "PATCH")
    assert patch.path.endswith(f"/{deal}")
    assert patch.json == {
        "properties": {
            "amount": "12",
            "dealtype": "existingbusiness",
            "hs_priority": "low",
            "hubspot_owner_id": "6166860",
            "dealstage": "closedwon",
        }
    }
    error = await house.error("Hubspot.UpdateDeal", deal_id=deal, deal_stage="Talks")
    assert error.kind is Kind.RETRY
    assert "UpdateDealStage" in (error.hint or "")
    error = await house.error("Hubspot.UpdateDeal", deal_id=deal)
    assert error.kind is Kind.BAD_INPUT
    await house.value("Hubspot.UpdateDeal", deal_id=deal, deal_type="Upsell Q1")
    assert portal.held("deals", deal)["dealtype"] == "Upsell Q1"
    error = await house.error("Hubspot.UpdateDeal", deal_id=deal, deal_type="other")
    assert error.message.endswith(
        "dealtype: other was not one of the allowed options: ['Upsell Q1', 'existingbusiness', 'newbusiness']"
    )


@pytest.mark.parametrize("date", ["soon", "2026-02-30", "01/02/2026", ""])
async def test_a_close_date_that_is_none(house: House, portal: Portal, date: str) -> None:
    error = await house.error("Hubspot.UpdateDealCloseDate", deal_id=1, expected_close_date=date)
    assert error.kind is Kind.BAD_INPUT
    assert "2026-01-31" in error.message
    assert house.seen == []


async def test_a_deal_that_is_not_there(house: House, portal: Portal) -> None:
    assert (await house.error("Hubspot.GetDealById", deal_id=1)).kind is Kind.NOT_FOUND
    error = await house.error("Hubspot.UpdateDealStage", deal_id=1, deal_stage="closedwon")
    assert error.kind is Kind.NOT_FOUND


async def test_pipelines_are_listed_in_order_and_searched(house: House, portal: Portal) -> None:
    found = await house.value("Hubspot.GetDealPipelines")
    assert [one["id"] for one in found["pipelines"]] == ["default", "7751203"]
    assert found["pipelines"][1]["stages"] == [
        {"id": "9001", "label": "Talks", "probability": 0.4},
        {"id": "9002", "label": "Closed won", "probability": 1.0, "closed": True},
    ]
    assert (await house.value("Hubspot.GetDealPipelines", search="RENEW"))["count"] == 1
    assert (await house.value("Hubspot.GetDealPipelines", search="7751"))["count"] == 1
    assert (await house.value("Hubspot.GetDealPipelines", search="none")) == {"pipelines": [], "count": 0}
    many = [{**PIPELINES[0], "id": str(n), "label": f"P{n}"} for n in range(35)]
    house.answer("GET", "/crm/v3/pipelines/deals", {"results": many})
    found = await house.value("Hubspot.GetDealPipelines")
    assert (len(found["pipelines"]), found["count"]) == (30, 35)
    assert "search" in found["note"]


@pytest.mark.parametrize("name", ["7751203", "Renewals", " renewals "])
async def test_stages_of_a_pipeline_by_id_or_label(house: House, portal: Portal, name: str) -> None:
    found = await house.value("Hubspot.GetDealPipelineStages", pipeline_id=name)
    assert found["pipeline_id"] == "7751203"
    assert [one["id"] for one in found["stages"]] == ["9001", "9002"]


async def test_users_are_listed_over_all_pages(house: House, portal: Portal) -> None:
    found = await house.value("Hubspot.GetAllUsers")
    assert found["count"] == 3
    assert found["users"][0] == {
        "id": 6166860,
        "user_id": 1296619,
        "name": "Alice Ångström",
        "email": "alice@acme.example",
        "type": "PERSON",
        "teams": ["West"],
        "active": True,
    }
    assert [dict(one.query) for one in house.seen] == [{"limit": "500"}, {"limit": "500", "after": "2"}]


async def test_users_without_end_are_bounded(house: House, portal: Portal) -> None:
    row = {"id": "1", "email": "a@b.example", "archived": False}
    house.answer("GET", "/crm/v3/owners", {"results": [row], "paging": {"next": {"after": "x"}}})
    found = await house.value("Hubspot.GetAllUsers")
    assert len(house.seen) == found["count"] == 10
    assert "first 10" in found["note"]


@pytest.mark.parametrize(
    ("one", "name", "active"),
    [(6166861, "Bob Ray", True), (5000001, "Olga Old", False), (1296620, "Bob Ray", True)],
)
async def test_a_user_by_owner_id_or_user_id(
    house: House, portal: Portal, one: int, name: str, active: bool
) -> None:
    found = await house.value("Hubspot.GetUserById", owner_id=one)
    assert (found["user"]["name"], found["user"]["active"]) == (name, active)


async def test_a_user_who_is_not_there(house: House, portal: Portal) -> None:
    error = await house.error("Hubspot.GetUserById", owner_id=1)
    assert error.kind is Kind.NOT_FOUND
    assert "GetAllUsers" in (error.hint or "")


@pytest.mark.parametrize(
    ("owner", "kind", "words"),
    [
        ("nobody@acme.example", Kind.RETRY, "no user of this HubSpot account"),
        ("me", Kind.RETRY, "no user of this HubSpot account"),
        ("ray", Kind.RETRY, "several users"),
        ("zed", Kind.RETRY, "no user"),
        (" ", Kind.BAD_INPUT, "empty"),
        ("99", Kind.BAD_REQUEST, "Owner 99 does not exist"),
    ],
)
async def test_an_owner_who_is_not_one(
    house: House, portal: Portal, owner: str, kind: Kind, words: str
) -> None:
    error = await house.error("Hubspot.CreateDeal", deal_name="A", deal_owner=owner)
    assert error.kind is kind
    assert words in error.message
    if owner == "ray":
        assert "6166861 = Bob Ray, bob@acme.example" in (error.hint or "")


async def test_an_owner_by_name_needs_the_scope_and_says_so(house: House, portal: Portal) -> None:
    portal.forbidden = ("/crm/v3/owners",)
    error = await house.error("Hubspot.CreateDeal", deal_name="A", deal_owner="bob@acme.example")
    assert error.kind is Kind.AUTH_ERROR
    assert "crm.objects.owners.read" in error.message
    await house.value("Hubspot.CreateDeal", deal_name="A", deal_owner=6166861)
    assert house.seen[-1].json["properties"]["hubspot_owner_id"] == "6166861"


async def test_who_the_user_is() -> None:
    async with House.running("alice@acme.example", "u-17") as house:
        portal = Portal.of(house)
        known = await house.value("Hubspot.WhoAmI", "alice@acme.example")
        assert known["user"]["id"] == 6166860
        assert known["account"] == {
            "portal_id": 123456,
            "account_type": "STANDARD",
            "time_zone": "US/Eastern",
            "utc_offset": "-05:00",
            "currency": "USD",
            "ui_domain": "app.hubspot.com",
            "data_hosting_location": "na1",
        }
        mine = await house.value("Hubspot.CreateDeal", "alice@acme.example", deal_name="A", deal_owner="me")
        assert mine["deal"]["owner_id"] == 6166860
        portal.forbidden = ("/crm/v3/owners",)
        unread = await house.value("Hubspot.WhoAmI", "alice@acme.example")
        assert (unread["user"], unread["account"]) == (None, known["account"])
        unknown = await house.value("Hubspot.WhoAmI", "u-17")
        assert unknown["user"] is None
        assert "GetAllUsers" in unknown["note"]
        # no token in a URL, ever
        assert not any("access-tokens" in one.path for one in house.seen)


async def test_the_guidance_needs_no_request(house: House, portal: Portal) -> None:
    found: Any = await house.value("Hubspot.ToolkitEnviromentGuidance")
    assert len(found["guidance"]) > 8
    assert house.seen == []
