"""Rows that make no sense here, out of a hand on the database or a newer version: each is its own trouble only."""

from __future__ import annotations

import pytest

from authproxy.core.errors import KeyMissing
from authproxy.core.model import ConnectionKey, FlowStatus, State
from authproxy.core.secret import Secret
from authproxy.store import reading
from authproxy.store.audit import Trail
from authproxy.store.base import Transaction
from authproxy.store.vault import Vault
from tests.store.parts import KEY, NOW, agent, event, flow, grant

OTHER = ConnectionKey("acme", "bob", "google")


async def spoil(vault: Vault, *statements: str) -> None:
    async def work(tx: Transaction) -> None:
        for statement in statements:
            await tx.run(statement)

    await vault.backend.write(work)


@pytest.mark.scenario("E03", "E13")
async def test_a_state_of_a_newer_version(vault: Vault) -> None:
    kept = await vault.keep_grant(grant(), [])
    await vault.keep_grant(grant(OTHER), [])
    await spoil(vault, "UPDATE connections SET state = 'paused' WHERE user_id = 'alice'")
    assert await vault.counts() == {("google", State.ACTIVE): 1, ("google", State.MISCONFIGURED): 1}
    for call in (
        vault.find(KEY),
        vault.access(KEY),
        vault.get(kept.id, tenant=None),
        vault.generation(kept.id),
    ):
        with pytest.raises(KeyMissing) as caught:
            await call
        assert caught.value.reason == "row_damaged"
    assert await vault.access(OTHER) is not None
    assert {one.key.user: one.state for one in await vault.list(tenant="acme")} == {
        "alice": State.MISCONFIGURED,
        "bob": State.ACTIVE,
    }


@pytest.mark.scenario("E03")
@pytest.mark.parametrize("text", ["{", "[1]", "{}", "null"])
async def test_a_key_that_cannot_be_read_is_unknown_and_the_others_work(vault: Vault, text: str) -> None:
    await vault.add_agent(agent(id="one"))
    await vault.add_agent(agent(id="two"))
    await spoil(vault, f"UPDATE agents SET may_act_for = '{text}' WHERE id = 'one'")
    assert [one.id for one in await vault.agents(None)] == ["two"]


@pytest.mark.scenario("E03", "H05")
@pytest.mark.parametrize("change", ["scopes = '{'", "status = 'strange'"])
async def test_a_flow_that_cannot_be_read_ends_with_its_time(vault: Vault, change: str) -> None:
    bad, good = flow(), flow()
    for made in (bad, good):
        await vault.create_flow(made, Secret("v"))
    await spoil(vault, f"UPDATE flows SET {change} WHERE id = '{bad.id}'")
    with pytest.raises(KeyMissing):
        await vault.flow(bad.id)
    assert await vault.open_flows(KEY, NOW) == [good]
    assert await vault.sweep_flows(NOW + 10_000) == 2
    ended = await vault.flow(good.id)
    assert ended is not None
    assert ended.status is FlowStatus.EXPIRED


@pytest.mark.scenario("E03")
async def test_an_event_that_cannot_be_read_does_not_stop_the_trail(vault: Vault) -> None:
    trail = Trail(vault, clock=lambda: NOW)
    await vault.note([event("flow.started"), event("flow.opened")])
    await spoil(vault, "UPDATE events SET data = '{' WHERE kind = 'flow.started'")
    await trail.start()
    await trail.flush()
    written = {
        entry.record["kind"]: entry.record["data"]
        for entry in await reading.query(vault.backend, kind="flow.*")
    }
    assert written == {"flow.started": {"damaged": True}, "flow.opened": dict(event().data)}
    assert dict((await vault.timeline(KEY))[0].data) == {"damaged": True}
    await trail.close()


@pytest.mark.scenario("H01")
async def test_the_trail_has_no_link_that_could_be_opened(vault: Vault) -> None:
    made = flow(id=f"flow_{'x' * 32}")
    await vault.create_flow(made, Secret("v"))
    await vault.sweep_flows(NOW + 10_000)
    (told,) = await vault.timeline(KEY)
    assert told.kind == "flow.expired"
    assert made.id not in str(dict(told.data))
