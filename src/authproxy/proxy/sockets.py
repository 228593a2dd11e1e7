"""What the kernel is asked, and told, of an agent's connection."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import socket
import struct
import sys
import termios

_RESET = struct.pack("ii", 1, 0)  # SO_LINGER without a wait: close is a reset


def cut(transport: asyncio.Transport) -> None:
    """Close so that the peer sees a reset: nobody must take what broke off for what was meant."""
    sock = transport.get_extra_info("socket")
    if sock is not None:  # it may be gone already; ValueError is uvloop's word for that
        with contextlib.suppress(OSError, ValueError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    transport.abort()


def queued(transport: asyncio.Transport) -> int:
    """Bytes that the kernel holds for a peer which has not taken them yet; 0 where it does not tell.

    Of a large buffer a third must be free before the loop hears of it, which takes a slow reader minutes.
    """
    if sys.platform != "linux":
        return 0
    held = bytearray(4)
    sock = transport.get_extra_info("socket")
    with contextlib.suppress(OSError, ValueError):  # closed just now, or a socket of another kind
        fcntl.ioctl(-1 if sock is None else sock.fileno(), termios.TIOCOUTQ, held)
    return int.from_bytes(held, sys.byteorder)


def is_loopback(address: str) -> bool:
    """Whether a peer's address is this host's loopback."""
    return address.startswith(("127.", "::ffff:127.")) or address == "::1"
