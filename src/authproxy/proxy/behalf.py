"""A request of our own on the walk: whose it is, what for, and how its record says so."""

from __future__ import annotations

from dataclasses import dataclass, field

from authproxy.core.model import DEFAULT_ACCOUNT, Caller
from authproxy.proxy.record import Entry
from authproxy.store.events import encode


class OwnEntry(Entry):
    """The record of a request that a tool's call sends."""

    def __init__(self, request_id: str, method: str, behalf: Behalf) -> None:
        super().__init__(request_id, method)
        self.behalf = behalf

    def _more(self) -> str:
        behalf = self.behalf
        own = {"tool": behalf.tool, "call": behalf.call, "scopes": behalf.scopes}
        return f",{encode(own)[1:-1]}"


@dataclass(frozen=True, slots=True)
class Behalf:
    """What has been settled before the request was made, and is not asked again: the caller was identified, and may
    act for the user.

    `tool` and `call` (the id of the call that the request belongs to) are for the record. `scopes` are all that the
    grant must hold, in place of the route's. `limit` is how many bytes of the answer are read, so that as many are
    searched for the token. `entries` gets the request's record while it is being made.
    """

    caller: Caller
    user: str
    tool: str
    call: str
    scopes: tuple[str, ...]
    limit: int
    account: str = DEFAULT_ACCOUNT
    entries: list[OwnEntry] = field(default_factory=list, compare=False, repr=False)

    def entry(self, request_id: str, method: str) -> OwnEntry:
        """The record that the walk fills in."""
        entry = OwnEntry(request_id, method, self)
        self.entries.append(entry)
        return entry
