"""Opens a connection: looks the host up once, dials only judged addresses, verifies TLS always."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from typing import TypeVar

from authproxy.core.errors import EgressBlocked
from authproxy.egress import Address, EgressGuard
from authproxy.proxy.exchange import Origin, unreachable

_HEAD_START = 0.25  # seconds that one address has before the next is tried beside it (RFC 8305 §5)

_P = TypeVar("_P", bound=asyncio.BaseProtocol)


def client_context() -> ssl.SSLContext:
    """The system's trust store, TLS 1.2 and up, HTTP/1.1 only."""
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    return context


async def dial(origin: Origin, guard: EgressGuard, tls: ssl.SSLContext, protocol: Callable[[], _P]) -> _P:
    """A connected protocol for the origin; over TLS its certificate has been verified for the origin's host.

    Raises UpstreamUnreachable and EgressBlocked; the caller sets the time limit.
    """
    loop = asyncio.get_running_loop()
    sock = await connected(origin, guard)
    try:
        if origin.scheme == "https":
            _, made = await loop.create_connection(protocol, sock=sock, ssl=tls, server_hostname=origin.host)
        else:
            _, made = await loop.create_connection(protocol, sock=sock)
    except ssl.SSLError:
        raise unreachable(origin, "tls") from None
    except OSError:
        raise unreachable(origin, "reset") from None
    return made


async def connected(origin: Origin, guard: EgressGuard) -> socket.socket:
    """A socket to the origin's host, which has been judged. Raises as `dial`."""
    sock = await _connect(origin, await guard.resolve(origin.host, origin.port))
    try:
        guard.connected(sock, origin.host, origin.port)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    except OSError:
        sock.close()
        raise unreachable(origin, "reset") from None
    except EgressBlocked:
        sock.close()
        raise
    return sock


async def _connect(origin: Origin, addresses: tuple[Address, ...]) -> socket.socket:
    """The first of the addresses that takes the connection, each tried a moment after the one before."""
    untried = list(addresses)
    attempts = {asyncio.create_task(_open(untried.pop(0)))}
    refused = False
    try:
        while attempts:
            done, attempts = await asyncio.wait(
                attempts, timeout=_HEAD_START if untried else None, return_when=asyncio.FIRST_COMPLETED
            )
            for task in done:
                if task.exception() is None:
                    attempts |= done - {task}
                    return task.result()
                refused = refused or isinstance(task.exception(), ConnectionRefusedError)
            if untried:
                attempts.add(asyncio.create_task(_open(untried.pop(0))))
    finally:
        for task in attempts:
            task.cancel()
            task.add_done_callback(_close)
    raise unreachable(origin, "refused" if refused else "network")


async def _open(address: Address) -> socket.socket:
    sock = socket.socket(address.family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, address.sockaddr)
    except BaseException:
        sock.close()
        raise
    return sock


def _close(attempt: asyncio.Task[socket.socket]) -> None:
    """An attempt that lost: the socket it may have opened all the same is not wanted."""
    if not attempt.cancelled() and attempt.exception() is None:
        attempt.result().close()
