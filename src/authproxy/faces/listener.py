"""The control plane's listener: what the parser refuses is answered in the one shape, and quoted nowhere."""

from __future__ import annotations

import asyncio
import secrets
from typing import Any

import structlog
from aiohttp import web
from aiohttp.http_exceptions import LineTooLong
from aiohttp.web_protocol import RequestHandler

from authproxy.core.errors import BadRequest, HeaderTooLarge, Internal, Refusal

log = structlog.get_logger()


class _Connection(RequestHandler):
    """aiohttp would log and answer with the very bytes that it could not read: a callback's code among them (F02)."""

    __slots__ = ()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        refusal: Refusal
        if isinstance(exc, LineTooLong):
            refusal = HeaderTooLarge("The request line or a header line is too long")
        elif status < 500:
            refusal = BadRequest("The request is not well-formed HTTP/1.1", reason="syntax")
        else:
            refusal = Internal("authproxy failed; its log says how")
        request_id = secrets.token_hex(16)
        log.warning(
            "control_refused",
            request_id=request_id,
            code=refusal.code,
            fault=type(exc).__name__ if exc else None,
        )
        if request.writer.output_size > 0:
            raise ConnectionError("an answer is half sent")
        response = web.json_response(
            refusal.problem(request_id),
            status=refusal.status,
            content_type="application/problem+json",
            headers={
                "X-Authproxy-Error": refusal.code,
                "X-Request-ID": request_id,
                "Cache-Control": "no-store",
                "Server": "authproxy",
            },
        )
        response.force_close()
        return response


class _Server(web.Server):
    def __call__(self) -> RequestHandler:
        return _Connection(self, loop=asyncio.get_running_loop(), **self._kwargs)


class Runner(web.AppRunner):
    """web.AppRunner with our own connections."""

    __slots__ = ()

    async def _make_server(self) -> Any:
        made = await super()._make_server()
        return _Server(made.request_handler, request_factory=made.request_factory, **self._kwargs)
