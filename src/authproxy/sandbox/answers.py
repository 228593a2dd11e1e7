"""Builds what the token endpoint says: tokens in the form that dialect and switches ask for, errors, and the
answers that stand in for both."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from authproxy.sandbox.dialect import Context, Said, number_of
from authproxy.sandbox.grants import Issued
from authproxy.sandbox.stage import NO_STORE, Place, Stage
from authproxy.sandbox.switches import Switches

HTML = b"<!DOCTYPE html><html><head><title>502 Bad Gateway</title></head><body><h1>Bad Gateway</h1></body></html>"


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer before it is sent."""

    status: int
    body: bytes
    content_type: str
    headers: Mapping[str, str]


def tokens(stage: Stage, place: Place, issued: list[Issued], *, form: bool) -> Answer:
    """The success of a token call."""
    members = _shaped(stage, place, issued[0])
    for more in issued[1:]:  # the second credential of one consent: Slack's user token
        members["authed_user"] = _shaped(stage, place, more)["authed_user"]
    members |= stage.switches.extra
    return _said(200, members, {}, form=form)


def refusal(said: Said, *, form: bool, in_200: bool, headers: Mapping[str, str]) -> Answer:
    """An error in the dialect's words."""
    return _said(200 if in_200 else said.status, said.body, {**said.headers, **headers}, form=form)


def replaced(faults: Switches) -> bool:
    """Whether the true answer is to be replaced by `stand_in`."""
    return bool(
        faults.status is not None
        or faults.error is not None
        or faults.html
        or faults.empty
        or faults.body is not None
    )


def stand_in(faults: Switches, place: Place, *, form: bool) -> Answer:
    """The answer that the switches put in place of the true one."""
    headers = dict(faults.headers)
    if faults.retry_after is not None:
        headers["Retry-After"] = faults.retry_after
    if faults.html:
        return Answer(faults.status or 502, HTML, faults.content_type or "text/html; charset=utf-8", headers)
    if faults.empty:
        return Answer(faults.status or 200, b"", faults.content_type or "application/json", headers)
    if faults.body is not None:
        status = faults.status or 200
        return Answer(status, faults.body.encode(), faults.content_type or "application/json", headers)
    said = place.dialect.error(faults.error or _usual(faults.status or 400))
    status = 200 if faults.error_in_200 else faults.status or said.status
    return _said(status, said.body, {**said.headers, **headers}, form=form)


def _usual(status: int) -> str:
    """What a server that answers `status` for no reason of the client's would say."""
    known = {429: "rate_limited", 500: "server_error", 401: "invalid_client", 400: "invalid_request"}
    return known.get(status, "temporarily_unavailable" if status >= 500 else "invalid_request")


def _said(status: int, body: Any, headers: Mapping[str, str], *, form: bool) -> Answer:
    if form and isinstance(body, Mapping):
        flat = {key: value if isinstance(value, str) else json.dumps(value) for key, value in body.items()}
        encoded = urlencode(flat).encode()
        return Answer(
            status, encoded, "application/x-www-form-urlencoded; charset=utf-8", {**NO_STORE, **headers}
        )
    return Answer(status, json.dumps(body).encode(), "application/json", {**NO_STORE, **headers})


def _shaped(stage: Stage, place: Place, issued: Issued) -> dict[str, Any]:
    grant, switches, dialect, now = issued.grant, stage.switches, place.dialect, stage.clock()
    members: dict[str, Any] = {"access_token": issued.access.token}
    if switches.token_type is not None:
        members["token_type"] = switches.token_type
    lifetime = stage.grants.remaining(issued.access) if dialect.tells_expiry else None
    members |= _expires_in(switches, lifetime)
    members |= _refresh_token(switches, issued)
    left = dialect.tells_refresh_expiry or stage.grants.refresh_remaining(grant)
    if dialect.tells_refresh_expiry is not None and left is not None and grant.refreshable:
        members["refresh_token_expires_in"] = left
    members |= _scope(switches, issued.access.scopes, dialect.granted_separator)
    if "openid" in issued.access.scopes:
        claims: dict[str, Any] = identity(grant.user) | {
            "iss": stage.issuer(place),
            "aud": grant.client_id,
            "iat": int(now),
            "exp": int(now) + 3600,
        }
        if issued.nonce is not None:
            claims["nonce"] = issued.nonce
        members["id_token"] = stage.keys.id_token(claims, issued.access.token)
    context = Context(grant.user, grant.client_id, grant.kind, issued.at_consent, stage.issuer(place), now)
    return dialect.shape(members, context)


def _refresh_token(switches: Switches, issued: Issued) -> dict[str, Any]:
    if issued.refresh is not None:
        return {"refresh_token": issued.refresh.token}
    odd = {"null": None, "empty": "", "blank": "  "}
    if issued.at_consent or switches.omit_refresh_token or switches.refresh_token_value not in odd:
        return {}
    return {"refresh_token": odd[switches.refresh_token_value]}


def _expires_in(switches: Switches, lifetime: int | None) -> dict[str, Any]:
    fixed: dict[str, Any] = {
        "zero": 0,
        "negative": -1,
        "huge": 10**12,
        "null": None,
        "true": True,
        "empty": "",
        "word": "never",
    }
    if switches.expires_in in fixed:
        return {"expires_in": fixed[switches.expires_in]}
    if lifetime is None or switches.expires_in == "missing":
        return {}
    forms: dict[str, Any] = {
        "normal": lifetime,
        "string": str(lifetime),
        "string_float": f"{lifetime}.5",
        "float": lifetime + 0.5,
    }
    return {"expires_in": forms[switches.expires_in]}


def _scope(switches: Switches, scopes: tuple[str, ...], separator: str) -> dict[str, Any]:
    match switches.scope_echo:
        case "absent":
            return {}
        case "array":
            return {"scope": list(scopes)}
        case "comma":
            return {"scope": ",".join(scopes)}
        case "reordered":
            return {"scope": separator.join(reversed(scopes))}
        case "superset":
            return {"scope": separator.join((*scopes, "sandbox_extra"))}
        case "normal":
            return {"scope": separator.join(scopes)}


def identity(user: str) -> dict[str, Any]:
    """The claims that the sandbox makes up for a user."""
    email = user if "@" in user else f"{user}@sandbox.example"
    return {
        "sub": f"sandbox|{user}",
        "id": number_of(user),
        "login": user,
        "name": user,
        "preferred_username": user,
        "email": email,
        "email_verified": True,
    }
