"""GitHub's tools for repositories, over their real path: what is sent, and what a model is given."""

from __future__ import annotations

from typing import Any

from authproxy.tools.tool import Kind
from tests.tools.kit import House, Reply, Seen

REPO: dict[str, Any] = {
    "id": 1296269,
    "node_id": "MDEwOlJlcG9zaXRvcnkxMjk2MjY5",
    "name": "hello",
    "full_name": "octo/hello",
    "owner": {"login": "octo", "id": 1, "avatar_url": "https://x.invalid/a"},
    "private": False,
    "html_url": "https://github.com/octo/hello",
    "description": "Grüße ✨",
    "fork": False,
    "url": "https://api.github.com/repos/octo/hello",
    "default_branch": "main",
    "language": "Python",
    "stargazers_count": 80,
    "subscribers_count": 4,
    "forks_count": 9,
    "open_issues_count": 3,
    "topics": ["oauth"],
    "license": {"key": "mit", "spdx_id": "MIT", "name": "MIT License"},
    "visibility": "public",
    "archived": False,
    "pushed_at": "2026-11-01T00:00:00Z",
    "permissions": {"admin": False, "push": True, "pull": True},
}


def named(name: str, **more: Any) -> dict[str, Any]:
    return {**REPO, "name": name.partition("/")[2], "full_name": name, **more}


async def test_a_repository_is_read_and_told_briefly(house: House) -> None:
    house.answer("GET", "/repos/octo/hello", REPO)
    found = await house.value("Github.GetRepository", owner="octo", repo="hello")
    assert found["full_name"] == "octo/hello"
    assert found["description"] == "Grüße ✨"
    assert found["license"] == "MIT"
    assert found["your_permissions"] == ["push", "pull"]
    assert found["stars"] == 80
    assert not {"node_id", "owner_id", "archived", "fork"} & set(found)
    [seen] = house.seen
    assert (seen.method, seen.path, seen.query) == ("GET", "/repos/octo/hello", {})
    assert seen.headers["user-agent"].startswith("authproxy/")  # GitHub refuses who has none

    count = await house.value("Github.CountStargazers", owner="octo", name="hello")
    assert count == {"repository": "octo/hello", "stargazers": 80}
    assert len(house.seen) == 2


async def test_github_s_words_of_a_failure_are_told(house: House) -> None:
    docs = "https://docs.github.com/rest/repos/repos#get-a-repository"
    gone = Reply(404, {"message": "Not Found", "documentation_url": docs, "status": "404"})
    limited = Reply(
        403,
        {"message": "API rate limit exceeded for user ID 1."},
        {"x-ratelimit-remaining": "0", "x-ratelimit-reset": "1"},
    )
    house.answer("GET", "/repos/octo/none", gone, limited)
    error = await house.error("Github.GetRepository", owner="octo", repo="none")
    assert (error.kind, error.status) == (Kind.NOT_FOUND, 404)
    assert error.message.endswith(f"Not Found ({docs})")
    error = await house.error("Github.GetRepository", owner="octo", repo="none")
    assert (error.kind, error.can_retry, error.retry_after_ms) == (Kind.RATE_LIMIT, True, 0)
    assert "API rate limit exceeded" in error.message


async def test_an_answer_that_is_no_json_is_a_failure_and_no_fault(house: House) -> None:
    house.answer("GET", "/orgs/octo/repos", Reply(body=b"<html>", headers={"Content-Type": "text/html"}))
    error = await house.error("Github.ListOrgRepositories", org="octo")
    assert error.kind is Kind.BAD_OUTPUT


async def test_a_second_limit_is_one_too(house: House) -> None:
    words = {"message": "You have exceeded a secondary rate limit. Please wait."}
    house.answer("GET", "/orgs/octo/members", Reply(403, words, {"Retry-After": "7"}))
    house.answer("GET", "/repos/octo/hello/collaborators", [])
    error = await house.error("Github.ListRepositoryCollaborators", owner="octo", repo="hello")
    assert (error.kind, error.retry_after_ms) == (Kind.RATE_LIMIT, 7000)
    assert "secondary rate limit" in error.message


async def test_repositories_of_an_organization_come_in_pages(house: House) -> None:
    link = '<https://api.github.com/organizations/7/repos?per_page=100&page=3>; rel="next", <https://x>; rel="last"'
    house.answer("GET", "/orgs/octo-org/repos", Reply(json=[REPO], headers={"Link": link}), [])
    found = await house.value("Github.ListOrgRepositories", org="octo-org", per_page=500, page=2)
    assert [one["full_name"] for one in found["repositories"]] == ["octo/hello"]
    assert (found["page"], found["next_page"]) == (2, 3)
    assert house.seen[0].query == {
        "type": "all",
        "sort": "created",
        "direction": "asc",
        "per_page": "100",
        "page": "2",
    }
    assert await house.value("Github.ListOrgRepositories", org="octo-org") == {"repositories": [], "page": 1}
    for wrong in ({"page": 0}, {"per_page": 0}, {"org": "a/b"}, {"org": ".."}, {"org": "a?b"}):
        error = await house.error("Github.ListOrgRepositories", **{"org": "octo-org", **wrong})
        assert error.kind is Kind.BAD_INPUT
    assert len(house.seen) == 2


async def test_stargazers_and_a_star(house: House) -> None:
    star = {"starred_at": "2026-01-01T00:00:00Z", "user": {"login": "mona", "id": 2}}
    house.answer("GET", "/repos/octo/hello/stargazers", [star, {"login": "old"}])
    found = await house.value("Github.ListStargazers", owner="octo", repo="hello", per_page=2)
    assert found["stargazers"] == [
        {"login": "mona", "starred_at": "2026-01-01T00:00:00Z"},
        {"login": "old"},
    ]
    assert house.seen[0].headers["accept"] == "application/vnd.github.star+json"

    for method in ("PUT", "DELETE"):
        house.answer(method, "/user/starred/octo/hello", Reply(204))
    starred = await house.value("Github.SetStarred", owner="octo", name="hello")
    assert starred == {"repository": "octo/hello", "starred": True}
    assert (house.seen[1].method, house.seen[1].headers["content-length"]) == ("PUT", "0")
    assert (await house.value("Github.SetStarred", owner="octo", name="hello", starred=False))[
        "starred"
    ] is False
    assert house.seen[2].method == "DELETE"


async def test_activities_have_cursors(house: House) -> None:
    event = {
        "id": 5,
        "node_id": "x",
        "before": "a" * 40,
        "after": "b" * 40,
        "ref": "refs/heads/main",
        "timestamp": "2026-11-01T00:00:00Z",
        "activity_type": "force_push",
        "actor": {"login": "mona", "avatar_url": "y"},
    }
    link = '<https://api.github.com/repositories/1/activity?per_page=1&after=djE%3D>; rel="next"'
    house.answer("GET", "/repos/octo/hello/activity", Reply(json=[event], headers={"Link": link}))
    found = await house.value(
        "Github.ListRepositoryActivities",
        owner="octo",
        repo="hello",
        per_page=1,
        ref="main",
        actor="mona",
        time_period="week",
        activity_type="force_push",
    )
    assert found["activities"][0]["actor"] == "mona"
    assert found["next_after"] == "djE="
    assert house.seen[0].query == {
        "direction": "desc",
        "ref": "main",
        "actor": "mona",
        "time_period": "week",
        "activity_type": "force_push",
        "per_page": "1",
    }


async def test_collaborators_members_and_teams(house: House) -> None:
    path = "/repos/octo/hello/collaborators"
    people = [
        {"login": "mona", "role_name": "admin", "permissions": {"admin": True}},
        {"login": "build[bot]", "permissions": {"pull": True}},
    ]
    house.answer("GET", path, people)
    house.answer("GET", "/orgs/octo/members", [{"login": "mona"}, {"login": "lisa"}])
    house.answer(
        "GET", "/repos/octo/hello/teams", [{"slug": "core", "name": "Core", "permission": "push", "id": 1}]
    )
    house.answer("GET", "/users/mona", {"login": "mona", "name": "Mona Lisa", "email": None})
    found = await house.value("Github.ListRepositoryCollaborators", owner="octo", repo="hello")
    assert found == {
        "collaborators": [{"login": "mona", "role": "admin"}, {"login": "build[bot]", "role": "pull"}],
        "page": 1,
        "org_members": ["lisa"],
        "teams": [{"slug": "core", "name": "Core", "permission": "push"}],
    }
    full = await house.value(
        "Github.ListRepositoryCollaborators",
        owner="octo",
        repo="hello",
        detail_level="full_profiles",
        include_teams=False,
        permission="push",
    )
    assert full["collaborators"][0]["name"] == "Mona Lisa"
    assert "teams" not in full
    asked = [seen for seen in house.seen if seen.path == path]
    assert asked[1].query == {"affiliation": "all", "permission": "push", "per_page": "30", "page": "1"}

    house.upstream.given.pop(("GET", "/orgs/octo/members"))  # a person's own: 404
    house.answer("GET", "/repos/octo/hello/teams", Reply(403, {"message": "Must have admin rights"}))
    found = await house.value("Github.ListRepositoryCollaborators", owner="octo", repo="hello")
    assert "Must have admin rights" in found["teams_note"]
    assert "org_members" not in found
    assert "Not Found" in found["org_members_note"]


async def test_my_repositories_are_found_by_near_names(house: House) -> None:
    def mine(seen: Seen) -> Any:
        if seen.query["page"] == "1":
            link = '<https://api.github.com/user/repos?page=2>; rel="next"'
            return Reply(json=[named("octo/payments"), named("octo/payment-gateway")], headers={"Link": link})
        return [named("acme/Payment-Gateway-old"), named("acme/docs")]

    events = [
        {"ref": "refs/heads/feature/x", "timestamp": "2026-11-02T00:00:00Z"},
        {"ref": "refs/heads/gone", "timestamp": "2026-11-01T00:00:00Z"},
        {"ref": "refs/heads/feature/x", "timestamp": "2026-10-02T00:00:00Z"},
    ]
    house.answer("GET", "/user/repos", mine)
    house.answer("GET", "/repos/octo/payment-gateway/activity", events)
    house.answer("GET", "/repos/octo/payment-gateway/branches", [{"name": "feature/x"}, {"name": "main"}])
    found = await house.value(
        "Github.SearchMyRepos",
        repo_name="paymnt-gateway",
        auto_accept_matches=True,
        include_recent_branches=2,
    )
    assert found["found"] is True
    [match] = found["matches"]
    assert match["full_name"] == "octo/payment-gateway"
    assert match["recent_branches"] == [
        {"name": "feature/x", "last_activity": "2026-11-02T00:00:00Z"},
        {"name": "main"},
    ]
    assert found["searched"] == 4
    assert house.seen[0].query["affiliation"] == "owner,collaborator,organization_member"

    near = await house.value("Github.SearchMyRepos", repo_name="paymnt-gateway", include_recent_branches=0)
    assert near["found"] is False
    assert near["matches"][0]["full_name"] == "octo/payment-gateway"
    assert len(near["matches"]) > 1
    none = await house.value("Github.SearchMyRepos", repo_name="zzzzzzzz", include_recent_branches=0)
    assert (none["found"], none["matches"]) == (False, [])
    exact = await house.value("Github.SearchMyRepos", repo_name="OCTO/Payments", include_recent_branches=0)
    assert exact["found"] is True

    house.answer("GET", "/orgs/acme/repos", [named("acme/docs")])
    ours = await house.value(
        "Github.SearchMyRepos",
        repo_name="docs",
        scope="organization",
        organization="acme",
    )
    assert ours["matches"][0]["recent_branches"] == []  # neither list can be read: no failure
    await house.value(
        "Github.SearchMyRepos", repo_name="docs", scope="organization", include_recent_branches=0
    )
    assert house.seen[-2].query["affiliation"] == "organization_member"
