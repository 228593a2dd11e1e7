"""Plays scenes one after the other, and leaves the sandbox as it was found."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from authproxy.rehearsal.answers import Answer, Trouble, counted
from authproxy.rehearsal.ground import Ground
from authproxy.rehearsal.play import Play
from authproxy.rehearsal.scene import Promise, Scene


@dataclass(slots=True)
class Result:
    """How one scene went. `skipped` says why it was not played."""

    scene: Scene
    skipped: str | None = None
    seconds: float = 0.0
    saw: dict[str, int] = field(default_factory=dict)
    codes: dict[str, int] = field(default_factory=dict)
    reasons: list[str] = field(default_factory=list)
    retry_after: float | None = None
    token_calls: int = 0
    double_spends: int = 0
    users: int = 0
    untouched: int = 0
    returned: int = 0
    states: dict[str, int] = field(default_factory=dict)
    promises: list[Promise] = field(default_factory=list)

    @property
    def calls(self) -> int:
        """How many calls agents made."""
        return sum(self.saw.values())

    @property
    def broken(self) -> list[Promise]:
        """The promises that were not kept."""
        return [one for one in self.promises if not one.kept]

    @property
    def verdict(self) -> str:
        """`kept`, `broken` or `skipped`."""
        return "skipped" if self.skipped else "broken" if self.broken else "kept"

    @property
    def survived(self) -> str:
        """Of the users' connections: those that nobody had to give again, and those that came back."""
        said = f"{self.untouched} of {self.users}"
        return said + (f", {self.returned} by consent" if self.returned else "")

    def as_json(self) -> dict[str, Any]:
        """For machines."""
        return {
            "scene": self.scene.name,
            "broke": self.scene.broke,
            "verdict": self.verdict,
            "skipped": self.skipped,
            "seconds": round(self.seconds, 2),
            "calls": self.calls,
            "saw": self.saw,
            "codes": self.codes,
            "reasons": self.reasons,
            "longest_retry_after": self.retry_after,
            "token_calls": self.token_calls,
            "double_spends": self.double_spends,
            "connections": {
                "users": self.users,
                "survived": self.untouched,
                "back_by_consent": self.returned,
                "states": self.states,
            },
            "promises": [
                {"promise": one.text, "kept": one.kept, "found": one.found} for one in self.promises
            ],
            "means": self.scene.means,
            "do": self.scene.do,
        }


async def rehearse(
    ground: Ground,
    scenes: Sequence[Scene],
    *,
    calls: int,
    begins: Callable[[Scene], None],
    ended: Callable[[Result], None],
    tidy: bool = True,
) -> list[Result]:
    """Plays them. `tidy`: the users that were made are disconnected afterwards."""
    found = await ground.positions()
    run = secrets.token_hex(3)
    results: list[Result] = []
    try:
        for scene in scenes:
            hindrance = scene.hindered(ground)
            if hindrance is None:
                begins(scene)
                result = await _play(ground, scene, run, calls, tidy=tidy)
            else:
                result = Result(scene, skipped=hindrance)
            results.append(result)
            ended(result)
    finally:
        await ground.mend()
        if found:
            await ground.turn(**found)
    return results


async def _play(ground: Ground, scene: Scene, run: str, calls: int, *, tidy: bool) -> Result:
    play = Play(ground, scene.name, run, calls)
    began = time.monotonic()
    limit = 60 + 2 * ground.timing.deadline + 2 * ground.timing.backoff_max
    try:
        await ground.mend()
        async with asyncio.timeout(limit):
            await scene.play(play)
    except Trouble as trouble:
        play.promise("the scene can be played to its end", False, trouble)
    except TimeoutError:
        play.promise("the scene can be played to its end", False, f"not within {limit:.0f} s")
    finally:
        await ground.mend()
    result = Result(scene, users=len(play.users))
    try:
        await _look(play, result)
        if tidy:
            await _tidy(play)
    except Trouble as trouble:
        play.promise("what happened can be told afterwards", False, trouble)
    result.saw = counted(play.answers)
    refusals = [one for one in play.answers if one.code is not None]
    result.codes = dict(Counter(one.code for one in refusals if one.code))
    result.reasons = sorted({one.reason for one in refusals if one.reason})
    result.retry_after = max((one.retry_after for one in refusals if one.retry_after), default=None)
    result.promises = play.promises
    result.seconds = time.monotonic() - began
    return result


async def _look(play: Play, result: Result) -> None:
    """What the ledger, the trail and the control plane say when it is over."""
    violations = await play.violations()
    result.token_calls = len(await play.refreshes())
    result.double_spends = sum(one["kind"] != "dead_again" for one in violations)
    kinds = Counter(one["kind"] for one in violations)
    found = ", ".join(f"{count} {kind}" for kind, count in kinds.items()) or "none"
    play.promise("no refresh token is spent twice, and no dead one is sent again", not violations, found)
    strange: list[Answer] = [one for one in play.answers if one.status == 0 or one.code == "internal"]
    play.promise(
        "every call is answered, and none with a fault of authproxy's own", not strange, len(strange)
    )
    await play.hold_trail()
    states: Counter[str] = Counter()
    for user in play.users:
        one = await play.ground.connection(user)
        state = "none" if one is None else str(one["state"])
        states[state] += 1
        result.untouched += state == "active" and user not in play.again
        result.returned += state == "active" and user in play.again
    result.states = dict(states)


async def _tidy(play: Play) -> None:
    for user in play.users:
        one = await play.ground.connection(user)
        if one is not None and one["state"] != "disconnected":
            await play.ground.ask("DELETE", f"/v1/connections/{one['id']}")
