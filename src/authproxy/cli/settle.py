"""Settles a process that is going to serve for long: what it made to start is kept, what it frees is used again."""

from __future__ import annotations

import ctypes
import gc

_COLLECT_AFTER = 10_000
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # mallopt(3)
_KEPT = 16 * 2**20
_FROM_HEAP = 2**20


def settle() -> None:
    """To be called once everything is open and before it is busy."""
    # Modules, routes and classes never die: a collector that walks them again and again costs a twentieth of all.
    gc.collect()
    gc.freeze()
    gc.set_threshold(_COLLECT_AFTER, 20, 20)
    _keep_freed_memory()


def _keep_freed_memory() -> None:
    """Let glibc keep what large bodies freed, up to 16 MB, instead of giving it to the kernel after each piece.

    Every piece of a body would come in pages that the kernel has to clear first, which costs as much as all else
    that is done with it. Other C libraries have no `mallopt`, and other habits.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_TRIM_THRESHOLD, _KEPT)
        mallopt(_M_MMAP_THRESHOLD, _FROM_HEAP)
