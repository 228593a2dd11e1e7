"""README, the checks and the manifests are held against the code."""

import re
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from authproxy.core.config import Config
from authproxy.core.errors import every_refusal
from authproxy.metrics import Metrics
from tests.house.tables import TABLES, written

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def test_the_readme_s_tables_are_complete() -> None:
    """Every setting, refusal and metric, as the code has them."""
    stale = written(README) != README  # their difference would take minutes to draw
    assert not stale, "run `python -m tests.house.tables`"
    missing = [name for name, table in TABLES.items() if table() not in README]
    assert not missing


def test_the_tables_name_everything() -> None:
    for refusal in every_refusal():
        assert f"| `{refusal.code}` | {refusal.status} | `{refusal.act}` |" in README
    exposed = Metrics().exposition({("acme", "active"): 1}).decode()
    families = {line.split()[2] for line in exposed.splitlines() if line.startswith("# TYPE")}
    for name in (one for one in families if not one.endswith("_created")):
        assert f"`{name}`" in README


def test_ci_runs_what_the_readme_says() -> None:
    script = (ROOT / ".ci" / "run").read_text()
    commands = [line for line in script.splitlines() if line.startswith((".venv", "python3"))]
    assert len(commands) >= 7
    for command in commands:
        assert command in README, command


def test_the_readme_starts_with_two_one_line_commands() -> None:
    blocks = re.findall(r"```sh\n(.+?)\n```", README, re.S)
    assert "\n" not in blocks[0]
    assert blocks[0].endswith("authproxy demo")
    assert "\n" not in blocks[1]
    assert blocks[1].endswith("pytest")


@pytest.mark.parametrize("name", ["agent.yaml", "network.yaml"])
def test_the_manifests_fit_the_schemas(name: str) -> None:
    for document in yaml.safe_load_all((ROOT / "k8s" / name).read_text()):
        kubernetes_validate.validate(document, "1.32", strict=True)


@pytest.mark.scenario("J09")
def test_the_sidecar_is_native_and_hardened() -> None:
    documents = list(yaml.safe_load_all((ROOT / "k8s" / "agent.yaml").read_text()))
    pod = next(d for d in documents if d["kind"] == "StatefulSet")["spec"]["template"]["spec"]
    sidecar = pod["initContainers"][0]
    assert sidecar["restartPolicy"] == "Always"
    assert sidecar["securityContext"]["readOnlyRootFilesystem"] is True
    assert {"startupProbe", "readinessProbe", "livenessProbe"} <= set(sidecar)
    assert "--listen=127.0.0.1:8700" in sidecar["args"]
    # It is told to stop after the agent has ended, and nothing may turn that order round (J09).
    assert not [one for one in (*pod["initContainers"], *pod["containers"]) if "lifecycle" in one]
    assert sidecar["name"] not in {one["name"] for one in pod["containers"]}
    assert pod["terminationGracePeriodSeconds"] > Config(version=1).refresh.deadline


def test_the_dockerfile_is_linted() -> None:
    done = subprocess.run(
        [str(Path(sys.executable).with_name("hadolint")), str(ROOT / "Dockerfile")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout


def test_what_serve_leaves_beside_the_database_is_not_offered_to_git(tmp_path: Path) -> None:
    file = tmp_path / "routes.yaml"
    file.write_text((ROOT / "routes.yaml").read_text())
    words = [sys.executable, "-m", "authproxy", "agents", "create", "one", "--json"]
    subprocess.run(words, cwd=tmp_path, capture_output=True, check=True, timeout=50)
    ignored = (ROOT / ".gitignore").read_text().split()
    left = {path.name for path in tmp_path.iterdir()} - {file.name}
    assert {"authproxy.db", "authproxy.db.keys"} <= left
    left |= {"authproxy.db.mark", "authproxy.db-wal", "authproxy.db-shm"}  # as long as it serves
    assert not [name for name in left if not any(fnmatch(name, glob) for glob in ignored)]
