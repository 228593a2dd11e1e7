"""What only some proxies need, or need seldom, is not loaded by one that starts: memory and time of every start."""

import json
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from authproxy.store.sealing import generate_key

NOT_AT_START = (
    "authlib.oauth2",  # makes requests to providers
    "joserfc",  # reads who consented
    "cryptography.x509",  # the local authority, for TLS from agents
    "mcp",  # the door for models, and what comes with it
    "pydantic",
    "starlette",
    "asyncpg",  # the other store
    "rich",  # for colours on a console
    "pygments",
    "difflib",  # for what is misspelt
    "importlib.metadata",
    "authproxy.tools.kits",
    "authproxy.store.postgres",
    "authproxy.client",
    "authproxy.demo",
    "authproxy.doctor",
    "authproxy.rehearsal",
    "authproxy.sandbox",
)
OTHER_COMMANDS = ("bench", "connect", "demo", "doctor", "load", "mcp", "rehearse", "sandbox", "workers")


@pytest.fixture
def loaded(tmp_path: Path) -> set[str]:
    """The modules of a `serve` that has come up and gone again, without those that Python itself came with."""
    (tmp_path / "routes.yaml").write_text(
        json.dumps({"version": 1, "identity": {"callers": [{"kind": "loopback"}]}})
    )
    script = textwrap.dedent(
        """
        import json, sys
        before = set(sys.modules)
        from authproxy.cli import main
        code = main(sys.argv[1:])
        print(json.dumps(sorted(set(sys.modules) - before)))
        sys.exit(code)
        """
    )
    command = [
        sys.executable,
        "-c",
        script,
        "serve",
        "--config",
        "routes.yaml",
        "--store",
        "sqlite:///store.db",
    ]
    command += ["--listen", f"unix:{tmp_path}/data", "--control", f"unix:{tmp_path}/control"]
    with subprocess.Popen(
        command,
        cwd=tmp_path,
        env={"AUTHPROXY_KEYS": generate_key()},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        said = []
        for line in process.stderr:
            said.append(line)
            if '"serving"' in line:
                process.send_signal(signal.SIGTERM)
                break
        out, rest = process.communicate(timeout=30)
    assert process.returncode == 0, "".join(said) + rest
    return set(json.loads(out))


def test_a_start_loads_what_it_needs(loaded: set[str]) -> None:
    seldom = (*NOT_AT_START, *(f"authproxy.cli.{name}" for name in OTHER_COMMANDS))
    idle = sorted(name for name in loaded if any(f"{name}.".startswith(f"{one}.") for one in seldom))
    assert idle == []
    assert "authproxy.proxy.walk" in loaded
