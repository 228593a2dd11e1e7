"""A tool: what an agent may call by name, as a row of data and, where it must shape something, one small function."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

Json = Any
Input = Mapping[str, Any]

MISSING: Any = object()
"""The default of a parameter that has none: where the caller does not name it, the input does not hold it."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """One argument. `type` is string, integer, number, boolean, array or json; `items` is an array's element type."""

    name: str
    type: str
    description: str
    required: bool = False
    items: str | None = None
    enum: tuple[str, ...] = ()
    default: Any = MISSING
    inferrable: bool = True


@dataclass(frozen=True, slots=True)
class Marks:
    """What calling it does, as MCP's annotations have it."""

    read_only: bool
    destructive: bool = False
    idempotent: bool = False


@dataclass(frozen=True, slots=True)
class Tool:
    """One row. `scopes` are what it says it needs, in full; `grant_scopes` what the user's grant must hold for it."""

    toolkit: str
    name: str
    description: str
    version: str
    provider: str
    route: str
    marks: Marks
    run: Callable[[Call], Awaitable[Json]] = field(repr=False)
    parameters: tuple[Parameter, ...] = ()
    scopes: tuple[str, ...] = ()
    grant_scopes: tuple[str, ...] = ()
    hidden: bool = False  # an alias of an older document: it can be called, and no list shows it

    @property
    def qualified_name(self) -> str:
        return f"{self.toolkit}.{self.name}"


@dataclass(frozen=True, slots=True)
class Answer:
    """A provider's successful answer. `json` is None where the body is not JSON; field names are in lower case."""

    status: int
    fields: Mapping[str, str]
    body: bytes
    json: Json = None


class Api(Protocol):
    """The API of the tool's provider as this user: every call is a request on the walk, with its own audit record."""

    async def call(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, Any] | None = None,
        json: Json = None,
        body: bytes | None = None,
        content_type: str | None = None,
        accept: str = "application/json",
        route: str | None = None,
    ) -> Answer:
        """Send one request to `path` (from the root of the route's upstream, already encoded).

        `query` values may be lists (repeated) and None (left out); booleans become `true`/`false`. `route` names
        another configured route than the tool's own. Raises ToolError for every answer that is no success, and
        for every refusal of authproxy's own.
        """


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a tool: the checked input (defaults filled in), the API, and the time."""

    input: Input
    api: Api
    now: int  # seconds since the epoch
    user: str

    def get(self, name: str, default: Any = None) -> Any:
        """An argument, or `default` where it was not given."""
        return self.input.get(name, default)


class Kind(StrEnum):
    """Of a failure, in the words of the public client."""

    BAD_DEFINITION = "TOOL_DEFINITION_BAD_DEFINITION"
    REQUIREMENTS_NOT_MET = "TOOL_REQUIREMENTS_NOT_MET"
    BAD_INPUT = "TOOL_RUNTIME_BAD_INPUT_VALUE"
    BAD_OUTPUT = "TOOL_RUNTIME_BAD_OUTPUT_VALUE"
    RETRY = "TOOL_RUNTIME_RETRY"
    CONTEXT_REQUIRED = "TOOL_RUNTIME_CONTEXT_REQUIRED"
    FATAL = "TOOL_RUNTIME_FATAL"
    BAD_REQUEST = "UPSTREAM_RUNTIME_BAD_REQUEST"
    AUTH_ERROR = "UPSTREAM_RUNTIME_AUTH_ERROR"
    NOT_FOUND = "UPSTREAM_RUNTIME_NOT_FOUND"
    VALIDATION_ERROR = "UPSTREAM_RUNTIME_VALIDATION_ERROR"
    RATE_LIMIT = "UPSTREAM_RUNTIME_RATE_LIMIT"
    SERVER_ERROR = "UPSTREAM_RUNTIME_SERVER_ERROR"
    UNMAPPED = "UPSTREAM_RUNTIME_UNMAPPED"
    TIMEOUT = "NETWORK_TRANSPORT_RUNTIME_TIMEOUT"
    UNREACHABLE = "NETWORK_TRANSPORT_RUNTIME_UNREACHABLE"


class ToolError(Exception):
    """A tool did not do what it was asked.

    Parameters: `message` is for the model (say what to do instead); `developer_message` for who wrote the agent;
    `hint` is further text for the model's next try (choices, corrected names); `retry_after_ms` in milliseconds;
    `status` the upstream's HTTP status. None of them may hold a token or an upstream's raw body.
    """

    def __init__(
        self,
        kind: Kind,
        message: str,
        *,
        developer_message: str | None = None,
        hint: str | None = None,
        can_retry: bool = False,
        retry_after_ms: int | None = None,
        status: int | None = None,
        code: str | None = None,
        connect_url: str | None = None,
        approval: str | None = None,
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.developer_message = developer_message
        self.hint = hint
        self.can_retry = can_retry
        self.retry_after_ms = retry_after_ms
        self.status = status
        self.code = code  # authproxy's own, where it refused
        self.connect_url = connect_url
        self.approval = approval  # the id of the one that the call waits for


def bad_input(message: str, *, hint: str | None = None) -> ToolError:
    """The failure of an argument that is of the right type and makes no sense."""
    return ToolError(Kind.BAD_INPUT, message, hint=hint, can_retry=True)
