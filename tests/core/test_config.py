"""The reader of routes.yaml: strict, with every fault and its line, and never a value in a message."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import example, given
from hypothesis import settings as examples
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from authproxy.core.config import Config, Endpoints, RouteChoice, Rule
from authproxy.core.model import Environment
from authproxy.core.routes import RouteTable
from authproxy.core.secret import Secret
from authproxy.core.strict import ConfigFaults, Fault, Reading, json_schema, read, read_config, settings

ROOT = Path(__file__).parents[2]
CANARY = "canary-5up3r-s3cr3t"


def no_file(path: str) -> str:
    raise FileNotFoundError(2, "No such file or directory")


def reading(text: str, environ: dict[str, str] | None = None, **more: Any) -> Reading:
    return read(
        text, file="routes.yaml", environ=environ or {}, read_file=more.pop("read_file", no_file), **more
    )


def config_of(text: str, environ: dict[str, str] | None = None, **more: Any) -> Config:
    return reading("version: 1\n" + text, environ, **more).config


def faults_of(text: str, environ: dict[str, str] | None = None, **more: Any) -> tuple[Fault, ...]:
    with pytest.raises(ConfigFaults) as caught:
        reading(text, environ, **more)
    assert any(fault.severity == "error" for fault in caught.value.faults)
    return caught.value.faults


def errors_of(text: str, environ: dict[str, str] | None = None, **more: Any) -> dict[str, str]:
    """Path to message of the errors, of a text without its version."""
    faults = faults_of("version: 1\n" + text, environ, **more)
    return {fault.path: fault.message for fault in faults if fault.severity == "error"}


def warnings_of(text: str, environ: dict[str, str] | None = None, **more: Any) -> dict[str, str]:
    return {fault.path: fault.message for fault in reading("version: 1\n" + text, environ, **more).warnings}


ACME = """
providers:
  acme:
    issuer: https://id.acme.example
    client_id: acme-id
    client_auth: none
    api_hosts: [api.acme.example]
"""

# --- values --------------------------------------------------------------------------------------------------------


def test_the_smallest_configuration_is_the_defaults() -> None:
    config = config_of("")
    assert config == Config(version=1)
    assert config.environment is Environment.DEVELOPMENT
    assert config.refresh.lease == 60.0


def test_every_kind_of_value_is_read() -> None:
    text = """
environment: staging
public_url: https://auth.example.com/authproxy
identity:
  user_header: X-Acting-User
  callers:
    - kind: loopback
      agent: worker
      may_act_for: [alice, "team-*"]
      operator: true
    - {kind: api_key, tenant: acme}
providers:
  acme:
    issuer: https://id.acme.example
    client_id: env:ACME_ID
    client_secret: file:/run/secrets/acme
    client_auth: client_secret_post
    pkce: false
    endpoints: {token: "https://id.acme.example/token?x=1"}
    api_hosts: [api.acme.example, "api2.acme.example:8443"]
    authorize_params: {audience: https://api.acme.example, "prompt": consent}
    refresh_margin: 0
    token_lifetime: null
  google: {client_id: literal.apps.googleusercontent.com, client_secret: env:G}
routes:
  gmail:
    allow: []
  google-drive:
  acme:
    prefix: /acme/v2
    upstream: https://api.acme.example/v2
    provider: acme
    scopes: [read, "https://api.acme.example/write"]
    allow:
      - {methods: [GET, POST], paths: ["/v2/**"]}
      - paths: [/v2]
    hosts: [other.acme.example]
    max_body: 1000
    timeouts: {connect: 1.5, idle: 0, total: 2}
    keep_set_cookie: true
limits: {max_requests: 7}
timeouts:
refresh: {margin: 60, deadline: 5, lease: 15.5}
audit: {durability: strict, flush: 1e-2}
egress:
  allow: [127.0.0.1, "10.0.0.0/8", "10.1.0.0/16:443", "svc.internal:80", "fd00::/8", "[fd00::1]:443", "[fd00::/8]:1"]
flows: {next_uri_allow: [https://app.example.com/done]}
"""
    text = text.replace('"https://id.acme.example/token?x=1"', "https://id.acme.example/token")
    config = config_of(text, {"ACME_ID": "id", "G": "s"}, read_file=lambda path: f"secret of {path}")
    acme = config.providers["acme"]
    assert isinstance(acme.client_id, Secret)
    assert acme.client_id.reveal() == "id"
    assert acme.client_secret == Secret("secret of /run/secrets/acme")
    assert acme.endpoints == Endpoints(token="https://id.acme.example/token")
    assert dict(acme.authorize_params) == {"audience": "https://api.acme.example", "prompt": "consent"}
    assert (acme.pkce, acme.refresh_margin, acme.token_lifetime) == (False, 0, None)
    assert config.providers["google"].client_id == "literal.apps.googleusercontent.com"
    assert config.routes["gmail"].allow == ()
    assert config.routes["google-drive"] == RouteChoice()
    route = config.routes["acme"]
    assert route.allow == (Rule(("GET", "POST"), ("/v2/**",)), Rule(("*",), ("/v2",)))
    assert (route.timeouts.connect, route.timeouts.idle, route.timeouts.first_byte) == (1.5, 0.0, None)
    assert isinstance(route.timeouts.total, float)
    assert (route.max_body, route.keep_set_cookie) == (1000, True)
    assert config.identity.callers[0].may_act_for == ("alice", "team-*")
    assert (config.limits.max_requests, config.refresh.lease, config.audit.flush) == (7, 15.5, 0.01)
    assert config.timeouts.connect == 10.0


def test_what_is_read_cannot_be_changed() -> None:
    config = config_of(ACME)
    with pytest.raises(TypeError):
        config.providers["x"] = config.providers["acme"]  # type: ignore[index]
    assert read_config("version: 1", file="f", environ={}, read_file=no_file) == Config(version=1)


def test_aliases_stand_for_their_anchor() -> None:
    text = (
        ACME
        + """
routes:
  a: &a {upstream: https://api.acme.example/a, provider: acme, scopes: &scopes [read]}
  b: {upstream: https://api.acme.example/b, provider: acme, scopes: *scopes}
"""
    )
    routes = config_of(text).routes
    assert routes["b"].scopes == routes["a"].scopes == ("read",)


# --- faults of form ------------------------------------------------------------------------------------------------

FORM = [
    ("envirnment: production", "envirnment", "did you mean `environment`"),
    ("routes: {gmail: {scope: [x]}}", "routes.gmail.scope", "did you mean `scopes`"),
    ("xyzzy: 1", "xyzzy", "known: version, environment"),
    ("<<: {}", "<<", "merge keys"),
    ("identity: {user_header: {}}", "identity.user_header", "single value"),
    ("identity: []", "identity", "mapping"),
    ("identity: x", "identity", "mapping"),
    ("providers: [a]", "providers", "mapping of names"),
    ("providers: {Acme: {}}", "providers.…", "lower-case"),
    ("providers: {'../x': {}}", "providers.…", "lower-case"),
    ("routes: {a b: {}}", "routes.…", "lower-case"),
    ("? [a]\n: b", "", "a key must be a text"),
    ("limits: {max_body: -1}", "limits.max_body", "at least 0"),
    ("limits: {max_body: 1.5}", "limits.max_body", "whole number"),
    ("limits: {max_body: '1'}", "limits.max_body", "whole number"),
    ("limits: {max_body: 0x10}", "limits.max_body", "whole number"),
    ("limits: {max_body: 010}", "limits.max_body", "whole number"),
    ("limits: {max_body: 1_000}", "limits.max_body", "whole number"),
    ("limits: {max_body: 1:30}", "limits.max_body", "whole number"),
    ("limits: {max_body: true}", "limits.max_body", "whole number"),
    ("limits: {max_body: }", "limits.max_body", "is empty"),
    (f"limits: {{max_body: {'9' * 5000}}}", "limits.max_body", "whole number"),
    ("refresh: {margin: ٣}", "refresh.margin", "whole number"),
    ("timeouts: {idle: .inf}", "timeouts.idle", "must be a number"),
    ("timeouts: {idle: .nan}", "timeouts.idle", "must be a number"),
    ("timeouts: {idle: 1e999}", "timeouts.idle", "must be a number"),
    ("timeouts: {idle: 10s}", "timeouts.idle", "must be a number"),
    ("routes: {gmail: {send_cookies: yes}}", "routes.gmail.send_cookies", "true or false"),
    ("routes: {gmail: {send_cookies: 'true'}}", "routes.gmail.send_cookies", "true or false"),
    ("routes: {gmail: {scopes: read}}", "routes.gmail.scopes", "must be a list"),
    ("routes: {gmail: {scopes: }}", "routes.gmail.scopes", "write []"),
    ("routes: {gmail: {allow: }}", "routes.gmail.allow", "write []"),
    ("routes: {gmail: {scopes: [a b]}}", "routes.gmail.scopes[0]", "one scope"),
    ("routes: {gmail: {allow: [{}, {methods: [get]}]}}", "routes.gmail.allow[1].methods[0]", "upper case"),
    ("routes: {gmail: {prefix: gmail}}", "routes.gmail.prefix", "begin with `/`"),
    ("routes: {gmail: {prefix: /gmail/}}", "routes.gmail.prefix", "not end"),
    ("routes: {gmail: {prefix: /a//b}}", "routes.gmail.prefix", "begin with `/`"),
    ("routes: {gmail: {prefix: /a%2Fb}}", "routes.gmail.prefix", "letters"),
    ("routes: {gmail: {prefix: /a/../b}}", "routes.gmail.prefix", "no segment `.` or `..`"),
    ("routes: {gmail: {prefix: /.}}", "routes.gmail.prefix", "no segment `.` or `..`"),
    ("routes: {gmail: {prefix: ''}}", "routes.gmail.prefix", "is empty"),
    ("environment: prod", "environment", "did you mean `production`"),
    ("environment: 1", "environment", "development or staging or production"),
    ("audit: {durability: none}", "audit.durability", "batch or strict"),
    ("public_url: 5", "public_url", "put it in quotes"),
    ("public_url: ' https://x'", "public_url", "spaces around"),
    ('public_url: "https://x\\u200b"', "public_url", "cannot be seen"),
    ('public_url: "https://x\\r\\nX: y"', "public_url", "cannot be seen"),
    ("public_url: https://x/", "public_url", "without a slash at the end"),
    ("public_url: https://x?y", "public_url", "without a slash"),
    ("public_url: https://u:p@x", "public_url", "without a slash"),
    ("public_url: auth.example.com", "public_url", "https://"),
    ("identity: {callers: [{}]}", "identity.callers[0].kind", "is missing"),
    ("identity: {callers: [{kind: jwt}]}", "identity.callers[0].kind", "loopback or api_key"),
    (
        "identity: {callers: [{kind: loopback, may_act_for: ['a*b']}]}",
        "identity.callers[0].may_act_for[0]",
        "prefix",
    ),
    (
        "identity: {callers: [{kind: loopback, may_act_for: ['**']}]}",
        "identity.callers[0].may_act_for[0]",
        "prefix",
    ),
    ("providers: {acme: {client_auth: non}}", "providers.acme.client_auth", "did you mean `none`"),
    ("providers: {acme: {issuer: 'ftp://x'}}", "providers.acme.issuer", "must be a URL"),
    ("providers: {acme: {api_hosts: ['https://x']}}", "providers.acme.api_hosts[0]", "`host`"),
    ("providers: {acme: {client_id: 1234567890.12345}}", "providers.acme.client_id", "put it in quotes"),
]


@pytest.mark.parametrize(("text", "path", "said"), FORM)
def test_faults_of_form(text: str, path: str, said: str) -> None:
    assert said in errors_of(text)[path]


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("", 1, "empty"),
        ("# only a comment\n", 1, "empty"),
        ("null", 1, "mapping"),
        ("- version: 1", 1, "mapping"),
        ("version", 1, "mapping"),
        ("version: 1\nroutes: [", 3, "not YAML"),
        ("version: 1\n\tx: 2", 2, "not YAML"),
        ("version: 1\nroutes: {a: b: c}", 2, "not YAML"),
        ("version: 1\n---\nversion: 1", 2, "second document"),
        ("version: 1\nx: \x07", 2, "character"),
        ("version: 1\nx: \ud800", 1, "character"),
        ('x: "\\UFFFFFFFF"', 1, "not YAML"),
        ("%YAML 1" + "1" * 5000 + ".1\n---\nx", 1, "not YAML"),
        ("version: 1\nx: !!python/object/apply:os.system [id]", 2, "tag"),
        ("version: 1\nx: !!str y", 2, "tag"),
        ("version: 1\nx: *nobody", 2, "alias"),
        ("a: &a [*a]", 1, "alias"),
        ("[" * 100_000, 1, "nested"),
        ("a: " * 500, 1, "YAML"),
        ("x" * (2**20 + 1), 1, "characters"),
        ("version: 1\nx: [" + "a," * 250_000 + "]", 2, "values"),
    ],
)
def test_texts_that_are_no_configuration(text: str, line: int, said: str) -> None:
    (fault,) = faults_of(text)
    assert (fault.file, fault.severity, fault.line) == ("routes.yaml", "error", line)
    assert said in fault.message


def test_aliases_of_aliases_are_bounded() -> None:
    laughs = "version: 1\nroutes:\n"
    laughs += "  r0: {provider: p, scopes: &s [" + ", ".join(["a"] * 2000) + "]}\n"
    laughs += "".join(f"  r{i}: {{provider: p, scopes: *s}}\n" for i in range(1, 400))
    assert any("aliases" in fault.message for fault in faults_of(laughs))


def test_duplicate_keys_are_faults_where_they_are() -> None:
    text = "version: 1\nroutes:\n  gmail: {}\n  slack: {}\n  gmail:\n    scopes: [x]\nroutes: {}\n"
    found = [(fault.line, fault.path) for fault in faults_of(text) if "twice" in fault.message]
    assert found == [(5, "routes.gmail"), (7, "routes")]


def test_every_fault_is_reported_in_the_file_s_order() -> None:
    text = """version: 2
environmnt: production
identity:
  user_header: Authorization
  callers:
    - kind: loopbck
providers:
  acme:
    issuer: https://id.acme.example
    client_id: x
    client_auth: none
    api_hosts: [api.acme.example]
routes:
  gmail:
    allow:
      - methods: [get]
        paths: ["messages"]
  acme:
    upstream: https://elsewhere.example
    provider: acme
  lost: {provider: acmee}
refresh:
  lease: 20
"""
    faults = faults_of(text)
    assert [(fault.line, fault.path) for fault in faults if fault.severity == "error"] == [
        (1, "version"),
        (2, "environmnt"),
        (4, "identity.user_header"),
        (6, "identity.callers[0].kind"),
        (14, "routes.gmail.provider"),
        (16, "routes.gmail.allow[0].methods[0]"),
        (17, "routes.gmail.allow[0].paths[0]"),
        (19, "routes.acme.upstream"),
        (21, "routes.lost.provider"),
        (23, "refresh.lease"),
    ]
    said = str(ConfigFaults(faults))
    assert (
        "routes.yaml:2: error: environmnt: `environmnt` is not a key here (did you mean `environment`?)"
        in said
    )


def test_faults_are_many_but_bounded() -> None:
    faults = faults_of("version: 1\n" + "".join(f"k{i}: x\n" for i in range(1000)))
    assert len(faults) == 201
    assert sum("more faults" in fault.message for fault in faults) == 1


# --- secrets -------------------------------------------------------------------------------------------------------

SECRET = "providers: {google: {client_id: x, client_secret: %s}}"


@pytest.mark.scenario("C10")
@pytest.mark.parametrize("source", ["env", "file"])
@pytest.mark.parametrize(
    "raw",
    [
        "s3\n",
        "s3\r\n",
        "\ufeffs3",
        "\ufeff \ts3\n\ufeff",
        "s3 ",
        "\u00a0s3",
        "s3\u00a0\n",
        "\u200bs3",
        "s3\u2028",
    ],
)
def test_whitespace_around_a_secret_is_left_out_with_a_warning(source: str, raw: str) -> None:
    text = SECRET % f"{source}:KEY"
    found = reading("version: 1\n" + text, {"KEY": raw}, read_file=lambda path: raw)
    assert found.config.providers["google"].client_secret == Secret("s3")
    (warning,) = [w for w in found.warnings if w.path == "providers.google.client_secret"]
    assert (warning.line, warning.severity) == (2, "warning")
    assert f"{source}:KEY" in warning.message
    assert "s3" not in warning.message


@pytest.mark.scenario("C10")
@pytest.mark.parametrize(
    "raw", ["a\nb", "a\x00b", "a\x7fb", "a\x1bb", "a\u200bb", "a\udc80b", "a\u2028b", "a\x85b", "x" * 70000]
)
@pytest.mark.parametrize("environment", ["development", "production"])
def test_control_characters_inside_a_secret_are_refused(raw: str, environment: str) -> None:
    text = f"environment: {environment}\npublic_url: https://x\n{SECRET % 'env:KEY'}"
    message = errors_of(text, {"KEY": raw})["providers.google.client_secret"]
    assert "control characters" in message
    assert raw not in message


def test_spaces_and_letters_inside_a_secret_are_the_operator_s() -> None:
    assert config_of(SECRET % "env:KEY", {"KEY": "a b é\u00a0c"}).providers["google"].client_secret == Secret(
        "a b é\u00a0c"
    )


MISSING: list[tuple[str, dict[str, str], str]] = [
    ("env:KEY", {}, "not set"),
    ("env:KEY", {"KEY": ""}, "empty"),
    ("env:KEY", {"KEY": " \n"}, "empty"),
    ("file:/run/key", {}, "No such file"),
]


@pytest.mark.scenario("C11")
@pytest.mark.parametrize(("reference", "environ", "said"), MISSING)
def test_a_missing_secret_is_a_warning_in_development_only(
    reference: str, environ: dict[str, str], said: str
) -> None:
    path = "providers.google.client_secret"
    found = reading("version: 1\n" + SECRET % reference, environ)
    assert found.config.providers["google"].client_secret is None
    (message,) = [w.message for w in found.warnings if w.path == path]
    assert message.startswith(reference)
    assert said in message
    for environment in ("staging", "production"):
        text = f"environment: {environment}\npublic_url: https://x\n{SECRET % reference}"
        assert said in errors_of(text, environ)[path]
        beaten = reading("version: 1\n" + text, environ, environment=Environment.DEVELOPMENT)
        assert beaten.config.environment is Environment.DEVELOPMENT


@pytest.mark.scenario("C11")
def test_the_command_line_s_environment_beats_the_file_s() -> None:
    text = "public_url: https://x\n" + SECRET % "env:KEY"
    assert "not set" in errors_of(text, environment=Environment.PRODUCTION)["providers.google.client_secret"]
    broken = "environment: prodution\n" + text
    assert {"environment", "providers.google.client_secret"} <= errors_of(broken).keys()


def test_a_file_that_cannot_be_read_as_text_is_an_error() -> None:
    def undecodable(path: str) -> str:
        return b"\xff".decode()

    def forbidden(path: str) -> str:
        raise PermissionError(13, "Permission denied")

    path = "providers.google.client_secret"
    assert "not UTF-8" in errors_of(SECRET % "file:x", read_file=undecodable)[path]
    assert "Permission denied" in warnings_of(SECRET % "file:x", read_file=forbidden)[path]


@pytest.mark.parametrize(
    "written",
    [
        CANARY,
        f"'{CANARY}'",
        f"env:{CANARY}",
        f"ENV:{CANARY.upper()}",
        "'env:'",
        "'file:'",
        "env:a-b",
        "''",
        f"[{CANARY}]",
        f"{{{CANARY}: x}}",
    ],
)
def test_a_literal_secret_is_refused_and_not_shown(written: str) -> None:
    text = SECRET % written
    message = errors_of(text)["providers.google.client_secret"]
    assert "env:NAME" in message or "single value" in message
    assert CANARY not in str(ConfigFaults(faults_of("version: 1\n" + text)))


@pytest.mark.parametrize(
    "text",
    [
        f"version: 1\nproviders: {{google: {{client_secret: *{CANARY}}}}}",
        f"version: 1\nproviders: {{google: {{client_secret: !{CANARY}}}}}",
        f"version: 1\nproviders: {{google: {{client_secret: !{CANARY}!x y}}}}",
        f"version: 1\nproviders: {{google: {{client_secret: '{CANARY}}}}}",
        f"version: 1\nproviders: {{google: {{client_secret: {CANARY}: x}}}}",
        f"version: 1\nproviders: {{google: {{client_id: '{CANARY}\\n', client_auth: {CANARY}}}}}",
        f"version: 1\nproviders: {{google: {{client_id: env:{CANARY}, pkce: {CANARY}, refresh_margin: {CANARY}}}}}",
        f"version: {CANARY}\npublic_url: {CANARY}\nenvironment: {CANARY}\nidentity: {CANARY}",
        f"version: 1\nlimits: {{max_body: {CANARY}}}",
        f"version: 1\nroutes: {{gmail: {{upstream: 'https://{CANARY}@x', prefix: {CANARY}, scopes: {CANARY}}}}}",
        f"%{CANARY} x\n---\nversion: 1",
        f"version: 1\negress: {{allow: ['{CANARY}/8']}}",
    ],
)
def test_no_message_shows_a_value(text: str) -> None:
    assert CANARY not in str(ConfigFaults(faults_of(text)))


# --- checks across keys --------------------------------------------------------------------------------------------

ROUTE = ACME + "routes: {acme: {upstream: https://api.acme.example/v2, provider: acme, %s}}"
PRODUCTION = "environment: production\npublic_url: https://auth.example.com\n"

ACROSS = [
    ("refresh: {deadline: 30, lease: 39.9}", "refresh.lease", "10 seconds more"),
    ("refresh: {backoff: 10, backoff_max: 5}", "refresh.backoff_max", "below"),
    ("limits: {max_line: 65537}", "limits.max_line", "max_header"),
    ("limits: {max_replay: 300000000}", "limits.max_replay", "replay_total"),
    ("environment: production", "public_url", "https outside development"),
    ("environment: staging\npublic_url: http://auth.example.com", "public_url", "https outside development"),
    ("public_url: https://bücher.example", "public_url", "xn--"),
    ("public_url: https://x:0", "public_url", "port"),
    ("public_url: https://x:99999", "public_url", "port"),
    (PRODUCTION + "flows: {next_uri_allow: ['http://app.example.com/']}", "flows.next_uri_allow[0]", "https"),
    (PRODUCTION + "identity: {verifier_url: 'http://app.example.com/v'}", "identity.verifier_url", "https"),
    ("flows: {next_uri_allow: ['https://app.example.com']}", "flows.next_uri_allow[0]", "whole host"),
    ("identity: {user_header: authorization}", "identity.user_header", "meaning"),
    ("identity: {user_header: Host}", "identity.user_header", "meaning"),
    ("identity: {user_header: COOKIE}", "identity.user_header", "meaning"),
    ("identity: {user_header: Content-Length}", "identity.user_header", "meaning"),
    ("identity: {user_header: Connection}", "identity.user_header", "meaning"),
    ("identity: {user_header: X-Authproxy-Account}", "identity.user_header", "meaning"),
    ("identity: {user_header: 'X User'}", "identity.user_header", "header name"),
    ("identity: {callers: [{kind: api_key, agent: x}]}", "identity.callers[0].agent", "own name"),
    ("identity: {callers: [{kind: api_key, operator: true}]}", "identity.callers[0].operator", "loopback"),
    ("identity: {callers: [{kind: api_key}, {kind: api_key}]}", "identity.callers[1]", "never reached"),
    ("egress: {allow: ['10.0.0.1/8']}", "egress.allow[0]", "canonically"),
    ("egress: {allow: ['http://x']}", "egress.allow[0]", "CIDR"),
    ("egress: {allow: ['10.0.0.0/8:x']}", "egress.allow[0]", "CIDR"),
    ("egress: {allow: ['127.1']}", "egress.allow[0]", "CIDR"),
    ("egress: {allow: ['h:0']}", "egress.allow[0]", "CIDR"),
    # providers
    ("providers: {gogle: {client_id: x}}", "providers.gogle", "did you mean `google`"),
    ("providers: {a: {catalogue: slck, client_id: x}}", "providers.a.catalogue", "did you mean `slack`"),
    ("providers: {a: {endpoints: {token: 'https://x/t'}}}", "providers.a", "endpoints.authorization"),
    ("providers: {slack: {environment: nowhere}}", "providers.slack", "environment"),
    (
        ACME + "    endpoints: {token: 'http://id.acme.example/t'}",
        "providers.acme.endpoints.token",
        "egress.allow",
    ),
    (ACME.replace("https://id", "http://id"), "providers.acme.issuer", "egress.allow"),
    (ACME.replace("https://id.acme", "https://id..acme"), "providers.acme.issuer", "host name"),
    (ACME + "    authorize_params: {state: x}", "providers.acme.authorize_params.state", "authproxy's own"),
    (PRODUCTION + ACME.replace("client_id: acme-id", ""), "providers.acme.client_id", "cannot be used"),
    (PRODUCTION + ACME.replace("client_auth: none", ""), "providers.acme.client_secret", "client_auth: none"),
    (
        PRODUCTION + ACME.replace("api_hosts: [api.acme.example]", ""),
        "providers.acme.api_hosts",
        "to which hosts",
    ),
    # routes
    ("routes: {gmal: {}}", "routes.gmal", "did you mean `gmail`"),
    ("routes: {gmail: {}}", "routes.gmail.provider", "not among the providers"),
    (ACME + "routes: {lost: {provider: acme}}", "routes.lost.upstream", "missing"),
    (
        ACME + "routes: {x: {provider: acmee, upstream: https://x}}",
        "routes.x.provider",
        "did you mean `acme`",
    ),
    (ROUTE.replace("https://api", "http://api") % "", "routes.acme.upstream", "egress.allow"),
    (ROUTE.replace("https://api.acme", "https://evil.acme") % "", "routes.acme.upstream", "may not be sent"),
    (ROUTE.replace("example/v2", "example/../v2") % "", "routes.acme.upstream", "plain host"),
    (ROUTE.replace("example/v2", "example./v2") % "", "routes.acme.upstream", "plain host"),
    (
        ROUTE.replace("api.acme.example/v2", "api.acme.example:443@x/v2") % "",
        "routes.acme.upstream",
        "without user",
    ),
    (ROUTE % "hosts: ['127.1']", "routes.acme.hosts[0]", "`host`"),
    (ROUTE % "allow: [{methods: [TRACE]}]", "routes.acme.allow[0].methods[0]", "never"),
    (ROUTE % "allow: [{methods: []}]", "routes.acme.allow[0].methods", "allow nothing"),
    (ROUTE % "allow: [{paths: []}]", "routes.acme.allow[0].paths", "allow nothing"),
    (ROUTE % "allow: [{paths: ['/v2/**', '/v2/{a,b}']}]", "routes.acme.allow[0].paths[1]", "special"),
    (ROUTE % "allow: [{paths: ['/v2/../x']}]", "routes.acme.allow[0].paths[0]", "dot segment"),
    (
        ACME + "routes:\n  a: {upstream: https://api.acme.example, provider: acme, prefix: /b}\n"
        "  b: {upstream: https://api.acme.example/b, provider: acme}",
        "routes.b",
        "same prefix as route `a`",
    ),
]


@pytest.mark.scenario("C07", "G22")
@pytest.mark.parametrize(("text", "path", "said"), ACROSS)
def test_checks_across_keys(text: str, path: str, said: str) -> None:
    assert said in errors_of(text)[path]


DOUBTFUL = [
    ("", "identity.callers", "every request will be refused"),
    ("public_url: http://dev.example.com", "public_url", "plain http"),
    (PRODUCTION + "identity: {callers: [{kind: loopback}]}", "identity.callers[0].may_act_for", "every user"),
    (ACME.replace("client_id: acme-id", ""), "providers.acme.client_id", "cannot be used"),
    (ACME + "    client_secret: env:S", "providers.acme.client_secret", "never sent"),
    (ROUTE % "allow: [{paths: ['/v1/**']}]", "routes.acme.allow[0].paths[0]", "can never match"),
    (
        ACME + "routes:\n  a: {upstream: https://api.acme.example, provider: acme, allow: []}\n"
        "  b: {upstream: https://api.acme.example, provider: acme}",
        "routes.b",
        "same upstream as route `a`",
    ),
    (
        "public_url: https://auth.example\nidentity: {callers: [{kind: loopback, operator: true}]}",
        "identity.callers[0].operator",
        "strangers",
    ),
]


@pytest.mark.parametrize(("text", "path", "said"), DOUBTFUL)
def test_doubtful_settings_are_warnings(text: str, path: str, said: str) -> None:
    assert said in warnings_of(text, {"S": "s"})[path]


@pytest.mark.parametrize("entry", ["svc.internal:8080", "svc.internal", "SVC.internal:8080"])
def test_plain_http_is_for_hosts_that_the_operator_names(entry: str) -> None:
    text = f"""
egress: {{allow: ["{entry}", "10.0.0.0/8", "127.0.0.1:8790", "[fd00::]/8:81"]}}
providers:
  acme:
    issuer: https://id.acme.example
    client_id: x
    client_auth: none
    api_hosts: [svc.internal, 10.1.2.3, "[fd00::1]", 127.0.0.1]
routes:
  a: {{upstream: http://svc.internal:8080, provider: acme}}
  b: {{upstream: http://10.1.2.3, provider: acme}}
  c: {{upstream: "http://[fd00::1]:81", provider: acme}}
"""
    assert len(config_of(text).routes) == 3
    for name, named, other in (
        ("b", "http://10.1.2.3", "http://127.0.0.1"),
        ("c", "[fd00::1]:81", "[fd00::1]:82"),
        ("a", "http://svc.internal:8080", "http://other.internal:8080"),
    ):
        assert "egress.allow" in errors_of(text.replace(named, other))[f"routes.{name}.upstream"]
    if ":" in entry:
        elsewhere = text.replace("http://svc.internal:8080", "http://svc.internal:9")
        assert "egress.allow" in errors_of(elsewhere)["routes.a.upstream"]


# --- the repository's own routes.yaml ------------------------------------------------------------------------------


def test_our_routes_yaml_works_in_development_without_any_variable() -> None:
    found = reading((ROOT / "routes.yaml").read_text())
    assert found.config.environment is Environment.DEVELOPMENT
    routes = RouteTable.build(found.config)
    assert {route.name for route in routes} >= {
        "gmail",
        "google-calendar",
        "google-drive",
        "slack",
        "salesforce",
        "github",
        "hubspot",
        "sandbox",
    }
    assert all(route.api_host for route in routes)
    assert {w.path.split(".")[1] for w in found.warnings} == {
        "google",
        "slack",
        "salesforce",
        "github",
        "github-app",
        "hubspot",
    }
    assert all(": is not set" in w.message for w in found.warnings)
    sandbox = routes.get("sandbox")
    assert sandbox is not None
    assert (sandbox.authority, sandbox.base_path) == (b"127.0.0.1:8790", b"/api")


def test_our_routes_yaml_is_ready_for_production() -> None:
    text = (ROOT / "routes.yaml").read_text()
    names = set(re.findall(r"env:(\w+)", text)) - {"NAME"}
    assert len(names) == 12
    text = text.replace("public_url: http://127.0.0.1:8701", "public_url: https://auth.example.com")
    found = reading(text, dict.fromkeys(names, "x"), environment=Environment.PRODUCTION)
    assert [w.path for w in found.warnings] == [
        "identity.callers[0].may_act_for",
        "identity.callers[0].operator",
    ]


# --- the schema and the table --------------------------------------------------------------------------------------

SCHEMA = Draft202012Validator(json_schema())


def valid(text: str) -> bool:
    return bool(SCHEMA.is_valid(yaml.safe_load(text)))


def test_the_schema_is_one_and_takes_our_files() -> None:
    Draft202012Validator.check_schema(json_schema())
    json.dumps(json_schema())
    for path in (ROOT / "routes.yaml", ROOT / "k8s" / "routes.yaml"):
        assert not list(SCHEMA.iter_errors(yaml.safe_load(path.read_text())))
    assert valid("version: 1\nroutes: {gmail: }\nlimits:\n")
    assert not valid("routes: {}")


# what only YAML's reader can tell, or YAML 1.1 reads otherwise
BEYOND_SCHEMA = {"<<: {}", "? [a]\n: b", "timeouts: {idle: .inf}", "timeouts: {idle: .nan}"}


@pytest.mark.parametrize("text", [text for text, _path, _said in FORM if text not in BEYOND_SCHEMA])
def test_the_schema_refuses_what_the_reader_refuses(text: str) -> None:
    # numbers and blanks that the YAML 1.1 of the test's own reader sees otherwise
    lenient = re.search(r"0x10|010\}|1_000|1:30|9999|yes|1e999|spaces|: ' |u200b|\\r", text)
    assert lenient or not valid("version: 1\n" + text)


def test_the_schema_has_the_sentences() -> None:
    schema = json_schema()
    assert schema["properties"]["environment"] == {
        "description": "Bound into every stored row",
        "enum": ["development", "staging", "production"],
        "default": "development",
    }
    route = schema["$defs"]["RouteChoice"]
    assert route["additionalProperties"] is False
    assert route["properties"]["max_body"]["minimum"] == 0
    assert schema["required"] == ["version"]
    for definition in schema["$defs"].values():
        assert all(value["description"] for value in definition["properties"].values())


def test_the_table_has_every_setting() -> None:
    rows = {row.path: row for row in settings()}
    assert len(rows) == len(settings())
    assert rows["routes.*.allow[].methods"].type == "list of text"
    assert rows["routes.*.allow[].methods"].default == "[*]"
    assert rows["providers.*.client_id"].type == "text or reference"
    assert rows["providers.*.client_secret"].type == "reference"
    assert rows["version"].default == "required"
    assert rows["timeouts.connect"].default == "10"
    assert rows["routes.*.send_cookies"].default == "false"
    assert rows["audit.durability"].type == "batch | strict"
    assert all(row.doc and row.doc == row.doc.strip() for row in rows.values())


# --- properties ----------------------------------------------------------------------------------------------------

LINES = """version: 1|environment: production|providers:|routes:|identity:|  google:|  gmail:|    client_id: env:A|
    client_secret: file:b|    scopes: [a, b]|    allow:|      - methods: [GET]|        paths: ["/x/**"]|  callers:|
    - kind: loopback|- a|&a|*a|<<: *a|? x|: y|!t x|"\\x00"|'|"|{|}|[|]|#|---|...|%YAML 1.1||>|\t|  x: &b {c: *b}|
timeouts: {idle: 1e3}|refresh: {lease: 1}|egress: {allow: ["::/0"]}|\ufeff|\u2028|\x85""".replace(
    "|\n", "|"
).split("|")


def never_anything_else(text: str) -> None:
    try:
        found = read(text, file="f", environ={"A": "\udcff"}, read_file=no_file)
    except ConfigFaults as exc:
        faults = exc.faults
    else:
        faults = found.warnings
        RouteTable.build(found.config)
    assert all(fault.line >= 1 and fault.message and str(fault).encode() for fault in faults)


@examples(max_examples=600, deadline=None)
@given(st.lists(st.sampled_from(LINES), max_size=14).map("\n".join))
@example("version: 1\nroutes: {? {} : x}")
def test_any_arrangement_of_lines_is_read_or_refused(text: str) -> None:
    never_anything_else(text)


@examples(max_examples=400, deadline=None)
@given(st.text(max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    never_anything_else(text)
    never_anything_else("version: 1\n" + text)


LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(["env:A", "/x", "*", "https://x"]),
)
KEYS = st.sampled_from(
    sorted(
        {part for row in settings() for part in re.split(r"[.\[\]*]+", row.path) if part}
        | {"google", "gmail", "x"}
    )
)
TREES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)


@examples(max_examples=400, deadline=None)
@given(st.dictionaries(KEYS, TREES, max_size=5))
def test_any_tree_is_read_or_refused(tree: dict[str, Any]) -> None:
    never_anything_else(yaml.safe_dump({**tree, "version": 1}))
