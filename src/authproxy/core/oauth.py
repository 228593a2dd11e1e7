"""OAuth 2.0 without a network: builds every request, and offers the readers of answers beside it (on authlib)."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from authlib.common.urls import add_params_to_qs, extract_params  # type: ignore[import-untyped]  # authlib ships no types

from authproxy.core.answers import ApiSign, peeks, read_api_answer
from authproxy.core.client_auth import Client, attach
from authproxy.core.errors import ProviderMisconfigured
from authproxy.core.providers import LOOPBACK, Provider, revocation_of
from authproxy.core.replies import read_denial, read_token_reply
from authproxy.core.secret import Secret
from authproxy.core.verdicts import TokenFailure, Verdict

__all__ = [
    "ApiSign",
    "TokenFailure",
    "TokenRequest",
    "Verdict",
    "asked_scopes",
    "authorization_url",
    "check_issuer",
    "code_request",
    "instance_upstream",
    "peeks",
    "probe_request",
    "provider_account",
    "read_api_answer",
    "read_denial",
    "read_token_reply",
    "refresh_request",
    "revocation_request",
]


class TokenRequest(NamedTuple):
    """A request to the authorization server. Headers and body hold secrets, so it shows only where it goes."""

    url: str
    headers: Mapping[str, str]
    body: bytes
    method: str = "POST"

    def __repr__(self) -> str:
        return f"TokenRequest({self.method} {urlsplit(self.url).hostname})"


def asked_scopes(provider: Provider, scopes: Sequence[str]) -> tuple[str, ...]:
    """What a consent asks for: the given scopes, those always asked for, and one that brings a refresh token."""
    asked = dict.fromkeys((*provider.scopes, *scopes))
    offline = provider.offline_scopes
    if offline and not any(scope in asked for scope in offline):
        asked[offline[0]] = None
    return tuple(asked)


def authorization_url(
    provider: Provider,
    client: Client,
    *,
    redirect_uri: str,
    scopes: Sequence[str],
    state: Secret,
    verifier: Secret | None,
    login_hint: str | None = None,
    force_consent: bool = False,
    nonce: str | None = None,
) -> str:
    """Where the browser goes. `verifier` is used unless the provider fails on PKCE; raises ProviderMisconfigured."""
    rules = provider.facts.authorization
    asked = asked_scopes(provider, scopes)
    params: dict[str, str] = {**rules.params, **provider.offline_params}
    if force_consent:
        params |= rules.consent_params
    params |= provider.authorize_params
    if asked:
        params[rules.scope_param] = rules.scope_separator.join(asked)
    if provider.pkce and verifier is not None:
        from authlib.oauth2.rfc7636 import create_s256_code_challenge  # type: ignore[import-untyped]

        params["code_challenge"] = create_s256_code_challenge(verifier.reveal())
        params["code_challenge_method"] = "S256"
    if login_hint and rules.login_hint_param:
        params[rules.login_hint_param] = login_hint
    if nonce and provider.facts.protocol == "oidc" and "openid" in asked:
        params["nonce"] = nonce
    url: str = _parameters().prepare_grant_uri(
        _endpoint(provider, "authorization"),
        client.client_id,
        "code",
        redirect_uri=redirect_uri,
        scope=params.pop("scope", None),
        state=state.reveal(),
        **params,
    )
    return url


def _parameters() -> Any:
    """What authlib makes the parameters of requests with. Forty modules come with it, so it is loaded when the first
    request to a provider is made."""
    from authlib.oauth2.rfc6749 import parameters  # type: ignore[import-untyped]

    return parameters


def code_request(
    provider: Provider, client: Client, *, code: Secret, redirect_uri: str, verifier: Secret | None
) -> TokenRequest:
    """The exchange of an authorization code. `redirect_uri` must be the very string of the first leg."""
    params = dict(provider.facts.authorization.code_params)
    if provider.pkce and verifier is not None:
        params["code_verifier"] = verifier.reveal()
    form = _parameters().prepare_token_request(
        "authorization_code", redirect_uri=redirect_uri, code=code.reveal(), **params
    )
    return _token_request(provider, client, _endpoint(provider, "token"), form)


def refresh_request(
    provider: Provider,
    client: Client,
    *,
    refresh_token: Secret,
    scopes: Sequence[str] = (),
    redirect_uri: str | None = None,
) -> TokenRequest:
    """A refresh. Scopes, redirect URI and resource are repeated only where the provider wants them (B18)."""
    return _refresh(provider, client, refresh_token.reveal(), scopes, redirect_uri)


def probe_request(provider: Provider, client: Client, *, made_up: str) -> TokenRequest:
    """A refresh with a token that nobody ever issued: the refusal tells a wrong client from an unknown token, and
    nothing is spent. A stored token is a Secret, and no text that could be passed here (A31)."""
    return _refresh(provider, client, made_up, (), None)


def _refresh(
    provider: Provider, client: Client, refresh_token: str, scopes: Sequence[str], redirect_uri: str | None
) -> TokenRequest:
    rules = provider.facts.authorization
    repeated = {
        "scope": rules.scope_separator.join(scopes),
        "redirect_uri": redirect_uri or "",
        "resource": provider.authorize_params.get("resource", ""),
    }
    params = {**rules.refresh_params, **{name: repeated[name] for name in rules.refresh_repeats}}
    form = _parameters().prepare_token_request("refresh_token", refresh_token=refresh_token, **params)
    return _token_request(provider, client, provider.endpoints.refresh or _endpoint(provider, "token"), form)


def revocation_request(
    provider: Provider, client: Client, *, token: Secret, hint: str
) -> TokenRequest | None:
    """Gives a token back. None where the provider takes none, or none of this kind (`hint`)."""
    rules = revocation_of(provider)
    if rules is None or hint not in rules.takes:
        return None
    url = rules.url.replace("{client_id}", client.client_id)
    headers = {"Accept": "application/json"}
    form = ""
    if rules.format != "none":
        params = [(rules.param, token.reveal()), *([("token_type_hint", hint)] if rules.hint else [])]
        form = add_params_to_qs("", params)
    if rules.auth == "bearer":
        headers["Authorization"] = f"Bearer {token.reveal()}"
    elif rules.auth != "none":
        method = {"client": client.auth or provider.client_auth, "basic": "client_secret_basic"}.get(
            rules.auth, "none"
        )
        encoding = provider.facts.client_auth.basic_auth_encoding
        form = attach(client, method, headers, form, encoding=encoding)
    return _request(url, headers, form, rules.format == "json", rules.method)


def _token_request(provider: Provider, client: Client, url: str, form: str) -> TokenRequest:
    facts = provider.facts.client_auth
    # GitHub answers in form encoding unless JSON is asked for
    headers = {"Accept": "application/json", **facts.headers}
    method = client.auth or provider.client_auth
    form = attach(client, method, headers, form, encoding=facts.basic_auth_encoding)
    return _request(url, headers, form, facts.request_format == "json")


def _request(
    url: str, headers: dict[str, str], form: str, as_json: bool, method: str = "POST"
) -> TokenRequest:
    if as_json:
        headers["Content-Type"] = "application/json"
        return TokenRequest(url, headers, json.dumps(dict(extract_params(form) or ())).encode(), method)
    if form:
        headers["Content-Type"] = "application/x-www-form-urlencoded"
    return TokenRequest(url, headers, form.encode("ascii"), method)


def _endpoint(provider: Provider, name: str) -> str:
    url: str | None = getattr(provider.endpoints, name)
    if url is None:
        raise ProviderMisconfigured(
            f"{provider.id} has no {name} endpoint", provider=provider.id, reason=f"{name}_endpoint_missing"
        )
    return url


def check_issuer(provider: Provider, iss: str | None) -> bool:
    """RFC 9207: whether a callback may be this provider's, by the `iss` that it carries. A wrong one is refused
    even where the provider does not promise to send any (H07)."""
    if iss is None:
        return not provider.iss_required
    return provider.issuer is None or iss == provider.issuer


def provider_account(
    provider: Provider, fields: Mapping[str, Any], userinfo: Mapping[str, Any] | None
) -> str | None:
    """The provider's own id of the account behind a grant, to compare at a reconnect (H10). `fields` are the kept
    fields of the token answer (`TokenSet.extra`); `userinfo` is asked where they do not say."""
    account = provider.facts.account
    return _joined(fields, account.answer) or _joined(userinfo or {}, account.userinfo or ("sub",))


def _joined(fields: Mapping[str, Any], paths: Sequence[str]) -> str | None:
    parts = [_identifier(_found(fields, path)) for path in paths]
    known = [part for part in parts if part is not None]
    return "/".join(known) if known and len(known) == len(parts) else None


def _found(fields: Mapping[str, Any], path: str) -> Any:
    if path in fields:
        return fields[path]
    value: Any = fields
    for key in path.split("."):
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _identifier(value: Any) -> str | None:
    if isinstance(value, bool) or not isinstance(value, str | int):
        return None
    text = str(value)
    if text.startswith("https://"):  # Salesforce: the id is the end of a URL whose host may change
        text = "/".join(text.rstrip("/").split("/")[-2:])
    return text if re.fullmatch(r"[ -~]{1,255}", text) else None


def instance_upstream(provider: Provider, extra: Mapping[str, str]) -> str | None:
    """The origin that this grant's calls go to, where the provider names one per grant; None where it does not,
    or where it names a host that is not the provider's (B23, G22)."""
    named = extra.get(provider.upstream_from or "")
    if named is None or not re.fullmatch(r"[!-~]{1,512}", named):
        return None
    try:
        parts = urlsplit(named)
        port = parts.port
    except ValueError:
        return None
    host = parts.hostname or ""
    if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
        return None
    if parts.scheme == "http":
        return named.rstrip("/") if _rehearsed(provider, host) and parts.path in ("", "/") else None
    if parts.scheme != "https" or port not in (None, 443) or parts.path not in ("", "/"):
        return None
    return f"https://{host}" if _own_host(provider, host) else None


def _own_host(provider: Provider, host: str) -> bool:
    if not re.fullmatch(r"[a-z0-9-]+(?:\.[a-z0-9-]+)+", host):
        return False
    return host in provider.api_hosts or any(host.endswith(p[1:]) for p in provider.host_patterns)


def _rehearsed(provider: Provider, host: str) -> bool:
    """A sandbox on this very machine plays the provider, and names itself as the instance."""
    token = urlsplit(provider.endpoints.token or "")
    return host in LOOPBACK and token.scheme == "http" and token.hostname in LOOPBACK
