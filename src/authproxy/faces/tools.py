"""/v1/tools: the tools as the public clients know them, listed, authorized and called."""

from __future__ import annotations

import re
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from aiohttp import web

from authproxy.control import tool_views, views
from authproxy.control.consent import MAX_WAIT
from authproxy.control.panel import Control
from authproxy.core.errors import BadRequest, NotFound
from authproxy.core.model import DEFAULT_ACCOUNT, Caller
from authproxy.core.toolbox import Tools as Limits
from authproxy.faces.bodies import Bodies
from authproxy.faces.inquiry import (
    Answer,
    Inquiries,
    body_of,
    demand_json,
    number_of,
    object_in,
    object_of,
    query_of,
    text_in,
)
from authproxy.tools.tool import Tool

_WAIT = re.compile(r"wait=([0-9]{1,9})", re.IGNORECASE).fullmatch
SOON = 60.0
"""Seconds ahead of our clock that a `run_at` may be and still mean now."""


class Tools:
    """Reads a request, asks Control, writes its answer. No decision is taken here."""

    def __init__(self, control: Control, inquiries: Inquiries, limits: Callable[[], Limits]) -> None:
        self._control = control
        self._inquiries = inquiries
        self._bodies = Bodies(lambda: limits().max_input)

    def routes(self) -> Iterable[web.AbstractRouteDef]:
        """Every path of tools."""
        asked = self._inquiries.asked
        return [
            web.get("/v1/tools", asked(self.list)),
            web.get("/v1/tools/{name}", asked(self.show)),
            web.post("/v1/tools/authorize", asked(self.authorize)),
            web.post("/v1/tools/execute", asked(self.execute)),
            web.get("/v1/formatted_tools", asked(self.list_formatted)),
            web.get("/v1/formatted_tools/{name}", asked(self.show_formatted)),
            web.get("/v1/scheduled_tools", asked(self.list_scheduled)),
            web.get("/v1/scheduled_tools/{id}", asked(self.show_scheduled)),
        ]

    async def list(self, request: web.Request, caller: Caller) -> Answer:
        formats = _formats(request)
        tools = self._control.tools.list(caller, toolkit=query_of(request, "toolkit"))
        return await _page(request, tools, lambda some: self._definitions(request, caller, some, formats))

    async def show(self, request: web.Request, caller: Caller) -> Answer:
        tool = self._control.tools.get(caller, request.match_info["name"])
        return (await self._definitions(request, caller, [tool], _formats(request)))[0]

    async def list_formatted(self, request: web.Request, caller: Caller) -> Answer:
        name = _format(query_of(request, "format") or "openai")
        tools = self._control.tools.list(caller, toolkit=query_of(request, "toolkit"))
        return await _page(request, tools, lambda some: self._formatted(request, caller, some, name))

    async def show_formatted(self, request: web.Request, caller: Caller) -> Answer:
        name = _format(query_of(request, "format") or "openai")
        tool = self._control.tools.get(caller, request.match_info["name"])
        return (await self._formatted(request, caller, [tool], name))[0]

    async def authorize(self, request: web.Request, caller: Caller) -> Answer:
        body = await body_of(request)
        one = await self._control.tools.authorize(
            caller,
            self._named(body, caller),
            text_in(body, "user_id"),
            account=text_in(body, "account") or DEFAULT_ACCOUNT,
            next_uri=text_in(body, "next_uri"),
        )
        return views.authorization(one)

    async def execute(self, request: web.Request, caller: Caller) -> Answer:
        demand_json(request)
        body = object_of(await self._bodies.read(request))
        _demand_now(text_in(body, "run_at"))
        outcome = await self._control.tools.execute(
            caller,
            self._named(body, caller),
            text_in(body, "user_id"),
            object_in(body, "input", missing={}),
            account=text_in(body, "account") or DEFAULT_ACCOUNT,
            patience=_patience(request),
            there=lambda: request.transport is not None,
        )
        said = tool_views.execution(outcome)
        if outcome.authorization is not None and request.headers.get("X-Stainless-Lang") == "js":
            # The helpers of @arcadeai/arcadejs (`executeOrAuthorizeZodTool`) know a missing consent by this alone.
            return web.json_response(tool_views.consent_needed(said), status=403)
        if outcome.error is None or outcome.error.code != "approval_required":
            return said
        # Nothing was refused and nothing done: RFC 9110 section 15.3.3.
        place = {"Location": f"/v1/approvals/{outcome.error.approval}"}
        return web.json_response(said, status=202, headers=place)

    async def list_scheduled(self, request: web.Request, _caller: Caller) -> Answer:
        """Nothing is ever scheduled; the public client may look all the same."""
        limit, offset = _bounds(request)
        return tool_views.page([], offset=offset, limit=limit, total=0)

    async def show_scheduled(self, _request: web.Request, _caller: Caller) -> Answer:
        raise NotFound("There is no such execution: calls run at once, and are told in their answer")

    # --- parts

    def _named(self, body: Mapping[str, Any], caller: Caller) -> Tool:
        name = text_in(body, "tool_name")
        if not name:
            raise BadRequest("tool_name is missing", reason="tool_name")
        return self._control.tools.get(caller, name, text_in(body, "tool_version"))

    async def _definitions(
        self, request: web.Request, caller: Caller, tools: Sequence[Tool], formats: Sequence[str]
    ) -> Sequence[dict[str, Any]]:
        room = self._control.tools
        needs = await room.requirements(caller, tools, query_of(request, "user_id"))
        return [
            tool_views.definition(tool, room.kit(tool), need, formats)
            for tool, need in zip(tools, needs, strict=True)
        ]

    async def _formatted(
        self, request: web.Request, caller: Caller, tools: Sequence[Tool], name: str
    ) -> Sequence[dict[str, Any]]:
        if name == "arcade":
            return await self._definitions(request, caller, tools, ())
        return [tool_views.formatted(tool, name) for tool in tools]


async def _page(
    request: web.Request,
    tools: Sequence[Tool],
    show: Callable[[Sequence[Tool]], Awaitable[Sequence[dict[str, Any]]]],
) -> dict[str, Any]:
    limit, offset = _bounds(request)
    items = await show(tools[offset : offset + limit])
    return tool_views.page(items, offset=offset, limit=limit, total=len(tools))


def _bounds(request: web.Request) -> tuple[int, int]:
    limit = number_of(request, "limit", default=25, least=1, most=100)
    return limit, number_of(request, "offset", default=0, least=0, most=10**9)


def _formats(request: web.Request) -> tuple[str, ...]:
    """`include_format=openai,anthropic`, once or several times, also as `include_format[]`."""
    said = [*request.query.getall("include_format", []), *request.query.getall("include_format[]", [])]
    return tuple(dict.fromkeys(_format(name) for one in said for name in one.split(",") if name))


def _format(name: str) -> str:
    if name not in tool_views.FORMATS:
        raise BadRequest(f"A format must be one of {', '.join(tool_views.FORMATS)}", reason="format")
    return name


def _patience(request: web.Request) -> float:
    """Seconds that the caller would wait for somebody's yes: `Prefer: wait=30` (RFC 7240 section 4.3)."""
    found = [_WAIT(word.strip()) for one in request.headers.getall("Prefer", []) for word in one.split(",")]
    return min([MAX_WAIT, *(float(one[1]) for one in found if one is not None)]) if any(found) else 0.0


def _demand_now(run_at: str | None) -> None:
    """Raises BadRequest for a time that is none, or has not come: nothing here would call the tool then."""
    if run_at is None:
        return
    try:
        at = datetime.fromisoformat(run_at)
    except ValueError:
        raise BadRequest("run_at must be a time in ISO 8601", reason="run_at") from None
    if (at if at.tzinfo is not None else at.replace(tzinfo=UTC)).timestamp() > time.time() + SOON:
        raise BadRequest(
            "Scheduled execution is not offered: call the tool when it is time", reason="run_at", status=501
        )
