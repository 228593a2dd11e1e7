"""Who is asking: where a credential may stand, what is refused, and how soon a revocation is seen."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authproxy.callers.api_key import BLIND, ApiKeys, both, new_key
from authproxy.callers.desk import Desk, Identified
from authproxy.callers.loopback import Loopback
from authproxy.callers.presented import Listener, digest_of, presented
from authproxy.core.config import CallerChoice
from authproxy.core.errors import CallerUnknown, StoreUnavailable
from authproxy.core.model import AgentKey, Caller

KEY = "apx_" + "k" * 43
OTHER = "apx_" + "o" * 43
LOOPBACK = CallerChoice(kind="loopback", agent="local")
API_KEY = CallerChoice(kind="api_key")


def agent(key: str = KEY, **changes: object) -> AgentKey:
    made = AgentKey(
        id="agt_1",
        tenant="default",
        name="mailer",
        digest=digest_of(key),
        may_act_for=("*",),
        operator=False,
        created_at=1000,
    )
    return dataclasses.replace(made, **changes)  # type: ignore[arg-type]


class Register:
    """The agents as a store would hold them, and the two clocks."""

    def __init__(self, *agents: AgentKey) -> None:
        self.agents = list(agents)
        self.now = 2000.0
        self.away = False

    async def load(self) -> Iterable[AgentKey]:
        if self.away:
            raise StoreUnavailable("the store is away")
        return list(self.agents)

    def clock(self) -> float:
        return self.now


async def desk(register: Register, *choices: CallerChoice) -> Desk:
    keys = [c for c in choices if c.kind == "api_key"]
    table = ApiKeys(
        keys[0] if keys else API_KEY, register.load, clock=register.clock, monotonic=register.clock
    )
    await table.refresh()
    return Desk(
        [*(Loopback(c) for c in choices if c.kind == "loopback"), *([table] if keys else [])],
    )


def ask(at: Desk, *headers: tuple[str, str], local: bool = True, listener: Listener = "data") -> Identified:
    raw = [(name.encode(), value.encode()) for name, value in headers]
    return at.identify(raw, peer_is_loopback=local, listener=listener)


def basic(user: str, password: str, word: str = "Basic") -> str:
    return f"{word} {base64.b64encode(f'{user}:{password}'.encode()).decode()}"


async def test_loopback_needs_no_credential_and_no_other_peer_gets_it() -> None:
    at = await desk(Register(), LOOPBACK)
    assert ask(at).caller == Caller("default", "local", "loopback", ("*",))
    with pytest.raises(CallerUnknown):
        ask(at, local=False)


@pytest.mark.parametrize(
    ("header", "listener", "user"),
    [
        (("Proxy-Authorization", basic("alice", KEY)), "data", "alice"),
        (("proxy-authorization", basic("alice", KEY, "basic")), "data", "alice"),
        (("Proxy-Authorization", basic("", KEY)), "data", None),
        (("Proxy-Authorization", f"Bearer {KEY}"), "data", None),
        (("Authorization", f"Bearer {KEY}"), "data", None),
        (("Authorization", f"token {KEY}"), "data", None),
        (("Authorization", f"BEARER {KEY}"), "data", None),
        (("Authorization", basic("x-access-token", KEY)), "data", None),
        (("Authorization", basic(KEY, "")), "data", None),
        (("X-Authproxy-Key", KEY), "data", None),
        (("Authorization", KEY), "control", None),
        (("Authorization", f"Bearer {KEY}"), "control", None),
        (("X-Authproxy-Key", KEY), "control", None),
    ],
)
async def test_places_where_a_key_may_stand(
    header: tuple[str, str], listener: Listener, user: str | None
) -> None:
    at = await desk(Register(agent()), API_KEY)
    got = ask(at, header, local=False, listener=listener)
    assert (got.caller.agent, got.caller.kind, got.user) == ("mailer", "api_key", user)


@pytest.mark.scenario("I05")
@pytest.mark.parametrize(
    "header",
    [
        ("Authorization", f"Bearer {OTHER}"),
        ("X-Authproxy-Key", OTHER),
        ("X-Authproxy-Key", "hunter2"),
        ("X-Authproxy-Key", ""),
        ("Proxy-Authorization", basic("alice", OTHER)),
        ("Proxy-Authorization", basic("alice", "hunter2")),
        ("Proxy-Authorization", "Basic !!!"),
        ("Proxy-Authorization", basic("a\nb", KEY)),
        ("Proxy-Authorization", basic("ali\u202ece", KEY)),
        ("Proxy-Authorization", basic("\x1b[31malice", KEY)),
        ("Proxy-Authorization", basic("a" * 257, KEY)),
        ("Proxy-Authorization", basic("a,b", KEY)),
        ("Proxy-Authorization", "Negotiate abc"),
        ("Proxy-Authorization", ""),
        ("Authorization", "Bearer apx_"),
    ],
)
async def test_a_bad_credential_is_refused_where_none_would_do(header: tuple[str, str]) -> None:
    at = await desk(Register(agent()), LOOPBACK, API_KEY)
    with pytest.raises(CallerUnknown):
        ask(at, header)


@pytest.mark.scenario("I05")
@pytest.mark.parametrize("changes", [{"revoked_at": 0}, {"expires_at": 2000}, {"expires_at": 0}])
async def test_a_key_that_was_good_once_is_refused(changes: dict[str, object]) -> None:
    at = await desk(Register(agent(**changes)), LOOPBACK, API_KEY)
    with pytest.raises(CallerUnknown):
        ask(at, ("X-Authproxy-Key", KEY))


async def test_a_dummy_token_in_the_sdks_slot_is_no_credential() -> None:
    at = await desk(Register(), LOOPBACK)
    for dummy in ("Bearer dummy", "token ghp_dummy", basic("user", "pass"), "dummy", "", "Basic !!!"):
        assert ask(at, ("Authorization", dummy)).caller.kind == "loopback"


async def test_a_user_name_without_a_key_names_the_user_of_a_local_caller() -> None:
    at = await desk(Register(), LOOPBACK)
    assert ask(at, ("Proxy-Authorization", basic("alice", ""))).user == "alice"


async def test_a_proxy_credential_means_nothing_on_the_control_plane() -> None:
    at = await desk(Register(agent()), API_KEY)
    with pytest.raises(CallerUnknown):
        ask(at, ("Proxy-Authorization", basic("alice", KEY)), listener="control")


@pytest.mark.scenario("I05")
@pytest.mark.parametrize(
    "headers",
    [
        (("X-Authproxy-Key", KEY), ("Authorization", f"Bearer {OTHER}")),
        (("X-Authproxy-Key", KEY), ("X-Authproxy-Key", OTHER)),
        (("Proxy-Authorization", basic("alice", KEY)), ("Proxy-Authorization", basic("bob", KEY))),
        (("Authorization", f"{KEY} {OTHER}"),),
    ],
)
async def test_credentials_that_disagree_are_refused(headers: tuple[tuple[str, str], ...]) -> None:
    at = await desk(Register(agent(), agent(OTHER, id="agt_2")), LOOPBACK, API_KEY)
    with pytest.raises(CallerUnknown):
        ask(at, *headers)


async def test_credentials_that_agree_are_one() -> None:
    at = await desk(Register(agent()), API_KEY)
    got = ask(at, ("X-Authproxy-Key", KEY), ("Proxy-Authorization", basic("alice", KEY)))
    assert got.user == "alice"


async def test_a_key_bound_to_one_user_names_it_and_no_other() -> None:
    at = await desk(Register(agent(may_act_for=("alice",))), API_KEY)
    assert ask(at, ("X-Authproxy-Key", KEY)).user == "alice"
    assert not ask(at, ("X-Authproxy-Key", KEY)).caller.allowed("bob")
    with pytest.raises(CallerUnknown):
        ask(at, ("Proxy-Authorization", basic("bob", KEY)))


async def test_the_configured_bound_holds_against_the_key() -> None:
    bound = dataclasses.replace(API_KEY, may_act_for=("team-a-*",))
    at = await desk(Register(agent(may_act_for=("*",))), bound)
    caller = ask(at, ("X-Authproxy-Key", KEY)).caller
    assert caller.may_act_for == ("team-a-*",)
    outside = await desk(Register(agent(may_act_for=("bob",))), bound)
    assert not ask(outside, ("X-Authproxy-Key", KEY)).caller.allowed("bob")


PATTERNS = st.lists(
    st.builds(lambda stem, star: stem + star, st.text("ab", max_size=3), st.sampled_from(["", "*"])),
    max_size=4,
)


@given(PATTERNS, PATTERNS, st.text("ab", max_size=5))
def test_the_intersection_allows_exactly_what_both_allow(
    ours: list[str], bound: list[str], user: str
) -> None:
    def allows(patterns: Iterable[str]) -> bool:
        return Caller("t", "a", "api_key", tuple(patterns)).allowed(user)

    assert allows(both(ours, bound)) == (allows(ours) and allows(bound))


async def test_a_key_without_its_kind_configured_is_refused() -> None:
    with pytest.raises(CallerUnknown) as caught:
        ask(await desk(Register(), LOOPBACK), ("X-Authproxy-Key", KEY))
    assert caught.value.reason == "kind_not_configured"
    with pytest.raises(CallerUnknown) as caught:
        ask(await desk(Register()))
    assert caught.value.reason == "none_configured"


async def test_a_revocation_elsewhere_is_seen_within_the_leash() -> None:
    register = Register(agent())
    table = ApiKeys(API_KEY, register.load, leash=1.0, clock=register.clock)
    await table.refresh()
    at = Desk([table])
    keeper = asyncio.create_task(table.run())
    try:
        assert ask(at, ("X-Authproxy-Key", KEY)).caller.agent == "mailer"
        register.agents[:] = [agent(revoked_at=2000)]
        revoked = asyncio.get_running_loop().time()
        while True:
            try:
                ask(at, ("X-Authproxy-Key", KEY))
            except CallerUnknown:
                break
            await asyncio.sleep(0)
        assert asyncio.get_running_loop().time() - revoked <= 1.0
    finally:
        keeper.cancel()


@pytest.mark.scenario("E06")
async def test_a_store_that_is_away_is_no_verdict_on_a_key_and_is_not_believed_for_ever() -> None:
    register = Register(agent())
    table = ApiKeys(API_KEY, register.load, clock=register.clock, monotonic=register.clock)
    at = Desk([table])
    with pytest.raises(StoreUnavailable):
        ask(at, ("X-Authproxy-Key", KEY))
    await table.refresh()
    register.away = True
    with pytest.raises(StoreUnavailable):
        await table.refresh()
    register.now += BLIND
    assert ask(at, ("X-Authproxy-Key", KEY)).caller.agent == "mailer"
    register.now += 1
    with pytest.raises(StoreUnavailable):
        ask(at, ("X-Authproxy-Key", KEY))


async def test_a_key_made_a_moment_ago_is_looked_up_and_made_up_keys_cost_next_to_nothing() -> None:
    register = Register()
    table = ApiKeys(API_KEY, register.load, clock=register.clock, monotonic=register.clock)
    await table.refresh()
    at = Desk([table])
    register.agents.append(agent())
    with pytest.raises(CallerUnknown) as refused:
        ask(at, ("X-Authproxy-Key", KEY))
    assert not await at.look_again(refused.value), "the table was read this very moment"
    register.now += 1
    assert await at.look_again(refused.value)
    assert ask(at, ("X-Authproxy-Key", KEY)).caller.agent == "mailer"
    assert not await at.look_again(CallerUnknown("another", reason="revoked_key"))
    register.away, register.now = True, register.now + 1
    assert not await at.look_again(refused.value)


def test_new_keys_have_256_bits_and_our_prefix() -> None:
    assert len(new_key()) == 4 + 43
    assert new_key() != new_key()
    assert presented([(b"X-Authproxy-Key", new_key().encode())], listener="data").digest is not None
