"""The toolkit Slack: reads and writes conversations as the user."""

from __future__ import annotations

from typing import Any

from authproxy.tools.kits import slack_messages, slack_people, slack_places, slack_web
from authproxy.tools.kits.slack_web import error_words, read_failure
from authproxy.tools.tool import Call, Json, ToolError, bad_input

__all__ = [
    "error_words",
    "get_conversation_metadata",
    "get_messages",
    "get_thread_messages",
    "get_users_in_conversation",
    "get_users_info",
    "invite_users_to_channel",
    "list_conversations",
    "list_users",
    "read_failure",
    "send_message",
    "who_am_i",
]

_MOST_LISTED = 500
_MOST_MESSAGES = 100
_MOST_INVITED = 100
_LONGEST_MESSAGE = 40_000  # Slack cuts off what is longer, without a word
_SLACKBOT = "USLACKBOT"


# Conversations


async def list_conversations(call: Call) -> Json:
    """The conversations that the user can see."""
    types = call.get("conversation_types") or list(slack_places.TYPES)
    found, cursor = await slack_web.collect(
        call,
        "conversations.list",
        "channels",
        limit=slack_web.limit_of(call, _MOST_LISTED),
        cursor=call.get("next_cursor"),
        types=",".join(slack_places.TYPES[one] for one in dict.fromkeys(types)),
        exclude_archived=True,
    )
    shaped = [slack_places.shape(one) for one in found if isinstance(one, dict)]
    return _page({"conversations": shaped}, cursor)


async def get_conversation_metadata(call: Call) -> Json:
    """One conversation."""
    channel = await slack_places.conversation(call)
    said = await slack_web.read(call, "conversations.info", channel=channel, include_num_members=True)
    found = said.get("channel")
    shaped = slack_places.shape(found if isinstance(found, dict) else {"id": channel})
    if "user_id" in shaped:
        names = await slack_people.names(call, [shaped["user_id"]])
        shaped |= {"user_name": names[shaped["user_id"]]} if names else {}
    return shaped


async def get_users_in_conversation(call: Call) -> Json:
    """Who is in a conversation."""
    limit = slack_web.limit_of(call, _MOST_LISTED)
    channel = await slack_places.conversation(call, by_people=False)
    ids, cursor = await slack_web.collect(
        call, "conversations.members", "members", limit=limit, cursor=call.get("next_cursor"), channel=channel
    )
    names = await slack_people.names(call, ids)
    members = [{"id": one} | ({"name": names[one]} if one in names else {}) for one in ids]
    return _page({"conversation_id": channel, "users": members}, cursor)


async def invite_users_to_channel(call: Call) -> Json:
    """Bring people into a channel; who is in it already is no failure."""
    if not slack_people.named(call):
        raise bad_input("Name at least one person, in user_ids, usernames or emails.")
    channel = await slack_places.conversation(call, key="channel_id", by_people=False)
    asked = await slack_people.everybody(call, most=_MOST_INVITED)
    refused: dict[str, str] = {}
    first: ToolError | None = None
    try:
        await _invite(call, channel, asked)
    except slack_web.SlackRefusal as refusal:
        # Slack invites nobody where one cannot be: the others are asked for again, without those.
        refused = dict(refusal.each) or ({asked[0]: refusal.error} if len(asked) == 1 else {})
        first = refusal
        if not refused:
            raise
    invited = [one for one in asked if one not in refused]
    if refused and invited:
        await _invite(call, channel, invited)
    there = [one for one in asked if refused.get(one) in ("already_in_channel", "cant_invite_self")]
    failed = [
        {"user_id": one, "reason": refused[one]} for one in asked if one in refused and one not in there
    ]
    if first is not None and not invited and not there:
        raise first
    told = {"conversation_id": channel, "invited": invited, "already_members": there, "failed": failed}
    return {key: value for key, value in told.items() if value or key == "invited"}


async def _invite(call: Call, channel: str, users: list[str]) -> None:
    await slack_web.write(call, "conversations.invite", channel=channel, users=",".join(users))


# Messages


async def get_messages(call: Call) -> Json:
    """A conversation's messages, the newest first."""
    return await _messages(call, "conversations.history", {})


async def get_thread_messages(call: Call) -> Json:
    """A thread's messages, its first one first."""
    return await _messages(
        call, "conversations.replies", {"ts": slack_messages.thread(call.input["thread_ts"])}
    )


async def _messages(call: Call, method: str, more: dict[str, str]) -> Json:
    limit = slack_web.limit_of(call, _MOST_MESSAGES)
    oldest, latest = slack_messages.window(call)
    channel = await slack_places.conversation(call)
    # One request: Slack allows many applications just one of these a minute.
    said = await slack_web.read(
        call,
        method,
        channel=channel,
        oldest=oldest,
        latest=latest,
        limit=limit,
        cursor=call.get("next_cursor"),
        **more,
    )
    messages: list[dict[str, Any]] = [
        one for one in slack_web.things(said, "messages") if isinstance(one, dict)
    ]
    names = await slack_people.names(call, slack_messages.people_in(messages))
    shaped = [slack_messages.shape(one, names) for one in messages]
    return _page({"conversation_id": channel, "messages": shaped}, slack_web.next_cursor(said))


async def send_message(call: Call) -> Json:
    """Post a message, at top level or into a thread."""
    message, stamp, broadcast = call.input["message"], call.get("thread_ts"), call.get("reply_broadcast")
    if not message.strip():
        raise bad_input("The message is empty.")
    if len(message) > _LONGEST_MESSAGE:
        raise bad_input(f"Slack takes messages of at most {_LONGEST_MESSAGE} characters: split this one.")
    if broadcast and not stamp:
        raise bad_input("reply_broadcast is for replies: give thread_ts too.")
    thread = slack_messages.thread(stamp) if stamp else None
    channel = await slack_places.conversation(call, opening=True)
    said = await slack_web.write(
        call,
        "chat.postMessage",
        channel=channel,
        text=message,
        thread_ts=thread,
        reply_broadcast=True if broadcast else None,
    )
    told = {"sent": True, "conversation_id": said.get("channel") or channel, "ts": said.get("ts")}
    return told | ({"thread_ts": thread} if thread else {})


# People


async def list_users(call: Call) -> Json:
    """The workspace's users, without those who have left."""
    found, cursor = await slack_web.collect(
        call,
        "users.list",
        "members",
        limit=slack_web.limit_of(call, _MOST_LISTED),
        cursor=call.get("next_cursor"),
    )
    people = [one for one in found if isinstance(one, dict) and not one.get("deleted")]
    if call.get("exclude_bots", True):
        people = [one for one in people if not one.get("is_bot") and one.get("id") != _SLACKBOT]
    return _page({"users": [slack_people.shape(one) for one in people]}, cursor)


async def get_users_info(call: Call) -> Json:
    """The users that the arguments name; who is not found is told, with near names."""
    if not slack_people.named(call):
        raise bad_input("Name at least one person, in user_ids, usernames or emails.")
    found = await slack_people.find(call, in_full=True)
    if not found.users:
        raise slack_people.nobody(found)
    told: dict[str, Json] = {"users": [slack_people.shape(one) for one in found.users]}
    if found.missing:
        told["not_found"] = [
            {"asked_for": asked} | ({"near": near} if near else {}) for asked, near in found.missing.items()
        ]
    return told


async def who_am_i(call: Call) -> Json:
    """As whom the tools act in Slack."""
    said = await slack_web.read(call, "auth.test")
    user: dict[str, Any] = {"id": said.get("user_id"), "name": said.get("user")}
    if isinstance(user["id"], str):
        told = (await slack_web.read(call, "users.info", user=user["id"])).get("user")
        user = told if isinstance(told, dict) else user
    workspace = {"id": said.get("team_id"), "name": said.get("team"), "url": said.get("url")}
    return slack_people.shape(user) | {
        "workspace": {key: value for key, value in workspace.items() if value},
    }


def _page(told: dict[str, Json], cursor: str | None) -> Json:
    return told | ({"next_cursor": cursor} if cursor else {})
