"""Google Calendar: events made, found, changed and answered, and times when everybody is free."""

from __future__ import annotations

from authproxy.tools.kits.google_calendar_reading import (
    find_time_slots_when_everyone_is_free,
    list_events,
    who_am_i,
)
from authproxy.tools.kits.google_calendar_shapes import calendars_of
from authproxy.tools.kits.google_calendar_writing import (
    create_event,
    delete_event,
    respond_to_event,
    update_event,
)
from authproxy.tools.kits.google_errors import error_words

__all__ = [
    "calendars_of",
    "create_event",
    "delete_event",
    "error_words",
    "find_time_slots_when_everyone_is_free",
    "list_events",
    "respond_to_event",
    "update_event",
    "who_am_i",
]
