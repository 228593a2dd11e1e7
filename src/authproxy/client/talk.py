"""What is asked of the control plane and what its answers mean, without a socket or a clock of its own.

Each conversation is a generator: it yields a `Call` and is sent the `Reply`, or yields a `Pause`; its return value is
the result. Where a call finds nobody, `Unreachable` is thrown in. So it is said once for `Client` and `AsyncClient`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeAlias, TypeVar
from urllib.parse import quote

from authproxy.client.refusals import (
    AuthproxyError,
    ConnectionExpired,
    ConnectionRequired,
    DeadlinePassed,
    Denied,
    Expired,
    Failed,
    NotConnected,
    RetryLater,
    ScopeMissing,
    Superseded,
    ToolFailed,
    Unexpected,
    Unreachable,
    json_object,
    raise_for_refusal,
    text,
    web_url,
)
from authproxy.client.values import Authorization, Connection, NewSession, Session, Tool, ToolResult

LONGEST_LOOK: Final = 45.0
"""Seconds that one long poll may take; the control plane holds none for longer than 59."""
NO_END: Final = 3600.0
"""Seconds after which a wait ends that nothing else ends."""
LATER: Final = 30.0
"""Seconds beyond a link's own end for which its wait goes on: the callback may just be being worked on."""
AT_LEAST: Final = 0.5
"""Seconds from one look to the next."""
TRIES: Final = 3
PAGE: Final = 100

_ENDS: Final[Mapping[str, type[NotConnected]]] = {
    "denied": Denied,
    "failed": Failed,
    "expired": Expired,
    "superseded": Superseded,
}
_CONSENT: Final[Mapping[str, type[ConnectionRequired]]] = {
    "connection_required": ConnectionRequired,
    "connection_expired": ConnectionExpired,
    "scope_missing": ScopeMissing,
}


class Call(NamedTuple):
    """One request. `hold` is for how long, in seconds, the other side was asked to hold its answer back."""

    method: str
    path: str
    query: tuple[tuple[str, str], ...] = ()
    body: Mapping[str, Any] | None = None
    hold: float = 0.0


class Reply(NamedTuple):
    """The whole answer; header names in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Pause(NamedTuple):
    """Wait before going on."""

    seconds: float


T = TypeVar("T")
Steps: TypeAlias = Generator["Call | Pause", "Reply | None", T]


def asked(call: Call, tries: int = TRIES) -> Steps[dict[str, Any]]:
    """The JSON object that is answered. What only reads is tried again where nobody answered, or where a short pause
    was asked for; what changes something is sent once. Raises what was refused."""
    for attempt in range(tries):
        last = call.method != "GET" or attempt == tries - 1
        try:
            reply = yield call
            assert reply is not None
            return _read(call, reply)
        except Unreachable:
            if last:
                raise
            yield Pause(0.2 * 2**attempt)
        except RetryLater as later:
            if last or (later.retry_after or 0) > 5:
                raise
            yield Pause(later.retry_after or 0.2 * 2**attempt)
    raise AssertionError("the last attempt returns or raises")


def _read(call: Call, reply: Reply) -> dict[str, Any]:
    raise_for_refusal(reply.status, reply.headers, reply.body)
    if reply.status == 204:
        return {}
    said = json_object(reply.body)
    if not 200 <= reply.status < 300 or said is None:
        raise Unexpected(
            f"{call.method} {call.path} was answered with {reply.status} and "
            f"{'JSON' if said is not None else 'no JSON'} that is not authproxy's: "
            "is the address that of its control plane?"
        )
    return said


class Talk:
    """Every conversation; `clock` tells the time of day, `tick` is monotonic, both in seconds."""

    def __init__(
        self, *, clock: Callable[[], float] = time.time, tick: Callable[[], float] = time.monotonic
    ) -> None:
        self._clock = clock
        self._tick = tick

    # --- consent

    def start(
        self,
        user: str,
        provider: str,
        scopes: Sequence[str],
        *,
        next_uri: str | None,
        account: str | None,
    ) -> Steps[Authorization]:
        need = {"provider_id": provider, "provider_type": "oauth2", "oauth2": {"scopes": list(scopes)}}
        body: dict[str, Any] = {"user_id": user, "auth_requirement": need}
        body |= _given(next_uri=next_uri, account=account)
        return Authorization.of((yield from asked(Call("POST", "/v1/auth/authorize", body=body))))

    def status(self, authorization: Authorization | str) -> Steps[Authorization]:
        return (yield from self._look(_id(authorization), 0))

    def wait(self, authorization: Authorization | str, deadline: float | None) -> Steps[Authorization]:
        if isinstance(authorization, Authorization):
            seen = authorization
        else:
            seen = yield from self.status(authorization)
        until = self._tick() + (self._patience(seen) if deadline is None else deadline)
        while True:
            if seen.completed:
                return seen
            if seen.ended:
                raise _ENDS.get(seen.state, Failed)(authorization=seen)
            left = until - self._tick()
            if left <= 0:
                raise DeadlinePassed(authorization=seen)
            began, pause = self._tick(), 0.0
            try:
                seen = yield from self._patiently(seen.id, left)
            except (Unreachable, RetryLater) as fault:
                pause = _rest(fault)
            if not seen.ended:
                yield Pause(self._pause(until, began, pause))

    def _patiently(self, flow_id: str, left: float) -> Steps[Authorization]:
        hold = int(min(left, LONGEST_LOOK))
        if hold < 1:
            yield Pause(left)
        try:
            return (yield from self._look(flow_id, hold, tries=1))
        except ConnectionRequired:
            # Waiting for what has failed is refused, since some clients would for ever; how it failed is told.
            return (yield from self._look(flow_id, 0, tries=1))

    def _look(self, flow_id: str, hold: int, tries: int = TRIES) -> Steps[Authorization]:
        query = (("id", flow_id), *((("wait", str(hold)),) if hold else ()))
        return Authorization.of((yield from asked(Call("GET", "/v1/auth/status", query, hold=hold), tries)))

    def _patience(self, one: Authorization) -> float:
        """For as long as the link is good: no flow is open for longer."""
        return NO_END if one.expires_at is None else max(0.0, one.expires_at - self._clock()) + LATER

    def confirm_user(self, ticket: str, user: str) -> Steps[str | None]:
        body = {"flow_id": ticket, "user_id": user}
        said = yield from asked(Call("POST", "/v1/auth/confirm_user", body=body))
        return web_url(said.get("next_uri"))

    # --- connections

    def connections(
        self, user: str | None, provider: str | None, state: str | None
    ) -> Steps[list[Connection]]:
        wanted = _given(user_id=user, provider_id=provider, state=state)
        return [Connection.of(one) for one in (yield from _pages("/v1/connections", wanted))]

    def disconnect(self, connection_id: str) -> Steps[str]:
        said = yield from asked(Call("DELETE", f"/v1/connections/{_part(connection_id)}"))
        return text(said.get("revoked_upstream")) or "unknown"

    def wait_for_connection(self, connection_id: str, state: str, deadline: float) -> Steps[Connection]:
        until = self._tick() + deadline
        path = f"/v1/connections/{_part(connection_id)}/wait"
        seen: Connection | None = None
        while True:
            left = max(0.0, until - self._tick())
            hold = int(min(left, LONGEST_LOOK))
            query = (("seconds", str(hold)), ("state", state))
            began, pause = self._tick(), 0.0 if hold else left
            try:
                seen = Connection.of((yield from asked(Call("GET", path, query, hold=hold), 1)))
                if seen.state == state:
                    return seen
            except (Unreachable, RetryLater) as fault:
                if left <= 0 and seen is None:
                    raise
                pause = _rest(fault)
            if left <= 0:
                raise DeadlinePassed(connection=seen)
            yield Pause(self._pause(until, began, pause))

    def _pause(self, until: float, began: float, pause: float) -> float:
        """Who does not hold an answer back, though asked to, is not asked again at once."""
        soonest = began + AT_LEAST - self._tick()
        return max(0.0, min(until - self._tick(), max(pause, soonest)))

    # --- tools

    def tools(self, toolkit: str | None, user: str | None, formats: Sequence[str]) -> Steps[list[Tool]]:
        wanted = tuple(_given(toolkit=toolkit, user_id=user).items())
        wanted += tuple(("include_format", name) for name in formats)
        found: list[Tool] = []
        while True:
            page = (*wanted, ("limit", str(PAGE)), ("offset", str(len(found))))
            said = yield from asked(Call("GET", "/v1/tools", page))
            items = _items(said)
            found += [Tool.of(one) for one in items]
            total = said.get("total_count")
            if not items or not isinstance(total, int) or len(found) >= total:
                return found

    def tool(self, name: str, user: str | None) -> Steps[Tool]:
        query = tuple(_given(user_id=user).items())
        return Tool.of((yield from asked(Call("GET", f"/v1/tools/{_part(name)}", query))))

    def authorize_tool(self, name: str, user: str | None, next_uri: str | None) -> Steps[Authorization]:
        body = {"tool_name": name} | _given(user_id=user, next_uri=next_uri)
        return Authorization.of((yield from asked(Call("POST", "/v1/tools/authorize", body=body))))

    def execute(
        self, name: str, given: Mapping[str, Any], user: str | None, account: str | None, patience: float
    ) -> Steps[ToolResult]:
        body = {"tool_name": name, "input": dict(given)} | _given(user_id=user, account=account)
        said = yield from asked(Call("POST", "/v1/tools/execute", body=body, hold=patience))
        if said.get("success") is not True:
            raise _failure(said)
        return ToolResult.of(said)

    # --- sessions

    def mint(
        self,
        user: str,
        *,
        agent: str | None,
        label: str | None,
        routes: Sequence[str] | None,
        tools: Sequence[str] | None,
        ttl: int | None,
        renewable_for: int | None,
    ) -> Steps[NewSession]:
        body: dict[str, Any] = {"user_id": user}
        body |= _given(agent=agent, label=label, ttl=ttl, renewable_for=renewable_for)
        body |= _given(
            routes=None if routes is None else list(routes), tools=None if tools is None else list(tools)
        )
        return NewSession.of((yield from asked(Call("POST", "/v1/sessions", body=body))))

    def renew(self, session: Session | NewSession | str, ttl: int | None) -> Steps[Session]:
        path = f"/v1/sessions/{_part(_session_id(session))}/renew"
        return Session.of((yield from asked(Call("POST", path, body=_given(ttl=ttl)))))

    def revoke(self, session: Session | NewSession | str) -> Steps[Session]:
        path = f"/v1/sessions/{_part(_session_id(session))}"
        return Session.of((yield from asked(Call("DELETE", path))))

    def session(self, session_id: str) -> Steps[Session]:
        return Session.of((yield from asked(Call("GET", f"/v1/sessions/{_part(session_id)}"))))

    def sessions(self, user: str | None) -> Steps[list[Session]]:
        return [Session.of(one) for one in (yield from _pages("/v1/sessions", _given(user_id=user)))]

    def healthy(self) -> Steps[bool]:
        return (yield from asked(Call("GET", "/v1/health"))).get("healthy") is True


def _pages(path: str, wanted: Mapping[str, Any]) -> Steps[list[Mapping[str, Any]]]:
    found: list[Mapping[str, Any]] = []
    after: str | None = None
    while True:
        query = {**wanted, "limit": str(PAGE), **({} if after is None else {"after": after})}
        said = yield from asked(Call("GET", path, tuple(query.items())))
        found += _items(said)
        after = text(said.get("after"))
        if after is None:
            return found


def _items(said: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    items = said.get("items")
    if not isinstance(items, list) or not all(isinstance(one, dict) for one in items):
        raise Unexpected("authproxy's answer has no items: is the address that of its control plane?")
    return items


def _failure(said: Mapping[str, Any]) -> AuthproxyError:
    """What a tool's failed call is: a consent that is missing, or the tool's own failure."""
    output = said.get("output")
    output = output if isinstance(output, Mapping) else {}
    error, asks = output.get("error"), output.get("authorization")
    error = error if isinstance(error, Mapping) else {}
    failed = ToolFailed(error)
    kind = _CONSENT.get(failed.code or "")
    if kind is None:
        return failed
    one = Authorization.of(asks) if isinstance(asks, Mapping) else None
    extra = error.get("extra")
    link = None if one is None else one.url
    problem = {
        "code": failed.code,
        "title": failed.message,
        "act": "ask_user",
        "provider": None if one is None else one.provider,
        "user": None if one is None else one.user,
        "connect_url": link or (extra.get("connect_url") if isinstance(extra, Mapping) else None),
        "connection_id": None if one is None else one.connection_id,
        "request_id": said.get("id"),
    }
    return kind(problem, status=403, authorization=one)


def _rest(fault: Unreachable | RetryLater) -> float:
    return float(fault.retry_after or 1) if isinstance(fault, RetryLater) else 1.0


def _given(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _id(one: Authorization | str) -> str:
    return one if isinstance(one, str) else one.id


def _session_id(one: Session | NewSession | str) -> str:
    if isinstance(one, NewSession):
        return one.session.id
    return one if isinstance(one, str) else one.id


def _part(name: str) -> str:
    """One segment of a path, whatever is in it. Raises ValueError for what would be another path."""
    if name in ("", ".", ".."):
        raise ValueError("an id or a name is missing")
    return quote(name, safe="")
