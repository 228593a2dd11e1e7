"""What holds for the whole run: how it begins, whoever started it, and that it ends when its last test has."""

from __future__ import annotations

import compileall
import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import authproxy

ENDING = pytest.StashKey[int]()


def pytest_configure(config: pytest.Config) -> None:
    """Each of some hundred processes would otherwise compile the program for itself where bytecode is not written.

    A shell's background job ignores SIGINT, and so would every process of the tests, even one that is sent it.
    """
    if not hasattr(config, "workerinput"):
        compileall.compile_dir(Path(authproxy.__file__).parent, quiet=2)
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    session.config.stash[ENDING] = int(exitstatus)


@pytest.hookimpl(wrapper=True)
def pytest_unconfigure(config: pytest.Config) -> Iterator[None]:
    """A store that a failed test did not close has a thread, for which the interpreter would wait."""
    yield
    left = [
        one.name for one in threading.enumerate() if one is not threading.main_thread() and not one.daemon
    ]
    if (
        left and ENDING in config.stash and not hasattr(config, "workerinput")
    ):  # workers are ended from outside
        sys.stderr.write(f"left running: {', '.join(left)}\n")
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(config.stash[ENDING])
