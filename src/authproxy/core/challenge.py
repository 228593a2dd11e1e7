"""Reads WWW-Authenticate (RFC 9110 section 11.6.1): every field line, every challenge, without ever raising."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

_LINES, _LENGTH = 32, 8192  # far above what servers send; below what would cost time

_WORD = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_GAP = re.compile(r"[ \t,]*")
_SCHEME = re.compile(rf"({_WORD})(?=[ \t,]|$)[ \t]*")
_TOKEN68 = re.compile(r"[A-Za-z0-9._~+/-]+=*(?=[ \t]*(?:,|$))")
# a value without quotes may hold what a token may not (`scope=a:b`): servers do send it
_PARAM = re.compile(rf'({_WORD})[ \t]*=[ \t]*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))')
_ESCAPE = re.compile(r"\\(.)")


class Challenge(NamedTuple):
    """A scheme in lower case, and its parameters with names in lower case."""

    scheme: str
    params: Mapping[str, str]


def read_challenges(lines: Sequence[str]) -> list[Challenge]:
    """All challenges. A line that stops making sense gives what stood before the broken challenge."""
    found: list[Challenge] = []
    for line in lines[:_LINES]:
        found += _line(line[:_LENGTH])
    return found


def _line(text: str) -> list[Challenge]:
    found: list[tuple[str, dict[str, str]]] = []
    at = 0
    while (at := _after_gap(text, at)) < len(text):
        param = _PARAM.match(text, at) if found else None
        if param is not None:
            name, quoted, plain = param.groups()
            found[-1][1].setdefault(name.lower(), plain or _ESCAPE.sub(r"\1", quoted or ""))
            at = param.end()
            continue
        scheme = _SCHEME.match(text, at)
        if scheme is None:
            found = found[:-1]
            break
        found.append((scheme[1].lower(), {}))
        at = scheme.end()
        opaque = _TOKEN68.match(text, at)
        if opaque is not None:
            at = opaque.end()
    return [Challenge(scheme, params) for scheme, params in found]


def _after_gap(text: str, at: int) -> int:
    gap = _GAP.match(text, at)
    return gap.end() if gap else at
