"""What a sandbox is started with: its clients, users, scopes, dialect and the first position of its switches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

Authentication = Literal["client_secret_basic", "client_secret_post", "none"]


@dataclass(frozen=True, slots=True)
class Registration:
    """One client. `loopback` allows any `http` loopback redirect URI, any port and path (RFC 8252 section 7.3);
    all others must be registered character for character."""

    client_id: str
    name: str
    client_secret: str | None = field(default=None, repr=False)
    auth: tuple[Authentication, ...] = ("client_secret_basic", "client_secret_post")
    redirect_uris: tuple[str, ...] = ()
    loopback: bool = True


PUBLIC_CLIENT = Registration("authproxy-dev", "authproxy (development)", auth=("none",))
DEMO_CLIENT = Registration("authproxy-demo", "authproxy (demonstration)", "authproxy-demo-secret")

SCOPES: Mapping[str, str] = MappingProxyType(
    {
        "openid": "Know who you are",
        "profile": "Read your name",
        "email": "Read your e-mail address",
        "offline_access": "Stay connected while you are away",
        "read": "Read your messages",
        "write": "Send messages in your name",
    }
)


@dataclass(frozen=True, slots=True)
class Settings:
    """`scopes` are those of the standard dialect, with what the consent page says of them. `switches` is the
    position that a reset returns to. `access_token_life` None: the dialect's own (3600 s for the standard)."""

    dialect: str = "standard"
    clients: tuple[Registration, ...] = (PUBLIC_CLIENT, DEMO_CLIENT)
    users: tuple[str, ...] = ("alice", "bob", "carol")
    scopes: Mapping[str, str] = field(default_factory=lambda: SCOPES)
    access_token_life: float | None = None
    code_life: float = 120.0
    switches: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    allow_remote: bool = False
    public_url: str | None = None
    ledger_size: int = 100_000
