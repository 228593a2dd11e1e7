"""Gives tokens back to the provider that issued them (RFC 7009), and says honestly whether that worked."""

from __future__ import annotations

from enum import StrEnum

import structlog

from authproxy.broker.endpoint import Endpoint, MaybeSent, NeverSent
from authproxy.core.model import TokenSet
from authproxy.core.oauth import revocation_request
from authproxy.core.providers import Client, Provider

log = structlog.get_logger()


class Revoked(StrEnum):
    """What became of the tokens at the provider."""

    YES = "yes"
    FAILED = "failed"
    UNSUPPORTED = "unsupported"


async def revoke(endpoint: Endpoint, provider: Provider, client: Client, tokens: TokenSet) -> Revoked:
    """The refresh token first: it ends the grant, and most servers take the access token with it. The access
    token as well, because some do not (I09)."""
    answers: list[Revoked] = []
    for token, hint in ((tokens.refresh_token, "refresh_token"), (tokens.access_token, "access_token")):
        if token is None or not token:
            continue
        request = revocation_request(provider, client, token=token, hint=hint)
        if request is None:
            continue
        try:
            reply = await endpoint.send(request)
        except (NeverSent, MaybeSent) as error:
            log.warning("revocation.failed", provider=provider.id, hint=hint, reason=error.reason)
            answers.append(Revoked.FAILED)
            continue
        # RFC 7009 section 2.2: 200 also for a token that is already dead.
        answers.append(Revoked.YES if 200 <= reply.status < 300 else Revoked.FAILED)
        if answers[-1] is Revoked.FAILED:
            log.warning("revocation.refused", provider=provider.id, hint=hint, status=reply.status)
    if not answers:
        return Revoked.UNSUPPORTED
    return answers[0]  # what became of the grant; an access token that outlives it is logged
