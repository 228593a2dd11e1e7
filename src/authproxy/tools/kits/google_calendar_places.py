"""Which calendar is meant, and its time zone."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

from authproxy.tools.rows import segment
from authproxy.tools.tool import Call, Json, Kind, ToolError

CALENDAR = "/calendar/v3"
PRIMARY = "primary"
MOST_CALENDARS = 250


async def read_calendars(call: Call) -> list[Mapping[str, Any]]:
    """The calendars of the user's list, hidden ones too; at most `MOST_CALENDARS`."""
    answer = await call.api.call(
        "GET",
        f"{CALENDAR}/users/me/calendarList",
        query={"maxResults": MOST_CALENDARS, "showHidden": True},
    )
    found = answer.json.get("items") if isinstance(answer.json, dict) else None
    return [one for one in found or () if isinstance(one, dict)]


def events_path(calendar: str, event: str | None = None) -> str:
    """Where the events of a calendar are, or one of them."""
    path = f"{CALENDAR}/calendars/{segment(calendar, 'calendar_id')}/events"
    return path if event is None else f"{path}/{segment(event.strip(), 'event_id')}"


def given_calendar(call: Call, name: str = "calendar_id") -> str:
    """The calendar as the caller names it; the primary one where none is named."""
    return str(call.get(name) or PRIMARY).strip() or PRIMARY


async def resolve(call: Call, *, zone_needed: bool) -> tuple[str, str]:
    """The id of the calendar that is meant, and its time zone where that is needed (empty where not).

    Ids of calendars have an `@`; anything else but `primary` is looked up among the names.
    """
    wanted = given_calendar(call)
    if "@" not in wanted and wanted != PRIMARY:
        listed = await read_calendars(call)
        entry = _named(listed, wanted)
        return str(entry["id"]), str(entry.get("timeZone") or "UTC")
    if not zone_needed:
        return wanted, ""
    for entry in await read_calendars(call):
        is_meant = entry.get("id") == wanted or (wanted == PRIMARY and entry.get("primary") is True)
        if is_meant and entry.get("timeZone"):
            return wanted, str(entry["timeZone"])
    # a calendar that is shared with the user need not be in their list
    return wanted, await zone_of(call, wanted)


async def zone_of(call: Call, calendar: str) -> str:
    """The time zone of a calendar, as its list of events tells it to who may only see events."""
    answer = await call.api.call("GET", events_path(calendar), query={"maxResults": 1, "fields": "timeZone"})
    return str((answer.json or {}).get("timeZone") or "UTC")


def _named(listed: Sequence[Mapping[str, Any]], wanted: str) -> Mapping[str, Any]:
    def names(entry: Mapping[str, Any]) -> set[str]:
        return {str(entry.get(key) or "").casefold() for key in ("id", "summary", "summaryOverride")}

    found = [entry for entry in listed if entry.get("id") and wanted.casefold() in names(entry)]
    if len(found) == 1:
        return found[0]
    if found:
        raise _unclear(f"{len(found)} calendars are called {wanted[:80]!r}.", found)
    shown = {_title(entry).casefold(): entry for entry in listed}
    near = [shown[one] for one in difflib.get_close_matches(wanted.casefold(), shown, n=5, cutoff=0.5)]
    raise _unclear(f"The user has no calendar {wanted[:80]!r}.", near or list(listed))


def _unclear(text: str, choices: Sequence[Mapping[str, Any]]) -> ToolError:
    told = "; ".join(f"{_title(one)[:80]} = {str(one.get('id'))[:120]}" for one in choices[:15])
    return ToolError(
        Kind.RETRY,
        text,
        hint=f"calendar_id takes an id: {told}." if told else "ListCalendars gives the ids.",
        can_retry=True,
    )


def _title(entry: Mapping[str, Json]) -> str:
    return str(entry.get("summaryOverride") or entry.get("summary") or entry.get("id") or "")
