"""A message of ours as MIME (RFC 5322, 2045 to 2049), the same bytes for the same content."""

from __future__ import annotations

import base64
import hashlib
import re
from binascii import Error as Garbled
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from email import policy
from email.charset import BASE64, QP, Charset
from email.encoders import encode_base64
from email.message import Message
from email.mime.base import MIMEBase
from email.mime.multipart import MIMEMultipart
from email.mime.text import MIMEText
from html import escape
from mimetypes import guess_type

from authproxy.tools.kits.gmail.addresses import Address
from authproxy.tools.kits.plain_text import from_html, looks_like_html, one_line
from authproxy.tools.tool import Json, bad_input

MOST_BYTES = 25_000_000
"""Of the attachments of one message; Gmail's own bound."""
MOST_ATTACHMENTS = 50

WIRE = policy.compat32.clone(linesep="\r\n")

_MIME_TYPE = re.compile(r"[a-z0-9][a-z0-9!#$&^_.+-]{0,60}/[a-z0-9][a-z0-9!#$&^_.+-]{0,80}")
_ATTACHMENT = frozenset({"filename", "mime_type", "content_base64", "text"})
_SHAPE = (
    'Each attachment is {"filename": "report.pdf", "content_base64": "...", "mime_type": "application/pdf"}, '
    'or {"filename": "notes.txt", "text": "..."}; mime_type may be left out.'
)


@dataclass(frozen=True, slots=True)
class Attachment:
    """A file in a message. With `content_id` it is a picture in the HTML; `charset` is that of a text, if known."""

    filename: str
    mime_type: str
    data: bytes = field(repr=False)
    content_id: str = ""
    charset: str = ""


@dataclass(frozen=True, slots=True)
class Body:
    """What the message says: as text, and as HTML where it is written so."""

    text: str
    html: str = ""


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A message to be sent or kept as a draft. Gmail itself adds From, Date and Message-ID."""

    subject: str
    body: Body
    to: Sequence[Address] = ()
    cc: Sequence[Address] = ()
    bcc: Sequence[Address] = ()
    attachments: Sequence[Attachment] = ()
    in_reply_to: str = ""
    references: Sequence[str] = ()

    def as_bytes(self) -> bytes:
        """The whole message, lines ended with CRLF."""
        message = content_of(self.body, self.attachments)
        message["MIME-Version"] = "1.0"
        for name, value in self._headers():
            if value:
                message[name] = value
        return message.as_bytes(policy=WIRE)

    def _headers(self) -> Iterable[tuple[str, str]]:
        return (
            ("To", mailboxes(self.to)),
            ("Cc", mailboxes(self.cc)),
            ("Bcc", mailboxes(self.bcc)),
            ("Subject", unstructured(self.subject)),
            ("In-Reply-To", self.in_reply_to),
            ("References", " ".join(self.references)),
        )


def base64url(content: bytes) -> str:
    """As the Gmail API takes a message inside JSON."""
    return base64.urlsafe_b64encode(content).decode()


def body_of(text: str, content_type: str) -> Body:
    """`text` as the caller meant it: `plain`, `html`, or `auto`, which sees for itself."""
    if content_type == "html" or (content_type == "auto" and looks_like_html(text)):
        return Body(from_html(text), text)
    return Body(text)


def html_of(text: str) -> str:
    """Plain text as HTML that looks the same."""
    return "<div>" + escape(text, quote=False).replace("\n", "<br>\n") + "</div>"


def content_of(body: Body, attachments: Sequence[Attachment] = ()) -> Message:
    """The part of a message that is not its headers: text, the HTML beside it, pictures in that, files behind it."""
    inline = [one for one in attachments if one.content_id and body.html]
    files = [one for one in attachments if one not in inline]
    content: Message = _text(body.text, "plain")
    if body.html:
        page: Message = _text(body.html, "html")
        if inline:
            page = bundle("related", [page, *(_file(one) for one in inline)])
        content = bundle("alternative", [content, page])
    if files:
        content = bundle("mixed", [content, *(_file(one) for one in files)])
    return content


def _text(text: str, subtype: str) -> Message:
    lines = text.replace("\r\n", "\n").replace("\r", "\n")
    charset = Charset("utf-8")
    foreign = sum(ord(c) > 127 for c in lines)
    charset.body_encoding = BASE64 if foreign * 6 > len(lines) else QP
    part = MIMEText(lines if lines.endswith("\n") else lines + "\n", subtype, charset, policy=WIRE)  # type: ignore[arg-type]
    del part["MIME-Version"]
    return part


def _file(attachment: Attachment) -> Message:
    major, minor = attachment.mime_type.split("/")
    part = MIMEBase(major, minor, policy=WIRE)
    part.set_payload(attachment.data)
    encode_base64(part)
    del part["MIME-Version"]
    disposition = "inline" if attachment.content_id else "attachment"
    part.add_header("Content-Disposition", disposition, filename=attachment.filename)
    part.set_param("name", attachment.filename)
    if attachment.charset:
        part.set_param("charset", attachment.charset)
    if attachment.content_id:
        part["Content-ID"] = f"<{attachment.content_id}>"
    return part


def bundle(subtype: str, parts: Sequence[Message]) -> Message:
    """Parts in one, with a boundary made from them: no text can hold the digest of itself."""
    digest = hashlib.sha256(subtype.encode())
    for part in parts:
        digest.update(part.as_bytes(policy=WIRE))
    bundle = MIMEMultipart(subtype, f"=_{digest.hexdigest()[:40]}", parts, policy=WIRE)
    del bundle["MIME-Version"]
    return bundle


def unstructured(text: str) -> str:
    """A header's text in ASCII, on one line: as it is where that works, else as encoded words (RFC 2047)."""
    line = one_line(text)
    short = all(len(word) <= 60 for word in line.split())
    if line.isascii() and short and "=?" not in line:
        return line
    return " ".join(f"=?utf-8?B?{base64.b64encode(piece).decode()}?=" for piece in _pieces(line))


def _pieces(line: str, most: int = 42) -> Iterable[bytes]:
    """UTF-8 in pieces that are no longer than an encoded word may be; no character is torn."""
    piece = b""
    for character in line:
        encoded = character.encode()
        if piece and len(piece) + len(encoded) > most:
            yield piece
            piece = b""
        piece += encoded
    if piece:
        yield piece


def mailboxes(addresses: Iterable[Address]) -> str:
    """A list of recipients as a header's value."""
    return ", ".join(
        f"{_phrase(one.name)} <{one.email}>" if one_line(one.name) else one.email for one in addresses
    )


def _phrase(name: str) -> str:
    """A person's name before an address: atoms, a quoted string, or encoded words."""
    line = one_line(name)
    encoded = unstructured(line)
    if encoded != line or re.fullmatch(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~ -]+", line):
        return encoded
    return '"' + line.replace("\\", "\\\\").replace('"', '\\"') + '"'


def attachments_of(given: Iterable[Json] | None) -> list[Attachment]:
    """What a caller attached. Raises ToolError for anything but the shape that the parameter describes."""
    found = [_attachment(one) for one in given or ()]
    if len(found) > MOST_ATTACHMENTS:
        raise bad_input(f"a message takes at most {MOST_ATTACHMENTS} attachments")
    if sum(len(one.data) for one in found) > MOST_BYTES:
        raise bad_input(f"the attachments are larger than {MOST_BYTES // 1_000_000} MB together")
    return found


def _attachment(given: Json) -> Attachment:
    if not isinstance(given, dict):
        raise bad_input("an attachment is no JSON object; files and URLs are not fetched", hint=_SHAPE)
    if unknown := given.keys() - _ATTACHMENT:
        raise bad_input(f"an attachment has an unknown key: {str(min(unknown, key=str))[:40]!r}", hint=_SHAPE)
    filename, text, encoded = given.get("filename"), given.get("text"), given.get("content_base64")
    if not isinstance(filename, str) or not one_line(filename):
        raise bad_input("an attachment has no filename", hint=_SHAPE)
    if isinstance(text, str) and encoded is None:
        data = text.encode()
    elif isinstance(encoded, str) and text is None:
        data = _bytes(encoded, filename)
    else:
        raise bad_input("an attachment needs exactly one of content_base64 and text", hint=_SHAPE)
    mime_type = _mime_type(given.get("mime_type"), filename, is_text=text is not None)
    charset = "utf-8" if text is not None and mime_type.startswith("text/") else ""
    return Attachment(safe_filename(filename), mime_type, data, charset=charset)


def _bytes(encoded: str, filename: str) -> bytes:
    plain = "".join(encoded.split()).translate(str.maketrans("-_", "+/")).rstrip("=")
    try:
        return base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)
    except Garbled:
        raise bad_input(f"content_base64 of {one_line(filename)[:80]!r} is not base64", hint=_SHAPE) from None


def _mime_type(given: Json, filename: str, *, is_text: bool) -> str:
    if given is not None:
        plain = str(given).partition(";")[0].strip().lower()
        if safe_mime_type(plain) != plain:
            raise bad_input(f"{str(given)[:80]!r} is not a MIME type of a file", hint=_SHAPE)
        return plain
    guessed, encoding = guess_type(filename, strict=False)
    if guessed and encoding is None:
        return safe_mime_type(guessed)
    return "text/plain" if is_text else "application/octet-stream"


def safe_mime_type(given: str) -> str:
    """A type that a stranger wrote, or the one that says nothing. A message goes on as a file, as it is."""
    plain = given.strip().lower()
    is_file = _MIME_TYPE.fullmatch(plain) and not plain.startswith(("multipart/", "message/"))
    return plain if is_file else "application/octet-stream"


def safe_filename(name: str) -> str:
    """A file's name without its folder, on one line."""
    return (one_line(name).replace("\\", "/").rpartition("/")[2] or "attachment")[:200]
