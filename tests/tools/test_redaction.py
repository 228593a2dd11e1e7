"""Regular expressions over what strangers wrote: found wherever they are, and ended in time."""

from __future__ import annotations

import asyncio
import random
import re
import signal

import pytest

from authproxy.control.redaction import OVERLAP, PIECE, Redaction, within
from authproxy.core.tool_rules import REDACTED, redacted

CARD = re.compile(r"\b\d{16}\b")
SLOW = re.compile("(a+)+$")
BAIT = "a" * 60 + "b"


@pytest.mark.parametrize("size", [PIECE - 1, PIECE, PIECE + 1, 2 * PIECE - OVERLAP, 2 * PIECE, 200_000])
def test_long_texts_are_searched_as_short_ones_are(size: int) -> None:
    chosen = random.Random(size)
    words = ["x ", "4111111111111111 ", "abc", "1234567890123456", "\n"]
    text = "".join(chosen.choice(words) for _ in range(size // 2))[:size]
    assert within(30, CARD, text) == redacted(CARD, text)


@pytest.mark.parametrize("at", range(PIECE - 20, PIECE + 20, 3))
def test_nothing_is_missed_where_two_pieces_meet(at: int) -> None:
    text = "x" * at + " 4111111111111111 " + "x" * PIECE
    assert within(30, CARD, text) == text.replace("4111111111111111", REDACTED)


def test_what_takes_too_long_is_taken_out_or_may_not_pass() -> None:
    whole, strict = Redaction(whole=True, seconds=0.05), Redaction(whole=False, seconds=0.05)
    assert whole(CARD, "card 4111111111111111") == f"card {REDACTED}"
    assert whole(SLOW, BAIT) == REDACTED
    assert whole(CARD, "short") == REDACTED, "all the time is spent"
    assert strict(SLOW, BAIT) is None
    assert strict(CARD, "short") is None


async def test_a_late_signal_ends_nothing_else() -> None:
    assert within(0.02, SLOW, BAIT) is None
    signal.raise_signal(signal.SIGVTALRM)
    await asyncio.sleep(0)
    assert signal.getitimer(signal.ITIMER_VIRTUAL) == (0.0, 0.0)
    assert await asyncio.to_thread(within, 0.02, CARD, "4111111111111111") == REDACTED
    assert within(0.02, CARD, "4111111111111111") == REDACTED
