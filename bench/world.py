"""What all contenders share: a folder, the upstreams on loopback, their certificate, the token."""

from __future__ import annotations

import asyncio
import datetime as dt
import ipaddress
import os
import ssl
import sys
from contextlib import ExitStack
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from authproxy.cli.load import ANSWER, get, listen
from bench.machine import program
from bench.process import Process
from tests.kit.ports import free_port

USERS = 10
TOKEN = "bench-" + "a" * 40
MEGA = 10**6
HUGE = 10**8
_LINE = b'{"id": 1234567890, "name": "one of many records", "tags": ["a", "b"]}\n'.ljust(100, b" ")
_NGINX = """
worker_processes 1; daemon off; pid {folder}/upstream.pid; error_log stderr error; {user}
events {{ worker_connections 8192; }}
http {{
  access_log off; default_type application/json; root {folder}/files; sendfile on; tcp_nodelay on;
  keepalive_requests 1000000000; keepalive_timeout 600s; client_max_body_size 0; client_body_buffer_size 2m;
  client_body_temp_path {memory}; proxy_temp_path {memory}; fastcgi_temp_path {memory};
  uwsgi_temp_path {memory}; scgi_temp_path {memory};
  server {{
    listen 127.0.0.1:{plain} backlog=4096; listen 127.0.0.1:{tls} ssl backlog=4096;
    ssl_certificate {folder}/leaf.pem; ssl_certificate_key {folder}/leaf.key; ssl_protocols TLSv1.3;
    location /bytes/ {{ default_type application/octet-stream; }}
    location /text/ {{ default_type text/plain; }}
    location = /small {{ return 200 '{answer}'; }}
    # A body is read to its end before it is answered, as an API does.
    location = /take {{ proxy_pass http://inner; proxy_pass_request_body off; proxy_set_header Content-Length "";
                        proxy_http_version 1.1; proxy_set_header Connection ""; }}
  }}
  upstream inner {{ server unix:{folder}/inner; keepalive 512; keepalive_requests 1000000000; }}
  server {{ listen unix:{folder}/inner backlog=4096; location / {{ return 200 '{answer}'; }} }}
}}
"""


class World:
    """`plain`, `tls` and `events` are the upstreams' ports; `authority` is the file of the CA they answer to.

    `memory` is a folder that is no disk, if the machine has one: for what an upstream is sent.
    """

    def __init__(self, folder: Path, memory: Path) -> None:
        self.folder = folder
        self.memory = memory
        self.authority = folder / "ca.pem"
        self.plain, self.tls, self.events = free_port(), free_port(), free_port()
        self.upstream = "nginx" if program("nginx") else "asyncio"
        self._stack = ExitStack()

    def __enter__(self) -> World:
        _certify(self.folder)
        nginx = program("nginx")
        if nginx is not None:
            self._start_nginx(nginx)
        else:
            self._start_own("plain", self.plain)
            self._start_own("tls", self.tls, str(self.folder))
        self._start_own("events", self.events)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _start_nginx(self, nginx: str) -> None:
        (self.folder / "files" / "bytes").mkdir(parents=True)
        (self.folder / "files" / "text").mkdir()
        (self.folder / "files" / "text" / str(MEGA)).write_bytes(_LINE * (MEGA // len(_LINE)))
        for size in (MEGA, HUGE):
            (self.folder / "files" / "bytes" / str(size)).write_bytes(os.urandom(1000) * (size // 1000))
        file = self.folder / "upstream.conf"
        file.write_text(
            _NGINX.format(
                folder=self.folder,
                memory=self.memory,
                user=nginx_user(),
                plain=self.plain,
                tls=self.tls,
                answer=ANSWER.decode(),
            )
        )
        process = Process([nginx, "-c", str(file), "-p", str(self.folder)], self.folder / "upstream.log")
        self._stack.callback(process.stop)
        process.await_port(self.plain, get("/small"))

    def _start_own(self, name: str, port: int, *more: str) -> None:
        command = [sys.executable, "-m", "bench.world", str(port), *more]
        process = Process(command, self.folder / f"{name}.log")
        self._stack.callback(process.stop)
        process.await_port(port)


def nginx_user() -> str:
    """Started by root, nginx would give its workers to a user who may not enter the folder."""
    return "user root;" if os.geteuid() == 0 else ""


def _certify(folder: Path) -> None:
    """A CA and a certificate of its for 127.0.0.1, for a week."""
    now = dt.datetime.now(dt.UTC)
    span = (now - dt.timedelta(hours=1), now + dt.timedelta(days=7))
    keys = [ec.generate_private_key(ec.SECP256R1()) for _ in range(2)]
    names = [
        x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)]) for text in ("bench authority", "bench")
    ]

    def begin(index: int) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder(names[0], names[index], keys[index].public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(span[0])
            .not_valid_after(span[1])
        )

    usage = x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=True,
        encipher_only=False,
        decipher_only=False,
    )
    # nginx compares names only, and no addresses.
    hosts = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    authority = (
        begin(0)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(keys[0].public_key()), critical=False)
        .sign(keys[0], hashes.SHA256())
    )
    leaf = (
        begin(1)
        .add_extension(x509.SubjectAlternativeName(hosts), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(keys[0].public_key()), critical=False
        )
        .sign(keys[0], hashes.SHA256())
    )
    (folder / "ca.pem").write_bytes(authority.public_bytes(serialization.Encoding.PEM))
    (folder / "leaf.pem").write_bytes(leaf.public_bytes(serialization.Encoding.PEM))
    (folder / "leaf.key").write_bytes(
        keys[1].private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )


async def _serve(port: int, folder: str | None) -> None:
    tls = None
    if folder is not None:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(f"{folder}/leaf.pem", f"{folder}/leaf.key")
    server, _ = await listen(tls, port)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else None))
