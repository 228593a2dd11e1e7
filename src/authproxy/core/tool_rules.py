"""Which calls of tools may be, which wait for a yes, and what their arguments and results may hold: rules as data."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, NamedTuple

from authproxy.core.session import pattern_fault, tool_allowed
from authproxy.core.setting import setting

REDACTED = "[redacted]"
_FIELD = r"(\*\*|\*|[A-Za-z0-9_-]+)(\.(\*\*|\*|[A-Za-z0-9_-]+))*"
_FIELD_SAID = "must be names joined by dots; `*` is any name, `**` everything below"
_TOOLS = (
    "names (`Gmail.SendEmail`, `Gmail.*`), marks (`read_only`, `destructive`, …), or both (`Gmail.*:write`)"
)

Approver = Literal["operator", "user"]


@dataclass(frozen=True, slots=True)
class ToolRule:
    """A word about calls. The first that fits a call decides; where there are rules and none fits, it is refused."""

    tools: tuple[str, ...] = setting(_TOOLS, ("*",))
    agents: tuple[str, ...] = setting("agents by name; `*` stands for any characters", ("*",))
    users: tuple[str, ...] = setting("users by id; `*` stands for any characters", ("*",))
    effect: Literal["allow", "deny"] = setting(
        "what becomes of a call that fits; one denied to an agent whoever its user is, is not listed either",
        "allow",
    )
    approve: Approver | None = setting(
        "who must say yes to each such call before it is made (`/v1/approvals`): an `operator`, or the `user` through "
        "the application",
        None,
    )


@dataclass(frozen=True, slots=True)
class FieldRule:
    """What one argument, or one part of a result, may be. Lists are gone through, and a part that is a whole object
    means all the values in it."""

    field: str = setting("its path: `recipient`, `emails.body`", pattern=_FIELD, must=_FIELD_SAID)
    allow: tuple[str, ...] = setting(
        "globs, without regard to case: a value that fits none is refused. Of a text with commas each part must fit",
        (),
    )
    deny: tuple[str, ...] = setting("globs: a value that fits one, or a part of which does, is refused", ())
    redact: tuple[str, ...] = setting(
        f"regular expressions: what they find in a text is replaced by `{REDACTED}`", ()
    )
    drop: bool = setting("take it out altogether", False)


@dataclass(frozen=True, slots=True)
class ToolHook:
    """What calls that fit are held to, before and after; all that fit are applied, in their order."""

    tools: tuple[str, ...] = setting(_TOOLS, ("*",))
    agents: tuple[str, ...] = setting("agents by name; `*` stands for any characters", ("*",))
    users: tuple[str, ...] = setting("users by id; `*` stands for any characters", ("*",))
    input: tuple[FieldRule, ...] = setting("of the arguments, before anything is sent", ())
    output: tuple[FieldRule, ...] = setting("of the result, before the caller gets it", ())


class Subject(NamedTuple):
    """What rules look at. `user` None: only what holds for every user is asked."""

    tool: str
    read_only: bool
    destructive: bool
    idempotent: bool
    agent: str
    user: str | None


class FieldRefused(Exception):
    """A field is not what a rule wants; the argument is its path. What it holds is nobody's business."""


def ruling(rules: Sequence[ToolRule], subject: Subject) -> ToolRule | None:
    """The rule that decides on a call; None where none does, which refuses it."""
    if not rules:
        return _FREE
    return next((rule for rule in rules if _concerns(rule, subject)), None)


def offered(rules: Sequence[ToolRule], subject: Subject) -> bool:
    """Whether a call of the tool could succeed: for the subject's user, or for some user where it names none."""
    if not rules:
        return True
    for rule in rules:
        if not (_of_tool(rule, subject) and _fits(rule.agents, subject.agent)):
            continue
        certain = "*" in rule.users if subject.user is None else _fits(rule.users, subject.user)
        if rule.effect == "deny":
            if certain:
                return False
        elif certain or subject.user is None:
            return True
    return False


def concerned(hooks: Sequence[ToolHook], subject: Subject) -> Iterator[ToolHook]:
    """The hooks of a call."""
    return (hook for hook in hooks if _concerns(hook, subject))


def held(value: Any, rules: Sequence[FieldRule]) -> Any:
    """The value as the rules let it pass. Raises FieldRefused; the value itself is left as it was."""
    for rule in rules:
        value = _walked(value, rule.field.split("."), rule)
    return value


def tool_faults(rules: Sequence[ToolRule], hooks: Sequence[ToolHook]) -> Iterator[tuple[str, str]]:
    """What is wrong with them: path and message."""
    patterns = {f"tools.rules[{index}]": one.tools for index, one in enumerate(rules)}
    patterns |= {f"tools.hooks[{index}]": one.tools for index, one in enumerate(hooks)}
    for path, tools in patterns.items():
        for at, pattern in enumerate(tools):
            if fault := pattern_fault(pattern):
                yield f"{path}.tools[{at}]", fault
    for index, rule in enumerate(rules):
        if rule.approve is not None and rule.effect == "deny":
            yield f"tools.rules[{index}].approve", "is of no use where the effect is `deny`"
    for index, hook in enumerate(hooks):
        for side, fields in (("input", hook.input), ("output", hook.output)):
            for at, one_field in enumerate(fields):
                yield from _field_faults(f"tools.hooks[{index}].{side}[{at}]", one_field)


def _field_faults(path: str, rule: FieldRule) -> Iterator[tuple[str, str]]:
    if not (rule.allow or rule.deny or rule.redact or rule.drop):
        yield path, "says nothing: give allow, deny, redact or drop"
    for at, pattern in enumerate(rule.redact):
        try:
            re.compile(pattern)
        except re.error:
            yield f"{path}.redact[{at}]", "is no regular expression"


_FREE = ToolRule()


def _concerns(one: ToolRule | ToolHook, subject: Subject) -> bool:
    return (
        _of_tool(one, subject)
        and _fits(one.agents, subject.agent)
        and ("*" in one.users if subject.user is None else _fits(one.users, subject.user))
    )


def _of_tool(one: ToolRule | ToolHook, subject: Subject) -> bool:
    return tool_allowed(
        one.tools,
        subject.tool,
        read_only=subject.read_only,
        destructive=subject.destructive,
        idempotent=subject.idempotent,
    )


def _fits(globs: Sequence[str], name: str) -> bool:
    return any(_glob(one, fold=False)(name) for one in globs)


def _walked(value: Any, path: Sequence[str], rule: FieldRule) -> Any:
    """The value with the rule applied wherever the path leads."""
    if isinstance(value, list | tuple):
        return [_walked(item, path, rule) for item in value]
    if not path:
        return _leaves(value, rule)
    if not isinstance(value, Mapping):
        return value
    step, rest = path[0], path[1:]
    if step == "**":
        return _leaves(value, rule) if not rest else _anywhere(value, rest, rule)
    changed = {}
    for name, item in value.items():
        if step not in ("*", name):
            changed[name] = item
        elif rest or not rule.drop:
            changed[name] = _walked(item, rest, rule)
    return changed


def _anywhere(value: Any, path: Sequence[str], rule: FieldRule) -> Any:
    """The rule applied where the path begins here, or at any depth below."""
    value = _walked(value, path, rule)
    if isinstance(value, Mapping):
        return {name: _anywhere(item, path, rule) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_anywhere(item, path, rule) for item in value]
    return value


def _leaves(value: Any, rule: FieldRule) -> Any:
    if isinstance(value, Mapping):
        if rule.drop:
            return {}
        return {name: _leaves(item, rule) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_leaves(item, rule) for item in value]
    if value is None:
        return None
    text = value if isinstance(value, str) else str(value).lower()
    _demand(text, rule)
    for pattern in rule.redact if isinstance(value, str) else ():
        value = _regex(pattern).sub(REDACTED, value)
    return value


def _demand(text: str, rule: FieldRule) -> None:
    parts = [part for part in (one.strip() for one in re.split(r"[,;\n]", text)) if part]
    if rule.allow and not all(any(_glob(one)(part) for one in rule.allow) for part in parts):
        raise FieldRefused(rule.field)
    if any(_glob(one)(part) for one in rule.deny for part in (text, *parts)):
        raise FieldRefused(rule.field)


@lru_cache(maxsize=1024)
def _glob(glob: str, *, fold: bool = True) -> Callable[[str], Any]:
    """`*` is any characters, nothing else is special."""
    pattern = ".*".join(re.escape(part) for part in re.sub(r"\*+", "*", glob).split("*"))
    return re.compile(pattern, re.DOTALL | (re.IGNORECASE if fold else 0)).fullmatch


@lru_cache(maxsize=1024)
def _regex(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern)
