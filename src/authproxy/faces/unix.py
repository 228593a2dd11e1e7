"""Unix sockets: bound for their owner and group only, and taken over from nobody who is alive."""

from __future__ import annotations

import errno
import os
import socket
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_LOCK = threading.Lock()  # the umask belongs to the whole process


def unix_socket(path: str) -> socket.socket:
    """A socket bound at `path`; one that a dead process left there is replaced. Raises OSError.

    asyncio alone would take the path of a running process away from it, and with an open umask let everybody on the
    machine be a local caller.
    """
    _remove_dead(path)
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with _LOCK:
            before = os.umask(0o077)
            os.umask(before | 0o007)
            try:
                made.bind(path)
            finally:
                os.umask(before)
        made.setblocking(False)
    except BaseException:
        made.close()
        raise
    return made


@contextmanager
def bound(path: str) -> Iterator[socket.socket]:
    """The same for as long as a listener lives: its file is taken away afterwards, if it is still ours."""
    made, file = unix_socket(path), Path(path)
    inode = file.lstat().st_ino
    try:
        yield made
    finally:
        with suppress(FileNotFoundError):
            if file.lstat().st_ino == inode:
                file.unlink()


def _remove_dead(path: str) -> None:
    try:
        if not stat.S_ISSOCK(Path(path).lstat().st_mode):
            return  # bind says that it is in the way
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            Path(path).unlink(missing_ok=True)
            return
        except TimeoutError:
            pass  # its backlog is full: very much alive
    raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
