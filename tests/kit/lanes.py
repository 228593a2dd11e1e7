"""Lanes: routes of one proxy, each to a raw upstream of its own, so that no case meets another's connections."""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from tests.kit.process import Proxy, Seeded, listener
from tests.kit.provider import Grant, Provider
from tests.kit.raw import Gone, Message, Script, Upstream, Wire

BASE, ABSOLUTE, CONNECT = "base", "absolute", "connect"
MODES = (BASE, ABSOLUTE, CONNECT)
LIMITS = {
    "max_header": 65536,
    "max_line": 32768,
    "max_fields": 128,
    "max_replay": 65536,
    "replay_memory": 16384,
    "drain": 65536,
}
TIMEOUTS = {"header": 1.0, "keepalive": 4.0, "connect": 2.0, "first_byte": 1.5, "idle": 1.5, "shutdown": 2.0}


class Lane:
    """One route with its upstream's port, in all three ways of naming it."""

    def __init__(self, seeded: Seeded, name: str, sock: socket.socket, grant: Grant) -> None:
        self.seeded, self.proxy, self.sock, self.grant = seeded, seeded.proxy, sock, grant
        self.name, self.prefix = name, b"/" + name.encode()
        self.port: int = sock.getsockname()[1]
        self.mode = BASE
        self.host = host_of(name)

    @property
    def bearer(self) -> bytes:
        return self.grant.bearer

    @property
    def authority(self) -> bytes:
        if self.mode == CONNECT:
            return self.host.encode()
        return b"127.0.0.1:%d" % (self.port if self.mode == ABSOLUTE else self.proxy.listen)

    def target(self, rest: bytes = b"/x") -> bytes:
        """The request target that reaches `rest` on the upstream."""
        if self.mode == CONNECT:
            return rest
        return b"http://127.0.0.1:%d%s" % (self.port, rest) if self.mode == ABSOLUTE else self.prefix + rest

    def upstream(self, script: Script | Iterable[bytes] = ()) -> Upstream:
        return Upstream(self.sock, script)

    async def dial(self, *, buffer: int | None = None) -> Wire:
        wire = await Wire.dial(self.proxy.listen, buffer=buffer)
        if self.mode == CONNECT:
            tls = self.proxy.trust  # asked for first: the handshake has its time
            await wire.send(b"CONNECT %s:443 HTTP/1.1\r\nHost: %s:443\r\n\r\n" % ((self.authority,) * 2))
            answer = await wire.head()
            assert answer.status == 200, answer.raw
            await wire.secure(tls, self.host)
        return wire

    def ask(
        self,
        method: bytes = b"GET",
        rest: bytes = b"/x",
        *fields: bytes,
        user: bytes | None = b"alice",
        body: bytes | None = None,
    ) -> bytes:
        """A well-formed request; a body is announced by its length."""
        lines = [b"%s %s HTTP/1.1" % (method, self.target(rest)), b"Host: " + self.authority]
        if user is not None:
            lines.append(b"X-User-ID: " + user)
        if body is not None:
            lines.append(b"Content-Length: %d" % len(body))
        return b"\r\n".join([*lines, *fields]) + b"\r\n\r\n" + (body or b"")

    def fill(self, text: bytes) -> bytes:
        """Puts this lane into a raw request: {T} target, {A} authority, {H} the host and user lines."""
        head = b"Host: %s\r\nX-User-ID: alice\r\n" % self.authority
        return text.replace(b"{T}", self.target()).replace(b"{H}", head).replace(b"{A}", self.authority)

    async def call(self, request: bytes, method: bytes = b"GET") -> Message:
        """One request on a connection of its own."""
        async with await self.dial() as wire:
            await wire.send(request)
            return await wire.response(method)

    async def prove_untouched(self, upstream: Upstream, *, seen: int = 0) -> None:
        """An honest request now is the very next thing that the upstream hears, byte for byte from its start."""
        answer = await self.call(self.ask(b"GET", b"/sentinel"))
        assert answer.status == 200, answer
        assert len(upstream.requests) == seen + 1, [m.head.raw for m in upstream.requests]
        last = upstream.requests[-1].head
        assert last.start == b"GET /sentinel HTTP/1.1"
        assert last.one(b"authorization") == self.bearer


def host_of(name: str) -> str:
    """What a lane's upstream is called by agents that speak https to it."""
    return f"{name}.wire.example"


def assert_problem(message: Message, *codes: str) -> None:
    """A refusal in the one shape of the contract."""
    head = message.head
    code = (head.one(b"x-authproxy-error") or b"").decode()
    assert code, head.raw
    assert head.one(b"x-request-id"), head.raw
    assert head.one(b"content-type") == b"application/problem+json", head.raw
    assert message.complete
    if codes:
        assert code in codes, (code, message.body)
    problem = json.loads(message.body)
    assert problem["code"] == code
    assert problem["status"] == head.status
    assert problem["type"] == f"urn:authproxy:error:{code}"
    assert problem["act"] in ("fix_request", "ask_user", "tell_operator", "retry_later")
    assert problem["request_id"] == head.all(b"x-request-id")[0].decode()
    if problem["act"] == "retry_later":
        assert int(head.one(b"retry-after") or b"-1") == problem["retry_after"]


async def assert_closes(wire: Wire) -> None:
    """Nothing more comes on this connection, and what is still sent on it goes nowhere."""
    with contextlib.suppress(ConnectionError, RuntimeError):
        wire.half_close()
    assert await wire.rest() == b""


async def refused(lane: Lane, request: bytes, *statuses: int, closes: bool = True) -> Message:
    """Refused before anything of it left: one answer, then (where its framing is in doubt) the connection's end."""
    async with lane.upstream() as upstream:
        async with await lane.dial() as wire:
            await wire.send(request)
            try:
                answer = await wire.response()
            except Gone as gone:
                raise AssertionError(f"closed without an answer: {gone}") from None
            assert_problem(answer)
            assert answer.status in statuses, answer
            assert answer.head.one(b"connection") == b"close" or not closes, answer.head.raw
            await assert_closes(wire)
        await lane.prove_untouched(upstream)
    return answer


@contextlib.contextmanager
def lanes(
    directory: Path, count: int, special: Mapping[str, Mapping[str, Any]] | None = None, **config: Any
) -> Iterator[tuple[list[Lane], dict[str, Lane]]]:
    """A proxy with `count` ordinary lanes and some with settings of their own; alice is connected."""
    provider = Provider()
    settings: dict[str, Mapping[str, Any]] = {**{f"l{n}": {} for n in range(count)}, **(special or {})}
    socks = {name: listener() for name in settings}
    routes = {
        name: {
            "prefix": f"/{name}",
            "upstream": f"http://127.0.0.1:{socks[name].getsockname()[1]}",
            "provider": "kit",
            "scopes": ["read"],
            "hosts": [host_of(name)],
            **own,
        }
        for name, own in settings.items()
    }
    proxy = Proxy(
        directory,
        {
            "providers": {"kit": provider.choice()},
            "routes": routes,
            "limits": LIMITS,
            "timeouts": TIMEOUTS,
            "refresh": {"forced_interval": 0},
            "egress": {"allow": ["127.0.0.0/8"]},
            **config,
        },
    )
    try:
        with proxy:
            seeded = Seeded(proxy, provider)
            _, grant = seeded.user("alice")
            made = {name: Lane(seeded, name, sock, grant) for name, sock in socks.items()}
            yield list(made.values())[:count], {name: made[name] for name in special or {}}
    finally:
        provider.close()
        for sock in socks.values():
            sock.close()
