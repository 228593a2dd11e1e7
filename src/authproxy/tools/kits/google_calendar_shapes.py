"""Google Calendar's JSON, as what a reader wants to know of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from authproxy.tools.kits.plain_text import cut, from_html, looks_like_html, one_line
from authproxy.tools.tool import Input, Json

MOST_ATTENDEES = 30
LONGEST_DESCRIPTION = 2_000


def event_of(event: Json, *, description: int = LONGEST_DESCRIPTION) -> dict[str, Json]:
    """What, when, where, with whom; what is as usual is left out."""
    said: Mapping[str, Any] = event if isinstance(event, dict) else {}
    people = said.get("attendees") or []
    shape: dict[str, Json] = {
        "id": said.get("id"),
        "summary": one_line(str(said.get("summary") or "(no title)")),
        "start": _edge(said.get("start")),
        "end": _edge(said.get("end")),
        "all_day": "date" in (said.get("start") or {}) and not (said.get("start") or {}).get("dateTime"),
        "time_zone": (said.get("start") or {}).get("timeZone"),
        "location": said.get("location"),
        "description": _text(said.get("description"), description),
        "organizer": _person(said.get("organizer") or {}).get("email"),
        "attendees": [_person(one) for one in people[:MOST_ATTENDEES]],
        "my_response": next(
            (one.get("responseStatus") for one in said.get("attendees") or () if one.get("self")), None
        ),
        "meet_link": meet_link(said),
        "recurrence": said.get("recurrence"),
        "series_id": said.get("recurringEventId"),
        "link": said.get("htmlLink"),
    }
    for name, usual in (("status", "confirmed"), ("visibility", "default"), ("eventType", "default")):
        if said.get(name, usual) != usual:
            shape["kind" if name == "eventType" else name] = said[name]
    more = len(people) - MOST_ATTENDEES
    if more > 0 or said.get("attendeesOmitted"):
        shape["attendees_left_out"] = more if more > 0 else True
    return {name: value for name, value in shape.items() if value not in (None, "", [], False)}


def meet_link(event: Mapping[str, Json]) -> str | None:
    """Where the video call is; None where there is none, or not yet."""
    if event.get("hangoutLink"):
        return str(event["hangoutLink"])
    for entry in (event.get("conferenceData") or {}).get("entryPoints") or ():
        if entry.get("entryPointType") == "video" and entry.get("uri"):
            return str(entry["uri"])
    return None


def calendars_of(answer: Json, _given: Input | None = None) -> Json:
    """The calendars of a list, by id and name."""
    said = answer if isinstance(answer, dict) else {}
    token = said.get("nextPageToken")
    return {
        "calendars": [_calendar(one) for one in said.get("items") or ()],
        **({"next_page_token": token} if token else {}),
    }


def _calendar(said: Mapping[str, Json]) -> dict[str, Json]:
    shape = {
        "id": said.get("id"),
        "name": said.get("summaryOverride") or said.get("summary"),
        "description": _text(said.get("description"), 300),
        "primary": said.get("primary"),
        "time_zone": said.get("timeZone"),
        "access": said.get("accessRole"),
        "hidden": said.get("hidden"),
        "deleted": said.get("deleted"),
    }
    return {name: value for name, value in shape.items() if value not in (None, "", False)}


def _person(said: Mapping[str, Json]) -> dict[str, Json]:
    shape = {
        "email": said.get("email"),
        "name": said.get("displayName"),
        "response": said.get("responseStatus"),
        "optional": said.get("optional"),
        "organizer": said.get("organizer"),
        "self": said.get("self"),
    }
    return {name: value for name, value in shape.items() if value not in (None, "", False)}


def _edge(said: Json) -> Json:
    return (said.get("dateTime") or said.get("date")) if isinstance(said, dict) else None


def _text(said: Json, most: int) -> str:
    """A description, which Calendar's own page writes as HTML."""
    text = str(said or "")
    return cut(from_html(text) if looks_like_html(text) else text.strip(), most)
