"""Tools made for a test, put into a house beside the packaged ones."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from types import MappingProxyType
from typing import Any

from authproxy.tools.loading import Kit, Toolbox, toolbox
from authproxy.tools.tool import Call, Json, Marks, Parameter, Tool
from tests.tools.kit import House

GMAIL = "https://www.googleapis.com/auth/gmail."
READ = f"{GMAIL}readonly"


def made(run: Callable[[Call], Awaitable[Json]], **more: Any) -> Tool:
    """A tool `Made.Tool` on the route gmail, which reads."""
    values: dict[str, Any] = {
        "toolkit": "Made",
        "name": "Tool",
        "description": "Made for a test.",
        "version": "1.2.3",
        "provider": "google",
        "route": "gmail",
        "marks": Marks(read_only=True),
        "run": run,
        "scopes": (READ,),
        "grant_scopes": (READ,),
    }
    return Tool(**(values | more))


def one_call(method: str, path: str, **more: Any) -> Callable[[Call], Awaitable[Json]]:
    """A tool's function that sends one request and gives the answer's JSON."""

    async def run(call: Call) -> Json:
        return (await call.api.call(method, path, **more)).json

    return run


def put(house: House, *tools: Tool, **kit: Any) -> None:
    """Let the house have these tools too. `kit` has what their toolkit reads failures with."""
    own = Kit("Made", "1.2.3", "Made for tests.", "google", "gmail", **kit)
    whole = toolbox()
    found = {tool.qualified_name.replace(".", "").casefold(): tool for tool in tools}
    box = Toolbox(
        MappingProxyType({**whole.kits, "Made": own}),
        tuple(sorted([*whole, *tools], key=lambda tool: tool.qualified_name)),
        whole.missing,
        MappingProxyType({**whole._found, **found}),
    )
    house.app.control.tools._toolbox = lambda: box


def parameter(name: str, type: str = "string", **more: Any) -> Parameter:  # noqa: A002 - as the class has it
    return Parameter(name, type, f"The {name}.", **more)
