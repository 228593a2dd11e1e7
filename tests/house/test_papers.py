"""README, the checks and the manifests are held against the code."""

import re
import subprocess
import sys
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, get_args, get_type_hints

import kubernetes_validate
import pytest
import yaml

from authproxy.core.config import Config
from authproxy.core.errors import every_refusal
from authproxy.metrics import Metrics

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def settings(cls: Any, prefix: str = "") -> list[str]:
    """Every key of routes.yaml, dotted; `*` stands for a name the operator chooses, `[]` for a list."""
    found = []
    hints = get_type_hints(cls)
    for field in fields(cls):
        path = prefix + field.name
        inner = [hints[field.name], *get_args(hints[field.name])]
        nested = next((kind for kind in inner if is_dataclass(kind)), None)
        if nested is None:
            found.append(path)
        elif inner[0] is nested:
            found += settings(nested, path + ".")
        elif "Mapping" in str(inner[0]):
            found += settings(nested, path + ".*.")
        else:
            found += settings(nested, path + "[].")
    return found


@pytest.mark.parametrize("path", settings(Config))
def test_the_readme_names_every_setting(path: str) -> None:
    assert f"| `{path}` |" in README


@pytest.mark.parametrize("refusal", every_refusal(), ids=lambda kind: kind.code)
def test_the_readme_names_every_refusal(refusal: Any) -> None:
    assert f"| `{refusal.code}` | {refusal.status} | `{refusal.act}` |" in README


def test_the_readme_names_every_metric() -> None:
    named = {
        line.split()[2]
        for line in Metrics().exposition({("acme", "active"): 1}).decode().splitlines()
        if line.startswith("# TYPE") and not line.split()[2].endswith("_created")
    }
    assert len(named) > 8
    for name in named:
        assert f"`{name}" in README, name


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


def test_the_sidecar_is_native_and_hardened() -> None:
    documents = list(yaml.safe_load_all((ROOT / "k8s" / "agent.yaml").read_text()))
    pod = next(d for d in documents if d["kind"] == "StatefulSet")["spec"]["template"]["spec"]
    sidecar = pod["initContainers"][0]
    assert sidecar["restartPolicy"] == "Always"
    assert sidecar["securityContext"]["readOnlyRootFilesystem"] is True
    assert {"startupProbe", "readinessProbe", "livenessProbe"} <= set(sidecar)
    assert "--listen=127.0.0.1:8700" in sidecar["args"]
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
