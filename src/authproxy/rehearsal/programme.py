"""All scenes, in the order in which they are played."""

from __future__ import annotations

from authproxy.rehearsal.endings import ENDINGS
from authproxy.rehearsal.lives import LIVES
from authproxy.rehearsal.outages import OUTAGES
from authproxy.rehearsal.replicas import REPLICAS
from authproxy.rehearsal.scene import Scene

SCENES: tuple[Scene, ...] = (*LIVES, *ENDINGS, *OUTAGES, *REPLICAS)
