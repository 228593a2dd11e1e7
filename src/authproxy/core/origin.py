"""Where a URL leads: scheme, host and port, read once and in one spelling."""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv6Address
from typing import NamedTuple

DEFAULT_PORTS = {"http": 80, "https": 443}

_host = r"\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?"
_url = re.compile(rf"(https?)://({_host})(?::([1-9][0-9]{{0,4}}))?((?:/[A-Za-z0-9._~@:+=,$!-]+)*)/?")
_host_port = re.compile(rf"({_host})(?::([1-9][0-9]{{0,4}}))?")


class Origin(NamedTuple):
    """A base URL, read once: `host` in lower case and without brackets, `path` without a trailing slash."""

    scheme: str
    host: str
    port: int
    path: bytes = b""

    @property
    def authority(self) -> bytes:
        """As it stands in Host: the port only where it is not the scheme's own."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return (host if self.port == DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}").encode()


def canonical_host(host: str) -> str | None:
    """Lower case, IPv6 in its one short form and without brackets; None for what is no host that a route can name:
    a trailing dot, an empty label, bytes beyond ASCII (international names are written as `xn--…`)."""
    if ":" in host or host.startswith("["):
        bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
        try:
            return IPv6Address(bare).compressed if "%" not in bare else None
        except ValueError:
            return None
    if not re.fullmatch(_host, host) or ".." in host or len(host) > 253:
        return None
    host = host.lower()
    # Resolvers read `127.1`, `2130706433` and `0x7f.1` as addresses: such a name is one in its one spelling or none.
    if re.fullmatch(r"[0-9]+|0x[0-9a-f]*", host.rpartition(".")[2]):
        try:
            return str(IPv4Address(host))
        except ValueError:
            return None
    return host


def read_base_url(url: str) -> Origin | None:
    """`scheme://host[:port][/path]` and nothing else: no user, query, fragment, escape or dot segment."""
    match = _url.fullmatch(url)
    if match is None:
        return None
    scheme, name, port, path = match.groups()
    host = canonical_host(name)
    number = int(port) if port else DEFAULT_PORTS[scheme]
    if host is None or number > 65535 or any(segment in (".", "..") for segment in path.split("/")):
        return None
    return Origin(scheme, host, number, path.encode())


def read_host_port(text: str) -> tuple[str, int | None] | None:
    """`host` or `host:port`, canonical; None where it is neither."""
    match = _host_port.fullmatch(text)
    host = canonical_host(match[1]) if match else None
    if match is None or host is None or int(match[2] or 0) > 65535:
        return None
    return host, int(match[2]) if match[2] else None


def read_origin(url: str) -> Origin | None:
    """Scheme, host and port of any http(s) URL without user information; its path and query are not looked at."""
    return read_base_url(re.split(r"(?<![:/])[/?#]", url, maxsplit=1)[0])
