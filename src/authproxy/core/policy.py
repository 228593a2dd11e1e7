"""May this method be used on this path of a route: judged on every reading that an upstream could make of the path.

The bytes that travel are never changed. What is judged are readings of them: percent-decoded zero to three times,
with `//` collapsed, `;parameters` dropped, and cut at a decoded `?` or `#`. A request is allowed only if the rules
allow every reading, so no decoder further on can turn an allowed path into another one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol
from urllib.parse import unquote_to_bytes

from authproxy.core.config import Rule
from authproxy.core.errors import BadRequest

DEEPEST = (
    3  # decodings that are looked at; G17's double encoding is depth 2, one more for a gateway in between
)

# No escape, no `;`, no backslash, nothing beyond ASCII: with no `//` and no `/.` such a path has one reading only.
_plain = re.compile(rb"/[A-Za-z0-9/._~!$&'()*+,=:@-]*").fullmatch
_bad_escape = re.compile(rb"%(?![0-9A-Fa-f]{2})").search
_control = re.compile(rb"[\x00-\x1f\x7f]").search
# A segment `.` or `..`, also with parameters (`..;x` is `..` to Java servers) or before a decoded `?` or `#`.
_dot_segment = re.compile(rb"(?:\A|/)\.\.?(?:[/;?#]|\Z)").search
# Overlong UTF-8 of ASCII (`%c0%ae` for a dot): never valid, yet decoded by sloppy servers.
_overlong = re.compile(rb"[\xc0\xc1][\x80-\xbf]|\xe0[\x80-\x9f][\x80-\xbf]|\xf0[\x80-\x8f][\x80-\xbf]").search
_slashes = re.compile(rb"//+")
_parameters = re.compile(rb";[^/]*")
_tail = re.compile(rb"[?#].*", re.DOTALL)

NEVER = frozenset({"TRACE", "CONNECT"})  # TRACE would reflect the injected token (RFC 9110 9.3.8)


@dataclass(frozen=True, slots=True)
class Decision:
    """The answer and why; `rule` is the index of the `allow` entry that spoke."""

    allowed: bool
    reason: str
    rule: int | None = None

    @property
    def sentence(self) -> str:
        """The reason in words, for the one who sent the request."""
        return _SENTENCES[self.reason]


_SENTENCES = {
    "rule": "A rule of the route allows it.",
    "no_rules": "The route has no rules.",
    "no_rule_for_method": "No rule of the route allows this method.",
    "no_rule_for_path": "No rule of the route allows this method on this path.",
    "method_never_allowed": "TRACE and CONNECT are never sent with a credential.",
    "credential_path": "This path hands out or destroys tokens; agents may not use it.",
    "ambiguous_path": "The path reads otherwise once its escapes, `;` or `//` are resolved, and not every reading is "
    "allowed; in a rule, `**` spans slashes and `%2F` stands for an encoded one.",
}

_NO_RULES = Decision(True, "no_rules")
_NEVER = Decision(False, "method_never_allowed")
_METHOD = Decision(False, "no_rule_for_method")
_PATH = Decision(False, "no_rule_for_path")
_CREDENTIALS = Decision(False, "credential_path")
_AMBIGUOUS = Decision(False, "ambiguous_path")


_Entry = tuple[Callable[[bytes], re.Match[bytes] | None], Decision]


class Rules:
    """The `allow` of one route, compiled; None allows all. `never` has globs that no reading may match: paths of
    the API's host that hand out or destroy tokens."""

    __slots__ = ("_any", "_by_method", "_never", "_open")

    def __init__(self, allow: Iterable[Rule] | None = None, *, never: Iterable[str] = ()) -> None:
        refused = b"|".join(rb"(?:" + compile_glob(glob).pattern + rb")/?" for glob in never)
        # without case: a refusal must hold for servers that do not care about it
        self._never = re.compile(refused, re.DOTALL | re.IGNORECASE).fullmatch if refused else None
        self._open = allow is None
        any_method: list[_Entry] = []
        by_method: dict[str, list[_Entry]] = {}
        for index, rule in enumerate(allow or ()):
            methods = set(rule.methods) | ({"HEAD"} if "GET" in rule.methods else set())
            allowed = Decision(True, "rule", index)
            for glob in rule.paths:
                entry = (compile_glob(glob).fullmatch, allowed)
                if "*" in methods:
                    any_method.append(entry)
                    continue
                for method in methods:
                    by_method.setdefault(method, []).append(entry)
        self._any = tuple(any_method)
        self._by_method = {method: (*entries, *any_method) for method, entries in by_method.items()}

    def judge(self, method: str, readings: Sequence[bytes]) -> Decision:
        """Allowed if every reading is; the decision is that of the first reading, the path as it was sent."""
        if self._never is not None and any(map(self._never, readings)):
            return _CREDENTIALS
        if self._open:
            return _NO_RULES
        entries = self._by_method.get(method, self._any)
        if not entries:
            return _METHOD
        first: Decision | None = None
        for reading in readings:
            for matches, allowed in entries:
                if matches(reading):
                    first = first or allowed
                    break
            else:
                return _PATH if first is None else _AMBIGUOUS
        return first or _PATH


class Ruled(Protocol):
    """What `decide` needs of a route."""

    @property
    def rules(self) -> Rules: ...


def decide(route: Ruled, method: str, path: bytes, overrides: Iterable[str] = ()) -> Decision:
    """Whether `method` on the upstream path `path` (raw; a query is ignored) is allowed on this route.

    `overrides` are the values of `message.METHOD_OVERRIDES`: a server may take each for the method, so each must be
    allowed. Raises BadRequest for a path that no upstream should see with a credential: dot segments, backslashes,
    control bytes in any encoding, malformed escapes.
    """
    readings = _readings(path)
    if method.upper() in NEVER:
        return _NEVER
    decision = route.rules.judge(method, readings)
    for other in overrides:
        if decision.allowed:
            decision = replace(decide(route, other.strip().upper(), path), rule=decision.rule)
    return decision


def canonical_path(raw: bytes) -> str:
    """The copy of a raw path (a query is cut off) for people and records: decoded once. Never sent anywhere.

    Raises BadRequest exactly where `decide` does.
    """
    readings = _readings(raw)
    return unquote_to_bytes(readings[0]).decode("utf-8", "replace")


def _readings(raw: bytes) -> tuple[bytes, ...]:
    """All that an upstream may take this path for, the bytes as sent first."""
    path = raw.partition(b"?")[0]
    if _plain(path) and b"//" not in path and b"/." not in path:
        return (path,)
    if not path.startswith(b"/"):
        raise BadRequest("The target has no path that begins with a slash.", reason="not_a_path")
    if b"#" in path:
        raise BadRequest("The path has a fragment; write %23 for a #.", reason="fragment")
    if _bad_escape(path):
        raise BadRequest("The path has a % that does not begin an escape; write %25.", reason="bad_escape")
    found = {path: None}  # a dict is an ordered set
    for _ in range(DEEPEST + 1):
        _refuse(path)
        for reading in (path, _tail.sub(b"", path)):
            bare = _parameters.sub(b"", reading)
            found.update(
                dict.fromkeys((reading, _slashes.sub(b"/", reading), bare, _slashes.sub(b"/", bare)))
            )
        decoded = unquote_to_bytes(path)
        if decoded == path:
            break
        path = decoded
    return tuple(found)


def _refuse(path: bytes) -> None:
    """Raises BadRequest for what may not be in a path at any depth of decoding."""
    if _control(path):
        raise BadRequest("The path has a control character.", reason="control_byte")
    if b"\\" in path:
        raise BadRequest("The path has a backslash, which some servers take for a slash.", reason="backslash")
    if _dot_segment(path):
        raise BadRequest("The path has a . or .. segment; send the resolved path.", reason="dot_segment")
    if _overlong(path):
        raise BadRequest("The path has overlong UTF-8.", reason="overlong")


# --- globs ---------------------------------------------------------------------------------------------------------

_unreserved = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._")
# Nothing with these could ever be allowed on every reading, or it is of another glob language.
_odd_in_glob = re.compile(rb"[?#;\\{}\[\]\x00-\x1f\x7f]").search


def glob_fault(glob: str) -> str | None:
    """What is wrong with a path glob, as a sentence without its subject, or None."""
    if not glob.startswith("/"):
        return "must begin with `/`"
    if re.search(r"%(?![0-9A-Fa-f]{2})", glob):
        return "has a % that does not begin an escape: write %25"
    if _odd_in_glob(unquote_to_bytes(glob)):
        return (
            "may not have any of ? # ; \\ { } [ ]: only `*` (within a segment) and `**` (across) are special"
        )
    if "//" in glob:
        return "has an empty segment"
    for segment in glob.split("/"):
        if "**" in segment and segment != "**":
            return "may have `**` only as a whole segment"
        if _dot_segment(unquote_to_bytes(segment)):
            return "has a dot segment, which no request may have"
    return "has `**` twice in a row" if "/**/**" in glob else None


def may_match_below(glob: str, base: str) -> bool:
    """Whether some path that begins with the segments of `base` could match."""
    own = glob.split("/")[1:]
    for index, segment in enumerate(base.split("/")[1:]):
        if index < len(own) and own[index] == "**":
            return True
        if index >= len(own) or not re.fullmatch(_segment(own[index]), segment.encode()):
            return False
    return True


def compile_glob(glob: str) -> re.Pattern[bytes]:
    r"""A pattern for the readings of a path.

    `*` is one segment, or part of one; `**` is any number of segments, at the end at least one; `/**` alone is every
    path. A reserved character stands for itself and for its escape, and `%2F` for an encoded or a plain slash,
    since its readings have both.

    Linear in the path's length: every `*` but the last of a segment and every `**` but the last of a glob commit to
    the first match (atomic groups, which are exact for globs), and the last ones are held to an end.
    """
    if fault := glob_fault(glob):
        raise ValueError(f"a path glob {fault}")
    if glob == "/**":
        return re.compile(rb"/.*", re.DOTALL)
    parts = re.split(r"/\*\*(?=/|\Z)", glob)
    chunks = [b"".join(b"/" + _segment(s) for s in part[1:].split("/")) if part else b"" for part in parts]
    out = chunks[0]
    for chunk in chunks[1:-1]:
        out += rb"(?>(?:/.*?)??" + chunk + rb"(?=/))"
    if len(chunks) > 1:
        out += (rb"(?:/.*)?" + chunks[-1]) if chunks[-1] else rb"/.+"
    return re.compile(out, re.DOTALL)


def _segment(segment: str) -> bytes:
    """One segment of a glob as a pattern."""
    if segment == "*":
        return rb"[^/]+"
    first, *others = (_literal(part) for part in segment.split("*"))
    if not others:
        return first
    middle = b"".join(rb"(?>[^/]*?" + part + rb")" for part in others[:-1])
    return first + middle + rb"[^/]*" + others[-1]


def _literal(text: str) -> bytes:
    """Literal text of a glob: a reserved byte may come as itself or escaped."""
    out = b""
    for byte in unquote_to_bytes(text):
        char = re.escape(bytes((byte,)))
        out += char if byte in _unreserved else rb"(?:" + char + rb"|(?i:%%%02x))" % byte
    return out
