"""What a check is given: configuration, what is known of the providers, stored connections without their secrets."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from authproxy.core.config import Config, ProviderChoice
from authproxy.core.facts import Entry
from authproxy.core.faults import Fault
from authproxy.core.model import EMPTY, Connection, Environment, State
from authproxy.core.oauth import asked_scopes
from authproxy.core.providers import Provider
from authproxy.doctor.finding import Certainty

DAY = 86400
LOOPBACK = ("127.0.0.1", "::1", "localhost")


class Probe(NamedTuple):
    """How the token endpoint answered a refresh with a made-up token. `verdict` is `success` (which it must never
    be), `dead` (the client is good), `misconfigured` or `transient`."""

    verdict: str
    code: str = ""
    reason: str = ""
    advice: str = ""
    status: int = 0


class Door(NamedTuple):
    """What the authorization URL led to, not followed. `error` is a code that was told, `page` a code that stands in
    a page; `host` is where a redirect leads."""

    status: int
    error: str | None = None
    page: str | None = None
    host: str | None = None
    advice: str | None = None


@dataclass(frozen=True, slots=True)
class Seen:
    """What harmless calls to one provider brought. `trouble` names calls without an answer, and why."""

    discovery: Mapping[str, Any] | None = field(default=None, repr=False)
    discovery_url: str | None = None
    skew: int | None = None  # seconds that our clock is ahead of the provider's
    probe: Probe | None = None
    door: Door | None = None
    trouble: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Registration:
    """One provider as it is configured. `client_id` None: not known here. `references` are `env:NAME` or `file:PATH`
    by key; `absent` those keys whose reference has no value here."""

    name: str
    choice: ProviderChoice
    provider: Provider | None
    fault: str | None = None
    client_id: str | None = None
    references: Mapping[str, str] = field(default_factory=lambda: EMPTY)
    absent: tuple[str, ...] = ()
    routes: tuple[str, ...] = ()
    route_scopes: tuple[str, ...] = ()
    upstreams: tuple[str, ...] = ()

    @property
    def entry(self) -> str:
        """The catalogue's entry, or nothing."""
        return self.provider.entry if self.provider else ""

    @property
    def facts(self) -> Entry:
        """What the catalogue says; an empty entry where the provider could not be made out."""
        return self.provider.facts if self.provider else Entry(self.name)

    @property
    def asked(self) -> tuple[str, ...]:
        """All scopes that its consents ask for."""
        scopes = dict.fromkeys((*self.choice.scopes, *self.route_scopes))
        return asked_scopes(self.provider, tuple(scopes)) if self.provider else tuple(scopes)

    @property
    def urls(self) -> tuple[str, ...]:
        """Every URL that is called on its behalf."""
        ends = self.provider.endpoints if self.provider else None
        found = (
            [
                ends.authorization,
                ends.token,
                ends.refresh,
                ends.revocation,
                ends.userinfo,
                ends.introspection,
            ]
            if ends
            else []
        )
        return tuple(dict.fromkeys(url for url in (*found, *self.upstreams) if url))

    def sure(self, *paths: str, at_best: Certainty = Certainty.CERTAIN) -> Certainty:
        """How sure a conclusion from these facts is: one step less where one of them was never seen confirmed."""
        doubtful = any(_within(path, known) for path in paths for known in self.facts.unverified)
        if not doubtful:
            return at_best
        return Certainty.LIKELY if at_best is Certainty.CERTAIN else Certainty.POSSIBLE


def _within(path: str, other: str) -> bool:
    return path == other or path.startswith(f"{other}.") or other.startswith(f"{path}.")


@dataclass(frozen=True, slots=True)
class Case:
    """All that is known when the doctor looks. `connections` None: no store was looked at; `ended` says when grants
    were found dead, by connection id; `disabled` are users of tenants. `other` is the configuration to compare with."""

    file: str
    config: Config
    now: int
    registrations: Mapping[str, Registration] = field(default_factory=lambda: EMPTY)
    connections: tuple[Connection, ...] | None = None
    ended: Mapping[str, int] = field(default_factory=lambda: EMPTY)
    disabled: frozenset[tuple[str, str]] = frozenset()
    store: str | None = None  # `sqlite` or `postgresql`
    store_trouble: str | None = None  # why it could not be read: an error's reason
    faults: tuple[Fault, ...] = ()
    seen: Mapping[str, Seen] = field(default_factory=lambda: EMPTY)
    other: Case | None = None

    @property
    def environment(self) -> Environment:
        """Which environment this configuration is for."""
        return self.config.environment

    @property
    def in_production(self) -> bool:
        """Whether users depend on it."""
        return self.config.environment is Environment.PRODUCTION

    @property
    def in_development(self) -> bool:
        """Whether only its developer depends on it."""
        return self.config.environment is Environment.DEVELOPMENT

    def each(self) -> Iterator[Registration]:
        """The registrations in the file's order."""
        return iter(self.registrations.values())

    def redirect_uri(self, name: str) -> str:
        """What is to be registered at the provider, letter for letter."""
        return f"{self.config.public_url.rstrip('/')}/callback/{name}"

    def at(self, name: str, *states: State) -> tuple[Connection, ...]:
        """The stored connections at one provider: in these states, or in any but disconnected."""
        wanted = states or tuple(state for state in State if state is not State.DISCONNECTED)
        return tuple(
            one for one in self.connections or () if one.key.provider == name and one.state in wanted
        )

    def kept(self, one: Connection) -> bool:
        """Whether this is a grant of a disabled user, which nothing uses or refreshes."""
        return (one.key.tenant, one.key.user) in self.disabled


def day(text: str) -> int:
    """The instant at which a declared day begins, in UTC."""
    return int(datetime.combine(date.fromisoformat(text), datetime.min.time(), UTC).timestamp())


def on(instant: int) -> str:
    """An instant as a day."""
    return datetime.fromtimestamp(instant, UTC).strftime("%Y-%m-%d")


def days(seconds: float) -> str:
    """A span in days, or hours where it is short."""
    whole = round(seconds / DAY)
    if seconds < 2 * DAY:
        hours = max(1, round(seconds / 3600))
        return f"{hours} hour{'s' if hours != 1 else ''}"
    return f"{whole} days"


def host_of(url: str) -> str:
    """The host in a URL, in lower case; nothing where there is none."""
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def some(connections: Iterable[Connection], most: int = 3) -> tuple[str, ...]:
    """A few connections, for evidence: `con_… (user alice)`."""
    found = list(connections)
    told = [f"{one.id} (user {one.key.user})" for one in found[:most]]
    return (*told, f"and {len(found) - most} more") if len(found) > most else tuple(told)


def plural(count: int, word: str) -> str:
    """`1 grant`, `3 grants`."""
    return f"{count} {word}{'' if count == 1 else 's'}"
