"""With which grant of its user a call of a tool would be made, before anybody is asked whether it may be."""

from __future__ import annotations

from collections.abc import Callable

from authproxy.broker.registrations import Registrations
from authproxy.control.tools import Asked
from authproxy.core.model import Connection, ConnectionKey, State
from authproxy.core.routes import Route, RouteTable
from authproxy.store.vault import Vault
from authproxy.tools.scopes import needed_scopes
from authproxy.tools.tool import Kind, ToolError


class ToolGrants:
    """`routes` are asked for with each call, since another configuration brings others."""

    def __init__(self, vault: Vault, registrations: Registrations, routes: Callable[[], RouteTable]) -> None:
        self._vault = vault
        self._registrations = registrations
        self._routes = routes

    async def of(self, asked: Asked) -> str | None:
        """A name that changes with each consent; None where the call cannot be made anyway, and will say why. Raises
        ToolError where the user has to consent first: nobody is asked for what could not be done."""
        route = self._routes().get(asked.tool.route)
        if route is None or route.provider not in self._registrations:
            return None
        key = ConnectionKey(asked.caller.tenant, asked.user, route.provider, asked.account)
        connection = await self._vault.find(key)
        code = self._missing(asked, route, connection)
        if code is None:
            return None if connection is None else connection.grant_id
        raise ToolError(
            Kind.REQUIREMENTS_NOT_MET,
            f"{asked.user} must connect {route.provider} first. Give the user the link, and call the tool again once "
            "they have agreed.",
            developer_message=f"{route.provider} (authproxy: {code})",
            code=code,
        )

    def _missing(self, asked: Asked, route: Route, connection: Connection | None) -> str | None:
        """What the walk would refuse it with, of what the user can mend."""
        if connection is None or connection.state is State.DISCONNECTED:
            return "connection_required"
        if connection.state in (State.NEEDS_REAUTH, State.ROTATION_LOST):
            return "connection_expired"
        provider = self._registrations.resting(route.provider)
        return (
            "scope_missing" if provider.lacking(connection.scopes, needed_scopes(route, asked.tool)) else None
        )
