"""The tools: which there are for a caller, what one needs of a user, and calling it. Said once for every face."""

from __future__ import annotations

import asyncio
import itertools
import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import structlog

from authproxy.broker.registrations import Registrations
from authproxy.control.consent import Authorization, Consent
from authproxy.core.errors import BadRequest, NotFound, Overloaded, PolicyDenied, Refusal, UserMissing
from authproxy.core.message import NAME_RULE, is_name
from authproxy.core.model import DEFAULT_ACCOUNT, Caller, ConnectionKey, State
from authproxy.core.routes import Route, RouteTable
from authproxy.core.session import demand_route, tool_allowed
from authproxy.core.toolbox import Tools as Limits
from authproxy.metrics import Metrics
from authproxy.store.audit import Trail
from authproxy.store.vault import Vault
from authproxy.tools.failures import CONSENT
from authproxy.tools.loading import NO_TOOLS, Kit, Toolbox, tool_routes
from authproxy.tools.running import Errand, Runner, WalkApi
from authproxy.tools.scopes import asked_scopes, needed_scopes
from authproxy.tools.tool import Input, Json, Kind, Tool, ToolError

log = structlog.get_logger()

CANCELLED = "cancelled"
MAX_WAITING = 64
"""Calls of one agent, and of all that are named below it, that may wait for somebody at once."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One call, as a gate sees it: who wants what done for whom. `input` is checked; `patience` is how many seconds
    the caller would wait for somebody's yes, as long as it is `there`. It does that inside of `aside`, which says
    whether it may: so others are called meanwhile."""

    call: str
    caller: Caller
    user: str
    account: str
    tool: Tool
    input: Input = field(repr=False)
    patience: float = 0.0
    there: Callable[[], bool] = lambda: True
    aside: Callable[[], AbstractContextManager[bool]] = lambda: nullcontext(True)


class Gate(Protocol):
    """The place for decisions on calls. Every face's calls go through all gates, in their order.

    Each method raises ToolError (kind REQUIREMENTS_NOT_MET, with a `code`) where the call may not be, or not yet.
    """

    def offers(self, caller: Caller, tool: Tool) -> bool:
        """Whether this caller is shown the tool at all; one that is not shown does not exist for it."""

    async def before(self, asked: Asked) -> Input:
        """The input that the tool gets; nothing has been sent anywhere yet."""

    async def after(self, asked: Asked, value: Json) -> Json:
        """The result that the caller gets."""

    def told(self, asked: Asked, error: ToolError) -> ToolError:
        """The failure that the caller gets where the tool, or its provider, has failed."""


@dataclass(frozen=True, slots=True)
class Requirement:
    """What a tool needs of the user's connection, and how that stands. `met` None: no user was named.

    `ready` says whether the operator has configured the provider; `token_status` is in the public client's words.
    """

    provider: str
    scopes: tuple[str, ...]
    ready: bool
    met: bool | None = None
    token_status: str | None = None
    reason: str | None = None


@dataclass(slots=True)
class Outcome:
    """What came of one call. `error` None: it succeeded. `authorization` is how the user can mend a missing consent.

    `requests` are the request ids of what was sent upstream. Instants are seconds since the epoch.
    """

    id: str
    tool: Tool
    user: str
    started: float
    finished: float = 0.0
    value: Json = None
    error: ToolError | None = None
    authorization: Authorization | None = None
    requests: Sequence[str] = field(default_factory=list)

    @property
    def success(self) -> bool:
        return self.error is None

    @property
    def seconds(self) -> float:
        return max(0.0, self.finished - self.started)


class Tools:
    """What agents may ask about tools; each method takes the caller first."""

    def __init__(
        self,
        toolbox: Callable[[], Toolbox],
        runner: Runner,
        *,
        limits: Callable[[], Limits],
        consent: Callable[[], Consent],
        routes: Callable[[], RouteTable],
        registrations: Registrations,
        vault: Vault,
        trail: Trail,
        metrics: Metrics,
        gates: Sequence[Gate] = (),
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._toolbox = toolbox
        self._runner = runner
        self._limits = limits
        self._consent = consent
        self._routes = routes
        self._registrations = registrations
        self._vault = vault
        self._trail = trail
        self._metrics = metrics
        self.gates = tuple(gates)
        self._clock = clock
        self._new_id = call_ids()
        self._active = 0
        self._waiting: Counter[tuple[str, str]] = Counter()

    async def prepare(self) -> None:
        """Read the tools beside the loop, before somebody asks for them."""
        await asyncio.to_thread(self._tools)

    # --- which there are

    def list(self, caller: Caller, *, toolkit: str | None = None) -> Sequence[Tool]:
        """The tools that this caller may call, by name: of configured routes, and within what its credential says."""
        return [
            tool
            for tool in self._tools()
            if not tool.hidden
            and (toolkit is None or tool.toolkit.casefold() == toolkit.casefold())
            and self._offered(caller, tool)
        ]

    def get(self, caller: Caller, name: str, version: str | None = None) -> Tool:
        """One of them by any spelling of its name, `Toolkit.Name@version` among them. Raises NotFound."""
        name, _, said = name.partition("@")
        tool = self._tools().find(name) if len(name) <= 200 else None
        if tool is None or not self._offered(caller, tool):
            raise NotFound(_unknown(name, tool), reason="tool")
        wanted = version or said
        if wanted and wanted.partition(".")[0] != tool.version.partition(".")[0]:
            raise NotFound(f"{tool.qualified_name} is here in version {tool.version}", reason="tool_version")
        return tool

    def kit(self, tool: Tool) -> Kit:
        """The toolkit of a tool."""
        return self._toolbox().kit(tool)

    def _tools(self) -> Toolbox:
        """All of them; none where no route is one of theirs: they are some 4 MB, which most proxies have no use for."""
        offered = self._limits().enabled and any(self._routes().get(name) for name in tool_routes())
        return self._toolbox() if offered else NO_TOOLS

    def _offered(self, caller: Caller, tool: Tool) -> bool:
        if not self._limits().enabled or self._routes().get(tool.route) is None:
            return False
        marks = tool.marks
        if not tool_allowed(
            caller.tools,
            tool.qualified_name,
            read_only=marks.read_only,
            destructive=marks.destructive,
            idempotent=marks.idempotent,
        ):
            return False
        try:
            demand_route(caller, tool.route, tool=True)
        except PolicyDenied:
            return False
        return all(gate.offers(caller, tool) for gate in self.gates)

    def _route(self, tool: Tool) -> Route:
        route = self._routes().get(tool.route)
        if route is None:  # taken away since it was offered
            raise NotFound(f"{tool.qualified_name} needs the route {tool.route}", reason="tool")
        return route

    # --- what it needs of a user

    async def requirements(
        self, caller: Caller, tools: Sequence[Tool], user: str | None = None
    ) -> Sequence[Requirement]:
        """What each of `tools` needs, and how it stands with `user` where one is named."""
        if user is not None:
            await self._consent().speak_for(caller, user)
        connections = {}
        found = []
        for tool in tools:
            route = self._route(tool)
            scopes = needed_scopes(route, tool)
            ready = route.provider in self._registrations
            if user is None:
                found.append(Requirement(route.provider, scopes, ready))
                continue
            if route.provider not in connections:
                key = ConnectionKey(caller.tenant, user, route.provider)
                connections[route.provider] = await self._vault.find(key)
            connection = connections[route.provider]
            if connection is None:
                status, reason, met = "not_started", "connection_required", False
            elif connection.state is not State.ACTIVE:
                status, reason, met = "failed", connection.reason or str(connection.state), False
            elif not ready or not self._consent().serves(connection, scopes):
                status, reason, met = "not_started", "scope_missing", False
            else:
                status, reason, met = "completed", None, True
            found.append(Requirement(route.provider, scopes, ready, met, status, reason))
        return found

    async def authorize(
        self,
        caller: Caller,
        tool: Tool,
        user: str | None,
        *,
        account: str = DEFAULT_ACCOUNT,
        next_uri: str | None = None,
        refused: bool = False,
    ) -> Authorization:
        """The standing connection where it has all that the tool needs, else a flow that asks for it. `refused`: a
        call was, and the flow is the one that its link leads to."""
        route = self._route(tool)
        return await self._consent().authorize(
            caller,
            user=_user(caller, user),
            provider=route.provider,
            scopes=asked_scopes(route, tool),
            enough=needed_scopes(route, tool),
            account=account,
            next_uri=next_uri,
            refused=refused,
        )

    # --- calling it

    async def execute(
        self,
        caller: Caller,
        tool: Tool,
        user: str | None,
        given: Mapping[str, Any],
        *,
        account: str = DEFAULT_ACCOUNT,
        patience: float = 0.0,
        there: Callable[[], bool] = lambda: True,
    ) -> Outcome:
        """Call a tool that `get` gave, for `user`. What the tool, its provider or a rule says against it is in the
        outcome; a refusal is raised where the caller has no business to ask at all. Exactly one record is written."""
        self._trail.reserve()
        outcome = Outcome(self._new_id(), tool, user or caller.bound_user or "", self._clock())
        api: WalkApi | None = None
        ending, code = CANCELLED, None
        try:
            user = outcome.user = _user(caller, user)
            await self._consent().speak_for(caller, user)
            if not is_name(account):
                raise BadRequest(f"account must be {NAME_RULE}", reason="account")
            api = self._api(outcome, caller, account)
            outcome.requests = api.requests
            await self._run(api, given, outcome, patience, there)
            ending = "success" if outcome.error is None else str(outcome.error.kind)
            code = None if outcome.error is None else outcome.error.code
        except Refusal as refusal:
            ending, code = "refused", refusal.code
            raise
        finally:
            outcome.finished = self._clock()
            self._record(caller, outcome, given, account, ending, code)
        return outcome

    def _api(self, outcome: Outcome, caller: Caller, account: str) -> WalkApi:
        tool = outcome.tool
        return self._runner.api(
            Errand(
                tool=tool,
                kit=self._toolbox().kit(tool),
                caller=caller,
                user=outcome.user,
                account=account,
                call=outcome.id,
                max_answer=self._limits().max_answer,
            )
        )

    async def _run(
        self,
        api: WalkApi,
        given: Mapping[str, Any],
        outcome: Outcome,
        patience: float,
        there: Callable[[], bool],
    ) -> None:
        errand, most = api.errand, self._limits().max_calls
        if self._active >= most:
            raise Overloaded(f"{most} calls of tools are under way", reason="tools")
        self._active += 1
        try:
            asked = Asked(
                call=errand.call,
                caller=errand.caller,
                user=errand.user,
                account=errand.account,
                tool=errand.tool,
                input=self._runner.check(errand.tool, given),
                patience=patience,
                there=there,
                aside=lambda: self._aside(errand.caller),
            )
            for gate in self.gates:
                asked = replace(asked, input=await gate.before(asked))
            outcome.value = await self._made(api, asked)
        except ToolError as error:
            outcome.error = error
            if error.code in CONSENT:
                outcome.authorization = await self._mending(errand, error)
        finally:
            self._active -= 1

    async def _made(self, api: WalkApi, asked: Asked) -> Json:
        try:
            value = await self._runner.run(api, asked.input)
        except ToolError as error:
            for gate in self.gates:
                error = gate.told(asked, error)
            raise error from None
        for gate in self.gates:
            value = await gate.after(asked, value)
        return self._runner.bounded(value)

    @contextmanager
    def _aside(self, caller: Caller) -> Iterator[bool]:
        """Room for another call while this one waits for somebody; False where too many of its agent's do already.
        Raises Overloaded where there is no room when it goes on: nothing has been done then."""
        who = (caller.tenant, caller.agent.partition("/")[0])
        if self._waiting[who] >= MAX_WAITING:
            yield False
            return
        self._waiting[who] += 1
        self._active -= 1
        try:
            yield True
        finally:
            self._active += 1
            self._waiting[who] -= 1
            if not self._waiting[who]:
                del self._waiting[who]
        if self._active > (most := self._limits().max_calls):
            raise Overloaded(f"{most} calls of tools are under way", reason="tools")

    async def _mending(self, errand: Errand, error: ToolError) -> Authorization | None:
        """The flow behind the link of this failure."""
        try:
            found = await self.authorize(
                errand.caller, errand.tool, errand.user, account=errand.account, refused=True
            )
        except Refusal as refusal:  # the failure itself is still worth saying
            log.warning(
                "tool_link_not_made", tool=errand.tool.qualified_name, code=refusal.code, of=error.code
            )
            return None
        if error.connect_url is None and found.url is not None:
            error.connect_url, error.hint = found.url, f"The link for the user: {found.url}"
        return found

    def _record(
        self,
        caller: Caller,
        outcome: Outcome,
        given: Mapping[str, Any],
        account: str,
        ending: str,
        code: str | None,
    ) -> None:
        """Names of arguments, and only those that the tool has; never what they say."""
        tool = outcome.tool
        route = self._routes().get(tool.route)
        self._trail.redeem(
            "tool.call",
            request_id=outcome.id,
            tool=tool.qualified_name,
            tenant=caller.tenant,
            agent=caller.agent,
            session=caller.session,
            user=outcome.user,
            provider=tool.provider if route is None else route.provider,
            account=account,
            route=tool.route,
            scopes=list(tool.grant_scopes if route is None else needed_scopes(route, tool)),
            arguments=[one.name for one in tool.parameters if one.name in given],
            outcome=ending,
            code=code,
            requests=list(outcome.requests),
            ms=round(outcome.seconds * 1000, 1),
        )
        self._metrics.tool_calls.labels(tool.qualified_name, ending).inc()


def call_ids() -> Callable[[], str]:
    """Ids that no two calls share: a prefix that is random per process, and a count. Names, not secrets."""
    prefix, count = secrets.token_hex(8), itertools.count(1)
    return lambda: f"tc_{prefix}{next(count):08x}"


def _user(caller: Caller, user: str | None) -> str:
    user = user or caller.bound_user
    if not user:
        raise UserMissing("user_id is missing")
    return user


def _unknown(name: str, tool: Tool | None) -> str:
    if tool is not None:
        return f"{tool.qualified_name} is not offered here: its route is not configured, or this caller may not call it"
    return "There is no such tool here; GET /v1/tools lists those that have a route"


__all__ = ["Asked", "Gate", "Kind", "Outcome", "Requirement", "ToolError", "Tools"]
