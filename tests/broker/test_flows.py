"""Consent: by the right person, in the right browser, exactly once, and never stuck."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from authproxy.broker.flows import Arrival
from authproxy.broker.next_uri import checked_next
from authproxy.core import config
from authproxy.core.errors import (
    BadRequest,
    NotFound,
    Overloaded,
    ProviderMisconfigured,
    UserMismatch,
    UserNotAllowed,
)
from authproxy.core.model import Caller, Flow, FlowStatus, State
from authproxy.core.secret import Secret
from authproxy.sandbox import Registration, approve, digest_of
from tests.broker.house import CALLER, CLIENT_ID, PUBLIC, SCOPES, Broker, House, choice, house_at, key_of

VERIFIER = config.Identity(verifier_url="https://app.example/verify?x=1")


async def start(broker: Broker, user: str = "alice", **fields: Any) -> Flow:
    values: dict[str, Any] = {"provider": "acme", "scopes": SCOPES}
    return await broker.flows.start(caller=CALLER, user=user, **(values | fields))


async def ended(broker: Broker, flow: Flow) -> Flow:
    return await broker.flows.flow(flow.id)


def brought(broker: Broker, arrival: Arrival) -> str:
    """The `flow_id` that the browser brings to the verifier."""
    destination = broker.flows.destination(arrival.flow)
    assert destination is not None
    return parse_qs(urlsplit(destination).query)["flow_id"][0]


def exchanges(house: House) -> int:
    return sum(call.grant_type == "authorization_code" for call in house.sandbox.requests)


# --- the ordinary way


async def test_a_consent_from_start_to_end(house: House) -> None:
    broker = await house.broker()
    flow = await start(broker)
    assert flow.status is FlowStatus.NOT_STARTED
    assert broker.flows.link(flow) == f"{PUBLIC}/connect/{flow.id}"
    page = await broker.flows.open(flow.id)
    assert page.flow == flow, "a look has no effect"
    callback, cookie = await house.leave(broker, flow, as_user="alice")
    assert (await ended(broker, flow)).status is FlowStatus.PENDING
    arrival = await house.arrive(broker, callback, cookie)
    assert (arrival.flow.status, arrival.location) == (FlowStatus.COMPLETED, None)
    row = await house.row(broker)
    assert arrival.flow.connection_id == row.id
    assert (row.state, row.refreshable, row.scopes) == (State.ACTIVE, True, SCOPES)
    assert row.provider_account is not None
    kinds = await house.kinds(broker)
    assert kinds == ["flow.started", "flow.opened", "flow.completed", "connection.connected"]


@pytest.mark.scenario("H08")
async def test_pkce_and_state_are_fresh_each_time_and_never_kept_in_the_clear(house: House) -> None:
    broker = await house.broker()
    seen: set[str] = set()
    for _ in range(5):
        flow = await start(broker, again=True)
        for _ in range(2):  # the button, pressed twice
            departure = await broker.flows.go(flow.id, None)
            query = {name: values[0] for name, values in parse_qs(urlsplit(departure.url).query).items()}
            assert query["code_challenge_method"] == "S256"
            assert len(query["code_challenge"]) == 43
            seen |= {query["state"], query["code_challenge"], departure.cookie}
            verifier = await broker.vault.flow_verifier(flow.id)
            assert verifier is not None
            assert 43 <= len(verifier.reveal()) <= 128
            assert query["state"] not in departure.cookie
            seen.add(verifier.reveal())
            shown = repr((departure, await ended(broker, flow)))
            assert not any(text in shown for text in seen)
    assert len(seen) == 5 * 2 * 4
    stored = b"".join(path.read_bytes() for path in house.path.parent.glob("store.db*"))
    assert not any(text.encode() in stored for text in seen)


@pytest.mark.scenario("H05")
async def test_begun_here_finished_there(house: House) -> None:
    here, there = await house.broker(), await house.broker()
    flow = await start(here)
    callback, cookie = await house.leave(here, flow, as_user="alice")
    waiting = asyncio.create_task(here.flows.wait(flow.id, 30))
    await asyncio.sleep(0)
    assert (await house.arrive(there, callback, cookie)).flow.status is FlowStatus.COMPLETED
    assert (await asyncio.wait_for(waiting, 5)).status is FlowStatus.COMPLETED
    assert (await here.token()).generation == 1


# --- who may


@pytest.mark.scenario("H10", "I01")
async def test_only_a_caller_that_may_act_for_the_user_starts(house: House) -> None:
    broker = await house.broker()
    narrow = Caller("default", "worker", "api_key", ("bob",))
    with pytest.raises(UserNotAllowed):
        await broker.flows.start(caller=narrow, user="alice", provider="acme")
    with pytest.raises(BadRequest) as caught:
        await start(broker, provider="nobody")
    assert caught.value.reason == "unknown_provider"
    flow = await start(broker)
    with pytest.raises(NotFound):
        await broker.flows.flow(flow.id, tenant="other")
    with pytest.raises(NotFound):
        await broker.flows.wait("flow_unknown", 0)


@pytest.mark.scenario("H01")
async def test_another_browser_finishes_nothing(house: House) -> None:
    broker = await house.broker()
    flow = await start(broker)
    callback, cookie = await house.leave(broker, flow, as_user="bob")
    for wrong in (None, "", "x" * 43, cookie[:-1], cookie + "a"):
        with pytest.raises(BadRequest) as caught:
            await house.arrive(broker, callback, wrong)
        assert caught.value.reason == "other_browser"
    assert exchanges(house) == 0, "the code is left unused"
    assert await broker.vault.find(key_of()) is None
    assert (await house.kinds(broker)).count("flow.refused") == 5
    assert (await house.arrive(broker, callback, cookie)).flow.status is FlowStatus.COMPLETED


@pytest.mark.scenario("H02")
async def test_a_stolen_callback_is_worth_nothing_in_the_victims_browser(house: House) -> None:
    broker = await house.broker()
    mine, theirs = await start(broker, "alice"), await start(broker, "bob")
    callback, _ = await house.leave(broker, mine, as_user="alice")
    _, victims = await house.leave(broker, theirs, as_user="bob")
    with pytest.raises(BadRequest):
        await house.arrive(broker, callback, victims)
    assert exchanges(house) == 0


@pytest.mark.scenario("H02")
async def test_flows_side_by_side_in_one_browser_both_work(house: House) -> None:
    broker = await house.broker()
    one, two = await start(broker), await start(broker, provider="other")
    first = await broker.flows.go(one.id, None)
    second = await broker.flows.go(two.id, first.cookie)
    assert second.cookie == first.cookie
    forged = await broker.flows.go(two.id, "short")
    assert forged.cookie != "short"


@pytest.mark.scenario("H07")
async def test_a_state_belongs_to_its_provider(house: House) -> None:
    broker = await house.broker()
    flow = await start(broker)
    callback, cookie = await house.leave(broker, flow, as_user="alice")
    with pytest.raises(BadRequest) as caught:
        await house.arrive(broker, callback.replace("/callback/acme", "/callback/other"), cookie)
    assert caught.value.reason == "provider_mismatch"
    assert exchanges(house) == 0
    assert (await ended(broker, flow)).status is FlowStatus.PENDING


@pytest.mark.scenario("H07")
@pytest.mark.parametrize("iss", ["wrong", "missing"])
async def test_the_issuer_of_the_answer_is_checked(tmp_path: Path, iss: str) -> None:
    async with house_at(tmp_path) as house:
        mine = config.ProviderChoice(
            issuer=house.sandbox.base_url,
            client_id=CLIENT_ID,
            client_secret=Secret("CANARY-client-secret-3b1f"),
        )
        broker = await house.broker(providers={"acme": mine})
        await broker.registrations.provider("acme")  # it has promised to name itself
        house.sandbox.switches.update({"iss": iss})
        flow = await start(broker)
        callback, cookie = await house.leave(broker, flow, as_user="alice")
        arrival = await house.arrive(broker, callback, cookie)
        assert (arrival.flow.status, arrival.flow.reason) == (FlowStatus.FAILED, "issuer_mismatch")
        assert exchanges(house) == 0


@pytest.mark.scenario("H07", "H10", "J07")
async def test_discovery_completes_a_provider_and_its_id_token_is_checked(house: House) -> None:
    mine = config.ProviderChoice(
        issuer=house.sandbox.base_url, client_id=CLIENT_ID, client_secret=Secret("CANARY-client-secret-3b1f")
    )
    broker = await house.broker(providers={"acme": mine})
    flow = await start(broker, scopes=("openid", "read"))
    callback, cookie = await house.leave(broker, flow, as_user="alice")
    arrival = await house.arrive(broker, callback, cookie)
    assert arrival.flow.status is FlowStatus.COMPLETED, arrival.flow.reason
    assert (await house.row(broker)).provider_account is not None


@pytest.mark.scenario("J07")
async def test_a_provider_out_of_reach_is_nobody_elses_trouble(house: House) -> None:
    gone = config.ProviderChoice(issuer="http://127.0.0.1:9", client_id="x", client_auth="none")
    broker = await house.broker(providers={"acme": choice(house.sandbox.base_url), "gone": gone})
    await house.connect(broker)
    flow = await start(broker, provider="gone", scopes=())
    with pytest.raises(Exception, match="does not say where") as caught:
        await broker.flows.go(flow.id, None)
    assert type(caught.value).__name__ == "ProviderUnavailable"


# --- exactly once


@pytest.mark.scenario("H03")
async def test_two_identical_callbacks_are_one_exchange(house: House) -> None:
    broker, other = await house.broker(), await house.broker()
    flow = await start(broker)
    callback, cookie = await house.leave(broker, flow, as_user="alice")
    arrivals = await asyncio.gather(
        *(house.arrive(each, callback, cookie) for each in (broker, other, broker, other))
    )
    assert {arrival.flow.status for arrival in arrivals} == {FlowStatus.COMPLETED}
    assert exchanges(house) == 1
    assert (await house.arrive(other, callback, cookie)).flow.status is FlowStatus.COMPLETED
    assert exchanges(house) == 1
    assert house.sandbox.live_refresh_digests(), "a second exchange would have revoked the first one's tokens"


@pytest.mark.scenario("H03")
async def test_a_button_pressed_again_in_the_middle_of_a_callback_leaves_nothing_stuck(house: House) -> None:
    broker = await house.broker()
    flow = await start(broker)
    await house.leave(broker, flow, as_user="alice")
    seen = await ended(broker, flow)  # what the callback has read when the button is pressed once more
    callback, cookie = await house.leave(broker, flow, as_user="alice")
    with pytest.raises(BadRequest) as caught:
        await broker.flows._claim_and_finish(seen, {"code": "of the first tab"})
    assert caught.value.reason == "state_unknown"
    assert (await ended(broker, flow)).status is FlowStatus.PENDING
    assert (await house.arrive(broker, callback, cookie)).flow.status is FlowStatus.COMPLETED


@pytest.mark.scenario("H03", "A12")
async def test_a_tab_that_is_closed_does_not_lose_the_tokens(house: House) -> None:
    broker = await house.broker()
    flow = await start(broker)
    callback, cookie = await house.leave(broker, flow, as_user="alice")
    house.sandbox.hold(after=True)
    tab = asyncio.create_task(house.arrive(broker, callback, cookie))
    await house.sandbox.arrived(1)
    tab.cancel()
    with pytest.raises(asyncio.CancelledError):
        await tab
    house.sandbox.release()
    assert (await broker.flows.wait(flow.id, 10)).status is FlowStatus.COMPLETED
    assert (await broker.token()).generation == 1


@pytest.mark.scenario("H03", "H05")
async def test_a_crash_between_exchange_and_save_leaves_nothing_stuck(tmp_path: Path) -> None:
    async def failpoint(point: str) -> None:
        if point == "flow.before_save":
            raise MemoryError

    async with house_at(tmp_path) as house:
        broker = await house.broker(failpoint=failpoint)
        flow = await start(broker)
        callback, cookie = await house.leave(broker, flow, as_user="alice")
        with pytest.raises(MemoryError):
            await house.arrive(broker, callback, cookie)
        assert (await ended(broker, flow)).status is FlowStatus.EXCHANGING
        house.clock.push(broker.settings.flows.lifetime + 121)
        flow = await (await house.broker()).flows.wait(flow.id, 50)
        assert (flow.status, flow.reason) == (FlowStatus.FAILED, "interrupted")
        assert await broker.vault.find(key_of()) is None
        await house.connect(await house.broker())


@pytest.mark.scenario("C02")
async def test_both_legs_carry_the_same_redirect_uri(house: House) -> None:
    broker = await house.broker()
    flow = await start(broker)
    callback, cookie = await house.leave(broker, flow, as_user="alice")
    broker.configure(public_url="https://moved.example/below")
    assert (await house.arrive(broker, callback, cookie)).flow.status is FlowStatus.COMPLETED
    assert (await start(broker, again=True)).redirect_uri == "https://moved.example/below/callback/acme"


@pytest.mark.scenario("C04")
async def test_a_client_that_changed_meanwhile_ends_the_flow(house: House) -> None:
    broker = await house.broker()
    flow = await start(broker)
    callback, cookie = await house.leave(broker, flow, as_user="alice")
    broker.configure(providers={"acme": choice(house.sandbox.base_url, client_id="another")})
    arrival = await house.arrive(broker, callback, cookie)
    assert (arrival.flow.status, arrival.flow.reason) == (FlowStatus.FAILED, "client_changed")
    assert exchanges(house) == 0


# --- the user's no, and the provider's


@pytest.mark.scenario("H04", "C07")
async def test_a_denial_is_told_at_once(house: House) -> None:
    broker = await house.broker()
    flow = await start(broker)
    waiting = asyncio.create_task(broker.flows.wait(flow.id, 30))
    callback, cookie = await house.leave(broker, flow, as_user="alice", decision="deny")
    began = time.perf_counter()
    arrival = await house.arrive(broker, callback, cookie)
    assert (arrival.flow.status, arrival.flow.reason) == (FlowStatus.DENIED, "access_denied")
    assert (await waiting).status is FlowStatus.DENIED
    assert time.perf_counter() - began < 2
    assert await broker.vault.find(key_of()) is None


@pytest.mark.scenario("H04", "F03")
@pytest.mark.parametrize(
    "error",
    [
        "consent_required",
        "login_required",
        "server_error",
        "temporarily_unavailable",
        "<script>alert(1)</script>",
        "CANARY-123",
        "",
    ],
)
async def test_other_errors_fail_with_a_word_of_ours(house: House, error: str) -> None:
    broker = await house.broker()
    flow = await start(broker)
    departure = await broker.flows.go(flow.id, None)
    state = parse_qs(urlsplit(departure.url).query)["state"][0]
    arrival = await broker.flows.finish(
        "acme", {"state": state, "error": error, "error_description": "<b>CANARY</b>"}, departure.cookie
    )
    assert arrival.flow.status in (FlowStatus.FAILED, FlowStatus.DENIED)
    reason = arrival.flow.reason or ""
    assert reason.replace("_", "").isalpha(), reason
    assert "CANARY" not in repr(await broker.vault.timeline(key_of()))


@pytest.mark.scenario("H04")
async def test_a_callback_without_state_or_code(house: House) -> None:
    broker = await house.broker()
    with pytest.raises(BadRequest) as caught:
        await broker.flows.finish("acme", {"error": "access_denied"}, "c" * 43)
    assert caught.value.reason == "state_missing"
    with pytest.raises(BadRequest) as caught:
        await broker.flows.finish("acme", {"state": "made-up", "code": "x"}, "c" * 43)
    assert caught.value.reason == "state_unknown"
    flow = await start(broker)
    departure = await broker.flows.go(flow.id, None)
    state = parse_qs(urlsplit(departure.url).query)["state"][0]
    arrival = await broker.flows.finish("acme", {"state": state}, departure.cookie)
    assert arrival.flow.reason == "code_missing"


@pytest.mark.scenario("H08")
async def test_a_code_from_another_flow_is_refused(house: House) -> None:
    broker = await house.broker()
    mine, theirs = await start(broker, "alice"), await start(broker, "bob")
    mine_back, cookie = await house.leave(broker, mine, as_user="alice")
    theirs_back, _ = await house.leave(broker, theirs, as_user="bob")
    swapped = parse_qs(urlsplit(theirs_back).query)["code"][0]
    state = parse_qs(urlsplit(mine_back).query)["state"][0]
    arrival = await broker.flows.finish(
        "acme", {"state": state, "code": swapped, "iss": house.sandbox.base_url}, cookie
    )
    assert arrival.flow.status is FlowStatus.FAILED
    assert await broker.vault.find(key_of()) is None


@pytest.mark.scenario("H04", "B07")
@pytest.mark.parametrize(
    "fault", [{"status": 500}, {"html": True}, {"drop": "after"}, {"error": "invalid_grant", "status": 400}]
)
async def test_an_exchange_that_goes_wrong_ends_the_flow(house: House, fault: dict[str, Any]) -> None:
    broker = await house.broker()
    house.sandbox.switches.update(fault)
    flow = await start(broker)
    callback, cookie = await house.leave(broker, flow, as_user="alice")
    arrival = await house.arrive(broker, callback, cookie)
    assert arrival.flow.status is FlowStatus.FAILED
    assert arrival.flow.reason
    assert exchanges(house) == 1


# --- time


@pytest.mark.scenario("H05")
async def test_what_is_over_time_is_expired_for_everybody(house: House) -> None:
    broker = await house.broker()
    flow = await start(broker)
    callback, cookie = await house.leave(broker, flow, as_user="alice")
    house.clock.push(broker.settings.flows.lifetime + 1)
    assert (await broker.flows.wait(flow.id, 50)).status is FlowStatus.EXPIRED
    for _ in range(2):
        assert (await house.arrive(broker, callback, cookie)).flow.status is FlowStatus.EXPIRED
    assert exchanges(house) == 0
    with pytest.raises(BadRequest):
        await broker.flows.go(flow.id, cookie)


@pytest.mark.scenario("H05")
async def test_the_sweep_ends_what_nobody_asks_about(house: House) -> None:
    broker = await house.broker()
    flow = await start(broker)
    house.clock.push(broker.settings.flows.lifetime + 1)
    assert await broker.flows.sweep() == 1
    assert (await ended(broker, flow)).status is FlowStatus.EXPIRED


async def test_a_wait_ends_with_its_own_time(house: House) -> None:
    broker = await house.broker()
    flow = await start(broker)
    began = time.perf_counter()
    assert (await broker.flows.wait(flow.id, 0.2)).status is FlowStatus.NOT_STARTED
    assert time.perf_counter() - began < 2
    assert broker.flows._waiting == {}


# --- floods, reuse, superseding


@pytest.mark.scenario("H06")
async def test_open_flows_are_reused_and_bounded(house: House) -> None:
    broker = await house.broker()
    flows = await asyncio.gather(*(start(broker) for _ in range(50)))
    assert len({flow.id for flow in flows}) == 1
    most = broker.settings.flows.max_pending
    for n in range(most - 1):
        await start(broker, account=f"account{n}")
    with pytest.raises(Overloaded):
        await start(broker, account="one-more")
    assert (await start(broker, "bob")).key.user == "bob", "another user's bound is another"
    assert await broker.vault.pending_flows("default", "alice") == most


@pytest.mark.scenario("H06")
async def test_a_thousand_refusals_write_one_row(house: House) -> None:
    broker, other = await house.broker(), await house.broker()
    links = {await broker.flows.link_for(key_of(), ("read",), "worker") for _ in range(1000)}
    links.add(await other.flows.link_for(key_of(), ("read",), "another"))
    assert len(links) == 1
    assert await broker.vault.pending_flows("default", "alice") == 1
    await broker.vault.close()
    links.add(await broker.flows.link_for(key_of(), ("read",), "worker"))
    assert len(links) == 1, "handed out again without a look at the store"


@pytest.mark.scenario("H05")
@pytest.mark.parametrize("decision", ["allow", "deny"])
async def test_a_link_that_was_used_is_not_handed_out_again(house: House, decision: str) -> None:
    """Who is refused right after a consent (it was denied or narrowed, or the grant died at once) gets a link that
    leads to a consent, and not to a page that says how the last one ended."""
    broker, other = await house.broker(), await house.broker()
    link = await broker.flows.link_for(key_of(), ("read",), "worker")
    assert await other.flows.link_for(key_of(), ("read",), "worker") == link
    flow = await broker.flows.flow(link.rsplit("/", 1)[1])
    callback, cookie = await house.leave(broker, flow, as_user="alice", decision=decision)
    assert (await house.arrive(broker, callback, cookie)).flow.status.ended
    again = await broker.flows.link_for(key_of(), ("read",), "worker")
    assert again != link, "at once where it ended"
    house.clock.push(5)
    assert await other.flows.link_for(key_of(), ("read",), "worker") == again, (
        "and within the leash elsewhere"
    )


@pytest.mark.scenario("B16", "H05")
async def test_a_clock_set_back_does_not_keep_a_dead_link(house: House) -> None:
    broker = await house.broker()
    link = await broker.flows.link_for(key_of(), ("read",), "worker")
    flow_id = link.rsplit("/", 1)[1]
    assert (
        await broker.vault.move_flow(flow_id, expect=FlowStatus.NOT_STARTED, to=FlowStatus.DENIED) is not None
    )
    house.clock.ahead -= 86400
    assert await broker.flows.link_for(key_of(), ("read",), "worker") != link


@pytest.mark.scenario("H06")
async def test_agents_with_different_needs_end_on_one_link(house: House) -> None:
    broker = await house.broker()
    last = ""
    for _ in range(3):
        for scopes in (("read",), ("write",)):
            house.clock.push(31)
            last = await broker.flows.link_for(key_of(), scopes, "worker")
    flow = await broker.flows.flow(last.rsplit("/", 1)[1])
    assert set(flow.scopes) == {"read", "write"}
    assert await broker.flows.link_for(key_of(), ("read",), "worker") == last


@pytest.mark.scenario("H06")
async def test_a_link_that_nobody_opened_asks_for_more_instead_of_ending(house: House) -> None:
    broker = await house.broker()
    one = await start(broker, scopes=("read",))
    waiting = asyncio.create_task(broker.flows.wait(one.id, 30))
    await asyncio.sleep(0)
    found = await asyncio.gather(*(start(broker, scopes=(scope,)) for scope in ("write", "profile")))
    assert {flow.id for flow in found} == {one.id}
    link = await broker.flows.link_for(key_of(), ("profile",), "worker")
    assert link == broker.flows.link(one)
    callback, cookie = await house.leave(broker, one, as_user="alice")
    assert set((await ended(broker, one)).scopes) == {"read", "write", "profile"}
    arrival = await house.arrive(broker, callback, cookie)
    assert (arrival.flow.id, arrival.flow.status) == (one.id, FlowStatus.COMPLETED)
    assert (await waiting).status is FlowStatus.COMPLETED
    assert set((await house.row(broker)).scopes) == {"read", "write", "profile"}


async def test_another_agents_link_is_not_made_to_ask_for_more(house: House) -> None:
    broker = await house.broker()
    one = await start(broker, scopes=("read",))
    other = Caller("default", "another", "api_key", ("*",))
    two = await broker.flows.start(caller=other, user="alice", provider="acme", scopes=("write",))
    assert two.id != one.id
    assert set((await ended(broker, one)).scopes) == {"read"}


async def test_a_newer_flow_ends_the_older_ones(house: House) -> None:
    broker = await house.broker()
    old = await start(broker, scopes=("read",))
    callback, cookie = await house.leave(broker, old, as_user="alice")
    waiting = asyncio.create_task(broker.flows.wait(old.id, 30))
    await asyncio.sleep(0)
    new = await start(broker, scopes=("write",))
    assert new.id != old.id
    assert (await waiting).status is FlowStatus.SUPERSEDED
    assert (await house.arrive(broker, callback, cookie)).flow.status is FlowStatus.SUPERSEDED
    assert exchanges(house) == 0


async def test_what_is_connected_already_is_completed_at_once(house: House) -> None:
    broker = await house.broker()
    connection = await house.connect(broker)
    flow = await start(broker, scopes=("read",))
    assert (flow.status, flow.connection_id) == (FlowStatus.COMPLETED, connection.id)
    assert (await start(broker, scopes=("read",), again=True)).status is FlowStatus.NOT_STARTED


@pytest.mark.scenario("D09")
async def test_a_new_flow_asks_for_old_and_new_scopes(house: House) -> None:
    broker = await house.broker(providers={"acme": choice(house.sandbox.base_url, scopes=("profile",))})
    await house.connect(broker, scopes=("read",))
    assert set((await start(broker, scopes=("write",))).scopes) == {"profile", "read", "write"}


# --- where the browser ends


@pytest.mark.scenario("H09")
@pytest.mark.parametrize(
    "uri",
    [
        "//evil.example",
        "/\\evil.example",
        "https:evil.example",
        "https://app.example@evil.example/",
        "https://app.example.evil.example/",
        "https://evil-app.example/",
        "http://app.example/done",
        "https://app.example:444/done",
        "https://app.example/done-not",
        "https://app.example/done/../elsewhere",
        "https://app.example/done/%2e%2e/elsewhere",
        "https://app.example/done/%252e%252e/elsewhere",
        "https://app.example\t/done",
        "https://app.example/done\nx",
        " https://app.example/done",
        "javascript:alert(1)",
        "data:text/html,x",
        "https://[app.example/done",
        "https://app.example:port/done",
        "/ok\\@evil.example",
        "",
        "x" * 3000,
    ],
)
async def test_no_open_redirect(house: House, uri: str) -> None:
    broker = await house.broker(flows=config.Flows(next_uri_allow=("https://app.example/done",)))
    with pytest.raises(BadRequest) as caught:
        await start(broker, next_uri=uri)
    assert caught.value.reason == "next_uri_refused"


@pytest.mark.scenario("H09")
@pytest.mark.parametrize(
    ("uri", "kept"),
    [
        ("/done?x=//evil", f"{PUBLIC}/done?x=//evil"),
        (f"{PUBLIC}/done", f"{PUBLIC}/done"),
        ("https://app.example/done", "https://app.example/done"),
        ("https://APP.example:443/done/more?next=https://evil.example", None),
    ],
)
def test_what_is_allowed_is_kept_as_it_is(uri: str, kept: str | None) -> None:
    assert checked_next(uri, public_url=PUBLIC, allow=("https://app.example/done",)) == (kept or uri)


# --- whose account


@pytest.mark.scenario("H10", "B03")
async def test_a_reconnect_with_another_account_is_refused(house: House) -> None:
    broker = await house.broker()
    before = await house.connect(broker, as_user="alice")
    flow = await start(broker, again=True)
    callback, cookie = await house.leave(broker, flow, as_user="bob")
    arrival = await house.arrive(broker, callback, cookie)
    assert (arrival.flow.status, arrival.flow.reason) == (FlowStatus.FAILED, "account_mismatch")
    assert await house.row(broker) == before
    assert (await broker.token()).generation == 1, "the old grant still works"


@pytest.mark.scenario("H10")
async def test_a_reconnect_whose_account_cannot_be_learnt_is_refused(house: House) -> None:
    broker = await house.broker()
    await house.connect(broker)
    house.sandbox.switches.update({"userinfo_status": 503})
    flow = await start(broker, again=True)
    callback, cookie = await house.leave(broker, flow, as_user="alice")
    arrival = await house.arrive(broker, callback, cookie)
    assert (arrival.flow.status, arrival.flow.reason) == (FlowStatus.FAILED, "account_unknown")


@pytest.mark.scenario("H10", "A19")
async def test_a_first_consent_does_not_hang_on_userinfo(house: House) -> None:
    broker = await house.broker()
    house.sandbox.switches.update({"userinfo_status": 403})
    assert (await house.connect(broker)).provider_account is None


@pytest.mark.scenario("H10")
async def test_after_a_disconnect_another_account_may_come(house: House) -> None:
    broker = await house.broker()
    connection = await house.connect(broker, as_user="alice")
    await broker.grants.disconnect(connection.id, tenant=None)
    assert (await house.connect(broker, as_user="bob")).provider_account == "sandbox|bob"


@pytest.mark.scenario("B02")
async def test_a_consent_without_refresh_token_is_asked_again_once(house: House) -> None:
    broker = await house.broker()
    house.sandbox.switches.update({"omit_refresh_token_at_consent": True})
    flow = await start(broker)
    callback, cookie = await house.leave(broker, flow, as_user="alice")
    arrival = await house.arrive(broker, callback, cookie)
    assert arrival.flow.status is FlowStatus.PENDING, "not connected"
    assert arrival.location is not None
    assert await broker.vault.find(key_of()) is None
    again = await approve(house.session, arrival.location, "alice")
    arrival = await house.arrive(broker, again, cookie)
    assert (arrival.flow.status, arrival.flow.reason) == (FlowStatus.FAILED, "no_refresh_token")
    assert exchanges(house) == 2


@pytest.mark.scenario("B02")
async def test_the_second_try_may_bring_the_refresh_token(house: House) -> None:
    broker = await house.broker()
    house.sandbox.switches.update({"omit_refresh_token_at_consent": True})
    flow = await start(broker)
    callback, cookie = await house.leave(broker, flow, as_user="alice")
    arrival = await house.arrive(broker, callback, cookie)
    house.sandbox.reset()
    assert arrival.location is not None
    arrival = await house.arrive(broker, await approve(house.session, arrival.location, "alice"), cookie)
    assert arrival.flow.status is FlowStatus.COMPLETED
    assert (await house.row(broker)).refreshable


@pytest.mark.scenario("B02")
async def test_the_stored_refresh_token_of_the_same_account_is_kept(house: House) -> None:
    broker = await house.broker()
    await house.connect(broker)
    house.sandbox.switches.update({"omit_refresh_token_at_consent": True, "max_grants": 0})
    flow = await start(broker, again=True)
    callback, cookie = await house.leave(broker, flow, as_user="alice")
    assert (await house.arrive(broker, callback, cookie)).flow.status is FlowStatus.COMPLETED
    row = await house.row(broker)
    assert (row.generation, row.refreshable) == (2, True)
    leased = await broker.vault.lease(row.id, holder="test", seconds=5)
    assert leased is not None, "the lease was let go"
    kept = (await leased.tokens()).refresh_token
    assert kept is not None
    assert digest_of(kept.reveal()) in house.sandbox.live_refresh_digests()


@pytest.mark.scenario("B02", "H10")
async def test_the_stored_refresh_token_of_another_account_is_never_used(house: House) -> None:
    broker = await house.broker()
    await house.connect(broker, as_user="bob")
    house.sandbox.switches.update({"omit_refresh_token_at_consent": True})
    flow = await start(broker, again=True)
    callback, cookie = await house.leave(broker, flow, as_user="alice")
    arrival = await house.arrive(broker, callback, cookie)
    assert arrival.flow.reason == "account_mismatch"
    assert (await house.row(broker)).provider_account == "sandbox|bob"


@pytest.mark.scenario("B02", "H10")
async def test_a_stored_refresh_token_of_nobody_knows_whom_is_not_used(house: House) -> None:
    broker = await house.broker()
    house.sandbox.switches.update({"userinfo_status": 503})
    await house.connect(broker, as_user="bob")
    house.sandbox.reset()
    house.sandbox.switches.update({"omit_refresh_token_at_consent": True})
    flow = await start(broker, again=True)
    callback, cookie = await house.leave(broker, flow, as_user="alice")
    arrival = await house.arrive(broker, callback, cookie)
    assert arrival.location is not None, "asked again, instead of mixing two accounts' tokens"
    assert (await house.row(broker)).generation == 1


@pytest.mark.scenario("B17")
async def test_fewer_scopes_than_asked_are_a_connection_and_said(house: House) -> None:
    broker = await house.broker()
    house.sandbox.switches.update({"narrow_scopes": ("read",)})
    connection = await house.connect(broker)
    assert connection.scopes == ("read",)
    assert set(connection.requested_scopes) == set(SCOPES)
    event = next(e for e in await broker.vault.timeline(key_of()) if e.kind == "connection.connected")
    assert event.data["scopes_lacking"] == ["write"]


@pytest.mark.scenario("B27")
async def test_a_reconnect_that_is_walked_away_from_harms_nothing(house: House) -> None:
    broker = await house.broker()
    await house.connect(broker)
    flow = await start(broker, again=True)
    await house.leave(broker, flow, as_user="alice")
    house.clock.push(broker.settings.flows.lifetime + 1)
    await broker.flows.sweep()
    assert (await broker.token()).generation == 1
    assert (await house.row(broker)).state is State.ACTIVE


# --- your application confirms


@pytest.mark.scenario("H01")
async def test_with_a_verifier_nothing_is_kept_before_it_spoke(house: House) -> None:
    broker = await house.broker(identity=VERIFIER)
    flow = await start(broker, next_uri="/done")
    callback, cookie = await house.leave(broker, flow, as_user="alice")
    arrival = await house.arrive(broker, callback, cookie)
    assert arrival.flow.status is FlowStatus.CONFIRMING
    ticket = brought(broker, arrival)
    assert broker.flows.destination(arrival.flow) == f"https://app.example/verify?x=1&flow_id={ticket}"
    assert await broker.vault.find(key_of()) is None
    done = await asyncio.gather(
        *(broker.flows.confirm(caller=CALLER, ticket=ticket, user="alice") for _ in range(3))
    )
    assert {one.status for one in done} == {FlowStatus.COMPLETED}
    assert broker.flows.destination(done[0]) == f"{PUBLIC}/done"
    assert (await broker.token()).generation == 1


@pytest.mark.scenario("H01")
async def test_the_wrong_person_ends_the_flow_and_what_was_given_is_revoked(house: House) -> None:
    broker = await house.broker(identity=VERIFIER)
    flow = await start(broker, "alice")
    callback, cookie = await house.leave(broker, flow, as_user="bob")
    arrival = await house.arrive(broker, callback, cookie)
    with pytest.raises(UserMismatch):
        await broker.flows.confirm(caller=CALLER, ticket=brought(broker, arrival), user="bob")
    now = await ended(broker, flow)
    assert (now.status, now.reason) == (FlowStatus.FAILED, "user_mismatch")
    assert house.sandbox.live_refresh_digests() == set()
    assert await broker.vault.held_tokens(flow.id) is None
    assert await broker.vault.find(key_of()) is None


@pytest.mark.scenario("H01", "B03")
@pytest.mark.parametrize("told", [True, False], ids=["account-told", "account-not-told"])
async def test_the_wrong_persons_own_connection_is_not_revoked_with_it(house: House, told: bool) -> None:
    """Many providers revoke by user and client: bob, who opened alice's link, would lose his grant by our doing."""
    broker = await house.broker(identity=VERIFIER)
    if not told:
        ends = replace(broker.settings.providers["acme"].endpoints, userinfo=None)
        broker.configure(providers={"acme": choice(house.sandbox.base_url, endpoints=ends)})
    await house.connect(await house.broker(providers=broker.settings.providers), "bob")
    flow = await start(broker, "alice")
    callback, cookie = await house.leave(broker, flow, as_user="bob")
    arrival = await house.arrive(broker, callback, cookie)
    with pytest.raises(UserMismatch):
        await broker.flows.confirm(caller=CALLER, ticket=brought(broker, arrival), user="bob")
    assert len(house.sandbox.live_refresh_digests("bob")) == 2, "dropped, and not revoked"
    assert await broker.vault.held_tokens(flow.id) is None


@pytest.mark.scenario("H01")
async def test_who_may_confirm(house: House) -> None:
    broker = await house.broker(identity=VERIFIER)
    flow = await start(broker)
    callback, cookie = await house.leave(broker, flow, as_user="alice")
    ticket = brought(broker, await house.arrive(broker, callback, cookie))
    with pytest.raises(NotFound):
        await broker.flows.confirm(
            caller=Caller("other", "x", "api_key", ("*",)), ticket=ticket, user="alice"
        )
    with pytest.raises(UserNotAllowed):
        await broker.flows.confirm(
            caller=Caller("default", "x", "api_key", ("bob",)), ticket=ticket, user="bob"
        )
    assert (await ended(broker, flow)).status is FlowStatus.CONFIRMING


@pytest.mark.scenario("H01")
async def test_who_made_the_link_cannot_confirm_what_somebody_else_consented_to(house: House) -> None:
    """Mallory's agent sends mallory's link to alice. It knows the flow's id, and never sees alice's browser."""
    broker = await house.broker(identity=VERIFIER)
    agent = Caller("default", "x", "api_key", ("mallory",), bound_user="mallory")
    flow = await broker.flows.start(caller=agent, user="mallory", provider="acme", scopes=SCOPES)
    with pytest.raises(BadRequest):
        await broker.flows.confirm(caller=agent, ticket=flow.id, user="mallory")
    callback, cookie = await house.leave(broker, flow, as_user="alice")
    await house.arrive(broker, callback, cookie)
    for ticket in (flow.id, f"{flow.id}.", f"{flow.id}.{'0' * 64}"):
        with pytest.raises(BadRequest):
            await broker.flows.confirm(caller=agent, ticket=ticket, user="mallory")
    assert (await ended(broker, flow)).status is FlowStatus.CONFIRMING
    assert await broker.vault.find(key_of("mallory")) is None


@pytest.mark.scenario("H01")
async def test_a_contradiction_does_not_revoke_what_was_confirmed(house: House) -> None:
    broker = await house.broker(identity=VERIFIER)
    flow = await start(broker)
    callback, cookie = await house.leave(broker, flow, as_user="alice")
    ticket = brought(broker, await house.arrive(broker, callback, cookie))
    said = await asyncio.gather(
        broker.flows.confirm(caller=CALLER, ticket=ticket, user="alice"),
        broker.flows.confirm(caller=CALLER, ticket=ticket, user="bob"),
        return_exceptions=True,
    )
    assert isinstance(said[1], UserMismatch)
    now = await ended(broker, flow)
    kept = house.sandbox.live_refresh_digests() != set()
    assert kept is (now.status is FlowStatus.COMPLETED)


@pytest.mark.scenario("H05", "H01")
async def test_held_tokens_end_with_the_flow(house: House) -> None:
    broker = await house.broker(identity=VERIFIER)
    flow = await start(broker)
    callback, cookie = await house.leave(broker, flow, as_user="alice")
    ticket = brought(broker, await house.arrive(broker, callback, cookie))
    house.clock.push(broker.settings.flows.lifetime + 1)
    now = await broker.flows.confirm(caller=CALLER, ticket=ticket, user="alice")
    assert now.status is FlowStatus.EXPIRED
    assert await broker.vault.held_tokens(flow.id) is None


async def test_an_incomplete_client_says_so_before_the_user_is_sent_anywhere(house: House) -> None:
    broker = await house.broker(providers={"acme": choice(house.sandbox.base_url, client_secret=None)})
    with pytest.raises(ProviderMisconfigured):
        await start(broker)


async def test_public_clients_use_pkce_alone(house: House) -> None:
    house.sandbox.register(
        Registration(CLIENT_ID, "public", auth=("none",), redirect_uris=(f"{PUBLIC}/callback/acme",))
    )
    public = choice(house.sandbox.base_url, client_secret=None, client_auth="none")
    broker = await house.broker(providers={"acme": public})
    await house.connect(broker)
    house.clock.push(3601)
    assert (await broker.token()).generation == 2
