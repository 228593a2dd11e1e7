"""HubSpot: activities are logged, found, changed and put to deals, over the real path."""

from __future__ import annotations

import json
from typing import Any

import pytest

from authproxy.tools.tool import Kind
from tests.tools.hubspot_portal import Portal
from tests.tools.kit import House, Reply

WHEN = "2026-01-31T14:30:00Z"


@pytest.fixture
def portal(house: House) -> Portal:
    return Portal.of(house)


def spec(type_id: int) -> list[dict[str, Any]]:
    return [{"associationCategory": "HUBSPOT_DEFINED", "associationTypeId": type_id}]


async def test_a_call_is_logged_found_and_changed(house: House, portal: Portal) -> None:
    contact, deal = portal.add("contacts", firstname="Ana"), portal.add("deals", dealname="Big")
    made = await house.value(
        "Hubspot.CreateCallActivity",
        title="Renewal",
        when_occurred="2026-01-31T14:30:00",
        direction="OUTBOUND",
        summary="She said <3 & yes\nnext week",
        duration=90,
        to_number="+1",
        from_number="+2",
        associate_to_contact_id=contact,
        associate_to_deal_id=deal,
    )
    assert [one.path for one in house.seen] == ["/account-info/v3/details", "/crm/v3/objects/calls"]
    assert house.seen[1].json == {
        "properties": {
            "hs_call_title": "Renewal",
            "hs_call_direction": "OUTBOUND",
            "hs_call_body": "She said &lt;3 &amp; yes<br>next week",
            "hs_call_duration": "90000",
            "hs_call_to_number": "+1",
            "hs_call_from_number": "+2",
            "hs_timestamp": "2026-01-31T19:30:00Z",
        },
        "associations": [
            {"to": {"id": str(contact)}, "types": spec(194)},
            {"to": {"id": str(deal)}, "types": spec(206)},
        ],
    }
    call = made["call"]
    assert made["assumed_time_zone"] == "US/Eastern"
    assert made["associated_with"] == {"contact_id": contact, "deal_id": deal}
    assert call["summary"] == "She said <3 & yes\nnext week"
    assert call["duration"] == 90
    assert call["when_occurred"] == "2026-01-31T19:30:00Z"
    found = await house.value("Hubspot.GetCallDataByKeywords", search_terms="renewal")
    assert found["calls"][0]["id"] == call["id"]
    assert found["calls"][0]["associated"] == {
        "contacts": [{"id": contact, "first_name": "Ana"}],
        "deals": [{"id": deal, "deal_name": "Big"}],
    }
    changed = await house.value(
        "Hubspot.UpdateCallActivity", keywords="renewal", duration=30, direction="INBOUND"
    )
    assert house.seen[-1].json == {
        "properties": {"hs_call_direction": "INBOUND", "hs_call_duration": "30000"}
    }
    assert changed["call"]["id"] == call["id"]
    by_id = await house.value("Hubspot.UpdateCallActivity", call_id=call["id"], when_occurred=WHEN)
    assert "assumed_time_zone" not in by_id
    assert portal.held("calls", call["id"])["hs_timestamp"] == WHEN


async def test_a_message_is_logged_found_by_its_words_and_changed(house: House, portal: Portal) -> None:
    company = portal.add("companies", name="Acme")
    made = await house.value(
        "Hubspot.CreateCommunicationActivity",
        channel="WHATS_APP",
        when_occurred="2026-01-31T14:30:00+01:00",
        body_text="Grüße aus Köln, bis bald",
        associate_to_company_id=company,
    )
    assert house.seen[0].json == {
        "properties": {
            "hs_communication_channel_type": "WHATS_APP",
            "hs_communication_body": "Grüße aus Köln, bis bald",
            "hs_communication_logged_from": "CRM",
            "hs_timestamp": "2026-01-31T13:30:00Z",
        },
        "associations": [{"to": {"id": str(company)}, "types": spec(87)}],
    }
    found = await house.value("Hubspot.GetCommunicationDataByKeywords", search_terms="«Köln», Grüße!")
    assert found["communications"][0]["id"] == made["communication"]["id"]
    assert house.seen[1].json["filterGroups"] == [
        {
            "filters": [
                {"propertyName": "hs_communication_body", "operator": "CONTAINS_TOKEN", "value": "Köln"},
                {"propertyName": "hs_communication_body", "operator": "CONTAINS_TOKEN", "value": "Grüße"},
            ]
        }
    ]
    await house.value("Hubspot.UpdateCommunicationActivity", keywords="Köln", channel="SMS")
    assert (
        portal.held("communications", made["communication"]["id"])["hs_communication_channel_type"] == "SMS"
    )


async def test_an_email_is_logged_with_its_people_and_found_by_subject_or_text(
    house: House, portal: Portal
) -> None:
    contact = portal.add("contacts", firstname="Ana")
    made = await house.value(
        "Hubspot.CreateEmailActivity",
        subject="Offer",
        when_occurred=WHEN,
        from_email="me@here.example",
        to_email="ana@acme.example",
        body_text="Our price holds",
        body_html="<p>Our price holds</p>",
        from_first_name="Jan",
        to_last_name="Ruiz",
        cc_emails=["c@here.example"],
        associate_to_contact_id=contact,
    )
    sent = house.seen[0].json
    headers = json.loads(sent["properties"].pop("hs_email_headers"))
    assert headers == {
        "from": {"email": "me@here.example", "firstName": "Jan"},
        "to": [{"email": "ana@acme.example", "lastName": "Ruiz"}],
        "cc": [{"email": "c@here.example"}],
        "bcc": [],
    }
    assert sent["properties"] == {
        "hs_email_subject": "Offer",
        "hs_email_direction": "EMAIL",
        "hs_email_status": "SENT",
        "hs_email_text": "Our price holds",
        "hs_email_html": "<p>Our price holds</p>",
        "hs_timestamp": WHEN,
    }
    assert sent["associations"] == [{"to": {"id": str(contact)}, "types": spec(198)}]
    found = await house.value("Hubspot.GetEmailDataByKeywords", search_terms="price")
    email = found["emails"][0]
    assert (email["id"], email["from_email"], email["cc_email"]) == (
        made["email"]["id"],
        "me@here.example",
        "c@here.example",
    )
    assert "preview" not in email
    assert len(house.seen[1].json["filterGroups"]) == 2
    await house.value(
        "Hubspot.UpdateEmailActivity", email_id=email["id"], status="BOUNCED", body_html="<b>x</b>"
    )
    assert house.seen[-1].json == {"properties": {"hs_email_status": "BOUNCED", "hs_email_html": "<b>x</b>"}}
    error = await house.error(
        "Hubspot.CreateEmailActivity",
        subject="Offer",
        when_occurred=WHEN,
        from_email="me",
        to_email="a@b.example",
        associate_to_contact_id=contact,
    )
    assert error.kind is Kind.BAD_INPUT
    assert "from_email" in error.message


async def test_many_words_stay_within_hubspots_filters(house: House, portal: Portal) -> None:
    words = " ".join(f"word{n}" + "x" * n for n in range(12))
    assert (await house.value("Hubspot.GetEmailDataByKeywords", search_terms=words))["emails"] == []
    groups = house.seen[0].json["filterGroups"]
    assert [len(group["filters"]) for group in groups] == [6, 6]
    assert groups[0]["filters"][0]["value"] == "word6xxxxxx"


async def test_a_meeting_is_logged_in_the_accounts_time(house: House, portal: Portal) -> None:
    deal = portal.add("deals", dealname="Big")
    made = await house.value(
        "Hubspot.CreateMeetingActivity",
        title="Kick-off",
        start_date="2026-07-01",
        start_time="09:15",
        duration="1:30",
        location="Room 5",
        outcome="SCHEDULED",
        associate_to_deal_id=deal,
    )
    assert house.seen[1].json == {
        "properties": {
            "hs_meeting_title": "Kick-off",
            "hs_meeting_location": "Room 5",
            "hs_meeting_outcome": "SCHEDULED",
            "hs_timestamp": "2026-07-01T13:15:00Z",
            "hs_meeting_start_time": "2026-07-01T13:15:00Z",
            "hs_meeting_end_time": "2026-07-01T14:45:00Z",
        },
        "associations": [{"to": {"id": str(deal)}, "types": spec(212)}],
    }
    assert made["assumed_time_zone"] == "US/Eastern"
    meeting = made["meeting"]["id"]
    # a new time of day keeps the day and the length, also across the change of summer time
    moved = await house.value("Hubspot.UpdateMeetingActivity", meeting_id=meeting, start_time="16:00")
    assert moved["assumed_time_zone"] == "US/Eastern"
    held = portal.held("meetings", meeting)
    assert (held["hs_meeting_start_time"], held["hs_meeting_end_time"], held["hs_timestamp"]) == (
        "2026-07-01T20:00:00Z",
        "2026-07-01T21:30:00Z",
        "2026-07-01T20:00:00Z",
    )
    await house.value("Hubspot.UpdateMeetingActivity", keywords="kick-off", start_date="2026-12-01")
    held = portal.held("meetings", meeting)
    assert (held["hs_meeting_start_time"], held["hs_meeting_end_time"]) == (
        "2026-12-01T21:00:00Z",
        "2026-12-01T22:30:00Z",
    )
    await house.value("Hubspot.UpdateMeetingActivity", meeting_id=meeting, duration="0:20", title="Start")
    assert portal.held("meetings", meeting)["hs_meeting_end_time"] == "2026-12-01T21:20:00Z"
    assert portal.held("meetings", meeting)["hs_meeting_title"] == "Start"
    sent = len(house.seen)
    await house.value("Hubspot.UpdateMeetingActivity", meeting_id=meeting, outcome="NO_SHOW")
    await house.value(
        "Hubspot.UpdateMeetingActivity",
        meeting_id=meeting,
        start_date="2026-12-01",
        start_time="21:00Z",
        duration="0:20",
    )
    assert [one.method for one in house.seen[sent:]] == ["PATCH", "PATCH"]
    found = await house.value("Hubspot.GetMeetingDataByKeywords", search_terms="start")
    assert found["meetings"][0]["start"] == "2026-12-01T21:00:00Z"
    assert found["meetings"][0]["associated"]["deals"][0]["id"] == deal


async def test_a_meeting_without_a_start_wants_both_halves_of_one(house: House, portal: Portal) -> None:
    meeting = portal.add("meetings", hs_meeting_title="Bare")
    error = await house.error("Hubspot.UpdateMeetingActivity", meeting_id=meeting, start_time="10:00")
    assert error.kind is Kind.BAD_INPUT
    error = await house.error("Hubspot.UpdateMeetingActivity", meeting_id=meeting, duration="1:00")
    assert "start_date and start_time" in error.message
    await house.value(
        "Hubspot.UpdateMeetingActivity", meeting_id=meeting, start_date="2026-01-01", start_time="10:00Z"
    )
    assert portal.held("meetings", meeting)["hs_meeting_start_time"] == "2026-01-01T10:00:00Z"
    assert "hs_meeting_end_time" not in portal.held("meetings", meeting)


async def test_a_note_is_written_found_cut_and_changed(house: House, portal: Portal) -> None:
    company = portal.add("companies", name="Acme")
    made = await house.value(
        "Hubspot.CreateNoteActivity",
        body="<p>Budget: <b>5 k</b></p>" + "y" * 200,
        when_occurred=WHEN,
        associate_to_company_id=company,
    )
    assert house.seen[0].json["properties"]["hs_note_body"].startswith("<p>Budget: <b>5 k</b></p>")
    assert house.seen[0].json["associations"] == [{"to": {"id": str(company)}, "types": spec(190)}]
    whole = await house.value("Hubspot.GetNoteDataByKeywords", search_terms="budget")
    assert whole["notes"][0]["body"] == "Budget: 5 k\n" + "y" * 200
    short = await house.value(
        "Hubspot.GetNoteDataByKeywords", search_terms="budget", truncate_big_strings=True
    )
    assert short["notes"][0]["body"].endswith("… (112 more characters)")
    await house.value("Hubspot.UpdateNoteActivity", note_id=made["note"]["id"], body="New\nlines")
    assert portal.held("notes", made["note"]["id"])["hs_note_body"] == "New<br>lines"


async def test_tasks_are_found(house: House, portal: Portal) -> None:
    contact = portal.add("contacts", firstname="Ana")
    task = portal.add(
        "tasks",
        hs_task_subject="Ring Ana",
        hs_timestamp="2026-02-01T08:00:00.000Z",
        hs_task_status="NOT_STARTED",
        hubspot_owner_id="6166860",
    )
    portal.link("tasks", task, "contacts", contact, 204)
    found = await house.value("Hubspot.GetTaskDataByKeywords", search_terms="ring", limit=99)
    assert house.seen[0].json["query"] == "ring"
    assert house.seen[0].json["limit"] == 50
    shown = found["tasks"][0]
    assert (shown["due"], shown["owner_id"], shown["status"]) == (
        "2026-02-01T08:00:00Z",
        6166860,
        "NOT_STARTED",
    )
    assert shown["associated"] == {"contacts": [{"id": contact, "first_name": "Ana"}]}


@pytest.mark.parametrize(
    ("kind", "plural", "type_id"),
    [
        ("note", "notes", 214),
        ("call", "calls", 206),
        ("email", "emails", 210),
        ("meeting", "meetings", 212),
        ("task", "tasks", 216),
        ("communication", "communications", 85),
    ],
)
async def test_an_activity_is_put_to_a_deal(
    house: House, portal: Portal, kind: str, plural: str, type_id: int
) -> None:
    activity, deal = portal.add(plural), portal.add("deals", dealname="Big", pipeline="default")
    done = await house.value(
        "Hubspot.AssociateActivityToDeal", activity_type=kind, activity_id=activity, deal_id=deal
    )
    assert done == {"associated": True, "activity_type": kind, "activity_id": activity, "deal_id": deal}
    assert [(one.method, one.path, one.json) for one in house.seen] == [
        ("PUT", f"/crm/v4/objects/{plural}/{activity}/associations/deals/{deal}", spec(type_id))
    ]
    shown = await house.value("Hubspot.GetDealById", deal_id=deal)
    if plural != "communications":
        assert shown["deal"]["associated"][plural][0]["id"] == activity


async def test_an_activity_of_nothing_is_not_put(house: House, portal: Portal) -> None:
    error = await house.error(
        "Hubspot.AssociateActivityToDeal", activity_type="note", activity_id=1, deal_id=2
    )
    assert error.kind is Kind.NOT_FOUND


async def test_an_activity_belongs_to_somebody(house: House, portal: Portal) -> None:
    for name, given in (
        ("CreateNoteActivity", {"body": "x", "when_occurred": "2026-01-31"}),
        ("CreateMeetingActivity", {"title": "x", "start_date": "2026-01-31", "start_time": "10:00"}),
    ):
        error = await house.error(f"Hubspot.{name}", **given)
        assert error.kind is Kind.BAD_INPUT
        assert "associate_to_contact_id" in error.message
    assert house.seen == []


@pytest.mark.parametrize("when", ["yesterday", "31.01.2026", "", "2026-13-01T00:00:00"])
async def test_a_time_that_is_none(house: House, portal: Portal, when: str) -> None:
    error = await house.error(
        "Hubspot.CreateNoteActivity", body="x", when_occurred=when, associate_to_deal_id=1
    )
    assert error.kind is Kind.BAD_INPUT
    assert "2026-01-31T14:30:00" in error.message
    assert house.seen == []


async def test_without_the_accounts_details_a_time_is_utc_and_that_is_said(
    house: House, portal: Portal
) -> None:
    portal.forbidden = ("/account-info",)
    deal = portal.add("deals", dealname="Big")
    made = await house.value(
        "Hubspot.CreateNoteActivity", body="x", when_occurred="2026-01-31 14:30", associate_to_deal_id=deal
    )
    assert made["note"]["when_occurred"] == "2026-01-31T14:30:00Z"
    assert made["assumed_time_zone"].startswith("UTC")


async def test_a_user_known_by_email_owns_what_they_log() -> None:
    async with House.running("alice@acme.example", "carol@acme.example") as house:
        portal = Portal.of(house)
        deal = portal.add("deals", dealname="Big")
        given: dict[str, Any] = {"body": "x", "when_occurred": WHEN, "associate_to_deal_id": deal}
        made = await house.value("Hubspot.CreateNoteActivity", "alice@acme.example", **given)
        assert made["note"]["owner_id"] == 6166860
        assert house.seen[0].query == {"email": "alice@acme.example", "limit": "500"}
        assert house.seen[-1].json["properties"]["hubspot_owner_id"] == "6166860"
        # one whom HubSpot does not know, and one who may not look: nobody's note
        unknown = await house.value("Hubspot.CreateNoteActivity", "carol@acme.example", **given)
        assert "owner_id" not in unknown["note"]
        portal.forbidden = ("/crm/v3/owners",)
        unseen = await house.value("Hubspot.CreateNoteActivity", "alice@acme.example", **given)
        assert "owner_id" not in unseen["note"]


async def test_a_time_that_hubspot_refuses_is_told_in_its_words(house: House, portal: Portal) -> None:
    message = "Error creating NOTE. Some required properties were not set."
    body = {
        "status": "error",
        "message": message,
        "category": "VALIDATION_ERROR",
        "correlationId": "aeb5f871",
    }
    portal.failing["/crm/v3/objects/notes"] = Reply(400, body)
    error = await house.error(
        "Hubspot.CreateNoteActivity", body="x", when_occurred=WHEN, associate_to_deal_id=1
    )
    assert error.kind is Kind.BAD_REQUEST
    assert message in error.message
    assert "aeb5f871" not in error.message
