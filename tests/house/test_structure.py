"""Imports run downwards, rooms say what they are, secrets are opened in few places."""

import ast
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SRC = ROOT / "src" / "authproxy"
MODULES = sorted(SRC.rglob("*.py"))
BANNED_NAMES = {"utils", "util", "helpers", "helper", "common", "manager", "service", "impl", "misc"}


def lint_imports(root: Path) -> subprocess.CompletedProcess[str]:
    # The linter is run from the tree that it looks at, so that a planted violation is seen and ours is not.
    code = (
        f"import sys; sys.path.insert(0, {str(root / 'src')!r});"
        "from importlinter.cli import lint_imports_command; lint_imports_command()"
    )
    return subprocess.run(
        [sys.executable, "-c", code, "--no-cache"],
        cwd=root,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_imports_run_downwards() -> None:
    done = lint_imports(ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("room", "line"),
    [
        ("core/policy.py", "import authproxy.broker.tokens"),
        ("core/oauth.py", "import asyncio"),
        ("faces/health.py", "import authproxy.faces.api"),
        ("store/sealing.py", "import authproxy.broker.flight"),
    ],
)
def test_a_planted_violation_is_seen(tmp_path: Path, room: str, line: str) -> None:
    shutil.copytree(ROOT / "src", tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    planted = tmp_path / "src" / "authproxy" / room
    planted.write_text(planted.read_text() + f"\n{line}\n")
    assert lint_imports(tmp_path).returncode != 0


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(SRC)))
def test_each_room_says_what_it_is(module: Path) -> None:
    text = module.read_text()
    doc = ast.get_docstring(ast.parse(text))
    assert doc, f"{module} has no docstring"
    assert module.stem not in BANNED_NAMES
    assert len(text.splitlines()) <= 450, "a longer file is two rooms"


def calls_of(name: str) -> dict[str, int]:
    found: dict[str, int] = {}
    for module in MODULES:
        for node in ast.walk(ast.parse(module.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == name:
                key = str(module.relative_to(SRC))
                found[key] = found.get(key, 0) + 1
    return found


@pytest.mark.scenario("F02", "F11")
def test_secrets_are_revealed_in_few_rooms() -> None:
    """A token becomes text only where it is sealed, sent to its provider, or put in the one header."""
    assert set(calls_of("reveal")) <= REVEALING, (
        "a new room opens secrets: is it its one rightful destination?"
    )


REVEALING = {
    "core/oauth.py",  # the body of a token request
    "core/client_auth.py",  # the client's own credential in it
    "core/secret.py",  # comparing two of them
    "core/signature.py",  # the key of a webhook's signatures
    "store/sealing.py",  # sealing, and the keyed digest
    "broker/tokens.py",  # the Authorization field
    "proxy/authority.py",  # the key of the local certificate authority, to sign with
    "broker/flows.py",  # state, verifier and cookie on their way to the browser
}


@pytest.mark.scenario("A31")
def test_one_room_may_refresh() -> None:
    """Exactly one function may make a request with grant_type=refresh_token."""
    callers = set()
    for module in MODULES:
        tree = ast.parse(module.read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                name = getattr(node.func, "attr", getattr(node.func, "id", ""))
                if name == "refresh_request":
                    callers.add(str(module.relative_to(SRC)))
    assert callers == {"broker/refresh.py"}


def test_no_leftovers() -> None:
    for module in MODULES:
        text = module.read_text()
        for word in ("TODO", "FIXME", "XXX", "NotImplementedError"):
            assert word not in text, f"{module}: {word}"
