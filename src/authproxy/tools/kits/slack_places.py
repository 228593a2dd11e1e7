"""Slack's conversations: found by id, by channel name, or by the people in them."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from typing import Any

from authproxy.tools.kits import slack_people, slack_web
from authproxy.tools.tool import Call, Json, Kind, ToolError, bad_input

TYPES = {
    "public_channel": "public_channel",
    "private_channel": "private_channel",
    "multi_person_direct_message": "mpim",
    "direct_message": "im",
}
MOST_IN_A_GROUP = 8  # people in a group's direct messages, besides the user
_MOST_GROUPS = 20

_CONVERSATION = re.compile(r"[CDG][A-Z0-9]{2,30}")
_GROUP_NAME = re.compile(r"mpdm-(.+)-\d+")


def shape(conversation: dict[str, Any]) -> Json:
    """A conversation in plain words."""
    told = {
        "id": conversation.get("id"),
        "name": None if conversation.get("is_im") else conversation.get("name"),
        "type": _type(conversation),
        "user_id": conversation.get("user") if conversation.get("is_im") else None,
        "is_member": conversation.get("is_member"),
        "is_archived": conversation.get("is_archived") or None,
        "is_external": conversation.get("is_ext_shared") or None,
        "member_count": conversation.get("num_members"),
        "topic": _value(conversation.get("topic")),
        "purpose": _value(conversation.get("purpose")),
        "created_by": conversation.get("creator"),
    }
    return {key: value for key, value in told.items() if value not in (None, "")}


def _type(conversation: dict[str, Any]) -> str:
    if conversation.get("is_im"):
        return "direct_message"
    if conversation.get("is_mpim"):
        return "multi_person_direct_message"
    return "private_channel" if conversation.get("is_private") else "public_channel"


def _value(told: object) -> str | None:
    value = told.get("value") if isinstance(told, dict) else None
    return value if isinstance(value, str) else None


async def conversation(
    call: Call, *, key: str = "conversation_id", by_people: bool = True, opening: bool = False
) -> str:
    """The id of the conversation that the arguments name: by `key`, by channel_name, or by people.

    `by_people`: whether the tool's people say which conversation it is. `opening`: direct messages that there are not
    yet are opened; without it they are only looked for, because a tool that reads changes nothing.
    """
    identifier, name = (str(call.get(one) or "").strip() for one in (key, "channel_name"))
    people = by_people and slack_people.named(call)
    if bool(identifier) + bool(name) + people != 1:
        ways = f"{key}, channel_name, or people" if by_people else f"{key} or channel_name"
        raise bad_input(f"Name the conversation in exactly one way: {ways}.")
    if identifier:
        return await _by_id(call, identifier, key, opening)
    if name:
        return await _by_name(call, name)
    return await _by_people(call, await slack_people.everybody(call), opening)


async def _by_id(call: Call, identifier: str, key: str, opening: bool) -> str:
    if _CONVERSATION.fullmatch(identifier):
        return identifier
    if opening and slack_people.is_user_id(identifier):
        return await _by_people(call, [identifier], opening)
    raise bad_input(
        f"{identifier[:80]!r} is no id of a Slack conversation (C0123ABCD).",
        hint=f"Give a channel's name in channel_name instead of {key}.",
    )


async def _listed(call: Call, types: str) -> AsyncIterator[dict[str, Any]]:
    cursor: str | None = None
    for _ in range(slack_web.MOST_PAGES):
        asked = cursor
        said = await slack_web.read(
            call,
            "conversations.list",
            types=types,
            exclude_archived=True,
            limit=slack_web.PAGE,
            cursor=asked,
        )
        for one in slack_web.things(said, "channels"):
            if isinstance(one, dict) and isinstance(one.get("id"), str):
                yield one
        cursor = slack_web.next_cursor(said)
        if cursor is None or cursor == asked:
            return


async def _by_name(call: Call, name: str) -> str:
    if _CONVERSATION.fullmatch(name):  # a channel's name has no capitals: this is an id in the wrong place
        return name
    wanted = slack_people.folded(name)
    names = []
    async for one in _listed(call, "public_channel,private_channel"):
        told = str(one.get("name", ""))
        if slack_people.folded(told) == wanted:
            return str(one["id"])
        names.append(told)
    near = slack_people.near(name, names)
    raise ToolError(
        Kind.RETRY,
        f"There is no channel {name[:80]!r} among the {len(names)} that this user can see and that are not archived.",
        hint=f"Channels with names like it: {', '.join(near)}." if near else "ListConversations shows them.",
        can_retry=True,
    )


async def _by_people(call: Call, ids: list[str], opening: bool) -> str:
    if len(ids) > MOST_IN_A_GROUP:
        raise bad_input(f"Direct messages go to at most {MOST_IN_A_GROUP} people: use a channel.")
    if not opening:
        return await _existing(call, ids)
    try:
        return await _open(call, ids)
    except slack_web.SlackRefusal as refusal:
        # Opening a group takes a scope of its own; one that is there already can be written to without it.
        if refusal.error != "missing_scope" or len(ids) < 2:
            raise
        try:
            return await _existing(call, ids)
        except ToolError:
            raise refusal from None


async def _open(call: Call, ids: list[str]) -> str:
    opened = (await slack_web.write(call, "conversations.open", users=",".join(ids))).get("channel")
    if not isinstance(opened, dict) or not isinstance(opened.get("id"), str):
        raise ToolError(Kind.BAD_OUTPUT, "Slack did not tell which conversation it opened.")
    return str(opened["id"])


async def _existing(call: Call, ids: list[str]) -> str:
    """The direct messages with just these people, where there are any."""
    if len(ids) == 1:
        async for one in _listed(call, "im"):
            if one.get("user") == ids[0]:
                return str(one["id"])
    else:
        me = (await slack_web.read(call, "auth.test")).get("user_id")
        found = await _group(call, {*ids, str(me)})
        if found is not None:
            return found
    raise ToolError(
        Kind.NOT_FOUND,
        "This user has no direct messages with just these people yet. SendMessage opens them.",
    )


async def _group(call: Call, people: set[str]) -> str | None:
    looked = 0
    async for one in _listed(call, "mpim"):
        if not _may_hold(one, len(people)):
            continue
        if looked == _MOST_GROUPS:
            raise ToolError(
                Kind.RETRY,
                "This user is in too many groups of that size to look through: give the conversation_id.",
                hint="ListConversations with conversation_types [multi_person_direct_message] shows them.",
                can_retry=True,
            )
        looked += 1
        members = await slack_web.read(call, "conversations.members", channel=one["id"], limit=100)
        if set(slack_web.things(members, "members")) == people:
            return str(one["id"])
    return None


def _may_hold(group: dict[str, Any], count: int) -> bool:
    """Whether a group can have so many members: its name tells them, so that not each has to be asked for."""
    if isinstance(group.get("num_members"), int):
        return bool(group["num_members"] == count)
    name = _GROUP_NAME.fullmatch(str(group.get("name", "")))
    return name is None or len(name[1].split("--")) == count
