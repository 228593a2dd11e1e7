"""Authenticated encryption of single cells, each bound to the name of the row it stands in.

A sealed cell is `A7 01 | key id (8 bytes) | nonce (12 random bytes) | AES-256-GCM ciphertext and tag`. The
cell's whole name (environment, table, column, row, owner, grant, generation) goes in as associated data, so a
cell that is copied to another place does not open there (E04). There is no way to read an unsealed value: bytes
that do not begin with a known format are refused. Putting back an older version of a whole row is not noticed
here; that takes a second store.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from authproxy.core.errors import KeyMissing
from authproxy.core.secret import Secret

_MARK: Final = b"\xa7"  # no UTF-8 text begins with this byte, so no plaintext passes for a sealed cell
_FORMAT: Final = b"\x01"
_KEY_ID: Final = 8
_NONCE: Final = 12
_HEAD: Final = len(_MARK) + len(_FORMAT)
NAMED: Final = _HEAD + _KEY_ID
"""So many bytes at the beginning of a cell say under which key it is sealed."""
_KEY_TEXT: Final = re.compile(r"[A-Za-z0-9_-]{43}=?")

CellName = Sequence[str | int | None]
"""All that says which cell this is. Order and length are fixed by the caller for each table."""


def key_id_of(cell: bytes) -> str | None:
    """The id of the key that a cell says it is sealed under; None: it is no cell of ours."""
    if cell[:1] != _MARK or cell[1:_HEAD] != _FORMAT or len(cell) < NAMED:
        return None
    return cell[_HEAD:NAMED].hex()


def generate_key() -> str:
    """A new 256-bit key, as AUTHPROXY_KEYS takes it."""
    return base64.urlsafe_b64encode(os.urandom(32)).decode().rstrip("=")


class Keyring:
    """Sealing keys: the first seals, all open. Keys are known to people by their ids only."""

    __slots__ = ("_ciphers", "_first", "kept")

    def __init__(self, keys: Sequence[bytes], *, kept: bool = True) -> None:
        if not keys:
            raise KeyMissing("no sealing key is given", reason="keys_absent")
        self._ciphers = {_key_id(key): AESGCM(key) for key in keys}
        self._first = _key_id(keys[0])
        self.kept = kept

    @classmethod
    def parse(cls, text: str, *, source: str = "AUTHPROXY_KEYS") -> Keyring:
        """Reads keys separated by commas or whitespace. An error says which one is wrong, never what it is."""
        words = [word for word in re.split(r"[\s,]+", text) if word]
        keys = []
        for number, word in enumerate(words, 1):
            key = _decode(word)
            if key is None:
                raise KeyMissing(
                    f"key {number} of {len(words)} in {source} is not a base64url 256-bit key "
                    "(43 characters; make one with `authproxy keys generate`)",
                    reason="keys_invalid",
                )
            keys.append(key)
        if not keys:
            raise KeyMissing(f"{source} is empty", reason="keys_absent")
        return cls(keys)

    @classmethod
    def passing(cls) -> Keyring:
        """A new key that nobody keeps: for stores that end with this process."""
        return cls([os.urandom(32)], kept=False)

    @property
    def newest(self) -> str:
        """The id of the key that seals."""
        return self._first.hex()

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids of all keys, the sealing one first."""
        return tuple(key_id.hex() for key_id in self._ciphers)

    @property
    def newest_prefix(self) -> bytes:
        """How every cell begins that is sealed under the newest key."""
        return _MARK + _FORMAT + self._first

    def __repr__(self) -> str:
        return f"Keyring({', '.join(self.ids)})"

    def opening(self, also: Keyring) -> Keyring:
        """These keys, and behind them those of `also`, which only open."""
        return self._of({**self._ciphers, **also._ciphers}, self._first)

    def sealing_under(self, key_id: str) -> Keyring:
        """The same keys, of which the one with this id seals."""
        first = bytes.fromhex(key_id)
        rest = {known: cipher for known, cipher in self._ciphers.items() if known != first}
        return self._of({first: self._ciphers[first], **rest}, first)

    def _of(self, ciphers: dict[bytes, AESGCM], first: bytes) -> Keyring:
        ring = object.__new__(type(self))
        ring._ciphers, ring._first, ring.kept = ciphers, first, self.kept
        return ring

    def seal(self, plain: bytes, name: CellName) -> bytes:
        """`plain`, readable only with this keyring and only under `name`."""
        nonce = os.urandom(_NONCE)
        return self.newest_prefix + nonce + self._ciphers[self._first].encrypt(nonce, plain, _bound(name))

    def open(self, cell: bytes | None, name: CellName) -> bytes:
        """What was sealed. Three different failures are told apart by `reason`: `format_unknown`,
        `key_unknown` and `tampered`."""
        if cell is None or cell[:1] != _MARK or cell[1:_HEAD] != _FORMAT:
            raise KeyMissing(
                "a stored cell is not in a format that this version reads", reason="format_unknown"
            )
        key_id, rest = cell[_HEAD : _HEAD + _KEY_ID], cell[_HEAD + _KEY_ID :]
        cipher = self._ciphers.get(key_id)
        if cipher is None:
            raise KeyMissing(
                f"a stored cell is sealed under key {key_id.hex()}; the keys at hand are {', '.join(self.ids)}",
                reason="key_unknown",
            )
        try:
            return cipher.decrypt(rest[:_NONCE], rest[_NONCE:], _bound(name))
        except (InvalidTag, ValueError):
            raise KeyMissing(
                "a stored cell has been changed, or moved from another row", reason="tampered"
            ) from None


class Safe:
    """A keyring together with what belongs to one store: its environment and its digest key."""

    __slots__ = ("_digest_key", "_environment", "keyring")

    def __init__(self, keyring: Keyring, *, environment: str, digest_key: bytes) -> None:
        self.keyring = keyring
        self._environment = environment
        self._digest_key = digest_key

    def __repr__(self) -> str:
        return f"Safe({self.keyring!r})"

    def seal(self, secret: Secret, name: CellName) -> bytes:
        """The secret as a cell."""
        return self.keyring.seal(_bytes_of(secret), (self._environment, *name))

    def open(self, cell: bytes | None, name: CellName) -> Secret:
        """The secret of a cell; KeyMissing where it cannot be opened."""
        return Secret(self.keyring.open(cell, (self._environment, *name)).decode("utf-8", "surrogatepass"))

    def seal_fields(self, fields: Mapping[str, Any], name: CellName) -> bytes:
        """Several values as one cell, secrets among them."""
        text = json.dumps(fields, default=lambda secret: _bytes_of(secret).decode("utf-8", "surrogatepass"))
        return self.keyring.seal(text.encode(), (self._environment, *name))

    def open_fields(self, cell: bytes, name: CellName) -> dict[str, Any]:
        """What `seal_fields` sealed; the caller wraps again what was secret."""
        fields: dict[str, Any] = json.loads(self.keyring.open(cell, (self._environment, *name)))
        return fields

    def reseal(self, cell: bytes, name: CellName) -> bytes:
        """The same secret under the newest key."""
        bound = (self._environment, *name)
        return self.keyring.seal(self.keyring.open(cell, bound), bound)

    def digest(self, secret: Secret) -> str:
        """A keyed digest: equal secrets have equal digests, and without the store's key it tells nothing (E12)."""
        return hmac.new(self._digest_key, b"secret\0" + _bytes_of(secret), hashlib.sha256).hexdigest()

    def mark(self, purpose: str, text: str) -> str:
        """A keyed mark that nobody without the store's key can make."""
        return hmac.new(self._digest_key, f"mark\0{purpose}\0{text}".encode(), hashlib.sha256).hexdigest()


def _bytes_of(secret: Secret) -> bytes:
    """The one place of the store that looks into a secret."""
    return secret.reveal().encode("utf-8", "surrogatepass")  # whatever a provider gave must reach the disk


def _bound(name: CellName) -> bytes:
    # A JSON list is unambiguous: no two names, however their parts contain separators, have one encoding.
    return json.dumps(["authproxy", 1, *name], separators=(",", ":"), ensure_ascii=True).encode()


def _key_id(key: bytes) -> bytes:
    return hashlib.sha256(b"authproxy key id\0" + key).digest()[:_KEY_ID]


def _decode(word: str) -> bytes | None:
    if not _KEY_TEXT.fullmatch(word):
        return None
    try:
        return base64.urlsafe_b64decode(word.rstrip("=") + "=")
    except binascii.Error:
        return None
