"""The packaged tools are whole; a page that is not as the seam says is refused; rows that are one request send it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import pytest

from authproxy.core.packaged import packaged_routes
from authproxy.tools.loading import function_name, read_toolbox, tool_routes, toolbox
from authproxy.tools.rows import RowFault, segment
from authproxy.tools.tool import Answer, Call, Json, ToolError

COUNTS = {"Gmail": 30, "GoogleCalendar": 8, "Slack": 10, "Github": 43, "Hubspot": 40, "Salesforce": 17}
ALIASES = {
    "Google.SendEmail": "Gmail.SendEmail",
    "Google.CreateEvent": "GoogleCalendar.CreateEvent",
    "Slack.PostMessage": "Slack.SendMessage",
}


def page(*rows: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "toolkit": "Made",
        "version": "1.0.0",
        "description": "Made up.",
        "provider": "google",
        "route": "gmail",
        "tools": list(rows),
        **more,
    }


def row(**more: Any) -> dict[str, Any]:
    return {
        "name": "GetThing",
        "marks": "RI",
        "description": "Gets it.",
        "request": {"method": "GET", "path": "/things"},
        **more,
    }


def param(**more: Any) -> dict[str, Any]:
    return {"name": "thing_id", "type": "string", "required": True, "description": "Which.", **more}


def test_all_tools_are_there() -> None:
    found = toolbox()
    assert found.missing == ()
    assert Counter(tool.toolkit for tool in found if not tool.hidden) == COUNTS


def test_every_tool_says_what_it_is_for() -> None:
    silent = [tool.qualified_name for tool in toolbox() if len(tool.description) < 10]
    silent += [
        f"{tool.qualified_name}({one.name})"
        for tool in toolbox()
        for one in tool.parameters
        if len(one.description) < 3
    ]
    silent += [kit.name for kit in toolbox().kits.values() if len(kit.description) < 10]
    assert silent == []


def test_every_kit_stands_on_a_route_of_the_catalogue() -> None:
    for kit in toolbox().kits.values():
        assert packaged_routes()[kit.route].provider == kit.provider


def test_pages_are_named_for_their_routes() -> None:
    """So a proxy without one of these routes need not read any of them."""
    assert tool_routes() == {kit.route for kit in toolbox().kits.values()}


@pytest.mark.parametrize("name", sorted(ALIASES))
def test_names_of_older_documents_mean_what_they_meant(name: str) -> None:
    tool = toolbox().find(name)
    assert tool is not None
    assert tool.qualified_name == ALIASES[name]
    assert name not in [one.qualified_name for one in toolbox()]


def test_an_older_tool_of_its_own_is_hidden() -> None:
    tool = toolbox().find("Salesforce.UpdateRecord")
    assert tool is not None
    assert tool.hidden


@pytest.mark.parametrize(
    "spelling",
    [
        "Gmail.ListEmails",
        "Gmail.ListEmails@8.9.1",
        "Gmail_ListEmails",
        "gmail.listemails",
        "gmail-list_emails",
    ],
)
def test_a_tool_goes_by_every_spelling(spelling: str) -> None:
    tool = toolbox().find(spelling)
    assert tool is not None
    assert tool.qualified_name == "Gmail.ListEmails"


@pytest.mark.parametrize(
    "name", ["", "@", "Gmail", "Gmail.", ".ListEmails", "Gmail.ListEmails2", "Gmail/ListEmails"]
)
def test_other_names_find_nothing(name: str) -> None:
    assert toolbox().find(name) is None


def test_scopes_are_said_in_full() -> None:
    tool = toolbox().find("Gmail.ListEmails")
    assert tool is not None
    assert tool.scopes == tool.grant_scopes == ("https://www.googleapis.com/auth/gmail.readonly",)


def test_a_grant_may_say_scopes_in_other_words() -> None:
    made = read_toolbox(
        {
            "made": page(
                row(scopes=["read", "write", "other"]), grant_scopes={"read": ["api"], "write": ["api", "x"]}
            )
        }.items()
    )
    (tool,) = made
    assert tool.scopes == ("read", "write", "other")
    assert tool.grant_scopes == ("api", "x", "other")


def test_a_row_may_need_more_of_the_grant_than_it_lists() -> None:
    """Google sends drafts for who may compose, and not for who may only send."""
    tool = toolbox().find("Gmail.SendDraftEmail")
    assert tool is not None
    assert tool.scopes == ("https://www.googleapis.com/auth/gmail.send",)
    assert tool.grant_scopes == (*tool.scopes, "https://www.googleapis.com/auth/gmail.compose")


def test_functions_are_named_after_their_tools() -> None:
    named = ["ListEmails", "WhoAmI", "LogACall", "ListEmailsByHeader", "GetPRData"]
    assert [function_name(name) for name in named] == [
        "list_emails",
        "who_am_i",
        "log_a_call",
        "list_emails_by_header",
        "get_pr_data",
    ]


def test_a_row_without_its_function_is_named_and_not_offered() -> None:
    rows = [row(), {"name": "DoMore", "marks": "W"}, row(name="Shaped", answer="nobody_wrote_it")]
    made = read_toolbox({"made": page(*rows), "aliases": {"Old.DoMore": "Made.DoMore"}}.items())
    assert made.missing == ("Made.DoMore", "Made.Shaped")
    assert [tool.name for tool in made] == ["GetThing"]
    assert made.find("Made.DoMore") is made.find("Old.DoMore") is None


@pytest.mark.parametrize(
    "pages",
    [
        {"made": []},
        {"made": page(extra=1)},
        {"made": page(version=1)},
        {"made": page(row()), "again": page(row())},
        {"made": page(row(), row())},
        {"made": page(row(), row(name="GETTHING"))},
        {"made": page(row(surplus=1))},
        {"made": page(row(name="get_thing"))},
        {"made": page(row(marks="X"))},
        {"made": page(row(marks="IR"))},
        {"made": page(row(), grant_scopes={"read": ["api"]})},
        {"made": page(row(parameters=[param(), param()]))},
        {"made": page(row(parameters=[param(kind="x")]))},
        {"made": page(row(parameters=[param(name="ThingId")]))},
        {"made": page(row(parameters=[param(type="text")]))},
        {"made": page(row(parameters=[param(type="array")]))},
        {"made": page(row(parameters=[param(items="string")]))},
        {"made": page(row(parameters=[param(type="integer", enum=["1"])]))},
        {"made": page(row(parameters=[param(default="x")]))},
        {"made": page(row(parameters=[param(required=False, default=1)]))},
        {"made": page(row(parameters=[param(required=False, type="integer", default=True)]))},
        {"made": page(row(parameters=[param(required=False, enum=["a"], default="b")]))},
        {"made": page(row(request={"method": "TRACE", "path": "/x"}))},
        {"made": page(row(request={"method": "GET", "path": "x"}))},
        {"made": page(row(request={"method": "GET", "path": "/x", "headers": {}}))},
        {"made": page(row(request={"method": "GET", "path": "/{nobody}"}))},
        {
            "made": page(
                row(request={"method": "GET", "path": "/{thing_id}"}, parameters=[param(required=False)])
            )
        },
        {"made": page(row(request={"method": "GET", "path": "/{thing id}"}, parameters=[param()]))},
        {"made": page(row(request={"method": "GET", "path": "/x", "query": {"q": "{nobody}"}}))},
        {"made": page(row(request={"method": "GET", "path": "/x", "query": {"q": "is:{thing_id}"}}))},
        {"made": page(row(request={"method": "POST", "path": "/x", "json": [{"q": "{nobody}"}]}))},
        {"made": page({"name": "GetThing", "marks": "R", "answer": "short"})},
        {"made": page(row()), "aliases": {"Old.Thing": "Made.Nothing"}},
        {"made": page(row(), row(name="Other")), "aliases": {"Made.Other": "Made.GetThing"}},
    ],
)
def test_a_page_that_is_not_as_it_should_be_is_refused(pages: dict[str, Any]) -> None:
    with pytest.raises(RowFault):
        read_toolbox(pages.items())


class Recorder:
    """An Api that keeps what it is asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, Any, Any]] = []

    async def call(
        self, method: str, path: str, *, query: Any = None, json: Json = None, **_more: Any
    ) -> Answer:
        self.asked.append((method, path, query, json))
        return Answer(200, {}, b"", {"whole": "answer"})


REQUEST = {
    "method": "POST",
    "path": "/v1/{thing_id}/parts/{number}",
    "query": {"limit": "{limit}", "kind": "plain", "flag": "{flag}"},
    "json": {
        "names": "{names}",
        "fixed": [1, "x"],
        "deep": {"limit": "{limit}"},
        "any": ["{limit}", "{number}"],
    },
}
PARAMETERS = [
    param(),
    param(name="number", type="integer"),
    param(name="limit", type="integer", required=False),
    param(name="flag", type="boolean", required=False),
    param(name="names", type="array", items="string", required=False),
]


@pytest.mark.parametrize(
    ("given", "query", "body"),
    [
        (
            {"limit": 5, "flag": False, "names": ["a"]},
            {"limit": 5, "kind": "plain", "flag": False},
            {"names": ["a"], "fixed": [1, "x"], "deep": {"limit": 5}, "any": [5, 7]},
        ),
        ({}, {"kind": "plain"}, {"fixed": [1, "x"], "any": [7]}),
    ],
)
async def test_a_row_that_is_one_request(given: dict[str, Any], query: Any, body: Any) -> None:
    (tool,) = read_toolbox([("made", page(row(request=REQUEST, parameters=PARAMETERS)))])
    api = Recorder()
    value = await tool.run(Call({"thing_id": "ü b@c", "number": 7, **given}, api, 0, "alice"))
    assert value == {"whole": "answer"}
    assert api.asked == [("POST", "/v1/%C3%BC%20b@c/parts/7", query, body)]


@pytest.mark.parametrize("value", ["", ".", "..", "a/b", "../x", "a\\b", "a\nb", "\x00"])
def test_an_argument_is_one_segment_or_none(value: str) -> None:
    with pytest.raises(ToolError):
        segment(value, "thing_id")


def test_what_would_bend_a_path_is_encoded() -> None:
    assert segment("a?b#c%2f d", "thing_id") == "a%3Fb%23c%252f%20d"
