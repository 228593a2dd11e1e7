"""An injected token that an upstream reflects does not come back."""

import base64
import gzip
import itertools
import json
import zlib
from collections.abc import Callable
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authproxy.core.errors import PolicyDenied
from authproxy.core.scrub import Scrubber, Watcher, is_text, needles_of, scrubbed_value

TOKEN = b"ya29.a0-CANARY_8f3/2b7e+xyz~tail"
LIMIT = 1 << 20


def scrub(pieces: list[bytes], limit: int = LIMIT) -> bytes:
    scrubber = Scrubber(needles_of(TOKEN), limit)
    out = [scrubber.feed(piece) for piece in pieces]
    return b"".join([*out, scrubber.feed(b"", last=True)])


FORMS = {
    "raw": TOKEN,
    "percent": quote(TOKEN, safe="").encode(),
    "hex": TOKEN.hex().encode(),
    "HEX": TOKEN.hex().upper().encode(),
    "json": json.dumps({"headers": {"Authorization": f"Bearer {TOKEN.decode()}"}}).encode(),
    "base64": base64.b64encode(TOKEN),
    "base64 of the field, 1": base64.b64encode(b"Bearer " + TOKEN),
    "base64 of the field, 2": base64.b64encode(b": Bearer " + TOKEN + b"!"),
    "base64url": base64.urlsafe_b64encode(b"xBearer " + TOKEN),
}


@pytest.mark.scenario("F05", "N8")
@pytest.mark.parametrize("form", FORMS, ids=str)
def test_every_form_cut_at_every_place(form: str) -> None:
    body = b"before " + FORMS[form] + b" after"
    for cut in range(len(body) + 1):
        out = scrub([body[:cut], body[cut:]])
        assert len(out) == len(body)
        assert not any(needle in out for needle in needles_of(TOKEN))
        assert out.startswith(b"before ")
        assert out.endswith(b" after")


@given(st.lists(st.binary(max_size=40), max_size=12))
def test_what_holds_no_token_passes_as_it_is(pieces: list[bytes]) -> None:
    assert scrub(pieces) == b"".join(pieces)


@given(st.binary(max_size=80), st.binary(max_size=80), st.lists(st.integers(0, 200), max_size=6))
def test_any_cutting_gives_the_same_bytes(before: bytes, after: bytes, cuts: list[int]) -> None:
    body = before + TOKEN + after
    edges = [0, *sorted(min(cut, len(body)) for cut in cuts), len(body)]
    out = scrub([body[a:b] for a, b in itertools.pairwise(edges)])
    assert out == body.replace(TOKEN, b"*" * len(TOKEN))


@pytest.mark.scenario("G08")
def test_an_event_is_not_held_back() -> None:
    scrubber = Scrubber(needles_of(TOKEN), LIMIT)
    assert scrubber.feed(b"data: hello\n\n") == b"data: hello\n\n"


def test_past_the_limit_everything_passes() -> None:
    assert scrub([b"x" * 100, TOKEN], limit=50) == b"x" * 100 + TOKEN


def bare(plain: bytes) -> bytes:
    """Deflate without zlib's wrapping."""
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(plain) + packer.flush()


def in_members(plain: bytes) -> bytes:
    return gzip.compress(b"first") + gzip.compress(b"") + gzip.compress(plain)


@pytest.mark.scenario("F05")
@pytest.mark.parametrize("compress", [gzip.compress, zlib.compress, bare, in_members])
def test_a_compressed_reflection_is_not_released(compress: object) -> None:
    body = compress(b"{" + TOKEN * 3 + b"}" + bytes(range(256)) * 20)  # type: ignore[operator]
    for cut in range(0, len(body), 7):
        watcher = Watcher(needles_of(TOKEN), LIMIT)
        out: list[bytes] = []
        with pytest.raises(PolicyDenied):
            out.extend(watcher.feed(piece) for piece in (body[:cut], body[cut:]))
        plain = zlib.decompressobj(-15 if compress is bare else 47).decompress(b"".join(out))
        assert TOKEN not in plain


@given(
    st.binary(max_size=3000),
    st.integers(1, 400),
    st.sampled_from([gzip.compress, zlib.compress, bare, in_members]),
)
def test_a_compressed_body_passes_byte_for_byte(
    plain: bytes, size: int, compress: Callable[[bytes], bytes]
) -> None:
    body = compress(plain)
    watcher = Watcher(needles_of(TOKEN), LIMIT)
    out = [watcher.feed(body[i : i + size]) for i in range(0, len(body), size)]
    assert b"".join([*out, watcher.feed(b"", last=True)]) == body


def test_what_is_not_gzip_after_all_passes() -> None:
    watcher = Watcher(needles_of(TOKEN), LIMIT)
    assert watcher.feed(b"plain text") + watcher.feed(b" more", last=True) == b"plain text more"


def test_short_values_are_not_looked_for() -> None:
    assert needles_of(b"abc") == ()
    assert Scrubber((), LIMIT).feed(b"abc") == b"abc"


def test_field_values() -> None:
    assert scrubbed_value(b"Bearer " + TOKEN, needles_of(TOKEN)) == b"Bearer " + b"*" * len(TOKEN)


@pytest.mark.parametrize(
    ("content_type", "expected"),
    [
        ("application/json; charset=utf-8", True),
        ("application/problem+json", True),
        ("text/event-stream", True),
        ("application/x-ndjson", True),
        ("image/png", False),
        ("application/octet-stream", False),
        ("", True),
    ],
)
def test_text_types(content_type: str, expected: bool) -> None:
    assert is_text(content_type) is expected
