"""An API that answers in each vendor's shape and remembers what reached it, behind one route per vendor."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.kit.process import LOOPBACK, Proxy, Seeded
from tests.kit.provider import Grant, Provider

# Each vendor with the name that its own library calls
VENDORS = {
    "gmail": "gmail.googleapis.com",
    "calendar": "www.googleapis.com",
    "slack": "slack.com",
    "github": "api.github.com",
    "salesforce": "acme.my.salesforce.com",
    "hubspot": "api.hubapi.com",
    "plain": "api.plain.example",
}


@dataclass(frozen=True)
class Arrived:
    """One request as the API saw it."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes


class Api:
    """Rejects the field values in `ended` as expired; everything else gets the vendor's canned answer."""

    def __init__(self) -> None:
        self.arrived: list[Arrived] = []
        self.ended: set[str] = set()
        self.public: str | None = None  # what it calls itself in its answers; its address unless told
        owner = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: Any) -> None: ...

            def _any(self) -> None:
                headers = {name.lower(): value for name, value in self.headers.items()}
                arrived = Arrived(self.command, self.path, headers, self._body())
                owner.arrived.append(arrived)
                status, answer, extra = owner.answer(arrived)
                payload = json.dumps(answer).encode()
                self.send_response(status)
                for name, value in {"Content-Type": "application/json; charset=utf-8", **extra}.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(payload)))
                self.end_headers()
                self.wfile.write(payload)

            def _body(self) -> bytes:
                if self.headers.get("Transfer-Encoding") != "chunked":
                    return self.rfile.read(int(self.headers.get("Content-Length") or 0))
                body = b""
                while size := int(self.rfile.readline(), 16):
                    body += self.rfile.read(size)
                    self.rfile.readline()
                self.rfile.readline()
                return body

            # http.server finds its methods by these names
            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _any  # noqa: N815

        self._server = ThreadingHTTPServer(("0.0.0.0", 0), Handler)
        self._server.daemon_threads = True
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def answer(self, arrived: Arrived) -> tuple[int, Any, dict[str, str]]:
        if arrived.headers.get("authorization") in self.ended:
            return 401, {"error": "expired"}, {"WWW-Authenticate": 'Bearer error="invalid_token"'}
        path = urlsplit(arrived.target).path
        if path.endswith("/user/repos"):
            here = self.public or f"http://{arrived.headers['host']}"
            first = "page=2" not in arrived.target
            link = {"Link": f'<{here}/user/repos?page=2>; rel="next"'} if first else {}
            number = 1 if first else 2
            return 200, [{"id": number, "full_name": f"o/{number}", "url": f"{here}/repos/o/{number}"}], link
        canned: dict[str, Any] = {
            "/gmail/v1/users/me/messages": {
                "messages": [{"id": "1", "threadId": "1"}],
                "resultSizeEstimate": 1,
            },
            "/gmail/v1/users/me/messages/send": {"id": "2", "labelIds": ["SENT"]},
            "/calendar/v3/users/me/calendarList": {"items": [{"id": "primary"}]},
            "/api/auth.test": {"ok": True, "user": "alice"},
            "/api/chat.postMessage": {"ok": True, "ts": "1.2"},
            "/user": {"login": "alice", "id": 1, "url": f"http://{arrived.headers['host']}/users/alice"},
            "/crm/v3/objects/contacts": {"results": [{"id": "7", "properties": {}}]},
        }
        if path.startswith("/services/data/") and path.endswith("/query/"):
            return 200, {"totalSize": 1, "done": True, "records": [{"Id": "001"}]}, {}
        return 200, canned.get(path, {"path": arrived.target, "length": len(arrived.body)}), {}

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class Bench:
    """The running proxy, the API behind it, and alice."""

    def __init__(self, proxy: Proxy, api: Api, seeded: Seeded, grant: Grant) -> None:
        self.proxy, self.api, self.seeded, self.grant = proxy, api, seeded, grant

    def base(self, vendor: str) -> str:
        return f"{self.proxy.url}/{vendor}"

    def took(self) -> list[Arrived]:
        """What arrived since the last look; every one of them as alice and as nobody else."""
        arrived, self.api.arrived = self.api.arrived, []
        assert arrived, "nothing arrived"
        for one in arrived:
            assert one.headers["authorization"] in {f"Bearer {t}" for t in self.grant.access}, one
            assert not {"x-user-id", "proxy-authorization", "x-authproxy-key", "cookie"} & set(one.headers), (
                one
            )
            assert "dummy" not in repr(one.headers)
            assert "apx_" not in repr(one.headers)
        return arrived

    def end(self) -> None:
        """The API no longer knows the token that is in use: the next call meets a 401."""
        self.api.ended.add(self.grant.bearer.decode())


@pytest.fixture(scope="session")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    provider, api = Provider(), Api()
    hosts = {vendor: f"127.0.1.{number}" for number, vendor in enumerate(VENDORS, 1)}
    config = {
        "identity": {"callers": [{"kind": "api_key", "may_act_for": ["*"]}, LOOPBACK]},
        "providers": {"kit": {**provider.choice(), "api_hosts": list(hosts.values())}},
        "routes": {
            vendor: {
                "upstream": f"http://{host}:{api.port}",
                "hosts": [VENDORS[vendor]],
                "rewrite_urls": vendor == "github",
                "provider": "kit",
                "scopes": ["read"],
            }
            for vendor, host in hosts.items()
        },
        "refresh": {"forced_interval": 0, "leash": 0.2},
        "egress": {"allow": ["127.0.0.0/8"]},
    }
    try:
        with Proxy(tmp_path_factory.mktemp("sdk"), config) as proxy:
            seeded = Seeded(proxy, provider)
            yield Bench(proxy, api, seeded, seeded.user("alice")[1])
    finally:
        provider.close()
        api.close()


@pytest.fixture(params=["fresh", "ended"])
def at(bench: Bench, request: pytest.FixtureRequest) -> Bench:
    """Each library twice: with a good token, and with one that ends just before the call and must not be noticed."""
    bench.api.arrived.clear()
    bench.api.public = None
    if request.param == "ended":
        bench.end()
    return bench
