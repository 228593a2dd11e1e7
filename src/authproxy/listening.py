"""The listeners of one process: on addresses of its own, or on sockets that it shares with others of its kind."""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from functools import partial
from typing import TYPE_CHECKING, Any

import structlog
from aiohttp import web

from authproxy.core.address import Address
from authproxy.core.config import Config
from authproxy.core.model import EMPTY
from authproxy.faces.edge import Names, application
from authproxy.faces.listener import Runner
from authproxy.faces.unix import bound

if TYPE_CHECKING:
    from authproxy.proxy.limits import Crowd
    from authproxy.proxy.place import Place
    from authproxy.proxy.server import Listener, Serves

log = structlog.get_logger()

BACKLOG = 1024
_BREATH = 1.0  # seconds for which nothing is accepted after file descriptors or memory had run out
_SPENT = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


Handed = Mapping[str, Sequence[socket.socket]]
"""By address: listening sockets that somebody else has bound for several processes. What waits in them is lost with
none of these."""


def port_set_aside() -> int:
    """A port of loopback for a listener that is yet to come and whose port must be known before. Its last connection
    has just ended, so for a minute nobody gets it who does not ask for this very one. Raises OSError."""
    with socket.socket() as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind(("127.0.0.1", 0))
        held.listen(1)
        with socket.create_connection(held.getsockname()) as caller:
            held.accept()[0].close()
            caller.recv(1)  # who closes first is who waits: it must be this end
        return int(held.getsockname()[1])


async def listen_data(
    serve: Serves,
    place: Place,
    address: Address,
    config: Config,
    stack: AsyncExitStack,
    tls: ssl.SSLContext | None,
    handed: Handed = EMPTY,
    crowd: Crowd | None = None,
) -> list[Any]:
    """The data plane, at one address, until the stack is unwound; its socket names there. Raises OSError."""
    from authproxy.proxy.server import Listener

    listener = Listener(serve, config.limits, config.timeouts, place, crowd)
    secured: dict[str, Any] = {}
    if tls is not None:
        secured = {"ssl": tls, "ssl_handshake_timeout": config.timeouts.header}
    loop = asyncio.get_running_loop()
    server: asyncio.Server | Shared
    if (sockets := handed.get(str(address))) is not None:
        server = Shared(listener, sockets, secured)
    elif address.path is not None:
        sock = stack.enter_context(bound(address.path))
        server = await loop.create_unix_server(listener, sock=sock, **secured)
    else:
        server = await loop.create_server(listener, address.host, address.port, backlog=BACKLOG, **secured)

    async def stop() -> None:
        server.close()
        await listener.shutdown(config.timeouts.shutdown)
        await server.wait_closed()

    stack.push_async_callback(stop)
    return [sock.getsockname() for sock in server.sockets]


async def listen_control(
    routes: Iterable[web.AbstractRouteDef],
    names: Names,
    address: Address,
    config: Config,
    stack: AsyncExitStack,
    handed: Handed = EMPTY,
) -> list[Any]:
    """The control plane, likewise."""
    timeouts = config.timeouts
    runner = Runner(
        application(routes, names=names),
        access_log=None,
        handle_signals=False,
        shutdown_timeout=timeouts.shutdown,
        keepalive_timeout=timeouts.keepalive,
        lingering_time=2.0,  # for what is left of a body that was refused unread
        head_time=timeouts.header,
    )
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    sites: list[web.BaseSite]
    if (sockets := handed.get(str(address))) is not None:
        sites = [web.SockSite(runner, sock) for sock in sockets]
    elif address.path is not None:
        sites = [web.SockSite(runner, stack.enter_context(bound(address.path)))]
    else:
        sites = [web.TCPSite(runner, address.host, address.port)]
    for site in sites:
        await site.start()
    return list(runner.addresses)


class Shared:
    """Accepts on sockets from which other processes accept as well: one connection in each turn of the loop, so that
    whoever has less to do takes more. asyncio's own server takes all that wait at once, and the others get none."""

    def __init__(self, listener: Listener, sockets: Sequence[socket.socket], secured: dict[str, Any]) -> None:
        self.sockets = tuple(sockets)
        self._listener = listener
        self._secured = secured
        self._loop = asyncio.get_running_loop()
        self._arriving: set[asyncio.Task[None]] = set()
        self._open = True
        for sock in self.sockets:
            self._listen(sock)

    def close(self) -> None:
        """Accept no more; the sockets themselves live on where others hold them."""
        if self._open:
            self._open = False
            for sock in self.sockets:
                self._loop.remove_reader(sock.fileno())
                sock.close()
            for task in self._arriving:
                task.cancel()

    async def wait_closed(self) -> None:
        """Until no connection is on its way in."""
        await asyncio.gather(*self._arriving, return_exceptions=True)

    def _listen(self, sock: socket.socket) -> None:
        if self._open:
            self._loop.add_reader(sock.fileno(), partial(self._accept, sock))

    def _accept(self, sock: socket.socket) -> None:
        try:
            connection, _ = sock.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return  # another process was quicker, or the agent is gone
        except OSError as error:
            reason = errno.errorcode.get(error.errno or 0, "unknown")
            if error.errno not in _SPENT:  # of this connection alone: accept(2) tells of its network too
                log.warning("connection_not_accepted", reason=reason)
                return
            log.error("nothing_accepted", reason=reason)
            self._loop.remove_reader(sock.fileno())
            self._loop.call_later(_BREATH, self._listen, sock)
            return
        connection.setblocking(False)
        task = self._loop.create_task(self._let_in(connection))
        self._arriving.add(task)
        task.add_done_callback(self._arriving.discard)

    async def _let_in(self, connection: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(self._listener, connection, **self._secured)
        except (OSError, TimeoutError) as error:  # an SSLError is one; there is nobody to be told
            log.debug("connection_not_made", reason=type(error).__name__)
