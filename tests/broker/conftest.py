"""A fresh house for each test, and the invariants that hold after every one of them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.broker.house import House, house_at


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with house_at(tmp_path) as built:
        yield built
        # Invariant of every scenario: no refresh token comes again after its success was delivered (A22).
        assert built.sandbox.violations() == []
