"""GitHub's tools for issues and labels, over their real path."""

from __future__ import annotations

from typing import Any

from authproxy.tools.tool import Kind
from tests.tools.kit import House, Reply, Seen

PATH = "/repos/octo/hello/issues"
HERE = {"owner": "octo", "repo": "hello"}


def issue(number: int = 1, **more: Any) -> dict[str, Any]:
    return {
        "id": 1000 + number,
        "node_id": f"I_{number}",
        "url": f"https://api.github.com{PATH}/{number}",
        "repository_url": "https://api.github.com/repos/octo/hello",
        "html_url": f"https://github.com/octo/hello/issues/{number}",
        "number": number,
        "title": "Crash — ünï",
        "state": "open",
        "user": {"login": "mona", "id": 2, "avatar_url": "x"},
        "labels": [{"id": 1, "name": "bug", "color": "f00"}],
        "assignees": [{"login": "lisa"}],
        "milestone": {"number": 3, "title": "v1", "description": "x"},
        "comments": 2,
        "created_at": "2026-11-01T00:00:00Z",
        "updated_at": "2026-11-02T00:00:00Z",
        "closed_at": None,
        "body": "text",
        "reactions": {"total_count": 0},
        **more,
    }


async def test_issues_are_listed_without_pull_requests(house: House) -> None:
    link = f'<https://api.github.com{PATH}?page=3>; rel="next"'
    pull = issue(2, pull_request={"url": "x"})
    house.answer("GET", PATH, Reply(json=[issue(), pull], headers={"Link": link}))
    found = await house.value(
        "Github.ListIssues",
        **HERE,
        state="all",
        labels="bug, ui ,",
        since="2026-11-01",
        per_page=2,
        page=2,
    )
    assert found["issues"] == [
        {
            "number": 1,
            "title": "Crash — ünï",
            "state": "open",
            "author": "mona",
            "labels": ["bug"],
            "assignees": ["lisa"],
            "milestone": {"number": 3, "title": "v1"},
            "comments": 2,
            "created_at": "2026-11-01T00:00:00Z",
            "updated_at": "2026-11-02T00:00:00Z",
            "url": "https://github.com/octo/hello/issues/1",
        }
    ]
    assert (found["pull_requests_left_out"], found["next_page"]) == (1, 3)
    assert house.seen[0].query == {
        "state": "all",
        "labels": "bug,ui",
        "sort": "created",
        "direction": "desc",
        "since": "2026-11-01T00:00:00Z",
        "per_page": "2",
        "page": "2",
    }
    house.answer("GET", PATH, [])
    assert await house.value("Github.ListIssues", **HERE) == {"issues": [], "page": 1}
    assert house.seen[1].query["state"] == "open"
    assert "since" not in house.seen[1].query


async def test_issues_of_a_whole_organization_are_searched(house: House) -> None:
    house.answer(
        "GET", "/search/issues", {"total_count": 41, "incomplete_results": False, "items": [issue()]}
    )
    found = await house.value(
        "Github.ListIssues",
        **HERE,
        labels='bug,a" repo:x/y',
        since="2026-11-01",
        sort="updated",
        search_org_wide=True,
    )
    assert (found["total_count"], found["issues"][0]["repository"]) == (41, "octo/hello")
    assert "incomplete" not in found
    assert house.seen[0].query == {
        "q": 'org:octo is:issue label:"bug" label:"a\\" repo:x/y" updated:>=2026-11-01T00:00:00Z is:open',
        "sort": "updated",
        "order": "desc",
        "per_page": "30",
        "page": "1",
    }


async def test_an_issue_is_read(house: House) -> None:
    house.answer("GET", f"{PATH}/7", issue(7, body="x" * 7000, user=None, state_reason="reopened"))
    found = await house.value("Github.GetIssue", **HERE, issue_number=7)
    assert found["body"] == "x" * 6000 + "… (1000 more characters)"
    assert found["state_reason"] == "reopened"
    assert "author" not in found  # an account that is gone
    house.answer("GET", f"{PATH}/8", Reply(410, {"message": "This issue was deleted"}))
    error = await house.error("Github.GetIssue", **HERE, issue_number=8)
    assert error.kind is Kind.NOT_FOUND
    assert "This issue was deleted" in error.message


async def test_an_issue_is_opened_and_commented(house: House) -> None:
    house.answer("POST", PATH, Reply(201, issue(9, assignees=[], milestone=None)))
    found = await house.value(
        "Github.CreateIssue",
        **HERE,
        title="Crash — ünï",
        body="why",
        labels=["Bug", "ui"],
        assignees=["lisa"],
        milestone=3,
    )
    assert found == {
        "number": 9,
        "title": "Crash — ünï",
        "state": "open",
        "labels": ["bug"],
        "url": "https://github.com/octo/hello/issues/9",
        "ignored_labels": ["ui"],
        "ignored_assignees": ["lisa"],
    }
    assert house.seen[0].json == {
        "title": "Crash — ünï",
        "body": "why",
        "assignees": ["lisa"],
        "milestone": 3,
        "labels": ["Bug", "ui"],
    }
    await house.value("Github.CreateIssue", **HERE, title="t")
    assert house.seen[1].json == {"title": "t"}
    assert (await house.error("Github.CreateIssue", **HERE, title=" ")).kind is Kind.BAD_INPUT

    made = {"id": 5, "user": {"login": "mona"}, "body": "hi", "html_url": "https://github.com/c"}
    house.answer("POST", f"{PATH}/9/comments", Reply(201, made))
    comment = await house.value("Github.CreateIssueComment", **HERE, issue_number=9, body="hi 👋")
    assert comment == {"id": 5, "author": "mona", "url": "https://github.com/c"}
    assert house.seen[2].json == {"body": "hi 👋"}


async def test_an_issue_is_added_to_a_project_that_was_there_before_it(house: House) -> None:
    project = {"id": "PVT_1", "number": 12, "title": "Roadmap", "closed": False, "items": {"totalCount": 1}}
    owner: dict[str, Any] = {"__typename": "Organization", "login": "octo", "projectV2": project}
    forbidden = {"data": {"addProjectV2ItemById": None}, "errors": [{"type": "FORBIDDEN", "message": "no"}]}
    added: Any = {"data": {"addProjectV2ItemById": {"item": {"id": "PVTI_1"}}}}

    def graphql(seen: Seen) -> Any:
        if "mutation" in seen.json["query"]:
            assert seen.json["variables"] == {"project": "PVT_1", "content": "I_9"}
            return added
        assert seen.json["variables"] == {"login": "octo", "number": 12}
        return {"data": {"owner": owner}}

    house.answer("POST", "/graphql", graphql)
    house.answer("POST", PATH, Reply(201, issue(9)))
    given = {**HERE, "title": "t", "add_to_project_number": 12}
    found = await house.value("Github.CreateIssue", **given, add_to_project_scope="organization")
    assert found["project"] == {"number": 12, "title": "Roadmap", "added": True, "item_id": "PVTI_1"}
    assert [seen.path for seen in house.seen] == ["/graphql", PATH, "/graphql"]

    added = forbidden
    found = await house.value("Github.CreateIssue", **given)
    assert found["number"] == 9
    assert found["project"] == {"number": 12, "title": "Roadmap", "added": False, "reason": "no"}

    house.seen.clear()
    error = await house.error("Github.CreateIssue", **given, add_to_project_scope="user")
    assert error.kind is Kind.BAD_INPUT
    owner["projectV2"] = None
    error = await house.error("Github.CreateIssue", **given)
    assert error.kind is Kind.NOT_FOUND
    assert [seen.path for seen in house.seen] == ["/graphql", "/graphql"]  # no issue was made


async def test_an_issue_is_changed_in_what_is_given(house: House) -> None:
    house.answer("PATCH", f"{PATH}/1", issue(state="closed", labels=[], milestone=None))
    found = await house.value(
        "Github.UpdateIssue", **HERE, issue_number=1, state="closed", labels=[], milestone=0, body=""
    )
    assert house.seen[0].json == {"state": "closed", "labels": [], "milestone": None, "body": ""}
    assert (found["state"], found["changed"]) == ("closed", ["body", "labels", "milestone", "state"])
    for given in ({}, {"state": "all"}):
        error = await house.error("Github.UpdateIssue", **HERE, issue_number=1, **given)
        assert error.kind is Kind.BAD_INPUT
    house.answer(
        "PATCH",
        f"{PATH}/1",
        Reply(422, {"message": "Validation Failed", "errors": [{"message": "x is bad"}]}),
    )
    error = await house.error("Github.UpdateIssue", **HERE, issue_number=1, title="t")
    assert error.kind is Kind.VALIDATION_ERROR
    assert "Validation Failed; x is bad" in error.message


async def test_labels_are_listed(house: House) -> None:
    house.answer(
        "GET",
        "/repos/octo/hello/labels",
        [{"id": 1, "name": "bug", "color": "f00", "description": None, "default": True}],
    )
    found = await house.value("Github.ListRepositoryLabels", **HERE)
    assert found == {"labels": [{"name": "bug", "color": "f00"}], "page": 1}
    assert house.seen[0].query == {"per_page": "100", "page": "1"}


async def test_labels_are_settled_before_any_changes(house: House) -> None:
    held = [{"name": "bug"}, {"name": "area/ui"}, {"name": "wontfix"}]
    house.answer("GET", f"{PATH}/4", issue(4, labels=held))
    house.answer(
        "GET", "/repos/octo/hello/labels", [{"name": "bug"}, {"name": "enhancement"}, {"name": "docs"}]
    )
    house.answer("POST", f"{PATH}/4/labels", [])
    house.answer("DELETE", f"{PATH}/4/labels/area%2Fui", [])
    given = {**HERE, "number": 4, "entity_type": "issue"}
    error = await house.error("Github.ManageLabels", **given, add_labels=["docs", "enhancemnt"])
    assert error.kind is Kind.RETRY
    assert error.hint == "Near choices: enhancement."
    error = await house.error("Github.ManageLabels", **given, remove_labels=["wontfixx"])
    assert "wontfix" in (error.hint or "")
    assert all(seen.method == "GET" for seen in house.seen)

    found = await house.value(
        "Github.ManageLabels",
        **given,
        add_labels=["enhancemnt", "DOCS"],
        remove_labels=["area/ui", "wontfixx", "zzz"],
        auto_accept_matches=True,
    )
    assert found["labels"] == ["bug", "enhancement", "docs"]
    assert found["added"] == ["enhancement", "docs"]
    assert found["removed"] == ["area/ui"]
    assert found["were_not_there"] == [
        "zzz",
        "wontfix",
    ]  # GitHub has no answer for the last: somebody was quicker
    changes = [(seen.method, seen.path, seen.json) for seen in house.seen if seen.method != "GET"]
    assert changes == [
        ("POST", f"{PATH}/4/labels", {"labels": ["enhancement", "docs"]}),
        ("DELETE", f"{PATH}/4/labels/area%2Fui", None),
        ("DELETE", f"{PATH}/4/labels/wontfix", None),
    ]


async def test_labels_of_the_wrong_thing_are_left(house: House) -> None:
    house.answer("GET", f"{PATH}/4", issue(4))
    house.answer("GET", "/repos/octo/hello/labels", [{"name": "bug"}])
    given = {**HERE, "number": 4, "add_labels": ["bug"]}
    error = await house.error("Github.ManageLabels", **given, entity_type="pull_request")
    assert error.kind is Kind.NOT_FOUND  # GitHub has no pull request of an issue's number
    error = await house.error("Github.ManageLabels", **given, entity_type="issue", remove_labels=["BUG"])
    assert "to be added and taken away" in error.message
    error = await house.error("Github.ManageLabels", **HERE, number=4, entity_type="issue", add_labels=[" "])
    assert error.kind is Kind.BAD_INPUT
    house.answer("GET", f"{PATH}/4", issue(4, pull_request={"url": "x"}))
    error = await house.error("Github.ManageLabels", **given, entity_type="issue")
    assert "is a pull request" in error.message
    assert all(seen.method == "GET" for seen in house.seen)


async def test_labels_of_a_pull_request(house: House) -> None:
    house.answer("GET", "/repos/octo/hello/pulls/4", issue(4))
    house.answer("DELETE", f"{PATH}/4/labels/bug", [])
    found = await house.value(
        "Github.ManageLabels", **HERE, number=4, entity_type="pull_request", remove_labels=["Bug"]
    )
    assert (found["labels"], found["removed"]) == ([], ["bug"])
