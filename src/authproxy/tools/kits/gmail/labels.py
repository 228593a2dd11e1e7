"""The labels of a mailbox: listed, made, renamed, removed, and put on messages."""

from __future__ import annotations

import re

from authproxy.tools.kits.gmail.batches import change
from authproxy.tools.kits.gmail.mailbox import ME, Labels, read_labels
from authproxy.tools.kits.plain_text import one_line
from authproxy.tools.rows import segment
from authproxy.tools.tool import Call, Json, bad_input

LONGEST_NAME = 225


def list_labels(answer: Json, _given: object) -> Json:
    """The user's own labels first, each by id and name."""
    labels = Labels(answer.get("labels") or ()) if isinstance(answer, dict) else Labels(())
    labels.all.sort(key=lambda one: (one["type"] != "user", one["name"].casefold()))
    return {"labels": labels.all}


async def create_label(call: Call) -> Json:
    """A new label; `Work/Invoices` is one below another."""
    name = _name(call.input["label_name"])
    answer = await call.api.call(
        "POST",
        f"{ME}/labels",
        json={"name": name, "labelListVisibility": "labelShow", "messageListVisibility": "show"},
    )
    made = answer.json or {}
    return {"label": {"id": made.get("id"), "name": made.get("name", name)}}


async def delete_label(call: Call) -> Json:
    """A label gone from the mailbox; the messages stay."""
    labels = await read_labels(call)
    found = _own(labels, call.input["label_name"])
    await call.api.call("DELETE", f"{ME}/labels/{segment(found, 'label_name')}")
    return {"deleted": labels.names.get(found, found)}


async def update_label(call: Call) -> Json:
    """A label under another name."""
    labels = await read_labels(call)
    found = _own(labels, call.input["current_name"])
    name = _name(call.input["new_name"])
    answer = await call.api.call(
        "PATCH", f"{ME}/labels/{segment(found, 'current_name')}", json={"name": name}
    )
    return {
        "label": {"id": found, "name": (answer.json or {}).get("name", name)},
        "renamed_from": labels.names.get(found, found),
    }


async def change_email_labels(call: Call) -> Json:
    """One label put on, or taken off, messages by their ids or by a search."""
    labels = await read_labels(call)
    found = labels.find(call.input["label_name"])
    name = labels.names.get(found, found)
    if call.input["action"] == "add":
        result = await change(call, add=[found], remove=[], missing=f"-label:{_as_searched(name)}")
    else:
        result = await change(call, add=[], remove=[found])
    return {"action": call.input["action"], "label": name, **result}


def _as_searched(name: str) -> str:
    """A label's name as Gmail's search writes it: no spaces, brackets or slashes."""
    return re.sub(r"[\s/&()|{}\"]", "-", name).lower()


def _name(given: str) -> str:
    name = one_line(given)
    if not name or len(name) > LONGEST_NAME:
        raise bad_input(f"A label's name has between 1 and {LONGEST_NAME} characters.")
    return name


def _own(labels: Labels, name: str) -> str:
    """The id of a label that the user made. Raises ToolError for Gmail's own, which nobody can change."""
    found = labels.find(name)
    if all(one["id"] != found or one["type"] != "user" for one in labels.all):
        raise bad_input(
            f"{labels.names.get(found, found)} is one of Gmail's own labels; those stay as they are."
        )
    return found
