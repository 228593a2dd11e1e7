"""GitHub's tools about the user, over their real path."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from authproxy.tools.tool import Kind
from tests.tools.kit import House, Reply, Seen

NOW = datetime(2026, 11, 23, 15, 30, tzinfo=UTC).timestamp()
ME = {
    "login": "mona",
    "id": 2,
    "type": "User",
    "name": "Mona Lisa",
    "email": None,
    "company": "@octo",
    "bio": "b" * 600,
    "html_url": "https://github.com/mona",
    "public_repos": 0,
    "followers": 1,
    "two_factor_authentication": True,
    "plan": {"name": "pro"},
}


def found(number: int, **more: Any) -> dict[str, Any]:
    return {
        "number": number,
        "title": f"T{number}",
        "state": "open",
        "repository_url": "https://api.github.com/repos/octo/hello",
        "user": {"login": "mona"},
        "html_url": f"https://github.com/octo/hello/{number}",
        **more,
    }


def searched(seen: Seen) -> Any:
    is_pull = "is:pr" in seen.query["q"]
    item = found(1, pull_request={"merged_at": None}, draft=True) if is_pull else found(2)
    return {"total_count": 45, "incomplete_results": False, "items": [item]}


async def test_who_the_user_is(house: House) -> None:
    house.answer("GET", "/user", ME)
    told = await house.value("Github.WhoAmI")
    assert told["login"] == "mona"
    assert told["public_repos"] == 0
    assert told["bio"].endswith("(100 more characters)")
    assert not {"plan", "two_factor_authentication", "email"} & set(told)


async def test_what_waits_for_a_review() -> None:
    async with House.running(clock=lambda: NOW) as house:
        house.answer("GET", "/user", ME)
        house.answer("GET", "/search/issues", searched)
        told = await house.value("Github.GetReviewWorkload")
        assert told["login"] == "mona"
        assert told["review_requested"] == {
            "total_count": 45,
            "items": [
                {
                    "number": 1,
                    "title": "T1",
                    "repository": "octo/hello",
                    "state": "open",
                    "draft": True,
                    "author": "mona",
                    "url": "https://github.com/octo/hello/1",
                }
            ],
        }
        assert [seen.query["q"] for seen in house.seen[1:]] == [
            "is:pr is:open archived:false review-requested:mona",
            "is:pr reviewed-by:mona -author:mona updated:>=2026-10-24",
        ]


async def test_what_is_open(house: House) -> None:
    house.answer("GET", "/user", ME)
    house.answer("GET", "/search/issues", searched)
    told = await house.value("Github.GetUserOpenItems", per_page=5)
    assert (told["pull_requests"]["total_count"], told["issues"]["items"][0]["number"]) == (45, 2)
    assert [seen.query for seen in house.seen[1:]] == [
        {
            "q": f"is:{kind} is:open archived:false author:mona",
            "sort": "updated",
            "order": "desc",
            "per_page": "5",
        }
        for kind in ("pr", "issue")
    ]


async def test_what_the_user_did() -> None:
    async with House.running(clock=lambda: NOW) as house:
        commit = {
            "sha": "c" * 40,
            "commit": {"message": "Add\n\nmore", "author": {"name": "M", "date": "2026-11-20T00:00:00Z"}},
            "author": {"login": "mona"},
            "repository": {"full_name": "octo/hello"},
        }
        house.answer("GET", "/user", ME)
        house.answer("GET", "/search/issues", searched)
        commits = {"total_count": 1, "items": [commit]}
        house.answer("GET", "/search/commits", commits, Reply(422, {"message": "cannot be searched"}))
        told = await house.value("Github.GetUserRecentActivity", days=7, per_page=99)
        since = "2026-11-16"
        assert (told["since"], told["commits"]["items"][0]["message"]) == (since, "Add")
        assert [seen.query["q"] for seen in house.seen[1:]] == [
            f"is:pr author:mona created:>={since}",
            f"is:pr author:mona is:merged merged:>={since}",
            f"is:pr reviewed-by:mona -author:mona updated:>={since}",
            f"is:issue author:mona created:>={since}",
            f"author:mona author-date:>={since}",
        ]
        assert {seen.query["per_page"] for seen in house.seen[1:]} == {"50"}
        told = await house.value("Github.GetUserRecentActivity")
        assert "cannot be searched" in told["commits"]["note"]
        assert told["pull_requests_merged"]["total_count"] == 45
        for days in (0, 366):
            assert (await house.error("Github.GetUserRecentActivity", days=days)).kind is Kind.BAD_INPUT
