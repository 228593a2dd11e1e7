"""The command with its own proxy and sandbox: what it refuses to start, what it says, and what it leaves behind."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from authproxy.rehearsal import SCENES
from tests.kit.process import BOOT
from tests.rehearsal.conftest import Rehearse, environ

pytestmark = pytest.mark.timeout(180)


def test_a_broken_promise_ends_with_1_and_is_named(rehearse: Rehearse) -> None:
    """A provider that calls every grant dead at its first refresh: nobody could be served without a consent."""
    words = ("--set", "error=invalid_grant", "--set", "faults_for=refresh", "--calls", "4")
    done = rehearse("--scene", "unnoticed-expiry", "api-429", *words)
    assert done.returncode == 1, done.stderr
    assert (
        "unnoticed-expiry: PROMISE BROKEN: every call is served although the API refused its token"
        in done.stdout
    )
    assert "found: 4 asked to re-consent (connection_expired)" in done.stdout
    assert "1 of 2 scenes did not go as promised" in done.stdout
    lines = [line.split() for line in done.stderr.splitlines()]
    assert [line[1:3] for line in lines] == [["broken", "unnoticed-expiry"], ["kept", "api-429"]]


def test_scenes_can_be_listed(rehearse: Rehearse) -> None:
    done = rehearse("--list")
    assert done.returncode == 0
    assert [line.split()[0] for line in done.stdout.splitlines()[1:]] == [scene.name for scene in SCENES]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--scene", "expirey"), "there is no scene 'expirey'"),
        (("--set", "expirey=1"), "unknown switch 'expirey'"),
        (("--calls", "0"), "say a number from 1 to 300"),
        (("--report", "missing/folder/report.md"), "no such folder"),
        (("--sandbox", "http://127.0.0.1:9"), "say --config and --route as well"),
    ],
)
def test_what_is_wrong_is_said_before_anything_starts(
    rehearse: Rehearse, words: tuple[str, ...], said: str
) -> None:
    done = rehearse(*words)
    assert done.returncode == 2
    assert said in done.stderr


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 1), (signal.SIGINT, 1)])
def test_broken_off_it_leaves_nothing_behind(tmp_path: Path, number: signal.Signals, code: int) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", BOOT, "rehearse", "--scene", "reuse", "rotation"],
        env={**environ(tmp_path), "TMPDIR": str(tmp_path)},
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    assert process.stderr is not None
    with process.stderr as words:
        assert "reuse" in words.readline()
        assert list(tmp_path.glob("authproxy-rehearsal-*/authproxy.db"))
        process.send_signal(number)
        assert process.wait(20) == code
        assert "the rehearsal was broken off" in words.read()
    assert not list(tmp_path.glob("authproxy-rehearsal-*"))
    running = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    assert f"{tmp_path}/authproxy-rehearsal-" not in running
