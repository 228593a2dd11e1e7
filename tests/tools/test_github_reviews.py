"""GitHub's tools for reviews, over their real path: reviewers, assignees, comments on lines, threads."""

from __future__ import annotations

from typing import Any

from authproxy.tools.tool import Kind
from tests.tools.kit import House, Reply, Seen

PATH = "/repos/octo/hello/pulls"
HERE = {"owner": "octo", "repo": "hello"}
PULL = {**HERE, "pull_request_number": 1}


def comment(number: int, **more: Any) -> dict[str, Any]:
    return {
        "id": number,
        "node_id": f"PRRC_{number}",
        "pull_request_url": f"https://api.github.com{PATH}/1",
        "html_url": f"https://github.com/octo/hello/pull/1#r{number}",
        "diff_hunk": "@@ -1 +1 @@",
        "path": "src/a.py",
        "line": 12,
        "original_line": 12,
        "side": "RIGHT",
        "subject_type": "line",
        "user": {"login": "lisa"},
        "body": "nit",
        "created_at": "2026-11-01T00:00:00Z",
        "updated_at": "2026-11-01T00:00:00Z",
        **more,
    }


BIG = 3_000_000_001  # above what an Int of GraphQL holds


class Threads:
    """GraphQL as it is asked about two threads of a pull request, on two pages."""

    def __init__(self) -> None:
        self.resolved = {"PRRT_1": False, "PRRT_2": True}
        self.home = "octo/hello"
        self.asked: list[Any] = []

    def __call__(self, seen: Seen) -> Any:
        document, variables = seen.json["query"], seen.json["variables"]
        self.asked.append(variables)
        if "mutation" in document:
            assert ("unresolve" in document) is self.resolved[variables["id"]]
            self.resolved[variables["id"]] = not self.resolved[variables["id"]]
            field = "resolveReviewThread" if self.resolved[variables["id"]] else "unresolveReviewThread"
            thread = {"id": variables["id"], "isResolved": self.resolved[variables["id"]]}
            return {"data": {field: {"thread": thread}}}
        if "node(" in document:
            if variables["id"] not in self.resolved:
                return {"data": {"node": None}, "errors": [{"type": "NOT_FOUND", "message": "No node"}]}
            return {"data": {"node": {**self.thread(variables["id"]), "path": "src/a.py", "line": 12}}}
        first = "after" not in variables
        thread, number = ("PRRT_1", BIG) if first else ("PRRT_2", 7)
        nodes = [{**self.thread(thread), "comments": {"nodes": [{"fullDatabaseId": str(number)}]}}]
        page = {"nodes": nodes, "pageInfo": {"hasNextPage": first, "endCursor": "c1"}}
        return {"data": {"repository": {"pullRequest": {"reviewThreads": page}}}}

    def thread(self, name: str) -> dict[str, Any]:
        return {
            "id": name,
            "isResolved": self.resolved[name],
            "repository": {"nameWithOwner": self.home},
            "pullRequest": {"number": 1},
        }


async def test_reviewers_are_asked_and_asked_no_more(house: House) -> None:
    path = f"{PATH}/1/requested_reviewers"
    left = {"requested_reviewers": [{"login": "lisa"}], "requested_teams": [{"slug": "core"}]}
    house.answer("POST", path, Reply(201, left))
    house.answer("DELETE", path, left)
    found = await house.value(
        "Github.ManagePullRequestReviewers",
        **PULL,
        add_reviewers=["lisa"],
        add_team_reviewers=["core"],
        remove_team_reviewers=["ops"],
    )
    assert found == {"number": 1, "reviewers": ["lisa"], "team_reviewers": ["core"]}
    assert [(seen.method, seen.json) for seen in house.seen] == [
        ("POST", {"reviewers": ["lisa"], "team_reviewers": ["core"]}),
        ("DELETE", {"reviewers": [], "team_reviewers": ["ops"]}),
    ]
    house.answer("DELETE", path, Reply(422, {"message": "nobody"}))
    found = await house.value(
        "Github.ManagePullRequestReviewers", **PULL, add_reviewers=["lisa"], remove_reviewers=["x"]
    )
    assert found["not_removed"] == {"reviewers": ["x"]}
    assert "nobody" in found["reason"]
    error = await house.error("Github.ManagePullRequestReviewers", **PULL, remove_reviewers=["x"])
    assert error.kind is Kind.VALIDATION_ERROR
    assert (await house.error("Github.ManagePullRequestReviewers", **PULL)).kind is Kind.BAD_INPUT


async def test_an_assignee_is_found_in_four_ways(house: House) -> None:
    path = "/repos/octo/hello/issues/1/assignees"
    done = {"number": 1, "assignees": [{"login": "mona"}, {"login": "lisa"}], "html_url": "https://p"}
    house.answer("POST", path, Reply(201, done))
    house.answer("GET", "/repos/octo/hello/assignees", [{"login": "mona"}, {"login": "monalisa"}])
    house.answer("GET", "/repos/octo/hello/assignees/mona", Reply(204))
    house.answer("GET", "/user/2", {"login": "mona", "id": 2})
    house.answer("GET", "/search/users", {"total_count": 1, "items": [{"login": "mona"}]})
    people = [{"login": "mona", "name": "Mona Lisa"}, {"login": "x1", "name": None}]
    house.answer("POST", "/graphql", {"data": {"repository": {"assignableUsers": {"nodes": people}}}})

    async def assign(who: str, mode: str, **more: Any) -> Any:
        given = {"assignee_identifier": who, "search_mode": mode, **more}
        return await house.value("Github.AssignPullRequestUser", **PULL, **given)

    expected = {"number": 1, "assigned": "mona", "assignees": ["mona", "lisa"], "url": "https://p"}
    assert await assign("@mona", "username") == expected
    assert [seen.path for seen in house.seen] == ["/repos/octo/hello/assignees/mona", path]
    assert await assign("MONA", "username") == expected
    assert await assign("2", "id") == expected
    assert await assign("mona@example.com", "email") == expected
    assert await assign("mona lisa", "name") == expected
    assert await assign("Mona Lissa", "name", auto_accept_matches=True) == expected
    assert {seen.json["assignees"][0] for seen in house.seen if seen.path == path} == {"mona"}
    [search] = [seen for seen in house.seen if seen.path == "/search/users"]
    assert search.query["q"] == "mona@example.com in:email type:user"
    [words, _] = [seen.json["variables"] for seen in house.seen if seen.path == "/graphql"]
    assert words == {"owner": "octo", "name": "hello", "words": "mona lisa"}


async def test_an_assignee_who_is_not_one_user(house: House) -> None:
    path = "/repos/octo/hello/issues/1/assignees"
    house.answer("POST", path, Reply(201, {"number": 1, "assignees": []}))
    house.answer("GET", "/repos/octo/hello/assignees", [{"login": "mona"}])
    house.answer("GET", "/search/users", {"total_count": 2, "items": [{"login": "a"}, {"login": "b"}]})
    people = [{"login": "mona", "name": "Mona Lisa"}, {"login": "m2", "name": "Mona Lisa"}]
    house.answer("POST", "/graphql", {"data": {"repository": {"assignableUsers": {"nodes": people}}}})

    async def fail(who: str, mode: str) -> Any:
        return await house.error(
            "Github.AssignPullRequestUser", **PULL, assignee_identifier=who, search_mode=mode
        )

    error = await fail("monna", "username")
    assert (error.kind, error.hint) == (Kind.RETRY, "Near choices: mona.")
    error = await fail("a@b.c", "email")
    assert "a, b" in (error.hint or "")
    error = await fail("Mona Lisa", "name")
    assert "Mona Lisa (mona)" in (error.hint or "")
    for who, mode in (
        ("x", "id"),
        ("../x", "id"),
        ("a b@c", "email"),
        ("nobody", "email"),
        (" ", "username"),
    ):
        assert (await fail(who, mode)).kind is Kind.BAD_INPUT
    assert not [seen for seen in house.seen if seen.path == path]
    error = await fail("mona", "username")  # GitHub says 201, and leaves them out
    assert "cannot be assigned" in error.message
    house.upstream.given.pop(("GET", "/repos/octo/hello/assignees"))
    error = await fail("zoe", "username")  # no list to look in: GitHub decides
    assert "zoe cannot be assigned" in error.message


async def test_a_review_is_submitted(house: House) -> None:
    made = {
        "id": 80,
        "state": "APPROVED",
        "user": {"login": "mona"},
        "submitted_at": "2026-11-01T00:00:00Z",
        "html_url": "https://r",
        "body": "",
    }
    house.answer("POST", f"{PATH}/1/reviews", made)
    found = await house.value("Github.SubmitPullRequestReview", **PULL, event="APPROVE")
    assert found == {
        "id": 80,
        "state": "APPROVED",
        "author": "mona",
        "submitted_at": "2026-11-01T00:00:00Z",
        "url": "https://r",
    }
    assert house.seen[0].json == {"event": "APPROVE"}
    await house.value("Github.SubmitPullRequestReview", **PULL, event="REQUEST_CHANGES", body="why")
    assert house.seen[1].json == {"event": "REQUEST_CHANGES", "body": "why"}
    error = await house.error("Github.SubmitPullRequestReview", **PULL, event="COMMENT", body=" ")
    assert error.kind is Kind.BAD_INPUT


async def test_a_comment_on_lines_or_on_a_file(house: House) -> None:
    house.answer("GET", f"{PATH}/1", {"head": {"sha": "h" * 40}})
    house.answer("POST", f"{PATH}/1/comments", Reply(201, comment(5)))
    given = {**HERE, "pull_number": 1, "body": "nit", "path": "/src/a.py"}
    found = await house.value("Github.CreateReviewComment", **given)
    assert house.seen[1].json == {
        "body": "nit",
        "path": "src/a.py",
        "subject_type": "file",
        "commit_id": "h" * 40,
    }
    assert (found["id"], found["pull_number"], found["path"], found["line"]) == (5, 1, "src/a.py", 12)
    house.seen.clear()
    await house.value("Github.CreateReviewComment", **given, commit_id="c" * 40, start_line=3, end_line=9)
    assert house.seen[0].json == {
        "body": "nit",
        "path": "src/a.py",
        "subject_type": "line",
        "line": 9,
        "side": "RIGHT",
        "start_line": 3,
        "start_side": "RIGHT",
        "commit_id": "c" * 40,
    }
    await house.value(
        "Github.CreateReviewComment",
        **given,
        commit_id="c" * 40,
        end_line=9,
        side="LEFT",
        subject_type="line",
    )
    assert house.seen[1].json["line"] == 9
    assert "start_line" not in house.seen[1].json
    for wrong in (
        {"subject_type": "line"},
        {"start_line": 9, "end_line": 3},
        {"start_line": 0},
        {"start_line": 1, "end_line": 2, "start_side": "UP"},
        {"path": "../x"},
    ):
        error = await house.error("Github.CreateReviewComment", **{**given, **wrong})
        assert error.kind is Kind.BAD_INPUT
    refused = {
        "message": "Validation Failed",
        "errors": ["pull_request_review_thread.line must be part of the diff"],
    }
    house.answer("POST", f"{PATH}/1/comments", Reply(422, refused))
    error = await house.error("Github.CreateReviewComment", **given, start_line=3)
    assert "must be part of the diff" in error.message
    assert "subject_type file" in (error.hint or "")
    error = await house.error("Github.CreateReviewComment", **given)
    assert error.hint is None


async def test_a_reply_may_resolve_its_thread(house: House) -> None:
    threads = Threads()
    replies = f"{PATH}/1/comments/9/replies"
    house.answer("POST", "/graphql", threads)
    house.answer("GET", f"{PATH}/comments/9", comment(9, in_reply_to_id=BIG))
    house.answer("POST", replies, Reply(201, comment(10, in_reply_to_id=BIG)))
    given = {**HERE, "pull_number": 1, "comment_id": 9, "body": "done"}
    found = await house.value("Github.CreateReplyForReviewComment", **given)
    assert (found["id"], found["in_reply_to_id"]) == (10, BIG)
    assert [(seen.path, seen.json) for seen in house.seen] == [(replies, {"body": "done"})]

    found = await house.value("Github.CreateReplyForReviewComment", **given, resolve_thread=True)
    assert found["thread"] == {
        "thread_id": "PRRT_1",
        "resolved": True,
        "pull_number": 1,
        "path": "src/a.py",
        "line": 12,
    }
    assert threads.resolved["PRRT_1"] is True

    house.seen.clear()
    house.answer("POST", replies, Reply(422, {"message": "Replies to replies are not supported"}))
    house.answer("POST", f"{PATH}/1/comments/{BIG}/replies", Reply(201, comment(11, in_reply_to_id=BIG)))
    assert (await house.value("Github.CreateReplyForReviewComment", **given))["id"] == 11
    assert [seen.method for seen in house.seen] == ["POST", "GET", "POST"]
    house.answer("GET", f"{PATH}/comments/9", comment(9))
    error = await house.error("Github.CreateReplyForReviewComment", **given)
    assert error.kind is Kind.VALIDATION_ERROR

    house.seen.clear()
    error = await house.error(
        "Github.CreateReplyForReviewComment", **given, resolve_thread=True, thread_id="PRRT_none"
    )
    assert error.kind is Kind.NOT_FOUND
    assert [seen.path for seen in house.seen] == ["/graphql"]  # and nothing was said


async def test_a_thread_is_resolved_in_its_repository_only(house: House) -> None:
    threads = Threads()
    house.answer("POST", "/graphql", threads)
    found = await house.value("Github.ResolveReviewThread", **HERE, thread_id="PRRT_1")
    assert (found["thread_id"], found["resolved"]) == ("PRRT_1", True)
    found = await house.value("Github.ResolveReviewThread", **HERE, thread_id="PRRT_1", resolved=False)
    assert found["resolved"] is False
    assert len(house.seen) == 4
    await house.value("Github.ResolveReviewThread", **HERE, thread_id="PRRT_2")  # it is resolved already
    assert len(house.seen) == 5
    threads.home = "octo/other"
    error = await house.error("Github.ResolveReviewThread", **HERE, thread_id="PRRT_1")
    assert error.kind is Kind.BAD_INPUT
    assert threads.resolved["PRRT_1"] is False
    house.answer("POST", "/graphql", {"data": {"node": {}}})  # an id of something else
    error = await house.error("Github.ResolveReviewThread", **HERE, thread_id="I_1")
    assert error.kind is Kind.BAD_INPUT


async def test_comments_come_with_their_threads(house: House) -> None:
    threads = Threads()
    replied = [comment(BIG), comment(9, in_reply_to_id=BIG), comment(7, line=None), comment(8)]
    house.answer("POST", "/graphql", threads)
    house.answer("GET", f"{PATH}/1/comments", replied)
    given = {**HERE, "pull_number": 1}
    found = await house.value("Github.ListReviewCommentsOnPullRequest", **given, since="2026-11-01")
    assert house.seen[0].query == {
        "sort": "created",
        "direction": "desc",
        "since": "2026-11-01T00:00:00Z",
        "per_page": "30",
        "page": "1",
    }
    assert threads.asked == [
        {"owner": "octo", "name": "hello", "number": 1},
        {"owner": "octo", "name": "hello", "number": 1, "after": "c1"},
    ]
    assert [(one["id"], one.get("thread_id"), one.get("resolved")) for one in found["comments"]] == [
        (BIG, "PRRT_1", False),
        (9, "PRRT_1", False),
        (7, "PRRT_2", True),
        (8, None, None),
    ]
    assert found["comments"][2]["outdated"] is True
    assert "diff_hunk" not in found["comments"][0]
    for wanted, ids in ((True, [7]), (False, [BIG, 9])):
        found = await house.value("Github.ListReviewCommentsOnPullRequest", **given, show_resolved=wanted)
        assert [one["id"] for one in found["comments"]] == ids

    house.answer("POST", "/graphql", {"errors": [{"type": "FORBIDDEN", "message": "not with this app"}]})
    found = await house.value("Github.ListReviewCommentsOnPullRequest", **given)
    assert len(found["comments"]) == 4
    assert "not with this app" in found["note"]
    error = await house.error("Github.ListReviewCommentsOnPullRequest", **given, show_resolved=True)
    assert error.kind is Kind.AUTH_ERROR
    house.seen.clear()
    house.answer("GET", f"{PATH}/1/comments", [])
    assert await house.value("Github.ListReviewCommentsOnPullRequest", **given) == {"comments": [], "page": 1}
    assert len(house.seen) == 1

    house.answer("POST", "/graphql", threads)
    house.answer("GET", f"{PATH}/1/comments", [comment(number, body="ü" * 9000) for number in range(1, 101)])
    found = await house.value("Github.ListReviewCommentsOnPullRequest", **given, per_page=100)
    assert len(found["comments"]) == 100  # and none of them is lost to the bound on results
    assert found["comments"][0]["body"].endswith("(8700 more characters)")


async def test_comments_of_a_whole_repository(house: House) -> None:
    link = f'<https://api.github.com{PATH}/comments?page=2>; rel="next"'
    long = comment(5, body="x" * 3000)
    house.answer("GET", f"{PATH}/comments", Reply(json=[long], headers={"Link": link}))
    found = await house.value(
        "Github.ListReviewCommentsInARepository", **HERE, sort="updated", direction="asc", per_page=1
    )
    assert found["next_page"] == 2
    assert found["comments"][0]["pull_number"] == 1
    assert found["comments"][0]["body"].endswith("(1000 more characters)")
    assert house.seen[0].query == {"sort": "updated", "direction": "asc", "per_page": "1", "page": "1"}
