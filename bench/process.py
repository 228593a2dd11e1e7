"""A process that is measured: started, waited for, and asked of the kernel what it uses."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

_TICK = os.sysconf("SC_CLK_TCK")
_PATIENCE = 60.0


class NotReady(Exception):
    """A process did not come up; the argument is what it said."""


class Process:
    """A program and its children. What they print goes to `log`."""

    def __init__(self, command: Sequence[str], log: Path, environ: Mapping[str, str] | None = None) -> None:
        self._log = log
        self.started = time.perf_counter()
        with log.open("ab") as out:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                env={**os.environ, **(environ or {})},
                start_new_session=True,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End it and its children."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(5)
            except subprocess.TimeoutExpired:
                os.killpg(self._process.pid, signal.SIGKILL)
                self._process.wait()

    def words(self) -> str:
        """The end of what it printed."""
        return self._log.read_text(errors="replace")[-1500:]

    def await_port(self, port: int, request: bytes | None = None) -> float:
        """Seconds from the start until the port takes a connection or, with `request`, answers it with 200."""
        while True:
            if self._process.poll() is not None:
                raise NotReady(f"it ended with {self._process.returncode}: {self.words()}")
            if time.perf_counter() - self.started > _PATIENCE:
                raise NotReady(f"it did not answer: {self.words()}")
            try:
                with socket.create_connection(("127.0.0.1", port), timeout=5) as sock:
                    if request is None:
                        return time.perf_counter() - self.started
                    sock.sendall(request)
                    if sock.recv(4096).startswith(b"HTTP/1.1 200"):
                        return time.perf_counter() - self.started
            except OSError:
                pass  # not yet
            time.sleep(0.003)  # another program has no other way to tell

    # What the kernel says.

    def cpu(self) -> float:
        """CPU seconds so far, user and system, of the program and its children."""
        ticks = 0
        for pid in self._tree():
            fields = _stat(pid)
            ticks += int(fields[11]) + int(fields[12])
        return ticks / _TICK

    def memory(self) -> float:
        """Resident MB of the program and its children."""
        pages = sum(int(_stat(pid)[21]) for pid in self._tree())
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20

    def _tree(self) -> list[int]:
        found = [self._process.pid]
        for pid in found:
            for task in Path(f"/proc/{pid}/task").iterdir():
                found += [int(child) for child in (task / "children").read_text().split()]
        return found


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the third on; the second, the name, may hold anything."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
