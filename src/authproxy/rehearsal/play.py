"""One scene under way: its users, its calls, what the ledger says, and the promises that it holds authproxy to."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Collection, Sequence
from typing import Any

from authproxy.rehearsal.answers import SERVED, Answer, told
from authproxy.rehearsal.ground import Ground
from authproxy.rehearsal.scene import Promise

LIFE = 1
"""Seconds that access tokens live where a scene needs expired ones soon."""

_RECORDED_WITHIN = 5.0


class Play:
    """What a scene's function is given. Nothing that breaks a promise raises: the scene is played to its end."""

    def __init__(self, ground: Ground, scene: str, run: str, calls: int) -> None:
        self.ground = ground
        self.calls = calls
        self.answers: list[Answer] = []
        self.users: list[str] = []
        self.again: set[str] = set()
        self.promises: list[Promise] = []
        self._prefix = f"rehearsal-{run}-{scene}"
        self._began = int(time.time()) - 1
        self._known = 0

    # Users

    async def connected(self, count: int = 1) -> list[str]:
        """New users who have consented."""
        first = len(self.users)
        new = [f"{self._prefix}-{first + number}" for number in range(1, count + 1)]
        self.users += new
        await asyncio.gather(*(self.ground.connect(user) for user in new))
        return new

    async def expired(self, count: int = 1, **broken: Any) -> list[str]:
        """New users whose access tokens have just reached their end; what they get next lives as long as usual.
        The provider is `broken` before that, so that nobody is renewed ahead of time."""
        before = await self.ground.position("access_token_life")
        await self.ground.turn(access_token_life=LIFE)
        new = await self.connected(count)
        await self.ground.turn(access_token_life=before, **broken)
        await self.wait(LIFE + 0.1)
        return new

    async def consented_again(self, answer: Answer | None) -> None:
        """The user opens the link that the agent was given."""
        if answer is None or answer.link is None:
            self.promise("who is asked to re-consent gets a link", False, "no link")
            return
        self.again.add(answer.user)
        await self.ground.consent(answer.user, answer.link)

    async def wait(self, seconds: float) -> None:
        """Time that has to pass for something to happen at the provider."""
        await asyncio.sleep(seconds)

    # Calls

    async def burst(
        self, users: Sequence[str], count: int | None = None, *, texts: bool = False, everywhere: bool = False
    ) -> list[Answer]:
        """Agents' calls, all at once, spread over the users (and over the replicas)."""
        number = max(self.calls if count is None else count, len(users))
        replicas = len(self.ground.listens) if everywhere else 1
        answers = await asyncio.gather(
            *(
                self.ground.call(
                    users[one % len(users)],
                    text=f"call {one}" if texts and one // len(users) % 2 else None,
                    at=one // len(users) % replicas,
                )
                for one in range(number)
            )
        )
        self.answers += answers
        return answers

    async def until_served(self, users: Sequence[str], seconds: float, promise: str, meanwhile: str) -> None:
        """Agents who come again, as Retry-After asks them to but within half a second, until all are served."""
        began = time.monotonic()
        waiting = list(users)
        odd: list[Answer] = []
        while waiting and time.monotonic() - began < seconds:
            answers = await self.burst(waiting, len(waiting))
            odd += [one for one in answers if one.kind not in (SERVED, meanwhile)]
            waiting = [one.user for one in answers if one.kind != SERVED]
            if waiting:
                await asyncio.sleep(min(0.5, *(one.retry_after or 0.5 for one in answers)))
        took = time.monotonic() - began
        found = f"{len(users) - len(waiting)} of {len(users)} after {took:.1f} s"
        self.promise(promise, not waiting and not odd, found + (f", and {told(odd)}" if odd else ""))

    # Judging

    def promise(self, text: str, kept: bool, found: object) -> None:
        """Writes down whether something held."""
        self.promises.append(Promise(text, kept, str(found)))

    def saw(self, answers: Sequence[Answer], kinds: Collection[str], text: str) -> None:
        """All of these answers are of these kinds."""
        self.promise(text, all(one.kind in kinds for one in answers), told(answers))

    def at_most(self, count: int, limit: int, text: str) -> None:
        """A count that may not be higher."""
        self.promise(text, count <= limit, f"{count} token calls, at most {limit} promised")

    # The ledger

    async def refreshes(self) -> list[dict[str, Any]]:
        """The refresh calls for this scene's users, from its beginning."""
        mine = set(self.users)
        ledger = await self.ground.admin("GET", "ledger")
        return [
            one for one in ledger["requests"] if one["grant_type"] == "refresh_token" and one["user"] in mine
        ]

    async def spent(self) -> int:
        """How many there were since this was last asked."""
        known, self._known = self._known, len(await self.refreshes())
        return self._known - known

    async def violations(self) -> list[dict[str, Any]]:
        """The rules that were broken with this scene's tokens."""
        mine = {one["id"] for one in await self.refreshes()}
        ledger = await self.ground.admin("GET", "ledger")
        return [one for one in ledger["violations"] if one["again"] in mine]

    # The trail

    async def tell_attempts(self) -> None:
        """Which calls were sent twice: the audit trail says it, and has them all."""
        until = time.monotonic() + _RECORDED_WITHIN
        while missing := self._unrecorded():
            for user, answers in missing.items():
                path = f"/v1/audit?user_id={user}&kind=request&since={self._began}&limit=1000"
                for record in (await self.ground.ask("GET", path))["items"]:
                    answer = answers.get(record["request_id"])
                    if answer is not None:
                        answer.attempts, answer.recorded = record["attempts"], True
            if time.monotonic() > until:
                return
            await asyncio.sleep(0.05)

    async def hold_trail(self) -> None:
        """Promises that the audit trail has a record of every call, served or refused."""
        await self.tell_attempts()
        missing = sum(len(answers) for answers in self._unrecorded().values())
        found = f"{len(self.answers) - missing} of {len(self.answers)}"
        self.promise("the audit trail has a record of every call", not missing, found)

    def _unrecorded(self) -> dict[str, dict[str, Answer]]:
        missing: defaultdict[str, dict[str, Answer]] = defaultdict(dict)
        for one in self.answers:
            if one.request_id is not None and not one.recorded:
                missing[one.user][one.request_id] = one
        return dict(missing)
