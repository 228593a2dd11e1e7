"""Slack's users: found by id, user name or e-mail address, and told in the words that a model needs."""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from typing import Any

from authproxy.tools.kits import slack_web
from authproxy.tools.tool import Call, Json, Kind, ToolError, bad_input

MOST_PEOPLE = 50
MOST_NAMES = 15  # beyond it the directory is read instead of asking for each
_NAME_PAGES = 3
_NEAR = 5
_LONGEST = 80  # characters of a name that are compared
_COMPARED = 1000

_USER = re.compile(r"[UW][A-Z0-9]{2,30}")
_NOBODY = ("users_not_found", "user_not_found", "user_not_visible")


@dataclass(slots=True)
class Found:
    """Who was asked for: the users as Slack told them (or just their id), and who there is not, with near names."""

    users: list[dict[str, Any]] = field(default_factory=list)
    missing: dict[str, list[str]] = field(default_factory=dict)

    def add(self, user: dict[str, Any]) -> None:
        if all(known.get("id") != user.get("id") for known in self.users):
            self.users.append(user)


def is_user_id(text: str) -> bool:
    """Whether this is written as Slack's ids of users are."""
    return _USER.fullmatch(text) is not None


def folded(name: str) -> str:
    """A name as it is compared: without @ or #, width, case and surrounding blanks."""
    return unicodedata.normalize("NFKC", name).strip().lstrip("@#").strip().casefold()


def near(wanted: str, names: Iterable[str]) -> list[str]:
    """The few names that look most like `wanted`."""
    known = {folded(name)[:_LONGEST]: name for name in names if name}
    asked = folded(wanted)[:_LONGEST]
    if not asked:
        return []
    # Comparing costs time on the event loop, so of a large workspace only the likelier names are compared.
    likely = [name for name in known if name[:1] == asked[:1] or asked in name][:_COMPARED]
    close = difflib.get_close_matches(asked, likely, n=_NEAR, cutoff=0.6)
    within = sorted(name for name in likely if asked in name and name not in close)
    return [known[name] for name in (*close, *within)][:_NEAR]


def shape(user: dict[str, Any]) -> Json:
    """A user in plain words."""
    profile = user.get("profile")
    profile = profile if isinstance(profile, dict) else {}
    told = {
        "id": user.get("id"),
        "username": user.get("name"),
        "name": user.get("real_name") or profile.get("real_name"),
        "display_name": profile.get("display_name"),
        "email": profile.get("email"),
        "title": profile.get("title"),
        "phone": profile.get("phone"),
        "status": profile.get("status_text"),
        "time_zone": user.get("tz"),
        "is_bot": user.get("is_bot"),
        "is_admin": user.get("is_admin"),
        "is_deactivated": user.get("deleted"),
    }
    return {key: value for key, value in told.items() if value not in (None, "", False)}


def name_of(user: dict[str, Any]) -> str | None:
    """What people call this user."""
    told = shape(user)
    name = told.get("display_name") or told.get("name") or told.get("username")
    return name if isinstance(name, str) else None


async def directory(call: Call, pages: int = slack_web.MOST_PAGES) -> AsyncIterator[dict[str, Any]]:
    """The workspace's users, over a bounded number of pages."""
    cursor: str | None = None
    for _ in range(pages):
        asked = cursor
        said = await slack_web.read(call, "users.list", limit=slack_web.PAGE, cursor=asked)
        for user in slack_web.things(said, "members"):
            if isinstance(user, dict) and isinstance(user.get("id"), str):
                yield user
        cursor = slack_web.next_cursor(said)
        if cursor is None or cursor == asked:
            return


async def find(call: Call, *, in_full: bool, most: int = MOST_PEOPLE) -> Found:
    """Whom user_ids, usernames and emails name. `in_full`: with all that Slack tells of them, also for ids."""
    ids, names, emails = (_given(call, key) for key in ("user_ids", "usernames", "emails"))
    if len(ids) + len(names) + len(emails) > most:
        raise bad_input(f"That are too many people: at most {most} in one call.")
    found = Found()
    for identifier in ids:
        await _by_id(call, identifier, found, in_full)
    for email in emails:
        await _by_email(call, email, found)
    if names:
        await _by_names(call, names, found)
    return found


async def everybody(call: Call, *, most: int = MOST_PEOPLE) -> list[str]:
    """The ids of all whom the arguments name; where somebody is missing nobody is taken."""
    found = await find(call, in_full=False, most=most)
    if found.missing:
        raise nobody(found)
    return [user["id"] for user in found.users]


def named(call: Call) -> bool:
    """Whether any person is named."""
    return any(_given(call, key) for key in ("user_ids", "usernames", "emails"))


def nobody(found: Found) -> ToolError:
    """The failure of people who were not found, with those who might be meant."""
    told = ", ".join(repr(asked[:80]) for asked in found.missing)
    choices = sorted({name for close in found.missing.values() for name in close})
    hint = f"Users with names like these: {', '.join(choices[:_NEAR])}." if choices else None
    return ToolError(Kind.RETRY, f"Not found in this Slack workspace: {told}.", hint=hint, can_retry=True)


def _given(call: Call, key: str) -> list[str]:
    return list(dict.fromkeys(text.strip() for text in call.get(key) or () if text.strip()))


async def _by_id(call: Call, identifier: str, found: Found, in_full: bool) -> None:
    if not is_user_id(identifier):
        raise bad_input(
            f"{identifier[:80]!r} is no id of a Slack user (U0123ABCD).",
            hint="Give names in usernames, e-mail addresses in emails.",
        )
    if not in_full:
        found.add({"id": identifier})
        return
    user = await _asked(call, "users.info", user=identifier)
    if user is None:
        found.missing[identifier] = []
    else:
        found.add(user)


async def _by_email(call: Call, email: str, found: Found) -> None:
    user = await _asked(call, "users.lookupByEmail", email=email)
    if user is None:
        found.missing[email] = []
    else:
        found.add(user)


async def _asked(call: Call, method: str, **arguments: str) -> dict[str, Any] | None:
    try:
        user = (await slack_web.read(call, method, **arguments)).get("user")
    except slack_web.SlackRefusal as refusal:
        if refusal.error not in _NOBODY:
            raise
        return None
    return user if isinstance(user, dict) and isinstance(user.get("id"), str) else None


async def _by_names(call: Call, names: list[str], found: Found) -> None:
    """By user name, which is unique; else by display name or full name, where just one person has it."""
    wanted = {folded(name): name for name in names}
    exact: dict[str, dict[str, Any]] = {}
    alike: dict[str, list[dict[str, Any]]] = {name: [] for name in wanted}
    called: list[str] = []
    async for user in directory(call):
        if user.get("deleted"):
            continue
        told = shape(user)
        username = folded(str(told.get("username", "")))
        called += [str(told[key]) for key in ("username", "display_name", "name") if told.get(key)]
        if username in wanted:
            exact[username] = user
            if len(exact) == len(wanted):
                break
        for name in {folded(str(told.get(key, ""))) for key in ("display_name", "name")} & alike.keys():
            alike[name].append(user)
    for name, asked in wanted.items():
        meant = [exact[name]] if name in exact else alike[name]
        if len(meant) > 1:
            raise _ambiguous(asked, meant)
        if meant:
            found.add(meant[0])
        else:
            found.missing[asked] = near(asked, called)


def _ambiguous(asked: str, meant: list[dict[str, Any]]) -> ToolError:
    choices = ", ".join(f"{user.get('name')} ({user['id']})" for user in meant[:_NEAR])
    return ToolError(
        Kind.RETRY,
        f"{len(meant)} people are called {asked[:80]!r}: give the id of the one that is meant.",
        hint=f"User names and ids: {choices}.",
        can_retry=True,
    )


async def names(call: Call, ids: Iterable[str]) -> dict[str, str]:
    """What the users are called, as far as Slack tells: a name is a nicety, so its lack is no failure."""
    wanted = dict.fromkeys(one for one in ids if is_user_id(one))
    told: dict[str, str] = {}
    try:
        async for user in _users(call, list(wanted)):
            name = name_of(user)
            if name and user["id"] in wanted:
                told[user["id"]] = name
    except ToolError:  # no scope, or slowed down: the ids speak for themselves
        return told
    return told


async def _users(call: Call, ids: list[str]) -> AsyncIterator[dict[str, Any]]:
    if len(ids) > MOST_NAMES:
        async for user in directory(call, _NAME_PAGES):
            yield user
        return
    for identifier in ids:
        found = await _asked(call, "users.info", user=identifier)
        if found is not None:
            yield found
