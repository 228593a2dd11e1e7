"""Sessions at the desk: known where they are used, ended with their minter, and never by an older reading revived."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Collection, Iterable

import pytest

from authproxy.callers.api_key import BLIND, IDLE, MOST, ApiKeys
from authproxy.callers.desk import Desk, Identified
from authproxy.callers.presented import digest_of
from authproxy.core.config import CallerChoice
from authproxy.core.errors import CallerUnknown, StoreUnavailable
from authproxy.core.model import AgentKey, Caller, Session

KEY = "apx_" + "s" * 43
MINTER = AgentKey("agt_1", "default", "app", digest_of("apx_app"), ("*",), operator=True, created_at=1000)


def session(key: str = KEY, **changes: object) -> Session:
    made = Session(
        id="ses_1",
        tenant="default",
        agent="app",
        user="alice",
        digest=digest_of(key),
        minted_by="agt_1",
        routes=("gmail",),
        tools=("Gmail.*",),
        ttl=600,
        created_at=1000,
        expires_at=3000,
    )
    return dataclasses.replace(made, **changes)  # type: ignore[arg-type]


class Register:
    """Keys and sessions as a store would hold them, both clocks, and a door at which a reading can be held up."""

    def __init__(self, *sessions: Session, minter: AgentKey = MINTER) -> None:
        self.minters = [minter]
        self.sessions = {one.digest: one for one in sessions}
        self.now = 2000.0
        self.ticks = 0.0
        self.away = False
        self.asked: list[int] = []
        self.door = asyncio.Event()
        self.door.set()
        self.entered = asyncio.Event()

    async def keys(self) -> Iterable[AgentKey]:
        if self.away:
            raise StoreUnavailable("the store is away")
        return list(self.minters)

    async def of(self, digests: Collection[str]) -> Iterable[Session]:
        if self.away:
            raise StoreUnavailable("the store is away")
        self.asked.append(len(digests))
        found = [self.sessions[digest] for digest in digests if digest in self.sessions]
        self.entered.set()
        await self.door.wait()
        return found

    def clock(self) -> float:
        return self.now

    def monotonic(self) -> float:
        return self.ticks


async def desk(register: Register, **choice: object) -> tuple[Desk, ApiKeys]:
    table = ApiKeys(
        CallerChoice(kind="api_key", **choice),  # type: ignore[arg-type]
        register.keys,
        register.of,
        clock=register.clock,
        monotonic=register.monotonic,
    )
    await table.refresh()
    return Desk([table]), table


def ask(at: Desk, key: str = KEY) -> Identified:
    return at.identify([(b"X-Authproxy-Key", key.encode())], peer_is_loopback=True, listener="data")


async def known(at: Desk, key: str = KEY) -> Identified:
    """As the walk asks: once more where the key may be a new one."""
    try:
        return ask(at, key)
    except CallerUnknown as unknown:
        if not await at.look_again(unknown):
            raise
        return ask(at, key)


async def refused(at: Desk) -> str | None:
    with pytest.raises(CallerUnknown) as caught:
        await known(at)
    return caught.value.reason


async def test_a_session_is_its_user_and_no_operator() -> None:
    at, _ = await desk(Register(session()))
    assert await known(at) == Identified(
        Caller(
            "default",
            "app",
            "session",
            ("alice",),
            bound_user="alice",
            session="ses_1",
            routes=("gmail",),
            tools=("Gmail.*",),
        ),
        "alice",
    )
    caller = ask(at).caller
    assert not caller.operator
    assert (caller.allowed("alice"), caller.allowed("bob"), caller.allowed("*")) == (True, False, False)


async def test_the_configured_bound_holds_for_sessions_too() -> None:
    at, _ = await desk(Register(session()), may_act_for=("team-*",))
    assert not (await known(at)).caller.allowed("alice")
    at, _ = await desk(Register(session(user="team-7")), may_act_for=("team-*",))
    assert (await known(at)).caller.allowed("team-7")


async def test_a_user_who_is_called_like_a_pattern_is_none() -> None:
    at, _ = await desk(Register(session(user="team-*")))
    caller = (await known(at)).caller
    assert (caller.allowed("team-*"), caller.allowed("team-7")) == (True, False)


async def test_it_ends_on_the_second() -> None:
    register = Register(session(expires_at=3000))
    at, _ = await desk(register)
    register.now = 2999.999
    await known(at)
    register.now = 3000.0
    assert await refused(at) == "expired_key"


@pytest.mark.parametrize(
    ("minter", "reason"),
    [
        (dataclasses.replace(MINTER, revoked_at=1500), "revoked_key"),
        (dataclasses.replace(MINTER, expires_at=2000), "expired_key"),
        (dataclasses.replace(MINTER, id="agt_2"), "unknown_key"),
        (dataclasses.replace(MINTER, tenant="acme"), "unknown_key"),
    ],
)
async def test_it_ends_with_the_key_that_minted_it(minter: AgentKey, reason: str) -> None:
    at, _ = await desk(Register(session(), minter=minter))
    assert await refused(at) == reason


async def test_what_no_key_has_minted_stands_by_itself() -> None:
    at, _ = await desk(
        Register(session(minted_by="cli:command-line"), minter=dataclasses.replace(MINTER, id="x"))
    )
    assert (await known(at)).user == "alice"


@pytest.mark.scenario("I08")
async def test_a_revocation_here_is_known_before_it_is_answered() -> None:
    """Also where a reading from before it is still under way, and comes back after it."""
    register = Register(session())
    at, table = await desk(register)
    await known(at)
    register.door.clear()
    register.entered.clear()
    reading = asyncio.create_task(table.refresh())
    await register.entered.wait()
    register.sessions[digest_of(KEY)] = session(revoked_at=2000)
    changed = asyncio.create_task(table.reread(digest_of(KEY)))
    await asyncio.sleep(0)
    register.door.set()
    await asyncio.gather(reading, changed)
    assert await refused(at) == "revoked_key"


@pytest.mark.scenario("I08")
async def test_a_revocation_elsewhere_is_seen_with_the_next_reading() -> None:
    register = Register(session())
    at, table = await desk(register)
    await known(at)
    register.sessions[digest_of(KEY)] = session(revoked_at=2000)
    await table.refresh()
    assert await refused(at) == "revoked_key"


async def test_who_was_identified_before_is_nobody_after_the_end() -> None:
    """For work that outlives the request it came with."""
    register = Register(session(), session("apx_b", id="ses_2"))
    at, table = await desk(register)
    caller, other = (await known(at)).caller, (await known(at, "apx_b")).caller
    app = Caller("default", "app", "api_key", ("*",), key="agt_1")
    for one in (caller, other, app):
        at.demand_standing(one)
    register.sessions[digest_of(KEY)] = session(revoked_at=2000)
    await table.reread(digest_of(KEY))
    with pytest.raises(CallerUnknown):
        at.demand_standing(caller)
    at.demand_standing(other)
    register.minters = [dataclasses.replace(MINTER, revoked_at=2000)]
    await table.refresh()
    for one in (other, app):
        with pytest.raises(CallerUnknown):
            at.demand_standing(one)
    at.demand_standing(dataclasses.replace(caller, session="ses_9"))  # forgotten here, which is not ended
    at.demand_standing(Caller("default", "local", "loopback", ("*",)))


async def test_a_change_that_cannot_be_read_is_read_when_it_is_used() -> None:
    register = Register(session())
    at, table = await desk(register)
    await known(at)
    register.sessions[digest_of(KEY)] = session(revoked_at=2000)
    register.away = True
    await table.reread(digest_of(KEY))
    with pytest.raises(StoreUnavailable):
        await known(at)
    register.away = False
    register.ticks += 1.5
    assert await refused(at) == "revoked_key"


async def test_a_renewal_elsewhere_is_seen_when_it_is_needed() -> None:
    """And what has ended is not looked for again and again."""
    register = Register(session(renewable_until=9000), session("apx_b", id="ses_2"))
    at, _ = await desk(register)
    await known(at)
    await known(at, "apx_b")
    register.asked.clear()
    register.now, register.ticks = 3000.0, 1.0
    register.sessions[digest_of(KEY)] = session(renewable_until=9000, expires_at=4000)
    assert (await known(at)).caller.session == "ses_1"
    with pytest.raises(CallerUnknown):
        ask(at, "apx_b")
    register.now, register.ticks = 4000.0, 2.0
    for _ in range(5):
        assert await refused(at) == "expired_key"
    assert register.asked == [1, 1], "once when it might have been, and once when it was not"
    register.sessions[digest_of(KEY)] = session(renewable_until=9000, expires_at=5000, revoked_at=3999)
    register.ticks = 3.0
    assert await refused(at) == "revoked_key"


async def test_only_what_is_used_here_is_read_again() -> None:
    register = Register(*(session(f"apx_{n}", id=f"ses_{n}") for n in range(50)))
    at, table = await desk(register)
    for n in range(3):
        await known(at, f"apx_{n}")
        register.ticks += 1
    register.asked.clear()
    await table.refresh()
    assert register.asked == [3]
    for _ in range(IDLE):
        ask(at, "apx_0")
        await table.refresh()
    register.asked.clear()
    await table.refresh()
    assert register.asked == [1], "the others were not used for long, and are looked up when they are"
    assert (await known(at, "apx_1")).caller.session == "ses_1"


async def test_many_new_sessions_are_read_together_and_made_up_ones_cost_next_to_nothing() -> None:
    register = Register(*(session(f"apx_{n}", id=f"ses_{n}") for n in range(300)))
    at, _ = await desk(register)
    register.door.clear()
    asking = [asyncio.create_task(known(at, f"apx_{n}")) for n in range(300)]
    await register.entered.wait()
    register.door.set()
    found = await asyncio.gather(*asking)
    assert {one.caller.session for one in found} == {f"ses_{n}" for n in range(300)}
    assert register.asked == [1, 299], "who comes while one is read is read with all others"
    register.asked.clear()
    made_up = [asyncio.create_task(known(at, f"apx_x{n}")) for n in range(400)]
    ended = await asyncio.gather(*made_up, return_exceptions=True)
    assert all(isinstance(one, CallerUnknown) for one in ended)
    assert len(register.asked) <= 3
    assert all(size <= MOST for size in register.asked)


async def test_an_outage_is_not_taken_for_a_session_that_is_not_there() -> None:
    register = Register(session(), session("apx_new", id="ses_2"))
    at, table = await desk(register)
    await known(at)
    register.away = True
    with pytest.raises(StoreUnavailable):
        await table.refresh()
    assert ask(at).user == "alice", "what is known is believed for a while"
    asking = [asyncio.create_task(known(at, "apx_new")) for _ in range(3)]
    ended = await asyncio.gather(*asking, return_exceptions=True)
    assert [type(one) for one in ended] == [StoreUnavailable] * 3
    register.away = False
    register.ticks += 1.5
    assert (await known(at, "apx_new")).caller.session == "ses_2"
    register.ticks += BLIND + 1
    with pytest.raises(StoreUnavailable):
        ask(at)
