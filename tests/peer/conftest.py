"""django-oauth-toolkit as a process, and an authproxy in front of its API with one route per kind of client."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.kit.browser import Browser, Page, forms
from tests.kit.ports import free_port
from tests.kit.process import Proxy

LIFE = 3  # seconds of an access token
KINDS = {"public": "none", "basic": "client_secret_basic", "post": "client_secret_post"}
ROOT = Path(__file__).parents[2]


class Peer:
    """The server's process, what it noted, and what its owner can do there."""

    def __init__(self, directory: Path, redirect: str, life: int = LIFE) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        command = ["--database", str(directory / "peer.db"), "--redirect", redirect]
        command += ["--port", str(self.port), "--life", str(life)]
        with (directory / "peer.stderr").open("wb") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.peer.server", *command],
                cwd=ROOT,
                stdout=subprocess.PIPE,
                stderr=errors,
            )
        assert self._process.stdout is not None
        ready = self._process.stdout.readline()
        assert ready == b"ready\n", (directory / "peer.stderr").read_text()

    def _get(self, path: str) -> Any:
        with urllib.request.urlopen(self.url + path, timeout=20) as answer:
            return json.load(answer)

    def seen(self, grant_type: str = "refresh_token") -> list[dict[str, Any]]:
        """The token calls of one grant type, oldest first."""
        return [entry for entry in self._get("/_seen")["token"] if entry["grant_type"] == grant_type]

    def end(self, user: str) -> None:
        self._get(f"/_end/{user}")

    def spoil(self, user: str) -> None:
        self._get(f"/_spoil/{user}")

    def alive(self, user: str) -> dict[str, int]:
        """How many refresh and access tokens of this user are good."""
        found: dict[str, int] = self._get(f"/_alive/{user}")
        return found

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(10)
        assert self._process.stdout is not None
        self._process.stdout.close()


class House:
    """Both processes, and a person with a browser."""

    def __init__(self, proxy: Proxy, peer: Peer) -> None:
        self.proxy, self.peer = proxy, peer

    def consent(self, link: str, login: str = "alice", browser: Browser | None = None) -> Page:
        """The connect page's button, the server's login, the server's consent page, and back."""
        browser = browser or Browser()
        page = browser.consent(link)
        if "/login/" in page.url:
            page = browser.submit(forms(page)[0], username=login, password=f"{login}-password")
        if page.url.startswith(self.peer.url):
            page = browser.submit(forms(page)[0])
        return page

    def connect(self, user: str, provider: str = "public", login: str = "alice") -> dict[str, Any]:
        flow = self.proxy.begin(user, provider, "read")
        page = self.consent(flow["url"], login)
        status, ended = self.proxy.ask("GET", f"/v1/auth/status?id={flow['id']}&wait=10")
        assert (status, ended["status"]) == (200, "completed"), (
            ended,
            page.url,
            page.status,
            page.text[:800],
        )
        return dict(ended)

    def connections(self, user: str) -> list[dict[str, Any]]:
        """What an operator sees of this user's connections."""
        status, found = self.proxy.ask("GET", f"/v1/connections?user_id={user}")
        assert status == 200, found
        return list(found["items"])

    def call(
        self, user: str, provider: str = "public", method: str = "GET", body: bytes | None = None
    ) -> tuple[int, dict[str, str], Any]:
        status, headers, data = self.proxy.fetch(
            self.proxy.listen, method, f"/{provider}/api/whoami", body, headers={"X-User-ID": user}
        )
        return status, {name.lower(): value for name, value in headers}, json.loads(data)


@pytest.fixture(scope="session")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    directory = tmp_path_factory.mktemp("peer")
    proxy = Proxy(directory, {}, {f"SECRET_{kind.upper()}": f"CANARY-secret-of-{kind}" for kind in KINDS})
    redirects = " ".join(f"{proxy.control_url}/callback/{kind}" for kind in KINDS)
    peer = Peer(directory, redirects)
    proxy.config |= {
        "egress": {"allow": ["127.0.0.0/8"]},
        # Every token call is counted here: none is made ahead of time.
        "refresh": {"leash": 0.2, "forced_interval": 0, "background": False},
        "providers": {
            kind: {
                "client_id": kind,
                "client_auth": auth,
                **({} if auth == "none" else {"client_secret": f"env:SECRET_{kind.upper()}"}),
                "endpoints": {
                    "authorization": f"{peer.url}/o/authorize/",
                    "token": f"{peer.url}/o/token/",
                    "revocation": f"{peer.url}/o/revoke_token/",
                },
                "api_hosts": ["127.0.0.1"],
            }
            for kind, auth in KINDS.items()
        },
        "routes": {kind: {"prefix": f"/{kind}", "provider": kind, "scopes": ["read"]} for kind in KINDS},
    }
    # Routes to one upstream could not be told apart in absolute form: each names it in its own way.
    for kind, name in zip(KINDS, ("127.0.0.1", "127.0.0.2", "127.0.0.3"), strict=True):
        proxy.config["routes"][kind]["upstream"] = f"http://{name}:{peer.port}"
        proxy.config["providers"][kind]["api_hosts"] = [name]
    try:
        with proxy:
            yield House(proxy, peer)
    finally:
        peer.close()
