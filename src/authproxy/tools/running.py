"""Runs one call of a tool: input checked, a deadline over all of it, every failure a ToolError, output bounded."""

from __future__ import annotations

import asyncio
import time
import traceback
from collections.abc import Callable, Mapping
from typing import Any

import structlog

from authproxy.core.toolbox import Tools as Limits
from authproxy.proxy.inner import Inner
from authproxy.tools.arguments import checked
from authproxy.tools.asking import Errand, WalkApi
from authproxy.tools.failures import PERHAPS
from authproxy.tools.results import bounded
from authproxy.tools.tool import Call, Input, Json, Kind, Tool, ToolError

__all__ = ["Errand", "Runner", "WalkApi"]

log = structlog.get_logger()


class Runner:
    """`limits` are asked with every call, so that another configuration is heeded at once."""

    def __init__(
        self, inner: Inner, limits: Callable[[], Limits], *, clock: Callable[[], float] = time.time
    ) -> None:
        self._inner = inner
        self._limits = limits
        self._clock = clock

    def api(self, errand: Errand) -> WalkApi:
        """What the call's requests are sent with; it knows them afterwards."""
        return WalkApi(self._inner, errand, now=self._clock)

    def check(self, tool: Tool, given: Mapping[str, Any]) -> Input:
        """The input as the tool's function gets it. Raises ToolError."""
        return checked(tool, given)

    async def run(self, api: WalkApi, given: Input) -> Json:
        """The result of one call with checked input. Raises ToolError, and nothing else but cancellation."""
        errand, limits = api.errand, self._limits()
        call = Call(given, api, int(self._clock()), errand.user)
        name = errand.tool.qualified_name
        deadline = asyncio.timeout(limits.timeout)
        try:
            async with deadline:
                value = await errand.tool.run(call)
        except ToolError:
            raise
        except Exception as error:  # noqa: BLE001 - the one edge between us and a tool's function: its bug ends here
            if deadline.expired() and isinstance(error, TimeoutError):
                raise _late(api, limits.timeout) from None
            _log_fault(errand, error)
            raise ToolError(
                Kind.FATAL,
                f"{name} failed by a fault of its own" + ("" if api.repeatable else PERHAPS),
                developer_message=f"authproxy's log has it under the call {errand.call}",
            ) from None
        return value

    def bounded(self, value: Json) -> Json:
        """A result as long as results may be. Raises ToolError."""
        return bounded(value, self._limits().max_output)


def _log_fault(errand: Errand, error: Exception) -> None:
    """Where it was, and not what it says: an exception's text may quote the user's mail."""
    where = [f"{frame.filename}:{frame.lineno}" for frame in traceback.extract_tb(error.__traceback__)]
    log.error(
        "tool_fault",
        tool=errand.tool.qualified_name,
        call=errand.call,
        error=type(error).__name__,
        where=where[-8:],
    )


def _late(api: WalkApi, seconds: float) -> ToolError:
    name, harmless = api.errand.tool.qualified_name, api.repeatable
    text = f"{name} did not end within {seconds:g} seconds"
    return ToolError(Kind.TIMEOUT, text if harmless else text + PERHAPS, can_retry=harmless)
