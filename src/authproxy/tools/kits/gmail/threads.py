"""Conversations: found, read, labelled, and put into the trash or taken out again."""

from __future__ import annotations

from collections.abc import Mapping
from html import unescape
from typing import Any

from authproxy.tools.kits.gmail.addresses import decoded
from authproxy.tools.kits.gmail.listing import MOST_LOOKED_AT
from authproxy.tools.kits.gmail.mailbox import (
    ME,
    METADATA,
    most,
    names_for,
    objects,
    read_labels,
    read_listed,
    subject_of,
    with_long_texts,
)
from authproxy.tools.kits.gmail.reading import BODY_ALONE, date_of, headers_of, is_automated, people, shaped
from authproxy.tools.kits.gmail.searching import query_of
from authproxy.tools.kits.plain_text import one_line
from authproxy.tools.rows import segment
from authproxy.tools.tool import Call, Json, bad_input

MOST_MESSAGES = 30
"""Of one conversation that are shown, the newest."""
BODIES = 40_000
"""Characters of all bodies of one conversation together."""
LEAST_BODY = 1_000


async def get_thread(call: Call) -> Json:
    """A conversation, oldest message first; what each message quotes of the others is left out."""
    thread = segment(call.input["thread_id"].strip(), "thread_id")
    answer = await call.api.call("GET", f"{ME}/threads/{thread}", query={"format": "full"})
    messages = objects(answer.json, "messages")
    shown = messages[-MOST_MESSAGES:]
    labels = await names_for(call, shown)
    room = min(BODY_ALONE, max(LEAST_BODY, BODIES // max(1, len(shown))))
    emails = []
    for message in shown:
        await with_long_texts(call, message)
        emails.append(await shaped(message, labels, most=room, quotes=message is messages[0]))
    return {
        "id": (answer.json or {}).get("id"),
        "subject": decoded(subject_of(messages[0])) if messages else "",
        "messages": emails,
        **({"older_messages_left_out": len(messages) - len(shown)} if len(messages) > len(shown) else {}),
    }


async def list_threads(call: Call) -> Json:
    """The newest conversations."""
    return await _threads(call, {})


async def search_threads(call: Call) -> Json:
    """Conversations in which a message has what is looked for."""
    query, labels = query_of(call), call.get("label_ids") or []
    if not query and not labels:
        raise bad_input(
            "Say what to look for: sender, recipient, subject, body, date_range or label_ids.",
            hint="ListThreads lists the newest conversations.",
        )
    if labels:
        known = await read_labels(call)
        labels = [known.find(one) for one in labels]
    return await _threads(call, {"q": query or None, "labelIds": labels or None})


async def _threads(call: Call, asked: Mapping[str, Any]) -> Json:
    limit = most(call, "max_results", default=10)
    spam = call.get("include_spam_trash") or None
    kept: list[Json] = []
    left_out, token = 0, call.get("page_token")
    while True:
        answer = await call.api.call(
            "GET",
            f"{ME}/threads",
            query={
                **asked,
                "maxResults": min(limit - len(kept), MOST_LOOKED_AT - len(kept) - left_out),
                "pageToken": token,
                "includeSpamTrash": spam,
            },
        )
        token = (answer.json or {}).get("nextPageToken")
        how = {"format": "metadata", "metadataHeaders": METADATA}
        page = await read_listed(call, answer.json, "threads", how)
        wanted = [one for one in page if not (call.get("exclude_automated") and _is_automated(one))]
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
    labels = await names_for(call, (message for one in kept for message in objects(one, "messages")))
    return {
        "threads": [_summary(one, labels) for one in kept],
        **({"automated_left_out": left_out} if left_out else {}),
        **({"next_page_token": token} if token else {}),
    }


def _is_automated(thread: Json) -> bool:
    """Whether no person wrote in it."""
    messages = objects(thread, "messages")
    return bool(messages) and all(is_automated(one) for one in messages)


def _summary(thread: Json, labels: Mapping[str, str]) -> dict[str, Json]:
    messages = objects(thread, "messages")
    newest = messages[-1] if messages else {}
    senders = dict.fromkeys(
        person for message in messages for person in people(headers_of(message).get("from", ""))
    )
    ids = dict.fromkeys(str(one) for message in messages for one in message.get("labelIds") or ())
    return {
        "id": thread.get("id"),
        "subject": decoded(subject_of(messages[0])) if messages else "",
        "from": list(senders)[:10],
        "last_date": date_of(newest),
        "messages": len(messages),
        "snippet": one_line(unescape(str(newest.get("snippet") or ""))),
        "labels": [labels.get(one, one) for one in ids],
        "unread": "UNREAD" in ids,
    }


async def change_thread_labels(call: Call) -> Json:
    """Labels put on, and taken off, every message of a conversation."""
    add, remove = call.input["labels_to_add"], call.input["labels_to_remove"]
    if not add and not remove:
        raise bad_input("Name at least one label in labels_to_add or labels_to_remove.")
    known = await read_labels(call)
    adding, removing = [known.find(one) for one in add], [known.find(one) for one in remove]
    if set(adding) & set(removing):
        raise bad_input("A label cannot be both added and removed.")
    thread = segment(call.input["thread_id"].strip(), "thread_id")
    answer = await call.api.call(
        "POST",
        f"{ME}/threads/{thread}/modify",
        json={"addLabelIds": adding, "removeLabelIds": removing},
    )
    return {
        "thread_id": call.input["thread_id"].strip(),
        "labels_added": [known.names.get(one, one) for one in adding],
        "labels_removed": [known.names.get(one, one) for one in removing],
        "messages": len(objects(answer.json, "messages")),
    }


async def set_thread_trash_status(call: Call) -> Json:
    """A conversation into the trash, or out of it."""
    thread = segment(call.input["thread_id"].strip(), "thread_id")
    verb = "trash" if call.input["in_trash"] else "untrash"
    await call.api.call("POST", f"{ME}/threads/{thread}/{verb}")
    return {"thread_id": call.input["thread_id"].strip(), "in_trash": call.input["in_trash"]}
