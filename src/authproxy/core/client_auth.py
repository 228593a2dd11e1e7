"""The operator's client at a provider, and how it says who it is (RFC 6749 section 2.3, on authlib)."""

from __future__ import annotations

from collections.abc import MutableMapping
from dataclasses import dataclass
from typing import Literal
from urllib.parse import quote_plus

from authproxy.core.secret import Secret


@dataclass(frozen=True, slots=True)
class Client:
    """The operator's own app registration. `auth` None: what the provider prefers."""

    client_id: str
    client_secret: Secret | None
    auth: str | None


def literal(value: Secret | str) -> str:
    """A setting that may be written as a reference although it is not secret, such as a client id."""
    return value.reveal() if isinstance(value, Secret) else value


def begins_with(secret: Secret | None, *prefixes: str) -> str | None:
    """Which of these public prefixes a secret has, such as `sk_test_`; nothing else of it is told."""
    return next((one for one in prefixes if secret is not None and secret.reveal().startswith(one)), None)


def attach(
    client: Client,
    method: str,
    headers: MutableMapping[str, str],
    body: str,
    *,
    encoding: Literal["rfc6749", "raw"] = "rfc6749",
) -> str:
    """Puts the client's credential into `headers`, or returns the form body with it."""
    from authlib.oauth2.auth import ClientAuth  # type: ignore[import-untyped]  # 40 modules; it ships no types

    client_id, secret = (
        client.client_id,
        "" if client.client_secret is None else client.client_secret.reveal(),
    )
    if method == "client_secret_basic":
        client_id, secret = (_basic(client_id, encoding), _basic(secret, encoding))
    _, _, body = ClientAuth(client_id, secret, method).prepare("POST", "", headers, body)
    return str(body)


def _basic(value: str, encoding: Literal["rfc6749", "raw"]) -> str:
    """RFC 6749 2.3.1: form-encoded before base64. Raw: its UTF-8 bytes, which authlib takes as Latin-1."""
    return quote_plus(value) if encoding == "rfc6749" else value.encode().decode("latin-1")
