"""Reviews of pull requests: reviewers, assignees, comments on lines, threads."""

from __future__ import annotations

from typing import Any

from authproxy.tools.kits.github import documents, graph, shaping
from authproxy.tools.kits.github.asking import (
    account,
    ask,
    file_path,
    is_login,
    likeness,
    moment,
    next_page,
    number,
    owner_and_name,
    paging,
    read,
    read_pages,
    repository,
    settle,
    unknown,
    unless_refused,
)
from authproxy.tools.kits.github.pulls import requested
from authproxy.tools.kits.github.shaping import lean
from authproxy.tools.tool import Call, Json, Kind, ToolError, bad_input

_MOST_THREAD_PAGES = 10


# --- who ---------------------------------------------------------------------------------------------------------


async def assign_pull_request_user(call: Call) -> Json:
    """Assigns one user, found by login, id, e-mail or name, beside those who are assigned."""
    path, item = repository(call), number(call, "pull_request_number")
    who = call.input["assignee_identifier"].strip()
    if not who:
        raise bad_input("assignee_identifier must not be empty.")
    login = await _FINDERS[call.input["search_mode"]](call, who)
    answer = await ask(call, "POST", f"{path}/issues/{item}/assignees", json={"assignees": [login]})
    assignees = shaping.logins(answer.json.get("assignees"))
    # GitHub says 201 to a user who cannot be assigned, and leaves them out.
    if login.casefold() not in {name.casefold() for name in assignees}:
        raise ToolError(
            Kind.RETRY,
            f"{login} cannot be assigned in this repository.",
            hint="Github.ListRepositoryCollaborators lists who has access.",
            can_retry=True,
        )
    return {
        "number": item,
        "assigned": login,
        "assignees": assignees,
        **lean(url=answer.json.get("html_url")),
    }


async def _by_username(call: Call, who: str) -> str:
    login, path = who.removeprefix("@"), f"{repository(call)}/assignees"

    async def known() -> Any:
        return await ask(call, "GET", f"{path}/{account(login, 'assignee_identifier')}")

    async def assignable() -> list[Any]:
        return await read_pages(call, path, pages=5)

    if is_login(login) and (await unless_refused(known, 404))[0]:
        return login
    listed, _ = await unless_refused(assignable, 403, 404)
    if not listed:
        return account(login, "assignee_identifier")
    accept = bool(call.get("auto_accept_matches", False))
    return settle(login, shaping.logins(listed), "assignable user", accept=accept)


async def _by_id(call: Call, who: str) -> str:
    if not who.isascii() or not who.isdecimal():
        raise bad_input("assignee_identifier must be a number where search_mode is id.")
    return str((await read(call, f"/user/{int(who)}"))["login"])


async def _by_email(call: Call, who: str) -> str:
    if "@" not in who or any(letter.isspace() or letter in '":' for letter in who):
        raise bad_input("assignee_identifier must be an e-mail address where search_mode is email.")
    found = await read(call, "/search/users", q=f"{who} in:email type:user", per_page=5)
    names = shaping.logins(found["items"])
    if len(names) != 1:
        raise ToolError(
            Kind.RETRY,
            f"{len(names) or 'No'} GitHub users show this e-mail address.",
            hint=f"Use search_mode username. Found: {', '.join(names)}." if names else _HIDDEN_EMAIL,
            can_retry=True,
        )
    return names[0]


_HIDDEN_EMAIL = "Most users hide their address: use search_mode username or name."


async def _by_name(call: Call, who: str) -> str:
    owner, name = owner_and_name(call)
    found = await graph.query(
        call, documents.ASSIGNABLE, ("repository", "assignableUsers"), owner=owner, name=name, words=who
    )
    people = [(one["login"], one.get("name") or one["login"]) for one in found["nodes"] if one]
    near = sorted(((likeness(who, shown), login) for login, shown in people), reverse=True)
    sure = 0.9 if call.get("auto_accept_matches", False) else 1.0
    meant = [login for score, login in near if score >= sure]
    if len(meant) == 1:
        return str(meant[0])
    shown = {login: f"{label} ({login})" for login, label in people}
    raise unknown(who, [shown[login] for _, login in near], "assignable user" if not meant else "single user")


_FINDERS = {"username": _by_username, "id": _by_id, "email": _by_email, "name": _by_name}


async def manage_pull_request_reviewers(call: Call) -> Json:
    """Asks for reviews, and takes requests back."""
    path = f"{repository(call)}/pulls/{number(call, 'pull_request_number')}/requested_reviewers"
    adding = lean(reviewers=call.get("add_reviewers"), team_reviewers=call.get("add_team_reviewers"))
    removing = lean(reviewers=call.get("remove_reviewers"), team_reviewers=call.get("remove_team_reviewers"))
    if not adding and not removing:
        raise bad_input("Give reviewers or team_reviewers to add or to remove.")
    item: Json = {}
    if adding:
        item = (await ask(call, "POST", path, json=adding)).json
    note: dict[str, Any] = {}
    if removing:
        try:
            # GitHub's own schema wants `reviewers` even where only teams are removed.
            answer = await ask(call, "DELETE", path, json={"reviewers": [], **removing})
            item = answer.json or item
        except ToolError as error:
            if not adding:
                raise
            note = {"not_removed": removing, "reason": error.message}
    return {"number": call.input["pull_request_number"], **requested(item), **note}


async def submit_pull_request_review(call: Call) -> Json:
    """Approves, asks for changes, or comments."""
    path = f"{repository(call)}/pulls/{number(call, 'pull_request_number')}/reviews"
    event, text = call.input["event"], (call.get("body") or "").strip()
    if event != "APPROVE" and not text:
        raise bad_input(f"body is needed with {event}.")
    body = lean(event=event, body=text)
    made = (await ask(call, "POST", path, json=body)).json
    return lean(
        id=made.get("id"),
        state=made.get("state"),
        author=shaping.login(made.get("user")),
        submitted_at=made.get("submitted_at"),
        url=made.get("html_url"),
    )


# --- comments ------------------------------------------------------------------------------------------------------


async def create_review_comment(call: Call) -> Json:
    """A comment on a file of a pull request, or on lines of it that are part of the diff."""
    path = f"{repository(call)}/pulls/{number(call, 'pull_number')}"
    file_path(call.input["path"])
    body: dict[str, Any] = {"body": call.input["body"], "path": call.input["path"].strip("/"), **_place(call)}
    sha = call.get("commit_id") or (await read(call, path))["head"]["sha"]
    try:
        made = (await ask(call, "POST", f"{path}/comments", json={**body, "commit_id": sha})).json
    except ToolError as error:
        if error.status != 422 or body["subject_type"] == "file":
            raise
        raise ToolError(
            Kind.VALIDATION_ERROR,
            error.message,
            hint="Only lines of the diff can be commented on. Use subject_type file for the file as a whole.",
            can_retry=True,
            status=422,
        ) from error
    return shaping.review_comment(made)


def _place(call: Call) -> dict[str, Any]:
    start, end = call.get("start_line"), call.get("end_line")
    lines = start is not None or end is not None
    if call.get("subject_type", "line" if lines else "file") == "file":
        return {"subject_type": "file"}
    if not lines:
        raise bad_input("start_line and end_line are needed where subject_type is line.")
    first, last = int(start if start is not None else end), int(end if end is not None else start)
    if first < 1 or last < first:
        raise bad_input("start_line must be 1 or more, and end_line not before it.")
    side = call.get("side", "RIGHT")
    place: dict[str, Any] = {"subject_type": "line", "line": last, "side": side}
    if first < last:
        start_side = str(call.get("start_side") or side).upper()
        if start_side not in {"LEFT", "RIGHT"}:
            raise bad_input("start_side must be LEFT or RIGHT.")
        place |= {"start_line": first, "start_side": start_side}
    return place


async def create_reply_for_review_comment(call: Call) -> Json:
    """A reply to a comment on lines; its thread can be resolved with it."""
    path = f"{repository(call)}/pulls/{number(call, 'pull_number')}"
    comment = number(call, "comment_id")
    thread = None
    if call.get("resolve_thread", False):
        # Before the reply: where there is no such thread, nothing is said.
        thread = await _thread(call, call.get("thread_id") or await _thread_of(call, path, comment))
    made = await _reply(call, path, comment)
    answer = shaping.review_comment(made)
    if thread is not None:
        try:
            answer["thread"] = await _set_resolved(call, thread, resolved=True)
        except ToolError as error:
            answer["thread"] = {"thread_id": thread["id"], "resolved": False, "reason": error.message}
    return answer


async def _reply(call: Call, path: str, comment: int) -> Json:
    body = {"body": call.input["body"]}
    try:
        return (await ask(call, "POST", f"{path}/comments/{comment}/replies", json=body)).json
    except ToolError as error:
        # GitHub takes replies to the first comment of a thread only.
        root = await _root(call, path, comment) if error.status in (404, 422) else comment
        if root == comment:
            raise
    return (await ask(call, "POST", f"{path}/comments/{root}/replies", json=body)).json


async def _root(call: Call, path: str, comment: int) -> int:
    """The first comment of the thread that a comment is part of."""

    async def found() -> Json:
        return await read(call, f"{path.rpartition('/')[0]}/comments/{comment}")

    item, _ = await unless_refused(found, 404)
    return int((item or {}).get("in_reply_to_id") or comment)


async def _thread_of(call: Call, path: str, comment: int) -> str:
    thread = (await _threads(call)).get(await _root(call, path, comment))
    if thread is None:
        raise bad_input("No thread of this pull request has that comment.")
    return str(thread["id"])


async def list_review_comments_in_a_repository(call: Call) -> Json:
    """Comments on lines, of all pull requests of a repository."""
    query = _ordered(call)
    answer = await ask(call, "GET", f"{repository(call)}/pulls/comments", query=query)
    found = shaping.review_comments(answer.json)
    return {"comments": found, "page": query["page"], **lean(next_page=next_page(answer))}


async def list_review_comments_on_pull_request(call: Call) -> Json:
    """Comments on lines of one pull request, with the thread that each is part of."""
    query, resolved = _ordered(call), call.get("show_resolved")
    path = f"{repository(call)}/pulls/{number(call, 'pull_number')}/comments"
    answer = await ask(call, "GET", path, query=query)
    threads: dict[int, Json] = {}
    note = None
    if answer.json:
        try:
            threads = await _threads(call)
        except ToolError as error:
            # A policy may deny GraphQL, which has no paths to rule on: the comments are there all the same.
            if resolved is not None:
                raise
            note = f"Threads cannot be read: {error.message}"
    found = []
    for item, told in zip(answer.json, shaping.review_comments(answer.json), strict=True):
        thread = threads.get(item.get("in_reply_to_id") or item.get("id"))
        if resolved is None or (thread is not None and thread["isResolved"] is resolved):
            of = {"thread_id": thread["id"], "resolved": thread["isResolved"]} if thread else {}
            found.append({**told, **of})
    return {"comments": found, "page": query["page"], **lean(next_page=next_page(answer), note=note)}


def _ordered(call: Call) -> dict[str, Any]:
    since = call.get("since")
    return {
        "sort": call.get("sort", "created"),
        "direction": call.get("direction", "desc"),
        "since": moment(since, call.now) if since else None,
        **paging(call),
    }


# --- threads -------------------------------------------------------------------------------------------------------


async def _threads(call: Call) -> dict[int, Json]:
    """The threads of a pull request, by the id of their first comment."""
    owner, name = owner_and_name(call)
    found: dict[int, Json] = {}
    after = None
    for _ in range(_MOST_THREAD_PAGES):
        page = await graph.query(
            call,
            documents.THREADS,
            ("repository", "pullRequest", "reviewThreads"),
            owner=owner,
            name=name,
            number=call.input["pull_number"],
            after=after,
        )
        for thread in page["nodes"]:
            first = next(iter(thread["comments"]["nodes"]), None)
            if first is not None:
                found[int(first["fullDatabaseId"])] = thread
        if not page["pageInfo"]["hasNextPage"]:
            break
        after = page["pageInfo"]["endCursor"]
    return found


async def resolve_review_thread(call: Call) -> Json:
    """Resolves a thread, or opens it again."""
    thread = await _thread(call, call.input["thread_id"])
    return await _set_resolved(call, thread, resolved=bool(call.get("resolved", True)))


async def _thread(call: Call, thread_id: str) -> Json:
    """The thread, which must be of the repository that was named: its id alone could be of any."""
    owner, name = owner_and_name(call)
    found = await graph.query(call, documents.THREAD, ("node",), id=thread_id.strip())
    home = ((found.get("repository") or {}).get("nameWithOwner") or "").casefold()
    if home != f"{owner}/{name}".casefold():
        raise bad_input(f"thread_id is of no review thread in {owner}/{name}.")
    return found


async def _set_resolved(call: Call, thread: Json, *, resolved: bool) -> dict[str, Any]:
    now = thread["isResolved"]
    if now is not resolved:
        field = "resolveReviewThread" if resolved else "unresolveReviewThread"
        document = documents.RESOLVE if resolved else documents.REOPEN
        now = (await graph.query(call, document, (field, "thread"), id=thread["id"]))["isResolved"]
    return {
        "thread_id": thread["id"],
        "resolved": now,
        **lean(
            pull_number=(thread.get("pullRequest") or {}).get("number"),
            path=thread.get("path"),
            line=thread.get("line"),
        ),
    }
