"""Listeners, and ports for those that are yet to come."""

from __future__ import annotations

import asyncio
import socket

import pytest

from authproxy.listening import port_set_aside


async def test_a_port_set_aside_is_free_for_its_listener_and_for_nobody_else() -> None:
    port = port_set_aside()
    with socket.socket() as other, pytest.raises(OSError, match="in use"):
        other.bind(("127.0.0.1", port))
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", port)
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", port)
    async with server:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()
