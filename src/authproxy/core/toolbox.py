"""Settings of the tools: what one call may cost, and whether there are any."""

from __future__ import annotations

from dataclasses import dataclass

from authproxy.core.setting import setting


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
