"""A proxy that is told to stop: idle tunnels and sockets do not hold it up, requests inside them are let end."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from tests.kit.lanes import CONNECT, lanes
from tests.kit.raw import Upstream, Wire, reply
from tests.tunnel.test_websocket import HANDSHAKE, accepting, echo


async def test_idle_tunnels_and_sockets_end_with_the_proxy(tmp_path: Path) -> None:
    with lanes(tmp_path, 2, timeouts={"shutdown": 20}) as (made, _):
        for lane in made:
            lane.mode = CONNECT
        async with (
            made[0].upstream([reply(keep=True)]),
            made[1].upstream(accepting(echo)),
            await made[0].dial() as idle,
            await made[1].dial() as switched,
        ):
            await idle.send(made[0].ask())
            assert (await idle.response()).status == 200
            await switched.send(made[1].ask(b"GET", b"/socket", *HANDSHAKE))
            assert (await switched.response()).status == 101
            started = time.monotonic()
            assert await asyncio.to_thread(made[0].proxy.stop) == 0
            assert time.monotonic() - started < 5
            assert await idle.rest() == b""
            assert await switched.rest() == b""
        assert "Traceback" not in made[0].proxy.words()


async def test_a_request_in_a_tunnel_is_let_end(tmp_path: Path) -> None:
    begun = asyncio.Event()

    async def slowly(upstream: Upstream, wire: Wire) -> None:
        upstream.note(await wire.request())
        begun.set()
        await asyncio.sleep(1)
        await wire.send(reply(body=b"whole"))

    with lanes(tmp_path, 1, timeouts={"shutdown": 20, "first_byte": 10}) as ((lane,), _):
        lane.mode = CONNECT
        async with lane.upstream(slowly), await lane.dial() as wire:
            await wire.send(lane.ask())
            await begun.wait()
            stopping = asyncio.create_task(asyncio.to_thread(lane.proxy.stop))
            answer = await wire.response()
            assert (answer.status, answer.body, answer.complete) == (200, b"whole", True)
            assert await stopping == 0
        assert "Traceback" not in lane.proxy.words()
