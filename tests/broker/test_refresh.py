"""A refresh from every side: races, verdicts, lost answers, lost saves."""

from __future__ import annotations

import asyncio
import contextlib
import time
from pathlib import Path
from typing import Any

import pytest

from authproxy.broker.outcome import Ended, Fresh, Later, Want, Wrong
from authproxy.core import config
from authproxy.core.errors import (
    ConnectionExpired,
    ConnectionRequired,
    ProviderMisconfigured,
    ProviderUnavailable,
    ScopeMissing,
    StoreUnavailable,
)
from authproxy.core.model import Environment, State
from authproxy.core.secret import Secret
from authproxy.sandbox import digest_of
from authproxy.store.base import Backend, Transaction
from authproxy.store.sealing import Keyring
from authproxy.store.vault import Vault, open_backend
from tests.broker.house import Broker, House, choice, house_at, key_of

HOUR = 3601.0


def held_at(name: str) -> tuple[Any, asyncio.Event, asyncio.Event]:
    """A failpoint that stops at `name`: the hook, what says that it was reached, and what lets it go on."""
    reached, on = asyncio.Event(), asyncio.Event()

    async def failpoint(point: str) -> None:
        if point == name and not on.is_set():
            reached.set()
            await on.wait()

    return failpoint, reached, on


async def stored_refresh_digest(broker: Broker, user: str = "alice") -> str:
    """As the sandbox names tokens."""
    connection = await broker.vault.find(key_of(user))
    assert connection is not None
    async with asyncio.timeout(10):  # whoever refreshed may still be giving its lease back
        while (leased := await broker.vault.lease(connection.id, holder="test", seconds=5)) is None:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    tokens = await leased.tokens()
    await leased.release()
    assert tokens.refresh_token is not None
    return digest_of(tokens.refresh_token.reveal())


async def sends(broker: Broker) -> int:
    """How often the token of the last refresh that went well had been sent. That is the whole trace of an answer that
    was lost and is forgiven: nobody was told of trouble, so nobody is told of its end (J02)."""
    told = await broker.vault.timeline(key_of())
    assert "connection.recovered" not in [event.kind for event in told]
    attempt: int = [event for event in told if event.kind == "refresh.succeeded"][-1].data["attempt"]
    return attempt


# --- races


@pytest.mark.scenario("A01", "A02")
async def test_a_stampede_at_expiry_is_one_token_call(house: House) -> None:
    broker = await house.broker()
    await house.connect(broker)
    house.clock.push(HOUR)
    tokens = await asyncio.gather(*(broker.token() for _ in range(100)))
    assert {token.generation for token in tokens} == {2}
    assert len(house.sandbox.refreshes()) == 1


@pytest.mark.scenario("A02")
async def test_five_hundred_waiters_await_the_result_not_the_lock(house: House) -> None:
    broker = await house.broker()
    await house.connect(broker)
    house.clock.push(HOUR)
    house.sandbox.hold()
    waiters = [asyncio.create_task(broker.token()) for _ in range(500)]
    await house.sandbox.arrived(2)  # the code's exchange and this one
    began = time.monotonic()
    house.sandbox.release()
    assert {token.generation for token in await asyncio.gather(*waiters)} == {2}
    assert time.monotonic() - began < 2.5
    assert len(house.sandbox.refreshes()) == 1


@pytest.mark.scenario("A03", "A04", "A07", "A32")
async def test_two_brokers_on_one_store_spend_once(house: House) -> None:
    one, other = await house.broker(), await house.broker()
    await house.connect(one)
    house.clock.push(HOUR)
    house.sandbox.hold(after=True)
    first = asyncio.create_task(one.token())
    await house.sandbox.arrived(2)
    second = asyncio.create_task(other.token())
    for _ in range(20):
        await asyncio.sleep(0.01)  # the other polls the lease and must send nothing
    assert len(house.sandbox.refreshes()) == 1
    house.sandbox.release()
    assert (await first).generation == (await second).generation == 2
    assert len(house.sandbox.refreshes()) == 1


@pytest.mark.scenario("A05")
async def test_the_waiter_outlasts_the_lease_that_the_holder_renews(house: House) -> None:
    quick = config.Refresh(lease=2.0, deadline=1.0)
    one, other = await house.broker(refresh=quick), await house.broker(refresh=quick)
    connection = await house.connect(one)
    house.clock.push(HOUR)
    leased = await one.vault.lease(connection.id, holder="wedged", seconds=0.5)
    assert leased is not None
    token = await asyncio.wait_for(other.token(), 10)
    assert token.generation == 2, "a holder that died is taken over when its lease ends"
    assert len(house.sandbox.refreshes()) == 1


@pytest.mark.scenario("A14")
async def test_the_request_that_comes_a_moment_later_finds_the_new_token(house: House) -> None:
    broker = await house.broker()
    connection = await house.connect(broker)
    house.clock.push(HOUR)
    assert (await broker.token()).generation == 2
    # A straggler that had read the old row before: it says what it wants, never a refresh token.
    outcome = await broker.refresher.refresh(key_of(), connection.id, Want(margin=60))
    assert isinstance(outcome, Fresh)
    assert outcome.connection.generation == 2
    outcome = await broker.refresher.refresh(key_of(), connection.id, Want(rejected=1))
    assert isinstance(outcome, Fresh)
    assert len(house.sandbox.refreshes()) == 1


@pytest.mark.scenario("A02")
async def test_a_waiter_takes_the_winners_token_while_the_lease_still_stands(tmp_path: Path) -> None:
    committing, commit, release = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def failpoint(point: str) -> None:
        if point == "before_commit":
            committing.set()
            await commit.wait()
        elif point == "before_release":
            await release.wait()

    async with house_at(tmp_path) as house:
        one, other = await house.broker(failpoint=failpoint), await house.broker()
        await house.connect(one)
        house.clock.push(HOUR)
        first = asyncio.create_task(one.token())
        await committing.wait()
        second = asyncio.create_task(other.token())
        done, _ = await asyncio.wait([second], timeout=0.3)  # it is waiting for the lease by now
        assert not done
        commit.set()
        assert (await asyncio.wait_for(second, 5)).generation == 2
        release.set()
        assert (await first).generation == 2
        assert len(house.sandbox.refreshes()) == 1


@pytest.mark.scenario("A12", "D9")
async def test_the_agent_that_hangs_up_takes_nothing_with_it(house: House) -> None:
    broker = await house.broker()
    await house.connect(broker)
    house.clock.push(HOUR)
    house.sandbox.hold(after=True)
    leader, *others = [asyncio.create_task(broker.token()) for _ in range(11)]
    await house.sandbox.arrived(2)
    leader.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leader
    house.sandbox.release()
    assert {token.generation for token in await asyncio.gather(*others)} == {2}
    assert await stored_refresh_digest(broker) in house.sandbox.live_refresh_digests()


@pytest.mark.scenario("A12")
async def test_a_refresh_that_nobody_waits_for_is_saved(house: House) -> None:
    broker = await house.broker()
    await house.connect(broker)
    house.clock.push(HOUR)
    house.sandbox.hold(after=True)
    asker = asyncio.create_task(broker.token())
    await house.sandbox.arrived(2)
    asker.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asker
    house.sandbox.release()
    assert await broker.refresher.drain(5.0) == 0
    assert (await house.row(broker)).generation == 2
    assert await stored_refresh_digest(broker) in house.sandbox.live_refresh_digests()


@pytest.mark.scenario("A15")
async def test_the_loser_adopts_the_winners_token(house: House) -> None:
    loser = await house.broker()
    connection = await house.connect(loser)
    stale = await loser.vault.lease(connection.id, holder="stale", seconds=0.05)
    assert stale is not None
    before = await stale.tokens()
    house.clock.push(HOUR)
    winner = await house.broker()
    assert (await winner.token()).generation == 2
    # The old token's refusal arrives now: it is a verdict on that token, not on the row.
    digest = loser.vault.digest(before.refresh_token or Secret(""))
    assert not await stale.settle(
        state=State.NEEDS_REAUTH, reason="revoked", presented=digest, clear_intent=True
    )
    assert (await house.row(loser)).state is State.ACTIVE


@pytest.mark.scenario("A15")
@pytest.mark.parametrize("held", ["before_send", "after_response"])
async def test_two_redemptions_without_a_lock_leave_the_winner_in_peace(tmp_path: Path, held: str) -> None:
    """What the lease is there to prevent, made to happen: the loser's refusal, or its late success, changes nothing,
    and its asker is served with the winner's token."""
    failpoint, reached, on = held_at(held)
    kind = {"grace_s": 600, "grace_mode": "sibling"} if held == "after_response" else {}
    async with house_at(tmp_path, **kind) as house:
        house.sandbox.switches.update({"revoke_family_on_reuse": False})
        loser, winner = await house.broker(failpoint=failpoint), await house.broker()
        connection = await house.connect(winner)
        house.clock.push(HOUR)
        asker = asyncio.create_task(loser.token())
        await reached.wait()

        async def unlock(tx: Transaction) -> None:
            await tx.run("UPDATE connections SET lease_until = 0 WHERE id = ?", connection.id)

        await winner.vault.backend.write(unlock)
        won = await winner.token()
        on.set()
        lost = await asker
        assert len(house.sandbox.refreshes()) == 2, "both were sent"
        assert (lost.generation, lost.header) == (won.generation, won.header)
        row = await house.row(winner)
        assert (row.state, row.generation, row.failures) == (State.ACTIVE, 2, 0)
        assert await stored_refresh_digest(winner) in house.sandbox.live_refresh_digests()
        kinds = await house.kinds(winner)
        assert not {"connection.needs_reauth", "connection.rotation_lost", "refresh.failed"} & set(kinds)


@pytest.mark.scenario("A15", "A18")
async def test_an_invalid_grant_after_a_reconnect_kills_nothing(house: House) -> None:
    broker = await house.broker()
    connection = await house.connect(broker)
    house.clock.push(HOUR)
    house.sandbox.revoke_user("alice")
    house.sandbox.switches.update({"delay_after_s": 1.0, "faults_for": "refresh"})
    asker = asyncio.create_task(broker.token())
    await house.sandbox.arrived(2)
    await house.connect(await house.broker())
    token = await asker  # the old grant's refusal came after the new consent
    row = await house.row(broker)
    assert (row.id, row.state) == (connection.id, State.ACTIVE)
    assert token.generation == row.generation
    assert house.sandbox.refreshes()[0].outcome == "invalid_grant"
    assert "connection.needs_reauth" not in await house.kinds(broker)


@pytest.mark.scenario("A18")
async def test_a_disconnect_in_flight_stays_a_disconnect(tmp_path: Path) -> None:
    failpoint, reached, on = held_at("after_response")
    async with house_at(tmp_path) as house:
        broker = await house.broker(failpoint=failpoint)
        connection = await house.connect(broker)
        house.clock.push(HOUR)
        asker = asyncio.create_task(broker.token())
        await reached.wait()
        # Only our copy: so what is dead at the provider afterwards was revoked by who fetched it.
        await broker.vault.disconnect(connection.id, [])
        on.set()
        with pytest.raises(ConnectionRequired):
            await asker
        await broker.refresher.drain(5.0)
        assert await broker.vault.find(key_of()) is None
        assert house.sandbox.live_refresh_digests(), "not yet"
        assert await (await house.broker()).revocations.round() == 1, "owed, and paid by whoever comes"
        assert house.sandbox.live_refresh_digests() == set(), "what was fetched was revoked"


@pytest.mark.scenario("A18", "A20")
async def test_what_was_fetched_for_a_disconnected_grant_is_used_by_nobody(tmp_path: Path) -> None:
    """Also while the store takes nothing, so that it cannot be written down that it is owed."""
    failpoint, reached, on = held_at("before_commit")
    async with house_at(tmp_path) as house:
        backend = Faulty(await open_backend(f"sqlite:///{house.path}"))
        vault = await Vault.open(
            backend,
            keyring=Keyring.parse(house.keys),
            environment=Environment.DEVELOPMENT,
            clock=house.clock.wall,
        )
        broker = await house.broker(vault=vault, failpoint=failpoint)
        connection = await house.connect(broker)
        house.clock.push(HOUR)
        asker = asyncio.create_task(broker.token())
        await reached.wait()
        await (await house.broker()).vault.disconnect(connection.id, [])
        backend.after = 1  # the commit is refused for what it is, and nothing more is written
        on.set()
        with pytest.raises(ProviderUnavailable) as caught:
            await asker
        assert caught.value.reason == "store_unavailable"
        house.clock.push(10)
        with pytest.raises(ConnectionRequired):
            await broker.token()
        backend.broken, backend.after = False, None
        assert await broker.refresher.drain(10.0) == 0
        assert await broker.vault.revocations_pending() == 1, "once, and not once for every try"
        await broker.revocations.round()
        assert house.sandbox.live_refresh_digests() == set()


@pytest.mark.scenario("A18")
async def test_a_reconnect_in_flight_survives(tmp_path: Path) -> None:
    failpoint, reached, on = held_at("after_response")
    async with house_at(tmp_path) as house:
        broker = await house.broker(failpoint=failpoint)
        await house.connect(broker)
        house.clock.push(HOUR)
        asker = asyncio.create_task(broker.token())
        await reached.wait()
        new = await house.connect(await house.broker())
        on.set()
        token = await asker
        assert token.generation == new.generation
        row = await house.row(broker)
        assert (row.grant_id, row.state) == (new.grant_id, State.ACTIVE)
        assert await stored_refresh_digest(broker) in house.sandbox.live_refresh_digests()


@pytest.mark.scenario("A16")
async def test_generation_only_rises(house: House) -> None:
    broker = await house.broker()
    await house.connect(broker)
    seen = []
    for _ in range(4):
        seen.append((await broker.token()).generation)
        house.clock.push(HOUR)
    assert seen == [1, 2, 3, 4]


@pytest.mark.scenario("A22")
async def test_a_spent_token_is_never_sent(house: House) -> None:
    broker = await house.broker()
    connection = await house.connect(broker)
    leased = await broker.vault.lease(connection.id, holder="test", seconds=5)
    assert leased is not None
    old = await leased.tokens()
    await leased.release()
    house.clock.push(HOUR)
    await broker.token()
    # A backup put back: the row holds a token that the store knows to be spent.
    from_backup = await broker.vault.lease(connection.id, holder="test", seconds=5)
    assert from_backup is not None
    await from_backup.commit(old, (), spent=None)
    digest = broker.vault.digest(old.refresh_token or Secret(""))
    await broker.vault.backend.write(_spend_again(connection.id, digest))
    await from_backup.release()
    calls = len(house.sandbox.refreshes())
    house.clock.push(HOUR)
    with pytest.raises(ConnectionExpired) as caught:
        await (await house.broker()).token()
    assert caught.value.reason == "spent_token"
    assert len(house.sandbox.refreshes()) == calls


def _spend_again(connection_id: str, digest: str) -> Any:
    async def work(tx: Transaction) -> None:
        await tx.run(
            "INSERT INTO spent (connection_id, digest, generation) VALUES (?, ?, 3)", connection_id, digest
        )

    return work


# --- what the answer may look like


@pytest.mark.scenario("B01", "B24")
@pytest.mark.parametrize("value", ["normal", "null", "empty", "blank", "same"])
async def test_a_missing_refresh_token_keeps_the_old_one(house: House, value: str) -> None:
    broker = await house.broker()
    await house.connect(broker)
    house.sandbox.switches.update({"refresh_token_value": value})
    for generation in (2, 3):  # two cycles: one alone works with the token lost
        house.clock.push(HOUR)
        assert (await broker.token()).generation == generation
        assert await stored_refresh_digest(broker) in house.sandbox.live_refresh_digests()


@pytest.mark.scenario("B01", "B24")
async def test_an_absent_refresh_token_keeps_the_old_one(house: House) -> None:
    broker = await house.broker()
    await house.connect(broker)
    house.sandbox.switches.update({"omit_refresh_token": True})
    for generation in (2, 3):
        house.clock.push(HOUR)
        assert (await broker.token()).generation == generation
    house.sandbox.switches.update({"omit_refresh_token": False})  # and rotation switched on meanwhile
    house.clock.push(HOUR)
    assert (await broker.token()).generation == 4
    assert await stored_refresh_digest(broker) in house.sandbox.live_refresh_digests()


@pytest.mark.scenario("A19", "B12", "B13", "D23")
@pytest.mark.parametrize(
    "form",
    [
        "missing",
        "string",
        "string_float",
        "float",
        "zero",
        "negative",
        "huge",
        "null",
        "true",
        "empty",
        "word",
    ],
)
async def test_no_form_of_expires_in_loses_the_refresh_token(house: House, form: str) -> None:
    broker = await house.broker()
    await house.connect(broker)
    house.sandbox.switches.update({"expires_in": form})
    house.clock.push(HOUR)
    assert (await broker.token()).generation == 2
    assert await stored_refresh_digest(broker) in house.sandbox.live_refresh_digests()


@pytest.mark.scenario("B12")
async def test_a_lifetime_that_is_not_told_again_is_the_last_one(house: House) -> None:
    broker = await house.broker()
    await house.connect(broker)
    house.sandbox.switches.update({"expires_in": "missing"})
    house.clock.push(HOUR)
    assert (await broker.token()).generation == 2
    house.clock.push(HOUR)
    assert (await broker.token()).generation == 3


@pytest.mark.scenario("A19", "B17")
@pytest.mark.parametrize("echo", ["absent", "reordered", "comma", "array", "superset"])
async def test_scopes_in_any_form_are_taken(house: House, echo: str) -> None:
    broker = await house.broker()
    await house.connect(broker)
    house.sandbox.switches.update({"scope_echo": echo})
    house.clock.push(HOUR)
    token = await broker.token(scopes=("read", "write"))
    assert token.generation == 2
    assert token.scopes >= {"read", "write"}


@pytest.mark.scenario("B17", "J04")
async def test_narrowed_scopes_are_saved_and_said(house: House) -> None:
    broker = await house.broker()
    await house.connect(broker)
    house.sandbox.switches.update({"narrow_scopes_at_refresh": ("read",)})
    house.clock.push(HOUR)
    assert (await broker.token(scopes=("read",))).scopes == {"read"}
    event = next(e for e in await broker.vault.timeline(key_of()) if e.kind == "refresh.succeeded")
    assert event.data["scopes_lost"] == ["write"]


@pytest.mark.scenario("B17")
async def test_what_a_refresh_took_away_is_said_to_the_request_that_asked_for_it(house: House) -> None:
    """And not left to the API's 403: it is the first one to know."""
    broker = await house.broker()
    await house.connect(broker)
    house.sandbox.switches.update({"narrow_scopes_at_refresh": ("read",)})
    house.clock.push(HOUR)
    with pytest.raises(ScopeMissing) as caught:
        await broker.token(scopes=("read", "write"))
    assert caught.value.missing_scopes == ("write",)
    assert (await broker.token(scopes=("read",))).generation == 2
    assert len(house.sandbox.refreshes()) == 1


@pytest.mark.scenario("B19")
@pytest.mark.parametrize("kind", ["bearer", "BEARER", " bearer ", None])
async def test_every_bearer_is_sent_as_Bearer(house: House, kind: str | None) -> None:  # noqa: N802
    house.sandbox.switches.update({"token_type": kind})
    broker = await house.broker()
    await house.connect(broker)
    assert (await broker.token()).header.startswith(b"Bearer ")


@pytest.mark.scenario("B19")
async def test_a_token_of_another_type_is_not_sent_as_bearer(house: House) -> None:
    broker = await house.broker()
    await house.connect(broker)
    house.sandbox.switches.update({"token_type": "DPoP", "rotate": False})
    house.clock.push(HOUR)
    with pytest.raises(ProviderMisconfigured) as caught:
        await broker.token()
    assert caught.value.reason == "token_type"


ODD: list[tuple[dict[str, Any], State]] = [
    ({"token_type": "DPoP"}, State.MISCONFIGURED),
    ({"extra": {"access_token": "two\nlines"}}, State.ACTIVE),
]


@pytest.mark.scenario("A19", "B19")
@pytest.mark.parametrize(("odd", "state"), ODD, ids=["token-type", "access-token"])
async def test_an_access_token_that_is_of_no_use_does_not_cost_the_refresh_token(
    house: House, odd: dict[str, Any], state: State
) -> None:
    """The provider has rotated: what came with it is the only good refresh token there is, and is kept."""
    broker = await house.broker()
    await house.connect(broker)
    house.sandbox.switches.update(odd)
    house.clock.push(3400)
    before = await broker.token()  # within the margin: renewed behind its back, and still good
    await house.sandbox.arrived(2)
    await broker.tokens.drain(5.0)
    row = await house.row(broker)
    assert (row.state, row.generation, row.failures) == (state, 2, 1)
    assert row.expires_at is not None
    assert row.retry_at is not None
    assert await stored_refresh_digest(broker) in house.sandbox.live_refresh_digests()
    other = await house.broker()
    assert (await other.token()).header == before.header, "used to its end"
    for _ in range(3):
        house.clock.push(HOUR)
        with pytest.raises(ProviderMisconfigured if state is State.MISCONFIGURED else ProviderUnavailable):
            await other.token()
        with pytest.raises(ProviderUnavailable):
            await (await house.broker()).token()
    assert len(house.sandbox.refreshes()) == 4, "one at a time, and none in the pause after it"
    house.sandbox.reset()
    house.clock.push(HOUR)
    assert (await other.token()).generation == 6
    kinds = await house.kinds(broker)
    assert kinds.count("connection.misconfigured") == (state is State.MISCONFIGURED)
    assert kinds.count("connection.recovered") == 1


# --- verdicts


@pytest.mark.scenario("B04", "B09", "B11", "D13")
async def test_a_dead_grant_is_said_once_and_costs_nothing_afterwards(house: House) -> None:
    broker = await house.broker()
    await house.connect(broker)
    house.sandbox.revoke_user("alice")
    house.clock.push(HOUR)
    with pytest.raises(ConnectionExpired) as caught:
        await broker.token()
    assert caught.value.connect_url is not None
    assert caught.value.connect_url.startswith("https://auth.example/connect/")
    assert caught.value.retry_after is None
    began = time.perf_counter()
    for _ in range(1000):
        with pytest.raises(ConnectionExpired) as again:
            await broker.token()
    assert (time.perf_counter() - began) / 1000 < 0.005
    assert again.value.connect_url == caught.value.connect_url
    other = await house.broker()
    with pytest.raises(ConnectionExpired):
        await other.token()
    row = await house.row(broker)
    for want in (Want(rejected=row.generation, why="operator"), Want(margin=60), Want(why="over")):
        assert isinstance(await other.refresher.refresh(key_of(), row.id, want), Ended), "whoever asks"
    assert len(house.sandbox.refreshes()) == 1
    kinds = await house.kinds(broker)
    assert kinds.count("connection.needs_reauth") == 1
    assert (await house.row(broker)).state is State.NEEDS_REAUTH


@pytest.mark.scenario("B06", "B07", "B08", "B27")
@pytest.mark.parametrize(
    "fault",
    [
        {"status": 500, "error": "server_error"},
        {"status": 503, "html": True},
        {"status": 404, "html": True},
        {"status": 400, "html": True},
        {"status": 302, "html": True},
        {"html": True, "status": 200},
        {"empty": True},
        {"body": "{}", "content_type": "application/json"},
        {"body": "[]", "content_type": "application/json"},
        {"body": '"ok"', "content_type": "application/json"},
        {"status": 429, "error": "slow_down"},
        {"drop": "before"},
    ],
    ids=lambda fault: "-".join(f"{k}={v}" for k, v in fault.items()),
)
async def test_what_may_pass_changes_only_counters(house: House, fault: dict[str, Any]) -> None:
    broker = await house.broker()
    await house.connect(broker)
    before = await house.row(broker)
    digest = await stored_refresh_digest(broker)
    house.sandbox.switches.update(fault)
    house.clock.push(HOUR)
    with pytest.raises(ProviderUnavailable) as caught:
        await broker.token()
    assert caught.value.retry_after is not None
    assert caught.value.retry_after >= 1
    after = await house.row(broker)
    for name in ("state", "reason", "generation", "grant_id", "scopes", "expires_at", "refreshable"):
        assert getattr(after, name) == getattr(before, name)
    assert after.failures == 1
    assert await stored_refresh_digest(broker) == digest
    house.sandbox.reset()
    house.clock.push(70)
    assert (await broker.token()).generation == 2


@pytest.mark.scenario("B16")
async def test_a_clock_set_back_does_not_put_the_next_try_off(house: House) -> None:
    broker = await house.broker()
    await house.connect(broker)
    house.sandbox.switches.update({"status": 500, "error": "server_error"})
    house.clock.push(HOUR)
    with pytest.raises(ProviderUnavailable):
        await broker.token()
    house.sandbox.reset()
    house.clock.push(70)
    house.clock.ahead -= 24 * HOUR
    usable = await broker.token()  # good by this clock, though not by the provider's
    newer = await broker.tokens.renew(key_of(), usable, agent="worker")
    assert newer is not None
    assert newer.generation == 2


@pytest.mark.scenario("B10")
@pytest.mark.parametrize(
    ("said", "wait"), [("40", 40), ("absurd", 1), ("1000000000", 3600), ("-5", 1), (None, 1)]
)
async def test_retry_after_is_kept_by_everybody(house: House, said: str | None, wait: int) -> None:
    broker = await house.broker()
    await house.connect(broker)
    house.sandbox.switches.update({"status": 429, "error": "slow_down", "retry_after": said})
    house.clock.push(HOUR)
    refusals = await asyncio.gather(*(broker.token() for _ in range(50)), return_exceptions=True)
    assert all(isinstance(one, ProviderUnavailable) for one in refusals)
    assert len(house.sandbox.refreshes()) == 1
    row = await house.row(broker)
    assert row.retry_at is not None
    assert wait - 1 <= row.retry_at - house.clock.wall() <= wait + 2
    other = await house.broker()
    with pytest.raises(ProviderUnavailable):
        await other.token()
    assert len(house.sandbox.refreshes()) == 1, "another replica reads it in the row"
    house.sandbox.reset()
    house.clock.push(wait + 3)
    assert (await broker.token()).generation == 2


@pytest.mark.scenario("B10")
async def test_a_rate_limited_client_is_left_alone_for_all_its_connections(house: House) -> None:
    broker = await house.broker()
    await house.connect(broker, "alice")
    await house.connect(broker, "bob")
    house.sandbox.switches.update({"status": 429, "error": "slow_down", "retry_after": "30"})
    house.clock.push(HOUR)
    for user in ("alice", "bob"):
        with pytest.raises(ProviderUnavailable):
            await broker.token(user)
    assert len(house.sandbox.refreshes()) == 1
    house.sandbox.switches.update({"faults_for": "refresh"})
    await house.connect(broker, "carol")  # exchanging a code stays allowed


@pytest.mark.scenario("C05", "B25")
async def test_a_refused_client_is_the_operators_matter(house: House) -> None:
    broker = await house.broker()
    for user in ("alice", "bob", "carol"):
        await house.connect(broker, user)
    house.sandbox.switches.update({"invalid_client": True})
    house.clock.push(HOUR)
    for user in ("alice", "bob", "carol", "alice"):
        with pytest.raises(ProviderMisconfigured):
            await broker.token(user)
    assert len(house.sandbox.refreshes()) == 1, "one call was enough to know"
    assert {(await house.row(broker, user)).state for user in ("bob", "carol")} == {State.ACTIVE}
    assert (await house.kinds(broker)).count("connection.misconfigured") == 1
    house.sandbox.reset()
    # The operator mends the secret and reloads: healed at once, without waiting out the circuit.
    broker.configure(
        providers={
            "acme": choice(
                house.sandbox.base_url, client_secret=Secret("CANARY-client-secret-3b1f"), scopes=("read",)
            ),
        }
    )
    house.clock.push(70)
    for user in ("alice", "bob", "carol"):
        assert (await broker.token(user)).generation == 2
    assert "connection.recovered" in await house.kinds(broker)
    assert (await house.row(broker)).state is State.ACTIVE


@pytest.mark.scenario("C05")
async def test_a_new_secret_heals_without_waiting(house: House) -> None:
    broker = await house.broker(providers={"acme": choice(house.sandbox.base_url)})
    await house.connect(broker)
    broker.configure(providers={"acme": choice(house.sandbox.base_url, client_secret=Secret("CANARY-wrong"))})
    house.clock.push(HOUR)
    with pytest.raises(ProviderMisconfigured):
        await broker.token()
    broker.configure(providers={"acme": choice(house.sandbox.base_url)})
    assert (await broker.token()).generation == 2


@pytest.mark.scenario("C04")
async def test_another_client_never_gets_the_grants_token(house: House) -> None:
    broker = await house.broker()
    await house.connect(broker)
    broker.configure(providers={"acme": choice(house.sandbox.base_url, client_id="somebody-else")})
    assert (await broker.token()).generation == 1, "the access token is still good"
    house.clock.push(HOUR)
    for _ in range(3):
        with pytest.raises(ProviderMisconfigured) as caught:
            await broker.token()
    assert caught.value.reason == "client_changed"
    assert house.sandbox.refreshes() == []
    row = await house.row(broker)
    assert (row.state, row.reason) == (State.MISCONFIGURED, "client_changed")
    assert (await house.kinds(broker)).count("connection.misconfigured") == 1
    broker.configure(providers={"acme": choice(house.sandbox.base_url)})
    assert (await broker.token()).generation == 2


@pytest.mark.scenario("C11")
async def test_an_incomplete_client_touches_no_row(house: House) -> None:
    broker = await house.broker()
    await house.connect(broker)
    before = await house.row(broker)
    broker.configure(providers={"acme": choice(house.sandbox.base_url, client_secret=None)})
    house.clock.push(HOUR)
    with pytest.raises(ProviderMisconfigured):
        await broker.token()
    assert await house.row(broker) == before
    assert house.sandbox.refreshes() == []


@pytest.mark.scenario("A29")
async def test_a_second_owner_is_suspected(house: House) -> None:
    broker = await house.broker()
    await house.connect(broker)
    house.clock.push(HOUR)
    token = await broker.token()
    house.sandbox.switches.update({"error": "invalid_grant", "status": 400})
    house.clock.push(40)
    assert await broker.grants.refresh(token.connection_id, tenant=None) == Ended(await house.row(broker))
    row = await house.row(broker)
    assert row.reason == "reused_elsewhere_suspected"
    assert b'reuse_suspected_total{provider="acme"} 1.0' in broker.metrics.exposition({})


@pytest.mark.scenario("B27")
@pytest.mark.parametrize(
    ("fault", "kind", "state"),
    [
        ({}, Fresh, State.ACTIVE),
        ({"status": 500}, Later, State.ACTIVE),
        ({"drop": "before"}, Later, State.ACTIVE),
        ({"delay_s": 30.0}, Later, State.ACTIVE),
        ({"invalid_client": True}, Wrong, State.MISCONFIGURED),
        ({"error": "invalid_grant", "status": 400}, Ended, State.NEEDS_REAUTH),
    ],
    ids=["good", "500", "drop", "timeout", "client", "grant"],
)
async def test_asking_for_a_refresh_downgrades_nothing(
    house: House, fault: dict[str, Any], kind: type, state: State
) -> None:
    """The state changes with an outcome alone, and a token that is good goes on being served."""
    broker = await house.broker(refresh=config.Refresh(deadline=0.5 if "delay_s" in fault else 10.0))
    connection = await house.connect(broker)
    house.sandbox.switches.update(fault)
    house.sandbox.hold()
    asking = asyncio.create_task(broker.grants.refresh(connection.id, tenant="default"))
    await house.sandbox.arrived(2)
    assert (await house.row(broker)).state is State.ACTIVE, "while nobody knows"
    house.sandbox.release()
    assert isinstance(await asking, kind)
    assert (await house.row(broker)).state is state
    if kind is Ended:
        return
    assert (await broker.token()).header.startswith(b"Bearer ")


@pytest.mark.scenario("B27", "A12")
async def test_an_operator_who_breaks_off_downgrades_nothing(house: House) -> None:
    broker = await house.broker()
    connection = await house.connect(broker)
    house.sandbox.hold(after=True)
    asking = asyncio.create_task(broker.grants.refresh(connection.id, tenant="default"))
    await house.sandbox.arrived(2)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    house.sandbox.release()
    assert await broker.refresher.drain(5.0) == 0
    row = await house.row(broker)
    assert (row.state, row.generation) == (State.ACTIVE, 2)


@pytest.mark.scenario("B29")
@pytest.mark.parametrize("zone", ["Pacific/Kiritimati", "America/Los_Angeles", "Europe/Berlin"])
async def test_no_time_zone_moves_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, zone: str) -> None:
    """Neither born expired nor good for hours after its end, east or west; in the night of a change of the clock too,
    as the wall clock here is pushed over one."""
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        async with house_at(tmp_path) as house:
            change = 1_804_899_600  # 2027-03-14T09:00Z, and in Berlin two weeks later
            broker = await house.broker(refresh=config.Refresh(margin=0))
            for moment in (change - 1800, change - 1800 + 14 * 86400, 1_811_000_000):
                house.clock.push(moment - house.clock.wall())
                row = await house.connect(broker)
                assert row.expires_at is not None
                assert abs(row.expires_at - house.clock.wall() - 3600) < 5
                generation, calls = row.generation, len(house.sandbox.refreshes())
                house.clock.push(3580)
                assert (await broker.token()).generation == generation
                assert len(house.sandbox.refreshes()) == calls, "good until its end"
                house.clock.push(30)
                assert (await broker.token()).generation == generation + 1
                assert (await house.row(broker)).expires_at == pytest.approx(house.clock.wall() + 3600, abs=5)
                assert await broker.keeper.due() == []
    finally:
        monkeypatch.undo()
        time.tzset()


# --- lost answers


@pytest.mark.scenario("A09", "A08")
async def test_a_lost_answer_is_asked_for_again_until_the_rotation_is_told_as_lost(tmp_path: Path) -> None:
    async with house_at(tmp_path) as house:
        broker = await house.broker()
        await house.connect(broker)
        house.sandbox.switches.update({"drop": "after", "faults_for": "refresh"})
        house.clock.push(3400)  # within the margin: the token is still good
        assert (await broker.token()).generation == 1
        await house.sandbox.arrived(2)
        await broker.tokens.drain(5.0)
        row = await house.row(broker)
        assert (row.state, row.failures) == (State.ACTIVE, 1)
        assert (row.last_error or "").startswith("maybe_sent:")
        later = await house.broker()
        house.clock.push(30)
        assert (await later.token()).generation == 1
        await house.sandbox.arrived(3)
        await later.tokens.drain(5.0)
        row = await house.row(broker)
        assert (row.state, row.failures) == (State.ACTIVE, 2), "no answer is no verdict"
        house.sandbox.switches.update({"drop": "no"})
        house.clock.push(30)
        told = await house.broker()
        assert (await told.token()).generation == 1
        await house.sandbox.arrived(4)
        await told.tokens.drain(5.0)
        row = await house.row(broker)
        assert (row.state, row.reason) == (State.ROTATION_LOST, "rotation_lost")
        third = await house.broker()
        house.clock.push(30)
        assert (await third.token()).generation == 1, "the access token is used to its end"
        house.clock.push(HOUR)
        with pytest.raises(ConnectionExpired) as caught:
            await third.token()
        assert caught.value.reason == "rotation_lost"
        assert len(house.sandbox.refreshes()) == 3
        kinds = await house.kinds(broker)
        assert kinds.count("connection.rotation_lost") == 1


DOUBTFUL: list[dict[str, Any]] = [
    {"status": 504, "html": True},  # a gateway, which does not know what became of the call behind it
    {"status": 502, "empty": True},
    {"status": 500, "error": "server_error"},
    {"status": 200, "html": True},
    {"body": '{"access_token": "cut of', "content_type": "application/json"},
    {"body": "{}", "content_type": "application/json"},
]
DECLINED: list[dict[str, Any]] = [
    {"status": 429, "error": "slow_down"},
    {"status": 503, "error": "temporarily_unavailable"},
    {"status": 403, "html": True},  # a firewall
    {"status": 302, "html": True},
]


@pytest.mark.scenario("A09", "A23")
@pytest.mark.parametrize("fault", DOUBTFUL, ids=str)
@pytest.mark.parametrize("grace", [0, 600])
async def test_an_answer_that_leaves_open_what_was_done_is_as_good_as_none(
    tmp_path: Path, fault: dict[str, Any], grace: int
) -> None:
    """The server rotates, and what arrives is a gateway's page. If it forgives, nobody notices; if it does not, the
    user is asked with the true reason: not "the provider has ended the grant", and not "somebody else has it"."""
    async with house_at(tmp_path, grace_s=grace) as house:
        broker = await house.broker()
        await house.connect(broker)
        house.clock.push(HOUR)
        await broker.token()  # minutes ago: a refusal now would look like a second owner (A29)
        house.clock.push(HOUR)
        house.sandbox.switches.update(fault | {"work_first": True, "next_calls": 1, "faults_for": "refresh"})
        with pytest.raises(ProviderUnavailable):
            await broker.token()
        assert (await house.row(broker)).state is State.ACTIVE
        house.clock.push(70)
        later = await house.broker()  # another process: what is known of it is on disk
        if grace:
            assert (await later.token()).generation == 3
            assert await stored_refresh_digest(later) in house.sandbox.live_refresh_digests()
            return
        with pytest.raises(ConnectionExpired) as caught:
            await later.token()
        assert caught.value.reason == "rotation_lost"
        kinds = await house.kinds(later)
        assert kinds.count("connection.rotation_lost") == 1
        assert "connection.needs_reauth" not in kinds


@pytest.mark.scenario("A09", "B08")
@pytest.mark.parametrize("fault", DECLINED, ids=str)
async def test_an_answer_that_declines_leaves_no_doubt(house: House, fault: dict[str, Any]) -> None:
    """What comes afterwards is a verdict on the grant, and told as one."""
    broker = await house.broker()
    await house.connect(broker)
    house.clock.push(HOUR)
    house.sandbox.switches.update(fault | {"next_calls": 1, "faults_for": "refresh"})
    with pytest.raises(ProviderUnavailable):
        await broker.token()
    house.sandbox.revoke_user("alice")
    house.clock.push(70)
    with pytest.raises(ConnectionExpired) as caught:
        await broker.token()
    assert caught.value.reason == "unknown"
    assert "connection.needs_reauth" in await house.kinds(broker)


@pytest.mark.scenario("A09", "B21")
async def test_a_server_that_may_still_be_at_it_is_not_asked_beside_itself(house: House) -> None:
    """An answer that was cut off is over. One that did not come in time may be on its way: two calls at once with one
    token are a reuse, whatever becomes of the first."""
    broker = await house.broker(refresh=config.Refresh(deadline=2.0, backoff=0.1, backoff_max=0.2))
    await house.connect(broker)
    house.sandbox.switches.update({"delay_s": 3.0, "next_calls": 1, "faults_for": "refresh"})
    house.clock.push(HOUR)
    with pytest.raises(ProviderUnavailable) as caught:
        await broker.token()
    assert caught.value.reason == "maybe_sent:timeout"
    row = await house.row(broker)
    assert row.retry_at is not None
    assert row.retry_at - house.clock.wall() > 1.0, "as long again as it was waited for"
    while len(house.sandbox.refreshes()) < 2:
        with contextlib.suppress(ProviderUnavailable, ConnectionExpired):
            await broker.token()
        await asyncio.sleep(0.05)  # asks all the while, as agents do
    first, second = house.sandbox.refreshes()
    assert first.ended_at is not None
    assert second.at >= first.ended_at


@pytest.mark.scenario("A09")
async def test_a_lost_answer_that_was_no_rotation_recovers(house: House) -> None:
    broker = await house.broker()
    await house.connect(broker)
    house.sandbox.switches.update({"drop": "before", "faults_for": "refresh", "next_calls": 1})
    house.clock.push(HOUR)
    with pytest.raises(ProviderUnavailable):
        await broker.token()
    house.clock.push(30)
    assert (await broker.token()).generation == 2
    assert await sends(broker) == 2


@pytest.mark.scenario("A09", "A23")
@pytest.mark.parametrize("mode", ["same_successor", "sibling"])
async def test_a_replay_window_recovers_without_a_human(tmp_path: Path, mode: str) -> None:
    async with house_at(tmp_path, grace_s=600, grace_mode=mode) as house:
        broker = await house.broker()
        await house.connect(broker)
        house.sandbox.switches.update({"drop": "after", "faults_for": "refresh", "next_calls": 1})
        house.clock.push(HOUR)
        with pytest.raises(ProviderUnavailable):
            await broker.token()
        house.clock.push(30)
        assert (await broker.token()).generation == 2
        assert await stored_refresh_digest(broker) in house.sandbox.live_refresh_digests()


@pytest.mark.scenario("A09", "A23")
@pytest.mark.parametrize("mode", ["same_successor", "sibling"])
async def test_a_known_replay_window_is_used_at_once(tmp_path: Path, mode: str) -> None:
    async with house_at(tmp_path, grace_s=600, grace_mode=mode, iss="missing") as house:
        windowed = choice(house.sandbox.base_url, catalogue="xero")
        broker = await house.broker(providers={"acme": windowed})
        assert broker.registrations.resting("acme").replay_window > 0
        await house.connect(broker)
        house.sandbox.switches.update({"drop": "after", "faults_for": "refresh", "next_calls": 1})
        house.clock.push(HOUR)
        assert (await broker.token()).generation == 2, "the asker saw nothing of it"
        assert len(house.sandbox.refreshes()) == 2
        assert await sends(broker) == 2


@pytest.mark.scenario("A08", "A10")
async def test_a_second_try_that_was_never_sent_does_not_count(house: House) -> None:
    broker = await house.broker()
    await house.connect(broker)
    house.sandbox.switches.update({"drop": "before", "faults_for": "refresh", "next_calls": 1})
    house.clock.push(HOUR)
    with pytest.raises(ProviderUnavailable):
        await broker.token()
    good = broker.settings.providers
    nowhere = config.Endpoints(token="http://127.0.0.1:9/token")
    for _ in range(3):
        broker.configure(providers={"acme": choice(house.sandbox.base_url, endpoints=nowhere)})
        house.clock.push(100)
        with pytest.raises(ProviderUnavailable):
            await broker.token()
    house.sandbox.switches.update({"status": 503, "next_calls": 1})
    broker.configure(providers=good)
    house.clock.push(100)
    with pytest.raises(ProviderUnavailable):
        await broker.token()
    assert (await house.row(broker)).state is State.ACTIVE
    house.clock.push(100)
    assert (await broker.token()).generation == 2


@pytest.mark.scenario("A09", "A26")
async def test_a_silent_provider_costs_few_connections_their_one_retry(house: House) -> None:
    broker = await house.broker()
    users = [f"user{n}" for n in range(20)]
    for user in users:
        await house.connect(broker, user)
    house.sandbox.switches.update({"drop": "after", "faults_for": "refresh"})
    house.clock.push(HOUR)
    for _ in range(4):
        await asyncio.gather(*(broker.token(user) for user in users), return_exceptions=True)
        house.clock.push(5)
    lost = [user for user in users if (await house.row(broker, user)).state is State.ROTATION_LOST]
    assert len(lost) <= 4, "an outage of the provider must not cost the whole fleet its grants"


# --- lost saves


class Faulty:
    """A real store whose commits of new tokens can be made to fail."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self.broken = False
        self.after: int | None = None  # so many writes still work
        self.failing = asyncio.Event()

    async def read(self, sql: str, *values: Any) -> Any:
        return await self._backend.read(sql, *values)

    async def write(self, work: Any) -> Any:
        if self.after is not None:
            self.after -= 1
            self.broken = self.after < 0
        if self.broken:
            self.failing.set()
            raise StoreUnavailable("the disk is full", reason="test")
        return await self._backend.write(work)

    async def describe(self) -> Any:
        return await self._backend.describe()

    async def close(self) -> None:
        await self._backend.close()


@pytest.mark.scenario("A20", "A21", "D7")
async def test_a_rotation_that_cannot_be_saved_is_held_used_and_saved_later(tmp_path: Path) -> None:
    async with house_at(tmp_path) as house:
        backend = Faulty(await open_backend(f"sqlite:///{house.path}"))
        vault = await Vault.open(
            backend,
            keyring=Keyring.parse(house.keys),
            environment="development",
            clock=house.clock.wall,  # type: ignore[arg-type]
        )

        async def failpoint(point: str) -> None:
            if point == "after_response":
                backend.broken = True

        broker = await house.broker(vault=vault, failpoint=failpoint)
        await house.connect(broker)
        house.clock.push(HOUR)
        token = await broker.token()
        assert backend.failing.is_set()
        assert token.generation == 2
        for _ in range(50):
            house.clock.push(1)  # beyond any leash
            assert (await broker.token()).header == token.header
        assert b"authproxy_unpersisted_rotations 1.0" in broker.metrics.exposition({})
        other = await house.broker()
        connection = await house.row(other)
        assert connection.generation == 1
        assert await other.vault.lease(connection.id, holder="other", seconds=1) is None, "the lease is kept"
        assert await broker.refresher.drain(0.05) == 1, "there is still something to lose"
        backend.broken = False
        assert await broker.refresher.drain(10.0) == 0
        assert (await house.row(other)).generation == 2
        assert await stored_refresh_digest(other) in house.sandbox.live_refresh_digests()
        assert b"authproxy_unpersisted_rotations 0.0" in broker.metrics.exposition({})
        assert len(house.sandbox.refreshes()) == 1


@pytest.mark.scenario("A20", "B28")
async def test_a_held_rotation_is_used_although_the_old_token_looks_good(tmp_path: Path) -> None:
    async with house_at(tmp_path, revoke_old_access=True) as house:
        backend = Faulty(await open_backend(f"sqlite:///{house.path}"))
        vault = await Vault.open(
            backend,
            keyring=Keyring.parse(house.keys),
            environment=Environment.DEVELOPMENT,
            clock=house.clock.wall,
        )

        async def failpoint(point: str) -> None:
            if point == "after_response":
                backend.broken = True

        broker = await house.broker(vault=vault, failpoint=failpoint)
        await house.connect(broker)
        house.clock.push(3400)
        old = await broker.token()
        await backend.failing.wait()
        await asyncio.gather(*broker.tokens._aheads._running.values())
        house.clock.push(20)  # the row still has the old token, which the provider has ended
        newer = await broker.token()
        assert newer.generation == old.generation + 1
        assert await broker.tokens.renew(key_of(), old, agent="worker") == newer
        backend.broken = False


@pytest.mark.scenario("A07", "D6", "N5")
async def test_without_the_lease_nothing_is_sent(tmp_path: Path) -> None:
    async with house_at(tmp_path) as house:
        backend = Faulty(await open_backend(f"sqlite:///{house.path}"))
        vault = await Vault.open(
            backend,
            keyring=Keyring.parse(house.keys),
            environment="development",
            clock=house.clock.wall,  # type: ignore[arg-type]
        )
        broker = await house.broker(vault=vault)
        await house.connect(broker)
        backend.broken = True
        assert (await broker.token()).generation == 1
        house.clock.push(HOUR)
        with pytest.raises(StoreUnavailable):
            await broker.token()
        assert house.sandbox.refreshes() == []


@pytest.mark.scenario("A21")
async def test_shutdown_waits_for_the_answer(house: House) -> None:
    broker = await house.broker()
    await house.connect(broker)
    house.clock.push(HOUR)
    house.sandbox.hold(after=True)
    asker = asyncio.create_task(broker.token())
    await house.sandbox.arrived(2)
    draining = asyncio.create_task(broker.refresher.drain(20.0))
    await asyncio.sleep(0)
    assert not draining.done()
    house.sandbox.release()
    assert await draining == 0
    assert (await asker).generation == 2
    assert (await house.row(broker)).generation == 2


@pytest.mark.scenario("J04", "F03")
async def test_every_outcome_is_written_down_without_a_token(
    house: House, capsys: pytest.CaptureFixture[str]
) -> None:
    broker = await house.broker()
    await house.connect(broker)
    echo = '{"error": "invalid_grant", "error_description": "CANARY-echo", "error_uri": "CANARY-echo"}'
    house.sandbox.switches.update({"body": echo, "status": 400, "content_type": "application/json"})
    house.clock.push(HOUR)
    with pytest.raises(ConnectionExpired) as caught:
        await broker.token()
    events = {event.kind: event.data for event in await broker.vault.timeline(key_of())}
    data = events["refresh.failed"]
    assert {
        "generation",
        "verdict",
        "code",
        "reason",
        "status",
        "attempt",
        "decision",
        "digest",
    } <= data.keys()
    assert (data["code"], data["status"], data["attempt"], data["decision"]) == (
        "invalid_grant",
        400,
        1,
        "ask the user",
    )
    assert len(data["digest"]) == 8
    written = capsys.readouterr()
    texts = [repr(events), written.out, written.err, repr(caught.value), str(caught.value.problem())]
    for secret in [*house.sandbox.issued_tokens(), "CANARY"]:
        assert not any(secret in text for text in texts)
