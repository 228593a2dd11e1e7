"""What an error answer says, whatever its shape: machine codes, subcodes and messages, held against the data."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from authlib.common.urls import extract_params  # type: ignore[import-untyped]  # authlib ships no types

from authproxy.core.facts import Row

_DEPTH, _NODES = 6, 2000  # an error answer is small; a hostile one is not walked to its end

_CODES = frozenset(
    {"error", "code", "status", "type", "reason", "category", "errorCode", "error_code", "errorType", ".tag"}
    | {"serviceErrorCode"}
)
_SUBCODES = frozenset({"error_subtype", "suberror"})
_TEXTS = frozenset(
    {"error_description", "message", "description", "detail", "title", "error_summary", "reason", "error"}
    | {"errorMessage", "Detail", "Title"}
)
_AADSTS = re.compile(r"AADSTS\d{4,8}")


@dataclass(frozen=True, slots=True)
class Evidence:
    """All that a row of the provider data may ask about. Never shown: it holds the provider's own text."""

    status: int
    codes: tuple[str, ...] = ()
    subcodes: tuple[str, ...] = ()
    texts: tuple[str, ...] = ()
    challenge: frozenset[str] = frozenset()

    def __repr__(self) -> str:
        return f"Evidence(status={self.status})"

    def shows(self, row: Row) -> bool:
        """Whether all that the row asks for is there."""
        return (
            (not row.status or status_in(self.status, row.status))
            and (not row.code or any(code in row.code for code in self.codes))
            and (not row.subcode or any(code in row.subcode for code in self.subcodes))
            and (not row.challenge or not self.challenge.isdisjoint(row.challenge))
            and (not row.text or self._says(row.text))
        )

    def _says(self, sought: Iterable[str]) -> bool:
        said = " \n ".join(self.texts).casefold()
        return any(text.casefold() in said for text in sought)


def status_in(status: int, statuses: Iterable[int | str]) -> bool:
    """Whether a status is listed, itself or by its class (`5xx`)."""
    return any(status == s or (isinstance(s, str) and s == f"{status // 100}xx") for s in statuses)


def read_document(content_type: str, body: bytes) -> Any:
    """The body as JSON, or as form fields where it says so or is nothing else; None where it is neither."""
    try:
        text = body.decode("utf-8-sig").strip()
    except UnicodeDecodeError:
        return None
    kind = content_type.partition(";")[0].strip().lower()
    if kind != "application/x-www-form-urlencoded":
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            if kind not in ("", "text/plain"):
                return None
    fields = extract_params(text)
    # with a declared form any field will do; without, only the fields of a token endpoint are believed
    if not fields or (kind in ("", "text/plain") and not {"access_token", "error"} & {k for k, _ in fields}):
        return None
    return dict(fields)


def gather(status: int, document: Any, *, challenge: Iterable[str] = ()) -> Evidence:
    """The evidence in an error answer of any shape."""
    codes: list[str] = []
    subcodes, texts, first = [], [], 0
    for key, value in _leaves(document):
        if key in _CODES and (isinstance(value, int) or not re.search(r"\s", value)):
            # `error` is RFC 6749's own word, and goes before whatever else looks like a code
            codes.insert(first if key == "error" else len(codes), str(value))
            first += key == "error"
        if key in _SUBCODES:
            subcodes.append(str(value))
        if key in _TEXTS and isinstance(value, str):
            texts.append(value)
        if key == "error_codes":  # Microsoft's numbers; its descriptions are not meant to be parsed
            subcodes.append(f"AADSTS{value}")
    if not any(code.startswith("AADSTS") for code in subcodes):
        subcodes += [code for text in texts for code in _AADSTS.findall(text)]
    return Evidence(status, tuple(codes), tuple(subcodes), tuple(texts), frozenset(challenge))


def _leaves(document: Any) -> Iterator[tuple[str, str | int]]:
    """Strings and whole numbers with the key they stand under, breadth first, so that outer words come first."""
    level: Sequence[tuple[str, Any]] = [("", document)]
    seen = 0
    for _ in range(_DEPTH):
        below: list[tuple[str, Any]] = []
        for key, value in level:
            seen += 1
            if seen > _NODES:
                return
            if isinstance(value, Mapping):
                below += [(str(k), v) for k, v in value.items()]
            elif isinstance(value, list):
                below += [(key, v) for v in value]
            elif isinstance(value, str) or (isinstance(value, int) and not isinstance(value, bool)):
                yield key, value
        level = below
