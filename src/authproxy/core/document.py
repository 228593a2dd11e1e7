"""A YAML text as a tree with line numbers: bounded, without tags, and without guesses about types."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import yaml

LARGEST = 2**20  # characters; a thousand routes take a fifth of that
DEEPEST = 16  # the format itself needs six levels
MOST_NODES = 200_000

# libyaml where PyYAML was built with it: some eight times faster; both parse without recursion
_Loader: type[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_quoted = re.compile(r"(['\"]).{2,}\1")


class Scalar(NamedTuple):
    """Text as written; `plain` where it has no quotes, so that it may be a number, a truth value or nothing."""

    line: int
    text: str
    plain: bool

    @property
    def null(self) -> bool:
        return self.plain and self.text in ("", "~", "null", "Null", "NULL")

    @property
    def true(self) -> bool:
        return self.plain and self.text in ("true", "True", "TRUE")

    @property
    def false(self) -> bool:
        return self.plain and self.text in ("false", "False", "FALSE")


class Sequence(NamedTuple):
    """A list."""

    line: int
    items: list[Node]


class Mapping(NamedTuple):
    """Keys and values in their order; a key may occur twice."""

    line: int
    entries: list[tuple[Node, Node]]


Node = Scalar | Sequence | Mapping


class DocumentFault(Exception):
    """The text is no document of ours at all."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(message)
        self.line = line
        self.message = message


def compose(text: str) -> Node:
    """The tree of the one document in `text`. Raises DocumentFault."""
    if len(text) > LARGEST:
        raise DocumentFault(1, f"the file is over {LARGEST} characters")
    try:
        return _Composer(yaml.parse(text, Loader=_Loader)).document()
    except yaml.MarkedYAMLError as exc:
        mark = exc.problem_mark or exc.context_mark
        raise DocumentFault(mark.line + 1 if mark else 1, _said(exc)) from None
    except yaml.reader.ReaderError as exc:
        line = text.count("\n", 0, exc.position) + 1 if isinstance(exc.position, int) else 1
        raise DocumentFault(line, "not YAML: a character that YAML does not have") from None
    except (yaml.YAMLError, ValueError, OverflowError):
        # PyYAML hands int() and chr() whatever an escape or a directive says, and encodes lone surrogates
        raise DocumentFault(
            1, "not YAML: an escape, a directive or a character that YAML does not have"
        ) from None


def _said(exc: yaml.MarkedYAMLError) -> str:
    """PyYAML's words without what they quote: a secret that begins with `*` or `!` is an alias or a tag to it."""
    words = ", ".join(part for part in (exc.problem, exc.context) if part)
    return "not YAML: " + _quoted.sub("…", words)


class _Composer:
    """Nodes from events; aliases share their node."""

    def __init__(self, events: Iterator[Any]) -> None:
        self._events = events
        self._anchors: dict[str, Node] = {}
        self._count = 0

    def document(self) -> Node:
        next(self._events)  # the stream's start
        event = next(self._events)
        if isinstance(event, yaml.StreamEndEvent):
            raise DocumentFault(1, "the file is empty")
        root = self._node(next(self._events), 0)
        next(self._events)  # the document's end
        event = next(self._events)
        if not isinstance(event, yaml.StreamEndEvent):
            raise DocumentFault(event.start_mark.line + 1, "there is a second document in the file")
        return root

    def _node(self, event: Any, depth: int) -> Node:
        line = event.start_mark.line + 1
        self._count += 1
        if depth > DEEPEST:
            raise DocumentFault(line, f"nested more than {DEEPEST} levels deep")
        if self._count > MOST_NODES:
            raise DocumentFault(line, f"more than {MOST_NODES} values")
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in self._anchors:
                raise DocumentFault(
                    line, "an alias (`*…`) without its anchor; put a text that begins with * in quotes"
                )
            return self._anchors[event.anchor]
        if event.tag not in (None, "!"):
            raise DocumentFault(line, "a tag (`!…`); put a text that begins with ! in quotes")
        node: Node
        if isinstance(event, yaml.ScalarEvent):
            node = Scalar(line, event.value, event.implicit[0])
        elif isinstance(event, yaml.SequenceStartEvent):
            node = Sequence(line, list(self._until(yaml.SequenceEndEvent, depth)))
        else:
            flat = list(self._until(yaml.MappingEndEvent, depth))
            node = Mapping(line, list(zip(flat[::2], flat[1::2], strict=True)))
        if event.anchor is not None:
            self._anchors[event.anchor] = node
        return node

    def _until(self, end: type[Any], depth: int) -> Iterator[Node]:
        while not isinstance(event := next(self._events), end):
            yield self._node(event, depth + 1)
