"""The command as a user starts it, and a sandbox of the user's own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.kit.process import BOOT

Rehearse = Callable[..., subprocess.CompletedProcess[str]]


def environ(home: Path) -> dict[str, str]:
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "TMPDIR", "PYTHONPATH") if name in os.environ}
    return {**kept, "HOME": str(home), "PYTHONUNBUFFERED": "1"}


@pytest.fixture(scope="session")
def rehearse(tmp_path_factory: pytest.TempPathFactory) -> Rehearse:
    folder = tmp_path_factory.mktemp("rehearse")

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", BOOT, "rehearse", *words],
            env=environ(folder),
            cwd=folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=170,
            check=False,
        )

    return run


@pytest.fixture
def sandbox(tmp_path: Path) -> Iterator[str]:
    """Where a sandbox listens that was started beforehand, with a habit of its own."""
    process = subprocess.Popen(
        [sys.executable, "-c", BOOT, "sandbox", "--port", "0", "--set", "grace_s=1"],
        env=environ(tmp_path),
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        found = re.search(r"http://127\.0\.0\.1:\d+", process.stdout.readline())
        assert found is not None
        yield found[0]
    finally:
        process.terminate()
        process.wait(10)
        process.stdout.close()
