"""HTTP hygiene, without a network."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authproxy.core.errors import BadRequest, Refusal, UserMissing
from authproxy.core.message import (
    answer_lines,
    authority_of,
    foreign,
    read_request_fields,
    request_head,
    target_of,
    user_of,
)

USER = b"x-user-id"


@pytest.mark.parametrize(
    "raw",
    [
        b"/a%2Fb//c/../d?x=%20+%2B&&y",
        b"/",
        b"/?",
        b"/a?b?c",
        b"//host/x",
        b"/caf\xc3\xa9?q=\xff",
        b"/a;b=c/d",
        b"/%00",
    ],
)
def test_origin_form_concatenates_to_the_bytes_that_came(raw: bytes) -> None:
    target = target_of("GET", raw)
    assert target.form == "origin"
    assert target.path + target.query == raw


@pytest.mark.parametrize(
    ("raw", "host", "port", "path", "query"),
    [
        (b"http://API.example/x?y", "api.example", 80, b"/x", b"?y"),
        (b"https://api.example:8443", "api.example", 8443, b"/", b""),
        (b"http://api.example?y", "api.example", 80, b"/", b"?y"),
        (b"http://[::1]:81//x", "::1", 81, b"//x", b""),
    ],
)
def test_absolute_form(raw: bytes, host: str, port: int, path: bytes, query: bytes) -> None:
    target = target_of("GET", raw)
    assert (target.form, target.host, target.port, target.path, target.query) == (
        "absolute",
        host,
        port,
        path,
        query,
    )


@pytest.mark.scenario("G22")
@pytest.mark.parametrize(
    "raw",
    [
        b"/a#b",
        b"/a b",
        b"/a\x00",
        b"\\a",
        b"a",
        b"*",
        b"ftp://h/x",
        b"http://user@h/x",
        b"http://h:0/x",
        b"http://h:99999/x",
        b"http:///x",
        b"http://h\\x/",
        b"http://h%2e/x",
        b"http://\xc3\xa9/x",
        b"HTTP//h/x",
    ],
)
def test_other_targets_are_refused(raw: bytes) -> None:
    with pytest.raises(BadRequest):
        target_of("GET", raw)


def test_connect_and_asterisk() -> None:
    assert target_of("CONNECT", b"h:443")[0] == "authority"
    assert target_of("OPTIONS", b"*")[0] == "asterisk"
    for raw in (b"h", b"/x", b"u@h:443"):
        with pytest.raises(BadRequest):
            target_of("CONNECT", raw)


@given(st.binary(max_size=60), st.sampled_from(["GET", "CONNECT", "OPTIONS"]))
def test_a_target_is_read_or_refused(raw: bytes, method: str) -> None:
    try:
        target = target_of(method, raw)
    except Refusal:
        return
    assert target.path.startswith(b"/") or target.form in ("authority", "asterisk")


@pytest.mark.scenario("F09", "G03", "I05")
def test_nothing_that_carries_a_credential_or_one_hop_travels_on() -> None:
    fields = read_request_fields(
        [
            (b"Host", b"proxy"),
            (b"AUTHORIZATION", b"Bearer theirs"),
            (b"authorization", b"Basic eDp5"),
            (b"Proxy-Authorization", b"Basic eDp5"),
            (b"X-Authproxy-Key", b"apx_1"),
            (b"Cookie", b"a=b"),
            (b"x_user_id", b"mallory"),
            (b"X-User_ID", b"mallory"),
            (b"Connection", b"X-Drop, close"),
            (b"X-Drop", b"1"),
            (b"x-drop", b"2"),
            (b"TE", b"trailers"),
            (b"Upgrade", b"h2c"),
            (b"HTTP2-Settings", b"x"),
            (b"X-User-Id", b"alice"),
            (b"X-Keep", b"1"),
            (b"x-keep", b"\xff"),
            (b"Snake_Case", b"kept"),
        ],
        USER,
    )
    assert fields.lines == [(b"X-Keep", b"1"), (b"x-keep", b"\xff"), (b"Snake_Case", b"kept")]
    assert fields.users == [b"alice"]
    assert fields.close
    assert [name for name, _ in fields.credentials] == [
        b"authorization",
        b"authorization",
        b"proxy-authorization",
        b"x-authproxy-key",
    ]


@pytest.mark.scenario("G03")
def test_connection_can_not_remove_what_we_write_ourselves() -> None:
    fields = read_request_fields(
        [
            (b"Host", b"proxy"),
            (b"Connection", b"Authorization, Host, Content-Length, X-User-Id"),
            (b"Content-Length", b"3"),
            (b"X-User-Id", b"alice"),
        ],
        USER,
    )
    head = request_head("POST", b"/x", b"?y", b"api.example", fields, b"Bearer t")
    assert head == (
        b"POST /x?y HTTP/1.1\r\nHost: api.example\r\nContent-Length: 3\r\nAuthorization: Bearer t\r\n\r\n"
    )
    assert fields.users == [b"alice"]


@pytest.mark.scenario("F09")
def test_a_credential_field_of_the_provider_s_own_is_ours_alone() -> None:
    fields = read_request_fields([(b"x-shopify_access-TOKEN", b"theirs"), (b"X-Other", b"1")], USER)
    head = request_head("GET", b"/", b"", b"h", fields, b"t", (), b"X-Shopify-Access-Token")
    assert head == b"GET / HTTP/1.1\r\nHost: h\r\nX-Other: 1\r\nX-Shopify-Access-Token: t\r\n\r\n"


@pytest.mark.scenario("G04")
@pytest.mark.parametrize(
    "framing",
    [
        [(b"Content-Length", b"3"), (b"Transfer-Encoding", b"chunked")],
        [(b"Content-Length", b"3"), (b"Content-Length", b"3")],
        [(b"Content-Length", b"+3")],
        [(b"Content-Length", b"3, 3")],
        [(b"Content-Length", b"")],
        [(b"Content-Length", "٣".encode())],
        [(b"Transfer-Encoding", b"gzip, chunked")],
        [(b"Transfer-Encoding", b"chunked,")],
        [(b"Transfer-Encoding", b"xchunked")],
        [(b"Transfer-Encoding", b"chunked"), (b"Transfer-Encoding", b"chunked")],
    ],
)
def test_ambiguous_framing_is_refused(framing: list[tuple[bytes, bytes]]) -> None:
    with pytest.raises(BadRequest):
        read_request_fields(framing, USER)


@pytest.mark.scenario("I05")
@pytest.mark.parametrize(
    "values",
    [[], [b""], [b" "], [b"a", b"a"], [b"a,b"], [b"a\x00"], [b"\xff"], [b"x" * 257], [b"a\tb"]],
)
def test_exactly_one_user(values: list[bytes]) -> None:
    with pytest.raises(UserMissing):
        user_of(values, "X-User-ID")


def test_a_user_is_kept_as_it_is() -> None:
    assert user_of([b" alice@example.com\t"], "X-User-ID") == "alice@example.com"
    assert user_of(["Ålice B".encode()], "X-User-ID") == "Ålice B"
    for like_alice in ("ali\u200bce", "\u202ealice", "alice\ufeff", "ali\u00adce"):
        with pytest.raises(UserMissing):
            user_of([like_alice.encode()], "X-User-ID")


@pytest.mark.scenario("F06", "G15")
def test_an_answer_keeps_order_repetition_and_case() -> None:
    fields = [
        (b"Connection", b"X-Hop"),
        (b"X-Hop", b"1"),
        (b"Link", b"a"),
        (b"Set-Cookie", b"s=1"),
        (b"link", b"b"),
        (b"Transfer-Encoding", b"chunked"),
        (b"X-Authproxy-Error", b"faked"),
        (b"WWW-Authenticate", b"Bearer"),
        (b"Set-Cookie", b"s=2"),
    ]
    assert answer_lines(fields, keep_set_cookie=False) == [
        b"Link: a\r\n",
        b"link: b\r\n",
        b"WWW-Authenticate: Bearer\r\n",
    ]
    assert answer_lines(fields, keep_set_cookie=True)[1] == b"Set-Cookie: s=1\r\n"


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("evil.com", True),
        ("127.0.0.1.nip.io", True),
        ("localhost.evil.com", True),
        ("localhost", False),
        ("authproxy", False),
        ("127.0.0.1", False),
        ("169.254.169.254", True),
        ("0.0.0.0", True),
        ("2130706433", True),
        ("fe80::1", True),
        ("::1", False),
        ("authproxy.team.svc.cluster.local", False),
        ("api.test", False),
    ],
)
def test_names_that_are_not_this_machine_s(host: str, expected: bool) -> None:
    assert foreign(host) is expected


def test_authority() -> None:
    assert authority_of(b"H.example:8080") == ("h.example", 8080)
    for raw in (b"", b":80", b"h:", b"h:x", b"h:-1", b"a b", b"h,h2"):
        with pytest.raises(BadRequest):
            authority_of(raw)
