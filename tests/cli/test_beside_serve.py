"""Commands beside a running `serve`, on the same configuration and store."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import routes
from tests.kit.browser import Browser
from tests.kit.process import BOOT, Proxy
from tests.kit.provider import CANARY, Provider


def run(proxy: Proxy, *words: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    return proxy.run(*words, *place(proxy), stdin=stdin)


def place(proxy: Proxy) -> tuple[str, ...]:
    return ("--config", str(proxy.file), "--store", f"sqlite:///{proxy.store}")


def connecting(proxy: Proxy, *words: str) -> tuple[subprocess.Popen[str], str]:
    """`connect` begun, and the link that it prints."""
    process = subprocess.Popen(
        [sys.executable, "-c", BOOT, "connect", *words, *place(proxy)],
        env=proxy.env,
        cwd=proxy.directory,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        if found := re.search(r"http://\S+/connect/\S+", line):
            return process, found[0]
    raise AssertionError(process.communicate())


def test_connect_waits_for_the_end(serving: Proxy) -> None:
    process, link = connecting(serving, "kit", "--user", "alice")
    Browser().consent(link)
    out, err = process.communicate(timeout=20)
    assert process.returncode == 0, err
    assert "alice is connected to kit" in out
    again = run(serving, "connect", "kit", "--user", "alice")
    assert (again.returncode, "is connected" in again.stdout) == (0, True)


def test_connect_that_nobody_follows(serving: Proxy) -> None:
    process, link = connecting(serving, "kit", "--user", "nobody", "--timeout", "1s")
    _, err = process.communicate(timeout=20)
    assert process.returncode == 1
    assert "the link still works" in err
    assert Browser().open(link).status == 200


def test_list_show_and_explain(serving: Proxy) -> None:
    serving.connect("bob")
    listed = json.loads(run(serving, "connections", "list", "--json", "--user", "bob").stdout)
    assert [(one["user_id"], one["state"]) for one in listed] == [("bob", "active")]
    shown = run(serving, "connections", "show", listed[0]["id"])
    assert shown.returncode == 0
    assert "bob" in shown.stdout
    told = run(serving, "explain", "bob", "kit")
    assert told.returncode == 0, told.stderr
    assert "the user consented" in told.stdout
    assert "Nothing to do" in told.stdout
    never = run(serving, "explain", "nobody-ever", "kit")
    assert never.returncode == 1
    assert "connect kit --user nobody-ever" in never.stdout
    assert run(serving, "connections", "show", "con_none").returncode == 1
    assert CANARY not in shown.stdout + told.stdout


@pytest.mark.scenario("J04")
def test_refresh_then_a_revocation_and_what_explain_says(serving: Proxy, provider: Provider) -> None:
    before = len(provider.grants)
    serving.connect("carol")
    grant = provider.grants[before]
    con = json.loads(run(serving, "connections", "list", "--json", "--user", "carol").stdout)[0]["id"]
    assert run(serving, "connections", "refresh", con).returncode == 0
    assert len(grant.refresh) == 2
    provider.twist = lambda _grant, _form: (
        400,
        "application/json",
        b'{"error": "invalid_grant", "error_description": "Token has been expired or revoked."}',
    )
    try:
        # A refresh moments after another is not forced; by a token that has ended it is.
        refused = run(serving, "connections", "import", "kit", "--user", "dave", stdin="CANARY-rt-imported\n")
    finally:
        provider.twist = None
    assert refused.returncode != 0
    assert "refuses this refresh token" in refused.stderr
    told = run(serving, "explain", "dave", "kit")
    assert told.returncode == 1
    assert "invalid_grant" in told.stdout
    assert "connect kit --user dave" in told.stdout
    assert CANARY not in told.stdout + refused.stderr + refused.stdout


def test_import_proves_the_token_and_disconnect_gives_it_back(serving: Proxy, provider: Provider) -> None:
    before = len(provider.grants)
    serving.connect("erin")
    grant = provider.grants[before]
    done = run(serving, "connections", "import", "kit", "--user", "frank", stdin=grant.refresh[-1] + "\n")
    assert done.returncode == 0, done.stderr
    assert len(grant.refresh) == 2
    twice = run(serving, "connections", "import", "kit", "--user", "frank", stdin="x\n")
    assert twice.returncode == 2
    assert "--replace" in twice.stderr
    con = json.loads(run(serving, "connections", "list", "--json", "--user", "frank").stdout)[0]["id"]
    gone = run(serving, "connections", "disconnect", con)
    assert gone.returncode == 0, gone.stderr
    assert "has revoked the grant" in gone.stdout
    assert grant.refresh[-1] in grant.revoked
    assert run(serving, "connections", "import", "kit", "--user", "grace", stdin="").returncode == 2
    for told in (done, gone):
        assert CANARY not in told.stdout + told.stderr


@pytest.mark.scenario("I05")
def test_an_agent_key_from_making_to_its_end(serving: Proxy) -> None:
    made = json.loads(
        run(serving, "agents", "create", "mailer", "--user", "alice", "--expires", "90d", "--json").stdout
    )
    key = made.pop("key")
    headers = {"Authorization": key, "X-Forwarded-For": "203.0.113.9"}
    body = {"user_id": "alice", "auth_requirement": {"provider_id": "kit"}}

    def status() -> int:
        return serving.ask("POST", "/v1/auth/authorize", body, headers=headers)[0]

    began = time.monotonic()
    while status() != 200:
        assert time.monotonic() - began < 5, "a new key is known within the leash"
    listed = run(serving, "agents", "list")
    assert made["id"] in listed.stdout
    assert key not in listed.stdout
    assert run(serving, "agents", "revoke", made["id"]).returncode == 0
    began = time.monotonic()
    while status() != 401:
        assert time.monotonic() - began < 5, "a revocation is seen within the leash"
    assert run(serving, "agents", "revoke", "agt_none").returncode == 1
    assert key not in serving.words()


def test_the_trail(serving: Proxy) -> None:
    serving.connect("heidi")
    sound = run(serving, "audit", "verify")
    assert sound.returncode == 0, sound.stderr
    assert sound.stdout.startswith("sound: ")
    found = [json.loads(line) for line in wait_for(serving, "heidi").splitlines()]
    assert {one["user"] for one in found} == {"heidi"}
    exported = run(serving, "audit", "export", "--since", "1h").stdout.splitlines()
    assert len(exported) >= len(found)
    tail = run(serving, "audit", "tail", "-n", "3")
    assert len(tail.stdout.splitlines()) == 3
    assert CANARY not in "".join(exported) + tail.stdout


def wait_for(serving: Proxy, user: str) -> str:
    """Until the trail has the user's connection: it is written in batches."""
    began = time.monotonic()
    while True:
        told = run(serving, "audit", "query", "--user", user, "--kind", "connection.*", "--json").stdout
        if told or time.monotonic() - began > 10:
            return told


@pytest.fixture
def alone(provider: Provider, tmp_path: Path) -> Iterator[Proxy]:
    """Configuration and folders of a proxy that is not started."""
    proxy = Proxy(tmp_path / "alone", routes(provider))
    proxy.file.write_text(json.dumps(proxy.config))
    yield proxy
    if proxy.process is not None:
        proxy.stop()


def test_connect_serves_its_own_door_where_nobody_does(alone: Proxy) -> None:
    process, link = connecting(alone, "kit", "--user", "ivan")
    Browser().consent(link)
    out, err = process.communicate(timeout=20)
    assert process.returncode == 0, err
    assert "no `authproxy serve` is running" in err
    assert "ivan is connected" in out
    assert run(alone, "audit", "verify").returncode == 0


def test_connect_notices_a_serve_on_another_store(serving: Proxy, alone: Proxy) -> None:
    alone.config["public_url"] = serving.control_url
    alone.file.write_text(json.dumps(alone.config))
    told = run(alone, "connect", "kit", "--user", "judy")
    assert told.returncode == 1
    assert "another store" in told.stderr


@pytest.mark.scenario("A21")
def test_serve_starts_quickly_and_ends_with_zero(alone: Proxy) -> None:
    began = time.monotonic()
    alone.start()
    took = time.monotonic() - began
    assert alone.stop() == 0
    lines = [json.loads(line) for line in alone.words().splitlines()]
    events = [line["event"] for line in lines]
    assert events[0] == "starting"
    assert events[-2:] == ["stopping", "stopped"]
    store = next(line for line in lines if line["event"] == "store_open")
    assert store["path"] == str(alone.store)
    assert {"bytes", "connections", "filesystem"} <= store.keys()
    uri = next(line for line in lines if line["event"] == "redirect_uri")
    assert uri["register"] == f"{alone.control_url}/callback/kit"
    assert took < 5, took


def test_serve_says_which_address_is_taken(serving: Proxy, alone: Proxy) -> None:
    alone.control = serving.control
    told = alone.run(
        *("serve", *place(alone)),
        *("--listen", f"127.0.0.1:{alone.listen}", "--control", f"127.0.0.1:{serving.control}"),
    )
    assert told.returncode == 1
    assert "--control" in told.stderr
    assert "Traceback" not in told.stderr
