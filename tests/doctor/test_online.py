"""Online checks against the sandbox: what they see, what they spend (nothing), and where they stop."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import secrets
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from authproxy.broker.endpoint import Endpoint, Reply
from authproxy.core.model import ConnectionKey, Environment, NewGrant, TokenSet
from authproxy.core.secret import Secret
from authproxy.doctor.case import Case
from authproxy.doctor.online import observe, read_door
from authproxy.doctor.registry import examine
from authproxy.egress import EgressGuard, GuardedResolver
from authproxy.sandbox import Registration, Sandbox, Settings, digest_of
from authproxy.store.sealing import Keyring, generate_key
from authproxy.store.vault import Vault
from tests.doctor.cases import case, told
from tests.kit.ports import free_port
from tests.kit.process import BOOT
from tests.sandbox.app import DEMO_SECRET, App

STRICT = Registration(
    "strict", "Registered for one URI", "strict-secret", redirect_uris=("https://a.b/c",), loopback=False
)


@asynccontextmanager
async def running(**settings: Any) -> AsyncIterator[Sandbox]:
    sandbox = Sandbox(Settings(**settings))
    await sandbox.start(port=0)
    try:
        yield sandbox
    finally:
        await sandbox.close()


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    async with running() as one:
        yield one


def choice(url: str, **more: Any) -> dict[str, Any]:
    return {
        "issuer": url,
        "client_id": "authproxy-demo",
        "client_secret": "env:SECRET",
        "api_hosts": ["127.0.0.1"],
        **more,
    }


def of(providers: dict[str, Any], *ports: int, secret: str = DEMO_SECRET, **more: Any) -> Case:
    egress = {"allow": [f"127.0.0.1:{port}" for port in ports]}
    return case(providers, "development", environ={"SECRET": secret}, egress=egress, **more)


def port_of(sandbox: Sandbox) -> int:
    return int(sandbox.base_url.rpartition(":")[2])


async def looked(one: Case, clock: Callable[[], float] = time.time, **more: Any) -> Case:
    guard = EgressGuard(one.config.egress.allow)
    endpoint = Endpoint(resolver=GuardedResolver(guard), check=guard.check, deadline=10)
    try:
        return await observe(one, endpoint, clock=clock, randomness=secrets.token_urlsafe, **more)
    finally:
        await endpoint.close()


def codes(one: Case) -> list[str]:
    return [finding.code for finding in examine(one) if finding.severity != "info"]


@pytest.mark.scenario("A31")
async def test_a_sound_client_is_found_sound_and_nothing_is_spent(sandbox: Sandbox) -> None:
    seen = await looked(of({"acme": choice(sandbox.base_url)}, port_of(sandbox)))
    assert codes(seen) == []
    found = seen.seen["acme"]
    assert found.probe is not None
    assert (found.probe.verdict, found.probe.code) == ("dead", "invalid_grant")
    assert found.door is not None
    assert (found.door.status, found.door.error, found.door.page) == (200, None, None)
    assert found.discovery is not None
    assert found.skew is not None
    assert abs(found.skew) <= 2
    assert found.trouble == ()
    calls = list(sandbox.ledger.refreshes())
    assert [call.outcome for call in calls] == ["invalid_grant"]
    assert not any(call.spent for call in calls)
    assert list(sandbox.ledger.found) == []


@pytest.mark.scenario("C05")
async def test_a_wrong_secret_is_seen_before_users_see_it(sandbox: Sandbox) -> None:
    seen = await looked(of({"acme": choice(sandbox.base_url)}, port_of(sandbox), secret="CANARY-wrong"))
    found = told(seen, "D12", "refuses the client")
    assert [one.severity for one in found] == ["error"]
    assert "CANARY" not in repr(seen)
    assert "CANARY" not in repr(found)


@pytest.mark.scenario("C03")
async def test_an_unregistered_redirect_uri_is_seen_at_the_door() -> None:
    async with running(clients=(STRICT,)) as sandbox:
        providers = {"acme": choice(sandbox.base_url, client_id="strict")}
        seen = await looked(of(providers, port_of(sandbox), secret="strict-secret"))
        assert [one.title for one in told(seen, "D15")] == ["The authorization URL leads to an error page"]


@pytest.mark.scenario("C07")
async def test_an_unknown_scope_is_told_and_the_redirect_is_not_followed(sandbox: Sandbox) -> None:
    visits: list[str] = []

    async def callback(request: web.Request) -> web.Response:
        visits.append(request.path_qs)
        return web.Response()

    app = web.Application()
    app.router.add_get("/callback/acme", callback)
    async with served(app) as url:
        providers = {"acme": choice(sandbox.base_url, scopes=["no.such.scope"])}
        seen = await looked(of(providers, port_of(sandbox), public_url=url))
    found = told(seen, "C07")
    assert [(one.severity, one.sure) for one in found] == [("error", "certain")]
    assert "invalid_scope" in found[0].title
    assert visits == []


@asynccontextmanager
async def served(app: web.Application) -> AsyncIterator[str]:
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    port = free_port()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        await runner.cleanup()


async def test_a_clock_that_is_off_is_seen(sandbox: Sandbox) -> None:
    seen = await looked(of({"acme": choice(sandbox.base_url)}, port_of(sandbox)), lambda: time.time() + 400)
    found = told(seen, "D28")
    assert [one.severity for one in found] == ["error"]
    assert "ahead of" in found[0].wrong


async def test_an_issuer_with_a_slash_too_many(sandbox: Sandbox) -> None:
    seen = await looked(of({"acme": choice(sandbox.base_url + "/")}, port_of(sandbox)))
    assert [one.title for one in told(seen, "D29")] == ["The document names another issuer"]
    assert seen.seen["acme"].probe is None  # it is not asked by a name that is not its own
    assert seen.seen["acme"].door is None


async def test_who_cannot_be_reached_is_named() -> None:
    port = free_port()
    ends = {"authorization": f"http://127.0.0.1:{port}/authorize", "token": f"http://127.0.0.1:{port}/token"}
    own = {"endpoints": ends, "client_id": "id", "client_secret": "env:SECRET", "api_hosts": ["127.0.0.1"]}
    seen = await looked(of({"acme": own}, port))
    found = told(seen, "D29", "could not be asked")
    assert "token endpoint: connect" in found[0].wrong
    closed = await looked(dataclasses.replace(of({"acme": own}, port), config=of({}).config))
    assert "egress blocked" in told(closed, "D29", "could not be asked")[0].wrong


@pytest.mark.scenario("A31")
async def test_each_client_is_asked_once(sandbox: Sandbox) -> None:
    providers = {name: choice(sandbox.base_url) for name in ("one", "two", "three")}
    seen = await looked(of(providers, port_of(sandbox)))
    assert len(list(sandbox.ledger.refreshes())) == 1
    assert sum(found.probe is not None for found in seen.seen.values()) == 1
    assert codes(seen) == []


async def test_only_the_named_provider_is_asked(sandbox: Sandbox) -> None:
    public = {"client_id": "authproxy-dev", "client_auth": "none"}
    own = {"issuer": sandbox.base_url, "api_hosts": ["127.0.0.1"], **public}
    seen = await looked(of({"one": choice(sandbox.base_url), "two": own}, port_of(sandbox)), only=("two",))
    assert list(seen.seen) == ["two"]
    assert [call.client_id for call in sandbox.ledger.refreshes()] == ["authproxy-dev"]


async def test_a_client_that_is_not_known_here_is_not_asked(sandbox: Sandbox) -> None:
    one = case(
        {"acme": choice(sandbox.base_url)},
        "development",
        environ={},
        egress={"allow": [f"127.0.0.1:{port_of(sandbox)}"]},
    )
    seen = await looked(one)
    assert list(sandbox.ledger.refreshes()) == []
    assert seen.seen["acme"].probe is None
    assert seen.seen["acme"].discovery is not None


@pytest.mark.parametrize("dialect", ["google", "slack", "github", "github-app", "salesforce", "hubspot"])
@pytest.mark.parametrize("good", [True, False])
async def test_in_every_dialect_a_bad_client_is_told_from_an_unknown_token(
    sandbox: Sandbox, dialect: str, good: bool
) -> None:
    base = f"{sandbox.base_url}/{dialect}"
    own = choice(
        base, catalogue=dialect, endpoints={"authorization": f"{base}/authorize", "token": f"{base}/token"}
    )
    del own["issuer"]
    one = of({"acme": own}, port_of(sandbox), secret=DEMO_SECRET if good else "wrong")
    probe = (await looked(one)).seen["acme"].probe
    assert probe is not None
    assert probe.verdict == ("dead" if good else "misconfigured"), probe
    assert good or probe.reason == "client_credentials"


@pytest.mark.parametrize(
    "turn", [{"status": 503}, {"html": True}, {"drop": "after"}, {"drop": "before"}, {"error": "slow_down"}]
)
async def test_a_provider_in_trouble_is_not_called_misconfigured(
    sandbox: Sandbox, turn: dict[str, Any]
) -> None:
    sandbox.switches.update(turn)
    seen = await looked(of({"acme": choice(sandbox.base_url)}, port_of(sandbox)))
    assert [one for one in examine(seen) if one.severity == "error"] == []
    assert len(list(sandbox.ledger.requests)) == 1  # and it is not asked again


def reply(status: int, body: str = "", location: str | None = None) -> Reply:
    return Reply(status, "text/html", None, None, body.encode(), location)


CALLBACK = "https://auth.acme.com/callback/google"


@pytest.mark.parametrize(
    ("answer", "shown"),
    [
        (reply(302, location="/signin/oauth/error?authError=abc"), (None, "an error page")),
        (reply(302, location="https://accounts.google.com/v3/signin/identifier"), (None, None)),
        (reply(302, location=f"{CALLBACK}?error=invalid_scope&state=x"), ("invalid_scope", None)),
        (reply(302, location=f"{CALLBACK}?code=CANARY-code"), (None, None)),
        (reply(302, location="https://[broken"), (None, None)),
        (reply(302, location=f"{CALLBACK}?error=" + "CANARY" * 99), ("error", None)),
        (reply(400, "Error 400: redirect_uri_mismatch"), (None, "redirect_uri_mismatch")),
        (reply(400, "Error 401: deleted_client"), (None, "deleted_client")),
        (reply(200, "Sign in"), (None, None)),
        (reply(500), (None, None)),
    ],
)
def test_what_the_door_shows(answer: Reply, shown: tuple[str | None, str | None]) -> None:
    provider = case({"google": {}}).registrations["google"].provider
    assert provider is not None
    door = read_door(provider, answer, "https://accounts.google.com/o/oauth2/v2/auth?x=y", CALLBACK)
    assert (door.error, door.page) == shown
    assert "CANARY" not in repr(door)


async def kept(store: Path, keys: str, *, refresh_token: str, access_token: str) -> None:
    """A real grant of the sandbox, in a store."""
    vault = await Vault.open(
        f"sqlite:///{store}", keyring=Keyring.parse(keys), environment=Environment.DEVELOPMENT
    )
    now = int(time.time())
    tokens = TokenSet(Secret(access_token), Secret(refresh_token), now - 60, 3600, scopes=("read", "write"))
    key = ConnectionKey("default", "alice", "acme")
    grant = NewGrant(key, "authproxy-demo", "grant-1", tokens, ("read", "write"), "alice", now)
    await vault.keep_grant(grant, [])
    await vault.close()


@pytest.mark.scenario("A31")
async def test_no_stored_token_ever_leaves(sandbox: Sandbox, tmp_path: Path) -> None:
    """The whole command, beside a store whose access token has ended: it is neither refreshed nor shown anywhere."""
    async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as session:
        app = App(sandbox, sandbox.base_url, session, "authproxy-demo", DEMO_SECRET)
        sandbox.switches.update({"rotate": True})
        held = await app.connect("alice")
        keys = generate_key()
        store = tmp_path / "authproxy.db"
        await kept(store, keys, refresh_token=held["refresh_token"], access_token=held["access_token"])
        file = tmp_path / "routes.yaml"
        config = {
            "version": 1,
            "providers": {"acme": choice(sandbox.base_url)},
            "routes": {
                "acme": {"upstream": f"{sandbox.base_url}/api", "provider": "acme", "scopes": ["read"]}
            },
            "egress": {"allow": [f"127.0.0.1:{port_of(sandbox)}"]},
        }
        file.write_text(json.dumps(config))
        before = len(sandbox.ledger.calls)
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", BOOT, "doctor", "--online", "--json"),
            *("--config", str(file), "--store", f"sqlite:///{store}"),
            env={"PATH": "/usr/bin:/bin", "SECRET": DEMO_SECRET, "AUTHPROXY_KEYS": keys},
            cwd=tmp_path,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await asyncio.wait_for(process.communicate(), 30)
        said = json.loads(out)
        assert (process.returncode, err) == (0, b""), (out, err)
        assert said["asked"] == ["acme"]
        assert said["connections"] == 1
        presented = [call.digest for call in sandbox.ledger.refreshes()]
        assert len(presented) == 1
        assert digest_of(held["refresh_token"]) not in presented
        assert digest_of(held["access_token"]) not in [call.access_digest for call in sandbox.ledger.calls]
        assert len(sandbox.ledger.calls) == before  # no API was called either
        assert list(sandbox.ledger.found) == []
        for secret in (held["refresh_token"], held["access_token"], DEMO_SECRET, keys):
            assert secret.encode() not in out + err
        assert (await app.refresh(held["refresh_token"])).status == 200  # it is as good as before
