"""What of a configuration can be replaced while it is in use, and what cannot."""

from __future__ import annotations

from typing import Final

from authproxy.core import document
from authproxy.core.config import Config, RouteChoice
from authproxy.core.document import Mapping, Scalar

_FIXED: Final = (
    "environment",  # bound into every stored row
    "public_url",
    "limits",
    "timeouts",
    "refresh",
    "webhooks",
    "audit",
    "listener",
)


def fixed(old: Config, new: Config) -> list[str]:
    """The paths of what differs between the two and can only change with a restart."""
    paths = [name for name in _FIXED if getattr(old, name) != getattr(new, name)]
    if old.flows.lifetime != new.flows.lifetime:
        paths.append("flows.lifetime")
    nothing = RouteChoice()
    for name in dict.fromkeys([*old.routes, *new.routes]):
        before, after = old.routes.get(name, nothing), new.routes.get(name, nothing)
        if before.listen != after.listen:
            paths.append(f"routes.{name}.listen")
        elif before.listen is not None and before.tls != after.tls:
            paths.append(f"routes.{name}.tls")
    return paths


def line_of(text: str, path: str) -> int:
    """The line on which this path, or as much of it as is written, stands in a text that has been read."""
    node, line = document.compose(text), 1
    for word in path.split("."):
        if not isinstance(node, Mapping):
            break
        for key, value in node.entries:
            if isinstance(key, Scalar) and key.text == word:
                node, line = value, key.line
                break
        else:
            break
    return line
