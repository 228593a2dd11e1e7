"""Approvals in every kind of store: one for each request, decided once, used once, and wiped."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from authproxy.core.errors import KeyMissing, Overloaded
from authproxy.core.model import Approval, ApprovalStatus, Caller, Environment, Event
from authproxy.store import approvals
from authproxy.store.sealing import Keyring, generate_key
from authproxy.store.vault import Vault
from tests.store.parts import NOW, agent, approval
from tests.store.test_sessions import session

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
    with pytest.raises(KeyMissing, match="moved"):  # and nobody decides on what they were not shown
        await vault.approval_input("acme", one.id)


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
    with pytest.raises(Overloaded):  # nor under all the names that it may give itself
        await ask(vault, approval(fingerprint="e" * 64, agent="mailer/run-7"))
    for other in ("another", "mailer2", "mailer%"):
        await ask(vault, approval(fingerprint=f"{other:e>64}", agent=other))
    assert await vault.waiting_approvals(NOW) == approvals.MAX_PENDING + 3
    assert await vault.waiting_approvals(NOW + 900) == 0


async def test_a_no_is_one_for_ever_and_the_same_may_be_asked_again(vault: Vault) -> None:
    one = await ask(vault)
    denied = await decide(vault, one, ApprovalStatus.DENIED)
    late = NOW + 900
    again = await ask(vault, approval(created_at=late, expires_at=late + 900))
    assert again.id != one.id
    await decide(vault, again, ApprovalStatus.DENIED, late)
    await vault.sweep_approvals(late + 900)
    await vault.sweep_approvals(late + 900)
    for name in (one.id, again.id):
        found = await vault.approval("acme", name)
        assert found is not None
        assert found.status is ApprovalStatus.DENIED
    assert denied is not None
    assert len(await vault.approvals("acme", now=late + 900, status=ApprovalStatus.DENIED)) == 2
    await ask(vault, approval(created_at=late + 900, expires_at=late + 1800))


async def test_who_has_ended_since_it_was_asked_for_has_no_use_of_it(vault: Vault) -> None:
    await vault.add_agent(agent(id="agt_1"))
    await vault.add_session(session(id="ses_1", expires_at=NOW + 100), lambda _: [])
    await vault.add_session(session(id="ses_2", expires_at=NOW + 1000), lambda _: [])

    async def approved(name: str | None) -> Approval:
        new = approval(session=name, fingerprint=f"{name!s:f>64}")
        one = await decide(vault, await ask(vault, new), ApprovalStatus.APPROVED)
        assert one is not None
        return one

    first, second, third = await approved("ses_1"), await approved("ses_2"), await approved(None)
    assert not await vault.use_approval(first, at=NOW + 100, tell=told)
    assert await vault.use_approval(first, at=NOW + 99, tell=told)
    await vault.revoke_session("acme", "ses_2", NOW, lambda _: [])
    assert not await vault.use_approval(second, at=NOW, tell=told)
    await vault.revoke_agent("agt_1", NOW)
    assert not await vault.use_approval(third, at=NOW, tell=told, key="agt_1")
    assert await vault.use_approval(third, at=NOW, tell=told, key="agt_2")


async def test_what_others_have_asked_for_leaves_the_room_on_a_page(vault: Vault) -> None:
    users = [*["bob"] * 5, "alice", "alison", *["bob"] * 5, "alice"]
    made = [await ask(vault, approval(user=user, fingerprint=f"{n:064}")) for n, user in enumerate(users)]
    await ask(vault, approval(user="carol", session="ses_1", fingerprint="e" * 64))
    me = Caller("acme", "mailer", "session", ("carol",), session="ses_1")

    async def seen(limit: int = 3, **by: Any) -> list[str]:
        return [one.user for one in await vault.approvals("acme", now=NOW, limit=limit, **by)]

    assert await seen(users=("alice",)) == ["alice", "alice"]
    assert await seen(users=("ali*", "x*")) == ["alice", "alison", "alice"]
    assert await seen(users=("ali*", "bob"), limit=100) == users
    assert await seen(users=("bob",), after=made[4].id) == ["bob"] * 3
    assert await seen(users=()) == []
    assert await seen(users=(), asked_by=me) == ["carol"]
    assert await seen(users=("alice",), asked_by=me, user="alice") == ["alice", "alice"]
    own = Caller("acme", "mailer", "api_key", ())
    assert await seen(users=(), asked_by=own, limit=100) == users, "but not what its sessions did"


@pytest.mark.scenario("E03", "E13")
async def test_a_status_of_a_newer_version_hides_no_other(vault: Vault) -> None:
    one, two = await ask(vault), await ask(vault, approval(fingerprint="0" * 64))
    change = "UPDATE approvals SET status = 'strange' WHERE id = ?"
    await vault.backend.write(lambda tx: tx.run(change, one.id))
    assert await vault.approvals("acme", now=NOW, limit=1) == [two]
    with pytest.raises(KeyMissing):
        await vault.approval("acme", one.id)


DECIDER = """
import asyncio, json, sys
from authproxy.core.model import ApprovalStatus, Environment
from authproxy.store.sealing import Keyring
from authproxy.store.vault import Vault
from tests.store.parts import NOW

async def main(url, keys, name, to):
    vault = await Vault.open(url, keyring=Keyring.parse(keys), environment=Environment.PRODUCTION)
    found = await vault.approvals("acme", now=NOW, limit=1000)
    print("ready", flush=True)
    sys.stdin.readline()
    did = {"decided": [], "used": []}
    for one in found:
        if await vault.decide_approval(one, ApprovalStatus(to), by=name, at=NOW, until=NOW + 900, tell=lambda _: []):
            did["decided"].append(one.id)
        if await vault.use_approval(one, at=NOW, tell=lambda _: []):
            did["used"].append(one.id)
    for one in found:
        assert not await vault.use_approval(one, at=NOW, tell=lambda _: []), "it was decided, and used"
    await vault.close()
    print(json.dumps(did), flush=True)

asyncio.run(main(*sys.argv[1:]))
"""


async def test_processes_that_decide_and_use_at_once(shared_url: str) -> None:
    """Each approval is decided by one of them, and where that was a yes, used by one of them."""
    key = generate_key()
    vault = await Vault.open(shared_url, keyring=Keyring.parse(key), environment=Environment.PRODUCTION)
    made = [await ask(vault, approval(fingerprint=f"{number:064}")) for number in range(40)]
    started = []
    for number, to in enumerate(("approved", "denied", "approved")):
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", DECIDER, shared_url, key, f"p{number}", to),
            cwd=Path(__file__).parents[2],
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        started.append(process)
    for process in started:
        assert process.stdout is not None
        while line := await process.stdout.readline():
            if line.strip() == b"ready":
                break
    ended = await asyncio.gather(*(process.communicate(b"go\n") for process in started))
    told = [json.loads(out.splitlines()[-1]) for out, _ in ended]
    decided = [name for one in told for name in one["decided"]]
    used = [name for one in told for name in one["used"]]
    assert sorted(decided) == sorted(one.id for one in made)
    assert len(set(used)) == len(used)
    approved = {name for at in (0, 2) for name in told[at]["decided"]}
    assert set(used) == approved
    for one in made:
        found = await vault.approval("acme", one.id)
        assert found is not None
        assert found.status is (ApprovalStatus.USED if one.id in approved else ApprovalStatus.DENIED)
    await vault.close()
