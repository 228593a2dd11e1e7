"""All checks together: every code has its place, every check speaks, and nothing breaks them."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest

from authproxy.core.model import State
from authproxy.core.providers import catalogue
from authproxy.doctor.case import DAY, Door, Probe, Seen
from authproxy.doctor.finding import Certainty
from authproxy.doctor.redirects import difference
from authproxy.doctor.registry import CHECKS, ELSEWHERE, examine
from tests.doctor import test_grants, test_launch, test_registrations
from tests.doctor.cases import ERROR, MAIL, NOW, TESTING, WARNING, case, connection, told

SRC = Path(__file__).parents[2] / "src" / "authproxy"
ROWS = (*test_registrations.ROWS, *test_grants.ROWS, *test_launch.ROWS)


def test_every_code_is_checked_or_said_to_be_elsewhere() -> None:
    known = {one.code for one in CHECKS} | set(ELSEWHERE)
    assert {f"D{n:02}" for n in range(1, 31)} <= known
    assert {f"C{n:02}" for n in range(1, 13)} <= known
    assert {"B03", "B15", "J13"} <= known


def test_every_check_says_what_it_looks_at() -> None:
    for one in CHECKS:
        assert len(one.looks_at) > 40, one.title
        assert one.looks_at.endswith("."), one.title


def test_every_check_is_made_to_speak() -> None:
    cases = [value.values[3]() for value in ROWS]
    silent = [
        one.title for one in CHECKS if not any(list(one(each)) for each in cases if not one.missing(each))
    ]
    assert silent == []


def test_an_unverified_fact_is_never_certain() -> None:
    found = told(case({"spotify": {}}, "development", public_url="http://localhost:8701"), "D15")
    assert {one.sure for one in found} <= set(Certainty)
    registration = case({"google": {}}).registrations["google"]
    assert "redirect_uri.loopback" in registration.facts.unverified
    assert registration.sure("redirect_uri.loopback") is Certainty.LIKELY
    assert registration.sure("redirect_uri") is Certainty.LIKELY
    assert registration.sure("refresh_token.idle_expiry") is Certainty.CERTAIN
    assert registration.sure("notes", at_best=Certainty.LIKELY) is Certainty.POSSIBLE


@pytest.mark.scenario("C03")
@pytest.mark.parametrize(
    ("theirs", "words"),
    [
        ("https://auth.acme.com/callback/x/", "a slash at the end"),
        ("https://auth.acme.com/Callback/x", "upper and lower case"),
        ("http://auth.acme.com/callback/x", "the scheme (from character 5 on)"),
        ("https://auth.acme.com:8443/callback/x", "the port"),
        ("https://staging.acme.com/callback/x", "the host"),
        ("https://auth.acme.com/oauth/x", "the path"),
        ("https://auth.acme.com/callback/x?a=1", "the query"),
        ("https://auth.acme.com:port/", "no URL"),
    ],
)
def test_differences_between_redirect_uris_are_named(theirs: str, words: str) -> None:
    assert words in difference("https://auth.acme.com/callback/x", theirs)


def test_the_one_nearer_to_users_is_the_one_that_goes_live() -> None:
    live = case({"box": {}}, file="production.yaml")
    trial = case(
        {"box": {"scopes": ["root_readwrite"]}},
        "staging",
        file="staging.yaml",
        public_url="https://auth.staging.acme.com",
        against=live,
    )
    assert "Only staging.yaml" in told(trial, "C07", "missing after the launch")[0].wrong


def test_a_sealed_away_secret_does_not_stop_the_doctor() -> None:
    """In production a missing secret is an error to `serve`; the doctor looks at the rest from a laptop."""
    own = {"client_id": "env:ID", "scopes": [MAIL]}
    found = examine(case({"google": TESTING | own}, environ={}))
    assert [one.code for one in found if one.severity is ERROR] == ["D02"]
    assert [one.code for one in found if one.severity is WARNING] == ["C11"]
    assert "env:ID and env:SECRET" in told(case({"google": own}, environ={}), "C11")[0].wrong


ODD: tuple[Any, ...] = (None, [], {}, "text", 7, [None, {}, 7], {"a": []}, "https://[broken", "\x9b31m")


DISCOVERED = (
    "issuer",
    "token_endpoint",
    "authorization_endpoint",
    "token_endpoint_auth_methods_supported",
    "code_challenge_methods_supported",
)


@pytest.mark.parametrize("name", sorted(catalogue()))
@pytest.mark.parametrize("environment", ["development", "staging", "production"])
def test_no_provider_and_no_answer_breaks_a_check(name: str, environment: str) -> None:
    """Every entry, in each of its environments, with grants in every state and nonsense from the network."""
    facts = catalogue()[name]
    for own in (None, *facts.environments):
        choice: dict[str, Any] = {"environment": own} if own else {}
        if facts.placeholder:
            choice["subdomain"] = "acme.example.com" if facts.placeholder.host else "acme"
        if name in ("oauth2", "oidc"):
            choice |= {"issuer": "https://login.acme.com", "api_hosts": ["api.acme.com"]}
        held = [
            connection(name, f"{state}-{n}", state=state, extra=extra, expires_at=end, refresh_expires_at=end)
            for state in State
            for n, (extra, end) in enumerate(
                (({}, None), ({"instance_url": "https://[broken", "livemode": "perhaps"}, NOW), ({}, 0))
            )
        ]
        ended = {c.id: c.consented_at + 7 * DAY for c in held}
        for odd in ODD:
            document = dict.fromkeys(DISCOVERED, odd)
            seen = {
                name: Seen(
                    discovery=document, discovery_url="https://a.b/c", door=Door(0), probe=Probe("dead")
                )
            }
            one = case({name: choice}, environment, stored=held, ended=ended, seen=seen)
            both = case({name: choice}, environment, stored=held, ended=ended, seen=seen, against=one)
            assert all(finding.wrong for finding in examine(both))


@pytest.mark.scenario("A31")
def test_the_doctor_has_no_way_to_a_token() -> None:
    """It neither opens what is sealed, nor takes leases, nor writes: not one call by such a name."""
    ways = {"reveal", "access", "lease", "tokens", "held_tokens", "flow_verifier", "renew", "commit"}
    ways |= {"keep_grant", "disconnect", "settle", "write_intent", "refresh_request", "code_request"}
    rooms = [*(SRC / "doctor").glob("*.py"), SRC / "cli" / "doctor.py"]
    assert len(rooms) > 10
    for room in rooms:
        for node in ast.walk(ast.parse(room.read_text())):
            if isinstance(node, ast.Call):
                name = getattr(node.func, "attr", getattr(node.func, "id", ""))
                assert name not in ways, f"{room.name}: {name}"
