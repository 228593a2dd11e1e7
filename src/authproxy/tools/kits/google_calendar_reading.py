"""Events listed, times found when everybody is free, and whose calendar this is."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from typing import Any

from authproxy.tools.kits.google_calendar_places import (
    CALENDAR,
    PRIMARY,
    events_path,
    read_calendars,
    resolve,
)
from authproxy.tools.kits.google_calendar_shapes import event_of
from authproxy.tools.kits.google_calendar_times import at, clock_time, day, moment, of_edge, stamp, zone
from authproxy.tools.kits.google_calendar_writing import emails
from authproxy.tools.kits.google_person import read_person
from authproxy.tools.tool import Call, Json, bad_input

MOST_EVENTS = 250
MOST_PAGES = 10
IN_LIST = 500
"""Characters of a description in a list."""
MOST_DAYS = 62
MOST_PEOPLE = 49
MOST_SLOTS = 150
SHORTEST = timedelta(minutes=5)


async def list_events(call: Call) -> Json:
    """The events that end after the one time and start before the other, in their order; of a series each one."""
    lower = moment(call.input["min_end_datetime"], "min_end_datetime")
    upper = moment(call.input["max_start_datetime"], "max_start_datetime")
    naive = any(not isinstance(one, datetime) or one.tzinfo is None for one in (lower, upper))
    calendar, zone_name = await resolve(call, zone_needed=naive)
    where = zone(zone_name)
    if at(upper, where) <= at(lower, where):
        raise bad_input("max_start_datetime must be after min_end_datetime.")
    limit = max(1, min(call.get("max_results", 10), MOST_EVENTS))
    asked = {
        "timeMin": stamp(at(lower, where)),
        "timeMax": stamp(at(upper, where)),
        "singleEvents": True,
        "orderBy": "startTime",
    }
    events, token, said_zone = await _events(call, calendar, asked, limit)
    return {
        "calendar_id": calendar,
        "time_zone": said_zone or zone_name or None,
        "count": len(events),
        "events": [event_of(one, description=IN_LIST) for one in events],
        **(
            {"more": True, "note": "There are more events: narrow the times or raise max_results."}
            if token
            else {}
        ),
    }


async def _events(
    call: Call, calendar: str, asked: Mapping[str, Any], limit: int
) -> tuple[list[Json], str | None, str | None]:
    """Google may give fewer on a page than was asked for, and more on the next."""
    found: list[Json] = []
    token: str | None = None
    zone_name: str | None = None
    for _page in range(MOST_PAGES):
        query = {**asked, "maxResults": limit - len(found), "pageToken": token}
        answer = (await call.api.call("GET", events_path(calendar), query=query)).json or {}
        found += answer.get("items") or ()
        token, zone_name = answer.get("nextPageToken"), answer.get("timeZone") or zone_name
        if not token or len(found) >= limit:
            break
    return found[:limit], token, zone_name


async def find_time_slots_when_everyone_is_free(call: Call) -> Json:
    """The gaps that the user and the others have in common, on each day between two times of day."""
    people = emails(call.get("email_addresses"), "email_addresses")
    if len(people) > MOST_PEOPLE:
        raise bad_input(f"email_addresses has more than {MOST_PEOPLE} addresses")
    own = await _primary(call)
    zone_name = str(own.get("timeZone") or "UTC")
    where = zone(zone_name)
    now = datetime.fromtimestamp(call.now, UTC).astimezone(where)
    first, last = _days(call, now.date())
    opens = clock_time(call.get("start_time_boundary", "08:00"), "start_time_boundary")
    closes = clock_time(call.get("end_time_boundary", "18:00"), "end_time_boundary")
    if closes <= opens:
        raise bad_input("end_time_boundary must be later than start_time_boundary.")
    start, end = (
        datetime.combine(first, time(), where),
        datetime.combine(last + timedelta(days=1), time(), where),
    )
    others = [one for one in people if one.casefold() != str(own.get("id", "")).casefold()]
    ids = [str(own.get("id") or PRIMARY), *others]
    busy, unseen = await _busy(call, start, end, ids, zone_name)
    windows = _windows(first, last, opens, closes, where, now)
    slots = [slot for window in windows for slot in gaps(window, busy)]
    shown = [_slot(*slot) for slot in slots[:MOST_SLOTS]]
    return {
        "time_zone": zone_name,
        "slots": shown,
        **({"slots_left_out": len(slots) - MOST_SLOTS} if len(slots) > MOST_SLOTS else {}),
        **({"cannot_see": unseen, "note": _UNSEEN} if unseen else {}),
    }


_UNSEEN = "The calendars of cannot_see are not shared with the user; the slots do not take them into account."


async def _primary(call: Call) -> Mapping[str, Any]:
    listed = await read_calendars(call)
    return next((one for one in listed if one.get("primary") is True), listed[0] if listed else {})


def _days(call: Call, today: date) -> tuple[date, date]:
    first = day(call.input["start_date"], "start_date") if call.get("start_date") else today
    last = day(call.input["end_date"], "end_date") if call.get("end_date") else first + timedelta(days=7)
    if last < first:
        raise bad_input("end_date must not be before start_date.")
    if last < today:
        raise bad_input(f"These days are over: today is {today.isoformat()}.")
    if (last - first).days > MOST_DAYS:
        raise bad_input(f"Look at {MOST_DAYS} days at most in one call.")
    return first, last


async def _busy(
    call: Call, start: datetime, end: datetime, ids: Sequence[str], zone_name: str
) -> tuple[list[tuple[datetime, datetime]], list[str]]:
    """When anybody is busy, merged and in order; and whose calendars cannot be seen."""
    answer = await call.api.call(
        "POST",
        f"{CALENDAR}/freeBusy",
        json={
            "timeMin": stamp(start),
            "timeMax": stamp(end),
            "timeZone": zone_name,
            "items": [{"id": one} for one in ids],
        },
    )
    calendars = (answer.json or {}).get("calendars") or {}
    found: list[tuple[datetime, datetime]] = []
    unseen = []
    for one in ids:
        said = calendars.get(one)
        if not isinstance(said, dict) or said.get("errors"):
            unseen.append(one)
            continue
        for period in said.get("busy") or ():
            since, until = (
                of_edge({"dateTime": period.get("start")}),
                of_edge({"dateTime": period.get("end")}),
            )
            if isinstance(since, datetime) and isinstance(until, datetime):
                found.append((at(since, start.tzinfo or UTC), at(until, start.tzinfo or UTC)))
    return merged(found), unseen


def merged(periods: Iterable[tuple[datetime, datetime]]) -> list[tuple[datetime, datetime]]:
    """Periods that overlap or touch as one, in order."""
    found: list[tuple[datetime, datetime]] = []
    for start, end in sorted(periods):
        if found and start <= found[-1][1]:
            found[-1] = (found[-1][0], max(found[-1][1], end))
        else:
            found.append((start, end))
    return found


def _windows(
    first: date, last: date, opens: time, closes: time, where: tzinfo, now: datetime
) -> Iterator[tuple[datetime, datetime]]:
    """Each day from its opening to its closing; what is over is no part of it."""
    soon = (now + timedelta(minutes=1)).replace(second=0, microsecond=0)
    for offset in range((last - first).days + 1):
        on = first + timedelta(days=offset)
        start, end = datetime.combine(on, opens, where), datetime.combine(on, closes, where)
        if end > soon:
            yield max(start, soon), end


def gaps(
    window: tuple[datetime, datetime], busy: Iterable[tuple[datetime, datetime]]
) -> Iterator[tuple[datetime, datetime]]:
    """What of the window is free. Compared in UTC: in one zone Python compares the clocks on the wall."""
    free, end = (one.astimezone(UTC) for one in window)
    where = window[0].tzinfo
    for since, until in busy:
        if since.astimezone(UTC) >= end:
            break
        if since.astimezone(UTC) - free >= SHORTEST:
            yield free.astimezone(where), since.astimezone(where)
        free = max(free, until.astimezone(UTC))
    if end - free >= SHORTEST:
        yield free.astimezone(where), end.astimezone(where)


def _slot(start: datetime, end: datetime) -> dict[str, Json]:
    minutes = (end.astimezone(UTC) - start.astimezone(UTC)) // timedelta(minutes=1)
    return {
        "day": ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")[start.weekday()],
        "start": stamp(start),
        "end": stamp(end),
        "minutes": minutes,
    }


async def who_am_i(call: Call) -> Json:
    """The account behind the primary calendar, its time zone, and how many calendars there are."""
    listed = await read_calendars(call)
    own = next((one for one in listed if one.get("primary") is True), listed[0] if listed else {})
    person = await read_person(call)
    roles = [str(one.get("accessRole") or "") for one in listed]
    return {
        # the primary calendar's id is the address; a stand-in for Google may call it something else
        "email": next((one for one in (own.get("id"), own.get("summary")) if "@" in str(one)), own.get("id")),
        "name": person.get("name"),
        **({"picture": person["picture"]} if person.get("picture") else {}),
        "time_zone": own.get("timeZone"),
        "primary_calendar": own.get("summaryOverride") or own.get("summary"),
        "calendars": len(listed),
        "can_write_to": sum(role in ("owner", "writer") for role in roles),
    }
