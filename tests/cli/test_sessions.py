"""`authproxy sessions` and `authproxy connections wait`, beside a running `serve`."""

from __future__ import annotations

import json
from subprocess import CompletedProcess
from threading import Thread

import pytest

from tests.kit.process import Proxy


def command(serving: Proxy, *words: str) -> CompletedProcess[str]:
    where = ("--config", str(serving.file), "--store", f"sqlite:///{serving.store}")
    return serving.run(*words, *where)


def test_a_session_from_the_command_line(serving: Proxy) -> None:
    words = ("--user", "alice", "--label", "run 7", "--route", "kit", "--tool", "Gmail.*:read_only")
    made = command(
        serving, "sessions", "create", "mailer", *words, "--ttl", "10m", "--renewable-for", "1d", "--json"
    )
    assert made.returncode == 0, made.stderr
    one = json.loads(made.stdout)
    assert (one["agent"], one["label"], one["user_id"]) == ("mailer", "run 7", "alice")
    assert (one["routes"], one["tools"], one["ttl"]) == (["kit"], ["Gmail.*:read_only"], 600)
    status, seen = serving.ask("GET", "/v1/sessions", headers={"Authorization": one["key"]})
    assert (status, [it["id"] for it in seen["items"]]) == (200, [one["id"]])

    shown = command(serving, "sessions", "create", "mailer", "--user", "bob")
    assert shown.returncode == 0, shown.stderr
    assert "apx_" in shown.stdout
    listed = command(serving, "sessions", "list")
    assert one["id"] in listed.stdout
    assert "run 7" in listed.stdout
    assert "apx_" not in listed.stdout

    ended = command(serving, "sessions", "revoke", one["id"])
    assert ended.returncode == 0, ended.stderr
    assert "(mailer as alice) is revoked" in ended.stdout
    every = json.loads(command(serving, "sessions", "list", "--user", "alice", "--all", "--json").stdout)
    assert [it["state"] for it in every] == ["revoked"]
    trail = command(serving, "audit", "query", "--kind", "session.revoked", "--json").stdout
    assert one["id"] in trail
    assert one["key"] not in trail


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("create", "mailer"), 2),
        (("create", "mailer", "--user", "alice", "--route", "nowhere"), 2),
        (("revoke", "ses_none"), 1),
    ],
)
def test_what_cannot_be(serving: Proxy, words: tuple[str, ...], code: int) -> None:
    done = command(serving, "sessions", *words)
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr.strip()
    assert "Traceback" not in done.stderr


def test_waiting_for_a_connection(serving: Proxy) -> None:
    serving.connect("paul")
    _, found = serving.ask("GET", "/v1/connections?user_id=paul")
    con = found["items"][0]["id"]
    assert command(serving, "connections", "wait", con).returncode == 0
    assert serving.ask("DELETE", f"/v1/connections/{con}")[0] == 200
    assert command(serving, "connections", "wait", con, "--timeout", "1s").returncode == 1
    again = Thread(target=serving.connect, args=("paul",))
    again.start()
    back = command(serving, "connections", "wait", con, "--timeout", "20s", "--json")
    again.join()
    assert (back.returncode, json.loads(back.stdout)["state"]) == (0, "active")
    assert command(serving, "connections", "wait", "con_none").returncode == 1
