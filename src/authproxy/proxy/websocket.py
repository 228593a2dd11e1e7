"""WebSocket: after the handshake has gone the way of every request, a tunnel of bytes (RFC 6455)."""

from __future__ import annotations

from collections.abc import Sequence

from authproxy.core.errors import UpstreamTimeout, UpstreamUnreachable
from authproxy.core.routes import Route
from authproxy.proxy.exchange import unreachable
from authproxy.proxy.relay import Reply, head_lines
from authproxy.proxy.splice import Line, splice
from authproxy.proxy.upstream import Answer

_SWITCH = b"HTTP/1.1 101 Switching Protocols\r\n%bConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"


class _Far:
    """An upstream that has switched, as one side of the tunnel."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._finished = False

    async def read(self) -> bytes:
        try:
            return await self._answer.read()
        except (UpstreamUnreachable, UpstreamTimeout):
            if self._finished:
                return b""  # it had nothing more to hear, and needed no manners
            raise

    async def write(self, data: bytes) -> None:
        try:
            await self._answer.write(data)
        except OSError:
            raise unreachable(self._answer.exchange.origin, "reset") from None

    def finish(self) -> None:
        self._finished = True
        self._answer.finish()

    def abort(self) -> None:
        self._answer.close()


async def switch(reply: Reply, answer: Answer, route: Route, needles: Sequence[bytes]) -> None:
    """Hand on a 101 that was asked for, then whatever either side says, until both have said all.

    What is said is not looked at: its frames are the two parties' own, of any size and with any extension. Its
    silence is bounded by the route's `timeouts.idle`. Raises as `splice` does.
    """
    entry = reply.entry
    origin = answer.exchange.origin
    if [value.lower() for value in answer.named.get(b"upgrade", ())] != [b"websocket"]:
        raise unreachable(origin, "protocol")
    lines, _ = head_lines(reply, answer, route, needles)
    entry.status = 101
    reply.keep_alive = False
    reply.write(_SWITCH % b"".join(lines))
    client = reply.incoming.client
    agent = await Line.taken_over(client)

    def up(size: int) -> None:
        entry.bytes_in += size

    def down(size: int) -> None:
        entry.bytes_out += size

    try:
        await splice(agent, _Far(answer), origin, idle=route.timeouts.idle, up=up, down=down)
    finally:
        agent.close()
        client.leave()
