"""The roots that a command started behind the proxy needs: the system's, and the local authority's."""

from __future__ import annotations

import hashlib
import os
import re
import ssl
import tempfile
from pathlib import Path

_certificate = re.compile(r"-----BEGIN CERTIFICATE-----\s.+?\s-----END CERTIFICATE-----", re.DOTALL)


def bundle(own: str) -> str:
    """Every root that this machine trusts, then `own`, each once.

    SSL_CERT_FILE and its kin replace what a library trusts, they do not add to it: a file with the local root
    alone would break every host that the proxy does not end TLS for.
    """
    found = dict.fromkeys(one.strip() for text in (*_system(), own) for one in _certificate.findall(text))
    return "\n".join(found) + "\n"


def _system() -> list[str]:
    """The system's bundle, else its folder, else certifi's, where that is installed."""
    paths = ssl.get_default_verify_paths()  # with SSL_CERT_FILE, where somebody has set it already
    if text := _text(Path(paths.cafile or "")):
        return [text]
    if paths.capath:
        texts = [_text(path) for path in sorted(Path(paths.capath).iterdir()) if path.is_file()]
        if any(_certificate.search(text) for text in texts):
            return texts
    try:
        import certifi
    except ImportError:
        return []
    return [_text(Path(certifi.where()))]


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def kept_file(roots: bytes, suffix: str, data: bytes | None = None) -> Path:
    """A file that outlives this process, named after the roots in it: as many as there are different ones. `data`
    is another form of the same roots."""
    path = _folder() / f"roots-{hashlib.sha256(roots).hexdigest()[:16]}{suffix}"
    if not path.exists():
        write(path, roots if data is None else data)
    return path


def write(path: Path, data: bytes) -> None:
    """Public certificates, so readable by all; never seen half written."""
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=path.name, delete=False) as file:
        file.write(data)
        file.flush()
        os.fchmod(file.fileno(), 0o644)
    Path(file.name).replace(path)


def _folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    folder = Path(base) / "authproxy"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if os.access(folder, os.W_OK):
            return folder
    except OSError:
        pass  # a home that cannot be written to, as containers have it
    return Path(tempfile.mkdtemp(prefix="authproxy-"))
