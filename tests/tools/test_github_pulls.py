"""GitHub's tools for pull requests, over their real path."""

from __future__ import annotations

from typing import Any

from authproxy.tools.tool import Kind
from tests.tools.kit import House, Reply

PATH = "/repos/octo/hello/pulls"
HERE = {"owner": "octo", "repo": "hello"}
HOME = {"full_name": "octo/hello", "default_branch": "main"}


def pull(number: int = 1, **more: Any) -> dict[str, Any]:
    return {
        "id": 2000 + number,
        "node_id": f"PR_{number}",
        "number": number,
        "title": "Add logging",
        "state": "open",
        "draft": False,
        "merged": False,
        "merged_at": None,
        "merge_commit_sha": "test-merge",
        "html_url": f"https://github.com/octo/hello/pull/{number}",
        "url": f"https://api.github.com{PATH}/{number}",
        "user": {"login": "mona"},
        "head": {"ref": "feature/log", "label": "octo:feature/log", "sha": "h" * 40, "repo": HOME},
        "base": {"ref": "main", "label": "octo:main", "sha": "b" * 40, "repo": HOME},
        "labels": [],
        "assignees": [],
        "requested_reviewers": [{"login": "lisa"}],
        "requested_teams": [{"slug": "core", "name": "Core"}],
        "created_at": "2026-11-01T00:00:00Z",
        "updated_at": "2026-11-02T00:00:00Z",
        "body": "text",
        "mergeable": True,
        "mergeable_state": "clean",
        "commits": 2,
        "additions": 10,
        "deletions": 0,
        "changed_files": 3,
        **more,
    }


async def test_pull_requests_are_listed(house: House) -> None:
    fork = {"ref": "main", "label": "eve:main", "repo": {"full_name": "eve/hello"}}
    merged = pull(2, state="closed", merged_at="2026-11-03T00:00:00Z", head=fork)
    gone = pull(3, head={"ref": "old", "label": "ghost:old", "repo": None})
    house.answer("GET", PATH, [pull(), merged, gone])
    found = await house.value("Github.ListPullRequests", **HERE, head="feature/log", base="main", state="all")
    assert found["pull_requests"][0] == {
        "number": 1,
        "title": "Add logging",
        "state": "open",
        "author": "mona",
        "head": "feature/log",
        "base": "main",
        "reviewers": ["lisa", "team:core"],
        "created_at": "2026-11-01T00:00:00Z",
        "updated_at": "2026-11-02T00:00:00Z",
        "url": "https://github.com/octo/hello/pull/1",
    }
    assert [(one["state"], one["head"]) for one in found["pull_requests"][1:]] == [
        ("merged", "eve:main"),
        ("open", "ghost:old"),
    ]
    assert house.seen[0].query == {
        "state": "all",
        "head": "octo:feature/log",  # without its owner GitHub would give all of them
        "base": "main",
        "sort": "created",
        "direction": "desc",
        "per_page": "30",
        "page": "1",
    }
    house.answer("GET", PATH, [])
    await house.value("Github.ListPullRequests", **HERE, head="eve:main", sort="long-running")
    assert house.seen[1].query["head"] == "eve:main"
    assert house.seen[1].query["sort"] == "long-running"
    assert "base" not in house.seen[1].query


async def test_pull_requests_of_a_whole_organization_are_searched(house: House) -> None:
    item = {
        "number": 4,
        "title": "t",
        "state": "closed",
        "repository_url": "https://api.github.com/repos/octo/other",
        "pull_request": {"merged_at": "2026-11-03T00:00:00Z"},
        "user": {"login": "mona"},
    }
    house.answer("GET", "/search/issues", {"total_count": 1, "incomplete_results": True, "items": [item]})
    found = await house.value(
        "Github.ListPullRequests",
        **HERE,
        state="closed",
        head="eve:fix it",
        base="main",
        sort="popularity",
        search_org_wide=True,
    )
    assert found["pull_requests"] == [
        {
            "number": 4,
            "title": "t",
            "repository": "octo/other",
            "state": "merged",
            "author": "mona",
            "merged_at": "2026-11-03T00:00:00Z",
        }
    ]
    assert found["incomplete"] is True
    assert house.seen[0].query["q"] == 'org:octo is:pr head:"fix it" base:"main" is:closed'
    assert house.seen[0].query["sort"] == "comments"


async def test_a_pull_request_is_read_with_its_diff(house: House) -> None:
    files = [
        {
            "filename": "a.py",
            "status": "modified",
            "additions": 1,
            "deletions": 1,
            "changes": 2,
            "patch": "@@ -1 +1 @@",
        },
        {"filename": "b.py", "status": "renamed", "previous_filename": "c.py", "changes": 0},
        {"filename": "big.bin", "status": "added", "changes": 9000},
        *({"filename": f"{n}.txt", "status": "added", "changes": 1, "patch": "x" * 8000} for n in range(6)),
    ]
    link = f'<https://api.github.com{PATH}/1/files?page=2>; rel="next"'
    house.answer("GET", f"{PATH}/1", pull())
    house.answer("GET", f"{PATH}/1/files", Reply(json=files, headers={"Link": link}))
    found = await house.value("Github.GetPullRequest", **HERE, pull_number=1, include_diff_content=True)
    assert found["mergeable"] is True
    assert found["deletions"] == 0
    assert "merge_commit_sha" not in found  # of a test merge: nothing is merged
    assert found["files"][0]["diff"] == "@@ -1 +1 @@"
    assert found["files"][1] == {"path": "b.py", "previous_path": "c.py", "status": "renamed"}
    assert found["files"][2]["diff_left_out"] is True
    assert found["files"][3]["diff"].endswith("(2000 more characters)")
    assert found["files"][-1]["diff_left_out"] is True
    assert sum(len(one.get("diff", "")) for one in found["files"]) < 31_000
    assert found["more_files"] is True
    house.seen.clear()
    assert "files" not in await house.value("Github.GetPullRequest", **HERE, pull_number=1)
    assert len(house.seen) == 1


async def test_commits_are_listed(house: House) -> None:
    commit = {
        "sha": "c" * 40,
        "html_url": "https://github.com/c",
        "author": None,
        "commit": {
            "message": "Add it\n\nlong",
            "author": {"name": "Mona", "email": "m@x", "date": "2026-11-01T00:00:00Z"},
        },
    }
    house.answer("GET", f"{PATH}/1/commits", [commit])
    found = await house.value("Github.ListPullRequestCommits", **HERE, pull_number=1)
    assert found["commits"] == [
        {
            "sha": "c" * 40,
            "message": "Add it",
            "author": "Mona",
            "date": "2026-11-01T00:00:00Z",
            "url": "https://github.com/c",
        }
    ]


async def test_a_pull_request_is_opened(house: House) -> None:
    house.answer("POST", PATH, Reply(201, pull(5)))
    asked = f"{PATH}/5/requested_reviewers"
    house.answer("POST", asked, Reply(201, pull(5)), Reply(422, {"message": "Reviews may only be requested"}))
    given = {**HERE, "title": "Add logging", "head": "feature/log", "base": "main"}
    found = await house.value(
        "Github.CreatePullRequest",
        **given,
        body="why",
        issue=42,
        draft=True,
        reviewers=["lisa"],
        team_reviewers=["core"],
    )
    assert house.seen[0].json == {
        "title": "Add logging",
        "head": "feature/log",
        "base": "main",
        "body": "Closes #42\n\nwhy",
        "draft": True,
        "maintainer_can_modify": True,
    }
    assert house.seen[1].json == {"reviewers": ["lisa"], "team_reviewers": ["core"]}
    assert found == {
        "number": 5,
        "title": "Add logging",
        "state": "open",
        "head": "feature/log",
        "base": "main",
        "url": "https://github.com/octo/hello/pull/5",
        "reviewers_requested": True,
        "reviewers": ["lisa"],
        "team_reviewers": ["core"],
    }
    found = await house.value("Github.CreatePullRequest", **given, reviewers=["nobody"])
    assert found["number"] == 5  # it is there: the failure stands beside it
    assert found["reviewers_requested"] is False
    assert "Reviews may only be requested" in found["reason"]
    house.seen.clear()
    assert "reviewers" not in await house.value("Github.CreatePullRequest", **given)
    assert house.seen[0].json["body"] == ""
    refused = {"message": "Validation Failed", "errors": [{"message": "A pull request already exists"}]}
    house.answer("POST", PATH, Reply(422, refused))
    error = await house.error("Github.CreatePullRequest", **given)
    assert "A pull request already exists" in error.message


async def test_a_pull_request_is_changed(house: House) -> None:
    house.answer("GET", f"{PATH}/1", pull(body="before\n"), pull(body=None))
    house.answer("PATCH", f"{PATH}/1", pull(title="new"))
    found = await house.value(
        "Github.UpdatePullRequest",
        **HERE,
        pull_number=1,
        title="new",
        body="after",
        append_body=True,
        base="dev",
    )
    assert house.seen[1].json == {"title": "new", "body": "before\n\nafter", "base": "dev"}
    assert found["changed"] == ["base", "body", "title"]
    await house.value("Github.UpdatePullRequest", **HERE, pull_number=1, body="after", append_body=True)
    assert house.seen[3].json == {"body": "after"}
    await house.value("Github.UpdatePullRequest", **HERE, pull_number=1, body="only", state="closed")
    assert house.seen[4].json == {"body": "only", "state": "closed"}
    for given in ({}, {"state": "all"}, {"base": "../x"}):
        error = await house.error("Github.UpdatePullRequest", **HERE, pull_number=1, **given)
        assert error.kind is Kind.BAD_INPUT


async def test_a_merge_deletes_its_branch(house: House) -> None:
    done = {"sha": "m" * 40, "merged": True, "message": "Pull Request successfully merged"}
    branch = "/repos/octo/hello/git/refs/heads/feature/log"
    house.answer("GET", f"{PATH}/1", pull())
    house.answer("PUT", f"{PATH}/1/merge", done)
    house.answer("DELETE", branch, Reply(204), Reply(422, {"message": "Reference does not exist"}))
    given = {**HERE, "pull_request_number": 1}
    found = await house.value(
        "Github.MergePullRequest",
        **given,
        merge_method="squash",
        commit_title="T",
        commit_message="M",
        sha="h" * 40,
        delete_branch=True,
    )
    assert found == {
        "number": 1,
        "merged": True,
        "sha": "m" * 40,
        "branch": {"name": "feature/log", "deleted": True},
    }
    assert [(seen.method, seen.path) for seen in house.seen] == [
        ("GET", f"{PATH}/1"),
        ("PUT", f"{PATH}/1/merge"),
        ("DELETE", branch),
    ]
    assert house.seen[1].json == {
        "merge_method": "squash",
        "commit_title": "T",
        "commit_message": "M",
        "sha": "h" * 40,
    }
    again = await house.value("Github.MergePullRequest", **given, delete_branch=True)
    assert again["branch"] == {"name": "feature/log", "deleted": True, "reason": "It was gone already."}
    house.seen.clear()
    assert "branch" not in await house.value("Github.MergePullRequest", **given)
    assert [seen.method for seen in house.seen] == ["PUT"]
    for head, reason in (
        ({"ref": "main", "repo": HOME}, "default branch"),
        ({"ref": "x", "repo": None}, "repository is gone"),
    ):
        house.answer("GET", f"{PATH}/1", pull(head=head))
        found = await house.value("Github.MergePullRequest", **given, delete_branch=True)
        assert found["merged"] is True
        assert found["branch"]["deleted"] is False
        assert reason in found["branch"]["reason"]


async def test_a_merge_that_cannot_be(house: House) -> None:
    given = {**HERE, "pull_request_number": 1}
    house.answer("PUT", f"{PATH}/1/merge", Reply(405, {"message": "Pull Request is not mergeable"}))
    house.answer("GET", f"{PATH}/1", pull())
    error = await house.error("Github.MergePullRequest", **given)
    assert error.kind is Kind.VALIDATION_ERROR
    assert "Pull Request is not mergeable" in error.message
    house.answer("GET", f"{PATH}/1", pull(state="closed", merged=True, merge_commit_sha="m" * 40))
    found = await house.value("Github.MergePullRequest", **given)
    assert found == {
        "number": 1,
        "merged": True,
        "already_merged": True,
        "sha": "m" * 40,
        "head_sha": "h" * 40,
    }
    house.answer("PUT", f"{PATH}/1/merge", Reply(409, {"message": "Head branch was modified."}))
    error = await house.error("Github.MergePullRequest", **given, sha="0" * 40)
    assert (error.kind, error.can_retry) == (Kind.RETRY, True)
    house.answer("PUT", f"{PATH}/1/merge", Reply(403, {"message": "Resource not accessible by integration"}))
    error = await house.error("Github.MergePullRequest", **given)
    assert error.kind is Kind.AUTH_ERROR
    assert "Resource not accessible by integration" in error.message


async def test_what_is_in_the_way_of_a_merge(house: House) -> None:
    commit = f"/repos/octo/hello/commits/{'h' * 40}"
    runs = [
        {"name": "build", "status": "completed", "conclusion": "success", "html_url": "https://b"},
        {"name": "lint", "status": "completed", "conclusion": "failure"},
        {"name": "e2e", "status": "in_progress", "conclusion": None},
    ]
    reviews = [
        {"user": {"login": "lisa"}, "state": "CHANGES_REQUESTED"},
        {"user": {"login": "mona"}, "state": "CHANGES_REQUESTED"},
        {"user": {"login": "mona"}, "state": "APPROVED"},
        {"user": {"login": "mona"}, "state": "COMMENTED"},
        {"user": None, "state": "APPROVED"},
    ]
    house.answer("GET", f"{PATH}/1", pull(mergeable=False, mergeable_state="dirty", draft=True))
    house.answer("GET", f"{commit}/check-runs", {"total_count": 3, "check_runs": runs})
    house.answer(
        "GET", f"{commit}/status", {"state": "success", "statuses": [{"context": "ci", "state": "success"}]}
    )
    house.answer("GET", f"{PATH}/1/reviews", reviews)
    given = {**HERE, "pull_request_number": 1}
    found = await house.value("Github.CheckPullRequestMergeStatus", **given, include_check_details=True)
    assert found["ready"] is False
    assert found["in_the_way"] == [
        "It is a draft.",
        "It has conflicts with its base branch.",
        "Failed checks: lint.",
        "Checks that are not done: e2e.",
        "Changes are requested by lisa.",
    ]
    assert found["checks"] == {"success": 2, "failure": 1, "pending": 1}
    assert found["reviews"] == {"approved_by": ["mona"], "changes_requested_by": ["lisa"]}
    assert len(found["check_details"]) == 4

    house.answer("GET", f"{PATH}/1", pull())
    house.answer("GET", f"{commit}/check-runs", Reply(403, {"message": "Resource not accessible"}))
    house.answer("GET", f"{commit}/status", {"statuses": []})
    house.answer("GET", f"{PATH}/1/reviews", [])
    found = await house.value("Github.CheckPullRequestMergeStatus", **given)
    assert (found["ready"], found["in_the_way"]) == (True, [])
    assert "Resource not accessible" in found["checks_note"]
    assert "check_details" not in found
    for state, words in (
        ({"mergeable": None}, "still working out"),
        ({"mergeable_state": "unknown"}, "still working out"),
        ({"mergeable_state": "unstable"}, "may not see which"),
        ({"mergeable_state": "blocked"}, "protection"),
        ({"mergeable_state": "behind"}, "behind its base"),
        ({"state": "closed"}, "closed"),
        ({"state": "closed", "merged": True}, "merged already"),
    ):
        house.answer("GET", f"{PATH}/1", pull(**state))
        found = await house.value("Github.CheckPullRequestMergeStatus", **given)
        assert found["ready"] is False
        assert words in found["in_the_way"][0]
