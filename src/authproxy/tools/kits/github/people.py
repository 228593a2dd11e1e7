"""What concerns the user: who they are, what waits for them, what they did."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from authproxy.tools.kits.github import shaping
from authproxy.tools.kits.github.asking import account, ask, per_page, read, unless_refused
from authproxy.tools.kits.github.shaping import lean
from authproxy.tools.tool import Call, Input, Json, bad_input

_MOST_DAYS = 365
_WORKLOAD = 30  # pull requests of each kind
_REVIEWED_SINCE = 30  # days


def shape_user(json: Json, _input: Input) -> Json:
    """WhoAmI's answer."""
    return lean(
        login=json.get("login"),
        id=json.get("id"),
        type=json.get("type"),
        name=json.get("name"),
        email=json.get("email"),
        company=json.get("company"),
        location=json.get("location"),
        bio=shaping.cut(json.get("bio"), 500),
        public_repos=json.get("public_repos"),
        private_repos=json.get("total_private_repos"),
        followers=json.get("followers"),
        following=json.get("following"),
        created_at=json.get("created_at"),
        url=json.get("html_url"),
    )


async def _login(call: Call) -> str:
    """The user's own login. (`@me` means the same in a search, and not in every one.)"""
    return account((await read(call, "/user"))["login"])


async def _search(call: Call, words: str, most: int, line: Callable[..., dict[str, Any]]) -> dict[str, Any]:
    """How many there are, and the ones that were changed last."""
    query = {"q": words, "sort": "updated", "order": "desc", "per_page": most}
    found = (await ask(call, "GET", "/search/issues", query=query)).json
    return {
        "total_count": found.get("total_count") or 0,
        "items": [line(item, repository=True) for item in found["items"]],
        **lean(incomplete=found.get("incomplete_results") or None),
    }


async def _pulls(call: Call, words: str, most: int) -> dict[str, Any]:
    return await _search(call, f"is:pr {words}", most, shaping.pull_line)


async def _issues(call: Call, words: str, most: int) -> dict[str, Any]:
    return await _search(call, f"is:issue {words}", most, shaping.issue_line)


async def get_review_workload(call: Call) -> Json:
    """Open pull requests that wait for the user's review, and those that the user reviewed lately."""
    me = await _login(call)
    since = _day(call.now, _REVIEWED_SINCE)
    waiting = await _pulls(call, f"is:open archived:false review-requested:{me}", _WORKLOAD)
    reviewed = await _pulls(call, f"reviewed-by:{me} -author:{me} updated:>={since}", _WORKLOAD)
    return {"login": me, "review_requested": waiting, "recently_reviewed": reviewed}


async def get_user_open_items(call: Call) -> Json:
    """The user's own open pull requests and issues, everywhere."""
    me, most = await _login(call), per_page(call)
    return {
        "login": me,
        "pull_requests": await _pulls(call, f"is:open archived:false author:{me}", most),
        "issues": await _issues(call, f"is:open archived:false author:{me}", most),
    }


async def get_user_recent_activity(call: Call) -> Json:
    """What the user opened, merged, reviewed and committed in the last days."""
    days, most = int(call.get("days", 30)), per_page(call, most=50, default=10)
    if not 1 <= days <= _MOST_DAYS:
        raise bad_input(f"days must be 1 to {_MOST_DAYS}.")
    me, since = await _login(call), _day(call.now, days)

    async def commits() -> Json:
        query = {
            "q": f"author:{me} author-date:>={since}",
            "sort": "author-date",
            "order": "desc",
            "per_page": most,
        }
        return (await ask(call, "GET", "/search/commits", query=query)).json

    opened = await _pulls(call, f"author:{me} created:>={since}", most)
    merged = await _pulls(call, f"author:{me} is:merged merged:>={since}", most)
    reviewed = await _pulls(call, f"reviewed-by:{me} -author:{me} updated:>={since}", most)
    issues = await _issues(call, f"author:{me} created:>={since}", most)
    found, refusal = await unless_refused(commits, 403, 404, 422)
    return {
        "login": me,
        "since": since,
        "pull_requests_opened": opened,
        "pull_requests_merged": merged,
        "pull_requests_reviewed": reviewed,
        "issues_opened": issues,
        "commits": {
            "total_count": found.get("total_count", 0),
            "items": [shaping.commit_line(item) for item in found["items"]],
        }
        if found
        else {"note": refusal},
    }


def _day(now: int, days: int) -> str:
    return (datetime.fromtimestamp(now, UTC) - timedelta(days=days)).date().isoformat()
