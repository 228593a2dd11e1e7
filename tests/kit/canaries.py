"""Looks for secrets where none may be."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from urllib.parse import quote

PREFIX = 16  # characters of a secret that count as the secret


def spellings(secret: str) -> set[bytes]:
    """A secret as it might stand in a log, a page or a file: whole, cut off, and in the usual codings."""
    raw = secret.encode()
    spelt = {raw, raw.hex().encode(), quote(secret, safe="").encode()}
    for lead in range(3):  # base64 of a text that holds the secret depends on what precedes it
        coded = base64.b64encode(b"\0" * lead + raw)
        spelt.add(coded[4 if lead else 0 : -4])
    tail = secret.rsplit("-", 1)[-1]
    if len(tail) >= PREFIX:
        spelt.add(tail[:PREFIX].encode())
    return spelt


def hits(secrets: Iterable[str], places: Mapping[str, bytes]) -> list[str]:
    """Which place holds which secret, named so that the report itself leaks only made-up ones."""
    found = []
    for secret in secrets:
        spelt = spellings(secret)
        found += [
            f"{place}: {secret}" for place, data in places.items() if any(text in data for text in spelt)
        ]
    return found
