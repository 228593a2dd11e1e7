"""Scenes of providers that cannot or will not answer: nobody loses a grant over it."""

from __future__ import annotations

import asyncio

from authproxy.rehearsal.answers import SERVED, Answer
from authproxy.rehearsal.play import Play
from authproxy.rehearsal.scene import Scene

_LATER = "refused:provider_unavailable"
_OPERATOR = "refused:provider_misconfigured"
_KEPT_BACK = (
    "refused:overloaded"  # by authproxy, until the time that the API told (unless limits say otherwise)
)
_AGAIN = "when it is over all are served again, without a consent"


async def _token_storm(play: Play) -> None:
    storm = {"status": 429, "retry_after": "2", "faults_for": "refresh"}
    (idle,) = await play.connected()
    users = await play.expired(3, **storm)
    play.saw(await play.burst([idle]), {SERVED}, "who has a good token is served as ever")
    answers = await play.burst(users)
    play.saw(answers, {_LATER}, "who needs a new token is told to come back")
    waits = [one.retry_after for one in answers]
    play.promise("every such answer says when", all(waits), f"Retry-After {sorted({w or 0 for w in waits})}")
    play.at_most(await play.spent(), len(users), "at most one token call per user, however many agents ask")
    play.saw(await play.burst(users), {_LATER}, "agents who do not wait get the same answer")
    play.at_most(await play.spent(), 0, "nothing more is sent before the time that the provider named")
    await play.ground.turn(status=None, retry_after=None)
    await play.until_served(users, 4 + play.ground.timing.backoff_max, _AGAIN, _LATER)


async def _api_storm(play: Play) -> None:
    users = await play.connected(2)
    await play.ground.turn(api_status=429, api_retry_after="3")
    answers = await play.burst(users)
    play.saw(answers, {"passed:429", _KEPT_BACK}, "the API's own 429 reaches the agents whose calls met it")
    waits = {one.retry_after for one in answers if one.code is None}
    play.promise(
        "with the API's own Retry-After", waits == {3.0}, f"Retry-After {sorted(w or 0 for w in waits)}"
    )
    late = await play.burst(users)
    play.saw(late, {"passed:429", _KEPT_BACK}, "who comes again before that time is told to wait as well")
    told = [one.retry_after for one in late]
    play.promise("every such answer says when", all(told), f"Retry-After {sorted({w or 0 for w in told})}")
    play.at_most(await play.spent(), 0, "a rate limit is not read as a dead token")
    await play.ground.turn(api_status=None, api_retry_after=None)
    await play.until_served(users, 10, _AGAIN, _KEPT_BACK)


async def _slow(play: Play) -> None:
    delay = min(1.5, play.ground.timing.deadline * 0.6)
    (idle,) = await play.connected()
    users = await play.expired(2, delay_s=delay, faults_for="refresh")
    waiting = asyncio.create_task(play.burst(users))
    quick = await play.burst([idle])
    slowest = max(one.seconds for one in quick)
    play.saw(quick, {SERVED}, "who has a good token is served as ever")
    found = f"the slowest took {slowest:.2f} s, a token call takes {delay:g} s"
    play.promise("and waits for nobody else's refresh", slowest < delay, found)
    play.saw(await waiting, {SERVED}, "who needs a new token waits for it, and is served")
    play.at_most(await play.spent(), len(users), "one token call per user, however many agents wait")


async def _dead(play: Play) -> None:
    timing = play.ground.timing
    (idle,) = await play.connected()
    users = await play.expired(2, delay_s=600, faults_for="refresh")
    waiting = asyncio.create_task(play.burst(users))
    play.saw(await play.burst([idle]), {SERVED}, "who has a good token is served as ever")
    answers = await waiting
    play.saw(answers, {_LATER}, "who needs a new token is told to come back")
    slowest = max(one.seconds for one in answers)
    found = f"the slowest answer came after {slowest:.1f} s"
    play.promise("nobody waits longer than the deadline", slowest < timing.deadline + 5, found)
    play.at_most(await play.spent(), len(users), "one token call per user, however many agents wait")
    await play.ground.turn(delay_s=0)
    await play.until_served(users, 10 + timing.backoff_max, _AGAIN, _LATER)


async def _outage(play: Play) -> None:
    (idle,) = await play.connected()
    users = await play.expired(3, html=True, status=502, faults_for="refresh")
    play.saw(await play.burst([idle]), {SERVED}, "who has a good token is served as ever")
    play.saw(await play.burst(users), {_LATER}, "who needs a new token is told to come back")
    play.at_most(await play.spent(), len(users), "at most one token call per user, however many agents ask")
    await play.ground.turn(html=False, status=None)
    await play.until_served(users, 10 + play.ground.timing.backoff_max, _AGAIN, _LATER)


async def _lost_answer(play: Play) -> None:
    later, second = await _answer_lost(play, grace=60)
    play.saw(later, {_LATER}, "who needs the new token is told to come back")
    play.saw(second, {SERVED}, "where the provider forgives a repetition, one heals it")
    play.at_most(await play.spent(), 2, "and the token whose answer was lost is sent twice at most")
    later, second = await _answer_lost(play, grace=0)
    play.saw(later, {_LATER}, "where it does not, all looks the same at first")
    play.saw(second, {"consent:connection_expired"}, "then the user is asked, and not left in a loop")
    reasons = {one.reason or "none" for one in second}
    play.promise(
        "the reason says that a rotation was lost", reasons == {"rotation_lost"}, ", ".join(sorted(reasons))
    )
    play.at_most(await play.spent(), 2, "here too the token is sent twice at most")
    answers = await play.burst([second[0].user])
    play.at_most(await play.spent(), 0, "a lost grant is not hammered")
    await play.consented_again(next((one for one in answers if one.link is not None), None))
    play.saw(await play.burst([second[0].user], 2), {SERVED}, "after consent the user is served again")


async def _answer_lost(play: Play, *, grace: int) -> tuple[list[Answer], list[Answer]]:
    """What agents get when the answer to a refresh is lost, and what after the pause that they were told."""
    users = await play.expired(grace_s=grace, drop="after", next_calls=1, faults_for="refresh")
    first = await play.burst(users)
    await play.wait(max(one.retry_after or 1 for one in first))
    return first, await play.burst(users)


async def _client(play: Play) -> None:
    users = await play.expired(4, invalid_client=True)
    answers = await play.burst(users)
    play.saw(
        answers, {_OPERATOR}, "agents are told that the operator must act, and no user is asked anything"
    )
    play.at_most(await play.spent(), len(users), "at most one token call per user, however many agents ask")
    play.saw(await play.burst(users), {_OPERATOR}, "agents who go on calling get the same answer")
    play.at_most(await play.spent(), 0, "a provider that refuses the client is left alone for a while")
    await play.ground.turn(invalid_client=False)
    await play.until_served(users, 10 + play.ground.timing.backoff_max, _AGAIN, _OPERATOR)


OUTAGES = (
    Scene(
        "token-429",
        "the token endpoint answers 429 with Retry-After: 2",
        "Those whose token has just ended wait as long as the provider asks; nobody is asked to re-consent.",
        "Let agents obey Retry-After. If it recurs, spread consents out or ask the provider for a higher limit.",
        _token_storm,
    ),
    Scene(
        "api-429",
        "the API itself answers 429",
        "Their agents see the API's own answer and its Retry-After; who comes too early is kept back here.",
        "Let agents obey Retry-After: authproxy does not retry for them. `limits.longest_pause` bounds the pauses.",
        _api_storm,
    ),
    Scene(
        "slow-endpoint",
        "the token endpoint takes long for every answer",
        "Those whose token has just ended wait for one token call; the others notice nothing.",
        "Keep agents' own timeouts above timeouts.token_wait.",
        _slow,
    ),
    Scene(
        "dead-endpoint",
        "the token endpoint takes calls and never answers",
        "Those whose token has ended get 503 with Retry-After until it is back; nobody is asked to re-consent.",
        'Alert on authproxy_refresh_total{outcome="maybe_sent"}. Keep refresh.deadline long enough for a slow answer.',
        _dead,
    ),
    Scene(
        "outage",
        "the token endpoint answers 502 with a gateway's HTML page",
        "Those whose token has ended get 503 with Retry-After until it is back; nobody is asked to re-consent.",
        "Nothing: it heals by itself.",
        _outage,
    ),
    Scene(
        "lost-answer",
        "the provider spends a refresh token, and its answer is lost on the way",
        "Where the provider forgives a repetition nobody notices. Where it does not, that user is asked once: no "
        "client can know what it never received.",
        "Ask the provider for a grace time for spent tokens, and switch it on where it is a setting.",
        _lost_answer,
    ),
    Scene(
        "invalid-client",
        "the provider refuses the client at every token call (a rotated or expired secret)",
        "Those whose token has ended wait for the operator; no grant is lost and nobody is asked to re-consent.",
        "Alert on provider_misconfigured, put in the current secret; say `client_secret_expires_on` for the doctor.",
        _client,
    ),
)
