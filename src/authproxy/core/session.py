"""What a session may use: routes by name, and tools by patterns on their names and marks."""

from __future__ import annotations

import re
from collections.abc import Sequence

from authproxy.core.errors import PolicyDenied
from authproxy.core.model import Caller

MARKS = frozenset({"read_only", "write", "destructive", "non_destructive", "idempotent"})
_HALF = r"(?=[^.])\*?[A-Za-z0-9_]*\*?"  # a star in the middle would cost time, and nobody needs one
_GLOB = re.compile(rf"{_HALF}\.{_HALF}").fullmatch


def demand_route(caller: Caller, route: str, *, tool: bool = False) -> None:
    """Refuses a caller who is limited to other routes.

    `tool` says that a tool's call asks. Where a caller is limited to tools and to no route at all, those that it may
    call go wherever they must; where it is limited to routes too, both hold.
    """
    if caller.routes is None or route in caller.routes:
        return
    if tool and not caller.routes and caller.tools is not None:
        return
    raise PolicyDenied(f"this session may not use route {route}", reason="session")


def tool_allowed(
    patterns: Sequence[str] | None, name: str, *, read_only: bool, destructive: bool, idempotent: bool
) -> bool:
    """Whether one of `patterns` has the tool of this full name (`Gmail.ListEmails`) and these marks; None: all do.

    A pattern is a glob on the name (`Gmail.*`, `*.WhoAmI`, `*`), a mark (`read_only`), or both (`Gmail.*:read_only`).
    Names are compared with their case: a pattern that is misspelt allows nothing.
    """
    if patterns is None:
        return True
    marks = {
        "read_only": read_only,
        "write": not read_only,
        "destructive": destructive,
        "non_destructive": not destructive,
        "idempotent": idempotent,
    }
    return any(_matches(pattern, name, marks) for pattern in patterns)


def pattern_fault(pattern: str) -> str | None:
    """What is wrong with a pattern of tools, as the end of a sentence."""
    glob, colon, mark = pattern.partition(":")
    if not colon and glob in MARKS:
        return None
    if colon and mark not in MARKS:
        return f"has a mark that is none of {', '.join(sorted(MARKS))}"
    if glob != "*" and not _GLOB(glob):
        return (
            f"is neither a name (`Gmail.ListEmails`, `Gmail.*`, `*`) nor a mark ({', '.join(sorted(MARKS))})"
        )
    return None


def _matches(pattern: str, name: str, marks: dict[str, bool]) -> bool:
    if pattern_fault(pattern) is not None:
        return False  # what cannot be understood allows nothing
    if pattern in MARKS:
        return marks[pattern]
    glob, _, mark = pattern.partition(":")
    return (not mark or marks[mark]) and (glob == "*" or _glob(glob, name))


def _glob(glob: str, name: str) -> bool:
    """`*` is any number of characters but the dot."""
    literal = (re.escape(part) for part in glob.split("*"))
    return re.fullmatch("[^.]*".join(literal), name) is not None
