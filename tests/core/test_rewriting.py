"""URLs of an upstream lead back through the proxy, wherever a body is cut; all else stays as it is."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authproxy.core.rewriting import Base, Move, Rewriter

BASE = Base(b"http://127.0.0.1:8700", b"/github")
GITHUB = Move("https", "api.github.com", 443, b"", BASE)
DEEP = Move("http", "10.0.0.1", 8080, b"/api/v2", Base(b"https://localhost:9102", b""))


@pytest.mark.parametrize(
    ("value", "moved"),
    [
        (b"https://api.github.com/user/repos?page=2", b"http://127.0.0.1:8700/github/user/repos?page=2"),
        (b"https://api.github.com", b"http://127.0.0.1:8700/github"),
        (b"https://api.github.com/", b"http://127.0.0.1:8700/github/"),
        (b"https://api.github.com?x", b"http://127.0.0.1:8700/github?x"),
        (b"HTTPS://API.GitHub.com:443/x", b"http://127.0.0.1:8700/github/x"),
        (b"//api.github.com/x", b"http://127.0.0.1:8700/github/x"),
        (b"/user/repos?page=2", b"/github/user/repos?page=2"),
        (b"/", b"/github/"),
        (b"?page=2", None),
        (b"next", None),
        (b"../up", None),
        (b"", None),
        (b"http://api.github.com/x", None),
        (b"https://api.github.com:8443/x", None),
        (b"https://api.github.com.evil/x", None),
        (b"https://api.github.com@evil/x", None),
        (b"https://evil/api.github.com/x", None),
        (b"https://uploads.github.com/x", None),
        (b"//evil/x", None),
        (b"mailto:x@y", None),
    ],
)
def test_references(value: bytes, moved: bytes | None) -> None:
    assert GITHUB.reference(value) == (value if moved is None else moved)


@pytest.mark.parametrize(
    ("value", "moved"),
    [
        (b"http://10.0.0.1:8080/api/v2/x", b"https://localhost:9102/x"),
        (b"http://10.0.0.1:8080/api/v2", b"https://localhost:9102"),
        (b"/api/v2/x", b"/x"),
        (b"/api/v2", b"/"),
        (b"/api/v2?x", b"/?x"),
        (b"http://10.0.0.1:8080/api/v1/x", None),
        (b"http://10.0.0.1:8080/api/v22/x", None),
        (b"/api/v22", None),
        (b"/other", None),
        (b"http://10.0.0.1/api/v2/x", None),
    ],
)
def test_references_below_a_base_path(value: bytes, moved: bytes | None) -> None:
    assert DEEP.reference(value) == (value if moved is None else moved)


def test_fields() -> None:
    link = b'<https://api.github.com/a?page=2>; rel="next", <https://evil/b>; rel="last", </c>; rel=x'
    assert GITHUB.field(b"link", link) == (
        b'<http://127.0.0.1:8700/github/a?page=2>; rel="next", <https://evil/b>; rel="last", </github/c>; rel=x'
    )
    assert GITHUB.field(b"location", b"/x") == b"/github/x"


def through(text: bytes, cuts: list[int], move: Move = GITHUB) -> bytes:
    """The text as it comes out when it comes in such pieces."""
    rewriter = Rewriter(move)
    at, out = 0, b""
    for cut in sorted(cuts):
        out += rewriter.feed(text[at:cut])
        at = max(at, cut)
    return out + rewriter.feed(text[at:], last=True)


@pytest.mark.parametrize(
    ("text", "moved"),
    [
        (b'{"url":"https://api.github.com/x"}', b'{"url":"http://127.0.0.1:8700/github/x"}'),
        (b'["https://api.github.com"]', b'["http://127.0.0.1:8700/github"]'),
        (b'["https://api.github.com:443/x"]', b'["http://127.0.0.1:8700/github/x"]'),
        (b'["https://api.github.com{/sha}"]', b'["http://127.0.0.1:8700/github{/sha}"]'),
        (b'["https:\\/\\/api.github.com\\/x"]', b'["http:\\/\\/127.0.0.1:8700\\/github\\/x"]'),
        (b'["https:\\/\\/api.github.com"]', b'["http:\\/\\/127.0.0.1:8700\\/github"]'),
        (b'"https://api.github.com/a" "https://api.github.com/b"', None),
        (b'["see https://api.github.com/x"]', ...),
        (b'["\\"https://api.github.com/x\\""]', ...),
        (b'["https://api.github.com.evil/x"]', ...),
        (b'["https://api.github.com\\u002eevil/x"]', ...),
        (b'["https://api.github.com:8443/x"]', ...),
        (b'["https://api.github.com@evil/"]', ...),
        (b'["https://api.github.co', ...),
        (b'["https://api.github.com', ...),
        (b'["http://api.github.com/x"]', ...),
        (b"https://api.github.com/x", ...),
        (b"", ...),
    ],
)
def test_json_strings_that_begin_with_the_upstream(text: bytes, moved: Any) -> None:
    expected = text if moved is ... else moved
    if moved is None:
        expected = text.replace(b"https://api.github.com", b"http://127.0.0.1:8700/github")
    for cut in range(len(text) + 1):
        assert through(text, [cut]) == expected
    assert through(text, list(range(len(text)))) == expected


_words = st.sampled_from(
    [
        "https://api.github.com/x",
        "https://api.github.com",
        "https://api.github.comx",
        "https://api.githu",
        '"',
        "\\",
        "\\\\",
        "é",
        "https://",
        "h",
        "",
        'a"https://api.github.com/"b',
    ]
)
_texts = st.lists(_words, max_size=4).map("".join)
_values = st.recursive(
    _texts | st.none() | st.integers(),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.just("k") | st.just("l"), inner, max_size=2)
    ),
    max_leaves=12,
)


def _moved(value: Any) -> Any:
    if isinstance(value, str) and value.startswith("https://api.github.com"):
        rest = value[len("https://api.github.com") :]
        return "http://127.0.0.1:8700/github" + rest if not rest or rest[0] in "/?#{" else value
    if isinstance(value, list):
        return [_moved(one) for one in value]
    if isinstance(value, dict):
        return {key: _moved(one) for key, one in value.items()}
    return value


@given(_values, st.lists(st.integers(0, 400), max_size=12), st.booleans())
def test_exactly_those_strings_change_wherever_it_is_cut(
    value: Any, cuts: list[int], ascii_only: bool
) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only).encode()
    assert json.loads(through(text, [min(cut, len(text)) for cut in cuts])) == _moved(value)


@given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=12))
def test_anything_else_passes_byte_for_byte(data: bytes, cuts: list[int]) -> None:
    assert through(data, [min(cut, len(data)) for cut in cuts]) == data


def test_nothing_is_held_back_that_cannot_be_a_beginning() -> None:
    rewriter = Rewriter(GITHUB)
    assert rewriter.feed(b'{"a": 1}\n') == b'{"a": 1}\n'
    assert rewriter.feed(b'{"url": "https://api.gith') == b'{"url": '
    assert rewriter.feed(b"ub.com") == b""
    assert rewriter.feed(b'/x"}\n') == b'"http://127.0.0.1:8700/github/x"}\n'
