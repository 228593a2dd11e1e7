"""The authorization server's back desk: token, revocation, introspection, userinfo, metadata."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import math
from typing import Any

from aiohttp import web

from authproxy.sandbox import answers
from authproxy.sandbox.credentials import authenticate, read_form
from authproxy.sandbox.grants import Code, GrantRefused, Issued, Refresh, digest_of
from authproxy.sandbox.ledger import TokenCall
from authproxy.sandbox.settings import Registration
from authproxy.sandbox.stage import Place, Stage, json_answer, reset
from authproxy.sandbox.switches import Switches

Form = dict[str, str]
_VERDICT = {"invalid_code": "invalid_grant", "redirect_mismatch": "invalid_grant"}


class Provider:
    """Handlers, each told the place it stands at."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage

    # Token endpoint

    async def token(self, place: Place, request: web.Request) -> web.StreamResponse:
        """POST /token."""
        stage = self._stage
        call = stage.ledger.open_token_call(stage.clock(), place.dialect.name, lambda: _connected(request))
        try:
            return await self._token(place, request, call)
        finally:
            stage.ledger.close_token_call(call, stage.clock())

    async def _token(self, place: Place, request: web.Request, call: TokenCall) -> web.StreamResponse:
        stage = self._stage
        unread: GrantRefused | None = None
        form: Form = {}
        try:
            form = await read_form(request)
        except GrantRefused as refused:
            unread = refused
        user = self._announce(form, call)
        stage.ledger.announce()
        meant = {
            "all": True,
            "refresh": call.grant_type == "refresh_token",
            "code": call.grant_type != "refresh_token",
        }
        faults = stage.faults("token", "next_calls", user=user, meant=meant[stage.switches.faults_for])
        if faults.drop == "before":
            call.why = "dropped"
            return reset(request)
        await stage.pause(faults.delay_s)
        await stage.before.wait()
        in_form = stage.switches.form_encoded or (
            place.dialect.form_unless_json and "json" not in request.headers.get("Accept", "")
        )
        stands_in = answers.replaced(faults)
        answer = None
        if faults.work_first or faults.drop == "after" or not stands_in:
            answer = self._work(place, request, form, unread, call, faults, in_form)
            await stage.pause(faults.delay_after_s)
            await stage.after.wait()
            if faults.drop == "after":
                call.why = call.why or "dropped"
                return reset(request)
        if stands_in or answer is None:
            answer = answers.stand_in(faults, place, form=in_form)
            if call.outcome == "none" and faults.error is not None:
                call.outcome = faults.error
            call.why = call.why or "switched"
        call.status = answer.status
        delivered = await self._deliver(request, answer, faults)
        if delivered is None:
            return reset(request)
        # What was put in place of the verdict is no verdict, unless it is an error code of its own.
        call.delivered = not stands_in or (faults.error is not None and call.outcome == faults.error)
        return delivered

    def _announce(self, form: Form, call: TokenCall) -> str | None:
        """Writes down what the call presents; the user, where its token or code is known."""
        grants = self._stage.grants
        call.grant_type = form.get("grant_type", "")[:64]
        call.client_id = form.get("client_id", "")[:128]
        if call.grant_type == "refresh_token" and form.get("refresh_token"):
            self._stage.ledger.present(call, digest_of(form["refresh_token"]))
            known = grants.find_refresh(form["refresh_token"])
            if known is not None:
                call.grant, call.user = known.grant.id, known.grant.user
        elif call.grant_type == "authorization_code" and form.get("code"):
            call.digest = digest_of(form["code"])
            code = grants.find_code(form["code"])
            call.user = code.user if code is not None else None
        return call.user

    def _work(
        self,
        place: Place,
        request: web.Request,
        form: Form,
        unread: GrantRefused | None,
        call: TokenCall,
        faults: Switches,
        in_form: bool,
    ) -> answers.Answer:
        stage, dialect = self._stage, place.dialect
        try:
            if unread is not None:
                raise unread
            issued = self._grant(place, request, form, call)
        except GrantRefused as refused:
            call.outcome, call.why = _VERDICT.get(refused.code, refused.code), refused.why
            if refused.code == "invalid_client" and stage.switches.spend_on_refusal:
                self._spend(place, form)
            headers = self._headers(refused, request, faults)
            return answers.refusal(
                dialect.error(refused.code), form=in_form, in_200=faults.error_in_200, headers=headers
            )
        first = issued[0]
        call.outcome, call.grant, call.user = "success", first.grant.id, first.grant.user
        call.access_digest = digest_of(first.access.token)
        call.refresh_digest = digest_of(first.refresh.token) if first.refresh is not None else None
        presented = stage.grants.find_refresh(form.get("refresh_token", ""))
        call.spent = presented is not None and presented.spent_at is not None
        return answers.tokens(stage, place, issued, form=in_form)

    def _headers(self, refused: GrantRefused, request: web.Request, faults: Switches) -> dict[str, str]:
        if refused.code == "invalid_client" and "Authorization" in request.headers:
            return {"WWW-Authenticate": 'Basic realm="sandbox"'}
        if refused.code == "rate_limited":
            wait = str(math.ceil(self._stage.switches.min_interval_s))
            return {"Retry-After": faults.retry_after if faults.retry_after is not None else wait}
        return {}

    def _grant(self, place: Place, request: web.Request, form: Form, call: TokenCall) -> list[Issued]:
        client, call.auth = authenticate(self._stage, request, form)
        call.client_id = client.client_id
        if call.grant_type == "authorization_code":
            return self._exchange(place, client, form)
        if call.grant_type == "refresh_token":
            return [self._renew(place, client, form, call)]
        raise GrantRefused("unsupported_grant_type" if call.grant_type else "invalid_request", "grant_type")

    def _exchange(self, place: Place, client: Registration, form: Form) -> list[Issued]:
        grants = self._stage.grants
        code = grants.find_code(form.get("code", ""))
        if code is None or code.client_id != client.client_id or code.dialect != place.dialect.name:
            raise GrantRefused("invalid_code", "unknown_code")
        if form.get("redirect_uri", "") != code.redirect_uri:
            raise GrantRefused("redirect_mismatch", "redirect_uri")
        if "code_verifier" in form and (self._stage.switches.pkce or place.dialect.pkce) == "refused":
            raise GrantRefused("pkce_not_allowed", "pkce")
        if not _proves(code, form.get("code_verifier")):
            raise GrantRefused("invalid_code", "code_verifier")
        return grants.redeem(code, place.dialect)

    def _renew(self, place: Place, client: Registration, form: Form, call: TokenCall) -> Issued:
        stage = self._stage
        token = form.get("refresh_token", "")
        if not token:
            raise GrantRefused("invalid_request", "no_refresh_token")
        known = stage.grants.find_refresh(token)
        if known is None or known.grant.dialect != place.dialect.name:
            raise GrantRefused("invalid_grant", "unknown_refresh_token")
        if known.grant.client_id != client.client_id:
            raise GrantRefused("invalid_grant", "another_client")
        if place.dialect.refuse_parallel and call.overlaps is not None:
            raise GrantRefused("in_progress", "parallel_refresh")
        asked = form.get("scope")
        if asked is not None and stage.switches.reject_scope_at_refresh:
            raise GrantRefused("invalid_scope", "scope_at_refresh")
        if asked and not set(asked.replace(",", " ").split()) <= set(known.grant.scopes):
            raise GrantRefused("invalid_scope", "wider_than_granted")
        return stage.grants.renew(known, place.dialect)

    def _spend(self, place: Place, form: Form) -> None:
        known: Refresh | None = self._stage.grants.find_refresh(form.get("refresh_token", ""))
        if known is not None:
            self._stage.grants.spend(known, place.dialect)

    async def _deliver(
        self, request: web.Request, answer: answers.Answer, faults: Switches
    ) -> web.StreamResponse | None:
        """Sends the answer, in drips where asked; None if it did not leave whole."""
        body = b"" if answer.status in (204, 304) else answer.body
        response = web.StreamResponse(status=answer.status, headers=answer.headers)
        response.headers["Content-Type"] = answer.content_type
        response.content_length = len(body)
        end = len(body) // 2 if faults.drop == "midway" else len(body)
        step = faults.drip_bytes or end or 1
        try:
            await response.prepare(request)
            for start in range(0, end, step):
                if start:
                    await self._stage.pause(faults.drip_interval_s)
                if self._stage.closing.is_set():
                    return None
                await response.write(body[start : min(start + step, end)])
            if faults.drop == "midway":
                return None
            await response.write_eof()
        except ConnectionError:
            return None
        return response if _connected(request) else None

    # The rest

    async def revoke(self, place: Place, request: web.Request) -> web.StreamResponse:
        """POST /revoke (RFC 7009), or as the dialect has it. An unknown token is no error."""
        stage, ways = self._stage, place.dialect.revocation
        try:
            token, client = await self._doomed(place, request)
        except GrantRefused as refused:
            return self._refuse(place, refused)
        stage.ledger.totals["revocations"] += 1
        refresh, access = stage.grants.find_refresh(token), stage.grants.find_access(token)
        found = refresh or access
        if found is not None and (client is None or found.grant.client_id == client.client_id):
            if refresh is not None or ways != "client":
                stage.grants.revoke(found.grant, "revoked_by_client")
            elif access is not None:
                access.dead = True
        if ways == "basic_json":
            return web.Response(status=204)
        return json_answer(place.dialect.api_answer({"revoked": True} if ways == "bearer" else {}))

    async def _doomed(self, place: Place, request: web.Request) -> tuple[str, Registration | None]:
        """The token to revoke, and the client that asks, where the dialect wants to know."""
        stage, ways = self._stage, place.dialect.revocation
        if ways == "bearer":
            token, _ = stage.bearer(request)
            if token is None:
                raise GrantRefused("invalid_request", "no_token")
            return token, None
        client = None
        if ways == "basic_json":
            client, _ = authenticate(stage, request, {})
            try:
                form = json.loads(await request.text())
            except ValueError as broken:
                raise GrantRefused("invalid_request", "not_json") from broken
        else:
            form = await read_form(request)
            if ways == "client":
                client, _ = authenticate(stage, request, form)
        token = (
            form.get("access_token" if ways == "basic_json" else "token") if isinstance(form, dict) else None
        )
        if not isinstance(token, str) or not token:
            raise GrantRefused("invalid_request", "no_token")
        return token, client

    async def introspect(self, place: Place, request: web.Request) -> web.StreamResponse:
        """POST /introspect (RFC 7662), for clients that can authenticate."""
        stage = self._stage
        try:
            form = await read_form(request)
            client, method = authenticate(stage, request, form)
            if method == "none":
                raise GrantRefused("invalid_client", "public_client")
        except GrantRefused as refused:
            return self._refuse(place, refused)
        access = stage.grants.find_access(form.get("token", ""))
        refresh = stage.grants.find_refresh(form.get("token", ""))
        told: dict[str, Any] = {"active": False}
        if (
            access is not None
            and access.grant.client_id == client.client_id
            and stage.grants.fault_of(access) is None
        ):
            told = {"active": True, "token_type": "Bearer", "scope": " ".join(access.scopes)}
            if access.ends is not None:
                told["exp"] = int(access.ends)
            grant = access.grant
        elif (
            refresh is not None
            and refresh.grant.client_id == client.client_id
            and stage.grants.refresh_live(refresh)
        ):
            grant = refresh.grant
            told = {"active": True, "token_type": "refresh_token", "scope": " ".join(grant.scopes)}
            if grant.ends is not None:
                told["exp"] = int(grant.ends)
        else:
            return json_answer(told)
        told |= {"client_id": grant.client_id, "username": grant.user, "iat": int(grant.made_at)}
        return json_answer(told | {"sub": answers.identity(grant.user)["sub"], "iss": stage.issuer(place)})

    async def userinfo(self, place: Place, request: web.Request) -> web.StreamResponse:
        """GET or POST /userinfo."""
        stage = self._stage
        if stage.switches.userinfo_status is not None:
            return json_answer({"error": "switched"}, stage.switches.userinfo_status)
        token, access = stage.bearer(request)
        fault = "missing" if token is None else "invalid"
        if access is not None:
            fault = stage.grants.fault_of(access) or ""
        if access is None or fault:
            said = place.dialect.api_error(fault)
            return json_answer(said.body, said.status, said.headers)
        return json_answer(place.dialect.api_answer(answers.identity(access.grant.user)))

    async def jwks(self, _place: Place, _request: web.Request) -> web.StreamResponse:
        """GET /jwks."""
        return json_answer(self._stage.keys.jwks())

    async def metadata(self, place: Place, _request: web.Request) -> web.StreamResponse:
        """GET the discovery document (OpenID Connect Discovery, RFC 8414)."""
        issuer = self._stage.issuer(place)
        secret = ["client_secret_basic", "client_secret_post"]
        return json_answer(
            {
                "issuer": issuer,
                "authorization_endpoint": f"{issuer}/authorize",
                "token_endpoint": f"{issuer}/token",
                "revocation_endpoint": f"{issuer}/revoke",
                "introspection_endpoint": f"{issuer}/introspect",
                "userinfo_endpoint": f"{issuer}/userinfo",
                "jwks_uri": f"{issuer}/jwks",
                "response_types_supported": ["code"],
                "response_modes_supported": ["query"],
                "grant_types_supported": ["authorization_code", "refresh_token"],
                "code_challenge_methods_supported": ["S256"],
                "token_endpoint_auth_methods_supported": [*secret, "none"],
                "revocation_endpoint_auth_methods_supported": [*secret, "none"],
                "introspection_endpoint_auth_methods_supported": secret,
                "authorization_response_iss_parameter_supported": self._stage.switches.iss != "missing",
                "scopes_supported": list(self._stage.settings.scopes),
                "subject_types_supported": ["public"],
                "id_token_signing_alg_values_supported": ["ES256"],
                "claims_supported": ["sub", "name", "preferred_username", "email", "email_verified"],
            }
        )

    def _refuse(self, place: Place, refused: GrantRefused) -> web.Response:
        said = place.dialect.error(refused.code)
        return json_answer(said.body, said.status, said.headers)


def _connected(request: web.Request) -> bool:
    return request.transport is not None and not request.transport.is_closing()


def _proves(code: Code, verifier: str | None) -> bool:
    """PKCE (RFC 7636 section 4.6). A verifier without a challenge is refused, as a downgrade would show it."""
    if code.challenge is None or verifier is None:
        return code.challenge is None and verifier is None
    if not 43 <= len(verifier) <= 128 or not verifier.isascii():
        return False
    made = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
    return hmac.compare_digest(made, code.challenge)
