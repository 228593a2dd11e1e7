"""Events made, changed, answered and taken away."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from datetime import datetime

from authproxy.tools.kits.google_calendar_places import (
    PRIMARY,
    events_path,
    given_calendar,
    resolve,
    zone_of,
)
from authproxy.tools.kits.google_calendar_shapes import event_of, meet_link
from authproxy.tools.kits.google_calendar_times import (
    demand_order,
    edge,
    is_day,
    moment,
    next_day,
    of_edge,
    zone,
)
from authproxy.tools.kits.plain_text import one_line
from authproxy.tools.tool import Call, Json, Kind, ToolError, bad_input

MOST_ATTENDEES = 200
"""Of one event; Google's own bound for most accounts."""

_RULE = re.compile(r"(?:RRULE|EXRULE|RDATE|EXDATE)[;:][\x21-\x7e]{1,1000}")
_EMAIL = re.compile(r"[^\s@<>(),;:\"\[\]\\]{1,64}@[^\s@<>(),;:\"\[\]\\]{1,255}\.[^\s@<>(),;:\"\[\]\\.]{2,}")
_NAMED = re.compile(r"[^<>]*<([^<>]+)>")


async def create_event(call: Call) -> Json:
    """A new event in a calendar."""
    start = moment(call.input["start_datetime"], "start_datetime")
    end = moment(call.input["end_datetime"], "end_datetime")
    rules = recurrence(call.get("recurrence"))
    attendees = [{"email": one} for one in emails(call.get("attendee_emails"), "attendee_emails")]
    # a series of times needs the zone by its name: an offset does not say when summer time begins
    named = bool(rules) and not is_day(start)
    zone_needed = named or any(isinstance(one, datetime) and one.tzinfo is None for one in (start, end))
    calendar, zone_name = await resolve(call, zone_needed=zone_needed)
    if is_day(start) and start == end:
        end = next_day(end)
    demand_order(start, end, zone(zone_name))
    event: dict[str, Json] = {
        "summary": one_line(call.input["summary"]),
        "start": _without_nulls(edge(start, zone_name, named=named)),
        "end": _without_nulls(edge(end, zone_name, named=named)),
        "description": call.get("description"),
        "location": call.get("location"),
        "visibility": call.get("visibility"),
        "attendees": attendees or None,
        "recurrence": rules or None,
        "conferenceData": _new_meeting(call) if call.get("add_google_meet") else None,
    }
    answer = await call.api.call(
        "POST",
        events_path(calendar),
        query=_how(call, "send_notifications_to_attendees", meet=bool(call.get("add_google_meet"))),
        json=_without_nulls(event),
    )
    return {"created": True, **_told(answer.json, meet=bool(call.get("add_google_meet")))}


async def update_event(call: Call) -> Json:
    """An event with the given values in the place of the old ones; the others stay."""
    if not set(call.input) & _CHANGING and call.get("updated_google_meet", "none") == "none":
        raise bad_input("Nothing to change: give at least one of the updated_... values or attendees.")
    target = given_calendar(call, "updated_calendar_id")
    calendar, event = await _find(call, target)
    changes: dict[str, Json] = {**await _times(call, calendar, event), **_attendees(call, event)}
    for name in ("summary", "description", "location", "visibility"):
        if (value := call.get(f"updated_{name}")) is not None:
            changes[name] = one_line(value) if name == "summary" else value
    if "updated_recurrence" in call.input:
        changes["recurrence"] = recurrence(call.input["updated_recurrence"]) or None
    meet = call.get("updated_google_meet", "none")
    if meet == "add" and not meet_link(event):
        changes["conferenceData"] = _new_meeting(call)
    elif meet == "remove":
        changes["conferenceData"] = None
    result = event
    how = _how(call, "send_notifications_to_attendees", meet=meet != "none")
    if changes:
        result = (
            await call.api.call(
                "PATCH", events_path(calendar, call.input["event_id"]), query=how, json=changes
            )
        ).json
    if "updated_calendar_id" in call.input and calendar != target:
        path = f"{events_path(calendar, call.input['event_id'])}/move"
        how = {"destination": target, "sendUpdates": how["sendUpdates"]}
        result = (await call.api.call("POST", path, query=how)).json
    return {"updated": True, **_told(result, meet=meet == "add")}


_CHANGING = {
    *(
        f"updated_{name}"
        for name in ("start_datetime", "end_datetime", "calendar_id", "summary", "description")
    ),
    *(f"updated_{name}" for name in ("location", "visibility", "recurrence")),
    *("attendee_emails_to_add", "attendee_emails_to_remove"),
}


async def respond_to_event(call: Call) -> Json:
    """The user's own answer to an invitation; nobody else's entry is touched."""
    path = events_path(given_calendar(call), call.input["event_id"])
    event = (await call.api.call("GET", path)).json
    own = next((one for one in _list(event, "attendees") if one.get("self") is True), None)
    if own is None:
        raise bad_input(
            "The user is not among the attendees of this event, so there is no invitation to answer.",
            hint="An event of the user's own is changed with UpdateEvent or taken away with DeleteEvent.",
        )
    kept = ("email", "comment", "additionalGuests", "optional")
    entry: dict[str, Json] = {name: own[name] for name in kept if name in own}
    entry["responseStatus"] = call.input["response"]
    answer = await call.api.call(
        "PATCH",
        path,
        query=_how(call, "send_updates", meet=False),
        # so marked, the list stands for the user's own entry alone, and the others stay
        json={"attendeesOmitted": True, "attendees": [entry]},
    )
    return {"response": call.input["response"], **_told(answer.json, meet=False)}


async def delete_event(call: Call) -> Json:
    """An event away from its calendar; one that is gone already is no failure."""
    path = events_path(given_calendar(call), call.input["event_id"])
    result: dict[str, Json] = {"deleted": True, "event_id": call.input["event_id"].strip()}
    try:
        await call.api.call("DELETE", path, query=_how(call, "send_updates", meet=False))
    except ToolError as failure:
        if failure.status != 410:
            raise
        result["was_gone_already"] = True
    return result


async def _find(call: Call, target: str) -> tuple[str, Json]:
    """The event and the calendar it is in: the one that the caller names, else the user's primary one.

    In this order, as an event has the same id in the calendar it is in and in those of its attendees.
    """
    last: ToolError | None = None
    for calendar in dict.fromkeys((target, PRIMARY)):
        try:
            return calendar, (await call.api.call("GET", events_path(calendar, call.input["event_id"]))).json
        except ToolError as failure:
            if failure.kind is not Kind.NOT_FOUND:
                raise
            last = failure
    raise ToolError(
        Kind.NOT_FOUND,
        "There is no such event in this calendar.",
        hint="ListEvents gives the ids; updated_calendar_id names a calendar other than the primary one.",
        status=404,
    ) from last


async def _times(call: Call, calendar: str, event: Json) -> dict[str, Json]:
    """The new start and end. Where only one is given, the other stays, and both must still make sense."""
    given = {name: call.get(f"updated_{name}_datetime") for name in ("start", "end")}
    new = {name: moment(text, f"updated_{name}_datetime") for name, text in given.items() if text}
    repeats = bool(call.get("updated_recurrence"))
    if not new and not repeats:
        return {}
    old = {name: _object(event, name) for name in given}
    whole = {name: new.get(name) or of_edge(old[name]) for name in given}
    start, end = whole["start"], whole["end"]
    if start is None or end is None:
        raise bad_input("This event has no time that could be changed.")
    named = not is_day(start) and (repeats or bool(_list_of(event, "recurrence")))
    zone_name = str(old["start"].get("timeZone") or old["end"].get("timeZone") or "")
    if not zone_name and (
        named or any(isinstance(one, datetime) and one.tzinfo is None for one in new.values())
    ):
        zone_name = await zone_of(call, calendar)
    if "end" in new and is_day(start) and start == end:
        new["end"] = end = next_day(end)
    demand_order(start, end, zone(zone_name))
    # a series is changed with both: Google wants the zone's name in each of them
    changed = whole | new if named else new
    return {name: edge(value, zone_name, named=named) for name, value in changed.items() if value is not None}


def _attendees(call: Call, event: Json) -> dict[str, Json]:
    """The whole list with some added and some taken away: a change of a list replaces it."""
    add = emails(call.get("attendee_emails_to_add"), "attendee_emails_to_add")
    remove = {
        one.casefold() for one in emails(call.get("attendee_emails_to_remove"), "attendee_emails_to_remove")
    }
    if not add and not remove:
        return {}
    if event.get("attendeesOmitted"):
        raise bad_input(
            "Google does not tell all attendees of this event, so its list cannot be changed here."
        )
    kept = [one for one in _list(event, "attendees") if str(one.get("email", "")).casefold() not in remove]
    there = {str(one.get("email", "")).casefold() for one in kept}
    kept += [{"email": one} for one in add if one.casefold() not in there]
    if len(kept) > MOST_ATTENDEES:
        raise bad_input(f"An event has at most {MOST_ATTENDEES} attendees.")
    return {"attendees": kept}


def emails(given: Iterable[str] | None, name: str) -> list[str]:
    """Addresses, each once; `Name <address>` is read as the address. Raises ToolError for what is none."""
    found: dict[str, str] = {}
    for value in given or ():
        plain = value.strip()
        bracketed = _NAMED.fullmatch(plain)
        email = (bracketed[1] if bracketed else plain).strip()
        if not _EMAIL.fullmatch(email):
            raise bad_input(f"{name} has a value that is no e-mail address: {plain[:80]!r}")
        found.setdefault(email.casefold(), email)
    if len(found) > MOST_ATTENDEES:
        raise bad_input(f"{name} has more than {MOST_ATTENDEES} addresses")
    return list(found.values())


def recurrence(given: Iterable[str] | None) -> list[str]:
    """Rules of RFC 5545, each a line; `RRULE:` may be left out. Raises ToolError."""
    rules = []
    for value in given or ():
        plain = value.strip()
        rule = f"RRULE:{plain}" if plain.upper().startswith("FREQ=") else plain
        if not _RULE.fullmatch(rule):
            raise bad_input(
                f"recurrence has a line that is no rule: {plain[:80]!r}",
                hint="For example RRULE:FREQ=WEEKLY;BYDAY=MO,WE;COUNT=10. Start and end are no part of it.",
            )
        rules.append(rule)
    return rules


def _new_meeting(call: Call) -> dict[str, Json]:
    """The wish for a Meet link. Its id comes from the call, so that the same wish is not met twice."""
    said = json.dumps(dict(call.input), sort_keys=True, default=str)
    wish = hashlib.sha256(f"{call.user}\n{call.now}\n{said}".encode()).hexdigest()[:32]
    return {"createRequest": {"requestId": wish, "conferenceSolutionKey": {"type": "hangoutsMeet"}}}


def _how(call: Call, name: str, *, meet: bool) -> dict[str, Json]:
    """Who is told by mail, and whether the change is one of the meeting link too."""
    return {"sendUpdates": call.get(name, "all"), "conferenceDataVersion": 1 if meet else None}


def _told(event: Json, *, meet: bool) -> dict[str, Json]:
    shape = event_of(event)
    if meet and "meet_link" not in shape:
        shape["meet_note"] = "Google is still making the Meet link; ListEvents shows it in a moment."
    return shape


def _without_nulls(value: Mapping[str, Json]) -> dict[str, Json]:
    return {name: one for name, one in value.items() if one is not None}


def _object(value: Json, name: str) -> Mapping[str, Json]:
    found = value.get(name) if isinstance(value, dict) else None
    return found if isinstance(found, dict) else {}


def _list_of(value: Json, name: str) -> list[Json]:
    found = value.get(name) if isinstance(value, dict) else None
    return found if isinstance(found, list) else []


def _list(value: Json, name: str) -> list[dict[str, Json]]:
    return [one for one in _list_of(value, name) if isinstance(one, dict)]
