"""Scenes of tokens that end and are renewed: nobody should notice."""

from __future__ import annotations

import time

from authproxy.rehearsal.answers import SERVED
from authproxy.rehearsal.play import Play
from authproxy.rehearsal.scene import Scene

_STEADY = 3.6
_LIFE = 2


async def _expiry(play: Play) -> None:
    users = await play.expired(2)
    play.saw(await play.burst(users), {SERVED}, "every call is served")
    play.at_most(await play.spent(), len(users), "one token call per user, however many agents ask at once")


async def _unnoticed(play: Play) -> None:
    users = await play.connected(2)
    play.saw(await play.burst(users, len(users)), {SERVED}, "every call is served while the tokens are good")
    for user in users:
        await play.ground.admin("POST", "expire", {"user": user})
    answers = await play.burst(users, texts=play.ground.sends)
    play.saw(answers, {SERVED}, "every call is served although the API refused its token")
    play.at_most(await play.spent(), len(users), "one token call per user, however many agents ask at once")
    await play.tell_attempts()
    most = max((one.attempts for one in play.answers), default=0)
    play.promise("no call is sent more than twice", most <= 2, f"at most {most} times")
    if play.ground.sends:
        texts = [text for user in users for text in await play.ground.inbox(user)]
        found = f"{len(texts)} messages, {len(set(texts))} of them different"
        play.promise("no message is delivered twice", len(texts) == len(set(texts)), found)


async def _rotation(play: Play) -> None:
    before = await play.ground.position("access_token_life")
    await play.ground.turn(access_token_life=_LIFE)
    users = await play.connected(2)
    began = time.monotonic()
    while time.monotonic() - began < _STEADY:
        await play.burst(users, 2 * len(users))
        await play.wait(0.2)
    elapsed = time.monotonic() - began
    await play.ground.turn(access_token_life=before)
    play.saw(play.answers, {SERVED}, "every call is served while tokens come and go")
    sent = [one["digest"] for one in await play.refreshes()]
    play.promise(
        "each refresh presents the newest refresh token, and each only once",
        len(sent) == len(set(sent)),
        f"{len(sent)} refreshes with {len(set(sent))} different tokens",
    )
    play.promise("tokens were rotated again and again", len(sent) >= 2 * len(users), f"{len(sent)} times")
    limit = round(len(users) * (elapsed + 2))  # whole seconds are told as expiry, so a life of two may be one
    play.at_most(await play.spent(), limit, "no more token calls than the tokens' lives ask for")


LIVES = (
    Scene(
        "expiry",
        "access tokens reach the end of their life, and all agents call at once",
        "Nothing: their agents go on, a little later by one token call.",
        "Nothing. If this breaks, look for a second program that refreshes the same grants.",
        _expiry,
    ),
    Scene(
        "unnoticed-expiry",
        "the provider ends access tokens early; only the API's 401 tells",
        "Nothing: the refused call is sent once more with a new token, and no message twice.",
        "Nothing. Bodies over limits.max_replay cannot be sent again; their agents see the 401 with "
        "X-Authproxy-Retry: resend.",
        _unnoticed,
    ),
    Scene(
        "rotation",
        "short-lived tokens under steady traffic: every refresh gives a new refresh token and spends the old",
        "Nothing, as long as the store is kept: the newest refresh token is the only good one.",
        "Never restore the store from a backup without expecting consents; one store alone may hold a grant.",
        _rotation,
    ),
)
