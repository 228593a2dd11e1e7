"""Pull requests: listing, reading, opening, changing, merging."""

from __future__ import annotations

from collections import Counter
from typing import Any

from authproxy.tools.kits.github import shaping
from authproxy.tools.kits.github.asking import (
    ask,
    branch_name,
    encoded,
    next_page,
    number,
    owner_and_name,
    paging,
    quoted,
    read,
    read_pages,
    repository,
    unless_refused,
)
from authproxy.tools.kits.github.issues import search
from authproxy.tools.kits.github.shaping import lean
from authproxy.tools.tool import Call, Json, Kind, ToolError, bad_input

DIFF = 30_000  # characters of all files of a pull request
DIFF_OF_FILE = 6_000
_GOOD = {"success", "neutral", "skipped"}
_SEARCH_SORTS = {"popularity": "comments", "long-running": "created"}


async def list_pull_requests(call: Call) -> Json:
    """A repository's pull requests, or those of all repositories of its owner."""
    state, pages = call.get("state", "open"), paging(call)
    sort, direction = call.get("sort", "created"), call.get("direction", "desc")
    head, base = (call.get("head") or "").strip(), (call.get("base") or "").strip()
    if call.get("search_org_wide", False):
        words = [f"head:{quoted(head.rpartition(':')[2])}"] if head else []
        words += [f"base:{quoted(base)}"] if base else []
        order = {"sort": _SEARCH_SORTS.get(sort, sort), "order": direction, **pages}
        return await search(call, "pr", state, words, order, "pull_requests")
    owner, _ = owner_and_name(call)
    if head and ":" not in head:
        head = f"{owner}:{head}"  # GitHub gives ALL pull requests for a head without its owner
    query = {
        "state": state,
        "head": head or None,
        "base": base or None,
        "sort": sort,
        "direction": direction,
        **pages,
    }
    answer = await ask(call, "GET", f"{repository(call)}/pulls", query=query)
    return {
        "pull_requests": [shaping.pull_line(item) for item in answer.json],
        "page": pages["page"],
        **lean(next_page=next_page(answer)),
    }


async def get_pull_request(call: Call) -> Json:
    """One pull request, and its changes where they are asked for."""
    path = _path(call, "pull_number")
    found = shaping.pull(await read(call, path))
    if call.get("include_diff_content", False):
        found.update(await _changes(call, path))
    return found


async def _changes(call: Call, path: str) -> dict[str, Any]:
    """The changed files with their diffs, as many as a model can use. GitHub cuts long ones itself (no `patch`)."""
    answer = await ask(call, "GET", f"{path}/files", query={"per_page": 100})
    left, files = DIFF, []
    for item in answer.json:
        patch = shaping.cut(item.get("patch"), min(DIFF_OF_FILE, left)) if left > 0 else None
        left -= len(patch or "")
        files.append(
            lean(
                path=item.get("filename"),
                previous_path=item.get("previous_filename"),
                status=item.get("status"),
                additions=item.get("additions"),
                deletions=item.get("deletions"),
                diff=patch,
                diff_left_out=True if patch is None and item.get("changes") else None,
            )
        )
    return {"files": files, **lean(more_files=True if next_page(answer) else None)}


async def list_pull_request_commits(call: Call) -> Json:
    """The commits of a pull request, the oldest first."""
    pages = paging(call)
    answer = await ask(call, "GET", f"{_path(call, 'pull_number')}/commits", query=pages)
    found = [shaping.commit_line(item) for item in answer.json]
    return {"commits": found, "page": pages["page"], **lean(next_page=next_page(answer))}


async def create_pull_request(call: Call) -> Json:
    """Opens a pull request, and asks for reviews where reviewers are named."""
    path = f"{repository(call)}/pulls"
    body = {name: call.get(name) for name in ("title", "head", "base") if call.get(name)}
    if len(body) < 3:
        raise bad_input("title, head and base must not be empty.")
    text = call.get("body") or ""
    if call.get("issue") is not None:
        text = f"Closes #{number(call, 'issue')}\n\n{text}".strip()
    body |= {
        "body": text,
        "draft": bool(call.get("draft", False)),
        "maintainer_can_modify": bool(call.get("maintainer_can_modify", True)),
    }
    created = (await ask(call, "POST", path, json=body)).json
    return {**_written(created), **await _ask_for_reviews(call, f"{path}/{created['number']}")}


async def _ask_for_reviews(call: Call, path: str) -> dict[str, Any]:
    """The pull request is there by now: a failure is told beside it, so that nobody opens it a second time."""
    asked = lean(reviewers=call.get("reviewers"), team_reviewers=call.get("team_reviewers"))
    if not asked:
        return {}
    try:
        answer = await ask(call, "POST", f"{path}/requested_reviewers", json=asked)
    except ToolError as error:
        return {"reviewers_requested": False, "reason": error.message}
    return {"reviewers_requested": True, **requested(answer.json)}


def requested(item: Json) -> dict[str, Any]:
    """Who was asked to review a pull request and has not yet."""
    return {
        "reviewers": shaping.logins(item.get("requested_reviewers")),
        "team_reviewers": [team["slug"] for team in item.get("requested_teams") or [] if team.get("slug")],
    }


def _written(item: Json) -> dict[str, Any]:
    line = shaping.pull_line(item)
    return {
        name: line[name]
        for name in ("number", "title", "state", "draft", "head", "base", "url")
        if name in line
    }


async def update_pull_request(call: Call) -> Json:
    """Changes what is given and leaves the rest."""
    path = _path(call, "pull_number")
    body = {name: call.get(name) for name in ("title", "body", "state") if call.get(name) is not None}
    if call.get("base"):
        body["base"] = branch_name(call.input["base"], "base")
    if not body:
        raise bad_input("Nothing is to be changed: give at least one of title, body, state and base.")
    if body.get("state") == "all":
        raise bad_input("state must be open or closed: `all` is for lists.")
    if call.get("append_body", False) and "body" in body:
        before = ((await read(call, path)).get("body") or "").rstrip()
        body["body"] = f"{before}\n\n{body['body']}" if before else body["body"]
    changed = (await ask(call, "PATCH", path, json=body)).json
    return {**_written(changed), "changed": sorted(body)}


# --- merging -------------------------------------------------------------------------------------------------------


async def merge_pull_request(call: Call) -> Json:
    """Merges; a pull request that is merged already is a success, too."""
    path = _path(call, "pull_request_number")
    body = {
        name: call.get(name)
        for name in ("merge_method", "commit_title", "commit_message", "sha")
        if call.get(name)
    }
    delete = bool(call.get("delete_branch", False))
    # Read before the merge: the branch may be gone after it.
    before = await read(call, path) if delete else None
    try:
        done = (await ask(call, "PUT", f"{path}/merge", json=body)).json
        found = lean(merged=done.get("merged"), sha=done.get("sha"))
    except ToolError as error:
        if error.status not in (405, 422):
            raise _merge_failure(error) from error
        before = await read(call, path)
        if not before.get("merged"):
            raise _merge_failure(error) from error
        found = lean(
            merged=True,
            already_merged=True,
            sha=before.get("merge_commit_sha"),
            head_sha=(before.get("head") or {}).get("sha"),
        )
    if delete and before is not None:
        found["branch"] = await _delete_branch(call, before)
    return {"number": call.input["pull_request_number"], **found}


def _merge_failure(error: ToolError) -> ToolError:
    if error.status == 409:
        return ToolError(
            Kind.RETRY,
            "The pull request's branch has changed since that sha. Nothing was merged.",
            hint="Read the pull request again, look at what is new, and merge with its head_sha.",
            can_retry=True,
            status=409,
        )
    if error.status == 405:
        return ToolError(
            Kind.VALIDATION_ERROR,
            f"GitHub does not merge this pull request: {error.message}",
            hint="Github.CheckPullRequestMergeStatus says what is in the way.",
            status=405,
        )
    return error


async def _delete_branch(call: Call, pull: Json) -> dict[str, Any]:
    """The head branch, deleted; the merge stands whatever becomes of it."""
    head = pull.get("head") or {}
    name, home = head.get("ref") or "", head.get("repo") or {}
    told = {"name": name, "deleted": False}
    if not home.get("full_name"):
        return {**told, "reason": "Its repository is gone."}
    if name == home.get("default_branch"):
        return {**told, "reason": "It is the default branch of its repository."}

    async def delete() -> Any:
        return await ask(call, "DELETE", f"/repos/{home['full_name']}/git/refs/heads/{encoded(name)}")

    try:
        await delete()
    except ToolError as error:
        if error.status in (404, 422):
            return {**told, "deleted": True, "reason": "It was gone already."}
        return {**told, "reason": error.message}
    return {**told, "deleted": True}


async def check_pull_request_merge_status(call: Call) -> Json:
    """Whether a pull request can be merged, and what is in the way."""
    path, details = _path(call, "pull_request_number"), bool(call.get("include_check_details", False))
    pull = await read(call, path)
    sha = pull["head"]["sha"]
    of_commit = f"{repository(call)}/commits/{sha}"

    async def check_runs() -> Json:
        return await read(call, f"{of_commit}/check-runs", per_page=100)

    async def statuses() -> Json:
        return await read(call, f"{of_commit}/status", per_page=100)

    runs, runs_refused = await unless_refused(check_runs, 403, 404)
    status, status_refused = await unless_refused(statuses, 403, 404, 422)
    checks = _checks((runs or {}).get("check_runs") or [], (status or {}).get("statuses") or [])
    reviews = _reviews(await read_pages(call, f"{path}/reviews"))
    reasons = _in_the_way(pull, checks, reviews, seen=not runs_refused)
    summary = dict(Counter(check["state"] for check in checks))
    return {
        "number": pull["number"],
        "state": "merged" if pull.get("merged") else pull.get("state"),
        "ready": not reasons,
        "in_the_way": reasons,
        **lean(
            mergeable=pull.get("mergeable"),
            mergeable_state=pull.get("mergeable_state"),
            head_sha=sha,
            reviews=reviews,
            checks=summary,
            check_details=checks if details else None,
            checks_note=runs_refused or status_refused,
            url=pull.get("html_url"),
        ),
    }


def _checks(runs: list[Any], statuses: list[Any]) -> list[dict[str, Any]]:
    """Check runs and commit statuses, which are two ways to say the same."""
    found = []
    for run in runs:
        done = run.get("status") == "completed"
        found.append(
            lean(
                name=run.get("name"),
                state=(run.get("conclusion") or "unknown") if done else "pending",
                url=run.get("html_url") or run.get("details_url"),
            )
        )
    found += [
        lean(name=one.get("context"), state=one.get("state") or "unknown", url=one.get("target_url"))
        for one in statuses
    ]
    return found


def _reviews(reviews: list[Any]) -> dict[str, list[str]]:
    """The last word of each reviewer: who approved, and who wants changes."""
    last: dict[str, str] = {}
    for review in reviews:
        who, state = shaping.login(review.get("user")), review.get("state")
        if who and state in {"APPROVED", "CHANGES_REQUESTED", "DISMISSED"}:
            last[who] = state
    return lean(
        approved_by=[who for who, state in last.items() if state == "APPROVED"],
        changes_requested_by=[who for who, state in last.items() if state == "CHANGES_REQUESTED"],
    )


def _in_the_way(
    pull: Json, checks: list[dict[str, Any]], reviews: dict[str, list[str]], *, seen: bool
) -> list[str]:
    """What keeps a pull request from being merged. `seen`: whether the user may see its checks."""
    if pull.get("merged") or pull.get("state") != "open":
        return ["It is merged already." if pull.get("merged") else "It is closed."]
    reasons = []
    if pull.get("draft"):
        reasons.append("It is a draft.")
    if pull.get("mergeable") is None or pull.get("mergeable_state") == "unknown":
        reasons.append("GitHub is still working out whether it can be merged: ask again in a few seconds.")
    if pull.get("mergeable") is False:
        reasons.append("It has conflicts with its base branch.")
    if failed := [one["name"] for one in checks if one["state"] not in _GOOD | {"pending"}]:
        reasons.append(f"Failed checks: {', '.join(failed[:10])}.")
    if waiting := [one["name"] for one in checks if one["state"] == "pending"]:
        reasons.append(f"Checks that are not done: {', '.join(waiting[:10])}.")
    if who := reviews.get("changes_requested_by"):
        reasons.append(f"Changes are requested by {', '.join(who)}.")
    if pull.get("mergeable_state") == "unstable" and not seen:
        reasons.append("Some check has not passed; this user may not see which.")
    if pull.get("mergeable_state") == "blocked" and not reasons:
        reasons.append("The base branch's protection blocks it (a review or a check is missing).")
    if pull.get("mergeable_state") == "behind":
        reasons.append("Its branch is behind its base branch and must be updated.")
    return reasons


def _path(call: Call, key: str) -> str:
    return f"{repository(call)}/pulls/{number(call, key)}"
