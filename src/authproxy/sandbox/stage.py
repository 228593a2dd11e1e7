"""All that one sandbox knows, shared by the desks that answer for it."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from authproxy.sandbox.dialect import Dialect
from authproxy.sandbox.grants import Access, Grants
from authproxy.sandbox.keys import Keys
from authproxy.sandbox.ledger import Ledger
from authproxy.sandbox.settings import Registration, Settings
from authproxy.sandbox.switches import Switches

NO_STORE: Mapping[str, str] = {"Cache-Control": "no-store", "Pragma": "no-cache"}


@dataclass(frozen=True, slots=True)
class Place:
    """Where a desk stands: a path prefix, and the dialect spoken below it."""

    prefix: str
    dialect: Dialect


@dataclass(slots=True)
class Stage:
    """The state of one sandbox."""

    settings: Settings
    switches: Switches
    initial: Switches
    grants: Grants
    ledger: Ledger
    keys: Keys
    clock: Callable[[], float]
    randomness: Callable[[int], str]
    clients: dict[str, Registration]
    base_url: str = ""
    closing: asyncio.Event = field(default_factory=asyncio.Event)
    before: asyncio.Event = field(default_factory=asyncio.Event)
    after: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.before.set()
        self.after.set()

    def issuer(self, place: Place) -> str:
        """The issuer of the server at `place`."""
        return self.base_url + place.prefix

    async def pause(self, seconds: float) -> None:
        """Waits in real time, but not beyond the closing of the sandbox."""
        if seconds <= 0:
            return
        try:
            await asyncio.wait_for(self.closing.wait(), seconds)
        except TimeoutError:
            return

    def faults(self, group: str, counter: str, *, user: str | None, meant: bool = True) -> Switches:
        """The positions that hold for one call: the real ones, or the starting ones where its faults do not apply.
        Counts down `next_calls`, so that of two calls at once only so many as asked for are hit."""
        now = self.switches.copy()
        if not meant or (now.only_user is not None and now.only_user != user):
            now.take_back(group, Switches())
            return now
        left = getattr(now, counter)
        if left > 1:
            setattr(self.switches, counter, left - 1)
        elif left == 1:
            counted_from_start = getattr(self.initial, counter) > 0
            self.switches.take_back(group, Switches() if counted_from_start else self.initial)
        return now

    def bearer(self, request: web.Request) -> tuple[str | None, Access | None]:
        """The token that a request carries, and what is known of it."""
        values = request.headers.getall("Authorization", [])
        scheme, _, token = values[0].partition(" ") if len(values) == 1 else ("", "", "")
        if scheme.lower() != "bearer" or not token.strip():
            return None, None
        return token.strip(), self.grants.find_access(token.strip())


def is_loopback(name: str) -> bool:
    """Whether a host name, as written, can only mean this machine."""
    if name.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def reset(request: web.BaseRequest) -> web.Response:
    """Breaks the connection with a TCP reset; what is returned is never sent."""
    transport = request.transport
    if transport is not None:
        raw = transport.get_extra_info("socket")
        if raw is not None:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()
    return web.Response(status=500)


def json_answer(body: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    """A JSON answer that no cache keeps."""
    return web.json_response(body, status=status, headers={**NO_STORE, **(headers or {})})
