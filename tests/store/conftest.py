"""Stores of every kind, opened and closed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from authproxy.core.model import Environment
from authproxy.store.sealing import Keyring, generate_key
from authproxy.store.vault import Vault
from tests.kit.postgres import Postgres
from tests.store.parts import NOW

Opener = Callable[..., Awaitable[Vault]]


@pytest.fixture
def keyring() -> Keyring:
    return Keyring.parse(generate_key())


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    with Postgres.running() as server:
        yield server


@pytest.fixture
def database(postgres: Postgres) -> Iterator[str]:
    """The URL of an empty database."""
    with postgres.lent() as url:
        yield url


@pytest.fixture(params=["memory", "sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty store of each kind."""
    if request.param == "postgresql":
        return str(request.getfixturevalue("database"))
    return {"memory": "sqlite://", "sqlite": f"sqlite:///{tmp_path}/store.db"}[request.param]


@pytest.fixture(params=["sqlite", "postgresql"])
def shared_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty store of each kind that several processes can open."""
    if request.param == "postgresql":
        return str(request.getfixturevalue("database"))
    return f"sqlite:///{tmp_path}/store.db"


@pytest.fixture
async def vault(url: str, keyring: Keyring) -> AsyncIterator[Vault]:
    opened = await Vault.open(url, keyring=keyring, environment=Environment.PRODUCTION, clock=lambda: NOW)
    yield opened
    await opened.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


@pytest.fixture
async def opener(path: Path, keyring: Keyring) -> AsyncIterator[Opener]:
    """Opens the one file again and again, as so many processes would."""
    async with AsyncExitStack() as stack:

        async def open_(**changes: object) -> Vault:
            values = {
                "keyring": keyring,
                "environment": Environment.PRODUCTION,
                "clock": lambda: NOW,
            } | changes
            opened = await Vault.open(f"sqlite:///{path}", **values)  # type: ignore[arg-type]
            stack.push_async_callback(opened.close)
            return opened

        yield open_
