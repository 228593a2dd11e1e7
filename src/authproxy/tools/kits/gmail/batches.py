"""The same change to many messages, by their ids or by a search: bounded, and told message by message."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from authproxy.tools.kits.gmail.mailbox import ME, objects
from authproxy.tools.kits.gmail.searching import both
from authproxy.tools.kits.in_turn import in_turn
from authproxy.tools.rows import segment
from authproxy.tools.tool import Call, Json, Kind, ToolError, bad_input

MOST_IDS = 100
MOST_FOUND = 500
"""Messages of one search that one call changes; calling again takes the next ones."""


async def triage_emails(call: Call) -> Json:
    """Messages marked, starred, or brought back, by their ids or by a search."""
    add, remove, missing = _ACTIONS[call.input["action"]]
    return {
        "action": call.input["action"],
        **await change(call, add=add, remove=remove, missing=missing),
    }


# to add, to remove, and what a search says of the messages that have not got it
_ACTIONS: dict[str, tuple[list[str], list[str], str]] = {
    "mark_read": ([], ["UNREAD"], ""),
    "mark_unread": (["UNREAD"], [], "-label:unread"),
    "star": (["STARRED"], [], "-label:starred"),
    "unstar": ([], ["STARRED"], ""),
    "unarchive": (["INBOX"], [], "-label:inbox"),
    "untrash": ([], ["TRASH"], ""),
    "mark_important": (["IMPORTANT"], [], "-label:important"),
    "mark_not_important": ([], ["IMPORTANT"], ""),
    "mark_not_spam": (["INBOX"], ["SPAM"], ""),
}


async def change(
    call: Call, *, add: Sequence[str], remove: Sequence[str], missing: str = ""
) -> dict[str, Json]:
    """Label ids added to and removed from the messages of `email_ids` or `query`.

    A search is narrowed to messages that the change does something to (`missing` says which have not got what is
    added), so that calling again goes on where this call ended. The answer counts what changed; with
    `include_full_ledger` it names each message.
    """
    ids, query = call.get("email_ids") or [], (call.get("query") or "").strip()
    if bool(ids) is bool(query):
        raise bad_input(
            "Give either email_ids or query.", hint="For example query: from:news@example.com older_than:30d"
        )
    if ids:
        return await _change_these(call, ids, add, remove)
    return await _change_found(call, query, add, remove, missing)


async def _change_these(
    call: Call, given: Sequence[str], add: Sequence[str], remove: Sequence[str]
) -> dict[str, Json]:
    """Read first: Gmail takes ids that do not exist without a word."""
    ids = list(dict.fromkeys(one.strip() for one in given))
    if len(ids) > MOST_IDS:
        raise bad_input(f"email_ids has {len(ids)} ids; one call takes at most {MOST_IDS}.")

    async def look(one: str) -> tuple[str, str]:
        found = segment(one, "email_ids")
        try:
            answer = await call.api.call("GET", f"{ME}/messages/{found}", query={"format": "minimal"})
        except ToolError as failure:
            if failure.kind is Kind.NOT_FOUND or failure.status == 400:  # 400: no id at all
                return one, "not_found"
            raise
        has = set((answer.json or {}).get("labelIds") or ())
        return str((answer.json or {}).get("id", one)), (
            "changed" if set(add) - has or set(remove) & has else "unchanged"
        )

    ledger = await in_turn(ids, look)
    await _modify(call, [one for one, what in ledger if what == "changed"], add, remove)
    missing = [one for one, what in ledger if what == "not_found"]
    if len(missing) == len(ids):
        raise ToolError(Kind.NOT_FOUND, "None of these emails exists in the mailbox.", status=404)
    return {
        "changed": sum(what == "changed" for _one, what in ledger),
        "unchanged": sum(what == "unchanged" for _one, what in ledger),
        **({"not_found": missing} if missing else {}),
        **_ledger(call, ledger),
    }


async def _change_found(
    call: Call, query: str, add: Sequence[str], remove: Sequence[str], missing: str
) -> dict[str, Json]:
    hidden = {"SPAM", "TRASH"}.intersection((*add, *remove))
    asked: dict[str, Any] = {
        "q": both(query, missing) if missing else query,
        "labelIds": list(remove) or None,
        "includeSpamTrash": True if hidden else None,
        "maxResults": MOST_FOUND,
    }
    answer = await call.api.call("GET", f"{ME}/messages", query=asked)
    ids = [str(one.get("id")) for one in objects(answer.json, "messages")]
    await _modify(call, ids, add, remove)
    more = bool((answer.json or {}).get("nextPageToken"))
    return {
        "changed": len(ids),
        **({"more": True, "note": "More emails match: call again for the next ones."} if more else {}),
        **_ledger(call, [(one, "changed") for one in ids]),
    }


async def _modify(call: Call, ids: Sequence[str], add: Sequence[str], remove: Sequence[str]) -> None:
    if ids:
        await call.api.call(
            "POST",
            f"{ME}/messages/batchModify",
            json={"ids": list(ids), "addLabelIds": list(add), "removeLabelIds": list(remove)},
        )


def _ledger(call: Call, rows: Sequence[tuple[str, str]]) -> dict[str, Json]:
    if not call.get("include_full_ledger"):
        return {}
    return {"ledger": [{"id": one, "result": what} for one, what in rows]}
