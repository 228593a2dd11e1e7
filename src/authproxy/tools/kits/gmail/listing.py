"""Lists of messages: the newest, those that match, and how many there are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from authproxy.tools.kits.gmail.mailbox import (
    ME,
    METADATA,
    most,
    names_for,
    objects,
    read_labels,
    read_listed,
)
from authproxy.tools.kits.gmail.reading import BODY_IN_LIST, is_automated, shaped, summary_of
from authproxy.tools.kits.gmail.searching import query_of
from authproxy.tools.tool import Call, Json, bad_input

MOST_LOOKED_AT = 150
"""Messages that one call looks through for those that people wrote."""
BODIES = 80_000
"""Characters of all bodies of one list together."""
LEAST_BODY = 500
COUNT_PAGES = 10
COUNT_PAGE = 500


async def list_emails(call: Call) -> Json:
    """The newest messages of the mailbox."""
    return await _emails(call, {}, most(call, "n_emails", default=5))


async def list_emails_by_header(call: Call) -> Json:
    """Messages by sender, recipient, subject, words, time and label."""
    query = query_of(call)
    label = call.get("label")
    if not query and not label:
        raise bad_input(
            "Say what to look for: sender, recipient, subject, body, date_range or label.",
            hint="ListEmails lists the newest messages.",
        )
    asked: dict[str, Any] = {"q": query or None}
    if label:
        asked["labelIds"] = (found := (await read_labels(call)).find(label))
        asked["includeSpamTrash"] = True if found in ("SPAM", "TRASH") else None
    return await _emails(call, asked, most(call, "max_results", default=10))


async def search_emails_by_query(call: Call) -> Json:
    """Messages by a search in Gmail's own language: how many, in short, or whole."""
    query = call.input["query"].strip()
    if not query:
        raise bad_input("query is empty", hint="For example: from:anna has:attachment newer_than:7d")
    asked = {"q": query, "includeSpamTrash": call.get("include_spam_trash") or None}
    detail = call.get("result_detail", "lightweight")
    if detail == "count_only":
        return {"query": query, **await _count(call, asked)}
    limit = most(call, "max_results", default=10)
    return await _emails(call, asked, limit, whole=detail == "full")


async def _count(call: Call, asked: Mapping[str, Any]) -> dict[str, Json]:
    """Counted one by one: Gmail's own estimate is often far off."""
    count, token = 0, None
    for _page in range(COUNT_PAGES):
        answer = await call.api.call(
            "GET", f"{ME}/messages", query={**asked, "maxResults": COUNT_PAGE, "pageToken": token}
        )
        count += len(objects(answer.json, "messages"))
        token = (answer.json or {}).get("nextPageToken")
        if not token:
            return {"count": count}
    return {"count": count, "at_least": True}


async def _emails(call: Call, asked: Mapping[str, Any], limit: int, *, whole: bool | None = None) -> Json:
    """A page of messages. Without automated ones as many pages are read as it takes, within bounds."""
    full = bool(call.get("include_body")) if whole is None else whole
    kept: list[Json] = []
    left_out, token = 0, call.get("page_token")
    while True:
        size = min(limit - len(kept), MOST_LOOKED_AT - len(kept) - left_out)
        page, token = await _page(call, asked, size, token, full=full)
        wanted = [one for one in page if not (call.get("exclude_automated") and is_automated(one))]
        left_out += len(page) - len(wanted)
        kept += wanted
        if (
            not token
            or not page
            or not left_out
            or len(kept) >= limit
            or len(kept) + left_out >= MOST_LOOKED_AT
        ):
            break
    labels = await names_for(call, kept)
    room = max(LEAST_BODY, min(BODY_IN_LIST, BODIES // max(1, len(kept))))
    if full:
        shown = [await shaped(one, labels, most=room) for one in kept]
    else:
        shown = [summary_of(one, labels) for one in kept]
    return {
        "emails": shown,
        **({"automated_left_out": left_out} if left_out else {}),
        **({"next_page_token": token} if token else {}),
    }


async def _page(
    call: Call, asked: Mapping[str, Any], limit: int, token: str | None, *, full: bool
) -> tuple[list[Json], str | None]:
    answer = await call.api.call(
        "GET", f"{ME}/messages", query={**asked, "maxResults": limit, "pageToken": token}
    )
    how: dict[str, Any] = {"format": "full"} if full else {"format": "metadata", "metadataHeaders": METADATA}

    return await read_listed(call, answer.json, "messages", how), (answer.json or {}).get("nextPageToken")
