"""The operator's rules on the real path: what is listed, refused, changed, withheld, and what waits for a yes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest

from authproxy.core.errors import NotFound, PolicyDenied
from authproxy.core.model import ApprovalStatus, Caller
from authproxy.tools.tool import Kind
from tests.tools.kit import House

SENT = ("POST", "/gmail/v1/users/me/messages/send")
LABELS = ("GET", "/gmail/v1/users/me/labels")
MAIL = {"subject": "Hello", "body": "card 4111111111111111", "recipient": "bob@example.com"}
AGENT = Caller("default", "mailer", "api_key", ("alice",))
APPLICATION = Caller("default", "application", "api_key", ("*",))
OPERATOR = Caller("default", "operator", "api_key", ("*",), operator=True)


@asynccontextmanager
async def ruled(*rules: Mapping[str, Any], hooks: Any = (), **tools: Any) -> AsyncIterator[House]:
    settings = {"rules": list(rules), "hooks": list(hooks), **tools}
    async with House.running(tools=settings) as house:
        house.answer(*SENT, {"id": "m1", "threadId": "t1", "labelIds": ["SENT"]})
        house.answer(*LABELS, {"labels": [{"id": "L1", "name": "card 4111111111111111", "type": "user"}]})
        yield house


async def send(house: House, caller: Caller = AGENT, **more: Any) -> Any:
    return await house.call("Gmail.SendEmail", _caller=caller, **{**MAIL, **more})


async def test_what_no_rule_allows_is_neither_listed_nor_called() -> None:
    async with ruled({"tools": ["read_only"]}) as house:
        listed = house.app.control.tools.list(AGENT)
        assert {one.marks.read_only for one in listed} == {True}
        with pytest.raises(NotFound):
            house.app.control.tools.get(AGENT, "Gmail.SendEmail")
        assert (await house.call("Gmail.ListLabels", _caller=AGENT)).success


async def test_a_rule_for_one_user_refuses_the_others() -> None:
    async with ruled({"tools": ["Gmail.*"], "users": ["bob"]}) as house:
        outcome = await send(house)
        assert outcome.error is not None
        assert (outcome.error.kind, outcome.error.code) == (Kind.REQUIREMENTS_NOT_MET, "policy_denied")
        assert house.seen == []
        (record,) = await house.records("tool.call")
        assert (record["outcome"], record["code"]) == (str(Kind.REQUIREMENTS_NOT_MET), "policy_denied")


async def test_hooks_hold_arguments_and_results() -> None:
    redact = {"redact": [r"\b\d{16}\b"]}
    hooks = [
        {
            "tools": ["Gmail.SendEmail"],
            "input": [{"field": "recipient", "allow": ["*@example.com"]}, {"field": "body", **redact}],
        },
        {"tools": ["read_only"], "output": [{"field": "**", **redact}]},
    ]
    async with ruled(hooks=hooks) as house:
        outcome = await send(house, recipient="eve@evil.test")
        assert outcome.error is not None
        assert outcome.error.code == "policy_denied"
        assert "recipient" in outcome.error.message
        assert "evil" not in outcome.error.message
        assert house.seen == []
        assert (await send(house)).success
        assert b"4111" not in house.seen[-1].body
        labels = await house.call("Gmail.ListLabels", _caller=AGENT)
        assert labels.success
        assert "[redacted]" in json.dumps(labels.value)


async def test_a_withheld_result_says_that_the_call_was_made() -> None:
    async with ruled(hooks=[{"output": [{"field": "**", "deny": ["m1"]}]}]) as house:
        outcome = await send(house)
        assert outcome.error is not None
        assert "do not repeat it" in outcome.error.message
        assert outcome.value is None
        assert len(house.seen) == 1


async def waiting(house: House, caller: Caller = AGENT, **more: Any) -> str:
    """The approval that this call waits for."""
    outcome = await send(house, caller, **more)
    assert outcome.error is not None
    assert (outcome.error.kind, outcome.error.code) == (Kind.REQUIREMENTS_NOT_MET, "approval_required")
    assert outcome.error.can_retry
    assert outcome.error.approval is not None
    return outcome.error.approval


@pytest.mark.scenario("N15")
@pytest.mark.parametrize("approver", ["operator", "user"])
async def test_a_yes_is_good_for_one_call_with_the_very_arguments(approver: str) -> None:
    async with ruled({"tools": ["Gmail.SendEmail"], "approve": approver}, {}) as house:
        approvals = house.app.control.approvals
        name = await waiting(house)
        assert await waiting(house) == name, "the same request"
        other = await waiting(house, recipient="eve@evil.test")
        assert other != name
        assert house.seen == []
        decider, user = (OPERATOR, None) if approver == "operator" else (APPLICATION, "alice")
        shown = await approvals.show(decider, name)
        assert shown.input is not None
        assert shown.input["recipient"] == "bob@example.com"
        await approvals.decide(decider, name, approve=True, user=user)
        assert (await approvals.show(decider, name)).input is None, "wiped with the decision"
        assert await waiting(house, recipient="eve@evil.test") == other, "other arguments need another yes"
        assert (await send(house)).success
        assert len(house.seen) == 1
        assert await waiting(house) != name, "and so does the next call"
        kinds = [record["kind"] for record in await house.records() if record["kind"].startswith("approval.")]
        assert kinds == ["approval.requested"] * 2 + [
            "approval.approved",
            "approval.used",
            "approval.requested",
        ]


async def test_of_many_that_call_at_once_one_gets_through() -> None:
    async with ruled({"approve": "user"}) as house:
        name = await waiting(house)
        await house.app.control.approvals.decide(APPLICATION, name, approve=True, user="alice")
        outcomes = await asyncio.gather(*(send(house) for _ in range(6)))
        assert [one.success for one in outcomes].count(True) == 1
        assert len(house.seen) == 1


async def test_a_no_stands() -> None:
    async with ruled({"approve": "user"}) as house:
        name = await waiting(house)
        decided = await house.app.control.approvals.decide(APPLICATION, name, approve=False, user="alice")
        assert decided.status is ApprovalStatus.DENIED
        outcome = await send(house)
        assert outcome.error is not None
        assert (outcome.error.code, outcome.error.can_retry) == ("approval_denied", False)
        with pytest.raises(NotFound):
            await house.app.control.approvals.decide(APPLICATION, name, approve=True, user="alice")


SESSION = Caller("default", "mailer", "api_key", ("alice",), bound_user="alice", session="ses_1")


@pytest.mark.parametrize(
    ("approver", "decider", "user", "error"),
    [
        ("user", AGENT, "alice", PolicyDenied),
        ("user", SESSION, "alice", NotFound),
        ("user", APPLICATION, "bob", PolicyDenied),
        ("user", APPLICATION, None, PolicyDenied),
        ("user", Caller("default", "application", "api_key", ("bob",)), "alice", NotFound),
        ("user", Caller("other", "application", "api_key", ("*",)), "alice", NotFound),
        ("operator", APPLICATION, "alice", PolicyDenied),
        ("operator", Caller("default", "mailer", "api_key", ("*",), operator=True), None, PolicyDenied),
        ("operator", Caller("other", "operator", "api_key", ("*",), operator=True), None, NotFound),
    ],
)
async def test_who_may_not_decide(
    approver: str, decider: Caller, user: str | None, error: type[Exception]
) -> None:
    async with ruled({"approve": approver}) as house:
        approvals = house.app.control.approvals
        name = await waiting(house)
        with pytest.raises(error):
            await approvals.decide(decider, name, approve=True, user=user)
        if error is PolicyDenied and decider is not AGENT:
            assert user in ("bob", None) or (await approvals.show(decider, name)).input is None
        assert (await approvals.look(OPERATOR, name)).status is ApprovalStatus.PENDING


async def test_the_minter_decides_for_its_session_and_the_session_for_nobody() -> None:
    async with ruled({"approve": "user"}) as house:
        approvals = house.app.control.approvals
        name = await waiting(house, SESSION)
        assert [one.id for one in await approvals.list(SESSION)] == [name]
        assert (await approvals.show(SESSION, name)).input is None
        with pytest.raises(PolicyDenied):
            await approvals.decide(SESSION, name, approve=True, user="alice")
        await approvals.decide(AGENT, name, approve=True, user="alice")
        assert (await send(house, SESSION)).success
        outcome = await send(house, AGENT)
        assert outcome.error is not None, "the yes was for the session"


async def test_the_call_waits_for_the_decision_where_it_is_asked_to() -> None:
    async with ruled({"approve": "user"}) as house:
        tools, approvals = house.app.control.tools, house.app.control.approvals
        tool = tools.get(AGENT, "Gmail.SendEmail")
        calling = asyncio.create_task(tools.execute(AGENT, tool, "alice", MAIL, patience=30))
        async with asyncio.timeout(10):
            while not (found := await approvals.list(OPERATOR)):  # noqa: ASYNC110 - another task makes it
                await asyncio.sleep(0.01)
        await approvals.decide(APPLICATION, found[0].id, approve=True, user="alice")
        assert (await calling).success


async def test_a_yes_that_comes_too_late_is_none() -> None:
    now = [1_800_000_000.0]
    settings = {"rules": [{"approve": "user"}], "approval_ttl": 60}
    async with House.running(clock=lambda: now[0], tools=settings) as house:
        house.answer(*SENT, {"id": "m1"})
        approvals = house.app.control.approvals
        name = await waiting(house)
        now[0] += 60
        assert (await approvals.look(AGENT, name)).status is ApprovalStatus.EXPIRED
        with pytest.raises(NotFound):
            await approvals.decide(APPLICATION, name, approve=True, user="alice")
        again = await waiting(house)
        assert again != name
        await approvals.decide(APPLICATION, again, approve=True, user="alice")
        now[0] += 60
        assert await waiting(house) not in (name, again)


async def test_over_http_a_call_that_waits_is_202_with_a_link_to_its_status() -> None:
    async with ruled({"approve": "user"}) as house:
        import aiohttp

        url = await house.listen()
        body = {"tool_name": "Gmail.SendEmail", "user_id": "alice", "input": MAIL}
        async with aiohttp.ClientSession(url) as session:
            async with session.post("/v1/tools/execute", json=body) as answer:
                assert answer.status == 202
                said = await answer.json()
                place = answer.headers["Location"]
            assert said["status"] == "waiting"
            assert not said["success"]
            assert said["output"]["error"]["extra"]["status_url"] == place
            async with session.get(place) as answer:
                status = await answer.json()
            assert (status["status"], status["tool"], status["input"]) == ("pending", "Gmail.SendEmail", None)
            async with session.post(f"{place}/approve", json={"user_id": "alice"}) as answer:
                assert answer.status == 403, "who asks does not approve"
                assert (await answer.json())["reason"] == "own_request"
            waiting = asyncio.create_task(session.get(f"{place}?wait=30").__aenter__())
            name = place.rpartition("/")[2]
            await house.app.control.approvals.decide(APPLICATION, name, approve=True, user="alice")
            assert (await (await waiting).json())["status"] == "approved"
            headers = {"Prefer": "wait=5"}
            async with session.post("/v1/tools/execute", json=body, headers=headers) as answer:
                assert answer.status == 200
                assert (await answer.json())["success"]
            async with session.get("/v1/approvals?status=used") as answer:
                assert [one["id"] for one in (await answer.json())["items"]] == [name]
            async with session.get("/v1/approvals?status=what") as answer:
                assert answer.status == 400
