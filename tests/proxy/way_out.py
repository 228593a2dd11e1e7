"""Stands the way out beside a raw origin."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

from authproxy.core.config import Limits, Timeouts
from authproxy.egress import EgressGuard
from authproxy.proxy.answer import Answer
from authproxy.proxy.upstream import Exchange, Origin, Upstream
from tests.proxy.raw import RawUpstream, Script

TIMEOUTS = Timeouts(connect=5, first_byte=5, idle=5, upstream_idle=15)


class WayOut:
    """One Upstream and one origin; builds exchanges and reads answers."""

    def __init__(self, upstream: Upstream, raw: RawUpstream, scheme: str, host: str) -> None:
        self.upstream = upstream
        self.raw = raw
        self.origin = Origin(scheme, host, raw.port)

    def exchange(self, method: str = "GET", **more: Any) -> Exchange:
        """A request for `/`, framed by what is said of its body."""
        lines = [f"{method} / HTTP/1.1", f"Host: {self.origin.host}"]
        body = more.get("body")
        if more.get("chunked"):
            lines.append("Transfer-Encoding: chunked")
        elif body is not None:
            more.setdefault("length", len(body) if isinstance(body, bytes) else None)
            lines.append(f"Content-Length: {more['length']}")
        if more.get("expect_continue"):
            lines.append("Expect: 100-continue")
        head = ("\r\n".join(lines) + "\r\n\r\n").encode()
        more.setdefault("idempotent", method in ("GET", "HEAD", "OPTIONS"))
        return Exchange(self.origin, head, method.encode(), **more)

    async def send(self, method: str = "GET", **more: Any) -> Answer:
        return await self.upstream.send(self.exchange(method, **more))

    async def get(self, method: str = "GET", **more: Any) -> tuple[Answer, bytes]:
        """The answer and its whole body."""
        answer = await self.send(method, **more)
        return answer, await read_all(answer)


async def read_all(answer: Answer) -> bytes:
    body = b""
    while piece := await answer.read():
        body += piece
    return body


@contextlib.asynccontextmanager
async def way_out(
    script: Script,
    *,
    limits: Limits | None = None,
    tls: ssl.SSLContext | None = None,
    trust: ssl.SSLContext | None = None,
    host: str = "127.0.0.1",
    buffer: int = 2**20,
    guard: EgressGuard | None = None,
    **timeouts: float,
) -> AsyncIterator[WayOut]:
    async with RawUpstream(script, tls=tls, buffer=buffer) as raw:
        upstream = Upstream(
            EgressGuard(["127.0.0.1", "localhost"]) if guard is None else guard,
            limits=limits or Limits(),
            timeouts=replace(TIMEOUTS, **timeouts),
            tls=trust,
        )
        try:
            yield WayOut(upstream, raw, "http" if tls is None else "https", host)
        finally:
            await upstream.close()
            assert upstream.open == upstream.idle == 0
