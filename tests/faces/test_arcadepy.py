"""The public arcadepy client, as its users use it, with its base URL pointed here."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import arcadepy
import pytest
from arcadepy import Arcade

from tests.faces.conftest import Desk, Start
from tests.kit.browser import Browser, forms

T = TypeVar("T")


@pytest.fixture
def client(desk: Desk) -> Iterator[Arcade]:
    """Loopback needs no key, but the client insists on one."""
    with Arcade(base_url=desk.url, api_key="none") as client:
        yield client


async def call(work: Callable[..., T], *args: Any, **kwargs: Any) -> T:
    return await asyncio.to_thread(work, *args, **kwargs)


@pytest.mark.scenario("N10")
async def test_start_and_wait_for_completion(desk: Desk, client: Arcade) -> None:
    begun = await call(client.auth.start, "alice", "kit", scopes=["read"])
    assert begun.status == "not_started"
    assert begun.url is not None
    waiting = asyncio.create_task(call(client.auth.wait_for_completion, begun))
    await desk.consent(begun.url)
    ended = await waiting
    assert (ended.status, ended.id, ended.user_id, ended.provider_id) == (
        "completed",
        begun.id,
        "alice",
        "kit",
    )
    assert ended.scopes == ["read"]
    assert ended.context is not None
    assert ended.context.token is None


async def test_a_connected_user_is_completed_at_once(desk: Desk, client: Arcade) -> None:
    await desk.connect("alice")
    again = await call(client.auth.start, "alice", "kit", scopes=["read"])
    assert (again.status, again.url) == ("completed", None)
    assert again.id is not None
    assert (await call(client.auth.wait_for_completion, again.id)).status == "completed"
    without = await call(client.auth.start, "alice", "kit")
    assert without.status == "completed"


async def test_authorize_by_id_and_with_next_uri(desk: Desk, client: Arcade) -> None:
    begun = await call(
        client.auth.authorize,
        auth_requirement={"id": "kit", "oauth2": {"scopes": ["read"]}},
        user_id="alice",
        next_uri=f"{desk.url}/done?x=1",
    )
    assert begun.url is not None
    browser = Browser()
    page = await call(browser.open, begun.url)
    form = forms(page)[0]
    gone = await call(browser.open, form.action, method="POST", form=form.fields)
    back = await call(browser.follow, gone, until=f"{desk.url}/done")
    assert back.header("Location") == f"{desk.url}/done?x=1"


@pytest.mark.scenario("H04")
async def test_waiting_ends_when_the_user_declines(desk: Desk, client: Arcade) -> None:
    begun = await call(client.auth.start, "alice", "kit", scopes=["read"])
    assert begun.url is not None
    waiting = asyncio.create_task(call(client.auth.wait_for_completion, begun))
    await decline(desk, begun.url)
    with pytest.raises(arcadepy.PermissionDeniedError) as caught:
        await waiting
    body = caught.value.body
    assert isinstance(body, dict)
    assert (body["code"], body["act"], body["user"]) == ("connection_required", "ask_user", "alice")
    assert begun.id is not None
    told = await call(client.auth.status, id=begun.id)
    assert told.status == "failed"
    with pytest.raises(arcadepy.PermissionDeniedError):
        await call(client.auth.status, id=begun.id, wait=30)


async def decline(desk: Desk, url: str) -> None:
    """Presses the button, and comes back with the provider's no."""
    browser = Browser()
    form = forms(await call(browser.open, url))[0]
    gone = await call(browser.open, form.action, method="POST", form=form.fields)
    state = (gone.header("Location") or "").partition("state=")[2].partition("&")[0]
    page = await call(browser.open, f"{desk.url}/callback/kit?error=access_denied&state={state}")
    assert page.status == 200
    assert "declined" in page.text


async def test_unknown_things_are_told_as_the_client_knows_them(client: Arcade) -> None:
    with pytest.raises(arcadepy.BadRequestError):
        await call(client.auth.start, "alice", "nowhere")
    with pytest.raises(arcadepy.NotFoundError):
        await call(client.auth.status, id="flow_none")
    with pytest.raises(arcadepy.NotFoundError):
        await call(client.auth.confirm_user, flow_id="flow_none", user_id="alice")


async def test_confirm_user(start: Start) -> None:
    verifier = "http://127.0.0.1:1/verify?app=1"
    desk = await start(identity={"verifier_url": verifier, "callers": [{"kind": "loopback", "agent": "kit"}]})
    with Arcade(base_url=desk.url, api_key="none") as client:
        begun = await call(client.auth.start, "alice", "kit", scopes=["read"])
        sent_to = await leave_for(desk, begun.url, verifier)
        assert sent_to is not None
        assert sent_to.startswith(f"{verifier}&flow_id=")
        brought = sent_to.removeprefix(f"{verifier}&flow_id=")
        assert begun.id is not None
        assert (await call(client.auth.status, id=begun.id)).status == "pending"
        # Who asked for the link knows this id, and must not be able to confirm what somebody else consented to.
        with pytest.raises(arcadepy.BadRequestError):
            await call(client.auth.confirm_user, flow_id=begun.id, user_id="alice")
        confirmed = await call(client.auth.confirm_user, flow_id=brought, user_id="alice")
        assert confirmed.auth_id == begun.id
        assert (await call(client.auth.wait_for_completion, begun)).status == "completed"


@pytest.mark.scenario("H01")
async def test_confirm_another_user(start: Start) -> None:
    verifier = "http://127.0.0.1:1/verify"
    desk = await start(identity={"verifier_url": verifier, "callers": [{"kind": "loopback", "agent": "kit"}]})
    with Arcade(base_url=desk.url, api_key="none") as client:
        begun = await call(client.auth.start, "mallory", "kit", scopes=["read"])
        sent_to = await leave_for(desk, begun.url, verifier)
        assert sent_to is not None
        brought = sent_to.removeprefix(f"{verifier}?flow_id=")
        assert begun.id is not None
        with pytest.raises(arcadepy.BadRequestError) as caught:
            await call(client.auth.confirm_user, flow_id=brought, user_id="alice")
        assert isinstance(caught.value.body, dict)
        assert caught.value.body["code"] == "user_mismatch"
        assert (await call(client.auth.status, id=begun.id)).status == "failed"
        with pytest.raises(arcadepy.BadRequestError):  # it is over, and nobody is told that it went well
            await call(client.auth.confirm_user, flow_id=brought, user_id="mallory")


async def leave_for(desk: Desk, url: str | None, verifier: str) -> str | None:
    assert url is not None
    browser = Browser()
    form = forms(await call(browser.open, url))[0]
    gone = await call(browser.open, form.action, method="POST", form=form.fields)
    return (await call(browser.follow, gone, until=verifier)).header("Location")


async def test_health_and_user_connections(desk: Desk, client: Arcade) -> None:
    assert (await call(client.health.check)).healthy is True
    for number in range(5):
        await desk.connect(f"user-{number}")
    found = await call(lambda: list(client.admin.user_connections.list(limit=2)))
    assert sorted(one.user_id or "" for one in found) == [f"user-{n}" for n in range(5)]
    one = (await call(lambda: list(client.admin.user_connections.list(user={"id": "user-3"}))))[0]
    assert (one.provider_id, one.provider_type, one.connection_status) == ("kit", "oauth2", "connected")
    assert one.id is not None
    await call(client.admin.user_connections.delete, one.id)
    assert len(await call(lambda: list(client.admin.user_connections.list(provider={"id": "kit"})))) == 4
    assert desk.provider.grants[3].revoked


async def test_an_agent_key_is_the_clients_key(desk: Desk) -> None:
    key = await desk.agent(users=("alice",))
    with Arcade(base_url=desk.url, api_key=key) as client:
        assert (await call(client.auth.start, "alice", "kit")).status == "not_started"
        with pytest.raises(arcadepy.PermissionDeniedError):
            await call(client.auth.start, "bob", "kit")
        with pytest.raises(arcadepy.NotFoundError):
            await call(lambda: list(client.admin.user_connections.list()))
    with (
        Arcade(base_url=desk.url, api_key="apx_wrong") as client,
        pytest.raises(arcadepy.AuthenticationError),
    ):
        await call(client.auth.start, "alice", "kit")
