"""Refreshes ahead of time: spread out, polite, in good time for idle grants, and no more than are wanted."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from authproxy.broker.keeper import chance
from authproxy.broker.lane import SUSPECT
from authproxy.control.explain import explain
from authproxy.core import config
from authproxy.core.causes import Party
from authproxy.core.errors import ConnectionExpired
from authproxy.core.model import Connection, Environment, NewGrant, State, TokenSet
from authproxy.core.secret import Secret
from authproxy.store.sealing import Keyring
from authproxy.store.vault import Vault
from tests.broker.house import CLIENT_ID, Broker, Clock, House, choice, configuration, house_at, key_of
from tests.broker.mill import Mill

DAY = 86400


def refreshes(house: House) -> int:
    return len(house.sandbox.refreshes())


async def story(broker: Broker, user: str = "alice") -> str:
    key = key_of(user)
    connection = await broker.vault.find(key)
    told = explain(key, connection, await broker.vault.timeline(key), now=int(broker.clock.wall()))
    return "\n".join([*(line.text for line in told.lines), told.standing, told.advice, told.act])


# --- spread out


class Fleet:
    """Many connections that were made in the same second, in a store in memory."""

    def __init__(self, broker: Broker, mill: Mill, ends: int) -> None:
        self.broker = broker
        self.mill = mill
        self.ends = ends
        self.made: list[Connection] = []


@pytest.fixture
async def fleet() -> AsyncIterator[Fleet]:
    clock = Clock()
    mill = Mill(clock.wall)
    await mill.start()
    vault = await Vault.open(
        "sqlite://", keyring=Keyring.passing(), environment=Environment.DEVELOPMENT, clock=clock.wall
    )
    broker = Broker(vault, clock, configuration(mill.url))
    made = int(clock.wall())
    it = Fleet(broker, mill, made + 3600)
    for number in range(5000):
        tokens = TokenSet(Secret(f"a{number}"), Secret(f"r{number}"), made + 3600, lifetime=3600)
        key = key_of(f"user{number}")
        it.made.append(
            await vault.keep_grant(NewGrant(key, CLIENT_ID, f"g{number}", tokens, ("read",), None, made), [])
        )
    yield it
    await broker.close()
    await vault.close()
    await mill.close()


@pytest.mark.scenario("A28")
@pytest.mark.timeout(180)
async def test_what_ends_together_is_not_renewed_together(fleet: Fleet) -> None:
    broker, mill, clock = fleet.broker, fleet.mill, fleet.broker.clock
    settings = broker.settings.refresh
    opens = fleet.ends - settings.margin - settings.window

    # Where each stands in the window: evenly, and nowhere outside.
    clock.push(opens + settings.window + 1 - clock.wall())
    when = [one.at for one in await broker.keeper.due()]
    assert len(when) == 5000
    assert opens <= min(when)
    assert max(when) <= fleet.ends - settings.margin
    tenths = [0] * 10
    for at in when:
        tenths[min(9, int((at - opens) / settings.window * 10))] += 1
    assert max(tenths) < 1.25 * 500

    # Walked through from the window's begin: a tenth of the window, a tenth of the calls.
    clock.push(opens - clock.wall())
    until = opens + settings.window / 10
    while clock.wall() < until:
        await broker.keeper.round()
        clock.push(5)
    assert 350 <= len(mill.at) <= 650
    assert mill.most <= settings.concurrency
    for begin in range(len(mill.at)):
        within = sum(1 for at in mill.at[begin:] if at < mill.at[begin] + 1)
        assert within <= settings.rate + settings.concurrency, "the bucket, and what it holds at most"


@pytest.mark.scenario("A28")
@pytest.mark.timeout(180)
async def test_a_cold_start_is_no_storm(fleet: Fleet) -> None:
    clock, mill, window = fleet.broker.clock, fleet.mill, fleet.broker.settings.refresh.window
    clock.push(3 * 3600)  # all 5,000 tokens ended hours ago, and only now a process comes up
    broker = Broker(fleet.broker.vault, clock, fleet.broker.settings)
    began = clock.wall()
    assert await broker.keeper.round() < 30
    while clock.wall() < began + window / 20:
        await broker.keeper.round()
        clock.push(5)
    assert len(mill.at) <= 5000 / 10
    assert mill.most <= broker.settings.refresh.concurrency
    assert {one.at >= began for one in await broker.keeper.due()} <= {True}
    await broker.close()


async def test_its_place_in_the_window_is_the_connection_s_own() -> None:
    """The same in every process and after every start; another after every refresh."""
    assert chance("con_1", 4) == chance("con_1", 4)
    assert len({chance("con_1", generation) for generation in range(100)}) == 100
    assert all(0 <= chance(f"con_{n}", 1) < 1 for n in range(1000))


@pytest.mark.scenario("A28")
async def test_a_request_goes_first(house: House) -> None:
    """While alice waits for her token, bob's refresh, which nobody waits for, waits."""
    broker = await house.broker()
    await house.connect(broker, "alice")
    await house.connect(broker, "bob")
    house.clock.push(3700)
    waits = []

    async def pause(seconds: float) -> None:
        waits.append(refreshes(house))
        if len(waits) >= 3:
            house.sandbox.release()
            await asked
        await house.clock.pass_by(seconds)

    broker.keeper._pause = pause
    house.sandbox.hold()
    asked = asyncio.create_task(broker.token("alice"))
    await house.sandbox.arrived(3)
    await broker.keeper.round()
    assert set(waits[:3]) == {1}, "only alice's had been sent"
    assert [call.user for call in house.sandbox.refreshes()] == ["alice", "bob"]
    assert {(await house.row(broker, user)).generation for user in ("alice", "bob")} == {2}


@pytest.mark.scenario("A28", "A03")
async def test_replicas_share_the_work_and_none_is_done_twice(house: House) -> None:
    brokers = [await house.broker() for _ in range(3)]
    for number in range(12):
        await house.connect(brokers[0], f"user{number}")
    for one in brokers:  # each says that it is there
        await one.keeper.round()
    parts = [
        set(await one.vault.share("keeper", 16, holder=one.keeper._holder, seconds=60)) for one in brokers
    ]
    assert set.union(*parts) == set(range(16))
    assert sum(map(len, parts)) == 16
    house.clock.push(3700)
    assert sum(await asyncio.gather(*(one.keeper.round() for one in brokers))) == 12
    assert refreshes(house) == 12
    await brokers[0].keeper.leave()
    await asyncio.gather(*(one.keeper.round() for one in brokers[1:]))
    rest = [await one.vault.share("keeper", 16, holder=one.keeper._holder, seconds=60) for one in brokers[1:]]
    assert sorted(part for some in rest for part in some) == list(range(16)), "the others have taken over"


# --- providers that want it otherwise


@pytest.mark.scenario("B26")
async def test_a_reactive_provider_is_not_asked_before_its_token_was_refused(house: House) -> None:
    reactive = {"acme": choice(house.sandbox.base_url, refresh="reactive")}
    broker = await house.broker(providers=reactive)
    await house.connect(broker)
    for _ in range(10):
        house.clock.push(500)
        await broker.keeper.round()
    assert refreshes(house) == 0
    usable = await broker.token()  # ended meanwhile
    assert refreshes(house) == 1
    await broker.tokens.renew(key_of(), dataclasses.replace(usable, generation=1), agent="worker")
    house.clock.push(3590)
    await broker.token()
    await broker.keeper.round()
    assert refreshes(house) == 1, "neither the keeper nor a request in the last seconds"


def idle(house: House, seconds: int, **more: Any) -> dict[str, config.ProviderChoice]:
    return {"acme": choice(house.sandbox.base_url, idle_expiry=seconds, **more)}


@pytest.mark.scenario("B15", "I07")
@pytest.mark.parametrize("kept", [True, False])
async def test_an_unused_grant_is_kept_alive(tmp_path: Path, kept: bool) -> None:
    """No agent, no request, for many times what the token and the grant may lie idle."""
    async with house_at(tmp_path, refresh_idle_s=10 * DAY, access_token_life=30 * DAY) as house:
        broker = await house.broker(
            providers=idle(house, 10 * DAY, refresh_margin=0), refresh=config.Refresh(window=0)
        )
        before = await house.connect(broker)
        for _ in range(60):
            house.clock.push(DAY)
            if kept:
                await broker.keeper.round()
        house.clock.push(31 * DAY if not kept else 0)
        if not kept:
            with pytest.raises(ConnectionExpired):
                await broker.token()
            return
        row = await house.row(broker)
        assert row.state is State.ACTIVE
        assert 60 / 4.5 - 1 <= row.generation - before.generation <= 60 / 3
        assert "to keep a grant alive that nobody used" in await story(broker)


@pytest.mark.scenario("I07")
async def test_tokens_stay_fresh_with_all_agents_gone(house: House) -> None:
    broker = await house.broker()
    await house.connect(broker)
    for _ in range(48):
        house.clock.push(300)
        await broker.keeper.round()
    row = await house.row(broker)
    assert row.expires_at is not None
    assert row.expires_at > house.clock.wall(), "no request would have to wait"
    assert 4 <= refreshes(house) <= 7
    assert "refreshed ahead of time, before the token ended" in await story(broker)


@pytest.mark.scenario("B15")
async def test_a_certain_end_is_told_ahead_once(tmp_path: Path) -> None:
    async with house_at(tmp_path, refresh_absolute_s=30 * DAY, access_token_life=DAY) as house:
        broker = await house.broker(
            providers={"acme": choice(house.sandbox.base_url, absolute_expiry=30 * DAY)}
        )
        await house.connect(broker)
        told_at = None
        for day in range(29):
            house.clock.push(DAY)
            await broker.keeper.round()
            if told_at is None and "connection.reauth_due" in await house.kinds(broker):
                told_at = day + 1
        assert (await house.kinds(broker)).count("connection.reauth_due") == 1
        assert told_at is not None
        assert 23 <= told_at <= 26
        assert "the user must act" in await story(broker)


@pytest.mark.scenario("C06")
@pytest.mark.parametrize(("age", "reason"), [(7.0, "test_mode_suspected"), (6.0, "revoked_or_expired")])
async def test_a_google_grant_that_dies_at_seven_days(tmp_path: Path, age: float, reason: str) -> None:
    async with house_at(tmp_path, refresh_absolute_s=age * DAY, access_token_life=3600) as house:
        broker = await house.broker()
        await house.connect(broker)
        broker.configure(providers={"acme": choice(house.sandbox.base_url, catalogue="google")})
        house.clock.push(age * DAY - 3600)
        house.sandbox.switches.update(
            {
                "status": 400,
                "body": '{"error": "invalid_grant", "error_description": "Token has been expired or revoked."}',
                "content_type": "application/json",
            }
        )
        house.clock.push(3600)
        await broker.keeper.round()
        row = await house.row(broker)
        assert (row.state, row.reason) == (State.NEEDS_REAUTH, reason)
        if reason == "test_mode_suspected":
            assert "Publish the app" in await story(broker)
            assert (await story(broker)).endswith(Party.OPERATOR)


@pytest.mark.scenario("I06")
@pytest.mark.parametrize("keeper", [True, False])
async def test_a_job_that_outlives_its_tokens_a_thousand_times(tmp_path: Path, keeper: bool) -> None:
    """Six hours over tokens of five seconds and leases of sixty, with and without pauses longer than all of them."""
    async with house_at(tmp_path, access_token_life=5) as house:
        broker = await house.broker()
        await house.connect(broker)
        job, used = 0.0, set()
        steps = (1, 2, 4, 6, 61, 300, 3700)
        while job < 6 * 3600:
            for step in steps:
                usable = await broker.token()
                assert usable.expires_at is not None
                assert usable.expires_at > house.clock.wall() - 1
                used.add(usable.generation)
                house.clock.push(step)
                job += step
                if keeper:
                    await broker.keeper.round()
        assert len(used) >= 20
        assert (await house.row(broker)).state is State.ACTIVE


# --- many at once


@pytest.mark.scenario("J12")
@pytest.mark.parametrize("error", ["invalid_client", "invalid_grant"])
async def test_one_verdict_on_all_falls_back_on_us(house: House, error: str) -> None:
    broker = await house.broker()
    for number in range(30):
        await house.connect(broker, f"user{number}")
    house.clock.push(3700)
    house.sandbox.switches.update({"status": 401 if error == "invalid_client" else 400, "error": error})
    for _ in range(5):
        await broker.keeper.round()
        house.clock.push(20)
    counts = await broker.vault.counts()
    changed = sum(n for (_, state), n in counts.items() if state is not State.ACTIVE)
    assert 1 <= changed < SUSPECT + broker.settings.refresh.concurrency
    told = await broker.vault.backend.read("SELECT kind FROM events WHERE kind LIKE 'provider.%'")
    assert [row["kind"] for row in told] == ["provider.suspected"]
    asked = refreshes(house)
    assert asked <= changed + 3

    # Mended: it is found out by one probe, said once, and the rest follows.
    house.sandbox.switches.update({"status": None, "error": None})
    house.clock.push(1000)
    for _ in range(20):
        await broker.keeper.round()
        house.clock.push(60)
    left = await broker.vault.counts()
    dead = changed if error == "invalid_grant" else 0
    assert left[("acme", State.ACTIVE)] == 30 - dead
    told = await broker.vault.backend.read("SELECT kind FROM events WHERE kind LIKE 'provider.%'")
    assert [row["kind"] for row in told] == ["provider.suspected", "provider.recovered"]


@pytest.mark.scenario("J12")
async def test_one_provider_s_trouble_is_no_other_s(house: House) -> None:
    broker = await house.broker()
    for number in range(6):
        await house.connect(broker, f"user{number}")
    await house.connect(broker, "alice", provider="other")
    house.clock.push(3700)
    broker.configure(providers={**broker.settings.providers, "acme": choice("http://127.0.0.1:9")})
    await broker.keeper.round()
    other = await broker.vault.find(key_of("alice", "other"))
    assert other is not None
    assert other.generation == 2


@pytest.mark.scenario("A27", "E03")
async def test_a_row_that_cannot_be_opened_stops_no_other(house: House) -> None:
    broker = await house.broker()
    alice = await house.connect(broker)
    await house.connect(broker, "bob")

    async def damage(tx: Any) -> None:
        await tx.run("UPDATE connections SET refresh_token = ? WHERE id = ?", b"\xa7\x01damaged", alice.id)

    await broker.vault.backend.write(damage)
    house.clock.push(3700)
    assert await broker.keeper.round() == 2
    assert (await house.row(broker, "bob")).generation == 2
    assert (await house.row(broker)).state is State.ACTIVE, "unreadable is not dead"
    assert await broker.keeper.round() == 0, "and not again at once"


# --- what is seen of it


@pytest.mark.scenario("J13")
@pytest.mark.parametrize("ended", [False, True], ids=["token-good", "token-ended"])
@pytest.mark.parametrize("grant", ["good", "dead", "unknown", "none"])
async def test_the_state_is_the_provider_s_last_word_on_the_grant(
    house: House, ended: bool, grant: str
) -> None:
    """Not the age of an access token: neither a fresh one hides a dead grant, nor does an old one fake it."""
    broker = await house.broker()
    if grant == "none":
        at = int(house.clock.wall())
        alone = TokenSet(Secret("access"), None, at + 3600, lifetime=3600)
        await broker.vault.keep_grant(NewGrant(key_of(), CLIENT_ID, "g", alone, ("read",), None, at), [])
    else:
        await house.connect(broker)
    if grant == "dead":
        house.sandbox.revoke_user("alice")
    if grant == "unknown":
        house.sandbox.switches.update({"status": 503})
    # With a fresh token the grant is looked at by whoever looks: an operator here, the keeper in its own time.
    if ended:
        house.clock.push(3700)
        await broker.keeper.round()
    elif grant != "none":
        await broker.grants.refresh((await house.row(broker)).id, tenant=None)
    expected = {"good": State.ACTIVE, "dead": State.NEEDS_REAUTH, "unknown": State.ACTIVE}
    state = expected.get(grant, State.NEEDS_REAUTH if ended else State.ACTIVE)
    assert (await house.row(broker)).state is state
    assert (await broker.vault.counts()) == {("acme", state): 1}
    told = explain(key_of(), await house.row(broker), [], now=int(house.clock.wall()))
    assert told.well is (state is State.ACTIVE and not (grant == "unknown" and ended))
