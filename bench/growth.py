"""What grows with the store, the routes and the users: authproxy beside itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from bench.contenders import Authproxy
from bench.load import Load
from bench.measures import Length, under
from bench.world import World


class Size(NamedTuple):
    """One size: what is in the store, how many routes, and how many users ask in turn."""

    name: str
    connections: int
    routes: int
    users: int


def sizes(length: Length) -> Sequence[Size]:
    """The first is what the others are compared with. The same ten users ask, but for the last."""
    many = length.connections
    return (
        Size("10 connections, 10 routes", 10, 10, 10),
        Size("1,000 connections", 1000, 10, 10),
        Size(f"{many:,} connections", many, 10, 10),
        Size("1,000 routes", 10, 1000, 10),
        Size("1,000 users in turn", 1000, 10, 1000),
    )


class Grown(Authproxy):
    """authproxy of one size."""

    def __init__(self, world: World, size: Size) -> None:
        self.size = size
        self.connections = size.connections
        self.routes = size.routes
        super().__init__(world, f"authproxy-{size.connections}-{size.routes}-{size.users}")

    def measure(self, length: Length) -> float:
        """CPU seconds per 1,000 requests."""
        return under(self, Load(users=self.size.users), "plain", length)["cpu"]
