"""Gives tokens back to the provider that issued them (RFC 7009), and says honestly whether that worked."""

from __future__ import annotations

import random
import secrets
import time
from collections.abc import Callable
from enum import StrEnum

import structlog

from authproxy.broker.endpoint import Endpoint, MaybeSent, NeverSent, Reply
from authproxy.broker.registrations import Registrations
from authproxy.core.errors import ProviderMisconfigured, ProviderUnavailable
from authproxy.core.evidence import read_document
from authproxy.core.model import ConnectionKey, Event, TokenSet
from authproxy.core.oauth import revocation_request
from authproxy.core.providers import Client, Provider
from authproxy.store.revocations import Owed, Owing
from authproxy.store.vault import Vault

log = structlog.get_logger()

EVERY = 10.0  # seconds between two looks at what is owed
DEADLINE = 10.0  # seconds for one call
OURS = 120  # seconds in which nobody else pays a new debt
LONGEST_ROUND = 600.0  # seconds; 20 debts, two calls each, that answer just in time are 400
FIRST, LONGEST = 15.0, 3600.0  # seconds before the next try
KEPT = 7 * 86400  # seconds after which it is given up, and the tokens wiped
_GONE = frozenset({"invalid_token", "invalid_grant", "token_not_found"})  # it was revoked or over already


class Revoked(StrEnum):
    """What became of the tokens at the provider."""

    YES = "yes"
    PENDING = "pending"  # not yet confirmed; it is tried again
    FAILED = "failed"  # given up
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
            reply = await endpoint.send(request, deadline=DEADLINE)
        except (NeverSent, MaybeSent) as error:
            log.warning("revocation.failed", provider=provider.id, hint=hint, reason=error.reason)
            answers.append(Revoked.FAILED)
            continue
        answers.append(_read(reply))
        if answers[-1] is Revoked.FAILED:
            log.warning("revocation.refused", provider=provider.id, hint=hint, status=reply.status)
    if not answers:
        return Revoked.UNSUPPORTED
    return answers[0]  # what became of the grant; an access token that outlives it is logged


def _read(reply: Reply) -> Revoked:
    """RFC 7009 section 2.2: 200 also for a token that is already dead; some say it with an error instead."""
    if 200 <= reply.status < 300:
        return Revoked.YES
    document = read_document(reply.content_type, reply.body)
    code = document.get("error") if isinstance(document, dict) else None
    if 400 <= reply.status < 500 and code in _GONE:
        return Revoked.YES
    return Revoked.UNSUPPORTED if code == "unsupported_token_type" else Revoked.FAILED


class Revocations:
    """Pays what is owed: once by whoever made the debt, so that they can say how it went, then by whoever finds it."""

    def __init__(
        self,
        vault: Vault,
        registrations: Registrations,
        endpoint: Endpoint,
        *,
        clock: Callable[[], float] = time.time,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._vault = vault
        self._registrations = registrations
        self._endpoint = endpoint
        self._clock = clock
        self._jitter = jitter
        self._holder = secrets.token_hex(8)

    def new(self) -> Owing:
        """A debt that is about to be made."""
        now = int(self._clock())
        return Owing(f"rev_{secrets.token_hex(12)}", now, now + OURS)

    async def round(self) -> int:
        """Try everything that is due, in one process at a time; how many ended."""
        now = int(self._clock())
        if not await self._vault.owed(now=now, limit=1):
            return 0
        if not await self._vault.claim("revocations", holder=self._holder, seconds=EVERY + 4 * DEADLINE):
            return 0
        ended = 0
        for owed in await self._vault.owed(now=now):
            ended += await self.pay(owed) is not Revoked.PENDING
            if not await self._vault.claim("revocations", holder=self._holder, seconds=EVERY + 4 * DEADLINE):
                break
        await self._vault.let_go("revocations", holder=self._holder)
        return ended

    async def pay(self, owed: Owed) -> Revoked:
        """One try, and how it stands then, in the store too."""
        now = int(self._clock())
        outcome, error = await self._try(owed)
        if outcome is Revoked.PENDING and now - owed.created_at >= KEPT:
            outcome = Revoked.FAILED
            log.error("revocation.given_up", connection=owed.connection_id, provider=owed.key.provider)
        if outcome is Revoked.PENDING:
            pause = min(LONGEST, FIRST * 2 ** min(owed.attempts, 20)) * (0.5 + self._jitter() / 2)
            await self._vault.revoke_later(owed.id, until=int(now + pause) + 1, error=error or "")
            return outcome
        event = revocation_event(owed.key, owed.connection_id, now, outcome)
        await self._vault.revoked(owed.id, str(outcome), at=now, error=error, events=[event])
        return outcome

    async def _try(self, owed: Owed) -> tuple[Revoked, str | None]:
        if owed.tokens is None:
            return Revoked.FAILED, "unreadable"
        name = owed.key.provider
        try:
            provider = await self._registrations.provider(name)
            client = self._registrations.client(name)
        except (ProviderMisconfigured, ProviderUnavailable) as refusal:
            log.warning("revocation.failed", provider=name, reason=refusal.code)
            return Revoked.PENDING, refusal.code
        if client.client_id != owed.client_id:
            log.warning("revocation.failed", provider=name, reason="client_changed")
            return Revoked.PENDING, "client_changed"
        outcome = await revoke(self._endpoint, provider, client, owed.tokens)
        return (Revoked.PENDING, "refused") if outcome is Revoked.FAILED else (outcome, None)


def revocation_event(key: ConnectionKey, connection_id: str, at: int, outcome: Revoked) -> Event:
    """What became of a grant at its provider."""
    where = (key.tenant, key.user, key.provider, key.account, connection_id)
    return Event("connection.revocation", at, *where, data={"revoked_upstream": str(outcome)})
