"""Projects (the second kind, which GitHub's GraphQL knows): finding them, their fields and items."""

from __future__ import annotations

import re
from typing import Any

from authproxy.tools.kits.github import documents, graph
from authproxy.tools.kits.github.asking import (
    MOST_PAGES,
    SURE,
    account,
    likeness,
    per_page,
    quoted,
    read,
    unknown,
)
from authproxy.tools.kits.github.shaping import cut, lean
from authproxy.tools.tool import Call, Json, Kind, ToolError, bad_input

_SCOPES = {"organization": "Organization", "user": "User"}


# --- finding one ---------------------------------------------------------------------------------------------------


async def by_number(call: Call, owner: str, scope: str, project: int) -> dict[str, Any]:
    """The project of this number that the organization or user has. Raises ToolError where there is none."""
    if project < 1:
        raise bad_input("The number of a project must be 1 or more.")
    login = await _login(call, owner)
    found = await graph.query(call, documents.ONE_PROJECT, ("owner",), login=login, number=project)
    _demand_scope(found, scope)
    if found.get("projectV2") is None:
        raise ToolError(
            Kind.NOT_FOUND,
            f"{login} has no project {project}, or this user may not see it.",
            hint="Github.ListProjects lists them.",
        )
    return dict(found["projectV2"])


async def add_item(call: Call, project: str, content: str) -> str:
    """Adds an issue or pull request, by their node ids; the item's id."""
    item = await graph.query(
        call, documents.ADD_ITEM, ("addProjectV2ItemById", "item"), project=project, content=content
    )
    return str(item["id"])


async def _login(call: Call, owner: str) -> str:
    """The login of a project's owner; `@me` is the user's own."""
    return account((await read(call, "/user"))["login"] if owner.strip() == "@me" else owner)


def _demand_scope(owner: Json, scope: str) -> None:
    wanted = _SCOPES.get(scope)
    if wanted is not None and owner.get("__typename") != wanted:
        raise bad_input(f"{owner.get('login')} is no {scope}.")


async def _project(call: Call, mode: str, identifier: str) -> dict[str, Any]:
    """The project that the arguments mean."""
    owner, scope = call.input["scope_identifier"], call.input["scope_target"]
    if mode == "number":
        return await by_number(call, owner, scope, _number(identifier))
    return _named(
        await _near(call, identifier), identifier, accept=bool(call.get("auto_accept_matches", False))
    )


def _number(identifier: str) -> int:
    text = identifier.strip().removeprefix("#")
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise bad_input("project_identifier must be a number where the search mode is number.")
    return int(text)


async def _near(call: Call, name: str) -> list[dict[str, Any]]:
    """Projects whose titles GitHub finds for a name; where it finds none, the last ones that were changed."""
    found = await _page(call, 100, None, name.strip())
    if not found["nodes"]:
        found = await _page(call, 100, None, None)
    return [project for project in found["nodes"] if project]


def _named(projects: list[dict[str, Any]], name: str, *, accept: bool) -> dict[str, Any]:
    scored = sorted(
        ((likeness(name, one["title"]), one) for one in projects), key=lambda one: (-one[0], one[1]["number"])
    )
    exact = [one for score, one in scored if score == 1.0]
    sure = exact or [one for score, one in scored if accept and score >= SURE]
    if len(sure) == 1:
        return sure[0]
    near = [f"{one['title']} (number {one['number']})" for score, one in scored if score >= 0.4]
    raise unknown(name, near, "single project" if sure else "project")


async def _page(call: Call, first: int, after: str | None, words: str | None) -> Json:
    login = await _login(call, call.input["scope_identifier"])
    owner = await graph.query(
        call, documents.MANY_PROJECTS, ("owner",), login=login, first=first, after=after, words=words
    )
    _demand_scope(owner, call.input["scope_target"])
    if owner.get("projectsV2") is None:
        raise ToolError(Kind.NOT_FOUND, f"No projects of {login} can be seen by this user.")
    return owner["projectsV2"]


# --- the tools -----------------------------------------------------------------------------------------------------


async def list_projects(call: Call) -> Json:
    """The projects of an organization or user; the ones that are meant, where a number or a name is given."""
    mode, identifier = call.input["search_mode"], (call.get("project_identifier") or "").strip()
    state = call.get("state", "open")
    if identifier and mode == "number":
        return {"projects": [_told(await _project(call, mode, identifier))]}
    if identifier:
        return _ranked(
            await _near(call, identifier), identifier, accept=bool(call.get("auto_accept_matches", False))
        )
    page = await _page(
        call, per_page(call), call.get("cursor"), (call.get("query_filter") or "").strip() or None
    )
    wanted = {"open": False, "closed": True}.get(state)
    shown = [one for one in page["nodes"] if one and (wanted is None or one["closed"] is wanted)]
    return {
        "projects": [_told(one) for one in shown],
        "total_count": page["totalCount"],
        # GitHub's list has both: a page may hold fewer than were asked for.
        **lean(left_out=len(page["nodes"]) - len(shown) or None, next_cursor=_cursor(page)),
    }


def _ranked(projects: list[dict[str, Any]], name: str, *, accept: bool) -> Json:
    scored = sorted(((likeness(name, one["title"]), one) for one in projects), key=lambda one: -one[0])
    sure = [one for score, one in scored if score == 1.0 or (accept and score >= SURE)]
    if len(sure) == 1:
        return {"projects": [_told(sure[0])]}
    near = [{**_told(one), "score": round(score, 2)} for score, one in scored if score >= 0.4]
    return {"projects": near[:10], "note": "No single project has that name: these are near it."}


def _told(project: dict[str, Any]) -> dict[str, Any]:
    return lean(
        number=project.get("number"),
        title=project.get("title"),
        id=project.get("id"),
        state="closed" if project.get("closed") else "open",
        public=project.get("public"),
        description=cut(project.get("shortDescription"), 300),
        items=(project.get("items") or {}).get("totalCount"),
        updated_at=project.get("updatedAt"),
        url=project.get("url"),
    )


def _cursor(page: Json) -> str | None:
    return page["pageInfo"]["endCursor"] if page["pageInfo"]["hasNextPage"] else None


async def list_project_fields(call: Call) -> Json:
    """A project's fields, with the choices of those that have some."""
    project = await _chosen(call)
    found = await graph.query(call, documents.FIELDS, ("node", "fields"), id=project["id"])
    return {"project": _briefly(project), "fields": [_field(one) for one in found["nodes"] if one]}


async def _chosen(call: Call) -> dict[str, Any]:
    return await _project(call, call.input["project_search_mode"], call.input["project_identifier"])


def _briefly(project: dict[str, Any]) -> dict[str, Any]:
    return {name: project[name] for name in ("number", "title", "id", "url")}


def _field(field: Json) -> dict[str, Any]:
    iterations = (field.get("configuration") or {}).get("iterations")
    return lean(
        id=field.get("id"),
        name=field.get("name"),
        type=field.get("dataType"),
        options=field.get("options"),
        iterations=iterations,
    )


async def list_project_items(call: Call) -> Json:
    """A project's items, those that fit the filters."""
    words = _words(call)
    first = per_page(call)
    project = await _chosen(call)
    found = await graph.query(
        call,
        documents.FOUND_ITEMS if words else documents.ALL_ITEMS,
        ("node", "items"),
        id=project["id"],
        first=first,
        after=call.get("cursor"),
        words=words or None,
    )
    return {
        "project": _briefly(project),
        "items": [_item(one) for one in found["nodes"] if one],
        "total_count": found["totalCount"],
        **lean(query=words, next_cursor=_cursor(found)),
    }


def _words(call: Call) -> str:
    """The filters in the words of GitHub's project views."""
    if advanced := (call.get("advanced_query") or "").strip():
        return str(advanced)
    words = []
    if who := (call.get("filter_assignee") or "").strip():
        words.append(f"assignee:{'@me' if who.casefold() == '@me' else account(who, 'filter_assignee')}")
    if status := (call.get("filter_status") or "").strip():
        words.append(f"status:{quoted(status)}")
    words += [f"label:{quoted(name)}" for name in call.get("filter_labels") or [] if name.strip()]
    if (is_open := call.get("filter_is_open")) is not None:
        words.append("is:open" if is_open else "is:closed")
    return " ".join(words)


def _item(item: Json) -> dict[str, Any]:
    content = item.get("content") or {}
    return lean(
        id=item.get("id"),
        type=item.get("type"),
        title=content.get("title"),
        number=content.get("number"),
        repository=(content.get("repository") or {}).get("nameWithOwner"),
        state=content.get("issueState") or content.get("pullState"),
        assignees=[one["login"] for one in (content.get("assignees") or {}).get("nodes") or [] if one],
        labels=[one["name"] for one in (content.get("labels") or {}).get("nodes") or [] if one],
        fields=_values(item),
        archived=item.get("isArchived") or None,
        updated_at=item.get("updatedAt"),
        url=content.get("url"),
    )


def _values(item: Json) -> dict[str, Any]:
    """The values of the project's own fields by their names; the title is told already."""
    found = {}
    for value in (item.get("fieldValues") or {}).get("nodes") or []:
        name = ((value or {}).get("field") or {}).get("name")
        if name and name != "Title":
            held = next(
                (value[key] for key in ("text", "number", "date", "name", "title") if key in value), None
            )
            found[name] = cut(held, 300) if isinstance(held, str) else held
    return found


async def search_project_item(call: Call) -> Json:
    """One item of a project, by its id or title; the near ones where no single one is meant."""
    identifier = call.input["item_identifier"].strip()
    if not identifier:
        raise bad_input("item_identifier must not be empty.")
    project = await _chosen(call)
    if call.input["item_search_mode"] == "id":
        return {"found": True, "item": await _by_id(call, project, identifier)}
    titles, complete = await _titles(call, project["id"])
    scored = sorted(((likeness(identifier, title), title, item) for item, title in titles), reverse=True)
    exact = [item for score, _, item in scored if score == 1.0]
    near = [item for score, _, item in scored if call.get("auto_accept_matches", False) and score >= SURE]
    sure = exact or near
    if len(sure) == 1:
        return {"found": True, "item": await _by_id(call, project, sure[0])}
    suggestions = [
        {"id": item, "title": cut(title, 200), "score": round(score, 2)}
        for score, title, item in scored[:5]
        if score >= 0.4
    ]
    return {"found": False, "suggestions": suggestions, **lean(searched=None if complete else len(titles))}


async def _by_id(call: Call, project: dict[str, Any], item: str) -> dict[str, Any]:
    found = await graph.query(call, documents.ITEM, ("node",), id=item)
    if (found.get("project") or {}).get("id") != project["id"]:
        raise ToolError(Kind.NOT_FOUND, "That project has no item with this id.")
    return _item(found)


async def _titles(call: Call, project: str) -> tuple[list[tuple[str, str]], bool]:
    """Ids and titles of a project's items, as far as some pages go, and whether these are all."""
    found: list[tuple[str, str]] = []
    after = None
    for _ in range(MOST_PAGES):
        page = await graph.query(call, documents.TITLES, ("node", "items"), id=project, after=after)
        found += [
            (one["id"], one["content"]["title"])
            for one in page["nodes"]
            if one and (one.get("content") or {}).get("title")
        ]
        after = _cursor(page)
        if after is None:
            return found, True
    return found, False
