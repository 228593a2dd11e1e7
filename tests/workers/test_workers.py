"""`serve --workers`: one service to agents and scrapers, whatever becomes of one of its processes."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests.kit.postgres import Postgres
from tests.kit.raw import Gone, Upstream, Wire, reply, until
from tests.workers.conftest import WORKERS, Fleet

OK = reply(keep=True)


def workers_of(fleet: Fleet, user: str) -> set[str]:
    """The chains in which the requests of this user are: each worker has its own."""
    told = fleet.command("audit", "query", "--user", user, "--kind", "request", "--json")
    return {json.loads(line)["chain"] for line in told.splitlines()}


@pytest.mark.scenario("A03", "A04", "A01")
async def test_fifty_callers_over_four_workers_are_one_token_call(fleet: Fleet) -> None:
    await prove_single_flight(fleet, "alice")


@pytest.mark.scenario("A03", "A04")
async def test_the_same_on_postgresql(make: Callable[..., Fleet], postgres: Postgres) -> None:
    keys = make().proxy.run("keys", "generate").stdout.strip()
    store = await asyncio.to_thread(postgres.database)
    fleet = make(workers=2, store=store, env={"AUTHPROXY_KEYS": keys})
    await asyncio.to_thread(fleet.start)
    await prove_single_flight(fleet, "alice", shared_by=1)  # of two, one may be given all connections
    assert fleet.proxy.stop() == 0
    assert "sound" in fleet.command("audit", "verify")


async def prove_single_flight(fleet: Fleet, user: str, *, shared_by: int = 2) -> None:
    fleet.provider.life = 1
    grant = await asyncio.to_thread(fleet.grant, user)
    fleet.provider.life = 3600
    async with fleet.upstream([OK]) as upstream:
        wires = [await fleet.dial() for _ in range(50)]
        await asyncio.sleep(1.2)  # the token's life
        for wire in wires:
            await wire.send(fleet.ask(user=user))
        answers = await asyncio.gather(*(wire.response() for wire in wires))
        assert Counter(one.status for one in answers) == {200: 50}
        assert grant.asked == 1, "one token call for all of them"
        tokens = {one.head.one(b"authorization") for one in upstream.requests}
        assert tokens == {grant.bearer}
        for wire in wires:
            await wire.close()
    await until(lambda: len(workers_of(fleet, user)) >= shared_by, 30)


def test_the_page_tells_of_all_workers(fleet: Fleet) -> None:
    before = fleet.page()
    for number in range(40):
        assert (
            fleet.proxy.fetch(fleet.proxy.listen, "GET", f"/nowhere/{number}", headers={"X-User-ID": "a"})[0]
            == 404
        )
    series = 'authproxy_requests_total{code="no_route",method="GET",route="-",status="404"}'
    count = 'authproxy_request_seconds_count{route="-"}'

    def told() -> tuple[float, float]:
        page = fleet.page()
        return page.get(series, 0) - before.get(series, 0), page.get(count, 0) - before.get(count, 0)

    for _ in range(6):  # whichever of them is asked; a page is shown again for a moment
        fleet.until(lambda: told() == (40, 40))
    page = fleet.page()
    assert page["authproxy_workers"] == WORKERS
    assert page["authproxy_config_last_reload_success"] == 1
    lines = [line for line in page if line.startswith(("authproxy_connections{", "authproxy_refresh_due"))]
    assert lines, "and what is in the store is told once"


def test_a_reload_reaches_all(fleet: Fleet) -> None:
    def statuses() -> Counter[int]:
        headers = {"X-User-ID": "nobody"}
        return Counter(
            fleet.proxy.fetch(fleet.proxy.listen, "GET", "/added/x", headers=headers)[0] for _ in range(24)
        )

    assert statuses() == {404: 24}
    fleet.proxy.config["routes"]["added"] = fleet.route(prefix="/added")
    fleet.proxy.file.write_text(json.dumps(fleet.proxy.config))
    assert fleet.proxy.process is not None
    fleet.proxy.process.send_signal(signal.SIGHUP)
    fleet.until(lambda: len(fleet.said("config_reloaded")) == WORKERS)
    assert statuses() == {403: 24}, "the route is there, its user is not connected"
    assert {one["worker"] for one in fleet.said("config_reloaded")} == set(range(WORKERS))


@pytest.mark.scenario("A13")
async def test_a_killed_worker_costs_what_it_had_under_way_and_no_more(fleet: Fleet) -> None:
    """Agents that keep their connections, and ask again on a new one where theirs broke."""
    await asyncio.to_thread(fleet.grant, "bob")
    done, broken = Counter[int](), Counter[int]()
    ending = asyncio.Event()

    async def agent(number: int) -> None:
        wire: Wire | None = None
        while not ending.is_set():
            wire = (
                wire or await fleet.dial()
            )  # never refused, never left waiting: `send` and `response` have a limit
            try:
                await wire.send(fleet.ask(user="bob"))
                answer = await wire.response()
            except (Gone, ConnectionError):
                broken[number] += 1
                await wire.close()
                wire = None
                continue
            assert answer.status == 200, answer
            done[number] += 1
        if wire is not None:
            await wire.close()

    before = fleet.page()
    async with fleet.upstream([OK]):
        agents = [asyncio.create_task(agent(number)) for number in range(12)]
        await until(lambda: done.total() > 200, 20)
        killed = await asyncio.to_thread(fleet.kill, 0)
        await asyncio.to_thread(fleet.until, lambda: fleet.pids().get(0, killed) != killed)
        at = done.total()
        await until(lambda: done.total() > at + 200, 20)
        ending.set()
        await asyncio.gather(*agents)
    assert set(done) == set(range(12))
    assert all(count == 1 for count in broken.values()), "one request for each connection that the worker had"
    assert broken.total() <= 12
    told = fleet.said("worker_ended")
    assert [(one["worker"], one["signal"]) for one in told] == [(0, "SIGKILL")]

    def kept() -> bool:
        """What was counted once is not taken back."""
        page = fleet.page()
        counts = [name for name in before if name.partition("{")[0].endswith(("_total", "_count"))]
        return page["authproxy_workers"] == WORKERS and all(
            page.get(name, 0) >= before[name] for name in counts
        )

    await asyncio.to_thread(fleet.until, kept)  # a page is shown again for a moment
    assert "sound" in await asyncio.to_thread(fleet.command, "audit", "verify")


@pytest.mark.scenario("A21", "J09")
async def test_sigterm_drains(fleet: Fleet) -> None:
    await asyncio.to_thread(fleet.grant, "carol")
    begun, go_on = asyncio.Semaphore(0), asyncio.Event()

    async def slow(upstream: Upstream, wire: Wire) -> None:
        upstream.note(await wire.request())
        begun.release()
        await go_on.wait()
        await wire.send(reply())

    async with fleet.upstream(slow):
        calls = [asyncio.create_task(fleet.call(user="carol")) for _ in range(8)]
        for _ in calls:
            await asyncio.wait_for(begun.acquire(), 10)
        assert fleet.proxy.process is not None
        fleet.proxy.process.send_signal(signal.SIGTERM)
        await asyncio.to_thread(fleet.until, lambda: len(fleet.said("stopping")) == WORKERS + 1)
        with pytest.raises(ConnectionError):
            await until_refused(fleet)
        go_on.set()
        assert [(await one).status for one in calls] == [200] * 8
    assert await asyncio.to_thread(fleet.proxy.process.wait, 15) == 0
    assert [one["code"] for one in fleet.said("stopped") if "code" in one] == [0]
    assert "sound" in await asyncio.to_thread(fleet.command, "audit", "verify")


async def until_refused(fleet: Fleet) -> None:
    async with asyncio.timeout(5):
        while True:
            await (await fleet.dial()).close()
            await asyncio.sleep(0.02)  # another process closes its socket, and tells nobody


async def test_a_small_fleet_s_life(make: Callable[..., Fleet], tmp_path: Path) -> None:
    """On a unix socket too; with a worker that dies again and again; and until the parent is killed."""
    path = tmp_path / "data.sock"
    fleet = make(workers=2)
    fleet.proxy.config["routes"]["own"] = fleet.route(prefix="/own", listen=f"unix:{path}")
    await asyncio.to_thread(fleet.start)
    statuses = set()
    for _ in range(8):
        reader, writer = await asyncio.open_unix_connection(str(path))
        writer.write(b"GET /x HTTP/1.1\r\nHost: localhost\r\nX-User-ID: nobody\r\nConnection: close\r\n\r\n")
        statuses.add((await reader.readline())[9:12])
        writer.close()
    assert statuses == {b"403"}
    await asyncio.to_thread(outlive, fleet)


def outlive(fleet: Fleet) -> None:
    for _ in range(2):
        killed = fleet.kill(1)
        fleet.until(lambda killed=killed: fleet.pids().get(1, killed) != killed)
        assert fleet.proxy.ask("GET", "/readyz")[0] == 200
    pauses = [one["again_in"] for one in fleet.said("worker_ended")]
    assert pauses[0] == 0
    assert pauses[1] > 0, "longer each time"
    pids = fleet.pids()
    assert fleet.proxy.process is not None
    fleet.proxy.process.kill()
    fleet.proxy.process.wait()
    fleet.until(lambda: not any(psutil.pid_exists(pid) for pid in pids.values()))
    assert len(fleet.said("started_by_nobody")) == 2
    assert "sound" in fleet.command("audit", "verify")


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("--store", "sqlite:///:memory:", "--workers", "2"), 2, "cannot be shared by workers"),
        (("--workers", "0"), 2, "from 1 to 64"),
        (("--store", "sqlite:////nowhere/at/all.db", "--workers", "2"), 2, "cannot be made in /nowhere/at"),
    ],
)
def test_what_cannot_begin_says_why(
    make: Callable[..., Fleet], words: tuple[str, ...], code: int, says: str
) -> None:
    proxy = make().proxy
    proxy.file.write_text(json.dumps(proxy.config))
    addresses = ("--listen", f"127.0.0.1:{proxy.listen}", "--control", f"127.0.0.1:{proxy.control}")
    began = time.monotonic()
    done = proxy.run("serve", "--config", str(proxy.file), *addresses, *words)
    assert (done.returncode, says in done.stderr) == (code, True), done.stderr
    assert "Traceback" not in done.stderr
    assert time.monotonic() - began < 10


def test_an_address_that_is_taken(make: Callable[..., Fleet]) -> None:
    fleet = make(workers=2)
    fleet.proxy.listen = fleet.sock.getsockname()[1]
    with pytest.raises(AssertionError, match="serve ended with 1"):
        fleet.proxy.start()
    assert "--listen" in fleet.proxy.words()
