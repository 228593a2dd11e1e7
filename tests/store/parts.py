"""Made-up grants, flows and events."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

from authproxy.core.model import (
    AgentKey,
    Approval,
    ApprovalStatus,
    ConnectionKey,
    Event,
    Flow,
    FlowStatus,
    NewGrant,
    TokenSet,
)
from authproxy.core.secret import Secret

KEY = ConnectionKey("acme", "alice", "google")
NOW = 1_800_000_000
_numbers = itertools.count(1)


def tokens(word: str = "1", **fields: Any) -> TokenSet:
    """A token set whose secrets can be searched for."""
    values: dict[str, Any] = {
        "access_token": Secret(f"CANARY-at-{word}"),
        "refresh_token": Secret(f"CANARY-rt-{word}"),
        "expires_at": NOW + 3600,
        "lifetime": 3600,
        "scopes": ("mail", "files"),
        "extra": {"instance_url": "https://x.example"},
    }
    return TokenSet(**(values | fields))


def grant(key: ConnectionKey = KEY, word: str | None = None, **fields: Any) -> NewGrant:
    """A finished consent; each has a grant id of its own."""
    number = next(_numbers)
    values: dict[str, Any] = {
        "key": key,
        "client_id": "client-1",
        "grant_id": f"grant-{number}",
        "tokens": tokens(word or str(number)),
        "requested_scopes": ("mail", "files"),
        "provider_account": "alice@example.com",
        "at": NOW,
    }
    return NewGrant(**(values | fields))


def event(kind: str = "connection.made", key: ConnectionKey = KEY, **fields: Any) -> Event:
    """Something that happened to a connection."""
    values: dict[str, Any] = {
        "at": NOW,
        "tenant": key.tenant,
        "user": key.user,
        "provider": key.provider,
        "account": key.account,
        "agent": "worker",
    }
    return Event(kind, **(values | fields))


def flow(key: ConnectionKey = KEY, **fields: Any) -> Flow:
    """A consent that has just been asked for."""
    number = next(_numbers)
    values: dict[str, Any] = {
        "id": f"flow-{number}",
        "key": key,
        "agent": "worker",
        "scopes": ("mail",),
        "status": FlowStatus.NOT_STARTED,
        "reason": None,
        "client_id": "client-1",
        "redirect_uri": "https://auth.example/callback/google",
        "next_uri": None,
        "created_at": NOW,
        "expires_at": NOW + 900,
    }
    return Flow(**(values | fields))


def agent(**fields: Any) -> AgentKey:
    """An agent's key."""
    number = next(_numbers)
    values: dict[str, Any] = {
        "id": f"agent-{number}",
        "tenant": "acme",
        "name": "worker",
        "digest": f"digest-{number}",
        "may_act_for": ("*",),
        "operator": False,
        "created_at": NOW,
    }
    return AgentKey(**(values | fields))


def contents(path: Path) -> bytes:
    """All bytes of a file."""
    return path.read_bytes()


def approval(**fields: Any) -> Approval:
    """A call that waits for a yes."""
    values: dict[str, Any] = {
        "id": f"apr_{next(_numbers):06}",
        "tenant": "acme",
        "agent": "mailer",
        "session": None,
        "user": "alice",
        "account": "default",
        "tool": "Gmail.SendEmail",
        "fingerprint": "f" * 64,
        "approver": "user",
        "status": ApprovalStatus.PENDING,
        "created_at": NOW,
        "expires_at": NOW + 900,
    }
    return Approval(**(values | fields))
