"""Gmail's tools that write: the very message that is sent, and the conversation that it is sent in."""

from __future__ import annotations

import base64
import json
from email.message import EmailMessage
from typing import Any

import pytest

from authproxy.tools.tool import Kind
from tests.tools.gmail_box import ME, base64url, holds, mail_of, message, parsed, part, raw_of, text_in
from tests.tools.kit import House, Reply, Seen

SENT = {"id": "s1", "threadId": "t9", "labelIds": ["SENT"]}


@pytest.fixture
def mailbox(house: House) -> House:
    """It sends what it gets."""
    house.answer("POST", f"{ME}/messages/send", SENT)
    sendas = [{"sendAsEmail": "alice@example.com", "isPrimary": True}, {"sendAsEmail": "ali@work.example"}]
    house.answer("GET", f"{ME}/settings/sendAs", {"sendAs": sendas})
    return house


def addresses(mail: EmailMessage, name: str) -> list[str]:
    return [one.addr_spec for one in mail[name].addresses] if mail[name] else []


async def test_send_email(mailbox: House) -> None:
    value = await mailbox.value(
        "Gmail.SendEmail",
        subject="Grüße\r\nBcc: eve@x.example",
        body="Hallo Jörg,\n\nbis bald — 日本\n.\nFrom here",
        recipient="Jörg Müller <joerg@x.example>, Bob <bob@x.example>",
        cc=["bob@x.example", "carol@x.example"],
        bcc=["dora@x.example"],
        attachments=[{"filename": "notiz.txt", "text": "Grüße"}],
    )
    assert value == {
        "sent": True,
        "id": "s1",
        "thread_id": "t9",
        "to": ["joerg@x.example", "bob@x.example"],
        "cc": ["carol@x.example"],
        "bcc": ["dora@x.example"],
        "subject": "Grüße\r\nBcc: eve@x.example",
    }
    (seen,) = mailbox.seen
    assert (seen.method, seen.path, seen.query) == ("POST", f"{ME}/messages/send", {})
    assert list(seen.json) == ["raw"]
    mail = mail_of(seen)
    assert mail["Subject"] == "Grüße Bcc: eve@x.example"
    assert addresses(mail, "To") == ["joerg@x.example", "bob@x.example"]
    assert (addresses(mail, "Cc"), addresses(mail, "Bcc")) == (["carol@x.example"], ["dora@x.example"])
    assert (mail["From"], mail["Message-ID"], mail["In-Reply-To"]) == (None, None, None)
    assert text_in(mail) == "Hallo Jörg,\n\nbis bald — 日本\n.\nFrom here\n"
    (file,) = mail.iter_attachments()
    assert (file.get_filename(), file.get_content()) == ("notiz.txt", "Grüße")


async def test_the_same_email_is_the_same_bytes(mailbox: House) -> None:
    given = {
        "subject": "S",
        "body": "<p>x</p>",
        "recipient": "b@x.example",
        "attachments": [{"filename": "a", "text": ""}],
    }
    await mailbox.value("Gmail.SendEmail", **given)
    await mailbox.value("Gmail.SendEmail", **given)
    assert raw_of(mailbox.seen[0]) == raw_of(mailbox.seen[1])


@pytest.mark.parametrize(
    ("body", "content_type", "html"),
    [
        ("<p>Hi</p>", "auto", True),
        ("<p>Hi</p>", "plain", False),
        ("a < b", "auto", False),
        ("just text", "html", True),
    ],
)
async def test_what_a_body_is(mailbox: House, body: str, content_type: str, html: bool) -> None:
    await mailbox.value(
        "Gmail.SendEmail", subject="S", body=body, recipient="b@x.example", content_type=content_type
    )
    mail = mail_of(mailbox.seen[0])
    assert (mail.get_body(("html",)) is not None) is html
    if html:
        assert text_in(mail, "html").strip() == body
        assert text_in(mail).strip() == body.replace("<p>", "").replace("</p>", "")


async def test_send_email_refuses_before_it_sends(mailbox: House) -> None:
    for wrong in (
        {"recipient": "bob"},
        {"recipient": " "},
        {"recipient": "b@x.example", "cc": ["c@x.example\nX: y"]},
        {"recipient": "b@x.example", "attachments": [{"filename": "x", "path": "/etc/passwd"}]},
        {"recipient": "b@x.example", "attachments": ["file:///etc/passwd"]},
    ):
        error = await mailbox.error("Gmail.SendEmail", subject="S", body="B", **wrong)
        assert error.kind is Kind.BAD_INPUT
    assert not mailbox.seen


DATA = bytes(range(256)) * 16_000
LARGE = [{"filename": "x.bin", "content_base64": base64.b64encode(DATA).decode()}]


async def test_a_large_email_is_uploaded(mailbox: House) -> None:
    """Gmail takes no large message inside JSON."""
    mailbox.answer("POST", f"/upload{ME}/messages/send", SENT)
    await mailbox.value("Gmail.SendEmail", subject="S", body="B", recipient="b@x.example", attachments=LARGE)
    (seen,) = mailbox.seen
    assert (seen.query, seen.headers["content-type"]) == ({"uploadType": "media"}, "message/rfc822")
    assert next(iter(parsed(seen.body).iter_attachments())).get_content() == DATA


async def test_a_large_reply_is_uploaded_with_its_conversation(mailbox: House) -> None:
    holds(mailbox, ORIGINAL)
    mailbox.answer("POST", f"/upload{ME}/drafts", {"id": "r-1", "message": {"id": "m9", "threadId": "t9"}})
    await mailbox.value("Gmail.WriteDraftReplyEmail", reply_to_message_id="m1", body="B", attachments=LARGE)
    seen = mailbox.seen[-1]
    assert seen.query == {"uploadType": "multipart"}
    _head, content = seen.body.split(b"Content-Type: message/rfc822\r\n\r\n")
    related = parsed(b"Content-Type: " + seen.headers["content-type"].encode() + b"\r\n\r\n" + seen.body)
    first, _second = related.iter_parts()
    assert first.get_content_type() == "application/json"
    assert json.loads(first.get_payload()) == {"message": {"threadId": "t9"}}
    mail = parsed(content.rpartition(b"\r\n--=_")[0])
    assert next(iter(mail.iter_attachments())).get_content() == DATA


ORIGINAL = message(
    "m1",
    thread="t9",
    Subject="=?utf-8?q?Gr=C3=BC=C3=9Fe?=",
    To="Alice <Alice@example.com>, Dora <dora@x.example>, ali+x@work.example",
    Cc="carol@x.example, ali@work.example, bob@build.example",
    References="<a@x>\r\n <b@x> junk\u00a0<c@x\u00e9>",
)


async def test_reply_to_email(mailbox: House) -> None:
    holds(mailbox, ORIGINAL)
    value = await mailbox.value(
        "Gmail.ReplyToEmail", reply_to_message_id="m1", body="Gerne!", cc=["eve@x.example"]
    )
    assert (value["to"], value["cc"], value["subject"]) == (
        ["bob@build.example"],
        ["eve@x.example"],
        "Re: Grüße",
    )
    assert [one.path for one in mailbox.seen] == [f"{ME}/messages/m1", f"{ME}/messages/send"]
    assert mailbox.seen[1].json["threadId"] == "t9"
    mail = mail_of(mailbox.seen[1])
    assert mail["In-Reply-To"] == "<m1@build.example>"
    assert mail["References"] == "<a@x> <b@x> <m1@build.example>"
    assert text_in(mail) == (
        "Gerne!\n\nOn Sun, 1 Mar 2026 at 10:00 UTC, Bob Builder <bob@build.example> wrote:\n"
        "> Hi Alice,\n>\n> shall we meet?\n"
    )


async def test_reply_to_everybody_but_oneself(mailbox: House) -> None:
    holds(mailbox, ORIGINAL)
    await mailbox.value(
        "Gmail.ReplyToEmail",
        reply_to_message_id="m1",
        body="<b>Ja</b>",
        reply_to_whom="every_recipient",
        bcc=["dora@x.example"],
    )
    mail = mail_of(mailbox.seen[-1])
    assert addresses(mail, "To") == ["bob@build.example", "dora@x.example", "ali+x@work.example"]
    assert addresses(mail, "Cc") == ["carol@x.example"]
    assert mail["Bcc"] is None  # dora is in To already
    page = text_in(mail, "html")
    assert page.startswith("<b>Ja</b>")
    assert '<blockquote class="gmail_quote"' in page
    assert "Bob Builder &lt;bob@build.example&gt; wrote:" in page


async def test_reply_goes_where_the_sender_wants_it(mailbox: House) -> None:
    holds(mailbox, message("m1", Reply_To="List <list@x.example>", Subject="RE: Plans"))
    await mailbox.value("Gmail.ReplyToEmail", reply_to_message_id="m1", body="x")
    mail = mail_of(mailbox.seen[-1])
    assert (addresses(mail, "To"), mail["Subject"]) == (["list@x.example"], "RE: Plans")


async def test_reply_to_ones_own_email_goes_to_its_recipients(mailbox: House) -> None:
    own = message(
        "m1",
        labels=["SENT"],
        From="alice@example.com",
        To="bob@x.example",
        Cc="carol@x.example, alice@example.com",
    )
    holds(mailbox, own)
    await mailbox.value("Gmail.ReplyToEmail", reply_to_message_id="m1", body="PS")
    assert addresses(mail_of(mailbox.seen[-1]), "To") == ["bob@x.example"]
    await mailbox.value(
        "Gmail.ReplyToEmail", reply_to_message_id="m1", body="PS", reply_to_whom="every_recipient"
    )
    mail = mail_of(mailbox.seen[-1])
    assert (addresses(mail, "To"), addresses(mail, "Cc")) == (["bob@x.example"], ["carol@x.example"])


async def test_reply_without_settings_knows_oneself_by_the_profile(mailbox: House) -> None:
    holds(mailbox, ORIGINAL)
    mailbox.answer("GET", f"{ME}/settings/sendAs", Reply(403, {"error": {"message": "Delegation denied"}}))
    mailbox.answer("GET", f"{ME}/profile", {"emailAddress": "alice@example.com"})
    await mailbox.value(
        "Gmail.ReplyToEmail", reply_to_message_id="m1", body="x", reply_to_whom="every_recipient"
    )
    assert "alice@example.com" not in [one.lower() for one in addresses(mail_of(mailbox.seen[-1]), "To")]


async def test_reply_to_an_address_in_another_script(mailbox: House) -> None:
    holds(mailbox, message("m1", From="Jörg <joerg@bücher.example>"), message("m2", From="jörg@x.example"))
    await mailbox.value("Gmail.ReplyToEmail", reply_to_message_id="m1", body="x")
    assert addresses(mail_of(mailbox.seen[-1]), "To") == ["joerg@xn--bcher-kva.example"]
    error = await mailbox.error("Gmail.ReplyToEmail", reply_to_message_id="m2", body="x")
    assert error.kind is Kind.BAD_INPUT


async def test_reply_needs_somebody(mailbox: House) -> None:
    holds(mailbox, message("m1", From="nobody", To=""))
    error = await mailbox.error("Gmail.ReplyToEmail", reply_to_message_id="m1", body="x")
    assert error.kind is Kind.BAD_INPUT
    assert len(mailbox.seen) == 1


async def test_forward_email(mailbox: House) -> None:
    original = message(
        "m1",
        parts=[
            part("text/plain", "see <plan>", "0"),
            part("text/html", '<html><body onload="x"><p>see</p><img src="cid:logo@x"></body></html>', "1"),
            part(
                "image/png",
                None,
                "2",
                filename="logo.png",
                attachmentId="L",
                headers={"Content-ID": "<logo@x>"},
            ),
            part(
                "application/pdf",
                None,
                "3",
                filename="plan ü.pdf",
                attachmentId="P",
                headers={"Content-ID": "<f_1>"},
            ),
            part("text/calendar", "BEGIN:VCALENDAR", "4"),
        ],
        Cc="carol@x.example",
    )
    holds(mailbox, original)
    mailbox.answer("GET", f"{ME}/messages/m1/attachments/L", {"data": base64url(b"\x89PNG"), "size": 4})
    mailbox.answer("GET", f"{ME}/messages/m1/attachments/P", {"data": base64url(b"%PDF"), "size": 4})
    value = await mailbox.value(
        "Gmail.ForwardEmail", email_id="m1", recipient="eve@x.example", note="FYI <3", bcc=["b@x.example"]
    )
    assert value["forwarded"] == "m1"
    assert value["attachments"] == ["logo.png", "plan ü.pdf", "attachment.calendar"]
    seen = mailbox.seen[-1]
    assert list(seen.json) == ["raw"]
    mail = mail_of(seen)
    assert (mail["Subject"], addresses(mail, "To"), addresses(mail, "Bcc")) == (
        "Fwd: Plans",
        ["eve@x.example"],
        ["b@x.example"],
    )
    assert mail["References"] is None
    assert text_in(mail) == (
        "FYI <3\n\n---------- Forwarded message ----------\nFrom: Bob Builder <bob@build.example>\n"
        "Date: Sun, 1 Mar 2026 at 10:00 UTC\nSubject: Plans\nTo: Alice <alice@example.com>\nCc: carol@x.example\n\n"
        "see <plan>\n"
    )
    page = text_in(mail, "html")
    assert "FYI &lt;3" in page
    assert "From: Bob Builder &lt;bob@build.example&gt;" in page
    assert "<body" not in page
    assert {
        one.get_content_type(): one.get_content_disposition() for one in mail.walk() if not one.is_multipart()
    } == {
        "text/plain": None,
        "text/html": None,
        "image/png": "inline",
        "application/pdf": "attachment",
        "text/calendar": "attachment",
    }


async def test_forward_loses_nothing_silently(mailbox: House) -> None:
    holds(
        mailbox,
        message(
            "m1",
            parts=[part("application/pdf", None, "0", filename="x.pdf", attachmentId="P", size=40_000_000)],
        ),
    )
    error = await mailbox.error("Gmail.ForwardEmail", email_id="m1", recipient="eve@x.example")
    assert error.kind is Kind.BAD_INPUT
    holds(
        mailbox,
        message("m1", parts=[part("application/pdf", None, "0", filename="x.pdf", attachmentId="P", size=4)]),
    )
    error = await mailbox.error("Gmail.ForwardEmail", email_id="m1", recipient="eve@x.example")
    assert error.kind is Kind.NOT_FOUND
    assert all(one.method == "GET" for one in mailbox.seen)


async def test_write_draft_email(house: House) -> None:
    house.answer("POST", f"{ME}/drafts", {"id": "r-1", "message": {"id": "m9", "threadId": "t9"}})
    value = await house.value(
        "Gmail.WriteDraftEmail", subject="Später", body="x", recipient="b@x.example", bcc=["c@x.example"]
    )
    assert value == {
        "draft_id": "r-1",
        "message_id": "m9",
        "thread_id": "t9",
        "to": ["b@x.example"],
        "subject": "Später",
        "bcc": ["c@x.example"],
    }
    assert list(house.seen[0].json) == ["message"]
    assert mail_of(house.seen[0])["Subject"] == "Später"


async def test_write_draft_reply_email(mailbox: House) -> None:
    holds(mailbox, ORIGINAL)
    mailbox.answer("POST", f"{ME}/drafts", {"id": "r-1", "message": {"id": "m9", "threadId": "t9"}})
    value = await mailbox.value("Gmail.WriteDraftReplyEmail", reply_to_message_id="m1", body="Gerne!")
    assert (value["draft_id"], value["to"]) == ("r-1", ["bob@build.example"])
    seen = mailbox.seen[-1]
    assert seen.json["message"]["threadId"] == "t9"
    assert mail_of(seen)["In-Reply-To"] == "<m1@build.example>"
    assert [one.method for one in mailbox.seen] == ["GET", "POST"]


DRAFT = b"""MIME-Version: 1.0\r
From: Alice <alice@example.com>\r
To: bob@x.example\r
Cc: carol@x.example\r
Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r
X-Odd: caf\xe9\r
In-Reply-To: <m1@build.example>\r
References: <m1@build.example>\r
Content-Type: multipart/mixed; boundary=b1\r
\r
--b1\r
Content-Type: multipart/alternative; boundary=b2\r
\r
--b2\r
Content-Type: text/plain; charset=utf-8\r
Content-Transfer-Encoding: quoted-printable\r
\r
alt=C3=BC\r
\r
On Sun, 1 Mar 2026 at 10:00 UTC, Bob <bob@x.example> wrote:\r
> hi\r
--b2\r
Content-Type: text/html; charset=utf-8\r
\r
<div>alt</div><div class="gmail_quote gmail_quote_container">On Sun Bob wrote:<blockquote>hi</blockquote></div>\r
--b2--\r
--b1\r
Content-Type: application/pdf; name="x.pdf"\r
Content-Disposition: attachment; filename="x.pdf"\r
Content-Transfer-Encoding: base64\r
\r
JVBERg==\r
--b1--\r
"""


def draft(house: House, content: bytes = DRAFT) -> None:
    house.answer(
        "GET",
        f"{ME}/drafts/r-1",
        {"id": "r-1", "message": {"id": "m9", "threadId": "t9", "raw": base64url(content)}},
    )
    house.answer("PUT", f"{ME}/drafts/r-1", {"id": "r-1", "message": {"id": "m10", "threadId": "t9"}})


async def update(house: House, **given: Any) -> tuple[Seen, EmailMessage]:
    value = await house.value("Gmail.UpdateDraftEmail", draft_email_id="r-1", **given)
    assert value == {"draft_id": "r-1", "message_id": "m10", "thread_id": "t9", "changed": sorted(given)}
    seen = house.seen[-1]
    assert (seen.method, seen.path, seen.json["message"]["threadId"]) == ("PUT", f"{ME}/drafts/r-1", "t9")
    return seen, mail_of(seen)


async def test_update_draft_email_changes_what_is_given(house: House) -> None:
    draft(house)
    seen, mail = await update(house, subject="Neu: ü", cc=[])
    assert house.seen[0].query == {"format": "raw"}
    assert (mail["Subject"], mail["Cc"], addresses(mail, "To")) == ("Neu: ü", None, ["bob@x.example"])
    assert b"X-Odd: caf\xe9\r\n" in raw_of(seen)
    content = raw_of(seen).partition(b"--b1")[2].replace(b"--b2--\r\n\r\n", b"--b2--\r\n")
    assert content == DRAFT.partition(b"--b1")[2]


async def test_update_draft_email_keeps_files_and_the_quote(house: House) -> None:
    draft(house)
    seen, mail = await update(house, body="neu ü", recipient="Eve <eve@x.example>, bob@x.example")
    assert text_in(mail) == "neu ü\n\nOn Sun, 1 Mar 2026 at 10:00 UTC, Bob <bob@x.example> wrote:\n> hi\n"
    page = text_in(mail, "html")
    assert page.startswith("<div>neu ü</div>")
    assert '<div class="gmail_quote gmail_quote_container">' in page
    assert "alt" not in page
    assert (mail["Subject"], mail["In-Reply-To"], mail["From"]) == (
        "Grüße",
        "<m1@build.example>",
        "Alice <alice@example.com>",
    )
    assert addresses(mail, "To") == ["eve@x.example", "bob@x.example"]
    assert [(one.get_filename(), one.get_content()) for one in mail.iter_attachments()] == [
        ("x.pdf", b"%PDF")
    ]
    assert b"X-Odd: caf\xe9\r\n" in raw_of(seen)


@pytest.mark.parametrize(
    ("content", "files"),
    [
        (b"To: b@x.example\r\nSubject: S\r\n\r\nold", []),
        (
            b'Content-Type: application/pdf; name="x.pdf"\r\nContent-Transfer-Encoding: base64\r\n\r\nJVBERg==',
            ["x.pdf"],
        ),
        (b"", None),
    ],
)
async def test_update_draft_email_of_other_shapes(
    house: House, content: bytes, files: list[str] | None
) -> None:
    draft(house, content)
    if files is None:
        error = await house.error("Gmail.UpdateDraftEmail", draft_email_id="r-1", body="new")
        assert error.kind is Kind.BAD_OUTPUT
        return
    _seen, mail = await update(house, body="new")
    assert text_in(mail) == "new\n"
    assert [one.get_filename() for one in mail.iter_attachments()] == files
    assert mail["MIME-Version"] == "1.0"


async def test_update_draft_email_needs_a_change(house: House) -> None:
    assert (await house.error("Gmail.UpdateDraftEmail", draft_email_id="r-1")).kind is Kind.BAD_INPUT
    assert (
        await house.error("Gmail.UpdateDraftEmail", draft_email_id="r-1", recipient="x")
    ).kind is Kind.BAD_INPUT
    assert not house.seen


async def test_send_draft_email(house: House) -> None:
    house.answer(
        "POST",
        f"{ME}/drafts/send",
        SENT,
        Reply(404, {"error": {"message": "Requested entity was not found."}}),
    )
    assert await house.value("Gmail.SendDraftEmail", email_id=" r-1 ") == {
        "sent": True,
        "id": "s1",
        "thread_id": "t9",
    }
    assert house.seen[0].json == {"id": "r-1"}
    error = await house.error("Gmail.SendDraftEmail", email_id="m1")
    assert (error.kind, "ListDraftEmails" in error.message) == (Kind.NOT_FOUND, True)
    house.answer("POST", f"{ME}/drafts/send", Reply(403, {"error": {"message": "Insufficient Permission"}}))
    error = await house.error("Gmail.SendDraftEmail", email_id="r-1")
    assert (error.kind, "gmail.compose" in (error.hint or "")) == (Kind.AUTH_ERROR, True)


async def test_delete_draft_email(house: House) -> None:
    house.answer("DELETE", f"{ME}/drafts/r-1", Reply(204))
    assert await house.value("Gmail.DeleteDraftEmail", draft_email_id="r-1") == {
        "deleted": True,
        "draft_id": "r-1",
    }


async def test_a_send_that_may_have_happened_is_not_tried_again(mailbox: House) -> None:
    mailbox.answer("POST", f"{ME}/messages/send", Reply(500, {"error": {"message": "Backend Error"}}))
    error = await mailbox.error("Gmail.SendEmail", subject="S", body="B", recipient="b@x.example")
    assert (error.kind, error.can_retry) == (Kind.SERVER_ERROR, False)
    assert len(mailbox.seen) == 1
