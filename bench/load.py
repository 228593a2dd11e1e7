"""The load: wrk where it is installed, else connections of our own; paces, transfers and streams always our own."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import subprocess
import time
from collections.abc import Coroutine, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from authproxy.cli.load import Run, get, keep_busy, keep_pace
from bench.contenders import USER_FIELD, Door
from bench.machine import program

_SCRIPT = Path(__file__).with_name("wrk.lua")
_BUFFER = 2**20
_T = TypeVar("_T")


class BadLoad(Exception):
    """Some answers were not what was asked for: the figure would be of something else."""


class Load(NamedTuple):
    """What is sent in a closed loop. Users are taken in turn, which wrk alone can do."""

    path: str = "/small"
    method: str = "GET"
    body: int = 0
    connections: int = 32
    users: int = 1


class Loaded(NamedTuple):
    """What came back, in how many seconds."""

    requests: int
    seconds: float


def closed(door: Door, load: Load, seconds: int, authority: Path) -> Loaded:
    """Each connection asks again as soon as it is answered."""
    wrk = program("wrk")
    if wrk is None:
        request = _request(load.method, door.prefix + load.path, load.body)
        tls = _context(door, authority)
        run = _in_loop(keep_busy(door.port, request, connections=load.connections, seconds=seconds, tls=tls))
        return Loaded(run.requests, run.seconds)
    scheme = "https" if door.tls else "http"
    path = door.prefix + load.path
    command = [wrk, "-t1", f"-c{load.connections}", f"-d{seconds}s", "--timeout", "20s", "-s", str(_SCRIPT)]
    command += [f"{scheme}://127.0.0.1:{door.port}{path}", "--"]
    command += [load.method, path, str(load.body), str(load.users)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=seconds + 60)
    found = done.stdout.rpartition("\nresult ")[2]
    if done.returncode or not found.startswith("{"):
        raise BadLoad((done.stdout + done.stderr)[-300:])
    result = json.loads(found)
    if result["faults"] or not result["requests"]:
        raise BadLoad(f"{result['faults']} faults beside {result['requests']} answers")
    return Loaded(result["requests"], result["seconds"])


def paced(door: Door, rate: float, seconds: float, authority: Path) -> Run:
    """Small GETs at a fixed rate, whether or not they are answered."""
    request = get(door.prefix + "/small", USER_FIELD)
    return _in_loop(keep_pace(door.port, request, rate=rate, seconds=seconds, tls=_context(door, authority)))


def transfer(door: Door, size: int, *, up: bool, seconds: float, authority: Path) -> Loaded:
    """Bodies of that size one after another on one connection, for at least so many seconds."""
    request = _request("POST" if up else "GET", door.prefix + ("/take" if up else f"/bytes/{size}"), 0, size)
    body = memoryview(bytes(size)) if up else memoryview(b"")
    buffer = bytearray(_BUFFER)
    count = 0
    with _connected(door, authority) as sock:
        began = time.perf_counter()
        while time.perf_counter() - began < seconds:
            sock.sendall(request)
            for start in range(0, len(body), _BUFFER):
                sock.sendall(body[start : start + _BUFFER])
            _read_answer(sock, buffer)
            count += 1
        return Loaded(count, time.perf_counter() - began)


@contextmanager
def streams(door: Door, count: int, authority: Path) -> Iterator[None]:
    """That many streams of events, open at once; each has brought its first event."""
    request = get(door.prefix + "/events", USER_FIELD)
    with ExitStack() as stack:
        opened = [stack.enter_context(_connected(door, authority)) for _ in range(count)]
        for sock in opened:
            sock.sendall(request)
        for sock in opened:
            seen = b""
            while b"data: tick" not in seen:
                data = sock.recv(4096)
                if not data:
                    raise BadLoad(f"a stream ended: {seen[:200]!r}")
                seen += data
        yield


def _read_answer(sock: socket.socket, buffer: bytearray) -> None:
    head = b""
    while b"\r\n\r\n" not in head:
        data = sock.recv(4096)
        if not data:
            raise BadLoad("the connection was closed before an answer")
        head += data
    head, _, rest = head.partition(b"\r\n\r\n")
    length = head.lower().partition(b"\r\ncontent-length:")[2].partition(b"\r\n")[0]
    if not head.startswith(b"HTTP/1.1 200") or not length:
        raise BadLoad(f"the answer was {head[:100]!r}")
    left = int(length) - len(rest)
    while left:
        got = sock.recv_into(buffer, min(left, len(buffer)))
        if not got:
            raise BadLoad("the answer broke off")
        left -= got


@contextmanager
def _connected(door: Door, authority: Path) -> Iterator[socket.socket]:
    with ExitStack() as stack:
        sock = stack.enter_context(socket.create_connection(("127.0.0.1", door.port), timeout=60))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        tls = _context(door, authority)
        yield sock if tls is None else stack.enter_context(tls.wrap_socket(sock, server_hostname="localhost"))


def _context(door: Door, authority: Path) -> ssl.SSLContext | None:
    return ssl.create_default_context(cafile=authority) if door.tls else None


def _request(method: str, path: str, body: int, announced: int = 0) -> bytes:
    if method == "GET":
        return get(path, USER_FIELD)
    lines = [
        f"{method} {path} HTTP/1.1",
        "Host: 127.0.0.1",
        USER_FIELD,
        f"Content-Length: {body or announced}",
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + b"x" * body


def _in_loop(work: Coroutine[Any, Any, _T]) -> _T:
    try:
        from uvloop import new_event_loop as factory
    except ImportError:
        factory = None  # type: ignore[assignment]
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(work)
