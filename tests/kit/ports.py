"""Ports for programs that must be told one before they run.

A port that the kernel chose is its to choose again once it is let go: between the choice and the program's own `bind`,
some connection or listener of another test may have it. So these are below what the kernel gives away, each is given
away once, and no two processes give away the same: whoever holds the first port of a block alone gives its others away.
"""

from __future__ import annotations

import contextlib
import itertools
import random
import socket
from collections.abc import Iterator
from pathlib import Path

LOWEST, BLOCK = 12_000, 256  # above the ports that browsers, and `fetch` in Node, refuse to call


def free_port() -> int:
    """A port of loopback that nobody listens on, and that neither the kernel nor another run gives away."""
    for port in _PORTS:
        with contextlib.suppress(OSError):
            _bound(port).close()
            return port
    raise AssertionError("the ports do not end")


def ephemeral() -> int:
    """The lowest port that the kernel gives away by itself."""
    try:
        return int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    except FileNotFoundError:
        return 32_768  # Linux's own; others begin higher


def _ports() -> Iterator[int]:
    """All ports of a block, then those of the next; those of our own again when every block is somebody's."""
    end = ephemeral()
    if end < LOWEST + 8 * BLOCK:
        end = 32_768  # a kernel that gives nearly all of them away: then only the blocks keep runs apart
    blocks = list(range(LOWEST, end - BLOCK, BLOCK))
    random.shuffle(blocks)
    ours = []
    for first in blocks:
        try:
            claim = _bound(first)
        except OSError:
            continue
        claim.detach()  # held until this process ends
        block = range(first + 1, first + BLOCK)
        ours.append(block)
        yield from block
    if not ours:
        raise RuntimeError(f"every block of ports from {LOWEST} to {end} is claimed")
    yield from itertools.cycle(itertools.chain(*ours))


def _bound(port: int) -> socket.socket:
    sock = socket.socket()
    try:
        sock.bind(("127.0.0.1", port))
    except OSError:
        sock.close()
        raise
    return sock


_PORTS = _ports()
