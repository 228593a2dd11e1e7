"""`authproxy mcp`: speaks MCP on standard input and output, for clients that start their servers as programs."""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import signal
import threading
from collections.abc import Mapping
from concurrent.futures import CancelledError
from typing import TYPE_CHECKING
from urllib.parse import quote, urlencode

from authproxy.cli.console import DONE, Stop
from authproxy.cli.options import option
from authproxy.core.message import NAME_RULE, is_name

if TYPE_CHECKING:
    from authproxy.cli.stdio import Bridge

_BASE = re.compile(r"(https?://[^/?#@\s]+(?:/[^?#\s]*?)??)/?(?:mcp/?)?")
MAX_LINE = 64 * 2**20
"""Bytes of one message of the client; after a longer one nothing more is read."""
_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_CHUNK = 2**18


def arguments(parser: argparse.ArgumentParser, environ: Mapping[str, str]) -> None:
    parser.description = (
        "Speak MCP on standard input and output, and hand every message on to /mcp of a running serve: there is one "
        "policy, one audit and one holder of tokens, and this process knows none of them. The agent key is read from "
        "AUTHPROXY_AGENT_KEY; a serve on this machine with a loopback caller needs none. Desktop clients start this "
        "command themselves: see the README for their configuration."
    )
    option(
        parser,
        "--control",
        environ,
        says="the control plane of the running serve: HOST:PORT, unix:/path, or https://HOST where TLS is ended "
        "before it (default: 127.0.0.1:8701)",
        default="127.0.0.1:8701",
        metavar="ADDRESS",
    )
    option(
        parser, "--user", environ, says="whose accounts the tools act on; not for a key that is bound to one"
    )
    option(
        parser,
        "--user-header",
        environ,
        says="the header that names the user, where identity.user_header is not X-User-ID",
        default="X-User-ID",
        metavar="NAME",
    )
    parser.add_argument(
        "--account", help="which of the user's accounts, where they have several at one provider"
    )
    parser.add_argument(
        "--toolkit",
        action="append",
        default=[],
        metavar="NAME",
        help="offer the tools of this toolkit only, as in `--toolkit Gmail --toolkit Slack`; models choose better "
        "among fewer",
    )


def run(args: argparse.Namespace) -> int:
    url, path = endpoint(args.control, args.toolkit)
    headers = {
        header: _name(header, value)
        for header, value in ((args.user_header, args.user), ("X-Authproxy-Account", args.account))
        if value
    }
    key = os.environ.get("AUTHPROXY_AGENT_KEY", "").strip()
    if key:
        headers["Authorization"] = f"Bearer {key}"
    return asyncio.run(_serve(url, path, headers))


def endpoint(control: str, toolkits: list[str]) -> tuple[str, str | None]:
    """The URL of /mcp, and the unix socket it is behind, if it is. Raises Stop."""
    query = f"?{urlencode([('toolkit', name) for name in toolkits], quote_via=quote)}" if toolkits else ""
    if control.startswith("unix:/"):
        return f"http://localhost/mcp{query}", control[5:]
    match = _BASE.fullmatch(control if "://" in control else f"http://{control}")
    if match is None:
        raise Stop(
            f"--control {control}: write HOST:PORT, such as 127.0.0.1:8701, unix:/path or https://HOST"
        )
    return f"{match[1]}/mcp{query}", None


def _name(header: str, value: str) -> str:
    if not _TOKEN.fullmatch(header):
        raise Stop("--user-header is not the name of a header")
    if not is_name(value):
        raise Stop(f"what goes into {header} must be {NAME_RULE}")
    return value


async def _serve(url: str, path: str | None, headers: Mapping[str, str]) -> int:
    from authproxy.cli.stdio import Bridge

    loop = asyncio.get_running_loop()
    ended = asyncio.Event()  # told to, or nobody is there to read
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    lines: asyncio.Queue[bytes] = asyncio.Queue(16)
    # A thread that nobody waits for: a read of standard input cannot be called back.
    threading.Thread(target=_read, args=(loop, lines), daemon=True).start()
    async with Bridge(url, headers, path=path, write=_write, unread=ended.set) as bridge:
        reading = asyncio.create_task(_hand_on(bridge, lines))
        told = asyncio.create_task(ended.wait())
        await asyncio.wait([reading, told], return_when=asyncio.FIRST_COMPLETED)
        told.cancel()
        if ended.is_set():
            reading.cancel()
        else:
            reading.result()
            await bridge.drain()
    return DONE


async def _hand_on(bridge: Bridge, lines: asyncio.Queue[bytes]) -> None:
    while line := await lines.get():
        await bridge.take(line)


def _read(loop: asyncio.AbstractEventLoop, lines: asyncio.Queue[bytes]) -> None:
    """Each line as it comes, and an empty one at the end. Not through sys.stdin, whose lock must be free at exit."""
    held = bytearray()
    while chunk := _chunk():
        *whole, rest = chunk.split(b"\n")
        for piece in whole:
            if not _put(loop, lines, bytes(held + piece + b"\n")):
                return
            held.clear()
        held += rest
        if len(held) > MAX_LINE:
            break
    if held:
        _put(loop, lines, bytes(held))
    _put(loop, lines, b"")


def _chunk() -> bytes:
    try:
        return os.read(0, _CHUNK)
    except OSError:  # it was never open
        return b""


def _put(loop: asyncio.AbstractEventLoop, lines: asyncio.Queue[bytes], line: bytes) -> bool:
    """False: the loop has ended."""
    work = lines.put(line)
    try:
        asyncio.run_coroutine_threadsafe(work, loop).result()
    except (RuntimeError, CancelledError):
        work.close()
        return False
    return True


def _write(line: bytes) -> None:
    rest = memoryview(line + b"\n")
    while rest:
        rest = rest[os.write(1, rest) :]
