"""The table of failure scenarios and the tests that cover them: `python -m tests.house.scenarios` writes SCENARIOS.md.

A test names what it covers with `@pytest.mark.scenario("A01", …)`.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
TABLE = ROOT / "SCENARIOS.md"
NAMES = Path(__file__).with_name("scenarios.yaml")

HEAD = """# Failure scenarios

How refresh tokens and credential proxies break in practice, and which test covers it. Made from the tests by
`python -m tests.house.scenarios`; a test fails when this page is not up to date. A row without a test is not
covered.

"""


def covered() -> dict[str, list[str]]:
    """Scenario to the tests that name it."""
    found: dict[str, list[str]] = {}
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        for test, scenarios in _marked(ast.parse(path.read_text())):
            for scenario in scenarios:
                found.setdefault(scenario, []).append(f"{path.relative_to(ROOT / 'tests')}::{test}")
    return found


def _marked(tree: ast.Module) -> Iterator[tuple[str, list[str]]]:
    for_all = [
        name
        for node in tree.body
        if isinstance(node, ast.Assign) and any(getattr(t, "id", "") == "pytestmark" for t in node.targets)
        for name in _names(node.value)
    ]
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
            own = [name for decorator in node.decorator_list for name in _names(decorator)]
            if own or for_all:
                yield node.name, [*own, *for_all]


def _names(node: ast.expr) -> list[str]:
    """The arguments of every `pytest.mark.scenario(…)` in an expression, parameters of a table included."""
    return [
        argument.value
        for call in ast.walk(node)
        if isinstance(call, ast.Call) and getattr(call.func, "attr", "") == "scenario"
        for argument in call.args
        if isinstance(argument, ast.Constant) and isinstance(argument.value, str)
    ]


def table() -> str:
    """The page."""
    names: dict[str, str] = yaml.safe_load(NAMES.read_text())
    tests = covered()
    lines = [HEAD, f"{sum(name in tests for name in names)} of {len(names)} are covered.\n"]
    group = ""
    for scenario, name in names.items():
        if scenario[0] != group:
            group = scenario[0]
            lines.append("\n| scenario | what happens | tests |\n|---|---|---|\n")
        cell = "<br>".join(f"`{test}`" for test in sorted(set(tests.get(scenario, ())))) or "-"
        lines.append(f"| {scenario} | {name} | {cell} |\n")
    return "".join(lines)


if __name__ == "__main__":
    TABLE.write_text(table())
