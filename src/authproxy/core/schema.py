"""The settings told to others: a JSON Schema for editors, and rows for a table; made from the classes of config.py."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from enum import Enum
from typing import Any, Literal, NamedTuple, get_args, get_origin, get_type_hints

from authproxy.core.config import Config
from authproxy.core.secret import Secret

REFERENCE = r"env:[A-Za-z_][A-Za-z0-9_]*|file:.+"


class Setting(NamedTuple):
    """One row: `routes.*.allow[].methods`, what may be written, what holds if nothing is, and the sentence."""

    path: str
    type: str
    default: str
    doc: str


def settings() -> list[Setting]:
    """Every key of routes.yaml, in the file's order."""
    return list(_rows(Config, ""))


def json_schema() -> dict[str, Any]:
    """JSON Schema 2020-12 of routes.yaml: what the reader accepts, but for checks across keys."""
    definitions: dict[str, Any] = {}
    root = _structure(Config, definitions)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "urn:authproxy:schema:routes:1",
        "title": "authproxy routes.yaml",
        **root,
        "$defs": dict(sorted(definitions.items())),
    }


def _structure(kind: type[Any], definitions: dict[str, Any]) -> dict[str, Any]:
    """The object of one class."""
    hints = get_type_hints(kind)
    schema: dict[str, Any] = {
        "type": "object",
        "description": _said(kind.__doc__),
        "additionalProperties": False,
        "properties": {f.name: _property(f, hints[f.name], definitions) for f in fields(kind)},
    }
    required = [f.name for f in fields(kind) if _required(f)]
    return schema | ({"required": required} if required else {})


def _property(field: Field[Any], hint: Any, definitions: dict[str, Any]) -> dict[str, Any]:
    schema = {"description": _sentence(field.metadata["doc"]), **_type(hint, field.metadata, definitions)}
    if field.default not in (MISSING, None):
        schema["default"] = _plain(field.default)
    if "examples" in field.metadata:
        schema["examples"] = list(field.metadata["examples"])
    return schema


def _type(hint: Any, rules: Mapping[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    """What may be written for a type."""
    kinds = _alternatives(hint)
    nullable = type(None) in get_args(hint) and not _is_list(kinds[0])
    if kinds == [Secret, str]:
        return {"type": ["string", "null"]}
    schema = _one(kinds[0], rules, definitions)
    if nullable and "enum" in schema:
        return {"enum": [*schema["enum"], None]}
    return schema | {"type": [schema["type"], "null"]} if nullable else schema


def _one(hint: Any, rules: Mapping[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    if is_dataclass(hint) and isinstance(hint, type):
        if hint.__name__ not in definitions:
            definitions[hint.__name__] = {}  # taken, should a class ever hold itself
            definitions[hint.__name__] = _structure(hint, definitions)
        reference = {"$ref": f"#/$defs/{hint.__name__}"}
        # An empty key is a structure with all its defaults, unless one of its keys is required.
        return reference if any(map(_required, fields(hint))) else {"anyOf": [reference, {"type": "null"}]}
    if _is_list(hint):
        return {"type": "array", "items": _type(get_args(hint)[0], rules, definitions)}
    if _is_mapping(hint):
        schema = {
            "type": ["object", "null"],
            "additionalProperties": _type(get_args(hint)[1], rules, definitions),
        }
        return schema | ({"propertyNames": {"pattern": _whole(rules["keys"])}} if "keys" in rules else {})
    if hint is Secret:
        return {"type": "string", "pattern": _whole(REFERENCE)}
    if choices := _choices(hint):
        return {"enum": choices}
    schema = {"type": {str: "string", int: "integer", float: "number", bool: "boolean"}[hint]}
    for rule in ("minimum", "maximum"):
        if rule in rules:
            schema[rule] = rules[rule]
    if hint is str and "pattern" in rules:
        schema["pattern"] = _whole(rules["pattern"])
    return schema


def _rows(kind: type[Any], path: str) -> Iterator[Setting]:
    hints = get_type_hints(kind)
    for field in fields(kind):
        below = f"{path}.{field.name}" if path else field.name
        hint = _alternatives(hints[field.name])[0]
        inner = get_args(hint)[1 if _is_mapping(hint) else 0] if _is_list(hint) or _is_mapping(hint) else hint
        below += "[]" if _is_list(hint) and is_dataclass(inner) else ""
        below += ".*" if _is_mapping(hint) and is_dataclass(inner) else ""
        if is_dataclass(inner) and isinstance(inner, type):
            yield from _rows(inner, below)
        else:
            yield Setting(below, _words(hints[field.name]), _default(field), _said(field.metadata["doc"]))


def _words(hint: Any) -> str:
    """A type for people."""
    kinds = _alternatives(hint)
    if kinds == [Secret, str]:
        return "text or reference"
    first = kinds[0]
    if _is_list(first):
        return f"list of {_words(get_args(first)[0])}"
    if _is_mapping(first):
        return f"mapping to {_words(get_args(first)[1])}"
    if choices := _choices(first):
        return " | ".join(map(str, choices))
    return {str: "text", int: "integer", float: "number", bool: "true | false", Secret: "reference"}[first]


def _default(field: Field[Any]) -> str:
    """`-` where the sentence says what holds, or nothing does."""
    if _required(field):
        return "required"
    value = _plain(field.default if field.default is not MISSING else {})
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{', '.join(map(str, value))}]"
    return f"{value:g}" if isinstance(value, float) else str(value) if value not in (None, {}) else "-"


def _plain(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.value
    return list(value) if isinstance(value, tuple) else value


def _alternatives(hint: Any) -> list[Any]:
    """The types of a union but for None; the one type of anything else."""
    if get_origin(hint) in (None, Literal) or _is_list(hint) or _is_mapping(hint):
        return [hint]
    return [kind for kind in get_args(hint) if kind is not type(None)]


def _choices(hint: Any) -> list[Any]:
    if get_origin(hint) is Literal:
        return list(get_args(hint))
    return [member.value for member in hint] if isinstance(hint, type) and issubclass(hint, Enum) else []


def _is_list(hint: Any) -> bool:
    return get_origin(hint) is tuple


def _is_mapping(hint: Any) -> bool:
    origin = get_origin(hint)
    return isinstance(origin, type) and issubclass(origin, Mapping)


def _required(field: Field[Any]) -> bool:
    return field.default is MISSING and field.default_factory is MISSING


def _whole(pattern: str) -> str:
    """JSON Schema searches; the reader matches whole."""
    return f"^(?:{pattern})$"


def _said(doc: str | None) -> str:
    return " ".join((doc or "").split())


def _sentence(doc: str) -> str:
    said = _said(doc)
    return said if said.startswith("`") else said[:1].upper() + said[1:]
