"""Users as operators see them: who is disabled, by whom and why, and what that has ended."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from authproxy.broker.offboarding import Offboarding, Report
from authproxy.control.operators import demand_operator
from authproxy.core.errors import BadRequest, UserMissing
from authproxy.core.message import NAME_RULE, is_name
from authproxy.core.model import Caller, UserStanding
from authproxy.store.vault import Vault

LONGEST_REASON = 200
MOST_NAMES = 20_000
"""Names that one that nobody here has is compared with."""
MOST_SIMILAR = 5


@dataclass(frozen=True, slots=True)
class Disabled:
    """What came of it. `known` is false where nothing was ever about this very name: it stays disabled all the same,
    and `similar` are names that it may have been meant for."""

    standing: UserStanding
    report: Report
    known: bool
    similar: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Enabled:
    """How it stands now; `changed` is false where the user was not disabled."""

    standing: UserStanding
    changed: bool


class Users:
    """Each method takes the caller first: an operator, whose part is the own tenant."""

    def __init__(self, vault: Vault, offboarding: Offboarding) -> None:
        self._vault = vault
        self._offboarding = offboarding

    async def disable(
        self, caller: Caller, user: str, *, reason: str | None = None, keep_grants: bool = False
    ) -> Disabled:
        """Refuse everything for this user, in every process within the leash, and end what they have: consents in
        progress, and unless `keep_grants` their connections, here and at the providers. A name that is not known yet
        is refused from its first request on. Doing it again changes nothing, and ends what was kept before."""
        demand_operator(caller)
        _demand_sayable(user, reason)
        known = await self._vault.user_known(caller.tenant, user)
        report = await self._offboarding.disable(
            caller.tenant, user, by=caller.agent, reason=reason, keep_grants=keep_grants
        )
        similar = () if known else await self._similar(caller.tenant, user)
        return Disabled(await self._vault.user(caller.tenant, user), report, known, similar)

    async def enable(self, caller: Caller, user: str, *, reason: str | None = None) -> Enabled:
        """Let the user be acted for again. What was ended stays ended: they connect anew."""
        demand_operator(caller)
        _demand_sayable(user, reason)
        changed = await self._offboarding.enable(caller.tenant, user, by=caller.agent, reason=reason)
        return Enabled(await self._vault.user(caller.tenant, user), changed)

    async def show(self, caller: Caller, user: str) -> UserStanding:
        """How it stands with one user, known or not."""
        demand_operator(caller)
        _demand_sayable(user, None)
        return await self._vault.user(caller.tenant, user)

    async def list(
        self, caller: Caller, *, disabled: bool | None = None, limit: int = 100, after: str | None = None
    ) -> Sequence[UserStanding]:
        """The tenant's users who ever had a connection or were disabled, by name, from behind `after`."""
        demand_operator(caller)
        return await self._vault.users(caller.tenant, is_disabled=disabled, limit=limit, after=after)

    async def _similar(self, tenant: str, user: str) -> tuple[str, ...]:
        """Users are who they are by every letter, and a slip must not look like a success."""
        wanted = _folded(user)
        names = await self._vault.user_names(tenant, limit=MOST_NAMES)
        return tuple(
            sorted(name for name in names if name != user and _folded(name) == wanted)[:MOST_SIMILAR]
        )


def _folded(name: str) -> str:
    return "".join(unicodedata.normalize("NFKC", name).casefold().split())


def _demand_sayable(user: str, reason: str | None) -> None:
    if not is_name(user):
        raise UserMissing(f"A user's name must be {NAME_RULE}, without blanks around it", reason="value")
    if reason is not None and (len(reason) > LONGEST_REASON or not reason.isprintable()):
        raise BadRequest(f"reason must be up to {LONGEST_REASON} printable characters", reason="reason")
