"""What may be dialled: every class of address and spelling, and the address judged is the address dialled."""

from __future__ import annotations

import asyncio
import socket

import aiohttp
import pytest

from authproxy.core.errors import EgressBlocked, UpstreamUnreachable
from authproxy.egress import EgressGuard, GuardedResolver, read_entry

METADATA = [
    "169.254.169.254",
    "169.254.170.2",
    "169.254.170.23",
    "100.100.100.200",
    "168.63.129.16",
    "192.0.0.192",
    "fd00:ec2::254",
    "fd00:ec2::23",
    "fd20:ce::254",
    "::ffff:169.254.169.254",
    "::169.254.169.254",
    "64:ff9b::a9fe:a9fe",
    "2002:a9fe:a9fe::1",
    "2001:0:0:0:0:0:5601:5601",  # Teredo: the client's address is inverted
    "2a00::5efe:a9fe:a9fe",
    "2a00::200:5efe:a9fe:a9fe",
]
NOWHERE = [
    "0.0.0.0",
    "0.1.2.3",
    "::",
    "224.0.0.1",
    "239.1.1.1",
    "255.255.255.255",
    "ff02::1",
    "::ffff:0.0.0.0",
]
INNER = [
    "127.0.0.1",
    "127.255.255.254",
    "::1",
    "10.0.0.1",
    "172.16.0.1",
    "172.31.255.255",
    "192.168.1.1",
    "100.64.0.1",
    "169.254.1.1",
    "192.0.0.8",
    "192.0.2.1",
    "192.88.99.1",
    "198.18.0.1",
    "198.51.100.7",
    "203.0.113.9",
    "240.0.0.1",
    "fc00::1",
    "fd12:3456::1",
    "fec0::1",
    "fe80::1",
    "fe80::1%eth0",
    "2001:db8::1",
    "100::1",
    "2001::1",
    "2002:808:808::1",
    "64:ff9b:1::a00:1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "::10.0.0.1",
    "64:ff9b::7f00:1",
    "2a00::5efe:a00:1",
    "3fff::1",
    "4000::1",
]
PUBLIC = [
    "8.8.8.8",
    "1.1.1.1",
    "100.63.255.255",
    "100.128.0.1",
    "172.32.0.1",
    "2606:4700::1111",
    "::ffff:8.8.8.8",
    "64:ff9b::808:808",
]
EVERYTHING = ["api.example.com", "0.0.0.0/0", "::/0"]

ODD = [
    "2130706433",
    "0x7f000001",
    "0x7f.1",
    "0177.0.0.1",
    "127.1",
    "127.0.1",
    "127.0.0.1.",
    "8.8.8.8.",
    "\uff11\uff12\uff17.0.0.1",
    "\u2460\u2461\u2466.0.0.1",
    "127\u30020\u30020\u30021",
    "%31%32%37.0.0.1",
    "localhost.",
    "api.example.com.",
    "exa mple.com",
    "a@b",
    "a/b",
    "a\\b",
    "a:b",
    "",
    ".",
    "a..b",
    "1.2.3",
    "1.2.3.4.5",
    "256.1.1.1",
    "08.8.8.8",
    "::ffff:8.8.8.8",  # canonical is ::ffff:808:808
    "2606:4700:0::1111",
    "fe80::1%eth0",
    "[::1]",
    "host.0x1",
    "Api.Example.com",
    "a" * 64 + ".com",
    "ex\u0430mple.com",
    "nul\0.com",
    "api.example.com\r\nx: y",
]


def dns(*answers: list[str]) -> LyingDns:
    return LyingDns(list(answers))


class LyingDns:
    """DNS that says what it is told, one answer after the other; the last repeats."""

    def __init__(self, answers: list[list[str]]) -> None:
        self.answers = answers
        self.asked: list[str] = []

    async def __call__(self, host: str, port: int):  # type: ignore[no-untyped-def]
        answer = self.answers[min(len(self.asked), len(self.answers) - 1)]
        self.asked.append(host)
        return [
            (socket.AF_INET6, socket.SOCK_STREAM, 6, "", (text, port, 0, 0))
            if ":" in text
            else (socket.AF_INET, socket.SOCK_STREAM, 6, "", (text, port))
            for text in answer
        ]


@pytest.mark.scenario("G22", "D26")
@pytest.mark.parametrize("address", METADATA + NOWHERE)
def test_metadata_services_and_what_is_no_upstream_stay_refused_whatever_is_allowed(address: str) -> None:
    assert not EgressGuard(EVERYTHING).permitted(address, "api.example.com", 443)


@pytest.mark.scenario("G22", "D26")
@pytest.mark.parametrize("address", INNER)
def test_inner_addresses_need_the_operators_word(address: str) -> None:
    assert not EgressGuard().permitted(address, "api.example.com", 443)
    assert EgressGuard(["api.example.com"]).permitted(address, "api.example.com", 443)
    assert not EgressGuard(["api.example.com:8443"]).permitted(address, "api.example.com", 443)
    assert not EgressGuard(["other.example.com"]).permitted(address, "api.example.com", 443)


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_are_free(address: str) -> None:
    assert EgressGuard().permitted(address, "api.example.com", 443)


def test_rubbish_is_not_an_address() -> None:
    assert not EgressGuard(EVERYTHING).permitted("api.example.com", "api.example.com", 443)


@pytest.mark.parametrize(
    ("entry", "address", "port", "permitted"),
    [
        ("10.0.0.0/8", "10.1.2.3", 443, True),
        ("10.0.0.0/8:8080", "10.1.2.3", 443, False),
        ("10.0.0.0/8:8080", "10.1.2.3", 8080, True),
        ("10.0.0.0/8", "11.0.0.1", 443, True),  # public anyway
        ("10.0.0.0/8", "192.168.0.1", 443, False),
        ("10.0.0.0/8", "::ffff:10.0.0.1", 443, True),
        ("127.0.0.1:9000", "127.0.0.1", 9000, True),
        ("127.0.0.1:9000", "127.0.0.1", 9001, False),
        ("[fd00::/8]:443", "fd00::1", 443, True),
        ("[fd00::1]:443", "fd00::1", 443, True),
        ("fd00::/8", "fd00::1", 443, True),
        ("[fd00::/8]:443", "fd00::1", 444, False),
        ("169.254.0.0/16", "169.254.169.254", 80, False),
    ],
)
def test_networks_may_be_allowed(entry: str, address: str, port: int, permitted: bool) -> None:
    assert EgressGuard([entry]).permitted(address, "x.example.com", port) is permitted


@pytest.mark.parametrize(
    "entry", ["", "10.0.0.1/8", "host:0", "host:65536", "host:x", "127.1", "a b", "::1:80:", "*", "[::1"]
)
def test_an_entry_that_cannot_be_read_is_a_fault(entry: str) -> None:
    with pytest.raises(ValueError):
        read_entry(entry)


@pytest.mark.scenario("G22")
@pytest.mark.parametrize("host", ODD)
def test_odd_spellings_are_refused_not_resolved(host: str) -> None:
    guard = EgressGuard(EVERYTHING)
    with pytest.raises(EgressBlocked) as refusal:
        guard.check(host, 443)
    assert "\r" not in refusal.value.title
    assert "\0" not in refusal.value.title


@pytest.mark.parametrize(
    "host", ["169.254.169.254", "fd00:ec2::254", "metadata", "metadata.google.internal", "instance-data"]
)
def test_metadata_names_and_literals_are_refused_even_when_allowed(host: str) -> None:
    entry = f"[{host}]" if ":" in host else host
    with pytest.raises(EgressBlocked):
        EgressGuard([entry, *EVERYTHING]).check(host, 80)


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "app.localhost",
        "db.svc",
        "api.default.svc.cluster.local",
        "kubernetes.default",
        "vault.internal",
        "127.0.0.1",
        "::1",
        "10.0.0.1",
    ],
)
def test_inner_names_and_literals_need_the_operators_word(host: str) -> None:
    with pytest.raises(EgressBlocked):
        EgressGuard().check(host, 8080)
    entry = f"[{host}]:8080" if ":" in host else f"{host}:8080"
    EgressGuard([entry]).check(host, 8080)
    with pytest.raises(EgressBlocked):
        EgressGuard([entry]).check(host, 8081)


def test_an_allowed_network_lets_an_inner_name_lead_into_it() -> None:
    EgressGuard(["127.0.0.0/8:9000"]).check("localhost", 9000)
    with pytest.raises(EgressBlocked):
        EgressGuard(["127.0.0.0/8:9000"]).check("localhost", 9001)


@pytest.mark.parametrize(
    "host",
    [
        "api.example.com",
        "xn--bcher-kva.example",
        "a_b.example.com",
        "8.8.8.8",
        "2606:4700::1111",
        "127.0.0.1.nip.io",
    ],
)
def test_public_names_and_literals_pass_the_first_look(host: str) -> None:
    EgressGuard().check(host, 443)


@pytest.mark.scenario("G22")
async def test_a_name_that_turns_inward_is_refused_and_only_judged_addresses_are_given() -> None:
    clock = [0.0]
    resolver = dns(["8.8.8.8"], ["169.254.169.254"], ["10.0.0.1", "8.8.4.4", "2606:4700::1"], [])
    guard = EgressGuard(resolver=resolver, clock=lambda: clock[0], cache_seconds=5)
    assert [a.sockaddr[0] for a in await guard.resolve("rebind.example.com", 443)] == ["8.8.8.8"]
    clock[0] = 4.9  # still the address that was judged: no second lookup
    assert [a.sockaddr[0] for a in await guard.resolve("rebind.example.com", 443)] == ["8.8.8.8"]
    assert len(resolver.asked) == 1
    clock[0] = 5.1
    with pytest.raises(EgressBlocked) as refusal:
        await guard.resolve("rebind.example.com", 443)
    assert "rebind.example.com" in refusal.value.title
    assert "169.254" not in refusal.value.title
    found = await guard.resolve("rebind.example.com", 443)
    assert [a.sockaddr[0] for a in found] == ["8.8.4.4", "2606:4700::1"]
    clock[0] = 20
    with pytest.raises(UpstreamUnreachable) as unreachable:
        await guard.resolve("rebind.example.com", 443)
    assert unreachable.value.reason == "dns"


async def test_literals_are_not_looked_up() -> None:
    resolver = dns(["10.0.0.1"])
    guard = EgressGuard(resolver=resolver)
    assert (await guard.resolve("8.8.8.8", 443))[0].sockaddr == ("8.8.8.8", 443)
    assert (await guard.resolve("2606:4700::1111", 443))[0].sockaddr == ("2606:4700::1111", 443, 0, 0)
    assert resolver.asked == []


async def test_a_name_that_does_not_exist_says_so_without_the_resolvers_words() -> None:
    async def missing(host: str, port: int):  # type: ignore[no-untyped-def]
        raise socket.gaierror(socket.EAI_NONAME, "inner words")

    with pytest.raises(UpstreamUnreachable) as refusal:
        await EgressGuard(resolver=missing).resolve("nowhere.example.com", 443)
    assert refusal.value.reason == "dns"
    assert "inner words" not in refusal.value.title


async def test_the_cache_is_bounded() -> None:
    resolver = dns(["8.8.8.8"])
    guard = EgressGuard(resolver=resolver)
    for number in range(1000):
        await guard.resolve(f"h{number}.example.com", 443)
    assert len(guard._cache) <= 256


@pytest.mark.scenario("G23")
async def test_own_listeners_are_not_dialled_on_this_host() -> None:
    guard = EgressGuard(["127.0.0.0/8", "localhost"])
    guard.own([8700])
    assert not guard.permitted("127.0.0.1", "localhost", 8700)
    assert not guard.permitted("::ffff:127.0.0.1", "localhost", 8700)
    assert guard.permitted("127.0.0.1", "localhost", 9000)


async def test_the_socket_itself_is_judged_again() -> None:
    server = await asyncio.start_server(lambda _r, w: w.close(), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server:
        with socket.create_connection(("127.0.0.1", port)) as sock:
            EgressGuard(["127.0.0.1"]).connected(sock, "api.example.com", port)
            with pytest.raises(EgressBlocked):
                EgressGuard().connected(sock, "api.example.com", port)
            own = EgressGuard(["127.0.0.1"])
            own.own([port])
            with pytest.raises(EgressBlocked):
                own.connected(sock, "api.example.com", port)


async def test_an_aiohttp_session_dials_only_what_the_guard_gave() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    guard = EgressGuard(["token.example.com"], resolver=dns(["127.0.0.1"], ["127.0.0.1"]))
    connector = aiohttp.TCPConnector(resolver=GuardedResolver(guard), force_close=True)
    async with server, aiohttp.ClientSession(connector=connector, trust_env=False) as session:
        async with session.get(f"http://token.example.com:{port}/") as response:
            assert await response.text() == "ok"
        with pytest.raises(EgressBlocked):
            await session.get(f"http://other.example.com:{port}/")
