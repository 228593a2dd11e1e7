"""The benchmark runs, with whatever is installed here, and its figures make sense."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.timeout(120)
def test_a_part_of_it(tmp_path: Path) -> None:
    only = ["direct", "authproxy", "naive", "start", "get1", "pace", "tlsbulkdown"]
    command = [sys.executable, "-m", "bench", "--quick", "--output", str(tmp_path), "--only", *only]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["faults"] == []
    figures = results["figures"]
    assert figures["get1"]["authproxy"]["cpu"][0] > 0
    assert figures["get1"]["direct"]["rate"][0] > figures["get1"]["authproxy"]["rate"][0]
    assert figures["pace"]["authproxy"]["p50"][0] > figures["pace"]["direct"]["p50"][0] > 0
    assert figures["tlsbulkdown"]["naive"]["bytes"][0] > 1
    assert figures["start"]["authproxy"]["streams"][0] >= figures["start"]["authproxy"]["idle"][0] > 10
    page = (tmp_path / "RESULTS.md").read_text()
    assert "small GET, 1 connection" in page
    assert "bench-aaaa" not in page
