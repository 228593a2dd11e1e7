"""The soak in short, with the whole suite; `-m soak` makes it long."""

from __future__ import annotations

import pytest

from tests.soak.soak import Plan, run

SCENARIOS = ("A03", "A04", "A08", "A09", "A16", "A33", "E07", "E08")


@pytest.mark.scenario(*SCENARIOS)
@pytest.mark.parametrize("store", ["sqlite", "postgres"])
def test_nothing_is_spent_twice_whoever_dies(store: str) -> None:
    report = run(Plan(6, processes=3, store=store, connections=12, callers=4, kill_every=1.5, die=0.01))
    assert report.sound, str(report)
    assert report.refreshes > 3, str(report)
    assert report.kills["processes"], str(report)


@pytest.mark.scenario(*SCENARIOS)
def test_nothing_is_spent_twice_at_a_server_that_is_not_ours() -> None:
    report = run(Plan(5, processes=3, server="django", connections=6, callers=4, kill_every=1.5, die=0.01))
    assert report.sound, str(report)
    assert report.refreshes > 3, str(report)


@pytest.mark.soak
@pytest.mark.timeout(900)
@pytest.mark.parametrize("server", ["sandbox", "django"])
@pytest.mark.parametrize("store", ["sqlite", "postgres"])
def test_the_same_for_minutes(store: str, server: str) -> None:
    report = run(Plan(300, processes=8, store=store, server=server))
    print(report)
    assert report.sound, str(report)
