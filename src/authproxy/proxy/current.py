"""The walk that serves from now on; a request under way stays with the walk that took it."""

from __future__ import annotations

from collections.abc import Awaitable
from dataclasses import replace

from authproxy.core.routes import Route, RouteTable
from authproxy.proxy.server import Incoming, Sent
from authproxy.proxy.walk import Walk


class Current:
    """What listeners hold, so that another configuration needs no other listener and no other connection."""

    def __init__(self, walk: Walk, routes: RouteTable) -> None:
        self._walk = walk
        self._routes = routes

    def turn(self, walk: Walk, routes: RouteTable) -> None:
        """From the next request on."""
        self._walk, self._routes = walk, routes

    def route(self, name: str) -> Route | None:
        """The route of this name, as it is from now on."""
        return self._routes.get(name)

    def __call__(self, incoming: Incoming) -> Awaitable[Sent]:
        place = incoming.client.place
        if place.route is not None:
            route = self._routes.get(place.route.name)
            if route is not place.route:
                incoming.client.place = replace(place, route=route)
        return self._walk(incoming)
