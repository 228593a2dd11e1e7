"""Makes a case: reads a configuration even where its secrets are elsewhere, and the store's rows without secrets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from authproxy.core import document
from authproxy.core.client_auth import literal
from authproxy.core.config import Config, ProviderChoice
from authproxy.core.errors import ProviderMisconfigured
from authproxy.core.faults import Fault
from authproxy.core.known import catalogue
from authproxy.core.model import Connection, Environment, State
from authproxy.core.providers import provider_of
from authproxy.core.routes import completed
from authproxy.core.strict import ReadFile, read
from authproxy.doctor.case import Case, Registration
from authproxy.store.vault import Vault

_PAGE = 500


@dataclass(frozen=True, slots=True)
class Setup:
    """One configuration, with what its values do not show: where its secrets are, and which are not here."""

    file: str
    config: Config
    faults: tuple[Fault, ...]
    references: Mapping[str, Mapping[str, str]]
    absent: frozenset[str]

    def case(self, now: int) -> Case:
        """What a check looks at, before store and network."""
        registrations = {name: self._registration(name, choice) for name, choice in self._providers()}
        return Case(
            file=self.file,
            config=self.config,
            now=now,
            registrations=MappingProxyType(registrations),
            faults=self.faults,
        )

    def _providers(self) -> Iterator[tuple[str, ProviderChoice]]:
        return iter(self.config.providers.items())

    def _registration(self, name: str, choice: ProviderChoice) -> Registration:
        references = self.references.get(name, {})
        absent = tuple(key for key, reference in references.items() if reference in self.absent)
        known = catalogue()
        routes = {route: completed(route, self.config, known) for route in self.config.routes}
        mine = {route: whole for route, whole in routes.items() if whole.provider == name}
        provider, fault = None, None
        try:
            provider = provider_of(name, choice)
        except ProviderMisconfigured as exc:
            fault = exc.title
        return Registration(
            name=name,
            choice=choice,
            provider=provider,
            fault=fault,
            client_id=literal(choice.client_id) if choice.client_id and "client_id" not in absent else None,
            references=references,
            absent=absent,
            routes=tuple(mine),
            route_scopes=tuple(dict.fromkeys(scope for whole in mine.values() for scope in whole.scopes)),
            upstreams=tuple(dict.fromkeys(whole.upstream for whole in mine.values() if whole.upstream)),
        )


def read_setup(
    text: str,
    *,
    file: str,
    environ: Mapping[str, str],
    read_file: ReadFile,
    environment: Environment | None = None,
) -> Setup:
    """Read a configuration whose secrets may be on another machine. Raises ConfigFaults for everything else."""
    surroundings = _Surroundings(environ, read_file)
    reading = read(
        text, file=file, environ=surroundings, read_file=surroundings.read_file, environment=environment
    )
    return Setup(
        file=file,
        config=reading.config,
        faults=reading.warnings,
        references=_references(document.compose(text)),
        absent=frozenset(surroundings.absent),
    )


class _Surroundings(Mapping[str, str]):
    """The environment and the files, with something in place of what is not there, so that the reader goes on."""

    def __init__(self, environ: Mapping[str, str], read_file: ReadFile) -> None:
        self._environ = environ
        self._read_file = read_file
        self.absent: set[str] = set()

    def __getitem__(self, name: str) -> str:
        value = self._environ.get(name, "")
        return value if value.strip() else self._missing(f"env:{name}")

    def __iter__(self) -> Iterator[str]:
        return iter(self._environ)

    def __len__(self) -> int:
        return len(self._environ)

    def read_file(self, name: str) -> str:
        try:
            value = self._read_file(name)
        except OSError:
            return self._missing(f"file:{name}")
        return value if value.strip() else self._missing(f"file:{name}")

    def _missing(self, reference: str) -> str:
        self.absent.add(reference)
        return f"absent:{reference}"


def _references(root: document.Node) -> Mapping[str, Mapping[str, str]]:
    """By provider and key, where a value is kept: `env:NAME` or `file:PATH` as written."""
    return MappingProxyType(
        {
            name: MappingProxyType(
                {
                    key: value.text
                    for key, value in _entries(choice)
                    if isinstance(value, document.Scalar) and value.text.startswith(("env:", "file:"))
                }
            )
            for key, providers in _entries(root)
            if key == "providers"
            for name, choice in _entries(providers)
        }
    )


def _entries(node: document.Node) -> Iterator[tuple[str, document.Node]]:
    if isinstance(node, document.Mapping):
        yield from ((key.text, value) for key, value in node.entries if isinstance(key, document.Scalar))


async def disabled(vault: Vault) -> frozenset[tuple[str, str]]:
    """Who is disabled, of every tenant."""
    found: set[tuple[str, str]] = set()
    after = 0
    while changes := await vault.user_changes(after):
        found |= {(one.tenant, one.user) for one in changes if one.disabled}
        after = changes[-1].revision
    return frozenset(found)


async def stored(vault: Vault) -> tuple[tuple[Connection, ...], Mapping[str, int]]:
    """Every connection of a store without its secrets, and when the dead ones were found dead. Opens no token."""
    found: list[Connection] = []
    for state in (None, State.DISCONNECTED):
        after: str | None = None
        while page := await vault.list(tenant=None, state=state, limit=_PAGE, after=after):
            found += page
            after = page[-1].id
    ended: dict[str, int] = {}
    for one in found:
        if one.state in (State.NEEDS_REAUTH, State.ROTATION_LOST):
            events = await vault.timeline(one.id)
            told = [event.at for event in events if event.kind == f"connection.{one.state}"]
            if told:
                ended[one.id] = told[-1]
    return tuple(found), MappingProxyType(ended)
