"""What GitHub's tools ask with: paths that stay in their segments, moments, near names, words of failures."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from authproxy.tools.kits.github import error_words, read_failure
from authproxy.tools.kits.github.asking import (
    account,
    branch_name,
    encoded,
    file_path,
    likeness,
    moment,
    nearest,
    next_page,
    next_query,
    owner_and_name,
    quoted,
    settle,
)
from authproxy.tools.tool import Answer, Call, Kind, ToolError
from tests.tools.kit import House

NOW = int(datetime(2026, 11, 23, 15, 30, tzinfo=UTC).timestamp())


def call(**given: Any) -> Call:
    return Call(given, None, NOW, "alice")  # type: ignore[arg-type] # nothing is sent


@pytest.mark.parametrize(
    "name", ["", ".", "..", "a/b", "a b", "a?b", "a#b", "a%2fb", "-a", "@me", "a\\b", "é"]
)
def test_an_owner_is_a_login(name: str) -> None:
    with pytest.raises(ToolError) as raised:
        account(name)
    assert raised.value.kind is Kind.BAD_INPUT


def test_a_login_may_have_an_at_before_it() -> None:
    assert account(" @mona-lisa_corp ") == "mona-lisa_corp"


@pytest.mark.parametrize(
    ("repo", "name"),
    [("hello", "hello"), ("Octo/hello", "hello"), ("hello.git", "hello"), (".github", ".github")],
)
def test_a_repository_may_be_written_in_several_ways(repo: str, name: str) -> None:
    assert owner_and_name(call(owner="octo", repo=repo)) == ("octo", name)


@pytest.mark.parametrize(
    "repo", ["", ".", "..", "octo/..", "other/hello", "a/b/c", "a?b", "a#b", "a b", ".git"]
)
def test_a_repository_is_one_segment(repo: str) -> None:
    with pytest.raises(ToolError):
        owner_and_name(call(owner="octo", repo=repo))


@pytest.mark.parametrize(
    ("path", "sent"),
    [
        ("/docs/a b.md", "docs/a%20b.md"),
        ("ü/100%?.txt#x", "%C3%BC/100%25%3F.txt%23x"),
        ("..a/b..", "..a/b.."),
        ("a/%2e%2e/b", "a/%252e%252e/b"),
    ],
)
def test_a_path_is_encoded_by_its_segments(path: str, sent: str) -> None:
    assert file_path(path) == sent


@pytest.mark.parametrize("path", ["", "/", "..", "a/../b", "a//b", "./a", "a/.", "a\\b", "a\nb", "a\0"])
def test_a_path_stays_in_its_repository(path: str) -> None:
    with pytest.raises(ToolError):
        file_path(path)


@pytest.mark.parametrize(
    "name",
    [
        *("", "..", "a..b", "a b", "a~b", "a^b", "a:b", "a?b", "a*b", "a[b", "a\\b", "a/", "/a", "a//b"),
        *("a.lock", "a/.b", "-a", "a@{b", "@", "a.", "a\nb", "x" * 300),
    ],
)
def test_a_branch_is_what_git_allows(name: str) -> None:
    with pytest.raises(ToolError):
        branch_name(name)


def test_a_branch_may_have_slashes_and_any_letters() -> None:
    assert branch_name("refs/heads/feature/ü#1%") == "feature/ü#1%"
    assert encoded("feature/ü#1%") == "feature/%C3%BC%231%25"


def test_a_value_cannot_end_its_qualifier() -> None:
    assert quoted('a" repo:x/y "') == '"a\\" repo:x/y \\""'
    assert quoted("a\\") == '"a\\\\"'


@pytest.mark.parametrize(
    ("text", "sent"),
    [
        ("today", "2026-11-23T00:00:00Z"),
        ("Yesterday", "2026-11-22T00:00:00Z"),
        ("last week", "2026-11-16T00:00:00Z"),
        ("last_30_days", "2026-10-24T00:00:00Z"),
        ("2026-11-10", "2026-11-10T00:00:00Z"),
        ("2026-11-10T12:00:00Z", "2026-11-10T12:00:00Z"),
        ("2026-11-10T12:00:00.5+02:00", "2026-11-10T10:00:00Z"),
    ],
)
def test_moments(text: str, sent: str) -> None:
    assert moment(text, NOW) == sent


@pytest.mark.parametrize("text", ["soon", "", "2026-13-01", "last_99999_days", "0001-01-01T00:00:00+10:00"])
def test_no_moment(text: str) -> None:
    with pytest.raises(ToolError):
        moment(text, NOW)


def test_near_names() -> None:
    assert likeness("Bug", "bug") == 1.0
    assert likeness("bugfix", "bug-fix") == 0.98
    assert likeness("x" * 200 + "a", "x" * 200 + "b") < 1.0
    assert nearest("enhancemnt", ["bug", "enhancement", "enhance"])[0][0] == "enhancement"
    assert settle("BUG", ["bug", "ui"], "label", accept=False) == "bug"
    assert settle("enhancemnt", ["bug", "enhancement"], "label", accept=True) == "enhancement"
    assert settle("Main", ["main", "Main"], "branch", accept=False) == "Main"
    for asked, names, accept in (
        ("enhancemnt", ["enhancement"], False),
        ("release-1", ["release-10", "release-11"], True),
        ("MAIN", ["main", "Main"], True),
        ("zzz", [], True),
    ):
        with pytest.raises(ToolError) as raised:
            settle(asked, names, "label", accept=accept)
        assert raised.value.kind is Kind.RETRY
        assert raised.value.hint is not None
        assert all(name in raised.value.hint for name in names)


def test_pages_are_read_from_links() -> None:
    def answer(link: str) -> Answer:
        return Answer(200, {"link": link}, b"")

    two = '<https://x/y?page=1>; rel="prev", <https://x/y?a=%20b&page=3>; rel="next"'
    assert next_page(answer(two)) == 3
    assert next_query(answer(two))["a"] == " b"
    assert next_page(answer('<https://x/y?page=1>; rel="prev"')) is None
    assert next_page(answer('<https://x/y?after=abc>; rel="next"')) is None
    assert next_page(Answer(200, {}, b"")) is None


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"message": "Not Found"}, "Not Found"),
        (
            {
                "message": "Validation Failed",
                "errors": [
                    {"resource": "Issue", "field": "title", "code": "missing_field", "value": "secret"},
                    {"message": "No commits"},
                    "plain",
                ],
                "documentation_url": "https://docs.github.com/v3",
            },
            "Validation Failed; Issue.title: missing_field; No commits; plain (https://docs.github.com/v3)",
        ),
        ({"message": "a\n\tb", "documentation_url": "https://evil.invalid"}, "a b"),
        ({"message": "x" * 500}, "x" * 200),
        ({"message": "Bad", "errors": "why"}, "Bad; why"),
        ({"error": "invalid"}, None),
        ([], None),
        (None, None),
    ],
)
def test_words_of_a_failure(body: Any, words: str | None) -> None:
    assert error_words(422, body) == words


def test_failures_within_a_200() -> None:
    def failure(json: Any, **fields: str) -> ToolError | None:
        return read_failure(Answer(200, {name.replace("_", "-"): v for name, v in fields.items()}, b"", json))

    assert failure({"data": {"node": {}}}) is None
    assert failure([{"errors": 1}]) is None
    partial = {"data": {"node": {"items": []}}, "errors": [{"type": "FORBIDDEN", "message": "some"}]}
    assert failure(partial) is None
    missing = failure({"data": {"node": None}, "errors": [{"type": "NOT_FOUND", "message": "No\nnode"}]})
    assert missing is not None
    assert (missing.kind, missing.message, missing.status) == (Kind.NOT_FOUND, "No node", 200)
    limited = failure(
        {"errors": [{"type": "RATE_LIMITED", "message": "API rate limit exceeded"}]},
        x_ratelimit_reset=str(NOW + 90),
        date="Mon, 23 Nov 2026 15:30:00 GMT",
    )
    assert limited is not None
    assert (limited.kind, limited.can_retry, limited.retry_after_ms) == (Kind.RATE_LIMIT, True, 90_000)
    unknown = failure({"errors": ["odd"]})
    assert unknown is not None
    assert unknown.kind is Kind.BAD_REQUEST


async def test_no_argument_leaves_its_place(house: House) -> None:
    """Nothing is sent at all for what would reach another path."""
    for tool, given in (
        ("GetRepository", {"owner": "..", "repo": "x"}),
        ("GetRepository", {"owner": "a/b", "repo": "x"}),
        ("GetIssue", {"owner": "a", "repo": "..", "issue_number": 1}),
        ("CountStargazers", {"owner": "a", "name": "b/c"}),
        ("CreateIssueComment", {"owner": "a?", "repo": "b#", "issue_number": 1, "body": "x"}),
        ("GetFileContents", {"owner": "a", "repo": "b", "path": "../../user"}),
        ("ListIssues", {"owner": "a", "repo": "../../../user"}),
        ("MergePullRequest", {"owner": "a", "repo": "b", "pull_request_number": -1}),
        ("SetStarred", {"owner": "a", "name": ".."}),
    ):
        house.answer("GET", "/user", {"login": "x"})
        await house.error(f"Github.{tool}", **given)
    assert [seen.path for seen in house.seen if "%" not in seen.path] == []
