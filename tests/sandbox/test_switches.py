"""Each switch of the token endpoint, seen from the outside."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs

import aiohttp
import pytest

from authproxy.sandbox import Sandbox, Settings, SwitchError, Switches, position
from tests.sandbox.app import App, Clock

LOST = (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError)


async def refreshed(app: App, **switches: Any) -> Any:
    """The reply to a refresh under these switches."""
    got = await app.connect()
    app.sandbox.switches.update(switches)
    return await app.refresh(got["refresh_token"])


@pytest.mark.parametrize(
    ("form", "value"),
    [
        ("string", "3600"),
        ("string_float", "3600.5"),
        ("float", 3600.5),
        ("zero", 0),
        ("negative", -1),
        ("huge", 10**12),
        ("null", None),
        ("true", True),
        ("empty", ""),
        ("word", "never"),
    ],
)
async def test_expires_in(app: App, form: str, value: object) -> None:
    told = (await refreshed(app, expires_in=form)).json["expires_in"]
    assert told == value
    assert type(told) is type(value)


async def test_expires_in_missing(app: App) -> None:
    assert "expires_in" not in (await refreshed(app, expires_in="missing")).json


@pytest.mark.parametrize(("form", "value"), [("null", None), ("empty", ""), ("blank", "  ")])
async def test_odd_refresh_tokens_spend_nothing(app: App, form: str, value: str | None) -> None:
    got = await app.connect()
    app.sandbox.switches.update({"refresh_token_value": form})
    for _ in range(2):
        assert (await app.refresh(got["refresh_token"])).json["refresh_token"] == value


async def test_same_refresh_token_again(app: App) -> None:
    got = await app.connect()
    app.sandbox.switches.refresh_token_value = "same"
    for _ in range(2):
        assert (await app.refresh(got["refresh_token"])).json["refresh_token"] == got["refresh_token"]


async def test_omitted_refresh_tokens(app: App) -> None:
    app.sandbox.switches.omit_refresh_token_at_consent = True
    assert "refresh_token" not in await app.connect()
    app.sandbox.switches.omit_refresh_token_at_consent = False
    got = await app.connect()
    app.sandbox.switches.omit_refresh_token = True
    for _ in range(2):
        assert "refresh_token" not in (await app.refresh(got["refresh_token"])).json
    assert "refresh_token" not in await app.connect()


async def test_tokens_that_never_expire(app: App) -> None:
    app.sandbox.switches.tokens_expire = False
    got = await app.connect()
    assert not {"expires_in", "refresh_token"} & set(got)


@pytest.mark.parametrize(
    ("form", "value"),
    [
        ("reordered", "write read"),
        ("comma", "read,write"),
        ("array", ["read", "write"]),
        ("superset", "read write sandbox_extra"),
    ],
)
async def test_scope_echo(app: App, form: str, value: object) -> None:
    assert (await refreshed(app, scope_echo=form)).json["scope"] == value


async def test_scope_absent(app: App) -> None:
    assert "scope" not in (await refreshed(app, scope_echo="absent")).json


async def test_token_type_and_further_members(app: App) -> None:
    reply = await refreshed(app, token_type=" bearer ", extra={"instance_url": "https://moved.example"})
    assert (reply.json["token_type"], reply.json["instance_url"]) == (" bearer ", "https://moved.example")
    assert "token_type" not in (await refreshed(app, token_type=None)).json


async def test_form_encoded(app: App) -> None:
    reply = await refreshed(app, form_encoded=True)
    assert reply.headers["Content-Type"].startswith("application/x-www-form-urlencoded")
    assert parse_qs(reply.body.decode())["expires_in"] == ["3600"]


@pytest.mark.parametrize("status", [500, 502, 503, 504, 429, 403, 418])
async def test_status(app: App, status: int) -> None:
    reply = await refreshed(app, status=status, retry_after="Wed, 21 Oct 2037 07:28:00 GMT")
    assert reply.status == status
    assert reply.headers["Retry-After"] == "Wed, 21 Oct 2037 07:28:00 GMT"
    assert "error" in reply.json
    assert "access_token" not in reply.json


async def test_status_spends_nothing_unless_told(app: App) -> None:
    got = await app.connect()
    app.sandbox.switches.update({"status": 500, "next_calls": 1})
    assert (await app.refresh(got["refresh_token"])).status == 500
    again = await app.refresh(got["refresh_token"])
    assert again.status == 200
    app.sandbox.switches.update({"status": 500, "next_calls": 1, "work_first": True})
    assert (await app.refresh(again.json["refresh_token"])).status == 500
    assert (await app.refresh(again.json["refresh_token"])).status == 400
    assert app.sandbox.violations() == [], "the successor was never delivered"


async def test_next_calls_counts_down_and_takes_back(app: App) -> None:
    got = await app.connect()
    app.sandbox.switches.update({"status": 503, "next_calls": 2, "faults_for": "refresh", "rotate": False})
    await app.connect("bob")
    statuses = [(await app.refresh(got["refresh_token"])).status for _ in range(3)]
    assert statuses == [503, 503, 200]
    assert app.sandbox.switches.status is None
    assert app.sandbox.switches.rotate is False, "only the faults are taken back"


async def test_faults_from_the_start_are_taken_back_too(session: aiohttp.ClientSession) -> None:
    sandbox = Sandbox(Settings(switches={"status": 503, "next_calls": 1}))
    app = App(sandbox, await sandbox.start(port=0), session)
    assert [(await app.refresh("x")).status for _ in range(2)] == [503, 400]
    await sandbox.close()


async def test_faults_for_one_user(app: App) -> None:
    alice, bob = await app.connect("alice"), await app.connect("bob")
    app.sandbox.switches.update({"status": 503, "only_user": "bob", "api_unauthorized": True})
    assert (await app.refresh(alice["refresh_token"])).status == 200
    assert (await app.refresh(bob["refresh_token"])).status == 503
    assert await app.works(alice["access_token"])
    assert not await app.works(bob["access_token"])


@pytest.mark.parametrize(
    ("switches", "status", "error"),
    [
        ({"error": "invalid_grant"}, 400, "invalid_grant"),
        ({"error": "server_error"}, 500, "server_error"),
        ({"error": "bad_refresh_token", "error_in_200": True}, 200, "bad_refresh_token"),
        ({"error": "temporarily_unavailable", "status": 400}, 400, "temporarily_unavailable"),
        ({"invalid_client": True}, 401, "invalid_client"),
        ({"invalid_client": True, "error_in_200": True}, 200, "invalid_client"),
    ],
)
async def test_errors(app: App, switches: Mapping[str, Any], status: int, error: str) -> None:
    reply = await refreshed(app, **switches)
    assert (reply.status, reply.json["error"]) == (status, error)


async def test_html_and_empty_and_any_body(app: App) -> None:
    html = await refreshed(app, html=True)
    assert (html.status, html.headers["Content-Type"]) == (502, "text/html; charset=utf-8")
    assert html.body.startswith(b"<!DOCTYPE html>")
    app.sandbox.reset()
    empty = await refreshed(app, empty=True)
    assert (empty.status, empty.body) == (200, b"")
    app.sandbox.reset()
    odd = await refreshed(app, body='"ok"', status=302, headers={"Location": "https://elsewhere.example/"})
    assert (odd.status, odd.body, odd.headers["Location"]) == (302, b'"ok"', "https://elsewhere.example/")


async def test_a_lie_about_the_encoding(app: App) -> None:
    with pytest.raises(aiohttp.ClientPayloadError):
        await refreshed(app, body="not gzip", headers={"Content-Encoding": "gzip"})


async def test_drop_before_anything(app: App) -> None:
    got = await app.connect()
    app.sandbox.switches.update({"drop": "before", "next_calls": 1})
    with pytest.raises(LOST):
        await app.refresh(got["refresh_token"])
    assert (await app.refresh(got["refresh_token"])).status == 200
    assert app.sandbox.violations() == []


async def test_drop_after_rotating(app: App) -> None:
    got = await app.connect()
    app.sandbox.switches.update({"drop": "after", "next_calls": 1})
    with pytest.raises(LOST):
        await app.refresh(got["refresh_token"])
    lost = app.sandbox.refreshes()[-1]
    assert (lost.outcome, lost.delivered, lost.spent) == ("success", False, True)
    assert (await app.refresh(got["refresh_token"])).json["error"] == "invalid_grant"
    assert app.sandbox.violations() == []


async def test_drop_after_rotating_is_mended_by_grace(app: App) -> None:
    got = await app.connect()
    app.sandbox.switches.update({"drop": "after", "next_calls": 1, "grace_s": 30})
    with pytest.raises(LOST):
        await app.refresh(got["refresh_token"])
    again = (await app.refresh(got["refresh_token"])).json
    assert (await app.refresh(again["refresh_token"])).status == 200
    assert app.sandbox.violations() == []


async def test_drop_midway(app: App) -> None:
    with pytest.raises((aiohttp.ClientPayloadError, *LOST)):
        await refreshed(app, drop="midway")
    assert app.sandbox.refreshes()[-1].delivered is False


async def test_delays(app: App) -> None:
    got = await app.connect()
    for name in ("delay_s", "delay_after_s"):
        app.sandbox.switches.update({name: 0.2, "next_calls": 1})
        start = time.monotonic()
        got = (await app.refresh(got["refresh_token"])).json
        assert time.monotonic() - start >= 0.2


async def test_drip(app: App) -> None:
    got = await app.connect()
    app.sandbox.switches.update({"drip_bytes": 40, "drip_interval_s": 0.02})
    form = {"grant_type": "refresh_token", "refresh_token": got["refresh_token"], "client_id": app.client_id}
    async with app.session.post(app.root + "/token", data=form) as answer:
        pieces = [piece async for piece in answer.content.iter_any()]
    assert len(pieces) > 2
    assert sum(map(len, pieces)) == answer.content_length
    assert app.sandbox.refreshes()[-1].delivered


async def test_closing_does_not_wait_for_slow_answers(session: aiohttp.ClientSession) -> None:
    sandbox = Sandbox(Settings(switches={"delay_s": 3600}))
    app = App(sandbox, await sandbox.start(port=0), session)
    waiting = asyncio.create_task(app.refresh("x"))
    await sandbox.arrived(1)
    await asyncio.wait_for(sandbox.close(), 5)
    await asyncio.wait([waiting], timeout=5)
    assert waiting.done()
    waiting.exception()


async def test_it_can_stop_and_start_again(session: aiohttp.ClientSession) -> None:
    sandbox = Sandbox()
    app = App(sandbox, await sandbox.start(port=0), session)
    got = await app.connect()
    port = int(app.base.rpartition(":")[2])
    await sandbox.close()
    with pytest.raises(aiohttp.ClientConnectionError):
        await app.refresh(got["refresh_token"])
    assert await sandbox.start(port=port) == app.base
    with pytest.raises(RuntimeError):
        await sandbox.start(port=0)
    assert (await app.refresh(got["refresh_token"])).status == 200, "an outage loses no grants"
    await sandbox.close()


async def test_min_interval(app: App, clock: Clock) -> None:
    got = await app.connect()
    app.sandbox.switches.min_interval_s = 30
    got = (await app.refresh(got["refresh_token"])).json
    soon = await app.refresh(got["refresh_token"])
    assert (soon.status, soon.headers["Retry-After"]) == (429, "30")
    clock.now += 30
    assert (await app.refresh(got["refresh_token"])).status == 200


async def test_require_auth(demo: App) -> None:
    got = await demo.connect()
    demo.sandbox.switches.require_auth = "basic"
    assert (await demo.refresh(got["refresh_token"])).json["error"] == "invalid_client"
    demo.sandbox.switches.require_auth = "post"
    assert (await demo.refresh(got["refresh_token"])).status == 200


async def test_scope_at_refresh_can_be_refused(app: App) -> None:
    got = await app.connect()
    app.sandbox.switches.reject_scope_at_refresh = True
    assert (await app.refresh(got["refresh_token"], scope="read")).json["error"] == "invalid_scope"
    assert (await app.refresh(got["refresh_token"])).status == 200


# The switches themselves


@pytest.mark.parametrize(
    "wrong",
    [
        {"nonsense": 1},
        {"delay_s": "1"},
        {"delay_s": -1},
        {"delay_s": float("nan")},
        {"delay_s": float("inf")},
        {"delay_s": 10**400},
        {"delay_s": True},
        {"rotate": 1},
        {"rotate": "true"},
        {"next_calls": 1.5},
        {"status": 99},
        {"status": 1000},
        {"grace_mode": "other"},
        {"retry_after": "1\r\nX: y"},
        {"headers": {"X": "a\nb"}},
        {"headers": {"X": 1}},
        {"headers": ["X"]},
        {"narrow_scopes": "read"},
        {"narrow_scopes": [1]},
        {"error": None, "html": None},
    ],
)
def test_wrong_positions_are_refused(wrong: dict[str, Any]) -> None:
    switches = Switches()
    with pytest.raises(SwitchError):
        switches.update({"delay_s": 5, **wrong} if "delay_s" not in wrong else wrong)
    assert switches == Switches(), "all or nothing"


def test_unknown_switch_lists_the_known() -> None:
    with pytest.raises(SwitchError, match=r"unknown switch 'rotat'.*rotate"):
        Switches().update({"rotat": True})


def test_every_switch_says_what_it_means() -> None:
    for name, told in Switches().describe(Switches()).items():
        assert len(told["meaning"]) > 10, name
        assert told["takes"], name


def test_positions_on_a_command_line() -> None:
    assert position("delay_s=1.5") == ("delay_s", 1.5)
    assert position("retry_after=soon") == ("retry_after", "soon")
    assert position("narrow_scopes=[]") == ("narrow_scopes", [])
    assert position("status=null") == ("status", None)
    with pytest.raises(SwitchError):
        position("delay_s")


def test_settings_begin_the_switches() -> None:
    sandbox = Sandbox(Settings(switches={"rotate": False}))
    sandbox.switches.update({"rotate": True, "delay_s": 3})
    sandbox.reset()
    assert (sandbox.switches.rotate, sandbox.switches.delay_s) == (False, 0)
    with pytest.raises(SwitchError):
        sandbox.reset({"delay_s": -1})
    with pytest.raises(SwitchError):
        Sandbox(Settings(switches={"nonsense": 1}))
    with pytest.raises(ValueError, match="unknown dialect"):
        Sandbox(Settings(dialect="klingon"))
