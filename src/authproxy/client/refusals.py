"""What can go wrong, as exceptions: what authproxy refused, how a consent ended, and that nobody answered."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from authproxy.client.values import Authorization, Connection

MARK = "x-authproxy-error"
"""The header of authproxy's own answers; none of an upstream's ever has it."""


class AuthproxyError(Exception):
    """All that this client raises."""


class Unreachable(AuthproxyError):
    """authproxy could not be reached, or broke off before it had answered."""


class Unexpected(AuthproxyError):
    """Something answered that is not authproxy's control plane."""


class Refused(AuthproxyError):
    """A refusal in authproxy's one shape (RFC 9457).

    `code` is stable and `reason` refines it; `act` says who must act (`fix_request`, `ask_user`, `tell_operator`,
    `retry_later`); `retry_after` is in seconds; `request_id` is in the audit.
    """

    def __init__(self, problem: Mapping[str, Any], *, status: int | None = None) -> None:
        self.code = text(problem.get("code")) or "unknown"
        self.title = text(problem.get("title")) or "authproxy refused the request"
        self.status = status if status is not None else number(problem.get("status"))
        self.act = text(problem.get("act"))
        self.reason = text(problem.get("reason"))
        self.provider = text(problem.get("provider"))
        self.user = text(problem.get("user"))
        self.retry_after = number(problem.get("retry_after"))
        self.request_id = text(problem.get("request_id"))
        super().__init__(f"{self.title} ({self.code}{f', {self.reason}' if self.reason else ''})")


class ConnectionRequired(Refused):
    """The user has to consent first: show them `connect_url`, then try again.

    `connection_id` is the connection that goes on then, where there is one already; `missing_scopes` are those that
    it lacks; `authorization` is the consent that the link belongs to, where it was asked for with this client.
    """

    def __init__(
        self,
        problem: Mapping[str, Any],
        *,
        status: int | None = None,
        authorization: Authorization | None = None,
    ) -> None:
        super().__init__(problem, status=status)
        self.connect_url = web_url(problem.get("connect_url"))
        self.connection_id = text(problem.get("connection_id"))
        self.missing_scopes = texts(problem.get("missing_scopes"))
        self.authorization = authorization


class ConnectionExpired(ConnectionRequired):
    """The provider has ended the grant (`reason`): the same link mends it."""


class ScopeMissing(ConnectionRequired):
    """The grant lacks `missing_scopes`: the link asks for them beside those that it has."""


class UserDisabled(Refused):
    """The user has been switched off by an operator."""


class FixRequest(Refused):
    """The request can never succeed as it is."""


class BadRequest(FixRequest):
    """It is malformed, or something in it makes no sense."""


class CallerUnknown(FixRequest):
    """No agent key, or one that is not known, was revoked or has expired (see `reason`)."""


class UserNotAllowed(FixRequest):
    """This key may not act for this user."""


class PolicyDenied(FixRequest):
    """A rule is against it."""


class NotFound(FixRequest):
    """There is no such thing, or not for this key."""


class TellOperator(Refused):
    """The operator of authproxy must act."""


class RetryLater(Refused):
    """It will pass: try again after `retry_after` seconds."""


class NotConnected(AuthproxyError):
    """A wait is over, and what was waited for has not come. `authorization` or `connection` is as it was last seen."""

    said = "the user is not connected"

    def __init__(
        self, *, authorization: Authorization | None = None, connection: Connection | None = None
    ) -> None:
        self.authorization = authorization
        self.connection = connection
        seen = authorization or connection
        self.reason = None if seen is None else seen.reason
        super().__init__(f"{self.said} ({self.reason})" if self.reason else self.said)


class Denied(NotConnected):
    """The user has declined."""

    said = "the user has declined"


class Failed(NotConnected):
    """The consent failed at the provider or here; `reason` says why."""

    said = "the consent failed"


class Expired(NotConnected):
    """The link was not used in time."""

    said = "the link was not used in time"


class Superseded(NotConnected):
    """Another consent of the same user has replaced this one."""

    said = "another link has replaced this one"


class DeadlinePassed(NotConnected):
    """The deadline of the wait has come; the link, where it has not ended, still works."""

    said = "the time to wait is over"


class ToolFailed(AuthproxyError):
    """A tool did not do what it was asked.

    `kind` is in the words of the public tool API; the exception's text is for the model, `hint` is what may help its
    next try, `developer_message` is for whoever wrote the agent. `retry_after` is in seconds, `status` the provider's.
    """

    def __init__(self, error: Mapping[str, Any]) -> None:
        self.kind = text(error.get("kind")) or "UNKNOWN"
        self.message = text(error.get("message")) or "the tool failed"
        self.can_retry = error.get("can_retry") is True
        pause = error.get("retry_after_ms")
        self.retry_after = pause / 1000 if isinstance(pause, int | float) else None
        self.hint = text(error.get("additional_prompt_content"))
        self.developer_message = text(error.get("developer_message"))
        self.status = number(error.get("status_code"))
        extra = error.get("extra")
        self.code = text(extra.get("code")) if isinstance(extra, Mapping) else None
        super().__init__(self.message)


_BY_CODE: Mapping[str, type[Refused]] = {
    "connection_required": ConnectionRequired,
    "connection_expired": ConnectionExpired,
    "scope_missing": ScopeMissing,
    "user_disabled": UserDisabled,
    "bad_request": BadRequest,
    "user_missing": BadRequest,
    "caller_unknown": CallerUnknown,
    "user_not_allowed": UserNotAllowed,
    "policy_denied": PolicyDenied,
    "not_found": NotFound,
}
_BY_ACT: Mapping[str, type[Refused]] = {
    "fix_request": FixRequest,
    "tell_operator": TellOperator,
    "retry_later": RetryLater,
}


def refusal(problem: Mapping[str, Any], *, status: int | None = None) -> Refused:
    """The exception for a problem object."""
    kind = _BY_CODE.get(str(problem.get("code"))) or _BY_ACT.get(str(problem.get("act"))) or Refused
    return kind(problem, status=status)


def raise_for_refusal(status: int, headers: Any, body: bytes | str | Mapping[str, Any] | None) -> None:
    """Raise what an answer of the proxy says, where it is authproxy's own; an upstream's answer, whatever its status,
    passes. `headers` is a mapping or pairs; `body` the whole body, or the JSON that was read from it."""
    found = refusal_in(status, headers, body)
    if found is not None:
        raise found


def refusal_in(status: int, headers: Any, body: bytes | str | Mapping[str, Any] | None) -> Refused | None:
    """The same without raising."""
    code = marked(headers)
    if code is None:
        return None
    problem = body if isinstance(body, Mapping) else json_object(body)
    return refusal({"code": code, **(problem or {})}, status=status)


def refusal_of(error: BaseException) -> Refused | None:
    """What authproxy refused, behind an exception of a vendor's library; None where it is the vendor's own.

    Reads the exceptions of requests, httpx, aiohttp's own hook, google-api-python-client, slack_sdk, PyGithub,
    hubspot-api-client, openai and anthropic, and what they were raised from.
    """
    seen: set[int] = set()
    one: BaseException | None = error
    while one is not None and id(one) not in seen:
        if isinstance(one, Refused):
            return one
        for status, headers, body in _answers(one):
            if marked(headers) is not None:
                return refusal_in(status, headers, body)
        seen.add(id(one))
        one = one.__cause__ or one.__context__
    return None


def _answers(error: BaseException) -> Iterator[tuple[int, Any, Any]]:
    """Every place in which libraries keep the answer that they raise for."""
    for holder, body_names in (
        (
            getattr(error, "response", None),
            ("content", "data"),
        ),  # requests, httpx, openai, anthropic, slack_sdk
        (getattr(error, "resp", None), ()),  # google: the body is beside it
        (error, ("body", "data")),  # hubspot, PyGithub
    ):
        if holder is None:
            continue
        status = getattr(holder, "status_code", None) or getattr(holder, "status", None)
        headers = getattr(holder, "headers", None)
        if headers is None and isinstance(holder, Mapping):
            headers = holder  # httplib2's answer is its own headers
        if not isinstance(status, int) or headers is None:
            continue
        body = _first(holder, body_names) or getattr(error, "content", None)
        yield status, headers, body if isinstance(body, bytes | str | Mapping) else None


def _first(holder: object, names: Iterable[str]) -> Any:
    for name in names:
        try:
            value = getattr(holder, name, None)
        except (RuntimeError, OSError):  # of a stream that nobody has read, or that has been read already
            value = None
        if value is not None:
            return value
    return None


def marked(headers: Any) -> str | None:
    """The code in the header that authproxy's own answers have, however the headers are kept."""
    pairs: Iterable[Any]
    if hasattr(headers, "items"):
        pairs = headers.items()
    elif isinstance(headers, Iterable):
        pairs = headers
    else:
        return None
    for pair in pairs:
        if not (isinstance(pair, tuple) and len(pair) == 2):
            continue
        name, value = (one.decode("latin-1") if isinstance(one, bytes) else one for one in pair)
        if isinstance(name, str) and name.lower() == MARK and value:
            return str(value)
    return None


def json_object(body: bytes | str | None) -> dict[str, Any] | None:
    """A JSON object, or None for anything else."""
    try:
        value = json.loads(body or b"")
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def text(value: object) -> str | None:
    """A text that says something, or None."""
    return value if isinstance(value, str) and value else None


def texts(value: object) -> tuple[str, ...]:
    """The texts of a list."""
    return tuple(one for one in value if isinstance(one, str)) if isinstance(value, list | tuple) else ()


def number(value: object) -> int | None:
    """A whole number, or None."""
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def web_url(value: object) -> str | None:
    """A link that may be shown: nothing but http(s)."""
    found = text(value)
    return found if found is not None and found.startswith(("https://", "http://")) else None
