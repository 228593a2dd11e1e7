"""The front desk: what is checked, what the page shows, what comes back."""

from __future__ import annotations

import re

import aiohttp
import pytest

from authproxy.sandbox import ConsentNotShown, Registration, Sandbox, Settings, approve
from tests.sandbox.app import CALLBACK, App, Clock


async def test_allow_gives_code_state_and_issuer(app: App) -> None:
    back = await app.consent()
    assert set(back) == {"code", "state", "iss"}
    assert (back["state"], back["iss"]) == ("the-state", app.base)


async def test_deny_gives_access_denied(app: App) -> None:
    back = await app.consent(allow=False)
    assert (back["error"], back["state"], back["iss"]) == ("access_denied", "the-state", app.base)
    assert "code" not in back


@pytest.mark.parametrize(
    ("switched", "issuer"), [("missing", None), ("wrong", "https://another-issuer.example")]
)
async def test_issuer_is_switchable(app: App, switched: str, issuer: str | None) -> None:
    app.sandbox.switches.update({"iss": switched})
    assert (await app.consent()).get("iss") == issuer


@pytest.mark.parametrize(
    ("other", "error"),
    [
        ({"response_type": "token"}, "unsupported_response_type"),
        ({"code_challenge": None, "code_challenge_method": None}, "invalid_request"),
        ({"code_challenge_method": "plain"}, "invalid_request"),
        ({"code_challenge_method": None}, "invalid_request"),
        ({"code_challenge": "short"}, "invalid_request"),
        ({"scope": "read admin"}, "invalid_scope"),
        ({"prompt": "none"}, "consent_required"),
    ],
)
async def test_faults_are_told_to_the_client(app: App, other: dict[str, str | None], error: str) -> None:
    back = await app.consent(**other)  # type: ignore[arg-type]
    assert (back["error"], back["state"]) == (error, "the-state")


async def test_pkce_can_be_made_optional(app: App) -> None:
    app.sandbox.switches.pkce = "optional"
    back = await app.consent(code_challenge=None, code_challenge_method=None)
    app.extra["code_challenge"] = "none sent"
    assert (await app.exchange(back["code"])).status == 200


@pytest.mark.parametrize(
    "other",
    [
        {"client_id": "nobody"},
        {"client_id": None},
        {"redirect_uri": "https://evil.example/callback"},
        {"redirect_uri": "http://127.0.0.1.evil.example/"},
        {"redirect_uri": "http://user@127.0.0.1/"},
        {"redirect_uri": "http://127.0.0.1/#fragment"},
        {"redirect_uri": "http://127.0.0.1:99999/"},
        {"redirect_uri": "https://127.0.0.1/"},
        {"redirect_uri": "http://127.0.0.1/\r\nX-Evil: 1"},
        {"redirect_uri": "javascript:alert(1)"},
        {"redirect_uri": None},
    ],
)
async def test_the_browser_is_sent_nowhere_unknown(app: App, other: dict[str, str | None]) -> None:
    answer = await app.call("GET", app.authorization_url(**other).removeprefix(app.root))
    assert answer.status == 400
    assert "Location" not in answer.headers
    assert answer.headers["Content-Type"].startswith("text/html")


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]"])
async def test_loopback_takes_any_port(app: App, host: str) -> None:
    url = app.authorization_url(redirect_uri=f"http://{host}:61234/any/path")
    assert (await approve(app.session, url)).startswith(f"http://{host}:61234/any/path?code=")


async def test_registered_uris_are_compared_exactly(app: App) -> None:
    good = "https://app.example/callback?tenant=1"
    app.sandbox.register(Registration("exact", "Exact", None, ("none",), (good,), loopback=False))
    callback = await approve(app.session, app.authorization_url(client_id="exact", redirect_uri=good))
    assert callback.startswith(good + "&code=")
    for wrong in (good + "/", good.upper(), "https://app.example/callback", CALLBACK):
        with pytest.raises(ConsentNotShown):
            await approve(app.session, app.authorization_url(client_id="exact", redirect_uri=wrong))


async def page_of(app: App, **other: str | None) -> tuple[str, aiohttp.ClientResponse]:
    async with app.session.get(app.authorization_url(**other)) as answer:
        return await answer.text(), answer


async def test_page_says_who_asks_for_what(app: App) -> None:
    text, answer = await page_of(app, login_hint="bob@sandbox.example")
    assert "authproxy (development)" in text
    assert "Read your messages" in text
    assert "<code>write</code>" in text
    assert "127.0.0.1:43210" in text
    assert re.search(r'value="bob" required checked', text)
    assert 'value="allow">Allow' in text
    assert 'value="deny">Deny' in text
    assert "<script" not in text
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert answer.headers["Cache-Control"] == "no-store"


async def test_page_escapes_what_comes_from_outside(app: App) -> None:
    text, _ = await page_of(app, login_hint='"><img src=x>', state="<b>")
    assert "<img" not in text
    assert "<b>" not in text


async def test_opening_the_link_decides_nothing(app: App) -> None:
    await page_of(app)
    await page_of(app)
    assert app.sandbox.stats()["grants"]["made"] == 0


def form_of(text: str) -> dict[str, str]:
    return dict(re.findall(r'type="hidden" name="(\w+)" value="([^"]+)"', text))


async def test_decision_needs_page_and_browser(app: App) -> None:
    text, answer = await page_of(app)
    cookie = {name: morsel.value for name, morsel in answer.cookies.items()}
    good = {**form_of(text), "user": "alice", "decision": "allow"}
    send = "/authorize/decision"
    assert (await app.call("POST", send, data={**good, "csrf": "guessed"}, cookies=cookie)).status == 403
    assert (await app.call("POST", send, data=good)).status == 403
    assert (await app.call("POST", send, data=good, cookies={"sandbox_browser": "other"})).status == 403
    assert (await app.call("POST", send, data={**good, "decision": "maybe"}, cookies=cookie)).status == 400
    assert (await app.call("POST", send, data={**good, "user": ""}, cookies=cookie)).status == 400
    assert (await app.call("POST", send, data={**good, "request": "none"}, cookies=cookie)).status == 400
    assert (await app.call("POST", send, data=good, cookies=cookie)).status == 303
    assert (await app.call("POST", send, data=good, cookies=cookie)).status == 400, "answered already"


async def test_cookie_is_kept_from_scripts_and_other_sites(app: App) -> None:
    _, answer = await page_of(app)
    cookie = answer.headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie


async def test_page_grows_old(app: App, clock: Clock) -> None:
    text, answer = await page_of(app)
    clock.now += 901
    form = {**form_of(text), "user": "alice", "decision": "allow"}
    cookie = {name: morsel.value for name, morsel in answer.cookies.items()}
    assert (await app.call("POST", "/authorize/decision", data=form, cookies=cookie)).status == 400


async def test_scopes_are_narrowed_at_consent(app: App) -> None:
    app.sandbox.switches.narrow_scopes = ("read",)
    assert (await app.connect())["scope"] == "read"


async def test_any_user_may_consent(app: App) -> None:
    got = await app.connect(user="Zoë Ünïcode")
    assert (await app.get("/api/me", got["access_token"])).json["user"] == "Zoë Ünïcode"


async def test_a_sandbox_needs_sense() -> None:
    with pytest.raises(ValueError, match="loopback only"):
        await Sandbox().start(host="0.0.0.0", port=0)
    with pytest.raises(ValueError, match="loopback only"):
        await Sandbox().start(host="sandbox.example", port=0)
    with pytest.raises(ValueError, match="one user"):
        Sandbox(Settings(users=()))


async def test_localhost_is_one_address() -> None:
    one = Sandbox()
    assert (await one.start(host="localhost", port=0)).startswith("http://127.0.0.1:")
    await one.close()
