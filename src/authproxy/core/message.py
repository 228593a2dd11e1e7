"""HTTP hygiene: reads a target, reads a request's fields once, strips what must not travel, injects the credential.

Everything works on the bytes as they came: what policy judges and what is sent are cut from the same value.
Rules are of RFC 9110 and RFC 9112; where those let a proxy repair, this one refuses.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal, NamedTuple

from authproxy.core.errors import BadRequest, UserMissing

RawFields = Sequence[tuple[bytes, bytes]]

# RFC 9110 §7.6.1 and §11.7.2, and names of the same kind that are met in practice.
_HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
        b"http2-settings",
        b"proxy-authorization",
        b"proxy-authenticate",
        b"proxy-authentication-info",
    }
)
# Fields by which some servers (Google's among them) let a POST be another method: what they name is judged too. So it
# is where they are spelt with `_`, which WSGI and CGI servers do not tell from `-`.
METHOD_OVERRIDES = frozenset({b"x-http-method-override", b"x-http-method", b"x-method-override"})
_PRIVATE = b"x-authproxy-"
_ACCOUNT = b"x-authproxy-account"
# Fields of an answer that frame it or belong to one hop; the walk writes its own.
_ANSWER_DROPPED = _HOP_BY_HOP | {b"content-length"}
_SETTLED = _ANSWER_DROPPED | {
    b"close"
}  # what an answer's Connection may name without naming a field that is kept

_TARGET_BYTES = re.compile(rb"[!-~\x80-\xff]+")
_AUTHORITY = re.compile(rb"(?:(\[[0-9A-Fa-f:.]+\])|([A-Za-z0-9._~-]+))(?::([0-9]{1,5}))?")
_TOKEN_LIST = re.compile(rb"[\t ]*,[\t ,]*")
_USER = re.compile(r"[^\x00-\x20\x7f,](?:[^\x00-\x1f\x7f,]*[^\x00-\x20\x7f,])?")
_HOSTS = 256  # names of hosts that what is found of them is remembered for: agents say few
_DIGITS = re.compile(rb"[0-9]{1,18}")
MAX_USER = 256
NAME_RULE = f"1 to {MAX_USER} printable characters without commas"


class Target(NamedTuple):
    """A request target in parts that concatenate to the bytes that came.

    `form` is of RFC 9112 §3.2. `scheme`, `host` and `port` are set for `absolute` (and host and port for
    `authority`), lower-cased. `path` begins with `/`; `query` begins with `?` or is empty.
    """

    form: Literal["origin", "absolute", "authority", "asterisk"]
    path: bytes = b""
    query: bytes = b""
    scheme: str = ""
    host: str = ""
    port: int = 0


def target_of(method: str, raw: bytes) -> Target:
    """Read a request target. Raises BadRequest for what is not of the four forms, or holds a fragment."""
    if not _TARGET_BYTES.fullmatch(raw) or b"#" in raw:
        raise BadRequest("the request target holds a fragment, a space or a control byte", reason="target")
    if method == "CONNECT":
        host, port = authority_of(raw)
        if not port:
            raise BadRequest("CONNECT names a host and a port", reason="target")
        return Target("authority", host=host, port=port)
    if raw[:1] == b"/":
        path, mark, query = raw.partition(b"?")
        return Target("origin", path, mark + query)
    if raw == b"*" and method == "OPTIONS":
        return Target("asterisk")
    return _absolute(raw)


def _absolute(raw: bytes) -> Target:
    scheme, separator, rest = raw.partition(b"://")
    name = scheme.lower().decode("latin-1")
    name = {"ws": "http", "wss": "https"}.get(name, name)  # RFC 6455 §3; some clients write it to a proxy
    if not separator or name not in ("http", "https"):
        raise BadRequest("the request target is neither a path nor an http(s) URL", reason="target")
    cut = min((i for i in (rest.find(b"/"), rest.find(b"?")) if i >= 0), default=len(rest))
    host, port = authority_of(rest[:cut])
    path, mark, query = rest[cut:].partition(b"?")
    return Target(
        "absolute", path or b"/", mark + query, name, host, port or (443 if name == "https" else 80)
    )


@lru_cache(_HOSTS)
def authority_of(raw: bytes) -> tuple[str, int]:
    """Host, lower-cased and without brackets, and port (0 where none is named). No user information."""
    match = _AUTHORITY.fullmatch(raw)
    if match is None or (match[3] is not None and not 0 < int(match[3]) < 65536):
        raise BadRequest("the authority is not `host` or `host:port`", reason="authority")
    host = (match[1] or match[2]).strip(b"[]").lower().decode("ascii")
    return host, int(match[3] or 0)


# Fields that never go on as they came; the walk writes its own Host and framing, and the one Authorization.
# Some servers take X-Original-URL for the target, which policy has not judged.
_TAKEN = _HOP_BY_HOP | {
    *(b"host", b"content-length", b"expect", b"authorization", b"cookie", b"cookie2"),
    *(b"x-original-url", b"x-rewrite-url"),
}
_CREDENTIALS = (b"authorization", b"proxy-authorization", b"x-authproxy-key")


# Names under which nobody outside can register: RFC 2606, RFC 6761, RFC 9476's `.internal`, and cluster names.
_RESERVED = re.compile(
    r"(?:.*\.)?(?:localhost|test|example|invalid|local|internal|svc|example\.(?:com|net|org))\.?"
)


@lru_cache(_HOSTS)
def foreign(host: str) -> bool:
    """Whether `host` is no name under which a local process means this machine.

    A web page on a name that a stranger's DNS points here would reach a loopback listener as its own origin
    (DNS rebinding). Loopback addresses, single labels and reserved names cannot be had by strangers.
    """
    bare = host.rstrip(".")
    if ":" in bare:
        return bare not in ("::1", "0:0:0:0:0:0:0:1")
    if "." not in bare:
        return bare.isdigit()
    if bare.replace(".", "").isdigit():
        return not bare.startswith("127.")
    return _RESERVED.fullmatch(bare) is None


@dataclass(slots=True)
class RequestFields:
    """A request's fields, read in one pass: what may travel (`lines`, and the same as bytes in `travelling`), and what
    was taken out of it. `overrides` name other methods that a server may take the request for.

    Once read it does not change: requests of one connection that say the same share it.
    """

    lines: list[tuple[bytes, bytes]]
    travelling: bytes = b""
    overrides: Sequence[str] = ()
    users: Sequence[bytes] = ()
    hosts: Sequence[bytes] = ()
    accounts: Sequence[bytes] = ()
    cookies: Sequence[bytes] = ()
    credentials: Sequence[tuple[bytes, bytes]] = ()
    content_length: int | None = None
    chunked: bool = False
    expects_continue: bool = False
    close: bool = False
    websocket: bool = False


def read_request_fields(raw: RawFields, user_field: bytes) -> RequestFields:
    """Sort a request's field lines. `user_field` is lower-case.

    Dropped for good: hop-by-hop fields and those that Connection names, every credential field in any case
    and spelling, the user field, and authproxy's own. What is left keeps its order, case, repetition and
    bytes. Raises BadRequest for framing that is ambiguous.
    """
    kept: list[tuple[bytes, bytes]] = []
    taken: dict[bytes, list[bytes]] = {}
    for line in raw:
        low = line[0].lower()
        if low in _TAKEN or low == user_field or low.startswith(_PRIVATE):
            taken.setdefault(low, []).append(line[1].strip(b" \t"))
        elif b"_" not in low or not _twin(low.replace(b"_", b"-"), user_field):
            kept.append(line)
    found = RequestFields(kept)
    if taken:
        _take(found, taken, user_field)
    found.travelling = _rendered(found.lines)
    found.overrides = [
        value.decode("latin-1")
        for name, value in found.lines
        if name[:1] in b"xX" and name.lower().replace(b"_", b"-") in METHOD_OVERRIDES
    ]
    return found


def add_field(fields: RequestFields, name: bytes, value: bytes) -> None:
    """One more line that travels, behind the others; only by who has read the fields."""
    fields.lines.append((name, value))
    fields.travelling += _rendered([(name, value)])


def _rendered(lines: Iterable[tuple[bytes, bytes]]) -> bytes:
    return b"".join([b"%b: %b\r\n" % line for line in lines])


def _twin(low: bytes, user_field: bytes) -> bool:
    """Some servers read X_User_Id as X-User-Id: a twin must not smuggle what was stripped."""
    return low in _TAKEN or low == user_field or low.startswith(_PRIVATE)


def _take(found: RequestFields, taken: dict[bytes, list[bytes]], user_field: bytes) -> None:
    found.users = taken.get(user_field, ())
    found.hosts = taken.get(b"host", ())
    found.accounts = taken.get(_ACCOUNT, ())
    found.cookies = taken.get(b"cookie", ())
    found.credentials = [(name, value) for name in _CREDENTIALS for value in taken.get(name, ())]
    for value in taken.get(b"expect", ()):
        if value.lower() != b"100-continue":
            raise BadRequest("the only expectation met is 100-continue", reason="expect", status=417)
        found.expects_continue = True
    _read_framing(found, taken.get(b"content-length", []), taken.get(b"transfer-encoding", []))
    options = taken.get(b"connection")
    if options is not None:
        named = frozenset(o.lower() for value in options for o in _TOKEN_LIST.split(value) if o)
        found.close = b"close" in named
        found.lines = [line for line in found.lines if line[0].lower() not in named]
        # The one protocol that is switched to; another (`h2c`) is not asked for upstream, and so not switched to.
        protocols = [value.lower() for value in taken.get(b"upgrade", ())]
        bare = not found.chunked and not found.content_length
        found.websocket = protocols == [b"websocket"] and b"upgrade" in named and bare


def _read_framing(found: RequestFields, lengths: list[bytes], codings: list[bytes]) -> None:
    """RFC 9112 §6.3, the strict way: one length of plain digits, or exactly `chunked`, never both."""
    if codings:
        if lengths or len(codings) > 1 or codings[0].lower() != b"chunked":
            raise BadRequest("the body's framing is ambiguous", reason="framing")
        found.chunked = True
    elif lengths:
        if len(lengths) > 1 or not _DIGITS.fullmatch(lengths[0]):
            raise BadRequest("Content-Length is not one number", reason="framing")
        found.content_length = int(lengths[0])


def user_of(values: Sequence[bytes], header: str) -> str:
    """The one user that the header names. Raises UserMissing for none, several, empty or a list."""
    if len(values) != 1:
        raise UserMissing(f"send exactly one {header} header, not {len(values)}", reason="count")
    try:
        user = values[0].strip(b" \t").decode("utf-8")
    except UnicodeDecodeError:
        raise UserMissing(f"{header} is not UTF-8", reason="encoding") from None
    if not is_name(user):
        raise UserMissing(f"{header} must be {NAME_RULE}", reason="value")
    return user


def is_name(text: str) -> bool:
    """Whether a user or an account may be called so, wherever it is said: what a header can carry, and a person can
    tell from another name (no control characters, no changes of direction, nothing of no width)."""
    return len(text) <= MAX_USER and _USER.fullmatch(text) is not None and text.isprintable()


def ask_identity(fields: RequestFields) -> RequestFields:
    """The same, asking for a body without a coding: one that is to be rewritten must be readable."""
    lines = [line for line in fields.lines if line[0].lower() != b"accept-encoding"]
    lines.append((b"Accept-Encoding", b"identity"))
    return replace(fields, lines=lines, travelling=_rendered(lines))


def request_head(
    method: str,
    path: bytes,
    query: bytes,
    authority: bytes,
    fields: RequestFields,
    credential: bytes,
    cookies: Sequence[bytes] = (),
    credential_field: bytes = b"Authorization",
) -> bytes:
    """The request head as it goes upstream: our version, our Host, our framing; the credential last, once.

    `cookies` are the agent's, where the route lets them through. `credential_field` is where the provider wants
    its token; what the agent sent under that name is dropped.
    """
    travelling = fields.travelling
    if credential_field != b"Authorization":  # that one was taken out already
        own = credential_field.lower()
        travelling = _rendered(line for line in fields.lines if line[0].lower().replace(b"_", b"-") != own)
    start = (method.encode("ascii"), b" ", path, query, b" HTTP/1.1\r\nHost: ", authority, b"\r\n")
    parts = [*start, travelling]
    for value in cookies:
        parts += (b"Cookie: ", value, b"\r\n")
    if fields.chunked:
        parts.append(b"Transfer-Encoding: chunked\r\n")
    elif fields.content_length is not None:
        parts.append(b"Content-Length: %d\r\n" % fields.content_length)
    if fields.expects_continue:
        parts.append(b"Expect: 100-continue\r\n")
    if fields.websocket:
        parts.append(b"Connection: Upgrade\r\nUpgrade: websocket\r\n")
    parts += (credential_field, b": ", credential, b"\r\n\r\n")
    return b"".join(parts)


def answer_lines(fields: Iterable[tuple[bytes, bytes]], *, keep_set_cookie: bool) -> list[bytes]:
    """An upstream's field lines as they go to the agent, each with its CRLF; framing is left out.

    Hop-by-hop fields, those that Connection names, and anything that passes itself off as authproxy's are
    dropped; the rest keeps order, case, repetition and bytes.
    """
    kept: list[bytes] = []
    nominated: list[bytes] = []
    for name, value in fields:
        fate = _fate(name)
        if fate == _KEPT or (fate == _COOKIE and keep_set_cookie):
            kept.append(b"%b: %b\r\n" % (name, value))
        elif fate == _NAMES:
            nominated += [option.lower() for option in _TOKEN_LIST.split(value) if option]
    if _SETTLED.issuperset(nominated):
        return kept
    named = frozenset(nominated)
    return [line for line in kept if line.partition(b":")[0].lower() not in named]


_KEPT, _DROPPED, _COOKIE, _NAMES = range(4)
_NAMED = 1024  # names of fields that their fate is remembered of


@lru_cache(_NAMED)
def _fate(name: bytes) -> int:
    """What becomes of a field of an answer."""
    low = name.lower()
    if low == b"connection":
        return _NAMES
    if low in _ANSWER_DROPPED or low.startswith(_PRIVATE):
        return _DROPPED
    return _COOKIE if low == b"set-cookie" else _KEPT


def values_of(fields: Iterable[tuple[bytes, bytes]], name: bytes) -> list[bytes]:
    """Every value of the field `name` (lower-case), in order."""
    size = len(name)
    return [value for key, value in fields if len(key) == size and key.lower() == name]
