"""Requests to HubSpot's API as the kit sends them, and a few at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, TypeVar

from authproxy.tools.kits.hubspot.failures import DAILY, PAUSES
from authproxy.tools.tool import Answer, Call, Json, Kind, ToolError

T = TypeVar("T")

AT_ONCE: Final = 4
"""Requests of one tool call that are under way together: an app has about 100 in ten seconds for an account."""


async def get(call: Call, path: str, query: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """GET `path`; the answer's JSON object. Raises ToolError."""
    try:
        return document(await call.api.call("GET", path, query=query))
    except ToolError as error:
        raise paused(error) from None


async def send(call: Call, method: str, path: str, body: Json) -> dict[str, Any]:
    """Send `body` as JSON to `path`; the answer's JSON object. Raises ToolError."""
    try:
        return document(await call.api.call(method, path, json=body))
    except ToolError as error:
        raise paused(error) from None


def paused(error: ToolError) -> ToolError:
    """The failure, a limit of HubSpot's with how long to wait for it: not at all for the day's."""
    if error.kind is not Kind.RATE_LIMIT or error.retry_after_ms is not None:
        return error
    pause = next((pause for words, pause in PAUSES.items() if words in error.message), None)
    if pause is None and DAILY not in error.message:
        return error
    return ToolError(
        error.kind,
        error.message,
        developer_message=error.developer_message,
        can_retry=pause is not None,
        retry_after_ms=pause,
        status=error.status,
    )


def document(answer: Answer) -> dict[str, Any]:
    """The JSON object of an answer; ToolError where HubSpot sent something else."""
    if not isinstance(answer.json, dict):
        raise ToolError(
            Kind.BAD_OUTPUT,
            "HubSpot's answer could not be read.",
            developer_message="The answer is not a JSON object.",
            status=answer.status,
        )
    return answer.json


def results(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The objects of a collection or batch answer, which may hold none."""
    rows = found.get("results")
    return [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []


def after(found: Mapping[str, Any]) -> str | None:
    """The token of the next page, or None on the last."""
    paging = found.get("paging")
    following = paging.get("next") if isinstance(paging, dict) else None
    token = following.get("after") if isinstance(following, dict) else None
    return str(token) if token not in (None, "") else None


def refused(error: ToolError) -> bool:
    """Whether asking again changes nothing: not allowed here, by HubSpot or by the route's policy, or not there."""
    return error.status in (403, 404) or error.code == "policy_denied"


async def together(asked: Sequence[Callable[[], Awaitable[T]]]) -> list[T]:
    """Call all, a few at a time; what they gave, in order. The first failure is raised when all have ended."""
    places = asyncio.Semaphore(AT_ONCE)

    async def one(ask: Callable[[], Awaitable[T]]) -> T:
        async with places:
            return await ask()

    ended = await asyncio.gather(*(one(ask) for ask in asked), return_exceptions=True)
    given: list[T] = []
    for end in ended:
        if isinstance(end, BaseException):
            raise end
        given.append(end)
    return given
