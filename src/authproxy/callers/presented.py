"""What a request shows of its caller: the digest of an agent key and, where the credential names one, the user.

The key's text is hashed where it is read; only the connection that showed it keeps it, until it ends.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Sequence
from typing import Literal, NamedTuple

from authproxy.core.errors import CallerUnknown
from authproxy.core.message import NAME_RULE, is_name

Listener = Literal["data", "control"]

PREFIX = "apx_"
NO_KEY = "-"
"""The password of a proxy URL without a key: some clients (urllib) leave a user without password out altogether."""
_SCHEMES = frozenset({"bearer", "token", "basic"})


class Presented(NamedTuple):
    """`digest` is None where no key was shown; `user` comes from the user name of a proxy URL."""

    digest: str | None
    user: str | None


NOTHING = Presented(None, None)


def digest_of(key: str) -> str:
    """Keys are 256 random bits, so a plain hash is as good as a slow one and costs the hot path nothing."""
    return hashlib.sha256(key.encode()).hexdigest()


def presented(
    headers: Sequence[tuple[bytes, bytes]], *, listener: Listener, outer: Presented = NOTHING
) -> Presented:
    """Read every place in which a credential may stand; several that disagree are refused. `outer` is what the
    CONNECT showed, for a request inside its tunnel."""
    found = [] if outer is NOTHING else [outer]
    for name, value in headers:
        match name.lower():
            case b"authorization":
                found += _from_authorization(value)
            case b"x-authproxy-key":
                found.append(_from_own_header(value))
            case b"proxy-authorization" if listener == "data":
                found.append(_from_proxy_authorization(value))
    if not found:
        return NOTHING
    digests = {one.digest for one in found if one.digest is not None}
    users = {one.user for one in found if one.user is not None}
    if len(digests) > 1 or len(users) > 1:
        raise CallerUnknown("The request carries credentials that disagree", reason="ambiguous_credential")
    return Presented(next(iter(digests), None), next(iter(users), None))


def _from_own_header(value: bytes) -> Presented:
    key = value.decode("latin-1").strip()
    if not key.startswith(PREFIX):
        raise CallerUnknown("X-Authproxy-Key does not hold an agent key (apx_…)", reason="not_an_agent_key")
    return Presented(digest_of(key), None)


def _from_authorization(value: bytes) -> list[Presented]:
    """The SDK's own slot: only what looks like one of our keys is ours; a dummy token is left alone.

    The user name of Basic belongs to the SDK here (`x-access-token`, an e-mail address), so it is no user.
    """
    scheme, rest = _split(value)
    candidates = [scheme, rest] if scheme.lower() not in _SCHEMES else [rest]
    if scheme.lower() == "basic":
        candidates = list(_basic(rest) or ())
    return [Presented(digest_of(key), None) for key in candidates if key.startswith(PREFIX)]


def _from_proxy_authorization(value: bytes) -> Presented:
    """This header is addressed to us alone, so anything in it that is not understood is refused."""
    scheme, rest = _split(value)
    user: str | None = None
    key = rest
    if scheme.lower() == "basic":
        pair = _basic(rest)
        if pair is None:
            raise CallerUnknown("Proxy-Authorization is not valid Basic", reason="malformed_credential")
        user, key = pair[0] or None, pair[1]
        if user is not None and not is_name(user):
            raise CallerUnknown(
                f"The proxy URL's user name must be {NAME_RULE}", reason="malformed_credential"
            )
        if key in ("", NO_KEY):  # http://alice@127.0.0.1:8700 names a user and shows no key
            return Presented(None, user)
    elif scheme.lower() != "bearer":
        raise CallerUnknown("Proxy-Authorization has an unknown scheme", reason="malformed_credential")
    if not key.startswith(PREFIX):
        raise CallerUnknown(
            "Proxy-Authorization does not hold an agent key (apx_…)", reason="not_an_agent_key"
        )
    return Presented(digest_of(key), user)


def _split(value: bytes) -> tuple[str, str]:
    scheme, _, rest = value.decode("latin-1").strip().partition(" ")
    return scheme, rest.strip()


def _basic(encoded: str) -> tuple[str, str] | None:
    """User name and password (RFC 7617, UTF-8), or None where it is not Basic at all."""
    try:
        user, colon, password = base64.b64decode(encoded, validate=True).decode("utf-8").partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return None
    return (user, password) if colon else None
