"""Reads the packaged provider data, catalogue/*.yaml beside this file: strictly, and one file at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import yaml

from authproxy.core.config import RouteChoice
from authproxy.core.facts import Entry

Class = TypeVar("Class")

# libyaml where PyYAML was built with it: some eight times faster, and start-up reads several files
_Loader: type[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_FOLDER = Path(__file__).parent / "catalogue"


class CatalogueFault(ValueError):
    """The packaged data is not what the code reads; a fault of this package, never of the operator."""


class Catalogue(Mapping[str, Entry]):
    """The packaged entries by name; each file is read when its entry is first asked for."""

    def __getitem__(self, name: str) -> Entry:
        if name not in _names():
            raise KeyError(name)
        return _entry(name)

    def __iter__(self) -> Iterator[str]:
        return iter(_names())

    def __len__(self) -> int:
        return len(_names())


def entry_name(name: str) -> str | None:
    """The entry that goes by this name or alias; `-` and `_` are the same."""
    plain = name.replace("-", "_")
    return plain if plain in _names() else _aliases().get(plain)


@cache
def packaged_routes() -> Mapping[str, RouteChoice]:
    """The routes that come with the catalogue."""
    raw = _document("routes")
    return MappingProxyType({name: built(RouteChoice, raw[name], f"routes.{name}") for name in raw})


@cache
def _names() -> tuple[str, ...]:
    names = (file.stem for file in _FOLDER.glob("*.yaml"))
    return tuple(sorted(name for name in names if name not in ("aliases", "routes")))


@cache
def _aliases() -> Mapping[str, str]:
    return {
        alias.replace("-", "_"): name for name, aliases in _document("aliases").items() for alias in aliases
    }


@cache
def _entry(name: str) -> Entry:
    return built(Entry, _merged(name), name)


def _merged(name: str) -> dict[str, Any]:
    raw = _document(name)
    base = raw.get("extends")
    return _overlaid(_merged(base), raw) if base else raw


def _overlaid(base: dict[str, Any], top: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in top.items():
        below = merged.get(key)
        merged[key] = (
            _overlaid(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
        )
    return merged


def _document(name: str) -> dict[str, Any]:
    text = (_FOLDER / f"{name}.yaml").read_text(encoding="utf-8")
    document = yaml.load(text, Loader=_Loader)  # noqa: S506 - a safe loader, chosen above for its speed
    if not isinstance(document, dict):
        raise CatalogueFault(f"{name}: not a mapping")
    return document


def built(kind: type[Class], raw: Any, where: str) -> Class:
    """A frozen value of `kind` from plain YAML data; anything unknown or of another type is a fault."""
    if not isinstance(raw, dict):
        raise CatalogueFault(f"{where}: not a mapping")
    hints = _hints(kind)  # type: ignore[arg-type]  # classes hash; TypeVar hides it
    unknown = sorted(str(key) for key in raw if key not in hints)
    if unknown:
        raise CatalogueFault(f"{where}: unknown key {unknown[0]}")
    for item in fields(kind):  # type: ignore[arg-type]  # a dataclass; mypy has no word for it
        if item.default is MISSING and item.default_factory is MISSING and item.name not in raw:
            raise CatalogueFault(f"{where}: {item.name} is missing")
    return kind(**{key: _value(hints[key], value, f"{where}.{key}") for key, value in raw.items()})


@cache
def _hints(kind: type[Any]) -> Mapping[str, Any]:
    return get_type_hints(kind)


def _value(hint: Any, raw: Any, where: str) -> Any:
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return _alternative(args, raw, where)
    if origin is Literal and raw in args and isinstance(raw, str):
        return raw
    if origin is tuple and isinstance(raw, list):
        return tuple(_value(args[0], item, f"{where}.{index}") for index, item in enumerate(raw))
    if isinstance(hint, type) and is_dataclass(hint):
        return built(hint, raw, where)
    if origin is Mapping and isinstance(raw, dict):
        return MappingProxyType(
            {_value(args[0], k, where): _value(args[1], v, f"{where}.{k}") for k, v in raw.items()}
        )
    if origin is None and type(raw) is hint:
        return raw
    raise CatalogueFault(f"{where}: unexpected {type(raw).__name__}")


def _alternative(hints: tuple[Any, ...], raw: Any, where: str) -> Any:
    if raw is None and type(None) in hints:
        return None
    if raw is None:
        raise CatalogueFault(f"{where}: empty")
    structured = [h for h in hints if get_origin(h) is not None or (isinstance(h, type) and is_dataclass(h))]
    if structured:
        return _value(structured[0], raw, where)
    if type(raw) in hints:
        return raw
    raise CatalogueFault(f"{where}: unexpected {type(raw).__name__}")
