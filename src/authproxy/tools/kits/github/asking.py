"""How the tools of GitHub ask: paths that cannot leave their segment, pages, moments and near names."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from difflib import SequenceMatcher
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

from authproxy.tools.tool import Answer, Call, Json, Kind, ToolError, bad_input

ACCEPT = "application/vnd.github+json"
RAW = "application/vnd.github.raw+json"  # a file as it is
MOST_PER_PAGE = 100
MOST_PAGES = 10
_LONGEST = 120  # characters that are compared, so that no name costs much
SURE = 0.9  # how near a name must be for `auto_accept_matches` to take it

_owner = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,98}").fullmatch
_repository = re.compile(r"[A-Za-z0-9._-]{1,100}").fullmatch
_odd = re.compile(r"[\x00-\x1f\x7f\\]").search
# What `git check-ref-format` refuses in a branch's name, the dot segments among it.
_no_branch = re.compile(
    r"[\x00-\x20\x7f~^:?*\[\\]|\.\.|@\{|//|^/|/$|\.$|\.lock(?:/|$)|(?:^|/)\.|^-|^@$"
).search
_link = re.compile(r'<([^<>]*)>\s*;[^,]*\brel="?next"?', re.IGNORECASE).search
_last_days = re.compile(r"last_(\d{1,4})_days?").fullmatch
_SPANS = {"today": 0, "yesterday": 1, "last_week": 7, "last_month": 30, "last_year": 365}


async def ask(
    call: Call,
    method: str,
    path: str,
    *,
    query: Mapping[str, Any] | None = None,
    json: Json = None,
    accept: str = ACCEPT,
) -> Answer:
    """One request to the REST API.

    Raises ToolError as `Api.call` does, and for an answer that should be JSON and is not.
    """
    # GitHub wants to be told that there is no body, where one could be.
    body = b"" if json is None and method in {"PUT", "POST", "PATCH"} else None
    answer = await call.api.call(method, path, query=query, json=json, body=body, accept=accept)
    if answer.json is None and answer.status != 204 and method != "DELETE" and accept != RAW:
        raise ToolError(
            Kind.BAD_OUTPUT, "GitHub's answer is not what its API promises.", status=answer.status
        )
    return answer


async def read(call: Call, path: str, **query: Any) -> Json:
    """The JSON of a GET."""
    return (await ask(call, "GET", path, query=query or None)).json


async def read_pages(call: Call, path: str, *, pages: int = MOST_PAGES, **query: Any) -> list[Any]:
    """The elements of all pages of a list, as far as `pages` of 100 go."""
    found: list[Any] = []
    page: int | None = 1
    for _ in range(pages):
        answer = await ask(call, "GET", path, query={**query, "per_page": MOST_PER_PAGE, "page": page})
        found += answer.json or []
        page = next_page(answer)
        if page is None:
            break
    return found


async def unless_refused(request: Callable[[], Any], *statuses: int) -> tuple[Any, str | None]:
    """What `request` gives and None; or None and the words of GitHub's refusal with one of these statuses.

    For what a tool does beside its main work: a thing that the user's grant does not reach (403) or that is not
    there (404) is told in the answer. Every other failure is raised.
    """
    try:
        return await request(), None
    except ToolError as error:
        if error.status not in statuses or error.kind is Kind.RATE_LIMIT:
            raise
        return None, error.message


# --- paths ---------------------------------------------------------------------------------------------------------


def is_login(name: str) -> bool:
    """Whether this can be the login of an account."""
    return _owner(name) is not None


def account(name: str, what: str = "owner") -> str:
    """The login of a user or an organization, as a path segment. Raises bad input for anything else."""
    login = name.strip().removeprefix("@")
    if not _owner(login) or name.strip() == "@me":  # there is a user `me`
        raise bad_input(f"{what} must be the login of a GitHub account: letters, digits and hyphens.")
    return login


def repository(call: Call, key: str = "repo") -> str:
    """`/repos/OWNER/NAME`, of the arguments `owner` and `repo`."""
    owner, name = owner_and_name(call, key)
    return f"/repos/{owner}/{name}"


def owner_and_name(call: Call, key: str = "repo") -> tuple[str, str]:
    """The two, checked. `OWNER/NAME` is taken as the name too where the owner is the same, and so is `NAME.git`."""
    owner = account(call.input["owner"])
    name = str(call.input[key]).strip()
    before, slash, after = name.partition("/")
    if slash and before.casefold() == owner.casefold():
        name = after
    name = name.removesuffix(".git")
    if not _repository(name) or name in {".", ".."}:
        raise bad_input(f"{key} must be the name of a repository, without its owner and without a slash.")
    return owner, name


def number(call: Call, key: str) -> int:
    """The number of an issue, a pull request or a comment."""
    value = int(call.input[key])
    if value < 1:
        raise bad_input(f"{key} must be 1 or more.")
    return value


def file_path(text: str, *, root: bool = False) -> str:
    """A path within a repository with each segment encoded: `docs/a b.md` to `docs/a%20b.md`.

    `root` allows the repository's root, as an empty string.
    """
    bare = text.strip("/")
    if not bare:
        if root:
            return ""
        raise bad_input("path must name a file within the repository.")
    segments = bare.split("/")
    if _odd(bare) or any(segment in {"", ".", ".."} for segment in segments):
        raise bad_input("path must be a plain path from the repository's root, without . or .. or // in it.")
    return "/".join(quote(segment, safe="") for segment in segments)


def branch_name(text: str, what: str = "branch") -> str:
    """The bare name of a branch, as git allows it (`refs/heads/` is taken off)."""
    name = text.strip().removeprefix("refs/heads/")
    if not name or len(name) > 250 or _no_branch(name):
        raise bad_input(f"{what} is no name that git allows for a branch.")
    return name


def encoded(name: str) -> str:
    """A branch's name for a path: its slashes stay, all else is encoded."""
    return quote(name, safe="/")


def quoted(text: str) -> str:
    """A value for a qualifier of GitHub's search, which cannot end the qualifier."""
    plain = re.sub(r"[\x00-\x1f\x7f]", " ", text).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{plain}"'


# --- pages, moments ------------------------------------------------------------------------------------------------


def per_page(call: Call, most: int = MOST_PER_PAGE, default: int = 30) -> int:
    """How many to ask for: what is above the most that GitHub gives is that most."""
    value = int(call.get("per_page", default))
    if value < 1:
        raise bad_input("per_page must be 1 or more.")
    return min(value, most)


def paging(call: Call, default: int = 30) -> dict[str, int]:
    """The query of a list with numbered pages."""
    page = int(call.get("page", 1))
    if page < 1:
        raise bad_input("page must be 1 or more.")
    return {"per_page": per_page(call, default=default), "page": page}


def next_query(answer: Answer) -> dict[str, str]:
    """The query of the next page, of the answer's `Link`; empty on the last one."""
    found = _link(answer.fields.get("link", ""))
    if found is None:
        return {}
    return {name: values[0] for name, values in parse_qs(urlsplit(found[1]).query).items()}


def next_page(answer: Answer) -> int | None:
    """The number of the next page, or None on the last one."""
    page = next_query(answer).get("page", "")
    return int(page) if page.isascii() and page.isdecimal() else None


def moment(text: str, now: int, what: str = "since") -> str:
    """A point in time as GitHub wants it (UTC, `2026-01-31T00:00:00Z`).

    Takes ISO 8601 with or without a time, and `today`, `yesterday`, `last_week`, `last_month`, `last_30_days`.
    """
    word = text.strip().casefold().replace(" ", "_")
    days = _SPANS.get(word)
    if found := _last_days(word):
        days = int(found[1])
    if days is not None:
        midnight = datetime.fromtimestamp(now, UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        return _stamp(midnight - timedelta(days=days))
    try:
        when = datetime.fromisoformat(text.strip())
        return _stamp(when if when.tzinfo else when.replace(tzinfo=UTC))
    except (ValueError, OverflowError):
        raise bad_input(
            f"{what} must be a time such as 2026-01-31T00:00:00Z, 2026-01-31, yesterday or last_30_days."
        ) from None


def _stamp(when: datetime) -> str:
    return when.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


# --- near names ----------------------------------------------------------------------------------------------------


def likeness(asked: str, name: str) -> float:
    """How near two names are, 0 to 1; 1 is the same but for case."""
    left, right = asked.strip().casefold(), name.strip().casefold()
    if left == right:
        return 1.0
    if _plain(left) and _plain(left) == _plain(right):
        return 0.98
    left, right = left[:_LONGEST], right[:_LONGEST]
    ratio = min(SequenceMatcher(None, left, right, autojunk=False).ratio(), 0.97)
    return max(ratio, 0.75) if len(left) >= 3 and left in right else ratio


def _plain(name: str) -> str:
    return re.sub(r"[\s._/-]", "", name)


def nearest(
    asked: str, names: Iterable[str], *, most: int = 5, least: float = 0.5
) -> list[tuple[str, float]]:
    """The names that are near enough to be meant, the nearest first."""
    scored = sorted(((likeness(asked, name), name) for name in set(names)), key=lambda one: (-one[0], one[1]))
    return [(name, score) for score, name in scored[:most] if score >= least]


def settle(asked: str, names: Iterable[str], what: str, *, accept: bool) -> str:
    """The one of `names` that is meant.

    It is the one that is the same but for case; with `accept`, the only one that is very near, too. Raises a ToolError
    that lists the near ones where there is none, or more than one.
    """
    near = nearest(asked, names)
    same = [name for name, score in near if score == 1.0]
    sure = same or [name for name, score in near if accept and score >= SURE]
    if asked in sure:
        return asked
    if len(sure) == 1:
        return sure[0]
    raise unknown(asked, [name for name, _ in near], what)


def unknown(asked: str, choices: list[str], what: str) -> ToolError:
    """The failure of a name that names nothing, with near ones."""
    shown = "; ".join(choice[:80] for choice in choices[:5])
    return ToolError(
        Kind.RETRY,
        f"There is no {what} named {asked.strip()[:80]!r}.",
        hint=f"Near choices: {shown}." if shown else f"No {what} has a name near it.",
        can_retry=True,
    )
