"""What makes a store itself: its id, its environment, a canary for the sealing key, and its own digest key."""

from __future__ import annotations

import base64
import os
import uuid
from typing import Final

from authproxy.core.errors import KeyMissing, StoreUnavailable
from authproxy.core.model import Environment
from authproxy.store.base import Backend, Row, Transaction
from authproxy.store.sealing import Keyring, Safe

_CANARY: Final = b"authproxy canary"
_READ: Final = "SELECT name, value, sealed FROM meta"


async def open_safe(backend: Backend, keyring: Keyring, environment: Environment) -> Safe:
    """The safe of this store; a store without a stamp is stamped.

    Refuses, having written nothing, a store of another environment (C12) and a keyring that cannot open the
    canary (E01).
    """
    rows = await backend.read(_READ)
    if not rows:

        async def stamp(tx: Transaction) -> None:
            await tx.alone("stamp")
            if await tx.run(_READ):
                return  # another process was first
            digest_key = base64.b64encode(os.urandom(32))
            for name, value, plain in (
                ("store", uuid.uuid4().hex, None),
                ("environment", str(environment), None),
                ("canary", None, _CANARY),
                ("digest_key", None, digest_key),
            ):
                sealed = None if plain is None else keyring.seal(plain, cell_name(environment, name))
                await tx.run("INSERT INTO meta (name, value, sealed) VALUES (?, ?, ?)", name, value, sealed)

        await backend.write(stamp)
        rows = await backend.read(_READ)
    return _opened({row["name"]: row for row in rows}, keyring, environment)


async def check_stamp(backend: Backend, keyring: Keyring, environment: Environment) -> None:
    """Raises as `open_safe` does, for a store that is about to be changed."""
    rows = await backend.read(_READ)
    if rows:
        _opened({row["name"]: row for row in rows}, keyring, environment)


def cell_name(environment: Environment, name: str) -> tuple[str, ...]:
    """The name under which a cell of `meta` is sealed, environment included."""
    return (str(environment), "meta", "sealed", name)


def _opened(meta: dict[str, Row], keyring: Keyring, environment: Environment) -> Safe:
    if not {"store", "environment", "canary", "digest_key"} <= meta.keys():
        raise StoreUnavailable("the store's own stamp is damaged", reason="stamp_damaged")
    stamped = meta["environment"]["value"]
    if stamped != environment:
        raise StoreUnavailable(
            f"this store belongs to {stamped}, and was opened as {environment}: nothing was read or changed",
            reason="environment_mismatch",
        )
    try:
        canary = keyring.open(meta["canary"]["sealed"], cell_name(environment, "canary"))
    except KeyMissing as missing:
        if missing.reason != "key_unknown":
            raise
        raise KeyMissing(
            f"{missing.title}. Give the store's own key as well: in AUTHPROXY_KEYS, or in the file that "
            "AUTHPROXY_KEYS_FILE names, behind the newest. Nothing was changed",
            reason=missing.reason,
        ) from None
    if canary != _CANARY:
        raise KeyMissing("the store's canary is not what was sealed", reason="tampered")
    sealed = keyring.open(meta["digest_key"]["sealed"], cell_name(environment, "digest_key"))
    return Safe(keyring, environment=str(environment), digest_key=base64.b64decode(sealed))
