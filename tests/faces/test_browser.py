"""The browser's door: looking changes nothing, only our own button starts, only the same browser finishes."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from authproxy.core.model import FlowStatus
from tests.faces.conftest import Desk, Start
from tests.kit.browser import Browser, Page, forms


async def opened(browser: Browser, url: str, **kwargs: Any) -> Page:
    return await asyncio.to_thread(browser.open, url, **kwargs)


async def pressed(desk: Desk, browser: Browser, url: str) -> str:
    """Opens the link, presses the button, and returns where the provider would send the browser back to."""
    form = forms(await opened(browser, url))[0]
    gone = await opened(browser, form.action, method="POST", form=form.fields)
    assert gone.status == 303, gone.text
    back = await opened(Browser(), gone.header("Location") or "")
    where = back.header("Location")
    assert where is not None
    return where


async def status(desk: Desk, flow: Mapping[str, Any]) -> FlowStatus:
    found = await desk.app.vault.flow(flow["id"])
    assert found is not None
    return found.status


@pytest.mark.scenario("H12", "H01")
async def test_robots_may_open_the_link_as_often_as_they_like(desk: Desk) -> None:
    flow = await desk.begin("alice")
    before = await desk.app.vault.flow(flow["id"])
    for method in ("GET", "HEAD", "GET"):
        page = await opened(Browser(), flow["url"], method=method)
        assert (page.status, page.header("Location")) == (200, None)
    code, _, _ = await desk.ask("GET", urlsplit(flow["url"]).path, Sec_Purpose="prefetch;prerender")
    assert code == 200
    assert await desk.app.vault.flow(flow["id"]) == before
    assert not desk.provider.grants
    page = await opened(Browser(), flow["url"])
    for word in ("alice", "kit", "read"):
        assert word in page.text
    await desk.consent(flow["url"])
    assert await status(desk, flow) is FlowStatus.COMPLETED


@pytest.mark.scenario("H12")
async def test_the_button_starts_what_its_page_said(desk: Desk) -> None:
    """A link that nobody has opened may be asked for more; who looked at it before is shown it again."""
    browser, flow = Browser(), await desk.begin("alice")
    form = forms(await opened(browser, flow["url"]))[0]
    more = {"provider_id": "kit", "oauth2": {"scopes": ["write"]}}
    assert (await desk.begin("alice", auth_requirement=more))["id"] == flow["id"]
    refused = await opened(browser, form.action, method="POST", form=form.fields)
    assert refused.status == 400
    assert "asks for more since" in refused.text
    assert await status(desk, flow) is FlowStatus.NOT_STARTED
    page = await opened(browser, flow["url"])
    assert "write" in page.text
    form = forms(page)[0]
    assert (await opened(browser, form.action, method="POST", form=form.fields)).status == 303


@pytest.mark.scenario("H01", "H02")
async def test_another_browser_cannot_finish(desk: Desk) -> None:
    flow = await desk.begin("alice")
    attacker, victim = Browser(), Browser()
    back = await pressed(desk, attacker, flow["url"])
    refused = await opened(victim, back)
    assert (refused.status, refused.header("X-Authproxy-Error")) == (400, "bad_request")
    assert "text/html" in (refused.header("Content-Type") or "")
    other = await desk.begin("bob")
    await opened(victim, other["url"])
    assert (await opened(victim, back)).status == 400
    assert await status(desk, flow) is FlowStatus.PENDING
    assert not desk.provider.grants[0].access
    assert (await opened(attacker, back)).status == 200
    assert await status(desk, flow) is FlowStatus.COMPLETED


@pytest.mark.scenario("H02", "I05")
@pytest.mark.parametrize(
    "change",
    [
        "no_cookie",
        "no_token",
        "other_token",
        "origin",
        "null_origin",
        "fetch_site",
        "json",
        "charset",
        "no_charset",
    ],
)
async def test_a_button_pressed_elsewhere_starts_nothing(desk: Desk, change: str) -> None:
    flow = await desk.begin("alice")
    browser = Browser()
    form = forms(await opened(browser, flow["url"]))[0]
    cookie = "; ".join(f"{n}={v}" for n, v in browser.cookies[f"127.0.0.1:{desk.port}"].items())
    fields = {"Content-Type": "application/x-www-form-urlencoded", "Origin": desk.url, "Cookie": cookie}
    body = f"token={form.fields['token']}".encode()
    match change:
        case "no_cookie":
            del fields["Cookie"]
        case "no_token":
            body = b""
        case "other_token":
            strange = forms(await opened(Browser(), flow["url"]))[0]
            body = f"token={strange.fields['token']}".encode()
        case "origin":
            fields["Origin"] = "https://evil.example"
        case "null_origin":
            fields["Origin"] = "null"
        case "fetch_site":
            fields["Sec-Fetch-Site"] = "cross-site"
        case "charset":
            body = b"token=\xff\xfe"
        case "no_charset":
            fields["Content-Type"] += "; charset=none-such"
        case _:
            fields["Content-Type"] = "application/json"
    path = urlsplit(flow["url"]).path
    code, headers, _ = await desk.ask(
        "POST", path, body, **{n.replace("-", "_"): v for n, v in fields.items()}
    )
    assert (code, headers["x-authproxy-error"]) == (400, "bad_request")
    assert await status(desk, flow) is FlowStatus.NOT_STARTED


@pytest.mark.scenario("H03")
async def test_head_and_prefetch_of_the_callback_consume_nothing(desk: Desk) -> None:
    flow = await desk.begin("alice")
    browser = Browser()
    back = await pressed(desk, browser, flow["url"])
    assert (await opened(browser, back, method="HEAD")).status == 204
    cookie = "; ".join(f"{n}={v}" for n, v in browser.cookies[f"127.0.0.1:{desk.port}"].items())
    path = back.removeprefix(desk.url)
    for fields in ({"Sec_Purpose": "prefetch"}, {"Purpose": "prefetch"}, {"X_Moz": "prefetch"}):
        code, _, body = await desk.ask("GET", path, Cookie=cookie, **fields)
        assert (code, body) == (204, "")
    assert await status(desk, flow) is FlowStatus.PENDING
    assert (await opened(browser, back)).status == 200
    assert await status(desk, flow) is FlowStatus.COMPLETED


@pytest.mark.scenario("H03", "H08")
async def test_an_ambiguous_callback_is_not_guessed_at(desk: Desk) -> None:
    flow = await desk.begin("alice")
    browser = Browser()
    back = await pressed(desk, browser, flow["url"])
    assert (await opened(browser, f"{back}&code=another")).status == 400
    assert await status(desk, flow) is FlowStatus.PENDING
    assert (await opened(browser, back)).status == 200


@pytest.mark.scenario("H03")
async def test_two_identical_callbacks_have_one_result(desk: Desk) -> None:
    flow = await desk.begin("alice")
    browser = Browser()
    back = await pressed(desk, browser, flow["url"])
    first, second = await asyncio.gather(opened(browser, back), opened(browser, back))
    assert (first.status, second.status) == (200, 200)
    assert "is connected" in first.text
    assert "is connected" in second.text
    assert len(desk.provider.grants[0].access) == 1
    assert (await opened(browser, back)).status == 200


@pytest.mark.scenario("C08")
async def test_an_old_link_does_not_shorten_the_cookie_of_a_younger_one(desk: Desk) -> None:
    flow = await desk.begin("alice")
    soon = int(time.time()) + 30
    move = desk.app.vault.move_flow
    assert await move(flow["id"], expect=FlowStatus.NOT_STARTED, to=FlowStatus.NOT_STARTED, expires_at=soon)
    browser = Browser()
    form = forms(await opened(browser, flow["url"]))[0]
    gone = await asyncio.to_thread(browser.open, form.action, method="POST", form=form.fields)
    assert f"Max-Age={desk.app.config.flows.lifetime};" in (gone.header("Set-Cookie") or "")


@pytest.mark.scenario("F08")
async def test_the_last_page_leaks_nothing(desk: Desk) -> None:
    flow = await desk.begin("alice")
    browser = Browser()
    page = await opened(browser, await pressed(desk, browser, flow["url"]))
    assert page.header("Referrer-Policy") == "no-referrer"
    assert page.header("Cache-Control") == "no-store"
    policy = page.header("Content-Security-Policy") or ""
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe-inline" not in policy
    assert not re.search(r"(?:src=|https?://(?!127\.0\.0\.1))", page.text)
    for secret in desk.provider.secrets:
        assert secret not in page.text


@pytest.mark.scenario("C01", "C02")
async def test_request_headers_never_shape_the_redirect_uri(desk: Desk) -> None:
    spoofed = {
        "X_Forwarded_Host": "evil.example",
        "X_Forwarded_Proto": "https",
        "Forwarded": "host=evil.example;proto=https",
        "X_Forwarded_For": "203.0.113.9",
    }
    key = await desk.agent()
    want = {"provider_id": "kit", "oauth2": {"scopes": ["read"]}}
    _, _, flow = await desk.ask(
        "POST", "/v1/auth/authorize", {"user_id": "alice", "auth_requirement": want}, key=key, **spoofed
    )
    assert flow["url"].startswith(desk.url)
    browser = Browser()
    form = forms(await opened(browser, flow["url"]))[0]
    cookie = "; ".join(f"{n}={v}" for n, v in browser.cookies[f"127.0.0.1:{desk.port}"].items())
    _, headers, _ = await desk.ask(
        "POST",
        urlsplit(flow["url"]).path,
        f"token={form.fields['token']}".encode(),
        Content_Type="application/x-www-form-urlencoded",
        Cookie=cookie,
        **spoofed,
    )
    query = parse_qs(urlsplit(headers["location"]).query)
    assert query["redirect_uri"] == [f"{desk.url}/callback/kit"]


@pytest.mark.scenario("C08")
@pytest.mark.parametrize(
    ("public_url", "name", "path", "secure"),
    [
        ("https://auth.example.com", "__Host-authproxy_browser", "/", True),
        ("https://example.com/auth", "__Secure-authproxy_browser", "/auth", True),
        ("http://127.0.0.1:8701", "authproxy_browser", "/", False),
    ],
)
async def test_the_cookie_follows_the_rules(
    start: Start, public_url: str, name: str, path: str, secure: bool
) -> None:
    desk = await start(public_url=public_url)
    key = await desk.agent()
    flow = await desk.begin("alice", key=key)
    link = f"{desk.url}/connect/{flow['id']}"
    code, headers, text = await desk.ask("GET", f"/connect/{flow['id']}", Host=urlsplit(public_url).netloc)
    assert code == 200, (link, text)
    cookie = headers["set-cookie"]
    attributes = {part.strip().lower() for part in cookie.split(";")[1:]}
    assert cookie.startswith(f"{name}=")
    assert {"httponly", "samesite=lax", f"path={path}"} <= attributes
    assert ("secure" in attributes) is secure
    assert not any(one.startswith("domain") for one in attributes)
    form = re.search(r'action="([^"]+)"', text)
    assert form is not None
    assert form[1] == f"{urlsplit(public_url).path}/connect/{flow['id']}"


async def test_a_link_opened_under_the_machines_other_name_is_led_home(desk: Desk) -> None:
    flow = await desk.begin("alice")
    path = urlsplit(flow["url"]).path
    code, headers, _ = await desk.ask("GET", path, Host=f"localhost:{desk.port}")
    assert (code, headers["location"]) == (303, flow["url"])


@pytest.mark.parametrize("path", ["%0d%0aSet-Cookie:%20a=b", "%2f%2fevil.example", "..%2f..%2fv1", "none"])
async def test_nobody_is_led_home_by_what_is_no_link(desk: Desk, path: str) -> None:
    code, headers, _ = await desk.ask("GET", f"/connect/{path}", Host=f"localhost:{desk.port}")
    assert (code, headers["x-authproxy-error"]) == (404, "not_found")
    assert "location" not in headers


@pytest.mark.scenario("H05")
async def test_an_expired_link_offers_a_new_one(desk: Desk) -> None:
    flow = await desk.begin("alice")
    await desk.app.vault.move_flow(flow["id"], expect=FlowStatus.NOT_STARTED, to=FlowStatus.EXPIRED)
    browser = Browser()
    page = await opened(browser, flow["url"])
    assert page.status == 200
    assert "expired" in page.text
    form = forms(page)[0]
    led = await opened(browser, form.action, method="POST", form=form.fields)
    where = led.header("Location")
    assert led.status == 303
    assert where not in (None, flow["url"])
    await desk.consent(str(where))
    _, _, now = await desk.ask("GET", "/v1/connections")
    assert [one["user_id"] for one in now["items"]] == ["alice"]


@pytest.mark.scenario("H07")
async def test_a_callback_at_another_providers_address_is_refused(start: Start, desk: Desk) -> None:
    flow = await desk.begin("alice")
    browser = Browser()
    back = await pressed(desk, browser, flow["url"])
    page = await opened(browser, back.replace("/callback/kit", "/callback/other"))
    assert page.status == 400
    assert await status(desk, flow) is FlowStatus.PENDING


@pytest.mark.scenario("H04")
@pytest.mark.parametrize(
    "query",
    [
        "",
        "code=x",
        "state=x&code=y",
        "error=access_denied",
        "state=a&state=b",
        "error=%3Cscript%3E&state=%00",
    ],
)
async def test_odd_callbacks_get_a_friendly_page(desk: Desk, query: str) -> None:
    page = await opened(Browser(), f"{desk.url}/callback/kit?{query}")
    assert page.status == 400
    assert "text/html" in (page.header("Content-Type") or "")
    assert "<script" not in page.text
    assert page.header("X-Request-ID") is not None


async def test_a_link_that_never_was(desk: Desk) -> None:
    page = await opened(Browser(), f"{desk.url}/connect/flow_none")
    assert (page.status, page.header("X-Authproxy-Error")) == (404, "not_found")
    assert forms(page) == []
