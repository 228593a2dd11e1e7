"""What the operator chose about how much, how many and how long: sizes, counts, rates and seconds."""

from __future__ import annotations

from dataclasses import dataclass

from authproxy.core.setting import setting


@dataclass(frozen=True, slots=True)
class Allowance:
    """How much somebody may ask of the data plane. What is over it is answered `overloaded`, and not sent upstream."""

    requests: int = setting(
        "requests at once, streams and tunnels as long as they last; 0: no limit", 0, minimum=0
    )
    rate: float = setting("requests per second in the long run; 0: no limit", 0.0, minimum=0)
    burst: int = setting(
        "with `rate`: requests in one go; 0: as many as in one second, and at least one", 0, minimum=0
    )


@dataclass(frozen=True, slots=True)
class Shares:
    """How much of one provider, or of one route, may be asked for."""

    total: Allowance = setting("of all together", factory=Allowance)
    user: Allowance = setting("of each user", factory=Allowance)
    caller: Allowance = setting("of each agent, its sessions included", factory=Allowance)


@dataclass(frozen=True, slots=True)
class Limits:
    """Sizes and counts. Reaching one is answered, never silently cut."""

    max_header: int = setting("bytes of a request's or an answer's header section", 65536, minimum=1024)
    max_line: int = setting("bytes of the request line, or of one header line", 32768, minimum=256)
    max_fields: int = setting("number of header lines", 128, minimum=8)
    max_body: int = setting("largest request body; 0: no limit", 0, minimum=0)
    max_replay: int = setting(
        "largest request body kept so that it can be sent again after a 401", 16 * 2**20, minimum=0
    )
    replay_memory: int = setting(
        "of which in memory; the rest goes to an unlinked temporary file", 2**20, minimum=0
    )
    replay_total: int = setting("replay bytes of all requests together", 256 * 2**20, minimum=0)
    max_requests: int = setting("requests at once", 2048, minimum=1)
    max_upstream_connections: int = setting("connections to one upstream", 512, minimum=1)
    max_scrub: int = setting(
        "bytes of a text answer that are searched for the injected token", 2**20, minimum=0
    )
    drain: int = setting(
        "bytes read and dropped of a refused request's body before its connection is closed",
        262144,
        minimum=0,
    )
    max_connections: int = setting("connections of agents at once; 0: no limit", 8192, minimum=0)
    peer_connections: int = setting(
        "of which from one address (a unix socket's peers have none); 0: no limit", 0, minimum=0
    )
    longest_pause: float = setting(
        "when a provider answers 429 with a time to wait, requests that it would refuse as well (`providers.*.pauses`) "
        "are kept back for so many seconds at most; 0: never",
        60.0,
        minimum=0,
    )
    tenant: Allowance = setting("what all users of one tenant may ask for together", factory=Allowance)
    user: Allowance = setting("what may be asked for one user", factory=Allowance)
    caller: Allowance = setting("what one agent may ask for, its sessions included", factory=Allowance)


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds; 0 means none where it says so."""

    header: float = setting("to read a request's header section, from its first byte", 10.0, minimum=0.1)
    keepalive: float = setting("an agent's idle connection is kept", 75.0, minimum=1)
    upstream_idle: float = setting("an upstream's idle connection is kept", 15.0, minimum=0)
    connect: float = setting("to connect to an upstream, TLS included", 10.0, minimum=0.001)
    first_byte: float = setting("until the answer's head", 120.0, minimum=0.001)
    idle: float = setting(
        "between two reads of an answer's body, streams included; 0: no limit", 600.0, minimum=0
    )
    total: float = setting("for the whole exchange; 0: no limit", 0.0, minimum=0)
    write: float = setting(
        "an agent that takes nothing of what is written to it is waited for; 0: no limit", 300.0, minimum=0
    )
    token_wait: float = setting("a request waits for a token to be refreshed", 30.0, minimum=0.1)
    shutdown: float = setting("requests in flight are given to end", 30.0, minimum=0)


@dataclass(frozen=True, slots=True)
class RouteTimeouts:
    """Overrides of the timeouts for one route."""

    connect: float | None = setting("seconds to connect, TLS included", None, minimum=0.001)
    first_byte: float | None = setting("seconds until the answer's head", None, minimum=0.001)
    idle: float | None = setting(
        "seconds between two reads of the answer's body; 0: no limit", None, minimum=0
    )
    total: float | None = setting("seconds for the whole exchange; 0: no limit", None, minimum=0)
