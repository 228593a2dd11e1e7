"""What the control plane tells, as frozen values. None of them holds a provider's token: no call gives one.

Instants are integer seconds since the epoch; None means never or unknown.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from authproxy.client.refusals import Unexpected, number, text, texts, web_url


@dataclass(frozen=True, slots=True)
class Authorization:
    """How it stands between one user and one provider: a consent in progress or ended, or a standing connection.

    `state` is `not_started`, `pending`, `exchanging` or `confirming`, and at its end `completed`, `denied`, `failed`,
    `expired` or `superseded`. `url` is for the user, and None where nothing has to be asked.
    """

    id: str
    state: str
    user: str
    provider: str
    url: str | None = None
    reason: str | None = None
    scopes: tuple[str, ...] = ()
    account: str = "default"
    expires_at: int | None = None
    connection_id: str | None = None

    @property
    def completed(self) -> bool:
        """The user is connected."""
        return self.state == "completed"

    @property
    def ended(self) -> bool:
        """It will not change any more."""
        return self.state in ("completed", "denied", "failed", "expired", "superseded")

    @classmethod
    def of(cls, said: Mapping[str, Any]) -> Self:
        """From the control plane's JSON."""
        return cls(
            id=_named(said, "id"),
            # a peer that speaks the public client's words alone says no more than these
            state=text(said.get("state")) or _named(said, "status"),
            user=text(said.get("user_id")) or "",
            provider=text(said.get("provider_id")) or "",
            url=web_url(said.get("url")),
            reason=text(said.get("reason")),
            scopes=texts(said.get("scopes")),
            account=text(said.get("account")) or "default",
            expires_at=number(said.get("expires_at")),
            connection_id=text(said.get("connection_id")),
        )


@dataclass(frozen=True, slots=True)
class Connection:
    """One user's grant at one provider. `state` is `active`, `needs_reauth`, `misconfigured`, `disconnected` or
    `rotation_lost`; `reason` says why it is not active."""

    id: str
    user: str
    provider: str
    state: str
    account: str = "default"
    reason: str | None = None
    scopes: tuple[str, ...] = ()
    generation: int | None = None

    @property
    def active(self) -> bool:
        """It works."""
        return self.state == "active"

    @classmethod
    def of(cls, said: Mapping[str, Any]) -> Self:
        """From the control plane's JSON."""
        return cls(
            id=_named(said, "id"),
            user=text(said.get("user_id")) or "",
            provider=text(said.get("provider_id")) or "",
            state=_named(said, "state"),
            account=text(said.get("account")) or "default",
            reason=text(said.get("reason")),
            scopes=texts(said.get("scopes")),
            generation=number(said.get("generation")),
        )


@dataclass(frozen=True, slots=True)
class Session:
    """A credential for one agent and one user, without its text. `routes` and `tools` are the only ones that it may
    use; None: all. `state` is `active`, `expired` or `revoked`."""

    id: str
    agent: str
    user: str
    state: str
    created_at: int
    expires_at: int
    routes: tuple[str, ...] | None = None
    tools: tuple[str, ...] | None = None
    renewable_until: int | None = None
    revoked_at: int | None = None
    label: str | None = None

    @classmethod
    def of(cls, said: Mapping[str, Any]) -> Self:
        """From the control plane's JSON."""
        return cls(
            id=_named(said, "id"),
            agent=_named(said, "agent"),
            user=_named(said, "user_id"),
            state=_named(said, "state"),
            created_at=number(said.get("created_at")) or 0,
            expires_at=number(said.get("expires_at")) or 0,
            routes=None if said.get("routes") is None else texts(said["routes"]),
            tools=None if said.get("tools") is None else texts(said["tools"]),
            renewable_until=number(said.get("renewable_until")),
            revoked_at=number(said.get("revoked_at")),
            label=text(said.get("label")),
        )


@dataclass(frozen=True, slots=True)
class NewSession:
    """A session with its credential (`apx_…`), which is told this once: give it to the agent and keep the id."""

    session: Session
    key: str = field(repr=False)

    @classmethod
    def of(cls, said: Mapping[str, Any]) -> Self:
        """From the control plane's JSON."""
        return cls(Session.of(said), _named(said, "key"))


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool as it is offered. `name` is the full one (`Gmail.ListEmails`); `met` says whether the user has what it
    needs, None where no user was named; `definition` is all that the control plane told, formatted schemas too."""

    name: str
    description: str
    provider: str | None
    scopes: tuple[str, ...]
    read_only: bool
    destructive: bool
    idempotent: bool
    met: bool | None = None
    definition: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, said: Mapping[str, Any]) -> Self:
        """From the control plane's JSON."""
        needs = _object(said, "requirements")
        grant = _object(needs, "authorization")
        marks = _object(said, "annotations")
        met = needs.get("met")
        return cls(
            name=_named(said, "qualified_name"),
            description=text(said.get("description")) or "",
            provider=text(grant.get("provider_id")),
            scopes=texts(_object(grant, "oauth2").get("scopes")),
            read_only=marks.get("read_only") is True,
            destructive=marks.get("destructive") is True,
            idempotent=marks.get("idempotent") is True,
            met=met if isinstance(met, bool) else None,
            definition=said,
        )


@dataclass(frozen=True, slots=True)
class ToolResult:
    """What a tool answered. `id` is in the audit; `duration` is in seconds."""

    id: str
    value: Any
    duration: float | None = None

    @classmethod
    def of(cls, said: Mapping[str, Any]) -> Self:
        """From the control plane's JSON."""
        took = said.get("duration")
        return cls(
            id=_named(said, "id"),
            value=_object(said, "output").get("value"),
            duration=took / 1000 if isinstance(took, int | float) else None,
        )


def _object(said: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = said.get(name)
    return value if isinstance(value, Mapping) else {}


def _named(said: Mapping[str, Any], name: str) -> str:
    value = text(said.get(name))
    if value is None:
        raise Unexpected(f"authproxy's answer has no {name}: is the address that of its control plane?")
    return value
