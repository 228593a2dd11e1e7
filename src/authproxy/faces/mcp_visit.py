"""One request of an MCP client: who sent it, for whom, and what its session said it can do.

Sessions of the older protocol generations are kept nowhere: what is to be remembered of a client's `initialize` is in
the session id that it was given, so that any replica can go on where another began.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from authproxy.core.model import DEFAULT_ACCOUNT, Caller

VISIT = "authproxy.visit"
"""The key of the ASGI scope under which the visit is found."""
SESSION_HEADER = "Mcp-Session-Id"
LISTENED = 65536
"""Bytes of a message that is looked into; what is longer is a call of a tool, and none of our business."""
_URL, _PLAIN = "u", "p"
_PREFIX = "aps1"


@dataclass(frozen=True, slots=True)
class Visit:
    """`user` is None where the request names none: lists can be read, tools not called.

    `session` is the session id as the client sent it; `opens_links` whether that session's client said that it can
    show its user a link (URL-mode elicitation); `request_id` is authproxy's own.
    """

    caller: Caller
    user: str | None
    request_id: str
    session: str | None = None
    opens_links: bool = False
    account: str = DEFAULT_ACCOUNT
    toolkits: frozenset[str] = frozenset()

    def key(self, request_id: str | int) -> tuple[str, ...]:
        """Names one call of this caller in this session. Clients count their requests, each from one."""
        caller = self.caller
        return (caller.tenant, caller.agent, self.user or "", self.session or "", str(request_id))


class Said(NamedTuple):
    """What a message is about, as far as that matters before it is handed on."""

    method: str | None = None
    params: Mapping[str, Any] = {}


def said(body: bytes) -> Said:
    """The method and parameters of one JSON-RPC message; nothing of what is no such thing."""
    if len(body) > LISTENED:
        return Said()
    try:
        message = json.loads(body)
    except (ValueError, RecursionError):
        return Said()
    if not isinstance(message, dict) or not isinstance(message.get("method"), str):
        return Said()
    params = message.get("params")
    return Said(message["method"], params if isinstance(params, dict) else {})


def new_session(initialize: Mapping[str, Any]) -> str:
    """A session id that holds what `initialize` said the client can do. Nothing hangs on it but what the client is
    sent, so it is not signed; it is unguessable, because it names calls that may be cancelled."""
    capabilities = initialize.get("capabilities")
    elicitation = capabilities.get("elicitation") if isinstance(capabilities, dict) else None
    opens = isinstance(elicitation, dict) and isinstance(elicitation.get("url"), dict)
    return f"{_PREFIX}.{_URL if opens else _PLAIN}.{secrets.token_urlsafe(18)}"


def opens_links(session: str | None) -> bool:
    """What the session id says of its client; no for one that is not ours."""
    return session is not None and session.startswith(f"{_PREFIX}.{_URL}.")
