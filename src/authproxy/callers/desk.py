"""Who is asking: tries the configured kinds of caller in their order, and refuses whom none recognises."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from authproxy.callers.presented import NOTHING, Listener, Presented, presented
from authproxy.core.errors import CallerUnknown
from authproxy.core.model import Caller


class Identified(NamedTuple):
    """The caller, and the user where the credential itself named one (a proxy URL's user name, a bound key)."""

    caller: Caller
    user: str | None


class Kind(Protocol):
    """One way in which a caller may be known."""

    def recognise(self, shown: Presented, *, peer_is_loopback: bool) -> Caller | None:
        """The caller; None where this kind does not apply; raises CallerUnknown for a credential that is bad."""

    def demand_standing(self, caller: Caller) -> None:
        """Raises CallerUnknown where one whom this kind has recognised is nobody any more."""

    async def look_again(self) -> bool:
        """Whether what is known of callers has been read anew, so that a second asking may end otherwise."""


class Desk:
    """Synchronous and without I/O: the hot path asks it once per request."""

    def __init__(self, kinds: Sequence[Kind]) -> None:
        self._kinds = tuple(kinds)

    def identify(
        self,
        headers_raw: Sequence[tuple[bytes, bytes]],
        *,
        peer_is_loopback: bool,
        listener: Listener,
        outer: Presented = NOTHING,
    ) -> Identified:
        """Say who sent these headers. A key that was shown and is not good is refused, whatever else would do.
        `outer` is what was shown for the tunnel that they came through."""
        shown = presented(headers_raw, listener=listener, outer=outer)
        return self.recognise(shown, peer_is_loopback=peer_is_loopback)

    def recognise(self, shown: Presented, *, peer_is_loopback: bool) -> Identified:
        """The same of what has been read already: keys come and go, and what a request shows does not."""
        for kind in self._kinds:
            caller = kind.recognise(shown, peer_is_loopback=peer_is_loopback)
            if caller is not None:
                if shown.user is not None and caller.bound_user not in (None, shown.user):
                    raise CallerUnknown(
                        "The credential belongs to another user than the one it was sent with",
                        reason="ambiguous_credential",
                    )
                return Identified(caller, shown.user or caller.bound_user)
        if not self._kinds:
            raise CallerUnknown(
                "No kind of caller is configured (identity.callers)", reason="none_configured"
            )
        if shown.digest is not None:
            raise CallerUnknown(
                "Agent keys are not accepted here (identity.callers)", reason="kind_not_configured"
            )
        raise CallerUnknown("The request carries no agent key", reason="no_credential")

    def demand_standing(self, caller: Caller) -> None:
        """Raises CallerUnknown where a caller who was identified before has been revoked or has expired since."""
        for kind in self._kinds:
            kind.demand_standing(caller)

    async def look_again(self, refused: CallerUnknown) -> bool:
        """Whether it is worth asking again after this refusal: the key may be newer than what is known of keys."""
        if refused.reason != "unknown_key":
            return False
        return any([await kind.look_again() for kind in self._kinds])
