"""tools/list and tools/call with the official client, in both generations of the protocol."""

from __future__ import annotations

import pytest

from tests.mcp.conftest import GIVEN, LABELS, TOOL, Place

BOTH = pytest.mark.parametrize("mode", ["auto", "legacy"])


@BOTH
async def test_a_tool_is_called_on_the_walk(place: Place, mode: str) -> None:
    async with place.client(mode) as client:
        result = await client.call_tool(TOOL, GIVEN)
    assert not result.is_error, result
    assert result.structured_content["labels"][0]["name"] == "bug"
    assert [request.path for request in place.github.requests] == [LABELS]
    (call,) = await place.records("tool.call")
    assert (call["tool"], call["user"], call["agent"]) == ("Github.ListRepositoryLabels", "alice", "kit")
    place.assert_clean(result, call)
