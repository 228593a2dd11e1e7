"""Who calls the token endpoint: reads the form and the client's authentication."""

from __future__ import annotations

import base64
import binascii
import hmac
from urllib.parse import parse_qsl, unquote_plus

from aiohttp import web

from authproxy.sandbox.grants import GrantRefused
from authproxy.sandbox.settings import Registration
from authproxy.sandbox.stage import Stage

MAX_FORM = 64 * 1024
_METHOD = {"basic": "client_secret_basic", "post": "client_secret_post"}


async def read_form(request: web.Request) -> dict[str, str]:
    """The body's parameters; a repeated one is refused (RFC 6749 section 3.2)."""
    if request.content_type != "application/x-www-form-urlencoded":
        raise GrantRefused("invalid_request", "not_a_form")
    body = await request.content.read(MAX_FORM + 1)
    while len(body) <= MAX_FORM and (more := await request.content.read(MAX_FORM)):
        body += more
    if len(body) > MAX_FORM:
        raise GrantRefused("invalid_request", "too_large")
    try:
        pairs = parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=50)
    except ValueError as broken:
        raise GrantRefused("invalid_request", "unreadable_form") from broken
    form = dict(pairs)
    if len(form) != len(pairs):
        raise GrantRefused("invalid_request", "repeated_parameter")
    return form


def authenticate(stage: Stage, request: web.Request, form: dict[str, str]) -> tuple[Registration, str]:
    """The client and the method it used. Raises GrantRefused."""
    offered = request.headers.get("Authorization")
    candidates: list[tuple[str, str]]
    if offered is not None:
        if "client_secret" in form:
            raise GrantRefused("invalid_request", "two_authentications")
        method, candidates = "basic", _basic(offered, stage.switches.basic_decoding)
    else:
        method = "post" if form.get("client_secret") else "none"
        candidates = [(form.get("client_id", ""), form.get("client_secret", ""))]
    if stage.switches.invalid_client:
        raise GrantRefused("invalid_client", "switched")
    for client_id, secret in candidates:
        client = stage.clients.get(client_id)
        if client is None or form.get("client_id", client_id) != client_id:
            continue
        if _METHOD.get(method, "none") not in _taken(stage, client):
            raise GrantRefused("invalid_client", f"method_{method}")
        if method == "none" or hmac.compare_digest(secret.encode(), (client.client_secret or "").encode()):
            return client, method
    raise GrantRefused("invalid_client", "unknown_or_wrong")


def _taken(stage: Stage, client: Registration) -> tuple[str, ...]:
    only = stage.switches.require_auth
    return client.auth if only is None or client.client_secret is None else (_METHOD[only],)


def _basic(offered: str, decoding: str) -> list[tuple[str, str]]:
    """What the header may mean: RFC 6749 section 2.3.1 form-encodes both parts before base64, many do not."""
    scheme, _, rest = offered.partition(" ")
    if scheme.lower() != "basic":
        raise GrantRefused("invalid_client", "not_basic")
    try:
        client_id, colon, secret = base64.b64decode(rest.strip(), validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError) as broken:
        raise GrantRefused("invalid_client", "unreadable_basic") from broken
    if not colon:
        raise GrantRefused("invalid_client", "unreadable_basic")
    raw, decoded = (client_id, secret), (unquote_plus(client_id), unquote_plus(secret))
    return {"raw": [raw], "rfc6749": [decoded], "lenient": [decoded, raw]}[decoding]
