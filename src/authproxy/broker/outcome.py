"""How an attempt to get a fresh token can end, as values that many waiters share."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from authproxy.core.errors import ProviderUnavailable
from authproxy.core.model import Connection, ConnectionKey, State
from authproxy.core.secret import Secret

Why: TypeAlias = Literal["ahead", "keep_alive", "over", "operator", "import"]
Failpoint: TypeAlias = Callable[[str], Awaitable[None]]


async def no_failpoint(_name: str) -> None:
    """What runs at the named places outside of tests: nothing."""


@dataclass(frozen=True, slots=True)
class Want:
    """What would be good enough: another generation than the `rejected` one, and more than `margin` seconds of
    life. An unknown end is life enough: such tokens are renewed when an API refuses them. `why` is for the
    timeline: who asked, where it was not a request; such work has no claim to be first. `probe`: ask the provider
    also where it has ended the grant; there are outages in which good tokens are refused (J12)."""

    margin: float = 0.0
    rejected: int | None = None
    why: Why | None = None
    probe: bool = False

    @property
    def urgent(self) -> bool:
        """Whether somebody waits for it."""
        return self.why not in ("ahead", "keep_alive", "over")

    def met_by(self, connection: Connection, now: float) -> bool:
        """Whether the stored token will do."""
        if self.rejected is not None and connection.generation == self.rejected:
            return False
        return connection.expires_at is None or connection.expires_at - now > self.margin


@dataclass(frozen=True, slots=True)
class Fresh:
    """A token that will do."""

    connection: Connection
    access: Secret = field(repr=False)


@dataclass(frozen=True, slots=True)
class Later:
    """Nothing is decided: try again in `retry_after` seconds."""

    reason: str
    retry_after: int


@dataclass(frozen=True, slots=True)
class Wrong:
    """The operator's client is wrong or refused; the grant is as good as it was."""

    reason: str
    advice: str


@dataclass(frozen=True, slots=True)
class Ended:
    """There is no grant, or no longer: only the user can mend it. `connection` None: there never was one."""

    connection: Connection | None

    @property
    def state(self) -> State:
        """Of the connection; DISCONNECTED where there is none."""
        return State.DISCONNECTED if self.connection is None else self.connection.state


Outcome: TypeAlias = Fresh | Later | Wrong | Ended


def unavailable(key: ConnectionKey, reason: str, retry_after: int) -> ProviderUnavailable:
    """What to raise where a token has expired, and there is none instead now."""
    return ProviderUnavailable(
        f"{key.user}'s token for {key.provider} has expired, and {key.provider} gives no new one now",
        reason=reason,
        provider=key.provider,
        user=key.user,
        retry_after=retry_after,
    )
