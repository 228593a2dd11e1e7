"""The way back: an upstream's answer, or a refusal of our own, written to the agent as one well-framed message."""

from __future__ import annotations

import json

from authproxy.core.errors import CallerUnknown, Refusal
from authproxy.core.message import RequestFields, answer_lines
from authproxy.proxy.record import Entry
from authproxy.proxy.server import Incoming
from authproxy.proxy.upstream import Answer

_REASONS = {
    400: b"Bad Request",
    403: b"Forbidden",
    404: b"Not Found",
    405: b"Method Not Allowed",
    407: b"Proxy Authentication Required",
    413: b"Content Too Large",
    417: b"Expectation Failed",
    421: b"Misdirected Request",
    431: b"Request Header Fields Too Large",
    500: b"Internal Server Error",
    502: b"Bad Gateway",
    503: b"Service Unavailable",
    504: b"Gateway Timeout",
    505: b"HTTP Version Not Supported",
}


class Reply:
    """Where the answer to one request goes, and what is known of how it must be framed."""

    __slots__ = ("body_pending", "entry", "head_sent", "incoming", "keep_alive", "resend")

    def __init__(self, incoming: Incoming, entry: Entry) -> None:
        self.incoming = incoming
        self.entry = entry
        self.keep_alive = False
        self.head_sent = False
        self.resend = False
        self.body_pending = False

    def read(self, fields: RequestFields) -> None:
        """Take from the request what decides whether its connection lives on (RFC 9112 §9.3)."""
        self.keep_alive = self.incoming.version == (1, 1) and not fields.close
        self.body_pending = fields.chunked or bool(fields.content_length)

    @property
    def bodiless(self) -> bool:
        return self.incoming.method == "HEAD"

    def write(self, data: bytes) -> None:
        self.incoming.client.write(data)
        self.head_sent = True


def refuse(reply: Reply, refusal: Refusal) -> None:
    """Answer in authproxy's own name. After a head has gone out only the connection can tell: it is cut."""
    entry = reply.entry
    entry.code, entry.act = refusal.code, str(refusal.act)
    if reply.head_sent:
        reply.keep_alive = False
        reply.incoming.client.abort()
        return
    entry.status = refusal.status
    if reply.body_pending and not reply.incoming.content.is_eof():
        # The rest of the body is still coming; it must not be read as the next request (RFC 9112 §9.3).
        reply.keep_alive = False
    body = json.dumps(refusal.problem(entry.request_id), ensure_ascii=False).encode()
    head = [
        b"HTTP/1.1 %d %b\r\n" % (refusal.status, _REASONS.get(refusal.status, b"Refused")),
        b"Content-Type: application/problem+json\r\n",
        b"Content-Length: %d\r\n" % len(body),
        b"Cache-Control: no-store\r\n",
        b"X-Authproxy-Error: %b\r\n" % refusal.code.encode("ascii"),
        b"X-Request-ID: %b\r\n" % entry.request_id.encode("ascii"),
    ]
    if refusal.retry_after is not None:
        head.append(b"Retry-After: %d\r\n" % refusal.retry_after)
    if isinstance(refusal, CallerUnknown):
        head.append(b'Proxy-Authenticate: Basic realm="authproxy"\r\n')
    if refusal.status == 405:
        head.append(b"Allow: GET, HEAD, OPTIONS, POST, PUT, PATCH, DELETE\r\n")
    if not reply.keep_alive:
        head.append(b"Connection: close\r\n")
    head.append(b"\r\n")
    if not reply.bodiless:
        head.append(body)
        entry.bytes_out = len(body)
    if reply.incoming.client.transport is not None:
        reply.write(b"".join(head))


async def relay(reply: Reply, answer: Answer, peeked: bytes, *, keep_set_cookie: bool) -> None:
    """Hand an upstream's answer on: fields and bytes as they came, framing by RFC 9112 §6 for this agent.

    Raises the way out's refusals where the answer breaks off; the caller then cuts the connection, so that
    a truncated body never looks whole.
    """
    entry = reply.entry
    entry.status = answer.status
    lines = answer_lines(answer.fields, keep_set_cookie=keep_set_cookie)
    entry.upstream_request_id = _upstream_id(lines)
    if entry.upstream_request_id is None:
        lines.append(b"X-Request-ID: %b\r\n" % entry.request_id.encode("ascii"))
    if reply.resend:
        lines.append(b"X-Authproxy-Retry: resend\r\n")
    chunked = _frame(reply, answer, lines)
    head = b"HTTP/1.1 %d %b\r\n%b\r\n" % (answer.status, answer.reason, b"".join(lines))
    client = reply.incoming.client
    first = peeked + answer.take()
    if answer.ended:
        reply.write(head + (_last(first) if chunked else first))
        entry.bytes_out += len(first)
        return
    reply.write(head + _piece(first, chunked))
    entry.bytes_out += len(first)
    while not answer.ended:
        await client.drain()
        data = await answer.read()
        if data:
            client.write(_piece(data, chunked))
            entry.bytes_out += len(data)
    if chunked:
        client.write(b"0\r\n\r\n")
    await client.drain()


def _frame(reply: Reply, answer: Answer, lines: list[bytes]) -> bool:
    """Add the framing lines; says whether the body goes out in chunks."""
    if not reply.incoming.content.is_eof():
        # An answer before the request's end: what is left of the body must not be read as a request.
        reply.keep_alive = False
    chunked = False
    if answer.framing == "length" or (answer.framing == "none" and answer.length is not None):
        lines.append(b"Content-Length: %d\r\n" % (answer.length or 0))
    elif answer.framing in ("chunked", "close"):
        chunked = reply.incoming.version == (1, 1)
        if chunked:
            lines.append(b"Transfer-Encoding: chunked\r\n")
        else:
            reply.keep_alive = False
    if not reply.keep_alive:
        lines.append(b"Connection: close\r\n")
    return chunked


def _piece(data: bytes, chunked: bool) -> bytes:
    if not chunked or not data:
        return data
    return b"%x\r\n%b\r\n" % (len(data), data)


def _last(data: bytes) -> bytes:
    return _piece(data, True) + b"0\r\n\r\n"


def _upstream_id(lines: list[bytes]) -> str | None:
    for line in lines:
        if line[:13].lower() == b"x-request-id:":
            return line[13:].strip().decode("latin-1")[:200]
    return None
