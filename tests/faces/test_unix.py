"""Listeners on unix sockets: whose they are, and that nobody takes them away."""

from __future__ import annotations

import asyncio
import os
import socket
import stat
from pathlib import Path

import pytest

from authproxy.app import Address
from authproxy.faces.unix import unix_socket
from tests.faces.conftest import Start


async def live(path: Path) -> bytes:
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    answer = await reader.read()
    writer.close()
    return answer.partition(b"\r\n")[0]


@pytest.mark.parametrize(("umask", "mode"), [(0o000, 0o770), (0o022, 0o750), (0o077, 0o700)])
def test_nobody_else_on_the_machine_may_connect(tmp_path: Path, umask: int, mode: int) -> None:
    path = tmp_path / "socket"
    before = os.umask(umask)
    try:
        with unix_socket(str(path)):
            assert stat.S_IMODE(path.stat().st_mode) == mode
        assert os.umask(umask) == umask
    finally:
        os.umask(before)


@pytest.mark.scenario("J08")
async def test_a_running_process_keeps_its_socket(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    first, second = await start(), await start()
    await first.app.listen_control(Address.parse(f"unix:{path}"))
    await first.app.listen_data(Address.parse(f"unix:{tmp_path / 'data'}"))
    with pytest.raises(OSError, match="in use"):
        await second.app.listen_control(Address.parse(f"unix:{path}"))
    with pytest.raises(OSError, match="in use"):
        await second.app.listen_data(Address.parse(f"unix:{tmp_path / 'data'}"))
    assert await live(path) == b"HTTP/1.1 200 OK"
    await first.app.close()
    assert os.listdir(tmp_path) == [], "nothing is left behind"  # noqa: PTH208 - and no thread for it


def test_what_a_dead_process_left_is_replaced_and_anything_else_is_not(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    with unix_socket(str(path)) as made:
        made.listen()
        with pytest.raises(OSError, match="in use"):
            unix_socket(str(path))
    file = tmp_path / "file"
    file.write_text("precious")
    with pytest.raises(OSError, match="in use"):
        unix_socket(str(file))
    assert file.read_text() == "precious"
