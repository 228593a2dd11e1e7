"""Gmail's tools that read: what they ask Gmail, and what they make of its answers."""

from __future__ import annotations

from typing import Any

import pytest

from authproxy.tools.tool import Kind
from tests.tools.gmail_box import ME, holds, message, part
from tests.tools.kit import House, Reply

NOW = 1_772_524_800.0  # 2026-03-03 08:00 UTC

LABELS = {
    "labels": [
        {"id": "INBOX", "name": "INBOX", "type": "system"},
        {"id": "Label_1", "name": "Work", "type": "user"},
        {"id": "Label_2", "name": "Work/Invoices", "type": "user"},
    ]
}
METADATA = ["From", "To", "Cc", "Bcc", "Reply-To", "Subject", "Date", "Message-ID"]
METADATA += ["List-Unsubscribe", "List-Id", "Auto-Submitted", "Precedence"]


def listed(*ids: str, **more: Any) -> dict[str, Any]:
    return {"messages": [{"id": one, "threadId": "t1"} for one in ids], **more}


async def test_list_emails(house: House) -> None:
    house.answer("GET", f"{ME}/messages", listed("m1", "m2", nextPageToken="p2"))
    holds(
        house,
        message("m1", snippet="Hi &amp; hello &#39;you&#39;", labels=["INBOX", "Label_1"]),
        message(
            "m2",
            Cc="Carol <c@x.example>, d@x.example",
            Subject="=?utf-8?q?Gr=C3=BC=C3=9Fe?=",
            labels=["SENT"],
        ),
    )
    house.answer("GET", f"{ME}/labels", LABELS)
    value = await house.value("Gmail.ListEmails", n_emails=2, page_token="p1")
    assert value == {
        "emails": [
            {
                "id": "m1",
                "thread_id": "t1",
                "date": "2026-03-01T10:00:00Z",
                "from": "Bob Builder <bob@build.example>",
                "to": ["Alice <alice@example.com>"],
                "subject": "Plans",
                "snippet": "Hi & hello 'you'",
                "labels": ["INBOX", "Work"],
                "unread": False,
            },
            {
                "id": "m2",
                "thread_id": "t1",
                "date": "2026-03-01T10:00:00Z",
                "from": "Bob Builder <bob@build.example>",
                "to": ["Alice <alice@example.com>"],
                "cc": ["Carol <c@x.example>", "d@x.example"],
                "subject": "Grüße",
                "snippet": "",
                "labels": ["SENT"],
                "unread": False,
            },
        ],
        "next_page_token": "p2",
    }
    first = house.seen[0]
    assert (first.method, first.path) == ("GET", f"{ME}/messages")
    assert first.query == {"maxResults": "2", "pageToken": "p1"}
    assert house.seen[1].queries == {"format": ["metadata"], "metadataHeaders": METADATA}


async def test_what_went_away_meanwhile_is_left_out(house: House) -> None:
    house.answer("GET", f"{ME}/messages", listed("gone", "m1"))
    holds(house, message("m1"))
    assert [one["id"] for one in (await house.value("Gmail.ListEmails"))["emails"]] == ["m1"]
    house.answer("GET", f"{ME}/messages/gone", Reply(500, {}))
    assert (await house.error("Gmail.ListEmails")).kind is Kind.SERVER_ERROR


async def test_list_emails_of_an_empty_mailbox(house: House) -> None:
    house.answer("GET", f"{ME}/messages", {"resultSizeEstimate": 0})
    assert await house.value("Gmail.ListEmails") == {"emails": []}
    assert house.seen[0].query == {"maxResults": "5"}
    assert await house.value("Gmail.ListEmails", n_emails=-3) == {"emails": []}
    assert await house.value("Gmail.ListEmails", n_emails=999) == {"emails": []}
    assert [one.query["maxResults"] for one in house.seen[1:]] == ["1", "100"]


async def test_list_emails_that_people_wrote(house: House) -> None:
    """Pages are read until there are enough, and no message is shown twice or lost."""
    house.answer(
        "GET",
        f"{ME}/messages",
        listed("m1", "m2", nextPageToken="p2"),
        listed("m3", nextPageToken="p3"),
        listed("m4", nextPageToken="p4"),
    )
    holds(
        house,
        message("m1", List_Id="<list.x.example>", text="x"),
        message("m2", text="Hello"),
        message("m3", From="noreply@x.example"),
        message("m4", text="x" * 3000),
    )
    value = await house.value("Gmail.ListEmails", n_emails=2, exclude_automated=True, include_body=True)
    assert [one["id"] for one in value["emails"]] == ["m2", "m4"]
    assert value["emails"][0]["body"] == "Hello"
    assert value["emails"][1]["body"].endswith("x\n[1000 more characters left out]")
    assert (value["automated_left_out"], value["next_page_token"]) == (2, "p4")
    asked = [one.query for one in house.seen if one.path == f"{ME}/messages"]
    assert asked == [
        {"maxResults": "2"},
        {"maxResults": "1", "pageToken": "p2"},
        {"maxResults": "1", "pageToken": "p3"},
    ]
    assert house.seen[1].query == {"format": "full"}


async def test_list_emails_looks_through_a_bounded_number(house: House) -> None:
    house.answer(
        "GET",
        f"{ME}/messages",
        lambda seen: listed(*["m1"] * int(seen.query["maxResults"]), nextPageToken="p"),
    )
    holds(house, message("m1", From="noreply@x.example"))
    value = await house.value("Gmail.ListEmails", n_emails=70, exclude_automated=True)
    assert value == {"emails": [], "automated_left_out": 150, "next_page_token": "p"}


async def test_list_emails_by_header() -> None:
    async with House.running(clock=lambda: NOW) as house:
        house.answer("GET", f"{ME}/labels", LABELS)
        house.answer("GET", f"{ME}/messages", listed("m1"))
        holds(house, message("m1"))
        value = await house.value(
            "Gmail.ListEmailsByHeader",
            sender=["Bob Builder", "carol@x.example"],
            recipient=['alice" OR (x'],
            subject=["annual report"],
            body=['the "exact" phrase', "other"],
            date_range="yesterday",
            label="work/invoices",
            max_results=3,
            page_token="p",
        )
        assert [one["id"] for one in value["emails"]] == ["m1"]
        assert house.seen[1].queries == {
            "q": [
                (
                    "((from:Bob from:Builder) OR from:carol@x.example) to:alice to:OR to:x subject:annual "
                    'subject:report ("the exact phrase" OR "other") after:1772409599 before:1772496000'
                )
            ],
            "labelIds": ["Label_2"],
            "maxResults": ["3"],
            "pageToken": ["p"],
        }
        house.seen.clear()
        await house.value("Gmail.ListEmailsByHeader", label="trash")
        assert house.seen[1].queries["includeSpamTrash"] == ["true"]
        assert house.seen[1].queries["labelIds"] == ["TRASH"]
        error = await house.error("Gmail.ListEmailsByHeader", max_results=3)
        assert error.kind is Kind.BAD_INPUT
        error = await house.error("Gmail.ListEmailsByHeader", label="Wrok")
        assert (error.kind, error.can_retry) == (Kind.RETRY, True)
        assert "Work" in (error.hint or "")


async def test_search_emails_by_query(house: House) -> None:
    house.answer("GET", f"{ME}/messages", listed("m1"))
    holds(house, message("m1", snippet="short"))
    value = await house.value("Gmail.SearchEmailsByQuery", query=" from:bob ", include_spam_trash=True)
    assert value["emails"][0]["snippet"] == "short"
    assert house.seen[0].query == {"q": "from:bob", "includeSpamTrash": "true", "maxResults": "10"}
    value = await house.value("Gmail.SearchEmailsByQuery", query="x", result_detail="full", max_results=1)
    assert value["emails"][0]["body"] == "Hi Alice,\n\nshall we meet?"
    error = await house.error("Gmail.SearchEmailsByQuery", query="  ")
    assert error.kind is Kind.BAD_INPUT


async def test_search_counts(house: House) -> None:
    house.answer(
        "GET", f"{ME}/messages", listed("a", "b", nextPageToken="p", resultSizeEstimate=201), listed("c")
    )
    value = await house.value("Gmail.SearchEmailsByQuery", query="x", result_detail="count_only")
    assert value == {"query": "x", "count": 3}
    assert [one.query for one in house.seen] == [
        {"q": "x", "maxResults": "500"},
        {"q": "x", "maxResults": "500", "pageToken": "p"},
    ]
    house.answer("GET", f"{ME}/messages", listed("a", nextPageToken="p"))
    value = await house.value("Gmail.SearchEmailsByQuery", query="x", result_detail="count_only")
    assert value == {"query": "x", "count": 10, "at_least": True}


async def test_get_email(house: House) -> None:
    alternative = {
        "mimeType": "multipart/alternative",
        "partId": "0",
        "body": {"size": 0},
        "parts": [part("text/plain", "Hallo Alice", "0.0"), part("text/html", "<p>Hallo Alice</p>", "0.1")],
    }
    pdf = part("application/pdf", None, "1", filename="plan ü.pdf", attachmentId="A" * 300, size=1234)
    logo = part(
        "image/png",
        None,
        "2",
        filename="logo.png",
        attachmentId="B",
        headers={"Content-ID": "<logo@x>", "Content-Disposition": "inline; filename=logo.png"},
    )
    holds(house, message("m1", parts=[alternative, pdf, logo], Reply_To="Bob <other@x.example>"))
    value = await house.value("Gmail.GetEmail", email_id="m1")
    assert value["body"] == "Hallo Alice"
    assert value["reply_to"] == ["Bob <other@x.example>"]
    assert value["attachments"] == [
        {"filename": "plan ü.pdf", "mime_type": "application/pdf", "size_bytes": 1234},
        {"filename": "logo.png", "mime_type": "image/png", "size_bytes": 0, "inline": True},
    ]
    assert (value["unread"], value["message_id_header"]) == (True, "<m1@build.example>")
    assert "snippet" not in value
    assert house.seen[0].query == {"format": "full"}


async def test_get_email_by_its_message_id_and_with_a_text_kept_apart(house: House) -> None:
    house.answer("GET", f"{ME}/messages", listed("m1"), {})
    holds(house, message("m1", parts=[part("text/html", None, "0", attachmentId="long")]))
    house.answer("GET", f"{ME}/messages/m1/attachments/long", {"data": "PHA-bG9uZzwvcD4"})
    value = await house.value("Gmail.GetEmail", email_id="<m1@build.example>")
    assert value["body"] == "long"
    assert house.seen[0].query == {"q": "rfc822msgid:m1@build.example", "maxResults": "1"}
    assert (await house.error("Gmail.GetEmail", email_id="<no@build.example>")).kind is Kind.NOT_FOUND


@pytest.mark.parametrize("bad", ["", "..", "a/b", "a b@c", "m1?x=y"])
async def test_an_id_is_one_segment_of_a_path(house: House, bad: str) -> None:
    error = await house.error("Gmail.GetEmail", email_id=bad)
    assert error.kind in (Kind.BAD_INPUT, Kind.NOT_FOUND)
    assert all(one.path in (f"{ME}/messages/m1%3Fx%3Dy",) for one in house.seen)


async def test_what_gmail_says_is_told(house: House) -> None:
    said = {"error": {"code": 404, "message": "Requested entity was not found.", "status": "NOT_FOUND"}}
    house.answer("GET", f"{ME}/messages/m1", Reply(404, said))
    error = await house.error("Gmail.GetEmail", email_id="m1")
    assert error.kind is Kind.NOT_FOUND
    assert "Requested entity was not found." in error.message


async def test_get_thread(house: House) -> None:
    reply = "Yes!\n\nOn Sun, 1 Mar 2026 at 10:00 UTC, Bob <bob@x.example> wrote:\n> shall we meet?\n"
    thread = {"id": "t1", "messages": [message("m1"), message("m2", text=reply, Subject="Re: Plans")]}
    house.answer("GET", f"{ME}/threads/t1", thread)
    value = await house.value("Gmail.GetThread", thread_id="t1")
    assert (value["id"], value["subject"]) == ("t1", "Plans")
    assert [one["body"] for one in value["messages"]] == [
        "Hi Alice,\n\nshall we meet?",
        "Yes!\n[quoted text left out]",
    ]
    assert house.seen[0].query == {"format": "full"}
    many = {"id": "t1", "messages": [message(f"m{n}", text="x" * 5000) for n in range(35)]}
    house.answer("GET", f"{ME}/threads/t1", many)
    value = await house.value("Gmail.GetThread", thread_id="t1")
    assert (len(value["messages"]), value["older_messages_left_out"]) == (30, 5)
    assert value["messages"][-1]["id"] == "m34"
    assert len(value["messages"][0]["body"]) < 1500


async def test_list_threads(house: House) -> None:
    house.answer("GET", f"{ME}/threads", {"threads": [{"id": "t1"}], "nextPageToken": "p2"})
    carol = message(
        "m2", From="Carol <c@x.example>", labels=["INBOX"], snippet="see &lt;you&gt;", stamp=1_772_445_600
    )
    house.answer("GET", f"{ME}/threads/t1", {"id": "t1", "messages": [message("m1"), carol]})
    value = await house.value("Gmail.ListThreads", max_results=1, include_spam_trash=True)
    assert value == {
        "threads": [
            {
                "id": "t1",
                "subject": "Plans",
                "from": ["Bob Builder <bob@build.example>", "Carol <c@x.example>"],
                "last_date": "2026-03-02T10:00:00Z",
                "messages": 2,
                "snippet": "see <you>",
                "labels": ["INBOX", "UNREAD"],
                "unread": True,
            }
        ],
        "next_page_token": "p2",
    }
    assert house.seen[0].query == {"maxResults": "1", "includeSpamTrash": "true"}
    assert house.seen[1].queries == {"format": ["metadata"], "metadataHeaders": METADATA}


async def test_threads_without_a_person_are_left_out(house: House) -> None:
    house.answer("GET", f"{ME}/threads", {"threads": [{"id": "t1"}, {"id": "t2"}]})
    robot = message("m1", From="noreply@x.example")
    house.answer("GET", f"{ME}/threads/t1", {"id": "t1", "messages": [robot]})
    house.answer("GET", f"{ME}/threads/t2", {"id": "t2", "messages": [robot, message("m2")]})
    value = await house.value("Gmail.ListThreads", exclude_automated=True)
    assert ([one["id"] for one in value["threads"]], value["automated_left_out"]) == (["t2"], 1)


async def test_search_threads(house: House) -> None:
    house.answer("GET", f"{ME}/labels", LABELS)
    house.answer("GET", f"{ME}/threads", {})
    value = await house.value(
        "Gmail.SearchThreads",
        label_ids=["Label_1", "inbox"],
        sender=["bob@x.example"],
        body=["see you"],
        page_token="p",
    )
    assert value == {"threads": []}
    assert house.seen[1].queries == {
        "q": ['from:bob@x.example "see you"'],
        "labelIds": ["Label_1", "INBOX"],
        "maxResults": ["10"],
        "pageToken": ["p"],
    }
    assert (await house.error("Gmail.SearchThreads")).kind is Kind.BAD_INPUT
    assert (await house.error("Gmail.SearchThreads", label_ids=["nope"])).kind is Kind.RETRY


async def test_list_email_attachment_metadata(house: House) -> None:
    inner = part("message/rfc822", None, "1", filename="", attachmentId="R", size=10)
    file = part("text/calendar", "BEGIN:VCALENDAR", "2", filename="invite.ics")
    holds(house, message("m1", parts=[part("text/plain", "x"), inner, file]))
    value = await house.value("Gmail.ListEmailAttachmentMetadata", email_id="m1")
    assert value == {
        "email_id": "m1",
        "count": 2,
        "attachments": [
            {
                "filename": "unnamed.rfc822",
                "mime_type": "message/rfc822",
                "size_bytes": 10,
                "part_id": "1",
                "attachment_id": "R",
            },
            {
                "filename": "invite.ics",
                "mime_type": "text/calendar",
                "size_bytes": 15,
                "part_id": "2",
                "attachment_id": "",
            },
        ],
    }


async def test_list_labels(house: House) -> None:
    house.answer("GET", f"{ME}/labels", LABELS)
    assert await house.value("Gmail.ListLabels") == {
        "labels": [
            {"id": "Label_1", "name": "Work", "type": "user"},
            {"id": "Label_2", "name": "Work/Invoices", "type": "user"},
            {"id": "INBOX", "name": "INBOX", "type": "system"},
        ]
    }


async def test_list_draft_emails(house: House) -> None:
    house.answer(
        "GET", f"{ME}/drafts", {"drafts": [{"id": "r-1", "message": {"id": "m1"}}], "nextPageToken": "p"}
    )
    house.answer(
        "GET", f"{ME}/drafts/r-1", {"id": "r-1", "message": message("m1", snippet="Hi", labels=["DRAFT"])}
    )
    value = await house.value("Gmail.ListDraftEmails", n_drafts=1)
    assert value == {
        "drafts": [
            {
                "draft_id": "r-1",
                "message_id": "m1",
                "thread_id": "t1",
                "date": "2026-03-01T10:00:00Z",
                "to": ["Alice <alice@example.com>"],
                "subject": "Plans",
                "snippet": "Hi",
            }
        ],
        "next_page_token": "p",
    }
    assert [one.query for one in house.seen] == [{"maxResults": "1"}, {"format": "metadata"}]


async def test_who_am_i(house: House) -> None:
    house.answer(
        "GET", f"{ME}/profile", {"emailAddress": "alice@example.com", "messagesTotal": 7, "threadsTotal": 3}
    )
    house.answer(
        "GET",
        f"{ME}/settings/sendAs",
        {
            "sendAs": [
                {"sendAsEmail": "sales@example.com"},
                {"sendAsEmail": "alice@example.com", "isPrimary": True, "displayName": ""},
            ]
        },
    )
    house.answer(
        "GET",
        "/v1/people/me",
        {
            "names": [
                {"displayName": "Ali"},
                {"displayName": "Alice Liddell", "metadata": {"primary": True}},
            ],
            "photos": [{"url": "https://pic.example/a"}],
        },
    )
    assert await house.value("Gmail.WhoAmI") == {
        "email": "alice@example.com",
        "name": "Alice Liddell",
        "picture": "https://pic.example/a",
        "also_sends_as": ["sales@example.com"],
        "messages": 7,
        "threads": 3,
    }
    house.answer("GET", "/v1/people/me", Reply(403, {"error": {"message": "People API has not been used"}}))
    house.answer("GET", f"{ME}/settings/sendAs", Reply(403, {}))
    value = await house.value("Gmail.WhoAmI")
    assert value == {"email": "alice@example.com", "name": None, "messages": 7, "threads": 3}
    house.answer("GET", f"{ME}/profile", Reply(403, {"error": {"message": "Gmail is not enabled"}}))
    assert "Gmail is not enabled" in (await house.error("Gmail.WhoAmI")).message
