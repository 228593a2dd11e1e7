"""Sessions as rows, on every store: within their minter's life, renewed and ended once, and never read as more."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

import pytest

from authproxy.core.errors import CallerUnknown, Overloaded
from authproxy.core.model import Event, Session
from authproxy.store import sessions as room
from authproxy.store.base import Transaction
from authproxy.store.epoch import Epoch
from authproxy.store.vault import Vault
from tests.store.parts import NOW, agent

_numbers = itertools.count(1)


def session(**fields: Any) -> Session:
    number = next(_numbers)
    values: dict[str, Any] = {
        "id": f"ses_{number:05}",
        "tenant": "acme",
        "agent": "worker",
        "user": "alice",
        "digest": f"session-digest-{number}",
        "minted_by": "cli:command-line",
        "routes": ("gmail",),
        "tools": None,
        "ttl": 600,
        "created_at": NOW,
        "expires_at": NOW + 600,
    }
    return Session(**(values | fields))


def tell(one: Session) -> Sequence[Event]:
    return (
        Event("session.told", NOW, one.tenant, data={"session_id": one.id, "expires_at": one.expires_at}),
    )


async def told(vault: Vault) -> int:
    return len(await vault.backend.read("SELECT id FROM events WHERE kind = 'session.told'"))


async def test_what_is_kept_is_what_is_read(vault: Vault) -> None:
    every = [
        session(),
        session(routes=(), tools=("Gmail.*", "read_only"), renewable_until=NOW + 9000),
        session(routes=None, tools=()),
        session(tenant="other", user="bob"),
    ]
    for one in every:
        assert await vault.add_session(one, tell) == one
        assert await vault.session(one.tenant, one.id) == one
        assert await vault.session("nobody", one.id) is None
    assert await vault.sessions("acme") == every[:3]
    assert await vault.sessions("acme", limit=1, after=every[0].id) == [every[1]]
    assert await vault.sessions("acme", user="bob") == []
    assert await vault.sessions("other", minted_by="cli:command-line", user="bob") == [every[3]]
    assert await vault.sessions("acme", minted_by="agt_x") == []
    wanted = [every[3].digest, every[0].digest, "nobody"]
    assert {one.id for one in await vault.sessions_by_digest(wanted)} == {every[0].id, every[3].id}
    assert await vault.sessions_by_digest([]) == []
    assert await told(vault) == 4


async def test_it_lives_no_longer_than_its_minter(vault: Vault) -> None:
    key = agent(id="agt_1", expires_at=NOW + 300)
    await vault.add_agent(key)
    kept = await vault.add_session(session(minted_by="agt_1", renewable_until=NOW + 9000), tell)
    assert (kept.expires_at, kept.renewable_until) == (NOW + 300, NOW + 300)
    assert await vault.session("acme", kept.id) == kept
    assert await vault.renew_session(kept, NOW + 9000, NOW + 10, tell) is None, "it cannot become longer"
    late = session(minted_by="agt_1", created_at=NOW + 300)
    with pytest.raises(CallerUnknown) as ended:
        await vault.add_session(late, tell)
    assert ended.value.reason == "expired_key"
    with pytest.raises(CallerUnknown):
        await vault.add_session(session(minted_by="agt_1", tenant="other"), tell)
    await vault.revoke_agent("agt_1", NOW)
    for attempt in (
        vault.add_session(session(minted_by="agt_1"), tell),
        vault.renew_session(kept, NOW + 900, NOW + 10, tell),
    ):
        with pytest.raises(CallerUnknown) as revoked:
            await attempt
        assert revoked.value.reason == "revoked_key"
    assert await told(vault) == 1
    assert await vault.live_sessions(NOW) == 0


async def test_a_renewal_lengthens_what_lives_and_nothing_else(vault: Vault) -> None:
    kept = await vault.add_session(session(renewable_until=NOW + 9000), tell)
    renewed = await vault.renew_session(kept, NOW + 1200, NOW + 599, tell)
    assert renewed == dataclasses.replace(kept, expires_at=NOW + 1200)
    assert await vault.renew_session(kept, NOW + 1100, NOW + 700, tell) is None, "never shorter"
    assert await vault.renew_session(kept, NOW + 2000, NOW + 1200, tell) is None, "it has ended on the second"
    assert await vault.session("acme", kept.id) == renewed
    stranger = dataclasses.replace(kept, tenant="other")
    assert await vault.renew_session(stranger, NOW + 5000, NOW + 700, tell) is None
    assert await told(vault) == 2


async def test_a_revocation_is_final_and_told_once(vault: Vault) -> None:
    kept = await vault.add_session(session(renewable_until=NOW + 9000), tell)
    assert await vault.revoke_session("other", kept.id, NOW + 1, tell) is None
    ends = await asyncio.gather(*(vault.revoke_session("acme", kept.id, NOW + 1, tell) for _ in range(5)))
    assert [one for one in ends if one is not None] == [dataclasses.replace(kept, revoked_at=NOW + 1)]
    assert await vault.renew_session(kept, NOW + 5000, NOW + 2, tell) is None
    assert await told(vault) == 2


async def test_renewals_and_a_revocation_at_once_leave_it_revoked(vault: Vault) -> None:
    kept = await vault.add_session(session(renewable_until=NOW + 9000), tell)
    works = [vault.renew_session(kept, NOW + 1000 + n, NOW + 1, tell) for n in range(8)]
    await asyncio.gather(*works[:4], vault.revoke_session("acme", kept.id, NOW + 1, tell), *works[4:])
    left = await vault.session("acme", kept.id)
    assert left is not None
    assert left.revoked_at == NOW + 1
    assert await vault.live_sessions(NOW + 2) == 0


async def test_a_minter_has_a_bound(vault: Vault, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "MAX_LIVE", 3)
    made = await asyncio.gather(
        *(vault.add_session(session(), tell) for _ in range(8)), return_exceptions=True
    )
    kept = [one for one in made if isinstance(one, Session)]
    assert len(kept) == 3
    assert all(isinstance(one, Session | Overloaded) for one in made), made
    await vault.revoke_session("acme", kept[0].id, NOW, tell)
    await vault.add_session(session(), tell)
    await vault.add_session(session(minted_by="cli:another"), tell)
    await vault.add_session(session(created_at=NOW + 601, expires_at=NOW + 1200), tell)


async def test_they_are_counted_and_forgotten_in_time(vault: Vault) -> None:
    kept = [await vault.add_session(session(), tell) for _ in range(3)]
    await vault.revoke_session("acme", kept[0].id, NOW, tell)
    assert await vault.live_sessions(NOW + 599) == 2
    assert await vault.live_sessions(NOW + 600) == 0
    await vault.sweep_sessions(NOW + 600 + room.KEPT)
    assert len(await vault.sessions("acme")) == 3
    await vault.sweep_sessions(NOW + 601 + room.KEPT)
    assert await vault.sessions("acme") == []


@pytest.mark.scenario("E09")
async def test_none_outlives_a_store_that_was_put_back(vault: Vault) -> None:
    """It may have been revoked since the copy was made."""
    kept = await vault.add_session(session(), tell)

    async def heard(_kind: str, _data: dict[str, Any]) -> None: ...

    assert await Epoch(vault.backend, None).begin(NOW + 5, said=False, told=heard) is None
    assert await vault.session("acme", kept.id) == kept
    assert await Epoch(vault.backend, None).begin(NOW + 5, said=True, told=heard) is not None
    assert await vault.session("acme", kept.id) == dataclasses.replace(kept, revoked_at=NOW + 5)


@pytest.mark.scenario("E03")
@pytest.mark.parametrize("cell", ["no json", "null", '{"a": 1}', "[1]", '"gmail"', ""])
@pytest.mark.parametrize("column", ["routes", "tools"])
async def test_a_damaged_limit_is_not_taken_for_none(vault: Vault, column: str, cell: str) -> None:
    bad, good = await vault.add_session(session(), tell), await vault.add_session(session(), tell)

    async def spoil(tx: Transaction) -> None:
        await tx.run(f"UPDATE sessions SET {column} = ? WHERE id = ?", cell, bad.id)

    await vault.backend.write(spoil)
    assert await vault.session("acme", bad.id) is None
    assert await vault.sessions("acme") == await vault.sessions("acme", limit=1) == [good]
    assert await vault.sessions_by_digest([bad.digest, good.digest]) == [good]
