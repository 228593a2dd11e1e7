"""A token endpoint of a hundred lines whose every token is a canary, and which counts what it is asked."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlencode, urlsplit

CANARY = "CANARY"


def canary(kind: str) -> str:
    """A token that can be searched for anywhere."""
    return f"{CANARY}-{kind}-{uuid.uuid4().hex}"


@dataclass
class Grant:
    """One consent: the tokens given out for it, oldest first."""

    challenge: str | None
    redirect_uri: str
    code: str = field(default_factory=lambda: canary("code"))
    access: list[str] = field(default_factory=list)
    refresh: list[str] = field(default_factory=list)
    asked: int = 0  # refreshes, whatever their outcome
    revoked: list[str] = field(default_factory=list)

    @property
    def bearer(self) -> bytes:
        """The field value that the newest token makes."""
        return b"Bearer " + self.access[-1].encode()


Twist = Callable[[Grant, dict[str, str]], tuple[int, str, bytes] | None]


class Provider:
    """Authorization server in a thread. `life` is the access tokens'; `twist` may answer a token call instead."""

    def __init__(self, *, life: int | None = 3600) -> None:
        self.life = life
        self.twist: Twist | None = None
        self.grants: list[Grant] = []
        self.secrets: set[str] = set()  # what must be seen nowhere else
        self._lock = threading.Lock()
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_: Any) -> None: ...

            def do_GET(self) -> None:
                query = dict(parse_qsl(urlsplit(self.path).query))
                grant = Grant(query.get("code_challenge"), query["redirect_uri"])
                owner.grants.append(grant)
                owner.secrets |= {grant.code, query["state"]}
                back = urlencode({"code": grant.code, "state": query["state"]})
                self.send_response(302)
                self.send_header("Location", f"{query['redirect_uri']}?{back}")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"])).decode()
                form = {key: values[-1] for key, values in parse_qs(body).items()}
                if self.path == "/revoke":
                    with owner._lock:
                        for grant in owner.grants:
                            if form["token"] in (*grant.access, *grant.refresh):
                                grant.revoked.append(form["token"])
                    status, kind, payload = 200, "application/json", b"{}"
                else:
                    status, kind, payload = owner._token(form)
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(payload)))
                self.end_headers()
                self.wfile.write(payload)

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port: int = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def _token(self, form: dict[str, str]) -> tuple[int, str, bytes]:
        with self._lock:
            grant = self._of(form)
            if grant is None:
                return _json(400, {"error": "invalid_grant"})
            if form["grant_type"] == "refresh_token":
                grant.asked += 1
            if self.twist is not None and (answer := self.twist(grant, form)) is not None:
                return answer
            if form["grant_type"] == "refresh_token":
                if form["refresh_token"] != grant.refresh[-1]:
                    return _json(400, {"error": "invalid_grant"})
            else:
                self.secrets.add(form["code_verifier"])
                digest = hashlib.sha256(form["code_verifier"].encode()).digest()
                assert base64.urlsafe_b64encode(digest).rstrip(b"=").decode() == grant.challenge
            return self.issue(grant)

    def _of(self, form: dict[str, str]) -> Grant | None:
        for grant in self.grants:
            if form.get("refresh_token") in grant.refresh:
                return grant
            if form.get("code") == grant.code and not grant.access:
                return grant
        return None

    def issue(self, grant: Grant) -> tuple[int, str, bytes]:
        """A new pair for this grant."""
        grant.access.append(canary("at"))
        grant.refresh.append(canary("rt"))
        self.secrets |= {grant.access[-1], grant.refresh[-1]}
        reply: dict[str, Any] = {
            "access_token": grant.access[-1],
            "refresh_token": grant.refresh[-1],
            "token_type": "Bearer",
            "scope": "read",
        }
        return _json(200, reply if self.life is None else {**reply, "expires_in": self.life})

    def choice(self) -> dict[str, Any]:
        """What routes.yaml says of this provider."""
        return {
            "client_id": "kit-client",
            "client_auth": "none",
            "endpoints": {
                "authorization": f"{self.url}/authorize",
                "token": f"{self.url}/token",
                "revocation": f"{self.url}/revoke",
            },
            "api_hosts": ["127.0.0.1"],
        }

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def _json(status: int, value: object) -> tuple[int, str, bytes]:
    return status, "application/json", json.dumps(value).encode()
