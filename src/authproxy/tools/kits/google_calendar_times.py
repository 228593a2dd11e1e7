"""Times as callers write them and as Google Calendar takes them (RFC 3339), in the time zone of a calendar."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from authproxy.tools.tool import Json, Kind, ToolError, bad_input

_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_ZONE = re.compile(r"[A-Za-z0-9_+/-]{1,64}")
_HINT = "Write times as 2026-03-10T14:00:00 (in the calendar's time zone) or with an offset, 2026-03-10T14:00:00+01:00."


def moment(text: str, name: str) -> date | datetime:
    """A day, or a time with or without an offset. Raises ToolError for anything else."""
    plain = text.strip()
    try:
        if _DATE.fullmatch(plain):
            return date.fromisoformat(plain)
        found = datetime.fromisoformat(plain.replace(" ", "T", 1)).replace(microsecond=0)
    except ValueError:
        found = None
    # a week's or a year's day is ISO 8601 too, and nobody's meaning here
    if found is None or not _DATE.match(plain) or not 1970 <= found.year <= 2200:
        raise bad_input(f"{name} is no date or time: {plain[:60]!r}", hint=_HINT)
    return found


def is_day(value: date | datetime) -> bool:
    """Whether it is a whole day, and no time in one."""
    return not isinstance(value, datetime)


def zone(name: str) -> tzinfo:
    """A time zone by its name. Raises ToolError where this machine does not know it."""
    if name in ("UTC", "Etc/UTC", "GMT", ""):
        return UTC
    try:
        if _ZONE.fullmatch(name):
            return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        pass
    raise ToolError(
        Kind.FATAL,
        f"The calendar's time zone {name[:64]!r} is not known here. Give times with an offset.",
        developer_message="install tzdata (or Debian's tzdata) beside authproxy",
        hint=_HINT,
    )


def at(value: date | datetime, where: tzinfo) -> datetime:
    """As one point in time: what has no offset is in `where`, and a day begins at its midnight."""
    if not isinstance(value, datetime):
        return datetime.combine(value, time(), where)
    return value if value.tzinfo is not None else value.replace(tzinfo=where)


def stamp(value: datetime) -> str:
    """RFC 3339, with `Z` for UTC."""
    return value.isoformat(timespec="seconds").replace("+00:00", "Z")


def edge(value: date | datetime, zone_name: str, *, named: bool = False) -> dict[str, Json]:
    """A start or an end as the API takes it; `named` where the zone's name must be there, as recurrence needs it."""
    if not isinstance(value, datetime):
        # the other kind is taken away, or an event that is changed would have both
        return {"date": value.isoformat(), "dateTime": None, "timeZone": None}
    naive = value.tzinfo is None
    found: dict[str, Json] = {"date": None, "dateTime": stamp(at(value, zone(zone_name)) if naive else value)}
    if naive or named:
        found["timeZone"] = zone_name
    return found


def of_edge(said: Mapping[str, Json]) -> date | datetime | None:
    """A start or an end as the API gives it; None where it is neither."""
    try:
        if said.get("dateTime"):
            return datetime.fromisoformat(str(said["dateTime"]))
        if said.get("date"):
            return date.fromisoformat(str(said["date"]))
    except ValueError:
        pass
    return None


def demand_order(start: date | datetime, end: date | datetime, where: tzinfo) -> None:
    """Raises ToolError where the end is not after the start, or one is a day and the other a time."""
    if is_day(start) is not is_day(end):
        raise bad_input(
            "The start and the end must both be times, or both be dates (an all-day event).", hint=_HINT
        )
    if at(end, where) <= at(start, where):
        times = f"it would start {start.isoformat()} and end {end.isoformat()}"
        raise bad_input(f"The event must end after it starts; {times}.")


def day(text: str, name: str) -> date:
    """A day as `YYYY-MM-DD`. Raises ToolError."""
    try:
        return date.fromisoformat(text.strip()[:10])
    except ValueError:
        raise bad_input(f"{name} is no date: write it as 2026-03-10") from None


def clock_time(text: str, name: str) -> time:
    """A time of day as `HH:MM`; `24:00` is the end of the day. Raises ToolError."""
    match = re.fullmatch(r"([0-9]{1,2}):([0-9]{2})(?::[0-9]{2})?", text.strip())
    hour, minute = (int(match[1]), int(match[2])) if match else (99, 0)
    if (hour, minute) == (24, 0):
        return time(23, 59, 59)
    if hour > 23 or minute > 59:
        raise bad_input(f"{name} is no time of day: write it as 09:30")
    return time(hour, minute)


def next_day(value: date) -> date:
    """The day after."""
    return value + timedelta(days=1)
