"""One running `serve` for the commands that work beside it, and a runner for those that need none."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.kit.process import BOOT, Proxy
from tests.kit.provider import Provider

Run = Callable[..., subprocess.CompletedProcess[str]]


def routes(provider: Provider) -> dict[str, Any]:
    """What routes.yaml says of the kit's provider."""
    return {
        "providers": {"kit": provider.choice()},
        "routes": {"kit": {"upstream": provider.url, "provider": "kit", "scopes": ["read"]}},
        "egress": {"allow": [f"127.0.0.1:{provider.port}"]},
    }


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    provider = Provider()
    yield provider
    provider.close()


@pytest.fixture(scope="module")
def serving(provider: Provider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    callers = [{"kind": "loopback", "agent": "kit", "operator": True}, {"kind": "api_key"}]
    config = {**routes(provider), "identity": {"callers": callers}, "refresh": {"leash": 1.0}}
    with Proxy(tmp_path_factory.mktemp("serving"), config) as proxy:
        yield proxy


@pytest.fixture
def command(tmp_path: Path) -> Run:
    """`authproxy …` in an empty folder, with nothing of the surroundings but what is given."""

    def run(*words: str, stdin: str | None = None, **environ: str) -> subprocess.CompletedProcess[str]:
        kept = {name: os.environ[name] for name in ("PATH", "LANG", "TMPDIR") if name in os.environ}
        return subprocess.run(
            [sys.executable, "-c", BOOT, *words],
            env={**kept, "HOME": str(tmp_path), **environ},
            cwd=tmp_path,
            input=stdin if stdin is not None else "",
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )

    return run
