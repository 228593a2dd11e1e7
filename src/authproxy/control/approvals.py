"""A person's yes to one call of a tool: asked for, given or refused, and used exactly once."""

from __future__ import annotations

import asyncio
import builtins
import json
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from authproxy.core.errors import NotFound, PolicyDenied
from authproxy.core.model import Approval, ApprovalStatus, Caller, Event
from authproxy.core.secret import Secret
from authproxy.core.tool_rules import Approver
from authproxy.store.approvals import Telling
from authproxy.store.vault import Vault

POLL = 0.5
"""Seconds between two looks: the decision may be given in another process."""
READABLE = 65536
"""Bytes of arguments that are kept for a person to read."""
LONG = 4000
"""Characters of a text that are shown where all together would be more."""


@dataclass(frozen=True, slots=True)
class Shown:
    """An approval, and what the call would be made with, for those who may decide on it while it waits."""

    approval: Approval
    input: Mapping[str, Any] | None = field(repr=False)


class Approvals:
    """Each method takes the caller first. `life` is in seconds: for the decision, and then again for the call. Once
    `closing` says so nobody is waited for.

    Who asks never decides: an operator's yes is of another agent than the one that asks; a user's yes is said by
    the application, with a key of its own that is no session and may act for that user. Who shows no credential does
    not decide either: the agent beside it would only have to leave its own out.
    """

    def __init__(
        self,
        vault: Vault,
        *,
        life: Callable[[], float],
        clock: Callable[[], float],
        closing: Callable[[], bool] = lambda: False,
        monotonic: Callable[[], float] = time.monotonic,
        random: Callable[[int], bytes] = secrets.token_bytes,
    ) -> None:
        self._vault = vault
        self._life = life
        self._clock = clock
        self._closing = closing
        self._monotonic = monotonic
        self._random = random

    async def ask(
        self,
        caller: Caller,
        *,
        user: str,
        account: str,
        grant: str | None,
        tool: str,
        version: str,
        given: Mapping[str, Any],
        approver: Approver,
    ) -> Approval:
        """The approval of this very request: the open one, or a new one. `grant` names what it will be made with.
        Raises Overloaded, and TooLong."""
        now = int(self._clock())
        asked = [caller.tenant, caller.agent, caller.session, user, account, grant]
        request = [*asked, tool, version, approver, given]
        new = Approval(
            id=f"apr_{now:010x}{self._random(8).hex()}",  # in the order of their making
            tenant=caller.tenant,
            agent=caller.agent,
            session=caller.session,
            user=user,
            account=account,
            tool=tool,
            # Keyed, so that nobody who reads the store can guess at what was asked.
            fingerprint=self._vault.digest(Secret(json.dumps(request, sort_keys=True))),
            approver=approver,
            status=ApprovalStatus.PENDING,
            created_at=now,
            expires_at=now + int(self._life()),
        )
        return await self._vault.ask_approval(new, readable(given), _telling("requested", None, now))

    async def use(self, caller: Caller, approval: Approval, call: str) -> bool:
        """Take it for the call `call` that is made now; False where it is not good, or was used already."""
        now = int(self._clock())
        told = _telling("used", caller, now, call=call)
        return await self._vault.use_approval(approval, at=now, tell=told, key=caller.key)

    async def wait(
        self,
        caller: Caller,
        approval_id: str,
        seconds: float,
        *,
        there: Callable[[], bool] = lambda: True,
    ) -> Approval:
        """As soon as it is decided, or as it is after `seconds`, or when who waits is not `there` any more. For who
        asked, and for who may decide."""
        until = self._monotonic() + seconds
        while True:
            seen = await self.look(caller, approval_id)
            left = until - self._monotonic()
            if seen.status is not ApprovalStatus.PENDING or left <= 0 or self._closing() or not there():
                return seen
            await asyncio.sleep(min(POLL, left))

    async def look(self, caller: Caller, approval_id: str) -> Approval:
        """The same at once. Raises NotFound."""
        found = await self._vault.approval(caller.tenant, approval_id)
        if found is None or not (_asked(caller, found) or _concerns(caller, found)):
            raise NotFound("There is no such approval", reason="approval_unknown")
        return self._timely(found)

    async def show(self, caller: Caller, approval_id: str) -> Shown:
        """One of them, with the arguments where the caller may decide on it."""
        found = await self.look(caller, approval_id)
        waits = found.status is ApprovalStatus.PENDING
        given = None
        if waits and may_decide(caller, found):
            given = await self._vault.approval_input(caller.tenant, approval_id)
        return Shown(found, given)

    async def list(
        self,
        caller: Caller,
        *,
        user: str | None = None,
        status: ApprovalStatus | None = None,
        limit: int = 100,
        after: str | None = None,
    ) -> builtins.list[Approval]:
        """Those that the caller asked for or may decide on, oldest first."""
        found = await self._vault.approvals(
            caller.tenant,
            now=int(self._clock()),
            asked_by=caller,
            users=_users(caller),
            user=user,
            status=status,
            limit=limit,
            after=after,
        )
        return [self._timely(one) for one in found]

    async def decide(self, caller: Caller, approval_id: str, *, approve: bool, user: str | None) -> Approval:
        """Say yes or no. `user` is whose word it is, where it is the user's.

        Raises NotFound, PolicyDenied where the caller may not decide on it, and NotFound with reason
        `approval_decided` (409) where somebody has, or its time is over.
        """
        found = await self.look(caller, approval_id)
        if (reason := _objection(caller, found)) is not None:
            needed = "an operator's" if found.approver == "operator" else "the application's own"
            raise PolicyDenied(
                f"Who asks does not approve, nor does a session, nor who shows no key: this needs {needed} key, of "
                "another name, or the command line",
                reason=reason,
            )
        if found.approver == "user" and not caller.operator and user != found.user:
            raise PolicyDenied("Say whose word it is: user_id must be the user of the call", reason="user")
        now = int(self._clock())
        decided = await self._vault.decide_approval(
            found,
            ApprovalStatus.APPROVED if approve else ApprovalStatus.DENIED,
            by=caller.agent,
            at=now,
            until=now + int(self._life()),
            tell=_telling("approved" if approve else "denied", caller, now),
        )
        if decided is None:
            raise NotFound("This approval is not waiting any more", reason="approval_decided", status=409)
        return decided

    def _timely(self, one: Approval) -> Approval:
        """As it is now: nobody may have written down yet that its time is over."""
        over = one.expires_at <= self._clock()
        open_still = one.status in (ApprovalStatus.PENDING, ApprovalStatus.APPROVED)
        return replace(one, status=ApprovalStatus.EXPIRED) if over and open_still else one


class TooLong(Exception):
    """Nobody could read all of these arguments, and so nobody can say yes to them."""


def readable(given: Mapping[str, Any]) -> Mapping[str, Any]:
    """Arguments as they are shown: of many long texts the beginnings, each with how much more there is. Raises
    TooLong."""
    if _size(given) <= READABLE:
        return given
    cut: Mapping[str, Any] = _cut(given)
    if _size(cut) > READABLE:
        raise TooLong
    return cut


def may_decide(caller: Caller, one: Approval) -> bool:
    """Whether this caller's word counts."""
    return _objection(caller, one) is None


def _objection(caller: Caller, one: Approval) -> str | None:
    """Why it does not, as a machine word."""
    if _asked(caller, one):
        return "own_request"
    if caller.session is not None:
        return "session"
    if caller.kind == "loopback":
        return "no_credential"
    if caller.tenant == one.tenant and (
        caller.operator or (one.approver == "user" and caller.allowed(one.user))
    ):
        return None
    return "approver"


def _asked(caller: Caller, one: Approval) -> bool:
    return (caller.tenant, caller.agent, caller.session) == (one.tenant, one.agent, one.session)


def _concerns(caller: Caller, one: Approval) -> bool:
    return caller.tenant == one.tenant and (
        caller.operator or (caller.session is None and caller.allowed(one.user))
    )


def _users(caller: Caller) -> tuple[str, ...]:
    """The same, as the users whose approvals concern this caller."""
    if caller.operator:
        return ("*",)
    if caller.session is not None:
        return ()
    if caller.bound_user is not None:
        return (caller.bound_user,) if caller.allowed(caller.bound_user) else ()
    return caller.may_act_for


def _size(value: Any) -> int:
    return len(json.dumps(value))  # as it is stored


def _cut(value: Any) -> Any:
    if isinstance(value, str) and len(value) > LONG:
        return f"{value[:LONG]}… ({len(value) - LONG} characters more, not shown)"
    if isinstance(value, Mapping):
        return {name: _cut(item) for name, item in value.items()}
    return [_cut(item) for item in value] if isinstance(value, list | tuple) else value


def _telling(what: str, by: Caller | None, at: int, **more: str) -> Telling:
    def tell(one: Approval) -> list[Event]:
        data: dict[str, Any] = {
            "approval": one.id,
            "tool": one.tool,
            "approver": one.approver,
            "expires_at": one.expires_at,
            **more,
        }
        if by is not None:
            data["by"] = by.agent
        if one.session is not None:
            data["session"] = one.session
        return [
            Event(
                f"approval.{what}",
                at,
                one.tenant,
                user=one.user,
                account=one.account,
                agent=one.agent,
                data=data,
            )
        ]

    return tell
