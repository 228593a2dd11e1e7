"""`authproxy doctor` as it is typed: reports, exit codes, comparisons, stores of all states."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from authproxy.core.model import ConnectionKey, Environment, NewGrant, TokenSet
from authproxy.core.secret import Secret
from authproxy.core.strict import ConfigFaults, read_config
from authproxy.doctor.registry import CHECKS, ELSEWHERE
from authproxy.store.sealing import Keyring, generate_key
from authproxy.store.vault import Vault
from tests.doctor.cases import CANARY, MAIL, nothing_there, written
from tests.kit.process import BOOT

ROOT = Path(__file__).parents[2]
Doctor = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def doctor(tmp_path: Path) -> Doctor:
    """`authproxy doctor …` in an empty folder."""

    def run(*words: str, **environ: str) -> subprocess.CompletedProcess[str]:
        kept = {name: os.environ[name] for name in ("PATH", "LANG", "TMPDIR") if name in os.environ}
        return subprocess.run(
            [sys.executable, "-c", BOOT, "doctor", *words],
            env={**kept, "HOME": str(tmp_path), **environ},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )

    return run


def write(folder: Path, name: str, providers: Any, environment: str, **top: Any) -> str:
    (folder / name).write_text(json.dumps(written(providers, environment, **top)))
    return name


def codes(told: subprocess.CompletedProcess[str], severity: str) -> set[str]:
    return {one["code"] for one in json.loads(told.stdout)["findings"] if one["severity"] == severity}


@pytest.mark.parametrize(
    "secrets", [{}, {"GOOGLE_CLIENT_ID": "1-a.apps.googleusercontent.com", "GOOGLE_CLIENT_SECRET": CANARY}]
)
def test_the_repository_s_own_configuration_has_no_errors(doctor: Doctor, secrets: dict[str, str]) -> None:
    told = doctor("--config", str(ROOT / "routes.yaml"), **secrets)
    assert told.returncode == 0, told.stdout
    assert "ERRORS" not in told.stdout
    assert "0 errors" in told.stdout.splitlines()[-1]
    assert told.stderr == ""


GOOGLE = {"client_id": "1-a.apps.googleusercontent.com"}
SLACK = {"client_id": "1.2"}
LIVE = {
    "google": {**GOOGLE, "scopes": [MAIL], "authorize_params": {"access_type": "online"}},
    "salesforce": {"endpoints": {"token": "https://test.salesforce.com/services/oauth2/token"}},
    "hubspot": {
        "endpoints": {"token": "https://api.hubapi.com/oauth/v1/token"},
        "client_auth": "client_secret_basic",
        "client_secret": "env:SECRET",
    },
    "slack": {
        **SLACK,
        "registered_redirect_uris": ["https://auth.staging.acme.com/callback/slack"],
        "scopes": ["search:read"],
    },
    "microsoft": {"client_secret_expires_on": "2020-01-01"},
    "docusign": {"environment": "demo"},
}
TRIAL = {
    "google": {**GOOGLE, "publishing_status": "testing"},
    "salesforce": {"environment": "sandbox"},
    "hubspot": {},
    "slack": {**SLACK, "scopes": ["chat:write"], "pkce": True},
    "box": {},
}


@pytest.fixture
def broken(tmp_path: Path) -> tuple[str, str]:
    trial_top = {
        "public_url": "https://auth.staging.acme.com",
        "routes": {"box": {}, "hubspot": {"allow": []}},
    }
    return (
        write(tmp_path, "production.yaml", LIVE, "production", replicas=2, routes={"hubspot": {}}),
        write(tmp_path, "staging.yaml", TRIAL, "staging", **trial_top),
    )


@pytest.mark.scenario("C01", "C07", "C11", "B03")
def test_a_broken_pair(doctor: Doctor, broken: tuple[str, str]) -> None:
    told = doctor("--config", broken[0], "--against", broken[1], "--json", SECRET=CANARY)
    assert told.returncode == 1, told.stderr
    assert codes(told, "error") == {"C03", "D01", "D02", "D04", "D05", "D08", "D12", "D13", "D16"}
    assert codes(told, "warning") == {"C07", "C11", "D07", "D21"}
    assert {"C01", "D02", "D04", "D24"} == codes(told, "info")
    said = json.loads(told.stdout)
    assert said["well"] is False
    assert said["against"] == "staging.yaml"
    assert said["counts"]["error"] == len([f for f in said["findings"] if f["severity"] == "error"])
    assert {"code", "severity", "provider", "title", "wrong", "why", "do", "sure", "evidence"} == set(
        said["findings"][0]
    )
    assert "(that of staging.yaml)" in told.stdout
    assert CANARY not in told.stdout + told.stderr


def test_either_order_names_the_same_configuration_as_the_live_one(
    doctor: Doctor, broken: tuple[str, str]
) -> None:
    told = doctor("--config", broken[1], "--against", broken[0], SECRET=CANARY)
    assert "production.yaml lacks box" in told.stdout


def test_the_report_is_grouped_wrapped_and_summed_up(doctor: Doctor, broken: tuple[str, str]) -> None:
    told = doctor("--config", broken[0], "--against", broken[1], SECRET=CANARY)
    lines = told.stdout.splitlines()
    heads = [line.split(" (")[0] for line in lines if line and line[0].isupper() and line == line.upper()]
    assert heads == ["ERRORS", "WARNINGS", "WORTH KNOWING"]
    assert max(map(len, lines[:-1])) <= 110
    assert " errors, " in lines[-1]
    assert "production.yaml (production, 6 providers)" in lines[-1]
    assert any(line.startswith("D04  salesforce: ") for line in lines)
    assert {line.split()[0] for line in lines if line.startswith("     ") and line[5] != " "} == {
        "what",
        "why",
        "do",
        "sure",
        "seen",
    }


def test_of_one_provider_only(doctor: Doctor, broken: tuple[str, str]) -> None:
    told = doctor("--config", broken[0], "--provider", "google", "--json", SECRET=CANARY)
    assert {one["provider"] for one in json.loads(told.stdout)["findings"]} == {"google"}
    assert doctor("--config", broken[0], "--provider", "nobody").returncode == 2


def test_explain_says_what_a_check_looks_at(doctor: Doctor) -> None:
    told = doctor("--explain", "d02")
    assert told.returncode == 0
    assert "publishing_status" in told.stdout
    assert "Needs stored connections." in told.stdout
    assert doctor("--explain", "C02").returncode == 0
    unknown = doctor("--explain", "D99")
    assert (unknown.returncode, unknown.stdout) == (2, "")
    assert "--list" in unknown.stderr


def test_the_list_has_every_code_with_or_without_a_configuration(doctor: Doctor, tmp_path: Path) -> None:
    for _ in range(2):
        rows = json.loads(doctor("--list", "--json").stdout)
        assert {f"D{n:02}" for n in range(1, 31)} | {f"C{n:02}" for n in range(1, 13)} <= {
            row["code"] for row in rows
        }
        assert len(rows) == len(CHECKS) + len(ELSEWHERE)
        assert all(row["status"] for row in rows)
        write(tmp_path, "routes.yaml", {"box": {}}, "development")
    status = {row["looks at"]: row["status"] for row in rows}
    assert status["The client secret ends"] == "looked at"
    assert status["The client, asked with a made-up refresh token"] == "left out: needs --online"
    assert "CODE" in doctor("--list").stdout


def test_usage_and_configuration_faults_are_2(doctor: Doctor, tmp_path: Path) -> None:
    assert "there is no routes.yaml" in doctor().stderr
    write(
        tmp_path,
        "routes.yaml",
        {"box": {"published_on": "2026-02-30"}},
        "production",
        public_url="http://acme.com",
    )
    told = doctor(SECRET=CANARY)
    assert (told.returncode, told.stdout) == (2, "")
    assert "providers.box.published_on: is no day of the calendar" in told.stderr
    assert "public_url: must be https" in told.stderr
    write(tmp_path, "routes.yaml", {"box": {}}, "production")
    assert doctor("--against", "nowhere.yaml").returncode == 2
    assert doctor("--against-store", "sqlite:///x.db").returncode == 2
    assert doctor("--store", "sqlite:///mistyped.db").returncode == 2
    assert doctor("--nothing").returncode == 2


@pytest.mark.parametrize(
    ("key", "text", "good"),
    [
        ("published_on", "2026-01-31", True),
        ("published_on", "2024-02-29", True),
        ("published_on", "2025-02-29", False),
        ("published_on", "31.01.2026", False),
        ("client_secret_expires_on", "2026-13-01", False),
        ("client_secret_expires_on", "2027-06-30", True),
        ("publishing_status", "testing", True),
        ("publishing_status", "published", False),
        ("registered_redirect_uris", ["https://a.b/c", "urn:ietf:wg:oauth:2.0:oob"], True),
        ("registered_redirect_uris", ["two uris"], False),
    ],
)
def test_what_cannot_be_seen_is_declared_strictly(key: str, text: Any, good: bool) -> None:
    raw = json.dumps(written({"google": {key: text}}, "development"))

    def read() -> Any:
        return read_config(raw, file="routes.yaml", environ={"SECRET": CANARY}, read_file=nothing_there)

    if good:
        value = getattr(read().providers["google"], key)
        assert value == (tuple(text) if isinstance(text, list) else text)
    else:
        with pytest.raises(ConfigFaults) as caught:
            read()
        assert {fault.path.partition("[")[0] for fault in caught.value.faults} == {f"providers.google.{key}"}


def test_replicas_are_counted_from_one() -> None:
    def read(replicas: Any) -> Any:
        raw = json.dumps(written({}, "development", replicas=replicas))
        return read_config(raw, file="routes.yaml", environ={}, read_file=nothing_there)

    assert read(3).replicas == 3
    for bad in (0, "two"):
        with pytest.raises(ConfigFaults) as caught:
            read(bad)
        assert [one.path for one in caught.value.faults if one.severity == "error"] == ["replicas"]


# --- stores


async def stored(path: Path, keys: str, environment: Environment, *, client_id: str = "client-1") -> None:
    vault = await Vault.open(f"sqlite:///{path}", keyring=Keyring.parse(keys), environment=environment)
    now = int(time.time())
    tokens = TokenSet(Secret("CANARY-at"), Secret("CANARY-rt"), now + 60, 3600, scopes=("root_readwrite",))
    key = ConnectionKey("default", "alice", "box")
    grant = NewGrant(key, client_id, "grant-1", tokens, ("root_readwrite",), "alice@box", now)
    await vault.keep_grant(grant, [])
    await vault.close()


@pytest.mark.scenario("C04")
async def test_stored_connections_are_looked_at(doctor: Doctor, tmp_path: Path) -> None:
    keys = generate_key()
    write(tmp_path, "routes.yaml", {"box": {}}, "production")
    await stored(tmp_path / "authproxy.db", keys, Environment.PRODUCTION, client_id="former")
    told = doctor("--json", SECRET=CANARY, AUTHPROXY_KEYS=keys)
    assert (told.returncode, told.stderr) == (1, "")
    assert json.loads(told.stdout)["connections"] == 1
    assert codes(told, "error") == {"C04"}
    assert "CANARY" not in told.stdout


@pytest.mark.scenario("C12")
async def test_a_store_of_another_environment_is_a_finding(doctor: Doctor, tmp_path: Path) -> None:
    keys = generate_key()
    write(tmp_path, "routes.yaml", {"box": {}}, "staging")
    await stored(tmp_path / "authproxy.db", keys, Environment.PRODUCTION)
    before = (tmp_path / "authproxy.db").read_bytes()
    told = doctor("--json", SECRET=CANARY, AUTHPROXY_KEYS=keys)
    assert told.returncode == 1
    assert codes(told, "error") == {"C12"}
    assert (tmp_path / "authproxy.db").read_bytes() == before


@pytest.mark.scenario("C09")
async def test_other_keys_are_a_finding(doctor: Doctor, tmp_path: Path) -> None:
    write(tmp_path, "routes.yaml", {"box": {}}, "production")
    await stored(tmp_path / "authproxy.db", generate_key(), Environment.PRODUCTION)
    for environ in ({"AUTHPROXY_KEYS": generate_key()}, {}):
        told = doctor("--json", SECRET=CANARY, **environ)
        assert told.returncode == 0, told.stderr
        assert "C09" in codes(told, "warning")


@pytest.mark.scenario("C12")
async def test_a_copied_store_is_seen_side_by_side(doctor: Doctor, tmp_path: Path) -> None:
    """The same grants in the stores of two environments, as after an export and an import."""
    keys = generate_key()
    write(tmp_path, "routes.yaml", {"box": {}}, "production")
    write(tmp_path, "staging.yaml", {"box": {}}, "staging", public_url="https://auth.staging.acme.com")
    await stored(tmp_path / "authproxy.db", keys, Environment.PRODUCTION)
    await stored(tmp_path / "staging.db", keys, Environment.STAGING)
    told = doctor(
        *("--against", "staging.yaml", "--against-store", "sqlite:///staging.db", "--json"),
        SECRET=CANARY,
        AUTHPROXY_KEYS=keys,
    )
    assert told.returncode == 1
    assert codes(told, "error") == {"C12"}
    assert "B03" in codes(told, "warning")


@pytest.mark.scenario("A31")
def test_the_doctor_leaves_nothing_behind(doctor: Doctor, tmp_path: Path) -> None:
    """Neither a store nor a key is made where there is none."""
    write(tmp_path, "routes.yaml", {"box": {}}, "development")
    (tmp_path / "empty.db").touch()
    assert doctor(SECRET=CANARY).returncode == 0
    assert doctor("--store", "sqlite:///empty.db", SECRET=CANARY).returncode == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty.db", "routes.yaml"]
    assert (tmp_path / "empty.db").stat().st_size == 0


def test_names_from_outside_do_not_reach_the_terminal_raw(doctor: Doctor, tmp_path: Path) -> None:
    given = ["https://auth.acme.com/callback/box\u009b31m"]
    write(tmp_path, "routes.yaml", {"box": {"registered_redirect_uris": given}}, "production")
    told = doctor(SECRET=CANARY)
    assert "\u009b" not in told.stdout
