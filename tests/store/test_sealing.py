"""Cells open only where they were sealed, and keys are never shown."""

from __future__ import annotations

import base64
import itertools
import os
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authproxy.core.errors import KeyMissing
from authproxy.core.model import Environment
from authproxy.core.secret import Secret
from authproxy.store.keys import load_keyring
from authproxy.store.sealing import Keyring, Safe, generate_key

NAME = ("production", "connections", "access_token", "id", "tenant", "user", "google", "default", "c", "g", 7)


def reason_of(keyring: Keyring, cell: bytes | None, name: tuple[str | int | None, ...] = NAME) -> str | None:
    with pytest.raises(KeyMissing) as caught:
        keyring.open(cell, name)
    return caught.value.reason


def test_what_is_sealed_opens_under_its_name(keyring: Keyring) -> None:
    cell = keyring.seal(b"secret", NAME)
    assert keyring.open(cell, NAME) == b"secret"
    assert b"secret" not in cell
    assert cell != keyring.seal(b"secret", NAME), "each has a nonce of its own"


@pytest.mark.scenario("E04")
@pytest.mark.parametrize("part", range(len(NAME)))
def test_a_cell_does_not_open_under_another_name(keyring: Keyring, part: int) -> None:
    cell = keyring.seal(b"secret", NAME)
    other = list(NAME)
    other[part] = 8 if part == 10 else "other"
    assert reason_of(keyring, cell, tuple(other)) == "tampered"


@pytest.mark.scenario("E04")
@given(st.lists(st.text(), min_size=1, max_size=4), st.lists(st.text(), min_size=1, max_size=4))
def test_no_two_names_are_one(one: list[str], two: list[str]) -> None:
    keyring = Keyring([b"k" * 32])
    cell = keyring.seal(b"x", one)
    if one == two:
        assert keyring.open(cell, two) == b"x"
    else:
        assert reason_of(keyring, cell, tuple(two)) == "tampered"


@pytest.mark.scenario("E04", "E13")
def test_failures_are_told_apart(keyring: Keyring) -> None:
    cell = keyring.seal(b"secret", NAME)
    for plain in (None, b"", b"CANARY-at", b"{}", cell[1:], b"\xa7\x00" + cell[2:], b"\xa7\x02" + cell[2:]):
        assert reason_of(keyring, plain) == "format_unknown"
    for length in range(10, len(cell)):
        assert reason_of(keyring, cell[:length]) == "tampered"
    for place in range(10, len(cell)):
        changed = bytearray(cell)
        changed[place] ^= 0x40
        assert reason_of(keyring, bytes(changed)) == "tampered"
    stranger = Keyring.parse(generate_key())
    with pytest.raises(KeyMissing, match=keyring.newest) as caught:
        stranger.open(cell, NAME)
    assert caught.value.reason == "key_unknown"
    assert stranger.newest in caught.value.title


@pytest.mark.scenario("E02")
def test_the_first_key_seals_and_all_open() -> None:
    old, new = generate_key(), generate_key()
    before = Keyring.parse(old)
    both = Keyring.parse(f" \n{new},\t{old}\n")
    cell = before.seal(b"secret", NAME)
    assert both.open(cell, NAME) == b"secret"
    assert both.newest == Keyring.parse(new).newest != before.newest
    assert both.ids == (both.newest, before.newest)
    assert reason_of(before, both.seal(b"secret", NAME)) == "key_unknown"


@pytest.mark.parametrize(
    "text",
    [
        "CANARY-short",
        "CANARY" + "x" * 38,
        "CANARY+" + "x" * 36,
        "CANARY" + "ä" * 37,
        base64.urlsafe_b64encode(b"CANARY" + bytes(10)).decode(),
        base64.urlsafe_b64encode(b"CANARY" + bytes(27)).decode(),
    ],
)
def test_a_wrong_key_is_refused_and_not_shown(text: str) -> None:
    with pytest.raises(KeyMissing, match="key 2 of 2") as caught:
        Keyring.parse(f"{generate_key()} {text}")
    assert text not in str(caught.value)
    assert caught.value.reason == "keys_invalid"


def test_no_key_is_refused() -> None:
    for text in ("", " , \n"):
        with pytest.raises(KeyMissing):
            Keyring.parse(text)


def test_keys_are_known_by_their_ids_only() -> None:
    keys = [generate_key(), generate_key()]
    keyring = Keyring.parse(",".join(keys))
    shown = f"{keyring!r} {keyring} {Safe(keyring, environment='production', digest_key=b'd' * 32)!r}"
    assert all(key not in shown and key[:10] not in shown for key in keys)
    assert keyring.newest in shown
    assert len({generate_key() for _ in range(50)}) == 50
    assert Keyring.parse(keys[0] + "=").newest == keyring.newest


def test_digests_depend_on_the_stores_own_key(keyring: Keyring) -> None:
    one, two = (Safe(keyring, environment="production", digest_key=key) for key in (b"1" * 32, b"2" * 32))
    assert one.digest(Secret("t")) == one.digest(Secret("t"))
    values = {safe.digest(Secret(t)) for safe, t in itertools.product((one, two), ("t", "u"))}
    assert len(values) == 4
    assert one.digest(Secret("t")) != one.mark("secret", "t") != one.mark("other", "t")


# -- where keys come from


def said(environ: dict[str, str], path: Path | None, environment: Environment) -> tuple[Keyring, list[str]]:
    lines: list[str] = []
    keyring = load_keyring(environ, store_path=path, environment=environment, announce=lines.append)
    return keyring, lines


@pytest.mark.scenario("C09", "E01")
@pytest.mark.parametrize("environment", [Environment.STAGING, Environment.PRODUCTION])
def test_without_a_key_only_development_starts(tmp_path: Path, environment: Environment) -> None:
    with pytest.raises(KeyMissing, match="AUTHPROXY_KEYS"):
        said({}, tmp_path / "a.db", environment)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.scenario("E01")
def test_development_makes_a_key_file_once(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    before = os.umask(0)
    try:
        keyring, lines = said({}, path, Environment.DEVELOPMENT)
    finally:
        os.umask(before)
    made = tmp_path / "a.db.keys"
    assert stat.S_IMODE(made.stat().st_mode) == 0o600
    assert str(made) in lines[0]
    assert made.read_text().strip() not in lines[0]
    path.write_bytes(b"rows")
    again, lines = said({}, path, Environment.DEVELOPMENT)
    assert (again.ids, lines) == (keyring.ids, [])
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.db", "a.db.keys"]
    made.unlink()
    with pytest.raises(KeyMissing, match="a new key could not open"):
        said({}, path, Environment.DEVELOPMENT)
    assert not made.exists()


def test_a_key_may_be_in_the_environment_or_in_a_file(tmp_path: Path) -> None:
    key, file = generate_key(), tmp_path / "keys"
    file.write_text(f"{key}\n")
    file.chmod(0o600)
    expected = Keyring.parse(key).ids
    for environ in ({"AUTHPROXY_KEYS": key}, {"AUTHPROXY_KEYS_FILE": str(file)}):
        keyring, lines = said(environ, None, Environment.PRODUCTION)
        assert (keyring.ids, lines) == (expected, [])
    file.chmod(0o644)
    assert "chmod" in said({"AUTHPROXY_KEYS_FILE": str(file)}, None, Environment.PRODUCTION)[1][0]
    with pytest.raises(KeyMissing, match="both"):
        said({"AUTHPROXY_KEYS": key, "AUTHPROXY_KEYS_FILE": str(file)}, None, Environment.PRODUCTION)
    with pytest.raises(KeyMissing, match="cannot be read"):
        said({"AUTHPROXY_KEYS_FILE": str(tmp_path / "none")}, None, Environment.PRODUCTION)
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(KeyMissing, match="cannot be read"):
        said({"AUTHPROXY_KEYS_FILE": str(file)}, None, Environment.PRODUCTION)


@pytest.mark.parametrize(
    ("mode", "said"),
    [
        (0o600, []),
        (0o440, []),  # as Kubernetes mounts a secret for a group
        (0o644, ["read by everybody"]),
        (0o660, ["changed by others"]),
        (0o666, ["read by everybody", "changed by others"]),
    ],
)
def test_a_key_file_that_others_can_reach_is_said(tmp_path: Path, mode: int, said: list[str]) -> None:
    file = tmp_path / "keys"
    file.write_text(generate_key())
    file.chmod(mode)
    told: list[str] = []
    load_keyring(
        {"AUTHPROXY_KEYS_FILE": str(file)},
        store_path=None,
        environment=Environment.PRODUCTION,
        announce=told.append,
    )
    assert len(told) == len(said)
    assert all(word in line for word, line in zip(said, told, strict=True))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_key_file_that_somebody_else_put_there_is_said(tmp_path: Path) -> None:
    file = tmp_path / "store.db.keys"
    file.write_text(generate_key())
    file.chmod(0o600)
    os.chown(file, 12345, 12345)
    told: list[str] = []
    load_keyring(
        {}, store_path=tmp_path / "store.db", environment=Environment.DEVELOPMENT, announce=told.append
    )
    assert ["12345" in line for line in told] == [True]


def test_a_store_in_memory_has_a_key_of_its_own() -> None:
    assert said({}, None, Environment.DEVELOPMENT)[0].ids != said({}, None, Environment.DEVELOPMENT)[0].ids
