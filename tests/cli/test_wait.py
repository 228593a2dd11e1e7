"""`authproxy wait`, before an application that starts at the same time as its sidecar."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.cli.conftest import Run, routes
from tests.kit.ports import free_port
from tests.kit.process import BOOT, Proxy
from tests.kit.provider import Provider


@pytest.mark.scenario("J08")
def test_the_first_request_after_wait_succeeds(tmp_path: Path, provider: Provider) -> None:
    proxy = Proxy(tmp_path, routes(provider))
    waiting = subprocess.Popen(
        [sys.executable, "-c", BOOT, "wait", "--control", f"127.0.0.1:{proxy.control}"], env=proxy.env
    )
    starting = threading.Thread(target=proxy.start, daemon=True)
    starting.start()
    try:
        assert waiting.wait(20) == 0
        status, _, body = proxy.fetch(proxy.listen, "GET", "/kit/x", headers={"X-User-ID": "alice"})
        assert (status, b"connection_required" in body) == (403, True)
    finally:
        starting.join()
        proxy.stop()


@pytest.mark.scenario("J08")
def test_nobody_there(command: Run) -> None:
    address = f"127.0.0.1:{free_port()}"
    began = time.monotonic()
    told = command("wait", "--timeout", "1s", "--control", address)
    assert (told.returncode, 1 <= time.monotonic() - began < 10) == (1, True)
    assert f"{address} is not ready" in told.stderr
    assert command("wait", "--timeout", "0", AUTHPROXY_CONTROL=address).returncode == 1


@pytest.mark.parametrize("address", ["nonsense", "https://127.0.0.1:1", "127.0.0.1:99999", "127.0.0.1"])
def test_an_address_that_is_none(command: Run, address: str) -> None:
    assert command("wait", "--control", address).returncode == 2


def test_it_starts_quickly() -> None:
    """Little is imported: an exec probe runs it every few seconds."""
    code = "import sys; from authproxy.cli import main; main(['wait', '--timeout', '0', '--control', '127.0.0.1:1']); "
    code += "print([name for name in ('aiohttp', 'structlog', 'yaml', 'asyncio') if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True
    )
    assert done.stdout.strip() == "[]"
