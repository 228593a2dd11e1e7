"""What the catalogue knows that a configuration is read against: routes by name, and where tokens may go."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import NamedTuple

from authproxy.core.config import ProviderChoice, RouteChoice
from authproxy.core.origin import Origin, read_host_port
from authproxy.core.packaged import Catalogue, entry_name, packaged_routes


class KnownProvider(NamedTuple):
    """Of one provider, the operator's own settings merged in.

    `hosts` are `host` (any port) or `host:port`; `patterns` are `*.domain`. `upstream_from`: each grant names its
    own upstream. `public`: the provider's clients have no secret.
    """

    hosts: tuple[str, ...] = ()
    patterns: tuple[str, ...] = ()
    upstream_from: str | None = None
    public: bool = False

    def may_receive(self, origin: Origin) -> bool:
        """Whether tokens may be sent to this host; where no host is known, those of the routes are the only ones."""
        if not self.hosts and not self.patterns:
            return True
        named = map(read_host_port, self.hosts)
        return any(
            pair and pair[0] == origin.host and pair[1] in (None, origin.port) for pair in named
        ) or any(
            pattern.startswith("*.") and origin.host.endswith(pattern[1:].lower())
            for pattern in self.patterns
        )


class Known(NamedTuple):
    """`provider` answers None for what is not in the catalogue, and a sentence for what cannot be merged."""

    routes: Mapping[str, RouteChoice]
    names: Collection[str]
    provider: Callable[[str, ProviderChoice], KnownProvider | str | None]


def catalogue() -> Known:
    """The packaged catalogue."""
    return Known(packaged_routes(), tuple(Catalogue()), _provider)


def _provider(name: str, choice: ProviderChoice) -> KnownProvider | str | None:
    entry = Catalogue().get(entry_name(choice.catalogue or name) or "")
    if entry is None:
        return None
    hosts = entry.api.hosts
    if choice.environment is not None:
        if choice.environment not in entry.environments:
            return f"has no environment `{choice.environment}`: {', '.join(entry.environments) or 'none is known'}"
        hosts = entry.environments[choice.environment].api_hosts or hosts
    return KnownProvider(
        (*hosts, *choice.api_hosts),
        entry.api.host_patterns,
        entry.api.upstream_from,
        entry.client_auth.preferred == "none",
    )
