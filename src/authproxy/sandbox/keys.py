"""Signs id_tokens with a key that lives as long as the sandbox."""

from __future__ import annotations

import base64
import hashlib
from typing import Any

from joserfc import jwt
from joserfc.jwk import ECKey


class Keys:
    """One ES256 key, made at start."""

    def __init__(self) -> None:
        self._key = ECKey.generate_key("P-256", {"use": "sig", "alg": "ES256", "kid": "sandbox-1"})

    def jwks(self) -> dict[str, Any]:
        """The public half, as `/jwks` serves it."""
        return {"keys": [self._key.as_dict(private=False)]}

    def id_token(self, claims: dict[str, Any], access_token: str) -> str:
        """A signed id_token; `at_hash` ties it to the access token (OpenID Connect Core section 3.1.3.6)."""
        half = hashlib.sha256(access_token.encode()).digest()[:16]
        at_hash = base64.urlsafe_b64encode(half).rstrip(b"=").decode()
        return jwt.encode({"alg": "ES256", "kid": "sandbox-1"}, {**claims, "at_hash": at_hash}, self._key)
