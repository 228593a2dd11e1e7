"""Whose mailbox this is."""

from __future__ import annotations

from authproxy.tools.kits.gmail.mailbox import ME, objects
from authproxy.tools.kits.google_person import read_person
from authproxy.tools.tool import Call, Json, ToolError


async def who_am_i(call: Call) -> Json:
    """The address, the name, how much mail there is, and the other addresses that the user sends from."""
    profile, failure = await _ask(call, f"{ME}/profile")
    settings, _failure = await _ask(call, f"{ME}/settings/sendAs")
    senders = objects(settings, "sendAs")
    senders.sort(key=lambda one: (one.get("isPrimary") is not True, one.get("isDefault") is not True))
    email = (profile or {}).get("emailAddress") or (senders[0].get("sendAsEmail") if senders else None)
    if email is None and failure is not None:
        raise failure
    person = await read_person(call)
    aliases = [one.get("sendAsEmail") for one in senders if one.get("sendAsEmail") not in (None, email)]
    return {
        "email": email,
        "name": person.get("name") or (senders[0].get("displayName") if senders else None) or None,
        **({"picture": person["picture"]} if person.get("picture") else {}),
        **({"also_sends_as": aliases} if aliases else {}),
        **({"messages": profile["messagesTotal"]} if profile and "messagesTotal" in profile else {}),
        **({"threads": profile["threadsTotal"]} if profile and "threadsTotal" in profile else {}),
    }


async def _ask(call: Call, path: str) -> tuple[Json, ToolError | None]:
    """The answer, or why there is none: each of the two knows the address."""
    try:
        return (await call.api.call("GET", path)).json, None
    except ToolError as failure:
        return None, failure
