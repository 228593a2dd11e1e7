"""Messages sent: new ones, replies, drafts, and what somebody else wrote passed on."""

from __future__ import annotations

import asyncio
import json
import re
from hashlib import sha256
from html import escape

from authproxy.tools.kits.gmail.addresses import decoded, given, without
from authproxy.tools.kits.gmail.mailbox import ME, read_attachment, read_message, subject_of
from authproxy.tools.kits.gmail.reading import Part, body_text, headers_of, html_in, parts_of, people
from authproxy.tools.kits.gmail.replying import inside, reply_of, when
from authproxy.tools.kits.gmail.writing import (
    MOST_ATTACHMENTS,
    MOST_BYTES,
    Attachment,
    Body,
    Outgoing,
    attachments_of,
    base64url,
    body_of,
    html_of,
    safe_filename,
    safe_mime_type,
)
from authproxy.tools.kits.in_turn import in_turn
from authproxy.tools.tool import Answer, Call, Json, Kind, ToolError, bad_input

_CONTENT_ID = re.compile(r"[!-;=?-~]{1,200}")

UPLOAD_FROM = 4_000_000
"""Bytes of a message from which on it is uploaded: Gmail takes larger ones no more inside JSON."""


async def send_email(call: Call) -> Json:
    """A new message, sent."""
    message = new_message(call)
    return _sent((await transmit(call, "POST", f"{ME}/messages/send", message)).json, message)


async def reply_to_email(call: Call) -> Json:
    """A reply in its conversation, sent."""
    reply, thread = await reply_of(call)
    answer = await transmit(call, "POST", f"{ME}/messages/send", reply, thread=thread)
    return _sent(answer.json, reply)


async def send_draft_email(call: Call) -> Json:
    """A draft, sent as it is."""
    draft = call.input["email_id"].strip()
    try:
        answer = await call.api.call("POST", f"{ME}/drafts/send", json={"id": draft})
    except ToolError as failure:
        if failure.status == 404:
            raise ToolError(
                Kind.NOT_FOUND,
                "There is no such draft; email_id takes the id of a draft, as ListDraftEmails gives it.",
                status=404,
            ) from failure
        if failure.status == 403 and failure.kind is Kind.AUTH_ERROR:
            # https://developers.google.com/workspace/gmail/api/reference/rest/v1/users.drafts/send: gmail.send is
            # what this tool lists, and not among the scopes that Google takes here
            failure.hint = "Gmail sends drafts for grants with gmail.compose, which WriteDraftEmail asks for."
        raise
    return _sent(answer.json, None)


async def forward_email(call: Call) -> Json:
    """A message passed on with its files, a note of the user's above it."""
    to = given(call.input["recipient"], "recipient")
    if not to:
        raise bad_input("recipient is empty")
    original = await read_message(call, "email_id")
    files = await _files(call, original)
    cc = without(given(call.get("cc"), "cc"), to)
    message = Outgoing(
        subject=_forward_subject(decoded(subject_of(original))),
        body=await asyncio.to_thread(_forwarded, call.get("note", ""), original),
        to=without(to),
        cc=cc,
        bcc=without(given(call.get("bcc"), "bcc"), to, cc),
        attachments=files,
    )
    answer = await transmit(call, "POST", f"{ME}/messages/send", message)
    return {
        **_sent(answer.json, message),
        "forwarded": original.get("id"),
        "attachments": [one.filename for one in files],
    }


def new_message(call: Call) -> Outgoing:
    """The message of `subject`, `body`, `recipient` and what goes with them."""
    to = without(given(call.input["recipient"], "recipient"))
    if not to:
        raise bad_input("recipient is empty")
    cc = without(given(call.get("cc"), "cc"), to)
    return Outgoing(
        subject=call.input["subject"],
        body=body_of(call.input["body"], call.get("content_type", "auto")),
        to=to,
        cc=cc,
        bcc=without(given(call.get("bcc"), "bcc"), to, cc),
        attachments=attachments_of(call.get("attachments")),
    )


async def transmit(
    call: Call, method: str, path: str, message: Outgoing | bytes, *, thread: str = "", draft: bool = False
) -> Answer:
    """A message to Gmail, to be sent or kept as a draft, in the conversation `thread`."""
    content = message if isinstance(message, bytes) else await asyncio.to_thread(message.as_bytes)
    about: dict[str, Json] = {"threadId": thread} if thread else {}
    if len(content) < UPLOAD_FROM:
        about["raw"] = base64url(content)
        return await call.api.call(method, path, json={"message": about} if draft else about)
    if not thread:
        query = {"uploadType": "media"}
        return await call.api.call(
            method, f"/upload{path}", query=query, body=content, content_type="message/rfc822"
        )
    head = json.dumps({"message": about} if draft else about).encode()
    mark = b"=_" + sha256(content).hexdigest()[:40].encode()
    body = b"".join(
        (
            *(b"--", mark, b"\r\nContent-Type: application/json\r\n\r\n", head),
            *(b"\r\n--", mark, b"\r\nContent-Type: message/rfc822\r\n\r\n", content),
            *(b"\r\n--", mark, b"--\r\n"),
        )
    )
    return await call.api.call(
        method,
        f"/upload{path}",
        query={"uploadType": "multipart"},
        body=body,
        content_type=f'multipart/related; boundary="{mark.decode()}"',
    )


def _sent(answer: Json, message: Outgoing | None) -> dict[str, Json]:
    said = answer if isinstance(answer, dict) else {}
    shape: dict[str, Json] = {"sent": True, "id": said.get("id"), "thread_id": said.get("threadId")}
    if message is not None:
        shape["to"] = [one.email for one in message.to]
        for name, some in (("cc", message.cc), ("bcc", message.bcc)):
            if some:
                shape[name] = [one.email for one in some]
        shape["subject"] = message.subject
    return shape


def _forward_subject(subject: str) -> str:
    start = subject[:5].casefold()
    return subject if start.startswith(("fwd:", "fw:", "wg:")) else f"Fwd: {subject}".strip()


def _forwarded(note: str, original: Json) -> Body:
    """The note, then the message with the heads that say whose it is."""
    headers, parts = headers_of(original), parts_of(original)
    heads = [
        ("From", ", ".join(people(headers.get("from", "")))),
        ("Date", when(original)),
        ("Subject", decoded(headers.get("subject", ""))),
        ("To", ", ".join(people(headers.get("to", "")))),
        ("Cc", ", ".join(people(headers.get("cc", "")))),
    ]
    shown = [(name, value) for name, value in heads if value]
    title = "---------- Forwarded message ----------"
    own = body_of(note, "auto")
    lines = [*([own.text.rstrip(), ""] if note.strip() else []), title]
    text = "\n".join([*lines, *(f"{name}: {value}" for name, value in shown), "", body_text(parts), ""])
    html = html_in(parts)
    if not html and not own.html:
        return Body(text)
    page = inside(html) if html else html_of(body_text(parts))
    above = own.html or (html_of(note) if note.strip() else "")
    head = "<br>\n".join([title, *(f"{name}: {escape(value)}" for name, value in shown)])
    return Body(text, f'{above}\n<br>\n<div class="gmail_quote"><div>{head}</div><br>\n{page}</div>\n')


async def _files(call: Call, original: Json) -> list[Attachment]:
    """What was attached. Raises ToolError rather than forward without a part of it."""
    parts = [one for one in parts_of(original) if one.is_file]
    if len(parts) > MOST_ATTACHMENTS or sum(one.size for one in parts) > MOST_BYTES:
        raise ToolError(
            Kind.BAD_INPUT,
            f"This email has more than {MOST_ATTACHMENTS} attachments or {MOST_BYTES // 1_000_000} MB of them; "
            "Gmail sends no message as large as that would be.",
        )

    async def fetch(part: Part) -> bytes:
        return await read_attachment(call, original, part)

    html = html_in(parts_of(original))
    return [
        Attachment(
            safe_filename(part.filename or f"attachment.{part.mime_type.rpartition('/')[2]}"),
            safe_mime_type(part.mime_type),
            data,
            part.content_id
            if _CONTENT_ID.fullmatch(part.content_id) and f"cid:{part.content_id}" in html
            else "",
        )
        for part, data in zip(parts, await in_turn(parts, fetch), strict=True)
    ]
