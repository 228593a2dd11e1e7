"""Where a request was said: on which listener, and inside which tunnel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from authproxy.callers.presented import Presented
from authproxy.core.routes import Route
from authproxy.proxy.behalf import Behalf


class Inside(NamedTuple):
    """What a CONNECT has settled for all requests inside its tunnel.

    `shown` is the digest of the key that it carried, judged anew for each request, so that a key that is revoked
    ends here as elsewhere; `user` is the one that it named, None where the requests inside must name theirs.
    `asked` is the name in the handshake (SNI): another one than the tunnel's is refused with each request, where it
    can be told. None is what clients send to an address, and what those mean is seen in Host. `limited`: the caller
    may use some routes only, and so nothing that is no route.
    """

    host: str
    port: int
    shown: Presented
    user: str | None
    asked: str | None = None
    limited: bool = False


@dataclass(frozen=True, slots=True)
class Place:
    """`route` is set where the whole listener is one route; `secure` says whether agents speak TLS there. `behalf` is
    set where no listener is: the request is one that we make ourselves."""

    route: Route | None = None
    secure: bool = False
    tunnel: Inside | None = None
    behalf: Behalf | None = None


MAIN = Place()
