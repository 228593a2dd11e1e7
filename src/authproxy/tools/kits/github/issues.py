"""Issues, their comments and labels."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from authproxy.tools.kits.github import projects, shaping
from authproxy.tools.kits.github.asking import (
    account,
    ask,
    moment,
    nearest,
    next_page,
    number,
    paging,
    quoted,
    read,
    read_pages,
    repository,
    settle,
    unless_refused,
)
from authproxy.tools.kits.github.shaping import lean
from authproxy.tools.tool import Call, Input, Json, ToolError, bad_input

MOST_LABELS = 30  # in one call


def shape_issue(json: Json, _input: Input) -> Json:
    """GetIssue's answer."""
    return shaping.issue(json)


def shape_comment(json: Json, _input: Input) -> Json:
    """CreateIssueComment's answer: the caller knows the text."""
    return lean(id=json.get("id"), author=shaping.login(json.get("user")), url=json.get("html_url"))


async def list_issues(call: Call) -> Json:
    """A repository's issues, or those of all repositories of its owner."""
    state, pages = call.get("state", "open"), paging(call)
    sort, direction = call.get("sort", "created"), call.get("direction", "desc")
    labels = [name.strip() for name in (call.get("labels") or "").split(",") if name.strip()]
    since = moment(call.input["since"], call.now) if call.get("since") else None
    if call.get("search_org_wide", False):
        words = [f"label:{quoted(name)}" for name in labels]
        words += [f"updated:>={since}"] if since else []
        return await search(
            call, "issue", state, words, {"sort": sort, "order": direction, **pages}, "issues"
        )
    query = {
        "state": state,
        "labels": ",".join(labels) or None,
        "sort": sort,
        "direction": direction,
        "since": since,
        **pages,
    }
    answer = await ask(call, "GET", f"{repository(call)}/issues", query=query)
    issues = [item for item in answer.json if not item.get("pull_request")]
    return {
        "issues": [shaping.issue_line(item) for item in issues],
        "page": pages["page"],
        # GitHub lists pull requests as issues, too: a page of issues alone may be shorter than was asked for.
        **lean(
            pull_requests_left_out=len(answer.json) - len(issues) or None,
            next_page=next_page(answer),
        ),
    }


async def search(
    call: Call, what: str, state: str, words: list[str], query: dict[str, Any], name: str
) -> Json:
    """The issues or pull requests (`what`: issue or pr) of all repositories of `owner`."""
    terms = [f"org:{account(call.input['owner'])}", f"is:{what}", *words]
    if state != "all":
        terms.append(f"is:{state}")
    answer = await ask(call, "GET", "/search/issues", query={"q": " ".join(terms), **query})
    line = shaping.issue_line if what == "issue" else shaping.pull_line
    return {
        name: [line(item, repository=True) for item in answer.json["items"]],
        "total_count": answer.json.get("total_count"),
        "page": query["page"],
        **lean(incomplete=answer.json.get("incomplete_results") or None, next_page=next_page(answer)),
    }


async def create_issue(call: Call) -> Json:
    """A new issue; the project that it shall be added to is looked up before there is one."""
    target = repository(call)
    body = {
        name: call.get(name)
        for name in ("title", "body", "assignees", "milestone", "labels")
        if call.get(name) is not None
    }
    if not body["title"].strip():
        raise bad_input("title must not be empty.")
    project = await _project(call)
    created = (await ask(call, "POST", f"{target}/issues", json=body)).json
    answer = {**_written(created), **_ignored(call, created)}
    if project is not None:
        answer["project"] = await _add_to_project(call, project, created)
    return answer


async def _project(call: Call) -> dict[str, Any] | None:
    if call.get("add_to_project_number") is None:
        return None
    owner = call.get("add_to_project_owner") or call.input["owner"]
    return await projects.by_number(
        call, owner, call.get("add_to_project_scope", "all"), int(call.input["add_to_project_number"])
    )


async def _add_to_project(call: Call, project: dict[str, Any], created: Json) -> dict[str, Any]:
    """The issue is there by now: a failure is told beside it, so that nobody makes it a second time."""
    told = lean(number=project.get("number"), title=project.get("title"))
    try:
        item = await projects.add_item(call, project["id"], created["node_id"])
    except ToolError as error:
        return {**told, "added": False, "reason": error.message}
    return {**told, "added": True, "item_id": item}


def _written(item: Json) -> dict[str, Any]:
    return lean(
        number=item.get("number"),
        title=item.get("title"),
        state=item.get("state"),
        state_reason=item.get("state_reason"),
        labels=shaping.label_names(item.get("labels")),
        assignees=shaping.logins(item.get("assignees")),
        milestone=shaping.milestone(item.get("milestone")),
        url=item.get("html_url"),
    )


def _ignored(call: Call, item: Json) -> dict[str, Any]:
    """What GitHub leaves out in silence: it takes labels and assignees from those only who may push."""

    def missing(asked: list[str] | None, got: list[str]) -> list[str]:
        there = {name.casefold() for name in got}
        return [name for name in asked or [] if name.casefold() not in there]

    return lean(
        ignored_labels=missing(call.get("labels"), shaping.label_names(item.get("labels"))),
        ignored_assignees=missing(call.get("assignees"), shaping.logins(item.get("assignees"))),
    )


async def update_issue(call: Call) -> Json:
    """Changes what is given and leaves the rest; labels and assignees replace those that are there."""
    path = f"{repository(call)}/issues/{number(call, 'issue_number')}"
    body = {
        name: call.get(name)
        for name in ("title", "body", "state", "labels", "assignees")
        if call.get(name) is not None
    }
    if call.get("milestone") is not None:
        body["milestone"] = int(call.input["milestone"]) or None  # 0 takes the issue out of its milestone
    if not body:
        raise bad_input(
            "Nothing is to be changed: give at least one of title, body, state, labels and so on."
        )
    if body.get("state") == "all":
        raise bad_input("state must be open or closed: `all` is for lists.")
    changed = (await ask(call, "PATCH", path, json=body)).json
    return {**_written(changed), **_ignored(call, changed), "changed": sorted(body)}


# --- labels --------------------------------------------------------------------------------------------------------


async def list_repository_labels(call: Call) -> Json:
    """The labels that a repository has."""
    pages = paging(call, default=100)
    answer = await ask(call, "GET", f"{repository(call)}/labels", query=pages)
    found = [
        lean(name=item.get("name"), color=item.get("color"), description=item.get("description"))
        for item in answer.json
    ]
    return {"labels": found, "page": pages["page"], **lean(next_page=next_page(answer))}


async def manage_labels(call: Call) -> Json:
    """Adds and takes away labels of one issue or pull request. All names are settled before anything changes."""
    target, item_number = repository(call), number(call, "number")
    adding, removing = _names(call, "add_labels"), _names(call, "remove_labels")
    if not adding and not removing:
        raise bad_input("Give add_labels, remove_labels or both.")
    path = f"{target}/issues/{item_number}"
    if call.input["entity_type"] == "pull_request":
        item = await read(call, f"{target}/pulls/{item_number}")
    else:
        item = await read(call, path)
        if item.get("pull_request"):
            raise bad_input(f"Number {item_number} is a pull request, not an issue.")
    accept = bool(call.get("auto_accept_matches", False))
    current = shaping.label_names(item.get("labels"))
    removed, absent = _to_remove(removing, current, accept=accept)
    added: list[str] = []
    if adding:
        known = [label["name"] for label in await read_pages(call, f"{target}/labels")]
        added = [settle(name, known, "label", accept=accept) for name in adding]
    if both := {name.casefold() for name in added} & {name.casefold() for name in removed}:
        raise bad_input(f"The label {min(both)!r} is to be added and taken away.")
    if added:
        await ask(call, "POST", f"{path}/labels", json={"labels": added})
    gone = {name.casefold() for name in removed}
    for name in list(removed):
        if not await _remove(call, path, name):
            removed.remove(name)
            absent.append(name)
    left = [name for name in dict.fromkeys([*current, *added]) if name.casefold() not in gone]
    return {
        "number": item_number,
        "labels": left,
        **lean(added=added, removed=removed, were_not_there=absent, url=item.get("html_url")),
    }


def _names(call: Call, key: str) -> list[str]:
    names = list(dict.fromkeys(name.strip() for name in call.get(key) or [] if name.strip()))
    if len(names) > MOST_LABELS:
        raise bad_input(f"{key} may hold at most {MOST_LABELS} labels.")
    return names


def _to_remove(names: list[str], current: list[str], *, accept: bool) -> tuple[list[str], list[str]]:
    """The labels to take away as they are written there, and those that are not there (nothing is left to do)."""
    removed: list[str] = []
    absent: list[str] = []
    for name in names:
        if nearest(name, current):
            removed.append(settle(name, current, "label on it", accept=accept))
        else:
            absent.append(name)
    return removed, absent


async def _remove(call: Call, path: str, name: str) -> bool:
    """Whether it was there: somebody else may have taken it away meanwhile."""

    async def remove() -> Json:
        return await ask(call, "DELETE", f"{path}/labels/{quote(name, safe='')}")

    answer, _ = await unless_refused(remove, 404)
    return answer is not None
