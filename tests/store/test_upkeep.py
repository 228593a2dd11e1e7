"""Claims, dates, deliveries and debts, on every store."""

from __future__ import annotations

import dataclasses

import pytest

from authproxy.core.model import Event
from authproxy.store.revocations import Owing
from authproxy.store.vault import Vault
from tests.store.parts import KEY, NOW, event, grant


async def test_a_claim_is_one_holder_s_until_it_ends_or_is_let_go(vault: Vault) -> None:
    assert await vault.claim("w", holder="a", seconds=60)
    assert await vault.claim("w", holder="a", seconds=60)
    assert not await vault.claim("w", holder="b", seconds=60)
    await vault.let_go("w", holder="b")
    assert not await vault.claim("w", holder="b", seconds=60)
    await vault.let_go("w", holder="a")
    assert await vault.claim("w", holder="b", seconds=0)
    assert await vault.claim("w", holder="a", seconds=60), "over by the database's clock"


async def test_parts_are_shared_out_and_handed_on(vault: Vault) -> None:
    async def share(holder: str) -> set[int]:
        return set(await vault.share("k", 16, holder=holder, seconds=60))

    assert await share("a") == set(range(16))
    assert await share("b") == set(), "none is free yet"
    assert len(await share("a")) == 8
    assert len(await share("b")) == 8
    assert not await share("a") & await share("b")
    assert await share("c") == set()
    parts = [await share(holder) for holder in ("a", "b", "c")]
    assert sorted(part for one in parts for part in one) == list(range(16))
    assert {len(one) for one in parts} <= {4, 5, 6}
    await vault.leave("k", holder="b")
    await share("a")
    assert await share("a") | await share("c") == set(range(16))


async def test_dates_are_found_by_what_they_are_looked_for(vault: Vault) -> None:
    kept = await vault.keep_grant(grant(), [])
    assert kept.expires_at is not None
    every = range(16)
    part = int(kept.id[4], 16)
    found = [one async for one in vault.ending(kept.expires_at + 1, every)]
    assert [(one.id, one.key, one.generation) for one in found] == [(kept.id, KEY, 1)]
    assert [one async for one in vault.ending(kept.expires_at, every)] == []
    assert [one.id async for one in vault.ending(kept.expires_at + 1, [part])] == [kept.id]
    assert [one async for one in vault.ending(kept.expires_at + 1, [(part + 1) % 16])] == []
    assert [one async for one in vault.ending(kept.expires_at + 1, [])] == []
    assert [one.id async for one in vault.unused(KEY.provider, kept.obtained_at + 1, every)] == [kept.id]
    assert [one async for one in vault.unused("other", kept.obtained_at + 1, every)] == []
    limited = dataclasses.replace(grant().tokens, refresh_expires_at=NOW + 1000)
    await vault.keep_grant(dataclasses.replace(grant(), tokens=limited), [])
    obtained = grant().at
    half = (obtained + NOW + 1000) // 2
    assert [one.id async for one in vault.limited(half + 1, every)] == [kept.id]
    assert [one async for one in vault.limited(half, every)] == []
    ages = await vault.ages()
    assert ages[KEY.provider].obtained == obtained


async def test_each_event_is_chosen_once_and_waits_in_order(vault: Vault) -> None:
    await vault.keep_grant(grant(), [event("connection.connected"), event("refresh.failed")])
    seen: list[str] = []

    def choose(one: Event) -> list[str]:
        seen.append(one.kind)
        return ["hook"] if one.kind.startswith("connection.") else []

    assert await vault.fan_out(choose, now=NOW) == 2
    assert await vault.fan_out(choose, now=NOW) == 0
    assert seen == ["connection.connected", "refresh.failed"]
    (one,) = await vault.deliveries("hook", now=NOW)
    assert (one.event.kind, one.attempts) == ("connection.connected", 0)
    await vault.put_off("hook", one.number, until=NOW + 10, error="http_500")
    assert await vault.deliveries("hook", now=NOW + 9) == []
    (again,) = await vault.deliveries("hook", now=NOW + 10)
    assert (again.number, again.attempts) == (one.number, 1)
    assert await vault.backlog() == (1, NOW)
    await vault.delivered("hook", one.number)
    assert await vault.backlog() == (0, None)


@pytest.mark.scenario("I09")
async def test_a_debt_is_made_with_the_end_and_paid_once(vault: Vault) -> None:
    kept = await vault.keep_grant(grant(), [])
    held = await vault.disconnect(kept.id, [], owed=Owing("rev_1", NOW, NOW + 60))
    assert held is not None
    assert await vault.owed(now=NOW + 59) == []
    (owed,) = await vault.owed(now=NOW + 60)
    assert owed.tokens is not None
    assert (owed.key, owed.client_id, owed.connection_id) == (KEY, kept.client_id, kept.id)
    assert owed.tokens.refresh_token == held.refresh_token
    await vault.revoke_later("rev_1", until=NOW + 90, error="http_500")
    assert await vault.owed(now=NOW + 89) == []
    assert await vault.revoked(
        "rev_1", "yes", at=NOW + 90, error=None, events=[event("connection.revocation")]
    )
    assert not await vault.revoked(
        "rev_1", "yes", at=NOW + 90, error=None, events=[event("connection.revocation")]
    )
    assert await vault.owed(now=NOW + 90) == []
    assert await vault.revocation(kept.id) == "yes"
    assert [one.kind for one in await vault.timeline(kept.id)] == ["connection.revocation"]
