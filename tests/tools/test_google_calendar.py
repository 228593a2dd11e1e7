"""Google Calendar's tools: what they ask for, in which time zone, and what they make of the answers."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from authproxy.tools.kits.google_calendar_reading import gaps, merged
from authproxy.tools.tool import Kind
from tests.tools.kit import House, Reply

NOW = datetime(2026, 3, 27, 9, 30, 20, tzinfo=UTC).timestamp()  # a Friday; summer time begins on Sunday
LIST = "/calendar/v3/users/me/calendarList"
EVENTS = "/calendar/v3/calendars/primary/events"
CALENDARS = {
    "items": [
        {
            "id": "alice@example.com",
            "summary": "alice@example.com",
            "primary": True,
            "timeZone": "Europe/Berlin",
        }
        | {"accessRole": "owner"},
        {
            "id": "team@group.calendar.example",
            "summary": "Team",
            "timeZone": "America/New_York",
            "accessRole": "writer",
        },
        {
            "id": "hol#1@v.calendar.example",
            "summary": "Days off",
            "summaryOverride": "Holidays",
            "accessRole": "reader",
        },
    ]
}
EVENT: dict[str, Any] = {
    "id": "e1",
    "status": "confirmed",
    "htmlLink": "https://calendar.example/e1",
    "summary": "Lunch",
    "description": "<p>At <b>noon</b></p>",
    "start": {"dateTime": "2026-03-30T12:00:00+02:00", "timeZone": "Europe/Berlin"},
    "end": {"dateTime": "2026-03-30T13:00:00+02:00", "timeZone": "Europe/Berlin"},
    "organizer": {"email": "bob@x.example"},
    "attendees": [
        {"email": "bob@x.example", "displayName": "Bob", "organizer": True, "responseStatus": "accepted"},
        {"email": "alice@example.com", "self": True, "responseStatus": "needsAction"},
        {"email": "carol@x.example", "responseStatus": "declined", "optional": True},
    ],
    "hangoutLink": "https://meet.example/abc",
    "etag": '"1"',
    "iCalUID": "e1@x",
    "reminders": {"useDefault": True},
}


@pytest.fixture
def calendar(house: House) -> House:
    """alice's calendars, and one event."""
    house.answer("GET", LIST, CALENDARS)
    house.answer("GET", f"{EVENTS}/e1", EVENT)
    house.answer("PATCH", f"{EVENTS}/e1", EVENT)
    house.answer("POST", EVENTS, EVENT)
    return house


async def test_create_event(calendar: House) -> None:
    value = await calendar.value(
        "GoogleCalendar.CreateEvent",
        summary="Lunch\n",
        start_datetime="2026-03-30T12:00:00",
        end_datetime="2026-03-30 13:00",
        description="At noon",
        location="Café",
        visibility="private",
        attendee_emails=["Bob <bob@x.example>", "BOB@x.example", "carol@x.example"],
        send_notifications_to_attendees="externalOnly",
        add_google_meet=True,
        recurrence=["FREQ=WEEKLY;COUNT=3"],
    )
    assert value == {
        "created": True,
        "id": "e1",
        "summary": "Lunch",
        "start": "2026-03-30T12:00:00+02:00",
        "end": "2026-03-30T13:00:00+02:00",
        "time_zone": "Europe/Berlin",
        "description": "At noon",
        "organizer": "bob@x.example",
        "attendees": [
            {"email": "bob@x.example", "name": "Bob", "response": "accepted", "organizer": True},
            {"email": "alice@example.com", "response": "needsAction", "self": True},
            {"email": "carol@x.example", "response": "declined", "optional": True},
        ],
        "my_response": "needsAction",
        "meet_link": "https://meet.example/abc",
        "link": "https://calendar.example/e1",
    }
    seen = calendar.seen[-1]
    assert seen.query == {"sendUpdates": "externalOnly", "conferenceDataVersion": "1"}
    sent = seen.json
    wish = sent.pop("conferenceData")["createRequest"]
    assert wish["conferenceSolutionKey"] == {"type": "hangoutsMeet"}
    assert len(wish["requestId"]) == 32
    assert sent == {
        "summary": "Lunch",
        "start": {"dateTime": "2026-03-30T12:00:00+02:00", "timeZone": "Europe/Berlin"},
        "end": {"dateTime": "2026-03-30T13:00:00+02:00", "timeZone": "Europe/Berlin"},
        "description": "At noon",
        "location": "Café",
        "visibility": "private",
        "attendees": [{"email": "bob@x.example"}, {"email": "carol@x.example"}],
        "recurrence": ["RRULE:FREQ=WEEKLY;COUNT=3"],
    }


async def test_create_event_with_an_offset_needs_no_time_zone(calendar: House) -> None:
    await calendar.value(
        "GoogleCalendar.CreateEvent",
        summary="S",
        start_datetime="2026-03-30T12:00:00Z",
        end_datetime="2026-03-30T12:30:00-04:00",
    )
    (seen,) = calendar.seen
    assert seen.json == {
        "summary": "S",
        "start": {"dateTime": "2026-03-30T12:00:00Z"},
        "end": {"dateTime": "2026-03-30T12:30:00-04:00"},
    }
    assert seen.query == {"sendUpdates": "all"}


async def test_create_event_of_whole_days(calendar: House) -> None:
    given = {"summary": "Off", "start_datetime": "2026-03-30", "calendar_id": "holidays"}
    calendar.answer(
        "POST",
        "/calendar/v3/calendars/hol%231@v.calendar.example/events",
        {"id": "e2", "start": {"date": "2026-03-30"}},
    )
    value = await calendar.value("GoogleCalendar.CreateEvent", end_datetime="2026-03-30", **given)
    assert value == {
        "created": True,
        "id": "e2",
        "summary": "(no title)",
        "start": "2026-03-30",
        "all_day": True,
    }
    assert calendar.seen[-1].json == {
        "summary": "Off",
        "start": {"date": "2026-03-30"},
        "end": {"date": "2026-03-31"},
    }


async def test_the_same_wish_for_a_meeting_has_the_same_id() -> None:
    async with House.running(clock=lambda: NOW) as house:
        house.answer("POST", EVENTS, {"id": "e1"})
        given = {
            "summary": "S",
            "start_datetime": "2026-03-30T12:00:00Z",
            "end_datetime": "2026-03-30T13:00:00Z",
        }
        for summary in ("S", "S", "T"):
            value = await house.value(
                "GoogleCalendar.CreateEvent", **(given | {"summary": summary}), add_google_meet=True
            )
        assert "meet_note" in value
        first, again, other = (one.json["conferenceData"]["createRequest"]["requestId"] for one in house.seen)
        assert first == again != other


@pytest.mark.parametrize(
    "wrong",
    [
        {"start_datetime": "tomorrow"},
        {"start_datetime": "2026-W14-1"},
        {"start_datetime": "2026-03-30T13:00:00Z"},
        {"start_datetime": "2026-03-30"},
        {"attendee_emails": ["bob"]},
        {"recurrence": ["every monday"]},
        {"recurrence": ["RRULE:FREQ=DAILY\nDTSTART:20260101"]},
    ],
)
async def test_create_event_refuses_before_it_sends(calendar: House, wrong: dict[str, Any]) -> None:
    given = {"summary": "S", "start_datetime": "2026-03-30T12:00:00Z", "end_datetime": "2026-03-30T13:00:00Z"}
    error = await calendar.error("GoogleCalendar.CreateEvent", **(given | wrong))
    assert error.kind is Kind.BAD_INPUT
    assert not calendar.seen


async def test_list_events(calendar: House) -> None:
    day = {"id": "e2", "start": {"date": "2026-03-31"}, "end": {"date": "2026-04-01"}, "status": "tentative"}
    calendar.answer(
        "GET",
        EVENTS,
        {"items": [EVENT], "nextPageToken": "p", "timeZone": "Europe/Berlin"},
        {"items": [day], "nextPageToken": "q"},
    )
    value = await calendar.value(
        "GoogleCalendar.ListEvents",
        min_end_datetime="2026-03-28T00:00:00",
        max_start_datetime="2026-04-02",
        max_results=2,
    )
    assert (value["calendar_id"], value["time_zone"], value["count"], value["more"]) == (
        "primary",
        "Europe/Berlin",
        2,
        True,
    )
    assert value["events"][0]["description"] == "At noon"
    assert value["events"][1] == {
        "id": "e2",
        "summary": "(no title)",
        "start": "2026-03-31",
        "end": "2026-04-01",
        "all_day": True,
        "status": "tentative",
    }
    asked = {
        "timeMin": "2026-03-28T00:00:00+01:00",
        "timeMax": "2026-04-02T00:00:00+02:00",
        "singleEvents": "true",
        "orderBy": "startTime",
    }
    assert [one.query for one in calendar.seen[1:]] == [
        {**asked, "maxResults": "2"},
        {**asked, "maxResults": "1", "pageToken": "p"},
    ]


async def test_list_events_of_a_calendar_by_name(calendar: House) -> None:
    calendar.answer("GET", "/calendar/v3/calendars/team@group.calendar.example/events", {})
    given = {"min_end_datetime": "2026-03-28T00:00:00", "max_start_datetime": "2026-03-29T00:00:00"}
    value = await calendar.value("GoogleCalendar.ListEvents", calendar_id="team", **given)
    assert value == {
        "calendar_id": "team@group.calendar.example",
        "time_zone": "America/New_York",
        "count": 0,
        "events": [],
    }
    assert calendar.seen[-1].query["timeMin"] == "2026-03-28T00:00:00-04:00"
    error = await calendar.error("GoogleCalendar.ListEvents", calendar_id="Teem", **given)
    assert (error.kind, error.hint) == (
        Kind.RETRY,
        "calendar_id takes an id: Team = team@group.calendar.example.",
    )
    error = await calendar.error(
        "GoogleCalendar.ListEvents",
        min_end_datetime="2026-03-28T00:00:00Z",
        max_start_datetime="2026-03-28T00:00:00Z",
    )
    assert error.kind is Kind.BAD_INPUT


async def test_a_shared_calendar_tells_its_own_zone(calendar: House) -> None:
    shared = "/calendar/v3/calendars/carol@x.example/events"
    calendar.answer("GET", shared, {"timeZone": "Asia/Tokyo"})
    await calendar.value(
        "GoogleCalendar.ListEvents",
        calendar_id="carol@x.example",
        min_end_datetime="2026-03-28T00:00:00",
        max_start_datetime="2026-03-29T00:00:00",
    )
    assert calendar.seen[1].query == {"maxResults": "1", "fields": "timeZone"}
    assert calendar.seen[2].query["timeMin"] == "2026-03-28T00:00:00+09:00"


async def test_list_calendars(calendar: House) -> None:
    calendar.answer("GET", LIST, {**CALENDARS, "nextPageToken": "n"})
    value = await calendar.value(
        "GoogleCalendar.ListCalendars", max_results=3, show_hidden=True, next_page_token="p"
    )
    assert value["next_page_token"] == "n"
    assert value["calendars"][0] == {
        "id": "alice@example.com",
        "name": "alice@example.com",
        "primary": True,
        "time_zone": "Europe/Berlin",
        "access": "owner",
    }
    assert [one["name"] for one in value["calendars"]] == ["alice@example.com", "Team", "Holidays"]
    assert calendar.seen[0].query == {
        "maxResults": "3",
        "showDeleted": "false",
        "showHidden": "true",
        "pageToken": "p",
    }
    calendar.answer("GET", LIST, {})
    assert await calendar.value("GoogleCalendar.ListCalendars") == {"calendars": []}


async def change(house: House, **given: Any) -> Any:
    """What the update sends."""
    value = await house.value("GoogleCalendar.UpdateEvent", event_id="e1", **given)
    assert (value["updated"], value["id"]) == (True, "e1")
    assert [one.method for one in house.seen] == ["GET", "PATCH"]
    return house.seen[1].json


async def test_update_event_changes_what_is_given(calendar: House) -> None:
    assert await change(
        calendar, updated_summary="Dinner", updated_description="", updated_visibility="public"
    ) == {
        "summary": "Dinner",
        "description": "",
        "visibility": "public",
    }
    assert calendar.seen[1].query == {"sendUpdates": "all"}


async def test_update_event_moves_in_its_own_zone(calendar: House) -> None:
    assert await change(
        calendar, updated_end_datetime="2026-03-30T14:00:00", send_notifications_to_attendees="none"
    ) == {"end": {"date": None, "dateTime": "2026-03-30T14:00:00+02:00", "timeZone": "Europe/Berlin"}}
    assert calendar.seen[1].query == {"sendUpdates": "none"}


async def test_update_event_into_a_series(calendar: House) -> None:
    sent = await change(
        calendar, updated_start_datetime="2026-03-30T10:30:00Z", updated_recurrence=["RRULE:FREQ=DAILY"]
    )
    assert sent == {
        "start": {"date": None, "dateTime": "2026-03-30T10:30:00Z", "timeZone": "Europe/Berlin"},
        "end": {"date": None, "dateTime": "2026-03-30T13:00:00+02:00", "timeZone": "Europe/Berlin"},
        "recurrence": ["RRULE:FREQ=DAILY"],
    }


async def test_update_event_into_a_whole_day(calendar: House) -> None:
    sent = await change(calendar, updated_start_datetime="2026-03-30", updated_end_datetime="2026-03-30")
    assert sent == {
        "start": {"date": "2026-03-30", "dateTime": None, "timeZone": None},
        "end": {"date": "2026-03-31", "dateTime": None, "timeZone": None},
    }


async def test_update_event_keeps_the_other_attendees(calendar: House) -> None:
    sent = await change(
        calendar,
        attendee_emails_to_add=["dora@x.example", "BOB@x.example"],
        attendee_emails_to_remove=["Carol@x.example", "nobody@x.example"],
    )
    assert sent == {"attendees": [*EVENT["attendees"][:2], {"email": "dora@x.example"}]}


@pytest.mark.parametrize(("what", "sent"), [("add", None), ("remove", {"conferenceData": None})])
async def test_update_event_and_its_meeting(calendar: House, what: str, sent: Any) -> None:
    """One that has a Meet link gets no second one."""
    if sent is None:
        value = await calendar.value("GoogleCalendar.UpdateEvent", event_id="e1", updated_google_meet=what)
        assert value["meet_link"] == "https://meet.example/abc"
        assert [one.method for one in calendar.seen] == ["GET"]
        calendar.seen.clear()
        calendar.answer("GET", f"{EVENTS}/e1", {name: EVENT[name] for name in ("id", "start", "end")})
        sent = await change(calendar, updated_google_meet=what)
        assert list(sent) == ["conferenceData"]
    else:
        assert await change(calendar, updated_google_meet=what) == sent
    assert calendar.seen[1].query == {"sendUpdates": "all", "conferenceDataVersion": "1"}


async def test_update_event_into_another_calendar(calendar: House) -> None:
    calendar.answer("POST", f"{EVENTS}/e1/move", EVENT)
    await calendar.value(
        "GoogleCalendar.UpdateEvent", event_id="e1", updated_calendar_id="team@group.calendar.example"
    )
    assert [(one.method, one.path) for one in calendar.seen] == [
        ("GET", "/calendar/v3/calendars/team@group.calendar.example/events/e1"),
        ("GET", f"{EVENTS}/e1"),
        ("POST", f"{EVENTS}/e1/move"),
    ]
    assert calendar.seen[2].query == {"destination": "team@group.calendar.example", "sendUpdates": "all"}


async def test_update_event_in_the_calendar_that_is_named(calendar: House) -> None:
    path = "/calendar/v3/calendars/team@group.calendar.example/events/e1"
    calendar.answer("GET", path, EVENT)
    calendar.answer("PATCH", path, EVENT)
    await change(calendar, updated_calendar_id="team@group.calendar.example", updated_location="Here")
    assert calendar.seen[1].path == path


async def test_update_event_refuses(calendar: House) -> None:
    for wrong in (
        {},
        {"updated_google_meet": "none"},
        {"updated_start_datetime": "2026-03-30T14:00:00"},
        {"updated_start_datetime": "2026-03-30"},
        {"attendee_emails_to_add": ["x"]},
    ):
        error = await calendar.error("GoogleCalendar.UpdateEvent", event_id="e1", **wrong)
        assert error.kind is Kind.BAD_INPUT, wrong
    assert all(one.method == "GET" for one in calendar.seen)
    error = await calendar.error("GoogleCalendar.UpdateEvent", event_id="e9", updated_summary="x")
    assert error.kind is Kind.NOT_FOUND


async def test_respond_to_event(calendar: House) -> None:
    value = await calendar.value(
        "GoogleCalendar.RespondToEvent", event_id="e1", response="declined", send_updates="none"
    )
    assert (value["response"], value["id"]) == ("declined", "e1")
    assert calendar.seen[1].json == {
        "attendeesOmitted": True,
        "attendees": [{"email": "alice@example.com", "responseStatus": "declined"}],
    }
    assert calendar.seen[1].query == {"sendUpdates": "none"}
    calendar.answer("GET", f"{EVENTS}/e1", {**EVENT, "attendees": EVENT["attendees"][:1]})
    error = await calendar.error("GoogleCalendar.RespondToEvent", event_id="e1", response="accepted")
    assert error.kind is Kind.BAD_INPUT


async def test_delete_event(calendar: House) -> None:
    calendar.answer(
        "DELETE", f"{EVENTS}/e1", Reply(204), Reply(410, {"error": {"message": "Resource has been deleted"}})
    )
    assert await calendar.value("GoogleCalendar.DeleteEvent", event_id="e1") == {
        "deleted": True,
        "event_id": "e1",
    }
    assert calendar.seen[0].query == {"sendUpdates": "all"}
    value = await calendar.value("GoogleCalendar.DeleteEvent", event_id="e1")
    assert value == {"deleted": True, "event_id": "e1", "was_gone_already": True}
    assert (await calendar.error("GoogleCalendar.DeleteEvent", event_id="e9")).kind is Kind.NOT_FOUND
    assert (await calendar.error("GoogleCalendar.DeleteEvent", event_id="")).kind is Kind.BAD_INPUT


async def test_find_time_slots() -> None:
    """Across the beginning of summer time, from now on, in the user's own zone."""
    async with House.running(clock=lambda: NOW) as house:
        house.answer("GET", LIST, CALENDARS)
        busy = [
            {"start": "2026-03-27T11:00:00+01:00", "end": "2026-03-27T12:00:00+01:00"},
            {"start": "2026-03-29T00:00:00Z", "end": "2026-03-29T01:30:00Z"},
        ]
        house.answer(
            "POST",
            "/calendar/v3/freeBusy",
            {
                "calendars": {
                    "alice@example.com": {"busy": busy},
                    "bob@x.example": {
                        "busy": [{"start": "2026-03-27T10:45:00Z", "end": "2026-03-27T11:30:00Z"}]
                    },
                    "carol@x.example": {"errors": [{"domain": "global", "reason": "notFound"}], "busy": []},
                }
            },
        )
        value = await house.value(
            "GoogleCalendar.FindTimeSlotsWhenEveryoneIsFree",
            email_addresses=["bob@x.example", "carol@x.example", "Alice@example.com"],
            end_date="2026-03-29",
            start_time_boundary="01:00",
            end_time_boundary="13:00",
        )
        assert (value["time_zone"], value["cannot_see"]) == ("Europe/Berlin", ["carol@x.example"])
        assert value["slots"] == [
            {
                "day": "Fri",
                "start": "2026-03-27T10:31:00+01:00",
                "end": "2026-03-27T11:00:00+01:00",
                "minutes": 29,
            },
            {
                "day": "Fri",
                "start": "2026-03-27T12:30:00+01:00",
                "end": "2026-03-27T13:00:00+01:00",
                "minutes": 30,
            },
            {
                "day": "Sat",
                "start": "2026-03-28T01:00:00+01:00",
                "end": "2026-03-28T13:00:00+01:00",
                "minutes": 720,
            },
            {
                "day": "Sun",
                "start": "2026-03-29T03:30:00+02:00",
                "end": "2026-03-29T13:00:00+02:00",
                "minutes": 570,
            },
        ]
        assert house.seen[1].json == {
            "timeMin": "2026-03-27T00:00:00+01:00",
            "timeMax": "2026-03-30T00:00:00+02:00",
            "timeZone": "Europe/Berlin",
            "items": [{"id": "alice@example.com"}, {"id": "bob@x.example"}, {"id": "carol@x.example"}],
        }
        for wrong in (
            {"start_date": "2026-03-20", "end_date": "2026-03-21"},
            {"start_date": "soon"},
            {"start_date": "2026-03-28", "end_date": "2026-03-27"},
            {"end_date": "2027-03-27"},
            {"start_time_boundary": "18:00"},
            {"end_time_boundary": "25:00"},
            {"email_addresses": ["bob"]},
        ):
            error = await house.error("GoogleCalendar.FindTimeSlotsWhenEveryoneIsFree", **wrong)
            assert error.kind is Kind.BAD_INPUT, wrong


def test_gaps_between_overlapping_periods() -> None:
    berlin = ZoneInfo("Europe/Berlin")

    def clock(hour: int, minute: int = 0) -> datetime:
        return datetime(2026, 3, 30, hour, minute, tzinfo=berlin)

    busy = merged(
        [(clock(9), clock(10)), (clock(9, 30), clock(11)), (clock(7), clock(8, 30)), (clock(11), clock(12))]
    )
    assert busy == [(clock(7), clock(8, 30)), (clock(9), clock(12))]
    assert list(gaps((clock(8), clock(12, 3)), busy)) == [(clock(8, 30), clock(9))]
    assert list(gaps((clock(9), clock(12)), busy)) == []
    assert list(gaps((clock(14), clock(15)), busy)) == [(clock(14), clock(15))]


async def test_who_am_i(calendar: House) -> None:
    calendar.answer("GET", "/v1/people/me", {"names": [{"displayName": "Alice Liddell"}]})
    assert await calendar.value("GoogleCalendar.WhoAmI") == {
        "email": "alice@example.com",
        "name": "Alice Liddell",
        "time_zone": "Europe/Berlin",
        "primary_calendar": "alice@example.com",
        "calendars": 3,
        "can_write_to": 2,
    }


async def test_who_am_i_is_an_address(calendar: House) -> None:
    listed = {"items": [{"id": "primary", "summary": "alice@example.com", "primary": True}]}
    calendar.answer("GET", "/calendar/v3/users/me/calendarList", listed)
    assert (await calendar.value("GoogleCalendar.WhoAmI"))["email"] == "alice@example.com"


async def test_what_google_says_is_told(calendar: House) -> None:
    calendar.answer(
        "POST", EVENTS, Reply(403, {"error": {"message": "You need to have writer access to this calendar."}})
    )
    given = {"summary": "S", "start_datetime": "2026-03-30T12:00:00Z", "end_datetime": "2026-03-30T13:00:00Z"}
    error = await calendar.error("GoogleCalendar.CreateEvent", **given)
    assert "writer access" in error.message
    calendar.answer(
        "POST",
        EVENTS,
        Reply(403, {"error": {"errors": [{"reason": "rateLimitExceeded"}], "message": "Slow"}}),
    )
    error = await calendar.error("GoogleCalendar.CreateEvent", **given)
    assert (error.kind, error.can_retry) == (Kind.RATE_LIMIT, True)
