"""Finds the command that was named, and turns what goes wrong into an exit code and a sentence."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from shutil import get_terminal_size
from textwrap import fill
from typing import NamedTuple, Protocol

from authproxy import __version__
from authproxy.cli.console import NOT_WELL, USAGE, Stop, complain
from authproxy.core.errors import Act, Refusal


class Command(Protocol):
    """What the module of a command offers."""

    def arguments(self, parser: argparse.ArgumentParser, environ: Mapping[str, str]) -> None:
        """Describe the command's arguments."""

    def run(self, args: argparse.Namespace) -> int:
        """Do it, and return the exit code."""


class Entry(NamedTuple):
    """One command: its module is imported only when it is named, so that `--help` and `serve` start quickly."""

    module: str
    does: str
    examples: str


COMMANDS: Mapping[str, Entry] = {
    "demo": Entry(
        "demo",
        "see the whole thing work, without any configuration",
        "authproxy demo\nauthproxy demo --serve",
    ),
    "serve": Entry(
        "serve",
        "run the proxy and its control plane",
        "authproxy serve --config routes.yaml\n"
        "authproxy serve --listen 127.0.0.1:8700 --control 127.0.0.1:8701 --store sqlite:///authproxy.db",
    ),
    "check": Entry(
        "check",
        "validate the configuration; every fault with file, line and path",
        "authproxy check --config routes.yaml\nauthproxy check --schema > routes.schema.json",
    ),
    "doctor": Entry(
        "doctor",
        "what is wrong between this configuration, the stored connections and the providers' rules",
        "authproxy doctor\nauthproxy doctor --config production.yaml --against staging.yaml\n"
        "authproxy doctor --online --provider google\nauthproxy doctor --explain D02",
    ),
    "connect": Entry(
        "connect",
        "connect a user's account: prints the link, waits for the end",
        "authproxy connect google --user alice\n"
        "authproxy connect github --user alice --scope repo --scope read:org --timeout 5m",
    ),
    "connections": Entry(
        "connections",
        "list, show, wait for, import, refresh or disconnect connections; never prints a token",
        "authproxy connections list --user alice\n"
        "authproxy connections show con_123\n"
        "authproxy connections wait con_123 --timeout 2h\n"
        "authproxy connections import google --user alice < refresh-token.txt\n"
        "authproxy connections disconnect con_123",
    ),
    "explain": Entry(
        "explain",
        "the timeline of one connection, and what to do now",
        "authproxy explain alice google",
    ),
    "agents": Entry(
        "agents",
        "create, list or revoke agent keys",
        "authproxy agents create mailer --user alice\nauthproxy agents list\nauthproxy agents revoke agt_123",
    ),
    "sessions": Entry(
        "sessions",
        "create, list or revoke sessions: credentials for one agent and one user",
        "authproxy sessions create mailer --user alice --route gmail --ttl 1h --renewable-for 7d\n"
        "authproxy sessions create reader --user alice --tool 'Gmail.*:read_only'\n"
        "authproxy sessions list\nauthproxy sessions revoke ses_123",
    ),
    "users": Entry(
        "users",
        "disable or enable a user, or list users: all that agents do for one ends within seconds",
        "authproxy users disable alice --reason 'left the company'\n"
        "authproxy users disable alice --keep-grants\n"
        "authproxy users enable alice\nauthproxy users list --disabled",
    ),
    "approvals": Entry(
        "approvals",
        "calls of tools that wait for a yes: list, show, approve or deny them",
        "authproxy approvals list\nauthproxy approvals show apr_123\nauthproxy approvals approve apr_123",
    ),
    "audit": Entry(
        "audit",
        "read, search, verify or export the trail",
        "authproxy audit tail --follow\n"
        "authproxy audit query --user alice --kind request --since 1h\n"
        "authproxy audit verify\n"
        "authproxy audit export --since 7d > audit.jsonl",
    ),
    "ca": Entry(
        "ca",
        "show the local certificate authority, or a bundle with it",
        "authproxy ca show > authproxy-ca.pem\nauthproxy ca bundle --output bundle.pem",
    ),
    "run": Entry(
        "run",
        "start a command behind the proxy: proxy and CA variables are set for it",
        "authproxy run --user alice -- python agent.py\n"
        "authproxy run --user alice -- curl https://gmail.googleapis.com/gmail/v1/users/me/profile",
    ),
    "mcp": Entry(
        "mcp",
        "speak MCP on standard input and output, for clients that start their servers as programs",
        "authproxy mcp --user alice\n"
        "AUTHPROXY_AGENT_KEY=apx_… authproxy mcp --control https://auth.example.com --user alice --toolkit Gmail",
    ),
    "keys": Entry(
        "keys",
        "make sealing keys, and change them while serve runs",
        "authproxy keys generate > authproxy.keys\n"
        "authproxy keys rotate\nauthproxy keys status\nauthproxy keys reseal\nauthproxy keys prune",
    ),
    "wait": Entry(
        "wait",
        "return when a running serve is ready",
        "authproxy wait && exec python agent.py\nauthproxy wait --timeout 0 --control 127.0.0.1:8701",
    ),
    "sandbox": Entry(
        "sandbox",
        "run a provider that behaves like production",
        "authproxy sandbox --port 9000\nauthproxy sandbox --dialect google --set access_token_life=30",
    ),
    "rehearse": Entry(
        "rehearse",
        "play the production failures against the sandbox: what broke, what agents saw, what survived",
        "authproxy rehearse\n"
        "authproxy rehearse --scene revocation invalid-client --report rehearsal.md\n"
        "authproxy rehearse --config routes.yaml --route sandbox --provider sandbox "
        "--listen http://127.0.0.1:8700 --sandbox http://127.0.0.1:8790",
    ),
    "bench": Entry(
        "bench", "measure what the proxy costs on this machine", "authproxy bench\nauthproxy bench --json"
    ),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Exit codes: 0 done, 1 the thing asked about is not well, 2 usage or configuration."""
    words = list(sys.argv[1:] if argv is None else argv)
    parser, chosen = _parser(words, os.environ)
    args, more = parser.parse_known_args(words)
    if more:  # a token typed in the wrong place must not be said once more
        parser.error(f"unrecognized arguments: {' '.join(map(_without_value, more))}")
    if chosen is None:
        parser.print_help()
        return USAGE
    try:
        return chosen.run(args)
    except Stop as stop:
        for line in stop.lines:
            complain(line)
        return stop.code
    except Refusal as refusal:
        complain(refusal.title)
        return (
            USAGE
            if refusal.act in (Act.FIX_REQUEST, Act.TELL_OPERATOR) and refusal.status not in (404, 409)
            else NOT_WELL
        )
    except BrokenPipeError:  # `authproxy audit tail | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return 130


def _without_value(word: str) -> str:
    name, equals, _ = word.partition("=")
    return (f"{name}=…" if equals else name) if word.startswith("-") else "…"


def _parser(
    words: Sequence[str], environ: Mapping[str, str]
) -> tuple[argparse.ArgumentParser, Command | None]:
    parser = argparse.ArgumentParser(
        prog="authproxy",
        description="A sidecar forward proxy that injects each user's OAuth credentials.",
        epilog="Begin with `authproxy demo`. Each command has --help with examples.",
    )
    parser.add_argument("--version", action="version", version=f"authproxy {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", dest="command")
    named = next((word for word in words if not word.startswith("-")), None)
    chosen: Command | None = None
    for name, entry in COMMANDS.items():
        examples = "\n".join(f"  {line}" for line in entry.examples.splitlines())
        one = commands.add_parser(
            name,
            help=entry.does,
            description=entry.does[0].upper() + entry.does[1:] + ".",
            epilog=f"examples:\n{examples}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        if name == named:
            chosen = _module(entry.module)
            chosen.arguments(one, environ)
            # The formatter keeps the examples' lines as they are, and the description's with them.
            one.description = fill(one.description or "", max(40, get_terminal_size().columns - 2))
    return parser, chosen


def _module(name: str) -> Command:
    module: Command = import_module(f"authproxy.cli.{name}")
    return module
