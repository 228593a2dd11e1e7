"""`authproxy agents`: create, list or revoke agent keys."""

from __future__ import annotations

import argparse
from collections.abc import Mapping

from authproxy.cli.console import DONE, facts, instant, say, say_json, table
from authproxy.cli.options import json_option, store_options, tenant_option
from authproxy.cli.spans import seconds


def arguments(parser: argparse.ArgumentParser, environ: Mapping[str, str]) -> None:
    actions = parser.add_subparsers(metavar="ACTION", required=True, dest="action")
    create = actions.add_parser("create", help="make a key; it is shown once")
    create.add_argument("name", help="what the agent is called in pages and in the trail")
    create.add_argument(
        "--user",
        action="append",
        dest="users",
        metavar="USER",
        help="a user it may act for, or a prefix ending in *; repeatable (default: *, all)",
    )
    create.add_argument(
        "--operator", action="store_true", help="may use the operators' part of the control plane"
    )
    create.add_argument("--expires", type=seconds, metavar="SPAN", help="life of the key: 90d, 12h, 30m")
    listing = actions.add_parser("list", help="all keys of the tenant, without their texts")
    revoke = actions.add_parser("revoke", help="end a key; every process refuses it within seconds")
    revoke.add_argument("id", help="agt_…")
    for one in (create, listing, revoke):
        store_options(one, environ)
        tenant_option(one)
        json_option(one)


def run(args: argparse.Namespace) -> int:
    from authproxy.cli.session import operator, with_control
    from authproxy.control import views
    from authproxy.control.panel import Control

    caller = operator(args.tenant)

    async def create(control: Control) -> int:
        made = await control.agents.create(
            caller,
            name=args.name,
            may_act_for=tuple(args.users or ("*",)),
            operator=args.operator,
            lifetime=args.expires,
        )
        if args.json:
            say_json({**views.agent(made.agent), "key": made.key})
            return DONE
        facts(
            {
                "id": made.agent.id,
                "agent": made.agent.name,
                "may act for": " ".join(made.agent.may_act_for),
                "expires": instant(made.agent.expires_at, unknown="never"),
                "key": made.key,
            }
        )
        say("\nThe key is shown this once. Give it to the agent, for example as its proxy's password:")
        say(f"  HTTPS_PROXY=http://USER:{made.key[:8]}…@127.0.0.1:8700")
        return DONE

    async def listing(control: Control) -> int:
        found = await control.agents.list(caller)
        if args.json:
            say_json([views.agent(one) for one in found])
            return DONE
        table(
            ("id", "agent", "may act for", "operator", "created", "expires", "revoked"),
            [
                (
                    one.id,
                    one.name,
                    " ".join(one.may_act_for),
                    "yes" if one.operator else "no",
                    instant(one.created_at),
                    instant(one.expires_at, unknown="never"),
                    instant(one.revoked_at),
                )
                for one in found
            ],
        )
        return DONE

    async def revoke(control: Control) -> int:
        one = await control.agents.revoke(caller, args.id)
        if args.json:
            say_json(views.agent(one))
        else:
            say(f"{one.id} ({one.name}) is revoked since {instant(one.revoked_at)}")
        return DONE

    work = {"create": create, "list": listing, "revoke": revoke}[args.action]
    makes, changes = args.action == "create", args.action != "list"
    return with_control(args, work, must_exist=not makes, records=changes, makes_key=makes)
