"""What grows with the store, the routes and the users: authproxy beside itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from bench.contenders import Authproxy
from bench.load import Load
from bench.measures import Length, under
from bench.world import World


class Size(NamedTuple):
    """One size: what is in the store, how many routes, how many users ask in turn, and whether they share
    connections to the upstream."""

    name: str
    connections: int
    routes: int
    users: int
    shared: bool = False


def sizes(length: Length) -> Sequence[Size]:
    """The first is what the others are compared with. The same ten users ask, but for the last two."""
    many = length.connections
    return (
        Size("10 connections, 10 routes", 10, 10, 10),
        Size("1,000 connections", 1000, 10, 10),
        Size(f"{many:,} connections", many, 10, 10),
        Size("1,000 routes", 10, 1000, 10),
        Size("1,000 users in turn", 1000, 10, 1000),
        Size("1,000 users in turn, `share_connections`", 1000, 10, 1000, shared=True),
    )


class Grown(Authproxy):
    """authproxy of one size."""

    def __init__(self, world: World, size: Size) -> None:
        self.size = size
        self.connections = size.connections
        self.routes = size.routes
        kind = "-shared" if size.shared else ""
        super().__init__(world, f"authproxy-{size.connections}-{size.routes}-{size.users}{kind}")

    def configuration(self) -> Mapping[str, Any]:
        """Its routes.yaml."""
        found = super().configuration()
        if not self.size.shared:
            return found
        routes = {name: {**route, "share_connections": True} for name, route in found["routes"].items()}
        return {**found, "routes": routes}

    def measure(self, length: Length) -> float:
        """CPU seconds per 1,000 requests."""
        return under(self, Load(users=self.size.users), "plain", length)["cpu"]
