"""Gmail's JSON of a message, as what a reader wants to know of it."""

from __future__ import annotations

import asyncio
import base64
import re
from binascii import Error as Garbled
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from html import unescape

from authproxy.tools.kits.gmail.addresses import Address, decoded, read
from authproxy.tools.kits.plain_text import MOST_MARKUP, cut, from_html, one_line, tidy
from authproxy.tools.tool import Json

BODY_ALONE = 20_000
"""Characters of the body where one message was asked for."""
BODY_IN_LIST = 2_000
"""And where many were."""

LONGEST_SUBJECT = 500

SUMMARY_HEADERS = ("From", "To", "Cc", "Bcc", "Reply-To", "Subject", "Date", "Message-ID")
AUTOMATION_HEADERS = ("List-Unsubscribe", "List-Id", "Auto-Submitted", "Precedence")

_MOST_PARTS = 300
_MOST_PEOPLE = 25
_STATEFUL = re.compile(r"iso-2022|utf-7|^hz", re.IGNORECASE)
_CHARSET = re.compile(r"charset\s*=\s*\"?([A-Za-z0-9_.:-]{1,60})", re.IGNORECASE)
_QUOTE_INTRODUCTION = re.compile(
    r"^(?:>\s?)*(?:on\b.{6,200}\bwrote|am\b.{6,200}\bschrieb.{0,80}|le\b.{6,200}\ba écrit|el\b.{6,200}\bescribió)\s*:$",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Part:
    """A leaf of a message. `data` is None where Gmail keeps it apart, under `attachment_id`."""

    part_id: str
    mime_type: str
    filename: str
    size: int
    attachment_id: str
    content_id: str
    disposition: str
    charset: str
    data: str | None

    @property
    def is_file(self) -> bool:
        """Whether it is no text that a reader is shown."""
        shown = self.mime_type in ("text/plain", "text/html") and self.disposition != "attachment"
        return bool(self.filename) or not shown

    @property
    def is_inline(self) -> bool:
        """Whether it is a picture in the text; Gmail gives a Content-ID to other files too."""
        return bool(self.content_id) and (
            self.disposition == "inline" or (not self.disposition and self.mime_type.startswith("image/"))
        )

    def as_bytes(self) -> bytes:
        return from_base64url(self.data or "")

    def as_text(self) -> str:
        return text_of(self.as_bytes(), self.charset)


def from_base64url(data: str) -> bytes:
    """Base64url as Gmail writes it, with or without padding; what is none is nothing."""
    plain = data.rstrip("=").translate(str.maketrans("-_", "+/"))
    try:
        return base64.b64decode(plain + "=" * (-len(plain) % 4))
    except Garbled:
        return b""


def text_of(data: bytes, charset: str) -> str:
    """Bytes as text. Gmail gives most parts as UTF-8 whatever their charset says, and some as they were sent."""
    if not (_STATEFUL.search(charset) and (b"\x1b" in data or b"+" in data or b"~" in data)):
        try:
            return data.decode()
        except UnicodeDecodeError:
            pass
    try:
        return data.decode(charset or "cp1252", "replace")
    except (LookupError, UnicodeError):
        return data.decode("latin-1")


def headers_of(message: Json) -> dict[str, str]:
    """The first of each header by its name in lower case, as it came."""
    found: dict[str, str] = {}
    for header in _objects(_object(message.get("payload")).get("headers")):
        found.setdefault(str(header.get("name", "")).lower(), str(header.get("value", "")))
    return found


def parts_of(message: Json) -> list[Part]:
    """The leaves, in order; of a message inside the message only that it is there."""
    return list(_leaves(_object(message.get("payload"))))[:_MOST_PARTS]


def _leaves(root: Mapping[str, Json]) -> Iterator[Part]:
    waiting = [root]
    while waiting:
        part = waiting.pop()
        inner = _objects(part.get("parts"))
        mime_type = str(part.get("mimeType", "")).lower()
        if inner and mime_type.startswith("multipart/"):
            waiting += reversed(inner)
        elif not mime_type.startswith("multipart/"):
            yield _leaf(part, mime_type)


def _leaf(part: Mapping[str, Json], mime_type: str) -> Part:
    headers = {str(h.get("name", "")).lower(): str(h.get("value", "")) for h in _objects(part.get("headers"))}
    body = _object(part.get("body"))
    charset = _CHARSET.search(headers.get("content-type", "")[:1000])
    data = body.get("data")
    return Part(
        part_id=str(part.get("partId", "")),
        mime_type=mime_type or "text/plain",
        filename=decoded(str(part.get("filename") or "")),
        size=body["size"] if isinstance(body.get("size"), int) else 0,
        attachment_id=str(body.get("attachmentId") or ""),
        content_id=headers.get("content-id", "").strip().strip("<>"),
        disposition=headers.get("content-disposition", "").partition(";")[0].strip().lower(),
        charset=charset[1] if charset else "",
        data=data if isinstance(data, str) else None,
    )


def shown_parts(parts: Sequence[Part], kind: str) -> list[Part]:
    """The texts of this type that a reader is shown: more than one where pictures stand between them."""
    return [one for one in parts if one.mime_type == kind and not one.is_file]


def html_in(parts: Sequence[Part]) -> str:
    """The HTML of a message; empty where it has none."""
    return "\n".join(one.as_text() for one in shown_parts(parts, "text/html"))


def body_text(parts: Sequence[Part]) -> str:
    """What the message says: its plain text where that says something, else its HTML as text."""
    text = "\n".join(one.as_text() for one in shown_parts(parts, "text/plain"))
    text = tidy(text[:MOST_MARKUP])
    return text if text.strip() else from_html(html_in(parts))


def attachments_in(parts: Sequence[Part], *, ids: bool = False) -> list[dict[str, Json]]:
    """The files of a message by name, type and size; with `ids`, by Gmail's ids too (they change at each reading)."""
    return [
        {
            "filename": one.filename or f"unnamed.{one.mime_type.rpartition('/')[2]}",
            "mime_type": one.mime_type,
            "size_bytes": one.size,
            **({"inline": True} if one.is_inline else {}),
            **({"part_id": one.part_id, "attachment_id": one.attachment_id} if ids else {}),
        }
        for one in parts
        if one.is_file
    ]


def split_quote(text: str) -> tuple[str, str]:
    """A body in two: what its writer says, and the older message that is quoted at its end, which may be empty."""
    lines = text.split("\n")
    end = len(lines)
    while end and (not lines[end - 1].strip() or lines[end - 1].lstrip().startswith(">")):
        end -= 1
    if not any(line.lstrip().startswith(">") for line in lines[end:]):
        return text, ""
    for back in (1, 2, 3):  # the line above a quote, which mail programs wrap
        if end >= back and _QUOTE_INTRODUCTION.match(" ".join(lines[end - back : end]).strip()):
            end -= back
            break
    return "\n".join(lines[:end]).rstrip(), "\n".join(lines[end:]).strip("\n")


def own_words(text: str) -> str:
    """A body without the older messages that are quoted at its end."""
    own, quote = split_quote(text)
    return f"{own}\n[quoted text left out]" if own and quote else text


def date_of(message: Json) -> str | None:
    """When Gmail received the message, in UTC (RFC 3339); None where it does not say."""
    stamp = str(message.get("internalDate", ""))
    if not re.fullmatch(r"[0-9]{1,15}", stamp):
        return None
    return datetime.fromtimestamp(min(int(stamp) / 1000, 253_402_300_799), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def people(header: str) -> list[str]:
    """The mailboxes of a header as text, bounded."""
    found = read(header)
    shown = [str(one) for one in found[:_MOST_PEOPLE]]
    if len(found) > _MOST_PEOPLE:
        shown.append(f"and {len(found) - _MOST_PEOPLE} more")
    return shown or ([decoded(header)] if header.strip() else [])


def sender_of(headers: Mapping[str, str]) -> Address | None:
    """The mailbox in From; None where there is none."""
    return next(iter(read(headers.get("from", ""))), None)


def summary_of(message: Json, labels: Mapping[str, str]) -> dict[str, Json]:
    """Who, when, what about, and where it is. `labels` gives the names of label ids."""
    headers = headers_of(message)
    shape: dict[str, Json] = {
        "id": message.get("id"),
        "thread_id": message.get("threadId"),
        "date": date_of(message),
        "from": ", ".join(people(headers.get("from", ""))),
        "to": people(headers.get("to", "")),
    }
    for name in ("cc", "bcc", "reply-to"):
        if headers.get(name):
            shape[name.replace("-", "_")] = people(headers[name])
    if shape.get("reply_to") == [shape["from"]]:
        del shape["reply_to"]
    ids = [str(one) for one in message.get("labelIds") or ()]
    shape["subject"] = decoded(headers.get("subject", ""))[:LONGEST_SUBJECT]
    shape["snippet"] = one_line(unescape(str(message.get("snippet") or "")))
    shape["labels"] = [labels.get(one, one) for one in ids]
    shape["unread"] = "UNREAD" in ids
    return shape


def whole_of(
    message: Json, labels: Mapping[str, str], *, most: int = BODY_ALONE, quotes: bool = True
) -> dict[str, Json]:
    """The summary, with the body as text of at most `most` characters, and the attachments."""
    shape = summary_of(message, labels)
    parts = parts_of(message)
    text = body_text(parts)
    del shape["snippet"]
    shape["body"] = cut(text if quotes else own_words(text), most)
    if files := attachments_in(parts):
        shape["attachments"] = files
    return shape


async def shaped(
    message: Json, labels: Mapping[str, str], *, most: int = BODY_ALONE, quotes: bool = True
) -> dict[str, Json]:
    """`whole_of` beside the event loop: a stranger's HTML can take a second to read, and many wait for the loop."""
    return await asyncio.to_thread(whole_of, message, labels, most=most, quotes=quotes)


_CATEGORIES = frozenset({"CATEGORY_PROMOTIONS", "CATEGORY_SOCIAL", "CATEGORY_UPDATES", "CATEGORY_FORUMS"})
_ROBOT = re.compile(
    r"^(?:no[._-]?reply|do[._-]?not[._-]?reply|notifications?|notify|mailer-daemon|postmaster|bounces?|alerts?"
    r"|newsletter|news|marketing|updates?|automated|auto-?confirm)(?:[._+-].*)?$|[._-]no-?reply$",
    re.IGNORECASE,
)


def is_automated(message: Json) -> bool:
    """Whether a machine sent it: a newsletter, a notification, a list, a bounce, an automatic answer."""
    if _CATEGORIES.intersection(message.get("labelIds") or ()):
        return True
    headers = headers_of(message)
    if headers.get("list-unsubscribe") or headers.get("list-id"):
        return True
    if headers.get("auto-submitted", "no").strip().lower() not in ("no", ""):
        return True
    if headers.get("precedence", "").strip().lower() in ("bulk", "list", "junk"):
        return True
    sender = sender_of(headers)
    return sender is not None and _ROBOT.search(sender.email.rpartition("@")[0]) is not None


def _object(value: Json) -> Mapping[str, Json]:
    return value if isinstance(value, dict) else {}


def _objects(value: Json) -> list[Mapping[str, Json]]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []
