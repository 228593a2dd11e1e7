"""What the fields of a request say: read once for all requests of a connection that say the same."""

from __future__ import annotations

from authproxy.callers.presented import Presented
from authproxy.core.message import RawFields, RequestFields

LONG = 4096
"""Bytes of fields of which a connection keeps no more."""


class Said:
    """`fields` is `raw` sorted out by `reader`; what else is read in them is filled in where it is asked for.

    A client says the same with most of its requests, so a connection keeps what it said last, an agent's key
    among it; that ends with the connection.
    """

    __slots__ = ("account", "fields", "raw", "reader", "shown", "user", "version")

    def __init__(
        self, reader: object, raw: RawFields, version: tuple[int, int], fields: RequestFields
    ) -> None:
        self.reader = reader
        self.raw = raw
        self.version = version
        self.fields = fields
        self.shown: Presented | None = None
        self.user: str | None = None
        self.account: str | None = None

    def again(self, reader: object, raw: RawFields, version: tuple[int, int]) -> bool:
        """Whether this is what it says, to the same reader."""
        return self.raw == raw and self.reader is reader and self.version == version
