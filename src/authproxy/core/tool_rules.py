"""Which calls of tools may be, which wait for a yes, and what their arguments and results may hold: rules as data."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, NamedTuple

from authproxy.core.session import tool_allowed
from authproxy.core.setting import setting

REDACTED = "[redacted]"
_FIELD = r"(\*\*|\*|[A-Za-z0-9_-]+)(\.(\*\*|\*|[A-Za-z0-9_-]+))*"
_FIELD_SAID = "must be names joined by dots; `*` is any name, `**` everything from there on"
_TOOLS = (
    "names (`Gmail.SendEmail`, `Gmail.*`), marks (`read_only`, `destructive`, …), or both (`Gmail.*:write`)"
)
_AGENTS = "agents by name, and all below one (`mailer` is `mailer/run-7` too); `*` stands for any characters"

Approver = Literal["operator", "user"]
Rewrite = Callable[[re.Pattern[str], str], str | None]
"""A text with what a pattern finds in it redacted; None where that cannot be said, and so the value may not pass."""


@dataclass(frozen=True, slots=True)
class ToolRule:
    """A word about calls. The first that fits a call decides; where there are rules and none fits, it is refused."""

    tools: tuple[str, ...] = setting(_TOOLS, ("*",))
    agents: tuple[str, ...] = setting(_AGENTS, ("*",))
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
        f"regular expressions: what they find in a text, a number or a name below is replaced by `{REDACTED}`",
        (),
    )
    drop: bool = setting("take it out altogether", False)


@dataclass(frozen=True, slots=True)
class ToolHook:
    """What calls that fit are held to, before and after; all that fit are applied, in their order."""

    tools: tuple[str, ...] = setting(_TOOLS, ("*",))
    agents: tuple[str, ...] = setting(_AGENTS, ("*",))
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
        if not (_of_tool(rule, subject) and _of_agent(rule, subject)):
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


def redacted(pattern: re.Pattern[str], text: str) -> str:
    """The text with all that the pattern finds taken out, however long that takes."""
    return pattern.sub(REDACTED, text)


def held(value: Any, rules: Sequence[FieldRule], rewrite: Rewrite = redacted) -> Any:
    """The value as the rules let it pass. Raises FieldRefused; the value itself is left as it was."""
    for rule in rules:
        try:
            value = _walked(value, tuple(rule.field.split(".")), rule, rewrite)
        except RecursionError:  # deeper than can be looked into
            raise FieldRefused(rule.field) from None
    return value


_FREE = ToolRule()


def _concerns(one: ToolRule | ToolHook, subject: Subject) -> bool:
    return (
        _of_tool(one, subject)
        and _of_agent(one, subject)
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


def _of_agent(one: ToolRule | ToolHook, subject: Subject) -> bool:
    """By the agent's name, or one that it stands below: whoever has that one names those below it as it likes."""
    names, name = [subject.agent], subject.agent
    while cut := name.rpartition("/")[0]:
        names.append(cut)
        name = cut
    return any(_fits(one.agents, each) for each in names)


def _fits(globs: Sequence[str], name: str) -> bool:
    return any(_glob(one)(name) for one in globs)


def _walked(value: Any, path: tuple[str, ...], rule: FieldRule, rewrite: Rewrite) -> Any:
    """The value with the rule applied wherever the path leads."""
    if not path or path == ("**",):
        return _leaves(value, rule, rewrite)
    if isinstance(value, list | tuple):
        return [_walked(item, path, rule, rewrite) for item in value]
    if not isinstance(value, Mapping):
        return value
    step, rest = path[0], path[1:]
    if step == "**":
        return _anywhere(value, rest, rule, rewrite)
    changed = {}
    for name, item in value.items():
        if step not in ("*", name):
            changed[name] = item
        elif rest or not rule.drop:
            changed[name] = _walked(item, rest, rule, rewrite)
    return changed


def _anywhere(value: Any, path: tuple[str, ...], rule: FieldRule, rewrite: Rewrite) -> Any:
    """The rule applied where the path begins here, or at any depth below."""
    if isinstance(value, list | tuple):
        return [_anywhere(item, path, rule, rewrite) for item in value]
    if not isinstance(value, Mapping):
        return value
    value = _walked(value, path, rule, rewrite)
    return {name: _anywhere(item, path, rule, rewrite) for name, item in value.items()}


def _leaves(value: Any, rule: FieldRule, rewrite: Rewrite) -> Any:
    if isinstance(value, Mapping):
        if rule.drop:
            return {}
        changed: dict[Any, Any] = {}
        for name, item in value.items():
            changed[_name(name, changed, rule, rewrite)] = _leaves(item, rule, rewrite)
        return changed
    if isinstance(value, list | tuple):
        return [] if rule.drop else [_leaves(item, rule, rewrite) for item in value]
    if value is None or rule.drop:
        return None
    text = value if isinstance(value, str) else str(value).lower()
    _demand(text, rule)
    said = _rewritten(text, rule, rewrite)
    return value if said == text else said


def _name(name: Any, taken: Mapping[Any, Any], rule: FieldRule, rewrite: Rewrite) -> Any:
    """A name may be what somebody wrote as well. Two that look alike now stay two."""
    said = _rewritten(name, rule, rewrite) if isinstance(name, str) else name
    if said == name or said not in taken:
        return said
    return next(each for count in itertools.count(len(taken)) if (each := f"{said} {count}") not in taken)


def _rewritten(text: str, rule: FieldRule, rewrite: Rewrite) -> str:
    for pattern in rule.redact:
        said = rewrite(_regex(pattern), text)
        if said is None:
            raise FieldRefused(rule.field)
        text = said
    return text


def _demand(text: str, rule: FieldRule) -> None:
    if not (rule.allow or rule.deny):
        return
    folded = text.casefold()
    parts = [part for part in (one.strip() for one in re.split(r"[,;\n]", folded)) if part]
    allow, deny = ([_glob(glob.casefold()) for glob in globs] for globs in (rule.allow, rule.deny))
    if allow and not all(any(fits(part) for fits in allow) for part in parts):
        raise FieldRefused(rule.field)
    if any(fits(part) for fits in deny for part in (folded, *parts)):
        raise FieldRefused(rule.field)


@lru_cache(maxsize=1024)
def _glob(glob: str) -> Callable[[str], bool]:
    """`*` is any characters, nothing else is special. Looks at each character once, whatever somebody sent."""
    head, *rest = glob.split("*")
    if not rest:
        return lambda text: text == head
    *middle, tail = rest

    def fits(text: str) -> bool:
        at, end = len(head), len(text) - len(tail)
        if at > end or not text.startswith(head) or not text.endswith(tail):
            return False
        for piece in middle:
            found = text.find(piece, at, end)
            if found < 0:
                return False
            at = found + len(piece)
        return True

    return fits


@lru_cache(maxsize=1024)
def _regex(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern)
