"""Whether a user may be given anything new: asked inside the very transaction that would give it."""

from __future__ import annotations

from typing import Final

from authproxy.core.errors import UserDisabled
from authproxy.store.base import Transaction

USER_DISABLED: Final = "user_disabled"
"""The reason of what ended because its user was disabled."""
_DISABLED: Final = "SELECT 1 AS one FROM users WHERE tenant = ? AND user_id = ? AND disabled_at IS NOT NULL"


async def demand_enabled(tx: Transaction, tenant: str, user: str) -> None:
    """Raises UserDisabled. Until the transaction ends nobody can be disabled or enabled beside it: what it gives is
    there when a disabling looks for what is to be ended, or it is not given at all (I10)."""
    await one_at_a_time(tx, tenant, user)
    if await tx.run(_DISABLED, tenant, user):
        raise disabled(user)


async def one_at_a_time(tx: Transaction, tenant: str, user: str) -> None:
    """From here on no other transaction gives this user anything, or takes it from them."""
    await tx.alone("user", tenant, user)


def disabled(user: str) -> UserDisabled:
    """What to raise for them. Why they were disabled is the operators' business, and not in it."""
    return UserDisabled(f"{user} has been disabled by an operator", user=user)
