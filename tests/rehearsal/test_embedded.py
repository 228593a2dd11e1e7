"""Every scene once, with real processes; and a promise that a provider's habit makes impossible to keep."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from authproxy.rehearsal import SCENES
from tests.kit.process import BOOT
from tests.rehearsal.conftest import Rehearse, environ

pytestmark = pytest.mark.timeout(180)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("report") / "rehearsal.md"


@pytest.fixture(scope="module")
def played(rehearse: Rehearse, report: Path) -> dict[str, Any]:
    done = rehearse("--json", "--calls", "8", "--report", str(report))
    assert done.returncode in (0, 1), done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    told["exit"] = done.returncode
    return told


def test_every_promise_of_every_scene_is_kept(played: dict[str, Any]) -> None:
    broken = [
        (scene["scene"], one["promise"], one["found"])
        for scene in played["scenes"]
        for one in scene["promises"]
        if not one["kept"]
    ]
    assert not broken
    assert (played["exit"], played["kept"]) == (0, True)
    assert [scene["scene"] for scene in played["scenes"]] == [scene.name for scene in SCENES]
    assert {scene["verdict"] for scene in played["scenes"]} == {"kept"}


def test_what_was_to_be_broken_was_broken(played: dict[str, Any]) -> None:
    """A scene that breaks nothing keeps every promise: each must have been felt."""
    scenes = {scene["scene"]: scene for scene in played["scenes"]}
    for name in ("expiry", "unnoticed-expiry", "rotation", "slow-endpoint", "two-replicas"):
        assert scenes[name]["token_calls"] >= 2, name
    assert "served after one retry" in scenes["unnoticed-expiry"]["saw"]
    for name in ("reuse", "revocation", "password-change", "test-mode", "lost-answer"):
        assert scenes[name]["codes"].keys() >= {"connection_expired"}, name
        assert scenes[name]["connections"]["back_by_consent"] == 1, name
    assert scenes["lost-answer"]["reasons"].count("rotation_lost") == 1
    assert set(scenes["scope-narrowing"]["codes"]) == {"scope_missing"}
    for name in ("token-429", "dead-endpoint", "outage"):
        assert set(scenes[name]["codes"]) == {"provider_unavailable"}, name
        assert scenes[name]["longest_retry_after"] >= 1, name
    assert set(scenes["invalid-client"]["codes"]) == {"provider_misconfigured"}
    assert "the API's own 429" in scenes["api-429"]["saw"]
    assert {scene["double_spends"] for scene in scenes.values()} == {0}


def test_the_report_tells_all_of_it(played: dict[str, Any], report: Path) -> None:
    page = report.read_text()
    assert f"All {len(SCENES)} scenes went as promised" in page
    for name in ("date", "authproxy", "python", "system", "proxy", "provider", "refresh", "calls at once"):
        assert f"| {name} |" in page, name
    for scene in played["scenes"]:
        assert f"## {scene['scene']}\n" in page
        for text in (scene["broke"], scene["means"], scene["do"]):
            assert text.replace("<", "&lt;") in page or text in page
    assert "| **broken** |" not in page
    assert "sbx_" not in page, "no token of the sandbox"


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
        [sys.executable, "-c", BOOT, "rehearse", "--scene", "api-429", "rotation"],
        env={**environ(tmp_path), "TMPDIR": str(tmp_path)},
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    assert process.stderr is not None
    with process.stderr as words:
        assert "api-429" in words.readline()
        assert list(tmp_path.glob("authproxy-rehearsal-*/authproxy.db"))
        process.send_signal(number)
        assert process.wait(20) == code
        assert "the rehearsal was broken off" in words.read()
    assert not list(tmp_path.glob("authproxy-rehearsal-*"))
    running = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    assert f"{tmp_path}/authproxy-rehearsal-" not in running
