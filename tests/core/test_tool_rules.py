"""Rules for calls of tools, and for what their arguments and results may hold."""

from __future__ import annotations

from typing import Any

import pytest

from authproxy.core.tool_faults import KnownTool, tool_faults
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


@pytest.mark.parametrize("agent", ["mailer/run-7", "mailer/a/b"])
def test_what_is_said_of_an_agent_is_said_of_all_below_it(agent: str) -> None:
    below = SEND._replace(agent=agent)
    never = ToolRule(agents=("mailer",), effect="deny")
    assert ruling((never, ToolRule()), below) == never, "a session may be called so by whoever holds the key"
    assert not offered((never, ToolRule()), below)
    assert list(concerned([ToolHook(agents=("mailer",))], below))
    for other in ("mailer2", "mail/er", "x/mailer", "/mailer", ""):
        assert ruling((never, ToolRule()), SEND._replace(agent=other)) == ToolRule()
    assert ruling((ToolRule(agents=("mailer/*",)),), SEND) is None


@pytest.mark.parametrize(
    "value", ["card 4111", ["card 4111"], {"a": ["card 4111"]}, {"card 4111": {"x": 1}}, 4111]
)
def test_everything_from_a_place_on_is_redacted(value: Any) -> None:
    rules = (FieldRule("**", redact=("4111",)), FieldRule("top.**", redact=("4111",)))
    assert "4111" not in repr(held(value, rules[:1]))
    assert "4111" not in repr(held({"top": value}, rules[1:]))


def test_everything_from_a_place_on_is_dropped() -> None:
    rule = [FieldRule("a.**", drop=True)]
    for value, left in (("text", None), ([1, [2]], []), ({"x": 1}, {}), (7, None)):
        assert held({"a": value, "b": 1}, rule) == {"a": left, "b": 1}


def test_names_that_are_redacted_alike_stay_apart() -> None:
    value = {f"{number}@x.test": number for number in range(50)}
    found = held({"by": value}, [FieldRule("by", redact=(r"\d+@x\.test",))])["by"]
    assert sorted(found.values()) == list(range(50))
    assert all("@" not in name for name in found)


def test_a_number_is_a_number_still_where_nothing_is_found_in_it() -> None:
    assert held({"a": 1, "b": 1.5, "c": True}, [FieldRule("**", redact=("x",))]) == {
        "a": 1,
        "b": 1.5,
        "c": True,
    }


def test_a_value_that_cannot_be_judged_does_not_pass() -> None:
    with pytest.raises(FieldRefused):
        held({"a": "text"}, [FieldRule("a", redact=("x",))], lambda _pattern, _text: None)
    deep: Any = "x"
    for _ in range(5000):
        deep = [deep]
    with pytest.raises(FieldRefused):
        held({"a": deep}, [FieldRule("**", redact=("y",))])


def test_a_long_text_of_a_stranger_costs_no_more_than_its_length() -> None:
    text = "secret" * 100_000
    rule = FieldRule(
        "body", deny=("*secret*password*", "*s*e*c*r*e*t*s*x*"), allow=("*secret*", "*none*of*it*")
    )
    assert held({"body": text}, [rule])
    with pytest.raises(FieldRefused):
        held({"body": f"{text} the password is"}, [rule])


TOOLS = (
    KnownTool("Gmail.SendEmail", False, False, False, {"recipient", "body"}),
    KnownTool("Gmail.ListEmails", True, False, True, {"n_emails"}),
)


@pytest.mark.parametrize(
    ("one", "faults"),
    [
        (ToolRule(tools=("Gmail.SendEmail", "Gmail.*:write", "write", "*", "*.ListEmails")), []),
        (ToolRule(tools=("Gmail.SendMail",), effect="deny"), ["tools.rules[0].tools[0]"]),
        (ToolRule(tools=("gmail.SendEmail",)), ["tools.rules[0].tools[0]"]),
        (ToolRule(tools=("Notion.*",)), ["tools.rules[0].tools[0]"]),
        (ToolRule(tools=(), agents=(), users=()), [f"tools.rules[0].{x}" for x in ("tools", "agents", "users")]),
        (ToolHook(), ["tools.hooks[0]"]),
        (ToolHook(input=(FieldRule("recipient", drop=True), FieldRule("n_emails", drop=True))), []),
        (
            ToolHook(tools=("Gmail.*:write",), input=(FieldRule("recipients", allow=("x",)),)),
            ["tools.hooks[0].input[0].field"],
        ),
        (ToolHook(input=(FieldRule("*", deny=("x",)), FieldRule("**.a", deny=("x",)))), []),
        (ToolHook(output=(FieldRule("anything", redact=("x*",)),)), ["tools.hooks[0].output[0].redact[0]"]),
        (ToolHook(output=(FieldRule("anything", redact=("a{99999999999}",)),)), ["tools.hooks[0].output[0].redact[0]"]),
    ],
)  # fmt: skip
def test_what_names_nothing_that_there_is_holds_nothing(one: ToolRule | ToolHook, faults: list[str]) -> None:
    rules, hooks = ((one,), ()) if isinstance(one, ToolRule) else ((), (one,))
    assert [path for path, _ in tool_faults(rules, hooks, TOOLS)] == faults


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
