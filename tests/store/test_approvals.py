"""Approvals in every kind of store: one for each request, decided once, used once, and wiped."""

from __future__ import annotations

import asyncio
import dataclasses

import pytest

from authproxy.core.errors import Overloaded
from authproxy.core.model import Approval, ApprovalStatus, Event
from authproxy.store import approvals
from authproxy.store.vault import Vault
from tests.store.parts import NOW, approval

GIVEN = {"recipient": "bob@example.com", "body": "CANARY-of-the-user"}


def told(one: Approval) -> list[Event]:
    return [Event(f"approval.{one.status}", NOW, one.tenant, user=one.user)]


async def ask(vault: Vault, new: Approval | None = None) -> Approval:
    return await vault.ask_approval(new or approval(), GIVEN, told)


async def decide(vault: Vault, one: Approval, to: ApprovalStatus, at: int = NOW) -> Approval | None:
    return await vault.decide_approval(one, to, by="operator", at=at, until=at + 900, tell=told)


async def test_the_same_request_has_one_approval(vault: Vault) -> None:
    first = await ask(vault)
    assert await ask(vault) == first
    other = await ask(vault, approval(fingerprint="0" * 64))
    assert other.id != first.id
    assert await vault.approvals("acme", now=NOW) == [first, other]
    assert await vault.approvals("acme", now=NOW, after=first.id) == [other]
    assert await vault.approval_input("acme", first.id) == GIVEN
    assert await vault.approval("other", first.id) is None
    assert await vault.approval_input("other", first.id) is None


async def test_many_that_ask_at_once_get_one(vault: Vault) -> None:
    found = await asyncio.gather(*(ask(vault) for _ in range(8)))
    assert len({one.id for one in found}) == 1


async def test_it_is_decided_once_and_used_once(vault: Vault) -> None:
    one = await ask(vault)
    assert not await vault.use_approval(one, at=NOW, tell=told), "nobody has said yes"
    decided = await asyncio.gather(
        decide(vault, one, ApprovalStatus.APPROVED), decide(vault, one, ApprovalStatus.DENIED)
    )
    (stands,) = [each for each in decided if each is not None]
    assert await vault.approval("acme", one.id) == stands
    if stands.status is ApprovalStatus.APPROVED:
        used = await asyncio.gather(*(vault.use_approval(one, at=NOW, tell=told) for _ in range(5)))
        assert sorted(used) == [False] * 4 + [True]
        assert (await ask(vault)).id != one.id, "the next call needs another yes"


@pytest.mark.parametrize("to", [ApprovalStatus.APPROVED, ApprovalStatus.DENIED])
async def test_what_was_asked_is_wiped_with_the_decision(vault: Vault, to: ApprovalStatus) -> None:
    one = await ask(vault)
    decided = await decide(vault, one, to)
    assert decided is not None
    assert (decided.status, decided.decided_by, decided.decided_at) == (to, "operator", NOW)
    assert await vault.approval_input("acme", one.id) is None
    assert (await ask(vault)).status is to, "the word stands for as long as was said"
    assert await decide(vault, one, ApprovalStatus.APPROVED) is None, "and is not taken back"


async def test_its_time_is_over(vault: Vault) -> None:
    one = await ask(vault)
    late = NOW + 900
    assert await decide(vault, one, ApprovalStatus.APPROVED, late) is None
    assert await vault.approvals("acme", now=late, status=ApprovalStatus.PENDING) == []
    assert [each.id for each in await vault.approvals("acme", now=late, status=ApprovalStatus.EXPIRED)] == [
        one.id
    ]
    again = await ask(vault, approval(created_at=late, expires_at=late + 900))
    assert again.id != one.id
    assert await vault.approval_input("acme", one.id) is None
    approved = await decide(vault, again, ApprovalStatus.APPROVED, late)
    assert approved is not None
    assert not await vault.use_approval(again, at=late + 900, tell=told)


async def test_sweeping_wipes_what_is_over_and_forgets_what_is_long_over(vault: Vault) -> None:
    one = await ask(vault)
    await vault.sweep_approvals(NOW + 899)
    assert await vault.approval_input("acme", one.id) == GIVEN
    await vault.sweep_approvals(NOW + 900)
    assert await vault.approval_input("acme", one.id) is None
    kept = await vault.approval("acme", one.id)
    assert kept is not None
    assert kept.status is ApprovalStatus.EXPIRED
    await vault.sweep_approvals(NOW + approvals.KEPT + 1)
    assert await vault.approval("acme", one.id) is None


async def test_an_input_cannot_be_shown_in_place_of_another(vault: Vault) -> None:
    one = await ask(vault)
    two = await vault.ask_approval(approval(fingerprint="0" * 64), {"recipient": "eve"}, told)
    swap = "UPDATE approvals SET input = (SELECT input FROM approvals WHERE id = ?) WHERE id = ?"
    await vault.backend.write(lambda tx: tx.run(swap, two.id, one.id))
    assert await vault.approval_input("acme", one.id) is None


async def test_one_agent_cannot_fill_the_store(vault: Vault) -> None:
    rows = [approval(fingerprint=f"{number:064}") for number in range(approvals.MAX_PENDING)]
    first = await ask(vault, rows[0])

    async def copy(tx: object) -> None:
        columns = (
            "tenant, agent, session, user_id, account, tool, approver, status, input, created_at, expires_at"
        )
        for one in rows[1:]:
            await tx.run(  # type: ignore[attr-defined]
                f"INSERT INTO approvals (id, fingerprint, {columns}) "
                f"SELECT ?, ?, {columns} FROM approvals WHERE id = ?",
                one.id,
                one.fingerprint,
                first.id,
            )

    await vault.backend.write(copy)
    with pytest.raises(Overloaded):
        await ask(vault, approval(fingerprint="e" * 64))
    assert await ask(vault, dataclasses.replace(rows[0])) == first
    await ask(vault, approval(fingerprint="e" * 64, agent="another"))
