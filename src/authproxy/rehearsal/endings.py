"""Scenes of grants that end: their users are asked, once, and nobody else is troubled."""

from __future__ import annotations

from collections.abc import Sequence

from authproxy.rehearsal.answers import SERVED, Answer
from authproxy.rehearsal.ground import Ground
from authproxy.rehearsal.play import Play
from authproxy.rehearsal.scene import Scene

_ENDED = "consent:connection_expired"
_NARROW = "consent:scope_missing"


async def _reuse(play: Play) -> None:
    victim, neighbour = await play.connected(2)
    await play.ground.admin("POST", "use-elsewhere", {"user": victim})
    for user in (victim, neighbour):
        await play.ground.admin("POST", "expire", {"user": user})
    await _ended(play, victim, neighbour)


async def _revocation(play: Play) -> None:
    victim, neighbour = await play.connected(2)
    await play.ground.admin("POST", "revoke-user", {"user": victim})
    await _ended(play, victim, neighbour)


async def _password(play: Play) -> None:
    victim, neighbour = await play.connected(2)
    await play.ground.admin("POST", "password-change", {"user": victim})
    await _ended(play, victim, neighbour)


async def _test_mode(play: Play) -> None:
    life = 2.0
    await play.ground.turn(test_mode_s=life)
    (tester,) = await play.connected()
    play.saw(await play.burst([tester], 2), {SERVED}, "a grant of the test mode works at first")
    await play.ground.turn(test_mode_s=0)
    (later,) = await play.connected()
    await play.wait(life)
    await _ended(play, tester, later)


async def _ended(play: Play, victim: str, neighbour: str) -> None:
    """The one whose grant has ended is asked, once; the other one notices nothing."""
    answers = await play.burst([victim, neighbour])
    mine, theirs = _parted(answers, victim)
    play.saw(mine, {_ENDED}, "whose grant has ended is asked to re-consent")
    play.saw(theirs, {SERVED}, "everybody else is served")
    # One call finds out, and one is the neighbour's own where its token has ended too.
    play.at_most(await play.spent(), 2, "the refusal is found out with one token call")
    answers = await play.burst([victim])
    play.saw(answers, {_ENDED}, "the agents who go on calling get the same answer")
    play.at_most(await play.spent(), 0, "a dead grant is not hammered")
    await _back(play, victim, answers)


async def _back(play: Play, user: str, answers: Sequence[Answer]) -> None:
    """After consent the user is served, on the same connection."""
    before = await play.ground.connection(user)
    await play.consented_again(next((one for one in answers if one.link is not None), None))
    play.saw(await play.burst([user], 2), {SERVED}, "after consent the user is served again")
    after = await play.ground.connection(user)
    same = before is not None and after is not None and before["id"] == after["id"]
    play.promise("the connection keeps its id", same, "the same" if same else "another")


async def _scopes(play: Play) -> None:
    kept = list(play.ground.scopes[:1])
    (late,) = await play.expired(narrow_scopes_at_refresh=kept)
    play.saw(
        await play.burst([late]),
        {SERVED, _NARROW},
        "who asks while a refresh narrows the grant is served, or told so",
    )
    play.at_most(await play.spent(), 1, "one token call")
    answers = await play.burst([late])
    play.saw(answers, {_NARROW}, "what the grant no longer covers is said before anything is sent")
    await play.ground.turn(narrow_scopes_at_refresh=None, narrow_scopes=kept)
    (early,) = await play.connected()
    fresh = await play.burst([early])
    play.saw(fresh, {_NARROW}, "so is what a user did not tick at consent")
    await play.ground.turn(narrow_scopes=None)
    play.at_most(await play.spent(), 0, "no refresh is tried for what only a consent can give")
    for user, seen in ((late, answers), (early, fresh)):
        await _back(play, user, seen)


def _parted(answers: Sequence[Answer], user: str) -> tuple[list[Answer], list[Answer]]:
    mine = [one for one in answers if one.user == user]
    return mine, [one for one in answers if one.user != user]


def _needs_scopes(ground: Ground) -> str | None:
    if len(ground.scopes) > 1:
        return None
    return "the route asks for fewer than two scopes, so there is nothing to narrow"


ENDINGS = (
    Scene(
        "reuse",
        "a copy of a user's refresh token is used elsewhere, and the provider ends the whole grant",
        "That user is asked to re-consent, once; everybody else goes on.",
        "Find the other holder (a laptop, an old job, a second store) before the user consents: it will happen again.",
        _reuse,
    ),
    Scene(
        "revocation",
        "a user removes the app at the provider",
        "That user's agents are told to ask; the link leads back to the same connection.",
        "Show `connect_url` to the user; do not retry on `act: ask_user`.",
        _revocation,
    ),
    Scene(
        "password-change",
        "a user's new password ends the grant",
        "As with a revocation: one link, the same connection afterwards.",
        "Show `connect_url` to the user; some providers do this only for certain scopes.",
        _password,
    ),
    Scene(
        "test-mode",
        "the provider's test mode ends grants after 7 days (here 2 s), also after the app is published",
        "Everybody who consented before publication is asked again a week later.",
        "Publish the app before users consent; say `publishing_status` and `published_on`, and run `authproxy doctor`.",
        _test_mode,
    ),
    Scene(
        "scope-narrowing",
        "the provider grants less than was asked for, at consent and at a refresh",
        "They are asked for the missing scopes before a call fails half-way.",
        "Ask for no scope that a route does not need; have new scopes verified before they are asked for.",
        _scopes,
        _needs_scopes,
    ),
)
