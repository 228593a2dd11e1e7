"""Finding records: the search API, its pages and its limits, and the one record that somebody means."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from authproxy.tools.kits.hubspot.asking import after, get, results, send
from authproxy.tools.kits.hubspot.objects import ObjectType
from authproxy.tools.kits.hubspot.shaping import cut, plain, shape
from authproxy.tools.tool import Call, Json, Kind, ToolError, bad_input

PAGED: Final = 10_000
"""Results of one search that HubSpot hands out, however many there are."""

LONGEST_QUERY: Final = 3_000
_AROUND: Final = ".,;:!?*\"'()[]{}<>«»„“”"

WORDS: Final = 6
"""Filters in a group of filters; HubSpot allows five groups and 18 filters at least."""

MOST_ASSOCIATED: Final = 50
MOST_MATCHES: Final = 20


def search_for(kind: ObjectType, text: str, name: str) -> dict[str, Json]:
    """The part of a search's body that looks for the words of argument `name`.

    HubSpot's full text covers the titles and bodies of most types; where it does not (`kind.tokens`), each
    property is a group of filters, one a word: the groups are alternatives.
    """
    words = words_of(text)
    if not words:
        raise bad_input(f"{name} is empty: say what to look for.")
    if len(text) > LONGEST_QUERY:
        raise bad_input(f"{name} is too long: HubSpot searches for at most {LONGEST_QUERY} characters.")
    if not kind.tokens:
        return {"query": " ".join(text.split())}
    told = sorted(sorted(dict.fromkeys(words), key=len, reverse=True)[:WORDS], key=words.index)
    return {
        "filterGroups": [
            {"filters": [_filter(token, "CONTAINS_TOKEN", word) for word in told]} for token in kind.tokens
        ]
    }


def words_of(text: str) -> list[str]:
    """The words of a text, without the punctuation around them; `*`, with which HubSpot finds everything, is none."""
    return [bare for word in text.split() if (bare := word.strip(_AROUND))]


def associated_with(given: Mapping[ObjectType, int | None]) -> dict[str, Json]:
    """The part of a search's body that wants associations with all the records that are given by their ids."""
    filters = [
        _filter(f"associations.{kind.one}", "EQ", str(one)) for kind, one in given.items() if one is not None
    ]
    return {"filterGroups": [{"filters": filters}]} if filters else {}


def _filter(name: str, operator: str, value: str) -> dict[str, str]:
    return {"propertyName": name, "operator": operator, "value": value}


def limited(call: Call, name: str, most: int, default: int, least: int = 1) -> int:
    """A limit that the caller gave, at most `most`."""
    value = call.get(name, default)
    limit = default if value is None else int(value)
    if limit < least:
        raise bad_input(f"{name} must be {least} or more.")
    return min(limit, most)


async def search(
    call: Call, kind: ObjectType, wanted: Mapping[str, Json], limit: int, token: str | None = None
) -> dict[str, Any]:
    """One page of a search. `token` is the page's `next_page_token`. Raises ToolError."""
    body: dict[str, Json] = {**wanted, "properties": kind.properties, "limit": limit}
    if token:
        body["after"] = _page(token)
        body["limit"] = min(limit, PAGED - int(token))  # a page that reaches beyond the last is refused whole
    return await send(call, "POST", f"/crm/v3/objects/{kind.name}/search", body)


def _page(token: str) -> str:
    if not (token.isascii() and token.isdigit()):
        raise bad_input("next_page_token is not one: pass it as the page before gave it, or leave it out.")
    if int(token) >= PAGED:
        raise bad_input(f"HubSpot hands out no more than the first {PAGED} results: search more narrowly.")
    return token


def page(found: Mapping[str, Any], kind: ObjectType, shaped: list[dict[str, Json]]) -> dict[str, Json]:
    """The answer of a search: the records, how many there are in all, and how to go on."""
    answer: dict[str, Json] = {kind.name: shaped, "count": len(shaped)}
    total = found.get("total")
    if isinstance(total, int):
        answer["total"] = total
    token = after(found)
    if token and token.isdigit() and int(token) >= PAGED:
        answer["note"] = f"HubSpot hands out no more than the first {PAGED} results: search more narrowly."
    elif token:
        answer["next_page_token"] = token
    return answer


async def read(call: Call, kind: ObjectType, one: int, properties: list[str] | None = None) -> dict[str, Any]:
    """One record by its id, with the properties that are shown, or those named."""
    names = ",".join(properties or kind.properties)
    return await get(call, f"/crm/v3/objects/{kind.name}/{one}", {"properties": names})


async def meant(call: Call, kind: ObjectType) -> int | str:
    """The id of the record to change: the argument `<type>_id`, or the only one that matches `keywords`.

    Raises RETRY with the candidates where several match, or where none does.
    """
    parameter = f"{kind.one}_id"
    given = call.get(parameter)
    if given is not None:
        return int(given)
    keywords = call.get("keywords")
    if keywords is None:
        raise bad_input(f"Say which {kind.one} to change: {parameter}, or keywords that find it.")
    limit = limited(call, "matches_limit", MOST_MATCHES, 5)
    # One more than is wanted of one, so that `matches_limit: 1` does not make a match the only one.
    found = await search(call, kind, search_for(kind, keywords, "keywords"), max(limit, 2))
    rows = results(found)
    total = found.get("total") if isinstance(found.get("total"), int) else len(rows)
    if not rows:
        raise ToolError(
            Kind.RETRY,
            f"No {kind.one} matches these keywords; nothing was changed.",
            hint=f"Use fewer or other words, or {parameter}. A record that was made a moment ago is not found yet.",
            can_retry=True,
        )
    if len(rows) > 1 or total != 1:
        raise ToolError(
            Kind.RETRY,
            f"{total} {kind.name} match these keywords; nothing was changed. Call again with {parameter}.",
            hint="Candidates: " + "; ".join(candidate(row, kind) for row in rows[:limit]),
            can_retry=True,
        )
    if not _has(rows[0], words_of(keywords)):
        raise ToolError(
            Kind.RETRY,
            f"HubSpot finds one {kind.one}, but it does not have all of these words; nothing was changed.",
            hint=f"Call again with {parameter} if it is meant: {candidate(rows[0], kind)}",
            can_retry=True,
        )
    return str(rows[0].get("id"))


def _has(record: Mapping[str, Any], words: list[str]) -> bool:
    """Whether a record that was found has the words: HubSpot's full text also finds what is merely alike."""
    properties = record.get("properties")
    values = properties.values() if isinstance(properties, dict) else ()
    text = plain(" ".join(str(value) for value in values if value)).casefold()
    return all(word.casefold() in text for word in words)


def candidate(record: Mapping[str, Any], kind: ObjectType) -> str:
    """A record in one line: its id and what tells it from others."""
    shaped = shape(record, kind.fields[:4], 60)
    one = shaped.pop("id")
    words = ", ".join(" ".join(str(value).split()) for value in shaped.values())
    return f"{parameter_of(kind)} {one}: {cut(words, 160)}" if words else f"{parameter_of(kind)} {one}"


def parameter_of(kind: ObjectType) -> str:
    """The name of the parameter that takes the id of such a record."""
    return f"{kind.one}_id"
