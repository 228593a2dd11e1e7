"""Where the browser may be sent after a consent: below our own address, or below a prefix the operator named."""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import SplitResult, unquote, urlsplit

from authproxy.core.errors import BadRequest

LONGEST = 2048
_PLAIN = re.compile(
    r"[!#-;=?-\[\]_a-z~]+"
)  # the characters of a URI (RFC 3986), so no space, control, `\` or `"`


def checked_next(uri: str, *, public_url: str, allow: Iterable[str]) -> str:
    """`uri` as an absolute URL that may be redirected to. Raises BadRequest (H09)."""
    if len(uri) > LONGEST or not _PLAIN.fullmatch(uri):
        raise _refused()
    if uri.startswith("/") and not uri.startswith("//"):
        base = urlsplit(public_url)
        uri = f"{base.scheme}://{base.netloc}{uri}"
    try:
        parts = urlsplit(uri)
        named = [urlsplit(prefix) for prefix in (public_url, *allow)]
        good = parts.scheme in ("http", "https") and _straight(parts)
        if good and any(_below(parts, prefix) for prefix in named):
            return uri
    except ValueError:  # a port that is no number, a bracket that does not close
        raise _refused() from None
    raise _refused()


def _straight(parts: SplitResult) -> bool:
    """No user information, and no dots that a browser would resolve to somewhere else."""
    path = unquote(unquote(parts.path))
    segments = path.replace("\\", "/").split("/")
    return bool(parts.hostname) and "@" not in parts.netloc and not {".", ".."} & set(segments)


def _below(parts: SplitResult, prefix: SplitResult) -> bool:
    if (parts.scheme, parts.hostname, _port(parts)) != (prefix.scheme, prefix.hostname, _port(prefix)):
        return False
    path = prefix.path.rstrip("/")
    return parts.path == path or parts.path.startswith(path + "/") or (not path and not parts.path)


def _port(parts: SplitResult) -> int:
    return parts.port or (443 if parts.scheme == "https" else 80)


def _refused() -> BadRequest:
    return BadRequest(
        "next_uri must lie below public_url or below one of flows.next_uri_allow", reason="next_uri_refused"
    )
