"""A HubSpot account that keeps its records: objects, search, associations, owners, pipelines, properties.

It answers in the shapes of HubSpot's documentation and is as strict as that: values are strings, properties and
options must exist, times are ISO 8601 in UTC, association types must fit, and an engagement needs its time.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from tests.tools.kit import House, Reply, Seen

ENGAGEMENTS = ("calls", "communications", "emails", "meetings", "notes", "tasks")
CORRELATION = "aeb5f871-7f07-4993-9211-075dc63e7cbf"

PROPERTIES = {
    "contacts": "firstname lastname email phone mobilephone jobtitle company lifecyclestage hs_lead_status city "
    "country",
    "companies": "name domain industry city state country phone website numberofemployees annualrevenue "
    "lifecyclestage description",
    "deals": "dealname amount deal_currency_code pipeline dealstage dealtype closedate hs_priority description "
    "hs_is_closed hs_is_closed_won",
    "calls": "hs_call_title hs_call_direction hs_call_status hs_call_body hs_call_duration hs_call_to_number "
    "hs_call_from_number",
    "emails": "hs_email_subject hs_email_direction hs_email_status hs_email_text hs_email_html hs_email_headers",
    "meetings": "hs_meeting_title hs_meeting_start_time hs_meeting_end_time hs_meeting_location hs_meeting_outcome "
    "hs_meeting_body hs_internal_meeting_notes",
    "notes": "hs_note_body",
    "tasks": "hs_task_subject hs_task_body hs_task_status hs_task_priority hs_task_type",
    "communications": "hs_communication_channel_type hs_communication_body hs_communication_logged_from",
}
OPTIONS = {
    "industry": {"ACCOUNTING", "COMPUTER_SOFTWARE", "INFORMATION_TECHNOLOGY_AND_SERVICES", "BEEKEEPING"},
    "dealtype": {"newbusiness", "existingbusiness", "Upsell Q1"},
    "hs_priority": {"low", "medium", "high"},
    "hs_call_direction": {"INBOUND", "OUTBOUND"},
    "hs_email_direction": {"EMAIL", "INCOMING_EMAIL", "FORWARDED_EMAIL"},
    "hs_email_status": {"BOUNCED", "FAILED", "SCHEDULED", "SENDING", "SENT"},
    "hs_meeting_outcome": {"SCHEDULED", "COMPLETED", "RESCHEDULED", "NO_SHOW", "CANCELED"},
    "hs_communication_channel_type": {
        "SMS",
        "WHATS_APP",
        "LINKEDIN_MESSAGE",
        "PHYSICAL_MAIL",
        "CUSTOM_CHANNEL_CONVERSATION",
    },
    "hs_communication_logged_from": {"CRM"},
}
TIMES = {"closedate", "hs_timestamp", "hs_meeting_start_time", "hs_meeting_end_time"}
NUMBERS = {"amount", "hs_call_duration", "numberofemployees", "annualrevenue"}
SEARCHED = {  # the properties that `query` looks into, as HubSpot documents them
    "contacts": "firstname lastname email phone mobilephone company",
    "companies": "website phone name domain",
    "deals": "dealname pipeline dealstage description dealtype",
    "calls": "hs_call_title hs_body_preview",
    "emails": "hs_email_subject",
    "meetings": "hs_meeting_title hs_meeting_body",
    "notes": "hs_note_body",
    "tasks": "hs_task_body hs_task_subject",
    "communications": "",
}
# from HubSpot's table of association types; the way back has another number, which no tool uses
TYPES = {
    279: ("contacts", "companies"),
    1: ("contacts", "companies"),
    4: ("contacts", "deals"),
    3: ("deals", "contacts"),
    341: ("deals", "companies"),
    5: ("deals", "companies"),
    194: ("calls", "contacts"),
    182: ("calls", "companies"),
    206: ("calls", "deals"),
    198: ("emails", "contacts"),
    186: ("emails", "companies"),
    210: ("emails", "deals"),
    200: ("meetings", "contacts"),
    188: ("meetings", "companies"),
    212: ("meetings", "deals"),
    202: ("notes", "contacts"),
    190: ("notes", "companies"),
    214: ("notes", "deals"),
    204: ("tasks", "contacts"),
    192: ("tasks", "companies"),
    216: ("tasks", "deals"),
    81: ("communications", "contacts"),
    87: ("communications", "companies"),
    85: ("communications", "deals"),
}
BODIES = (
    *("hs_call_body", "hs_email_text", "hs_meeting_body"),
    *("hs_note_body", "hs_task_body", "hs_communication_body"),
)


def stage(one: str, label: str, order: int, probability: str, closed: str = "false") -> dict[str, Any]:
    metadata = {"isClosed": closed, "probability": probability}
    return {"id": one, "label": label, "displayOrder": order, "archived": False, "metadata": metadata}


PIPELINES = [
    {
        "id": "7751203",
        "label": "Renewals",
        "displayOrder": 1,
        "archived": False,
        "stages": [
            stage("9002", "Closed won", 2, "1.0", "true"),
            stage("9001", "Talks", 0, "0.4"),
            {**stage("9009", "Gone", 1, "0.1"), "archived": True},
        ],
    },
    {
        "id": "default",
        "label": "Sales Pipeline",
        "displayOrder": 0,
        "archived": False,
        "stages": [
            stage("appointmentscheduled", "Appointment Scheduled", 0, "0.2"),
            stage("qualifiedtobuy", "Qualified To Buy", 1, "0.4"),
            stage("closedwon", "Closed won", 2, "1.0", "true"),
        ],
    },
]
OWNERS = [
    {
        "id": "6166860",
        "email": "alice@acme.example",
        "firstName": "Alice",
        "lastName": "Ångström",
        "userId": 1296619,
        "type": "PERSON",
        "archived": False,
        "teams": [{"id": "178588", "name": "West", "primary": True}],
    },
    {
        "id": "6166861",
        "email": "bob@acme.example",
        "firstName": "Bob",
        "lastName": "Ray",
        "userId": 1296620,
        "type": "PERSON",
        "archived": False,
    },
    {
        "id": "6166862",
        "email": "bobby@acme.example",
        "firstName": "Bobby",
        "lastName": "Ray",
        "userId": 1296621,
        "type": "PERSON",
        "archived": False,
    },
    {
        "id": "5000001",
        "email": "old@acme.example",
        "firstName": "Olga",
        "lastName": "Old",
        "userIdIncludingInactive": 1000001,
        "type": "PERSON",
        "archived": True,
    },
]
ACCOUNT = {
    "portalId": 123456,
    "accountType": "STANDARD",
    "timeZone": "US/Eastern",
    "companyCurrency": "USD",
    "additionalCurrencies": [],
    "utcOffset": "-05:00",
    "utcOffsetMilliseconds": -18000000,
    "uiDomain": "app.hubspot.com",
    "dataHostingLocation": "na1",
}


class Refused(Exception):
    def __init__(self, status: int, category: str, message: str, **more: Any) -> None:
        super().__init__(message)
        body = {
            "status": "error",
            "message": message,
            "correlationId": CORRELATION,
            "category": category,
            **more,
        }
        self.reply = Reply(status, body)


def missing() -> Refused:
    return Refused(404, "OBJECT_NOT_FOUND", "Object not found.  objectId are usually numeric.")


def invalid(name: str, error: str, message: str) -> Refused:
    row = {"isValid": False, "message": message, "error": error, "name": name}
    return Refused(400, "VALIDATION_ERROR", f"Property values were not valid: {json.dumps([row])}")


@dataclass
class Portal:
    """`forbidden` are beginnings of paths for which the grant lacks a scope; `failing` maps paths to answers."""

    objects: dict[str, dict[str, dict[str, Any]]] = field(
        default_factory=lambda: {name: {} for name in PROPERTIES}
    )
    links: set[tuple[str, str, str, str, int]] = field(default_factory=set)
    forbidden: tuple[str, ...] = ()
    failing: dict[str, Reply] = field(default_factory=dict)
    _ids: Any = field(default_factory=lambda: itertools.count(101))
    _clock: Any = field(default_factory=lambda: itertools.count(1_760_000_000))

    @classmethod
    def of(cls, house: House) -> Portal:
        """A portal that answers all requests of the house, but for those that have an answer of their own."""
        portal = cls()
        house.upstream.given = _Given(portal.answer)
        return portal

    def answer(self, seen: Seen) -> Any:
        try:
            return self._answer(seen)
        except Refused as refused:
            return refused.reply

    def add(self, kind: str, **properties: str) -> int:
        """A record that was there before."""
        return int(self._keep(kind, properties)["id"])

    def link(self, kind: str, one: int, other: str, another: int, type_id: int) -> None:
        self.links.add((kind, str(one), other, str(another), type_id))

    def held(self, kind: str, one: int) -> dict[str, Any]:
        properties: dict[str, Any] = self.objects[kind][str(one)]["properties"]
        return properties

    def _answer(self, seen: Seen) -> Any:
        for begin in self.forbidden:
            if seen.path.startswith(begin):
                raise Refused(
                    403,
                    "MISSING_SCOPES",
                    "This app hasn't been granted all required scopes to make this call. Read more about required "
                    "scopes here: https://developers.hubspot.com/scopes.",
                    errors=[
                        {
                            "message": "One or more of the following scopes are required.",
                            "context": {"requiredGranularScopes": ["crm.objects.owners.read"]},
                        }
                    ],
                )
        if seen.path in self.failing:
            return self.failing[seen.path]
        for method, pattern, handle in self._routes():
            match = re.fullmatch(pattern, seen.path)
            if match and method == seen.method:
                return handle(seen, *match.groups())
        raise Refused(404, "OBJECT_NOT_FOUND", "resource not found")

    def _routes(self) -> list[tuple[str, str, Callable[..., Any]]]:
        objects = "/crm/v3/objects/([a-z]+)"
        return [
            ("POST", f"{objects}/search", self._search),
            ("POST", f"{objects}/batch/read", self._batch),
            ("POST", objects, self._create),
            ("GET", f"{objects}/([0-9]+)", self._get),
            ("PATCH", f"{objects}/([0-9]+)", self._patch),
            ("POST", "/crm/v4/associations/([a-z]+)/([a-z]+)/batch/read", self._linked),
            ("PUT", "/crm/v4/objects/([a-z]+)/([0-9]+)/associations/([a-z]+)/([0-9]+)", self._put),
            ("GET", "/crm/v3/owners", self._owners),
            ("GET", "/crm/v3/owners/([0-9]+)", self._owner),
            ("GET", "/crm/v3/pipelines/deals", lambda _: {"results": PIPELINES}),
            ("GET", "/crm/v3/properties/companies/industry", self._industry),
            ("GET", "/account-info/v3/details", lambda _: ACCOUNT),
        ]

    # objects

    def _create(self, seen: Seen, kind: str) -> Any:
        properties = dict(seen.json["properties"])
        self._check(kind, properties)
        if kind in ENGAGEMENTS and "hs_timestamp" not in properties:
            message = f"Error creating {kind[:-1].upper()}. Some required properties were not set."
            raise Refused(400, "VALIDATION_ERROR", message, context={"properties": ["hs_timestamp"]})
        for record in self.objects[kind].values():
            if (
                kind == "contacts"
                and properties.get("email")
                and record["properties"]["email"] == properties["email"]
            ):
                raise Refused(409, "CONFLICT", f"Contact already exists. Existing ID: {record['id']}")
        wanted = [
            (target["to"]["id"], kinds["associationTypeId"], kinds["associationCategory"])
            for target in seen.json.get("associations", [])
            for kinds in target["types"]
        ]
        for other, type_id, category in wanted:
            self._demand_type(kind, TYPES[type_id][1], type_id, category)
            if other not in self.objects[TYPES[type_id][1]]:
                raise Refused(400, "VALIDATION_ERROR", f"Object ids do not exist: [{other}]")
        made = self._keep(kind, properties)
        for other, type_id, _ in wanted:
            self.links.add((kind, made["id"], TYPES[type_id][1], other, type_id))
        return Reply(201, made)

    def _get(self, seen: Seen, kind: str, one: str) -> Any:
        return self._shown(self._record(kind, one), seen.query["properties"].split(","))

    def _patch(self, seen: Seen, kind: str, one: str) -> Any:
        properties = dict(seen.json["properties"])
        record = self._record(kind, one)
        self._check(kind, properties)
        pipelines = {row["id"]: {one["id"] for one in row["stages"]} for row in PIPELINES}
        after = record["properties"] | properties
        if kind == "deals" and after.get("dealstage") not in pipelines.get(after.get("pipeline"), ()):
            raise invalid(
                "dealstage", "INVALID_OPTION", f"{after['dealstage']} is not a stage of the pipeline"
            )
        self._write(kind, record, properties)
        return self._shown(record, [*properties, "hs_lastmodifieddate"])

    def _batch(self, seen: Seen, kind: str) -> Any:
        ids = [row["id"] for row in seen.json["inputs"]]
        assert 0 < len(ids) <= 100
        assert len(set(ids)) == len(ids)
        found = [
            self._shown(self.objects[kind][one], seen.json["properties"])
            for one in ids
            if one in self.objects[kind]
        ]
        gone = [one for one in ids if one not in self.objects[kind]]
        body: dict[str, Any] = {"status": "COMPLETE", "results": found}
        if gone:
            error = {
                "status": "error",
                "category": "OBJECT_NOT_FOUND",
                "message": "Could not get some objects",
            }
            body |= {"numErrors": 1, "errors": [{**error, "context": {"ids": gone}}]}
        return Reply(207 if gone else 200, body)

    def _record(self, kind: str, one: str) -> dict[str, Any]:
        if kind not in self.objects or one not in self.objects[kind]:
            raise missing()
        return self.objects[kind][one]

    def _check(self, kind: str, properties: dict[str, Any]) -> None:
        known = {
            *PROPERTIES[kind].split(),
            "hubspot_owner_id",
            *(["hs_timestamp"] if kind in ENGAGEMENTS else []),
        }
        for name, value in properties.items():
            if name not in known:
                raise invalid(name, "PROPERTY_DOESNT_EXIST", f'Property "{name}" does not exist')
            assert isinstance(value, str), (name, value)
            if value == "":
                continue
            if name in OPTIONS and value not in OPTIONS[name]:
                allowed = f"{value} was not one of the allowed options: {sorted(OPTIONS[name])}"
                raise invalid(name, "INVALID_OPTION", allowed)
            if name in TIMES and not re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{3})?Z", value):
                raise invalid(name, "INVALID_DATE", f"{value} was not a valid long.")
            if name in NUMBERS and not re.fullmatch(r"-?\d+(\.\d+)?", value):
                raise invalid(name, "INVALID_NUMBER", f"{value} was not a valid number.")
            if name == "hubspot_owner_id" and value not in {owner["id"] for owner in OWNERS}:
                raise invalid(name, "INVALID_OWNER_ID", f"Owner {value} does not exist")

    def _keep(self, kind: str, properties: dict[str, Any]) -> dict[str, Any]:
        one = str(next(self._ids))
        record = {"id": one, "properties": {"email": None}, "createdAt": self._now(), "archived": False}
        self.objects[kind][one] = record
        self._write(kind, record, properties)
        return record

    def _write(self, kind: str, record: dict[str, Any], properties: dict[str, Any]) -> None:
        held = record["properties"]
        held |= properties
        now = self._now()
        held |= {
            "hs_object_id": record["id"],
            "lastmodifieddate" if kind == "contacts" else "hs_lastmodifieddate": now,
        }
        record["updatedAt"] = now
        for name in BODIES:
            if held.get(name):
                held["hs_body_preview"] = re.sub(r"<[^>]+>", " ", held[name])[:500]
        if "hs_email_headers" in properties:
            headers = json.loads(properties["hs_email_headers"])
            held["hs_email_from_email"] = headers["from"]["email"]
            held["hs_email_to_email"] = ";".join(one["email"] for one in headers["to"])
            held["hs_email_cc_email"] = ";".join(one["email"] for one in headers["cc"]) or None

    def _now(self) -> str:
        return f"{datetime.fromtimestamp(next(self._clock), UTC):%Y-%m-%dT%H:%M:%S}.000Z"

    @staticmethod
    def _shown(record: dict[str, Any], names: list[str]) -> dict[str, Any]:
        held = record["properties"]
        return {**record, "properties": {name: held.get(name) for name in [*names, "hs_object_id"]}}

    # search

    def _search(self, seen: Seen, kind: str) -> Any:
        body = seen.json
        assert set(body) <= {"query", "filterGroups", "sorts", "properties", "limit", "after"}, body
        assert 0 < body["limit"] <= 200
        groups = body.get("filterGroups", [])
        assert len(groups) <= 5
        assert all(0 < len(group["filters"]) <= 6 for group in groups)
        assert sum(len(group["filters"]) for group in groups) <= 18
        assert len(body.get("sorts", [])) <= 1
        start = int(body.get("after", 0))
        if start + body["limit"] > 10_000:
            raise Refused(400, "VALIDATION_ERROR", "There was a problem with the request.")
        found = [record for record in self.objects[kind].values() if self._matches(kind, record, body)]
        for sort in body.get("sorts", []):
            found.sort(
                key=lambda record: (record["properties"].get(sort["propertyName"]) or "").lower(),
                reverse=sort["direction"] == "DESCENDING",
            )
        shown = [self._shown(record, body["properties"]) for record in found[start : start + body["limit"]]]
        answer: dict[str, Any] = {"total": len(found), "results": shown}
        if start + body["limit"] < len(found):
            following = str(start + body["limit"])
            answer["paging"] = {"next": {"after": following, "link": f"?after={following}"}}
        return answer

    def _matches(self, kind: str, record: dict[str, Any], body: dict[str, Any]) -> bool:
        held = record["properties"]
        text = " ".join(str(held.get(name) or "") for name in SEARCHED[kind].split()).lower()
        if "query" in body and not all(word in text for word in body["query"].lower().split()):
            return False
        groups = body.get("filterGroups", [])
        return not groups or any(
            all(self._passes(kind, record, one) for one in group["filters"]) for group in groups
        )

    def _passes(self, kind: str, record: dict[str, Any], one: dict[str, Any]) -> bool:
        name, value = one["propertyName"], one["value"]
        if name.startswith("associations."):
            assert one["operator"] == "EQ"
            plural = {"contact": "contacts", "company": "companies", "deal": "deals"}[name.partition(".")[2]]
            return value in {other for other, _ in self._others(kind, record["id"], plural)}
        assert one["operator"] == "CONTAINS_TOKEN"
        words = re.findall(r"\w+", str(record["properties"].get(name) or "").lower())
        return value.lower() in words

    # associations

    def _others(self, kind: str, one: str, other: str) -> list[tuple[str, int]]:
        ahead = [(row[3], row[4]) for row in self.links if row[:3] == (kind, one, other)]
        back = [(row[1], row[4]) for row in self.links if (row[2], row[3], row[0]) == (kind, one, other)]
        return sorted(ahead + back, key=lambda row: int(row[0]))

    def _linked(self, seen: Seen, kind: str, other: str) -> Any:
        found, errors = [], []
        for row in seen.json["inputs"]:
            linked: dict[str, list[int]] = {}
            for one, type_id in self._others(kind, row["id"], other):
                linked.setdefault(one, []).append(type_id)
            to = [{"toObjectId": int(one), "associationTypes": _types(ids)} for one, ids in linked.items()]
            if to:
                found.append({"from": {"id": row["id"]}, "to": to})
            else:
                errors.append(
                    {
                        "status": "error",
                        "category": "OBJECT_NOT_FOUND",
                        "subCategory": "crm.associations.NO_ASSOCIATIONS_FOUND",
                        "message": f"No {other} is associated with {kind} {row['id']}.",
                        "context": {"fromObjectId": [row["id"]]},
                    }
                )
        body: dict[str, Any] = {"status": "COMPLETE", "results": found}
        return Reply(207, body | {"numErrors": len(errors), "errors": errors}) if errors else body

    def _put(self, seen: Seen, kind: str, one: str, other: str, another: str) -> Any:
        self._record(kind, one)
        self._record(other, another)
        for spec in seen.json:
            self._demand_type(kind, other, spec["associationTypeId"], spec["associationCategory"])
            self.links.add((kind, one, other, another, spec["associationTypeId"]))
        return Reply(201, {"fromObjectId": int(one), "toObjectId": int(another), "labels": []})

    @staticmethod
    def _demand_type(kind: str, other: str, type_id: int, category: str) -> None:
        if TYPES.get(type_id) != (kind, other) or category != "HUBSPOT_DEFINED":
            raise Refused(400, "VALIDATION_ERROR", f"invalid from object type or association type {type_id}")

    # settings

    def _owners(self, seen: Seen) -> Any:
        found = [one for one in OWNERS if not one["archived"]]
        if "email" in seen.query:
            found = [one for one in found if one["email"] == seen.query["email"]]
        start = int(seen.query.get("after", 0))
        size = min(int(seen.query.get("limit", 100)), 2)  # small pages, so that there are some
        answer: dict[str, Any] = {"results": found[start : start + size]}
        if start + size < len(found):
            answer["paging"] = {"next": {"after": str(start + size)}}
        return answer

    def _owner(self, seen: Seen, one: str) -> Any:
        name = seen.query.get("idProperty", "id")
        archived = seen.query.get("archived") == "true"
        for owner in OWNERS:
            if str(owner.get(name)) == one and owner["archived"] is archived:
                return owner
        raise missing()

    def _industry(self, seen: Seen) -> Any:
        labels = {"INFORMATION_TECHNOLOGY_AND_SERVICES": "Information Technology & Services"}
        options = [
            {"value": one, "label": labels.get(one, one.replace("_", " ").title()), "hidden": False}
            for one in sorted(OPTIONS["industry"], reverse=True)
        ]
        return {"name": "industry", "type": "enumeration", "options": options}


class _Given(dict[Any, Any]):
    """What the house asks for an answer: the test's own, else the portal's."""

    def __init__(self, answer: Callable[[Seen], Any]) -> None:
        super().__init__()
        self._answer = answer

    def get(self, key: Any, default: Any = None) -> Any:
        return super().get(key) or [self._answer]


def _types(ids: list[int]) -> list[dict[str, Any]]:
    labels = {1: "Primary", 5: "Primary"}
    return [{"category": "HUBSPOT_DEFINED", "typeId": one, "label": labels.get(one)} for one in sorted(ids)]
