"""Raw TCP on both sides: scripted origins and clients that send and see exactly the bytes they are told.

`RawUpstream` runs a script per connection; `RawClient` is its mirror image. Both speak TLS with a throw-away
authority (`Authority`).
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import ipaddress
import socket
import ssl
import struct
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

PATIENCE = 10.0  # seconds after which a peer counts as stuck


class Peer:
    """One TCP connection, as bytes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, *pieces: bytes) -> None:
        """Each piece in a write of its own."""
        for piece in pieces:
            self.writer.write(piece)
            await asyncio.wait_for(self.writer.drain(), PATIENCE)

    async def read_head(self) -> bytes:
        """Up to and with the next empty line."""
        return await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), PATIENCE)

    async def read(self, size: int) -> bytes:
        """Exactly `size` bytes."""
        return await asyncio.wait_for(self.reader.readexactly(size), PATIENCE)

    async def read_some(self) -> bytes:
        """What comes next; b"" at the end, however it ended."""
        try:
            return await asyncio.wait_for(self.reader.read(65536), PATIENCE)
        except ConnectionError:
            return b""

    async def read_rest(self) -> bytes:
        """All until the other side closes or resets."""
        seen = bytearray()
        while piece := await self.read_some():
            seen += piece
        return bytes(seen)

    async def read_chunked(self) -> bytes:
        """The whole of a chunked body, decoded."""
        body = b""
        while size := int(await asyncio.wait_for(self.reader.readline(), PATIENCE), 16):
            body += await self.read(size)
            assert await self.read(2) == b"\r\n"
        assert await self.read(2) == b"\r\n"
        return body

    async def read_request(self) -> bytes:
        """A head and the body that it announces, exactly as they came."""
        head = await self.read_head()
        for line in head.lower().split(b"\r\n"):
            if line.startswith(b"content-length:"):
                return head + await self.read(int(line[15:]))
        if b"\r\ntransfer-encoding: chunked\r\n" in head.lower():
            return head + await asyncio.wait_for(self.reader.readuntil(b"0\r\n\r\n"), PATIENCE)
        return head

    async def closed(self, seconds: float = PATIENCE) -> bool:
        """Whether the other side closes or resets, without another byte, within the time."""
        try:
            return await asyncio.wait_for(self.reader.read(1), seconds) == b""
        except ConnectionError:
            return True
        except TimeoutError:
            return False

    def half_close(self) -> None:
        """FIN; reading goes on."""
        self.writer.write_eof()

    def reset(self) -> None:
        """RST instead of FIN."""
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    def abort(self) -> None:
        """Close without a word more; over TLS without close_notify."""
        self.writer.transport.abort()

    async def close(self) -> None:
        self.writer.close()
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            await self.writer.wait_closed()


Script = Callable[[Peer], Awaitable[None]]


class RawUpstream:
    """An origin on loopback that runs `script` once per connection and closes when the script returns.

    A script that fails fails the test that holds the upstream, when it is left.
    """

    def __init__(self, script: Script, *, tls: ssl.SSLContext | None = None, buffer: int = 2**20) -> None:
        self._script = script
        self._tls = tls
        self._buffer = buffer
        self._tasks: list[asyncio.Task[None]] = []
        self.connections = 0
        self.port = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(
            self._accept, "127.0.0.1", 0, ssl=self._tls, limit=self._buffer
        )
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        for outcome in await asyncio.gather(*self._tasks, return_exceptions=True):
            if isinstance(outcome, BaseException) and not isinstance(outcome, asyncio.CancelledError):
                raise outcome

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._tasks.append(asyncio.create_task(self._serve(Peer(reader, writer))))

    async def _serve(self, peer: Peer) -> None:
        try:
            await self._script(peer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the other side left
        finally:
            await peer.close()


def answering(*answers: bytes) -> Script:
    """Answers the requests of all connections in turn; the last answer repeats."""
    given = 0

    async def script(peer: Peer) -> None:
        nonlocal given
        while True:
            await peer.read_request()
            answer = answers[min(given, len(answers) - 1)]
            given += 1
            await peer.send(answer)

    return script


class RawClient(Peer):
    """A client that says exactly what it is told."""

    @classmethod
    async def dial(
        cls,
        port: int,
        *,
        host: str = "127.0.0.1",
        tls: ssl.SSLContext | None = None,
        server_name: str | None = None,
    ) -> RawClient:
        reader, writer = await asyncio.open_connection(
            host, port, ssl=tls, server_hostname=server_name if tls else None, limit=2**22
        )
        return cls(reader, writer)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


class Authority:
    """A certificate authority that lives as long as the test."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "throw-away authority")])
        self._certificate = self._sign(self._name, self._key.public_key(), authority=True)

    @property
    def pem(self) -> bytes:
        return self._certificate.public_bytes(serialization.Encoding.PEM)

    def client_context(self) -> ssl.SSLContext:
        """Trusts this authority and nobody else."""
        context = ssl.create_default_context(cadata=self.pem.decode())
        context.set_alpn_protocols(["http/1.1"])
        return context

    def server_context(self, *hosts: str, expired: bool = False) -> ssl.SSLContext:
        """A server's context with a certificate for the hosts."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, hosts[0])])
        certificate = self._sign(name, key.public_key(), hosts=hosts, expired=expired)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        with tempfile.TemporaryDirectory() as folder:
            chain = Path(folder) / "chain.pem"
            chain.write_bytes(
                key.private_bytes(
                    serialization.Encoding.PEM,
                    serialization.PrivateFormat.PKCS8,
                    serialization.NoEncryption(),
                )
                + certificate.public_bytes(serialization.Encoding.PEM)
            )
            context.load_cert_chain(chain)
        return context

    def _sign(
        self,
        subject: x509.Name,
        key: ec.EllipticCurvePublicKey,
        *,
        hosts: tuple[str, ...] = (),
        authority: bool = False,
        expired: bool = False,
    ) -> x509.Certificate:
        now = dt.datetime.now(dt.UTC)
        start = now - dt.timedelta(days=3)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(start)
            .not_valid_after(start + dt.timedelta(days=1 if expired else 30))
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
            # From Python 3.13 on certificates are verified strictly (RFC 5280 §4.2.1.1, §4.2.1.2, §4.2.1.3).
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False
            )
        )
        if authority:
            usage = dict.fromkeys(_USAGES, False) | {"key_cert_sign": True, "crl_sign": True}
            builder = builder.add_extension(x509.KeyUsage(**usage), critical=True)
        if hosts:
            builder = builder.add_extension(
                x509.SubjectAlternativeName([_general_name(host) for host in hosts]), critical=False
            )
        return builder.sign(self._key, hashes.SHA256())


_USAGES = (
    *("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement"),
    *("key_cert_sign", "crl_sign", "encipher_only", "decipher_only"),
)


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)
