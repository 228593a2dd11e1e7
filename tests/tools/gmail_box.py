"""Gmail's JSON as the API gives it, and what was sent to it read back."""

from __future__ import annotations

import base64
import email
from collections.abc import Mapping, Sequence
from email.message import EmailMessage
from email.policy import default
from typing import Any

from tests.tools.kit import House, Seen

ME = "/gmail/v1/users/me"


def base64url(text: str | bytes) -> str:
    """Without padding, as Gmail sends it."""
    data = text if isinstance(text, bytes) else text.encode()
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def part(
    mime_type: str, content: str | bytes | None = None, part_id: str = "0", **more: Any
) -> dict[str, Any]:
    """A leaf. `more`: filename, attachmentId, headers, size."""
    data = b"" if content is None else content if isinstance(content, bytes) else content.encode()
    body: dict[str, Any] = {"size": more.get("size", len(data))}
    if content is not None:
        body["data"] = base64url(data)
    if "attachmentId" in more:
        body["attachmentId"] = more["attachmentId"]
    return {
        "partId": part_id,
        "mimeType": mime_type,
        "filename": more.get("filename", ""),
        "headers": [{"name": n, "value": v} for n, v in more.get("headers", {}).items()],
        "body": body,
    }


def message(
    message_id: str = "m1",
    *,
    parts: Sequence[Mapping[str, Any]] = (),
    text: str | None = "Hi Alice,\r\n\r\nshall we meet?\r\n",
    labels: Sequence[str] = ("INBOX", "UNREAD"),
    thread: str = "t1",
    stamp: int = 1_772_359_200,
    snippet: str = "",
    **headers: str,
) -> dict[str, Any]:
    """A message; headers by their names with `_` for `-`."""
    given = {
        "From": "Bob Builder <bob@build.example>",
        "To": "Alice <alice@example.com>",
        "Subject": "Plans",
        "Message-ID": f"<{message_id}@build.example>",
        **{name.replace("_", "-"): value for name, value in headers.items()},
    }
    listed = [{"name": name, "value": value} for name, value in given.items() if value]
    if parts:
        payload = {"mimeType": "multipart/mixed", "partId": "", "parts": list(parts), "body": {"size": 0}}
    else:
        payload = part("text/plain", text, "")
    return {
        "id": message_id,
        "threadId": thread,
        "labelIds": list(labels),
        "snippet": snippet,
        "internalDate": str(stamp * 1000),
        "payload": {**payload, "headers": listed},
    }


def holds(house: House, *messages: Mapping[str, Any]) -> None:
    """The upstream has these messages, one by one."""
    for one in messages:
        house.answer("GET", f"{ME}/messages/{one['id']}", dict(one))


def raw_of(seen: Seen) -> bytes:
    """The message in a request that sends one or keeps it as a draft."""
    body = seen.json
    raw = body["message"]["raw"] if "message" in body else body["raw"]
    return base64.urlsafe_b64decode(raw + "=" * (-len(raw) % 4))


def mail_of(seen: Seen) -> EmailMessage:
    """The same, read by somebody else's parser."""
    return parsed(raw_of(seen))


def parsed(raw: bytes) -> EmailMessage:
    """Bytes as the standard library reads them."""
    read = email.message_from_bytes(raw, policy=default)
    assert isinstance(read, EmailMessage)
    return read


def text_in(mail: EmailMessage, kind: str = "plain") -> str:
    """The text that a reader is shown."""
    body = mail.get_body((kind,))
    assert body is not None
    return str(body.get_content()).replace("\r\n", "\n")
