"""Which scopes a call of a tool needs of its user's grant, and which are asked for where some are missing."""

from __future__ import annotations

from authproxy.core.routes import Route
from authproxy.tools.tool import Tool


def needed_scopes(route: Route, tool: Tool) -> tuple[str, ...]:
    """What the grant must hold: what the tool's row says, since it knows what it sends; what its route says where the
    row says nothing (GitHub's)."""
    return tuple(dict.fromkeys(tool.grant_scopes or route.scopes))


def asked_scopes(route: Route, tool: Tool) -> tuple[str, ...]:
    """What a link asks the user for: the route's beside the tool's, so that they need not be asked twice."""
    return tuple(dict.fromkeys([*route.scopes, *tool.grant_scopes]))
