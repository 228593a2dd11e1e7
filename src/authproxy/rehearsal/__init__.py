"""The production failures, played against a sandbox: what broke, what the agents saw, what survived."""

from authproxy.rehearsal.answers import Trouble
from authproxy.rehearsal.embedded import embedded_ground
from authproxy.rehearsal.ground import Ground, Timing
from authproxy.rehearsal.playing import Result, rehearse
from authproxy.rehearsal.programme import SCENES
from authproxy.rehearsal.report import markdown
from authproxy.rehearsal.scene import Promise, Scene
from authproxy.rehearsal.standing import standing_ground

__all__ = [
    "SCENES",
    "Ground",
    "Promise",
    "Result",
    "Scene",
    "Timing",
    "Trouble",
    "embedded_ground",
    "markdown",
    "rehearse",
    "standing_ground",
]
