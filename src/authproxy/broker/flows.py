"""Consent: start it, send the browser off, finish it exactly once, let others wait for its end."""

from __future__ import annotations

import asyncio
import dataclasses
import hmac
import secrets
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple
from urllib.parse import urlsplit, urlunsplit

import structlog

from authproxy.broker.asking import OPEN, Asking
from authproxy.broker.consent import Consents, event_of
from authproxy.broker.endpoint import Endpoint
from authproxy.broker.flight import FlightLost, Flights
from authproxy.broker.next_uri import checked_next
from authproxy.broker.outcome import Failpoint, no_failpoint
from authproxy.broker.registrations import Registrations
from authproxy.core.config import Config
from authproxy.core.errors import BadRequest, NotFound, StoreUnavailable, UserNotAllowed
from authproxy.core.model import (
    DEFAULT_ACCOUNT,
    Caller,
    ConnectionKey,
    Flow,
    FlowStatus,
)
from authproxy.core.oauth import authorization_url
from authproxy.core.secret import Secret
from authproxy.store.admission import USER_DISABLED, disabled
from authproxy.store.vault import Vault

log = structlog.get_logger()

INTERRUPTED_AFTER = 120  # seconds after which an exchange that was begun counts as dead (H03)
POLL = 0.5  # seconds between two looks for flows that another process may end
COOKIE_BYTES = 32


class Page(NamedTuple):
    """What the connect page shows; GET changes nothing."""

    flow: Flow
    provider_name: str
    public_url: str


class Departure(NamedTuple):
    """The button was pressed: where the browser goes, and the secret for its cookie."""

    url: str
    cookie: str

    def __repr__(self) -> str:
        return "Departure(…)"


class Arrival(NamedTuple):
    """What came of a callback. `location`: the provider again, where it has to be asked once more (B02)."""

    flow: Flow
    location: str | None = None

    def __repr__(self) -> str:
        return f"Arrival({self.flow.id!r}, {self.flow.status})"


class Flows:
    """Every consent of this deployment; the rows are shared, so any process can go on where another began."""

    def __init__(
        self,
        vault: Vault,
        registrations: Registrations,
        endpoint: Endpoint,
        config: Callable[[], Config],
        *,
        changed: Callable[[ConnectionKey], None],
        clock: Callable[[], float] = time.time,
        token: Callable[[int], str] = secrets.token_urlsafe,
        failpoint: Failpoint = no_failpoint,
    ) -> None:
        self._vault = vault
        self._registrations = registrations
        self._config = config
        self._clock = clock
        self._token = token
        self._asking = Asking(vault, registrations, config, clock=clock, token=token, tell=self._tell)
        self._consents = Consents(
            vault, registrations, endpoint, changed=changed, clock=clock, failpoint=failpoint
        )
        # Finished in a task of its own: a browser that closes its tab must not take the tokens with it.
        self._finishing: Flights[tuple[str, str], Flow] = Flights(deadline=INTERRUPTED_AFTER - 10.0)
        self._waiting: dict[str, set[asyncio.Event]] = {}

    # --- an agent asks

    async def start(
        self,
        *,
        caller: Caller,
        user: str,
        provider: str,
        scopes: Iterable[str] = (),
        account: str = DEFAULT_ACCOUNT,
        next_uri: str | None = None,
        again: bool = False,
        refusal: bool = False,
    ) -> Flow:
        """A flow for this user: the open one, if it asks for the same; COMPLETED at once where the connection
        already has all that is asked for (unless `again`, which asks the user whatever there is). `refusal`: the one
        that `link_for` leads to."""
        if not caller.allowed(user):
            raise UserNotAllowed(f"{caller.agent} may not act for this user", user=user)
        self._registrations.asked(provider)
        config = self._config()
        if next_uri is not None:
            next_uri = checked_next(next_uri, public_url=config.public_url, allow=config.flows.next_uri_allow)
        key = ConnectionKey(caller.tenant, user, provider, account)
        wanted = tuple(scopes)
        _check_scopes(wanted)
        return await self._asking.obtain(key, wanted, caller.agent, next_uri, again=again, refusal=refusal)

    async def link_for(self, key: ConnectionKey, scopes: Sequence[str], agent: str) -> str:
        """A link that lets the user connect with (at least) these scopes."""
        return await self._asking.link_for(key, scopes, agent)

    def link(self, flow: Flow) -> str:
        """Where the user opens this flow."""
        return self._asking.link(flow)

    async def wait(self, flow_id: str, seconds: float, *, tenant: str | None = None) -> Flow:
        """The flow as soon as it has ended, or as it is after `seconds`. A deadline always ends it: no flow is
        open for longer than its life."""
        until = asyncio.get_running_loop().time() + max(0.0, seconds)
        told = asyncio.Event()
        self._waiting.setdefault(flow_id, set()).add(told)
        try:
            while True:
                told.clear()
                flow = await self.flow(flow_id, tenant=tenant)
                left = until - asyncio.get_running_loop().time()
                if flow.status.ended or left <= 0:
                    return flow
                try:
                    async with asyncio.timeout(min(left, POLL)):
                        await told.wait()
                except TimeoutError:
                    continue  # another process may have ended it
        finally:
            waiting = self._waiting[flow_id]
            waiting.discard(told)
            if not waiting:
                del self._waiting[flow_id]

    async def flow(self, flow_id: str, *, tenant: str | None = None) -> Flow:
        """One flow as it is now, its deadline applied. Raises NotFound, also for another tenant's."""
        flow = await self._vault.flow(flow_id)
        if flow is None or (tenant is not None and flow.key.tenant != tenant):
            raise NotFound("there is no such flow", reason="flow_unknown")
        return await self._timely(flow)

    # --- the browser

    async def open(self, flow_id: str) -> Page:
        """What the page shows. No side effect: link scanners open links too."""
        flow = await self.flow(flow_id)
        return Page(flow, self._registrations.resting(flow.key.provider).name, self._config().public_url)

    async def go(self, flow_id: str, browser: str | None) -> Departure:
        """The button was pressed: binds the flow to this browser and says where it goes. Pressed again, it starts
        over. `browser` is the cookie's value, if there is one; it is kept, so that flows side by side work."""
        flow = _of_the_enabled(await self.flow(flow_id))
        if flow.status not in OPEN:
            raise BadRequest("this link has been used", reason=f"flow_{flow.status}")
        cookie = browser if browser is not None and _is_cookie(browser) else self._token(COOKIE_BYTES)
        url = await self._departure(flow, browser=cookie, expect=OPEN)
        if url is None:
            raise BadRequest("this link has been used", reason="flow_moved")
        return Departure(url, cookie)

    async def finish(self, provider: str, query: Mapping[str, str], browser: str | None) -> Arrival:
        """The callback. Only the browser that pressed the button, only once, only at its own provider's address;
        a second identical callback waits for the first one's result. Raises BadRequest, and then nothing of
        the flow has changed."""
        state = query.get("state", "")
        if not state:
            raise BadRequest("the provider sent the browser back without a state", reason="state_missing")
        flow = await self._vault.flow_by_state(self._vault.digest(Secret(state)))
        if flow is None:
            raise _unknown_state()
        if flow.key.provider != provider:
            await self._refused(flow, "provider_mismatch")
            raise BadRequest("this sign-in belongs to another provider", reason="provider_mismatch")
        digest = self._vault.digest(Secret(browser or ""))
        if not browser or not hmac.compare_digest(digest, flow.browser_digest or ""):
            await self._refused(flow, "other_browser")
            raise BadRequest(
                "this sign-in was begun in another browser; open the link again in this one",
                reason="other_browser",
            )
        flow = pending = await self._timely(flow)
        if flow.status is FlowStatus.PENDING:
            try:
                flow = await self._finishing.share(
                    (flow.id, ""), lambda: self._claim_and_finish(pending, dict(query))
                )
            except FlightLost:
                flow = await self.flow(flow.id)
        elif flow.status is FlowStatus.EXCHANGING:
            flow = await self.wait(flow.id, 30.0)
        if _of_the_enabled(flow).status is FlowStatus.PENDING and flow.forced:
            url = await self._departure(flow, browser=browser, expect=(FlowStatus.PENDING,))
            return Arrival(flow, url)
        return Arrival(flow)

    def destination(self, flow: Flow) -> str | None:
        """Where a browser that is done goes: your application's verifier, or the flow's `next_uri`; None: our page."""
        verifier = self._config().identity.verifier_url
        if flow.status is FlowStatus.CONFIRMING and verifier is not None:
            parts = urlsplit(verifier)
            told = f"flow_id={self._ticket(flow)}"
            return urlunsplit(parts._replace(query=f"{parts.query}&{told}" if parts.query else told))
        return flow.next_uri if flow.status is FlowStatus.COMPLETED else None

    async def confirm(self, *, caller: Caller, ticket: str, user: str) -> Flow:
        """Your application says who sat at the browser that brought it `ticket`. Somebody else: the flow fails, what
        was given is revoked, and UserMismatch is raised."""
        flow = await self.flow(ticket.partition(".")[0], tenant=caller.tenant)
        if not caller.allowed(user) or not caller.allowed(flow.key.user):
            raise UserNotAllowed(f"{caller.agent} may not act for this user", user=user)
        if not hmac.compare_digest(ticket.encode(), self._ticket(flow).encode()):
            raise BadRequest(
                "flow_id must be the one that the browser brought to verifier_url; the authorization's id is none",
                reason="flow_id",
            )
        try:
            return _of_the_enabled(
                await self._finishing.share((flow.id, user), lambda: self._consents.confirm(flow, user))
            )
        except FlightLost:
            raise StoreUnavailable("the flow could not be ended in time", reason="slow") from None
        finally:
            self._tell(flow.id)

    # --- housekeeping

    async def sweep(self) -> int:
        """Ends flows that are over time. How many."""
        return await self._vault.sweep_flows(int(self._clock()))

    async def drain(self, seconds: float) -> int:
        """Let callbacks end that are being worked on; how many were left."""
        await self._asking.drain(seconds)
        return await self._finishing.drain(seconds)

    async def _departure(self, flow: Flow, *, browser: str, expect: Sequence[FlowStatus]) -> str | None:
        """A new state and a new verifier each time the browser is sent off; None: the flow has moved on."""
        provider = await self._registrations.provider(flow.key.provider)
        client = self._registrations.client(flow.key.provider)
        if client.client_id != flow.client_id:
            await self._consents.fail(flow, "client_changed", expect=OPEN)
            raise BadRequest("the client has changed since this link was made", reason="client_changed")
        now = int(self._clock())
        state, verifier = Secret(self._token(32)), Secret(self._token(64))
        moved = await self._vault.move_flow(
            flow.id,
            expect=expect,
            to=FlowStatus.PENDING,
            verifier=verifier,
            state_digest=self._vault.digest(state),
            browser_digest=self._vault.digest(Secret(browser)),
            events=[event_of(flow, "flow.opened", now, {"forced": flow.forced})],
        )
        if moved is None:
            return None
        existing = await self._vault.find(flow.key)
        return authorization_url(
            provider,
            client,
            redirect_uri=flow.redirect_uri,
            scopes=moved.scopes,  # what it asks for now: it may have been widened since it was looked at
            state=state,
            verifier=verifier if provider.pkce else None,
            login_hint=None if existing is None else existing.provider_account,
            force_consent=flow.forced,
            # The state's keyed digest: unguessable, known to the row, and worth nothing to who reads it.
            nonce=moved.state_digest,
        )

    async def _claim_and_finish(self, flow: Flow, query: Mapping[str, str]) -> Flow:
        """Claims the flow before anything is exchanged; who comes second sees what the first makes of it (H03)."""
        now = int(self._clock())
        claimed = await self._vault.move_flow(
            flow.id,
            expect=FlowStatus.PENDING,
            to=FlowStatus.EXCHANGING,
            if_state=flow.state_digest,
            expires_at=max(flow.expires_at, now + 1),
        )
        if claimed is None:
            seen = await self.flow(flow.id)
            if seen.state_digest != flow.state_digest:  # the button was pressed again in between
                raise _unknown_state()
            return await self.wait(flow.id, 30.0)
        try:
            ended = await self._consents.finish(
                claimed, query, hold=self._config().identity.verifier_url is not None
            )
        finally:
            self._tell(flow.id)
        return ended

    async def _timely(self, flow: Flow) -> Flow:
        """`flow`, ended if its time is over: nobody waits for ever, and a crash leaves nothing stuck (H05)."""
        now = int(self._clock())
        if flow.status.ended:
            return flow
        if flow.status is FlowStatus.EXCHANGING:
            if now < flow.expires_at + INTERRUPTED_AFTER:
                return flow
            await self._consents.fail(flow, "interrupted", expect=(FlowStatus.EXCHANGING,))
        elif now >= flow.expires_at:
            await self._vault.move_flow(
                flow.id,
                expect=(*OPEN, FlowStatus.CONFIRMING),
                to=FlowStatus.EXPIRED,
                reason="deadline",
                events=[event_of(flow, "flow.expired", now, {})],
            )
        else:
            return flow
        self._tell(flow.id)
        again = await self._vault.flow(flow.id)
        return again if again is not None else dataclasses.replace(flow, status=FlowStatus.EXPIRED)

    def _ticket(self, flow: Flow) -> str:
        """What proves to your application that a browser came from this flow's callback. The flow's id does not:
        who asked for the link has it, and could otherwise confirm himself what somebody else consented to (H01)."""
        return f"{flow.id}.{self._vault.mark('flow confirmed', f'{flow.id}:{flow.state_digest}')}"

    async def _refused(self, flow: Flow, reason: str) -> None:
        log.warning("callback.refused", reason=reason, provider=flow.key.provider)
        await self._vault.note([event_of(flow, "flow.refused", int(self._clock()), {"reason": reason})])

    def _tell(self, flow_id: str) -> None:
        self._asking.forget(flow_id)
        for told in self._waiting.get(flow_id, ()):
            told.set()


def _of_the_enabled(flow: Flow) -> Flow:
    """Raises UserDisabled where the flow has ended for that."""
    if flow.reason == USER_DISABLED:
        raise disabled(flow.key.user)
    return flow


def _unknown_state() -> BadRequest:
    return BadRequest("this sign-in is not known, or a newer one replaced it", reason="state_unknown")


def _is_cookie(value: str) -> bool:
    return 40 <= len(value) <= 128 and value.isascii() and value.replace("-", "a").replace("_", "a").isalnum()


def _check_scopes(scopes: Iterable[str]) -> None:
    """RFC 6749 section 3.3: visible ASCII without `"` and backslash."""
    for scope in scopes:
        if not scope or len(scope) > 512 or any(not "!" <= c <= "~" or c in '"\\' for c in scope):
            raise BadRequest("a scope has characters that no scope can have", reason="scope_invalid")
