"""The requests of Gmail that several tools make, and the names that they look up."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

from authproxy.tools.kits.gmail.addresses import Address, is_email
from authproxy.tools.kits.gmail.reading import (
    AUTOMATION_HEADERS,
    SUMMARY_HEADERS,
    Part,
    from_base64url,
    headers_of,
    parts_of,
    shown_parts,
)
from authproxy.tools.kits.in_turn import in_turn
from authproxy.tools.rows import segment
from authproxy.tools.tool import Call, Json, Kind, ToolError, bad_input

ME = "/gmail/v1/users/me"

METADATA = [*SUMMARY_HEADERS, *AUTOMATION_HEADERS]

_KNOWN = frozenset(
    {
        *("INBOX", "SENT", "DRAFT", "TRASH", "SPAM", "STARRED", "UNREAD", "IMPORTANT", "CHAT"),
        *(f"CATEGORY_{name}" for name in ("PERSONAL", "SOCIAL", "PROMOTIONS", "UPDATES", "FORUMS")),
    }
)
_MOST_APART = 4
"""Texts of one message that are read though Gmail keeps them apart."""
_SAID_OTHERWISE: Mapping[str, str] = {
    "drafts": "DRAFT",
    "sent mail": "SENT",
    "bin": "TRASH",
    "junk": "SPAM",
    "favorites": "STARRED",
    "primary": "CATEGORY_PERSONAL",
    "personal": "CATEGORY_PERSONAL",
    "social": "CATEGORY_SOCIAL",
    "promotions": "CATEGORY_PROMOTIONS",
    "updates": "CATEGORY_UPDATES",
    "forums": "CATEGORY_FORUMS",
}


class Labels:
    """The labels of a mailbox, by name and by id."""

    def __init__(self, listed: Iterable[Mapping[str, Json]]) -> None:
        self.all = [
            {
                "id": str(one["id"]),
                "name": str(one.get("name") or one["id"]),
                "type": str(one.get("type", "user")),
            }
            for one in listed
            if one.get("id")
        ]
        self.names = {one["id"]: one["name"] for one in self.all}

    def find(self, name: str) -> str:
        """The id of a label by its name or id. Raises ToolError, with near names, where there is none."""
        plain = name.strip()
        system = _SAID_OTHERWISE.get(plain.casefold()) or plain.upper()
        for key, wanted in (("id", plain), ("name", plain), ("id", system)):
            if any(one[key] == wanted for one in self.all):
                return next(one["id"] for one in self.all if one[key] == wanted)
        alike = [one["id"] for one in self.all if one["name"].casefold() == plain.casefold()]
        if alike:
            return alike[0]
        if system in _KNOWN:
            return system
        raise self._unknown(plain)

    def _unknown(self, name: str) -> ToolError:
        names = [one["name"] for one in self.all]
        folded = {one.casefold(): one for one in names}
        near = [folded[one] for one in difflib.get_close_matches(name.casefold(), folded, n=5, cutoff=0.5)]
        own = sorted(one["name"] for one in self.all if one["type"] == "user")
        shown = near or own[:30]
        return ToolError(
            Kind.RETRY,
            f"The mailbox has no label {name[:80]!r}.",
            hint=(
                ("Labels there are: " + ", ".join(one[:80] for one in shown) + ". " if shown else "")
                + "ListLabels lists all, CreateLabel makes one."
            ),
            can_retry=True,
        )


async def read_labels(call: Call) -> Labels:
    """The labels of the mailbox."""
    answer = await call.api.call("GET", f"{ME}/labels")
    return Labels(objects(answer.json, "labels"))


async def names_for(call: Call, messages: Iterable[Json]) -> Mapping[str, str]:
    """The names of the labels on these messages; asked for only where one of them is the user's own."""
    ids = {str(one) for message in messages for one in message.get("labelIds") or ()}
    return (await read_labels(call)).names if ids - _KNOWN else {}


async def message_id(call: Call, name: str, given: str) -> str:
    """Gmail's id of the message in parameter `name`; a Message-ID header (`<...@...>`) is looked up."""
    plain = given.strip()
    if "@" not in plain:
        return segment(plain, name)
    bare = plain.strip("<>")
    if any(c.isspace() or c in '"<>' for c in bare):
        raise bad_input(f"{name} is neither a Gmail id nor a Message-ID")
    answer = await call.api.call("GET", f"{ME}/messages", query={"q": f"rfc822msgid:{bare}", "maxResults": 1})
    found = objects(answer.json, "messages")
    if not found:
        raise ToolError(Kind.NOT_FOUND, f"No message in the mailbox has this Message-ID ({name}).")
    return segment(found[0].get("id"), name)


async def read_message(call: Call, name: str) -> Json:
    """The whole message of which parameter `name` holds the id, long texts included."""
    found = await message_id(call, name, call.input[name])
    message = (await call.api.call("GET", f"{ME}/messages/{found}", query={"format": "full"})).json
    return await with_long_texts(call, message)


async def with_long_texts(call: Call, message: Json) -> Json:
    """The message with the texts that Gmail keeps apart because they are long."""
    payload = message.get("payload") if isinstance(message, dict) else None
    if payload is None:
        raise ToolError(Kind.BAD_OUTPUT, "Gmail answered with something that is no message.")
    parts = parts_of(message)
    apart = [*shown_parts(parts, "text/plain"), *shown_parts(parts, "text/html")]
    for part in apart[:_MOST_APART]:
        if part.data is None and part.attachment_id:
            answer = await call.api.call("GET", attachment_path(message, part))
            _put(payload, part.part_id, answer.json)
    return message


def _put(payload: Json, part_id: str, body: Json) -> None:
    waiting = [payload]
    while waiting:
        part = waiting.pop()
        waiting += part.get("parts") or ()
        if part.get("partId", "") == part_id and isinstance(part.get("body"), dict):
            part["body"]["data"] = (body or {}).get("data")


async def read_attachment(call: Call, message: Json, part: Part) -> bytes:
    """The bytes of a part, wherever Gmail keeps them."""
    if part.data is not None or not part.attachment_id:
        return part.as_bytes()
    answer = await call.api.call("GET", attachment_path(message, part))
    return from_base64url(str((answer.json or {}).get("data") or ""))


def attachment_path(message: Json, part: Part) -> str:
    """Where Gmail keeps the bytes of a part."""
    found, file = segment(message.get("id"), "id"), segment(part.attachment_id, "attachment_id")
    return f"{ME}/messages/{found}/attachments/{file}"


async def own_addresses(call: Call) -> list[Address]:
    """The user's own mailboxes, the one that mail is sent from first; aliases included where Gmail tells them."""
    try:
        answer = await call.api.call("GET", f"{ME}/settings/sendAs")
    except ToolError:
        # settings can be closed to a delegate, or by a policy here; the account itself is told by the profile
        answer = await call.api.call("GET", f"{ME}/profile")
        return [Address(str((answer.json or {}).get("emailAddress", "")))]
    listed = objects(answer.json, "sendAs")
    listed.sort(key=lambda one: (one.get("isDefault") is not True, one.get("isPrimary") is not True))
    return [
        Address(str(one["sendAsEmail"]), str(one.get("displayName") or ""))
        for one in listed
        if is_email(str(one.get("sendAsEmail", "")))
    ]


async def read_listed(call: Call, answer: Json, kind: str, query: Mapping[str, Any]) -> list[Json]:
    """What a list names, each read by its id; what has gone since the list was made is left out.

    `kind` is `messages`, `threads` or `drafts`. A draft that somebody types in gets a new message every few seconds.
    """

    async def read(one: Mapping[str, Json]) -> Json:
        path = f"{ME}/{kind}/{segment(one.get('id'), 'id')}"
        try:
            return (await call.api.call("GET", path, query=query)).json
        except ToolError as failure:
            if failure.status == 404:
                return None
            raise

    return [one for one in await in_turn(objects(answer, kind), read) if isinstance(one, dict)]


def sent_by_user(message: Json) -> bool:
    """Whether the user wrote this message."""
    return "SENT" in (message.get("labelIds") or ()) or "DRAFT" in (message.get("labelIds") or ())


def subject_of(message: Json) -> str:
    """The raw subject of a message."""
    return headers_of(message).get("subject", "")


def objects(answer: Json, name: str) -> list[dict[str, Any]]:
    """The list of objects under `name` in an answer; Google leaves an empty list out."""
    found = answer.get(name) if isinstance(answer, dict) else None
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


def most(call: Call, name: str, *, default: int, limit: int = 100) -> int:
    """How many the caller wants, between 1 and `limit`."""
    return max(1, min(int(call.get(name, default)), limit))
