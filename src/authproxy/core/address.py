"""Where a listener is, as people write it."""

from __future__ import annotations

import ipaddress
from typing import NamedTuple


class Address(NamedTuple):
    """Where a listener is: `host:port`, or the path of a unix socket (`unix:/path`)."""

    host: str
    port: int
    path: str | None = None

    @classmethod
    def parse(cls, text: str) -> Address:
        """Raises ValueError with what would be right."""
        if text.startswith("unix:"):
            if not text[5:].startswith("/"):
                raise ValueError(f"{text!r}: write unix:/absolute/path")
            return cls("", 0, text[5:])
        host, colon, port = text.rpartition(":")
        host = host.removeprefix("[").removesuffix("]") if host.startswith("[") else host
        if not colon or not host or not port.isdigit() or int(port) > 65535:
            raise ValueError(f"{text!r}: write HOST:PORT, such as 127.0.0.1:8700")
        return cls(host, int(port))

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach it."""
        if self.path is not None or self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    def __str__(self) -> str:
        if self.path is not None:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"
