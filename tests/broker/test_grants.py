"""A whole grant taken over or given up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from authproxy.broker.outcome import Ended, Fresh
from authproxy.broker.revocation import Revoked
from authproxy.core import config
from authproxy.core.errors import BadRequest, ConnectionExpired, ConnectionRequired, NotFound
from authproxy.core.model import State
from authproxy.core.secret import Secret
from tests.broker.house import House, choice, house_at, key_of


async def spare_refresh_token(house: House, user: str = "alice") -> str:
    """A live refresh token that some other tool holds."""
    (grant,) = [grant for grant in house.sandbox.grants.live() if grant.user == user]
    return grant.refresh[-1].token


@pytest.mark.scenario("I09")
async def test_a_disconnect_revokes_upstream_refresh_token_first(house: House) -> None:
    broker = await house.broker()
    connection = await house.connect(broker)
    await broker.token()
    done = await broker.grants.disconnect(connection.id, tenant="default", agent="worker")
    assert done.revoked_upstream is Revoked.YES
    assert house.sandbox.live_refresh_digests() == set()
    with pytest.raises(ConnectionRequired):
        await broker.token()
    with pytest.raises(NotFound):
        await broker.grants.disconnect(connection.id, tenant="default")
    events = {event.kind: event.data for event in await broker.vault.timeline(connection.id)}
    assert events["connection.revocation"] == {"revoked_upstream": "yes"}
    assert "connection.disconnected" in events


@pytest.mark.scenario("I09")
@pytest.mark.parametrize(
    ("endpoint", "word"), [("http://127.0.0.1:9/revoke", Revoked.PENDING), (None, Revoked.UNSUPPORTED)]
)
async def test_the_local_copy_is_gone_whatever_the_provider_does(
    house: House, endpoint: str | None, word: Revoked
) -> None:
    broker = await house.broker()
    connection = await house.connect(broker)
    base = house.sandbox.base_url
    ends = config.Endpoints(authorization=f"{base}/authorize", token=f"{base}/token", revocation=endpoint)
    broker.configure(providers={"acme": choice(base, endpoints=ends)})
    done = await broker.grants.disconnect(connection.id, tenant=None)
    assert done.revoked_upstream is word
    assert await broker.vault.find(key_of()) is None
    assert house.sandbox.live_refresh_digests(), "it is still good there, and we do not claim otherwise"


@pytest.mark.scenario("I09")
async def test_a_disconnect_works_for_a_provider_that_is_no_longer_configured(house: House) -> None:
    broker = await house.broker()
    connection = await house.connect(broker)
    broker.configure(providers={})
    assert (await broker.grants.disconnect(connection.id, tenant=None)).revoked_upstream is Revoked.PENDING
    assert await broker.vault.find(key_of()) is None


@pytest.mark.scenario("I01")
async def test_another_tenants_connection_is_not_there(house: House) -> None:
    broker = await house.broker()
    connection = await house.connect(broker)
    with pytest.raises(NotFound):
        await broker.grants.disconnect(connection.id, tenant="other")
    with pytest.raises(NotFound):
        await broker.grants.refresh(connection.id, tenant="other")


@pytest.mark.scenario("A29")
async def test_an_imported_token_is_refreshed_at_once(house: House) -> None:
    maker = await house.broker()
    await house.connect(maker, "alice")
    token = await spare_refresh_token(house)
    outcome = await maker.grants.take_over(key_of("imported"), Secret(token), scopes=("read",))
    assert isinstance(outcome, Fresh)
    usable = await maker.token("imported")
    assert usable.header.decode().split()[1] in house.sandbox.issued_tokens()
    assert token not in usable.header.decode()
    assert len(house.sandbox.refreshes()) == 1
    kinds = await house.kinds(maker, "imported")
    assert kinds == ["connection.imported", "refresh.succeeded"]


@pytest.mark.scenario("A29")
@pytest.mark.parametrize("token", ["made-up", ""])
async def test_an_import_that_is_refused_leaves_nothing(house: House, token: str) -> None:
    broker = await house.broker()
    if not token:
        with pytest.raises(BadRequest):
            await broker.grants.take_over(key_of(), Secret(token))
        return
    assert isinstance(await broker.grants.take_over(key_of(), Secret(token)), Ended)
    assert await broker.vault.find(key_of()) is None
    with pytest.raises(ConnectionRequired):
        await broker.token()


@pytest.mark.scenario("A29")
async def test_an_import_does_not_overwrite_a_live_connection(house: House) -> None:
    broker = await house.broker()
    before = await house.connect(broker)
    with pytest.raises(BadRequest) as caught:
        await broker.grants.take_over(key_of(), Secret("other"))
    assert caught.value.reason == "already_connected"
    assert await house.row(broker) == before


@pytest.mark.scenario("A29")
async def test_an_import_that_is_refused_leaves_what_it_was_to_replace(house: House) -> None:
    """A mistyped token costs nobody a good grant."""
    broker = await house.broker()
    before = await house.connect(broker)
    served = await broker.token()
    assert isinstance(await broker.grants.take_over(key_of(), Secret("made-up"), replace=True), Ended)
    row = await house.row(broker)
    assert (row.id, row.state, row.grant_id) == (before.id, State.ACTIVE, before.grant_id)
    assert (await broker.token()).header == served.header
    house.clock.push(3601)
    usable = await broker.token()
    assert usable.header != served.header, "its refresh token is good, and not taken for spent"
    kinds = await house.kinds(broker)
    assert kinds[-4:] == [
        "connection.needs_reauth",
        "connection.put_back",
        "connection.recovered",
        "refresh.succeeded",
    ]


@pytest.mark.scenario("A29")
async def test_an_import_replaces_what_it_was_told_to(house: House) -> None:
    broker = await house.broker()
    await house.connect(broker, "bob")
    token = await spare_refresh_token(house, "bob")
    before = await house.connect(broker)
    leased = await broker.vault.lease(before.id, holder="somebody", seconds=30)
    assert leased is not None
    with pytest.raises(BadRequest) as caught:
        await broker.grants.take_over(key_of(), Secret(token), replace=True)
    assert caught.value.reason == "busy", "its refresh is under way: nothing is taken from under it"
    await leased.release()
    assert isinstance(await broker.grants.take_over(key_of(), Secret(token), replace=True), Fresh)
    row = await house.row(broker)
    assert (row.id, row.state) == (before.id, State.ACTIVE)
    assert row.grant_id.startswith("import_")


@pytest.mark.scenario("B11", "J12")
async def test_an_operator_may_have_a_dead_grant_asked_for_once_more(tmp_path: Path) -> None:
    """A provider that called good grants dead for an hour must not cost every user a consent."""
    async with house_at(
        tmp_path
    ) as house:  # whose ledger minds that a token comes again after such a verdict
        broker = await house.broker()
        connection = await house.connect(broker)
        house.sandbox.switches.update({"status": 400, "error": "invalid_grant", "faults_for": "refresh"})
        house.clock.push(3601)
        with pytest.raises(ConnectionExpired):
            await broker.token()
        assert isinstance(await broker.grants.refresh(connection.id, tenant=None), Ended)
        assert len(house.sandbox.refreshes()) == 1, "nobody asks of his own accord"
        assert isinstance(await broker.grants.refresh(connection.id, tenant=None, probe=True), Ended)
        assert len(house.sandbox.refreshes()) == 2
        assert (await house.kinds(broker)).count("connection.needs_reauth") == 1, "told once"
        house.sandbox.reset()
        assert isinstance(await broker.grants.refresh(connection.id, tenant=None, probe=True), Fresh)
        house.clock.push(10)
        assert (await broker.token()).generation == 2
        assert (await house.kinds(broker)).count("connection.recovered") == 1


@pytest.mark.scenario("B11", "A22")
async def test_a_lost_rotation_is_asked_for_by_nobody(house: House) -> None:
    broker = await house.broker()
    connection = await house.connect(broker)

    async def lose(tx: Any) -> None:
        await tx.run("UPDATE connections SET state = 'rotation_lost', reason = 'rotation_lost'")

    await broker.vault.backend.write(lose)
    assert isinstance(await broker.grants.refresh(connection.id, tenant=None, probe=True), Ended)
    assert house.sandbox.refreshes() == []


@pytest.mark.scenario("B10", "A29")
async def test_an_import_while_the_provider_is_down_waits(house: House) -> None:
    broker = await house.broker()
    await house.connect(broker, "alice")
    token = await spare_refresh_token(house)
    faults: dict[str, Any] = {"status": 503, "error": "temporarily_unavailable", "next_calls": 1}
    house.sandbox.switches.update(faults)
    await broker.grants.take_over(key_of("imported"), Secret(token), scopes=("read",))
    house.clock.push(60)
    assert (await broker.token("imported")).key.user == "imported"
