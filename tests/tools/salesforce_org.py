"""A Salesforce org for tests: answers by the object that a query asks for, and what was asked."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from authproxy.tools.tool import Json
from tests.tools.kit import House, Reply, Seen

API = "/services/data/v62.0"
NOW = 1_700_000_000  # 2023-11-14T22:13:20Z
ME = "005000000000001AAA"
ACCOUNT = "001000000000001AAA"
OTHER = "001000000000002AAA"
CONTACT = "003000000000001AAA"
LEAD = "00Q000000000001AAA"
DEAL = "006000000000001AAA"
TASK = "00T000000000001AAA"

STAGES = [
    {"MasterLabel": "Prospecting", "ApiName": "Prospecting"},
    {"MasterLabel": "Closed Won", "ApiName": "Won"},
]
LEAD_STATUS = [{"MasterLabel": "Open", "ApiName": "Open"}, {"MasterLabel": "Working", "ApiName": None}]


def rows(*records: dict[str, Any]) -> Json:
    """An answer to a query; that there is more is not to be believed, let alone followed."""
    return {
        "totalSize": 9999,
        "done": False,
        "nextRecordsUrl": f"{API}/query/01g000000000001-2000",
        "records": [{"attributes": {"type": "X", "url": "/x"}, **one} for one in records],
    }


def fault(code: str, message: str = "", fields: list[str] | None = None, status: int = 400) -> Reply:
    return Reply(status, [{"errorCode": code, "message": message, "fields": fields or []}])


def soql(house: House, source: str | None = None) -> list[str]:
    """The queries that Salesforce got, or those from one object."""
    texts = [seen.query["q"] for seen in house.seen if seen.path == f"{API}/query"]
    return [text for text in texts if source is None or source_of(text) == source]


def source_of(text: str) -> str:
    flat = re.sub(r"\(SELECT [^()]*(?:\([^()]*\)[^()]*)*\)", "", text)
    return flat.partition(" FROM ")[2].split()[0]


def tables(**answers: Any) -> Callable[[Seen], Any]:
    """Answers by the object that is asked for; of others there is nothing."""

    def answer(seen: Seen) -> Any:
        given = answers.get(source_of(seen.query["q"]), rows())
        return given(seen) if callable(given) else given

    return answer


def furnish(house: House) -> House:
    """An org that knows its user, its stages and its leads' statuses."""
    identity = f"https://login.salesforce.com/id/00D000000000001AAA/{ME}"
    house.answer("GET", API, {"identity": identity, "sobjects": f"{API}/sobjects"})
    house.answer("GET", f"{API}/query", tables(OpportunityStage=rows(*STAGES), LeadStatus=rows(*LEAD_STATUS)))
    return house


def changes(house: House) -> list[tuple[str, str, Json]]:
    """What was created or changed."""
    return [
        (seen.method, seen.path.removeprefix(f"{API}/sobjects/"), seen.json)
        for seen in house.seen
        if seen.method != "GET"
    ]
