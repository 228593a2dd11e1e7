"""Owners, as HubSpot calls its users, and who the current one is."""

from __future__ import annotations

from typing import Any, Final

from authproxy.tools.kits.hubspot.asking import after, get, refused, results
from authproxy.tools.kits.hubspot.shaping import cut, number
from authproxy.tools.kits.hubspot.times import ACCOUNT
from authproxy.tools.tool import Call, Json, Kind, ToolError, bad_input

OWNERS: Final = "/crm/v3/owners"
PAGE: Final = 500
PAGES: Final = 10
CHOICES: Final = 10


async def get_all_users(call: Call) -> Json:
    """Every active owner of the account."""
    owners, more = await _all(call)
    answer: dict[str, Json] = {"users": [shown(owner) for owner in owners], "count": len(owners)}
    if more:
        answer["note"] = f"Only the first {len(owners)} users are listed."
    return answer


async def get_user_by_id(call: Call) -> Json:
    """An owner by owner id, also a deactivated one; else by user id."""
    one = int(call.input["owner_id"])
    tries: tuple[dict[str, Json], ...] = ({}, {"archived": True}, {"idProperty": "userId"})
    for query in tries:
        try:
            return {"user": shown(await get(call, f"{OWNERS}/{one}", query))}
        except ToolError as error:
            if error.status != 404:
                raise
    raise ToolError(
        Kind.NOT_FOUND,
        f"There is no owner or user with the id {one} in this HubSpot account.",
        hint="Hubspot.GetAllUsers lists them.",
        status=404,
    )


async def who_am_i(call: Call) -> Json:
    """The account, and the owner whom the current user is, as far as it can be known."""
    details = await get(call, ACCOUNT)
    account = {
        "portal_id": details.get("portalId"),
        "account_type": details.get("accountType"),
        "time_zone": details.get("timeZone"),
        "utc_offset": details.get("utcOffset"),
        "currency": details.get("companyCurrency"),
        "ui_domain": details.get("uiDomain"),
        "data_hosting_location": details.get("dataHostingLocation"),
    }
    owner = await _known(call)
    answer: dict[str, Json] = {
        "account": {key: value for key, value in account.items() if value not in (None, "")},
        "user": shown(owner) if owner else None,
    }
    if owner is None:
        answer["note"] = (
            "HubSpot does not tell an app which of its users a connection belongs to, and none could be found by the "
            "name under which the user is known here. Hubspot.GetAllUsers lists the users."
        )
    return answer


async def current_owner(call: Call) -> dict[str, Any] | None:
    """The owner with the current user's e-mail address, where the user is known by one.

    HubSpot has one endpoint that names a token's user, and it takes the token in its URL, where logs keep it.
    """
    if "@" not in call.user:
        return None
    return await _by_email(call, call.user)


async def current_owner_id(call: Call) -> str | None:
    """Whom an activity is assigned to; None where it is not known, or owners may not be read."""
    owner = await _known(call)
    return str(owner["id"]) if owner and owner.get("id") else None


async def _known(call: Call) -> dict[str, Any] | None:
    try:
        return await current_owner(call)
    except ToolError as error:
        if not refused(error):
            raise
        return None


async def owner_id(call: Call, wanted: str, name: str) -> str:
    """The owner id that argument `name` means: an id, an e-mail address, a name, or `me`.

    Raises RETRY with the choices.
    """
    wanted = wanted.strip()
    if wanted.isascii() and wanted.isdigit():
        return wanted
    if not wanted:
        raise bad_input(f"{name} is empty: give an owner's id, e-mail address or name.")
    owner: dict[str, Any] | None
    if wanted.lower() == "me":
        owner = await current_owner(call)
    elif "@" in wanted:
        owner = await _by_email(call, wanted)
    else:
        return await _by_name(call, wanted, name)
    if owner is None:
        raise _unknown(wanted, name)
    return str(owner.get("id"))


async def _by_email(call: Call, email: str) -> dict[str, Any] | None:
    found = results(await get(call, OWNERS, {"email": email, "limit": PAGE}))
    return next(
        (one for one in found if str(one.get("email", "")).casefold() == email.strip().casefold()), None
    )


async def _by_name(call: Call, wanted: str, name: str) -> str:
    owners, _ = await _all(call)
    sought = wanted.casefold()
    exact = [one for one in owners if sought == _name(one).casefold()]
    found = exact or [one for one in owners if sought in _name(one).casefold()]
    if len(found) == 1:
        return str(found[0].get("id"))
    if not found:
        raise _unknown(wanted, name)
    choices = "; ".join(f"{one.get('id')} = {_name(one)}, {one.get('email')}" for one in found[:CHOICES])
    raise ToolError(
        Kind.RETRY,
        f"{name}: several users are called {cut(wanted, 60)}.",
        hint=f"Owners: {choices}",
        can_retry=True,
    )


def _unknown(wanted: str, name: str) -> ToolError:
    return ToolError(
        Kind.RETRY,
        f"{name}: no user of this HubSpot account is {cut(wanted, 60)}.",
        hint="Hubspot.GetAllUsers lists the users with their ids and e-mail addresses.",
        can_retry=True,
    )


async def _all(call: Call) -> tuple[list[dict[str, Any]], bool]:
    owners: list[dict[str, Any]] = []
    token: str | None = None
    for _ in range(PAGES):
        found = await get(call, OWNERS, {"limit": PAGE, "after": token})
        owners += results(found)
        token = after(found)
        if token is None:
            return owners, False
    return owners, True


def shown(owner: dict[str, Any]) -> dict[str, Json]:
    """An owner as an answer has it."""
    answer = {
        "id": number(owner.get("id")),
        "user_id": owner.get("userId") or owner.get("userIdIncludingInactive"),
        "name": _name(owner),
        "email": owner.get("email"),
        "type": owner.get("type"),
        "teams": [team.get("name") for team in owner.get("teams") or () if isinstance(team, dict)],
    }
    shown = {key: value for key, value in answer.items() if value}
    shown["active"] = not owner.get("archived")
    return shown


def _name(owner: dict[str, Any]) -> str:
    return " ".join(str(owner[key]) for key in ("firstName", "lastName") if owner.get(key))
