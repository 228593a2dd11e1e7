"""Leaving a mailing list as its own header says (RFC 2369, RFC 8058): by mail, else with the link for the user."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import unquote

from authproxy.tools.kits.gmail.addresses import Address, decoded, is_email
from authproxy.tools.kits.gmail.batches import MOST_FOUND
from authproxy.tools.kits.gmail.mailbox import ME, message_id, objects
from authproxy.tools.kits.gmail.reading import headers_of, sender_of
from authproxy.tools.kits.gmail.sending import transmit
from authproxy.tools.kits.gmail.writing import Body, Outgoing
from authproxy.tools.kits.plain_text import one_line
from authproxy.tools.tool import Call, Json, ToolError, bad_input

_HEADERS = ["From", "Subject", "List-Id", "List-Unsubscribe", "List-Unsubscribe-Post"]
_LONGEST = 2_000  # characters of a link
_LONGEST_TEXT = 300
# A header is a stranger's: without these lines it could put any words to anybody into the user's mouth.
_WHY = (
    "-- \nThis mail unsubscribes from a mailing list. Its address, subject and first line are those that the list's "
    "own List-Unsubscribe header asks for."
)
_TARGET = re.compile(r"<([^<>]{1,4000})>")


@dataclass(frozen=True, slots=True)
class Ways:
    """How one may leave a list: by this mail, or at this link."""

    mail: Outgoing | None
    link: str
    one_click: bool


async def unsubscribe_from_email(call: Call) -> Json:
    """Off the list that sent this message; with `trash_existing` what it sent goes into the trash."""
    found = await message_id(call, "email_id", call.input["email_id"])
    query = {"format": "metadata", "metadataHeaders": _HEADERS}
    message = (await call.api.call("GET", f"{ME}/messages/{found}", query=query)).json
    headers = headers_of(message or {})
    ways = ways_out(headers)
    if ways.mail is None and not ways.link:
        raise bad_input(
            "This email does not say how to unsubscribe (it has no List-Unsubscribe header).",
            hint="TrashEmail or ReportSpam can deal with it; a link in its text may let the user unsubscribe.",
        )
    sender = sender_of(headers)
    result: dict[str, Json] = {"email_id": found, "sender": str(sender) if sender else None}
    if ways.mail is not None:
        await transmit(call, "POST", f"{ME}/messages/send", ways.mail)
        result |= {
            "unsubscribed": "requested",
            "how": f"An unsubscribe request was mailed to {ways.mail.to[0].email}.",
            "subject": ways.mail.subject,
        }
    else:
        result |= {
            "unsubscribed": "user_must_open_link",
            "link": ways.link,
            "how": _ONE_CLICK if ways.one_click else _OPEN,
        }
    if call.get("trash_existing"):
        result |= await _trash(call, headers, sender)
    return result


_OPEN = (
    "Nothing has been sent: this sender offers only a web page. Give the user the link; they confirm there, and "
    "should open it only if they know the sender."
)
_ONE_CLICK = (
    "Nothing has been sent: this sender unsubscribes over the web only, and tools here talk to Gmail alone. Give the "
    "user the link; one click there is enough."
)


def ways_out(headers: Mapping[str, str]) -> Ways:
    """What List-Unsubscribe offers. Of a mailto only the address, subject and text count: it may copy nobody."""
    mail: Outgoing | None = None
    link = ""
    for target in _TARGET.findall(re.sub(r"\s+", "", headers.get("list-unsubscribe", "")[:20_000])):
        scheme = target.partition(":")[0].lower()
        if scheme == "mailto" and mail is None:
            mail = _mail(target)
        elif (
            scheme in ("https", "http") and (not link or link.startswith("http:")) and len(target) <= _LONGEST
        ):
            link = target
    post = headers.get("list-unsubscribe-post", "").replace(" ", "").lower()
    return Ways(mail, link, link.startswith("https:") and post == "list-unsubscribe=one-click")


def _mail(target: str) -> Outgoing | None:
    address, _mark, query = target[len("mailto:") :].partition("?")
    address = unquote(address)
    if not is_email(address) or not address.isascii():
        return None
    # RFC 6068: here a plus is a plus, unlike in a form
    fields = (field.partition("=") for field in query.split("&")[:20])
    wanted = {name.lower(): one_line(unquote(value)) for name, _mark, value in fields}
    body = wanted.get("body", "")[:_LONGEST_TEXT] or "unsubscribe"
    return Outgoing(
        subject=wanted.get("subject", "")[:_LONGEST_TEXT] or "unsubscribe",
        body=Body(f"{body}\n\n{_WHY}"),
        to=[Address(address)],
    )


async def _trash(call: Call, headers: Mapping[str, str], sender: Address | None) -> dict[str, Json]:
    """The messages of the list, or of this sender, into the trash."""
    listed = re.search(r"<([A-Za-z0-9._-]{3,200})>", decoded(headers.get("list-id", "")))
    if listed is None and sender is None:
        return {"trashed": 0, "trash_note": "The email names no sender, so nothing was put into the trash."}
    query = f"list:{listed[1]}" if listed else f"from:{sender.email if sender else ''}"
    try:
        answer = await call.api.call("GET", f"{ME}/messages", query={"q": query, "maxResults": MOST_FOUND})
        ids = [str(one.get("id")) for one in objects(answer.json, "messages")]
        if ids:
            await call.api.call(
                "POST",
                f"{ME}/messages/batchModify",
                json={"ids": ids, "addLabelIds": ["TRASH"], "removeLabelIds": ["INBOX"]},
            )
    except ToolError as failure:
        # the unsubscribing itself is done, and must not be done again for this
        return {"trashed": 0, "trash_note": f"Putting its emails into the trash failed: {failure.message}"}
    more = bool((answer.json or {}).get("nextPageToken"))
    return {"trashed": len(ids), **({"more_to_trash": True} if more else {})}
