"""Rules for calls of tools, and for what their arguments and results may hold."""

from __future__ import annotations

from typing import Any

import pytest

from authproxy.core.tool_rules import (
    FieldRefused,
    FieldRule,
    Subject,
    ToolHook,
    ToolRule,
    concerned,
    held,
    offered,
    ruling,
    tool_faults,
)

SEND = Subject("Gmail.SendEmail", False, False, False, "mailer", "alice")
LIST = Subject("Gmail.ListEmails", True, False, True, "mailer", "alice")
TRASH = Subject("Gmail.TrashEmail", False, True, True, "mailer", "alice")

READ = ToolRule(tools=("read_only",))
ASK = ToolRule(tools=("Gmail.SendEmail",), approve="user")
NEVER = ToolRule(tools=("destructive",), effect="deny")
NO_WRITES = ToolRule(tools=("Gmail.*:write",), effect="deny")
BOB = ToolRule(tools=("*",), users=("bob",))


def test_without_rules_all_may() -> None:
    for one in (SEND, LIST, TRASH):
        found = ruling((), one)
        assert found is not None
        assert found.effect == "allow"
        assert found.approve is None
        assert offered((), one)


@pytest.mark.parametrize(
    ("rules", "subject", "expected"),
    [
        ((READ,), LIST, READ),
        ((READ,), SEND, None),
        ((READ, ASK), SEND, ASK),
        ((NEVER, READ, ASK), TRASH, NEVER),
        ((BOB,), SEND, None),
        ((BOB,), SEND._replace(user="bob"), BOB),
        ((BOB,), SEND._replace(user="bobby"), None),
        ((ToolRule(users=("team-*",)),), SEND._replace(user="team-7"), ToolRule(users=("team-*",))),
        ((ToolRule(agents=("mail*",)),), SEND, ToolRule(agents=("mail*",))),
        ((ToolRule(agents=("Mail*",)),), SEND, None),
        ((NO_WRITES, ToolRule()), SEND, NO_WRITES),
        ((NO_WRITES, ToolRule()), LIST, ToolRule()),
    ],
)  # fmt: skip
def test_the_first_rule_that_fits_decides(
    rules: tuple[ToolRule, ...], subject: Subject, expected: ToolRule | None
) -> None:
    assert ruling(rules, subject) == expected


@pytest.mark.parametrize(
    ("rules", "subject", "shown"),
    [
        ((READ,), SEND, False),
        ((READ,), LIST, True),
        ((ASK,), SEND, True),
        ((NEVER, ToolRule()), TRASH, False),
        ((ToolRule(users=("eve",), effect="deny"), ToolRule()), SEND, True),
        ((BOB,), SEND._replace(user=None), True),
        ((BOB,), SEND, False),
        ((ToolRule(agents=("other",)),), SEND, False),
    ],
)
def test_what_no_user_could_have_done_is_not_offered(
    rules: tuple[ToolRule, ...], subject: Subject, shown: bool
) -> None:
    assert offered(rules, subject) is shown


def test_all_hooks_that_fit_are_applied() -> None:
    hooks = (ToolHook(tools=("Gmail.*",)), ToolHook(users=("bob",)), ToolHook(tools=("write",)))
    assert list(concerned(hooks, SEND)) == [hooks[0], hooks[2]]
    assert list(concerned(hooks, LIST)) == [hooks[0]]


@pytest.mark.parametrize(
    "recipient",
    [
        "bob@example.com",
        "BOB@EXAMPLE.COM",
        "bob@example.com, carol@example.com",
        "bob@example.com; carol@example.com",
        None,
    ],
)
def test_values_that_may_be(recipient: str | None) -> None:
    given = {"recipient": recipient, "cc": ["carol@example.com"]}
    rules = [FieldRule("recipient", allow=("*@example.com",)), FieldRule("cc", allow=("*@example.com",))]
    assert held(given, rules) == given
    assert held({}, rules) == {}


@pytest.mark.parametrize(
    "given",
    [
        {"recipient": "eve@evil.test"},
        {"recipient": "eve@evil.test, bob@example.com"},
        {"recipient": "eve@evil.test\nbob@example.com"},
        {"recipient": "eve@evil.test;bob@example.com"},
        {"recipient": "bob@example.com.evil.test"},
        {"recipient": ["bob@example.com", "eve@evil.test"]},
        {"recipient": [["eve@evil.test"]]},
        {"recipient": {"address": "eve@evil.test"}},
        {"recipient": 7},
    ],
)
def test_values_that_may_not_be(given: dict[str, Any]) -> None:
    with pytest.raises(FieldRefused) as refused:
        held(given, [FieldRule("recipient", allow=("*@example.com",))])
    assert "evil" not in str(refused.value), "what it holds is nobody's business"


@pytest.mark.parametrize(
    "body", ["a SECRET b", "x, secret plan", ["fine", "the secret"], {"x": {"y": "secret"}}]
)
def test_what_is_denied(body: Any) -> None:
    with pytest.raises(FieldRefused, match="body"):
        held({"body": body}, [FieldRule("body", deny=("*secret*",))])
    assert held({"body": "fine"}, [FieldRule("body", deny=("*secret*",))]) == {"body": "fine"}


def test_what_is_redacted_and_dropped() -> None:
    value = {
        "emails": [
            {"body": "card 4111111111111111, thanks", "sender": "x", "headers": {"a": "1"}},
            {"body": "none", "sender": "y"},
        ],
        "count": 2,
        "note": "card 4111111111111111",
    }
    before = repr(value)
    rules = [
        FieldRule("emails.body", redact=(r"\b\d{16}\b",)),
        FieldRule("emails.headers", drop=True),
        FieldRule("*", redact=("nothing",)),
    ]
    assert held(value, rules) == {
        "emails": [{"body": "card [redacted], thanks", "sender": "x"}, {"body": "none", "sender": "y"}],
        "count": 2,
        "note": "card 4111111111111111",
    }
    assert repr(value) == before, "what was given is left as it was"
    everywhere = held(value, [FieldRule("**", redact=(r"\d{16}",))])
    assert "4111" not in repr(everywhere)
    assert everywhere["count"] == 2
    assert "'sender'" not in repr(held(value, [FieldRule("**.sender", drop=True)]))


def test_a_path_that_leads_nowhere_changes_nothing() -> None:
    for value in ({"a": 1}, [1, 2], "text", None, 7, {"a": None}):
        assert held(value, [FieldRule("x.y", allow=("no",), drop=True)]) == value


def test_faults_are_told_with_their_path() -> None:
    rules = (ToolRule(tools=("Gmail",)), ToolRule(effect="deny", approve="user"))
    hooks = (
        ToolHook(input=(FieldRule("a"), FieldRule("b", redact=("(",))), output=(FieldRule("c", drop=True),)),
    )
    assert [path for path, _ in tool_faults(rules, hooks)] == [
        "tools.rules[0].tools[0]",
        "tools.rules[1].approve",
        "tools.hooks[0].input[0]",
        "tools.hooks[0].input[1].redact[0]",
    ]
