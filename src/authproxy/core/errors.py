"""Every refusal authproxy can utter, sorted by who must act.

A class exists only because its code is distinct on the wire. The wire shape is `application/problem+json`
(RFC 9457) with the members of the contract; no token, no provider text and no exception text ever goes in.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import Any, ClassVar


class Act(StrEnum):
    """Who must act before the same request can succeed."""

    FIX_REQUEST = "fix_request"
    ASK_USER = "ask_user"
    TELL_OPERATOR = "tell_operator"
    RETRY_LATER = "retry_later"


class Refusal(Exception):
    """A request that authproxy answers itself.

    Parameters: `title` is one sentence for a person, free of secrets; `reason` is a short machine word that
    refines the code; `connect_url` is where the user can mend it, and `connection_id` what then goes on, where there
    is one already; `retry_after` is in seconds; `status` stands in for the code's own where HTTP has a more exact one
    (405, 408, 421, 505).
    """

    code: ClassVar[str]
    status: int
    act: ClassVar[Act]
    default_retry_after: ClassVar[int | None] = None

    def __init__(
        self,
        title: str,
        *,
        reason: str | None = None,
        provider: str | None = None,
        user: str | None = None,
        connect_url: str | None = None,
        connection_id: str | None = None,
        missing_scopes: Iterable[str] = (),
        retry_after: int | None = None,
        status: int | None = None,
    ) -> None:
        super().__init__(title)
        if status is not None:
            self.status = status
        self.title = title
        self.reason = reason
        self.provider = provider
        self.user = user
        self.connect_url = connect_url
        self.connection_id = connection_id
        self.missing_scopes = tuple(missing_scopes)
        self.retry_after = self.default_retry_after if retry_after is None else retry_after

    def problem(self, request_id: str | None = None, *, status: int | None = None) -> dict[str, Any]:
        """The RFC 9457 object; `status` overrides where one code has two (407 proxy, 401 control)."""
        return {
            "type": f"urn:authproxy:error:{self.code}",
            "title": self.title,
            "status": status or self.status,
            "code": self.code,
            "act": str(self.act),
            "reason": self.reason,
            "connect_url": self.connect_url,
            "connection_id": self.connection_id,
            "provider": self.provider,
            "user": self.user,
            "missing_scopes": list(self.missing_scopes),
            "retry_after": self.retry_after,
            "request_id": request_id,
        }


class BadRequest(Refusal):
    """The request is malformed or ambiguous; nothing of it was sent upstream."""

    code, status, act = "bad_request", 400, Act.FIX_REQUEST


class UserMissing(Refusal):
    """The user header is absent, empty or given more than once."""

    code, status, act = "user_missing", 400, Act.FIX_REQUEST


class CallerUnknown(Refusal):
    """No caller credential, or one that is not known (401 on the control plane)."""

    code, status, act = "caller_unknown", 407, Act.FIX_REQUEST


class UserNotAllowed(Refusal):
    """The caller may not act for this user."""

    code, status, act = "user_not_allowed", 403, Act.FIX_REQUEST


class NoRoute(Refusal):
    """No route has this prefix or host."""

    code, status, act = "no_route", 404, Act.FIX_REQUEST


class NotFound(Refusal):
    """Control plane: there is no such flow, connection or agent in the caller's tenant."""

    code, status, act = "not_found", 404, Act.FIX_REQUEST


class UserMismatch(Refusal):
    """Control plane: the flow was made for another user than the one who opened it."""

    code, status, act = "user_mismatch", 400, Act.FIX_REQUEST


class PolicyDenied(Refusal):
    """The route has no rule that allows this method and path."""

    code, status, act = "policy_denied", 403, Act.FIX_REQUEST


class BodyTooLarge(Refusal):
    """The request body is over the configured limit."""

    code, status, act = "body_too_large", 413, Act.FIX_REQUEST


class HeaderTooLarge(Refusal):
    """The request line or the header section is over the configured limit."""

    code, status, act = "header_too_large", 431, Act.FIX_REQUEST


class ConnectionRequired(Refusal):
    """The user has not connected this provider: show them `connect_url`."""

    code, status, act = "connection_required", 403, Act.ASK_USER


class ConnectionExpired(Refusal):
    """The provider has ended the grant (see `reason`): show the user `connect_url`."""

    code, status, act = "connection_expired", 403, Act.ASK_USER


class ScopeMissing(Refusal):
    """The user's grant lacks scopes that the route needs: `connect_url` asks for the union."""

    code, status, act = "scope_missing", 403, Act.ASK_USER


class UserDisabled(Refusal):
    """The user has been switched off by an operator."""

    code, status, act = "user_disabled", 403, Act.ASK_USER


class ProviderMisconfigured(Refusal):
    """The operator's client at the provider is wrong, missing or refused; no grant was touched."""

    code, status, act = "provider_misconfigured", 502, Act.TELL_OPERATOR


class EgressBlocked(Refusal):
    """The address behind the route may not be dialled."""

    code, status, act = "egress_blocked", 502, Act.TELL_OPERATOR


class KeyMissing(Refusal):
    """A stored row cannot be opened with the sealing keys at hand."""

    code, status, act = "key_missing", 500, Act.TELL_OPERATOR


class Internal(Refusal):
    """A fault of authproxy itself; the log has it under the request id."""

    code, status, act = "internal", 500, Act.TELL_OPERATOR


class ProviderUnavailable(Refusal):
    """The token has expired and the provider's token endpoint does not answer usefully."""

    code, status, act = "provider_unavailable", 503, Act.RETRY_LATER
    default_retry_after = 5


class UpstreamUnreachable(Refusal):
    """The upstream could not be reached, broke off, or answered what is not HTTP."""

    code, status, act = "upstream_unreachable", 502, Act.RETRY_LATER
    default_retry_after = 2


class UpstreamTimeout(Refusal):
    """The upstream took longer than the configured time."""

    code, status, act = "upstream_timeout", 504, Act.RETRY_LATER
    default_retry_after = 2


class StoreUnavailable(Refusal):
    """The store cannot be read or written now; nothing is known about the connection."""

    code, status, act = "store_unavailable", 503, Act.RETRY_LATER
    default_retry_after = 2


class Overloaded(Refusal):
    """A limit of this process is reached (requests, rates, connections, audit queue), or a provider's pause stands."""

    code, status, act = "overloaded", 503, Act.RETRY_LATER
    default_retry_after = 1


def every_refusal() -> tuple[type[Refusal], ...]:
    """All refusals in the order of this page; the README's table is held against it."""
    return tuple(Refusal.__subclasses__())
