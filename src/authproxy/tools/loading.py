"""Reads the packaged tools, kits/*.yaml and the functions beside them: strictly, and once."""

from __future__ import annotations

import importlib
import importlib.util
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any

import yaml

from authproxy.core.config import Rule
from authproxy.tools.rows import RowFault, request_of
from authproxy.tools.tool import MISSING, Answer, Json, Marks, Parameter, Tool, ToolError

_PACKAGE = "authproxy.tools.kits"
_FOLDER = Path(__file__).parent / "kits"
_ALIASES = "aliases"  # the page of names that older documents use
# libyaml where PyYAML was built with it: some eight times faster
_Loader: type[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_READING = threading.Lock()  # who asks while another thread reads waits for it, instead of reading too

_PAGE = frozenset(
    (
        "toolkit",
        "version",
        "description",
        "provider",
        "route",
        "scope_prefix",
        "grant_scopes",
        "needs",
        "tools",
    )
)
_ROW = frozenset(
    (
        *("name", "marks", "scopes", "grant_scopes", "description", "parameters", "request", "answer"),
        *("hidden", "alias_of"),
    )
)
_NEEDS = frozenset(("read", "write"))
_PARAMETER = frozenset(("name", "type", "items", "required", "enum", "default", "description", "inferrable"))
_TYPES: Mapping[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "array": (list,),
    "json": (dict, list, str, int, float, bool),
}
_NAME = re.compile(r"[A-Z][A-Za-z0-9]*")
_WORD = re.compile(r"[a-z_][a-z0-9_]*")
_MARKS = re.compile(r"[RW]D?I?")
_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")

ReadFailure = Callable[[Answer], ToolError | None]
ErrorWords = Callable[[int, Json], str | None]


@dataclass(frozen=True, slots=True)
class Kit:
    """A toolkit: what its tools have in common. `reads` is what the `allow` of a route must say for those that only
    read, `writes` what it must say beside for the others. `read_failure` sees a failure in an answer that says 2xx,
    and `error_words` the words of a failure that a model may be told; None where the provider needs neither."""

    name: str
    version: str
    description: str
    provider: str
    route: str
    reads: tuple[Rule, ...] = ()
    writes: tuple[Rule, ...] = ()
    read_failure: ReadFailure | None = field(default=None, repr=False)
    error_words: ErrorWords | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Toolbox:
    """All tools of this package, in the order of their names. `missing` names the rows that have no function."""

    kits: Mapping[str, Kit]
    tools: tuple[Tool, ...]
    missing: tuple[str, ...]
    _found: Mapping[str, Tool] = field(repr=False)

    def __iter__(self) -> Iterator[Tool]:
        return iter(self.tools)

    def find(self, name: str) -> Tool | None:
        """By any of its spellings: `Gmail.ListEmails`, `Gmail_ListEmails`, in any case; an alias gives the tool that
        it stands for. A version behind `@` is not looked at."""
        return self._found.get(_plain(name.partition("@")[0]))

    def kit(self, tool: Tool) -> Kit:
        """The toolkit of a tool."""
        return self.kits[tool.toolkit]


NO_TOOLS = Toolbox(MappingProxyType({}), (), (), MappingProxyType({}))


def toolbox() -> Toolbox:
    """The packaged tools; read when they are first asked for, which takes a third of a second. Raises RowFault where
    the package is not whole."""
    with _READING:
        return _packaged()


@cache
def _packaged() -> Toolbox:
    return read_toolbox(_pages())


def tool_routes() -> frozenset[str]:
    """The routes that the packaged tools send to, told from the names of their pages: none is read for it."""
    return frozenset(file.stem.replace("_", "-") for file in _files() if file.stem != _ALIASES)


def read_toolbox(pages: Iterable[tuple[str, Any]]) -> Toolbox:
    """The same from pages and their names. A page's functions are those of the module of its name among the kits."""
    kits: dict[str, Kit] = {}
    tools: list[Tool] = []
    missing: list[str] = []
    aliases: dict[str, str] = {}
    for name, page in pages:
        if name == _ALIASES:
            aliases.update(_mapping(page, name))
            continue
        reader = _Page(name, page)
        if reader.kit.name in kits:
            raise RowFault(f"{name}: the toolkit {reader.kit.name} is there already")
        kits[reader.kit.name] = reader.kit
        tools += reader.tools
        missing += reader.missing
        aliases.update(reader.aliases)
    found = _by_name(tools)
    for alias, meant in aliases.items():
        if meant in missing:
            continue
        tool = found.get(_plain(meant))
        if tool is None:
            raise RowFault(f"{alias} is an alias of {meant}, which is no tool")
        if found.setdefault(_plain(alias), tool) is not tool:
            raise RowFault(f"{alias} is the name of a tool already")
    ordered = tuple(sorted(tools, key=lambda tool: tool.qualified_name))
    return Toolbox(MappingProxyType(kits), ordered, tuple(sorted(missing)), MappingProxyType(found))


def function_name(name: str) -> str:
    """`ListEmails` as the function of the kit's module: `list_emails`."""
    return _HUMP.sub("_", name).lower()


def _by_name(tools: Iterable[Tool]) -> dict[str, Tool]:
    found: dict[str, Tool] = {}
    for tool in tools:
        if found.setdefault(_plain(tool.qualified_name), tool) is not tool:
            raise RowFault(f"{tool.qualified_name} is there twice")
    return found


def _plain(name: str) -> str:
    """One spelling of a tool's name: clients write `.` as `_` where a model's API takes no dots."""
    return name.strip().replace("_", "").replace("-", "").replace(".", "").casefold()


class _Page:
    """One page, read."""

    def __init__(self, name: str, page: Any) -> None:
        self._where = name
        self._page = _mapping(page, name)
        self._demand(self._page, _PAGE, "")
        self._module = _module(name)
        self._prefix = self._page.get("scope_prefix", "")
        self._grants = self._page.get("grant_scopes", {})
        self.kit = Kit(
            name=self._text("toolkit"),
            version=self._text("version"),
            description=self._text("description"),
            provider=self._text("provider"),
            route=self._text("route"),
            reads=self._rules("read"),
            writes=self._rules("write"),
            read_failure=getattr(self._module, "read_failure", None),
            error_words=getattr(self._module, "error_words", None),
        )
        self.tools: list[Tool] = []
        self.missing: list[str] = []
        self.aliases: dict[str, str] = {}
        listed: set[str] = set()
        for row in self._page.get("tools", ()):
            listed.update(_mapping(row, name).get("scopes", ()))
            self._read(row)
        if unknown := self._grants.keys() - listed:
            raise RowFault(f"{name}: grant_scopes has {min(unknown)}, which no tool lists")

    def _read(self, row: Mapping[str, Any]) -> None:
        name = row.get("name")
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise RowFault(f"{self._where}: a tool's name is not in CamelCase")
        where = f"{self.kit.name}.{name}"
        try:
            self._demand(row, _ROW, where)
            if "alias_of" in row:
                self.aliases[where] = row["alias_of"]
                return
            tool = self._tool(name, row)
        except RowFault as fault:
            raise RowFault(f"{where}: {fault}") from None
        if tool is None:
            self.missing.append(where)
        else:
            self.tools.append(tool)

    def _tool(self, name: str, row: Mapping[str, Any]) -> Tool | None:
        marks = row.get("marks")
        if not isinstance(marks, str) or not _MARKS.fullmatch(marks):
            raise RowFault("marks must be R or W, then D and I where they hold")
        parameters = tuple(_parameter(_mapping(one, "a parameter")) for one in row.get("parameters", ()))
        if len({one.name for one in parameters}) < len(parameters):
            raise RowFault("a parameter is there twice")
        run = self._run(name, row, parameters)
        if run is None:
            return None
        scopes = row.get("scopes", [])
        return Tool(
            toolkit=self.kit.name,
            name=name,
            description=row.get("description", ""),
            version=self.kit.version,
            provider=self.kit.provider,
            route=self.kit.route,
            marks=Marks(marks[0] == "R", "D" in marks, "I" in marks),
            run=run,
            parameters=parameters,
            scopes=tuple(self._prefix + one for one in scopes),
            grant_scopes=tuple(
                dict.fromkeys([*self._granting(scopes), *self._granting(row.get("grant_scopes", []))])
            ),
            hidden=row.get("hidden", False) is True,
        )

    def _granting(self, scopes: Iterable[str]) -> Iterator[str]:
        """What a grant must hold for listed scopes; said in full where the page says it."""
        for scope in scopes:
            yield from self._grants.get(scope, (self._prefix + scope,))

    def _run(self, name: str, row: Mapping[str, Any], parameters: tuple[Parameter, ...]) -> Any:
        if "request" not in row:
            if "answer" in row:
                raise RowFault("answer belongs to a row with request")
            return getattr(self._module, function_name(name), None)
        shape = None
        if "answer" in row:
            shape = getattr(self._module, str(row["answer"]), None)
            if shape is None:
                return None
        return request_of(row["request"], parameters, shape)

    def _rules(self, kind: str) -> tuple[Rule, ...]:
        needs = _mapping(self._page.get("needs", {}), self._where)
        self._demand(needs, _NEEDS, "needs")
        return tuple(Rule(tuple(one["methods"]), tuple(one["paths"])) for one in needs.get(kind, ()))

    def _demand(self, raw: Mapping[str, Any], keys: frozenset[str], where: str) -> None:
        if unknown := raw.keys() - keys:
            raise RowFault(f"{self._where} {where}: unknown key {min(unknown)}")

    def _text(self, key: str) -> str:
        value = self._page.get(key)
        if not isinstance(value, str) or not value:
            raise RowFault(f"{self._where}: {key} is missing, or no text")
        return value


def _parameter(raw: Mapping[str, Any]) -> Parameter:
    if unknown := raw.keys() - _PARAMETER:
        raise RowFault(f"unknown key {min(unknown)} of a parameter")
    name, kind, items, enum = raw.get("name"), raw.get("type"), raw.get("items"), raw.get("enum", [])
    if not isinstance(name, str) or not _WORD.fullmatch(name):
        raise RowFault("a parameter's name is not in snake_case")
    if (
        not isinstance(kind, str)
        or kind not in _TYPES
        or (items is not None and (items not in _TYPES or items == "array"))
    ):
        raise RowFault(f"{name}: unknown type")
    if (kind == "array") is (items is None):
        raise RowFault(f"{name}: an array has items, and nothing else has")
    if enum and ("string" not in (kind, items) or not all(isinstance(one, str) for one in enum)):
        raise RowFault(f"{name}: only strings, or a list of them, have an enum")
    default, required = raw.get("default", MISSING), raw.get("required", False)
    if default is not MISSING:
        right = isinstance(default, _TYPES[kind]) and (kind == "boolean" or not isinstance(default, bool))
        among = not enum or set(default if kind == "array" else [default]) <= set(enum)
        if required or not (right or kind == "json") or not among:
            raise RowFault(f"{name}: the default is not of its type, or the parameter is required")
    return Parameter(
        name=name,
        type=kind,
        description=raw.get("description", ""),
        required=required is True,
        items=items,
        enum=tuple(enum),
        default=default,
        inferrable=raw.get("inferrable", True) is True,
    )


def _mapping(raw: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(raw, dict):
        raise RowFault(f"{where}: not a mapping")
    return raw


def _module(page: str) -> ModuleType | None:
    """The kit's functions; None where there is no such module (a page of requests alone needs none)."""
    name = f"{_PACKAGE}.{page}"
    return importlib.import_module(name) if importlib.util.find_spec(name) is not None else None


def _pages() -> Iterator[tuple[str, Any]]:
    """One after the other: what a page was read into is let go of before the next, and its memory used again."""
    for file in _files():
        # a safe loader, chosen above for its speed
        yield file.stem, yaml.load(file.read_text(encoding="utf-8"), Loader=_Loader)  # noqa: S506


@cache
def _files() -> tuple[Path, ...]:
    return tuple(sorted(_FOLDER.glob("*.yaml")))
