"""`authproxy run`: starts a command whose HTTP traffic goes through the proxy, and whose TLS trusts it."""

from __future__ import annotations

import argparse
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Final
from urllib.parse import SplitResult, quote, urlsplit

from authproxy.callers.presented import NO_KEY
from authproxy.cli.console import Stop
from authproxy.cli.options import option, store_options

# Each honoured by something that ignores the others; all of them replace what it trusts.
BUNDLES: Final = (
    "SSL_CERT_FILE",  # OpenSSL, Python's ssl, httpx, aiohttp, Go
    "REQUESTS_CA_BUNDLE",  # requests
    "CURL_CA_BUNDLE",
    "GIT_SSL_CAINFO",
    "NODE_EXTRA_CA_CERTS",  # this one adds
    "DENO_CERT",
    "HTTPLIB2_CA_CERTS",  # google-api-python-client
    "AWS_CA_BUNDLE",
    "PIP_CERT",
    "CARGO_HTTP_CAINFO",
    "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH",
)
PROXIES: Final = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "WS_PROXY", "WSS_PROXY")
_NEVER: Final = "localhost,127.0.0.1,::1"
_NOT_FOUND, _NOT_RUN = 127, 126


def arguments(parser: argparse.ArgumentParser, environ: Mapping[str, str]) -> None:
    store_options(parser, environ)
    option(
        parser,
        "--proxy",
        environ,
        says="where the proxy listens (default: http://127.0.0.1:8700)",
        default="http://127.0.0.1:8700",
        read=_proxy,
        metavar="URL",
    )
    parser.add_argument(
        "--user",
        help="whose accounts the command acts on; it goes into the proxy's URL, with the key of AUTHPROXY_AGENT_KEY",
    )
    parser.add_argument(
        "--ca-bundle",
        type=Path,
        metavar="FILE",
        help="a bundle made with `authproxy ca bundle`, for where the store is out of reach",
    )
    parser.add_argument(
        "--java",
        action="store_true",
        help="set JAVA_TOOL_OPTIONS too, with a trust store (each JVM then says so on standard error)",
    )
    parser.add_argument("words", nargs=argparse.REMAINDER, metavar="-- COMMAND …", help="what to start")


def run(args: argparse.Namespace) -> int:
    words = args.words[1:] if args.words[:1] == ["--"] else args.words
    if not words:
        raise Stop("say what to start: authproxy run -- COMMAND …")
    program = shutil.which(words[0])
    if program is None:
        raise Stop(f"there is no command {words[0]}", code=_NOT_FOUND)
    roots = _given(args.ca_bundle) if args.ca_bundle is not None else _made(args)
    key = os.environ.get("AUTHPROXY_AGENT_KEY", "").strip()
    made = environment(os.environ, args.proxy, roots, user=args.user, key=key, java=args.java)
    try:
        os.execve(program, words, made)  # noqa: S606 - what the operator named is what is started
    except OSError as error:
        raise Stop(f"{words[0]} cannot be started: {error.strerror}", code=_NOT_RUN) from None


def environment(
    inherited: Mapping[str, str], proxy: str, roots: Path, *, user: str | None, key: str, java: bool = False
) -> dict[str, str]:
    """What the command finds in its environment: all that was said there of proxies and roots is ours now, and
    nothing is left there of authproxy's own, its sealing keys least of all."""
    own = {*PROXIES, "NO_PROXY", "NODE_USE_ENV_PROXY", "SSL_CERT_DIR", *BUNDLES}
    made = {
        name: value
        for name, value in inherited.items()
        if name.upper() not in own and not name.startswith("AUTHPROXY_")
    }
    parts = urlsplit(proxy)
    who = f"{quote(user or '', safe='')}:{key or NO_KEY}@" if user or key else ""
    url = f"{parts.scheme}://{who}{parts.netloc}"
    # curl takes http_proxy in lower case only, others upper case only.
    for name in PROXIES:
        made[name] = made[name.lower()] = url
    here = _NEVER if parts.hostname in _NEVER.split(",") else f"{_NEVER},{parts.hostname}"
    made["NO_PROXY"] = made["no_proxy"] = here
    made["NODE_USE_ENV_PROXY"] = "1"  # Node 24 and later; before that fetch knows no proxy
    made["GIT_HTTP_PROXY_AUTHMETHOD"] = "basic"  # else git waits to be asked, and a local caller never is
    made.update(dict.fromkeys(BUNDLES, str(roots)))
    if java:
        made["JAVA_TOOL_OPTIONS"] = f"{inherited.get('JAVA_TOOL_OPTIONS', '')} {_java(parts, roots)}".strip()
    return made


def _java(parts: SplitResult, roots: Path) -> str:
    """Java knows no such variables: system properties, and a trust store of its own kind."""
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, pkcs12

    from authproxy.cli.roots import kept_file

    found = x509.load_pem_x509_certificates(roots.read_bytes())
    entries = [pkcs12.PKCS12Certificate(one, f"root-{index}".encode()) for index, one in enumerate(found)]
    store = pkcs12.serialize_java_truststore(entries, BestAvailableEncryption(b"changeit"))
    path = kept_file(roots.read_bytes(), ".p12", store)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return " ".join(
        [
            f"-Djavax.net.ssl.trustStore={path}",
            "-Djavax.net.ssl.trustStoreType=PKCS12",
            "-Djavax.net.ssl.trustStorePassword=changeit",
            f"-Dhttps.proxyHost={parts.hostname}",
            f"-Dhttps.proxyPort={port}",
            f"-Dhttp.proxyHost={parts.hostname}",
            f"-Dhttp.proxyPort={port}",
        ]
    )


def _made(args: argparse.Namespace) -> Path:
    """A bundle with the root of this store's authority."""
    from authproxy.app import App
    from authproxy.cli.roots import bundle, kept_file
    from authproxy.cli.session import with_app

    pems: list[str] = []

    async def read(app: App) -> int:
        pems.append((await app.authority()).pem)
        return 0

    with_app(args, read)
    return kept_file(bundle(pems[0]).encode("utf-8"), ".pem")


def _given(path: Path) -> Path:
    if not path.is_file():
        raise Stop(f"there is no bundle at {path}: make it with `authproxy ca bundle --output {path}`")
    return path.absolute()


def _proxy(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
        raise ValueError("say http://HOST:PORT; the user comes from --user, the key from AUTHPROXY_AGENT_KEY")
    return text
