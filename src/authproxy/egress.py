"""Which addresses may be dialled, judged at connect time on the very address that is dialled."""

from __future__ import annotations

import asyncio
import re
import socket
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any, NamedTuple

from aiohttp.abc import AbstractResolver, ResolveResult

from authproxy.core.errors import EgressBlocked, UpstreamUnreachable

IP = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

# The lists are our own: `is_private` and `is_global` of CPython before 3.11.10 and 3.12.4 have wrong ranges
# (CVE-2024-4032), and 100.64.0.0/10 is neither private nor global to them.
_METADATA = frozenset(
    ip_address(text)
    for text in (
        "169.254.169.254",  # AWS, Azure, Google, OpenStack, DigitalOcean
        "169.254.170.2",  # ECS task credentials
        "169.254.170.23",  # EKS pod identity
        "100.100.100.200",  # Alibaba
        "168.63.129.16",  # Azure's wire server
        "192.0.0.192",  # Oracle
        "fd00:ec2::254",
        "fd00:ec2::23",
        "fd20:ce::254",  # Google
    )
)
_METADATA_NAMES = frozenset(
    {
        "metadata",
        "metadata.google.internal",
        "metadata.goog",
        "instance-data",
        "instance-data.ec2.internal",
        "metadata.tencentyun.com",
        "metadata.azure.internal",
    }
)
_UNROUTED = (  # no upstream can live here, whatever is allowed
    ip_network("0.0.0.0/8"),  # "this host": connects to loopback on Linux
    ip_network("224.0.0.0/4"),
    ip_network("255.255.255.255/32"),
    ip_network("::/128"),
    ip_network("ff00::/8"),
)
_INNER_V4 = tuple(
    IPv4Network(text)
    for text in (
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.88.99.0/24",  # 6to4 relays
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "240.0.0.0/4",
    )
)
_GLOBAL_V6 = IPv6Network("2000::/3")  # the only block of global unicast; all else is inner
_INNER_V6 = tuple(
    IPv6Network(text)
    for text in (
        "2001::/23",  # IETF protocol assignments, with Teredo, benchmarking and ORCHID
        "2001:db8::/32",
        "2002::/16",  # 6to4
        "3fff::/20",  # documentation
    )
)
_MAPPED = IPv6Network("::ffff:0:0/96")
_COMPATIBLE = IPv6Network("::/96")
_NAT64 = IPv6Network("64:ff9b::/96")
_TEREDO = IPv6Network("2001::/32")
_SIX_TO_FOUR = IPv6Network("2002::/16")

_NAME = re.compile(
    r"(?=.{1,253}\Z)(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.)*[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\Z"
)
_NUMERIC_LABEL = re.compile(r"(?:[0-9]+|0x[0-9a-f]*)\Z")
_INNER_SUFFIXES = (".localhost", ".internal", ".svc", ".cluster.local", ".local")
_INNER_NAMES = frozenset(
    {
        "localhost",
        "localhost.localdomain",
        "localhost4",
        "localhost6",
        "ip6-localhost",
        "ip6-loopback",
        "kubernetes",
        "kubernetes.default",
        "internal",
    }
)

_CACHE_SIZE = 256


class Address(NamedTuple):
    """One judged address, ready to be dialled without another lookup."""

    family: int
    sockaddr: tuple[Any, ...]


Resolve = Callable[[str, int], Awaitable[Sequence[tuple[Any, Any, Any, Any, tuple[Any, ...]]]]]


async def _lookup(host: str, port: int) -> Sequence[tuple[Any, Any, Any, Any, tuple[Any, ...]]]:
    loop = asyncio.get_running_loop()
    return await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)


class _Entry(NamedTuple):
    """One entry of `egress.allow`: a name or a network, and a port or every port."""

    name: str | None
    network: Network | None
    port: int | None


def read_entry(text: str) -> _Entry:
    """One entry of `egress.allow`: `host`, `host:port`, `CIDR`, `CIDR:port` (`[…]:port` for IPv6); else ValueError."""
    rest, port = text.strip().lower(), None
    bracketed = re.fullmatch(r"\[([^\[\]]+)\](/\d{1,3})?(?::(\d{1,5}))?", rest)
    if bracketed is not None:
        rest = bracketed[1] + (bracketed[2] or "")
        port = None if bracketed[3] is None else int(bracketed[3])
    elif rest.count(":") == 1:
        rest, _, digits = rest.partition(":")
        if not re.fullmatch(r"[0-9]{1,5}", digits):
            raise ValueError("the port is not a number")
        port = int(digits)
    if port is not None and not 0 < port < 65536:
        raise ValueError("the port is not between 1 and 65535")
    try:
        return _Entry(None, ip_network(rest), port)
    except ValueError:
        if "/" in rest or ":" in rest or _NUMERIC_LABEL.match(rest.rpartition(".")[2]):
            raise ValueError("the network is not written in canonical form") from None
    if not _NAME.match(rest):
        raise ValueError("neither a host name nor a network")
    return _Entry(rest, None, port)


def embedded(address: IPv6Address) -> Iterator[IPv4Address]:
    """The IPv4 addresses that an IPv6 address leads to by way of some translation."""
    low = IPv4Address(int(address) & 0xFFFFFFFF)
    if address in _MAPPED or address in _NAT64 or (address in _COMPATIBLE and int(address) > 1):
        yield low
    if address in _SIX_TO_FOUR:
        yield IPv4Address(int(address) >> 80 & 0xFFFFFFFF)
    if address in _TEREDO:
        yield IPv4Address(int(low) ^ 0xFFFFFFFF)
    if (
        int(address) >> 32 & 0xFDFFFFFF == 0x5EFE
    ):  # ISATAP: the interface is 0000:5efe or 0200:5efe and the address
        yield low


def _translated(address: IPv6Address) -> bool:
    """Whether the address is nothing but another spelling of the IPv4 address in it."""
    return address in _MAPPED or address in _NAT64


def _spellings(address: IP) -> tuple[IP, ...]:
    if isinstance(address, IPv6Address) and _translated(address):
        return (address, *embedded(address))
    return (address,)


def unreachable(address: IP) -> bool:
    """Whether the address is refused whatever the operator allows: metadata services, and what is no upstream."""
    if address in _METADATA or any(address in net for net in _UNROUTED if net.version == address.version):
        return True
    return isinstance(address, IPv6Address) and any(unreachable(inner) for inner in embedded(address))


def inner(address: IP) -> bool:
    """Whether the address is not a public one, and so needs the operator's word."""
    if isinstance(address, IPv4Address):
        return any(address in net for net in _INNER_V4)
    if any(inner(v4) for v4 in embedded(address)):
        return True
    if _translated(address):
        return False
    return address not in _GLOBAL_V6 or any(address in net for net in _INNER_V6)


class EgressGuard:
    """Judges names before they are looked up, and every address before it is dialled.

    Public addresses are free. Inner ones (loopback, private, link-local, …) need an entry of `allow`. Metadata
    services stay refused even then. `resolver` and `clock` are arguments so that tests can lie about DNS.
    """

    def __init__(
        self,
        allow: Sequence[str] = (),
        *,
        resolver: Resolve = _lookup,
        clock: Callable[[], float] = time.monotonic,
        cache_seconds: float = 5.0,
    ) -> None:
        self._allow = tuple(read_entry(text) for text in allow)
        self._resolver = resolver
        self._clock = clock
        self._cache_seconds = cache_seconds
        self._cache: dict[tuple[str, int], tuple[float, tuple[Address, ...]]] = {}
        self._own_ports: frozenset[int] = frozenset()

    def allow_only(self, allow: Sequence[str]) -> None:
        """Take over another `egress.allow`; what was looked up under the old one is forgotten."""
        self._allow = tuple(read_entry(text) for text in allow)
        self._cache.clear()

    def own(self, ports: Sequence[int]) -> None:
        """Our own listeners' ports: never dialled on this host, so that a route cannot lead back into us."""
        self._own_ports = frozenset(ports)

    def check(self, host: str, port: int) -> None:
        """Judge a name or literal as it is written, before anything is looked up.

        Raises EgressBlocked: for a spelling that resolvers read as an address though it is none, for metadata
        services, and for inner names and literals that are not allowed.
        """
        literal = self._literal(host)
        if literal is not None:
            if not self.permitted(host, host, port):
                raise self._blocked(host)
            return
        if not _NAME.match(host) or host in _METADATA_NAMES:
            raise self._blocked(host)
        # Where a network is allowed on this port, an inner name may lead into it: the addresses decide.
        if (
            (host in _INNER_NAMES or host.endswith(_INNER_SUFFIXES))
            and not self._named(host, port)
            and not any(entry.network is not None and entry.port in (None, port) for entry in self._allow)
        ):
            raise self._blocked(host)

    def permitted(self, address: str, host: str, port: int) -> bool:
        """Whether this address may be dialled for this name and port."""
        try:
            ip = ip_address(address.partition("%")[0])
        except ValueError:
            return False
        if unreachable(ip):
            return False
        if port in self._own_ports and any(each.is_loopback for each in _spellings(ip)):
            return False
        return not inner(ip) or self._named(host, port) or self._networked(ip, port)

    async def resolve(self, host: str, port: int) -> tuple[Address, ...]:
        """The permitted addresses of a host, looked up once: exactly these are to be dialled.

        Raises EgressBlocked when none is permitted, UpstreamUnreachable when there is none.
        """
        try:
            return await self.addresses(host, port)
        except (OSError, UnicodeError):
            raise UpstreamUnreachable(f"{host} could not be looked up", reason="dns") from None

    async def addresses(self, host: str, port: int) -> tuple[Address, ...]:
        """As `resolve`, with the resolver's own OSError."""
        self.check(host, port)
        literal = self._literal(host)
        if literal is not None:
            family = socket.AF_INET if literal.version == 4 else socket.AF_INET6
            return (Address(family, (host, port) if literal.version == 4 else (host, port, 0, 0)),)
        key = (host, port)
        kept = self._cache.get(key)
        if kept is not None and kept[0] > self._clock():
            return kept[1]
        found = await self._resolver(host, port)
        good = tuple(
            dict.fromkeys(
                Address(int(family), sockaddr)
                for family, _, _, _, sockaddr in found
                if self.permitted(sockaddr[0], host, port)
            )
        )
        if not good:
            if found:
                raise self._blocked(host)
            raise OSError("no address")
        if len(self._cache) >= _CACHE_SIZE:
            self._cache.clear()
        self._cache[key] = (self._clock() + self._cache_seconds, good)
        return good

    def connected(self, sock: Any, host: str, port: int) -> None:
        """Second guard, on the socket as it is: the peer is permitted, and it is not this very host unasked.

        A connection to any of this host's own addresses has the same address on both ends.
        """
        peer = sock.getpeername()
        if not self.permitted(peer[0], host, port):
            raise self._blocked(host)
        if sock.getsockname()[0] == peer[0] and (
            port in self._own_ports
            or not (self._named(host, port) or self._networked(ip_address(peer[0].partition("%")[0]), port))
        ):
            raise self._blocked(host)

    def _literal(self, host: str) -> IP | None:
        """The address that `host` spells, if it spells one in the one canonical way; None for a name.

        Resolvers read `2130706433`, `0x7f000001`, `0177.0.0.1` and `127.1` as addresses: such hosts are refused.
        """
        if ":" not in host and not _NUMERIC_LABEL.match(host.rpartition(".")[2]):
            return None
        try:
            ip = ip_address(host)
        except ValueError:
            raise self._blocked(host) from None
        # An IPv4 address has a spelling of its own, and Python 3.13 writes mapped ones otherwise than 3.11.
        mapped = isinstance(ip, IPv6Address) and ip.ipv4_mapped is not None
        if mapped or str(ip) != host or "%" in host:
            raise self._blocked(host)
        return ip

    def _named(self, host: str, port: int) -> bool:
        return any(entry.name == host and entry.port in (None, port) for entry in self._allow)

    def _networked(self, address: IP, port: int) -> bool:
        return any(
            entry.network is not None
            and entry.port in (None, port)
            and any(
                each.version == entry.network.version and each in entry.network
                for each in _spellings(address)
            )
            for entry in self._allow
        )

    def _blocked(self, host: str) -> EgressBlocked:
        shown = host if host.isascii() and host.isprintable() and len(host) <= 253 else "the host"
        return EgressBlocked(f"{shown} leads to an address that may not be dialled")


class GuardedResolver(AbstractResolver):
    """The guard as aiohttp's resolver, for sessions that call token endpoints.

    aiohttp does not ask its resolver about IP literals: check those with `EgressGuard.check` beforehand.
    """

    def __init__(self, guard: EgressGuard) -> None:
        self._guard = guard

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = await self._guard.addresses(host.lower(), port)
        return [
            ResolveResult(
                hostname=host,
                host=address.sockaddr[0],
                port=port,
                family=address.family,
                proto=0,
                flags=socket.AI_NUMERICHOST,
            )
            for address in found
            if family in (socket.AF_UNSPEC, address.family)
        ]

    async def close(self) -> None:
        """Nothing is held."""
