"""Policy: every reading of a path must be allowed, and the bytes that travel are not changed by it."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from authproxy.core.config import Rule
from authproxy.core.errors import BadRequest
from authproxy.core.policy import (
    Decision,
    Rules,
    canonical_path,
    compile_glob,
    decide,
    glob_fault,
    may_match_below,
)


@dataclass
class Ruled:
    rules: Rules


def ruled(*paths: str, methods: tuple[str, ...] = ("GET",), never: tuple[str, ...] = ()) -> Ruled:
    return Ruled(Rules([Rule(methods, paths)], never=never))


OPEN = Ruled(Rules(None))

# --- allowed and denied --------------------------------------------------------------------------------------------

JUDGED = [
    # glob, path, allowed
    ("/gmail/v1/users/me/**", b"/gmail/v1/users/me/messages", True),
    ("/gmail/v1/users/me/**", b"/gmail/v1/users/me/messages?q=..%2f", True),
    ("/gmail/v1/users/me/**", b"/gmail/v1/users/me/messages/a%20b", True),
    ("/gmail/v1/users/me/**", b"/gmail/v1/users/me", False),
    ("/gmail/v1/users/me/**", b"/gmail/v1/users/me/", False),
    ("/gmail/v1/users/me/**", b"/gmail/v1/users/me//", False),
    ("/gmail/v1/users/me/**", b"/gmail/v1/users/meg/messages", False),
    ("/gmail/v1/users/me/**", b"/gmail/v1/users/bob/messages", False),
    ("/gmail/v1/users/me/**", b"//gmail/v1/users/me/messages", False),
    ("/gmail/v1/users/me/**", b"/GMAIL/v1/users/me/messages", False),
    ("/gmail/v1/users/me/**", b"/gmail/v1/users/me%2Fmessages", False),
    ("/gmail/v1/users/me/**", b"/gmail/v1/users/me/a//b", True),
    ("/gmail/v1/users/me/**", b"/gmail/v1/users/me/a%2Fb", True),
    ("/gmail/v1/users/me/**", b"/gmail/v1/users/me/a%252Fb", True),
    ("/gmail/v1/users/me/**", "/gmail/v1/users/me/größe".encode(), True),
    ("/gmail/v1/users/me/**", b"/gmail/v1/users/me/\xff\xfe", True),
    ("/**", b"/", True),
    ("/**", b"/@scope%2fpkg", True),
    ("/**", b"//x", True),
    ("/", b"/", True),
    ("/", b"/x", False),
    ("/", b"//", False),
    ("/repos/*/issues", b"/repos/a/issues", True),
    ("/repos/*/issues", b"/repos//issues", False),
    ("/repos/*/issues", b"/repos/a/b/issues", False),
    ("/repos/*/issues", b"/repos/a%2Fb/issues", False),
    ("/repos/*/issues", b"/repos/a%252Fb/issues", False),
    ("/repos/*/issues", b"/repos/a%25252Fb/issues", False),
    ("/repos/*/issues", b"/repos/a;b/issues", True),
    ("/repos/*/issues", b"/repos/;b/issues", False),
    ("/repos/*/issues", b"/repos/%3Bb/issues", False),
    ("/repos/*/issues", b"/repos/a%3F/issues", False),
    ("/repos/*/issues", b"/repos/a%23/issues", False),
    ("/repos/*/issues", b"/repos/a%40b/issues", True),
    ("/repos/*/issues", b"/repos/a+b%2Bc/issues", True),
    ("/repos/*/issues", b"/repos/a/%69ssues", False),
    ("/repos/*/issues", b"/repos/a/issues/", False),
    ("/a/*-public", b"/a/secret;-public", False),
    ("/a/*-public", b"/a/secret-public", True),
    ("/a/*/c", b"/a/%2562/c", True),
    # npm and GitLab names: an encoded slash where the rule has it, or where the rule does not care
    ("/@scope%2F*", b"/@scope%2fpkg", True),
    ("/@scope%2F*", b"/@scope/pkg", True),
    ("/@scope%2F*", b"/%40scope%2Fpkg", True),
    ("/@scope%2F*", b"/@other%2Fpkg", False),
    ("/@scope%2F*", b"/@scope%2Fpkg%2F..%2fx", None),
    ("/@scope/*", b"/@scope%2Fpkg", False),
    ("/*", b"/@scope%2Fpkg", False),
    ("/projects/**/issues", b"/projects/group%2Fsub%2Fproject/issues", True),
    ("/projects/*%2F*/issues", b"/projects/group%2Fproject/issues", True),
    ("/projects/*%2F*/issues", b"/projects/1/issues", False),
    # reserved characters and others match in both spellings
    ("/v1/people:search", b"/v1/people:search", True),
    ("/v1/people:search", b"/v1/people%3Asearch", True),
    ("/v1/people:search", b"/v1/people%3asearch", True),
    ("/f/My Folder/*", b"/f/My%20Folder/x", True),
    ("/f/My%20Folder/*", b"/f/My%20Folder/x", True),
    ("/f/größe/*", b"/f/gr%C3%B6%C3%9Fe/x", True),
    ("/f/größe/*", "/f/größe/x".encode(), True),
    ("/v1.0/*", b"/v1.0/x", True),
    ("/v1.0/*", b"/v1x0/x", False),
    ("/a/100%25/*", b"/a/100%25/x", True),
    # `**` in the middle is none, one or many segments
    ("/a/**/z", b"/a/z", True),
    ("/a/**/z", b"/a/b/c/z", True),
    ("/a/**/z", b"/az", False),
    ("/a/**/z", b"/a/zz", False),
    ("/a/**/b/**/z", b"/a/x/b/b/y/z", True),
    ("/a/**/b/**/z", b"/a/x/y/z", False),
    ("/**/z", b"/z", True),
    ("/**/a*b*c", b"/x/aXbYc", True),
    ("/**/a*b*c", b"/x/aXb/Yc", False),
]


@pytest.mark.scenario("G16", "G17")
@pytest.mark.parametrize(("glob", "path", "allowed"), JUDGED)
def test_paths(glob: str, path: bytes, allowed: bool | None) -> None:
    if allowed is None:
        with pytest.raises(BadRequest):
            decide(ruled(glob), "GET", path)
    else:
        assert decide(ruled(glob), "GET", path).allowed is allowed


def test_a_decision_says_why() -> None:
    route = Ruled(Rules([Rule(("POST",), ("/a",)), Rule(("GET", "PUT"), ("/b", "/c/**"))]))
    assert decide(route, "GET", b"/c/x") == Decision(True, "rule", 1)
    assert decide(route, "HEAD", b"/c/x") == Decision(True, "rule", 1)
    assert decide(route, "GET", b"/a") == Decision(False, "no_rule_for_path")
    assert decide(route, "DELETE", b"/a") == Decision(False, "no_rule_for_method")
    assert decide(route, "get", b"/b") == Decision(False, "no_rule_for_method")
    assert decide(ruled("/c/*"), "GET", b"/c/a%2Fb") == Decision(False, "ambiguous_path")
    assert decide(Ruled(Rules([])), "GET", b"/") == Decision(False, "no_rule_for_method")
    assert decide(OPEN, "DELETE", b"/x") == Decision(True, "no_rules")


def test_star_is_every_method_but_two() -> None:
    route = Ruled(Rules([Rule(("*",), ("/**",)), Rule(("GET",), ("/never-reached",))]))
    for method in ("GET", "PROPFIND", "get"):
        assert decide(route, method, b"/x").allowed
    for method in ("TRACE", "CONNECT", "trace", "Connect"):
        assert decide(route, method, b"/x") == Decision(False, "method_never_allowed")
        assert decide(OPEN, method, b"/x") == Decision(False, "method_never_allowed")


@pytest.mark.scenario("G17")
@pytest.mark.parametrize(
    "path",
    [
        b"/services/oauth2/token",
        b"/services/oauth2/token/",
        b"/services/OAuth2/token",
        b"//services/oauth2//token",
        b"/services/oauth2%2Ftoken",
        b"/services/%6fauth2/token",
        b"/services/oauth2/token;x=1",
        b"/services/%256fauth2/token",
    ],
)
def test_credential_paths_are_for_nobody(path: bytes) -> None:
    never = ("/services/oauth2/token", "/x/**")
    for route in (Ruled(Rules(None, never=never)), ruled("/**", never=never)):
        assert decide(route, "GET", path) == Decision(False, "credential_path")
        assert decide(route, "GET", b"/services/oauth2/tokens").allowed


@pytest.mark.scenario("G17")
def test_what_an_override_names_is_judged_too() -> None:
    route = ruled("/a/**", methods=("GET", "POST"))
    assert decide(route, "POST", b"/a/x", ["get"]).allowed
    assert decide(route, "POST", b"/a/x", ["DELETE"]).reason == "no_rule_for_method"
    assert decide(route, "POST", b"/a/x", ["GET", " delete "]).reason == "no_rule_for_method"
    assert decide(route, "DELETE", b"/a/x", ["GET"]).reason == "no_rule_for_method"
    assert decide(OPEN, "POST", b"/a/x", ["TRACE"]).reason == "method_never_allowed"
    assert decide(OPEN, "POST", b"/a/x", ["DELETE"]).allowed


def test_every_reason_has_its_sentence() -> None:
    route = ruled("/a/*", never=("/a/token",))
    asked = [("GET", b"/a/b"), ("GET", b"/b"), ("PUT", b"/a/b"), ("GET", b"/a/b%2Fc"), ("GET", b"/a/token")]
    decisions = [decide(route, *each) for each in asked] + [
        decide(OPEN, each, b"/") for each in ("GET", "TRACE")
    ]
    assert len({decision.sentence for decision in decisions}) == len(decisions)


# --- refused outright ----------------------------------------------------------------------------------------------

REFUSED = [
    (b"", "not_a_path"),
    (b"x", "not_a_path"),
    (b"*", "not_a_path"),
    (b"@host/x", "not_a_path"),
    (b"/a/..", "dot_segment"),
    (b"/..", "dot_segment"),
    (b"/.", "dot_segment"),
    (b"/a/./b", "dot_segment"),
    (b"/a/../b", "dot_segment"),
    (b"/a/%2e%2e/b", "dot_segment"),
    (b"/a/%2E./b", "dot_segment"),
    (b"/a/.%2e", "dot_segment"),
    (b"/a/%252e%252e/b", "dot_segment"),
    (b"/a/%25252e%25252e/b", "dot_segment"),
    (b"/a/%2e%252e/b", "dot_segment"),
    (b"/a/..;/b", "dot_segment"),
    (b"/a/..;x=1/b", "dot_segment"),
    (b"/a/%2e%2e%3b/b", "dot_segment"),
    (b"/a/.;/b", "dot_segment"),
    (b"/a/..%2fb", "dot_segment"),
    (b"/a%2f..%2fb", "dot_segment"),
    (b"/a%2f%2e%2e", "dot_segment"),
    (b"/a%252f..%252fb", "dot_segment"),
    (b"/a/..%3f", "dot_segment"),
    (b"/a/..%23", "dot_segment"),
    (b"/a/..?x", "dot_segment"),
    (b"/a/%2e", "dot_segment"),
    (b"/a\\b", "backslash"),
    (b"/a/..\\b", "backslash"),
    (b"/a%5cb", "backslash"),
    (b"/a%5C..%5Cb", "backslash"),
    (b"/a%255cb", "backslash"),
    (b"/a%25255cb", "backslash"),
    (b"/a\x00b", "control_byte"),
    (b"/a%00", "control_byte"),
    (b"/a%2500", "control_byte"),
    (b"/a%0d%0aX:%20y", "control_byte"),
    (b"/a\tb", "control_byte"),
    (b"/a%7f", "control_byte"),
    (b"/a#b", "fragment"),
    (b"/a%", "bad_escape"),
    (b"/a%2", "bad_escape"),
    (b"/a%zz", "bad_escape"),
    (b"/a%u002e%u002e/b", "bad_escape"),
    (b"/a/%c0%ae%c0%ae/b", "overlong"),
    (b"/a/%c0%af", "overlong"),
    (b"/a/%e0%80%af", "overlong"),
    (b"/a/%f0%80%80%af", "overlong"),
    (b"/a/%25c0%25ae", "overlong"),
    (b"/a/\xc0\xae", "overlong"),
]


@pytest.mark.scenario("G17")
@pytest.mark.parametrize(("path", "reason"), REFUSED)
def test_ambiguous_paths_are_refused(path: bytes, reason: str) -> None:
    for route in (OPEN, ruled("/**")):
        with pytest.raises(BadRequest) as refusal:
            decide(route, "GET", path)
        assert refusal.value.reason == reason
    with pytest.raises(BadRequest):
        canonical_path(path)


@pytest.mark.scenario("G16")
@pytest.mark.parametrize(
    ("path", "copy"),
    [
        (b"/a/b?c=%2e", "/a/b"),
        (b"/a%20b", "/a b"),
        (b"/a%2Fb", "/a/b"),
        (b"/100%25", "/100%"),
        (b"/%2541", "/%41"),
        (b"/gr%C3%B6%C3%9Fe", "/größe"),
        (b"/%FF", "/\N{REPLACEMENT CHARACTER}"),
        (b"//a//", "//a//"),
        (b"/a/...", "/a/..."),
        (b"/a/.well-known", "/a/.well-known"),
        (b"/a..b/..c", "/a..b/..c"),
    ],
)
def test_harmless_oddities_pass_and_are_shown_decoded(path: bytes, copy: str) -> None:
    assert decide(OPEN, "GET", path).allowed
    assert canonical_path(path) == copy


# --- globs ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("glob", "said"),
    [
        ("x", "begin"),
        ("", "begin"),
        ("/a?b", "special"),
        ("/a#", "special"),
        ("/a;b", "special"),
        ("/a%3Fb", "special"),
        ("/{a,b}", "special"),
        ("/[ab]", "special"),
        ("/a\\b", "special"),
        ("/a//b", "empty segment"),
        ("/a/../b", "dot segment"),
        ("/a/%2e%2e", "dot segment"),
        ("/a/%2F../b", "dot segment"),
        ("/a/**b", "whole segment"),
        ("/***", "whole segment"),
        ("/a/**/**", "twice"),
        ("/100%", "write %25"),
        ("/a\nb", "special"),
    ],
)
def test_faulty_globs(glob: str, said: str) -> None:
    assert said in (glob_fault(glob) or "")
    with pytest.raises(ValueError, match="a path glob"):
        compile_glob(glob)


@pytest.mark.parametrize(
    ("glob", "base", "possible"),
    [
        ("/v2/**", "/v2", True),
        ("/**", "/v2", True),
        ("/*/x", "/v2", True),
        ("/users/**", "/v2", False),
        ("/v2", "/v2/api", False),
        ("/v2", "/v2", True),
        ("/v2*/x", "/v2.1", True),
        ("/anything", "", True),
    ],
)
def test_rules_that_can_never_match(glob: str, base: str, possible: bool) -> None:
    assert may_match_below(glob, base) is possible


# --- properties ----------------------------------------------------------------------------------------------------

GLOBS = [
    "/a/**",
    "/a/*",
    "/a/*/b",
    "/**/b",
    "/a/b",
    "/*",
    "/a/**/b/*c",
    "/a/**/b/**/c",
    "/a*b*c/d",
    "/**",
    "/a/.b",
]
PIECES = (
    "a b c d me / / / // . .. ; ..; %2e %2E%2e %252e %25252e %2f %2F %252f %25252F %5c %255c \\ %00 %2500 % %zz %25 "
    "%3f %23 # ? %61 %2561 %c0%ae %20 é * .b -"
)

paths = st.lists(st.sampled_from(PIECES.split()), max_size=12).map(
    lambda pieces: ("/" + "".join(pieces)).encode()
)
globs = st.lists(st.sampled_from(GLOBS), min_size=1, max_size=3)


def matched(glob: str, path: bytes) -> bool:
    """Another implementation: by segments, with backtracking, as slow as it likes."""
    if glob == "/**":
        return path.startswith(b"/")

    def rest(want: list[str], have: list[bytes]) -> bool:
        if not want:
            return not have
        if want == ["**"]:
            return b"/".join(have) != b""
        if want[0] == "**":
            return any(rest(want[1:], have[i:]) for i in range(len(have) + 1))
        if not have:
            return False
        pattern = "[^/]*".join(map(re.escape, want[0].split("*")))
        whole = have[0] != b"" if want[0] == "*" else re.fullmatch(pattern.encode(), have[0], re.DOTALL)
        return bool(whole) and rest(want[1:], have[1:])

    return path.startswith(b"/") and rest(glob.split("/")[1:], path.split(b"/")[1:])


@pytest.mark.scenario("G17")
@settings(max_examples=1500, deadline=None)
@given(globs, paths)
@example(["/a/*"], b"/a/%25252e")
@example(["/a/*/b"], b"/a/%252f/b")
def test_no_decoding_of_an_allowed_path_is_denied(allow: list[str], path: bytes) -> None:
    try:
        decision = decide(ruled(*allow), "GET", path)
    except BadRequest:
        return
    if not decision.allowed:
        return
    reading = path.partition(b"?")[0]
    for _depth in range(4):
        assert any(matched(glob, reading) for glob in allow)
        assert not {b"..", b"."} & set(reading.replace(b"\\", b"/").split(b"/"))
        reading = unquote_to_bytes(reading)


@settings(max_examples=1500, deadline=None)
@given(st.sampled_from(GLOBS), st.lists(st.sampled_from([*"abcd//", "bc", "ab"]), max_size=14).map("".join))
def test_globs_mean_what_a_plain_matcher_says(glob: str, tail: str) -> None:
    path = f"/{tail}".encode()
    assert bool(compile_glob(glob).fullmatch(path)) is matched(glob, path)


@settings(max_examples=500, deadline=None)
@given(st.one_of(paths, st.binary(max_size=40), st.binary(max_size=40).map(lambda tail: b"/" + tail)))
def test_nothing_but_bad_request(path: bytes) -> None:
    try:
        copy = canonical_path(path)
    except BadRequest:
        with pytest.raises(BadRequest):
            decide(OPEN, "GET", path)
    else:
        assert copy.startswith("/")
        assert copy.encode()
        assert decide(OPEN, "GET", path).allowed


@pytest.mark.parametrize(
    "path",
    [
        b"/" + b"abcd" * 8000,
        b"/abcde" * 5000,
        b"/abcde/xyz" * 3000,
        b"/abcde/xyz/q" * 3000,
        b"/abcde" + b"/xyz" * 3000 + b"/" + b"q" * 16000,
        b"/x" + b"%2F" * 10000 + b"y",
        b"/x" + b"%25" * 10000,
        b"/" + b";" * 30000,
        b"/" + b"%3B" * 10000,
        b"//" * 16000,
    ],
    ids=range(10),
)
def test_no_path_makes_a_glob_slow(path: bytes) -> None:
    route = ruled("/**/a*b*c*d*e/**/x*y*z/**/q*r", "/**/*a*%2F*b*c%2F*/x", "/*%2F*%2F*%2F*/**/x*")
    started = time.perf_counter()
    decide(route, "GET", path)
    assert time.perf_counter() - started < 1  # quadratic would take minutes, and it takes milliseconds
