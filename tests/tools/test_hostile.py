"""Whatever a model writes into the arguments of any tool, it stays an argument."""

from __future__ import annotations

from typing import Any

import pytest

from authproxy.tools.loading import toolbox
from authproxy.tools.tool import Kind, Parameter, Tool
from tests.tools.kit import House, Reply, Seen

HOSTILE = [
    "../../x-evil",
    "a?x-evil=1",
    "a&x-evil=1",
    "a#x-evil",
    "a\r\nX-Evil: 1",
    "%2e%2e%2fx-evil",
    "..",
    "\\..\\x",
]
PLAIN: dict[str, Any] = {"string": "abc", "integer": 5, "number": 1.5, "boolean": True, "json": {"a": 1}}


def plain(one: Parameter) -> Any:
    value = one.enum[0] if one.enum else PLAIN[one.items or one.type]
    return [value] if one.type == "array" else value


def targets(tool: Tool) -> list[Parameter]:
    return [one for one in tool.parameters if "string" in (one.type, one.items) and not one.enum]


def faults(seen: Seen) -> list[str]:
    segments = seen.path.lower().split("/")
    found = [name for name in seen.headers if "evil" in name]
    found += [name for name in seen.query if "evil" in name]
    found += [part for part in segments[:-1] if part in ("..", ".", "%2e%2e")]
    return found + (["path"] if "x-evil" in segments or "#" in seen.path else [])


@pytest.mark.parametrize("text", HOSTILE)
async def test_no_argument_leaves_its_place(house: House, text: str) -> None:
    found: list[tuple[str, str, list[str]]] = []
    house.upstream.otherwise = {}
    for tool in toolbox():
        for one in targets(tool):
            given = {other.name: plain(other) for other in tool.parameters if other.required}
            before = len(house.seen)
            await house.call(tool.qualified_name, **{**given, one.name: [text] if one.items else text})
            found += [
                (tool.qualified_name, one.name, wrong)
                for seen in house.seen[before:]
                if (wrong := faults(seen))
            ]
    assert found == []
    assert len(house.seen) > 100


DEGRADES = {("Hubspot.GetAvailableIndustryTypes", 403)}  # the list that every account begins with


async def test_every_tool_ends_well_whatever_the_provider_says(house: House) -> None:
    """A failure of the provider is never taken for one of the tool's own, nor for a success."""
    wrong = []
    for status in (400, 403, 409, 429, 500):
        house.upstream.otherwise = Reply(status, {"message": "no"})
        for tool in toolbox():
            given = {one.name: plain(one) for one in tool.parameters if one.required}
            outcome = await house.call(tool.qualified_name, **given)
            fatal = outcome.error is not None and outcome.error.kind is Kind.FATAL
            if fatal or (outcome.success and outcome.requests):
                wrong.append((tool.qualified_name, status))
    assert set(wrong) == DEGRADES
