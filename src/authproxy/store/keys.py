"""Where the sealing keys come from: the environment, a file, or, in development only, a new file; and how that file
is changed while others read it."""

from __future__ import annotations

import fcntl
import os
import re
import stat
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
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


def keys_file(environ: Mapping[str, str], store_path: Path | None) -> Path | None:
    """The file that the keys are in; None: they are in the environment, or nowhere."""
    path = environ.get("AUTHPROXY_KEYS_FILE", "").strip()
    if path:
        return Path(path)
    if environ.get("AUTHPROXY_KEYS", "").strip() or store_path is None:
        return None
    beside = store_path.with_name(store_path.name + ".keys")
    return beside if beside.exists() else None


def read_keys(path: Path) -> Keyring:
    """The keyring of a file as it stands now. Raises KeyMissing."""
    return _from_file(path, lambda _: None)


def add_key(path: Path) -> Keyring:
    """Puts a new key first in a file. It is never seen half written, and the mode is 0600. Raises KeyMissing."""
    with _alone(path):
        keys = [generate_key(), *_words(path)]
        _replace(path, keys)
    return Keyring.parse(" ".join(keys))


def drop_keys(path: Path, ids: Sequence[str]) -> Keyring:
    """Takes the keys with these ids out of a file, but never the first. Raises KeyMissing."""
    with _alone(path):
        first, *rest = _words(path)
        keys = [first, *(word for word in rest if Keyring.parse(word).newest not in ids)]
        _replace(path, keys)
    return Keyring.parse(" ".join(keys))


def _words(path: Path) -> list[str]:
    read_keys(path)  # refuses what is no key, before anything is written
    return [word for word in re.split(r"[\s,]+", path.read_text(encoding="ascii")) if word]


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """One process at a time changes the file; readers need not wait."""
    folder = path.resolve().parent
    try:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise KeyMissing(f"{folder} cannot be opened: {error.strerror}", reason="keys_absent") from error
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _replace(path: Path, keys: Sequence[str]) -> None:
    real = path.resolve()  # a link stays a link
    before = real.stat()
    try:
        fd, name = tempfile.mkstemp(prefix=f".{real.name}.", dir=real.parent)  # mode 0600 whatever the umask
        try:
            with os.fdopen(fd, "w", encoding="ascii") as file:
                file.write("".join(f"{key}\n" for key in keys))
                file.flush()
                if (before.st_uid, before.st_gid) != (os.geteuid(), os.getegid()):
                    os.fchown(
                        file.fileno(), before.st_uid, before.st_gid
                    )  # who reads it now must read it then
                os.fsync(file.fileno())
            Path(name).replace(real)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
        folder = os.open(real.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise KeyMissing(
            f"the key file {path} cannot be written ({error.strerror or type(error).__name__}): change it where it "
            "comes from, with a new key of `authproxy keys generate` first",
            reason="keys_unwritable",
        ) from error


def _from_file(path: Path, announce: Callable[[str], None]) -> Keyring:
    try:
        text = path.read_text(encoding="ascii")
        found = path.stat()
    except OSError as error:
        why = error.strerror or type(error).__name__
        raise KeyMissing(f"the key file {path} cannot be read: {why}", reason="keys_absent") from None
    except UnicodeDecodeError:
        raise KeyMissing(
            f"the key file {path} cannot be read: it is not text", reason="keys_absent"
        ) from None
    mode = stat.S_IMODE(found.st_mode)
    if mode & 0o004:
        announce(f"the key file {path} can be read by everybody (mode {mode:04o}): chmod 600 it")
    if mode & 0o022:
        announce(f"the key file {path} can be changed by others (mode {mode:04o}): chmod 600 it")
    if found.st_uid not in (0, os.geteuid()):
        announce(
            f"the key file {path} belongs to another user ({found.st_uid}): who put it there knows the key"
        )
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
