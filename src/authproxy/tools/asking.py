"""The API that a tool's function is given: each call a request on the walk, each failure a ToolError."""

from __future__ import annotations

import json as codec
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlencode, urljoin, urlsplit

from authproxy import __version__
from authproxy.core.model import Caller
from authproxy.core.routes import Route
from authproxy.proxy.behalf import Behalf
from authproxy.proxy.inner import Heard, Inner
from authproxy.tools.failures import failure_of, is_page, read_json, refusal_of
from authproxy.tools.loading import Kit
from authproxy.tools.rows import METHODS
from authproxy.tools.scopes import needed_scopes
from authproxy.tools.tool import Answer, Json, Kind, Tool, ToolError, bad_input

MOST_REQUESTS = 200
"""Of one call: more is a loop that does not end."""
MAX_TARGET = 16_384
"""Bytes of path and query; no provider takes longer ones."""
_MOVES = 3  # redirects followed, all of them to where the request was allowed to go

_PATH = re.compile(r"(?:/[A-Za-z0-9._~!$&'()*+,;=:@%-]+)+|/")  # RFC 3986's path, without empty segments
_VALUE = re.compile(r"[!-~](?:[ -~]*[!-~])?")
_AGENT = (
    b"User-Agent",
    f"authproxy/{__version__} (gzip)".encode(),
)  # Google compresses only for those who say so here
_CODED = (b"Accept-Encoding", b"gzip")


@dataclass(frozen=True, slots=True)
class Errand:
    """One call of a tool: whose it is, and what it is allowed to cost."""

    tool: Tool
    kit: Kit
    caller: Caller
    user: str
    account: str
    call: str
    max_answer: int


@dataclass(slots=True)
class WalkApi:
    """Sends the requests of one call. `requests` are the ids of those sent, in their order."""

    inner: Inner
    errand: Errand
    requests: list[str] = field(default_factory=list)
    wrote: bool = False
    now: Callable[[], float] = time.time

    async def call(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, Any] | None = None,
        json: Json = None,
        body: bytes | None = None,
        content_type: str | None = None,
        accept: str = "application/json",
        route: str | None = None,
    ) -> Answer:
        """As `Api.call` says."""
        fields = [_AGENT, _CODED, (b"Accept", _field(accept))]
        if json is not None:
            body = codec.dumps(json, ensure_ascii=False, allow_nan=False).encode()
            content_type = content_type or "application/json; charset=utf-8"
        if body is not None:
            fields.append((b"Content-Type", _field(content_type or "application/octet-stream")))
        if self.errand.account != "default":
            fields.append((b"X-Authproxy-Account", self.errand.account.encode()))
        if method not in METHODS:
            raise ValueError(f"{method} is no method for a tool")
        where = self._route(route or self.errand.tool.route)
        heard = await self._send(where, method, target_of(path, query), fields, body)
        return self._answer(heard)

    async def _send(
        self, route: Route, method: str, target: str, fields: list[tuple[bytes, bytes]], body: bytes | None
    ) -> Heard:
        for _ in range(_MOVES + 1):
            if len(self.requests) >= MOST_REQUESTS:
                raise ToolError(Kind.FATAL, f"The tool sent {MOST_REQUESTS} requests and was stopped.")
            behalf = self._behalf(route)
            self.wrote |= method != "GET"
            try:
                heard = await self.inner.send(
                    behalf,
                    route,
                    method,
                    target.encode("ascii"),
                    fields,
                    body,
                )
            finally:
                self.requests += [entry.request_id for entry in behalf.entries]
            self._demand_whole(heard, route)
            moved = _moved(heard, route, method, target)
            if moved is None:
                return heard
            target = moved
        raise ToolError(Kind.UNMAPPED, f"{self.errand.kit.name} sends from one place to another without end.")

    def _answer(self, heard: Heard) -> Answer:
        if heard.status >= 300:
            raise failure_of(heard, self.errand.kit, now=self.now(), repeatable=self.repeatable)
        answer = Answer(heard.status, heard.fields, heard.body, read_json(heard))
        if answer.json is None and is_page(heard):
            raise ToolError(
                Kind.BAD_OUTPUT,
                f"{self.errand.kit.name} answered with a page for people instead of data.",
                developer_message="something between authproxy and the provider may have answered",
                status=heard.status,
            )
        read_failure = self.errand.kit.read_failure
        if read_failure is not None and (failure := read_failure(answer)) is not None:
            raise failure
        return answer

    def _demand_whole(self, heard: Heard, route: Route) -> None:
        if heard.long:
            raise ToolError(
                Kind.BAD_OUTPUT,
                f"{self.errand.kit.name}'s answer is too long to be read. Ask for less.",
                developer_message=f"tools.max_answer is {self.errand.max_answer} bytes",
            )
        if heard.entry.code is not None and not heard.cut:
            base = route.base_path.decode("ascii")
            raise refusal_of(heard, self.errand.kit, base=base, repeatable=self.repeatable)
        if heard.cut:
            raise ToolError(
                Kind.UNREACHABLE,
                f"{self.errand.kit.name}'s answer broke off"
                + ("." if self.repeatable else "; it may have been done: look before trying again."),
                can_retry=self.repeatable,
                code=heard.entry.code,
            )

    @property
    def repeatable(self) -> bool:
        """Whether calling the tool again does no harm: it only reads, or says so, or has not written anything yet."""
        marks = self.errand.tool.marks
        return marks.read_only or marks.idempotent or not self.wrote

    def _route(self, name: str) -> Route:
        own, found = self.inner.route(self.errand.tool.route), self.inner.route(name)
        if found is None or own is None or found.provider != own.provider:
            raise ToolError(
                Kind.REQUIREMENTS_NOT_MET,
                f"This needs the route {name}, which the operator has not configured.",
                developer_message=f"routes.yaml has no route {name} of the tool's provider",
                code="no_route",
            )
        return found

    def _behalf(self, route: Route) -> Behalf:
        errand = self.errand
        return Behalf(
            caller=errand.caller,
            user=errand.user,
            tool=errand.tool.qualified_name,
            call=errand.call,
            scopes=needed_scopes(route, errand.tool),
            limit=errand.max_answer,
            account=errand.account,
        )


def target_of(path: str, query: Mapping[str, Any] | None) -> str:
    """Path and query as they are sent.

    Raises ToolError for a path that an argument has bent: with an empty segment (`/labels/` is the list, not an item
    of it), a dot segment, a query or a fragment. What is encoded in it is judged by the walk like everybody's.
    """
    if not _PATH.fullmatch(path) or any(part in (".", "..") for part in path.split("/")):
        raise bad_input(
            "An argument is not an id that can stand in a path: it is empty, or has characters of a path"
        )
    pairs = [
        (name, ("true" if one else "false") if isinstance(one, bool) else str(one))
        for name, value in (query or {}).items()
        for one in (value if isinstance(value, list | tuple) else [value])
        if one is not None
    ]
    target = f"{path}?{urlencode(pairs, quote_via=quote)}" if pairs else path
    if len(target) > MAX_TARGET:
        raise bad_input("The arguments are too long: they must fit into a URL")
    return target


def _field(value: str) -> bytes:
    """A field's value. There is no parser between us and the upstream that would refuse a line break."""
    if not _VALUE.fullmatch(value):
        raise ValueError("a header field of a tool's request has characters that none may have")
    return value.encode("ascii")


def _moved(heard: Heard, route: Route, method: str, target: str) -> str | None:
    """Where a redirect leads, if it is to the very upstream that was asked: GitHub does it for what was renamed."""
    if heard.status not in ((301, 302, 307, 308) if method == "GET" else (307, 308)):
        return None
    asked = f"{route.scheme}://{heard.entry.host}:{route.port}{heard.entry.path.decode('latin-1')}"
    to = urlsplit(urljoin(asked, heard.fields.get("location", "")))
    base = route.base_path.decode("ascii")
    try:
        same = (to.scheme, to.hostname, to.port or route.port) == (route.scheme, heard.entry.host, route.port)
    except ValueError:
        return None
    moved = to.path[len(base) :] + (f"?{to.query}" if to.query else "")
    return moved if same and to.path.startswith(base + "/") and moved.isascii() and moved != target else None
