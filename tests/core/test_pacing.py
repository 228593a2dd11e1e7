"""When an answer asks for a pause, how long, and of whom it speaks."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from authproxy.core.config import ProviderChoice
from authproxy.core.facts import Pacing
from authproxy.core.pacing import Asked, pause_asked
from authproxy.core.providers import provider_of

NOW = 1_800_000_000.0
TODAY = (b"Date", b"Fri, 15 Jan 2027 08:00:00 GMT")  # which is NOW
PLAIN = Pacing()
RESET = Pacing(statuses=(403, 429), remaining="x-ratelimit-remaining", reset="x-ratelimit-reset")


def seconds(
    value: bytes, *more: tuple[bytes, bytes], status: int = 429, pacing: Pacing = PLAIN
) -> float | None:
    asked = pause_asked(pacing, status, [(b"Retry-After", value), *more], NOW)
    return None if asked is None else asked.seconds


@pytest.mark.scenario("B10", "D11")
@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"7", 7),
        (b" 7 ", 7),
        (b"0", None),
        (b"0.25", 0.25),
        (b"007", 7),
        (b"999999999999999", 999999999999999),
        (b"9" * 16, None),
        (b"-5", None),
        (b"+5", None),
        (b"1_0", None),
        ("\u0665".encode(), None),
        (b"1e9", None),
        (b"inf", None),
        (b"nan", None),
        (b"", None),
        (b"soon", None),
        (b"7, 7", None),
        (b"Fri, 15 Jan 2027 08:00:30 GMT", 30),
        (b"Friday, 15-Jan-27 08:00:30 GMT", 30),
        (b"Fri Jan 15 08:00:30 2027", 30),
        (b"Fri, 15 Jan 2027 07:59:00 GMT", None),
        (b"Thu, 01 Jan 1970 00:00:00 GMT", None),
        (b"2027-01-15T08:01:00Z", 60),
        (b"2027-01-15T09:01:00+01:00", 60),
        (b"2027-13-45T99:99:99Z", None),
        (b"Fri, 99 Foo 99999 99:99:99 GMT", None),
    ],
)
def test_retry_after_in_every_form(value: bytes, expected: float | None) -> None:
    assert seconds(value) == expected


def test_a_date_is_read_by_the_server_s_own_clock() -> None:
    slow = (b"Date", b"Fri, 15 Jan 2027 07:00:00 GMT")  # an hour behind ours
    assert seconds(b"Fri, 15 Jan 2027 07:00:20 GMT", slow) == 20
    assert seconds(b"Fri, 15 Jan 2027 07:00:20 GMT") is None
    assert seconds(b"Fri, 15 Jan 2027 08:00:20 GMT", (b"Date", b"yesterday")) == 20


@pytest.mark.scenario("D11")
@pytest.mark.parametrize("status", [200, 401, 403, 500, 502, 503, 504])
def test_no_other_status_asks_for_a_pause(status: int) -> None:
    assert seconds(b"30", status=status) is None


def test_a_429_without_a_time_asks_for_none() -> None:
    assert pause_asked(PLAIN, 429, [TODAY], NOW) is None
    assert pause_asked(RESET, 429, [(b"x-ratelimit-remaining", b"0")], NOW) is None


@pytest.mark.parametrize(
    ("status", "fields", "expected"),
    [
        (403, [(b"X-RateLimit-Remaining", b"0"), (b"X-RateLimit-Reset", b"1800000042")], 42),
        (403, [(b"X-RateLimit-Remaining", b"12"), (b"X-RateLimit-Reset", b"1800000042")], None),
        (403, [(b"X-RateLimit-Reset", b"1800000042")], None),
        (429, [(b"X-RateLimit-Reset", b"1800000042")], 42),
        (429, [(b"X-RateLimit-Reset", b"1800000042000")], 42),
        (429, [(b"X-RateLimit-Reset", b"42")], 42),
        (429, [(b"X-RateLimit-Reset", b"1799999999")], None),
        (429, [(b"X-RateLimit-Remaining", b"0.0"), (b"X-RateLimit-Reset", b"42")], 42),
        (429, [(b"X-RateLimit-Remaining", b"5"), (b"X-RateLimit-Reset", b"42")], None),
        (429, [(b"X-RateLimit-Reset", b"42"), (b"Retry-After", b"3")], 3),
        (403, [(b"Retry-After", b"3")], 3),
        (503, [(b"Retry-After", b"3")], None),
    ],
)
def test_fields_that_tell_of_a_reset(
    status: int, fields: list[tuple[bytes, bytes]], expected: float | None
) -> None:
    asked = pause_asked(RESET, status, fields, NOW)
    assert (None if asked is None else asked.seconds) == expected


def test_whose_pause_it_is_says_the_data() -> None:
    told = [(b"Retry-After", b"3"), (b"X-Rate-Limit-Problem", b"AppMinute")]
    assert pause_asked(PLAIN, 429, told, NOW) == Asked(3, app=False)
    xero = provider_of("xero", ProviderChoice(client_id="x", client_auth="none")).pacing
    assert pause_asked(xero, 429, told, NOW) == Asked(3, app=True)
    assert pause_asked(xero, 429, [told[0], (b"X-Rate-Limit-Problem", b"minute")], NOW) == Asked(3, app=False)
    chosen = provider_of("xero", ProviderChoice(client_id="x", client_auth="none", pauses="user")).pacing
    assert pause_asked(chosen, 429, told, NOW) == Asked(3, app=False)


@given(st.one_of(st.binary(max_size=60), st.text(max_size=40).map(str.encode)), st.binary(max_size=40))
@settings(max_examples=300, deadline=None)
def test_nothing_that_is_said_breaks_it(value: bytes, date: bytes) -> None:
    for pacing in (PLAIN, RESET):
        fields = [(b"Retry-After", value), (b"Date", date), (b"x-ratelimit-reset", value)]
        asked = pause_asked(pacing, 429, fields, NOW)
        assert asked is None or (asked.seconds > 0 and math.isfinite(asked.seconds))
