"""The command as a user starts it, and a sandbox of the user's own."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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


@pytest.fixture(scope="session")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("report") / "rehearsal.md"


@dataclass
class Playing:
    """The whole programme, under way."""

    folder: Path
    process: subprocess.Popen[bytes]

    def end(self) -> dict[str, Any]:
        """What it told, and its exit code."""
        code = self.process.wait(170)
        assert code in (0, 1), (self.folder / "stderr").read_text()
        return {**json.loads((self.folder / "stdout").read_bytes()), "exit": code}


@pytest.fixture(scope="session", autouse=True)
def playing(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, report: Path
) -> Iterator[Playing | None]:
    """Begun with the first test of this room, if any test of the run asks how it went."""
    if not any("played" in getattr(item, "fixturenames", ()) for item in request.session.items):
        yield None
        return
    folder = tmp_path_factory.mktemp("played")
    with (folder / "stdout").open("wb") as out, (folder / "stderr").open("wb") as err:
        process = subprocess.Popen(
            [sys.executable, "-c", BOOT, "rehearse", "--json", "--calls", "8", "--report", str(report)],
            env=environ(folder),
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
        )
    yield Playing(folder, process)
    process.terminate()
    process.wait(20)


@pytest.fixture(scope="session")
def played(playing: Playing) -> dict[str, Any]:
    return playing.end()


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
