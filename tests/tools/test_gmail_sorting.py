"""Gmail's tools that sort and clean up: labels, marks, trash, spam, and leaving mailing lists."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from authproxy.tools.tool import Kind
from tests.tools.gmail_box import ME, holds, mail_of, message, text_in
from tests.tools.kit import House, Reply

LABELS = {
    "labels": [
        {"id": "INBOX", "name": "INBOX", "type": "system"},
        {"id": "Label_1", "name": "Work", "type": "user"},
        {"id": "Label_2", "name": "Work stuff/In voices", "type": "user"},
    ]
}


@pytest.fixture
def labelled(house: House) -> House:
    """It has two labels of the user's own, and takes changes."""
    house.answer("GET", f"{ME}/labels", LABELS)
    house.answer("POST", f"{ME}/messages/batchModify", Reply(204))
    return house


@pytest.mark.parametrize(
    ("tool", "path", "sent", "word"),
    [
        ("ArchiveEmail", "modify", {"removeLabelIds": ["INBOX"]}, "archived"),
        ("ReportSpam", "modify", {"addLabelIds": ["SPAM"], "removeLabelIds": ["INBOX"]}, "reported_spam"),
        ("TrashEmail", "trash", None, "trashed"),
    ],
)
async def test_one_email_put_away(
    house: House, tool: str, path: str, sent: Mapping[str, Any] | None, word: str
) -> None:
    house.answer("POST", f"{ME}/messages/m1/{path}", {"id": "m1", "threadId": "t1", "labelIds": ["UNREAD"]})
    value = await house.value(f"Gmail.{tool}", email_id="m1")
    assert value == {word: True, "email_id": "m1", "thread_id": "t1", "labels": ["UNREAD"]}
    assert house.seen[0].json == sent
    assert (await house.error(f"Gmail.{tool}", email_id="m2")).kind is Kind.NOT_FOUND


async def test_change_email_labels_by_ids(labelled: House) -> None:
    holds(labelled, message("m1", labels=["INBOX"]), message("m2", labels=["Label_1"]))
    value = await labelled.value(
        "Gmail.ChangeEmailLabels",
        action="add",
        label_name="work",
        email_ids=["m1", "m2", "m1", "m3"],
        include_full_ledger=True,
    )
    assert value == {
        "action": "add",
        "label": "Work",
        "changed": 1,
        "unchanged": 1,
        "not_found": ["m3"],
        "ledger": [
            {"id": "m1", "result": "changed"},
            {"id": "m2", "result": "unchanged"},
            {"id": "m3", "result": "not_found"},
        ],
    }
    assert labelled.seen[-1].json == {"ids": ["m1"], "addLabelIds": ["Label_1"], "removeLabelIds": []}
    assert labelled.seen[1].query == {"format": "minimal"}
    error = await labelled.error(
        "Gmail.ChangeEmailLabels", action="remove", label_name="Work", email_ids=["m3"]
    )
    assert error.kind is Kind.NOT_FOUND


async def test_change_email_labels_by_query(labelled: House) -> None:
    """What has the label already is not looked at, so that the same call goes on where it ended."""
    labelled.answer(
        "GET", f"{ME}/messages", {"messages": [{"id": "m1"}, {"id": "m2"}], "nextPageToken": "p"}, {}
    )
    value = await labelled.value(
        "Gmail.ChangeEmailLabels", action="add", label_name="Label_2", query="from:a OR from:b"
    )
    assert (value["changed"], value["more"], value["label"]) == (2, True, "Work stuff/In voices")
    assert labelled.seen[1].query == {
        "q": "(from:a OR from:b) -label:work-stuff-in-voices",
        "maxResults": "500",
    }
    assert labelled.seen[2].json["ids"] == ["m1", "m2"]
    value = await labelled.value(
        "Gmail.ChangeEmailLabels", action="remove", label_name="Work", query="from:a"
    )
    assert value == {"action": "remove", "label": "Work", "changed": 0}
    assert labelled.seen[-1].query == {"q": "from:a", "labelIds": "Label_1", "maxResults": "500"}


@pytest.mark.parametrize(
    "given", [{}, {"email_ids": ["m1"], "query": "x"}, {"email_ids": ["m"] + [f"m{n}" for n in range(100)]}]
)
async def test_emails_to_change_are_said_in_one_way(labelled: House, given: dict[str, Any]) -> None:
    error = await labelled.error("Gmail.TriageEmails", action="star", **given)
    assert error.kind is Kind.BAD_INPUT
    assert not labelled.seen


@pytest.mark.parametrize(
    ("action", "asked", "add", "remove"),
    [
        ("mark_read", {"q": "x", "labelIds": "UNREAD"}, [], ["UNREAD"]),
        ("mark_unread", {"q": "x -label:unread"}, ["UNREAD"], []),
        ("star", {"q": "x -label:starred"}, ["STARRED"], []),
        ("unstar", {"q": "x", "labelIds": "STARRED"}, [], ["STARRED"]),
        ("unarchive", {"q": "x -label:inbox"}, ["INBOX"], []),
        ("untrash", {"q": "x", "labelIds": "TRASH", "includeSpamTrash": "true"}, [], ["TRASH"]),
        ("mark_important", {"q": "x -label:important"}, ["IMPORTANT"], []),
        ("mark_not_important", {"q": "x", "labelIds": "IMPORTANT"}, [], ["IMPORTANT"]),
        ("mark_not_spam", {"q": "x", "labelIds": "SPAM", "includeSpamTrash": "true"}, ["INBOX"], ["SPAM"]),
    ],
)
async def test_triage_emails(
    labelled: House, action: str, asked: dict[str, str], add: list[str], remove: list[str]
) -> None:
    labelled.answer("GET", f"{ME}/messages", {"messages": [{"id": "m1"}]})
    value = await labelled.value("Gmail.TriageEmails", action=action, query="x", include_full_ledger=True)
    assert value == {"action": action, "changed": 1, "ledger": [{"id": "m1", "result": "changed"}]}
    assert labelled.seen[0].query == {**asked, "maxResults": "500"}
    assert labelled.seen[1].json == {"ids": ["m1"], "addLabelIds": add, "removeLabelIds": remove}


async def test_change_thread_labels(labelled: House) -> None:
    labelled.answer("POST", f"{ME}/threads/t1/modify", {"id": "t1", "messages": [{"id": "m1"}, {"id": "m2"}]})
    value = await labelled.value(
        "Gmail.ChangeThreadLabels",
        thread_id="t1",
        labels_to_add=["Work", "starred"],
        labels_to_remove=["Inbox"],
    )
    assert value == {
        "thread_id": "t1",
        "labels_added": ["Work", "STARRED"],
        "labels_removed": ["INBOX"],
        "messages": 2,
    }
    assert labelled.seen[-1].json == {"addLabelIds": ["Label_1", "STARRED"], "removeLabelIds": ["INBOX"]}
    for add, remove in (([], []), (["Work"], ["Label_1"])):
        error = await labelled.error(
            "Gmail.ChangeThreadLabels", thread_id="t1", labels_to_add=add, labels_to_remove=remove
        )
        assert error.kind is Kind.BAD_INPUT
    error = await labelled.error(
        "Gmail.ChangeThreadLabels", thread_id="t1", labels_to_add=["Wörk"], labels_to_remove=[]
    )
    assert (error.kind, "CreateLabel" in (error.hint or "")) == (Kind.RETRY, True)


@pytest.mark.parametrize(("in_trash", "verb"), [(True, "trash"), (False, "untrash")])
async def test_set_thread_trash_status(house: House, in_trash: bool, verb: str) -> None:
    house.answer("POST", f"{ME}/threads/t1/{verb}", {"id": "t1"})
    value = await house.value("Gmail.SetThreadTrashStatus", thread_id="t1", in_trash=in_trash)
    assert value == {"thread_id": "t1", "in_trash": in_trash}


async def test_create_label(house: House) -> None:
    house.answer("POST", f"{ME}/labels", {"id": "Label_3", "name": "Grün/2026"})
    value = await house.value("Gmail.CreateLabel", label_name=" Grün/2026\n")
    assert value == {"label": {"id": "Label_3", "name": "Grün/2026"}}
    assert house.seen[0].json == {
        "name": "Grün/2026",
        "labelListVisibility": "labelShow",
        "messageListVisibility": "show",
    }
    house.answer("POST", f"{ME}/labels", Reply(409, {"error": {"message": "Label name exists or conflicts"}}))
    error = await house.error("Gmail.CreateLabel", label_name="Grün")
    assert "Label name exists or conflicts" in error.message
    assert (await house.error("Gmail.CreateLabel", label_name=" ")).kind is Kind.BAD_INPUT


async def test_update_label(labelled: House) -> None:
    labelled.answer("PATCH", f"{ME}/labels/Label_1", {"id": "Label_1", "name": "Job"})
    value = await labelled.value("Gmail.UpdateLabel", current_name="WORK", new_name="Job")
    assert value == {"label": {"id": "Label_1", "name": "Job"}, "renamed_from": "Work"}
    assert labelled.seen[-1].json == {"name": "Job"}
    assert (
        await labelled.error("Gmail.UpdateLabel", current_name="INBOX", new_name="x")
    ).kind is Kind.BAD_INPUT


async def test_delete_label(labelled: House) -> None:
    labelled.answer("DELETE", f"{ME}/labels/Label_1", Reply(204))
    assert await labelled.value("Gmail.DeleteLabel", label_name="Work") == {"deleted": "Work"}
    for name in ("inbox", "promotions", "Spam"):
        assert (await labelled.error("Gmail.DeleteLabel", label_name=name)).kind is Kind.BAD_INPUT
    assert (await labelled.error("Gmail.DeleteLabel", label_name="Werk")).kind is Kind.RETRY


async def test_unsubscribe_by_mail(labelled: House) -> None:
    news = message(
        "m1",
        From="News <news@l.example>",
        List_Id="The News <news.l.example>",
        List_Unsubscribe=(
            "<https://l.example/u>, "
            "<mailto:off@l.example?subject=stop%20123&body=I%20quit%0Anow&cc=boss@x.example>"
        ),
    )
    holds(labelled, news)
    labelled.answer("POST", f"{ME}/messages/send", {"id": "s1"})
    labelled.answer("GET", f"{ME}/messages", {"messages": [{"id": "m1"}, {"id": "m2"}]})
    value = await labelled.value("Gmail.UnsubscribeFromEmail", email_id="m1", trash_existing=True)
    assert value == {
        "email_id": "m1",
        "sender": "News <news@l.example>",
        "unsubscribed": "requested",
        "how": "An unsubscribe request was mailed to off@l.example.",
        "subject": "stop 123",
        "trashed": 2,
    }
    mail = mail_of(labelled.seen[1])
    assert (str(mail["To"]), mail["Cc"], mail["Subject"]) == ("off@l.example", None, "stop 123")
    assert text_in(mail).startswith("I quit now\n\n-- \nThis mail unsubscribes from a mailing list.")
    assert labelled.seen[2].query == {"q": "list:news.l.example", "maxResults": "500"}
    assert labelled.seen[3].json == {
        "ids": ["m1", "m2"],
        "addLabelIds": ["TRASH"],
        "removeLabelIds": ["INBOX"],
    }


async def test_unsubscribe_over_the_web_is_left_to_the_user(house: House) -> None:
    """A tool sends requests to the provider alone, never to an address out of somebody's mail."""
    holds(
        house,
        message(
            "m1",
            List_Unsubscribe="<https://l.example/u?t=1>",
            List_Unsubscribe_Post="List-Unsubscribe=One-Click",
        ),
        message("m2"),
    )
    value = await house.value("Gmail.UnsubscribeFromEmail", email_id="m1")
    assert (value["unsubscribed"], value["link"]) == ("user_must_open_link", "https://l.example/u?t=1")
    assert "Nothing has been sent" in value["how"]
    assert "one click" in value["how"]
    error = await house.error("Gmail.UnsubscribeFromEmail", email_id="m2", trash_existing=True)
    assert error.kind is Kind.BAD_INPUT
    assert [one.method for one in house.seen] == ["GET", "GET"]


async def test_unsubscribed_is_told_though_the_trash_failed(labelled: House) -> None:
    holds(labelled, message("m1", List_Unsubscribe="<mailto:off@l.example>"))
    labelled.answer("POST", f"{ME}/messages/send", {"id": "s1"})
    labelled.answer("GET", f"{ME}/messages", Reply(500, {}))
    value = await labelled.value("Gmail.UnsubscribeFromEmail", email_id="m1", trash_existing=True)
    assert (value["unsubscribed"], value["trashed"]) == ("requested", 0)
    assert "failed" in value["trash_note"]
