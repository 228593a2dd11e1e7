"""The tools that log activities, change them, and put them to deals."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from authproxy.tools.kits.hubspot.asking import send
from authproxy.tools.kits.hubspot.finding import meant, read
from authproxy.tools.kits.hubspot.objects import (
    ACTIVITIES,
    CALLS,
    COMMUNICATIONS,
    DEALS,
    EMAILS,
    MEETINGS,
    NOTES,
    RECORDS,
    ObjectType,
    association,
)
from authproxy.tools.kits.hubspot.owners import current_owner_id
from authproxy.tools.kits.hubspot.records import change, patch
from authproxy.tools.kits.hubspot.shaping import full, written
from authproxy.tools.kits.hubspot.times import Moment, account_zone, clock, day, moment, span, utc
from authproxy.tools.tool import Call, Json, bad_input


async def create_call_activity(call: Call) -> Json:
    """Log a call."""
    return await _create(call, CALLS, written(CALLS, call.input))


async def create_communication_activity(call: Call) -> Json:
    """Log a message of another channel than e-mail, call or meeting."""
    # HubSpot shows a communication on the timeline only with this.
    properties = written(COMMUNICATIONS, call.input) | {"hs_communication_logged_from": "CRM"}
    return await _create(call, COMMUNICATIONS, properties)


async def create_email_activity(call: Call) -> Json:
    """Log an e-mail; nothing is sent."""
    return await _create(call, EMAILS, _email(call) | {"hs_email_headers": _headers(call)})


async def create_meeting_activity(call: Call) -> Json:
    """Log a meeting with its start and, where a duration is given, its end."""
    _targets(call)
    length = _length(call)
    start = await moment(call, _joined(call.input["start_date"], call.input["start_time"]), "start_time")
    properties = written(MEETINGS, call.input) | _times(start.at, start.at + length if length else None)
    return await _made(call, MEETINGS, properties, start)


async def create_note_activity(call: Call) -> Json:
    """Log a note."""
    return await _create(call, NOTES, written(NOTES, call.input))


async def update_call_activity(call: Call) -> Json:
    """Change a call."""
    return await _update(call, CALLS, written(CALLS, call.input))


async def update_communication_activity(call: Call) -> Json:
    """Change a message."""
    return await _update(call, COMMUNICATIONS, written(COMMUNICATIONS, call.input))


async def update_email_activity(call: Call) -> Json:
    """Change a logged e-mail."""
    return await _update(call, EMAILS, _email(call))


async def update_note_activity(call: Call) -> Json:
    """Change a note."""
    return await _update(call, NOTES, written(NOTES, call.input))


async def update_meeting_activity(call: Call) -> Json:
    """Change a meeting. What of its date, time and length is not given stays as it is."""
    properties = written(MEETINGS, call.input)
    moved = any(call.get(name) is not None for name in ("start_date", "start_time", "duration"))
    if not moved:
        return await change(call, MEETINGS, properties)
    length = _length(call)
    one = await meant(call, MEETINGS)
    whole = length is not None and None not in (call.get("start_date"), call.get("start_time"))
    standing = (None, None) if whole else await _standing(call, one)
    times, assumed = await _moved(call, standing, length)
    return await patch(call, MEETINGS, one, properties | times) | _assumed(assumed)


async def associate_activity_to_deal(call: Call) -> Json:
    """Put an activity to a deal."""
    kind = ACTIVITIES[call.input["activity_type"]]
    activity, deal = int(call.input["activity_id"]), int(call.input["deal_id"])
    path = f"/crm/v4/objects/{kind.name}/{activity}/associations/deals/{deal}"
    await send(call, "PUT", path, association(kind, DEALS))
    return {"associated": True, "activity_type": kind.one, "activity_id": activity, "deal_id": deal}


async def _create(call: Call, kind: ObjectType, properties: dict[str, str]) -> Json:
    _targets(call)
    when = await moment(call, call.input["when_occurred"], "when_occurred")
    return await _made(call, kind, properties | {"hs_timestamp": when.text}, when)


async def _made(call: Call, kind: ObjectType, properties: dict[str, str], when: Moment) -> Json:
    owner = await current_owner_id(call)
    if owner:
        properties["hubspot_owner_id"] = owner
    targets = _targets(call)
    body = {
        "properties": properties,
        "associations": [
            {"to": {"id": str(one)}, "types": association(kind, other)} for other, one in targets.items()
        ],
    }
    made = await send(call, "POST", f"/crm/v3/objects/{kind.name}", body)
    answer: dict[str, Json] = {
        kind.one: full(made, kind),
        "associated_with": {f"{other.one}_id": one for other, one in targets.items()},
        "created": True,
    }
    return answer | _assumed(when.assumed)


def _targets(call: Call) -> dict[ObjectType, int]:
    """What the activity is put to: at least one record, for it would stand on no timeline else."""
    given = {other: call.get(f"associate_to_{other.one}_id") for other in RECORDS}
    targets = {other: int(one) for other, one in given.items() if one is not None}
    if not targets:
        raise bad_input(
            "Say what the activity is about: associate_to_contact_id, associate_to_company_id or associate_to_deal_id."
        )
    return targets


async def _update(call: Call, kind: ObjectType, properties: dict[str, str]) -> Json:
    assumed = None
    if call.get("when_occurred") is not None:
        when = await moment(call, call.input["when_occurred"], "when_occurred")
        properties["hs_timestamp"], assumed = when.text, when.assumed
    return await change(call, kind, properties) | _assumed(assumed)


def _assumed(zone: str | None) -> dict[str, Json]:
    return {"assumed_time_zone": zone} if zone else {}


def _email(call: Call) -> dict[str, str]:
    properties = written(
        EMAILS, {name: call.get(name) for name in ("subject", "direction", "status", "body_text")}
    )
    if call.get("body_html") is not None:
        properties["hs_email_html"] = call.input["body_html"]
    return properties


def _headers(call: Call) -> str:
    """Sender and recipients, which HubSpot takes as JSON within a text."""
    headers = {
        "from": _party(
            call.input["from_email"], "from_email", call.get("from_first_name"), call.get("from_last_name")
        ),
        "to": [
            _party(call.input["to_email"], "to_email", call.get("to_first_name"), call.get("to_last_name"))
        ],
        "cc": [_party(one, "cc_emails") for one in call.get("cc_emails") or ()],
        "bcc": [_party(one, "bcc_emails") for one in call.get("bcc_emails") or ()],
    }
    return json.dumps(headers, ensure_ascii=False)


def _party(email: str, name: str, first: str | None = None, last: str | None = None) -> dict[str, str]:
    email = email.strip()
    if "@" not in email.strip("@"):
        raise bad_input(f"{name}: this is no e-mail address.")
    given = {"email": email, "firstName": first, "lastName": last}
    return {key: value for key, value in given.items() if value}


def _length(call: Call) -> timedelta | None:
    duration = call.get("duration")
    return None if duration is None else span(duration, "duration")


def _joined(date: str, time: str) -> str:
    return f"{day(date, 'start_date').isoformat()}T{clock(time, 'start_time')}"


def _times(start: datetime, end: datetime | None) -> dict[str, str]:
    times = {"hs_timestamp": utc(start), "hs_meeting_start_time": utc(start)}
    return times | ({"hs_meeting_end_time": utc(end)} if end else {})


async def _standing(call: Call, one: int | str) -> tuple[datetime | None, datetime | None]:
    """When the meeting starts and ends as it is now."""
    names = ["hs_meeting_start_time", "hs_meeting_end_time", "hs_timestamp"]
    held = (await read(call, MEETINGS, int(one), names)).get("properties") or {}
    return _stamp(held, names[0]) or _stamp(held, names[2]), _stamp(held, names[1])


def _stamp(held: Mapping[str, object], name: str) -> datetime | None:
    value = held.get(name)
    try:
        at = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        return None  # empty, or no time
    return at.replace(tzinfo=at.tzinfo or UTC) if at else None


async def _moved(
    call: Call, standing: tuple[datetime | None, datetime | None], length: timedelta | None
) -> tuple[dict[str, str], str | None]:
    """The new times. A date or a time of day alone is meant in the account's time zone, like all."""
    start, end = standing
    date, time = call.get("start_date"), call.get("start_time")
    if length is None and start is not None and end is not None and end > start:
        length = end - start
    assumed = None
    if date is not None or time is not None:
        if start is None and (date is None or time is None):
            raise bad_input("The meeting has no start yet: give both start_date and start_time.")
        if start is not None and (date is None or time is None):
            local = start.astimezone((await account_zone(call)).rules)
            date, time = date or local.date().isoformat(), time or f"{local:%H:%M:%S}"
        new = await moment(call, _joined(date, time), "start_time")
        start, assumed = new.at, new.assumed
    if start is None:
        raise bad_input("The meeting has no start yet: give start_date and start_time besides duration.")
    return _times(start, start + length if length else None), assumed
