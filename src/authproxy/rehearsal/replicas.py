"""The scene of two replicas on one store: together they refresh once, and one can be lost."""

from __future__ import annotations

import time

from authproxy.rehearsal.answers import SERVED
from authproxy.rehearsal.ground import Ground
from authproxy.rehearsal.play import Play
from authproxy.rehearsal.scene import Scene

_LIFE = 4


async def _two(play: Play) -> None:
    ground = play.ground
    if len(ground.listens) < 2 and ground.reinforce is not None:
        await ground.reinforce()
    before = await ground.position("access_token_life")
    users = await play.expired(2, delay_s=0.3, faults_for="refresh")
    await ground.turn(access_token_life=_LIFE)
    began = time.monotonic()
    count = max(play.calls, 4 * len(users))
    answers = await play.burst(users, count, everywhere=True)
    play.saw(answers, {SERVED}, "every call is served, whichever replica it reaches")
    play.at_most(await play.spent(), len(users), "one token call per user, among both replicas")
    await ground.turn(delay_s=0, access_token_life=before)
    answers = await play.burst(users, count, everywhere=True)
    play.saw(answers, {SERVED}, "both replicas use the tokens that one of them fetched")
    play.at_most(await play.spent(), 0, "and neither asks for others")
    if ground.fell is None:
        return
    await play.tell_attempts()  # what a killed process has not written yet is lost with `durability: batch`
    await ground.fell()
    await play.wait(began + _LIFE + 1 - time.monotonic())
    play.saw(await play.burst(users), {SERVED}, "when one replica is killed, the other one goes on")
    play.at_most(
        await play.spent(), len(users), "with the newest refresh tokens, and one token call per user"
    )


def _alone(ground: Ground) -> str | None:
    if len(ground.listens) > 1 or ground.reinforce is not None:
        return None
    return "only one replica is known: give --listen once for each"


REPLICAS = (
    Scene(
        "two-replicas",
        "tokens end while two replicas on one store get calls for the same users; embedded, one is then killed",
        "Nothing: replicas may come and go.",
        "Give all replicas one store (PostgreSQL across machines) and the same sealing keys.",
        _two,
        _alone,
    ),
)
