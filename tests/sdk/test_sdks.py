"""Vendors' own libraries through the proxy by base URL: they notice neither the injected token nor its renewal."""

from __future__ import annotations

import base64
import gc
import json
import time
import urllib.request
import warnings
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.sdk.conftest import Bench

USER = {"X-User-ID": "alice"}
pytestmark = [
    pytest.mark.scenario("G24", "D14"),
    # Some of these libraries leave their sockets to the garbage collector.
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(autouse=True)
def _collected() -> Iterator[None]:
    """Theirs to leak, and not the next test's to be blamed for."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE"])
def test_requests(at: Bench, method: str) -> None:
    requests = pytest.importorskip("requests")
    body = None if method in ("GET", "DELETE") else b"x" * 3000
    answer = requests.request(
        method, at.base("plain") + "/a%2Fb?c=d&c=e", data=body, headers=USER, timeout=10
    )
    assert answer.json() == {"path": "/a%2Fb?c=d&c=e", "length": len(body or b"")}
    assert at.took()[-1].method == method


def test_requests_streams_an_upload_from_a_generator(at: Bench) -> None:
    """Chunked: kept for the replay all the same."""
    requests = pytest.importorskip("requests")
    pieces = (b"x" * 1000 for _ in range(50))
    answer = requests.post(at.base("plain") + "/up", data=pieces, headers=USER, timeout=10)
    assert answer.json() == {"path": "/up", "length": 50_000}
    assert at.took()[-1].headers["transfer-encoding"] == "chunked"


def test_httpx(at: Bench) -> None:
    httpx = pytest.importorskip("httpx")
    with httpx.Client(base_url=at.base("plain"), headers=USER) as client:
        assert client.post("/x", json={"a": 1}).json() == {"path": "/x", "length": 7}
    assert at.took()[-1].body == b'{"a":1}'


async def test_httpx_async(at: Bench) -> None:
    httpx = pytest.importorskip("httpx")
    async with httpx.AsyncClient(base_url=at.base("plain"), headers=USER) as client:
        assert (await client.get("/y")).json()["path"] == "/y"
    at.took()


def test_urllib_as_an_http_proxy(at: Bench) -> None:
    """HTTP_PROXY style: the API's own name in the URL, the proxy in between."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({"http": at.proxy.url}))
    upstream = at.proxy.config["routes"]["plain"]["upstream"]
    with opener.open(urllib.request.Request(upstream + "/z?a=b", headers=USER), timeout=10) as answer:
        assert b"/z?a=b" in answer.read()
    assert at.took()[-1].target == "/z?a=b"


def _google(at: Bench) -> Any:
    httplib2 = pytest.importorskip("httplib2")

    class UserHttp(httplib2.Http):  # type: ignore[name-defined,misc]
        def request(
            self, uri: str, method: str = "GET", body: Any = None, headers: Any = None, **more: Any
        ) -> Any:
            return super().request(uri, method, body, {**(headers or {}), **USER}, **more)

    return UserHttp(proxy_info=None)


def test_google_gmail(at: Bench) -> None:
    discovery = pytest.importorskip("googleapiclient.discovery")
    options = {"api_endpoint": at.base("gmail") + "/"}
    with discovery.build(
        "gmail", "v1", http=_google(at), static_discovery=True, client_options=options
    ) as gmail:
        listed = gmail.users().messages().list(userId="me", q="from:bob is:unread").execute()
        raw = base64.urlsafe_b64encode(b"Subject: hi\r\n\r\nhi").decode()
        sent = gmail.users().messages().send(userId="me", body={"raw": raw}).execute()
    assert (listed["messages"][0]["id"], sent["labelIds"]) == ("1", ["SENT"])
    arrived = at.took()
    assert arrived[-2].target.startswith("/gmail/v1/users/me/messages?q=from%3Abob+is%3Aunread")
    assert raw.encode() in arrived[-1].body


def test_google_calendar(at: Bench) -> None:
    discovery = pytest.importorskip("googleapiclient.discovery")
    options = {"api_endpoint": at.base("calendar") + "/calendar/v3/"}
    with discovery.build(
        "calendar", "v3", http=_google(at), static_discovery=True, client_options=options
    ) as service:
        assert service.calendarList().list().execute()["items"][0]["id"] == "primary"
    at.took()


def test_slack(at: Bench) -> None:
    slack = pytest.importorskip("slack_sdk")
    client = slack.WebClient(token="dummy", base_url=at.base("slack") + "/api/", headers=USER)
    assert client.auth_test()["user"] == "alice"
    assert client.chat_postMessage(channel="C1", text="hello & good-bye")["ts"] == "1.2"
    assert at.took()[-1].target == "/api/chat.postMessage"


def test_github(at: Bench) -> None:
    github = pytest.importorskip("github")
    from github import Auth

    class UserAuth(Auth.Auth):
        token_type, token = "token", "dummy"

        def authentication(self, headers: dict[str, str]) -> None:
            headers.update({"Authorization": "token dummy", **USER})

    client = github.Github(
        base_url=at.base("github"), auth=UserAuth(), retry=None, seconds_between_requests=0
    )
    try:
        assert client.get_user().login == "alice"
        # It insists that URLs in answers are below its base URL: those of the next page and of each repository are.
        repos = list(client.get_user().get_repos())
    finally:
        client.close()
    assert [repo.full_name for repo in repos] == ["o/1", "o/2"]
    assert repos[0].url == at.base("github") + "/repos/o/1"
    assert [one.target for one in at.took()][-2:] == ["/user/repos", "/user/repos?page=2"]


def test_salesforce(at: Bench) -> None:
    """It insists on https and on the root: one adapter moves it."""
    requests = pytest.importorskip("requests")
    simple_salesforce = pytest.importorskip("simple_salesforce")

    class Move(requests.adapters.HTTPAdapter):  # type: ignore[name-defined,misc]
        def send(self, request: Any, **more: Any) -> Any:
            parts = urlsplit(request.url)
            request.url = at.base("salesforce") + parts.path + (f"?{parts.query}" if parts.query else "")
            return super().send(request, **more)

    with requests.Session() as session:
        session.headers.update(USER)
        session.mount("https://authproxy.invalid", Move())
        client = simple_salesforce.Salesforce(
            instance_url="https://authproxy.invalid", session_id="dummy", session=session
        )
        assert client.query("SELECT Id FROM Account WHERE Name = 'A+B'")["totalSize"] == 1
    assert "/query/?q=SELECT+Id" in at.took()[-1].target


def test_hubspot(at: Bench) -> None:
    hubspot = pytest.importorskip("hubspot")
    api = hubspot.Client.create(access_token="dummy", host=at.base("hubspot")).crm.contacts.basic_api
    api.api_client.set_default_header("X-User-ID", "alice")
    assert api.get_page(limit=1).results[0].id == "7"
    assert at.took()[-1].target.startswith("/crm/v3/objects/contacts?")


@pytest.mark.scenario("I12", "F10")
@pytest.mark.parametrize("slot", ["bearer", "token", "x-authproxy-key", "proxy-basic"])
def test_an_agent_key_fits_wherever_a_library_keeps_one(at: Bench, slot: str) -> None:
    """A key bound to one user needs no header of ours, and travels no further than the proxy."""
    requests = pytest.importorskip("requests")
    where = ["--config", str(at.proxy.file), "--store", f"sqlite:///{at.proxy.store}"]
    made = at.proxy.run("agents", "create", f"sdk-{slot}", "--user", "alice", "--json", *where)
    assert made.returncode == 0, made.stderr
    key = json.loads(made.stdout)["key"]
    proof = base64.b64encode(f"alice:{key}".encode()).decode()
    headers = {
        "bearer": {"Authorization": f"Bearer {key}"},
        "token": {"Authorization": f"token {key}"},
        "x-authproxy-key": {"X-Authproxy-Key": key},
        "proxy-basic": {"Proxy-Authorization": f"basic {proof}"},
    }[slot]
    deadline = time.monotonic() + 2
    while (answer := requests.get(at.base("plain") + "/k", headers=headers, timeout=10)).status_code == 407:
        assert time.monotonic() < deadline, answer.text
        time.sleep(0.02)  # made by another process: known here within the leash
    assert answer.status_code == 200, answer.text
    at.took()
    stranger = {**headers, "X-User-ID": "bob"}
    refused = requests.get(at.base("plain") + "/k", headers=stranger, timeout=10)
    assert refused.status_code == 403
    assert refused.json()["code"] == "user_not_allowed"
    assert at.api.arrived == []


def test_a_library_does_not_retry_a_refusal_for_the_user(bench: Bench) -> None:
    """D13: what a person must mend is not a status that common retry rules repeat."""
    requests = pytest.importorskip("requests")
    from urllib3.util.retry import Retry

    retry = Retry(total=3, status_forcelist=[429, 500, 502, 503, 504], backoff_factor=0)
    with requests.Session() as session:
        session.mount("http://", requests.adapters.HTTPAdapter(max_retries=retry))
        answer = session.get(bench.base("plain") + "/x", headers={"X-User-ID": "nobody"}, timeout=10)
    assert answer.status_code == 403
    assert answer.raw.retries.history == ()
