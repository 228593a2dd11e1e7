"""The MCP server: the official SDK's, with the tools behind it. Imported only once MCP is used."""

from __future__ import annotations

import asyncio
import logging
import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import structlog
from mcp import MCPError, UrlElicitationRequiredError, types
from mcp.server.caching import CacheHint
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp.types.version import MODERN_PROTOCOL_VERSIONS, is_version_at_least

from authproxy import __version__
from authproxy.control.consent import Authorization
from authproxy.control.panel import Control
from authproxy.core.errors import NotFound, Refusal
from authproxy.core.model import FlowStatus
from authproxy.faces import mcp_shapes as shapes
from authproxy.faces.mcp_asgi import Application
from authproxy.faces.mcp_consent import WAIT, Consents
from authproxy.faces.mcp_visit import VISIT, Visit
from authproxy.tools.tool import Tool

log = structlog.get_logger()

Context = ServerRequestContext[Any, Any]
PAGE = 200
"""Tools of one page: many clients never ask for a second one."""
BEAT = 5.0
"""Seconds between two words of progress."""
FRESH = 60_000
"""Milliseconds for which a client of the newer generation may keep the list."""
CANCELLED = -32800
_ASKS_FROM = "2025-11-25"
_CONNECT = "connect"
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,128}")


class Service:
    """One per process. It keeps nothing between two requests but the calls that are under way."""

    def __init__(
        self,
        control: Control,
        *,
        closing: asyncio.Event,
        grace: float,
        page: int = PAGE,
        beat: float = BEAT,
        wait: float = WAIT,
    ) -> None:
        """`closing` begins the end, after which calls have `grace` seconds; then they are cut off, and told so."""
        _hear_the_sdk()
        self._control = control
        self._consents = Consents(lambda: control.consent, closing, wait=wait)
        self._page = page
        self._beat = beat
        self._closing = closing
        self._grace = grace
        self._cut_off = False
        self._calls: dict[tuple[str, ...], anyio.CancelScope] = {}
        self._stopping = asyncio.Event()
        self._started = asyncio.Event()
        server: Server[Any] = Server(
            "authproxy",
            version=__version__,
            instructions=shapes.INSTRUCTIONS,
            on_list_tools=self._list_tools,
            on_call_tool=self._call_tool,
            # Without it the SDK would list all tools before each call, to look for header declarations: there are none.
            get_tool_input_schema=lambda _name: None,
            cache_hints={"tools/list": CacheHint(ttl_ms=FRESH, scope="private")},
        )
        # Host and Origin are the edge's business: it knows Service names and public_url, and the SDK's check would
        # have to be told each of them with its port. Sessions are kept nowhere (see mcp_visit), and bodies were bounded
        # where they were read.
        self._sessions = StreamableHTTPSessionManager(
            server, stateless=True, security_settings=None, max_request_body_size=sys.maxsize
        )

    @property
    def application(self) -> Application:
        """The ASGI application; each scope holds the Visit."""
        return self._sessions.handle_request

    async def run(self) -> None:
        """Serve until `stop`: the SDK's tasks live and die in this one."""
        async with self._sessions.run():
            self._started.set()
            ending = asyncio.create_task(self._end_calls())
            try:
                await self._stopping.wait()
            finally:
                ending.cancel()

    async def _end_calls(self) -> None:
        await self._closing.wait()
        await asyncio.sleep(self._grace)
        self._cut_off = True
        for scope in self._calls.values():
            scope.cancel()

    async def ready(self, running: asyncio.Task[None]) -> None:
        """Returns when `run`, which is `running`, serves or has failed."""
        started = asyncio.create_task(self._started.wait())
        await asyncio.wait([started, running], return_when=asyncio.FIRST_COMPLETED)
        started.cancel()

    def stop(self) -> None:
        """End `run`, and with it whatever is still under way."""
        self._stopping.set()

    def cancel(self, visit: Visit, request_id: object) -> None:
        """A client of the older generation says that it no longer wants an answer. Where another replica has its call,
        the call goes on, and nobody reads its answer."""
        if (
            isinstance(request_id, str | int)
            and (scope := self._calls.get(visit.key(request_id))) is not None
        ):
            scope.cancel()

    # --- what clients ask

    async def _list_tools(
        self, ctx: Context, params: types.PaginatedRequestParams | None
    ) -> types.ListToolsResult:
        visit = _visit(ctx)
        after = "" if params is None or params.cursor is None else params.cursor
        if after and not _NAME.fullmatch(after):
            raise MCPError(types.INVALID_PARAMS, "This cursor is not one of ours")
        shown = sorted(
            (shapes.mcp_name(tool), tool)
            for tool in self._control.tools.list(visit.caller)
            if _wanted(visit, tool)
        )
        rest = [pair for pair in shown if pair[0] > after]
        page = rest[: self._page]
        return types.ListToolsResult(
            tools=[shapes.shown(tool) for _, tool in page],
            next_cursor=page[-1][0] if len(rest) > len(page) else None,
        )

    async def _call_tool(
        self, ctx: Context, params: types.CallToolRequestParams
    ) -> types.CallToolResult | types.InputRequiredResult:
        visit = _visit(ctx)
        key = visit.key(ctx.request_id or "")
        with anyio.CancelScope() as scope:
            self._calls[key] = scope
            try:
                async with self._progress(ctx, f"{params.name} is under way"):
                    return await self._called(ctx, visit, params)
            except (MCPError, asyncio.CancelledError):
                raise
            except Refusal as refusal:
                return shapes.refused(refusal)
            except Exception:
                # This door's one edge: the SDK would tell the client what the exception says.
                log.exception("mcp_fault", request_id=visit.request_id)
                raise MCPError(types.INTERNAL_ERROR, "authproxy failed; its log says how") from None
            finally:
                if self._calls.get(key) is scope:
                    del self._calls[key]
        if self._cut_off:
            return shapes.cut_off()
        raise MCPError(CANCELLED, "Cancelled by the client")

    async def _called(
        self, ctx: Context, visit: Visit, params: types.CallToolRequestParams
    ) -> types.CallToolResult | types.InputRequiredResult:
        """The call; where a consent is missing, what the user is to be shown, or the call again after the consent."""
        if params.request_state is not None:
            answers = params.input_responses or {}
            ended = await self._after(visit, params.request_state, answers.get(_CONNECT))
            if ended is not None:
                return ended
        tool = self._tool(visit, params.name)
        for first in (True, False):
            outcome = await self._control.tools.execute(
                visit.caller,
                tool,
                visit.user,
                params.arguments or {},
                account=visit.account,
                patience=self._consents.patience if first else 0.0,
            )
            if outcome.error is None:
                return shapes.succeeded(outcome.value)
            missing = outcome.authorization
            if first and missing is not None and missing.status is FlowStatus.COMPLETED:
                continue  # it has come since the call was refused
            if missing is None or missing.url is None:
                return shapes.failed(outcome.error)
            begun = await self._consents.under_way(visit, missing) if first else None
            if begun is None:
                return self._ask(ctx, visit, outcome.error.message, missing)
            ended = shapes.unfinished(await self._consents.end(visit, begun))
            if ended is not None:
                return ended
        raise AssertionError("the second time it is asked")

    def _tool(self, visit: Visit, name: str) -> Tool:
        """By any spelling of its name. Raises MCPError where it does not exist for this caller."""
        try:
            tool = self._control.tools.get(visit.caller, name)
        except NotFound as unknown:
            raise MCPError(types.INVALID_PARAMS, unknown.title) from None
        if not _wanted(visit, tool):
            raise MCPError(types.INVALID_PARAMS, f"{tool.qualified_name} is not among the toolkits asked for")
        return tool

    async def _after(
        self, visit: Visit, flow_id: str, answer: types.InputResponse | None
    ) -> types.CallToolResult | None:
        """What ends the call after the user was shown a link; None: it may go on."""
        if not isinstance(answer, types.ElicitResult) or answer.action != "accept":
            return shapes.declined()
        try:
            return shapes.unfinished(await self._consents.end(visit, flow_id))
        except NotFound:
            raise MCPError(types.INVALID_PARAMS, "This requestState is not one of ours") from None

    def _ask(
        self, ctx: Context, visit: Visit, message: str, missing: Authorization
    ) -> types.CallToolResult | types.InputRequiredResult:
        """The link, as this client can show it: by itself, in the words of its generation, or through its model."""
        assert missing.url is not None
        link = shapes.link(visit.caller.agent, missing, missing.url)
        newer = ctx.protocol_version in MODERN_PROTOCOL_VERSIONS
        older = visit.opens_links and not newer and is_version_at_least(ctx.protocol_version, _ASKS_FROM)
        self._consents.ask(visit, missing, opens=older)
        if older:
            raise UrlElicitationRequiredError([link], link.message)
        if newer and _opens_links(ctx.session.client_capabilities):
            asked = types.ElicitRequest(params=link)
            return types.InputRequiredResult(input_requests={_CONNECT: asked}, request_state=missing.id)
        return shapes.consent_needed(message, missing.url)

    @asynccontextmanager
    async def _progress(self, ctx: Context, words: str) -> AsyncIterator[None]:
        """Tells a client that wants to know, now and then, that its call is not forgotten."""
        if ctx.meta is None or "progress_token" not in ctx.meta:
            yield
            return
        telling = asyncio.create_task(self._tell(ctx, words))
        try:
            yield
        finally:
            telling.cancel()
            await asyncio.wait([telling])

    async def _tell(self, ctx: Context, words: str) -> None:
        count = 0
        while True:
            await asyncio.sleep(self._beat)
            count += 1
            await ctx.session.report_progress(count, message=words)


def _visit(ctx: Context) -> Visit:
    visit = None if ctx.request is None else ctx.request.scope[VISIT]
    assert isinstance(visit, Visit)
    return visit


def _opens_links(capabilities: types.ClientCapabilities | None) -> bool:
    elicitation = None if capabilities is None else capabilities.elicitation
    return elicitation is not None and elicitation.url is not None


def _wanted(visit: Visit, tool: Tool) -> bool:
    return not visit.toolkits or tool.toolkit.casefold() in visit.toolkits


class _Ear(logging.Handler):
    """The SDK's own words hold what clients and tools said, so of them only the place is told."""

    def emit(self, record: logging.LogRecord) -> None:
        fault = record.exc_info[0] if record.exc_info else None
        log.warning(
            "mcp_sdk",
            level=record.levelname.lower(),
            where=f"{record.name}:{record.lineno}",
            fault=None if fault is None else fault.__name__,
        )


def _hear_the_sdk() -> None:
    for name in ("mcp", "sse_starlette"):
        logger = logging.getLogger(name)
        logger.propagate = False
        logger.setLevel(logging.WARNING)
        logger.handlers[:] = [_Ear()]
