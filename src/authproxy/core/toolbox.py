"""Settings of the tools: what one call may cost, and whether there are any."""

from __future__ import annotations

from dataclasses import dataclass

from authproxy.core.setting import setting
from authproxy.core.tool_rules import ToolHook, ToolRule


@dataclass(frozen=True, slots=True)
class Tools:
    """What agents may call by name (`/v1/tools`), on the same walk and under the same rules as their own requests."""

    enabled: bool = setting("whether tools are offered, for the routes that are configured", True)
    timeout: float = setting("seconds for one call of a tool, all its requests together", 50.0, minimum=0.1)
    max_calls: int = setting("calls of tools at once", 256, minimum=1)
    max_input: int = setting("bytes of one call's input, attachments included", 16 * 2**20, minimum=1024)
    max_answer: int = setting("bytes of one answer of a provider that a tool reads", 8 * 2**20, minimum=1024)
    max_output: int = setting(
        "bytes of a result; of a longer one texts and lists are cut, and it says so", 131072, minimum=1024
    )
    rules: tuple[ToolRule, ...] = setting(
        "which calls may be, and which wait for a yes; without any, all may that the routes and grants allow",
        (),
    )
    hooks: tuple[ToolHook, ...] = setting("what arguments and results may hold", ())
    approval_ttl: float = setting(
        "seconds in which an approval must be given, and then used", 900.0, minimum=1, maximum=86400
    )
