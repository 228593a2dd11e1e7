"""HubSpot: what is told of a failure, and how texts, numbers and times are read and written."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from authproxy.core.errors import PolicyDenied
from authproxy.tools.kits.hubspot import error_words, read_failure
from authproxy.tools.kits.hubspot.asking import refused
from authproxy.tools.kits.hubspot.failures import DAILY
from authproxy.tools.kits.hubspot.objects import (
    ACTIVITIES,
    ASSOCIATION_TYPES,
    COMPANIES,
    CONTACTS,
    DEALS,
    RECORDS,
    association,
)
from authproxy.tools.kits.hubspot.shaping import cut, decimal, full, plain, rich, written
from authproxy.tools.kits.hubspot.times import clock, closing, span, zone_of
from authproxy.tools.loading import toolbox
from authproxy.tools.tool import Answer, Kind, ToolError
from tests.tools.hubspot_portal import PROPERTIES, TYPES, Portal
from tests.tools.kit import House, Reply

TOKEN = "CJSP5qf1KhICAQEYs-gDIIGOBii1hQIyGQAf3xBKmlwHjX7OIpuIFEavB2-qYAGQsF4"


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (
            400,
            {"message": "Invalid input JSON on line 1", "correlationId": "c", "category": "VALIDATION_ERROR"},
            None,
        ),
        (
            400,
            {
                "message": 'Property values were not valid: [{"isValid":false,"message":"Email address x is invalid",'
                '"error":"INVALID_EMAIL","name":"email","localizedErrorMessage":"?"},{"message":"no"}]'
            },
            "email: Email address x is invalid; no",
        ),
        (
            400,
            {"message": "Bad [{broken", "errors": [{"message": "too"}, {"x": 1}, "y"]},
            "Bad [{broken; too",
        ),
        (409, {"message": "Contact already exists. Existing ID: 51", "category": "CONFLICT"}, None),
        (400, {"status": "error"}, ""),
        (400, ["no object"], ""),
        (500, None, ""),
        (429, {"policyName": "DAILY"}, DAILY),
        (429, {"policyName": "SECONDLY"}, "too many searches in one second"),
        (
            429,
            {"message": "You have reached your ten_secondly_rolling limit."},
            "too many requests in ten seconds",
        ),
        (
            403,
            {
                "category": "MISSING_SCOPES",
                "message": f"This oauth-token ({TOKEN}) does not have proper permissions!",
                "errors": [{"context": {"requiredGranularScopes": ["crm.objects.deals.read", "<b>", 5]}}],
            },
            "the connection lacks one of crm.objects.deals.read, or the account has no such feature",
        ),
        (
            403,
            {"category": "MISSING_SCOPES"},
            "the connection lacks a scope for this, or the account has no such feature",
        ),
        (403, {"message": f"This oauth-token ({TOKEN}) does not have proper permissions!"}, ""),
        (401, {"message": f"token {TOKEN} expired", "category": "EXPIRED_AUTHENTICATION"}, ""),
    ],
)
def test_what_is_told_of_a_failure(status: int, body: Any, words: str | None) -> None:
    said = error_words(status, body)
    assert (said or "") == (body["message"] if words is None else words)


@pytest.mark.parametrize("message", [f"oauth-token ({TOKEN})", TOKEN, f"a ({TOKEN[:24]}) b"])
def test_what_looks_like_a_token_is_not_told(message: str) -> None:
    said = error_words(400, {"message": message}) or ""
    assert TOKEN[:24] not in said


def test_what_is_told_is_short() -> None:
    assert len(error_words(400, {"message": "word " * 500}) or "") <= 200
    assert error_words(400, {"message": "two\nlines"}) == "two lines"


def answer(status: int, body: Any) -> Answer:
    return Answer(status, {}, b"", body)


def test_a_failure_within_a_success() -> None:
    absent = {
        "category": "OBJECT_NOT_FOUND",
        "subCategory": "crm.associations.NO_ASSOCIATIONS_FOUND",
        "message": "none",
    }
    bad = {"category": "VALIDATION_ERROR", "message": "id is no number"}
    assert read_failure(answer(200, {"results": []})) is None
    assert read_failure(answer(204, None)) is None
    assert read_failure(answer(207, {"status": "COMPLETE", "results": [], "errors": [absent]})) is None
    assert read_failure(answer(207, {"results": [{"id": "1"}], "errors": [bad]})) is None
    failure = read_failure(answer(207, {"results": [], "errors": [absent, bad]}))
    assert failure is not None
    assert failure.kind is Kind.BAD_REQUEST
    assert failure.message == "HubSpot did not do it: id is no number"
    failure = read_failure(answer(200, {"status": "error", "message": "no"}))
    assert failure is not None
    assert failure.message == "HubSpot did not do it: no"


@pytest.mark.parametrize(
    ("policy", "can_retry", "pause"),
    [("DAILY", False, None), ("TEN_SECONDLY_ROLLING", True, 10_000), ("SECONDLY", True, 1_000)],
)
async def test_each_limit_says_when_to_come_back(
    house: House, policy: str, can_retry: bool, pause: int | None
) -> None:
    portal = Portal.of(house)
    portal.failing["/crm/v3/objects/deals/search"] = Reply(
        429, {"policyName": policy, "errorType": "RATE_LIMIT"}
    )
    error = await house.error("Hubspot.ListDeals")
    assert (error.kind, error.can_retry, error.retry_after_ms) == (Kind.RATE_LIMIT, can_retry, pause)
    assert error.status == 429


async def test_hubspots_own_pause_goes_first(house: House) -> None:
    portal = Portal.of(house)
    portal.failing["/crm/v3/objects/deals/search"] = Reply(
        429, {"policyName": "SECONDLY"}, {"Retry-After": "7"}
    )
    assert (await house.error("Hubspot.ListDeals")).retry_after_ms == 7_000


async def test_an_answer_that_is_no_json_object(house: House) -> None:
    for body in (b"<html>", b"[]", b""):
        house.answer("GET", "/crm/v3/owners", Reply(200, body=body))
        assert (await house.error("Hubspot.GetAllUsers")).kind is Kind.BAD_OUTPUT


def test_what_is_not_allowed_is_no_passing_failure() -> None:
    assert refused(ToolError(Kind.AUTH_ERROR, "no", status=403))
    assert refused(ToolError(Kind.REQUIREMENTS_NOT_MET, "no", code=PolicyDenied.code))
    assert not refused(ToolError(Kind.SERVER_ERROR, "no", status=503))
    assert not refused(ToolError(Kind.REQUIREMENTS_NOT_MET, "no", code="connection_required"))


def test_every_association_type_is_hubspots() -> None:
    assert {number: pair for pair, number in ASSOCIATION_TYPES.items()}.items() <= TYPES.items()
    for kind in ACTIVITIES.values():
        for other in RECORDS:
            assert association(kind, other)


def test_only_properties_that_there_are_is_asked_for() -> None:
    more = {"hubspot_owner_id", "hs_timestamp", "hs_body_preview"}
    computed = {"hs_email_from_email", "hs_email_to_email", "hs_email_cc_email", "hs_task_completion_date"}
    for kind in (*RECORDS, *ACTIVITIES.values()):
        asked = {*kind.properties, *kind.brief_properties, *kind.tokens} - more - computed
        assert asked <= set(PROPERTIES[kind.name].split()), kind.name


def test_what_an_update_takes_is_what_a_search_shows() -> None:
    """An agent reads a key in an answer, and gives it back under the same name."""
    unshown = {"keywords", "matches_limit", "start_date", "start_time", "duration", "body_html", "deal_owner"}
    for tool in toolbox():
        if (
            tool.toolkit == "Hubspot"
            and tool.name.startswith("Update")
            and not tool.name.startswith("UpdateDeal")
        ):
            one = tool.name.removeprefix("Update").removesuffix("Activity").lower()
            kind = {**ACTIVITIES, "company": COMPANIES, "contact": CONTACTS}[one]
            keys = {field.key for field in kind.fields}
            given = {parameter.name for parameter in tool.parameters} - unshown - {f"{one}_id"}
            assert given <= keys, tool.name


@pytest.mark.parametrize(
    ("html", "text"),
    [
        ("<p>Hi &amp; <b>bye</b></p><p>x<br/>y</p><!-- c -->", "Hi & bye\nx\ny"),
        ("<style>p { }</style>a<script>1 < 2</script>b", "ab"),
        ("no <3 tags\nat all", "no <3 tags\nat all"),
        ("<ul><li>a</li><li>b</li></ul>", "a\nb"),
        ("<div>a\n b</div>", "a b"),
        ("", ""),
        ("5 &gt; 4\nnext", "5 > 4\nnext"),
        ("<o:p>x</o:p> from Ana <ana@acme.example>", "x from Ana <ana@acme.example>"),
    ],
)
def test_rich_text_as_text(html: str, text: str) -> None:
    assert plain(html) == text


@pytest.mark.parametrize(
    "text",
    ["a < b & c\n\nd <3", "plain", "ünï\ncode", "1 <2 3> 4", "Ana <ana@acme.example> said", "a <Ana> b"],
)
def test_text_comes_back_as_it_was(text: str) -> None:
    assert plain(rich(text)) == text


@pytest.mark.parametrize(
    "text", ["<style" * 50_000, "<!--" * 50_000, "<style>" * 50_000, "&lt" * 50_000, "<a" * 50_000]
)
def test_a_text_that_strangers_wrote_costs_little(text: str) -> None:
    begun = time.process_time()
    plain(text)
    assert time.process_time() - begun < 2


@pytest.mark.parametrize(
    ("value", "text"),
    [(12, "12"), (12.0, "12"), (12.5, "12.5"), (1e16, "10000000000000000"), (0, "0"), (1e-5, "0.00001")],
)
def test_numbers_as_hubspot_takes_them(value: float, text: str) -> None:
    assert decimal(value) == text


def test_a_record_shows_what_it_has() -> None:
    record = {
        "id": "55",
        "properties": {
            "dealname": "x" * 20,
            "amount": "n/a",
            "hs_is_closed": "true",
            "dealtype": None,
            "pipeline": "",
        },
        "createdAt": "2026-01-01T00:00:00.000Z",
        "updatedAt": "2026-01-01T00:00:00.500Z",
    }
    assert full(record, DEALS, 10) == {
        "id": 55,
        "deal_name": "xxxxxxxxxx… (10 more characters)",
        "deal_amount": "n/a",
        "is_closed": True,
        "created_at": "2026-01-01T00:00:00Z",
        "updated_at": "2026-01-01T00:00:00.500Z",
    }
    assert full({}, DEALS) == {"id": None}
    assert cut("abc", 3) == "abc"
    assert written(DEALS, {"deal_name": "", "deal_amount": None, "expected_close_date": "2026-01-01"}) == {
        "dealname": ""
    }


@pytest.mark.parametrize(
    ("text", "minutes"),
    [
        ("1:30", 90),
        ("0:45", 45),
        ("01:00:00", 60),
        ("45m", 45),
        ("1h", 60),
        ("1h 30 min", 90),
        ("26:00", 1560),
    ],
)
def test_durations(text: str, minutes: int) -> None:
    assert span(text, "duration") == timedelta(minutes=minutes)


@pytest.mark.parametrize("text", ["", "90", "1:75", "long", "0:00", "-1:00", "1.5h"])
def test_durations_that_are_none(text: str) -> None:
    with pytest.raises(ToolError, match="duration"):
        span(text, "duration")


@pytest.mark.parametrize(
    ("text", "iso"),
    [("9:15", "09:15"), (" 14:30:00 ", "14:30:00"), ("14:30Z", "14:30Z"), ("14:30+01:00", "14:30+01:00")],
)
def test_times_of_day(text: str, iso: str) -> None:
    assert clock(text, "start_time") == iso


@pytest.mark.parametrize("text", ["", "noon", "25:00", "2026-01-01T10:00", "2 pm"])
def test_times_of_day_that_are_none(text: str) -> None:
    with pytest.raises(ToolError, match="start_time is no time of day"):
        clock(text, "start_time")


@pytest.mark.parametrize(
    ("text", "closes"),
    [
        ("2026-01-31", "2026-01-31T12:00:00Z"),
        (" 2026-01-31 ", "2026-01-31T12:00:00Z"),
        ("2026-01-31T23:30:00-05:00", "2026-02-01T04:30:00Z"),
        ("2026-01-31T10:00", "2026-01-31T10:00:00Z"),
    ],
)
def test_close_dates(text: str, closes: str) -> None:
    assert closing(text, "expected_close_date") == closes


@pytest.mark.parametrize(
    ("details", "hours"),
    [
        ({"timeZone": "Asia/Kolkata"}, 5.5),
        ({"timeZone": "Mars/Olympus", "utcOffsetMilliseconds": 7_200_000}, 2),
        ({"timeZone": "../secret", "utcOffsetMilliseconds": -3_600_000}, -1),
        ({"timeZone": "Mars/Olympus", "utcOffsetMilliseconds": 10**12}, 0),
        ({"timeZone": "Mars/Olympus", "utcOffsetMilliseconds": "x"}, 0),
        ({}, 0),
    ],
)
def test_time_zones(details: dict[str, Any], hours: float) -> None:
    at = datetime(2026, 1, 31, 12, tzinfo=UTC).astimezone(zone_of(details).rules)
    assert at.utcoffset() == timedelta(hours=hours)
