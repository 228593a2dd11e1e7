"""What a session may use: patterns of tools, and routes."""

from __future__ import annotations

import dataclasses
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authproxy.core.errors import PolicyDenied
from authproxy.core.model import Caller
from authproxy.core.session import MARKS, demand_route, pattern_fault, tool_allowed

CALLER = Caller("default", "mailer", "session", ("alice",), bound_user="alice", session="ses_1")
READ = {"read_only": True, "destructive": False, "idempotent": True}
SEND = {"read_only": False, "destructive": False, "idempotent": False}
TRASH = {"read_only": False, "destructive": True, "idempotent": True}


@pytest.mark.parametrize(
    ("pattern", "allows", "refuses"),
    [
        ("*", [("Gmail.ListEmails", READ), ("Slack.SendMessage", SEND), ("Gmail.TrashEmail", TRASH)], []),
        ("Gmail.*", [("Gmail.ListEmails", READ), ("Gmail.TrashEmail", TRASH)], [("GmailX.ListEmails", READ)]),
        (
            "Gmail.ListEmails",
            [("Gmail.ListEmails", READ)],
            [("Gmail.ListEmailsByHeader", READ), ("gmail.listemails", READ)],
        ),
        ("Gmail.List*", [("Gmail.ListEmails", READ), ("Gmail.List", READ)], [("Gmail.SendEmail", SEND)]),
        ("*.WhoAmI", [("Gmail.WhoAmI", READ), ("Slack.WhoAmI", READ)], [("Gmail.ListEmails", READ)]),
        ("read_only", [("Gmail.ListEmails", READ)], [("Gmail.SendEmail", SEND), ("Gmail.TrashEmail", TRASH)]),
        ("write", [("Gmail.SendEmail", SEND), ("Gmail.TrashEmail", TRASH)], [("Gmail.ListEmails", READ)]),
        ("non_destructive", [("Gmail.SendEmail", SEND)], [("Gmail.TrashEmail", TRASH)]),
        ("idempotent", [("Gmail.TrashEmail", TRASH)], [("Gmail.SendEmail", SEND)]),
        (
            "Gmail.*:read_only",
            [("Gmail.ListEmails", READ)],
            [("Gmail.SendEmail", SEND), ("Slack.GetMessages", READ)],
        ),
        ("*:read_only", [("Slack.GetMessages", READ)], [("Slack.SendMessage", SEND)]),
        # what cannot be understood allows nothing
        ("Gmail", [], [("Gmail.ListEmails", READ), ("Gmail", READ)]),
        ("readonly", [], [("Gmail.ListEmails", READ)]),
        ("", [], [("Gmail.ListEmails", READ)]),
        ("Gmail.*:readonly", [], [("Gmail.ListEmails", READ)]),
        ("Gmail.ListEmails\n", [], [("Gmail.ListEmails", READ)]),
    ],
)
def test_a_pattern_allows_what_it_says(
    pattern: str, allows: list[tuple[str, dict[str, bool]]], refuses: list[tuple[str, dict[str, bool]]]
) -> None:
    for name, marks in allows:
        assert tool_allowed([pattern], name, **marks), name
        assert tool_allowed(["Nothing.Here", pattern], name, **marks), name
    for name, marks in refuses:
        assert not tool_allowed([pattern], name, **marks), name
    assert (pattern_fault(pattern) is None) == bool(allows)


def test_no_patterns_are_not_the_same_as_none() -> None:
    assert tool_allowed(None, "Gmail.SendEmail", **SEND)
    assert not tool_allowed([], "Gmail.SendEmail", **SEND)


@given(st.text(max_size=40), st.sampled_from(["Gmail.ListEmails", "Slack.SendMessage", "a" * 60 + ".b"]))
def test_whatever_is_written_ends_and_what_is_wrong_allows_nothing(pattern: str, name: str) -> None:
    allowed = tool_allowed([pattern], name, **READ)
    assert not (allowed and pattern_fault(pattern) is not None)


def test_no_pattern_takes_long() -> None:
    began = time.perf_counter()
    for pattern in ("*a" * 60 + ".b", "*" * 100 + ".*", "*" + "a" * 100 + "*.*" + "a" * 100 + "*"):
        tool_allowed([pattern], "a" * 100 + "." + "a" * 100 + "!", **READ)
    assert time.perf_counter() - began < 0.5


def test_marks_are_no_names() -> None:
    assert all(pattern_fault(mark) is None and "." not in mark for mark in MARKS)


@pytest.mark.parametrize(
    ("routes", "tools", "by_itself", "for_a_tool"),
    [
        (None, None, True, True),
        (("gmail",), None, True, True),
        (("slack",), None, False, False),
        ((), ("Gmail.*",), False, True),  # limited to tools alone: they go where they must
        (("slack",), ("Gmail.*",), False, False),  # both limits hold
        (("gmail",), ("Slack.*",), True, True),  # whether it may call this tool is another question
        ((), None, False, False),
    ],
)
def test_routes(
    routes: tuple[str, ...] | None, tools: tuple[str, ...] | None, by_itself: bool, for_a_tool: bool
) -> None:
    caller = dataclasses.replace(CALLER, routes=routes, tools=tools)
    for tool, expected in ((False, by_itself), (True, for_a_tool)):
        if expected:
            demand_route(caller, "gmail", tool=tool)
        else:
            with pytest.raises(PolicyDenied) as refused:
                demand_route(caller, "gmail", tool=tool)
            assert refused.value.reason == "session"
