"""Cases put together from a few words: configuration as a mapping, stored connections, what was seen online."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest

from authproxy.core.model import Connection, ConnectionKey, Environment, State
from authproxy.doctor.case import DAY, Case, Seen
from authproxy.doctor.finding import Finding, Severity
from authproxy.doctor.registry import examine
from authproxy.doctor.setup import read_setup

NOW = 1_800_000_000  # 2027-01-15
CANARY = "CANARY-client-secret"
MAIL = "https://www.googleapis.com/auth/gmail.readonly"
SECRET = {"client_secret": "env:SECRET"}
ENVIRON = {"SECRET": CANARY, "OTHER_SECRET": "CANARY-other", "ID": "shared", "OTHER_ID": "another"}


def nothing_there(name: str) -> str:
    raise FileNotFoundError(2, "No such file or directory")


def written(
    providers: Mapping[str, Mapping[str, Any]], environment: str = "production", **top: Any
) -> dict[str, Any]:
    """routes.yaml as a mapping: each provider with a client, unless it says otherwise."""
    return {
        "version": 1,
        "environment": environment,
        "public_url": "http://127.0.0.1:8701" if environment == "development" else "https://auth.acme.com",
        "identity": {"callers": [{"kind": "api_key"}]},
        "providers": {
            name: {"client_id": "client-1", **({} if "client_auth" in choice else SECRET), **choice}
            for name, choice in providers.items()
        },
        **top,
    }


def case(
    providers: Mapping[str, Mapping[str, Any]],
    environment: str = "production",
    *,
    stored: list[Connection] | None = None,
    ended: Mapping[str, int] | None = None,
    seen: Mapping[str, Seen] | None = None,
    against: Case | None = None,
    store: str | None = None,
    store_trouble: str | None = None,
    environ: Mapping[str, str] = ENVIRON,
    now: int = NOW,
    file: str = "routes.yaml",
    **top: Any,
) -> Case:
    """A case of one configuration."""
    text = json.dumps(written(providers, environment, **top))
    made = read_setup(text, file=file, environ=environ, read_file=nothing_there).case(now)
    return replace(
        made,
        connections=None if stored is None else tuple(stored),
        ended=ended or {},
        seen=seen or {},
        other=against,
        store=store,
        store_trouble=store_trouble,
    )


def connection(provider: str = "google", user: str = "alice", **fields: Any) -> Connection:
    """A grant consented to ten days ago and refreshed an hour ago. `extra` are the kept fields."""
    values: dict[str, Any] = {
        "id": f"con_{user}_{provider}",
        "key": ConnectionKey("acme", user, provider, fields.pop("account", "default")),
        "environment": Environment.PRODUCTION,
        "state": State.ACTIVE,
        "reason": None,
        "client_id": "client-1",
        "grant_id": f"grant-{user}-{provider}",
        "generation": 2,
        "scopes": (),
        "requested_scopes": (),
        "expires_at": NOW + 1800,
        "lifetime": 3600,
        "refresh_expires_at": None,
        "refreshable": True,
        "extra": {},
        "provider_account": f"{user}@{provider}",
        "consented_at": NOW - 10 * DAY,
        "obtained_at": NOW - 3600,
    }
    return Connection(**(values | fields))


def told(one: Case, code: str, title: str = "") -> list[Finding]:
    """The findings of one code, of those whose title has these words."""
    return [finding for finding in examine(one) if finding.code == code and title in finding.title]


# --- tables of checks

Make = Callable[[], Case]
ERROR, WARNING, INFO = Severity.ERROR, Severity.WARNING, Severity.INFO
COLUMNS = ("code", "severity", "title", "bad", "good")
GMAIL: dict[str, Any] = {"gmail": {"scopes": [MAIL]}}
SALESFORCE: dict[str, Any] = {"salesforce": {}}
TESTING = {"publishing_status": "testing"}
PUBLISHED = {"publishing_status": "production", "published_on": "2026-01-31"}


def row(name: str, severity: Severity, title: str, bad: Make, good: Make) -> Any:
    """`name` begins with the code; `title` is part of the finding's; `bad` has the finding and `good` has not."""
    return pytest.param(name.split("-")[0], severity, title, bad, good, id=name)


def judge(code: str, severity: Severity, title: str, bad: Make, good: Make) -> None:
    """The check finds the one case, once, and leaves the other; what it says is whole, and holds no secret."""
    found = told(bad(), code, title)
    assert [one.severity for one in found] == [severity], found
    assert [one for one in told(good(), code, title) if one.severity == severity] == []
    for one in (*examine(bad()), *examine(good())):
        for text in (one.wrong, one.why, one.do):
            assert text.endswith((".", ".)")), text
            assert "  " not in text
            assert "{" not in text
        assert "CANARY" not in repr(one)


def google(environment: str = "production", *, routes: Any = GMAIL, **choice: Any) -> Case:
    return case({"google": choice}, environment, routes=routes)


def grants(*connections: Any, provider: str = "google", choice: Any = None, **more: Any) -> Case:
    return case({provider: choice or {}}, stored=list(connections), **more)


def dead(user: str, at: int, provider: str = "google", **fields: Any) -> Any:
    return connection(provider, user, state=State.NEEDS_REAUTH, reason="revoked_or_expired", **fields), at


def fallen(*pairs: Any, provider: str = "google", living: int = 0, **more: Any) -> Case:
    alive = [connection(provider, f"living-{n}") for n in range(living)]
    return grants(
        *(one for one, _ in pairs), *alive, provider=provider, ended={one.id: at for one, at in pairs}, **more
    )


def asked(provider: str = "google", environment: str = "production", choice: Any = None, **seen: Any) -> Case:
    return case({provider: choice or {}}, environment, seen={provider: Seen(**seen)})


def live_and_trial(live: Any, trial: Any, **more: Any) -> Case:
    """production.yaml against staging.yaml."""
    ours = {"public_url": "https://auth.acme.com", **more.pop("live_top", {})}
    theirs = {"public_url": "https://auth.staging.acme.com", **more.pop("trial_top", {})}
    other = case(trial, "staging", file="staging.yaml", stored=more.pop("trial_stored", None), **theirs)
    return case(live, file="production.yaml", against=other, **ours, **more)


def weeks(**fields: Any) -> Any:
    return connection(consented_at=NOW - 60 * DAY, **fields)
