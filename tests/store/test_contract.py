"""What every backend must do. A new backend is one more parameter of `url` in conftest.py."""

from __future__ import annotations

import asyncio
import dataclasses

import pytest

from authproxy.core.errors import KeyMissing, StoreUnavailable
from authproxy.core.model import ConnectionKey, Environment, FlowStatus, State
from authproxy.core.secret import Secret
from authproxy.store.base import Contended, GrantChanged, LeaseLost, Transaction
from authproxy.store.connections import SPENT_KEPT
from authproxy.store.flows import ENDED_KEPT, EXCHANGE_GRACE
from authproxy.store.lease import Standing
from authproxy.store.schema import MIGRATIONS
from authproxy.store.sealing import Keyring, generate_key
from authproxy.store.vault import Leased, Vault
from tests.store.parts import KEY, NOW, agent, event, flow, grant, tokens


async def leased(vault: Vault, connection_id: str, seconds: float = 60, holder: str = "one") -> Leased:
    lease = await vault.lease(connection_id, holder=holder, seconds=seconds)
    assert lease is not None
    return lease


# -- grants


async def test_a_grant_is_kept_and_found(vault: Vault) -> None:
    kept = await vault.keep_grant(grant(word="x"), [event()])
    assert kept.generation == 1
    assert kept.state is State.ACTIVE
    assert kept.refreshable
    assert await vault.find(KEY) == kept
    assert await vault.get(kept.id, tenant="acme") == kept
    assert await vault.get(kept.id, tenant="other") is None
    found = await vault.access(KEY)
    assert found is not None
    assert found == (kept, Secret("CANARY-at-x"))
    assert await vault.generation(kept.id) == (1, State.ACTIVE)
    assert [(e.kind, e.connection_id) for e in await vault.timeline(kept.id)] == [
        ("connection.made", kept.id)
    ]
    assert await vault.timeline(KEY) == await vault.timeline(kept.id)


@pytest.mark.scenario("I01", "I03")
@pytest.mark.parametrize("part", ["tenant", "user", "provider", "account"])
async def test_each_part_of_the_key_tells_connections_apart(vault: Vault, part: str) -> None:
    await vault.keep_grant(grant(), [])
    other = KEY._replace(**{part: "other"})
    assert await vault.find(other) is None
    assert await vault.access(other) is None
    kept = await vault.keep_grant(grant(other, word="other"), [])
    found = await vault.access(other)
    assert found is not None
    assert found == (kept, Secret("CANARY-at-other"))
    assert kept.id != (await vault.find(KEY)).id  # type: ignore[union-attr]


@pytest.mark.scenario("E14")
async def test_reconnecting_keeps_the_id_and_one_live_row(vault: Vault) -> None:
    first = await vault.keep_grant(grant(word="a"), [event()])
    second = await vault.keep_grant(grant(word="b"), [event()])
    await vault.disconnect(first.id, [event("connection.disconnected")])
    assert await vault.find(KEY) is None
    assert await vault.access(KEY) is None
    third = await vault.keep_grant(grant(word="c"), [event()])
    assert first.id == second.id == third.id
    assert (first.generation, second.generation, third.generation) == (1, 2, 4)
    assert len({first.grant_id, second.grant_id, third.grant_id}) == 3
    assert await vault.list(tenant="acme") == [third]
    assert len(await vault.timeline(KEY)) == 4


@pytest.mark.scenario("E14")
async def test_two_consents_at_once_leave_one_connection(vault: Vault) -> None:
    kept = await asyncio.gather(*(vault.keep_grant(grant(), [event()]) for _ in range(8)))
    assert len({connection.id for connection in kept}) == 1
    assert sorted(connection.generation for connection in kept) == [*range(1, 9)]


async def test_a_disconnected_connection_is_a_tombstone(vault: Vault) -> None:
    kept = await vault.keep_grant(grant(word="x"), [])
    held = await vault.disconnect(kept.id, [event("connection.disconnected")], reason="user")
    assert held is not None
    assert held.refresh_token == Secret("CANARY-rt-x")
    assert await vault.disconnect(kept.id, [event("connection.disconnected")]) is None
    assert await vault.list(tenant="acme") == []
    (tombstone,) = await vault.list(tenant="acme", state=State.DISCONNECTED)
    assert (tombstone.reason, tombstone.generation, tombstone.refreshable) == ("user", 2, False)
    assert await vault.generation(kept.id) == (2, State.DISCONNECTED)
    assert await vault.lease(kept.id, holder="one", seconds=60) is None
    assert len(await vault.timeline(kept.id)) == 1
    rows = await vault.backend.read("SELECT access_token, refresh_token, refresh_digest FROM connections")
    assert [tuple(row) for row in rows] == [(None, None, None)]  # type: ignore[call-overload]
    assert await vault.disconnect("nobody", []) is None


async def test_whose_connection_a_grant_may_be(vault: Vault) -> None:
    """Before a grant is revoked that nobody keeps: a provider may end with it all that the account has."""
    bobs = KEY._replace(user="bob")
    told = await vault.keep_grant(grant(bobs, provider_account="bob@example.com"), [])
    elsewhere = ConnectionKey("other", "carol", KEY.provider)
    assert await vault.is_connected(elsewhere, "client-1", "bob@example.com"), "whatever the tenant"
    assert not await vault.is_connected(KEY, "client-2", "bob@example.com", "bob"), (
        "another client's is another"
    )
    assert not await vault.is_connected(KEY, "client-1", "bob@elsewhere", "bob"), "another account of bob's"
    assert not await vault.is_connected(KEY, "client-1", None)
    assert await vault.is_connected(KEY, "client-1", None, "bob"), "not known, so perhaps"
    await vault.disconnect(told.id, [])
    assert not await vault.is_connected(KEY, "client-1", "bob@example.com", "bob")
    await vault.keep_grant(grant(bobs, provider_account=None), [])
    assert await vault.is_connected(KEY, "client-1", "bob@example.com", "bob"), "not known, so perhaps"
    assert not await vault.is_connected(KEY, "client-1", "bob@example.com", "dave")


async def test_lists_are_filtered_and_paged(vault: Vault) -> None:
    for number in range(5):
        for tenant in ("acme", "other"):
            await vault.keep_grant(grant(ConnectionKey(tenant, f"user-{number}", "google")), [])
    await vault.keep_grant(grant(ConnectionKey("acme", "user-1", "slack")), [])
    everything = await vault.list(tenant=None)
    assert len(everything) == 11
    assert len(await vault.list(tenant="acme")) == 6
    assert len(await vault.list(tenant="acme", user="user-1")) == 2
    assert len(await vault.list(tenant="acme", provider="slack")) == 1
    assert await vault.list(tenant="acme", state=State.NEEDS_REAUTH) == []
    paged, after = [], None
    while page := await vault.list(tenant=None, limit=4, after=after):
        paged += page
        after = page[-1].id
    assert paged == everything
    assert await vault.counts() == {("google", State.ACTIVE): 10, ("slack", State.ACTIVE): 1}


async def test_what_is_due_comes_soonest_first(vault: Vault) -> None:
    for user, expires_at, refresh in (
        ("a", 30, "x"),
        ("b", 10, "y"),
        ("c", 20, None),
        ("d", None, "z"),
        ("e", 99, "w"),
    ):
        given = tokens(
            user, expires_at=expires_at, refresh_token=None if refresh is None else Secret(refresh)
        )
        await vault.keep_grant(grant(ConnectionKey("acme", user, "google"), tokens=given), [])
    assert [connection.key.user for connection in await vault.due(50)] == ["b", "a"]


# -- the lease


async def test_a_refresh_step_by_step(vault: Vault) -> None:
    kept = await vault.keep_grant(grant(word="1"), [])
    lease = await leased(vault, kept.id)
    assert lease.connection == kept
    assert lease.intent is None
    before = await lease.tokens()
    assert before.refresh_token is not None
    digest = vault.digest(before.refresh_token)
    assert not await lease.is_spent(digest)
    await lease.write_intent(digest, NOW)
    after = await lease.commit(tokens("2"), [event("refresh.done")], spent=digest)
    assert after.generation == 2
    assert await lease.is_spent(digest)
    assert await vault.find(KEY) == after
    await lease.release()
    again = await leased(vault, kept.id, holder="two")
    assert again.intent is None
    assert (await again.tokens()).refresh_token == Secret("CANARY-rt-2")
    assert [e.kind for e in await vault.timeline(kept.id)] == ["refresh.done"]


@pytest.mark.scenario("A30")
async def test_of_many_askers_one_has_the_lease(vault: Vault) -> None:
    kept = await vault.keep_grant(grant(), [])
    taken = await asyncio.gather(*(vault.lease(kept.id, holder=f"h{n}", seconds=60) for n in range(10)))
    (winner,) = [lease for lease in taken if lease is not None]
    assert await vault.lease(kept.id, holder="late", seconds=60) is None
    await winner.release()
    assert await vault.lease(kept.id, holder="late", seconds=60) is not None


@pytest.mark.scenario("A05", "A16")
async def test_who_was_overtaken_writes_nothing(vault: Vault) -> None:
    kept = await vault.keep_grant(grant(word="1"), [])
    old = await leased(vault, kept.id, seconds=0, holder="old")
    new = await leased(vault, kept.id, holder="new")
    assert new.fence > old.fence
    with pytest.raises(LeaseLost):
        await old.commit(tokens("old"), [event("refresh.done")], spent=None)
    with pytest.raises(LeaseLost):
        await old.write_intent("digest", NOW)
    with pytest.raises(LeaseLost):
        await old.renew(60)
    assert not await old.settle(state=State.NEEDS_REAUTH, presented=None, clear_intent=True)
    await old.release()
    assert await vault.lease(kept.id, holder="third", seconds=60) is None, "the release was not ours to make"
    await new.commit(tokens("new"), [], spent=None)
    assert await vault.access(KEY) == (await vault.find(KEY), Secret("CANARY-at-new"))
    assert await vault.timeline(kept.id) == []


@pytest.mark.scenario("A05")
async def test_a_lease_that_ended_may_not_send_but_may_still_save(vault: Vault) -> None:
    kept = await vault.keep_grant(grant(), [])
    lease = await leased(vault, kept.id, seconds=0)
    with pytest.raises(LeaseLost):
        await lease.write_intent("digest", NOW)
    await lease.renew(60)
    await lease.write_intent("digest", NOW)
    await lease.renew(0)
    assert (await lease.commit(tokens("2"), [], spent=None)).generation == 2


@pytest.mark.scenario("A06")
async def test_time_is_the_databases_own(vault: Vault) -> None:
    """The clock given to the vault stands still; leases end all the same, and never by it."""
    kept = await vault.keep_grant(grant(), [])
    await leased(vault, kept.id, seconds=0.001)
    async with asyncio.timeout(10):
        while await vault.lease(kept.id, holder="next", seconds=60) is None:
            continue


async def test_an_end_that_only_a_clock_set_back_explains_does_not_hold(vault: Vault) -> None:
    kept = await vault.keep_grant(grant(), [])
    lease = await leased(vault, kept.id)

    async def set_back(tx: Transaction) -> None:
        await tx.run("UPDATE connections SET lease_until = now_ms() + 3600000")

    await vault.backend.write(set_back)
    taken = await leased(vault, kept.id, holder="two")
    with pytest.raises(LeaseLost):
        await lease.commit(tokens("2"), [], spent=None)
    await taken.commit(tokens("3"), [], spent=None)


@pytest.mark.scenario("A08")
async def test_an_intent_outlives_its_writer(vault: Vault) -> None:
    kept = await vault.keep_grant(grant(), [])
    dead = await leased(vault, kept.id, holder="dead")
    await dead.write_intent("digest", NOW)
    await dead.renew(0)
    heir = await leased(vault, kept.id, holder="heir")
    assert heir.intent == ("digest", NOW, "dead")
    assert await heir.settle(presented=None, clear_intent=True)
    assert heir.intent is None
    await heir.release()
    assert (await leased(vault, kept.id)).intent is None


@pytest.mark.scenario("A18")
async def test_a_disconnect_wins_over_a_refresh_in_flight(vault: Vault) -> None:
    kept = await vault.keep_grant(grant(), [])
    lease = await leased(vault, kept.id)
    await vault.disconnect(kept.id, [])
    for late in (lease.commit(tokens("2"), [event()], spent=None), lease.write_intent("digest", NOW)):
        with pytest.raises(GrantChanged):
            await late
    assert not await lease.settle(state=State.NEEDS_REAUTH, presented=None, clear_intent=True)
    assert await vault.find(KEY) is None
    assert await vault.timeline(kept.id) == []


@pytest.mark.scenario("A18", "B27")
async def test_a_reconnect_wins_over_a_refresh_in_flight(vault: Vault) -> None:
    kept = await vault.keep_grant(grant(word="old"), [])
    lease = await leased(vault, kept.id)
    await lease.write_intent(vault.digest(Secret("CANARY-rt-old")), NOW)
    new = await vault.keep_grant(grant(word="new"), [])
    with pytest.raises(GrantChanged):
        await lease.commit(tokens("late"), [], spent=None)
    assert not await lease.settle(state=State.NEEDS_REAUTH, presented=None, clear_intent=True)
    await lease.release()
    fresh = await leased(vault, kept.id)
    assert fresh.connection == new
    assert fresh.intent is None
    assert (await fresh.tokens()).refresh_token == Secret("CANARY-rt-new")
    assert await fresh.is_spent(vault.digest(Secret("CANARY-rt-old")))


@pytest.mark.scenario("A15")
async def test_a_verdict_touches_only_the_token_that_was_judged(vault: Vault) -> None:
    kept = await vault.keep_grant(grant(word="1"), [])
    lease = await leased(vault, kept.id)
    dead = {"state": State.NEEDS_REAUTH, "reason": "revoked", "clear_intent": True, "events": [event("x")]}
    assert not await lease.settle(presented=vault.digest(Secret("another")), **dead)  # type: ignore[arg-type]
    assert await vault.find(KEY) == kept
    assert await lease.settle(presented=vault.digest(Secret("CANARY-rt-1")), **dead)  # type: ignore[arg-type]
    found = await vault.find(KEY)
    assert found is not None
    assert (found.state, found.reason, found.generation) == (State.NEEDS_REAUTH, "revoked", 1)
    assert len(await vault.timeline(kept.id)) == 1
    assert await vault.access(KEY) is not None, "the cells open: no generation moved"


async def test_a_transient_failure_is_noted_and_forgotten(vault: Vault) -> None:
    kept = await vault.keep_grant(grant(), [])
    lease = await leased(vault, kept.id)
    await lease.settle(last_error="http_503", retry_at=NOW + 5, failures=3, presented=None, clear_intent=True)
    found = await vault.find(KEY)
    assert found is not None
    assert (found.state, found.last_error, found.retry_at, found.failures) == (
        State.ACTIVE,
        "http_503",
        NOW + 5,
        3,
    )
    after = await lease.commit(tokens("2"), [], spent=None)
    assert (after.last_error, after.retry_at, after.failures) == (None, None, 0)
    assert await lease.settle(retry_at=10**30, presented=None, clear_intent=True), "an absurd Retry-After"


@pytest.mark.scenario("A20")
async def test_a_commit_may_be_repeated_when_its_outcome_is_unknown(vault: Vault) -> None:
    kept = await vault.keep_grant(grant(word="1"), [])
    lease = await leased(vault, kept.id)
    stale = Leased(vault, lease._row, "one")
    after = await lease.commit(
        tokens("2"), [event("refresh.done")], spent=vault.digest(Secret("CANARY-rt-1"))
    )
    assert await stale.commit(tokens("2"), [event("refresh.done")], spent=None) == after
    assert len(await vault.timeline(kept.id)) == 1
    with pytest.raises(LeaseLost):
        await Leased(vault, stale._row, "two").commit(tokens("3"), [], spent=None)


@pytest.mark.scenario("A19")
async def test_a_refresh_token_may_be_kept_of_an_answer_that_is_of_no_other_use(vault: Vault) -> None:
    kept = await vault.keep_grant(grant(word="1"), [])
    standing = Standing(State.MISCONFIGURED, "token_type", 3, NOW + 60, "token_type")
    given = tokens("1", refresh_token=Secret("CANARY-rt-2"))
    lease = await leased(vault, kept.id)
    stale = await vault.lease(kept.id, holder="two", seconds=60)
    assert stale is None
    after = await lease.commit(given, [event("refresh.failed")], spent="spent", standing=standing)
    assert (after.state, after.reason, after.failures) == (State.MISCONFIGURED, "token_type", 3)
    assert (after.generation, after.retry_at, after.last_error) == (2, NOW + 60, "token_type")
    assert (await lease.tokens()).refresh_token == Secret("CANARY-rt-2")
    found = await vault.access(KEY)
    assert found is not None
    assert found[1] == Secret("CANARY-at-1")
    well = await lease.commit(tokens("3"), [], spent=None)
    assert (well.state, well.reason, well.failures, well.retry_at) == (State.ACTIVE, None, 0, None)


@pytest.mark.scenario("B01")
@pytest.mark.parametrize("given", [None, Secret("")])
async def test_a_refresh_token_that_is_left_out_is_kept(vault: Vault, given: Secret | None) -> None:
    kept = await vault.keep_grant(grant(word="1"), [])
    lease = await leased(vault, kept.id)
    for _ in range(2):
        after = await lease.commit(tokens("2", refresh_token=given), [], spent=None)
        assert after.refreshable
    assert (await lease.tokens()).refresh_token == Secret("CANARY-rt-1")


@pytest.mark.scenario("A22", "E12")
async def test_spent_tokens_are_remembered_within_bounds(vault: Vault) -> None:
    kept = await vault.keep_grant(grant(word="0"), [])
    lease = await leased(vault, kept.id)
    for number in range(1, SPENT_KEPT + 10):
        await lease.commit(tokens(str(number)), [], spent=vault.digest(Secret(f"CANARY-rt-{number - 1}")))
    assert not await lease.is_spent(vault.digest(Secret("CANARY-rt-0")))
    assert await lease.is_spent(vault.digest(Secret("CANARY-rt-100")))
    rows = await vault.backend.read("SELECT count(*) AS n FROM spent")
    assert rows[0]["n"] == SPENT_KEPT + 1
    # The provider gives one out again: it is good again.
    await lease.commit(tokens("100"), [], spent=None)
    assert not await lease.is_spent(vault.digest(Secret("CANARY-rt-100")))


async def test_absurd_numbers_do_not_cost_the_token(vault: Vault) -> None:
    kept = await vault.keep_grant(grant(tokens=tokens("1", expires_at=10**30)), [])
    assert kept.expires_at is None
    lease = await leased(vault, kept.id)
    given = tokens("2", expires_at=-(10**40), lifetime=2**64, refresh_expires_at=2**63)
    after = await lease.commit(given, [], spent=None)
    assert (after.expires_at, after.lifetime, after.refresh_expires_at) == (None, None, None)
    odd = tokens("3", access_token=Secret("at-\ud800"), scopes=("\udfff",), extra={"a": "\ud800"})
    await lease.commit(odd, [event(user="\ud800")], spent=None)
    assert (await lease.tokens()).access_token.reveal() == "at-\ud800"


# -- flows


async def test_a_flow_from_start_to_end(vault: Vault) -> None:
    made = flow()
    assert await vault.create_flow(made, Secret("CANARY-verifier"), events=[event("flow.started")])
    assert await vault.flow(made.id) == made
    assert await vault.open_flow_for(KEY, ["mail"], NOW) == made
    assert await vault.open_flow_for(KEY, ["mail", "files"], NOW) is None
    assert await vault.open_flows(KEY, NOW) == [made]
    assert await vault.open_flow_for(KEY, ["mail"], NOW + 900) is None
    assert await vault.pending_flows("acme", "alice") == 1
    pending = await vault.move_flow(
        made.id,
        expect=FlowStatus.NOT_STARTED,
        to=FlowStatus.PENDING,
        state_digest="sd",
        browser_digest="bd",
        verifier=Secret("CANARY-second"),
    )
    assert pending is not None
    assert await vault.flow_by_state("sd") == pending
    assert await vault.flow_by_state("other") is None
    assert await vault.flow_verifier(made.id) == Secret("CANARY-second")
    assert await vault.move_flow(made.id, expect=FlowStatus.PENDING, to=FlowStatus.EXCHANGING) is not None
    kept = await vault.keep_grant(grant(), [event()], completes=made.id)
    done = await vault.flow(made.id)
    assert done is not None
    assert (done.status, done.connection_id) == (FlowStatus.COMPLETED, kept.id)
    assert await vault.flow_verifier(made.id) is None
    assert await vault.pending_flows("acme", "alice") == 0


@pytest.mark.scenario("H03")
async def test_of_many_callbacks_one_claims_the_flow(vault: Vault) -> None:
    made = flow(status=FlowStatus.PENDING)
    await vault.create_flow(made, Secret("v"))
    claims = [vault.move_flow(made.id, expect=FlowStatus.PENDING, to=FlowStatus.EXCHANGING) for _ in range(8)]
    assert len([claim for claim in await asyncio.gather(*claims) if claim is not None]) == 1


@pytest.mark.scenario("H03")
async def test_a_flow_is_claimed_by_its_newest_state_only(vault: Vault) -> None:
    made, pending = flow(status=FlowStatus.PENDING), FlowStatus.PENDING
    await vault.create_flow(made, Secret("v"))
    for digest in ("old", "new"):
        assert await vault.move_flow(made.id, expect=pending, to=pending, state_digest=digest) is not None
    assert await vault.move_flow(made.id, expect=pending, to=FlowStatus.EXCHANGING, if_state="old") is None
    assert (
        await vault.move_flow(made.id, expect=pending, to=FlowStatus.EXCHANGING, if_state="new") is not None
    )


@pytest.mark.scenario("H03")
async def test_an_end_is_never_left(vault: Vault) -> None:
    made = flow()
    await vault.create_flow(made, Secret("v"))
    open_ = (FlowStatus.NOT_STARTED, FlowStatus.PENDING)
    assert await vault.flow_verifier(made.id) == Secret("v")
    assert await vault.move_flow(made.id, expect=open_, to=FlowStatus.DENIED, reason="user") is not None
    rows = await vault.backend.read("SELECT verifier, held FROM flows")
    assert [tuple(row) for row in rows] == [(None, None)], "its secrets ended with it"  # type: ignore[call-overload]
    for to in FlowStatus:
        assert await vault.move_flow(made.id, expect=set(FlowStatus), to=to) is None
    with pytest.raises(GrantChanged):
        await vault.keep_grant(grant(), [event()], completes=made.id)
    assert await vault.find(KEY) is None, "all or nothing"
    assert await vault.timeline(KEY) == []
    with pytest.raises(TypeError):
        await vault.move_flow(made.id, expect=open_, to=FlowStatus.PENDING, tenant="other")


async def test_tokens_are_held_until_confirmed(vault: Vault) -> None:
    made = flow(status=FlowStatus.EXCHANGING)
    await vault.create_flow(made, Secret("v"))
    assert await vault.held_tokens(made.id) is None
    assert await vault.hold_tokens(made.id, tokens("held"), provider_account="a@b")
    assert not await vault.hold_tokens(made.id, tokens("twice"))
    held = await vault.held_tokens(made.id)
    assert held == (tokens("held"), "a@b")
    await vault.keep_grant(grant(), [], completes=made.id)
    assert await vault.held_tokens(made.id) is None


@pytest.mark.scenario("H06")
async def test_flows_are_capped_in_one_statement(vault: Vault) -> None:
    made = await asyncio.gather(*(vault.create_flow(flow(), Secret("v"), most=3) for _ in range(9)))
    assert sum(made) == 3
    other = KEY._replace(user="bob")
    assert await vault.create_flow(flow(other), Secret("v"), most=3)


@pytest.mark.scenario("H06")
async def test_a_flow_is_widened_until_somebody_opens_it(vault: Vault) -> None:
    made = flow()
    await vault.create_flow(made, Secret("v"))
    tries = [vault.widen_flow(made, [*made.scopes, more], events=[event("flow.widened")]) for more in "ab"]
    (wider,) = [one for one in await asyncio.gather(*tries) if one is not None]
    assert wider == await vault.flow(made.id)
    assert len(wider.scopes) == len(made.scopes) + 1
    assert await vault.flow_verifier(made.id) == Secret("v")
    told = await vault.backend.read("SELECT kind FROM events WHERE kind = ?", "flow.widened")
    assert len(told) == 1
    await vault.move_flow(made.id, expect=FlowStatus.NOT_STARTED, to=FlowStatus.PENDING)
    assert await vault.widen_flow(wider, [*wider.scopes, "c"]) is None


@pytest.mark.scenario("H05")
async def test_flows_end_by_themselves_and_are_forgotten(vault: Vault) -> None:
    waiting, exchanging = flow(), flow(status=FlowStatus.EXCHANGING)
    for made in (waiting, exchanging):
        await vault.create_flow(made, Secret("v"))
    assert await vault.sweep_flows(NOW + 899) == 0
    assert await vault.sweep_flows(NOW + 900) == 1
    assert await vault.sweep_flows(NOW + 900) == 0
    assert await vault.sweep_flows(NOW + 900 + EXCHANGE_GRACE) == 1
    ended = await vault.flow(waiting.id)
    assert ended is not None
    assert ended.status is FlowStatus.EXPIRED
    assert [e.kind for e in await vault.timeline(KEY)] == ["flow.expired"] * 2
    await vault.sweep_flows(NOW + 2000 + ENDED_KEPT)
    assert await vault.flow(waiting.id) is None


# -- agents


async def test_agents_are_kept_and_revoked(vault: Vault) -> None:
    first, second = agent(may_act_for=("a", "b*"), operator=True), agent(tenant="other", expires_at=NOW)
    await vault.add_agent(first, [event("admin.agent")])
    await vault.add_agent(second)
    assert await vault.agents("acme") == [first]
    assert await vault.agents(None) == [first, second]
    assert await vault.agent_by_digest(second.digest) == second
    assert await vault.agent_by_digest("nobody") is None
    assert await vault.revoke_agent(first.id, NOW + 1)
    assert not await vault.revoke_agent(first.id, NOW + 2)
    assert await vault.agents("acme") == [dataclasses.replace(first, revoked_at=NOW + 1)]


# -- opening


@pytest.mark.skipif(len(MIGRATIONS) < 2, reason="there is no older schema yet")
@pytest.mark.scenario("E01", "E13", "C12")
async def test_who_may_not_open_a_store_does_not_change_it(shared_url: str, keyring: Keyring) -> None:
    """An older store, and a wrong key or environment: it stays as it is."""
    right = {"keyring": keyring, "environment": Environment.PRODUCTION}
    vault = await Vault.open(shared_url, **right)  # type: ignore[arg-type]
    older = (
        f"PRAGMA user_version={len(MIGRATIONS) - 1}"
        if shared_url.startswith("sqlite:")
        else "UPDATE authproxy_schema SET version = version - 1"
    )

    async def age(tx: Transaction) -> None:
        await tx.run(older)

    await vault.backend.write(age)
    await vault.close()
    for wrong, reason in (
        ({"keyring": Keyring.parse(generate_key())}, "key_unknown"),
        ({"environment": Environment.STAGING}, "environment_mismatch"),
    ):
        with pytest.raises((KeyMissing, StoreUnavailable)) as caught:
            await Vault.open(shared_url, **(right | wrong))  # type: ignore[arg-type]
        assert caught.value.reason == reason


# -- transactions


@pytest.mark.scenario("E08")
async def test_a_transaction_is_all_or_nothing(vault: Vault) -> None:
    async def half(tx: Transaction) -> None:
        await tx.run("INSERT INTO meta (name, value) VALUES ('half', 'done')")
        raise LookupError

    with pytest.raises(LookupError):
        await vault.backend.write(half)
    assert await vault.backend.read("SELECT * FROM meta WHERE name = 'half'") == []


async def test_contended_work_is_run_again_within_bounds(vault: Vault) -> None:
    runs = 0

    async def work(tx: Transaction) -> int:
        nonlocal runs
        runs += 1
        await tx.run("INSERT INTO meta (name, value) VALUES ('again', 'x')")
        if runs < 3:
            raise Contended
        return runs

    assert await vault.backend.write(work) == 3

    async def never(tx: Transaction) -> None:
        raise Contended

    with pytest.raises(StoreUnavailable):
        await vault.backend.write(never)


async def test_a_cancelled_caller_leaves_nothing_open(vault: Vault) -> None:
    for turns in range(12):
        task = asyncio.create_task(vault.keep_grant(grant(), [event()]))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await vault.note([event()])
    connections, events = await vault.list(tenant=None), await vault.timeline(KEY)
    assert len(events) == 12 + sum(connection.generation for connection in connections), (
        "each grant with its event"
    )


@pytest.mark.scenario("E06")
async def test_a_closed_store_is_unavailable_and_not_empty(vault: Vault) -> None:
    kept = await vault.keep_grant(grant(), [])
    lease = await leased(vault, kept.id)
    await vault.close()
    await vault.close()
    for call in (
        vault.find(KEY),
        vault.get(kept.id, tenant=None),
        vault.access(KEY),
        vault.generation(kept.id),
        vault.list(tenant=None),
        vault.counts(),
        vault.keep_grant(grant(), []),
        vault.disconnect(kept.id, []),
        vault.lease(kept.id, holder="x", seconds=1),
        lease.commit(tokens("2"), [], spent=None),
        lease.settle(presented=None, clear_intent=True),
        lease.release(),
        vault.flow("x"),
        vault.create_flow(flow(), Secret("v")),
        vault.agents(None),
        vault.timeline(KEY),
    ):
        with pytest.raises(StoreUnavailable):
            await call


@pytest.mark.scenario("E03")
async def test_one_bad_row_does_not_hide_the_others(vault: Vault) -> None:
    ids = [
        (await vault.keep_grant(grant(ConnectionKey("acme", f"user-{n}", "google")), [])).id
        for n in range(20)
    ]

    async def spoil(tx: Transaction) -> None:
        rows = await tx.run("SELECT refresh_token FROM connections WHERE id = ?", ids[3])
        cell = bytearray(rows[0]["refresh_token"])
        cell[-1] ^= 1
        await tx.run("UPDATE connections SET refresh_token = ? WHERE id = ?", bytes(cell), ids[3])
        await tx.run("UPDATE connections SET scopes = 'no json' WHERE id = ?", ids[4])

    await vault.backend.write(spoil)
    listed = {connection.id: connection for connection in await vault.list(tenant="acme")}
    assert len(listed) == 20
    assert {c.id: c.last_error for c in listed.values() if c.reason == "unreadable"} == {
        ids[3]: "tampered",
        ids[4]: "row_damaged",
    }
    assert await vault.find(ConnectionKey("acme", "user-3", "google")) is not None, (
        "not taken for unconnected"
    )
    with pytest.raises(KeyMissing):
        await (await leased(vault, ids[3])).tokens()
