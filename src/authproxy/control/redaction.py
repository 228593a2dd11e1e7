"""The operator's regular expressions over what strangers wrote: an expression that takes too long is ended.

Some expressions take time that grows with the square of a text, or worse, and everybody waits meanwhile: matching
holds the interpreter. CPython looks for signals while it matches, every 4096 steps, of which one can be as long as the
text. So a timer ends it, and long texts are searched piece by piece.
"""

from __future__ import annotations

import re
import signal
import threading
import time
from types import FrameType

from authproxy.core.tool_rules import REDACTED, redacted

MOST = 0.25
"""Seconds of computing for all expressions of one call, before it or after it."""
PIECE = 32768
OVERLAP = 4096
"""Characters: of a text that is longer than a piece, what is found in it is no longer than this."""


class Redaction:
    """For one pass over one value. What cannot be searched in time is taken out as a whole (`whole`: of results, where
    the rest is still of use), or may not pass (of arguments, of which none may silently become another)."""

    def __init__(self, *, whole: bool, seconds: float = MOST) -> None:
        self._left = seconds
        self._otherwise = REDACTED if whole else None

    def __call__(self, pattern: re.Pattern[str], text: str) -> str | None:
        """The text without what the pattern finds."""
        if self._left <= 0:
            return self._otherwise
        began = time.perf_counter()
        said = within(self._left, pattern, text)
        self._left -= time.perf_counter() - began
        return self._otherwise if said is None else said


def within(seconds: float, pattern: re.Pattern[str], text: str) -> str | None:
    """The text redacted; None where that takes longer. Signals reach the main thread alone, which is where we serve:
    in another one it takes as long as it takes."""
    if threading.current_thread() is not threading.main_thread():
        return _redacted(pattern, text)
    if signal.getsignal(signal.SIGVTALRM) is not _late:
        # It is never put back: a signal that is still on its way would end the process.
        signal.signal(signal.SIGVTALRM, _late)
    try:
        _timer.armed = True
        signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
        try:
            return _redacted(pattern, text)
        finally:
            _timer.armed = False
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    except _TooLong:
        return None


class _Timer:
    """Whether a signal is meant for a search that goes on."""

    armed = False


_timer = _Timer()


def _late(_number: int, _frame: FrameType | None) -> None:
    if _timer.armed:
        _timer.armed = False
        raise _TooLong


def _redacted(pattern: re.Pattern[str], text: str) -> str:
    if len(text) <= PIECE:
        return redacted(pattern, text)
    kept, at = [], 0
    for begin, end in _found(pattern, text):
        if begin >= at:
            kept += [text[at:begin], REDACTED]
        at = max(at, end)
    return "".join((*kept, text[at:]))


def _found(pattern: re.Pattern[str], text: str) -> list[tuple[int, int]]:
    """Where it is found, in order; of what two pieces share, in both."""
    spans = {
        match.span()
        for start in range(0, len(text) - OVERLAP, PIECE - OVERLAP)
        for match in pattern.finditer(text, start, start + PIECE)
    }
    return sorted(spans)


class _TooLong(Exception):
    """The timer has run out."""
