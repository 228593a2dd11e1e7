"""The local certificate authority: a root that all replicas share, and short-lived leaves for single hosts.

Its root may only speak for the hosts that routes name and for this machine's own names (name constraints,
RFC 5280 §4.2.1.10), so that whoever trusts it trusts it with nothing else. The key is sealed in the store.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import ssl
import tempfile
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address, ip_network
from typing import Final, NamedTuple, Self
from weakref import WeakKeyDictionary

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from authproxy.core.secret import Secret
from authproxy.store.kept import Kept
from authproxy.store.vault import Vault

ROOT_LIFE: Final = timedelta(days=730)
ROOT_LEFT: Final = timedelta(days=90)  # a root with less to live is issued anew, under the same key
LEAF_LIFE: Final = timedelta(hours=24)
SKEW: Final = timedelta(hours=1)  # an agent's clock may be this late
OWN_NAMES: Final = ("localhost", "127.0.0.1", "::1")

_KEPT = "ca"
_LEAVES = 512
_TRIES = 8


class _Leaf(NamedTuple):
    context: ssl.SSLContext
    renew: float


class Authority:
    """Makes a TLS context for a host; `pem` is the root's certificate, which agents must trust."""

    def __init__(
        self,
        key: ec.EllipticCurvePrivateKey,
        certificate: x509.Certificate,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._key = key
        self.certificate = certificate
        self._clock = clock
        self._leaf_key = ec.generate_private_key(ec.SECP256R1())
        self._leaves: OrderedDict[tuple[str, ...], _Leaf] = OrderedDict()
        self._asked: WeakKeyDictionary[ssl.SSLObject, str] = WeakKeyDictionary()
        self._making: dict[tuple[str, ...], asyncio.Task[ssl.SSLContext]] = {}

    @classmethod
    async def open(
        cls, vault: Vault, hosts: Iterable[str], *, clock: Callable[[], float] = time.time
    ) -> Self:
        """The store's authority for these hosts (a name that begins with a dot: all names below it).

        Made on first use. Where its root is for other hosts, or ends soon, a new one is issued under the same
        key: what was issued before stays good, and agents see the new one with their next bundle.
        """
        names = tuple(sorted({host.removeprefix(".") for host in hosts} | set(OWN_NAMES)))
        kept = await vault.kept(_KEPT)
        for _ in range(_TRIES):
            if kept is not None:
                key, certificate = _read(kept)
                if _names_of(certificate) == names and _left(certificate, clock()) > ROOT_LEFT:
                    return cls(key, certificate, clock=clock)
            else:
                key = ec.generate_private_key(ec.SECP256R1())
            kept = await vault.keep(_KEPT, _written(key, _root(key, names, clock())), instead_of=kept)
        # Replicas with other routes issue theirs at the same time; for what is signed here any of them will do.
        key, certificate = _read(kept) if kept is not None else (key, _root(key, names, clock()))
        return cls(key, certificate, clock=clock)

    @property
    def pem(self) -> str:
        """The root's certificate as agents need it."""
        return self.certificate.public_bytes(serialization.Encoding.PEM).decode("ascii")

    @property
    def names(self) -> tuple[str, ...]:
        """The hosts that the root may speak for."""
        return _names_of(self.certificate)

    async def context(self, host: str) -> ssl.SSLContext:
        """A server's context for one host; made off the loop, once."""
        names = (host,)
        found = self._find(names)
        if found is not None:
            return found
        task = self._making.get(names)
        if task is None:
            task = asyncio.create_task(asyncio.to_thread(self._make, names))
            self._making[names] = task
            task.add_done_callback(lambda _: self._making.pop(names, None))
        return await asyncio.shield(task)

    def asked(self, session: ssl.SSLObject) -> str | None:
        """The name that a client asked for in its handshake with one of these contexts (SNI); None: none."""
        return self._asked.get(session)

    def listener(self, *names: str) -> ssl.SSLContext:
        """A context for a listener that stays: its leaf is renewed while it serves."""
        wanted = tuple(dict.fromkeys([*OWN_NAMES, *names]))

        def renewed(tls: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
            tls.context = self._find(wanted) or self._make(wanted)

        context = self._build(wanted)
        context.sni_callback = renewed
        return context

    def _find(self, names: tuple[str, ...]) -> ssl.SSLContext | None:
        leaf = self._leaves.get(names)
        if leaf is None or leaf.renew <= self._clock():
            return None
        self._leaves.move_to_end(names)
        return leaf.context

    def _make(self, names: tuple[str, ...]) -> ssl.SSLContext:
        def note(session: ssl.SSLObject, name: str | None, _context: ssl.SSLContext) -> None:
            if name is not None:
                self._asked[session] = name

        context = self._build(names)
        context.sni_callback = note
        self._leaves[names] = _Leaf(context, self._clock() + LEAF_LIFE.total_seconds() / 2)
        while len(self._leaves) > _LEAVES:
            self._leaves.popitem(last=False)
        return context

    def _build(self, names: Sequence[str]) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        # Nothing is resumed on one machine, and a ticket that a client leaves unread turns its close into a reset.
        context.num_tickets = 0
        context.options |= ssl.OP_NO_TICKET
        with self._chain(names) as path:
            context.load_cert_chain(path)
        return context

    @contextmanager
    def _chain(self, names: Sequence[str]) -> Iterator[str]:
        """A leaf and its key where OpenSSL can read them: it takes files only, so they are in memory where there
        is such a file, else in one that nobody else may open and that is gone at once."""
        leaf = self._sign(names)
        text = self._leaf_key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ) + leaf.public_bytes(serialization.Encoding.PEM)
        if hasattr(os, "memfd_create"):
            with os.fdopen(os.memfd_create("leaf"), "wb") as file:
                file.write(text)
                file.flush()
                yield f"/proc/self/fd/{file.fileno()}"
            return
        with tempfile.NamedTemporaryFile(prefix="authproxy-") as file:
            file.write(text)
            file.flush()
            yield file.name

    def _sign(self, names: Sequence[str]) -> x509.Certificate:
        now = datetime.fromtimestamp(self._clock(), UTC)
        ends = min(now + LEAF_LIFE, self.certificate.not_valid_after_utc)
        issuer_id = self.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
        return (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "authproxy")]))
            .issuer_name(self.certificate.subject)
            .public_key(self._leaf_key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - SKEW)
            .not_valid_after(ends)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName([_general(name) for name in names]), critical=False)
            .add_extension(_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(
                x509.SubjectKeyIdentifier.from_public_key(self._leaf_key.public_key()), critical=False
            )
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(issuer_id), critical=False
            )
            .sign(self._key, hashes.SHA256())
        )


def _root(key: ec.EllipticCurvePrivateKey, names: Sequence[str], at: float) -> x509.Certificate:
    now = datetime.fromtimestamp(at, UTC)
    public = key.public_key()
    spki = public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    # Two stores' roots in one bundle must not be taken for one another: the name holds the key's fingerprint.
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "authproxy"),
            x509.NameAttribute(
                NameOID.COMMON_NAME, f"authproxy local CA {hashlib.sha256(spki).hexdigest()[:12]}"
            ),
        ]
    )
    own = x509.SubjectKeyIdentifier.from_public_key(public)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - SKEW)
        .not_valid_after(now + ROOT_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(x509.NameConstraints([_subtree(name) for name in names], None), critical=True)
        .add_extension(own, critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own), critical=False)
        .sign(key, hashes.SHA256())
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _subtree(name: str) -> x509.GeneralName:
    """A DNS subtree is a name and all below it: there is no way to say the name alone."""
    try:
        return x509.IPAddress(ip_network(name))
    except ValueError:
        return x509.DNSName(name.removeprefix("."))


def _names_of(certificate: x509.Certificate) -> tuple[str, ...]:
    found = certificate.extensions.get_extension_for_class(x509.NameConstraints).value.permitted_subtrees
    return tuple(sorted(str(one.value).partition("/")[0] for one in found or ()))


def _left(certificate: x509.Certificate, at: float) -> timedelta:
    return certificate.not_valid_after_utc - datetime.fromtimestamp(at, UTC)


def _written(key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate) -> Kept:
    text = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    public = certificate.public_bytes(serialization.Encoding.PEM)
    return Kept(public.decode("ascii"), Secret(text.decode("ascii")))


def _read(kept: Kept) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
    key = serialization.load_pem_private_key(kept.secret.reveal().encode("ascii"), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return key, x509.load_pem_x509_certificate(kept.text.encode("ascii"))
