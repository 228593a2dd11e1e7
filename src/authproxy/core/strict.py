"""Reads routes.yaml into the values of config.py: strictly, with every fault, and without showing a value."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields, is_dataclass, replace
from enum import Enum
from functools import cache
from math import isfinite
from types import MappingProxyType, UnionType
from typing import Any, Final, Literal, NamedTuple, TypeVar, Union, get_args, get_origin, get_type_hints

from authproxy.core import checks, document
from authproxy.core.config import Config
from authproxy.core.document import Node, Scalar, Sequence
from authproxy.core.faults import ConfigFaults, Fault, Severity, near
from authproxy.core.known import Known, catalogue
from authproxy.core.model import EMPTY, Environment
from authproxy.core.schema import json_schema, settings
from authproxy.core.secret import Secret

__all__ = ["ConfigFaults", "Fault", "Reading", "json_schema", "read", "read_config", "settings"]

Class = TypeVar("Class")
ReadFile = Callable[[str], str]

MOST_FAULTS = 200
LONGEST_SECRET = 65536
# str.strip() takes the whitespace of Unicode, NBSP included; these are as invisible and come from editors and shells
_INVISIBLE: Final = "\ufeff\u200b\u200c\u200d\u2060"
_UNSEEN: Final = ("Cc", "Cf", "Cs", "Zl", "Zp")

_whole_number = re.compile(r"[-+]?(0|[1-9][0-9]{0,17})").fullmatch
_number = re.compile(r"[-+]?(0|[1-9][0-9]{0,17})(\.[0-9]{1,17})?([eE][-+]?[0-9]{1,3})?").fullmatch
# What YAML 1.2 or 1.1 takes for a number: their readers would give another text than the one written.
_looks_like_number = re.compile(
    r"[-+]?((\.[0-9]+|[0-9][0-9_]*(\.[0-9_]*)?)([eE][-+]?[0-9]+)?|0[xob][0-9a-fA-F_]+|[0-9][0-9_]*(:[0-5]?[0-9])+"
    r"(\.[0-9_]*)?|\.(inf|nan))",
    re.IGNORECASE,
).fullmatch
_showable = re.compile(r"[A-Za-z_<][A-Za-z0-9_.<-]{0,39}").fullmatch
_variable = re.compile(r"[A-Za-z_][A-Za-z0-9_]*").fullmatch


class Reading(NamedTuple):
    """A configuration that can be used, and what is doubtful about it."""

    config: Config
    warnings: tuple[Fault, ...]


def read_config(
    text: str,
    *,
    file: str,
    environ: Mapping[str, str],
    read_file: ReadFile,
    environment: Environment | None = None,
    known: Known | None = None,
) -> Config:
    """As `read`, for who does not want the warnings."""
    reading = read(
        text, file=file, environ=environ, read_file=read_file, environment=environment, known=known
    )
    return reading.config


def read(
    text: str,
    *,
    file: str,
    environ: Mapping[str, str],
    read_file: ReadFile,
    environment: Environment | None = None,
    known: Known | None = None,
) -> Reading:
    """Read the text of a routes.yaml.

    `file` is for messages. `environ` and `read_file` answer the references `env:NAME` and `file:PATH`;
    `read_file` raises OSError where it cannot. `environment` (from the command line) beats the file's. `known` is
    what the catalogue knows; default: the catalogue. Raises ConfigFaults with all faults, and nothing else.
    """
    try:
        root = document.compose(text)
    except document.DocumentFault as exc:
        raise ConfigFaults([Fault(file, exc.line, "", exc.message)]) from None
    reader = _Reader(file, environ, read_file, environment or _environment_of(root))
    config = reader.structure(root, Config, "")
    if config is not _BAD:
        if environment is not None:
            config = replace(config, environment=environment)
        reader.check(config, known or catalogue())
    if config is _BAD or any(fault.severity == "error" for fault in reader.faults):
        raise ConfigFaults(reader.faults)
    return Reading(config, tuple(sorted(reader.faults, key=lambda fault: (fault.line, fault.path))))


class _Bad:
    """Stands for a value that was faulty; the fault has been kept."""


_BAD: Final[Any] = _Bad()


def _environment_of(root: Node) -> Environment:
    """The environment as written, before all else: it says how bad a missing secret is. Unreadable: production."""
    if isinstance(root, document.Mapping):
        for key, value in root.entries:
            if isinstance(key, Scalar) and key.text == "environment":
                known = isinstance(value, Scalar) and value.text in set(Environment)
                return (
                    Environment(value.text) if known and isinstance(value, Scalar) else Environment.PRODUCTION
                )
    return Environment.DEVELOPMENT


@cache
def _hints(kind: type[Any]) -> dict[str, Any]:
    return get_type_hints(kind)


def _below(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


class _Reader:
    """Walks the tree by the classes' type hints, keeping faults and the line of every path."""

    def __init__(
        self, file: str, environ: Mapping[str, str], read_file: ReadFile, environment: Environment
    ) -> None:
        self._file = file
        self._environ = environ
        self._read_file = read_file
        self._absent: Severity = "warning" if environment is Environment.DEVELOPMENT else "error"
        self._lines: dict[str, int] = {}
        self._walked = 0
        self.faults: list[Fault] = []

    def fault(self, line: int, path: str, message: str, severity: Severity = "error") -> Any:
        """Keep a fault; returns what stands for the faulty value."""
        if len(self.faults) < MOST_FAULTS:
            self.faults.append(Fault(self._file, line, path, message, severity))
        elif len(self.faults) == MOST_FAULTS:
            self.faults.append(Fault(self._file, line, "", "there are more faults than are listed here"))
        return _BAD

    def check(self, config: Config, known: Known) -> None:
        """The checks across keys, but for those whose keys are faulty already."""
        broken = [fault.path for fault in self.faults if fault.severity == "error"]
        reported = {fault.path for fault in self.faults}
        for path, message, severity in checks.findings(config, known):
            if path not in reported and not any(_touches(path, other) for other in broken):
                self.fault(self._line_of(path), path, message, severity)

    def _line_of(self, path: str) -> int:
        """The line of the key, or of the nearest key above it that is written."""
        while path and path not in self._lines:
            path = path[: max(path.rfind("."), path.rfind("["), 0)]
        return self._lines.get(path, 1)

    # --- by type ---------------------------------------------------------------------------------------------------

    def structure(self, node: Node, kind: type[Class], path: str) -> Class | Any:
        """A frozen value of a class of config.py. A faulty key falls back to its default, so that all are found."""
        self._lines.setdefault(path, node.line)
        if isinstance(node, Scalar) and node.null and path:
            node = document.Mapping(node.line, [])  # `gmail:` with nothing below it
        if not isinstance(node, document.Mapping):
            return self.fault(node.line, path, "must be a mapping of keys to values")
        hints = _hints(kind)  # type: ignore[arg-type]  # classes hash; TypeVar hides it
        values: dict[str, Any] = {}
        written = self._keys(node, path, list(hints))
        for field in fields(kind):  # type: ignore[arg-type]  # a dataclass; mypy has no word for it
            if field.name in written:
                value = self.value(
                    written[field.name], hints[field.name], _below(path, field.name), field.metadata
                )
                if value is not _BAD:
                    values[field.name] = value
                    continue
            elif field.default is MISSING and field.default_factory is MISSING:
                self.fault(node.line, _below(path, field.name), "is missing")
            if field.default is MISSING and field.default_factory is MISSING:
                values[field.name] = next(
                    iter(get_args(hints[field.name])), ""
                )  # only to find further faults
        return kind(**values)

    def _keys(self, node: document.Mapping, path: str, known: list[str]) -> dict[str, Node]:
        """The values of the known keys; the others are faults."""
        written: dict[str, Node] = {}
        for key, value in self._entries(node, path):
            if key in known:
                written[key] = value
                continue
            shown = f"`{key}` is" if _showable(key) else "this is"
            said = f"{shown} not a key here{near(key, known)}; known: {', '.join(known)}"
            if key == "<<":
                said = "merge keys (`<<`) are not part of this format"
            self.fault(self._lines[_below(path, key)], _below(path, key if _showable(key) else "…"), said)
        return written

    def _entries(self, node: document.Mapping, path: str) -> list[tuple[str, Node]]:
        """Keys that are texts, each once."""
        entries: dict[str, Node] = {}
        for key, value in node.entries:
            if not isinstance(key, Scalar):
                self.fault(key.line, path, "a key must be a text")
            elif key.text in entries:
                shown = key.text if _showable(key.text) else "…"
                self.fault(key.line, _below(path, shown), "is written twice")
            else:
                entries[key.text] = value
                self._lines[_below(path, key.text)] = key.line
        return list(entries.items())

    def value(self, node: Node, hint: Any, path: str, rules: Mapping[str, Any]) -> Any:
        """A value of the type `hint`, or _BAD."""
        self._walked += 1
        if self._walked > document.MOST_NODES:  # aliases of aliases
            if self._walked == document.MOST_NODES + 1:
                self.fault(node.line, path, "the file is too large once its aliases are written out")
            return _BAD
        origin, args = get_origin(hint), get_args(hint)
        if origin in (Union, UnionType):
            return self._alternative(node, args, path, rules)
        if origin is tuple:
            return self._list(node, args[0], path, rules)
        if origin is not None and origin is not Literal:
            return self._mapping(node, args[1], path, rules)
        if is_dataclass(hint) and isinstance(hint, type):
            return self.structure(node, hint, path)
        if not isinstance(node, Scalar):
            return self.fault(node.line, path, "must be a single value, not a list or a mapping")
        return self._scalar(node, hint, path, rules)

    def _alternative(self, node: Node, hints: tuple[Any, ...], path: str, rules: Mapping[str, Any]) -> Any:
        """`X | None`, and `Secret | str | None`: a reference, or literal text."""
        kinds = [kind for kind in hints if kind is not type(None)]
        # A list that was emptied by comments must not become the default, which may allow everything.
        if isinstance(node, Scalar) and node.null and get_origin(kinds[0]) is not tuple:
            return None
        if kinds == [Secret, str] and not (
            isinstance(node, Scalar) and node.text.startswith(("env:", "file:"))
        ):
            return self.value(node, str, path, rules)
        return self.value(node, kinds[0], path, rules)

    def _list(self, node: Node, hint: Any, path: str, rules: Mapping[str, Any]) -> Any:
        if isinstance(node, Scalar) and node.null:
            return self.fault(node.line, path, "is empty: write [] or leave the key out")
        if not isinstance(node, Sequence):
            return self.fault(node.line, path, "must be a list: write [a, b], or one `- a` per line")
        values = []
        for index, item in enumerate(node.items):
            self._lines[f"{path}[{index}]"] = item.line
            values.append(self.value(item, hint, f"{path}[{index}]", rules))
        return _BAD if any(value is _BAD for value in values) else tuple(values)

    def _mapping(self, node: Node, hint: Any, path: str, rules: Mapping[str, Any]) -> Any:
        if isinstance(node, Scalar) and node.null:
            return EMPTY
        if not isinstance(node, document.Mapping):
            return self.fault(node.line, path, "must be a mapping of names to values")
        values = {}
        for name, item in self._entries(node, path):
            if not re.fullmatch(rules.get("keys", ".*"), name):
                said = rules.get("keys_must", "must be lower-case letters, digits, - and _")
                self.fault(self._lines[_below(path, name)], _below(path, "…"), f"a name {said}")
                continue
            value = self.value(item, hint, _below(path, name), rules)
            if value is not _BAD:
                values[name] = value
        return MappingProxyType(values)

    def _scalar(self, node: Scalar, hint: Any, path: str, rules: Mapping[str, Any]) -> Any:
        if hint is Secret:
            return self._secret(node, path)
        if node.null:
            return self.fault(node.line, path, "is empty")
        if hint is bool:
            if node.true or node.false:
                return node.true
            return self.fault(node.line, path, "must be true or false")
        if hint in (int, float):
            return self._figure(node, hint, path, rules)
        if hint is str:
            return self._text(node, path, rules)
        return self._choice(node, hint, path)

    def _choice(self, node: Scalar, hint: Any, path: str) -> Any:
        """Of an Enum or a Literal."""
        enum = isinstance(hint, type) and issubclass(hint, Enum)
        choices = {str(c.value): c for c in hint} if enum else {str(c): c for c in get_args(hint)}
        chosen = choices.get(node.text)
        if chosen is None or (isinstance(chosen, int) and not node.plain):
            said = f"must be {' or '.join(choices)}{near(node.text, choices)}"
            return self.fault(node.line, path, said)
        return chosen

    def _figure(
        self, node: Scalar, hint: type[int] | type[float], path: str, rules: Mapping[str, Any]
    ) -> Any:
        accepted = (_whole_number if hint is int else _number)(node.text) if node.plain else None
        if accepted is None or not isfinite(float(node.text)):
            return self.fault(
                node.line, path, "must be a whole number" if hint is int else "must be a number"
            )
        value = hint(node.text)
        if value < rules.get("minimum", value):
            return self.fault(node.line, path, f"must be at least {rules['minimum']}")
        if value > rules.get("maximum", value):
            return self.fault(node.line, path, f"must be at most {rules['maximum']}")
        return value

    def _text(self, node: Scalar, path: str, rules: Mapping[str, Any]) -> Any:
        if node.plain and (node.true or node.false or _looks_like_number(node.text)):
            return self.fault(node.line, path, "must be a text: put it in quotes")
        if not node.text or node.text != node.text.strip() or not _visible(node.text):
            return self.fault(
                node.line, path, "is empty, has spaces around it or characters that cannot be seen"
            )
        if not re.fullmatch(rules.get("pattern", r".*"), node.text):
            return self.fault(node.line, path, rules.get("must", "has characters that may not be there"))
        return node.text

    # --- references ------------------------------------------------------------------------------------------------

    def _secret(self, node: Scalar, path: str) -> Any:
        """The secret behind `env:NAME` or `file:PATH`; None (and a fault as bad as the environment) where it is not."""
        kind, _, name = node.text.partition(":")
        if kind not in ("env", "file") or not name or (kind == "env" and not _variable(name)):
            return self.fault(
                node.line,
                path,
                "is a secret: write where it is, `env:NAME` or `file:PATH`, never the secret itself",
            )
        try:
            raw = self._environ.get(name) if kind == "env" else self._read_file(name)
        except OSError as exc:
            self.fault(node.line, path, f"{node.text}: {exc.strerror or 'cannot be read'}", self._absent)
            return None
        except ValueError:
            return self.fault(node.line, path, f"{node.text}: is not UTF-8 text")
        value = None if raw is None else _trimmed(raw)
        if not value or raw is None:
            self.fault(
                node.line, path, f"{node.text}: is {'not set' if raw is None else 'empty'}", self._absent
            )
            return None
        if len(value) > LONGEST_SECRET or not _visible(value):
            return self.fault(
                node.line,
                path,
                f"{node.text}: is too long or has control characters inside, so it is no secret",
            )
        if value != raw:
            self.fault(node.line, path, f"{node.text}: whitespace around the value was left out", "warning")
        return Secret(value)


def _trimmed(text: str) -> str:
    """Without whitespace and invisible characters at both ends, in whatever order they come."""
    while (shorter := text.strip().strip(_INVISIBLE)) != text:
        text = shorter
    return text


def _visible(text: str) -> bool:
    """Whether no character is a control, format, surrogate or line separator."""
    return (text.isascii() and text.isprintable()) or not any(
        unicodedata.category(c) in _UNSEEN for c in text
    )


def _touches(path: str, other: str) -> bool:
    """Whether one of the paths is the other, or below it."""
    short, long = sorted((path, other), key=len)
    return long == short or (long.startswith(short) and long[len(short)] in ".[") or not short
