"""HubSpot's records in the shape that a model reads, and a tool's arguments as HubSpot's properties."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any, Final

from authproxy.tools.kits.hubspot.objects import Field, Kind, ObjectType
from authproxy.tools.tool import Json

SHORT: Final = 100
"""Characters of a text where the caller wants long ones cut."""

BRIEF: Final = 200
"""Characters of a text of an associated object."""

LONG: Final = 8_000
"""Characters of any text: an e-mail's whole thread is of no use to a model."""

# No alternative of it looks past the next bracket: the time is linear in a text that strangers may have written.
_TAG: Final = re.compile(r"<(/?)([A-Za-z][A-Za-z0-9:-]*)(?=[\s/>])[^<>]*>|<![^<>]*>")
_BREAKS: Final = frozenset({"br", "p", "div", "li", "tr", "h1", "h2", "h3", "h4", "h5", "h6"})
_UNSEEN: Final = frozenset({"style", "script"})
_INLINE: Final = "a b blockquote code em font hr i img ol pre s span strong sub sup table td th u ul"
_HTML: Final = _BREAKS | frozenset(_INLINE.split())


def shape(record: Mapping[str, Any], fields: tuple[Field, ...], longest: int = LONG) -> dict[str, Json]:
    """A record's id and those of `fields` that it has; texts are cut at `longest` characters."""
    properties = record.get("properties")
    held = properties if isinstance(properties, dict) else {}
    shaped: dict[str, Json] = {"id": number(record.get("id"))}
    for field in fields:
        value = held.get(field.name)
        if value not in (None, ""):
            shaped[field.key] = _read(field.kind, value, longest)
    if any(key in shaped for key in ("body_text", "summary", "body")):
        shaped.pop("preview", None)
    return shaped


def full(record: Mapping[str, Any], kind: ObjectType, longest: int = LONG) -> dict[str, Json]:
    """All that is shown of a record that was asked for, with when it was made and changed."""
    shaped = shape(record, kind.fields, longest)
    for key, name in (("created_at", "createdAt"), ("updated_at", "updatedAt")):
        if isinstance(record.get(name), str):
            shaped[key] = _time(record[name])
    return shaped


def written(kind: ObjectType, given: Mapping[str, Any]) -> dict[str, str]:
    """The arguments that are properties as they are. Times and what needs a look-up are the tools' own."""
    return {
        field.name: _write(field.kind, given[field.key])
        for field in kind.fields
        if given.get(field.key) is not None and field.kind not in (Kind.TIME, Kind.ID, Kind.FLAG)
    }


def number(value: object) -> Json:
    """An id as a number, as the tools' parameters have it; as it is where it is none."""
    text = str(value) if value is not None else ""
    return int(text) if text.isascii() and text.isdigit() else value


def cut(text: str, longest: int) -> str:
    """`text`, or its beginning with how much is left out."""
    return (
        text
        if len(text) <= longest
        else f"{text[:longest].rstrip()}… ({len(text) - longest} more characters)"
    )


def plain(rich: str) -> str:
    """HubSpot's rich text as text: no tags, line breaks kept, entities resolved."""
    if "<" not in rich and "&" not in rich:
        return rich.strip()
    lines = (" ".join(line.split()) for line in html.unescape("".join(_visible(rich))).splitlines())
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()


def _visible(rich: str) -> Iterator[str]:
    seen, hidden = 0, ""
    for tag in _TAG.finditer(rich):
        name = (tag[2] or "").lower()
        if not hidden:
            yield " ".join(rich[seen : tag.start()].split("\n"))
            if name in _BREAKS and (tag[1] or name == "br"):
                yield "\n"
            hidden = name if name in _UNSEEN and not tag[1] else ""
        elif name == hidden and tag[1]:
            hidden = ""
        seen = tag.end()
    if not hidden:
        yield rich[seen:]


def rich(text: str) -> str:
    """Text as rich text. What has tags of HTML already is taken for HTML and stays as it is."""
    if any((tag[2] or "").lower() in _HTML for tag in _TAG.finditer(text)):
        return text
    return html.escape(text, quote=False).replace("\r\n", "\n").replace("\n", "<br>")


def decimal(value: float) -> str:
    """A number as HubSpot wants it: without exponent, and without a fraction that is none."""
    text = format(Decimal(str(value)), "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def _read(kind: Kind, value: Any, longest: int) -> Json:
    if kind is Kind.FLAG:
        return str(value).lower() == "true"
    if kind is Kind.ID:
        return number(value)
    if kind in (Kind.NUMBER, Kind.SECONDS):
        return _amount(value, 1000 if kind is Kind.SECONDS else 1)
    if kind is Kind.TIME:
        return _time(str(value))
    text = plain(str(value)) if kind is Kind.HTML else str(value)
    return cut(text, longest)


def _amount(value: Any, divisor: int) -> Json:
    try:
        amount = float(value) / divisor
    except ValueError:
        return str(value)  # a portal may have made the property a text
    return int(amount) if amount.is_integer() else amount


def _time(value: str) -> str:
    return re.sub(r"\.000Z$", "Z", value)


def _write(kind: Kind, value: Any) -> str:
    if kind is Kind.SECONDS:
        return str(int(value) * 1000)
    if kind is Kind.NUMBER:
        return decimal(value)
    return rich(str(value)) if kind is Kind.HTML else str(value)
