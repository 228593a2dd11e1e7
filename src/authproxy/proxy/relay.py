"""The way back: an upstream's answer, or a refusal of our own, written to the agent as one well-framed message."""

from __future__ import annotations

import json
from collections.abc import Sequence

from authproxy.core.errors import BadRequest, CallerUnknown, HeaderTooLarge, Refusal
from authproxy.core.message import RequestFields, answer_lines
from authproxy.core.rewriting import DIGESTS, MOVED_FIELDS, Base, Move, Rewriter
from authproxy.core.routes import Route
from authproxy.core.scrub import Scrubber, Watcher, is_text, reflected, scrubbed_value
from authproxy.proxy.record import Entry
from authproxy.proxy.server import Incoming
from authproxy.proxy.upstream import Answer

_LAST = b"0\r\n\r\n"
_AT_ONCE = 64 * 1024  # bytes of a body that is searched together with its head

Fields = Sequence[tuple[bytes, bytes]]

_REASONS = {
    400: b"Bad Request",
    403: b"Forbidden",
    404: b"Not Found",
    405: b"Method Not Allowed",
    407: b"Proxy Authentication Required",
    408: b"Request Timeout",
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

    __slots__ = (
        "base",
        "body_pending",
        "entry",
        "head_sent",
        "incoming",
        "keep_alive",
        "max_scrub",
        "resend",
    )

    def __init__(self, incoming: Incoming, entry: Entry, max_scrub: int) -> None:
        self.incoming = incoming
        self.entry = entry
        self.max_scrub = max_scrub
        self.keep_alive = False
        self.head_sent = False
        self.resend = False
        self.body_pending = False
        self.base: Base | None = None  # where the agent finds the route, in base-URL mode

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
    entry.refused(refusal)
    if reply.head_sent:
        reply.keep_alive = False
        reply.incoming.client.abort()
        return
    entry.status = refusal.status
    if isinstance(refusal, BadRequest | HeaderTooLarge):
        # Where one request could not be read for sure, neither can its end.
        reply.keep_alive = False
    if reply.body_pending and not reply.incoming.over:
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


async def relay(reply: Reply, answer: Answer, peeked: bytes, route: Route, needles: Sequence[bytes]) -> None:
    """Hand an upstream's answer on: fields and bytes as they came, framing by RFC 9112 §6 for this agent.

    `needles` are the injected token's forms; `route` says what happens to an answer that holds one. Raises the
    way out's refusals where the answer breaks off; the caller then cuts the connection, so that a truncated
    body never looks whole.
    """
    entry = reply.entry
    entry.status = answer.status
    first = peeked + answer.take()
    whole = answer.ended
    if route.reflected == "pass" or (whole and _clean(answer, first, needles)):
        needles = ()
    lines, reason = head_lines(reply, answer, route, needles)
    sieve = _sieve(answer, needles, route, reply.max_scrub) if needles else None
    rewriter = _rewriter(reply, answer, route) if route.rewrite_urls else None
    if sieve is not None:
        first = sieve.feed(first, last=whole)
    if rewriter is not None:
        first = rewriter.feed(first, last=whole)
    chunked = _frame(reply, answer, lines, None if rewriter is None else len(first) if whole else -1)
    head = b"HTTP/1.1 %d %b\r\n%b\r\n" % (answer.status, reason, b"".join(lines))
    entry.bytes_out += len(first)
    if whole:
        reply.write(head + (_piece(first, chunked) + _LAST if chunked else first))
        return
    reply.write(head + _piece(first, chunked))
    client = reply.incoming.client
    while not answer.ended:
        await client.drain()
        data = await answer.read()
        if sieve is not None:
            data = sieve.feed(data, last=answer.ended)
        if rewriter is not None:
            data = rewriter.feed(data, last=answer.ended)
        if data:
            client.write(_piece(data, chunked))
            entry.bytes_out += len(data)
    if chunked:
        client.write(_LAST)
    await client.drain()


def head_lines(
    reply: Reply, answer: Answer, route: Route, needles: Sequence[bytes]
) -> tuple[list[bytes], bytes]:
    """An answer's field lines without its framing, and its reason phrase, as they go to the agent."""
    fields: Fields = answer.fields
    reason = answer.reason
    if needles and _holds(answer.head, needles):
        # The reason phrase is as good a mirror as any field.
        (_, reason), *fields = _scrubbed(
            [(b"", answer.reason), *answer.fields], needles, block=route.reflected == "block"
        )
    if reply.base is not None and not MOVED_FIELDS.isdisjoint(answer.named):
        fields = _moved(reply.base, answer, route, fields)
    lines = answer_lines(fields, keep_set_cookie=route.keep_set_cookie)
    entry = reply.entry
    if b"x-request-id" in answer.named:
        entry.upstream_request_id = _upstream_id(lines)
    if entry.upstream_request_id is None:
        lines.append(b"X-Request-ID: %b\r\n" % entry.request_id.encode("ascii"))
    if reply.resend:
        lines.append(b"X-Authproxy-Retry: resend\r\n")
    return lines, reason


def _moved(base: Base, answer: Answer, route: Route, fields: Fields) -> Fields:
    """The fields with URLs of the upstream leading back here; in base-URL mode only."""
    move = Move(*answer.exchange.origin, route.base_path, base)
    return [
        (name, move.field(low, value) if (low := name.lower()) in MOVED_FIELDS else value)
        for name, value in fields
    ]


def _rewriter(reply: Reply, answer: Answer, route: Route) -> Rewriter | None:
    """For JSON, where the route says so. A part of a body, and a coded one that came although none was asked for,
    are handed on as they are."""
    if reply.base is None or answer.status == 206:
        return None
    kind = answer.value(b"content-type").partition(b";")[0].strip().lower()
    if kind != b"application/json" and not kind.endswith(b"+json"):
        return None
    if _coding(answer) not in (b"", b"identity"):
        return None
    return Rewriter(Move(*answer.exchange.origin, route.base_path, reply.base))


def _scrubbed(fields: Fields, needles: Sequence[bytes], *, block: bool) -> Fields:
    """The fields without the token. A name that holds it is masked too: `*` may stand in one."""
    if block:
        raise reflected()
    return [(scrubbed_value(name, needles), scrubbed_value(value, needles)) for name, value in fields]


def _clean(answer: Answer, body: bytes, needles: Sequence[bytes]) -> bool:
    """Whether a small answer, the whole of whose body is here and as it was written, holds the token nowhere."""
    return (
        len(body) <= _AT_ONCE
        and b"content-encoding" not in answer.named
        and not _holds(answer.head + body, needles)
    )


def _sieve(answer: Answer, needles: Sequence[bytes], route: Route, limit: int) -> Scrubber | Watcher | None:
    """What looks through the body: text as it is, gzip and deflate decoded beside it, all else not at all."""
    if not limit:
        return None
    if not is_text(answer.value(b"content-type").decode("latin-1")):
        return None
    coding = _coding(answer)
    if coding in (b"gzip", b"x-gzip", b"deflate"):
        return Watcher(needles, limit)
    if coding not in (b"", b"identity"):
        return None
    return Scrubber(needles, limit, block=route.reflected == "block")


def _coding(answer: Answer) -> bytes:
    return b",".join(answer.named.get(b"content-encoding", ())).strip().lower()


def _holds(data: bytes, needles: Sequence[bytes]) -> bool:
    for needle in needles:  # noqa: SIM110 - a generator costs as much as the search
        if needle in data:
            return True
    return False


def _frame(reply: Reply, answer: Answer, lines: list[bytes], rewritten: int | None) -> bool:
    """Add the framing lines; says whether the body goes out in chunks. `rewritten` is the length of a body that is
    not the upstream's any more, negative where it is not known yet."""
    if not reply.incoming.over:
        # An answer before the request's end: what is left of the body must not be read as a request.
        reply.keep_alive = False
    chunked = False
    framing, length = answer.framing, answer.length
    if rewritten is not None:
        lines[:] = [line for line in lines if line.partition(b":")[0].lower() not in DIGESTS]
        if framing == "none":
            length = None
        elif framing == "length":
            framing, length = ("length", rewritten) if rewritten >= 0 else ("chunked", None)
    if framing == "length" or (framing == "none" and length is not None):
        lines.append(b"Content-Length: %d\r\n" % (length or 0))
    elif framing in ("chunked", "close"):
        chunked = reply.incoming.version == (1, 1)
        if chunked:
            lines.append(b"Transfer-Encoding: chunked\r\n")
        else:
            reply.keep_alive = False
            reply.incoming.client.open_ended = True
    if not reply.keep_alive:
        lines.append(b"Connection: close\r\n")
    return chunked


def _piece(data: bytes, chunked: bool) -> bytes:
    if not chunked or not data:
        return data
    return b"%x\r\n%b\r\n" % (len(data), data)


def _upstream_id(lines: list[bytes]) -> str | None:
    for line in lines:
        if line[:1] in b"xX" and line[:13].lower() == b"x-request-id:":
            return line[13:].strip().decode("latin-1")[:200]
    return None
