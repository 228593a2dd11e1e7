"""Repositories: what they are, who may work in them, who likes them, what happened in them."""

from __future__ import annotations

from typing import Any

from authproxy.tools.kits.github import shaping
from authproxy.tools.kits.github.asking import (
    SURE,
    account,
    ask,
    next_page,
    next_query,
    owner_and_name,
    paging,
    per_page,
    read,
    read_pages,
    repository,
    unless_refused,
)
from authproxy.tools.kits.github.asking import likeness as near
from authproxy.tools.kits.github.shaping import lean
from authproxy.tools.tool import Answer, Call, Input, Json, bad_input

_MOST_MATCHES = 10
_WITH_BRANCHES = 3  # of the matches: each costs two requests
_MOST_BRANCHES = 30
_MOST_PROFILES = 30
_AFFILIATIONS = {
    "all": "owner,collaborator,organization_member",
    "personal": "owner",
    "organization": "organization_member",
}


def shape_repository(json: Json, _input: Input) -> Json:
    """GetRepository's answer."""
    return shaping.repository(json)


def shape_stargazer_count(json: Json, _input: Input) -> Json:
    """CountStargazers' answer: GitHub keeps the count, nobody needs to be listed for it."""
    return {"repository": json.get("full_name"), "stargazers": json.get("stargazers_count", 0)}


async def list_org_repositories(call: Call) -> Json:
    """An organization's repositories that the user may see."""
    query = {
        "type": call.get("repo_type"),
        "sort": call.get("sort"),
        "direction": call.get("sort_direction"),
        **paging(call),
    }
    answer = await ask(call, "GET", f"/orgs/{account(call.input['org'], 'org')}/repos", query=query)
    found = [shaping.repository_line(item) for item in answer.json]
    return {"repositories": found, "page": query["page"], **lean(next_page=next_page(answer))}


async def list_stargazers(call: Call) -> Json:
    """Who starred a repository and when, the oldest star first."""
    query = paging(call)
    answer = await ask(
        call,
        "GET",
        f"{repository(call)}/stargazers",
        query=query,
        accept="application/vnd.github.star+json",
    )
    found = [
        lean(login=shaping.login(item.get("user", item)), starred_at=item.get("starred_at"))
        for item in answer.json
    ]
    return {"stargazers": found, "page": query["page"], **lean(next_page=next_page(answer))}


async def set_starred(call: Call) -> Json:
    """Stars a repository, or takes the star away."""
    owner, name = owner_and_name(call, "name")
    starred = bool(call.get("starred", True))
    await ask(call, "PUT" if starred else "DELETE", f"/user/starred/{owner}/{name}")
    return {"repository": f"{owner}/{name}", "starred": starred}


async def list_repository_activities(call: Call) -> Json:
    """Pushes, merges, and branches that came and went."""
    path = f"{repository(call)}/activity"
    names = ("direction", "before", "after", "ref", "actor", "time_period", "activity_type")
    query = {**{name: call.get(name) or None for name in names}, "per_page": per_page(call)}
    answer = await ask(call, "GET", path, query=query)
    following = next_query(answer)
    return {
        "activities": [
            lean(
                id=item.get("id"),
                activity_type=item.get("activity_type"),
                actor=shaping.login(item.get("actor")),
                ref=item.get("ref"),
                before=item.get("before"),
                after=item.get("after"),
                timestamp=item.get("timestamp"),
            )
            for item in answer.json
        ],
        **lean(next_after=following.get("after"), next_before=following.get("before")),
    }


# --- collaborators -------------------------------------------------------------------------------------------------


async def list_repository_collaborators(call: Call) -> Json:
    """Who has access, and so can be asked for a review: people, members of the organization, teams."""
    path, pages = repository(call), paging(call)
    detail = call.get("detail_level", "include_org_members")
    query = {"affiliation": call.get("affiliation"), "permission": call.get("permission"), **pages}
    answer = await ask(call, "GET", f"{path}/collaborators", query=query)
    people = [_collaborator(item) for item in answer.json]
    found: dict[str, Any] = {"collaborators": people, "page": pages["page"]}
    following = [next_page(answer)]
    if detail != "basic":
        following.append(await _add_members(call, found, pages))
    if detail == "full_profiles":
        await _add_profiles(call, people)
    if call.get("include_teams", True):
        await _add_teams(call, found, path)
    return {**found, **lean(next_page=next((page for page in following if page), None))}


def _collaborator(item: Json) -> dict[str, Any]:
    held = [name for name, given in (item.get("permissions") or {}).items() if given]
    return lean(login=item.get("login"), role=item.get("role_name") or (held[0] if held else None))


async def _add_members(call: Call, found: dict[str, Any], pages: dict[str, int]) -> int | None:
    """The members of the owning organization, without those who are named already; none where a person owns it."""

    async def members() -> Answer:
        return await ask(call, "GET", f"/orgs/{account(call.input['owner'])}/members", query=pages)

    answer, refusal = await unless_refused(members, 403, 404)
    if answer is None:
        found["org_members_note"] = f"No members of an organization can be listed: {refusal}"
        return None
    named = {one["login"] for one in found["collaborators"]}
    found["org_members"] = [name for name in shaping.logins(answer.json) if name not in named]
    return next_page(answer)


async def _add_profiles(call: Call, people: list[dict[str, Any]]) -> None:
    for person in people[:_MOST_PROFILES]:
        # The login is GitHub's own (a bot's may hold brackets, and has no profile worth a request).
        if not person.get("login") or not person["login"].replace("-", "").replace("_", "").isalnum():
            continue
        profile = await read(call, f"/users/{account(person['login'])}")
        person.update(
            lean(name=profile.get("name"), email=profile.get("email"), company=profile.get("company"))
        )


async def _add_teams(call: Call, found: dict[str, Any], path: str) -> None:
    async def teams() -> Json:
        return await read(call, f"{path}/teams", per_page=100)

    listed, refusal = await unless_refused(teams, 403, 404)
    if listed is None:
        found["teams_note"] = f"No teams can be listed: {refusal}"
        return
    found["teams"] = [
        lean(slug=team.get("slug"), name=team.get("name"), permission=team.get("permission"))
        for team in listed
    ]


# --- the user's own ------------------------------------------------------------------------------------------------


async def search_my_repos(call: Call) -> Json:
    """The user's repositories whose names are near the one that was asked for, the nearest first."""
    asked = call.input["repo_name"].strip()
    branches = int(call.get("include_recent_branches", 10))
    if not asked or branches < 0:
        raise bad_input("repo_name must not be empty, and include_recent_branches not negative.")
    repositories = await _mine(call)
    scored = sorted(
        ((_score(asked, item), item) for item in repositories), key=lambda one: (-one[0], one[1]["full_name"])
    )
    matches = [
        {**shaping.repository_line(item), "score": round(score, 2)} for score, item in scored if score >= 0.5
    ][:_MOST_MATCHES]
    accepted = _accepted([score for score, _ in scored], accept=bool(call.get("auto_accept_matches", False)))
    if accepted:
        matches = matches[:1]
    if branches:
        for match in matches[:_WITH_BRANCHES]:
            match["recent_branches"] = await _recent_branches(
                call, match["full_name"], min(branches, _MOST_BRANCHES)
            )
    return {"found": accepted, "matches": matches, "searched": len(repositories)}


async def _mine(call: Call) -> list[Any]:
    if call.get("organization"):
        organization = account(call.input["organization"], "organization")
        return await read_pages(call, f"/orgs/{organization}/repos", sort="pushed", direction="desc")
    return await read_pages(
        call, "/user/repos", affiliation=_AFFILIATIONS[call.get("scope", "all")], sort="pushed"
    )


def _score(asked: str, item: Json) -> float:
    return near(asked, item["full_name"] if "/" in asked else item["name"])


def _accepted(scores: list[float], *, accept: bool) -> bool:
    """Whether the nearest is the one: the only one of its name, or with `accept` the only very near one."""
    least = 1.0 if scores and scores[0] == 1.0 else SURE
    return (accept or least == 1.0) and sum(score >= least for score in scores) == 1


async def _recent_branches(call: Call, full_name: str, most: int) -> list[dict[str, Any]]:
    """The branches with the last activity, then others: GitHub's own list is in the order of names."""
    path = f"/repos/{full_name}"

    async def activity() -> Json:
        return await read(call, f"{path}/activity", per_page=100)

    async def every() -> Json:
        return await read(call, f"{path}/branches", per_page=100)

    happened, _ = await unless_refused(activity, 403, 404)
    listed, _ = await unless_refused(every, 403, 404)
    there = {item["name"]: item for item in listed or []}
    found: dict[str, dict[str, Any]] = {}
    for event in happened or []:
        name = str(event.get("ref") or "").removeprefix("refs/heads/")
        if name in there and name not in found:
            found[name] = lean(name=name, last_activity=event.get("timestamp"))
    for name in there:
        found.setdefault(name, {"name": name})
    return list(found.values())[:most]
