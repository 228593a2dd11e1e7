"""Which account at the provider a grant is for: from the token answer, its id_token, or userinfo."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import structlog

from authproxy.broker.endpoint import Endpoint, MaybeSent, NeverSent
from authproxy.broker.tokens import bearer
from authproxy.core.model import TokenSet
from authproxy.core.oauth import provider_account
from authproxy.core.providers import Client, Provider
from authproxy.core.secret import Secret

log = structlog.get_logger()

LEEWAY = 300  # seconds between the provider's clock and ours
USERINFO_DEADLINE = 10.0


class IdentityRefused(Exception):
    """The answer names somebody in a way that cannot be believed."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def id_token_of(body: bytes) -> str | None:
    """The token answer's id_token, where it has one."""
    token = _object(body).get("id_token")
    return token if isinstance(token, str) and token else None


async def account_of(
    endpoint: Endpoint,
    provider: Provider,
    client: Client,
    *,
    tokens: TokenSet,
    id_token: str | None,
    nonce: str | None,
    now: float,
) -> str | None:
    """The provider's own id for the account; None where it cannot be learnt. Raises IdentityRefused."""
    claims = None if id_token is None else _claims(provider, client, id_token, nonce=nonce, now=now)
    account = provider_account(provider, tokens.extra, claims)
    if account is None and provider.endpoints.userinfo is not None:
        userinfo = await _userinfo(endpoint, provider, tokens.access_token)
        account = provider_account(provider, tokens.extra, userinfo)
    return account


def _object(body: bytes) -> Mapping[str, Any]:
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return fields if isinstance(fields, dict) else {}


def _same_issuer(provider: Provider, issuer: object) -> bool:
    """Whether `issuer` names this provider. Unknown issuers are not held against it; Google leaves the scheme out
    in some tokens, and Salesforce names the customer's own host."""
    if provider.issuer is None:
        return True
    if not isinstance(issuer, str):
        return False
    if _bare(issuer) == _bare(provider.issuer):
        return True
    host = urlsplit(issuer).hostname or ""
    return any(
        pattern.startswith("*.") and host.endswith(pattern[1:].lower()) for pattern in provider.host_patterns
    ) and issuer.startswith("https://")


def _bare(issuer: str) -> str:
    return issuer.removeprefix("https://").rstrip("/")


def _claims(
    provider: Provider, client: Client, token: str, *, nonce: str | None, now: float
) -> Mapping[str, Any]:
    """The id_token's claims. It came from the token endpoint itself over TLS, so the server's certificate stands
    for the signature (OpenID Connect Core 3.1.3.7, point 6); everything else is checked."""
    from joserfc import jws  # 2 MB that no start needs: few users consent, and none while it begins
    from joserfc.errors import JoseError

    try:
        claims = json.loads(jws.extract_compact(token.encode("ascii", "replace")).payload)
    except (JoseError, ValueError):
        raise IdentityRefused("id_token_unreadable") from None
    if not isinstance(claims, dict):
        raise IdentityRefused("id_token_unreadable")
    audience = claims.get("aud")
    audiences = audience if isinstance(audience, list) else [audience]
    expires = claims.get("exp")
    if not _same_issuer(provider, claims.get("iss")):
        raise IdentityRefused("id_token_issuer")
    if client.client_id not in audiences or (len(audiences) > 1 and claims.get("azp") != client.client_id):
        raise IdentityRefused("id_token_audience")
    if isinstance(expires, bool) or not isinstance(expires, int | float) or expires + LEEWAY < now:
        raise IdentityRefused("id_token_expired")
    # Some servers lose the nonce; PKCE has then bound the code to this flow all the same.
    if (
        nonce is not None
        and claims.get("nonce") != nonce
        and (claims.get("nonce") is not None or not provider.pkce)
    ):
        raise IdentityRefused("id_token_nonce")
    return claims


async def _userinfo(endpoint: Endpoint, provider: Provider, access: Secret) -> Mapping[str, Any] | None:
    assert provider.endpoints.userinfo is not None
    headers = {
        provider.token_header: bearer(provider, access).decode("ascii"),
        "Accept": "application/json",
        **provider.facts.api.required_headers,
    }
    try:
        reply = await endpoint.get(provider.endpoints.userinfo, headers, deadline=USERINFO_DEADLINE)
    except (NeverSent, MaybeSent) as error:
        log.warning("userinfo.failed", provider=provider.id, reason=error.reason)
        return None
    if reply.status != 200:
        log.warning("userinfo.refused", provider=provider.id, status=reply.status)
        return None
    return _object(reply.body)
