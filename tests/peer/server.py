"""An OAuth server that is not ours: django-oauth-toolkit in one file, on SQLite, as a process of its own.

Rotation with reuse protection, PKCE demanded, login and consent pages, revocation; an API that answers 401 to a
token it does not know; and a count of what the token endpoint was asked.
"""

from __future__ import annotations

import argparse
import datetime as dt
import hashlib
import socketserver
import sys
import threading
from typing import Any
from urllib.parse import parse_qs
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

SEEN: list[dict[str, Any]] = []
LOCK = threading.Lock()
LOGIN = (
    "<form method=post>{% csrf_token %}{% for f in form %}{{ f }}{% endfor %}"
    "<input type=hidden name=next value='{{ next }}'></form>"
)


def configure(database: str, life: float) -> None:
    """Settings, tables, two users and a client of each kind."""
    import django
    from django.conf import settings

    settings.configure(
        SECRET_KEY="of-a-test-server",
        ALLOWED_HOSTS=["127.0.0.1", "127.0.0.2", "127.0.0.3"],
        ROOT_URLCONF=__name__,
        USE_TZ=True,
        DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
        INSTALLED_APPS=[
            "django.contrib.auth",
            "django.contrib.contenttypes",
            "django.contrib.sessions",
            "oauth2_provider",
        ],
        MIDDLEWARE=[
            "django.contrib.sessions.middleware.SessionMiddleware",
            "django.contrib.auth.middleware.AuthenticationMiddleware",
        ],
        DATABASES={
            "default": {
                "ENGINE": "django.db.backends.sqlite3",
                "NAME": database,
                "OPTIONS": {"timeout": 20, "transaction_mode": "IMMEDIATE"},
            }
        },
        TEMPLATES=[
            {
                "BACKEND": "django.template.backends.django.DjangoTemplates",
                "OPTIONS": {
                    "context_processors": ["django.template.context_processors.request"],
                    "loaders": [
                        ("django.template.loaders.locmem.Loader", {"registration/login.html": LOGIN}),
                        "django.template.loaders.app_directories.Loader",
                    ],
                },
            }
        ],
        PASSWORD_HASHERS=["django.contrib.auth.hashers.MD5PasswordHasher"],  # a slow one would only cost time
        LOGIN_URL="/login/",
        OAUTH2_PROVIDER={
            "ACCESS_TOKEN_EXPIRE_SECONDS": life,
            "ROTATE_REFRESH_TOKEN": True,
            "REFRESH_TOKEN_REUSE_PROTECTION": True,
            "REFRESH_TOKEN_GRACE_PERIOD_SECONDS": 0,
            "PKCE_REQUIRED": True,
            "ALLOWED_REDIRECT_URI_SCHEMES": ["http"],
            "SCOPES": {"read": "Read", "write": "Write"},
            "DEFAULT_SCOPES": ["read"],
        },
    )
    django.setup()


def populate(redirect: str) -> None:
    from django.contrib.auth.models import User
    from django.core.management import call_command
    from oauth2_provider.models import Application

    call_command("migrate", verbosity=0)
    for name in ("alice", "bob"):
        User.objects.create_user(name, password=f"{name}-password")
    for client_id, kind in (("public", "public"), ("basic", "confidential"), ("post", "confidential")):
        Application.objects.create(
            client_id=client_id,
            client_secret=f"CANARY-secret-of-{client_id}",
            client_type=kind,
            authorization_grant_type="authorization-code",
            redirect_uris=redirect,
            name=client_id,
        )


def urlpatterns() -> list[Any]:
    from django.contrib.auth.models import User
    from django.contrib.auth.views import LoginView
    from django.http import HttpRequest, HttpResponse, JsonResponse
    from django.urls import include, path
    from oauth2_provider.models import get_access_token_model, get_refresh_token_model
    from oauth2_provider.oauth2_backends import get_oauthlib_core

    def whoami(request: HttpRequest) -> HttpResponse:
        good, found = get_oauthlib_core().verify_request(request, scopes=["read"])
        if good:
            return JsonResponse({"user": found.user.username, "length": len(request.body)})
        answer = JsonResponse({"error": "invalid_token"}, status=401)
        answer["WWW-Authenticate"] = 'Bearer realm="api", error="invalid_token"'
        return answer

    def seen(_request: HttpRequest) -> HttpResponse:
        with LOCK:
            return JsonResponse({"token": SEEN})

    def end(request: HttpRequest, username: str) -> HttpResponse:
        """What a user does on the server's own page of connected applications."""
        user = User.objects.get(username=username)
        for token in get_refresh_token_model().objects.filter(user=user, revoked__isnull=True):
            token.revoke()
        get_access_token_model().objects.filter(user=user).delete()
        return JsonResponse({})

    def spoil(request: HttpRequest, username: str) -> HttpResponse:
        """Ends the access tokens alone, long before their time."""
        get_access_token_model().objects.filter(user__username=username).update(
            expires=dt.datetime.fromtimestamp(0, dt.UTC)
        )
        return JsonResponse({})

    def alive(request: HttpRequest, username: str) -> HttpResponse:
        tokens = get_refresh_token_model().objects.filter(user__username=username, revoked__isnull=True)
        access = get_access_token_model().objects.filter(user__username=username)
        return JsonResponse({"refresh": tokens.count(), "access": access.count()})

    return [
        path("o/", include("oauth2_provider.urls", namespace="oauth2_provider")),
        path("login/", LoginView.as_view()),
        path("api/whoami", whoami),
        path("_seen", seen),
        path("_end/<username>", end),
        path("_spoil/<username>", spoil),
        path("_alive/<username>", alive),
    ]


def counted(application: Any) -> Any:
    """Notes every token call: its grant, a digest of what it presented, and the answer's status."""

    def wrapped(environ: dict[str, Any], start: Any) -> Any:
        if environ["PATH_INFO"] != "/o/token/":
            return application(environ, start)
        import io

        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        environ["wsgi.input"] = io.BytesIO(body)
        form = {key: values[-1] for key, values in parse_qs(body.decode()).items()}
        presented = form.get("refresh_token", form.get("code", ""))
        entry: dict[str, Any] = {
            "grant_type": form.get("grant_type"),
            "client_id": form.get("client_id"),
            "basic": environ.get("HTTP_AUTHORIZATION", "").startswith("Basic "),
            "secret_in_body": "client_secret" in form,
            "presented": hashlib.sha256(presented.encode()).hexdigest(),
        }
        with LOCK:
            SEEN.append(entry)

        def noting(status: str, headers: Any, *rest: Any) -> Any:
            entry["status"] = int(status.split()[0])
            return start(status, headers, *rest)

        return application(environ, noting)

    return wrapped


class Server(socketserver.ThreadingMixIn, WSGIServer):
    daemon_threads = True
    request_queue_size = 128


class Quiet(WSGIRequestHandler):
    def log_message(self, *_: Any) -> None: ...


def main() -> None:
    parser = argparse.ArgumentParser()
    for name in ("--database", "--redirect", "--port", "--life"):
        parser.add_argument(name, required=True)
    chosen = parser.parse_args()
    configure(chosen.database, int(chosen.life))
    populate(chosen.redirect)
    sys.modules[__name__].urlpatterns = urlpatterns()  # type: ignore[attr-defined]
    from django.core.wsgi import get_wsgi_application

    with Server(("0.0.0.0", int(chosen.port)), Quiet) as server:
        server.set_app(counted(get_wsgi_application()))
        print("ready", flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main()
