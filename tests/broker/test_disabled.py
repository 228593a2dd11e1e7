"""A disabled user before the broker: refused within the leash everywhere, and nothing that lands late is of use."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from authproxy.broker.offboarding import Report
from authproxy.broker.revocation import Revoked
from authproxy.core import config
from authproxy.core.errors import ConnectionRequired, StoreUnavailable, UserDisabled
from authproxy.core.model import FlowStatus, State
from authproxy.core.secret import Secret
from tests.broker.house import CALLER, SCOPES, Broker, House, house_at, key_of

HOUR = 3601
LEASH = 5.0


async def disable(broker: Broker, user: str = "alice", *, keep: bool = False) -> Report:
    return await broker.offboarding.disable("default", user, by="ops", reason=None, keep_grants=keep)


async def enable(broker: Broker, user: str = "alice") -> bool:
    return await broker.offboarding.enable("default", user, by="ops", reason=None)


def held_at(name: str) -> tuple[Any, asyncio.Event, asyncio.Event]:
    """A failpoint that stops at `name`: the hook, what says that it was reached, and what lets it go on."""
    reached, on = asyncio.Event(), asyncio.Event()

    async def failpoint(point: str) -> None:
        if point == name and not on.is_set():
            reached.set()
            await on.wait()

    return failpoint, reached, on


async def owed(broker: Broker) -> list[Mapping[str, Any]]:
    rows = await broker.vault.backend.read(
        "SELECT user_id, status, tokens FROM revocations ORDER BY created_at, id"
    )
    return [{name: row[name] for name in ("user_id", "status", "tokens")} for row in rows]


@pytest.mark.scenario("I10", "I08")
@pytest.mark.parametrize("keep", [False, True])
async def test_every_process_refuses_within_the_leash(house: House, keep: bool) -> None:
    here, there = await house.broker(), await house.broker()
    connection = await house.connect(here)
    await house.connect(here, "bob")
    for broker in (here, there):
        await broker.token()
    done = await disable(here, keep=keep)
    with pytest.raises(UserDisabled) as caught:
        await here.token()
    assert (caught.value.status, caught.value.act, caught.value.connect_url) == (403, "ask_user", None)
    await there.token()  # not known there yet
    house.clock.push(LEASH)
    for _ in range(2):
        with pytest.raises(UserDisabled):
            await there.token()
    await there.token("bob")
    if keep:
        assert not done.returned
        assert (await house.row(here)).id == connection.id
        assert len(house.sandbox.live_refresh_digests("alice")) == 1
    else:
        assert [(one.connection_id, one.revoked_upstream) for one in done.returned] == [
            (connection.id, Revoked.YES)
        ]
        assert house.sandbox.live_refresh_digests("alice") == set()
    await enable(here)
    house.clock.push(LEASH)
    for broker in (here, there):
        if keep:
            assert (await broker.token()).connection_id == connection.id
        else:
            with pytest.raises(ConnectionRequired):
                await broker.token()


@pytest.mark.scenario("I10")
async def test_one_whom_nobody_has_heard_of_is_refused_from_the_first_request_on(house: House) -> None:
    broker = await house.broker()
    assert (await disable(broker, "mallory")).changed
    with pytest.raises(UserDisabled):
        await broker.token("mallory")
    with pytest.raises(UserDisabled):
        await broker.flows.start(caller=CALLER, user="mallory", provider="acme", scopes=SCOPES)
    assert not (await disable(broker, "mallory")).changed


@pytest.mark.scenario("I10")
async def test_a_store_that_cannot_say_who_is_disabled_lets_nobody_pass(house: House) -> None:
    broker = await house.broker()
    await house.connect(broker)
    await broker.token()
    await broker.vault.close()
    house.clock.push(LEASH)
    with pytest.raises(StoreUnavailable):
        await broker.token()


@pytest.mark.scenario("I10")
async def test_kept_grants_are_refreshed_by_nobody(house: House) -> None:
    broker = await house.broker()
    await house.connect(broker)
    house.clock.push(HOUR - 60)
    assert [one.key.user for one in await broker.keeper.due()] == ["alice"]
    await disable(broker, keep=True)
    assert await broker.keeper.due() == []
    rejected = broker.tokens._entry_of(await house.row(broker), Secret("CANARY-at")).usable
    with pytest.raises(UserDisabled):
        await broker.tokens.renew(key_of(), rejected, agent="worker")
    assert not house.sandbox.refreshes()
    await enable(broker)
    assert [one.key.user for one in await broker.keeper.due()] == ["alice"]


@pytest.mark.scenario("I10", "A18")
@pytest.mark.parametrize("point", ["before_send", "answering", "after_response", "before_commit"])
@pytest.mark.parametrize("keep", [False, True])
async def test_a_refresh_under_way(tmp_path: Path, point: str, keep: bool) -> None:
    """Its answer is of no use to anybody: owed back, or kept for later where grants are."""
    failpoint, reached, on = held_at(point)
    async with house_at(tmp_path) as house:
        working, other = await house.broker(failpoint=failpoint), await house.broker()
        await house.connect(working)
        house.clock.push(HOUR)
        if point == "answering":
            house.sandbox.hold(after=True)
        asker = asyncio.create_task(working.token())
        await asyncio.wait_for(house.sandbox.arrived(2) if point == "answering" else reached.wait(), 5)
        await disable(other, keep=keep)
        house.sandbox.release()
        on.set()
        answer = (await asyncio.gather(asker, return_exceptions=True))[0]
        house.clock.push(LEASH)
        for broker in (working, other):
            with pytest.raises(UserDisabled):
                await broker.token()
        await working.refresher.drain(5)
        if keep:
            row = await house.row(other)
            assert (row.state, row.generation) == (State.ACTIVE, 2), "no rotation is lost"
            assert await owed(other) == []
            return
        assert isinstance(answer, BaseException), "it was not served"
        assert await other.vault.find(key_of()) is None
        while await other.revocations.round():
            pass
        assert house.sandbox.live_refresh_digests() == set(), "nothing lives on at the provider"
        assert {one["status"] for one in await owed(other)} == {"yes"}
        assert all(one["tokens"] is None for one in await owed(other))


@pytest.mark.scenario("I10", "H03")
@pytest.mark.parametrize("point", ["flow.after_response", "flow.before_save"])
@pytest.mark.parametrize("again", [False, True], ids=["disabled", "enabled-again"])
@pytest.mark.parametrize("verifier", [None, "https://app.example/verify"], ids=["kept", "held"])
async def test_a_callback_under_way(tmp_path: Path, point: str, again: bool, verifier: str | None) -> None:
    """What the consent gave is used by nobody, and given back; also where the user is enabled again before it lands."""
    failpoint, reached, on = held_at(point)
    async with house_at(tmp_path) as house:
        settings = config.Identity(verifier_url=verifier)
        working, other = await house.broker(failpoint=failpoint, identity=settings), await house.broker()
        flow = await working.flows.start(caller=CALLER, user="alice", provider="acme", scopes=SCOPES)
        callback, cookie = await house.leave(working, flow, as_user="alice")
        arrival = asyncio.create_task(house.arrive(working, callback, cookie))
        await asyncio.wait_for(reached.wait(), 5)
        assert (await disable(other)).flows == 1
        if again:
            await enable(other)
        on.set()
        with pytest.raises(UserDisabled):
            await arrival
        ended = await other.flows.flow(flow.id)
        assert (ended.status, ended.reason) == (FlowStatus.FAILED, "user_disabled")
        assert await other.vault.find(key_of()) is None
        assert len(house.sandbox.live_refresh_digests()) == 1
        assert [one["status"] for one in await owed(other)] == ["pending"]
        assert await other.revocations.round() == 1
        assert house.sandbox.live_refresh_digests() == set()
        await enable(other)
        house.clock.push(LEASH)
        with pytest.raises(ConnectionRequired):
            await working.token()


@pytest.mark.scenario("I10", "B02")
async def test_an_access_token_that_came_alone_is_given_back_too(tmp_path: Path) -> None:
    """What was stored beside it would have been kept with it, and has just been wiped."""
    failpoint, reached, on = held_at("flow.before_save")
    async with house_at(tmp_path) as house:
        working, other = await house.broker(failpoint=failpoint), await house.broker()
        await house.connect(other)
        house.sandbox.switches.update({"omit_refresh_token_at_consent": True, "max_grants": 0})
        flow = await working.flows.start(
            caller=CALLER, user="alice", provider="acme", scopes=SCOPES, again=True
        )
        callback, cookie = await house.leave(working, flow, as_user="alice")
        arrival = asyncio.create_task(house.arrive(working, callback, cookie))
        await asyncio.wait_for(reached.wait(), 5)
        await disable(other)
        on.set()
        with pytest.raises(UserDisabled):
            await arrival
        assert sorted(one["status"] for one in await owed(other)) == ["pending", "yes"]
        assert await other.revocations.round() == 1
        assert list(house.sandbox.grants.live_access()) == []


@pytest.mark.scenario("I10")
async def test_what_waits_for_a_confirmation_is_given_back(house: House) -> None:
    broker = await house.broker(identity=config.Identity(verifier_url="https://app.example/verify"))
    flow = await broker.flows.start(caller=CALLER, user="alice", provider="acme", scopes=SCOPES)
    callback, cookie = await house.leave(broker, flow, as_user="alice")
    arrival = await house.arrive(broker, callback, cookie)
    ticket = (broker.flows.destination(arrival.flow) or "").rpartition("flow_id=")[2]
    assert (await disable(broker)).flows == 1
    assert await broker.revocations.round() == 1
    assert house.sandbox.live_refresh_digests() == set()
    with pytest.raises(UserDisabled):
        await broker.flows.confirm(caller=CALLER, ticket=ticket, user="alice")
    assert await broker.vault.find(key_of()) is None


@pytest.mark.scenario("I10")
async def test_no_door_of_a_consent_opens(house: House) -> None:
    broker, other = await house.broker(), await house.broker()
    begun = await broker.flows.start(caller=CALLER, user="alice", provider="acme", scopes=SCOPES)
    callback, cookie = await house.leave(broker, begun, as_user="alice")
    await disable(other)
    doors: list[Callable[[], Any]] = [
        lambda: house.arrive(broker, callback, cookie),
        lambda: broker.flows.go(begun.id, cookie),
        lambda: broker.flows.start(caller=CALLER, user="alice", provider="acme", scopes=SCOPES),
        lambda: broker.flows.link_for(key_of(), SCOPES, "worker"),
        lambda: broker.grants.take_over(key_of(), Secret("CANARY-rt-imported")),
    ]
    for door in doors:
        with pytest.raises(UserDisabled):
            await door()
    assert await broker.vault.find(key_of()) is None
    assert house.sandbox.live_refresh_digests() == set(), "the code was never exchanged"


@pytest.mark.scenario("I10")
async def test_an_import_that_is_refused_puts_nothing_back_for_a_disabled_user(tmp_path: Path) -> None:
    failpoint, reached, on = held_at("before_send")
    async with house_at(tmp_path) as house:
        working, other = await house.broker(failpoint=failpoint), await house.broker()
        await house.connect(other)
        taking = asyncio.create_task(
            working.grants.take_over(key_of(), Secret("CANARY-rt-of-nobody"), replace=True)
        )
        await asyncio.wait_for(reached.wait(), 5)
        await disable(other, keep=True)
        on.set()
        await taking
        assert await other.vault.find(key_of()) is None
        while await other.revocations.round():
            pass
        assert house.sandbox.live_refresh_digests() == set()


@pytest.mark.scenario("I10", "I09")
async def test_who_dies_after_saying_so_leaves_nothing_undone(house: House) -> None:
    """Of all that is done only giving back comes after the one transaction, and that is owed."""
    broker, other = await house.broker(), await house.broker()
    await house.connect(broker)
    await broker.vault.disable_user(
        "default",
        "alice",
        at=int(house.clock.wall()),
        by="ops",
        reason=None,
        keep_grants=False,
        owing=broker.revocations.new,
    )  # and then no more is heard of it
    house.clock.push(LEASH)
    with pytest.raises(UserDisabled):
        await other.token()
    assert await other.revocations.round() == 0, "who made the debt may still be paying it"
    house.clock.push(120)
    assert await other.revocations.round() == 1
    assert house.sandbox.live_refresh_digests() == set()
    await enable(other)
    house.clock.push(LEASH)
    with pytest.raises(ConnectionRequired):
        await other.token()


@pytest.mark.scenario("I10")
async def test_a_steady_stream_of_requests_never_outlives_the_bound(house: House) -> None:
    here, there = await house.broker(), await house.broker()
    await house.connect(here)
    for _ in range(20):
        await here.token()
        house.clock.push(0.3)
    await disable(there, keep=True)
    gone_at = house.clock.steady()

    async def stream() -> None:
        while house.clock.steady() - gone_at < 10 * LEASH:
            await here.token()
            house.clock.push(0.3)

    with pytest.raises(UserDisabled):
        await stream()
    assert house.clock.steady() - gone_at <= LEASH + 0.1


@pytest.mark.scenario("I10", "I09")
async def test_the_report_claims_what_was_confirmed(house: House) -> None:
    """One provider is away, another one has no such door, and a third does it."""
    broker = await house.broker()
    for provider in ("acme", "other"):
        await house.connect(broker, provider=provider)
    away = replace(
        house.settings.providers["other"],
        endpoints=replace(
            house.settings.providers["other"].endpoints, revocation="http://127.0.0.1:9/revoke"
        ),
    )
    broker.configure(providers={**house.settings.providers, "other": away})
    report = await disable(broker)
    assert report.counts == {Revoked.YES: 1, Revoked.PENDING: 1, Revoked.FAILED: 0, Revoked.UNSUPPORTED: 0}
    standing = await broker.vault.user("default", "alice")
    assert (standing.connections, standing.revocations) == (0, 1)
    again = await disable(broker)
    assert (again.changed, list(again.returned)) == (False, [])
    broker.configure(providers=house.settings.providers)
    house.clock.push(120)
    assert await broker.revocations.round() == 1
    assert (await broker.vault.user("default", "alice")).revocations == 0
    assert house.sandbox.live_refresh_digests() == set()
