"""The wheel installs and runs in an empty environment, provider data included."""

import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run(*command: str | Path, cwd: Path) -> str:
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.timeout(300)
def test_the_wheel_runs_elsewhere(tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(ROOT / "src", source / "src", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    run(sys.executable, "-m", "build", "--wheel", "--outdir", tmp_path / "dist", source, cwd=tmp_path)
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    venv.create(tmp_path / "empty", with_pip=True)
    binaries = tmp_path / "empty" / "bin"
    run(binaries / "python", "-m", "pip", "install", "-q", wheel, cwd=tmp_path)
    shutil.copy(ROOT / "routes.yaml", tmp_path)
    assert "well for development" in run(binaries / "authproxy", "check", cwd=tmp_path)
    code = "from authproxy.core.providers import catalogue; print(len(catalogue()))"
    assert int(run(binaries / "python", "-c", code, cwd=tmp_path)) >= 35
    told = run(binaries / "python", "-m", "authproxy", "demo", cwd=tmp_path)
    assert "token calls: 1" in told
    assert "Done in" in told
