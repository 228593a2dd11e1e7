"""What a scene would say of a worse proxy: its promises are not kept by looking away."""

from __future__ import annotations

from collections.abc import AsyncIterator

import aiohttp
import pytest

from authproxy.core.config import Refresh
from authproxy.rehearsal import Ground, Timing
from authproxy.rehearsal.answers import Answer
from authproxy.rehearsal.play import Play
from authproxy.sandbox import Sandbox, Settings

CLIENT = {"client_id": "authproxy-demo", "client_secret": "authproxy-demo-secret"}


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    sandbox = Sandbox(Settings())
    await sandbox.start(port=0)
    yield sandbox
    await sandbox.close()


@pytest.fixture
async def play(sandbox: Sandbox) -> AsyncIterator[Play]:
    async with aiohttp.ClientSession() as http:
        base = sandbox.base_url
        ground = Ground(http, [base], base, base, "/api", "sandbox", ("read",), Timing.of(Refresh()), {})
        play = Play(ground, "scene", "run", 1)
        play.users = ["alice"]
        yield play


async def refresh(play: Play, token: str) -> int:
    form = {"grant_type": "refresh_token", "refresh_token": token, **CLIENT}
    async with play.ground.http.post(f"{play.ground.sandbox}/token", data=form) as answer:
        return answer.status


async def test_a_double_spend_is_seen(play: Play, sandbox: Sandbox) -> None:
    token = sandbox.give("alice")["refresh_token"]
    assert await refresh(play, token) == 200
    assert await play.violations() == []
    assert await refresh(play, token) == 400
    assert [one["kind"] for one in await play.violations()] == ["double_spend"]


async def test_a_hammered_dead_grant_is_seen(play: Play, sandbox: Sandbox) -> None:
    token = sandbox.give("alice")["refresh_token"]
    sandbox.revoke_user("alice")
    for _ in range(3):
        assert await refresh(play, token) == 400
    assert [one["kind"] for one in await play.violations()] == ["dead_again", "dead_again"]


async def test_token_calls_are_counted_since_the_last_look(play: Play, sandbox: Sandbox) -> None:
    for _ in range(2):
        await refresh(play, sandbox.give("alice")["refresh_token"])
    play.at_most(await play.spent(), 1, "one")
    play.at_most(await play.spent(), 0, "no more")
    assert [one.kept for one in play.promises] == [False, True]


async def test_other_users_of_the_sandbox_are_not_ours(play: Play, sandbox: Sandbox) -> None:
    token = sandbox.give("bob")["refresh_token"]
    for _ in range(2):
        await refresh(play, token)
    assert (await play.spent(), await play.violations()) == (0, [])


@pytest.mark.parametrize(
    ("answer", "kind", "words"),
    [
        (Answer("a", 200), "served", "served"),
        (Answer("a", 201, attempts=2), "served", "served after one retry"),
        (Answer("a", 401), "passed:401", "the API's own 401"),
        (
            Answer("a", 403, "scope_missing", "ask_user"),
            "consent:scope_missing",
            "asked to re-consent (scope_missing)",
        ),
        (
            Answer("a", 503, "provider_unavailable", "retry_later"),
            "refused:provider_unavailable",
            "refused: provider_unavailable",
        ),
        (Answer("a", 0), "no answer", "no answer"),
    ],
)
def test_what_an_agent_got_in_words(answer: Answer, kind: str, words: str) -> None:
    assert (answer.kind, answer.words) == (kind, words)


async def test_an_unexpected_answer_breaks_the_promise(play: Play) -> None:
    play.saw([Answer("a", 200), Answer("a", 401)], {"served"}, "all are served")
    (promise,) = play.promises
    assert (promise.kept, promise.found) == (False, "1 served, 1 the API's own 401")
