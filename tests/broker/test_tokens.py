"""The table of opened tokens: its leash, its margin, and what a 401 may cause."""

from __future__ import annotations

import asyncio
import random
import time

import pytest

from authproxy.broker.endpoint import AT_ONCE
from authproxy.core import config
from authproxy.core.errors import (
    ConnectionExpired,
    ConnectionRequired,
    ProviderMisconfigured,
    ProviderUnavailable,
    Refusal,
    ScopeMissing,
    StoreUnavailable,
)
from authproxy.core.model import ConnectionKey, Usable
from authproxy.core.secret import Secret
from tests.broker.house import Broker, House, choice, key_of

HOUR = 3601.0
LEASH = config.Refresh().leash


async def settled(broker: Broker) -> None:
    """What was begun behind answers' backs has ended."""
    for flights in (broker.tokens._looks, broker.tokens._aheads):
        await asyncio.gather(*flights._running.values())


# --- who gets what


@pytest.mark.scenario("I01")
async def test_who_has_not_connected_gets_nothing(house: House) -> None:
    broker = await house.broker()
    await house.connect(broker, "alice")
    with pytest.raises(ConnectionRequired) as caught:
        await broker.token("bob")
    assert caught.value.user == "bob"
    assert caught.value.connect_url is not None
    assert house.sandbox.calls == []


@pytest.mark.scenario("I01", "I03")
@pytest.mark.parametrize(
    "key",
    [
        ConnectionKey("other-tenant", "alice", "acme"),
        ConnectionKey("default", "Alice", "acme"),
        ConnectionKey("default", "alice ", "acme"),
        ConnectionKey("default", "*", "acme"),
        ConnectionKey("default", "", "acme"),
        ConnectionKey("default", "alice", "other"),
        ConnectionKey("default", "alice", "acme", "work"),
    ],
)
async def test_every_part_of_the_key_counts(house: House, key: ConnectionKey) -> None:
    broker = await house.broker()
    await house.connect(broker)
    await broker.token()
    with pytest.raises(ConnectionRequired):
        await broker.tokens.token(key, scopes=("read",), agent="worker")


@pytest.mark.scenario("I02")
async def test_two_hundred_users_at_once_get_their_own(house: House) -> None:
    broker = await house.broker()
    users = [f"user{n}" for n in range(200)]
    for user in users:
        await house.connect(broker, user)
    owner = {one.token: grant.user for grant in house.sandbox.grants.live() for one in grant.access}
    rng = random.Random(7)

    async def ask(user: str) -> tuple[str, Usable]:
        for _ in range(rng.randrange(4)):
            await asyncio.sleep(0)
        return user, await broker.token(user)

    asked = [user for user in users for _ in range(50)]
    rng.shuffle(asked)
    for user, usable in await asyncio.gather(*(ask(user) for user in asked)):
        assert usable.key.user == user
        assert owner[usable.header.decode().removeprefix("Bearer ")] == user


@pytest.mark.scenario("D09", "B17")
async def test_missing_scopes_ask_for_the_union(house: House) -> None:
    broker = await house.broker()
    await house.connect(broker, scopes=("read",))
    with pytest.raises(ScopeMissing) as caught:
        await broker.token(scopes=("read", "write"))
    assert caught.value.missing_scopes == ("write",)
    flow = await broker.flows.flow((caught.value.connect_url or "").rsplit("/", 1)[1])
    assert set(flow.scopes) == {"read", "write"}
    assert (await broker.token(scopes=("read",))).generation == 1, "what is there goes on working"
    assert house.sandbox.refreshes() == []


# --- the leash


@pytest.mark.scenario("I08", "A17")
async def test_a_disconnect_elsewhere_is_seen_within_the_leash(house: House) -> None:
    here, there = await house.broker(), await house.broker()
    connection = await house.connect(here)
    await here.token()
    await there.grants.disconnect(connection.id, tenant=None)
    house.clock.push(LEASH - 0.2)
    assert (await here.token()).generation == 1, "not seen yet, and the look is under way"
    await settled(here)
    with pytest.raises(ConnectionRequired):
        await here.token()


@pytest.mark.scenario("I08")
async def test_an_idle_entry_is_not_believed_beyond_the_leash(house: House) -> None:
    here, there = await house.broker(), await house.broker()
    connection = await house.connect(here)
    await here.token()
    await there.grants.disconnect(connection.id, tenant=None)
    house.clock.push(LEASH + 0.1)
    with pytest.raises(ConnectionRequired):
        await here.token()


@pytest.mark.scenario("A17", "I08")
async def test_a_rotation_elsewhere_is_seen_within_the_leash(house: House) -> None:
    here, there = await house.broker(), await house.broker()
    connection = await house.connect(here)
    await here.token()
    await there.grants.refresh(connection.id, tenant=None)
    house.clock.push(LEASH / 2 + 0.1)
    await here.token()
    await settled(here)
    assert (await here.token()).generation == 2


@pytest.mark.scenario("I08")
async def test_a_steady_stream_of_requests_never_outlives_the_bound(house: House) -> None:
    here, there = await house.broker(), await house.broker()
    connection = await house.connect(here)
    for _ in range(20):
        await here.token()
        house.clock.push(0.3)
    await there.grants.disconnect(connection.id, tenant=None)
    gone_at = house.clock.steady()

    async def stream() -> None:
        while house.clock.steady() - gone_at < 10 * LEASH:
            await here.token()
            await asyncio.sleep(0)
            house.clock.push(0.3)

    with pytest.raises(ConnectionRequired):
        await stream()
    assert house.clock.steady() - gone_at <= LEASH + 0.4


@pytest.mark.scenario("I08")
async def test_a_new_consent_lifts_a_refusal_at_once_here_and_soon_elsewhere(house: House) -> None:
    here, there = await house.broker(), await house.broker()
    for broker in (here, there):
        with pytest.raises(ConnectionRequired):
            await broker.token()
    await house.connect(here)
    assert (await here.token()).generation == 1
    with pytest.raises(ConnectionRequired):
        await there.token()
    house.clock.push(LEASH + 0.1)
    assert (await there.token()).generation == 1


async def test_the_hot_path_does_no_io(house: House) -> None:
    broker = await house.broker()
    await house.connect(broker)
    await broker.token()
    await broker.vault.close()
    began = time.perf_counter()
    for _ in range(2000):
        coroutine = broker.token()
        with pytest.raises(StopIteration):  # it ends without once waiting for anything
            coroutine.send(None)
    assert (time.perf_counter() - began) / 2000 < 0.001
    house.clock.push(LEASH + 0.1)
    with pytest.raises(StoreUnavailable):
        await broker.token()


@pytest.mark.scenario("J10")
async def test_the_table_is_bounded_and_evicts_one_at_a_time(house: House) -> None:
    broker = await house.broker()
    broker.tokens._size = 8
    for n in range(20):
        await house.connect(broker, f"user{n}")
        await broker.token(f"user{n}")
    assert len(broker.tokens._entries) == 8
    assert len(broker.tokens._keys) == 8
    assert (await broker.token("user0")).key.user == "user0"
    for n in range(50):
        with pytest.raises(ConnectionRequired):
            await broker.token(f"nobody{n}")
    assert len(broker.tokens._ended) <= 8
    assert broker.tokens._entries, "names that do not exist push no one out"


@pytest.mark.scenario("F03")
async def test_a_usable_token_does_not_show_itself(house: House) -> None:
    broker = await house.broker()
    await house.connect(broker)
    usable = await broker.token()
    token = usable.header.decode().split()[1]
    assert token in house.sandbox.issued_tokens()
    shown = repr(usable) + repr(broker.tokens._entries) + str(usable)
    assert not any(token in shown for token in house.sandbox.issued_tokens())


# --- the margin


@pytest.mark.scenario("A25", "B08")
async def test_a_token_within_its_margin_is_used_and_renewed_meanwhile(house: House) -> None:
    broker = await house.broker()
    await house.connect(broker)
    house.clock.push(3400)
    house.sandbox.hold()
    began = time.perf_counter()
    assert (await broker.token()).generation == 1
    await house.sandbox.arrived(2)
    assert (await broker.token()).generation == 1
    assert time.perf_counter() - began < 1.0
    house.sandbox.release()
    await settled(broker)
    assert (await broker.token()).generation == 2
    assert len(house.sandbox.refreshes()) == 1


@pytest.mark.scenario("B14")
@pytest.mark.parametrize("lifetime", [5, 30, 60, 299, 300])
async def test_short_lives_do_not_mean_a_refresh_per_request(house: House, lifetime: int) -> None:
    house.sandbox.switches.update({"access_token_life": lifetime})
    broker = await house.broker()
    await house.connect(broker)
    rounds, steps = 4, 40
    for _ in range(rounds * steps):
        await broker.token()
        await settled(broker)
        house.clock.push(lifetime / steps)
    assert len(house.sandbox.refreshes()) <= rounds / 0.5 + 1
    assert len(house.sandbox.refreshes()) >= rounds - 1


@pytest.mark.scenario("B10", "B21")
async def test_while_the_provider_is_down_a_good_token_is_served_and_the_provider_spared(
    house: House,
) -> None:
    broker = await house.broker()
    await house.connect(broker)
    house.sandbox.switches.update({"status": 503, "error": "temporarily_unavailable"})
    house.clock.push(3400)
    for _ in range(200):
        assert (await broker.token()).generation == 1
        await settled(broker)
    assert len(house.sandbox.refreshes()) == 1


@pytest.mark.scenario("B21", "B22")
async def test_an_expired_token_is_never_given_out(house: House) -> None:
    broker = await house.broker(timeouts=config.Timeouts(token_wait=0.3))
    await house.connect(broker)
    house.clock.push(HOUR)
    house.sandbox.hold()
    with pytest.raises(ProviderUnavailable) as caught:
        await broker.token()
    assert caught.value.reason == "token_wait"
    assert caught.value.retry_after is not None
    house.sandbox.release()
    await broker.refresher.drain(5)
    assert (await house.row(broker)).generation == 2, "the flight goes on without who asked"


@pytest.mark.scenario("B22")
@pytest.mark.parametrize(
    ("fault", "refusal"),
    [
        ({"status": 503, "error": "temporarily_unavailable"}, ProviderUnavailable),
        ({"status": 502, "html": True}, ProviderUnavailable),
        ({"status": 429, "error": "slow_down", "retry_after": "30"}, ProviderUnavailable),
        ({"drop": "before"}, ProviderUnavailable),
        ({"delay_s": 30.0}, ProviderUnavailable),
        ({"empty": True}, ProviderUnavailable),
        ({"invalid_client": True}, ProviderMisconfigured),
    ],
    ids=["503", "502", "429", "drop", "hang", "empty", "client"],
)
async def test_whatever_keeps_a_refresh_from_it_the_expired_token_stays_here(
    house: House, fault: dict[str, object], refusal: type[Refusal]
) -> None:
    """Sent all the same it would come back as the API's 401, and look like the API's fault."""
    broker = await house.broker(refresh=config.Refresh(deadline=0.5))
    await house.connect(broker)
    assert (await broker.token()).generation == 1
    house.sandbox.switches.update(fault | {"faults_for": "refresh"})
    house.clock.push(HOUR)
    for _ in range(3):
        with pytest.raises(refusal) as caught:
            await broker.token()
        assert caught.value.act in ("retry_later", "tell_operator")
        assert refusal is ProviderMisconfigured or (caught.value.retry_after or 0) >= 1
    assert len(house.sandbox.refreshes()) == 1, "and the provider is left alone meanwhile"


@pytest.mark.scenario("B21", "A26")
async def test_one_dripping_answer_delays_nobody_else(house: House) -> None:
    broker = await house.broker(refresh=config.Refresh(deadline=1.0), timeouts=config.Timeouts(token_wait=5))
    await house.connect(broker, "alice")
    await house.connect(broker, "bob")
    house.sandbox.switches.update({"drip_bytes": 1, "drip_interval_s": 0.2, "only_user": "alice"})
    house.clock.push(HOUR)
    dripping = asyncio.create_task(broker.token("alice"))
    began = time.perf_counter()
    assert (await broker.token("bob")).generation == 2
    assert time.perf_counter() - began < 0.5
    with pytest.raises(ProviderUnavailable):
        await dripping


@pytest.mark.scenario("B21", "I11")
async def test_many_calls_that_hang_at_one_provider_take_no_place_from_another(house: House) -> None:
    """More askers than one server's calls may be under way at once: what is full is full for that server alone."""

    async def silent(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        places.release()
        await ended.wait()
        writer.close()

    places, ended = asyncio.Semaphore(0), asyncio.Event()
    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    dead = config.Endpoints(token=f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/token")
    broker = await house.broker(refresh=config.Refresh(deadline=4.0))
    many = [f"user{number}" for number in range(AT_ONCE + 8)]
    for user in many:
        await house.connect(broker, user, scopes=("read",))
    await house.connect(broker, "bob", provider="other")
    providers = {**broker.settings.providers, "acme": choice(house.sandbox.base_url, endpoints=dead)}
    broker.configure(providers=providers)
    house.clock.push(HOUR)
    stuck = [asyncio.create_task(broker.token(user)) for user in many]
    for _ in range(AT_ONCE):
        await places.acquire()  # the dead one has all the places that it will ever get
    began = time.monotonic()
    assert (
        await broker.tokens.token(key_of("bob", "other"), scopes=("read",), agent="worker")
    ).generation == 2
    assert time.monotonic() - began < 1.0
    ended.set()
    for outcome in await asyncio.gather(*stuck, return_exceptions=True):
        assert isinstance(outcome, ProviderUnavailable)
    server.close()
    await server.wait_closed()


@pytest.mark.scenario("B16")
async def test_a_clock_that_jumps_back_does_no_harm(house: House) -> None:
    broker = await house.broker()
    await house.connect(broker)
    house.clock.ahead -= HOUR
    assert (await broker.token()).generation == 1
    house.clock.ahead += 3 * HOUR
    assert (await broker.token()).generation == 2


@pytest.mark.scenario("B12")
async def test_an_unknown_end_is_renewed_only_when_refused(house: House) -> None:
    house.sandbox.switches.update({"expires_in": "missing"})
    broker = await house.broker()
    await house.connect(broker)
    house.clock.push(100 * HOUR)
    usable = await broker.token()
    assert usable.generation == 1
    newer = await broker.tokens.renew(key_of(), usable, agent="worker")
    assert newer is not None
    assert newer.generation == 2


# --- after a 401


@pytest.mark.scenario("D06", "B28")
async def test_a_late_401_for_an_old_token_gets_the_new_one(house: House) -> None:
    broker = await house.broker()
    await house.connect(broker)
    old = await broker.token()
    house.clock.push(HOUR)
    await broker.token()
    newer = await asyncio.gather(*(broker.tokens.renew(key_of(), old, agent="worker") for _ in range(50)))
    assert {one.generation for one in newer if one} == {2}
    assert all(newer)
    assert len(house.sandbox.refreshes()) == 1


@pytest.mark.scenario("D06", "B28")
async def test_a_newer_token_may_have_been_stored_by_another_process(house: House) -> None:
    here, there = await house.broker(), await house.broker()
    connection = await house.connect(here)
    old = await here.token()
    await there.grants.refresh(connection.id, tenant=None)
    newer = await here.tokens.renew(key_of(), old, agent="worker")
    assert newer is not None
    assert newer.generation == 2
    assert len(house.sandbox.refreshes()) == 1


@pytest.mark.scenario("D05", "D06")
async def test_another_processes_token_is_used_also_when_no_refresh_may_be_forced(house: House) -> None:
    here, there = await house.broker(), await house.broker()
    connection = await house.connect(here)
    rejected = await here.token()
    house.sandbox.switches.update({"status": 500, "error": "server_error", "next_calls": 1})
    assert await here.tokens.renew(key_of(), rejected, agent="worker") is None
    house.clock.push(4)  # the row's back-off is over, this process's interval is not
    await here.token()
    await there.grants.refresh(connection.id, tenant=None)
    newer = await here.tokens.renew(key_of(), rejected, agent="worker")
    assert newer is not None
    assert newer.generation == 2


@pytest.mark.scenario("A16", "A17")
async def test_a_slow_reader_does_not_put_the_older_token_back(house: House) -> None:
    broker = await house.broker()
    connection = await house.connect(broker)
    seen = await broker.vault.access(key_of())
    assert seen is not None
    await broker.grants.refresh(connection.id, tenant=None)
    assert (await broker.token()).generation == 2
    broker.tokens._install(*seen, checked=house.clock.steady() - 1)  # read before, arrives after
    assert (await broker.token()).generation == 2
    broker.tokens._install(*seen)  # a flight's result, overtaken by a read
    assert (await broker.token()).generation == 2


@pytest.mark.scenario("D07")
async def test_a_refused_token_is_renewed_although_the_clock_says_it_is_good(house: House) -> None:
    broker = await house.broker()
    await house.connect(broker)
    rejected = await broker.token()
    newer = await asyncio.gather(
        *(broker.tokens.renew(key_of(), rejected, agent="worker") for _ in range(147))
    )
    assert {one.generation for one in newer if one} == {2}
    assert all(newer)
    assert len(house.sandbox.refreshes()) == 1


@pytest.mark.scenario("D05", "D12", "D04")
async def test_an_api_that_refuses_everything_cannot_force_refreshes(house: House) -> None:
    broker = await house.broker()
    await house.connect(broker, "alice")
    await house.connect(broker, "bob")
    minutes = 2
    for _ in range(60 * minutes):
        for _ in range(5):
            usable = await broker.token("alice")
            renewed = await broker.tokens.renew(key_of("alice"), usable, agent="worker")
            assert renewed is None or renewed.generation > usable.generation
        house.clock.push(1)
    interval = broker.settings.refresh.forced_interval
    assert len(house.sandbox.refreshes("alice")) <= 60 * minutes / interval + 1
    assert house.sandbox.refreshes("bob") == []
    assert (await house.row(broker)).state == "active", "an API's 401 never ends a grant"


@pytest.mark.scenario("D05", "D12")
async def test_replicas_share_the_bound(house: House) -> None:
    brokers = [await house.broker() for _ in range(3)]
    await house.connect(brokers[0])
    house.clock.push(2)  # what is shared is told by the row, in whole seconds
    for _ in range(20):
        for broker in brokers:
            usable = await broker.token()
            await broker.tokens.renew(key_of(), usable, agent="worker")
        house.clock.push(1)
    assert len(house.sandbox.refreshes()) <= 2


@pytest.mark.scenario("D05", "B10")
async def test_a_forced_refresh_that_fails_is_not_repeated_at_once(house: House) -> None:
    broker = await house.broker()
    await house.connect(broker)
    house.sandbox.switches.update({"status": 500, "error": "server_error"})
    for _ in range(29):
        usable = await broker.token()
        assert await broker.tokens.renew(key_of(), usable, agent="worker") is None
        house.clock.push(1)
    assert len(house.sandbox.refreshes()) == 1
    house.sandbox.reset()
    house.clock.push(5)
    usable = await broker.token()
    newer = await broker.tokens.renew(key_of(), usable, agent="worker")
    assert newer is not None


@pytest.mark.scenario("D04", "B09")
async def test_a_401_of_a_dead_grant_ends_in_a_link(house: House) -> None:
    broker = await house.broker()
    await house.connect(broker)
    rejected = await broker.token()
    house.sandbox.revoke_user("alice")
    with pytest.raises(ConnectionExpired) as caught:
        await broker.tokens.renew(key_of(), rejected, agent="worker")
    assert caught.value.connect_url is not None


@pytest.mark.scenario("D04")
async def test_what_cannot_be_refreshed_is_left_to_the_api(house: House) -> None:
    house.sandbox.switches.update({"tokens_expire": False})
    broker = await house.broker()
    await house.connect(broker)
    usable = await broker.token()
    assert await broker.tokens.renew(key_of(), usable, agent="worker") is None
    assert (await house.row(broker)).state == "active"


@pytest.mark.scenario("D07")
async def test_a_401_joins_the_refresh_that_is_under_way(house: House) -> None:
    broker = await house.broker()
    await house.connect(broker)
    rejected = await broker.token()
    house.clock.push(3400)
    house.sandbox.hold()
    await broker.token()  # begins one ahead of time
    await house.sandbox.arrived(2)
    renewing = asyncio.create_task(broker.tokens.renew(key_of(), rejected, agent="worker"))
    await asyncio.sleep(0)
    house.sandbox.release()
    newer = await renewing
    assert newer is not None
    assert newer.generation == 2
    assert len(house.sandbox.refreshes()) == 1


@pytest.mark.scenario("B26")
async def test_a_provider_that_dislikes_early_refreshes_gets_none(house: House) -> None:
    asana = choice(house.sandbox.base_url, catalogue="asana")
    broker = await house.broker(providers={"acme": asana})
    assert not broker.registrations.resting("acme").facts.refresh_token.early
    house.sandbox.switches.update({"rotate": True})
    await house.connect(broker, scopes=())
    house.clock.push(3500)
    await broker.token(scopes=())
    await settled(broker)
    assert house.sandbox.refreshes() == []


async def test_a_secret_is_not_a_token() -> None:
    assert repr(Secret("CANARY")) == "Secret(…)"
