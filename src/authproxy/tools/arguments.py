"""A call's input against the tool's parameters: what models write a little wrong is understood, all else is told."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any

from authproxy.tools.tool import MISSING, Input, Parameter, Tool, ToolError, bad_input

_SHOWN = 12  # names that an error lists
_DEEPEST = 100  # levels of a JSON value
_INTEGER = re.compile(r"[+-]?[0-9]{1,18}")
_NUMBER = re.compile(r"[+-]?[0-9]{1,18}(\.[0-9]{1,18})?([eE][+-]?[0-9]{1,3})?")
_BAD: Any = object()


def checked(tool: Tool, given: Mapping[str, Any]) -> Input:
    """The input with every argument of its parameter's type, and defaults filled in.

    A null is an argument that was not given. Raises ToolError with words that say how to call the tool: they name
    parameters and types, and of values only those that the tool itself offers.
    """
    known = {one.name: one for one in tool.parameters}
    strange = [name for name in given if name not in known]
    faults = [_unknown(name, known) for name in strange[:_SHOWN]]
    found: dict[str, Any] = {}
    for one in tool.parameters:
        value = given.get(one.name)
        if value is None:
            if one.required:
                faults.append(f"{one.name} ({wanted(one)}) is required")
            elif one.default is not MISSING:
                found[one.name] = one.default
            continue
        read = _read(one, value)
        if read is _BAD:
            faults.append(f"{one.name} must be {wanted(one)}")
        else:
            found[one.name] = read
    if faults:
        raise _bad(tool, faults)
    return found


def wanted(parameter: Parameter) -> str:
    """What a parameter takes, in words."""
    if parameter.type == "array":
        items = "strings" if parameter.items == "string" else f"{parameter.items} values"
        text = "a list of JSON values" if parameter.items == "json" else f"a list of {items}"
    else:
        text = {
            "string": "a string",
            "integer": "a whole number",
            "number": "a number",
            "boolean": "true or false",
            "json": "a JSON value",
        }[parameter.type]
    return f"{text}: {' or '.join(parameter.enum)}" if parameter.enum else text


def _bad(tool: Tool, faults: list[str]) -> ToolError:
    takes = ", ".join(
        f"{one.name}{' (required)' if one.required else ''}: {wanted(one)}" for one in tool.parameters
    )
    return bad_input(
        f"{tool.qualified_name} was called wrongly: {'; '.join(faults[:_SHOWN])}",
        hint=f"It takes {takes}." if takes else "It takes no arguments.",
    )


def _unknown(name: str, known: Mapping[str, Parameter]) -> str:
    from difflib import get_close_matches  # loaded where something is misspelt

    shown = name if re.fullmatch(r"[A-Za-z0-9_.-]{1,64}", name) else "an argument"
    near = get_close_matches(name[:64], known, n=1)
    return f"{shown} is not a parameter" + (f" (did you mean {near[0]}?)" if near else "")


def _read(one: Parameter, value: Any) -> Any:
    """The value as the parameter's type, or _BAD."""
    if one.type == "array":
        return _read_list(one, value)
    return _read_one(one.type, one.enum, value)


def _read_list(one: Parameter, value: Any) -> Any:
    if isinstance(value, str):
        text = value.strip()
        if text.startswith("["):
            value = _parsed(text)
        elif text and one.items == "string" and "," not in text:
            value = [value]  # one, where a list of one was meant
    elif isinstance(value, dict) and one.items == "json":
        value = [value]
    if not isinstance(value, list):
        return _BAD
    found = [_read_one(one.items or "json", one.enum, item) for item in value]
    return _BAD if any(item is _BAD for item in found) else found


def _read_one(kind: str, enum: tuple[str, ...], value: Any) -> Any:
    match kind:
        case "string":
            return _read_string(enum, value)
        case "integer":
            return _read_integer(value)
        case "number":
            return _read_number(value)
        case "boolean":
            if isinstance(value, str):
                return {"true": True, "false": False}.get(value.strip().lower(), _BAD)
            return value if isinstance(value, bool) else _BAD
        case _:
            return _read_json(value)


def _read_string(enum: tuple[str, ...], value: Any) -> Any:
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)  # an id that looks like a number
    if not isinstance(value, str) or not _is_text(value):
        return _BAD
    if not enum or value in enum:
        return value
    alike = [one for one in enum if one.casefold() == value.strip().casefold()]
    return alike[0] if len(alike) == 1 else _BAD


def _read_integer(value: Any) -> Any:
    if isinstance(value, str) and _INTEGER.fullmatch(value.strip()):
        return int(value)
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63 else _BAD


def _read_number(value: Any) -> Any:
    if isinstance(value, str) and _NUMBER.fullmatch(value.strip()):
        value = float(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > 1e300:
        return _BAD
    return value if math.isfinite(value) else _BAD


def _read_json(value: Any) -> Any:
    if isinstance(value, str) and value.strip()[:1] in ("{", "["):
        parsed = _parsed(value)
        value = value if parsed is _BAD else parsed
    try:
        json.dumps(value, allow_nan=False, ensure_ascii=False).encode()
    except (ValueError, RecursionError):  # NaN, half a character, or deeper than anybody means
        return _BAD
    return value if _is_shallow(value, _DEEPEST) else _BAD


def _is_shallow(value: Any, levels: int) -> bool:
    """What goes deeper can be read here and, a few calls further down, not be written any more."""
    if not isinstance(value, dict | list):
        return True
    items = value.values() if isinstance(value, dict) else value
    return levels > 0 and all(_is_shallow(item, levels - 1) for item in items)


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return _BAD


def _is_text(value: str) -> bool:
    """JSON can say half a character (`\\ud800`), which no provider can be sent."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
