"""Whole processes only: `authproxy serve` before `authproxy sandbox` in each provider's manner of speaking.

The catalogue's own entries are used, with nothing but their endpoints moved. A token that the API calls expired, in
whatever words, must never be the agent's business.
"""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.kit.browser import Browser, forms
from tests.kit.ports import free_port
from tests.kit.process import BOOT, Proxy

SCOPES = {
    "google": ["openid", "https://www.googleapis.com/auth/gmail.modify"],
    "slack": ["chat:write", "channels:history"],
    "github": ["repo", "offline_access"],
    "salesforce": ["api"],
    "hubspot": ["oauth", "crm.objects.contacts.write"],
}


class Provider:
    """The sandbox as a process, turned by its admin endpoint as a person would with curl."""

    def __init__(self, dialect: str) -> None:
        self.dialect, self.port = dialect, free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._process = subprocess.Popen(
            [sys.executable, "-c", BOOT, "sandbox", "--port", str(self.port), "--dialect", dialect],
            stdout=subprocess.PIPE,
        )
        assert self._process.stdout is not None
        assert self.url.encode() in self._process.stdout.readline()

    def admin(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            f"{self.url}/admin/{path}", data, {"Content-Type": "application/json"}, method=method
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.load(answer)

    def refreshes(self) -> int:
        calls = self.admin("GET", "ledger")["requests"]
        return sum(1 for call in calls if call["grant_type"] == "refresh_token")

    def violations(self) -> list[Any]:
        """What the provider holds against its client: a spent token sent again, a code used twice."""
        return list(self.admin("GET", "ledger")["violations"])

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(10)
        assert self._process.stdout is not None
        self._process.stdout.close()


class Town:
    """All providers, the proxy, and a person with a browser."""

    def __init__(self, proxy: Proxy, providers: dict[str, Provider]) -> None:
        self.proxy, self.providers = proxy, providers

    def consent(self, link: str, decision: str = "allow") -> None:
        browser = Browser()
        page = browser.consent(link)
        for _ in range(2):  # Google gives a refresh token at a second consent only if consent is forced (B02)
            if not page.url.startswith(self.proxy.control_url):
                (form, *_) = [form for form in forms(page) if form.method == "POST"]
                page = browser.submit(form, user="alice", decision=decision)

    def connect(self, user: str, name: str) -> None:
        flow = self.proxy.begin(user, name, *SCOPES[name])
        self.consent(flow["url"])
        status, ended = self.proxy.ask("GET", f"/v1/auth/status?id={flow['id']}&wait=10")
        assert (status, ended["status"]) == (200, "completed"), ended

    def call(self, user: str, name: str, method: str = "GET", body: bytes | None = None) -> tuple[int, Any]:
        status, _, data = self.proxy.fetch(
            self.proxy.listen, method, f"/{name}/api/me", body, headers={"X-User-ID": user}
        )
        return status, json.loads(data)


@pytest.fixture(scope="session")
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    providers = {name: Provider(name) for name in SCOPES}
    config = {
        "providers": {
            name: {
                # The catalogue knows the real provider's issuer, and rightly refuses another's (RFC 9207).
                **({"issuer": peer.url} if name in ("google", "salesforce") else {}),
                "client_id": "authproxy-demo",
                "client_secret": "env:DEMO_SECRET",
                "endpoints": {
                    "authorization": f"{peer.url}/authorize",
                    "token": f"{peer.url}/token",
                    "revocation": f"{peer.url}/revoke",
                    "userinfo": f"{peer.url}/userinfo",
                },
                "api_hosts": ["127.0.0.1"],
            }
            for name, peer in providers.items()
        },
        "routes": {
            f"{name}-here": {
                "prefix": f"/{name}",
                "upstream": peer.url,
                "provider": name,
                "scopes": SCOPES[name] if name != "google" else SCOPES[name][1:],
            }
            for name, peer in providers.items()
        },
        "refresh": {"forced_interval": 0, "leash": 0.2},
        "egress": {"allow": ["127.0.0.0/8"]},
    }
    try:
        with Proxy(
            tmp_path_factory.mktemp("walk"), config, {"DEMO_SECRET": "authproxy-demo-secret"}
        ) as proxy:
            yield Town(proxy, providers)
    finally:
        for peer in providers.values():
            peer.close()


@pytest.mark.scenario("D08", "D07", "B05", "B23")
@pytest.mark.parametrize("name", SCOPES)
def test_an_expired_token_is_nobodys_business(town: Town, name: str) -> None:
    peer = town.providers[name]
    town.connect(f"u-{name}", name)
    status, body = town.call(f"u-{name}", name)
    assert (status, "alice" in json.dumps(body)) == (200, True), body
    before = peer.refreshes()
    for turn in range(1, 3):
        peer.admin("POST", "expire", {})
        status, body = town.call(f"u-{name}", name)
        assert (status, "alice" in json.dumps(body)) == (200, True), body
        assert peer.refreshes() == before + turn
    assert peer.violations() == []


@pytest.mark.scenario("A01", "D4", "D08")
@pytest.mark.parametrize("name", SCOPES)
def test_fifty_expired_at_once_cost_one_token_call(town: Town, name: str) -> None:
    peer = town.providers[name]
    town.connect(f"crowd-{name}", name)
    assert town.call(f"crowd-{name}", name)[0] == 200
    before = peer.refreshes()
    peer.admin("POST", "expire", {})
    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(lambda _: town.call(f"crowd-{name}", name), range(50)))
    assert {status for status, _ in answers} == {200}
    assert all("alice" in json.dumps(body) for _, body in answers)
    assert peer.refreshes() == before + 1
    assert peer.violations() == []


@pytest.mark.scenario("B04", "B05", "J01")
@pytest.mark.parametrize("name", SCOPES)
def test_a_revoked_grant_ends_in_a_link_that_mends_it(town: Town, name: str) -> None:
    peer = town.providers[name]
    town.connect(f"gone-{name}", name)
    assert town.call(f"gone-{name}", name)[0] == 200
    peer.admin("POST", "revoke-user", {"user": "alice"})
    status, problem = town.call(f"gone-{name}", name)
    assert (status, problem["code"], problem["act"]) == (403, "connection_expired", "ask_user"), problem
    town.consent(problem["connect_url"])
    status, body = town.call(f"gone-{name}", name)
    assert (status, "alice" in json.dumps(body)) == (200, True), body
