"""Drafts: written, listed, changed with what they hold kept, and thrown away."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator, Mapping
from email.message import Message
from email.parser import BytesParser
from email.policy import compat32
from typing import Any

from authproxy.tools.kits.gmail.addresses import given, without
from authproxy.tools.kits.gmail.mailbox import ME, most, read_listed
from authproxy.tools.kits.gmail.reading import from_base64url, split_quote, summary_of, text_of
from authproxy.tools.kits.gmail.replying import reply_of
from authproxy.tools.kits.gmail.sending import new_message, transmit
from authproxy.tools.kits.gmail.writing import (
    WIRE,
    Body,
    Outgoing,
    body_of,
    bundle,
    content_of,
    html_of,
    mailboxes,
    unstructured,
)
from authproxy.tools.kits.plain_text import from_html
from authproxy.tools.rows import segment
from authproxy.tools.tool import Call, Json, Kind, ToolError, bad_input


async def write_draft_email(call: Call) -> Json:
    """A new message, kept as a draft."""
    message = new_message(call)
    answer = await transmit(call, "POST", f"{ME}/drafts", message, draft=True)
    return _kept(answer.json, message)


async def write_draft_reply_email(call: Call) -> Json:
    """A reply in its conversation, kept as a draft."""
    reply, thread = await reply_of(call)
    answer = await transmit(call, "POST", f"{ME}/drafts", reply, thread=thread, draft=True)
    return _kept(answer.json, reply)


def _kept(answer: Json, message: Outgoing) -> dict[str, Json]:
    said = answer if isinstance(answer, dict) else {}
    inner = said.get("message") if isinstance(said.get("message"), dict) else {}
    shape: dict[str, Json] = {
        "draft_id": said.get("id"),
        "message_id": (inner or {}).get("id"),
        "thread_id": (inner or {}).get("threadId"),
        "to": [one.email for one in message.to],
        "subject": message.subject,
    }
    for name, some in (("cc", message.cc), ("bcc", message.bcc)):
        if some:
            shape[name] = [one.email for one in some]
    return shape


async def list_draft_emails(call: Call) -> Json:
    """The drafts, the newest first."""
    answer = await call.api.call(
        "GET",
        f"{ME}/drafts",
        query={"maxResults": most(call, "n_drafts", default=5), "pageToken": call.get("page_token")},
    )

    drafts = []
    for draft in await read_listed(call, answer.json, "drafts", {"format": "metadata"}):
        summary = summary_of(draft.get("message") or {}, {})
        message_id = summary.pop("id")
        for name in ("from", "labels", "unread"):
            del summary[name]
        drafts.append({"draft_id": draft.get("id"), "message_id": message_id, **summary})
    token = (answer.json or {}).get("nextPageToken")
    return {"drafts": drafts, **({"next_page_token": token} if token else {})}


def deleted_draft(_answer: Json, given_input: Mapping[str, Any]) -> Json:
    """What a model is told of a draft that is gone."""
    return {"deleted": True, "draft_id": given_input["draft_email_id"]}


async def update_draft_email(call: Call) -> Json:
    """A draft with the arguments in the place of what it said; everything else in it stays, files included."""
    if not {"subject", "body", "recipient", "cc", "bcc"} & call.input.keys():
        raise bad_input("Nothing to change: give subject, body, recipient, cc or bcc.")
    headers = _headers(call)
    draft = segment(call.input["draft_email_id"].strip(), "draft_email_id")
    answer = await call.api.call("GET", f"{ME}/drafts/{draft}", query={"format": "raw"})
    message = (answer.json or {}).get("message") or {}
    content = from_base64url(str(message.get("raw") or ""))
    if not content:
        raise ToolError(Kind.BAD_OUTPUT, "Gmail did not give the draft's content, so it was left as it is.")
    changed = await asyncio.to_thread(_changed, content, headers, call.get("body"))
    thread = str(message.get("threadId") or "")
    done = await transmit(call, "PUT", f"{ME}/drafts/{draft}", changed, thread=thread, draft=True)
    kept = (done.json or {}).get("message") or {}
    return {
        "draft_id": (done.json or {}).get("id", call.input["draft_email_id"]),
        "message_id": kept.get("id"),
        "thread_id": kept.get("threadId"),
        "changed": sorted(call.input.keys() - {"draft_email_id"}),
    }


def _changed(content: bytes, headers: Mapping[str, str], body: str | None) -> bytes:
    """A draft's content with other headers (an empty one is gone) and, if one is given, another text."""
    draft = BytesParser(policy=compat32).parsebytes(content)
    if body is not None:
        draft = _with_body(draft, body)
    for name, value in headers.items():
        del draft[name]
        if value:
            draft[name] = value
    return draft.as_bytes(policy=WIRE)


def _headers(call: Call) -> dict[str, str]:
    """The headers that the arguments replace; an empty list of recipients takes the header away."""
    found: dict[str, str] = {}
    if "subject" in call.input:
        found["Subject"] = unstructured(call.input["subject"])
    for header, name in (("To", "recipient"), ("Cc", "cc"), ("Bcc", "bcc")):
        if name in call.input:
            found[header] = mailboxes(without(given(call.input[name], name)))
    return found


def _with_body(draft: Message, text: str) -> Message:
    """The draft with another text: its headers and files kept, and below a reply's text what it quotes."""
    body = body_of(text, "auto")
    changed = content_of(_quoting_as_before(body, draft) if draft["In-Reply-To"] else body)
    if files := [_as_part(part) for part in _leaves(draft) if not _is_text(part)]:
        changed = bundle("mixed", [changed, *files])
    for name, value in draft.raw_items():
        if not name.lower().startswith("content-"):
            changed.set_raw(name, value)
    if "MIME-Version" not in changed:
        changed["MIME-Version"] = "1.0"
    return changed


def _as_part(leaf: Message) -> Message:
    """A leaf by itself: the draft's own headers do not belong to it where it is all that the draft holds."""
    part = Message(policy=WIRE)
    for name, value in leaf.raw_items():
        if name.lower().startswith("content-"):
            part.set_raw(name, value)
    part.set_payload(leaf.get_payload())
    return part


def _leaves(message: Message) -> Iterator[Message]:
    """The parts that are no bundles; a message inside the message is one of them."""
    if message.get_content_maintype() == "multipart" and message.is_multipart():
        for part in message.get_payload():
            if isinstance(part, Message):
                yield from _leaves(part)
    else:
        yield message


def _is_text(part: Message) -> bool:
    return (
        part.get_content_type() in ("text/plain", "text/html")
        and part.get_content_disposition() != "attachment"
        and not part.get_filename()
    )


def _text(draft: Message, kind: str) -> str:
    """The first text of this type, which is the one that is shown."""
    for part in _leaves(draft):
        if part.get_content_type() == kind and _is_text(part):
            content = part.get_payload(decode=True)
            return text_of(content if isinstance(content, bytes) else b"", part.get_content_charset() or "")
    return ""


def _quoting_as_before(body: Body, draft: Message) -> Body:
    """The body, and below it what the draft quoted so far."""
    html = _text(draft, "text/html")
    start = _QUOTE.search(html)
    html_quote = html[start.start() :] if start else ""
    quote = split_quote(_text(draft, "text/plain").replace("\r\n", "\n"))[1] or from_html(html_quote)
    if not quote:
        return body
    text = f"{body.text.rstrip()}\n\n{quote}\n"
    if not html_quote:
        return Body(text, f"{body.html}\n<br>\n{html_of(quote)}" if body.html else "")
    return Body(text, f"{body.html or html_of(body.text)}\n<br>\n{html_quote}")


_QUOTE = re.compile(r"<div[^>]{0,200}class=[\"']?gmail_quote", re.IGNORECASE)
