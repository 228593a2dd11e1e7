"""Dates, times and durations as people write them, in the time zone that the HubSpot account is set to."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from typing import Any, Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from authproxy.tools.kits.hubspot.asking import get, refused
from authproxy.tools.tool import Call, ToolError, bad_input

ACCOUNT: Final = "/account-info/v3/details"
_CLOCK: Final = re.compile(r"(\d{1,3}):([0-5]\d)(?::[0-5]\d)?")
_UNITS: Final = re.compile(
    r"(?:(\d{1,3})\s*h(?:ours?)?)?\s*(?:(\d{1,4})\s*m(?:in(?:utes?)?)?)?", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class Zone:
    """A time zone and how to call it in an answer."""

    name: str
    rules: tzinfo


@dataclass(frozen=True, slots=True)
class Moment:
    """A point in time; `assumed` names the zone that was taken, where the caller named none."""

    at: datetime
    assumed: str | None = None

    @property
    def text(self) -> str:
        """As HubSpot takes it."""
        return utc(self.at)


def utc(at: datetime) -> str:
    """ISO 8601 in UTC, to the second."""
    return f"{at.astimezone(UTC):%Y-%m-%dT%H:%M:%S}Z"


async def account_zone(call: Call) -> Zone:
    """The time zone of the user's HubSpot account; UTC where the account's details may not be read."""
    try:
        details = await get(call, ACCOUNT)
    except ToolError as error:
        if not refused(error):
            raise
        return Zone("UTC (the account's time zone could not be read)", UTC)
    return zone_of(details)


def zone_of(details: dict[str, Any]) -> Zone:
    """The zone that account details name; by today's offset where this machine does not know the name."""
    name = str(details.get("timeZone") or "UTC")
    try:
        return Zone(name, ZoneInfo(name))
    except (ZoneInfoNotFoundError, ValueError, OSError):
        milliseconds = details.get("utcOffsetMilliseconds")
        offset = timedelta(milliseconds=milliseconds if isinstance(milliseconds, int) else 0)
        if abs(offset) >= timedelta(days=1):
            return Zone("UTC", UTC)
        return Zone(f"{name} (at its offset of today)", timezone(offset))


async def moment(call: Call, text: str, name: str) -> Moment:
    """The time that argument `name` gives. Without an offset it is meant in the account's time zone."""
    try:
        at = datetime.fromisoformat(text.strip())
    except ValueError:
        raise bad_input(
            f"{name} is no date and time: give it like 2026-01-31T14:30:00 (in the account's time zone), "
            "2026-01-31T14:30:00Z or 2026-01-31T14:30:00+01:00."
        ) from None
    if at.tzinfo is not None:
        return Moment(at)
    zone = await account_zone(call)
    return Moment(at.replace(tzinfo=zone.rules), zone.name)


def clock(text: str, name: str) -> str:
    """A time of day as ISO 8601 has it, with or without an offset: 9:15 as 09:15."""
    said = text.strip()
    said = f"0{said}" if re.match(r"\d:", said) else said
    try:
        time.fromisoformat(said)
    except ValueError:
        raise bad_input(f"{name} is no time of day: give it like 14:30, 14:30:00 or 14:30Z.") from None
    return said


def day(text: str, name: str) -> date:
    """A calendar date, YYYY-MM-DD."""
    try:
        return date.fromisoformat(text.strip())
    except ValueError:
        raise bad_input(f"{name} is no date: give it like 2026-01-31.") from None


def closing(text: str, name: str) -> str:
    """A date as a date-and-time property: noon UTC, which is the same day in nearly every time zone.

    Midnight UTC would be shown as the day before all over the Americas. A full date and time is taken as it is,
    in UTC where it has no offset.
    """
    if re.fullmatch(r"\s*\d{4}-\d{2}-\d{2}\s*", text):
        return f"{day(text, name).isoformat()}T12:00:00Z"
    try:
        at = datetime.fromisoformat(text.strip())
    except ValueError:
        raise bad_input(f"{name} is no date: give it like 2026-01-31.") from None
    return utc(at if at.tzinfo is not None else at.replace(tzinfo=UTC))


def span(text: str, name: str) -> timedelta:
    """A duration: H:MM, or 45m, 1h, 1h30m."""
    clock = _CLOCK.fullmatch(text.strip())
    units = _UNITS.fullmatch(text.strip())
    match = clock or (units if units and any(units.groups()) else None)
    if match is None:
        raise bad_input(f"{name} is no duration: give hours and minutes like 1:30 or 0:45.")
    length = timedelta(hours=int(match[1] or 0), minutes=int(match[2] or 0))
    if not length:
        raise bad_input(f"{name} is no time at all: give hours and minutes like 0:45.")
    return length
