"""There is one place that sends refresh tokens, and few that open a secret."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import authproxy

SRC = Path(authproxy.__file__).parent


def callers_of(name: str) -> set[str]:
    """Files that call a function of this name."""
    found = set()
    for path in SRC.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                called = (
                    node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", None)
                )
                if called == name:
                    found.add(str(path.relative_to(SRC)))
    return found


@pytest.mark.scenario("A31", "A11")
def test_one_function_may_refresh() -> None:
    assert callers_of("refresh_request") == {"broker/refresh.py"}
    speaks = {
        str(path.relative_to(SRC))
        for path in SRC.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        for argument in node.args
        if isinstance(argument, ast.Constant) and argument.value == "refresh_token"
    }
    assert {path for path in speaks if path.startswith(("broker/", "proxy/", "faces/", "cli"))} == set()


@pytest.mark.scenario("A17", "F03")
def test_the_broker_opens_a_secret_in_one_place() -> None:
    assert {path for path in callers_of("reveal") if path.startswith("broker/")} == {"broker/tokens.py"}
    assert (SRC / "broker/tokens.py").read_text().count(".reveal()") == 1
