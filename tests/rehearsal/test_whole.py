"""Every scene once, with real processes. It plays while the rest of the room is tested, for most of it is waiting."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from authproxy.rehearsal import SCENES

pytestmark = pytest.mark.timeout(180)


def test_every_promise_of_every_scene_is_kept_and_told(played: dict[str, Any], report: Path) -> None:
    """One test, so that the programme is played once, whoever plays."""
    every_promise_is_kept(played)
    what_was_to_be_broken_was_broken(played)
    the_report_tells_all_of_it(played, report)


def every_promise_is_kept(played: dict[str, Any]) -> None:
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


def what_was_to_be_broken_was_broken(played: dict[str, Any]) -> None:
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


def the_report_tells_all_of_it(played: dict[str, Any], report: Path) -> None:
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
