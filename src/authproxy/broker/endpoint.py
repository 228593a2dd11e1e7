"""The way to token, revocation, userinfo and discovery endpoints: sends a request once and says what is certain."""

from __future__ import annotations

import asyncio
import ssl
import zlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from types import SimpleNamespace

import aiohttp
from aiohttp.abc import AbstractResolver, AbstractStreamWriter
from yarl import URL

from authproxy import __version__
from authproxy.core.errors import EgressBlocked
from authproxy.core.oauth import TokenRequest

BODY_LIMIT = 256 * 1024
AT_ONCE = (
    64  # calls under way to one server; a limit over all of them would let one that hangs stop the others
)


class NeverSent(Exception):
    """No byte of the request left: DNS, connect, TLS, a refused address. Trying again is harmless."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class MaybeSent(Exception):
    """The connection stood and no answer came of it: the server may have acted or not."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back. `body` is empty where it was over the limit or could not be read; repr shows none of it, nor
    of where a redirect leads, which nobody follows."""

    status: int
    content_type: str
    retry_after: str | None
    date: int | None
    body: bytes = field(repr=False)
    location: str | None = field(default=None, repr=False)


class Endpoint:
    """An HTTP client with nothing automatic in it: no redirects, cookies, retries, environment proxies or reused
    connections; addresses are judged by `check` (literals, which no resolver sees) and by the resolver; one
    deadline over everything, so that a peer that drips one byte at a time ends as well."""

    def __init__(
        self,
        *,
        resolver: AbstractResolver | None = None,
        check: Callable[[str, int], None] | None = None,
        tls: ssl.SSLContext | None = None,
        deadline: float = 30.0,
        connections: int = AT_ONCE,
    ) -> None:
        self._resolver = resolver
        self._check = check
        self._tls = tls
        self._deadline = deadline
        self._connections = connections
        self._session: aiohttp.ClientSession | None = None

    async def send(
        self,
        request: TokenRequest,
        *,
        deadline: float | None = None,
        sent: Callable[[], Awaitable[None]] | None = None,
    ) -> Reply:
        """Send `request`, once. Raises NeverSent or MaybeSent; being cancelled counts as maybe sent. `sent` is
        awaited when the last byte has been handed to the socket."""
        headers = dict(request.headers)
        body = request.body if sent is None else _Told(request.body, sent)
        return await self._exchange(request.method, request.url, headers, body, deadline)

    async def get(self, url: str, headers: Mapping[str, str], *, deadline: float | None = None) -> Reply:
        """GET a discovery document or userinfo."""
        return await self._exchange("GET", url, dict(headers), None, deadline)

    async def close(self) -> None:
        """Let go of the sockets."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def _exchange(
        self,
        method: str,
        url: str,
        headers: dict[str, str],
        body: bytes | _Told | None,
        deadline: float | None,
    ) -> Reply:
        target = URL(url, encoded=True)
        try:
            if self._check is not None:
                self._check(target.host or "", target.port or 0)
        except EgressBlocked:
            raise NeverSent("egress_blocked") from None
        wire = SimpleNamespace(connected=False)
        headers.setdefault("User-Agent", f"authproxy/{__version__}")
        headers["Accept-Encoding"] = "identity"
        when = asyncio.get_running_loop().time() + (self._deadline if deadline is None else deadline)
        try:
            async with asyncio.timeout_at(when):
                response = await self._open().request(
                    method, target, headers=headers, data=body, allow_redirects=False, trace_request_ctx=wire
                )
            try:
                return await _read(response, when)
            finally:
                response.close()
        except EgressBlocked:
            raise NeverSent("egress_blocked") from None
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            # What the trace saw decides, not the exception's class: until the connection stood, nothing was sent.
            reason = _word(error)
            raise (MaybeSent(reason) if wire.connected else NeverSent(reason)) from None

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            trace = aiohttp.TraceConfig()
            trace.on_connection_create_end.append(_connected)
            trace.on_connection_reuseconn.append(_connected)
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    force_close=True,
                    limit=0,
                    limit_per_host=self._connections,
                    use_dns_cache=False,
                    resolver=self._resolver,
                    ssl=True if self._tls is None else self._tls,
                ),
                cookie_jar=aiohttp.DummyCookieJar(),
                trust_env=False,
                auto_decompress=False,
                timeout=aiohttp.ClientTimeout(total=None),
                trace_configs=[trace],
            )
        return self._session


class _Told(aiohttp.BytesPayload):
    """A body that says when it has been written."""

    def __init__(self, value: bytes, sent: Callable[[], Awaitable[None]]) -> None:
        super().__init__(value)
        self._sent = sent

    async def write_with_length(self, writer: AbstractStreamWriter, content_length: int | None) -> None:
        await super().write_with_length(writer, content_length)
        await self._sent()


async def _connected(_session: aiohttp.ClientSession, context: SimpleNamespace, _params: object) -> None:
    context.trace_request_ctx.connected = True


async def _read(response: aiohttp.ClientResponse, when: float) -> Reply:
    try:
        async with asyncio.timeout_at(when):
            body = await _body(response)
    except (aiohttp.ClientError, OSError, TimeoutError):
        # A refusal's status stands, whatever becomes of its body; of a success the body is the point.
        if 200 <= response.status < 300:
            raise
        body = b""
    return Reply(
        status=response.status,
        content_type=response.headers.get("Content-Type", ""),
        retry_after=response.headers.get("Retry-After"),
        date=_instant(response.headers.get("Date")),
        body=body,
        location=response.headers.get("Location"),
    )


async def _body(response: aiohttp.ClientResponse) -> bytes:
    """The decoded body; empty when it is over the limit (half a form would still parse) or in no known coding."""
    raw = bytearray()
    async for piece in response.content.iter_any():
        raw += piece
        if len(raw) > BODY_LIMIT:
            return b""
    coding = response.headers.get("Content-Encoding", "identity").strip().lower()
    if coding in ("", "identity"):
        return bytes(raw)
    if coding not in ("gzip", "x-gzip", "deflate"):
        return b""
    inflate = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)  # 32: gzip or zlib, by its own header
    try:
        plain = inflate.decompress(bytes(raw), BODY_LIMIT)
    except zlib.error:
        return b""
    return plain if inflate.eof else b""


def _instant(text: str | None) -> int | None:
    try:
        return None if text is None else int(parsedate_to_datetime(text).timestamp())
    except (ValueError, OverflowError):
        return None


def _word(error: Exception) -> str:
    """One short word for the log and for an event; never the exception's text, which may quote the request."""
    words: tuple[tuple[type[Exception] | tuple[type[Exception], ...], str], ...] = (
        (TimeoutError, "timeout"),
        (aiohttp.ClientConnectorDNSError, "dns"),
        ((aiohttp.ClientSSLError, aiohttp.ClientConnectorCertificateError, ssl.SSLError), "tls"),
        (aiohttp.ClientConnectorError, "connect"),
        (aiohttp.InvalidURL, "bad_url"),
        (aiohttp.ClientPayloadError, "cut_short"),
        (aiohttp.ClientResponseError, "not_http"),
        ((aiohttp.ServerDisconnectedError, aiohttp.ClientOSError, ConnectionError), "disconnected"),
    )
    return next((word for kind, word in words if isinstance(error, kind)), "broken")
