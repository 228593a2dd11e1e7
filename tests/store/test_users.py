"""A disabled user: nothing new for them and nothing left of them, in one transaction, on every backend."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from authproxy.core.errors import UserDisabled
from authproxy.core.model import ConnectionKey, Environment, Event, Flow, FlowStatus, Session, State
from authproxy.core.secret import Secret
from authproxy.store.base import GrantChanged
from authproxy.store.revocations import Owing
from authproxy.store.sealing import Keyring
from authproxy.store.users import Disabling
from authproxy.store.vault import Vault
from tests.store.parts import KEY, NOW, flow, grant, tokens

BOB = KEY._replace(user="bob")


async def disable(vault: Vault, key: ConnectionKey = KEY, *, keep: bool = False) -> Disabling:
    numbers = iter(range(100))
    return await vault.disable_user(
        key.tenant,
        key.user,
        at=NOW,
        by="ops",
        reason="left",
        keep_grants=keep,
        owing=lambda: Owing(f"rev_{key.tenant}_{key.user}_{next(numbers)}", NOW, NOW),
    )


async def enable(vault: Vault, key: ConnectionKey = KEY) -> bool:
    return await vault.enable_user(key.tenant, key.user, at=NOW + 1, by="ops", reason=None)


def session(number: int = 1, **fields: object) -> Session:
    values = {
        "id": f"ses_{number}",
        "tenant": KEY.tenant,
        "agent": "worker",
        "user": KEY.user,
        "digest": f"digest-{number}",
        "minted_by": "loopback:worker",
        "routes": None,
        "tools": None,
        "ttl": 60,
        "created_at": NOW,
        "expires_at": NOW + 60,
        "renewable_until": NOW + 600,
    }
    return Session(**(values | fields))  # type: ignore[arg-type]


def untold(_session: Session) -> tuple[Event, ...]:
    return ()


async def kinds(vault: Vault) -> list[str]:
    rows = await vault.backend.read("SELECT kind FROM events WHERE user_id = ? ORDER BY id", KEY.user)
    return [row["kind"] for row in rows]


@pytest.mark.scenario("I10")
async def test_all_that_a_user_has_ends_and_is_owed_back(vault: Vault) -> None:
    kept = await vault.keep_grant(grant(BOB), [])
    made = [await vault.keep_grant(grant(KEY._replace(provider=name)), []) for name in ("google", "slack")]
    done = await disable(vault)
    assert done.changed
    assert [one.connection_id for one in done.ended] == sorted(one.id for one in made)
    assert await vault.list(tenant=KEY.tenant) == [kept], "nobody else's"
    owed = await vault.owed(now=NOW)
    assert {one.connection_id for one in owed} == {one.id for one in made}
    assert all(one.tokens is not None and one.tokens.refresh_token for one in owed)
    assert await kinds(vault) == ["connection.disconnected", "connection.disconnected", "user.disabled"]
    standing = await vault.user(KEY.tenant, KEY.user)
    assert (standing.disabled_at, standing.reason, standing.changed_by) == (NOW, "left", "ops")
    assert (standing.connections, standing.revocations) == (0, 2)


@pytest.mark.scenario("I10")
async def test_a_disabled_user_is_given_nothing_new(vault: Vault) -> None:
    """Neither is one whom nobody has heard of yet."""
    begun = flow(status=FlowStatus.EXCHANGING)
    await vault.create_flow(begun, Secret("CANARY-verifier"))
    await vault.add_session(session(), untold)
    await disable(vault)
    refused: list[Callable[[], Awaitable[object]]] = [
        lambda: vault.create_flow(flow(), Secret("CANARY-verifier")),
        lambda: vault.keep_grant(grant(), []),
        lambda: vault.keep_grant(grant(), [], completes=begun.id),
        lambda: vault.hold_tokens(begun.id, tokens()),
        lambda: vault.add_session(session(2), untold),
        lambda: vault.renew_session(session(), NOW + 90, NOW, untold),
        lambda: vault.demand_user(KEY.tenant, KEY.user),
    ]
    for ask in refused:
        with pytest.raises(UserDisabled) as caught:
            await ask()
        assert "left" not in caught.value.title, "why is for operators"
    assert await vault.find(KEY) is None
    await vault.keep_grant(grant(KEY._replace(tenant="other")), [])  # of the same name, and somebody else
    await vault.create_flow(flow(BOB), Secret("CANARY-verifier"))


@pytest.mark.scenario("I10")
async def test_consents_in_progress_end_and_what_they_hold_is_owed(vault: Vault) -> None:
    opened, held = flow(), flow(status=FlowStatus.EXCHANGING)
    for one in (opened, held):
        await vault.create_flow(one, Secret("CANARY-verifier"))
    assert await vault.hold_tokens(held.id, tokens("held"), provider_account="alice@example.com")
    assert (await disable(vault)).flows == 2
    for one in (opened, held):
        ended = await vault.flow(one.id)
        assert ended is not None
        assert (ended.status, ended.reason) == (FlowStatus.FAILED, "user_disabled")
    (owed,) = await vault.owed(now=NOW)
    assert owed.tokens is not None
    assert owed.tokens.refresh_token == Secret("CANARY-rt-held")
    assert await vault.held_tokens(held.id) is None
    await vault.owe_given(held, tokens("held"), NOW)
    assert len(await vault.owed(now=NOW)) == 1, "one debt, whoever finds it"
    await enable(vault)
    with pytest.raises(GrantChanged):
        await vault.keep_grant(grant(), [], completes=held.id)


@pytest.mark.scenario("I10")
async def test_kept_grants_stay_until_they_are_ended_after_all(vault: Vault) -> None:
    made = await vault.keep_grant(grant(), [])
    assert await disable(vault, keep=True) == Disabling(True, [], 0)
    assert await vault.find(KEY) == made
    assert (await vault.user(KEY.tenant, KEY.user)).grants_kept
    assert not (await disable(vault, keep=True)).changed
    ended = await disable(vault)
    assert ended.changed
    assert [one.connection_id for one in ended.ended] == [made.id]
    assert not (await disable(vault, keep=True)).changed, "what is ended is not kept by saying so"
    assert not (await vault.user(KEY.tenant, KEY.user)).grants_kept
    assert await enable(vault)
    assert not await enable(vault)
    assert await vault.find(KEY) is None
    tombstone = await vault.get(made.id, tenant=None)
    assert tombstone is not None
    assert (tombstone.state, tombstone.reason) == (State.DISCONNECTED, "user_disabled")
    again = await vault.keep_grant(grant(), [])
    assert (again.id, again.state) == (made.id, State.ACTIVE), "a new consent revives the id"


@pytest.mark.scenario("I10")
@pytest.mark.parametrize("keep", [False, True])
async def test_sessions_of_before_are_good_again_only_with_the_grants(vault: Vault, keep: bool) -> None:
    await vault.add_session(session(), untold)
    await disable(vault, keep=keep)
    await enable(vault)
    after = await vault.session(KEY.tenant, "ses_1")
    assert after is not None
    assert (after.revoked_at is None) is keep
    assert ("session.revoked" in await kinds(vault)) is not keep


async def test_what_cannot_be_opened_is_ended_all_the_same(vault: Vault) -> None:
    made = await vault.keep_grant(grant(), [])

    async def damage(tx: object) -> None:
        await tx.run("UPDATE connections SET refresh_token = ?", b"nonsense")  # type: ignore[attr-defined]

    await vault.backend.write(damage)
    (ended,) = (await disable(vault)).ended
    assert (ended.connection_id, ended.owed) == (made.id, None)
    assert await vault.find(KEY) is None


async def test_changes_are_read_from_where_one_left_off(vault: Vault) -> None:
    await disable(vault)
    await disable(vault, BOB)
    first = await vault.user_changes(0)
    assert [(one.user, one.disabled) for one in first] == [("alice", True), ("bob", True)]
    assert not await vault.user_changes(first[-1].revision)
    await enable(vault)
    (change,) = await vault.user_changes(first[-1].revision)
    assert (change.tenant, change.user, change.disabled) == (KEY.tenant, KEY.user, False)


async def test_users_are_listed_by_name(vault: Vault) -> None:
    await vault.keep_grant(grant(), [])
    await vault.keep_grant(grant(KEY._replace(tenant="other", user="zoe")), [])
    for name in ("bob", "carol", "Élodie"):
        await disable(vault, KEY._replace(user=name))
    await enable(vault, KEY._replace(user="carol"))
    found = await vault.users(KEY.tenant)
    assert {one.user: one.disabled_at is not None for one in found} == {
        "alice": False,
        "bob": True,
        "carol": False,
        "Élodie": True,
    }
    pages, after = [], ""
    while page := await vault.users(KEY.tenant, limit=1, after=after):
        pages += page
        after = page[-1].user
    assert pages == list(found)
    assert {one.user for one in await vault.users(KEY.tenant, is_disabled=True)} == {"bob", "Élodie"}
    assert {one.user for one in await vault.users(KEY.tenant, is_disabled=False)} == {"alice", "carol"}
    assert [one.connections for one in found if one.user == "alice"] == [1]


async def test_names_are_who_they_are_by_every_letter(vault: Vault) -> None:
    await disable(vault)
    for name in ("Alice", "alice ", "álice", "alice\u0301"):
        await vault.demand_user(KEY.tenant, name)


@pytest.mark.scenario("I10", "A18")
async def test_a_grant_that_lands_beside_the_disabling_never_lives(shared_url: str, keyring: Keyring) -> None:
    """Two processes on one store, at once, many times over: whoever is first, nothing is left that lives."""
    vaults = [
        await Vault.open(shared_url, keyring=keyring, environment=Environment.PRODUCTION, clock=lambda: NOW)
        for _ in range(2)
    ]
    refused = 0
    try:
        for number in range(12):
            key = KEY._replace(user=f"user{number}")
            begun: Flow = flow(key, status=FlowStatus.EXCHANGING)
            await vaults[0].create_flow(begun, Secret("CANARY-verifier"))
            landing = vaults[number % 2].keep_grant(grant(key), [], completes=begun.id)
            pair = (landing, disable(vaults[1 - number % 2], key))
            landed, _ = await asyncio.gather(
                *(pair if number % 3 else reversed(pair)), return_exceptions=True
            )
            found = [one for one in (landed, _) if isinstance(one, UserDisabled)]
            refused += len(found)
            assert await vaults[0].find(key) is None
            owed = [one for one in await vaults[0].owed(now=NOW, limit=100) if one.key == key]
            assert len(owed) == 1 - len(found), "what landed is owed; what was refused is its bearer's to owe"
    finally:
        for vault in vaults:
            await vault.close()


@pytest.mark.scenario("I10")
async def test_no_reader_misses_a_change_that_is_committed_late(shared_url: str, keyring: Keyring) -> None:
    """Revisions are committed in their order, so that whoever has read one has read all before it."""
    vaults = [
        await Vault.open(shared_url, keyring=keyring, environment=Environment.PRODUCTION, clock=lambda: NOW)
        for _ in range(3)
    ]
    seen: dict[str, bool] = {}
    last = 0
    writing = [
        asyncio.create_task(disable(vaults[number % 2], KEY._replace(user=f"user{number}")))
        for number in range(24)
    ]
    try:
        while not all(task.done() for task in writing):
            for change in await vaults[2].user_changes(last):
                assert change.revision == last + 1
                seen[change.user], last = change.disabled, change.revision
        await asyncio.gather(*writing)
        for change in await vaults[2].user_changes(last):
            seen[change.user] = change.disabled
        assert len(seen) == 24
    finally:
        for vault in vaults:
            await vault.close()
