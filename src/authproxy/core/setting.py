"""One key of routes.yaml, as the classes that hold the configuration say it."""

from __future__ import annotations

from dataclasses import field
from typing import Any


def setting(doc: str, default: Any = ..., *, factory: Any = ..., **rules: Any) -> Any:
    """One key of routes.yaml: its sentence, its default, and rules that the reader checks and the schema shows.

    `minimum` and `maximum` are of numbers; `pattern` is of a text, of each text of a list, or of each value of a
    mapping, `keys` of a mapping's keys, and both are whole matches; `must` says the pattern in words; `examples`
    are for editors.
    """
    metadata = {"doc": doc, **rules}
    if factory is not ...:
        return field(default_factory=factory, metadata=metadata)
    if default is not ...:
        return field(default=default, metadata=metadata)
    return field(metadata=metadata)
