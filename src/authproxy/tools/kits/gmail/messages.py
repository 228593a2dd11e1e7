"""One message: read whole, its files by name, and what is told of a change to it."""

from __future__ import annotations

from authproxy.tools.kits.gmail.mailbox import ME, message_id, names_for, read_message
from authproxy.tools.kits.gmail.reading import attachments_in, headers_of, parts_of, shaped
from authproxy.tools.tool import Call, Input, Json


async def get_email(call: Call) -> Json:
    """A message with its body as text."""
    message = await read_message(call, "email_id")
    shape = await shaped(message, await names_for(call, [message]))
    if said := headers_of(message).get("message-id"):
        shape["message_id_header"] = said
    return shape


async def list_email_attachment_metadata(call: Call) -> Json:
    """What is attached to a message, without its content."""
    found = await message_id(call, "email_id", call.input["email_id"])
    answer = await call.api.call("GET", f"{ME}/messages/{found}", query={"format": "full"})
    files = attachments_in(parts_of(answer.json or {}), ids=True)
    return {"email_id": found, "count": len(files), "attachments": files}


def archived(answer: Json, given: Input) -> Json:
    """Out of the inbox."""
    return {"archived": True, **_which(answer, given)}


def trashed(answer: Json, given: Input) -> Json:
    """In the trash."""
    return {"trashed": True, **_which(answer, given)}


def reported_spam(answer: Json, given: Input) -> Json:
    """Marked as spam."""
    return {"reported_spam": True, **_which(answer, given)}


def _which(answer: Json, given: Input) -> dict[str, Json]:
    said = answer if isinstance(answer, dict) else {}
    return {
        "email_id": said.get("id", given["email_id"]),
        "thread_id": said.get("threadId"),
        "labels": said.get("labelIds") or [],
    }
