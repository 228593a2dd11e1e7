"""`authproxy sandbox`: a provider that behaves like production, to rehearse with."""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import signal
from collections.abc import Mapping

from authproxy.cli.console import DONE, NOT_WELL, Stop, say
from authproxy.cli.options import option, port


def arguments(parser: argparse.ArgumentParser, environ: Mapping[str, str]) -> None:
    option(
        parser,
        "--port",
        environ,
        says="port on 127.0.0.1 (default: 8790; 0: a free one)",
        default=8790,
        read=port,
        variable="AUTHPROXY_SANDBOX_PORT",
    )
    parser.add_argument(
        "--dialect", default="standard", help="which provider to behave like (default: standard)"
    )
    parser.add_argument(
        "--user", action="append", dest="users", metavar="NAME", help="a user there; repeatable"
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        dest="switches",
        metavar="SWITCH=VALUE",
        help="the first position of a switch; repeatable (--list-switches shows them)",
    )
    parser.add_argument("--list-switches", action="store_true", help="print the switches and stop")


def run(args: argparse.Namespace) -> int:
    from authproxy.sandbox import Sandbox, Settings, SwitchError, Switches, position

    if args.list_switches:
        for name, field in Switches.known().items():
            say(f"{name}: {field.metadata['doc']}")
        return DONE
    try:
        settings = Settings(dialect=args.dialect, switches=dict(position(text) for text in args.switches))
        if args.users:
            settings = dataclasses.replace(settings, users=tuple(args.users))
        sandbox = Sandbox(settings)
    except (SwitchError, ValueError) as error:
        raise Stop(str(error)) from None
    return asyncio.run(_serve(sandbox, args.port))


async def _serve(sandbox: object, port: int) -> int:
    from authproxy.sandbox import Sandbox

    assert isinstance(sandbox, Sandbox)
    done = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, done.set)
    try:
        url = await sandbox.start(port=port)
    except OSError as error:
        raise Stop(f"127.0.0.1:{port} cannot be listened on: {error.strerror}", code=NOT_WELL) from None
    place = url.removeprefix("http://")
    say(f"sandbox provider at {url} (dialect {sandbox.settings.dialect}); stop it with Ctrl-C")
    say("clients: " + ", ".join(client.client_id for client in sandbox.settings.clients))
    say("users:   " + ", ".join(sandbox.settings.users))
    say(f"""
In routes.yaml:

providers:
  sandbox:
    issuer: "{url}"
    client_id: authproxy-dev
    client_auth: none
    api_hosts: ["{place}"]
routes:
  sandbox:
    upstream: "{url}/api"
    provider: sandbox
    scopes: [read]
egress:
  allow: ["{place}"]

To break it while it runs:

curl {url}/admin/switches   # every switch, where it stands, and what it means
curl -H 'Content-Type: application/json' -d '{{"drop": "after", "next_calls": 1}}' {url}/admin/switches
curl -X PUT -H 'Content-Type: application/json' {url}/admin/switches   # all back to where they began
curl -H 'Content-Type: application/json' -d '{{"user": "alice"}}' {url}/admin/expire   # or revoke-user, password-change
curl {url}/admin/ledger   # every grant and every call: what was spent, and what came back""")
    try:
        await done.wait()
    finally:
        await sandbox.close()
    return DONE
