"""Who is told what, how often, in which order, and what happens while nobody listens."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from authproxy.broker.webhooks import identity
from authproxy.core import config
from authproxy.core.causes import Party, Severity, party, severity
from authproxy.core.errors import ConnectionExpired
from authproxy.core.model import Event, State
from authproxy.core.secret import Secret
from authproxy.egress import EgressGuard
from tests.broker.house import Broker, House, key_of
from tests.broker.receiver import SECRET, Receiver

ALL = ("connection.*", "provider.*", "refresh.failed")


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    it = Receiver()
    await it.start()
    yield it
    await it.stop()


def hooks(receiver: Receiver, *kinds: str) -> tuple[config.Webhook, ...]:
    return (config.Webhook(receiver.url, Secret(SECRET), kinds or ("connection.*", "provider.*")),)


async def tell(*brokers: Broker) -> int:
    """What the duties do, once, in all replicas at once."""
    await asyncio.gather(*(one.webhooks.fan_out() for one in brokers))
    done = [one.webhooks.deliver(lane) for one in brokers for lane in one.webhooks.lanes]
    return sum(await asyncio.gather(*done))


async def backlog(broker: Broker) -> int:
    return (await broker.vault.backlog()).waiting


@pytest.mark.scenario("J01", "F02")
async def test_a_dead_grant_is_told_once_with_who_must_act(house: House, receiver: Receiver) -> None:
    broker = await house.broker(webhooks=hooks(receiver, "connection.needs_reauth"))
    connection = await house.connect(broker)
    house.sandbox.revoke_user("alice")
    house.clock.push(3700)
    await broker.keeper.round()
    assert await tell(broker) == 1
    assert await tell(broker) == 0
    (told,) = receiver.told
    assert told.kind == "connection.needs_reauth"
    assert told.data["connection_id"] == connection.id
    assert (told.data["user_id"], told.data["provider_id"], told.data["environment"]) == (
        "alice",
        "acme",
        "development",
    )
    assert (told.data["who_must_act"], told.data["severity"]) == ("user", "info")
    assert told.data["advice"]
    assert abs(told.at - house.clock.wall()) < 60
    for token in house.sandbox.issued_tokens():
        assert token.encode() not in told.raw
    # One step in the gauge, and one link for the agent.
    assert await broker.vault.counts() == {("acme", State.NEEDS_REAUTH): 1}
    with pytest.raises(ConnectionExpired) as caught:
        await broker.token()
    assert caught.value.connect_url is not None


@pytest.mark.scenario("J01")
async def test_a_receiver_that_was_away_is_told_later_in_order(house: House, receiver: Receiver) -> None:
    broker = await house.broker(webhooks=hooks(receiver))
    await receiver.stop()
    await house.connect(broker)
    await broker.grants.disconnect((await house.row(broker)).id, tenant=None)
    for _ in range(3):
        await tell(broker)
        house.clock.push(1000)
    assert await backlog(broker) == 3
    await receiver.start()
    again = await house.broker(webhooks=hooks(receiver))  # and the process was another by then
    house.clock.push(3600)
    assert await tell(again) == 3
    assert receiver.kinds() == ["connection.connected", "connection.disconnected", "connection.revocation"]
    assert await backlog(broker) == 0


@pytest.mark.scenario("J01")
async def test_what_was_refused_comes_again_under_the_same_id(house: House, receiver: Receiver) -> None:
    broker = await house.broker(webhooks=hooks(receiver))
    await house.connect(broker)
    receiver.status = 503
    await tell(broker)
    await tell(broker)
    assert len(receiver.asked) == 1, "not again at once"
    house.clock.push(5)
    await tell(broker)
    receiver.status, receiver.headers = 429, {"Retry-After": "900"}
    house.clock.push(60)
    await tell(broker)
    house.clock.push(300)
    await tell(broker)
    assert len(receiver.asked) == 3
    house.clock.push(700)
    receiver.status = 200
    await tell(broker)
    assert len(set(receiver.asked)) == 1
    assert len(receiver.told) == 1


@pytest.mark.scenario("J01")
async def test_replicas_tell_each_event_once(house: House, receiver: Receiver) -> None:
    brokers = [await house.broker(webhooks=hooks(receiver)) for _ in range(3)]
    for number in range(15):
        await house.connect(brokers[0], f"user{number}")
    for _ in range(4):
        await tell(*brokers)
    assert len(receiver.told) == 15
    assert len({one.id for one in receiver.told}) == 15
    assert [one.data["user_id"] for one in receiver.told] == [f"user{n}" for n in range(15)]


@pytest.mark.scenario("J01")
async def test_one_that_hangs_delays_no_other(house: House, receiver: Receiver) -> None:
    dead = config.Webhook("http://127.0.0.1:9/", Secret("x"))
    broker = await house.broker(webhooks=(dead, *hooks(receiver)))
    await house.connect(broker)
    await tell(broker)
    assert receiver.kinds() == ["connection.connected"]
    assert await backlog(broker) == 1


async def test_what_nobody_takes_for_days_is_given_up(house: House, receiver: Receiver) -> None:
    broker = await house.broker(webhooks=hooks(receiver))
    receiver.status = 500
    await house.connect(broker)
    await tell(broker)
    house.clock.push(3 * 86400 + 1)
    await tell(broker)
    assert await backlog(broker) == 0
    given_up = broker.metrics.registry.get_sample_value(
        "authproxy_webhook_deliveries_total", {"outcome": "given_up"}
    )
    assert given_up == 1


async def test_history_is_no_news(house: House, receiver: Receiver) -> None:
    """A webhook that is configured later hears of what happens from then on."""
    broker = await house.broker()
    await house.connect(broker)
    await tell(broker)
    later = await house.broker(webhooks=hooks(receiver))
    await tell(later)
    assert receiver.told == []
    await house.connect(later, "bob")
    await tell(later)
    assert receiver.kinds() == ["connection.connected"]


@pytest.mark.scenario("F08")
async def test_redirects_and_inner_addresses_are_not_followed(house: House, receiver: Receiver) -> None:
    broker = await house.broker(webhooks=hooks(receiver))
    receiver.status, receiver.headers = 307, {"Location": receiver.url}
    await house.connect(broker)
    await tell(broker)
    assert len(receiver.asked) == 1
    broker.endpoint._check = EgressGuard(()).check
    house.clock.push(60)
    await tell(broker)
    assert len(receiver.asked) == 1, "a webhook is no way into the network"
    assert await backlog(broker) == 1


def test_its_identity_survives_another_secret() -> None:
    one, other = (
        config.Webhook("https://a.example/", Secret("1")),
        config.Webhook("https://a.example/", Secret("2"), ("x.y",)),
    )
    assert identity(one) == identity(other)
    assert "a.example" not in identity(one)


# --- edges


@pytest.mark.scenario("J02")
async def test_a_failure_and_its_end_are_told_once_each(house: House, receiver: Receiver) -> None:
    broker = await house.broker(webhooks=hooks(receiver, *ALL))
    await house.connect(broker)
    await tell(broker)
    receiver.told.clear()
    house.sandbox.revoke_user("alice")
    house.clock.push(3700)
    for _ in range(4):
        await broker.keeper.round()
        await tell(broker)
        house.clock.push(600)
    assert receiver.kinds() == ["connection.needs_reauth"]
    await house.connect(broker)
    for _ in range(3):
        await broker.keeper.round()
        await tell(broker)
    assert receiver.kinds() == ["connection.needs_reauth", "connection.connected", "connection.recovered"]
    assert receiver.told[-1].data["from"] == "needs_reauth"


@pytest.mark.scenario("J02")
async def test_a_flicker_is_not_told_and_an_outage_once(house: House, receiver: Receiver) -> None:
    broker = await house.broker(webhooks=hooks(receiver, *ALL), refresh=config.Refresh(backoff=1, window=0))
    await house.connect(broker)
    await tell(broker)
    receiver.told.clear()

    async def outage(failures: int) -> None:
        house.clock.push(3700)
        house.sandbox.switches.update({"status": 503})
        for _ in range(failures):
            await broker.keeper.round()
            await tell(broker)
            house.clock.push(120)
        house.sandbox.switches.update({"status": None})
        await broker.keeper.round()
        await tell(broker)

    await outage(2)
    assert receiver.kinds() == []
    await outage(6)
    assert receiver.kinds() == ["refresh.failed", "connection.recovered"]
    assert receiver.told[0].data["failures"] == 3
    assert receiver.told[0].data["who_must_act"] == "provider"


@pytest.mark.scenario("J05", "J12")
async def test_a_refused_client_is_one_page_and_its_repair_one_word(house: House, receiver: Receiver) -> None:
    broker = await house.broker(webhooks=hooks(receiver, *ALL))
    users = [f"user{number}" for number in range(6)]
    for user in users:
        await house.connect(broker, user)
    await tell(broker)
    receiver.told.clear()
    house.clock.push(3700)
    house.sandbox.switches.update({"invalid_client": True})
    for _ in range(6):  # for hours, also through the probes that the breaker lets through
        for user in users:
            await broker.grants.refresh((await house.row(broker, user)).id, tenant=None)
            house.clock.push(61)
        await tell(broker)
    assert (
        sum(n for (_, state), n in (await broker.vault.counts()).items() if state is State.MISCONFIGURED) > 1
    )
    assert receiver.kinds() == ["connection.misconfigured"]
    assert (receiver.told[0].data["severity"], receiver.told[0].data["who_must_act"]) == (
        "critical",
        "operator",
    )
    house.sandbox.switches.update({"invalid_client": False})
    house.clock.push(120)
    for user in users:
        await broker.grants.refresh((await house.row(broker, user)).id, tenant=None)
    await tell(broker)
    assert receiver.kinds() == ["connection.misconfigured", "connection.recovered"]


@pytest.mark.scenario("J05")
@pytest.mark.parametrize(
    ("kind", "data", "act", "loud"),
    [
        ("flow.denied", {"reason": "refused"}, Party.NOBODY, Severity.INFO),
        ("connection.disconnected", {}, Party.NOBODY, Severity.INFO),
        ("connection.needs_reauth", {"reason": "revoked"}, Party.USER, Severity.INFO),
        ("connection.needs_reauth", {"reason": "session_policy"}, Party.ADMIN, Severity.WARNING),
        ("connection.needs_reauth", {"reason": "test_mode_suspected"}, Party.OPERATOR, Severity.WARNING),
        (
            "connection.needs_reauth",
            {"reason": "reused_elsewhere_suspected"},
            Party.OPERATOR,
            Severity.CRITICAL,
        ),
        ("connection.misconfigured", {"reason": "client_credentials"}, Party.OPERATOR, Severity.CRITICAL),
        ("provider.suspected", {"reason": "unknown"}, Party.OPERATOR, Severity.CRITICAL),
        (
            "refresh.failed",
            {"verdict": "transient", "reason": "unavailable"},
            Party.PROVIDER,
            Severity.WARNING,
        ),
        ("connection.reauth_due", {}, Party.USER, Severity.WARNING),
        ("connection.recovered", {}, Party.NOBODY, Severity.INFO),
    ],
)
def test_what_wakes_somebody(kind: str, data: dict[str, Any], act: Party, loud: Severity) -> None:
    assert (party(kind, data), severity(kind, data)) == (act, loud)


async def test_only_known_words_of_an_event_go_out(house: House) -> None:
    broker = await house.broker()
    data = {"reason": "revoked", "access_token": "CANARY", "digest": "CANARY"}
    event = Event("connection.needs_reauth", 5, "default", "alice", "acme", data=data)
    assert "CANARY" not in str(broker.webhooks.payload("evt_1", event))
    assert await broker.vault.find(key_of()) is None
