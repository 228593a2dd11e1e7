"""Grants that are owed back to their provider: until they are revoked, or a week is over, and never claimed before."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from authproxy.broker.revocation import KEPT, Revoked
from authproxy.core import config
from authproxy.core.errors import ConnectionRequired
from tests.broker.house import Broker, House, choice, house_at, key_of


class Door:
    """A revocation endpoint of its own, which answers as it is told."""

    def __init__(self) -> None:
        self.status, self.body = 200, "{}"
        self.asked: list[str] = []
        self.url = ""
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> Door:
        app = web.Application()
        app.router.add_post("/revoke", self._revoke)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}/revoke"
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._runner is not None
        await self._runner.cleanup()

    async def _revoke(self, request: web.Request) -> web.StreamResponse:
        form = await request.post()
        self.asked.append(str(form.get("token_type_hint")))
        if self.status == 0:
            assert request.transport is not None
            request.transport.abort()
        return web.Response(status=self.status or 200, text=self.body, content_type="application/json")


def at(house: House, url: str) -> dict[str, config.ProviderChoice]:
    base = house.sandbox.base_url
    ends = config.Endpoints(authorization=f"{base}/authorize", token=f"{base}/token", revocation=url)
    return {"acme": choice(base, endpoints=ends)}


async def kept(broker: Broker) -> list[dict[str, Any]]:
    rows = await broker.vault.backend.read("SELECT id, status, tokens, last_error FROM revocations")
    return [{name: row[name] for name in ("id", "status", "tokens", "last_error")} for row in rows]


@pytest.mark.scenario("I09")
@pytest.mark.parametrize(
    ("status", "body", "word"),
    [
        (200, "{}", Revoked.YES),
        (400, '{"error": "invalid_token"}', Revoked.YES),  # it was revoked already, and its provider says so
        (400, '{"error": "unsupported_token_type"}', Revoked.UNSUPPORTED),
        (503, "{}", Revoked.PENDING),
        (401, '{"error": "invalid_client"}', Revoked.PENDING),
        (302, "", Revoked.PENDING),
        (0, "", Revoked.PENDING),  # hung up
    ],
)
async def test_each_answer_gets_its_own_word(house: House, status: int, body: str, word: Revoked) -> None:
    async with Door() as door:
        broker = await house.broker()
        connection = await house.connect(broker)
        broker.configure(providers=at(house, door.url))
        door.status, door.body = status, body
        done = await broker.grants.disconnect(connection.id, tenant=None)
        assert done.revoked_upstream is word
        assert await broker.vault.find(key_of()) is None, "our copy is gone whatever they say"
        assert door.asked[0] == "refresh_token"
        (row,) = await kept(broker)
        assert row["status"] == str(word)
        assert (row["tokens"] is None) is (word is not Revoked.PENDING), "kept for this alone"
        events = await broker.vault.timeline(connection.id)
        assert [one.data for one in events if one.kind == "connection.revocation"] == [
            {"revoked_upstream": str(word)}
        ]


@pytest.mark.scenario("I09")
async def test_it_is_tried_until_it_works_by_whoever_is_there(house: House) -> None:
    async with Door() as door:
        broker = await house.broker(providers=at(house, door.url))
        connection = await house.connect(broker)
        door.status = 500
        await broker.grants.disconnect(connection.id, tenant=None)
        await broker.close()
        others = [await house.broker(providers=at(house, door.url)) for _ in range(2)]
        for _ in range(4):
            house.clock.push(200)
            assert sum([await one.revocations.round() for one in others]) == 0
        assert await others[0].vault.revocations_pending() == 1
        tries = len(door.asked)
        assert tries < 2 * 6, "not by both, and less and less often"
        door.status = 200
        house.clock.push(3600)
        assert sum([await one.revocations.round() for one in others]) == 1
        (row,) = await kept(others[0])
        assert (row["status"], row["tokens"]) == ("yes", None)
        said = [
            e.data["revoked_upstream"]
            for e in await others[0].vault.timeline(connection.id)
            if "revoked" in str(e.data)
        ]
        assert said == ["pending", "yes"]
        assert await others[0].vault.revocations_pending() == 0


@pytest.mark.scenario("I09")
async def test_after_a_week_it_is_given_up_and_wiped(house: House) -> None:
    async with Door() as door:
        broker = await house.broker(providers=at(house, door.url))
        connection = await house.connect(broker)
        door.status = 500
        await broker.grants.disconnect(connection.id, tenant=None)
        house.clock.push(KEPT + 1)
        assert await broker.revocations.round() == 1
        (row,) = await kept(broker)
        assert (row["status"], row["tokens"], row["last_error"]) == ("failed", None, "refused")
        assert await broker.vault.revocation(connection.id) == "failed"


@pytest.mark.scenario("I09", "E04")
async def test_what_is_owed_is_sealed_and_bound_to_its_row(tmp_path: Path) -> None:
    async with house_at(tmp_path) as house:
        broker = await house.broker(providers=at(house, "http://127.0.0.1:9/revoke"))
        for user in ("alice", "bob"):
            row = await house.connect(broker, user)
            await broker.grants.disconnect(row.id, tenant=None)
        stored = b"".join(bytes(row["tokens"]) for row in await kept(broker))
        for token in house.sandbox.issued_tokens():
            assert token.encode() not in stored
        assert b"token" not in stored

        async def swap(tx: Any) -> None:
            rows = await tx.run("SELECT id, tokens FROM revocations ORDER BY id")
            await tx.run("UPDATE revocations SET tokens = ? WHERE id = ?", rows[0]["tokens"], rows[1]["id"])

        await broker.vault.backend.write(swap)
        house.clock.push(3600)
        opened = [owed.tokens is not None for owed in await broker.vault.owed(now=int(house.clock.wall()))]
        assert sorted(opened) == [False, True]


@pytest.mark.scenario("A18", "I09")
async def test_what_a_late_refresh_brought_is_owed_like_the_rest(tmp_path: Path) -> None:
    """The disconnect won while a refresh was under way, the provider takes nothing back now, and the process ends:
    the successor, which no row ever held, is given back all the same."""
    reached, on = asyncio.Event(), asyncio.Event()

    async def failpoint(point: str) -> None:
        if point == "after_response":
            reached.set()
            await on.wait()

    async with house_at(tmp_path) as house, Door() as door:
        broker = await house.broker(failpoint=failpoint, providers=at(house, door.url))
        connection = await house.connect(broker)
        house.clock.push(3700)
        asker = asyncio.create_task(broker.token())
        await reached.wait()
        door.status = 503
        other = await house.broker(providers=at(house, door.url))
        done = await other.grants.disconnect(connection.id, tenant=None)
        assert done.revoked_upstream is Revoked.PENDING
        on.set()
        with pytest.raises(ConnectionRequired):
            await asker
        await broker.close()
        assert await other.vault.revocations_pending() == 2, "what was held, and what came late"
        assert await other.vault.revocation(connection.id) == "pending"
        door.status = 200
        house.clock.push(3600)
        assert await other.revocations.round() == 2
        assert [row["status"] for row in await kept(other)] == ["yes", "yes"]
        assert await other.vault.revocation(connection.id) == "yes"


@pytest.mark.scenario("I09")
async def test_a_process_that_dies_between_wiping_and_revoking_owes_it_still(house: House) -> None:
    """The outbox row is in the transaction that wiped the connection: there is no moment in between."""
    broker = await house.broker()
    connection = await house.connect(broker)
    await broker.vault.disconnect(connection.id, [], owed=broker.revocations.new())
    assert house.sandbox.live_refresh_digests()
    other = await house.broker()
    assert await other.revocations.round() == 0, "who made the debt may still be at it"
    house.clock.push(121)
    assert await other.revocations.round() == 1
    assert house.sandbox.live_refresh_digests() == set()
