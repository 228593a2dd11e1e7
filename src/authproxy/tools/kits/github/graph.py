"""Questions that only GitHub's GraphQL answers: threads of reviews, and projects."""

from __future__ import annotations

from typing import Any

from authproxy.tools.kits.github.faults import graphql_failure
from authproxy.tools.tool import Call, Json, Kind, ToolError


async def query(call: Call, document: str, needed: tuple[str, ...], /, **variables: Any) -> Json:
    """What lies at `needed` in the answer's data, `("repository", "pullRequest")`.

    Raises the failure that GitHub tells where it is not there; `errors` beside it (an element of a list that the user
    may not see) leave the rest as it is.
    """
    body = {"query": document, "variables": {name: v for name, v in variables.items() if v is not None}}
    answer = await call.api.call("POST", "/graphql", json=body)
    found = answer.json.get("data") if isinstance(answer.json, dict) else None
    for key in needed:
        found = found.get(key) if isinstance(found, dict) else None
    if found is not None:
        return found
    if isinstance(answer.json, dict) and answer.json.get("errors"):
        raise graphql_failure(answer)
    raise ToolError(
        Kind.NOT_FOUND,
        f"GitHub knows no such {needed[-1]}, or this user may not see it.",
        status=answer.status,
    )
