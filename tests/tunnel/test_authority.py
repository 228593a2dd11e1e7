"""The local authority: one root for all replicas, for routed hosts alone; leaves that live for a day."""

from __future__ import annotations

import asyncio
import shutil
import ssl
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from authproxy.core.errors import KeyMissing
from authproxy.core.model import Environment
from authproxy.proxy.authority import OWN_NAMES, Authority
from authproxy.store.sealing import Keyring, generate_key
from authproxy.store.vault import Vault

NOW = 1_800_000_000.0
HOSTS = ("api.github.com", "10.1.2.3", ".my.salesforce.com")


class Store:
    """One store, opened by as many replicas as one likes."""

    def __init__(self, path: Path) -> None:
        self.path, self.key = path, generate_key()

    async def open(self, keyring: Keyring | None = None) -> Vault:
        return await Vault.open(
            f"sqlite:///{self.path}",
            keyring=keyring or Keyring.parse(self.key),
            environment=Environment.STAGING,
        )


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store.db")


async def authority(store: Store, hosts: tuple[str, ...] = HOSTS, at: float = NOW) -> Authority:
    vault = await store.open()
    try:
        return await Authority.open(vault, hosts, clock=lambda: at)
    finally:
        await vault.close()


def served(context: ssl.SSLContext, name: str | None, trust: ssl.SSLContext) -> x509.Certificate:
    """The leaf that a client sees, its handshake done in memory."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = trust.wrap_bio(to_client, to_server, server_hostname=name)
    server = context.wrap_bio(to_server, to_client, server_side=True)
    for _ in range(4):
        for side in (client, server):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
    found = client.getpeercert(binary_form=True)
    assert found is not None
    return x509.load_der_x509_certificate(found)


def trusting(*authorities: Authority, verify_names: bool = True) -> ssl.SSLContext:
    context = ssl.create_default_context(cadata="\n".join(one.pem for one in authorities))
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    context.check_hostname = verify_names
    return context


async def test_the_root_is_what_it_should_be(store: Store) -> None:
    made = await authority(store)
    root = made.certificate
    constraints = root.extensions.get_extension_for_class(x509.BasicConstraints)
    assert constraints.critical
    assert (constraints.value.ca, constraints.value.path_length) == (True, 0)
    key = root.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    assert isinstance(key.curve, ec.SECP256R1)
    names = root.extensions.get_extension_for_class(x509.NameConstraints)
    assert names.critical
    assert names.value.excluded_subtrees is None
    assert made.names == tuple(sorted({"api.github.com", "10.1.2.3", "my.salesforce.com", *OWN_NAMES}))
    now = datetime.fromtimestamp(NOW, UTC)
    life = root.not_valid_after_utc - root.not_valid_before_utc
    assert root.not_valid_before_utc <= now - timedelta(minutes=50)
    assert timedelta(days=365) <= life <= timedelta(days=731)
    usage = root.extensions.get_extension_for_class(x509.KeyUsage).value
    assert usage.key_cert_sign
    assert not usage.digital_signature


async def test_a_leaf_is_short_lived_and_of_one_host(store: Store) -> None:
    now = datetime.now(UTC)
    made = await authority(store, at=now.timestamp())
    leaf = served(await made.context("api.github.com"), "api.github.com", trusting(made))
    assert leaf.not_valid_after_utc - now <= timedelta(hours=24)
    assert now - leaf.not_valid_before_utc >= timedelta(minutes=59)
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["api.github.com"]
    assert not leaf.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    assert not leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    purpose = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(purpose) == [ExtendedKeyUsageOID.SERVER_AUTH]
    by_address = served(await made.context("10.1.2.3"), "10.1.2.3", trusting(made))
    assert by_address.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    below = served(await made.context("acme.my.salesforce.com"), "acme.my.salesforce.com", trusting(made))
    assert below.serial_number != leaf.serial_number


@pytest.mark.parametrize(
    "host", ["example.com", "xapi.github.com", "github.com", "10.1.2.4", "8.8.8.8", "::2"]
)
async def test_the_root_may_not_speak_for_others(store: Store, host: str) -> None:
    """Even with its key: what verifies is held to the names in the root."""
    made = await authority(store, at=datetime.now(UTC).timestamp())
    with pytest.raises(ssl.SSLCertVerificationError) as caught:
        served(await made.context(host), host, trusting(made))
    assert "permitted subtree violation" in str(caught.value)


async def test_replicas_share_one_root_whoever_is_first(store: Store) -> None:
    vaults = [await store.open() for _ in range(4)]
    try:
        made = await asyncio.gather(*(Authority.open(vault, HOSTS) for vault in vaults))
    finally:
        for vault in vaults:
            await vault.close()
    assert len({one.pem for one in made}) == 1
    for signer in made:
        served(await signer.context("api.github.com"), "api.github.com", trusting(made[0]))


async def test_processes_share_one_root(store: Store, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text(generate_key())
    routes = tmp_path / "routes.yaml"
    routes.write_text("version: 1\n")
    command = [
        sys.executable,
        "-c",
        "import sys; from authproxy.cli import main; sys.exit(main())",
        "ca",
        "show",
    ]
    command += ["--config", str(routes), "--store", f"sqlite:///{tmp_path}/shared.db"]
    env = {"AUTHPROXY_KEYS_FILE": str(keys), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    shown = await asyncio.gather(
        *(
            asyncio.to_thread(
                subprocess.run, command, env=env, capture_output=True, text=True, timeout=50, check=True
            )
            for _ in range(4)
        )
    )
    assert len({one.stdout for one in shown}) == 1


async def test_new_routes_issue_a_new_root_under_the_same_key(store: Store) -> None:
    at = datetime.now(UTC).timestamp()
    old = await authority(store, at=at)
    new = await authority(store, (*HOSTS, "slack.com"), at=at)
    assert new.pem != old.pem
    assert "slack.com" in new.names
    assert new.certificate.subject == old.certificate.subject
    # What trusts the old root goes on with the old hosts, and not with the new one.
    served(await new.context("api.github.com"), "api.github.com", trusting(old))
    served(await new.context("slack.com"), "slack.com", trusting(new))
    with pytest.raises(ssl.SSLCertVerificationError):
        served(await new.context("slack.com"), "slack.com", trusting(old))
    assert (await authority(store, (*HOSTS, "slack.com"), at=at)).pem == new.pem
    fewer = await authority(store, ("slack.com",), at=at)
    assert "api.github.com" not in fewer.names


async def test_a_root_that_ends_soon_is_issued_anew(store: Store) -> None:
    old = await authority(store)
    assert (await authority(store, at=NOW + 600 * 86400)).pem == old.pem
    new = await authority(store, at=NOW + 700 * 86400)
    assert new.certificate.not_valid_after_utc > old.certificate.not_valid_after_utc
    assert new.certificate.public_key() == old.certificate.public_key()


async def test_leaves_are_kept_for_half_their_life_and_no_longer(store: Store) -> None:
    now = [datetime.now(UTC).timestamp()]
    vault = await store.open()
    made = await Authority.open(vault, HOSTS, clock=lambda: now[0])
    await vault.close()
    first, again = await asyncio.gather(made.context("api.github.com"), made.context("api.github.com"))
    assert first is again
    now[0] += 11 * 3600
    assert await made.context("api.github.com") is first
    now[0] += 2 * 3600
    assert await made.context("api.github.com") is not first
    for n in range(600):
        await made.context(f"h{n}.my.salesforce.com")
    assert len(made._leaves) <= 512


async def test_a_listeners_leaf_is_renewed_while_it_serves(store: Store) -> None:
    now = [datetime.now(UTC).timestamp() - 13 * 3600]
    vault = await store.open()
    made = await Authority.open(vault, HOSTS, clock=lambda: now[0])
    await vault.close()
    context = made.listener()
    first = served(context, "localhost", trusting(made))
    names = first.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert "localhost" in names.get_values_for_type(x509.DNSName)
    assert {str(one) for one in names.get_values_for_type(x509.IPAddress)} == {"127.0.0.1", "::1"}
    assert served(context, "127.0.0.1", trusting(made)).serial_number == first.serial_number
    now[0] += 13 * 3600
    later = served(context, "localhost", trusting(made))
    assert later.serial_number != first.serial_number
    assert later.not_valid_after_utc > first.not_valid_after_utc


@pytest.mark.scenario("E01")
async def test_the_key_is_sealed_and_bound_to_its_place(store: Store, tmp_path: Path) -> None:
    made = await authority(store)
    held = b"".join(await asyncio.to_thread(lambda: [one.read_bytes() for one in tmp_path.glob("store.db*")]))
    assert b"PRIVATE KEY" not in held
    assert made.pem.splitlines()[1].encode() in held, "the certificate is public"
    secret = made._key.private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    assert secret[40:60] not in held
    with pytest.raises(KeyMissing):
        await store.open(Keyring.parse(generate_key()))


@pytest.mark.scenario("E02")
async def test_a_new_sealing_key_takes_the_root_with_it(store: Store) -> None:
    old = await authority(store)
    fresh = generate_key()
    both = Keyring.parse(f"{fresh}, {store.key}")
    vault = await store.open(both)
    assert await vault.reseal() == 0
    await vault.close()
    vault = await store.open(Keyring.parse(fresh))
    try:
        assert (await Authority.open(vault, HOSTS, clock=lambda: NOW)).pem == old.pem
    finally:
        await vault.close()


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl")
async def test_openssl_agrees(store: Store, tmp_path: Path) -> None:
    made = await authority(store, at=datetime.now(UTC).timestamp())
    leaf = served(await made.context("api.github.com"), "api.github.com", trusting(made))
    (tmp_path / "root.pem").write_text(made.pem)
    (tmp_path / "leaf.pem").write_bytes(leaf.public_bytes(serialization.Encoding.PEM))
    done = await asyncio.to_thread(
        subprocess.run,
        ["openssl", "verify", "-x509_strict", "-purpose", "sslserver", "-CAfile", "root.pem", "leaf.pem"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
