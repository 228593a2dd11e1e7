"""What is wrong with the rules for tools: patterns that say nothing, and names of what is not there."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from typing import NamedTuple

from authproxy.core.faults import near
from authproxy.core.session import MARKS, pattern_fault, tool_allowed
from authproxy.core.tool_rules import FieldRule, ToolHook, ToolRule


class KnownTool(NamedTuple):
    """Of one tool, what rules look at: its full name, its marks, and what its arguments are called."""

    name: str
    read_only: bool
    destructive: bool
    idempotent: bool
    parameters: Collection[str]


def tool_faults(
    rules: Sequence[ToolRule], hooks: Sequence[ToolHook], tools: Sequence[KnownTool] | None = None
) -> Iterator[tuple[str, str]]:
    """What is wrong with them: path and message. `tools` are all that there are, where that is known: a rule for a name
    that is misspelt would hold nothing."""
    for index, rule in enumerate(rules):
        path = f"tools.rules[{index}]"
        yield from _subject_faults(path, rule, tools)
        if rule.approve is not None and rule.effect == "deny":
            yield f"{path}.approve", "is of no use where the effect is `deny`"
    for index, hook in enumerate(hooks):
        path = f"tools.hooks[{index}]"
        yield from _subject_faults(path, hook, tools)
        if not (hook.input or hook.output):
            yield path, "says nothing: give input or output"
        for side, fields in (("input", hook.input), ("output", hook.output)):
            for at, one in enumerate(fields):
                yield from _field_faults(f"{path}.{side}[{at}]", one)
        for at, one in enumerate(hook.input):
            if fault := _argument_fault(one, hook, tools):
                yield f"{path}.input[{at}].field", fault


def _subject_faults(
    path: str, one: ToolRule | ToolHook, tools: Sequence[KnownTool] | None
) -> Iterator[tuple[str, str]]:
    for name, values in (("tools", one.tools), ("agents", one.agents), ("users", one.users)):
        if not values:
            yield f"{path}.{name}", "is empty, and fits nothing: leave it out, or write `*`"
    for at, pattern in enumerate(one.tools):
        if fault := pattern_fault(pattern) or _name_fault(pattern, tools):
            yield f"{path}.tools[{at}]", fault


def _field_faults(path: str, rule: FieldRule) -> Iterator[tuple[str, str]]:
    if not (rule.allow or rule.deny or rule.redact or rule.drop):
        yield path, "says nothing: give allow, deny, redact or drop"
    for at, pattern in enumerate(rule.redact):
        try:
            if re.compile(pattern).search(""):
                yield (
                    f"{path}.redact[{at}]",
                    "fits the empty text too, and would be found between all letters",
                )
        except (re.error, OverflowError, RecursionError):
            yield f"{path}.redact[{at}]", "is no regular expression"


def _name_fault(pattern: str, tools: Sequence[KnownTool] | None) -> str | None:
    name = pattern.partition(":")[0]
    if tools is None or name in MARKS or any(_known(one, (name,)) for one in tools):
        return None
    return f"fits no tool{near(name, [one.name for one in tools])}"


def _argument_fault(rule: FieldRule, hook: ToolHook, tools: Sequence[KnownTool] | None) -> str | None:
    name = rule.field.partition(".")[0]
    names = {each for one in tools or () if _known(one, hook.tools) for each in one.parameters}
    if name in ("*", "**") or name in names or not names:
        return None
    return f"is no argument of these tools{near(name, sorted(names))}"


def _known(one: KnownTool, patterns: Sequence[str]) -> bool:
    return tool_allowed(
        patterns,
        one.name,
        read_only=one.read_only,
        destructive=one.destructive,
        idempotent=one.idempotent,
    )
