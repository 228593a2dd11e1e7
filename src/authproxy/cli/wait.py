"""`authproxy wait`: returns when a running `serve` is ready, for entrypoints and exec probes."""

from __future__ import annotations

import argparse
import http.client
import socket
import time
from collections.abc import Mapping
from urllib.parse import urlsplit

from authproxy.cli.console import DONE, NOT_WELL, Stop, complain
from authproxy.cli.options import option
from authproxy.cli.spans import seconds

PAUSE = 0.05
_PATIENCE = 2.0  # seconds for one answer; a sidecar that hangs is not ready


def arguments(parser: argparse.ArgumentParser, environ: Mapping[str, str]) -> None:
    parser.description = (
        "Wait until /readyz of the control plane answers 200: store and key are there, and the listeners are up. "
        "Exit code 0 then, and 1 when the time is over. Put it before an application that starts beside its sidecar "
        "(`authproxy wait && exec app`), or use it as an exec probe (`authproxy wait --timeout 0`: one look)."
    )
    option(
        parser,
        "--control",
        environ,
        says="the control plane of the running serve: HOST:PORT, unix:/path or http://HOST:PORT "
        "(default: 127.0.0.1:8701)",
        default="127.0.0.1:8701",
        metavar="ADDRESS",
    )
    parser.add_argument(
        "--timeout",
        type=_timeout,
        default=30.0,
        metavar="SPAN",
        help="how long to wait: 30, 30s, 2m; 0: one look (default: 30s)",
    )


def run(args: argparse.Namespace) -> int:
    connect = _connector(args.control)
    until = time.monotonic() + args.timeout
    while True:
        last = _look(connect)
        if last is None:
            return DONE
        if time.monotonic() + PAUSE > until:
            complain(f"{args.control} is not ready: {last}")
            return NOT_WELL
        time.sleep(PAUSE)


class _Connection(http.client.HTTPConnection):
    """To a unix socket where `path` says so. No proxy of the environment is asked: it may be the very one."""

    def __init__(self, host: str, port: int, path: str | None) -> None:
        super().__init__(host, port, timeout=_PATIENCE)
        self._path = path

    def connect(self) -> None:
        if self._path is None:
            super().connect()
            return
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(_PATIENCE)
        self.sock.connect(self._path)


def _look(target: tuple[str, int, str | None]) -> str | None:
    """None: it is ready."""
    connection = _Connection(*target)
    try:
        connection.request("GET", "/readyz")
        answer = connection.getresponse()
        answer.read(65536)
    except (OSError, http.client.HTTPException) as error:
        return getattr(error, "strerror", None) or type(error).__name__
    finally:
        connection.close()
    return None if answer.status == 200 else f"/readyz answers {answer.status}"


def _connector(address: str) -> tuple[str, int, str | None]:
    if address.startswith("unix:/"):
        return "localhost", 80, address[5:]
    if address.startswith("https:"):
        raise Stop(
            "the control plane speaks no TLS itself: name its own address, not that of what is before it"
        )
    try:
        parts = urlsplit(address if "://" in address else f"//{address}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not host or port is None:
        raise Stop(f"--control {address}: write HOST:PORT, such as 127.0.0.1:8701, or unix:/path")
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host), port, None  # noqa: S104 - where serve listens


def _timeout(text: str) -> float:
    try:
        return max(0.0, float(text))
    except ValueError:
        return float(seconds(text))
