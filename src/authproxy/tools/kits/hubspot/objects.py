"""HubSpot's object types as data: what is asked for, what is shown under which name, and what is searched."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from typing import Final


class Kind(Enum):
    """How a property's value is written and read."""

    TEXT = auto()
    HTML = auto()  # rich text in HubSpot, plain text for the model
    NUMBER = auto()
    SECONDS = auto()  # milliseconds in HubSpot
    TIME = auto()
    FLAG = auto()
    ID = auto()


@dataclass(frozen=True, slots=True)
class Field:
    """One property: `key` is its name in a tool's parameters and answers, `name` HubSpot's own."""

    key: str
    name: str
    kind: Kind = Kind.TEXT


@dataclass(frozen=True, slots=True)
class ObjectType:
    """One type of CRM object.

    `brief` are the fields that are shown where it is associated with another object. `tokens` are the properties
    to search word by word, where HubSpot's own full-text search does not cover the type's text.
    """

    name: str  # as it stands in paths
    one: str
    fields: tuple[Field, ...]
    brief: tuple[Field, ...]
    modified: str = "hs_lastmodifieddate"
    alphabetical: str = ""
    tokens: tuple[str, ...] = ()
    activity: bool = False

    @property
    def properties(self) -> list[str]:
        return _names(self.fields)

    @property
    def brief_properties(self) -> list[str]:
        return _names(self.brief)


def _names(fields: tuple[Field, ...]) -> list[str]:
    return list(dict.fromkeys(field.name for field in fields))


_OWNER: Final = Field("owner_id", "hubspot_owner_id", Kind.ID)
_WHEN: Final = Field("when_occurred", "hs_timestamp", Kind.TIME)
_PREVIEW: Final = Field("preview", "hs_body_preview")

CONTACTS: Final = ObjectType(
    "contacts",
    "contact",
    (
        Field("first_name", "firstname"),
        Field("last_name", "lastname"),
        Field("email", "email"),
        Field("phone", "phone"),
        Field("mobile_phone", "mobilephone"),
        Field("job_title", "jobtitle"),
        Field("company", "company"),
        Field("lifecycle_stage", "lifecyclestage"),
        Field("lead_status", "hs_lead_status"),
        Field("city", "city"),
        Field("country", "country"),
        _OWNER,
    ),
    (
        Field("first_name", "firstname"),
        Field("last_name", "lastname"),
        Field("email", "email"),
        Field("phone", "phone"),
        Field("job_title", "jobtitle"),
    ),
    modified="lastmodifieddate",
    alphabetical="firstname",
)

COMPANIES: Final = ObjectType(
    "companies",
    "company",
    (
        Field("company_name", "name"),
        Field("web_domain", "domain"),
        Field("industry_type", "industry"),
        Field("company_city", "city"),
        Field("company_state", "state"),
        Field("company_country", "country"),
        Field("phone_number", "phone"),
        Field("website_url", "website"),
        Field("employees", "numberofemployees", Kind.NUMBER),
        Field("annual_revenue", "annualrevenue", Kind.NUMBER),
        Field("lifecycle_stage", "lifecyclestage"),
        Field("description", "description"),
        _OWNER,
    ),
    (Field("company_name", "name"), Field("web_domain", "domain"), Field("industry_type", "industry")),
    alphabetical="name",
)

DEALS: Final = ObjectType(
    "deals",
    "deal",
    (
        Field("deal_name", "dealname"),
        Field("deal_amount", "amount", Kind.NUMBER),
        Field("currency", "deal_currency_code"),
        Field("pipeline_id", "pipeline"),
        Field("deal_stage", "dealstage"),
        Field("deal_type", "dealtype"),
        Field("expected_close_date", "closedate", Kind.TIME),
        Field("priority_level", "hs_priority"),
        Field("deal_description", "description"),
        Field("is_closed", "hs_is_closed", Kind.FLAG),
        Field("is_won", "hs_is_closed_won", Kind.FLAG),
        _OWNER,
    ),
    (
        Field("deal_name", "dealname"),
        Field("deal_amount", "amount", Kind.NUMBER),
        Field("pipeline_id", "pipeline"),
        Field("deal_stage", "dealstage"),
        Field("expected_close_date", "closedate", Kind.TIME),
    ),
    alphabetical="dealname",
)

CALLS: Final = ObjectType(
    "calls",
    "call",
    (
        Field("title", "hs_call_title"),
        _WHEN,
        Field("direction", "hs_call_direction"),
        Field("status", "hs_call_status"),
        Field("summary", "hs_call_body", Kind.HTML),
        Field("duration", "hs_call_duration", Kind.SECONDS),
        Field("to_number", "hs_call_to_number"),
        Field("from_number", "hs_call_from_number"),
        _OWNER,
    ),
    (Field("title", "hs_call_title"), _WHEN, Field("direction", "hs_call_direction"), _PREVIEW),
    activity=True,
)

EMAILS: Final = ObjectType(
    "emails",
    "email",
    (
        Field("subject", "hs_email_subject"),
        _WHEN,
        Field("direction", "hs_email_direction"),
        Field("status", "hs_email_status"),
        Field("from_email", "hs_email_from_email"),
        Field("to_email", "hs_email_to_email"),
        Field("cc_email", "hs_email_cc_email"),
        Field("body_text", "hs_email_text"),
        _PREVIEW,
        _OWNER,
    ),
    (
        Field("subject", "hs_email_subject"),
        _WHEN,
        Field("direction", "hs_email_direction"),
        Field("from_email", "hs_email_from_email"),
        Field("to_email", "hs_email_to_email"),
        _PREVIEW,
    ),
    tokens=("hs_email_subject", "hs_email_text"),
    activity=True,
)

MEETINGS: Final = ObjectType(
    "meetings",
    "meeting",
    (
        Field("title", "hs_meeting_title"),
        Field("start", "hs_meeting_start_time", Kind.TIME),
        Field("end", "hs_meeting_end_time", Kind.TIME),
        Field("location", "hs_meeting_location"),
        Field("outcome", "hs_meeting_outcome"),
        Field("description", "hs_meeting_body", Kind.HTML),
        Field("internal_notes", "hs_internal_meeting_notes", Kind.HTML),
        _OWNER,
    ),
    (
        Field("title", "hs_meeting_title"),
        Field("start", "hs_meeting_start_time", Kind.TIME),
        Field("outcome", "hs_meeting_outcome"),
        _PREVIEW,
    ),
    activity=True,
)

NOTES: Final = ObjectType(
    "notes",
    "note",
    (Field("body", "hs_note_body", Kind.HTML), _WHEN, _OWNER),
    (_WHEN, _PREVIEW),
    activity=True,
)

TASKS: Final = ObjectType(
    "tasks",
    "task",
    (
        Field("title", "hs_task_subject"),
        Field("due", "hs_timestamp", Kind.TIME),
        Field("status", "hs_task_status"),
        Field("priority", "hs_task_priority"),
        Field("task_type", "hs_task_type"),
        Field("body", "hs_task_body", Kind.HTML),
        Field("completed", "hs_task_completion_date", Kind.TIME),
        _OWNER,
    ),
    (
        Field("title", "hs_task_subject"),
        Field("due", "hs_timestamp", Kind.TIME),
        Field("status", "hs_task_status"),
        _PREVIEW,
    ),
    activity=True,
)

COMMUNICATIONS: Final = ObjectType(
    "communications",
    "communication",
    (
        Field("channel", "hs_communication_channel_type"),
        _WHEN,
        Field("body_text", "hs_communication_body", Kind.HTML),
        _OWNER,
    ),
    (Field("channel", "hs_communication_channel_type"), _WHEN, _PREVIEW),
    tokens=("hs_communication_body",),
    activity=True,
)

ACTIVITIES: Final = {kind.one: kind for kind in (NOTES, CALLS, EMAILS, MEETINGS, TASKS, COMMUNICATIONS)}

TIMELINE: Final = (CALLS, EMAILS, MEETINGS, NOTES, TASKS)
"""The activities that are shown with a company, a contact or a deal."""

RECORDS: Final = (CONTACTS, COMPANIES, DEALS)
"""What an activity can be associated with."""

ASSOCIATION_TYPES: Final = {
    # HubSpot's own (HUBSPOT_DEFINED) unlabelled association types: they are the same in every account.
    ("contacts", "companies"): 279,
    ("deals", "contacts"): 3,
    ("notes", "contacts"): 202,
    ("notes", "companies"): 190,
    ("notes", "deals"): 214,
    ("calls", "contacts"): 194,
    ("calls", "companies"): 182,
    ("calls", "deals"): 206,
    ("emails", "contacts"): 198,
    ("emails", "companies"): 186,
    ("emails", "deals"): 210,
    ("meetings", "contacts"): 200,
    ("meetings", "companies"): 188,
    ("meetings", "deals"): 212,
    ("tasks", "contacts"): 204,
    ("tasks", "companies"): 192,
    ("tasks", "deals"): 216,
    ("communications", "contacts"): 81,
    ("communications", "companies"): 87,
    ("communications", "deals"): 85,
}


def association(kind: ObjectType, other: ObjectType) -> list[dict[str, object]]:
    """The association type from `kind` to `other`, as the v3 and v4 APIs take it."""
    number = ASSOCIATION_TYPES[kind.name, other.name]
    return [{"associationCategory": "HUBSPOT_DEFINED", "associationTypeId": number}]
