"""A scene as data: what is broken, what it means, what to do, and the function that plays it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from authproxy.rehearsal.ground import Ground
    from authproxy.rehearsal.play import Play


@dataclass(frozen=True, slots=True)
class Promise:
    """What a scene holds authproxy to, whether it was kept, and what was found."""

    text: str
    kept: bool
    found: str


def always(_ground: Ground) -> str | None:
    """For scenes that can be played anywhere."""
    return None


@dataclass(frozen=True, slots=True)
class Scene:
    """`broke` is for the table, `means` for your users' sake, `do` for whoever operates. `hindered` says why this
    ground cannot play it, or None."""

    name: str
    broke: str
    means: str
    do: str
    play: Callable[[Play], Awaitable[None]]
    hindered: Callable[[Ground], str | None] = always
