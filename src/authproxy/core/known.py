"""What the catalogue knows that a configuration is read against: routes by name, and where tokens may go."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import NamedTuple

from authproxy.core.config import ProviderChoice, RouteChoice
from authproxy.core.errors import ProviderMisconfigured
from authproxy.core.origin import Origin, read_base_url, read_host_port
from authproxy.core.packaged import entry_name
from authproxy.core.providers import catalogue as entries
from authproxy.core.providers import catalogue_routes, provider_of
from authproxy.core.tool_faults import KnownTool


class KnownProvider(NamedTuple):
    """Of one provider, the operator's own settings merged in.

    `hosts` are `host` (any port) or `host:port`; `patterns` are `*.domain`. `upstream_from`: each grant names its
    own upstream. `credential_paths`: globs of paths that hand out or destroy tokens, for no agent. `moved`: the
    main API's host, and the upstream that takes its place in the environment chosen.
    """

    hosts: tuple[str, ...] = ()
    patterns: tuple[str, ...] = ()
    upstream_from: str | None = None
    credential_paths: tuple[str, ...] = ()
    moved: tuple[str, str] | None = None

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

    def upstream(self, usual: str) -> str:
        """Where an API of the catalogue is in the environment chosen."""
        origin = read_base_url(usual)
        return self.moved[1] if self.moved and origin and origin.host == self.moved[0] else usual


class Known(NamedTuple):
    """`provider` answers None for what is not in the catalogue, and a sentence for what cannot be merged. `tools` are
    those that there are; None: names of tools are not looked at."""

    routes: Mapping[str, RouteChoice]
    names: Collection[str]
    provider: Callable[[str, ProviderChoice], KnownProvider | str | None]
    tools: Callable[[], Sequence[KnownTool]] | None = None


def catalogue() -> Known:
    """The packaged catalogue."""
    return Known(catalogue_routes(), tuple(entries()), _provider)


def _provider(name: str, choice: ProviderChoice) -> KnownProvider | str | None:
    if entry_name(choice.catalogue or name) is None:
        return None
    try:
        provider = provider_of(name, choice)
    except ProviderMisconfigured as exc:
        return exc.title.removeprefix(f"{name}: ")
    chosen = provider.facts.environments[choice.environment].upstream if choice.environment else None
    return KnownProvider(
        provider.api_hosts,
        provider.host_patterns,
        provider.upstream_from,
        provider.credential_paths,
        # the subdomain was judged by provider_of
        (provider.facts.api.hosts[0], re.sub(r"\{\w+\}", choice.subdomain or "", chosen)) if chosen else None,
    )
