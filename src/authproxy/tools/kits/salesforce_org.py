"""What Salesforce's org says when it is asked: records, who the user is, whom a name means, which values there are."""

from __future__ import annotations

import re
from typing import Any

from authproxy.tools.kits import salesforce_soql as soql
from authproxy.tools.kits.salesforce_shapes import at
from authproxy.tools.tool import Call, Json, Kind, ToolError

API = "/services/data/v62.0"
"""The version of the REST API that all requests of this toolkit use."""

_CHOICES = 15
_UNSURE = (400, 403, 404)  # an org that does not tell which values there are judges them itself

_IDENTITY = re.compile(r"/id/[A-Za-z0-9]{15,18}/(005[A-Za-z0-9]{12,15})$")
_CODE = re.compile(r"[A-Z][A-Z0-9_]{1,59}")
# Of these the message says what about the input was wrong; of others it may quote anything.
_TOLD = frozenset(
    {
        "CANNOT_UPDATE_CONVERTED_LEAD",
        "DUPLICATES_DETECTED",
        "DUPLICATE_VALUE",
        "ENTITY_IS_DELETED",
        "FIELD_CUSTOM_VALIDATION_EXCEPTION",
        "FIELD_FILTER_VALIDATION_EXCEPTION",
        "FIELD_INTEGRITY_EXCEPTION",
        "INSUFFICIENT_ACCESS_ON_CROSS_REFERENCE_ENTITY",
        "INSUFFICIENT_ACCESS_OR_READONLY",
        "INVALID_CROSS_REFERENCE_KEY",
        "INVALID_EMAIL_ADDRESS",
        "INVALID_FIELD_FOR_INSERT_UPDATE",
        "INVALID_OR_NULL_FOR_RESTRICTED_PICKLIST",
        "INVALID_TYPE_ON_FIELD_IN_RECORD",
        "MALFORMED_ID",
        "NUMBER_OUTSIDE_VALID_RANGE",
        "REQUIRED_FIELD_MISSING",
        "STRING_TOO_LONG",
        "UNABLE_TO_LOCK_ROW",
    }
)


def error_words(_status: int, said: Json) -> str | None:
    """What Salesforce's errors ([{errorCode, message, fields}]) say of the input."""
    told = [_words(one) for one in said[:3] if isinstance(one, dict)] if isinstance(said, list) else []
    return "; ".join(words for words in told if words) or None


def _words(error: dict[str, Any]) -> str | None:
    code, message, fields = error.get("errorCode"), error.get("message"), error.get("fields")
    if not isinstance(code, str) or not _CODE.fullmatch(code):
        return None
    words = f"{code}: {message[:160]}" if code in _TOLD and isinstance(message, str) else code
    names = [
        one
        for one in (fields if isinstance(fields, list) else ())
        if isinstance(one, str) and soql.is_identifier(one)
    ]
    return f"{words} ({', '.join(names[:5])})" if names else words


async def query(call: Call, text: str) -> list[dict[str, Any]]:
    """The records of a SOQL query. Queries bound their results themselves, so nextRecordsUrl is not followed."""
    answer = await call.api.call("GET", f"{API}/query", query={"q": text})
    return below(answer.json)


def below(said: Any, key: str = "records") -> list[dict[str, Any]]:
    """The records in an answer, or in a field that holds a sub-query's."""
    found = said.get(key) if isinstance(said, dict) else None
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


def paged(found: list[dict[str, Any]], part: soql.Page) -> tuple[list[dict[str, Any]], dict[str, Json]]:
    """The records of a page, of what was found: one more than it has where there is more; and what tells of it."""
    more = len(found) > part.limit
    told: dict[str, Json] = {"page": part.number, "has_more": more}
    if more and part.offset + part.limit <= soql.MOST_OFFSET:
        told["next_page"] = part.number + 1
    return found[: part.limit], told


async def me(call: Call) -> str:
    """The user's id: the API tells it with its list of resources, for which no scope but `api` is needed."""
    resources = (await call.api.call("GET", API)).json
    identity = _IDENTITY.search(str(at(resources, "identity") or ""))
    if identity is None:
        told = (await call.api.call("GET", "/services/oauth2/userinfo")).json
        found = str(at(told, "user_id") or "")
    else:
        found = identity[1]
    if not soql.is_id(found):
        raise ToolError(Kind.BAD_OUTPUT, "Salesforce did not tell who the user is.")
    return found


async def owned(call: Call) -> str | None:
    """The condition of the argument `owner`: me, all, an id, or somebody's name, user name or e-mail address."""
    asked = soql.plain(call.get("owner") or "me")
    if asked.casefold() == "all":
        return None
    if asked.casefold() == "me":
        return f"OwnerId = {soql.quoted(await me(call))}"
    if soql.is_id(asked) and asked.startswith(("005", "00G")):  # a user, or a queue
        return f"OwnerId = {soql.quoted(asked)}"
    return f"OwnerId = {soql.quoted(await _user(call, asked))}"


async def _user(call: Call, asked: str) -> str:
    like, same = soql.contains(asked), soql.quoted(asked)
    named = f"(Name LIKE {like} OR Username = {same} OR Email = {same})"
    found = await query(
        call,
        soql.select("Id, Name, Username", "User", "IsActive = true", named, order="Name", end="LIMIT 11"),
    )
    exact = [one for one in found if str(one.get("Name", "")).casefold() == asked.casefold()]
    meant = exact if len(exact) == 1 else found
    if len(meant) == 1 and soql.is_id(str(meant[0].get("Id"))):
        return str(meant[0]["Id"])
    if not meant:
        raise ToolError(
            Kind.RETRY,
            f"No active user is called {asked[:80]!r}.",
            hint="Give a part of the name, 'me' for the user's own, or 'all'.",
            can_retry=True,
        )
    choices = ", ".join(f"{one.get('Name')} ({one.get('Id')})" for one in meant[:10])
    raise ToolError(
        Kind.RETRY,
        f"More than one user is meant by {asked[:80]!r}: give an id.",
        hint=f"Users: {choices}.",
        can_retry=True,
    )


async def values(call: Call, listing: str, condition: str = "") -> dict[str, str]:
    """The values that the org has, by their labels and API names in lower case; empty where it does not tell."""
    try:
        found = await query(
            call,
            soql.select("MasterLabel, ApiName", listing, condition, order="SortOrder", end="LIMIT 100"),
        )
    except ToolError as failure:
        if failure.status not in _UNSURE:
            raise
        return {}
    told: dict[str, str] = {}
    for one in found:
        label = one.get("MasterLabel")
        value = one.get("ApiName") or label
        for name in (value, label):
            if isinstance(name, str) and isinstance(value, str):
                told.setdefault(name.casefold(), value)
    return told


async def choice(call: Call, parameter: str, listing: str, condition: str = "") -> str | None:
    """The argument as the org writes it, None where it is not given. Raises ToolError for a value it does not have."""
    given = call.get(parameter)
    if given is None:
        return None
    return chosen(given, parameter, await values(call, listing, condition))


def chosen(given: str, parameter: str, known: dict[str, str]) -> str:
    """The same, of values that are known."""
    if known and given.strip().casefold() not in known:
        some = list(dict.fromkeys(known.values()))
        more = f" and {len(some) - _CHOICES} more" if len(some) > _CHOICES else ""
        raise ToolError(
            Kind.RETRY,
            f"This org has no {parameter} {given[:80]!r}.",
            hint=f"It has: {', '.join(some[:_CHOICES])}{more}.",
            can_retry=True,
        )
    return known.get(given.strip().casefold(), given)
