"""The toolkit Slack: what each tool sends, what it makes of the answers, and what it says where Slack refuses."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl

import pytest

from authproxy.tools.tool import Json, Kind
from tests.tools.kit import House, Reply, Seen

NOW = 1_700_000_000  # 2023-11-14T22:13:20Z


def user(identifier: str, name: str, real: str, **more: Any) -> dict[str, Any]:
    return {
        "id": identifier,
        "name": name,
        "real_name": real,
        "tz": "Europe/Vienna",
        "deleted": False,
        "is_bot": False,
        "profile": {"display_name": "", "real_name": real, "email": f"{name}@example.com"},
        **more,
    }


ALICE = user("U0ALICE", "alice", "Alice Ng")
BOB = user("U0BOB", "bob", "Bob Ray")
ZOE = user("U0ZOE", "zoe", "Zoë Ünal")
USERS = [
    ALICE,
    BOB,
    ZOE,
    user("U0BOB2", "robert", "Bob Ray"),
    user("U0GONE", "gone", "Gone Away", deleted=True),
    user("USLACKBOT", "slackbot", "Slackbot"),
    user("U0BOT", "deployer", "Deployer", is_bot=True),
]
GENERAL = {
    "id": "C0GENERAL",
    "name": "general",
    "is_channel": True,
    "is_private": False,
    "is_member": True,
    "num_members": 3,
    "topic": {"value": "Everything"},
    "purpose": {"value": ""},
    "creator": "U0ALICE",
}
CAFE = {"id": "C0CAFE", "name": "café-über", "is_private": True, "is_member": True}
DIRECT = {"id": "D0BOB", "is_im": True, "user": "U0BOB"}
GROUP = {"id": "G0TRIO", "is_mpim": True, "name": "mpdm-alice--bob--zoe-1"}
PAIR = {"id": "G0PAIR", "is_mpim": True, "name": "mpdm-alice--bob--zoe--robert-1"}


def arguments(seen: Seen) -> dict[str, Any]:
    """A call's arguments, however they were sent."""
    if seen.headers["content-type"].startswith("application/json"):
        assert isinstance(seen.json, dict)
        return seen.json
    return dict(parse_qsl(seen.body.decode()))


def sent(house: House) -> list[tuple[str, dict[str, Any]]]:
    """The calls that Slack got, by method and arguments."""
    assert all(seen.method == "POST" and seen.path.startswith("/api/") for seen in house.seen)
    return [(seen.path.removeprefix("/api/"), arguments(seen)) for seen in house.seen]


def refusal(error: str, **more: Any) -> Json:
    return {"ok": False, "error": error, **more}


def info(seen: Seen) -> Json:
    found = [one for one in USERS if one["id"] == arguments(seen)["user"]]
    return {"ok": True, "user": found[0]} if found else refusal("user_not_found")


def by_email(seen: Seen) -> Json:
    found = [one for one in USERS if one["profile"]["email"] == arguments(seen)["email"]]
    return {"ok": True, "user": found[0]} if found else refusal("users_not_found")


def conversations(seen: Seen) -> Json:
    kinds = {"public_channel": [GENERAL], "private_channel": [CAFE], "im": [DIRECT], "mpim": [PAIR, GROUP]}
    asked = arguments(seen)["types"].split(",")
    return {"ok": True, "channels": [one for kind in asked for one in kinds[kind]]}


def pages(key: str, *parts: list[Any]) -> Any:
    """One page after the other, each found by the cursor that the one before told."""

    def answer(seen: Seen) -> Json:
        place = int(arguments(seen).get("cursor", "0"))
        following = str(place + 1) if place + 1 < len(parts) else ""
        return {"ok": True, key: parts[place], "response_metadata": {"next_cursor": following}}

    return answer


def message(stamp: str, who: str, text: str, **more: Any) -> dict[str, Any]:
    return {"type": "message", "ts": stamp, "user": who, "text": text, **more}


@pytest.fixture
def slack(house: House) -> House:
    """A small workspace."""
    house.answer("POST", "/api/users.list", {"ok": True, "members": USERS})
    house.answer("POST", "/api/users.info", info)
    house.answer("POST", "/api/users.lookupByEmail", by_email)
    house.answer("POST", "/api/conversations.list", conversations)
    house.answer("POST", "/api/auth.test", {"ok": True, "user_id": "U0ALICE", "user": "alice"})
    house.answer("POST", "/api/conversations.open", {"ok": True, "channel": {"id": "D0NEW"}})
    house.answer(
        "POST", "/api/chat.postMessage", {"ok": True, "channel": "C0GENERAL", "ts": "1700000000.000100"}
    )
    return house


# ListConversations, GetConversationMetadata, GetUsersInConversation


async def test_conversations_are_listed_page_by_page_up_to_the_limit(house: House) -> None:
    house.answer("POST", "/api/conversations.list", pages("channels", [GENERAL], [DIRECT], [CAFE]))
    told = await house.value("Slack.ListConversations", limit=2)
    assert told == {
        "conversations": [
            {
                "id": "C0GENERAL",
                "name": "general",
                "type": "public_channel",
                "is_member": True,
                "member_count": 3,
                "topic": "Everything",
                "created_by": "U0ALICE",
            },
            {"id": "D0BOB", "type": "direct_message", "user_id": "U0BOB"},
        ],
        "next_cursor": "2",
    }
    types = "public_channel,private_channel,mpim,im"
    assert sent(house) == [
        ("conversations.list", {"limit": "2", "types": types, "exclude_archived": "true"}),
        ("conversations.list", {"limit": "1", "cursor": "1", "types": types, "exclude_archived": "true"}),
    ]


async def test_types_of_conversations_are_in_our_words(slack: House) -> None:
    told = await slack.value(
        "Slack.ListConversations",
        conversation_types=["direct_message", "multi_person_direct_message"],
        next_cursor="dXNlcjpVMDYx==",
    )
    assert [one["id"] for one in told["conversations"]] == ["D0BOB", "G0PAIR", "G0TRIO"]
    assert "next_cursor" not in told
    [(_, given)] = sent(slack)
    assert (given["types"], given["cursor"]) == ("im,mpim", "dXNlcjpVMDYx==")


async def test_a_listing_that_never_ends_is_left_after_ten_pages(house: House) -> None:
    def endless(seen: Seen) -> Json:
        place = int(arguments(seen).get("cursor", "0"))
        return {"ok": True, "channels": [], "response_metadata": {"next_cursor": str(place + 1)}}

    house.answer("POST", "/api/conversations.list", endless)
    assert await house.value("Slack.ListConversations") == {"conversations": [], "next_cursor": "10"}
    assert len(house.seen) == 10


async def test_a_cursor_that_leads_back_to_itself_ends_the_listing(house: House) -> None:
    house.answer(
        "POST",
        "/api/conversations.list",
        {"ok": True, "channels": [], "response_metadata": {"next_cursor": "again"}},
    )
    await house.value("Slack.ListConversations", next_cursor="again")
    assert len(house.seen) == 1


async def test_metadata_by_id_by_name_and_by_person(slack: House) -> None:
    slack.answer(
        "POST",
        "/api/conversations.info",
        lambda seen: {"ok": True, "channel": DIRECT if arguments(seen)["channel"] == "D0BOB" else GENERAL},
    )
    told = await slack.value("Slack.GetConversationMetadata", conversation_id="C0GENERAL")
    assert (told["name"], told["topic"], told["member_count"]) == ("general", "Everything", 3)
    assert sent(slack) == [("conversations.info", {"channel": "C0GENERAL", "include_num_members": "true"})]
    assert await slack.value("Slack.GetConversationMetadata", channel_name="#General") == told
    assert await slack.value("Slack.GetConversationMetadata", emails=["bob@example.com"]) == {
        "id": "D0BOB",
        "type": "direct_message",
        "user_id": "U0BOB",
        "user_name": "Bob Ray",
    }
    assert "conversations.open" not in dict(sent(slack))  # what reads opens nothing


async def test_a_channel_is_found_under_its_name_in_any_unicode_form(slack: House) -> None:
    slack.answer("POST", "/api/conversations.info", {"ok": True, "channel": CAFE})
    decomposed = "cafe\u0301-u\u0308ber"
    assert (await slack.value("Slack.GetConversationMetadata", channel_name=decomposed))["id"] == "C0CAFE"


async def test_an_unknown_channel_is_told_with_near_names(slack: House) -> None:
    error = await slack.error("Slack.GetConversationMetadata", channel_name="genral")
    assert (error.kind, error.can_retry) == (Kind.RETRY, True)
    assert error.hint == "Channels with names like it: general."


async def test_a_group_is_found_by_all_its_members(slack: House) -> None:
    slack.answer("POST", "/api/conversations.info", {"ok": True, "channel": GROUP})
    slack.answer("POST", "/api/conversations.members", {"ok": True, "members": ["U0ZOE", "U0ALICE", "U0BOB"]})
    told = await slack.value("Slack.GetConversationMetadata", usernames=["@Bob", "Zoë Ünal"])
    assert told["id"] == "G0TRIO"
    asked = [given["channel"] for method, given in sent(slack) if method == "conversations.members"]
    assert asked == ["G0TRIO"]  # the other one has a member more, as its name tells


async def test_people_without_direct_messages_are_told_so(slack: House) -> None:
    error = await slack.error("Slack.GetConversationMetadata", user_ids=["U0ZOE"])
    assert error.kind is Kind.NOT_FOUND
    assert "SendMessage opens them" in error.message


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"conversation_id": "C0GENERAL", "channel_name": "general"},
        {"conversation_id": "general"},
        {"usernames": [" "]},
    ],
    ids=["none", "two ways", "no id", "blank"],
)
async def test_a_conversation_is_named_in_exactly_one_way(slack: House, given: dict[str, Any]) -> None:
    error = await slack.error("Slack.GetConversationMetadata", **given)
    assert error.kind is Kind.BAD_INPUT
    assert slack.seen == []


async def test_members_are_given_with_their_names(slack: House) -> None:
    slack.answer("POST", "/api/conversations.members", pages("members", ["U0ALICE", "U0ZOE"], ["U0NOBODY"]))
    told = await slack.value("Slack.GetUsersInConversation", channel_name="general", limit=2)
    assert told == {
        "conversation_id": "C0GENERAL",
        "users": [{"id": "U0ALICE", "name": "Alice Ng"}, {"id": "U0ZOE", "name": "Zoë Ünal"}],
        "next_cursor": "1",
    }
    told = await slack.value("Slack.GetUsersInConversation", conversation_id="C0GENERAL", next_cursor="1")
    assert told == {"conversation_id": "C0GENERAL", "users": [{"id": "U0NOBODY"}]}


async def test_many_members_are_named_from_the_directory(slack: House) -> None:
    ids = [f"U0{number:04}" for number in range(40)]
    slack.answer("POST", "/api/conversations.members", {"ok": True, "members": [*ids, "U0BOB"]})
    told = await slack.value("Slack.GetUsersInConversation", conversation_id="C0GENERAL")
    assert told["users"][-1] == {"id": "U0BOB", "name": "Bob Ray"}
    assert [method for method, _ in sent(slack)] == ["conversations.members", "users.list"]


# Messages


async def test_messages_are_plain_words(slack: House) -> None:
    slack.answer(
        "POST",
        "/api/conversations.history",
        {
            "ok": True,
            "messages": [
                message(
                    "1700000000.000200",
                    "U0ALICE",
                    "Hi <@U0BOB|old>, see <https://x.at/a?b=1&amp;c=2|the plan> in <#C0CAFE|café> "
                    "<!here> &lt;b&gt; <i> <mailto:z@example.com|z@example.com>",
                    thread_ts="1700000000.000200",
                    reply_count=2,
                    edited={"user": "U0ALICE"},
                    reactions=[{"name": "tada", "count": 2, "users": ["U0BOB", "U0ZOE"]}],
                    files=[
                        {
                            "id": "F1",
                            "name": "a.pdf",
                            "mimetype": "application/pdf",
                            "url_private": "https://s",
                        }
                    ],
                ),
                {
                    "type": "message",
                    "subtype": "bot_message",
                    "ts": "1700000000.000100",
                    "bot_id": "B1",
                    "username": "ci",
                    "text": "",
                    "attachments": [{"fallback": "Build failed"}],
                },
                message(
                    "1699999999.000100",
                    "U0NOBODY",
                    "",
                    blocks=[{"type": "section", "text": {"type": "mrkdwn", "text": "*bold* words"}}],
                ),
            ],
            "has_more": True,
            "response_metadata": {"next_cursor": "bmV4dA=="},
        },
    )
    told = await slack.value("Slack.GetMessages", channel_name="general", limit=3)
    assert told == {
        "conversation_id": "C0GENERAL",
        "messages": [
            {
                "ts": "1700000000.000200",
                "time": "2023-11-14T22:13:20Z",
                "user_id": "U0ALICE",
                "user_name": "Alice Ng",
                "text": "Hi @Bob Ray, see the plan (https://x.at/a?b=1&c=2) in #café @here <b> <i> z@example.com",
                "thread_ts": "1700000000.000200",
                "reply_count": 2,
                "edited": True,
                "files": [{"id": "F1", "name": "a.pdf", "mimetype": "application/pdf"}],
                "reactions": {"tada": 2},
            },
            {
                "ts": "1700000000.000100",
                "time": "2023-11-14T22:13:20Z",
                "user_id": "B1",
                "user_name": "ci",
                "text": "Build failed",
                "subtype": "bot_message",
            },
            {
                "ts": "1699999999.000100",
                "time": "2023-11-14T22:13:19Z",
                "user_id": "U0NOBODY",
                "text": "*bold* words",
            },
        ],
        "next_cursor": "bmV4dA==",
    }
    assert ("conversations.history", {"channel": "C0GENERAL", "limit": "3"}) in sent(slack)


@pytest.mark.parametrize(
    ("given", "window"),
    [
        ({"oldest_relative": "03:00:00"}, {"oldest": NOW - 3 * 86_400}),
        (
            {"oldest_relative": "2 days ago", "latest_relative": "1h 30m"},
            {"oldest": NOW - 172_800, "latest": NOW - 5400},
        ),
        ({"oldest_relative": "yesterday"}, {"oldest": 1_699_833_600}),
        ({"oldest_datetime": "2023-11-01 12:00:00"}, {"oldest": 1_698_840_000}),
        ({"latest_datetime": "2023-11-01T12:00:00+02:00"}, {"latest": 1_698_832_800}),
        ({"oldest_datetime": "2023-11-01"}, {"oldest": 1_698_796_800}),
        ({"oldest_datetime": "0001-01-01"}, {"oldest": 0}),
        ({"oldest_relative": "999999 weeks"}, {"oldest": 0}),
    ],
    ids=lambda given: ",".join(map(str, given.values())),
)
async def test_times_are_relative_or_absolute(given: dict[str, str], window: dict[str, int]) -> None:
    async with House.running(clock=lambda: NOW) as house:
        house.answer("POST", "/api/conversations.history", {"ok": True, "messages": []})
        told = await house.value("Slack.GetMessages", conversation_id="C0GENERAL", **given)
        assert told == {"conversation_id": "C0GENERAL", "messages": []}
        [(_, asked)] = sent(house)
        assert {edge: asked[edge] for edge in ("oldest", "latest") if edge in asked} == {
            edge: f"{moment}.000000" for edge, moment in window.items()
        }


@pytest.mark.parametrize(
    "given",
    [
        {"oldest_relative": "1 day ago", "oldest_datetime": "2023-11-01"},
        {"oldest_relative": "soon"},
        {"oldest_relative": "3 fortnights"},
        {"oldest_relative": "1 day, then more"},
        {"latest_datetime": "2023-13-01"},
        {"oldest_relative": "1 hour", "latest_relative": "2 hours"},
        {"limit": 0},
    ],
    ids=str,
)
async def test_times_and_limits_that_make_no_sense(slack: House, given: dict[str, str]) -> None:
    error = await slack.error("Slack.GetMessages", conversation_id="C0GENERAL", **given)
    assert error.kind is Kind.BAD_INPUT
    assert slack.seen == []


async def test_a_limit_beyond_slacks_is_held_to_it(slack: House) -> None:
    slack.answer("POST", "/api/conversations.history", {"ok": True, "messages": []})
    await slack.value("Slack.GetMessages", conversation_id="C0GENERAL", limit=5000)
    assert sent(slack)[0][1]["limit"] == "100"


async def test_messages_come_without_names_where_the_names_are_not_to_be_had(slack: House) -> None:
    slack.answer("POST", "/api/users.info", refusal("missing_scope", needed="users:read"))
    slack.answer(
        "POST",
        "/api/conversations.history",
        {"ok": True, "messages": [message("1.1", "U0BOB", "hi <@U0ZOE>")]},
    )
    told = await slack.value("Slack.GetMessages", conversation_id="C0GENERAL")
    assert told["messages"] == [
        {"ts": "1.1", "time": "1970-01-01T00:00:01Z", "user_id": "U0BOB", "text": "hi @U0ZOE"}
    ]


@pytest.mark.parametrize("stamp", ["1700000000.000200", "p1700000000000200"])
async def test_a_thread_is_read(slack: House, stamp: str) -> None:
    slack.answer(
        "POST",
        "/api/conversations.replies",
        {
            "ok": True,
            "messages": [
                message("1700000000.000200", "U0BOB", "question"),
                message("1700000001.0", "U0ZOE", "answer"),
            ],
        },
    )
    told = await slack.value(
        "Slack.GetThreadMessages",
        thread_ts=stamp,
        conversation_id="C0GENERAL",
        oldest_datetime="2023-01-01T00:00:00Z",
    )
    assert [one["text"] for one in told["messages"]] == ["question", "answer"]
    assert sent(slack)[0] == (
        "conversations.replies",
        {"channel": "C0GENERAL", "ts": "1700000000.000200", "oldest": "1672531200.000000", "limit": "20"},
    )


async def test_a_thread_is_named_by_a_time_stamp(slack: House) -> None:
    error = await slack.error("Slack.GetThreadMessages", thread_ts="yesterday", conversation_id="C0GENERAL")
    assert error.kind is Kind.BAD_INPUT
    assert slack.seen == []


# SendMessage


async def test_a_message_to_a_channel(slack: House) -> None:
    told = await slack.value("Slack.SendMessage", channel_name="#general", message="Grüße & <!here>")
    assert told == {"sent": True, "conversation_id": "C0GENERAL", "ts": "1700000000.000100"}
    assert sent(slack)[-1] == ("chat.postMessage", {"channel": "C0GENERAL", "text": "Grüße & <!here>"})
    assert slack.seen[-1].headers["content-type"] == "application/json; charset=utf-8"


async def test_the_older_name_of_the_tool(slack: House) -> None:
    told = await slack.value("Slack.PostMessage", channel_name="general", message="hello")
    assert told["sent"] is True


@pytest.mark.parametrize(
    ("given", "ids"),
    [
        ({"user_ids": ["U0BOB"]}, "U0BOB"),
        ({"emails": ["bob@example.com"]}, "U0BOB"),
        ({"usernames": ["bob"]}, "U0BOB"),
        ({"conversation_id": "U0BOB"}, "U0BOB"),
        ({"usernames": ["zoe"], "emails": ["bob@example.com"], "user_ids": ["U0BOB"]}, "U0BOB,U0ZOE"),
    ],
    ids=str,
)
async def test_a_message_to_people_opens_their_conversation(
    slack: House, given: dict[str, Any], ids: str
) -> None:
    await slack.value("Slack.SendMessage", message="hi", **given)
    assert ("conversations.open", {"users": ids}) in sent(slack)
    assert sent(slack)[-1] == ("chat.postMessage", {"channel": "D0NEW", "text": "hi"})


async def test_a_group_that_may_not_be_opened_is_written_to_where_it_is_there(slack: House) -> None:
    slack.answer("POST", "/api/conversations.open", refusal("missing_scope", needed="mpim:write"))
    slack.answer("POST", "/api/conversations.members", {"ok": True, "members": ["U0ALICE", "U0BOB", "U0ZOE"]})
    await slack.value("Slack.SendMessage", message="hi", user_ids=["U0BOB", "U0ZOE"])
    assert sent(slack)[-1] == ("chat.postMessage", {"channel": "G0TRIO", "text": "hi"})
    slack.answer(
        "POST", "/api/conversations.members", {"ok": True, "members": ["U0ALICE", "U0OTHER", "U0ZOE"]}
    )
    error = await slack.error("Slack.SendMessage", message="hi", user_ids=["U0BOB", "U0ZOE"])
    assert error.kind is Kind.AUTH_ERROR
    assert error.message.endswith("Missing: mpim:write.")


async def test_a_reply_in_a_thread_shown_in_the_channel_too(slack: House) -> None:
    told = await slack.value(
        "Slack.SendMessage",
        conversation_id="C0GENERAL",
        message="yes",
        thread_ts="1700000000.000200",
        reply_broadcast=True,
    )
    assert told["thread_ts"] == "1700000000.000200"
    assert sent(slack) == [
        (
            "chat.postMessage",
            {
                "channel": "C0GENERAL",
                "text": "yes",
                "thread_ts": "1700000000.000200",
                "reply_broadcast": True,
            },
        )
    ]


@pytest.mark.parametrize(
    "given",
    [
        {"message": " \n"},
        {"message": "x" * 40_001},
        {"message": "x", "reply_broadcast": True},
        {"message": "x", "thread_ts": "1 OR 1"},
        {"message": "x", "conversation_id": "../auth.revoke"},
    ],
    ids=["empty", "long", "broadcast", "thread", "path"],
)
async def test_messages_that_are_not_sent(slack: House, given: dict[str, Any]) -> None:
    error = await slack.error("Slack.SendMessage", **{"conversation_id": "C0GENERAL"} | given)
    assert error.kind is Kind.BAD_INPUT
    assert slack.seen == []


async def test_nothing_is_sent_where_one_of_the_people_is_not_found(slack: House) -> None:
    error = await slack.error("Slack.SendMessage", message="hi", usernames=["bob", "zoee"])
    assert (error.kind, error.hint) == (Kind.RETRY, "Users with names like these: zoe.")
    assert "'zoee'" in error.message
    assert [method for method, _ in sent(slack)] == ["users.list"]


async def test_a_name_that_two_people_have_is_told_with_their_ids(slack: House) -> None:
    error = await slack.error("Slack.SendMessage", message="hi", usernames=["Bob Ray"])
    assert (error.kind, error.hint) == (Kind.RETRY, "User names and ids: bob (U0BOB), robert (U0BOB2).")


async def test_a_failure_in_the_middle_of_sending_is_not_tried_again_blindly(slack: House) -> None:
    slack.answer("POST", "/api/chat.postMessage", refusal("internal_error"))
    error = await slack.error("Slack.SendMessage", conversation_id="C0GENERAL", message="hi")
    assert (error.kind, error.can_retry) == (Kind.SERVER_ERROR, False)
    assert "look before trying again" in error.message


# InviteUsersToChannel


async def test_people_are_invited_together(slack: House) -> None:
    slack.answer("POST", "/api/conversations.invite", {"ok": True, "channel": GENERAL})
    told = await slack.value(
        "Slack.InviteUsersToChannel", channel_name="general", user_ids=["U0BOB"], emails=["zoe@example.com"]
    )
    assert told == {"conversation_id": "C0GENERAL", "invited": ["U0BOB", "U0ZOE"]}
    assert sent(slack)[-1] == ("conversations.invite", {"channel": "C0GENERAL", "users": "U0BOB,U0ZOE"})


async def test_who_is_in_the_channel_already_keeps_nobody_out(slack: House) -> None:
    errors = [
        {"user": "U0BOB", "ok": False, "error": "already_in_channel"},
        {"user": "U0GONE", "ok": False, "error": "user_disabled"},
    ]
    slack.answer(
        "POST", "/api/conversations.invite", refusal("already_in_channel", errors=errors), {"ok": True}
    )
    told = await slack.value(
        "Slack.InviteUsersToChannel", channel_id="C0GENERAL", user_ids=["U0BOB", "U0GONE", "U0ZOE"]
    )
    assert told == {
        "conversation_id": "C0GENERAL",
        "invited": ["U0ZOE"],
        "already_members": ["U0BOB"],
        "failed": [{"user_id": "U0GONE", "reason": "user_disabled"}],
    }
    assert sent(slack)[-1] == ("conversations.invite", {"channel": "C0GENERAL", "users": "U0ZOE"})


async def test_inviting_somebody_twice_is_no_failure(slack: House) -> None:
    slack.answer("POST", "/api/conversations.invite", refusal("already_in_channel"))
    told = await slack.value("Slack.InviteUsersToChannel", channel_id="C0GENERAL", user_ids=["U0BOB"])
    assert told == {"conversation_id": "C0GENERAL", "invited": [], "already_members": ["U0BOB"]}


async def test_an_invitation_that_fails_for_all(slack: House) -> None:
    slack.answer("POST", "/api/conversations.invite", refusal("not_in_channel"))
    error = await slack.error(
        "Slack.InviteUsersToChannel", channel_id="C0GENERAL", user_ids=["U0BOB", "U0ZOE"]
    )
    assert error.kind is Kind.BAD_REQUEST
    assert "no member of the conversation" in error.message
    error = await slack.error("Slack.InviteUsersToChannel", channel_id="C0GENERAL")
    assert error.kind is Kind.BAD_INPUT
    many = [f"U0{number:04}" for number in range(101)]
    error = await slack.error("Slack.InviteUsersToChannel", channel_id="C0GENERAL", user_ids=many)
    assert error.kind is Kind.BAD_INPUT


# People


async def test_users_are_listed_without_bots_and_those_who_left(slack: House) -> None:
    told = await slack.value("Slack.ListUsers")
    assert [one["username"] for one in told["users"]] == ["alice", "bob", "zoe", "robert"]
    assert told["users"][0] == {
        "id": "U0ALICE",
        "username": "alice",
        "name": "Alice Ng",
        "email": "alice@example.com",
        "time_zone": "Europe/Vienna",
    }
    assert sent(slack) == [("users.list", {"limit": "200"})]
    told = await slack.value("Slack.ListUsers", exclude_bots=False, limit=7)
    assert [one["username"] for one in told["users"]][-2:] == ["slackbot", "deployer"]


async def test_users_are_looked_up_in_one_call(slack: House) -> None:
    told = await slack.value(
        "Slack.GetUsersInfo",
        user_ids=["U0ALICE", "U0NOBODY"],
        usernames=["@zoe", "allice"],
        emails=["bob@example.com", "nobody@example.com"],
    )
    assert [one["id"] for one in told["users"]] == ["U0ALICE", "U0BOB", "U0ZOE"]
    assert told["not_found"] == [
        {"asked_for": "U0NOBODY"},
        {"asked_for": "nobody@example.com"},
        {"asked_for": "allice", "near": ["alice", "Alice Ng"]},
    ]


async def test_a_name_on_a_later_page_of_the_directory(house: House) -> None:
    house.answer("POST", "/api/users.list", pages("members", [ALICE], [BOB], [ZOE]))
    told = await house.value("Slack.GetUsersInfo", usernames=["bob"])
    assert [one["id"] for one in told["users"]] == ["U0BOB"]
    assert sent(house) == [
        ("users.list", {"limit": "999"}),
        ("users.list", {"limit": "999", "cursor": "1"}),  # and no further: a user name is unique
    ]


async def test_looking_up_nobody(slack: House) -> None:
    error = await slack.error("Slack.GetUsersInfo")
    assert error.kind is Kind.BAD_INPUT
    error = await slack.error("Slack.GetUsersInfo", user_ids=["bob"])
    assert error.kind is Kind.BAD_INPUT
    assert slack.seen == []
    error = await slack.error("Slack.GetUsersInfo", usernames=["qqqq"])
    assert (error.kind, error.hint) == (Kind.RETRY, None)


async def test_who_the_user_is(slack: House) -> None:
    slack.answer(
        "POST",
        "/api/auth.test",
        {
            "ok": True,
            "user_id": "U0ALICE",
            "user": "alice",
            "team": "Acme",
            "team_id": "T0ACME",
            "url": "https://acme.slack.com/",
        },
    )
    told = await slack.value("Slack.WhoAmI")
    assert (told["id"], told["email"]) == ("U0ALICE", "alice@example.com")
    assert told["workspace"] == {"id": "T0ACME", "name": "Acme", "url": "https://acme.slack.com/"}
    assert sent(slack) == [("auth.test", {}), ("users.info", {"user": "U0ALICE"})]


# Refusals


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        ("not_in_channel", Kind.BAD_REQUEST, "has to invite them first"),
        ("channel_not_found", Kind.NOT_FOUND, "ListConversations"),
        ("missing_scope", Kind.AUTH_ERROR, "Missing: channels:history,groups:history."),
        ("token_revoked", Kind.AUTH_ERROR, "made anew"),
        ("is_archived", Kind.BAD_REQUEST, "archived"),
        ("fatal_error", Kind.SERVER_ERROR, "just now"),
        ("invalid_cursor", Kind.BAD_INPUT, "without it"),
        ("some_new_error", Kind.UNMAPPED, "Slack refused: some_new_error."),
        ("<script>", Kind.UNMAPPED, "Slack refused: unknown."),
    ],
)
async def test_an_answer_that_is_not_ok_is_a_failure(
    slack: House, error: str, kind: Kind, words: str
) -> None:
    slack.answer(
        "POST", "/api/conversations.history", refusal(error, needed="channels:history,groups:history")
    )
    failure = await slack.error("Slack.GetMessages", conversation_id="C0GENERAL")
    assert failure.kind is kind
    assert words in failure.message


async def test_being_slowed_down_tells_for_how_long(slack: House) -> None:
    slack.answer(
        "POST", "/api/conversations.history", Reply(200, refusal("ratelimited"), {"Retry-After": "30"})
    )
    failure = await slack.error("Slack.GetMessages", conversation_id="C0GENERAL")
    assert (failure.kind, failure.can_retry, failure.retry_after_ms) == (Kind.RATE_LIMIT, True, 30_000)


async def test_answers_of_another_shape_are_told_as_such(slack: House) -> None:
    slack.answer("POST", "/api/conversations.history", b"<html>")
    failure = await slack.error("Slack.GetMessages", conversation_id="C0GENERAL")
    assert failure.kind is Kind.BAD_OUTPUT
    odd = {"ok": True, "messages": [None, {"ts": 5, "text": None, "user": {}, "reactions": 7}]}
    slack.answer("POST", "/api/conversations.history", odd)
    told = await slack.value("Slack.GetMessages", conversation_id="C0GENERAL")
    assert told["messages"] == [{"ts": 5, "text": ""}]
