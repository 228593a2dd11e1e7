"""A pause that a provider asks for: whose, of what, until when, and who may look whether it is over."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from authproxy.core.bounds import Limits
from authproxy.core.config import Config, ProviderChoice, RouteChoice
from authproxy.core.errors import Overloaded
from authproxy.core.facts import Pacing
from authproxy.core.model import ConnectionKey
from authproxy.core.policy import compile_glob
from authproxy.core.providers import catalogue, provider_of
from authproxy.core.routes import RouteTable
from authproxy.metrics import Metrics
from authproxy.proxy import pauses
from authproxy.proxy.answer import Answer
from authproxy.proxy.exchange import Exchange, Origin
from authproxy.proxy.head import Head
from authproxy.proxy.pauses import Pauses
from authproxy.proxy.record import Entry

GITHUB = "github"
LONGEST = Limits().longest_pause


class Nowhere:
    """Where an answer of no connection comes from."""

    def pause(self) -> None: ...
    def resume(self) -> None: ...
    def discard(self) -> None: ...
    def write(self, data: bytes) -> None: ...
    def finish(self) -> None: ...
    async def drained(self) -> None: ...


class House:
    """Pauses at a time of our own, with one user's requests to GitHub."""

    def __init__(
        self,
        choice: ProviderChoice | None = None,
        *,
        longest: float = LONGEST,
        most: int = pauses.MOST,
        **route: object,
    ) -> None:
        self.now = 1000.0
        choice = choice or ProviderChoice(catalogue=GITHUB, client_id="x", client_auth="none")
        routes = {
            "api": RouteChoice(provider="hub", upstream="https://api.github.com", **route),  # type: ignore[arg-type]
            "other": RouteChoice(provider="hub", upstream="https://uploads.github.com"),
        }
        config = Config(version=1, providers={"hub": choice}, routes=routes)
        self.table = RouteTable.build(config)
        provider = provider_of("hub", choice)
        self.metrics = Metrics()
        self.pauses = Pauses(
            longest,
            lambda _name: provider,
            self.metrics,
            most=most,
            clock=lambda: 1.8e9 + self.now,
            tick=lambda: self.now,
        )

    def send(
        self, path: str = "/user", *, user: str = "alice", route: str = "api", method: str = "GET"
    ) -> Sent:
        return Sent(self, path, user, route, method)

    def told(self, seconds: float, **where: str) -> None:
        """One request that is answered with a pause."""
        self.send(**where).answered(429, (b"Retry-After", b"%d" % seconds))

    def free(self, path: str = "/user", **where: str) -> bool:
        """Whether a request goes upstream now; it is then answered well."""
        sent = self.send(path, **where)
        if sent.refusal is None:
            sent.answered(200)
        return sent.refusal is None


class Sent:
    """One request."""

    def __init__(self, house: House, path: str, user: str, route: str, method: str) -> None:
        self.house = house
        self.entry = Entry("id", method)
        found = house.table.get(route)
        assert found is not None
        self.where = (found, ConnectionKey("default", user, "hub"), path.encode(), self.entry)
        self.refusal: Overloaded | None = None
        try:
            house.pauses.enter(*self.where)
        except Overloaded as refusal:
            self.refusal = refusal
            house.pauses.leave(self.entry)

    def answered(self, status: int, *fields: tuple[bytes, bytes]) -> None:
        assert self.refusal is None, self.refusal
        head = Head(1, status, b"", list(fields), b"")
        exchange = Exchange(Origin("https", "api.github.com", 443), b"")
        self.house.pauses.heard(*self.where, Answer(head, exchange, Nowhere()))
        self.house.pauses.leave(self.entry)

    def lost(self) -> None:
        """Cancelled, refused, unreachable: no answer."""
        self.house.pauses.leave(self.entry)


def test_until_the_time_that_was_told() -> None:
    house = House()
    house.told(20)
    sent = house.send("/repos/x")
    assert sent.refusal is not None
    problem = sent.refusal.problem()
    assert (problem["status"], problem["code"], problem["reason"]) == (503, "overloaded", "provider_limit")
    assert (problem["retry_after"], problem["user"], problem["provider"]) == (20, "alice", "hub")
    house.now += 19.5
    late = house.send()
    assert late.refusal is not None
    assert late.refusal.retry_after == 1
    house.now += 0.5
    assert house.free()
    assert len(house.pauses) == 0


def test_nobody_else_waits_for_it() -> None:
    house = House()
    house.told(20)
    assert not house.free()
    assert house.free(user="bob")
    assert house.free(route="other"), "another upstream"
    assert house.free("/search/code?q=x"), "counted apart"
    assert house.free("/graphql", method="POST")
    house.told(20, path="/search/code")
    assert not house.free("/search/issues")
    assert house.free("/graphql", method="POST")


@pytest.mark.parametrize("scope", ["user", "app"])
def test_the_operator_may_say_whose_it_is(scope: str) -> None:
    choice = ProviderChoice(issuer="https://id.example", client_id="x", client_auth="none", pauses=scope)  # type: ignore[arg-type]
    house = House(choice)
    house.told(20)
    assert not house.free("/anything", method="POST")
    assert house.free(user="bob") is (scope == "user")


def test_an_api_that_nobody_has_described_is_believed_for_one_path() -> None:
    house = House(ProviderChoice(issuer="https://id.example", client_id="x", client_auth="none"))
    house.told(20, path="/a")
    assert house.free("/a"), "the first may have been about that one request"
    house.told(20, path="/a")
    house.told(20, path="/b")
    house.now += 10
    house.told(20, path="/a")
    assert not house.free("/a")
    assert house.free("/a", method="POST")
    assert house.free("/a", user="bob")
    house.now += 11
    assert not house.free("/a")
    house.told(20, path="/b")
    assert house.free("/b"), "the time that was told is over, and this is a first one again"


def test_first_words_are_bounded_and_forgotten() -> None:
    undescribed = ProviderChoice(issuer="https://id.example", client_id="x", client_auth="none")
    house = House(undescribed, most=50)
    for number in range(500):
        house.told(60, path=f"/{number}")
    assert len(house.pauses._heralds) <= 50
    house.now += 100
    for number in range(60):
        house.told(60, path=f"/again/{number}")
    assert len(house.pauses._heralds) <= 50
    house.now += 100
    for _ in range(60):
        assert house.free("/elsewhere")
    assert len(house.pauses._heralds) == len(house.pauses) == 0


@pytest.mark.parametrize("seconds", [61, 86_400, 999_999_999_999_999])
def test_no_pause_is_longer_than_the_longest(seconds: int) -> None:
    house = House()
    house.told(seconds)
    house.now += 59
    assert not house.free()
    house.now += 1
    assert house.free()


def test_pauses_can_be_switched_off() -> None:
    off = House(longest=0)
    off.told(20)
    assert off.free()
    one = House(share_pauses=False)
    one.told(20)
    assert one.free()
    house = House()
    house.told(20)
    assert not house.free()


def test_a_403_is_one_where_the_data_says_so() -> None:
    house = House()
    house.send().answered(403)
    house.send().answered(403, (b"x-ratelimit-remaining", b"3"), (b"x-ratelimit-reset", b"1800001030"))
    house.send().answered(503, (b"Retry-After", b"30"))
    house.send().answered(429)
    assert house.free()
    house.send().answered(403, (b"x-ratelimit-remaining", b"0"), (b"x-ratelimit-reset", b"1800001030"))
    refused = house.send()
    assert refused.refusal is not None
    assert refused.refusal.retry_after == 30


def test_one_looks_whether_it_is_over() -> None:
    house = House()
    house.told(5)
    house.now += 5
    probe = house.send()
    assert probe.refusal is None
    waiting = house.send()
    assert waiting.refusal is not None
    assert waiting.refusal.retry_after == 1
    probe.answered(200)
    assert house.free()
    house.told(5)
    house.now += 5
    probe = house.send()
    assert not house.free()
    probe.answered(429, (b"Retry-After", b"7"))
    house.now += 6
    assert not house.free()
    house.now += 1
    assert house.free()


def test_a_probe_that_gets_no_answer_makes_way() -> None:
    house = House()
    house.told(5)
    house.now += 5
    probe = house.send()
    probe.lost()
    second = house.send()
    assert second.refusal is None, "the next one looks"
    assert not house.free()
    house.now += 5
    third = house.send()
    assert third.refusal is None, "nobody waits longer for one that hangs"
    third.answered(204)
    assert house.free()
    second.answered(200)
    assert house.free()


def test_a_pause_long_over_holds_up_nobody() -> None:
    house = House()
    house.told(5)
    house.now += 500
    first, second = house.send(), house.send()
    assert first.refusal is None
    assert second.refusal is None


def test_answers_that_were_under_way_neither_end_nor_shorten_it() -> None:
    house = House()
    before = [house.send() for _ in range(3)]
    house.told(20)
    before[0].answered(200)
    before[1].answered(429, (b"Retry-After", b"2"))
    house.now += 10
    assert not house.free()
    before[2].answered(429, (b"Retry-After", b"15"))
    house.now += 14
    assert not house.free()
    house.now += 1
    assert house.free()


def test_a_user_s_and_the_app_s_pause_end_each_by_itself() -> None:
    choice = ProviderChoice(catalogue="xero", client_id="x", client_auth="none")
    house = House(choice)
    house.told(10)
    house.send(user="bob").answered(429, (b"Retry-After", b"10"), (b"X-Rate-Limit-Problem", b"appminute"))
    assert not house.free(user="carol")
    house.now += 10
    probe = house.send()
    assert probe.refusal is None
    assert len(probe.entry.probing) == 2, "one request looks for both"
    assert not house.free(user="carol")
    probe.lost()
    assert house.free()
    assert house.free(user="carol")
    assert len(house.pauses) == 0


def test_what_is_remembered_is_bounded() -> None:
    house = House(most=50)
    for number in range(500):
        house.told(60, user=f"user-{number}")
    assert len(house.pauses) <= 51
    house = House()
    for number in range(500):
        house.told(1, user=f"user-{number}")
        house.now += 1
    assert len(house.pauses) < 15, "those that are over go, though nobody came back"


def test_pauses_are_counted() -> None:
    house = House()
    house.told(5)
    house.send(user="bob").answered(429, (b"Retry-After", b"5"))
    page = house.metrics.exposition({}).decode()
    assert 'authproxy_provider_pauses_total{provider="hub"} 2.0' in page


def pacings() -> Sequence[tuple[str, Pacing]]:
    return [(name, entry.pacing) for name, entry in catalogue().items()]


@pytest.mark.parametrize(("name", "pacing"), pacings(), ids=lambda one: one if isinstance(one, str) else "")
def test_the_catalogue_s_words_can_be_used(name: str, pacing: Pacing) -> None:
    for glob in pacing.own_paths:
        assert compile_glob(glob)
    for field in (pacing.remaining, pacing.reset, *pacing.app_when, *pacing.app_when.values()):
        assert field is None or field == field.lower()
    assert 429 in pacing.statuses
    assert pacing.reset is not None or pacing.remaining is None
