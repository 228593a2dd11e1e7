"""A value that must never be seen: it says `Secret(…)` wherever something tries to print it."""

from __future__ import annotations

import hmac
from typing import NoReturn


class Secret:
    """Holds a token, key, code or verifier.

    repr, str, format, logging and tracebacks show `Secret(…)`; pickling and copying are refused; comparison
    takes constant time. `reveal()` is the only way to the value, and the places that call it are counted by
    a test.
    """

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The value itself. Call it only where the bytes leave for their one rightful destination."""
        return self._value

    def __repr__(self) -> str:
        return "Secret(…)"

    __str__ = __repr__

    def __format__(self, _spec: str) -> str:
        return "Secret(…)"

    def __bool__(self) -> bool:
        return bool(self._value)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(_bytes(self), _bytes(other))

    def __hash__(self) -> NoReturn:
        raise TypeError("a Secret is not a key")

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Secret is not serialised")


def _bytes(secret: Secret) -> bytes:
    return secret.reveal().encode("utf-8", "surrogatepass")
