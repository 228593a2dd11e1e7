"""Signs what is posted to webhooks, as the Standard Webhooks specification has it (HMAC-SHA256 over id, time, body)."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Mapping

from authproxy.core.secret import Secret

PREFIX = "whsec_"


def signed(secret: Secret, *, message: str, at: int, body: bytes) -> Mapping[str, str]:
    """The header fields of one delivery. `message` is the same for every try, so that a receiver can tell that it has
    it already; `at` is of this try, so that a receiver can refuse what was recorded long ago."""
    mac = hmac.new(_key(secret), f"{message}.{at}.".encode() + body, hashlib.sha256).digest()
    return {
        "webhook-id": message,
        "webhook-timestamp": str(at),
        "webhook-signature": f"v1,{base64.b64encode(mac).decode()}",
    }


def _key(secret: Secret) -> bytes:
    """`whsec_` and base64, as the specification's own libraries take it; any other text stands for itself."""
    text = secret.reveal()
    if text.startswith(PREFIX):
        try:
            return base64.b64decode(text.removeprefix(PREFIX), validate=True)
        except binascii.Error:
            return text.encode()
    return text.encode()
