"""A reply as mail programs write one: to whom, under which subject, in which conversation, quoting what it answers."""

from __future__ import annotations

import asyncio
import re
from datetime import UTC, datetime
from html import escape

from authproxy.tools.kits.gmail.addresses import Address, decoded, given, read, sendable, without
from authproxy.tools.kits.gmail.mailbox import own_addresses, read_message, sent_by_user, subject_of
from authproxy.tools.kits.gmail.reading import body_text, headers_of, html_in, parts_of, sender_of
from authproxy.tools.kits.gmail.writing import Body, Outgoing, attachments_of, body_of, html_of
from authproxy.tools.tool import Call, Json, bad_input

MOST_QUOTED = 100_000
"""Characters of the original that a reply quotes; of a longer one nothing is quoted, as its end would be missing."""
MOST_REFERENCES = 20

# printable ASCII in brackets: whatever a stranger wrote, no header of ours breaks
_ID = re.compile(r"<[!-;=?-~]{1,600}>")
_ANSWER = re.compile(r"^\s*(?:re|aw|sv|antw|r|rif|odp)\s*(?:\[\d+\])?\s*:", re.IGNORECASE)


async def reply_of(call: Call) -> tuple[Outgoing, str]:
    """The reply that the arguments ask for, and the id of the conversation that it belongs to."""
    original = await read_message(call, "reply_to_message_id")
    to, cc = await _recipients(call, original)
    body = body_of(call.input["body"], call.get("content_type", "auto"))
    headers = headers_of(original)
    message_ids = _ID.findall(headers.get("message-id", ""))[:1]
    earlier = _ID.findall(headers.get("references", "")) or _ID.findall(headers.get("in-reply-to", ""))[:1]
    chain = list(dict.fromkeys([*earlier, *message_ids]))
    reply = Outgoing(
        subject=answer_subject(decoded(subject_of(original))),
        body=await asyncio.to_thread(quoting, body, original),
        to=to,
        cc=cc,
        bcc=without(given(call.get("bcc"), "bcc"), to, cc),
        attachments=attachments_of(call.get("attachments")),
        in_reply_to="".join(message_ids),
        # the first one opens the conversation; of the rest the newest matter (RFC 5322, 3.6.4)
        references=chain if len(chain) <= MOST_REFERENCES else [chain[0], *chain[1 - MOST_REFERENCES :]],
    )
    return reply, str(original.get("threadId") or "")


def answer_subject(subject: str) -> str:
    """`Re: ` before a subject that does not say so already."""
    return subject if _ANSWER.match(subject) else f"Re: {subject}".strip()


async def _recipients(call: Call, original: Json) -> tuple[list[Address], list[Address]]:
    headers = headers_of(original)
    own_mail = sent_by_user(original)
    to = read(headers.get("to", "")) if own_mail else read(headers.get("reply-to", ""))
    to = to or read(headers.get("from", ""))
    cc: list[Address] = []
    if call.get("reply_to_whom") == "every_recipient":
        own = await own_addresses(call)
        others = [] if own_mail else without(read(headers.get("to", "")), own)
        to = without([*to, *others], own) or to
        cc = without(read(headers.get("cc", "")), own, to)
    to, cc = [sendable(one) for one in without(to)], [sendable(one) for one in cc]
    if not to:
        raise bad_input(
            "This email names nobody whom a reply could go to.", hint="SendEmail takes a recipient."
        )
    return to, [*cc, *without(given(call.get("cc"), "cc"), to, cc)]


def quoting(body: Body, original: Json) -> Body:
    """The body with the original quoted below it."""
    parts = parts_of(original)
    text = body_text(parts)
    if not text or len(text) > MOST_QUOTED:
        return body
    introduction = f"On {when(original)}, {_who(original)} wrote:"
    quoted = "\n".join(f"> {line}".rstrip() for line in text.split("\n"))
    plain = f"{body.text.rstrip()}\n\n{introduction}\n{quoted}\n"
    if not body.html:
        return Body(plain)
    page = html_in(parts)
    if not page or len(page) > MOST_QUOTED:
        page = html_of(text)
    return Body(
        plain,
        f'{body.html}\n<br>\n<div class="gmail_quote"><div class="gmail_attr">{escape(introduction)}<br></div>\n'
        '<blockquote class="gmail_quote" style="margin:0 0 0 .8ex;border-left:1px #ccc solid;padding-left:1ex">'
        f"{inside(page)}</blockquote></div>\n",
    )


def inside(page: str) -> str:
    """What the body of a page holds: a page cannot stand in a quote."""
    start = re.search(r"<body[^>]{0,2000}>", page, re.IGNORECASE)
    inner = page[start.end() :] if start else page
    end = inner.lower().rfind("</body")
    return inner[:end] if end >= 0 else inner


def _who(original: Json) -> str:
    sender = sender_of(headers_of(original))
    return str(sender) if sender is not None else "somebody"


def when(original: Json) -> str:
    """The day and time in UTC, in words that read the same everywhere."""
    stamp = str(original.get("internalDate", ""))
    if not re.fullmatch(r"[0-9]{1,14}", stamp):
        return "an earlier day"
    moment = datetime.fromtimestamp(int(stamp) / 1000, UTC)
    return f"{_DAYS[moment.weekday()]}, {moment.day} {_MONTHS[moment.month - 1]} {moment.year} at {moment:%H:%M} UTC"


# not strftime: its names depend on the locale of the process
_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
