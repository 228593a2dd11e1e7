"""Where the sealing keys come from: the environment, a file, or, in development only, a new file."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from authproxy.core.errors import KeyMissing
from authproxy.core.model import Environment
from authproxy.store.sealing import Keyring, generate_key


def load_keyring(
    environ: Mapping[str, str],
    *,
    store_path: Path | None,
    environment: Environment,
    announce: Callable[[str], None],
) -> Keyring:
    """The keyring for a store. `store_path` is None where the store has no file of its own.

    Without AUTHPROXY_KEYS and AUTHPROXY_KEYS_FILE, staging and production refuse. Development uses, or makes,
    `<store>.keys`, and says so through `announce`; it never makes one where a store already exists, since that
    store was sealed under another key (E01).
    """
    text, path = environ.get("AUTHPROXY_KEYS", "").strip(), environ.get("AUTHPROXY_KEYS_FILE", "").strip()
    if text and path:
        raise KeyMissing(
            "AUTHPROXY_KEYS and AUTHPROXY_KEYS_FILE are both set: give one", reason="keys_ambiguous"
        )
    if text:
        return Keyring.parse(text)
    if path:
        return _from_file(Path(path), announce)
    if environment is not Environment.DEVELOPMENT:
        raise KeyMissing(
            f"{environment} needs a sealing key: set AUTHPROXY_KEYS or AUTHPROXY_KEYS_FILE "
            "(make one with `authproxy keys generate`)",
            reason="keys_absent",
        )
    if store_path is None:
        return Keyring.passing()
    beside = store_path.with_name(store_path.name + ".keys")
    if not beside.exists():
        if store_path.exists() and store_path.stat().st_size > 0:
            raise KeyMissing(
                f"{store_path} exists, but its key file {beside} does not: a new key could not open what is stored. "
                "Put the key file back, set AUTHPROXY_KEYS, or move the store away",
                reason="keys_absent",
            )
        if _make(beside):
            announce(f"made a sealing key for development: {beside} (mode 0600; keep it with the store)")
    return _from_file(beside, announce)


def _from_file(path: Path, announce: Callable[[str], None]) -> Keyring:
    try:
        text = path.read_text(encoding="ascii")
        mode = stat.S_IMODE(path.stat().st_mode)
    except (OSError, UnicodeDecodeError) as error:
        raise KeyMissing(
            f"the key file {path} cannot be read: {type(error).__name__}", reason="keys_absent"
        ) from None
    if mode & 0o004:
        announce(f"the key file {path} can be read by everybody (mode {mode:04o}): chmod 600 it")
    return Keyring.parse(text, source=str(path))


def _make(path: Path) -> bool:
    """Writes a new key so that the file is never seen half written; False if another process was first."""
    try:
        fd, name = tempfile.mkstemp(prefix=path.name + ".", dir=path.parent)  # mode 0600 whatever the umask
    except OSError as error:
        raise KeyMissing(
            f"a key file cannot be made in {path.parent}: {error.strerror}", reason="keys_absent"
        ) from error
    try:
        with os.fdopen(fd, "w", encoding="ascii") as file:
            file.write(generate_key() + "\n")
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(name, path)
        except FileExistsError:
            return False
        return True
    finally:
        Path(name).unlink()
