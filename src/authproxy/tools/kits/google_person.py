"""The person behind a Google grant, as the People API tells it where its route is configured."""

from __future__ import annotations

from authproxy.tools.tool import Call, Json, ToolError

ROUTE = "google-people"


async def read_person(call: Call) -> dict[str, str]:
    """`name` and `picture` of the user; empty where the route `google-people` is not there, or does not answer.

    A name is a courtesy in an answer that is of use without it: no failure of this one request is a failure of the
    tool.
    """
    try:
        answer = await call.api.call(
            "GET", "/v1/people/me", query={"personFields": "names,photos"}, route=ROUTE
        )
    except ToolError:
        return {}
    found = {
        "name": _first(answer.json, "names", "displayName"),
        "picture": _first(answer.json, "photos", "url"),
    }
    return {name: value for name, value in found.items() if value}


def _first(answer: Json, kind: str, key: str) -> str:
    """Of the entries of one kind the one that is marked as primary, else the first."""
    entries = [one for one in (answer or {}).get(kind) or () if isinstance(one, dict) and one.get(key)]
    entries.sort(key=lambda one: (one.get("metadata") or {}).get("primary") is not True)
    return str(entries[0][key]) if entries else ""
