"""`authproxy approvals` beside a running `serve`: a call waits in one process, and is approved in another."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from authproxy.cli.console import json_text
from tests.cli.conftest import routes
from tests.kit.browser import Browser
from tests.kit.process import LOOPBACK, Proxy
from tests.kit.provider import Provider

# A title that would clear the screen, turn the rest around, and begin with an escape of eight bits.
TITLE = "\x9b2J\u202etxt.exe \U000e0041"
ISSUE = {"owner": "octo", "repo": "hello", "title": TITLE, "body": "CANARY-of-the-user"}
CALL = {"tool_name": "Github.CreateIssue", "user_id": "alice", "input": ISSUE}


@pytest.fixture
def ruled(provider: Provider, tmp_path: Path) -> Iterator[Proxy]:
    config = routes(provider) | {
        "identity": {"callers": [LOOPBACK, {"kind": "api_key"}]},
        "providers": {"github": provider.choice()},
        "routes": {"github": {"upstream": provider.url}},
        "tools": {"rules": [{"tools": ["Github.CreateIssue"], "approve": "operator"}, {}]},
    }
    with Proxy(tmp_path / "ruled", config) as proxy:
        yield proxy


def command(proxy: Proxy, *words: str) -> CompletedProcess[str]:
    return proxy.run("approvals", *words, "--config", str(proxy.file), "--store", proxy.store_url)


def test_a_call_is_approved_on_the_command_line(ruled: Proxy) -> None:
    status, link = ruled.ask("POST", "/v1/tools/authorize", CALL | {"input": None})
    assert status == 200, link
    Browser().consent(link["url"])
    status, said = ruled.ask("POST", "/v1/tools/execute", CALL)
    assert (status, said["status"]) == (202, "waiting"), said
    name = said["output"]["error"]["extra"]["approval"]
    assert "authproxy_approvals_waiting 1.0" in str(ruled.ask("GET", "/metrics"))
    status, refused = ruled.ask("POST", f"/v1/approvals/{name}/approve", {})
    assert (status, refused["reason"]) == (403, "own_request")

    listed = command(ruled, "list")
    assert listed.returncode == 0, listed.stderr
    assert name in listed.stdout
    assert "CANARY" not in listed.stdout
    shown = command(ruled, "show", name)
    assert shown.returncode == 0, shown.stderr
    assert "CANARY-of-the-user" in shown.stdout
    assert r"\u009b2J\u202etxt.exe \udb40\udc41" in shown.stdout
    assert not {"\x9b", "\u202e", "\U000e0041"} & set(shown.stdout)
    approved = command(ruled, "approve", name)
    assert approved.returncode == 0, approved.stderr
    assert "Github.CreateIssue for alice may be called once" in approved.stdout
    again = command(ruled, "deny", name)
    assert (again.returncode, again.stdout) == (1, "")
    assert "not waiting any more" in again.stderr
    status, said = ruled.ask("POST", "/v1/tools/execute", CALL)
    assert status == 200, said
    assert said["output"]["error"]["extra"].get("approval") is None, "made, whatever the provider says to it"
    assert [one["status"] for one in json.loads(command(ruled, "list", "--all", "--json").stdout)] == ["used"]
    status, trail = ruled.ask("GET", "/v1/audit?limit=1000")
    assert "approval.approved" in str(trail)
    assert "CANARY-of-the-user" not in str(trail)
    assert "CANARY-of-the-user" not in ruled.words()
    status, said = ruled.ask("POST", "/v1/tools/execute", CALL)
    assert status == 202
    assert said["output"]["error"]["extra"]["approval"] != name


def test_json_steers_no_terminal() -> None:
    value = {"a": "plain ü", "b": "\x7f\x85\u2066", "c": ["\u2028"]}
    for indent in (None, 2):
        text = json_text(value, indent=indent)
        assert json.loads(text) == value
        assert "plain ü" in text
        assert text.replace("\n", "").isprintable()
