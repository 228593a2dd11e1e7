"""What the tools of GitHub answer: the few fields that a model needs, with long text cut."""

from __future__ import annotations

import re
from typing import Any

from authproxy.tools.tool import Json

BODY = 6_000  # characters of an issue's or a pull request's text
COMMENT = 2_000  # characters of a comment
ALL_COMMENTS = 30_000  # characters of all comments of a page


def lean(**fields: Any) -> dict[str, Any]:
    """The fields that say something: what is None or empty is left out."""
    return {name: value for name, value in fields.items() if value is not None and value not in ("", [], {})}


def cut(text: str | None, most: int) -> str | None:
    """`text`, or its beginning and how much is missing."""
    if not text or len(text) <= most:
        return text or None
    return f"{text[:most]}… ({len(text) - most} more characters)"


def login(user: Json) -> str | None:
    """Whose it is; None for an account that is gone."""
    return user.get("login") if isinstance(user, dict) else None


def logins(users: Json) -> list[str]:
    """The logins of a list of users."""
    return [name for name in map(login, users or []) if name]


def label_names(labels: Json) -> list[str]:
    """The names of labels, which GitHub gives as objects or as strings."""
    return [label if isinstance(label, str) else label.get("name", "") for label in labels or []]


def milestone(value: Json) -> dict[str, Any] | None:
    """A milestone's number and title."""
    return lean(number=value.get("number"), title=value.get("title")) if isinstance(value, dict) else None


def _home(item: Json) -> str | None:
    """`OWNER/NAME`, of an element of a search that spans repositories."""
    found = re.search(r"/repos/([^/]+/[^/]+)$", item.get("repository_url") or "")
    return found[1] if found else None


def issue_line(item: Json, *, repository: bool = False) -> dict[str, Any]:
    """An issue in a list."""
    return lean(
        number=item.get("number"),
        title=item.get("title"),
        repository=_home(item) if repository else None,
        state=item.get("state"),
        state_reason=item.get("state_reason"),
        author=login(item.get("user")),
        labels=label_names(item.get("labels")),
        assignees=logins(item.get("assignees")),
        milestone=milestone(item.get("milestone")),
        comments=item.get("comments"),
        created_at=item.get("created_at"),
        updated_at=item.get("updated_at"),
        closed_at=item.get("closed_at"),
        url=item.get("html_url"),
    )


def issue(item: Json) -> dict[str, Any]:
    """One issue, with its text."""
    return {
        **issue_line(item),
        **lean(
            body=cut(item.get("body"), BODY),
            locked=item.get("locked") or None,
            is_pull_request=True if item.get("pull_request") else None,
        ),
    }


def pull_line(item: Json, *, repository: bool = False) -> dict[str, Any]:
    """A pull request in a list; of a search it has no branches."""
    of_search = item.get("pull_request") or {}
    merged_at = item.get("merged_at") or of_search.get("merged_at")
    return lean(
        number=item.get("number"),
        title=item.get("title"),
        repository=_home(item) if repository else None,
        state="merged" if merged_at else item.get("state"),
        draft=item.get("draft") or None,
        author=login(item.get("user")),
        head=_end(item.get("head"), item.get("base")),
        base=(item.get("base") or {}).get("ref"),
        labels=label_names(item.get("labels")),
        assignees=logins(item.get("assignees")),
        reviewers=logins(item.get("requested_reviewers")) + _teams(item.get("requested_teams")),
        comments=item.get("comments"),
        created_at=item.get("created_at"),
        updated_at=item.get("updated_at"),
        merged_at=merged_at,
        closed_at=None if merged_at else item.get("closed_at"),
        url=item.get("html_url"),
    )


def pull(item: Json) -> dict[str, Any]:
    """One pull request, with its text and what says whether it can be merged."""
    return {
        **pull_line(item),
        **lean(
            body=cut(item.get("body"), BODY),
            head_sha=(item.get("head") or {}).get("sha"),
            mergeable=item.get("mergeable"),
            mergeable_state=item.get("mergeable_state"),
            merged_by=login(item.get("merged_by")),
            merge_commit_sha=item.get("merge_commit_sha") if item.get("merged") else None,
            commits=item.get("commits"),
            additions=item.get("additions"),
            deletions=item.get("deletions"),
            changed_files=item.get("changed_files"),
            review_comments=item.get("review_comments"),
            milestone=milestone(item.get("milestone")),
        ),
    }


def _end(head: Json, base: Json) -> str | None:
    """A branch, with its owner where it is in a fork."""
    if not isinstance(head, dict):
        return None
    ours = ((base or {}).get("repo") or {}).get("full_name")
    theirs = (head.get("repo") or {}).get("full_name")
    same = theirs is not None and theirs == ours
    return head.get("ref") if same or ours is None else head.get("label") or head.get("ref")


def _teams(teams: Json) -> list[str]:
    return [f"team:{team['slug']}" for team in teams or [] if team.get("slug")]


def repository_line(item: Json) -> dict[str, Any]:
    """A repository in a list."""
    return lean(
        full_name=item.get("full_name"),
        description=cut(item.get("description"), 200),
        visibility=item.get("visibility") or ("private" if item.get("private") else "public"),
        default_branch=item.get("default_branch"),
        language=item.get("language"),
        stars=item.get("stargazers_count"),
        fork=item.get("fork") or None,
        archived=item.get("archived") or None,
        pushed_at=item.get("pushed_at"),
        url=item.get("html_url"),
    )


def repository(item: Json) -> dict[str, Any]:
    """One repository."""
    permissions = item.get("permissions") or {}
    return {
        **repository_line(item),
        **lean(
            owner=login(item.get("owner")),
            description=cut(item.get("description"), 1_000),
            topics=item.get("topics"),
            license=(item.get("license") or {}).get("spdx_id") or (item.get("license") or {}).get("name"),
            homepage=item.get("homepage"),
            forks=item.get("forks_count"),
            watchers=item.get("subscribers_count"),
            open_issues_and_pull_requests=item.get("open_issues_count"),
            parent=(item.get("parent") or {}).get("full_name"),
            size_kb=item.get("size"),
            created_at=item.get("created_at"),
            updated_at=item.get("updated_at"),
            your_permissions=[name for name, held in permissions.items() if held],
        ),
    }


def review_comments(items: list[Any]) -> list[dict[str, Any]]:
    """Comments on lines, each with as much of its text as so many of them leave room for."""
    most = max(min(COMMENT, ALL_COMMENTS // max(len(items), 1)), 200)
    return [review_comment(item, most) for item in items]


def review_comment(item: Json, most: int = COMMENT) -> dict[str, Any]:
    """A comment on lines of a pull request."""
    return lean(
        id=item.get("id"),
        pull_number=_pull_number(item),
        in_reply_to_id=item.get("in_reply_to_id"),
        author=login(item.get("user")),
        path=item.get("path"),
        start_line=item.get("start_line"),
        line=item.get("line") or item.get("original_line"),
        side=item.get("side"),
        outdated=True if item.get("line") is None and item.get("subject_type") == "line" else None,
        body=cut(item.get("body"), most),
        created_at=item.get("created_at"),
        updated_at=item.get("updated_at"),
        url=item.get("html_url"),
    )


def _pull_number(item: Json) -> int | None:
    found = re.search(r"/pulls/(\d+)$", item.get("pull_request_url") or "")
    return int(found[1]) if found else None


def commit_line(item: Json) -> dict[str, Any]:
    """A commit: the first line of its message, and whose it is."""
    commit = item.get("commit") or {}
    author = commit.get("author") or {}
    return lean(
        sha=item.get("sha"),
        message=cut((commit.get("message") or "").partition("\n")[0], 200),
        author=login(item.get("author")) or author.get("name"),
        date=author.get("date"),
        repository=(item.get("repository") or {}).get("full_name"),
        url=item.get("html_url"),
    )
