"""Vendors' own libraries with what `Client.door` gives them: as the user, with the agent's key, and refused in kind."""

from __future__ import annotations

import asyncio
import gc
import importlib
import json
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from authproxy.client import (
    AsyncClient,
    CallerUnknown,
    Client,
    ConnectionRequired,
    Door,
    NotFound,
    Refused,
    ScopeMissing,
    ToolFailed,
    UserNotAllowed,
    refusal_of,
)
from authproxy.client.door import UNUSED
from tests.client.conftest import Threaded
from tests.kit.process import LOOPBACK, Proxy, Seeded
from tests.kit.provider import Provider
from tests.sdk.conftest import VENDORS, Api, Bench

pytestmark = [
    pytest.mark.scenario("G24"),
    # Some of these libraries leave their sockets to the garbage collector.
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
]


class Shop(Bench):
    """The vendors' API behind the proxy, and the key of an application."""

    def __init__(self, *parts: Any) -> None:
        super().__init__(*parts)
        where = ("--config", str(self.proxy.file), "--store", f"sqlite:///{self.proxy.store}", "--json")
        made = self.proxy.run("agents", "create", "app", "--user", "alice", "--user", "nobody", *where)
        assert made.returncode == 0, made.stderr
        self.key: str = json.loads(made.stdout)["key"]
        deadline = time.monotonic() + 5
        while self.proxy.ask("GET", "/v1/sessions", headers={"Authorization": self.key})[0] == 401:
            assert time.monotonic() < deadline, "the key is not known"
            time.sleep(0.02)  # read by another process within its leash
        self.client = Client(self.proxy.control_url, proxy=self.proxy.url, key=self.key)

    def door(self, vendor: str, user: str | None = "alice", key: str | None = None) -> Door:
        client = self.client if key is None else Client(self.proxy.control_url, proxy=self.proxy.url, key=key)
        return client.door(vendor, user)

    def saw(self) -> list[Any]:
        """What arrived; the key of the application is nowhere in it."""
        arrived = self.took()
        assert all(self.key not in repr(one) for one in arrived)
        assert all(UNUSED not in one.headers.get("authorization", "") for one in arrived)
        return arrived


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    provider, api = Provider(), Api()
    hosts = {vendor: f"127.0.2.{number}" for number, vendor in enumerate(VENDORS, 1)}
    config = {
        "identity": {"callers": [{"kind": "api_key"}, LOOPBACK]},
        "providers": {"kit": {**provider.choice(), "api_hosts": list(hosts.values())}},
        "routes": {
            vendor: {
                "upstream": f"http://{host}:{api.port}",
                "rewrite_urls": vendor == "github",
                "provider": "kit",
                "scopes": ["read"],
            }
            for vendor, host in hosts.items()
        },
        "refresh": {"leash": 0.2, "background": False},
        "egress": {"allow": ["127.0.0.0/8"]},
    }
    try:
        with Proxy(tmp_path_factory.mktemp("door"), config) as proxy:
            seeded = Seeded(proxy, provider)
            yield Shop(proxy, api, seeded, seeded.user("alice")[1])
    finally:
        provider.close()
        api.close()


@pytest.fixture(autouse=True)
def _collected() -> Iterator[None]:
    """Theirs to leak, and not the next test's to be blamed for."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


@pytest.fixture(autouse=True)
def _surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A netrc whose entries would take the key's place."""
    netrc = tmp_path_factory.mktemp("home") / "netrc"
    netrc.write_text("default login netrc password CANARY-netrc\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))


# --- each library does one thing; what it says of it is compared


def _requests(door: Door) -> Any:
    with door.requests() as session:
        return session.get(door.url("/a/b"), timeout=10).json()["path"]


def _httpx(door: Door) -> Any:
    with importlib.import_module("httpx").Client(**door.httpx()) as client:
        return client.get("/a/b").json()["path"]


def _httpx_async(door: Door) -> Any:
    async def run() -> Any:
        async with importlib.import_module("httpx").AsyncClient(**door.httpx_async()) as client:
            return (await client.get("/a/b")).json()["path"]

    return asyncio.run(run())


def _aiohttp(door: Door) -> Any:
    async def run() -> Any:
        aiohttp = importlib.import_module("aiohttp")
        async with aiohttp.ClientSession(**door.aiohttp()) as session, session.get("a/b") as answer:
            return (await answer.json())["path"]

    return asyncio.run(run())


def _gmail(door: Door) -> Any:
    with door.google("gmail", "v1") as gmail:
        return gmail.users().messages().list(userId="me").execute()["messages"][0]["id"]


def _calendar(door: Door) -> Any:
    with door.google("calendar", "v3") as calendar:
        return calendar.calendarList().list().execute()["items"][0]["id"]


def _slack(door: Door) -> Any:
    return importlib.import_module("slack_sdk").WebClient(**door.slack()).auth_test()["user"]


def _github(door: Door) -> Any:
    github = importlib.import_module("github")
    with ExitStack() as stack:
        hub = github.Github(**door.github(), retry=None, seconds_between_requests=0)
        stack.callback(hub.close)
        assert hub.get_user().login == "alice"
        return [repo.full_name for repo in hub.get_user().get_repos()]


def _salesforce(door: Door) -> Any:
    salesforce = importlib.import_module("simple_salesforce").Salesforce(**door.salesforce())
    return salesforce.query("SELECT Id FROM Account WHERE Name = 'A+B'")["totalSize"]


def _hubspot(door: Door) -> Any:
    hub = importlib.import_module("hubspot").Client.create(**door.hubspot())
    return hub.crm.contacts.basic_api.get_page(limit=1).results[0].id


Work = Callable[[Door], Any]
LIBRARIES: dict[str, tuple[str, str, Work, Any]] = {
    "requests": ("requests", "plain", _requests, "/a/b"),
    "httpx": ("httpx", "plain", _httpx, "/a/b"),
    "httpx async": ("httpx", "plain", _httpx_async, "/a/b"),
    "aiohttp": ("aiohttp", "plain", _aiohttp, "/a/b"),
    "gmail": ("googleapiclient", "gmail", _gmail, "1"),
    "calendar": ("googleapiclient", "calendar", _calendar, "primary"),
    "slack": ("slack_sdk", "slack", _slack, "alice"),
    "github": ("github", "github", _github, ["o/1", "o/2"]),
    "salesforce": ("simple_salesforce", "salesforce", _salesforce, 1),
    "hubspot": ("hubspot", "hubspot", _hubspot, "7"),
}
EACH = pytest.mark.parametrize("library", list(LIBRARIES))


@EACH
def test_it_works_as_the_user_it_is_for(shop: Shop, library: str) -> None:
    module, vendor, work, expected = LIBRARIES[library]
    pytest.importorskip(module)
    assert work(shop.door(vendor)) == expected
    shop.saw()


@EACH
def test_with_a_session_it_needs_no_user(shop: Shop, library: str) -> None:
    module, vendor, work, expected = LIBRARIES[library]
    pytest.importorskip(module)
    made = shop.client.sessions.mint("alice", routes=[vendor], ttl=60)
    assert work(shop.door(vendor, None, made.key)) == expected
    shop.saw()


@EACH
def test_a_missing_connection_comes_back_with_its_link(shop: Shop, library: str) -> None:
    """As our exception where the library lets us, else behind the library's own."""
    module, vendor, work, _ = LIBRARIES[library]
    pytest.importorskip(module)
    refused = _refused(lambda: work(shop.door(vendor, "nobody")))
    assert isinstance(refused, ConnectionRequired)
    assert (refused.user, refused.provider, refused.act) == ("nobody", "kit", "ask_user")
    assert refused.connect_url is not None
    assert refused.connect_url.startswith(shop.proxy.control_url)


@EACH
def test_other_refusals_come_back_as_what_they_are(shop: Shop, library: str) -> None:
    module, vendor, work, _ = LIBRARIES[library]
    pytest.importorskip(module)
    assert isinstance(_refused(lambda: work(shop.door(vendor, "mallory"))), UserNotAllowed)
    assert isinstance(_refused(lambda: work(shop.door(vendor, "alice", "apx_nobody"))), CallerUnknown)


def _refused(work: Callable[[], Any]) -> Refused | None:
    with pytest.raises(Exception) as raised:
        work()
    found = refusal_of(raised.value)
    assert found is not None, repr(raised.value)
    return found


def test_an_upload_of_googles_goes_through_too(shop: Shop) -> None:
    pytest.importorskip("googleapiclient")
    media = importlib.import_module("googleapiclient.http").MediaInMemoryUpload(b"x" * 100, "message/rfc822")
    with shop.door("gmail").google("gmail", "v1") as gmail:
        gmail.users().messages().send(userId="me", media_body=media).execute()
    assert shop.saw()[-1].target.startswith("/upload/gmail/v1/users/me/messages/send?")


def test_a_service_that_google_has_not(shop: Shop) -> None:
    pytest.importorskip("googleapiclient")
    with pytest.raises(ValueError, match="no nowhere v1"):
        shop.door("gmail").google("nowhere", "v1")


def test_without_a_key_a_token_is_made_up_where_one_is_insisted_on(shop: Shop) -> None:
    door = Client(shop.proxy.control_url, proxy=shop.proxy.url).door("slack", "alice")
    assert door.headers == {"X-User-ID": "alice"}
    assert door.slack()["token"] == UNUSED
    pytest.importorskip("slack_sdk")
    assert _slack(door) == "alice"
    shop.saw()


def test_what_each_is_given(shop: Shop) -> None:
    door = shop.client.door("openai", "alice", account="work")
    base, key = f"{shop.proxy.url}/openai", shop.key
    assert door.base_url == base
    named = {"X-User-ID": "alice", "X-Authproxy-Account": "work"}
    assert door.headers == {"Authorization": f"Bearer {key}", **named}
    assert door.openai() == {"api_key": key, "base_url": f"{base}/v1", "default_headers": named}
    assert door.openai("") == {"api_key": key, "base_url": base, "default_headers": named}
    assert door.anthropic() == {"api_key": key, "base_url": base, "default_headers": named}
    assert door.slack() == {"token": key, "base_url": f"{base}/api/", "headers": named}
    assert (door.url("/v1/models"), door.url("v1/models")) == (f"{base}/v1/models",) * 2
    other = Client(proxy=f"{shop.proxy.url}/", user_header="X-Acting-User").door(
        "gmail", "alice", prefix="/mail/"
    )
    assert (other.base_url, other.headers) == (f"{shop.proxy.url}/mail", {"X-Acting-User": "alice"})
    assert key not in repr(door)


@pytest.mark.parametrize("name", ["openai", "anthropic"])
def test_models_libraries(shop: Shop, name: str) -> None:
    """Where they are installed: the key as their key, the user beside it, and a refusal behind their exception."""
    module = pytest.importorskip(name)
    kind = {"openai": "OpenAI", "anthropic": "Anthropic"}[name]
    door = Door(
        shop.door("plain").base_url, user="alice", account=None, key=shop.key, user_header="X-User-ID"
    )
    with getattr(module, kind)(**getattr(door, name)(), max_retries=0) as client:
        client.models.list()
    assert shop.saw()[-1].target == "/v1/models"
    door = shop.door("plain", "nobody")
    with getattr(module, kind)(**getattr(door, name)(), max_retries=0) as client:
        assert isinstance(_refused(client.models.list), ConnectionRequired)


def test_who_a_redirect_leads_to_has_no_say_in_which_link_is_shown(shop: Shop) -> None:
    requests, httpx, aiohttp = (pytest.importorskip(name) for name in ("requests", "httpx", "aiohttp"))
    elsewhere = Api()
    elsewhere.answer = lambda _: (
        403,
        {"connect_url": "https://evil/"},
        {"X-Authproxy-Error": "connection_required"},
    )  # type: ignore[method-assign]
    answer = shop.api.answer
    shop.api.answer = lambda _: (302, {}, {"Location": f"http://127.0.0.1:{elsewhere.port}/x"})  # type: ignore[method-assign]
    door = shop.door("plain")

    async def loop() -> list[int]:
        async with (
            httpx.AsyncClient(**door.httpx_async(), follow_redirects=True) as one,
            aiohttp.ClientSession(**door.aiohttp()) as other,
            other.get("x") as second,
        ):
            return [(await one.get("/x")).status_code, second.status]

    try:
        with door.requests() as session:
            assert session.get(door.url("/x"), timeout=10).status_code == 403
        with httpx.Client(**door.httpx(), follow_redirects=True) as client:
            assert client.get("/x").status_code == 403
        assert asyncio.run(loop()) == [403, 403]
        assert requests
    finally:
        shop.api.answer = answer  # type: ignore[method-assign]
        elsewhere.close()
    shop.api.arrived.clear()
    assert len(elsewhere.arrived) == 4


@pytest.mark.scenario("F10")
def test_a_redirect_elsewhere_does_not_take_the_key_along(shop: Shop) -> None:
    requests, httpx = pytest.importorskip("requests"), pytest.importorskip("httpx")
    elsewhere = Api()
    answer = shop.api.answer
    shop.api.answer = lambda _: (302, {}, {"Location": f"http://127.0.0.1:{elsewhere.port}/stolen"})  # type: ignore[method-assign]
    try:
        door = shop.door("plain")
        with door.requests() as session:
            session.get(door.url("/x"), timeout=10)
        with httpx.Client(**door.httpx()) as client:
            client.get("/x", follow_redirects=True)
        google = door.google_http()
        google.request(door.url("/x"))
        assert requests
    finally:
        shop.api.answer = answer  # type: ignore[method-assign]
        elsewhere.close()
    shop.api.arrived.clear()
    assert len(elsewhere.arrived) == 2
    assert shop.key not in repr(elsewhere.arrived)


# --- tools, on the same walk


@pytest.mark.parametrize("kind", ["blocking", "asynchronous"])
async def test_tools(shop: Shop, kind: str) -> None:
    one = (
        Threaded(shop.client)
        if kind == "blocking"
        else AsyncClient(shop.proxy.control_url, key=shop.key, proxy=shop.proxy.url)
    )
    try:
        listed = {tool.name: tool for tool in await one.tools.list()}
        assert {"Gmail.ListEmails", "Slack.SendMessage", "Github.WhoAmI"} <= set(listed)
        assert len(listed) > 100, "all pages"
        assert (listed["Gmail.ListEmails"].read_only, listed["Gmail.TrashEmail"].destructive) == (True, True)
        assert listed["Gmail.ListEmails"].met is None
        gmail = await one.tools.list(toolkit="Gmail", user="alice", formats=["openai", "anthropic"])
        assert {tool.name.partition(".")[0] for tool in gmail} == {"Gmail"}
        assert all(tool.met is False for tool in gmail), "the grant has none of Gmail's scopes"
        assert set(gmail[0].definition["formatted_schema"]) == {"openai", "anthropic"}
        assert (await one.tools.get("Github.WhoAmI", user="alice")).met is True

        done = await one.tools.execute("Github.WhoAmI", user="alice")
        assert "alice" in repr(done.value)
        assert done.id
        shop.saw()
        with pytest.raises(ToolFailed) as failed:
            await one.tools.execute("Github.GetRepository", {"owner": 7}, user="alice")
        assert failed.value.kind == "TOOL_RUNTIME_BAD_INPUT_VALUE"
        with pytest.raises(NotFound):
            await one.tools.execute("Nothing.Here", user="alice")
        for user, lacking in (("alice", ScopeMissing), ("nobody", ConnectionRequired)):
            with pytest.raises(lacking) as asked:
                await one.tools.execute("Gmail.ListEmails", {"n_emails": 1}, user=user)
            assert asked.value.connect_url is not None
            assert asked.value.authorization is not None
            assert (asked.value.user, asked.value.authorization.user) == (user, user)
        needed = await one.tools.authorize("Gmail.ListEmails", "alice")
        assert any("gmail.readonly" in scope for scope in needed.scopes)
    finally:
        if kind == "asynchronous":
            await one.close()


async def test_a_session_for_tools_alone_calls_them_and_nothing_else(shop: Shop) -> None:
    made = shop.client.sessions.mint("alice", tools=["Github.*:read_only"], ttl=60)
    agent = Client(shop.proxy.control_url, proxy=shop.proxy.url, key=made.key)
    offered = await asyncio.to_thread(agent.tools.list)
    assert offered
    assert all(tool.name.startswith("Github.") and tool.read_only for tool in offered)
    assert "alice" in repr((await asyncio.to_thread(agent.tools.execute, "Github.WhoAmI")).value)
    shop.saw()
    for name, given in (
        ("Github.CreateIssue", {"owner": "o", "repo": "r", "title": "t"}),
        ("Slack.WhoAmI", {}),
    ):
        with pytest.raises(NotFound):
            await asyncio.to_thread(agent.tools.execute, name, given)
    with pytest.raises(UserNotAllowed):
        await asyncio.to_thread(agent.tools.execute, "Github.WhoAmI", user="nobody")
    refused = await asyncio.to_thread(_refused, lambda: _requests(agent.door("github")))
    assert (refused and refused.code, refused and refused.reason) == ("policy_denied", "session")
    assert shop.api.arrived == []
