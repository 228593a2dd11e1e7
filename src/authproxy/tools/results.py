"""What a tool gives back, within bounds: a model's room is small, and what was cut is said."""

from __future__ import annotations

import itertools
import json
from typing import Any

from authproxy.tools.tool import Json, Kind, ToolError

# How long texts and lists may be (objects have more room), tried one after the other until the whole fits.
_CUTS = ((8000, 200), (2000, 100), (1000, 40), (400, 20), (160, 10), (80, 3))
NOTE = "This result was longer than the limit: texts and lists in it have been cut. Ask for less, or page."
_ELSEWHERE = "truncated"
_FIELDS = 5  # as many fields of an object as items of a list, this many times


def bounded(value: Json, limit: int) -> Json:
    """`value` in at most about `limit` bytes of JSON. Raises ToolError where it is no JSON, or stays too long."""
    size = size_of(value)
    if size <= limit:
        return value
    for text, items in _CUTS:
        cut = _cut(value, text, items)
        whole = {**cut, _ELSEWHERE: NOTE} if isinstance(cut, dict) else {"value": cut, _ELSEWHERE: NOTE}
        if size_of(whole) <= limit:
            return whole
    raise ToolError(
        Kind.BAD_OUTPUT,
        "The result is too long to be given back. Ask for less: fewer items, or without bodies.",
        developer_message=f"the result has {size} bytes; tools.max_output is {limit}",
    )


def size_of(value: Json) -> int:
    """Bytes of this value as JSON. Raises ToolError where it is none."""
    try:
        return len(json.dumps(value, allow_nan=False, ensure_ascii=False).encode("utf-8", "surrogatepass"))
    except (TypeError, ValueError, RecursionError):
        raise ToolError(
            Kind.BAD_OUTPUT,
            "The tool made a result that is no JSON; this is a fault of the tool.",
        ) from None


def _cut(value: Any, text: int, items: int) -> Any:
    if isinstance(value, str):
        return value if len(value) <= text else f"{value[:text]}… ({len(value) - text} characters more)"
    if isinstance(value, dict):
        pairs = itertools.islice(value.items(), items * _FIELDS)
        return {key: _cut(item, text, items) for key, item in pairs}
    if isinstance(value, list | tuple):
        return [_cut(item, text, items) for item in value[:items]]
    return value
