"""What a callback brings: the code exchanged once, the account read, the grant kept, held back or refused."""

from __future__ import annotations

import asyncio
import dataclasses
import secrets
from collections.abc import Callable, Collection, Mapping
from typing import Any

import structlog

from authproxy.broker.endpoint import Endpoint, MaybeSent, NeverSent, Reply
from authproxy.broker.identity import IdentityRefused, account_of, id_token_of
from authproxy.broker.outcome import Failpoint
from authproxy.broker.registrations import Registrations
from authproxy.broker.revocation import revoke
from authproxy.core.errors import (
    ProviderMisconfigured,
    ProviderUnavailable,
    StoreUnavailable,
    UserDisabled,
    UserMismatch,
)
from authproxy.core.model import (
    Connection,
    ConnectionKey,
    Event,
    Flow,
    FlowStatus,
    NewGrant,
    State,
    TokenSet,
)
from authproxy.core.oauth import (
    TokenRequest,
    asked_scopes,
    check_issuer,
    code_request,
    read_denial,
    read_token_reply,
)
from authproxy.core.providers import Client, Provider
from authproxy.core.secret import Secret
from authproxy.core.verdicts import TokenFailure, Verdict
from authproxy.store.admission import USER_DISABLED
from authproxy.store.base import GrantChanged
from authproxy.store.lease import Leased
from authproxy.store.vault import Vault

log = structlog.get_logger()

TRIES = 4  # of what is harmless to repeat: a request that was never sent, a save that failed
LEASE = 30.0
NO_REFRESH_TOKENS = frozenset({"never", "approved partners only"})


class Ending(Exception):
    """The flow ends here without a grant."""

    def __init__(self, reason: str, status: FlowStatus = FlowStatus.FAILED) -> None:
        super().__init__(reason)
        self.reason = reason
        self.status = status


class AskAgain(Exception):
    """The user must be asked once more, with the consent forced (B02)."""


class Consents:
    """Everything that happens to a flow once it has been claimed."""

    def __init__(
        self,
        vault: Vault,
        registrations: Registrations,
        endpoint: Endpoint,
        *,
        changed: Callable[[ConnectionKey], None],
        clock: Callable[[], float],
        failpoint: Failpoint,
    ) -> None:
        self._vault = vault
        self._registrations = registrations
        self._endpoint = endpoint
        self._changed = changed
        self._clock = clock
        self._failpoint = failpoint

    async def finish(self, flow: Flow, query: Mapping[str, str], *, hold: bool) -> Flow:
        """The claimed flow, moved on. `hold`: your application must confirm who sat at the browser."""
        try:
            provider = await self._registrations.provider(flow.key.provider)
            client = self._registrations.client(flow.key.provider)
            tokens, account = await self._tokens(flow, provider, client, query)
            await self._failpoint("flow.before_save")
            if hold:
                return await self._hold(flow, tokens, account)
            return await self._keep(flow, tokens, account)
        except AskAgain:
            moved = await self._vault.move_flow(
                flow.id,
                expect=FlowStatus.EXCHANGING,
                to=FlowStatus.PENDING,
                forced=1,
                reason="no_refresh_token",
                events=[self._event(flow, "flow.repeated", {"reason": "no_refresh_token"})],
            )
            return moved or await self._now(flow)
        except Ending as ending:
            return await self.fail(flow, ending.reason, status=ending.status)
        except (ProviderMisconfigured, ProviderUnavailable) as refusal:
            return await self.fail(flow, refusal.reason or refusal.code)

    async def confirm(self, flow: Flow, user: str) -> Flow:
        """Keeps what was held back, if `user` is whom the flow was made for. Raises UserMismatch."""
        held = await self._vault.held_tokens(flow.id) if flow.status is FlowStatus.CONFIRMING else None
        if user != flow.key.user:
            now = await self.fail(flow, "user_mismatch", expect=_UNENDED)
            if held is not None and now.status is not FlowStatus.COMPLETED:
                await self._give_back(flow, held.tokens, held.provider_account, user)
            raise UserMismatch("another user opened this link", reason="user_mismatch", user=user)
        if held is None:
            return flow
        try:
            return await self._keep(flow, held.tokens, held.provider_account)
        except Ending as ending:
            return await self.fail(flow, ending.reason, status=ending.status, expect=_UNENDED)

    async def fail(
        self,
        flow: Flow,
        reason: str,
        *,
        status: FlowStatus = FlowStatus.FAILED,
        expect: Collection[FlowStatus] = (FlowStatus.EXCHANGING,),
    ) -> Flow:
        """Ends the flow without a grant."""
        kind = "flow.denied" if status is FlowStatus.DENIED else "flow.failed"
        moved = await self._vault.move_flow(
            flow.id,
            expect=expect,
            to=status,
            reason=reason,
            events=[self._event(flow, kind, {"reason": reason})],
        )
        log.info(kind, provider=flow.key.provider, reason=reason)
        return moved or await self._now(flow)

    # --- from the callback to tokens

    async def _tokens(
        self, flow: Flow, provider: Provider, client: Client, query: Mapping[str, str]
    ) -> tuple[TokenSet, str | None]:
        if not check_issuer(provider, query.get("iss")):
            raise Ending("issuer_mismatch")
        if "error" in query:
            denial = read_denial(provider, query["error"], query.get("error_description", ""))
            refused = denial.verdict is Verdict.DEAD and denial.reason == "refused"
            raise Ending(denial.code, FlowStatus.DENIED if refused else FlowStatus.FAILED)
        code = query.get("code", "")
        if not code:
            raise Ending("code_missing")
        if client.client_id != flow.client_id:
            raise Ending("client_changed")
        request = code_request(
            provider,
            client,
            code=Secret(code),
            redirect_uri=flow.redirect_uri,  # the very string of the first leg (C02)
            verifier=await self._vault.flow_verifier(flow.id),
        )
        reply = await self._send(request)
        await self._failpoint("flow.after_response")
        answer = read_token_reply(
            provider,
            status=reply.status,
            content_type=reply.content_type,
            body=reply.body,
            retry_after=reply.retry_after,
            now=int(self._clock()),
            previous=None,
            requested=flow.scopes,
        )
        if isinstance(answer, TokenFailure):
            log.warning(
                "flow.code_refused",
                provider=provider.id,
                status=reply.status,
                code=answer.code,
                reason=answer.reason,
            )
            raise Ending(answer.reason)
        oidc = provider.facts.protocol == "oidc" and "openid" in asked_scopes(provider, flow.scopes)
        try:
            account = await account_of(
                self._endpoint,
                provider,
                client,
                tokens=answer,
                id_token=id_token_of(reply.body),
                nonce=flow.state_digest if oidc else None,
                now=self._clock(),
            )
        except IdentityRefused as refused:
            raise Ending(refused.reason) from None
        return answer, account

    async def _send(self, request: TokenRequest) -> Reply:
        for turn in range(TRIES):
            try:
                return await self._endpoint.send(request)
            except NeverSent as error:
                log.warning("flow.exchange_not_sent", reason=error.reason, turn=turn)
                if turn + 1 == TRIES:
                    raise Ending("provider_unreachable") from None
                await asyncio.sleep(0.2 * 2**turn)
            except MaybeSent as error:  # a code is good for one try
                log.warning("flow.exchange_unanswered", reason=error.reason)
                raise Ending("provider_silent") from None
        raise AssertionError("unreachable")

    # --- from tokens to a grant

    async def _hold(self, flow: Flow, tokens: TokenSet, account: str | None) -> Flow:
        self._same_account(await self._vault.find(flow.key), account)
        events = [self._event(flow, "flow.confirming", {})]
        try:
            if not await self._vault.hold_tokens(flow.id, tokens, provider_account=account, events=events):
                return await self._came_late(flow, tokens, account)
        except UserDisabled:
            return await self._turned_away(flow, tokens, account)
        return await self._now(flow)

    async def _keep(self, flow: Flow, tokens: TokenSet, account: str | None) -> Flow:
        existing = await self._vault.find(flow.key)
        self._same_account(existing, account)
        leased: Leased | None = None
        try:
            if not tokens.refresh_token and self._will_need_one(flow, tokens):
                leased, tokens = await self._with_stored(flow, existing, tokens, account)
            connection = await self._save(flow, tokens, account)
        except GrantChanged:  # the flow has ended meanwhile: superseded, expired, or confirmed by a twin
            return await self._came_late(flow, tokens, account)
        except UserDisabled:
            return await self._turned_away(flow, tokens, account)
        except (AskAgain, Ending):
            if (await self._now(flow)).reason != USER_DISABLED:
                raise
            return await self._turned_away(
                flow, tokens, account
            )  # what was to go with it has just been wiped
        finally:
            if leased is not None:
                await leased.release()
        self._changed(flow.key)
        log.info("connection.connected", connection=connection.id, provider=flow.key.provider)
        return await self._now(flow)

    def _same_account(self, existing: Connection | None, account: str | None) -> None:
        """A reconnect must not silently make the connection somebody else's (H10). What was just given is dropped,
        not revoked: many providers revoke by user and client, and that account may be rightly connected elsewhere."""
        if existing is None or existing.provider_account is None or existing.provider_account == account:
            return
        raise Ending("account_unknown" if account is None else "account_mismatch")

    def _will_need_one(self, flow: Flow, tokens: TokenSet) -> bool:
        """Whether a grant without a refresh token would look connected and be dead within the hour (B02)."""
        facts = self._registrations.resting(flow.key.provider).facts
        if facts.refresh_token.issued in NO_REFRESH_TOKENS:
            return False
        return tokens.expires_at is not None or facts.answer.expires_in == "never"

    async def _with_stored(
        self, flow: Flow, existing: Connection | None, tokens: TokenSet, account: str | None
    ) -> tuple[Leased, TokenSet]:
        """The new tokens with the stored refresh token, if that is certainly the same grant's; it is read under the
        lease, which is kept until the grant is saved, so that no refresh spends it in between. Else asks once more."""
        usable = (
            existing is not None
            and existing.state in (State.ACTIVE, State.MISCONFIGURED)
            and existing.refreshable
            and existing.client_id == flow.client_id
            and account is not None
            and existing.provider_account == account
        )
        if usable and existing is not None:
            for _ in range(50):
                leased = await self._vault.lease(
                    existing.id, holder=f"flow:{secrets.token_hex(6)}", seconds=LEASE
                )
                if leased is None:
                    await asyncio.sleep(0.1)
                    continue
                stored = await leased.tokens()
                return leased, dataclasses.replace(tokens, refresh_token=stored.refresh_token)
        if flow.forced:
            raise Ending("no_refresh_token")
        raise AskAgain

    async def _save(self, flow: Flow, tokens: TokenSet, account: str | None) -> Connection:
        now = int(self._clock())
        grant = NewGrant(
            key=flow.key,
            client_id=flow.client_id,
            grant_id=f"grant_{secrets.token_hex(12)}",
            tokens=tokens,
            requested_scopes=flow.scopes,
            provider_account=account,
            at=now,
        )
        known = self._registrations.resting(flow.key.provider)
        lacking = known.lacking(tokens.scopes, flow.scopes)
        data: dict[str, Any] = {"scopes": list(tokens.scopes), "refreshable": bool(tokens.refresh_token)}
        if lacking:  # the user left some boxes empty: connected all the same, and said so (B17)
            data["scopes_lacking"] = list(lacking)
        events = [
            self._event(flow, "flow.completed", {}),
            self._event(flow, "connection.connected", data),
        ]
        for turn in range(TRIES):
            try:
                return await self._vault.keep_grant(grant, events, completes=flow.id)
            except StoreUnavailable:
                log.error("flow.save_failed", provider=flow.key.provider, turn=turn)
                if turn + 1 == TRIES:
                    raise
                await asyncio.sleep(0.25 * 2**turn)
        raise AssertionError("unreachable")

    async def _came_late(self, flow: Flow, tokens: TokenSet, account: str | None) -> Flow:
        now = await self._now(flow)
        if (
            now.reason == USER_DISABLED
        ):  # and enabled again since: what was begun before has ended all the same
            return await self._turned_away(flow, tokens, account)
        if now.status is not FlowStatus.COMPLETED:
            await self._give_back(flow, tokens, account)
        return now

    async def _turned_away(self, flow: Flow, tokens: TokenSet, account: str | None) -> Flow:
        """The user was disabled meanwhile: what was given is owed back until the provider has taken it (I10), but not
        beside a connection that may be the same account's."""
        now = int(self._clock())
        for turn in range(TRIES):
            try:
                if await self._vault.is_connected(flow.key, flow.client_id, account):
                    log.info("flow.tokens_dropped", provider=flow.key.provider, reason="connected_elsewhere")
                else:
                    await self._vault.owe_given(flow, tokens, now)
                break
            except StoreUnavailable:
                log.error("flow.tokens_not_owed", provider=flow.key.provider, turn=turn)
                if turn + 1 == TRIES:
                    raise
                await asyncio.sleep(0.25 * 2**turn)
        return await self.fail(flow, USER_DISABLED, expect=_UNENDED)

    async def _give_back(
        self, flow: Flow, tokens: TokenSet, account: str | None, user: str | None = None
    ) -> None:
        """Revokes what nobody will keep; but not beside a connection that may be the same account's (`user` is who
        sat at the browser): many providers revoke by user and client, and it would end with them."""
        try:
            if await self._vault.is_connected(flow.key, flow.client_id, account, user):
                log.info("flow.tokens_dropped", provider=flow.key.provider, reason="connected_elsewhere")
                return
            provider = await self._registrations.provider(flow.key.provider)
            client = self._registrations.client(flow.key.provider)
        except (ProviderMisconfigured, ProviderUnavailable) as refusal:
            log.warning("revocation.failed", provider=flow.key.provider, reason=refusal.code)
            return
        await revoke(self._endpoint, provider, client, tokens)

    async def _now(self, flow: Flow) -> Flow:
        return await self._vault.flow(flow.id) or flow

    def _event(self, flow: Flow, kind: str, data: Mapping[str, Any]) -> Event:
        return event_of(flow, kind, int(self._clock()), data)


_UNENDED = tuple(status for status in FlowStatus if not status.ended)


def event_of(flow: Flow, kind: str, at: int, data: Mapping[str, Any]) -> Event:
    """An event of this flow. Its id is cut: whoever has the whole of it has the link."""
    key = flow.key
    return Event(
        kind=kind,
        at=at,
        tenant=key.tenant,
        user=key.user,
        provider=key.provider,
        account=key.account,
        agent=flow.agent,
        data={"flow": flow.id[:13], **data},
    )
