"""GitHub's tools for projects, over their real path."""

from __future__ import annotations

from typing import Any

import pytest

from authproxy.tools.tool import Kind
from tests.tools.kit import House, Seen

WHERE = {"scope_target": "organization", "scope_identifier": "octo"}
BY_NUMBER = {**WHERE, "project_search_mode": "number", "project_identifier": "12"}


def project(number: int, title: str, **more: Any) -> dict[str, Any]:
    return {
        "id": f"PVT_{number}",
        "number": number,
        "title": title,
        "shortDescription": None,
        "closed": False,
        "public": False,
        "url": f"https://github.com/orgs/octo/projects/{number}",
        "updatedAt": "2026-11-01T00:00:00Z",
        "items": {"totalCount": 2},
        **more,
    }


PROJECTS = [project(12, "Q1 Roadmap"), project(13, "Q2 Roadmap"), project(9, "Old", closed=True)]
ITEM = {
    "id": "PVTI_1",
    "type": "ISSUE",
    "isArchived": False,
    "updatedAt": "2026-11-01T00:00:00Z",
    "fieldValues": {
        "nodes": [
            {"text": "Fix it", "field": {"name": "Title"}},
            {"name": "In Progress", "field": {"name": "Status"}},
            {"number": 3.0, "field": {"name": "Points"}},
            {"title": "Sprint 1", "field": {"name": "Iteration"}},
            {},
        ]
    },
    "content": {
        "title": "Fix it",
        "number": 7,
        "url": "https://github.com/octo/hello/issues/7",
        "issueState": "OPEN",
        "repository": {"nameWithOwner": "octo/hello"},
        "assignees": {"nodes": [{"login": "mona"}]},
        "labels": {"nodes": [{"name": "bug"}]},
    },
}
TOLD = {
    "id": "PVTI_1",
    "type": "ISSUE",
    "title": "Fix it",
    "number": 7,
    "repository": "octo/hello",
    "state": "OPEN",
    "assignees": ["mona"],
    "labels": ["bug"],
    "fields": {"Status": "In Progress", "Points": 3.0, "Iteration": "Sprint 1"},
    "updated_at": "2026-11-01T00:00:00Z",
    "url": "https://github.com/octo/hello/issues/7",
}


def page(nodes: list[Any], cursor: str | None = None) -> dict[str, Any]:
    more = {"hasNextPage": cursor is not None, "endCursor": cursor}
    return {"totalCount": len(nodes), "nodes": nodes, "pageInfo": more}


class Graph:
    """GraphQL with three projects of an organization, and items of one."""

    def __init__(self) -> None:
        self.kind = "Organization"
        self.titles = [("PVTI_1", "Fix it"), ("PVTI_2", "Fix its tests"), ("PVTI_3", None)]
        self.asked: list[Any] = []

    def __call__(self, seen: Seen) -> Any:
        document, variables = seen.json["query"], seen.json["variables"]
        self.asked.append(variables)
        if "repositoryOwner" in document:
            return {"data": {"owner": self.owner(document, variables)}}
        if "fields(first" in document:
            return {"data": {"node": {"fields": {"nodes": FIELDS}}}}
        if "fragment I" not in document:
            nodes = [{"id": name, "content": title and {"title": title}} for name, title in self.titles]
            first = "after" not in variables
            return {
                "data": {"node": {"items": page(nodes[:2] if first else nodes[2:], "t1" if first else None)}}
            }
        if "$first" in document:
            assert ("words" in variables) is ("query: $words" in document)
            return {"data": {"node": {"items": page([ITEM, None], "i1")}}}
        if variables["id"] != "PVTI_1":
            home = "PVT_elsewhere" if variables["id"] == "PVTI_9" else "PVT_12"
            return {"data": {"node": {**ITEM, "id": variables["id"], "project": {"id": home}}}}
        return {"data": {"node": {**ITEM, "project": {"id": "PVT_12"}}}}

    def owner(self, document: str, variables: Any) -> Any:
        if variables["login"] == "nobody":
            return None
        found: dict[str, Any] = {"__typename": self.kind, "login": variables["login"]}
        if "projectsV2" in document:
            words = variables.get("words", "").casefold()
            found["projectsV2"] = page([one for one in PROJECTS if words in one["title"].casefold()], "p1")
        else:
            found["projectV2"] = next((one for one in PROJECTS if one["number"] == variables["number"]), None)
        return found


FIELDS = [
    {"id": "F1", "name": "Title", "dataType": "TITLE"},
    {"id": "F2", "name": "Status", "dataType": "SINGLE_SELECT", "options": [{"id": "o1", "name": "Todo"}]},
    {
        "id": "F3",
        "name": "Iteration",
        "dataType": "ITERATION",
        "configuration": {
            "iterations": [{"id": "i1", "title": "S1", "startDate": "2026-11-01", "duration": 14}]
        },
    },
    None,
]


@pytest.fixture
def graph(house: House) -> Graph:
    found = Graph()
    house.answer("POST", "/graphql", found)
    return found


async def test_projects_are_listed(house: House, graph: Graph) -> None:
    given = {**WHERE, "search_mode": "name"}
    found = await house.value("Github.ListProjects", **given, query_filter="o", per_page=200, cursor="p0")
    assert found["projects"][0] == {
        "number": 12,
        "title": "Q1 Roadmap",
        "id": "PVT_12",
        "state": "open",
        "public": False,
        "items": 2,
        "updated_at": "2026-11-01T00:00:00Z",
        "url": "https://github.com/orgs/octo/projects/12",
    }
    assert [one["number"] for one in found["projects"]] == [12, 13]
    assert (found["left_out"], found["next_cursor"]) == (1, "p1")
    assert graph.asked == [{"login": "octo", "first": 100, "after": "p0", "words": "o"}]
    closed = await house.value("Github.ListProjects", **given, state="closed")
    assert [one["number"] for one in closed["projects"]] == [9]
    every = await house.value("Github.ListProjects", **given, state="all")
    assert len(every["projects"]) == 3


async def test_a_project_is_found_by_number_or_name(house: House, graph: Graph) -> None:
    async def numbers(mode: str, identifier: str, **more: Any) -> Any:
        found = await house.value(
            "Github.ListProjects", **WHERE, search_mode=mode, project_identifier=identifier, **more
        )
        return [one["number"] for one in found["projects"]]

    assert await numbers("number", "#13") == [13]
    assert await numbers("name", "q2 roadmap") == [13]
    assert await numbers("name", "Q2 Rodmap") == [13, 12]
    assert await numbers("name", "Q2 Rodmap", auto_accept_matches=True) == [13]
    for identifier, kind in (("x", Kind.BAD_INPUT), ("0", Kind.BAD_INPUT), ("99", Kind.NOT_FOUND)):
        error = await house.error(
            "Github.ListProjects", **WHERE, search_mode="number", project_identifier=identifier
        )
        assert error.kind is kind
    by_name = {**WHERE, "project_search_mode": "name", "project_identifier": "Q3 Roadmap"}
    error = await house.error("Github.ListProjectFields", **by_name)
    assert error.kind is Kind.RETRY
    assert "Q1 Roadmap (number 12)" in (error.hint or "")
    graph.kind = "User"
    error = await house.error("Github.ListProjectFields", **BY_NUMBER)
    assert "octo is no organization" in error.message
    assert await house.value("Github.ListProjectFields", **{**BY_NUMBER, "scope_target": "all"})
    error = await house.error("Github.ListProjectFields", **{**BY_NUMBER, "scope_identifier": "nobody"})
    assert error.kind is Kind.NOT_FOUND
    house.answer("GET", "/user", {"login": "mona"})
    await house.value(
        "Github.ListProjectFields", **{**BY_NUMBER, "scope_target": "user", "scope_identifier": "@me"}
    )
    assert graph.asked[-2] == {"login": "mona", "number": 12}


async def test_fields_come_with_their_choices(house: House, graph: Graph) -> None:
    found = await house.value("Github.ListProjectFields", **BY_NUMBER)
    assert found["project"] == {
        "number": 12,
        "title": "Q1 Roadmap",
        "id": "PVT_12",
        "url": "https://github.com/orgs/octo/projects/12",
    }
    assert [one["type"] for one in found["fields"]] == ["TITLE", "SINGLE_SELECT", "ITERATION"]
    assert found["fields"][1]["options"] == [{"id": "o1", "name": "Todo"}]
    assert found["fields"][2]["iterations"][0]["title"] == "S1"
    assert graph.asked == [{"login": "octo", "number": 12}, {"id": "PVT_12"}]


async def test_items_are_filtered_by_github(house: House, graph: Graph) -> None:
    found = await house.value("Github.ListProjectItems", **BY_NUMBER)
    assert found["items"] == [TOLD]
    assert (found["next_cursor"], "query" in found) == ("i1", False)
    found = await house.value(
        "Github.ListProjectItems",
        **BY_NUMBER,
        filter_assignee="@me",
        filter_status='In "Progress"',
        filter_labels=["bug", "area/ui"],
        filter_is_open=True,
        per_page=5,
        cursor="i0",
    )
    words = 'assignee:@me status:"In \\"Progress\\"" label:"bug" label:"area/ui" is:open'
    assert found["query"] == words
    assert graph.asked[-1] == {"id": "PVT_12", "first": 5, "after": "i0", "words": words}
    await house.value("Github.ListProjectItems", **BY_NUMBER, filter_is_open=False, filter_assignee="@mona")
    assert graph.asked[-1]["words"] == "assignee:mona is:closed"
    await house.value(
        "Github.ListProjectItems", **BY_NUMBER, filter_is_open=False, advanced_query="-status:Done"
    )
    assert graph.asked[-1]["words"] == "-status:Done"
    error = await house.error("Github.ListProjectItems", **BY_NUMBER, filter_assignee="a b")
    assert error.kind is Kind.BAD_INPUT


async def test_one_item_is_found(house: House, graph: Graph) -> None:
    by_id = {**BY_NUMBER, "item_search_mode": "id"}
    assert await house.value("Github.SearchProjectItem", **by_id, item_identifier="PVTI_1") == {
        "found": True,
        "item": TOLD,
    }
    error = await house.error("Github.SearchProjectItem", **by_id, item_identifier="PVTI_9")
    assert error.kind is Kind.NOT_FOUND  # it is of another project
    by_title = {**BY_NUMBER, "item_search_mode": "title"}
    found = await house.value("Github.SearchProjectItem", **by_title, item_identifier="FIX IT")
    assert (found["found"], found["item"]["id"]) == (True, "PVTI_1")
    assert {"id": "PVT_12", "after": "t1"} in graph.asked
    near = await house.value("Github.SearchProjectItem", **by_title, item_identifier="Fix its test")
    assert near["found"] is False
    assert [one["title"] for one in near["suggestions"]] == ["Fix its tests", "Fix it"]
    sure = await house.value(
        "Github.SearchProjectItem", **by_title, item_identifier="Fix its test", auto_accept_matches=True
    )
    assert sure["item"]["id"] == "PVTI_2"
    graph.titles = [("PVTI_1", "Same"), ("PVTI_2", "Same"), ("PVTI_3", None)]
    both = await house.value("Github.SearchProjectItem", **by_title, item_identifier="same")
    assert (both["found"], len(both["suggestions"])) == (False, 2)
    error = await house.error("Github.SearchProjectItem", **by_title, item_identifier=" ")
    assert error.kind is Kind.BAD_INPUT


async def test_a_part_that_may_not_be_seen_leaves_the_rest(house: House) -> None:
    owner = {"__typename": "Organization", "login": "octo", "projectV2": PROJECTS[0]}
    items = {
        "data": {"node": {"items": page([ITEM, None])}},
        "errors": [{"type": "FORBIDDEN", "path": ["node", "items", "nodes", 1], "message": "SAML"}],
    }
    missing = {
        "data": {"owner": {"__typename": "Organization", "login": "octo", "projectV2": None}},
        "errors": [{"type": "NOT_FOUND", "message": "Could not resolve to a ProjectV2 with the number 12."}],
    }
    scopes = {"errors": [{"type": "INSUFFICIENT_SCOPES", "message": "needs read:project"}]}
    house.answer("POST", "/graphql", {"data": {"owner": owner}}, items, missing, scopes)
    found = await house.value("Github.ListProjectItems", **BY_NUMBER)
    assert found["items"] == [TOLD]
    error = await house.error("Github.ListProjectItems", **BY_NUMBER)
    assert error.kind is Kind.NOT_FOUND
    error = await house.error("Github.ListProjectItems", **BY_NUMBER)
    assert (error.kind, error.message) == (Kind.AUTH_ERROR, "needs read:project")
