"""What the operator chose about keeping grants alive, and about who is told of what happens to them."""

from __future__ import annotations

from dataclasses import dataclass

from authproxy.core.secret import Secret
from authproxy.core.setting import setting


@dataclass(frozen=True, slots=True)
class Refresh:
    """How tokens are renewed."""

    margin: int = setting(
        "seconds before expiry from which a token is refreshed; never more than a fifth of its life",
        300,
        minimum=0,
    )
    deadline: float = setting("total time of one token call", 30.0, minimum=1)
    lease: float = setting(
        "life of the lease on a connection; must exceed the deadline by 10 s", 60.0, minimum=2
    )
    forced_interval: int = setting(
        "least seconds between two refreshes forced by 401s on one connection", 30, minimum=0
    )
    backoff: float = setting("first pause after a transient failure; doubles, with jitter", 1.0, minimum=0.01)
    backoff_max: float = setting("longest such pause", 60.0, minimum=0.01)
    background: bool = setting(
        "refresh ahead of time and keep unused grants alive; `false`: refresh only what a request needs", True
    )
    window: float = setting(
        "seconds over which refreshes ahead of time are spread, so that tokens which end together are not renewed "
        "together; never more than a fifth of a token's life",
        600.0,
        minimum=0,
    )
    concurrency: int = setting("such refreshes at once at one provider, in each process", 4, minimum=1)
    rate: float = setting("such refreshes per second at one provider, in each process", 10.0, minimum=0.01)
    leash: float = setting(
        "how long an opened token is used before its row's generation is looked at again", 5.0, minimum=0.05
    )


@dataclass(frozen=True, slots=True)
class Webhook:
    """One receiver of signed events (Standard Webhooks). What happened is told once it is committed, at least once."""

    url: str = setting(
        "where events are posted; internal addresses need `egress.allow`",
        pattern=r"https?://[^\s#@]+",
        must="must be a URL without user and fragment",
    )
    secret: Secret = setting(
        "signs each delivery (HMAC-SHA256), as `env:NAME` or `file:PATH`: `whsec_` and base64, or any text"
    )
    kinds: tuple[str, ...] = setting(
        "kinds of events, or `connection.*`: all of one family; `refresh.failed` is told once in a row of failures",
        ("connection.*", "provider.*"),
        pattern=r"[a-z]+\.([a-z_]+|\*)",
        must="must be a kind such as `connection.needs_reauth`, or a family such as `connection.*`",
    )
