"""Commands by themselves: help, usage, configuration, and what `serve` refuses before it listens."""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shlex
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from authproxy.cli import audit
from authproxy.cli.console import instant as said_instant
from authproxy.cli.console import span
from authproxy.cli.door import COMMANDS
from authproxy.cli.spans import instant, seconds
from authproxy.core.strict import read
from tests.cli.conftest import Run
from tests.kit.process import BOOT

GOOD = """\
version: 1
public_url: https://auth.example.com
identity:
  callers:
    - {kind: loopback, agent: local}
providers:
  google: {client_id: env:GOOGLE_CLIENT_ID, client_secret: env:GOOGLE_CLIENT_SECRET}
routes:
  gmail: {scopes: ["https://www.googleapis.com/auth/gmail.readonly"]}
"""
SECRETS = {"GOOGLE_CLIENT_ID": "id", "GOOGLE_CLIENT_SECRET": "CANARY-client-secret"}


@pytest.fixture
def good(tmp_path: Path) -> Path:
    file = tmp_path / "routes.yaml"
    file.write_text(GOOD)
    return file


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_examples(command: Run, name: str) -> None:
    told = command(name, "--help", COLUMNS="80")
    description = told.stdout.partition("\n\n")[2].partition("\noptions:")[0]
    assert max(map(len, description.splitlines())) < 80
    assert (told.returncode, told.stderr) == (0, "")
    assert "examples:" in told.stdout
    assert f"authproxy {name}" in told.stdout


def test_help_usage_and_version(command: Run) -> None:
    assert command("--help").returncode == 0
    assert command("--version").stdout.startswith("authproxy 0.")
    for words in (
        (),
        ("nothing",),
        ("serve", "--nothing"),
        ("agents",),
        ("audit", "query", "--since", "yesterday"),
    ):
        assert command(*words).returncode == 2, words


def test_keys_generate(command: Run) -> None:
    first, second = command("keys", "generate"), command("keys", "generate")
    assert re.fullmatch(r"[A-Za-z0-9_-]{43}\n", first.stdout)
    assert first.stdout != second.stdout


@pytest.mark.scenario("C01")
def test_check_says_what_to_register(command: Run, good: Path) -> None:
    told = command("check", **SECRETS)
    assert told.returncode == 0, told.stderr
    assert "https://auth.example.com/callback/google" in told.stdout


def test_check_names_every_fault_with_file_line_and_path(command: Run, good: Path) -> None:
    good.write_text(GOOD.replace("kind: loopback", "kind: loopbak") + "timeouts: {connect: -1}\nrutes: {}\n")
    told = command("check", **SECRETS)
    assert told.returncode == 2
    lines = told.stderr.splitlines()
    assert any(re.search(r"routes\.yaml:5: identity\.callers\[0\]\.kind: ", line) for line in lines), lines
    assert any("routes.yaml:10: timeouts.connect: " in line for line in lines), lines
    assert any("routes.yaml:11: rutes: " in line for line in lines), lines
    as_json = json.loads(command("check", "--json", **SECRETS).stdout)
    assert as_json["well"] is False
    assert {fault["line"] for fault in as_json["faults"]} == {5, 10, 11}


def test_check_finds_its_file_by_option_and_by_environment(command: Run, good: Path) -> None:
    moved = good.rename(good.with_name("other.yaml"))
    told = command("check", **SECRETS)
    assert told.returncode == 2
    assert "--config" in told.stderr
    assert command("check", "--config", str(moved), **SECRETS).returncode == 0
    assert command("check", AUTHPROXY_CONFIG=str(moved), **SECRETS).returncode == 0
    assert command("check", "--config", "none.yaml", AUTHPROXY_CONFIG=str(moved), **SECRETS).returncode == 2


def test_the_environment_is_stricter_where_it_is_production(command: Run, good: Path) -> None:
    assert command("check").returncode == 0
    for words, environ in (
        (("--environment", "production"), {}),
        ((), {"AUTHPROXY_ENVIRONMENT": "production"}),
    ):
        told = command("check", *words, **environ)
        assert told.returncode == 2, told
        assert "GOOGLE_CLIENT_SECRET" in told.stderr
    told = command("check", AUTHPROXY_ENVIRONMENT="prod")
    assert told.returncode == 2
    assert "AUTHPROXY_ENVIRONMENT" in told.stderr


def test_the_schema_is_one(command: Run) -> None:
    schema = json.loads(command("check", "--schema").stdout)
    assert schema["additionalProperties"] is False
    assert {"routes", "providers", "identity"} <= schema["properties"].keys()


@pytest.mark.parametrize(
    ("words", "environ", "says"),
    [
        (("--listen", "0.0.0.0:0"), {}, "loopback callers only"),
        (("--listen", "nonsense"), {}, "HOST:PORT"),
        (("--control", "unix:relative"), {}, "unix:/absolute"),
        (("--store", "redis://x"), {}, "say sqlite:///path"),
        (("--environment", "production"), {"AUTHPROXY_KEYS": ""}, "sealing key"),
        ((), {"AUTHPROXY_KEYS": "short"}, "43 characters"),
        ((), {"AUTHPROXY_LOG_LEVEL": "loud"}, "AUTHPROXY_LOG_LEVEL"),
        (("--expect-data",), {}, "no store"),
        ((), {"AUTHPROXY_EXPECT_DATA": "1"}, "no store"),
    ],
)
@pytest.mark.scenario("E11", "C11")
def test_serve_refuses_and_says_what_to_do(
    command: Run, good: Path, words: tuple[str, ...], environ: dict[str, str], says: str
) -> None:
    told = command("serve", *words, **{**SECRETS, **environ})
    assert told.returncode in (1, 2), told
    assert says in told.stderr
    assert "Traceback" not in told.stderr
    assert "CANARY" not in told.stderr


def test_serve_beyond_this_machine_needs_keys_and_a_word(command: Run, good: Path) -> None:
    good.write_text(GOOD.replace("- {kind: loopback, agent: local}", "- {kind: api_key}"))
    told = command("serve", "--listen", "0.0.0.0:0", **SECRETS)
    assert told.returncode == 2
    assert "--allow-plaintext" in told.stderr


def test_commands_do_not_take_a_mistyped_path_for_an_empty_store(command: Run, good: Path) -> None:
    for words in (
        ("connections", "list"),
        ("explain", "alice", "google"),
        ("audit", "verify"),
        ("agents", "list"),
    ):
        told = command(*words, "--store", "sqlite:///typo.db", **SECRETS)
        assert told.returncode == 2, words
        assert "typo.db" in told.stderr
        assert not (good.parent / "typo.db").exists()


def test_a_byte_that_is_no_text_is_found(command: Run, tmp_path: Path) -> None:
    file = tmp_path / "latin.yaml"
    file.write_bytes(b"version: 1\npublic_url: https://auth.example.com # caf\xe9\n")
    told = command("check", "--config", str(file))
    assert (told.returncode, told.stderr) == (2, f"authproxy: {file}:2: is not UTF-8\n")


def test_connect_needs_a_provider_that_is_configured(command: Run, good: Path) -> None:
    told = command("connect", "goggle", "--user", "alice", **SECRETS)
    assert told.returncode == 2
    assert "provider" in told.stderr


def test_the_sandbox_says_what_to_configure_and_ends_with_zero(tmp_path: Path) -> None:
    environ = {name: os.environ[name] for name in ("PATH", "LANG", "TMPDIR") if name in os.environ}
    words = [sys.executable, "-u", "-c", BOOT, "sandbox", "--port", "0", "--set", "access_token_life=30"]
    with subprocess.Popen(words, env=environ, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as sandbox:
        assert sandbox.stdout is not None
        lines: list[str] = []
        while not lines or "ledger" not in lines[-1]:
            lines.append(sandbox.stdout.readline())
        curls = [line for line in lines if line.startswith("curl ")]
        assert [_curl(line) for line in curls] == [200] * 5
        sandbox.send_signal(signal.SIGTERM)
        assert sandbox.wait(10) == 0
    start, end = lines.index("In routes.yaml:\n"), lines.index("To break it while it runs:\n")
    reading = read(
        "version: 1\n" + "".join(lines[start + 1 : end]), file="x", environ={}, read_file=lambda _: ""
    )
    assert list(reading.config.routes) == ["sandbox"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_what_the_demonstration_prints_can_be_typed(tmp_path: Path, number: signal.Signals) -> None:
    environ = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
    environ["TMPDIR"] = str(tmp_path)
    words = [sys.executable, "-u", "-c", BOOT, "demo", "--serve"]
    with subprocess.Popen(words, env=environ, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as demo:
        assert demo.stdout is not None
        lines: list[str] = []
        while not lines or "/metrics" not in lines[-1]:
            lines.append(demo.stdout.readline())
        answers = {line.strip(): _curl(line) for line in lines if line.startswith("    curl ")}
        demo.send_signal(number)
        assert demo.wait(20) == 0
    assert not list(tmp_path.iterdir()), "it removes everything"
    assert sorted(answers.values()) == [200] * 7 + [403] * 3, answers  # alice has not opened the link yet
    assert all(("X-User-ID" in line) == (status == 403) for line, status in answers.items())


def _curl(line: str) -> int:
    """What such a line would be answered; written out, since not every machine has curl."""
    parser = argparse.ArgumentParser()
    parser.add_argument("-N", action="store_true")
    parser.add_argument("-H", action="append", default=[])
    for word in ("-X", "-d"):
        parser.add_argument(word)
    parser.add_argument("url")
    said = parser.parse_args(shlex.split(line, comments=True)[1:])
    fields = dict(one.split(": ") for one in said.H)
    asked = urllib.request.Request(said.url, said.d and said.d.encode(), fields, method=said.X)
    try:
        with urllib.request.urlopen(asked) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as refused:
        with refused:
            return refused.code


def test_the_sandbox_knows_its_switches(command: Run) -> None:
    assert "access_token_life: " in command("sandbox", "--list-switches").stdout
    for words in (("--set", "odd=1"), ("--set", "odd"), ("--dialect", "odd"), ("--port", "x")):
        assert command("sandbox", *words).returncode == 2, words


def test_spans_and_instants() -> None:
    assert [seconds(text) for text in ("90d", "12h", "1h30m", "45s", "2w")] == [
        7776000,
        43200,
        5400,
        45,
        1209600,
    ]
    assert instant("1h", 10_000) == 6400
    assert instant("2026-03-01", 0) == instant("2026-03-01T01:00+01:00", 0)
    assert [span(n) for n in (0, 61, 3600, 90061)] == ["0s", "1m 1s", "1h", "1d 1h"]
    assert said_instant(0) == "1970-01-01 00:00:00Z"
    for beyond in (2**40, 2**62, -(2**62)):  # what a provider may say of its refresh token's end
        assert said_instant(beyond) == "beyond all calendars"


@pytest.mark.parametrize(
    "words",
    [
        ("audit", "tail", "-n", "-5"),
        ("audit", "query", "--limit", "99999999999999999999"),
        ("connections", "list", "--limit", "-1"),
        ("agents", "list", "--tenant", ""),
        ("agents", "create", "x", "--tenant", "x\ny"),
        ("connections", "list", "--store", "mysql://root:CANARY@db/x"),
        ("agents", "list", "--store", "authproxy.db"),
        ("sandbox", "--port", "99999"),
    ],
)
def test_odd_values_are_usage_and_not_a_traceback(command: Run, good: Path, words: tuple[str, ...]) -> None:
    told = command(*words, **SECRETS)
    assert (told.returncode, told.stdout) == (2, "")
    assert f"argument {words[-2].replace('-n', '-n/--lines')}: say " in told.stderr
    assert "CANARY" not in told.stderr


def test_the_sandboxs_port_may_come_from_the_environment(command: Run) -> None:
    told = command("sandbox", AUTHPROXY_SANDBOX_PORT="99999")
    assert (told.returncode, told.stdout) == (2, "")
    assert "AUTHPROXY_SANDBOX_PORT: say a port" in told.stderr


@pytest.mark.scenario("F02")
def test_a_token_in_the_wrong_place_is_not_repeated(command: Run, good: Path) -> None:
    for words in (("CANARY-rt",), ("--token=CANARY-rt",), ("--token", "CANARY-rt")):
        told = command("connections", "import", "google", "--user", "alice", *words, **SECRETS)
        assert told.returncode == 2
        assert "unrecognized arguments: " in told.stderr
        assert "CANARY" not in told.stderr + told.stdout
    told = command("connections", "import", "google", "--user", "alice", stdin="CANARY" * 20000, **SECRETS)
    assert (told.returncode, "too long" in told.stderr, "CANARY" in told.stderr) == (2, True, False)


def test_an_agents_key_is_shown_whatever_its_end(command: Run, good: Path) -> None:
    made = command("agents", "create", "x", "--expires", "999999w", **SECRETS)
    assert made.returncode == 0, made.stderr
    assert re.search(r"^key +apx_", made.stdout, re.M)
    assert "no key is accepted yet" in made.stderr, "the configuration knows local callers only"
    assert command("agents", "list", **SECRETS).stderr == ""
    good.write_text(GOOD.replace("agent: local}", "agent: local}\n    - {kind: api_key}"))
    assert command("agents", "create", "y", **SECRETS).stderr == ""
    for odd in ("a*b", "**", "*a"):
        refused = command("agents", "create", "x", "--user", odd, **SECRETS)
        assert (refused.returncode, "may only end" in refused.stderr) == (2, True)


def test_what_is_not_configured_is_said_with_what_is(command: Run, good: Path) -> None:
    assert command("agents", "create", "x", **SECRETS).returncode == 0
    told = command("explain", "alice", "nowhere", **SECRETS)
    assert (told.returncode, told.stdout) == (2, "")
    assert "configured: google" in told.stderr
    told = command("explain", "Al Ice", "google", "--tenant", "acme", "--account", "work", **SECRETS)
    assert "authproxy connect google --user 'Al Ice' --account work --tenant acme" in told.stdout
    assert "again" not in told.stdout


def test_bench_measures_this_machine(command: Run) -> None:
    told = command("bench", "--json", "--seconds", "0.1")
    assert (told.returncode, told.stderr) == (0, "")
    figures = json.loads(told.stdout)
    assert figures["proxied"]["p50"] > figures["direct"]["p50"] > 0
    assert figures["proxied"]["cpu"] > 0
    assert figures["memory_loaded_mb"] > 10


def test_a_settled_process_walks_no_old_objects_and_keeps_freed_memory() -> None:
    told = subprocess.run(
        [sys.executable, "-c", SETTLED], capture_output=True, text=True, timeout=30, check=True
    )
    frozen, threshold, faults = map(int, told.stdout.split())
    assert frozen > 1000
    assert threshold > 700
    if sys.platform == "linux" and "glibc" in platform.libc_ver()[0]:
        assert faults < 2000, "each piece came in pages that the kernel had to clear"


SETTLED = """
import gc, resource
from authproxy.cli.settle import settle
settle()
held = [bytes(2**18) for _ in range(16)]
del held
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(100):
    held = [bytes(2**18) for _ in range(8)]
    del held
print(gc.get_freeze_count(), gc.get_threshold()[0], resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def test_the_line_of_a_tool_s_call_says_which(capsys: pytest.CaptureFixture[str]) -> None:
    record = {
        "at": 0,
        "kind": "tool.call",
        "tenant": "default",
        "agent": "mailer",
        "user": "alice",
        "tool": "Gmail.SendEmail",
        "route": "gmail",
        "scopes": ["send", "read"],
        "outcome": "success",
        "code": None,
        "ms": 4.4,
    }
    audit._say_record(record, argparse.Namespace(json=False, tenant="default"))
    told = capsys.readouterr().out
    assert "agent=mailer  user=alice  tool=Gmail.SendEmail  route=gmail  outcome=success  ms=4.4" in told
    assert told.endswith("  scopes=send,read\n")
