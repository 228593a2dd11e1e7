from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterator

import aiohttp
import pytest

from authproxy.sandbox import Sandbox
from tests.sandbox.app import DEMO_SECRET, App, Clock


@pytest.fixture(autouse=True)
def nothing_breaks_inside(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Whatever is switched on, the sandbox itself never fails with an exception."""
    yield
    broken = [one.getMessage() for one in caplog.get_records("call") if one.levelno >= logging.ERROR]
    assert broken == []


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def sandbox(clock: Clock) -> AsyncIterator[Sandbox]:
    one = Sandbox(clock=clock)
    await one.start(port=0)
    yield one
    await one.close()


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as one:
        yield one


@pytest.fixture
def app(sandbox: Sandbox, session: aiohttp.ClientSession) -> App:
    """The public client."""
    return App(sandbox, sandbox.base_url, session)


@pytest.fixture
def demo(sandbox: Sandbox, session: aiohttp.ClientSession) -> App:
    """The confidential client."""
    return App(sandbox, sandbox.base_url, session, "authproxy-demo", DEMO_SECRET)
