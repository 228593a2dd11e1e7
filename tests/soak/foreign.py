"""The provider of a soak that is not ours: django-oauth-toolkit, spoken to in the same lines as `provider.py`.

Rotation, reuse detection, no grace. What is ours here is the wire in front of it: it keeps the ledger, and loses
questions and answers on demand.
"""

from __future__ import annotations

import datetime as dt
import io
import json
import secrets
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from authproxy.sandbox import digest_of
from tests.broker.house import CLIENT_ID, CLIENT_SECRET, PUBLIC, SCOPES
from tests.peer import server as peer
from tests.soak.provider import users

Start = Callable[..., Any]


class Wire:
    """Stands between the broker and Django: notes every refresh, and cuts those that it was told to cut."""

    def __init__(self, application: Any) -> None:
        self._application = application
        self._lock = threading.Lock()
        self._under_way: set[str] = set()
        self._cut: dict[str, Any] = {}
        self.calls: list[dict[str, Any]] = []
        self.violations: list[str] = []
        self.tokens: dict[str, str] = {}
        self._owner: dict[str, str] = {}

    def switch(self, switches: dict[str, Any]) -> None:
        """What happens to the next refresh."""
        with self._lock:
            self._cut = dict(switches) if switches.get("next_calls") else {}

    def give(self, user: str, life: float) -> dict[str, Any]:
        """A grant of this user, as after a consent."""
        from django.contrib.auth.models import User
        from django.utils import timezone
        from oauth2_provider.models import AccessToken, Application, RefreshToken

        access, refresh = secrets.token_urlsafe(30), secrets.token_urlsafe(30)
        owner, client = User.objects.get(username=user), Application.objects.get(client_id=CLIENT_ID)
        first = AccessToken.objects.create(
            user=owner,
            application=client,
            token=access,
            scope=" ".join(SCOPES),
            expires=timezone.now() + dt.timedelta(seconds=life),
        )
        RefreshToken.objects.create(user=owner, application=client, token=refresh, access_token=first)
        self._note(refresh, user)
        return {"access_token": access, "refresh_token": refresh, "expires_in": life}

    def __call__(self, environ: dict[str, Any], start: Start) -> Iterable[bytes]:
        if environ["PATH_INFO"] != "/token":
            return list(self._application(environ, start))
        environ["PATH_INFO"] = "/o/token/"
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        environ["wsgi.input"] = io.BytesIO(body)
        presented = parse_qs(body.decode())["refresh_token"][-1]
        with self._lock:
            cut, self._cut = self._cut, {}
        return self._refresh(environ, start, presented, cut)

    def _refresh(
        self, environ: dict[str, Any], start: Start, presented: str, cut: dict[str, Any]
    ) -> Iterable[bytes]:
        wire: socket.socket = environ["soak.socket"]
        if cut.get("drop") == "before":
            return _gone(wire, start)
        entry = self._begin(presented)
        said: list[Any] = []

        def noting(status: str, headers: list[tuple[str, str]], *rest: Any) -> Any:
            said[:] = [status, headers]

        answer = b"".join(self._application(environ, noting))
        self._end(entry, presented, int(said[0].split()[0]), answer)
        if cut.get("drop") == "after":
            return _gone(wire, start)
        if cut.get("drop") == "midway":
            half = answer[: len(answer) // 2]
            wire.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(answer), half))
            return _gone(wire, start)
        time.sleep(cut.get("delay_after_s", 0.0))
        entry["delivered"] = True
        start(*said)
        return [answer]

    def _begin(self, presented: str) -> dict[str, Any]:
        with self._lock:
            if presented in self._under_way:
                self.violations.append("concurrent_spend")
            self._under_way.add(presented)
            entry: dict[str, Any] = {
                "digest": digest_of(presented),
                "user": self._owner[digest_of(presented)],
                "outcome": "",
                "spent": False,
                "delivered": False,
                "why": "",
                "at": time.time(),
                "ended_at": None,
            }
            self.calls.append(entry)
            return entry

    def _end(self, entry: dict[str, Any], presented: str, status: int, answer: bytes) -> None:
        with self._lock:
            self._under_way.discard(presented)
            entry["ended_at"] = time.time()
            entry["outcome"] = str(status)
            if status == 200:
                entry["spent"] = True
                successor = str(json.loads(answer)["refresh_token"])
                self.tokens[successor] = digest_of(successor)
                self._owner[digest_of(successor)] = entry["user"]
            else:
                entry["why"] = str(json.loads(answer).get("error"))

    def _note(self, refresh: str, user: str) -> None:
        with self._lock:
            self.tokens[refresh] = digest_of(refresh)
            self._owner[digest_of(refresh)] = user

    def told(self) -> dict[str, Any]:
        """All that was seen, and which refresh tokens are good now."""
        from oauth2_provider.models import RefreshToken

        live = RefreshToken.objects.filter(revoked__isnull=True).values_list("token", flat=True)
        with self._lock:
            return {
                "calls": self.calls,
                "violations": self.violations,
                "live": sorted(digest_of(token) for token in live),
                "tokens": self.tokens,
            }


def _gone(wire: socket.socket, start: Start) -> Iterable[bytes]:
    """The connection is cut, whatever was said on it so far."""
    wire.shutdown(socket.SHUT_RDWR)
    start("200 OK", [])
    return []


class Handler(peer.Quiet):
    """Lets the wire see its socket."""

    def get_environ(self) -> dict[str, Any]:
        return super().get_environ() | {"soak.socket": self.connection}


def serve(life: float, count: int, folder: Path) -> None:
    peer.configure(str(folder / "django.sqlite"), life)
    from django.contrib.auth.models import User
    from django.core.management import call_command
    from django.core.wsgi import get_wsgi_application
    from oauth2_provider.models import Application

    call_command("migrate", verbosity=0)
    for name in users(count):
        User.objects.create_user(name)
    Application.objects.create(
        client_id=CLIENT_ID,
        client_secret=CLIENT_SECRET,
        client_type="confidential",
        authorization_grant_type="authorization-code",
        redirect_uris=f"{PUBLIC}/callback/acme",
    )
    sys.modules[peer.__name__].urlpatterns = peer.urlpatterns()  # type: ignore[attr-defined]
    with peer.Server(("127.0.0.1", 0), Handler) as server:
        wire = Wire(get_wsgi_application())
        server.set_app(wire)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        _say({"base": f"http://127.0.0.1:{server.server_port}"})
        for line in sys.stdin:
            _say(_obey(wire, json.loads(line), life))


def _obey(wire: Wire, order: dict[str, Any], life: float) -> dict[str, Any]:
    match order["do"]:
        case "give":
            return wire.give(order["user"], life)
        case "switch":
            wire.switch(order["switches"])
            return {}
        case "tell":
            return wire.told()
    raise ValueError(order["do"])


def _say(answer: dict[str, Any]) -> None:
    print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="soak") as chosen:
        serve(float(sys.argv[1]), int(sys.argv[2]), Path(chosen))
