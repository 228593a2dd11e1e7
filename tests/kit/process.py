"""A whole `authproxy serve` as a real process, with its configuration, its store and its words kept."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from tests.kit.browser import Browser
from tests.kit.ports import free_port
from tests.kit.provider import Provider

BOOT = "import sys; from authproxy.cli import main; sys.exit(main())"
LOOPBACK = {"kind": "loopback", "agent": "kit", "may_act_for": ["*"], "operator": True}


def listener() -> socket.socket:
    """A bound, listening socket: nobody else can take its port between two cases."""
    sock = socket.socket(proto=socket.IPPROTO_TCP)  # by which asyncio knows to switch Nagle off
    sock.bind(("127.0.0.1", 0))
    sock.listen(128)
    sock.setblocking(False)
    return sock


class Proxy:
    """`config` is routes.yaml as a mapping; what is not said is filled in for a loopback caller."""

    def __init__(
        self, directory: Path, config: Mapping[str, Any], env: Mapping[str, str] | None = None
    ) -> None:
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        self.listen, self.control = free_port(), free_port()
        self.url = f"http://127.0.0.1:{self.listen}"
        self.control_url = f"http://127.0.0.1:{self.control}"
        self.config: dict[str, Any] = {
            "version": 1,
            "environment": "development",
            "public_url": self.control_url,
            "identity": {"callers": [LOOPBACK]},
            **config,
        }
        self.store = directory / "authproxy.db"
        self.store_url = f"sqlite:///{self.store}"
        self.file = directory / "routes.yaml"
        # Poisoned on purpose: a proxy that took its surroundings for credentials, or for a way out, would be seen.
        home = directory / "home"
        home.mkdir(exist_ok=True)
        (home / ".netrc").write_text("default login netrc-user password CANARY-netrc\n")
        (home / ".netrc").chmod(0o600)
        dead = f"http://127.0.0.1:{free_port()}"
        self.env = {
            **{
                name: os.environ[name]
                for name in ("PATH", "LANG", "TMPDIR", "PYTHONPATH")
                if name in os.environ
            },
            "HOME": str(home),
            "HTTP_PROXY": dead,
            "HTTPS_PROXY": dead,
            "ALL_PROXY": dead,
            "PYTHONUNBUFFERED": "1",
            **(env or {}),
        }
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        self.file.write_text(json.dumps(self.config, indent=1))  # which is YAML too
        command = ["serve", "--config", str(self.file), "--store", self.store_url]
        command += ["--listen", f"127.0.0.1:{self.listen}", "--control", f"127.0.0.1:{self.control}"]
        with (self.directory / "stdout").open("ab") as out, (self.directory / "stderr").open("ab") as err:
            self.process = subprocess.Popen(
                [sys.executable, "-c", BOOT, *command],
                stdout=out,
                stderr=err,
                env=self.env,
                cwd=self.directory,
            )
        deadline = time.monotonic() + 40
        while not self._ready():
            if self.process.poll() is not None:
                raise AssertionError(f"serve ended with {self.process.returncode}:\n{self.words()}")
            assert time.monotonic() < deadline, f"not ready:\n{self.words()}"
            time.sleep(0.02)  # polls another process, which has no other way to tell

    def _ready(self) -> bool:
        try:
            return self.ask("GET", "/readyz")[0] == 200
        except OSError:
            return False

    def stop(self) -> int:
        """SIGTERM, and the exit code."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(15)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
                raise AssertionError(f"did not stop within 15 s:\n{self.words()[-3000:]}") from None
        return self.process.returncode

    def run(self, *command: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        """Another command of the same installation, on the same configuration and store."""
        return subprocess.run(
            [sys.executable, "-c", BOOT, *command],
            env=self.env,
            cwd=self.directory,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )

    @cached_property
    def trust(self) -> ssl.SSLContext:
        """Trusts the local authority of this proxy, and nobody else."""
        shown = self.run("ca", "show", "--config", str(self.file), "--store", self.store_url)
        assert shown.returncode == 0, shown.stderr
        return ssl.create_default_context(cadata=shown.stdout)

    def words(self) -> str:
        """All that it said on standard output and error."""
        return "".join((self.directory / name).read_text(errors="replace") for name in ("stdout", "stderr"))

    def rss(self) -> int:
        """Resident memory in bytes."""
        assert self.process is not None
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGESIZE")

    def descriptors(self) -> int:
        assert self.process is not None
        return len(list(Path(f"/proc/{self.process.pid}/fd").iterdir()))

    def ask(
        self, method: str, path: str, body: object = None, *, headers: Mapping[str, str] | None = None
    ) -> tuple[int, Any]:
        """A call on the control plane; JSON comes back read."""
        status, _, data = self.fetch(self.control, method, path, body, headers=headers)
        try:
            return status, json.loads(data)
        except ValueError:
            return status, data.decode(errors="replace")

    def fetch(
        self,
        port: int,
        method: str,
        path: str,
        body: object = None,
        *,
        headers: Mapping[str, str] | None = None,
    ) -> tuple[int, list[tuple[str, str]], bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=65)
        sent = dict(headers or {})
        data: bytes | None = None
        if isinstance(body, bytes):
            data = body
        elif body is not None:
            data = json.dumps(body).encode()
            sent["Content-Type"] = "application/json"
        try:
            connection.request(method, path, data, sent)
            answer = connection.getresponse()
            return answer.status, answer.getheaders(), answer.read()
        finally:
            connection.close()

    def begin(self, user: str, provider: str, *scopes: str) -> dict[str, Any]:
        """POST /v1/auth/authorize."""
        want = {"provider_id": provider, "provider_type": "oauth2", "oauth2": {"scopes": list(scopes)}}
        status, flow = self.ask("POST", "/v1/auth/authorize", {"user_id": user, "auth_requirement": want})
        assert status == 200, flow
        assert isinstance(flow, dict)
        return flow

    def connect(self, user: str, provider: str = "kit", *scopes: str) -> Browser:
        """The whole consent as a user goes through it, waited for as an agent does."""
        browser = Browser()
        flow = self.begin(user, provider, *(scopes or ("read",)))
        page = browser.consent(flow["url"])
        status, ended = self.ask("GET", f"/v1/auth/status?id={flow['id']}&wait=10")
        assert (status, ended["status"]) == (200, "completed"), (status, ended, page.status, page.text[:500])
        return browser


class Seeded:
    """A proxy with one provider, and users connected when first asked for."""

    def __init__(self, proxy: Proxy, provider: Provider) -> None:
        self.proxy, self.provider = proxy, provider
        self._users = 0

    def user(self, name: str | None = None) -> tuple[str, Any]:
        """A freshly connected user and their grant at the provider."""
        self._users += 1
        name = name or f"user-{self._users}"
        before = len(self.provider.grants)
        self.proxy.connect(name)
        return name, self.provider.grants[before]
