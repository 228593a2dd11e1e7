"""MCP at /mcp: who is asking and how much may be sent; behind it the official SDK, loaded when it is first needed."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any

import structlog
from aiohttp import web

from authproxy.control.panel import Control
from authproxy.core import message
from authproxy.core.config import Config
from authproxy.core.errors import (
    BadRequest,
    Internal,
    NotFound,
    Overloaded,
    UserMissing,
    UserNotAllowed,
)
from authproxy.core.model import DEFAULT_ACCOUNT, EMPTY, Caller
from authproxy.faces import mcp_asgi
from authproxy.faces.bodies import PATIENCE, Bodies
from authproxy.faces.edge import REQUEST_ID
from authproxy.faces.inquiry import Inquiries, demand_json
from authproxy.faces.mcp_visit import (
    LISTENED,
    SESSION_HEADER,
    VISIT,
    Said,
    Visit,
    new_session,
    opens_links,
    said,
)

if TYPE_CHECKING:
    from authproxy.faces.mcp_server import Service

log = structlog.get_logger()

MAX_REQUESTS = 256
"""Of one agent at once; each holds a connection."""
ACCOUNT_HEADER = "X-Authproxy-Account"
TELLING = 0.5
"""Seconds of the listener's last ones in which calls that have not ended are told so."""
INSTALL = "MCP needs the official SDK: pip install 'authproxy[mcp]' where authproxy runs, and start it again"


class Mcp:
    """The door. `config` is asked with each request; `patience` is in seconds, as are `timing`'s values (see
    Service)."""

    def __init__(
        self,
        inquiries: Inquiries,
        control: Control,
        config: Callable[[], Config],
        *,
        patience: float = PATIENCE,
        timing: Mapping[str, Any] = EMPTY,
    ) -> None:
        self._inquiries = inquiries
        self._control = control
        self._config = config
        self._bodies = Bodies(self._most, patience=patience)
        self._timing = timing
        self._service: Service | None = None
        self._running: asyncio.Task[None] | None = None
        self._loading = asyncio.Lock()
        self._requests: Counter[tuple[str, str]] = Counter()

    def routes(self) -> Iterable[web.AbstractRouteDef]:
        """POST alone: nothing is ever sent unasked, so there is no stream to GET, and no session to DELETE."""
        return [web.post("/mcp", self.answer)]

    async def end(self) -> None:
        """Stop the SDK's server, once the listener has let its last request go."""
        if self._running is not None and self._service is not None:
            self._service.stop()
            await asyncio.wait([self._running])

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """One message of a client, and what comes of it."""
        caller = await self._inquiries.caller(request)
        user = self._user(request, caller)
        if user is not None:
            await self._control.consent.speak_for(caller, user)
        demand_json(request)
        if self._inquiries.closing.is_set():
            raise Overloaded("authproxy is shutting down", reason="draining")
        with self._counted(caller):
            service = await self._loaded()
            async with self._bodies.held(request) as body:
                return await self._handed_on(service, request, body, self._visit(request, caller, user))

    async def _handed_on(
        self, service: Service, request: web.Request, body: bytes, visit: Visit
    ) -> web.StreamResponse:
        about = said(body)
        if about.method == "notifications/cancelled":
            service.cancel(visit, about.params.get("requestId"))
        return await mcp_asgi.answer(
            service.application,
            request,
            body,
            state={VISIT: visit},
            decorate=_with_session(about) if about.method == "initialize" else _plain,
        )

    def _visit(self, request: web.Request, caller: Caller, user: str | None) -> Visit:
        session = request.headers.get(SESSION_HEADER)
        return Visit(
            caller,
            user,
            request[REQUEST_ID],
            session=session,
            opens_links=opens_links(session),
            account=_account(request),
            toolkits=frozenset(name.casefold() for name in request.query.getall("toolkit", []) if name),
        )

    def _user(self, request: web.Request, caller: Caller) -> str | None:
        """The user whom the header names, or whose the credential is. Raises UserMissing for a name that is none,
        UserNotAllowed where this caller may not act for it."""
        header = self._config().identity.user_header
        values = _values(request, header)
        if not values:
            return caller.bound_user
        user = message.user_of(values, header)
        if not caller.allowed(user):
            raise UserNotAllowed("this caller may not act for that user", user=user)
        return user

    @contextmanager
    def _counted(self, caller: Caller) -> Iterator[None]:
        who = (caller.tenant, caller.agent)
        if self._requests[who] >= MAX_REQUESTS:
            raise Overloaded(f"{caller.agent} has {MAX_REQUESTS} requests under way already", reason="calls")
        self._requests[who] += 1
        try:
            yield
        finally:
            self._requests[who] -= 1
            if not self._requests[who]:
                del self._requests[who]

    def _most(self) -> int:
        """Bytes of a message: a tool's input, and what is around it."""
        return self._config().tools.max_input + LISTENED

    async def _loaded(self) -> Service:
        """The SDK's server, running. Importing it takes the better part of a second, beside the loop."""
        async with self._loading:
            if self._service is None or self._running is None or self._running.done():
                try:
                    await asyncio.to_thread(import_module, "authproxy.faces.mcp_server")
                except ImportError as error:
                    log.warning("mcp_not_installed", missing=error.name)
                    raise NotFound(INSTALL, reason="mcp_not_installed", status=501) from None
                self._service = self._made()
                self._running = asyncio.create_task(self._service.run())
                self._running.add_done_callback(_ended)
                await self._service.ready(self._running)
            if self._running.done():
                raise Internal("The MCP server did not start; the log says how")
            return self._service

    def _made(self) -> Service:
        from authproxy.faces.mcp_server import Service

        return Service(
            self._control,
            closing=self._inquiries.closing,
            grace=max(0.0, self._config().timeouts.shutdown - TELLING),
            **self._timing,
        )


def _values(request: web.Request, header: str) -> list[bytes]:
    key = header.lower().encode("latin-1")
    return [value for name, value in request.raw_headers if name.lower() == key]


def _account(request: web.Request) -> str:
    """Which of the user's accounts at the provider is meant, as on the data plane."""
    values = _values(request, ACCOUNT_HEADER)
    if not values:
        return DEFAULT_ACCOUNT
    try:
        return message.user_of(values, ACCOUNT_HEADER)
    except UserMissing as exc:
        raise BadRequest(exc.title, reason="account") from None


def _with_session(about: Said) -> Callable[[web.StreamResponse], None]:
    def decorate(response: web.StreamResponse) -> None:
        if response.status == 200:
            response.headers[SESSION_HEADER] = new_session(about.params)

    return decorate


def _plain(_response: web.StreamResponse) -> None:
    """Nothing to add."""


def _ended(task: asyncio.Task[None]) -> None:
    """The SDK's server ends with the process; if it does before, the next request makes another one."""
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("mcp_server_ended", error=type(error).__name__, exc_info=error)
