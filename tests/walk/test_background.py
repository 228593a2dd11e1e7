"""Whole processes with no traffic at all: tokens stay fresh, grants that die are told of, and so is what is owed."""

from __future__ import annotations

import asyncio
import re
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.broker.receiver import SECRET, Receiver
from tests.kit.process import Proxy
from tests.kit.provider import Grant, Provider

pytestmark = pytest.mark.timeout(240)  # rounds of the keeper and of what is owed are seconds apart


@pytest.fixture
def provider() -> Iterator[Provider]:
    it = Provider(life=3)
    yield it
    it.close()


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    it = Receiver()
    await it.start()
    yield it
    await it.stop()


def settings(provider: Provider, receiver: Receiver, **refresh: Any) -> dict[str, Any]:
    return {
        "providers": {"kit": provider.choice()},
        "routes": {"kit": {"upstream": "https://127.0.0.1:9", "provider": "kit", "scopes": ["read"]}},
        "egress": {"allow": [f"127.0.0.1:{port}" for port in (9, provider.port, receiver.port)]},
        "refresh": {"window": 4, **refresh},
        "webhooks": [{"url": receiver.url, "secret": "env:HOOK"}],
    }


async def until(true: Callable[[], bool], seconds: float = 90.0) -> None:
    """Polls another process, which has no other way to tell. Patient, for who was killed while it was telling a
    webhook has a claim of a minute on that."""
    deadline = time.monotonic() + seconds
    while not await asyncio.to_thread(true):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)


def metric(proxy: Proxy, name: str) -> float | None:
    status, page = proxy.ask("GET", "/metrics")
    assert status == 200
    found = re.search(rf"^{re.escape(name)} (\S+)$", page, re.M)
    return float(found[1]) if found else None


def connection(proxy: Proxy) -> dict[str, Any]:
    """The only one."""
    status, listed = proxy.ask("GET", "/v1/connections")
    assert status == 200
    (one,) = listed["items"]
    return dict(one)


def dead(_grant: Grant, form: dict[str, str]) -> tuple[int, str, bytes] | None:
    if form["grant_type"] != "refresh_token":
        return None
    return 400, "application/json", b'{"error": "invalid_grant"}'


@pytest.mark.scenario("I07", "J01", "J03", "A27")
async def test_with_no_traffic_at_all(tmp_path: Path, provider: Provider, receiver: Receiver) -> None:
    config = settings(provider, receiver)
    with Proxy(tmp_path, config, {"HOOK": SECRET}) as proxy:
        await asyncio.to_thread(proxy.connect, "alice")
        grant = provider.grants[0]
        await until(lambda: grant.asked >= 1)
        await until(lambda: metric(proxy, 'authproxy_connections{provider="kit",state="active"}') == 1)
        beat = metric(proxy, 'authproxy_background_beat_timestamp_seconds{duty="keeper"}')
        assert beat is not None
        assert beat > time.time() - 60

        provider.twist = dead
        await until(lambda: metric(proxy, 'authproxy_connections{provider="kit",state="needs_reauth"}') == 1)
        await until(lambda: "connection.needs_reauth" in receiver.kinds(), 10)
        assert receiver.kinds().count("connection.needs_reauth") == 1
        assert metric(proxy, "authproxy_webhook_backlog") == 0
        assert metric(proxy, "authproxy_refresh_due_seconds_max") == 0
        for told in receiver.told:
            assert b"CANARY-at" not in told.raw
            assert b"CANARY-rt" not in told.raw
        words = proxy.words()
        assert "webhook-secret" not in words
        assert "CANARY-at" not in words


@pytest.mark.scenario("J01", "I09")
async def test_what_was_to_be_told_and_revoked_outlives_kill_9(
    tmp_path: Path, provider: Provider, receiver: Receiver
) -> None:
    """Nobody listens, the provider is away, and the process dies: its successor does both."""
    config = settings(provider, receiver)
    config["providers"]["kit"]["endpoints"]["revocation"] = "http://127.0.0.1:9/revoke"
    proxy = Proxy(tmp_path, config, {"HOOK": SECRET})
    proxy.start()
    await asyncio.to_thread(proxy.connect, "alice")
    await receiver.stop()
    status, gone = proxy.ask("DELETE", f"/v1/connections/{connection(proxy)['id']}")
    assert (status, gone["revoked_upstream"]) == (200, "pending")
    await until(lambda: (metric(proxy, "authproxy_webhook_backlog") or 0) >= 2)
    assert metric(proxy, "authproxy_revocations_pending") == 1
    assert proxy.process is not None
    proxy.process.kill()
    proxy.process.wait()

    await receiver.start()
    config["providers"]["kit"]["endpoints"]["revocation"] = f"{provider.url}/revoke"
    with Proxy(tmp_path, config, {"HOOK": SECRET}) as again:
        await until(lambda: "connection.disconnected" in receiver.kinds())
        await until(lambda: bool(provider.grants[0].revoked))
        await until(lambda: metric(again, "authproxy_revocations_pending") == 0)
        await until(lambda: [t.data.get("revoked_upstream") for t in receiver.told].count("yes") == 1)
        assert provider.grants[0].revoked[0] == provider.grants[0].refresh[-1], "the refresh token first"


@pytest.mark.scenario("I07", "A21", "J09")
async def test_the_end_of_a_process_waits_for_what_the_keeper_began(
    tmp_path: Path, provider: Provider, receiver: Receiver
) -> None:
    """SIGTERM in the middle of a refresh that nobody asked for: its successor has the token that came of it."""
    asked, answer = threading.Event(), threading.Event()

    def slow(_grant: Grant, form: dict[str, str]) -> None:
        if form["grant_type"] == "refresh_token":
            asked.set()
            answer.wait(20)

    config = settings(provider, receiver)
    proxy = Proxy(tmp_path, config, {"HOOK": SECRET})
    proxy.start()
    await asyncio.to_thread(proxy.connect, "alice")
    provider.twist = slow  # type: ignore[assignment]
    assert await asyncio.to_thread(asked.wait, 40)
    stopping = asyncio.create_task(asyncio.to_thread(proxy.stop))
    done, _ = await asyncio.wait([stopping], timeout=1)
    assert not done, "it ended while the answer was on its way"
    provider.life = 1  # so that its successor's first round has something to do
    answer.set()
    assert await stopping == 0
    provider.twist = None
    grant = provider.grants[0]
    with Proxy(tmp_path, settings(provider, receiver, window=0), {"HOOK": SECRET}) as again:
        await until(lambda: connection(again)["generation"] >= 3)
        assert connection(again)["state"] == "active"
    assert len(set(grant.refresh)) == len(grant.refresh)


@pytest.mark.scenario("A21", "A12")
async def test_the_end_of_a_process_waits_for_a_refresh_whose_agent_has_gone(
    tmp_path: Path, provider: Provider, receiver: Receiver
) -> None:
    """SIGTERM when nobody waits for the answer any more: what comes is on disk before the process ends."""
    asked, answer = threading.Event(), threading.Event()

    def slow(_grant: Grant, form: dict[str, str]) -> None:
        if form["grant_type"] == "refresh_token":
            asked.set()
            answer.wait(20)

    provider.life = 1
    proxy = Proxy(tmp_path, settings(provider, receiver, background=False, margin=0), {"HOOK": SECRET})
    proxy.start()
    await asyncio.to_thread(proxy.connect, "alice")
    grant = provider.grants[0]
    provider.twist = slow  # type: ignore[assignment]
    await until(lambda: (metric(proxy, "authproxy_refresh_due_seconds_max") or 0) > 0)
    with socket.create_connection(("127.0.0.1", proxy.listen)) as agent:
        agent.sendall(b"GET /kit/x HTTP/1.1\r\nHost: localhost\r\nX-User-ID: alice\r\n\r\n")
        assert await asyncio.to_thread(asked.wait, 20)
    stopping = asyncio.create_task(asyncio.to_thread(proxy.stop))
    done, _ = await asyncio.wait([stopping], timeout=1)
    assert not done, "it ended while the answer was on its way"
    answer.set()
    assert await stopping == 0
    provider.life, provider.twist = 3600, None
    with Proxy(tmp_path, settings(provider, receiver, background=False), {"HOOK": SECRET}) as again:
        assert connection(again)["generation"] == 2
        assert connection(again)["state"] == "active"
    assert grant.asked == 1


@pytest.mark.scenario("J03")
async def test_what_is_overdue_is_told_without_traffic(
    tmp_path: Path, provider: Provider, receiver: Receiver
) -> None:
    provider.life = 1
    with Proxy(tmp_path, settings(provider, receiver, background=False), {"HOOK": SECRET}) as proxy:
        await asyncio.to_thread(proxy.connect, "alice")
        await until(lambda: (metric(proxy, "authproxy_refresh_due_seconds_max") or 0) > 0)
        assert (metric(proxy, "authproxy_oldest_unrefreshed_seconds") or 0) > 0
