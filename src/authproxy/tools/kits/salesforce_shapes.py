"""Salesforce's records in plain words: which fields are asked for, and what they are called in a result."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from authproxy.tools.tool import Json

MOST_TEXT = 2000

Fields = Mapping[str, str]
"""What a result calls a field, and the field's path: `account_name: Account.Name`."""

ACCOUNT: Fields = {
    "id": "Id",
    "name": "Name",
    "type": "Type",
    "industry": "Industry",
    "website": "Website",
    "phone": "Phone",
    "employees": "NumberOfEmployees",
    "annual_revenue": "AnnualRevenue",
    "city": "BillingCity",
    "country": "BillingCountry",
    "description": "Description",
    "owner_name": "Owner.Name",
    "last_modified": "LastModifiedDate",
}
CONTACT: Fields = {
    "id": "Id",
    "name": "Name",
    "title": "Title",
    "department": "Department",
    "email": "Email",
    "phone": "Phone",
    "mobile_phone": "MobilePhone",
    "account_id": "AccountId",
    "account_name": "Account.Name",
    "owner_name": "Owner.Name",
}
LEAD: Fields = {
    "id": "Id",
    "name": "Name",
    "company": "Company",
    "title": "Title",
    "email": "Email",
    "phone": "Phone",
    "status": "Status",
    "lead_source": "LeadSource",
    "rating": "Rating",
    "industry": "Industry",
    "owner_name": "Owner.Name",
    "created": "CreatedDate",
}
OPPORTUNITY: Fields = {
    "id": "Id",
    "name": "Name",
    "stage": "StageName",
    "amount": "Amount",
    "close_date": "CloseDate",
    "probability": "Probability",
    "forecast_category": "ForecastCategoryName",
    "next_step": "NextStep",
    "type": "Type",
    "is_closed": "IsClosed",
    "is_won": "IsWon",
    "account_id": "AccountId",
    "account_name": "Account.Name",
    "owner_name": "Owner.Name",
}
OPPORTUNITY_IN_FULL: Fields = {
    **OPPORTUNITY,
    "lead_source": "LeadSource",
    "description": "Description",
    "has_line_items": "HasOpportunityLineItem",
    "created": "CreatedDate",
    "last_modified": "LastModifiedDate",
}
TASK: Fields = {
    "id": "Id",
    "subject": "Subject",
    "status": "Status",
    "priority": "Priority",
    "due_date": "ActivityDate",
    "is_closed": "IsClosed",
    "description": "Description",
    "related_to_id": "WhatId",
    "related_to": "What.Name",
    "contact_or_lead_id": "WhoId",
    "contact_or_lead": "Who.Name",
}
CALL: Fields = {
    "id": "Id",
    "subject": "Subject",
    "date": "ActivityDate",
    "result": "CallDisposition",
    "seconds": "CallDurationInSeconds",
    "description": "Description",
    "contact_or_lead": "Who.Name",
}
EVENT: Fields = {
    "id": "Id",
    "subject": "Subject",
    "start": "StartDateTime",
    "end": "EndDateTime",
    "location": "Location",
    "description": "Description",
    "contact_or_lead": "Who.Name",
}
EMAIL: Fields = {
    "id": "Id",
    "subject": "Subject",
    "from": "FromAddress",
    "to": "ToAddress",
    "date": "MessageDate",
    "text": "TextBody",
}
NOTE: Fields = {"id": "Id", "title": "Title", "text": "Body", "last_modified": "LastModifiedDate"}
CONTENT_NOTE: Fields = {
    "id": "Id",
    "title": "Title",
    "text": "TextPreview",
    "last_modified": "LastModifiedDate",
}
CONTACT_ROLE: Fields = {
    "contact_id": "ContactId",
    "name": "Contact.Name",
    "title": "Contact.Title",
    "email": "Contact.Email",
    "role": "Role",
    "is_primary": "IsPrimary",
}
LINE_ITEM: Fields = {
    "id": "Id",
    "name": "Name",
    "product_code": "ProductCode",
    "quantity": "Quantity",
    "unit_price": "UnitPrice",
    "total_price": "TotalPrice",
    "description": "Description",
}
USER: Fields = {
    "id": "Id",
    "name": "Name",
    "username": "Username",
    "email": "Email",
    "title": "Title",
    "department": "Department",
    "company": "CompanyName",
    "phone": "Phone",
    "time_zone": "TimeZoneSidKey",
    "locale": "LocaleSidKey",
    "profile": "Profile.Name",
    "role": "UserRole.Name",
}
ORGANIZATION: Fields = {"id": "Id", "name": "Name", "edition": "OrganizationType", "is_sandbox": "IsSandbox"}
CONVERTED: Fields = {
    "contact_id": "ConvertedContactId",
    "account_id": "ConvertedAccountId",
    "opportunity_id": "ConvertedOpportunityId",
}


def columns(fields: Fields) -> str:
    """What stands behind SELECT."""
    return ", ".join(fields.values())


def shape(record: Mapping[str, Any], fields: Fields) -> dict[str, Json]:
    """A record under our names, without what it does not hold; long texts are cut."""
    told = {key: _cut(at(record, path)) for key, path in fields.items()}
    return {key: value for key, value in told.items() if value not in (None, "")}


def at(record: Any, path: str) -> Any:
    """The field of a record at a path through its parents, None where there is none."""
    for step in path.split("."):
        if not isinstance(record, Mapping):
            return None
        record = record.get(step)
    return record


def _cut(value: Any) -> Any:
    if isinstance(value, str) and len(value) > MOST_TEXT:
        return f"{value[:MOST_TEXT]}… [cut]"
    return value
