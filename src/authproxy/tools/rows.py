"""A tool that is one request, said as data: its path, query and body from the arguments."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from urllib.parse import quote

from authproxy.tools.tool import MISSING, Call, Input, Json, Parameter, bad_input

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
Shape = Callable[[Json, Input], Json]

_WHOLE = re.compile(r"\{([a-z_][a-z0-9_]*)\}")
_LEFT_OUT: Any = object()


class RowFault(ValueError):
    """A row is not what the seam of the tools says; a fault of this package, never of the operator."""


def request_of(
    raw: Any, parameters: tuple[Parameter, ...], shape: Shape | None
) -> Callable[[Call], Awaitable[Json]]:
    """The function of a row with `request`; `shape` makes the result of the answer. Raises RowFault."""
    if not isinstance(raw, dict) or raw.keys() - {"method", "path", "query", "json"}:
        raise RowFault("request has method, path, query and json, and nothing else")
    known = {one.name: one for one in parameters}
    method, path, query, json = raw.get("method"), raw.get("path"), raw.get("query", {}), raw.get("json")
    if method not in METHODS:
        raise RowFault(f"request.method must be one of {', '.join(METHODS)}")
    if not isinstance(path, str) or not path.startswith("/") or not isinstance(query, dict):
        raise RowFault("request.path must begin with `/`, and request.query be a mapping")
    for name in _WHOLE.findall(path):
        if name not in known or not (known[name].required or known[name].default is not MISSING):
            raise RowFault(f"request.path needs {name}, which the tool may be called without")
    if re.search(r"[{}]", _WHOLE.sub("", path)):
        raise RowFault("request.path has a brace that is no parameter")
    _demand_known([query, json], known)

    async def run(call: Call) -> Json:
        sent = None if json is None else filled(json, call.input)
        answer = await call.api.call(
            method, path_of(path, call.input), query=filled(query, call.input), json=sent
        )
        return answer.json if shape is None else shape(answer.json, call.input)

    return run


def path_of(template: str, given: Mapping[str, Any]) -> str:
    """The path with each `{name}` as one encoded segment. Raises ToolError where an argument can be none."""
    return _WHOLE.sub(lambda match: segment(given[match[1]], match[1]), template)


def segment(value: Any, name: str) -> str:
    """An argument as exactly one segment of a path.

    Raises ToolError for what would make another path of it: nothing at all (a list instead of its item), `.` and
    `..` (which no encoding hides), and a slash, which many servers decode before they look.
    """
    text = str(value)
    if not text or text in (".", "..") or re.search(r"[/\\\x00-\x1f\x7f]", text):
        raise bad_input(f"{name} is not an id: it may not be empty, nor hold a slash or control characters")
    return quote(text, safe="@:")


def filled(template: Json, given: Mapping[str, Any]) -> Json:
    """`template` with each string that is exactly `{name}` replaced by the argument, or left out without one."""
    found = _filled(template, given)
    return None if found is _LEFT_OUT else found


def _filled(template: Json, given: Mapping[str, Any]) -> Json:
    if isinstance(template, str):
        match = _WHOLE.fullmatch(template)
        return template if match is None else given.get(match[1], _LEFT_OUT)
    if isinstance(template, dict):
        pairs = {key: _filled(value, given) for key, value in template.items()}
        kept = {key: value for key, value in pairs.items() if value is not _LEFT_OUT}
        # an object that only holds arguments is not there where none of them is
        return kept if kept or not template else _LEFT_OUT
    if isinstance(template, list):
        return [value for value in (_filled(item, given) for item in template) if value is not _LEFT_OUT]
    return template


def _demand_known(template: Json, known: Mapping[str, Parameter]) -> None:
    if isinstance(template, str):
        match = _WHOLE.fullmatch(template)
        if match is not None and match[1] not in known:
            raise RowFault(f"request names {match[1]}, which is no parameter")
        if match is None and _WHOLE.search(template):
            raise RowFault(f"{template!r} is neither a parameter nor a constant")
    elif isinstance(template, dict):
        for value in template.values():
            _demand_known(value, known)
    elif isinstance(template, list):
        for value in template:
            _demand_known(value, known)
