"""A house of tools for each test that asks for one."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.tools.kit import House


@pytest.fixture
async def house() -> AsyncIterator[House]:
    """alice is connected everywhere."""
    async with House.running() as running:
        yield running
