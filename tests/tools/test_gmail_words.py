"""Addresses, HTML, quotes, searches and MIME of Gmail's tools: what they make of what strangers write."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from authproxy.tools.kits.gmail import addresses, reading, searching, writing
from authproxy.tools.kits.gmail.addresses import Address
from authproxy.tools.kits.gmail.unsubscribing import ways_out
from authproxy.tools.kits.plain_text import cut, from_html, looks_like_html, one_line, tidy
from authproxy.tools.tool import ToolError
from tests.tools.gmail_box import message, parsed, part, text_in

NOW = 1_772_524_800  # 2026-03-03 08:00 UTC, a Tuesday


@pytest.mark.parametrize(
    ("header", "found"),
    [
        ("bob@x.example", [("bob@x.example", "")]),
        ("Bob <bob@x.example>, carol@x.example", [("bob@x.example", "Bob"), ("carol@x.example", "")]),
        ('"Doe, Jane" <jane@x.example>', [("jane@x.example", "Doe, Jane")]),
        ('"A \\"B\\" <c@d.example>" <jane@x.example>', [("jane@x.example", 'A "B" <c@d.example>')]),
        ("=?utf-8?q?J=C3=B6rg?= <j@x.example>", [("j@x.example", "Jörg")]),
        ("=?iso-8859-1?b?SvZyZw==?= =?utf-8?b?IMOc?= <j@x.example>", [("j@x.example", "Jörg Ü")]),
        ("undisclosed-recipients:;", []),
        ("Friends: a@x.example, b@x.example;", [("a@x.example", ""), ("b@x.example", "")]),
        ("Bob (the builder) <bob@x.example>", [("bob@x.example", "Bob (the builder)")]),
        ("bob@x.example (Bob)", [("bob@x.example", "")]),
        ("no address at all", []),
        ("<a@b.example", [("a@b.example", "")]),
        ("", []),
    ],
)
def test_mailboxes_of_a_header(header: str, found: list[tuple[str, str]]) -> None:
    assert [(one.email, one.name) for one in addresses.read(header)] == found


@pytest.mark.parametrize(
    "value",
    [
        *(
            "bob",
            "bob@localhost",
            "a@b.example c@d.example",
            "a@b.example\r\nBcc: e@f.example",
            "<a@b.example> x",
        ),
        *("Doe, Jane <jane@x.example>", "a@b@c.example", "a..b@x.example", "jörg@x.example", "a@-x.example"),
    ],
)
def test_nothing_is_sent_to_a_guess(value: str) -> None:
    with pytest.raises(ToolError) as caught:
        addresses.given(value, "recipient")
    assert "recipient" in caught.value.message or "ASCII" in caught.value.message


def test_addresses_that_are_given() -> None:
    found = addresses.given(["Jörg <j@bücher.example>; b@x.example", " c@x.example "], "cc")
    assert [str(one) for one in found] == [
        "Jörg <j@xn--bcher-kva.example>",
        "b@x.example",
        "c@x.example",
    ]
    same = addresses.without(
        [Address("A.b+x@gmail.com"), Address("ab@googlemail.com"), Address("c@x.example")]
    )
    assert [one.email for one in same] == ["A.b+x@gmail.com", "c@x.example"]


NAMES = st.text(max_size=60)
LOCALS = st.text("abcdefghij0123456789._+-", min_size=1, max_size=20).filter(
    lambda text: addresses.is_email(f"{text}@x.example")
)


@settings(max_examples=60, deadline=None)
@given(
    st.text(max_size=200), st.lists(st.tuples(NAMES, LOCALS), min_size=1, max_size=5), st.text(max_size=300)
)
def test_whatever_is_written_is_read_again(subject: str, people: list[tuple[str, str]], body: str) -> None:
    """No name, subject or text can add a header, change a recipient, or get lost."""
    to = addresses.without(Address(f"{local}@x.example", name) for name, local in people)
    outgoing = writing.Outgoing(
        subject, writing.Body(body), to=to, cc=to, attachments=[writing.Attachment("f.bin", "a/b", b"\0")]
    )
    raw = outgoing.as_bytes()
    assert raw == outgoing.as_bytes()
    head = raw.partition(b"\r\n\r\n")[0]
    assert head.isascii()
    assert max(map(len, head.split(b"\r\n"))) <= 998
    mail = parsed(raw)
    assert {name.lower() for name in mail} <= {"content-type", "mime-version", "to", "cc", "subject"}
    assert [one.addr_spec for one in mail["To"].addresses] == [one.email for one in to]
    read_back = addresses.read(str(dict(parsed_raw(raw))["Cc"]))
    assert [one.email for one in read_back] == [one.email for one in to]
    assert addresses.decoded(dict(parsed_raw(raw)).get("Subject", "")) == one_line(subject)
    assert text_in(mail).rstrip("\n") == body.replace("\r\n", "\n").replace("\r", "\n").rstrip("\n")


def parsed_raw(raw: bytes) -> list[tuple[str, str]]:
    """The headers unfolded, and nothing more."""
    lines = raw.partition(b"\r\n\r\n")[0].decode().replace("\r\n ", " ").split("\r\n")
    return [(name, value.strip()) for name, _colon, value in (line.partition(":") for line in lines)]


def test_html_has_text_pictures_and_files_in_their_places() -> None:
    picture = writing.Attachment("logo.png", "image/png", b"PNG", "logo@1")
    file = writing.Attachment("bericht ü.pdf", "application/pdf", b"%PDF")
    body = writing.body_of('<p>Grüße</p><img src="cid:logo@1">', "auto")
    mail = parsed(writing.Outgoing("S", body, attachments=[picture, file]).as_bytes())
    assert [one.get_content_type() for one in mail.walk()] == [
        "multipart/mixed",
        "multipart/alternative",
        "text/plain",
        "multipart/related",
        "text/html",
        "image/png",
        "application/pdf",
    ]
    assert [one.get_filename() for one in mail.iter_attachments()] == ["bericht ü.pdf"]
    assert text_in(mail) == "Grüße\n"
    assert "<p>Grüße</p>" in text_in(mail, "html")


def test_attachments_have_one_shape() -> None:
    found = writing.attachments_of(
        [
            {"filename": "../../etc/pass\nwd.csv", "text": "a;b"},
            {"filename": "x.pdf", "content_base64": "AAE=\n"},
            {"filename": "y", "content_base64": "_-8", "mime_type": "Image/PNG; x=y"},
        ]
    )
    assert [(one.filename, one.mime_type, one.data) for one in found] == [
        ("pass wd.csv", "text/csv", b"a;b"),
        ("x.pdf", "application/pdf", b"\0\1"),
        ("y", "image/png", b"\xff\xef"),
    ]


@pytest.mark.parametrize(
    "bad",
    [
        "file:///etc/passwd",
        {"filename": "x", "url": "https://x.example"},
        {"filename": "x"},
        {"filename": " ", "text": "x"},
        {"filename": "x", "text": "x", "content_base64": ""},
        {"filename": "x", "content_base64": "not base64!"},
        {"filename": "x", "text": "x", "mime_type": "text/plain\r\nX: y"},
        {"filename": "x", "text": "x", "mime_type": "message/rfc822"},
    ],
)
def test_attachments_of_other_shapes_are_refused(bad: object) -> None:
    with pytest.raises(ToolError):
        writing.attachments_of([bad])


def test_html_as_a_reader_sees_it() -> None:
    page = """<html><head><title>T</title><style>p {}</style></head><body>
      <div style="display: none">hidden <div>deeper</div> words</div>
      <h1>Hello&nbsp;you</h1><p>One
      line<br>two &amp; three</p><script>evil()</script>
      <ul><li>a</li><li>b</li></ul><a href="https://x.example/y">here</a>
      <a href="https://z.example">https://z.example</a> <a href="javascript:x">js</a>
      <table><tr><td>1</td><td>2</td></tr></table>
      <blockquote>quoted<br>twice</blockquote>zero\u200bwidth <img alt="logo" src="x"></body></html>"""
    assert from_html(page) == (
        "Hello you\n\nOne line\ntwo & three\n\n- a\n- b\n\n"
        "here <https://x.example/y> https://z.example js\n1 2\n\n> quoted\n> twice\n\nzerowidth logo"
    )


@pytest.mark.parametrize(
    "page",
    [
        *("<" * 200_000, "<!--" * 50_000, "<a>x" * 25_000 + "</a>" * 25_000, "</" * 100_000),
        *("<div style='display:none'>" + "<b>" * 30_000 + "</i>" * 25_000, "<blockquote>x\n" * 14_000),
    ],
    ids=["open", "comment", "links", "end", "hidden", "quotes"],
)
def test_html_that_was_made_to_take_long_does_not(page: str) -> None:
    start = time.perf_counter()
    from_html(page)
    assert time.perf_counter() - start < 5  # quadratic, these take minutes


def test_what_is_taken_for_html() -> None:
    assert looks_like_html("Hi <b>you</b>")
    assert looks_like_html("one<br>two")
    assert not looks_like_html("a < b and c > d, see <https://x.example> or <bob@x.example>")
    assert cut("abcdef", 3) == "abc\n[3 more characters left out]"
    assert tidy("a  \r\n\n\n\nb\u200b") == "a\n\nb"


def test_quotes_of_older_messages_are_found() -> None:
    reply = "Yes!\n\nOn Mon, 2 Mar 2026 at 10:00,\nBob <bob@x.example> wrote:\n> shall we?\n>\n> Bob\n"
    assert reading.split_quote(reply)[0] == "Yes!"
    assert reading.own_words(reply) == "Yes!\n[quoted text left out]"
    inline = "> shall we?\nYes!\n> when?\nToday."
    assert reading.own_words(inline) == inline
    assert reading.own_words("> only a quote") == "> only a quote"


def test_a_body_is_its_text_whatever_its_shape() -> None:
    html = part("text/html", "<p>Hallo <i>du</i></p>", "1")
    empty = part("text/plain", " \r\n", "0")
    assert reading.body_text(reading.parts_of(message(parts=[empty, html]))) == "Hallo du"
    latin = part(
        "text/plain", "Grüße".encode("latin-1"), headers={"Content-Type": 'text/plain; charset="ISO-8859-1"'}
    )
    assert reading.body_text(reading.parts_of(message(parts=[latin]))) == "Grüße"
    lied = part("text/plain", "Grüße", headers={"Content-Type": "text/plain; charset=iso-8859-1"})
    assert reading.body_text(reading.parts_of(message(parts=[lied]))) == "Grüße"
    japanese = part(
        "text/plain",
        "日本".encode("iso-2022-jp"),
        headers={"Content-Type": "text/plain; charset=ISO-2022-JP"},
    )
    assert reading.body_text(reading.parts_of(message(parts=[japanese]))) == "日本"
    apart = [
        part("text/plain", "one", "0"),
        part("image/png", None, "1", attachmentId="a"),
        part("text/plain", "two", "2"),
    ]
    assert reading.body_text(reading.parts_of(message(parts=apart))) == "one\ntwo"
    file = part("text/plain", "log", "1", filename="log.txt")
    assert reading.body_text(reading.parts_of(message(parts=[part("text/plain", "see"), file]))) == "see"
    assert reading.body_text(reading.parts_of({})) == ""


@pytest.mark.parametrize(
    ("headers", "labels", "automated"),
    [
        ({}, ["INBOX"], False),
        ({}, ["CATEGORY_PROMOTIONS"], True),
        ({"List_Unsubscribe": "<https://x>"}, [], True),
        ({"Precedence": "Bulk"}, [], True),
        ({"Auto_Submitted": "auto-replied"}, [], True),
        ({"Auto_Submitted": "no"}, [], False),
        ({"From": "GitHub <noreply@github.example>"}, [], True),
        ({"From": "no-reply+abc@x.example"}, [], True),
        ({"From": "Norbert <nora@x.example>"}, [], False),
    ],
)
def test_who_writes_by_machine(headers: dict[str, str], labels: list[str], automated: bool) -> None:
    assert reading.is_automated(message(labels=labels, **headers)) is automated


@pytest.mark.parametrize(
    ("name", "query"),
    [
        ("today", "after:1772495999"),
        ("yesterday", "after:1772409599 before:1772496000"),
        ("last_7_days", "after:1771891199"),
        ("last_30_days", "after:1769903999"),
        ("this_month", "after:1772323199"),
        ("last_month", "after:1769903999 before:1772323200"),
        ("this_year", "after:1767225599"),
    ],
)
def test_days_are_seconds(name: str, query: str) -> None:
    assert searching.dates(name, NOW) == query


def test_alternatives_are_kept_together() -> None:
    assert searching.both("a OR b", "-label:x") == "(a OR b) -label:x"
    assert searching.both("a b", "-label:x") == "a b -label:x"


@pytest.mark.parametrize(
    ("header", "mail", "link"),
    [
        ("<mailto:u@l.example?subject=off%20list+1>", ("u@l.example", "off list+1"), ""),
        (
            "<https://l.example/u>, <mailto:u@l.example>",
            ("u@l.example", "unsubscribe"),
            "https://l.example/u",
        ),
        ("<http://l.example/u>,\r\n <https://l.example/v>", None, "https://l.example/v"),
        ("<mailto:a@l.example,b@l.example>", None, ""),
        ("<mailto:u@l.example?cc=boss@x.example&bcc=c@x.example>", ("u@l.example", "unsubscribe"), ""),
        ("<mailto:u@l.example?subject=x%0d%0aBcc:%20c@x.example>", ("u@l.example", "x Bcc: c@x.example"), ""),
        ("<ftp://l.example>, javascript:x", None, ""),
    ],
)
def test_ways_off_a_list(header: str, mail: tuple[str, str] | None, link: str) -> None:
    ways = ways_out({"list-unsubscribe": header})
    assert ways.link == link
    if mail is None:
        assert ways.mail is None
    else:
        assert ways.mail is not None
        read = parsed(ways.mail.as_bytes())
        assert ([one.addr_spec for one in read["To"].addresses], read["Subject"]) == ([mail[0]], mail[1])
        assert read["Cc"] is None
        assert read["Bcc"] is None
