"""How tools look from outside: the public client's fields, and the schemas that models' APIs take."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from authproxy.control import views
from authproxy.control.tools import Outcome, Requirement
from authproxy.tools.loading import Kit
from authproxy.tools.tool import MISSING, Parameter, Tool, ToolError

FORMATS = ("arcade", "openai", "anthropic")


def definition(tool: Tool, kit: Kit, needs: Requirement, formats: Iterable[str] = ()) -> dict[str, Any]:
    """The fields of arcadepy's ToolDefinition; `formatted_schema` by format where any is asked for."""
    shown: dict[str, Any] = {
        "fully_qualified_name": f"{tool.qualified_name}@{tool.version}",
        "qualified_name": tool.qualified_name,
        "name": tool.name,
        "description": tool.description,
        "toolkit": {"name": kit.name, "version": kit.version, "description": kit.description},
        "input": {"parameters": [_parameter(one) for one in tool.parameters]},
        "output": {"available_modes": ["value", "error"], "value_schema": {"val_type": "json"}},
        "requirements": requirements(needs, tool),
        "annotations": {
            "read_only": tool.marks.read_only,
            "destructive": tool.marks.destructive,
            "idempotent": tool.marks.idempotent,
        },
    }
    wanted = list(formats)
    if wanted:
        # in the arcade format a tool is what it is here, without this
        plain = dict(shown)
        shown["formatted_schema"] = {
            name: plain if name == "arcade" else formatted(tool, name) for name in wanted
        }
    return shown


def requirements(needs: Requirement, tool: Tool) -> dict[str, Any]:
    """What a tool needs of the user; no secret is ever needed of the caller. `scopes` are what the provider is asked
    for, `toolkit_scopes` what the toolkit's documentation calls it."""
    return {
        "met": needs.met,
        "authorization": {
            "id": needs.provider,
            "provider_id": needs.provider,
            "provider_type": "oauth2",
            "oauth2": {"scopes": list(needs.scopes), "toolkit_scopes": list(tool.scopes)},
            "status": "active" if needs.ready else "inactive",
            "status_reason": None if needs.ready else "the provider is not configured",
            "token_status": needs.token_status,
            "reason": needs.reason,
        },
        "secrets": [],
    }


def formatted(tool: Tool, name: str) -> dict[str, Any]:
    """The tool as a model's API takes it: `openai` or `anthropic`."""
    called = tool.qualified_name.replace(".", "_")
    match name:
        case "openai":
            function = {"name": called, "description": tool.description, "parameters": input_schema(tool)}
            return {"type": "function", "function": function}
        case "anthropic":
            return {"name": called, "description": tool.description, "input_schema": input_schema(tool)}
        case _:
            raise ValueError(f"{name} is no format of a model's API")


def input_schema(tool: Tool) -> dict[str, Any]:
    """The tool's parameters as JSON Schema."""
    schema: dict[str, Any] = {
        "type": "object",
        "properties": {one.name: _schema(one) for one in tool.parameters},
        "additionalProperties": False,
    }
    required = [one.name for one in tool.parameters if one.required]
    return schema | ({"required": required} if required else {})


def execution(outcome: Outcome) -> dict[str, Any]:
    """The fields of arcadepy's ExecuteToolResponse. There is no token in it, whatever happens."""
    authorization, failure = outcome.authorization, outcome.error
    waits = failure is not None and failure.code == "approval_required"
    return {
        "id": outcome.id,
        "execution_id": outcome.id,
        "execution_type": "immediate",
        "status": "success" if outcome.success else "waiting" if waits else "failed",
        "success": outcome.success,
        "duration": round(outcome.seconds * 1000, 1),
        "run_at": _instant(outcome.started),
        "finished_at": _instant(outcome.finished),
        "output": {
            "value": outcome.value,
            "error": None if failure is None else error(failure),
            "authorization": None if authorization is None else views.authorization(authorization),
            "logs": [],
        },
    }


def consent_needed(said: Mapping[str, Any]) -> dict[str, Any]:
    """An execution that lacks its user's consent, as the original tells it: an error with these words in it."""
    failure = said["output"]["error"]
    return {
        "name": "tool_authorization_required",
        "message": f"authorization required: {failure['message']}",
        **failure["extra"],
        **said,
    }


def error(one: ToolError) -> dict[str, Any]:
    """The fields of arcadepy's OutputError. `extra` has authproxy's own code, the link for the user, and the approval
    that the call waits for."""
    extra = {"code": one.code, "connect_url": one.connect_url, "approval": one.approval}
    if one.approval is not None:
        extra["status_url"] = f"/v1/approvals/{one.approval}"
    return {
        "kind": str(one.kind),
        "message": one.message,
        "can_retry": one.can_retry,
        "retry_after_ms": one.retry_after_ms,
        "additional_prompt_content": one.hint,
        "developer_message": one.developer_message,
        "status_code": one.status,
        "stacktrace": None,
        "extra": {name: value for name, value in extra.items() if value is not None},
    }


def page(items: Sequence[Mapping[str, Any]], *, offset: int, limit: int, total: int) -> dict[str, Any]:
    """One page of a list, as the public client reads it."""
    return {
        "items": list(items),
        "offset": offset,
        "limit": limit,
        "page_count": len(items),
        "total_count": total,
    }


def _parameter(one: Parameter) -> dict[str, Any]:
    value_schema: dict[str, Any] = {"val_type": one.type}
    if one.items is not None:
        value_schema["inner_val_type"] = one.items
    if one.enum:
        value_schema["enum"] = list(one.enum)
    return {
        "name": one.name,
        "description": one.description,
        "required": one.required,
        "inferrable": one.inferrable,
        "value_schema": value_schema,
    }


def _schema(one: Parameter) -> dict[str, Any]:
    if one.type == "array":
        items = _type(one.items or "json")
        schema: dict[str, Any] = {
            "type": "array",
            "items": items | ({"enum": list(one.enum)} if one.enum else {}),
        }
    else:
        schema = _type(one.type) | ({"enum": list(one.enum)} if one.enum else {})
    schema["description"] = one.description
    if one.default is not MISSING:
        schema["default"] = one.default
    return schema


def _type(kind: str) -> dict[str, Any]:
    return {"type": "object" if kind == "json" else kind}


def _instant(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
