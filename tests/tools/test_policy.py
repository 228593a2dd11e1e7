"""The operator's rules on the real path: what is listed, refused, changed, withheld, and what waits for a yes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import aiohttp
import pytest

from authproxy.control import tools as control_tools
from authproxy.core.errors import NotFound, Overloaded, PolicyDenied
from authproxy.core.model import ApprovalStatus, Caller
from authproxy.core.tool_rules import ToolRule
from authproxy.tools.tool import Kind, bad_input
from tests.tools.kit import House, Reply
from tests.tools.making import made, one_call, put

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


async def test_what_is_taken_out_has_its_default_or_the_call_is_refused() -> None:
    hooks = [{"tools": ["Gmail.SendEmail"], "input": [{"field": "content_type", "drop": True}]}]
    async with ruled(hooks=hooks) as house:
        assert (await send(house, content_type="html")).success
    for change in ({"drop": True}, {"redact": ["."]}):
        hooks = [{"input": [{"field": "subject" if "drop" in change else "content_type", **change}]}]
        async with ruled(hooks=hooks) as house:
            outcome = await send(house)
            assert outcome.error is not None
            assert outcome.error.code == "policy_denied"
            assert house.seen == []


SLOW = {"redact": ["(a+)+$", r"[\w.+-]+@[\w.-]+"]}
LONG = "a" * 100_000


async def test_an_expression_that_takes_for_ever_is_ended() -> None:
    hooks = [{"input": [{"field": "body", **SLOW}]}, {"output": [{"field": "**.name", **SLOW}]}]
    async with ruled(hooks=hooks) as house:
        for body in (LONG + "b", "a" * 60 + "b"):
            outcome = await send(house, body=body)
            assert outcome.error is not None
            assert outcome.error.code == "policy_denied", "what cannot be judged is not sent"
        assert house.seen == []
        labels = [{"id": name, "name": name * 60 + "b", "type": "user"} for name in "xay"]
        house.answer(*LABELS, {"labels": labels})
        outcome = await house.call("Gmail.ListLabels", _caller=AGENT)
        assert outcome.success, "and of a result the rest is given"
        assert "aaa" not in json.dumps(outcome.value)
        assert "[redacted]" in json.dumps(outcome.value)
        assert '"y"' in json.dumps(outcome.value)


async def test_failures_are_held_to_what_results_are() -> None:
    words = {"error": {"code": 400, "message": "the card 4111111111111111 is not known", "errors": []}}
    for rule, said in (({"redact": [r"\d{16}"]}, "[redacted]"), ({"deny": ["*4111*"]}, "withholds")):
        async with ruled(hooks=[{"output": [{"field": "labels.name", **rule}]}]) as house:
            house.answer(*LABELS, Reply(400, words))
            outcome = await house.call("Gmail.ListLabels", _caller=AGENT)
            assert outcome.error is not None
            assert "4111" not in repr(vars(outcome.error))
            assert said in outcome.error.message
            assert outcome.error.kind is Kind.BAD_REQUEST
            put(house, made(_choosing))
            rows = {"message": "Which one?", "hint": "Choose: a@x.test, b@x.test"}
            outcome = await house.call("Made.Tool", _caller=AGENT)
            assert outcome.error is not None
            assert (outcome.error.message, outcome.error.hint) == (rows["message"], rows["hint"])
    async with ruled(hooks=[{"output": [{"field": "people.email", "drop": True}]}]) as house:
        put(house, made(_choosing))
        outcome = await house.call("Made.Tool", _caller=AGENT)
        assert outcome.error is not None
        assert (outcome.error.message, outcome.error.hint) == ("Which one?", None)


async def _choosing(_call: Any) -> Any:
    raise bad_input("Which one?", hint="Choose: a@x.test, b@x.test")


async def test_what_is_long_is_cut_only_after_it_was_looked_at() -> None:
    text = "x" * 7995 + " 4111111111111111 " + "y" * 200_000
    async with ruled(hooks=[{"output": [{"field": "**", "redact": [r"\b\d{16}\b"]}]}]) as house:
        put(
            house,
            made(
                one_call("GET", "/gmail/v1/long"),
            ),
        )
        house.answer("GET", "/gmail/v1/long", {"text": text})
        outcome = await house.call("Made.Tool", _caller=AGENT)
        assert outcome.success
        assert "41" not in outcome.value["text"][:8000]
        assert len(json.dumps(outcome.value)) <= 131072


async def test_what_is_nested_too_deeply_is_no_argument() -> None:
    deep: Any = "x"
    for _ in range(400):
        deep = [deep]
    async with ruled({"approve": "user"}) as house:
        outcome = await send(house, attachments=[deep])
        assert outcome.error is not None
        assert outcome.error.kind is Kind.BAD_INPUT


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
        ("user", Caller("default", "local", "loopback", ("*",)), "alice", PolicyDenied),
        ("user", Caller("default", "local", "loopback", ("*",), operator=True), "alice", PolicyDenied),
        ("operator", Caller("default", "local", "loopback", ("*",), operator=True), None, PolicyDenied),
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


async def until_asked(house: House) -> str:
    """The first approval that is asked for, once its call waits for it."""
    async with asyncio.timeout(10):
        while not house.app.control.tools._waiting:  # noqa: ASYNC110 - another task makes it
            await asyncio.sleep(0.01)
    return (await house.app.control.approvals.list(OPERATOR))[0].id


def patient(house: House, caller: Caller = AGENT, **more: Any) -> asyncio.Task[Any]:
    """A call that waits for its yes."""
    tools = house.app.control.tools
    tool = tools.get(caller, "Gmail.SendEmail")
    return asyncio.create_task(tools.execute(caller, tool, "alice", {**MAIL, **more}, patience=30))


async def test_calls_that_wait_take_nobodys_room(monkeypatch: pytest.MonkeyPatch) -> None:
    async with ruled({"tools": ["Gmail.SendEmail"], "approve": "user"}, {}, max_calls=1) as house:
        calling = patient(house)
        name = await until_asked(house)
        assert (await house.call("Gmail.ListLabels", _caller=AGENT)).success
        monkeypatch.setattr(control_tools, "MAX_WAITING", 1)
        below = replace(SESSION, agent="mailer/run-7")
        outcome = await patient(house, below)
        assert outcome.error.code == "approval_required", (
            "one agent has no more places, whatever it calls itself"
        )
        await house.app.control.approvals.decide(APPLICATION, name, approve=True, user="alice")
        assert (await calling).success
        assert not house.app.control.tools._waiting
        assert house.app.control.tools._active == 0


async def test_a_call_that_waited_finds_no_room_and_its_yes_is_kept() -> None:
    async with ruled({"tools": ["Gmail.SendEmail"], "approve": "user"}, {}, max_calls=1) as house:
        held, go = asyncio.Event(), asyncio.Event()

        async def run(_call: Any) -> Any:
            held.set()
            await go.wait()

        put(house, made(run))
        calling = patient(house)
        name = await until_asked(house)
        other = asyncio.create_task(house.call("Made.Tool", _caller=AGENT))
        await held.wait()
        await house.app.control.approvals.decide(APPLICATION, name, approve=True, user="alice")
        with pytest.raises(Overloaded):
            await calling
        go.set()
        assert (await other).success
        assert (await send(house)).success, "the yes is there still"


async def test_a_call_that_waited_is_held_to_the_rules_of_now() -> None:
    async with ruled({"approve": "user"}) as house:
        calling = patient(house)
        name = await until_asked(house)
        never = ToolRule(effect="deny")
        house.app.config = replace(house.app.config, tools=replace(house.app.config.tools, rules=(never,)))
        await house.app.control.approvals.decide(APPLICATION, name, approve=True, user="alice")
        outcome = await calling
        assert outcome.error.code == "policy_denied"
        assert house.seen == []


async def test_who_has_gone_does_not_have_the_call_made() -> None:
    async with ruled({"approve": "user"}) as house:
        url = await house.listen()
        body = {"tool_name": "Gmail.SendEmail", "user_id": "alice", "input": MAIL}
        async with aiohttp.ClientSession(url) as session:
            headers = {"Prefer": "wait=59"}
            calling = asyncio.create_task(
                session.post("/v1/tools/execute", json=body, headers=headers).__aenter__()
            )
            name = await until_asked(house)
            calling.cancel()
            await asyncio.wait([calling])
            async with asyncio.timeout(10):
                while house.app.control.tools._waiting:  # noqa: ASYNC110 - the server sees it some time later
                    await asyncio.sleep(0.01)
            await house.app.control.approvals.decide(APPLICATION, name, approve=True, user="alice")
            assert house.seen == []
            async with session.post("/v1/tools/execute", json=body) as answer:
                assert (await answer.json())["success"], "the yes is for the call that comes again"


@pytest.mark.parametrize(
    "name", ["Gmail.SendEmail", "gmail_send_email", "Google.SendEmail", "google-sendemail@8"]
)
async def test_no_other_name_gets_around_a_rule(name: str) -> None:
    async with ruled({"tools": ["Gmail.SendEmail"], "effect": "deny"}, {}) as house:
        with pytest.raises(NotFound):
            house.app.control.tools.get(AGENT, name)


async def test_nobody_is_waited_for_at_the_end() -> None:
    async with ruled({"approve": "user"}) as house:
        calling = patient(house)
        await until_asked(house)
        house.app.control.draining = True
        outcome = await asyncio.wait_for(calling, 10)
        assert outcome.error.code == "approval_required"


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ("DELETE FROM connections", "connection_required"),
        ("UPDATE connections SET state = 'needs_reauth'", "connection_expired"),
        ("UPDATE connections SET scopes = '[]'", "scope_missing"),
    ],
)
async def test_nobody_is_asked_for_what_the_user_has_not_agreed_to(change: str, code: str) -> None:
    async with ruled({"approve": "user"}) as house:
        await house.app.vault.backend.write(lambda tx: tx.run(f"{change} WHERE provider = 'google'"))
        outcome = await send(house)
        assert outcome.error is not None
        assert outcome.error.code == code
        assert outcome.authorization is not None
        assert outcome.error.connect_url == outcome.authorization.url
        assert outcome.error.connect_url in outcome.error.hint
        assert await house.app.control.approvals.list(OPERATOR) == []


async def test_a_yes_is_for_the_grant_that_there_was() -> None:
    async with ruled({"approve": "user"}) as house:
        name = await waiting(house)
        await house.app.control.approvals.decide(APPLICATION, name, approve=True, user="alice")
        await house.app.vault.backend.write(lambda tx: tx.run("UPDATE connections SET grant_id = 'another'"))
        assert await waiting(house) != name


async def test_what_is_long_is_kept_as_far_as_a_person_reads() -> None:
    async with ruled({"approve": "user"}) as house:
        approvals = house.app.control.approvals
        file = {"filename": "a.txt", "text": "text " * 100_000}
        name = await waiting(house, attachments=[file])
        shown = (await approvals.show(APPLICATION, name)).input
        assert shown is not None
        assert shown["attachments"][0]["text"].endswith("text … (496000 characters more, not shown)")
        assert shown["body"] == MAIL["body"]
        assert "4111" not in repr(await approvals.show(APPLICATION, name)), "nor is it where objects are told"
        (row,) = await house.app.vault.backend.read("SELECT length(input) AS size FROM approvals")
        assert row["size"] < 10_000
        await approvals.decide(APPLICATION, name, approve=True, user="alice")
        assert (await send(house, attachments=[file])).success
        outcome = await send(house, cc=[f"{number}@example.com" for number in range(5000)])
        assert outcome.error is not None
        assert outcome.error.code == "policy_denied"


async def test_a_yes_says_for_which_call_it_was_used() -> None:
    async with ruled({"approve": "user"}) as house:
        name = await waiting(house)
        await house.app.control.approvals.decide(APPLICATION, name, approve=True, user="alice")
        outcome = await send(house)
        (used,) = await house.records("approval.used")
        assert (used["data"]["approval"], used["data"]["call"]) == (name, outcome.id)


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
            async with session.post(f"{place}/approve", json={"user_id": "alice"}) as answer:
                assert answer.status == 403
            with pytest.raises(NotFound) as decided:
                await house.app.control.approvals.decide(APPLICATION, name, approve=False, user="alice")
            assert decided.value.status == 409
            async with session.get("/v1/approvals?status=used") as answer:
                assert [one["id"] for one in (await answer.json())["items"]] == [name]
            async with session.get("/v1/approvals?status=what") as answer:
                assert answer.status == 400
