"""Two processes on one store before a provider that ends the old access token the moment it gives a new one."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import Counter
from pathlib import Path

import aiohttp
import pytest

from authproxy.core.model import ConnectionKey, Environment, NewGrant, TokenSet
from authproxy.core.secret import Secret
from authproxy.sandbox import Sandbox, Settings
from authproxy.store.sealing import Keyring, generate_key
from authproxy.store.vault import Vault
from tests.kit.process import Proxy

LIFE = 3  # seconds of an access token; it is renewed at four fifths of that
LASTS = 6.0
AGENTS = 24


async def given(store: Path, keys: str, sandbox: Sandbox) -> None:
    """alice's grant, as a consent would have left it."""
    vault = await Vault.open(
        f"sqlite:///{store}", keyring=Keyring.parse(keys), environment=Environment.DEVELOPMENT
    )
    said = sandbox.give("alice")
    tokens = TokenSet(
        access_token=Secret(said["access_token"]),
        refresh_token=Secret(said["refresh_token"]),
        expires_at=int(time.time()) + LIFE,
        lifetime=LIFE,
        scopes=("read", "write"),
    )
    key = ConnectionKey("default", "alice", "acme")
    await vault.keep_grant(
        NewGrant(key, "authproxy-demo", "grant", tokens, ("read", "write"), None, int(time.time())), []
    )
    await vault.close()


@pytest.mark.scenario("B28", "A04", "D06")
async def test_requests_under_way_survive_a_refresh_that_ends_their_token(tmp_path: Path) -> None:
    """A 401 for an older token costs a replay with the present one, and no refresh."""
    sandbox = Sandbox(
        Settings(
            access_token_life=LIFE,
            switches={"rotate": True, "revoke_family_on_reuse": True, "revoke_old_access": True},
        )
    )
    base = await sandbox.start(port=0)
    host, keys = base.removeprefix("http://"), generate_key()
    ends = {"authorization": f"{base}/authorize", "token": f"{base}/token"}
    client = {"client_id": "authproxy-demo", "client_secret": "env:CLIENT", "api_hosts": [host]}
    config = {
        "providers": {"acme": {**client, "endpoints": ends}},
        "routes": {"acme": {"upstream": f"{base}/api", "provider": "acme", "scopes": ["read"]}},
        "egress": {"allow": [host]},
    }
    replicas = [
        Proxy(tmp_path / name, config, {"AUTHPROXY_KEYS": keys, "CLIENT": "authproxy-demo-secret"})
        for name in ("one", "two")
    ]
    replicas[1].store_url = replicas[0].store_url
    await given(replicas[0].store, keys, sandbox)
    answers: Counter[int] = Counter()
    turns = itertools.cycle(replicas)
    until = 0.0

    async def agent(session: aiohttp.ClientSession) -> None:
        while time.monotonic() < until:
            async with session.get(f"{next(turns).url}/acme/me", headers={"X-User-ID": "alice"}) as answer:
                await answer.read()
                answers[answer.status] += 1

    try:
        for one in replicas:
            await asyncio.to_thread(one.start)
        sandbox.switches.update({"api_delay_s": 0.2})  # so that many are under way at each change
        until = time.monotonic() + LASTS
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
            await asyncio.gather(*(agent(session) for _ in range(AGENTS)))
        for one in replicas:
            assert await asyncio.to_thread(one.stop) == 0
        assert set(answers) == {200}, answers
        assert answers[200] > 10 * AGENTS
        refused = sum(1 for call in sandbox.calls if call.status == 401)
        assert refused > 0, "some were under way with a token that was ended"
        assert 2 <= len(sandbox.refreshes()) <= LASTS / (0.8 * LIFE) + 2, "one in each life"
        assert sandbox.violations() == []
    finally:
        for one in replicas:
            if one.process is not None and one.process.poll() is None:
                one.process.kill()
                one.process.wait()
        await sandbox.close()
