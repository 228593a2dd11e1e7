"""Harmless calls to the providers: discovery, the clock, a made-up refresh token, the door without going in.

No stored token is ever sent, and none is opened: the doctor has no way to them (A31).
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any
from urllib.parse import parse_qs, urljoin, urlsplit

from authproxy.broker.endpoint import Endpoint, MaybeSent, NeverSent, Reply
from authproxy.core.client_auth import Client
from authproxy.core.errors import ProviderMisconfigured
from authproxy.core.oauth import TokenRequest, authorization_url, probe_request, read_denial, read_token_reply
from authproxy.core.providers import Provider, client_of, with_discovery
from authproxy.core.secret import Secret
from authproxy.core.verdicts import TokenFailure
from authproxy.doctor.case import Case, Door, Probe, Registration, Seen

_ASKED_AT_ONCE = 8
# Codes that an error page may show where nobody is sent back; the catalogue has the provider's own.
_ON_PAGES = ("redirect_uri_mismatch", "invalid_redirect_uri", "bad_redirect_uri", "invalid_client_id")
_REASONS = ("redirect_uri", "client_credentials", "client_deleted", "scope", "pkce", "audience")


async def observe(
    case: Case,
    endpoint: Endpoint,
    *,
    clock: Callable[[], float],
    randomness: Callable[[int], str],
    only: Collection[str] | None = None,
) -> Case:
    """The case with what the providers answered. `only` names those that are asked."""
    gate = asyncio.Semaphore(_ASKED_AT_ONCE)
    probed: set[tuple[str, str]] = set()

    async def asked(one: Registration) -> Seen:
        async with gate:
            visit = _Visit(endpoint, clock, randomness, probed)
            return await visit.pay(one, case.redirect_uri(one.name))

    chosen = [one for one in case.each() if one.provider is not None and (only is None or one.name in only)]
    seen = await asyncio.gather(*map(asked, chosen))
    found = {one.name: each for one, each in zip(chosen, seen, strict=True)}
    return replace(case, seen=MappingProxyType(found))


@dataclass(slots=True)
class _Visit:
    """All calls to one provider, each at most once."""

    endpoint: Endpoint
    clock: Callable[[], float]
    randomness: Callable[[int], str]
    probed: set[tuple[str, str]]
    skew: int | None = None
    trouble: tuple[tuple[str, str], ...] = ()

    async def pay(self, one: Registration, redirect_uri: str) -> Seen:
        assert one.provider is not None
        url = _discovery_url(one)
        document = await self._document(url) if url else None
        provider = self._completed(one, one.provider, document)
        probe = await self._probe(one, provider) if provider else None
        door = await self._door(one, provider, redirect_uri) if provider else None
        return Seen(
            discovery=document,
            discovery_url=url,
            skew=self.skew,
            probe=probe,
            door=door,
            trouble=self.trouble,
        )

    def _completed(
        self, one: Registration, provider: Provider, document: Mapping[str, Any] | None
    ) -> Provider | None:
        """With what the issuer says; None where endpoints come from it alone, and it does not say them."""
        if one.choice.issuer is None:
            return provider
        if document is None:
            return None
        try:
            return with_discovery(provider, document)
        except ProviderMisconfigured as exc:
            if exc.reason != "issuer_mismatch":  # which is seen in the document itself
                self._missed("discovery", exc.reason or "unusable")
            return None

    async def _document(self, url: str) -> Mapping[str, Any] | None:
        reply = await self._get("discovery", url, {"Accept": "application/json"})
        if reply is None:
            return None
        if reply.status != 200:
            self._missed("discovery", f"http_{reply.status}")
            return None
        try:
            document = json.loads(reply.body)
        except (ValueError, RecursionError):
            document = None
        if not isinstance(document, dict):
            self._missed("discovery", "not_json")
            return None
        return document

    async def _probe(self, one: Registration, provider: Provider) -> Probe | None:
        client = _client(one)
        place = provider.endpoints.refresh or provider.endpoints.token
        if client is None or place is None or (place, client.client_id) in self.probed:
            return None
        self.probed.add((place, client.client_id))
        prefix = next(iter(provider.facts.refresh_token.prefixes), "")
        made_up = f"{prefix}authproxy-doctor-{self.randomness(24)}"
        reply = await self._send("token endpoint", probe_request(provider, client, made_up=made_up))
        if reply is None:
            return None
        answer = read_token_reply(
            provider,
            status=reply.status,
            content_type=reply.content_type,
            body=reply.body,
            retry_after=reply.retry_after,
            now=int(self.clock()),
            previous=None,
        )
        if not isinstance(answer, TokenFailure):
            return Probe("success", status=reply.status)
        return Probe(str(answer.verdict), answer.code, answer.reason, answer.advice, reply.status)

    async def _door(self, one: Registration, provider: Provider, redirect_uri: str) -> Door | None:
        if one.client_id is None or provider.endpoints.authorization is None:
            return None
        url = authorization_url(
            provider,
            Client(one.client_id, None, None),
            redirect_uri=redirect_uri,
            scopes=one.route_scopes,
            state=Secret(self.randomness(24)),
            verifier=Secret(self.randomness(48)),
        )
        reply = await self._get("authorization endpoint", url, {"Accept": "text/html"})
        return None if reply is None else read_door(provider, reply, url, redirect_uri)

    async def _get(self, what: str, url: str, headers: Mapping[str, str]) -> Reply | None:
        return await self._send(what, TokenRequest(url, headers, b"", "GET"))

    async def _send(self, what: str, request: TokenRequest) -> Reply | None:
        before = self.clock()
        try:
            if request.method == "GET":
                reply = await self.endpoint.get(request.url, request.headers)
            else:
                reply = await self.endpoint.send(request)
        except (NeverSent, MaybeSent) as lost:
            self._missed(what, lost.reason)
            return None
        if reply.date is not None and self.skew is None:
            # a Date is cut to the second, so that in the mean half a second is missing
            self.skew = round((before + self.clock()) / 2 - (reply.date + 0.5))
        return reply

    def _missed(self, what: str, reason: str) -> None:
        self.trouble = (*self.trouble, (what, reason))


def _discovery_url(one: Registration) -> str | None:
    assert one.provider is not None
    if one.provider.issuer is not None:
        return one.provider.issuer.rstrip("/") + "/.well-known/openid-configuration"
    chosen = one.facts.environments.get(one.choice.environment or "")
    url = (chosen.endpoints.discovery if chosen else None) or one.facts.endpoints.discovery
    placeholder = one.facts.placeholder
    filled = one.choice.subdomain or (placeholder.default if placeholder else None)
    if url and "{" in url:
        if filled is None:
            return None
        start, _, rest = url.partition("{")
        url = start + filled + rest.partition("}")[2]
    # an operator's own endpoints are another server than the catalogue's document speaks of
    return None if one.choice.endpoints.token else url


def _client(one: Registration) -> Client | None:
    """The operator's client, where all of it is known here."""
    if one.absent or one.client_id is None:
        return None
    try:
        return client_of(one.name, one.choice)
    except ProviderMisconfigured:
        return None


def read_door(provider: Provider, reply: Reply, url: str, redirect_uri: str) -> Door:
    """What the first answer of the authorization endpoint shows; where it leads is not followed."""
    if reply.location is not None and 300 <= reply.status < 400:
        try:
            target = urljoin(url, reply.location)
            parts = urlsplit(target)
            query = parse_qs(parts.query, max_num_fields=100)
            host = parts.hostname
        except ValueError:
            return Door(reply.status)
        told = query.get("error", [""])[0]
        if target.startswith(redirect_uri) and told:
            denial = read_denial(provider, told, query.get("error_description", [""])[0])
            return Door(reply.status, error=denial.code, host=host, advice=denial.advice)
        if not target.startswith(redirect_uri) and "error" in parts.path.lower().split("/"):
            return Door(reply.status, page="an error page", host=host)
        return Door(reply.status, host=host)
    text = reply.body.decode("utf-8", "replace")
    page = next((code for code in _page_codes(provider) if code in text), None)
    return Door(reply.status, page=page)


def _page_codes(provider: Provider) -> tuple[str, ...]:
    rows = (*provider.facts.authorize_errors, *provider.facts.token_errors.misconfigured)
    own = [code for row in rows if row.reason in _REASONS for code in row.code if "_" in code]
    return tuple(dict.fromkeys((*_ON_PAGES, *own)))
