"""What is recorded, and which of the client's mistakes are found."""

from __future__ import annotations

import asyncio
import json

from authproxy.sandbox import digest_of
from tests.sandbox.app import App, Clock


async def test_token_calls_are_recorded_without_tokens(app: App, clock: Clock) -> None:
    got = await app.connect("bob")
    clock.now += 5
    second = (await app.refresh(got["refresh_token"])).json
    exchange, refresh = app.sandbox.requests
    assert (exchange.grant_type, exchange.outcome, exchange.user) == ("authorization_code", "success", "bob")
    assert refresh.at == exchange.at + 5
    assert refresh.digest == exchange.refresh_digest == digest_of(got["refresh_token"])
    assert refresh.access_digest == digest_of(second["access_token"])
    assert (refresh.client_id, refresh.auth, refresh.status) == ("authproxy-dev", "none", 200)
    assert refresh.delivered
    written = json.dumps(app.sandbox.ledger.as_json())
    for secret in (got["access_token"], got["refresh_token"], second["refresh_token"]):
        assert secret not in written
        assert secret not in repr(app.sandbox.requests)
        assert secret not in repr(app.sandbox.grants.all)


async def test_double_spend_is_found(app: App) -> None:
    got = await app.connect()
    await app.refresh(got["refresh_token"])
    assert app.sandbox.violations() == []
    await app.refresh(got["refresh_token"])
    found = app.sandbox.violations()
    assert [(one.kind, one.digest) for one in found] == [("double_spend", digest_of(got["refresh_token"]))]
    assert (found[0].first, found[0].again) == tuple(call.id for call in app.sandbox.refreshes())


async def test_double_spend_is_found_within_grace_too(app: App) -> None:
    app.sandbox.switches.grace_s = 30
    got = await app.connect()
    await app.refresh(got["refresh_token"])
    assert (await app.refresh(got["refresh_token"])).status == 200
    assert [one.kind for one in app.sandbox.violations()] == ["double_spend"]


async def test_concurrent_spend_is_found(app: App) -> None:
    got = await app.connect()
    app.sandbox.hold()
    first = asyncio.create_task(app.refresh(got["refresh_token"]))
    await app.sandbox.arrived(2)
    second = asyncio.create_task(app.refresh(got["refresh_token"]))
    await app.sandbox.arrived(3)
    app.sandbox.release()
    await asyncio.gather(first, second)
    assert [one.kind for one in app.sandbox.violations()] == ["concurrent_spend"]


async def test_a_refused_grant_that_comes_again_is_found(app: App) -> None:
    got = await app.connect()
    app.sandbox.revoke_user("alice")
    await app.refresh(got["refresh_token"])
    assert app.sandbox.violations() == []
    await app.refresh(got["refresh_token"])
    assert [one.kind for one in app.sandbox.violations()] == ["dead_again"]


async def test_outages_are_no_verdicts(app: App) -> None:
    got = await app.connect()
    app.sandbox.switches.update({"status": 503})
    for _ in range(3):
        await app.refresh(got["refresh_token"])
    app.sandbox.reset({"invalid_client": True})
    for _ in range(3):
        await app.refresh(got["refresh_token"])
    app.sandbox.reset({"html": True, "work_first": True, "next_calls": 1})
    await app.refresh(got["refresh_token"])
    await app.refresh(got["refresh_token"])
    assert app.sandbox.violations() == []


async def test_a_client_that_left_was_not_answered(app: App) -> None:
    got = await app.connect()
    app.sandbox.hold(after=True)
    call = asyncio.create_task(app.refresh(got["refresh_token"]))
    await app.sandbox.arrived(2)
    call.cancel()
    await asyncio.wait([call])
    await app.works("unknown")  # a round trip, after which the provider has seen the connection close
    app.sandbox.release()
    await app.works("unknown")
    lost = app.sandbox.refreshes()[-1]
    assert (lost.outcome, lost.delivered) == ("success", False)
    await app.refresh(got["refresh_token"])
    assert app.sandbox.violations() == []


async def test_a_second_try_after_giving_up_is_not_concurrent(app: App) -> None:
    got = await app.connect()
    app.sandbox.hold()
    given_up = asyncio.create_task(app.refresh(got["refresh_token"]))
    await app.sandbox.arrived(2)
    given_up.cancel()
    await asyncio.wait([given_up])
    await app.works("unknown")
    again = asyncio.create_task(app.refresh(got["refresh_token"]))
    await app.sandbox.arrived(3)
    app.sandbox.release()
    await again
    assert app.sandbox.violations() == []


async def test_a_forced_verdict_is_a_verdict(app: App) -> None:
    got = await app.connect()
    app.sandbox.switches.update({"error": "bad_refresh_token", "error_in_200": True})
    await app.refresh(got["refresh_token"])
    await app.refresh(got["refresh_token"])
    assert [one.kind for one in app.sandbox.violations()] == ["dead_again"]


async def test_api_calls_name_the_user_they_ran_as(app: App) -> None:
    alice, bob = await app.connect("alice"), await app.connect("bob")
    await app.get("/api/me", alice["access_token"], **{"X-Request-ID": "r-1"})
    await app.get("/api/messages", bob["access_token"])
    await app.get("/api/me", "unknown")
    told = [(call.user, call.path, call.status, call.request_id) for call in app.sandbox.calls]
    assert told == [
        ("alice", "/api/me", 200, "r-1"),
        ("bob", "/api/messages", 200, None),
        (None, "/api/me", 401, None),
    ]
    assert app.sandbox.calls[0].access_digest == digest_of(alice["access_token"])


async def test_stats(app: App) -> None:
    got = await app.connect()
    await app.refresh(got["refresh_token"])
    await app.refresh(got["refresh_token"])
    stats = app.sandbox.stats()
    assert stats["calls"]["token_calls"] == 3
    assert stats["calls"]["token_refresh_token_success"] == 1
    assert stats["calls"]["token_refresh_token_invalid_grant"] == 1
    assert stats["grants"] == {"made": 1, "live": 0, "ended": {"reuse_detected": 1}}
    assert (stats["live_access_tokens"], stats["live_refresh_tokens"]) == (0, 0)
    assert len(stats["violations"]) == 1
