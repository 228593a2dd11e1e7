"""The sandbox's dialects against the requests and readers that authproxy itself uses for those providers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urlsplit

import aiohttp
import pytest

from authproxy.core.client_auth import Client
from authproxy.core.config import Endpoints, ProviderChoice
from authproxy.core.model import TokenSet
from authproxy.core.oauth import (
    ApiSign,
    TokenFailure,
    TokenRequest,
    Verdict,
    authorization_url,
    code_request,
    instance_upstream,
    peeks,
    read_api_answer,
    read_token_reply,
    refresh_request,
    revocation_request,
)
from authproxy.core.providers import Provider, client_of, provider_of
from authproxy.core.secret import Secret
from authproxy.sandbox import Sandbox, Settings, approve
from tests.sandbox.app import CALLBACK, DEMO_SECRET, VERIFIER, Clock

SCOPES = {
    "google": ["openid", "https://www.googleapis.com/auth/gmail.modify"],
    "slack": ["chat:write", "channels:history"],
    "github": ["repo", "offline_access"],
    "github-app": [],
    "salesforce": ["api"],
    "hubspot": ["oauth", "crm.objects.contacts.write"],
}
DIALECTS = sorted(SCOPES)
ROTATES = {"slack", "github", "github-app"}


@dataclass
class Desk:
    """authproxy's side of one provider, with a plain HTTP client."""

    sandbox: Sandbox
    dialect: str
    provider: Provider
    client: Client
    session: aiohttp.ClientSession
    clock: Clock

    async def send(self, request: TokenRequest, previous: TokenSet | None = None) -> TokenSet | TokenFailure:
        async with self.session.request(
            request.method, request.url, data=request.body, headers=request.headers
        ) as answer:
            return read_token_reply(
                self.provider,
                status=answer.status,
                content_type=answer.headers.get("Content-Type", ""),
                body=await answer.read(),
                retry_after=answer.headers.get("Retry-After"),
                now=int(self.clock()),
                previous=previous,
            )

    async def connect(self) -> TokenSet:
        verifier = Secret(VERIFIER)
        url = authorization_url(
            self.provider,
            self.client,
            redirect_uri=CALLBACK,
            scopes=SCOPES[self.dialect],
            state=Secret("s"),
            verifier=verifier,
        )
        back = parse_qs(urlsplit(await approve(self.session, url)).query)
        code = Secret(back["code"][0])
        tokens = await self.send(
            code_request(self.provider, self.client, code=code, redirect_uri=CALLBACK, verifier=verifier)
        )
        assert isinstance(tokens, TokenSet), tokens
        return tokens

    async def refresh(self, tokens: TokenSet) -> TokenSet | TokenFailure:
        assert tokens.refresh_token is not None
        request = refresh_request(self.provider, self.client, refresh_token=tokens.refresh_token)
        return await self.send(request, tokens)

    async def sign(self, tokens: TokenSet, path: str = "/api/me") -> tuple[ApiSign, Any]:
        headers = {"Authorization": f"Bearer {tokens.access_token.reveal()}"}
        async with self.session.get(self.sandbox.base_url + path, headers=headers) as answer:
            kind, body = answer.headers.get("Content-Type", ""), await answer.read()
            sign = read_api_answer(
                self.provider,
                status=answer.status,
                content_type=kind,
                www_authenticate=answer.headers.getall("WWW-Authenticate", []),
                body=body if peeks(self.provider, answer.status, kind) else None,
            )
            return sign, body


@pytest.fixture(params=DIALECTS)
async def desk(request: pytest.FixtureRequest, session: aiohttp.ClientSession, clock: Clock) -> Any:
    dialect = request.param
    sandbox = Sandbox(Settings(dialect=dialect), clock=clock)
    base = await sandbox.start(port=0)
    choice = ProviderChoice(
        catalogue=dialect,
        client_id="authproxy-demo",
        client_secret=Secret(DEMO_SECRET),
        endpoints=Endpoints(
            authorization=f"{base}/authorize",
            token=f"{base}/token",
            revocation=f"{base}/revoke",
            userinfo=f"{base}/userinfo",
        ),
    )
    provider = provider_of(dialect, choice)
    yield Desk(sandbox, dialect, provider, client_of(dialect, choice), session, clock)
    await sandbox.close()


async def test_a_grant_lives_through_its_refreshes(desk: Desk) -> None:
    tokens = await desk.connect()
    assert tokens.refresh_token is not None
    for _ in range(3):
        sign, body = await desk.sign(tokens)
        assert sign is ApiSign.NONE
        assert b"alice" in body
        desk.sandbox.expire_access_tokens()
        assert (await desk.sign(tokens))[0] is ApiSign.EXPIRED
        renewed = await desk.refresh(tokens)
        assert isinstance(renewed, TokenSet), renewed
        assert renewed.refresh_token is not None
        assert (renewed.refresh_token != tokens.refresh_token) == (desk.dialect in ROTATES)
        tokens = renewed
    assert desk.sandbox.violations() == []


@pytest.mark.scenario("B05")
async def test_a_dead_grant_is_read_as_dead(desk: Desk) -> None:
    tokens = await desk.connect()
    desk.sandbox.revoke_user("alice")
    failure = await desk.refresh(tokens)
    assert isinstance(failure, TokenFailure)
    assert failure.verdict is Verdict.DEAD


async def test_a_wrong_client_ends_no_grant(desk: Desk) -> None:
    tokens = await desk.connect()
    desk.sandbox.switches.invalid_client = True
    failure = await desk.refresh(tokens)
    assert isinstance(failure, TokenFailure)
    assert failure.verdict is Verdict.MISCONFIGURED


@pytest.mark.scenario("B07")
@pytest.mark.parametrize(
    "switches",
    [
        {"status": 500},
        {"status": 503, "retry_after": "7"},
        {"status": 429, "retry_after": "7"},
        {"html": True},
        {"html": True, "status": 400},
        {"empty": True},
        {"body": "[]"},
        {"error": "server_error", "status": 500},
        {"error": "temporarily_unavailable"},
    ],
    ids=str,
)
async def test_outages_end_no_grant(desk: Desk, switches: dict[str, Any]) -> None:
    tokens = await desk.connect()
    desk.sandbox.switches.update(switches)
    failure = await desk.refresh(tokens)
    assert isinstance(failure, TokenFailure)
    assert failure.verdict is Verdict.TRANSIENT
    assert failure.retry_after == (7 if "retry_after" in switches else failure.retry_after)


async def test_a_grant_is_given_back(desk: Desk) -> None:
    tokens = await desk.connect()
    assert tokens.refresh_token is not None
    for hint, token in (("refresh_token", tokens.refresh_token), ("access_token", tokens.access_token)):
        request = revocation_request(desk.provider, desk.client, token=token, hint=hint)
        if request is not None:
            async with desk.session.request(
                request.method, request.url, data=request.body, headers=request.headers
            ) as answer:
                assert answer.status in (200, 204)
            break
    else:
        pytest.fail("nothing can be revoked here")
    failure = await desk.refresh(tokens)
    assert isinstance(failure, TokenFailure)
    assert failure.verdict is Verdict.DEAD


async def test_salesforce_names_its_instance(desk: Desk) -> None:
    upstream = instance_upstream(desk.provider, (await desk.connect()).extra)
    assert upstream == (desk.sandbox.base_url if desk.dialect == "salesforce" else None)
