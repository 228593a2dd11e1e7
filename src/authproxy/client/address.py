"""Where authproxy is and who asks it: read once, for both clients."""

from __future__ import annotations

import os
import ssl
from dataclasses import dataclass, field
from urllib.parse import urlencode, urlsplit

from authproxy.client.talk import Call

CONTROL = "http://127.0.0.1:8701"
PROXY = "http://127.0.0.1:8700"
MOST = 32 * 2**20
"""Bytes of one answer."""


@dataclass(frozen=True, slots=True)
class Address:
    """The control plane's URL in parts, or the unix socket that it listens on; and the agent key."""

    secure: bool
    host: str
    port: int
    base: str
    socket: str | None
    key: str | None = field(repr=False)

    @classmethod
    def read(cls, url: str | None, key: str | None) -> Address:
        """`http(s)://host[:port][/path]` or `unix:/path`; without it `AUTHPROXY_CONTROL_URL`, then loopback. The key
        is `AUTHPROXY_AGENT_KEY` where none is given. Raises ValueError."""
        url = url or os.environ.get("AUTHPROXY_CONTROL_URL") or CONTROL
        key = key or os.environ.get("AUTHPROXY_AGENT_KEY") or None
        if key is not None and not (key.isascii() and key.isprintable() and " " not in key):
            raise ValueError("the agent key has characters that no agent key has")
        if url.startswith("unix:/"):
            return cls(False, "localhost", 80, "", url[5:], key)
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
            raise ValueError("the control plane's address is http(s)://host[:port][/path], or unix:/path")
        secure = parts.scheme == "https"
        port = parts.port or (443 if secure else 80)
        return cls(secure, parts.hostname, port, parts.path.rstrip("/"), None, key)

    @property
    def origin(self) -> str:
        """Scheme, host and port."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.secure else 'http'}://{host}:{self.port}"

    def target(self, call: Call) -> str:
        """Path and query of a call."""
        return f"{self.base}{call.path}" + (f"?{urlencode(call.query)}" if call.query else "")

    def headers(self, call: Call) -> dict[str, str]:
        """What goes with every call."""
        said = {"Accept": "application/json"}
        if call.body is not None:
            said["Content-Type"] = "application/json"
        if self.key is not None:
            said["Authorization"] = f"Bearer {self.key}"
        return said

    def tls(self) -> ssl.SSLContext | None:
        """The system's trust, where it is needed."""
        return ssl.create_default_context() if self.secure else None


def proxy_url(url: str | None) -> str:
    """The data plane's, likewise; without it `AUTHPROXY_PROXY_URL`, then loopback."""
    url = url or os.environ.get("AUTHPROXY_PROXY_URL") or PROXY
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
        raise ValueError("the data plane's address is http(s)://host[:port]")
    return url.rstrip("/")


def unreachable_at(address: Address, error: Exception) -> str:
    """Why nobody answers there; never the request's own words."""
    where = address.socket or f"{address.host}:{address.port}"
    why = getattr(error, "strerror", None) or type(error).__name__
    return f"authproxy does not answer at {where}: {why}"
